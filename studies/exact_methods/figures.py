"""The figure of the comparison of exact methods: who wins where."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.palette import solver_style

_LANE = 1.22
"""Ratio between two lanes beyond the time limit, of which each solver has one."""


def draw_methods(summary: dict[str, Any]) -> Figure:
    """A line for each instance, in a panel for each kind: a filled mark at the median seconds to proof of each solver.

    In the shaded lanes beyond the time limit stand hollow marks: solvers that were tried and did not prove most of their runs. The
    fastest of an instance has a ring.
    """
    limit = summary["seconds_limit"]
    kinds = list(dict.fromkeys(one["kind"] for one in summary["instances"]))
    panels = [[one for one in summary["instances"] if one["kind"] == kind] for kind in kinds]
    tried = {each["option"]: each["solver"] for one in summary["instances"] for each in one["solvers"] if _tried(each)}
    names = {option: tried[option] for option in summary["solvers"] if option in tried}
    lanes = {option: limit * _LANE ** (number + 1) for number, option in enumerate(names)}
    heights = [len(panel) + 1.6 for panel in panels]
    figure = Figure(figsize=(9.5, 0.23 * sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    times = [each["seconds"] for panel in panels for one in panel for each in one["solvers"] if each["seconds"] is not None]
    low, top = min([limit / 10, *times]) / 1.6, limit * _LANE ** (len(lanes) + 1)
    for axis, kind, panel in zip(axes, kinds, panels, strict=True):
        _draw_panel(axis, panel, lanes)
        axis.set_title(kind, fontsize=10, loc="left")
        axis.set_xscale("log")
        axis.set_xlim(low, top)
        axis.axvspan(limit, top, color="0.93", zorder=0)
        axis.axvline(limit, color="0.5", lw=0.8)
    ticks = 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(limit)) + 1)
    axes[-1].set_xticks([*ticks[ticks < limit / 3], limit], [*(f"{tick:g}" for tick in ticks[ticks < limit / 3]), f"{limit:g}"])
    axes[-1].set_xlabel("seconds to proof, median; beyond the limit: no proof")
    handles = [Line2D([], [], ls="", ms=6, label=name, **_mark(option)) for option, name in names.items()]
    handles.append(Line2D([], [], ls="", marker="o", ms=11, mfc="none", mec="0.35", label="fastest"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _tried(each: dict[str, Any]) -> bool:
    return set(each["statuses"]) != {"refused"}


def _mark(option: str) -> dict[str, Any]:
    style = solver_style(option)
    return {"color": style["color"], "marker": style["marker"]}


def _draw_panel(axis: Axes, panel: list[dict[str, Any]], lanes: dict[str, float]) -> None:
    for line, one in enumerate(panel):
        for each in one["solvers"]:
            if each["seconds"] is not None:
                axis.plot([each["seconds"]], [line], ls="", ms=6, alpha=0.9, **_mark(each["option"]))
            elif _tried(each):
                axis.plot([lanes[each["option"]]], [line], ls="", ms=5, mfc="white", **_mark(each["option"]))
        proved = [each["seconds"] for each in one["solvers"] if each["seconds"] is not None]
        if proved:
            axis.plot([min(proved)], [line], ls="", marker="o", ms=11, mfc="none", mec="0.35", mew=0.9)
    axis.set_yticks(range(len(panel)), [one["instance"] for one in panel], fontsize=8)
    axis.set_ylim(len(panel) - 0.4, -0.6)
    axis.grid(alpha=0.3)
