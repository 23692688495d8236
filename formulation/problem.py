"""What is wanted, as data: maximize a quantity over a search space, subject to budgets. Knows no solver."""

from __future__ import annotations

import math
import sys
from dataclasses import InitVar, dataclass

import numpy as np

from formulation.architecture import Architecture
from formulation.declarations import check_declarations
from formulation.quantity import Quantity
from formulation.space import SearchSpace
from formulation.values import value_of

_ROUNDING = 1e-12
"""Relative excess over a budget that is put down to the order of floating-point sums; whole-number costs have none."""


def just_below(value: float) -> float:
    """A budget that a design which uses `value` > 0 breaks, and every design that uses less keeps.

    Less by a relative 1e-11, ten times what is put down to rounding: values nearer to each other are not told apart.
    """
    return value * (1 - 10 * _ROUNDING)


@dataclass(frozen=True)
class Budget:
    """quantity(architecture) ≤ upper, in the unit of the quantity.

    confidence  a probability: the budget then holds with it under the quantity's own measurement and model error (a chance
                constraint). `quantity` becomes the value that is kept with that probability, `Quantity.at_confidence`
    Raises ValueError for an upper that is negative or not a finite number, and for a confidence where no error is known.
    """

    quantity: Quantity
    upper: float
    confidence: InitVar[float | None] = None

    def __post_init__(self, confidence: float | None) -> None:
        if not isinstance(self.quantity, Quantity):
            raise ValueError(f"a budget's quantity is {self.quantity!r}; expected a Quantity such as Params()")
        bad_type = isinstance(self.upper, bool) or not isinstance(self.upper, int | float | np.number)
        if bad_type or not 0 <= self.upper < math.inf:
            raise ValueError(
                f"the budget for {self.quantity.name} is {self.upper!r}; expected a finite number, 0 or more {self.quantity.unit}"
            )
        object.__setattr__(self, "upper", float(self.upper))
        if confidence is not None:
            object.__setattr__(self, "quantity", self.quantity.at_confidence(confidence))

    @property
    def limit(self) -> float:
        """The largest value that is accepted: upper with room for rounding in the last digits, none where upper is 0."""
        return min(self.upper * (1 + _ROUNDING), sys.float_info.max)

    def value(self, architecture: Architecture) -> float:
        """What the design uses, finite; Undefined if the quantity has no value for it."""
        return value_of(self.quantity, architecture)

    def __str__(self) -> str:
        return f"{self.quantity.name} ≤ {self.upper:.6g} {self.quantity.unit}"


@dataclass(frozen=True)
class Usage:
    """What a design spends of one budget: value and upper in `unit`, and whether it is within."""

    name: str
    unit: str
    value: float
    upper: float
    within: bool

    @property
    def slack(self) -> float:
        """upper − value, in `unit`; negative where the budget is broken."""
        return self.upper - self.value


@dataclass(frozen=True)
class Evaluation:
    """One design held against a problem: its objective, its use of each budget, and the reported quantities."""

    objective: float
    usage: tuple[Usage, ...]
    report: tuple[Usage, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether every budget is kept."""
        return all(usage.within for usage in self.usage)


@dataclass(frozen=True)
class DesignProblem:
    """maximize `maximize`(A) over the designs A of `space` with quantity(A) ≤ upper for every budget of `subject_to`.

    report    further quantities to evaluate beside them
    minimize  quantities to minimize at the same time: what is sought then is the front of non-dominated designs
              (`solvers.exact_front`, `solvers.nsga2_front`); `solvers.solve` takes problems without any
    Raises ValueError where a quantity is not defined on the whole space, or does not have the structure that it declares, with a
    design that shows it: its own `check`, and samples (`formulation.declarations`).
    """

    space: SearchSpace
    maximize: Quantity
    subject_to: tuple[Budget, ...] = ()
    report: tuple[Quantity, ...] = ()
    minimize: tuple[Quantity, ...] = ()

    def __post_init__(self) -> None:
        for name in ("subject_to", "report", "minimize"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.space, SearchSpace):
            raise ValueError(f"space is {self.space!r}; expected a SearchSpace such as paper_space()")
        for budget in self.subject_to:
            if not isinstance(budget, Budget):
                raise ValueError(f"subject_to holds {budget!r}; expected Budget(quantity, upper)")
        for quantity in self.quantities:
            if not isinstance(quantity, Quantity):
                raise ValueError(f"{quantity!r} is no Quantity; expected one such as EffectiveEntropy() or Flops()")
            quantity.check(self.space)
            check_declarations(quantity, self.space)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The objectives, the budgets' quantities and the reported ones."""
        return (self.maximize, *self.minimize, *(budget.quantity for budget in self.subject_to), *self.report)

    def objective(self, architecture: Architecture) -> float:
        """The value of `maximize`, finite; Undefined if the design has none."""
        return value_of(self.maximize, architecture)

    def evaluate(self, architecture: Architecture) -> Evaluation:
        """The design's objective and its use of every budget, all finite; ValueError for a design outside the space, and Undefined
        naming the quantity that has no value for it."""
        self.space.encode(architecture)
        return Evaluation(
            self.objective(architecture),
            tuple(
                Usage(b.quantity.name, b.quantity.unit, value := b.value(architecture), b.upper, value <= b.limit)
                for b in self.subject_to
            ),
            tuple(Usage(q.name, q.unit, value_of(q, architecture), math.inf, True) for q in self.report),
        )
