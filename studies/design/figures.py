"""Figures and tables of designs and budgets: the network as it is built, what a budget buys, alternatives, budgets in conflict."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

from formulation import Architecture, DesignProblem, Quantity, Separable
from formulation.command.words import markdown_table, number_text
from formulation.derived import negative
from formulation.problem import budget_text
from formulation.quantity import quantity_text
from solvers import Diagnosis, Solution, Status, exhaustive_front
from solvers.questions.price import Price

_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#e69f00", "#009e73", "#9a9a9a"
"""Of Okabe & Ito's colours, which colour-blind readers can distinguish."""
_LAYER, _GAP, _JOINT = 1.0, 0.12, 0.7
"""Along the network: a layer, the gap between two, a joint between blocks. A layer is one part attention and one part FFN."""


_CLEAR = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
"""Behind words that a line may cross."""


def designs_table(designs: Mapping[str, Architecture], quantities: Sequence[Quantity]) -> str:
    """Markdown: some designs by name, with their blocks and some quantities."""
    columns = [
        ["design", *designs],
        ["blocks (width/FFN width x layers)", *map(str, designs.values())],
        *(_column(quantity_text(one), one.unit, [one(design) for design in designs.values()]) for one in quantities),
    ]
    header, *rows = zip(*columns, strict=True)
    return markdown_table(header, rows, left=2)


def alternatives_table(problem: DesignProblem, solutions: Sequence[Solution], others: Mapping[str, Quantity] | None = None) -> str:
    """Markdown: designs with objective, its loss against the first in per cent, what they spend of each budget, and their status.

    Args:
        others: further quantities by the name that their column is to have.
    """
    designs = [one.architecture for one in solutions if one.architecture is not None]
    values = [one.objective for one in solutions if one.objective is not None]
    spent = list(zip(*(one.usage for one in solutions), strict=True))  # a tuple a budget
    columns = [
        ["design", *map(str, designs)],
        _column(problem.goal.name, problem.goal.unit, values),
        ["loss", *(f"{100 * (1 - value / values[0]):.2f} %" for value in values)],
        *(_column(own[0].name, own[0].unit, [one.value for one in own]) for own in spent),
        *(_column(name, one.unit, [one(design) for design in designs]) for name, one in (others or {}).items()),
        ["status", *(one.status.value for one in solutions)],
    ]
    header, *rows = zip(*columns, strict=True)
    return markdown_table(header, rows)


def _column(name: str, unit: str, values: Sequence[float]) -> list[str]:
    """Head and cells: params [M parameters], 47.79, …; on one scale, with two digits after the point where that is M or G."""
    scale, letter = _scale(max(map(abs, values)))
    return [f"{name} [{letter}{unit}]", *(f"{value / scale:,.{1 if scale == 1 else 2}f}" for value in values)]


def draw_design(problem: DesignProblem, solution: Solution, prices: Sequence[Price]) -> Figure:
    """The design from embedding to head; below, for every binding budget, the optimum as a function of it, others kept."""
    assert solution.architecture is not None
    assert solution.objective is not None
    binding = [price for price in prices if price.binds is not False and len(price.breakpoints) > 1]
    figure = Figure(figsize=(9.6, 7.2 if binding else 3.7), layout="constrained")
    network: FigureBase = figure
    if binding:
        grid = figure.add_gridspec(2, 1, height_ratios=(1, 0.95))
        network, steps = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_network(network.subplots(), solution.architecture)
    word = {Status.OPTIMAL: "proved optimal"}.get(solution.status, "not proved optimal")
    budgets = ", ".join(map(budget_text, problem.subject_to))
    title = f"{problem.goal.name} {_value_text(solution.objective)} {problem.goal.unit}, {word}"
    wrapped = textwrap.fill(budgets, round(11 * figure.get_figwidth()))
    network.suptitle(title + (f"\n{wrapped}" if budgets else ""), fontsize=11)
    if binding:
        axes = steps.subplots(1, len(binding), squeeze=False, sharey=True)[0]
        for axis, price in zip(axes, binding, strict=True):
            _draw_steps(axis, problem, price)
        axes[0].set_ylabel(f"{'least' if problem.least else 'optimal'} {problem.goal.name}, {problem.goal.unit}")
    return figure


def draw_prices(problem: DesignProblem, prices: Sequence[Price]) -> Figure:
    """The optimum as a function of each budget alone, side by side: the steps that are known around its present value."""
    figure = Figure(figsize=(5.4 * len(prices), 3.8), layout="constrained")
    axes = figure.subplots(1, len(prices), squeeze=False, sharey=True)[0]
    for axis, price in zip(axes, prices, strict=True):
        _draw_steps(axis, problem, price)
        word = {True: "binds", False: "does not bind"}.get(price.binds, "may bind")  # type: ignore[arg-type]
        axis.set_title(f"{budget_text(price.budget)}: {word}", fontsize=10)
    axes[0].set_ylabel(f"{'least' if problem.least else 'optimal'} {problem.goal.name}, {problem.goal.unit}")
    return figure


