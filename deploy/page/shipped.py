"""The parameters that ship with clew, so that `clew page` has something to show before anything was trained.

They are those of default.toml, trained and packed by two commands at the root of a checkout:

    clew train --config deploy/configs/default.toml --run-dir runs/default
    python -m deploy.page.shipped runs/default
"""

# P parameters

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from deploy.study.evaluate import Run, opened
from protocol.config import Config

FILE = Path(__file__).with_name("default.safetensors")


def load(file: Path = FILE) -> Run:
    """Reads the shipped run: theta, the config that it was trained with, and the number of updates."""
    with safe_open(file, framework="numpy") as content:
        about = json.loads(content.metadata()["about"])
        theta_P = content.get_tensor("theta")
    return Run(about["name"], about["update"], Config.model_validate(about["config"]), theta_P)


def save(run: Run, file: Path = FILE) -> None:
    """Writes theta and its config as one file. Its name in the page is that of clew's default config."""
    about = {"name": "default", "update": run.update, "config": run.config.model_dump(mode="json")}
    save_file({"theta": run.theta_P}, file, {"about": json.dumps(about, sort_keys=True)})


if __name__ == "__main__":
    save(opened(Path(sys.argv[1])))
