"""Real learners and actors, real sockets: whatever happens to them, theta comes out the same, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import pytest

from actors.actor import work_on
from learner.record import Record
from protocol.config import ClewError, Config
from protocol.wire.actor_links import ActorLinks
from protocol.wire.frames import ACTOR_LIMITS, Limits, decode, encode
from protocol.wire.keys import ActorKeys
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import CONTRACT, Bye, Fetch, Hello, Lease, Message, Rollouts, Theta
from protocol.wire.sockets import Frames
from tests.parts.deadline import DEADLINE_S

UPDATES = 24
CONFIG = Config.model_validate(
    {
        "maze": {"family": "perfect", "side": 5, "min_distance": 2},
        "policy": {"hidden": 8},
        "inner": {"steps": 1},
        "outer": {"attempts": 2},
        "run": {
            "mazes": 4,
            "mazes_per_lease": 1,
            "horizon_per_cell": 1,
            "updates": UPDATES,
            "checkpoint_every": 3,
            "lease_timeout_s": 60.0,  # so that nothing is mended by a deadline, unless a test says so
        },
    }
)


def with_run(**changes: object) -> Config:
    """CONFIG with another section `run`."""
    return Config.model_validate({**CONFIG.model_dump(), "run": {**CONFIG.run.model_dump(), **changes}})


processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.parts.warm"])


def guarded(run: Callable[[], None]) -> None:
    """Does what the command line does with a process's end."""
    try:
        run()
    except ClewError as error:
        print(f"clew: {error}", file=sys.stderr)
        sys.exit(2)


def learn(config: Config, run_dir: Path, bind: str, resume: bool, out: Connection) -> None:
    from learner.device import find_device
    from learner.learner import Learner, live

    guarded(lambda: live(Learner(config, run_dir, bind, find_device("cpu"), resume, on_update=out.send)))


def act(connect: str) -> None:
    from actors.actor import Actor, live

    guarded(lambda: live(Actor(connect, "test")))


@dataclass
class House:
    """A run directory and an address, and whoever lives there."""

    run_dir: Path
    address: str
    lodgers: list[ForkServerProcess]

    def learner(self, config: Config = CONFIG, resume: bool = False) -> Learner:
        records, out = processes.Pipe(duplex=False)
        process = processes.Process(target=learn, args=(config, self.run_dir, self.address, resume, out))
        process.start()
        out.close()
        self.lodgers.append(process)
        return Learner(process, records)

    def actor(self) -> ForkServerProcess:
        process = processes.Process(target=act, args=(self.address,))
        process.start()
        self.lodgers.append(process)
        return process

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "updates.jsonl").read_text().splitlines()]

    def hashes(self, updates: int = UPDATES) -> list[str]:
        """Returns the hash of theta after every update."""
        records = self.journal()
        assert [record["update"] for record in records] == list(range(1, updates + 1))
        return [record["theta_sha256"] for record in records]


@dataclass
class Learner:
    """A learner process and what it says."""

    process: ForkServerProcess
    records: Connection

    def until(self, update: int) -> Record:
        """The record of `update`, when it has happened."""
        while self.records.poll(DEADLINE_S):
            record: Record = self.records.recv()
            if record.update >= update:
                return record
        raise AssertionError(f"update {update} did not happen in {DEADLINE_S} s")

    def ends(self, code: int = 0) -> None:
        exits(self.process, code)


def exits(process: ForkServerProcess, code: int) -> None:
    process.join(DEADLINE_S)
    assert process.exitcode == code


def send_signal(process: ForkServerProcess, number: signal.Signals) -> None:
    assert process.pid
    os.kill(process.pid, number)


