"""Figures, tables and typeset programs of the formulation lesson, `notebooks/02_formulation.ipynb`: small problems made visible.

The programs are `solvers.programs.pyomo_model`; what is drawn of them is read off the problem or the program, never written down
twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx
import numpy as np
import pyomo.environ as pyo
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from formulation import (
    Architecture,
    Block,
    Budget,
    Composite,
    DesignProblem,
    EffectiveEntropy,
    Menu,
    SearchSpace,
    Separable,
    tabulate,
)
from formulation.command.words import markdown_table
from hardware_models import Flops
from solvers import Form, Solution, build_program
from solvers.programs.program_latex import program_lines
from solvers.programs.pyomo_model import part_ranges
from studies.palette import COLOURS, STYLES

_BLUE, _ORANGE, _GREEN = COLOURS[:3]

_GIGA = 1e9
_COLUMN, _HALF_BOX = 2.2, 0.36
"""Of the drawn graph: distance of its columns and half the width of a node's box, in the units of the axes."""


# The space


@dataclass(frozen=True)
class Term:
    """One term of a separable quantity on a design's path: where it arises, from which node to which, and its value.

    A block's term has from_node = to_node; a joint's, and what stands before the first block or behind the last, lies on the edge
    between two nodes; the fixed term has neither (None).
    """

    name: str
    from_node: object
    to_node: object
    value: float


def path_terms(quantity: Separable, design: Architecture) -> tuple[Term, ...]:
    """The terms that a design collects on its path from source to sink; they add up to the quantity where it is a sum.

    Terms of 0 are left out, but for those of blocks.
    """
    nodes: list[object] = ["source", *((number, block) for number, block in enumerate(design.blocks, start=1)), "sink"]
    widths = [design.embedding_width, *design.widths, design.embedding_width]
    terms = [Term("fixed", None, None, quantity.fixed(design))] if quantity.fixed(design) else []
    for place, (left, right) in enumerate(pairwise(widths)):
        if left != right and (value := quantity.joint(left, right, design)):
            terms.append(Term(f"map {left} → {right}", nodes[place], nodes[place + 1], value))
        if not place and (value := quantity.entry(right, design)):
            terms.append(Term("entry", nodes[0], nodes[1], value))
        if place < len(design.blocks):
            block = design.blocks[place]
            terms.append(Term(f"block {place + 1}", nodes[place + 1], nodes[place + 1], quantity.block_at(place, block, design)))
        if place == len(design.blocks) - 1 and (value := quantity.exit(right, design)):
            terms.append(Term("exit", nodes[-2], nodes[-1], value))
    return tuple(terms)


