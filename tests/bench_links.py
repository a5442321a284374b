"""Measures what the links and the clerk bear without the learner's mathematics: `python -m tests.bench_links [ACTORS]`.

A real clerk over real sockets runs in one process; all simulated actors, 1,000 if not said otherwise, in another, which
answers every lease with the same recorded rollouts. First the actors only listen, for memory and the way of theta; then
they work. It takes two minutes, and prints one JSON object.
"""

from __future__ import annotations

import json
import math
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import zmq

from deploy.command import keys as keyring
from deploy.process.heap import keep_freed_memory
from deploy.process.versions import context
from learner.clerk import Clerk
from protocol.config import ClewError, Config
from protocol.wire.address import Address
from protocol.wire.frames import ACTOR_LIMITS, Limits, decode, encode
from protocol.wire.keys import ActorKeys, LearnerKeys
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import CONTRACT, Bye, Hello, Lease, Rollouts, Theta, Welcome
from protocol.wire.sockets import ACTOR_THETA, ACTOR_WORK, new_socket, send_all

THETA = 16_384  # parameters: 64 KiB
MAZES = 18  # of a lease: rollouts of about 20 kB
PUBLISHED = 40  # versions whose way is timed
WARM_UP = 500  # leases before the clock starts
WINDOWS, WINDOW_S = 5, 2.0
FILES = 200  # open beside the actors' connections
SETTLE_S = 3.0  # for connections to be made
LOST_S = 2.0  # after which a version did not reach everybody
PATIENCE_S = 120.0
Figures = dict[str, Any]


def bench(actors: int) -> Figures:
    """Measures without keys and with them."""
    with TemporaryDirectory(prefix="clew-bench-") as folder:
        with redirect_stdout(StringIO()):
            keyring.new(Path(folder) / "keys")
        keys = str(Path(folder) / "keys")
        return {
            "actors": actors,
            "lease_bytes": sum(map(len, encode(recorded()))),
            "theta_bytes": THETA * 4,
            "plain": {**measure("listen", actors, None), **measure("work", actors, None)},
            "curve": {**measure("listen", actors, keys), **measure("work", actors, keys)},
        }


def measure(what: str, actors: int, keys: str | None) -> Figures:
    """Runs the learner's side in a process of its own, so that its memory is its own."""
    job = json.dumps([what, actors, keys])
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench_links", "learner", job],
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    if done.returncode:
        sys.exit(done.returncode)  # it has printed why
    figures: Figures = json.loads(done.stdout)
    return figures


def config_of(leases: int, lag: int = 1) -> Config:
    """Makes a config of leases of about 20 kB, so many to a batch, of which lag + 1 batches are open at a time."""
    run = {"mazes": MAZES * leases, "mazes_per_lease": MAZES, "lag": lag}
    # An audit would find that rollouts which were recorded once are not what each lease asks for.
    endless = {"updates": 10**9, "lease_timeout_s": PATIENCE_S, "audit": 0.0}
    maze = {"family": "perfect", "side": 9}
    return Config.model_validate({"maze": maze, "inner": {"steps": 1}, "outer": {"attempts": 3}, "run": run | endless})


def recorded() -> Rollouts:
    """Returns what answers every lease. The learner checks the rules of the mazes, not where they come from."""
    from actors.actor import work_on
    from protocol.learning.inner import initial_theta

    config = config_of(1)
    return work_on(Lease(0, 0, 0, 0, (0, 0, 0), PATIENCE_S), initial_theta(config), config)


# The learner's side


def learner(what: str, actors: int, keys: str | None) -> Figures:
    """Measures a clerk while the actors "listen" or "work"."""
    keep_freed_memory()
    allow_open_files(2 * actors + FILES)
    listens = what == "listen"
    config = config_of(1) if listens else config_of(500, lag=7)
    mine = LearnerKeys.of(Path(keys) / "learner") if keys else None
    links = LearnerLinks("tcp://127.0.0.1:*", Limits.of(config), mine)
    theta = np.zeros(THETA, np.float32)
    clerk = Clerk(config, links, "bench", 0, {0: theta})
    clerk.start()
    job = json.dumps([what, actors, keys, str(links.address)])
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.bench_links", "actors", job]
    crowd = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    published: list[float] = []  # when each version was, from 1

    def learn() -> None:
        """Instead of a learner: every batch is an update at once."""
        while crowd.poll() is None:
            if clerk.next_batch(0.1):
                version = len(published) + 1
                published.append(time.monotonic())
                clerk.publish(dict.fromkeys(range(max(0, version - config.run.lag), version + 1), theta))

    assert crowd.stdin
    assert crowd.stdout
    empty = resident_bytes()
    try:
        if listens:
            crowd.stdout.readline()
            idle = (resident_bytes() - empty) / actors
            crowd.stdin.write("\n")
            crowd.stdin.flush()
            threading.Thread(target=learn).start()
            arrived = {int(version): when for version, when in json.loads(crowd.stdout.readline()).items()}
            waits = sorted(when - published[version - 1] for version, when in arrived.items())
            return {
                "idle_actor_bytes": idle,
                "theta_p50_s": statistics.median(waits),
                "theta_p99_s": waits[math.ceil(0.99 * len(waits)) - 1],
            }
        threading.Thread(target=learn).start()
        return working(clerk)
    finally:
        crowd.kill()
        crowd.wait()
        clerk.close(Bye("over", "the benchmark is over"))


