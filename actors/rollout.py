"""Attempts in a batch of mazes, and the adaptation between them: what an actor does with a lease."""

# M mazes, E attempts, W walkers, N steps of all attempts, U distinct observations, C cells of all mazes, A moves

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, adapt, chosen, initial_phi, unflatten
from protocol.learning.policy import HOPE, KNOWN, SHARE_A16, Phi, Scene, log_prob, scores
from protocol.wire.messages import Attempts
from protocol.world import families
from protocol.world.maze import MOVES, Floats, Ints, Mazes
from protocol.world.senses import Bytes, Observations, Sight
from protocol.world.walk import Dream, Here, Known, Walk, learned, walk

A = len(MOVES)
LEAST_NATS = -80.0  # of fast weights, below the largest of a cell: what is smaller still is never drawn


@dataclass(frozen=True)
class Trial:
    """What happened at some mazes, one inner step after another."""

    walks: tuple[Walk, ...]  # K + 1: before each inner step, and after the last
    log_probs: tuple[Floats, ...]  # K + 1: [N] the log-probability that each move was drawn with
    phis: tuple[Phi, ...]  # K + 1: the policies that drew them
    knowns: tuple[Known, ...]  # K + 1: what the robots knew before each
    rollout_s: float  # seconds that the walks took


def collect(
    theta_P: Floats, seed: Sequence[int], config: Config
) -> tuple[Mazes, tuple[Attempts, ...], dict[str, float]]:
    """The mazes that `seed` stands for and the attempts at them: a pure function, but for the seconds that it took."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    mazes = families.sample(config.maze, config.run.mazes_per_lease, rng, held_out=False)
    sampled = time.perf_counter()
    trial = attempt_and_adapt(theta_P, mazes, rng, config)
    seconds = {"sampling": sampled - began, "rollouts": trial.rollout_s}
    seconds["adaptation"] = time.perf_counter() - sampled - trial.rollout_s
    told = zip(trial.walks, trial.log_probs, strict=True)
    stages = tuple(Attempts(one.length_W.astype(np.int32), one.move_N, log_prob_N) for one, log_prob_N in told)
    return mazes, stages, seconds


def attempt_and_adapt(
    theta_P: Floats,
    mazes: Mazes,
    rng: np.random.Generator,
    config: Config,
    horizon_M: Ints | None = None,
) -> Trial:
    """K+1 stages of attempts at `mazes`, one inner step after each but the last.

    Args:
      horizon_M: [M] steps after which an attempt at each maze has failed; without, as the config says.
    """
    theta, inner = unflatten(theta_P, config), config.inner
    horizon_M = horizons(mazes, config) if horizon_M is None else horizon_M
    sight = Sight.of(mazes, config.policy)
    met = Observations(sight, by_maze=inner.adapts == "all")
    phis = [initial_phi(theta, mazes.cells, len(mazes), inner.steps, config)]
    knowns = [Known.nothing(mazes.cells)]
    walks, log_probs, rollout_s = [], [], 0.0
    for left in reversed(range(inner.steps + 1)):
        began = time.perf_counter()
        each = inner.attempts if left else config.outer.attempts
        walks.append(walk(sight, met, knowns[-1], each, horizon_M, Player(phis[-1], met, rng, config).choose))
        rollout_s += time.perf_counter() - began
        done, phi, scene = walks[-1], phis[-1], scene_of(met, config, len(mazes))
        score_AN, delta_AN = take(scores(phi.net, scene), done.row_N), take(phi.delta_AC, done.at_N)
        log_prob_AN = log_prob(score_AN, delta_AN, phi.dream_DG, done.known_N, done.hope_N, done.gain_N)
        log_probs.append(chosen(log_prob_AN, done.move_N))
        if left:
            knowns.append(learned(sight, knowns[-1], done))
            steps = Steps.of(done, mazes, horizon_M)
            known_GN = hindsight(steps, knowns[-1].way_C, left - 1, config)
            made = Made(each, done.at_N, done.row_N, done.move_N, steps.attempt_N, steps.time_N, known_GN)
            phis.append(adapt(phi, theta, log_prob_AN, made, scene, left - 1, config))
    return Trial(tuple(walks), tuple(log_probs), tuple(phis), tuple(knowns), rollout_s)


def scene_of(met: Observations, config: Config, mazes: int, begin: int = 0) -> Scene:
    """The observations from number `begin` on."""
    return Scene.of(met.features(begin), config, np.zeros(0, np.float32), met.mazes(begin), mazes)


class Player:
    """Draws moves from the policies `phi`: `policy.log_prob`, with products in place of sums of logarithms.

    The exponentials are taken once for each observation and each cell, and at every step only where a robot dreams.
    """

    def __init__(self, phi: Phi, met: Observations, rng: np.random.Generator, config: Config) -> None:
        self._phi, self._met, self._rng, self._config = phi, met, rng, config
        self._odds_AU = np.zeros((A, 0))  # of the observations met so far
        lower_AC = phi.delta_AC - phi.delta_AC.max(axis=0)
        self._factor_AC = np.exp(np.maximum(lower_AC, LEAST_NATS), dtype=np.float64) if lower_AC.any() else None

    def choose(self, here: Here) -> Bytes:
        """[W] a move for each walker."""
        if self._met.count > self._odds_AU.shape[1]:
            self._read()
        odds_AW = self._odds_AU.take(here.row_W, axis=1)
        factor_AW = None if self._factor_AC is None else self._factor_AC.take(here.at_W, axis=1)
        if here.dream and (dreams_W := here.dream.known_W | here.dream.hope_W).any():
            if factor_AW is not None:
                odds_AW *= np.where(dreams_W, 1, factor_AW)
            odds_AW *= self._dreamt(odds_AW, here.dream)
        elif factor_AW is not None:
            odds_AW *= factor_AW
        *bounds, total_W = accumulate(odds_AW)
        drawn_W = self._rng.random(len(here.row_W)) * total_W  # below the sum: no move of probability 0 is drawn
        first_W, *others = ((drawn_W >= bound_W).view(np.uint8) for bound_W in bounds)
        moves: Bytes = sum(others, first_W)
        return moves

    def _dreamt(self, odds_AW: npt.NDArray[np.float64], dream: Dream) -> npt.NDArray[np.float64]:
        """[A, W] what dreams make of the odds: e^(strength * (share - pi))."""
        pi_AW = odds_AW / odds_AW.sum(axis=0)
        nats_AW = np.zeros_like(odds_AW)
        for kind, moves_W in ((KNOWN, dream.known_W), (HOPE, dream.hope_W)):
            strength_W = self._phi.dream_DG[kind].take(dream.gain_W) * (moves_W > 0)
            nats_AW += strength_W * (SHARE_A16.take(moves_W, axis=1) - pi_AW)
        factor_AW: npt.NDArray[np.float64] = np.exp(nats_AW - nats_AW.max(axis=0))
        return factor_AW

    def _read(self) -> None:
        """What the network says of the observations that are new."""
        seen = self._odds_AU.shape[1]
        score_AU = scores(self._phi.net, scene_of(self._met, self._config, len(self._phi.net["in"]), seen))
        odds_AU = np.exp(score_AU - score_AU.max(axis=0), dtype=np.float64)
        self._odds_AU = np.concatenate((self._odds_AU, odds_AU), axis=1)
