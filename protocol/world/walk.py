"""Attempts: where moves lead, what the robot senses and remembers on the way, and which ways it dreams of.

Actors walk with a policy that draws the moves; the learner walks again with the moves that an actor sent. Both get the
same cells, observations and dreams, for nothing else decides them.
"""

# M mazes, C cells of all mazes, E attempts at each maze, W = M*E walkers, N steps of all attempts one after another,
# A moves

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.world import ways
from protocol.world.cells import EXIT, NO_MOVE, TRAP, A, Indices, Ints
from protocol.world.memory import Dream, Known, Memory, taken
from protocol.world.senses import Bytes, Observations, Sight


@dataclass(frozen=True)
class Here:
    """One step of the walkers that are still on their way, before they choose a move."""

    time: int  # t, from 0
    walker_W: Indices  # which of all walkers they are
    at_W: Indices  # row of the cell among the C
    seen_W: Ints  # number of the observation
    dream: Dream | None  # None where robots do not dream


Choose = Callable[[Here], Bytes]  # [W] a move for each


@dataclass(frozen=True)
class Walk:
    """The steps of E attempts at each of M mazes, one after another: by maze, attempt, time."""

    length_W: Ints  # [W] steps: until an exit or a trap, or the horizon
    end_W: Indices  # [W] row of the cell, among the C, where the attempt ended
    move_N: Bytes  # [N] the moves
    at_N: Indices  # [N] row of the cell, among the C, before the move
    seen_N: Ints  # [N] number of the observation
    known_N: Bytes  # [N] these three as in `Dream`; 0 where robots do not dream
    hope_N: Bytes
    gain_N: Bytes


class Walkers:
    """Robots on their way, E at each of M mazes, which all make their next move at once.

    `look` says what those see that are still under way, and `go` moves them.
    """

    def __init__(self, sight: Sight, met: Observations, known: Known, attempts: int, horizon_M: Ints) -> None:
        """Puts every robot where its maze starts; the arguments are those of `walk`."""
        mazes = sight.mazes
        self._met, self._memory = met, Memory(sight, known, attempts)
        self._ahead = mazes.ahead_CA.reshape(-1)
        self._ends_C = (mazes.cell_C == EXIT) | (mazes.cell_C == TRAP)
        self._walker_W = np.arange(len(mazes) * attempts)
        self._at_W, self._shift_W = np.repeat(mazes.first_M, attempts), self._memory.shift_W
        self._last_W: npt.NDArray[Any] = np.full(len(self._at_W), NO_MOVE, np.uint8)
        self._horizon_W = np.repeat(horizon_M, attempts)
        self._horizon = int(self._horizon_W.min())
        self._length_W, self._end_W = self._horizon_W.copy(), self._at_W.copy()
        self._told: list[tuple[Here, Bytes]] = []
        self._memory.enter(self._walker_W, self._at_W, self._at_W + self._shift_W)

    @property
    def are_done(self) -> bool:
        """Says whether every attempt has ended."""
        return not len(self._walker_W)

    def look(self) -> Here:
        """Returns what the walkers that are still on their way sense, remember and dream."""
        here_W = self._at_W + self._shift_W
        marks_W = self._memory.marks(here_W)
        seen_W = self._met.numbers(self._at_W, self._last_W, marks_W)
        dream = self._memory.dream(self._walker_W, self._at_W, here_W, marks_W)
        return Here(len(self._told), self._walker_W, self._at_W, seen_W, dream)

    def go(self, here: Here, move_W: Bytes) -> None:
        """Moves the walkers that have just looked. `move_W`: [W] a move for each."""
        self._told.append((here, move_W))
        at_W = self._moved(move_W)
        over_W = self._ends_C.take(at_W)
        if len(self._told) >= self._horizon:
            over_W |= self._horizon_W.take(self._walker_W) == len(self._told)
        if over_W.any():
            ended = self._walker_W[over_W]
            self._length_W[ended], self._end_W[ended] = len(self._told), at_W[over_W]
            going = np.flatnonzero(~over_W)
            self._walker_W, at_W, self._last_W, self._shift_W = taken(
                going, self._walker_W, at_W, self._last_W, self._shift_W
            )
        self._at_W = at_W

    def walk(self) -> Walk:
        """Returns all steps, once every attempt has ended."""
        return _in_order(self._told, self._length_W, self._end_W)

    def _moved(self, move_W: Bytes) -> Indices:
        """Returns the rows of the cells that moves lead to [W], and has them remembered."""
        at_W, to_W = self._at_W, self._ahead.take(self._at_W * A + move_W)
        self._memory.move(self._walker_W, at_W, at_W + self._shift_W, move_W, to_W)
        self._last_W = np.where(to_W != at_W, move_W, self._last_W)
        return to_W


def walk(
    sight: Sight,
    met: Observations,
    known: Known,
    attempts: int,
    horizon_M: Ints,
    choose: Choose,
) -> Walk:
    """Makes E attempts at each maze, all at once.

    Args:
      sight: what can be sensed in the mazes.
      met: numbers the observations; new ones are added to it.
      known: what is known from earlier attempts.
      attempts: E.
      horizon_M: [M] steps after which an attempt at each maze ends.
      choose: the policy, or a record of moves.
    """
    walkers = Walkers(sight, met, known, attempts, horizon_M)
    while not walkers.are_done:
        here = walkers.look()
        walkers.go(here, choose(here))
    return walkers.walk()


def learned(sight: Sight, known: Known, walk: Walk) -> Known:
    """Returns what is known after `walk`, which was made with `known`."""
    mazes, visited_C = sight.mazes, known.visited_C.copy()
    visited_C[walk.at_N] |= ways.VISITED
    visited_C[walk.end_W] |= ways.VISITED
    if not sight.policy.radius:
        bumped_N = mazes.ahead_CA[walk.at_N, walk.move_N] == walk.at_N
        np.bitwise_or.at(visited_C, walk.at_N[bumped_N], (1 << walk.move_N[bumped_N]).astype(np.uint8))
    way_C = np.empty(mazes.cells, np.int32)
    for group, (rows, columns) in ways.by_shape(mazes.shape_M2):
        cells = mazes.cells_of(group)
        grid = (len(group), rows, columns)
        way_C[cells] = ways.known_way(mazes.cell_C[cells].reshape(grid), visited_C[cells].reshape(grid)).reshape(-1)
    return Known(visited_C, way_C)


def _in_order(told: list[tuple[Here, Bytes]], length_W: Ints, end_W: Indices) -> Walk:
    """Puts the steps, which were told time by time, into the order of the attempts."""
    first_W = np.cumsum(length_W) - length_W
    place_N = np.concatenate([first_W.take(here.walker_W) + here.time for here, _ in told])
    order_N = np.empty(len(place_N), np.intp)
    order_N[place_N] = np.arange(len(place_N))

    def ordered(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(list(parts)).take(order_N)

    dreams = [here.dream for here, _ in told if here.dream]
    nothing_N = np.zeros(len(order_N), np.uint8)
    return Walk(
        length_W=length_W,
        end_W=end_W,
        move_N=ordered(move_W for _, move_W in told),
        at_N=ordered(here.at_W for here, _ in told),
        seen_N=ordered(here.seen_W for here, _ in told),
        known_N=ordered(dream.known_W for dream in dreams) if dreams else nothing_N,
        hope_N=ordered(dream.hope_W for dream in dreams) if dreams else nothing_N,
        gain_N=ordered(dream.gain_W for dream in dreams) if dreams else nothing_N,
    )
