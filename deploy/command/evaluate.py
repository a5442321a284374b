"""`clew evaluate`: tries a run's policy in mazes that it was never trained on."""

# P parameters

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deploy.process.heap import keep_freed_memory
from deploy.process.output import Json, show
from deploy.process.versions import require
from protocol.config import MAX_SIDE, ClewError

Mazes = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE...", help="Maze files; without any, held-out mazes are drawn."),
]
# Typer's options take one value each, so `--mazes a.txt b.txt` leaves the second file to this.
MoreMazes = Annotated[list[Path] | None, typer.Argument(metavar="FILE", hidden=True)]


def evaluate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's directory.")],
    mazes: Mazes = None,
    more_mazes: MoreMazes = None,
    family: Annotated[str | None, typer.Option(help="Family of the held-out mazes, instead of the run's own.")] = None,
    side: Annotated[
        int | None, typer.Option(min=5, max=MAX_SIDE, help="Side of the held-out mazes, instead of the run's own.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="How many held-out mazes to draw; 500 if not given.")
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Attempts at each maze; if not given, 10, or as many as in training if more.",
        ),
    ] = None,
    attempts_per_step: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Attempts before each inner step, instead of inner.attempts."),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            min=1, max=2**30, help="How many steps an attempt may take, in every maze, instead of run.horizon_per_cell."
        ),
    ] = None,
    robots: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="How many robots try each maze, each on its own; if not given, more than one where mazes are few.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the mazes and the attempts.")] = 0,
    as_json: Json = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write curve.png, adaptation.png and learning_curve.png to RUN_DIR.")
    ] = False,
    film: Annotated[
        bool, typer.Option("--film", help="Write adaptation.gif to RUN_DIR: a robot's attempts in one of the mazes.")
    ] = False,
) -> None:
    """Try a run in mazes that it was never trained on, attempt after attempt; report success and steps of each."""
    require("safetensors", *(["matplotlib"] if pictures else []), *(["PIL"] if film else []))
    from deploy.study import evaluate as study
    from deploy.study import exam, report

    keep_freed_memory()
    if more_mazes and not mazes:
        raise ClewError(f"{more_mazes[0]} is one argument too many; name maze files after --mazes")
    drawing = {"--family": family, "--side": side, "--count": count}
    for option, value in drawing.items():
        if mazes and value is not None:
            raise ClewError(f"{option} is for mazes that are drawn, and --mazes names files; leave one of them out")
    run = study.opened(run_dir)
    settings = study.adapting(run.config, attempts, attempts_per_step)
    if mazes:
        wanted = exam.of_files([*mazes, *(more_mazes or [])], settings, horizon)
    else:
        wanted = exam.held_out(settings, family, side, count or 500, seed, horizon)
    result = study.evaluate(run.theta_P, settings, wanted, robots, seed)
    if as_json:
        print(json.dumps(report.figures(run, settings, result, seed)))
    else:
        show(report.tables(result))
    if pictures:
        from deploy.study import plots  # matplotlib takes long, and is not in the images

        plots.draw(run_dir, run.theta_P, settings, result, seed)
    if film:
        from deploy.study import film as films  # Pillow is not in the images

        films.write(run_dir, run.theta_P, settings, result, seed)
