"""The crew: the actors as the schedule sees them, and in which order the free among them get work.

Who answers comes first. An actor is trusted with its word once an answer of it has counted, until it lets a deadline
pass or says Hello again. A lease costs the same whatever the number of actors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field

from protocol.wire.messages import MAX_CAPACITY

Actor = bytes  # as the work link names it
Place = tuple[int, int]  # batch, chunk


@dataclass
class Worker:
    """An actor, as the schedule sees it."""

    name: str
    capacity: int  # leases that it may hold
    held: dict[int, Place] = field(default_factory=dict)  # by issue
    took_s: float = 0.0  # from handing out to its last answer
    overdue: bool = False  # let a deadline pass: gets nothing more until it answers or says Hello
    is_trusted: bool = False  # has answered since its Hello, and let no deadline pass since


class Crew:
    """The actors that are there."""

    def __init__(self) -> None:
        self.workers: dict[Actor, Worker] = {}
        # Those who may get a lease: of the trusted, then of the others, by leases held, and in order. A plain dict
        # would step over all that have left it to find its first.
        self._free: list[OrderedDict[Actor, None]] = [OrderedDict() for _ in range(2 * MAX_CAPACITY)]

    def join(self, actor: Actor, name: str, capacity: int) -> None:
        """Adds an actor with empty hands."""
        self.workers[actor] = Worker(name, capacity)
        self._seat(actor)

    def leave(self, actor: Actor) -> Worker:
        """Removes an actor that is there, and returns what was known of it."""
        self._unseat(actor)
        return self.workers.pop(actor)

    def hold(self, actor: Actor, number: int, place: Place) -> None:
        """Notes that the actor holds this lease."""
        self._unseat(actor)
        self.workers[actor].held[number] = place
        self._seat(actor)

    def release(self, actor: Actor, number: int, took_s: float) -> None:
        """Notes that the actor has answered this lease, `took_s` seconds after it was handed out."""
        worker = self.workers[actor]
        self._unseat(actor)
        del worker.held[number]
        worker.took_s, worker.overdue = took_s, False
        self._seat(actor)

    def is_trusted(self, actor: Actor) -> bool:
        """Says whether the actor is there, and trusted with its word."""
        return actor in self.workers and self.workers[actor].is_trusted

    def trust(self, actor: Actor, is_trusted: bool, overdue: bool = False) -> bool:
        """Trusts an actor, or no more; says whether that is news. An overdue one gets no lease until it answers."""
        worker = self.workers[actor]
        was_trusted = worker.is_trusted
        self._unseat(actor)
        worker.is_trusted, worker.overdue = is_trusted, overdue
        self._seat(actor)
        return was_trusted != is_trusted

    def first_free(self) -> Actor | None:
        """Returns who gets the next lease: the trusted first, the least busy first."""
        return _first(self._free)

    def second(self) -> Actor | None:
        """Returns who works on what nobody trusted has: a trusted actor that is free, else who has nothing to do."""
        return _first([*self._free[:MAX_CAPACITY], self._free[MAX_CAPACITY]])

    def first_free_but(self, holders: Container[Actor], trusted: bool) -> Actor | None:
        """Returns the first free actor that is none of `holders`; `trusted`: only those who are."""
        free = self._free[:MAX_CAPACITY] if trusted else self._free
        return next((actor for actors in free for actor in actors if actor not in holders), None)

    @property
    def takers(self) -> int:
        """Returns how many take leases: the doctor only looks in."""
        return sum(worker.capacity > 0 for worker in self.workers.values())

    @property
    def idle(self) -> list[Actor]:
        """Returns the actors that nothing is expected of: nobody else would notice if they were gone."""
        return [actor for actor, worker in self.workers.items() if not worker.held or worker.overdue]

    def _seat(self, actor: Actor) -> None:
        """Puts an actor that is free behind those who are as trusted and hold as many leases."""
        worker = self.workers[actor]
        if not worker.overdue and len(worker.held) < worker.capacity:
            self._free[_rank(worker)][actor] = None

    def _unseat(self, actor: Actor) -> None:
        worker = self.workers[actor]
        if len(worker.held) < MAX_CAPACITY:
            self._free[_rank(worker)].pop(actor, None)


def _rank(worker: Worker) -> int:
    """Returns where among the free an actor is: the lowest rank comes first."""
    return len(worker.held) + (0 if worker.is_trusted else MAX_CAPACITY)


def _first(free: list[OrderedDict[Actor, None]]) -> Actor | None:
    return next((next(iter(actors)) for actors in free if actors), None)
