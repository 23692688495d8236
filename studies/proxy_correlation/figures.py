"""Figures of the proxy study: every proxy against perplexity (the paper's figure 3), and the coefficients with their intervals."""

from __future__ import annotations

import textwrap
from typing import Any

from formulation import Architecture
from studies.trained.sample import UNIFORM

_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_MARKERS = ("o", "s", "^")
_NAMES = {"spearman": "Spearman's ρ", "kendall": "Kendall's τ"}


def scatter_figure(
    points: dict[str, list[Architecture]],
    values: dict[Architecture, dict[str, float]],
    perplexity: dict[Architecture, float],
    groups: dict[str, Any],
    units: dict[str, str],
) -> Any:
    """A panel for each proxy: negative perplexity over the proxy, a mark for each design, its group by colour and shape.

    Args:
        units: of the proxies that have one.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    proxies = list(next(iter(values.values())))
    columns = min(4, len(proxies))
    rows = -(-len(proxies) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel in panels[len(proxies) :]:
        panel.set_visible(False)
    for panel, proxy in zip(panels, proxies, strict=False):
        for (group, designs), colour, marker in zip(points.items(), _COLOURS, _MARKERS, strict=True):
            if not designs:
                continue
            panel.plot(
                [values[design][proxy] for design in designs],
                [-perplexity[design] for design in designs],
                marker,
                color=colour,
                markersize=4,
                alpha=0.7,
                linestyle="none",
                label=group,
            )
        coefficients = groups[UNIFORM].get("correlations", {}).get(proxy)
        if coefficients is not None:
            text = f"ρ {coefficients['spearman']:+.2f}, τ {coefficients['kendall']:+.2f} ({UNIFORM})"
            panel.set_title(text, fontsize=9)
        panel.set_xlabel(_wrapped(f"{proxy} [{units[proxy]}]" if proxy in units else proxy), fontsize=10)
        panel.grid(alpha=0.3)
        if max(values[design][proxy] for design in values) >= 1000:
            panel.xaxis.set_major_formatter(EngFormatter())
    for panel in panels[::columns]:
        panel.set_ylabel("negative perplexity")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def correlation_figure(groups: dict[str, Any]) -> Any:
    """Spearman's and Kendall's coefficient of every proxy, a panel for each group, with 95 % bootstrap intervals.

    A proxy that a group holds equal has none there, and the panel says so.
    """
    from matplotlib.figure import Figure

    shown = {name: record for name, record in groups.items() if "correlations" in record}
    proxies = list(dict.fromkeys(proxy for record in shown.values() for proxy in (*record["correlations"], *record["held"])))
    figure = Figure(figsize=(3.6 * len(shown) + 1.2, 0.42 * len(proxies) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True, sharex=True)[0]
    for panel, (name, record) in zip(panels, shown.items(), strict=True):
        for proxy in record["held"]:
            panel.text(0.05, proxies.index(proxy), "held equal", va="center", fontsize=8, color="0.4")
        for shift, coefficient, colour, marker in (
            (-0.14, "spearman", _COLOURS[0], _MARKERS[0]),
            (0.14, "kendall", _COLOURS[1], _MARKERS[1]),
        ):
            for number, (proxy, one) in enumerate(record["correlations"].items()):
                place = proxies.index(proxy)
                low, high = one[f"{coefficient}_interval"]
                panel.plot([low, high], [place + shift] * 2, color=colour, linewidth=1.5)
                label = _NAMES[coefficient] if number == 0 else None
                panel.plot(one[coefficient], place + shift, marker, color=colour, markersize=5, label=label)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_title(f"{name} ({record['designs'] - record['not_run']} designs)", fontsize=10)
        panel.grid(axis="x", alpha=0.3)
        panel.set_xlabel("rank correlation")
    panels[0].set_yticks(range(len(proxies)), [*map(_wrapped, proxies)])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _wrapped(name: str) -> str:
    """A long name on two lines."""
    return textwrap.fill(name, 28, break_long_words=False)
