"""Figure of the calibration: how each choice moves the rank correlation and the published designs' distance from the optimum."""

from __future__ import annotations

from typing import Any

from formulation import PUBLISHED

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_TITLES = {"rho": "ρ = (σ/ε)²", "attention": "α₁ (α₂ = 1 − α₁)", "beta": "β", "mean": "mean width"}


def calibration_figure(record: dict[str, Any]) -> Any:
    """A column for each choice: above, mean Spearman on each text; below, what the published designs fall short of the optimum."""
    from matplotlib.figure import Figure

    inverse, texts = record["inverse_optimization"]["profiles"], record["profiles"]
    rows = 2 if texts else 1
    figure = Figure(figsize=(12, 2.9 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, len(inverse), squeeze=False, sharey="row")
    default = {**record["default"], "attention": record["default"]["alpha"][0]}
    for column, (axis, lines) in enumerate(inverse.items()):
        positions = list(range(len(lines)))
        labels = [line["value"] if isinstance(line["value"], str) else f"{line['value']:.3g}" for line in lines]
        place = next(i for i, line in enumerate(lines) if line["value"] == default[axis])
        for row in range(rows):
            panel = panels[row, column]
            panel.axvline(place, color="0.6", linestyle=":", linewidth=1.2)
            panel.set_xticks(positions, labels, rotation=60, fontsize=7)
            panel.grid(axis="y", alpha=0.3)
        if texts:
            for (name, profile), colour in zip(texts.items(), _COLOURS, strict=False):
                panels[0, column].plot(
                    positions, [line["mean"] for line in profile[axis]], "o-", color=colour, markersize=3, label=name
                )
        for number, (name, colour) in enumerate(zip(PUBLISHED, _COLOURS, strict=False)):
            panels[-1, column].plot(
                positions, [100 * line["losses"][number] for line in lines], "o-", color=colour, markersize=3, label=name
            )
        panels[-1, column].set_xlabel(_TITLES[axis])
    panels[-1, 0].set_ylabel("below the optimum [%]")
    panels[-1, 0].legend(fontsize=8)
    if texts:
        panels[0, 0].set_ylabel("mean Spearman over groups")
        panels[0, 0].legend(fontsize=8)
    return figure
