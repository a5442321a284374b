"""Tries one maze, attempt after attempt, as `clew evaluate` does, and collects all that the page draws of it."""

# M mazes, C cells of all mazes (here of the one maze), W attempts, N steps of all attempts, T steps of an attempt,
# A moves, O places for observations, P parameters

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deploy.page.dreams import Line, changes, hopeful_lines, known_lines
from deploy.study import evaluate as study
from deploy.study import exam
from protocol.config import ClewError, Config
from protocol.learning.play import replay
from protocol.learning.policy import Phi
from protocol.learning.trial import Trial
from protocol.world.cells import EXIT, MazeError
from protocol.world.maze import Mazes
from protocol.world.senses import ALL_MARKS, FOUR_MARKS, Observations, Sight

MOST_SIDE = 63  # cells along one edge of a maze that the page takes
MOST_ATTEMPTS = 50
MOST_STEPS = 250_000  # of all attempts of one trial, if each of them failed
DIGITS = 4  # of fast weights, behind the point


@dataclass(frozen=True)
class Attempt:
    """One attempt, and what the robot knew and had learned. A cell is row * columns + column."""

    learned: int  # how many of the attempts before it the robot has adapted to
    found: bool  # it reached an exit
    cells: list[int]  # [T + 1] from the start to where it ended
    moves: list[int]  # [T] 0 up, 1 right, 2 down, 3 left
    marks: list[str]  # [T] the mark of each of the four directions, a digit each: see `protocol.world.senses`
    known: list[Line]  # the known way from where the robot is
    hopeful: list[Line]  # the hopeful way from where the robot is
    weights: list[list[float]]  # fast weights: a cell, and what adaptation has added to each of its four logits, nats


@dataclass(frozen=True)
class Explored:
    """An attempt of the explorer, the yardstick, at the same maze."""

    found: bool  # it reached an exit
    cells: list[int]  # [T + 1] from the start to where it ended


@dataclass(frozen=True)
class Shown:
    """A robot's trial in one maze."""

    run: str
    update: int  # updates that the run's theta has had
    seed: int
    maze: str  # as text
    shortest: int  # steps
    horizon: int  # steps after which an attempt has failed
    attempts: list[Attempt]
    explorer: list[Explored]  # its first attempt, and the one on the best way that it knows by then


def one_maze(text: str) -> Mazes:
    """Reads a maze from its text, in either of clew's two forms; raises ClewError where the page does not take it."""
    count = len(re.split(r"\n\s*\n", re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff").strip())))
    if count > 1:
        raise MazeError(f"the text holds {count} mazes, and the page takes one; leave the others out")
    mazes = Mazes.from_text(text)
    rows, columns = mazes.shape_M2[0].tolist()
    if max(rows, columns) > MOST_SIDE:
        raise MazeError(
            f"the maze has {rows} rows of {columns} cells, and the page takes {MOST_SIDE} by {MOST_SIDE} at most; "
            "try larger ones with clew evaluate --mazes FILE"
        )
    return mazes


def attempts_of(config: Config) -> int:
    """Counts the attempts at each maze."""
    return config.inner.steps * config.inner.attempts + config.outer.attempts


def tried(run: study.Run, text: str, attempts: int | None, seed: int) -> Shown:
    """Lets a robot try a maze: moves and steps are those of `clew evaluate --mazes FILE --robots 1` with this seed."""
    config = study.adapting(run.config, attempts, None)
    wanted = exam.of(("maze",), ("",), one_maze(text), config)
    horizon, count = int(wanted.horizon_M[0]), attempts_of(config)
    if horizon * count > MOST_STEPS:
        raise ClewError(
            f"{count} attempts of up to {horizon:,} steps are more than {MOST_STEPS:,}, the most that the page "
            f"computes; ask for {MOST_STEPS // horizon} attempts or fewer, or draw a smaller maze"
        )
    (portion,) = study.portions(wanted, 1, config, seed)
    return Shown(
        run=run.name,
        update=run.update,
        seed=seed,
        maze=portion.mazes.to_text(0),
        shortest=int(wanted.shortest_M[0]),
        horizon=horizon,
        attempts=list(_attempts(portion, portion.tried(run.theta_P, config), config)),
        explorer=list(_explored(portion)),
    )


def _attempts(portion: study.Portion, trial: Trial, config: Config) -> Iterator[Attempt]:
    """Yields the attempts of all stages, in the order in which they were made."""
    mazes = portion.mazes
    sight = Sight.of(mazes, config.policy)
    met = Observations(sight)
    for stage, (walk, known, phi) in enumerate(zip(trial.walks, trial.knowns, trial.phis, strict=True)):
        seen_N = replay(met, known, portion.horizon_M, walk.length_W, walk.move_N).seen_N
        marks_N4 = FOUR_MARKS[met.key_O[seen_N] & ALL_MARKS]
        weights = _weights(phi)
        ends_W = np.cumsum(walk.length_W).tolist()
        for begin, end, last in zip([0, *ends_W[:-1]], ends_W, walk.end_W.tolist(), strict=True):
            steps = slice(begin, end)
            cells, moves = [*walk.at_N[steps].tolist(), last], walk.move_N[steps].tolist()
            known_T, hope_T = walk.known_N[steps].tolist(), walk.hope_N[steps].tolist()
            yield Attempt(
                learned=stage * config.inner.attempts,
                found=bool(mazes.cell_C[last] == EXIT),
                cells=cells,
                moves=moves,
                marks=["".join(map(str, marks)) for marks in marks_N4[steps].tolist()],
                known=list(changes(known_lines(sight, known, cells, known_T))),
                hopeful=list(changes(hopeful_lines(sight, known, cells, moves, hope_T))),
                weights=weights,
            )


def _weights(phi: Phi) -> list[list[float]]:
    """Lists the cells that have fast weights other than 0, each with those of its four moves."""
    cells = np.flatnonzero(phi.delta_AC.any(axis=0))
    nats = phi.delta_AC[:, cells].T.astype(np.float64).round(DIGITS).tolist()
    return [[cell, *four] for cell, four in zip(cells.tolist(), nats, strict=True)]


def _explored(portion: study.Portion) -> Iterator[Explored]:
    """Yields the attempts of the explorer, which are those of `clew evaluate`."""
    for walk in portion.explored():
        end = int(walk.end_W[0])
        yield Explored(bool(portion.mazes.cell_C[end] == EXIT), [*walk.at_N.tolist(), end])
