"""A causal language model as an ExecuTorch program: one method for prefill and decoding alike, computed by XNNPACK.

`forward(tokens (1, T), positions (T))` gives the logits (1, 1, vocabulary) behind the last token. Keys and values stay inside, in
buffers as long as the network has positions, so a text begins with position 0 and needs no reset. ExecuTorch's own text runners
call it like this; what they ask of a program (get_max_seq_len, ...) are methods that return a constant.

Constants lie beside the program, in model.ptd: there the embedding and the output head that it is tied to are the same bytes. In
a program the head would be XNNPACK's and the embedding the program's own: the same twice.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, ExecutorchProgramManager, to_edge_transform_and_lower
from executorch.exir.passes.external_constants_pass import delegate_external_constants_pass_unlifted
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import StaticCache
from transformers.configuration_utils import get_head_shapes

from merino_net.network.plain import own_form
from merino_net.shipping.tracing import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from merino_net.network.configuration_merino import MerinoConfig
    from merino_net.network.modeling_merino import MerinoForCausalLM

PTE_FILE, CONSTANTS = "model.pte", "model.ptd"
"""Names of the two files."""

MOST_TOKENS = 256
"""Tokens that one call takes at most. ExecuTorch plans memory for the largest call, so a longer prompt is read in several."""

_TRACED = 5
"""Tokens of the call that is traced: not 1, which would fix the length."""


class _Program(nn.Module):
    """A network with the cache inside it, as a function of tensors."""

    def __init__(self, model: MerinoForCausalLM) -> None:
        super().__init__()
        self.model = model
        self.cache = StaticCache(config=model.config, max_cache_len=model.config.max_position_embeddings)
        heads, head_size = get_head_shapes(model.config)
        self.cache.early_initialization(1, heads, head_size, torch.float32, torch.device("cpu"))
        layers: Any = self.cache.layers  # of tensors, once they are initialized
        for number, layer in enumerate(layers):
            self.register_buffer(f"keys_{number}", layer.keys, persistent=False)
            self.register_buffer(f"values_{number}", layer.values, persistent=False)
            self.register_buffer(f"seen_{number}", layer.cumulative_length, persistent=False)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        layers: Any = self.cache.layers
        for layer in layers:
            layer.cumulative_length.copy_(positions[0])
        logits: Tensor = self.model(input_ids=tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
        return logits


def export_executorch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str = "float32") -> None:
    """Write model.pte, model.ptd and the tokenizer's files to an empty folder.

    Args:
        model: float32, on the CPU; a network of ours or of a class of transformers that `own_form` reads.
        tokenizer: its own.
        folder: where to.
        weights: float32, or int8: matrices and embeddings in 8 bits, a scale for each row; XNNPACK quantizes what a matrix
            multiplies to 8 bits as well, a scale for each token.

    Raises:
        ValueError: for a network that cannot be exported.
    """
    if weights not in ("float32", "int8"):
        raise ValueError(f"weights are {weights!r}; expected float32 or int8")
    own = copy.deepcopy(own_form(model)).eval().requires_grad_(False)
    _check(own.config)
    with quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if weights == "int8":
            _quantize(own)
        program = _lowered(own, weights)
        with (folder / PTE_FILE).open("wb") as file:
            program.write_to_file(file)
        program.write_tensor_data_to_file(str(folder))
    tokenizer.save_pretrained(folder)


def _check(config: MerinoConfig) -> None:
    """ValueError for what ExecuTorch cannot have."""
    if config.max_position_embeddings < _TRACED:
        raise ValueError(
            f"the network has {config.max_position_embeddings} positions; an ExecuTorch program needs {_TRACED} or more"
        )
    for shape in config.shapes:
        if shape.depth and shape.value_head_size != shape.head_size:
            raise ValueError(
                f"a block has heads of size {shape.head_size} with values of size {shape.value_head_size}; the cache of an "
                "ExecuTorch program has one size for both: choose equal sizes, or another runtime"
            )


def _quantize(model: MerinoForCausalLM) -> None:
    """Put matrices and embeddings into 8 bits, in place."""
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_api import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig

    quantize_(model, Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0)))
    quantize_(
        model,
        IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
        lambda module, _: isinstance(module, nn.Embedding),
    )


def _lowered(model: MerinoForCausalLM, weights: str) -> ExecutorchProgramManager:
    """The program, its matrices handed to XNNPACK."""
    config: Any = model.config
    positions = config.max_position_embeddings
    most = min(positions, MOST_TOKENS)
    length = Dim("length", min=1, max=most)
    traced = (torch.arange(_TRACED)[None] % config.vocab_size, torch.arange(_TRACED))
    lengths = ({1: length}, {0: length})
    # Strictly, as a laxer trace takes the cache's tensors and the buffers of the same bytes for different ones.
    graph = export(_Program(model), traced, dynamic_shapes=lengths, strict=True).module()
    delegate_external_constants_pass_unlifted(graph, _file_of)
    edge = to_edge_transform_and_lower(
        export(graph, traced, dynamic_shapes=lengths, strict=False),
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
        constant_methods=_told(config, most),
    )
    return edge.to_executorch(
        ExecutorchBackendConfig(do_quant_fusion_and_const_prop=weights == "int8", external_constants=_file_of)
    )


def _file_of(_: torch.fx.Node) -> str:
    """Which file a constant goes to, without its suffix."""
    return CONSTANTS.removesuffix(".ptd")


def _told(config: MerinoConfig, most: int) -> dict[str, Any]:
    """What ExecuTorch's text runner asks a program for: name of the method, what it returns."""
    ends = config.eos_token_id
    return {
        "get_bos_id": config.bos_token_id if config.bos_token_id is not None else 0,
        "get_eos_ids": ends if isinstance(ends, list) else [] if ends is None else [ends],
        "get_max_seq_len": most,
        "get_max_context_len": config.max_position_embeddings,
        "get_vocab_size": config.vocab_size,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": False,
        "enable_dynamic_shape": True,
    }
