"""The functions `play` and `replay` of `learning/play.py`, which prepare arrays for the machine code of `walk`."""

# M mazes, C cells of all mazes, W walkers, N steps of all attempts, F features of an observation, H hidden units,
# A moves, L looks, B cells seen around one, D kinds of dream, G gains of a dream, O places for observations

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, plain
from protocol.compiled.records import Ground, Met, Mind, Robot, Told
from protocol.compiled.walk import ALL_DONE, MET_TOO_MANY, UNWALKABLE, walk_on
from protocol.learning.play import FIRST_STEPS, Keys, Scores, UnwalkableError, factors
from protocol.learning.policy import SHARE_A16, Phi
from protocol.world.cells import MOVES, A, Ints
from protocol.world.memory import Known
from protocol.world.senses import Bytes, Observations, offsets, turns
from protocol.world.walk import Walk

NOBODY = Mind(
    turns_AF=np.zeros((A, 0), np.intp),
    wall_A=np.zeros(A, np.intp),
    in_MFH=np.zeros((1, 0, 0), np.float32),
    bias_MH=np.zeros((1, 0), np.float32),
    out_MH=np.zeros((1, 0), np.float32),
    factor_CA=np.zeros((0, A)),
    dream_DG=np.zeros((2, 0), np.float32),
    share_A16=SHARE_A16,
    key_W=np.zeros(0, np.uint64),
    score_OA=np.zeros((0, A), np.float32),
    odds_OA=np.zeros((0, A)),
)


def play(phi: Phi, scores: Scores, met: Observations, known: Known, horizon_M: Ints, key_W: Keys) -> Walk:
    """Makes attempts with the policies `phi`, as `protocol.learning.play.play` does."""
    policy = met.sight.policy
    shared = phi.net["in"].ndim == 2
    net = {name: value[None] if shared else value for name, value in phi.net.items()}
    factor_AC = factors(phi)
    around = offsets(policy.radius)
    mind = Mind(
        turns_AF=turns(policy),
        wall_A=np.array([around.index(step) for step in MOVES] if around else [0] * A, np.intp),
        in_MFH=net["in"],
        bias_MH=net["bias"],
        out_MH=net["out"],
        factor_CA=np.zeros((0, A)) if factor_AC is None else factor_AC.T,
        dream_DG=phi.dream_DG,
        share_A16=SHARE_A16,
        key_W=key_W,
        score_OA=scores.score_OA,
        odds_OA=scores.odds_OA,
    )
    walkers = len(key_W)
    told = _room(walkers, FIRST_STEPS * walkers, np.zeros(walkers, np.int32), None)
    return _walked(met, known, horizon_M, Mind(*map(plain, mind)), told, scores)


def replay(met: Observations, known: Known, horizon_M: Ints, length_W: Ints, move_N: Bytes) -> Walk:
    """Makes attempts once more that were made before, as `protocol.learning.play.replay` does."""
    told = _room(len(length_W), len(move_N), length_W.astype(np.int32), move_N)
    return _walked(met, known, horizon_M, NOBODY, told, None)


def _room(walkers: int, steps: int, length_W: Numbers, move_N: Bytes | None) -> Told:
    """Makes room for what happens in so many steps; `move_N` are moves that are given."""
    return Told(
        length_W=length_W,
        end_W=np.zeros(walkers, np.intp),
        move_N=np.zeros(steps, np.uint8) if move_N is None else np.array(move_N),
        at_N=np.empty(steps, np.intp),
        seen_N=np.empty(steps, np.int32),
        known_N=np.empty(steps, np.uint8),
        hope_N=np.empty(steps, np.uint8),
        gain_N=np.empty(steps, np.uint8),
    )


def _walked(met: Observations, known: Known, horizon_M: Ints, mind: Mind, told: Told, scores: Scores | None) -> Walk:
    """Walks until all attempts are done, and makes room where there is too little."""
    sight = met.sight
    mazes, policy = sight.mazes, sight.policy
    remembers = policy.memory != "none"
    ground = Ground(
        cell_C=mazes.cell_C,
        ahead_CA=mazes.ahead_CA,
        next_CA=mazes.ahead_CA if policy.radius or not policy.dreams else sight.beside_CA,
        offset_M=mazes.offset_M,
        count_M=mazes.count_M,
        first_M=mazes.first_M,
        horizon_M=horizon_M.astype(np.int64),
        visited_C=known.visited_C,
        way_C=known.way_C,
        shape_M2=mazes.shape_M2,
    )
    ground = Ground(*map(plain, ground))
    robot = Robot(policy.radius, remembers, policy.compass, policy.dreams)
    done = 0
    while True:
        if scores:
            scores.make_room(len(met.key_O))
            mind = mind._replace(score_OA=scores.score_OA, odds_OA=scores.odds_OA)
        seen = Met(met.look_C, met.seen_of, met.key_O, plain(sight.looks_LB), plain(sight.compass_LA))
        why, done, met.count, steps = walk_on(done, met.count, ground, robot, seen, mind, told)
        if why == UNWALKABLE:
            raise UnwalkableError
        if why == ALL_DONE:
            return Walk(told.length_W, told.end_W, *(field[:steps] for field in told[2:]))
        if why == MET_TOO_MANY:
            met.make_room()
        else:
            room = max(2 * len(told.move_N), steps + int(horizon_M.max()))
            told = Told(told.length_W, told.end_W, *(_longer(field, room) for field in told[2:]))


def _longer(array: Numbers, room: int) -> Numbers:
    """Returns a copy of the array with room for more."""
    longer = np.empty(room, array.dtype)
    longer[: len(array)] = array
    return longer
