"""The answers of the open batches: they are checked, they count, and they are taken back where the sender has lied."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from learner.admission import Replay
from learner.ascent import Floats
from learner.audit import Auditor, Case, Sender, contradict
from learner.crew import Place
from learner.reception import Reception
from learner.roster import Roster
from learner.schedule import Schedule
from learner.traces import Trail
from protocol.config import Config
from protocol.wire.learner_links import Received
from protocol.wire.messages import Rollouts


@dataclass(frozen=True)
class MetaBatch:
    """Everything that an update is made of, in the order of the leases."""

    parts: Sequence[Rollouts]
    replays: Sequence[Replay]  # of each part, walked again


@dataclass(frozen=True)
class Filed:
    """An answer that counts: whose it is, and its attempts, walked again."""

    sender: Sender
    replay: Replay


class Answers:
    """Checks the answers of the open batches and keeps those that count. The clerk's thread owns it."""

    def __init__(
        self,
        config: Config,
        schedule: Schedule,
        reception: Reception,
        roster: Roster,
        trail: Trail,
        thetas: Mapping[int, Floats],
        wake: Callable[[], None],
    ) -> None:
        """Starts empty. `thetas`: those that answers may name, by version; `wake`: called when the audit has news."""
        self.thetas = thetas
        self._schedule, self._reception, self._roster, self._trail = schedule, reception, roster, trail
        self._auditor = Auditor(config, wake)
        self._filed: dict[Place, Filed] = {}

    def take(self, received: Received, rollouts: Rollouts) -> None:
        """Takes an answer. Only one that a lease asked for is checked, together with all others that wait for that."""
        if self._schedule.refusal(received.actor, rollouts):
            self._file(received, rollouts)
            return
        self._reception.keep(received, rollouts)
        if self._reception.is_full(self._schedule.batches.missing):
            self.check()

    def check(self) -> None:
        """Checks the answers that wait for it, and files those that are as they must be."""
        for received, rollouts, verdict in self._reception.looked_at():
            if isinstance(verdict, Replay):
                self._file(received, rollouts, verdict)
            else:  # no honest actor sends such a thing, unless training has diverged
                self._auditor.examine(self._case(received, rollouts))
                self._roster.dismiss(received, verdict)

    def hear_the_audit(self, next_is_taken: bool) -> None:
        """Takes back the answers of those who have lied. `next_is_taken`: the learner has the next update's already."""
        for verdict in self._auditor.verdicts():
            self._roster.shut_out(verdict)
            for place, filed in list(self._filed.items()):
                is_taken = next_is_taken and place[0] == self._schedule.batches.version
                if self._roster.has_shut_out(filed.sender) and not is_taken:
                    del self._filed[place]
                    self._schedule.withdraw(place)

    @property
    def are_ready(self) -> bool:
        """Says whether the next update has all its answers, and need not wait for the audit."""
        return self._schedule.batches.is_ready and self._auditor.is_done_with(self._schedule.batches.version)

    def next_batch(self) -> MetaBatch:
        """Returns the next update's answers, once they are ready."""
        parts = self._schedule.batches.answers
        return MetaBatch(parts, [self._filed[part.batch, part.chunk].replay for part in parts])

    def update(self, thetas: Mapping[int, Floats]) -> None:
        """Notes that the next update is done: its answers go, and leases name other versions of theta."""
        self.thetas = thetas
        for part in self._schedule.batches.take():
            del self._filed[part.batch, part.chunk]

    def _file(self, received: Received, rollouts: Rollouts, replay: Replay | None = None) -> None:
        """Tells the schedule of an answer. `replay`: where the answer can count, and is the first to its lease."""
        first = self._schedule.first_answer(received.actor, rollouts)
        reason = self._schedule.answer(received.actor, rollouts, time.monotonic())
        if reason == "stranger":
            self._roster.dismiss(received, reason)
        elif reason:
            self._roster.refuse(received, reason)
        elif replay:
            self._filed[rollouts.batch, rollouts.chunk] = Filed(self._roster.sender(received), replay)
            self._trail.answered(rollouts.issue)
            self._auditor.consider(self._case(received, rollouts))
        if first and reason == "duplicate" and contradict(first, rollouts):
            author = self._filed[first.batch, first.chunk].sender
            self._auditor.examine(self._case(received, rollouts))
            self._auditor.examine(Case(author, first, self.thetas[first.version]))

    def _case(self, received: Received, rollouts: Rollouts) -> Case:
        return Case(self._roster.sender(received), rollouts, self.thetas[rollouts.version])