def draw_conflict(problem: DesignProblem, diagnosis: Diagnosis) -> Figure:
    """Three budgets that no design meets: the designs that keep the first, in the plane of the quantities of the two others.

    Drawn are those that no other betters in both (by brute force, so for spaces of up to some million designs), the corner that the
    two budgets leave, and for each of the two the design that would do if it alone were changed. The two must be sums.
    Raises ValueError if the problem has other than three budgets, one to draw is from below, or no design meets the first.
    """
    if len(problem.subject_to) != 3:
        raise ValueError(f"the problem has {len(problem.subject_to)} budgets; expected three, one that is kept and two to draw")
    first, across, up = problem.subject_to
    if across.upper is None or up.upper is None:
        raise ValueError(f"the budgets to draw are {across} and {up}; expected budgets from above")
    assert isinstance(up.quantity, Separable)
    points = exhaustive_front(DesignProblem(problem.space, negative(up.quantity), (first,), minimize=(across.quantity,)))
    if not points:
        raise ValueError(f"no design meets {first}, so there is nothing to draw")
    budgets, names = (across, up), [budget.quantity.name.partition(":")[0] for budget in (across, up)]
    scales, letters = zip(*(_scale(budget.bound) for budget in budgets), strict=True)
    places = np.array([[budget.quantity(point.architecture) for budget in budgets] for point in points]) / scales
    corner = np.array([across.bound, up.bound]) / scales
    low, high = 0.94 * np.minimum(places.min(axis=0), corner), 1.04 * np.maximum(places.max(axis=0), corner)
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    text = "within both budgets: no such design"
    axis.add_patch(Rectangle(low, *(corner - low), facecolor="0.92", edgecolor=_GREY, hatch="//", lw=0, label=text))
    axis.axvline(corner[0], color=_GREY, ls="--", lw=1.2)
    axis.axhline(corner[1], color=_GREY, ls="--", lw=1.2)
    axis.step(places[:, 0], places[:, 1], where="post", color=_BLUE, lw=1, alpha=0.6)
    axis.plot(places[:, 0], places[:, 1], "o", ms=6, color=_BLUE, label=f"designs of {budget_text(first)}")
    for number, (need, letter) in enumerate(zip(diagnosis.needs[1:], letters, strict=True)):
        if need.architecture is None or need.bound is None:
            continue
        place = np.array([budget.quantity(need.architecture) for budget in budgets]) / scales
        axis.plot(*place, "*", ms=16, color=_ORANGE, mec="black", mew=0.6, zorder=4)
        text = f"{need.bound / scales[number]:.4g} {letter}{need.budget.quantity.unit} would do"
        # The curve falls to the right: there is room above its left end and below its right one.
        right = place[0] > (low[0] + high[0]) / 2
        offset, ha, va = ((-10, -10), "right", "top") if right else ((10, 8), "left", "bottom")
        axis.annotate(text, place, offset, textcoords="offset points", ha=ha, va=va, bbox=_CLEAR, zorder=3)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    labels = [f"{name} [{letter}{budget.quantity.unit}]" for name, letter, budget in zip(names, letters, budgets, strict=True)]
    axis.set(xlabel=labels[0], ylabel=labels[1])
    axis.legend(frameon=False, loc="upper right")
    axis.grid(alpha=0.3)
    return figure


def _scale(value: float) -> tuple[float, str]:
    """Billions or millions where a value is that large: by what to divide, and the letter before the unit."""
    return next(((s, t) for s, t in ((1e9, "G "), (1e6, "M ")) if abs(value) >= s), (1.0, ""))


def _value_text(value: float) -> str:
    """23,104.9, 61.3012 M."""
    return f"{value:,.1f}" if abs(value) < 1e6 else number_text(float(f"{value:.6g}"))


def _draw_network(axis: Axes, design: Architecture) -> None:
    """Every layer as a bar as high as its width, the FFN beside it as high as its own; joining maps between unequal widths."""
    end = design.embedding_width
    tallest = max(end, *design.widths, *design.ffn_widths)
    size = min(9.0, 80 / len(design.blocks))
    x = 0.0
    _bar(axis, x, 0.5, end, _GREY, "token embedding, tied head")
    x, left = x + 0.5, end
    for number, block in enumerate(design.blocks, start=1):
        x = _joint(axis, x, left, block.width)
        start = x
        for layer in range(block.depth):
            first = number == 1 and layer == 0
            _bar(axis, x, _LAYER / 2, block.width, _BLUE, "attention, width E" if first else None)
            _bar(axis, x + _LAYER / 2, _LAYER / 2, block.ffn_width, _ORANGE, "FFN, width F" if first else None)
            x += _LAYER + _GAP
        x += -_GAP if block.depth else _LAYER  # a block that is left out keeps its place
        layers = f"F {block.ffn_width}\n{block.depth} layer{'s' if block.depth > 1 else ''}" if block.depth else "left out"
        text = f"block {number}\nE {block.width}\n{layers}"
        axis.text((start + x) / 2, -0.57 * tallest, text, ha="center", va="top", fontsize=size, linespacing=1.25)
        left = block.width
    x = _joint(axis, x, left, end)
    _bar(axis, x, 0.5, end, _GREY, None)
    axis.set_xlim(-0.4, x + 0.9)
    axis.set_ylim(-1.12 * tallest, 0.56 * tallest)
    axis.set_axis_off()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3, frameon=False, fontsize=9)


