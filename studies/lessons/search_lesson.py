"""Figures and tables of the lesson on solvers, `notebooks/03_solvers.ipynb`: what a search knows, looks at and throws away.

The teaching solvers whose trees and labels are drawn are `studies.lessons.branch_and_bound`; curves over time are
`studies.compare_solvers.figures`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import networkx
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from formulation import Agreement, Architecture, Block, Budget, DesignProblem, Measured, Quantity, SearchSpace
from formulation.command.words import markdown_table
from formulation.records.provenance import provenance
from formulation.records.rows import Row
from solvers import EngineMissing, Exhaustive, Limits, Run, Solution, Solver, exhaustive_front, solve
from studies.compare_solvers.cells import Cell, row_of
from studies.lessons.branch_and_bound import (
    Fate,
    Label,
    LabelFate,
    Labels,
    Node,
    Tree,
    branch_and_bound,
    label_setting,
    lagrangian_bound,
)
from studies.lessons.formulation_lesson import beside_shape
from studies.palette import COLOURS

_BLUE, _ORANGE, _GREEN, _PINK = COLOURS[:4]
_GREY = "0.55"
_PALE_BLUE = "#5aa0d0"

_LOOKS: dict[Fate, tuple[str, str, float]] = {
    Fate.BRANCHED: ("o", "white", 15),
    Fate.INCUMBENT: ("*", _GREEN, 19),
    Fate.NO_BETTER: ("D", "0.8", 9),
    Fate.BOUND: ("s", _BLUE, 11),
    Fate.BUDGET: ("X", _ORANGE, 12),
}
"""Marker, colour and size of a node: the shape alone distinguishes the fates."""


def block_text(block: Block, space: SearchSpace) -> str:
    """E×L where every FFN is as wide as its block, else E/F×L; behind it what else is decided."""
    plain = all(menu.ffn_ratios == (1.0,) for menu in space.menus)
    shape = f"{block.width}×{block.depth}" if plain else f"{block.width}/{block.ffn_width}×{block.depth}"
    return shape + beside_shape(block)


def design_text(design: Architecture, space: SearchSpace) -> str:
    """The blocks of a design as `block_text` has them, by commas."""
    return ", ".join(block_text(block, space) for block in design.blocks)


def layers_text(design: Architecture) -> str:
    """How many layers of each shape a design has, whatever the blocks they stand in: 2 of 512/512, 8 of 512/768."""
    layers: Counter[tuple[int, int, str]] = Counter()
    for block in design.blocks:
        layers[block.width, block.ffn_width, beside_shape(block)] += block.depth
    return ", ".join(f"{number} of {width}/{ffn_width}{rest}" for (width, ffn_width, rest), number in sorted(layers.items()))


def _scaled_budget(problem: DesignProblem) -> tuple[Budget, float, str]:
    """The first budget, billions or millions where it is that large: by what to divide, and the letter before the unit."""
    if not problem.subject_to:
        raise ValueError("the problem has no budget; expected at least one, against whose quantity designs are drawn")
    budget = problem.subject_to[0]
    return budget, *next(((s, t) for s, t in ((1e9, "G"), (1e6, "M ")) if budget.bound >= s), (1.0, ""))


def _budget_axis(problem: DesignProblem) -> tuple[Quantity, float, float, str]:
    """The quantity of the first budget, its upper value in billions or millions, that scale, and the label of its axis."""
    budget, scale, letter = _scaled_budget(problem)
    name, unit = budget.quantity.name, budget.quantity.unit
    label = f"{letter}{unit}" if name.casefold() == unit.casefold() else f"{name} [{letter}{unit}]"
    return budget.quantity, budget.bound / scale, scale, label


# The plane of cost and objective


def draw_plane(problem: DesignProblem) -> Figure:
    """Every design of a small space: its objective against the quantity of the first budget, the budget, the best design within."""
    quantity, upper, scale, label = _budget_axis(problem)
    designs = list(problem.space)
    within = np.array([problem.evaluate(design).feasible for design in designs])
    costs = np.array([quantity(design) for design in designs]) / scale
    values = np.array([problem.objective(design) for design in designs]) / 1e3
    figure = Figure(figsize=(7.6, 4.0), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(upper, 1.04 * costs.max(), color="0.93", zorder=0)
    axis.axvline(upper, color=_GREY, ls="--", lw=1.2, label=f"the budget: {upper:g} {label}")
    axis.plot(costs[within], values[within], "o", ms=5, color=_BLUE, label=f"within it: {within.sum():,} designs")
    axis.plot(costs[~within], values[~within], "x", ms=5, color=_ORANGE, label=f"over it: {(~within).sum():,} designs")
    if within.any():
        best = int(np.argmax(np.where(within, values, -np.inf)))
        axis.plot(costs[best], values[best], "*", ms=15, color=_GREEN, mec="black", mew=0.6, label="the best within it", zorder=4)
    axis.set(xlabel=label, ylabel=_objective_label(problem), xlim=(None, 1.04 * costs.max()))
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def _objective_label(problem: DesignProblem) -> str:
    return f"{problem.goal.name} [1,000 {problem.goal.unit}]"


# Branch and bound


def tree_places(tree: Tree) -> dict[int, tuple[float, float]]:
    """Where each node is drawn: leaves one beside the other in the order of the menus, a parent over the middle of its children."""
    children: dict[int | None, list[Node]] = {}
    for node in tree.nodes:
        children.setdefault(node.parent, []).append(node)
    places: dict[int, tuple[float, float]] = {}
    leaves = 0

    def place(node: Node) -> float:
        nonlocal leaves
        own = sorted(children.get(node.number, ()), key=lambda child: child.choices)
        if own:
            across = [place(child) for child in own]
            x = (across[0] + across[-1]) / 2
        else:
            x, leaves = float(leaves), leaves + 1
        places[node.number] = (x, -float(len(node.choices)))
        return x

    for root in children.get(None, ()):
        place(root)
    return places


def draw_tree(tree: Tree) -> Figure:
    """The tree of a branch and bound: one level per block, a shape per fate, the block chosen on each edge.

    Beside a node its bound in thousands of the objective's unit, and its number in the order in which nodes were settled (in the
    circle, or in grey). The way to the optimum is bold. For trees of up to about 60 nodes.
    """
    places = tree_places(tree)
    across = max(x for x, _ in places.values()) + 1
    levels = 1 + max(len(node.choices) for node in tree.nodes)
    figure = Figure(figsize=(max(7.5, 0.52 * across + 0.9), 1.3 * levels + 0.9), layout="constrained")
    axis = figure.subplots()
    best = _path_to(tree)
    for node in tree.nodes:
        x, y = places[node.number]
        if node.parent is not None:
            x0, y0 = places[node.parent]
            on_path = node.number in best
            axis.plot([x0, x], [y0, y], "-", color=_GREEN if on_path else "0.7", lw=2.6 if on_path else 0.9, zorder=1)
            block = tree.block(node)
            assert block is not None
            axis.annotate(
                block_text(block, tree.problem.space),
                (x0 + 0.74 * (x - x0), y0 + 0.74 * (y - y0)),
                ha="center",
                va="center",
                fontsize=7,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
                zorder=2,
            )
    for node in tree.nodes:
        x, y = places[node.number]
        marker, colour, size = _LOOKS[node.fate]
        axis.plot(x, y, marker, ms=size, mfc=colour, mec="black", mew=0.8, zorder=3)
        text = "over" if node.fate is Fate.BUDGET else f"{node.bound / 1e3:.1f}"
        clear = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"}
        if node.fate is Fate.BRANCHED:
            axis.annotate(str(node.number), (x, y), ha="center", va="center", fontsize=8, zorder=4)
            axis.annotate(text, (x, y), (11, 9), textcoords="offset points", va="center", fontsize=8, bbox=clear, zorder=2.5)
        else:
            axis.annotate(text, (x, y), (0, -11), textcoords="offset points", ha="center", va="top", fontsize=8, zorder=4)
            axis.annotate(
                str(node.number), (x, y), (0, -22), textcoords="offset points", ha="center", va="top", fontsize=7, color="0.45"
            )
    for fate, (marker, colour, size) in _LOOKS.items():
        if tree.count(fate):
            text = f"{fate.value}: {tree.count(fate)}"
            axis.plot([], [], marker, ms=min(size, 12), mfc=colour, mec="black", mew=0.8, ls="none", label=text)
    axis.set_xlim(-0.8, across - 0.2)
    axis.set_ylim(-levels + 0.45, 0.35)
    axis.set_yticks([-level for level in range(levels)], ["nothing\nchosen", *(f"block {n}\nchosen" for n in range(1, levels))])
    axis.set_xticks([])
    axis.tick_params(left=False)
    for side in axis.spines.values():
        side.set_visible(False)
    figure.legend(loc="outside lower center", ncols=5 if across > 17 else 3, frameon=False)
    return figure


def _path_to(tree: Tree) -> set[int]:
    """Numbers of the nodes on the way from the root to the optimum."""
    ends = [node for node in tree.nodes if node.choices == tree.choices]
    path = set()
    number = ends[-1].number if ends else None
    while number is not None:
        path.add(number)
        number = tree.nodes[number].parent
    return path


def draw_progress(trees: Mapping[str, Tree]) -> Figure:
    """Incumbent and proven bound of each tree against the nodes settled, until they meet."""
    figure = Figure(figsize=(4.4 * len(trees) + 0.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(trees), sharey=True, sharex=True, squeeze=False)[0]
    for axis, (name, tree) in zip(axes, trees.items(), strict=True):
        number = np.arange(1, len(tree.nodes) + 1)
        proved = np.array([node.proved for node in tree.nodes]) / 1e3
        found = np.array([math.nan if node.incumbent is None else node.incumbent for node in tree.nodes]) / 1e3
        axis.step(number, proved, "--", where="post", color=_ORANGE, lw=2, label="proved: no design is better")
        axis.step(number, found, "-", where="post", color=_BLUE, lw=2, label="found: the incumbent")
        axis.fill_between(number, found, proved, step="post", color="0.9", zorder=0)
        axis.set(title=f"{name}: {len(number)} nodes", xlabel="nodes settled")
        axis.grid(alpha=0.3)
    objective = next(iter(trees.values())).problem.goal
    axes[0].set_ylabel(f"{objective.name} [1,000 {objective.unit}]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _price_unit(problem: DesignProblem) -> tuple[float, str]:
    """The scale of the first budget, and in words the unit of its price at that scale."""
    budget, scale, letter = _scaled_budget(problem)
    return scale, f"{problem.goal.unit} per {letter}{budget.quantity.unit.removesuffix('s')}"


def draw_lagrangian(problem: DesignProblem, prices: Sequence[float], optimum: float) -> Figure:
    """The Lagrangian bound of a problem of one budget against the price of that budget, over the optimum that it bounds."""
    bounds = np.array([lagrangian_bound(problem, (price,)) for price in prices])
    scale, unit = _price_unit(problem)
    best = int(bounds.argmin())
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axis = figure.subplots()
    x = np.asarray(prices) * scale
    axis.plot(x, bounds / 1e3, color=_ORANGE, lw=2, label="bound")
    axis.axhline(optimum / 1e3, color=_BLUE, ls="--", lw=1.6, label="optimum")
    axis.plot(x[0], bounds[0] / 1e3, "s", color=_ORANGE, ms=7)
    axis.annotate("at price 0 the budget is ignored", (x[0], bounds[0] / 1e3), (10, -2), textcoords="offset points", va="top")
    axis.plot(x[best], bounds[best] / 1e3, "o", color=_GREEN, ms=9, zorder=3)
    text = f"best price {x[best]:.4g}:\nbound {bounds[best]:,.0f}, {100 * (bounds[best] / optimum - 1):.2g} % over the optimum"
    axis.annotate(
        text,
        (x[best], bounds[best] / 1e3),
        (0.5, 0.62),
        textcoords="axes fraction",
        ha="center",
        arrowprops={"arrowstyle": "-", "color": _GREEN},
    )
    axis.set(xlabel=f"price λ of the budget [{unit}]", ylabel=f"{problem.goal.name} [1,000 {problem.goal.unit}]")
    axis.legend(frameon=False, loc="upper center")
    axis.grid(alpha=0.3)
    return figure


def node_table(cases: Mapping[str, tuple[DesignProblem, Sequence[float | None]]]) -> str:
    """What branch and bound (largest bound first) needs for some problems of one budget, as Markdown.

    Args:
        cases: per name a problem and the prices of its budget, None for the bound that knows no price.

    Beside the optimum of each tree stands that of exhaustive search.
    """
    rows = []
    unit = ""
    for name, (problem, prices) in cases.items():
        truth = solve(problem, Exhaustive()).objective
        scale, unit = _price_unit(problem)
        for price in prices:
            tree = branch_and_bound(problem, prices=None if price is None else (price,))
            bound = "plain" if price is None else f"price {scale * price:.4g}"
            counts = [len(tree.nodes), tree.count(Fate.BUDGET), tree.count(Fate.BOUND)]
            rows.append([name, bound, *(f"{count:,}" for count in counts), _value(tree.objective), _value(truth)])
    header = [
        "objective",
        f"bound (price in {unit})",
        "nodes",
        "pruned by budget",
        "pruned by bound",
        "optimum [nat]",
        "by exhaustive search",
    ]
    return markdown_table(header, rows, left=2)


def _value(objective: float | None) -> str:
    return "none" if objective is None else f"{objective:,.1f}"


# Dynamic programming


def label_table(problems: Mapping[str, DesignProblem]) -> str:
    """Labels made for each block with and without dominance, those kept at the head, and the optimum, as Markdown."""
    rows = []
    for name, problem in problems.items():
        for dominance in (False, True):
            found = label_setting(problem, dominance)
            made = [f"{len(stage):,}" for stage in found.stages]
            kept = f"{found.count(LabelFate.KEPT)[-1]:,}"
            rows.append([name, "yes" if dominance else "no", *made, kept, _value(found.objective)])
    blocks = max(problem.space.blocks for problem in problems.values())
    made_header = ["labels made: block 1", *(f"block {number}" for number in range(2, blocks + 1))]
    return markdown_table(["objective", "dominance", *made_header, "kept at the head", "optimum [nat]"], rows, left=2)


def draw_states(labels: Labels) -> Figure:
    """The layered graph folded to its states, a node per block and state: labels made and kept there, the optimal path in bold.

    The states are the widths unless the space has a rule of its own for steps.
    """
    space, menus = labels.problem.space, labels.problem.space.menus
    graph = networkx.DiGraph()
    place: dict[Any, tuple[float, float]] = {}
    text: dict[Any, str] = {}
    most = max(map(len, space.state_widths))
    middle = (most - 1) / 2
    place["in"], text["in"] = (0.0, middle), "embedding\n1 label"
    last = len(menus)
    for number, (widths, states, stage) in enumerate(zip(space.state_widths, space.state_of, labels.stages, strict=True), start=1):
        for index, width in enumerate(widths):
            own = [label for label in stage if states[label.choices[-1]] == index]
            node = (number, index)
            place[node] = (2.0 * number, index + middle - (len(widths) - 1) / 2)
            kept = sum(label.fate is LabelFate.KEPT for label in own)
            text[node] = f"E = {width}\n{len(own)} made" + ("" if number == last else f"\n{kept} kept")
            if number == 1:
                graph.add_edge("in", node)
            else:
                step = space.steps[number - 2]
                graph.add_edges_from(((number - 1, left), node) for left in range(len(step)) if step[left, index])
    place["out"] = (2.0 * last + 2, middle)
    text["out"] = f"head\n{labels.count(LabelFate.KEPT)[-1]} kept"
    graph.add_edges_from(((last, index), "out") for index in range(len(space.state_widths[-1])))
    path = set()
    if labels.choices is not None:
        chosen = [int(states[item]) for states, item in zip(space.state_of, labels.choices, strict=True)]
        chain = ["in", *enumerate(chosen, start=1), "out"]
        path = set(pairwise(chain))
    figure = Figure(figsize=(1.9 * (last + 2), 1.15 * most + 0.5), layout="constrained")
    axis = figure.subplots()
    for edges, colour, thick in (([edge for edge in graph.edges if edge not in path], "0.6", 1.0), (list(path), _GREEN, 3.0)):
        networkx.draw_networkx_edges(
            graph, place, edgelist=edges, edge_color=colour, width=thick, ax=axis, node_size=2600, node_shape="s", arrowsize=13
        )
    on_path = {node for edge in path for node in edge}
    for node, (x, y) in place.items():
        bold = node in on_path
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _GREEN if bold else "0.4", "lw": 2.5 if bold else 1}
        axis.text(x, y, text[node], ha="center", va="center", fontsize=9.5, bbox=box)
    for number in range(1, last + 1):
        axis.text(2.0 * number, most - 0.45, f"block {number}", ha="center", fontsize=11)
    axis.set_axis_off()
    axis.set_xlim(-0.8, 2.0 * last + 2.8)
    axis.set_ylim(-0.6, most - 0.2)
    return figure


def draw_labels(labels: Labels, block: int, width: int) -> Figure:
    """The labels of one state, after `block` blocks (1 the first) of which the last is `width` wide: gathered against spent.

    For a problem of one budget whose objective and budget are sums. Kept ones on their stairs, and an arrow from each dominated one
    to what dominates it. Those over budget, which no completion can keep, are only counted.
    """
    problem, menu = labels.problem, labels.problem.space.menus[block - 1]
    _, _, scale, label = _budget_axis(problem)
    own = [one for one in labels.stages[block - 1] if menu.items[one.choices[-1]].width == width]
    if not own:
        raise ValueError(f"no label ends with block {block} of width {width}; its menu has the widths {menu.widths}")
    if {len(one.gathered) for one in own} != {1} or {len(one.costs) for one in own} != {1}:
        raise ValueError("labels are drawn for an objective and a single budget that are one sum each")

    def place(one: Label) -> tuple[float, float]:
        return one.costs[0] / scale, one.gathered[0] / 1e3

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axis = figure.subplots()
    by_choices = {one.choices: one for one in own}
    kept = sorted(place(one) for one in own if one.fate is LabelFate.KEPT)
    if kept:
        axis.step([x for x, _ in kept], [y for _, y in kept], where="post", color=_BLUE, lw=1, alpha=0.6)
    counts = {fate: sum(one.fate is fate for one in own) for fate in LabelFate}
    for fate, style in (
        (LabelFate.KEPT, {"marker": "o", "mfc": _BLUE, "mec": _BLUE, "ms": 6}),
        (LabelFate.DOMINATED, {"marker": "o", "mfc": "none", "mec": _ORANGE, "ms": 9, "mew": 1.5}),
    ):
        places = [place(one) for one in own if one.fate is fate]
        if places:
            x, y = zip(*places, strict=True)
            axis.plot(x, y, ls="none", label=f"{fate.value}: {counts[fate]}", **style)  # type: ignore[arg-type]
    for one in own:
        if one.by is not None:
            (x0, y0), (x1, y1) = place(one), place(by_choices[one.by])
            axis.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": _ORANGE, "lw": 1})
    axis.set(
        title=f"labels after block {block}, width {width}; {counts[LabelFate.BUDGET]} more are over budget",
        xlabel=f"spent so far: {label}",
        ylabel=f"gathered so far: {problem.goal.name} [1,000 {problem.goal.unit}]",
    )
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


# Heuristics


def visits(problem: DesignProblem, solver: Solver, limits: Limits | None = None) -> tuple[Architecture, ...]:
    """The designs that a heuristic scores, in the order in which it scores them: those that meet the budgets.

    The objective is handed to it as a black box that remembers what it is asked, so the search itself is the same, only slower.
    Raises NotSeparable for a solver that must read the objective's structure.
    """
    seen: list[Architecture] = []

    def score(design: Architecture) -> float:
        seen.append(design)
        return problem.objective(design)

    box = Measured(problem.goal.name, problem.goal.unit, score)
    solver.search(dataclasses.replace(problem, maximize=box), Run(limits or Limits()))
    return tuple(seen)


def visits_text(problem: DesignProblem, seen: Sequence[Architecture], optimum: Solution) -> str:
    """What a heuristic found beside the optimum: designs scored, different ones, when the best came, and what it lacks."""
    best = max(seen, key=problem.objective)
    value = problem.objective(best)
    assert optimum.objective is not None
    return "\n".join(
        [
            f"{len(seen):,} designs scored, {len(set(seen)):,} of them different; the best after {1 + seen.index(best):,}",
            f"found    {best}   {value:,.1f} nat",
            f"optimum  {optimum.architecture}   {optimum.objective:,.1f} nat",
            f"loss     {_loss(value, optimum.objective)}",
        ]
    )


def _loss(objective: float, optimum: float) -> str:
    return f"{round(100 * (1 - objective / optimum), 2) + 0.0:.2f} %"


def mutations(design: Architecture, other: Architecture, space: SearchSpace) -> int:
    """How many mutations of the paper's algorithm it takes from design to design: choices of blocks that differ."""
    pairs = zip(space.menus, space.encode(design), space.encode(other), strict=True)
    return sum(int(places[own] != places[theirs]) for menu, own, theirs in pairs for places in menu.places.values())


