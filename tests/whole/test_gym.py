"""`clew/Maze-v0`: what Gymnasium asks of an environment, and step for step what clew's own robots do and sense."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import clew
from clew.gym import ID, MazeEnv, MazeVectorEnv
from protocol.learning.inner import initial_theta
from protocol.learning.play import replay
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight, open_moves
from tests import ROOT

TRAPPED = clew.Maze("S..\n.#H\n..E", name="trapped")


def made(**settings: Any) -> MazeEnv:
    env = gymnasium.make(ID, **settings).unwrapped
    assert isinstance(env, MazeEnv)
    return env


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"family": "braided", "side": 7, "attempts": 3},
        {"radius": 0, "compass": True, "attempts": 2, "family": "blocks", "side": 6},
        {"memory": "none", "radius": 2, "held_out": True},
        {"mazes": [TRAPPED, clew.Maze("S.E")]},
    ],
)
def test_gymnasium_finds_no_fault(settings: dict[str, Any]) -> None:
    check_env(made(**settings))


@pytest.mark.parametrize("policy", [{}, {"radius": 0}, {"compass": True}, {"memory": "none"}])
def test_an_episode_is_step_for_step_what_a_robot_of_clew_does_and_senses(policy: dict[str, Any]) -> None:
    config = clew.Config.model_validate({"policy": {**policy, "dreams": False}})
    run = clew.Run("new", 0, config, initial_theta(config))
    mazes = [*clew.sample("braided", 7, 2), *clew.sample("rooms", 9, traps=0.1), TRAPPED]
    for robot in run.adapt(mazes, attempts=4).robots:
        env = made(mazes=robot.maze, attempts=4, **policy)
        observation, info = env.reset()
        told: list[float] = [0] * 6
        for number, walk in enumerate(robot.walks):
            assert info["attempt"] == number
            last = len(walk.moves) - 1
            for step, move in enumerate(walk.moves.tolist()):
                assert observation.tolist() == [*walk.observation(step).features.tolist(), *told]
                assert info["cell"].tolist() == walk.cells[step].tolist()
                observation, reward, ended, late, info = env.step(move)
                told = [*(np.arange(4) == move), reward, step == last]
                assert reward == (walk.found and step == last)
                assert (ended or late) == (step == last and number == 3)
        assert info["cell"].tolist() == walk.cells[-1].tolist()


@pytest.mark.parametrize("radius", [0, 1])
def test_any_moves_lead_where_the_compiled_walk_leads(radius: int) -> None:
    env, rng = made(family="blocks", side=8, radius=radius), np.random.default_rng(0)
    for seed in range(3):
        observations, cells, moves = [env.reset(seed=seed)[0]], [env.cell], []
        over = False
        while not over:
            moves.append(int(rng.integers(4)))
            observation, _, ended, late, _ = env.step(np.int64(moves[-1]))
            observations, cells, over = [*observations, observation], [*cells, env.cell], ended or late
        grid = env.maze.grid
        met = Observations(Sight.of(grid, env.config.policy))
        horizon_M = np.array([3 * 8 * 8], np.int32)
        lengths, record = np.array([len(moves)], np.int32), np.array(moves, np.uint8)
        walk = replay(met, Known.nothing(grid.cells), horizon_M, lengths, record)
        assert [*walk.at_N.tolist(), *walk.end_W.tolist()] == cells
        assert np.array_equal(met.features()[walk.seen_N], observations[:-1])


def test_an_exit_pays_and_a_trap_and_the_horizon_do_not() -> None:
    env = made(mazes=TRAPPED, horizon_per_cell=1)
    for moves, reward, ended, late in (
        ([2, 2, 1, 1], 1, True, False),
        ([1, 1, 2], 0, True, False),
        ([0] * 9, 0, False, True),
        ([0] * 6 + [1, 1, 2], 0, True, False),  # into the trap with the last step that there is
    ):
        env.reset()
        told = [env.step(np.int64(move))[1:4] for move in moves]
        assert told == [(0, False, False)] * (len(moves) - 1) + [(reward, ended, late)]
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.int64(0))


def test_the_same_seed_gives_the_same_maze_and_the_next_reset_another() -> None:
    env = made(family="perfect", side=9)
    first = env.reset(seed=3)[0], str(env.maze)
    env.reset()
    assert str(env.maze) != first[1]
    again = made(family="perfect", side=9).reset(seed=3)[0]
    assert np.array_equal(first[0], again)


def test_the_mask_leaves_out_moves_into_walls_that_are_sensed() -> None:
    env = made(family="perfect")
    observation, info = env.reset(seed=0)
    open_A = open_moves(observation[None].astype(np.uint8), env.config.policy)[0]
    assert info["action_mask"].tolist() == open_A.astype(int).tolist()
    before = env.cell
    env.step(np.int64(np.flatnonzero(open_A)[0]))
    assert env.cell != before


def test_a_copy_goes_its_own_way() -> None:
    env = made(mazes=TRAPPED)
    env.reset()
    other = copy.deepcopy(env)
    assert env.step(np.int64(2))[4]["cell"].tolist() == [1, 0]
    assert other.step(np.int64(1))[4]["cell"].tolist() == [0, 1]


def test_it_can_be_looked_at_as_text_and_as_a_picture() -> None:
    env = made(mazes=TRAPPED, render_mode="ansi")
    env.reset()
    env.step(np.int64(2))
    assert env.render() == "S..\n@#H\n..E"
    env = made(mazes=TRAPPED, render_mode="rgb_array")
    env.reset()
    before = env.render()
    env.step(np.int64(2))
    assert (before.shape, before.dtype) == ((96, 96, 3), np.uint8)
    changed = (env.render() != before).any(axis=2)
    assert changed[:64, :32].any()
    assert not changed[:, 33:].any()
    assert not changed[64:].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings",
    [
        {"side": 5},
        {"family": "braided", "side": 7, "attempts": 3},
        {"family": ["blocks", "braided"], "side": [5, 7], "radius": 0, "compass": True, "attempts": 2, "traps": 0.1},
        {"side": 7, "memory": "none", "radius": 2, "held_out": True, "start": "random"},
        {"mazes": [TRAPPED, clew.Maze("S.E"), clew.Maze("S.#\n#.#\n#.E\n...\n...")], "attempts": 4},
    ],
)
def test_a_vector_does_step_for_step_what_its_environments_do_alone(settings: dict[str, Any]) -> None:
    settings |= {"horizon_per_cell": 1}
    alone = gymnasium.make_vec(ID, 4, vectorization_mode="sync", **settings)
    envs, rng, episodes = gymnasium.make_vec(ID, 4, **settings), np.random.default_rng(0), 0
    assert isinstance(envs, MazeVectorEnv)
    assert isinstance(alone, gymnasium.vector.SyncVectorEnv)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space", "metadata"):
        assert getattr(envs, name) == getattr(alone, name)
    for again in ({"seed": 3}, {"seed": [5, None] * 2}, {"options": {"reset_mask": np.arange(4) > 1}}, {}):
        assert_same(envs.reset(**copy.deepcopy(again)), alone.reset(**copy.deepcopy(again)))
        for _ in range(200):
            actions = rng.integers(4, size=4)
            told = envs.step(actions)
            assert_same(told, alone.step(actions))
            episodes += int((told[2] | told[3]).sum())
    assert envs.np_random_seed == alone.get_attr("np_random_seed")
    assert episodes > 10


def assert_same(some: Any, others: Any) -> None:
    """Arrays of the same type, shape and numbers, however deep in tuples and dictionaries."""
    if isinstance(some, dict):
        assert some.keys() == others.keys()
        some, others = tuple(some.values()), tuple(others[key] for key in some)
    if isinstance(some, tuple):
        for one, other in zip(some, others, strict=True):
            assert_same(one, other)
    else:
        assert (some.dtype, some.shape, some.tolist()) == (others.dtype, others.shape, others.tolist())


def test_a_vector_shows_what_each_of_its_environments_shows() -> None:
    for mode in ("ansi", "rgb_array"):
        alone = gymnasium.make_vec(ID, 3, vectorization_mode="sync", side=5, attempts=2, render_mode=mode)
        envs = gymnasium.make_vec(ID, 3, side=5, attempts=2, render_mode=mode)
        for both in (alone, envs):
            both.reset(seed=0)
            for move in [2, 1] * 50:
                both.step(np.full(3, move))
        shown, wanted = envs.render(), alone.render()
        assert shown is not None
        assert wanted is not None
        assert np.array_equal(np.stack(shown), np.stack(wanted))


def test_a_vector_refuses_what_is_not_meant_in_one_sentence() -> None:
    envs = gymnasium.make_vec(ID, 3, side=5)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        envs.step(np.zeros(3, np.int64))
    with pytest.raises(clew.ClewError, match="2 seeds for 3 environments; give one seed, or one for each"):
        envs.reset(seed=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(clew.ClewError, match="reset_mask must name one of 3 environments or more"):
        envs.reset(options={"reset_mask": np.zeros(3, np.bool_)})
    envs.reset(seed=0)
    for moves in ([0, 1], [0, 1, 4], [0, 1, -1], [0, 1, 1.5], ["0", "1", "2"]):
        with pytest.raises(clew.ClewError, match="3 moves, each from 0 to 3, are wanted"):
            envs.step(np.array(moves))
    with pytest.raises(clew.ClewError, match="num_envs must be a whole number from 1 on, got 0"):
        gymnasium.make_vec(ID, 0)
    with pytest.raises(gymnasium.error.Error, match="Seed must be a python integer"):
        envs.reset(seed=np.int64(3))  # type: ignore[arg-type]


def test_before_the_first_reset_there_is_nothing_to_see_or_to_do() -> None:
    env, envs = MazeEnv(side=5, render_mode="ansi"), MazeVectorEnv(2, side=5, render_mode="ansi")
    for act in (env.render, lambda: env.maze, lambda: env.step(np.int64(0)), envs.render):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            act()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"side": 8}, "maze side must be odd"),
        ({"attempts": 0}, "attempts must be a whole number from 1 on, got 0; change attempts"),
        ({"attempts": 2.5}, r"attempts must be a whole number from 1 on, got 2\.5"),
        ({"mazes": []}, r"mazes must be a clew\.Maze or several, got \[\]"),
        ({"mazes": "S.E"}, r"mazes must be a clew\.Maze or several, got 'S\.E'"),
        ({"exti": "corner"}, r"did you mean maze\.exit\?"),
        ({"render_mode": "human"}, "render_mode must be ansi, rgb_array or None"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(clew.ClewError, match=sentence):
        MazeEnv(**settings)


def test_the_example_of_the_readme_runs() -> None:
    (example,) = re.findall(r"```python\n(import gymnasium\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "S...\n.H.H\n...H\nH..E\n" in done.stdout


def test_clew_alone_does_not_import_gymnasium_and_says_how_to_install_it() -> None:
    program = (
        "import sys, clew; assert 'gymnasium' not in sys.modules; sys.modules['gymnasium'] = None\n"
        "try: import clew.gym\nexcept clew.ClewError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "gymnasium not found, which clew.gym needs; run pip install 'clew[gym]'\n", done.stderr


@pytest.mark.soak
def test_ppo_of_stable_baselines_learns_to_walk_mazes_in_a_minute() -> None:
    stable_baselines3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    end = time.monotonic() + 60
    envs = stable_baselines3.common.env_util.make_vec_env(ID, 16, env_kwargs={"family": "perfect", "side": 5}, seed=0)
    model = stable_baselines3.PPO("MlpPolicy", envs, n_steps=128, batch_size=256, learning_rate=1e-3, seed=0)
    model.learn(10**9, callback=lambda *_: time.monotonic() < end)
    print(f"PPO after {model.num_timesteps} steps: {(ratio := played(lambda seen, _: model.predict(seen)[0])):.3f}")
    assert ratio < 2 < 5 < played(lambda _, env: env.np_random.integers(4))


def played(choose: Callable[[Any, MazeEnv], Any]) -> float:
    """Steps ÷ shortest way of 100 attempts, each in a maze that training never sees."""
    env, steps, shortest = made(family="perfect", side=5, held_out=True), 0, 0
    for seed in range(100):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            observation, _, ended, late, _ = env.step(np.int64(choose(observation, env)))
            steps, over = steps + 1, ended or late
        shortest += info["shortest"]
    return steps / shortest
