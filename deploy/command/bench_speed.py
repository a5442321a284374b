"""Measures environment steps per second of a real learner and real actors, and what takes the time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich import box
from rich.table import Table

from deploy.process.fleet import Fleet
from learner.record import Record
from protocol.config import Config

SETTING = (  # over the defaults: what training with many attempts costs, from a fresh theta on
    "maze.family=perfect",
    "maze.side=9",
    "inner.steps=1",
    "inner.attempts=20",
    "outer.attempts=20",
    "run.mazes=40",
    "run.mazes_per_lease=40",
    "run.horizon_per_cell=1.2345",  # 100 steps
    "policy.dreams=false",
)
WARM_UP = 20  # updates before the clock starts
WINDOWS = 5  # whose median counts
WINDOW = 8  # updates


def bench(config: Config, actors: int, device: str) -> dict[str, Any]:
    """Runs the first updates of `config` in a directory of their own, and returns how fast they were."""
    count = WARM_UP + WINDOWS * WINDOW
    with (
        TemporaryDirectory(prefix="clew-bench-") as folder,
        Fleet(config, Path(folder) / "run", actors, device) as fleet,
    ):
        records = list(islice(filter(None, fleet.updates()), count))
        if len(records) < count:
            fleet.raise_for_failure()
    return figures(records[WARM_UP:], config, actors)


def figures(records: Sequence[Record], config: Config, actors: int) -> dict[str, Any]:
    """Computes the figures that `clew bench --json` prints."""
    windows = [records[at : at + WINDOW] for at in range(0, len(records), WINDOW)]
    speeds = [_steps(window) / _seconds(window) for window in windows]
    seconds, attempts = _seconds(records), sum(record.attempts for record in records)
    return {
        "steps_per_s": statistics.median(speeds),
        "windows": speeds,
        "rule": config.inner.rule,
        "actors": actors,
        "updates_per_s": len(records) / seconds,
        "attempts_per_s": attempts / seconds,
        "steps_per_attempt": _steps(records) / attempts,
        "learner_share": shares([record.phase_s for record in records], seconds),
        # of a thread beside the learner's
        "clerk_share": {"decoding": sum(record.decoding_s for record in records) / seconds},
        "actors_share": shares([record.actor_s for record in records], seconds * actors),
    }


def _steps(records: Sequence[Record]) -> int:
    return sum(record.steps for record in records)


def _seconds(records: Sequence[Record]) -> float:
    return sum(record.seconds for record in records)


def shares(spent_s: Sequence[Mapping[str, float | None]], seconds: float) -> dict[str, float]:
    """Returns the part of the time that each kind of work took; "other" is what was not measured."""
    kinds = sorted({kind for one in spent_s for kind in one})
    parts = {kind: sum(one.get(kind) or 0.0 for one in spent_s) / seconds for kind in kinds}
    return parts | {"other": 1 - sum(parts.values())}


def report(figures: dict[str, Any]) -> Table:
    """Makes a table of the figures, for people."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_header=False)
    slow, fast = min(figures["windows"]), max(figures["windows"])
    table.add_row("steps/s", f"[bold]{figures['steps_per_s']:,.0f}[/] (windows {slow:,.0f} to {fast:,.0f})")
    table.add_row("attempts/s", f"{figures['attempts_per_s']:,.0f}")
    table.add_row("updates/s", f"{figures['updates_per_s']:.1f}")
    table.add_row("steps/attempt", f"{figures['steps_per_attempt']:.1f}", end_section=True)
    for who in ("learner", "clerk", "actors"):
        parts = sorted(figures[f"{who}_share"].items(), key=lambda part: -part[1])
        table.add_row(f"time: {who}", ", ".join(f"{kind} {part:.0%}" for kind, part in parts))
    return table
