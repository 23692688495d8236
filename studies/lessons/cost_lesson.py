"""Figures and tables of the hardware lesson, `notebooks/04_hardware.ipynb`: what a design costs, where, and what predicts it.

The cost models are `hardware_models`; how the optimum moves between them is `studies.hardware`, with its own figures. Records of
measurements that this repository keeps are read from studies/results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from formulation import Architecture, Block, Combine, Composite, Quantity, Separable
from formulation.architecture import Setting
from formulation.command.words import markdown_table, short
from formulation.layer import layer_of
from formulation.quantity import column_texts, quantity_text
from formulation.records.rows import RowFile, packed_path
from hardware_models import Datasheet, FitError, Flops, LatencyTable, Memory, WeightMemory, fit_error
from hardware_models.datasheet import PRECISIONS, RATED
from hardware_models.fit import NEAR_ERROR, nonnegative_fit
from hardware_models.latency import unseen_rounds
from hardware_models.roofline import map_product
from hardware_models.workload import BODY_FEATURES, FEATURES, feature_matrix
from studies.lessons.formulation_lesson import path_terms
from studies.palette import COLOURS, HATCHES, STYLES, draw_blocks

_BLUE, _ORANGE, _GREEN, _PINK = COLOURS[:4]
_FOLDS = 10
"""As `hardware_models.fit_table` has it, so that the errors are those of the device files."""


# Costs as quantities


def cost_table(quantities: Sequence[Quantity], designs: Mapping[str, Architecture]) -> str:
    """Markdown: each quantity with its structure, its unit, and its value for some designs."""
    rows = [
        [quantity_text(quantity), _structure(quantity), quantity.unit, *(short(quantity(design)) for design in designs.values())]
        for quantity in quantities
    ]
    return markdown_table(["quantity", "structure", "unit", *designs], rows, left=3)


def _structure(quantity: Quantity) -> str:
    """What a solver can know of a quantity."""
    if isinstance(quantity, Separable):
        return "sum" if quantity.combine is Combine.SUM else "maximum"
    return f"formula of {len(quantity.parts)} parts" if isinstance(quantity, Composite) else "black box"


def shares(quantity: Separable, design: Architecture) -> dict[str, float]:
    """Where a sum arises, by share: the fixed term, each block, all maps between unequal widths, and what stands before and behind.

    They add up to 1.

    ValueError for a quantity that is a maximum: its terms have no shares.
    """
    if quantity.combine is not Combine.SUM:
        raise ValueError(f"{quantity.name} is a maximum, of which no term has a share; expected a sum")
    parts = dict.fromkeys(["fixed", *(f"block {number}" for number in range(1, len(design.blocks) + 1)), "maps", "ends"], 0.0)
    for term in path_terms(quantity, design):
        kind = "maps" if term.name.startswith("map") else "ends" if term.name in ("entry", "exit") else term.name
        parts[kind] += term.value
    total = quantity(design)
    return {name: value / total for name, value in parts.items()}


def draw_shares(quantities: Sequence[Separable], design: Architecture) -> Figure:
    """Where each cost of a design arises, in per cent of its total: a bar a quantity."""
    parts = [shares(quantity, design) for quantity in quantities]
    figure = Figure(figsize=(9, 0.5 * len(quantities) + 1.3), layout="constrained")
    axis = figure.subplots()
    blocks = [name for name in parts[0] if name.startswith("block")]
    looks = {"fixed": ("0.75", ""), "maps": ("white", "xxx"), "ends": ("0.55", "")}
    looks |= {name: (COLOURS[number % 4], HATCHES[number % 4]) for number, name in enumerate(blocks)}
    left = np.zeros(len(quantities))
    for name, (colour, hatch) in {part: looks[part] for part in parts[0]}.items():
        values = 100 * np.array([own[name] for own in parts])
        label = {"fixed": "every design has it", "maps": "maps between widths", "ends": "before and behind the blocks"}.get(
            name, name
        )
        axis.barh(range(len(values)), values, left=left, color=colour, hatch=hatch, edgecolor="0.25", lw=0.6, label=label)
        for row, value in enumerate(values):
            if value >= 5:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
                axis.text(float(left[row] + value / 2), row, f"{value:.0f}", ha="center", va="center", fontsize=9, bbox=box)
        left += values
    axis.set_yticks(range(len(quantities)), [text.replace(":", ":\n") for text in column_texts(quantities)])
    axis.invert_yaxis()
    axis.set(xlabel="share of the total [%]", xlim=(0, 100))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(parts[0]), frameon=False, fontsize=9)
    return figure


def memory_steps(memory: Memory, design: Architecture) -> dict[str, float]:
    """Bytes of activations in each step of a pass, in order: maps, positions, blocks, the final norm, and last the output head."""
    terms = path_terms(memory.parts[1], design)
    names = {"entry": "positions", "exit": "norm"}
    steps = {names.get(term.name, term.name): term.value for term in terms if term.name != "fixed"}
    return {**steps, "head": next(term.value for term in terms if term.name == "fixed")}


def draw_memory(memory: Memory, design: Architecture) -> Figure:
    """Memory step by step through a pass: weights and cache, which stay, and on them the activations of the step."""
    steps = memory_steps(memory, design)
    weights = WeightMemory(memory.bits, memory.embedding_bits)(design) / 1e6
    held = memory.parts[0](design) / 1e6
    activations = np.array(list(steps.values())) / 1e6
    peak = int(activations.argmax())
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(steps))
    axis.bar(place, weights, 1.0, color="0.85", label="weights")
    axis.bar(place, held - weights, 1.0, bottom=weights, color="0.65", hatch="..", edgecolor="0.85", label="key-value cache")
    axis.bar(place, activations, 0.8, bottom=held, color=_BLUE, label="activations of the step")
    axis.bar(peak, activations[peak], 0.8, bottom=held, color=_ORANGE, hatch="//", edgecolor="white", label="their maximum")
    for here, value in enumerate(map(float, activations)):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.text(here, held + value / 2, f"{value:.1f}", ha="center", va="center", fontsize=8, bbox=box)
    total = memory(design) / 1e6
    axis.axhline(total, color="black", ls="--", lw=1.2)
    axis.annotate(f"memory = {total:.1f} MB", (0, total), (4, 4), textcoords="offset points")
    axis.set_xticks(place, [name.replace("map ", "map\n").replace(" → ", " →\n") for name in steps], fontsize=8.5)
    axis.set(ylabel="memory [MB]", xlabel="step of the pass", ylim=(0, 1.12 * total), xlim=(-0.5, len(steps) - 0.5))
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1))
    return figure


# The roofline


def map_intensity(block: Block, tokens: int, precision: str = "float32") -> float:
    """FLOPs per byte of the first map of a block's feed-forward network, W₁, when it is applied to so many tokens at once."""
    first = map_product(layer_of(block, Architecture((block,)))["up"], tokens)
    return float(first.flops / first.bytes(PRECISIONS[precision]))


