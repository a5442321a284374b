"""The log: one safe line per event, whatever came over the network."""

from __future__ import annotations

import io
import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.process import logs

log = logging.getLogger("clew")
HOSTILE = "\x1b[2Jgone\r\nlearner | all is well\u202e\x07\x9b\u2028\x7f"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """The log is the process's, and this process goes on."""
    former, level, propagate, context = log.handlers, log.level, log.propagate, dict(logs._context)
    yield
    log.handlers, log.propagate = former, propagate
    log.setLevel(level)
    logs._context.clear()
    logs._context.update(context)


def logged(style: logs.Style, message: str, *arguments: object, **extra: object) -> str:
    """What standard error gets to see."""
    with redirect_stderr(io.StringIO()) as stderr:
        logs.configure(style, "learner")
        log.info(message, *arguments, extra=extra)
    return stderr.getvalue()


def parsed(line: str) -> dict[str, Any]:
    assert line.endswith("}\n")
    found = json.loads(line, parse_constant=pytest.fail)  # NaN is no JSON
    assert isinstance(found, dict)
    return found


def test_a_line_says_when_and_who_and_what() -> None:
    logs.bind(run="ab12")
    line = logged("text", "lease %d expired", 7, batch=3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO learner run=ab12 \| lease 7 expired batch=3\n", line
    )


def test_the_time_is_utc() -> None:
    said = datetime.fromisoformat(parsed(logged("json", "now"))["time"])
    assert said.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=1)


def test_a_json_line_holds_the_same_keys_first_and_what_the_call_adds() -> None:
    logs.bind(run="ab12")
    line = parsed(logged("json", "lease expired", batch=3))
    assert list(line) == ["time", "level", "role", "run", "actor", "event", "batch"]
    assert (line["level"], line["role"], line["run"], line["actor"]) == ("INFO", "learner", "ab12", None)
    assert (line["event"], line["batch"]) == ("lease expired", 3)


def test_a_call_may_say_which_actor_but_not_which_role() -> None:
    logs.bind(actor="me")
    line = parsed(logged("json", "joined", actor="other", role="king", event="coup", time="never"))
    assert (line["actor"], line["role"], line["event"]) == ("other", "learner", "joined")


def test_what_json_does_not_know_is_still_a_line() -> None:
    line = parsed(logged("json", "odd", norm=math.nan, folder=io.BytesIO))
    assert line["norm"] is None
    assert "BytesIO" in line["folder"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_context_can_be_taken_back(style: logs.Style) -> None:
    logs.bind(run="ab12")
    assert "ab12" in logged(style, "on")
    logs.bind(run=None)
    assert "ab12" not in logged(style, "off")


@pytest.mark.parametrize("style", ["text", "json"])
def test_newlines_and_escape_characters_stay_one_safe_line(style: logs.Style) -> None:
    logs.bind(actor=HOSTILE)
    line = logged(style, "Bye from %s", HOSTILE, peer=HOSTILE)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert line.count("gone") == 3


@given(message=st.text(), peer=st.text())
def test_whatever_comes_is_one_printable_line(message: str, peer: str) -> None:
    text = logged("text", "%s", message, peer=peer)
    assert text[:-1].isprintable()
    line = logged("json", "%s", message, peer=peer)
    assert line[:-1].isprintable()
    assert (parsed(line)["event"], parsed(line)["peer"]) == (message, peer)


def test_a_value_cannot_pass_for_two() -> None:
    assert logged("text", "joined", host="a batch=4 | x").endswith('| joined host="a batch=4 | x"\n')


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_a_part_of_its_line(style: logs.Style) -> None:
    with redirect_stderr(io.StringIO()) as stderr:
        logs.configure(style, "actor")
        try:
            raise ValueError("no such maze")
        except ValueError:
            log.exception("unexpected")
    line = stderr.getvalue()
    assert line.count("\n") == 1
    assert "no such maze" in line
    assert "Traceback" in line


def test_configuring_again_replaces_what_was() -> None:
    logged("json", "first")
    assert logged("text", "second").count("second") == 1


def test_a_level_keeps_the_rest_quiet() -> None:
    with redirect_stderr(io.StringIO()) as stderr:
        logs.configure("text", "actor", logging.WARNING, actor="a1")
        log.info("small")
        log.warning("large")
    assert stderr.getvalue().endswith(" WARNING actor actor=a1 | large\n")
    assert "small" not in stderr.getvalue()
