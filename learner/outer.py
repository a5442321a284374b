"""The meta-objective and its gradient: J(theta) = sum_k w_k E[R under phi_k(theta)], phi_{k+1} = f(phi_k).

Clipped ratio: arXiv:1707.06347, on the result of adaptation as in ProMP, arXiv:1810.06784. Advantages: GAE,
arXiv:1506.02438. Exploration term: E-MAML, arXiv:1803.01118.
"""

# M mazes, E attempts, W = M*E of them, N steps of all attempts, S situations (see inner.Made), U distinct observations,
# C cells of all mazes, A moves, K inner steps, P parameters, F features of the baseline, G = F + 1, or what hindsight
# knows

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.admission import Replay
from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, adapt, chosen, gathered, initial_phi, situations, unflatten
from protocol.learning.policy import Phi, Scene, log_prob, scores
from protocol.world.maze import UNREACHABLE, Floats, shortest_M, to_exit

FEATURES = 10  # F, of the baseline
MAX_LOG_RATIO = 3.0  # a move that became 20 times as likely says nothing more
FIGURES = (
    "objective",
    "gradient_norm",
    "success_before",
    "success_after",
    "adaptation_gain",
    "ratio_before",
    "ratio_after",
)


@dataclass(frozen=True)
class Stage:
    """The attempts of one stage, on the learner's device."""

    made: Made
    known_S: Tensor  # [S] these three as in walk.Dream
    hope_S: Tensor
    gain_S: Tensor
    behaviour_N: Tensor  # [N] log pi of the moves under the policy that made them: theta's of `lag` updates ago
    left_N: Tensor  # [N] L - t: steps to the end of the attempt, this one included
    togo_N: Tensor  # [N] discounted return to go
    base_FN: Tensor  # [F, N] what the baseline knows
    length_W: Tensor  # [W] steps taken
    found_W: Tensor  # [W] 1 where an exit was reached, else 0
    return_W: Tensor  # [W] discounted return

    def log_prob(self, score_AU: Tensor, phi: Phi) -> Tensor:
        """[A, S] log pi of every move in every situation, under the policies `phi`, whose network says `score_AU`."""
        score_AS, delta_AS = take(score_AU, self.made.row_S), take(phi.delta_AC, self.made.at_S)
        result: Tensor = log_prob(score_AS, delta_AS, phi.dream_DG, self.known_S, self.hope_S, self.gain_S)
        return result


