"""Speed of designed networks: are they as fast as their FLOPs say, beside transformers' own GPT-2, Llama and OPT on one machine?

    python -m studies.net_speed
    python -m studies.net_speed --parts train --dtype float32 --compile

Three parts: training against a GPT-2 and a Llama of equal FLOPs, and prefill of one query and cached decoding against OPT-125M and
OPT-350M. All weights are random, as speed does not depend on them. The models take turns in one process, with the same allocator,
threads and precision, and what is reported is the ratio of two times of one turn, so that a machine that is slow for a while slows
both. Writes rows.jsonl (a finished turn is never run twice; other settings or versions are distinguished), summary.json over all
its rows, and net_speed.png, which `studies.net_speed.figures` draws.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from formulation import PUBLISHED
from formulation.architecture import HEAD_SIZE, Architecture, Block
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.processes import temporary_folder
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.layer import make_layer
from formulation.published import FFN_RATIO, PUBLISHED_MS, PUBLISHED_TOKENS
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from merino_net.network.counting import forward_flops, parameter_count
from merino_net.network.registration import require_network
from merino_net.training.allocator import keep_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel

    from merino_net import MerinoConfig
    from merino_net.shipping.onnx_model import OnnxModel

SPEED_PARTS = ("train", "prefill", "decode")
DTYPES = ("bfloat16", "float32")
SPEED_RUNTIMES = {"torch": "PyTorch float32", "torch-bf16": "PyTorch bfloat16", "onnx": "ONNX Runtime float32"}
"""What prefill and decoding run in: name on the command line to name in tables."""

_SEED = 0
_EQUAL = 0.01
"""FLOPs that differ by less, relatively, count as equal."""
_RESAMPLES = 10_000
_DISTURBED = 0.1
"""Cores in use by others, of those that the threads need, above which the report says that the figures are not to be trusted."""


def equal_gpt2(config: MerinoConfig, seq_len: int, activation: str = "gelu_new") -> GPT2Config:
    """A GPT-2 whose forward pass over `seq_len` tokens takes as many FLOPs as the design's; same vocabulary, positions, head size.

    Its layers have the maps of ours, and all tokens pass the head. Of all shapes (E a multiple of 64, F of 16) whose FLOPs, as
    `forward_flops` counts them, are within 1 % of the design's, it is the one with F / E nearest GPT-2's, of several the nearest.
    activation is by its name in transformers: "gelu_new" is GPT-2's own, written out in eight operations; "gelu" is a single one.
    """
    from transformers import GPT2Config

    design = config.to_architecture()
    widest = 2 * max(config.embedding_width, *design.widths)
    grid = np.meshgrid(
        np.arange(1, 2 * sum(design.depths) + 1),
        np.arange(HEAD_SIZE, widest + 1, HEAD_SIZE),
        np.arange(16, FFN_RATIO * widest + 1, 16),
        indexing="ij",
    )
    layers, width, ffn_width = (axis.ravel() for axis in grid)
    each = make_layer(width, ffn_width, width // HEAD_SIZE)
    flops = layers * each.flops(seq_len, seq_len) + 2 * seq_len * config.vocab_size * width
    off = abs(flops / forward_flops(config, seq_len) - 1)
    best = np.lexsort((off, abs(ffn_width / width - FFN_RATIO), np.maximum(off, _EQUAL)))[0]
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.max_position_embeddings,
        n_layer=int(layers[best]),
        n_embd=int(width[best]),
        n_inner=int(ffn_width[best]),
        n_head=int(width[best]) // HEAD_SIZE,
        activation_function=activation,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.attention_dropout,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        # The loss that both have. Transformers does not tell it from the name of GPT-2's class, and would say so at every start.
        loss_type="ForCausalLM",  # type: ignore[call-arg]
    )


def _llama_layer(ffn_width: int, heads: int) -> Block:
    return Block(576, ffn_width, 1, heads=heads, kv_heads=3)


PER_LAYER = Architecture(
    tuple(_llama_layer(*shape) for _ in range(4) for shape in ((1152, 12), (1920, 6), (1536, 9))),
    family="llama",
    tied=True,
    vocabulary=16_384,
    positions=1024,
)
"""Twelve layers at SmolLM2-135M's width in three shapes, whose mean is that model's layer (F = 1,536, 9 heads, 3 of them k/v)."""


def mean_layer(design: Architecture) -> Architecture:
    """As many layers of the mean FFN width and heads: as many FLOPs and parameters, as both are linear in them at one width.

    Raises:
        ValueError: if a mean is not a whole number, or the layers differ in anything else.
    """
    blocks = design.blocks
    means = {name: sum(getattr(block, name) for block in blocks) / len(blocks) for name in ("ffn_width", "heads")}
    alike = {dataclasses.replace(block, ffn_width=blocks[0].ffn_width, heads=blocks[0].heads) for block in blocks}
    if len(alike) > 1 or blocks[0].depth != 1 or not all(mean.is_integer() for mean in means.values()):
        raise ValueError(f"the layers {design} have no mean layer; expected single layers that differ in FFN width and heads alone")
    block = dataclasses.replace(blocks[0], ffn_width=int(means["ffn_width"]), heads=int(means["heads"]))
    return dataclasses.replace(design, blocks=(block,) * len(blocks))


def plain_llama(design: Architecture) -> LlamaConfig:
    """transformers' own configuration of a llama design whose layers are all alike."""
    from transformers import LlamaConfig

    block = design.blocks[0]
    return LlamaConfig(
        vocab_size=design.vocabulary,
        hidden_size=block.width,
        intermediate_size=block.ffn_width,
        num_hidden_layers=sum(each.depth for each in design.blocks),
        num_attention_heads=block.heads,
        num_key_value_heads=block.kv_heads,
        head_dim=block.head_size,
        max_position_embeddings=design.positions,
        tie_word_embeddings=design.tied,
    )


