"""What `clew train` shows: nothing that is not known yet, and nothing twice."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from deploy.command.display import Display, Tally, line, panel
from protocol.config import Config, RunConfig
from tests.parts.records import record_of


def shown_as_panel(tally: Tally) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(panel(tally, 2))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_before_the_first_update_there_is_no_line_not_even_of_a_resumed_run(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(Console())
    for done in (0, 7):
        display.show(Tally(Config(), done), 2, now=True)
    assert capsys.readouterr().out == ""


def test_what_is_not_known_yet_is_left_out() -> None:
    tally = Tally(Config(), 7)
    assert "nan" not in shown_as_panel(tally)
    tally.add(replace(record_of(8), ratio_before=None, ratio_after=None))
    for text in (line(tally, 2), shown_as_panel(tally)):
        assert "nan" not in text
        assert "steps/s " not in text  # the first update waited for the actors: it tells no speed
    assert "success 0.500 -> 1.000  steps/shortest - -> -  actors 2" in line(tally, 2)
    tally.add(record_of(9))
    assert "steps/shortest 1.500 -> 1.500  4.0 batches/s  160 attempts/s  4,000 steps/s" in line(tally, 2)


def test_an_update_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    display, tally = Display(Console()), Tally(Config())
    tally.add(record_of(1))
    for actors in (2, 2, 1):
        display.show(tally, actors, now=True)
    tally.add(record_of(2))
    display.show(tally, 1, now=True)
    assert [text.split()[1] for text in capsys.readouterr().out.splitlines()] == ["1/1000", "2/1000"]


def test_the_first_line_comes_as_soon_as_it_can_say_how_fast_the_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    display, tally = Display(Console()), Tally(Config())
    for update in range(4):
        if update:
            tally.add(record_of(update))
        display.show(tally, 2)
    assert [text.split("  ")[0] for text in capsys.readouterr().out.splitlines()] == ["update 2/1000"]


@pytest.mark.parametrize("updates", [10**15, 10**400])
def test_a_run_without_an_end_in_sight_is_shown_like_any_other(updates: int) -> None:
    tally = Tally(Config(run=RunConfig(updates=updates)), 7)
    for update in (8, 9):
        tally.add(record_of(update))
    for text in (line(tally, 2), shown_as_panel(tally)):
        assert "millennia left" in text
