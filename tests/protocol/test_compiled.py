"""Machine code and numpy give the same bits: of exponentials, logarithms and products, and of whole trials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner import baseline
from learner.admission import Replay, admit
from learner.lesson import Lesson
from protocol.compiled import compiled, forget_former_code
from protocol.config import Config
from protocol.learning import exact
from protocol.learning.inner import initial_theta, situations
from protocol.learning.play import UnwalkableError, keys, replay, uniform
from protocol.learning.trial import lease_trial
from protocol.world.cells import Floats
from protocol.world.maze import Mazes
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight
from tests import ROOT
from tests.parts.batches import rollouts_of, with_more

KINDS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "without dreams": {"policy": {"dreams": False}},
    "blind": {"policy": {"radius": 0}},
    "blind, with a compass": {"policy": {"radius": 0, "compass": True}},
    "wide eyes and a compass": {"policy": {"radius": 2, "compass": True}},
    "without memory": {"policy": {"memory": "none", "dreams": False}},
    "every parameter": {"inner": {"adapts": "all", "rule": "meta-sgd", "steps": 2}},
    "traps": {"maze": {"family": "blocks", "traps": 0.2, "exits": 2}},
    "several attempts": {"inner": {"attempts": 3, "steps": 2}, "outer": {"attempts": 2}, "maze": {"family": "rooms"}},
    "recurrent": {"policy": {"kind": "recurrent", "dreams": False}, "inner": {"steps": 2}},
    "out of time": {"run": {"horizon_per_cell": 1.0}, "maze": {"family": "braided", "side": 15}},
    "many observations": {"policy": {"radius": 4}, "maze": {"family": "blocks", "side": 31}, "inner": {"steps": 1}},
}


NOT_HERE = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"  # what numpy does without, where this processor has it
DIGEST = """
import hashlib
import numpy as np
from protocol.config import Config
from protocol.learning.inner import initial_theta
from protocol.learning.trial import lease_trial

config = Config.model_validate({"run": {"mazes": 20, "mazes_per_lease": 20}, "inner": {"steps": 3}})
theta = initial_theta(config) + np.linspace(-0.3, 0.3, len(initial_theta(config)), dtype=np.float32)
_, trial = lease_trial(theta, (1, 2), config)
for walk, log_prob in zip(trial.walks, trial.log_probs):
    print(hashlib.sha256(walk.move_N.tobytes() + log_prob.tobytes()).hexdigest())
"""


def lease_config(mazes: int, sections: dict[str, dict[str, Any]]) -> Config:
    """Makes a config for one lease of so many mazes."""
    base: dict[str, dict[str, Any]] = {"run": {"mazes": mazes, "mazes_per_lease": mazes}}
    return Config.model_validate(with_more(base, sections))


@pytest.fixture
def numpy_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Whoever asks for machine code between two `undo` is told that there is none."""
    assert compiled("play"), "numba is missing, which the tests' requirements name"
    yield monkeypatch
    compiled.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    compiled.cache_clear()


def again_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    compiled.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_the_same_bit_for_bit_and_so_is_its_replay(kind: str, numpy_alone: pytest.MonkeyPatch) -> None:
    config = lease_config(4, KINDS[kind])
    for seed in range(1):
        noise = np.random.default_rng(seed).normal(0, 0.3, len(initial_theta(config)))
        theta_P = (initial_theta(config) + noise).astype(np.float32)
        mazes, fast = lease_trial(theta_P, (7, seed), config)
        fast_replay = admit(rollouts_of(mazes, fast.walks, fast.log_probs), config)
        fast_lesson = taught(fast_replay, config)
        without(numpy_alone)
        assert compiled("play") is None
        _, slow = lease_trial(theta_P, (7, seed), config)
        slow_replay = admit(rollouts_of(mazes, slow.walks, slow.log_probs), config)
        slow_lesson = taught(slow_replay, config)
        again_with(numpy_alone)
        assert_same(fast, slow)
        assert_same(fast_replay, slow_replay)
        assert_same(fast_lesson, slow_lesson)


def taught(replay: Replay, config: Config) -> tuple[Lesson, list[Floats]]:
    """The lesson, and the advantage of every step over a baseline that has weights of its own."""
    lesson = Lesson.of(replay, config)
    outcomes = [part.outcome for part in lesson.stages]
    weight_F = np.random.default_rng(1).normal(size=baseline.FEATURES)
    return lesson, [baseline.advantages(one, baseline.values(one, weight_F), config) for one in outcomes]


def test_a_trial_is_the_same_bit_for_bit_on_another_processor() -> None:
    """What numpy finds of this one is hidden from it in a process of its own."""
    command, nothing = [sys.executable, "-c", DIGEST], {"NPY_DISABLE_CPU_FEATURES": "", "NUMBA_DISABLE_JIT": "1"}
    other = {"NPY_DISABLE_CPU_FEATURES": NOT_HERE, "OPENBLAS_CORETYPE": "Prescott"}
    said = [
        subprocess.run(command, cwd=ROOT, env=os.environ | nothing | more, check=True, capture_output=True).stdout
        for more in ({}, other)
    ]
    assert said[0] == said[1] != b""


