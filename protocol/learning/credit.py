"""The steps of attempts: what each did, what hindsight knows of it, and the credit that it gets.

An attempt (an episode) has one reward, 1 on reaching an exit, so its discounted return is R = found * gamma^(T-1),
and the score-function gradient of J = E[R] gives each of its steps the credit R - b, for any b that its moves do not
change. All here is numpy: nothing depends on theta, so actors and learner compute the same.
"""

# M mazes, E attempts at each maze, W = M*E attempts, T steps of an attempt, N steps of all attempts one after another,
# C cells of all mazes, Y cells of all attempts (each has a copy of its maze), J facts that hindsight knows of a step,
# A moves

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol import own
from protocol.compiled import compiled, plain
from protocol.config import ClewError, Config
from protocol.learning import exact
from protocol.world.cells import EXIT, UNREACHABLE, Bools, Floats, Indices, Ints
from protocol.world.maze import Mazes
from protocol.world.walk import Walk

HINDSIGHT = 11  # facts of a step that clew itself knows, beside those that functions of the user's own say
ADVANTAGE = 1  # the row of those facts that holds the advantage


@dataclass(frozen=True)
class Steps:
    """Every step of E attempts at each of M mazes, attempt after attempt."""

    walk: Walk
    mazes: Mazes
    attempts: int  # E
    maze_W: Indices  # [W] the number of the maze, m
    attempt_N: Indices  # [N] the number of the attempt, m * E + e
    time_N: Ints  # [N] t, from 0
    left_N: Ints  # [N] T - t: steps from here to the end of the attempt, this one included
    found_W: Bools  # [W] whether the attempt reached an exit
    horizon_W: Ints  # [W] steps after which it would have ended

    @staticmethod
    def of(walk: Walk, mazes: Mazes, horizon_M: Ints) -> Steps:
        """Collects the steps of `walk` through `mazes`. `horizon_M`: steps after which an attempt would have ended."""
        attempts = len(walk.length_W) // len(mazes)
        end_W = np.cumsum(walk.length_W)
        attempt_N = np.repeat(np.arange(len(walk.length_W)), walk.length_W)
        left_N = np.repeat(end_W, walk.length_W) - np.arange(len(walk.move_N))
        return Steps(
            walk=walk,
            mazes=mazes,
            attempts=attempts,
            maze_W=np.repeat(np.arange(len(mazes)), attempts),
            attempt_N=attempt_N,
            time_N=np.repeat(walk.length_W, walk.length_W) - left_N,
            left_N=left_N,
            found_W=mazes.cell_C[walk.end_W] == EXIT,
            horizon_W=np.repeat(horizon_M, attempts),
        )

    def returns(self, discount: float) -> Floats:
        """Computes the discounted return of each attempt [W]: R = found * gamma^(T-1)."""
        return_W: Floats = self.found_W * self._discounts(discount)[self.walk.length_W]
        return return_W

    def returns_to_go(self, discount: float) -> Floats:
        """Computes the discounted return from each step on [N]: found * gamma^(T-1-t)."""
        togo_N: Floats = np.repeat(self.found_W, self.walk.length_W) * self._discounts(discount).take(self.left_N)
        return togo_N

    def _discounts(self, discount: float) -> Floats:
        """Computes gamma^(t - 1) for every t from 0 to the longest attempt's T [T + 1]; it is 0 where t is 0."""
        longest = int(self.walk.length_W.max())
        return np.append(0.0, exact.powers(discount, longest)).astype(np.float32)


def horizons(mazes: Mazes, config: Config) -> Ints:
    """Counts the steps after which an attempt at each maze has failed [M]."""
    horizon_M: Ints = np.ceil(config.run.horizon_per_cell * mazes.count_M).astype(np.int32)
    return horizon_M


def leave_one_out(return_W: Floats, attempts: int) -> Floats:
    """Computes the advantage of each attempt [W] over the mean return of the others in its maze; R if it is alone."""
    if attempts == 1:
        return return_W
    each_ME = return_W.reshape(-1, attempts)
    apart_ME = each_ME - each_ME.mean(axis=1, keepdims=True)
    advantage_W: Floats = (apart_ME * np.float32(attempts / (attempts - 1))).reshape(-1)
    return advantage_W


def cell_advantage(togo_N: Floats, at_N: Indices, cells: int) -> Floats:
    """Computes the return to go less its mean over all visits to the same cell [N].

    Leaving a cell for the exit is better than leaving it for a dead end and coming back, and adaptation must see that
    difference; an attempt's return, alone or against other attempts', credits both departures alike.
    """
    visits_C, total_C = np.bincount(at_N, minlength=cells), np.bincount(at_N, togo_N, cells)
    mean_C = (total_C / np.maximum(visits_C, 1)).astype(np.float32)
    advantage_N: Floats = togo_N - mean_C.take(at_N)
    return advantage_N


def advantage(steps: Steps, config: Config) -> Floats:
    """Computes what the inner step reinforces [N], as InnerConfig.credit says."""
    if config.inner.credit == "policy-gradient":
        return leave_one_out(steps.returns(config.run.discount), steps.attempts)[steps.attempt_N]
    if ":" in config.inner.credit:
        return of_ones_own(config.inner.credit, steps)
    return cell_advantage(steps.returns_to_go(config.inner.discount), steps.walk.at_N, steps.mazes.cells)


