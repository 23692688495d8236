"""Quantities made from others: the negation of any, so that who can maximize can minimize and who knows ≤ knows ≥."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation.architecture import SETTING, Architecture, Block, Setting, choice_values
from formulation.layer import Layer, layer_of
from formulation.quantity import Combine, Composite, Quantity, Separable

if TYPE_CHECKING:
    from formulation.space import SearchSpace


def negative(quantity: Quantity) -> Quantity:
    """−q, with the structure that q has: a sum stays a sum, a composite a composite, a black box a black box.

    A maximum over blocks becomes a composite whose one part it is, since −max is neither a sum nor a maximum.

    Args:
        quantity: q; where it is a negation itself, what it negates comes back.
    """
    if isinstance(quantity, NegativeSum | NegativeFormula | NegativeValue):
        return quantity.quantity
    if isinstance(quantity, Separable) and quantity.combine is Combine.SUM:
        return NegativeSum(quantity)
    if isinstance(quantity, Separable | Composite):
        return NegativeFormula(quantity)
    return NegativeValue(quantity)


class _Negation(Quantity):
    """What every −q says of itself; `quantity` is q."""

    quantity: Quantity

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in messages."""
        return f"negative {self.quantity.name}"

    @property
    def unit(self) -> str:  # type: ignore[override]
        """That of q."""
        return self.quantity.unit

    def check(self, space: SearchSpace) -> None:
        self.quantity.check(space)


@dataclass(frozen=True)
class NegativeSum(_Negation, Separable):
    """−q of a sum q.

    Attributes:
        quantity: q.
    """

    quantity: Separable

    def __call__(self, architecture: Architecture) -> float:
        return 0.0 - self.quantity(architecture)

    def block(self, block: Block, setting: Setting) -> float:
        return -self.quantity.block(block, setting)

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return -self.quantity.block_at(position, block, setting)

    def terms_of(self, space: SearchSpace) -> Sequence[np.ndarray] | None:
        """See `Separable.terms_of`: those of q, turned."""
        terms = self.quantity.terms_of(space)
        return None if terms is None else [-row for row in terms]

    @property
    def positional(self) -> bool:
        """As q."""
        return self.quantity.positional

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return -self.quantity.joint(left, right, setting)

    def fixed(self, setting: Setting) -> float:
        return -self.quantity.fixed(setting)

    def entry(self, width: int, setting: Setting) -> float:
        return -self.quantity.entry(width, setting)

    def exit(self, width: int, setting: Setting) -> float:
        return -self.quantity.exit(width, setting)


@dataclass(frozen=True)
class NegativeFormula(_Negation, Composite):
    """−q of a composite, or of a maximum over blocks, which is then the only part.

    Attributes:
        quantity: q.
    """

    quantity: Composite | Separable

    @property
    def parts(self) -> tuple[Separable, ...]:
        """Those of q."""
        return self.quantity.parts if isinstance(self.quantity, Composite) else (self.quantity,)

    @property
    def signs(self) -> tuple[int, ...]:
        """Those of q, turned."""
        return tuple(-sign for sign in self.quantity.signs) if isinstance(self.quantity, Composite) else (-1,)

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return -(self.quantity.formula(parts) if isinstance(self.quantity, Composite) else parts[0])

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`: the underestimator of q, turned."""
        if not isinstance(self.quantity, Composite):
            return -np.ones(np.shape(lower)), np.zeros(np.shape(lower)[:-1])
        coefficients, constants = self.quantity.underestimator(lower, upper, near)
        return -coefficients, -constants

    def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.underestimator`: the overestimator of q, turned."""
        if not isinstance(self.quantity, Composite):
            return -np.ones(np.shape(lower)), np.zeros(np.shape(lower)[:-1])
        coefficients, constants = self.quantity.overestimator(lower, upper, near)
        return -np.asarray(coefficients), -np.asarray(constants)


@dataclass(frozen=True)
class NegativeValue(_Negation):
    """−q of a black box q.

    Attributes:
        quantity: q.
    """

    quantity: Quantity

    def __call__(self, architecture: Architecture) -> float:
        return -self.quantity(architecture)


@dataclass(frozen=True)
class SumOverLayers(Separable):
    """Σ_i L_i · per_layer(layer of block i): what every layer of a block contributes alike; nothing where a block has none.

    Attributes:
        name: as in `Quantity`.
        unit: as in `Quantity`.
        per_layer: the term of one layer, in `unit`; see `formulation.layer`.
    """

    name: str
    unit: str
    per_layer: Callable[[Layer], float]

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * self.per_layer(layer_of(block, setting)) if block.depth else 0.0


@dataclass(frozen=True)
class LayerSum(Separable):
    """Σ_i L_i · per_layer(E_i, F_i): a `SumOverLayers` of a function of width and FFN width alone.

    Attributes:
        name: as in `Quantity`.
        unit: as in `Quantity`.
        per_layer: the term of one layer from its width and FFN width, in `unit`.
    """

    name: str
    unit: str
    per_layer: Callable[[int, int], float]

    def block(self, block: Block, setting: Setting) -> float:
        return block.depth * self.per_layer(block.width, block.ffn_width) if block.depth else 0.0


def decisions_of(block: Block) -> int:
    """How many choices of a block count as decisions: width, FFN width and depth, and what does not follow from the rest."""
    return _ALWAYS + sum(value is not None for value in choice_values(block)[_ALWAYS:])


def shared_decisions(own: Block, other: Block) -> int:
    """The decisions of a block, less the choices by name in which another one differs from it."""
    return decisions_of(own) - sum(map(operator.ne, choice_values(own), choice_values(other)))


_ALWAYS = 3
"""The first of `CHOICES`, which every block decides."""


def shared_setting(own: Setting, other: Setting) -> int:
    """How many facts around their blocks two designs or spaces share, of `SETTING`."""
    return sum(getattr(own, name) == getattr(other, name) for name in SETTING)


@dataclass(frozen=True)
class Agreement(Separable):
    """The number of decisions that a design shares with a given one: those of the given one, less what differs by name.

    Budget(agreement, agreement.most − d) asks for designs that differ from the given one in at least d decisions. What follows
    from the rest, such as as many heads as the width holds, is one and the same choice, and no decision. A block without layers has
    no FFN width, so that it differs in two from the same block with some.

    Attributes:
        architecture: the given design.
        setting: whether what surrounds the blocks, such as the vocabulary, counts as decisions too: designs of different spaces may
            differ in it.
    """

    architecture: Architecture
    setting: bool = False

    name = "agreement"
    unit = "decisions"

    def fixed(self, setting: Setting) -> float:
        return shared_setting(self.architecture, setting) if self.setting else 0

    def block(self, block: Block, setting: Setting) -> float:
        raise ValueError("agreement depends on the position of a block; use block_at")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        if position >= len(self.architecture.blocks):
            return -decisions_of(block)  # a block that the given design lacks: all of its decisions differ
        return shared_decisions(self.architecture.blocks[position], block)

    @property
    def most(self) -> int:
        """The number of decisions that the given design shares with itself: all of them."""
        return sum(map(decisions_of, self.architecture.blocks)) + (len(SETTING) if self.setting else 0)


@dataclass(frozen=True)
class TotalDepth(Separable):
    """Σ_i L_i: the number of layers."""

    name = "layers"
    unit = "layers"

    def block(self, block: Block, setting: Setting) -> float:
        return float(block.depth)


LAYERS = TotalDepth()
"""Total depth as a quantity: what exact methods split a search by."""
