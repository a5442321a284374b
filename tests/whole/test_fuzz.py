"""Whatever strangers, liars and broken software send: the learner counts it, and theta comes out the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest

from protocol.wire.actor_links import ActorLinks
from protocol.wire.frames import Limits, encode
from protocol.wire.messages import (
    CONTRACT,
    Bye,
    Fetch,
    Hello,
    Lease,
    Ping,
    Rollouts,
    Theta,
    Welcome,
)
from protocol.wire.sockets import Frames
from protocol.world.cells import TRAP, WALL
from tests.protocol.test_wire import packed
from tests.whole.test_processes import House, Impostor, Learner, new_house, with_run

LIES = 60  # of actors that hold the leases they answer
GROWTH = 0.05  # of resident memory, between a fifth and the whole of the messages
UPDATES = 1_000_000  # more than there will be
LONG = with_run(updates=UPDATES, checkpoint_every=1_000)
LIMITS = Limits.of(LONG)


def mutations(honest: Rollouts, rng: random.Random) -> Iterator[Frames]:
    """Messages without end, none of which may count. `honest` answers a lease that is another's."""
    frames = encode(honest)
    nan = replace(honest.stages[-1], log_prob=np.full_like(honest.stages[-1].log_prob, np.nan))
    fixed: list[Frames] = [
        [b""],
        [b"\x91" * 60_000],  # nested deeper than any parser likes
        [b"\xdd\xff\xff\xff\xff"],  # an array of 2^32 - 1 elements, none of which follows
        [b"\xc6\xff\xff\xff\xff"],
        [b"\x80" * 70_000],
        [*frames, b"more"],
        [frames[0]],
        [b"x"] * 12,
        [frames[1], frames[0]],
        [*frames[:-1], b"\xff" * (LIMITS.frame_bytes + 1)],
        encode(Ping()),
        encode(Theta(0, np.ones(3, np.float32))),
        encode(Welcome("run", "session", "{}", 1, 0, 0.0)),
        encode(Lease(0, 0, 0, 0, (1,), 1.0)),
        encode(Hello("another", "liar", 2, "")),
        [packed("Theta", {"version": 0}, [("int32", (1,))]), b"x" * 8],
        encode(replace(honest, stages=(*honest.stages[:-1], nan))),
        encode(replace(honest, issue=honest.issue + 1)),
        encode(honest),
    ]
    while True:
        broken = list(frames)
        at = rng.randrange(len(broken))
        match rng.randrange(5):
            case 0:  # cut short
                broken[at] = broken[at][: rng.randrange(len(broken[at]))]
            case 1:  # bits flipped; what is still a message answers no lease of this actor
                data = bytearray(broken[at])
                for _ in range(rng.randint(1, 8)):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                broken[at] = bytes(data)
            case 2:  # arrays of other sizes
                kind, fields, declared = msgpack.unpackb(frames[0])
                rng.shuffle(declared)
                broken[0] = packed(kind, fields, declared)
            case 3:  # noise
                broken[at] = rng.randbytes(rng.randrange(200))
            case _:
                broken = list(rng.choice(fixed))
        yield broken


def lie(honest: Rollouts, rng: random.Random) -> Rollouts:
    """An answer to a lease that is really held, whose content breaks a rule."""
    first, last = honest.stages
    mazes = honest.mazes
    nowhere = last.move.copy()
    nowhere[0] = 4  # no move at all
    return rng.choice(
        [
            replace(honest, stages=(first, replace(last, log_prob=np.full_like(last.log_prob, np.nan)))),
            replace(honest, stages=(first, replace(last, log_prob=last.log_prob[:-1]))),
            replace(honest, stages=(first, replace(last, length=last.length + np.int32(1)))),
            replace(honest, stages=(first, replace(last, length=-last.length))),
            replace(honest, stages=(first, replace(last, move=nowhere))),
            replace(honest, stages=(first, last, last)),
            replace(honest, mazes=replace(mazes, start_M=mazes.start_M - np.int32(10_000))),
            replace(honest, mazes=replace(mazes, shape_M2=mazes.shape_M2 * np.int32(2))),
            replace(honest, mazes=replace(mazes, cell_C=np.where(mazes.cell_C == WALL, TRAP, WALL).astype(np.uint8))),
            replace(honest, mazes=replace(mazes, cell_C=mazes.cell_C + np.uint8(200))),
        ]
    )


