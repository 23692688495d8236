"""The network: a block-wise decoder-only transformer as a Hugging Face model.

From top to bottom: attention, feed-forward network, layer, block (one or several layers, applied `depth` times), the stack of
blocks with what joins them, and the language model with its output head. What a family leaves open is read from the configuration:
LayerNorm or RMSNorm, learned or rotary positions, biases, gates, norms on queries and keys. Rotary positions, RMSNorm and the
attention's kernels are transformers' own. Like `configuration_merino` this file imports torch and transformers alone.

Shape suffixes: B sequences of a batch, T tokens, E width, F ffn_width, H query heads, K key/value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, LlamaConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import (
    GenericForSequenceClassification,
    GenericForTokenClassification,
    GradientCheckpointingLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_merino import BlockShape, MerinoConfig
from .quantized_weights import METHOD  # noqa: F401  (reads weights in 8 and 4 bits; transformers copies files named like this)

Rotation = dict[int, tuple[Tensor, Tensor]]
"""cos and sin (B, T, D) of the positions, by head size; empty where positions are learned."""


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


def norm(width: int, config: MerinoConfig) -> nn.Module:
    """A norm of the family's kind."""
    return (nn.LayerNorm if config.norm_bias else LlamaRMSNorm)(width, config.layer_norm_eps)


class MerinoOutput(nn.Linear):
    """The map that ends a sub-layer: what it returns is added to the residual stream, hence initial weights of its own."""


class MerinoAttention(nn.Module):
    """Causal self-attention of grouped queries: queries (E → h·d), keys and values (E → k·d), output (h·d → E)."""

    is_causal = True

    def __init__(self, config: MerinoConfig, block: BlockShape, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_size = block.head_size
        self.head_sizes = (block.head_size, block.head_size, block.value_head_size)
        self.num_key_value_groups = block.heads // block.kv_heads
        heads = (block.heads, block.kv_heads, block.kv_heads)
        self.parts = [number * size for number, size in zip(heads, self.head_sizes, strict=True)]
        if config.one_matrix:
            self.query_key_value = nn.Linear(block.width, sum(self.parts), "query" in config.biases)
        else:
            self.query = nn.Linear(block.width, self.parts[0], "query" in config.biases)
            self.key = nn.Linear(block.width, self.parts[1], "key" in config.biases)
            self.value = nn.Linear(block.width, self.parts[2], "value" in config.biases)
        if config.head_norms:
            self.query_norm, self.key_norm = norm(block.head_size, config), norm(block.head_size, config)
        self.output = MerinoOutput(block.heads * block.value_head_size, block.width, "output" in config.biases)

    def projected(self, x_BTE: Tensor) -> list[Tensor]:
        """Queries (B, T, H, D), keys and values (B, T, K, D)."""
        if self.config.one_matrix:
            parts = self.query_key_value(x_BTE).split(self.parts, -1)
        else:
            parts = (self.query(x_BTE), self.key(x_BTE), self.value(x_BTE))
        return [part.unflatten(-1, (-1, size)) for part, size in zip(parts, self.head_sizes, strict=True)]

    def forward(
        self,
        x_BTE: Tensor,
        rotation: Rotation,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        layer_idx: int,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if not self.training:  # kernels that keep a cache themselves, as continuous batching does, ask which application this is
            self.layer_idx = layer_idx
        query, key, value = self.projected(x_BTE)
        if self.config.head_norms:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if rotation:
            query, key = apply_rotary_pos_emb(query, key, *rotation[self.head_size])
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, layer_idx)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed_BTHD, weights = attend(
            self, query, key, value, attention_mask, scaling=self.head_size**-0.5, dropout=dropout, **kwargs
        )
        return self.output(mixed_BTHD.flatten(-2)), weights


class MerinoFeedForward(nn.Module):
    """down(activation(up(x))), with maps E→F and F→E; gated: down(activation(gate(x)) · up(x)) (Shazeer 2020)."""

    def __init__(self, config: MerinoConfig, block: BlockShape) -> None:
        super().__init__()
        self.up = nn.Linear(block.width, block.ffn_width, "up" in config.biases)
        self.gate = nn.Linear(block.width, block.ffn_width, "gate" in config.biases) if block.gated else None
        self.activation = ACT2FN[config.hidden_act]
        self.down = MerinoOutput(block.ffn_width, block.width, "down" in config.biases)

    def forward(self, x_BTE: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x_BTE)))
        return self.down(self.activation(self.gate(x_BTE)) * self.up(x_BTE))


