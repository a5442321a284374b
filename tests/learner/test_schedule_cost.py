"""What a lease costs the schedule must not depend on how many actors and leases there are."""

from __future__ import annotations

import statistics
import time
from collections import deque

from learner.schedule import Schedule
from protocol.config import Config
from tests.learner.test_schedule import answer

LEASES = 5_000  # of each measurement
REPEATS = 3


def crowd(actors: int) -> Schedule:
    """Makes a schedule with so many actors, and as many leases in a batch."""
    run = {"updates": 1_000_000, "mazes": actors, "mazes_per_lease": 1, "lease_timeout_s": 1e6}
    work = Schedule(Config.model_validate({"run": run}))
    for number in range(actors):
        work.join(number.to_bytes(4, "big"), "x", 2)
    return work


def lease_us(actors: int) -> float:
    """Handing out, expiring, answering and taking, for each lease."""
    work, now, done = crowd(actors), 0.0, 0
    queue = deque(work.hand_out(now))
    began = time.thread_time()
    while done < LEASES:
        now += 0.001
        queue.extend(work.hand_out(now))
        work.expire(now)
        actor, lease = queue.popleft()
        work.answer(actor, answer(lease), now)
        if work.batches.is_ready:
            work.batches.take()
        done += 1
    return 1e6 * (time.thread_time() - began) / LEASES


def idle_us(actors: int) -> float:
    """Looking whether there is anything to do, where all leases are out."""
    work = crowd(actors)
    list(work.hand_out(0.0))
    began = time.thread_time()
    for _ in range(LEASES):
        list(work.hand_out(0.0))
        work.expire(0.0)
    return 1e6 * (time.thread_time() - began) / LEASES


def test_the_cost_of_a_lease_does_not_grow_with_the_crowd() -> None:
    for cost in (lease_us, idle_us):
        table = {count: statistics.median(cost(count) for _ in range(REPEATS)) for count in (100, 10_000)}
        print(f"\n{cost.__name__}", "  ".join(f"{count:,} actors: {us:.1f} us" for count, us in table.items()))
        assert table[10_000] < 3 * table[100]
