"""A file of latencies as HAT published them (Wang et al., ACL 2020): 2,000 encoder-decoder transformers measured on one device.

Here are the columns and their checks, what a file does not say of its measurement, rules that flag faults of it, FLOPs of the
layers, and the model that adds up over layers. Cross-validation is in `studies.latency_data`, device files made of such data are in
`studies.latency_data.devices`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formulation.architecture import HEAD_SIZE, positive_integer
from formulation.layer import make_layer
from hardware_models.device import check_device_name
from hardware_models.fit import FitError, cross_validated, fit_error, nonnegative_fit, robust_fit
from studies.latency_data.csv_file import read_rows

DESIGN_COLUMNS = (
    *("encoder_embed_dim", "encoder_layer_num", "encoder_ffn_embed_dim_avg", "encoder_self_attention_heads_avg"),
    *("decoder_embed_dim", "decoder_layer_num", "decoder_ffn_embed_dim_avg", "decoder_self_attention_heads_avg"),
    *("decoder_ende_attention_heads_avg", "decoder_arbitrary_ende_attn_avg"),
)
_MEASURED = ("latency_mean_encoder", "latency_mean_decoder", "latency_std_encoder", "latency_std_decoder")
COLUMNS = (*DESIGN_COLUMNS, *_MEASURED)
"""Columns of a file: the design (widths, numbers of layers, averages over the layers), and latencies in milliseconds."""
SIDES = ("encoder", "decoder", "sum")
FOLDS = 10
_INNER_FOLDS = 5
FEWEST = 40
"""Rows of a file, at least: four in a fold."""

_ATTENTION_WIDTH = 512
"""Width of Q, K and V in HAT, whatever the width of the layer."""
UNSTEADY = 0.1
"""Standard deviation by mean above which repeated runs disagree by more than the 10 % within which a prediction counts as near."""
SLOW = 0.5
"""Share of the decoder's FLOP/s below which the encoder of the same row was slowed by something else."""
_CONTRADICTION = 2.0
"""Ratio of two latencies of one design in one file above which they cannot both be meant."""


@dataclass(frozen=True)
class Facts:
    """What a file of HAT's format does not say of its measurement, but its numbers depend on or its readers need to know.

    Attributes:
        name: of the device file.
        description: what the device is.
        task: the data set that fixes lengths and vocabulary, such as wmt14ende.
        tokens: encoded once.
        steps: decoded one after the other, with a cache: what the decoder column is the sum of.
        beam: sequences decoded side by side.
        vocabulary: width of the decoder's output head.
        source: whose measurement it is.
        measured: how: program, runtime, precision, clocks, date.
        ram_bytes: of the device, if known.
    """

    name: str
    description: str
    task: str
    tokens: int
    steps: int
    beam: int
    vocabulary: int
    source: str
    measured: Mapping[str, str]
    ram_bytes: float | None = None


_UNKNOWN = "not stated"
GIVEN = ("device_name", "task", "tokens", "steps", "beam", "vocabulary")
"""Facts that have to be given for a file that isn't known; --source is asked for by nothing but honesty."""


def given_facts(
    device_name: str, task: str, tokens: int, steps: int, beam: int, vocabulary: int, source: str | None = None
) -> Facts:
    """The facts that somebody gives; the device file is called by device and task, and nothing else is known.

    Raises:
        ValueError: a name that no device may have, and a number below 1.
    """
    check_device_name(device_name)
    check_device_name(f"{device_name}-{task}")
    for name, number in (("tokens", tokens), ("steps", steps), ("beam", beam), ("vocabulary", vocabulary)):
        positive_integer(f"--{name}", number)
    measured = dict.fromkeys(("program", "runtime", "precision", "clocks", "date"), _UNKNOWN)
    description = f"{device_name}, as named by whoever fitted this file"
    return Facts(f"{device_name}-{task}", description, task, tokens, steps, beam, vocabulary, source or _UNKNOWN, measured)


_HAT_MEASURED = {
    "program": "HAT's latency_dataset.py: five runs to warm up, then the mean of repeated runs without the fastest and the "
    "slowest tenth; how many is not stated",
    "runtime": "PyTorch with fairseq, versions not stated",
    "precision": "float32",
    "clocks": _UNKNOWN,
    "date": "not stated; published in 2020",
}


