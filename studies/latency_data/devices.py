"""Device files made of latencies of HAT's format: a table of decoding and one of prefill, with what was measured and assumed.

Here are the designs that rows stand for in our terms, the prices fitted to them, and the words beside them. The format and the
additive model are in `studies.latency_data.hat_file`; the device of the paper's nine figures is in
`studies.latency_data.published`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from formulation import Architecture, Block
from hardware_models.device import Device
from hardware_models.fit import FitError, cross_validated, fit_error
from hardware_models.latency import LatencyTable, Validated
from hardware_models.workload import Workload, feature_matrix
from studies.latency_data.hat_file import (
    FOLDS,
    KNOWN,
    UNSTEADY,
    Facts,
    LatencyData,
    by_file_order,
    fit_additive,
    measurement_faults,
)

DECODE_FEATURES = ("pass", "head", "layer", "attention_maps", "ffn_maps")
"""Kinds of work priced by the decoder columns. With two widths in the data, more kinds could not be distinguished."""
PREFILL_FEATURES = ("layer", "attention_maps", "ffn_maps")
"""Kinds of work priced by the encoder columns: always six layers, so that what a pass costs cannot be told from what layers do."""


def as_design(width: float, ffn_width: float, layers: float, vocabulary: int) -> Architecture:
    """A stack of HAT's layers as a design of ours: layers that share no weights, with the same ΣF, the head on the width itself.

    The files hold the average F alone; every kind of work that is priced depends on ΣF and not on how the layers divide it.
    """
    depth = int(layers)
    less, wider = divmod(round(ffn_width * depth), depth)
    blocks = [Block(int(width), less, depth - wider)] + ([Block(int(width), less + 1, wider)] if wider else [])
    return Architecture(tuple(blocks), False, int(width), vocabulary)


@dataclass(frozen=True)
class _Side:
    """What one side's columns say in our terms: a workload, the designs, and the latency of one pass [ms]."""

    workload: Workload
    features: tuple[str, ...]
    designs: list[Architecture]
    pass_ms: np.ndarray

    @property
    def work(self) -> np.ndarray:
        return feature_matrix(self.designs, self.workload, self.features)


def _side(data: LatencyData, side: str) -> _Side:
    parts = (data[f"{side}_{name}"] for name in ("embed_dim", "ffn_embed_dim_avg", "layer_num"))
    facts = data.facts
    designs = [as_design(width, ffn_width, layers, facts.vocabulary) for width, ffn_width, layers in zip(*parts, strict=True)]
    if side == "encoder":
        return _Side(Workload("prefill", facts.tokens, 1), PREFILL_FEATURES, designs, data.latency_ms(side))
    return _Side(Workload("decode", _cached(facts), facts.beam), DECODE_FEATURES, designs, data.latency_ms(side) / facts.steps)


