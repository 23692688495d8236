"""A latency model of the paper's device, fitted to the nine latencies that it publishes, and its device file.

Here is the choice of kinds of work, judged by leaving networks out, and the floor that equal layers set. The nine networks and
figures themselves are in `formulation.published`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import Block
from formulation.published import PUBLISHED_MS, PUBLISHED_TOKENS, published_designs
from hardware_models.device import Device
from hardware_models.fit import cross_validated, fit_error, nonnegative_fit
from hardware_models.flops import Flops
from hardware_models.latency import LatencyTable, Validated
from hardware_models.workload import FEATURES, Workload, feature_matrix
from studies.latency_data.devices import error_record, priced, rounded_error

_LARGEST_SET = 3


@dataclass(frozen=True)
class PublishedFit:
    """A latency model of the paper's device and how near it comes to the nine published figures [ms].

    Attributes:
        features: of the set with the least leave-one-out MAPE among `tried` sets of at most three kinds of work.
        prices: of the set with the least leave-one-out MAPE among `tried` sets of at most three kinds of work.
        best: those sets with their leave-one-out MAPE, best first.
        fitted: predictions by the fit to all nine.
        left_out: each network by a fit of the same set to the eight others.
        nested: the same with the set, too, chosen from the eight others: what a tenth network would see.
        flops_fitted: the same for FLOPs alone (`Flops`, head left out as in the paper's own figures).
        flops_left_out: the same for FLOPs alone (`Flops`, head left out as in the paper's own figures).
    """

    features: tuple[str, ...]
    prices: np.ndarray
    tried: int
    best: list[tuple[tuple[str, ...], float]]
    fitted: np.ndarray
    left_out: np.ndarray
    nested: np.ndarray
    flops_fitted: np.ndarray
    flops_left_out: np.ndarray


def fit_published(tick: Callable[[], Any] = lambda: None) -> PublishedFit:
    """Every set of at most three kinds of work, priced by the nine published latencies; see `PublishedFit`.

    Kinds of work that are proportional over the nine are one kind, as data cannot distinguish them. Of sets as good as each other
    the smallest counts, so that a kind whose price is 0 is not there.
    """
    designs, values = list(published_designs().values()), np.array([float(PUBLISHED_MS[name]) for name in published_designs()])
    work = feature_matrix(designs, Workload("prefill", PUBLISHED_TOKENS), tuple(FEATURES))
    names, work = _independent(tuple(FEATURES), work)
    sets = [chosen for size in range(1, _LARGEST_SET + 1) for chosen in itertools.combinations(range(len(names)), size)]
    ranked = sorted(((_mape_left_out(work[:, chosen], values), number) for number, chosen in enumerate(sets)))
    tick()
    best = sets[ranked[0][1]]
    nested = np.empty(len(values))
    for out in range(len(values)):
        others = np.arange(len(values)) != out
        _, number = min((_mape_left_out(work[others][:, chosen], values[others]), number) for number, chosen in enumerate(sets))
        chosen = sets[number]
        nested[out] = work[out, chosen] @ nonnegative_fit(work[others][:, chosen], values[others])
        tick()
    prices = nonnegative_fit(work[:, best], values)
    flops = np.array([[Flops(PUBLISHED_TOKENS)(design) / 1e9] for design in designs])
    return PublishedFit(
        tuple(names[place] for place in best),
        prices,
        len(sets),
        [(tuple(names[place] for place in sets[number]), mape) for mape, number in ranked[:10]],
        work[:, best] @ prices,
        cross_validated(work[:, best], values, len(values)),
        nested,
        flops @ nonnegative_fit(flops, values),
        cross_validated(flops, values, len(values)),
    )


def _independent(names: Sequence[str], work: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The kinds of work that are there and not proportional to an earlier one."""
    kept: list[int] = []
    for place in range(len(names)):
        column = work[:, place]
        others = [work[:, earlier] / np.linalg.norm(work[:, earlier]) for earlier in kept]
        if column.any() and not any(np.allclose(column / np.linalg.norm(column), other, rtol=1e-9, atol=0) for other in others):
            kept.append(place)
    return [names[place] for place in kept], work[:, kept]


def _mape_left_out(work: np.ndarray, values: np.ndarray) -> float:
    """Leave-one-out MAPE, rounded so that sets which differ by rounding alone are equal."""
    predicted = cross_validated(work, values, len(values))
    return round(float(np.mean(np.abs(predicted / values - 1))), 9)


def alike_floor() -> dict[str, Any]:
    """What no model of layers can do better: published figures of networks with the same layers differ.

    Returns those networks, their figures, the one prediction with the least mean relative error for them, that error, and what
    it contributes to the MAPE of all nine.
    """
    alike: dict[tuple[Block, ...], list[str]] = {}
    for name, design in published_designs().items():
        alike.setdefault(design.blocks, []).append(name)
    names = max(alike.values(), key=len)
    figures = [PUBLISHED_MS[name] for name in names]
    mape, best = min((float(np.mean([abs(guess - value) / value for value in figures])), guess) for guess in figures)
    return {
        "networks": names,
        "published_ms": figures,
        "best_ms": best,
        "mape": mape,
        "of_the_mape_of_all": mape * len(names) / len(PUBLISHED_MS),
    }


def published_record(fit: PublishedFit) -> dict[str, Any]:
    """The fit as JSON: prices, the table of nine, and the errors of every way to predict."""
    names, measured = list(published_designs()), np.array([float(PUBLISHED_MS[name]) for name in published_designs()])
    ways = {
        "fitted": fit.fitted,
        "leave_one_out": fit.left_out,
        "nested_leave_one_out": fit.nested,
        "flops_fitted": fit.flops_fitted,
        "flops_leave_one_out": fit.flops_left_out,
    }
    return {
        "workload": str(Workload("prefill", PUBLISHED_TOKENS)),
        "prices_ms": dict(zip(fit.features, map(float, fit.prices), strict=True)),
        "sets_tried": fit.tried,
        "best_sets": [{"features": list(features), "leave_one_out_mape": mape} for features, mape in fit.best],
        "networks": [
            {"name": name, "published_ms": PUBLISHED_MS[name], **{f"{way}_ms": float(ms[row]) for way, ms in ways.items()}}
            for row, name in enumerate(names)
        ],
        "errors": {way: error_record(fit_error(predicted, measured)) for way, predicted in ways.items()},
        "floor": alike_floor(),
    }


def published_device(fit: PublishedFit) -> Device:
    """The paper's device, known by its nine figures alone; the error is that of the nested leave-one-out prediction."""
    designs, floor = published_designs(), alike_floor()
    values = np.array([float(PUBLISHED_MS[name]) for name in designs])
    record = published_record(fit)["errors"]

    def said(way: str) -> str:
        return f"{100 * record[way]['mape']:.1f} %"

    how = {
        "published_ms": PUBLISHED_MS,
        "fitted_by": "python -m studies.latency_data --published",
        "program": "not stated; mean of 16 queries, batch 1",
        "runtime": "not stated",
        "precision": "not stated",
        "clocks": "not stated",
        "date": "not stated; the paper is of 2024, published 2025",
        "prices": f"the set of at most {_LARGEST_SET} kinds of work with the least leave-one-out MAPE, of {fit.tried} sets tried",
        "mape": f"fitted {said('fitted')}, leave-one-out {said('leave_one_out')}, with the set chosen inside each fold "
        f"{said('nested_leave_one_out')} (the error below); FLOPs alone: {said('flops_fitted')} and {said('flops_leave_one_out')}",
        "floor": f"{', '.join(floor['networks'])} have the same layers and {', '.join(map(str, floor['published_ms']))} ms: no "
        f"model of layers can come nearer than {100 * floor['mape']:.1f} % to them",
        "assumptions": [
            "The device is not identified: the paper says Jetson Nano GPU 8GB, but the classic Jetson Nano has at most 4 GB; it "
            "may be an Orin Nano. Nothing here follows from a datasheet, and the prices are no property of a product.",
            "Whether all logits or the last were computed is not stated; no price depends on it.",
            "With nine networks a price is a summary of these figures, not a cost of one operation: width and FFN width may stand "
            "for traffic of activations, for launches of kernels or for both.",
            "The baselines are unshared stacks with FFN width 4E, the three designs share weights within a block.",
        ],
    }
    table = LatencyTable(
        "jetson-nano",
        "published",
        Workload("prefill", PUBLISHED_TOKENS),
        priced(fit.features, fit.prices),
        Validated.of(designs.values()),
        rounded_error(fit_error(fit.nested, values)),
        how=how,
    )
    source = "Zhao et al., 'MeRino: Entropy-Driven Design for Generative Language Models on IoT Devices', AAAI 2025, nine latencies"
    return Device("jetson-nano", (table,), "the unidentified device of the paper, called Jetson Nano there", source)
