"""GPTQ of a network's linear maps by llmcompressor: the one file that knows it (Frantar et al. 2023, arXiv:2210.17323).

A map is rounded column by column, and what a column's rounding does to the map's outputs is made good in the columns still to come;
the matrix that says how is XᵀX, summed over the inputs X that the map sees in a calibration text.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from merino_net.network.pretrained import first_line
from merino_net.network.quantized_weights import Quantized, round_to_scales

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ENVIRONMENT = (
    "GPTQ needs llmcompressor, which asks for an older transformers than the extra net, so it has its own environment: "
    "make quantize-environment, then .venv-quantize/bin/python in place of python"
)


def require_llmcompressor() -> None:
    """ImportError, with what to do, where llmcompressor is missing."""
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # it tells of every map, and on loading of its device
    try:
        import llmcompressor  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{_ENVIRONMENT} ({first_line(error)})") from None


def gptq(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: np.ndarray,
    names: Sequence[str],
    bits: int,
    group_size: int | None,
    pipeline: str = "basic",
) -> dict[str, Quantized]:
    """Integers and scales of the linear maps called `names`, by the name of their weight; the model stays as it is.

    Args:
        model: float32, as from_pretrained read it from a folder: the library looks at the folder's configuration again.
        sequences: tokens to calibrate on (n, length).
        pipeline: "basic" runs the whole float network over the text, summing XᵀX of a map over all its calls, and then quantizes
            each map once. The library's "sequential" goes from call to call: a map that a block applies several times would be
            quantized at each of them, every time for that call's inputs alone.

    The scales are those of `quantized_weights.scales_of`. Raises ImportError where llmcompressor is missing, and ValueError if
    XᵀX of a map cannot be inverted, where the library would round to nearest and go on.
    """
    require_llmcompressor()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # nothing is tokenized here, and it would warn
    import datasets
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from loguru import logger

    warnings: list[str] = []
    sink = logger.add(lambda message: warnings.append(str(message)), level="WARNING", format="{message}")
    # Scales are rounded to float16 before any weight is, so that what the file holds is what was optimized.
    grid = QuantizationArgs(
        num_bits=bits,
        symmetric=True,
        strategy="channel" if group_size is None else "group",
        group_size=group_size,
        scale_dtype=torch.float16,
    )
    work = copy.deepcopy(model).eval()
    try:
        oneshot(
            model=work,
            processor=tokenizer,
            dataset=datasets.Dataset.from_dict(
                {"input_ids": sequences.tolist(), "attention_mask": np.ones_like(sequences).tolist()}
            ),
            num_calibration_samples=len(sequences),
            max_seq_length=sequences.shape[1],
            shuffle_calibration_samples=False,
            recipe=GPTQModifier(config_groups={"maps": QuantizationScheme(targets=list(names), weights=grid)}),
            pipeline=pipeline,
        )
    finally:
        logger.remove(sink)
    failed = next((text for text in warnings if "inversion failed" in text), None)
    if failed is not None:
        raise ValueError(f"GPTQ needs more to calibrate on; give more --sequences ({first_line(ValueError(failed))})")
    found = {}
    for name in names:
        linear = work.get_submodule(name)
        scales = linear.get_parameter("weight_scale").detach().reshape(linear.out_features, -1).half()
        found[f"{name}.weight"] = round_to_scales(linear.get_parameter("weight").detach(), scales, bits)
    return found
