"""How `clew train` shows a run: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.local import Record
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
        return sum(record.get(figure, 1) for record in timed) / seconds if timed else 0.0

    @property
    def left(self) -> str:
        """Time left, as text."""
        if len(self._recent) < 2:
            return "-:--:--"
        return str(timedelta(seconds=round((self.total - self.update) / self.per_s("batches"))))


class Display:
    """Shows a tally. `with display: display.show(tally, actors)`, as often as one likes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._every_s = FRAME_EVERY_S if self._live else LINE_EVERY_S
        self._shown = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(*error)

    def show(self, tally: Tally, actors: int, now: bool = False) -> None:
        """One frame or line, unless the last is still fresh and it needs not be `now`."""
        if not now and time.monotonic() - self._shown < self._every_s:
            return
        self._shown = time.monotonic()
        if self._live:
            self._live.update(panel(tally, actors), refresh=True)
        elif tally.update:
            self._console.print(line(tally, actors), soft_wrap=True, highlight=False)


def panel(tally: Tally, actors: int) -> Group:
    """The live picture: a bar, what is learned, how fast."""
    bar = Table.grid(padding=(0, 2))
    update = f"{tally.update}/{tally.total}"
    bar.add_row(update, ProgressBar(tally.total, tally.update, width=40), f"{tally.left} left")
    learned = Table.grid(padding=(0, 3))
    learned.add_row(Text("", "dim"), Text("success", "dim"), Text("steps ÷ shortest", "dim"))
    for when in ("before", "after"):
        success, ratio = tally.mean(f"success_{when}"), tally.mean(f"ratio_{when}")
        learned.add_row(f"{when} adaptation", Text(f"{success:.3f}", "bold"), Text(f"{ratio:.3f}", "bold"))
    return Group(bar, learned, Text(speeds(tally, actors), "cyan"))


def line(tally: Tally, actors: int) -> str:
    """The same as one line of text."""
    before, after = tally.mean("success_before"), tally.mean("success_after")
    ratio_before, ratio_after = tally.mean("ratio_before"), tally.mean("ratio_after")
    return (
        f"update {tally.update}/{tally.total}  success {before:.3f} -> {after:.3f}  "
        f"steps/shortest {ratio_before:.3f} -> {ratio_after:.3f}  {speeds(tally, actors)}  {tally.left} left"
    )


def speeds(tally: Tally, actors: int) -> str:
    """How fast, by how many, how late."""
    parts = (f"{tally.per_s(unit):,.{digits}f} {unit}/s" for unit, digits in UNITS.items())
    return "  ".join((*parts, f"actors {actors}", f"lag {tally.lag}"))
