"""Whatever the network does, theta comes out the same, nothing restarts, and work goes on once it may."""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from deploy.command import keys as keyring
from protocol.wire.actor_links import ActorLinks
from protocol.wire.frames import ACTOR_LIMITS, Limits, decode, encode
from protocol.wire.keys import ActorKeys, LearnerKeys
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import CONTRACT, Bye, Fetch, Ping, Welcome
from protocol.wire.sockets import Frames
from tests.parts.deadline import DEADLINE_S
from tests.parts.proxy import Endpoint, Proxy
from tests.whole.test_processes import (
    UPDATES,
    House,
    Impostor,
    Learner,
    exits,
    new_house,
    processes,
    quiet,
)

__all__ = ["quiet"]  # a fixture

LIMITS = Limits(frame_bytes=10_000)
HERE, THERE = "127.0.0.1", "127.0.0.2"  # the learner's address, and the one where its actors find it
AT_ONCE = 3  # ports that belong together
WORKER, WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), 16
PORTS = list(range(20_000 + AT_ONCE * WORKER, 32_000, AT_ONCE * WORKERS))  # no two workers, and no two tests, have one
random.SystemRandom().shuffle(PORTS)  # nor two sessions, as a rule
PACE_S = 0.05  # each way: the quickest run is not over before its fault
GOODBYE_S = 3.0  # for an actor that knows that the run is over


@dataclass
class Links:
    """Both links of a run, as one."""

    work: Proxy
    theta: Proxy

    @property
    def both(self) -> tuple[Proxy, Proxy]:
        return self.work, self.theta

    def delay(self, delay_s: float) -> None:
        for proxy in self.both:
            proxy.delay_s = delay_s

    def trickle(self, on: bool) -> None:
        for proxy in self.both:
            proxy.trickle = on

    def stall(self) -> None:
        for proxy in self.both:
            proxy.stall()

    def resume(self) -> None:
        for proxy in self.both:
            proxy.resume()

    def reset(self) -> None:
        for proxy in self.both:
            proxy.reset()


@dataclass
class Run:
    """A learner and two actors, and what is between them."""

    house: House
    links: Links
    learner: Learner
    actors: list[ForkServerProcess]

    def ends_as(self, hashes: list[str]) -> None:
        """Checks that theta is the same after every update, and every process the one that began."""
        self.learner.ends()
        assert self.house.hashes() == hashes
        for actor in self.actors:
            actor.join(GOODBYE_S)
            if actor.is_alive():
                actor.terminate()  # it was away when the learner said that the run is over
            exits(actor, 0)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    port = free_ports()
    with new_house(tmp_path) as lodging, between(port) as links:
        links.delay(PACE_S)
        house = replace(lodging, address=f"tcp://{HERE}:{port}")
        learner = house.learner()
        until(lambda: listens((HERE, port + 1)))
        outside = replace(house, address=f"tcp://{THERE}:{port}")
        yield Run(house, links, learner, [outside.actor(), outside.actor()])


@contextmanager
def between(port: int) -> Iterator[Links]:
    """Proxies of the work link, and of the theta link next to it."""
    with ExitStack() as stack:
        work, theta = (stack.enter_context(Proxy((THERE, number), (HERE, number))) for number in (port, port + 1))
        yield Links(work, theta)


def free_ports() -> int:
    """A port that is free on both addresses, as are the next two; below those that the system gives out itself."""
    while True:
        port = PORTS.pop()
        with ExitStack() as stack, suppress(OSError):
            for place in [(host, number) for host in (HERE, THERE) for number in range(port, port + AT_ONCE)]:
                stack.enter_context(closing(socket.socket())).bind(place)
            return port


def listens(place: Endpoint) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(place) == 0


def until(happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happens():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)


def heard_by_now(learner: Learner) -> int | None:
    """The last update that has happened, where it has not been heard of before."""
    last = None
    while learner.records.poll():
        last = learner.records.recv().update
    return last


def test_a_proxy_is_late_but_no_bottleneck_and_holds_or_loses_what_it_is_told_to() -> None:
    port = free_ports()
    with (
        closing(socket.create_server((HERE, port))) as server,
        Proxy((THERE, port), (HERE, port)) as proxy,
        closing(socket.create_connection((THERE, port), DEADLINE_S)) as near,
    ):
        far, _ = server.accept()
        with closing(far), far.makefile("rb") as heard:
            proxy.delay_s = 0.2
            began = time.monotonic()
            for number in range(100):
                near.sendall(b"%d\n" % number)
                assert not select.select([far], [], [], 0.001)[0] or time.monotonic() - began >= 0.2
            sent_s = time.monotonic() - began
            assert [int(heard.readline()) for _ in range(100)] == list(range(100))
            assert time.monotonic() - began < sent_s + 10.0  # one after another they would take 20
            proxy.delay_s = 0.0
            proxy.stall()
            near.sendall(b"held\n")
            assert not select.select([far], [], [], 0.2)[0]
            proxy.resume()
            assert heard.readline() == b"held\n"
            proxy.reset()
            for end in (near, far):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
    assert proxy.connections == 1


