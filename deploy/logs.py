"""One line on standard error for every event, with its time in UTC: as text, or as a JSON object."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

Style = Literal["text", "json"]

KNOWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}  # what every record has; the rest is `extra`


def configure(style: Style, level: int = logging.INFO, **context: str) -> None:
    """Sets up the logger "clew". `context`, such as role, stands in every line; `learner` and `actors` add to it."""
    handler = logging.StreamHandler()
    handler.setFormatter(Line(style, context))
    log = logging.getLogger("clew")
    log.handlers, log.propagate = [handler], False
    log.setLevel(level)


class Line(logging.Formatter):
    """Always one line, whatever came over the network into it."""

    def __init__(self, style: Style, context: dict[str, str]) -> None:
        super().__init__()
        self._kind, self._context = style, context

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        if record.exc_info:
            event = f"{event}: {self.formatException(record.exc_info)}"
        extra = {key: value for key, value in vars(record).items() if key not in KNOWN}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"time": when.replace("+00:00", "Z"), "level": record.levelname.lower()}
        fields = {**self._context, **extra}
        if self._kind == "json":
            return json.dumps({**head, **fields, "event": event}, default=str)
        tail = "".join(f" {key}={printable(value)}" for key, value in fields.items())
        return f"{head['time']} {head['level']:<7} {printable(event)}{tail}"


def printable(value: Any) -> str:
    """As it stands, but for characters that would move a terminal's cursor or end the line."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(value))
