"""Pictures of a run: how it learned to learn, and what adaptation does to the paths that are walked."""

# M mazes, K inner steps, T steps of a path

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullFormatter

from protocol.wire.messages import Attempts
from protocol.world.maze import MOVES, Mazes
from protocol.world.states import StateTable

Cells = npt.NDArray[np.int64]  # [T + 1] the cells of a path, from the start on

BEFORE, AFTER = "#b8674a", "#2b6c8f"
FLOOR, WALL, START, EXIT = "#f6f3ec", "#2c2f36", "#3b8f4a", "#c8352c"
PATH_COLOURS = "plasma"
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def learning_curve(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success and steps ÷ shortest of training mazes, before and after adaptation, by update and by time."""
    axes = {"update": [record["update"] for record in records], "minutes of training": minutes(records)}
    figures = {"success": "success rate", "ratio": "steps ÷ shortest path"}
    picture, grid = plt.subplots(2, 2, figsize=(10, 6.4), sharex="col", sharey="row", layout="constrained")
    for row, (figure, title) in zip(grid, figures.items(), strict=True):
        for axis, (name, along) in zip(row, axes.items(), strict=True):
            for when, colour in (("before", BEFORE), ("after", AFTER)):
                values = np.array([record[f"{figure}_{when}"] for record in records], float)
                axis.plot(along, values, color=colour, alpha=0.18, linewidth=0.8)
                axis.plot(along, smoothed(values), color=colour, linewidth=2, label=f"{when} adaptation")
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            if figure == "ratio":
                axis.set_xlabel(name)
        row[0].set_ylabel(title)
    grid[0, 0].legend(frameon=False, loc="lower right")
    _ratio_scale(grid[1, 0])
    picture.savefig(path, dpi=150)
    plt.close(picture)


def minutes(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Time spent on training until each update."""
    return list(np.cumsum([record["seconds"] for record in records]) / 60)


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of each value and its neighbours: a fiftieth of the run, fewer at its ends."""
    reach = max(1, len(values) // 100)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))


def _ratio_scale(axis: Axes) -> None:
    """1 is the floor, and what matters happens near it: a logarithmic axis with plain numbers."""
    axis.set_yscale("log")
    axis.set_ylim(bottom=0.98)
    axis.yaxis.set_major_locator(FixedLocator([1, 1.2, 1.5, 2, 3, 5, 10, 20, 50]))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Walk:
    """A path to draw."""

    title: str
    cells: Cells


def adaptation(
    mazes: Mazes, table: StateTable, stages: Sequence[Attempts], names: Sequence[str], each: int, path: Path
) -> None:
    """A row per maze: the first attempt before adaptation and after every inner step; the shortest path."""
    heads = ["before adaptation", *(after(step * each) for step in range(1, len(stages))), "shortest path"]
    rows, columns = len(mazes), len(heads)
    size = (2.5 * columns + 0.3, 2.75 * rows + 0.3)
    picture, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for maze, row in enumerate(grid):
        row[0].set_ylabel(names[maze], fontsize=10)
        for axis, walk in zip(row, walks(table, stages, maze), strict=True):
            draw(axis, mazes, maze, walk)
    for axis, head in zip(grid[0], heads, strict=True):
        axis.set_title(f"{head}\n{axis.get_title()}", fontsize=10)
    picture.savefig(path, dpi=150)
    plt.close(picture)


def after(attempts: int) -> str:
    return f"after {attempts} attempt{'s' if attempts > 1 else ''}"


def walks(table: StateTable, stages: Sequence[Attempts], maze: int) -> list[Walk]:
    """The paths of one row."""
    paths = [first_attempt(table, attempts, maze) for attempts in stages]
    shortest = shortest_path(table, maze)
    titles = [
        f"{len(cells) - 1} steps" + ("" if cells[-1] == shortest[-1] else ", exit not found")
        for cells in paths
    ]
    best = Walk(f"{len(shortest) - 1} steps", shortest)
    return [*(Walk(title, cells) for title, cells in zip(titles, paths, strict=True)), best]


def first_attempt(table: StateTable, attempts: Attempts, maze: int) -> Cells:
    """Where the first attempt at `maze` went."""
    begin = int(attempts.length[:maze].sum(dtype=np.int64))
    pairs = attempts.visits[begin : begin + int(attempts.length[maze, 0])].astype(np.int64)
    state_T, move_T = np.divmod(pairs, len(MOVES))
    return np.append(table.cell_MS[maze, state_T], _target(table, maze, state_T[-1], move_T[-1]))


def shortest_path(table: StateTable, maze: int) -> Cells:
    """A shortest way from start to exit: always on to a state that is nearer."""
    state, cells = 0, [int(table.cell_MS[maze, 0])]
    distance_S = np.append(table.distance_MS[maze], 0)
    while distance_S[state]:
        move = int(np.argmin(distance_S[table.next_MSA[maze, state]]))
        cells.append(_target(table, maze, state, move))
        state = int(table.next_MSA[maze, state, move])
    return np.array(cells)


def _target(table: StateTable, maze: int, state: int, move: int) -> int:
    """The cell that a move leads to, be it the exit."""
    cell = int(table.cell_MS[maze, state])
    if table.next_MSA[maze, state, move] == state:
        return cell
    down, right = MOVES[move]
    return cell + down * table.side + right


def draw(axis: Axes, mazes: Mazes, maze: int, walk: Walk) -> None:
    """A maze and a path in it, coloured from dark to bright as time goes by."""
    axis.imshow(mazes.blocked[maze], cmap=ListedColormap([FLOOR, WALL]), vmin=0, vmax=1)
    at_T2 = spread(walk.cells, mazes.side)
    segments = np.stack([at_T2[:-1], at_T2[1:]], axis=1)
    lines = LineCollection(list(segments), cmap=PATH_COLOURS, linewidth=1.8, capstyle="round")
    lines.set_array(np.linspace(0, 0.9, len(segments)))
    lines.set_clim(0, 1)
    axis.add_collection(lines)
    for cell, marker, colour in ((mazes.start[maze], "o", START), (mazes.exit[maze], "*", EXIT)):
        row, column = divmod(int(cell), mazes.side)
        size = 520 / mazes.side * (2 if marker == "*" else 1)
        axis.scatter([column], [row], s=size, marker=marker, color=colour, edgecolors="white", zorder=3)
    axis.set_title(walk.title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def spread(cells: Cells, side: int) -> npt.NDArray[np.float64]:
    """[T + 1, 2] (column, row) of every step; visits of one cell drift from its centre."""
    seen: dict[int, int] = {}
    points = []
    for cell in cells.tolist():
        visit = seen.get(cell, 0)
        seen[cell] = visit + 1
        radius = 0.34 * (1 - 0.6**visit)
        row, column = divmod(cell, side)
        points.append(
            (column + radius * math.cos(visit * GOLDEN_ANGLE), row + radius * math.sin(visit * GOLDEN_ANGLE))
        )
    return np.array(points)
