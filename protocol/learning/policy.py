"""The policy: log pi(a | step), a network of the observation plus fast weights of the cell plus what the robot dreams.

Every move is scored by one and the same network, which sees the observation turned so that this move is ahead: what is
learned in a corridor that leads down holds in one that leads to the right. It runs once for each distinct observation,
never once for each step. The recurrent policy, which must be evaluated step by step, is in `recurrent.py`.
"""

# M mazes, C cells of all mazes, U distinct observations, F features of an observation, H hidden units, N steps of all
# attempts, A moves, D kinds of dream, G gains of a dream

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from protocol.config import Config
from protocol.learning.arrays import Array, exp, fixed, least, like, log_softmax, pick, product, relu, turned
from protocol.world.cells import A, Floats
from protocol.world.memory import NO_EXIT
from protocol.world.senses import Bytes, features, open_moves, turns

# The score of a move into a wall that is sensed, below the least score: it never happens, and e^SHUT is no denormal.
SHUT = -80.0
KNOWN, HOPE = range(2)  # kinds of dream: the known way, the hopeful way
DREAMS, GAINS = 2, NO_EXIT + 1

# The share of each move in each set of moves [A, 16]; a set has a bit for each move.
MEMBER_A16 = (np.arange(1 << A) >> np.arange(A)[:, None] & 1).astype(np.float32)
SHARE_A16: Floats = MEMBER_A16 / np.maximum(MEMBER_A16.sum(axis=0), 1)

Net = dict[str, Array]  # "in" [F, H], "bias" [H], "out" [H]; with a network for each maze [M, ...]


@dataclass(frozen=True)
class Scene:
    """The distinct observations of a batch, as the network reads them."""

    x_UAF: Array  # [U, A, F] features of each observation, turned to each move
    open_AU: Array  # [A, U] 0 where a move leads into a wall that is sensed, else 1
    member_UM: Array | None  # [U, M] 1 where the observation was made in the maze; None where mazes share a network

    @staticmethod
    def of(feature_UF: Bytes, config: Config, real: Array, maze_U: Array | None = None, mazes: int = 0) -> Scene:
        """Reads observations as the network does.

        Args:
          feature_UF: [U, F] their features, 0 or 1.
          real: any array of the kind, device and precision that is wanted.
          maze_U: [U] the maze of each, if each maze has a network of its own; there are `mazes` mazes.
        """
        x_UAF = feature_UF.astype(np.float32).take(turns(config.policy), axis=1)
        open_AU = np.ascontiguousarray(open_moves(feature_UF, config.policy).T).astype(np.float32)
        member = None if maze_U is None else like((maze_U[:, None] == np.arange(mazes)).astype(np.float32), real)
        return Scene(like(x_UAF, real), like(open_AU, real), member)


@dataclass(frozen=True)
class Phi:
    """The policies of M mazes at one moment of their adaptation."""

    net: Net
    delta_AC: Array  # [A, C] the fast weights
    dream_DG: Array  # [D, G] how strongly a dream of each kind and gain is followed, in nats
    state_MH: Array | None = None  # [M, H] the state of a recurrent network in each maze


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Lists the network's parameters and their shapes."""
    seen, hidden = features(config.policy), config.policy.hidden
    return {"in": (seen, hidden), "bias": (hidden,), "out": (hidden,)}


def scores(net: Net, scene: Scene) -> Array:
    """Computes the network's score of each move in each observation [A, U]."""
    out = net["out"] if scene.member_UM is None else _own(net["out"], scene.member_UM)
    score_AU = turned(product(hidden(net, scene), out[..., None]).reshape(-1, A))
    return shut(score_AU, scene.open_AU)


def shut(score_AU: Array, open_AU: Array) -> Array:
    """Gives moves that lead into a wall that is sensed, where `open_AU` is 0, a score that rules them out."""
    return score_AU * open_AU + (SHUT + fixed(least(score_AU))) * (1 - open_AU)


def hidden(net: Net, scene: Scene) -> Array:
    """Computes the hidden layer [U, A, H]."""
    if scene.member_UM is None:
        seen = product(scene.x_UAF.reshape(-1, scene.x_UAF.shape[-1]), net["in"])
        return relu(seen.reshape(*scene.x_UAF.shape[:2], -1) + net["bias"])
    return relu(product(scene.x_UAF, _own(net["in"], scene.member_UM)) + spread(net["bias"], scene))


def _own(value_M: Array, member_UM: Array) -> Array:
    """Returns for each observation the value of its maze [U, ...], by a product, whose gradient is one, too."""
    return product(member_UM, value_M.reshape(len(value_M), -1)).reshape(len(member_UM), *value_M.shape[1:])


def spread(value: Array, scene: Scene) -> Array:
    """Returns a value [H] as it is, or, where mazes have their own, that of each observation's maze [U, 1, H]."""
    return value if scene.member_UM is None else _own(value, scene.member_UM)[:, None]


def log_prob(score_AN: Array, delta_AN: Array, dream_DG: Array, known_N: Array, hope_N: Array, gain_N: Array) -> Array:
    """Computes log pi of every move at N steps [A, N].

    A dream is an imagined step: it is reinforced as a real one would be, by credit * (onehot - pi), on the spot. It is
    made anew from all that is known, the attempts included, so where there is one, it stands in place of the fast
    weights that those attempts have left.

    Args:
      score_AN: [A, N] the network's scores at each step.
      delta_AN: [A, N] the fast weights of the step's cell.
      dream_DG: [D, G] as in Phi.
      known_N, hope_N, gain_N: [N] as in `protocol.world.memory.Dream`.
    """
    dreams_N = (known_N | hope_N) > 0
    if not dreams_N.any():
        return log_softmax(score_AN + delta_AN)
    logit_AN = score_AN + delta_AN * ~dreams_N
    pi_AN = exp(log_softmax(logit_AN))
    share_A16 = like(SHARE_A16, score_AN)
    strength_DN = pick(dream_DG, gain_N)
    for strength_N, moves_N in ((strength_DN[KNOWN], known_N), (strength_DN[HOPE], hope_N)):
        logit_AN = logit_AN + strength_N * (moves_N > 0) * (share_A16[:, moves_N] - pi_AN)
    return log_softmax(logit_AN)
