"""What one measured pass through a network does: how many tokens, and how much of each kind of work. Latency is priced by it.

The kinds of work are `FEATURES`. A latency table gives each a price in milliseconds; that makes its prediction a sum over
blocks, layers and joints, which exact solvers can search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import Architecture, Block
from formulation.architecture import Setting, positive_integer
from formulation.layer import Layer, joint_map, layer_of, stored_layers, surroundings

PHASES = ("prefill", "decode")
LOGITS = ("last", "all")
"""How many logits the output head makes where it is run."""


@dataclass(frozen=True)
class Workload:
    """One pass through a network: n tokens of each of B sequences, each attending to S.

    Attributes:
        phase: "prefill": a whole query, n = S = seq_len; "decode": one token after seq_len in the cache, n = 1, S = seq_len + 1.
        seq_len: tokens of the query, or in the cache.
        batch: sequences at a time, B.
        logits: "last": the output head sees one token of each sequence; "all": every token of a prefill; "none": it isn't run,
            the pass ends with the hidden states.

    Raises:
        ValueError: for any other phase, logits or sizes.
    """

    phase: str = "prefill"
    seq_len: int = 128
    batch: int = 1
    logits: str = "last"

    def __post_init__(self) -> None:
        for name, known in (("phase", PHASES), ("logits", (*LOGITS, "none"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {str(getattr(self, name))[:100]!r}; expected {' or '.join(known)}")
        for name in ("seq_len", "batch"):
            object.__setattr__(self, name, positive_integer(name, getattr(self, name)))

    @property
    def tokens(self) -> int:
        """B·n, the tokens that every layer works on."""
        return self.batch * (self.seq_len if self.phase == "prefill" else 1)

    @property
    def attended(self) -> int:
        """S, the tokens that each token attends to; a prefill's mask hides half of them and saves no work."""
        return self.seq_len + (self.phase == "decode")

    @property
    def kept(self) -> int:
        """Tokens that the output head sees."""
        return {"all": self.tokens, "last": self.batch, "none": 0}[self.logits]

    def __str__(self) -> str:
        tokens = f"{self.seq_len} tokens" if self.phase == "prefill" else f"a token after {self.seq_len}"
        return f"{self.phase} of {tokens}, batch {self.batch}, {'no' if self.logits == 'none' else self.logits} logits"


