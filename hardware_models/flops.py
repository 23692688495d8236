"""Cost model: floating-point operations of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from formulation import Block, Separable
from formulation.architecture import Setting, positive_integer
from formulation.layer import joint_map, layer_of, surroundings


@dataclass(frozen=True)
class Flops(Separable):
    """FLOPs of one forward pass over a sequence of T tokens, 2 per multiply-add (our reconstruction of the paper's counts):

        Σ_i L_i [ 2T·Σ in·out + 2T²·h·(d + d') ]    maps of a layer; attention scores and mixing, no causal halving
        + Σ 2T·left·right                           maps between unequal neighbours that are not padded
        + 2T·E₀·vocabulary                          output head, where `head` asks for it

    with h query heads of size d, d' in values.

    Every layer counts: sharing weights saves memory, not work. Biases, norms and activations are left out.

    Attributes:
        seq_len: T, tokens.
        head: whether the output head counts; the paper's figures for its own designs leave it out.
    """

    seq_len: int = 1024
    head: bool = False

    name = "flops"
    unit = "FLOPs"
    least = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seq_len", positive_integer("seq_len", self.seq_len))

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * layer_of(block, setting).flops(self.seq_len, self.seq_len)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        own = joint_map(left, right, setting)
        return 0 if own is None else 2 * self.seq_len * own.weights

    def fixed(self, setting: Setting) -> float:
        return 2 * self.seq_len * surroundings(setting).head.weights if self.head else 0
