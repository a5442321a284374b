"""Attempts by table look-up against one robot walking at a time, and what an actor does with a lease."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from actors.rollout import attempt_and_adapt, collect, roll_out
from protocol.config import Config
from protocol.learning.credit import Steps
from protocol.learning.inner import adapt, initial_policy, initial_theta, unflatten
from protocol.learning.policy import Scene, log_policy
from protocol.wire.messages import Attempts
from protocol.world import families
from protocol.world.maze import MOVES, Mazes
from protocol.world.states import Floats, StateTable
from tests.oracle import Drawing

TEXTS = ["S.#..\n#.#.#\n#....\n#.###\n..E..", "S....\n.###.\n....E\n.####\n.####", "S.E##" + 4 * "\n#####"]
TABLE = StateTable.of(Mazes.from_text("\n\n".join(TEXTS)), radius=1)
HORIZON = 15


def some_policy(table: StateTable, seed: int) -> Floats:
    logits: npt.NDArray[np.float64] = np.random.default_rng(seed).normal(
        size=(*table.cell_MS.shape, len(MOVES))
    )
    log_prob: npt.NDArray[np.float64] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return log_prob.astype(np.float32)


def make_config(**sections: dict[str, Any]) -> Config:
    small: dict[str, dict[str, Any]] = {
        "maze": {"side": 5},
        "run": {"mazes": 6, "mazes_per_lease": 6, "horizon": 30},
        "inner": {"attempts": 3, "steps": 2},
        "outer": {"attempts": 4},
    }
    return Config.model_validate(
        {name: small.get(name, {}) | sections.get(name, {}) for name in small | sections}
    )


def one_robot_at_a_time(
    log_prob: Floats, attempts: int, horizon: int, seed: int
) -> tuple[list[int], list[int]]:
    """Lengths and visits; in every step each robot that still walks takes the next of the numbers drawn for it."""
    rng = np.random.default_rng(seed)
    robots = [(maze, each) for maze in range(len(TEXTS)) for each in range(attempts)]
    drawings = [Drawing(text) for text in TEXTS]
    states = [drawing.states() for drawing in drawings]
    limits = np.cumsum(np.exp(log_prob), axis=-1, dtype=np.float32)
    at = dict.fromkeys(robots, 0)
    visits: dict[tuple[int, int], list[int]] = {robot: [] for robot in robots}
    walking = robots
    for _ in range(horizon):
        drawn, going = rng.random(len(walking), dtype=np.float32), []
        for robot, number in zip(walking, drawn, strict=True):
            maze = robot[0]
            move = 0
            while move < len(MOVES) - 1 and number >= limits[maze, at[robot], move]:
                move += 1
            visits[robot].append(at[robot] * len(MOVES) + move)
            after = drawings[maze].follow(states[maze][at[robot]], move)
            if after is not None:
                at[robot] = states[maze].index(after)
                going.append(robot)
        walking = going
        if not walking:
            break
    return [len(visits[robot]) for robot in robots], [visit for robot in robots for visit in visits[robot]]


@pytest.mark.parametrize("seed", range(5))
def test_look_ups_equal_one_robot_at_a_time_given_the_same_numbers(seed: int) -> None:
    log_prob = some_policy(TABLE, seed)
    attempts = roll_out(log_prob, TABLE, 4, HORIZON, np.random.default_rng(seed))
    length, visits = one_robot_at_a_time(log_prob, 4, HORIZON, seed)
    assert attempts.length.flatten().tolist() == length
    assert attempts.visits.tolist() == visits


def test_every_step_starts_where_the_last_one_led_and_only_exit_or_horizon_end_an_attempt() -> None:
    attempts = roll_out(some_policy(TABLE, 0), TABLE, 30, HORIZON, np.random.default_rng(1))
    visits = iter(attempts.visits.tolist())
    endings = set()
    for text, lengths in zip(TEXTS, attempts.length.tolist(), strict=True):
        drawing = Drawing(text)
        states = drawing.states()
        for length in lengths:
            state = states[0]
            for step in range(length):
                row, move = divmod(next(visits), len(MOVES))
                assert states[row] == state
                after = drawing.follow(state, move)
                if after is None:
                    assert step == length - 1
                    endings.add("exit")
                    break
                state = after
            else:
                assert length == HORIZON
                endings.add("horizon")
    assert next(visits, None) is None
    assert endings == {"exit", "horizon"}


def test_moves_are_drawn_as_often_as_the_policy_says() -> None:
    log_prob = some_policy(TABLE, 2)
    attempts = roll_out(log_prob, TABLE, 4000, HORIZON, np.random.default_rng(3))
    made = np.split(attempts.visits, attempts.length.astype(int).sum(1).cumsum()[:-1])
    for maze, visits in enumerate(made):
        times = np.bincount(visits, minlength=log_prob[maze].size).reshape(-1, len(MOVES))
        often = times.sum(1) >= 200
        expected = times[often].sum(1, keepdims=True) * np.exp(log_prob[maze, often])
        chi_square_S = ((times[often] - expected) ** 2 / expected).sum(1)
        freedom = 3 * len(chi_square_S)  # their sum is distributed about normally
        assert abs(chi_square_S.sum() - freedom) < 4 * np.sqrt(2 * freedom)


def test_a_move_without_probability_is_never_made() -> None:
    log_prob = np.full((*TABLE.cell_MS.shape, len(MOVES)), -np.inf, np.float32)
    log_prob[..., 1:3] = np.log(0.5)
    attempts = roll_out(log_prob, TABLE, 500, HORIZON, np.random.default_rng(0))
    assert set((attempts.visits % len(MOVES)).tolist()) == {1, 2}


def test_what_is_sent_has_the_types_and_shapes_of_the_message() -> None:
    log_prob = some_policy(TABLE, 0)
    attempts = roll_out(log_prob, TABLE, 7, HORIZON, np.random.default_rng(0))
    assert attempts.length.shape == (len(TEXTS), 7)
    assert attempts.visits.shape == (attempts.length.sum(),)
    assert attempts.length.dtype == attempts.visits.dtype == np.uint16
    np.testing.assert_array_equal(attempts.log_prob, log_prob)


def arrays(mazes: Mazes, stages: tuple[Attempts, ...]) -> list[npt.NDArray[Any]]:
    own = [mazes.blocked, mazes.start, mazes.exit]
    return own + [array for stage in stages for array in (stage.length, stage.visits, stage.log_prob)]


@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
def test_the_same_lease_gives_the_same_bytes_and_another_seed_others(rule: str) -> None:
    config = make_config(inner={"attempts": 3, "steps": 2, "rule": rule})
    theta_P = initial_theta(config)
    first, again, other = (
        [array.tobytes() for array in arrays(*collect(theta_P, seed, config)[:2])]
        for seed in ((5, 1), (5, 1), (5, 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
@pytest.mark.parametrize("estimator", ["first-order", "maml", "lvc", "dice"])
def test_the_learner_finds_the_policies_that_the_actor_adapted_to(rule: str, estimator: str) -> None:
    config = make_config(inner={"attempts": 3, "steps": 2, "rule": rule, "estimator": estimator})
    theta_P = initial_theta(config)
    theta_P = theta_P + 0.05 * np.random.default_rng(0).normal(size=theta_P.shape).astype(np.float32)
    mazes, stages, _ = collect(theta_P, (3,), config)
    scene = Scene.of(StateTable.of(mazes, config.policy.radius), torch.device("cpu"))
    theta = unflatten(torch.from_numpy(theta_P).requires_grad_(), config)
    phi = initial_policy(theta, len(mazes))
    first = log_policy(phi, scene).detach()
    for stage in stages:
        log_prob = log_policy(phi, scene)
        torch.testing.assert_close(log_prob.detach(), torch.from_numpy(stage.log_prob), rtol=1e-4, atol=1e-4)
        steps = Steps.of(stage, scene, config.run.discount)
        phi = adapt(phi, theta, log_prob, steps, scene, config, graph=True)
    assert (log_prob - first).abs().max() > 0.01


def test_a_lease_holds_training_mazes_and_as_many_attempts_at_each_stage_as_config_says() -> None:
    config = make_config()
    mazes, stages, seconds = collect(initial_theta(config), (1, 2), config)
    wanted = families.sample(config.maze, 6, np.random.default_rng((1, 2)), held_out=False)
    np.testing.assert_array_equal(mazes.blocked, wanted.blocked)
    assert [stage.length.shape for stage in stages] == [(6, 3), (6, 3), (6, 4)]
    assert set(seconds) == {"sampling", "rollouts", "adaptation"}


def test_adaptation_leaves_the_mazes_of_a_lease_independent() -> None:
    """A maze's last policy follows from its own attempts alone, whatever else is in the lease."""
    config = make_config()
    theta_P = initial_theta(config)
    mazes, stages, _ = collect(theta_P, (4,), config)
    table = StateTable.of(mazes[2:3], config.policy.radius)
    scene, theta = (
        Scene.of(table, torch.device("cpu")),
        unflatten(torch.from_numpy(theta_P).requires_grad_(), config),
    )
    phi, count = initial_policy(theta, 1), table.cell_MS.shape[1]
    for stage in stages:
        log_prob = log_policy(phi, scene)
        wanted = torch.from_numpy(stage.log_prob[2:3, :count])
        torch.testing.assert_close(log_prob.detach(), wanted, rtol=1e-4, atol=1e-4)
        begin, end = (int(stage.length[:maze].sum()) for maze in (2, 3))
        own = Attempts(stage.length[2:3], stage.visits[begin:end], stage.log_prob[2:3, :count])
        phi = adapt(
            phi, theta, log_prob, Steps.of(own, scene, config.run.discount), scene, config, graph=False
        )


def test_attempts_go_better_after_a_step_along_the_policy_gradient() -> None:
    inner = {"rule": "sgd", "steps": 1, "attempts": 500, "credit": "policy-gradient"}
    inner |= {"step_size": 0.3, "cell_step_size": 1.0}
    config = make_config(inner=inner, outer={"attempts": 500})
    mazes = Mazes.from_text("\n\n".join(TEXTS))
    (before, after), _ = attempt_and_adapt(initial_theta(config), mazes, np.random.default_rng(0), config)
    assert (after.length.mean(1) < before.length.mean(1)).all()
