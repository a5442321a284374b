"""The clerk: hears the actors, trusts nothing they say, hands out leases. In a thread of its own, which alone owns the
links and the schedule, so that neither a long gradient nor a flood of messages holds up the other.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from learner.admission import Replay, admit_all
from learner.ascent import Floats
from learner.schedule import Actor, Schedule
from protocol.config import ClewError, Config
from protocol.wire.address import host_port
from protocol.wire.frames import Limits, WireError, decode, encode
from protocol.wire.links import LearnerLinks, Received
from protocol.wire.messages import CONTRACT, Bye, Fetch, Hello, Ping, Rollouts, Theta, Welcome

POLL_S = 0.1  # the longest wait for a message
MESSAGES_PER_STEP = 1_000  # heard before deadlines are looked at again
# Answers are walked again together up to so many mazes, since more gain nothing, measured; and up to so many cells,
# since every attempt needs a copy of those of its maze.
MAZES_AT_ONCE, CELLS_AT_ONCE = 160, 1 << 21
PING_S = 0.2  # between two pings to those whom the next update waits for, while the wait is short
LONGEST_PING_S = 5.0  # the same, while it is long: whoever works for minutes must not be buried in pings
IDLE_PING_S = 1.0  # between two pings to those who hold nothing
PARTING_S = 1.0  # at the end of a run, for actors that are in the middle of something
SENT_AWAY = 1_000  # so many are remembered
KEYS_S = 1.0  # between two looks at who may connect
PING = encode(Ping())
ANOTHER_VERSION = encode(Bye("refused", "the learner runs another version of clew; install the same one on both sides"))
DIVERGED_AFTER = 20  # answers in a row, and a lease's time, without one that is finite
ROUTINE = ("late", "duplicate", "version", "stranger")  # refusals of who was slow, or had just gone

log = logging.getLogger("clew")


@dataclass(frozen=True)
class MetaBatch:
    """Everything that an update is made of, in order of the leases."""

    parts: Sequence[Rollouts]
    replays: Sequence[Replay]  # of each part, walked again


def answers_at_once(config: Config) -> int:
    """Answers that are walked again together."""
    walkers = max(config.inner.attempts, config.outer.attempts)
    mazes = min(MAZES_AT_ONCE, CELLS_AT_ONCE // (walkers * config.maze.most_cells))
    return max(1, mazes // config.run.mazes_per_lease)


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
    ) -> None:
        """Leases begin at `version` updates done. `observe` is told how many seconds each phase of the work took."""
        self.refusals: Counter[str] = Counter()  # by reason, since the start
        self.decoding_s = 0.0  # spent on messages, checking included, since the start
        self.schedule = Schedule(config, version, first_issue=secrets.randbits(48))
        self._config, self._links, self._thetas, self._observe = config, links, thetas, observe
        self._limits = Limits.of(config)
        self._run = run
        self._session = secrets.token_hex(8)
        self._unchecked: list[tuple[Actor, Rollouts]] = []  # answers that may count, in order
        self._at_once = answers_at_once(config)  # answers that are checked together
        self._replays: dict[int, Replay] = {}  # of the rollouts that count, by issue
        self._sent_away: deque[Actor] = deque(maxlen=SENT_AWAY)  # asked to start over, and perhaps not back yet
        self._metrics_of: dict[Actor, str] = {}  # where each actor's metrics are, if it serves any
        self._not_finite, self._finite_until = 0, 0.0  # answers in a row; when that began
        self._computing = False  # whether the learner has a batch, and theta is to come
        self._updated_at = self._ping_due = self._idle_ping_due = self._keys_due = time.monotonic()
        self._batches: SimpleQueue[MetaBatch | BaseException] = SimpleQueue()
        self._published: SimpleQueue[Mapping[int, Floats]] = SimpleQueue()
        self._bye: Bye | None = None
        self._thread = threading.Thread(target=self._live, name="clerk", daemon=True)

    # What the learner asks of it, from another thread

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def bytes(self) -> dict[str, int]:
        """On the wire so far."""
        return {"sent": self._links.sent_bytes, "received": self._links.received_bytes}

    @property
    def targets(self) -> list[str]:
        """HOST:PORT of the metrics of every actor that serves them."""
        return sorted(set(self._metrics_of.copy().values()))

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
        now = time.monotonic()
        if expired := self.schedule.expire(now):
            log.warning("%d leases not answered in time go to others", expired)
        self._watch_the_door(now)
        self._ping(now)
        self._advance()
        self._hand_out()

    def _part(self, bye: Bye) -> None:
        """Tells every actor; where the run is over, hears them out, and tells whoever else speaks. A connection that is
        closed on what nobody has read is reset, which can take the last word away: an actor that misses it would wait
        for a learner for ever.
        """
        told = {*self.schedule.workers, *self._sent_away}
        staying = {actor for actor in told if self._links.send(actor, encode(bye))}
        deadline = time.monotonic() + PARTING_S
        while bye.verdict == "over" and (left_s := deadline - time.monotonic()) > 0:
            if received := self._links.receive(left_s if staying else 0.0):
                actor = received.actor
                with suppress(WireError):
                    if isinstance(decode(received.frames, self._limits), Bye):
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
            self._links.publish(encode(Theta(self.schedule.version + 1, self._thetas[self.schedule.version + 1])))
            self.schedule.take()
            self._computing, self._updated_at = False, time.monotonic()
        if not self._computing and self._has_news:
            parts = self.schedule.answers
            self._batches.put(MetaBatch(parts, [self._replays.pop(part.issue) for part in parts]))
            self._computing = True

    @property
    def _has_news(self) -> bool:
        """Whether somebody waits for `_advance`: the actors for theta, or the learner for a batch."""
        return not self._published.empty() if self._computing else self.schedule.is_ready

    # Messages

    def _hear_all(self) -> None:
        """Waits for a message or for theta, and hears all that are there."""
        timeout_s = POLL_S
        for _ in range(MESSAGES_PER_STEP):
            received = self._links.receive(timeout_s)
            if received is None:
                break
            with self._decoding():
                self._hear(received)
            if self._has_news:
                break
            timeout_s = 0.0
        if self._unchecked:
            with self._decoding():
                self._check()

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.decoding_s += seconds
        self._observe("decoding", seconds)

    def _hear(self, received: Received) -> None:
        actor = received.actor
        try:
            message = decode(received.frames, self._limits)
        except WireError as error:
            self._refuse(error.reason)
            if error.reason == "contract":
                self._links.send(actor, ANOTHER_VERSION)
            return
        if isinstance(message, Rollouts):
            self._take(actor, message)
            return
        self._check()  # what came first counts first
        match message:
            case Hello():
                self._meet(actor, message, received.host)
            case Fetch():
                self._serve(actor, message.version)
            case Bye():
                self._leave(actor)
            case _:
                self._refuse("kind")

    def _meet(self, actor: Actor, hello: Hello, host: str) -> None:
        if hello.contract != CONTRACT:
            self._refuse("contract")
            self._links.send(actor, ANOTHER_VERSION)
        elif self._links.send(actor, encode(self._welcome())):
            if actor not in self.schedule.workers:
                event = "actor joins" if hello.capacity else "somebody looks in"  # `clew doctor` takes no lease
                log.info(event, extra={"actor": hello.actor, "host": host})
            self.schedule.join(actor, hello.actor, hello.capacity)
            if hello.metrics:
                self._metrics_of[actor] = (
                    hello.metrics if hello.metrics[0] != ":" else host_port(host or "127.0.0.1", hello.metrics[1:])
                )

    def _welcome(self) -> Welcome:
        config, port = self._config.model_dump_json(), self._links.theta_port
        return Welcome(self._run, self._session, config, port, self.schedule.version, time.time())

    def _take(self, actor: Actor, rollouts: Rollouts) -> None:
        """Only what a lease asked for is worth a closer look, and that together with all others that wait for one."""
        if self.schedule.refusal(actor, rollouts):
            self._file(actor, rollouts)
            return
        self._unchecked.append((actor, rollouts))
        if len(self._unchecked) >= min(self._at_once, self.schedule.missing or self._at_once):
            self._check()

    def _check(self) -> None:
        """Takes a closer look at what came."""
        unchecked, self._unchecked = self._unchecked, []
        verdicts = admit_all([rollouts for _, rollouts in unchecked], self._config)
        for (actor, rollouts), verdict in zip(unchecked, verdicts, strict=True):
            if isinstance(verdict, Replay):
                self._file(actor, rollouts, verdict)
            else:
                self._dismiss(actor, str(verdict))
                self._watch_for_divergence(str(verdict))

    def _file(self, actor: Actor, rollouts: Rollouts, replay: Replay | None = None) -> None:
        """With the schedule. `replay`: of its attempts, where they can count and are the first to their lease."""
        reason = self.schedule.answer(actor, rollouts, time.monotonic())
        if reason == "stranger":
            self._dismiss(actor, reason)
        elif reason:
            self._refuse(reason)
        elif replay:
            self._replays[rollouts.issue] = replay
        self._watch_for_divergence(reason)

    def _serve(self, actor: Actor, version: int) -> None:
        if actor not in self.schedule.workers:
            self._dismiss(actor, "stranger")
        elif version not in self._thetas:
            self._dismiss(actor, "version")
        else:
            self._links.send(actor, encode(Theta(version, self._thetas[version])))

    def _dismiss(self, actor: Actor, reason: str) -> None:
        """Counts a refusal; the actor is asked to start over, and what it held goes to others."""
        self._refuse(reason)
        self._leave(actor)
        self._links.send(actor, encode(Bye("retry", reason)))
        self._sent_away.append(actor)

    def _refuse(self, reason: str) -> None:
        """Counts a refusal, and says so at the 1st, 2nd, 4th, 8th … of its kind."""
        self.refusals[reason] += 1
        count = self.refusals[reason]
        if count & (count - 1) == 0:
            level = logging.DEBUG if reason in ROUTINE else logging.WARNING
            log.log(level, "message refused", extra={"reason": reason, "count": count})

    def _watch_for_divergence(self, reason: str | None) -> None:
        """Ends a run in which no actor can produce anything finite any more; a few that lie cannot end it."""
        if reason is None:
            self._not_finite = 0
        elif reason == "not_finite":
            self._not_finite += 1
            if self._not_finite == 1:
                self._finite_until = time.monotonic()
            lasting = time.monotonic() - self._finite_until >= self._config.run.lease_timeout_s
            if self._not_finite >= DIVERGED_AFTER and lasting:
                raise ClewError(
                    f"training has diverged: policies are not finite at update {self.schedule.version}; "
                    "lower outer.learning_rate or inner.cell_step_size and start anew"
                )

    # Actors

    def _hand_out(self) -> None:
        for actor, lease in self.schedule.hand_out(time.monotonic()):
            if not self._links.send(actor, encode(lease)):
                self._leave(actor)

    def _leave(self, actor: Actor) -> None:
        self.schedule.leave(actor)
        self._metrics_of.pop(actor, None)

    def _watch_the_door(self, now: float) -> None:
        """Whoever's key has been revoked is out, and with it, for a moment, everybody else."""
        if now < self._keys_due:
            return
        self._keys_due = now + KEYS_S
        if revoked := self._links.lock_out():
            log.warning("keys revoked: %s; all actors connect anew", ", ".join(sorted(revoked)))
            for actor in list(self.schedule.workers):
                self._leave(actor)
        for _ in range(self._links.turned_away - self.refusals["key"]):
            self._refuse("key")

    def _ping(self, now: float) -> None:
        """Finds out who is gone, long before a deadline tells."""
        if now >= self._ping_due:
            waited_s = now - self._updated_at
            self._ping_due = now + min(max(PING_S, waited_s / 10), LONGEST_PING_S)
            self._drop_the_gone(self.schedule.holders)
        if now >= self._idle_ping_due:
            self._idle_ping_due = now + IDLE_PING_S
            self._drop_the_gone(self.schedule.idle)

    def _drop_the_gone(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            if not self._links.send(actor, PING):
                self._leave(actor)
