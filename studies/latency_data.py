"""Latencies of whole transformers that others measured, held against a model that adds up over layers: HAT's, and the paper's nine.

    python -m studies.latency_data FILE.csv [FILE.csv ...]
    python -m studies.latency_data FILE.csv [FILE.csv ...] --devices hardware_models/devices
    python -m studies.latency_data --published

A file is one of HAT's latency data (Wang et al., ACL 2020), or any of its format: 2,000 encoder-decoder transformers measured on
one device. Out of fold, on the same ten folds: the additive model, FLOPs alone, and boosted trees as the ceiling; with all rows,
and again without those that a stated rule (`measurement_faults`) flags. --published fits the nine latencies that the paper
publishes. Writes results.json, each part under its own key, latency_data.png and latency_published.png, and with --devices the
device files of both. The figures and tables are `studies.latency_data_figures`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import io
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Threads cost more than they save on data of this size.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from tqdm import tqdm

from formulation import PUBLISHED, Architecture, Block
from formulation.report import counted, output_folder, provenance, run_command, save_figure, write_json
from hardware_models.device import Device, write_device
from hardware_models.fit import FitError, assign_folds, cross_validated, fit_error, nonnegative_fit, robust_fit
from hardware_models.flops import Flops
from hardware_models.latency import LatencyTable, Validated
from hardware_models.workload import FEATURES, Workload, feature_matrix
from studies.latency_data_figures import draw_data, draw_published, print_data, print_published

_DESIGN = (
    *("encoder_embed_dim", "encoder_layer_num", "encoder_ffn_embed_dim_avg", "encoder_self_attention_heads_avg"),
    *("decoder_embed_dim", "decoder_layer_num", "decoder_ffn_embed_dim_avg", "decoder_self_attention_heads_avg"),
    *("decoder_ende_attention_heads_avg", "decoder_arbitrary_ende_attn_avg"),
)
_MEASURED = ("latency_mean_encoder", "latency_mean_decoder", "latency_std_encoder", "latency_std_decoder")
COLUMNS = (*_DESIGN, *_MEASURED)
"""Columns of a file: the design (widths, numbers of layers, averages over the layers), and latencies in milliseconds."""
SIDES = ("encoder", "decoder", "sum")
FOLDS = 10
_INNER_FOLDS = 5
_FEWEST = 40
"""Rows of a file, at least: four in a fold."""

TOKENS, STEPS, BEAM = 30, 30, 5
"""What HAT's measuring program does for WMT: encodes 30 tokens once, then decodes 30 steps, with a cache, of a beam of 5."""
_ATTENTION_WIDTH = 512
"""Width of Q, K and V in HAT, whatever the width of the layer."""
_VOCABULARY = 32_768
"""Joined dictionary of WMT'14 English-German, the width of the decoder's output head; not in the files."""

UNSTEADY = 0.1
"""Standard deviation by mean above which repeated runs disagree by more than the 10 % within which a prediction counts as near."""
SLOW = 0.5
"""Share of the decoder's FLOP/s below which the encoder of the same row was slowed by something else."""
_CONTRADICTION = 2.0
"""Ratio of two latencies of one design in one file above which they cannot both be meant."""

_HAT_DEVICES = {
    "raspberrypi": ("raspberry-pi-4", "Raspberry Pi 4, ARM Cortex-A72 CPU", None),
    "xeon": ("xeon", "server CPU Intel Xeon E5-2640", None),
    "titanxp": ("titan-xp", "desktop GPU NVIDIA TITAN Xp, 12 GB", 12e9),
}
"""Part of a file's name -> name of the device, description, bytes of memory where they are known."""
_HAT_SOURCE = (
    "measured by the authors of HAT (Wang et al., 'HAT: Hardware-Aware Transformers for Efficient Natural Language Processing', "
    "ACL 2020); data of mit-han-lab/hardware-aware-transformers, latency_dataset/, MIT licence"
)
DECODE_FEATURES = ("pass", "head", "layer", "attention_maps", "ffn_maps")
"""Kinds of work priced by the decoder columns. With two widths in the data, more kinds could not be told apart."""
PREFILL_FEATURES = ("layer", "attention_maps", "ffn_maps")
"""Kinds of work priced by the encoder columns: always six layers, so that what a pass costs cannot be told from what layers do."""

