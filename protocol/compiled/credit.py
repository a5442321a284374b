"""Machine code of `learning/credit.py`, of the situations of `learning/inner.py`, and of `learner.baseline`."""

# W attempts, N steps of all attempts, C cells of all mazes, A moves, S situations, J facts that hindsight knows of a
# step, F features of the baseline

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.world.cells import UNREACHABLE


@machine_code
def fill_leaving(length_W: Numbers, at_N: Numbers, cells: int, leaving_N: Numbers) -> None:
    """Fills `leaving_N` [N] as `credit.leaving_row` does. `cells`: C."""
    last_C = np.zeros(cells, np.intp)
    first = 0
    for length in length_W:
        for row in range(first, first + length):
            last_C[at_N[row]] = row
        for row in range(first, first + length):
            leaving_N[row] = last_C[at_N[row]]
        first += length


@machine_code
def fill_path(length_W: Numbers, leaving_N: Numbers, path_N: Numbers) -> None:
    """Fills `path_N` [N], which is False everywhere, as `credit.on_path` does."""
    first = 0
    for length in length_W:
        row, first = first, first + length
        while row < first:
            row = leaving_N[row]
            path_N[row] = True
            row += 1


@machine_code
def fill_hindsight(
    known_JN: Numbers,
    ahead_CA: Numbers,
    way_C: Numbers,
    at_N: Numbers,
    move_N: Numbers,
    leaving_N: Numbers,
    path_N: Numbers,
    found_W: Numbers,
    time_N: Numbers,
    horizon_W: Numbers,
    attempt_N: Numbers,
    soon: float,
) -> None:
    """Fills in the rows of `credit.hindsight` from the third on. `soon`: 1 / (1 + attempts that are left)."""
    for row in range(len(at_N)):
        at, attempt = at_N[row], attempt_N[row]
        to = ahead_CA[at, move_N[row]]
        known = way_C[at] != UNREACHABLE and way_C[to] != UNREACHABLE
        known_JN[2, row] = found_W[attempt]
        known_JN[3, row] = path_N[row]
        known_JN[4, row] = leaving_N[row] == row
        known_JN[5, row] = to == at
        known_JN[6, row] = time_N[row] / horizon_W[attempt]
        known_JN[7, row] = known and way_C[to] < way_C[at]
        known_JN[8, row] = known and way_C[to] > way_C[at]
        known_JN[9, row] = soon
        known_JN[10, row] = 1


def numbered(code_N: Numbers) -> tuple[Numbers, Numbers]:
    """Numbers codes [N] in the order in which they come, and says where each comes first [S]."""
    number_N, first_N = np.empty((2, len(code_N)), np.intp)
    return number_N, first_N[: fill_numbers(code_N, number_N, first_N)].copy()


@machine_code
def fill_numbers(code_N: Numbers, number_N: Numbers, first_N: Numbers) -> int:
    """Fills in both results of `numbered`, and returns S."""
    room = 16
    while room < 2 * len(code_N):
        room *= 2
    slot_of = np.full(room, -1, np.intp)  # a hash table of numbers, with open addressing
    count = 0
    for row in range(len(code_N)):
        mixed = np.uint64(code_N[row]) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.intp((mixed >> np.uint64(32)) & np.uint64(room - 1))
        while slot_of[slot] >= 0 and code_N[first_N[slot_of[slot]]] != code_N[row]:
            slot = (slot + 1) & (room - 1)
        if slot_of[slot] < 0:
            slot_of[slot], first_N[count] = count, row
            count += 1
        number_N[row] = slot_of[slot]
    return count


@machine_code
def fill_features(
    known_FN: Numbers,
    at_N: Numbers,
    time_N: Numbers,
    horizon_W: Numbers,
    attempt_N: Numbers,
    distance_C: Numbers,
    far_C: Numbers,
    near_C: Numbers,
    way_C: Numbers,
) -> None:
    """Fills `known_FN` [F, N] as `learner.baseline.features` does."""
    for row in range(len(at_N)):
        at, horizon = at_N[row], horizon_W[attempt_N[row]]
        time, far, way = time_N[row] / horizon, far_C[at], way_C[at]
        known_FN[0, row] = 1
        known_FN[1, row] = time
        known_FN[2, row] = time * time
        known_FN[3, row] = far
        known_FN[4, row] = near_C[at]
        known_FN[5, row] = far * time
        known_FN[6, row] = distance_C[at] < horizon - time_N[row]
        known_FN[7, row] = way
        known_FN[8, row] = way > 0
        known_FN[9, row] = way * far


@machine_code
def add_later(delta_N: Numbers, ends_N: Numbers, decay: float) -> None:
    """Adds to each step's difference what comes after it, as `learner.baseline.advantages` does."""
    later = decay  # the last step of all is an end
    for row in range(len(delta_N) - 1, -1, -1):
        if not ends_N[row]:
            delta_N[row] += decay * later
        later = delta_N[row]
