"""The figure of the scaling study: time to proof and loss of the heuristics, one column per sweep, one row per form of problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from studies.palette import solver_style

_FLOOR = 1e-4
"""Per cent at which anything closer to the optimum is drawn, as in `studies.compare_solvers.figures`."""
_LANE = 1.45
"""Ratio of the heights of two lanes above the time limit, of which each exact solver has one for its cross."""


def draw_scaling(summary: dict[str, Any]) -> Figure:
    """Draw the summary of the study: a column for each sweep, composite ones above, additive ones below.

    Time to proof: a marker per proof, the fitted power law as a line over the sizes it was fitted to (a dotted line joins the
    markers where there is no fit), and above the time limit a cross at the size where a solver gave up. Below the composite ones:
    the median loss of each heuristic in per cent of the optimum or best bound, with the range over its seeds; dashed at all but the
    last time.
    """
    exact = _by_option(summary["sweeps"], "exact")
    forms = [[each for each in summary["sweeps"] if each["additive"] is additive] for additive in (False, True)]
    lines = [(kind, sweeps) for sweeps in forms for kind in ("exact", "heuristics") if any(each[kind] for each in sweeps)]
    columns = max(len(sweeps) for _, sweeps in lines)
    figure = Figure(figsize=(4.0 * columns + 2.8, 3.6 * len(lines) + 0.4), layout="constrained")
    axes = figure.subplots(len(lines), columns, sharey="row", squeeze=False)
    for (kind, sweeps), line in zip(lines, axes, strict=True):
        for axis in line[len(sweeps) :]:
            axis.set_axis_off()
        handles = _draw_line(line[: len(sweeps)], kind, sweeps, summary, exact)
        line[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False, fontsize=9)
    return figure


def _draw_line(
    axes: Sequence[Axes], kind: str, sweeps: Sequence[dict[str, Any]], summary: dict[str, Any], exact: dict[str, str]
) -> list[Line2D]:
    """Draw a row of the figure, one kind of solvers on sweeps of one form, and return the handles of its legend."""
    limit = summary["seconds_limit"]
    for axis, sweep in zip(axes, sweeps, strict=True):
        _scale(axis, [each["size"] for each in sweep["instances"]])
        if kind == "exact":
            _draw_proofs(axis, sweep, {option: limit * _LANE ** (lane + 1) for lane, option in enumerate(exact)})
        else:
            _draw_losses(axis, sweep)
        axis.set_title(_title(sweep), fontsize=10)
        axis.set_xlabel(sweep["varies"])
    if kind == "exact":
        _finish_proofs(axes, sweeps, limit, len(exact))
        handles = _exact_handles(_by_option(sweeps, "exact"))
    else:
        _finish_losses(axes, sweeps)
        handles = _heuristic_handles(_by_option(sweeps, "heuristics"), summary["heuristic_seconds"])
    return handles


def _by_option(sweeps: Sequence[dict[str, Any]], kind: str) -> dict[str, str]:
    """The solvers of a kind: name on the command line to name in tables."""
    return {each["option"]: each["solver"] for sweep in sweeps for each in sweep[kind]}


def _title(sweep: dict[str, Any]) -> str:
    """How many designs the instances of a sweep hold."""
    designs = [each["designs"] for each in sweep["instances"]]
    return " to ".join(_power_of_ten(count) for count in sorted({min(designs), max(designs)})) + " designs"


def _power_of_ten(count: int) -> str:
    mantissa, exponent = f"{count:.1e}".split("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$"


def _mark(option: str) -> dict[str, Any]:
    """Colour and mark of a solver; the line says something else here."""
    style = solver_style(option)
    return {"color": style["color"], "marker": style["marker"], "ms": 5.5}


def _scale(axis: Axes, sizes: Sequence[int]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(min(sizes) / 1.15, max(sizes) * 1.15)
    axis.grid(alpha=0.3)


def _draw_proofs(axis: Axes, sweep: dict[str, Any], lanes: dict[str, float]) -> None:
    for each in sweep["exact"]:
        style = _mark(each["option"])
        sizes = [point["size"] for point in each["proved"]]
        fit = each["growth"]
        axis.plot(sizes, [point["seconds"] for point in each["proved"]], ls="" if fit else ":", lw=1, **style)
        if fit:
            ends = np.array([fit["from"], fit["to"]])
            axis.plot(ends, fit["coefficient"] * ends ** fit["exponent"], color=style["color"], lw=1.4)
        if each["gave_up"] is not None:
            axis.plot([each["gave_up"]["size"]], [lanes[each["option"]]], ls="", marker="x", ms=6, mew=2, color=style["color"])


def _finish_proofs(axes: Sequence[Axes], sweeps: Sequence[dict[str, Any]], limit: float, lanes: int) -> None:
    """Shade the lanes above the time limit, where heights are no seconds and so have no ticks."""
    times = [point["seconds"] for sweep in sweeps for each in sweep["exact"] for point in each["proved"]]
    low, top = min([limit / 10, *times]) / 2, limit * _LANE ** (lanes + 3)  # two lanes for the words
    axes[0].set_ylim(low, top)
    axes[0].set_yticks(10.0 ** np.arange(math.ceil(math.log10(low)), math.floor(math.log10(limit)) + 1))
    axes[0].yaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("time to proof, s")
    for axis in axes:
        axis.axhspan(limit, top, color="0.93", zorder=0)
        axis.axhline(limit, color="0.5", lw=0.8)
        label: dict[str, Any] = {
            "transform": axis.get_yaxis_transform(),
            "va": "top",
            "ha": "right",
            "fontsize": 8,
            "color": "0.35",
        }
        axis.text(0.98, top / _LANE**0.3, f"no proof in {limit:g} s", **label)


def _draw_losses(axis: Axes, sweep: dict[str, Any]) -> None:
    last = max((each["seconds"] for each in sweep["heuristics"]), default=0)
    for each in sweep["heuristics"]:
        style = _mark(each["option"])
        final = each["seconds"] == last
        points = [point for point in each["loss"] if point["median"] is not None]
        for point in points:
            known = [_percent(loss) for loss in point["losses"] if loss is not None]
            if final and len(known) > 1:
                axis.vlines(point["size"], min(known), max(known), color=style["color"], lw=4, alpha=0.25)
        line: dict[str, Any] = {"ls": "-", "lw": 1.6} if final else {"ls": "--", "lw": 1, "mfc": "white"}
        axis.plot([point["size"] for point in points], [_percent(point["median"]) for point in points], **style, **line)


def _finish_losses(axes: Sequence[Axes], sweeps: Sequence[dict[str, Any]]) -> None:
    points = [point for sweep in sweeps for each in sweep["heuristics"] for point in each["loss"]]
    losses = [loss for point in points for loss in point["losses"] or () if loss is not None]
    axes[0].set_ylim(_FLOOR / 2, 2 * max(map(_percent, [*losses, 1e-4])))
    axes[0].set_ylabel("loss against optimum or best bound, %")


def _percent(loss: float) -> float:
    return max(100 * loss, _FLOOR)


def _exact_handles(names: dict[str, str]) -> list[Line2D]:
    handles = [Line2D([], [], label=name, lw=1.4, **_mark(option)) for option, name in names.items()]
    return [*handles, Line2D([], [], ls="", marker="x", mew=2, ms=7, color="0.35", label="gave up here")]


def _heuristic_handles(names: dict[str, str], times: Sequence[float]) -> list[Line2D]:
    handles = [Line2D([], [], label=name, lw=1.6, **_mark(option)) for option, name in names.items()]
    *earlier, last = times
    handles.append(Line2D([], [], color="0.35", lw=1.6, label=f"median after {last:g} s, bar: range of seeds"))
    if earlier:
        handles.append(Line2D([], [], color="0.35", lw=1, ls="--", label="median after " + ", ".join(f"{t:g} s" for t in earlier)))
    return [*handles, Line2D([], [], ls="", label=f"({_FLOOR:g} % stands for anything less)")]
