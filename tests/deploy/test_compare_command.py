"""`clew compare`, in real processes: what it writes, that it goes on where it was, and that a seed says everything."""

from __future__ import annotations

import json
import re
import signal
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from deploy.compare.rivals import RIVALS
from tests.deploy.test_cli import TINY, assert_refused, clew, running, wait_until

MAZES = ["--count", "8", "--updates", "3"]
SOME = ["--rivals", "learned,maml,rl2", "--rivals", "no-adaptation,fine-tuned,q-learning,planner"]


def compared(out: Path, *more: object) -> dict[str, Any]:
    """The JSON that a comparison of a few tiny mazes prints."""
    done = clew("compare", *TINY, "--quick", "--out", out, "--json", *more, folder=out.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """The figures, without how long they took."""
    return {rival["name"]: rival["groups"] for rival in found["rivals"]}


def test_it_writes_table_picture_and_page_and_uses_again_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = compared(out, *MAZES, *SOME)
    assert list(numbers(found)) == [rival.name for rival in RIVALS if rival.name in ",".join(SOME[1::2]).split(",")]
    assert found == json.loads((out / "compare.json").read_text())
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "runs").iterdir())) == 4  # two of the five share a run
    kept = {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    assert len(kept) == 7
    assert compared(out, *MAZES, *SOME) == found
    assert kept == {file: file.stat().st_mtime_ns for file in (out / "results").iterdir()}
    table = clew("compare", *TINY, "--quick", "--out", out, *MAZES, *SOME, folder=tmp_path)
    assert "optimistic planner" in table.stdout
    assert "Ahead of MAML" in table.stdout
    _check_page((out / "compare.html").read_text(), numbers(found))


def _check_page(page: str, rivals: dict[str, Any]) -> None:
    """Looks for whatever a browser would fetch, and for the words about each rival."""
    loads = Loads()
    loads.feed(page)
    assert loads.found == ["data:image/png"]
    assert not re.search(r"url\(|@import|https?:", page)
    for rival in RIVALS:
        assert (rival.words in unescape(page)) == (rival.name in rivals)


class Loads(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        self.found += [
            str(value).partition(";")[0] for name, value in attrs if name in ("src", "href", "srcset", "data")
        ]


def test_a_comparison_that_was_interrupted_goes_on_and_finds_the_same(tmp_path: Path) -> None:
    wanted = ["--count", "8", "--updates", "150", "--set", "run.checkpoint_every=1", "--rivals", "learned,random"]
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    with running("compare", *TINY, "--quick", "--out", begun, *wanted, folder=tmp_path) as process:
        wait_until(lambda: any((begun / "runs").glob("*/checkpoints/*2.json")))
        process.send_signal(signal.SIGINT)
        process.wait()
    updates = max(int(file.stem) for file in (begun / "runs").glob("*/checkpoints/*.json"))
    assert 0 < updates < 30  # a fifth of those that were asked for
    assert not (begun / "results").exists()
    assert numbers(compared(begun, *wanted)) == numbers(compared(whole, *wanted))


def test_another_seed_is_another_comparison(tmp_path: Path) -> None:
    wanted = ["--count", "8", "--rivals", "planner,q-learning"]
    zero = numbers(compared(tmp_path / "out", *wanted, "--seed", "0"))
    assert zero != numbers(compared(tmp_path / "out", *wanted, "--seed", "1"))
    assert zero == numbers(compared(tmp_path / "other", *wanted, "--seed", "0"))


def test_an_unknown_rival_ends_in_one_sentence(tmp_path: Path) -> None:
    done = clew("compare", "--rivals", "planer", folder=tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("clew: there is no rival 'planer'; choose from learned, ")
    assert done.stderr.count("\n") == 1


def test_where_nothing_can_be_written_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a directory")
    done = clew("compare", *TINY, "--quick", "--out", "taken/out", "--rivals", "learned", folder=tmp_path)
    assert_refused(done, "cannot write to taken/out: Not a directory; choose another --out")
