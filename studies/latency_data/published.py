"""Latency models of two devices of which published figures of nine networks are known, and their device files.

`jetson-nano` is the device of the paper (128 tokens), `apple-m1` one that its first author timed (64 to 1,024 tokens). The kinds of
work were fixed before the fit, by what a pass consists of. Networks and figures themselves are in `formulation.published`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from formulation import Architecture, Block
from formulation.published import PUBLISHED_M1_MS, PUBLISHED_MS, PUBLISHED_TOKENS, PUBLISHED_WITH_HEAD, published_designs
from hardware_models.device import Device
from hardware_models.fit import cross_validated, fit_error, nonnegative_fit
from hardware_models.flops import Flops
from hardware_models.latency import LatencyTable, Validated
from hardware_models.workload import Workload, feature_matrix
from studies.latency_data.devices import error_record, priced, rounded_error

NANO_FEATURES = ("maps", "head", "layer")
"""Kinds of work priced at one sequence length: all linear maps, the output head where it is timed, applications of a layer."""
M1_FEATURES = (*NANO_FEATURES, "scores")
"""With up to 1,024 tokens attention scores are no small part; they are a kind of their own there."""

_ALIKE = "no model of layers can come nearer"


@dataclass(frozen=True)
class PublishedFit:
    """A latency model of one device at one length, and how near it comes to the published figures [ms].

    Attributes:
        ms: figure of each network, by its name in `published_designs`.
        tokens: of the query.
        features: the kinds of work that are priced.
    """

    ms: Mapping[str, float]
    tokens: int
    features: tuple[str, ...]

    @cached_property
    def designs(self) -> dict[str, Architecture]:
        """The networks by name."""
        return {name: design for name, design in published_designs().items() if name in self.ms}

    @cached_property
    def values(self) -> np.ndarray:
        """The figures in the order of the networks [ms]."""
        return np.array([float(self.ms[name]) for name in self.designs])

    def workload(self, head: bool) -> Workload:
        """The pass that was timed, of a network with or without its output head."""
        return Workload("prefill", self.tokens, logits="all" if head else "none")

    @cached_property
    def work(self) -> np.ndarray:
        """Work of each kind as each network was timed, (networks, kinds)."""
        return np.vstack(
            [
                feature_matrix([design], self.workload(name in PUBLISHED_WITH_HEAD), self.features)
                for name, design in self.designs.items()
            ]
        )

    @cached_property
    def prices(self) -> np.ndarray:
        """Of a unit of each kind of work [ms], fitted to all figures."""
        return nonnegative_fit(self.work, self.values)

    @cached_property
    def ways(self) -> dict[str, np.ndarray]:
        """Way to predict -> prediction of each network [ms]: by the kinds of work, and by FLOPs without or with a timed head."""
        layers = self._flops(())
        timed = self._flops(PUBLISHED_WITH_HEAD)
        return {
            "fitted": self.work @ self.prices,
            "leave_one_out": self._left_out(self.work),
            "flops_fitted": layers @ nonnegative_fit(layers, self.values),
            "flops_leave_one_out": self._left_out(layers),
            "flops_with_head_leave_one_out": self._left_out(timed),
        }

    def _left_out(self, work: np.ndarray) -> np.ndarray:
        return cross_validated(work, self.values, len(self.values))

    def _flops(self, with_head: tuple[str, ...]) -> np.ndarray:
        counts = [Flops(self.tokens, head=name in with_head)(design) / 1e9 for name, design in self.designs.items()]
        return np.array(counts)[:, None]

    @cached_property
    def errors(self) -> dict[str, dict[str, Any]]:
        """The errors of each way to predict, as JSON."""
        return {way: error_record(fit_error(predicted, self.values)) for way, predicted in self.ways.items()}

    def said(self, way: str) -> str:
        """The mean error of a way to predict, in words."""
        return f"{100 * self.errors[way]['mape']:.1f} %"

    def record(self) -> dict[str, Any]:
        """The fit as JSON: prices, the table of networks, the errors of every way to predict, and what bounds them."""
        return {
            "tokens": self.tokens,
            "prices_ms": dict(zip(self.features, map(float, self.prices), strict=True)),
            "networks": [
                {
                    "name": name,
                    "published_ms": self.ms[name],
                    "with_head": name in PUBLISHED_WITH_HEAD,
                    **{f"{way}_ms": float(predicted[row]) for way, predicted in self.ways.items()},
                }
                for row, name in enumerate(self.designs)
            ],
            "errors": self.errors,
            "floor": alike_floor(self.ms),
        }


def nano_fit() -> PublishedFit:
    """The paper's device."""
    return PublishedFit(PUBLISHED_MS, PUBLISHED_TOKENS, NANO_FEATURES)


def m1_fits() -> list[PublishedFit]:
    """The Apple M1, a fit for each length."""
    lengths = next(iter(PUBLISHED_M1_MS.values()))
    return [PublishedFit({name: ms[tokens] for name, ms in PUBLISHED_M1_MS.items()}, tokens, M1_FEATURES) for tokens in lengths]