class MerinoLayer(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    A layer that its block shares is applied several times: `layer_idx` tells the application, and so the entry of the
    key-value cache, apart.
    """

    def __init__(self, config: MerinoConfig, block: BlockShape, layer_idx: int) -> None:
        super().__init__()
        self.attention_norm = norm(block.width, config)
        self.attention = MerinoAttention(config, block, layer_idx)
        self.ffn_norm = norm(block.width, config)
        self.ffn = MerinoFeedForward(config, block)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTE: Tensor,
        rotation: Rotation,
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        layer_idx: int = 0,
        **kwargs: Any,
    ) -> Tensor:
        attended, _ = self.attention(self.attention_norm(x_BTE), rotation, attention_mask, past_key_values, layer_idx, **kwargs)
        x_BTE = x_BTE + self.dropout(attended)
        return x_BTE + self.dropout(self.ffn(self.ffn_norm(x_BTE)))


class MerinoBlock(nn.Module):
    """`depth` applications of layers of one shape: of a single layer where weights are shared, else of one layer each.

    Of depth 0 it has no layer, and hands on what it is given.
    """

    def __init__(self, config: MerinoConfig, block: BlockShape, first_layer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MerinoLayer(config, block, first_layer + number) for number in range(block.stored))
        self.applications = range(first_layer, first_layer + block.depth)

    def forward(
        self, x_BTE: Tensor, rotation: Rotation, attention_mask: Tensor | None, past_key_values: Cache | None, **kwargs: Any
    ) -> Tensor:
        for i, layer_idx in enumerate(self.applications):
            layer = self.layers[i % len(self.layers)]
            x_BTE = layer(x_BTE, rotation, attention_mask, past_key_values=past_key_values, layer_idx=layer_idx, **kwargs)
        return x_BTE


class MerinoJoint(nn.Linear):
    """The map between neighbours of unequal width."""


class MerinoPad(nn.Module):
    """Zeros behind a narrower stream, or nothing of what a wider one has more: unequal neighbours joined without parameters."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.more = right - left

    def forward(self, x_BTE: Tensor) -> Tensor:
        return nn.functional.pad(x_BTE, (0, self.more))


def joint(left: int, right: int, config: MerinoConfig) -> nn.Module:
    """What joins neighbours of these widths; nothing where they are equal."""
    if left == right:
        return nn.Identity()
    return MerinoPad(left, right) if config.joints == "pad" else MerinoJoint(left, right, bias=False)


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

    Token embedding and what joins it to the first block; learned positions, as wide as that block; the blocks with their joints;
    the final norm, as wide as the last block, and what joins that to the output head.
    """

    def __init__(self, config: MerinoConfig) -> None:
        super().__init__(config)
        shapes = config.shapes
        widths = [shape.width for shape in shapes]
        self.tokens = nn.Embedding(config.vocab_size, config.embedding_width)
        self.first_position = config.extra_positions
        if config.learned_positions:
            self.positions: nn.Embedding | None = nn.Embedding(config.extra_positions + config.max_position_embeddings, widths[0])
            self.rotary = nn.ModuleList()
        else:
            self.positions = None
            self.rotary = nn.ModuleList(rotary(size, config) for size in sorted({each.head_size for each in shapes if each.depth}))
        self.dropout = nn.Dropout(config.dropout)
        chain = (config.embedding_width, *widths, config.embedding_width)
        self.joints = nn.ModuleList(joint(left, right, config) for left, right in pairwise(chain))
        firsts = accumulate((shape.depth for shape in shapes), initial=0)
        self.blocks = nn.ModuleList(MerinoBlock(config, shape, first) for shape, first in zip(shapes, firsts, strict=False))
        self.norm = norm(widths[-1], config)
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
        if self.positions is not None:
            x_BTE = x_BTE + self.positions(position_ids + self.first_position)
        rotation = {each.config.head_dim: each(x_BTE, position_ids) for each in self.rotary}  # type: ignore[union-attr]
        x_BTE = self.dropout(x_BTE)
        for number, block in enumerate(self.blocks):
            if number:
                x_BTE = self.joints[number](x_BTE)  # a statement of its own: what enters a joint is freed before the block runs
            x_BTE = block(x_BTE, rotation, mask, past_key_values, **kwargs)
        x_BTE = self.norm(x_BTE)
        x_BTE = self.joints[-1](x_BTE)
        return BaseModelOutputWithPast(last_hidden_state=x_BTE, past_key_values=past_key_values if use_cache else None)


def rotary(head_size: int, config: MerinoConfig) -> LlamaRotaryEmbedding:
    """Rotary positions of heads of one size."""
    parameters = {"rope_type": "default", "rope_theta": float(config.rope_theta)}
    return LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=head_size,
            num_attention_heads=1,
            head_dim=head_size,
            max_position_embeddings=config.max_position_embeddings,
            rope_parameters=parameters,
        )
    )


def loss_in_parts(
    hidden_BTE: Tensor, head: nn.Linear, labels_BT: Tensor, at_a_time: int, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """The mean cross-entropy that the logits of all tokens give, computed from those of `at_a_time` tokens.

    No part's logits outlive it: the backward pass computes them again. torch's own `linear_cross_entropy` computes the gradient
    with the loss instead, but in the number format of its inputs: of bfloat16 it returns a loss of three digits, and on a CPU it
    takes several times as long (PyTorch 2.13).
    """
    hidden = hidden_BTE[:, :-1].flatten(0, 1)
    labels = labels_BT[:, 1:].flatten()

    def part(hidden_NE: Tensor, labels_N: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head(hidden_NE).float(), labels_N, reduction="sum")

    pieces = zip(hidden.split(at_a_time), labels.split(at_a_time), strict=True)
    total = torch.stack([checkpoint(part, *piece, use_reentrant=False) for piece in pieces]).sum()
    return total / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)


class MerinoForCausalLM(MerinoPreTrainedModel, GenerationMixin):
    """The language model: `MerinoModel` and an output head, which is the token embedding where the two are tied.

    forward takes what transformers' causal language models take. `labels` (B, T; −100 is ignored) are shifted inside, the
    loss is the mean cross-entropy in nat per token; `logits_to_keep=1` computes the last token's logits only, which saves
    most of the work of a prefill (the head is two thirds of it in a 50 M design). With labels, `logits_at_a_time=N` computes the
    loss from the logits of N tokens at a time, which takes less memory, and returns no logits.
    """

    _tied_weights_keys = {"lm_head.weight": "model.tokens.weight"}  # noqa: RUF012

    def __init__(self, config: MerinoConfig) -> None:
        super().__init__(config)
        self.model = MerinoModel(config)
        self.lm_head = nn.Linear(config.embedding_width, config.vocab_size, bias=False)
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
        logits_at_a_time: int | None = None,
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
        loss = logits_BTV = None
        if labels is not None and logits_at_a_time is not None:
            items = kwargs.get("num_items_in_batch")
            loss = loss_in_parts(outputs.last_hidden_state, self.lm_head, labels, logits_at_a_time, items)
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
            if labels is not None:
                loss = self.loss_function(logits_BTV, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, for `generate_batch` and serving.

        Raises:
            ValueError: for layers with keys and values of several shapes: the pages of that cache have a single one.
        """
        shapes = {(one.kv_heads, size) for one in self.config.shapes if one.depth for size in (one.head_size, one.value_head_size)}
        if len(shapes) > 1:
            said = " and ".join(f"{heads} heads of {size}" for heads, size in sorted(shapes))
            raise ValueError(
                f"the layers have keys and values of {said}; continuous batching has one cache for layers that are alike in these: "
                "use generate, which takes any"
            )
        return super().init_continuous_batching(*args, **kwargs)


class MerinoForSequenceClassification(GenericForSequenceClassification, MerinoPreTrainedModel):
    """A text in one of `num_labels` classes, by the last token that is no padding.

    It and its neighbour make their body themselves: transformers' ask AutoModel for it, which asks again whether to trust a folder.
    """

    def __init__(self, config: MerinoConfig) -> None:
        MerinoPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = MerinoModel(config)
        self.score = nn.Linear(config.embedding_width, int(config.num_labels or 2), bias=False)
        self.post_init()


class MerinoForTokenClassification(GenericForTokenClassification, MerinoPreTrainedModel):
    """Each token in one of `num_labels` classes."""

    def __init__(self, config: MerinoConfig) -> None:
        MerinoPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.model = MerinoModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Linear(config.embedding_width, int(config.num_labels or 2))
        self.post_init()
