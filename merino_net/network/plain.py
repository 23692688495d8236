"""The same network in the class that transformers has for its family, and back: what loads without any code of ours.

A design whose layers are all alike, each with weights of its own, at one width, is what LlamaForCausalLM and its like build. Here
stand the names of their modules beside ours; no arithmetic does. `formulation.model_file.plain_architecture` says which designs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from formulation.architecture import Architecture
from formulation.model_file import KEYS, plain_architecture, read_config
from merino_net.network.configuration_merino import MerinoConfig
from merino_net.network.modeling_merino import MerinoForCausalLM

_LLAMA = {
    "model.tokens": "model.embed_tokens",
    "model.norm": "model.norm",
    "layer": "model.layers",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention.output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn.up": "mlp.up_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.down": "mlp.down_proj",
}
_OPT = {
    "model.tokens": "model.decoder.embed_tokens",
    "model.positions": "model.decoder.embed_positions",
    "model.joints.0": "model.decoder.project_in",
    "model.norm": "model.decoder.final_layer_norm",
    "last joint": "model.decoder.project_out",
    "layer": "model.decoder.layers",
    "attention_norm": "self_attn_layer_norm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.out_proj",
    "ffn_norm": "final_layer_norm",
    "ffn.up": "fc1",
    "ffn.down": "fc2",
}
_GPT2 = {
    "model.tokens": "transformer.wte",
    "model.positions": "transformer.wpe",
    "model.norm": "transformer.ln_f",
    "layer": "transformer.h",
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
MODULES = {"llama": _LLAMA, "qwen2": _LLAMA, "qwen3": _LLAMA, "opt": _OPT, "gpt2": _GPT2}
"""`model_type` in transformers -> module of ours -> module of theirs, those of a layer without what stands before them."""

_PARTS = ("attention.query", "attention.key", "attention.value")
_FUSED = "attention.query_key_value"
_TRANSPOSED = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""GPT-2's maps, whose matrices transformers stores as (inputs, outputs)."""


def architecture_of(config: PreTrainedConfig) -> Architecture | None:
    """The architecture that a configuration describes, ours or one of `formulation.model_file.KEYS`; None for any other."""
    if isinstance(config, MerinoConfig):
        return config.to_architecture()
    if config.model_type not in KEYS:
        return None
    try:
        return read_config(config.to_dict())
    except ValueError:  # what no family has, such as a sliding window
        return None


def plain_form(model: PreTrainedModel) -> PreTrainedModel | None:
    """A network of ours as transformers' own class of its family, with copies of its weights.

    Args:
        model: of ours or not.

    Returns:
        The network; None if no class of transformers builds it, and for a network that is not ours.
    """
    config = model.config
    if not isinstance(model, MerinoForCausalLM) or not isinstance(config, MerinoConfig):
        return None
    design = plain_architecture(config.to_architecture())
    if design is None or (made := _plain_config(config, design)) is None:
        return None
    plain = _built(made, model)
    state: dict[str, Tensor] = {}
    for name, tensor in _state(model):
        for theirs, part in _theirs(name, tensor, design.family, model):
            state[theirs] = part
    plain.load_state_dict(state)
    return plain


def own_form(model: PreTrainedModel) -> MerinoForCausalLM:
    """A network of transformers' own classes as one of ours, with copies of its weights: `plain_form` backwards.

    Raises:
        ValueError: if it is of no family that is built here, or does what the family does not.
    """
    if isinstance(model, MerinoForCausalLM):
        return model
    config: Any = model.config
    if config.model_type not in MODULES:
        raise ValueError(f"the network is a {config.model_type}; expected merino or {', '.join(MODULES)}")
    design = read_config(config.to_dict(), "its configuration")
    own = _built(_own_config(config, design), model)
    assert isinstance(own, MerinoForCausalLM)
    theirs, state = dict(_state(model)), {}
    for name, tensor in _state(own):
        [(there, _)] = _theirs(name, tensor, design.family, own)
        state[name] = _turned(theirs[there], there, design.family)
    own.load_state_dict(state)
    return own


def _built(config: PreTrainedConfig, model: PreTrainedModel) -> PreTrainedModel:
    """A network of `config` that is to take over from `model`: its number format, device and mode, what it says of generation."""
    with torch.random.fork_rng(devices=[]):
        made = AutoModelForCausalLM.from_config(config, dtype=model.dtype, attn_implementation=model.config._attn_implementation)
    made = made.to(model.device).train(model.training)
    made.generation_config = copy.deepcopy(model.generation_config)
    return made


def _state(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor.detach()) for name, tensor in model.state_dict().items())


