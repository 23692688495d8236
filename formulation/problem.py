"""What is wanted, as data: the best value of a quantity over a search space, subject to budgets. Knows no solver."""

from __future__ import annotations

import math
import sys
from dataclasses import InitVar, dataclass, field, replace
from typing import Any

import numpy as np

from formulation.architecture import Architecture
from formulation.command.words import number_text, with_unit
from formulation.declarations import check_declarations
from formulation.derived import negative
from formulation.layered import LayeredSpace
from formulation.quantity import Quantity, quantity_text
from formulation.space import SearchSpace
from formulation.union import SpaceUnion
from formulation.values import value_of

_ROUNDING = 1e-12
"""Relative excess over a budget that is put down to the order of floating-point sums; whole-number costs have none."""


def just_below(value: float) -> float:
    """A number that a design of the value `value` exceeds, and every design of a smaller value does not.

    Less by a relative 1e-11, ten times what is put down to rounding: values nearer to each other are not distinguished. Below 0 it
    is the largest negative float of full precision.
    """
    return value * (1 - math.copysign(10 * _ROUNDING, value)) if value else -sys.float_info.min


def _loosened(upper: float) -> float:
    """The largest value that `upper` admits, with room for rounding in the last digits; none where it is 0."""
    return min(upper * (1 + math.copysign(_ROUNDING, upper)), sys.float_info.max)


@dataclass(frozen=True)
class Constraint:
    """quantity(A) ≤ limit, as solvers see every budget: one from below is the negated quantity with the negated limit.

    Attributes:
        quantity: what is limited.
        limit: the largest value that is accepted, with room for rounding.
    """

    quantity: Quantity
    limit: float


@dataclass(frozen=True)
class Budget:
    """quantity(A) ≤ upper, or quantity(A) ≥ at_least, in the unit of the quantity. A range is two budgets.

    What counts is the value in floating point, the sum of a design's terms as the quantity adds them up. It may exceed the bound by
    a relative 1e-12 of the bound, which is put down to rounding. A bound of exactly 0 has no such room: terms that cancel to 0 by
    hand, such as ten times 0.1 and −1, may miss it by their rounding. Give a bound of the size of that, such as −1e-12.

    Attributes:
        quantity: what is limited.
        upper: the most of it, None for a budget from below.
        at_least: the least of it, None for a budget from above.

    Args:
        confidence: a probability: the budget then holds with it under the quantity's own measurement and model error (a chance
            constraint). `quantity` becomes the value that is kept with that probability, `Quantity.at_confidence`.

    Raises:
        ValueError: for none or both of `upper` and `at_least`, for one that is not a finite number or that is below all values that
            the quantity declares (`Quantity.least`), and for a confidence where no error is known.
    """

    quantity: Quantity
    upper: float | None = None
    confidence: InitVar[float | None] = None
    at_least: float | None = field(default=None, kw_only=True)

    def __post_init__(self, confidence: float | None) -> None:
        if not isinstance(self.quantity, Quantity):
            raise ValueError(f"a budget's quantity is {self.quantity!r}; expected a Quantity such as Params()")
        _check_described(self.quantity)
        name = self.quantity.name
        if (self.upper is None) is (self.at_least is None):
            given = "None" if self.upper is None else f"{self.upper!r} and at_least={self.at_least!r}"
            raise ValueError(
                f"the budget for {name} is {given}; expected one bound, Budget(quantity, upper) or Budget(quantity, at_least=...): "
                "a range is two budgets"
            )
        _check_bound(self.quantity, self.bound)
        object.__setattr__(self, self.side, float(self.bound))
        if confidence is not None:
            if self.upper is None:
                raise ValueError(
                    f"the budget {name} ≥ {self.at_least:.6g} has the confidence {confidence!r}; expected none: "
                    "confidence is about what a measured value stays below"
                )
            object.__setattr__(self, "quantity", self.quantity.at_confidence(confidence))

    @property
    def bound(self) -> float:
        """`upper` or `at_least`, whichever is given."""
        return self.upper if self.upper is not None else self.at_least  # type: ignore[return-value]

    @property
    def side(self) -> str:
        """ "upper" or "at_least", whichever is given."""
        return "upper" if self.upper is not None else "at_least"

    @property
    def sign(self) -> str:
        """≤ or ≥."""
        return "≤" if self.upper is not None else "≥"

    def at(self, bound: float) -> Budget:
        """The budget with another bound on the same side."""
        return Budget(self.quantity, bound) if self.upper is not None else Budget(self.quantity, at_least=bound)

    @property
    def constraint(self) -> Constraint:
        """The budget as solvers see it."""
        if self.upper is not None:
            return Constraint(self.quantity, _loosened(self.upper))
        return Constraint(negative(self.quantity), _loosened(-self.bound))

    @property
    def limit(self) -> float:
        """The last value that is accepted: the bound with room for rounding in the last digits, none where it is 0."""
        return _loosened(self.bound) if self.upper is not None else -_loosened(-self.bound)

    def allows(self, value: float) -> bool:
        """Whether a design of this value meets the budget."""
        return value <= self.limit if self.upper is not None else value >= self.limit

    def value(self, architecture: Architecture) -> float:
        """What the design uses, finite; Undefined if the quantity has no value for it."""
        return value_of(self.quantity, architecture)

    def usage(self, architecture: Architecture) -> Usage:
        """What the design uses of the budget, and whether it meets it."""
        value = self.value(architecture)
        return Usage(self.quantity.name, self.quantity.unit, value, self.upper, self.at_least, self.allows(value))

    def __str__(self) -> str:
        return f"{self.quantity.name} {self.sign} {with_unit(f'{self.bound:.6g}', self.quantity.unit)}"


