"""The arrays that the machine code of an attempt reads and writes, put together by what they are about."""

# M mazes, C cells of all mazes, W walkers, N steps of all attempts, F features of an observation, H hidden units,
# A moves, L looks, B cells seen around one, D kinds of dream, G gains of a dream, O places for observations,
# Z gates: three for each hidden unit

from __future__ import annotations

from typing import NamedTuple

from protocol.compiled import Numbers


class Ground(NamedTuple):
    """The mazes, and what was known of them before the attempts."""

    cell_C: Numbers  # uint8
    ahead_CA: Numbers  # intp
    next_CA: Numbers  # intp; the cell on each side, where robots are blind; where they see, the same as ahead_CA
    offset_M: Numbers  # intp
    count_M: Numbers  # intp
    first_M: Numbers  # intp
    horizon_M: Numbers  # int64
    visited_C: Numbers  # uint8; as in Known
    way_C: Numbers  # int32; as in Known
    shape_M2: Numbers  # int32


class Robot(NamedTuple):
    """The senses and the memory of a robot."""

    radius: int
    remembers: bool
    compass: bool
    dreams: bool


class Met(NamedTuple):
    """The observations that were met, as in `protocol.world.senses.Observations`."""

    look_C: Numbers  # int64: the part of an observation's key that a cell decides
    seen_of: Numbers  # int32: by key, number + 1, or 0
    key_O: Numbers  # int64
    looks_LB: Numbers  # uint8: as in Sight
    compass_LA: Numbers  # uint8: as in Sight


class Mind(NamedTuple):
    """The policies; their arrays are empty where a record of moves is walked again."""

    turns_AF: Numbers  # intp: as `senses.turns`
    wall_A: Numbers  # intp: the feature that says whether there is a wall on each side; 0 where robots are blind
    in_MFH: Numbers  # float32; M is 1 where all mazes share a network
    bias_MH: Numbers  # float32
    out_MH: Numbers  # float32
    factor_CA: Numbers  # float64: e^Delta; C is 0 where it is 1 everywhere
    dream_DG: Numbers  # float32
    share_A16: Numbers  # float32
    key_W: Numbers  # uint64: the key of each walker's random numbers; W is 0 where moves are given
    said_OZ: Numbers  # float32: as in `play.Scores`, or as in `recurrent.Fed`
    odds_OA: Numbers  # float64: the same; negative where nothing has been computed
    again_HZ: Numbers  # float32: of a recurrent policy, as are the two that follow; H is 0 for others
    out_HA: Numbers  # float32
    state_WH: Numbers  # float32: the states before the attempts, and then those after them


class Told(NamedTuple):
    """Room for what happens, as in Walk; `move_N` and `length_W` hold the record where moves are given."""

    length_W: Numbers  # int32
    end_W: Numbers  # intp
    move_N: Numbers  # uint8
    at_N: Numbers  # intp
    seen_N: Numbers  # int32
    known_N: Numbers  # uint8
    hope_N: Numbers  # uint8
    gain_N: Numbers  # uint8
    log_prob_N: Numbers  # float32: the moves' log-probabilities, where a recurrent policy draws them
