"""Every chunk of every batch counts once, whatever the actors do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from learner.schedule import DOUBTED, PATIENCE, Schedule
from protocol.config import Config
from protocol.wire.messages import Lease, Rollouts
from protocol.world.maze import Mazes

NOTHING = Mazes(np.zeros((1, 1, 1), np.bool_), np.zeros(1, np.int32), np.zeros(1, np.int32))
FIRST_ISSUE = 1_000
TIMEOUT_S = 10.0


def schedule(
    updates: int = 5, chunks: int = 3, lag: int = 1, version: int = 0, timeout_s: float = TIMEOUT_S
) -> Schedule:
    run = {
        "updates": updates,
        "mazes": chunks,
        "mazes_per_lease": 1,
        "lag": lag,
        "seed": 7,
        "lease_timeout_s": timeout_s,
    }
    return Schedule(Config.model_validate({"run": run}), version, FIRST_ISSUE)


def answer(lease: Lease) -> Rollouts:
    return Rollouts(lease.batch, lease.chunk, lease.issue, lease.version, {}, NOTHING, ())


def leases(work: Schedule, now: float = 0.0) -> list[tuple[bytes, Lease]]:
    return list(work.hand_out(now))


def finish(work: Schedule, actor: bytes = b"a") -> list[Rollouts]:
    """One update, all by one actor that is there already."""
    while not work.batches.is_ready:
        for _, lease in leases(work):
            assert work.answer(actor, answer(lease), 0.0) is None
    return work.batches.take()


def test_leases_go_out_in_order_and_only_for_open_batches() -> None:
    work = schedule(chunks=2, lag=1)
    work.join(b"a", "a", 16)
    assert [(lease.batch, lease.chunk, lease.version) for _, lease in leases(work)] == [
        (0, 0, 0),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 0),
    ]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_batch_runs_under_theta_of_lag_updates_ago(lag: int) -> None:
    work = schedule(lag=lag, updates=8)
    work.join(b"a", "a", 2)
    for version in range(8):
        assert {part.version for part in finish(work)} == {max(0, version - lag)}
    assert work.batches.is_done
    assert not leases(work)


def test_seeds_depend_on_run_batch_and_chunk_alone() -> None:
    one, other = schedule(), schedule()
    one.join(b"a", "a", 1)
    for actor in (b"b", b"c", b"d"):
        other.join(actor, "x", 2)
    finish(one)
    seeds = {(lease.batch, lease.chunk): lease.seed for _, lease in leases(other)}
    assert seeds[0, 2] == (7, 0, 2)
    assert len(set(seeds.values())) == len(seeds)


def test_rollouts_are_taken_in_order_of_their_chunks() -> None:
    work = schedule(chunks=3)
    work.join(b"a", "a", 3)
    for _, lease in reversed(leases(work)):
        work.answer(b"a", answer(lease), 0.0)
    assert [part.chunk for part in work.batches.take()] == [0, 1, 2]


def test_the_least_busy_actor_gets_the_next_lease() -> None:
    work = schedule(chunks=4)
    for actor in (b"a", b"b"):
        work.join(actor, "x", 2)
    assert [actor for actor, _ in leases(work)] == [b"a", b"b", b"a", b"b"]


def test_an_actor_that_only_looks_gets_nothing() -> None:
    work = schedule()
    work.join(b"looks", "looks", 0)
    assert not leases(work)


def test_only_the_first_answer_counts() -> None:
    work = schedule()
    work.join(b"a", "a", 1)
    [(_, lease)] = leases(work)
    assert work.answer(b"a", answer(lease), 0.0) is None
    assert work.answer(b"a", answer(lease), 0.0) == "duplicate"


def test_an_answer_from_somebody_else_does_not_count() -> None:
    work = schedule()
    work.join(b"a", "a", 1)
    [(_, lease)] = leases(work)
    assert work.answer(b"b", answer(lease), 0.0) == "stranger"
    work.join(b"b", "b", 1)
    assert work.answer(b"b", answer(lease), 0.0) == "late"
    forged = Rollouts(lease.batch, lease.chunk + 1, lease.issue, lease.version, {}, NOTHING, ())
    assert work.answer(b"a", forged, 0.0) == "unknown"
    unissued = Rollouts(lease.batch, lease.chunk, FIRST_ISSUE - 1, lease.version, {}, NOTHING, ())
    assert work.answer(b"a", unissued, 0.0) == "unknown"
    assert work.answer(b"a", answer(lease), 0.0) is None


def test_a_lease_goes_to_another_when_its_deadline_passes_and_the_first_answer_counts() -> None:
    work = schedule()
    work.join(b"slow", "slow", 1)
    [(_, old)] = leases(work, now=0.0)
    work.join(b"quick", "quick", 1)
    assert work.expire(TIMEOUT_S - 0.1) == 0
    assert work.expire(TIMEOUT_S) == 1
    [(actor, new)] = leases(work, now=TIMEOUT_S)
    assert (actor, new.chunk) == (b"quick", old.chunk)
    assert new.issue != old.issue
    assert work.answer(b"slow", answer(old), 0.0) is None
    assert work.answer(b"quick", answer(new), 0.0) == "duplicate"


def test_a_late_answer_spares_the_lease_that_was_to_go_out_again() -> None:
    work = schedule(chunks=1, lag=0, updates=1)
    work.join(b"slow", "slow", 1)
    [(_, old)] = leases(work)
    work.expire(TIMEOUT_S)
    assert work.answer(b"slow", answer(old), 0.0) is None
    assert not leases(work, now=TIMEOUT_S)
    assert work.batches.is_ready


def test_an_actor_that_let_a_deadline_pass_gets_nothing_until_it_is_heard_of() -> None:
    work = schedule()
    work.join(b"stuck", "stuck", 2)
    [(_, one), (_, _)] = leases(work)
    work.expire(TIMEOUT_S)
    assert not leases(work, now=TIMEOUT_S)
    work.answer(b"stuck", answer(one), 0.0)
    assert leases(work, now=TIMEOUT_S)


def test_what_an_actor_held_when_it_left_goes_out_first() -> None:
    work = schedule(chunks=2)
    work.join(b"a", "a", 1)
    [(_, lost)] = leases(work)
    work.join(b"b", "b", 2)
    work.leave(b"a")
    assert [lease.chunk for _, lease in leases(work)] == [lost.chunk, 1]


def test_an_actor_that_says_hello_again_holds_nothing() -> None:
    work = schedule(chunks=1)
    work.join(b"a", "a", 1)
    [(_, old)] = leases(work)
    work.join(b"a", "a", 1)
    [(_, new)] = leases(work)
    assert (new.batch, new.chunk) == (old.batch, old.chunk)
    assert work.answer(b"a", answer(old), 0.0) == "late"
    assert work.answer(b"a", answer(new), 0.0) is None


def test_the_next_update_waits_for_those_who_hold_its_leases() -> None:
    work = schedule(chunks=1)
    work.join(b"a", "a", 1)
    work.join(b"b", "b", 1)
    assert [lease.batch for _, lease in leases(work)] == [0, 1]
    work.join(b"idle", "idle", 1)
    assert work.holders == [b"a"]


def trusted(work: Schedule, *actors: bytes) -> None:
    """Actors that have answered a lease each, and with that the next update."""
    for actor in actors:
        work.join(actor, "trusted", 1)
    for actor, lease in leases(work):
        work.answer(actor, answer(lease), now=1.0)
    work.batches.take()


def test_a_straggler_is_overtaken_by_an_idle_actor_and_the_first_answer_counts() -> None:
    work = schedule(chunks=2, lag=0)
    trusted(work, b"slow", b"quick")
    [(_, slow), (_, quick)] = leases(work, now=0.0)
    work.answer(b"quick", answer(quick), now=1.0)  # so that one second is usual
    assert not leases(work, now=1.0 + PATIENCE * 0.5)
    [(actor, copy)] = leases(work, now=PATIENCE + 0.1)
    assert (actor, copy.chunk) == (b"quick", slow.chunk)
    work.join(b"idle", "idle", 1)
    assert not leases(work, now=9.0)  # two copies are enough
    assert work.answer(b"quick", answer(copy), now=3.0) is None
    assert work.answer(b"slow", answer(slow), now=9.0) == "duplicate"
    assert (work.doubled, work.batches.reissued, work.out) == (1, 0, 0)


def test_who_has_never_answered_is_overtaken_at_once_and_only_by_who_has() -> None:
    work = schedule(chunks=2, lag=0)
    work.join(b"never", "never", 1)
    work.join(b"honest", "honest", 1)
    [(_, kept), (_, lease)] = leases(work)
    assert work.answer(b"honest", answer(lease), now=1.0) is None
    [(actor, copy)] = leases(work, now=1.0)
    assert (actor, copy.chunk) == (b"honest", kept.chunk)
    work.join(b"new", "new", 1)
    assert not leases(work, now=1.0)
    work.leave(b"honest")  # now there is nobody trusted, and whoever has nothing to do may try
    [(actor, again)] = leases(work, now=1.0)
    assert (actor, again.chunk) == (b"new", kept.chunk)


def test_where_nobody_has_answered_yet_everybody_may_work_on_what_others_hold() -> None:
    work = schedule(chunks=1, lag=0)
    for number in range(20):
        work.join(b"liar %d" % number, "liar", 2)
    assert len(leases(work)) == 20
    work.join(b"honest", "honest", 1)
    [(_, lease)] = leases(work)
    assert work.answer(b"honest", answer(lease), now=1.0) is None


def test_whoever_lets_a_deadline_pass_or_says_hello_again_comes_last() -> None:
    work = schedule(chunks=2, lag=0)
    trusted(work, b"a", b"b")
    work.join(b"a", "a", 1)
    [(first, _), (second, _)] = leases(work)
    assert (first, second) == (b"b", b"a")
    work.expire(TIMEOUT_S)
    work.join(b"new", "new", 1)
    work.join(b"b", "b", 1)
    assert [actor for actor, _ in leases(work, now=TIMEOUT_S)] == [b"new", b"b"]  # all alike: in order


def test_a_crowd_that_takes_leases_and_never_answers_holds_up_nobody() -> None:
    alone, _ = updates_per_s([1.0] * 2, chunks=6, updates=100)
    crowded, _ = updates_per_s([1.0] * 2 + [np.inf] * 24, chunks=6, updates=100, hello_s=5.0)
    print(f"{crowded / alone:.2f} of the updates without them")
    assert crowded >= 0.9 * alone


def test_a_chunk_whose_second_copy_is_out_goes_to_nobody_else() -> None:
    work = schedule(chunks=2, lag=0)
    work.join(b"slow", "slow", 1)
    work.join(b"quick", "quick", 1)
    [(_, slow), (_, quick)] = leases(work)
    work.answer(b"quick", answer(quick), now=1.0)
    [(_, copy)] = leases(work, now=3.0)
    work.leave(b"slow")
    work.join(b"new", "new", 1)
    assert not leases(work, now=3.0)
    work.leave(b"quick")
    [(_, again)] = leases(work, now=3.0)
    assert slow.chunk == copy.chunk == again.chunk
    assert work.batches.reissued == 1


def test_what_a_slow_actor_holds_is_overtaken_at_once_and_before_older_leases() -> None:
    work = schedule(chunks=13, lag=0)
    work.join(b"slow", "slow", 1)
    work.join(b"quick", "quick", 1)
    [(_, first), (_, lease)] = leases(work, now=0.0)
    for now in range(1, 11):
        work.answer(b"quick", answer(lease), float(now))
        if now < 10:
            [(_, lease)] = leases(work, float(now))
    work.answer(b"slow", answer(first), 10.0)
    (older, mine), (newer, slow) = leases(work, 10.0)
    assert (older, newer, mine.chunk < slow.chunk) == (b"quick", b"slow", True)
    work.join(b"idle", "idle", 1)
    [(_, copy)] = leases(work, 10.0)
    assert copy.chunk == slow.chunk


TICK_S = 0.1  # how often the clerk looks where nothing comes


def updates_per_s(
    times_s: list[float], chunks: int, updates: int = 400, hello_s: float = np.inf
) -> tuple[float, float]:
    """What actors that take so long for a lease, give or take a fifth, bring about, by a simulated clock; and the
    share of leases that went out twice. Those that take for ever say Hello again after `hello_s`."""
    due = hello_s
    work, now, rng = schedule(updates, chunks, timeout_s=1e3), 0.0, np.random.default_rng(0)
    queues: list[list[Lease]] = [[] for _ in times_s]
    until = [np.inf] * len(times_s)
    for number in range(len(times_s)):
        work.join(bytes([number]), "x", 2)
    while not work.batches.is_done:
        if now >= due:
            due += hello_s
            for number in np.flatnonzero(np.isinf(times_s)).tolist():
                work.join(bytes([number]), "x", 2)
        for actor, lease in work.hand_out(now):
            queues[actor[0]].append(lease)
        for number, queue in enumerate(queues):
            if queue and until[number] == np.inf:
                until[number] = now + times_s[number] * rng.uniform(0.8, 1.2)
        number = int(np.argmin(until))
        if until[number] > now + TICK_S:
            now += TICK_S
            continue
        now, until[number] = until[number], np.inf
        work.answer(bytes([number]), answer(queues[number].pop(0)), now)
        while work.batches.is_ready:
            work.batches.take()
    return updates / now, work.doubled / work.issued


@pytest.mark.parametrize("chunks", [4, 8, 28])
def test_one_slow_actor_among_eight_costs_less_than_a_tenth(chunks: int) -> None:
    seven, _ = updates_per_s([1.0] * 7, chunks)
    all_eight, _ = updates_per_s([1.0] * 7 + [10.0], chunks)
    print(f"{chunks} leases a batch: {all_eight / seven:.2f} of seven")
    assert all_eight >= 0.9 * seven


def test_hardly_any_lease_is_doubled_where_all_are_equally_quick() -> None:
    _, doubled = updates_per_s([1.0] * 8, chunks=28)
    assert doubled < 0.03


class AnyActors(RuleBasedStateMachine):
    """Actors join, answer, dawdle, lie, leave; in the end each chunk has counted once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.work = schedule(updates=3, chunks=2)
        self.now = 0.0
        self.out: list[tuple[bytes, Lease]] = []
        self.taken: list[tuple[int, int]] = []

    @rule(number=st.integers(0, 3), capacity=st.integers(0, 3))
    def join(self, number: int, capacity: int) -> None:
        self.work.join(bytes([number]), "x", capacity)

    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        self.work.leave(bytes([number]))

    @rule()
    def hand_out(self) -> None:
        self.out += self.work.hand_out(self.now)

    @rule(after=st.floats(0, 2 * TIMEOUT_S))
    def wait(self, after: float) -> None:
        self.now += after
        self.work.expire(self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        actor, lease = data.draw(st.sampled_from(self.out))
        self.work.answer(actor, answer(lease), self.now)
        if self.work.batches.is_ready:
            self.taken += [(part.batch, part.chunk) for part in self.work.batches.take()]

    @invariant()
    def nobody_holds_too_much(self) -> None:
        assert all(len(worker.held) <= worker.capacity for worker in self.work.crew.workers.values())

    @invariant()
    def no_chunk_is_out_too_often(self) -> None:
        held = [number for worker in self.work.crew.workers.values() for number in worker.held]
        assert self.work.out <= len(held)
        copies = [len(numbers) for numbers in self.work._copies.values()]
        assert max(copies, default=0) <= DOUBTED + 2
        assert sum(copies) <= self.work.out

    def teardown(self) -> None:
        for actor in list(self.work.crew.workers):
            self.work.leave(actor)
        self.work.join(b"last", "last", 2)
        while not self.work.batches.is_done:
            self.taken += [(part.batch, part.chunk) for part in finish(self.work, b"last")]
        assert self.taken == [(batch, chunk) for batch in range(3) for chunk in range(2)]


AnyActors.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyActors = AnyActors.TestCase
