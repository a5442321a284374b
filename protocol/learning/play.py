"""The draw of moves from policies, and the making of the same moves once more.

A move is drawn with a random number that is a function of the attempt's key and the time alone, so that anybody can
draw it again, in any order. Each attempt has a generator of its own, SplitMix64 of Steele, Lea and Flood ("Fast
splittable pseudorandom number generators", 2014).
"""

# M mazes, C cells of all mazes, W walkers, N steps of all attempts, U distinct observations, O places for observations,
# of which U are taken, A moves, D kinds of dream, G gains of a dream, Z gates: or moves, where a network scores these

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled
from protocol.config import Config
from protocol.learning import exact
from protocol.learning.policy import HOPE, KNOWN, SHARE_A16, Phi, Scene, scores
from protocol.world.cells import A, Floats, Indices, Ints
from protocol.world.memory import Dream, Known
from protocol.world.senses import Bytes, Observations
from protocol.world.walk import Here, Walk, walk

LEAST_NATS = -80.0  # the least fast weight, counted from the largest of its cell: e^-80 is never drawn
FIRST_STEPS = 64  # steps of an attempt for which there is room at first

Keys = npt.NDArray[np.uint64]
Wide = npt.NDArray[np.float64]


class UnwalkableError(Exception):
    """Moves that cannot be made, or attempts that end elsewhere than was said."""


def keys(walkers: int, rng: np.random.Generator) -> Keys:
    """Draws a key for each attempt [W], which says where its random numbers begin."""
    return rng.integers(0, 2**64, walkers, np.uint64)


def uniform(key_W: Keys, time: int) -> Wide:
    """Computes a random number from 0 to 1, 1 excluded, for the move of each attempt [W] at a time."""
    x = key_W + np.uint64(time * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    number_W: Wide = 2.0**-53 * ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64)
    return number_W


def drawn(odds_AW: Wide, key_W: Keys, time: int) -> Bytes:
    """Draws a move for each walker [W] with these odds [A, W], whatever their sums are."""
    up_W, right_W, down_W, left_W = odds_AW
    bounds = up_W, up_W + right_W, up_W + right_W + down_W
    number_W = uniform(key_W, time) * (bounds[-1] + left_W)
    move_W = np.zeros(len(number_W), np.uint8)
    for bound_W in bounds:
        move_W += number_W >= bound_W
    return move_W


def scene_of(met: Observations, seen_U: Indices, config: Config) -> Scene:
    """Collects the observations with these numbers, as a network reads them."""
    real = np.zeros(0, np.float32)
    return Scene.of(met.features(seen_U), config, real, met.mazes(seen_U), len(met.sight.mazes))


class Asked:
    """The numbers that a network says in the observations that were met; those of each are computed once."""

    def __init__(self, net: dict[str, Any], met: Observations, width: int) -> None:
        """Starts without any of the observations that `met` numbers. `width`: how many numbers `net` says of each."""
        self.net, self._met = net, met
        self.said_OZ = np.empty((0, width), np.float32)
        self.odds_OA = np.empty((0, A))  # as the subclass says; below 0 until computed

    def make_room(self, room: int) -> None:
        """Makes room for so many observations."""
        more = room - len(self.odds_OA)
        if more > 0:
            self.said_OZ = np.concatenate((self.said_OZ, np.zeros((more, self.said_OZ.shape[1]), np.float32)))
            self.odds_OA = np.concatenate((self.odds_OA, np.full((more, A), -1.0)))

    def ask(self) -> None:
        """Computes what there is to say in all observations that are new."""
        self.make_room(len(self._met.key_O))
        fresh = np.flatnonzero(self.odds_OA[: self._met.count, 0] < 0)
        if len(fresh):
            self.said_OZ[fresh], self.odds_OA[fresh] = self._answer(fresh)

    def _answer(self, seen_U: Indices) -> tuple[Floats, Wide]:
        """Computes the new rows of the two arrays, for the observations with these numbers."""
        raise NotImplementedError


class Scores(Asked):
    """The scores of the moves [O, A], and their exponentials: the odds, of which an observation's largest is 1."""

    def __init__(self, net: dict[str, Any], met: Observations, config: Config) -> None:
        """Starts without any score of `net` in the observations that `met` numbers."""
        super().__init__(net, met, A)
        self._config = config

    def of(self, seen_N: Ints) -> Floats:
        """Returns the scores [A, N] of steps with these observations, which must have been asked about."""
        return np.ascontiguousarray(self.said_OZ.T).take(seen_N, axis=1)

    def _answer(self, seen_U: Indices) -> tuple[Floats, Wide]:
        """Computes scores and odds [U, A]."""
        scene = scene_of(self._met, seen_U, self._config)
        score_AU = scores(self.net, scene)
        odds_AU = exact.exp((score_AU - score_AU.max(axis=0)).astype(np.float64))
        return score_AU.T, (odds_AU * scene.open_AU).T


