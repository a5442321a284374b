"""Draws a run: how it learned to learn, how it gets better from attempt to attempt, and its routes."""

# M mazes, C cells of all mazes (here of the one maze), T steps of an attempt, P parameters

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, MaxNLocator, NullFormatter

from deploy.study import routes
from deploy.study.evaluate import Evaluation, Scores
from deploy.study.pixels import EXIT_MARK, FLOOR, START_MARK, STONE, TRAP_MARK
from deploy.study.routes import Route, Shown
from learner.record import Record
from protocol.config import ClewError, Config
from protocol.world.cells import EXIT, TRAP, WALL, Floats, Indices
from protocol.world.maze import Mazes

mpl.rcParams["text.parse_math"] = False  # names of mazes are names of files: a dollar sign is one

# Told apart by people with any colour vision, and by lightness alone (Okabe and Ito, 2002).
BEFORE, AFTER, LEARNED, EXPLORER, KNOWN, FAILED = "#d55e00", "#0072b2", "#0072b2", "#d55e00", "#b07a00", "#b3261e"
ROUTE_COLOURS = "plasma"
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
TICKS = (1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500)
PANELS = 4  # in a row
LETTERS = 24  # of a maze's name, at most
MARKED = 30  # attempts, up to which each has a mark on the curve


def draw(run_dir: Path, theta_P: Floats, config: Config, result: Evaluation, seed: int) -> None:
    """Writes curve.png and adaptation.png of an evaluation, and learning_curve.png of the run itself."""
    pictures = {
        "curve.png": curve(result),
        "adaptation.png": adaptation(result, routes.shown(result, theta_P, config, seed)),
    }
    records = history(run_dir)
    if records:
        pictures["learning_curve.png"] = learning_curve(records)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that the font lacks is drawn as boxes
        for name, picture in pictures.items():
            try:
                picture.savefig(run_dir / name, dpi=150)
            except OSError as error:
                raise ClewError(f"cannot write {run_dir / name}: {error.strerror}; make room or give access") from None
            plt.close(picture)


def history(run_dir: Path) -> list[Record]:
    """Reads the records of a run's updates, up to the first that is not whole, such as one that is being written."""
    records: list[Record] = []
    path = run_dir / "updates.jsonl"
    with suppress(OSError, ValueError):
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            records.append(Record.of(line))
    return records


# How it learned to learn


def learning_curve(records: Sequence[Record]) -> Figure:
    """Draws success and steps ÷ shortest of training mazes, before and after adaptation, by update and by time."""
    axes = {"updates": [record.update for record in records], "minutes of training": minutes(records)}
    success = [[record.success_before for record in records], [record.success_after for record in records]]
    ratio = [[record.ratio_before for record in records], [record.ratio_after for record in records]]
    figures = (("share of attempts that reach an exit", success), ("steps ÷ shortest way", ratio))
    looks = (("first attempt", BEFORE), ("after adaptation", AFTER))
    picture, grid = plt.subplots(2, 2, figsize=(10, 6.8), sharex="col", sharey="row", layout="constrained")
    for row, (title, figure) in zip(grid, figures, strict=True):
        for axis, (name, along) in zip(row, axes.items(), strict=True):
            for told, (label, colour) in zip(figure, looks, strict=True):
                values = np.array(told, float)  # one that was not finite is None, and becomes NaN
                axis.plot(along, values, color=colour, alpha=0.18, linewidth=0.8)
                axis.plot(along, smoothed(values), color=colour, linewidth=2, label=label)
            _plain(axis)
            if figure is ratio:
                axis.set_xlabel(name)
        row[0].set_ylabel(title)
    grid[0, 0].legend(frameon=False, loc="lower right")
    _ratio_scale(grid[1, 0], _highest(ratio))
    picture.suptitle("Training mazes, new ones at every update", fontsize=12)
    return picture


def _highest(ratios: Iterable[Iterable[float | None]]) -> float:
    """Returns the largest ratio that a learning curve shows."""
    return max((ratio for some in ratios for ratio in some if ratio is not None), default=1.0)


