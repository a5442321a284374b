"""Mazes, as `clew` hands them out: drawn as text, read from files, drawn from families, taken from Gymnasium."""

# M mazes

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clew import tables
from deploy.process.settings import validated
from deploy.study import exam
from protocol.config import ClewError
from protocol.world import families
from protocol.world import maze as grids


@dataclass(frozen=True)
class Maze:
    """One maze, drawn as text: `#` wall, `.` free, `S` start, `E` exit, `H` trap; or as micromouse competitions do."""

    text: str
    name: str = "maze"

    def __post_init__(self) -> None:
        """Raises ClewError where the text is not one maze with a way to an exit."""
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
    family: str, side: int, count: int = 1, seed: int = 0, *, held_out: bool = True, **settings: object
) -> list[Maze]:
    """Draws mazes of a family, be it one of clew's or the "MODULE:FUNCTION" of your own; raises ClewError.

    Args:
      side: cells along one edge, walls included.
      count: how many mazes to draw.
      seed: the same seed gives the same mazes, as `clew evaluate --seed` does.
      held_out: draws from the one maze in ten that no training ever sees, or from the other nine.
      settings: other settings of `maze` in the config, such as `exit="corner"` or `density=0.4`.
    """
    config = validated({"maze": {"family": family, "side": side, **settings}})
    if count < 1:
        raise ClewError(f"one maze at least is needed, got count={count}; give count=1 or more")
    require_seed(seed)
    if held_out:
        drawn = exam.held_out(config, None, None, count, seed)
        mazes, names = drawn.mazes, drawn.names
    else:
        mazes = families.sample(config.maze, count, np.random.default_rng([seed, 1]), held_out=False)
        names = tuple(f"{exam.kind_of(config.maze)}:{number}" for number in range(1, count + 1))
    return [Maze(mazes.to_text(at), name) for at, name in enumerate(names)]


def require_seed(seed: int) -> None:
    """Raises ClewError where a seed is negative."""
    if seed < 0:
        raise ClewError(f"a seed must be 0 or more, got {seed}; give another")


def from_gymnasium(env: object) -> Maze:
    """Makes a maze of a Gymnasium environment whose transition table `P` is one; raises ClewError where it is not.

    FrozenLake (with `is_slippery=False`) and CliffWalking are such, and so is whatever has cells of a grid as states,
    four moves to the cells beside, and nothing left to chance. Where an episode ends with the highest reward is an
    exit; where it ends with less, and what throws a robot back to the start as CliffWalking's cliff does, is a trap,
    which in clew ends an attempt without reward. A maze's moves are clew's, whichever numbers the environment's have.
    """
    return Maze(tables.drawn(env), tables.name_of(env))
