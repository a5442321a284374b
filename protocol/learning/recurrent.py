"""The recurrent policy of RL²: a network whose state goes on from attempt to attempt, and is all that it learns.

It is a gated recurrent unit. At each step it is fed the observation, in which the last move is; after each attempt,
that it has ended, and its reward. Nothing else adapts: f is the network itself. RL², arXiv:1611.02779; the unit: Cho et
al., arXiv:1406.1078, in the form of cuDNN.
"""

# M mazes, W walkers, N steps of all attempts, U distinct observations, O places for observations, of which U are taken,
# F features of an observation, H hidden units, Z gates: three for each hidden unit, A moves, C cells of all mazes,
# D kinds of dream, G gains of a dream

from __future__ import annotations

import numpy as np

from protocol.compiled import compiled, plain
from protocol.config import Config
from protocol.learning import exact
from protocol.learning.arrays import Array, is_torch, log_softmax, product, sigmoid, tanh, thirds, turned
from protocol.learning.play import Asked, Keys, Wide, drawn
from protocol.learning.policy import Net, Phi, shut
from protocol.world.cells import A, Floats, Indices, Ints
from protocol.world.memory import Known
from protocol.world.senses import Bytes, Observations, features, open_moves
from protocol.world.walk import Here, Walk, walk

ENDED, REWARD = -2, -1  # the inputs after those of the observation: an attempt has ended, and with which reward
FED = 2  # so many


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Lists the network's parameters and their shapes."""
    fed, units = features(config.policy) + FED, config.policy.hidden
    return {"in": (fed, 3 * units), "bias": (3 * units,), "again": (units, 3 * units), "out": (units, A)}


def advance(net: Net, fed_WZ: Array, state_WH: Array) -> Array:
    """Computes the next state [W, H]: keep * state + (1 - keep) * tanh(fed + reset * again), keep and reset gates.

    Args:
      fed_WZ: [W, Z] what the inputs say to each gate, bias included.
      state_WH: [W, H] the former state.
    """
    if not is_torch(state_WH) and (machine := compiled("recurrent")):
        next_WH = np.empty_like(state_WH)
        machine.advance(plain(fed_WZ), plain(state_WH), plain(net["again"]), next_WH)
        return next_WH
    fed, again = thirds(fed_WZ), thirds(product(state_WH, net["again"]))
    reset_WH, keep_WH = sigmoid(fed[0] + again[0]), sigmoid(fed[1] + again[1])
    new_WH = tanh(fed[2] + reset_WH * again[2])
    return new_WH + keep_WH * (state_WH - new_WH)


def adapt(phi: Phi, state_MH: Array, reward_M: Array) -> Phi:
    """Makes the inner step: the network, in the state in which an attempt left it, is told that it has ended.

    Args:
      state_MH: [M, H] the state after the last step of each attempt.
      reward_M: [M] the reward of each attempt, 0 or 1.
    """
    fed_MZ = phi.net["bias"] + phi.net["in"][ENDED] + reward_M[:, None] * phi.net["in"][REWARD]
    return Phi(phi.net, phi.delta_AC, phi.dream_DG, advance(phi.net, fed_MZ, state_MH))


def scores(net: Net, state_WH: Array, open_AW: Array) -> Array:
    """Computes the score of each move [A, W] in a state. `open_AW`: 0 where a move leads into a sensed wall, else 1."""
    return shut(turned(product(state_WH, net["out"])), open_AW)


def play(
    phi: Phi, fed: Fed, met: Observations, known: Known, horizon_M: Ints, key_M: Keys
) -> tuple[Walk, Floats, Floats]:
    """Makes one attempt at each maze; returns also each move's log-probability [N], and the states after it [M, H].

    `fed` is what the inputs say to the network of `phi`.
    """
    if machine := compiled("play"):
        return machine.play_recurrent(phi, fed, met, known, horizon_M, key_M)  # type: ignore[no-any-return]
    player = Player(phi, fed, key_M)
    done = walk(met.sight, met, known, 1, horizon_M, player.choose)
    return done, player.log_probs(done), player.state_WH


class Fed(Asked):
    """The numbers that the inputs say to each gate [O, Z]; the odds are 1 where a move is open, else 0."""

    def __init__(self, net: Net, met: Observations) -> None:
        """Starts without any of the observations that `met` numbers."""
        super().__init__(net, met, net["bias"].shape[0])

    def _answer(self, seen_U: Indices) -> tuple[Floats, Wide]:
        """Computes what the inputs say [U, Z], and which moves are open [U, A]."""
        feature_UF = self._met.features(seen_U)
        fed_UZ = product(feature_UF.astype(np.float32), self.net["in"][:ENDED]) + self.net["bias"]
        return fed_UZ, open_moves(feature_UF, self._met.sight.policy).astype(np.float64)


class Player:
    """Draws moves from the recurrent policy, walkers side by side, each in a state of its own."""

    def __init__(self, phi: Phi, fed: Fed, key_W: Keys) -> None:
        """Starts in the states of `phi`."""
        assert phi.state_MH is not None
        self.state_WH: Floats = phi.state_MH.copy()
        self._net, self._fed, self._key_W = phi.net, fed, key_W
        self._told: list[tuple[Indices, int, Floats]] = []

    def choose(self, here: Here) -> Bytes:
        """Draws a move for each walker [W]."""
        self._fed.ask()
        state_WH = advance(self._net, self._fed.said_OZ[here.seen_W], self.state_WH[here.walker_W])
        self.state_WH[here.walker_W] = state_WH
        open_AW = turned(self._fed.odds_OA[here.seen_W])
        log_prob_AW = log_softmax(scores(self._net, state_WH, open_AW.astype(np.float32)))
        odds_AW = exact.exp(log_prob_AW.astype(np.float64)) * open_AW
        move_W = drawn(odds_AW, self._key_W[here.walker_W], here.time)
        self._told.append((here.walker_W, here.time, log_prob_AW[move_W, np.arange(len(move_W))]))
        return move_W

    def log_probs(self, done: Walk) -> Floats:
        """Returns the log-probabilities of the moves [N], in the order of the walk."""
        first_W = np.cumsum(done.length_W) - done.length_W
        log_prob_N = np.empty(len(done.move_N), np.float32)
        for walker_W, time, log_prob_W in self._told:
            log_prob_N[first_W[walker_W] + time] = log_prob_W
        return log_prob_N
