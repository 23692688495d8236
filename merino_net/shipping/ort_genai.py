"""A causal language model for ONNX Runtime GenAI: a graph, its tokenizer, and genai_config.json, which says how to run it.

The graph is `onnx_model`'s with logits of the last token alone, which is all that generation looks at. Layers may differ: the
library reads the heads of each from the graph's inputs, and those that genai_config.json states are the first layer's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.records.files import write_json
from merino_net.network.pretrained import embedding_rows, positions_of
from merino_net.shipping.onnx_model import ONNX_FILE, traced_onnx
from merino_net.shipping.tracing import check_value_sizes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GENAI_FILE = "genai_config.json"
"""What onnxruntime_genai reads first."""


def export_ort_genai(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str = "float32") -> None:
    """Write the folder that `onnxruntime_genai.Model` opens.

    Args:
        model: in float32 on the CPU.
        tokenizer: its own.
        folder: an empty one.
        weights: one of `merino_net.shipping.onnx_model.ONNX_WEIGHTS`.

    Raises:
        ValueError: for a model that cannot be exported, see `merino_net.shipping.tracing.sample`, for one whose values are
            not as wide as its keys, and for one without a limit of positions.
    """
    positions = positions_of(model.config)
    if positions is None:
        raise ValueError(f"{type(model).__name__} states no longest text, which ONNX Runtime GenAI asks for")
    check_value_sizes(model, "ONNX Runtime GenAI")
    exported = traced_onnx(model, weights, only_last=True)
    exported.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / GENAI_FILE, _genai_config(model, positions, exported.program.graph))


def _genai_config(model: PreTrainedModel, positions: int, graph: Any) -> dict[str, Any]:
    """What genai_config.json says: names of inputs and outputs, %d standing for the number of a layer application."""
    inputs = {value.name: value for value in graph.inputs}
    keys, values = (f"past_key_values.layers.%d.{what}" for what in ("keys", "values"))
    layers = next(number for number in range(len(inputs)) if f"input.{keys}" % number not in inputs)
    _, heads, _, head_size = inputs[f"input.{keys}" % 0].shape
    ends = model.config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    special = {"bos_token_id": model.config.bos_token_id, "eos_token_id": ends, "pad_token_id": model.config.pad_token_id}
    return {
        "model": {
            "type": "decoder",
            "vocab_size": embedding_rows(model),
            "context_length": positions,
            **{name: end if token is None else token for name, token in special.items() if token is not None or end is not None},
            "decoder": {
                "session_options": {"provider_options": []},
                "filename": ONNX_FILE,
                "num_hidden_layers": layers,
                "hidden_size": model.config.hidden_size,
                "num_attention_heads": model.config.num_attention_heads,
                "num_key_value_heads": heads,
                "head_size": head_size,
                "inputs": {
                    **{name: name for name in ("input_ids", "attention_mask", "position_ids") if name in inputs},
                    "past_key_names": f"input.{keys}",
                    "past_value_names": f"input.{values}",
                },
                "outputs": {"logits": "logits", "present_key_names": f"output.{keys}", "present_value_names": f"output.{values}"},
            },
        },
        "search": {"max_length": positions, "do_sample": False, "past_present_share_buffer": False},
    }
