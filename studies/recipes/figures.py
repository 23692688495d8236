"""The figures of the study of recipes: differences of the losses by change, and loss over learning rate by rule and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from studies.palette import COLOURS

_MARKERS = ("o", "s", "D")
_TICKS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)


def draw_changes(records: Sequence[Mapping[str, Any]]) -> Figure:
    """A line for each change and design: the difference of every seed, their mean, and the spread of seeds as a grey band."""
    figure = Figure(figsize=(7.5, 1.2 + 0.34 * len(records)), layout="constrained")
    axes = figure.add_subplot()
    for place, record in enumerate(records):
        spread = record["seeds_sd"] or 0.0
        axes.fill_betweenx([place - 0.4, place + 0.4], -spread, spread, color="0.88", label="seeds' spread" if place == 0 else None)
        values = record["differences"]
        axes.plot(values, [place] * len(values), "o", color=COLOURS[0], alpha=0.6, ms=4, label="one seed" if place == 0 else None)
        if record["difference"] is not None:
            axes.plot([record["difference"]] * 2, [place - 0.3, place + 0.3], color="black", label="mean" if place == 0 else None)
    axes.axvline(0, color="0.4", lw=0.8)
    axes.set_yticks(range(len(records)), [f"{record['change']} ({record['design']})" for record in records], fontsize=8)
    axes.set_ylim(len(records) - 0.5, -0.5)
    axes.set_xlabel("held-out loss after the change − before it [nat per token]")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return figure


def draw_carry(records: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each rule: held-out loss over the learning rate, a curve for each width, the best rate as a tick."""
    rules = list(dict.fromkeys(record["rule"] for record in records))
    figure = Figure(figsize=(3.0 * len(rules), 3.2), layout="constrained")
    panels = figure.subplots(1, len(rules), sharey=True, squeeze=False)[0]
    for axes, rule in zip(panels, rules, strict=True):
        own = [record for record in records if record["rule"] == rule]
        for number, record in enumerate(own):
            points = sorted((float(rate), loss) for rate, loss in record["losses"].items() if loss is not None)
            colour, marker = COLOURS[number], _MARKERS[number % len(_MARKERS)]
            if points:
                rates, losses = zip(*points, strict=True)
                axes.plot(rates, losses, marker=marker, ms=4, color=colour, label=f"width {record['width']}")
            if record["bracketed"]:
                axes.plot([record["best_rate"]], [record["best_loss"]], marker="|", ms=14, color=colour)
        axes.set_xscale("log", base=2)
        axes.set_xticks(_TICKS, [f"{rate:g}" for rate in _TICKS], fontsize=6)
        axes.set_title(rule, fontsize=9)
        axes.set_xlabel("learning rate", fontsize=8)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("held-out loss [nat per token]", fontsize=8)
    panels[0].legend(fontsize=7)
    return figure
