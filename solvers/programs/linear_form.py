"""The choice form as arrays: what linear engines are given, and how far their arithmetic can be trusted with it.

It is the choice form of `solvers.programs.pyomo_model`, with three differences that make it fit for engines whose tolerances are
absolute:

* Sums are written relative to the least term of each block. Exactly one item of each is chosen, so

      Σ_i t_i = (fixed + Σ_i min t_i) + Σ_i (t_i − min t_i)

  and what cancels does so here, in float64 with a known error.
* Items that exceed a budget by themselves are left out, and every row is scaled by a power of two to its own size.
* Parts of a composite are rows, not variables. HiGHS's presolve was seen to call feasible programs with such variables infeasible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Separable
from formulation.derived import NegativeFormula
from formulation.problem import Constraint
from formulation.table import Table, tabulate
from solvers.evaluation import require_structure
from solvers.programs.rational import NotRational, rational

ROW = 2.0**13
"""Size that rows of real numbers are scaled to."""
OBJECTIVE = 2.0**17
"""Size that objectives are scaled to."""
_WHOLE = 2.0**20
"""Rows of whole numbers up to this size stay as they are."""
SLACK = 2e-6
"""What scaled rows are loosened by: twenty times the engines' feasibility tolerance of 1e-7, 2.4e-10 of a row's size."""
SAFETY = 3e-9
"""Added to an engine's bound, relative to the size of its objective: forty times the absolute tolerances of 1e-7 to 1e-5 (CBC's
increment) that engines apply to an objective scaled to 2¹⁷."""
_EXPONENT = 1000
"""Largest exponent of a power of two that something is scaled by: what is smaller than 1e-300 stays small."""
_FLOAT_ERROR = 2.0**-48
"""Relative to the magnitudes added up: error of a sum put together in some floating-point operations."""


@dataclass(frozen=True, eq=False)
class LinearRow:
    """low ≤ coefficients · z[columns] ≤ high; scale: what the coefficients of the quantity itself were multiplied by."""

    columns: np.ndarray
    coefficients: np.ndarray
    low: float
    high: float
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """maximize objective · z subject to rows and 0 ≤ z ≤ upper, where upper is 0 or 1.

    The first `binaries` entries of z are 0 or 1; the others are so wherever these are, and may be continuous.
    """

    objective: np.ndarray
    rows: list[LinearRow]
    upper: np.ndarray
    binaries: int


@dataclass(frozen=True, eq=False)
class Total:
    """A sum over blocks at a design: constant + coefficients · z, with coefficients ≥ 0 and one of 0 in every block.

    Attributes:
        spread: the most that coefficients · z can be.
        error: what floating-point arithmetic may have changed the value by, in making the constant and in adding up a design.
    """

    coefficients: np.ndarray
    constant: float
    spread: float
    error: float

    @property
    def margin(self) -> float:
        """What an engine's word on this sum may be wrong by."""
        return hidden(self.spread) + self.error


