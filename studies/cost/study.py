"""What models cost, beside each other: parameters, FLOPs, bytes of weights and cache, latency on devices.

    python -m studies.cost smollm2-135m gpt2 opt-125m
    python -m studies.cost results/design/design.json models/mine/config.json --tokens 2048
    python -m studies.cost "32x960/2560 heads 15 kv 5" --family llama --vocabulary 49152 --tied yes

A model is a name from the list below, a config.json of the Hugging Face libraries (gpt2, opt, gpt_neox, llama, qwen2, qwen3, or
merino, ours), a design.json, an architecture's own JSON, a folder with one of these, or text: layers x width/ffn_width, and behind
it what does not follow from that (heads, kv, size, gated, shared, bits). Text is of the family merino, whose layers share their
weights, unless --family says otherwise. Nothing is built or downloaded.

Latencies are predicted: by a roofline of the device's datasheet, which is optimistic, or by a table measured on the device. A table
is left out, with the reason, for models that it was not validated on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulation import FAMILIES, PUBLISHED, Architecture, Quantity
from formulation.architecture import JOINTS
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import short, text_table
from formulation.layer import surroundings
from formulation.model_file import is_text, read_model
from formulation.presets import PRESETS
from formulation.records.reading import chosen, read_json
from hardware_models import CacheMemory, DecodeLatency, Flops, Latency, Params, PrefillLatency, WeightMemory
from hardware_models.datasheet import PRECISIONS, Datasheet, is_datasheet, read_datasheet, shipped_datasheets
from hardware_models.device import Device, read_device, shipped

_BITS = (16, 8, 4)
"""Bits a weight, of which the bytes are shown."""
_PRECISIONS = ("float16", "bfloat16", "float32")
"""Of weights and activations in a roofline: the first that the datasheet has a peak for."""
_NONE = "–"
_ROOFLINES = (
    "A roofline is no measurement: as rated or as benchmarks of large matrices achieve, small networks take several times longer;\n"
    "its datasheet says what it was fitted to, if anything."
)
_TOKENS = 1024
"""Of the query and in the cache, unless a model has fewer positions."""


@dataclass(frozen=True)
class CostOptions:
    """What was asked for, see --help; ValueError for what text alone leaves open, where no model is text."""

    models: tuple[str, ...]
    tokens: int | None
    devices: tuple[str, ...] | None
    precision: str | None
    family: str | None
    vocabulary: int | None
    positions: int | None
    embedding_width: int | None
    tied: str | None
    joints: str | None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"--tokens is {self.tokens}; expected at least 1")
        if self.around and not any(map(is_text, self.models)):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in self.around)
            raise ValueError(f"{flags}: only text leaves it open; {', '.join(self.models)} says so itself")

    @property
    def around(self) -> dict[str, Any]:
        """What was said of models that are text."""
        given = {name: getattr(self, name) for name in ("family", "vocabulary", "positions", "embedding_width", "joints")}
        tied = None if self.tied is None else self.tied == "yes"
        return {name: value for name, value in (given | {"tied": tied}).items() if value is not None}


def parts_of(model: Architecture) -> dict[str, float]:
    """Parameters by where they are; their sum is that of `Params`."""
    params, embedding = Params(), surroundings(model).tokens.parameters
    return {
        "token embedding": embedding,
        "positions": params.entry(model.blocks[0].width, model),
        "layers": math.fsum(params.block(block, model) for block in model.blocks),
        "joining maps": math.fsum(params.joint(*pair, model) for pair in model.unequal_neighbours),
        "final norm": params.exit(model.blocks[-1].width, model),
        "output head of its own": params.fixed(model) - embedding,
    }


def costs_of(model: Architecture, tokens: int) -> dict[str, str]:
    """The lines of the table: what is counted, in words -> its value."""
    whole, parts = Params()(model), parts_of(model)
    assert whole == math.fsum(parts.values())
    return {
        "family": model.family,
        "vocabulary": f"{model.vocabulary:,}",
        "layers that a token passes": f"{sum(model.depths):,}",
        "parameters": f"{whole:,.0f}",
        **{f"  {name}": f"{value:,.0f}" for name, value in parts.items()},
        f"FLOPs of {tokens:,} tokens": short(Flops(tokens)(model)),
        "  and all their logits": short(Flops(tokens, head=True)(model)),
        **{f"weights in {bits} bits [MB]": short(WeightMemory(bits)(model) / 1e6) for bits in _BITS},
        f"cache of {tokens:,} tokens in 16 bits [MB]": short(CacheMemory(tokens, bits=16)(model) / 1e6),
    }


@dataclass(frozen=True)
class Timed:
    """A latency that is asked of every model.

    Attributes:
        device: its name.
        what: the pass, in words.
        basis: what predicts it, in words.
        quantity: the cost model.
    """

    device: str
    what: str
    basis: str
    quantity: Quantity


def latencies(devices: Sequence[str] | None, tokens: int, precision: str | None) -> Iterator[Timed | str]:
    """The latencies of devices: two rooflines a datasheet, prefill and decode, and the tables that were measured.

    Args:
        devices: names or paths; None: all that come with the package.
        tokens: of the query, and in the cache of a decoding step.
        precision: of the rooflines; None: the first of `_PRECISIONS` that a datasheet has a peak for.

    Yields:
        A latency, or a sentence on a datasheet that has no peak in the precision.

    Raises:
        ValueError: for a device that there is not.
    """
    sheets, measured = shipped_datasheets(), shipped()
    known = sorted({*sheets, *measured})
    for name in known if devices is None else devices:
        if name.endswith(".json"):
            of_sheet = is_datasheet(read_json("device file", Path(name)))
            of_tables = not of_sheet
        else:
            chosen("device", name, {**dict.fromkeys(known), "FILE.json": None})
            of_sheet, of_tables = name in sheets, name in measured
        if of_sheet:
            yield from _rooflines(read_datasheet(name), tokens, precision)
        if of_tables:
            yield from _tables(read_device(name))


def _rooflines(sheet: Datasheet, tokens: int, precision: str | None) -> Iterator[Timed | str]:
    precision = precision or next(kind for kind in (*_PRECISIONS, *sheet.peak_flops) if kind in sheet.peak_flops)
    if PRECISIONS[precision].arithmetic not in sheet.peak_flops:
        yield f"{sheet.name}: its datasheet states no peak in {precision}, but in {', '.join(sheet.peak_flops)}"
        return
    for quantity in (PrefillLatency(sheet, tokens, precision), DecodeLatency(sheet, tokens, precision)):
        yield Timed(sheet.name, quantity.passes, f"roofline, {precision}, {quantity.rates.basis}", quantity)


def _tables(device: Device) -> Iterator[Timed]:
    for table in device.tables:
        if table.quantity == "latency":
            error = "" if table.error is None else f", mean error {100 * table.error.mape:.2g} %"
            yield Timed(device.name, str(table.workload), f"table {table.name}{error}", Latency(table))


def latency_tables(models: dict[str, Architecture], asked: Sequence[Timed | str]) -> Iterator[str]:
    """The table of latencies, and a line for each datasheet and for each device and model that lack one, with the first reason."""
    rows: list[list[str]] = []
    reasons: dict[tuple[str, str], str] = {}
    for timed in asked:
        if isinstance(timed, str):
            reasons.setdefault((timed, ""), timed)
            continue
        cells = []
        for name, model in models.items():
            outside = timed.quantity.table.leaves_out(model) if isinstance(timed.quantity, Latency) else ""
            if outside:
                reasons.setdefault((timed.device, name), f"{timed.device}, {name}: {outside}")
            cells.append(_NONE if outside else short(timed.quantity(model), 3))
        if {*cells} != {_NONE}:
            rows.append([timed.device, timed.what, timed.basis, *cells])
    if rows:
        yield f"\n{text_table(['latency [ms]', 'pass', 'predicted by', *models], rows, {0, 1, 2})}"
    if reasons:
        yield "\nLeft out (a table predicts only models like those that were measured):"
        yield from (f"  {reason}" for reason in reasons.values())
    if any(isinstance(timed, Timed) and not isinstance(timed.quantity, Latency) for timed in asked):
        yield f"\n{_ROOFLINES}"


def show(options: CostOptions) -> Iterator[str]:
    """The tables, part by part."""
    models = {source: read_model(source, **(options.around if is_text(source) else {})) for source in options.models}
    name, shortest = min(models.items(), key=lambda item: item[1].positions)
    tokens = options.tokens or min(_TOKENS, shortest.positions)
    if tokens > shortest.positions:
        raise ValueError(f"--tokens is {tokens:,}; expected at most the {shortest.positions:,} positions of {name}")
    asked = list(latencies(options.devices, tokens, options.precision))
    columns = [costs_of(model, tokens) for model in models.values()]
    for name, model in models.items():
        yield f"{name}: {model}"
    lines = [[label, *(column[label] for column in columns)] for label in columns[0]]
    yield f"\n{text_table(['', *models], lines, {0})}"
    yield from latency_tables(models, asked)


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    names = f"names: {', '.join((*PRESETS, *PUBLISHED))}"
    parser = command_parser(__spec__, __doc__, names)
    parser.add_argument("models", nargs="+", metavar="NAME|FILE", help="models: names, files, folders or text, see below")
    parser.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help=f"tokens of the query and in the cache (default {_TOKENS}, or the positions of a model that has fewer)",
    )
    parser.add_argument(
        "--devices",
        nargs="*",
        metavar="NAME|FILE",
        help="devices whose latency is predicted, by name or file; with none behind it, no latency (default: all that come along)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="of the rooflines (default: float16, or what the device multiplies in instead)"
    )
    text = parser.add_argument_group("what text leaves open")
    text.add_argument("--family", choices=sorted(FAMILIES), help="biases, norms, positions, gate (default merino)")
    text.add_argument("--vocabulary", type=int, metavar="N", help="number of tokens (default 50257)")
    text.add_argument("--positions", type=int, metavar="N", help="longest sequence (default 2048)")
    text.add_argument(
        "--embedding-width", type=int, metavar="N", help="of tokens and head (default: 768 for merino, else the width)"
    )
    text.add_argument(
        "--tied", choices=("yes", "no"), help="whether the head is the token embedding (default: as the family has it)"
    )
    text.add_argument("--joints", choices=JOINTS, help=f"what joins unequal widths (default {JOINTS[0]})")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    for part in show(read_options(CostOptions, command_line(), arguments)):
        print(part)
    return 0
