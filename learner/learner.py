"""The learner: gives out leases, turns their answers into updates of theta, and never trusts a message."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from learner.admission import AdmissionError, admit, join
from learner.ascent import Ascent, Floats
from learner.checkpoint import Checkpoint, beginning, save
from learner.journal import Journal, Record
from learner.outer import Batch, Gradient, meta_gradient
from learner.schedule import Actor, Schedule
from protocol.config import ClewError, Config
from protocol.inner import initial_theta
from protocol.links import Frames, LearnerLinks
from protocol.messages import CONTRACT, Bye, Fetch, Hello, Ping, Rollouts, Theta, Welcome
from protocol.states import StateTable
from protocol.wire import Limits, WireError, decode, encode

POLL_S = 0.1  # the longest wait for a message
MESSAGES_PER_STEP = 1_000  # heard before deadlines are looked at again
PING_S = 0.2  # between two pings to those whom the next update waits for, while the wait is short
LONGEST_PING_S = 5.0  # the same, while it is long: whoever works for minutes must not be buried in pings
IDLE_PING_S = 1.0  # between two pings to those who hold nothing
PING = encode(Ping())
DIVERGED_AFTER = 20  # answers in a row that are not finite


class Learner:
    """One run. Single-threaded: hear what came, judge deadlines, hand out leases, update, again."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        bind: str,
        device: torch.device,
        resume: bool = False,
        on_update: Callable[[Record], None] | None = None,
    ) -> None:
        self.should_exit = False
        self._config, self._run_dir, self._device = config, run_dir, device
        self._bind, self._resume = bind, resume
        self._on_update = on_update or (lambda record: None)
        self._limits = Limits.of(config)
        self._refusals: Counter[str] = Counter()  # by reason, since the start
        self._tables: dict[int, StateTable] = {}  # of the mazes of answers that count, by issue
        self._expired = 0  # leases, since the start
        self._not_finite = 0  # answers in a row
        self._phase_s: defaultdict[str, float] = defaultdict(float)  # time by phase since the last update
        self._updated_at = self._ping_due = self._idle_ping_due = time.monotonic()

    def run(self) -> None:
        """The whole life."""
        self.startup()
        try:
            while not self.should_exit:
                self.step()
            self.shutdown()
        finally:
            self._links.close()
            self._journal.close()

    def startup(self) -> None:
        """Takes the address and the run directory; begins afresh, or where the checkpoint says."""
        checkpoint = beginning(self._run_dir, self._config, self._resume) or self._fresh()
        self._links = LearnerLinks(self._bind, self._limits)
        try:
            self._journal = Journal(self._run_dir, checkpoint.update)
        except BaseException:
            self._links.close()
            raise
        self._saved = checkpoint.update if self._resume else -1
        self._thetas = checkpoint.thetas
        moments = checkpoint.mean, checkpoint.square, checkpoint.steps
        self._ascent = Ascent(checkpoint.theta, *moments, self._config, self._device)
        self._schedule = Schedule(self._config, checkpoint.update, first_issue=secrets.randbits(48))
        self._run = checkpoint.run
        session = secrets.token_hex(8)
        welcome = Welcome(self._run, session, self._config.model_dump_json(), self._links.theta_port)
        self._welcome = encode(welcome)
        complain(f"listening on {self._links.address}")

    def step(self) -> None:
        """What came is heard before any deadline is judged: the last step may have taken seconds."""
        self._hear_all()
        now = time.monotonic()
        self._expired += self._schedule.expire(now)
        self._ping(now)
        self._hand_out()
        if self._schedule.is_ready:
            self._update()
        if self._schedule.is_done:
            self.should_exit = True

    def shutdown(self) -> None:
        """Saves, and tells every actor whether to wait for a next learner."""
        self._save()
        done = self._schedule.is_done
        bye = Bye("over", "the run is over") if done else Bye("retry", "the learner stops; it may come back")
        for actor in self._schedule.workers:
            self._links.send(actor, encode(bye))

    # Messages

    def _hear_all(self) -> None:
        """Waits for a message, unless there is something to do, and hears all that are there."""
        timeout_s = 0.0 if self._schedule.is_ready else POLL_S
        for _ in range(MESSAGES_PER_STEP):
            with self._timed("waiting"):
                received = self._links.receive(timeout_s)
            if received is None:
                return
            with self._timed("decoding"):
                self._hear(*received)
            timeout_s = 0.0

    def _hear(self, actor: Actor, frames: Frames) -> None:
        try:
            message = decode(frames, self._limits)
        except WireError as error:
            self._refusals[error.reason] += 1
            return
        match message:
            case Hello():
                self._meet(actor, message)
            case Rollouts():
                self._take(actor, message)
            case Fetch():
                self._serve(actor, message.version)
            case Bye():
                self._schedule.leave(actor)
            case _:
                self._refusals["kind"] += 1

    def _meet(self, actor: Actor, hello: Hello) -> None:
        if hello.contract != CONTRACT:
            self._refusals["contract"] += 1
            reason = "the learner runs another version of clew; install the same one on both sides"
            self._links.send(actor, encode(Bye("refused", reason)))
        elif self._links.send(actor, self._welcome):
            self._schedule.join(actor, hello.actor, hello.capacity)

    def _take(self, actor: Actor, rollouts: Rollouts) -> None:
        reason: str | None
        try:
            table = admit(rollouts, self._config)
        except AdmissionError as refused:
            reason = str(refused)
            self._dismiss(actor, reason)
        else:
            reason = self._schedule.answer(actor, rollouts)
            if reason is None:
                self._tables[rollouts.issue] = table
            elif reason == "stranger":
                self._dismiss(actor, reason)
            else:
                self._refusals[reason] += 1
        self._watch_for_divergence(reason)

    def _serve(self, actor: Actor, version: int) -> None:
        if actor not in self._schedule.workers:
            self._dismiss(actor, "stranger")
        elif version not in self._thetas:
            self._dismiss(actor, "version")
        else:
            self._links.send(actor, encode(Theta(version, self._thetas[version])))

    def _dismiss(self, actor: Actor, reason: str) -> None:
        """Counts a refusal; the actor is asked to start over, and what it held goes to others."""
        self._refusals[reason] += 1
        self._schedule.leave(actor)
        self._links.send(actor, encode(Bye("retry", reason)))

    def _watch_for_divergence(self, reason: str | None) -> None:
        """Ends a run in which no actor can produce anything finite any more."""
        self._not_finite = self._not_finite + 1 if reason == "not_finite" else self._not_finite * bool(reason)
        if self._not_finite >= DIVERGED_AFTER:
            raise ClewError(
                f"training has diverged: policies are not finite at update {self._schedule.version}; "
                "lower outer.learning_rate or inner.step_size and start anew"
            )

    # Leases

    def _hand_out(self) -> None:
        for actor, lease in self._schedule.hand_out(time.monotonic()):
            if not self._links.send(actor, encode(lease)):
                self._schedule.leave(actor)

    def _ping(self, now: float) -> None:
        """Finds out who is gone, long before a deadline tells."""
        if now >= self._ping_due:
            waited_s = now - self._updated_at
            self._ping_due = now + min(max(PING_S, waited_s / 10), LONGEST_PING_S)
            self._drop_the_gone(self._schedule.holders)
        if now >= self._idle_ping_due:
            self._idle_ping_due = now + IDLE_PING_S
            self._drop_the_gone(self._schedule.idle)

    def _drop_the_gone(self, actors: list[Actor]) -> None:
        for actor in actors:
            if not self._links.send(actor, PING):
                self._schedule.leave(actor)

    # Updates

    def _update(self) -> None:
        """One step of theta. Whoever waits for it gets it, and work, before anything is written down."""
        parts = self._schedule.take()
        with self._timed("gradient"):
            table = StateTable.concatenate([self._tables.pop(part.issue) for part in parts])
            batch = Batch.of(table, join(parts), self._config, self._device)
            gradient = meta_gradient(self._ascent.theta, batch, self._config)
            if not self._ascent.step(gradient.vector, self._schedule.version - 1):
                self._refusals["gradient"] += 1
            theta = self._ascent.theta.cpu().numpy().copy()
        with self._timed("publishing"):
            self._publish(theta)
            self._hand_out()
        record = self._record(parts, gradient, theta)
        self._journal.append(record)
        if self._schedule.version % self._config.run.checkpoint_every == 0:
            self._save()
        self._on_update(record)

    def _publish(self, theta: Floats) -> None:
        version, oldest = self._schedule.version, self._schedule.oldest_version
        self._thetas = {old: kept for old, kept in self._thetas.items() if old >= oldest} | {version: theta}
        self._links.publish(encode(Theta(version, theta)))

    def _record(self, parts: list[Rollouts], gradient: Gradient, theta: Floats) -> Record:
        """The update's line in updates.jsonl."""
        now, version = time.monotonic(), self._schedule.version
        seconds, self._updated_at = now - self._updated_at, now
        phase_s, self._phase_s = self._phase_s, defaultdict(float)
        names = parts[0].seconds.keys()
        return {
            "update": version,
            "theta_sha256": hashlib.sha256(theta.tobytes()).hexdigest(),
            **{name: value if math.isfinite(value) else None for name, value in gradient.figures.items()},
            "steps": sum(len(stage.visits) for part in parts for stage in part.stages),
            "attempts": sum(stage.length.size for part in parts for stage in part.stages),
            "seconds": seconds,  # since the update before
            "lag": version - 1 - parts[0].version,
            "actors": len(self._schedule.workers),
            "phase_s": phase_s,  # what the learner did since the update before
            "actor_s": {
                name: sum(part.seconds.get(name, 0.0) for part in parts) for name in names
            },  # what this batch cost the actors, all together
            "leases": self._schedule.issued,  # this and what follows: since the learner's start
            "expired": self._expired,
            "refusals": dict(self._refusals),
        }

    def _save(self) -> None:
        """A checkpoint. A full disk stops no training; the former checkpoint stays."""
        if self._saved == self._schedule.version:
            return
        version, ascent = self._schedule.version, self._ascent
        moments = ascent.mean.cpu().numpy(), ascent.square.cpu().numpy(), ascent.steps
        checkpoint = Checkpoint(version, self._run, self._config, self._thetas, *moments)
        try:
            with self._timed("checkpoint"):
                self._journal.sync()
                save(self._run_dir, checkpoint)
            self._saved = version
        except OSError as error:
            self._refusals["checkpoint"] += 1
            complain(f"cannot write a checkpoint to {self._run_dir}: {error.strerror}; make room there")

    def _fresh(self) -> Checkpoint:
        """Where a new run begins."""
        theta = initial_theta(self._config)
        nothing = np.zeros_like(theta)
        return Checkpoint(0, secrets.token_hex(8), self._config, {0: theta}, nothing, nothing, steps=0)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._phase_s[phase] += time.monotonic() - began


def complain(sentence: str) -> None:
    """A line for whoever looks after the run."""
    print(sentence, file=sys.stderr, flush=True)


def run(
    config: Config,
    run_dir: Path,
    bind: str,
    device: str,
    resume: bool,
    on_update: Callable[[Record], None] | None = None,
) -> int:
    """A learner's life, until its updates are done, SIGINT or SIGTERM; its exit code."""
    torch.set_num_threads(1)  # the order of additions, and so the last bit of theta, depends on it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what follows needs it on a GPU
    torch.use_deterministic_algorithms(True, warn_only=True)
    learner = Learner(config, run_dir, bind, find_device(device), resume, on_update)

    def stop(number: int, frame: object) -> None:
        learner.should_exit = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    learner.run()
    return 0


def find_device(name: str) -> torch.device:
    """The device that `name` (auto, cpu, cuda) stands for on this machine."""
    if name not in ("auto", "cpu", "cuda"):
        raise ClewError(f"there is no device {name!r}; use auto, cpu or cuda")
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise ClewError("torch finds no CUDA device here; use --device cpu, or auto")
    return torch.device("cuda" if here and name != "cpu" else "cpu")