def draw_roofline(sheets: Sequence[Datasheet], block: Block, tokens: Sequence[int], precision: str = "float32") -> Figure:
    """The rated rooflines of some devices, and on each the map W₁ of a block, applied to more and more tokens at once."""
    figure = Figure(figsize=(8.6, 4), layout="constrained")
    axis = figure.subplots()
    places = [map_intensity(block, count, precision) for count in tokens]
    ends = np.array([min(places) / 2, max(places) * 2])
    for sheet, (colour, line, marker) in zip(sheets, STYLES, strict=False):
        rates = sheet.rates(precision, RATED)
        peak, bandwidth = rates.flops / 1e9, rates.bandwidth / 1e9
        ridge = peak / bandwidth
        roof = np.array([ends[0], ridge, ends[1]])
        label = f"{sheet.name}: {peak:,.0f} GFLOP/s, {bandwidth:,.1f} GB/s\nridge point {ridge:.1f} FLOPs per byte"
        axis.plot(roof, np.minimum(peak, bandwidth * roof), line, color=colour, lw=1.8)
        axis.plot(places, np.minimum(peak, bandwidth * np.array(places)), marker, ms=7, color=colour)
        axis.plot([], [], line, marker=marker, color=colour, label=label)
    axis.set(xscale="log", yscale="log", xlim=ends)
    for place, count in zip(places, tokens, strict=True):
        axis.axvline(place, color="0.7", ls=":", lw=1, zorder=0)
        text = "1 token" if count == 1 else f"{count:,}"
        axis.annotate(text, (place, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center")
    axis.set(xlabel="arithmetic intensity [FLOPs per byte]; above: tokens at once", ylabel="speed that can be reached [GFLOP/s]")
    _plain_ticks(axis, "xy")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9)
    axis.grid(alpha=0.3)
    return figure


# Predictions against measurements


@dataclass(frozen=True)
class Prediction:
    """What a latency model says of networks and rounds that it was not fitted to [ms], beside their measurements.

    Attributes:
        predicted: (n,), in the same order.
        measured: (n,), in the same order.
    """

    name: str
    predicted: np.ndarray
    measured: np.ndarray

    @property
    def error(self) -> FitError:
        """How near the one comes to the other."""
        return fit_error(self.predicted, self.measured)


def unseen_predictions(table: LatencyTable) -> tuple[Prediction, ...]:
    """FLOPs alone, FLOPs and a constant, and the table's kinds of work, each fitted in ten folds to the rows of a device file.

    Every round of a network is predicted by a fit to other networks and other rounds, as the error in the file was made. ValueError
    for a table without rows, or of another phase than prefill, whose FLOPs `Flops` does not count.
    """
    if not table.rows or table.workload.phase != "prefill":
        raise ValueError(f"the table {table.name} of {table.device} keeps no measured networks of a prefill; choose one that does")
    designs = [row.design for row in table.rows]
    flops = np.array([[Flops(table.workload.seq_len)(design) / 1e9] for design in designs])
    work = feature_matrix(designs, table.workload, BODY_FEATURES)
    models = {
        "FLOPs alone": flops,
        "FLOPs and a constant": np.hstack([flops, np.ones_like(flops)]),
        "table of prices": work[:, work.any(axis=0)],
    }
    return tuple(Prediction(name, *unseen_rounds(features, table.rows, _FOLDS)) for name, features in models.items())


def draw_flops_and_table(table: LatencyTable, predictions: Sequence[Prediction]) -> Figure:
    """Measured networks over their FLOPs, with both straight lines, and over what the table predicts of them, unseen.

    Args:
        predictions: those of `unseen_predictions`.
    """
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    flops = np.array([Flops(table.workload.seq_len)(row.design) / 1e9 for row in table.rows])
    measured = np.array([row.mean_ms for row in table.rows])
    left.plot(flops, measured, "o", ms=5, mfc=_BLUE, mec="white", mew=0.5, label="a measured network")
    line = np.array([0, 1.05 * flops.max()])
    slope = float(nonnegative_fit(flops[:, None], measured)[0])
    left.plot(line, slope * line, "--", color=_ORANGE, lw=1.8, label=f"FLOPs alone: {slope:.1f} ms per GFLOP")
    constant, slope = map(float, nonnegative_fit(np.column_stack([np.ones_like(flops), flops]), measured))
    left.plot(line, constant + slope * line, "-", color="black", lw=1.4, label=f"{constant:.1f} ms + {slope:.1f} ms per GFLOP")
    left.set(
        xlabel=f"FLOPs of one pass of {table.workload.seq_len} tokens [GFLOPs]", ylabel="measured latency [ms]", xlim=(0, None)
    )
    own = predictions[-1]
    ends = np.array([0, 1.05 * max(own.measured.max(), own.predicted.max())])
    right.fill_betweenx(ends, (1 - NEAR_ERROR) * ends, (1 + NEAR_ERROR) * ends, color="0.88", label="within 10 %")
    right.plot(ends, ends, color="0.4", lw=1)
    right.plot(own.predicted, own.measured, "o", ms=5, mfc=_GREEN, mec="white", mew=0.5, label="a round of a network")
    right.set(xlabel=f"predicted by the {own.name}, unseen [ms]", xlim=ends, ylim=ends)
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=9, loc="upper left")
        axis.grid(alpha=0.3)
    return figure


