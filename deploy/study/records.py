"""Reads the records of a run's updates while they are being written, and lays each out as one flat row."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from actors.metrics import PHASES as ACTOR_PHASES
from learner.metrics import PHASES as LEARNER_PHASES
from learner.metrics import REASONS
from learner.record import Record
from protocol.config import ClewError

Value = int | float | str | None

_PLAIN = [name for name in Record.__annotations__ if name not in ("phase_s", "actor_s", "refusals")]
_PHASES = [name for name in LEARNER_PHASES if name != "decoding"]  # that has a field of its own
_WORK = [name for name in ACTOR_PHASES if name != "waiting"]
COLUMNS = (
    *_PLAIN,
    *(f"phase_s.{name}" for name in _PHASES),
    *(f"actor_s.{name}" for name in _WORK),
    *(f"refusals.{name}" for name in REASONS),
)
COUNTS = frozenset(  # columns of whole numbers
    ("update", "steps", "attempts", "lag", "actors", "leases", "expired", *(f"refusals.{name}" for name in REASONS))
)


def row_of(record: Record) -> dict[str, Value]:
    """Returns every figure of a record by its column. None: it is not known, or was not finite."""
    return {
        **{name: getattr(record, name) for name in _PLAIN},
        **{f"phase_s.{name}": record.phase_s.get(name, 0.0) for name in _PHASES},
        **{f"actor_s.{name}": record.actor_s.get(name) for name in _WORK},
        **{f"refusals.{name}": record.refusals.get(name, 0) for name in REASONS},
    }


class Reader:
    """Reads updates.jsonl of a run, again and again. A resumed run cuts it back, or puts another in its place."""

    def __init__(self, run_dir: Path) -> None:
        """Raises ClewError where there is no run."""
        self.path = run_dir / "updates.jsonl"
        if not self.path.is_file():
            raise ClewError(f"{run_dir} holds no updates.jsonl, which is the record of a run; name a run's directory")
        self._place, self._last = 0, b""  # the bytes that have been read, and the last line of them
        self.is_behind = False  # True where the last call of `more` left something

    def more(self, most_bytes: int = -1) -> tuple[bool, list[Record]]:
        """Returns whether all begins anew, since what was read is no longer there, and the records that are new.

        A line that is no record is left out. `most_bytes` are read at a time; -1: all that there are.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._place - len(self._last))
                anew = file.read(len(self._last)) != self._last
                if anew:
                    self._place, self._last = file.seek(0), b""
                chunk = file.read(most_bytes)
        except OSError as error:
            raise ClewError(f"cannot read {self.path}: {error.strerror}; give access") from None
        self.is_behind = len(chunk) == most_bytes
        whole = chunk.rfind(b"\n") + 1  # the rest of a line is still being written
        lines = chunk[:whole].splitlines(keepends=True)
        if self.is_behind and not whole:  # no record is as long
            lines, whole = [chunk], len(chunk)
        self._place += whole
        self._last = lines[-1] if lines else self._last
        records: list[Record] = []
        for line in lines:
            with suppress(ValueError):
                records.append(Record.of(line))
        return anew, records


def is_number(value: Value) -> bool:
    """Says whether a value can be drawn."""
    return isinstance(value, int | float) and math.isfinite(value)
