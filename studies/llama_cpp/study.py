"""Designs in llama.cpp: whether it computes what PyTorch does, and how fast designs are there beside a published model.

    python -m studies.llama_cpp
    python -m studies.llama_cpp --parts speed --models smollm2-135m results/design/design.json --threads 2 --weights q8_0

agreement: random designs of the family llama whose layers differ (heads, key/value heads, FFN width, shared or not) are written as
GGUF files, and the log-probabilities of the twenty most probable tokens after a random prompt are compared with PyTorch's: with
weights in single precision and a cache of either precision, and with weights of fewer bits. The weights are random, with standard
deviation 1/√width, by which a map keeps the size of what enters it, and 2/√width, by which it doubles it and differences grow.

speed: prefill and decoding of the models, the first of which the others are compared with. Their weights are random. They take
turns in one process, as in `studies.net_speed`, and llama.cpp's own clock counts.

Writes agreement.jsonl, agreement.json, and in speed/ what `studies.net_speed` writes; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from formulation.architecture import Architecture, Block
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.processes import temporary_folder
from formulation.command.run import command
from formulation.command.words import text_table
from formulation.model_file import read_model
from formulation.records.files import output_folder, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from merino_net.network.registration import require_network
from merino_net.shipping.runtimes import RUNTIMES
from studies.net_speed.study import Bench, TimedTask, Timer, decode_flops, measure_and_write, prefill_flops, random_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from merino_net.shipping.clients.llama_cpp import LlamaServer

_PARTS = ("agreement", "speed")
_GGUF = RUNTIMES["gguf"]
_MODELS = ("smollm2-135m", "studies/results/layers/llama_cpp", "studies/results/layers/params")
_PACKAGES = ("torch", "transformers", "gguf", "xllamacpp")

_TOP = 20
"""Most probable tokens that are compared."""
_PROMPT = 64
_WIDTHS = (128, 192, 256, 384)
_SCALES = (1, 2)
"""Standard deviations of the weights in 1/√width."""
_STEPS = 16
"""Decoding steps that are timed together."""

SETTINGS = {
    "f32, f32 cache": ("f32", {"exact": True}),
    "f32, f16 cache": ("f32", {"flash": False}),
    "f32, f16 cache, flash attention": ("f32", {}),
    "f16": ("f16", {}),
    "q8_0": ("q8_0", {}),
    "q4_0": ("q4_0", {}),
}
"""Number format of the weights, and what else llama.cpp is told: left alone it has a cache in f16 and flash attention."""


def random_design(seed: int) -> Architecture:
    """A design of the family llama whose layers differ in what llama.cpp states for each."""
    drawn = random.Random(seed)
    width, head_size = drawn.choice(_WIDTHS), drawn.choice((32, 64))
    blocks = []
    for _ in range(drawn.randint(2, 6)):
        heads = drawn.randint(1, 2 * width // head_size)
        kv_heads = drawn.choice([number for number in range(1, heads + 1) if heads % number == 0])
        ffn_width = 32 * drawn.randint(2, width // 8)
        shared = drawn.random() < 0.5
        depth = drawn.randint(1, 2)
        blocks.append(Block(width, ffn_width, depth, heads=heads, kv_heads=kv_heads, head_size=head_size, shared=shared))
    return Architecture(
        tuple(blocks),
        family="llama",
        embedding_width=width,
        vocabulary=drawn.choice((512, 1024, 2048)),
        positions=128,
        tied=drawn.random() < 0.5,
    )


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer for networks that know no text: bytes, special tokens, and a pair that is merged, as llama.cpp asks for one."""
    from merino_net.corpus.data import train_tokenizer

    return train_tokenizer(["to to to to"], 259)