def prediction_table(predictions: Sequence[Prediction]) -> str:
    """Markdown: how near each model comes to networks and rounds that it has not seen."""
    rows = [[one.name, f"{one.error.mape:.1%}", f"{one.error.within_10:.0%}", f"{one.error.spearman:.3f}"] for one in predictions]
    return markdown_table(["model", "mean error", "within 10 %", "rank correlation"], rows)


def price_table(table: LatencyTable, design: Architecture) -> str:
    """Markdown: the kinds of work of a table with their prices, and what each makes of a design's predicted latency."""
    names = [name for name, _ in table.prices]
    amounts = feature_matrix([design], table.workload, names)[0]
    rows = [
        [name, FEATURES[name].meaning, f"{amount:,.4g} {FEATURES[name].unit}".strip(), f"{price:,.3g}", f"{amount * price:.2f}"]
        for (name, price), amount in zip(table.prices, amounts, strict=True)
    ]
    for each in table.conditional:
        others = tuple(other for other in table.conditional if other is not each)
        without, with_one = (replace(table, conditional=held) for held in (others, (*others, replace(each, price=1.0))))
        amount = with_one.predict(design) - without.predict(design)
        counts = f"{amount:,.4g} {FEATURES[each.work].unit}".strip()
        rows.append([each.work, f"the same, if {each.where}", counts, f"{each.price:,.3g}", f"{amount * each.price:.2f}"])
    rows.append(["sum", "", "", "", f"{table.predict(design):.2f}"])
    return markdown_table(["work", "what it counts", "amount", f"price [{table.unit} per unit]", table.unit], rows, left=2)


