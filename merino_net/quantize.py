"""A trained network in 8 or 4 bits: small on disk, or small and faster in OpenVINO.

    python -m merino_net.quantize results/train --method rtn --bits 8 --embedding --output results/int8
    .venv-quantize/bin/python -m merino_net.quantize results/train --method gptq --bits 4 --text books/ --output results/int4
    python -m merino_net.quantize results/train --method nncf --bits 8 --output results/openvino-int8

gptq and rtn write a model's folder (from_pretrained, merino_net.generate and merino_net.evaluate take it), nncf an OpenVINO graph.
Weights that a block shares are quantized once and stay shared, the embedding stays tied to the output head. quantize.json says what
was done and how many bytes each part takes. How a file holds the weights is `merino_net.network.quantized_weights`'.

Exit code: 0 quantized; 2 a mistake in the command or a file that cannot be read; 3 quantized, but the network exceeds a budget of
the design.json beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.run import run_command
from formulation.command.words import counted, text_table
from formulation.layer import joint_map, layer_of
from formulation.records.files import cache_folder, write_json
from formulation.records.provenance import provenance
from merino_net.corpus.text import Reading, Text, add_reading_arguments
from merino_net.network.counting import parameter_count, part_bytes
from merino_net.network.pretrained import Model, find_models, first_line, load_model, quieten
from merino_net.network.registration import require_network
from merino_net.shipping.forms import BITS
from merino_net.shipping.hub_folder import replace_folder
from merino_net.shipping.promises import Made, exit_code, read_promises, table
from merino_net.shipping.runtimes import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from merino_net.network.quantized_weights import Quantized

METHODS = {
    "rtn": "each weight rounded to the nearest step",
    "gptq": "rounding errors made good on a calibration text (llmcompressor)",
    "nncf": "rounded to nearest by NNCF, for OpenVINO",
}
RECORD = "quantize.json"
_FORMAT, _VERSION = "merino quantization", 1
_GROUP = 64
"""Neighbouring columns with a separate scale where nothing else is asked for, with 4 bits: widths are multiples of it, though
feed-forward widths need not be."""
_TOKENS, _POSITIONS, _HEAD = "model.tokens", "model.positions", "lm_head"
_PACKAGES = ("torch", "transformers", "llmcompressor", "compressed-tensors", "openvino", "nncf")


@dataclass(frozen=True)
class Plan:
    """What is quantized, and how.

    Attributes:
        method: of `METHODS`.
        bits: of the linear maps in blocks and joints: 8 or 4.
        group_size: columns with a separate scale; None: a scale for each row, the default with 8 bits (64 with 4).
        embedding_bits: of the token embedding, which is the output head as well: 8 (a scale for each row) or 4 (a scale for each
            group of `group_size` or 64); None leaves it as it is. The position embedding, a small part, then gets 8 bits.
    """

    method: str
    bits: int
    group_size: int | None = None
    embedding_bits: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"the method is {self.method!r}; expected one of {', '.join(METHODS)}")
        for name, bits in (("bits", self.bits), ("embedding_bits", self.embedding_bits or 8)):
            if bits not in BITS:
                raise ValueError(f"{name} is {bits}; expected 8 or 4")
        if self.group_size is not None:
            positive_integer("group_size", self.group_size)
        elif self.bits == 4:
            object.__setattr__(self, "group_size", _GROUP)
        if self.method == "nncf":
            if self.bits == 8 and (self.group_size is not None or self.embedding_bits == 4):
                raise ValueError("nncf with 8 bits has a scale for each row and 8 bits for the embedding; leave the others out")
            object.__setattr__(self, "embedding_bits", self.embedding_bits or 8)

    @property
    def embedding_group(self) -> int | None:
        """Columns of the token embedding with a separate scale."""
        return (self.group_size or _GROUP) if self.embedding_bits == 4 else None

    def check(self, config: Any) -> None:
        """ValueError if a group does not divide what it must: each map's inputs, or the embedding's width."""
        design = config.to_architecture()
        read = {matrix.inputs for block in design.blocks if block.depth for matrix in layer_of(block, design).matrices}
        read |= {left for left, right in design.unequal_neighbours if joint_map(left, right, design) is not None}
        for group, columns in ((self.group_size, read), (self.embedding_group, {config.embedding_width})):
            off = sorted(width for width in columns if width % (group or 1))
            if off:
                raise ValueError(
                    f"groups of {group} do not divide a width of {off[0]}; all widths of this network are multiples of "
                    f"{math.gcd(*columns)}, so choose a --group-size that divides {math.gcd(*columns)}"
                )


@dataclass(frozen=True)
class CalibrationText:
    """The text that GPTQ calibrates on: `sequences` of `seq_len` tokens, drawn by `default_rng(seed)` from all of the text's."""

    text_sha256: str
    sequences: int
    seq_len: int
    seed: int


