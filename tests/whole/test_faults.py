"""Processes that are killed, stopped, or stuck: theta comes out the same, and in time."""

from __future__ import annotations

import random
import select
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from learner.checkpoint import Checkpoint, save
from protocol.learning.inner import initial_theta
from protocol.wire.frames import Limits, decode, encode
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import Bye, Fetch, Lease, Rollouts, Theta, Welcome
from tests.parts.deadline import DEADLINE_S
from tests.whole.test_processes import (
    CONFIG,
    House,
    Impostor,
    exits,
    house,
    impostor,
    new_house,
    send_signal,
    with_run,
)

__all__ = ["house", "impostor"]  # fixtures

MANY = 60  # updates
EVERY = 5  # updates between two checkpoints
TIMEOUT_S = 2.0  # of a lease
KILLS = 4
LONG = with_run(updates=MANY, checkpoint_every=EVERY, lease_timeout_s=TIMEOUT_S)


def hashes(house: House) -> list[str]:
    records = house.journal()
    assert [record["update"] for record in records] == list(range(1, MANY + 1))
    return [record["theta_sha256"] for record in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    with new_house(tmp_path_factory.mktemp("undisturbed")) as one:
        learner = one.learner(LONG)
        one.actor()
        learner.until(MANY)
        learner.ends()
        return hashes(one)


def assert_no_long_wait(house: House) -> None:
    """No update took longer than a deadline and what others took; the first waits for an actor to start."""
    taken_s = sorted(float(record["seconds"]) for record in house.journal()[1:])
    assert taken_s[-1] < TIMEOUT_S + max(2.0, 40 * taken_s[len(taken_s) // 2])


def test_no_batch_waits_for_long_where_actors_are_killed_all_the_time(house: House, undisturbed: list[str]) -> None:
    rng = random.Random(0)
    learner = house.learner(LONG)
    team = [house.actor() for _ in range(3)]
    for update in range(5, MANY - 5, 10):
        learner.until(update)
        victim = rng.randrange(len(team))
        send_signal(team[victim], signal.SIGKILL)
        team[victim] = house.actor()
    learner.until(MANY)
    learner.ends()
    assert hashes(house) == undisturbed
    assert_no_long_wait(house)


def test_what_a_frozen_actor_holds_is_with_others_by_the_deadline(house: House, undisturbed: list[str]) -> None:
    learner = house.learner(LONG)
    frozen = house.actor()
    learner.until(3)
    house.actor()
    send_signal(frozen, signal.SIGSTOP)
    learner.until(MANY - 5)
    send_signal(frozen, signal.SIGCONT)
    learner.until(MANY)
    learner.ends()
    assert hashes(house) == undisturbed
    assert_no_long_wait(house)
    frozen.terminate()  # it may have come too late to be told that the run is over
    exits(frozen, 0)


def test_an_actor_that_hangs_while_its_heartbeats_go_on_loses_its_leases_and_its_late_answer_is_dropped(
    house: House, undisturbed: list[str], impostor: Callable[..., Impostor]
) -> None:
    learner = house.learner(LONG)
    hung = impostor()  # libzmq answers pings in a thread of its own
    leases = hung.hears(Lease, 2)
    answers = [hung.works(lease, LONG) for lease in leases]
    house.actor()
    learner.until(MANY - 20)
    for answer in answers:
        hung.say(answer)
    record = learner.until(MANY)
    learner.ends()
    assert record.refusals == {"duplicate": 2}
    assert hashes(house) == undisturbed
    assert_no_long_wait(house)


@pytest.mark.slow
def test_a_learner_that_is_killed_again_and_again_goes_on_while_its_actors_live(
    house: House, undisturbed: list[str]
) -> None:
    rng = random.Random(1)
    team = [house.actor() for _ in range(2)]
    done = 0
    for kill in range(KILLS):
        learner = house.learner(LONG, resume=kill > 0)
        first = learner.until(0).update
        assert first > done - EVERY
        done = learner.until(first + rng.randrange(MANY // KILLS // 2)).update
        learner.process.kill()
        exits(learner.process, -signal.SIGKILL)
    learner = house.learner(LONG, resume=True)
    learner.until(MANY)
    learner.ends()
    assert hashes(house) == undisturbed
    for actor in team:
        exits(actor, 0)


def test_an_actor_in_the_midst_of_a_long_lease_ends_without_an_answer(house: House) -> None:
    config = with_run(mazes=2_000, mazes_per_lease=2_000, horizon_per_cell=40).model_copy(
        update={"inner": CONFIG.inner.model_copy(update={"attempts": 50})}
    )
    links = LearnerLinks(house.address, Limits.of(config))
    try:
        actor = house.actor()
        received = links.receive(DEADLINE_S)
        assert received
        name = received.actor
        for message in (
            Welcome("run", "session", config.model_dump_json(), 0, 0, 0.0),
            Theta(0, initial_theta(config)),
            Lease(0, 0, 0, 0, (0, 0, 0), 100.0),
        ):
            links.send(name, encode(message))
        working(actor.pid)
        actor.terminate()
        exits(actor, 0)
        heard = iter(lambda: links.receive(0.1), None)
        said = [type(decode(received.frames, Limits.of(config))) for received in heard if received]
        assert Bye in said
        assert Rollouts not in said
    finally:
        links.close()


def test_an_actor_that_was_too_slow_starts_over_and_is_there_all_the_while(
    house: House, impostor: Callable[..., Impostor]
) -> None:
    """Where others have answered its lease, the theta that it needs may be no more."""
    learner, slow = house.learner(with_run(updates=1_000_000)), impostor()
    [lease, _] = slow.hears(Lease, 2)
    house.actor()
    learner.until(5)
    slow.say(Fetch(lease.version))
    assert slow.hears(Bye)[0].verdict == "retry"
    [later] = slow.hears(Lease)  # and it did not have to say Hello
    assert later.version > lease.version
    learner.until(later.batch)
    learner.process.terminate()
    learner.ends()
    assert {record["actors"] for record in house.journal()[4:]} == {2}


def test_an_actor_whose_theta_is_of_a_later_time_asks_for_the_one_it_needs(house: House) -> None:
    """The theta of a learner that has died may be heard after its successor, which goes on from before, has begun."""
    limits = Limits.of(CONFIG)
    with closing(LearnerLinks(house.address, limits)) as links:
        actor = house.actor()
        received = links.receive(DEADLINE_S)
        assert received
        for message in (
            Welcome("run", "session", CONFIG.model_dump_json(), 0, 0, 0.0),
            Theta(9, initial_theta(CONFIG)),
            Lease(3, 0, 0, 2, (0, 3, 0), 100.0),
        ):
            links.send(received.actor, encode(message))
        received = links.receive(DEADLINE_S)
        assert received
        assert decode(received.frames, limits) == Fetch(2)
        actor.terminate()
        exits(actor, 0)


def working(pid: int | None) -> None:
    """Returns once the process has used some CPU for its lease."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11])

    before, deadline = ticks(), time.monotonic() + DEADLINE_S
    while ticks() < before + 20:  # hundredths of a second
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


def test_a_run_in_which_nothing_finite_can_come_any_more_ends(house: House) -> None:
    theta = np.full_like(initial_theta(CONFIG), 3e38)
    save(house.run_dir, Checkpoint(0, "run", CONFIG, {0: theta}, np.zeros_like(theta), np.zeros_like(theta), 0))
    learner = house.learner(resume=True)
    house.actor()
    exits(learner.process, 2)  # as the command line ends where a user can do something
