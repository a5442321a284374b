"""Rivals: what one is, and how those are made that are trained, and those that are programmed."""

# M mazes, E attempts at each maze, P parameters

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deploy.compare.played import SHOWN, Played
from deploy.compare.tabular import Progress
from deploy.process.settings import validated
from deploy.study.evaluate import adapting, portions
from deploy.study.exam import Exam
from deploy.study.explorer import Mind, World, attempts
from protocol.config import Config
from protocol.world.cells import Floats

Settings = dict[str, object]  # by name, such as "inner.rule"

OURS = "learned"  # the rival that is clew's own default
KINDS = ("learns to learn", "trained, no learning to learn", "ordinary RL", "no learning")


@dataclass(frozen=True)
class Task:
    """All that decides how a rival plays."""

    exam: Exam
    config: Config  # the config of the comparison
    seed: int
    most: int  # attempts at each maze, for rivals that learn for as long as it takes
    theta_P: Floats | None  # what was trained; None for a rival that trains nothing


Play = Callable[[Task, Progress], Played]


@dataclass(frozen=True)
class Rival:
    """One way of learning a maze, or of doing without."""

    name: str  # as --rivals takes it
    title: str  # in the table and the picture
    kind: str  # one of KINDS
    words: str  # what it does, for everybody
    source: str
    play: Play
    settings: Settings | None = None  # what its training changes in the config; None: nothing is trained
    updates: float = 1.0  # of its training, as a share of the config's; below 1 each takes long

    def training(self, config: Config) -> Config | None:
        """Returns the config of its training run; None for a rival that trains nothing."""
        if self.settings is None:
            return None
        return changed(config, {"run.updates": max(1, round(self.updates * config.run.updates)), **self.settings})


def changed(config: Config, settings: Settings) -> Config:
    """Returns a config with some settings changed; raises ClewError where they do not go together."""
    tree = config.model_dump()
    for name, value in settings.items():
        section, _, key = name.partition(".")
        tree[section][key] = value
    return validated(tree)


def trained(
    name: str,
    title: str,
    kind: str,
    words: str,
    source: str,
    settings: Settings,
    plays: Settings | None = None,
    each: int | None = None,
    updates: float = 1.0,
) -> Rival:
    """Makes a rival of a training run of clew with some settings changed, which then makes ten attempts at each maze.

    Args:
      plays: what changes, beside `settings`, once it is trained.
      each: attempts before each inner step when it plays; as in its training if None.
      updates: of its training, as a share of the config's.
    """

    def play(task: Task, progress: Progress) -> Played:
        assert task.theta_P is not None
        config = adapting(changed(task.config, {**settings, **(plays or {})}), SHOWN, each)
        shape = (SHOWN, len(task.exam.mazes))
        found_EM, steps_EM = np.zeros(shape, np.bool_), np.zeros(shape, np.int32)
        for portion in portions(task.exam, 1, config, task.seed):
            walks = portion.tried(task.theta_P, config).walks
            some = Played.of(walks, portion.mazes, portion.horizon_M)
            found_EM[:, portion.rows], steps_EM[:, portion.rows] = some.found_EM, some.steps_EM
        return Played(found_EM, steps_EM)

    return Rival(name, title, kind, words, source, play, settings, updates)


def untrained(
    name: str, title: str, words: str, source: str, mind: Callable[[World], Mind], compass: bool | None = None
) -> Rival:
    """Makes a rival of a mind that learns nothing; it has a compass as `compass` or, if None, the config says."""

    def play(task: Task, progress: Progress) -> Played:
        policy = task.config.policy
        senses = {"memory": "attempts", "dreams": False, "compass": policy.compass if compass is None else compass}
        mazes, horizon_M = task.exam.mazes, task.exam.horizon_M
        world = World(mazes, policy.model_copy(update=senses), rng_of(task, name))
        return Played.of(attempts(world, mind(world), horizon_M, SHOWN), mazes, horizon_M)

    return Rival(name, title, "no learning", words, source, play)


def rng_of(task: Task, name: str) -> np.random.Generator:
    """Makes the generator of one rival's moves."""
    return np.random.default_rng([task.seed, 7, *name.encode()])