class LinearForm:
    """The columns, the rows that make z a design, and those of the budgets but for `formulas`.

    Attributes:
        open: (n,) bool: columns that may be 1.
        budgets: by the number of a summed budget its row, if it needs one.
        possible: whether the budgets, each by itself, leave a design.
    """

    def __init__(self, problem: DesignProblem, poll: Callable[[], object] = lambda: None) -> None:
        """`poll` is called while quantities are tabulated, and may raise to end that."""
        require_structure(problem, "a declarative program")
        self.space, self._poll = problem.space, poll
        menus = self.space.menus
        self.binaries = sum(map(len, menus))
        counts = [len(menu) for menu in menus] + [int(step.sum()) for step in self.space.steps]
        self._starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
        self._ends = np.cumsum(counts)
        self.columns = int(self._ends[-1])
        self.open = np.ones(self.columns, dtype=bool)
        self.possible = True
        self.rows = [*self._structure()]
        self.budgets: dict[int, LinearRow] = {}
        self._sums: list[tuple[int, np.ndarray, float, float, float]] = []
        for number, constraint in enumerate(problem.constraints):
            self._read_budget(number, constraint)
        self._close()
        for number, terms, constant, size, limit in self._sums if self.possible else ():
            if (row := self._budget(terms, constant, size, limit)) is not None:
                self.rows.append(row)
                self.budgets[number] = row

    @property
    def allowed(self) -> list[np.ndarray]:
        """Per block a bool array: items that may be used."""
        return [self.open[start:stop] for start, stop in self._groups[: self.space.blocks]]

    @property
    def _groups(self) -> list[tuple[int, int]]:
        return list(zip(self._starts.tolist(), self._ends.tolist(), strict=True))

    def _structure(self) -> list[LinearRow]:
        """One item per block; the flow from each state leaves as much as its items, and arrives likewise; some layer."""
        menus, blocks = self.space.menus, self.space.blocks
        rows = [self._row(np.arange(start, stop), 1.0, 1.0, 1.0) for start, stop in self._groups[:blocks]]
        for i, step in enumerate(self.space.steps):
            flows = self._starts[blocks + i] + np.arange(int(step.sum()))
            for block, side in zip((i, i + 1), np.nonzero(step), strict=True):
                states = self.space.state_of[block]
                for state in range(len(self.space.state_widths[block])):
                    items = self._starts[block] + np.flatnonzero(states == state)
                    here = flows[side == state]
                    signs = np.concatenate((np.ones(len(items)), -np.ones(len(here))))
                    rows.append(self._row(np.concatenate((items, here)), signs, 0.0, 0.0))
        if self.space.may_be_empty:
            layered = np.concatenate(
                [start + np.flatnonzero(menu.layers) for start, menu in zip(self._starts, menus, strict=False)]
            )
            rows.append(self._row(layered, 1.0, 1.0, np.inf))
        return rows

    @staticmethod
    def _row(columns: np.ndarray, coefficients: np.ndarray | float, low: float, high: float) -> LinearRow:
        return LinearRow(columns, np.broadcast_to(np.asarray(coefficients, dtype=float), columns.shape), low, high)

    def terms(self, table: Table, quantity: int) -> np.ndarray:
        """The terms (n,) of one quantity of a table; the flow between states of equal width has the neutral one."""
        joints = [joint[quantity][step] for joint, step in zip(table.joints, self.space.steps, strict=True)]
        return np.concatenate([*(block[quantity] for block in table.blocks), *joints])

    def total(self, terms: np.ndarray, constant: float, size: float) -> Total:
        """constant + terms · z relative to the least open term of each block and step; size: magnitudes added up before."""
        least = np.minimum.reduceat(np.where(self.open, terms, np.inf), self._starts)
        relative = np.where(self.open, terms - np.repeat(least, self._ends - self._starts), 0.0)
        spread = float(np.maximum.reduceat(relative, self._starts).sum())
        return Total(relative, constant + float(least.sum()), spread, _FLOAT_ERROR * size)

    def scaled(self, total: Total, low: float, high: float) -> LinearRow:
        """low ≤ total ≤ high as a row, loosened by what an engine's tolerance and floating point may hide."""
        factor = power_of_two(ROW, total.spread)
        slack = SLACK + factor * total.error
        columns = np.flatnonzero(total.coefficients)
        ends = factor * (low - total.constant) - slack, factor * (high - total.constant) + slack
        return LinearRow(columns, factor * total.coefficients[columns], *ends, factor)

    def _read_budget(self, number: int, constraint: Constraint) -> None:
        """Close the columns that a maximum rules out; note the sums (number, terms, constant, size, limit)."""
        quantity, limit = constraint.quantity, constraint.limit
        if isinstance(quantity, Separable):
            table = tabulate([quantity], self.space, self._poll)
            terms, fixed = self.terms(table, 0), float(table.fixed[0])
            if quantity.combine is Combine.MAX:
                self.open &= terms <= limit
                self.possible &= fixed <= limit
            else:
                self._sums.append((number, terms, fixed, float(table.sizes[0]), limit))
            return
        assert isinstance(quantity, Composite)
        if isinstance(quantity, NegativeFormula) and isinstance(quantity.quantity, Separable):
            # A maximum of at least so much: a design takes one of the columns that are enough.
            table = tabulate([quantity.quantity], self.space, self._poll)
            enough = np.flatnonzero(self.terms(table, 0) >= -limit)
            if table.fixed[0] < -limit:
                self.possible &= bool(len(enough))
                self.rows.append(self._row(enough, 1.0, 1.0, np.inf))
            return
        if (affine := affine_form(quantity)) is None:
            return
        slopes, constant = affine
        choices = []
        for part, sign, slope in zip(quantity.parts, quantity.signs, slopes, strict=True):
            table = tabulate([part], self.space, self._poll)
            terms, fixed, size = slope * self.terms(table, 0), slope * float(table.fixed[0]), abs(slope) * float(table.sizes[0])
            if part.combine is Combine.SUM:
                choices.append([(terms, fixed, size)])
                continue
            if sign < 0:
                raise NotSeparable(f"{quantity.name} falls with the maximum {part.name}; use DynamicProgramming or Exhaustive")
            # A maximum in which the value grows meets the budget where each of its terms, put in its place, does.
            terms = np.where(np.isfinite(terms), terms, fixed)
            choices.append([(np.zeros(self.columns), fixed, size)])
            for start, stop in self._groups:
                own = np.zeros(self.columns)
                own[start:stop] = terms[start:stop]
                choices[-1].append((own, 0.0, size))
        for chosen in product(*choices):
            terms, fixed, sizes = (sum(values) for values in zip(*chosen, strict=True))
            self._sums.append((number, np.asarray(terms), fixed + constant, sizes + abs(constant), limit))

    def _close(self) -> None:
        """Close every column that exceeds a sum's budget even beside the least terms of all other blocks, as long as one does."""
        before = -1
        while before != self.open.sum():
            before = int(self.open.sum())
            for _, terms, constant, size, limit in (*self._sums, (0, np.zeros(self.columns), 0.0, 0.0, 0.0)):
                self.possible &= bool(np.logical_or.reduceat(self.open, self._starts).all())
                if not self.possible:
                    return
                total = self.total(terms, constant, size)
                self.open &= total.coefficients <= limit - total.constant + total.error

    def _budget(self, terms: np.ndarray, constant: float, size: float, limit: float) -> LinearRow | None:
        """The row of a budget, None if all open columns fit.

        Whole numbers are divided by their greatest common divisor and loosened by a half, which lets no further design in. Other
        rows are loosened by `SLACK`, and designs that exceed the budget by less are ruled out one by one when they are found.
        """
        total = self.total(terms, constant, size)
        room = limit - total.constant
        columns = np.flatnonzero(total.coefficients)
        if not len(columns) or total.spread <= room - total.error:
            return None
        coefficients = total.coefficients[columns]
        if np.all(terms == np.rint(terms)) and constant == np.rint(constant) and size < 2**53:
            divisor = math.gcd(*map(int, set(coefficients.tolist())))
            room = math.floor(room / divisor)
            if room < _WHOLE:
                return LinearRow(columns, coefficients / divisor, -np.inf, room + 0.5, 1 / divisor)
        return self.scaled(total, -np.inf, limit)

    def point(self, architecture: Architecture) -> np.ndarray:
        """The z of a design."""
        choices = self.space.encode(architecture)
        z = np.zeros(self.columns)
        z[self._starts[: self.space.blocks] + choices] = 1
        chosen = [int(states[item]) for states, item in zip(self.space.state_of, choices, strict=True)]
        for i, (step, (left, right)) in enumerate(zip(self.space.steps, pairwise(chosen), strict=True)):
            z[self._starts[self.space.blocks + i] + int(step[:left].sum() + step[left, :right].sum())] = 1
        return z

    def decode(self, z: np.ndarray) -> Architecture | None:
        """The design nearest to a point, None if that takes a step which is not allowed."""
        choices = [int(np.argmax(z[start:stop])) for start, stop in self._groups[: self.space.blocks]]
        return self.space.decode(choices) if self.space.allows(choices) else None

    def other_than(self, architecture: Architecture) -> LinearRow:
        """Rules one design out."""
        columns = np.flatnonzero(self.point(architecture)[: self.binaries])
        return self._row(columns, 1.0, -np.inf, self.space.blocks - 1)

    def program(self, total: Total, rows: Sequence[LinearRow]) -> tuple[LinearProgram, float]:
        """maximize a sum subject to further rows, and the factor that its objective is multiplied by."""
        factor = power_of_two(OBJECTIVE, total.spread)
        return LinearProgram(factor * total.coefficients, [*self.rows, *rows], self.open.astype(float), self.binaries), factor


