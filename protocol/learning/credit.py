"""Attempts -> what every step of them did, and the credit it gets.

An attempt (an episode) has one reward, 1 on reaching the exit, so its discounted return is R = found * gamma^(L-1),
and the score-function gradient of J = E[R] gives each of its steps the credit R - b, for any b that its moves do not
change.
"""

# M mazes, E attempts, N steps of all attempts one after another, S states, A moves, C cells

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning.policy import Scene
from protocol.wire.messages import Attempts
from protocol.world.maze import MOVES

HINDSIGHT = 7  # what `hindsight` knows of a step
ADVANTAGE = 1  # the row of it that holds the advantage


@dataclass(frozen=True)
class Steps:
    """Every step of M x E attempts, attempt after attempt."""

    attempts: int  # E
    pair_N: Tensor  # [N] row of (state, move) among the M*S*A of all mazes
    state_N: Tensor  # [N] row of the state among the M*S
    maze_N: Tensor  # [N] m
    attempt_N: Tensor  # [N] m * E + e
    time_N: Tensor  # [N] t, from 0
    left_N: Tensor  # [N] L - t: steps from here to the end of the attempt, this one included
    length_ME: Tensor  # [M*E] L, steps taken
    found_ME: Tensor  # [M*E] 1 where the exit was reached, else 0
    return_ME: Tensor  # [M*E] R = found * gamma^(L-1)

    @staticmethod
    def of(attempts: Attempts, scene: Scene, discount: float) -> Steps:
        """The steps of `attempts`, on the device and in the precision of `scene`."""
        device, real = scene.seen_MCB.device, scene.seen_MCB.dtype
        each = attempts.length.shape[1]
        length_ME = torch.from_numpy(attempts.length.astype("int64")).flatten().to(device)
        visits_N = torch.from_numpy(attempts.visits.astype("int64")).to(device)
        attempt_N = torch.repeat_interleave(length_ME, output_size=len(visits_N))
        maze_N = (torch.arange(len(length_ME), device=device) // each).index_select(0, attempt_N)
        end_ME = length_ME.cumsum(0)
        end_N = end_ME.index_select(0, attempt_N)
        row_N = torch.arange(len(visits_N), device=device)
        pair_N = visits_N + maze_N * (scene.states * len(MOVES))
        found_ME = (scene.next_MSA[pair_N[end_ME - 1]] == scene.mazes * scene.states).to(real)
        return Steps(
            attempts=each,
            pair_N=pair_N,
            state_N=pair_N >> 2,
            maze_N=maze_N,
            attempt_N=attempt_N,
            time_N=row_N - end_N + length_ME.index_select(0, attempt_N),
            left_N=end_N - row_N,
            length_ME=length_ME,
            found_ME=found_ME,
            return_ME=found_ME * discount ** (length_ME - 1).to(real),
        )


def leave_one_out(return_ME: Tensor, attempts: int) -> Tensor:
    """[M*E] the advantage of each attempt over the mean return of the others in its maze; R where it is alone."""
    if attempts == 1:
        return return_ME
    each_ME = return_ME.view(-1, attempts)
    return ((each_ME - each_ME.mean(1, keepdim=True)) * (attempts / (attempts - 1))).flatten()


def return_to_go(steps: Steps, discount: float, horizon: int) -> Tensor:
    """[N] found * gamma^(L-1-t): the discounted return from each step on."""
    power_T = discount ** torch.arange(-1, horizon, device=steps.time_N.device, dtype=steps.found_ME.dtype)
    found_N = steps.found_ME.index_select(0, steps.attempt_N)
    return found_N * power_T.index_select(0, steps.left_N)


def cell_advantage(togo_N: Tensor, steps: Steps, scene: Scene) -> Tensor:
    """[N] the return to go less its mean over all visits to the same cell.

    Leaving a cell for the exit is better than leaving it for a dead end and coming back, and adaptation must see that
    difference; an attempt's return, alone or against other attempts', credits both departures alike.
    """
    cell_N = scene.cell_MS.index_select(0, steps.state_N)
    none = togo_N.new_zeros(scene.mazes * scene.cells)
    visits_MC = none.index_add(0, cell_N, torch.ones_like(togo_N))
    total_MC = none.index_add(0, cell_N, togo_N)
    return togo_N - (total_MC / visits_MC.clamp(min=1)).index_select(0, cell_N)


def advantage(steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[N] what the inner step reinforces; see InnerConfig.credit."""
    if config.inner.credit == "policy-gradient":
        return leave_one_out(steps.return_ME, steps.attempts).index_select(0, steps.attempt_N)
    return cell_advantage(return_to_go(steps, config.inner.discount, config.run.horizon), steps, scene)


def hindsight(steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[HINDSIGHT + 1, N] what is known of each step once its attempt is over: the input of the credit network.

    Return to go, advantage, whether the attempt found the exit, whether the step lies on the loop-erased path, whether
    it was the last visit to its cell, whether it hit a wall, time as a share of the horizon; and 1, for the bias.
    """
    real = steps.return_ME.dtype
    leaving_N = leaving_row(steps, scene)
    rows = (
        return_to_go(steps, config.inner.discount, config.run.horizon),
        advantage(steps, scene, config),
        steps.found_ME.index_select(0, steps.attempt_N),
        on_path(steps, leaving_N).to(real),
        (leaving_N == torch.arange(len(leaving_N), device=leaving_N.device)).to(real),
        (scene.next_MSA.index_select(0, steps.pair_N) == steps.state_N).to(real),
        steps.time_N.to(real) / config.run.horizon,
    )
    return torch.stack((*rows, torch.ones_like(rows[0])))


def leaving_row(steps: Steps, scene: Scene) -> Tensor:
    """[N] the row of the last step that its attempt makes in the same cell."""
    cell_N = scene.cell_MS.index_select(0, steps.state_N) + (steps.attempt_N - steps.maze_N) * scene.cells
    row_N = torch.arange(len(cell_N), device=cell_N.device)
    last_MEC = torch.zeros(len(steps.length_ME) * scene.cells, dtype=torch.int64, device=cell_N.device)
    return last_MEC.scatter_reduce(0, cell_N, row_N, "amax").index_select(0, cell_N)


def on_path(steps: Steps, leaving_N: Tensor) -> Tensor:
    """[N] whether the step is on its attempt's loop-erased path: leave a cell for the last time, go on from the next.

    Chronological loop erasure (Lawler, 1980), all attempts at once.
    """
    path_N = torch.zeros(len(leaving_N), dtype=torch.bool, device=leaving_N.device)
    entered = steps.length_ME.cumsum(0) - steps.length_ME
    while len(entered):
        left = leaving_N[entered]
        path_N[left] = True
        entered = (left + 1)[steps.left_N[left] > 1]
    return path_N