def play(phi: Phi, scores: Scores, met: Observations, known: Known, horizon_M: Ints, key_W: Keys) -> Walk:
    """Makes attempts with the policies `phi`, the same number at each maze.

    Args:
      scores: the scores of the network of `phi`.
      met: numbers the observations; new ones are added to it.
      known: what is known from earlier attempts.
      horizon_M: [M] steps after which an attempt at each maze ends.
      key_W: [W] one key for each attempt, which decides its random numbers.
    """
    if machine := compiled("play"):
        return machine.play(phi, scores, met, known, horizon_M, key_W)  # type: ignore[no-any-return]
    player = Player(phi, scores, key_W)
    return walk(met.sight, met, known, len(key_W) // len(horizon_M), horizon_M, player.choose)


def replay(met: Observations, known: Known, horizon_M: Ints, length_W: Ints, move_N: Bytes) -> Walk:
    """Makes attempts once more that were made before; raises UnwalkableError where they cannot have been made.

    Args:
      met: numbers the observations; new ones are added to it.
      known: what is known from earlier attempts.
      horizon_M: [M] steps after which an attempt at each maze ends.
      length_W: [W] the steps of each attempt.
      move_N: [N] the moves of all, attempt after attempt.
    """
    if int(length_W.min()) < 1 or int(length_W.sum(dtype=np.int64)) != len(move_N) or int(move_N.max()) >= A:
        raise UnwalkableError
    if machine := compiled("play"):
        return machine.replay(met, known, horizon_M, length_W, move_N)  # type: ignore[no-any-return]
    record = Record(length_W, move_N)
    again = walk(met.sight, met, known, len(length_W) // len(horizon_M), horizon_M, record.choose)
    if (again.length_W != length_W).any():
        raise UnwalkableError
    return again


class Player:
    """Draws moves from the policies `phi`: `policy.log_prob`, with products in place of sums of logarithms.

    The exponentials are taken once for each observation and each cell, and at every step only where a robot dreams.
    """

    def __init__(self, phi: Phi, scores: Scores, key_W: Keys) -> None:
        """Prepares to draw with the policies `phi`, the scores of their network, and a key for each walker."""
        self._phi, self._scores, self._key_W = phi, scores, key_W
        self._factor_AC = factors(phi)

    def choose(self, here: Here) -> Bytes:
        """Draws a move for each walker [W]."""
        self._scores.ask()
        odds_AW = np.ascontiguousarray(self._scores.odds_OA.take(here.seen_W, axis=0).T)
        factor_AW = None if self._factor_AC is None else self._factor_AC.take(here.at_W, axis=1)
        if here.dream and (dreams_W := here.dream.known_W | here.dream.hope_W).any():
            if factor_AW is not None:
                odds_AW *= np.where(dreams_W, 1, factor_AW)
            odds_AW *= self._dreamt(odds_AW, here.dream)
        elif factor_AW is not None:
            odds_AW *= factor_AW
        return drawn(odds_AW, self._key_W[here.walker_W], here.time)

    def _dreamt(self, odds_AW: Wide, dream: Dream) -> Wide:
        """Computes the factors by which dreams change the odds [A, W]: e^(strength * (share - pi))."""
        pi_AW = odds_AW / exact.total(odds_AW)
        nats_AW = np.zeros_like(odds_AW)
        for kind, moves_W in ((KNOWN, dream.known_W), (HOPE, dream.hope_W)):
            strength_W = self._phi.dream_DG[kind].take(dream.gain_W) * (moves_W > 0)
            nats_AW += strength_W * (SHARE_A16.take(moves_W, axis=1) - pi_AW)
        factor_AW: Wide = exact.exp(nats_AW - nats_AW.max(axis=0))
        return factor_AW


class Record:
    """Moves that were made, for `walk` to make again."""

    def __init__(self, length_W: Ints, move_N: Bytes) -> None:
        """Takes the steps of each attempt [W], and the moves of all [N], attempt after attempt."""
        self._length_W, self._move_N = length_W.astype(np.int64), move_N
        self._first_W = np.cumsum(self._length_W) - self._length_W

    def choose(self, here: Here) -> Bytes:
        """Returns the move that each walker made [W]; raises UnwalkableError where its record has ended before."""
        if (self._length_W[here.walker_W] <= here.time).any():
            raise UnwalkableError
        move_W: Bytes = self._move_N[self._first_W[here.walker_W] + here.time]
        return move_W


def factors(phi: Phi) -> Wide | None:
    """Computes e^Delta [A, C], the largest of a cell being 1; None where it is 1 everywhere."""
    lower_AC = phi.delta_AC - phi.delta_AC.max(axis=0)
    if not lower_AC.any():
        return None
    factor_AC: Wide = exact.exp(np.maximum(lower_AC, LEAST_NATS).astype(np.float64))
    return factor_AC
