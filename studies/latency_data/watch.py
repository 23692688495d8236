"""Latency and energy of language models on a watch: an additive table with a cliff, beside FLOPs and boosted trees.

The makers' program (runq_reallm.c) keeps weights in groups that share a scale: of 64 where width, FFN width and heads × value head
size are all multiples of 64, else of 32, else of 16, one size for the whole file. Its loop for one token is vectorized for 32 and
16 and not for 64, and that for a prompt is quickest at 64. So decoding has a cliff, and a prompt the opposite of one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from hardware_models.condition import Condition, ConditionalPrice
from hardware_models.device import Device
from hardware_models.fit import FitError, assign_folds, fit_error, robust_fit
from hardware_models.flops import Flops
from hardware_models.latency import Latency, LatencyTable, Validated
from hardware_models.workload import Workload, feature_matrix
from studies.latency_data.devices import error_record, rounded_error
from studies.latency_data.hat_file import FOLDS
from studies.latency_data.trees import ADDITIVE, CEILING, scikit_learn
from studies.latency_data.watch_file import DECODED_TOKENS, PROMPT_TOKENS, WATCH_DESIGN, WatchData

_STATE_STEPS = 10
_READ = ("width", "ffn_width", "value_width")
CLIFF = Condition(_READ, multiple_of=64)
"""Where a file's groups are of 64 values: its maps read nothing but multiples of 64."""
_BELOW = Condition(_READ, not_multiple_of=64)
_ODD = Condition(_READ, not_multiple_of=32)


@dataclass(frozen=True)
class PriceModel:
    """What is priced of one column.

    Attributes:
        table: name of the table in the device file.
        column: of the file.
        quantity: what is predicted.
        unit: of it.
        workload: the pass that it is counted for.
        features: kinds of work priced everywhere.
        conditional: kinds of work priced where a condition holds.
        free: those of `features` whose price may be negative.
        what: the column in words.
    """

    table: str
    column: str
    quantity: str
    unit: str
    workload: Workload
    features: tuple[str, ...]
    conditional: tuple[tuple[str, Condition], ...]
    free: tuple[str, ...]
    what: str