def prices(program: LinearProgram) -> np.ndarray:
    """Multipliers of the rows, optimal for continuous z: ≥ 0 for upper ends, ≤ 0 for lower ones; 0 for equalities."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, vstack

    lengths = [len(row.columns) for row in program.rows]
    entries = np.concatenate([row.coefficients for row in program.rows])
    columns = np.concatenate([row.columns for row in program.rows])
    matrix = csr_array((entries, columns, np.concatenate(([0], np.cumsum(lengths)))), shape=(len(lengths), len(program.objective)))
    low, high = (np.array([getattr(row, end) for row in program.rows]) for end in ("low", "high"))
    equal, below, above = low == high, np.isfinite(high) & (low < high), np.isfinite(low) & (low < high)
    solved = linprog(
        -program.objective,
        A_ub=vstack([matrix[below], -matrix[above]]),
        b_ub=np.concatenate((high[below], -low[above])),
        A_eq=matrix[equal],
        b_eq=high[equal],
        bounds=np.column_stack((np.zeros(len(program.upper)), program.upper)),
        method="highs",
    )
    result = np.zeros(len(lengths))
    if solved.status == 0:
        marginals = np.maximum(-solved.ineqlin.marginals, 0.0)
        result[below] += marginals[: below.sum()]
        result[above] -= marginals[below.sum() :]
    return result


def power_of_two(wanted: float, size: float) -> float:
    """The power of two that brings a size near to what is wanted, as far as a float and its reciprocal go; 1 for nothing."""
    exponent = math.frexp(wanted)[1] - math.frexp(size)[1]
    return math.ldexp(1.0, max(-_EXPONENT, min(exponent, _EXPONENT))) if size > 0 else 1.0


def hidden(spread: float) -> float:
    """What an engine's tolerances may hide of an objective of that spread, scaled to `OBJECTIVE` as far as powers of two go."""
    return SAFETY * max(spread, math.ldexp(OBJECTIVE, -_EXPONENT)) if spread else 0.0


def formulas(problem: DesignProblem) -> list[tuple[Composite, float]]:
    """The composite budgets that are not affine in their parts, with their limits: what `linear_cells` relaxes box by box.

    NotSeparable for one of a maximum.
    """
    found = []
    for constraint in problem.constraints:
        quantity, limit = constraint.quantity, constraint.limit
        if isinstance(quantity, Composite) and affine_form(quantity) is None:
            if maxima := [part.name for part in quantity.parts if part.combine is Combine.MAX]:
                raise NotSeparable(
                    f"a linear program cannot hold the budget {quantity.name} ≤ {limit:.6g}, a formula of the maximum {maxima[0]}; "
                    "use DynamicProgramming or Exhaustive"
                )
            found.append((quantity, limit))
    return found


def affine_form(composite: Composite) -> tuple[list[float], float] | None:
    """Slopes and constant of a composite that is affine in its parts; None for any other."""
    try:
        formula = rational(composite)
    except NotRational:
        return None
    return None if formula.terms else (list(formula.affine[:-1]), formula.affine[-1])
