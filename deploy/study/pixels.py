"""Paints a maze and a way through it as pixels, with numpy alone."""

# M mazes, C cells of all mazes (here of the one maze), T steps of an attempt

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from protocol.world.cells import EXIT, TRAP, WALL, Indices
from protocol.world.maze import Mazes

FLOOR, STONE, START_MARK, EXIT_MARK, TRAP_MARK = "#f6f3ec", "#3a3d45", "#009e73", "#e8442a", "#000000"
ROBOT_MARK = "#0072b2"
EARLY, MIDDLE, LATE = "#0d0887", "#cc4778", "#f89540"  # the colours of a way as time goes by, those of "plasma"

Picture = npt.NDArray[np.uint8]  # [pixels from top to bottom, pixels from left to right, 3] red, green, blue


def tile_of(maze: Mazes, most: int) -> int:
    """Returns how many pixels wide a cell is, so that one maze is about `most` pixels large."""
    return max(4, min(32, most // int(maze.shape_M2.max())))


def painted(maze: Mazes, way: Indices, tile: int, steps: int | None = None) -> Picture:
    """Paints one maze, the way of a robot until now, and the robot at its end.

    Args:
      way: [T + 1] numbers of cells of the maze, from the start on.
      tile: how many pixels wide a cell is.
      steps: how long the way is going to be, where that is known: its colours do not change while it grows.
    """
    rows, columns = maze.shape_M2[0].tolist()
    kind = maze.cell_C.reshape(rows, columns)
    picture = np.where(kind[..., None] == WALL, rgb(STONE), rgb(FLOOR)).repeat(tile, 0).repeat(tile, 1)
    for cell in zip(*np.nonzero(kind == EXIT), strict=True):
        _stamp(picture, cell, tile, np.ones((tile, tile), np.bool_), EXIT_MARK)
    for cell in zip(*np.nonzero(kind == TRAP), strict=True):
        _stamp(picture, cell, tile, _cross(tile), TRAP_MARK)
    _stamp(picture, divmod(int(maze.start_M[0]), columns), tile, _disc(tile, 0.5), START_MARK)
    shade_T3 = _shades(max(steps or 0, len(way) - 1))
    _paint_way(picture, [divmod(cell, columns) for cell in way.tolist()], shade_T3, tile)
    _stamp(picture, divmod(int(way[-1]), columns), tile, _disc(tile, 0.4), ROBOT_MARK)
    return picture


def rgb(colour: str) -> Picture:
    """Returns red, green and blue [3] of a colour such as "#f6f3ec"."""
    return np.array(list(bytes.fromhex(colour[1:])), np.uint8)


def _paint_way(picture: Picture, places: list[tuple[int, int]], shade_T3: Picture, tile: int) -> None:
    """Paints a line from cell to cell, from dark to bright; a later visit covers an earlier one."""
    half = max(1, tile // 12)
    for shade, ((row, column), (to_row, to_column)) in zip(shade_T3, pairwise(places), strict=False):
        top, left = (tile * min(row, to_row) + tile // 2, tile * min(column, to_column) + tile // 2)
        high, wide = tile * abs(to_row - row), tile * abs(to_column - column)
        picture[top - half : top + high + half, left - half : left + wide + half] = shade


def _shades(steps: int) -> Picture:
    """Returns the colour of every step [T, 3]."""
    at = np.linspace(0, 1, steps)
    colours = np.stack([rgb(EARLY), rgb(MIDDLE), rgb(LATE)]).T
    return np.stack([np.interp(at, (0, 0.5, 1), colour) for colour in colours], axis=1).astype(np.uint8)


def _stamp(picture: Picture, cell: tuple[int, int], tile: int, shape: npt.NDArray[np.bool_], colour: str) -> None:
    """Colours those pixels of a cell that a shape covers."""
    row, column = (int(place) * tile for place in cell)
    picture[row : row + tile, column : column + tile][shape] = rgb(colour)


def _disc(tile: int, radius: float) -> npt.NDArray[np.bool_]:
    """Returns a disc in the middle of a cell; its radius is a share of the cell's width."""
    away = np.arange(tile) - (tile - 1) / 2
    disc: npt.NDArray[np.bool_] = away[:, None] ** 2 + away**2 <= (radius * tile) ** 2
    return disc


def _cross(tile: int) -> npt.NDArray[np.bool_]:
    """Returns the two diagonals of a cell."""
    along = np.eye(tile, dtype=np.bool_) | np.eye(tile, k=1, dtype=np.bool_) | np.eye(tile, k=-1, dtype=np.bool_)
    return along | along[::-1]
