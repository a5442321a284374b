"""Writes the records of a run for other tools: as a CSV or Parquet table, or as TensorBoard's events."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from deploy.study.records import COLUMNS, COUNTS, Reader, Value, is_number, row_of
from learner.record import Record
from protocol.config import ClewError

SUFFIX = ".clew"  # of the events that clew writes, and of no others
BEGINNINGS = {"csv": f"{COLUMNS[0]},".encode(), "parquet": b"PAR1"}  # of a table in each form that is a file


class Table(Protocol):
    """A file, or a directory, that records are written to."""

    def write(self, records: Sequence[Record]) -> None:
        """Writes some records, which can be read at once where the form allows it."""

    def close(self) -> None:
        """Writes what is left."""


class CsvTable:
    """A CSV file with a header: a column for each figure, a line for each update, nothing where it is not known."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, COLUMNS)
        self._rows.writeheader()

    def write(self, records: Sequence[Record]) -> None:
        self._rows.writerows(map(row_of, records))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ParquetTable:
    """A Parquet file, which is written when it is closed."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows = path, list[dict[str, Value]]()

    def write(self, records: Sequence[Record]) -> None:
        self._rows += map(row_of, records)

    def close(self) -> None:
        import pyarrow
        from pyarrow import parquet

        kinds = {"theta_sha256": pyarrow.string(), **dict.fromkeys(COUNTS, pyarrow.int64())}
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in COLUMNS])
        with self._path.open("wb") as file:  # of a path, pyarrow would remove what it cannot write to
            parquet.write_table(pyarrow.Table.from_pylist(self._rows, schema), file)


class Events:
    """TensorBoard's events in a directory: a curve for each figure. Those that clew wrote there before go."""

    def __init__(self, folder: Path, begun: float) -> None:
        """Begins without any. `begun`: when the run began, in seconds since 1970."""
        from tensorboardX import FileWriter

        for former in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
            former.unlink()
        self._writer = FileWriter(str(folder), filename_suffix=SUFFIX)
        self._time = begun

    def write(self, records: Sequence[Record]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        for record in records:
            self._time += record.seconds
            curves = {name.replace(".", "/"): value for name, value in row_of(record).items() if name != "update"}
            points = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves.items() if is_number(value)]
            self._writer.add_summary(Summary(value=points), record.update, self._time)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def export(run_dir: Path, form: str, path: Path, goes_on: Callable[[int], bool]) -> int:
    """Writes the records of a run as csv, parquet or tensorboard, and returns how many they are.

    Args:
      goes_on: waits for more and returns True; or returns False where no more is to come after the last update, the
        number of which it gets.
    """
    reader = Reader(run_dir)
    _, records = reader.more()
    begun = reader.path.stat().st_mtime - sum(record.seconds for record in records)
    try:
        table, count, last = _opened(form, path, begun), 0, 0
        try:
            while True:
                table.write(records)
                count, last = count + len(records), records[-1].update if records else last
                if not goes_on(last):
                    return count
                anew, records = reader.more()
                if anew:
                    table.close()
                    table, count = _opened(form, path, begun), 0
        finally:
            table.close()
    except OSError as error:
        raise ClewError(f"cannot write {path}: {error.strerror or error}; give --out another path") from None


def _opened(form: str, path: Path, begun: float) -> Table:
    """Opens a table for a run that began at a time, in seconds since 1970."""
    if form == "tensorboard":
        return Events(path, begun)
    path.parent.mkdir(parents=True, exist_ok=True)
    _require_table(form, path)
    return CsvTable(path) if form == "csv" else ParquetTable(path)


def _require_table(form: str, path: Path) -> None:
    """Raises ClewError where a table would take the place of anything but a former one: of a run's records, say."""
    if path.is_file():
        beginning = BEGINNINGS[form]
        with path.open("rb") as file:
            found = file.read(len(beginning))
        if found not in (b"", beginning):
            raise ClewError(f"{path} holds something else than {form} of updates; give --out another path")
