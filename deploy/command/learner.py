"""`clew learner`: runs a learner alone, or one of its processes under torchrun."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from deploy.command.options import (
    BeginOrResume,
    ConfigFile,
    Device,
    Keys,
    LogFormat,
    MetricsHost,
    MetricsPort,
    Resume,
    RunDir,
    Seed,
    Set,
    Updates,
    configured,
    run_folder,
)
from deploy.process import logs
from deploy.process.fleet import LearnerError
from deploy.process.heap import keep_freed_memory
from deploy.process.roles import run_learner
from deploy.process.status import LOOPBACK
from deploy.process.versions import require
from protocol.wire.keys import LearnerKeys

ADDRESS = "tcp://127.0.0.1:7777"


def learner(
    config: ConfigFile = None,
    run_dir: RunDir = None,
    bind: Annotated[
        str, typer.Option(help="The address where actors find the learner: tcp://HOST:PORT or ipc://PATH.")
    ] = ADDRESS,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    resume: Resume = False,
    begin_or_resume: BeginOrResume = False,
    device: Device = "auto",
    keys: Keys = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    actor_metrics_host: Annotated[
        list[str] | None,
        typer.Option(help="A host that actors may name for their own metrics (--metrics-address); repeatable."),
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """Run a learner alone; its actors are started by hand. Under torchrun it is one of several processes."""
    require("torch", "safetensors")
    from learner import checkpoint
    from learner.device import find_device, repeat_exactly
    from learner.parallel import RankError, Seat, Team, follow

    keep_freed_memory()
    logs.configure(log_format, "learner")
    seat, where = Seat.here(), find_device(device)
    try:
        if seat:
            where = seat.device(where)
            if seat.rank:
                repeat_exactly()
                follow(seat, where)
                return
        folder = run_folder(run_dir, resume or begin_or_resume)
        resume = resume or (begin_or_resume and checkpoint.holds_run(folder))
        former = checkpoint.read(folder) if resume else None
        settings = configured(config, assignments, seed, updates, former)
        checkpoint.require_beginning(folder, settings, resume, former)  # a refusal comes before anything is started
        mine = LearnerKeys.of(keys) if keys else None
        print(f"run {logs.printable(str(folder))}", flush=True)
        with Team(seat, settings, where) if seat else nullcontext() as team:
            run_learner(
                settings,
                folder,
                bind,
                where,
                resume,
                keys=mine,
                team=team,
                metrics_port=metrics_port,
                metrics_host=metrics_host,
                actor_metrics_hosts=actor_metrics_host or (),
            )
    except RankError as error:
        raise LearnerError(str(error)) from None
