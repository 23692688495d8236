"""The plain network of `hardware_models.profile_standalone` as an ONNX graph, in float32 or with its linear maps in 8 bits."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from formulation import Architecture, Block
from hardware_models.profile_standalone import HEAD_SIZE, Network

_OPSET = 17
_EMBEDDING = "tokens"
"""What `Network` calls its embedding, and so the graph its initializer."""


def onnx_graph(
    design: Architecture,
    embedding: torch.Tensor,
    positions: torch.Tensor,
    logits: str,
    inputs: tuple[torch.Tensor, ...],
    precision: str = "float32",
) -> bytes:
    """The network of a design with random weights, for inputs of exactly these shapes; `precision` is float32 or int8.

    In int8 the weights of all linear maps, the output head among them, have 8 bits, and activations are quantized as they come;
    the embedding that tokens are looked up in stays float32, as in PyTorch's dynamic quantization. The graph is made by PyTorch's
    older exporter, as the newer takes 15 s, with a vocabulary of one; the embedding is put in afterwards, since tracing and
    quantizing look through every weight several times.
    """
    graph = _traced(design, embedding[:1].clone(), positions, logits, inputs)
    if precision == "int8":
        graph = in_8_bits(graph)
    del graph.graph.value_info[:]
    values, head = embedding.numpy(), _transposed(_EMBEDDING)
    scale = abs(values).max() / 127
    forms: dict[str, Callable[[], np.ndarray]] = {
        _EMBEDDING: lambda: values,
        head: lambda: values.T,
        f"{head}_quantized": lambda: (values.T / scale).round().astype(np.int8),
        f"{head}_scale": lambda: np.asarray(scale, np.float32),
    }
    for weight in graph.graph.initializer:
        if weight.name in forms:
            weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(forms[weight.name]()), weight.name))
    graph.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = design.vocabulary
    text: bytes = graph.SerializeToString()
    return text


def check_plain(design: Architecture) -> None:
    """ValueError for a design that the plain network cannot be: of another family, or with widths that are padded."""
    if design.family != "merino":
        raise ValueError(
            f"the design {design} is of the family {design.family}, which has no plain network for ONNX Runtime; measure it in the "
            "runtime torch, or as an artefact in onnxruntime-genai"
        )
    if design.joints != "linear":
        raise ValueError("the design pads unequal widths, which the plain network does not; measure it in the runtime torch")


def plain_shape(block: Block) -> tuple[int, int, int]:
    """A block as the plain network takes it: width, FFN width and depth; ValueError for one of which more is decided."""
    if block.depth and (further := [name for name in block.to_dict() if name not in ("width", "ffn_width", "depth")]):
        raise ValueError(
            f"the block {block} states its {' and '.join(further)}; the plain network that ONNX Runtime is measured with has width/"
            f"{HEAD_SIZE} heads, no gate and one rule of sharing: measure it in the runtime torch"
        )
    return block.width, block.ffn_width, block.depth


def in_8_bits(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the weights of its matrix products in 8 bits, by ONNX Runtime's dynamic quantization.

    Transposes of weights are folded first: ONNX Runtime quantizes a product only where its weight is an initializer, and leaves
    every other in float32 without a word.
    """
    from onnxruntime.quantization import quantize_dynamic

    buffer = io.BytesIO()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to prepare the graph, which is already in its final shapes
    try:
        quantize_dynamic(fold_transposes(graph), buffer, op_types_to_quantize=["MatMul"])
    finally:
        logging.disable(level)
    return onnx.load_from_string(buffer.getvalue())


def fold_transposes(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, changed in place, with every transpose of a weight computed: once a weight, however often it is applied."""
    weights = {weight.name: weight for weight in graph.graph.initializer}
    folded: dict[str, str] = {}
    for node in [node for node in graph.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        weight, name = node.input[0], _transposed(node.input[0])
        if name not in weights:
            (order,) = (attribute.ints for attribute in node.attribute if attribute.name == "perm")
            values = numpy_helper.to_array(weights[weight]).transpose(tuple(order))
            weights[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
            graph.graph.initializer.append(weights[name])
        folded[node.output[0]] = name
        graph.graph.node.remove(node)
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = folded.get(name, name)
    used = {name for node in graph.graph.node for name in node.input}
    for weight in [weight for weight in graph.graph.initializer if weight.name not in used]:
        graph.graph.initializer.remove(weight)
    return graph


def _transposed(name: str) -> str:
    return f"{name}_transposed"


def _traced(
    design: Architecture, embedding: torch.Tensor, positions: torch.Tensor, logits: str, inputs: tuple[torch.Tensor, ...]
) -> onnx.ModelProto:
    blocks = [plain_shape(block) for block in design.blocks]
    network = Network(blocks, embedding, positions, design.shared, fused=False, logits=logits).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = (torch.zeros_like(inputs[0]), *inputs[1:])
        torch.onnx.export(
            network,
            traced,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=_OPSET,
            do_constant_folding=False,
        )
    return onnx.load_from_string(buffer.getvalue())