PUBLISHED_TOKENS = 128
PUBLISHED_MS = {
    "Pythia-70M": 95,
    "Pythia-162M": 243,
    "Cerebras-111M": 185,
    "GPT-2-124M": 213,
    "OPT-125M": 182,
    "OPT-350M": 559,
    "MeRino-52M": 48,
    "MeRino-61M": 77,
    "MeRino-64M": 114,
}
"""Latency of a query of 128 tokens, batch 1, mean of 16, on the paper's Jetson Nano [ms] (MeRino, its tables)."""
_LARGEST_SET = 3

_TREES = {
    f"trees, {leaves} leaves, {loss} error": {
        "learning_rate": rate,
        "max_iter": rounds,
        "max_leaf_nodes": leaves,
        "loss": f"{loss}_error",
    }
    for leaves, rounds, rate in ((4, 400, 0.03), (8, 200, 0.05))
    for loss in ("squared", "absolute")
}
"""Boosted trees on the logarithm of the latency. Deeper ones follow the noise of these data: they come out worse."""
ADDITIVE, CEILING = "additive", "trees (ceiling)"


@dataclass(frozen=True)
class LatencyData:
    """The rows of one file.

    device   name of the device
    file     name of the file, without its folder
    sha256   of the file
    columns  column -> its values, (rows,)
    """

    device: str
    file: str
    sha256: str
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns[_DESIGN[0]])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def designs(self) -> list[tuple[float, ...]]:
        """What tells designs apart; rows of one design always share a fold."""
        return list(zip(*(self[name] for name in _DESIGN), strict=True))

    def latency_ms(self, side: str) -> np.ndarray:
        """Latency of the encoder, the decoder, or both one after the other [ms], (rows,)."""
        if side == "sum":
            return self.latency_ms("encoder") + self.latency_ms("decoder")
        return self[f"latency_mean_{side}"]

    def select(self, rows: np.ndarray) -> LatencyData:
        """Some of the rows."""
        return LatencyData(self.device, self.file, self.sha256, {name: values[rows] for name, values in self.columns.items()})


