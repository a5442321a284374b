"""Starts a learner and N actors on this machine, watches them, and ends them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO, Any, Self

from learner.record import Record
from protocol.config import ClewError, Config
from protocol.own import module_of
from protocol.wire.address import MAX_IPC_PATH

TICK_S = 0.2  # how often the processes are looked at where nothing else happens
LEARNER_GRACE_S = 30.0  # to finish its update and save a checkpoint: a moment, unless the machine is very busy
ACTOR_GRACE_S = 0.5  # an actor holds nothing that matters
SHORT_LIFE_S = 2.0  # an actor that lived less died at once, for it takes a second to join: the next one waits
LONGEST_PAUSE_S = 30.0  # where it ends by itself: the next will, too
LONGEST_KILLED_PAUSE_S = 1.0  # where somebody kills it: the next may get to work
LEFT_PAUSE_S = 1.0  # an actor that left unharmed was probably told that the run is over


class Fleet:
    """The processes of one run: `with Fleet(config, run_dir, actors, device) as fleet`."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        actors: int,
        device: str,
        resume: bool = False,
        metrics_port: int | None = None,
    ) -> None:
        """Starts all processes. `metrics_port` is the learner's; each actor then takes any free port."""
        self._private = private_folder()
        self._logs = Path(self._private.name)
        address = f"ipc://{self._private.name}/learner"
        path = sys.path if config.own else []  # where modules of the user's own are
        job = {
            "role": "learner",
            "path": path,
            "config": config.model_dump(mode="json"),
            "run_dir": str(run_dir),
            "bind": address,
            "device": device,
            "resume": resume,
            "metrics_port": metrics_port,
        }
        self._records: SimpleQueue[Record | None] = SimpleQueue()
        self._error = ""
        self._killed = False  # whether the learner took too long to end
        self._learner = start(job, "learner", subprocess.PIPE)
        self._listeners = [threading.Thread(target=listen, daemon=True) for listen in (self._hear, self._relay)]
        for listener in self._listeners:
            listener.start()
        actors_port = None if metrics_port is None else 0
        modules = sorted(set(map(module_of, config.own)))  # who started this process has named them
        actor = {"role": "actor", "path": path, "connect": address, "metrics_port": actors_port, "modules": modules}
        jobs = [{**actor, "name": f"actor-{number}"} for number in range(actors)]
        self._actors = [Post(job, self._logs) for job in jobs]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()
        self._private.cleanup()

    def updates(self) -> Iterator[Record | None]:
        """Yields every update as it happens, and None after every TICK_S without one; ends when the learner does."""
        while True:
            try:
                record = self._records.get(timeout=TICK_S)
            except Empty:
                yield None
            else:
                if record is None:
                    return
                yield record
            for post in self._actors:
                post.tend()

    @property
    def actors_alive(self) -> int:
        """Returns how many actors are running."""
        return sum(post.process.poll() is None for post in self._actors)

    def stop(self, in_haste: Callable[[], bool] = lambda: False) -> None:
        """Asks every process to end, and kills those that take too long, or the learner where it is `in_haste`."""
        everyone = [(post.process, ACTOR_GRACE_S) for post in self._actors]
        for process, _ in [*everyone, (self._learner, 0.0)]:
            process.terminate()
        self._killed |= end(self._learner, LEARNER_GRACE_S, in_haste)
        for process, grace_s in everyone:
            end(process, grace_s)
        for listener in self._listeners:
            listener.join()

    def raise_for_failure(self) -> None:
        """Raises what ended the learner, unless it ended well."""
        code = self._learner.wait()
        if self._error:
            raise ClewError(self._error)
        if code not in (0, -signal.SIGTERM):  # the latter: stopped before it had begun
            how = "took too long to end and was killed" if self._killed else f"died ({ending(code)})"
            raise LearnerError(f"the learner {how}; go on from its last checkpoint with --resume")

    def _hear(self) -> None:
        """Reads what the learner's process tells its parent, until it ends."""
        assert self._learner.stdout
        with self._learner.stdout as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # it was killed while it spoke
                try:
                    self._records.put(Record.of(line))
                except ValueError:
                    self._error = json.loads(line)["error"]
        self._records.put(None)

    def _relay(self) -> None:
        """Prints what the learner writes to standard error, until it ends."""
        assert self._learner.stderr
        with self._learner.stderr as lines:
            for line in lines:
                with suppress(OSError):  # where nobody reads it, the learner can still write
                    print(line, end="", file=sys.stderr, flush=True)


