"""Counting what a network really has and does: parameters and bytes, of a model or its files, and PyTorch's own count of FLOPs."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig

WEIGHT_PARTS = ("embedding", "positions", "layers", "norm")
"""Of a network's weights: token embedding with the tied head, position embedding, blocks with their joints, final norm."""


def parameter_count(model: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def stored_parameters(folder: Path, config: PreTrainedConfig) -> int:
    """Number of parameters in the .safetensors files of a model of `config`, by the sizes stored there; tied ones count once.

    A matrix in 8 or 4 bits counts as what it stands for; scales are no parameters. ValueError if there are no such files.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    from merino_net.network.quantized_weights import PACKED

    with torch.device("meta"):
        known = dict(AutoModelForCausalLM.from_config(copy.deepcopy(config)).named_parameters())
    count = 0
    for path in _weight_files(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is not a dictionary)
                stored, parameter = file.get_slice(name), known.get(name.removesuffix(PACKED))
                if parameter is None:
                    continue
                shape = stored.get_shape()
                two_a_byte = name.endswith(PACKED) and stored.get_dtype() == "U8"
                count += shape[0] * parameter.shape[-1] if two_a_byte else math.prod(shape)
    return count


def part_bytes(folder: Path) -> dict[str, int]:
    """Bytes of the weights' files in a model's folder, and of their tensors by part; ValueError if there isn't one."""
    from safetensors import safe_open

    sizes = dict.fromkeys(("file", *WEIGHT_PARTS), 0)
    for path in _weight_files(folder):
        sizes["file"] += path.stat().st_size
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is not a dictionary)
                sizes[_part(name)] += file.get_tensor(name).nbytes
    return sizes


_BEGINS = {
    "embedding": ("model.tokens", "lm_head", "model.embed_tokens", "model.decoder.embed_tokens", "transformer.wte"),
    "positions": ("model.positions", "model.decoder.embed_positions", "transformer.wpe"),
    "norm": ("model.norm", "model.decoder.final_layer_norm", "transformer.ln_f"),
}
"""Part -> how the names of its tensors begin, in our class and in transformers' own."""


def _part(name: str) -> str:
    return next((part for part, begins in _BEGINS.items() if name.startswith(begins)), "layers")


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no .safetensors file; name a folder that merino_net.train or save_pretrained wrote")
    return files


def forward_flops(config: PreTrainedConfig, seq_len: int, head: bool = True) -> int:
    """FLOPs of one forward pass over `seq_len` tokens, 2 per multiply-add, as PyTorch's counter sees every matrix product.

    Attention is counted without causal halving, norms and activations are left out: the rules of `hardware_models.Flops`.
    Nothing is computed and no memory taken: the network is built on PyTorch's `meta` device.

    Args:
        config: of any causal language model that transformers knows, ours included.
        head: whether the output head counts.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        # A copy, as transformers writes the attention into the configuration it is given.
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").eval()
        tokens = torch.zeros(1, seq_len, dtype=torch.long)
        mask = torch.ones(1, seq_len, dtype=torch.long)
    network = model if head else model.base_model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(input_ids=tokens, attention_mask=mask, use_cache=False)
    return counter.get_total_flops()


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s that `device` reaches on the product of two large square matrices: the peak that utilisation is measured against.

    The best of several products after a warm-up, 2n³ FLOPs each; n is 2048 on a CPU (all threads that PyTorch uses) and 8192
    elsewhere. A practical peak: datasheets name more, which no product of matrices reaches.
    """
    import torch

    n, repetitions = (2048, 5) if device.type == "cpu" else (8192, 20)
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
    left, right = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in range(2))
    seconds = []
    for _ in range(2 + repetitions):
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds[2:])
