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
        name: what it is called in its layer: query, key, value, output; up, down.
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
        maps: query, key, value, output; up, down.
        norms: attention_norm and ffn_norm, before attention and before the feed-forward network.
        head_size: width of an attention head, d.
    """

    maps: tuple[LinearMap, ...]
    norms: tuple[Norm, ...]
    head_size: int

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
        """Width of all query heads together, h·d, which scores, mixed values and the output map share."""
        return self["query"].outputs

    @cached_property
    def cache_width(self) -> int:
        """Numbers that one token leaves in the key-value cache, 2·k·d."""
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
        return 4 * tokens * attended * self.query_width

    def flops(self, tokens: int, attended: int) -> int:
        """FLOPs of one application, 2 per multiply-add: every map on every token, attention scores and mixing."""
        return 2 * tokens * (self.weights + 2 * attended * self.query_width)

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


def make_layer(width: Size, ffn_width: Size, query_width: Size | None = None) -> Layer:
    """The layer of the `merino` family.

    Query, key, value (E → h·d, one matrix), output (h·d → E); up (E → F), down (F → E), each with a bias; two LayerNorms with bias.

    Args:
        width: of the residual stream, E.
        ffn_width: of the feed-forward network, F.
        query_width: of all attention heads together, h·d; E unless given.
    """
    mixed = width if query_width is None else query_width
    attention = (("query", width, mixed), ("key", width, mixed), ("value", width, mixed), ("output", mixed, width))
    ffn = (("up", width, ffn_width), ("down", ffn_width, width))
    one_matrix = dict.fromkeys(("query", "key", "value"), "query_key_value")
    return Layer(
        tuple(
            LinearMap(name, group, inputs, outputs, True, one_matrix.get(name, name))
            for group, maps in ((Group.ATTENTION, attention), (Group.FFN, ffn))
            for name, inputs, outputs in maps
        ),
        (Norm("attention_norm", width, True), Norm("ffn_norm", width, True)),
        HEAD_SIZE,
    )


_layer = lru_cache(maxsize=1 << 16)(make_layer)


def layer_of(block: Block, setting: Setting) -> Layer:
    """The layer that a block repeats, in its setting; a token passes through `depth` of them."""
    return _layer(block.width, block.ffn_width)


def stored_layers(block: Block, setting: Setting) -> int:
    """How many layers of a block are stored: a single one where they share their weights, which saves memory and no work."""
    return 1 if setting.shared and block.depth else block.depth


@lru_cache(maxsize=1 << 16)
def joint_map(left: int, right: int) -> LinearMap:
    """The bias-free map that joins neighbours of unequal width."""
    return LinearMap("joint", Group.JOINT, left, right, False, "joint")


@dataclass(frozen=True)
class Surroundings:
    """What stands around the blocks.

    Attributes:
        tokens: the token embedding.
        positions: the learned positions, added to it.
        norm: the final norm.
        head: the output head, a map whose matrix is the token embedding: applied, not stored once more.
    """

    tokens: Embedding
    positions: Embedding
    norm: Norm
    head: LinearMap

    @cached_property
    def parameters(self) -> int:
        """Embedding, positions and norm."""
        return self.tokens.parameters + self.positions.parameters + self.norm.parameters


@lru_cache(maxsize=1 << 10)
def _surroundings(width: int, vocabulary: int, positions: int) -> Surroundings:
    return Surroundings(
        Embedding("tokens", vocabulary, width),
        Embedding("positions", positions, width),
        Norm("norm", width, True),
        LinearMap("head", Group.HEAD, width, vocabulary, False, "tokens"),
    )


def surroundings(setting: Setting) -> Surroundings:
    """What stands around the blocks in a setting."""
    return _surroundings(setting.embedding_width, setting.vocabulary, setting.positions)