def agreement(seed: int, scale: int) -> Row:
    """Differences of a random design's network in llama.cpp from the same in PyTorch [nat].

    Of each setting the largest of the twenty most probable tokens' log-probabilities, and of the most probable token by PyTorch:
    by how much llama.cpp's log-probability of it is lower.
    """
    import torch

    from merino_net import MerinoConfig
    from merino_net.shipping.clients.llama_cpp import LlamaServer

    design = random_design(seed)
    model = random_model(MerinoConfig.from_architecture(design, initializer_range=scale / design.embedding_width**0.5)).eval()
    prompt = torch.randint(design.vocabulary, (1, _PROMPT), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        truth = model(prompt).logits[0, -1].double().log_softmax(-1)
    found = {}
    with temporary_folder() as folder:
        paths = {weights: gguf_file(model, folder / weights, weights) for weights in {weights for weights, _ in SETTINGS.values()}}
        for setting, (weights, told) in SETTINGS.items():
            every = LlamaServer(paths[weights], 1, design.positions, **told).top(prompt[0].tolist(), design.vocabulary)
            top = sorted(every, key=lambda token: -every[token])[:_TOP]
            best = int(truth.argmax())
            found[setting] = {
                "top": max(abs(every[token] - float(truth[token])) for token in top),
                "best": float(truth[best]) - every[best],
            }
    return {"design": design.to_dict(), "spread": float(truth.std()), "differences": found}


def gguf_file(model: PreTrainedModel, folder: Path, weights: str) -> Path:
    """The network as a GGUF file in a new folder."""
    from merino_net.shipping.gguf_model import FILE

    folder.mkdir()
    _GGUF.export(model, byte_tokenizer(), folder, weights)
    return folder / FILE


def agreement_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The worst and the middle of the designs, by how large the weights are and by setting."""
    scales = sorted({row["scale"] for row in rows})
    own = {scale: [row for row in rows if row["scale"] == scale] for scale in scales}
    return {
        "provenance": provenance(0, _PACKAGES),
        "tokens": _TOP,
        "prompt": _PROMPT,
        "scales": [
            {
                "scale": scale,
                "designs": len(own[scale]),
                "median_spread": median(row["spread"] for row in own[scale]),
                "settings": {setting: _differences(own[scale], setting) for setting in rows[0]["differences"]},
            }
            for scale in scales
        ],
    }


def _differences(rows: Sequence[Row], setting: str) -> dict[str, float]:
    top, best = ([row["differences"][setting][what] for row in rows] for what in ("top", "best"))
    return {"largest": max(top), "median": median(top), "median_of_best": median(best)}


def agreement_text(summary: dict[str, Any]) -> str:
    """The agreement for people."""
    parts = []
    for each in summary["scales"]:
        lines = [
            (setting, f"{own['largest']:.2g}", f"{own['median']:.2g}", f"{own['median_of_best']:+.2g}")
            for setting, own in each["settings"].items()
        ]
        parts.append(
            f"llama.cpp against PyTorch: log-probabilities [nat] of the {summary['tokens']} most probable tokens after "
            f"{summary['prompt']}, {each['designs']} random designs, weights {each['scale']}/√width\n"
            + text_table(("weights", "largest", "median", "of the most probable"), lines, {0})
        )
    return "\n\n".join(parts)


def measure_agreement(designs: int, folder: Path) -> None:
    """Compare what is missing, then print and write all."""
    keys = {f"agreement {seed}, weights {scale}": (seed, scale) for scale in _SCALES for seed in range(designs)}
    file = RowFile(folder / "agreement.jsonl")
    with Resume(file, keys, unit="network") as resume:
        rows = [resume.row(key, partial(_agreement_row, key, *each)) for key, each in keys.items()]
    summary = agreement_summary(rows)
    print(f"\n{agreement_text(summary)}\n")
    write_json(folder / "agreement.json", summary)


def _agreement_row(key: str, seed: int, scale: int) -> Row:
    return {"key": key, "seed": seed, "scale": scale, **agreement(seed, scale)}


def speed_benches(
    models: dict[str, PreTrainedConfig], weights: Sequence[str], threads: Sequence[int], prompt: int, turns: int
) -> list[Bench]:
    """Prefill and decoding of models by name, the first being the reference, in each format and with each number of threads."""
    versions = {"xllamacpp": importlib.metadata.version("xllamacpp")}
    benches = []
    for form in weights:
        for number in threads:
            setting = {"prompt": prompt, "threads": number, "cpus": os.cpu_count(), "versions": versions}
            runtime = f"{_GGUF.title} {form}, {number} thread{'s' if number > 1 else ''}"
            flops = {name: prefill_flops(config, prompt, 1) for name, config in models.items()}
            steps = {name: decode_flops(config, prompt, _STEPS) for name, config in models.items()}
            tasks = (
                TimedTask("prefill", "last logit", runtime, setting, prompt, flops, 1, partial(_prefill_timer, prompt=prompt)),
                TimedTask(
                    "decode", "", runtime, setting | {"new_tokens": _STEPS}, _STEPS, steps, 1, partial(_decode_timer, prompt=prompt)
                ),
            )
            build = partial(_engine, weights=form, threads=number, prompt=prompt)
            benches.append(Bench(models, (next(iter(models)),), turns, build, tasks))
    return benches


def _engine(config: PreTrainedConfig, stack: ExitStack, weights: str, threads: int, prompt: int) -> LlamaServer:
    """A model with random weights in llama.cpp; its file goes with the stack."""
    from merino_net.shipping.clients.llama_cpp import LlamaServer

    folder = stack.enter_context(temporary_folder())
    return LlamaServer(gguf_file(random_model(config).eval(), folder / weights, weights), threads, prompt + _STEPS + 2)


def _tokens(model: LlamaServer, count: int) -> list[int]:
    drawn = random.Random(0)
    return [drawn.randrange(model.vocabulary) for _ in range(count)]


def _prefill_timer(model: LlamaServer, prompt: int) -> Timer:
    tokens = _tokens(model, prompt)
    return lambda: model.prefill_ms(tokens) / 1e3


def _decode_timer(model: LlamaServer, prompt: int) -> Timer:
    tokens = _tokens(model, prompt)
    return lambda: _STEPS * model.decode_ms(tokens, _STEPS) / 1e3


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--parts", nargs="+", default=list(_PARTS), choices=_PARTS, help="what to do (default: both)")
    parser.add_argument("--designs", type=int, default=20, metavar="N", help="random designs to compare (default 20)")
    parser.add_argument(
        "--models",
        nargs="+",
        default=list(_MODELS),
        metavar="MODEL",
        help=f"names or files as `merino cost` reads them (default: {' '.join(_MODELS)})",
    )
    parser.add_argument(
        "--weights", nargs="+", default=["q8_0", "f16"], choices=_GGUF.weights, help="of the speed (default: q8_0 f16)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="of llama.cpp (default: 1 2)")
    parser.add_argument("--seq-len", type=int, default=256, metavar="T", help="tokens of the prompt (default 256)")
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="turns of each model (default 8)")
    parser.add_argument(
        "--output", default="results/llama_cpp", metavar="DIR", help="folder of the results (default results/llama_cpp)"
    )
    return parser


@dataclass(frozen=True)
class LlamaCppOptions:
    """What the study was asked for, see --help; ValueError for a number below 1."""

    parts: tuple[str, ...]
    designs: int
    models: tuple[str, ...]
    weights: tuple[str, ...]
    threads: tuple[int, ...]
    seq_len: int
    rounds: int
    output: str

    def __post_init__(self) -> None:
        numbers = {"designs": self.designs, "threads": min(self.threads), "seq-len": self.seq_len, "rounds": self.rounds}
        for flag, number in numbers.items():
            if number < 1:
                raise ValueError(f"--{flag} is {number}; expected at least 1")


def configurations(sources: Sequence[str]) -> dict[str, PreTrainedConfig]:
    """Configurations of models by what they were named, or by the folder of a design's file."""
    from merino_net import MerinoConfig

    named = {Path(source).parent.name if source.endswith(".json") else Path(source).name: source for source in sources}
    return {name: MerinoConfig.from_architecture(read_model(source)) for name, source in named.items()}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(LlamaCppOptions, command_line(), arguments)
    require_network()
    _GGUF.require()
    models = configurations(options.models) if "speed" in options.parts else {}
    folder = output_folder(options.output)
    import torch

    torch.set_num_threads(1)
    if "agreement" in options.parts:
        measure_agreement(options.designs, folder)
    if "speed" in options.parts:
        benches = speed_benches(models, options.weights, options.threads, options.seq_len, options.rounds)
        return measure_and_write(benches, output_folder(str(folder / "speed")))
    return 0
