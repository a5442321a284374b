"""`clew train`: trains on this machine, and shows how far it is."""

from __future__ import annotations

import os

from rich.console import Console

from deploy.command.display import Display, Tally
from deploy.command.options import (
    Actors,
    ConfigFile,
    Device,
    MetricsPort,
    Resume,
    RunDir,
    Seed,
    Set,
    Updates,
    configured,
    run_folder,
)
from deploy.process.fleet import Fleet
from deploy.process.logs import printable
from deploy.process.signals import stop_signals
from deploy.process.versions import require
from protocol.config import ClewError


def train(
    config: ConfigFile = None,
    run_dir: RunDir = None,
    actors: Actors = 2,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    resume: Resume = False,
    device: Device = "auto",
    metrics_port: MetricsPort = None,
) -> None:
    """Train with a learner and actors on this machine, until the updates are done or Ctrl-C."""
    require("torch", "safetensors")
    from learner import checkpoint
    from protocol.world import families

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ClewError(
            "clew train starts one learner, and torchrun started several of it; "
            "give torchrun `-m deploy learner`, and start actors by hand"
        )
    folder = run_folder(run_dir, resume)
    former = checkpoint.read(folder) if resume else None
    settings = configured(config, assignments, seed, updates, former)
    families.try_out(settings.maze)  # else the actors would die of it, one after another
    checkpoint.require_beginning(folder, settings, resume, former)  # a refusal comes before anything is started
    tally = Tally(settings, former.update if former else 0)
    display, alive = Display(Console()), 0
    with stop_signals() as stopped, Fleet(settings, folder, actors, device, resume, metrics_port) as fleet:
        display.say(f"run {printable(str(folder))}")
        with display:
            for record in fleet.updates():
                if stopped or display.is_unread:
                    break
                if record:
                    tally.add(record)
                alive = fleet.actors_alive or alive
                display.show(tally, alive)
            display.show(tally, alive, now=True)
        fleet.stop(in_haste=lambda: len(stopped) > 1)  # a second Ctrl-C waits for nothing
        fleet.raise_for_failure()
    kept = checkpoint.read(folder)
    if kept is None:
        display.say("stopped before the run began; nothing is kept")
    else:
        ended = "done" if kept.update >= settings.run.updates else "stopped"
        display.say(f"{ended} after {kept.update} updates, kept in {printable(str(folder))}")
