"""Which leases are out, with whom, until when, and what a batch still misses. No clock and no socket in here.

At version v (v updates done) the batches v ... v + lag are open. Batch b runs under theta of version
max(0, b - lag) and is update b + 1, once each of its chunks has come back. A lease costs the same whatever
the number of actors and of leases.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.config import Config
from protocol.wire.messages import MAX_CAPACITY, Lease, Rollouts

Actor = bytes  # as the work link names it
Place = tuple[int, int]  # batch, chunk

PATIENCE = 2.0  # times as long as usual, after which a lease is a straggler and idle actors may overtake it
MEMORY = 0.05  # weight of a new answer in what is usual


@dataclass
class Worker:
    """An actor, as the schedule sees it."""

    name: str
    capacity: int
    held: dict[int, Place] = field(default_factory=dict)  # by issue
    took_s: float = 0.0  # from handing out to its last answer
    overdue: bool = False  # let a deadline pass: gets nothing more until it answers or says Hello


@dataclass(frozen=True)
class Issue:
    """A lease that is out and not past its deadline."""

    place: Place
    actor: Actor
    since: float  # a monotonic time, seconds


class Schedule:
    """Hands out every chunk of every batch, in order, until each has come back once."""

    def __init__(self, config: Config, version: int = 0, first_issue: int = 0) -> None:
        self.version = version  # updates done
        self.workers: dict[Actor, Worker] = {}
        self.issued = 0  # leases handed out; this and what follows since the start
        self.reissued = 0  # of them again: after a deadline, or because the actor was gone
        self.doubled = 0  # of them a second time while the first was out: stragglers
        self.expired = 0  # leases whose deadline has passed
        self._run = config.run
        self._first_issue = first_issue
        self._fresh = (version, 0)  # what goes out next for the first time
        self._returned: list[Place] = []  # a heap of what goes out again, before that
        self._answers: dict[int, dict[int, Rollouts]] = {}  # of the open batches, by chunk
        self._out: OrderedDict[int, Issue] = OrderedDict()  # all wait equally long: the next deadline first
        self._alone: OrderedDict[int, Place] = OrderedDict()  # issues whose chunk went out once, the oldest first
        self._copies: Counter[Place] = Counter()  # of each chunk that are out
        # By leases held, in order; a plain dict would step over all that have left it to find its first.
        self._free: list[OrderedDict[Actor, None]] = [OrderedDict() for _ in range(MAX_CAPACITY)]
        self._usual_s: float | None = None  # from handing out to answer, a moving mean
        for batch in range(version, version + self._run.lag + 1):
            self._open(batch)

    @property
    def is_done(self) -> bool:
        """Whether there is no update left."""
        return self.version == self._run.updates

    @property
    def is_ready(self) -> bool:
        """Whether the next update has all that it needs."""
        return not self.is_done and self.missing == 0

    @property
    def missing(self) -> int:
        """Answers that the next update still waits for."""
        return 0 if self.is_done else self._run.leases - len(self._answers[self.version])

    @property
    def out(self) -> int:
        """Leases that are out, their deadlines to come."""
        return len(self._out)

    @property
    def batches_waiting(self) -> int:
        """Open batches whose answers are not complete."""
        return sum(len(answers) < self._run.leases for answers in list(self._answers.values()))

    @property
    def answers(self) -> list[Rollouts]:
        """The next update's rollouts in order of their chunks, once it is ready."""
        answers = self._answers[self.version]
        return [answers[chunk] for chunk in range(self._run.leases)]

    @property
    def holders(self) -> list[Actor]:
        """The actors that the next update waits for."""
        return list({issue.actor: None for issue in self._out.values() if issue.place[0] == self.version})

    @property
    def actors(self) -> int:
        """Those that take leases: the doctor only looks in."""
        return sum(worker.capacity > 0 for worker in list(self.workers.values()))

    @property
    def idle(self) -> list[Actor]:
        """The actors that nothing is expected of: nobody else would notice if they were gone."""
        return [actor for actor, worker in self.workers.items() if not worker.held or worker.overdue]

    def join(self, actor: Actor, name: str, capacity: int) -> None:
        """An actor with empty hands, whatever was known of it before."""
        self.leave(actor)
        self.workers[actor] = Worker(name, capacity)
        self._seat(actor)

    def leave(self, actor: Actor) -> None:
        """The actor is gone; what it held goes to others."""
        if actor not in self.workers:
            return
        self._unseat(actor)
        for number in self.workers.pop(actor).held:
            self._recall(number)

    def hand_out(self, now: float) -> Iterator[tuple[Actor, Lease]]:
        """Leases for whoever is free, the least busy first. `now` is a monotonic time, seconds."""
        while (free := next(filter(None, self._free), None)) and (place := self._next()):
            actor = next(iter(free))
            yield actor, self._issue(actor, place, now)
        while (number := self._straggler(now)) is not None and (other := self._least_busy_but(number)):
            self.doubled += 1
            yield other, self._issue(other, self._alone.pop(number), now)

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
            self._release(actor, rollouts.issue, now)
        if reason is None:
            self._answers[rollouts.batch][rollouts.chunk] = rollouts
            took_s = self.workers[actor].took_s
            former_s = took_s if self._usual_s is None else self._usual_s
            self._usual_s = former_s + MEMORY * (took_s - former_s)
        return reason

    def expire(self, now: float) -> int:
        """How many deadlines have passed. Their leases go to others; whoever answers first counts."""
        passed = 0
        while self._out and next(iter(self._out.values())).since + self._run.lease_timeout_s <= now:
            number, issue = next(iter(self._out.items()))
            self._unseat(issue.actor)
            self.workers[issue.actor].overdue = True
            self._recall(number)
            passed += 1
        self.expired += passed
        return passed

    def take(self) -> list[Rollouts]:
        """The next update's rollouts in order of their chunks. The update counts as done."""
        assert self.is_ready
        answers = self.answers
        del self._answers[self.version]
        self.version += 1
        self._open(self.version + self._run.lag)
        return answers

    def _open(self, batch: int) -> None:
        if batch < self._run.updates:
            self._answers[batch] = {}

    def _next(self) -> Place | None:
        """What is to be handed out next: what comes back from somebody, else the next chunk of the open batches."""
        while self._returned:
            place = heapq.heappop(self._returned)
            if self._is_missing(place):  # else it was answered after its deadline
                return place
        batch, chunk = self._fresh
        if batch not in self._answers:
            return None
        self._fresh = (batch, chunk + 1) if chunk + 1 < self._run.leases else (batch + 1, 0)
        return batch, chunk

    def _version_of(self, batch: int) -> int:
        return max(0, batch - self._run.lag)

    def _is_missing(self, place: Place) -> bool:
        batch, chunk = place
        return batch in self._answers and chunk not in self._answers[batch]

    def _straggler(self, now: float) -> int | None:
        """The oldest lease of those whose chunk nobody else has, if it takes long, or its actor usually does."""
        while self._alone:
            number, place = next(iter(self._alone.items()))
            if self._is_missing(place):
                issue = self._out[number]
                is_late = self._is_slow(max(now - issue.since, self.workers[issue.actor].took_s))
                return number if is_late else None
            del self._alone[number]  # answered after an earlier deadline
        return None

    def _least_busy_but(self, number: int) -> Actor | None:
        """Who could overtake the holder of this lease."""
        holder = self._out[number].actor
        return next((actor for free in self._free for actor in free if actor != holder), None)

    def _is_slow(self, seconds: float) -> bool:
        return self._usual_s is not None and seconds > PATIENCE * self._usual_s

    def _issue(self, actor: Actor, place: Place, now: float) -> Lease:
        number = self._first_issue + self.issued
        self.issued += 1
        self._unseat(actor)
        self.workers[actor].held[number] = place
        self._seat(actor)
        self._out[number] = Issue(place, actor, now)
        self._copies[place] += 1
        if self._copies[place] == 1:
            self._alone[number] = place
            if self._is_slow(self.workers[actor].took_s):
                self._alone.move_to_end(number, last=False)
        batch, chunk = place
        seed = (self._run.seed, batch, chunk)
        return Lease(batch, chunk, number, self._version_of(batch), seed, self._run.lease_timeout_s)

    def _release(self, actor: Actor, number: int, now: float) -> None:
        """The actor holds this lease no more."""
        worker = self.workers[actor]
        if issue := self._recall(number, answered=True):
            worker.took_s = now - issue.since
        else:
            worker.took_s = max(worker.took_s, self._run.lease_timeout_s)
        self._unseat(actor)
        del worker.held[number]
        worker.overdue = False
        self._seat(actor)

    def _recall(self, number: int, answered: bool = False) -> Issue | None:
        """This lease is out no more. Its chunk is to be handed out again, unless another copy is still out."""
        issue = self._out.pop(number, None)
        self._alone.pop(number, None)
        if issue is None:
            return None
        self._copies[issue.place] -= 1
        if not self._copies[issue.place]:
            del self._copies[issue.place]
            if not answered and self._is_missing(issue.place):
                self.reissued += 1
                heapq.heappush(self._returned, issue.place)
        return issue

    def _seat(self, actor: Actor) -> None:
        """Among the free, if it is: behind those who hold as many leases as it does."""
        worker = self.workers[actor]
        if not worker.overdue and len(worker.held) < worker.capacity:
            self._free[len(worker.held)][actor] = None

    def _unseat(self, actor: Actor) -> None:
        held = len(self.workers[actor].held)
        if held < MAX_CAPACITY:
            self._free[held].pop(actor, None)
