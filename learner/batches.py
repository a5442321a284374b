"""The open batches: which of their chunks have been answered, and which is to be handed out next.

At version v (v updates done) the batches v ... v + lag are open. Batch b runs under theta of version max(0, b - lag),
and is update b + 1, once each of its chunks has come back.
"""

from __future__ import annotations

import heapq

from learner.crew import Place
from protocol.config import Config
from protocol.wire.messages import Rollouts


class Batches:
    """The batches of a run, in order."""

    def __init__(self, config: Config, version: int) -> None:
        """Opens the first batches. `version`: updates done, whose batches are done, too."""
        self.version = version
        self.reissued = 0  # chunks that came back without an answer
        self._run = config.run
        self._fresh = (version, 0)  # what goes out next for the first time
        self._returned: list[Place] = []  # a heap of what goes out again, before that
        self._answers: dict[int, dict[int, Rollouts]] = {}  # of the open batches, by chunk
        for batch in range(version, version + self._run.lag + 1):
            self._open(batch)

    @property
    def is_done(self) -> bool:
        """Says whether there is no update left."""
        return self.version == self._run.updates

    @property
    def is_ready(self) -> bool:
        """Says whether the next update has all that it needs."""
        return not self.is_done and self.missing == 0

    @property
    def missing(self) -> int:
        """Returns how many answers the next update still waits for."""
        return 0 if self.is_done else self._run.leases - len(self._answers[self.version])

    @property
    def waiting(self) -> int:
        """Returns how many open batches lack answers."""
        return sum(len(answers) < self._run.leases for answers in self._answers.values())

    @property
    def answers(self) -> list[Rollouts]:
        """Returns the next update's rollouts in order of their chunks, once it is ready."""
        answers = self._answers[self.version]
        return [answers[chunk] for chunk in range(self._run.leases)]

    def take(self) -> list[Rollouts]:
        """Returns the next update's rollouts, and counts the update as done."""
        assert self.is_ready
        answers = self.answers
        del self._answers[self.version]
        self.version += 1
        self._open(self.version + self._run.lag)
        return answers

    def next(self) -> Place | None:
        """Takes what is to be handed out next: what has come back, else the next chunk of the open batches."""
        while self._returned:
            place = heapq.heappop(self._returned)
            if self.misses(place):  # else it was answered after its deadline
                return place
        batch, chunk = self._fresh
        if batch not in self._answers:
            return None
        self._fresh = (batch, chunk + 1) if chunk + 1 < self._run.leases else (batch + 1, 0)
        return batch, chunk

    def put_back(self, place: Place) -> None:
        """Has a chunk handed out again."""
        self.reissued += 1
        heapq.heappush(self._returned, place)

    def misses(self, place: Place) -> bool:
        """Says whether this chunk is of an open batch, and not answered."""
        batch, chunk = place
        return batch in self._answers and chunk not in self._answers[batch]

    def file(self, place: Place, rollouts: Rollouts) -> None:
        """Takes the answer to a chunk."""
        self._answers[place[0]][place[1]] = rollouts

    def drop(self, place: Place) -> None:
        """Takes an answer back, before an update has had it."""
        del self._answers[place[0]][place[1]]

    def filed(self, place: Place) -> Rollouts | None:
        """Returns the answer to a chunk, until an update has it."""
        return self._answers.get(place[0], {}).get(place[1])

    def version_of(self, batch: int) -> int:
        """Returns the version of theta that a batch's leases run under."""
        return max(0, batch - self._run.lag)

    def _open(self, batch: int) -> None:
        if batch < self._run.updates:
            self._answers[batch] = {}
