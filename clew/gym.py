"""Mazes as a Gymnasium environment: importing this module registers `clew/Maze-v0`. It needs the extra `clew[gym]`.

An episode is one attempt at a maze, or several, as in RL² (Duan et al., arXiv:1611.02779). What a move does, and what
the robot senses and remembers, is decided by the walk that actors and learner use.
"""

# M mazes, C cells of all mazes, F features of an observation, U distinct observations, W walkers, A moves

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clew.mazes import Maze
from deploy.process.settings import validated
from deploy.study import pixels
from protocol.config import ClewError, Config
from protocol.learning.credit import horizons
from protocol.world import families
from protocol.world.cells import EXIT, FREE, NO_MOVE, A, Indices, Ints
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight, features, open_moves
from protocol.world.walk import Walkers, learned

try:
    import gymnasium
    from gymnasium import spaces
except ModuleNotFoundError as missing:
    raise ClewError(f"{missing.name} not found, which clew.gym needs; run pip install 'clew[gym]'") from None

ID = "clew/Maze-v0"
PIXELS = 512  # the width of a picture, about
Bits = npt.NDArray[np.int8]  # 0 or 1


class MazeEnv(gymnasium.Env[Bits, np.int64]):
    """A robot in a maze, a new maze at every reset. Moves are 0 up, 1 right, 2 down, 3 left; into a wall is nowhere.

    The observation is what clew's policy knows of a step: the features of `clew.Observation`. Where an episode has
    several attempts, the move before [A], its reward and whether it ended an attempt follow, all 0 at the beginning.
    An exit ends an attempt with reward 1, a trap without, and so does the horizon. The last attempt ends the episode,
    at the horizon as "truncated". `info` has what is not the robot's to know (cell, shortest), the number of the
    attempt from 0, and, as action_mask, the moves that lead into no wall that the robot senses or remembers.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 10}  # noqa: RUF012
    maze: Maze  # of this episode
    _at_W: Indices  # the cell where the robot is
    _seen_W: Ints  # the number of what it observes there

    def __init__(
        self,
        family: str = "perfect",
        side: int = 9,
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
          family: one of clew's, or the "MODULE:FUNCTION" of your own.
          side: cells along one edge, walls included.
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
        if attempts < 1:
            raise ClewError(f"an episode of {attempts} attempts is none; give attempts=1 or more")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ClewError(f"render_mode must be ansi, rgb_array or None, got {render_mode!r}")
        self.config: Config = validated(
            {
                "maze": {"family": family, "side": side, **settings},
                "policy": {"radius": radius, "memory": memory, "compass": compass, "dreams": False},
                "run": {"horizon_per_cell": horizon_per_cell},
            }
        )
        self.render_mode, self._attempts, self._held_out = render_mode, attempts, held_out
        self._mazes = [mazes] if isinstance(mazes, Maze) else list(mazes or ())
        told = features(self.config.policy) + (A + 2) * (attempts > 1)
        self.observation_space = spaces.MultiBinary(told)
        self.action_space = spaces.Discrete(A)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Bits, dict[str, Any]]:
        """Draws a maze, and puts a robot at its start that knows nothing of it."""
        super().reset(seed=seed)
        self.maze = self._drawn()
        self._sight = Sight.of(self.maze.grid, self.config.policy)
        self._met = Observations(self._sight)
        self._shortest, self._horizon_M = self.maze.shortest, horizons(self.maze.grid, self.config)
        self._known, self._attempt = Known.nothing(self.maze.grid.cells), 0
        self._told = np.zeros(A + 2, np.int8)  # the move before, its reward, and whether it ended an attempt
        self._begin()
        return self._seen()

    def step(self, action: np.int64) -> tuple[Bits, float, bool, bool, dict[str, Any]]:
        """Makes a move: returns the observation after it, its reward, whether the episode has ended, and why."""
        if self._walkers.are_done:
            raise gymnasium.error.ResetNeeded("the episode has ended; call reset()")
        before = self.cell
        self._walkers.go(self._here, np.array([action], np.uint8))
        over = self._walkers.are_done
        if over:
            walk = self._walkers.walk()
            self._at_W = walk.end_W
        else:
            self._look()
        if self.cell != before:
            self._last = int(action)
        self._way.append(self.cell)
        kind = self._sight.mazes.cell_C[self.cell]
        self._told[:] = *(np.arange(A) == action), kind == EXIT, over
        again = over and self._attempt + 1 < self._attempts
        if again:
            self._known = learned(self._sight, self._known, walk)
            self._attempt += 1
            self._begin()
        elif over:
            # It sees what a robot would see that goes on from there.
            marks_W = self._walkers.memory.marks(self._at_W)
            self._seen_W = self._met.numbers(self._at_W, np.array([self._last]), marks_W)
        observation, info = self._seen()
        ended, late = over and not again, bool(kind == FREE)
        return observation, float(kind == EXIT), ended and not late, ended and late, info

    @property
    def cell(self) -> int:
        """Returns where the robot is: row * columns + column."""
        return int(self._at_W[0])

    def render(self) -> Any:
        """Returns the maze with the robot in it: as text, or as a picture with the way of this attempt."""
        if self.render_mode == "ansi":
            rows = [list(row) for row in str(self.maze).split("\n")]
            row, column = divmod(self.cell, self.maze.shape[1])
            rows[row][column] = "@"
            return "\n".join("".join(row) for row in rows)
        if self.render_mode == "rgb_array":
            grid = self.maze.grid
            return pixels.painted(grid, np.array(self._way), pixels.tile_of(grid, PIXELS))
        gymnasium.logger.warn("render() was called, and the environment has no render_mode; make it with one")
        return None

    def _drawn(self) -> Maze:
        """Draws a maze, with the environment's own random numbers."""
        if self._mazes:
            return self._mazes[self.np_random.integers(len(self._mazes))]
        grid = families.sample(self.config.maze, 1, self.np_random, held_out=self._held_out)
        return Maze(grid.to_text(0))

    def _begin(self) -> None:
        """Begins an attempt."""
        self._walkers = Walkers(self._sight, self._met, self._known, 1, self._horizon_M)
        self._look()
        self._last, self._way = NO_MOVE, [self.cell]

    def _look(self) -> None:
        """Looks around from where the robot is now."""
        self._here = self._walkers.look()
        self._at_W, self._seen_W = self._here.at_W, self._here.seen_W

    def _seen(self) -> tuple[Bits, dict[str, Any]]:
        """Returns the observation, and what else there is to know."""
        feature_UF = self._met.features(self._seen_W.astype(np.intp))
        observation = feature_UF[0].astype(np.int8)
        info = {
            "action_mask": open_moves(feature_UF, self.config.policy)[0].astype(np.int8),
            "attempt": self._attempt,
            "cell": np.array(divmod(self.cell, self.maze.shape[1])),
            "shortest": self._shortest,
        }
        return (np.append(observation, self._told) if self._attempts > 1 else observation), info


gymnasium.register(ID, "clew.gym:MazeEnv")
