"""`clew actor`: runs an actor alone."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from deploy.command.options import Keys, LogFormat, MetricsHost, MetricsPort, Modules
from deploy.process import logs
from deploy.process.heap import keep_freed_memory
from deploy.process.roles import run_actor
from deploy.process.settings import shortened
from deploy.process.status import LOOPBACK
from protocol.config import ClewError
from protocol.wire.keys import ActorKeys
from protocol.wire.messages import METRICS

MOST_LETTERS = 200  # of an actor's name


def actor(
    connect: Annotated[str, typer.Option(help="The learner's address: tcp://HOST:PORT or ipc://PATH.")],
    name: Annotated[str, typer.Option(help="The actor's name in logs.")] = "actor",
    keys: Keys = None,
    modules: Modules = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    metrics_address: Annotated[
        str,
        typer.Option(
            help="HOST:PORT where Prometheus finds the metrics, if not on the host that the learner sees; the learner "
            "must allow it with --actor-metrics-host."
        ),
    ] = "",
    log_format: LogFormat = "text",
) -> None:
    """Run an actor alone, which works for the learner until the run is over."""
    name = logs.printable(name)
    if len(name) > MOST_LETTERS:
        raise ClewError(f"--name has {len(name)} characters, and {MOST_LETTERS} are the most; give a shorter one")
    if not re.fullmatch(METRICS.replace(r"\z", r"\Z"), metrics_address):  # pydantic's dialect
        raise ClewError(
            f"--metrics-address wants HOST:PORT or [IPV6]:PORT, got {shortened(metrics_address)}; change it"
        )
    keep_freed_memory()
    logs.configure(log_format, "actor", actor=name)
    run_actor(
        connect,
        name,
        ActorKeys.of(keys) if keys else None,
        modules or (),
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        metrics_address=metrics_address,
    )
