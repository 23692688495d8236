"""The multiple-choice knapsack problem that a design problem is where nothing links neighbouring blocks.

    maximize  f + Σ_i v_i(j_i)   subject to   Σ_i c_ki(j_i) ≤ b_k for every k,   j_i an item of position i

It is one where the objective is a sum over blocks, every budget limits a sum or a maximum, any item may follow any other, and no
joint between neighbours has a term. A maximum only says which items are out (Sinha & Zoltners 1979, for one budget on a sum).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from formulation import Combine, DesignProblem, Separable
from formulation.table import Table, tabulate


@dataclass(frozen=True, eq=False)
class MultipleChoice:
    """One item is chosen at each position, values and costs add up.

    Attributes:
        values: (N, J) of the items; where a position has fewer than J items the rest is padding, see `allowed`.
        costs: (K, N, J) of the budgeted sums.
        limits: (K,) what the costs of a design's items may add up to.
        allowed: bool (N, J): the items that a design may have: False for padding, and for items that exceed a maximum.
        fixed: what every design's value has beside its items.
    """

    values: np.ndarray
    costs: np.ndarray
    limits: np.ndarray
    allowed: np.ndarray
    fixed: float = 0.0

    @property
    def positions(self) -> int:
        """N."""
        return len(self.values)

    @property
    def budgets(self) -> int:
        """K."""
        return len(self.limits)

    @cached_property
    def open_values(self) -> np.ndarray:
        """(N, J) the values, −∞ for what no design may have."""
        return np.where(self.allowed, self.values, -np.inf)

    @cached_property
    def least(self) -> float:
        """No design is worth less: every position at its worst item, less what rounding may make of the sum."""
        worst = np.where(self.allowed, self.values, np.inf).min(axis=1).sum() + self.fixed
        return float(worst - self.rounding)

    @cached_property
    def rounding(self) -> float:
        """The most by which two sums of one design's values can differ for the order of adding up, see `Table.rounding`."""
        return 0.0 if self.whole else 2 * (self.positions + 4) * 2.0**-53 * self.size

    @cached_property
    def whole(self) -> bool:
        """Whether all values are whole numbers that add up without rounding."""
        terms = np.where(self.allowed, self.values, 0.0)
        return self.size < 2**53 and bool((terms == np.rint(terms)).all()) and self.fixed == np.rint(self.fixed)

    def value_of(self, choices: np.ndarray) -> float:
        """What the design of one item number a position is worth."""
        return float(self.fixed + self.values[np.arange(self.positions), choices].sum())

    def costs_of(self, choices: np.ndarray) -> np.ndarray:
        """(K,) what it costs."""
        return self.costs[:, np.arange(self.positions), choices].sum(axis=1)

    @cached_property
    def alike(self) -> bool:
        """Whether all positions have the same items, so that only how many positions take an item matters, not which."""
        terms = np.where(self.allowed, np.concatenate((self.values[None], self.costs)), 0.0)
        return bool((self.allowed == self.allowed[:1]).all() and (terms == terms[:, :1]).all())

    @cached_property
    def size(self) -> float:
        """The most that the magnitudes of the terms of a design's value can add up to, what its rounding is relative to."""
        return abs(self.fixed) + float(np.where(self.allowed, np.abs(self.values), 0.0).max(axis=1).sum())


def is_chain_free(table: Table) -> bool:
    """Whether any item may follow any other, and no joint between neighbours makes a difference to any row of a table."""
    space = table.space
    free = all(bool(step.all()) for step in space.steps) and not space.may_be_empty
    return free and all(bool(without.all()) for without in table.without_joints)


def read_multiple_choice(problem: DesignProblem, poll: Callable[[], object] = lambda: None) -> MultipleChoice | None:
    """The multiple-choice knapsack problem that a problem on a single space is; None where it isn't one.

    A design that meets the budgets is within `limits`, however its terms are added up: they have room for the rounding of the sums.
    So a design within them may exceed a budget, by rounding alone, and has to be compared with the budgets themselves.

    Args:
        problem: maximizes.
        poll: see `tabulate`.
    """
    goal, constraints = problem.goal, problem.constraints
    quantities = [goal, *(constraint.quantity for constraint in constraints)]
    if not all(isinstance(quantity, Separable) for quantity in quantities) or goal.combine is not Combine.SUM:  # type: ignore[attr-defined]
        return None
    table = tabulate(quantities, problem.space, poll)  # type: ignore[arg-type]
    if not is_chain_free(table):
        return None
    positions, items = len(table.blocks), max(block.shape[1] for block in table.blocks)
    terms = np.zeros((len(quantities), positions, items))
    allowed = np.zeros((positions, items), dtype=bool)
    for position, block in enumerate(table.blocks):
        terms[:, position, : block.shape[1]] = block
        allowed[position, : block.shape[1]] = True
    sums = np.flatnonzero(~table.is_max[1:]) + 1
    limits = np.array([constraint.limit for constraint in constraints])
    for row in np.flatnonzero(table.is_max[1:]) + 1:
        within = table.fixed[row] <= limits[row - 1]
        allowed &= (terms[row] <= limits[row - 1]) & within
    room = np.array([table.rounding(slice(row, row + 1), limits[row - 1 : row])[0] for row in sums])
    return MultipleChoice(terms[0], terms[sums], limits[sums - 1] - table.fixed[sums] + room, allowed, float(table.fixed[0]))
