"""Follows RUN_DIR/updates.jsonl while a learner writes it, and keeps a thinned history of its figures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deploy.study.records import Reader
from learner.record import Record
from protocol.config import ClewError

MOST_POINTS = 2_000  # that are kept: beyond twice as many, every second one goes
READ_BYTES = 4 << 20  # at a time


class Point(NamedTuple):
    """One update, as the page draws it. A figure that is not finite is None."""

    update: int
    ratio_before: float | None  # these four as in `Record`
    ratio_after: float | None
    success_before: float | None
    success_after: float | None
    attempts_per_s: float | None
    actors: int


class History:
    """The figures of a run's updates, from the first to the newest. One thread at a time may refresh it."""

    def __init__(self, run_dir: Path | None) -> None:
        """Starts with nothing read. Without a run directory there will never be anything."""
        self.points: list[Point] = []
        self.beginnings = 0  # how often it began anew: a run that is resumed may cut its records back
        self._run_dir = run_dir
        self._reader: Reader | None = None  # once there are records
        self._stride = 1  # every so many updates one is kept

    def refresh(self) -> bool:
        """Reads some of what was written since; returns whether there may be more."""
        try:
            anew = self._reader is None
            if not self._run_dir:
                return False
            self._reader = self._reader or Reader(self._run_dir)
            cut, records = self._reader.more(READ_BYTES)
        except ClewError:  # there are none so far, or they cannot be read now
            return False
        if anew or cut:
            self.points, self._stride = [], 1
            self.beginnings += 1
        for record in records:
            self._add(record)
        return self._reader.is_behind

    def _add(self, record: Record) -> None:
        """Keeps a record's figures."""
        if self.points and record.update <= self.points[-1].update:  # cut back, and longer again since
            self.points = [kept for kept in self.points if kept.update < record.update]
            self.beginnings += 1
        if record.update % self._stride:
            return
        self.points.append(point(record))
        if len(self.points) > 2 * MOST_POINTS:
            self._stride *= 2
            self.points = [kept for kept in self.points if kept.update % self._stride == 0]


def point(record: Record) -> Point:
    """Takes from a record what the page draws."""
    return Point(
        record.update,
        record.ratio_before,
        record.ratio_after,
        record.success_before,
        record.success_after,
        record.attempts / record.seconds if record.seconds > 0 else None,
        record.actors,
    )