def neighbourhood_table(problem: DesignProblem, design: Architecture, changes: Sequence[int]) -> str:
    """The best other design with up to some numbers of decisions changed, by exhaustive search, as Markdown.

    Args:
        changes: of the decisions of the space, one for each choice of each block.

    Beside each the decisions and the mutations that lead to it. The design itself is left out.
    """
    shared, decisions = Agreement(design), problem.space.decisions
    other = Budget(shared, shared.most - 1)
    rows = []
    for most in changes:
        near = Budget(shared, at_least=shared.most - most)
        found = solve(dataclasses.replace(problem, subject_to=(*problem.subject_to, other, near)), Exhaustive()).architecture
        cells = ["none", "", "", ""]
        if found is not None:
            changed = shared.most - round(shared(found))
            cells = [f"{found}", _value(problem.objective(found)), f"{changed}", f"{mutations(design, found, problem.space)}"]
        rows.append([f"{most} of {decisions}", *cells])
    header = ["changed at most", "best other design", f"{problem.goal.name} [{problem.goal.unit}]", "changed", "mutations"]
    return markdown_table(header, rows, left=2)


def seed_table(problem: DesignProblem, solver: Solver, seeds: Sequence[int], optimum: float) -> str:
    """What a heuristic finds under some seeds, as Markdown."""
    rows = []
    for seed in seeds:
        run = solve(problem, solver, Limits(seed=seed))
        loss = "" if run.objective is None else _loss(run.objective, optimum)
        rows.append([f"{seed}", f"{run.architecture or 'none'}", _value(run.objective), loss, run.status.value])
    return markdown_table(["seed", "design", "objective [nat]", "loss", "status"], rows, left=2)


