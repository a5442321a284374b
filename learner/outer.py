"""The meta-objective and its gradient: J(theta) = sum_k w_k E[R under phi_k(theta)], phi_{k+1} = f(phi_k).

Clipped ratio: arXiv:1707.06347, on the result of adaptation as in ProMP, arXiv:1810.06784. Advantages: GAE,
arXiv:1506.02438. Exploration term: E-MAML, arXiv:1803.01118.
"""

# M mazes, E attempts, N steps of all attempts, S states, A moves, K inner steps, P parameters, R rows and F features of
# the baseline's table, G = F + 1

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning.credit import Steps, return_to_go
from protocol.learning.inner import adapt, by_pair, initial_policy, unflatten
from protocol.learning.policy import Scene, log_policy
from protocol.wire.messages import Attempts
from protocol.world.states import StateTable

FEATURES = 8  # F, of the baseline
TIME_BINS = 32  # of the horizon, for the baseline
MAX_LOG_RATIO = (
    3.0  # a move that became 20 times as likely says nothing more; unvisited ones may be far beyond
)
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

    steps: Steps
    behaviour: Tensor  # [M, S, A] log pi of the policy that made them: theta's of `lag` updates ago
    row_N: Tensor  # [N] of each step in the baseline's table

    @staticmethod
    def of(attempts: Attempts, scene: Scene, config: Config) -> Stage:
        """`attempts`, on the device and in the precision of `scene`."""
        steps = Steps.of(attempts, scene, config.run.discount)
        behaviour = torch.from_numpy(attempts.log_prob).to(scene.seen_MCB)
        return Stage(steps, behaviour, baseline_rows(steps, scene, config))