def alike_floor(ms: Mapping[str, float]) -> dict[str, Any]:
    """What no model of layers can do better: published figures of networks that have the same work differ.

    Args:
        ms: figure of each network by name.

    Returns:
        The largest set of networks with the same layers that are timed alike, with or without a head; their figures; the one
        prediction with the least mean relative error for them; and that error.
    """
    alike: dict[tuple[tuple[Block, ...], bool], list[str]] = {}
    for name, design in published_designs().items():
        alike.setdefault((design.blocks, name in PUBLISHED_WITH_HEAD), []).append(name)
    names = max(alike.values(), key=len)
    figures = [ms[name] for name in names]
    mape, best = min((float(np.mean([abs(guess - value) / value for value in figures])), guess) for guess in figures)
    return {"networks": names, "published_ms": figures, "best_ms": best, "mape": mape}


def _tables(device: str, fit: PublishedFit, names: Mapping[bool, str], how: dict[str, Any]) -> list[LatencyTable]:
    """The prices of a fit as tables, without and with the output head; the error is the leave-one-out one."""
    floor = alike_floor(fit.ms)
    how = how | {
        "published_ms": dict(fit.ms),
        "fitted_by": "python -m studies.latency_data --published",
        "prices": f"{', '.join(fit.features)}: fixed before the fit; the head counts where it was timed "
        f"({', '.join(PUBLISHED_WITH_HEAD)}, all logits)",
        "mape": f"fitted {fit.said('fitted')}, leave-one-out {fit.said('leave_one_out')} (the error below); FLOPs alone, "
        f"leave-one-out: {fit.said('flops_leave_one_out')}, with the head where it was timed "
        f"{fit.said('flops_with_head_leave_one_out')}",
        "floor": f"{' and '.join(floor['networks'])} have the same work and {' and '.join(map(str, floor['published_ms']))} ms: "
        f"{_ALIKE} than {100 * floor['mape']:.1f} % to them",
    }
    error = rounded_error(fit_error(fit.ways["leave_one_out"], fit.values))
    seen = Validated.of(fit.designs.values())
    prices = priced(fit.features, fit.prices)
    return [LatencyTable(device, name, fit.workload(head), prices, seen, error, how=how) for head, name in names.items()]


def nano_device() -> Device:
    """The paper's device, known by its nine figures alone."""
    how = {
        "program": "not stated for these figures, mean of 16 queries, batch 1; the first author's public code for such timings "
        "(kennethzhao24/latency_test) takes the mean of 16 passes of PyTorch in float32 on one thread, dropout and gradients on",
        "runtime": "not stated",
        "precision": "not stated",
        "clocks": "not stated",
        "date": "not stated; the paper is of 2024, published 2025",
        "assumptions": [
            "The device is not identified: the paper says Jetson Nano GPU 8GB, but the classic Jetson Nano has at most 4 GB; it "
            "may be an Orin Nano. Nothing here follows from a datasheet, and the prices are no property of a product.",
            "That MeRino and OPT were timed without an output head, and the others with all logits, is what the author's code "
            "does; the paper doesn't state it. The table published-logits prices the head as well.",
            "With nine networks a price is a summary of these figures, not a cost of one operation.",
            "The baselines are unshared stacks with FFN width 4E, the three designs share weights within a block.",
        ],
    }
    tables = _tables("jetson-nano", nano_fit(), {False: "published", True: "published-logits"}, how)
    source = "Zhao et al., 'MeRino: Entropy-Driven Design for Generative Language Models on IoT Devices', AAAI 2025, nine latencies"
    return Device("jetson-nano", tuple(tables), "the unidentified device of the paper, called Jetson Nano there", source)


def m1_device() -> Device:
    """The Apple M1 of the paper's first author, known by 45 figures: a table for each length, without and with the head."""
    how = {
        "program": "kennethzhao24/latency_test on GitHub: torch.utils.benchmark, mean of timeit(16), batch 1, all token ids 0",
        "runtime": "PyTorch on one thread of the CPU, dropout on, gradients not switched off",
        "precision": "float32",
        "clocks": "not stated",
        "date": "not stated; published with the code of a paper of 2025",
        "assumptions": [
            "MeRino and OPT are timed without an output head, the others with all logits; tables called logits-… price it as well.",
            "A table holds for its number of tokens. With nine networks a price is a summary of these figures, not a cost of one "
            "operation, and where GPT-2 takes over twice as long as Cerebras-GPT of ten of its twelve layers (1,024 tokens), "
            "something else than the layers decides.",
            "The baselines are unshared stacks with FFN width 4E, the three designs share weights within a block. Their unshared "
            "forms are named in the code and take the same time.",
        ],
    }
    tables: list[LatencyTable] = []
    for fit in m1_fits():
        tables += _tables("apple-m1", fit, {False: f"hidden-{fit.tokens}", True: f"logits-{fit.tokens}"}, how)
    source = "published by Y. Zhao, first author of MeRino (AAAI 2025), in kennethzhao24/latency_test on GitHub"
    return Device("apple-m1", tuple(tables), "Apple M1, one thread of its CPU", source)
