"""Which leases are out, with whom, until when, and what a batch still misses. No clock and no socket in here.

At version v (v updates done) the batches v ... v + lag are open. Batch b runs under theta of version
max(0, b - lag) and is update b + 1, once each of its chunks has come back. A lease costs the same whatever
the number of actors; the leases of the open batches are in a heap.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.config import Config
from protocol.messages import MAX_CAPACITY, Lease, Rollouts

Actor = bytes  # as the work link names it
Place = tuple[int, int]  # batch, chunk


@dataclass
class Worker:
    """An actor, as the schedule sees it."""

    name: str
    capacity: int
    held: dict[int, Place] = field(default_factory=dict)  # by issue
    overdue: bool = False  # let a deadline pass: gets nothing more until it answers or says Hello


class Schedule:
    """Hands out every chunk of every batch, in order, until each has come back once."""

    def __init__(self, config: Config, version: int = 0, first_issue: int = 0) -> None:
        self.version = version  # updates done
        self.workers: dict[Actor, Worker] = {}
        self.issued = 0  # leases handed out
        self.expired = 0  # leases whose deadline has passed
        self._run = config.run
        self._first_issue = first_issue
        self._todo: list[Place] = []  # a heap: the oldest batch first
        self._answers: dict[int, dict[int, Rollouts]] = {}  # of the open batches, by chunk
        self._due: OrderedDict[int, tuple[float, Actor]] = OrderedDict()  # by issue, the next deadline first
        self._free: list[dict[Actor, None]] = [{} for _ in range(MAX_CAPACITY)]  # by leases held, in order
        for batch in range(version, version + self._run.lag + 1):
            self._open(batch)

    @property
    def is_done(self) -> bool:
        """Whether there is no update left."""
        return self.version == self._run.updates

    @property
    def is_ready(self) -> bool:
        """Whether the next update has all that it needs."""
        return len(self._answers.get(self.version, ())) == self._run.leases

    @property
    def oldest_version(self) -> int:
        """The oldest theta that a lease may name."""
        return self._version_of(self.version)

    @property
    def holders(self) -> list[Actor]:
        """The actors that the next update waits for."""
        return [
            actor
            for actor, worker in self.workers.items()
            if any(batch == self.version for batch, _ in worker.held.values())
        ]

    @property
    def idle(self) -> list[Actor]:
        """The actors that hold nothing."""
        return [actor for actor, worker in self.workers.items() if not worker.held]

    def join(self, actor: Actor, name: str, capacity: int) -> None:
        """An actor with empty hands, whatever was known of it before."""
        self.leave(actor)
        self.workers[actor] = Worker(name, capacity)
        self._free[0][actor] = None

    def leave(self, actor: Actor) -> None:
        """The actor is gone; what it held goes to others."""
        if actor not in self.workers:
            return
        self._unseat(actor)
        for issue, place in self.workers.pop(actor).held.items():
            if self._due.pop(issue, None):
                self._put_back(place)

    def hand_out(self, now: float) -> Iterator[tuple[Actor, Lease]]:
        """Leases for whoever is free, the least busy first. `now` is a monotonic time, seconds."""
        while self._todo and (free := next(filter(None, self._free), None)):
            place = heapq.heappop(self._todo)
            if self._is_missing(place):  # else it was answered after its deadline
                actor = next(iter(free))
                yield actor, self._issue(actor, place, now)

    @property
    def answers(self) -> list[Rollouts]:
        """The next update's rollouts in order of their chunks, once it is ready."""
        answers = self._answers[self.version]
        return [answers[chunk] for chunk in range(self._run.leases)]

    def refusal(self, actor: Actor, rollouts: Rollouts) -> str | None:
        """Why this answer would not count, in a word; changes nothing, and looks at no content."""
        if actor not in self.workers:
            return "stranger"
        place = self.workers[actor].held.get(rollouts.issue)
        if place is None:
            if not 0 <= rollouts.issue - self._first_issue < self.issued:
                return "unknown"
            return "late" if self._is_missing((rollouts.batch, rollouts.chunk)) else "duplicate"
        if (rollouts.batch, rollouts.chunk, rollouts.version) != (*place, self._version_of(place[0])):
            return "unknown"
        return None if self._is_missing(place) else "duplicate"

    def answer(self, actor: Actor, rollouts: Rollouts, now: float) -> str | None:
        """Takes the answer to a lease if it is the first to it; else says, in a word, why not."""
        reason = self.refusal(actor, rollouts)
        if reason in (None, "duplicate") and rollouts.issue in self.workers[actor].held:
            self._release(actor, rollouts.issue)
        if reason is None:
            self._answers[rollouts.batch][rollouts.chunk] = rollouts
        return reason

    def expire(self, now: float) -> int:
        """How many deadlines have passed. Their leases go to others; whoever answers first counts."""
        passed = 0
        while self._due and next(iter(self._due.values()))[0] <= now:
            issue, (_, actor) = self._due.popitem(last=False)
            self._unseat(actor)
            self.workers[actor].overdue = True
            self._put_back(self.workers[actor].held[issue])
            passed += 1
        self.expired += passed
        return passed

    def take(self) -> list[Rollouts]:
        """The next update's rollouts in order of their chunks. The update counts as done."""
        assert self.is_ready
        answers = self._answers.pop(self.version)
        self.version += 1
        self._open(self.version + self._run.lag)
        return [answers[chunk] for chunk in range(self._run.leases)]

    def _open(self, batch: int) -> None:
        if batch < self._run.updates:
            self._answers[batch] = {}
            for chunk in range(self._run.leases):
                heapq.heappush(self._todo, (batch, chunk))

    def _version_of(self, batch: int) -> int:
        return max(0, batch - self._run.lag)

    def _is_missing(self, place: Place) -> bool:
        batch, chunk = place
        return batch in self._answers and chunk not in self._answers[batch]

    def _put_back(self, place: Place) -> None:
        if self._is_missing(place):
            heapq.heappush(self._todo, place)

    def _issue(self, actor: Actor, place: Place, now: float) -> Lease:
        issue, timeout_s = self._first_issue + self.issued, self._run.lease_timeout_s
        self.issued += 1
        self._unseat(actor)
        self.workers[actor].held[issue] = place
        self._seat(actor)
        self._due[issue] = now + timeout_s, actor  # all wait equally long, so the newest is due last
        batch, chunk = place
        seed = (self._run.seed, batch, chunk)
        return Lease(batch, chunk, issue, self._version_of(batch), seed, timeout_s)

    def _release(self, actor: Actor, issue: int) -> None:
        self._due.pop(issue, None)
        self._unseat(actor)
        worker = self.workers[actor]
        del worker.held[issue]
        worker.overdue = False
        self._seat(actor)

    def _seat(self, actor: Actor) -> None:
        """Among the free, if it is: behind those who hold as many leases as it does."""
        worker = self.workers[actor]
        if not worker.overdue and len(worker.held) < worker.capacity:
            self._free[len(worker.held)][actor] = None

    def _unseat(self, actor: Actor) -> None:
        held = len(self.workers[actor].held)
        if held < MAX_CAPACITY:
            self._free[held].pop(actor, None)
