"""One idea for objectives, budgets, hardware costs and metrics: a `Quantity`, a function of an architecture with a unit.

Its structure is optional. A `Separable` adds up over blocks and joints, a `Composite` is a formula of a few separables;
exact solvers read that structure. A `Measured` is any function: heuristics call it, exact solvers refuse it with `NotSeparable`.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation.architecture import Architecture, Block, Setting
from formulation.values import as_float

if TYPE_CHECKING:
    from formulation.space import SearchSpace


class NotSeparable(ValueError):
    """An exact method was given a quantity whose structure it cannot read; the message names the methods that can."""


class Combine(Enum):
    """How a separable quantity puts its terms together."""

    SUM = "sum"
    MAX = "max"


class Quantity(ABC):
    """A number read off an architecture.

    Attributes:
        name: short name, used by budgets, tables and the command line.
        unit: unit of the value, "1" where it has none.
        least: no design has a smaller value: 0 for a count, a size or a time, −∞ unless declared.
        revision: of what it counts: a class that comes to count otherwise has the next one, so that no stored result of before is
            taken for one of now.
    """

    name: str
    unit: str
    least: float = -math.inf
    revision: int = 1

    @abstractmethod
    def __call__(self, architecture: Architecture) -> float:
        """The value of one architecture."""

    def check(self, space: SearchSpace) -> None:
        """ValueError naming a design of `space` for which there is no value; nothing is refused unless overridden."""
        return

    @property
    def doubt(self) -> str:
        """What a proof about it holds for, where that may not be what is really seen; empty unless its values are doubtful."""
        return ""

    def extrapolates(self, architecture: Architecture) -> str:
        """What of a design lies outside of what its values were validated on, in words; empty where nothing does."""
        return ""

    @property
    def assumes(self) -> str:
        """What its values hold for, in words that stand in brackets behind its name; empty unless its options do not say it all."""
        return ""

    @property
    def positional(self) -> bool:
        """Whether the order of equally wide neighbouring blocks may change the value; True unless more is known of the quantity."""
        return True

    def at_confidence(self, confidence: float) -> Quantity:
        """The value that what is really seen stays below with probability `confidence`, as a quantity of the same kind.

        ValueError unless overridden: only a quantity that knows its own error can say.
        """
        raise ValueError(
            f"{self.name} has no error, so nothing holds with confidence {confidence!r}; "
            "leave the confidence out, or give it to a measured quantity such as a latency"
        )


class Separable(Quantity):
    """q(A) = fixed ⊕ entry(E_1) ⊕ Σ_i block(block_i) ⊕ Σ joint(left, right) over unequal neighbours ⊕ exit(E_N).

    ⊕ is a sum or a maximum. The neighbours run embedding → block 1 → … → block N → output head; equal ones need no joining map and
    cost nothing.

    Attributes:
        combine: whether ⊕ is a sum (unless overridden) or a maximum.
    """

    combine: Combine = Combine.SUM

    @abstractmethod
    def block(self, block: Block, setting: Setting) -> float:
        """Term of one block."""

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        """Term of one block at a position, 0 … N − 1; that of `block` unless overridden."""
        return self.block(block, setting)

    def terms_of(self, space: SearchSpace) -> Sequence[np.ndarray] | None:
        """Per position the terms of all blocks of its menu, as `block_at` gives them, where they lie in a table; None: ask block by
        block.
        """
        return None

    @property
    def positional(self) -> bool:
        """Whether the term of a block depends on its position."""
        return type(self).block_at is not Separable.block_at

    def joint(self, left: int, right: int, setting: Setting) -> float:
        """Term of the map that joins a neighbour `left` wide to one `right` wide, left ≠ right; 0 unless overridden."""
        return 0

    def fixed(self, setting: Setting) -> float:
        """Term that every design of the setting has; 0 unless overridden."""
        return 0

    def entry(self, width: int, setting: Setting) -> float:
        """Term of what stands before a first block `width` wide, such as positions; 0 unless overridden."""
        return 0

    def exit(self, width: int, setting: Setting) -> float:
        """Term of what stands behind a last block `width` wide, such as a norm; 0 unless overridden."""
        return 0

    def __call__(self, architecture: Architecture) -> float:
        ends = self.entry(architecture.widths[0], architecture), self.exit(architecture.widths[-1], architecture)
        terms = [self.fixed(architecture), *ends]
        terms += [self.block_at(i, block, architecture) for i, block in enumerate(architecture.blocks)]
        terms += [self.joint(left, right, architecture) for left, right in architecture.unequal_neighbours]
        return float(sum(map(as_float, terms)) if self.combine is Combine.SUM else max(map(as_float, terms)))


class Summand(ABC):
    """weight · factor(parts) · part: a summand of a composite whose factor is a concave function of the parts.

    Exact methods bound a product tightly where they may bound its factor by itself: by tangents, and by what it can be in a box.

    Attributes:
        weight: 0 or more.
        part: the number of the part that is multiplied; it is never negative.
    """

    weight: float
    part: int

    @abstractmethod
    def factor(self, parts: Sequence[Any] | np.ndarray) -> Any:
        """The factor, by the parts as `Composite.formula` takes them."""

    @abstractmethod
    def range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        """The least and the most that the factor is where the parts lie between bounds (P,)."""

    @abstractmethod
    def tangent(self, near: np.ndarray) -> tuple[np.ndarray, float]:
        """Coefficients (P,) and a constant of an affine function nowhere below the factor, and equal to it at the parts `near`."""


class Composite(Quantity):
    """A formula of a few separable parts, monotone in each: q(A) = formula(part_1(A), …, part_P(A)).

    `formula` uses + − * / alone and so takes numbers, arrays and the expressions of a declarative program alike.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[Separable, ...]:
        """The separable parts, in the order in which `formula` takes them."""

    @property
    @abstractmethod
    def signs(self) -> tuple[int, ...]:
        """+1 where the value never falls as the part grows, −1 where it never rises."""

    @abstractmethod
    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        """The value from those of the parts."""

    @abstractmethod
    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """An affine function of the parts that is nowhere below `formula` on a box, and close to it at a point of the box.

        Exact methods need that the excess at a point vanishes as boxes around it shrink.

        Args:
            lower: the least values of the parts in one or many boxes, array (…, P).
            upper: the greatest, array (…, P).
            near: the points, array (…, P); the centres of the boxes unless given.

        Returns:
            Coefficients (…, P) and a constant (…) such that coefficients · p + constant ≥ formula(p) wherever lower ≤ p ≤ upper.
        """

    @property
    def summands(self) -> tuple[Summand, ...]:
        """What the formula is the sum of, where it is made of such products; empty unless overridden."""
        return ()

    @property
    def positional(self) -> bool:
        """Whether the terms of a part depend on the positions of blocks."""
        return any(part.positional for part in self.parts)

    def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """An affine function of the parts that is nowhere above `formula` on a box, as `overestimator` is nowhere below it.

        It is what a budget from above on the quantity, or minimizing it, is relaxed to. Unless overridden: the constant that the
        formula is at the corner of the box which the signs call worst, valid since the formula is monotone in each part.
        """
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        corner = np.where(np.array(self.signs) > 0, lower, upper)
        value = np.asarray(self.formula(np.moveaxis(corner, -1, 0)), dtype=float)
        return np.zeros(lower.shape), np.broadcast_to(value, lower.shape[:-1]).copy()

    def __call__(self, architecture: Architecture) -> float:
        return as_float(self.formula([part(architecture) for part in self.parts]))


