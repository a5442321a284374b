"""Attempts as actors make them, as the learner takes them, and as the slow forms see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner import baseline
from learner.admission import Replay, admit
from learner.outer import Totals, after_adaptation
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.arrays import Array, is_torch, like, take
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, adapt, initial_phi, initial_theta, unflatten
from protocol.learning.policy import Phi, Scene, log_prob, scores
from protocol.learning.trial import attempt_and_adapt
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.cells import Floats, Ints
from protocol.world.maze import Mazes
from protocol.world.memory import Dream, Known
from protocol.world.senses import Bytes, Observations, Sight
from protocol.world.walk import Choose, Here, Walk, learned, walk
from tests.parts import stepwise
from tests.parts.robot import Drawing, Past

CPU = torch.device("cpu")


def make_config(mazes: int, **sections: dict[str, Any]) -> Config:
    """Makes a config for so many mazes of any size, which tests draw themselves, whatever the defaults are."""
    base: dict[str, dict[str, Any]] = {
        "maze": {"family": "file", "path": "drawn in the test"},
        "policy": {"hidden": 5},
        "inner": {"steps": 1, "attempts": 1, "cell_step_size": 5.0, "step_size": 0.02},
        "outer": {"attempts": 2, "gae_lambda": 0.9, "first_weight": 1.0, "exploration": 0.0},
        "run": {"mazes": mazes, "mazes_per_lease": mazes, "horizon_per_cell": 1.0, "discount": 0.99},
    }
    return Config.model_validate(with_more(base, sections))


def with_more(base: dict[str, dict[str, Any]], sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of both; where they differ, those of `sections`."""
    return {name: base.get(name, {}) | sections.get(name, {}) for name in base | sections}


def random_theta(config: Config, seed: int = 0, scale: float = 0.3) -> Floats:
    """[P] a theta in which everything has something to say."""
    theta_P = initial_theta(config)
    noise_P = np.random.default_rng(seed).normal(scale=scale, size=len(theta_P))
    return (theta_P + noise_P).astype(np.float32)


def rollouts_of(mazes: Mazes, walks: Sequence[Walk], log_probs: Sequence[Floats]) -> Rollouts:
    told = zip(walks, log_probs, strict=True)
    stages = tuple(Attempts(walk.length_W.astype(np.int32), walk.move_N, log_prob_N) for walk, log_prob_N in told)
    return Rollouts(0, 0, 0, 0, {}, mazes, stages)


def tried(theta_P: Floats, mazes: Mazes, config: Config, seed: int = 0) -> Replay:
    """Attempts at `mazes` under `theta_P`, as the learner walks them again."""
    trial = attempt_and_adapt(theta_P, mazes, np.random.default_rng(seed), config)
    return admit(rollouts_of(mazes, trial.walks, trial.log_probs), config)


def batch_of(replay: Replay, config: Config) -> Batch:
    """Makes a batch in float64."""
    return Batch.of([replay], config, CPU, torch.float64)


def trials_of(replay: Replay, batch: Batch, config: Config) -> list[stepwise.Trial]:
    """The same attempts maze by maze and step by step; what is measured in float32 is taken from the batch."""
    drawings, count = Drawing.all_of(replay.mazes), len(replay.mazes)
    pasts, horizon_M = [Past()] * count, horizons(replay.mazes, config).tolist()
    stages: list[list[list[stepwise.Attempt]]] = [[] for _ in drawings]
    facts: list[list[list[list[list[float]]]]] = [[] for _ in drawings]
    values: list[list[list[list[float]]]] = [[] for _ in drawings]
    fits = Totals.of(batch, config).fit_KFQ
    for k, (done, stage) in enumerate(zip(replay.walks, batch.stages, strict=True)):
        told = list(stepwise.attempts_at(drawings, done, replay.behaviours[k], pasts, horizon_M, config))
        pasts, lengths = [past for _, past in told], done.length_W.tolist()
        (outcome,) = stage.outcomes
        value_N = baseline.values(outcome, baseline.weights(fits[k].numpy()))
        value_W = torch.split(torch.from_numpy(value_N), lengths)
        fact_W = torch.split(stage.made.known_JN.T, lengths) if k < config.inner.steps else []
        for maze, (attempts, _) in enumerate(told):
            own = slice(maze * len(attempts), (maze + 1) * len(attempts))
            stages[maze].append(attempts)
            values[maze].append(_lists(value_W[own]))
            facts[maze].append(_lists(fact_W[own]))
    gains = after_adaptation(batch, config).tolist()
    return [stepwise.Trial(*each) for each in zip(drawings, stages, facts, values, gains, strict=True)]


