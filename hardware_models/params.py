"""Cost model: number of parameters of the network, or of its decoder alone."""

from __future__ import annotations

from dataclasses import dataclass

from formulation import Block, Separable
from formulation.architecture import Setting
from formulation.layer import joint_map, layer_of, stored_layers, surroundings


@dataclass(frozen=True)
class Params(Separable):
    """Number of parameters, by the rules that reproduce the paper's counts (our reconstruction):

        vocabulary·E₀ + positions·E₀ + 2E₀      token embedding (tied with the head), learned positions, final LayerNorm
        + Σ_i c_i Σ (in·out + out + norms)      maps of a layer with their biases, its norms' weights and biases
        + Σ left·right                          bias-free maps between unequal neighbours

    with E₀ the embedding width and c_i = min(1, L_i) where the layers of a block share their weights, else L_i; the maps and norms
    of a layer are those of `formulation.layer`.
    """

    name = "params"
    unit = "parameters"
    least = 0.0

    def block(self, block: Block, setting: Setting) -> float:
        return stored_layers(block, setting) * layer_of(block, setting).parameters

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return joint_map(left, right).parameters

    def fixed(self, setting: Setting) -> float:
        return surroundings(setting).parameters


@dataclass(frozen=True)
class DecoderParams(Separable):
    """Number of parameters between embedding and head: the proxy of LTS (Javaheripi et al. 2022), where more means better.

        Σ_i c_i Σ (in·out + out + norms) + Σ left·right        layers and maps, as in `Params`; no embedding, no final norm

    Attributes:
        unrolled: whether a shared layer counts as often as it is applied (c_i = L_i); LTS itself knows no sharing.
    """

    unrolled: bool = False

    unit = "parameters"
    least = 0.0

    @property
    def name(self) -> str:  # type: ignore[override]
        """Distinguishes the two counts."""
        return "unrolled decoder params" if self.unrolled else "decoder params"

    def block(self, block: Block, setting: Setting) -> float:
        return (block.depth if self.unrolled else stored_layers(block, setting)) * layer_of(block, setting).parameters

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return joint_map(left, right).parameters
