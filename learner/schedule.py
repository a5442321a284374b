"""Which leases are out, with whom, until when, and what a batch still misses. No clock and no socket in here.

At version v (v updates done) the batches v ... v + lag are open. Batch b runs under theta of version
max(0, b - lag) and is update b + 1, once each of its chunks has come back. A lease costs the same whatever
the number of actors and of leases.

Who answers comes first. An actor is trusted with its word once an answer of it has counted, until it lets a deadline
pass or says Hello again. Who is not trusted gets what no trusted actor is free for, and a trusted actor that is free
works on the same at once; so does whoever has nothing else to do, as long as nobody trusted does. So those who take
leases and never answer hold up nobody.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.config import Config
from protocol.wire.messages import MAX_CAPACITY, Lease, Rollouts

Actor = bytes  # as the work link names it
Place = tuple[int, int]  # batch, chunk

PATIENCE = 2.0  # times as long as usual, after which a lease is a straggler and idle actors may overtake it
DOUBTED = 4  # copies of a lease that are out with actors that are not trusted; older ones count as lost
MEMORY = 0.05  # weight of a new answer in what is usual


@dataclass
class Worker:
    """An actor, as the schedule sees it."""

    name: str
    capacity: int
    held: dict[int, Place] = field(default_factory=dict)  # by issue
    took_s: float = 0.0  # from handing out to its last answer
    overdue: bool = False  # let a deadline pass: gets nothing more until it answers or says Hello
    is_trusted: bool = False  # has answered since its Hello, and let no deadline pass since


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
        self._config, self._run = config, config.run
        self._first_issue = first_issue
        self._fresh = (version, 0)  # what goes out next for the first time
        self._returned: list[Place] = []  # a heap of what goes out again, before that
        self._answers: dict[int, dict[int, Rollouts]] = {}  # of the open batches, by chunk
        self._out: OrderedDict[int, Issue] = OrderedDict()  # all wait equally long: the next deadline first
        self._copies: dict[Place, list[int]] = {}  # of each chunk: the issues that are out, and not lost
        self._doubtful: OrderedDict[Place, None] = OrderedDict()  # with nobody trusted, the oldest first
        self._alone: OrderedDict[Place, None] = OrderedDict()  # with one trusted actor, the oldest first
        # Of the trusted, then of the others: by leases held, in order; a plain dict would step over all that have left
        # it to find its first.
        self._free: list[OrderedDict[Actor, None]] = [OrderedDict() for _ in range(2 * MAX_CAPACITY)]
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
        return sum(worker.capacity > 0 for worker in self.workers.values())

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
        """Leases for whoever is free, the trusted first, the least busy first. `now` is a monotonic time, seconds."""
        while (free := next(filter(None, self._free), None)) and (place := self._next()):
            actor = next(iter(free))
            yield actor, self._issue(actor, place, now)
        trusted, idle = self._free[:MAX_CAPACITY], self._free[MAX_CAPACITY:][:1]
        while (free := next(filter(None, trusted + idle), None)) and (place := self._oldest(self._doubtful)):
            self.doubled += 1
            self._doubtful.move_to_end(place)  # everybody gets another
            actor = next(iter(free))
            yield actor, self._issue(actor, place, now)
        while (place := self._straggler(now)) and (other := self._least_busy_but(place)):
            self.doubled += 1
            yield other, self._issue(other, place, now)

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
            self._trust(actor, True)
            took_s = self.workers[actor].took_s
            former_s = took_s if self._usual_s is None else self._usual_s
            self._usual_s = former_s + MEMORY * (took_s - former_s)
        return reason

    def first_answer(self, actor: Actor, rollouts: Rollouts) -> Rollouts | None:
        """What was answered to the same lease first, where this actor has held that, too, and no update has it yet."""
        place = self.workers[actor].held.get(rollouts.issue) if actor in self.workers else None
        return self._answers.get(place[0], {}).get(place[1]) if place else None

    def withdraw(self, place: Place) -> None:
        """The answer to this chunk of a batch that no update has yet counts no more; the chunk goes to others."""
        del self._answers[place[0]][place[1]]
        if place not in self._copies:
            self.reissued += 1
            heapq.heappush(self._returned, place)

    def expire(self, now: float) -> int:
        """How many deadlines have passed. Their leases go to others; whoever answers first counts."""
        passed = 0
        while self._out and next(iter(self._out.values())).since + self._run.lease_timeout_s <= now:
            number, issue = next(iter(self._out.items()))
            self._unseat(issue.actor)
            self.workers[issue.actor].overdue = True
            self._recall(number)
            self._trust(issue.actor, False)
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

    def _oldest(self, places: OrderedDict[Place, None]) -> Place | None:
        """The first of these that is not answered yet."""
        while places:
            place = next(iter(places))
            if self._is_missing(place):
                return place
            del places[place]  # answered after an earlier deadline, or by another
        return None

    def _straggler(self, now: float) -> Place | None:
        """The oldest chunk of those that one trusted actor has, if it takes long, or that actor usually does."""
        if place := self._oldest(self._alone):
            [issue] = [issue for issue in self._issues(place) if self._is_trusted(issue.actor)]
            return place if self._is_slow(max(now - issue.since, self.workers[issue.actor].took_s)) else None
        return None

    def _issues(self, place: Place) -> list[Issue]:
        """Of this chunk, those that are out."""
        return [self._out[number] for number in self._copies.get(place, ())]

    def _least_busy_but(self, place: Place) -> Actor | None:
        """Who could overtake the holders of this chunk; one who is not trusted, only where that is a second copy."""
        holders = {issue.actor for issue in self._issues(place)}
        free = self._free if len(holders) == 1 else self._free[:MAX_CAPACITY]
        return next((actor for actors in free for actor in actors if actor not in holders), None)

    def _is_slow(self, seconds: float) -> bool:
        return self._usual_s is not None and seconds > PATIENCE * self._usual_s

    def _issue(self, actor: Actor, place: Place, now: float) -> Lease:
        number = self._first_issue + self.issued
        self.issued += 1
        self._unseat(actor)
        self.workers[actor].held[number] = place
        self._seat(actor)
        self._out[number] = Issue(place, actor, now)
        copies = self._copies.setdefault(place, [])
        copies.append(number)
        doubted = [number for number in copies if not self._is_trusted(self._out[number].actor)]
        for lost in doubted[:-DOUBTED]:
            copies.remove(lost)
        self._sort(place)
        if place in self._alone and self._is_slow(self.workers[actor].took_s):
            self._alone.move_to_end(place, last=False)
        batch, chunk = place
        seed = seed_of(batch, chunk, self._config)
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
        if issue is None:
            return None
        if number in self._copies.get(issue.place, ()):
            self._copies[issue.place].remove(number)
            self._sort(issue.place)
        if issue.place not in self._copies and not answered and self._is_missing(issue.place):
            self.reissued += 1
            heapq.heappush(self._returned, issue.place)
        return issue

    def _sort(self, place: Place) -> None:
        """Notes anew who may overtake those that have this chunk."""
        copies = self._copies.get(place, [])
        trusted = sum(self._is_trusted(issue.actor) for issue in self._issues(place))
        for places, wanted in ((self._doubtful, 0), (self._alone, 1)):
            if trusted != wanted or not copies:
                places.pop(place, None)
            elif place not in places:
                places[place] = None
        if not copies:
            self._copies.pop(place, None)

    def _is_trusted(self, actor: Actor) -> bool:
        return actor in self.workers and self.workers[actor].is_trusted

    def _trust(self, actor: Actor, is_trusted: bool) -> None:
        """From now on, for what it holds, too."""
        worker = self.workers[actor]
        if worker.is_trusted == is_trusted:
            return
        self._unseat(actor)
        worker.is_trusted = is_trusted
        self._seat(actor)
        for number, place in worker.held.items():
            if number in self._out:
                self._sort(place)

    def _seat(self, actor: Actor) -> None:
        """Among the free, if it is: behind those who are as trusted and hold as many leases."""
        worker = self.workers[actor]
        if not worker.overdue and len(worker.held) < worker.capacity:
            self._free[rank(worker)][actor] = None

    def _unseat(self, actor: Actor) -> None:
        worker = self.workers[actor]
        if len(worker.held) < MAX_CAPACITY:
            self._free[rank(worker)].pop(actor, None)


def seed_of(batch: int, chunk: int, config: Config) -> tuple[int, ...]:
    """What everything random in a lease comes from."""
    return config.run.seed, batch, chunk


def rank(worker: Worker) -> int:
    """Where among the free an actor is: the lowest rank comes first."""
    return len(worker.held) + (0 if worker.is_trusted else MAX_CAPACITY)