def read_data(path: Path) -> LatencyData:
    """The rows of a file of HAT's format; more columns than `COLUMNS` are passed over.

    Raises ValueError in one sentence naming file, line and column: for an empty file or too few rows, missing columns, a value
    that is no finite number or out of range, a row that is there twice, and two rows of one design that contradict each other.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is no text in UTF-8; expected a CSV file of HAT's format") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(lines, [])]
    if not header:
        raise ValueError(f"{path.name} is empty; expected a header and a row for each network")
    if missing := [name for name in COLUMNS if name not in header]:
        raise ValueError(
            f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; expected those of HAT's format"
        )
    if repeated := [name for name in COLUMNS if header.count(name) > 1]:
        raise ValueError(f"{path.name} has the column {repeated[0]} twice; expected it once")
    numbers, rows = [], []
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                numbers.append(lines.line_num)
                rows.append(_read_row(f"line {lines.line_num} of {path.name}", header, cells))
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} of {path.name} is no CSV ({error})") from None
    if len(rows) < _FEWEST:
        raise ValueError(
            f"{path.name} has {counted(len(rows), 'row')}; expected at least {_FEWEST}, to cross-validate in ten folds"
        )
    _check_repeats(path.name, numbers, rows)
    columns = {name: np.array(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
    return LatencyData(_device_of(path)[0], path.name, hashlib.sha256(content).hexdigest(), columns)


def _read_row(where: str, header: Sequence[str], cells: Sequence[str]) -> tuple[float, ...]:
    if len(cells) != len(header):
        raise ValueError(f"{where} has {counted(len(cells), 'value')}; expected {len(header)}, one for each column")
    given = dict(zip(header, cells, strict=True))
    row = []
    for name in COLUMNS:
        try:
            value = float(given[name])
        except ValueError:
            raise ValueError(f"{where} has {name} {given[name].strip()!r}; expected a number") from None
        is_std, is_whole = "_std_" in name, name.endswith(("embed_dim", "layer_num"))
        if not math.isfinite(value) or value < 0 or (value == 0 and not is_std) or (is_whole and value != int(value)):
            kind = "whole number of at least 1" if is_whole else f"finite number {'of at least' if is_std else 'above'} 0"
            raise ValueError(f"{where} has {name} {given[name].strip()}; expected a {kind}")
        row.append(value)
    return tuple(row)


def _check_repeats(file: str, numbers: Sequence[int], rows: Sequence[tuple[float, ...]]) -> None:
    lines: dict[tuple[float, ...], int] = {}
    seen: dict[tuple[float, ...], tuple[int, tuple[float, ...]]] = {}
    for number, row in zip(numbers, rows, strict=True):
        if (copied := lines.setdefault(row, number)) != number:
            raise ValueError(f"line {number} of {file} repeats line {copied}; expected each measurement once")
        first, earlier = seen.setdefault(row[: len(_DESIGN)], (number, row))
        for name, one, other in list(zip(COLUMNS, earlier, row, strict=True))[len(_DESIGN) : len(_DESIGN) + 2]:
            if max(one, other) > _CONTRADICTION * min(one, other):
                raise ValueError(
                    f"lines {first} and {number} of {file} give one design the {name} {one:g} and {other:g}; they contradict each "
                    "other, so remove one"
                )


def _device_of(path: Path) -> tuple[str, str, float | None]:
    for part, known in _HAT_DEVICES.items():
        if part in path.name.lower():
            return known
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("._-")
    return name or "device", f"the device of {path.name}", None


def layer_flops(data: LatencyData) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs of the layers of encoder and decoder, (rows,) each, 2 per multiply-add, for HAT's `TOKENS`, `STEPS` and `BEAM`.

    Attention is 512 wide whatever the width E. An encoder layer: 2T(4E·512 + 2EF) + 4T²·512. A decoder layer over all its steps:
    2n(6E·512 + 2EF), as its cross-attention has maps Q and O too, 4n·512·(mean cache + aT) for scores and mixing, where the
    cross-attention sees the outputs of a encoder layers, and their maps K and V once, 4·beam·aT·E_enc·512; n = steps·beam.
    """
    width, ffn = data["encoder_embed_dim"], data["encoder_ffn_embed_dim_avg"]
    d = _ATTENTION_WIDTH
    encoder = data["encoder_layer_num"] * (2 * TOKENS * (4 * width * d + 2 * width * ffn) + 4 * TOKENS**2 * d)
    own, own_ffn = data["decoder_embed_dim"], data["decoder_ffn_embed_dim_avg"]
    n, seen = STEPS * BEAM, TOKENS * data["decoder_arbitrary_ende_attn_avg"]
    maps = 2 * n * (6 * own * d + 2 * own * own_ffn) + 4 * BEAM * seen * width * d
    return encoder, data["decoder_layer_num"] * (maps + 4 * n * d * ((STEPS + 1) / 2 + seen))


def head_flops(data: LatencyData) -> np.ndarray:
    """FLOPs of the decoder's output head over all steps, 2n·E·vocabulary, (rows,)."""
    return 2.0 * STEPS * BEAM * data["decoder_embed_dim"] * _VOCABULARY


def measurement_faults(data: LatencyData) -> dict[str, np.ndarray]:
    """Rule -> the rows that it flags, from a row's own columns alone; no rule sees what a latency model predicts.

    unsteady  the standard deviation of the encoder's or of the decoder's runs is above 10 % of their mean, though HAT leaves out
              the slowest and fastest tenth: such a mean cannot say whether a prediction is within 10 %
    slow      the encoder did fewer than half the FLOP/s of the decoder of the same row. It runs 30 tokens through each product
              at a time, the decoder 5, so that the same hardware can only be faster at it; one half leaves room for the output
              head, a single large product
    """
    spread = [data[f"latency_std_{side}"] / data[f"latency_mean_{side}"] for side in ("encoder", "decoder")]
    encoder, decoder = layer_flops(data)
    encoder_speed = encoder / data.latency_ms("encoder")
    decoder_speed = (decoder + head_flops(data)) / data.latency_ms("decoder")
    return {"unsteady": np.maximum(*spread) > UNSTEADY, "slow": encoder_speed < SLOW * decoder_speed}


