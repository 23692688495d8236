"""Variants of a network that the quantization study compares: what they are and how they are made.

What is measured of them is `studies.quantization`'s.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from formulation.architecture import positive_integer
from formulation.command.processes import run_child
from formulation.records.rows import Row
from merino_net import quantize
from merino_net.corpus.text import Text
from merino_net.network.pretrained import Model
from merino_net.quantize import Plan, load_float_model, read_quantize_record
from merino_net.shipping.hub_folder import replace_folder
from studies.trained.flags import ReadingOptions

if TYPE_CHECKING:
    from studies.quantization.openvino_network import OpenVinoNetwork

PROMPT, NEW_TOKENS = 128, 64
"""Tokens of the query whose prefill (all logits) is timed, and tokens decoded after it; fewer where the positions are."""
_CALLS = 3
"""Prefills of which the median counts."""


@dataclass(frozen=True)
class MakingOptions:
    """How variants are made: the flags of the study that `make_variant` reads; ValueError for no sequence."""

    group_size: int | None
    calibration_text: tuple[str, ...]
    sequences: int
    seed: int
    gptq_python: str
    cache: str
    reading_flags: ReadingOptions

    def __post_init__(self) -> None:
        positive_integer("--sequences", self.sequences)


@dataclass(frozen=True)
class Variant:
    """One form of a network: quantized by `plan`, or in float32 (None), run by PyTorch or by OpenVINO."""

    plan: Plan | None
    openvino: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.plan is None:
            return "OpenVINO float32" if self.openvino else "float32"
        layers = f"INT{self.plan.bits}"
        if self.openvino:
            return f"OpenVINO {layers}" + ("" if self.plan.embedding_bits == 8 else ", embedding INT4")
        embedding = "" if self.plan.embedding_bits is None else f", embedding INT{self.plan.embedding_bits}"
        return f"{self.plan.method.upper()} {layers}{embedding}"

    @property
    def folder(self) -> str:
        """What its folder is called."""
        return self.name.lower().replace(", ", "-").replace(" ", "-")


def variants_of(methods: Sequence[str], group_size: int | None, only: Sequence[str] = ()) -> list[Variant]:
    """Float32 first; 8 bits with the embedding left alone or in 8 bits, 4 bits with it left alone, in 8 and in 4 bits.

    Args:
        only: of all but float32 those with these folders, or all if there are none. ValueError for a name that is not among them.
    """
    found = [Variant(None)]
    choices: dict[int, tuple[int | None, ...]] = {8: (None, 8), 4: (None, 8, 4)}
    for method in (method for method in methods if method != "openvino"):
        found += [Variant(Plan(method, bits, group_size, embedding)) for bits, some in choices.items() for embedding in some]
    if "openvino" in methods:
        found += [Variant(None, True), Variant(Plan("nncf", 8), True), Variant(Plan("nncf", 4, group_size), True)]
    names = [variant.folder for variant in found]
    unknown = next((name for name in only if name not in names), None)
    if unknown is not None:
        raise ValueError(f"there is no variant {unknown}; expected some of {', '.join(names[1:])}")
    return [variant for variant in found if not only or variant == found[0] or variant.folder in only]


def make_variant(found: Model, variant: Variant, folder: Path, options: MakingOptions) -> Path:
    """The folder of a variant below `folder`, made where it is not there yet; the network's own for float32."""
    if variant.plan is None and not variant.openvino:
        return Path(found.source)
    place = folder / variant.folder
    if variant.plan is None:
        if not place.is_dir():
            from merino_net.shipping.openvino_model import export_openvino

            model, tokenizer = load_float_model(found)
            with replace_folder(place.resolve()) as new:
                export_openvino(model, new)
                tokenizer.save_pretrained(new)
        return place
    plan = variant.plan
    # A folder is written atomically, its name says the plan but for the groups, and its parent's the network.
    record = read_quantize_record(place)
    wanted = calibration_of(options) if plan.method == "gptq" else None
    if record is not None and record["plan"] == asdict(plan) and _calibration(record) == wanted:
        return place
    arguments = [found.source, "--method", plan.method, "--bits", str(plan.bits), "--output", str(place)]
    if plan.group_size is not None and options.group_size is not None:
        arguments += ["--group-size", str(plan.group_size)]
    if plan.embedding_bits is not None:
        arguments += ["--embedding", str(plan.embedding_bits)]
    if plan.method != "gptq":
        with contextlib.redirect_stdout(io.StringIO()):
            quantize.main(arguments)
        return place
    arguments += ["--text", *options.calibration_text, "--sequences", str(options.sequences), "--seed", str(options.seed)]
    arguments += ["--cache", options.cache, *options.reading_flags.reading.arguments()]
    ended = run_child([options.gptq_python, "-m", "merino_net.quantize", *arguments], stderr=subprocess.PIPE)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"GPTQ did not succeed in {options.gptq_python}: {last.removeprefix('error: ')}")
    return place


def calibration_of(options: MakingOptions) -> Row:
    """What tells one calibration from another."""
    text = _text_sha256(Text(options.calibration_text, reading=options.reading_flags.reading))
    return {"text_sha256": text, "sequences": options.sequences, "seed": options.seed}


@cache
def _text_sha256(text: Text) -> str:
    """Read once, as the text may be long."""
    return text.fingerprint()


def _calibration(record: Row) -> Row | None:
    own = record["calibration"]
    return None if own is None else {key: own[key] for key in ("text_sha256", "sequences", "seed")}


def timed(network: OpenVinoNetwork) -> dict[str, float]:
    """Median seconds of a prefill with all logits, and tokens/s decoded one by one after it; as many as the positions hold."""
    positions = network.config.max_position_embeddings
    prompt = min(PROMPT, positions // 2)
    new_tokens = min(NEW_TOKENS, positions - prompt)
    tokens = np.random.default_rng(0).integers(0, network.config.vocab_size, (1, prompt))
    seconds = []
    for _ in range(_CALLS):
        network.graph.begin()
        start = time.perf_counter()
        logits = network.graph.logits(tokens, np.ones_like(tokens))
        seconds.append(time.perf_counter() - start)
    mask = np.ones((1, prompt + new_tokens), tokens.dtype)
    start = time.perf_counter()
    for step in range(new_tokens):
        logits = network.graph.logits(logits[:, -1:].argmax(-1), mask[:, : prompt + step + 1])
    return {"prefill_s": median(seconds), "tokens_per_s": new_tokens / (time.perf_counter() - start), "prompt": prompt}
