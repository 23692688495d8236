"""A layer as data: the linear maps and norms that a block's decisions come to, and what surrounds the blocks.

Parameters, FLOPs, bytes, cache, roofline, the work that latency tables price, both entropies and the PyTorch modules are read off
these lists; the layer's formula is written nowhere else. Which layers there are is a block's and its setting's say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from formulation.architecture import HEAD_SIZE, Block, Setting
from formulation.family import FAMILIES, QUERY_KEY_VALUE, Family, family_of

Size = Any
"""A whole number, or an array of them for many layers at once."""


class Group(StrEnum):
    """What a linear map serves."""

    ATTENTION = "attention"
    FFN = "ffn"
    JOINT = "joint"
    HEAD = "head"


@dataclass(frozen=True)
class LinearMap:
    """A linear map from one width to another.

    Attributes:
        name: what it is called in its layer: query, key, value, output; up, gate, down.
        group: what it serves.
        inputs: width that it reads.
        outputs: width that it writes.
        bias: whether it adds a bias.
        matrix: the stored matrix whose rows it is; maps of one matrix read the same input and are computed as one product.
    """

    name: str
    group: Group
    inputs: int
    outputs: int
    bias: bool
    matrix: str

    @cached_property
    def weights(self) -> int:
        """Entries of the matrix, and so multiply-adds per token."""
        return self.inputs * self.outputs

    @cached_property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.bias * self.outputs


@dataclass(frozen=True)
class Norm:
    """A normalization of `width` values with a weight each, and a bias each where it has biases."""

    name: str
    width: int
    bias: bool

    @cached_property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.width * (1 + self.bias)


@dataclass(frozen=True)
class Embedding:
    """A table that is looked up: `rows` vectors of `width` values."""

    name: str
    rows: int
    width: int

    @cached_property
    def parameters(self) -> int:
        """Entries of the table."""
        return self.rows * self.width


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: its maps in the order in which a token meets them, and its norms.

    Sizes may be arrays, for many layers at once.

    Attributes:
        maps: query, key, value, output; up, gate (where it has one), down.
        norms: attention_norm and ffn_norm, before attention and before the feed-forward network; query_norm and key_norm, of
            each head, where the family has them.
        head_size: width of a head of queries and keys, d.
        value_head_size: width of a head of values.
    """

    maps: tuple[LinearMap, ...]
    norms: tuple[Norm, ...]
    head_size: int
    value_head_size: int

    @cached_property
    def _by_name(self) -> dict[str, LinearMap]:
        return {each.name: each for each in (*self.maps, *self.matrices)}

    def __getitem__(self, name: str) -> LinearMap:
        """The map or the stored matrix of that name."""
        return self._by_name[name]

    @cached_property
    def width(self) -> int:
        """Width of the residual stream, E."""
        return self["query"].inputs

    @cached_property
    def ffn_width(self) -> int:
        """Width inside the feed-forward network, F."""
        return self["down"].inputs

    @cached_property
    def query_width(self) -> int:
        """Width of all query heads together, h·d."""
        return self["query"].outputs

    @cached_property
    def value_width(self) -> int:
        """Width of the mixed values of all heads, which the output map reads; h·d unless values have a head size of their own."""
        return self["output"].inputs

    @cached_property
    def gated(self) -> bool:
        """Whether the feed-forward network has a gate."""
        return "gate" in self._by_name

    @cached_property
    def cache_width(self) -> int:
        """Numbers that one token leaves in the key-value cache, 2·k·d where values are as wide as keys."""
        return self["key"].outputs + self["value"].outputs

    @cached_property
    def heads(self) -> int:
        """Query heads, h."""
        return self.query_width // self.head_size

    @cached_property
    def kv_heads(self) -> int:
        """Key/value heads, k."""
        return self["key"].outputs // self.head_size

    def of(self, group: Group) -> tuple[LinearMap, ...]:
        """The maps of one group."""
        return tuple(each for each in self.maps if each.group is group)

    @cached_property
    def matrices(self) -> tuple[LinearMap, ...]:
        """The maps as they are stored and computed: those of one matrix put together, under its name."""
        parts: dict[str, list[LinearMap]] = {}
        for each in self.maps:
            parts.setdefault(each.matrix, []).append(each)
        return tuple(
            LinearMap(name, own[0].group, own[0].inputs, sum(each.outputs for each in own), own[0].bias, name)
            for name, own in parts.items()
        )

    @cached_property
    def attention_weights(self) -> int:
        """Entries of the attention's matrices."""
        return sum(each.weights for each in self.of(Group.ATTENTION))

    @cached_property
    def ffn_weights(self) -> int:
        """Entries of the feed-forward network's matrices."""
        return sum(each.weights for each in self.of(Group.FFN))

    @cached_property
    def weights(self) -> int:
        """Entries of all matrices."""
        return self.attention_weights + self.ffn_weights

    @cached_property
    def parameters(self) -> int:
        """Weights, biases and norms."""
        return sum(each.parameters for each in self.maps) + sum(each.parameters for each in self.norms)

    def score_flops(self, tokens: int, attended: Size) -> int:
        """FLOPs of attention scores and mixing, 2 per multiply-add, for `tokens` tokens that each attend to `attended`."""
        return 2 * tokens * attended * (self.query_width + self.value_width)

    def flops(self, tokens: int, attended: int) -> int:
        """FLOPs of one application, 2 per multiply-add: every map on every token, attention scores and mixing."""
        return 2 * tokens * self.weights + self.score_flops(tokens, attended)

    def total(self, group: Group, of_shape: Callable[[int, int], float]) -> float:
        """Sum over the matrices of one group of what depends on their smaller and larger dimension alone, such as an entropy."""
        return sum(count * of_shape(small, large) for small, large, count in self._shapes[group])

    @cached_property
    def _shapes(self) -> dict[Group, tuple[tuple[int, int, int], ...]]:
        counts: dict[Group, dict[tuple[int, int], int]] = {}
        for each in self.maps:
            small, large = sorted((each.inputs, each.outputs))
            own = counts.setdefault(each.group, {})
            own[small, large] = own.get((small, large), 0) + 1
        return {group: tuple((*shape, count) for shape, count in own.items()) for group, own in counts.items()}


