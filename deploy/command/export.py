"""`clew export`: writes the records of a run for other tools, also while it goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.process.signals import stop_signals
from deploy.process.versions import require
from protocol.config import ClewError

POLL_S = 0.5  # between two looks at a run that is followed


class Form(StrEnum):
    """A form that records are written in."""

    TENSORBOARD = "tensorboard"
    CSV = "csv"
    PARQUET = "parquet"


PLACES = {Form.TENSORBOARD: "tensorboard", Form.CSV: "updates.csv", Form.PARQUET: "updates.parquet"}
PACKAGES = {Form.TENSORBOARD: ("tensorboardX",), Form.CSV: (), Form.PARQUET: ("pyarrow",)}


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run's directory.")],
    form: Annotated[Form, typer.Option("--to", help="What to write: TensorBoard's events, CSV or Parquet.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The place to write to: a directory for tensorboard, else a file; if not given, tensorboard, "
            "updates.csv or updates.parquet in RUN_DIR."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as the run goes on, until its last update or Ctrl-C.")
    ] = False,
) -> None:
    """Write the records of a run's updates for other tools: a column or a curve for each figure."""
    require(*PACKAGES[form], extra="export")
    from deploy.study.export import export as write

    if follow and form is Form.PARQUET:
        raise ClewError("a Parquet file can be read only once it is whole; follow with --to tensorboard or --to csv")
    path = out or run_dir / PLACES[form]
    with stop_signals() as received:
        until = End(run_dir, received) if follow else None
        count = write(run_dir, form, path, lambda update: bool(until and until.is_to_come(update)))
    print(f"{count} updates: {path}")


class End:
    """The end of a run that is followed: its last update, or a signal."""

    def __init__(self, run_dir: Path, received: Sequence[int]) -> None:
        """Takes the run, and the list of the signals that have come."""
        self._run_dir, self._received, self._planned = run_dir, received, 0

    def is_to_come(self, update: int) -> bool:
        """Waits a moment and returns True, unless a signal has come or the update is the last that is planned."""
        if update >= self._planned:
            from learner import checkpoint

            found = checkpoint.read(self._run_dir)  # a resumed run may have further plans
            self._planned = found.config.run.updates if found else 0
        if self._received or 0 < self._planned <= update:
            return False
        time.sleep(POLL_S)
        return not self._received
