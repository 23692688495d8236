"""Figures and tables of fronts: the exact one, how it is proved, NSGA-II and designs nobody optimized beside it, hypervolume."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from formulation import DesignProblem, Quantity
from formulation.command.words import counted, markdown_table
from formulation.quantity import quantity_text
from formulation.records.rows import Row
from solvers.base import Limits
from solvers.heuristics.nsga2 import nsga2_front
from solvers.questions.pareto import Box, Front, hypervolume, values_of
from studies.pareto.bystanders import Baseline

_FLOOR = 1e-3
"""Per cent at which anything closer to the whole hypervolume is drawn."""

_EXACT, _NSGA2, _PUBLISHED, _UNIFORM = "#0072b2", "#d55e00", "#000000", "#7f7f7f"
"""Of Okabe & Ito's colours, which colour-blind readers can distinguish."""

_MARGIN = 0.06
"""Room around the front, as a share of its range."""


def draw_front(
    front: Front, title: str, rows: Sequence[Row], baselines: Sequence[Baseline], reference: tuple[float, ...]
) -> Figure:
    """Left the objective against the first cost, coloured by the second where there is one; right the hypervolume over time.

    The right one only for a complete front: before, nothing is known of which the hypervolumes could be shares. Nor is there a
    course to draw of a front that was found at once, unless NSGA-II's runs stand beside it. The front must have a point.
    """
    if front.complete and (rows or not _at_once(front)):
        figure = Figure(figsize=(12.5, 6.2), layout="constrained")
        plane, progress = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_progress(progress, front, rows, reference)
    else:
        figure = Figure(figsize=(9, 6.2), layout="constrained")
        plane = figure.subplots()
        if not front.complete:
            title = f"{title}: incomplete front, {counted(len(front.pending), 'box', 'boxes')} pending"
    figure.suptitle(textwrap.fill(title, round(11 * figure.get_figwidth())), fontsize=11)
    _draw_plane(figure, plane, front, rows, baselines)
    return figure


def _at_once(front: Front) -> bool:
    """Whether a front was found at once, so that none of its boxes took time by itself."""
    return not any(box.seconds for box in front.boxes)


def nsga2_rows(fronts: Sequence[Front]) -> list[Row]:
    """Fronts of NSGA-II as the rows that `draw_front` draws."""
    return [
        {
            "points": [{"objective": point.objective, "costs": list(point.costs)} for point in front.points],
            "trace": [[found.seconds, found.evaluations, *found.values] for found in front.trace],
        }
        for front in fronts
    ]


def hits(front: Front, found: Front) -> int:
    """How many points of `found` have the values of a point of `front`, up to a relative difference of 1e-9."""
    return int(np.isclose(found.values[:, None], front.values, rtol=1e-9, atol=0).all(axis=2).any(axis=1).sum())


def nsga2_table(
    problem: DesignProblem, front: Front, reference: tuple[float, ...], evaluations: Sequence[int], seeds: Sequence[int]
) -> str:
    """Markdown: what NSGA-II finds of an exact front, a row for each number of designs scored and a column for each seed.

    Share of the front's hypervolume up to `reference`, and how many of the points found are on the front.
    """
    whole = hypervolume(front.values, reference)

    def cell(count: int, seed: int) -> str:
        found = nsga2_front(problem, Limits(evaluations=count, seed=seed))
        share = hypervolume(found.values, reference) / whole
        return f"{100 * share:.2f} %, {hits(front, found)} of {len(found.points)} hit"

    rows = [[f"{count:,}", *(cell(count, seed) for seed in seeds)] for count in evaluations]
    return markdown_table(["designs scored", *(f"seed {seed}" for seed in seeds)], rows)


