"""The schedule: which leases are out, with whom and until when. There is no clock and no socket in here.

Who is not trusted gets what no trusted actor is free for, and a trusted actor that is free works on the same at once.
So does whoever has nothing else to do, as long as nobody trusted does. So those who take leases and never answer hold
up nobody. A lease costs the same whatever the number of actors and of leases.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from learner.batches import Batches
from learner.crew import Actor, Crew, Place
from protocol.config import Config
from protocol.wire.messages import Lease, Rollouts

PATIENCE = 2.0  # times as long as usual, after which a lease is a straggler and idle actors may overtake it
DOUBTED = 4  # copies of a lease that are out with actors that are not trusted; older ones count as lost
MEMORY = 0.05  # weight of a new answer in what is usual


@dataclass(frozen=True)
class Issue:
    """A lease that is out and not past its deadline."""

    place: Place
    actor: Actor
    since: float  # a monotonic time, seconds


class Schedule:
    """Hands out every chunk of every batch, in order, until each has come back once.

    It has more methods than other classes, because every event changes the same few tables of copies.
    """

    def __init__(self, config: Config, version: int = 0, first_issue: int = 0) -> None:
        """Starts with no lease out. `version`: updates done. `first_issue`: the first lease's number, hard to guess."""
        self.batches = Batches(config, version)
        self.crew = Crew()
        self.issued = 0  # leases handed out; this and what follows since the start
        self.doubled = 0  # of them a second time while the first was out: stragglers
        self.expired = 0  # leases whose deadline has passed
        self._config, self._timeout_s = config, config.run.lease_timeout_s
        self._first_issue = first_issue
        self._out: OrderedDict[int, Issue] = OrderedDict()  # all wait equally long: the next deadline first
        self._copies: dict[Place, list[int]] = {}  # of each chunk: the issues that are out, and not lost
        self._doubtful: OrderedDict[Place, None] = OrderedDict()  # with nobody trusted, the oldest first
        self._alone: OrderedDict[Place, None] = OrderedDict()  # with one trusted actor, the oldest first
        self._usual_s: float | None = None  # from handing out to answer, a moving mean

    @property
    def out(self) -> int:
        """Returns how many leases are out, their deadlines to come."""
        return len(self._out)

    @property
    def holders(self) -> list[Actor]:
        """Returns the actors that the next update waits for."""
        return list({issue.actor: None for issue in self._out.values() if issue.place[0] == self.batches.version})

    def join(self, actor: Actor, name: str, capacity: int) -> None:
        """Adds an actor with empty hands, whatever was known of it before."""
        self.leave(actor)
        self.crew.join(actor, name, capacity)

    def leave(self, actor: Actor) -> None:
        """Removes an actor, if it is there; what it held goes to others."""
        if actor in self.crew.workers:
            for number in self.crew.leave(actor).held:
                self._recall(number)

    def hand_out(self, now: float) -> Iterator[tuple[Actor, Lease]]:
        """Yields leases for whoever is free. `now` is a monotonic time, seconds."""
        crew, batches = self.crew, self.batches
        while (actor := crew.first_free()) and (place := batches.next()):
            yield actor, self._issue(actor, place, now)
        while (actor := crew.second()) and (place := self._oldest(self._doubtful)):
            self.doubled += 1
            self._doubtful.move_to_end(place)  # everybody gets another
            yield actor, self._issue(actor, place, now)
        while (place := self._straggler(now)) and (other := self._who_overtakes(place)):
            self.doubled += 1
            yield other, self._issue(other, place, now)

    def refusal(self, actor: Actor, rollouts: Rollouts) -> str | None:
        """Says, in a word, why this answer would not count; changes nothing, and looks at no content."""
        if actor not in self.crew.workers:
            return "stranger"
        place = self.crew.workers[actor].held.get(rollouts.issue)
        if place is None:
            if not 0 <= rollouts.issue - self._first_issue < self.issued:
                return "unknown"
            return "late" if self.batches.misses((rollouts.batch, rollouts.chunk)) else "duplicate"
        if (rollouts.batch, rollouts.chunk, rollouts.version) != (*place, self.batches.version_of(place[0])):
            return "unknown"
        return None if self.batches.misses(place) else "duplicate"

    def answer(self, actor: Actor, rollouts: Rollouts, now: float) -> str | None:
        """Takes the answer to a lease if it is the first to it; else says, in a word, why not."""
        reason = self.refusal(actor, rollouts)
        if reason in (None, "duplicate") and rollouts.issue in self.crew.workers[actor].held:
            self._release(actor, rollouts.issue, now)
        if reason is None:
            self.batches.file((rollouts.batch, rollouts.chunk), rollouts)
            self._trust(actor, True)
            took_s = self.crew.workers[actor].took_s
            former_s = took_s if self._usual_s is None else self._usual_s
            self._usual_s = former_s + MEMORY * (took_s - former_s)
        return reason

    def first_answer(self, actor: Actor, rollouts: Rollouts) -> Rollouts | None:
        """Returns the first answer to the same lease, if this actor holds that and no update has the answer yet."""
        place = self.crew.workers[actor].held.get(rollouts.issue) if actor in self.crew.workers else None
        return self.batches.filed(place) if place else None

    def withdraw(self, place: Place) -> None:
        """Takes back the answer to this chunk of a batch that no update has yet; the chunk goes to others."""
        self.batches.drop(place)
        if place not in self._copies:
            self.batches.put_back(place)

    def expire(self, now: float) -> int:
        """Returns how many deadlines have passed. Their leases go to others; whoever answers first counts."""
        passed = 0
        while self._out and next(iter(self._out.values())).since + self._timeout_s <= now:
            number, issue = next(iter(self._out.items()))
            self._recall(number)
            self._trust(issue.actor, False, overdue=True)
            passed += 1
        self.expired += passed
        return passed

    def _oldest(self, places: OrderedDict[Place, None]) -> Place | None:
        """Returns the first of these that is not answered yet."""
        while places:
            place = next(iter(places))
            if self.batches.misses(place):
                return place
            del places[place]  # answered after an earlier deadline, or by another
        return None

    def _straggler(self, now: float) -> Place | None:
        """Returns the oldest chunk that one trusted actor has, if it takes long, or that actor usually does."""
        if place := self._oldest(self._alone):
            [issue] = [issue for issue in self._issues(place) if self.crew.is_trusted(issue.actor)]
            took_s = self.crew.workers[issue.actor].took_s
            return place if self._is_slow(max(now - issue.since, took_s)) else None
        return None

    def _who_overtakes(self, place: Place) -> Actor | None:
        """Returns who could overtake the holders of a chunk; one who is not trusted, only with a second copy."""
        holders = {issue.actor for issue in self._issues(place)}
        return self.crew.first_free_but(holders, trusted=len(holders) > 1)

    def _issues(self, place: Place) -> list[Issue]:
        """Returns the copies of this chunk that are out."""
        return [self._out[number] for number in self._copies.get(place, ())]

    def _is_slow(self, seconds: float) -> bool:
        return self._usual_s is not None and seconds > PATIENCE * self._usual_s

    def _issue(self, actor: Actor, place: Place, now: float) -> Lease:
        number = self._first_issue + self.issued
        self.issued += 1
        self.crew.hold(actor, number, place)
        self._out[number] = Issue(place, actor, now)
        copies = self._copies.setdefault(place, [])
        copies.append(number)
        doubted = [number for number in copies if not self.crew.is_trusted(self._out[number].actor)]
        for lost in doubted[:-DOUBTED]:
            copies.remove(lost)
        self._sort(place)
        if place in self._alone and self._is_slow(self.crew.workers[actor].took_s):
            self._alone.move_to_end(place, last=False)
        batch, chunk = place
        seed = seed_of(batch, chunk, self._config)
        return Lease(batch, chunk, number, self.batches.version_of(batch), seed, self._timeout_s)

    def _release(self, actor: Actor, number: int, now: float) -> None:
        """Notes that the actor has answered this lease."""
        issue = self._recall(number, answered=True)
        took_s = now - issue.since if issue else max(self.crew.workers[actor].took_s, self._timeout_s)
        self.crew.release(actor, number, took_s)

    def _recall(self, number: int, answered: bool = False) -> Issue | None:
        """Takes a lease that is out back. Its chunk is handed out again, unless another copy is still out."""
        issue = self._out.pop(number, None)
        if issue is None:
            return None
        if number in self._copies.get(issue.place, ()):
            self._copies[issue.place].remove(number)
            self._sort(issue.place)
        if issue.place not in self._copies and not answered and self.batches.misses(issue.place):
            self.batches.put_back(issue.place)
        return issue

    def _sort(self, place: Place) -> None:
        """Notes anew who may overtake those that have this chunk."""
        copies = self._copies.get(place, [])
        trusted = sum(self.crew.is_trusted(issue.actor) for issue in self._issues(place))
        for places, wanted in ((self._doubtful, 0), (self._alone, 1)):
            if trusted != wanted or not copies:
                places.pop(place, None)
            elif place not in places:
                places[place] = None
        if not copies:
            self._copies.pop(place, None)

    def _trust(self, actor: Actor, is_trusted: bool, overdue: bool = False) -> None:
        """Trusts an actor, or no more, from now on and for what it holds, too."""
        if self.crew.trust(actor, is_trusted, overdue):
            for number, place in self.crew.workers[actor].held.items():
                if number in self._out:
                    self._sort(place)


def seed_of(batch: int, chunk: int, config: Config) -> tuple[int, ...]:
    """Returns the seed of everything random in a lease."""
    return config.run.seed, batch, chunk
