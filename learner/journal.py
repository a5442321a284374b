"""RUN_DIR/updates.jsonl: one JSON object per update. Whoever has it open owns the run directory."""

from __future__ import annotations

import fcntl
import json
import os
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from protocol.config import ClewError

Record = dict[str, Any]  # one update; `update` counts from 1

MOST_WAITING = 10_000  # records that a full disk keeps waiting


class Journal:
    """The records of a run, cut back to where it goes on; each is on the file whole, or not at all.

    Records that cannot be written wait for room, in order: the newest 10,000 of them; older ones are lost.
    """

    def __init__(self, run_dir: Path, update: int) -> None:
        """Opens it with the records of the first `update` updates; what came after them happens again."""
        path = run_dir / "updates.jsonl"
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        try:
            with ExitStack() as undo:
                run_dir.mkdir(parents=True, exist_ok=True)
                self._file = undo.enter_context(path.open("ab", buffering=0))
                self._own(run_dir)
                self._whole = _length(path, update)  # bytes of the file that are whole lines
                self._cut_back()
                undo.pop_all()
        except OSError as error:
            raise ClewError(f"cannot write to {run_dir}: {error.strerror}; choose another --run-dir") from None

    def append(self, record: Record) -> OSError | None:
        """Hands a record to the operating system; or says why it must wait, and tries again at the next."""
        self._waiting.append(json.dumps(record).encode() + b"\n")
        try:
            self._write()
        except OSError as error:
            return error
        return None

    def sync(self) -> None:
        """What was appended is on the disk when it returns; OSError while a record waits for room."""
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Tries once more to write what waits."""
        with suppress(OSError):
            self._write()
        with suppress(OSError):  # on a network file system a full disk may show only now
            self._file.close()

    def _own(self, run_dir: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ClewError(f"another learner works in {run_dir}; end it, or choose another --run-dir") from None

    def _write(self) -> None:
        """Writes what waits, as far as there is room."""
        while self._waiting:
            line = self._waiting[0]
            self._cut_back()
            try:
                _write_all(self._file.fileno(), line)
            except OSError:
                with suppress(OSError):
                    self._cut_back()
                raise
            self._whole += len(line)
            self._waiting.popleft()

    def _cut_back(self) -> None:
        """To the last whole line: a disk that got full may have taken a part of the next."""
        if os.fstat(self._file.fileno()).st_size > self._whole:
            self._file.truncate(self._whole)


def _write_all(file: int, content: bytes) -> None:
    """`write` takes a part where there is room for a part."""
    while content:
        content = content[os.write(file, content) :]


def _length(path: Path, update: int) -> int:
    """Bytes up to the record of `update`, or up to the first that is damaged."""
    length = 0
    with path.open("rb") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or json.loads(line)["update"] > update:
                    break
            except (ValueError, KeyError, TypeError):
                break
            length += len(line)
    return length