def minutes(records: Sequence[Record]) -> list[float]:
    """Returns the time spent on training until each update."""
    return list(np.cumsum([record.seconds for record in records]) / 60)


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the mean of each value and its neighbours: a fiftieth of the run, fewer at its ends."""
    reach = max(1, len(values) // 100)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))


# How it gets better from attempt to attempt


def curve(result: Evaluation) -> Figure:
    """Draws steps ÷ shortest at every attempt, with the yardsticks: a panel for each kind of maze."""
    panels = result.kinds or (result.total,)
    columns = min(PANELS, len(panels))
    rows = -(-len(panels) // columns)
    size = (max(6.4, 3.5 * columns), 3.4 * rows + 1.2)
    picture, grid = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axis, scores in zip(grid.flat, panels, strict=False):
        _panel(axis, result, scores)
    for axis in grid.flat[len(panels) :]:
        axis.set_visible(False)
    for row in grid:
        row[0].set_ylabel("steps ÷ shortest way")
    for axis in grid[-1]:
        axis.set_xlabel("attempt")
    _ratio_scale(grid[0, 0], max(max(point.ratio.value for point in (*s.curve, s.explorer)) for s in panels))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=len(labels) if columns > 1 else 2, frameon=False)
    picture.suptitle("How long the way is at every attempt", fontsize=12)
    return picture


def _panel(axis: Axes, result: Evaluation, scores: Scores) -> None:
    """Draws the curve of some mazes: its points, its band, and three lines to compare it with."""
    x = [point.attempts + 1 for point in scores.curve]
    y = [point.ratio.value for point in scores.curve]
    bounds = [point.ratio.interval or (point.ratio.value, point.ratio.value) for point in scores.curve]
    axis.fill_between(x, [low for low, _ in bounds], [high for _, high in bounds], color=LEARNED, alpha=0.2, lw=0)
    axis.plot(x, y, color=LEARNED, marker="o" if len(x) <= MARKED else None, ms=4, lw=2, label="clew")
    for point, name, colour, dashes in (
        (scores.explorer, "depth-first explorer, first attempt", EXPLORER, (0, (5, 2))),
        (scores.known, "best way that it knows then", KNOWN, (0, (1.5, 1.5))),
    ):
        axis.axhline(point.ratio.value, color=colour, linestyle=dashes, lw=1.5, label=name)
    axis.axhline(1, color="black", lw=0.8, label="shortest way")
    for at in sorted({0, min(1, len(x) - 1), len(x) - 1}):
        side = -1 if at and at == len(x) - 1 else 1
        axis.annotate(
            _short(y[at]),
            (x[at], y[at]),
            xytext=(6 * side, 7),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=9,
            color=LEARNED,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )
    names = f"{scores.mazes} mazes" if scores.mazes > 1 else f"maze {_clipped(result.mazes[0].name)}"
    axis.set_title(f"{scores.name}: {names}" if result.kinds else names, fontsize=10)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _ratio_scale(axis: Axes, highest: float) -> None:
    """Makes an axis logarithmic, with plain numbers: no ratio is below 1, and what matters happens near it."""
    axis.set_yscale("log")
    axis.set_ylim(0.96, max(1.6, highest * 1.25))
    crowded = (1.1, 1.2) if highest > 10 else (1.1,) if highest > 4 else ()
    axis.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if tick not in crowded]))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_minor_locator(FixedLocator([]))


# The routes that it takes


def adaptation(result: Evaluation, mazes: Sequence[Shown]) -> Figure:
    """Draws a row for each maze: what a robot did at its first attempts and at the last, and the shortest way."""
    stages = routes.stages_shown(result)
    heads = [*(_head(result, stage) for stage in stages), "shortest way\n\n\n"]
    tall = [min(max(rows / columns, 0.2), 2.0) for one in mazes for rows, columns in one.maze.shape_M2.tolist()]
    size = (2.6 * len(heads) + 0.4, 2.6 * sum(tall) + 0.35 * len(mazes) + 1.1)
    picture, grid = plt.subplots(
        len(mazes), len(heads), figsize=size, squeeze=False, layout="constrained", height_ratios=tall
    )
    for row, one in zip(grid, mazes, strict=True):
        row[0].set_ylabel(_clipped(one.name), fontsize=10)
        best = len(one.shortest.cells) - 1
        for axis, route, success in zip(row, one.routes, one.success, strict=False):
            share = f", {success:.0%} succeed" if result.robots > 1 else ""
            axis.set_title(_how_it_went(one.maze, route) + share, fontsize=9, color="black" if route.found else FAILED)
            draw_route(axis, one.maze, route.cells)
        row[-1].set_title(f"{best} steps", fontsize=9)
        draw_route(axis=row[-1], maze=one.maze, cells=one.shortest.cells)
    for axis, head in zip(grid[0], heads, strict=True):
        # Above the title of its first panel, which may have another colour.
        axis.annotate(head, (0.5, 1), (0, 12), "axes fraction", "offset points", ha="center", fontsize=9)
    picture.supxlabel(_legend(mazes), fontsize=9)
    return picture


def _head(result: Evaluation, stage: int) -> str:
    """Writes the head of a column: `attempt 2`, and below it how all robots did."""
    point, label = result.total.curve[stage], result.labels[stage]
    success, count = point.success.value, len(result.mazes) * result.robots
    shown = "100 %" if success == 1 else f"{min(success, 0.9994):.1%}".replace("%", " %")
    kind = "mazes" if result.robots == 1 else "robots"
    return (
        f"attempt{'s' if ' ' in label else ''} {label}\n"
        f"{shown} of {count} {kind} succeed\n"
        f"steps ÷ shortest: {_short(point.ratio.value)}\n"
    )


def _clipped(name: str) -> str:
    """Returns as much of a name as a picture has room for."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _short(ratio: float) -> str:
    """Writes a ratio with the digits that matter: near 1, three."""
    return f"{ratio:.3f}" if ratio < 1.1 else f"{ratio:.2f}"


