"""A causal language model in ONNX Runtime: one graph with a key-value cache, for prefill and for cached decoding alike.

The graph is traced by transformers' own exporter; what is ours is which graph, the check against PyTorch, and `OnnxModel`,
which runs it on NumPy arrays. Its inputs (B sequences, T tokens, P tokens in the cache, K logits asked for):

    input_ids (B, T), attention_mask (B, P + T), position_ids (B, T)            int64
    logits_to_keep (K)          which of the T tokens get logits: all of them, or the last alone, which saves most of a prefill
    input.past_key_values.layers.I.keys and .values (B, key/value heads, P, head size)      P = 0 begins a text

Its outputs are logits (B, K, vocabulary) and output.past_key_values..., P + T tokens long, the next step's inputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as _errors

from merino_net.network.pretrained import first_line
from merino_net.shipping.onnx_weights import quantize_weights
from merino_net.shipping.tracing import Differences, decoding_steps, quiet, reference_logits, sample, texts_to_compare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ONNX_FILE = "model.onnx"
"""Name of the graph; its weights lie beside it in model.onnx.data."""

ONNX_WEIGHTS = {"float32": None, "int8": 8, "int4": 4}
"""Number formats of the weights, and the bits of those that are quantized."""

Cache = list[onnxruntime.OrtValue]
"""Keys and values of every layer application, on the device that computes."""


def export_onnx(model: PreTrainedModel, folder: Path, weights: str = "float32") -> None:
    """Write the graph of a float32 model on the CPU to `folder` (model.onnx, model.onnx.data, and what transformers reads it by).

    Weights that are shared or tied are stored once. `weights` is one of `ONNX_WEIGHTS`; what is quantized,
    `merino_net.shipping.onnx_weights` says. Raises ValueError for a model that cannot be exported, see
    `merino_net.shipping.tracing.sample`.
    """
    traced_onnx(model, weights).save_pretrained(folder)


def traced_onnx(model: PreTrainedModel, weights: str = "float32", only_last: bool = False) -> Any:
    """The graph of a float32 model on the CPU as transformers' exporter gives it, each weight in it once.

    Args:
        weights: one of `ONNX_WEIGHTS`.
        only_last: the graph has logits of the last token alone, (B, 1, vocabulary), and no input `logits_to_keep`.
    """
    from transformers.exporters import OnnxConfig, OnnxExporter

    if weights not in ONNX_WEIGHTS:
        raise ValueError(f"the weights of an ONNX graph cannot be {weights}; expected {' or '.join(ONNX_WEIGHTS)}")
    inputs, shapes = sample(model)
    inputs["logits_to_keep"], shapes["logits_to_keep"] = (1, None) if only_last else (torch.arange(2), {0: torch.export.Dim.AUTO})
    # No fusions into ONNX Runtime's own operators (`ort_fusions`): of a tied head that keeps some logits they make a broken graph.
    with quiet():
        try:
            exported = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, dynamic_shapes=shapes))
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(f"{type(model).__name__} cannot be exported to ONNX ({first_line(error)})") from None
        _tidy(exported.program)
        if (bits := ONNX_WEIGHTS[weights]) is not None:
            quantize_weights(exported.program, bits)
    return exported


def _tidy(program: Any) -> None:
    """Make a traced graph fit to publish: each weight once, the varying axes named, no traces of where the code lay.

    Tracing writes transposes of small matrices (up to 8,192 entries) out, once for every application of a shared layer.
    """
    from onnx_ir import SymbolicDim, passes

    passes.common.DeduplicateInitializersPass(size_limit=1 << 16)(program)
    passes.common.ClearMetadataAndDocStringPass()(program)
    program.metadata_props.clear()
    inputs = {value.name: value for value in program.graph.inputs}
    past = next(value for name, value in inputs.items() if "past_key_values" in name)
    named = {
        **_symbols(inputs["attention_mask"], {0: "batch", 1: "past_and_tokens"}),
        **_symbols(inputs.get("position_ids"), {0: "batch", 1: "tokens"}),
        **_symbols(inputs["input_ids"], {0: "batch", 1: "tokens"}),
        **_symbols(past, {2: "past"}),
        **_symbols(inputs.get("logits_to_keep"), {0: "kept"}),
    }
    made = (value for node in program.graph.all_nodes() for value in node.outputs)
    for value in (*program.graph.inputs, *program.graph.initializers.values(), *made):
        value.metadata_props.clear()
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value is not None:
                text = re.sub(r"\bs\d+\b", lambda match: named.get(match[0], match[0]), str(size.value))
                value.shape[axis] = SymbolicDim(text)


def _symbols(value: Any, axes: dict[int, str]) -> dict[str, str]:
    return {} if value is None else {str(value.shape[axis].value): name for axis, name in axes.items()}


class OnnxModel:
    """An exported model in an ONNX Runtime session; `load_onnx` opens one."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._device = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self._inputs = {value.name for value in session.get_inputs()}
        self._past = [value for value in session.get_inputs() if value.name.startswith("input.past_key_values")]
        # ONNX names its inputs and outputs; nothing says that both lists have the same order.
        self._present = [value.name.replace("input.", "output.", 1) for value in self._past]

    def logits(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
    ) -> tuple[np.ndarray, Cache]:
        """Logits (B, T, vocabulary) of the tokens `input_ids` (B, T) that follow those in `cache`, and the cache with them in it.

        Args:
            attention_mask: (B, tokens in the cache + T), zero where a row is padded on the left; None: nowhere.
            cache: what an earlier call gave back; None begins a text.
            logits_to_keep: how many of the last tokens get logits; 0: all.
        """
        batch, tokens = input_ids.shape
        if cache is None:
            cache = self._empty(batch)
        seen = cache[0].shape()[2]
        mask = np.ones((batch, seen + tokens), np.int64) if attention_mask is None else attention_mask
        first = tokens - logits_to_keep if logits_to_keep else 0
        fed = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": np.maximum(mask.cumsum(1) - 1, 0)[:, -tokens:],
            "logits_to_keep": np.arange(first, tokens),
        }
        binding = self._session.io_binding()
        for name in self._inputs & fed.keys():
            binding.bind_cpu_input(name, np.ascontiguousarray(fed[name], np.int64))
        for value, state in zip(self._past, cache, strict=True):
            binding.bind_ortvalue_input(value.name, state)
        binding.bind_output("logits", "cpu")
        for name in self._present:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        return logits.numpy(), present

    def prefill(
        self, input_ids: np.ndarray, attention_mask: np.ndarray | None = None, logits_to_keep: int = 1
    ) -> tuple[np.ndarray, Cache]:
        """The beginning of a text (B, T): its last logits (B, 1, vocabulary), or all of them for 0, and the cache."""
        return self.logits(input_ids, attention_mask, None, logits_to_keep)

    def generate(
        self, input_ids: np.ndarray, count: int, attention_mask: np.ndarray | None = None, end: int | None = None
    ) -> np.ndarray:
        """The `count` most probable tokens after each row, (B, count), one after the other; fewer where all rows reached `end`.

        After its end a row holds `end`.
        """
        mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
        logits, cache = self.prefill(input_ids, mask)
        made: list[np.ndarray] = []
        over = np.zeros(len(input_ids), bool)
        while True:
            token = logits[:, -1].argmax(-1)
            if end is not None:
                token[over] = end
                over |= token == end
            made.append(token)
            if len(made) == count or over.all():
                return np.stack(made, 1)
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
            logits, cache = self.logits(token[:, None], mask, cache, 1)

    def _empty(self, batch: int) -> Cache:
        shapes = ((batch, value.shape[1], 0, value.shape[3]) for value in self._past)
        return [onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32), self._device) for shape in shapes]


