"""Standard output that works on a console of any encoding, on a full disk, and where nobody reads any more."""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from protocol.config import ClewError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")]


class OutputError(ClewError):
    """Standard output cannot be written to any more."""

    def __init__(self, error: OSError) -> None:
        self.is_unread = error.errno == errno.EPIPE  # the reader has left, as `head` does
        reason = "nobody reads it any more" if self.is_unread else error.strerror
        super().__init__(f"cannot write to standard output: {reason}; make room, or send it somewhere else")


class Output(TextIOWrapper):
    """Standard output that shows a `?` for what its encoding lacks, and raises OutputError where it cannot be written.

    After the first error, all further output goes nowhere.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise self._ended(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._ended(error) from None

    def _ended(self, error: OSError) -> OutputError:
        """Sends all further output nowhere, and returns the error to raise."""
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())
        return OutputError(error)


def show(table: RenderableType) -> None:
    """Prints a table as wide as the terminal, or 100 columns wide where there is none."""
    console = Console()
    Console(width=None if console.is_terminal else 100).print(table)


def take_over() -> None:
    """Makes standard output an `Output`, and standard error show a `?` for what its encoding lacks."""
    out = sys.stdout
    if isinstance(out, TextIOWrapper):
        sys.stdout = Output(out.buffer, out.encoding, "replace", None, out.line_buffering, out.write_through)
    else:  # None, where it is closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr.reconfigure(errors="replace")
    else:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
