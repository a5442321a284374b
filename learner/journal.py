"""RUN_DIR/updates.jsonl: one JSON object per update. Whoever opens it holds the lock of the run directory."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import deque
from contextlib import suppress
from itertools import count
from pathlib import Path

from learner.record import Record
from protocol.config import ClewError
from protocol.wire import descriptors

MOST_WAITING = 10_000  # records that a full disk keeps waiting

log = logging.getLogger("clew")


class Journal:
    """The records of a run, cut back to where it goes on; each is on the file whole, or not at all.

    Records that cannot be written wait for room, in order: the newest 10,000 of them; older ones are lost.
    """

    def __init__(self, run_dir: Path, update: int) -> None:
        """Opens the file with the records of the first `update` updates; what came after them happens again.

        Where some of them are damaged, it goes on with the others, and the file is kept beside as it was.
        """
        path = run_dir / "updates.jsonl"
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        if path.exists() and not path.is_file():  # a pipe would block for ever
            raise ClewError(f"{path} is not a file; move it away, or choose another --run-dir")
        try:
            path.touch()
            length = _length(path, update)
            self._whole = _mend(path, update) if length is None else length  # bytes of the file that are whole lines
            self._file = descriptors.opened(lambda: path.open("ab", buffering=0))
            self._cut_back()
        except OSError as error:
            raise ClewError(f"cannot write to {run_dir}: {error.strerror}; choose another --run-dir") from None

    def append(self, record: Record) -> OSError | None:
        """Hands a record to the operating system; returns why it must wait for the next call, if it must."""
        self._waiting.append(record.line)
        try:
            self._write()
        except OSError as error:
            return error
        return None

    def sync(self) -> None:
        """Puts what was appended on the disk; raises OSError while a record waits for room."""
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Tries once more to write what waits."""
        with suppress(OSError):
            self._write()
        with suppress(OSError):  # on a network file system a full disk may show only now
            self._file.close()

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
        """Cuts the file back to its last whole line: a disk that got full may have taken a part of the next."""
        if os.fstat(self._file.fileno()).st_size > self._whole:
            self._file.truncate(self._whole)


def _write_all(file: int, content: bytes) -> None:
    """Writes all of it: `write` takes a part where there is room for a part."""
    while content:
        content = content[os.write(file, content) :]


def _length(path: Path, update: int) -> int | None:
    """Returns the bytes that the records of the first `update` updates take, or None if they are not there in order."""
    length = done = 0
    with path.open("rb") as file:
        while done < update:
            line = file.readline()
            if _update_of(line) != done + 1 or not line.endswith(b"\n"):
                return None
            length, done = length + len(line), done + 1
    return length


def _mend(path: Path, update: int) -> int:
    """Leaves the whole records of the first `update` updates, in order, and keeps what else there was beside.

    Returns the length of the file.
    """
    places, strays = _places(path, update)
    beside = _copy(path) if strays else None
    mended = path.with_name(path.name + ".tmp")
    mended.unlink(missing_ok=True)
    with path.open("rb") as old, mended.open("xb") as new:
        for _, place in sorted(places.items()):
            old.seek(place)
            new.write(old.readline().rstrip(b"\n") + b"\n")
        new.flush()
        os.fsync(new.fileno())
        length = new.tell()
    mended.replace(path)
    if missing := update - len(places):
        kept = f"; the file as it was is kept as {beside}" if beside else ""
        log.warning("%s: the records of %d of %d updates are damaged or missing%s", path, missing, update, kept)
    elif beside:
        log.warning("%s holds lines that are no records; the file as it was is kept as %s", path, beside)
    return length


def _places(path: Path, update: int) -> tuple[dict[int, int], int]:
    """Returns where the records of the first `update` updates begin, and how many lines are no record of them."""
    places: dict[int, int] = {}
    strays = place = former = 0
    with path.open("rb") as file:
        for line in file:
            found = _update_of(line)
            if found in places or not found:
                strays += 1
            if 0 < found <= update and (found not in places or found == former + 1):
                places[found] = place
            place, former = place + len(line), found
    return places, strays


def _update_of(line: bytes) -> int:
    """Returns the update that a line is the record of, or 0."""
    try:
        update = json.loads(line)["update"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return update if type(update) is int and update > 0 else 0


def _copy(path: Path) -> Path:
    """Keeps a file beside itself, under a name that is free."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    beside = next(name for name in names if not os.path.lexists(name))
    shutil.copyfile(path, beside)
    return beside
