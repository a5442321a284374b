"""Attempts -> what every step of them did, what hindsight knows of it, and the credit that it gets.

An attempt (an episode) has one reward, 1 on reaching an exit, so its discounted return is R = found * gamma^(L-1),
and the score-function gradient of J = E[R] gives each of its steps the credit R - b, for any b that its moves do not
change. All here is numpy: nothing depends on theta, so actors and learner compute the same.
"""

# M mazes, E attempts at each, W = M*E attempts, N steps of all attempts one after another, C cells of all mazes, G what
# hindsight knows of a step

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.compiled import compiled, plain
from protocol.config import Config
from protocol.world.maze import EXIT, UNREACHABLE, Bools, Floats, Indices, Ints, Mazes
from protocol.world.walk import Walk

HINDSIGHT = 11  # G, what `hindsight` knows of a step
ADVANTAGE = 1  # the row of it that holds the advantage


@dataclass(frozen=True)
class Steps:
    """Every step of E attempts at each of M mazes, attempt after attempt."""

    walk: Walk
    mazes: Mazes
    attempts: int  # E
    maze_W: Indices  # [W] m
    attempt_N: Indices  # [N] m * E + e
    time_N: Ints  # [N] t, from 0
    left_N: Ints  # [N] L - t: steps from here to the end of the attempt, this one included
    found_W: Bools  # [W] whether the attempt reached an exit
    horizon_W: Ints  # [W] steps after which it would have ended

    @staticmethod
    def of(walk: Walk, mazes: Mazes, horizon_M: Ints) -> Steps:
        """The steps of `walk` through `mazes`."""
        attempts = len(walk.length_W) // len(mazes)
        end_W = np.cumsum(walk.length_W)
        attempt_N = np.repeat(np.arange(len(walk.length_W)), walk.length_W)
        row_N = np.arange(len(walk.move_N))
        left_N = end_W[attempt_N] - row_N
        return Steps(
            walk=walk,
            mazes=mazes,
            attempts=attempts,
            maze_W=np.repeat(np.arange(len(mazes)), attempts),
            attempt_N=attempt_N,
            time_N=walk.length_W[attempt_N] - left_N,
            left_N=left_N,
            found_W=mazes.cell_C[walk.end_W] == EXIT,
            horizon_W=np.repeat(horizon_M, attempts),
        )

    def returns(self, discount: float) -> Floats:
        """[W] R = found * gamma^(L-1)."""
        return_W: Floats = (self.found_W * discount ** (self.walk.length_W - 1.0)).astype(np.float32)
        return return_W

    def returns_to_go(self, discount: float) -> Floats:
        """[N] found * gamma^(L-1-t): the discounted return from each step on."""
        power_L = (discount ** np.arange(-1.0, self.walk.length_W.max())).astype(np.float32)
        togo_N: Floats = self.found_W[self.attempt_N] * power_L[self.left_N]
        return togo_N


def horizons(mazes: Mazes, config: Config) -> Ints:
    """[M] steps after which an attempt at each maze has failed."""
    horizon_M: Ints = np.ceil(config.run.horizon_per_cell * mazes.count_M).astype(np.int32)
    return horizon_M


def leave_one_out(return_W: Floats, attempts: int) -> Floats:
    """[W] the advantage of each attempt over the mean return of the others in its maze; R where it is alone."""
    if attempts == 1:
        return return_W
    each_ME = return_W.reshape(-1, attempts)
    apart: Floats = ((each_ME - each_ME.mean(axis=1, keepdims=True)) * np.float32(attempts / (attempts - 1))).reshape(
        -1
    )
    return apart


def cell_advantage(togo_N: Floats, at_N: Indices, cells: int) -> Floats:
    """[N] the return to go less its mean over all visits to the same cell.

    Leaving a cell for the exit is better than leaving it for a dead end and coming back, and adaptation must see that
    difference; an attempt's return, alone or against other attempts', credits both departures alike.
    """
    visits_C, total_C = np.bincount(at_N, minlength=cells), np.bincount(at_N, togo_N, cells)
    mean_C = (total_C / np.maximum(visits_C, 1)).astype(np.float32)
    advantage_N: Floats = togo_N - mean_C[at_N]
    return advantage_N


def advantage(steps: Steps, config: Config) -> Floats:
    """[N] what the inner step reinforces; see InnerConfig.credit."""
    if config.inner.credit == "policy-gradient":
        return leave_one_out(steps.returns(config.run.discount), steps.attempts)[steps.attempt_N]
    return cell_advantage(steps.returns_to_go(config.inner.discount), steps.walk.at_N, steps.mazes.cells)


def hindsight(steps: Steps, way_C: Ints, attempts_left: int, config: Config) -> Floats:
    """[G, N] what is known of each step once its attempts are over: the input of the credit network.

    Return to go, advantage, whether the attempt found an exit, whether the step lies on the loop-erased path, whether
    it was the last visit to its cell, whether it hit a wall, time as a share of the horizon, whether it went toward the
    exit on the known way, whether away from it, how few attempts are left; and 1, for the bias.

    Args:
      way_C: [C] steps to the nearest exit by the known way, once these attempts are over.
      attempts_left: attempts that are still to come.
    """
    walk = steps.walk
    leaving_N = leaving_row(steps)
    if machine := compiled("credit"):
        known_GN = np.empty((HINDSIGHT, len(leaving_N)), np.float32)
        known_GN[0], known_GN[ADVANTAGE] = steps.returns_to_go(config.inner.discount), advantage(steps, config)
        path_N, times = on_path(steps, leaving_N), (steps.time_N, steps.horizon_W, steps.attempt_N)
        ways = plain(steps.mazes.ahead_CA), way_C, walk.at_N, plain(walk.move_N)
        machine.fill_hindsight(known_GN, *ways, leaving_N, path_N, steps.found_W, *times, 1 / (1 + attempts_left))
        return known_GN
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
    """[N] the row of the last step that its attempt makes in the same cell."""
    if machine := compiled("credit"):
        leaving_N = np.empty(len(steps.left_N), np.intp)
        machine.fill_leaving(steps.walk.length_W, steps.walk.at_N, steps.mazes.cells, leaving_N)
        return leaving_N
    count_W = steps.mazes.count_M[steps.maze_W]
    shift_W = np.cumsum(count_W) - count_W - steps.mazes.offset_M[steps.maze_W]
    place_N = steps.walk.at_N + shift_W[steps.attempt_N]  # every attempt has cells of its own
    last_K = np.zeros(int(count_W.sum()), np.intp)
    last_K[place_N] = np.arange(len(place_N))  # of several that are assigned, the last stays
    return last_K[place_N]


def on_path(steps: Steps, leaving_N: Indices) -> Bools:
    """[N] whether the step is on its attempt's loop-erased path: leave a cell for the last time, go on from the next.

    Chronological loop erasure (Lawler, 1980), all attempts at once.
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
