"""The trail of an update: what became of its leases, and what the learner did, told as spans to whoever traces it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from protocol.wire.messages import Lease
from protocol.wire.traces import Span, Tell, lease_of, part_of, trace_of, update_of


@dataclass(frozen=True)
class Open:
    """A lease that is out."""

    lease: Lease
    actor: str  # its name
    since_s: float  # since 1970


class Trail:
    """The open leases of a learner. Nothing is noted where nobody traces, which is usual: `tell` is None then."""

    def __init__(self, session: str) -> None:
        """Starts with no lease open. `session`: the learner's, as it stands in Welcome."""
        self.tell: Tell | None = None
        self._session = session
        self._open: dict[int, Open] = {}  # by the number of the lease
        self._begun_s: dict[int, float] = {}  # when the first lease of each open batch was handed out

    def handed_out(self, lease: Lease, actor: str) -> None:
        """Notes that an actor of that name gets a lease."""
        if self.tell:
            now_s = time.time()
            self._open[lease.issue] = Open(lease, actor, now_s)
            self._begun_s.setdefault(lease.batch, now_s)

    def answered(self, issue: int) -> None:
        """Tells of a lease whose answer counts."""
        if self.tell and (known := self._open.pop(issue, None)):
            self._tell_of(known, "answered")

    def updated(self, batch: int) -> None:
        """Tells of an update whose theta is published, and of its leases that nobody has answered in time."""
        if self.tell:
            for issue, known in list(self._open.items()):
                if known.lease.batch <= batch:
                    del self._open[issue]
                    self._tell_of(known, "unanswered")
            begun_s, number = self._begun_s.pop(batch, time.time()), update_of(self._session, batch)
            self._tell_span("update", batch, number, None, begun_s, update=batch + 1)

    def worked(self, phase: str, batch: int, seconds: float) -> None:
        """Tells of a piece of the learner's own work that has just ended. Any thread may call it."""
        if self.tell:
            number, parent = part_of(self._session, phase, batch), update_of(self._session, batch)
            self._tell_span(phase, batch, number, parent, time.time() - seconds)

    def _tell_of(self, known: Open, outcome: str) -> None:
        lease = known.lease
        number, parent = lease_of(self._session, lease.issue), update_of(self._session, lease.batch)
        names = {"actor": known.actor, "outcome": outcome}
        self._tell_span("lease", lease.batch, number, parent, known.since_s, **names, chunk=lease.chunk)

    def _tell_span(
        self, name: str, batch: int, number: int, parent: int | None, begin_s: float, **facts: str | int
    ) -> None:
        if self.tell:
            self.tell(Span(name, trace_of(self._session, batch), number, parent, begin_s, time.time(), facts))
