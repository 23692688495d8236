"""Cost model: number of parameters of the network, or of its decoder alone."""

from __future__ import annotations

from dataclasses import dataclass

from formulation import Block, Separable
from formulation.architecture import Setting
from formulation.layer import final_norm, joint_map, layer_of, learned_positions, stored_layers, surroundings


@dataclass(frozen=True)
class Params(Separable):
    """Number of parameters of the network that a family's rules make (`formulation.family`):

        vocabulary·E₀ + rows·E_1 + norm(E_N)      token embedding, learned positions, final norm
        + vocabulary·E₀                           output head, where it is not the token embedding
        + Σ_i c_i Σ (in·out + out + norms)        maps of a layer with the biases they have, its norms' weights and biases
        + Σ left·right                            bias-free maps between unequal neighbours, where they are not padded

    with E₀ the embedding width and c_i = min(1, L_i) where the layers of a block share their weights, else L_i; the maps and norms
    of a layer are those of `formulation.layer`. For `merino` rows = positions + 2 and norm(E) = 2E: with these all six counts that
    the paper prints come out (rules of the first author's public code, kennethzhao24/latency_test on GitHub).
    """

    name = "params"
    unit = "parameters"
    least = 0.0
    revision = 2

    def block(self, block: Block, setting: Setting) -> float:
        return stored_layers(block, setting) * layer_of(block, setting).parameters

    def joint(self, left: int, right: int, setting: Setting) -> float:
        own = joint_map(left, right, setting)
        return 0 if own is None else own.parameters

    def fixed(self, setting: Setting) -> float:
        return surroundings(setting).parameters

    def entry(self, width: int, setting: Setting) -> float:
        positions = learned_positions(width, setting)
        return 0 if positions is None else positions.parameters

    def exit(self, width: int, setting: Setting) -> float:
        norm = final_norm(width, setting)
        return 0 if norm is None else norm.parameters


@dataclass(frozen=True)
class DecoderParams(Separable):
    """Number of parameters between embedding and head: the proxy of LTS (Javaheripi et al. 2022), where more means better.

        Σ_i c_i Σ (in·out + out + norms) + Σ left·right        layers and joints, as in `Params`; no embedding, no final norm

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
        own = joint_map(left, right, setting)
        return 0 if own is None else own.parameters