@contextmanager
def new_house(folder: Path) -> Iterator[House]:
    house = House(folder / "run", f"ipc://{folder}/learner", [])
    try:
        yield house
    finally:
        for lodger in house.lodgers:
            lodger.kill()
            lodger.join()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with new_house(tmp_path) as one:
        yield one


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Theta after every update of a run that nothing happened to, with one actor."""
    with new_house(tmp_path_factory.mktemp("quiet")) as one:
        learner = one.learner()
        actor = one.actor()
        learner.ends()
        exits(actor, 0)  # told that the run is over
        return one.hashes()


class Impostor:
    """The wire by hand: an actor that does what a test says."""

    def __init__(
        self,
        address: str,
        contract: str = CONTRACT,
        capacity: int = 2,
        keys: ActorKeys | None = None,
        name: str = "impostor",
    ) -> None:
        self.links = ActorLinks(address, keys)
        self.inbox: deque[Message] = deque()  # what came and was not asked for so far
        self.say(Hello(contract, name, capacity, ""))

    def say(self, message: Message) -> None:
        self.sends(encode(message))

    def sends(self, frames: Frames) -> None:
        """A sender that is quicker than its learner waits for room."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.links.send(frames):
            assert time.monotonic() < deadline, "there was never room for a message"

    def hears(self, kind: type[Message] | UnionType, count: int = 1) -> list[Any]:
        """The next `count` messages of a kind; others before them are passed over, and what comes after them stays."""
        found: list[Message] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < count:
            assert time.monotonic() < deadline, f"no {kind} came"
            if not self.inbox:
                self.inbox.extend(decode(frames, ACTOR_LIMITS) for frames in self.links.receive(1.0))
            elif isinstance(message := self.inbox.popleft(), kind):
                found.append(message)
        return found

    def works(self, lease: Lease, config: Config) -> Rollouts:
        self.say(Fetch(lease.version))
        [theta] = self.hears(Theta)
        return work_on(lease, theta.vector, config)


@pytest.fixture
def impostor(house: House) -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(*given: Any, **named: Any) -> Impostor:
        made.append(Impostor(house.address, *given, **named))
        return made[-1]

    yield make
    for one in made:
        one.links.close()


@pytest.mark.parametrize("actors", [1, 2, 3])
def test_theta_is_the_same_with_any_number_of_actors(house: House, quiet: list[str], actors: int) -> None:
    learner = house.learner()
    team = [house.actor() for _ in range(actors)]
    learner.ends()
    assert house.hashes() == quiet
    assert len(set(quiet)) == UPDATES
    for actor in team:
        actor.terminate()  # one that came too late to be told that the run is over
        exits(actor, 0)


@pytest.mark.parametrize("kind", ["fast-weights", "recurrent"])
def test_theta_is_the_same_where_leases_differ_in_family_and_side(tmp_path: Path, kind: str) -> None:
    """And so whoever's rollouts are checked together with whose; the audit computes every answer again."""
    mixed = Config.model_validate(
        CONFIG.model_dump()
        | {
            "maze": {"family": ["perfect", "rooms", "blocks"], "side": [5, 7], "min_distance": 2, "traps": 0.05},
            "inner": {"steps": 2},
            "outer": {"attempts": 1},
            "policy": {"hidden": 8, "kind": kind, "dreams": kind != "recurrent"},
            "run": CONFIG.run.model_dump() | {"audit": 1.0, "updates": 6},
        }
    )
    found = []
    for actors in (1, 3):
        (tmp_path / str(actors)).mkdir()
        with new_house(tmp_path / str(actors)) as house:
            learner = house.learner(mixed)
            for _ in range(actors):
                house.actor()
            learner.ends()
            found.append(house.hashes(mixed.run.updates))
    assert found[0] == found[1]


def test_actors_killed_and_replaced_change_nothing(house: House, quiet: list[str]) -> None:
    learner = house.learner()
    first, _ = house.actor(), house.actor()
    for update in (2, 9, 16):
        learner.until(update)
        send_signal(first, signal.SIGKILL)
        first = house.actor()
    learner.ends()
    assert house.hashes() == quiet


def test_a_learner_that_was_stopped_goes_on_bit_for_bit(house: House, quiet: list[str]) -> None:
    house.actor()
    for update, number in ((4, signal.SIGTERM), (11, signal.SIGINT)):
        learner = house.learner(resume=update > 4)
        learner.until(update)
        send_signal(learner.process, number)
        exits(learner.process, 0)
    assert len(house.journal()) < UPDATES
    house.learner(resume=True).ends()
    assert house.hashes() == quiet


def test_a_learner_that_was_killed_goes_on_bit_for_bit_and_its_actors_live(house: House, quiet: list[str]) -> None:
    actor = house.actor()
    for update in (2, 5, 10, 17):  # before the first checkpoint, and after some
        learner = house.learner(resume=update > 2)
        learner.until(update)
        learner.process.kill()
        exits(learner.process, -signal.SIGKILL)
    house.learner(resume=True).ends()
    assert house.hashes() == quiet
    exits(actor, 0)


