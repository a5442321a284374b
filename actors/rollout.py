"""Attempts in a batch of mazes, and the adaptation between them: what an actor does with a lease."""

# M mazes, E attempts, W walkers, N steps of all attempts, U distinct observations, C cells of all mazes, A moves

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protocol.config import Config
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, Theta, adapt, initial_phi, unflatten
from protocol.learning.policy import Phi, Scene, log_prob, scores
from protocol.world import families
from protocol.world.maze import MOVES, Ints, Mazes
from protocol.world.senses import Bytes, Observations, Sight
from protocol.world.walk import Floats, Here, Known, Walk, learned, walk

A = len(MOVES)


@dataclass(frozen=True)
class Trial:
    """What happened at some mazes, one inner step after another."""

    walks: tuple[Walk, ...]  # K + 1: before each inner step, and after the last
    phis: tuple[Phi, ...]  # the policies that made them
    knowns: tuple[Known, ...]  # what the robots knew before each
    rollout_s: float  # seconds that the walks took


def collect(
    theta_P: Floats, seed: Sequence[int], config: Config
) -> tuple[Mazes, tuple[Walk, ...], dict[str, float]]:
    """The mazes that `seed` stands for and the attempts at them: a pure function, but for the seconds that it took."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    mazes = families.sample(config.maze, config.run.mazes_per_lease, rng, held_out=False)
    sampled = time.perf_counter()
    trial = attempt_and_adapt(theta_P, mazes, rng, config)
    seconds = {"sampling": sampled - began, "rollouts": trial.rollout_s}
    seconds["adaptation"] = time.perf_counter() - sampled - trial.rollout_s
    return mazes, trial.walks, seconds


def attempt_and_adapt(
    theta_P: Floats,
    mazes: Mazes,
    rng: np.random.Generator,
    config: Config,
    horizon_M: Ints | None = None,
) -> Trial:
    """K+1 stages of attempts at `mazes`, one inner step after each but the last."""
    theta = unflatten(theta_P, config)
    inner, steps = config.inner, config.inner.steps
    horizon_M = horizons(mazes, config) if horizon_M is None else horizon_M
    sight = Sight.of(mazes, config.policy)
    met = Observations(sight, by_maze=inner.adapts == "all")
    phi = initial_phi(theta, mazes.cells, len(mazes), steps, config)
    known = Known.nothing(mazes.cells)
    walks, phis, knowns, rollout_s = [], [phi], [known], 0.0
    for stage in range(steps + 1):
        began = time.perf_counter()
        player = Player(phi, met, rng, config)
        each = inner.attempts if stage < steps else config.outer.attempts
        walks.append(walk(sight, met, known, each, horizon_M, player.choose))
        rollout_s += time.perf_counter() - began
        if stage < steps:
            known = learned(sight, known, walks[-1])
            phi = adapted(phi, theta, walks[-1], known, sight, met, horizon_M, steps - stage - 1, config)
            phis.append(phi)
            knowns.append(known)
    return Trial(tuple(walks), tuple(phis), tuple(knowns), rollout_s)


def adapted(
    phi: Phi,
    theta: Theta,
    made: Walk,
    known: Known,
    sight: Sight,
    met: Observations,
    horizon_M: Ints,
    attempts_left: int,
    config: Config,
) -> Phi:
    """f(phi, the attempts of `made`), after which `known` is known."""
    steps = Steps.of(made, sight.mazes, horizon_M)
    known_GN = hindsight(steps, known.way_C, attempts_left, config)
    done = Made(steps.attempts, made.at_N, made.row_N, made.move_N.astype(np.intp), steps.attempt_N, steps.time_N, known_GN)
    scene = scene_of(met, config, len(sight.mazes))
    log_prob_AN = log_prob(
        scores(phi.net, scene)[:, made.row_N],
        phi.delta_AC[:, made.at_N],
        phi.dream_DG,
        made.known_N,
        made.hope_N,
        made.gain_N,
    )
    return adapt(phi, theta, log_prob_AN, done, scene, attempts_left, config)


def scene_of(met: Observations, config: Config, mazes: int, begin: int = 0) -> Scene:
    """The observations from number `begin` on."""
    return Scene.of(met.features(begin), config, np.zeros(0, np.float32), met.mazes(begin), mazes)


class Player:
    """Draws moves from the policies `phi`."""

    def __init__(self, phi: Phi, met: Observations, rng: np.random.Generator, config: Config) -> None:
        self._phi, self._met, self._rng, self._config = phi, met, rng, config
        self._score_AU = np.zeros((A, 0), np.float32)  # of the observations met so far

    def choose(self, here: Here) -> tuple[Bytes, Floats]:
        """[W] a move for each walker, and its log-probability."""
        seen = self._score_AU.shape[1]
        if self._met.count > seen:
            scene = scene_of(self._met, self._config, len(self._phi.net["in"]), seen)
            self._score_AU = np.concatenate((self._score_AU, scores(self._phi.net, scene)), axis=1)
        log_prob_AW = log_prob(
            self._score_AU[:, here.row_W],
            self._phi.delta_AC[:, here.at_W],
            self._phi.dream_DG,
            here.known_W,
            here.hope_W,
            here.gain_W,
        )
        bound_AW = np.exp(log_prob_AW).cumsum(axis=0)
        # However the sums are rounded, a move of probability 0 is not drawn: the draw has more digits than they.
        drawn_W = self._rng.random(len(here.row_W)) * bound_AW[-1]
        move_W = (drawn_W >= bound_AW[:-1]).sum(axis=0, dtype=np.uint8)
        return move_W, log_prob_AW[move_W, np.arange(len(move_W))]
