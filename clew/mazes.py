"""Mazes, as `clew` hands them out: drawn as text, read from files, drawn from families, taken from Gymnasium."""

# M mazes

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clew import tables
from deploy.process.settings import shortened, validated
from deploy.study import exam
from protocol.config import ClewError
from protocol.world import maze as grids


@dataclass(frozen=True)
class Maze:
    """One maze, drawn as text: `#` wall, `.` free, `S` start, `E` exit, `H` trap; or as micromouse competitions do."""

    text: str
    name: str = "maze"

    def __post_init__(self) -> None:
        """Raises ClewError where the text is not one maze with a way to an exit."""
        if not isinstance(self.text, str):
            raise ClewError(f"a maze is drawn as text, got {shortened(self.text)}; give lines such as 'S.\\n.E'")
        if len(self.grid) != 1:
            raise ClewError(f"the text holds {len(self.grid)} mazes, and a Maze is one; use clew.read_mazes for files")

    def __str__(self) -> str:
        return self.grid.to_text(0)

    @cached_property
    def grid(self) -> grids.Mazes:
        """Returns the maze as the arrays that clew computes with."""
        return grids.Mazes.from_text(self.text)

    @property
    def shape(self) -> tuple[int, int]:
        """Counts the rows and the columns, walls included."""
        rows, columns = self.grid.shape_M2[0].tolist()
        return rows, columns

    @property
    def shortest(self) -> int:
        """Counts the steps on the shortest way from the start to an exit."""
        return int(grids.shortest_M(self.grid)[0])


def read_mazes(path: str | Path) -> list[Maze]:
    """Reads the mazes of a text file, in its order; raises ClewError. The README says which forms there are."""
    return [Maze(named.maze.to_text(0), named.name) for named in grids.read_mazes(path)]


def sample(
    family: str | Sequence[str],
    side: int | Sequence[int],
    count: int = 1,
    seed: int = 0,
    *,
    held_out: bool = True,
    **settings: object,
) -> list[Maze]:
    """Draws mazes of a family, be it one of clew's or the "MODULE:FUNCTION" of your own; raises ClewError.

    Args:
      family: one, or a list: each has an equal share.
      side: cells along one edge, walls included; or a list.
      count: how many mazes to draw.
      seed: the same seed gives the same mazes, as `clew evaluate --seed` does.
      held_out: draws from the one maze in ten that no training ever sees, or from the other nine.
      settings: other settings of `maze` in the config, such as `exit="corner"` or `density=0.4`.
    """
    config = validated({"maze": {"family": family, "side": side, **settings}})
    require_whole("count", count)
    require_whole("seed", seed, least=0)
    names, _, mazes = exam.drawn(config.maze, None, None, count, seed, held_out=held_out)
    return [Maze(mazes.to_text(at), name) for at, name in enumerate(names)]


def mazes_of(given: object) -> list[Maze]:
    """Returns one maze or several as a list; raises ClewError where there is none, or something else."""
    all_given = list(given) if isinstance(given, Iterable) else [given]
    mazes = [one for one in all_given if isinstance(one, Maze)]
    if not mazes or len(mazes) < len(all_given):
        raise ClewError(f"mazes must be a clew.Maze or several, got {shortened(given)}; see clew.Maze and clew.sample")
    return mazes


def require_whole(name: str, value: object, least: int = 1) -> None:
    """Raises ClewError where a number is not whole, or too small."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ClewError(f"{name} must be a whole number from {least} on, got {shortened(value)}; change {name}")


def from_gymnasium(env: object) -> Maze:
    """Makes a maze of a Gymnasium environment whose transition table `P` is one; raises ClewError where it is not.

    FrozenLake (with `is_slippery=False`) and CliffWalking are such, and so is whatever has cells of a grid as states,
    four moves to the cells beside, and nothing left to chance. Where an episode ends with the highest reward is an
    exit; where it ends with less, and what throws a robot back to the start as CliffWalking's cliff does, is a trap,
    which in clew ends an attempt without reward. A maze's moves are clew's, whichever numbers the environment's have.
    """
    return Maze(tables.drawn(env), tables.name_of(env))