@dataclass(frozen=True)
class Batch:
    """A meta-batch on the learner's device."""

    scene: Scene
    stages: tuple[Stage, ...]  # K + 1: before each inner step, and after the last
    known_RF: Tensor  # [R, F] the baseline's table

    @staticmethod
    def of(
        table: StateTable,
        stages: Sequence[Attempts],
        config: Config,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Batch:
        """What the meta-gradient needs of the attempts at the M mazes of `table`."""
        scene = Scene.of(table, device, dtype)
        made = tuple(Stage.of(attempts, scene, config) for attempts in stages)
        return Batch(scene, made, baseline_table(scene, config))


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
        scene, device = batch.scene, batch.scene.seen_MCB.device
        return_M, best_M = returns(batch, config)
        steps = [len(stage.steps.pair_N) for stage in batch.stages]
        return Totals(
            mazes=torch.tensor(scene.mazes, dtype=torch.float64, device=device),
            shortest=shortest(scene).sum().double(),
            returns=return_M.sum().double(),
            best=best_M.sum().double(),
            steps_K=torch.tensor(steps, dtype=torch.float64, device=device),
            fit_KFG=torch.stack([normal_equations(stage, batch.known_RF, config) for stage in batch.stages]),
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
    first, last = batch.stages[0].steps, batch.stages[-1].steps
    share = batch.scene.mazes / totals.mazes.item()
    figures = (
        objective.item(),
        vector.norm().item(),
        first.found_ME.mean().item() * share,
        last.found_ME.mean().item() * share,
        (last.return_ME.mean() - first.return_ME.mean()).item() * share,
        steps_ratio(first, totals),
        steps_ratio(last, totals),
    )
    return Gradient(vector, dict(zip(FIGURES, figures, strict=True)))


def steps_ratio(steps: Steps, totals: Totals) -> float:
    """Steps taken / steps on the shortest path, both summed over all attempts."""
    return (steps.length_ME.sum() / (totals.shortest.long() * steps.attempts)).item()


def meta_objective(theta_P: Tensor, batch: Batch, config: Config, totals: Totals) -> Tensor:
    """A scalar whose gradient at theta is the estimate of d J / d theta, or the part of it that is a share's."""
    theta = unflatten(theta_P, config)
    phi = initial_policy(theta, batch.scene.mazes)
    exploration_M = after_adaptation(batch, config, totals) * config.outer.exploration
    total = theta_P.new_zeros(())
    for k, stage in enumerate(batch.stages):
        steps = stage.steps
        log_prob = log_policy(phi, batch.scene)
        last = k == config.inner.steps
        credit_N = advantages(stage, fitted_value(stage, batch.known_RF, totals.fit_KFG[k]), config)
        if not last:
            # The surrogate is a mean over attempts; what they made possible together is credited to each in full.
            credit_N = config.outer.first_weight * credit_N
            credit_N = credit_N + steps.attempts * exploration_M.index_select(0, steps.maze_N)
        counts = int(totals.mazes) * steps.attempts, int(totals.steps_K[k])
        total = total + surrogate(log_prob, credit_N, stage, config, counts)
        if not last:
            phi = adapt(phi, theta, log_prob, steps, batch.scene, config, graph=True)
    return total


def surrogate(
    log_prob: Tensor, credit_N: Tensor, stage: Stage, config: Config, counts: tuple[int, int] | None = None
) -> Tensor:
    """Mean over attempts of sum_t credit_t rho_t, rho = pi / behaviour, plain or clipped, plus the entropy bonus.

    Exact on the table: the ratio depends on (s, a) alone, and min(rho A, clip(rho) A) on it and the sign of A.
    `counts`: attempts and steps of the whole batch, where `stage` is a share of it.
    """
    attempts, steps = counts or (len(stage.steps.length_ME), len(credit_N))
    ratio = torch.exp((log_prob - stage.behaviour).clamp(max=MAX_LOG_RATIO))
    if config.outer.objective == "policy-gradient":
        total = (by_pair(credit_N, stage.steps, ratio) * ratio).sum()
    else:
        gain = by_pair(credit_N.clamp(min=0), stage.steps, ratio) * ratio.clamp(max=1 + config.outer.clip)
        loss = by_pair(credit_N.clamp(max=0), stage.steps, ratio) * ratio.clamp(min=1 - config.outer.clip)
        total = (gain + loss).sum()
    total = total / attempts
    if config.outer.entropy:
        visited_MS = by_pair(torch.full_like(credit_N, 1 / steps), stage.steps, ratio).sum(-1)
        total = total - config.outer.entropy * (visited_MS * (log_prob.exp() * log_prob).sum(-1)).sum()
    return total


def after_adaptation(batch: Batch, config: Config, totals: Totals | None = None) -> Tensor:
    """[M] how much better the attempts after adaptation went than the batch's, given each maze's best return."""
    totals = totals or Totals.of(batch, config)
    return_M, best_M = returns(batch, config)
    return return_M - best_M * (totals.returns.to(return_M) / totals.best.to(best_M))


def returns(batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """[M] the mean return of each maze's attempts after adaptation, and [M] the best that there can be."""
    steps = batch.stages[-1].steps
    return steps.return_ME.view(-1, steps.attempts).mean(1), config.run.discount ** (
        shortest(batch.scene) - 1
    )


def shortest(scene: Scene) -> Tensor:
    """[M] steps on the shortest path."""
    return scene.distance_MS[:-1].view(scene.mazes, scene.states)[:, 0]


def advantages(stage: Stage, value_N: Tensor, config: Config) -> Tensor:
    """[N] generalised advantage of every step over the baseline's values: sum_l (gamma lambda)^l delta_{t+l}.

    delta_t = r_t + gamma V(s_{t+1}, t+1) - V(s_t, t). The factor gamma^t of the exact gradient is left out, as usual.
    """
    steps = stage.steps
    goes_on_N = (steps.left_N > 1).to(value_N)
    reward_N = (1 - goes_on_N) * steps.found_ME.index_select(0, steps.attempt_N)
    delta_N = reward_N + config.run.discount * goes_on_N * value_N.roll(-1) - value_N

    attempts, horizon = len(steps.length_ME), int(steps.length_ME.max())
    row_N = steps.time_N * attempts + steps.attempt_N
    sum_TW = delta_N.new_zeros(horizon * attempts).index_copy(0, row_N, delta_N).view(horizon, attempts)
    for after, before in pairwise(reversed(sum_TW.unbind())):
        before.add_(after, alpha=config.run.discount * config.outer.gae_lambda)
    return sum_TW.flatten().index_select(0, row_N)


def fitted_value(stage: Stage, known_RF: Tensor, fit_FG: Tensor) -> Tensor:
    """[N] the return to go that a least-squares fit over the batch expects from distance to the exit and time.

    The linear baseline of MAML and ProMP (arXiv:1604.06778), which here may know the way: it serves the training
    alone. `fit_FG`: the normal equations over the whole batch, where `stage` is a share of it.
    """
    ridge = 1e-3 * torch.eye(FEATURES, dtype=torch.float64, device=fit_FG.device)
    weight_F = torch.linalg.solve(fit_FG[:, :-1] + ridge, fit_FG[:, -1])
    value_R: Tensor = known_RF @ weight_F
    return value_R.to(stage.steps.return_ME.dtype).index_select(0, stage.row_N)


def normal_equations(stage: Stage, known_RF: Tensor, config: Config) -> Tensor:
    """[F, G] float64, what the fit of `fitted_value` solves, its right-hand side in the last column."""
    togo_N = return_to_go(stage.steps, config.run.discount, config.run.horizon)
    times_R = torch.bincount(stage.row_N, minlength=len(known_RF)).double()
    togo_R = torch.zeros_like(times_R).index_add(0, stage.row_N, togo_N.double())
    return torch.column_stack((known_RF.T @ (times_R[:, None] * known_RF), known_RF.T @ togo_R))


def baseline_rows(steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[N] the row of every step in `baseline_table`."""
    bin_T = torch.arange(config.run.horizon, device=steps.time_N.device) * TIME_BINS // config.run.horizon
    first_MS = scene.distance_MS * TIME_BINS
    return first_MS.index_select(0, steps.state_N) + bin_T.index_select(0, steps.time_N)


def baseline_table(scene: Scene, config: Config) -> Tensor:
    """[R, F] float64: the features of each distance to the exit in each of TIME_BINS parts of the horizon."""
    distances, device = int(scene.distance_MS.max()) + 1, scene.distance_MS.device
    distance = torch.arange(distances, device=device, dtype=torch.float64).repeat_interleave(TIME_BINS)
    time = (torch.arange(TIME_BINS, device=device, dtype=torch.float64) / TIME_BINS).repeat(distances)
    near, far = torch.exp(distance * -0.1), torch.exp(distance * -0.01)
    in_reach = (distance < config.run.horizon * (1 - time)).double()
    return torch.stack(
        (torch.ones_like(time), far, near, time, time**2, far * time, near * time, in_reach), dim=1
    )
