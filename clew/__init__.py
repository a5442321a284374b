"""Clew from Python: `clew.load(run).adapt(mazes)` tries a run in mazes, `clew.train(config, run_dir)` makes one.

The names in `__all__` and what stands beside them without an underscore are stable: they change with a note in
CHANGELOG.md, and not before. Everything is what `clew evaluate` and `clew train` do, with the same numbers; torch is
imported by the processes that `train` starts, and never here.
"""

# M mazes, C cells of all mazes, E attempts at each maze, W = M*E attempts, T steps of an attempt,
# N steps of all attempts, A moves (up, right, down, left), F features of an observation, U distinct observations,
# D kinds of dream, G gains of a dream, H hidden units, P parameters

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clew.mazes import Maze, from_gymnasium, mazes_of, read_mazes, require_whole, sample
from deploy.process.settings import load as load_config
from deploy.process.settings import validated
from deploy.study import evaluate as study
from deploy.study import exam
from deploy.study.curves import Reals
from learner import checkpoint
from learner.record import Record
from protocol.config import ClewError, Config
from protocol.learning.play import replay
from protocol.learning.policy import Phi, Scene, log_prob, scores
from protocol.learning.trial import Trial as Tried
from protocol.world import families
from protocol.world import maze as grids
from protocol.world.cells import EXIT, Floats, Ints
from protocol.world.senses import Bytes, Observations, Sight

__all__ = [
    "ClewError",
    "Config",
    "Maze",
    "Observation",
    "Record",
    "Robot",
    "Run",
    "Trial",
    "Walk",
    "from_gymnasium",
    "load",
    "read_mazes",
    "sample",
    "train",
]


@dataclass(frozen=True, eq=False)
class Observation:
    """The senses and the memory of a robot at a step, and the ways that it dreams of there."""

    features: Bytes  # [F] of 0 and 1: walls around, the last move, marks of memory; see `protocol.world.senses`
    known: int  # the moves that follow the known way, 1 up + 2 right + 4 down + 8 left; 0: the robot knows none
    hope: int  # the moves that follow the hopeful way, counted in the same way; 0: it is no shorter
    gain: int  # steps by which the hopeful way is shorter; see `protocol.world.memory.Dream`


@dataclass(frozen=True, eq=False)
class Walk:
    """One attempt at a maze."""

    found: bool  # True where the attempt reached an exit
    cells: Ints  # [T + 1, 2] row and column, from the start to where it ended
    moves: Bytes  # [T] 0 up, 1 right, 2 down, 3 left; a move into a wall leads nowhere
    log_probs: Floats  # [T] log-probabilities of the moves, under the policy that drew them
    _features: Bytes = field(repr=False)  # [U, F] features of all observations of the trial
    _seen: Ints = field(repr=False)  # [T] the number of each step's observation
    _dreams: Bytes = field(repr=False)  # [3, T] known, hope and gain

    def observation(self, step: int) -> Observation:
        """Returns what the robot sensed and remembered when it made a move; the first is step 0."""
        return Observation(self._features[self._seen[step]], *self._dreams[:, step].tolist())


@dataclass(frozen=True, eq=False)
class Robot:
    """The attempts of a robot in one maze, and what it had learned before each of them."""

    maze: Maze
    walks: tuple[Walk, ...]  # [E]
    curve: Reals  # [E] steps ÷ shortest way; a failure counts as the horizon
    _phis: tuple[Phi, ...] = field(repr=False)  # [E] the policies of this maze alone
    _config: Config = field(repr=False)

    @property
    def fast_weights(self) -> tuple[Floats, ...]:
        """Returns [E] arrays [rows, columns, A]: what adaptation had added to each move's logit, in nats."""
        return tuple(phi.delta_AC.T.reshape(*self.maze.shape, -1) for phi in self._phis)

    def policy(self, cell: Sequence[int] | Ints, observation: Observation, attempt: int = -1) -> Floats:
        """Computes the probability of each move [A] in a cell (row, column), in an attempt; the first is attempt 0.

        Raises ClewError for a cell outside of the maze, and for a recurrent policy, which depends on all that happened
        before, not on a cell alone.
        """
        if self._config.policy.kind == "recurrent":
            raise ClewError(
                "a recurrent policy depends on all that was before, not on a cell alone; use the log_probs of a walk"
            )
        phi, (row, column), (rows, columns) = self._phis[attempt], map(int, cell), self.maze.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise ClewError(f"cell ({row}, {column}) is not in the maze, which has {rows} rows of {columns} cells")
        at, nothing = [row * columns + column], np.zeros(0, np.float32)
        score_A1 = scores(phi.net, Scene.of(observation.features[None], self._config, nothing))
        dream = (np.array([part], np.uint8) for part in (observation.known, observation.hope, observation.gain))
        move_A: Floats = np.exp(log_prob(score_A1, phi.delta_AC[:, at], phi.dream_DG, *dream)[:, 0])
        return move_A


@dataclass(frozen=True, eq=False)
class Trial:
    """Robots that adapted, one to each maze."""

    robots: tuple[Robot, ...]  # in the order of the mazes
    curve: Reals  # [E] the steps of all ÷ all shortest ways, attempt by attempt


