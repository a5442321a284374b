"""Finds the maze in the transition table of a Gymnasium environment, or says in one sentence why it is none."""

# A moves

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocol.config import ClewError
from protocol.world.cells import MOVES, A

FREE, WALL, EXIT, TRAP = ".#EH"

Cell = tuple[int, int]  # row and column


class _NoMazeError(Exception):
    """A reason why a table is no maze; it ends a sentence."""


@dataclass(frozen=True)
class _Step:
    """The one thing that happens when a move is made in a state."""

    to: int  # the next state
    reward: float
    ends: bool  # the episode


@dataclass(frozen=True)
class _Table:
    """A transition table without chance: what each move does in each state that a robot can act in."""

    start: int
    states: int
    steps: dict[int, list[_Step]]  # [A] of each state that can be reached and does not end an episode


def name_of(env: object) -> str:
    """Returns the name that an environment was registered under, or "maze"."""
    return getattr(getattr(_inner(env), "spec", None), "id", "maze")


def drawn(env: object) -> str:
    """Draws the maze that an environment is; raises ClewError, which says why it is none."""
    try:
        table = _table(_inner(env))
        shapes = list(_shapes(_inner(env), table.states))
        reasons = []
        for rows, columns in shapes:
            try:
                return _drawing(table, rows, columns)
            except _NoMazeError as error:
                reasons.append(str(error))
        reason = reasons[0] if len(reasons) == 1 else f"its {table.states} states do not lie on a grid of any shape"
    except _NoMazeError as error:
        reason = str(error)
    raise ClewError(
        f"environment {name_of(env)} is no maze: {reason}; "
        "clew.from_gymnasium takes what moves for certain between neighbouring cells of a grid"
    )


def _inner(env: object) -> Any:
    """Returns an environment without its wrappers."""
    return getattr(env, "unwrapped", env)


def _table(env: Any) -> _Table:
    """Reads the transitions of all states that can be reached."""
    table, actions = getattr(env, "P", None), getattr(getattr(env, "action_space", None), "n", None)
    if table is None:
        raise _NoMazeError("it has no transition table P")
    if actions != A:
        raise _NoMazeError(f"its actions are {getattr(env, 'action_space', 'unknown')}, and a maze has {A} moves")
    start, steps = _start(env), {}
    todo = [start]
    while todo:
        state = todo.pop()
        if state not in steps:
            steps[state] = [_certain(table, state, action) for action in range(A)]
            todo += [step.to for step in steps[state] if not step.ends]
    if not any(step.ends for four in steps.values() for step in four):
        raise _NoMazeError("no move ends an episode, and a maze has an exit")
    return _Table(start, len(table), steps)


def _start(env: Any) -> int:
    """Returns the state in which all episodes begin."""
    chances = getattr(env, "initial_state_distrib", None)
    if chances is None:
        state, _ = env.reset(seed=0)
        try:
            return operator.index(state)
        except TypeError:
            raise _NoMazeError(f"episodes begin in {state!r}, which is not the number of a state") from None
    starts = np.flatnonzero(chances)
    if len(starts) != 1:
        raise _NoMazeError(f"episodes begin in {len(starts)} states, and a maze has one start")
    return int(starts[0])


def _certain(table: Any, state: int, action: int) -> _Step:
    """Returns what an action does in a state, if that is certain."""
    try:
        outcomes = {
            (operator.index(to), bool(ends)): float(reward)
            for chance, to, reward, ends in table[state][action]
            if chance > 0
        }
    except (KeyError, IndexError, TypeError, ValueError):
        raise _NoMazeError(f"P[{state}][{action}] is no list of (chance, next state, reward, end)") from None
    if len(outcomes) != 1:
        raise _NoMazeError(
            f"action {action} in state {state} can end in {len(outcomes)} ways, and moves in a maze are certain "
            "(is_slippery=False makes some environments so)"
        )
    (((to, ends), reward),) = outcomes.items()
    if math.isnan(reward):
        raise _NoMazeError(f"the reward of action {action} in state {state} is not a number")
    return _Step(to, reward, ends)


def _shapes(env: Any, states: int) -> Iterator[Cell]:
    """Yields the shape that an environment says its grid has, or all shapes with that many cells."""
    for told in (getattr(env, "shape", None), np.array(getattr(env, "desc", ()), object).shape):
        if isinstance(told, tuple) and [isinstance(one, int | np.integer) for one in told] == [True, True]:
            rows, columns = map(int, told)
            if rows * columns == states:
                yield rows, columns
                return
    yield from ((states // columns, columns) for columns in range(1, states + 1) if states % columns == 0)


def _drawing(table: _Table, rows: int, columns: int) -> str:
    """Draws the maze on a grid of this shape, or raises why the table does not fit it."""
    move_A = _moves(table, columns)
    kind = {divmod(state, columns): FREE for state in table.steps}
    rewards: dict[Cell, float] = {}  # of the cells in which episodes end
    unsure: list[Cell] = []  # beside the start: walls, or traps that throw a robot back to where it stands
    for state, steps in table.steps.items():
        for (down, right), step in zip(move_A, steps, strict=True):
            row, column = divmod(state, columns)
            ahead = row + down, column + right
            inside = 0 <= ahead[0] < rows and 0 <= ahead[1] < columns
            if inside and divmod(step.to, columns) == ahead:
                if step.ends:
                    rewards[ahead] = max(step.reward, rewards.get(ahead, step.reward))
                    _agree(kind, ahead, EXIT)
            elif step.to == state and not step.ends:
                if inside and state == table.start:
                    unsure.append(ahead)
                elif inside:
                    _agree(kind, ahead, WALL)
            elif inside and step.to == table.start:
                _agree(kind, ahead, TRAP)
            else:
                raise _NoMazeError(f"a move leads from state {state} to state {step.to}, which is not beside it")
    for cell in unsure:
        if kind.get(cell) != TRAP:
            _agree(kind, cell, WALL)
    best = max(rewards.values(), default=0.0)
    kind |= {cell: EXIT if reward == best else TRAP for cell, reward in rewards.items()}
    kind[divmod(table.start, columns)] = "S"
    return "\n".join("".join(kind.get((row, column), WALL) for column in range(columns)) for row in range(rows))


def _agree(kind: dict[Cell, str], cell: Cell, wanted: str) -> None:
    """Notes what a cell is, unless it is something else when entered from another side."""
    if kind.setdefault(cell, wanted) != wanted:
        raise _NoMazeError(
            f"the cell in row {cell[0]}, column {cell[1]} can be entered from one side and not, or not in the same "
            "way, from another"
        )


def _moves(table: _Table, columns: int) -> list[Cell]:
    """Returns which way each action goes [A]: where it leads most often, if it leads anywhere."""
    found: list[Cell | None] = []
    for action in range(A):
        ways: Counter[Cell] = Counter()
        for state, steps in table.steps.items():
            (row, column), (to_row, to_column) = divmod(state, columns), divmod(steps[action].to, columns)
            ways[to_row - row, to_column - column] += 1
        among = [way for way, _ in ways.most_common() if way in MOVES]
        found.append(among[0] if among else None)
    known = [way for way in found if way]
    if len(set(known)) < len(known):
        raise _NoMazeError("two of its actions go the same way")
    rest = iter([way for way in MOVES if way not in known])  # of these it does not matter which is which
    return [way or next(rest) for way in found]
