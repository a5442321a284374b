"""The attempts of a meta-batch, stage after stage, on the learner's device."""

# M mazes, E attempts at each, W = M*E attempts, N steps of all attempts, S situations (see inner.Made), U distinct
# observations, C cells of all mazes, A moves, K inner steps, J facts that hindsight knows of a step, F features of an
# observation, D kinds of dream, G gains of a dream

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.admission import Replay
from learner.baseline import Outcome
from learner.lesson import Lesson, Part
from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.inner import Made
from protocol.learning.policy import Phi, Scene, log_prob


@dataclass(frozen=True)
class Stage:
    """The attempts of one stage, on the learner's device."""

    made: Made
    known_S: Tensor  # [S] these three as in memory.Dream
    hope_S: Tensor
    gain_S: Tensor
    behaviour_N: Tensor  # [N] log pi of the moves under the policy that made them: theta's of `lag` updates ago
    length_W: Tensor  # [W] steps taken
    found_W: Tensor  # [W] 1 where an exit was reached, else 0
    return_W: Tensor  # [W] discounted return
    outcomes: tuple[Outcome, ...]  # of each lease, for the baseline

    @staticmethod
    def of(parts: Sequence[Part], firsts: Sequence[tuple[int, ...]], real: Tensor) -> Stage:
        """Makes the batch of all leases. `firsts`: of each lease the first maze, cell and observation."""
        attempts = parts[0].attempts
        maze_first, cell_first, seen_first = zip(*firsts, strict=True)
        situations = [len(part.at_S) for part in parts]
        begins = accumulate(situations, initial=0)

        def whole(name: str, firsts: Iterable[int] = repeat(0)) -> Tensor:
            tensor = torch.from_numpy(joined([getattr(part, name) for part in parts], firsts))
            return tensor.to(real.device, real.dtype if tensor.is_floating_point() else None)

        made = Made(
            attempts=attempts,
            at_S=whole("at_S", cell_first),
            seen_S=whole("seen_S", seen_first),
            pair_N=whole("move_N") * sum(situations) + whole("situation_N", begins),
            attempt_N=whole("attempt_N", [first * attempts for first in maze_first]),
            time_N=whole("time_N"),
            known_JN=real if parts[0].known_JN is None else whole("known_JN"),
        )
        direct = ("known_S", "hope_S", "gain_S", "behaviour_N", "length_W", "found_W", "return_W")
        outcomes = tuple(part.outcome.in_double() if real.dtype == torch.float64 else part.outcome for part in parts)
        return Stage(made, **{name: whole(name) for name in direct}, outcomes=outcomes)

    def log_prob(self, score_AU: Tensor, phi: Phi) -> Tensor:
        """Returns [A, S]: log pi of every move in every situation under `phi`, whose network says `score_AU`."""
        score_AS, delta_AS = take(score_AU, self.made.seen_S), take(phi.delta_AC, self.made.at_S)
        result: Tensor = log_prob(score_AS, delta_AS, phi.dream_DG, self.known_S, self.hope_S, self.gain_S)
        return result


@dataclass(frozen=True)
class Batch:
    """A meta-batch on the learner's device."""

    scene: Scene
    mazes: int  # M
    cells: int  # C
    shortest_M: Tensor  # [M] steps on the shortest path
    stages: tuple[Stage, ...]  # K + 1: before each inner step, and after the last

    @staticmethod
    def of(
        replays: Sequence[Replay], config: Config, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Makes the batch of some leases' attempts, in their order."""
        lessons = [Lesson.of(replay, config) for replay in replays]
        real = torch.zeros((), device=device, dtype=dtype)
        sizes = [(one.mazes, one.cells, len(one.feature_UF)) for one in lessons]
        firsts = list(zip(*([0, *accumulate(column)] for column in zip(*sizes, strict=True)), strict=True))
        mazes, cells, _ = firsts[-1]
        maze_U = None
        if lessons[0].maze_U is not None:
            maze_U = joined([one.maze_U for one in lessons], [maze for maze, *_ in firsts])
        feature_UF = np.concatenate([one.feature_UF for one in lessons])
        shortest = np.concatenate([one.shortest_M for one in lessons])
        stages = zip(*(one.stages for one in lessons), strict=True)
        return Batch(
            scene=Scene.of(feature_UF, config, real, maze_U, mazes),
            mazes=mazes,
            cells=cells,
            shortest_M=torch.from_numpy(shortest).to(device),
            stages=tuple(Stage.of(parts, firsts, real) for parts in stages),
        )


def joined(parts: Iterable[Any], firsts: Iterable[int]) -> npt.NDArray[Any]:
    """Joins the numbers of several leases, each counted on from its first."""
    moved = [part + first if first else part for part, first in zip(parts, firsts, strict=False)]
    return np.concatenate(moved, axis=-1) if len(moved) > 1 else moved[0]