def draw_evolution(
    problem: DesignProblem,
    seen: Sequence[Architecture],
    moments: Sequence[int],
    population: int,
    parents: int,
    optimum: Architecture | None = None,
) -> Figure:
    """The population of the paper's evolutionary algorithm after some numbers of designs scored, a panel for each.

    The population is at any time the best `population` of the designs scored so far, `seen`, and its parents the best `parents`.
    Behind it the front, above which there is no design (by brute force, so for spaces of up to some million designs). With an
    optimum each panel holds a second, smaller one of what lies near it; a frame in the large one shows where.
    """
    quantity, upper, scale, label = _budget_axis(problem)
    known: dict[Architecture, tuple[float, float]] = {}
    for design in seen:
        if design not in known:
            known[design] = quantity(design) / scale, problem.objective(design) / 1e3
    values = np.array([known[design] for design in seen])
    front = np.array(
        [
            (point.costs[0] / scale, point.objective / 1e3)
            for point in exhaustive_front(dataclasses.replace(problem, minimize=(quantity,), report=()))
        ]
    )
    figure = Figure(figsize=(9.2, 2.8 * math.ceil(len(moments) / 2) + 0.6), layout="constrained")
    axes = figure.subplots(math.ceil(len(moments) / 2), 2, sharex=True, sharey=True, squeeze=False)
    place = None if optimum is None else (quantity(optimum) / scale, problem.objective(optimum) / 1e3)
    for axis, moment in zip(axes.ravel(), moments, strict=False):
        own = values[:moment]
        ranked = own[np.argsort(-own[:, 1], kind="stable")]
        near = [] if place is None else [axis.inset_axes((0.6, 0.09, 0.37, 0.44))]
        for each in (axis, *near):
            small = 0.8 if near and each is near[0] else 1.0
            each.step(front[:, 0], front[:, 1], where="post", color="0.35", lw=1.2, label="front: no design lies above")
            each.axvline(upper, color=_GREY, ls="--", lw=1.2, label="the budget")
            each.plot(own[:, 0], own[:, 1], ".", ms=2, color="0.8", label="scored so far", zorder=0)
            rings = {"mfc": "none", "mec": _PALE_BLUE, "mew": 0.9, "label": f"population, {population}"}
            each.plot(*ranked[:population].T, "o", ms=4.5 * small, **rings)
            diamonds = {"color": "black", "mec": "white", "mew": 0.4, "label": f"parents, the best {parents}"}
            each.plot(*ranked[:parents].T, "D", ms=4.5 * small, **diamonds)
            if place is not None:
                star = {"color": _GREEN, "mec": "black", "mew": 0.6, "label": "proven optimum", "zorder": 5}
                each.plot(*place, "*", ms=15 * small, **star)
        axis.set_title(f"{moment:,} designs scored", fontsize=10)
        axis.grid(alpha=0.3)
        if place is not None:
            (x0, x1), (y0, y1) = (0.94 * upper, 1.006 * upper), (0.94 * place[1], 1.015 * place[1])
            near[0].set(xlim=(x0, x1), ylim=(y0, y1))
            near[0].tick_params(labelsize=7)
            near[0].locator_params(axis="x", nbins=3)
            axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="0.3", lw=0.8, zorder=4))
    for axis in axes[-1]:
        axis.set_xlabel(label)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{problem.goal.name}\n[1,000 {problem.goal.unit}]")
    for axis in axes.ravel()[len(moments) :]:
        axis.set_axis_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