@dataclass(frozen=True)
class Shapes:
    """How much is run at a time.

    Attributes:
        batch: of a training step; `steps` of them are timed together.
        seq_len: of a training step; `steps` of them are timed together.
        prompt: tokens of a query; of `calls` prefills the median counts.
        new_tokens: decoded after it, one by one.
    """

    batch: int = 8
    seq_len: int = 256
    steps: int = 2
    prompt: int = 128
    calls: int = 3
    new_tokens: int = 64


_QUICK_RUNTIMES = ("torch", "torch-bf16")
"""Without ONNX, as its export takes longer than all the rest."""

_QUICK_SHAPES = Shapes(batch=1, seq_len=128, steps=1, prompt=64, calls=2, new_tokens=8)

Timer = Callable[[], float]
"""Does its work once and returns the seconds it took."""


@dataclass(frozen=True)
class TimedTask:
    """The same work for several models, timed in turns.

    Attributes:
        part: what it is; `work` distinguishes the two prefills.
        work: what it is; `work` distinguishes the two prefills.
        runtime: what it runs in.
        setting: what else the times depend on.
        tokens: that one timing works on.
        flops: of one timing, by model.
        warm_up: timings of each model before the first turn, which do not count.
        timer: the timer of a model that a `Bench` built.
    """

    part: str
    work: str
    runtime: str
    setting: Mapping[str, Any]
    tokens: int
    flops: Mapping[str, int]
    warm_up: int
    timer: Callable[[Any], Timer]


@dataclass(frozen=True)
class Bench:
    """Tasks on the same models. They are built only where a turn is missing, and let go after the last task.

    Attributes:
        references: the models that the others are compared with.
        turns: of every task; in each one every model is timed once, and in every second one in reverse order.
        build: a model ready to be timed, from its name and configuration; it may put a clean-up on the stack.
    """

    models: Mapping[str, PreTrainedConfig]
    references: Sequence[str]
    turns: int
    build: Callable[[PreTrainedConfig, ExitStack], Any]
    tasks: tuple[TimedTask, ...]


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model in float32 with random weights, the same ones every time, and PyTorch's own attention kernel.

    It keeps a copy of the configuration: transformers writes the attention into the one it is given, where all who share it
    would use it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(_SEED)
    own = copy.deepcopy(config)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(own, dtype=torch.float32, attn_implementation="sdpa")
    return model


