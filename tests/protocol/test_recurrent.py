"""The recurrent policy against torch's own unit, against one step after another, and against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.outer import Totals, meta_gradient, meta_objective
from learner.policies import log_probs
from protocol.config import ClewError, Config
from protocol.learning import recurrent
from protocol.learning.credit import horizons
from protocol.learning.inner import initial_phi, shapes, unflatten
from protocol.learning.play import replay
from protocol.learning.trial import attempt_and_adapt
from protocol.world.cells import EXIT, A
from protocol.world.maze import Mazes
from protocol.world.senses import Observations, Sight, open_moves
from tests.parts.batches import batch_of, make_config, random_theta, tried

MAZES = Mazes.from_text("S.#\n..E\n\nS..\n.#H\n..E\nE.#\n\nS.\n#E")
MEMORIES = ["none", "attempts"]


def config_of(memory: str = "attempts", **sections: dict[str, Any]) -> Config:
    policy = {"kind": "recurrent", "dreams": False, "memory": memory}
    more: dict[str, dict[str, Any]] = {
        "inner": {"steps": 3},
        "outer": {"attempts": 1},
        "run": {"horizon_per_cell": 2.0},
    }
    return make_config(len(MAZES), policy=policy, **(more | sections))


def test_the_unit_is_that_of_torch() -> None:
    rng, inputs, units, walkers = np.random.default_rng(0), 7, 5, 4
    sizes = {"in": (inputs, 3 * units), "bias": (3 * units,), "again": (units, 3 * units)}
    net: dict[str, Any] = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    x: Any = rng.normal(size=(walkers, inputs)).astype(np.float32)
    state: Any = rng.normal(size=(walkers, units)).astype(np.float32)
    unit = torch.nn.GRUCell(inputs, units, dtype=torch.float64)
    with torch.no_grad():
        unit.weight_ih.copy_(torch.from_numpy(net["in"].T))
        unit.weight_hh.copy_(torch.from_numpy(net["again"].T))
        unit.bias_ih.copy_(torch.from_numpy(net["bias"]))
        unit.bias_hh.zero_()
        expected = unit(torch.from_numpy(x).double(), torch.from_numpy(state).double())
    told = recurrent.advance(net, x @ net["in"] + net["bias"], state)
    tensors = {name: torch.from_numpy(value) for name, value in net.items()}
    also = recurrent.advance(tensors, torch.from_numpy(x @ net["in"] + net["bias"]), torch.from_numpy(state))
    for each in (also, torch.from_numpy(told)):
        torch.testing.assert_close(each.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory", MEMORIES)
def test_attempts_are_those_of_one_robot_and_one_step_after_another(memory: str) -> None:
    """The state goes on from attempt to attempt, and after each the network hears that it has ended, and how."""
    config, rng = config_of(memory), np.random.default_rng(1)
    theta_P = random_theta(config, 1)
    trial = attempt_and_adapt(theta_P, MAZES, rng, config)
    phi = initial_phi(unflatten(theta_P, config), 0, 1, 3, config)
    net = {name: value.astype(float) for name, value in phi.net.items()}
    met = Observations(Sight.of(MAZES, config.policy))
    replays = replayed(met, config, trial)
    feature_UF = met.features()
    open_UA = open_moves(feature_UF, config.policy)
    outcomes = set()
    for maze in range(len(MAZES)):
        state = np.zeros(config.policy.hidden)
        for done, seen_N, log_prob_N in zip(trial.walks, replays, trial.log_probs, strict=True):
            begin = int(done.length_W[:maze].sum())
            for step in range(begin, begin + int(done.length_W[maze])):
                state = advanced(net, [*feature_UF[seen_N[step]], 0, 0], state)
                score = np.where(open_UA[seen_N[step]], state @ net["out"], -np.inf)
                expected = score[done.move_N[step]] - np.log(np.exp(score).sum())
                assert log_prob_N[step] == pytest.approx(expected, abs=1e-5)
            reward = int(MAZES.cell_C[done.end_W[maze]] == EXIT)
            outcomes.add(reward)
            state = advanced(net, [*[0] * feature_UF.shape[1], 1, reward], state)
    assert outcomes == {0, 1}


def replayed(met: Observations, config: Config, trial: Any) -> list[Any]:
    """Of each stage the observations' numbers [N], as `met` counts them."""
    told = zip(trial.walks, trial.knowns, strict=True)
    return [replay(met, known, horizons(MAZES, config), one.length_W, one.move_N).seen_N for one, known in told]


