"""Weights in 8 or 4 bits: the grid they are rounded to, how a file holds them, and how transformers loads such a file.

In model.safetensors a quantized matrix (rows, columns), and an embedding with its row for each token, is two tensors:

    NAME_packed  8 bits: int8 (rows, columns); 4 bits: uint8 (rows, ⌈columns/2⌉), the even column + 8 in the lower four bits
    NAME_scale   float16 (rows, groups); a group is as many neighbouring columns of one row

weight = scale · integer, exactly, with integers from −128 to 127 or from −8 to 7. All else lies there as it was. On loading, the
matrices become ordinary float weights, so the network computes as any other: small on disk, no faster. A tied matrix is stored once
and stays tied. Importing this file registers the format with transformers. How weights are chosen is `merino_net.quantize`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

PACKED, SCALE = "_packed", "_scale"
"""What the names of a quantized matrix end in: its integers, and their scales."""

METHOD = "merino"
"""Name of the format in config.json, where `quantization_config` says what was done; loading needs only that name."""


Quantized = tuple[Tensor, Tensor]
"""Integers (rows, columns) in int8, and scales (rows, groups) in float16."""


def scales_of(weight: Tensor, bits: int, group_size: int | None) -> Tensor:
    """The float16 scale of each group of a matrix: (largest |w| of the group) / ((2^bits − 1) / 2), as llmcompressor sets them.

    Args:
        group_size: columns of a group, which must divide the columns; None makes each row one group.

    The largest weight itself is clipped by half a step at most. ValueError if a weight is too large for float16.
    """
    groups = weight.float().unflatten(-1, (-1, group_size or weight.shape[-1]))
    scales = (groups.abs().amax(-1) / ((2**bits - 1) / 2)).half()
    if not scales.isfinite().all():
        raise ValueError("a weight is not a finite number or too large for a float16 scale; the network cannot be quantized")
    return torch.where(scales == 0, torch.ones_like(scales), scales)


def round_to_scales(weight: Tensor, scales: Tensor, bits: int) -> Quantized:
    """The nearest integers to weight / scale within `bits` bits, with the scales."""
    ratio = weight.float().unflatten(-1, (scales.shape[-1], -1)) / scales.float().unsqueeze(-1)
    return ratio.round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).flatten(-2).to(torch.int8), scales


def round_to_nearest(weight: Tensor, bits: int, group_size: int | None) -> Quantized:
    """A matrix rounded to the grid of `scales_of`, each weight for itself."""
    return round_to_scales(weight, scales_of(weight, bits, group_size), bits)


def restored(quantized: Quantized) -> Tensor:
    """scale · integer in float32, which holds the product exactly (11 + 8 bits)."""
    integers, scales = quantized
    return (integers.float().unflatten(-1, (scales.shape[-1], -1)) * scales.float().unsqueeze(-1)).flatten(-2)


def packed_integers(integers: Tensor, bits: int) -> Tensor:
    """Integers as the file holds them."""
    if bits == 8:
        return integers.contiguous()
    if integers.shape[-1] % 2:
        integers = torch.nn.functional.pad(integers, (0, 1))
    low, high = (integers + 8).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low | high << 4


def unpacked(stored: Tensor, columns: int) -> Tensor:
    """`packed_integers` backwards; the stored type tells the bits."""
    if stored.dtype == torch.int8:
        return stored
    return torch.stack((stored & 15, stored >> 4), -1).flatten(-2)[..., :columns].to(torch.int8) - 8


def stored_tensors(state: Mapping[str, Tensor], quantized: Mapping[str, Quantized], bits: Mapping[str, int]) -> dict[str, Tensor]:
    """What model.safetensors holds: each tensor of `state`, or its two where `quantized` has it, in `bits` bits."""
    tensors = {}
    for name, tensor in state.items():
        if name in quantized:
            integers, scales = quantized[name]
            tensors[name + PACKED], tensors[name + SCALE] = packed_integers(integers, bits[name]), scales.contiguous()
        else:
            tensors[name] = tensor.detach().contiguous()
    return tensors


class _Restore(ConversionOps):
    """From the two tensors of a matrix to its float weight, while transformers loads."""

    def __init__(self, hf_quantizer: HfQuantizer) -> None:
        self.hf_quantizer = hf_quantizer  # its presence tells transformers to leave the stored types alone

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **kwargs: Any
    ) -> dict[str, Any]:
        found = {name: value[0] if isinstance(value, list) else value for name, value in input_dict.items()}
        name = kwargs["full_layer_name"]
        weight = kwargs["model"].get_parameter(name)
        try:
            integers = unpacked(found["weight" + PACKED], weight.shape[-1])
            return {name: restored((integers, found["weight" + SCALE])).to(weight.dtype)}
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"the quantized weight {name} is incomplete or damaged ({error})") from None


class MerinoQuantizationConfig(QuantizationConfigMixin):
    """What config.json says of the quantization: a record for people, kept as it is.

    Attributes:
        dequantize: True: tells transformers that the loaded network is an ordinary float one, which it may save as such.
    """

    def __init__(self, quant_method: str = METHOD, **record: Any) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # the enumeration knows transformers' own methods only
        self.dequantize = True
        for key, value in record.items():
            setattr(self, key, value)


class MerinoQuantizer(HfQuantizer):
    """Loads the format of this file into float weights."""

    requires_calibration = True
    serialized_names = {"weight": ["weight" + PACKED, "weight" + SCALE]}  # noqa: RUF012

    def get_weight_conversions(self) -> list[WeightConverter]:
        return [WeightConverter(["weight" + PACKED, "weight" + SCALE], "weight", [_Restore(self)])]

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if getattr(model.config, "quantization_config", None) is not None:  # transformers 5.17 leaves it
            self.remove_quantization_config(model)
        vars(model).pop("_weight_conversions", None)  # else saving the float network would try to go the way back
        return model

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


if METHOD not in AUTO_QUANTIZER_MAPPING:  # else another copy of this file, out of a folder that carries its code, was there first
    register_quantization_config(METHOD)(MerinoQuantizationConfig)
    register_quantizer(METHOD)(MerinoQuantizer)
