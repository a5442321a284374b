"""Writes one HTML page that needs nothing beside itself: the picture, the table, and what each rival does."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape

from deploy.compare import report
from deploy.compare.compare import Comparison, Row, verdicts
from deploy.compare.played import SHOWN, TARGET
from deploy.compare.rival import KINDS
from deploy.process.versions import context

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; display: block; overflow-x: auto; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small { color: #666; display: block; }
img { max-width: 100%; }
dt { font-weight: 600; margin-top: .8rem; }
dd { margin: 0 0 0 1rem; }
"""
ABOVE = """Every rival was put into the same {mazes} mazes, which none of them had seen, and made {attempts} attempts at
each; those that learn from nothing made as many as it took. A figure is the steps of all attempts over the steps of all
shortest ways: 1 is perfect. A failed attempt counts as the horizon, the steps after which it is called off. Below each
figure stands its 95 % interval, by a bootstrap over the mazes."""
BELOW = """The last columns say how many of the first {attempts} attempts reached an exit, and how many attempts it
takes until the steps are at most {target} times the shortest way."""
AHEAD = """Ahead means that the whole 95 % interval of one lies below that of the other. Where both walk the shortest
way, as most do in perfect mazes, which have one way only, nobody is ahead."""
ABOUT = {
    KINDS[0]: "Rivals that were trained on many mazes so as to learn a new one from a few attempts.",
    KINDS[1]: "Rivals that were trained on many mazes for how well they walk, not for how well they learn.",
    KINDS[2]: "Rivals that have never seen a maze and learn this one by trial and error, for as long as it takes.",
    KINDS[3]: "Rivals that were programmed, not trained: each follows a rule that people have thought of.",
}


def write(found: Comparison, picture: bytes) -> str:
    """Returns the page. `picture`: PNG, which becomes a part of it."""
    image = (
        f'<img alt="steps ÷ shortest way against attempts" src="data:image/png;base64,{b64encode(picture).decode()}">'
    )
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>clew and its rivals</title>',
            f"<style>{STYLE}</style></head><body>",
            "<h1>What is learning to learn worth?</h1>",
            f"<p>{ABOVE.format(mazes=len(found.exam.mazes), attempts=SHOWN)}</p>",
            image,
            "<h2>All mazes</h2>",
            _table(found.rows, 0),
            f"<p>{BELOW.format(attempts=SHOWN, target=TARGET)}</p>",
            "<h2>What the learned rule is ahead of</h2>",
            f"<p>{AHEAD}</p>",
            "<ul>",
            *(f"<li>{escape(report.sentence(verdict))}</li>" for verdict in verdicts(found)),
            "</ul>",
            "<h2>The rivals</h2>",
            *_rivals(found.rows),
            *_kinds(found),
            "<h2>How to get these figures again</h2>",
            _again(found),
            "</body></html>\n",
        )
    )


def _table(rows: Iterable[Row], group: int) -> str:
    """Makes the table of one group of mazes."""
    head = "".join(f"<th>{escape(head)}</th>" for head in report.heads())
    lines = [
        f"<tr><td>{escape(row.rival.title)}</td>"
        + "".join(
            f"<td>{value}<small>{interval}</small></td>" for value, interval in report.cells(row, row.groups[group])
        )
        + "</tr>"
        for row in rows
    ]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _rivals(rows: Iterable[Row]) -> Iterable[str]:
    """Explains each rival, kind by kind."""
    for kind in KINDS:
        some = [row for row in rows if row.rival.kind == kind]
        if some:
            yield f"<h3>{escape(kind[0].upper() + kind[1:])}</h3><p>{escape(ABOUT[kind])}</p><dl>"
            for row in some:
                trained = "" if row.updates is None else f" Trained for {row.updates:,} updates."
                yield f"<dt>{escape(row.rival.title)}</dt>"
                yield f"<dd>{escape(row.rival.words + trained)}<small>{escape(row.rival.source)}</small></dd>"
            yield "</dl>"


def _kinds(found: Comparison) -> Iterable[str]:
    """Makes a table for each kind of maze, where there are several."""
    for number, group in list(enumerate(found.rows[0].groups))[1:]:
        yield f"<h2>{escape(group.name)}: {group.mazes} mazes</h2>"
        yield _table(found.rows, number)


def _again(found: Comparison) -> str:
    """Says what the figures depend on."""
    known = context()
    said = (
        f"clew {known['clew']}, contract {str(known['contract'])[:12]}, numpy {known['numpy']}, torch {known['torch']}"
    )
    config = escape(found.config.model_dump_json(indent=1))
    return (
        f"<p>{escape(said)}; seed {found.seed}. <code>clew compare --config FILE --seed {found.seed}</code> with these "
        f"settings gives the same numbers:</p><details><summary>config</summary><pre>{config}</pre></details>"
    )