# What is known at the end


def solve_each(
    problem: DesignProblem, solvers: Mapping[str, Solver], limits: Limits | None = None
) -> dict[str, tuple[Solver, Solution]]:
    """The problem solved by each solver, by name. One whose engine is not installed is left out, and its message printed."""
    solutions = {}
    for name, solver in solvers.items():
        try:
            solutions[name] = solver, solve(problem, solver, limits)
        except EngineMissing as missing:
            print(missing)
    return solutions


def solver_table(solutions: Mapping[str, tuple[Solver, Solution]], optimum: float) -> str:
    """What some solvers answered: status, objective, bound, what is lost to the optimum, and why each stopped, as Markdown."""
    rows = [
        [
            name,
            one.status.value,
            "none" if one.objective is None else f"{one.objective:,.2f}",
            "none" if one.bound is None else f"{one.bound:,.2f}",
            "" if one.objective is None else _loss(one.objective, optimum),
            one.message,
        ]
        for name, (_, one) in solutions.items()
    ]
    header = ["solver", "status", "objective [nat]", "bound [nat]", "loss", "why it stopped, in its own words"]
    return markdown_table(header, rows, left=2)


def rows_of(problem: DesignProblem, title: str, solutions: Mapping[str, tuple[Solver, Solution]]) -> list[Row]:
    """Solutions as the rows that `studies.compare_solvers.figures.draw_anytime` draws; keys are the names of the curves."""
    rows = []
    for name, (solver, solution) in solutions.items():
        cell = Cell(title, problem, name, solver, solution.provenance.seed, math.inf)
        rows.append({**row_of(cell, solution, provenance(solution.provenance.seed)), "solver": name})
    return rows


