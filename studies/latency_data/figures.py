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
    "flops_fitted": "FLOPs fitted",
    "flops_leave_one_out": "FLOPs leave-one-out",
    "flops_with_head_leave_one_out": "with head",
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


def print_published(device: str, record: dict[str, Any]) -> None:
    """The published latencies of a length beside each prediction, and its mean relative error."""
    lines = [(row["name"], f"{row['published_ms']}", *(f"{row[f'{way}_ms']:.0f}" for way in _WAYS)) for row in record["networks"]]
    lines.append(("MAPE, %", "", *(f"{100 * record['errors'][way]['mape']:.1f}" for way in _WAYS)))
    print(f"\nLatency of {record['tokens']:,} tokens on {device}, ms")
    print(text_table(("network", "published", *_WAYS.values()), lines, {0}))
    prices = ", ".join(f"{price:.4g} ms per unit of {name}" for name, price in record["prices_ms"].items())
    floor = record["floor"]
    alike = " and ".join(floor["networks"])
    print(f"Prices: {prices}.")
    print(f"{alike} have the same work: no model of layers comes nearer to them than {100 * floor['mape']:.1f} %.")


def print_watch(part: dict[str, Any]) -> None:
    """The errors of each table's models, the residuals by width, and the designs with and without the cliff."""
    print(f"\npixel-watch-5 ({part['file']}): {counted(part['rows'], 'row')}, {part['cliff_rows']} at the cliff")
    lines = [
        (row["table"], row["model"], f"{100 * row['mape']:.1f}", f"{100 * row['within_10']:.1f}", f"{row['spearman']:.3f}")
        for row in part["errors"]
    ]
    print(text_table(("table", "model", "MAPE, %", "within 10 %, %", "Spearman"), lines, {0, 1}))
    _print_by_width({name: [row for row in part["by_width"] if row["table"] == name] for name in part["fits"]})
    print("\nProved optima of alike layers under a time for each decoded token, ms as the table with the cliff predicts them")
    designs = []
    for row in part["designs"]["rows"]:
        for name in ("knowing", "blind", "meeting"):
            if found := row[name]:
                said = (found["design"], f"{found['entropy']:,.0f}", f"{found['predicted_ms']:.1f}")
                designs.append((f"{row['limit_ms']:g}", name, *said))
    print(text_table(("limit, ms", "cliff", "design", "effective entropy, nat", "ms"), designs, {1, 2}))


def print_scores(file: str, device: str, scores: Sequence[dict[str, Any]]) -> None:
    """How near the tables of a device file come to a file of measurements, and the residuals by width."""
    print(f"\n{device} on {file}")
    lines = [
        (
            one["table"],
            one["column"],
            f"{one['rows']:,}",
            f"{one['left_out']:,}",
            f"{one['beyond_validated']:,}",
            f"{100 * one['mape']:.1f}",
            f"{100 * one['within_10']:.1f}",
            f"{one['spearman']:.3f}",
            f"{one['median_ratio']:.3f}",
            f"{100 * one['scaled']['mape']:.1f}",
        )
        for one in scores
    ]
    head = ("table", "column", "rows", "left out", "beyond validated", "MAPE, %", "within 10 %, %", "Spearman")
    print(text_table((*head, "measured / predicted", "MAPE scaled, %"), lines, {0, 1}))
    _print_by_width({one["table"]: one["by_width"] for one in scores})


def _print_by_width(tables: dict[str, list[dict[str, Any]]]) -> None:
    """The mean error and the median of measured by predicted, by width, of each table."""
    print("\nResiduals by width: mean error, % (median of measured / predicted)")
    own = {name: {row["width"]: row for row in rows} for name, rows in tables.items()}
    lines = []
    for width in sorted({width for rows in own.values() for width in rows}):
        of_width = [rows.get(width) for rows in own.values()]
        cells = (f"{100 * row['mape']:.1f} ({row['median_ratio']:.2f})" if row else "" for row in of_width)
        lines.append((f"{width:,}", f"{max(row['rows'] for row in of_width if row):,}", *cells))
    print(text_table(("width", "rows", *own), lines, set()))


def draw_watch(points: dict[str, dict[str, Any]], how: str) -> Figure:
    """Predicted against measured values, a column for each table, and below it measured by predicted over the width.

    Args:
        points: name of the table -> measured and predicted values, which are at the cliff, the widths, and the unit.
        how: the predictions were made, in words.
    """
    figure = Figure(figsize=(4.2 * len(points), 7.4), layout="constrained")
    above, below = figure.subplots(2, len(points), squeeze=False, height_ratios=(3, 2))
    for upper, lower, (name, own) in zip(above, below, points.items(), strict=True):
        measured, predicted, width = (np.array(own[key]) for key in ("measured", "predicted", "width"))
        cliff = np.array(own["cliff"])
        for which, style, label in (
            (~cliff, {"marker": "o", "color": COLOURS[0]}, "elsewhere"),
            (cliff, {"marker": "^", "color": COLOURS[1]}, "widths all multiples of 64"),
        ):
            upper.plot(measured[which], predicted[which], ls="", ms=4, mfc="none", label=label, **style)
            lower.plot(width[which], measured[which] / predicted[which], ls="", ms=4, mfc="none", **style)
        _frame(upper, measured, predicted)
        mape = 100 * float(np.mean(np.abs(predicted / measured - 1)))
        upper.set_title(f"{name}: mean error {mape:.1f} %")
        upper.set(xlabel=f"measured, {own['unit']}", ylabel=f"predicted {how}, {own['unit']}")
        upper.legend(fontsize="small", loc="upper left")
        lower.axhspan(0.9, 1.1, color="0.9", zorder=0)
        lower.axhline(1, color="black", lw=0.8)
        widths = np.unique(width)
        lower.plot(widths, [np.median((measured / predicted)[width == one]) for one in widths], "_", ms=14, color="black")
        lower.set(xlabel="width (bar: median)", ylabel="measured / predicted", yscale="log")
        ticks = [
            tick
            for tick in (0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3)
            if 0.8 * min(measured / predicted) <= tick <= 1.25 * max(measured / predicted)
        ]
        lower.yaxis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        lower.yaxis.set_ticks([], minor=True)
    return figure


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
    """What predicts each of the nine published latencies, relative to it: three kinds of work, and FLOPs alone."""
    rows = record["networks"]
    figure = Figure(figsize=(7.6, 0.34 * len(rows) + 1.7), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    ways: dict[str, dict[str, Any]] = {
        "leave_one_out": {"marker": "o", "color": COLOURS[0], "label": "maps, head where timed, layers; fitted without it"},
        "fitted": {"marker": "x", "color": "black", "label": "the same, fitted to all"},
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
