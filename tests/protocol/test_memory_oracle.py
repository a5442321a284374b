"""A robot with memory and dreams, exactly: in a tiny maze every attempt that there can be is made, and weighed."""

# P parameters, N steps of all attempts, W attempts

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from learner.admission import admit
from learner.outer import Totals, meta_objective
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.credit import Steps, horizons
from protocol.learning.inner import adapt, initial_phi, unflatten
from protocol.learning.policy import scores
from protocol.learning.trial import attempt_and_adapt
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.maze import Mazes
from tests.parts import batches
from tests.parts.batches import CPU, random_theta, with_more
from tests.parts.oracle import Chance, every_chance, expected_returns, slope
from tests.parts.robot import Drawing
from tests.parts.stepwise import Estimator

# One in which the way that is known may be longer than one to hope for; one in which an explorer must turn back.
DETOUR, DEAD_END = "SE\n..", "..SE"


def make_config(mazes: int, **sections: dict[str, Any]) -> Config:
    """One attempt a stage, undiscounted, with an outer surrogate that is the gradient of J and nothing else."""
    base: dict[str, dict[str, Any]] = {
        "policy": {"hidden": 3},
        "inner": {"estimator": "maml", "cell_step_size": 2.0, "step_size": 0.5},
        "outer": {"attempts": 1, "objective": "policy-gradient", "gae_lambda": 1.0, "exploration": 1.0},
        "run": {"discount": 1.0},
    }
    return batches.make_config(mazes, **with_more(base, sections))


def every_move_made(text: str, chances: Sequence[Chance], config: Config) -> Batch:
    """A batch in which each chance is a maze of its own, weighed by how likely it is.

    The weight stands in what the moves are said to have been drawn with: it makes the objective's ratio the chance.
    """
    mazes = Mazes.concatenate([Mazes.from_text(text)] * len(chances))
    stages = []
    for k in range(config.inner.steps + 1):
        attempts = [chance.attempts[k] for chance in chances]
        length_W = np.array([len(attempt) for attempt in attempts], np.int32)
        move_N = np.array([step.move for attempt in attempts for step in attempt.steps], np.uint8)
        stages.append(Attempts(length_W, move_N, np.zeros(len(move_N), np.float32)))
    replay = admit(Rollouts(0, 0, 0, 0, {}, mazes, tuple(stages)), config)
    batch = Batch.of([replay], config, CPU, torch.float64)
    told = []
    for k, stage in enumerate(batch.stages):
        said = [log_pi.item() - chance.log_p.item() for chance in chances for log_pi in chance.log_pis[k]]
        told.append(replace(stage, behaviour_N=torch.tensor(said, dtype=torch.float64)))
    return replace(batch, stages=tuple(told))


def of_one_maze(batch: Batch, config: Config) -> Totals:
    """As if the batch were one maze, which its weights make of it, and with baselines of 0."""
    totals = Totals.of(batch, config)
    one, none = torch.ones_like(totals.mazes), torch.zeros_like(totals.returns)
    return replace(totals, mazes=one, returns=none, fit_KFQ=torch.zeros_like(totals.fit_KFQ))


CASES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "two ways": (DETOUR, {}),
    "a dead end": (DEAD_END, {}),
    "every parameter": (DEAD_END, {"inner": {"adapts": "all"}}),
    "a wall": ("S..\n.#E", {}),
    "blind": ("S.E", {"policy": {"radius": 0}}),
    "blind, with a compass": ("S.E", {"policy": {"radius": 0, "compass": True}}),
    "meta-sgd without dreams": (DEAD_END, {"policy": {"dreams": False}, "inner": {"rule": "meta-sgd"}}),
    "three attempts": (DEAD_END, {"inner": {"steps": 2}, "outer": {"first_weight": 0.0}}),
}


@pytest.mark.parametrize("case", CASES)
def test_over_every_attempt_the_learners_meta_gradient_is_that_of_the_expected_return(case: str) -> None:
    """E-MAML: d E[J(phi_K)] = E[d J(phi_K)] + E[J(phi_K) d log p], the attempts held fixed in the first part.

    What the attempts before the last have shown to memory, and to dreams, is in J(phi_K) like what they have taught.
    """
    text, sections = CASES[case]
    inner = {"estimator": "maml"} | sections.get("inner", {})
    config = make_config(1, **(sections | {"inner": inner}))
    theta_P = torch.from_numpy(random_theta(config, seed=3)).double().requires_grad_()
    chances = every_chance(text, theta_P, config)
    assert sum(chance.log_p.exp().item() for chance in chances) == pytest.approx(1)
    *_, before, last = expected_returns(chances, config)
    expected_P = slope(last + config.outer.first_weight * before, theta_P)

    config = make_config(len(chances), **(sections | {"inner": inner}))
    batch = every_move_made(text, chances, config)
    leaf_P = theta_P.detach().requires_grad_()
    found_P = slope(meta_objective(leaf_P, batch, config, of_one_maze(batch, config)), leaf_P)
    assert expected_P.norm() > 0.1
    torch.testing.assert_close(found_P, expected_P, rtol=1e-5, atol=1e-6 * float(expected_P.norm()))


