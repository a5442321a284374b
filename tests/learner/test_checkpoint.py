"""A checkpoint is whole or not there, and the one before it is kept."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.ascent import Ascent
from learner.checkpoint import Checkpoint, beginning, load, save
from protocol.config import ClewError, Config
from protocol.learning.inner import initial_theta
from tests.parts.deadline import DEADLINE_S
from tests.whole.test_processes import processes

CONFIG = Config.model_validate({"maze": {"side": 9}})
SIZE = initial_theta(CONFIG).size  # of a theta that fits it


def checkpoint(update: int, size: int = 50) -> Checkpoint:
    def floats(seed: int) -> np.typing.NDArray[np.float32]:
        return np.random.default_rng([update, seed]).normal(size=size).astype(np.float32)

    return Checkpoint(update, "run", CONFIG, {update - 1: floats(0), update: floats(1)}, floats(2), floats(3), update)


def files(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def files_of(*updates: int) -> list[str]:
    return [f"{update:08d}.{kind}" for update in updates for kind in ("json", "safetensors")]


def is_whole(found: Checkpoint, update: int) -> bool:
    """Says whether every bit of a checkpoint is as it was saved."""
    saved = checkpoint(update)
    return (found.update, found.run, found.config, found.steps, content(found)) == (
        (update, saved.run, saved.config, saved.steps, content(saved))
    )


def content(found: Checkpoint) -> list[tuple[int, bytes]]:
    thetas = [(version, theta.tobytes()) for version, theta in sorted(found.thetas.items())]
    return [*thetas, (-1, found.mean.tobytes()), (-2, found.square.tobytes())]


def loaded(run_dir: Path) -> Checkpoint:
    found = load(run_dir)
    assert found
    return found


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(4))
    assert is_whole(loaded(tmp_path), 4)


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for update in (2, 4, 6):
        save(tmp_path, checkpoint(update))
    assert files(tmp_path) == files_of(4, 6)
    assert loaded(tmp_path).update == 6


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_said_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    caplog.clear()
    run_dir = tmp_path_factory.mktemp("run")
    for update in (2, 4):
        save(run_dir, checkpoint(update))
    path = run_dir / "checkpoints" / data.draw(st.sampled_from(["00000004.json", "00000004.safetensors"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), "cut short"):
        del content[at:]
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert is_whole(loaded(run_dir), 2)
    [warning] = caplog.messages
    assert "00000004.json is damaged (" in warning
    assert "\n" not in warning


def sealed(**changes: object) -> bytes:
    """The JSON of `checkpoint(4)` with other content, and the right checksum of it."""
    about = {"update": 4, "run": "run", "config": {}, "versions": [3, 4], "steps": 4, "arrays_sha256": ""} | changes
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return json.dumps({"about": about, "sha256": digest}, indent=1).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"[" * 100_000, b'{"about":' * 100_000, b"[]", b"4", b"null", b"{}", b"\xff", b""),
        *(b'{"about": [], "sha256": ""}', b'{"about": {"update": "4"}, "sha256": ""}', b"#" * 2_000_000),
        *(sealed(update="4"), sealed(versions=None), sealed(config=[]), sealed(versions=[3]), sealed(update=2)),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_json_that_is_none_of_a_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    for update in (2, 4):
        save(tmp_path, checkpoint(update))
    (tmp_path / "checkpoints/00000004.json").write_bytes(content)
    assert is_whole(loaded(tmp_path), 2)
    [warning] = caplog.messages
    assert "00000004.json is damaged (" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("kind", ["json", "safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_at_all_gives_way_to_the_checkpoint_before_and_stops_no_save(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, make: Callable[[Path], None]
) -> None:
    for update in (2, 4):
        save(tmp_path, checkpoint(update))
    path = tmp_path / "checkpoints" / f"00000004.{kind}"
    path.unlink()
    make(path)
    assert is_whole(loaded(tmp_path), 2)
    assert f"is damaged (00000004.{kind} is not a file)" in caplog.text
    save(tmp_path, checkpoint(6))
    save(tmp_path, checkpoint(8))
    assert is_whole(loaded(tmp_path), 8)


def test_a_checkpoint_under_another_ones_name_is_damaged(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    for kind in ("json", "safetensors"):
        path = tmp_path / "checkpoints" / f"00000002.{kind}"
        path.with_stem("00000009").write_bytes(path.read_bytes())
    assert loaded(tmp_path).update == 2


def test_only_files_of_checkpoints_are_ever_removed_or_taken_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, checkpoint(2))
    folder = tmp_path / "checkpoints"
    others = [
        "best.safetensors",
        "notes.json",
        "zzz.json",
        "draft.tmp",
        "2.json",
        "00000002 (1).safetensors",
        "x.json.tmp",
    ]
    for name in others:
        (folder / name).write_bytes(b"mine")
    for update in (4, 6, 8):
        save(tmp_path, checkpoint(update))
    assert sorted(files(tmp_path)) == sorted([*others, *files_of(6, 8)])
    assert loaded(tmp_path).update == 8
    assert not caplog.messages


def test_the_newest_is_the_one_of_most_updates_however_many_digits_they_have(tmp_path: Path) -> None:
    for update in (99_999_998, 99_999_999, 100_000_000, 100_000_001):
        save(tmp_path, checkpoint(update))
        assert loaded(tmp_path).update == update
    assert files(tmp_path) == files_of(100_000_000, 100_000_001)


def test_no_whole_checkpoint_at_all_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    (tmp_path / "checkpoints/00000002.safetensors").unlink()
    with pytest.raises(ClewError, match=r"no checkpoint in .* is whole: .*00000002.json is damaged \(.*\); start anew"):
        beginning(tmp_path, CONFIG, resume=True)


def test_a_write_cut_short_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    folder = tmp_path / "checkpoints"
    (folder / "00000004.safetensors").write_bytes(b"whole, but its JSON was never written")
    (folder / "00000004.json.tmp").write_bytes(b'{"about"')
    assert loaded(tmp_path).update == 2
    save(tmp_path, checkpoint(3))
    assert files(tmp_path) == files_of(2, 3)


def save_on_and_on(run_dir: Path, done: int, out: Connection) -> None:
    """Says which update's checkpoint is on the disk, for ever."""
    for update in itertools.count(done + 1):
        out.send(update - 1)
        save(run_dir, checkpoint(update, size=20_000))