@dataclass(frozen=True, eq=False)
class Run:
    """A run as it stood when it was loaded."""

    name: str
    update: int  # updates done
    config: Config
    theta: Floats = field(repr=False)  # [P] the newest parameters

    def adapt(self, mazes: Maze | Sequence[Maze], attempts: int = 10, seed: int = 0) -> Trial:
        """Tries each maze, adapting between attempts, as `clew evaluate --attempts … --seed … --robots 1` does.

        A maze that is given several times gets as many robots. The config's own number of inner steps plays no part.
        Raises ClewError where there is no maze or no attempt, or more of them than the memory holds.
        """
        mazes = mazes_of(mazes)
        require_whole("attempts", attempts)
        require_whole("seed", seed, least=0)
        if len(mazes) * attempts > study.OUTCOMES:
            raise ClewError(
                f"{len(mazes)} mazes times {attempts} attempts are more than {study.OUTCOMES:,}; give fewer of either"
            )
        config = study.adapting(self.config, attempts, None)
        names, grid = [maze.name for maze in mazes], grids.Mazes.concatenate([maze.grid for maze in mazes])
        wanted = exam.of(names, [""] * len(mazes), grid, config)
        robots: dict[int, Robot] = {}
        for portion in study.portions(wanted, 1, config, seed):
            some = _robots([mazes[row] for row in portion.rows], portion, portion.tried(self.theta, config), config)
            robots |= zip(portion.rows.tolist(), some, strict=True)
        ordered = tuple(robots[row] for row in range(len(mazes)))
        return Trial(ordered, np.average([robot.curve for robot in ordered], axis=0, weights=wanted.shortest_M))


def load(run_dir: str | Path) -> Run:
    """Opens a run that `clew train` or `train` has made, with its newest theta; raises ClewError if it is of no use."""
    found = study.opened(Path(run_dir))
    return Run(found.name, found.update, found.config, found.theta_P)


def train(
    config: Config | Mapping[str, Any] | str | Path,
    run_dir: str | Path,
    *,
    actors: int = 2,
    device: str = "auto",
    resume: bool = False,
    on_update: Callable[[Record], None] = lambda record: None,
) -> Run:
    """Trains until the config's updates are done, with a learner and actors as processes of this machine.

    Where it is interrupted, it saves a checkpoint, and `resume=True` goes on from there. Raises ClewError where the
    config, the directory or a process is at fault.

    Args:
      config: a `Config`, a tree of settings such as `{"maze": {"side": 9}}`, or the path of a TOML file, over which
        CLEW_… variables of the environment count as they do for the command.
      run_dir: where the run is kept.
      actors: how many actors to start.
      device: the learner's device: auto, cpu or cuda.
      resume: goes on with the run that is there.
      on_update: is called with the record of each update, as updates.jsonl holds it.
    """
    from deploy.process.fleet import Fleet
    from deploy.process.versions import require

    require("torch", "safetensors")
    require_whole("actors", actors)
    if isinstance(config, str | Path):
        config = load_config(Path(config))
    settings, folder = config if isinstance(config, Config) else validated(config), Path(run_dir)
    families.try_out(settings.maze)
    former = checkpoint.read(folder) if resume else None
    checkpoint.require_beginning(folder, settings, resume, former)  # a refusal comes before anything is started
    with Fleet(settings, folder, actors, device, resume) as fleet:
        for record in fleet.updates():
            if record:
                on_update(record)
        fleet.raise_for_failure()
    return load(folder)


def _robots(mazes: Sequence[Maze], portion: study.Portion, tried: Tried, config: Config) -> list[Robot]:
    """Collects what each robot of a portion did. `mazes`: the maze of each robot."""
    grid, met = portion.mazes, Observations(Sight.of(portion.mazes, config.policy))
    seen = [
        replay(met, known, portion.horizon_M, done.length_W, done.move_N).seen_N
        for known, done in zip(tried.knowns, tried.walks, strict=True)
    ]
    features_UF = met.features()
    walks: list[list[Walk]] = [[] for _ in mazes]
    phis: list[list[Phi]] = [[] for _ in mazes]
    for done, phi, seen_N, log_prob_N in zip(tried.walks, tried.phis, seen, tried.log_probs, strict=True):
        each, ends_W = len(done.length_W) // len(mazes), np.cumsum(done.length_W)
        for attempt, (length, end) in enumerate(zip(done.length_W.tolist(), ends_W.tolist(), strict=True)):
            steps, robot = slice(end - length, end), attempt // each
            at = np.append(done.at_N[steps], done.end_W[attempt])
            walks[robot].append(
                Walk(
                    found=bool(grid.cell_C[at[-1]] == EXIT),
                    cells=grid.place_C2[at],
                    moves=done.move_N[steps],
                    log_probs=log_prob_N[steps],
                    _features=features_UF,
                    _seen=seen_N[steps],
                    _dreams=np.stack([part_N[steps] for part_N in (done.known_N, done.hope_N, done.gain_N)]),
                )
            )
            phis[robot].append(_phi_of(phi, robot, grid, config))
    return [
        Robot(maze, tuple(walks[at]), _curve(maze, walks[at], int(portion.horizon_M[at])), tuple(phis[at]), config)
        for at, maze in enumerate(mazes)
    ]


def _phi_of(phi: Phi, robot: int, grid: grids.Mazes, config: Config) -> Phi:
    """Returns the part of the policies of all mazes that belongs to one robot."""
    cells = slice(int(grid.offset_M[robot]), int(grid.offset_M[robot] + grid.count_M[robot]))
    alone = config.inner.adapts == "all"
    net = {name: value[robot] if alone else value for name, value in phi.net.items()}
    state_MH = None if phi.state_MH is None else phi.state_MH[robot : robot + 1]
    return Phi(net, phi.delta_AC[:, cells], phi.dream_DG, state_MH)


def _curve(maze: Maze, walks: Sequence[Walk], horizon: int) -> Reals:
    """Computes steps ÷ shortest way for each attempt [E]."""
    return np.array([len(walk.moves) if walk.found else horizon for walk in walks]) / maze.shortest
