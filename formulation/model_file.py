"""Models as one has them: a published name, a config.json, a folder, a file of ours, or a line of text.

A config.json of the Hugging Face libraries says by `model_type` which class builds the model. Read are `merino`, which is ours,
and the types that are families of `formulation.family`; a key that is left out has the default of that class. What a family cannot
express, such as a sliding window, is refused. Keys that change no count (dropout, token ids, base of rotary positions) are passed
over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from formulation.architecture import JOINTS, Architecture, Block, read_blocks
from formulation.family import family_of
from formulation.presets import PRESETS, uniform_model
from formulation.published import PUBLISHED, read_architecture
from formulation.records.reading import PositiveInt, brief, chosen, read_json, read_record, read_value, shown

CONFIG_FILE, DESIGN_FILE = "config.json", "design.json"
"""The files by which a folder says what model is in it: a network's, and that of a design."""

KEYS: Mapping[str, Mapping[str, tuple[str, Any]]] = {
    "gpt2": {
        "layers": ("n_layer", 12),
        "width": ("n_embd", 768),
        "ffn_width": ("n_inner", None),
        "heads": ("n_head", 12),
        "vocabulary": ("vocab_size", 50257),
        "positions": ("n_positions", 1024),
        "tied": ("tie_word_embeddings", True),
    },
    "opt": {
        "layers": ("num_hidden_layers", 12),
        "width": ("hidden_size", 768),
        "ffn_width": ("ffn_dim", 3072),
        "heads": ("num_attention_heads", 12),
        "vocabulary": ("vocab_size", 50272),
        "positions": ("max_position_embeddings", 2048),
        "tied": ("tie_word_embeddings", True),
        "embedding_width": ("word_embed_proj_dim", None),
        "pre_norm": ("do_layer_norm_before", True),
    },
    "gpt_neox": {
        "layers": ("num_hidden_layers", 44),
        "width": ("hidden_size", 6144),
        "ffn_width": ("intermediate_size", 24576),
        "heads": ("num_attention_heads", 64),
        "vocabulary": ("vocab_size", 50432),
        "positions": ("max_position_embeddings", 2048),
        "tied": ("tie_word_embeddings", False),
    },
    "llama": {
        "layers": ("num_hidden_layers", 32),
        "width": ("hidden_size", 4096),
        "ffn_width": ("intermediate_size", 11008),
        "heads": ("num_attention_heads", 32),
        "kv_heads": ("num_key_value_heads", None),
        "head_size": ("head_dim", None),
        "vocabulary": ("vocab_size", 32000),
        "positions": ("max_position_embeddings", 2048),
        "tied": ("tie_word_embeddings", False),
    },
    "qwen2": {
        "layers": ("num_hidden_layers", 32),
        "width": ("hidden_size", 4096),
        "ffn_width": ("intermediate_size", 22016),
        "heads": ("num_attention_heads", 32),
        "kv_heads": ("num_key_value_heads", 32),
        "head_size": ("head_dim", None),
        "vocabulary": ("vocab_size", 151936),
        "positions": ("max_position_embeddings", 32768),
        "tied": ("tie_word_embeddings", False),
    },
    "qwen3": {
        "layers": ("num_hidden_layers", 32),
        "width": ("hidden_size", 4096),
        "ffn_width": ("intermediate_size", 22016),
        "heads": ("num_attention_heads", 32),
        "kv_heads": ("num_key_value_heads", 32),
        "head_size": ("head_dim", 128),
        "vocabulary": ("vocab_size", 151936),
        "positions": ("max_position_embeddings", 32768),
        "tied": ("tie_word_embeddings", False),
    },
}
"""`model_type` -> what a model is made of -> the key that says it, and what holds where the key is left out (transformers 5)."""

_KINDS = {"tied": bool, "pre_norm": bool} | dict.fromkeys(
    ("ffn_width", "kv_heads", "head_size", "embedding_width"), PositiveInt | None
)
"""What the keys hold where it is not a whole number of at least 1."""

