"""Machine code of the network of `learning/policy.py`, for one observation, and of the draw of a move, for one step."""

# M mazes, L looks, B cells seen around one, F features of an observation, H hidden units, A moves,
# O places for observations, Z gates: or moves, where a network scores these

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.compiled.exact import exp_of
from protocol.compiled.records import Met, Mind
from protocol.learning.policy import SHUT
from protocol.world.cells import NO_MOVE, A
from protocol.world.memory import MARK
from protocol.world.senses import ALL_MARKS, BUMPED, MARK_BITS


@machine_code
def described(seen: int, features: int, met: Met) -> Numbers:
    """Returns the features of an observation, 0 or 1, as `senses.described` does. `features`: F."""
    key = met.key_O[seen]
    marks, last = key & ALL_MARKS, (key >> MARK_BITS * A) % (NO_MOVE + 1)
    look = (key >> MARK_BITS * A) // (NO_MOVE + 1) % len(met.looks_LB)
    around = met.looks_LB.shape[1]
    feature_F = np.zeros(features, np.uint8)
    feature_F[:around] = met.looks_LB[look]
    feature_F[around + last] = 1
    for move in range(A):
        feature_F[around + NO_MOVE + 1 + (marks >> MARK_BITS * move & MARK) * A + move] = 1
    if met.compass_LA.shape[1]:
        feature_F[features - A :] = met.compass_LA[look]
    return feature_F


@machine_code
def open_moves(feature_F: Numbers, met: Met, mind: Mind) -> Numbers:
    """Says which moves do not lead into a wall that is sensed or remembered, as `senses.open_moves` does."""
    around = met.looks_LB.shape[1]
    open_A = np.ones(A, np.bool_)
    for move in range(A):
        bumped = feature_F[around + NO_MOVE + 1 + BUMPED * A + move] > 0
        open_A[move] = not (bumped or (around > 0 and feature_F[mind.wall_A[move]] > 0))
    return open_A


@machine_code
def consult(seen: int, maze: int, met: Met, mind: Mind) -> None:
    """Computes the scores and the odds of all moves in one observation, with the network of a maze."""
    features, hidden = mind.in_MFH.shape[1:]
    feature_F = described(seen, features, met)
    in_FH, bias_H, out_H = mind.in_MFH[maze], mind.bias_MH[maze], mind.out_MH[maze]
    unit_H = np.empty(hidden, np.float32)
    score_A = mind.said_OZ[seen]
    for move in range(A):
        unit_H[:] = np.float32(0)
        for feature in range(features):
            if feature_F[mind.turns_AF[move, feature]]:
                for unit in range(hidden):
                    unit_H[unit] += in_FH[feature, unit]
        score = np.float32(0)
        for unit in range(hidden):
            score += max(unit_H[unit] + bias_H[unit], np.float32(0)) * out_H[unit]
        score_A[move] = score
    least = min(min(score_A[0], score_A[1]), min(score_A[2], score_A[3]))
    open_A = open_moves(feature_F, met, mind)
    for move in range(A):
        if not open_A[move]:
            score_A[move] = np.float32(SHUT) + least
    most = max(max(score_A[0], score_A[1]), max(score_A[2], score_A[3]))
    for move in range(A):
        mind.odds_OA[seen, move] = exp_of(float(score_A[move] - most)) if open_A[move] else 0.0


@machine_code
def draw(chance: float, up: float, right: float, down: float, left: float) -> int:
    """Returns the move that a number from 0 to 1, 1 excluded, stands for, given the odds of each move."""
    drawn = chance * (up + right + down + left)
    return int(drawn >= up) + int(drawn >= up + right) + int(drawn >= up + right + down)


@machine_code
def nats(pi: float, share: float, by_known: float, other: float, by_hope: float) -> float:
    """Computes what dreams add to the logit of a move with a `share` in the known way, `other` in the hopeful one."""
    return by_known * (share - pi) + by_hope * (other - pi)
