"""The meta-objective and its gradient: J(theta) = sum_k w_k E[R under phi_k(theta)], phi_{k+1} = f(phi_k).

Clipped ratio: arXiv:1707.06347, on the result of adaptation as in ProMP, arXiv:1810.06784. Exploration term: E-MAML,
arXiv:1803.01118.
"""

# M mazes, E attempts at each, W = M*E attempts, N steps of all attempts, S situations (see inner.Made), A moves,
# K inner steps, P parameters, F features of the baseline, Q features of the baseline and the return

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.baseline import FEATURES, advantages, normal_equations, values, weights
from learner.policies import log_probs
from learner.stages import Batch, Stage
from protocol.config import Config
from protocol.learning.inner import chosen, gathered, unflatten

CLIP = 0.2  # epsilon: how far the ratio may leave 1, objective "clipped"
MAX_LOG_RATIO = 3.0  # a move that became 20 times as likely says nothing more


@dataclass(frozen=True)
class Figures:
    """Figures of a meta-batch for people: before adaptation (the first attempts) and after it (the last)."""

    objective: float = 0.0
    gradient_norm: float = 0.0
    success_before: float = 0.0  # share of attempts that reach an exit
    success_after: float = 0.0
    adaptation_gain: float = 0.0  # mean discounted return after adaptation less before it
    ratio_before: float = 0.0  # steps over those of the shortest way
    ratio_after: float = 0.0


@dataclass(frozen=True)
class Totals:
    """Sums over the mazes of a batch: all that one must know of the others. Those of its shares add up to its own."""

    mazes: Tensor  # [] M; this and all that follows: float64
    shortest: Tensor  # [] steps on the shortest paths
    returns: Tensor  # [] after adaptation
    best: Tensor  # [] returns on the shortest paths
    fit_KFQ: Tensor  # [K + 1, F, Q] the normal equations of each stage's baseline

    @staticmethod
    def of(batch: Batch, config: Config) -> Totals:
        """Sums over the mazes of `batch`, be it whole or a share."""
        device = batch.shortest_M.device
        return_M, best_M = returns(batch, config)
        fits = [sum(map(normal_equations, stage.outcomes)) for stage in batch.stages]
        return Totals(
            mazes=torch.tensor(batch.mazes, dtype=torch.float64, device=device),
            shortest=batch.shortest_M.sum().double(),
            returns=return_M.sum().double(),
            best=best_M.sum().double(),
            fit_KFQ=torch.from_numpy(np.stack(fits)).to(device),
        )

    @staticmethod
    def of_none(config: Config, device: torch.device) -> Totals:
        """Returns the sums over no maze."""
        stages = config.inner.steps + 1
        shapes = ((), (), (), (), (stages, FEATURES, FEATURES + 1))
        return Totals(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))


@dataclass(frozen=True)
class Gradient:
    """The result of one meta-batch. The results of its shares add up to it, except for the norm."""

    vector: Tensor  # [P] of the objective, to be followed upwards; not finite where the batch is not
    figures: Figures

    @staticmethod
    def of_none(theta_P: Tensor) -> Gradient:
        """Returns the gradient of a share without mazes, which is 0."""
        return Gradient(torch.zeros_like(theta_P), Figures())


def meta_gradient(theta_P: Tensor, batch: Batch, config: Config, totals: Totals | None = None) -> Gradient:
    """Estimates d J / d theta at `theta_P` [P] from the attempts of `batch`, or a share of one with these `totals`."""
    totals = totals or Totals.of(batch, config)
    theta_P = theta_P.detach().requires_grad_()
    objective = meta_objective(theta_P, batch, config, totals)
    (vector,) = torch.autograd.grad(objective, theta_P)
    first, last = batch.stages[0], batch.stages[-1]
    share = batch.mazes / totals.mazes.item()
    figures = Figures(
        objective.item(),
        vector.norm().item(),
        first.found_W.mean().item() * share,
        last.found_W.mean().item() * share,
        (last.return_W.mean() - first.return_W.mean()).item() * share,
        steps_ratio(first, totals),
        steps_ratio(last, totals),
    )
    return Gradient(vector, figures)


def steps_ratio(stage: Stage, totals: Totals) -> float:
    """Returns steps taken / steps on the shortest path, both summed over all attempts."""
    return (stage.length_W.sum() / (totals.shortest.long() * stage.made.attempts)).item()


def meta_objective(theta_P: Tensor, batch: Batch, config: Config, totals: Totals) -> Tensor:
    """Returns a scalar whose gradient at theta is the estimate of d J / d theta, or a share's part of it."""
    exploration_M = after_adaptation(batch, config, totals) * config.outer.exploration
    fit_KFQ = totals.fit_KFQ.cpu().numpy()
    total = theta_P.new_zeros(())
    policies = log_probs(unflatten(theta_P, config), batch, config)
    for k, (stage, log_prob_AS) in enumerate(zip(batch.stages, policies, strict=True)):
        made, credit_N = stage.made, advantages_over(fit_KFQ[k], stage, config)
        if k < config.inner.steps:
            # The surrogate is a mean over attempts; what they made possible together is credited to each in full.
            credit_N = config.outer.first_weight * credit_N
            if config.outer.exploration:
                maze_N = made.attempt_N // made.attempts
                credit_N = credit_N + made.attempts * exploration_M.index_select(0, maze_N)
        total = total + surrogate(log_prob_AS, credit_N, stage, config, int(totals.mazes) * made.attempts)
    return total


def surrogate(log_prob_AS: Tensor, credit_N: Tensor, stage: Stage, config: Config, attempts: int) -> Tensor:
    """Returns the mean over attempts of sum_t credit_t rho_t, rho = pi / behaviour, plain or clipped.

    `attempts`: those of the whole batch, of which `stage` may be a share.
    """
    made = stage.made
    apart_N = chosen(log_prob_AS.detach(), made) - stage.behaviour_N
    ratio_N = torch.exp(apart_N.clamp(max=MAX_LOG_RATIO))
    plain_N = gain_N = credit_N * ratio_N
    if config.outer.objective == "clipped":
        gain_N = torch.minimum(plain_N, credit_N * ratio_N.clamp(1 - CLIP, 1 + CLIP))
    # d gain / d log pi is the gain itself, or 0 where it is cut off; summed by situation, which is less to go through.
    slope_AS = gathered(plain_N * (plain_N <= gain_N) * (apart_N <= MAX_LOG_RATIO), made)
    follows = (slope_AS * log_prob_AS).sum()
    total: Tensor = (follows + (gain_N.sum() - follows).detach()) / attempts
    return total


def advantages_over(fit_FQ: npt.NDArray[Any], stage: Stage, config: Config) -> Tensor:
    """Returns [N]: the advantage of every step over the baseline with these normal equations."""
    weight_F = weights(fit_FQ)
    parts = [advantages(outcome, values(outcome, weight_F), config) for outcome in stage.outcomes]
    return torch.from_numpy(np.concatenate(parts)).to(stage.behaviour_N)


def after_adaptation(batch: Batch, config: Config, totals: Totals | None = None) -> Tensor:
    """Returns [M]: how much better attempts after adaptation went than the batch's, given each maze's best return."""
    totals = totals or Totals.of(batch, config)
    return_M, best_M = returns(batch, config)
    return return_M - best_M * (totals.returns.to(return_M) / totals.best.to(best_M))


def returns(batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """Returns [M], the mean return of each maze's attempts after adaptation, and [M], the best that there can be."""
    last = batch.stages[-1]
    return last.return_W.view(-1, last.made.attempts).mean(1), config.run.discount ** (batch.shortest_M - 1)