def tell_lies(house: House, learner: Learner, rng: random.Random) -> Rollouts:
    """LIES answers to leases that are held, each of another actor, for whoever lies is shut out; an honest one that
    is not given.
    """
    honest: Rollouts | None = None
    for number in range(LIES):
        listen(learner)
        liar = Impostor(house.address, capacity=1, name=f"liar {number}")
        with closing(liar.links):
            [lease] = liar.hears(Lease)
            honest = honest or liar.works(lease, LONG)
            at = {name: getattr(lease, name) for name in ("batch", "chunk", "issue", "version")}
            liar.say(replace(lie(honest, rng), **at))
            liar.say(Hello(CONTRACT, f"liar {number}", 1, ""))
            liar.hears(Welcome | Bye)  # so it has been heard
    assert honest
    return honest


def flood(house: House, learner: Learner, count: int, honest: Rollouts, rng: random.Random, known: int) -> Counter[str]:
    """Messages from a stranger, and from an actor that holds nothing; at last it asks for a theta that there is not.

    They stay until all is counted, beside the `known` that were: who leaves a busy learner takes what it has not heard.
    """
    made = mutations(honest, rng)
    looker = Impostor(house.address, capacity=0).links
    with closing(looker), closing(ActorLinks(house.address)) as stranger:
        for number in range(count - 1):
            links, frames = (looker, stranger)[number % 2], next(made)
            while not links.send(frames):
                links.receive(0.001)
            if number % 32 < 2:
                links.receive(0.0)
                listen(learner)
        while not looker.send(encode(Fetch(2**62))):
            looker.receive(0.001)
        return refusals(learner, known + count)


def listen(learner: Learner) -> None:
    """Takes what it says; it waits for that."""
    while learner.records.poll(0):
        learner.records.recv()


def resident_kib(learner: Learner) -> int:
    status = Path(f"/proc/{learner.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def refusals(learner: Learner, at_least: int) -> Counter[str]:
    """Counts refusals by reason, once there are so many; without what is found out later of those who lied."""
    while True:
        found = Counter[str](learner.until(0).refusals)
        del found["forged"], found["shut_out"]
        if found.total() >= at_least:
            return found


@contextmanager
def long_run(folder: Path) -> Iterator[tuple[House, Learner]]:
    folder.mkdir()
    with new_house(folder) as house:
        yield house, house.learner(LONG)


def stopped(house: House, learner: Learner) -> list[str]:
    """Returns the hash of theta after every update, up to now."""
    learner.process.terminate()
    with suppress(EOFError):
        while True:
            learner.records.recv()
    learner.ends()
    return [record["theta_sha256"] for record in house.journal()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("messages", [8_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_flood_of_malice_is_counted_and_changes_nothing(messages: int, tmp_path: Path) -> None:
    rng = random.Random(0)
    with long_run(tmp_path / "loud") as (house, learner):
        house.actor()
        honest = tell_lies(house, learner, rng)
        assert sum(refusals(learner, LIES).values()) == LIES
        flood(house, learner, messages // 5, honest, rng, LIES)
        early_kib = resident_kib(learner)
        found = flood(house, learner, messages - messages // 5, honest, rng, LIES + messages // 5)
        print(f"{dict(found)}, resident {early_kib} -> {resident_kib(learner)} KiB")
        assert sum(found.values()) == LIES + messages
        assert resident_kib(learner) < early_kib * (1 + GROWTH)
        loud = stopped(house, learner)
    with long_run(tmp_path / "quiet") as (house, learner):
        house.actor()
        learner.until(len(loud))
        assert stopped(house, learner)[: len(loud)] == loud
    expected = {"header", "frames", "size", "kind", "length", "layout", "contract", "fields"}
    expected |= {"stranger", "unknown", "duplicate", "version"} | {"shape", "steps", "maze", "not_finite"}
    assert expected <= set(found)
