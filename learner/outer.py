"""The meta-objective and its gradient: J(theta) = sum_k w_k E[R under phi_k(theta)], phi_{k+1} = f(phi_k).

Clipped ratio: arXiv:1707.06347, on the result of adaptation as in ProMP, arXiv:1810.06784. Advantages: GAE,
arXiv:1506.02438. Exploration term: E-MAML, arXiv:1803.01118.
"""

# M mazes, E attempts, N steps of all attempts, S states, A moves, K inner steps, P parameters, F features

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from protocol.config import Config
from protocol.credit import Steps, return_to_go
from protocol.inner import adapt, by_pair, initial_policy, unflatten
from protocol.messages import Attempts
from protocol.policy import Scene, log_policy
from protocol.states import StateTable

TIME_BINS = 32  # of the horizon, for the baseline
MAX_LOG_RATIO = (
    3.0  # a move that became 20 times as likely says nothing more; unvisited ones may be far beyond
)


@dataclass(frozen=True)
class Stage:
    """The attempts of one stage, on the learner's device."""

    steps: Steps
    behaviour: Tensor  # [M, S, A] log pi of the policy that made them: theta's of `lag` updates ago


@dataclass(frozen=True)
class Batch:
    """A meta-batch on the learner's device."""

    scene: Scene
    stages: tuple[Stage, ...]  # K + 1: before each inner step, and after the last

    @staticmethod
    def of(table: StateTable, stages: Sequence[Attempts], config: Config, device: torch.device) -> Batch:
        """What the meta-gradient needs of the attempts at the M mazes of `table`."""
        scene = Scene.of(table, device)
        return Batch(scene, tuple(_stage(attempts, scene, config) for attempts in stages))


def _stage(attempts: Attempts, scene: Scene, config: Config) -> Stage:
    behaviour = torch.from_numpy(attempts.log_prob).to(scene.seen_MCB)
    return Stage(Steps.of(attempts, scene, config.run.discount), behaviour)


@dataclass(frozen=True)
class Gradient:
    """What one meta-batch says about theta."""

    vector: Tensor  # [P] of the objective, to be followed upwards; not finite where the batch is not
    figures: dict[
        str, float
    ]  # for people: success and steps ratio before and after adaptation, objective, norms


def meta_gradient(theta_P: Tensor, batch: Batch, config: Config) -> Gradient:
    """d J / d theta at `theta_P` [P] from the attempts of `batch`."""
    theta_P = theta_P.detach().requires_grad_()
    objective = meta_objective(theta_P, batch, config)
    (vector,) = torch.autograd.grad(objective, theta_P)
    first, last = batch.stages[0].steps, batch.stages[-1].steps
    figures = {
        "objective": objective.item(),
        "gradient_norm": vector.norm().item(),
        "success_before": first.found_ME.mean().item(),
        "success_after": last.found_ME.mean().item(),
        "adaptation_gain": (last.return_ME.mean() - first.return_ME.mean()).item(),
        "ratio_before": steps_ratio(first, batch.scene),
        "ratio_after": steps_ratio(last, batch.scene),
    }
    return Gradient(vector, figures)


def steps_ratio(steps: Steps, scene: Scene) -> float:
    """Steps taken / steps on the shortest path, both summed over all attempts."""
    shortest_M = scene.distance_MS[:-1].view(scene.mazes, scene.states)[:, 0]
    return (steps.length_ME.sum() / (shortest_M.sum() * steps.attempts)).item()


def meta_objective(theta_P: Tensor, batch: Batch, config: Config) -> Tensor:
    """A scalar whose gradient at theta is the estimate of d J / d theta."""
    theta = unflatten(theta_P, config)
    phi = initial_policy(theta, batch.scene.mazes)
    exploration_M = after_adaptation(batch, config) * config.outer.exploration
    total = theta_P.new_zeros(())
    for k, stage in enumerate(batch.stages):
        steps = stage.steps
        log_prob = log_policy(phi, batch.scene)
        last = k == config.inner.steps
        credit_N = advantages(steps, batch.scene, config)
        if not last:
            # The surrogate is a mean over attempts; what they made possible together is credited to each in full.
            credit_N = config.outer.first_weight * credit_N
            credit_N = credit_N + steps.attempts * exploration_M.index_select(0, steps.maze_N)
        total = total + surrogate(log_prob, credit_N, stage, config)
        if not last:
            phi = adapt(phi, theta, log_prob, steps, batch.scene, config, graph=True)
    return total