def draw_space(space: SearchSpace, design: Architecture | None = None, cost: Separable | None = None) -> Figure:
    """The layered graph of a small space: a column per block, a box per menu item, an arrow per allowed step.

    Args:
        design: a path to draw in bold.
        cost: a quantity whose terms are written on that path, in units of 10⁹.
    """
    graph = space.graph()
    layers = networkx.get_node_attributes(graph, "layer")
    columns = [[node for node in graph if layers[node] == layer] for layer in range(space.blocks + 2)]
    place = {
        node: (_COLUMN * layer, (len(column) - 1) / 2 - row)
        for layer, column in enumerate(columns)
        for row, node in enumerate(column)
    }
    nodes: list[object] = [] if design is None else ["source", *enumerate(design.blocks, start=1), "sink"]
    path = set(pairwise(nodes))
    figure = Figure(figsize=(2.7 * len(columns), 1.15 * max(map(len, columns)) + 0.5), layout="constrained")
    axis = figure.subplots()
    # An arrow leaves a box in the middle of its right side and enters the next one in the middle of its left side.
    ports = {(node, side): (x + side * _HALF_BOX, y) for node, (x, y) in place.items() for side in (-1, 1)}
    arrows = networkx.DiGraph(((left, 1), (right, -1)) for left, right in graph.edges)
    for on_path, colour, width in ((False, "0.6", 1.0), (True, _ORANGE, 3.0)):
        edges = [edge for edge in arrows.edges if ((edge[0][0], edge[1][0]) in path) == on_path]
        networkx.draw_networkx_edges(
            arrows, ports, edgelist=edges, edge_color=colour, width=width, ax=axis, node_size=0, arrowsize=13
        )
    for column in columns:
        for node in column:
            bold = node in nodes
            axis.text(
                *place[node],
                _node_text(node, space),
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if bold else "normal",
                bbox={
                    "boxstyle": "round,pad=0.35",
                    "facecolor": "white",
                    "edgecolor": _ORANGE if bold else "0.4",
                    "linewidth": 2.5 if bold else 1,
                },
            )
    if design is not None and cost is not None:
        _write_terms(axis, path_terms(cost, design), place, cost)
    for layer, name in ((layer, f"block {layer}") for layer in range(1, space.blocks + 1)):
        axis.text(_COLUMN * layer, max(map(len, columns)) / 2 + 0.05, name, ha="center", fontsize=11)
    axis.set_axis_off()
    axis.margins(0.08)
    axis.set_ylim(-max(map(len, columns)) / 2 - 0.05, max(map(len, columns)) / 2 + 0.3)
    return figure


def _node_text(node: object, space: SearchSpace) -> str:
    if isinstance(node, tuple):
        block = node[1]
        return f"E {block.width}, F {block.ffn_width}\nL {block.depth}{beside_shape(block)}"
    return f"{'embedding' if node == 'source' else 'output head'}\nE {space.embedding_width}"


def _write_terms(axis: Axes, terms: Sequence[Term], place: Mapping[object, tuple[float, float]], cost: Separable) -> None:
    """The values of the terms beside their nodes and edges, and their sum as the title."""
    clear = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    for term in terms:
        if term.from_node is None:
            continue
        (x0, y0), (x1, y1) = place[term.from_node], place[term.to_node]
        lift = 0.42 if term.from_node == term.to_node else 0.0
        text = f"{term.value / _GIGA:.3f}"
        axis.text((x0 + x1) / 2, (y0 + y1) / 2 + lift, text, ha="center", va="center", color=_ORANGE, bbox=clear, zorder=4)
    total = " + ".join(f"{term.value / _GIGA:.3f}" for term in terms)
    axis.set_title(f"{total} = {sum(term.value for term in terms) / _GIGA:.3f} G {cost.unit}", fontsize=11)


def draw_look_ups(menu: Menu, objective: EffectiveEntropy, flops: Flops) -> Figure:
    """The look-up terms of one layer against its width, a line per FFN ratio, a mark per entry of the menu."""
    log_width, attention, ffn = objective.parts[1], objective.parts[3], objective.parts[4]
    space = SearchSpace((menu,))
    figure, ratios = Figure(figsize=(10.4, 3.3), layout="constrained"), menu.ffn_ratios or ()
    for axis, title, quantity, unit, scale, by_ratio in zip(
        figure.subplots(1, 4),
        ("attention entropy", "FFN entropy", "log₂ width", "FLOPs"),
        (attention, ffn, log_width, flops),
        ("nat", "nat", "bit", "10⁹ FLOPs"),
        (1, 1, 1, _GIGA),
        (False, True, False, True),
        strict=True,
    ):
        for ratio, (colour, line, marker) in zip(ratios if by_ratio else ratios[:1], STYLES, strict=False):
            values = [quantity.block(Block(width, round(ratio * width), 1), space) / scale for width in menu.widths]
            axis.plot(menu.widths, values, line, color=colour, marker=marker, label=f"F = {ratio:g}·E" if by_ratio else None)
        axis.set(title=f"{title} [{unit}]", xlabel="width E")
        axis.set_xticks(menu.widths, list(map(str, menu.widths)), rotation=60)
        axis.title.set_fontsize(11)
        if by_ratio:
            axis.legend(frameon=False, fontsize=9)
        axis.grid(alpha=0.3)
    return figure