def draw_knowledge(solutions: Mapping[str, Solution]) -> Figure:
    """Where the optimum can be by what each solution says: from the design found up to the bound, or upwards without an end.

    A star stands where the two meet, up to a gap of one in a million.
    """
    figure = Figure(figsize=(9.2, 0.42 * len(solutions) + 1.5), layout="constrained")
    axis = figure.subplots()
    ends = [value for each in solutions.values() for value in (each.objective, each.bound) if value is not None]
    low, high = min(ends) / 1e3, max(ends) / 1e3
    room = 0.06 * ((high - low) or abs(high) or 1.0)
    right = high + 5 * room
    for place, solution in enumerate(solutions.values()):
        bound = None if solution.bound is None else solution.bound / 1e3
        found = None if solution.objective is None else solution.objective / 1e3
        start = low - room if found is None else found
        if bound is None:
            axis.annotate(
                "", (right, place), (start, place), arrowprops={"arrowstyle": "->", "color": _ORANGE, "lw": 2, "ls": "--"}
            )
        else:
            axis.plot([start, bound], [place, place], "-", color=_BLUE, lw=5, alpha=0.45, solid_capstyle="butt")
            axis.plot([bound], [place], "|", ms=15, mew=2.5, color=_BLUE)
        if found is not None:
            proved = solution.gap is not None and solution.gap <= Limits().gap
            axis.plot(
                [found], [place], "*" if proved else "o", ms=13 if proved else 8, color=_GREEN if proved else _ORANGE, zorder=3
            )
        gap = "no bound" if solution.gap is None else f"gap {100 * solution.gap:.2g} %"
        axis.text(right + room / 2, place, f"{solution.status.value}, {gap}", va="center")
    axis.set_yticks(range(len(solutions)), list(solutions))
    axis.set_ylim(len(solutions) - 0.4, -0.6)
    axis.set_xlim(low - 1.5 * room, right)
    axis.set_xlabel("effective entropy [1,000 nat]")
    axis.grid(axis="x", alpha=0.3)
    handles: list[Any] = [
        axis.plot([], [], "*", ms=12, color=_GREEN, ls="none", label="found and proved best")[0],
        axis.plot([], [], "o", ms=8, color=_ORANGE, ls="none", label="found")[0],
        axis.plot([], [], "-|", ms=12, mew=2.5, lw=5, alpha=0.6, color=_BLUE, label="the optimum is not above the mark")[0],
        axis.plot([], [], "--", lw=2, color=_ORANGE, label="no bound: it may be anywhere above")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    return figure
