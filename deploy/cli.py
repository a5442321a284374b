"""The `clew` command: train, learner, actor, ray, keys, config, doctor, evaluate, bench."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from deploy.command import keys as keyring
from deploy.command.bench import bench
from deploy.command.display import Display, Tally
from deploy.command.evaluate import evaluate
from deploy.command.options import (
    Actors,
    BeginOrResume,
    ConfigFile,
    Device,
    Keys,
    LogFormat,
    MetricsHost,
    MetricsPort,
    Modules,
    Resume,
    RunDir,
    Seed,
    Set,
    Updates,
)
from deploy.process import logs, output, status
from deploy.process.fleet import Fleet, LearnerError
from deploy.process.heap import keep_freed_memory
from deploy.process.settings import as_toml, explain, gather, load, shortened
from deploy.process.versions import context, require
from protocol.config import ClewError, Config
from protocol.wire.address import Address
from protocol.wire.keys import ActorKeys, LearnerKeys
from protocol.wire.messages import METRICS

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(keyring.app, name="keys")
UsageError: Any = typer.BadParameter.__mro__[1]  # a command line that cannot be understood; Typer does not export it

ADDRESS = "tcp://127.0.0.1:7777"
MOST_LETTERS = 200  # of an actor's name


def main() -> None:
    """`clew`: what a user can mend is said in one line, with exit code 2."""
    output.take_over()
    logs.configure("text", "clew", logging.WARNING)
    try:
        code = app(prog_name="clew", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except output.OutputError as error:
        fault, code = ("", 1) if error.is_unread else (str(error), 2)
    except ClewError as error:
        fault, code = str(error), 2
    except UsageError as error:
        fault, code = misunderstood(error), 2
    except LearnerError as error:
        fault, code = str(error), 1
    except MemoryError:
        fault, code = "there is not enough memory; ask for less at a time", 1
    if fault:
        print(f"clew: {logs.printable(fault)}", file=sys.stderr)
    sys.exit(code)


def misunderstood(error: Any) -> str:
    """What is wrong with a command line, in one sentence; nothing where Typer has shown the help instead."""
    detail = error.__cause__.errors()[0] if isinstance(error.__cause__, ValidationError) else None
    if detail and detail["type"] != "value_error":  # a value of the wrong type, or out of range
        return explain(detail | {"loc": (error.param.opts[0],)})
    said = error.format_message().strip().rstrip(".").replace(": Value error, ", ": ")
    command = error.ctx.command_path if error.ctx else "clew"
    return said and f"{said[0].lower()}{said[1:]}; see `{command} --help`"


def show_version(wanted: bool) -> None:
    """Prints the version, where it is wanted, and ends."""
    if wanted:
        known = context()
        print(f"clew {known['clew']}, contract {str(known['contract'])[:12]}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Learns how to learn mazes."""


@app.command()
def train(
    config: ConfigFile = None,
    run_dir: RunDir = None,
    actors: Actors = 2,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    resume: Resume = False,
    device: Device = "auto",
    metrics_port: MetricsPort = None,
) -> None:
    """Train: a learner and actors on this machine, until the updates are done or Ctrl-C."""
    require("torch", "safetensors")
    from learner import checkpoint
    from protocol.world import families

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ClewError(
            "clew train starts one learner, and torchrun started several of it; "
            "give torchrun `-m learner`, and start actors by hand"
        )
    folder = run_folder(run_dir, resume)
    settings = configured(config, assignments, seed, updates, folder if resume else None)
    families.try_out(settings.maze)  # else the actors would die of it, one after another
    former = checkpoint.beginning(folder, settings, resume)  # a refusal comes before anything is started
    tally = Tally(settings, former.update if former else 0)
    display, alive = Display(Console()), 0
    with stop_signals() as stopped, Fleet(settings, folder, actors, device, resume, metrics_port) as fleet:
        display.say(f"run {logs.printable(str(folder))}")
        with display:
            for record in fleet.updates():
                if stopped or display.is_unread:
                    break
                if record:
                    tally.add(record)
                alive = fleet.actors_alive or alive
                display.show(tally, alive)
            display.show(tally, alive, now=True)
        fleet.stop(in_haste=lambda: len(stopped) > 1)  # a second Ctrl-C waits for nothing
        fleet.raise_for_failure()
    kept = checkpoint.load(folder)
    if kept is None:
        display.say("stopped before the run began; nothing is kept")
    else:
        ended = "done" if kept.update >= settings.run.updates else "stopped"
        display.say(f"{ended} after {kept.update} updates, kept in {logs.printable(str(folder))}")