def committed(name: str) -> Any:
    """A record of studies/results: the object of a .json file, the rows of a .jsonl file, packed or not.

    Args:
        name: such as "latency_data/results.json".

    ValueError if it is not there: an installation may have left the results out, a clone of the repository has them.
    """
    path = Path(__file__).resolve().parents[1] / "results" / name
    if not (path.is_file() or packed_path(path).is_file()):
        raise ValueError(f"studies/results/{name} is not there; run this in a clone of the repository, which holds the results")
    return RowFile(path).rows if name.endswith(".jsonl") else json.loads(path.read_text(encoding="utf-8"))


_MODELS = {"FLOPs": "s", "FLOPs + constant": "D", "additive": "o", "trees (ceiling)": "|"}
"""Models of `studies.latency_data` that are drawn."""


def draw_within_ten(devices: Sequence[Mapping[str, Any]], side: str = "decoder") -> Figure:
    """Share of the measured networks that each model predicts within 10 %, cross-validated, a line a device.

    Args:
        devices: records of `studies.latency_data`, with `device` and `errors`.
    """
    figure = Figure(figsize=(7.6, 0.5 * len(devices) + 1.5), layout="constrained")
    axis = figure.subplots()
    styles = zip(_MODELS.items(), (_ORANGE, _PINK, _BLUE, "black"), strict=True)
    for (model, marker), colour in styles:
        values = [
            next(
                100 * row["within_10"]
                for row in device["errors"]
                if (row["side"], row["rows"], row["model"]) == (side, "all", model)
            )
            for device in devices
        ]
        size = 16 if marker == "|" else 9
        axis.plot(values, range(len(devices)), marker, ms=size, mew=2 if marker == "|" else 1, color=colour, ls="", label=model)
    axis.set_yticks(range(len(devices)), [device["device"] for device in devices])
    axis.set(xlabel=f"{side}s predicted within 10 % [% of networks]", xlim=(0, 100), ylim=(len(devices) - 0.5, -0.5))
    axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=len(_MODELS), frameon=False)
    return figure


