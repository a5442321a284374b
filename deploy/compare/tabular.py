"""Tabular Q-learning with optimistic values, from nothing, in each maze: ordinary reinforcement learning at its best.

Watkins and Dayan, "Q-learning", Machine Learning 8, 1992. Moves and rewards are certain, so a step size of 1 is the
best one; values that begin at the best that can be make a greedy robot explore, and let it learn in a time that is
polynomial (Koenig and Simmons, "Complexity analysis of real-time reinforcement learning", AAAI 1993).
"""

# M mazes, C cells of all mazes, E attempts at each maze, W walkers, A moves

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from deploy.compare.played import TARGET, Played
from deploy.study.exam import Exam
from protocol.world.cells import EXIT, TRAP, A, Bools, Ints

LONGER = 1.5  # it goes on for half as long again as it took, so that resamples of the mazes reach the target too
TIE = 1e-12  # values this close are equal; what is drawn among them is uniform

Values = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # takes attempts made, and the most that there will be


class QLearning:
    """The values of every move in every cell, and the greedy robot that learns them, one in each maze."""

    def __init__(self, exam: Exam, discount: float, sees: bool, rng: np.random.Generator) -> None:
        """Begins with value 1 for every move; a robot that `sees` never makes a move into a wall."""
        mazes = exam.mazes
        self._exam, self._discount, self._rng = exam, discount, rng
        self.ahead_CA = mazes.ahead_CA
        self.value_CA: Values = np.ones((mazes.cells, A))
        if sees:
            self.value_CA[self.ahead_CA == np.arange(mazes.cells)[:, None]] = -1.0
        self._end_C = (mazes.cell_C == EXIT) | (mazes.cell_C == TRAP)

    def attempt(self) -> tuple[Bools, Ints]:
        """Makes one attempt at each maze, learning at every step; returns [M] whether it found an exit, and its steps.

        The value of the move becomes the reward, 1 at an exit, plus the discounted best value of the cell it led to.
        """
        mazes, horizon_M = self._exam.mazes, self._exam.horizon_M
        walker_W, at_W = np.arange(len(mazes)), mazes.first_M.copy()
        found_M, steps_M = np.zeros(len(mazes), np.bool_), horizon_M.copy()
        for time in range(1, int(horizon_M.max()) + 1):
            value_WA = self.value_CA.take(at_W, axis=0)
            best_WA = value_WA >= value_WA.max(axis=1, keepdims=True) - TIE
            move_W = (self._rng.random(best_WA.shape, np.float32) + best_WA).argmax(axis=1)
            to_W = self.ahead_CA[at_W, move_W]
            kind_W, over_W = mazes.cell_C.take(to_W), self._end_C.take(to_W)
            later_W = self._discount * self.value_CA.take(to_W, axis=0).max(axis=1)
            self.value_CA[at_W, move_W] = np.where(over_W, kind_W == EXIT, later_W)
            done = walker_W[over_W & (kind_W == EXIT)]
            found_M[done], steps_M[done] = True, time
            going_W = ~over_W & (horizon_M.take(walker_W) > time)
            walker_W, at_W = walker_W[going_W], to_W[going_W]
            if not len(walker_W):
                break
        return found_M, steps_M


def until_learned(
    attempt: Callable[[], tuple[Bools, Ints]], exam: Exam, least: int, most: int, progress: Progress
) -> Played:
    """Makes attempts until they have reached TARGET and half as many again: `least` or more, and never over `most`.

    Args:
      attempt: makes one or more attempts at each maze; returns success and steps, [M] or [E, M].
    """
    found, steps, end, made = [], [], most, 0
    while made < end:
        found_EM, steps_EM = map(np.atleast_2d, attempt())
        found.append(found_EM)
        steps.append(steps_EM)
        made += len(steps_EM)
        progress(made, end)
        if end == most and (steps_EM.sum(axis=1) <= TARGET * exam.shortest_M.sum()).any():
            end = min(most, max(least, int(np.ceil(LONGER * made))))
    return Played(np.concatenate(found), np.concatenate(steps).astype(np.int32))
