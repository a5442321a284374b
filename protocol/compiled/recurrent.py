"""Machine code of `learning/recurrent.py`."""

# W walkers, H hidden units, Z gates: three for each hidden unit, M mazes, F features of an observation, A moves,
# O places for observations

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.compiled.exact import exp_of, log_of
from protocol.compiled.policy import described, open_moves
from protocol.compiled.records import Met, Mind
from protocol.learning.policy import SHUT
from protocol.world.cells import A


@machine_code
def sigmoid_of(x: np.float32) -> np.float32:
    """Computes 1 / (1 + e^-x) of one number."""
    one = np.float32(1)
    small = np.float32(exp_of(float(-abs(x))))
    return (one if x >= 0 else small) / (one + small)


@machine_code
def advance_one(fed_Z: Numbers, state_H: Numbers, again_HZ: Numbers, again_Z: Numbers, next_H: Numbers) -> None:
    """Fills `next_H`, which may be `state_H` itself, with the state after it. `again_Z` is room to compute in."""
    units = len(state_H)
    one, two = np.float32(1), np.float32(2)
    for gate in range(3 * units):
        again_Z[gate] = state_H[0] * again_HZ[0, gate]
    for unit in range(1, units):
        state = state_H[unit]
        for gate in range(3 * units):
            again_Z[gate] += state * again_HZ[unit, gate]
    for unit in range(units):
        state = state_H[unit]
        reset = sigmoid_of(fed_Z[unit] + again_Z[unit])
        keep = sigmoid_of(fed_Z[units + unit] + again_Z[units + unit])
        new = fed_Z[2 * units + unit] + reset * again_Z[2 * units + unit]
        new = two * sigmoid_of(two * new) - one
        next_H[unit] = new + keep * (state - new)


@machine_code
def advance(fed_WZ: Numbers, state_WH: Numbers, again_HZ: Numbers, next_WH: Numbers) -> None:
    """Fills `next_WH` with the state after `state_WH`."""
    again_Z = np.empty(again_HZ.shape[1], np.float32)
    for walker in range(len(state_WH)):
        advance_one(fed_WZ[walker], state_WH[walker], again_HZ, again_Z, next_WH[walker])


@machine_code
def feed(seen: int, met: Met, mind: Mind) -> None:
    """Computes what an observation says to the gates, and which moves are open in it."""
    in_FZ, fed_Z = mind.in_MFH[0], mind.said_OZ[seen]
    feature_F = described(seen, len(in_FZ), met)
    fed_Z[:] = np.float32(feature_F[0]) * in_FZ[0]
    for feature in range(1, len(in_FZ)):
        fed_Z += np.float32(feature_F[feature]) * in_FZ[feature]
    fed_Z += mind.bias_MH[0]
    mind.odds_OA[seen] = open_moves(feature_F, met, mind)


@machine_code
def respond(seen: int, mind: Mind, state_H: Numbers, again_Z: Numbers, odds_A: Numbers, log_prob_A: Numbers) -> None:
    """Advances the state by an observation, and fills in the log-probability of each move and its odds there.

    `again_Z` is room to compute in.
    """
    out_HA, open_A = mind.out_HA, mind.odds_OA[seen]
    advance_one(mind.said_OZ[seen], state_H, mind.again_HZ, again_Z, state_H)
    for move in range(A):
        log_prob_A[move] = state_H[0] * out_HA[0, move]
    for unit in range(1, len(state_H)):
        for move in range(A):
            log_prob_A[move] += state_H[unit] * out_HA[unit, move]
    least = min(min(log_prob_A[0], log_prob_A[1]), min(log_prob_A[2], log_prob_A[3]))
    for move in range(A):
        if not open_A[move]:
            log_prob_A[move] = np.float32(SHUT) + least
    log_prob_A -= max(max(log_prob_A[0], log_prob_A[1]), max(log_prob_A[2], log_prob_A[3]))
    total = np.float32(0)
    for move in range(A):
        total += np.float32(exp_of(float(log_prob_A[move])))
    log_prob_A -= np.float32(log_of(float(total)))
    for move in range(A):
        odds_A[move] = open_A[move] * exp_of(float(log_prob_A[move]))