def _lists(parts: Sequence[Tensor]) -> list[Any]:
    return [part.tolist() for part in parts]


@dataclass(frozen=True)
class Walked:
    """Some stages of attempts at some mazes, whoever chose the moves."""

    mazes: Mazes
    met: Observations
    walks: list[Walk]  # [k]
    knowns: list[Known]  # [k] before each stage
    horizon_M: Ints
    config: Config

    @staticmethod
    def by(chooses: Sequence[Choose], mazes: Mazes, config: Config, horizon_M: Ints | None = None) -> Walked:
        """K + 1 stages: with the attempts that the config asks for before each inner step, and after the last."""
        sight = Sight.of(mazes, config.policy)
        met = Observations(sight, config.inner.adapts == "all")
        horizon_M = horizons(mazes, config) if horizon_M is None else horizon_M
        walks, knowns = [], [Known.nothing(mazes.cells)]
        for k, choose in enumerate(chooses):
            each = config.inner.attempts if k < config.inner.steps else config.outer.attempts
            walks.append(walk(sight, met, knowns[-1], each, horizon_M, choose))
            knowns.append(learned(sight, knowns[-1], walks[-1]))
        return Walked(mazes, met, walks, knowns, horizon_M, config)

    def moves(self) -> list[list[list[int]]]:
        """Lists the moves of each attempt of each stage: [k][w][t]."""
        return [moves_of(done) for done in self.walks]

    def policies(self, theta_P: Array) -> list[tuple[Phi, Array]]:
        """[k] phi_k, and [A, N] log pi of every move at its steps: of numpy arrays or of tensors, as theta is."""
        theta, last = unflatten(theta_P, self.config), self.config.inner.steps
        scene = Scene.of(self.met.features(), self.config, theta_P, self.met.mazes(), len(self.mazes))
        phi, told = initial_phi(theta, self.mazes.cells, len(self.mazes), last, self.config), []
        for k, done in enumerate(self.walks):
            at_N, seen_N, move_N, *dreams = (
                _index(array, theta_P)
                for array in (done.at_N, done.seen_N, done.move_N, done.known_N, done.hope_N, done.gain_N)
            )
            score_AN, delta_AN = take(scores(phi.net, scene), seen_N), take(phi.delta_AC, at_N)
            told.append((phi, log_prob(score_AN, delta_AN, phi.dream_DG, *dreams)))
            if k < last:
                steps = Steps.of(done, self.mazes, self.horizon_M)
                known_JN = like(hindsight(steps, self.knowns[k + 1].way_C, last - k - 1, self.config), theta_P)
                attempt_N, time_N = _index(steps.attempt_N, theta_P), _index(steps.time_N, theta_P)
                pair_N = move_N * len(at_N) + _index(np.arange(len(at_N)), theta_P)
                made = Made(steps.attempts, at_N, seen_N, pair_N, attempt_N, time_N, known_JN)
                phi = adapt(phi, theta, told[-1][1], made, scene, last - k - 1, self.config)
        return told


def _index(array: npt.NDArray[Any], real: Array) -> Array:
    """Returns indices as an array or a tensor, whichever `real` is."""
    return torch.from_numpy(array.astype(np.int64)) if is_torch(real) else array.astype(np.intp)


def moves_of(done: Walk) -> list[list[int]]:
    """Lists the moves of each attempt: [w][t]."""
    return [part.tolist() for part in np.split(done.move_N, np.cumsum(done.length_W)[:-1])]


def members(moves: int) -> frozenset[int]:
    return frozenset(move for move in range(4) if moves >> move & 1)


class Wanderer:
    """Follows its hope now and then, the known way now and then, and moves anywhere else the rest of the time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, here: Here) -> Bytes:
        moves = []
        nothing = np.zeros(len(here.at_W), np.uint8)
        dream = here.dream or Dream(nothing, nothing, nothing)
        for hope, known in zip(dream.hope_W, dream.known_W, strict=True):
            wish = self.rng.random()
            ways = members(hope) if wish < 0.5 else members(known) if wish < 0.7 else frozenset()
            moves.append(int(self.rng.choice(sorted(ways or range(4)))))
        return np.array(moves, np.uint8)


class Given:
    """Makes the moves of a record: one list for every walker."""

    def __init__(self, moves: list[list[int]]) -> None:
        self.moves = moves

    def choose(self, here: Here) -> Bytes:
        moves = [self.moves[walker][here.time] for walker in here.walker_W]
        return np.array(moves, np.uint8)