def calibration_sequences(
    text: Text, tokenizer: PreTrainedTokenizerBase, sequences: int, seq_len: int, seed: int, cache: Path
) -> tuple[np.ndarray, CalibrationText]:
    """Tokens of a text to calibrate on, (sequences, seq_len).

    Raises:
        ValueError: for a text that cannot be read or is too short.
    """
    from merino_net.corpus.data import packed, token_array

    positive_integer("sequences", sequences)
    rows = packed(token_array(text, tokenizer, cache), seq_len)
    if len(rows) < sequences:
        raise ValueError(
            f"the text has {counted(len(rows), 'sequence')} of {seq_len} tokens, fewer than the {sequences} to calibrate on; "
            "give more text, or fewer or shorter sequences (--sequences, --sequence)"
        )
    drawn = np.sort(np.random.default_rng(seed).choice(len(rows), sequences, replace=False))
    return rows[drawn].astype(np.int64), CalibrationText(text.fingerprint(), sequences, seq_len, seed)


def _tied(model: PreTrainedModel) -> bool:
    """Whether the output head is the token embedding."""
    return bool(model.config.tie_word_embeddings)


def linear_maps(model: PreTrainedModel) -> list[str]:
    """Names of the linear maps in blocks and joints, each once however often it is applied; the head is the embedding's matter."""
    from torch import nn

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != _HEAD]


def quantize(
    model: PreTrainedModel, plan: Plan, tokenizer: PreTrainedTokenizerBase, sequences: np.ndarray | None
) -> tuple[dict[str, Quantized], dict[str, int]]:
    """Integers and scales of every matrix that `plan` (gptq or rtn) quantizes, and its bits, by the name of its weight.

    The embeddings are rounded to nearest under either method: GPTQ calibrates on the inputs of a map, and a look-up has none.
    """
    from merino_net.network.quantized_weights import round_to_nearest

    names = linear_maps(model)
    bits = {f"{name}.weight": plan.bits for name in names}
    if plan.method == "gptq":
        from merino_net.shipping.quantize_gptq import gptq

        assert sequences is not None
        found = gptq(model, tokenizer, sequences, names, plan.bits, plan.group_size)
    else:
        weights = ((name, model.get_submodule(name).get_parameter("weight").detach()) for name in names)
        found = {f"{name}.weight": round_to_nearest(weight, plan.bits, plan.group_size) for name, weight in weights}
    if plan.embedding_bits is not None:
        tables = dict.fromkeys((_TOKENS, *([] if _tied(model) else [_HEAD])), (plan.embedding_bits, plan.embedding_group))
        if model.get_submodule("model").positions is not None:
            tables[_POSITIONS] = (8, None)
        for name, (own, group) in tables.items():
            weight = model.get_submodule(name).get_parameter("weight").detach()
            found[f"{name}.weight"], bits[f"{name}.weight"] = round_to_nearest(weight, own, group), own
    return found, bits


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    quantized: Mapping[str, Quantized],
    bits: Mapping[str, int],
    plan: Plan,
    folder: Path,
) -> None:
    """Write a folder that from_pretrained takes, and read it back. ValueError if a weight is not what was written."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from merino_net.corpus.data import save_tokenizer
    from merino_net.network.quantized_weights import METHOD, restored, stored_tensors

    # A head that is the token embedding is stored as such.
    state = {name: tensor for name, tensor in model.state_dict().items() if name != f"{_HEAD}.weight" or not _tied(model)}
    try:
        save_file(stored_tensors(state, quantized, bits), folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"the weights cannot be written ({first_line(error)}); make room on the disk") from None
    config = copy.deepcopy(model.config)
    config.quantization_config = {"quant_method": METHOD, **asdict(plan)}
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, config.max_position_embeddings)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in again.state_dict().items():
        stored = f"{_TOKENS}.weight" if name == f"{_HEAD}.weight" and _tied(model) else name
        if not torch.equal(tensor, restored(quantized[stored]) if stored in quantized else state[stored]):
            raise ValueError(f"the weight {name} is not the same when read back from the folder; is the disk sound?")


def graph_bytes(folder: Path) -> dict[str, int]:
    """Bytes of an OpenVINO graph with its weights; it does not distinguish its parts."""
    return {"file": sum(path.stat().st_size for path in folder.glob("openvino_model.*"))}


def _check_output(output: Path, source: Path) -> None:
    """ValueError if `output` is neither new, nor empty, nor an earlier result of this command with nothing else in it."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder with --output")
    if source.resolve() == output:
        raise ValueError(f"{output} is the model's own folder; name another with --output")
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if names:
        record = read_quantize_record(output)
        others = sorted(names - set(record["files"] if record else []))
        if others:
            raise ValueError(f"{output} holds {others[0]}, which this command did not write; name another folder with --output")


