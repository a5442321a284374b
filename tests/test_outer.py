"""The meta-objective: the table form equals the per-step form, and each term is what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.rollout import collect
from learner.outer import (
    Batch,
    Stage,
    Totals,
    advantages,
    after_adaptation,
    fitted_value,
    meta_gradient,
    surrogate,
)
from protocol.config import Config
from protocol.learning.credit import return_to_go
from protocol.learning.inner import initial_policy, initial_theta, unflatten
from protocol.learning.policy import log_policy
from protocol.world.states import StateTable

CPU = torch.device("cpu")


def make_config(**sections: dict[str, Any]) -> Config:
    small: dict[str, dict[str, Any]] = {
        "maze": {"side": 5},
        "run": {"mazes": 6, "mazes_per_lease": 6, "horizon": 30},
        "inner": {"attempts": 3},
        "outer": {"attempts": 4},
    }
    return Config.model_validate(
        {name: small.get(name, {}) | sections.get(name, {}) for name in small | sections}
    )


def make_batch(config: Config, seed: int = 0) -> Batch:
    mazes, stages, _ = collect(initial_theta(config), (seed,), config)
    return Batch.of(StateTable.of(mazes, config.policy.radius), stages, config, CPU)


def moved_policy(stage: Stage, seed: int) -> Tensor:
    """Another policy than the one that made the attempts, so that ratios leave 1 and the clip."""
    noise = torch.randn(stage.behaviour.shape, generator=torch.Generator().manual_seed(seed))
    return torch.log_softmax(stage.behaviour + 0.5 * noise, dim=-1)


@pytest.mark.parametrize("objective", ["policy-gradient", "clipped"])
def test_table_objective_and_gradient_equal_the_per_step_form(objective: str) -> None:
    config = make_config(outer={"attempts": 4, "objective": objective})
    stage = make_batch(config).stages[-1]
    credit_N = torch.randn(
        len(stage.steps.pair_N), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    stage = replace(stage, behaviour=stage.behaviour.double())
    log_prob = moved_policy(stage, 2).requires_grad_()

    total = log_prob.new_zeros(())
    for pair, credit in zip(stage.steps.pair_N.tolist(), credit_N, strict=True):
        ratio = torch.exp(log_prob.flatten()[pair] - stage.behaviour.flatten()[pair])
        if objective == "clipped":
            clipped = ratio.clamp(1 - config.outer.clip, 1 + config.outer.clip)
            total = total + torch.minimum(ratio * credit, clipped * credit)
        else:
            total = total + ratio * credit
    expected = total / len(stage.steps.length_ME)
    (expected_slope,) = torch.autograd.grad(expected, log_prob)

    objective_value = surrogate(log_prob, credit_N, stage, config)
    (slope,) = torch.autograd.grad(objective_value, log_prob)
    torch.testing.assert_close(objective_value, expected)
    torch.testing.assert_close(slope, expected_slope)


def test_entropy_bonus_is_the_mean_entropy_of_the_visited_states() -> None:
    plain, with_bonus = make_config(), make_config(outer={"attempts": 4, "entropy": 0.5})
    stage = make_batch(plain).stages[-1]
    log_prob = moved_policy(stage, 3)
    none_N = torch.zeros(len(stage.steps.pair_N))
    entropies = [-(row.exp() * row).sum().item() for row in log_prob.flatten(0, 1)[stage.steps.state_N]]
    bonus = surrogate(log_prob, none_N, stage, with_bonus) - surrogate(log_prob, none_N, stage, plain)
    assert bonus.item() == pytest.approx(0.5 * np.mean(entropies), rel=1e-5)


def test_advantages_equal_a_plain_sum_over_each_attempt() -> None:
    config = make_config(outer={"attempts": 4, "gae_lambda": 0.7})
    batch = make_batch(config)
    for stage, fit_FG in zip(batch.stages, Totals.of(batch, config).fit_KFG, strict=True):
        steps = stage.steps
        value_N = fitted_value(stage, batch.known_RF, fit_FG)
        value = value_N.tolist()
        decay = config.run.discount * config.outer.gae_lambda
        expected, row = [], 0
        for length, found in zip(steps.length_ME.tolist(), steps.found_ME.tolist(), strict=True):
            values = [*value[row : row + length], 0.0]
            deltas = [
                (found if t == length - 1 else 0.0) + config.run.discount * values[t + 1] - values[t]
                for t in range(length)
            ]
            expected += [
                sum(decay ** (later - t) * deltas[later] for later in range(t, length)) for t in range(length)
            ]
            row += length
        actual = advantages(stage, value_N, config)
        torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_baseline_takes_most_of_the_variance_of_returns_away() -> None:
    config = make_config(run={"mazes": 200, "mazes_per_lease": 200, "horizon": 60})
    batch = make_batch(config)
    stage, fit_FG = batch.stages[0], Totals.of(batch, config).fit_KFG[0]
    togo_N = return_to_go(stage.steps, config.run.discount, config.run.horizon)
    left_N = togo_N - fitted_value(stage, batch.known_RF, fit_FG)
    assert left_N.var() < 0.8 * togo_N.var()
    assert abs(left_N.mean()) < 0.01


def test_exploration_credits_the_attempts_before_adaptation_with_what_they_made_possible() -> None:
    base: dict[str, Any] = {"attempts": 4, "first_weight": 0.0}
    without, with_term = make_config(outer=base), make_config(outer=base | {"exploration": 2.0})
    batch = make_batch(without)
    theta = torch.from_numpy(initial_theta(without))
    extra = meta_gradient(theta, batch, with_term).vector - meta_gradient(theta, batch, without).vector

    leaf = theta.clone().requires_grad_()
    log_prob = log_policy(initial_policy(unflatten(leaf, without), batch.scene.mazes), batch.scene)
    steps = batch.stages[0].steps
    gain_N = after_adaptation(batch, without)[steps.maze_N]
    likelihood = (gain_N * log_prob.flatten()[steps.pair_N]).sum() / batch.scene.mazes
    (expected,) = torch.autograd.grad(2.0 * likelihood, leaf)
    assert expected.norm() > 0
    torch.testing.assert_close(extra, expected, rtol=1e-3, atol=1e-5)


def test_first_weight_counts_the_attempts_before_adaptation() -> None:
    light, heavy = (make_config(outer={"attempts": 4, "first_weight": weight}) for weight in (0.0, 1.0))
    batch = make_batch(light)
    theta = torch.from_numpy(initial_theta(light))
    difference = meta_gradient(theta, batch, heavy).vector - meta_gradient(theta, batch, light).vector
    assert difference.norm() > 0
    # What only adaptation reads, the step sizes and the credit network, does not matter to the first attempts.
    parts = unflatten(difference, light)
    assert all(not parts[name].any() for name in parts if not name.startswith("policy."))


def test_unlikely_moves_that_nobody_made_do_not_spoil_the_objective() -> None:
    config = make_config()
    stage = make_batch(config).stages[-1]
    behaviour = stage.behaviour.clone()
    unvisited = torch.ones(behaviour.numel(), dtype=torch.bool)
    unvisited[stage.steps.pair_N] = False
    behaviour.view(-1)[unvisited] = -200.0
    stage = replace(stage, behaviour=behaviour)
    log_prob = torch.log_softmax(torch.zeros_like(behaviour), -1).requires_grad_()
    total = surrogate(log_prob, torch.ones(len(stage.steps.pair_N)), stage, config)
    (slope,) = torch.autograd.grad(total, log_prob)
    assert torch.isfinite(total)
    assert torch.isfinite(slope).all()


def test_figures_say_what_the_attempts_did() -> None:
    config = make_config()
    mazes, stages, _ = collect(initial_theta(config), (5,), config)
    batch = Batch.of(StateTable.of(mazes, config.policy.radius), stages, config, CPU)
    figures = meta_gradient(torch.from_numpy(initial_theta(config)), batch, config).figures
    found = batch.stages[0].steps.found_ME
    assert figures["success_before"] == pytest.approx(found.mean().item())
    assert figures["ratio_after"] >= 1
