"""`clew compare`: lets clew and its rivals play the same held-out mazes."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.command.options import Actors, ConfigFile, Seed, Set, Updates, configured
from deploy.process.heap import keep_freed_memory
from deploy.process.output import Json, show
from deploy.process.signals import interruptible
from deploy.process.versions import require

if TYPE_CHECKING:
    from deploy.compare.compare import Row
    from deploy.compare.rival import Rival


def compare(
    config: ConfigFile = None,
    out: Annotated[
        Path, typer.Option(help="Where table, picture, page, runs and results are kept; what is there is used again.")
    ] = Path("runs/compare"),
    rivals: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Play these rivals alone, such as learned,planner; repeatable."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="100 mazes, a fifth of the updates, at most 500 attempts, RL² only by name: under 10 minutes on two "
            "cores. "
            "If not given: 500 mazes, all updates, at most 5,000 attempts: under two hours.",
        ),
    ] = False,
    count: Annotated[int | None, typer.Option(min=2, max=100_000, help="How many held-out mazes to draw.")] = None,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    actors: Actors = 2,
    as_json: Json = False,
) -> None:
    """Let clew and its rivals play the same held-out mazes: a table, a picture and a page that explains them.

    Rivals are other ways of learning to learn, ordinary reinforcement learning, planners and explorers. What must be
    trained is trained; an interrupted command goes on where it was. The same seed gives the same numbers.
    """
    require("torch", "safetensors", "matplotlib")
    from deploy.compare import compare as comparing
    from deploy.compare import page, picture, report
    from protocol.world import families

    keep_freed_memory()
    settings = configured(config, assignments, seed, updates, None)
    families.try_out(settings.maze)
    names = [name.strip() for given in rivals or () for name in given.split(",")]
    plan = comparing.planned(settings, out, names or None, quick, count, actors)
    with interruptible(), Watched(len(plan.rivals)) as watch:
        found = comparing.compare(plan, watch)
    png, figures = picture.draw(found), json.dumps(report.figures(found), allow_nan=False)
    comparing.write(out / "compare.png", png)
    comparing.write(out / "compare.html", page.write(found, png).encode())
    comparing.write(out / "compare.json", figures.encode())
    if as_json:
        print(figures)
    else:
        show(report.table(found))
        print(f"compare.html, compare.png and compare.json are in {out}")


class Watched:
    """Shows on standard error how far a comparison is: bars on a terminal, a line for each rival elsewhere."""

    def __init__(self, rivals: int) -> None:
        """Starts with none of the rivals done."""
        self._console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._all = self._bars.add_task("rivals", total=rivals)
        self._one = self._bars.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._bars.stop()

    def progress(self, rival: Rival, doing: str, done: int, of: int) -> None:
        """Moves the bar of the rival that is at work."""
        self._bars.update(self._one, description=f"{rival.title} {doing}", completed=done, total=of)

    def finished(self, row: Row) -> None:
        """Moves the bar of all rivals, and prints how this one did."""
        self._bars.advance(self._all)
        self._bars.update(self._one, completed=0, total=None)
        ratios = ", ".join(f"{point.ratio.value:.3f}" for point in row.groups[0].points[:3])
        self._console.print(f"{row.rival.title}: {ratios} at the first attempts", highlight=False)
