"""The roster says who is there: it welcomes actors, finds out who has gone, and keeps out who has lied."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence

from learner.audit import SHUT_OUT, Sender, ShutOut, Verdict
from learner.crew import Actor
from learner.reception import Damper, Reception
from learner.schedule import Schedule
from learner.targets import Targets
from protocol.config import Config
from protocol.wire.contract import own_contract
from protocol.wire.frames import encode
from protocol.wire.learner_links import LearnerLinks, Received
from protocol.wire.messages import CONTRACT, Bye, Hello, Ping, Welcome

PING_S = 0.2  # between two pings to those whom the next update waits for, while the wait is short
LONGEST_PING_S = 5.0  # the same, while it is long: whoever works for minutes must not be buried in pings
IDLE_PING_S = 1.0  # between two pings to those who hold nothing
KEYS_S = 1.0  # between two looks at who may connect
SENT_AWAY = 1_000  # so many actors that were asked to start over are remembered
PING = encode(Ping())
ANOTHER_VERSION = encode(
    Bye("refused", "the learner runs another version of clew or numpy; install the same ones on both sides")
)

log = logging.getLogger("clew")


class Roster:
    """Tells the schedule who works, and Prometheus whom to ask. The clerk's thread owns it.

    It has more methods than other classes, for what an actor may do, and what may happen to it, are many things.
    """

    def __init__(
        self,
        config: Config,
        links: LearnerLinks,
        schedule: Schedule,
        reception: Reception,
        run: str,
        metrics_hosts: Sequence[str],
    ) -> None:
        """Starts with nobody there. `metrics_hosts`: see `Targets`."""
        self.targets = Targets(links.is_ipc, metrics_hosts)
        self._config, self._links, self._schedule, self._reception = config, links, schedule, reception
        self._run, self.session = run, secrets.token_hex(8)
        self._shut_out = ShutOut()
        self._sent_away: deque[Actor] = deque(maxlen=SENT_AWAY)  # they may not have said Hello again
        self._arrivals = Damper()
        self._ping_due = self._idle_ping_due = self._keys_due = time.monotonic()

    @property
    def everybody(self) -> set[Actor]:
        """Returns all who expect to hear of the end of the run."""
        return {*self._schedule.crew.workers, *self._sent_away}

    def sender(self, received: Received) -> Sender:
        """Returns who sent a message."""
        return self._sender(received.actor, received.host)

    def lets_in(self, received: Received) -> bool:
        """Says whether the sender is heard; if not, it is told why."""
        if self.sender(received) not in self._shut_out:
            return True
        self._turn_away(received)
        return False

    def meet(self, received: Received, hello: Hello) -> None:
        """Welcomes an actor, which has empty hands; or tells it why not."""
        actor, sender = received.actor, Sender(received.actor, hello.actor, received.key, received.host)
        about = {"actor": sender.name, "key": sender.key, "host": sender.host}
        if hello.contract != CONTRACT:
            self._reception.refuse("contract", **about)
            self._links.send(actor, ANOTHER_VERSION)
        elif sender in self._shut_out:
            self._turn_away(received)
        elif self._links.send(actor, encode(self._welcome())):
            if actor not in self._schedule.crew.workers:
                event = "actor joins" if hello.capacity else "somebody looks in"  # `clew doctor` takes no lease
                self._arrivals.log(logging.INFO, event, **about)
            self._schedule.join(actor, hello.actor, hello.capacity)
            self.targets.note(sender, hello.metrics)

    def leave(self, actor: Actor) -> None:
        """Forgets an actor; what it held goes to others."""
        self._schedule.leave(actor)
        self.targets.forget(actor)

    def refuse(self, received: Received, reason: str) -> None:
        """Counts a refused message under its reason, and logs who sent it."""
        self._reception.refuse(reason, *self.sender(received).about)
        if reason == "contract":
            self._links.send(received.actor, ANOTHER_VERSION)

    def dismiss(self, received: Received, reason: str) -> None:
        """Refuses a message, and sends its sender away, which may come back with Hello."""
        self.refuse(received, reason)
        self.leave(received.actor)
        self._links.send(received.actor, encode(Bye("retry", reason)))
        self._sent_away.append(received.actor)

    def start_over(self, received: Received, reason: str) -> None:
        """Refuses a message of an actor that is there, which has empty hands from now on, and stays."""
        worker = self._schedule.crew.workers[received.actor]
        self.refuse(received, reason)
        self._schedule.join(received.actor, worker.name, worker.capacity)
        self._links.send(received.actor, encode(Bye("retry", reason)))

    def shut_out(self, verdict: Verdict) -> None:
        """Keeps out whoever has lied, from now on."""
        sender = verdict.case.sender
        self._shut_out.add(verdict)
        self._reception.refuse("forged", *sender.about)
        liars = {actor for actor in self._schedule.crew.workers if self._sender(actor) in self._shut_out}
        for actor in liars | {sender.actor}:
            self.leave(actor)
            self._links.send(actor, SHUT_OUT)

    def has_shut_out(self, sender: Sender) -> bool:
        """Says whether this sender has lied."""
        return sender in self._shut_out

    def look_after(self, now: float, waited_s: float) -> None:
        """Finds out who has gone or may not be here any more. `waited_s`: how long the next update has taken so far."""
        for host in self._links.turned_away():
            self._reception.refuse("key", host=host)
        if now >= self._keys_due:
            self._keys_due = now + KEYS_S
            self._lock_out()
        if now >= self._ping_due:
            self._ping_due = now + min(max(PING_S, waited_s / 10), LONGEST_PING_S)
            self._drop_the_gone(self._schedule.holders)
        if now >= self._idle_ping_due:
            self._idle_ping_due = now + IDLE_PING_S
            self._drop_the_gone(self._schedule.crew.idle)

    def _lock_out(self) -> None:
        """Whoever's key has been revoked is out, and with it, for a moment, everybody else."""
        if revoked := self._links.lock_out():
            log.warning("keys revoked: %s; all actors connect anew", ", ".join(sorted(revoked)))
            self._shut_out.let_in(revoked)
            for actor in list(self._schedule.crew.workers):
                self.leave(actor)

    def _drop_the_gone(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            if not self._links.send(actor, PING):
                self.leave(actor)

    def _welcome(self) -> Welcome:
        told, port, own = self._config.model_dump_json(), self._links.theta_port, own_contract(self._config.own)
        return Welcome(self._run, self.session, told, port, self._schedule.batches.version, time.time(), own)

    def _turn_away(self, received: Received) -> None:
        self.refuse(received, "shut_out")
        self._links.send(received.actor, SHUT_OUT)

    def _sender(self, actor: Actor, host: str = "") -> Sender:
        worker = self._schedule.crew.workers.get(actor)
        return Sender(actor, worker.name if worker else "", self._links.key_of(actor), host)