# Tables


def beside_shape(block: Block) -> str:
    """What is decided of a block beside width, FFN width and depth, as its text has it, behind a space: " heads 8 kv 2"."""
    _, space, words = str(block).partition(" ")
    return space + words


def _shape(design: Architecture) -> str:
    return ", ".join(map(_block, design.blocks))


def _block(block: Block) -> str:
    shape = f"{block.width}/{block.ffn_width}\u00a0×\u00a0{block.depth}"  # not to be broken into two lines
    return shape + beside_shape(block)


def _number(value: float) -> str:
    """24.361 G and 44.114 M from a million on; 1,234.5 and 18.64 below, whole numbers as they are."""
    for scale, letter in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= scale:
            return f"{value / scale:,.3f}{letter}"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.2f}"


def choice_table(quantities: Sequence[Separable], space: SearchSpace) -> str:
    """The coefficients of the choice form: for every block and menu item its binary and its term of each quantity, as Markdown.

    The first block's terms hold the map from the embedding, the last one's the map to the head.
    """
    table = tabulate(quantities, space)
    rows = []
    for number, (menu, terms) in enumerate(zip(space.menus, table.blocks, strict=True)):
        for item, block in enumerate(menu.items):
            rows.append([f"$x_{{{number},{item}}}$", _block(block), *map(_number, terms[:, item])])
    return markdown_table(["variable", "E/F × L", *(f"{quantity.name} [{quantity.unit}]" for quantity in quantities)], rows, left=2)


def design_table(problem: DesignProblem) -> str:
    """Every design of a small space with its objective and its use of the budgets, as Markdown, best first.

    What exceeds a budget is struck out, the excess in bold; the best design that keeps all is marked with a star.
    """
    found = sorted(((problem.evaluate(design), design) for design in problem.space), key=lambda one: -one[0].objective)
    best = next((evaluation for evaluation, _ in found if evaluation.feasible), None)
    rows = []
    for evaluation, design in found:
        cells = [_shape(design), _number(evaluation.objective)]
        if not evaluation.feasible:
            cells = [f"<s>{cell}</s>" for cell in cells]
        elif evaluation is best:
            cells = [f"★ **{cells[0]}**", f"**{cells[1]}**"]
        cells += [_number(usage.value) if usage.within else f"**{_number(usage.value)}** ✗" for usage in evaluation.usage]
        rows.append(cells)
    budgets = [f"{budget.quantity.name} {budget.sign} {_number(budget.bound)}" for budget in problem.subject_to]
    header = ["design: E/F × L, block by block", f"{problem.goal.name} [{problem.goal.unit}]", *budgets]
    return markdown_table(header, rows)


def solution_table(solutions: Mapping[str, Solution]) -> str:
    """What some solvers answered: status, objective, bound, gap and design, as Markdown."""
    rows = [
        [
            name,
            one.status.value,
            "-" if one.architecture is None else _shape(one.architecture),
            "-" if one.objective is None else f"{one.objective:,.3f}",
            "-" if one.bound is None else f"{one.bound:,.3f}",
            "-" if one.gap is None else f"{one.gap:.0e}" if one.gap else "0",
        ]
        for name, one in solutions.items()
    ]
    return markdown_table(["solver", "status", "design", "objective", "bound", "gap"], rows, left=3)


# The program


def program_latex(problem: DesignProblem, form: Form = Form.CHOICE) -> str:
    """The program of a problem as an align* environment that MathJax typesets: a line for each family of constraints."""
    objective, *constraints = program_lines(problem, form)
    heads = [r"\min" if problem.least else r"\max", r"\text{s.t.}", *("",) * len(constraints)]
    rows = [
        rf"{head} \quad & {line.formula} && {line.where} && \text{{({line.label}) {line.words}}}"
        for head, line in zip(heads, (objective, *constraints), strict=False)
    ]
    return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}"