_DECODE = Workload("decode", PROMPT_TOKENS + DECODED_TOKENS // 2)
MODELS = (
    PriceModel(
        "first-token",
        "ttft_ms",
        "latency",
        "ms",
        Workload("prefill", PROMPT_TOKENS),
        ("head", "layer", "attention_maps", "ffn_maps"),
        (("maps", _BELOW), ("maps", _ODD)),
        (),
        "time to the first token",
    ),
    PriceModel(
        "token",
        "tpot_ms",
        "latency",
        "ms",
        _DECODE,
        ("pass", "head", "layer", "query_key_width", "maps"),
        (("head", CLIFF), ("maps", CLIFF), ("maps", _ODD)),
        (),
        "time for each decoded token",
    ),
    PriceModel(
        "energy",
        "dynamic_energy_per_token_mj",
        "energy",
        "mJ",
        _DECODE,
        ("pass", "table", "maps"),
        (("maps", CLIFF),),
        ("table",),
        "energy above idle by decoded token",
    ),
)
"""The energy is that of the whole query, its prompt too, by decoded token.

Its window begins when the program is started and is as long as prompt and decoding alone: while the program unpacks the token
embedding, as much of the query lies behind the window. Hence a negative price of that table.
"""

_TREES = {
    f"trees, depth {depth}, {loss}": {
        "max_depth": depth,
        "loss": loss,
        "learning_rate": 0.05,
        "n_estimators": 200,
        "subsample": 0.5,
    }
    for depth in (2, 3)
    for loss in ("squared_error", "absolute_error")
}
"""Boosted trees on the logarithm of the value."""
WITHOUT, BLIND_TREES = "additive, no condition", "trees on columns (ceiling)"


@dataclass(frozen=True)
class Fitted:
    """The prices of a model: those everywhere, those where a condition holds, and what the other state multiplies them by."""

    model: PriceModel
    prices: tuple[float, ...]
    other_state: float

    def table(self, device: str, seen: Validated, error: FitError | None, how: dict[str, Any]) -> LatencyTable:
        """The prices, to six digits, as a table of a device file."""
        model, count = self.model, len(self.model.features)
        digits = [float(f"{price:.6g}") for price in self.prices]
        return LatencyTable(
            device,
            model.table,
            model.workload,
            tuple((name, price) for name, price in zip(model.features, digits, strict=False) if price),
            seen,
            error,
            how=how,
            quantity=model.quantity,
            unit=model.unit,
            conditional=tuple(
                ConditionalPrice(work, price, where)
                for (work, where), price in zip(model.conditional, digits[count:], strict=True)
                if price
            ),
        )


@dataclass(frozen=True)
class MeasuredColumn:
    """The rows of one column that are above 0, with the work of a model for them.

    Attributes:
        data: the file.
        model: what is priced.
    """

    data: WatchData
    model: PriceModel

    @cached_property
    def rows(self) -> np.ndarray:
        """Numbers of the rows."""
        return np.flatnonzero(self.data[self.model.column] > 0)

    @cached_property
    def values(self) -> np.ndarray:
        """Measured values, in the model's unit."""
        return self.data[self.model.column][self.rows]

    @cached_property
    def other(self) -> np.ndarray:
        """Which come from the other state."""
        return self.data.other[self.rows]

    @cached_property
    def work(self) -> np.ndarray:
        """Work of each kind, (rows, kinds): those priced everywhere, then those priced where a condition holds."""
        designs = [self.data.designs[row] for row in self.rows]
        names = (*self.model.features, *(work for work, _ in self.model.conditional))
        work = feature_matrix(designs, self.model.workload, names)
        for place, (_, where) in enumerate(self.model.conditional, len(self.model.features)):
            work[:, place] *= [where.holds(design.blocks[0], design) for design in designs]
        return work

    @cached_property
    def flops(self) -> np.ndarray:
        """FLOPs of the pass with its head, beside a constant, (rows, 2)."""
        tokens = self.model.workload.tokens
        designs = [self.data.designs[row] for row in self.rows]
        gflops = [(Flops(tokens)(design) + Flops(1, head=True)(design) - Flops(1)(design)) / 1e9 for design in designs]
        return np.column_stack([np.ones(len(gflops)), gflops])

    @cached_property
    def described(self) -> np.ndarray:
        """What trees see: the columns of the design, and the state."""
        return np.column_stack([*(self.data[name][self.rows] for name in WATCH_DESIGN), self.other])

    @cached_property
    def groups(self) -> np.ndarray:
        """Whether each condition holds, (rows, 2): trees can hardly find divisibility by themselves."""
        blocks = [(self.data.designs[row].blocks[0], self.data.designs[row]) for row in self.rows]
        return np.array([[float(where.holds(*block)) for where in (CLIFF, _ODD)] for block in blocks])

    def fold(self, seed: int) -> np.ndarray:
        """Number of the fold of each row; rows of one design share it."""
        return assign_folds(len(self.rows), FOLDS, seed, [self.data.designs[row] for row in self.rows])


def fit_with_state(work: np.ndarray, values: np.ndarray, other: np.ndarray, free: Sequence[int] = ()) -> tuple[np.ndarray, float]:
    """Prices by `robust_fit`, and the factor that the other state multiplies all of them by, in turns.

    Args:
        work: of each kind in each row, (n, k).
        values: measured, (n,).
        other: which rows come from the other state, (n,).
        free: kinds whose price may be negative; the others are 0 or more.

    Returns:
        The prices (k,), and the median of measured by predicted over the rows of the other state; 1 if there are none.
    """
    split = np.hstack([work, -work[:, list(free)]])
    factor = 1.0
    for _ in range(_STATE_STEPS if other.any() else 1):
        prices = robust_fit(split, values / np.where(other, factor, 1.0))
        prices[list(free)] -= prices[work.shape[1] :]
        prices = prices[: work.shape[1]]
        if other.any():
            factor = float(np.median(values[other] / np.maximum(work[other] @ prices, 1e-9)))
    return prices, factor


def fit_column(column: MeasuredColumn, rows: np.ndarray | slice = slice(None)) -> Fitted:
    """The model of a column, fitted to some of its rows."""
    free = [column.model.features.index(name) for name in column.model.free]
    prices, factor = fit_with_state(column.work[rows], column.values[rows], column.other[rows], free)
    return Fitted(column.model, tuple(map(float, prices)), factor)


def watch_predictions(column: MeasuredColumn, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, np.ndarray]:
    """PriceModel -> out-of-fold prediction of each row, all on the same folds and all with a factor of the state or its column.

    Models: additive; the same without conditional prices; FLOPs with the output head, alone and with a constant; boosted trees on
    the columns, and on columns, conditions and kinds of work, each with the best of its settings chosen after the fact.
    """
    fold, count = column.fold(seed), len(column.model.features)
    free = [column.model.features.index(name) for name in column.model.free]
    additive: dict[str, tuple[np.ndarray, list[int]]] = {
        ADDITIVE: (column.work, free),
        WITHOUT: (column.work[:, :count], free),
        "FLOPs": (column.flops[:, 1:], []),
        "FLOPs + constant": (column.flops, []),
    }
    found = {name: np.empty(len(column.values)) for name in additive}
    for number in range(FOLDS):
        held = fold == number
        for name, (work, may_be_negative) in additive.items():
            prices, factor = fit_with_state(work[~held], column.values[~held], column.other[~held], may_be_negative)
            least = column.values[~held].min() / 2
            found[name][held] = np.maximum(work[held] @ prices, least) * np.where(column.other[held], factor, 1)
    seen = {CEILING: np.hstack([column.described, column.groups, column.work]), BLIND_TREES: column.described}
    for name, columns in seen.items():
        settings = [_trees(columns, column.values, fold, one, seed) for one in _TREES.values()]
        found[name] = min(settings, key=lambda predicted: float(np.mean(np.abs(predicted / column.values - 1))))
        tick()
    return found


def _trees(columns: np.ndarray, values: np.ndarray, fold: np.ndarray, settings: dict[str, Any], seed: int) -> np.ndarray:
    predicted = np.empty(len(values))
    for number in range(FOLDS):
        held = fold == number
        trees = scikit_learn().GradientBoostingRegressor(**settings, random_state=seed).fit(columns[~held], np.log(values[~held]))
        predicted[held] = np.exp(trees.predict(columns[held]))
    return predicted


def study_watch(data: WatchData, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """The record of one file: the errors of each model, prices, residuals by width and the rows that are furthest off.

    `points`: measured and out-of-fold values of the additive model, for the figure.
    """
    errors, points, by_width, furthest, fits = [], {}, [], [], {}
    for model in MODELS:
        column = MeasuredColumn(data, model)
        found = watch_predictions(column, seed, tick)
        errors += [
            {"table": model.table, "model": name, **error_record(fit_error(predicted, column.values))}
            for name, predicted in found.items()
        ]
        ratio = column.values / found[ADDITIVE]
        by_width += [{"table": model.table, **row} for row in residuals_by_width(data["d_model"][column.rows], ratio)]
        order = np.argsort(-np.abs(np.log(ratio)))[:5]
        furthest += [
            {"table": model.table, "row": int(column.rows[place]) + 1, "measured_by_predicted": float(ratio[place])}
            for place in order
        ]
        fitted = fit_column(column)
        fits[model.table] = {
            "prices": dict(zip(model.features, fitted.prices, strict=False)),
            "conditional_prices": [
                {"work": work, "price": price, "where": where.to_dict()}
                for (work, where), price in zip(model.conditional, fitted.prices[len(model.features) :], strict=True)
            ],
            "other_state": fitted.other_state,
        }
        points[model.table] = {
            "measured": column.values.tolist(),
            "predicted": found[ADDITIVE].tolist(),
            "cliff": column.groups[:, 0].astype(bool).tolist(),
            "width": data["d_model"][column.rows].tolist(),
            "unit": model.unit,
        }
        tick()
    return {
        "file": data.file,
        "sha256": data.sha256,
        "rows": len(data),
        "other_state_rows": data.other_state,
        "cliff_rows": int(MeasuredColumn(data, MODELS[1]).groups[:, 0].sum()),
        "errors": errors,
        "fits": fits,
        "by_width": by_width,
        "furthest": furthest,
        "points": points,
    }


def residuals_by_width(widths: np.ndarray, ratio: np.ndarray) -> list[dict[str, Any]]:
    """For each width its rows, the mean relative error, and the median of measured by predicted."""
    return [
        {
            "width": int(width),
            "rows": int((widths == width).sum()),
            "mape": float(np.mean(np.abs(1 / ratio[widths == width] - 1))),
            "median_ratio": float(np.median(ratio[widths == width])),
        }
        for width in np.unique(widths)
    ]


def watch_device(data: WatchData, seed: int) -> Device:
    """The device file of the watch: three tables, each with the error that ten folds give."""
    tables = []
    for model in MODELS:
        column = MeasuredColumn(data, model)
        fold = column.fold(seed)
        predicted = np.empty(len(column.values))
        for number in range(FOLDS):
            held = fold == number
            part = fit_column(column, ~held)
            predicted[held] = column.work[held] @ np.array(part.prices) * np.where(column.other[held], part.other_state, 1)
        fitted = fit_column(column)
        error = rounded_error(fit_error(predicted, column.values))
        designs = [data.designs[row] for row in column.rows]
        tables.append(fitted.table("pixel-watch-5", Validated.of(designs), error, _how(data, fitted)))
    source = "measured by the makers of nanollmforge.c (Evansika959/nanollmforge.c on GitHub, scripts/sweep/outputs, MIT licence)"
    return Device("pixel-watch-5", tuple(tables), "Google Pixel Watch 5, four threads of its CPU", source)


def _how(data: WatchData, fitted: Fitted) -> dict[str, Any]:
    how: dict[str, Any] = {
        "what": fitted.model.what,
        "data": f"{data.file}, {len(data)} rows, sha256 {data.sha256}",
        "fitted_by": "python -m studies.latency_data",
        "program": "the makers' C program runq_reallm.c, compiled with -O3 -ffast-math; a run each",
        "runtime": "four OpenMP threads",
        "precision": "weights in 8 bits with a scale for each group of 16, 32 or 64 values; activations quantized as they are read",
        "clocks": "the program waits for a cool watch whose greatest clock is not held down",
        "date": "not stated; 2026",
        "state": f"the first {data.other_state} rows come from another state of the watch, in which everything takes "
        f"{fitted.other_state:.2f} times as much; prices are those of the later state, and the factor is fitted beside them",
        "error": "ten folds, the factor of the state fitted in each",
        "assumptions": [
            "All layers of a measured network are alike, and the size of the groups is one for the whole file. Prices are asked of "
            "each block by itself: in a network that mixes blocks, one whose widths are no multiples of 64 really moves all "
            "of it away from the cliff, so that the time of a decoded token is predicted too long, and that of a prompt too short.",
            f"Prompts have about {PROMPT_TOKENS} tokens, {DECODED_TOKENS} are decoded; lengths other than these were not measured.",
            "Their layers have four norms; ours have two. A norm is no kind of work of its own here.",
        ],
    }
    if fitted.model.quantity == "energy":
        how["assumptions"].append(
            "The energy is that of the whole query, prompt included, by decoded token. Its window begins when the program is "
            "started and is no longer than prompt and decoding, so that reading the token embedding displaces a part of the query: "
            "hence the negative price. With the measured times of prompt and decoding in place of kinds of work the mean error is "
            "20 %, too: what is left is the measurement."
        )
    return how


def score(data: WatchData, device: Device) -> list[dict[str, Any]]:
    """How near each table of a device file that predicts a column of the file comes to its rows.

    The first table for a quantity and phase counts: a latency of prefill is compared with the time to the first token, one of
    decoding with the time for a token, an energy with the energy. Rows beyond what the table was validated on are predicted too,
    and counted. A measured value of 0 has no relative error; its row is left out, and counted. `scaled` is the error once all
    predictions are multiplied by the median of measured by predicted: what is left if the device was in another state. Rows that
    are known to come from another state than the rest are left out and counted, too.
    """
    whole, data, scores = len(data), data.select(~data.other), []
    for model in MODELS:
        of_column = [
            table
            for table in device.tables
            if table.quantity == model.quantity and (model.quantity != "latency" or table.workload.phase == model.workload.phase)
        ]
        if not of_column:
            continue
        table, column = of_column[0], MeasuredColumn(data, model)
        if table.unit != model.unit:
            raise ValueError(
                f"the table {table.name} of {device.name} is in {table.unit}; expected {model.unit}, as {model.column}"
            )
        latency = Latency(table, extrapolate=True)
        designs = [data.designs[row] for row in column.rows]
        predicted = np.array([latency(design) for design in designs])
        if (predicted <= 0).any():
            warnings.warn(
                f"{int((predicted <= 0).sum())} predictions of {latency.name} are not above 0; they count as the least that is",
                stacklevel=2,
            )
            predicted = np.maximum(predicted, predicted[predicted > 0].min())
        ratio = column.values / predicted
        factor = float(np.median(ratio))
        scores.append(
            {
                "table": table.name,
                "column": model.column,
                "rows": len(designs),
                "left_out": whole - len(designs),
                "beyond_validated": sum(bool(table.leaves_out(design)) for design in designs),
                **error_record(fit_error(predicted, column.values)),
                "median_ratio": factor,
                "scaled": error_record(fit_error(factor * predicted, column.values)),
                "by_width": residuals_by_width(data["d_model"][column.rows], ratio),
                "points": {
                    "measured": column.values.tolist(),
                    "predicted": predicted.tolist(),
                    "cliff": column.groups[:, 0].astype(bool).tolist(),
                    "width": data["d_model"][column.rows].tolist(),
                    "unit": model.unit,
                },
            }
        )
    if not scores:
        raise ValueError(f"no table of {device.name} predicts a column of {data.file}; expected latencies or an energy")
    return scores


def without_condition(data: WatchData, model: PriceModel) -> Fitted:
    """The model fitted as if no price depended on the choice."""
    return fit_column(MeasuredColumn(data, replace(model, conditional=())))