def surrogate(log_prob: Tensor, credit_N: Tensor, stage: Stage, config: Config) -> Tensor:
    """Mean over attempts of sum_t credit_t rho_t, rho = pi / behaviour, plain or clipped, plus the entropy bonus.

    Exact on the table: the ratio depends on (s, a) alone, and min(rho A, clip(rho) A) on it and the sign of A.
    """
    ratio = torch.exp((log_prob - stage.behaviour).clamp(max=MAX_LOG_RATIO))
    if config.outer.objective == "policy-gradient":
        total = (by_pair(credit_N, stage.steps, ratio) * ratio).sum()
    else:
        gain = by_pair(credit_N.clamp(min=0), stage.steps, ratio) * ratio.clamp(max=1 + config.outer.clip)
        loss = by_pair(credit_N.clamp(max=0), stage.steps, ratio) * ratio.clamp(min=1 - config.outer.clip)
        total = (gain + loss).sum()
    total = total / len(stage.steps.length_ME)
    if config.outer.entropy:
        visited_MS = by_pair(torch.full_like(credit_N, 1 / len(credit_N)), stage.steps, ratio).sum(-1)
        total = total - config.outer.entropy * (visited_MS * (log_prob.exp() * log_prob).sum(-1)).sum()
    return total


def after_adaptation(batch: Batch, config: Config) -> Tensor:
    """[M] how much better the attempts after adaptation went than the batch's, given each maze's best return."""
    steps = batch.stages[-1].steps
    return_M = steps.return_ME.view(-1, steps.attempts).mean(1)
    shortest_M = batch.scene.distance_MS[:-1].view(batch.scene.mazes, batch.scene.states)[:, 0]
    best_M = config.run.discount ** (shortest_M - 1)
    return return_M - best_M * (return_M.sum() / best_M.sum())


def advantages(steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[N] generalised advantage of every step over a fitted baseline: sum_l (gamma lambda)^l delta_{t+l}.

    delta_t = r_t + gamma V(s_{t+1}, t+1) - V(s_t, t). The factor gamma^t of the exact gradient is left out, as usual.
    """
    value_N = fitted_value(steps, scene, config)
    goes_on_N = (steps.left_N > 1).to(value_N)
    reward_N = (1 - goes_on_N) * steps.found_ME.index_select(0, steps.attempt_N)
    delta_N = reward_N + config.run.discount * goes_on_N * value_N.roll(-1) - value_N

    attempts, horizon = len(steps.length_ME), int(steps.length_ME.max())
    row_N = steps.time_N * attempts + steps.attempt_N
    sum_TW = delta_N.new_zeros(horizon * attempts).index_copy(0, row_N, delta_N).view(horizon, attempts)
    for time in range(horizon - 2, -1, -1):
        sum_TW[time].add_(sum_TW[time + 1], alpha=config.run.discount * config.outer.gae_lambda)
    return sum_TW.flatten().index_select(0, row_N)


def fitted_value(steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[N] the return to go that a least-squares fit over the batch expects from distance to the exit and time.

    The linear baseline of MAML and ProMP (arXiv:1604.06778), which here may know the way: it serves the training
    alone. It is fitted to a table: a row for each distance and each of TIME_BINS parts of the horizon.
    """
    real = steps.return_ME.dtype
    horizon = config.run.horizon
    device = steps.time_N.device
    togo_N = return_to_go(steps, config.run.discount, horizon)
    bin_T = torch.arange(horizon, device=device) * TIME_BINS // horizon
    row_N = scene.distance_MS.index_select(0, steps.state_N) * TIME_BINS + bin_T.index_select(0, steps.time_N)

    known_RF = _baseline_features(int(scene.distance_MS.max()) + 1, horizon, device)
    times_R = torch.bincount(row_N, minlength=len(known_RF)).double()
    togo_R = torch.zeros_like(times_R).index_add(0, row_N, togo_N.double())
    ridge = 1e-3 * torch.eye(known_RF.shape[1], dtype=torch.float64, device=device)
    weight_F = torch.linalg.solve(known_RF.T @ (times_R[:, None] * known_RF) + ridge, known_RF.T @ togo_R)
    value_R: Tensor = known_RF @ weight_F
    return value_R.to(real).index_select(0, row_N)


def _baseline_features(distances: int, horizon: int, device: torch.device) -> Tensor:
    """[distances * TIME_BINS, F] float64."""
    distance = torch.arange(distances, device=device, dtype=torch.float64).repeat_interleave(TIME_BINS)
    time = (torch.arange(TIME_BINS, device=device, dtype=torch.float64) / TIME_BINS).repeat(distances)
    near, far = torch.exp(distance * -0.1), torch.exp(distance * -0.01)
    in_reach = (distance < horizon * (1 - time)).double()
    return torch.stack(
        (torch.ones_like(time), far, near, time, time**2, far * time, near * time, in_reach), dim=1
    )
