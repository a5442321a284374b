"""A checkpoint is whole or not there, and the one before it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.ascent import Ascent
from learner.checkpoint import Checkpoint, beginning, load, save
from learner.journal import Journal
from protocol.config import ClewError, Config

CONFIG = Config()


def checkpoint(update: int, config: Config = CONFIG) -> Checkpoint:
    def floats(seed: int) -> np.typing.NDArray[np.float32]:
        return np.random.default_rng([update, seed]).normal(size=50).astype(np.float32)

    return Checkpoint(
        update, "run", config, {update - 1: floats(0), update: floats(1)}, floats(2), floats(3), update
    )


def files(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def loaded(run_dir: Path) -> Checkpoint:
    found = load(run_dir)
    assert found
    return found


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = checkpoint(4)
    save(tmp_path, saved)
    found = loaded(tmp_path)
    assert (found.update, found.run, found.config, found.steps) == (4, "run", CONFIG, 4)
    assert {version: theta.tobytes() for version, theta in found.thetas.items()} == {
        version: theta.tobytes() for version, theta in saved.thetas.items()
    }
    assert found.theta.tobytes() == saved.thetas[4].tobytes()
    assert found.mean.tobytes() == saved.mean.tobytes()
    assert found.square.tobytes() == saved.square.tobytes()


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for update in (2, 4, 6):
        save(tmp_path, checkpoint(update))
    assert files(tmp_path) == [
        "00000004.json",
        "00000004.safetensors",
        "00000006.json",
        "00000006.safetensors",
    ]
    assert loaded(tmp_path).update == 6


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
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
    found = loaded(run_dir)
    assert found.update == 2 or found.theta.tobytes() == checkpoint(4).theta.tobytes()


def test_a_damaged_checkpoint_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for update in (2, 4):
        save(tmp_path, checkpoint(update))
    (tmp_path / "checkpoints/00000004.safetensors").write_bytes(b"")
    assert loaded(tmp_path).update == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "00000004.json is damaged" in line


def test_no_whole_checkpoint_at_all_is_an_error_not_a_fresh_start(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    (tmp_path / "checkpoints/00000002.safetensors").unlink()
    with pytest.raises(ClewError, match=r"no checkpoint in .* is whole"):
        beginning(tmp_path, CONFIG, resume=True)


def test_a_write_cut_short_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    folder = tmp_path / "checkpoints"
    (folder / "00000004.safetensors").write_bytes(b"whole, but its JSON was never written")
    (folder / "00000004.json.tmp").write_bytes(b'{"about"')
    assert loaded(tmp_path).update == 2
    save(tmp_path, checkpoint(3))
    assert files(tmp_path) == [
        "00000002.json",
        "00000002.safetensors",
        "00000003.json",
        "00000003.safetensors",
    ]


def test_another_config_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(2))
    other = Config.model_validate({"maze": {"side": 13}})
    with pytest.raises(ClewError, match=r"maze.side is 9, not 13"):
        beginning(tmp_path, other, resume=True)


def test_a_run_is_not_overwritten_and_nothing_resumes_from_nothing(tmp_path: Path) -> None:
    assert beginning(tmp_path, CONFIG, resume=False) is None
    assert beginning(tmp_path, CONFIG, resume=True) is None
    save(tmp_path, checkpoint(2))
    with pytest.raises(ClewError, match="already holds a run; add --resume"):
        beginning(tmp_path, CONFIG, resume=False)
    found = beginning(tmp_path, CONFIG, resume=True)
    assert found
    assert found.update == 2


def test_a_journal_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for update in range(1, 6):
        journal.append({"update": update})
    journal.close()
    path = tmp_path / "updates.jsonl"
    with path.open("a") as file:
        file.write('{"update": 6, "cut sh')
    journal = Journal(tmp_path, 3)
    journal.append({"update": 4, "again": True})
    journal.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"update": 1},
        {"update": 2},
        {"update": 3},
        {"update": 4, "again": True},
    ]


def test_a_run_directory_belongs_to_one_learner(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    with pytest.raises(ClewError, match="another learner works in"):
        Journal(tmp_path, 0)
    journal.close()
    Journal(tmp_path, 0).close()


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
