"""`clew bench`: measures what the machine does, end to end."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from deploy.command.options import Actors, Device, Set
from deploy.process import output
from deploy.process.settings import load
from deploy.process.signals import interruptible
from deploy.process.versions import context, require


def bench(
    rule: Annotated[
        str | None, typer.Option(help="The update rule, instead of inner.rule: sgd, meta-sgd or learned.")
    ] = None,
    actors: Actors = 2,
    assignments: Set = None,
    device: Device = "auto",
    target: Annotated[
        bool,
        typer.Option(
            "--target", help="Measure the seconds that perfect.toml trains until one attempt at a maze is enough."
        ),
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Measure environment steps per second, end to end, and what takes the time."""
    require("torch", "safetensors")
    from deploy.command import bench_speed, bench_target

    given = [*([f"inner.rule={rule}"] if rule else []), *(assignments or [])]
    with interruptible():
        if target:
            figures = bench_target.bench(load(bench_target.CONFIG, given), actors, device)
            table = bench_target.report
        else:
            figures = bench_speed.bench(load(None, [*bench_speed.SETTING, *given]), actors, device)
            table = bench_speed.report
    if as_json:
        print(json.dumps({**context(), **figures}))
    else:
        output.show(table(figures))
