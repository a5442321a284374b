"""The update rules and the layout of theta."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning import policy
from protocol.learning.credit import HINDSIGHT
from protocol.learning.inner import CREDIT_UNITS, DREAMT, credit, dreams, initial_theta, shapes, unflatten
from protocol.learning.policy import Phi
from protocol.world.maze import Mazes
from tests.parts import stepwise
from tests.parts.batches import Given, Walked, Wanderer, make_config, random_theta
from tests.parts.robot import NO_EXIT
from tests.parts.stepwise import Estimator

RULES = ["sgd", "meta-sgd", "learned"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
MAZES = Mazes.from_text("S.#..\n#.#.#\n#....\n#.###\n..E..\n\nS...\n.#..\n...E")


def config_of(rule: str = "learned", mazes: int = 2, **inner: Any) -> Config:
    settings = {"rule": rule, "step_size": 0.3, "cell_step_size": 0.7, "attempts": 3} | inner
    return make_config(mazes, inner=settings, policy={"dreams": False}, run={"horizon_per_cell": 5.0})


def adapted(config: Config, theta_P: Tensor, seeds: tuple[int, ...] = (0, 1)) -> list[Phi]:
    """[k] the policies, after attempts that are the same whatever theta says."""
    return [phi for phi, _ in Walked.by([Wanderer(seed).choose for seed in seeds], MAZES, config).policies(theta_P)]


def parts(phi: Phi) -> dict[str, Tensor]:
    return phi.net | {"cells": phi.delta_AC}


@pytest.mark.parametrize("adapts", ["cells", "all"])
@pytest.mark.parametrize("rule", RULES)
def test_theta_is_the_vector_cut_into_its_shapes_in_order_and_nothing_else(rule: str, adapts: str) -> None:
    config = config_of(rule, adapts=adapts)
    count = sum(math.prod(shape) for shape in shapes(config).values())
    vector_P = torch.arange(count)
    theta = unflatten(vector_P, config)
    assert {name: tuple(value.shape) for name, value in theta.items()} == shapes(config)
    torch.testing.assert_close(torch.cat([value.flatten() for value in theta.values()]), vector_P)
    assert initial_theta(config).shape == (count,)
    assert initial_theta(config).dtype == np.float32


def test_each_rule_adds_its_own_part_to_theta() -> None:
    groups = [{name.partition(".")[0] for name in shapes(config_of(rule))} for rule in RULES]
    assert groups == [{"policy"}, {"policy", "step_size"}, {"policy", "step_size", "keep", "credit"}]
    learned = shapes(config_of())
    assert learned["credit.in"] == (HINDSIGHT, CREDIT_UNITS)
    assert [name for name in learned if name.startswith("step_size")] == ["step_size.cells"]
    every = shapes(config_of(adapts="all"))
    own = {f"step_size.{name}": shape for name, shape in policy.shapes(config_of()).items()}
    assert own.items() <= every.items()
    dreaming = make_config(2)
    assert shapes(dreaming)["dream.in"] == (DREAMT, CREDIT_UNITS)


def test_theta_knows_no_size_of_mazes() -> None:
    sides = ({"family": "perfect", "side": side} for side in (5, 63))
    small, large = (shapes(make_config(2, maze=maze | {"min_distance": 2})) for maze in sides)
    assert small == large


def test_training_starts_from_the_seed_and_the_configured_step_sizes() -> None:
    config = config_of(adapts="all")
    theta = unflatten(torch.from_numpy(initial_theta(config)), config)
    assert set(theta["step_size.cells"].flatten().tolist()) == {float(np.float32(0.7))}
    assert set(theta["step_size.out"].flatten().tolist()) == {float(np.float32(0.3))}
    assert not theta["credit.out"].any()
    assert np.array_equal(initial_theta(config), initial_theta(config))
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    assert not np.array_equal(initial_theta(config), initial_theta(other))


@pytest.mark.parametrize("kind", ["policy-gradient", "cell-advantage"])
def test_all_rules_agree_at_equal_step_sizes_while_nothing_is_learned(kind: str) -> None:
    results = []
    for rule in RULES:
        config = config_of(rule, credit=kind, adapts="all")
        before, after = adapted(config, torch.from_numpy(initial_theta(config)).double())
        results.append((parts(before), parts(after)))
    for before_parts, after_parts in results:
        for name, value in after_parts.items():
            assert torch.equal(before_parts[name], results[0][0][name])
            torch.testing.assert_close(value, results[0][1][name], rtol=1e-6, atol=1e-7)  # 0.3 as float32
    assert all((after - results[0][0][name]).abs().max() > 1e-3 for name, after in results[0][1].items())


@pytest.mark.parametrize("adapts", ["cells", "all"])
def test_an_inner_step_is_the_same_whatever_estimates_its_derivative(adapts: str) -> None:
    theta_P = torch.from_numpy(random_theta(config_of(adapts=adapts)))
    each = [parts(adapted(config_of(adapts=adapts, estimator=name), theta_P)[1]) for name in ESTIMATORS]
    for other in each[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, each[0][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_of_theta_has_a_part_in_what_adaptation_makes(rule: str, estimator: str) -> None:
    config = config_of(rule, estimator=estimator, adapts="all", steps=2)
    theta_P = torch.from_numpy(random_theta(config)).double().requires_grad_()
    *_, phi = adapted(config, theta_P, seeds=(0, 1, 2))
    total = torch.stack([value.square().sum() for value in parts(phi).values()]).sum()
    (slope_P,) = torch.autograd.grad(total, theta_P)
    assert all(part.any() for part in unflatten(slope_P, config).values())


def test_to_first_order_nothing_leads_through_the_step() -> None:
    config = config_of("sgd", estimator="first-order", adapts="all")
    theta_P = torch.from_numpy(random_theta(config)).double().requires_grad_()
    before, after = adapted(config, theta_P)
    for name, value in after.net.items():
        (through_M,) = torch.autograd.grad(value.sum(), before.net[name], retain_graph=True)
        assert torch.equal(through_M, torch.ones_like(value))
        rest = [each for other, each in before.net.items() if other != name]
        slopes = torch.autograd.grad(value.sum(), rest, retain_graph=True, allow_unused=True)
        assert all(slope is None for slope in slopes)


@pytest.mark.parametrize("rule", ["meta-sgd", "learned"])
def test_a_step_size_of_zero_leaves_its_parameter_alone(rule: str) -> None:
    config = config_of(rule, adapts="all")
    vector_P = torch.from_numpy(random_theta(config))
    unflatten(vector_P, config)["step_size.bias"][:] = 0
    before, after = adapted(config, vector_P)
    assert torch.equal(before.net["bias"], after.net["bias"])
    assert not torch.equal(before.net["out"], after.net["out"])


def test_where_nothing_is_kept_fast_weights_are_those_of_the_last_attempts() -> None:
    config = config_of("learned", steps=2)
    vector_P = torch.from_numpy(random_theta(config))
    kept = []
    for keep in (-100.0, 0.0, 100.0):
        unflatten(vector_P, config)["keep"][:] = keep
        *_, first, last = adapted(config, vector_P, seeds=(0, 1, 2))
        kept.append((first.delta_AC, last.delta_AC))
    (first_AC, without_AC), (_, half_AC), (_, whole_AC) = kept
    assert first_AC.any()
    torch.testing.assert_close(half_AC - without_AC, first_AC / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole_AC - without_AC, first_AC, rtol=1e-4, atol=1e-5)


def test_what_is_done_at_one_maze_does_not_move_another() -> None:
    config, first = config_of(adapts="all"), MAZES[:1]
    theta_P = torch.from_numpy(random_theta(config))
    both = Walked.by([Wanderer(0).choose] * 2, MAZES, config)
    choose = Given(both.moves()[0][: config.inner.attempts]).choose
    alone = Walked.by([choose, Wanderer(1).choose], first, config_of(mazes=1, adapts="all"))
    together, apart = (parts(walked.policies(theta_P)[1][0]) for walked in (both, alone))
    for name, value in apart.items():
        mine = together[name][:, : first.cells] if name == "cells" else together[name][:1]
        torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-6)


# The credit networks


def test_credit_is_that_of_one_step_after_another_and_starts_as_the_advantage() -> None:
    config = config_of()
    known_JN = np.random.default_rng(0).normal(size=(HINDSIGHT, 50)).astype(np.float32)
    theta = unflatten(torch.from_numpy(random_theta(config)).double(), config)
    known = torch.from_numpy(known_JN).double()
    wanted = torch.stack([stepwise.credit(facts, theta) for facts in known_JN.T.tolist()])
    torch.testing.assert_close(credit(theta, known), wanted, rtol=1e-9, atol=1e-9)
    begun = unflatten(torch.from_numpy(initial_theta(config)).double(), config)
    for each in (begun, {name: value for name, value in theta.items() if not name.startswith("credit")}):
        assert torch.equal(credit(each, known), known[1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("attempts_left", [0, 3])
def test_dreams_are_as_strong_as_one_after_another(rule: str, attempts_left: int) -> None:
    config = make_config(2, inner={"rule": rule, "cell_step_size": 3.0})
    theta = unflatten(torch.from_numpy(random_theta(config)).double(), config)
    wanted_DG = stepwise.dreams(theta, attempts_left, config)
    assert wanted_DG.shape == (2, NO_EXIT + 1)
    torch.testing.assert_close(dreams(theta, attempts_left, config), wanted_DG, rtol=1e-9, atol=1e-9)


def test_before_anything_is_learned_a_robot_dreams_of_whichever_way_is_the_shorter() -> None:
    config = make_config(2, inner={"cell_step_size": 3.0})
    known_G, hope_G = dreams(unflatten(initial_theta(config), config), 1, config)
    assert known_G.tolist() == [3.0] + [0.0] * NO_EXIT
    assert hope_G.tolist() == [3.0] * (NO_EXIT + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_agree_on_credit_and_dreams(dtype: Any) -> None:
    config = make_config(2)
    theta_P = random_theta(config).astype(dtype)
    here, there = unflatten(theta_P, config), unflatten(torch.from_numpy(theta_P), config)
    known_JN = np.random.default_rng(0).normal(size=(HINDSIGHT, 50)).astype(dtype)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    for mine, other in (
        (credit(here, known_JN), credit(there, torch.from_numpy(known_JN))),
        (dreams(here, 2, config), dreams(there, 2, config)),
    ):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, other.numpy(), rtol=tolerance, atol=tolerance)
