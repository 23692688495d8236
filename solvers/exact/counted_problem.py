"""A design problem written as a linear program over counts, with its formulas in boxes of their parts.

Budgets on sums are rows, with room for the rounding of the sums. A budget on a maximum closes what exceeds it; one that asks for a
maximum of at least so much asks for one of the terms that are enough. A formula that is affine in its parts is a row as well. Any
other is a `BoxedFormula`: the objective lies below its planes, and of a budget q ≤ limit the planes of −q reach −limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Quantity, Separable
from formulation.derived import NegativeFormula, negative
from solvers.base import Run
from solvers.exact.alike_blocks import ADVICE, read_alike
from solvers.exact.count_program import SIZE, CountProgram, Linear
from solvers.exact.part_boxes import BoxedFormula
from solvers.programs.highs_model import LinearBound, LinearModel
from solvers.programs.linear_form import affine_form, power_of_two

SHARPENED = 4
"""Most times that planes are added at the point where a program ended."""
_WHOLE = 1e-6
"""Distance from a whole number within which an engine's point is taken to be one."""
_COUNTABLE = 1 << 12
"""Parts of whole numbers up to this size, such as depths, are cut between two of them."""
_CORNER = 1e-9
"""Relative: what a formula at a corner is raised by for the rounding of its parts."""
_FLOAT = 2.0**-50
"""Relative rounding of a sum of a few products."""


