"""Checkpoints: written to a temporary file, synced, renamed; verified on load; the previous one is kept.

RUN_DIR/checkpoints/UPDATE.safetensors holds the arrays, UPDATE.json everything else and the checksum of the
former. The JSON comes last: a checkpoint is there once it is.
"""

# P parameters

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from learner.durable import put, sync
from protocol.config import ClewError, Config, is_of_first_design
from protocol.learning.inner import shapes
from protocol.wire import descriptors

Floats = npt.NDArray[np.float32]

KEPT = 2  # checkpoints
OURS = re.compile(
    r"([0-9]{8}|[1-9][0-9]{8,})\.(json|safetensors)(\.tmp)?"
)  # files of a checkpoint, whole or half-written
MAX_JSON_BYTES = 1_048_576  # of the JSON of a checkpoint, which takes some thousand

log = logging.getLogger("clew")


class CheckpointError(Exception):
    """A checkpoint that cannot be used, and why."""


class About(BaseModel):
    """The JSON of a checkpoint."""

    model_config = ConfigDict(extra="forbid", strict=True)

    update: Annotated[int, Field(ge=0)]  # updates done
    run: str  # the run's id
    config: dict[str, Any]
    versions: list[int]  # of theta
    steps: Annotated[int, Field(ge=0)]  # that Adam has taken
    arrays_sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a learner needs to go on as if it had never stopped."""

    update: int  # updates done
    run: str  # the run's id
    config: Config
    thetas: dict[int, Floats]  # [P] by version: what leases still to come may name; the newest is `update`
    mean: Floats  # [P] Adam's first moment
    square: Floats  # [P] Adam's second moment
    steps: int  # that Adam has taken; fewer than `update` where a gradient was not finite
    damaged: tuple[str, ...] = ()  # which newer ones it was read in place of, and what is wrong with each

    @property
    def theta(self) -> Floats:
        """Returns [P], the newest parameters."""
        return self.thetas[self.update]


def save(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Adds a checkpoint, and removes all but the newest. OSError leaves the former ones as they were."""
    folder = run_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    sync(run_dir)
    arrays = {f"theta.{version}": theta for version, theta in checkpoint.thetas.items()}
    content = save_arrays({**arrays, "adam.mean": checkpoint.mean, "adam.square": checkpoint.square})
    about = About(
        update=checkpoint.update,
        run=checkpoint.run,
        config=checkpoint.config.model_dump(mode="json"),
        versions=sorted(checkpoint.thetas),
        steps=checkpoint.steps,
        arrays_sha256=hashlib.sha256(content).hexdigest(),
    )
    name = f"{checkpoint.update:08d}"
    _clear(folder)  # of a save cut short: it takes the room that this one needs
    try:
        put(folder, {f"{name}.safetensors": content, f"{name}.json": _sealed(about.model_dump())})
    except OSError:
        _clear(folder)
        raise
    _prune(folder, checkpoint.update)


def read(run_dir: Path) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole, or None where there is none at all; raises ClewError if none is."""
    found = _newest_first(run_dir)
    damaged: list[str] = []
    for path in found:
        try:
            return replace(_read(path), damaged=tuple(damaged))
        except CheckpointError as error:
            damaged.append(f"{path} is damaged ({error})")
    if found:
        raise ClewError(
            f"no checkpoint in {run_dir / 'checkpoints'} is whole: {', '.join(damaged)}; "
            "start anew in another run directory"
        )
    return None


def load(run_dir: Path) -> Checkpoint | None:
    """Does what `read` does for whoever goes on with the checkpoint, and warns of each newer one that is damaged."""
    found = read(run_dir)
    for damage in found.damaged if found else ():
        log.warning("%s; the checkpoint before it is used", damage)
    return found


def beginning(run_dir: Path, config: Config, resume: bool) -> Checkpoint | None:
    """Loads the checkpoint that a run begins at, or None for afresh; raises ClewError if it must not begin."""
    found = load(run_dir) if resume else None
    require_beginning(run_dir, config, resume, found)
    return found


def require_beginning(run_dir: Path, config: Config, resume: bool, found: Checkpoint | None) -> None:
    """Raises ClewError if a run must not begin, or not be resumed from what was `found` there."""
    if not resume:
        if holds_run(run_dir):
            raise ClewError(f"{run_dir} already holds a run; add --resume, or choose another --run-dir")
        return
    if found is None:
        if holds_run(run_dir):
            raise ClewError(
                f"{run_dir} holds the records of a run and no checkpoint to resume it from; "
                "put its checkpoints back, or begin another run in another --run-dir"
            )
        raise ClewError(f"{run_dir} holds no run to resume; change --run-dir, or begin one without --resume")
    if found.config != config:
        others = ", ".join(_differences(found.config, config))
        raise ClewError(f"the run in {run_dir} has another config: {others}; use its own, or another --run-dir")
    require_fit(run_dir, found)


def holds_run(run_dir: Path) -> bool:
    """Says whether a run has left anything in `run_dir` that another would overwrite."""
    records = run_dir / "updates.jsonl"
    return bool(_newest_first(run_dir)) or (records.exists() and records.stat().st_size > 0)


def require_fit(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Raises ClewError if the arrays are not those of the config, as this version of clew understands it."""
    wanted = sum(math.prod(shape) for shape in shapes(checkpoint.config).values())
    for vector in (*checkpoint.thetas.values(), checkpoint.mean, checkpoint.square):
        if vector.shape != (wanted,) or vector.dtype != np.float32:
            raise ClewError(
                f"the checkpoint in {run_dir} holds {vector.size} parameters, where this version of clew has "
                f"{wanted}; use the version that it was trained with, or train anew"
            )


