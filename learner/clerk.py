"""The clerk hears the actors, trusts nothing they say, and hands out leases.

It lives in a thread of its own, which alone owns the links and the schedule, so that neither a long gradient nor a
flood of messages holds up the other.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from learner.answers import Answers, MetaBatch
from learner.ascent import Floats
from learner.reception import Damper, Reception
from learner.roster import Roster
from learner.schedule import Schedule
from learner.traces import Trail
from protocol.config import Config
from protocol.wire.frames import WireError, encode
from protocol.wire.learner_links import LearnerLinks, Received
from protocol.wire.messages import Bye, Fetch, Hello, Rollouts, Theta

POLL_S = 0.1  # the longest wait for a message
HEARING_S = 0.1  # that messages are heard, before deadlines are looked at again
PARTING_S = 5.0  # the longest, at the end of a run, for actors that are in the middle of something


@dataclass(frozen=True)
class Standing:
    """A record of where the clerk stands, made by its thread for others to read. Counts are since its start."""

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
    """Hears actors and hands out leases: `start()`; for every update `next_batch()`, `publish(…)`; then `close(bye)`.

    It has more methods than other classes: six are for the learner's thread, the others are its own life.
    """

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
        self._links = links
        self._schedule = Schedule(config, version, first_issue=secrets.randbits(48))
        self._reception = Reception(config, observe)
        self._roster = Roster(config, links, self._schedule, self._reception, run, metrics_hosts)
        self.trail = Trail(self._roster.session)
        parts = self._schedule, self._reception, self._roster, self.trail
        self._answers = Answers(config, *parts, thetas, links.wake)
        self._expiries = Damper()
        self._computing = False  # whether the learner has a batch, and theta is to come
        self._updated_at = time.monotonic()
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
        """Returns what the next update is made of, if it is complete in time; raises what ended the clerk."""
        try:
            batch = self._batches.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def publish(self, thetas: Mapping[int, Floats]) -> None:
        """Takes the last batch's update. `thetas`: all that leases may name from now on, the newest included."""
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
        """Hears what came, before any deadline is judged; then hands out what is free."""
        self._hear_all()
        self._answers.hear_the_audit(next_is_taken=self._computing)
        now = time.monotonic()
        if expired := self._schedule.expire(now):
            self._expiries.log(logging.WARNING, "leases not answered in time go to others", leases=expired)
        self._roster.look_after(now, waited_s=now - self._updated_at)
        self._advance()
        self._hand_out()
        self.standing = self._stand()

    def _part(self, bye: Bye) -> None:
        """Tells every actor; where the run is over, hears them out, and tells whoever else speaks. A connection that is
        closed on what nobody has read is reset, which can take the last word away: an actor that misses it would wait
        for a learner for ever.
        """
        told = self._roster.everybody
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
            thetas, version = self._published.get(), self._schedule.batches.version + 1
            self._links.publish(encode(Theta(version, thetas[version])))
            self._answers.update(thetas)
            self.trail.updated(version - 1)
            self._computing, self._updated_at = False, time.monotonic()
        if not self._computing and self._has_news:
            self.standing = self._stand()  # as the learner finds it when it has the batch
            self._batches.put(self._answers.next_batch())
            self._computing = True

    @property
    def _has_news(self) -> bool:
        """Says whether somebody waits for `_advance`: the actors for theta, or the learner for a batch."""
        if self._computing:
            return not self._published.empty()
        return self._answers.are_ready

    def _stand(self) -> Standing:
        schedule, reception, links = self._schedule, self._reception, self._links
        return Standing(
            actors=schedule.crew.takers,
            leases_out=schedule.out,
            leases_missing=schedule.batches.missing,
            batches_waiting=schedule.batches.waiting,
            leases={
                "issued": schedule.issued,
                "reissued": schedule.batches.reissued,
                "doubled": schedule.doubled,
                "expired": schedule.expired,
            },
            refusals=dict(reception.refusals),
            decoding_s=reception.seconds,
            bytes={"sent": links.sent_bytes, "received": links.received_bytes},
            targets=self._roster.targets.listed,
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
            self._answers.check()

    def _hear(self, received: Received) -> None:
        if not self._roster.lets_in(received):
            return
        try:
            message = self._reception.decode(received)
        except WireError as error:
            self._roster.refuse(received, error.reason)
            return
        if isinstance(message, Rollouts):
            self._answers.take(received, message)
            return
        self._answers.check()  # what came first counts first
        match message:
            case Hello():
                self._roster.meet(received, message)
            case Fetch():
                self._serve(received, message.version)
            case Bye():
                self._roster.leave(received.actor)
            case _:
                self._roster.refuse(received, "kind")

    def _serve(self, received: Received, version: int) -> None:
        if received.actor not in self._schedule.crew.workers:
            self._roster.dismiss(received, "stranger")
        elif version not in self._answers.thetas:
            self._roster.start_over(received, "version")  # it was too slow: its lease's batch is done
        else:
            self._links.send(received.actor, encode(Theta(version, self._answers.thetas[version])))

    def _hand_out(self) -> None:
        for actor, lease in self._schedule.hand_out(time.monotonic()):
            self.trail.handed_out(lease, self._schedule.crew.workers[actor].name)
            if not self._links.send(actor, encode(lease)):
                self._roster.leave(actor)
