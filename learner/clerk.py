"""The clerk: hears the actors, trusts nothing they say, hands out leases. In a thread of its own, which alone owns the
links and the schedule, so that neither a long gradient nor a flood of messages holds up the other.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from learner.admission import Replay
from learner.ascent import Floats
from learner.audit import SHUT_OUT, Auditor, Case, Sender, ShutOut, contradict
from learner.reception import Damper, Reception
from learner.schedule import Actor, Place, Schedule
from learner.targets import Targets
from protocol.config import Config
from protocol.wire.contract import own_contract
from protocol.wire.frames import WireError, encode
from protocol.wire.links import LearnerLinks, Received
from protocol.wire.messages import CONTRACT, Bye, Fetch, Hello, Ping, Rollouts, Theta, Welcome

POLL_S = 0.1  # the longest wait for a message
HEARING_S = 0.1  # that messages are heard, before deadlines are looked at again
PING_S = 0.2  # between two pings to those whom the next update waits for, while the wait is short
LONGEST_PING_S = 5.0  # the same, while it is long: whoever works for minutes must not be buried in pings
IDLE_PING_S = 1.0  # between two pings to those who hold nothing
PARTING_S = 5.0  # at the end of a run, for actors that are in the middle of something
SENT_AWAY = 1_000  # so many are remembered
KEYS_S = 1.0  # between two looks at who may connect
PING = encode(Ping())
ANOTHER_VERSION = encode(
    Bye("refused", "the learner runs another version of clew or numpy; install the same ones on both sides")
)

log = logging.getLogger("clew")


@dataclass(frozen=True)
class MetaBatch:
    """Everything that an update is made of, in order of the leases."""

    parts: Sequence[Rollouts]
    replays: Sequence[Replay]  # of each part, walked again


@dataclass(frozen=True)
class Filed:
    """An answer that counts: whose it is, and its attempts, walked again."""

    sender: Sender
    replay: Replay


@dataclass(frozen=True)
class Standing:
    """Where the clerk stands; counts are since its start. Made by the clerk's thread, for all others to read."""

    actors: int
    leases_out: int  # their deadlines to come
    leases_missing: int  # answers that the next update still waits for
    batches_waiting: int  # open batches whose answers are not complete
    leases: Mapping[str, int]  # issued, reissued, doubled, expired
    refusals: Mapping[str, int]  # by reason
    decoding_s: float  # spent on messages, checking included
    bytes: Mapping[str, int]  # sent, received
    targets: Sequence[str]  # HOST:PORT of the metrics of every actor that serves them


