"""RUN_DIR/updates.jsonl: one JSON object per update. Whoever has it open owns the run directory."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from protocol.config import ClewError

Record = dict[str, Any]  # one update; `update` counts from 1


class Journal:
    """The records of a run, cut back to where it goes on."""

    def __init__(self, run_dir: Path, update: int) -> None:
        """Opens it with the records of the first `update` updates; what came after them happens again."""
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file = (run_dir / "updates.jsonl").open("a+b")
        except OSError as error:
            raise ClewError(
                f"cannot write to {run_dir}: {error.strerror}; choose another --run-dir"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ClewError(
                f"another learner works in {run_dir}; end it, or choose another --run-dir"
            ) from None
        self._file.truncate(self._length(update))

    def append(self, record: Record) -> OSError | None:
        """Adds a record, and hands it to the operating system."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        return None

    def sync(self) -> None:
        """What was appended is on the disk when it returns."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _length(self, update: int) -> int:
        """Bytes up to the record of `update`, or up to the first that is damaged."""
        self._file.seek(0)
        length = 0
        for line in self._file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["update"] > update:
                    break
            except (ValueError, KeyError, TypeError):
                break
            length += len(line)
        return length
