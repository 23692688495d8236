"""The figure of the quantization study, as the paper's figure 6: what is left of the score, and beside it the size on disk."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.palette import COLOURS

_PARTS = {"embedding": "embedding and head", "positions": "positions", "layers": "layers", "rest": "else; OpenVINO: all"}
"""Parts of a file from left to right, and their names."""


def draw_quantization(records: list[dict[str, Any]]) -> Figure:
    """Draw the summary of the study: a line of panels for each network; score (higher is better), perplexity, size."""
    columns = ["size", "perplexity", *(["accuracy"] if records[0]["variants"][0]["mean_accuracy"] is not None else [])]
    heights = [len(record["variants"]) for record in records]
    figure = Figure(figsize=(3.1 * len(columns) + 2.4, 0.27 * sum(heights) + 1.2 * len(records) + 0.3), layout="constrained")
    grid = figure.subplots(len(records), len(columns), squeeze=False, height_ratios=heights)
    for record, axes in zip(records, grid, strict=True):
        for column, axis in zip(columns, axes, strict=True):
            {"size": _draw_size, "perplexity": _draw_perplexity, "accuracy": _draw_accuracy}[column](axis, record["variants"])
            axis.set_yticks(range(len(record["variants"])), [one["variant"] for one in record["variants"]], fontsize=8)
            axis.set_ylim(len(record["variants"]) - 0.4, -0.6)
            axis.tick_params(axis="x", labelsize=8)
            axis.tick_params(labelleft=axis is axes[0])
            axis.grid(alpha=0.3, axis="x")
        axes[0].set_title(record["model"], fontsize=9, loc="left")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _draw_size(axis: Axes, variants: list[dict[str, Any]]) -> None:
    """Megabytes of the whole file, by part where the file tells; a graph's size is one bar."""
    left = [0.0] * len(variants)
    shades = dict(zip(_PARTS, (COLOURS[0], "0.35", COLOURS[1], "0.75"), strict=True))
    for part, name in _PARTS.items():
        sizes = [_part(one["bytes"], part) / 1e6 for one in variants]
        axis.barh(range(len(variants)), sizes, left=left, height=0.65, color=shades[part], label=name)
        left = [before + size for before, size in zip(left, sizes, strict=True)]
    axis.set_xlabel("size on disk [MB]", fontsize=8)


def _part(sizes: dict[str, int], part: str) -> int:
    known = sum(sizes.get(name, 0) for name in _PARTS)
    return sizes["file"] - known if part == "rest" else sizes.get(part, 0)


def _draw_perplexity(axis: Axes, variants: list[dict[str, Any]]) -> None:
    """Token perplexity on the first text; a line marks float32's."""
    name = next(iter(variants[0]["texts"]))
    _draw_score(axis, [one["texts"][name]["token_perplexity"] for one in variants])
    axis.set_xlabel(f"perplexity, {name}", fontsize=8)


def _draw_accuracy(axis: Axes, variants: list[dict[str, Any]]) -> None:
    """Mean zero-shot accuracy, in points above float32's; the band is the standard error of float32's own."""
    first, error = variants[0]["mean_accuracy"], variants[0]["mean_accuracy_stderr"]
    known = [None if one["mean_accuracy"] is None else 100 * (one["mean_accuracy"] - first) for one in variants]
    _draw_score(axis, known)
    stated = ""
    if error is not None:
        axis.axvspan(-100 * error, 100 * error, color="0.9", zorder=0)
        stated = f"\n({100 * first:.1f} %; band: its standard error)"
    axis.set_xlabel(f"zero-shot accuracy, mean of {len(variants[0]['accuracy'])},\npoints above float32's{stated}", fontsize=8)


def _draw_score(axis: Axes, scores: list[float | None]) -> None:
    known = [(score, place) for place, score in enumerate(scores) if score is not None]
    axis.plot(*zip(*known, strict=True), ls="", marker="o", ms=4.5, color=COLOURS[0])
    if scores[0] is not None:
        axis.axvline(scores[0], color="0.5", lw=0.8)
    axis.margins(x=0.12)
