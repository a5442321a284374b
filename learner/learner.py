"""The learner: turns meta-batches into updates of theta. Its clerk deals with the actors."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import secrets
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from learner.answers import MetaBatch
from learner.ascent import Ascent, Floats
from learner.checkpoint import Checkpoint, beginning, save
from learner.clerk import Clerk, Standing
from learner.device import repeat_exactly
from learner.journal import Journal
from learner.lock import Lock
from learner.metrics import LearnerMetrics, Live
from learner.outer import Gradient, meta_gradient
from learner.parallel import Team
from learner.record import Record, finite
from learner.rehearsal import rehearse
from learner.stages import Batch
from protocol import own
from protocol.config import ClewError, Config
from protocol.learning.inner import initial_theta, unflatten
from protocol.wire.frames import Limits
from protocol.wire.keys import LearnerKeys
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import Bye

POLL_S = 0.1  # between two looks at `should_exit`
REMEDIES = {  # by why something cannot be written
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "let this user write there"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the number of open files, `ulimit -n`"),
    errno.ENOENT: "make that directory again",
    errno.EIO: "look to the disk",
}

log = logging.getLogger("clew")


class Learner:
    """One run: waits for a meta-batch, takes a step, again. Actors are its clerk's business.

    It has more methods than other classes: its life in steps, and what Prometheus asks from other threads.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        bind: str,
        device: torch.device,
        resume: bool = False,
        keys: LearnerKeys | None = None,
        on_update: Callable[[Record], None] | None = None,
        team: Team | None = None,
        metrics_hosts: Sequence[str] = (),
    ) -> None:
        """Takes the address and the run directory; begins afresh, or where the checkpoint says."""
        self.should_exit = False
        self._config, self._run_dir, self._device = config, run_dir, device
        self._on_update = on_update or (lambda record: None)
        self._team = team
        own.require(config)
        self.metrics = LearnerMetrics(self._now)

        rehearse(config, device)
        with ExitStack() as undo:
            links = LearnerLinks(bind, Limits.of(config), keys)
            undo.callback(links.close)
            self._lock = Lock(run_dir)
            undo.callback(self._lock.close)
            checkpoint = beginning(run_dir, config, resume) or fresh(config)
            self._journal = Journal(run_dir, checkpoint.update)
            undo.pop_all()
        self._address = links.address
        self.run_id, self._version, self._thetas = checkpoint.run, checkpoint.update, checkpoint.thetas
        moments = checkpoint.mean, checkpoint.square, checkpoint.steps
        self._ascent = Ascent(checkpoint.theta, *moments, config, device)
        observe = self.metrics.observe
        self._clerk = Clerk(config, links, self.run_id, self._version, self._thetas, observe, metrics_hosts)
        self.trail = self._clerk.trail
        self._batch: int | None = None  # the meta-batch of the last update
        self._saved = checkpoint.update if resume else -1
        self._saved_at = math.nan  # a monotonic time

        # Since the start, if nothing else is said.
        self._refusals = {"gradient": 0, "checkpoint": 0}  # what the clerk knows nothing of; never another key
        self._totals = dict.fromkeys(("updates", "attempts", "steps"), 0)
        self._record: Record | None = None  # of the last update
        self._phase_s: defaultdict[str, float] = defaultdict(float)  # time by phase since the last update
        self._decoding_s = 0.0  # of the clerk, up to the last update
        self._updated_at = time.monotonic()

    def run(self) -> None:
        """Lives the learner's whole life."""
        try:
            self._begin()
            while not self.should_exit:
                self.step()
            if error := self._save():
                raise ClewError(
                    f"update {self._version} could not be saved in {self._run_dir}: {error.strerror}; "
                    "mend that, then go on with --resume"
                )
        finally:
            self.shutdown()

    def _begin(self) -> None:
        """Writes a checkpoint before the first update: whatever happens from now on, the run can be resumed."""
        new = self._saved != self._version
        if error := self._save():
            raise ClewError(f"cannot write to {self._run_dir}: {error.strerror}; choose another --run-dir")
        self._clerk.start()
        what = "begins a run" if new else f"resumes the run after update {self._version}"
        log.info("%s in %s", what, self._run_dir)
        log.info("listening on %s", self._address)

    def stop(self, number: int, frame: object) -> None:
        """Handles a signal: the learner ends after its update."""
        self.should_exit = True

    def step(self) -> None:
        """Makes one update, or waits a short time for what it needs."""
        with self._timed("waiting"):
            batch = self._clerk.next_batch(POLL_S)
        if batch:
            self._update(batch)
        elif self._team:
            self._team.beat()
        if self._version == self._config.run.updates:
            self.should_exit = True

    def shutdown(self) -> None:
        """Tells every actor whether to wait for a next learner."""
        done = self._version == self._config.run.updates
        self._clerk.close(Bye("over", "the run is over") if done else Bye("retry", "the learner stops"))
        self._journal.close()
        self._lock.close()

    # Updates

    def _update(self, batch: MetaBatch) -> None:
        """Makes one step of theta. Whoever waits for it gets it before anything is written down."""
        self._batch = self._version
        with self._timed("gradient"):
            gradient = self._gradient(batch)
            if not self._ascent.step(gradient.vector, self._version):
                self._refusals["gradient"] += 1
            theta = self._ascent.theta.cpu().numpy().copy()
        with self._timed("publishing"):
            self._version += 1
            oldest = max(0, self._version - self._config.run.lag)  # that a lease may still name
            kept = {version: former for version, former in self._thetas.items() if version >= oldest}
            self._thetas = {**kept, self._version: theta}
            self._clerk.publish(self._thetas)
        record = self._record = self._describe(batch, gradient, theta)
        for name, more in {"updates": 1, "attempts": record.attempts, "steps": record.steps}.items():
            self._totals[name] += more
        if error := self._journal.append(record):
            self._cannot_write(error)
        if self._version % self._config.run.checkpoint_every == 0 and (error := self._save()):
            self._cannot_write(error)
        self._on_update(record)

    def _gradient(self, batch: MetaBatch) -> Gradient:
        """Computes the meta-gradient, alone or with the other processes of this learner."""
        if self._team:
            return self._team.gradient(self._ascent.theta, batch.parts, batch.replays)
        data = Batch.of(batch.replays, self._config, self._device)
        return meta_gradient(self._ascent.theta, data, self._config)

    def _describe(self, batch: MetaBatch, gradient: Gradient, theta: Floats) -> Record:
        """Makes the update's line in updates.jsonl."""
        parts, now = batch.parts, time.monotonic()
        seconds, self._updated_at = now - self._updated_at, now
        phase_s, self._phase_s = self._phase_s, defaultdict(float)
        clerk = self._clerk.standing
        decoding_s, self._decoding_s = clerk.decoding_s - self._decoding_s, clerk.decoding_s
        actor_s = {name: sum(part.seconds.get(name, 0.0) for part in parts) for name in parts[0].seconds}
        return Record(
            update=self._version,
            theta_sha256=hashlib.sha256(theta.tobytes()).hexdigest(),
            **finite(vars(gradient.figures)),
            steps=sum(len(stage.move) for part in parts for stage in part.stages),
            attempts=sum(stage.length.size for part in parts for stage in part.stages),
            seconds=seconds,
            lag=self._version - 1 - parts[0].version,
            actors=clerk.actors,
            phase_s=dict(phase_s),
            decoding_s=decoding_s,
            actor_s=finite(actor_s),
            leases=clerk.leases["issued"],
            expired=clerk.leases["expired"],
            refusals=self._all_refusals(clerk),
        )

    def _save(self) -> OSError | None:
        """Makes a checkpoint of where the run is; returns why that failed, if it did, and then the former one stays."""
        if self._saved == self._version:
            return None
        moments = self._ascent.mean.cpu().numpy(), self._ascent.square.cpu().numpy(), self._ascent.steps
        checkpoint = Checkpoint(self._version, self.run_id, self._config, self._thetas, *moments)
        try:
            with self._timed("checkpoint"):
                self._journal.sync()
                save(self._run_dir, checkpoint)
            self._saved, self._saved_at = self._version, time.monotonic()
        except OSError as error:
            return error
        return None

    def _all_refusals(self, clerk: Standing) -> dict[str, int]:
        """Returns the number of refusals, by reason, of this session."""
        return {reason: count for reason, count in {**clerk.refusals, **self._refusals}.items() if count}

    def _cannot_write(self, error: OSError) -> None:
        """Counts a failed write, and logs the 1st, 2nd, 4th, 8th … of them. It stops no training."""
        self._refusals["checkpoint"] += 1
        count = self._refusals["checkpoint"]
        if count & (count - 1) == 0:
            remedy = REMEDIES.get(error.errno or 0, "see to it")
            log.error("cannot write to %s: %s; %s, training goes on", self._run_dir, error.strerror, remedy)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self._phase_s[phase] += seconds
        self.metrics.observe(phase, seconds)
        if phase != "waiting" and self._batch is not None:
            self.trail.worked(phase, self._batch, seconds)

    # For Prometheus, from other threads

    @property
    def is_ready(self) -> bool:
        """Says whether the learner listens, and works on what comes."""
        return self._clerk.is_alive

    @property
    def targets(self) -> list[str]:
        """Returns HOST:PORT of the metrics of every actor that serves them."""
        return list(self._clerk.standing.targets)

    def _now(self) -> Live:
        clerk, thetas = self._clerk.standing, self._thetas
        version = max(thetas)
        named = unflatten(thetas[version], self._config)
        sizes = {name: value for name, value in named.items() if name.startswith("step_size.")}
        return Live(
            version=version,
            planned=self._config.run.updates,
            actors=clerk.actors,
            leases_out=clerk.leases_out,
            leases_missing=clerk.leases_missing,
            batches_waiting=clerk.batches_waiting,
            leases=clerk.leases,
            refusals=self._all_refusals(clerk),
            bytes=clerk.bytes,
            checkpoint_age_s=time.monotonic() - self._saved_at,
            theta_norm=float(np.linalg.norm(thetas[version])),
            step_sizes={name.partition(".")[2]: float(value.mean()) for name, value in sizes.items()},
            record=self._record,
            totals=dict(self._totals),
        )


def live(learner: Learner) -> None:
    """Runs a learner until its updates are done, or SIGINT or SIGTERM comes."""
    repeat_exactly()
    signal.signal(signal.SIGINT, learner.stop)
    signal.signal(signal.SIGTERM, learner.stop)
    learner.run()


def fresh(config: Config) -> Checkpoint:
    """Returns the checkpoint that a new run begins at."""
    theta = initial_theta(config)
    nothing = np.zeros_like(theta)
    return Checkpoint(0, secrets.token_hex(8), config, {0: theta}, nothing, nothing, steps=0)
