"""Figures of the solver comparison: anytime curves of incumbent and bound, and designs as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from formulation import PUBLISHED, Architecture, Block
from formulation.records.rows import Row
from hardware_models import Flops
from studies.palette import draw_blocks, solver_style

_FLOOR = 1e-4
"""Per cent at which anything closer to the optimum is drawn."""


def draw_anytime(rows: Sequence[Row], titles: Sequence[str]) -> Figure:
    """One column per problem: above, by how much each proven bound exceeds the best design; below, what each incumbent lacks.

    Both in per cent of the best objective, logarithmic, against seconds; a curve ends where its solver does. Incumbents stand in
    two panels: of solvers that ever have a bound, and of the others. Of a solver with several seeds the first is drawn.
    """
    names = list(dict.fromkeys(row["solver"] for row in rows))
    bounded = {row["solver"] for row in rows if row["bound"] is not None}
    heights = (1, 1, 0.8) if set(names) - bounded else (1, 1)
    figure = Figure(figsize=(4.6 * len(titles) + 2.6, 3.0 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), len(titles), sharex="col", sharey="row", squeeze=False, height_ratios=heights)
    for column, title in enumerate(titles):
        every = [row for row in rows if row["problem"] == title]
        best = max((row["objective"] for row in every if row["objective"] is not None), default=None)
        own = [row for row in every if not row["seed"]]
        bounds, *incumbents = axes[:, column]
        bounds.set_title(title)
        for row in own:
            if best is None:
                break
            # Later curves, which are drawn on top, are thinner and hide none below.
            style = solver_style(row["solver"]) | {
                "lw": 2.8 - 1.3 * names.index(row["solver"]) / len(names),
                "label": row["solver"],
            }
            _step(bounds, row, 3, best, style)
            _step(incumbents[0 if row["solver"] in bounded else -1], row, 2, best, style)
        for axis in axes[:, column]:
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_ylim(_FLOOR / 2, 50)
            axis.grid(alpha=0.3)
        for axis in incumbents:
            axis.invert_yaxis()
        incumbents[-1].set_xlabel("seconds")
    axes[0, 0].set_ylabel("bound above\nthe optimum, %")
    for axis, kind in zip(axes[1:, 0], ("with a bound", "no bound"), strict=False):
        axis.set_ylabel(f"{kind}: incumbent\nbelow the optimum, %")
    handles: dict[str, Any] = {}
    for axis in axes.ravel():
        handles.update(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside right center", frameon=False, handlelength=4.2)
    figure.suptitle(f"a mark ends a run, filled where it proved; {_FLOOR:g} % stands for anything closer", fontsize=10)
    return figure


def _step(axis: Axes, row: Row, column: int, best: float, style: dict[str, Any]) -> None:
    """Draw one column of a run's trace as its distance from `best` in per cent: 2 the incumbents, 3 the bounds."""

    def distance(value: float) -> float:
        return max(100 * abs(value / best - 1), _FLOOR)

    points = [(point[0], distance(point[column])) for point in row["trace"] if point[column] is not None]
    if not points:
        return
    last = points[-1][1]
    if column == 3 and row["bound"] is not None:
        last = distance(row["bound"])
    points.append((row["seconds"], last))
    seconds, values = zip(*points, strict=True)
    filled = style["color"] if row["status"] == "optimal" else "white"
    axis.step(np.maximum(seconds, 1e-3), values, where="post", markevery=[-1], ms=6, mfc=filled, **style)


def draw_best_designs(rows: Sequence[Row], titles: Sequence[str]) -> Figure:
    """One row per problem: its best design, and the published design nearest to it in FLOPs. Bars per block, depths above them."""
    figure = Figure(figsize=(10.5, 2.7 * len(titles) + 0.6), layout="constrained")
    axes = figure.subplots(len(titles), 2, sharey=True, squeeze=False)
    flops = Flops()
    for (left, right), title in zip(axes, titles, strict=True):
        own = [row for row in rows if row["problem"] == title and row["objective"] is not None]
        if not own:
            left.set_title(f"{title}: no design", fontsize=10)
            right.set_axis_off()
            continue
        best = max(own, key=lambda row: (row["objective"], row["status"] == "optimal"))
        proved = any(row["status"] == "optimal" for row in own)
        draw_blocks(left, best["widths"], best["ffn_widths"], best["depths"])
        left.set_title(f"{title}: {'optimum' if proved else 'best found'}, entropy {best['objective']:,.0f}", fontsize=10)
        limit = _flops_of(best)
        name, design = min(PUBLISHED.items(), key=lambda item: abs(flops(item[1]) - limit))
        draw_blocks(right, design.widths, design.ffn_widths, design.depths)
        right.set_title(f"{name}: {flops(design) / 1e9:.1f} GFLOPs by our count", fontsize=10)
        left.set_ylabel("width")
    axes[-1, 0].set_xlabel("block")
    axes[-1, 1].set_xlabel("block")
    labelled = next((axis for axis in axes.ravel() if axis.get_legend_handles_labels()[0]), axes[0, 0])
    figure.legend(*labelled.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _flops_of(row: Row) -> float:
    """FLOPs of a row's design, counted from its own shapes."""
    blocks = tuple(Block(e, f, d) for e, f, d in zip(row["widths"], row["ffn_widths"], row["depths"], strict=True))
    return Flops()(Architecture(blocks))
