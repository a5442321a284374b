"""Trains what a rival needs, in a run's directory that is kept: what is there is used, or resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from deploy.process.fleet import Fleet
from learner import checkpoint
from protocol.config import ClewError, Config
from protocol.world.cells import Floats


def folder_of(runs: Path, config: Config) -> Path:
    """Names the directory of the run with a config: rivals that train alike share one."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return runs / digest[:12]


def trained(config: Config, folder: Path, actors: int, progress: Callable[[int, int], None]) -> Floats:
    """Returns theta once the config's updates are done; `progress` takes the updates done, and of how many."""
    former = checkpoint.read(folder)
    if former is None or former.update < config.run.updates:
        checkpoint.require_beginning(folder, config, former is not None, former)  # before anything is started
        with Fleet(config, folder, actors, "auto", resume=former is not None) as fleet:
            for record in fleet.updates():
                if record:
                    progress(record.update, config.run.updates)
            fleet.raise_for_failure()
        former = checkpoint.read(folder)
    if former is None or former.update < config.run.updates:
        raise ClewError(f"the run in {folder} ended before its {config.run.updates} updates were done; start again")
    checkpoint.require_fit(folder, former)
    return former.theta
