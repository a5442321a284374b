"""Draws steps ÷ shortest way against attempts, for every rival, with bands of 95 %."""

from __future__ import annotations

from io import BytesIO

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from deploy.compare.compare import Comparison, Row
from deploy.compare.rival import KINDS, OURS

LEAST = 0.0005  # the least share above the shortest way that is drawn: what is below is drawn here
TICKS = (0.001, 0.01, 0.05, 0.2, 1, 4, 19)  # shares above the shortest way that have a tick
# Okabe and Ito's colours, 2002: told apart with any colour vision. Each kind of rival has a dash of its own.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = dict(zip(KINDS, ("-", (0, (5, 2)), (0, (3, 1, 1, 1)), (0, (1.2, 1.2))), strict=True))


def draw(found: Comparison) -> bytes:
    """Returns the picture as PNG.

    The axis of ratios is logarithmic in what is above 1, since that is where good rivals differ.
    """
    picture, axis = plt.subplots(figsize=(9.5, 6.6), layout="constrained")
    number = dict.fromkeys(KINDS, 0)
    for row in found.rows:
        _line(axis, row, COLOURS[number[row.rival.kind] % len(COLOURS)])
        number[row.rival.kind] += 1
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(LEAST * 0.9, None)
    axis.yaxis.set_major_locator(FixedLocator(TICKS))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(
        FuncFormatter(lambda share, _: f"{1 + share:.3g}" if share > 0.02 else f"{1 + share:.3f}")
    )
    most = max(row.groups[0].attempts for row in found.rows)
    axis.xaxis.set_major_locator(FixedLocator([at for at in (1, 2, 3, 5, 10, 30, 100, 300, 1000, 3000) if at <= most]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("attempt at the same maze")
    axis.set_ylabel("steps ÷ shortest way")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    picture.suptitle(f"{len(found.exam.mazes)} held-out mazes, the same for all", fontsize=12)
    file = BytesIO()
    picture.savefig(file, dpi=130, format="png", metadata={"Software": None})
    plt.close(picture)
    return file.getvalue()


def _line(axis: Axes, row: Row, colour: str) -> None:
    """Draws the curve of one rival over all mazes, and its band."""
    points = row.groups[0].points
    x = [point.attempt for point in points]
    bounds = [point.ratio.interval or (point.ratio.value, point.ratio.value) for point in points]
    y, low, high = (
        np.maximum(np.array(values) - 1, LEAST)
        for values in ([point.ratio.value for point in points], *zip(*bounds, strict=True))
    )
    ours = row.rival.name == OURS
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axis.plot(
        x,
        y,
        color=colour,
        linestyle=DASHES[row.rival.kind],
        lw=3 if ours else 1.6,
        zorder=3 if ours else 2,
        label=row.rival.title,
    )
