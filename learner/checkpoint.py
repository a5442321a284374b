"""Checkpoints: written to a temporary file, synced, renamed; verified on load; the previous one is kept.

RUN_DIR/checkpoints/UPDATE.safetensors holds the arrays, UPDATE.json everything else and the checksum of the
former. The JSON comes last: a checkpoint is there once it is.
"""

# P parameters, V versions of theta

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from protocol.config import ClewError, Config, is_of_first_design
from protocol.wire import descriptors

Floats = npt.NDArray[np.float32]

KEPT = 2  # checkpoints

log = logging.getLogger("clew")


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""


@dataclass(frozen=True)
class Checkpoint:
    """All that a learner needs to go on as if it had never stopped."""

    update: int  # updates done
    run: str  # the run's id
    config: Config
    thetas: dict[int, Floats]  # [P] by version: what leases still to come may name; the newest is `update`
    mean: Floats  # [P] Adam's first moment
    square: Floats  # [P] Adam's second moment
    steps: int  # that Adam has taken; fewer than `update` where a gradient was not finite

    @property
    def theta(self) -> Floats:
        """[P] the newest parameters."""
        return self.thetas[self.update]


def save(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Adds a checkpoint, and removes all but the newest. OSError leaves the former ones as they were."""
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    _sync(run_dir)
    arrays = {f"theta.{version}": theta for version, theta in checkpoint.thetas.items()}
    content = save_arrays({**arrays, "adam.mean": checkpoint.mean, "adam.square": checkpoint.square})
    about = {
        "update": checkpoint.update,
        "run": checkpoint.run,
        "config": checkpoint.config.model_dump(mode="json"),
        "versions": sorted(checkpoint.thetas),
        "steps": checkpoint.steps,
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
    }
    name = f"{checkpoint.update:08d}"
    _clear(folder)  # of a save cut short: it takes the room that this one needs
    try:
        _put(folder, {f"{name}.safetensors": content, f"{name}.json": _sealed(about)})
    except OSError:
        _clear(folder)
        raise
    _prune(folder, name)


def load(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, with a warning for each that is not; None where there is none."""
    found = _newest_first(run_dir)
    for path in found:
        try:
            return _read(path)
        except CheckpointError as error:
            log.warning("%s is damaged (%s); trying the checkpoint before it", path, error)
    if found:
        raise ClewError(f"no checkpoint in {run_dir / 'checkpoints'} is whole; start anew in another run directory")
    return None


def beginning(run_dir: Path, config: Config, resume: bool) -> Checkpoint | None:
    """Where a run in `run_dir` begins: at a checkpoint, or afresh; ClewError where it must not."""
    if not resume:
        if _newest_first(run_dir) or (run_dir / "updates.jsonl").exists():
            raise ClewError(f"{run_dir} already holds a run; add --resume, or choose another --run-dir")
        return None
    checkpoint = load(run_dir)
    if checkpoint and checkpoint.config != config:
        others = ", ".join(_differences(checkpoint.config, config))
        raise ClewError(f"the run in {run_dir} has another config: {others}; use its own, or another --run-dir")
    return checkpoint


def _differences(ours: Config, theirs: Config) -> Iterator[str]:
    """maze.side is 9, not 13."""
    for section, values in ours.model_dump().items():
        others = getattr(theirs, section).model_dump()
        for key, value in values.items():
            if value != others[key]:
                yield f"{section}.{key} is {value}, not {others[key]}"


def _read(path: Path) -> Checkpoint:
    about = _about(path)
    try:
        content = path.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != about["arrays_sha256"]:
            raise CheckpointError("its arrays do not match their checksum")
        if is_of_first_design(about["config"]):
            raise ClewError(
                f"checkpoint {path} is of clew's first design, which this version cannot go on from; "
                "train anew with clew train, in another run directory"
            )
        arrays = load_arrays(content)
        return Checkpoint(
            update=about["update"],
            run=about["run"],
            config=Config.model_validate(about["config"]),
            thetas={version: arrays[f"theta.{version}"] for version in about["versions"]},
            mean=arrays["adam.mean"],
            square=arrays["adam.square"],
            steps=about["steps"],
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise CheckpointError(str(error)) from None
    except ValidationError:
        raise ClewError(f"checkpoint {path} is of another version of clew; use that one") from None


def _about(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        about: dict[str, Any] = json.loads(content)["about"]
    except OSError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("it is cut short or overwritten") from None
    if content != _sealed(about):
        raise CheckpointError("it does not match its checksum")
    return about


def _sealed(about: dict[str, Any]) -> bytes:
    """The JSON, with its own checksum."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return json.dumps({"about": about, "sha256": digest}, indent=1).encode()


def _newest_first(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "checkpoints").glob("*.json"), reverse=True)


def _put(folder: Path, files: dict[str, bytes]) -> None:
    """Writes all of them before any gets its name; then each, in order, gets it and is on the disk."""
    for name, content in files.items():
        with descriptors.spare():
            file = (folder / (name + ".tmp")).open("wb")
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for name in files:
        (folder / (name + ".tmp")).replace(folder / name)
        _sync(folder)


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk when it returns."""
    with descriptors.spare():
        opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _prune(folder: Path, newest: str) -> None:
    """Removes all but `newest` and those before it, the JSON first."""
    with descriptors.spare():
        found = list(folder.glob("*.json"))
    kept = sorted(path.stem for path in found if path.stem <= newest)[-KEPT:]
    for path in found:
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    _clear(folder)


def _clear(folder: Path) -> None:
    """Removes what belongs to no checkpoint."""
    with descriptors.spare():
        found = [*folder.glob("*.tmp"), *folder.glob("*.safetensors")]
    for path in found:
        if path.suffix == ".tmp" or not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)
