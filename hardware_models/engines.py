"""Networks ready to be timed: a design in a runtime and a precision, with random weights, as a pass to call.

Runtimes that run in this process; those that networks are shipped to are `hardware_models.artefacts`. PyTorch (eager or compiled)
runs `merino_net`'s model, ONNX Runtime the plain network of `hardware_models.profile_standalone`, which computes the same and is
exported in a second instead of fifteen.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import DynamicCache

from formulation import Architecture
from formulation.layer import layer_of, learned_positions, surroundings
from hardware_models.kernels import check_maps, onnx_maps, torch_maps
from hardware_models.latency import LatencyTable
from hardware_models.profile_standalone import (
    Pace,
    conditions,
    deviation,
    in_8_bits,
    table_on,
    trimmed_mean,
)
from hardware_models.workload import Workload
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.modeling_merino import rotary

if TYPE_CHECKING:
    from hardware_models.artefacts import ArtefactEngine

IN_PROCESS: dict[str, tuple[str, ...]] = {
    "torch": ("float32", "bfloat16", "float16", "int8"),
    "compiled": ("float32", "bfloat16", "float16"),
    "onnx": ("float32", "int8"),
}
"""Runtime -> precisions that it has; int8 is dynamic: weights in 8 bits, activations quantized as they come."""

Pass = Callable[[], object]
"""Runs one pass, and returns when it has finished."""


@dataclass(frozen=True)
class Measurement:
    """What one visit to a network gave.

    Attributes:
        trimmed_ms: mean of the middle half of its passes [ms].
        std_ms: standard deviation of all [ms].
        passes: how many.
        pace_ms: of the machine, before and after (`profile_standalone.Pace`).
        artefact_bytes: what was written for the runtime; 0 where it runs in this process.
    """

    trimmed_ms: float
    std_ms: float
    passes: int
    pace_ms: float
    artefact_bytes: int = 0


@dataclass
class Engine:
    """One runtime in one precision for one workload. It keeps what designs have in common: their embedding, compiled passes.

    Attributes:
        runtime: of `IN_PROCESS`.
        precision: of `IN_PROCESS`.
        device: "cpu" or "cuda".
        threads: of the processor.

    Raises:
        ValueError: for a runtime or a precision that there is not.
    """

    runtime: str
    precision: str
    workload: Workload
    device: str = "cpu"
    threads: int = 2
    _embeddings: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict, repr=False, compare=False)
    _compiled: dict[Architecture, Pass] = field(default_factory=dict, repr=False, compare=False)
    _pace: Pace | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.runtime not in IN_PROCESS:
            raise ValueError(f"the runtime is {self.runtime!r}; expected one of {', '.join(IN_PROCESS)}")
        if self.precision not in IN_PROCESS[self.runtime]:
            raise ValueError(
                f"{self.runtime} has no precision {self.precision!r}; expected one of {', '.join(IN_PROCESS[self.runtime])}"
            )
        if self.device != "cpu" and (self.precision == "int8" or self.runtime == "onnx"):
            raise ValueError(f"{self.runtime} in {self.precision} is measured on the CPU only; leave it out or use device cpu")

    @property
    def name(self) -> str:
        """runtime-precision-phase, the name of its table in a device file."""
        return f"{self.runtime}-{self.precision}-{self.workload.phase}"

    @property
    def how(self) -> dict[str, Any]:
        """How it measures, for a device file."""
        runtime = {
            "torch": "PyTorch eager, merino_net's model",
            "compiled": "PyTorch torch.compile, merino_net's model",
            "onnx": "ONNX Runtime, plain network",
        }
        how = conditions(runtime[self.runtime], self.precision, self.device)
        packages = ("transformers", "onnxruntime") if self.runtime == "onnx" else ("transformers",)
        how |= {"threads": self.threads, "device": self.device}
        how["linear_maps"] = f"all in {self.precision}, as the runtime told of each network before it was timed"
        how["versions"] |= {name: importlib.metadata.version(name) for name in packages}
        return how

    def prepare(self, design: Architecture) -> Pass:
        """The pass of a design; building it takes longer than running it.

        Raises:
            ValueError: for a design that the network of the runtime cannot be.
        """
        MerinoConfig.from_architecture(design)  # refuses families that nothing here can be
        torch.set_num_threads(self.threads)
        if self.runtime == "onnx":
            return self._onnx_pass(design)
        if self.runtime == "compiled":
            if design not in self._compiled:
                self._compiled[design] = self._torch_pass(design)
            return self._compiled[design]
        return self._torch_pass(design)

    def measure(self, design: Architecture, seconds: float = 0.3) -> Measurement:
        """Passes timed for so many seconds, at least five of them, and the pace of the machine around them."""
        run = self.prepare(design)
        if self._pace is None:
            self._pace = Pace(self.device)
        timed, pace = self._pace.around(run, seconds)
        values = [1000 * value for value in timed]
        return Measurement(trimmed_mean(values), deviation(values), len(values), pace)

    def latency_ms(self, design: Architecture, seconds: float = 0.3) -> float:
        """Latency of one pass [ms]: the mean of the middle half of the passes that fit into so many seconds, at least five."""
        return self.measure(design, seconds).trimmed_ms

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, "float32" if self.precision == "int8" else self.precision)
        return dtype

    def _embedding(self, design: Architecture) -> torch.Tensor:
        """Embedding of a design, which all designs of one setting share."""
        tokens = surroundings(design).tokens
        key = (tokens.rows, tokens.width)
        if key not in self._embeddings:
            self._embeddings[key] = table_on(self.device, self._dtype, *key)
        return self._embeddings[key]

    def _tokens(self, design: Architecture) -> torch.Tensor:
        count = self.workload.seq_len if self.workload.phase == "prefill" else 1
        return torch.randint(design.vocabulary, (self.workload.batch, count)).to(self.device)

    def _past(self, design: Architecture) -> list[torch.Tensor]:
        if self.workload.phase == "prefill":
            return []
        layers = [layer_of(block, design) for block in design.blocks for _ in range(block.depth)]
        heads = [(layer.kv_heads, size) for layer in layers for size in (layer.head_size, layer.value_head_size)]
        batch, length = self.workload.batch, self.workload.seq_len
        return [torch.randn(batch, count, length, size).to(self.device, self._dtype) for count, size in heads]

    @torch.no_grad()
    def _torch_pass(self, design: Architecture) -> Pass:
        model = self._merino(design)
        forward: Callable[..., Any] = compile_whole(model) if self.runtime == "compiled" else model
        tokens, states = self._tokens(design), self._past(design)
        cache = DynamicCache(config=MerinoConfig.from_architecture(design)) if states else None
        for layer, (key, value) in enumerate(zip(states[::2], states[1::2], strict=True)):
            assert cache is not None
            cache.update(key, value, layer)
        keep = 1 if self.workload.logits == "last" else 0

        @torch.inference_mode(self.runtime == "torch")
        @torch.no_grad()
        def run() -> torch.Tensor:
            given = forward(input_ids=tokens, past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep)
            if cache is not None:
                cache.crop(-1)
            if self.device != "cpu":
                torch.cuda.synchronize()
            logits: torch.Tensor = given.logits
            return logits

        if self.runtime == "compiled":
            self._check_compiled(run, model)
        else:
            check_maps(self.name, design, self.precision, torch_maps(run))
        return run

    def _check_compiled(self, run: Callable[[], torch.Tensor], model: nn.Module) -> None:
        """ValueError if nothing was compiled, or not in this precision."""
        from torch._dynamo.utils import counters

        before = counters["stats"]["unique_graphs"]
        kinds = {run().dtype, *(parameter.dtype for parameter in model.parameters())}
        if counters["stats"]["unique_graphs"] == before or kinds != {self._dtype}:
            seen = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise ValueError(
                f"{self.name} is not what it says: {counters['stats']['unique_graphs'] - before} graphs were compiled, in {seen}; "
                f"expected at least one, in {self.precision}; nothing is measured, choose another runtime or precision"
            )

    def _merino(self, design: Architecture) -> nn.Module:
        model = random_network(design, self._embedding(design), self._dtype, self.device)
        return in_8_bits(_with_plain_maps(model)) if self.precision == "int8" else model

    def _onnx_pass(self, design: Architecture) -> Pass:
        import onnxruntime

        from hardware_models.plain_graph import check_plain, onnx_graph

        inputs = (self._tokens(design), *self._past(design))
        check_plain(design)
        positions = learned_positions(design.widths[0], design)
        assert positions is not None  # as the family of the plain network has them
        tables = self._embedding(design), table_on(self.device, self._dtype, positions.rows, positions.width)
        graph = onnx_graph(design, *tables, self.workload.logits, inputs, self.precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "pass")
            session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            names = [value.name for value in session.get_inputs()]
            feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            session.run(None, feed)
            # Once ended it costs no time any more, and the session that is timed is the one that was looked at.
            ran = onnx_maps(Path(session.end_profiling()))
        check_maps(self.name, design, self.precision, ran)
        return lambda: session.run(None, feed)


def random_network(
    design: Architecture, embedding: torch.Tensor, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> MerinoForCausalLM:
    """merino_net's model with small random weights; nothing is drawn for the embedding, which designs may share.

    Args:
        design: of any family that `MerinoConfig` takes.
        embedding: token embedding, (vocabulary, embedding width).
        dtype: of the weights.
        device: where they lie.
    """
    with torch.device("meta"):
        model = MerinoForCausalLM(MerinoConfig.from_architecture(design)).eval()
    model = model.to(dtype)
    model.model.rotary = nn.ModuleList(rotary(each.config.head_dim, model.config) for each in model.model.rotary).to(device)
    model.model.tokens.weight = nn.Parameter(embedding, requires_grad=False)
    if design.tied:
        model.lm_head.weight = model.model.tokens.weight
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                drawn = torch.rand(parameter.shape) * 0.04 - 0.02
                setattr(module, name, nn.Parameter(drawn.to(device, dtype), requires_grad=False))
    return model


def compile_whole(model: nn.Module) -> Callable[..., Any]:
    """The model compiled as a whole: PyTorch raises where it would rather run a part, or a model too many, without compiling.

    PyTorch keeps what it compiled by the code that it came from, eight versions at most, and looks through all of them at every
    call: each model is called from code of its own.
    """

    def forward(**inputs: Any) -> Any:
        return model(**inputs)

    own = FunctionType(forward.__code__.replace(co_name=f"forward_{id(model)}"), globals(), closure=forward.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, fullgraph=True)
    return compiled


def _with_plain_maps(model: nn.Module) -> nn.Module:
    """The model, changed in place, with each linear map of a class of its own as a plain one: PyTorch quantizes no others."""
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Linear) and type(part) is not nn.Linear:
                plain = nn.Linear(part.in_features, part.out_features, part.bias is not None, device="meta")
                plain.weight, plain.bias = part.weight, part.bias
                setattr(module, name, plain)
    return model


def engine_of(table: LatencyTable) -> Engine | ArtefactEngine:
    """The engine that a table of `hardware_models.profile` was measured with; ValueError for a table from elsewhere."""
    threads, device = table.how.get("threads"), table.how.get("device", "cpu")
    for (runtime, precision), make in makers().items():
        if table.name == f"{runtime}-{precision}-{table.workload.phase}" and isinstance(threads, int):
            return make(runtime, precision, table.workload, device, threads)
    raise ValueError(
        f"the table {table.name} of {table.device} is none that python -m hardware_models.profile wrote; expected one of those"
    )


def makers() -> dict[tuple[str, str], Callable[[str, str, Workload, str, int], Engine | ArtefactEngine]]:
    """What makes the engine of each runtime and precision; those of artefacts have the artefacts of a design in common."""
    from hardware_models.artefacts import SHIPPED, ArtefactEngine, Workshop

    shop = Workshop()
    ours = {(runtime, precision): Engine for runtime, precisions in IN_PROCESS.items() for precision in precisions}
    theirs = {(each.profiled, weights): partial(ArtefactEngine, shop) for each in SHIPPED.values() for weights in each.weights}
    return {**ours, **theirs}
