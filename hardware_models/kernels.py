"""What a pass really runs: its linear maps by the data type that they are computed in, as the runtime itself tells it.

A runtime that cannot do what it is asked for does something else without a word: it leaves maps unquantized, or computes without
having compiled. A latency of that is worse than none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from formulation import Architecture, layer_of
from formulation.layer import joint_map

_ONNX_8_BITS = {"DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
_ONNX_FLOAT = {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}


def maps_of(design: Architecture) -> int:
    """Linear maps that one pass applies: each stored matrix of a layer, those between unequal neighbours, and the output head."""
    layers = sum(block.depth * len(layer_of(block, design).matrices) for block in design.blocks)
    return layers + sum(joint_map(*pair, design) is not None for pair in design.unequal_neighbours) + 1


def check_maps(name: str, design: Architecture, precision: str, ran: Mapping[str, int]) -> None:
    """ValueError if a pass did not run exactly the linear maps of its design, all in that precision.

    Args:
        name: of what was run, for the message.
        ran: linear maps by data type.
    """
    expected = maps_of(design)
    if dict(ran) != {precision: expected}:
        seen = " and ".join(f"{count} in {kind}" for kind, count in sorted(ran.items())) or "none"
        raise ValueError(
            f"{name} is not what it says: of the {expected} linear maps of {design}, expected all in {precision}, it ran {seen}; "
            "nothing is measured, choose another runtime or precision"
        )


class _LinearMaps(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name()
        if name == "quantized::linear_dynamic":
            self.seen["int8"] += 1
        elif name == "aten::linear":
            kinds = {str(value.dtype).removeprefix("torch.") for value in args if isinstance(value, torch.Tensor)}
            self.seen["/".join(sorted(kinds))] += 1
        return function(*args, **(kwargs or {}))


def torch_maps(run: Callable[[], object]) -> Counter[str]:
    """Linear maps that PyTorch runs eagerly in one call, by data type of weights and inputs; "int8" is dynamic quantization.

    `run` computes in inference mode: outside it PyTorch takes a map apart before anyone sees it.
    """
    with _LinearMaps() as maps:
        run()
    return maps.seen


def onnx_maps(profile: Path) -> Counter[str]:
    """Linear maps that ONNX Runtime ran while it wrote this profile, by data type.

    A product of two activations, as in attention, is not a linear map: both have more than two dimensions.
    """
    maps: Counter[str] = Counter()
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        kernel, inputs = event["args"]["op_name"], event["args"]["input_type_shape"]
        if kernel in _ONNX_8_BITS:
            maps["int8"] += 1
        elif kernel in _ONNX_FLOAT and not (len(inputs) > 1 and all(len(shape) > 2 for shape in inputs[1].values())):
            maps["float32" if "float" in inputs[0] else next(iter(inputs[0]))] += 1
    return maps