def _check_described(quantity: Quantity) -> None:
    for attribute in ("name", "unit"):
        if not isinstance(getattr(quantity, attribute, None), str):
            raise ValueError(f'{type(quantity).__name__} lacks a {attribute}; expected a text, as in name = "energy", unit = "J"')


def _check_bound(quantity: Quantity, bound: Any) -> None:
    """ValueError if a budget's bound is not a number that the quantity could have."""
    bad_type = isinstance(bound, bool) or not isinstance(bound, int | float | np.number)
    if bad_type or not max(quantity.least, -sys.float_info.max) <= bound < math.inf:
        least = f", {quantity.least:g} or more" if quantity.least > -math.inf else ""
        raise ValueError(
            f"the budget for {quantity.name} is {bound!r}; expected {with_unit(f'a finite number{least}', quantity.unit)}"
        )


@dataclass(frozen=True)
class Usage:
    """What a design spends of one budget, in `unit`.

    Attributes:
        name: that of the quantity.
        unit: that of the quantity.
        value: what the design uses.
        upper: the budget from above, None if it is from below or there is none, as of a reported quantity.
        at_least: the budget from below, None otherwise.
        within: whether the budget is met.
    """

    name: str
    unit: str
    value: float
    upper: float | None
    at_least: float | None
    within: bool

    @property
    def slack(self) -> float:
        """How far the value is from the bound, in `unit`; negative where the budget is exceeded, ∞ if there isn't one."""
        if self.upper is not None:
            return self.upper - self.value
        return self.value - self.at_least if self.at_least is not None else math.inf

    def __str__(self) -> str:
        """The budget: params ≤ 5e+07 parameters."""
        sign, bound = ("≤", self.upper) if self.upper is not None else ("≥", self.at_least)
        return f"{self.name} {sign} {with_unit(f'{bound:.6g}', self.unit)}"


