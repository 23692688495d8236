"""Families of networks: what the maps of a layer leave open, such as norms, biases and positions.

`merino` is the network of the paper by the rules of its first author's public code; the others are what the classes of these names
in transformers build: `gpt2`, `opt`, `gpt_neox`, `llama`, `qwen2`, `qwen3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from formulation.records.reading import chosen

QUERY_KEY_VALUE = ("query", "key", "value")
"""The maps that some families store as one matrix."""

_ATTENTION = (*QUERY_KEY_VALUE, "output")
_FFN = ("up", "gate", "down")


@dataclass(frozen=True)
class Family:
    """What networks of one family have in common.

    Attributes:
        name: as `FAMILIES` lists it.
        biases: names of the maps that add a bias.
        norm_bias: whether norms have biases beside weights: True for LayerNorm, False for RMSNorm.
        gated: whether the feed-forward network has a gate, unless a block says otherwise.
        activation: of the feed-forward network, by its name in transformers.
        learned_positions: whether positions are a table, added where the first block begins; False: rotary, without parameters.
        extra_positions: rows of that table beyond the positions.
        final_norm: whether a norm stands behind the last block.
        head_norms: whether queries and keys have a norm each, as wide as a head.
        tied: whether the output head is the token embedding, unless an architecture says otherwise.
        one_matrix: whether query, key and value are stored as one matrix.
        one_width: whether all blocks must have one residual width.
        joints: whether a map joins neighbours of unequal width; without, the embedding is as wide as the blocks.
        embedding_width: of the token embedding unless stated; None: that of the first block.
    """

    name: str
    biases: tuple[str, ...] = ()
    norm_bias: bool = False
    gated: bool = False
    activation: str = "gelu"
    learned_positions: bool = False
    extra_positions: int = 0
    final_norm: bool = True
    head_norms: bool = False
    tied: bool = True
    one_matrix: bool = False
    one_width: bool = True
    joints: bool = False
    embedding_width: int | None = None


_EVERYWHERE = (*_ATTENTION, *_FFN)
_OPT: dict[str, Any] = {
    "biases": _EVERYWHERE,
    "norm_bias": True,
    "activation": "relu",
    "learned_positions": True,
    "extra_positions": 2,
    "joints": True,
}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("merino", **_OPT, one_matrix=True, one_width=False, embedding_width=768),
        Family("gpt2", _EVERYWHERE, norm_bias=True, activation="gelu_new", learned_positions=True, one_matrix=True),
        Family("opt", **_OPT),
        Family("opt_post_norm", **_OPT, final_norm=False),
        Family("gpt_neox", _EVERYWHERE, norm_bias=True, tied=False, one_matrix=True),
        Family("llama", gated=True, activation="silu", tied=False),
        Family("qwen2", QUERY_KEY_VALUE, gated=True, activation="silu", tied=False),
        Family("qwen3", gated=True, activation="silu", head_norms=True, tied=False),
    )
}
"""Families by name.

merino: OPT's layer, several widths, sharing (kennethzhao24/latency_test on GitHub at bdb789f, the first author's). opt_post_norm:
norms behind attention and feed-forward network instead of before, and none at the end, as OPT-350M alone has it.
"""


def family_of(name: Any) -> Family:
    """The family of that name; ValueError listing the names."""
    return chosen("family", name, FAMILIES)