def read_quantize_record(folder: Path) -> dict[str, Any] | None:
    """The quantize.json in a folder; None if there isn't one that this release wrote."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if (record["format"], record["version"]) == (_FORMAT, _VERSION) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    methods = "\n".join(f"    {name:5} {what}" for name, what in METHODS.items())
    parser = command_parser(__spec__, __doc__, f"methods:\n{methods}")
    parser.add_argument("model", metavar="FOLDER", help="a trained network, as merino_net.train leaves it")
    parser.add_argument("--method", choices=tuple(METHODS), required=True, help="see methods below")
    parser.add_argument(
        "--bits", type=int, choices=BITS, required=True, help="for a weight of the linear maps in blocks and joints"
    )
    parser.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help=f"columns with a separate scale (default: a scale for each row with 8 bits, {_GROUP} columns with 4)",
    )
    parser.add_argument(
        "--embedding",
        type=int,
        nargs="?",
        const=8,
        choices=BITS,
        help="quantize the token embedding, which is the output head as well, and the positions (default: no, nncf: 8; without a "
        "number behind it: 8)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="new, or an earlier result, which is replaced")
    gptq = parser.add_argument_group("what gptq calibrates on")
    gptq.add_argument("--text", nargs="+", default=[], metavar="SOURCE", help="as in merino_net.train; best of what it trained on")
    add_reading_arguments(gptq)
    gptq.add_argument(
        "--sequences", type=int, default=128, metavar="N", help="token sequences drawn from the text (default %(default)s)"
    )
    gptq.add_argument("--sequence", type=int, metavar="TOKENS", help="length of each (default: the positions, at most 512)")
    gptq.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default %(default)s)")
    gptq.add_argument("--cache", default=str(cache_folder()), metavar="FOLDER", help="of the tokens (default: ~/.cache/merino)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line().parse_args(arguments)
    plan = Plan(options.method, options.bits, options.group_size, options.embedding)
    source, output = Path(options.model), Path(options.output).resolve()
    if not source.is_dir():
        raise ValueError(f"there is no folder {source}; name one that merino_net.train or save_pretrained wrote")
    if (plan.method == "gptq") != bool(options.text):
        raise ValueError(
            "gptq calibrates on a text; name it with --text"
            if plan.method == "gptq"
            else f"{plan.method} needs no --text; leave it out"
        )
    _check_output(output, source)
    require_network()
    _require(plan)
    quieten(options.model)
    [found] = find_models([options.model])
    model, tokenizer = load_float_model(found)
    before = part_bytes(source)
    promises = read_promises(source / "design.json")
    plan.check(model.config)
    calibration, sequences = None, None
    if plan.method == "gptq":
        positions = model.config.max_position_embeddings
        length = min(512, positions) if options.sequence is None else positive_integer("--sequence", options.sequence)
        if length > positions:
            raise ValueError(f"--sequence is {length}; the network has {positions} positions")
        text = Text(tuple(options.text), reading=Reading.of(options.text_field, options.text_format, options.text_memory))
        sequences, calibration = calibration_sequences(
            text, tokenizer, options.sequences, length, options.seed, Path(options.cache)
        )
    with replace_folder(output) as folder:
        if plan.method == "nncf":
            from merino_net.corpus.data import save_tokenizer
            from merino_net.shipping.openvino_model import OPENVINO_FILE
            from merino_net.shipping.quantize_openvino import quantize_openvino

            quantize_openvino(model, folder, plan.bits, plan.group_size, plan.embedding_bits or 8)
            save_tokenizer(tokenizer, folder, model.config.max_position_embeddings)
            after = graph_bytes(folder)
            weights = (folder / OPENVINO_FILE).with_suffix(".bin").stat().st_size
            made = Made(model.config, parameter_count(model), weights, quantized=True)
        else:
            write_model(model, tokenizer, *quantize(model, plan, tokenizer, sequences), plan, folder)
            after = part_bytes(folder)
            made = Made.stored(folder)
        outcomes = [promise.outcome(made) for promise in promises]
        for name in ("design.json", "training.json"):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        record: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "source": found.name,
            "fingerprint": found.fingerprint,
            "plan": asdict(plan),
            "calibration": None if calibration is None else asdict(calibration),
            "bytes": {"before": before, "after": after},
            "budgets": [outcome.to_dict() for outcome in outcomes],
            "files": sorted({RECORD, *(path.name for path in folder.iterdir())}),
            "provenance": provenance(options.seed, _PACKAGES),
        }
        write_json(folder / RECORD, record)
    print(_report(record["bytes"]))
    if outcomes:
        print(f"\n{table(outcomes)}")
    print(f"\nWritten to {options.output}: {counted(len(record['files']), 'file')}", flush=True)
    return exit_code(outcomes)


def _require(plan: Plan) -> None:
    if plan.method == "gptq":
        from merino_net.shipping.quantize_gptq import require_llmcompressor

        require_llmcompressor()
    elif plan.method == "nncf":
        require("the method nncf", "choose --method rtn or gptq", ("openvino", "nncf"))


def load_float_model(found: Model) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A network that is not quantized, in float32 on the CPU and in our class, with its tokenizer; ValueError for any other."""
    from transformers import AutoConfig

    from merino_net.network.configuration_merino import MerinoConfig
    from merino_net.network.plain import MODULES, own_form

    config = AutoConfig.from_pretrained(found.source)
    if config.model_type not in (known := (MerinoConfig.model_type, *MODULES)):
        raise ValueError(f"{found.source} is a {config.model_type} model; expected one of {', '.join(known)}")
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{found.source} is quantized already; name the folder of the network that it was made from")
    model, tokenizer = load_model(found, "float32", "cpu")
    try:
        return own_form(model).eval(), tokenizer
    except ValueError as error:
        raise ValueError(f"{found.source} cannot be quantized: {error}") from None


def _report(sizes: Mapping[str, Mapping[str, int]]) -> str:
    """A table for people: whole file and parts before and after."""
    before, after = sizes["before"], sizes["after"]
    lines = [
        [
            "whole file" if part == "file" else part,
            f"{size / 1e6:,.3f}",
            f"{after[part] / 1e6:,.3f}" if part in after else "-",
            f"{after[part] / size:.1%}" if part in after else "-",
        ]
        for part, size in before.items()
    ]
    return text_table(("part", "MB before", "MB after", "share"), lines, {0})


if __name__ == "__main__":
    run_command(main)