def test_whenever_a_learner_is_killed_a_whole_checkpoint_is_there_and_none_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(0)
    durable = 0
    for _ in range(12):
        heard, out = processes.Pipe(duplex=False)
        process = processes.Process(target=save_on_and_on, args=(tmp_path, durable, out))
        process.start()
        out.close()
        for _ in range(rng.randint(2, 4)):
            began = time.monotonic()
            assert heard.poll(DEADLINE_S)
            durable = heard.recv()
        save_s = time.monotonic() - began
        time.sleep(rng.random() * save_s)  # to somewhere in the next save
        process.kill()
        process.join()
        durable = max([durable, *all_of(heard)])
        found = loaded(tmp_path)
        assert found.update in (durable, durable + 1)
        assert content(found) == content(checkpoint(found.update, size=20_000))
        durable = found.update
    assert not caplog.messages


def all_of(heard: Connection) -> Iterator[int]:
    """Reads what else was said before the other end died."""
    with suppress(EOFError):
        while True:
            yield heard.recv()


TOUCHES = {"open", "os.rename", "os.remove"}  # audit events: what a save does to its folder


def save_and_die(run_dir: Path, update: int, touches: int) -> None:
    """Is killed after it has touched the folder so many times."""
    left = itertools.count(touches, -1)

    def watch(event: str, given: tuple[object, ...]) -> None:
        if event in TOUCHES and str(given[0]).startswith(str(run_dir)) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    save(run_dir, checkpoint(update))


def test_a_save_killed_between_any_two_steps_leaves_a_whole_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for touches in itertools.count():
        run_dir = tmp_path / str(touches)
        for update in (1, 2):
            save(run_dir, checkpoint(update))
        process = processes.Process(target=save_and_die, args=(run_dir, 3, touches))
        process.start()
        process.join(DEADLINE_S)
        found.append(loaded(run_dir).update)
        assert is_whole(loaded(run_dir), found[-1])
        save(run_dir, checkpoint(4))
        assert files(run_dir) == files_of(found[-1], 4)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert found == sorted(found)
    assert found.count(2) >= 5  # two files opened, two renamed, the folder synced in between
    assert found.count(3) >= 4  # the folder synced, two files removed, nothing left to do
    assert not caplog.messages