class CountedProblem:
    """Columns, rows, objective and formulas of a problem.

    Attributes:
        blocks: see `AlikeBlocks`.
        program: see `CountProgram`.
        possible: whether the fixed terms of maxima leave a design.
        formulas: the composites that are not affine, the objective first where it is one.
        limited: of each budget on a sum or an affine formula its row, and the scale of that.
        maxima: the columns of maxima, with the row of the table and the scale of each.
        whole: the columns that are whole numbers by themselves.
        units: by column, of these 1, of parts that are whole numbers the scale, else 0.
        boxed: the columns whose ranges make bounds of formulas better.
        cost: the objective, as coefficients of the columns times `factor`; `constant` and `margin` are to be added.
        objective_row: the row that asks for an objective.
    """

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        """NotSeparable where blocks are not alike, or a quantity has no such form."""
        self.problem = problem
        self.blocks, self.tabulated = read_alike(problem, run)
        self.program = CountProgram(self.blocks)
        self.possible = True
        self.formulas: list[BoxedFormula] = []
        self._parts: dict[int, tuple[int, float]] = {}
        self.limited: list[tuple[int, float]] = []
        self.goal_formula: BoxedFormula | None = None
        goal = self._goal(problem.goal, self.tabulated.rows[0])
        for constraint, rows in zip(problem.constraints, self.tabulated.rows[1:], strict=True):
            self._budget(constraint.quantity, constraint.limit, rows)
        self._finish(goal)

    def _goal(self, goal: Quantity, rows: slice) -> Linear:
        """The objective as a sum of columns."""
        if isinstance(goal, Separable):
            if goal.combine is Combine.MAX:
                raise NotSeparable(f"counting blocks cannot maximize the maximum {goal.name}; {ADVICE}")
            return self.program.total(rows.start)
        assert isinstance(goal, Composite)
        if (affine := affine_form(goal)) is None:
            self.goal_formula = self._formula(goal, rows)
            return Linear(*self.goal_formula.value, 0.0, 0.0)
        slopes, constant = affine
        self._refuse_rising(goal, slopes, rows)
        return self._combined(slopes, constant, rows)

    def _budget(self, quantity: Quantity, limit: float, rows: slice) -> None:
        """Write quantity ≤ limit."""
        program, row = self.program, rows.start
        if isinstance(quantity, Separable):
            if quantity.combine is Combine.SUM:
                self.limited.append(program.limit(program.total(row), limit))
            else:
                self.possible &= bool(self.blocks.fixed[row] <= limit)
                program.close(program.beyond(row, limit))
            return
        assert isinstance(quantity, Composite)
        if isinstance(quantity, NegativeFormula) and isinstance(quantity.quantity, Separable):
            if self.blocks.fixed[row] < -limit:
                program.row(program.beyond(row, np.nextafter(-limit, -math.inf)), 1.0, 1.0, math.inf)
            return
        if (affine := affine_form(quantity)) is not None:
            slopes, constant = affine
            self._refuse_rising(quantity, [-slope for slope in slopes], rows)
            self.limited.append(program.limit(self._combined(slopes, constant, rows), limit))
            return
        formula = self._formula(negative(quantity), rows)
        columns, coefficients = formula.value
        factor = power_of_two(1.0, float(np.abs(coefficients).max()))
        program.row(columns, factor * coefficients, -factor * limit, math.inf)

    def _refuse_rising(self, quantity: Quantity, slopes: list[float], rows: slice) -> None:
        """NotSeparable where what is sought rises with a maximum, of which only a lower bound is linear."""
        if any(slope > 0 and self.blocks.is_max[row] for slope, row in zip(slopes, range(rows.start, rows.stop), strict=True)):
            raise NotSeparable(f"counting blocks cannot ask for much of {quantity.name}, which rises with a maximum; {ADVICE}")

    def _formula(self, composite: Quantity, rows: slice) -> BoxedFormula:
        """A composite of which much is sought, and that is not affine."""
        assert isinstance(composite, Composite)
        numbers = range(rows.start, rows.stop)
        self._refuse_rising(composite, [float(sign) for sign in composite.signs], rows)
        parts = [self._part(row) for row in numbers]
        columns, scales = [column for column, _ in parts], [scale for _, scale in parts]
        formula = BoxedFormula.written(self.program, composite, columns, scales, self.blocks.is_max[rows])
        self.formulas.append(formula)
        return formula

    def _part(self, row: int) -> tuple[int, float]:
        """The column of a row of the table, and its scale."""
        if row not in self._parts:
            self._parts[row] = (self.program.maximum if self.blocks.is_max[row] else self.program.part)(row)
        return self._parts[row]

    def _combined(self, slopes: list[float], constant: float, rows: slice) -> Linear:
        """An affine function of some rows of the table as a sum of columns."""
        columns, coefficients = [np.zeros(0, dtype=np.intp)], [np.zeros(0)]
        error, size = 0.0, abs(constant)
        for slope, row in zip(slopes, range(rows.start, rows.stop), strict=True):
            if not slope:
                continue
            if self.blocks.is_max[row]:
                column, scale = self._part(row)
                columns.append(np.array([column]))
                coefficients.append(np.array([slope / scale]))
                size += abs(slope) * self.program.upper[column] / scale
                continue
            total = self.program.total(row)
            columns.append(total.columns)
            coefficients.append(slope * total.coefficients)
            constant += slope * total.constant
            error += abs(slope) * total.error
            size += abs(slope) * float(self.tabulated.table.sizes[row])
        return Linear(np.concatenate(columns), np.concatenate(coefficients), constant, error + _FLOAT * size)

    def _finish(self, goal: Linear) -> None:
        """What is known once all columns are there."""
        program, blocks = self.program, self.blocks
        self.constant, self.margin = goal.constant, goal.error
        cost = np.zeros(len(program.lower))
        np.add.at(cost, goal.columns, goal.coefficients)
        most = float(np.abs(cost).max(initial=0.0))
        self.factor = power_of_two(1.0, most) if self.goal_formula else power_of_two(SIZE, most * blocks.count)
        self.cost = self.factor * cost
        used = np.flatnonzero(self.cost)
        self.objective_row = program.row(used, self.cost[used], -math.inf, math.inf)
        self.whole = np.flatnonzero(program.whole)
        self.units = np.zeros(len(program.lower))
        self.units[self.whole] = 1.0
        self.maxima: dict[int, tuple[int, float]] = {}
        for row, (column, scale) in self._parts.items():
            if blocks.is_max[row]:
                self.maxima[column] = row, scale
            elif self.is_whole(row):
                self.units[column] = scale
        dimensions = [formula.dimensions for formula in self.formulas]
        self.boxed = np.unique(np.concatenate(dimensions)) if dimensions else np.zeros(0, dtype=np.intp)

    def is_whole(self, row: int) -> bool:
        """Whether a row of the table always adds up to a whole number, of which there are few."""
        blocks = self.blocks
        arrays = (
            blocks.fixed[row : row + 1],
            blocks.items[row],
            blocks.steps[row],
            blocks.first[row],
            blocks.last[row],
            blocks.joints[row],
        )
        few = max(abs(blocks.least[row]), abs(blocks.most[row])) <= _COUNTABLE
        return bool(few) and all(bool(np.all(terms == np.rint(terms))) for terms in arrays)

    @property
    def ceiling(self) -> float:
        """A bound on all designs from the extremes of single blocks and joints."""
        goal, rows = self.problem.goal, self.tabulated.rows[0]
        least, most = self.blocks.least[rows], self.blocks.most[rows]
        if not isinstance(goal, Composite):
            return float(most[0])
        with np.errstate(all="ignore"):
            value = float(goal.formula(np.where(np.array(goal.signs) > 0, most, least)))
        return value + _CORNER * abs(value) if math.isfinite(value) else math.inf

    @property
    def memory(self) -> int:
        """About how many bytes the program takes inside HiGHS and beside it."""
        return 6 * 8 * len(self.program.rows) * len(self.program.lower)

    def model(self, poll: Callable[[], object]) -> LinearModel:
        """The program inside HiGHS."""
        program = self.program
        return LinearModel(np.array(program.lower), np.array(program.upper), program.rows, poll)

    def value(self, end: LinearBound) -> float:
        """The objective that a bound on the program's stands for."""
        return end.bound / self.factor + self.constant + self.margin

    def scaled(self, objective: float) -> float:
        """What the program's objective is at least where the problem's is at least this."""
        return self.factor * (objective - self.constant - self.margin) - _FLOAT * self.factor * (
            abs(objective) + abs(self.constant)
        )

    def narrow(self, lower: np.ndarray, upper: np.ndarray) -> bool:
        """Draw the conclusions from a box of columns, in place; whether it may hold a design."""
        for column, (row, scale) in self.maxima.items():
            upper[self.program.beyond(row, upper[column] / scale)] = 0.0
        program = self.program
        if len(program.totals):
            np.minimum(upper[program.totals], program.sums(upper), out=(total := np.empty(len(program.totals))))
            upper[program.totals] = total
        return bool(np.all(lower <= upper)) and all(formula.narrow(lower, upper) for formula in self.formulas)

    def write(self, model: LinearModel, lower: np.ndarray, upper: np.ndarray, afresh: bool = True) -> None:
        """Give a model the bounds of a box and the rows that hold in it; `afresh`: with tangents that suit it."""
        for formula in self.formulas:
            formula.write(model, lower, upper, afresh)
        program = self.program
        for row, used, total in zip(program.links, program.used, program.totals, strict=True):
            model.set_row(row, (int(used),), (-float(upper[total]),))
        model.bound_columns(lower, upper)

    def sharpen(self, model: LinearModel, lower: np.ndarray, upper: np.ndarray, point: np.ndarray) -> bool:
        """Add planes that cut a point of a box off; whether there were any."""
        added = [formula.sharpen(model, lower, upper, point) for formula in self.formulas]
        return any(added)

    def bounded(
        self, model: LinearModel, lower: np.ndarray, upper: np.ndarray, target: float, sharpened: int = SHARPENED
    ) -> LinearBound:
        """Bound the objective in a box that is written into a model, with planes at the points where the program ends.

        Args:
            model: see `write`.
            lower: of the box.
            upper: of the box.
            target: a bound that is low enough.
            sharpened: most times that planes are added.
        """
        model.bound_row(self.objective_row, -math.inf, math.inf)
        end = model.maximize(self.cost)
        for _ in range(sharpened):
            if end.point is None or self.value(end) <= target or not self.sharpen(model, lower, upper, end.point):
                break
            before, end = end, model.maximize(self.cost)
            if not end.bound < before.bound:
                return before
        return end

    def fractions(self, point: np.ndarray) -> np.ndarray:
        """How far each of the `whole` columns is from a whole number."""
        return np.abs(point[self.whole] - np.rint(point[self.whole]))

    def design(self, point: np.ndarray) -> Architecture | None:
        """The design that a point of the columns is, None if it isn't one."""
        program, blocks = self.program, self.blocks
        if self.fractions(point).max(initial=0.0) > _WHOLE:
            return None
        counts, steps = np.rint(point[program.items]).astype(int), np.zeros(len(program.items), dtype=int)
        steps[program.longer] = np.rint(point[program.steps])
        if counts.min() < 0 or counts.sum() != blocks.count or np.any(steps < 0) or np.any(steps > counts * blocks.longest):
            return None
        ends = [int(point[own].argmax()) if len(own) else 0 for own in (program.first, program.last)]
        choices = blocks.choices(counts, steps, *ends)
        return self.problem.space.decode(choices) if choices is not None and self.problem.space.allows(choices) else None