HAT_SOURCE = (
    "measured by the authors of HAT (Wang et al., 'HAT: Hardware-Aware Transformers for Efficient Natural Language Processing', "
    "ACL 2020); data of mit-han-lab/hardware-aware-transformers, latency_dataset/, MIT licence"
)


def _hat(name: str, description: str, ram_bytes: float | None = None) -> Facts:
    """A file that HAT published for WMT'14 English-German, whose joined dictionary has 32,768 tokens."""
    return Facts(name, description, "wmt14ende", 30, 30, 5, 32_768, HAT_SOURCE, _HAT_MEASURED, ram_bytes)


KNOWN = {
    "28d7d0557b545ceefe0234fedad81b4c503edc211a10a9b3a08ba19523ca7cdb": _hat(
        "raspberry-pi-4", "Raspberry Pi 4, ARM Cortex-A72 CPU"
    ),
    "78c0cef3a590b0efce13f2c5cb338453644d09c056359cbdaed606c513657d60": _hat("xeon", "server CPU Intel Xeon E5-2640"),
    "7ce39663e513a90ab56cf2911c43977e2b4f426c787a25acaeb5e346fa913e1f": _hat(
        "titan-xp", "desktop GPU NVIDIA TITAN Xp, 12 GB", 12e9
    ),
}
"""SHA-256 of a file -> its facts, for HAT's wmt14ende_{cpu_raspberrypi,cpu_xeon,gpu_titanxp}_all.csv. A name proves nothing."""


@dataclass(frozen=True)
class LatencyData:
    """The rows of one file.

    Attributes:
        facts: what the file itself does not say.
        file: name of the file, without its folder.
        sha256: of the file.
        columns: column -> its values, (rows,).
    """

    facts: Facts
    file: str
    sha256: str
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns[DESIGN_COLUMNS[0]])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def designs(self) -> list[tuple[float, ...]]:
        """What distinguishes designs; rows of one design always share a fold."""
        return list(zip(*(self[name] for name in DESIGN_COLUMNS), strict=True))

    def latency_ms(self, side: str) -> np.ndarray:
        """Latency of the encoder, the decoder, or both one after the other [ms], (rows,)."""
        if side == "sum":
            return self.latency_ms("encoder") + self.latency_ms("decoder")
        return self[f"latency_mean_{side}"]

    def select(self, rows: np.ndarray) -> LatencyData:
        """Some of the rows."""
        return LatencyData(self.facts, self.file, self.sha256, {name: values[rows] for name, values in self.columns.items()})


def read_data(path: Path, facts: Facts | None = None) -> LatencyData:
    """The rows of a file of HAT's format; more columns than `COLUMNS` are passed over.

    `facts` say what the file does not; those of HAT's own files are known by their content.

    Raises:
        ValueError: in one sentence naming file, line and column: for an empty file or too few rows, missing columns, a value that
            is not a finite number or out of range, a row that is there twice, two rows of one design that contradict each other,
            and facts that nobody says.
    """
    rows = read_rows(path, COLUMNS, "HAT's format", _allowed, FEWEST)
    _check_repeats(path.name, rows.lines, rows.values)
    facts = KNOWN.get(rows.sha256, facts)
    if facts is None:
        raise ValueError(asked_for(path, GIVEN))
    return LatencyData(facts, path.name, rows.sha256, rows.by_column)