def make_layer(
    width: Size,
    ffn_width: Size,
    heads: Size,
    kv_heads: Size | None = None,
    head_size: Size = HEAD_SIZE,
    value_head_size: Size | None = None,
    gated: bool = False,
    family: Family = FAMILIES["merino"],
) -> Layer:
    """A layer of grouped-query attention (Ainslie et al. 2023) and a feed-forward network, gated (Shazeer 2020) or not.

    Query (E → h·d), key (E → k·d), value (E → k·d'), output (h·d' → E); up (E → F), gate (E → F) where gated, down (F → E). Which
    of them have a bias or are one stored matrix, and what norms there are, is the family's.

    Args:
        width: of the residual stream, E.
        ffn_width: of the feed-forward network, F.
        heads: query heads, h.
        kv_heads: key/value heads, k; h unless given.
        head_size: of queries and keys, d.
        value_head_size: of values, d'; d unless given.
        gated: whether the feed-forward network has a gate.
        family: what is left open.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    value_head_size = head_size if value_head_size is None else value_head_size
    queries, keys = heads * head_size, kv_heads * head_size
    values, mixed = kv_heads * value_head_size, heads * value_head_size
    attention = (("query", width, queries), ("key", width, keys), ("value", width, values), ("output", mixed, width))
    inside = ("up", "gate") if gated else ("up",)
    ffn = (*((name, width, ffn_width) for name in inside), ("down", ffn_width, width))
    one_matrix = dict.fromkeys(QUERY_KEY_VALUE, "query_key_value") if family.one_matrix else {}
    head_norms = (Norm("query_norm", head_size, family.norm_bias), Norm("key_norm", head_size, family.norm_bias))
    return Layer(
        tuple(
            LinearMap(name, group, inputs, outputs, name in family.biases, one_matrix.get(name, name))
            for group, maps in ((Group.ATTENTION, attention), (Group.FFN, ffn))
            for name, inputs, outputs in maps
        ),
        (
            Norm("attention_norm", width, family.norm_bias),
            Norm("ffn_norm", width, family.norm_bias),
            *(head_norms if family.head_norms else ()),
        ),
        head_size,
        value_head_size,
    )


@lru_cache(maxsize=1 << 16)
def _layer(
    width: int, ffn_width: int, heads: int, kv_heads: int, head_size: int, value_head_size: int, gated: bool | None, family: str
) -> Layer:
    own = family_of(family)
    return make_layer(width, ffn_width, heads, kv_heads, head_size, value_head_size, own.gated if gated is None else gated, own)


def layer_of(block: Block, setting: Setting) -> Layer:
    """The layer that a block repeats, in its setting; a token passes through `depth` of them."""
    return _layer(
        block.width,
        block.ffn_width,
        block.heads,
        block.kv_heads,
        block.head_size,
        block.value_head_size,
        block.gated,
        setting.family,
    )


def stored_layers(block: Block, setting: Setting) -> int:
    """How many layers of a block are stored: a single one where they share their weights, which saves memory and no work."""
    shared = setting.shared if block.shared is None else block.shared
    return 1 if shared and block.depth else block.depth


@lru_cache(maxsize=1 << 16)
def _joint_map(left: int, right: int) -> LinearMap:
    return LinearMap("joint", Group.JOINT, left, right, False, "joint")


def joint_map(left: int, right: int, setting: Setting) -> LinearMap | None:
    """The bias-free map that joins neighbours of unequal width; None where they are padded."""
    return None if setting.joints == "pad" else _joint_map(left, right)


@dataclass(frozen=True)
class Surroundings:
    """What stands around the blocks, whatever their widths.

    Attributes:
        tokens: the token embedding.
        head: the output head: a map whose matrix is the token embedding where the two are tied, so that it is not stored once more.
    """

    tokens: Embedding
    head: LinearMap

    @cached_property
    def parameters(self) -> int:
        """Embedding, and a head of its own."""
        return self.tokens.parameters + (0 if self.head.matrix == self.tokens.name else self.head.parameters)


@lru_cache(maxsize=1 << 10)
def _surroundings(width: int, vocabulary: int, tied: bool) -> Surroundings:
    tokens = Embedding("tokens", vocabulary, width)
    return Surroundings(tokens, LinearMap("head", Group.HEAD, width, vocabulary, False, tokens.name if tied else "head"))


def surroundings(setting: Setting) -> Surroundings:
    """What stands around the blocks in a setting, whatever their widths."""
    return _surroundings(setting.embedding_width, setting.vocabulary, setting.tied)


def learned_positions(width: int, setting: Setting) -> Embedding | None:
    """The table of positions, added where a first block `width` wide begins; None where the family has none."""
    family = family_of(setting.family)
    return Embedding("positions", setting.positions + family.extra_positions, width) if family.learned_positions else None


def final_norm(width: int, setting: Setting) -> Norm | None:
    """The norm behind a last block `width` wide, before what joins it to the head; None where the family has none."""
    family = family_of(setting.family)
    return Norm("norm", width, family.norm_bias) if family.final_norm else None
