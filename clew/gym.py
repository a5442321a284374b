"""Mazes as a Gymnasium environment: importing this module registers `clew/Maze-v0`. It needs the extra `clew[gym]`.

An episode is one attempt at a maze, or several, as in RL² (Duan et al., arXiv:1611.02779).
"""

# W walkers, each of which is an environment, F features of an observation, A moves

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clew.mazes import Maze, mazes_of, require_whole
from clew.robots import Bits, Robots, Wide
from deploy.process.settings import validated
from deploy.study import pixels
from protocol.config import ClewError, Config
from protocol.world import families
from protocol.world.cells import A, Bools, Indices
from protocol.world.maze import Mazes, NamedMaze, read_mazes

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.utils import seeding
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as missing:
    raise ClewError(f"{missing.name} not found, which clew.gym needs; run pip install 'clew[gym]'") from None

ID = "clew/Maze-v0"
PIXELS = 512  # the width of a picture, about
# Gymnasium 1.0 knows one mode, and has no name for it.
AUTORESET = {"autoreset_mode": mode.NEXT_STEP} if (mode := getattr(gymnasium.vector, "AutoresetMode", None)) else {}


class Setting:
    """The options of an environment: which mazes are drawn, and what a robot does and senses in them."""

    def __init__(
        self,
        family: str | Sequence[str] = "perfect",
        side: int | Sequence[int] = 9,
        *,
        mazes: Maze | Sequence[Maze] | None = None,
        attempts: int = 1,
        held_out: bool = False,
        radius: int = 1,
        memory: str = "attempts",
        compass: bool = False,
        horizon_per_cell: float = 3.0,
        render_mode: str | None = None,
        **settings: object,
    ) -> None:
        """Raises ClewError where settings are of no use.

        Args:
          family: one of clew's, or the "MODULE:FUNCTION" of your own; a list: each maze is of any of them.
          side: cells along one edge, walls included; a list: each maze has any of them.
          mazes: mazes of which a reset takes any, in place of a family's.
          attempts: how many attempts at one maze an episode has.
          held_out: draws from the one maze in ten that no training of clew ever sees, or from the other nine.
          radius: how far the robot senses walls; 0: it is blind.
          memory: attempts: the robot marks where it has been; none: it knows only its last move.
          compass: the robot knows in which direction the nearest exit lies.
          horizon_per_cell: the steps of an attempt, per cell of the maze, walls included.
          render_mode: ansi, rgb_array or None.
          settings: other settings of `maze` in the config, such as `exit="corner"` or `traps=0.1`.
        """
        require_whole("attempts", attempts)
        if render_mode not in (None, *MazeEnv.metadata["render_modes"]):
            raise ClewError(f"render_mode must be ansi, rgb_array or None, got {render_mode!r}")
        self.config: Config = validated(
            {
                "maze": {"family": family, "side": side, **settings},
                "policy": {"radius": radius, "memory": memory, "compass": compass, "dreams": False},
                "run": {"horizon_per_cell": horizon_per_cell},
            }
        )
        self.render_mode, self._attempts, self._held_out = render_mode, attempts, held_out
        given = [] if mazes is None else mazes_of(mazes)
        self._given = [NamedMaze(maze.name, maze.grid) for maze in given]

    def robots(self, count: int) -> Robots:
        """Makes robots, which are nowhere so far."""
        maze = self.config.maze
        known = self._given or (read_mazes(maze.path) if "file" in maze.families else [])
        cells = [named.maze.cells for named in known] + [side**2 for side in maze.sides] * (not self._given)
        return Robots(count, max(cells), self._attempts, self.config, keeps_ways=self.render_mode is not None)

    def drawn(self, rng: np.random.Generator) -> NamedMaze:
        """Draws a maze."""
        if self._given:
            return self._given[rng.integers(len(self._given))]
        return NamedMaze("maze", families.sample(self.config.maze, 1, rng, held_out=self._held_out))

    def rendered(self, maze: Mazes, way: list[int]) -> Any:
        """Returns a maze with a robot in it: as text, or as a picture with its way until now."""
        if self.render_mode == "ansi":
            rows = [list(row) for row in maze.to_text(0).split("\n")]
            row, column = divmod(way[-1], len(rows[0]))
            rows[row][column] = "@"
            return "\n".join("".join(row) for row in rows)
        if self.render_mode == "rgb_array":
            return pixels.painted(maze, np.array(way), pixels.tile_of(maze, PIXELS))
        gymnasium.logger.warn("render() was called, and the environment has no render_mode; make it with one")
        return None


