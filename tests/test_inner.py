"""The update rules and the layout of theta."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.rollout import roll_out
from protocol.config import Config
from protocol.learning import policy
from protocol.learning.credit import HINDSIGHT, Steps
from protocol.learning.inner import (
    SURROGATES,
    Theta,
    adapt,
    initial_policy,
    initial_theta,
    shapes,
    step_credit,
    unflatten,
)
from protocol.learning.policy import Params, Scene, log_policy
from protocol.world.maze import Mazes
from protocol.world.states import StateTable

RULES = ["sgd", "meta-sgd", "learned"]
TEXTS = ["S.#..\n#.#.#\n#....\n#.###\n..E..", "S....\n.###.\n....E\n.####\n.####"]


def make_config(rule: str, **inner: Any) -> Config:
    return Config.model_validate(
        {
            "maze": {"side": 5},
            "policy": {"hidden": 5},
            "inner": {"rule": rule, "step_size": 0.3, "cell_step_size": 0.7} | inner,
            "run": {"horizon": 25},
        }
    )


def random_theta(config: Config, seed: int = 0) -> Tensor:
    noise = np.random.default_rng(seed).normal(size=initial_theta(config).shape)
    return torch.from_numpy(initial_theta(config) + 0.1 * noise)


def one_step(
    config: Config, theta: Theta, *, graph: bool = True, attempts: int = 3
) -> tuple[Params, Params, Scene, Steps]:
    """phi_0 and phi_1 after attempts that depend on the policy's part of theta alone."""
    mazes = Mazes.from_text("\n\n".join(TEXTS))
    table = StateTable.of(mazes, config.policy.radius)
    scene = Scene.of(table, torch.device("cpu"), torch.float64)
    phi = initial_policy(theta, len(mazes))
    if not theta["policy.out"].requires_grad:
        phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
    log_prob = log_policy(phi, scene)
    made = roll_out(log_prob.detach().float().numpy(), table, attempts, 25, np.random.default_rng(0))
    steps = Steps.of(made, scene, config.run.discount)
    return phi, adapt(phi, theta, log_prob, steps, scene, config, graph), scene, steps


@pytest.mark.parametrize("rule", RULES)
def test_theta_is_the_vector_cut_into_its_shapes_in_order_and_nothing_else(rule: str) -> None:
    config = make_config(rule)
    count = sum(math.prod(shape) for shape in shapes(config).values())
    vector = torch.arange(count)
    theta = unflatten(vector, config)
    assert {name: tuple(value.shape) for name, value in theta.items()} == shapes(config)
    torch.testing.assert_close(torch.cat([value.flatten() for value in theta.values()]), vector)
    assert initial_theta(config).shape == (count,)
    assert initial_theta(config).dtype == np.float32


def test_each_rule_adds_its_own_part_to_theta() -> None:
    groups = [{name.partition(".")[0] for name in shapes(make_config(rule))} for rule in RULES]
    assert groups == [{"policy"}, {"policy", "step_size"}, {"policy", "step_size", "credit"}]
    learned = shapes(make_config("learned", credit_hidden=9))
    assert learned["credit.in"] == (HINDSIGHT, 9)
    assert {
        f"step_size.{name}": shape for name, shape in policy.shapes(make_config("sgd")).items()
    }.items() <= (learned.items())


def test_training_starts_from_the_seed_and_the_configured_step_sizes() -> None:
    config = make_config("learned")
    theta = unflatten(torch.from_numpy(initial_theta(config)), config)
    assert set(theta["step_size.cell"].flatten().tolist()) == {float(np.float32(0.7))}
    assert set(theta["step_size.out"].flatten().tolist()) == {float(np.float32(0.3))}
    assert not theta["credit.out"].any()
    assert np.array_equal(initial_theta(config), initial_theta(config))
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    assert not np.array_equal(initial_theta(config), initial_theta(other))


@pytest.mark.parametrize("credit", ["policy-gradient", "cell-advantage"])
def test_all_rules_agree_at_equal_step_sizes_while_the_credit_network_says_nothing(credit: str) -> None:
    starts, results = [], []
    for rule in RULES:
        config = make_config(rule, credit=credit)
        start, result, _, _ = one_step(
            config, unflatten(torch.from_numpy(initial_theta(config)).double(), config)
        )
        starts.append(start)
        results.append(result)
    for start, result in zip(starts[1:], results[1:], strict=True):
        for name in result:
            assert torch.equal(start[name], starts[0][name])
            torch.testing.assert_close(result[name], results[0][name], rtol=1e-6, atol=1e-7)  # 0.3 as float32
    assert any((results[0][name] - starts[0][name]).abs().max() > 1e-3 for name in starts[0])


