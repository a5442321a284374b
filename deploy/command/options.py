"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.process import logs

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; see deploy/configs.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE over everything else; repeatable.")]
Seed = Annotated[int | None, typer.Option(help="The run's seed, instead of run.seed.")]
Updates = Annotated[int | None, typer.Option(help="How many updates, instead of run.updates.")]
RunDir = Annotated[
    Path | None,
    typer.Option(help="Where the run is kept; a new directory in runs, named after the time, if not given."),
]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="The process's key directory; see `clew keys`.")
]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Serve /metrics and /healthz there; 0: any free port.")
]
MetricsHost = Annotated[
    str, typer.Option(help="Where to serve them: 0.0.0.0, or :: with IPv6, for a Prometheus on another machine.")
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
    typer.Option("--module", help="A module of your own that an actor may import if the config names it; repeatable."),
]
Actors = Annotated[int, typer.Option(min=1, max=1_000, help="How many actor processes to start.")]
