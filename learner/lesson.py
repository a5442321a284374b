"""A lesson is what the attempts of one lease teach whatever theta is: all that the meta-gradient needs, in numpy."""

# M mazes, E attempts at each, W = M*E attempts, N steps of all attempts, S situations (see inner.Made), U distinct
# observations, C cells of all mazes, F features of an observation, J facts that hindsight knows of a step

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learner.admission import Replay
from learner.baseline import Outcome
from protocol.config import Config
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import situations
from protocol.world.cells import Floats, Indices, Ints
from protocol.world.maze import shortest_M, to_exit
from protocol.world.senses import Bytes


@dataclass(frozen=True)
class Part:
    """The attempts of one stage. Mazes, cells, observations and situations are counted within the lease."""

    attempts: int  # E
    at_S: Indices  # [S] these five as in inner.Made
    seen_S: Indices  # [S]
    situation_N: Indices  # [N] which of the S
    attempt_N: Indices  # [N]
    time_N: Indices  # [N]
    known_JN: Floats | None  # [J, N] what hindsight knows; None where no inner step follows
    known_S: Indices  # [S] these three as in memory.Dream
    hope_S: Indices  # [S]
    gain_S: Indices  # [S]
    move_N: Indices  # [N]
    behaviour_N: Floats  # [N] the log-probability that each move was drawn with, as the actor says
    length_W: Indices  # [W] steps taken
    found_W: Floats  # [W] 1 where an exit was reached, else 0
    return_W: Floats  # [W] discounted return
    outcome: Outcome


@dataclass(frozen=True)
class Lesson:
    """The attempts of one lease."""

    mazes: int  # M
    cells: int  # C
    feature_UF: Bytes  # [U, F] the distinct observations
    maze_U: Indices | None  # [U] the maze of each, where each maze has a network of its own
    shortest_M: Ints  # [M] steps on the shortest path
    stages: tuple[Part, ...]  # K + 1: before each inner step, and after the last

    @staticmethod
    def of(replay: Replay, config: Config) -> Lesson:
        """Makes a lesson of the attempts as they were walked again."""
        mazes, last = replay.mazes, config.inner.steps
        horizon_M, distance_C = horizons(mazes, config), to_exit(mazes)
        parts = []
        for stage, (walk, known, behaviour_N) in enumerate(
            zip(replay.walks, replay.knowns, replay.behaviours, strict=True)
        ):
            steps = Steps.of(walk, mazes, horizon_M)
            situation_N, step_S = situations(walk, steps.attempts)
            known_JN = None
            if stage < last and config.policy.kind != "recurrent":
                known_JN = hindsight(steps, replay.knowns[stage + 1].way_C, last - stage - 1, config)
            part = Part(
                attempts=steps.attempts,
                at_S=walk.at_N[step_S],
                seen_S=walk.seen_N[step_S].astype(np.int64),
                situation_N=situation_N,
                attempt_N=steps.attempt_N,
                time_N=steps.time_N.astype(np.int64, copy=False),
                known_JN=known_JN,
                known_S=walk.known_N[step_S].astype(np.int64),
                hope_S=walk.hope_N[step_S].astype(np.int64),
                gain_S=walk.gain_N[step_S].astype(np.int64),
                move_N=walk.move_N.astype(np.int64),
                behaviour_N=behaviour_N,
                length_W=walk.length_W.astype(np.int64),
                found_W=steps.found_W.astype(np.float32),
                return_W=steps.returns(config.run.discount),
                outcome=Outcome.of(steps, distance_C, known.way_C, config),
            )
            parts.append(part)
        return Lesson(len(mazes), mazes.cells, replay.feature_UF, replay.maze_U, shortest_M(mazes), tuple(parts))