@app.command()
def learner(
    config: ConfigFile = None,
    run_dir: RunDir = None,
    bind: Annotated[str, typer.Option(help="Where actors find the learner: tcp://HOST:PORT or ipc://PATH.")] = ADDRESS,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    resume: Resume = False,
    begin_or_resume: BeginOrResume = False,
    device: Device = "auto",
    keys: Keys = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = status.LOOPBACK,
    actor_metrics_host: Annotated[
        list[str] | None,
        typer.Option(help="A host that actors may name for their own metrics (--metrics-address); repeatable."),
    ] = None,
    log_format: LogFormat = "text",
) -> None:
    """A learner alone; start actors by hand. Under torchrun, one of several processes."""
    require("torch", "safetensors")
    from learner import checkpoint
    from learner.learner import Learner, find_device, live, repeat_exactly
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
        settings = configured(config, assignments, seed, updates, folder if resume else None)
        checkpoint.beginning(folder, settings, resume)  # a refusal comes before anything is started
        mine = LearnerKeys.of(keys) if keys else None
        print(f"run {logs.printable(str(folder))}", flush=True)
        with Team(seat, settings, where) if seat else nullcontext() as team:
            named = actor_metrics_host or ()
            one = Learner(settings, folder, bind, where, resume, mine, team=team, metrics_hosts=named)
            logs.bind(run=one.run_id)
            readiness, targets = (lambda: one.is_ready), (lambda: one.targets)
            with status.serve(metrics_port, one.metrics.registry, readiness, targets, metrics_host):
                live(one)
    except RankError as error:
        raise LearnerError(str(error)) from None


@app.command()
def actor(
    connect: Annotated[str, typer.Option(help="The learner's address: tcp://HOST:PORT or ipc://PATH.")],
    name: Annotated[str, typer.Option(help="The actor's name in logs.")] = "actor",
    keys: Keys = None,
    modules: Modules = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = status.LOOPBACK,
    metrics_address: Annotated[
        str,
        typer.Option(
            help="HOST:PORT where Prometheus finds them, if not on the host that the learner sees; it must allow that."
        ),
    ] = "",
    log_format: LogFormat = "text",
) -> None:
    """An actor alone: works for the learner until the run is over."""
    from actors.actor import Actor, live

    name = logs.printable(name)
    if len(name) > MOST_LETTERS:
        raise ClewError(f"--name has {len(name)} characters, and {MOST_LETTERS} are the most; give a shorter one")
    if not re.fullmatch(METRICS.replace(r"\z", r"\Z"), metrics_address):  # pydantic's dialect
        raise ClewError(
            f"--metrics-address wants HOST:PORT or [IPV6]:PORT, got {shortened(metrics_address)}; change it"
        )
    keep_freed_memory()
    logs.configure(log_format, "actor", actor=name)
    one = Actor(connect, name, ActorKeys.of(keys) if keys else None, modules or ())
    registry = one.metrics.registry
    with status.serve(metrics_port, registry, lambda: one.is_ready, host=metrics_host) as server:
        one.metrics_at = metrics_address or (f":{server.port}" if server else "")
        live(one)


@app.command("ray")
def on_ray(
    connect: Annotated[str, typer.Option(help="The learner's address, as the cluster's nodes see it.")],
    actors: Annotated[int, typer.Option(min=1, help="How many actors; each takes a core.")],
    keys: Keys = None,
    modules: Modules = None,
    address: Annotated[
        str, typer.Option(help="The Ray cluster's HOST:PORT; auto: RAY_ADDRESS, or the one of this machine.")
    ] = "auto",
    metrics_host: Annotated[
        str, typer.Option(help="Serve each actor's /metrics there, on any free port; 0.0.0.0 for all.")
    ] = "",
) -> None:
    """Actors on a Ray cluster, and others for those that die, until the run is over or Ctrl-C."""
    Address.of(connect)  # refused here, and not by every actor
    mine = ActorKeys.of(keys) if keys else None
    from deploy.ray import Team

    with Team(address, connect, actors, mine, metrics_host, modules or ()) as team, stop_signals() as stopped:
        print(f"{actors} actors for {connect}", flush=True)
        is_over = team.wait(stopped)
    print("the run is over" if is_over else "stopped")


@app.command("config")
def show_config(config: ConfigFile = None, assignments: Set = None, as_json: output.Json = False) -> None:
    """Print every setting as a TOML file, and behind each where it comes from: a file, the environment or --set."""
    settings = gather(config, assignments or [])
    if as_json:
        tree = settings.config.model_dump(mode="json")
        print(json.dumps({**context(), "config": tree, "origins": dict(settings.origins)}))
    else:
        print(as_toml(settings))


@app.command()
def doctor(
    connect: Annotated[str | None, typer.Option(help="A learner's address, as an actor would use it.")] = None,
    keys: Keys = None,
) -> None:
    """Examine this machine and the way to a learner, a line each; exit code 1 where anything fails."""
    from deploy.command.doctor import examine

    failed = False
    for finding in examine(connect, keys):
        print(finding, flush=True)
        failed |= not finding.is_fine
    raise typer.Exit(int(failed))


app.command()(evaluate)


app.command()(bench)


def configured(
    file: Path | None,
    assignments: list[str] | None,
    seed: int | None,
    updates: int | None,
    resumed: Path | None,
) -> Config:
    """The settings of a command: --seed and --updates are short for --set; a resumed run brings its own."""
    from learner import checkpoint

    short = {"run.seed": seed, "run.updates": updates}
    given = [f"{key}={value}" for key, value in short.items() if value is not None]
    former = checkpoint.load(resumed) if resumed and not file else None
    return load(file, [*(assignments or []), *given], former.config if former else None)


def run_folder(given: Path | None, resume: bool) -> Path:
    """The run's directory: one named after the time and this process, if none is given: two may start in one second."""
    if resume and not given:
        raise ClewError("a run can be resumed only where it is known which one; add --run-dir DIR")
    return given or Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is empty until the process is asked to stop."""
    received: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
