"""Targets: the addresses at which Prometheus finds the actors' own metrics."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from learner.audit import Sender
from learner.crew import Actor
from learner.reception import Damper
from protocol.wire.address import metrics_target

MOST = 1_000  # that Prometheus is sent to, as its own target_limit
NOT_ITS_HOST = (
    "an actor names another host than its own for its metrics, which is not believed; "
    "where that is right, start the learner with --actor-metrics-host"
)


class Targets:
    """The targets belong to the clerk's thread; others may read `listed`, which is never changed, only replaced."""

    def __init__(self, is_ipc: bool, allowed: Sequence[str]) -> None:
        """Starts empty. `allowed`: hosts that an actor may name, beside the one that it is seen at."""
        self.listed: Sequence[str] = ()  # HOST:PORT of all, in order
        self._is_ipc, self._allowed = is_ipc, allowed
        self._metrics_of: dict[Actor, str] = {}  # of those that serve any
        self._foreign_hosts = Damper()

    def note(self, sender: Sender, told: str) -> None:
        """Notes where an actor serves metrics: at the host that it is seen at, unless the operator allows the one that
        it names. So Prometheus is sent to nobody but who asks for it."""
        target, foreign = metrics_target(told, sender.host, self._is_ipc, self._allowed)
        if foreign:
            about = {"actor": sender.name, "key": sender.key, "host": sender.host, "named": told}
            self._foreign_hosts.log(logging.WARNING, NOT_ITS_HOST, **about)
        self._metrics_of.pop(sender.actor, None)
        if target:
            self._metrics_of[sender.actor] = target
        self._list()

    def forget(self, actor: Actor) -> None:
        """Removes an actor that is gone."""
        if self._metrics_of.pop(actor, None):
            self._list()

    def _list(self) -> None:
        self.listed = tuple(sorted(set(self._metrics_of.values()))[:MOST])