@pytest.mark.slow
def test_a_far_away_network_only_takes_longer(run: Run, quiet: list[str]) -> None:
    run.links.delay(0.2)
    run.learner.until(UPDATES // 3)
    assert [proxy.connections for proxy in run.links.both] == [2, 2]
    run.links.delay(0.0)
    run.ends_as(quiet)


@pytest.mark.slow
def test_after_a_stall_longer_than_heartbeats_bear_work_goes_on(run: Run, quiet: list[str]) -> None:
    run.learner.until(6)
    run.links.stall()
    until(lambda: run.links.work.connections > 2)  # others have been given up
    last = heard_by_now(run.learner)
    assert last is None or last <= 8  # what was on its way; then nothing
    run.links.resume()
    assert run.learner.until(0)
    run.ends_as(quiet)


def test_lost_connections_are_made_again(run: Run, quiet: list[str]) -> None:
    for update in (4, 10, 16):
        run.learner.until(update)
        before = run.links.work.connections
        run.links.reset()
        run.learner.until(update + 3)  # at most two more have been answered already
        assert run.links.work.connections > before
    run.ends_as(quiet)


def test_whoever_talks_to_the_last_is_still_told_that_the_run_is_over(tmp_path: Path) -> None:
    with new_house(tmp_path) as lodging, ExitStack() as undo:
        house = replace(lodging, address=f"tcp://{HERE}:{free_ports()}")
        learner = house.learner()
        talking = [Impostor(house.address, CONTRACT, 0) for _ in range(3)]
        for one in talking:
            undo.callback(one.links.close)
            one.hears(Welcome)
        actor = house.actor()
        deadline = time.monotonic() + DEADLINE_S
        while talking:
            assert time.monotonic() < deadline, f"{len(talking)} were told nothing"
            for one in talking.copy():
                for _ in range(20):
                    one.links.send(encode(Ping()))
                heard = [decode(frames, ACTOR_LIMITS) for frames in one.links.receive(0.0)]
                if any(isinstance(message, Bye) and message.verdict == "over" for message in heard):
                    one.say(Bye("retry", "goodbye"))
                    talking.remove(one)
        learner.ends()
        exits(actor, 0)


def test_whoever_was_asked_to_start_over_is_still_told_that_the_run_is_over(tmp_path: Path) -> None:
    with new_house(tmp_path) as house:
        learner = house.learner()
        one = Impostor(house.address, CONTRACT, 0)
        with closing(one.links):
            one.hears(Welcome)
            one.say(Fetch(1_000_000))  # what an actor that was too slow does: that theta is no more
            assert one.hears(Bye)[0].verdict == "retry"
            actor = house.actor()
            assert one.hears(Bye)[0].verdict == "over"
            one.say(Bye("retry", "goodbye"))
            learner.ends()
            exits(actor, 0)


def test_messages_that_come_a_byte_at_a_time_are_whole(run: Run, quiet: list[str]) -> None:
    run.learner.until(4)
    run.links.trickle(True)
    run.learner.until(8)  # at most two more have been answered already
    run.links.trickle(False)
    run.ends_as(quiet)


def leave_at_once(folder: Path) -> None:
    """Actors with keys that follow theta and are gone again; then one that hears it."""
    keyring.new(folder)
    with closing(LearnerLinks(f"tcp://{HERE}:*", LIMITS, LearnerKeys.of(folder / "learner"))) as learner:
        for stays in (False, False, True):
            with closing(ActorLinks(str(learner.address), ActorKeys.of(folder / "actor"))) as actor:
                connected(actor)
                actor.follow(learner.theta_port)
                deadline = time.monotonic() + (DEADLINE_S if stays else 0.3)
                while not (heard := publish(learner, actor)) and time.monotonic() < deadline:
                    pass
        assert heard
        listen_for(learner, 1.5)  # heartbeats come every second


def connected(actor: ActorLinks) -> None:
    until(lambda: actor.receive(0.01) or actor.connection)


def publish(learner: LearnerLinks, actor: ActorLinks) -> list[Frames]:
    learner.publish([b"theta"])
    learner.receive(0.01)
    return actor.receive(0.01)


def listen_for(learner: LearnerLinks, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        learner.receive(0.1)


def flood(folder: Path) -> None:
    """An actor says more than there is room for, to a learner that is busy, and is gone."""
    with closing(LearnerLinks(f"tcp://{HERE}:*", LIMITS)) as learner:
        with closing(ActorLinks(str(learner.address))) as actor:
            connected(actor)
            sent = 0
            deadline = time.monotonic() + DEADLINE_S
            while sent < 500 and time.monotonic() < deadline:
                sent += actor.send([b"more than the learner has room for"])
        time.sleep(2.0)  # busy, while heartbeats come every second
        assert learner.receive(DEADLINE_S)


@pytest.mark.parametrize("trouble", [leave_at_once, flood])
def test_no_actor_takes_the_learner_with_it(tmp_path: Path, trouble: Callable[[Path], None]) -> None:
    process = processes.Process(target=trouble, args=(tmp_path / "keys",))
    process.start()
    exits(process, 0)