class MazeEnv(gymnasium.Env[Bits, np.int64]):
    """A robot in a maze, a new maze at every reset. Moves are 0 up, 1 right, 2 down, 3 left; into a wall is nowhere.

    The observation is what clew's policy knows of a step: the features of `clew.Observation`. Where an episode has
    several attempts, the move before [A], its reward and whether it ended an attempt follow, all 0 at the beginning.
    An exit ends an attempt with reward 1, a trap without, and so does the horizon. The last attempt ends the episode,
    at the horizon as "truncated". `info` has what is not the robot's to know (cell, shortest), the number of the
    attempt from 0, and, as action_mask, the moves that lead into no wall that the robot senses or remembers.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, *args: Any, **options: Any) -> None:
        """Raises ClewError where the options, which are those of `Setting`, are of no use."""
        self._setting = Setting(*args, **options)
        self._robots = self._setting.robots(1)
        self._drawn: NamedMaze | None = None
        self.config, self.render_mode = self._setting.config, self._setting.render_mode
        self.observation_space = spaces.MultiBinary(self._robots.bits)
        self.action_space = spaces.Discrete(A)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Bits, dict[str, Any]]:
        """Draws a maze, puts a robot at its start that knows nothing of it, and returns observation [F] and info."""
        super().reset(seed=seed)
        self._drawn = self._setting.drawn(self.np_random)
        self._robots.begin(np.arange(1), self._maze.maze)
        return self._seen()

    def step(self, action: np.int64) -> tuple[Bits, float, bool, bool, dict[str, Any]]:
        """Makes a move.

        Returns the observation after it [F], its reward, whether an exit or a trap has ended the episode, whether the
        horizon has, and info.
        """
        if self._robots.over_W[0]:
            raise gymnasium.error.ResetNeeded("no episode is under way; call reset()")
        reward_W, ended_W, late_W = self._robots.go(np.array([action]))
        observation, info = self._seen()
        return observation, float(reward_W[0]), bool(ended_W[0]), bool(late_W[0]), info

    @property
    def maze(self) -> Maze:
        """Returns the maze of this episode."""
        return Maze(self._maze.maze.to_text(0), self._maze.name)

    @property
    def cell(self) -> int:
        """Returns where the robot is: row * columns + column."""
        return int(self._robots.cell_W[0])

    def render(self) -> Any:
        """Returns the maze with the robot in it: as text, or as a picture with the way of this attempt."""
        return self._setting.rendered(self._maze.maze, self._robots.way_W[0])

    @property
    def _maze(self) -> NamedMaze:
        """Returns the maze of this episode; raises ResetNeeded before the first."""
        if self._drawn is None:
            raise gymnasium.error.ResetNeeded("no maze has been drawn; call reset()")
        return self._drawn

    def _seen(self) -> tuple[Bits, dict[str, Any]]:
        """Returns the observation, and what else there is to know."""
        observation_WF, info = self._robots.seen()
        return observation_WF[0], {key: each[0] if each.ndim > 1 else int(each[0]) for key, each in info.items()}


class MazeVectorEnv(gymnasium.vector.VectorEnv[Bits, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Many environments as `MazeEnv`, whose robots move at once: what SyncVectorEnv makes of them, in less time.

    An environment whose episode has ended is reset by the next step, whatever its action (`AutoresetMode.NEXT_STEP`).
    """

    metadata: dict[str, Any] = MazeEnv.metadata | AUTORESET

    def __init__(self, num_envs: int = 1, *args: Any, **options: Any) -> None:
        """Raises ClewError where the options, which are those of `Setting`, are of no use."""
        require_whole("num_envs", num_envs)
        self._setting = Setting(*args, **options)
        self._robots = self._setting.robots(num_envs)
        self._random_W = [seeding.np_random() for _ in range(num_envs)]  # random numbers and their seed
        self._all_W = np.ones(num_envs, np.bool_)
        self._mazes: dict[int, Mazes] = {}  # by the number of the environment
        self.num_envs, self.config, self.render_mode = num_envs, self._setting.config, self._setting.render_mode
        self.single_observation_space = spaces.MultiBinary(self._robots.bits)
        self.single_action_space = spaces.Discrete(A)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Bits, dict[str, Any]]:
        """Draws mazes, puts robots at their starts that know nothing of them, and returns observations [W, F] and info.

        Args:
          seed: the seed of the first environment, that of the second being one more, and so on; or one for each. An
            environment without one goes on with the random numbers that it has.
          options: `reset_mask`, an array of booleans, names the environments to be reset; the others stay as they are.
        """
        if isinstance(seed, int | float | np.number):  # what is no seed is refused below, by Gymnasium
            seed = [seed + number for number in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else seed
        if len(seeds) != self.num_envs:
            raise ClewError(f"{len(seeds)} seeds for {self.num_envs} environments; give one seed, or one for each")
        reset_W = np.asarray((options or {}).get("reset_mask", self._all_W), np.bool_)
        if reset_W.shape != self._all_W.shape or not reset_W.any():
            raise ClewError(f"reset_mask must name one of {self.num_envs} environments or more, got {reset_W.tolist()}")
        numbers = np.flatnonzero(reset_W)
        for number in numbers.tolist():
            if seeds[number] is not None:
                self._random_W[number] = seeding.np_random(seeds[number])
        self._begin(numbers)
        return self._seen(reset_W)

    def step(self, actions: npt.NDArray[np.int64]) -> tuple[Bits, Wide, Bools, Bools, dict[str, Any]]:
        """Makes a move in each environment, or resets it: returns an array of each of what `MazeEnv.step` returns."""
        self._require_reset()
        begun = np.flatnonzero(self._robots.over_W)
        # All move, since a move of those that are about to begin does no harm.
        reward_W, ended_W, late_W = self._robots.go(np.asarray(actions))
        if len(begun):
            self._begin(begun)
            reward_W[begun], ended_W[begun], late_W[begun] = 0, False, False
        observation_WF, info = self._seen(self._all_W)
        return observation_WF, reward_W, ended_W, late_W, info

    def render(self) -> tuple[Any, ...]:
        """Returns what each environment would show."""
        self._require_reset()
        return tuple(self._setting.rendered(self._mazes[at], way) for at, way in enumerate(self._robots.way_W))

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Returns the random numbers of each environment."""
        return tuple(rng for rng, _ in self._random_W)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Returns the seed of the random numbers of each environment."""
        return tuple(seed for _, seed in self._random_W)

    def _require_reset(self) -> None:
        """Raises ResetNeeded where an environment has no maze so far."""
        if len(self._mazes) < self.num_envs:
            raise gymnasium.error.ResetNeeded("not every environment has been reset; call reset()")

    def _begin(self, numbers: Indices) -> None:
        """Draws a maze for each of some environments, and puts their robots at the starts."""
        drawn = {number: self._setting.drawn(self._random_W[number][0]).maze for number in numbers.tolist()}
        self._mazes |= drawn
        self._robots.begin(numbers, Mazes.concatenate(list(drawn.values())))

    def _seen(self, told_W: Bools) -> tuple[Bits, dict[str, Any]]:
        """Returns the observations, and what else there is to know of the environments that `told_W` names."""
        observation_WF, known = self._robots.seen()
        info: dict[str, npt.NDArray[Any]] = {}
        for key, each in known.items():
            each[~told_W] = 0
            info |= {key: each, f"_{key}": told_W.copy()}
        return observation_WF, info


gymnasium.register(ID, "clew.gym:MazeEnv", vector_entry_point="clew.gym:MazeVectorEnv")