@pytest.mark.parametrize("estimator", ["first-order", "lvc", "dice"])
def test_no_other_estimator_has_it(estimator: Estimator) -> None:
    """With the exploration term, dice would count the effect of theta on the attempts twice; so config refuses it."""
    inner = {"estimator": estimator, "adapts": "all"}
    sections: dict[str, dict[str, Any]] = {
        "policy": {"dreams": False},
        "inner": inner,
        "outer": {"exploration": float(estimator != "dice")},
    }
    config = make_config(1, **(sections | {"inner": inner | {"estimator": "maml"}}))
    theta_P = torch.from_numpy(random_theta(config, seed=3)).double().requires_grad_()
    chances = every_chance(DETOUR, theta_P, config)
    expected_P = slope(expected_returns(chances, config).sum(), theta_P)
    config = make_config(len(chances), **sections)
    batch = every_move_made(DETOUR, chances, config)
    leaf_P = theta_P.detach().requires_grad_()
    found_P = slope(meta_objective(leaf_P, batch, config, of_one_maze(batch, config)), leaf_P)
    assert (found_P - expected_P).norm() > 0.02 * expected_P.norm()


@pytest.mark.parametrize("estimator", ["maml", "lvc", "dice"])
@pytest.mark.parametrize(("text", "adapts"), [(DETOUR, "cells"), (DEAD_END, "cells"), (DEAD_END, "all")])
def test_dices_derivative_of_a_step_has_the_effect_of_theta_on_the_attempt_in_it(
    text: str, adapts: str, estimator: Estimator
) -> None:
    """Expected over every attempt, it is the derivative of the expected step; what others lack is seen here, too."""
    inner = {"rule": "sgd", "credit": "policy-gradient", "adapts": adapts}
    exact = make_config(1, inner=inner | {"estimator": "maml"}, outer={"exploration": 0.0})
    theta_P = torch.from_numpy(random_theta(exact, seed=3)).double().requires_grad_()
    chances, drawing = every_chance(text, theta_P, exact), Drawing(text)
    rng = np.random.default_rng(0)
    along_AC = torch.from_numpy(rng.normal(size=(4, len(drawing.cells))))
    along = {name: torch.from_numpy(rng.normal(size=value.shape)) for name, value in chances[0].phis[0].net.items()}

    expected = torch.zeros((), dtype=torch.float64)
    for chance in chances:
        phi = chance.phis[1]
        moved = torch.stack([along_AC[:, drawing.number(cell)] @ value_A for cell, value_A in phi.delta.items()]).sum()
        moved = moved + torch.stack([(along[name] * value).sum() for name, value in phi.net.items()]).sum()
        expected = expected + chance.log_p.exp() * moved
    expected_P = slope(expected, theta_P)

    config = make_config(len(chances), inner=inner | {"estimator": estimator}, outer={"exploration": 0.0})
    batch = every_move_made(text, chances, config)
    leaf_P, chance_M = (
        theta_P.detach().requires_grad_(),
        torch.stack([chance.log_p for chance in chances]).exp().detach(),
    )
    theta, made = unflatten(leaf_P, config), batch.stages[0]
    phi_0 = initial_phi(theta, batch.cells, batch.mazes, 1, config)
    log_prob_AN = made.log_prob(scores(phi_0.net, batch.scene), phi_0)
    phi_1 = adapt(phi_0, theta, log_prob_AN, made.made, batch.scene, 0, config)
    found = (phi_1.delta_AC.unflatten(1, (batch.mazes, -1)) * along_AC[:, None]).sum((0, 2)) @ chance_M
    for name, value in phi_1.net.items():
        each_M = (value * along[name]).flatten(1).sum(1) if adapts == "all" else (value * along[name]).sum()[None]
        found = found + (each_M * chance_M).sum()
    off = float((slope(found, leaf_P) - expected_P).norm() / expected_P.norm())
    assert off < 1e-6 if estimator == "dice" else off > 1e-3


@pytest.mark.parametrize(("text", "radius", "steps"), [(DETOUR, 1, 2), (DEAD_END, 1, 2), ("S.E", 0, 1)])
def test_many_attempts_return_on_average_what_is_expected_of_them(text: str, radius: int, steps: int) -> None:
    count, policy = 10_000, {"radius": radius}
    config = make_config(count, policy=policy, inner={"steps": steps}, run={"discount": 0.9})
    theta_P = random_theta(config, seed=3)
    expected_K = expected_returns(every_chance(text, torch.from_numpy(theta_P).double(), config), config)
    mazes = Mazes.concatenate([Mazes.from_text(text)] * count)
    trial = attempt_and_adapt(theta_P, mazes, np.random.default_rng(0), config)
    for walk, expected in zip(trial.walks, expected_K.tolist(), strict=True):
        return_W = Steps.of(walk, mazes, horizons(mazes, config)).returns(0.9)
        error = return_W.std() / np.sqrt(count)
        assert error > 0
        assert abs(return_W.mean() - expected) < 4 * error
