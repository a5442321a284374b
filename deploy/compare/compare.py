"""Lets every rival play the same held-out mazes, and keeps what was trained and what was played.

OUT/runs holds the training runs, OUT/results a file for each rival. Whatever was made of the same inputs is used again.
"""

# M mazes, C cells of all mazes, P parameters

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from deploy.compare.played import SHOWN, Group, groups
from deploy.compare.rival import OURS, Rival, Task, changed
from deploy.compare.rivals import chosen
from deploy.compare.training import folder_of, trained
from deploy.process.versions import context
from deploy.study import exam as exams
from deploy.study.exam import Exam
from protocol.config import ClewError, Config

PLAYED_BY = (
    "compare/gradient",
    "compare/rival",
    "compare/minds",
    "compare/played",
    "compare/rivals",
    "compare/tabular",
    "study/explorer",
)  # the files that decide a rival's figures


class Watch(Protocol):
    """Shows somebody how far a comparison is."""

    def progress(self, rival: Rival, doing: str, done: int, of: int) -> None:
        """Takes how far a rival is with its training or its attempts."""

    def finished(self, row: Row) -> None:
        """Takes the figures of a rival."""


@dataclass(frozen=True)
class Plan:
    """The comparison that is wanted."""

    config: Config
    rivals: tuple[Rival, ...]
    out: Path
    mazes: int
    most: int  # attempts at each maze of rivals that learn for as long as it takes
    actors: int


@dataclass(frozen=True)
class Row:
    """A rival and its figures."""

    rival: Rival
    groups: tuple[Group, ...]  # all mazes, then those of each kind where there are several
    updates: int | None  # of its training; None where nothing was trained
    seconds: float  # that its attempts took


@dataclass(frozen=True)
class Comparison:
    """The findings of `clew compare`."""

    config: Config
    seed: int
    exam: Exam
    rows: tuple[Row, ...]


def planned(config: Config, out: Path, names: list[str] | None, quick: bool, mazes: int | None, actors: int) -> Plan:
    """Makes the plan: a quick one has a fifth of the mazes and of the updates, and a tenth of the attempts at most.

    It leaves out rivals that take long to train, unless they are named.
    """
    if quick:
        config = changed(config, {"run.updates": max(1, config.run.updates // 5)})
    return Plan(config, chosen(names, quick), out, mazes or (100 if quick else 500), 500 if quick else 5000, actors)


def compare(plan: Plan, watch: Watch) -> Comparison:
    """Plays what has not been played before, one rival after another."""
    config, seed = plan.config, plan.config.run.seed
    make(plan.out)
    exam = exams.held_out(config, None, None, plan.mazes, seed)
    rows = []
    for rival in plan.rivals:
        row = _row(rival, plan, exam, watch)
        watch.finished(row)
        rows.append(row)
    return Comparison(config, seed, exam, tuple(rows))


def _row(rival: Rival, plan: Plan, exam: Exam, watch: Watch) -> Row:
    """Returns the figures of a rival: those that are kept, if they were made of the same inputs, or new ones."""
    training, theta_P = rival.training(plan.config), None
    if training:
        folder = folder_of(plan.out / "runs", training)
        theta_P = trained(training, folder, plan.actors, lambda done, of: watch.progress(rival, "trains", done, of))
    task = Task(exam, plan.config, plan.config.run.seed, plan.most, theta_P)
    file, inputs = plan.out / "results" / f"{rival.name}.json", inputs_of(rival, task)
    kept = _kept(file, inputs)
    if kept is None:
        began = time.monotonic()
        played = rival.play(task, lambda done, of: watch.progress(rival, "plays", done, of))
        found = [asdict(group) for group in groups(played, exam, task.seed)]
        kept = {"inputs": inputs, "groups": found, "seconds": time.monotonic() - began}
        write(file, json.dumps(kept, allow_nan=False).encode())
    updates = training.run.updates if training else None
    return Row(rival, tuple(Group.read(tree) for tree in kept["groups"]), updates, kept["seconds"])


def inputs_of(rival: Rival, task: Task) -> dict[str, Any]:
    """Returns all that decides a rival's figures, as JSON holds it."""
    deploy = Path(__file__).parents[1]
    sources = b"".join((deploy / f"{name}.py").read_bytes() for name in PLAYED_BY)
    return {
        "rival": rival.name,
        "config": task.config.model_dump(mode="json"),
        "seed": task.seed,
        "most": task.most,
        "mazes": _digest(*(array.tobytes() for array in _arrays(task.exam))),
        "theta": None if task.theta_P is None else _digest(task.theta_P.tobytes()),
        "contract": context()["contract"],
        "sources": _digest(sources),
    }


def _arrays(exam: Exam) -> Sequence[Any]:
    mazes = exam.mazes
    return mazes.shape_M2, mazes.start_M, mazes.cell_C, exam.horizon_M


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _kept(file: Path, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads what was kept; None where there is nothing, or nothing that was made of the same inputs."""
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.get("inputs") == inputs else None


def make(out: Path) -> None:
    """Makes the directory of the comparison; raises ClewError where that is not possible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClewError(f"cannot write to {out}: {error.strerror}; choose another --out") from None


def write(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all; raises ClewError where that is not possible."""
    half = file.with_name(f"{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content)
        os.replace(half, file)
    except OSError as error:
        raise ClewError(f"cannot write {file}: {error.strerror}; make room or give access") from None


@dataclass(frozen=True)
class Verdict:
    """The attempts at which clew's learned rule is ahead of one rival, its interval wholly below the other's."""

    rival: Rival
    ahead: dict[str, tuple[int, ...]]  # by kind of maze, of the attempts from 2 to 10
    behind: dict[str, tuple[int, ...]]  # the attempts at which it is the rival that is ahead


def verdicts(found: Comparison) -> list[Verdict]:
    """Holds the learned rule against every other rival; none where it did not play."""
    ours = next((row for row in found.rows if row.rival.name == OURS), None)
    rows = [row for row in found.rows if ours and row is not ours]
    return [
        Verdict(row.rival, _ahead(ours.groups, row.groups), _ahead(row.groups, ours.groups)) for row in rows if ours
    ]


def _ahead(groups: Sequence[Group], others: Sequence[Group]) -> dict[str, tuple[int, ...]]:
    """Returns the attempts, from 2 to 10, at which the interval of one is wholly below that of the other, by kind."""
    pairs = list(zip(groups, others, strict=True))
    return {one.name: tuple(at for at in range(2, SHOWN + 1) if _below(one, other, at)) for one, other in pairs}


def _below(one: Group, other: Group, attempt: int) -> bool:
    ours, theirs = one.at(attempt), other.at(attempt)
    return bool(
        ours and theirs and ours.ratio.interval and theirs.ratio.interval
        and ours.ratio.interval[1] < theirs.ratio.interval[0]
    )  # fmt: skip
