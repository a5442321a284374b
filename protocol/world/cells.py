"""The kinds of cells of a maze, the moves between cells, and the types of the arrays that hold them."""

# A moves

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.config import ClewError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float32]

FREE, WALL, EXIT, TRAP = range(4)  # the kinds of cells
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left as (row, column)
A = len(MOVES)
BACK = 2  # move ^ BACK is the opposite move
NO_MOVE = A  # the "previous move" of the start
UNREACHABLE = np.iinfo(np.int32).max  # the distance where there is no way


class MazeError(ClewError):
    """A maze that cannot be used; the message names file, maze, line and remedy."""
