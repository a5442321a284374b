"""Measures how long a run trains until unseen mazes are walked well after a single attempt: `clew bench --target`.

A run of `deploy/configs/perfect.toml` is trained from beginning to end, as `clew train` does. Theta is kept every few
updates, with the time that it took; each is tried on held-out mazes when the run is over, which this would disturb.
"""

# M mazes, W attempts, P parameters

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from deploy.process.fleet import Fleet
from learner import checkpoint
from protocol.config import Config
from protocol.learning.trial import attempt_and_adapt
from protocol.world import families
from protocol.world.cells import Floats
from protocol.world.maze import Mazes, shortest_M

CONFIG = Path(__file__).parent.parent / "configs" / "perfect.toml"
TARGET = 1.02  # steps over the shortest way after one inner step, to be reached on held-out mazes
MAZES = 500  # that are held out
EVERY = 10  # updates between two thetas that are tried


@dataclass(frozen=True)
class Kept:
    """A theta of the run, and when it was reached."""

    update: int
    seconds: float  # since the processes of the run were started
    theta_P: Floats


def bench(config: Config, actors: int, device: str, target: float = TARGET) -> dict[str, Any]:
    """Trains once, and returns when the target was reached, as `clew bench --target --json` prints it."""
    config = Config.model_validate(config.model_dump() | {"run": config.run.model_dump() | {"checkpoint_every": EVERY}})
    kept = list(trained(config, actors, device))
    held_out = families.sample(config.maze, MAZES, np.random.default_rng([0, 0x7A26]), held_out=True)
    curve = []
    for one in kept:
        ratio = ratio_after_one(one, held_out, config)
        curve.append({"update": one.update, "seconds": one.seconds, "ratio": ratio})
        if ratio <= target:
            break
    reached = curve[-1] if curve and curve[-1]["ratio"] <= target else None
    return {
        "seconds_to_target": reached and reached["seconds"],
        "update": reached and reached["update"],
        "target": target,
        "mazes": MAZES,
        "actors": actors,
        "curve": curve,
    }


def trained(config: Config, actors: int, device: str) -> Iterator[Kept]:
    """Trains a run in a directory of its own, and yields its thetas as they come."""
    began = time.monotonic()
    with (
        TemporaryDirectory(prefix="clew-bench-") as folder,
        Fleet(config, Path(folder) / "run", actors, device) as fleet,
    ):
        last = 0
        for record in fleet.updates():
            if record and record.update % EVERY == 0:
                seconds, found = time.monotonic() - began, checkpoint.load(Path(folder) / "run")
                if found and found.update > last:
                    yield Kept(found.update, seconds, found.theta)
                    last = found.update
        fleet.raise_for_failure()


def ratio_after_one(kept: Kept, mazes: Mazes, config: Config) -> float:
    """Returns steps ÷ shortest way after one inner step; a failed attempt counts as its horizon."""
    rng = np.random.default_rng([kept.update, 0x7A26])
    length_W = attempt_and_adapt(kept.theta_P, mazes, rng, config).walks[1].length_W
    attempts = len(length_W) // len(mazes)
    return float(length_W.sum() / (attempts * shortest_M(mazes).sum()))


def report(figures: dict[str, Any]) -> Table:
    """Makes a table of the figures, for people."""
    table = Table("update", "seconds", "steps ÷ shortest after one", box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for point in figures["curve"]:
        table.add_row(str(point["update"]), f"{point['seconds']:.1f}", f"{point['ratio']:.3f}")
    table.add_section()
    seconds = figures["seconds_to_target"]
    target = f"{figures['target']} on {figures['mazes']} held-out mazes"
    table.add_row("target", "not reached" if seconds is None else f"[bold]{seconds:.1f}[/]", target)
    return table
