"""The network: a block-wise decoder-only transformer as a Hugging Face model.

From top to bottom: attention, feed-forward network, layer, block (one or several layers, applied `depth` times), the stack
of blocks with what joins them, and the language model with its tied output head. Which maps and norms there are is
`formulation.layer`'s say: its lists become the modules here, and the costs of `hardware_models` are read off the same lists.

Shape suffixes: B sequences of a batch, T tokens, E width, F ffn_width, H query heads, K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from formulation.architecture import Architecture, Block
from formulation.layer import (
    Embedding,
    Layer,
    LinearMap,
    Norm,
    final_norm,
    joint_map,
    layer_of,
    learned_positions,
    stored_layers,
    surroundings,
)
from merino_net.network.configuration import MerinoConfig
from merino_net.network.registration import register_models


def eager_attention(
    module: nn.Module,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """softmax(QKᵀ·scaling + mask)·V written out, the reference that returns its weights too: (B, T, H, D) and (B, H, T, T).

    H/K neighbouring query heads attend to one key/value head (Ainslie et al. 2023).
    """
    key_BHTD, value_BHTD = (repeat_kv(each, query_BHTD.shape[1] // each.shape[1]) for each in (key_BKTD, value_BKTD))
    scores = query_BHTD @ key_BHTD.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(value_BHTD.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value_BHTD).transpose(1, 2), weights


def linear(own: LinearMap) -> nn.Linear:
    """A map as a module."""
    return nn.Linear(own.inputs, own.outputs, own.bias)


def layer_norm(own: Norm, config: MerinoConfig) -> nn.LayerNorm:
    """A norm as a module."""
    return nn.LayerNorm(own.width, config.layer_norm_eps, bias=own.bias)


def embedding(own: Embedding) -> nn.Embedding:
    """A table that is looked up as a module."""
    return nn.Embedding(own.rows, own.width)


class MerinoOutput(nn.Linear):
    """The map that ends a sub-layer: what it returns is added to the residual stream, hence initial its own weights."""

    def __init__(self, own: LinearMap) -> None:
        super().__init__(own.inputs, own.outputs, own.bias)


class MerinoAttention(nn.Module):
    """Causal self-attention of grouped queries; the maps of queries, keys and values are one matrix."""

    is_causal = True

    def __init__(self, config: MerinoConfig, layer: Layer) -> None:
        super().__init__()
        self.config = config
        self.head_sizes = [layer.head_size, layer.head_size, layer.value_head_size]
        self.num_key_value_groups = layer.heads // layer.kv_heads
        self.parts = [layer[name].outputs for name in ("query", "key", "value")]
        self.query_key_value = linear(layer["query_key_value"])
        self.output = MerinoOutput(layer["output"])

    def forward(
        self, x_BTE: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None, layer_idx: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        parts = zip(self.query_key_value(x_BTE).split(self.parts, -1), self.head_sizes, strict=True)
        query, key, value = (part_BTE.unflatten(-1, (-1, size)).transpose(1, 2) for part_BTE, size in parts)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, layer_idx)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed_BTHD, weights = attend(
            self, query, key, value, attention_mask, scaling=self.head_sizes[0] ** -0.5, dropout=dropout, **kwargs
        )
        return self.output(mixed_BTHD.flatten(-2)), weights


class MerinoFeedForward(nn.Module):
    """down(activation(up(x))), with maps E→F and F→E; gated: down(activation(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, config: MerinoConfig, layer: Layer) -> None:
        super().__init__()
        self.up = linear(layer["up"])
        self.gate = linear(layer["gate"]) if layer.gated else None
        self.activation = ACT2FN[config.hidden_act]
        self.down = MerinoOutput(layer["down"])

    def forward(self, x_BTE: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x_BTE)))
        return self.down(self.activation(self.gate(x_BTE)) * self.up(x_BTE))


