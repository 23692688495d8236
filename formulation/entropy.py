"""The paper's objective: the effective entropy of a block-wise transformer, a composite of five separable parts.

The text leaves open whose width the depth is compared with: the network's mean (`EffectiveEntropy`, ours unless said otherwise)
or each block's own (`BlockwiseEntropy`). The entropy of one weight matrix comes from `formulation.spectral`, by closed form or
from a look-up table.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation.architecture import Architecture, Block
from formulation.derived import SumOverLayers
from formulation.layer import Group, Layer
from formulation.quantity import Composite, Separable, Summand
from formulation.spectral import EntropyTable, check_rho, closed_form_entropy

if TYPE_CHECKING:
    from formulation.space import SearchSpace


_closed_form = lru_cache(maxsize=65536)(closed_form_entropy)


@lru_cache(maxsize=65536)
def _entropy(layer: Layer, group: Group, rho: float) -> float:
    """Entropy of the matrices of one group of a layer, in closed form."""
    return layer.total(group, lambda rows, columns: _closed_form(rows, columns, rho))


_ATTENTION, _FFN = Group.ATTENTION, Group.FFN


def _one(layer: Layer) -> float:
    return 1.0


def _log_width(layer: Layer) -> float:
    return math.log2(layer.width)


def _log_ffn_width(layer: Layer) -> float:
    return math.log2(layer.ffn_width)


@dataclass(frozen=True)
class _Discounted(Summand):
    """α·(1 − β·L²/S)·A with L the first part.

    L²/S is jointly convex, and L²/S ≥ 2ρ·L − ρ²·S for every ρ, with equality where ρ = L/S.

    Attributes:
        weight: α.
        part: the number of A.
        over: the number of S.
        beta: β.
    """

    weight: float
    part: int
    over: int
    beta: float

    def factor(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return 1 - self.beta * parts[0] * parts[0] / parts[self.over]

    def range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (
                float(1 - self.beta * np.square(upper[0]) / lower[self.over]),
                float(1 - self.beta * np.square(lower[0]) / upper[self.over]),
            )

    def tangent(self, near: np.ndarray) -> tuple[np.ndarray, float]:
        coefficients, ratio = np.zeros(len(near)), near[0] / near[self.over]
        coefficients[0], coefficients[self.over] = -2 * self.beta * ratio, self.beta * ratio * ratio
        return coefficients, 1.0


@dataclass(frozen=True)
class _ByDepth(Summand):
    """weight · (constant + slope·L) · part with L the first part."""

    weight: float
    part: int
    constant: float
    slope: float = 0.0

    def factor(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return self.constant + self.slope * parts[0]

    def range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        ends = self.factor(lower), self.factor(upper)
        return float(min(ends)), float(max(ends))

    def tangent(self, near: np.ndarray) -> tuple[np.ndarray, float]:
        coefficients = np.zeros(len(near))
        coefficients[0] = self.slope
        return coefficients, self.constant


@dataclass(frozen=True)
class TransformerEntropy(Composite):
    """What both readings of the paper's objective share: the options, the entropies of the matrices, the refusal of γ ≥ 1.

    Attributes:
        rho: (σ/ε)² of the random weights.
        alpha: weights (α₁, α₂) of attention and feed-forward network.
        beta: strength of the depth-to-width discount.
        effectiveness: False switches the discount off (γ = 0).
        weighting: False switches the weights off (α = (1, 1)).
        table: an `EntropyTable` of the same rho to interpolate in; closed form where None.

    A design with γ ≥ 1 has no effective entropy: ValueError, no clipping.
    """

    rho: float = 0.01
    alpha: tuple[float, float] = (0.6, 0.4)
    beta: float = 1 / 16
    effectiveness: bool = True
    weighting: bool = True
    table: EntropyTable | None = None

    unit = "nat"

    def __post_init__(self) -> None:
        check_rho(self.rho)
        object.__setattr__(self, "alpha", tuple(self.alpha))
        if len(self.alpha) != 2 or not all(0 <= weight < math.inf for weight in self.alpha) or not any(self.alpha):
            raise ValueError(f"alpha is {self.alpha}; expected two weights of at least 0, not both 0")
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta is {self.beta}; expected a number of at least 0")
        if self.table is not None and self.table.rho != self.rho:
            raise ValueError(f"the entropy table was built with rho = {self.table.rho}, the objective has rho = {self.rho}")

    def _attention_entropy(self, layer: Layer) -> float:
        return _entropy(layer, _ATTENTION, self.rho) if self.table is None else layer.total(_ATTENTION, self.table)

    def _ffn_entropy(self, layer: Layer) -> float:
        return _entropy(layer, _FFN, self.rho) if self.table is None else layer.total(_FFN, self.table)

    @property
    def _discount(self) -> float:
        return self.beta if self.effectiveness else 0.0

    @property
    def _weights(self) -> tuple[float, float]:
        return self.alpha if self.weighting else (1.0, 1.0)

    @abstractmethod
    def effectiveness_of(self, architecture: Architecture) -> tuple[float, float]:
        """(γ_MHSA, γ_FFN) of one architecture."""

    def _refuse(self, architecture: Architecture) -> None:
        text = str(architecture)
        if (gamma := max(self.effectiveness_of(architecture))) >= 1:
            raise ValueError(
                f"the design {text if len(text) < 120 else text[:100] + ' …'} "
                f"has depth-to-width ratio γ = {gamma:.3f}; effective entropy needs γ < 1: "
                f"fewer layers, larger widths, or beta below {self.beta / gamma:.4g}"
            )

    def __call__(self, architecture: Architecture) -> float:
        self._refuse(architecture)
        return super().__call__(architecture)


@dataclass(frozen=True)
class EffectiveEntropy(TransformerEntropy):
    """Effective entropy of a transformer in nat, to be maximized (MeRino, section 3):

        H = α₁·(1 − γ_MHSA)·Σ_i L_i [H(W_Q) + H(W_K) + H(W_V) + H(W_O)] + α₂·(1 − γ_FFN)·Σ_i L_i [H(W_1) + H(W_2)]
        γ_MHSA = β·L² / Σ_i L_i log₂ E_i,   γ_FFN = β·L² / Σ_i L_i log₂ F_i,   L = Σ_i L_i

    γ is the depth-to-width ratio β·L/ŵ with logarithmic effective width ŵ (Levine et al. 2020, Theorem 1), ŵ the log of the
    layer-wise geometric mean where widths differ (our reconstruction, as are the default values). Options and errors are those of
    `TransformerEntropy`.
    """

    name = "effective entropy"

    @cached_property
    def parts(self) -> tuple[Separable, ...]:
        """L, Σ L_i log₂ E_i, Σ L_i log₂ F_i, Σ L_i H_MHSA, Σ L_i H_FFN."""
        return (
            SumOverLayers("depth", "layers", _one),
            SumOverLayers("log-width", "bit", _log_width),
            SumOverLayers("log-ffn-width", "bit", _log_ffn_width),
            SumOverLayers("attention entropy", "nat", self._attention_entropy),
            SumOverLayers("ffn entropy", "nat", self._ffn_entropy),
        )

    @property
    def signs(self) -> tuple[int, ...]:
        """Falls with depth, rises with the widths and the entropies."""
        return (-1, 1, 1, 1, 1)

    @property
    def summands(self) -> tuple[Summand, ...]:
        """See `Composite.summands`: the discount of each entropy is concave in L and the sum of log-widths."""
        pairs = zip(self._weights, (1, 2), (3, 4), strict=True)
        if not self._discount:
            return tuple(_ByDepth(weight, part, 1.0) for weight, _, part in pairs)
        return tuple(_Discounted(weight, part, over, self._discount) for weight, over, part in pairs)

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        depth, log_width, log_ffn_width, attention, ffn = parts
        weight_attention, weight_ffn = self._weights
        if not self._discount:
            return weight_attention * attention + weight_ffn * ffn
        scaled = self._discount * depth * depth
        return weight_attention * (1 - scaled / log_width) * attention + weight_ffn * (1 - scaled / log_ffn_width) * ffn

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`. Each term is α·m·A with m = 1 − β·L²/S in [m⁻, m⁺] and A in [a, b].

        McCormick (1976): m·A ≤ m⁺·A + a·(m − m⁺) and m·A ≤ m⁻·A + b·(m − m⁻). L²/S is convex, so m lies below its tangent
        plane at `near`. Of the two planes the lower one there is taken; it is exact where S or A is at the box's border.
        """
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        coefficients, constant = np.zeros(lower.shape), np.zeros(lower.shape[:-1])
        depth = centre[..., 0]
        for weight, log_part, entropy_part in zip(self._weights, (1, 2), (3, 4), strict=True):
            log_width, entropy = centre[..., log_part], centre[..., entropy_part]
            slope_depth = -2 * self._discount * depth / log_width
            slope_log = self._discount * depth**2 / log_width**2
            least = 1 - self._discount * upper[..., 0] ** 2 / lower[..., log_part]
            most = 1 - self._discount * lower[..., 0] ** 2 / upper[..., log_part]
            tangent = 1 - self._discount * depth**2 / log_width
            first = most * entropy + lower[..., entropy_part] * (tangent - most)
            second = least * entropy + upper[..., entropy_part] * (tangent - least)
            use_first = first <= second
            multiplier = np.where(use_first, most, least)
            corner = np.where(use_first, lower[..., entropy_part], upper[..., entropy_part])
            coefficients[..., entropy_part] += weight * multiplier
            coefficients[..., 0] += weight * corner * slope_depth
            coefficients[..., log_part] += weight * corner * slope_log
            # At the tangent point slopes·(L, S) = −βL²/S, hence the plane's value at the origin is 1.
            constant += weight * corner * (1 - multiplier)
        return coefficients, constant

    def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.underestimator`. Each term is α·m·A with m = 1 − β·N·R, N = L² and R = 1/S.

        N and R lie below their secants, N ≤ (l + u)·L − l·u and R ≤ (s + t − S)/(s·t) for L in [l, u] and S in [s, t]. McCormick
        (1976): N·R ≤ u²·R + N/t − u²/t and N·R ≤ l²·R + N/s − l²/s, which gives m ≥ a plane; and m·A ≥ m⁻·A + a·(m − m⁻) and
        m·A ≥ m⁺·A + b·(m − m⁺) for m in [m⁻, m⁺] and A in [a, b]. Of the planes the highest at `near` is taken.
        """
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        coefficients, constant = np.zeros(lower.shape), np.zeros(lower.shape[:-1])
        low, high, depth = lower[..., 0], upper[..., 0], centre[..., 0]
        for weight, log_part, entropy_part in zip(self._weights, (1, 2), (3, 4), strict=True):
            narrow, wide, log_width = lower[..., log_part], upper[..., log_part], centre[..., log_part]
            # The greater plane of N·R there, as slopes of L and S and a constant: N / end + square·(R − 1/end).
            planes = []
            for square, end in ((high**2, wide), (low**2, narrow)):
                slope_depth, slope_log = (low + high) / end, -square / (narrow * wide)
                rest = -low * high / end + square * ((narrow + wide) / (narrow * wide) - 1 / end)
                planes.append((slope_depth, slope_log, rest, slope_depth * depth + slope_log * log_width + rest))
            first = planes[0][3] <= planes[1][3]
            slope_depth, slope_log, rest, product = (np.where(first, *pair) for pair in zip(*planes, strict=True))
            least = 1 - self._discount * high**2 / narrow
            most = 1 - self._discount * low**2 / wide
            plane = 1 - self._discount * product
            entropy, small, large = centre[..., entropy_part], lower[..., entropy_part], upper[..., entropy_part]
            use_low = least * entropy + small * (plane - least) >= most * entropy + large * (plane - most)
            multiplier, corner = np.where(use_low, least, most), np.where(use_low, small, large)
            coefficients[..., entropy_part] += weight * multiplier
            coefficients[..., 0] -= weight * corner * self._discount * slope_depth
            coefficients[..., log_part] -= weight * corner * self._discount * slope_log
            constant += weight * corner * (1 - self._discount * rest - multiplier)
        return coefficients, constant

    def effectiveness_of(self, architecture: Architecture) -> tuple[float, float]:
        """(γ_MHSA, γ_FFN) of one architecture."""
        depth, log_width, log_ffn_width = (part(architecture) for part in self.parts[:3])
        scaled = self._discount * depth**2
        if not scaled:
            return 0.0, 0.0
        return scaled / log_width, scaled / log_ffn_width if log_ffn_width else math.inf

    def check(self, space: SearchSpace) -> None:
        """ValueError with the design of largest γ where that is 1 or more.

        For a given total depth γ is largest where Σ L_i ŵ_i is least: a shortest path, `SearchSpace.shortest`.
        """
        if not self._discount:
            return
        worst: list[Architecture] = []
        for part in self.parts[1:3]:
            lengths = {
                menu: np.array([part.block(block, space) for block in space.blocks_of(menu)]) for menu in dict.fromkeys(space.menus)
            }
            least, path = space.shortest([lengths[menu] for menu in space.menus])
            with np.errstate(divide="ignore"):
                worst.append(space.decode(path(int(np.argmax(np.arange(len(least)) ** 2 / least)))))
        self._refuse(max(worst, key=lambda design: max(self.effectiveness_of(design))))


@dataclass(frozen=True)
class BlockwiseEntropy(TransformerEntropy):
    """Effective entropy with each block discounted by its own width, in nat; the other reading of the paper:

        H = α₁·Σ_i (1 − γ_i)·L_i [H(W_Q) + H(W_K) + H(W_V) + H(W_O)] + α₂·Σ_i (1 − γ'_i)·L_i [H(W_1) + H(W_2)]
        γ_i = β·L / log₂ E_i,   γ'_i = β·L / log₂ F_i,   L = Σ_i L_i

    Equal to `EffectiveEntropy` where all widths are. Options and errors are those of `TransformerEntropy`.
    """

    name = "blockwise effective entropy"

    def _attention_loss(self, layer: Layer) -> float:
        return self._attention_entropy(layer) / math.log2(layer.width)

    def _ffn_loss(self, layer: Layer) -> float:
        return self._ffn_entropy(layer) / math.log2(layer.ffn_width) if layer.ffn_width > 1 else math.inf

    @cached_property
    def parts(self) -> tuple[Separable, ...]:
        """L, Σ L_i H_MHSA, Σ L_i H_FFN, Σ L_i H_MHSA / log₂ E_i, Σ L_i H_FFN / log₂ F_i."""
        return (
            SumOverLayers("depth", "layers", _one),
            SumOverLayers("attention entropy", "nat", self._attention_entropy),
            SumOverLayers("ffn entropy", "nat", self._ffn_entropy),
            SumOverLayers("attention entropy per bit", "nat/bit", self._attention_loss),
            SumOverLayers("ffn entropy per bit", "nat/bit", self._ffn_loss),
        )

    @property
    def signs(self) -> tuple[int, ...]:
        """Rises with the entropies, falls with depth and with what it is multiplied by."""
        return (-1, 1, 1, -1, -1)

    @property
    def summands(self) -> tuple[Summand, ...]:
        """See `Composite.summands`."""
        found = [_ByDepth(weight, part, 1.0) for weight, part in zip(self._weights, (1, 2), strict=True)]
        if self._discount:
            found += [_ByDepth(weight, part, 0.0, -self._discount) for weight, part in zip(self._weights, (3, 4), strict=True)]
        return tuple(found)

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        depth, attention, ffn, attention_loss, ffn_loss = parts
        weight_attention, weight_ffn = self._weights
        if not self._discount:
            return weight_attention * attention + weight_ffn * ffn
        scaled = self._discount * depth
        return weight_attention * (attention - scaled * attention_loss) + weight_ffn * (ffn - scaled * ffn_loss)

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`. Each term is α·(A − β·L·X) with L in [l, u] and X in [x, y].

        McCormick (1976): L·X ≥ l·X + x·L − l·x and L·X ≥ u·X + y·L − u·y; of the two planes the higher one at `near` is taken.
        """
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        coefficients, constant = np.zeros(lower.shape), np.zeros(lower.shape[:-1])
        for weight, entropy_part, loss_part in zip(self._weights, (1, 2), (3, 4), strict=True):
            coefficients[..., entropy_part] += weight
            planes = [
                bound[..., 0] * centre[..., loss_part]
                + bound[..., loss_part] * centre[..., 0]
                - bound[..., 0] * bound[..., loss_part]
                for bound in (lower, upper)
            ]
            low = planes[0] >= planes[1]
            depth = np.where(low, lower[..., 0], upper[..., 0])
            loss = np.where(low, lower[..., loss_part], upper[..., loss_part])
            coefficients[..., 0] -= weight * self._discount * loss
            coefficients[..., loss_part] -= weight * self._discount * depth
            constant += weight * self._discount * depth * loss
        return coefficients, constant

    def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.underestimator`. Each term is α·(A − β·L·X) with L in [l, u] and X in [x, y].

        McCormick (1976): L·X ≤ u·X + x·L − u·x and L·X ≤ l·X + y·L − l·y; of the two planes the lower one at `near` is taken.
        """
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        coefficients, constant = np.zeros(lower.shape), np.zeros(lower.shape[:-1])
        for weight, entropy_part, loss_part in zip(self._weights, (1, 2), (3, 4), strict=True):
            coefficients[..., entropy_part] += weight
            ends = (upper[..., 0], lower[..., loss_part]), (lower[..., 0], upper[..., loss_part])
            planes = [depth * centre[..., loss_part] + loss * centre[..., 0] - depth * loss for depth, loss in ends]
            first = planes[0] <= planes[1]
            depth, loss = (np.where(first, *pair) for pair in zip(*ends, strict=True))
            coefficients[..., 0] -= weight * self._discount * loss
            coefficients[..., loss_part] -= weight * self._discount * depth
            constant += weight * self._discount * loss * depth
        return coefficients, constant

    def effectiveness_of(self, architecture: Architecture) -> tuple[float, float]:
        """(max_i γ_i, max_i γ'_i) of one architecture."""
        scaled = self._discount * sum(architecture.depths)
        if not scaled:
            return 0.0, 0.0
        layered = [block for block in architecture.blocks if block.depth]
        ffn_width = min(block.ffn_width for block in layered)
        return scaled / math.log2(min(block.width for block in layered)), scaled / math.log2(
            ffn_width
        ) if ffn_width > 1 else math.inf

    def check(self, space: SearchSpace) -> None:
        """ValueError if some design has γ_i ≥ 1, with the one of largest γ: narrow in one block, and as deep as it then may be.

        Narrowest first: wider blocks are of interest only where they leave room for more layers.
        """
        if not self._discount:
            return
        bits = {menu: np.array(list(map(_least_bits, space.blocks_of(menu)))) for menu in dict.fromkeys(space.menus)}
        with np.errstate(divide="ignore"):
            gammas = [
                np.where(menu.layers > 0, most / bits[menu], 0.0)
                for most, menu in zip(space.deepest_with, space.menus, strict=True)
            ]
        narrow = int(np.argmax([own.max() for own in gammas]))
        lengths = [-menu.layers.astype(float) for menu in space.menus]
        lengths[narrow] = np.where(np.arange(len(space.menus[narrow])) == gammas[narrow].argmax(), lengths[narrow], math.inf)
        least, path = space.shortest(lengths)
        self._refuse(space.decode(path(int(np.flatnonzero(np.isfinite(least))[-1]))))


def _least_bits(block: Block) -> float:
    """log₂ of a block's width or FFN width, whichever is less."""
    return math.log2(min(block.width, block.ffn_width))
