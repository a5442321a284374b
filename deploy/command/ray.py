"""`clew ray`: runs actors on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.command.options import Keys, Modules
from deploy.process.signals import stop_signals
from protocol.wire.address import Address
from protocol.wire.keys import ActorKeys


def on_ray(
    connect: Annotated[str, typer.Option(help="The learner's address, as the cluster's nodes see it.")],
    actors: Annotated[int, typer.Option(min=1, help="How many actors to start; each takes a core.")],
    keys: Keys = None,
    modules: Modules = None,
    address: Annotated[
        str, typer.Option(help="HOST:PORT of the Ray cluster; auto is RAY_ADDRESS, or the cluster of this machine.")
    ] = "auto",
    metrics_host: Annotated[
        str, typer.Option(help="Serve each actor's /metrics on this host, on any free port; 0.0.0.0 is every host.")
    ] = "",
) -> None:
    """Run actors on a Ray cluster, and others for those that die, until the run is over or Ctrl-C."""
    Address.of(connect)  # refused here, and not by every actor
    mine = ActorKeys.of(keys) if keys else None
    from deploy.ray import RayActors

    with RayActors(address, connect, actors, mine, metrics_host, modules or ()) as team, stop_signals() as stopped:
        print(f"{actors} actors for {connect}", flush=True)
        is_over = team.wait(stopped)
    print("the run is over" if is_over else "stopped")