def _nothing(*_: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class Feature:
    """A kind of work: its unit, what it counts, and its terms over the parts of a network.

    block(block, setting, workload), joint(left, right, setting, workload) and fixed(setting, workload) are in the unit.
    """

    unit: str
    meaning: str
    block: Callable[[Block, Setting, Workload], float] = _nothing
    joint: Callable[[int, int, Setting, Workload], float] = _nothing
    fixed: Callable[[Setting, Workload], float] = _nothing

    @property
    def around(self) -> bool:
        """Whether it is work around the blocks."""
        return self.fixed is not _nothing

    @property
    def in_blocks(self) -> bool:
        """Whether it is work in blocks."""
        return self.block is not _nothing


def _values(block: Block, setting: Setting, work: Workload, width: Callable[[Layer], int]) -> float:
    """Million values of some width that the layers of a block pass through, L·Bn·width."""
    return block.depth * work.tokens * width(layer_of(block, setting)) / 1e6


def _joint_flops(left: int, right: int, setting: Setting, work: Workload) -> float:
    """GFLOP of what joins unequal neighbours; padding has none."""
    own = joint_map(left, right, setting)
    return 0.0 if own is None else 2 * work.tokens * own.weights / 1e9


def _key_value_weights(layer: Layer) -> int:
    return layer["key"].weights + layer["value"].weights


FEATURES: dict[str, Feature] = {
    "pass": Feature("", "one pass: start and end", fixed=lambda setting, work: 1),
    "block": Feature("", "a block that has layers", block=lambda block, setting, work: min(1, block.depth)),
    "layer": Feature("", "application of a layer, L", block=lambda block, setting, work: block.depth),
    "width": Feature(
        "million values",
        "values of the residual stream that a layer passes through, L·Bn·E",
        block=lambda block, setting, work: _values(block, setting, work, lambda layer: layer.width),
    ),
    "ffn_width": Feature(
        "million values",
        "values inside the feed-forward network, L·Bn·F",
        block=lambda block, setting, work: _values(block, setting, work, lambda layer: layer.ffn_width),
    ),
    "attention_maps": Feature(
        "GFLOP",
        "maps Q, K, V and O, L·2Bn·Σ in·out",
        block=lambda block, setting, work: block.depth * 2 * work.tokens * layer_of(block, setting).attention_weights / 1e9,
    ),
    "ffn_maps": Feature(
        "GFLOP",
        "maps of the feed-forward network, L·2Bn·Σ in·out",
        block=lambda block, setting, work: block.depth * 2 * work.tokens * layer_of(block, setting).ffn_weights / 1e9,
    ),
    "key_value_maps": Feature(
        "GFLOP",
        "of the attention's maps K and V, L·2Bn·E·k·(d + d')",
        block=lambda block, setting, work: block.depth * 2 * work.tokens * _key_value_weights(layer_of(block, setting)) / 1e9,
    ),
    "maps": Feature(
        "GFLOP",
        "all maps of layers and between unequal neighbours, L·2Bn·Σ in·out + 2Bn·left·right",
        block=lambda block, setting, work: block.depth * 2 * work.tokens * layer_of(block, setting).weights / 1e9,
        joint=_joint_flops,
    ),
    "query_key_width": Feature(
        "million values",
        "queries and keys, which rotary positions turn, L·Bn·(h + k)·d",
        block=lambda block, setting, work: _values(
            block, setting, work, lambda layer: (layer.heads + layer.kv_heads) * layer.head_size
        ),
    ),
    "value_width": Feature(
        "million values",
        "mixed values, which the output map reads, L·Bn·h·d'",
        block=lambda block, setting, work: _values(block, setting, work, lambda layer: layer.value_width),
    ),
    "cache": Feature(
        "million values",
        "keys and values that are attended to, read once for each sequence, L·B·S·k·(d + d')",
        block=lambda block, setting, work: block.depth * work.batch * work.attended * layer_of(block, setting).cache_width / 1e6,
    ),
    "scores": Feature(
        "GFLOP",
        "attention scores and mixing, L·2Bn·S·h·(d + d')",
        block=lambda block, setting, work: block.depth * layer_of(block, setting).score_flops(work.tokens, work.attended) / 1e9,
    ),
    "weights": Feature(
        "million weights",
        "distinct weights of the layers: once a block where its layers share them, else L times",
        block=lambda block, setting, work: stored_layers(block, setting) * layer_of(block, setting).weights / 1e6,
    ),
    "applied_weights": Feature(
        "million weights",
        "weights of the layers as often as they are applied: L times, also where they are shared",
        block=lambda block, setting, work: block.depth * layer_of(block, setting).weights / 1e6,
    ),
    "joint": Feature(
        "",
        "a map between unequal neighbours",
        joint=lambda left, right, setting, work: joint_map(left, right, setting) is not None,
    ),
    "joint_maps": Feature(
        "GFLOP",
        "maps between unequal neighbours, 2Bn·left·right",
        joint=_joint_flops,
    ),
    "head": Feature(
        "GFLOP",
        "output head, 2·E₀·vocabulary for each token that it sees",
        fixed=lambda setting, work: 2 * work.kept * surroundings(setting).head.weights / 1e9,
    ),
    "table": Feature(
        "million values",
        "token embedding, E₀·vocabulary, as it is read or unpacked before the first token",
        fixed=lambda setting, work: surroundings(setting).tokens.parameters / 1e6,
    ),
}
"""Name of a kind of work -> what it counts.

B, n and S are those of `Workload`, E, F and L those of a block; h query and k key/value heads are d wide, d' in values.
"""

BODY_FEATURES = (
    "pass",
    "block",
    "layer",
    "width",
    "ffn_width",
    "attention_maps",
    "ffn_maps",
    "scores",
    "weights",
    "joint",
    "joint_maps",
)
"""The kinds of work that a fit prices unless it is told others: they differ between designs of one vocabulary.

Head and table are the same in all of them, part of "pass"; the rest is made of these, or proportional to one of them, in a stack
without grouped heads.
"""


LAYER_FEATURES = ("key_value_maps", "query_key_width", "value_width", "cache", "head")
"""Further kinds of work, which tell layers and networks apart where heads, key/value heads or the embedding's width differ.

A fit prices those of them that it predicts unseen networks worse without (`hardware_models.fit.selecting_fit`).
"""


def feature_matrix(architectures: Sequence[Architecture], workload: Workload, names: Sequence[str]) -> np.ndarray:
    """Work of each kind in each network, (networks, kinds), in the units of `FEATURES`."""
    return np.array([[_amount(FEATURES[name], design, workload) for name in names] for design in architectures], dtype=float)


def _amount(feature: Feature, design: Architecture, workload: Workload) -> float:
    return (
        feature.fixed(design, workload)
        + sum(feature.block(block, design, workload) for block in design.blocks)
        + sum(feature.joint(left, right, design, workload) for left, right in design.unequal_neighbours)
    )
