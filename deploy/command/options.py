"""The options that several commands share, and what commands make of them."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.process import logs
from deploy.process.settings import MODULES, load
from deploy.process.versions import context
from protocol.config import ClewError, Config

if TYPE_CHECKING:
    from learner.checkpoint import Checkpoint

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings; see deploy/configs.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, which overrides all else; repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="The run's seed, instead of run.seed.")]
Updates = Annotated[int | None, typer.Option(help="The number of updates, instead of run.updates.")]
RunDir = Annotated[
    Path | None,
    typer.Option(help="The run's directory; if not given, a new one in runs, named after the time."),
]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The process's key directory; see `clew keys`.")
]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Serve /metrics and /healthz on this port; 0 is any free port.")
]
MetricsHost = Annotated[
    str, typer.Option(help="Serve metrics on this host: 0.0.0.0, or :: with IPv6, for a Prometheus on another machine.")
]
LogFormat = Annotated[logs.Style, typer.Option(help="Log format: text or json.")]
Device = Annotated[str, typer.Option(help="The learner's device: auto (a GPU where there is one), cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")]
BeginOrResume = Annotated[
    bool,
    typer.Option("--begin-or-resume", help="Resume the run of --run-dir, or begin it where there is none yet."),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module",
        envvar=MODULES,
        help="A module of your own that an actor may import if the config names it; repeatable; the variable takes "
        "several, with spaces between them.",
    ),
]
Actors = Annotated[int, typer.Option(min=1, max=1_000, help="How many actor processes to start.")]


def show_version(wanted: bool) -> None:
    """Prints the version, where it is wanted, and ends the command."""
    if wanted:
        known = context()
        print(f"clew {known['clew']}, contract {str(known['contract'])[:12]}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
]


def configured(
    file: Path | None,
    assignments: list[str] | None,
    seed: int | None,
    updates: int | None,
    former: Checkpoint | None,
) -> Config:
    """Returns the settings of a command. --seed and --updates are short for --set; a resumed run brings its own."""
    short = {"run.seed": seed, "run.updates": updates}
    given = [f"{key}={value}" for key, value in short.items() if value is not None]
    return load(file, [*(assignments or []), *given], former.config if former and not file else None)


def run_folder(given: Path | None, resume: bool) -> Path:
    """Returns the run's directory; without one given, a new name of the time and the process id."""
    if resume and not given:
        raise ClewError("a run can be resumed only where it is known which one; add --run-dir DIR")
    # Two runs may start in one second.
    return given or Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"
