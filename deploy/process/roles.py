"""Puts a learner or an actor together and lets it live. No other file of `deploy` does so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.process import logs
from deploy.process.heap import keep_what_is_loaded
from deploy.process.status import LOOPBACK, serve
from deploy.process.traces import telling
from learner.record import Record
from protocol.config import Config
from protocol.wire.keys import ActorKeys, LearnerKeys

if TYPE_CHECKING:
    import torch

    from learner.parallel import Team


def run_learner(
    config: Config,
    run_dir: Path,
    bind: str,
    device: torch.device,
    resume: bool,
    *,
    keys: LearnerKeys | None = None,
    team: Team | None = None,
    on_update: Callable[[Record], None] | None = None,
    metrics_port: int | None = None,
    metrics_host: str = LOOPBACK,
    actor_metrics_hosts: Sequence[str] = (),
) -> None:
    """Runs a learner until its updates are done, or until SIGINT or SIGTERM.

    Args:
      bind: the address where actors find the learner.
      team: the other processes of a learner under torchrun.
      metrics_port: where /metrics, /healthz and /actors are served; 0 is any free port, None serves nothing.
      actor_metrics_hosts: the hosts, beside its own, that an actor may name for its metrics.
    """
    from learner.learner import Learner, live

    learner = Learner(config, run_dir, bind, device, resume, keys, on_update, team, actor_metrics_hosts)
    keep_what_is_loaded()
    logs.bind(run=learner.run_id)
    readiness, targets = (lambda: learner.is_ready), (lambda: learner.targets)
    with serve(metrics_port, learner.metrics.registry, readiness, targets, metrics_host), telling("learner") as tell:
        learner.trail.tell = tell
        live(learner)


def run_actor(
    connect: str,
    name: str,
    keys: ActorKeys | None = None,
    modules: Collection[str] = (),
    *,
    metrics_port: int | None = None,
    metrics_host: str = LOOPBACK,
    metrics_address: str = "",
    known_host: str = "",
    takes_signals: bool = True,
) -> None:
    """Runs an actor until the run is over, or until SIGINT or SIGTERM.

    Args:
      modules: the user's own modules that the actor may import if the learner's config names them.
      metrics_port: where /metrics and /healthz are served; 0 is any free port, None serves nothing.
      metrics_address: "HOST:PORT" where Prometheus finds the metrics; if empty, `known_host` and the port in use.
      known_host: the host where Prometheus finds them; if empty, the host that the learner sees.
      takes_signals: whether this process's signals are the actor's to handle.
    """
    from actors.actor import Actor, live

    actor = Actor(connect, name, keys, modules)
    keep_what_is_loaded()
    with (
        serve(metrics_port, actor.metrics.registry, lambda: actor.is_ready, host=metrics_host) as server,
        telling("actor") as actor.tell,
    ):
        actor.metrics_at = metrics_address or (f"{known_host}:{server.port}" if server else "")
        if takes_signals:
            live(actor)
        else:
            actor.run()