@pytest.mark.parametrize("estimator", list(SURROGATES))
def test_an_inner_step_is_the_same_whatever_estimates_its_derivative(estimator: str) -> None:
    moved = one_step(
        make_config("sgd", estimator=estimator),
        unflatten(random_theta(make_config("sgd")), make_config("sgd")),
    )
    plain = one_step(
        make_config("sgd", estimator="maml"), unflatten(random_theta(make_config("sgd")), make_config("sgd"))
    )
    for name in plain[1]:
        torch.testing.assert_close(moved[1][name], plain[1][name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", list(SURROGATES))
def test_without_a_graph_the_result_is_the_same_but_nothing_leads_through_the_step(
    rule: str, estimator: str
) -> None:
    config = make_config(rule, estimator=estimator)
    vector = random_theta(config).requires_grad_()
    _, with_graph, _, _ = one_step(config, unflatten(vector, config), graph=True)
    start, without, _, _ = one_step(config, unflatten(vector.detach(), config), graph=False)
    for name, value in without.items():
        torch.testing.assert_close(value, with_graph[name].detach(), rtol=1e-12, atol=1e-14)
        (through,) = torch.autograd.grad(value.sum(), start[name])
        assert torch.equal(through, torch.ones_like(value))
    total = torch.stack([value.square().sum() for value in with_graph.values()]).sum()
    (slope,) = torch.autograd.grad(total, vector)
    parts = unflatten(slope, config)
    assert all(part.any() for name, part in parts.items() if name != "credit.bias"), (
        "some of theta has no part in phi_1"
    )


@pytest.mark.parametrize("rule", ["meta-sgd", "learned"])
def test_a_step_size_of_zero_leaves_its_parameter_alone(rule: str) -> None:
    config = make_config(rule)
    theta = unflatten(random_theta(config), config)
    theta = {
        name: torch.zeros_like(value) if name == "step_size.cell" else value for name, value in theta.items()
    }
    start, result, _, _ = one_step(config, theta)
    assert torch.equal(result["cell"], start["cell"])
    assert not torch.equal(result["out"], start["out"])


def test_the_credit_network_changes_credit_and_with_it_the_step() -> None:
    config = make_config("learned")
    silent = unflatten(torch.from_numpy(initial_theta(config)).double(), config)
    speaking = silent | {"credit.out": torch.ones_like(silent["credit.out"])}
    _, plain, scene, steps = one_step(config, silent)
    _, moved, _, _ = one_step(config, speaking)
    assert any(not torch.equal(plain[name], moved[name]) for name in plain)
    difference = step_credit(speaking, steps, scene, config) - step_credit(silent, steps, scene, config)
    assert difference.abs().max() > 0.1


def test_cutting_one_mazes_attempts_does_not_move_another_maze() -> None:
    """The step of a maze is the mean over its own attempts."""
    config = make_config("sgd", credit="policy-gradient")
    theta = unflatten(random_theta(config), config)
    mazes = Mazes.from_text("\n\n".join(TEXTS))
    table = StateTable.of(mazes, config.policy.radius)
    scene = Scene.of(table, torch.device("cpu"), torch.float64)
    phi = initial_policy(theta, len(mazes))
    phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
    log_prob = log_policy(phi, scene)
    results = []
    for seed in (0, 1):
        policy_MSA = log_prob.detach().float().numpy()
        made = roll_out(policy_MSA, table, 3, 25, np.random.default_rng(seed))
        fixed = roll_out(policy_MSA, table, 3, 25, np.random.default_rng(7))
        begin, own = int(made.length[0].sum()), int(fixed.length[0].sum())
        visits = np.concatenate([fixed.visits[:own], made.visits[begin:]])
        length = np.concatenate([fixed.length[:1], made.length[1:]])
        mixed = type(made)(length, visits, policy_MSA)
        steps = Steps.of(mixed, scene, config.run.discount)
        results.append(adapt(phi, theta, log_policy(phi, scene), steps, scene, config, graph=False))
    assert all(torch.equal(results[0][name][0], results[1][name][0]) for name in results[0])
    assert any(not torch.equal(results[0][name][1], results[1][name][1]) for name in results[0])
