"""`clew.from_gymnasium`: which environments are mazes, and why others are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

import clew
from protocol.world.cells import MOVES

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]


def table_of(text: str) -> SimpleNamespace:
    """An environment whose states are the free cells of a maze, and whose moves are clew's."""
    lines = text.split("\n")
    rows, columns = len(lines), len(lines[0])
    table: Table = {}
    for state in range(rows * columns):
        row, column = divmod(state, columns)
        table[state] = {}
        for move, (down, right) in enumerate(MOVES):
            to, there = state, (row + down, column + right)
            if 0 <= there[0] < rows and 0 <= there[1] < columns and lines[there[0]][there[1]] != "#":
                to = there[0] * columns + there[1]
            kind = lines[to // columns][to % columns]
            table[state][move] = [(1.0, to, float(kind == "E"), kind in "EH")]
    start = np.zeros(rows * columns)
    start[text.replace("\n", "").index("S")] = 1
    return SimpleNamespace(P=table, action_space=SimpleNamespace(n=4), initial_state_distrib=start)


@pytest.mark.parametrize("seed", range(3))
def test_a_frozen_lake_that_is_not_slippery_is_the_maze_of_its_map(seed: int) -> None:
    drawn = generate_random_map(8, seed=seed)
    maze = clew.from_gymnasium(gymnasium.make("FrozenLake-v1", desc=drawn, is_slippery=False))
    assert maze.name == "FrozenLake-v1"
    wanted = clew.Maze("\n".join(drawn))
    # A cell that holes cut off is never entered: in the table it is no different from a wall.
    assert maze.shortest == wanted.shortest
    differing = {(a, b) for a, b in zip(str(maze), str(wanted), strict=True) if a != b}
    assert differing <= {("#", "."), ("#", "H")}


def test_the_map_of_frozen_lake_is_read_whatever_its_rewards() -> None:
    env = gymnasium.make("FrozenLake-v1", is_slippery=False, reward_schedule=(5, -5, -1))
    assert str(clew.from_gymnasium(env)) == "S...\n.H.H\n...H\nH..E"


def test_the_cliff_is_a_row_of_traps() -> None:
    maze = clew.from_gymnasium(gymnasium.make("CliffWalking-v1"))
    assert str(maze) == "\n".join(["." * 12] * 3 + ["S" + "H" * 10 + "E"])
    assert maze.shortest == 13


@pytest.mark.parametrize("text", ["S.#E\n.##.\n....", "S.\n#.\nE.", "..H\nS#E\n..."])
def test_a_table_without_a_map_is_laid_on_the_grid_that_it_fits(text: str) -> None:
    assert str(clew.from_gymnasium(table_of(text))) == text


def test_a_maze_that_came_from_gymnasium_is_one_to_adapt_to() -> None:
    maze = clew.from_gymnasium(gymnasium.make("FrozenLake-v1", is_slippery=False))
    env = gymnasium.make("clew/Maze-v0", mazes=maze) if "clew/Maze-v0" in gymnasium.registry else None
    assert env is None or env.reset()[1]["shortest"] == maze.shortest == 6


def one_way() -> Any:
    env = table_of("S.\n.E")
    env.P[1][3] = [(1.0, 1, 0.0, False)]
    return env


def leap() -> Any:
    env = table_of("S..\n..E")
    env.P[1][2] = [(1.0, 3, 0.0, False)]
    return env


def two_starts() -> Any:
    env = table_of("S.\n.E")
    env.initial_state_distrib = np.full(4, 0.25)
    return env


def from_nowhere() -> Any:
    env = table_of("S.\n.E")
    env.reset, env.initial_state_distrib = lambda seed: ("here", {}), None
    return env


def of_reward(reward: object) -> Any:
    env = table_of("S.\n.E")
    env.P[1][2] = [(1.0, 3, reward, True)]
    return env


def without_end() -> Any:
    env = table_of("S.\n.E")
    for moves in env.P.values():
        for move, ((chance, to, reward, _),) in moves.items():
            moves[move] = [(chance, to, reward, False)]
    return env


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (from_nowhere(), "episodes begin in 'here', which is not the number of a state"),
        (of_reward(None), r"P\[1\]\[2\] is no list of \(chance, next state, reward, end\)"),
        (of_reward(float("nan")), "the reward of action 2 in state 1 is not a number"),
        (without_end(), "no move ends an episode, and a maze has an exit"),
        (gymnasium.make("FrozenLake-v1"), r"FrozenLake-v1 is no maze: action 0 in state 0 can end in 2 ways"),
        (gymnasium.make("CliffWalking-v1", is_slippery=True), r"can end in 2 ways, .*is_slippery=False"),
        (gymnasium.make("Taxi-v4"), r"its actions are Discrete\(6\), and a maze has 4 moves"),
        (gymnasium.make("CartPole-v1"), "it has no transition table P"),
        (one_way(), "4 states do not lie on a grid of any shape"),
        (leap(), "6 states do not lie on a grid of any shape"),
        (two_starts(), "episodes begin in 4 states"),
        (object(), "it has no transition table P"),
    ],
)
def test_what_is_no_maze_is_told_why_in_one_line(env: object, sentence: str) -> None:
    with pytest.raises(clew.ClewError, match=sentence) as refused:
        clew.from_gymnasium(env)
    assert "\n" not in str(refused.value)
