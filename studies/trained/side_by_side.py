"""Designs trained side by side on equal terms: who takes part, what their losses come to over the seeds, and the figure."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from formulation import Architecture, EffectiveEntropy
from formulation.command.words import text_table
from formulation.records.rows import Row
from hardware_models import Flops, Params


@dataclass(frozen=True)
class Candidate:
    """A design that takes part, the name under which it does, and what else its record tells."""

    name: str
    architecture: Architecture
    extra: Mapping[str, Any] = field(default_factory=dict)


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Each design once, under all its names."""
    named: dict[Architecture, Candidate] = {}
    for one in candidates:
        other = named.get(one.architecture)
        named[one.architecture] = (
            one if other is None else Candidate(f"{other.name}, {one.name}", one.architecture, {**one.extra, **other.extra})
        )
    return list(named.values())


def records_of(candidates: Sequence[Candidate], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A record for each design: its costs, its held-out losses by seed, and their mean difference to the first design's.

    - `losses`: by seed, of the runs that ended, nat per token; `diverged` counts those that did not
    - `loss`: mean over seeds; `loss_sd` the standard deviation (None with one seed)
    - `difference`: mean over the seeds that both have of loss − loss of the first design; `difference_sd` likewise

    A design of which a run diverged has no mean, or it would be that of its lucky seeds: loss, perplexity and difference are None.
    FLOPs are those of the training sequence, the head left out. Designs that no row is about have no record; ValueError if the
    first has none.
    """
    losses: dict[Architecture, dict[int, float]] = {}
    diverged: Counter[Architecture] = Counter()
    for row in rows:
        design = Architecture.from_dict(row["architecture"])
        own = losses.setdefault(design, {})
        if "error" in row:
            diverged[design] += 1
        else:
            own[row["plan"]["seed"]] = row["held_out_loss"]
    first = candidates[0].architecture
    if first not in losses:
        raise ValueError(f"no run of {candidates[0].name!r} has ended, and all others are compared with it")
    records = []
    for one in candidates:
        design = one.architecture
        if design not in losses:
            continue
        own = losses[design]
        ended = list(own.values()) if not diverged[design] else []
        differences = (
            [own[seed] - loss for seed, loss in losses[first].items() if seed in own] if ended and not diverged[first] else []
        )
        records.append(
            {
                "design": one.name,
                "blocks": str(design),
                "shared": design.shared,
                "entropy": EffectiveEntropy()(design),
                "flops": Flops(design.positions)(design),
                "params": Params()(design),
                **one.extra,
                "losses": {str(seed): own[seed] for seed in sorted(own)},
                "diverged": diverged[design],
                "loss": mean(ended) if ended else None,
                "loss_sd": _spread(ended),
                "perplexity": float(np.exp(mean(ended))) if ended else None,
                "difference": mean(differences) if differences else None,
                "difference_sd": _spread(differences),
            }
        )
    return records


def earlier(summary: Path, terms: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary holds that was made on the same terms (each of its entries as in `terms`); nothing if there isn't one.

    So a study that is run part by part ends with the summary of all its parts.
    """
    if not summary.is_file():
        return {}
    record = json.loads(summary.read_text(encoding="utf-8"))
    same = all(record.get(name) == json.loads(json.dumps(value)) for name, value in terms.items())
    return record if same else {}


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def table_text(records: Sequence[dict[str, Any]]) -> str:
    """The summary for people."""

    def with_spread(value: float | None, spread: float | None, form: str) -> str:
        if value is None:
            return "-"
        return format(value, form) + ("" if spread is None else f" ± {spread:.4f}")

    header = ("design", "blocks", "entropy", "GFLOPs", "M params", "held-out loss", "perplexity", "loss − first")
    lines = [
        (
            record["design"],
            record["blocks"],
            f"{record['entropy']:,.0f}",
            f"{record['flops'] / 1e9:.3f}",
            f"{record['params'] / 1e6:.3f}",
            f"{record['diverged']} diverged" if record["diverged"] else with_spread(record["loss"], record["loss_sd"], ".4f"),
            with_spread(record["perplexity"], None, ".2f"),
            with_spread(record["difference"], record["difference_sd"], "+.4f"),
        )
        for record in records
    ]
    return text_table(header, lines, left={0, 1})


def figure_of(groups: Mapping[str, Sequence[dict[str, Any]]]) -> Any:
    """Held-out loss of every run, a line of dots for each design, the mean as a bar; a panel for each group of records."""
    from matplotlib.figure import Figure

    heights = [len(records) for records in groups.values()]
    figure = Figure(figsize=(8, 1.0 + 0.7 * len(groups) + 0.42 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=False, height_ratios=[height + 0.5 for height in heights])[:, 0]
    for axes, (title, records) in zip(panels, groups.items(), strict=True):
        for place, record in enumerate(records):
            own = list(record["losses"].values())
            axes.plot(own, [place] * len(own), "o", color="#0072B2", alpha=0.6, label="one seed" if place == 0 else None)
            if record["diverged"]:
                axes.text(
                    0.5, place, f"{record['diverged']} diverged", transform=axes.get_yaxis_transform(), va="center", fontsize=8
                )
            else:
                axes.plot([record["loss"]] * 2, [place - 0.25, place + 0.25], color="black", label="mean" if place == 0 else None)
        axes.set_yticks(
            range(len(records)),
            [
                f"{textwrap.fill(r['design'], 48)}\n{r['params'] / 1e6:.2f} M parameters, {r['flops'] / 1e9:.2f} GFLOPs"
                for r in records
            ],
            fontsize=8,
        )
        axes.set_ylim(len(records) - 0.5, -0.5)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[-1].set_xlabel("held-out loss after equal tokens [nat per token]")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, fontsize=8)
    return figure
