"""The figure of the zero-shot study: average accuracy of published and measured systems against parameters and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from studies.palette import COLOURS
from studies.zero_shot.levels import NORMAL_95
from studies.zero_shot.table import ScoreLine

_STYLES: dict[str, dict[str, Any]] = {
    "baselines, published": {"fmt": "s", "color": COLOURS[7]},
    "MeRino, published": {"fmt": "o", "color": COLOURS[1]},
    "measured": {"fmt": "D", "color": COLOURS[0], "mfc": "white"},
}
"""Marker and colour by kind: they differ in shape, so that grey print loses nothing."""


def draw_scores(lines: Sequence[ScoreLine], chance: float, best_constant: float | None) -> Figure:
    """Draw the mean of the twelve accuracies with its 95 % interval; lines without all twelve are left out.

    Args:
        chance: mean accuracy of guessing; best_constant that of the best constant answer of each task, where it is known.
    """
    drawn = [line for line in lines if line.mean is not None]
    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, drawn, [line.parameters / 1e6 for line in drawn], "parameters [million]")
    _draw(right, drawn, [line.flops / 1e9 for line in drawn], "FLOPs of 1,024 tokens [billion]")
    for axes in (left, right):
        axes.axhline(chance, color="black", ls=":", lw=1, label="guessing")
        if best_constant is not None:
            axes.axhline(best_constant, color="black", ls="--", lw=1, label="the best constant answer of each task")
    left.set_ylabel("mean accuracy on the twelve tasks, 95 % interval")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, lines: Sequence[ScoreLine], sizes: Sequence[float], title: str) -> None:
    for kind, style in _STYLES.items():
        own = [(line, size) for line, size in zip(lines, sizes, strict=True) if _kind(line) == kind]
        if not own:
            continue
        means = [line.mean or 0.0 for line, _ in own]
        spans = [NORMAL_95 * (line.error or 0.0) for line, _ in own]
        axes.errorbar([size for _, size in own], means, spans, capsize=2, elinewidth=0.8, ms=6, label=kind, **style)
        for line, size in own:
            axes.annotate(
                line.name,
                (size, line.mean or 0.0),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7.5,
                rotation=35,
                color="0.25",
            )
    axes.set_xscale("log")
    # Three labels a decade, where there are few decades.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(sizes) < 50 * min(sizes) else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(title)
    axes.grid(alpha=0.3)
    axes.margins(x=0.17)


def _kind(line: ScoreLine) -> str:
    if line.measured:
        return "measured"
    return "MeRino, published" if line.name.startswith("MeRino") else "baselines, published"