def draw_margin(prediction: Prediction, confidence: float, margin: float) -> Figure:
    """How measured / predicted is distributed over unseen rounds, and the ratio that is kept with a probability.

    Args:
        margin: that ratio, as `LatencyTable.margin` has it.
    """
    ratios = np.sort(prediction.measured / prediction.predicted)
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.step(ratios, np.arange(1, len(ratios) + 1) / len(ratios), where="post", color=_BLUE, lw=2)
    axis.axvline(1, color="0.5", lw=1)
    axis.plot([axis.get_xlim()[0], margin, margin], [confidence, confidence, 0], "--", color=_ORANGE, lw=1.5)
    axis.plot(margin, confidence, "s", color=_ORANGE, ms=8)
    text = f"{confidence:.0%} of rounds stay below\n{margin:.3f} × the prediction"
    axis.annotate(text, (margin, confidence), (14, -6), textcoords="offset points", va="top", color=_ORANGE)
    axis.set(xlabel="measured / predicted", ylabel="share of rounds below", ylim=(0, 1.02))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(alpha=0.3)
    return figure


def kept_table(budgets: Mapping[str, Any]) -> str:
    """Markdown: limits designed for and measured again, as predicted and with a confidence, at the file's pace and as it first
    came.

    Args:
        budgets: the part "budgets" of a summary of `studies.latency_check`.
    """
    names = {"as predicted": "as predicted", "confident": f"with confidence {budgets['confidence']:g}"}
    visits = {"at the pace of the device file": budgets, "as first measured": budgets["as_it_came"]}
    rows = [
        [
            name,
            when,
            f"{seen[kind]['kept']} of {seen[kind]['designs']}",
            " to ".join(f"{end:.0%}" for end in seen[kind]["clopper_pearson_95"]),
            f"{seen[kind]['median_of_limit']:.3f}",
            f"{seen[kind]['worst_of_limit']:.3f}",
        ]
        for when, seen in visits.items()
        for kind, name in names.items()
    ]
    header = ["budget holds", "measured", "limits met", "95 % interval", "median measured / limit", "largest"]
    return markdown_table(header, rows, left=2)


# Designs


def layer_table(costs: Mapping[str, Separable], widths: Sequence[int], setting: Setting) -> str:
    """Markdown: what one layer of each width, its FFN as wide, adds to each cost."""
    rows = [
        [name, cost.unit, *(short(cost.block(Block(width, width, 1), setting)) for width in widths)] for name, cost in costs.items()
    ]
    return markdown_table(["one layer", "unit", *(f"width {width:,}" for width in widths)], rows, left=2)


def draw_designs(designs: Mapping[str, Architecture]) -> Figure:
    """Designs side by side: bars of width and FFN width for each block, number of layers above them."""
    figure = Figure(figsize=(2.6 * len(designs) + 0.6, 2.9), layout="constrained")
    axes = figure.subplots(1, len(designs), sharey=True, squeeze=False)[0]
    for axis, (name, design) in zip(axes, designs.items(), strict=True):
        draw_blocks(axis, design.widths, design.ffn_widths, design.depths)
        axis.set_title(f"{name}\n{sum(design.depths)} layers", fontsize=9)
        axis.set_xlabel("block")
    axes[0].set_ylabel("width")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _plain_ticks(axis: Axes, directions: str) -> None:
    """Ticks of logarithmic axes as plain numbers."""
    for direction in directions:
        own = getattr(axis, f"{direction}axis")
        low, high = getattr(axis, f"get_{direction}lim")()
        own.set_major_locator(LogLocator(subs=(1.0,) if high / low > 200 else (1.0, 2.0, 5.0)))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())