class LearnerError(Exception):
    """The learner failed of something that the user cannot mend: a bug, a signal, or too little memory."""


def private_folder() -> tempfile.TemporaryDirectory[str]:
    """Makes a directory for sockets and logs that nobody else may enter; ClewError where there is no place for it."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="clew-")
    except OSError as error:
        raise ClewError(f"cannot make a temporary directory: {error.strerror}; set TMPDIR to one with room") from None
    over = len(os.fsencode(f"{folder.name}/learner")) - MAX_IPC_PATH
    if over > 0:
        folder.cleanup()
        place = tempfile.gettempdir()
        longest = len(os.fsencode(place)) - over
        raise ClewError(
            f"{place} is too long a path for sockets in it; set TMPDIR to one of {longest} bytes at most, such as /tmp"
        )
    return folder


class Post:
    """The place of an actor. An actor that dies is replaced, at once at first, then after growing pauses."""

    def __init__(self, job: dict[str, Any], logs: Path) -> None:
        self._job = job
        self._log = logs / f"{job['name']}.log"
        self._pause_s = 0.0
        self._due: float | None = None  # when the next one starts, where the last one died
        self._fill()

    def _fill(self) -> None:
        """Starts an actor."""
        self._due, self._began = None, time.monotonic()
        with self._log.open("w") as errors:
            self.process = start(self._job, self._log.stem, errors)

    def tend(self) -> None:
        """Notices that the actor has died, and starts the next one when its time has come."""
        if self.process.poll() is None:
            return
        now = time.monotonic()
        if self._due is None:
            self._report()
            short = now - self._began < SHORT_LIFE_S
            longest_s = LONGEST_PAUSE_S if self.process.returncode >= 0 else LONGEST_KILLED_PAUSE_S
            self._pause_s = min(longest_s, 2 * self._pause_s or 0.5) if short else 0.0
            self._due = now + max(self._pause_s, 0.0 if self.process.returncode else LEFT_PAUSE_S)
        if now >= self._due:
            end(self.process, 0.0)
            self._fill()

    def _report(self) -> None:
        """Prints why the actor died, if it did."""
        if self.process.returncode:
            said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            how = f"{self._log.stem} died ({ending(self.process.returncode)}: {said[-1]})"
            with suppress(OSError):
                print(f"{how}; another takes its place", file=sys.stderr, flush=True)


def start(job: dict[str, Any], name: str, errors: int | IO[str]) -> subprocess.Popen[str]:
    """Starts a process with `job`, in a session of its own, so that Ctrl-C reaches the parent alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.process.child", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if job["role"] == "learner" else subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        text=True,
        errors="replace",  # what a child says may be in another encoding than this process expects
    )
    assert process.stdin
    with suppress(BrokenPipeError):  # it is dead already, which `Post` and `Fleet` will notice
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()  # and stays open: its closing tells the child that its parent is gone
    return process


def end(process: subprocess.Popen[str], grace_s: float, in_haste: Callable[[], bool] = lambda: False) -> bool:
    """Waits for `process`, kills it after `grace_s`, and returns whether that was needed."""
    deadline = time.monotonic() + grace_s
    while process.poll() is None and time.monotonic() < deadline and not in_haste():
        with suppress(subprocess.TimeoutExpired):
            process.wait(min(TICK_S, grace_s))
    killed = process.poll() is None
    if killed:
        process.kill()
        process.wait()
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.close()
    return killed


def ending(code: int) -> str:
    """Says how a process ended."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
