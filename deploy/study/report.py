"""Writes what `clew evaluate` prints: tables for people, one JSON object for programs."""

# M mazes, P parameters

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.process.versions import context
from deploy.study.curves import Estimate, Point
from deploy.study.evaluate import Evaluation, Run, Scores
from protocol.config import Config

LISTED = 20  # mazes that have a line of their own
COLUMNS = (1, 2, 3, 5, 10)  # the first, second, third, ... attempts have a column there, beside the last

Json = Mapping[str, "Json"] | Sequence["Json"] | str | float | None


def figures(run: Run, config: Config, result: Evaluation, seed: int) -> dict[str, Json]:
    """Returns the JSON object. `config` is the run's own, with the attempts that were wanted."""
    exam = result.exam
    return {
        **context(),
        "run": run.name,
        "update": run.update,
        "theta_sha256": hashlib.sha256(run.theta_P.tobytes()).hexdigest(),
        "config": run.config.model_dump(mode="json"),
        "seed": seed,
        "count": len(exam.names),
        "robots": result.robots,
        "attempts": config.inner.steps * config.inner.attempts + config.outer.attempts,
        "attempts_per_step": config.inner.attempts,
        "horizon": np.unique(exam.horizon_M).tolist(),
        "mean": [_point(point) for point in result.total.curve],
        "yardsticks": _yardsticks(result.total),
        "kinds": [
            {"name": kind.name, "count": kind.mazes, "shortest": kind.shortest, **_curve(kind)} for kind in result.kinds
        ],
        "mazes": [
            {"name": maze.name, "kind": kind, "shortest": maze.shortest, "horizon": horizon, **_curve(maze)}
            for maze, kind, horizon in zip(result.mazes, exam.kinds, exam.horizon_M.tolist(), strict=True)
        ],
    }


def _curve(scores: Scores) -> dict[str, Json]:
    return {"curve": [_point(point) for point in scores.curve], "yardsticks": _yardsticks(scores)}


def _yardsticks(scores: Scores) -> dict[str, Json]:
    return {"explorer": _point(scores.explorer), "known": _point(scores.known), "shortest": scores.shortest}


def _point(point: Point) -> dict[str, Json]:
    each = {"success": point.success, "steps": point.steps, "ratio": point.ratio}
    return {
        "attempts": point.attempts,
        **{name: figure.value for name, figure in each.items()},
        "intervals": {name: figure.interval for name, figure in each.items()},
    }


def tables(result: Evaluation) -> Group:
    """Makes a table with a line for every attempt, and one of each kind of maze, or of each maze where they are few."""
    named = result.mazes if len(result.mazes) <= LISTED and not result.kinds else result.kinds
    parts = [_every_attempt(result)]
    if len(named) > 1:
        parts.append(_every_name(result, named))
    return Group(*parts)


def _every_attempt(result: Evaluation) -> Table:
    """Makes a table of success and steps at every attempt, over all mazes, and of the yardsticks."""
    total = result.total
    table = Table(caption_justify="left", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("attempt", "success", "steps", "steps ÷ shortest"):
        table.add_column(head, justify="right")
    for label, point in zip(result.labels, total.curve, strict=True):
        table.add_row(label, *_brief(point), end_section=point is total.curve[-1])
    table.add_row("explorer, first", *_brief(total.explorer))
    table.add_row("explorer, then", *_brief(total.known))
    table.add_row("shortest way", "", f"{total.shortest:.1f}", f"{1:.3f}")
    table.title = Text(_title(result))
    table.caption = (
        "Each attempt is made after learning from those before it, with sampled moves; a failure, in a trap too, "
        "counts as the horizon. The explorer searches depth first, and then takes the best way that it has seen. "
        f"95 % intervals are over {'mazes' if len(result.mazes) > 1 else 'robots'}."
    )
    return table


def _title(result: Evaluation) -> str:
    """Writes a title such as `500 held-out mazes, perfect 9x9`, or `maze mine, 100 robots in each`."""
    kinds = sorted(set(result.exam.kinds) - {""})
    drawn = "held-out " if kinds else ""
    mazes = f"{len(result.mazes)} {drawn}mazes" if len(result.mazes) > 1 else f"{drawn}maze {result.mazes[0].name}"
    parts = [mazes, *(kinds if len(kinds) == 1 and len(result.mazes) > 1 else ())]
    return ", ".join([*parts, f"{result.robots} robots in each"] if result.robots > 1 else parts)


def _every_name(result: Evaluation, named: Sequence[Scores]) -> Table:
    """Makes a table of steps ÷ shortest for each of `named`, at a few attempts and of the explorer."""
    last = len(result.labels) - 1
    stages = [at for at in range(last + 1) if at + 1 in COLUMNS or at == last]
    table = Table(title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title = "steps ÷ shortest"
    table.add_column("maze" if named is result.mazes else "mazes")
    for head in ("shortest", *(result.labels[at] for at in stages), "explorer", "then"):
        table.add_column(head, justify="right")
    for scores in named:
        points = [*(scores.curve[at] for at in stages), scores.explorer, scores.known]
        table.add_row(Text(scores.name), f"{scores.shortest:.1f}", *(f"{point.ratio.value:.3f}" for point in points))
    return table


def _brief(point: Point) -> tuple[str, str, str]:
    return _figure(point.success, 3), _figure(point.steps, 1), _figure(point.ratio, 3)


def _figure(figure: Estimate, digits: int) -> str:
    """Writes a figure and, dimmed, its interval."""
    if figure.interval is None:
        return f"{figure.value:.{digits}f}"
    low, high = figure.interval
    return f"{figure.value:.{digits}f} [dim]{low:.{digits}f}-{high:.{digits}f}[/]"