def fixed_tokens(config: PreTrainedConfig, batch: int, length: int) -> Tensor:
    """Tokens (batch, length), the same ones every time."""
    import torch

    return torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(_SEED))


def _setting(threads: int, packages: Iterable[str], **shape: int) -> dict[str, Any]:
    return {
        **shape,
        "threads": threads,
        "cpus": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def train_bench(config: MerinoConfig, shapes: Shapes, dtype: str, compiled: bool, threads: int, turns: int) -> Bench:
    """Training a design beside GPT-2 of equal FLOPs: transformers' own, and one whose activation is a single operation.

    Args:
        dtype: "float32", or "bfloat16" by autocast (weights, gradients and optimizer stay float32).
    """
    name = next((name for name, design in PUBLISHED.items() if design == config.to_architecture()), str(config.to_architecture()))
    gpt2 = {"GPT-2": "gelu_new", "GPT-2, one-kernel GELU": "gelu"}
    models = {name: config} | {title: equal_gpt2(config, shapes.seq_len, activation) for title, activation in gpt2.items()}
    return _training(models, tuple(gpt2), "", shapes, dtype, compiled, threads, turns)


def llama_bench(design: Architecture, shapes: Shapes, dtype: str, compiled: bool, threads: int, turns: int) -> Bench:
    """Training a llama design of unequal layers, and its mean layer, beside transformers' Llama of that one: equal FLOPs all."""
    from merino_net import MerinoConfig

    uniform = mean_layer(design)
    models: dict[str, PreTrainedConfig] = {
        "unequal layers": MerinoConfig.from_architecture(design),
        "their mean layer": MerinoConfig.from_architecture(uniform),
        "Llama": plain_llama(uniform),
    }
    return _training(models, ("Llama",), "llama family", shapes, dtype, compiled, threads, turns)


def _training(
    models: Mapping[str, PreTrainedConfig],
    references: Sequence[str],
    work: str,
    shapes: Shapes,
    dtype: str,
    compiled: bool,
    threads: int,
    turns: int,
) -> Bench:
    """Training steps of all models, those of `references` being compared with."""
    # For every product of the forward pass the backward pass computes two, by its input and by its weight.
    per_sequence = {title: 3 * forward_flops(own, shapes.seq_len) for title, own in models.items()}
    task = TimedTask(
        part="train",
        work=work,
        runtime=f"PyTorch {dtype}{', compiled' if compiled else ''}",
        setting=_setting(threads, ("torch", "transformers"), batch=shapes.batch, seq_len=shapes.seq_len),
        tokens=shapes.steps * shapes.batch * shapes.seq_len,
        flops={title: shapes.steps * shapes.batch * flops for title, flops in per_sequence.items()},
        warm_up=math.ceil(3 / shapes.steps),
        timer=lambda model: _training_timer(model, shapes, dtype == "bfloat16", compiled),
    )
    return Bench(models, references, turns, lambda own, stack: random_model(own).train(), (task,))


def _training_timer(model: PreTrainedModel, shapes: Shapes, autocast: bool, compiled: bool) -> Timer:
    """Seconds of some steps on one batch: forward pass with the loss, backward pass, fused AdamW."""
    import torch

    tokens = fixed_tokens(model.config, shapes.batch, shapes.seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    forward: Callable[..., Any] = torch.compile(model) if compiled else model

    def run() -> float:
        start = time.perf_counter()
        for _ in range(shapes.steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                # Left to their default, both would copy all keys and values into a cache that nobody reads.
                loss = forward(input_ids=tokens, labels=tokens, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    return run


class InferenceEngine(Protocol):
    """A model in a runtime, with a query to answer."""

    def prefill(self, logits_to_keep: int) -> None:
        """Compute the logits of the query's last tokens; 0: of all."""

    def decode(self, new_tokens: int) -> float:
        """Answer with the most probable tokens; the seconds of the steps after the prefill.

        A step is the forward pass with its cache and the choice of the token, without the checks that generate() makes.
        """


@dataclass(frozen=True)
class TorchEngine:
    """PyTorch; the cache is transformers' DynamicCache."""

    model: PreTrainedModel
    prompt: Tensor

    def prefill(self, logits_to_keep: int) -> None:
        import torch

        with torch.inference_mode():
            self.model(input_ids=self.prompt, use_cache=False, logits_to_keep=logits_to_keep)

    def decode(self, new_tokens: int) -> float:
        import torch
        from transformers import DynamicCache

        with torch.inference_mode():
            step = partial(self.model, past_key_values=DynamicCache(config=self.model.config), use_cache=True, logits_to_keep=1)
            token = step(input_ids=self.prompt).logits.argmax(-1)
            start = time.perf_counter()
            for _ in range(new_tokens):
                token = step(input_ids=token).logits.argmax(-1)
            return time.perf_counter() - start


@dataclass(frozen=True)
class OnnxEngine:
    """ONNX Runtime; the graph gives back its cache, which goes into the next step."""

    model: OnnxModel
    prompt: np.ndarray

    def prefill(self, logits_to_keep: int) -> None:
        self.model.prefill(self.prompt, logits_to_keep=logits_to_keep)

    def decode(self, new_tokens: int) -> float:
        logits, cache = self.model.prefill(self.prompt)
        start = time.perf_counter()
        for _ in range(new_tokens):
            logits, cache = self.model.logits(logits.argmax(-1), cache=cache)
        return time.perf_counter() - start


def torch_engine(config: PreTrainedConfig, stack: ExitStack, prompt: int, dtype: torch.dtype) -> TorchEngine:
    """The random model in PyTorch with a query of `prompt` tokens; it leaves nothing to clean up."""
    model = random_model(config).eval()
    model.to(dtype=dtype)
    return TorchEngine(model, fixed_tokens(config, 1, prompt))


def onnx_engine(config: PreTrainedConfig, stack: ExitStack, prompt: int, threads: int) -> OnnxEngine:
    """The random model in ONNX Runtime with a query of `prompt` tokens, exported to a temporary folder that goes with the stack."""
    from merino_net.shipping.onnx_model import export_onnx, load_onnx

    folder = stack.enter_context(temporary_folder())
    export_onnx(random_model(config).eval(), folder)
    return OnnxEngine(load_onnx(folder, threads), fixed_tokens(config, 1, prompt).numpy())


def inference_benches(
    designs: Mapping[str, PreTrainedConfig],
    references: Mapping[str, PreTrainedConfig],
    parts: Sequence[str],
    runtimes: Sequence[str],
    shapes: Shapes,
    threads: int,
    turns: int,
) -> list[Bench]:
    """In each runtime: prefill of one query with the last token's logits, with all logits, and cached decoding after it."""
    models = {**designs, **references}
    prompt, new_tokens = shapes.prompt, shapes.new_tokens
    last, every, decoding = (
        {name: count(config) for name, config in models.items()}
        for count in (
            partial(prefill_flops, tokens=prompt, logits=1),
            partial(prefill_flops, tokens=prompt, logits=prompt),
            partial(decode_flops, prompt=prompt, new_tokens=new_tokens),
        )
    )
    benches = []
    for runtime in runtimes:
        title, onnx = SPEED_RUNTIMES[runtime], runtime == "onnx"
        setting = _setting(threads, ("onnxruntime" if onnx else "torch", "transformers"), prompt=prompt)
        tasks = []
        if "prefill" in parts:
            for what, keep, flops in (("last logit", 1, last), ("all logits", 0, every)):
                timer = partial(_prefill_timer, logits_to_keep=keep, calls=shapes.calls)
                tasks.append(TimedTask("prefill", what, title, setting, prompt, flops, 1, timer))
        if "decode" in parts:
            timer = partial(_decode_timer, new_tokens=new_tokens)
            tasks.append(TimedTask("decode", "", title, setting | {"new_tokens": new_tokens}, new_tokens, decoding, 1, timer))
        build: Callable[[PreTrainedConfig, ExitStack], InferenceEngine]
        if onnx:
            build = partial(onnx_engine, prompt=prompt, threads=threads)
        else:
            import torch

            dtype = torch.bfloat16 if runtime == "torch-bf16" else torch.float32
            build = partial(torch_engine, prompt=prompt, dtype=dtype)
        benches.append(Bench(models, tuple(references), turns, build, tuple(tasks)))
    return benches


def _prefill_timer(engine: InferenceEngine, logits_to_keep: int, calls: int) -> Timer:
    """Median seconds of several prefills after one that brings the model back into the processor's caches."""

    def run() -> float:
        engine.prefill(logits_to_keep)
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            engine.prefill(logits_to_keep)
            seconds.append(time.perf_counter() - start)
        return median(seconds)

    return run


def _decode_timer(engine: InferenceEngine, new_tokens: int) -> Timer:
    return partial(engine.decode, new_tokens)


def prefill_flops(config: PreTrainedConfig, tokens: int, logits: int) -> int:
    """FLOPs of a forward pass over `tokens` tokens whose output head works on `logits` of them."""
    head = forward_flops(config, 1) - forward_flops(config, 1, head=False)
    return forward_flops(config, tokens, head=False) + logits * head


def decode_flops(config: PreTrainedConfig, prompt: int, new_tokens: int) -> int:
    """FLOPs of `new_tokens` cached steps after `prompt` tokens.

    A forward pass over T tokens takes aT + bT² FLOPs, where b is from attention: so a step that attends to c tokens, its own
    included, takes a + bc.
    """
    once, twice = forward_flops(config, 1), forward_flops(config, 2)
    b = (twice - 2 * once) // 2
    return sum(once - b + b * context for context in range(prompt + 1, prompt + new_tokens + 1))


def weights_read(model: nn.Module) -> int:
    """Number of parameters that a decoding step goes through, each once: all but the embeddings of which it looks up a row.

    A tied embedding is the output head as well, and counts.
    """
    from torch import nn

    read = {
        id(parameter): parameter.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    return sum(read.values())


def _size(config: PreTrainedConfig) -> dict[str, int]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {"parameters": parameter_count(model), "weights_read": weights_read(model)}


_MEASURED = ("turn", "order", "seconds", "other_cores")
"""What a row says besides what it describes."""


class Load:
    """What else the machine does, from now on.

    It matters: where a core is shared, every operation waits at its end for the slower thread, some milliseconds each, and a
    network of many small operations loses several times its speed while one of few large ones does not.
    """

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds that all processors worked (nan where the system is not Linux), we worked, and passed."""
        try:
            user, nice, system, _, _, irq, soft_irq, steal, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except (OSError, ValueError):
            busy = math.nan
        else:
            busy = sum(map(int, (user, nice, system, irq, soft_irq, steal))) / os.sysconf("SC_CLK_TCK")
        return busy, time.process_time(), time.perf_counter()

    def other_cores(self) -> float | None:
        """How many cores other processes kept at work on average; None if the system does not tell."""
        busy, own, passed = (now - start for now, start in zip(self._now(), self._start, strict=True))
        return None if math.isnan(busy) else max(0.0, (busy - own) / passed)


def run_benches(benches: Sequence[Bench], file: RowFile) -> None:
    """Measure the turns that the file does not hold yet. Raises KeyboardInterrupt when stopped: finished turns are kept."""
    kept = keep_memory()
    plan = []
    for bench in benches:
        sizes = {name: _size(config) for name, config in bench.models.items()}
        for task in bench.tasks:
            description = {
                "part": task.part,
                "work": task.work,
                "runtime": task.runtime,
                "setting": {**task.setting, "memory_kept": kept},
                "tokens": task.tokens,
                "models": {name: {"flops": task.flops[name], **size} for name, size in sizes.items()},
                "references": list(bench.references),
            }
            plan.append((bench, task, [description | {"turn": turn} for turn in range(bench.turns)]))
    with Resume(file, [_key(row) for *_, rows in plan for row in rows], key_of=_key, unit="turn") as resume:
        for bench in benches:
            left = [(task, [row for row in rows if _key(row) not in resume]) for own, task, rows in plan if own is bench]
            missing = [(task, rows) for task, rows in left if rows]
            if missing:
                _run_bench(bench, missing, resume)


def _description(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in _MEASURED}


def _key(row: Row) -> tuple[str, int]:
    """What was measured, and in which turn."""
    return json.dumps(_description(row), sort_keys=True), row["turn"]


def _run_bench(bench: Bench, missing: Sequence[tuple[TimedTask, Sequence[Row]]], resume: Resume[tuple[str, int]]) -> None:
    with ExitStack() as stack:
        models = {}
        for name, config in bench.models.items():
            resume.note(f"{missing[0][0].runtime}: preparing {name}")
            models[name] = bench.build(config, stack)
        for task, rows in missing:
            resume.note(", ".join(filter(None, (task.part, task.work, task.runtime))))
            timers = {name: task.timer(model) for name, model in models.items()}
            for timer in timers.values():
                for _ in range(task.warm_up):
                    timer()
            for row in rows:
                order = list(timers)[:: -1 if row["turn"] % 2 else 1]
                load = Load()
                seconds = {name: timers[name]() for name in order}
                resume.add(_key(row), row | {"order": order, "seconds": seconds, "other_cores": load.other_cores()})


def ratio_of(own: Sequence[float], reference: Sequence[float]) -> dict[str, float | None]:
    """How many times as fast as the reference: geometric mean of its seconds by ours over the turns, and its 95 % interval.

    The interval is the bootstrap's: from the 2.5 to the 97.5 percentile of the mean over turns drawn with replacement. None
    where there is a single turn.
    """
    logarithms = np.log(np.array(reference) / np.array(own))
    drawn = np.random.default_rng(_SEED).integers(len(logarithms), size=(_RESAMPLES, len(logarithms)))
    low, high = np.exp(np.quantile(logarithms[drawn].mean(1), (0.025, 0.975)))
    single = len(logarithms) < 2
    return {
        "ratio": float(np.exp(logarithms.mean())),
        "low": None if single else float(low),
        "high": None if single else float(high),
    }


def speed_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers of the study, ready for JSON: one record per task, alike tasks together."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(_description(row), sort_keys=True), []).append(row)
    measured = sorted(groups.values(), key=lambda group: (SPEED_PARTS.index(group[0]["part"]), group[0]["work"]))
    packages = ("torch", "transformers", "onnxruntime", "onnx", "numpy")
    return {"provenance": provenance(_SEED, packages), "tasks": [_task_record(group) for group in measured]}


def _task_record(group: Sequence[Row]) -> dict[str, Any]:
    description = _description(group[0])
    seconds = {name: [row["seconds"][name] for row in group] for name in description["models"]}
    references = description["references"]
    models = []
    for name, size in description["models"].items():
        lower, middle, upper = (float(value) for value in np.quantile(seconds[name], (0.25, 0.5, 0.75)))
        models.append({"model": name, **size, "seconds": middle, "lower_quartile": lower, "upper_quartile": upper})
    ratios = [
        _ratio_record(name, reference, description, seconds)
        for name in description["models"]
        if name not in references
        for reference in references
    ]
    loads = [row["other_cores"] for row in group if row["other_cores"] is not None]
    others = fmean(loads) if loads else None
    return {**description, "models": models, "turns": len(group), "other_cores": others, "ratios": ratios}


def _ratio_record(name: str, reference: str, description: Row, seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    own, other = description["models"][name], description["models"][reference]
    like_paper = description["part"] == "prefill" and description["tokens"] == PUBLISHED_TOKENS
    known = like_paper and {name, reference} <= PUBLISHED_MS.keys()
    return {
        "model": name,
        "reference": reference,
        **ratio_of(seconds[name], seconds[reference]),
        "by_flops": other["flops"] / own["flops"],
        "by_weights": other["weights_read"] / own["weights_read"] if description["part"] == "decode" else None,
        "paper": PUBLISHED_MS[reference] / PUBLISHED_MS[name] if known else None,
    }


def speed_text(summary: dict[str, Any]) -> str:
    """The study for people."""
    parts = []
    for task in summary["tasks"]:
        parts.append(f"{_title(task)}\n{times_table(task)}\n\n{ratios_table(task)}")
        setting, others = task["setting"], task["other_cores"]
        if others is not None and others > setting["cpus"] - setting["threads"] + _DISTURBED * setting["threads"]:
            parts.append(
                f"Not to be trusted: other processes kept {others:.1f} of {counted(setting['cpus'], 'core')} at work meanwhile. "
                "Repeat it on an idle machine, with another --output."
            )
    return "\n\n".join(parts)


def _title(task: dict[str, Any]) -> str:
    setting = task["setting"]
    shape = {
        "train": f"batches of {setting.get('batch')} × {setting.get('seq_len')} tokens",
        "prefill": f"one query of {counted(setting.get('prompt', 0), 'token')}",
        "decode": f"{counted(task['tokens'], 'token')} after {setting.get('prompt')}, one by one",
    }[task["part"]]
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    memory = "" if setting["memory_kept"] else ", freed memory given back"
    name = ", ".join(filter(None, (task["part"].capitalize(), task["work"], task["runtime"])))
    threads, turns = counted(setting["threads"], "thread"), counted(task["turns"], "turn")
    return f"{name}: {shape}, {threads}, {turns} ({versions}{memory})"


def times_table(task: dict[str, Any]) -> str:
    """Per model of a task: size, work per token, median speed with its quartiles, and how much of the processor it gets."""
    prefill = task["part"] == "prefill"
    lines = []
    for each in task["models"]:
        seconds = [each[key] for key in ("lower_quartile", "seconds", "upper_quartile")]
        values = [1000 * value for value in seconds] if prefill else [task["tokens"] / value for value in reversed(seconds)]
        low, middle, high = (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in values)
        lines.append(
            (
                each["model"],
                f"{each['parameters'] / 1e6:.1f}",
                f"{each['flops'] / task['tokens'] / 1e6:.1f}",
                middle,
                f"{low} … {high}",
                f"{each['flops'] / each['seconds'] / 1e9:.1f}",
            )
        )
    speed = "ms" if prefill else "tokens/s"
    return text_table(("model", "M parameters", "MFLOPs/token", speed, "quartiles", "GFLOP/s"), lines, {0})


def ratios_table(task: dict[str, Any]) -> str:
    """Per pair of a task: how many times as fast the design is, and how many it should be by what it computes or reads."""
    extra = {"by_weights": "by weights read", "paper": "paper, Jetson"}
    shown = {key: title for key, title in extra.items() if any(each[key] is not None for each in task["ratios"])}
    lines = [
        (
            each["model"],
            each["reference"],
            f"{each['ratio']:.3f}",
            "-" if each["low"] is None else f"{each['low']:.3f} … {each['high']:.3f}",
            f"{each['by_flops']:.3f}",
            *("-" if each[key] is None else f"{each[key]:.2f}" for key in shown),
        )
        for each in task["ratios"]
    ]
    return text_table(("design", "against", "times as fast", "95 % interval", "by FLOPs", *shown.values()), lines, {0, 1})


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parts = ", ".join(SPEED_PARTS)
    parser.add_argument("--parts", default=",".join(SPEED_PARTS), metavar="NAMES", help=f"of {parts} (default: all)")
    parser.add_argument(
        "--dtype", default="bfloat16", metavar="NAME", help=f"of training: {' or '.join(DTYPES)} (default bfloat16, by autocast)"
    )
    parser.add_argument("--compile", action="store_true", help="train with torch.compile, all models")
    parser.add_argument(
        "--runtimes",
        metavar="NAMES",
        help=f"of prefill and decoding: {', '.join(SPEED_RUNTIMES)} (default: all; with --quick {', '.join(_QUICK_RUNTIMES)})",
    )
    parser.add_argument("--alternations", type=int, metavar="N", help="turns of training (default 12; with --quick 3)")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of prefill and decoding (default 8; with --quick 3)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of PyTorch and ONNX Runtime (default 2)")
    parser.add_argument(
        "--output", default="results/net_speed", metavar="DIR", help="folder of the results (default results/net_speed)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="few turns, short texts, MeRino-52M and OPT-125M, PyTorch: under a minute"
    )
    return parser


@dataclass(frozen=True)
class NetSpeedOptions:
    """What the study was asked for, see --help; ValueError for a number below 1."""

    parts: str
    dtype: str
    compile: bool
    runtimes: str | None
    alternations: int | None
    rounds: int | None
    threads: int
    output: str
    quick: bool

    def __post_init__(self) -> None:
        for flag, number in (("alternations", self.alternations), ("rounds", self.rounds), ("threads", self.threads)):
            if number is not None and number < 1:
                raise ValueError(f"--{flag} is {number}; expected at least 1")


def benches_of(options: NetSpeedOptions) -> list[Bench]:
    """What a command line asks for; ValueError naming the flag that is wrong."""
    quick = options.quick
    parts = _names("--parts", options.parts, SPEED_PARTS)
    runtimes = list(_QUICK_RUNTIMES if quick else SPEED_RUNTIMES)
    if options.runtimes is not None:
        runtimes = _names("--runtimes", options.runtimes, tuple(SPEED_RUNTIMES))
    (dtype,) = _names("--dtype", options.dtype, DTYPES, most=1)
    turns = options.alternations or (3 if quick else 12)
    rounds = options.rounds or (3 if quick else 8)
    if "onnx" in runtimes and {"prefill", "decode"} & set(parts):
        _check_onnx(runtimes)
    require_network()
    from merino_net import MerinoConfig
    from merino_net.network.baselines import baseline_config

    shapes = _QUICK_SHAPES if quick else Shapes()
    benches = []
    if "train" in parts:
        benches.append(train_bench(MerinoConfig(), shapes, dtype, options.compile, options.threads, turns))
        benches.append(llama_bench(PER_LAYER, shapes, dtype, options.compile, options.threads, turns))
    if {"prefill", "decode"} & set(parts):
        designs = list(PUBLISHED)[: 1 if quick else None]
        references = ["OPT-125M"] if quick else ["OPT-125M", "OPT-350M"]
        benches += inference_benches(
            {name: MerinoConfig.from_architecture(PUBLISHED[name]) for name in designs},
            {name: baseline_config(name) for name in references},
            parts,
            runtimes,
            shapes,
            options.threads,
            rounds,
        )
    return benches


def _names(flag: str, text: str, known: Sequence[str], most: int | None = None) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if not set(names) <= set(known) or len(names) > (most or len(known)):
        raise ValueError(f"{flag} is {text!r}; expected {'one' if most == 1 else 'some'} of {', '.join(known)}")
    return names


def _check_onnx(runtimes: Sequence[str]) -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        others = ",".join(name for name in runtimes if name != "onnx") or "torch"
        raise ValueError(f"{missing[0]} is not installed; run pip install {' '.join(missing)}, or use --runtimes {others}")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(NetSpeedOptions, command_line(), arguments)
    benches = benches_of(options)
    folder = output_folder(options.output)
    import torch

    torch.set_num_threads(options.threads)
    return measure_and_write(benches, folder)


def measure_and_write(benches: Sequence[Bench], folder: Path) -> int:
    """Measure what is missing, then print and write the results of all rows in the folder; returns the exit code."""
    file = RowFile(folder / "rows.jsonl")
    run_benches(benches, file)
    summary = speed_summary(file.rows)
    print(f"\n{speed_text(summary)}")
    write_json(folder / "summary.json", summary)
    from studies.net_speed.figures import draw_speed

    save_figure(draw_speed(summary), folder / "net_speed.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, net_speed.png")
    return 0
