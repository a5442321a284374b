"""What the machine code of an attempt reads and writes: arrays, put together by what they are about."""

# M mazes, C cells of all mazes, W walkers, N steps, U distinct observations, F features, H hidden units, A moves,
# L looks, G gains, I cells of one maze, R room for observations

from __future__ import annotations

from typing import NamedTuple

from protocol.compiled import Numbers


class Ground(NamedTuple):
    """The mazes, and what was known of them before the attempts."""

    cell_C: Numbers  # uint8
    ahead_CA: Numbers  # intp
    next_CA: Numbers  # intp; the cell on each side, for who is blind; for who sees, as ahead_CA
    offset_M: Numbers  # intp
    count_M: Numbers  # intp
    first_M: Numbers  # intp
    horizon_M: Numbers  # int64
    visited_C: Numbers  # uint8; as in Known
    way_C: Numbers  # int32; as in Known
    shape_M2: Numbers  # int32


class Robot(NamedTuple):
    """The robot's senses."""

    radius: int
    remembers: bool
    compass: bool
    dreams: bool


class Met(NamedTuple):
    """The observations that were met: as in Observations."""

    look_C: Numbers  # int64: the part of an observation's key that a cell decides
    row_of: Numbers  # int32: by key, number + 1, or 0
    key_R: Numbers  # int64
    feature_LF: Numbers  # uint8: looks, as features
    compass_LA: Numbers  # uint8


class Mind(NamedTuple):
    """The policies, or nothing where a record of moves is walked again."""

    turns_AF: Numbers  # intp: as `senses.turns`
    wall_A: Numbers  # intp: the feature that says whether there is a wall on each side; of none who is blind
    in_MFH: Numbers  # float32; of one maze where all share a network
    bias_MH: Numbers  # float32
    out_MH: Numbers  # float32
    factor_CA: Numbers  # float64: e^Delta; of no cell where it is 1 everywhere
    dream_DG: Numbers  # float32
    share_A16: Numbers  # float32
    key_W: Numbers  # uint64: of each walker's random numbers; of none where moves are given
    score_RA: Numbers  # float32: what the network says
    odds_RA: Numbers  # float64: its exponentials; negative where the network was not asked


class Told(NamedTuple):
    """Room for what happens: as in Walk. `move_N` and `length_W` hold what is given, where moves are given."""

    length_W: Numbers  # int32
    end_W: Numbers  # intp
    move_N: Numbers  # uint8
    at_N: Numbers  # intp
    row_N: Numbers  # int32
    known_N: Numbers  # uint8
    hope_N: Numbers  # uint8
    gain_N: Numbers  # uint8