@dataclass(frozen=True)
class Evaluation:
    """One design compared with a problem: its objective, its use of each budget, and the reported quantities."""

    objective: float
    usage: tuple[Usage, ...]
    report: tuple[Usage, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether every budget is met."""
        return all(usage.within for usage in self.usage)


@dataclass(frozen=True)
class DesignProblem:
    """maximize `maximize`(A) over the designs A of `space` that meet every budget of `subject_to`, or minimize a quantity.

    Attributes:
        space: the designs; or a `SpaceUnion`, which `solve` and what builds on it take like any other: what reads one space, such
            as a solver, is given the parts one at a time.
        maximize: the objective; None if it is to be minimized instead: `minimize` then names it.
        subject_to: the budgets.
        report: further quantities to evaluate beside them.
        minimize: beside `maximize`, the quantities to minimize at the same time: what is sought then is the front of non-dominated
            designs (`solvers.exact_front`, `solvers.nsga2_front`). Without `maximize`, the one quantity to minimize, for
            `solvers.solve`: DesignProblem(space, minimize=(latency,), subject_to=...) asks for the least latency.

    Raises:
        ValueError: where a quantity is not defined on the whole space, or does not have the structure that it declares, with a
            design that shows it: its own `check`, and samples (`formulation.declarations`).
    """

    space: SearchSpace
    maximize: Quantity | None = None
    subject_to: tuple[Budget, ...] = ()
    report: tuple[Quantity, ...] = ()
    minimize: tuple[Quantity, ...] = ()

    def __post_init__(self) -> None:
        for name, of in (("subject_to", Budget), ("report", Quantity), ("minimize", Quantity)):
            if isinstance(getattr(self, name), of):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a tuple, {name}=(...,) for one")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.space, LayeredSpace | SpaceUnion):
            raise ValueError(f"space is {self.space!r}; expected a SearchSpace such as paper_space(), or a SpaceUnion of some")
        for budget in self.subject_to:
            if not isinstance(budget, Budget):
                raise ValueError(f"subject_to holds {budget!r}; expected Budget(quantity, upper) or Budget(quantity, at_least=...)")
        if self.maximize is None and len(self.minimize) != 1:
            names = " and ".join(quantity.name for quantity in self.minimize) or "nothing"
            raise ValueError(
                f"the problem maximizes nothing and minimizes {names}; expected a quantity to maximize, or exactly one to minimize"
            )
        for quantity in self.quantities:
            if not isinstance(quantity, Quantity):
                raise ValueError(f"{quantity!r} is not a Quantity; expected one such as EffectiveEntropy() or Flops()")
            _check_described(quantity)
            for part in self.space.parts:
                quantity.check(part)
                check_declarations(quantity, part)

    @property
    def parts(self) -> tuple[DesignProblem, ...]:
        """The same problem on each part of a union of spaces; itself alone on a single space."""
        return (self,) if isinstance(self.space, LayeredSpace) else tuple(replace(self, space=part) for part in self.space.parts)

    @property
    def least(self) -> bool:
        """Whether the objective is to be minimized."""
        return self.maximize is None

    @property
    def goal(self) -> Quantity:
        """The quantity of the objective: `maximize`, or the one to minimize if there isn't one."""
        return self.minimize[0] if self.maximize is None else self.maximize

    @property
    def maximizing(self) -> DesignProblem:
        """The same problem as solvers see it: an objective to be minimized is negated."""
        return replace(self, maximize=negative(self.goal), minimize=()) if self.least else self

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a design must meet, as quantity(A) ≤ limit: the budgets in their order."""
        return tuple(budget.constraint for budget in self.subject_to)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The objectives, the budgets' quantities and the reported ones."""
        objectives = self.minimize if self.maximize is None else (self.maximize, *self.minimize)
        return (*objectives, *(budget.quantity for budget in self.subject_to), *self.report)

    def objective(self, architecture: Architecture) -> float:
        """The value of `goal`, finite; Undefined if the design has none."""
        return value_of(self.goal, architecture)

    def evaluate(self, architecture: Architecture) -> Evaluation:
        """The design's objective and its use of every budget, all finite.

        Raises:
            ValueError: for a design outside the space.
            Undefined: naming the quantity that has no value for it.
        """
        self.space.encode(architecture)
        return Evaluation(
            self.objective(architecture),
            tuple(budget.usage(architecture) for budget in self.subject_to),
            tuple(Usage(q.name, q.unit, value_of(q, architecture), None, None, True) for q in self.report),
        )


def budget_text(budget: Budget) -> str:
    """flops ≤ 60 G FLOPs."""
    return f"{quantity_text(budget.quantity)} {budget.sign} {with_unit(number_text(budget.bound), budget.quantity.unit)}"