def advanced(net: dict[str, Any], given: list[float], state: Any) -> Any:
    """One state after another, as the paper has it."""

    def gate(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    fed, again = np.array(given) @ net["in"] + net["bias"], state @ net["again"]
    units = len(state)
    reset, keep = gate(fed[:units] + again[:units]), gate(fed[units : 2 * units] + again[units : 2 * units])
    new = np.tanh(fed[2 * units :] + reset * again[2 * units :])
    return keep * state + (1 - keep) * new


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_learner_computes_the_probabilities_that_the_actor_drew_with(memory: str) -> None:
    config = config_of(memory)
    theta_P = random_theta(config, 2)
    batch = batch_of(tried(theta_P, MAZES, config), config)
    assert len({int(stage.length_W.min()) for stage in batch.stages} | {int(batch.stages[0].length_W.max())}) > 1
    theta = unflatten(torch.from_numpy(theta_P).double(), config)
    for stage, log_prob_AS in zip(batch.stages, log_probs(theta, batch, config), strict=True):
        told_N = log_prob_AS.reshape(-1)[stage.made.pair_N]
        torch.testing.assert_close(told_N, stage.behaviour_N, rtol=0, atol=1e-5)
        torch.testing.assert_close(log_prob_AS.exp().sum(0), torch.ones(log_prob_AS.shape[1], dtype=torch.float64))


@pytest.mark.parametrize("objective", ["policy-gradient", "clipped"])
def test_its_meta_gradient_is_the_derivative_through_all_attempts(objective: str) -> None:
    config = config_of(outer={"attempts": 1, "objective": objective, "exploration": 0.5})
    batch = batch_of(tried(random_theta(config), MAZES, config), config)
    totals, theta_P = Totals.of(batch, config), torch.from_numpy(random_theta(config, 1)).double()
    gradient_P = meta_gradient(theta_P, batch, config).vector
    rng, width = np.random.default_rng(2), 1e-6
    for name in shapes(config):
        own = [torch.full(shape, float(name == other)).flatten() for other, shape in shapes(config).items()]
        along_P = torch.cat(own) * torch.from_numpy(rng.normal(size=len(theta_P)))
        ahead, behind = (meta_objective(theta_P + s * width * along_P, batch, config, totals).item() for s in (1, -1))
        expected = (ahead - behind) / (2 * width)
        assert abs(expected) > 1e-4
        assert float(gradient_P @ along_P) == pytest.approx(expected, rel=1e-5), name


def test_a_theta_without_memory_of_its_own_still_knows_its_former_attempts() -> None:
    """Whether an attempt succeeded changes what comes next, for it is fed to the network."""
    config = config_of("none")
    phi = initial_phi(unflatten(random_theta(config), config), MAZES.cells, len(MAZES), 3, config)
    assert phi.state_MH is not None
    lost, won = (recurrent.adapt(phi, phi.state_MH, np.full(len(MAZES), reward, np.float32)) for reward in (0, 1))
    assert not np.array_equal(lost.state_MH, won.state_MH)  # type: ignore[arg-type]
    open_AM = np.ones((A, len(MAZES)), np.float32)
    assert (recurrent.scores(phi.net, lost.state_MH, open_AM) != recurrent.scores(phi.net, won.state_MH, open_AM)).all()


@pytest.mark.parametrize(
    ("sections", "remedy"),
    [
        ({"policy": {"kind": "recurrent"}}, "set policy.dreams to false"),
        ({"policy": {"kind": "recurrent", "dreams": False}, "inner": {"attempts": 2}}, "set inner.attempts to 1"),
        ({"policy": {"kind": "recurrent", "dreams": False}, "outer": {"attempts": 2}}, "set outer.attempts to 1"),
        ({"policy": {"kind": "recurrent", "dreams": False}, "inner": {"adapts": "all"}}, "set inner.adapts to cells"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_remedy(sections: dict[str, Any], remedy: str) -> None:
    with pytest.raises((ClewError, ValueError), match=remedy):
        Config.model_validate(sections)
