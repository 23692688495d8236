"""Figures of the study of cost models: the optimum under each, what each spends under the others, and latency beside FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from formulation import Architecture
from studies.palette import COLOURS, draw_blocks

_COLUMNS = 4


def marks(one: dict[str, Any]) -> str:
    """What a cost's name is marked with: * for an extrapolation, ? for a table of large error."""
    return ("*" if one["extrapolated"] else "") + ("?" if one["doubt"] else "")


def _legend(records: Iterable[dict[str, Any]], extrapolated: str) -> str:
    records = list(records)
    star = f"; * {extrapolated}" if any(one["extrapolated"] for one in records) else ""
    return star + ("; ? doubtful" if any(one["doubt"] for one in records) else "")


def draw_optima(record: dict[str, Any]) -> Figure:
    """The best design under each cost model, all with the budget of one published design: bars a block, depths above them."""
    optima = record["optima"]
    columns = min(_COLUMNS, len(optima))
    rows = math.ceil(len(optima) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.3 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis, one in zip(axes.ravel(), optima, strict=False):
        design = Architecture.from_dict(one["architecture"])
        draw_blocks(axis, design.widths, design.ffn_widths, design.depths)
        title = _wrapped(one["cost"]) + marks(one)
        axis.set_title(f"{title}\nentropy {one['entropy']:,.0f}, {one['layers']} layers", fontsize=8)
    for axis in axes.ravel()[len(optima) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("width", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("block", fontsize=8)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    star = _legend(optima, "extrapolated")
    figure.suptitle(f"Optimum where each budget is what {record['reference']['name']} spends{star}", fontsize=10)
    return figure


def _wrapped(name: str) -> str:
    """A cost's name on two lines where it has a device."""
    return name.replace("@", "@\n", 1) if len(name) > 24 else name


def draw_matrix(record: dict[str, Any]) -> Figure:
    """Designed for the row's model, run on the column's: share of the budget that is spent."""
    names = [one["cost"] + marks(one) for one in record["optima"]]
    matrix = np.array(record["matrix"])
    figure = Figure(figsize=(0.62 * len(names) + 4.2, 0.42 * len(names) + 3.6), layout="constrained")
    axis = figure.subplots()
    span = max(abs(np.log(matrix)).max(), 0.05)
    image = axis.imshow(np.log(matrix), cmap="PuOr_r", vmin=-span, vmax=span, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        dark = abs(math.log(value)) > 0.62 * span
        weight = "bold" if value > 1 + 1e-9 else "normal"
        axis.text(
            column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color="white" if dark else "black", weight=weight
        )
    axis.set_xticks(range(len(names)), names, rotation=55, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("run on")
    axis.set_ylabel("designed for")
    ticks = [value for value in (0.25, 0.5, 0.75, 1, 1.33, 2, 4) if abs(math.log(value)) <= span]
    bar = figure.colorbar(image, ax=axis, ticks=np.log(ticks), shrink=0.8)
    bar.ax.set_yticklabels([f"{value:g}" for value in ticks], fontsize=8)
    bar.set_label("spent / budget (bold: not met)", fontsize=8)
    return figure


def draw_latency(record: dict[str, Any]) -> Figure:
    """Latency of random designs beside the FLOPs of the same pass, a panel a device."""
    costs = record["flops"]["costs"]
    columns = min(_COLUMNS, len(costs))
    rows = math.ceil(len(costs) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.9 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (name, own) in zip(axes.ravel(), costs.items(), strict=False):
        flops = np.array(record["flops"]["flops"][own["pass"]]) / 1e9
        axis.plot(flops, own["values"], ".", ms=2.5, color=COLOURS[0], alpha=0.5, rasterized=True)
        spread = "" if own["spread"] is None else f"\nat equal FLOPs slowest / fastest {own['spread']:.2f} (median)"
        axis.set_title(f"{_wrapped(name)}{marks(own)}{spread}", fontsize=8)
        axis.set_ylabel("predicted latency [ms]", fontsize=8)
        axis.set_xlabel(f"FLOPs of the pass [GFLOPs]\n{own['pass']}", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.set_ylim(bottom=0)
    for axis in axes.ravel()[len(costs) :]:
        axis.set_axis_off()
    star = _legend(costs.values(), "some of them extrapolated")
    figure.suptitle(f"Latency beside FLOPs, {record['flops']['designs']:,} random designs{star}", fontsize=10)
    return figure