def _cached(facts: Facts) -> int:
    """Tokens in the cache on average: there are 0 to steps − 1."""
    return max(1, facts.steps // 2)


def hat_device(data: LatencyData, seed: int) -> Device:
    """The device of a file of HAT's format: a table of decoding, fitted to the decoder columns, one of prefill, to the encoder's.

    Both are fitted to the rows that no rule flags, and their errors are out of fold on those; what the errors on all rows are,
    how the encoder columns bear out the decoder's prices (`encoder_check`), and what is assumed, stands in `how`.
    """
    facts = data.facts
    faulty = np.logical_or.reduce(list(measurement_faults(data).values()))
    check = encoder_check(data.select(~faulty))
    tables = []
    for side in ("decoder", "encoder"):
        part, whole = _side(data.select(~faulty), side), _side(data, side)
        groups = data.select(~faulty).designs
        predicted = cross_validated(part.work, part.pass_ms, FOLDS, seed, groups, fit_additive)
        everywhere = cross_validated(whole.work, whole.pass_ms, FOLDS, seed, data.designs, fit_additive)
        prices = fit_additive(part.work, part.pass_ms)
        all_rows, elsewhen = fit_error(everywhere, whole.pass_ms), by_file_order(part.work, part.pass_ms)
        how = {
            **_how_measured(data, side),
            "rows": f"{len(part.designs):,} of {len(data):,}; the others are flagged as measurement faults, either because the "
            f"standard deviation of their runs is above {100 * UNSTEADY:g} % of the mean, or because the encoder did fewer than "
            "half the FLOP/s of the decoder of the same row",
            "error_on_all_rows": _in_short(all_rows),
            "error_on_other_occasions": f"{_in_short(elsewhen)} (a fold for each tenth of the file, in its order)",
            "encoder_check": _check_sentence(check),
            "assumptions": _assumptions(facts, side),
        }
        tables.append(
            LatencyTable(
                facts.name,
                "hat-decode" if side == "decoder" else "hat-prefill",
                part.workload,
                priced(part.features, prices),
                Validated.of(part.designs),
                rounded_error(fit_error(predicted, part.pass_ms)),
                how=how,
            )
        )
    return Device(facts.name, tuple(tables), facts.description, facts.source, facts.ram_bytes)


def encoder_check(data: LatencyData) -> dict[str, float]:
    """How the prices of layers that the decoder columns give agree with the encoder columns, whatever their scale.

    An encoder is priced as its six layers in a decoding step, without what a pass and the head cost, and brought to the measured
    scale by one factor; what remains is how latency depends on width and FFN width. Beside it the encoder's own out-of-fold fit.
    """
    decoder, encoder = _side(data, "decoder"), _side(data, "encoder")
    prices = dict(zip(decoder.features, fit_additive(decoder.work, decoder.pass_ms), strict=True))
    own = [name for name in decoder.features if name not in ("pass", "head")]
    step = feature_matrix(encoder.designs, decoder.workload, own) @ np.array([prices[name] for name in own])
    factor = float(fit_additive(step[:, None], encoder.pass_ms)[0])
    scaled = fit_error(factor * step, encoder.pass_ms)
    itself = fit_error(cross_validated(encoder.work, encoder.pass_ms, FOLDS, fit=fit_additive), encoder.pass_ms)
    return {
        "factor": factor,
        "mape": scaled.mape,
        "within_10": scaled.within_10,
        "spearman": scaled.spearman,
        "own_fit_mape": itself.mape,
        "own_fit_spearman": itself.spearman,
    }


def _in_short(error: FitError) -> str:
    return f"MAPE {100 * error.mape:.1f} %, within 10 % {100 * error.within_10:.1f} %"


def _check_sentence(check: dict[str, float]) -> str:
    return (
        f"the decoder's prices of layers, times {check['factor']:.3g}, predict the encoder columns with a MAPE of "
        f"{100 * check['mape']:.1f} % and a rank correlation of {check['spearman']:.2f}; a fit to these columns themselves has "
        f"{100 * check['own_fit_mape']:.1f} % and {check['own_fit_spearman']:.2f}"
    )


def _how_measured(data: LatencyData, side: str) -> dict[str, Any]:
    spread = data[f"latency_std_{side}"] / data[f"latency_mean_{side}"]
    median, most = np.quantile(spread, (0.5, 0.95))
    return {
        "data": f"{data.file}, sha256 {data.sha256}",
        "fitted_by": "python -m studies.latency_data",
        "program": data.facts.measured["program"],
        "standard_deviation": f"of single runs by their mean: median {100 * median:.2g} %, 95 % of rows below {100 * most:.2g} %",
        **{name: data.facts.measured[name] for name in ("runtime", "precision", "clocks", "date")},
    }


def _assumptions(facts: Facts, side: str) -> list[str]:
    """What has to hold for a table of one side to mean what it says."""
    known = facts in KNOWN.values()
    lengths = f"{facts.tokens} tokens encoded once, then {facts.steps} steps of a beam of {facts.beam} with a cache"
    common = [
        f"The files state no lengths; those of the workload are what HAT's latency_dataset.py sets for WMT ({lengths})."
        if known
        else f"The file states no lengths; those of the workload were given to the command that fitted it ({lengths}).",
        "Q, K and V are 512 wide in HAT, whatever the width of the layer: at width 512 its self-attention is that of our layers, "
        "at 640 ours does a quarter more work than what was priced.",
        "HAT's layers share no weights; nothing is known of the latency of shared ones.",
        "Rows that follow each other were measured on one occasion, and occasions differ"
        + (" (by a quarter in part of the TITAN Xp's rows)" if known else "")
        + ". Folds drawn at random mix them, so the error is that of a network measured on one of the same occasions; "
        "error_on_other_occasions is for others.",
    ]
    if side == "encoder":
        return [
            *common,
            "There is no output head, and always six layers: the whole of the latency is priced as work of layers. The dependence "
            "on depth is assumed, not seen; the table hat-decode has a measured one.",
        ]
    share = "a thirtieth" if facts.steps == 30 else f"1/{facts.steps}"
    return [
        *common,
        f"A step is {share} of the decoder column; its cache holds {_cached(facts)} tokens on average.",
        "HAT's decoder layers have a cross-attention besides: its cost stays in the prices of layers and attention maps, which are "
        "too high for ours by as much.",
        f"The output head is that of a vocabulary of {facts.vocabulary:,}, as wide as the layers; with the two widths in the data "
        "its price also holds whatever else of a pass grows with the width.",
    ]


def priced(features: Sequence[str], prices: np.ndarray) -> tuple[tuple[str, float], ...]:
    """The kinds of work with a price above 0, to six digits, as a table of latencies holds them."""
    return tuple((name, float(f"{price:.6g}")) for name, price in zip(features, prices, strict=True) if price > 0)


def rounded_error(error: FitError) -> FitError:
    """The error to five digits, as a device file holds it."""

    def short(value: float) -> float:
        return float(f"{value:.5g}")

    return FitError(
        error.networks,
        short(error.mape),
        short(error.within_10),
        short(error.spearman),
        short(error.rmse),
        tuple((probability, short(ratio)) for probability, ratio in error.quantiles),
    )


def error_record(error: FitError) -> dict[str, Any]:
    """The error as JSON, without the quantiles of its ratios."""
    record = asdict(error)
    del record["quantiles"]
    return record
