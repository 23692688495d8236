"""How `studies.latency_data` shows its records: tables as text, measured against predicted latencies as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from formulation.command.words import counted, text_table
from studies.palette import COLOURS

_SHOWN = ("additive", "FLOPs", "FLOPs + constant", "FLOPs with head", "trees (ceiling)")
"""Models of the printed table; the settings of the trees, of which the ceiling is the best, stay in the record."""
_WAYS = {
    "fitted": "fitted",
    "leave_one_out": "leave-one-out",
    "nested_leave_one_out": "nested",
    "flops_fitted": "FLOPs fitted",
    "flops_leave_one_out": "FLOPs leave-one-out",
}


def print_data(parts: Sequence[dict[str, Any]]) -> None:
    """The errors of each file's models, in percent and milliseconds, with what the rules flag and what the goal lacks."""
    for part in parts:
        flags = part["flagged"]
        print(f"\n{part['device']} ({part['file']}): {counted(part['rows'], 'row')}, flagged {flags['any']:,}", end="")
        print(f" ({', '.join(f'{rule} {count:,}' for rule, count in flags.items() if rule != 'any')})")
        lines = [
            (
                *(row[key] for key in ("side", "rows", "model")),
                f"{100 * row['within_10']:.1f}",
                f"{100 * row['mape']:.2f}",
                f"{row['spearman']:.4f}",
                f"{row['rmse']:.4g}",
            )
            for row in part["errors"]
            if row["model"] in _SHOWN
        ]
        print(text_table(("side", "rows", "model", "within 10 %, %", "MAPE, %", "Spearman", "RMSE, ms"), lines, {0, 1, 2}))
        for goal in part["goal"]:
            if not goal["within_2_points"]:
                short = goal["points_below_ceiling"]
                print(f"{goal['side']}, {goal['rows']} rows: {short:.1f} points below the trees, more than the 2 aimed at")
        sessions = part["sessions"]
        print(
            f"What the additive model misses correlates by {sessions['encoder_with_decoder']:.2f} between encoder and decoder of a "
            f"row and by {sessions['decoder_with_next_row']:.2f} between decoders of rows that follow each other; with folds in "
            f"the order of the file, {100 * sessions['decoder_within_10_by_file_order']:.1f} % of decoders are within 10 %."
        )


def print_published(record: dict[str, Any]) -> None:
    """The nine published latencies beside each prediction, and its mean relative error."""
    lines = [(row["name"], f"{row['published_ms']}", *(f"{row[f'{way}_ms']:.0f}" for way in _WAYS)) for row in record["networks"]]
    lines.append(("MAPE, %", "", *(f"{100 * record['errors'][way]['mape']:.1f}" for way in _WAYS)))
    print("\nLatency of 128 tokens on the paper's Jetson Nano, ms")
    print(text_table(("network", "published", *_WAYS.values()), lines, {0}))
    prices = ", ".join(f"{price:.4g} ms per unit of {name}" for name, price in record["prices_ms"].items())
    floor = record["floor"]
    print(f"Prices: {prices}; the best of {record['sets_tried']} sets of at most three kinds of work.")
    alike = ", ".join(floor["networks"])
    print(f"{alike} have the same layers: no model of layers comes nearer to them than {100 * floor['mape']:.1f} %.")


def draw_data(parts: Sequence[dict[str, Any]]) -> Figure:
    """Predicted against measured decoder latency, a panel for each device; rows flagged as measurement faults are crosses."""
    figure = Figure(figsize=(4.2 * len(parts), 4.4), layout="constrained")
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        points = part["points"]
        measured, predicted = np.array(points["measured_ms"]), np.array(points["predicted_ms"])
        flagged = np.zeros(len(measured), dtype=bool)
        flagged[points["flagged"]] = True
        axes.plot(measured[~flagged], predicted[~flagged], "o", ms=2, color="0.6", mec="none", label="one network")
        label = f"flagged as a measurement fault ({flagged.sum():,})"
        axes.plot(measured[flagged], predicted[flagged], "x", ms=5, mew=1, color=COLOURS[1], label=label)
        error = next(row for row in part["errors"] if (row["side"], row["rows"], row["model"]) == ("decoder", "all", "additive"))
        _frame(axes, measured, predicted)
        axes.set_title(f"{part['device']}: {100 * error['within_10']:.1f} % within 10 %")
        axes.set(xlabel="decoder latency measured, ms", ylabel="predicted out of fold, ms")
        axes.legend(fontsize="small", loc="upper left")
    return figure


def draw_published(record: dict[str, Any]) -> Figure:
    """What predicts each of the nine published latencies from the other eight, relative to it: kinds of work, and FLOPs alone."""
    rows = record["networks"]
    figure = Figure(figsize=(7.6, 0.34 * len(rows) + 1.7), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    ways: dict[str, dict[str, Any]] = {
        "nested_leave_one_out": {"marker": "o", "color": COLOURS[0], "label": "kinds of work, chosen and fitted without it"},
        "leave_one_out": {"marker": "x", "color": "black", "label": "the same kinds of work, fitted without it"},
        "flops_leave_one_out": {"marker": "s", "mfc": "none", "color": COLOURS[1], "label": "FLOPs alone, fitted without it"},
    }
    for way, style in ways.items():
        ratios = [row[f"{way}_ms"] / row["published_ms"] for row in rows]
        style["label"] += f": MAPE {100 * record['errors'][way]['mape']:.1f} %"
        axes.plot(ratios, places, ls="", ms=6, **style)
    axes.axvline(1, color="black", lw=0.8)
    axes.axvspan(0.9, 1.1, color="0.9", zorder=0, label="within 10 %")
    axes.set_yticks(places, [f"{row['name']}, {row['published_ms']} ms" for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.3)
    axes.set(xlabel="predicted / published latency of 128 tokens (the paper's Jetson Nano)")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small", frameon=False)
    return figure


def _frame(axes: Axes, measured: np.ndarray, predicted: np.ndarray) -> None:
    """Equal logarithmic axes with the diagonal and what is within 10 % of the measurement."""
    ends = np.array([0.85 * min(measured.min(), predicted.min()), 1.15 * max(measured.max(), predicted.max())])
    axes.plot(ends, ends, "-", color="black", lw=0.8, zorder=3)
    for side, label in ((0.9, "within 10 %"), (1.1, None)):
        axes.plot(ends, side * ends, "--", color="black", lw=0.8, zorder=3, label=label)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    steps = [step * 10.0**power for power in range(-2, 7) for step in (1, 2, 3, 5, 7)]
    ticks = [tick for tick in steps if ends[0] <= tick <= ends[1]]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set_aspect("equal")
