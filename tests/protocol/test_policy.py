"""The policy at all steps at once against one step at a time, and what is true of it whichever way the robot faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.policy import Phi, Scene, log_prob, scores, shapes
from tests.parts import stepwise
from tests.parts.batches import Given, Walked, Wanderer, make_config, random_theta
from tests.parts.robot import Drawing, Past, mazes_of, random_drawing

POLICIES: list[dict[str, Any]] = [
    {},
    {"radius": 2, "compass": True},
    {"radius": 0},
    {"dreams": False},
    {"memory": "none", "dreams": False, "radius": 0, "compass": True},
]


def wander(config: Config, seed: int, mazes: int = 3) -> tuple[list[Drawing], Walked]:
    """Attempts at random mazes of mixed sizes."""
    rng = np.random.default_rng(seed)
    drawings = [random_drawing(rng, most=5) for _ in range(mazes)]
    stages = config.inner.steps + 1
    return drawings, Walked.by([Wanderer(seed + k).choose for k in range(stages)], mazes_of(drawings), config)


@pytest.mark.parametrize("own", [False, True], ids=["one network", "a network of each maze"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_log_prob_is_that_of_one_step_after_another(policy: dict[str, Any], own: bool) -> None:
    config = make_config(3, policy=policy, inner={"adapts": "all" if own else "cells", "steps": 2})
    drawings, walked = wander(config, seed=5)
    rng = np.random.default_rng(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape))

    net = {name: some(3, *shape) if own else some(*shape) for name, shape in shapes(config).items()}
    phi = Phi(net, some(4, walked.mazes.cells), 3 * some(2, 34))
    scene = Scene.of(walked.met.features(), config, phi.delta_AC, walked.met.mazes(), 3)
    pasts, horizons, dreamt = [Past()] * 3, walked.horizon_M.tolist(), set()
    for done in walked.walks:
        at_N, seen_N, *dreams = (
            torch.from_numpy(array.astype(np.int64))
            for array in (done.at_N, done.seen_N, done.known_N, done.hope_N, done.gain_N)
        )
        log_prob_AN = log_prob(take(scores(net, scene), seen_N), take(phi.delta_AC, at_N), phi.dream_DG, *dreams)
        torch.testing.assert_close(log_prob_AN.exp().sum(0), torch.ones_like(log_prob_AN[0]))
        told = list(stepwise.attempts_at(drawings, done, np.zeros(len(at_N), np.float32), pasts, horizons, config))
        pasts = [past for _, past in told]
        row = 0
        for maze, (attempts, _) in enumerate(told):
            mine = {name: value[maze] for name, value in net.items()} if own else net
            first = walked.mazes.offset_M[maze]
            delta = {cell: phi.delta_AC[:, first + drawings[maze].number(cell)] for cell in drawings[maze].cells}
            for step in (step for attempt in attempts for step in attempt.steps):
                log_pis = stepwise.log_pi(stepwise.Phi(mine, delta, phi.dream_DG), step)
                assert set(torch.nonzero(log_prob_AN[:, row] > -50).flatten().tolist()) == set(step.allowed)
                found = log_prob_AN[step.allowed, row]
                torch.testing.assert_close(found, torch.stack(list(log_pis.values())), rtol=0, atol=1e-10)
                dreamt.add((bool(step.dream.known), bool(step.dream.hope)))
                row += 1
        assert row == log_prob_AN.shape[1]
    if config.policy.dreams:
        assert len(dreamt) >= 2  # of: no dream, either kind, both


def turned(drawing: Drawing) -> Drawing:
    """The maze turned to the right: what was up is right."""
    rows = [[drawing.mark[i, j] for j in range(drawing.columns)] for i in range(drawing.rows)]
    return Drawing("\n".join("".join(row) for row in np.rot90(np.array(rows), -1)))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(POLICIES), st.sampled_from(["cells", "all"]))
def test_in_a_maze_that_is_turned_a_robot_does_the_same_turned(seed: int, policy: dict[str, Any], adapts: str) -> None:
    """Also after adaptation: Delta and dreams are turned with the maze. A compass tells apart exits as near as one."""
    config = make_config(2, policy=policy, inner={"adapts": adapts, "steps": 2, "attempts": 2, "cell_step_size": 1.0})
    drawings, upright = wander(config, seed, mazes=2)
    if config.policy.compass and any(len(drawing.exits) > 1 for drawing in drawings):
        return
    sides = [turned(drawing) for drawing in drawings]
    chooses = [Given([[(move + 1) % 4 for move in moves] for moves in stage]).choose for stage in upright.moves()]
    sideways = Walked.by(chooses, mazes_of(sides), config)
    theta_P = random_theta(config, seed=1).astype(np.float64)
    place = {}  # of each cell, in which row it stands once the maze is turned
    for drawing, side, first in zip(drawings, sides, upright.mazes.offset_M, strict=True):
        for i, j in drawing.cells:
            place[first + drawing.number((i, j))] = first + side.number((j, drawing.rows - 1 - i))
    place_C = np.array([place[row] for row in range(upright.mazes.cells)])
    for (phi, log_prob_AN), (phi_there, log_prob_there_AN) in zip(
        upright.policies(theta_P), sideways.policies(theta_P), strict=True
    ):
        np.testing.assert_allclose(np.roll(log_prob_AN, 1, axis=0), log_prob_there_AN, rtol=1e-9, atol=1e-9)
        delta_there_AC = np.roll(phi.delta_AC, 1, axis=0)
        np.testing.assert_allclose(delta_there_AC, phi_there.delta_AC[:, place_C], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("adapts", ["cells", "all"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_arrays_and_tensors_agree_on_all_policies_of_a_trial(policy: dict[str, Any], adapts: str, dtype: Any) -> None:
    """So actors without torch, and the learner with it, mean the same."""
    inner = {"adapts": adapts, "steps": 3, "attempts": 2, "cell_step_size": 1.0, "step_size": 0.05}
    config = make_config(3, policy=policy, inner=inner)
    _, walked = wander(config, seed=2)
    theta_P = random_theta(config, seed=1).astype(dtype)
    tolerance = 1e-4 if dtype is np.float32 else 1e-10  # after three inner steps, each of which magnifies what was off
    for (phi, log_prob_AN), (phi_there, log_prob_there_AN) in zip(
        walked.policies(theta_P), walked.policies(torch.from_numpy(theta_P)), strict=True
    ):
        for name, value in phi.net.items():
            np.testing.assert_allclose(value, phi_there.net[name].numpy(), rtol=tolerance, atol=tolerance)
        for here, there in (
            (log_prob_AN, log_prob_there_AN),
            (phi.delta_AC, phi_there.delta_AC),
            (phi.dream_DG, phi_there.dream_DG),
        ):
            assert here.dtype == dtype
            np.testing.assert_allclose(here, there.numpy(), rtol=tolerance, atol=tolerance)


def test_the_scene_takes_the_precision_that_it_is_given() -> None:
    config = make_config(3)
    _, walked = wander(config, seed=0)
    for real in (np.zeros(0), np.zeros(0, np.float32), torch.zeros(0), torch.zeros(0, dtype=torch.float64)):
        scene = Scene.of(walked.met.features(), config, real)
        assert type(scene.x_UAF) is type(real)
        assert scene.x_UAF.dtype == real.dtype
