"""The functions `play` and `replay` of `learning/play.py`, which prepare arrays for the machine code of `walk`."""

# M mazes, C cells of all mazes, W walkers, N steps of all attempts, F features of an observation, H hidden units,
# Z gates: three for each hidden unit, A moves, L looks, B cells seen around one, D kinds of dream, G gains of a dream,
# O places for observations

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, plain
from protocol.compiled.records import Ground, Met, Mind, Robot, Told
from protocol.compiled.walk import ALL_DONE, MET_TOO_MANY, UNWALKABLE, walk_on
from protocol.config import PolicyConfig
from protocol.learning.play import FIRST_STEPS, Asked, Keys, Scores, UnwalkableError, factors
from protocol.learning.policy import SHARE_A16, Phi
from protocol.learning.recurrent import ENDED, Fed
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
    said_OZ=np.zeros((0, 0), np.float32),
    odds_OA=np.zeros((0, A)),
    again_HZ=np.zeros((0, 0), np.float32),
    out_HA=np.zeros((0, A), np.float32),
    state_WH=np.zeros((0, 0), np.float32),
)


def play(phi: Phi, scores: Scores, met: Observations, known: Known, horizon_M: Ints, key_W: Keys) -> Walk:
    """Makes attempts with the policies `phi`, as `protocol.learning.play.play` does."""
    policy = met.sight.policy
    shared = phi.net["in"].ndim == 2
    net = {name: value[None] if shared else value for name, value in phi.net.items()}
    factor_AC = factors(phi)
    mind = NOBODY._replace(
        turns_AF=turns(policy),
        wall_A=_walls(policy),
        in_MFH=net["in"],
        bias_MH=net["bias"],
        out_MH=net["out"],
        factor_CA=np.zeros((0, A)) if factor_AC is None else factor_AC.T,
        dream_DG=phi.dream_DG,
        key_W=key_W,
    )
    return _walked(met, known, horizon_M, mind, _room_to_draw(key_W), scores)[0]


def play_recurrent(
    phi: Phi, fed: Fed, met: Observations, known: Known, horizon_M: Ints, key_W: Keys
) -> tuple[Walk, Numbers, Numbers]:
    """Makes attempts with the recurrent policy `phi`, as `protocol.learning.recurrent.play` does."""
    state_WH: Numbers = np.array(phi.state_MH)
    mind = NOBODY._replace(
        wall_A=_walls(met.sight.policy),
        in_MFH=phi.net["in"][None, :ENDED],
        bias_MH=phi.net["bias"][None],
        key_W=key_W,
        again_HZ=phi.net["again"],
        out_HA=phi.net["out"],
        state_WH=state_WH,
    )
    return *_walked(met, known, horizon_M, mind, _room_to_draw(key_W), fed), state_WH


def _walls(policy: PolicyConfig) -> Numbers:
    """Returns which feature says whether there is a wall on each side [A]; 0 where robots are blind."""
    around = offsets(policy.radius)
    return np.array([around.index(step) for step in MOVES] if around else [0] * A, np.intp)


def _room_to_draw(key_W: Keys) -> Told:
    """Makes room for the first steps of attempts whose moves are drawn."""
    return _room(len(key_W), FIRST_STEPS * len(key_W), np.zeros(len(key_W), np.int32), None)


def replay(met: Observations, known: Known, horizon_M: Ints, length_W: Ints, move_N: Bytes) -> Walk:
    """Makes attempts once more that were made before, as `protocol.learning.play.replay` does."""
    told = _room(len(length_W), len(move_N), length_W.astype(np.int32), move_N)
    return _walked(met, known, horizon_M, NOBODY, told, None)[0]


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
        log_prob_N=np.empty(steps, np.float32),
    )


def _walked(
    met: Observations, known: Known, horizon_M: Ints, mind: Mind, told: Told, asked: Asked | None
) -> tuple[Walk, Numbers]:
    """Walks until all attempts are done, and makes room where there is too little; returns log-probabilities, too."""
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
    mind, done = Mind(*map(plain, mind)), 0
    while True:
        if asked:
            asked.make_room(len(met.key_O))
            mind = mind._replace(said_OZ=asked.said_OZ, odds_OA=asked.odds_OA)
        seen = Met(met.look_C, met.seen_of, met.key_O, plain(sight.looks_LB), plain(sight.compass_LA))
        why, done, met.count, steps = walk_on(done, met.count, ground, robot, seen, mind, told)
        if why == UNWALKABLE:
            raise UnwalkableError
        if why == ALL_DONE:
            *walked, log_prob_N = (field[:steps] for field in told[2:])
            return Walk(told.length_W, told.end_W, *walked), log_prob_N
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