class Clerk:
    """`start()`; then for every update `next_batch()` and `publish(…)`; at last `close(bye)`."""

    def __init__(
        self,
        config: Config,
        links: LearnerLinks,
        run: str,
        version: int,
        thetas: Mapping[int, Floats],
        observe: Callable[[str, float], None] = lambda phase, seconds: None,
        metrics_hosts: Sequence[str] = (),
    ) -> None:
        """Leases begin at `version` updates done. `observe` is told how many seconds each phase of the work took.

        `metrics_hosts`: those that an actor may name for its metrics, beside the one that it is seen at.
        """
        self._schedule = Schedule(config, version, first_issue=secrets.randbits(48))
        self._reception = Reception(config, observe)
        self._config, self._links, self._thetas = config, links, thetas
        self._run = run
        self._session = secrets.token_hex(8)
        self._auditor, self._shut_out = Auditor(config, links.wake), ShutOut()
        self._filed: dict[Place, Filed] = {}  # of the open batches
        self._sent_away: deque[Actor] = deque(maxlen=SENT_AWAY)  # asked to start over, and perhaps not back yet
        self._targets = Targets(links.is_ipc, metrics_hosts)
        self._arrivals, self._expiries = Damper(), Damper()
        self._computing = False  # whether the learner has a batch, and theta is to come
        self._updated_at = self._ping_due = self._idle_ping_due = self._keys_due = time.monotonic()
        self._batches: SimpleQueue[MetaBatch | BaseException] = SimpleQueue()
        self._published: SimpleQueue[Mapping[int, Floats]] = SimpleQueue()
        self._bye: Bye | None = None
        self.standing = self._stand()
        self._thread = threading.Thread(target=self._live, name="clerk", daemon=True)

    # What the learner asks of it, from another thread

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def next_batch(self, timeout_s: float) -> MetaBatch | None:
        """What the next update is made of, if it is complete in time; raises what ended the clerk."""
        try:
            batch = self._batches.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def publish(self, thetas: Mapping[int, Floats]) -> None:
        """The update of the last batch is done. `thetas`: all that leases may name from now on, the newest included."""
        self._published.put(thetas)
        self._links.wake()

    def close(self, bye: Bye) -> None:
        """Tells every actor, and ends."""
        self._bye = bye
        self._links.wake()
        if self._thread.ident:
            self._thread.join()
        self._links.close()

    # Its life

    def _live(self) -> None:
        try:
            while not self._bye:
                self._step()
            self._part(self._bye)
        except BaseException as error:
            self._batches.put(error)

    def _step(self) -> None:
        """What came is heard before any deadline is judged."""
        self._hear_all()
        self._hear_verdicts()
        now = time.monotonic()
        if expired := self._schedule.expire(now):
            self._expiries.log(logging.WARNING, "leases not answered in time go to others", leases=expired)
        self._watch_the_door(now)
        self._ping(now)
        self._advance()
        self._hand_out()
        self.standing = self._stand()

    def _part(self, bye: Bye) -> None:
        """Tells every actor; where the run is over, hears them out, and tells whoever else speaks. A connection that is
        closed on what nobody has read is reset, which can take the last word away: an actor that misses it would wait
        for a learner for ever.
        """
        told = {*self._schedule.workers, *self._sent_away}
        staying = {actor for actor in told if self._links.send(actor, encode(bye))}
        deadline = time.monotonic() + PARTING_S
        while bye.verdict == "over" and (left_s := deadline - time.monotonic()) > 0:
            if received := self._links.receive(left_s if staying else 0.0):
                actor = received.actor
                with suppress(WireError):
                    if isinstance(self._reception.decode(received), Bye):
                        staying.discard(actor)
                    elif actor not in told and self._links.send(actor, encode(bye)):
                        staying.add(actor)
                    told.add(actor)
            elif not staying:
                break

    def _advance(self) -> None:
        """Publishes theta when it is there; gives the learner the next batch when that is complete."""
        if self._computing and self._has_news:
            self._thetas = self._published.get()
            self._links.publish(encode(Theta(self._schedule.version + 1, self._thetas[self._schedule.version + 1])))
            self._filed = {place: filed for place, filed in self._filed.items() if place[0] > self._schedule.version}
            self._schedule.take()
            self._computing, self._updated_at = False, time.monotonic()
        if not self._computing and self._has_news:
            parts = self._schedule.answers
            self.standing = self._stand()  # as the learner finds it when it has the batch
            self._batches.put(MetaBatch(parts, [self._filed[part.batch, part.chunk].replay for part in parts]))
            self._computing = True

    @property
    def _has_news(self) -> bool:
        """Whether somebody waits for `_advance`: the actors for theta, or the learner for a batch."""
        if self._computing:
            return not self._published.empty()
        return self._schedule.is_ready and self._auditor.is_done_with(self._schedule.version)

    def _stand(self) -> Standing:
        schedule, reception, links = self._schedule, self._reception, self._links
        return Standing(
            actors=schedule.actors,
            leases_out=schedule.out,
            leases_missing=schedule.missing,
            batches_waiting=schedule.batches_waiting,
            leases={name: getattr(schedule, name) for name in ("issued", "reissued", "doubled", "expired")},
            refusals=dict(reception.refusals),
            decoding_s=reception.seconds,
            bytes={"sent": links.sent_bytes, "received": links.received_bytes},
            targets=self._targets.listed,
        )

    # Messages

    def _hear_all(self) -> None:
        """Waits for a message or for theta, and hears those that are there, for a while."""
        timeout_s, deadline = POLL_S, math.inf
        while time.monotonic() < deadline:
            received = self._links.receive(timeout_s)
            if received is None:
                break
            with self._reception.working():
                self._hear(received)
            if self._has_news:
                break
            if timeout_s:
                timeout_s, deadline = 0.0, time.monotonic() + HEARING_S
        with self._reception.working():
            self._check()

    def _hear(self, received: Received) -> None:
        if self._sender(received.actor, received.host) in self._shut_out:
            self._turn_away(received)
            return
        try:
            message = self._reception.decode(received)
        except WireError as error:
            self._refuse(error.reason, received)
            if error.reason == "contract":
                self._links.send(received.actor, ANOTHER_VERSION)
            return
        if isinstance(message, Rollouts):
            self._take(received, message)
            return
        self._check()  # what came first counts first
        match message:
            case Hello():
                self._meet(received, message)
            case Fetch():
                self._serve(received, message.version)
            case Bye():
                self._leave(received.actor)
            case _:
                self._refuse("kind", received)

    def _meet(self, received: Received, hello: Hello) -> None:
        actor, about = received.actor, {"actor": hello.actor, "key": received.key, "host": received.host}
        if hello.contract != CONTRACT:
            self._reception.refuse("contract", **about)
            self._links.send(actor, ANOTHER_VERSION)
        elif Sender(actor, hello.actor, received.key, received.host) in self._shut_out:
            self._turn_away(received)
        elif self._links.send(actor, encode(self._welcome())):
            if actor not in self._schedule.workers:
                event = "actor joins" if hello.capacity else "somebody looks in"  # `clew doctor` takes no lease
                self._arrivals.log(logging.INFO, event, **about)
            self._schedule.join(actor, hello.actor, hello.capacity)
            self._targets.note(Sender(actor, hello.actor, received.key, received.host), hello.metrics)

    def _welcome(self) -> Welcome:
        told, port, own = self._config.model_dump_json(), self._links.theta_port, own_contract(self._config.own)
        return Welcome(self._run, self._session, told, port, self._schedule.version, time.time(), own)

    def _take(self, received: Received, rollouts: Rollouts) -> None:
        """Only what a lease asked for is worth a closer look, and that together with all others that wait for one."""
        if self._schedule.refusal(received.actor, rollouts):
            self._file(received, rollouts)
            return
        self._reception.keep(received, rollouts)
        if self._reception.is_full(self._schedule.missing):
            self._check()

    def _check(self) -> None:
        """Takes a closer look at what came."""
        for received, rollouts, verdict in self._reception.looked_at():
            if isinstance(verdict, Replay):
                self._file(received, rollouts, verdict)
            else:  # no honest actor sends such a thing, unless training has diverged
                self._auditor.examine(self._case(received, rollouts))
                self._dismiss(received, verdict)

    def _file(self, received: Received, rollouts: Rollouts, replay: Replay | None = None) -> None:
        """With the schedule. `replay`: of its attempts, where they can count and are the first to their lease."""
        first = self._schedule.first_answer(received.actor, rollouts)
        reason = self._schedule.answer(received.actor, rollouts, time.monotonic())
        if reason == "stranger":
            self._dismiss(received, reason)
        elif reason:
            self._refuse(reason, received)
        elif replay:
            self._filed[rollouts.batch, rollouts.chunk] = Filed(self._sender(received.actor, received.host), replay)
            self._auditor.consider(self._case(received, rollouts))
        if first and reason == "duplicate" and contradict(first, rollouts):
            author = self._filed[first.batch, first.chunk].sender
            self._auditor.examine(self._case(received, rollouts))
            self._auditor.examine(Case(author, first, self._thetas[first.version]))

    def _serve(self, received: Received, version: int) -> None:
        if received.actor not in self._schedule.workers:
            self._dismiss(received, "stranger")
        elif version not in self._thetas:
            self._dismiss(received, "version")
        else:
            self._links.send(received.actor, encode(Theta(version, self._thetas[version])))

    def _dismiss(self, received: Received, reason: str) -> None:
        """Counts a refusal; the actor is asked to start over, and what it held goes to others."""
        self._refuse(reason, received)
        self._leave(received.actor)
        self._links.send(received.actor, encode(Bye("retry", reason)))
        self._sent_away.append(received.actor)

    def _refuse(self, reason: str, received: Received) -> None:
        self._reception.refuse(reason, *self._sender(received.actor, received.host).about)

    # Who lies

    def _sender(self, actor: Actor, host: str = "") -> Sender:
        worker = self._schedule.workers.get(actor)
        return Sender(actor, worker.name if worker else "", self._links.key_of(actor), host)

    def _case(self, received: Received, rollouts: Rollouts) -> Case:
        return Case(self._sender(received.actor, received.host), rollouts, self._thetas[rollouts.version])

    def _hear_verdicts(self) -> None:
        """Whoever has lied is heard no more, and its answers go to others, unless an update has them already."""
        for verdict in self._auditor.verdicts():
            self._shut_out.add(verdict)
            self._reception.refuse("forged", *verdict.case.sender.about)
            liars = {actor for actor in self._schedule.workers if self._sender(actor) in self._shut_out}
            for actor in liars | {verdict.case.sender.actor}:
                self._leave(actor)
                self._links.send(actor, SHUT_OUT)
            for place, filed in list(self._filed.items()):
                if filed.sender in self._shut_out and not (self._computing and place[0] == self._schedule.version):
                    del self._filed[place]
                    self._schedule.withdraw(place)

    def _turn_away(self, received: Received) -> None:
        self._refuse("shut_out", received)
        self._links.send(received.actor, SHUT_OUT)

    # Actors

    def _hand_out(self) -> None:
        for actor, lease in self._schedule.hand_out(time.monotonic()):
            if not self._links.send(actor, encode(lease)):
                self._leave(actor)

    def _leave(self, actor: Actor) -> None:
        self._schedule.leave(actor)
        self._targets.forget(actor)

    def _watch_the_door(self, now: float) -> None:
        """Whoever's key has been revoked is out, and with it, for a moment, everybody else."""
        for host in self._links.turned_away():
            self._reception.refuse("key", host=host)
        if now < self._keys_due:
            return
        self._keys_due = now + KEYS_S
        if revoked := self._links.lock_out():
            log.warning("keys revoked: %s; all actors connect anew", ", ".join(sorted(revoked)))
            self._shut_out.let_in(revoked)
            for actor in list(self._schedule.workers):
                self._leave(actor)

    def _ping(self, now: float) -> None:
        """Finds out who is gone, long before a deadline tells."""
        if now >= self._ping_due:
            waited_s = now - self._updated_at
            self._ping_due = now + min(max(PING_S, waited_s / 10), LONGEST_PING_S)
            self._drop_the_gone(self._schedule.holders)
        if now >= self._idle_ping_due:
            self._idle_ping_due = now + IDLE_PING_S
            self._drop_the_gone(self._schedule.idle)

    def _drop_the_gone(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            if not self._links.send(actor, PING):
                self._leave(actor)