@dataclass(frozen=True)
class Measured(Quantity):
    """Any function of an architecture: a latency measured on a device, the score of a trained network.

    Attributes:
        name: what messages and tables call it.
        unit: of the number.
        function: from an architecture to a number, the same one for the same architecture.
    """

    name: str
    unit: str
    function: Callable[[Architecture], float] = field(repr=False)

    def __call__(self, architecture: Architecture) -> float:
        return as_float(self.function(architecture))


def quantity_text(quantity: Quantity) -> str:
    """Its name with what it assumes, or with the options that are not the default, which distinguish two of one name.

    Such as flops (seq_len=128), or decode latency (titan-xp: decode of a token after 128, batch 1, float32, as rated).
    """
    if quantity.assumes:
        return f"{quantity.name} ({quantity.assumes})"
    if isinstance(getattr(type(quantity), "name", None), property):
        return quantity.name  # made from the options
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(quantity) if dataclasses.is_dataclass(quantity) else ()
    known = ("name", "unit")
    values = {f.name: getattr(quantity, f.name) for f in fields if f.repr and f.name not in known}
    options = [f"{f.name}={_brief(values[f.name])}" for f in fields if f.name in values and values[f.name] != f.default]
    return quantity.name + (f" ({', '.join(options)})" if options else "")


def column_texts(quantities: Sequence[Quantity]) -> list[str]:
    """The heads of columns: without what the quantities assume, wherever the name alone distinguishes them."""
    texts = [quantity_text(quantity) for quantity in quantities]
    of_name: dict[str, set[str]] = {}
    for quantity, text in zip(quantities, texts, strict=True):
        of_name.setdefault(quantity.name, set()).add(text)
    return [
        quantity.name if quantity.assumes and len(of_name[quantity.name]) == 1 else text
        for quantity, text in zip(quantities, texts, strict=True)
    ]


def _brief(value: Any) -> Any:
    """A value as the text of a quantity shows it: a record by its name."""
    return getattr(value, "name", value) if dataclasses.is_dataclass(value) else value
