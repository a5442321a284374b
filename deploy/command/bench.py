"""`clew bench`: measures what the machine does, end to end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from deploy.command.options import Device, Set
from deploy.process import output
from deploy.process.settings import load
from deploy.process.versions import context, require
from protocol.config import ClewError


def bench(
    rule: Annotated[
        str | None, typer.Option(help="The update rule, instead of inner.rule: sgd, meta-sgd or learned.")
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="How many actor processes: 2, or 1,000 simulated ones."),
    ] = None,
    assignments: Set = None,
    device: Device = "auto",
    links: Annotated[
        bool,
        typer.Option("--links", help="The links alone: simulated actors on real sockets, with and without keys."),
    ] = False,
    target: Annotated[
        bool,
        typer.Option("--target", help="Seconds of training of perfect.toml until one attempt at a maze is enough."),
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Measure environment steps per second, end to end, and what takes the time."""
    require("torch", "safetensors")
    from deploy.command import bench_speed as training
    from deploy.command import bench_target
    from tests import bench_links

    if links and target:
        raise ClewError("--links and --target measure different things; give one of them")
    given = [*([f"inner.rule={rule}"] if rule else []), *(assignments or [])]
    with interruptible():
        if links:
            figures = bench_links.bench(actors or 1_000)
            table = bench_links.report
        elif target:
            figures = bench_target.bench(load(bench_target.CONFIG, given), actors or 2, device)
            table = bench_target.report
        else:
            given = [*training.SETTING, *given]
            figures = training.bench(load(None, given), actors or 2, device)
            table = training.report
    if as_json:
        print(json.dumps({**context(), **figures}))
    else:
        output.show(table(figures))


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C within it is an exception, so that what was begun is undone; then the process ends as it would have."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