def draw_boxes(problem: DesignProblem, boxes: Sequence[Box]) -> Figure:
    """Some boxes of the certificate of a front of one cost, in the order in which they were settled.

    Each reaches from the cost of its optimum to the limit that was asked for: the optimum is the best design for every limit in
    between, and above the box there is proved to be none.
    """
    settled = [box for box in boxes if box.point is not None]
    if len(problem.minimize) != 1 or not settled:
        raise ValueError("boxes are drawn for one minimized quantity and at least one box with a design")
    costs = np.array([box.corner[0] for box in settled])
    values = np.array([box.point.objective for box in settled if box.point is not None])
    room = (costs.max() - costs.min()) or costs.max()
    limits = np.array([min(box.limits[0], costs.max() + 0.12 * room) for box in settled])
    low, high = values.min() - 0.35 * (np.ptp(values) or 1.0), values.max() + 0.25 * (np.ptp(values) or 1.0)
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (cost, limit, value) in enumerate(zip(costs, limits, values, strict=True), start=1):
        first = number == 1
        shade, empty = ("0.86", "0.94")[number % 2], "none" if number > 1 else "proved: no design here"
        axis.fill_between([cost, limit], low, value, color=shade, lw=0, zorder=0)
        axis.fill_between(
            [cost, limit],
            value,
            high,
            facecolor="none",
            edgecolor=_NSGA2,
            hatch="xx",
            lw=0,
            alpha=0.35,
            label=empty if first else None,
        )
        axis.plot([cost, limit], [value, value], color=_EXACT, lw=2)
        axis.plot(limit, value, "|", color=_EXACT, ms=12, mew=2, label="limit e that was asked for" if first else None)
        axis.plot(cost, value, "o", color=_EXACT, ms=7, label="its optimum, of cost c ≤ e" if first else None)
        axis.annotate(str(number), ((cost + limit) / 2, value), (0, -6), textcoords="offset points", ha="center", va="top")
    axis.set(xlim=(costs.min() - 0.04 * room, limits.max()), ylim=(low, high))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set(xlabel=_label(problem.minimize[0]), ylabel=_label(problem.goal))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_hypervolume(problem: DesignProblem, sets: Mapping[str, np.ndarray], reference: tuple[float, ...]) -> Figure:
    """The hypervolume of one or two sets of points of one cost as the area under their stairs, up to the reference.

    Args:
        sets: per name an array (n, 2) of objective and cost; of two sets the second is drawn as what it lacks of the first.
    """
    if len(reference) != 1 or not 1 <= len(sets) <= 2:
        raise ValueError(f"expected one or two sets of points of one cost; got {len(sets)} sets and {len(reference)} costs")
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axis = figure.subplots()
    stairs = []
    for (name, values), (colour, line, marker) in zip(sets.items(), ((_EXACT, "-", "o"), (_NSGA2, "--", "s")), strict=False):
        own = values[np.argsort(values[:, 1], kind="stable")]
        x = np.append(own[:, 1], reference[0])
        y = np.maximum.accumulate(np.append(own[:, 0], own[-1, 0]))
        size = 6 if len(own) < 30 else 0
        text = f"{name}: hypervolume {hypervolume(values, reference):,.0f} {problem.goal.unit}"
        axis.step(x, y, line, where="post", color=colour, lw=1.8, label=text)
        axis.plot(own[:, 1], own[:, 0], marker, ms=size, color=colour)
        stairs.append((x, y))
    grid = np.linspace(0, reference[0], 4001)
    heights = [np.append(0.0, y)[np.searchsorted(x, grid, side="right")] for x, y in stairs]
    axis.fill_between(grid, heights[-1], step="post", color=_EXACT, alpha=0.13, lw=0)
    if len(heights) == 2:
        axis.fill_between(
            grid, heights[1], heights[0], step="post", color=_NSGA2, alpha=0.45, lw=0, label=f"what {list(sets)[1]} lacks"
        )
    axis.plot(reference[0], 0, "k*", ms=13, clip_on=False, zorder=5, label="reference point")
    axis.set(xlim=(0, 1.02 * reference[0]), ylim=(0, None), xlabel=_label(problem.minimize[0]), ylabel=_label(problem.goal))
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def _label(quantity: Quantity) -> str:
    return textwrap.fill(f"{quantity_text(quantity)}, {quantity.unit}", 60)


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
        # Of one run each point can be made out; of several they are many.
        style: dict[str, Any] = {"marker": ".", "ms": 2.5}
        if len(rows) == 1:
            style = {"marker": "s", "ms": 4, "mfc": "white", "mew": 1}
        axis.plot(found[:, 1], found[:, 0], ls="none", color=_NSGA2, label=name, zorder=1 if several else 3, **style)
    # Baselines outside the budgets, and uniform ones within them, may cost many times what the front does: they set no limits.
    allowed = [one.point for one in baselines if one.family == "published" and one.in_space and one.within]
    near = np.vstack((values[:, :2], found, values_of(allowed).reshape(-1, values.shape[1])[:, :2]))
    axis.set_ylim(_limits(near[:, 0]))
    axis.set_xlim(_limits(near[:, 1]))
    _draw_baselines(axis, baselines)
    axis.xaxis.set_major_formatter(EngFormatter())
    axis.yaxis.set_major_formatter(EngFormatter())
    axis.set_xlabel(_label(problem.minimize[0]))
    axis.set_ylabel(_label(problem.goal))
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
        if _at_once(front):
            clock[:] = front.seconds
        solved = [(time, box.point) for time, box in zip(clock, front.boxes, strict=True) if box.point is not None]
        values = values_of(point for _, point in solved)
        style = {"color": _EXACT, "lw": 2, "label": f"exact front, {'at once' if _at_once(front) else 'box by box'}"}
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
    lack = [max(100 * (1 - hypervolume(values[seconds <= time * (1 + 1e-9)], reference) / total), _FLOOR) for time in times]
    axis.step(times, lack, where="post", **style)
    axis.plot(times[-1], lack[-1], "o", ms=4, color=style["color"])
