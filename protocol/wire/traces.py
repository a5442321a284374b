"""Spans of the work on an update, and their numbers, which learner and actors know without telling each other.

An update is one trace: its root is the update itself, below it are its leases, and below each lease is the work of the
actor that has it. The words are OpenTelemetry's; `deploy.process.traces` hands spans to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A piece of work that has been done, or has been given up."""

    name: str
    trace: int  # 128 bits
    number: int  # 64 bits, within the trace
    parent: int | None  # the number of the span that this one is a part of
    begin_s: float  # since 1970, UTC
    end_s: float
    facts: Mapping[str, str | int | float]


Tell = Callable[[Span], None]  # takes a span, in any thread


def trace_of(session: str, batch: int) -> int:
    """Returns the number of an update's trace. `session`: the learner's, as it stands in Welcome."""
    return _number(16, session, "trace", batch)


def update_of(session: str, batch: int) -> int:
    """Returns the number of an update's root span."""
    return _number(8, session, "update", batch)


def lease_of(session: str, issue: int) -> int:
    """Returns the number of a lease's span."""
    return _number(8, session, "lease", issue)


def part_of(session: str, what: str, issue: int) -> int:
    """Returns the number of the span of a piece of work that is done once for an update or for a lease."""
    return _number(8, session, what, issue)


def _number(size: int, *told: str | int) -> int:
    """Returns a number of so many bytes that is the same wherever the same is told, and never 0."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, told)).encode(), digest_size=size).digest()) or 1