def is_known(path: Path) -> bool:
    """Whether the content of a file is that of one whose facts are known."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in KNOWN


def asked_for(path: Path, missing: Sequence[str]) -> str:
    """The sentence that asks for facts about a file, by the names of `GIVEN`."""
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
    return (
        f"{path.name} does not say what its latencies are of, and is none of the files known by their content; give {flags} "
        "(HAT's program encodes 30 tokens and decodes 30 steps for WMT, 23 steps for IWSLT, of a beam of 5)"
    )


def _allowed(name: str, value: float) -> str | None:
    """What a value should have been, in words, if it cannot be."""
    is_std, is_whole = "_std_" in name, name.endswith(("embed_dim", "layer_num"))
    if not math.isfinite(value) or value < 0 or (value == 0 and not is_std) or (is_whole and value != int(value)):
        return "whole number of at least 1" if is_whole else f"finite number {'of at least' if is_std else 'above'} 0"
    return None


def _check_repeats(file: str, numbers: Sequence[int], rows: Sequence[tuple[float, ...]]) -> None:
    lines: dict[tuple[float, ...], int] = {}
    seen: dict[tuple[float, ...], tuple[int, tuple[float, ...]]] = {}
    for number, row in zip(numbers, rows, strict=True):
        if (copied := lines.setdefault(row, number)) != number:
            raise ValueError(f"line {number} of {file} repeats line {copied}; expected each measurement once")
        first, earlier = seen.setdefault(row[: len(DESIGN_COLUMNS)], (number, row))
        for name, one, other in list(zip(COLUMNS, earlier, row, strict=True))[len(DESIGN_COLUMNS) : len(DESIGN_COLUMNS) + 2]:
            if max(one, other) > _CONTRADICTION * min(one, other):
                raise ValueError(
                    f"lines {first} and {number} of {file} give one design the {name} {one:g} and {other:g}; they contradict each "
                    "other, so remove one"
                )


def layer_flops(data: LatencyData) -> tuple[np.ndarray, np.ndarray]:
    """FLOPs of the layers of encoder and decoder, (rows,) each, 2 per multiply-add, for the tokens T, steps and beam of the facts.

    The layers are those of `formulation.layer` with attention 512 wide whatever the width. In a decoder layer, over steps·beam
    tokens, cross-attention has maps Q and O too; scores and mixing see the mean cache, and in the cross-attention the outputs of a
    encoder layers, aT, whose maps K and V are applied once.
    """
    encoder, decoder = (
        make_layer(data[f"{side}_embed_dim"], data[f"{side}_ffn_embed_dim_avg"], _ATTENTION_WIDTH // HEAD_SIZE)
        for side in ("encoder", "decoder")
    )
    tokens, steps, beam = data.facts.tokens, data.facts.steps, data.facts.beam
    n, seen = steps * beam, tokens * data["decoder_arbitrary_ende_attn_avg"]
    own = decoder.attention_weights + decoder["query"].weights + decoder["output"].weights + decoder.ffn_weights
    maps = 2 * n * own + 2 * beam * seen * (encoder["key"].weights + encoder["value"].weights)
    return (
        data["encoder_layer_num"] * (2 * tokens * encoder.weights + encoder.score_flops(tokens, tokens)),
        data["decoder_layer_num"] * (maps + decoder.score_flops(n, (steps + 1) / 2 + seen)),
    )


def head_flops(data: LatencyData) -> np.ndarray:
    """FLOPs of the decoder's output head over all steps, 2n·E·vocabulary, (rows,)."""
    return 2.0 * data.facts.steps * data.facts.beam * data["decoder_embed_dim"] * data.facts.vocabulary


def measurement_faults(data: LatencyData) -> dict[str, np.ndarray]:
    """Rule -> the rows that it flags, from a row's own columns alone; no rule sees what a latency model predicts.

    - `unsteady`: the standard deviation of the encoder's or of the decoder's runs is above 10 % of their mean, though HAT leaves
      out the slowest and fastest tenth: such a mean cannot say whether a prediction is within 10 %
    - `slow`: the encoder did fewer than half the FLOP/s of the decoder of the same row. It runs all tokens through each product at
      a time (30 in HAT's files for WMT), the decoder a beam (5), so that the same hardware can only be faster at it; one half
      leaves room for the output head, a single large product
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


def by_file_order(work: np.ndarray, latency_ms: np.ndarray) -> FitError:
    """Error of the additive model with a fold for each tenth of the file: rows measured on other occasions than the fit's."""
    tenth = [FOLDS * row // len(work) for row in range(len(work))]
    return fit_error(cross_validated(work, latency_ms, FOLDS, groups=tenth, fit=fit_additive), latency_ms)
