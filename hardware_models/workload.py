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
from formulation.layer import joint_map, layer_of, stored_layers, surroundings

PHASES = ("prefill", "decode")
LOGITS = ("last", "all")


@dataclass(frozen=True)
class Workload:
    """One pass through a network: n tokens of each of B sequences, each attending to S.

    Attributes:
        phase: "prefill": a whole query, n = S = seq_len; "decode": one token after seq_len in the cache, n = 1, S = seq_len + 1.
        seq_len: tokens of the query, or in the cache.
        batch: sequences at a time, B.
        logits: "last": the output head sees one token of each sequence; "all": every token of a prefill.

    Raises:
        ValueError: for any other phase, logits or sizes.
    """

    phase: str = "prefill"
    seq_len: int = 128
    batch: int = 1
    logits: str = "last"

    def __post_init__(self) -> None:
        for name, known in (("phase", PHASES), ("logits", LOGITS)):
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
        return self.tokens if self.logits == "all" else self.batch

    def __str__(self) -> str:
        tokens = f"{self.seq_len} tokens" if self.phase == "prefill" else f"a token after {self.seq_len}"
        return f"{self.phase} of {tokens}, batch {self.batch}, {self.logits} logits"


def _nothing(*_: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class Feature:
    """A kind of work: its unit, what it counts, and its terms over the parts of a network.

    block(block, setting, workload), joint(left, right, workload) and fixed(setting, workload) are in the unit.
    """

    unit: str
    meaning: str
    block: Callable[[Block, Setting, Workload], float] = _nothing
    joint: Callable[[int, int, Workload], float] = _nothing
    fixed: Callable[[Setting, Workload], float] = _nothing


FEATURES: dict[str, Feature] = {
    "pass": Feature("", "one pass: start and end", fixed=lambda setting, work: 1),
    "block": Feature("", "a block that has layers", block=lambda block, setting, work: min(1, block.depth)),
    "layer": Feature("", "application of a layer, L", block=lambda block, setting, work: block.depth),
    "width": Feature(
        "million values",
        "values of the residual stream that a layer passes through, L·Bn·E",
        block=lambda block, setting, work: block.depth * work.tokens * layer_of(block, setting).width / 1e6,
    ),
    "ffn_width": Feature(
        "million values",
        "values inside the feed-forward network, L·Bn·F",
        block=lambda block, setting, work: block.depth * work.tokens * layer_of(block, setting).ffn_width / 1e6,
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
    "scores": Feature(
        "GFLOP",
        "attention scores and mixing, L·4Bn·S·h·d",
        block=lambda block, setting, work: block.depth * layer_of(block, setting).score_flops(work.tokens, work.attended) / 1e9,
    ),
    "weights": Feature(
        "million weights",
        "distinct weights of the layers: once a block where its layers share them, else L times",
        block=lambda block, setting, work: stored_layers(block, setting) * layer_of(block, setting).weights / 1e6,
    ),
    "joint": Feature("", "a map between unequal neighbours", joint=lambda left, right, work: 1),
    "joint_maps": Feature(
        "GFLOP",
        "maps between unequal neighbours, 2Bn·left·right",
        joint=lambda left, right, work: 2 * work.tokens * joint_map(left, right).weights / 1e9,
    ),
    "head": Feature(
        "GFLOP",
        "output head, 2·E₀·vocabulary for each token that it sees",
        fixed=lambda setting, work: 2 * work.kept * surroundings(setting).head.weights / 1e9,
    ),
}
"""Name of a kind of work -> what it counts.

B, n and S are those of `Workload`, E, F and L those of a block; h·d is the width of its attention heads.
"""

BODY_FEATURES = tuple(name for name in FEATURES if name != "head")
"""The kinds of work that differ between designs of one vocabulary; the head is the same in all, part of "pass"."""


def feature_matrix(architectures: Sequence[Architecture], workload: Workload, names: Sequence[str]) -> np.ndarray:
    """Work of each kind in each network, (networks, kinds), in the units of `FEATURES`."""
    return np.array([[_amount(FEATURES[name], design, workload) for name in names] for design in architectures], dtype=float)


def _amount(feature: Feature, design: Architecture, workload: Workload) -> float:
    return (
        feature.fixed(design, workload)
        + sum(feature.block(block, design, workload) for block in design.blocks)
        + sum(feature.joint(left, right, workload) for left, right in design.joints)
    )
