"""Follows RUN_DIR/updates.jsonl while a learner writes it, and keeps a thinned history of its figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from learner.record import Record

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
        self._path = run_dir and run_dir / "updates.jsonl"
        self._file, self._place = 0, 0  # the file's inode, and how much of it is read
        self._stride = 1  # every so many updates one is kept

    def refresh(self) -> bool:
        """Reads some of what was written since; returns whether there may be more."""
        try:
            if not self._path or not self._path.is_file():  # a pipe would block
                return False
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._file or about.st_size < self._place:
                    self._begin(about.st_ino)
                file.seek(self._place)
                chunk = file.read(READ_BYTES)
        except OSError:
            return False
        whole = chunk.rfind(b"\n") + 1  # the rest of a line is still being written
        self._place += whole or (len(chunk) if len(chunk) == READ_BYTES else 0)
        for line in chunk[:whole].splitlines():
            self._add(line)
        return len(chunk) == READ_BYTES

    def _begin(self, file: int) -> None:
        self.points, self._file, self._place, self._stride = [], file, 0, 1
        self.beginnings += 1

    def _add(self, line: bytes) -> None:
        """Keeps a record's figures; lines that are no records are passed over, as the learner does."""
        try:
            record = Record.of(line)
        except ValueError:
            return
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