def load_onnx(folder: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)) -> OnnxModel:
    """The model that `export_onnx` wrote to `folder`, ready to run.

    Args:
        threads: of the CPU for one operator; 0: ONNX Runtime's own choice, all cores of the machine.
        providers: what computes, best first: "CUDAExecutionProvider" or "TensorrtExecutionProvider" on NVIDIA hardware.

    Raises:
        ValueError: if there is no such model, it is damaged, or this build of ONNX Runtime lacks a provider: ONNX Runtime itself
            would quietly fall back to the CPU.
    """
    path = folder / ONNX_FILE
    if not path.is_file():
        raise ValueError(f"there is no {ONNX_FILE} in {folder}; expected a folder that merino_net.export wrote")
    available = onnxruntime.get_available_providers()
    missing = [name for name in providers if name not in available]
    if missing:
        raise ValueError(f"this ONNX Runtime has no {missing[0]}; it has {', '.join(available)}: install the build for the device")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
    except (_errors.Fail, _errors.InvalidProtobuf, _errors.InvalidGraph, _errors.NoSuchFile, _errors.RuntimeException) as error:
        raise ValueError(f"{path} cannot be opened ({first_line(error)}); export it again") from None
    if session.get_providers()[0] != providers[0]:
        raise ValueError(f"{providers[0]} does not work on this machine: ONNX Runtime took {session.get_providers()[0]} instead")
    return OnnxModel(session)


def compare_onnx(model: PreTrainedModel, folder: Path, weights: str = "float32") -> dict[str, float]:
    """Differences of the logits of the graph in `folder` from PyTorch's, by what was computed: largest and relative ones.

    "prefill" and "last_logit" begin texts of several lengths, of one sequence and of three that are padded on the left;
    "decode" goes on with them in several steps, from the cache. PyTorch computes each whole text at once, without a cache.
    Raises ValueError if the graph is off, see `merino_net.shipping.tracing.Differences`.
    """
    graph = load_onnx(folder)
    found = Differences("prefill", "last_logit", "decode")
    for tokens, mask, length in texts_to_compare(model):
        truth = reference_logits(model, tokens, mask)
        found.note("prefill", graph.prefill(tokens[:, :length], mask[:, :length], 0)[0], truth, mask)
        logits, cache = graph.prefill(tokens[:, :length], mask[:, :length])
        found.note("last_logit", logits, truth, mask, length - 1)
        done = length
        for step in decoding_steps(tokens.shape[1] - length):
            logits, cache = graph.logits(tokens[:, done : done + step], mask[:, : done + step], cache)
            found.note("decode", logits, truth, mask, done)
            done += step
    return found.checked("ONNX", weights)