@dataclass(frozen=True)
class ProgramSize:
    """What a program is made of: binary, other integer and continuous variables; linear and nonlinear constraints."""

    binary: int
    integer: int
    continuous: int
    linear: int
    nonlinear: int


def program_size(problem: DesignProblem, form: Form) -> ProgramSize:
    """The size of the program of `problem` in one of its forms; the objective is not counted."""
    model = build_program(problem, form).model
    variables = Counter(
        "binary" if one.is_binary() else "integer" if one.is_integer() else "continuous"
        for one in model.component_data_objects(pyo.Var)
    )
    constraints = Counter(one.body.polynomial_degree() in (0, 1) for one in model.component_data_objects(pyo.Constraint))
    return ProgramSize(variables["binary"], variables["integer"], variables["continuous"], constraints[True], constraints[False])


def size_table(problems: Mapping[str, DesignProblem]) -> str:
    """The sizes of both programs of some problems, by name, beside the numbers of their designs, as Markdown."""
    rows = []
    for name, problem in problems.items():
        for form in Form:
            size = program_size(problem, form)
            counts = (size.binary, size.integer, size.continuous, size.linear, size.nonlinear)
            rows.append([name, form.value, f"{problem.space.size:,}", *(f"{count:,}" for count in counts)])
    header = ["space", "form", "designs", "binary", "other integers", "real numbers", "linear rows", "nonlinear rows"]
    return markdown_table(header, rows, left=2)


# What makes it nonconvex


class UniformRelaxation:
    """Networks of L layers of width E, F = r·E, with E and L as real numbers: look-ups between multiples of 64, times L.

    Attributes:
        space: whose other settings hold (sharing, embedding); the maps to embedding and head are left out.
        objective: the effective entropy.
        cost: a cost that is a sum over layers.
        widths: vertices of the look-ups, multiples of 64.
        ratio: r.
    """

    def __init__(
        self, space: SearchSpace, objective: Composite, cost: Separable, widths: Sequence[int], ratio: float = 1.0
    ) -> None:
        self.objective, self.widths = objective, np.array(widths)
        layers = [Block(int(width), round(ratio * width), 1) for width in widths]
        self._parts = [np.array([part.block(layer, space) for layer in layers]) for part in objective.parts]
        self._cost = np.array([cost.block(layer, space) for layer in layers])

    def value(self, width: np.ndarray | float, depth: np.ndarray | float) -> np.ndarray:
        """The objective at real widths and depths; arrays broadcast."""
        return np.asarray(self.objective.formula([depth * np.interp(width, self.widths, part) for part in self._parts]))

    def cost_of(self, width: np.ndarray | float, depth: np.ndarray | float) -> np.ndarray:
        """The cost at real widths and depths; arrays broadcast."""
        return np.asarray(depth * np.interp(width, self.widths, self._cost))

    def depth_at(self, width: np.ndarray | float, limit: float) -> np.ndarray:
        """The depth at which networks of a width cost `limit`."""
        return limit / np.interp(width, self.widths, self._cost)


_Point = tuple[float, float]
"""A width and a depth."""


