"""The figure of the speed study: how many times as fast a design is beside how many its FLOPs say, one panel per task."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from studies.palette import COLOURS

_COLUMNS = 3
_WIDTH, _LINE, _HEAD = 2.9, 0.27, 0.95
"""Inches: a panel's width, the height of one of its lines, and what its title and axis take."""

_EXPECTED: dict[str, dict[str, Any]] = {
    "by_flops": {"marker": "D", "ms": 7.5, "mfc": "none", "mec": "black", "label": "what the FLOPs say"},
    "by_weights": {"marker": "s", "ms": 7.5, "mfc": "none", "mec": "0.45", "label": "what the weights read say"},
    "paper": {"marker": "x", "ms": 6, "mew": 1.6, "mec": COLOURS[1], "label": "the paper's Jetson Nano"},
}
"""Marker of each ratio that a measured one is compared with: they differ in shape, so that grey print loses nothing."""
_MEASURED: dict[str, Any] = {"marker": "o", "ms": 4.5, "color": COLOURS[0], "label": "measured, with its 95 % interval"}


def draw_speed(summary: dict[str, Any]) -> Figure:
    """Draw the summary of the study: a panel per task, a line per pair of models, alike tasks side by side on one scale."""
    rows = _rows(summary["tasks"])
    columns = max(map(len, rows))
    heights = [_LINE * max(len(task["ratios"]) for task in row) + _HEAD for row in rows]
    figure = Figure(figsize=(_WIDTH * columns + 2.2, sum(heights) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, sharex="row", squeeze=False, height_ratios=heights)
    for row, axes in zip(rows, grid, strict=True):
        for task, axis in zip(row, axes, strict=False):
            _draw_task(axis, task)
            axis.tick_params(labelleft=axis is axes[0] or _pairs(task) != _pairs(row[0]))
        for axis in axes[len(row) :]:
            axis.set_visible(False)
        _scale(axes[0], [each[key] for task in row for each in task["ratios"] for key in ("ratio", "low", "high", *_EXPECTED)])
    ratios = [each for task in summary["tasks"] for each in task["ratios"]]
    shown = [style for key, style in _EXPECTED.items() if any(each[key] is not None for each in ratios)]
    handles = [Line2D([], [], ls="", **style) for style in (_MEASURED, *shown)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def _rows(tasks: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The tasks line by line: each kind begins a new one."""
    kinds = [list(own) for _, own in groupby(tasks, key=lambda task: (task["part"], task["work"]))]
    return [own[i : i + _COLUMNS] for own in kinds for i in range(0, len(own), _COLUMNS)]


def _pairs(task: dict[str, Any]) -> list[str]:
    return [f"{each['model']} / {each['reference']}" for each in task["ratios"]]


def _draw_task(axis: Axes, task: dict[str, Any]) -> None:
    ratios = task["ratios"]
    for height, each in enumerate(ratios):
        for key, style in _EXPECTED.items():
            if each[key] is not None:
                axis.plot([each[key]], [height], ls="", **style)
        if each["low"] is not None:
            axis.plot([each["low"], each["high"]], [height, height], color=_MEASURED["color"], lw=2.4, solid_capstyle="butt")
        axis.plot([each["ratio"]], [height], ls="", **_MEASURED)
    axis.axvline(1, color="0.5", lw=0.8)
    axis.set_ylim(len(ratios) - 0.4, -0.6)
    axis.set_yticks(range(len(ratios)), _pairs(task), fontsize=8)
    kind = ", ".join(filter(None, (task["part"], task["work"])))
    axis.set_title(f"{kind}\n{task['runtime']}", fontsize=8.5)
    axis.set_xlabel("times as fast as the reference", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(alpha=0.3, axis="x")


def _scale(axis: Axes, values: list[float | None]) -> None:
    """From 1, or below the smallest ratio, to above the largest."""
    known = [1.0, *(value for value in values if value is not None)]
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or 0.1
    axis.set_xlim(low - margin, high + margin)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
