"""A causal language model in OpenVINO, in float32 or with INT8 or INT4 weights; on Intel processors the fastest way to run one.

The graph is traced and written by transformers' own exporter and compressed by NNCF; what is ours is the check against PyTorch.
Its inputs are input_ids, attention_mask, position_ids and beam_idx; keys and values stay inside, until `reset_state`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from merino_net.shipping.tracing import Differences, decoding_steps, quiet, reference_logits, sample, texts_to_compare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPENVINO_FILE = "openvino_model.xml"
"""Name of the graph; its weights lie beside it in openvino_model.bin."""

OPENVINO_WEIGHTS = ("float32", "int8", "int4")
"""Number formats of the weights."""

GROUP_SIZE = 32
"""Weights that share a scale with 4 bits; a matrix whose rows it does not divide gets 8 bits."""

_QUANTIZED = ("i8", "u8", "i4", "u4")


def export_openvino(model: PreTrainedModel, folder: Path, weights: str = "float32") -> None:
    """Write the graph of a float32 model on the CPU to `folder` (openvino_model.xml and .bin), `weights` of `OPENVINO_WEIGHTS`.

    INT8 compresses every weight matrix, the embedding among them, symmetrically and without calibration; INT4 leaves embeddings and
    output head in 8 bits. Raises ValueError as `merino_net.shipping.tracing.sample` does.
    """
    from transformers.exporters import OpenVINOConfig
    from transformers.exporters.exporter_openvino import OpenVINOExporter

    inputs, shapes = sample(model)
    with quiet():
        exported = OpenVINOExporter().export(
            model, inputs, OpenVINOConfig(dynamic=True, dynamic_shapes=shapes, quantizer=_quantizer(weights))
        )
        exported.save_pretrained(folder)


def _quantizer(weights: str) -> Any:
    if weights == "float32":
        return None
    import nncf
    from transformers.exporters import NNCFOpenVINOQuantizer, NNCFWeightCompressionConfig

    if weights == "int8":
        return NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig(mode=nncf.CompressWeightsMode.INT8_SYM))
    mode = nncf.CompressWeightsMode.INT4_SYM
    return NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig(mode=mode, group_size=GROUP_SIZE, ratio=1.0))


class OpenVinoModel:
    """An exported model on the CPU; it computes in `precision`, "f32" or "bf16" (which processors with AMX do much faster).

    Attributes:
        products: its linear maps by the number format that OpenVINO runs them in: `precision`, or that of quantized weights ("i8").

    Raises:
        ValueError: if this processor runs them in another one, as OpenVINO takes the precision for a hint.
    """

    def __init__(self, folder: Path, precision: str = "f32", threads: int = 0) -> None:
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino.Core().compile_model(folder / OPENVINO_FILE, "CPU", settings)
        self._inputs = {port.any_name for port in compiled.inputs}
        self._request = compiled.create_infer_request()
        running = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        maps = [node for node in running if node["layerType"].value == "FullyConnected"]
        self.products = Counter(str(node["runtimePrecision"].value) for node in maps)
        check_products(self.products, precision)

    def begin(self) -> None:
        """Forget the text so far: the next logits begin a new one."""
        self._request.reset_state()

    def logits(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Logits (B, T, vocabulary) of the tokens (B, T) that follow those of the calls since `begin`.

        attention_mask (B, all tokens so far) is zero where a row is padded on the left.
        """
        fed = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": np.maximum(attention_mask.cumsum(1) - 1, 0)[:, -input_ids.shape[1] :],
            "beam_idx": np.arange(len(input_ids), dtype=np.int32),
        }
        return self._request.infer({name: fed[name] for name in self._inputs})["logits"].copy()


def check_products(products: Mapping[str, int], precision: str) -> None:
    """ValueError if some linear maps run neither in the precision asked for nor with quantized weights."""
    if not products or (other := sorted(products.keys() - {precision, *_QUANTIZED})):
        kind = other[0] if products else "nothing"
        raise ValueError(f"OpenVINO runs this graph in {kind} on this processor, not in {precision}; ask for another precision")


def compare_openvino(model: PreTrainedModel, folder: Path, weights: str = "float32") -> dict[str, float]:
    """Differences of the logits of the graph in `folder`, computed in float32, from PyTorch's: largest and relative ones.

    "prefill" and "decode" are those of `merino_net.shipping.onnx_model.compare_onnx`. Raises ValueError if the graph is off, see
    `merino_net.shipping.tracing.Differences`.
    """
    graph = OpenVinoModel(folder)
    found = Differences("prefill", "decode")
    for tokens, mask, length in texts_to_compare(model):
        truth = reference_logits(model, tokens, mask)
        graph.begin()
        found.note("prefill", graph.logits(tokens[:, :length], mask[:, :length]), truth, mask)
        done = length
        for step in decoding_steps(tokens.shape[1] - length):
            found.note("decode", graph.logits(tokens[:, done : done + step], mask[:, : done + step]), truth, mask, done)
            done += step
    return found.checked("OpenVINO", weights)
