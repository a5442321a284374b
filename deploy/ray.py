"""Runs N actors on a Ray cluster, for `clew ray`. Ray starts those that die anew, elsewhere if need be.

Each actor lives in the main thread of a process that Ray made for it, and may end at any time, since it holds nothing
that matters. clew must be installed on the cluster's nodes, in the version of the learner. Ray pickles what it sends,
the keys among it (clew itself still unpickles nothing), so whoever may enter the Ray cluster may be an actor; the keys
are on no node's disk. Ray's own links are encrypted where the cluster sets RAY_USE_TLS.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from deploy.process import logs
from deploy.process.heap import keep_freed_memory
from deploy.process.roles import run_actor
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


class RayActor:
    """A process on a node of the cluster."""

    def work(self, connect: str, name: str, keys: ActorKeys | None, metrics_host: str, modules: Sequence[str]) -> str:
        """Works until the run is over; returns a refusal that a user can mend, or ""."""
        keep_freed_memory()
        logs.configure("text", "actor", actor=name)
        try:
            # Signals are left to Ray: its SIGTERM ends the process, after the actor's Bye, and not the run. Metrics are
            # on any free port, since several actors may share a node.
            port = 0 if metrics_host else None
            run_actor(connect, name, keys, modules, metrics_port=port, metrics_host=metrics_host, takes_signals=False)
        except ClewError as error:
            return str(error)
        except Exception:  # a fresh process may do better, as it would for `clew actor`
            log.exception("the actor failed")
            raise SystemExit(1) from None
        return ""


class RayActors:
    """The actors of one run on a Ray cluster: `with RayActors(address, connect, actors) as team`."""

    def __init__(
        self,
        address: str,
        connect: str,
        actors: int,
        keys: ActorKeys | None = None,
        metrics_host: str = "",
        modules: Sequence[str] = (),
    ) -> None:
        """Starts an actor on each core that the cluster has left; an actor that finds none waits for one."""
        join(address)
        place = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}  # a lost node takes few with it
        hire = ray.remote(max_restarts=-1, max_task_retries=-1, **place)(RayActor).remote
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
        """Waits until one actor is told that the run is over, or `stopped` is not empty; returns whether it is over."""
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
    """Raises OSError where nobody listens at [ray://]HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def conclude(work: Any) -> None:
    """Raises what ended an actor, if it was not the end of the run."""
    try:
        refusal = ray.get(work)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClewError(
            f"Ray gave an actor up: {reason}; see that clew is installed on every node, in the version that is here"
        ) from None
    if refusal:
        raise ClewError(refusal)
