"""The log of a process: one line per event on standard error, for people (text) or for machines (json).

`logging.getLogger("clew").info("lease expired", extra={"batch": 3})`. Much of what is logged came over the
network, so no line ever holds a control character: it can neither forge a line nor drive a terminal.
"""

from __future__ import annotations

import json
import logging
import math
import re
from datetime import UTC, datetime
from typing import Any, Literal

Style = Literal["text", "json"]

_OF_EVERY_RECORD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r'[^\s|="]+')
_context: dict[str, str | None] = {"run": None, "actor": None}  # of the process, in every line


def configure(style: Style, role: str, level: int = logging.INFO, **context: str) -> None:
    """Sends what the process logs to standard error; `role` is learner, actor, or clew for other commands."""
    bind(**context)
    handler = logging.StreamHandler()
    handler.setFormatter(_Json(role) if style == "json" else _Text(role))
    log = logging.getLogger("clew")
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False


def bind(**context: str | None) -> None:
    """Adds names and values to every line from now on; a value of None leaves the name out again."""
    _context.update(context)


class _Line(logging.Formatter):
    """Collects what a line tells of an event; its two kinds write it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def _head(self, record: logging.LogRecord) -> dict[str, str]:
        """Returns what every line begins with."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return {"time": time.replace("+00:00", "Z"), "level": record.levelname, "role": self._role}

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Returns what the call gave as `extra`, and the traceback where there is one."""
        fields = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return fields


class _Text(_Line):
    """Writes lines such as `2026-11-23T03:05:19.123Z INFO learner run=ab12 | lease expired batch=3`."""

    def format(self, record: logging.LogRecord) -> str:
        known = {name: value for name, value in _context.items() if value is not None}
        head = (*self._head(record).values(), *_pairs(known))
        return printable(" ".join((*head, "|", record.getMessage(), *_pairs(self._fields(record)))))


class _Json(_Line):
    """Writes a JSON object per line; `event` is the message, and fields of the call win over those of the process."""

    def format(self, record: logging.LogRecord) -> str:
        head, event = self._head(record), {"event": record.getMessage()}
        line = head | _context | event | self._fields(record) | head | event  # `extra` overrides context alone
        finite = {name: _finite(value) for name, value in line.items()}
        return json.dumps(finite, default=str)  # what is not ASCII, or controls a terminal, is escaped


def _pairs(fields: dict[str, Any]) -> list[str]:
    """Returns name=value of each field, quoted where a value could be taken for more than one."""
    texts = {name: str(value) for name, value in fields.items()}
    return [
        f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)}"
        for name, text in texts.items()
    ]


def printable(text: str) -> str:
    """Escapes control characters, and those that turn the direction of text: names of files may hold any."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not know, by None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
