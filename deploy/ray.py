"""`clew ray`: N actors over whatever Ray cluster there is. Whoever dies there, Ray starts anew, elsewhere if need be.

Each is an `actors.actor.Actor` in the main thread of a process that Ray made for it, and ends as any actor may: it
holds nothing that matters. clew must be installed on the cluster's nodes, in the version of the learner. Ray pickles
what it sends, the keys among it (clew itself still unpickles nothing), so who may enter the Ray cluster may be an
actor; they are on no node's disk. Ray's own links are encrypted where the cluster sets RAY_USE_TLS.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from actors.actor import Actor
from deploy.process import logs
from deploy.process.heap import keep_freed_memory
from deploy.process.status import serve
from protocol.config import ClewError
from protocol.wire.keys import ActorKeys

try:
    import ray
except ModuleNotFoundError:
    raise ClewError(
        "Ray is not installed here; run pip install 'clew[ray]', with the Ray version of your cluster"
    ) from None

TICK_S = 0.2  # the longest until a signal is noticed
KNOCK_S = 10.0  # for the cluster's port to open

log = logging.getLogger("clew")


class Worker:
    """What runs on a node of the cluster."""

    def work(self, connect: str, name: str, keys: ActorKeys | None, metrics_host: str, modules: Sequence[str]) -> str:
        """Until the run is over; what it says is a refusal, for a user to mend."""
        keep_freed_memory()
        logs.configure("text", "actor", actor=name)
        try:
            live(Actor(connect, name, keys, modules), metrics_host)
        except ClewError as error:
            return str(error)
        except Exception:  # nobody's to mend: a fresh process may do better, as it would for `clew actor`
            log.exception("the actor failed")
            raise SystemExit(1) from None
        return ""


def live(actor: Actor, metrics_host: str) -> None:
    """With signals left to Ray: its SIGTERM ends the process, after the actor's Bye, and not the run."""
    port = 0 if metrics_host else None  # several may share a node
    with serve(port, actor.metrics.registry, lambda: actor.is_ready, host=metrics_host) as server:
        actor.metrics_at = f":{server.port}" if server else ""
        actor.run()


class Team:
    """The actors of one run. `with Team(…) as team: team.wait(stopped)`"""

    def __init__(
        self,
        address: str,
        connect: str,
        actors: int,
        keys: ActorKeys | None = None,
        metrics_host: str = "",
        modules: Sequence[str] = (),
    ) -> None:
        """They start as the cluster has a core for each; whoever finds none waits for one."""
        join(address)
        place = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}  # a lost node takes few with it
        hire = ray.remote(max_restarts=-1, max_task_retries=-1, **place)(Worker).remote
        self._workers = [hire() for _ in range(actors)]
        self._work: list[Any] = [
            worker.work.remote(connect, f"ray-{number}", keys, metrics_host, modules)
            for number, worker in enumerate(self._workers)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for worker in self._workers:
            ray.kill(worker)
        ray.shutdown()

    def wait(self, stopped: Sequence[int]) -> bool:
        """Until one is told that the run is over, and so it is for all; False: `stopped` came first."""
        while not stopped:
            done, _ = ray.wait(self._work, timeout=TICK_S)
            if done:
                conclude(done[0])
                return True
        return False


def join(address: str) -> None:
    """Makes this process a driver of the cluster."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    try:
        knock(address)
        ray.init(address, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        reason = said.strip().splitlines()[0].partition(". ")[0]
        raise ClewError(
            f"cannot join the Ray cluster at {address!r}: {reason}; "
            "start one with `ray start --head`, or give its --address HOST:PORT"
        ) from None


def knock(address: str) -> None:
    """OSError where nobody listens at [ray://]HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def conclude(work: Any) -> None:
    """What ended the first of them."""
    try:
        refusal = ray.get(work)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClewError(
            f"Ray gave an actor up: {reason}; see that clew is installed on every node, in the version that is here"
        ) from None
    if refusal:
        raise ClewError(refusal)
