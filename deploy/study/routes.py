"""Chooses which attempts to draw: in a few mazes of every kind, with a failure among them where there is one."""

# M mazes, Z robots in each, Q = M*Z robots in all, W attempts of a portion's robots, N steps of all attempts,
# T steps of an attempt, C cells of all mazes, A moves, P parameters

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.study.evaluate import Evaluation, portions
from protocol.config import Config
from protocol.world.cells import EXIT, Floats, Indices
from protocol.world.maze import Mazes, to_exit
from protocol.world.walk import Walk

SHOWN = 4  # mazes
STAGES = (0, 1, 2, -1)  # whose attempts are shown
TYPICAL = (0.6, 0.8, 0.9, 0.4)  # how long a first attempt is shown: its place among all of its kind, one after another


@dataclass(frozen=True)
class Route:
    """The way that an attempt took."""

    cells: Indices  # [T + 1] among the cells of its own maze, from the start on
    found: bool  # whether it reached an exit


@dataclass(frozen=True)
class Shown:
    """The attempts of a robot in a maze that is drawn."""

    name: str
    maze: Mazes  # M = 1
    routes: tuple[Route, ...]  # of each stage that is shown
    success: tuple[float, ...]  # of all robots in this maze, at each of these
    shortest: Route


def stages_shown(result: Evaluation) -> list[int]:
    """Returns the first three stages and the last; and, where none of these has a failure, one that has."""
    every = range(len(result.stages))
    shown = sorted({every[stage] for stage in STAGES if -len(every) <= stage < len(every)})
    failures = [stage for stage in every if (result.stages[stage].success_MZ < 1).any()]
    return shown if not failures or set(failures) & set(shown) else sorted([*shown, failures[-1]])


def shown(result: Evaluation, theta_P: Floats, config: Config, seed: int) -> list[Shown]:
    """Returns a few mazes, the worst last, and what a robot did in each: the attempts that were scored."""
    stages = stages_shown(result)
    robot_Q = _worth_a_look(result, stages)
    routes: dict[int, list[Route]] = {}
    for portion in portions(result.exam, result.robots, config, seed):
        here = [robot for robot in robot_Q if robot in portion.rows]
        if here:  # they walk once more, just as they did
            walks = portion.tried(theta_P, config).walks
            for robot in here:
                at = int(np.flatnonzero(portion.rows == robot)[0])
                routes[robot] = [_route(walks[stage], portion.mazes, at) for stage in stages]
    return [_shown(result, stages, robot, routes[robot]) for robot in robot_Q]


def _worth_a_look(result: Evaluation, stages: list[int]) -> list[int]:
    """Chooses robots in different mazes: some with usual first attempts, kind by kind, and the one that failed most."""
    exam, robots = result.exam, result.robots
    first_M = result.stages[0].steps_MZ[:, 0] / exam.shortest_M
    found_Q = np.sum([result.stages[stage].success_MZ for stage in stages], axis=0).reshape(-1)
    steps_Q = np.sum([result.stages[stage].steps_MZ / exam.shortest_M[:, None] for stage in stages], axis=0).reshape(-1)
    worst = int(np.lexsort((-steps_Q, found_Q))[0])
    left = [maze for maze in np.argsort(first_M, kind="stable").tolist() if maze != worst // robots]
    kinds = list(dict.fromkeys(exam.kinds))
    chosen: list[int] = []
    while left and len(chosen) < SHOWN - 1:
        kind = kinds[len(chosen) % len(kinds)]
        alike = [maze for maze in left if exam.kinds[maze] == kind] or left
        chosen.append(alike[int(TYPICAL[len(chosen)] * (len(alike) - 1))])
        left.remove(chosen[-1])
    return [*(maze * robots for maze in chosen), worst]


def _shown(result: Evaluation, stages: list[int], robot: int, routes: list[Route]) -> Shown:
    maze = robot // result.robots
    return Shown(
        name=result.exam.names[maze],
        maze=result.exam.mazes[maze : maze + 1],
        routes=tuple(routes),
        success=tuple(float(result.stages[stage].success_MZ[maze].mean()) for stage in stages),
        shortest=shortest_route(result.exam.mazes[maze : maze + 1]),
    )


def _route(walk: Walk, mazes: Mazes, robot: int) -> Route:
    """Returns the first attempt that a robot made in one stage; or, if some failed, the first of these."""
    each = len(walk.length_W) // len(mazes)
    found_W = mazes.cell_C[walk.end_W[robot * each : (robot + 1) * each]] == EXIT
    attempt = robot * each + int(found_W.argmin())
    begin = int(walk.length_W[:attempt].sum(dtype=np.int64))
    at_T = walk.at_N[begin : begin + int(walk.length_W[attempt])]
    cells = np.append(at_T, walk.end_W[attempt]) - mazes.offset_M[robot]
    return Route(cells, bool(found_W.all()))


def shortest_route(maze: Mazes) -> Route:
    """Finds a shortest way through one maze: it always goes on to a cell that is nearer to an exit."""
    steps_C: npt.NDArray[np.int32] = to_exit(maze)
    cells = [int(maze.start_M[0])]
    while steps_C[cells[-1]]:
        ahead_A = maze.ahead_CA[cells[-1]]
        cells.append(int(ahead_A[steps_C[ahead_A].argmin()]))
    return Route(np.array(cells), True)
