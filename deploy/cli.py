"""The `clew` command: train, learner, actor, ray, keys, doctor, evaluate, bench."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from deploy import keys as keyring
from deploy import logs, status
from deploy.display import Display, Tally
from deploy.heap import keep_freed_memory
from deploy.local import Fleet, LearnerError
from deploy.settings import load
from protocol.config import ClewError, Config
from protocol.wire.keys import ActorKeys, LearnerKeys

app = typer.Typer(
    help="Learns how to learn mazes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keyring.app, name="keys")

ADDRESS = "tcp://127.0.0.1:7777"

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; see deploy/configs.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE over everything else; repeatable.")]
Seed = Annotated[int | None, typer.Option(help="Over run.seed.")]
Updates = Annotated[int | None, typer.Option(help="Over run.updates.")]
RunDir = Annotated[Path | None, typer.Option(help="Where the run is kept; runs/TIME if not given.")]
Keys = Annotated[Path | None, typer.Option("--keys", metavar="DIR", help="Its key directory; see `clew keys`.")]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Serve /metrics and /healthz there; 0: any free port.")
]
MetricsHost = Annotated[str, typer.Option(help="0.0.0.0 for a Prometheus on another machine.")]
LogFormat = Annotated[logs.Style, typer.Option(help="Of what is said on standard error.")]
Device = Annotated[str, typer.Option(help="Of the learner: auto (a GPU where there is one), cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")]
Actors = Annotated[int, typer.Option(min=1, help="Actor processes.")]
Mazes = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE...", help="Maze files. Without any, held-out mazes are drawn."),
]
# Typer's options take one value each, so `--mazes a.txt b.txt` leaves the second file to this.
MoreMazes = Annotated[list[Path] | None, typer.Argument(hidden=True)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output and nothing else there.")]


def main() -> None:
    """`clew`: what a user can mend is said in one line, with exit code 2."""
    try:
        app()
    except ClewError as error:
        print(f"clew: {error}", file=sys.stderr)
        sys.exit(2)
    except LearnerError as error:
        print(f"clew: {error}", file=sys.stderr)
        sys.exit(1)


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

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ClewError(
            "clew train starts one learner, and torchrun started several of it; "
            "give torchrun `-m learner`, and start actors by hand"
        )
    folder = run_folder(run_dir, resume)
    settings = configured(config, assignments, seed, updates, folder if resume else None)
    former = checkpoint.beginning(folder, settings, resume)  # a refusal comes before anything is started
    tally = Tally(settings, former.update if former else 0)
    display, alive = Display(Console()), 0
    with stop_signals() as stopped, Fleet(settings, folder, actors, device, resume, metrics_port) as fleet:
        print(f"run {folder}", flush=True)
        with display:
            for record in fleet.updates():
                if stopped:
                    break
                if record:
                    tally.add(record)
                alive = fleet.actors_alive or alive
                display.show(tally, alive)
            display.show(tally, alive, now=True)
        fleet.stop()
        fleet.raise_for_failure()
    done = tally.update >= settings.run.updates
    print(f"{'done' if done else 'stopped'} after {tally.update} updates, kept in {folder}")


@app.command()
def learner(
    config: ConfigFile = None,
    run_dir: RunDir = None,
    bind: Annotated[str, typer.Option(help="Where actors find it: tcp://HOST:PORT, ipc://PATH.")] = ADDRESS,
    updates: Updates = None,
    seed: Seed = None,
    assignments: Set = None,
    resume: Resume = False,
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
        folder = run_folder(run_dir, resume)
        settings = configured(config, assignments, seed, updates, folder if resume else None)
        mine = LearnerKeys.of(keys) if keys else None
        print(f"run {folder}", flush=True)
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
    name: Annotated[str, typer.Option(help="Its name in logs.")] = "actor",
    keys: Keys = None,
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

    keep_freed_memory()
    logs.configure(log_format, "actor", actor=name)
    one = Actor(connect, name, ActorKeys.of(keys) if keys else None)
    registry = one.metrics.registry
    with status.serve(metrics_port, registry, lambda: one.is_ready, host=metrics_host) as server:
        one.metrics_at = metrics_address or (f":{server.port}" if server else "")
        live(one)


@app.command("ray")
def on_ray(
    connect: Annotated[str, typer.Option(help="The learner's address, as the cluster's nodes see it.")],
    actors: Annotated[int, typer.Option(min=1, help="How many; each takes a core.")],
    keys: Keys = None,
    address: Annotated[
        str, typer.Option(help="The Ray cluster's HOST:PORT; auto: RAY_ADDRESS, or the one of this machine.")
    ] = "auto",
    metrics_host: Annotated[
        str, typer.Option(help="Serve each actor's /metrics there, on any free port; 0.0.0.0 for all.")
    ] = "",
) -> None:
    """Actors on a Ray cluster, and others for those that die, until the run is over or Ctrl-C."""
    mine = ActorKeys.of(keys) if keys else None
    from deploy.ray import Team

    with Team(address, connect, actors, mine, metrics_host) as team, stop_signals() as stopped:
        print(f"{actors} actors for {connect}", flush=True)
        is_over = team.wait(stopped)
    print("the run is over" if is_over else "stopped")


@app.command()
def doctor(
    connect: Annotated[str | None, typer.Option(help="A learner's address, as an actor would use it.")] = None,
    keys: Keys = None,
) -> None:
    """Examine this machine and the way to a learner, a line each; exit code 1 where anything fails."""
    from deploy.doctor import examine

    failed = False
    for finding in examine(connect, keys):
        print(finding, flush=True)
        failed |= not finding.is_fine
    sys.exit(int(failed))


@app.command()
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="A run's directory.")],
    mazes: Mazes = None,
    more_mazes: MoreMazes = None,
    family: Annotated[str | None, typer.Option(help="Family of the held-out mazes, instead of the run's own.")] = None,
    side: Annotated[int | None, typer.Option(help="Side of the held-out mazes, instead of the run's own.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Held-out mazes to draw; 500 if not given.")] = None,
    attempts: Annotated[
        int | None, typer.Option(min=1, help="Attempts at each maze; 10, or as many as were trained if more.")
    ] = None,
    attempts_per_step: Annotated[
        int | None, typer.Option(min=1, help="Attempts before each inner step, instead of inner.attempts.")
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(min=1, max=2**30, help="Steps after which an attempt has failed, in every maze.")
    ] = None,
    robots: Annotated[
        int | None, typer.Option(min=1, help="Robots that try each maze, each on its own; one if there are many mazes.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the mazes and the attempts.")] = 0,
    as_json: Json = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write curve.png, adaptation.png and learning_curve.png to RUN_DIR.")
    ] = False,
) -> None:
    """Try mazes never trained on, attempt after attempt; report success and steps of every one."""
    require("safetensors", *(["matplotlib"] if pictures else []))
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


@app.command()
def bench(
    rule: Annotated[str | None, typer.Option(help="Over inner.rule: sgd, meta-sgd or learned.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Actor processes, 2; simulated ones, 1,000.")] = None,
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
    as_json: Json = False,
) -> None:
    """Measure environment steps per second, end to end, and what takes the time."""
    require("torch", "safetensors")
    from deploy import bench as training
    from deploy import bench_links, bench_target

    if links and target:
        raise ClewError("--links and --target measure different things; give one of them")
    given = [*([f"inner.rule={rule}"] if rule else []), *(assignments or [])]
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
        print(json.dumps(figures))
    else:
        show(table(figures))


def require(*packages: str) -> None:
    """A refusal in one line where a package is missing that actors do without."""
    missing = [name for name in packages if not find_spec(name)]
    if missing:
        raise ClewError(
            f"{' and '.join(missing)} not found: this machine has what an actor needs, and no more; "
            "run pip install 'clew[learner]'"
        )


def show(table: RenderableType) -> None:
    """On the terminal; elsewhere in lines of a fixed width."""
    console = Console()
    Console(width=None if console.is_terminal else 100).print(table)


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
    """The run's directory: a new one named after the time, if none is given."""
    if resume and not given:
        raise ClewError("--resume needs to know which run; add --run-dir DIR")
    return given or Path("runs") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


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
