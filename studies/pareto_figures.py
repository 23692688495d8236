"""Figure of the Pareto study: the exact front with NSGA-II's points and designs nobody optimized, and hypervolume over time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from formulation import Quantity
from formulation.report import counted
from formulation.rows import Row
from solvers.pareto import Front, hypervolume, values_of
from studies.pareto_baselines import Baseline
from studies.quantities import quantity_text

_FLOOR = 1e-3
"""Per cent at which anything closer to the whole hypervolume is drawn."""

_EXACT, _NSGA2, _PUBLISHED, _UNIFORM = "#0072b2", "#d55e00", "#000000", "#7f7f7f"
"""Of Okabe & Ito's colours, which colour-blind readers can tell apart."""

_MARGIN = 0.06
"""Room around the front, as a share of its range."""


def draw_front(
    front: Front, title: str, rows: Sequence[Row], baselines: Sequence[Baseline], reference: tuple[float, ...]
) -> Figure:
    """Left the objective against the first cost, coloured by the second where there is one; right the hypervolume over time.

    The right one only for a complete front: before, nothing is known of which the hypervolumes could be shares. The front must
    have a point.
    """
    if front.complete:
        figure = Figure(figsize=(12.5, 6.2), layout="constrained")
        plane, progress = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_progress(progress, front, rows, reference)
    else:
        figure = Figure(figsize=(9, 6.2), layout="constrained")
        plane = figure.subplots()
        title = f"{title}: incomplete front, {counted(len(front.pending), 'box', 'boxes')} pending"
    figure.suptitle(textwrap.fill(title, round(11 * figure.get_figwidth())), fontsize=11)
    _draw_plane(figure, plane, front, rows, baselines)
    return figure


def _label(quantity: Quantity) -> str:
    return f"{quantity_text(quantity)}, {quantity.unit}"


def _draw_plane(figure: Figure, axis: Axes, front: Front, rows: Sequence[Row], baselines: Sequence[Baseline]) -> None:
    problem, values = front.problem, front.values
    kind = "exact front" if front.complete else "front known so far"
    label = f"{kind}, {counted(len(values), 'point', 'points')}"
    several = len(problem.minimize) > 1
    if several:
        points = axis.scatter(values[:, 1], values[:, 0], c=values[:, 2], s=22, cmap="viridis", label=label, zorder=2)
        figure.colorbar(points, ax=axis, label=_label(problem.minimize[1]), format=EngFormatter(), pad=0.01)
    else:
        axis.plot(values[:, 1], values[:, 0], "o", ms=5, color=_EXACT, label=label)
        if front.complete:
            axis.step(values[:, 1], values[:, 0], where="post", color=_EXACT, lw=1.2)
    found = np.array([[point["objective"], point["costs"][0]] for row in rows for point in row["points"]]).reshape(-1, 2)
    if rows:
        name = f"NSGA-II, {len(rows)} runs" if len(rows) > 1 else "NSGA-II"
        # Beneath points whose colours mean something, above those that all look alike.
        name += " (drawn behind the front)" if several else ""
        axis.plot(found[:, 1], found[:, 0], ".", ms=2.5, color=_NSGA2, label=name, zorder=1 if several else 3)
    # Baselines outside the budgets, and uniform ones within them, may cost many times what the front does: they set no limits.
    allowed = [one.point for one in baselines if one.family == "published" and one.in_space and one.within]
    near = np.vstack((values[:, :2], found, values_of(allowed).reshape(-1, values.shape[1])[:, :2]))
    axis.set_ylim(_limits(near[:, 0]))
    axis.set_xlim(_limits(near[:, 1]))
    _draw_baselines(axis, baselines)
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.yaxis.set_major_formatter(EngFormatter())
    axis.set_xlabel(_label(problem.minimize[0]))
    axis.set_ylabel(_label(problem.maximize))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, fontsize=8)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The range of the values with some room."""
    low, high = float(values.min()), float(values.max())
    room = _MARGIN * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _draw_baselines(axis: Axes, baselines: Sequence[Baseline]) -> None:
    """Filled where the design is one of the problem's, hollow where the space does not hold it or a budget forbids it.

    Those outside the limits of the axes are counted in the legend.
    """
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    kinds = (("uniform", "s", _UNIFORM, 5, "all blocks alike"), ("published", "*", _PUBLISHED, 12, "published"))
    for family, marker, colour, size, name in kinds:
        for allowed in (True, False):
            own = [one for one in baselines if one.family == family and (one.in_space and one.within) is allowed]
            if not own:
                continue
            values = values_of(one.point for one in own)
            shown = (left <= values[:, 1]) & (values[:, 1] <= right) & (bottom <= values[:, 0]) & (values[:, 0] <= top)
            label = name if allowed else f"{name}, outside the space or budgets"
            if not shown.all():
                label += f" ({len(own) - shown.sum():,} beyond the axes)"
            style: dict[str, Any] = {
                "ms": size,
                "mfc": colour if allowed else "none",
                "mec": colour,
                "mew": 0.9,
                "ls": "none",
                "zorder": 4,
            }
            # Markers at the edges are drawn whole. Without any point there is nothing to clip, and the layout would go wrong.
            axis.plot(values[shown, 1], values[shown, 0], marker, label=label, clip_on=not shown.any(), **style)


def _draw_progress(axis: Axes, front: Front, rows: Sequence[Row], reference: tuple[float, ...]) -> None:
    """What the hypervolume still lacks of the front's, in per cent, against seconds: the exact method and NSGA-II per seed."""
    total = hypervolume(front.values, reference)
    if total > 0:
        clock = np.cumsum([box.seconds for box in front.boxes])
        solved = [(time, box.point) for time, box in zip(clock, front.boxes, strict=True) if box.point is not None]
        values = values_of(point for _, point in solved)
        style = {"color": _EXACT, "lw": 2, "label": "exact front, box by box"}
        _draw_lack(axis, np.array([time for time, _ in solved]), values, reference, total, style)
        for number, row in enumerate(rows):
            trace = np.array(row["trace"]).reshape(-1, 3 + len(reference))
            style = {"color": _NSGA2, "lw": 1, "label": None if number else "NSGA-II, per seed"}
            _draw_lack(axis, trace[:, 0], trace[:, 2:], reference, total, style)
        axis.legend(frameon=False, fontsize=8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(_FLOOR / 1.5, 150)
    axis.set_xlabel("seconds")
    axis.set_ylabel(f"hypervolume below the front's, %\n({_FLOOR:g} stands for anything less)")
    axis.grid(alpha=0.3)


def _draw_lack(
    axis: Axes, seconds: np.ndarray, values: np.ndarray, reference: tuple[float, ...], total: float, style: dict[str, Any]
) -> None:
    """One curve, at points spread evenly over the logarithm of time; a dot ends it."""
    if not len(seconds):
        return
    times = np.geomspace(max(seconds[0], 1e-3), max(seconds[-1], 1e-3), 120)
    times[-1] = seconds[-1]
    lack = [max(100 * (1 - hypervolume(values[seconds <= time], reference) / total), _FLOOR) for time in times]
    axis.step(times, lack, where="post", **style)
    axis.plot(times[-1], lack[-1], "o", ms=4, color=style["color"])
