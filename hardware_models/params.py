"""Cost model: number of parameters of the network, or of its decoder alone."""

from __future__ import annotations

from dataclasses import dataclass

from formulation import Block, Separable
from formulation.architecture import Setting


@dataclass(frozen=True)
class Params(Separable):
    """Number of parameters, by the rules that reproduce the paper's counts (our reconstruction):

      vocabulary·E₀ + positions·E₀ + 2E₀          token embedding (tied with the head), learned positions, final LayerNorm
      + Σ_i c_i (4E_i² + 2E_iF_i + 9E_i + F_i)    Q, K, V, O, W_1, W_2 (4E² + 2EF), their biases (5E + F), two LayerNorms (4E)
      + Σ left·right                              bias-free maps between unequal neighbours

    with E₀ the embedding width and c_i = 1 where the layers of a block share their weights, else L_i.
    """

    name = "params"
    unit = "parameters"

    def block(self, block: Block, setting: Setting) -> float:
        return _layer(block) if setting.shared else block.depth * _layer(block)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return left * right

    def fixed(self, setting: Setting) -> float:
        return (setting.vocabulary + setting.positions + 2) * setting.embedding_width


@dataclass(frozen=True)
class DecoderParams(Separable):
    """Number of parameters between embedding and head: the proxy of LTS (Javaheripi et al. 2022), where more means better.

      Σ_i c_i (4E_i² + 2E_iF_i + 9E_i + F_i) + Σ left·right        layers and maps, as in `Params`; no embedding, no final norm

    unrolled  whether a shared layer counts as often as it is applied (c_i = L_i); LTS itself knows no sharing
    """

    unrolled: bool = False

    unit = "parameters"

    @property
    def name(self) -> str:  # type: ignore[override]
        """Tells the two apart."""
        return "unrolled decoder params" if self.unrolled else "decoder params"

    def block(self, block: Block, setting: Setting) -> float:
        return _layer(block) if setting.shared and not self.unrolled else block.depth * _layer(block)

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return left * right


def _layer(block: Block) -> float:
    return 4 * block.width**2 + 2 * block.width * block.ffn_width + 9 * block.width + block.ffn_width
