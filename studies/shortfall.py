"""A demand of "at least" as a budget: how far a quantity stays below a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import Composite, SearchSpace, Separable


@dataclass(frozen=True)
class Shortfall(Composite):
    """target − q(A), in q's unit; negative where q exceeds the target. Budget(Shortfall(q, target), 0) asks for q(A) ≥ target.

    quantity  q, separable or composite
    target    a finite number in q's unit
    """

    quantity: Separable | Composite
    target: float

    def __post_init__(self) -> None:
        if not isinstance(self.quantity, Separable | Composite):
            raise ValueError(f"quantity is {self.quantity!r}; expected a separable or composite one such as EffectiveEntropy()")
        if not math.isfinite(self.target):
            raise ValueError(f"target is {self.target!r}; expected a finite number of {self.quantity.unit}")

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name in messages."""
        return f"{self.target:,.6g} − {self.quantity.name}"

    @property
    def unit(self) -> str:  # type: ignore[override]
        """That of q."""
        return self.quantity.unit

    @property
    def parts(self) -> tuple[Separable, ...]:
        """Those of q."""
        return self.quantity.parts if isinstance(self.quantity, Composite) else (self.quantity,)

    @property
    def signs(self) -> tuple[int, ...]:
        """Those of q, turned."""
        return tuple(-sign for sign in self.quantity.signs) if isinstance(self.quantity, Composite) else (-1,)

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return self.target - (self.quantity.formula(parts) if isinstance(self.quantity, Composite) else parts[0])

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Composite.overestimator`: the constant that the formula is at its best corner of the box."""
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        corner = np.where(np.array(self.signs) > 0, upper, lower)
        return np.zeros(lower.shape), np.asarray(self.formula(np.moveaxis(corner, -1, 0)), dtype=float)

    def check(self, space: SearchSpace) -> None:
        self.quantity.check(space)