EXPECTED: Mapping[str, Mapping[str, tuple[bool, str]]] = {
    "gpt2": {"add_cross_attention": (False, "no cross-attention")},
    "opt": {
        "enable_bias": (True, "biases in every map"),
        "layer_norm_elementwise_affine": (True, "weights and biases in every norm"),
        "_remove_final_layer_norm": (False, "a norm behind the last layer"),
    },
    "gpt_neox": {"attention_bias": (True, "biases in every map")},
    "llama": {"attention_bias": (False, "no biases"), "mlp_bias": (False, "no biases")},
    "qwen2": {"use_sliding_window": (False, "layers that attend to all tokens")},
    "qwen3": {"attention_bias": (False, "no biases"), "use_sliding_window": (False, "layers that attend to all tokens")},
}
"""`model_type` -> key -> the only value, also its default, that fits the family of that name, and what the family has."""

_FULL = "full_attention"
"""What `layer_types` says of a layer without a sliding window."""


@dataclass(frozen=True)
class _Merino:
    """What is read of a network of ours, as `merino_net.network.configuration_merino` writes it."""

    blocks: tuple[Block, ...]
    shared: bool = True
    embedding_width: PositiveInt = 768
    vocab_size: PositiveInt = 50257
    max_position_embeddings: PositiveInt = 2048
    family: str = "merino"
    tie_word_embeddings: bool = True
    joints: str = JOINTS[0]

    def architecture(self) -> Architecture:
        around = (self.shared, self.embedding_width, self.vocab_size, self.max_position_embeddings)
        return Architecture(self.blocks, *around, self.family, self.tie_word_embeddings, self.joints)


def read_config(record: Any, where: str = "config") -> Architecture:
    """The architecture that a config.json describes.

    Args:
        record: a JSON value.
        where: what it is called in a sentence.

    Raises:
        ValueError: in one sentence for another model type, a key that is wrong, and what the family cannot express.
    """
    if not isinstance(record, dict) or "model_type" not in record:
        raise ValueError(
            f'{where} is {shown(record)}; expected an object with "model_type", as the Hugging Face libraries write it, '
            'or one of ours with "format"'
        )
    model_type = record["model_type"]
    chosen("model_type", model_type, {"merino": None, **KEYS})
    try:
        if model_type == "merino":
            return read_record(_Merino, record, where, beside=record).architecture()
        _refuse(record, model_type, where)
        return _of_family(record, model_type, where)
    except ValueError as error:
        sentence = brief(error)
        raise ValueError(sentence if sentence.startswith(where) else f"{where}: {sentence}") from None


def _refuse(record: dict[str, Any], model_type: str, where: str) -> None:
    """ValueError for what the family of a model type cannot express."""
    for key, (expected, has) in EXPECTED[model_type].items():
        if record.get(key, expected) is not expected:
            raise ValueError(f"{where}.{key} is {shown(record[key])}; expected {expected}: the family {model_type} has {has}")
    kinds = read_value(tuple[str, ...] | None, record.get("layer_types"), f"{where}.layer_types")
    if kinds and {*kinds} != {_FULL}:
        raise ValueError(f"{where}.layer_types has {shown(min({*kinds} - {_FULL}))}; expected {_FULL!r} for every layer")
    if record.get("per_layer_config"):
        raise ValueError(
            f"{where}.per_layer_config is given; expected layers that are all alike, as the class of {model_type} has them"
        )


def _of_family(record: dict[str, Any], model_type: str, where: str) -> Architecture:
    made = {
        name: read_value(_KINDS.get(name, PositiveInt), record.get(key, default), f"{where}.{key}")
        for name, (key, default) in KEYS[model_type].items()
    }
    width, heads = made.pop("width"), made.pop("heads")
    head_size, kv_heads, ffn_width = made.pop("head_size", None), made.pop("kv_heads", None), made.pop("ffn_width")
    if head_size is None and width % heads:
        raise ValueError(f"{where} has {heads} heads at a width of {width}; expected heads that divide it, or a head_dim")
    return uniform_model(
        model_type if made.pop("pre_norm", True) else "opt_post_norm",
        made.pop("layers"),
        width,
        4 * width if ffn_width is None else ffn_width,
        heads,
        heads if kv_heads is None else kv_heads,
        width // heads if head_size is None else head_size,
        **made,
    )