class MerinoLayer(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    A layer that its block shares is applied several times: `layer_idx` tells the application, and so the entry of the
    key-value cache, apart.
    """

    def __init__(self, config: MerinoConfig, layer: Layer) -> None:
        super().__init__()
        attention_norm, ffn_norm = layer.norms
        self.attention_norm = layer_norm(attention_norm, config)
        self.attention = MerinoAttention(config, layer)
        self.ffn_norm = layer_norm(ffn_norm, config)
        self.ffn = MerinoFeedForward(config, layer)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x_BTE: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None = None, layer_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        attended, _ = self.attention(self.attention_norm(x_BTE), attention_mask, past_key_values, layer_idx, **kwargs)
        x_BTE = x_BTE + self.dropout(attended)
        return x_BTE + self.dropout(self.ffn(self.ffn_norm(x_BTE)))


class MerinoBlock(nn.Module):
    """`depth` applications of layers of one shape: of a single layer where weights are shared, else of one layer each.

    Of depth 0 it has no layer, and hands on what it is given.
    """

    def __init__(self, config: MerinoConfig, block: Block, design: Architecture, first_layer: int) -> None:
        super().__init__()
        layer = layer_of(block, design)
        self.layers = nn.ModuleList(MerinoLayer(config, layer) for _ in range(stored_layers(block, design)))
        self.applications = range(first_layer, first_layer + block.depth)

    def forward(self, x_BTE: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None, **kwargs: Any) -> Tensor:
        for i, layer_idx in enumerate(self.applications):
            layer = self.layers[i % len(self.layers)]
            x_BTE = layer(x_BTE, attention_mask, past_key_values=past_key_values, layer_idx=layer_idx, **kwargs)
        return x_BTE


class MerinoJoint(nn.Linear):
    """The map between neighbours of unequal width."""

    def __init__(self, own: LinearMap) -> None:
        super().__init__(own.inputs, own.outputs, own.bias)


def joint(left: int, right: int) -> nn.Module:
    """What joins neighbours of these widths: a map, or nothing where they are equal."""
    return nn.Identity() if left == right else MerinoJoint(joint_map(left, right))


class MerinoPreTrainedModel(PreTrainedModel):
    """What transformers has to know about this family of networks."""

    config_class = MerinoConfig
    base_model_prefix = "model"
    _input_embed_layer = "tokens"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MerinoLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": MerinoLayer,
        "attentions": OutputRecorder(MerinoAttention, index=1),
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, σ²) for every weight but two kinds (ours; the paper is silent), biases 0, norms 1.

        A map that ends a sub-layer starts with σ/√(2 Σ L_i), so that the residual stream does not grow with the number of layer
        applications (GPT-2: Radford et al. 2019, section 2.3). A joint starts with 1/√left: it carries the stream itself, which
        must arrive as large as it left. With σ everywhere, narrow networks stay at the unigram loss for hundreds of steps.
        """
        super()._init_weights(module)
        if isinstance(module, MerinoOutput):
            init.normal_(module.weight, std=self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5)
        elif isinstance(module, MerinoJoint):
            init.normal_(module.weight, std=module.in_features**-0.5)


class MerinoModel(MerinoPreTrainedModel):
    """Everything but the output head: tokens (B, T) to hidden states (B, T, embedding_width).

    Token embedding and what joins it to the first block; positions, as wide as that block; the blocks with their joints; the final
    norm, as wide as the last block, and what joins that to the output head. Position p is row p + 2 of its table, as OPT has it.
    """

    def __init__(self, config: MerinoConfig) -> None:
        super().__init__(config)
        design = config.to_architecture()
        around = surroundings(design)
        positions, norm = learned_positions(design.widths[0], design), final_norm(design.widths[-1], design)
        assert positions is not None  # this family has positions
        assert norm is not None  # and a final norm
        self.tokens = embedding(around.tokens)
        self.positions = embedding(positions)
        self.first_position = positions.rows - design.positions
        self.dropout = nn.Dropout(config.dropout)
        chain = (around.tokens.width, *design.widths, around.head.inputs)
        self.joints = nn.ModuleList(joint(left, right) for left, right in pairwise(chain))
        firsts = accumulate(design.depths, initial=0)
        self.blocks = nn.ModuleList(
            MerinoBlock(config, block, design, first) for block, first in zip(design.blocks, firsts, strict=False)
        )
        self.norm = layer_norm(norm, config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if inputs_embeds is None:
            inputs_embeds = self.tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        if position_ids is None:  # after the mask, which looks for packed sequences in positions that a caller gives
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen).unsqueeze(0)
        x_BTE = self.joints[0](inputs_embeds)
        del inputs_embeds  # not to be kept while the blocks run
        x_BTE = self.dropout(x_BTE + self.positions(position_ids + self.first_position))
        for number, block in enumerate(self.blocks):
            if number:
                x_BTE = self.joints[number](x_BTE)  # a statement of its own: what enters a joint is freed before the block runs
            x_BTE = block(x_BTE, mask, past_key_values, **kwargs)
        x_BTE = self.norm(x_BTE)
        x_BTE = self.joints[-1](x_BTE)
        return BaseModelOutputWithPast(last_hidden_state=x_BTE, past_key_values=past_key_values if use_cache else None)


class MerinoForCausalLM(MerinoPreTrainedModel, GenerationMixin):
    """The language model: `MerinoModel` and an output head that is the token embedding.

    forward takes what transformers' causal language models take. `labels` (B, T; −100 is ignored) are shifted inside, the
    loss is the mean cross-entropy in nat per token; `logits_to_keep=1` computes the last token's logits only, which saves
    most of the work of a prefill (the head is two thirds of it in a 50 M design).
    """

    _tied_weights_keys = {"lm_head.weight": "model.tokens.weight"}  # noqa: RUF012

    def __init__(self, config: MerinoConfig) -> None:
        super().__init__(config)
        self.model = MerinoModel(config)
        self.lm_head = linear(surroundings(config.to_architecture()).head)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits_BTV, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


register_models()
