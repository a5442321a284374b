"""What locks an actor out, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from protocol.wire.contract import ROOT, contract
from protocol.wire.messages import CONTRACT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path / "protocol"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_comments_docstrings_layout_and_how_connections_are_made_lock_nobody_out(copy: Path) -> None:
    change(copy / "learning/play.py", '"""The draw of moves', '"""The drawing of moves')
    change(copy / "world/cells.py", "A = len(MOVES)", "# of moves\n\nA = (\n    len(MOVES)\n)")
    change(
        copy / "learning/play.py",
        '    """Draws a key for each attempt [W], which says where its random numbers begin."""\n',
        "",
    )
    change(copy / "wire/sockets.py", "LINGER_MS = 500", "LINGER_MS = 600")
    assert contract(copy) == CONTRACT


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("learning/play.py", "2.0**-53", "2.0**-52"),
        ("world/families.py", "return", "pass\n    return"),
        ("learning/inner.py", "CREDIT_SCALE = 10.0", "CREDIT_SCALE = 11.0"),
        ("compiled/play.py", "import", "import sys\nimport"),
        ("config.py", "= 0.99", "= 0.98"),
        ("wire/messages.py", "batch: Count", "lot: Count"),
    ],
)
def test_what_is_computed_otherwise_or_said_otherwise_is_another_contract(
    copy: Path, name: str, old: str, new: str
) -> None:
    change(copy / name, old, new)
    assert contract(copy) != CONTRACT


def test_numpy_counts_up_to_its_second_number() -> None:
    assert contract(numpy="2.4.1") == contract(numpy="2.4.9") != contract(numpy="2.5.1")