def of_ones_own(name: str, steps: Steps) -> Floats:
    """Returns what a function of the user's own says of each step [N]; raises ClewError unless it is finite numbers.

    It must be a function of `steps` alone, without their `walk.seen_N`, whose numbers differ from process to process,
    and made of operations with the same bits everywhere: additions, multiplications, divisions, comparisons.
    """
    said_N = np.asarray(own.function(name)(steps)).astype(np.float32)
    strange = int((~np.isfinite(said_N)).sum())
    if said_N.shape != steps.time_N.shape or strange:
        raise ClewError(
            f"'{name}' must return a finite number for each of {len(steps.time_N)} steps, "
            f"got an array {list(said_N.shape)}, in which {strange} are not finite; mend the function"
        )
    return said_N


def hindsight(steps: Steps, way_C: Ints, attempts_left: int, config: Config) -> Floats:
    """Computes what is known of each step once its attempts are over: the input [J, N] of the credit network.

    The rows are those of `_hindsight`, and one for each function of the user's own.

    Args:
      way_C: [C] steps to the nearest exit by the known way, once these attempts are over.
      attempts_left: attempts that are still to come.
    """
    known_JN = _hindsight(steps, way_C, attempts_left, config)
    own_JN = [of_ones_own(name, steps)[None] for name in config.inner.credit_features]
    return np.concatenate([known_JN, *own_JN]) if own_JN else known_JN


def _hindsight(steps: Steps, way_C: Ints, attempts_left: int, config: Config) -> Floats:
    """Computes what clew itself knows of each step: [HINDSIGHT, N].

    The rows are: return to go, advantage, whether the attempt found an exit, whether the step lies on the loop-erased
    path, whether it was the last visit to its cell, whether it hit a wall, time as a share of the horizon, whether it
    went toward the exit on the known way, whether away from it, how few attempts are left; and 1, for the bias.
    """
    walk = steps.walk
    leaving_N = leaving_row(steps)
    if machine := compiled("credit"):
        known_JN = np.empty((HINDSIGHT, len(leaving_N)), np.float32)
        known_JN[0], known_JN[ADVANTAGE] = steps.returns_to_go(config.inner.discount), advantage(steps, config)
        path_N, times = on_path(steps, leaving_N), (steps.time_N, steps.horizon_W, steps.attempt_N)
        ways = plain(steps.mazes.ahead_CA), way_C, walk.at_N, plain(walk.move_N)
        machine.fill_hindsight(known_JN, *ways, leaving_N, path_N, steps.found_W, *times, 1 / (1 + attempts_left))
        return known_JN
    to_N = steps.mazes.ahead_CA[walk.at_N, walk.move_N]
    known_N = np.maximum(way_C[walk.at_N], way_C[to_N]) != UNREACHABLE
    nearer_N = np.where(known_N, way_C[walk.at_N] - way_C[to_N], 0)
    rows = (
        steps.returns_to_go(config.inner.discount),
        advantage(steps, config),
        steps.found_W[steps.attempt_N],
        on_path(steps, leaving_N),
        leaving_N == np.arange(len(leaving_N)),
        to_N == walk.at_N,
        steps.time_N / steps.horizon_W[steps.attempt_N],
        nearer_N > 0,
        nearer_N < 0,
        np.full(len(to_N), 1 / (1 + attempts_left)),
        np.ones(len(to_N)),
    )
    return np.stack([row.astype(np.float32) for row in rows])


def leaving_row(steps: Steps) -> Indices:
    """Returns the row of the last step that the same attempt makes in the same cell [N]."""
    if machine := compiled("credit"):
        leaving_N = np.empty(len(steps.left_N), np.intp)
        machine.fill_leaving(steps.walk.length_W, steps.walk.at_N, steps.mazes.cells, leaving_N)
        return leaving_N
    count_W = steps.mazes.count_M[steps.maze_W]
    shift_W = np.cumsum(count_W) - count_W - steps.mazes.offset_M[steps.maze_W]
    place_N = steps.walk.at_N + shift_W[steps.attempt_N]  # every attempt has cells of its own
    last_Y = np.zeros(int(count_W.sum()), np.intp)
    last_Y[place_N] = np.arange(len(place_N))  # if several are assigned to a cell, the last stays
    return last_Y[place_N]


def on_path(steps: Steps, leaving_N: Indices) -> Bools:
    """Says which steps are on the loop-erased path of their attempt [N] (chronological loop erasure, Lawler, 1980).

    The path leaves each cell with the last step that the attempt makes there, and goes on from the next cell.
    """
    path_N = np.zeros(len(leaving_N), np.bool_)
    if machine := compiled("credit"):
        machine.fill_path(steps.walk.length_W, leaving_N, path_N)
        return path_N
    entered = np.cumsum(steps.walk.length_W) - steps.walk.length_W
    while len(entered):
        left = leaving_N[entered]
        path_N[left] = True
        entered = (left + 1)[steps.left_N[left] > 1]
    return path_N