def layer_work(data: LatencyData, side: str) -> np.ndarray:
    """What the additive model prices, (rows, terms): a constant, and sums over the layers, as L times an average is.

    Encoder: 1; Σ 1, E, F, EF, heads. Decoder: 1, E (the output head); Σ 1, E, F, EF, heads, heads of the cross-attention, encoder
    layers a that it sees, a·E_encoder. In a network E is the same for all layers of a side.
    """
    layers, width = data[f"{side}_layer_num"], data[f"{side}_embed_dim"]
    ffn, heads = data[f"{side}_ffn_embed_dim_avg"], data[f"{side}_self_attention_heads_avg"]
    one = np.ones(len(data))
    terms = [one, width, ffn, width * ffn, heads]
    if side == "encoder":
        return np.column_stack([one, *(layers * term for term in terms)])
    seen = data["decoder_arbitrary_ende_attn_avg"]
    terms += [data["decoder_ende_attention_heads_avg"], seen, seen * data["encoder_embed_dim"]]
    return np.column_stack([one, width, *(layers * term for term in terms)])


def fit_additive(work: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """Prices by `nonnegative_fit` or `robust_fit`: by that which predicts more of these rows within 10 % in five folds of them."""
    fits = (nonnegative_fit, robust_fit)
    near = [(np.abs(cross_validated(work, latency_ms, _INNER_FOLDS, fit=fit) / latency_ms - 1) <= 0.1).sum() for fit in fits]
    return fits[int(np.argmax(near))](work, latency_ms)


def predictions(data: LatencyData, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, dict[str, np.ndarray]]:
    """Side -> model -> out-of-fold prediction of every row [ms], all on the same folds.

    Models: additive; FLOPs of the layers alone, with a constant, with the output head; boosted trees, which see every column.
    """
    groups = data.designs
    flops = dict(zip(SIDES, layer_flops(data), strict=False))
    flops["sum"] = flops["encoder"] + flops["decoder"]
    head = {"encoder": 0.0, "decoder": head_flops(data), "sum": head_flops(data)}
    columns = np.column_stack([data[name] for name in _DESIGN])
    fold = assign_folds(len(data), FOLDS, seed, groups)
    found: dict[str, dict[str, np.ndarray]] = {}
    for side in SIDES:
        latency = data.latency_ms(side)

        def out_of_fold(work: np.ndarray, fit: Any = nonnegative_fit, latency: np.ndarray = latency) -> np.ndarray:
            return cross_validated(work, latency, FOLDS, seed, groups, fit)

        if side == "sum":
            additive = found["encoder"][ADDITIVE] + found["decoder"][ADDITIVE]
        else:
            additive = out_of_fold(layer_work(data, side), fit_additive)
        models = {
            ADDITIVE: additive,
            "FLOPs": out_of_fold(flops[side][:, None]),
            "FLOPs + constant": out_of_fold(np.column_stack([np.ones(len(data)), flops[side]])),
            "FLOPs with head": out_of_fold((flops[side] + head[side])[:, None]),
        }
        for name, settings in _TREES.items():
            models[name] = _tree_predictions(columns, latency, fold, settings, seed)
            tick()
        found[side] = models
    return found


def _tree_predictions(columns: np.ndarray, latency_ms: np.ndarray, fold: np.ndarray, settings: Any, seed: int) -> np.ndarray:
    predicted = np.empty(len(latency_ms))
    for number in range(FOLDS):
        held = fold == number
        trees = _scikit_learn().HistGradientBoostingRegressor(**settings, early_stopping=False, random_state=seed)
        trees.fit(columns[~held], np.log(latency_ms[~held]))
        predicted[held] = np.exp(trees.predict(columns[held]))
    return predicted


def _scikit_learn() -> Any:
    try:
        return importlib.import_module("sklearn.ensemble")
    except ImportError:
        raise ImportError("the boosted trees need scikit-learn; install it with: pip install scikit-learn") from None


def study_data(data: LatencyData, seed: int, tick: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """The record of one file: how many rows each rule flags, the errors with all rows and without them, and what is left.

    `errors` has a row for each side, selection of rows and model; the trees' ceiling is the best of their settings, chosen after
    the fact, so that it is on the high side. `goal`: points that the additive model lies below it, within 10 %. `sessions`: how
    far what the additive model misses is common to encoder and decoder of a row, or to rows that follow each other: that share
    is the state of the machine on the day, which no column tells; and the share within 10 % on days that the fit has not seen.
    `points`: decoder, for the figure [ms].
    """
    flagged = measurement_faults(data)
    faulty = np.logical_or.reduce(list(flagged.values()))
    errors: list[dict[str, Any]] = []
    goal: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for rows, chosen in (("all", np.ones(len(data), dtype=bool)), ("unflagged", ~faulty)):
        part = data.select(chosen)
        if len(part) < _FEWEST:
            raise ValueError(
                f"{data.file} has {counted(len(part), 'row')} that no rule flags as a fault; expected {_FEWEST} or more"
            )
        found[rows] = predictions(part, seed, tick)
        for side, models in found[rows].items():
            latency = part.latency_ms(side)
            each = {model: fit_error(predicted, latency) for model, predicted in models.items()}
            each[CEILING] = max((each[name] for name in _TREES), key=lambda error: (error.within_10, -error.mape))
            errors += [{"side": side, "rows": rows, "model": model, **_error_record(error)} for model, error in each.items()]
            short = 100 * (each[CEILING].within_10 - each[ADDITIVE].within_10)
            goal.append({"side": side, "rows": rows, "points_below_ceiling": short, "within_2_points": bool(short <= 2)})
    missed = {side: np.log(data.latency_ms(side) / found["all"][side][ADDITIVE]) for side in ("encoder", "decoder")}
    return {
        "device": data.device,
        "file": data.file,
        "sha256": data.sha256,
        "rows": len(data),
        "flagged": {**{rule: int(rows.sum()) for rule, rows in flagged.items()}, "any": int(faulty.sum())},
        "errors": errors,
        "goal": goal,
        "sessions": {
            "encoder_with_decoder": _correlation(missed["encoder"], missed["decoder"]),
            **{f"{side}_with_next_row": _correlation(own[:-1], own[1:]) for side, own in missed.items()},
            **{
                f"{side}_within_10_by_file_order": by_file_order(layer_work(data, side), data.latency_ms(side)).within_10
                for side in missed
            },
        },
        "points": {
            "measured_ms": _rounded(data.latency_ms("decoder")),
            "predicted_ms": _rounded(found["all"]["decoder"][ADDITIVE]),
            "flagged": [int(row) for row in np.flatnonzero(faulty)],
        },
    }


def by_file_order(work: np.ndarray, latency_ms: np.ndarray) -> FitError:
    """Error of the additive model with a fold for each tenth of the file: rows measured on other occasions than the fit's."""
    tenth = [FOLDS * row // len(work) for row in range(len(work))]
    return fit_error(cross_validated(work, latency_ms, FOLDS, groups=tenth, fit=fit_additive), latency_ms)


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    if min(left.std(), right.std()) == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _error_record(error: FitError) -> dict[str, Any]:
    record = asdict(error)
    del record["quantiles"]
    return record


def as_design(width: float, ffn_width: float, layers: float) -> Architecture:
    """A stack of HAT's layers as a design of ours: layers that share no weights, with the same ΣF, the head on the width itself.

    The files hold the average F alone; every kind of work that is priced depends on ΣF and not on how the layers divide it.
    """
    depth = int(layers)
    less, wider = divmod(round(ffn_width * depth), depth)
    blocks = [Block(int(width), less, depth - wider)] + ([Block(int(width), less + 1, wider)] if wider else [])
    return Architecture(tuple(blocks), False, int(width), _VOCABULARY)


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
    designs = [as_design(*row) for row in zip(*parts, strict=True)]
    if side == "encoder":
        return _Side(Workload("prefill", TOKENS, 1), PREFILL_FEATURES, designs, data.latency_ms(side))
    # The cache holds 0 to 29 tokens, half of that on average.
    return _Side(Workload("decode", STEPS // 2, BEAM), DECODE_FEATURES, designs, data.latency_ms(side) / STEPS)


def device_of(data: LatencyData, path: Path, seed: int) -> Device:
    """The device of a file of HAT's format: a table of decoding, fitted to the decoder columns, one of prefill, to the encoder's.

    Both are fitted to the rows that no rule flags, and their errors are out of fold on those; what the errors on all rows are,
    how the encoder columns bear out the decoder's prices (`encoder_check`), and what is assumed, stands in `how`.
    """
    name, description, ram_bytes = _device_of(path)
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
            "assumptions": _ASSUMPTIONS[side],
        }
        tables.append(
            LatencyTable(
                name,
                "hat-decode" if side == "decoder" else "hat-prefill",
                part.workload,
                _priced(part.features, prices),
                Validated.of(part.designs),
                _rounded_error(fit_error(predicted, part.pass_ms)),
                how=how,
            )
        )
    return Device(name, tuple(tables), description, _HAT_SOURCE, ram_bytes)


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
        "program": "HAT's latency_dataset.py: five runs to warm up, then the mean of repeated runs without the fastest and the "
        "slowest tenth; how many is not stated",
        "standard_deviation": f"of single runs by their mean: median {100 * median:.2g} %, 95 % of rows below {100 * most:.2g} %",
        "runtime": "PyTorch with fairseq, versions not stated",
        "precision": "float32",
        "clocks": "not stated",
        "date": "not stated; published in 2020",
    }


_COMMON_ASSUMPTIONS = (
    "The files state no lengths; those of the workload are what HAT's latency_dataset.py sets for WMT (30 tokens encoded once, "
    "then 30 steps of a beam of 5 with a cache).",
    "Q, K and V are 512 wide in HAT, whatever the width of the layer: at width 512 its self-attention is that of our layers, at "
    "640 ours does a quarter more work than what was priced.",
    "HAT's layers share no weights; nothing is known of the latency of shared ones.",
    "Rows that follow each other were measured on one occasion, and occasions differ (by a quarter in part of the TITAN Xp's "
    "rows). Folds drawn at random mix them, so the error is that of a network measured on one of the same occasions; "
    "error_on_other_occasions is for others.",
)
_ASSUMPTIONS: dict[str, list[str]] = {
    "decoder": [
        *_COMMON_ASSUMPTIONS,
        "A step is a thirtieth of the decoder column; its cache holds 15 tokens on average.",
        "HAT's decoder layers have a cross-attention besides: its cost stays in the prices of layers and attention maps, which are "
        "too high for ours by as much.",
        f"The output head is that of a vocabulary of {_VOCABULARY:,}, as wide as the layers; with the two widths in the data its "
        "price also holds whatever else of a pass grows with the width.",
    ],
    "encoder": [
        *_COMMON_ASSUMPTIONS,
        "There is no output head, and always six layers: the whole of the latency is priced as work of layers. The dependence on "
        "depth is assumed, not seen; the table hat-decode has a measured one.",
    ],
}


def _priced(features: Sequence[str], prices: np.ndarray) -> tuple[tuple[str, float], ...]:
    return tuple((name, float(f"{price:.6g}")) for name, price in zip(features, prices, strict=True) if price > 0)


def _rounded_error(error: FitError) -> FitError:
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


def published_designs() -> dict[str, Architecture]:
    """The nine networks of `PUBLISHED_MS`: the baselines have L layers of one width E, FFN width 4E, that share no weights."""

    def uniform(layers: int, width: int, vocabulary: int, embedding_width: int | None = None) -> Architecture:
        return Architecture((Block(width, 4 * width, layers),), False, embedding_width or width, vocabulary)

    return {
        "Pythia-70M": uniform(6, 512, 50_304),
        "Pythia-162M": uniform(12, 768, 50_304),
        "Cerebras-111M": uniform(10, 768, 50_257),
        "GPT-2-124M": uniform(12, 768, 50_257),
        "OPT-125M": uniform(12, 768, 50_272),
        "OPT-350M": uniform(24, 1024, 50_272, 512),
        **PUBLISHED,
    }


@dataclass(frozen=True)
class PublishedFit:
    """A latency model of the paper's device and how near it comes to the nine published figures [ms].

    features, prices  of the set with the least leave-one-out MAPE among `tried` sets of at most three kinds of work
    best              those sets with their leave-one-out MAPE, best first
    fitted            predictions by the fit to all nine
    left_out          each network by a fit of the same set to the eight others
    nested            the same with the set, too, chosen from the eight others: what a tenth network would see
    flops_fitted, flops_left_out  the same for FLOPs alone (`Flops`, head left out as in the paper's own figures)
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

    Kinds of work that are proportional over the nine are one kind, as data cannot tell them apart. Of sets as good as each other
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
        "errors": {way: _error_record(fit_error(predicted, measured)) for way, predicted in ways.items()},
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
        _priced(fit.features, fit.prices),
        Validated.of(designs.values()),
        _rounded_error(fit_error(fit.nested, values)),
        how=how,
    )
    source = "Zhao et al., 'MeRino: Entropy-Driven Design for Generative Language Models on IoT Devices', AAAI 2025, nine latencies"
    return Device("jetson-nano", (table,), "the unidentified device of the paper, called Jetson Nano there", source)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    # No usage line: a mistake on the command line is answered in one sentence.
    parser = argparse.ArgumentParser(
        prog="python -m studies.latency_data",
        usage=argparse.SUPPRESS,
        description="Hold measured latencies of whole transformers against an additive model, FLOPs and boosted trees.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.csv", help="latencies of HAT's format, a file a device")
    parser.add_argument("--published", action="store_true", help="fit the nine latencies that the paper publishes")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and trees (default %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("results/latency_data"), help="folder (default %(default)s)")
    parser.add_argument("--devices", type=Path, help="folder for a device file of each device (default: none are written)")
    flags = parser.parse_args(argv)
    if not flags.files and not flags.published:
        raise ValueError("there is nothing to do; name one or more CSV files of HAT's format, or ask for --published")
    if flags.seed < 0:
        raise ValueError(f"seed is {flags.seed}; expected a whole number of at least 0")
    return flags


def _read_all(files: Sequence[Path]) -> dict[Path, LatencyData]:
    read: dict[Path, LatencyData] = {}
    for path in files:
        data = read_data(path)
        if twice := [other.file for other in read.values() if other.device == data.device]:
            raise ValueError(f"{twice[0]} and {data.file} are both of the device {data.device}; expected one file a device")
        read[path] = data
    return read


def _earlier(path: Path) -> dict[str, Any]:
    """The record in `path`, as a run adds its own part to it; nothing where there is none."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("study") != "latency_data":
        raise ValueError(f"{path} is no result of this study; move it, or choose another folder with --output")
    return record


def _bar(steps: int, what: str) -> tqdm[Any]:
    return tqdm(total=steps, desc=what, bar_format="{desc:<28}{percentage:3.0f} %|{bar}| {elapsed}<{remaining}")


def _run_data(read: dict[Path, LatencyData], seed: int) -> Iterator[dict[str, Any]]:
    with _bar(len(read) * 2 * len(SIDES) * len(_TREES), "boosted trees") as bar:
        for data in read.values():
            yield study_data(data, seed, bar.update)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study with command-line flags; ValueError for bad input, ImportError where scikit-learn is missing."""
    flags = _parse(argv)
    read = _read_all(flags.files)
    if read:
        _scikit_learn()
    folder = output_folder(flags.output)
    if flags.devices is not None:
        flags.devices.mkdir(parents=True, exist_ok=True)
    record = {"study": "latency_data", **_earlier(folder / "results.json")}
    devices: list[tuple[Device, Path]] = []
    if read:
        parts = list(_run_data(read, flags.seed))
        print_data(parts)
        record["data"] = {
            "provenance": provenance(flags.seed, ("numpy", "scipy", "scikit-learn", "matplotlib")),
            "folds": FOLDS,
            "trees": _TREES,
            "rules": {"unsteady": f"std > {UNSTEADY:g} mean", "slow": f"FLOP/s of encoder < {SLOW:g} FLOP/s of decoder"},
            "devices": [{key: value for key, value in part.items() if key != "points"} for part in parts],
        }
        for part, (path, data) in zip(record["data"]["devices"], read.items(), strict=True):
            faulty = np.logical_or.reduce(list(measurement_faults(data).values()))
            part["encoder_check"] = encoder_check(data.select(~faulty))
            if flags.devices is not None:
                devices.append((device_of(data, path, flags.seed), flags.devices))
    if flags.published:
        with _bar(1 + len(PUBLISHED_MS), "sets of kinds of work") as bar:
            fit = fit_published(bar.update)
        record["published"] = {"provenance": provenance(0, ("numpy", "scipy", "matplotlib")), **published_record(fit)}
        print_published(record["published"])
        if flags.devices is not None:
            devices.append((published_device(fit), flags.devices))
    write_json(folder / "results.json", record)
    if read:
        save_figure(draw_data(parts), folder / "latency_data.png")
    if flags.published:
        save_figure(draw_published(record["published"]), folder / "latency_published.png")
    for device, place in devices:
        write_device(device, place / f"{device.name}.json")


if __name__ == "__main__":
    run_command(main)