@dataclass(frozen=True)
class Batch:
    """A meta-batch on the learner's device."""

    scene: Scene
    mazes: int  # M
    cells: int  # C
    shortest_M: Tensor  # [M] steps on the shortest path
    stages: tuple[Stage, ...]  # K + 1: before each inner step, and after the last

    @staticmethod
    def of(
        replays: Sequence[Replay], config: Config, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """What the meta-gradient needs of the attempts of some leases, in their order."""
        real = torch.zeros((), device=device, dtype=dtype)
        sizes = [(len(one.mazes), one.mazes.cells, len(one.feature_UF)) for one in replays]
        firsts = list(zip(*([0, *accumulate(column)] for column in zip(*sizes, strict=True)), strict=True))
        each = [_numbers(one, first, config) for one, first in zip(replays, firsts, strict=False)]
        stages = tuple(_stage(parts, config, real) for parts in zip(*each, strict=True))
        mazes, cells, _ = firsts[-1]
        maze_U = None
        if replays[0].maze_U is not None:
            maze_U = np.concatenate([one.maze_U + first[0] for one, first in zip(replays, firsts, strict=False)])
        feature_UF = np.concatenate([one.feature_UF for one in replays])
        shortest = np.concatenate([shortest_M(one.mazes) for one in replays])
        return Batch(
            scene=Scene.of(feature_UF, config, real, maze_U, mazes),
            mazes=mazes,
            cells=cells,
            shortest_M=torch.from_numpy(shortest).to(device),
            stages=stages,
        )


Numbers = dict[str, npt.NDArray[Any]]


def _numbers(replay: Replay, first: tuple[int, ...], config: Config) -> list[Numbers]:
    """What every stage of a lease says, by field of Made and Stage. `first`: its first maze, cell and observation."""
    first_maze, first_cell, first_row = first
    mazes, inner = replay.mazes, config.inner
    horizon_M, distance_C = horizons(mazes, config), to_exit(mazes)
    numbers = []
    for stage, (walk, known, behaviour_N) in enumerate(
        zip(replay.walks, replay.knowns, replay.behaviours, strict=True)
    ):
        steps = Steps.of(walk, mazes, horizon_M)
        togo_N = steps.returns_to_go(config.run.discount)
        situation_N, step_S = situations(walk, steps.attempts)
        told: Numbers = {
            "at_S": walk.at_N[step_S] + first_cell,
            "row_S": walk.row_N[step_S] + np.int64(first_row),
            "known_S": walk.known_N[step_S].astype(np.int64),
            "hope_S": walk.hope_N[step_S].astype(np.int64),
            "gain_S": walk.gain_N[step_S].astype(np.int64),
            "situation_N": situation_N,
            "move_N": walk.move_N.astype(np.int64),
            "attempt_N": steps.attempt_N + first_maze * steps.attempts,
            "time_N": steps.time_N.astype(np.int64),
            "behaviour_N": behaviour_N,
            "left_N": steps.left_N.astype(np.int64),
            "togo_N": togo_N,
            "base_FN": baseline_features(steps, distance_C, known.way_C, config),
            "length_W": walk.length_W.astype(np.int64),
            "found_W": steps.found_W.astype(np.float32),
            "return_W": steps.returns(config.run.discount),
        }
        if stage < inner.steps:
            way_C = replay.knowns[stage + 1].way_C
            told["known_GN"] = hindsight(steps, way_C, inner.steps - stage - 1, config)
        numbers.append(told)
    return numbers


def _stage(parts: Sequence[Numbers], config: Config, real: Tensor) -> Stage:
    """One stage of all leases."""
    many = [len(part["at_S"]) for part in parts]
    for part, before in zip(parts, accumulate(many, initial=0), strict=False):
        part["pair_N"] = part.pop("move_N") * sum(many) + part.pop("situation_N") + before
    joined = {}
    for name in parts[0]:
        whole = torch.from_numpy(np.concatenate([part[name] for part in parts], axis=-1))
        joined[name] = whole.to(real.device, real.dtype if whole.is_floating_point() else None)
    fields = ("at_S", "row_S", "pair_N", "attempt_N", "time_N")
    known_GN = joined.pop("known_GN", real)
    attempts = config.inner.attempts if known_GN is not real else config.outer.attempts
    made = Made(attempts, **{name: joined.pop(name) for name in fields}, known_GN=known_GN)
    return Stage(made, **joined)


@dataclass(frozen=True)
class Totals:
    """Sums over the mazes of a batch: all that one must know of the others. Those of its shares add up to its own."""

    mazes: Tensor  # [] M; this and all that follows: float64
    shortest: Tensor  # [] steps on the shortest paths
    returns: Tensor  # [] after adaptation
    best: Tensor  # [] returns on the shortest paths
    steps_K: Tensor  # [K + 1] N of each stage
    fit_KFG: Tensor  # [K + 1, F, G] the normal equations of each stage's baseline

    @staticmethod
    def of(batch: Batch, config: Config) -> Totals:
        """Over the mazes of `batch`, be it whole or a share."""
        device = batch.shortest_M.device
        return_M, best_M = returns(batch, config)
        steps = [len(stage.left_N) for stage in batch.stages]
        return Totals(
            mazes=torch.tensor(batch.mazes, dtype=torch.float64, device=device),
            shortest=batch.shortest_M.sum().double(),
            returns=return_M.sum().double(),
            best=best_M.sum().double(),
            steps_K=torch.tensor(steps, dtype=torch.float64, device=device),
            fit_KFG=torch.stack([normal_equations(stage) for stage in batch.stages]),
        )

    @staticmethod
    def of_none(config: Config, device: torch.device) -> Totals:
        """Over no maze."""
        stages = config.inner.steps + 1
        shapes = ((), (), (), (), (stages,), (stages, FEATURES, FEATURES + 1))
        return Totals(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))


