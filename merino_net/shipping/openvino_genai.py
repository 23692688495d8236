"""A causal language model for OpenVINO GenAI: `openvino_model`'s graph, and beside it the tokenizer as two further graphs.

`openvino_genai.LLMPipeline` opens the folder: it reads and writes text itself, and keeps logits of the last token alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import openvino
from openvino_tokenizers import convert_tokenizer

from merino_net.network.pretrained import first_line
from merino_net.shipping.openvino_model import export_openvino
from merino_net.shipping.tracing import check_value_sizes, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_openvino_genai(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str = "float32"
) -> None:
    """Write the folder that `openvino_genai.LLMPipeline` opens.

    Args:
        model: in float32 on the CPU.
        tokenizer: its own.
        folder: an empty one.
        weights: one of `merino_net.shipping.openvino_model.OPENVINO_WEIGHTS`.

    Raises:
        ValueError: for a model that cannot be exported, see `merino_net.shipping.tracing.sample`; for one whose values are not as
            wide as its keys; and for a tokenizer that openvino_tokenizers does not know.
    """
    check_value_sizes(model, "OpenVINO GenAI")  # its paged attention would write other text, without a word
    with quiet():
        try:
            graphs = convert_tokenizer(tokenizer, with_detokenizer=True)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise ValueError(
                f"OpenVINO has no form for a tokenizer of the kind {type(tokenizer).__name__} ({first_line(error)}); "
                "take one of the tokenizers library, as merino train makes"
            ) from None
        for graph, name in zip(graphs, ("openvino_tokenizer.xml", "openvino_detokenizer.xml"), strict=True):
            openvino.save_model(graph, folder / name)
    export_openvino(model, folder, weights)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
