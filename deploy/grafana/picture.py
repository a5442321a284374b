"""Draws the dashboard as a picture, without a Grafana.

`python -m deploy.grafana.picture http://127.0.0.1:9090 PICTURE.png [MINUTES]`: the last 30 minutes if none are given.
What is shown, and where, is read from deploy/grafana/dashboards/clew.json; the figures come from a running Prometheus.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, PercentFormatter, StrMethodFormatter

Json = dict[str, Any]
Values = npt.NDArray[np.float64]

DASHBOARD = Path(__file__).parent / "dashboards/clew.json"
RATE_INTERVAL = "20s"  # as Grafana has it: four scrapes
POINTS = 300  # along the time axis
BYTES = EngFormatter("B")
UNITS = {"percentunit": PercentFormatter(1.0), "s": EngFormatter("s"), "bytes": BYTES, "Bps": BYTES}


class Prometheus:
    """The last `minutes` of what a Prometheus has stored."""

    def __init__(self, url: str, minutes: float) -> None:
        self._url, self._end, self._step_s = url, time.time(), 60 * minutes / POINTS
        self.minutes = np.linspace(-minutes, 0, POINTS + 1)  # from now

    def over_time(self, promql: str) -> Iterator[tuple[Json, Values]]:
        """Yields the labels of each series, and its values at `minutes`."""
        start = self._end - POINTS * self._step_s
        for series in self._ask("query_range", promql, start=start, end=self._end, step=self._step_s):
            values = np.full(POINTS + 1, np.nan)
            for at, value in series["values"]:
                values[round((at - start) / self._step_s)] = float(value)
            yield series["metric"], values

    def now(self, promql: str) -> list[Json]:
        """Returns the newest value of each series."""
        return self._ask("query", promql, time=self._end)

    def _ask(self, what: str, promql: str, **times: float) -> list[Json]:
        query = {"query": promql.replace("$__rate_interval", RATE_INTERVAL), **times}
        body = urllib.parse.urlencode(query).encode()
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}", body, timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])


def draw(prometheus: Prometheus, path: Path) -> None:
    """Draws all panels of the dashboard into one picture."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    picture = Figure(figsize=(18, 0.38 * height))
    for panel in panels:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        if panel["type"] == "row":
            picture.text(0.01, 1 - (y + h) / height, panel["title"], fontsize=17, weight="bold")
            continue
        place = (x + 0.9) / 24, 1 - (y + 0.78 * h) / height, (w - 1.9) / 24, 0.6 * h / height
        axes = picture.add_axes(place, title=panel["title"])
        (_lines if panel["type"] == "timeseries" else _words)(axes, panel, prometheus)
    picture.savefig(path, dpi=80)


def _lines(axes: Axes, panel: Json, prometheus: Prometheus) -> None:
    """Draws the series of a panel over time."""
    defaults, along = panel["fieldConfig"]["defaults"], prometheus.minutes
    custom, below = defaults.get("custom", {}), np.zeros(POINTS + 1)
    drawn: list[Line2D] = []
    right: Axes | None = None
    for target in panel["targets"]:
        for labels, values in prometheus.over_time(target["expr"]):
            name, colour, where = _name(target, labels), f"C{len(drawn)}", axes
            changed = _overrides(panel, name)
            if changed.get("custom.axisPlacement") == "right":
                where = right = right or axes.twinx()
            if "stacking" in custom and "custom.stacking" not in changed:
                values = below + np.nan_to_num(values)
                where.fill_between(along, below, values, color=colour, alpha=0.3)
                below = values
            drawn += where.plot(along, values, color=colour, label=changed.get("displayName", name))
    if "scaleDistribution" in custom:
        axes.set_yscale("log")
    elif "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    axes.yaxis.set_major_formatter(UNITS.get(defaults["unit"], StrMethodFormatter("{x:,g}")))
    axes.set_xlim(along[0], along[-1])
    axes.grid(alpha=0.25)
    axes.legend(handles=drawn[:6], loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False, fontsize=8)


def _words(axes: Axes, panel: Json, prometheus: Prometheus) -> None:
    """Writes the rows of a table, or the figures of a stat."""
    axes.axis("off")
    found = [(target, one) for target in panel["targets"] for one in prometheus.now(target["expr"])]
    lines = [f"{_name(target, one['metric'])}: {float(one['value'][1]):,.0f}" for target, one in found]
    axes.text(
        0,
        0.9,
        "\n".join(lines) or panel["fieldConfig"]["defaults"].get("noValue", "no data"),
        va="top",
        fontsize=14,
    )


def _name(target: Json, labels: Json) -> str:
    form = target.get("legendFormat", "{{severity}} {{alertname}} {{instance}} {{reason}}")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def _overrides(panel: Json, name: str) -> Json:
    """Returns the properties that the panel overrides for one series."""
    ours = [one for one in panel["fieldConfig"]["overrides"] if one["matcher"]["options"] == name]
    return {change["id"]: change["value"] for one in ours for change in one["properties"]}


if __name__ == "__main__":
    url, picture, *minutes = sys.argv[1:]
    draw(Prometheus(url, float(minutes[0]) if minutes else 30.0), Path(picture))