@dataclass(frozen=True)
class Gradient:
    """What one meta-batch says about theta. Those of its shares add up to it, all but the norm."""

    vector: Tensor  # [P] of the objective, to be followed upwards; not finite where the batch is not
    figures: dict[str, float]  # FIGURES, for people: before and after adaptation

    @staticmethod
    def of_none(theta_P: Tensor) -> Gradient:
        """What a share without mazes says."""
        return Gradient(torch.zeros_like(theta_P), dict.fromkeys(FIGURES, 0.0))


def meta_gradient(theta_P: Tensor, batch: Batch, config: Config, totals: Totals | None = None) -> Gradient:
    """d J / d theta at `theta_P` [P] from the attempts of `batch`, or of the share of a batch with these `totals`."""
    totals = totals or Totals.of(batch, config)
    theta_P = theta_P.detach().requires_grad_()
    objective = meta_objective(theta_P, batch, config, totals)
    (vector,) = torch.autograd.grad(objective, theta_P)
    first, last = batch.stages[0], batch.stages[-1]
    share = batch.mazes / totals.mazes.item()
    figures = (
        objective.item(),
        vector.norm().item(),
        first.found_W.mean().item() * share,
        last.found_W.mean().item() * share,
        (last.return_W.mean() - first.return_W.mean()).item() * share,
        steps_ratio(first, totals),
        steps_ratio(last, totals),
    )
    return Gradient(vector, dict(zip(FIGURES, figures, strict=True)))


def steps_ratio(stage: Stage, totals: Totals) -> float:
    """Steps taken / steps on the shortest path, both summed over all attempts."""
    return (stage.length_W.sum() / (totals.shortest.long() * stage.made.attempts)).item()


def meta_objective(theta_P: Tensor, batch: Batch, config: Config, totals: Totals) -> Tensor:
    """A scalar whose gradient at theta is the estimate of d J / d theta, or the part of it that is a share's."""
    theta = unflatten(theta_P, config)
    steps = config.inner.steps
    phi = initial_phi(theta, batch.cells, batch.mazes, steps, config)
    exploration_M = after_adaptation(batch, config, totals) * config.outer.exploration
    score_AU = scores(phi.net, batch.scene)
    total = theta_P.new_zeros(())
    for k, stage in enumerate(batch.stages):
        made, last = stage.made, k == steps
        if k and config.inner.adapts == "all":
            score_AU = scores(phi.net, batch.scene)
        log_prob_AS = stage.log_prob(score_AU, phi)
        credit_N = advantages(stage, fitted_value(stage, totals.fit_KFG[k]), config)
        if not last:
            # The surrogate is a mean over attempts; what they made possible together is credited to each in full.
            credit_N = config.outer.first_weight * credit_N
            if config.outer.exploration:
                maze_N = made.attempt_N // made.attempts
                credit_N = credit_N + made.attempts * exploration_M.index_select(0, maze_N)
        counts = int(totals.mazes) * made.attempts, int(totals.steps_K[k])
        total = total + surrogate(log_prob_AS, credit_N, stage, config, counts)
        if not last:
            phi = adapt(phi, theta, log_prob_AS, made, batch.scene, steps - k - 1, config)
    return total


def surrogate(
    log_prob_AS: Tensor, credit_N: Tensor, stage: Stage, config: Config, counts: tuple[int, int] | None = None
) -> Tensor:
    """Mean over attempts of sum_t credit_t rho_t, rho = pi / behaviour, plain or clipped, plus the entropy bonus.

    `counts`: attempts and steps of the whole batch, where `stage` is a share of it.
    """
    attempts, steps = counts or (len(stage.length_W), len(credit_N))
    made = stage.made
    apart_N = chosen(log_prob_AS.detach(), made) - stage.behaviour_N
    ratio_N = torch.exp(apart_N.clamp(max=MAX_LOG_RATIO))
    plain_N = gain_N = credit_N * ratio_N
    if config.outer.objective == "clipped":
        gain_N = torch.minimum(plain_N, credit_N * ratio_N.clamp(1 - config.outer.clip, 1 + config.outer.clip))
    # d gain / d log pi is the gain itself, or 0 where it is cut off; summed by situation, which is less to go through.
    slope_AS = gathered(plain_N * (plain_N <= gain_N) * (apart_N <= MAX_LOG_RATIO), made)
    follows = (slope_AS * log_prob_AS).sum()
    total: Tensor = (follows + (gain_N.sum() - follows).detach()) / attempts
    if config.outer.entropy:
        count_S = torch.bincount(made.pair_N % len(made.at_S), minlength=len(made.at_S))
        total = total - config.outer.entropy * (count_S * log_prob_AS.exp() * log_prob_AS).sum() / steps
    return total