def working(clerk: Clerk) -> Figures:
    """Measures what answered leases cost, in windows of time."""
    lease_bytes = sum(map(len, encode(recorded())))
    deadline = time.monotonic() + PATIENCE_S
    while clerk.standing.bytes["received"] < WARM_UP * lease_bytes:
        if not clerk.is_alive or time.monotonic() > deadline:
            raise ClewError("the simulated actors did not get to work in time; try fewer")
        time.sleep(0.1)
    leases_per_s, cpu_s = [], []
    for _ in range(WINDOWS):
        began, used_s, received = time.monotonic(), time.process_time(), clerk.standing.bytes["received"]
        time.sleep(WINDOW_S)
        leases = (clerk.standing.bytes["received"] - received) / lease_bytes
        leases_per_s.append(leases / (time.monotonic() - began))
        cpu_s.append((time.process_time() - used_s) / leases)
    return {
        "leases_per_s": statistics.median(leases_per_s),
        "windows": leases_per_s,
        "rollouts_bytes_per_s": statistics.median(leases_per_s) * lease_bytes,
        "learner_cpu_per_lease_s": statistics.median(cpu_s),
    }


def resident_bytes() -> int:
    """Returns the memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def allow_open_files(count: int) -> None:
    """Lets this process open `count` files at once, if the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise ClewError(
                f"{count} files must be open at once, but only {hard} may; run `ulimit -Hn {count}`, or try fewer"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


# The actors' side

Link = zmq.Socket[bytes]


class Crowd:
    """All actors in one thread, each with connections of its own."""

    def __init__(self, actors: int, keys: str | None, connect: str) -> None:
        allow_open_files(4 * actors + FILES)
        self._actors, self._address = actors, Address.of(connect)
        self._keys = ActorKeys.of(Path(keys) / "actor") if keys else None
        self._context: zmq.Context[Link] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 2 * actors + 10)
        self._poller = zmq.Poller()
        self._links = [self._link(zmq.DEALER, ACTOR_WORK) for _ in range(actors)]
        self._heard: Counter[int] = Counter()  # actors that have a version
        header, *self._arrays = encode(recorded())
        self._kind, self._fields, self._declared = msgpack.unpackb(header)
        self._leases: deque[tuple[Link, Lease]] = deque()

    def work(self) -> None:
        """Answers leases until the process is killed."""
        self._join(capacity=2)
        while True:
            self._hear(0.1)
            while self._leases:
                self._answer()

    def listen(self) -> None:
        """Prints when all are there; then when each version has reached the last of them."""
        self._join(capacity=0)
        print("all are there", flush=True)
        sys.stdin.readline()
        self._links[0].send_multipart(encode(Hello(CONTRACT, "simulated", 1, "")))
        arrived: dict[int, float] = {}
        due = 0.0
        while len(arrived) < PUBLISHED:
            self._hear(0.01)
            newest = max(self._heard, default=0)
            complete = self._heard[newest] == self._actors
            if complete:
                arrived.setdefault(newest, time.monotonic())
            if self._leases and (complete or time.monotonic() > due):
                due = time.monotonic() + LOST_S
                self._answer()
        print(json.dumps(arrived), flush=True)
        sys.stdin.readline()

    def _join(self, capacity: int) -> None:
        """Makes all actors say Hello and follow theta."""
        for link in self._links:
            link.connect(str(self._address))
            link.send_multipart(encode(Hello(CONTRACT, "simulated", capacity, "")))
        self._port = 0
        while not self._port:
            self._hear(0.1)
        for _ in range(self._actors):
            theta = self._link(zmq.SUB, ACTOR_THETA)
            theta.setsockopt(zmq.SUBSCRIBE, b"")
            theta.connect(str(self._address.theta(self._port)))
        settled = time.monotonic() + SETTLE_S
        while time.monotonic() < settled:
            self._hear(0.1)

    def _link(self, kind: int, queue: tuple[int, int]) -> Link:
        link = new_socket(self._context, kind, self._address, ACTOR_LIMITS.frame_bytes, queue, self._keys)
        self._poller.register(link, zmq.POLLIN)
        return link

    def _hear(self, timeout_s: float) -> None:
        for link, _ in self._poller.poll(int(1000 * timeout_s)):
            for frames in waiting(link):
                match decode(frames, ACTOR_LIMITS):
                    case Lease() as lease:
                        self._leases.append((link, lease))
                    case Theta(version=version):
                        self._heard[version] += 1
                    case Welcome(theta_port=port):
                        self._port = port

    def _answer(self) -> None:
        """Sends what `encode` would make, but the arrays, which are always the same, are encoded once."""
        link, lease = self._leases.popleft()
        at = {name: getattr(lease, name) for name in ("batch", "chunk", "issue", "version")}
        send_all(link, [msgpack.packb((self._kind, {**self._fields, **at}, self._declared)), *self._arrays])


def waiting(link: Link) -> Iterator[list[bytes]]:
    """Yields the messages that have come."""
    with suppress(zmq.Again):
        while True:
            yield link.recv_multipart(zmq.NOBLOCK)


def main(role: str = "1000", job: str = "") -> None:
    """Prints the figures for a number of actors; or does the job of one of the processes that this takes."""
    try:
        if role == "learner":
            print(json.dumps(learner(*json.loads(job))))
        elif role == "actors":
            what, *given = json.loads(job)
            getattr(Crowd(*given), what)()
        else:
            print(json.dumps({**context(), **bench(int(role))}))
    except ClewError as error:
        print(f"clew: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
