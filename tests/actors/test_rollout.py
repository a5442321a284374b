"""What an actor does with a lease: moves drawn as the policy says, adaptation between attempts, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from actors.rollout import collect
from learner.admission import admit
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, horizons
from protocol.learning.inner import adapt, chosen, initial_phi, initial_theta, unflatten
from protocol.learning.policy import scores
from protocol.learning.trial import Trial, attempt_and_adapt
from protocol.wire.messages import Rollouts
from protocol.world import families
from protocol.world.maze import Mazes, held_out
from tests.parts.batches import CPU, Given, Walked, make_config, moves_of, random_theta, rollouts_of, with_more

TEXTS = ["S.#..\n#.#.#\n#....\n#.###\n..E..", "S...\n.##.\n.H..\n...E", "S.E"]
MAZES = Mazes.from_text("\n\n".join(TEXTS))

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "as it comes": {},
    "ten attempts": {"inner": {"steps": 9, "attempts": 1}, "outer": {"attempts": 1}},
    "blind": {"policy": {"radius": 0}},
    "wide eyes and a compass": {"policy": {"radius": 2, "compass": True}},
    "without dreams": {"policy": {"dreams": False}},
    "without memory": {"policy": {"memory": "none", "dreams": False}},
    "every parameter": {"inner": {"adapts": "all", "attempts": 3, "steps": 2}},
}


def lease_config(sections: dict[str, dict[str, Any]]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "maze": {"family": ["perfect", "blocks"], "side": [5, 7], "min_distance": 2, "traps": 0.05, "exits": 2},
        "policy": {"hidden": 8},
        "inner": {"attempts": 3, "steps": 2, "cell_step_size": 2.0},
        "outer": {"attempts": 4},
        "run": {"mazes": 6, "mazes_per_lease": 6, "horizon_per_cell": 1.0},
    }
    return Config.model_validate(with_more(base, sections))


def drawn_config(sections: dict[str, dict[str, Any]]) -> Config:
    """Makes a config for MAZES."""
    base: dict[str, dict[str, Any]] = {"inner": {"attempts": 3, "steps": 2, "cell_step_size": 1.0}}
    return make_config(len(MAZES), **with_more(base, sections))


def drawn(config: Config, seed: int = 0) -> tuple[Walked, Trial]:
    """A trial at MAZES, and its walks as arrays that know their mazes."""
    trial = attempt_and_adapt(random_theta(config), MAZES, np.random.default_rng(seed), config)
    return Walked.by([Given(moves_of(walk)).choose for walk in trial.walks], MAZES, config), trial


@pytest.mark.parametrize("kind", KINDS)
def test_moves_are_drawn_as_often_as_the_policy_says_and_are_said_to_be(kind: str) -> None:
    config = drawn_config(with_more(KINDS[kind], {"inner": {"steps": 2}, "outer": {"attempts": 1000}}))
    walked, trial = drawn(config)
    for walk, told_N, (_, log_prob_AN) in zip(
        trial.walks, trial.log_probs, walked.policies(random_theta(config)), strict=True
    ):
        np.testing.assert_allclose(told_N, log_prob_AN[walk.move_N, np.arange(len(told_N))], rtol=0, atol=2e-5)
    # All that a policy looks at: steps that are alike in it are drawn alike.
    key_NX = np.stack([walk.at_N, walk.seen_N, walk.known_N, walk.hope_N, walk.gain_N], axis=1)
    _, first_G, group_N = np.unique(key_NX, axis=0, return_index=True, return_inverse=True)
    group_N = group_N.reshape(-1)
    times_GA = np.zeros((len(first_G), 4))
    np.add.at(times_GA, (group_N, walk.move_N), 1)
    pi_GA = np.exp(log_prob_AN[:, first_G].T.astype(np.float64))
    expected_GA = times_GA.sum(1, keepdims=True) * pi_GA
    counts = expected_GA > 5
    chi_square = ((times_GA - expected_GA)[counts] ** 2 / expected_GA[counts]).sum()
    freedom = counts.sum() - counts.any(1).sum()  # their sum is distributed about normally
    assert freedom > 10
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_into_a_wall_that_is_sensed_or_remembered_is_never_made(kind: str) -> None:
    config = drawn_config(with_more(KINDS[kind], {"outer": {"attempts": 300}}))
    _, trial = drawn(config)
    for walk in trial.walks:
        bumps_N = MAZES.ahead_CA[walk.at_N, walk.move_N] == walk.at_N
        if config.policy.radius:
            assert not bumps_N.any()
            continue
        walker_N = np.repeat(np.arange(len(walk.length_W)), walk.length_W)
        bumps = list(zip(walker_N[bumps_N], walk.at_N[bumps_N], walk.move_N[bumps_N], strict=True))
        assert bumps
        assert len(set(bumps)) == len(bumps)


def arrays(mazes: Mazes, stages: Any) -> list[bytes]:
    own: list[npt.NDArray[Any]] = [mazes.shape_M2, mazes.start_M, mazes.cell_C]
    own += [array for stage in stages for array in (stage.length, stage.move, stage.log_prob)]
    return [array.tobytes() for array in own]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_is_a_pure_function_of_theta_seed_and_config(kind: str) -> None:
    config = lease_config(KINDS[kind])
    theta_P = random_theta(config)
    first, again, other, elsewhere = (
        arrays(*collect(vector_P, seed, config)[:2])
        for vector_P, seed in ((theta_P, (5, 1)), (theta_P, (5, 1)), (theta_P, (5, 2)), (initial_theta(config), (5, 1)))
    )
    assert first == again
    assert first != other
    assert first[:3] == elsewhere[:3]  # the mazes are the seed's alone
    assert first != elsewhere


def test_a_lease_holds_training_mazes_and_as_many_attempts_at_each_stage_as_the_config_says() -> None:
    config = lease_config({})
    mazes, stages, seconds = collect(initial_theta(config), (1, 2), config)
    wanted = families.sample(config.maze, 6, np.random.default_rng((1, 2)), held_out=False)
    assert arrays(mazes, ()) == arrays(wanted, ())
    assert not held_out(mazes).any()
    assert [len(stage.length) for stage in stages] == [18, 18, 24]
    assert [int(stage.length.sum()) for stage in stages] == [len(stage.move) for stage in stages]
    for stage in stages:
        assert [array.dtype.name for array in (stage.length, stage.move, stage.log_prob)] == [
            "int32",
            "uint8",
            "float32",
        ]
    assert set(seconds) == {"sampling", "rollouts", "adaptation"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_learner_walks_honest_rollouts_again_exactly(kind: str) -> None:
    config = lease_config(KINDS[kind])
    rng = np.random.default_rng((3, 4))
    mazes = families.sample(config.maze, 6, rng, held_out=False)
    trial = attempt_and_adapt(random_theta(config), mazes, rng, config)
    replay = admit(rollouts_of(mazes, trial.walks, trial.log_probs), config)
    assert len(replay.walks) == len(trial.walks) == config.inner.steps + 1
    pairs = [*zip(trial.walks, replay.walks, strict=True), *zip(trial.knowns, replay.knowns, strict=True)]
    for theirs, ours in pairs:
        for name, array in vars(theirs).items():
            assert array.dtype == vars(ours)[name].dtype, name
            assert np.array_equal(array, vars(ours)[name]), name
    for theirs_N, ours_N in zip(trial.log_probs, replay.behaviours, strict=True):
        assert np.array_equal(theirs_N, ours_N)


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_are_admitted_however_far_a_policy_has_run_away(kind: str) -> None:
    """However low the scores of all other moves, that of a wall that is sensed is lower."""
    config = lease_config(KINDS[kind])
    for seed in range(3):
        mazes, stages, _ = collect(random_theta(config, seed, scale=3.0), (seed,), config)
        assert all(np.isfinite(stage.log_prob).all() for stage in stages)
        admit(Rollouts(0, 0, 0, 0, {}, mazes, stages), config)


@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
@pytest.mark.parametrize("estimator", ["first-order", "maml", "lvc", "dice"])
@pytest.mark.parametrize("kind", ["as it comes", "ten attempts", "every parameter", "without memory"])
def test_the_learner_finds_the_policies_that_the_actor_adapted_to(kind: str, rule: str, estimator: str) -> None:
    config = lease_config(with_more(KINDS[kind], {"inner": {"rule": rule, "estimator": estimator}}))
    theta_P = random_theta(config, scale=0.1)
    mazes, stages, _ = collect(theta_P, (3,), config)
    replay = admit(Rollouts(0, 0, 0, 0, {}, mazes, stages), config)
    batch = Batch.of([replay], config, CPU)
    theta, last = unflatten(torch.from_numpy(theta_P), config), config.inner.steps
    phi = initial_phi(theta, batch.cells, batch.mazes, last, config)
    for k, stage in enumerate(batch.stages):
        log_prob_AN = stage.log_prob(scores(phi.net, batch.scene), phi)
        found_N = chosen(log_prob_AN, stage.made)
        torch.testing.assert_close(found_N, torch.from_numpy(stages[k].log_prob), rtol=1e-3, atol=1e-3)
        if k < last:
            phi = adapt(phi, theta, log_prob_AN, stage.made, batch.scene, last - k - 1, config)
    assert take(phi.delta_AC, batch.stages[0].made.at_S).abs().max() > 0.1


def test_attempts_go_better_after_a_step_along_the_policy_gradient() -> None:
    inner = {"rule": "sgd", "steps": 1, "attempts": 500, "credit": "policy-gradient", "cell_step_size": 3.0}
    policy = {"memory": "none", "dreams": False}
    config = make_config(3, inner=inner, outer={"attempts": 500}, policy=policy, run={"horizon_per_cell": 2.0})
    trial = attempt_and_adapt(initial_theta(config), MAZES, np.random.default_rng(0), config)
    returns = [Steps.of(walk, MAZES, horizons(MAZES, config)).returns(0.99) for walk in trial.walks]
    before_M, after_M = (return_W.reshape(3, 500).mean(1) for return_W in returns)
    assert (after_M[:2] > before_M[:2] + 0.05).all()  # the third leaves no choice


def test_a_robot_that_dreams_goes_the_way_that_it_knows_from_the_first_exit_on() -> None:
    """Before anything is learned: what dreams are worth is no matter of training."""
    config = make_config(
        3, inner={"steps": 5, "cell_step_size": 20.0}, outer={"attempts": 1}, run={"horizon_per_cell": 9.0}
    )
    mazes = Mazes.from_text("\n\n".join([TEXTS[0], TEXTS[2], "S...\n.##.\n....\n...E"]))
    trial = attempt_and_adapt(initial_theta(config), mazes, np.random.default_rng(0), config)
    for walk, known in list(zip(trial.walks, trial.knowns, strict=True))[1:]:
        assert (walk.length_W <= known.way_C[mazes.first_M]).all()