_MERINO_IN_OPT = "opt"
"""The family that `merino` is where its layers are all alike: with biases, ReLU, LayerNorm and the same table of positions."""


def plain_architecture(design: Architecture) -> Architecture | None:
    """The design as a class of transformers builds it, which is what `read_config` reads of that class; None if none does.

    The layers must be all alike and share no weights, at one width, with as many heads as fill it where the family is OPT's or
    GPT-2's.
    """
    family = _MERINO_IN_OPT if design.family == "merino" else design.family
    if family not in KEYS or family == "gpt_neox":
        return None
    try:
        layers = design.by_layer.blocks
    except ValueError:  # shared layers
        return None
    block = layers[0]
    fills = block.heads * block.head_size == block.width and block.kv_heads == block.heads
    kinds = KEYS[family]
    alike = {*layers} == {block} and {*design.widths} == {block.width}
    gated = bool(block.gated) == family_of(family).gated
    grouped = "kv_heads" in kinds or fills
    divided = family != "llama" or block.width % block.heads == 0  # LlamaConfig insists, whatever the head size
    joined = "embedding_width" in kinds and design.joints == JOINTS[0]
    embedded = joined or design.embedding_width == block.width
    if not (alike and gated and grouped and divided and embedded) or block.value_head_size != block.head_size or block.bits:
        return None
    around = {"vocabulary": design.vocabulary, "positions": design.positions, "tied": design.tied}
    if "embedding_width" in kinds:
        around["embedding_width"] = design.embedding_width
    sizes = (block.width, block.ffn_width, block.heads, block.kv_heads, block.head_size)
    return uniform_model(family, len(layers), *sizes, **around)


def in_terms_of(design: Architecture, network: Architecture) -> Architecture:
    """A network in the family and blocks of a design where it is that design but for the vocabulary; else as it is.

    A network that `plain_architecture` describes says neither which design it was made of nor that its family was `merino`.
    """
    told = replace(design, vocabulary=network.vocabulary)
    return told if network == plain_architecture(told) else network


def is_text(source: str) -> bool:
    """Whether a source of `read_model` is text of blocks, and neither a name nor a path."""
    return (
        source not in PRESETS and source not in PUBLISHED and not Path(source).exists() and bool(re.match("[0-9x]+/[0-9]", source))
    )


def read_model(source: str, **around: Any) -> Architecture:
    """The model that a name, a path or a line of text means.

    Args:
        source: a name in `PRESETS` or `PUBLISHED`; a folder with a config.json or a design.json; a config.json, a design.json or
            an architecture's own JSON; or text such as "32x960/2560 heads 15 kv 5", see `read_blocks`, with "unshared" behind it
            where layers share no weights, as `str` of an architecture writes it. A name goes before a path.
        around: what text leaves open, as in `Architecture`; the others say it themselves. Layers of other families than `merino`
            share no weights unless it says so.

    Raises:
        ValueError: in one sentence, if it means none.
    """
    if source in PRESETS:
        return PRESETS[source]
    if source in PUBLISHED:
        return PUBLISHED[source]
    if is_text(source):
        text = source.removesuffix(" unshared")
        shared = text == source and around.get("family", "merino") == "merino"
        return Architecture(read_blocks(text), **{"shared": shared, **around})
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in (CONFIG_FILE, DESIGN_FILE) if (path / name).is_file()]
        if not found:
            raise ValueError(
                f"the folder {source} has neither {CONFIG_FILE} nor {DESIGN_FILE}; expected a network or a design in it"
            )
        path = found[0]
    elif not path.exists() and not source.endswith(".json"):
        chosen("model", source, {**PRESETS, **PUBLISHED, "FILE.json": None, "FOLDER": None, "'32x960/2560 heads 15 kv 5'": None})
    record = read_json("model file", path)
    if isinstance(record, dict) and "format" in record:
        return read_architecture(str(path))
    try:
        return read_config(record)
    except ValueError as error:
        raise ValueError(f"the config file {path}: {error}") from None
