"""Only what a maze's own rules allow is admitted; what is admitted is what the robots saw."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.actor import work_on
from learner.admission import AdmissionError, Replay, admit, admit_all
from protocol.config import Config
from protocol.learning.credit import horizons
from protocol.learning.inner import initial_theta
from protocol.learning.trial import attempt_and_adapt
from protocol.wire.frames import Limits, decode, encode
from protocol.wire.messages import Attempts, Lease, Rollouts
from protocol.world import families
from protocol.world.cells import EXIT, FREE, TRAP, WALL
from protocol.world.maze import Mazes


def config_of(**sections: dict[str, Any]) -> Config:
    """Mazes of 5x5, which an untrained robot leaves now and then."""
    small: dict[str, dict[str, Any]] = {
        "maze": {"family": "perfect", "side": 5, "min_distance": 2},
        "policy": {"hidden": 8},
        "inner": {"steps": 1, "attempts": 2},
        "outer": {"attempts": 2},
        "run": {"mazes": 6, "mazes_per_lease": 3, "horizon_per_cell": 1},
    }
    return Config.model_validate({name: small.get(name, {}) | sections.get(name, {}) for name in {*small, *sections}})


def collected(config: Config, chunk: int = 0) -> Rollouts:
    return work_on(Lease(0, chunk, chunk, 0, (0, 0, chunk), 1.0), initial_theta(config), config)


CONFIG = config_of()
HONEST = collected(CONFIG, 5)
LAST = HONEST.stages[-1]
MAZES = HONEST.mazes
SENSES: tuple[dict[str, Any], ...] = (
    {},
    {"radius": 2, "compass": True},
    {"radius": 0},
    {"radius": 0, "memory": "none", "dreams": False, "compass": True},
    {"dreams": False},
)


def with_last(**changes: object) -> Rollouts:
    return replace(HONEST, stages=(*HONEST.stages[:-1], replace(LAST, **changes)))  # type: ignore[arg-type]


def with_mazes(**changes: object) -> Rollouts:
    return replace(HONEST, mazes=replace(MAZES, **changes))  # type: ignore[arg-type]


def refusal(rollouts: Rollouts, config: Config = CONFIG) -> str:
    with pytest.raises(AdmissionError) as refused:
        admit(rollouts, config)
    return str(refused.value)


def changed(array: np.ndarray[Any, Any], at: int, value: object) -> np.ndarray[Any, Any]:
    copy = array.copy()
    copy[at] = value
    return copy


def steps_before(attempt: int) -> int:
    """Where an attempt of the last stage begins among its moves."""
    return int(LAST.length[:attempt].sum())


# Honest rollouts


@pytest.mark.parametrize("policy", SENSES, ids=str)
@pytest.mark.parametrize("inner", [{}, {"adapts": "all", "steps": 2}], ids=str)
def test_the_learner_sees_what_the_actor_saw_bit_for_bit(policy: dict[str, Any], inner: dict[str, Any]) -> None:
    maze = {"family": ["perfect", "blocks"], "side": [5, 7], "traps": 0.1, "exits": 2}
    config = config_of(policy=policy, inner=inner, maze=maze, run={"horizon_per_cell": 2})
    for chunk in range(3):
        sent = collected(config, chunk)
        received = decode(encode(sent), Limits.of(config))
        assert isinstance(received, Rollouts)
        replay = admit(received, config)
        rng = np.random.default_rng((0, 0, chunk))
        mazes = families.sample(config.maze, 3, rng, held_out=False)
        trial = attempt_and_adapt(initial_theta(config), mazes, rng, config)
        assert_equal(replay.mazes, mazes)
        pairs = [*zip(replay.walks, trial.walks, strict=True), *zip(replay.knowns, trial.knowns, strict=True)]
        for again, first in pairs:
            assert_equal(again, first)
        for told, drawn in zip(replay.behaviours, trial.log_probs, strict=True):
            np.testing.assert_array_equal(told, drawn)


def assert_equal(one: object, other: object) -> None:
    """Two records of arrays."""
    names = type(one).__dataclass_fields__  # type: ignore[attr-defined]
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)


def test_mazes_of_a_file_are_admitted_whatever_their_sizes() -> None:
    config = config_of(maze={"family": "file", "path": "never read"}, run={"mazes_per_lease": 2})
    mazes = Mazes.from_text("S..E\n\nS.\n#.\nE.")
    attempts = Attempts(
        np.full(4, 3, np.int32), np.array([1, 1, 1] * 2 + [1, 2, 2] * 2, np.uint8), np.zeros(12, np.float32)
    )
    rollouts = replace(HONEST, mazes=mazes, stages=(attempts, attempts))
    assert refusal(rollouts, config) == "steps"  # the second maze takes four steps
    moves = np.array([1, 1, 1] * 2 + [1, 2, 2, 3] * 2, np.uint8)
    attempts = Attempts(np.array([3, 3, 4, 4], np.int32), moves, np.zeros(14, np.float32))
    replay = admit(replace(rollouts, stages=(attempts, attempts)), config)
    assert (replay.walks[0].end_W == [3, 3, 8, 8]).all()


# Several answers at once


LIARS = {
    "shape": replace(HONEST, stages=HONEST.stages[:1]),
    "maze": replace(HONEST, mazes=replace(MAZES, start_M=MAZES.start_M - np.int32(1))),
    "not_finite": replace(
        HONEST, stages=(HONEST.stages[0], replace(LAST, log_prob=LAST.log_prob * np.float32(np.nan)))
    ),
    "steps": replace(HONEST, stages=(HONEST.stages[0], replace(LAST, move=LAST.move + np.uint8(1)))),
}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([None, *LIARS]), min_size=1, max_size=9))
def test_a_liar_among_honest_answers_is_refused_alone(reasons: list[str | None]) -> None:
    answers = [LIARS[reason] if reason else collected(CONFIG, at) for at, reason in enumerate(reasons)]
    for answer, reason, verdict in zip(answers, reasons, admit_all(answers, CONFIG), strict=True):
        if reason:
            assert str(verdict) == reason
        else:
            assert isinstance(verdict, Replay)
            assert_equal(verdict.mazes, answer.mazes)


@pytest.mark.parametrize("inner", [{}, {"adapts": "all", "steps": 2, "attempts": 3}], ids=str)
@pytest.mark.parametrize("policy", SENSES, ids=str)
def test_what_a_replay_holds_does_not_depend_on_who_is_walked_again_beside_it(
    policy: dict[str, Any], inner: dict[str, Any]
) -> None:
    """Theta would depend on it, in its last bits."""
    maze = {"family": ["perfect", "rooms"], "side": [5, 7, 9], "traps": 0.1}
    config = config_of(policy=policy, inner=inner, maze=maze, run={"horizon_per_cell": 2})
    answers = [collected(config, chunk) for chunk in range(6)]
    assert len({len(rollouts.mazes.cell_C) for rollouts in answers}) > 1
    alone = [admit(rollouts, config) for rollouts in answers]
    groups = [admit_all(answers[begin:end], config) for begin, end in ((0, 1), (1, 3), (3, 6))]
    for together in (admit_all(answers, config), admit_all(answers[::-1], config)[::-1], [*chain(*groups)]):
        for one, other in zip(alone, together, strict=True):
            assert isinstance(other, Replay)
            assert_same(one, other)


def assert_same(one: Replay, other: Replay) -> None:
    """Two replays, bit for bit."""
    pairs: list[tuple[Any, Any]] = [
        (one.mazes, other.mazes),
        (one.feature_UF, other.feature_UF),
        (one.maze_U, other.maze_U),
    ]
    for name in ("walks", "knowns", "behaviours"):
        pairs += zip(getattr(one, name), getattr(other, name), strict=True)
    for first, second in pairs:
        if first is None or isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second, strict=first is not None)
        else:
            assert_equal(first, second)


# Liars


def test_shapes_that_the_config_does_not_ask_for_are_refused() -> None:
    assert refusal(replace(HONEST, stages=HONEST.stages[:-1])) == "shape"
    assert refusal(replace(HONEST, stages=(*HONEST.stages, LAST))) == "shape"
    assert refusal(replace(HONEST, mazes=MAZES[:2])) == "shape"
    assert refusal(with_last(length=LAST.length[:-1])) == "shape"
    assert refusal(with_last(move=LAST.move[:-1])) == "shape"
    assert refusal(with_last(log_prob=LAST.log_prob[:-1])) == "shape"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_probabilities_that_are_not_finite_are_refused(value: float) -> None:
    assert refusal(with_last(log_prob=changed(LAST.log_prob, 2, value))) == "not_finite"


@pytest.mark.parametrize(
    "shape_M2",
    [
        np.full((3, 2), 7, np.int32),  # not as many cells as there are
        np.full((3, 2), 0, np.int32),
        np.full((3, 2), -5, np.int32),
        np.full((3, 2), 2**31 - 1, np.int32),
        np.full((2, 2), 5, np.int32),
        np.full((3, 1), 5, np.int32),
        np.array([[1, 25], [25, 1], [5, 5]], np.int32),  # no maze of a lease has such a size
        np.array([[5, 5], [3, 5], [7, 5]], np.int32),
    ],
    ids=str,
)
def test_sizes_of_mazes_that_no_lease_has_are_refused(shape_M2: np.ndarray[Any, Any]) -> None:
    assert refusal(with_mazes(shape_M2=shape_M2)) == "maze"


def test_a_size_that_the_config_does_not_name_is_refused() -> None:
    other = collected(config_of(maze={"side": 7}))
    assert refusal(other) == "maze"
    assert isinstance(admit(other, config_of(maze={"side": [5, 7]})), Replay)


@pytest.mark.parametrize("start", [-1, 25, 2**31 - 1, -(2**31)])
def test_a_start_outside_of_its_maze_is_refused(start: int) -> None:
    assert refusal(with_mazes(start_M=changed(MAZES.start_M, 1, start))) == "maze"


@pytest.mark.parametrize("kind", [WALL, EXIT, TRAP])
def test_a_start_that_is_not_free_is_refused(kind: int) -> None:
    assert refusal(with_mazes(cell_C=changed(MAZES.cell_C, int(MAZES.first_M[1]), kind))) == "maze"


def test_cells_of_an_unknown_kind_are_refused() -> None:
    assert refusal(with_mazes(cell_C=changed(MAZES.cell_C, -1, TRAP + 1))) == "maze"


def test_a_maze_without_a_way_to_an_exit_is_refused() -> None:
    no_exit = np.where(MAZES.cell_C == EXIT, FREE, MAZES.cell_C).astype(np.uint8)
    assert refusal(with_mazes(cell_C=no_exit)) == "maze"
    for shut in (WALL, TRAP):
        cells = np.zeros((3, 5, 5), np.uint8)
        cells[:, 4, 4] = EXIT
        cells[1, 3, :] = shut
        assert refusal(with_mazes(start_M=np.zeros(3, np.int32), cell_C=cells.reshape(-1))) == "maze"


@settings(deadline=None)
@given(st.data())
def test_a_move_that_the_attempt_cannot_have_made_is_refused_or_makes_another_attempt_of_the_same_length(
    data: st.DataObject,
) -> None:
    at = data.draw(st.integers(0, len(LAST.move) - 1))
    move = data.draw(st.integers(0, 255))
    rollouts = with_last(move=changed(LAST.move, at, move))
    with suppress(AdmissionError):
        replay = admit(rollouts, CONFIG)
        assert move < 4
        assert (replay.walks[-1].length_W == LAST.length).all()
        ends = MAZES.cell_C[replay.walks[-1].end_W]
        assert ((ends == EXIT) | (LAST.length == 25)).all()


@pytest.mark.parametrize("move", [4, 255])
def test_a_move_that_there_is_not_is_refused(move: int) -> None:
    assert refusal(with_last(move=changed(LAST.move, len(LAST.move) // 2, move))) == "steps"


def test_a_move_into_a_wall_that_was_sensed_is_refused() -> None:
    blind = config_of(policy={"radius": 0})
    bumping = collected(blind)
    assert isinstance(admit(bumping, blind), Replay)
    assert refusal(bumping, CONFIG) == "steps"


def test_a_second_bump_into_a_wall_that_is_remembered_is_refused() -> None:
    blind = config_of(policy={"radius": 0}, inner={"attempts": 1}, outer={"attempts": 1})
    each = (collected(blind, chunk) for chunk in range(20))
    rollouts = next(
        rollouts for rollouts in each if rollouts.stages[0].length[0] == 25
    )  # two moves too many do no harm
    first, last = rollouts.stages
    moves = changed(first.move, 0, 0)  # the start is a corner
    moves[1] = 0
    assert refusal(replace(rollouts, stages=(replace(first, move=moves), last)), blind) == "steps"


@pytest.mark.parametrize("length", [0, -1, 26, 2**31 - 1, -(2**31)])
def test_lengths_that_cannot_be_are_refused(length: int) -> None:
    lengths = changed(LAST.length, 0, length)
    assert refusal(with_last(length=lengths)) == "shape"  # not as many steps as there are moves
    others = changed(lengths, 1, int(LAST.length[:2].sum()) - length if abs(length) < 100 else 1)
    if int(others.sum(dtype=np.int64)) == len(LAST.move):
        assert refusal(with_last(length=others)) == "steps"


def test_an_attempt_that_neither_found_an_exit_nor_reached_the_horizon_is_refused() -> None:
    lengths = changed(LAST.length, -1, LAST.length[-1] - 1)
    shorter = with_last(length=lengths, move=LAST.move[:-1], log_prob=LAST.log_prob[:-1])
    assert refusal(shorter) == "steps"


def test_an_attempt_that_goes_on_after_an_exit_or_beyond_the_horizon_is_refused() -> None:
    for attempt in (int(np.argmin(LAST.length)), int(np.argmax(LAST.length))):
        end = steps_before(attempt + 1)
        moves = np.insert(LAST.move, end, LAST.move[end - 1])
        lengths = changed(LAST.length, attempt, LAST.length[attempt] + 1)
        longer = with_last(length=lengths, move=moves, log_prob=np.insert(LAST.log_prob, end, -1.0))
        assert refusal(longer) == "steps"
    assert LAST.length.min() < 25 == LAST.length.max()


def test_a_way_through_a_wall_is_refused() -> None:
    cells = MAZES.cell_C.copy()
    cells[:25] = FREE
    cells[24], cells[1] = EXIT, WALL
    assert refusal(with_mazes(start_M=np.zeros(3, np.int32), cell_C=cells)) == "steps"


def test_attempts_in_another_order_are_refused() -> None:
    assert refusal(with_last(length=LAST.length[::-1].copy(), move=LAST.move[::-1].copy())) == "steps"


FIELDS: list[tuple[str, Callable[[Rollouts, Any], Rollouts]]] = [
    ("shape_M2", lambda honest, array: replace(honest, mazes=replace(honest.mazes, shape_M2=array))),
    ("start_M", lambda honest, array: replace(honest, mazes=replace(honest.mazes, start_M=array))),
    ("cell_C", lambda honest, array: replace(honest, mazes=replace(honest.mazes, cell_C=array))),
    ("length", lambda honest, array: replace(honest, stages=(replace(honest.stages[0], length=array), LAST))),
    ("move", lambda honest, array: replace(honest, stages=(replace(honest.stages[0], move=array), LAST))),
    ("log_prob", lambda honest, array: replace(honest, stages=(replace(honest.stages[0], log_prob=array), LAST))),
]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_is_said_is_admitted_or_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    rollouts = HONEST
    for _ in range(data.draw(st.integers(1, 3))):
        name, put = data.draw(st.sampled_from(FIELDS))
        array = getattr(rollouts.mazes if hasattr(rollouts.mazes, name) else rollouts.stages[0], name)
        change = data.draw(st.sampled_from(["one", "cut", "all", "shape"]))
        if array.dtype == np.float32:
            value: float = data.draw(st.floats(width=32))
        else:
            ranges = np.iinfo(array.dtype)
            value = data.draw(st.integers(ranges.min, ranges.max) | st.integers(0, 30))
        if change == "one":
            array = array.copy()
            array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = value
        elif change == "cut":
            array = array[: data.draw(st.integers(1, len(array)))]
        elif change == "all":
            array = np.full_like(array, value)
        elif array.ndim == 2:
            array = array.reshape(-1, data.draw(st.sampled_from([n for n in (1, 2, 3) if array.size % n == 0])))
        rollouts = put(rollouts, array)
    with suppress(AdmissionError):
        replay = admit(rollouts, CONFIG)
        assert (replay.walks[0].length_W <= horizons(replay.mazes, CONFIG).max()).all()
