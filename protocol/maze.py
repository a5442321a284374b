"""A maze: text <-> grid, its states, where their moves lead, and what the robot sees in each state."""

# M mazes, n side, S states (padded to the largest maze), A moves, C = n*n cells (row-major), B cells seen around one

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocol.config import ClewError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column); A = 4
OPPOSITE = (2, 3, 0, 1)
NO_MOVE = 4  # the "previous move" of the start state
UNREACHABLE = np.iinfo(np.int32).max


class MazeError(ClewError):
    """A maze that cannot be used; the message names file, maze, line and remedy."""


@dataclass(frozen=True)
class Mazes:
    """M mazes of one side."""

    blocked: Bools  # [M, n, n] True where there is a wall
    start: Ints  # [M] cell, row * n + column
    exit: Ints  # [M] cell

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp] | Bools) -> Mazes:
        return Mazes(self.blocked[rows], self.start[rows], self.exit[rows])

    @property
    def side(self) -> int:
        return int(self.blocked.shape[-1])

    @staticmethod
    def concatenate(parts: Sequence[Mazes]) -> Mazes:
        """All mazes of `parts` (of one side), in order."""
        return Mazes(
            np.concatenate([part.blocked for part in parts]),
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.exit for part in parts]),
        )