def _differences(ours: Config, theirs: Config) -> Iterator[str]:
    """Names the settings that differ: "maze.side is 9, not 13"."""
    for section, values in ours.model_dump().items():
        others = getattr(theirs, section).model_dump()
        for key, value in values.items():
            if value != others[key]:
                yield f"{section}.{key} is {value}, not {others[key]}"


def _read(path: Path) -> Checkpoint:
    about = _about(path)
    try:
        content = _content(path.with_suffix(".safetensors"))
        if hashlib.sha256(content).hexdigest() != about.arrays_sha256:
            raise CheckpointError("its arrays do not match their checksum")
        if is_of_first_design(about.config):
            raise ClewError(
                f"checkpoint {path} is of clew's first design, which this version cannot go on from; "
                "train anew with clew train, in another run directory"
            )
        arrays = load_arrays(content)
        return Checkpoint(
            update=about.update,
            run=about.run,
            config=Config.model_validate(about.config),
            thetas={version: arrays[f"theta.{version}"] for version in about.versions},
            mean=arrays["adam.mean"],
            square=arrays["adam.square"],
            steps=about.steps,
        )
    except ValidationError as error:
        gone = [".".join(map(str, one["loc"])) for one in error.errors() if one["type"] == "extra_forbidden"]
        why = f"sets {', '.join(gone)}, which this version has not" if gone else "has settings of another meaning"
        raise ClewError(
            f"checkpoint {path} is of another version of clew: it {why}; use the version that it was trained with, "
            "or train anew"
        ) from None
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(str(error)) from None


def _about(path: Path) -> About:
    try:
        content = _content(path, MAX_JSON_BYTES)
        told = json.loads(content)["about"]
        if content != _sealed(told):
            raise CheckpointError("it does not match its checksum")
        about = About.model_validate(told)
    except OSError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, too deep, or another thing than wanted
        raise CheckpointError("it is cut short or overwritten") from None
    if about.update != _update_of(path) or about.update not in about.versions:
        raise CheckpointError("it is not the checkpoint that its name says")
    return about


def _sealed(about: Any) -> bytes:
    """Returns the JSON with its own checksum in it."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return json.dumps({"about": about, "sha256": digest}, indent=1).encode()


def _content(path: Path, most_bytes: float = math.inf) -> bytes:
    """Returns the bytes of a file; refuses anything else, for a pipe would never end."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path.name} is not a file")
    if path.stat().st_size > most_bytes:
        raise CheckpointError(f"{path.name} is too large")
    return path.read_bytes()


def _newest_first(run_dir: Path) -> list[Path]:
    """Lists the JSON of every checkpoint, whatever it is worth; raises ClewError if the folder cannot be read."""
    try:
        return sorted(_ours(run_dir / "checkpoints", ".json"), key=_update_of, reverse=True)
    except OSError as error:
        raise ClewError(f"cannot read {run_dir}: {error.strerror}; mend that, or choose another --run-dir") from None


def _ours(folder: Path, suffix: str) -> list[Path]:
    """Lists the files in `folder` that bear the name of a checkpoint's file and end in `suffix`."""
    try:
        names = descriptors.opened(lambda: os.listdir(folder))
    except FileNotFoundError:
        return []
    return [folder / name for name in names if OURS.fullmatch(name) and name.endswith(suffix)]


def _update_of(path: Path) -> int:
    """Returns the number of updates done that a checkpoint's file name says."""
    return int(path.name.partition(".")[0])


def _prune(folder: Path, newest: int) -> None:
    """Removes all checkpoints but `newest` and those before it, the JSON first."""
    found = sorted(_ours(folder, ".json"), key=_update_of)
    kept = [path for path in found if _update_of(path) <= newest][-KEPT:]
    for path in found:
        if path not in kept:
            _remove(path)
    _clear(folder)


def _clear(folder: Path) -> None:
    """Removes what belongs to no checkpoint, of the files that are ours."""
    for path in _ours(folder, ".tmp"):
        _remove(path)
    for path in _ours(folder, ".safetensors"):
        if not path.with_suffix(".json").exists():
            _remove(path)


def _remove(path: Path) -> None:
    """Removes a file; a folder of that name is somebody else's."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
