"""Shows a run of `clew train`: with a live bar on a terminal, with a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.process.output import OutputError
from learner.record import Record
from protocol.config import Config

WINDOW = 100  # updates that figures are averaged over
LINE_EVERY_S = 5.0
FRAME_EVERY_S = 0.25
Number = Callable[[Record], float | None]

UNITS: dict[str, tuple[Number, int]] = {  # of the speeds that are shown: what is counted, and how many digits
    "batches": (lambda record: 1, 1),
    "attempts": (lambda record: record.attempts, 0),
    "steps": (lambda record: record.steps, 0),
}
SUCCESS: tuple[Number, Number] = (lambda record: record.success_before, lambda record: record.success_after)
RATIO: tuple[Number, Number] = (lambda record: record.ratio_before, lambda record: record.ratio_after)


class Tally:
    """Keeps the last records of a run, and computes the figures that are shown."""

    def __init__(self, config: Config, update: int = 0) -> None:
        self.total = config.run.updates
        self.update, self.lag = update, config.run.lag  # updates done
        self._recent: deque[Record] = deque(maxlen=WINDOW)

    def add(self, record: Record) -> None:
        """Takes the record of one more update."""
        self.update, self.lag = record.update, record.lag
        self._recent.append(record)

    def mean(self, figure: Number) -> float:
        """Returns the mean of a figure over the last updates; NaN before the first."""
        values = [value for record in self._recent if (value := figure(record)) is not None]
        return sum(values) / len(values) if values else math.nan

    def per_s(self, count: Number) -> float:
        """Returns the sum of a count per second of the last updates.

        The oldest record is left out, since the first of a run waited for the actors.
        """
        timed = list(self._recent)[1:]
        seconds = sum(record.seconds for record in timed)
        return sum(count(record) or 0.0 for record in timed) / seconds if seconds else 0.0

    @property
    def is_empty(self) -> bool:
        """True where no update has been added yet."""
        return not self._recent

    @property
    def _batches_per_s(self) -> float:
        return self.per_s(lambda record: 1)

    @property
    def is_timed(self) -> bool:
        """True where it is known how fast the run is."""
        return self._batches_per_s > 0

    @property
    def left(self) -> str:
        """The time left, as text."""
        if not self.is_timed:
            return "-:--:--"
        try:
            return str(timedelta(seconds=round((self.total - self.update) / self._batches_per_s)))
        except OverflowError:
            return "millennia"


class Display:
    """Shows a tally: `with display: display.show(tally, actors)`, as often as needed.

    Where standard output cannot be written to any more, the run goes on, and lines go to standard error.
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
        """Shows a frame or a line, unless nothing is new, or the last one is fresh and `now` is false."""
        if not now and time.monotonic() - self._shown_at < self._every_s:
            return
        if self._live:
            self._live.update(panel(tally, actors), refresh=True)
        elif tally.update == self._update or tally.is_empty or not (now or tally.is_timed):
            return  # the first line comes as soon as it can say how fast the run is
        else:
            self._update = tally.update
            self.say(line(tally, actors))
        self._shown_at = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line."""
        try:
            print(text, file=self._out, flush=True)
        except OutputError as error:
            self.is_unread, self._out = error.is_unread, sys.stderr
            print(f"clew: {error}; it goes to standard error now\n{text}", file=sys.stderr, flush=True)


def panel(tally: Tally, actors: int) -> Group:
    """Draws the live picture: a bar, what is learned, and how fast."""
    bar = Table.grid(padding=(0, 2))
    update = f"{tally.update}/{tally.total}"
    bar.add_row(update, ProgressBar(tally.total, tally.update, width=40), f"{tally.left} left")
    learned = Table.grid(padding=(0, 3))
    learned.add_row(Text("", "dim"), Text("success", "dim"), Text("steps ÷ shortest", "dim"))
    for when, success, ratio in zip(("before", "after"), SUCCESS, RATIO, strict=True):
        learned.add_row(f"{when} adaptation", Text(shown(tally, success), "bold"), Text(shown(tally, ratio), "bold"))
    return Group(bar, learned, Text(speeds(tally, actors), "cyan"))


def line(tally: Tally, actors: int) -> str:
    """Writes what `panel` shows as one line of text."""
    success, ratio = (" -> ".join(shown(tally, figure) for figure in both) for both in (SUCCESS, RATIO))
    return (
        f"update {tally.update}/{tally.total}  success {success}  steps/shortest {ratio}  "
        f"{speeds(tally, actors)}  {tally.left} left"
    )


def shown(tally: Tally, figure: Number) -> str:
    """Writes the mean of a figure with three digits, or a dash where there is none."""
    mean = tally.mean(figure)
    return "-" if math.isnan(mean) else f"{mean:.3f}"


def speeds(tally: Tally, actors: int) -> str:
    """Writes how fast the run is, once that is known, how many actors work for it, and the lag."""
    units = UNITS.items() if tally.is_timed else ()
    parts = [f"{tally.per_s(count):,.{digits}f} {unit}/s" for unit, (count, digits) in units]
    return "  ".join([*parts, f"actors {actors}", f"lag {tally.lag}"])
