"""What takes minutes: `make soak`."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.config import Config
from protocol.wire.actor_links import ActorLinks
from protocol.wire.frames import ACTOR_LIMITS, decode, encode
from protocol.wire.messages import CONTRACT, Bye, Hello, Lease, Rollouts
from tests.deploy.test_cli import ENDLESS, children, first_line, records, running, wait_until
from tests.whole.test_processes import House, Impostor, new_house, with_run

pytestmark = pytest.mark.soak

CHURN_S = 600.0
SETTLED_S = 120.0  # of it, after which memory must not grow
GROWTH = 0.01
CROWD = 20  # connections at a time
MOST = 200  # the same, once
KILLING_S = 60.0
LEASE_S = 0.1  # what a quick actor of the crowd takes: so long that the learner keeps up with all of them


def held(pid: int) -> tuple[int, int]:
    """Open files and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def come_and_go(address: str, count: int, rng: random.Random) -> None:
    """A crowd joins; some take leases with them, some say goodbye, some are just gone."""
    crowd = [ActorLinks(address) for _ in range(count)]
    for links in crowd:
        links.send(encode(Hello(CONTRACT, "passer-by", rng.randint(0, 2), "127.0.0.1:9")))
    for links in crowd:
        links.receive(0.1)
        if rng.random() < 0.5:
            links.send(encode(Bye("retry", "")))
        links.close()


@pytest.mark.timeout(CHURN_S + 120)
def test_actors_that_come_and_go_for_ten_minutes_leave_nothing_behind(tmp_path: Path) -> None:
    rng = random.Random(0)
    address, run_dir = f"ipc://{tmp_path}/learner", tmp_path / "run"
    with (
        running("learner", "--bind", address, "--run-dir", "run", *ENDLESS, folder=tmp_path) as learner,
        running("actor", "--connect", address, folder=tmp_path) as actor,
    ):
        for stream in (learner.stdout, learner.stderr, actor.stdout, actor.stderr):
            threading.Thread(target=deque, args=(stream, 0), daemon=True).start()
        journal = run_dir / "updates.jsonl"
        wait_until(lambda: journal.exists() and len(records(run_dir)) > 10)
        before = held(learner.pid)
        came = MOST
        come_and_go(address, MOST, rng)  # memory is that of the largest crowd so far
        began, settled_kib, last = time.monotonic(), 0, 0
        while (passed_s := time.monotonic() - began) < CHURN_S:
            come_and_go(address, CROWD, rng)
            came += CROWD
            if passed_s > SETTLED_S and not settled_kib:
                settled_kib, last = resident_kib(learner.pid), len(records(run_dir))
        grown, now = resident_kib(learner.pid) / settled_kib - 1, len(records(run_dir))
        print(f"{came} came and went; {settled_kib} KiB, grown by {grown:.2%}; updates {last} -> {now}")
        assert now > last
        assert grown < GROWTH
        wait_until(lambda: held(learner.pid) <= before)


@pytest.mark.timeout(KILLING_S + 120)
def test_a_run_whose_actors_are_killed_every_second_goes_on(tmp_path: Path) -> None:
    rng = random.Random(0)
    timeout = ("--set", "run.lease_timeout_s=3")
    with running("train", *ENDLESS, *timeout, "--actors", 3, "--run-dir", "run", folder=tmp_path) as process:
        first_line(process.stdout, "run ")
        updates = tmp_path / "run" / "updates.jsonl"
        wait_until(lambda: updates.exists() and len(records(updates.parent)) > 5)
        for stream in (process.stdout, process.stderr):  # what it says, so that it need not wait
            threading.Thread(target=deque, args=(stream, 0), daemon=True).start()
        began = time.monotonic()
        while (passed_s := time.monotonic() - began) < KILLING_S:
            living = {name: pid for name, pid in children(process.pid).items() if name != "learner"}
            if living:
                with suppress(ProcessLookupError):
                    os.kill(living[rng.choice(sorted(living))], signal.SIGKILL)
            time.sleep(1.0 - passed_s % 1.0)
        longest_s = max(float(record["seconds"]) for record in records(updates.parent)[5:])
        print(f"{len(records(updates.parent))} updates, the longest {longest_s:.1f} s")
        assert longest_s < 3.0 + 2.0
        process.send_signal(signal.SIGINT)
        process.wait(10)


@contextmanager
def crowd(house: House, times_s: list[float], honest: Rollouts) -> Iterator[None]:
    """Actors that take so long for a lease, and answer each with the same attempts."""
    ended = threading.Event()

    def work(lease_s: float) -> None:
        leases: deque[Lease] = deque()
        with closing(ActorLinks(house.address)) as links:
            links.send(encode(Hello(CONTRACT, "worker", 2, "")))
            while not ended.is_set():
                messages = [decode(frames, ACTOR_LIMITS) for frames in links.receive(0.0 if leases else 0.05)]
                leases += [message for message in messages if isinstance(message, Lease)]
                if leases:
                    lease = leases.popleft()
                    ended.wait(lease_s)
                    at = {name: getattr(lease, name) for name in ("batch", "chunk", "issue", "version")}
                    links.send(encode(replace(honest, **at)))

    workers = [threading.Thread(target=work, args=(lease_s,)) for lease_s in times_s]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        ended.set()
        for worker in workers:
            worker.join()


def updates_per_s(folder: Path, config: Config, times_s: list[float]) -> float:
    folder.mkdir()
    with new_house(folder) as house:
        learner = house.learner(config)
        first = Impostor(house.address)
        with closing(first.links):
            honest = first.works(first.hears(Lease)[0], config)
        with crowd(house, times_s, honest):
            learner.until(20)
            began = time.monotonic()
            learner.until(80)
            return 60 / (time.monotonic() - began)


def test_one_slow_actor_among_eight_costs_less_than_a_tenth(tmp_path: Path) -> None:
    config = with_run(updates=1_000, mazes=28, mazes_per_lease=1, audit=0.0)  # it would find the crowd's answers false
    seven = updates_per_s(tmp_path / "seven", config, [LEASE_S] * 7)
    eight = updates_per_s(tmp_path / "eight", config, [LEASE_S] * 7 + [LEASE_S * 10])
    print(f"{eight / seven:.2f} of seven quick actors")
    assert eight >= 0.9 * seven