def assert_same(one: Any, other: Any) -> None:
    """Two records, tuples or arrays, down to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    elif isinstance(one, tuple | list):
        for mine, theirs in zip(one, other, strict=True):
            assert_same(mine, theirs)
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    elif hasattr(one, "__dataclass_fields__"):
        for name in one.__dataclass_fields__:
            assert_same(getattr(one, name), getattr(other, name))
    else:
        assert one == other


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([np.float32, np.float64]))
def test_exponentials_logarithms_and_products_are_the_same(seed: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(0, 10 ** rng.uniform(-3, 2.5), (3, 50)), -80, 80).astype(kind)
    left, right = rng.normal(size=(7, 11)).astype(kind), rng.normal(size=(11, 5)).astype(kind)
    with pytest.MonkeyPatch.context() as patch:
        fast = exact.exp(x), exact.log(exact.exp(x)), exact.product(left, right)
        without(patch)
        slow = exact.exp(x), exact.log(exact.exp(x)), exact.product(left, right)
    compiled.cache_clear()
    assert_same(fast, slow)


def test_machine_code_of_other_sources_is_not_used(tmp_path: Path) -> None:
    kept = tmp_path / "compiled" / "__pycache__"
    kept.mkdir(parents=True)
    (tmp_path / "exact.py").write_text("MOST = 1\n")
    left = []
    for most in (1, 1, 2):
        (tmp_path / "exact.py").write_text(f"MOST = {most}\n")
        forget_former_code.cache_clear()
        forget_former_code(tmp_path)
        left.append([path.name for path in kept.glob("*.nb?")])
        (kept / "walk.nbi").touch()
        (kept / "walk.nbc").touch()
    assert [sorted(names) for names in left] == [[], ["walk.nbc", "walk.nbi"], []]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_exponentials_of_what_is_not_finite_are_the_same_and_touch_no_memory_of_others(kind: Any) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38] * 1_000, kind)
    fast = exact.exp(x)
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        without(patch)
        slow = exact.exp(x)
    compiled.cache_clear()
    np.testing.assert_array_equal(fast, slow)
    assert np.isnan(fast[0])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_exponentials_logarithms_and_products_are_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-600, 600, 1000)
    np.testing.assert_allclose(exact.exp(x), np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(exact.log(np.exp(x)), x, rtol=1e-15, atol=3e-16)
    left, right = rng.normal(size=(4, 3, 8)), rng.normal(size=(4, 8, 2))
    np.testing.assert_allclose(exact.product(left, right), left @ right, atol=1e-12)
    np.testing.assert_allclose(exact.total(left), left.sum(0), atol=1e-12)


def test_situations_are_numbered_the_same(numpy_alone: pytest.MonkeyPatch) -> None:
    config = lease_config(4, {"inner": {"attempts": 9, "steps": 1}, "outer": {"attempts": 9}})
    _, trial = lease_trial(initial_theta(config), (1,), config)
    for done in trial.walks:
        fast = situations(done, 9)
        without(numpy_alone)
        assert_same(fast, situations(done, 9))
        again_with(numpy_alone)
        number_N, step_S = fast
        assert len(step_S) < len(number_N)
        for field in ("at_N", "seen_N", "known_N", "hope_N", "gain_N"):
            values = getattr(done, field)
            assert np.array_equal(values[step_S][number_N], values)


def test_random_numbers_are_even_and_those_of_two_attempts_have_nothing_in_common() -> None:
    key_W = keys(1000, np.random.default_rng(0))
    number_TW = np.stack([uniform(key_W, time) for time in range(100)])
    assert 0 <= number_TW.min() < 1e-4
    assert 1 - 1e-4 < number_TW.max() < 1
    counts, _ = np.histogram(number_TW, 50, (0, 1))
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)
    assert np.abs(np.corrcoef(number_TW[:, :50].T) - np.eye(50)).max() < 0.5
    assert abs(np.corrcoef(number_TW[1:].ravel(), number_TW[:-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("lengths", "moves"),
    [
        ([3], [1, 1]),  # more steps than moves
        ([2], [1, 1, 1]),  # fewer
        ([3], [1, 1, 1]),  # goes on after the exit
        ([1], [1]),  # stops before it
        ([0], []),
        ([2], [1, 4]),  # no move
        ([-1], [1]),
        ([9], [3] * 9),  # beyond the horizon
    ],
)
def test_moves_that_cannot_have_been_made_are_refused(
    lengths: list[int], moves: list[int], fast: bool, numpy_alone: pytest.MonkeyPatch
) -> None:
    if not fast:
        without(numpy_alone)
    mazes = Mazes.from_text("S.E")
    met = Observations(Sight.of(mazes, Config().policy))
    with pytest.raises(UnwalkableError):
        replay(met, Known.nothing(3), np.array([8]), np.array(lengths, np.int32), np.array(moves, np.uint8))
    done = replay(met, Known.nothing(3), np.array([8]), np.array([2], np.int32), np.array([1, 1], np.uint8))
    assert (done.at_N.tolist(), done.end_W.tolist()) == ([0, 1], [2])