def _bar(axis: Axes, x: float, width: float, height: float, colour: str, label: str | None) -> None:
    axis.add_patch(Rectangle((x, -height / 2), width, height, facecolor=colour, edgecolor="white", linewidth=0.8, label=label))


def _joint(axis: Axes, x: float, left: int, right: int) -> float:
    """The map between two neighbours, a funnel where their widths differ and a line if there isn't one; the place after it."""
    if left != right:
        corners = [(x, -left / 2), (x, left / 2), (x + _JOINT, right / 2), (x + _JOINT, -right / 2)]
        axis.add_patch(Polygon(corners, facecolor=_GREY, alpha=0.35, edgecolor="none"))
    else:
        axis.plot([x, x + _JOINT], [0, 0], color=_GREY, lw=1.5)
    return x + _JOINT


def _draw_steps(axis: Axes, problem: DesignProblem, price: Price) -> None:
    """The optimum over the budget, looser to the right: the present design as a dot, the budget as a line; hollow if not proved."""
    scale, letter = _scale(price.budget.bound)
    points = price.breakpoints
    sign = 1 if price.budget.upper is not None else -1
    uppers = sign * np.array([point.bound for point in points]) / scale
    values = np.array([point.objective for point in points])
    upper = sign * price.budget.bound / scale
    span = max(uppers[-1], upper) - uppers[0]
    right = max(uppers[-1], upper) + 0.12 * span
    if math.isfinite(price.explored):
        right = max(uppers[-1], upper, min(right, sign * price.explored / scale))
    axis.step(sign * np.array([*uppers, right]), [*values, values[-1]], where="post", color=_BLUE, lw=2)
    for point, x, y in zip(points, uppers, values, strict=True):
        axis.plot([sign * x], [y], "o", ms=5, mfc=_BLUE if point.proved else "white", mec=_BLUE, zorder=3)
    axis.axvline(sign * upper, color=_GREY, ls="--", lw=1.2, zorder=0)
    here = price.present
    axis.plot([here.bound / scale], [here.objective], "o", ms=10, mfc=_GREEN, mec="white", zorder=4)
    # The words stand left of the dot unless the axis ends there.
    near_edge = sign * here.bound / scale - uppers[0] < 0.15 * span
    axis.annotate(
        "this design",
        (here.bound / scale, here.objective),
        xytext=(8 if near_edge else -8, 6),
        textcoords="offset points",
        ha="left" if near_edge else "right",
        color=_GREEN,
        fontweight="bold",
    )
    tall, labelled = abs(values[-1] - values[0]) or 1.0, (math.inf, math.inf)
    for point, x, y in zip(points, uppers, values, strict=True):
        # Labels would overlap at steps too near each other: the first of these speaks for them.
        near = abs(x - labelled[0]) < 0.08 * span and abs(y - labelled[1]) < 0.06 * tall
        if point is not here and not near:
            labelled = (x, y)
            change = 100 * (point.objective / here.objective - 1) if here.objective else 0.0
            text = f"{change:+.{2 if abs(change) < 0.1 else 1}f} %".replace("-", "−")
            axis.annotate(text, (sign * x, y), xytext=(-6, 4), textcoords="offset points", ha="right", fontsize=8, bbox=_CLEAR)
    axis.set_xlabel(textwrap.fill(f"{quantity_text(price.budget.quantity)}, {letter}{price.budget.quantity.unit}", 90))
    ends = uppers[0] - 0.2 * span, right + 0.04 * span  # room for the words left of the first step
    axis.set_xlim(sign * ends[0], sign * ends[1])
    inwards = upper > ends[0] + 0.85 * (ends[1] - ends[0])  # right of a line so near the edge the word would run into the frame
    axis.annotate(
        "budget",
        (sign * upper, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if inwards else 4, 0),
        textcoords="offset points",
        ha="right" if inwards else "left",
        color="#555555",
    )
    axis.margins(y=0.14)
    axis.grid(alpha=0.3)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if abs(value) < 1e6 else number_text(value))
    axis.xaxis.set_major_locator(MaxNLocator(6))
