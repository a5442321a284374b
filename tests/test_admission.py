"""Only what a maze's own rules allow is admitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rollout import collect
from learner.admission import AdmissionError, admit, join
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.wire.messages import Attempts, Rollouts
from protocol.world.maze import Mazes
from protocol.world.states import StateTable

CONFIG = Config.model_validate(
    {
        "maze": {"side": 5, "min_distance": 2},
        "policy": {"hidden": 8},
        "inner": {"attempts": 2},
        "run": {"mazes": 6, "mazes_per_lease": 3, "horizon": 20},
    }
)


def collected(chunk: int = 0) -> Rollouts:
    mazes, stages, seconds = collect(initial_theta(CONFIG), (0, 0, chunk), CONFIG)
    return Rollouts(0, chunk, chunk, 0, seconds, mazes, stages)


HONEST = collected()


def with_last(attempts: Attempts) -> Rollouts:
    return replace(HONEST, stages=(*HONEST.stages[:-1], attempts))


LAST = HONEST.stages[-1]


def refusal(rollouts: Rollouts, config: Config) -> str:
    (verdict,) = admit([rollouts], config)
    assert isinstance(verdict, AdmissionError)
    return str(verdict)


def admitted(answers: list[Rollouts]) -> list[StateTable]:
    verdicts = admit(answers, CONFIG)
    tables = [verdict for verdict in verdicts if isinstance(verdict, StateTable)]
    assert len(tables) == len(answers)
    return tables


def test_honest_rollouts_are_admitted() -> None:
    (table,) = admitted([HONEST])
    assert table.exit_state == LAST.log_prob.shape[1]


@settings(deadline=None)
@given(st.data())
def test_a_step_that_the_move_before_does_not_lead_to_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(LAST.visits) - 1))
    visits = LAST.visits.copy()
    visits[at] ^= data.draw(st.integers(1, 2**16 - 1)) & ~3 or 4  # another state, the same move
    assert refusal(with_last(replace(LAST, visits=visits)), CONFIG) == "steps"


@pytest.mark.parametrize("length", [0, 21, 2**16 - 1])
def test_lengths_that_cannot_be_are_refused(length: int) -> None:
    lengths = LAST.length.copy()
    lengths[0, 0] = length
    assert refusal(with_last(replace(LAST, length=lengths)), CONFIG) == "steps"


def test_an_attempt_that_neither_found_the_exit_nor_reached_the_horizon_is_refused() -> None:
    lengths = LAST.length.copy()
    lengths[-1, -1] -= 1
    shorter = replace(LAST, length=lengths, visits=LAST.visits[:-1])
    assert refusal(with_last(shorter), CONFIG) == "steps"


def test_an_attempt_that_goes_on_after_the_exit_is_refused() -> None:
    horizon, lengths = CONFIG.run.horizon, LAST.length.copy()
    length_W = lengths.reshape(-1)
    found = int(np.argmax(length_W < horizon))
    assert length_W[found] < horizon
    end = int(length_W[: found + 1].sum())
    more = np.zeros(horizon - length_W[found], np.uint16)  # bumps at the start, which is a corner,
    more[0] = LAST.log_prob.shape[1] * 4  # after one in the exit; where the table has the next maze's start
    length_W[found] = horizon
    longer = replace(LAST, length=lengths, visits=np.insert(LAST.visits, end, more))
    assert refusal(with_last(longer), CONFIG) == "steps"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_policies_that_are_not_finite_are_refused(value: float) -> None:
    log_prob = LAST.log_prob.copy()
    log_prob[1, 2, 3] = value
    assert refusal(with_last(replace(LAST, log_prob=log_prob)), CONFIG) == "not_finite"


def test_shapes_that_the_config_does_not_ask_for_are_refused() -> None:
    assert refusal(replace(HONEST, stages=HONEST.stages[:-1]), CONFIG) == "shape"
    assert refusal(replace(HONEST, mazes=HONEST.mazes[:2]), CONFIG) == "shape"
    assert refusal(with_last(replace(LAST, length=LAST.length[:, :1])), CONFIG) == "shape"
    assert refusal(with_last(replace(LAST, log_prob=LAST.log_prob[:, :-1])), CONFIG) == "shape"


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1, 5), (0, 25), (0, 0), (0, 2**31 - 1), (0, 1)],
)
def test_mazes_that_cannot_be_solved_are_refused(start: int, end: int) -> None:
    blocked = HONEST.mazes.blocked.copy()
    blocked[1] = False
    blocked[1, 0, 1] = blocked[1, 1, 0] = True  # the start is walled in; cell 1 is a wall
    starts, exits = HONEST.mazes.start.copy(), HONEST.mazes.exit.copy()
    starts[1], exits[1] = start, end
    assert refusal(replace(HONEST, mazes=Mazes(blocked, starts, exits)), CONFIG) == "maze"
    exits[1] = 24  # free, but there is no way
    assert refusal(replace(HONEST, mazes=Mazes(blocked, np.maximum(starts, 0), exits)), CONFIG) == "maze"


def test_a_batch_is_the_answers_in_order() -> None:
    parts = [collected(0), collected(1)]
    for k, stage in enumerate(join(parts)):
        assert stage.length.shape == (6, 2)
        assert np.array_equal(stage.visits, np.concatenate([part.stages[k].visits for part in parts]))
        states = max(part.stages[k].log_prob.shape[1] for part in parts)
        assert stage.log_prob.shape == (6, states, 4)
        second = parts[1].stages[k].log_prob
        assert np.array_equal(stage.log_prob[3:, : second.shape[1]], second)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_tables_of_the_parts_join_to_the_table_of_all(at_once: int) -> None:
    parts = [collected(chunk) for chunk in range(4)]
    groups = [admitted(parts[first : first + at_once]) for first in range(0, 4, at_once)]
    joined = StateTable.concatenate([table for group in groups for table in group][:3])
    whole = StateTable.of(Mazes.concatenate([part.mazes for part in parts[:3]]), CONFIG.policy.radius)
    assert np.array_equal(joined.count_M, whole.count_M)
    assert joined.exit_state == whole.exit_state
    assert np.array_equal(joined.seen_MCB, whole.seen_MCB)
    real_MS = np.arange(whole.exit_state) < whole.count_M[:, None]
    for name in ("cell_MS", "previous_MS", "next_MSA", "distance_MS"):
        assert np.array_equal(getattr(joined, name)[real_MS], getattr(whole, name)[real_MS]), name


LIARS = {
    "shape": with_last(replace(LAST, length=LAST.length[:, :1])),
    "maze": replace(HONEST, mazes=replace(HONEST.mazes, start=HONEST.mazes.exit)),
    "not_finite": with_last(replace(LAST, log_prob=np.full_like(LAST.log_prob, np.nan))),
    "steps": with_last(replace(LAST, length=LAST.length + np.uint16(1))),
}


@settings(deadline=None)
@given(st.lists(st.sampled_from([None, *LIARS]), min_size=1, max_size=9))
def test_a_liar_among_honest_answers_is_refused_alone(reasons: list[str | None]) -> None:
    answers = [LIARS[reason] if reason else collected(at) for at, reason in enumerate(reasons)]
    for answer, reason, verdict in zip(answers, reasons, admit(answers, CONFIG), strict=True):
        if reason:
            assert str(verdict) == reason
        else:
            assert isinstance(verdict, StateTable)
            assert np.array_equal(verdict.blocked, answer.mazes.blocked)