def after_adaptation(batch: Batch, config: Config, totals: Totals | None = None) -> Tensor:
    """[M] how much better the attempts after adaptation went than the batch's, given each maze's best return."""
    totals = totals or Totals.of(batch, config)
    return_M, best_M = returns(batch, config)
    return return_M - best_M * (totals.returns.to(return_M) / totals.best.to(best_M))


def returns(batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """[M] the mean return of each maze's attempts after adaptation, and [M] the best that there can be."""
    last = batch.stages[-1]
    return last.return_W.view(-1, last.made.attempts).mean(1), config.run.discount ** (batch.shortest_M - 1)


def advantages(stage: Stage, value_N: Tensor, config: Config) -> Tensor:
    """[N] generalised advantage of every step over the baseline's values: sum_l (gamma lambda)^l delta_{t+l}.

    delta_t = r_t + gamma V(s_{t+1}, t+1) - V(s_t, t). The factor gamma^t of the exact gradient is left out, as usual.
    """
    made = stage.made
    goes_on_N = (stage.left_N > 1).to(value_N)
    reward_N = (1 - goes_on_N) * stage.found_W.index_select(0, made.attempt_N)
    delta_N = reward_N + config.run.discount * goes_on_N * value_N.roll(-1) - value_N

    # Sums over 2, 4, 8, ... steps, each of two that are half as long: a loop over all steps would be many small calls.
    decay, reach, longest = config.run.discount * config.outer.gae_lambda, 1, int(stage.length_W.max())
    while reach < longest:
        later_N = delta_N[reach:] * (stage.left_N[:-reach] > reach)
        delta_N = torch.cat((delta_N[:-reach] + decay**reach * later_N, delta_N[-reach:]))
        reach *= 2
    return delta_N


def fitted_value(stage: Stage, fit_FG: Tensor) -> Tensor:
    """[N] the return to go that a least-squares fit over the batch expects.

    The linear baseline of MAML and ProMP (arXiv:1604.06778), which here may know the way: it serves the training
    alone. `fit_FG`: the normal equations over the whole batch, where `stage` is a share of it.
    """
    ridge = 1e-3 * torch.eye(FEATURES, dtype=torch.float64, device=fit_FG.device)
    weight_F = torch.linalg.solve(fit_FG[:, :-1] + ridge, fit_FG[:, -1])
    value_N: Tensor = weight_F.to(stage.base_FN.dtype) @ stage.base_FN
    return value_N


def normal_equations(stage: Stage) -> Tensor:
    """[F, G] float64, what the fit of `fitted_value` solves, its right-hand side in the last column."""
    base_FN = stage.base_FN.double()  # in single precision, shares of a batch would not add up to its fit
    return torch.column_stack((base_FN @ base_FN.T, base_FN @ stage.togo_N.double()))


def baseline_features(steps: Steps, distance_C: npt.NDArray[Any], way_C: npt.NDArray[Any], config: Config) -> Floats:
    """[F, N] what the baseline knows of each step: time, the true way to the exit, and the way that the robot knows."""
    at_N, gamma = steps.walk.at_N, config.run.discount
    far_C, near_C = (np.power(each, distance_C, dtype=np.float32) for each in (gamma, gamma**10))
    way_C = np.where(way_C == UNREACHABLE, 0, np.power(gamma, np.minimum(way_C, 10_000), dtype=np.float32))
    far_N, near_N, way_N = far_C[at_N], near_C[at_N], way_C[at_N]
    horizon_N = steps.horizon_W[steps.attempt_N].astype(np.float32)
    time_N = steps.time_N / horizon_N
    in_reach_N = distance_C[at_N] < horizon_N - steps.time_N
    rows = (np.ones_like(time_N), time_N, time_N**2, far_N, near_N, far_N * time_N, in_reach_N)
    known = (way_N, way_N > 0, way_N * far_N)
    return np.stack([row.astype(np.float32) for row in (*rows, *known)])