def test_a_lease_past_its_deadline_goes_to_others_and_a_second_answer_is_dropped(
    house: House, quiet: list[str], impostor: Callable[..., Impostor]
) -> None:
    learner = house.learner(with_run(lease_timeout_s=0.5))
    stuck = impostor()
    mine, _ = stuck.hears(Lease, 2)
    answer = stuck.works(mine, CONFIG)
    other = impostor()
    [again] = other.hears(Lease)
    while (again.batch, again.chunk) != (mine.batch, mine.chunk):  # until its deadline has passed
        other.say(Hello(CONTRACT, "other", 1, ""))
        [again] = other.hears(Lease)
    second = other.works(again, CONFIG)
    stuck.say(answer)
    stuck.say(Fetch(0))
    stuck.hears(Theta)  # so the learner has heard what came before
    other.say(second)
    other.say(Fetch(0))
    other.hears(Theta)
    for one in (stuck, other):
        one.links.close()
    house.actor()
    record = learner.until(UPDATES)
    assert record.expired >= 2
    assert record.refusals["duplicate"] == 1
    assert house.hashes() == quiet


def test_whoever_joins_late_fetches_the_theta_that_it_missed(house: House, impostor: Callable[..., Impostor]) -> None:
    learner = house.learner()
    early = house.actor()
    learner.until(5)
    send_signal(early, signal.SIGKILL)
    late = impostor()
    [lease] = late.hears(Lease)
    late.say(Fetch(lease.version))
    [theta] = late.hears(Theta)
    assert theta.version == lease.version >= 4
    late.links.close()
    house.actor()
    learner.ends()


def test_nonsense_is_counted_and_changes_nothing(
    house: House, quiet: list[str], impostor: Callable[..., Impostor]
) -> None:
    learner = house.learner()
    liar = impostor()
    [lease, other] = liar.hears(Lease, 2)
    honest = liar.works(lease, CONFIG)
    for frames in ([b"\xc1"], [b""], [b"\x91" * 1_000], encode(honest)[:-1]):
        liar.sends(frames)
    liar.say(Theta(0, np.ones(3, np.float32)))
    liar.say(replace(honest, seconds={}, issue=honest.issue + 2))
    liar.say(replace(honest, chunk=lease.chunk + 1))
    last = honest.stages[-1]
    broken = replace(last, log_prob=np.full_like(last.log_prob, np.nan))
    liar.say(replace(honest, stages=(*honest.stages[:-1], broken)))
    first, second = liar.hears(Bye, 2)  # the second once it is computed again: what it says then is not even read
    assert (first.verdict, first.reason, second.verdict) == ("retry", "not_finite", "refused")
    liar.say(replace(honest, batch=other.batch, chunk=other.chunk, issue=other.issue))
    liar.hears(Bye)
    liar.links.close()
    house.actor()
    record = learner.until(UPDATES)
    assert record.refusals == {
        "header": 3,
        "kind": 1,
        "frames": 1,
        "unknown": 2,
        "not_finite": 1,
        "forged": 1,
        "shut_out": 1,
    }
    learner.ends()
    assert house.hashes() == quiet


def test_an_actor_with_another_contract_is_told_why(house: House, impostor: Callable[..., Impostor]) -> None:
    house.learner()
    [bye] = impostor("another").hears(Bye)
    assert bye.verdict == "refused"
    assert "another version" in bye.reason


def test_an_actor_that_is_not_wanted_exits_with_code_2(house: House) -> None:
    links = LearnerLinks(house.address, Limits.of(CONFIG))
    actor = house.actor()
    received = links.receive(DEADLINE_S)
    assert received
    links.send(received[0], encode(Bye("refused", "no")))
    exits(actor, 2)
    links.close()


def test_an_actor_drops_all_it_holds_when_another_learner_answers(house: House) -> None:
    other = Config.model_validate({**CONFIG.model_dump(), "run": {**CONFIG.run.model_dump(), "seed": 1}})
    house.actor()
    learner = house.learner()
    learner.until(3)
    learner.process.kill()
    learner.process.join()
    house.run_dir = house.run_dir.with_name("other")
    learner = house.learner(other)
    assert learner.until(UPDATES).refusals.keys() <= {"stranger", "unknown"}


@pytest.mark.parametrize("learner_stays", [True, False])
def test_an_actor_that_is_stopped_ends_whether_or_not_there_is_a_learner(house: House, learner_stays: bool) -> None:
    links = LearnerLinks(house.address, Limits.of(CONFIG))
    actor = house.actor()
    assert links.receive(DEADLINE_S)
    if not learner_stays:
        links.close()
    actor.terminate()
    exits(actor, 0)
    if learner_stays:
        assert last_words(links) == "retry"
        links.close()


def last_words(links: LearnerLinks) -> str:
    """The verdict of an actor's Bye, whatever it said before."""
    while received := links.receive(DEADLINE_S):
        message = decode(received.frames, Limits.of(CONFIG))
        if isinstance(message, Bye):
            return message.verdict
    raise AssertionError("no Bye came")
