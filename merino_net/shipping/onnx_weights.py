"""The weights of an ONNX graph in 8 or 4 bits: by ONNX Runtime's own quantizer and operators, each weight once.

A product with a constant matrix becomes MatMulNBits, a table of embeddings GatherBlockQuantized. Both read one form of a matrix, so
that a head tied to the table stays tied, and what a block shares stays shared. Scales are of blocks of neighbouring inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

BLOCKS = {8: (128, 64, 32, 16), 4: (32, 16)}
"""Weights that share a scale, by bits: the first of these that divides a row, else 32, which the last block fills up with zeros."""

_DOMAIN = "com.microsoft"
_INT8_PRODUCTS = 4
"""Accuracy level of MatMulNBits: activations are rounded to 8 bits in blocks too, for which processors have instructions."""


def quantize_weights(program: ir.Model, bits: int) -> None:
    """Give every matrix of a float32 graph `bits` bits, 8 or 4; tables of embeddings and the head get 8."""
    graph, matrices = program.graph, _Matrices(program.graph)
    for node in list(graph):
        found = _operands(node)
        if found is None:
            continue
        table, matrix, transposed = found
        head = any(value.is_graph_output() for value in node.outputs)
        packed = matrices.packed(matrix, transposed, 8 if table or head else bits)
        new = list(_lookup(node, packed, graph) if table else _product(node, packed))
        new[-1].outputs[0].name, node.outputs[0].name = node.outputs[0].name, None
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)
    graph.opset_imports[_DOMAIN] = 1
    common.RemoveUnusedNodesPass()(program)


def _operands(node: ir.Node) -> tuple[bool, ir.Value, bool] | None:
    """Whether a node looks rows up, the matrix it uses, and whether that is (outputs, inputs); None for other nodes."""
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
        matrix, table, transposed = node.inputs[0], True, True
    elif node.op_type in {"MatMul", "Gemm"}:
        matrix, table, transposed = node.inputs[1], False, node.attributes.get_int("transB", 0) == 1
        producer = matrix.producer() if matrix is not None else None
        if producer is not None and producer.op_type == "Transpose" and not transposed:
            matrix, transposed = producer.inputs[0], True
    else:
        return None
    if matrix is None or not matrix.is_initializer() or matrix.dtype != ir.DataType.FLOAT or len(matrix.shape or ()) != 2:
        return None
    return table, matrix, transposed


class _Packed:
    """A matrix (outputs, inputs) in blocks, with a scale each; values are unsigned around the middle of their range."""

    def __init__(self, name: str, matrix: np.ndarray, bits: int, graph: ir.Graph) -> None:
        self.outputs, self.inputs = matrix.shape
        self.bits = bits
        self.block = next((size for size in BLOCKS[bits] if self.inputs % size == 0), 32)
        quantizer = DefaultWeightOnlyQuantizer(DefaultWeightOnlyQuantConfig(self.block, is_symmetric=True, bits=bits))
        weights, scales, _ = quantizer.qbits_block_quant(np.ascontiguousarray(matrix.T))
        self.weights, self.scales = (
            _stored(f"{name}.{what}", array, graph) for what, array in ((f"int{bits}", weights), ("scales", scales))
        )


class _Matrices:
    """The packed matrices of a graph, each made when it is first asked for."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._packed: dict[tuple[str, bool, int], _Packed] = {}

    def packed(self, value: ir.Value, transposed: bool, bits: int) -> _Packed:
        key = (str(value.name), transposed, bits)
        if key not in self._packed:
            assert value.const_value is not None  # it is an initializer
            array = value.const_value.numpy()
            self._packed[key] = _Packed(str(value.name), array if transposed else array.T, bits, self._graph)
        return self._packed[key]


def _product(node: ir.Node, packed: _Packed) -> Iterator[ir.Node]:
    inputs = [node.inputs[0], packed.weights, packed.scales]
    if node.op_type == "Gemm" and len(node.inputs) > 2:
        inputs += [None, None, node.inputs[2]]
    attributes = {"K": packed.inputs, "N": packed.outputs, "bits": packed.bits, "block_size": packed.block}
    yield _node("MatMulNBits", inputs, {**attributes, "accuracy_level": _INT8_PRODUCTS}, _DOMAIN)


def _lookup(node: ir.Node, packed: _Packed, graph: ir.Graph) -> Iterator[ir.Node]:
    shape = _constant(f"{packed.weights.name}.rows", [packed.outputs, -1], graph)
    flat = _node("Reshape", [packed.weights, shape])
    yield flat
    attributes = {"bits": packed.bits, "block_size": packed.block, "gather_axis": 0, "quantize_axis": 1}
    found = _node("GatherBlockQuantized", [flat.outputs[0], node.inputs[1], packed.scales], attributes, _DOMAIN)
    yield found
    if packed.inputs % packed.block:  # without the zeros that fill the last block up
        ends = {"start": 0, "end": packed.inputs, "axis": -1}
        yield _node(
            "Slice",
            [found.outputs[0], *(_constant(f"{packed.weights.name}.{what}", [one], graph) for what, one in ends.items())],
        )


def _constant(name: str, numbers: list[int], graph: ir.Graph) -> ir.Value:
    if name not in graph.initializers:
        _stored(name, np.array(numbers, np.int64), graph)
    return graph.initializers[name]


def _stored(name: str, array: np.ndarray, graph: ir.Graph) -> ir.Value:
    """An initializer of the graph with these numbers."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def _node(kind: str, inputs: list[Any], attributes: dict[str, int] | None = None, domain: str = "") -> ir.Node:
    return ir.node(kind, inputs, attributes or {}, domain=domain)
