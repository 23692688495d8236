"""The figure of the latency check: predictions against measurements, limits against what came of them, FLOPs against latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from formulation.records.rows import Row
from studies.palette import COLOURS

_KINDS = {"as predicted": ("s", COLOURS[1], "none"), "confident": ("o", COLOURS[0], COLOURS[0])}


def draw_check(summary: dict[str, Any], rows: Sequence[Row]) -> Figure:
    """One panel for each part that was measured."""
    panels = [part for part in ("networks", "budgets", "flops") if part in summary]
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 4.2), layout="constrained")
    axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for part, axis in zip(panels, axes, strict=False):
        own = [row for row in rows if row["part"] == part]
        if part == "networks":
            _draw_networks(axis, own)
        elif part == "budgets":
            _draw_budgets(axis, own, summary["budgets"]["confidence"])
        else:
            _draw_flops(axis, summary["flops"])
    figure.suptitle(f"{summary['device']}, {summary['table']}: a fresh run against its device file", fontsize=10)
    return figure


def _draw_networks(axis: Axes, rows: Sequence[Row]) -> None:
    predicted, measured = (np.array([row[key] for row in rows]) for key in ("predicted_ms", "measured_ms"))
    ends = np.array([0.9 * min(predicted.min(), measured.min()), 1.1 * max(predicted.max(), measured.max())])
    axis.fill_between(ends, ends / 1.1, ends / 0.9, color="0.88", label="within 10 %")
    axis.plot(ends, ends, color="0.4", lw=1)
    axis.plot(predicted, measured, "o", ms=5, mfc=COLOURS[0], mec="white", mew=0.6, label="random network")
    _log(axis, "xy", ends)
    axis.set_xlabel("predicted latency, ms")
    axis.set_ylabel("measured latency, ms")
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_budgets(axis: Axes, rows: Sequence[Row], confidence: float) -> None:
    limits = np.array([row["limit_ms"] for row in rows])
    axis.axhline(1, color="0.3", lw=1)
    for kind, (marker, edge, face) in _KINDS.items():
        own = [row for row in rows if row["kind"] == kind]
        label = "as predicted" if kind == "as predicted" else f"confidence {confidence:g}"
        x, y = [row["limit_ms"] for row in own], [row["measured_ms"] / row["limit_ms"] for row in own]
        axis.plot(x, y, marker, ms=4.5, mec=edge, mfc=face, ls="", label=label)
    _log(axis, "x", np.array([limits.min(), limits.max()]))
    axis.set_xlabel("latency limit, ms")
    axis.set_ylabel("measured latency / limit")
    axis.legend(frameon=False, fontsize=8, title="budget holds", title_fontsize=8)


def _draw_flops(axis: Axes, pairs: Sequence[dict[str, Any]]) -> None:
    axis.axhline(1, color="0.3", lw=1)
    for number, pair in enumerate(pairs):
        ratios = np.array(pair["ratios"])
        axis.plot(
            np.full(len(ratios), number), ratios, "o", ms=4.5, mfc="none", mec=COLOURS[0], label="a turn" if not number else None
        )
        axis.plot(
            [number - 0.2, number + 0.2],
            [pair["ratio_measured"]] * 2,
            color=COLOURS[0],
            lw=2,
            label="median" if not number else None,
        )
        axis.plot(
            [number], [pair["ratio_predicted"]], "x", ms=7, mew=1.6, color=COLOURS[1], label="predicted" if not number else None
        )
    axis.set_xticks(range(len(pairs)), [f"{pair['flops_budget'] / 1e9:g}" for pair in pairs])
    axis.set_xlabel("FLOPs budget, GFLOPs a pass")
    axis.set_ylabel("latency of the fastest with as much entropy\n/ latency of the optimum by FLOPs")
    axis.legend(frameon=False, fontsize=8)


def _log(axis: Axes, directions: str, ends: np.ndarray) -> None:
    """Logarithmic axes whose ticks are plain numbers."""
    subs = (1.0, 2.0, 5.0) if ends[1] / ends[0] > 5 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    for direction in directions:
        getattr(axis, f"set_{direction}scale")("log")
        own = getattr(axis, f"{direction}axis")
        own.set_major_locator(LogLocator(subs=subs))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())
