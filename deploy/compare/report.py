"""Writes what `clew compare` prints: one table for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from deploy.compare.compare import Comparison, Row, Verdict, verdicts
from deploy.compare.played import SHOWN, TARGET, Group
from deploy.process.versions import context
from deploy.study.curves import Estimate

COLUMNS = (1, 2, 3, 10)  # attempts that have a column


def figures(found: Comparison) -> dict[str, Any]:
    """Returns the JSON object."""
    return {
        **context(),
        "config": found.config.model_dump(mode="json"),
        "seed": found.seed,
        "mazes": len(found.exam.mazes),
        "target": TARGET,
        "rivals": [
            {
                "name": row.rival.name,
                "title": row.rival.title,
                "kind": row.rival.kind,
                "source": row.rival.source,
                "updates": row.updates,
                "seconds": row.seconds,
                "groups": [asdict(group) for group in row.groups],
            }
            for row in found.rows
        ],
        "learned_is": [
            {"against": verdict.rival.name, "ahead": verdict.ahead, "behind": verdict.behind}
            for verdict in verdicts(found)
        ],
    }


def heads() -> tuple[str, ...]:
    """Returns the heads of the table's columns."""
    return ("rival", *(f"attempt {at}" for at in COLUMNS), f"exits in {SHOWN}", f"attempts until {TARGET}")


def cells(row: Row, group: Group) -> list[tuple[str, str]]:
    """Returns each figure of a row as its value and its interval."""
    points = [group.at(at) for at in COLUMNS]
    return [*(told(point.ratio) if point else ("", "") for point in points), told(group.exits), reached(group)]


def told(figure: Estimate) -> tuple[str, str]:
    """Writes a figure and its interval."""
    return short(figure.value), "-".join(short(end) for end in figure.interval or ())


def short(figure: float) -> str:
    """Writes a figure with the digits that matter: near 1, where the best ratios are, three."""
    return f"{figure:.3f}" if 0.9 < figure < 1.1 else f"{figure:.2f}"


def reached(group: Group) -> tuple[str, str]:
    """Writes how many attempts it took to come down to the target."""
    if group.reached is None:
        return f"over {group.attempts:,}", ""
    value, interval = group.reached.value, group.reached.interval
    if interval is None:
        return f"{value:,.0f}", ""
    ends = [f"{end:,.0f}" if end <= group.attempts else f"over {group.attempts:,}" for end in interval]
    return f"{value:,.0f}", f"{ends[0]}-{ends[1]}"


def table(found: Comparison) -> Lines:
    """Makes the table: a line for every rival, over all mazes; and what the learned rule is ahead of."""
    grid = Table(caption_justify="left", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.title = f"steps ÷ shortest way, {len(found.exam.mazes)} held-out mazes"
    for at, head in enumerate(heads()):
        grid.add_column(head, justify="right" if at else "left", overflow="fold")
    kind = ""
    for row in found.rows:
        if kind and row.rival.kind != kind:
            grid.add_section()
        kind = row.rival.kind
        shown = [f"{value}\n[dim]{interval}[/]" for value, interval in cells(row, row.groups[0])]
        grid.add_row(Text(row.rival.title), *shown)
    grid.caption = "Moves are sampled, not greedy; a failed attempt counts as the horizon. 95 % intervals over mazes."
    return Lines(grid, *(Text(sentence(verdict)) for verdict in verdicts(found)))


def sentence(verdict: Verdict) -> str:
    """Says at which attempts, in which mazes, the learned rule is ahead of a rival, or is not."""
    kinds = {kind: ahead for kind, ahead in verdict.ahead.items() if kind != "all" or len(verdict.ahead) == 1}
    whole = [kind for kind, ahead in kinds.items() if len(ahead) == SHOWN - 1]
    behind = _listed({kind: behind for kind, behind in verdict.behind.items() if behind})
    if len(whole) == len(kinds):
        where = "in every kind of maze"
    else:
        some = {kind: ahead for kind, ahead in kinds.items() if ahead and kind not in whole}
        parts = [f"in {', '.join(whole)}"] if whole else []
        parts += [f"in part in {_listed(some)}"] if some else []
        where = "; ".join(parts) or "nowhere"
    text = f"Ahead of {verdict.rival.title} at attempts 2 to {SHOWN}, by intervals that do not meet: {where}."
    return f"{text} Behind it: {behind}." if behind else text


def _listed(attempts: Mapping[str, Sequence[int]]) -> str:
    """Writes the attempts of each kind of maze: "perfect 9x9 (2, 3)"."""
    return ", ".join(f"{kind} ({', '.join(map(str, numbers))})" for kind, numbers in attempts.items())