@contextmanager
def room_for(file_bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this size: a write takes what fits, then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [50, 5_000])  # the JSON is the larger file; the arrays are
def test_a_save_without_room_leaves_the_former_checkpoints_and_nothing_else(tmp_path: Path, size: int) -> None:
    for update in (1, 2):
        save(tmp_path, checkpoint(update, size=size))
    largest = max(path.stat().st_size for path in (tmp_path / "checkpoints").iterdir())
    for file_bytes in {0, 1, *range(0, largest, largest // 50), largest - 1}:
        with room_for(file_bytes), pytest.raises(OSError, match="File too large"):
            save(tmp_path, checkpoint(3, size=size))
        assert files(tmp_path) == files_of(1, 2)
    assert content(loaded(tmp_path)) == content(checkpoint(2, size=size))
    save(tmp_path, checkpoint(3, size=size))
    assert files(tmp_path) == files_of(2, 3)


def test_another_config_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    other = Config.model_validate({"maze": {"side": 13}})
    with pytest.raises(ClewError, match=r"maze.side is 9, not 13"):
        beginning(tmp_path, other, resume=True)


def test_parameters_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    """Those of a version of clew whose network has others."""
    save(tmp_path, checkpoint(2, size=SIZE - 1))
    with pytest.raises(ClewError, match=f"holds {SIZE - 1} parameters, where this version of clew has {SIZE}; use the"):
        beginning(tmp_path, CONFIG, resume=True)


def test_a_setting_that_is_no_more_is_named_in_one_sentence(tmp_path: Path) -> None:
    """That of a run of an earlier version of clew."""
    save(tmp_path, checkpoint(4))
    path = tmp_path / "checkpoints" / "00000004.json"
    about = json.loads(path.read_bytes())["about"]
    about["config"]["outer"] |= {"entropy": 0.0, "clip": 0.2}
    path.write_bytes(sealed(**about))
    sentence = r"of another version of clew: it sets outer\.entropy, outer\.clip, which this version has not; use the"
    with pytest.raises(ClewError, match=sentence):
        loaded(tmp_path)


def test_a_run_is_not_overwritten_and_nothing_resumes_from_nothing(tmp_path: Path) -> None:
    assert beginning(tmp_path, CONFIG, resume=False) is None
    with pytest.raises(ClewError, match="holds no run to resume; change --run-dir, or begin one without --resume"):
        beginning(tmp_path, CONFIG, resume=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "updates.jsonl").touch()  # of a learner that was killed before its first checkpoint
    assert beginning(tmp_path, CONFIG, resume=False) is None
    (tmp_path / "updates.jsonl").write_text('{"update": 1}\n')
    with pytest.raises(ClewError, match="holds the records of a run and no checkpoint"):
        beginning(tmp_path, CONFIG, resume=True)
    with pytest.raises(ClewError, match="already holds a run; add --resume"):
        beginning(tmp_path, CONFIG, resume=False)
    save(tmp_path, checkpoint(2, size=SIZE))
    with pytest.raises(ClewError, match="already holds a run; add --resume"):
        beginning(tmp_path, CONFIG, resume=False)
    found = beginning(tmp_path, CONFIG, resume=True)
    assert found
    assert found.update == 2


def ascent(update: int) -> Ascent:
    start = checkpoint(update)
    nothing = np.zeros_like(start.theta)
    return Ascent(start.theta, nothing, nothing, 0, CONFIG, torch.device("cpu"))


def gradients(count: int) -> list[torch.Tensor]:
    """Shorter than the norm that they are cut to."""
    return [torch.from_numpy(checkpoint(update).mean) / 100 for update in range(1, count + 1)]


def test_adam_is_adam() -> None:
    ours = ascent(1)
    theirs = ours.theta.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], maximize=True)
    for update, gradient in enumerate(gradients(8)):
        assert ours.step(gradient, update)
        left = 1 - update / CONFIG.run.updates
        optimiser.param_groups[0]["lr"] = CONFIG.outer.learning_rate * left
        theirs.grad = gradient.clone()
        optimiser.step()
    assert torch.allclose(ours.theta, theirs, rtol=1e-6, atol=1e-7)


def test_adam_goes_on_bit_for_bit_where_it_was_left() -> None:
    whole, first = ascent(1), ascent(1)
    for update, gradient in enumerate(gradients(8)):
        assert whole.step(gradient, update)
        if update < 4:
            assert first.step(gradient, update)
    vectors = (first.theta.numpy(), first.mean.numpy(), first.square.numpy())
    second = Ascent(*vectors, first.steps, CONFIG, torch.device("cpu"))
    for update, gradient in list(enumerate(gradients(8)))[4:]:
        assert second.step(gradient, update)
    assert torch.equal(whole.theta, second.theta)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_a_gradient_that_is_not_finite_moves_nothing(bad: float) -> None:
    unmoved = ascent(1)
    gradient = torch.zeros(50)
    gradient[3:5] = bad
    assert not unmoved.step(gradient, 0)
    assert torch.equal(unmoved.theta, ascent(1).theta)
    assert unmoved.steps == 0


def test_a_long_gradient_is_scaled_down() -> None:
    one, other = ascent(1), ascent(1)
    [gradient] = gradients(1)
    one.step(gradient * 1e6, 0)
    other.step(gradient / gradient.norm() * CONFIG.outer.max_gradient_norm, 0)
    assert torch.allclose(one.mean, other.mean)
