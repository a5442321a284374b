"""The audit: whether an answer is what its lease asks for, computed once more beside everything else.

A key says who may work, not that the work is right. All that an actor does for a lease is a pure function of theta,
seed and config, with the same bits on every processor. So a secret share of the answers is computed again, and every
answer that contradicts another or that no honest actor can send: who sent anything else than the function's result has
lied, or is broken.
"""

# M mazes, C cells of all mazes, N steps of all attempts, W attempts, P parameters

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np

from learner.crew import Actor
from learner.schedule import seed_of
from protocol.config import ClewError, Config
from protocol.learning.trial import Trial, lease_trial
from protocol.wire.frames import encode
from protocol.wire.messages import Bye, Rollouts
from protocol.world.cells import Floats
from protocol.world.maze import Mazes

BACKLOG = 100  # answers that wait to be computed again; what is chosen beyond that counts unseen
NEAR = 1e-4  # of a log-probability: what differs by less changes no update that anybody could see


SHUT_OUT = encode(
    Bye(
        "refused",
        "an answer of this actor, or of another with its key, was not what its lease asks for; "
        "see the learner's log, and make a new key for it once it is mended",
    )
)

log = logging.getLogger("clew")


@dataclass(frozen=True)
class Sender:
    """The sender of an answer."""

    actor: Actor  # its connection
    name: str  # as its Hello said
    key: str  # "" without keys
    host: str

    @property
    def about(self) -> tuple[str, str, str]:
        """Returns name, key and host, for people."""
        return self.name, self.key, self.host


@dataclass(frozen=True)
class Case:
    """An answer, and what it was to be computed from."""

    sender: Sender
    rollouts: Rollouts
    theta_P: Floats


@dataclass(frozen=True)
class Verdict:
    """The result of computing an answer again."""

    case: Case
    fault: str  # what of the answer differs, in a word; "" where nothing does
    is_finite: bool  # whether what the lease asks for is


class Auditor:
    """Computes answers again, in a thread of its own. Its methods are for the clerk's thread."""

    def __init__(self, config: Config, wake: Callable[[], None]) -> None:
        """Starts the thread; `wake` is called when there is a verdict."""
        self._config, self._wake = config, wake
        self._awaited: dict[int, int] = {}  # the batch of each answer, by issue, that no update may take unseen
        self._cases: SimpleQueue[Case] = SimpleQueue()
        self._verdicts: SimpleQueue[Verdict | BaseException] = SimpleQueue()
        Thread(target=self._judge_all, name="audit", daemon=True).start()

    def consider(self, case: Case) -> None:
        """Computes an answer that counts again, if chance wants it: nobody can know beforehand."""
        if self._config.run.audit == 1.0:
            self._awaited[case.rollouts.issue] = case.rollouts.batch
            self._cases.put(case)
        elif secrets.randbelow(1 << 32) < self._config.run.audit * (1 << 32):
            self.examine(case)

    def examine(self, case: Case) -> None:
        """Computes an answer again, where there is room for it."""
        if self._cases.qsize() < BACKLOG:
            self._cases.put(case)

    def is_done_with(self, batch: int) -> bool:
        """Says whether the batch's update may go on; it waits where all answers are computed again."""
        return batch not in self._awaited.values()

    def verdicts(self) -> Iterator[Verdict]:
        """Yields the wrong answers found since the last call; raises ClewError if no answer can be finite any more."""
        with suppress(Empty):
            while True:
                verdict = self._verdicts.get_nowait()
                if isinstance(verdict, BaseException):
                    raise verdict
                self._awaited.pop(verdict.case.rollouts.issue, None)
                if not verdict.is_finite:
                    raise ClewError(
                        f"training has diverged: policies are not finite at update {verdict.case.rollouts.version}; "
                        "lower outer.learning_rate or inner.cell_step_size and start anew"
                    )
                if verdict.fault:
                    yield verdict

    def _judge_all(self) -> None:
        while True:
            case = self._cases.get()
            try:
                self._verdicts.put(judge(case, self._config))
            except BaseException as error:
                self._verdicts.put(error)
            self._wake()


def judge(case: Case, config: Config) -> Verdict:
    """Computes what a lease asks for, and compares."""
    told = case.rollouts
    with np.errstate(all="ignore"):  # where training has diverged
        mazes, trial = lease_trial(case.theta_P, seed_of(told.batch, told.chunk, config), config)
    is_finite = all(np.isfinite(log_prob_N).all() for log_prob_N in trial.log_probs)
    return Verdict(case, fault(told, mazes, trial), is_finite)


def fault(told: Rollouts, mazes: Mazes, trial: Trial) -> str:
    """Names, in a word, what in an answer is not as it must be."""
    if not is_same(told.mazes, mazes):
        return "mazes"
    if len(told.stages) != len(trial.walks):
        return "stages"
    for stage, walk, log_prob_N in zip(told.stages, trial.walks, trial.log_probs, strict=True):
        if not np.array_equal(stage.length, walk.length_W):
            return "lengths"
        if not np.array_equal(stage.move, walk.move_N):
            return "moves"
        if stage.log_prob.shape != log_prob_N.shape or not _is_near(stage.log_prob, log_prob_N):
            return "log-probabilities"
    return ""


def is_same(mazes: Mazes, others: Mazes) -> bool:
    """Says whether two sets of mazes are alike in every cell."""
    pairs = (mazes.shape_M2, others.shape_M2), (mazes.start_M, others.start_M), (mazes.cell_C, others.cell_C)
    return all(np.array_equal(one, other) for one, other in pairs)


def contradict(first: Rollouts, second: Rollouts) -> bool:
    """Says whether two answers to the same lease cannot both be right."""
    if not is_same(first.mazes, second.mazes) or len(first.stages) != len(second.stages):
        return True
    pairs = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(first.stages, second.stages, strict=True)
        for name in ("length", "move", "log_prob")
    ]
    return not all(np.array_equal(one, other) for one, other in pairs)


def _is_near(one_N: Floats, other_N: Floats) -> bool:
    return bool(np.allclose(one_N, other_N, rtol=0.0, atol=NEAR, equal_nan=True))


class ShutOut:
    """The list of those who have lied: whoever has their key is not heard until that is revoked or the learner ends.

    Without keys it is its connection and its name. That keeps out what is broken, and nobody who wants to come back.
    """

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._actors: set[Actor] = set()
        self._names: set[str] = set()

    def add(self, verdict: Verdict) -> None:
        """Adds the sender of a wrong answer, and logs once who that is."""
        sender, lease = verdict.case.sender, verdict.case.rollouts
        if sender not in self:
            log.error(
                "an actor is shut out: its %s are not what lease %d of batch %d asks for",
                *(verdict.fault, lease.chunk, lease.batch),
                extra={"actor": sender.name, "key": sender.key, "host": sender.host},
            )
        if sender.key:
            self._keys.add(sender.key)
        else:
            self._actors.add(sender.actor)
            self._names |= {sender.name} - {""}

    def let_in(self, keys: set[str]) -> None:
        """Removes revoked keys: their owners have others now."""
        self._keys -= keys

    def __contains__(self, sender: Sender) -> bool:
        if sender.key:
            return sender.key in self._keys
        return sender.actor in self._actors or sender.name in self._names
