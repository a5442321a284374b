"""How `clew train` shows a run: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.process.fleet import Record
from deploy.process.output import OutputError
from protocol.config import Config

WINDOW = 100  # updates that figures are averaged over
LINE_EVERY_S = 5.0
FRAME_EVERY_S = 0.25
UNITS = {"batches": 1, "attempts": 0, "steps": 0}  # whose speed is shown, with so many digits


class Tally:
    """What the last records of a run say."""

    def __init__(self, config: Config, update: int = 0) -> None:
        self.total = config.run.updates
        self.update, self.lag = update, config.run.lag  # updates done
        self._recent: deque[Record] = deque(maxlen=WINDOW)

    def add(self, record: Record) -> None:
        """One more update."""
        self.update, self.lag = record["update"], record["lag"]
        self._recent.append(record)

    def mean(self, figure: str) -> float:
        """The mean of a figure over the last updates; NaN before the first."""
        values = [record[figure] for record in self._recent if record[figure] is not None]
        return sum(values) / len(values) if values else math.nan

    def per_s(self, figure: str) -> float:
        """A figure's sum per second of the last updates; of "batches", how many there were.

        The oldest record is left out: the first of all waited for the actors.
        """
        timed = list(self._recent)[1:]
        seconds = sum(record["seconds"] for record in timed)
        return sum(record.get(figure, 1) for record in timed) / seconds if seconds else 0.0

    @property
    def is_empty(self) -> bool:
        """Whether no update has been added yet."""
        return not self._recent

    @property
    def is_timed(self) -> bool:
        """Whether it can say how fast the run is."""
        return self.per_s("batches") > 0

    @property
    def left(self) -> str:
        """Time left, as text."""
        if not self.is_timed:
            return "-:--:--"
        return str(timedelta(seconds=round((self.total - self.update) / self.per_s("batches"))))


class Display:
    """Shows a tally. `with display: display.show(tally, actors)`, as often as one likes.

    Where standard output takes nothing more, the run goes on, and what is to be said is said on standard error.
    """

    def __init__(self, console: Console) -> None:
        self.is_unread = False  # whether the reader of standard output has left
        self._out = sys.stdout
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._every_s = FRAME_EVERY_S if self._live else LINE_EVERY_S
        self._shown_at, self._update = 0.0, -1  # when something was shown; the last update that has a line

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(*error)

    def show(self, tally: Tally, actors: int, now: bool = False) -> None:
        """One frame or line, unless the last is still fresh and it needs not be `now`, or there is nothing new."""
        if not now and time.monotonic() - self._shown_at < self._every_s:
            return
        self._shown_at = time.monotonic()
        if self._live:
            self._live.update(panel(tally, actors), refresh=True)
        elif not tally.is_empty and tally.update != self._update:
            self._update = tally.update
            self.say(line(tally, actors))

    def say(self, text: str) -> None:
        """Prints a line."""
        try:
            print(text, file=self._out, flush=True)
        except OutputError as error:
            self.is_unread, self._out = error.is_unread, sys.stderr
            print(f"clew: {error}; it goes to standard error now\n{text}", file=sys.stderr, flush=True)


def panel(tally: Tally, actors: int) -> Group:
    """The live picture: a bar, what is learned, how fast."""
    bar = Table.grid(padding=(0, 2))
    update = f"{tally.update}/{tally.total}"
    bar.add_row(update, ProgressBar(tally.total, tally.update, width=40), f"{tally.left} left")
    learned = Table.grid(padding=(0, 3))
    learned.add_row(Text("", "dim"), Text("success", "dim"), Text("steps ÷ shortest", "dim"))
    for when in ("before", "after"):
        success, ratio = (shown(tally, f"{figure}_{when}") for figure in ("success", "ratio"))
        learned.add_row(f"{when} adaptation", Text(success, "bold"), Text(ratio, "bold"))
    return Group(bar, learned, Text(speeds(tally, actors), "cyan"))


def line(tally: Tally, actors: int) -> str:
    """The same as one line of text."""
    success, ratio = (
        " -> ".join(shown(tally, f"{figure}_{when}") for when in ("before", "after")) for figure in ("success", "ratio")
    )
    return (
        f"update {tally.update}/{tally.total}  success {success}  steps/shortest {ratio}  "
        f"{speeds(tally, actors)}  {tally.left} left"
    )


def shown(tally: Tally, figure: str) -> str:
    """A mean with three digits, or a dash where there is none."""
    mean = tally.mean(figure)
    return "-" if math.isnan(mean) else f"{mean:.3f}"


def speeds(tally: Tally, actors: int) -> str:
    """How fast, once that is known; by how many, how late."""
    parts = [f"{tally.per_s(unit):,.{digits}f} {unit}/s" for unit, digits in UNITS.items() if tally.is_timed]
    return "  ".join([*parts, f"actors {actors}", f"lag {tally.lag}"])