def along(start: _Point, end: _Point, count: int = 51) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t, widths, depths) of `count` points on the chord from start to end, t from 0 to 1."""
    steps = np.linspace(0, 1, count)
    return steps, start[0] + steps * (end[0] - start[0]), start[1] + steps * (end[1] - start[1])


def draw_nonconvexity(relaxed: UniformRelaxation, budget: Budget, chords: Mapping[str, tuple[_Point, _Point]]) -> Figure:
    """Objective and budget over width and depth with some chords; beside it the objective along each, against the straight line.

    A concave function never lies below the line between two of its points, a convex one never above; a set is convex where
    the chord between any two of its points stays inside.
    """
    figure = Figure(figsize=(10.2, 4), layout="constrained")
    plane, profile = figure.subplots(1, 2)
    widths = np.linspace(relaxed.widths[0], relaxed.widths[-1], 200)
    deepest = 1.1 * max(point[1] for chord in chords.values() for point in chord)
    depths = np.linspace(1, deepest, 200)
    values = relaxed.value(widths[:, None], depths[None, :]).T / 1e3
    contours = plane.contour(widths, depths, values, levels=10, colors="0.55", linewidths=0.9)
    plane.clabel(contours, fontsize=8, fmt="%g")
    border = relaxed.depth_at(widths, budget.bound)
    plane.plot(widths, border, color="black", lw=2)
    plane.fill_between(widths, border, deepest, color="0.9", zorder=0)
    plane.set(xlabel="width E", ylabel="depth L [layers]", ylim=(1, deepest))
    plane.set_title("grey lines: effective entropy [1,000 nat]\nshaded: over the budget", fontsize=10)
    for (name, (start, end)), (colour, line, marker) in zip(chords.items(), STYLES, strict=False):
        steps, across, down = along(start, end)
        plane.plot(across, down, line, color=colour, lw=2)
        plane.plot([start[0], end[0]], [start[1], end[1]], marker, color=colour, ms=7, clip_on=False, zorder=3)
        heights = relaxed.value(across, down) / 1e3
        profile.plot(steps, heights, line, color=colour, lw=2.2, label=name)
        profile.plot([0, 1], heights[[0, -1]], marker, color=colour, ms=7)
        profile.plot([0, 1], heights[[0, -1]], color=colour, lw=0.9, alpha=0.7)
    profile.set(xlabel="way along the chord", ylabel="effective entropy [1,000 nat]", ylim=(0, None))
    profile.set_title("along the chords; thin: the straight line between the ends", fontsize=10)
    profile.legend(frameon=False)
    profile.grid(alpha=0.3)
    return figure


@dataclass(frozen=True)
class Overestimate:
    """One design under a composite objective and the affine functions above it.

    Attributes:
        design: the design.
        value: its objective.
        whole: the overestimator made on the box of the parts over the whole space.
        depth: the one made on the box over the designs of its total depth.
    """

    design: Architecture
    value: float
    whole: float
    depth: float


def overestimates(problem: DesignProblem) -> tuple[Overestimate, ...]:
    """All designs of a small space by rising objective, with the affine bounds that a linear solver has of them."""
    objective = problem.goal
    if not isinstance(objective, Composite):
        raise ValueError(f"the objective is {objective.name}; expected a composite such as EffectiveEntropy()")
    designs = sorted(problem.space, key=objective)
    parts = np.array([[part(design) for part in objective.parts] for design in designs])
    layers = np.array([sum(design.depths) for design in designs])

    def bound(lower: np.ndarray, upper: np.ndarray, at: np.ndarray) -> np.ndarray:
        coefficients, constant = objective.overestimator(lower, upper)
        return at @ coefficients + constant

    whole = bound(*part_ranges(objective, problem.space), parts)
    by_depth = np.empty(len(designs))
    for depth in np.unique(layers):
        own = parts[layers == depth]
        by_depth[layers == depth] = bound(own.min(axis=0), own.max(axis=0), own)
    return tuple(
        Overestimate(design, objective(design), float(first), float(second))
        for design, first, second in zip(designs, whole, by_depth, strict=True)
    )


def draw_overestimates(estimates: Sequence[Overestimate]) -> Figure:
    """By how much the affine bounds exceed the objective at every design, as bars with their values above."""
    figure = Figure(figsize=(9.2, 4.0), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(estimates))
    for shift, name, values, (colour, hatch) in (
        (-0.2, "one box: the whole space", [one.whole - one.value for one in estimates], (_ORANGE, "//")),
        (0.2, "a box for each total depth", [one.depth - one.value for one in estimates], (_BLUE, "")),
    ):
        name += f": at most {max(values):.1f} nat"
        bars = axis.bar(place + shift, values, 0.38, color=colour, hatch=hatch, edgecolor="white", label=name)
        axis.bar_label(bars, [f"{round(value, 1) + 0.0:.1f}" for value in values], padding=1, fontsize=7.5)
    axis.margins(y=0.12)
    axis.set_xticks(place, [_shape(one.design).replace(", ", "\n") for one in estimates], rotation=45, ha="right", fontsize=8)
    axis.set(xlabel="design, by rising effective entropy", ylabel="affine bound − objective [nat]")
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    return figure


# Budgets


def draw_budgets(problem: DesignProblem, designs: Sequence[Architecture], best: Architecture | None = None) -> Figure:
    """Designs in the plane of two budgets, in colours by objective; what lies beyond a budget is a cross, the best a star.

    Up to 20 designs have their objective written beside them. ValueError unless the problem has two budgets.
    """
    if len(problem.subject_to) != 2:
        raise ValueError(f"the problem has {len(problem.subject_to)} budgets; expected two, the axes of the picture")
    across, up = problem.subject_to
    (x_scale, x_letter), (y_scale, y_letter) = map(_scale, (across.bound, up.bound))
    found = [problem.evaluate(design) for design in designs]
    x = np.array([one.usage[0].value for one in found]) / x_scale
    y = np.array([one.usage[1].value for one in found]) / y_scale
    values = np.array([one.objective for one in found])
    kept = np.array([one.feasible for one in found])
    few = len(designs) <= 20
    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axis = figure.subplots()
    limits = across.bound / x_scale, up.bound / y_scale
    style: dict[str, Any] = {"cmap": "cividis", "vmin": values.min(), "vmax": values.max()}
    axis.scatter(x[~kept], y[~kept], 45 if few else 9, values[~kept], marker="x", lw=1.6 if few else 0.7, **style)
    dots = axis.scatter(x[kept], y[kept], 60 if few else 12, values[kept], edgecolors="black", lw=0.7, **style)
    figure.colorbar(dots, ax=axis, label=f"{problem.goal.name} [{problem.goal.unit}]", format="{x:,.0f}")
    for limit, line in zip(limits, (axis.axvline, axis.axhline), strict=True):
        line(limit, color=_ORANGE, lw=1.8, ls="--")
    axis.margins(0.1)
    low = min(0.0, axis.get_xlim()[0]), min(0.0, axis.get_ylim()[0])
    ends = axis.get_xlim(), axis.get_ylim()
    axis.add_patch(Rectangle(low, limits[0] - low[0], limits[1] - low[1], facecolor="0.92", zorder=0))
    axis.set(xlim=ends[0], ylim=ends[1])
    if few:
        for px, py, value in zip(x, y, values, strict=True):
            beyond = px > limits[0]
            offset = (3 if beyond else 0, -16 if py <= limits[1] else 8)
            where = "left" if beyond else "center"
            axis.annotate(f"{value:,.0f}", (px, py), offset, textcoords="offset points", ha=where, fontsize=9)
    if best is not None:
        evaluation = problem.evaluate(best)
        place = [evaluation.usage[0].value / x_scale], [evaluation.usage[1].value / y_scale]
        axis.plot(*place, "*", ms=18, color=_GREEN, mec="white", zorder=5, label=f"the optimum, {evaluation.objective:,.0f}")
        axis.legend(loc="lower right")
    axis.set(
        xlabel=f"{across.quantity.name} [{x_letter}{across.quantity.unit}]",
        ylabel=f"{up.quantity.name} [{y_letter}{up.quantity.unit}]",
        title=f"{kept.sum():,} of {len(designs):,} designs meet both budgets",
    )
    return figure


def _scale(upper: float) -> tuple[float, str]:
    return next(((scale, letter) for scale, letter in ((1e9, "10⁹ "), (1e6, "10⁶ ")) if upper >= scale), (1.0, ""))