def _theirs(name: str, tensor: Tensor, family: str, model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Names and values in transformers' class of a tensor of ours: one, or three where query, key and value are apart there."""
    modules = MODULES[family]
    module, _, kind = name.rpartition(".")
    if module == "lm_head":
        yield name, tensor
    elif module.startswith("model.blocks."):
        _, _, block, _, layer, within = module.split(".", 5)
        blocks: Any = model.get_submodule("model.blocks")
        number = blocks[int(block)].applications[int(layer)]
        inside = f"{modules['layer']}.{number}"
        if within == _FUSED and _FUSED not in modules:
            for part, value in zip(_PARTS, tensor.chunk(3), strict=True):
                yield f"{inside}.{modules[part]}.{kind}", value
        else:
            there = f"{inside}.{modules[within]}.{kind}"
            yield there, _turned(tensor, there, family)
    elif module.startswith("model.joints.") and module != "model.joints.0":
        yield f"{modules['last joint']}.{kind}", tensor
    else:
        yield f"{modules[module]}.{kind}", tensor


def _turned(tensor: Tensor, name: str, family: str) -> Tensor:
    """A tensor between its two forms: the matrices of GPT-2's maps are transposed."""
    transposed = family == "gpt2" and tensor.ndim == 2 and name.removesuffix(".weight").endswith(_TRANSPOSED)
    return tensor.T.contiguous() if transposed else tensor


_COMMON = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
"""What a configuration says under the same name on either side."""


def _plain_config(config: MerinoConfig, design: Architecture) -> PreTrainedConfig | None:
    """The configuration of transformers' class; None where the class lacks what ours does."""
    block = design.blocks[0]
    common = {
        "vocab_size": design.vocabulary,
        "tie_word_embeddings": design.tied,
        **{name: getattr(config, name) for name in _COMMON},
    }
    if design.family == "gpt2":
        return GPT2Config(
            n_embd=block.width,
            n_layer=block.depth,
            n_head=block.heads,
            n_inner=block.ffn_width,
            n_positions=design.positions,
            activation_function=config.hidden_act,
            layer_norm_epsilon=config.layer_norm_eps,
            embd_pdrop=config.dropout,
            resid_pdrop=config.dropout,
            attn_pdrop=config.attention_dropout,
            initializer_range=config.initializer_range,
            **common,
        )
    if design.family == "opt":
        joined = design.embedding_width != block.width
        if config.layer_norm_eps != _OPT_EPS or (joined and config.joints != "linear"):
            return None
        return OPTConfig(
            hidden_size=block.width,
            num_hidden_layers=block.depth,
            ffn_dim=block.ffn_width,
            num_attention_heads=block.heads,
            max_position_embeddings=design.positions,
            word_embed_proj_dim=design.embedding_width,
            activation_function=config.hidden_act,
            init_std=config.initializer_range,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            **common,
        )
    made: Callable[..., PreTrainedConfig] = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[design.family]
    return made(
        hidden_size=block.width,
        num_hidden_layers=block.depth,
        intermediate_size=block.ffn_width,
        num_attention_heads=block.heads,
        num_key_value_heads=block.kv_heads,
        head_dim=block.head_size,
        max_position_embeddings=design.positions,
        hidden_act=config.hidden_act,
        rms_norm_eps=config.layer_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": float(config.rope_theta)},
        attention_dropout=config.attention_dropout,
        initializer_range=config.initializer_range,
        **common,
    )


_OPT_EPS = 1e-5
"""OPT's classes write no ε down: it is PyTorch's."""


def _own_config(config: Any, design: Architecture) -> MerinoConfig:
    """Our configuration of a network of transformers' own class; ValueError for positions that are scaled."""
    options: dict[str, Any] = {name: getattr(config, name) for name in _COMMON}
    if design.family == "gpt2":
        if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx:
            raise ValueError("the GPT-2 network scales its attention otherwise than by the head size; it is not built here")
        options |= {"hidden_act": config.activation_function, "layer_norm_eps": config.layer_norm_epsilon}
        options |= {"dropout": config.resid_pdrop, "attention_dropout": config.attn_pdrop}
    elif design.family == "opt":
        options |= {"hidden_act": config.activation_function, "layer_norm_eps": _OPT_EPS}
        options |= {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    else:
        rope = config.rope_parameters
        if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise ValueError(f"the network has rotary positions of the kind {rope}; expected the default kind, unscaled")
        options |= {"hidden_act": config.hidden_act, "layer_norm_eps": config.rms_norm_eps}
        options |= {"rope_theta": rope["rope_theta"], "attention_dropout": config.attention_dropout}
    options["initializer_range"] = config.init_std if design.family == "opt" else config.initializer_range
    return MerinoConfig.from_architecture(design, **options)