def _how_it_went(maze: Mazes, route: Route) -> str:
    steps = f"{len(route.cells) - 1} steps"
    if route.found:
        return steps
    return f"trap after {steps}" if maze.cell_C[route.cells[-1]] == TRAP else f"no exit in {steps}"


def _legend(mazes: Sequence[Shown]) -> str:
    traps = ", crosses: traps" if any((one.maze.cell_C == TRAP).any() for one in mazes) else ""
    return f"circle: start, star: exit{traps}; a route goes from dark to bright"


def draw_route(axis: Axes, maze: Mazes, cells: Indices) -> None:
    """Draws a maze and a route in it, coloured from dark to bright as time goes by."""
    rows, columns = maze.shape_M2[0].tolist()
    kind = maze.cell_C.reshape(rows, columns)
    axis.imshow(kind == WALL, cmap=ListedColormap([FLOOR, STONE]), vmin=0, vmax=1)
    at_T2 = spread(cells, columns)
    segments = np.stack([at_T2[:-1], at_T2[1:]], axis=1)
    large = max(rows, columns)
    width = max(0.8, min(1.8, 30 / large))
    lines = LineCollection(list(segments), cmap=ROUTE_COLOURS, linewidth=width, capstyle="round")
    lines.set_array(np.linspace(0, 0.82, len(segments)))
    lines.set_clim(0, 1)
    axis.add_collection(lines)
    start = np.zeros_like(kind, np.bool_)
    start.flat[maze.start_M[0]] = True
    for places, marker, colour, size in (
        (start, "o", START_MARK, 1.0),
        (kind == EXIT, "*", EXIT_MARK, 2.4),
        (kind == TRAP, "x", TRAP_MARK, 0.6),
    ):
        row, column = np.nonzero(places)
        area, edge = max(18, 520 / large) * size, None if marker == "x" else "black"
        axis.scatter(column, row, area, colour, marker=marker, linewidths=0.6, edgecolors=edge, zorder=3)
    axis.set_xticks([])
    axis.set_yticks([])


def spread(cells: Indices, columns: int) -> npt.NDArray[np.float64]:
    """Returns [T + 1, 2] (column, row) of every step; later visits of a cell are drawn away from its centre."""
    seen: dict[int, int] = {}
    points = []
    for cell in cells.tolist():
        visit = seen.get(cell, 0)
        seen[cell] = visit + 1
        radius, angle = 0.34 * (1 - 0.6**visit), visit * GOLDEN_ANGLE
        row, column = divmod(cell, columns)
        points.append((column + radius * math.cos(angle), row + radius * math.sin(angle)))
    return np.array(points)
