"""Formulas of sums inside a linear program: in a box of their parts they lie below planes, which are written into its rows.

A product w·m·A of a concave factor m in [m⁻, m⁺] and a part A in [a, b], 0 ≤ a, lies below McCormick's (1976) planes,

    m·A ≤ m⁺·A + a·(m − m⁺),   m·A ≤ m⁻·A + b·(m − m⁻),   m ≤ its tangents

with columns for m and for m·A; tangents at the point where a program ended cut it off where it is above m. A composite that is not
known to be made of such products (`Composite.summands`) lies below the planes of its own overestimator at several points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from formulation import Composite
from formulation.declarations import overestimate
from formulation.quantity import Summand
from solvers.exact.count_program import SIZE, CountProgram
from solvers.programs.highs_model import LinearModel
from solvers.programs.linear_form import power_of_two

_SLOTS = 5
"""Planes of one factor or formula that a program holds at a time."""
_OUT = 1e-12
"""Relative: what a range read off a formula is widened by, so that rounding leaves nothing out."""
_APART = 1e-9
"""Relative: by less than this a factor is not above what it should be."""


@dataclass(eq=False)
class _Term:
    """A column below a product, or below a whole formula.

    Attributes:
        summand: None for a whole formula.
        column: the column z, of the product or formula times `scale`.
        factor: the column of the factor; −1 for a whole formula, and where the factor is one number.
        planes: the rows of tangents, or of planes.
        corners: the two rows of McCormick's planes.
        next: the slot that the next plane takes.
    """

    summand: Summand | None
    column: int
    scale: float
    factor: int
    planes: list[int]
    corners: list[int]
    next: int = 0


@dataclass(eq=False)
class BoxedFormula:
    """A composite over the columns of its parts, from above.

    Attributes:
        composite: the formula.
        columns: of its parts.
        scales: of these columns.
        most: which parts are maxima, of which a column knows only what they are at least.
        size: of the values that it may have.
        terms: what is written for it.
    """

    composite: Composite
    columns: np.ndarray
    scales: np.ndarray
    most: np.ndarray
    size: float = 0.0
    terms: list[_Term] = field(default_factory=list)

    @classmethod
    def written(
        cls, program: CountProgram, composite: Composite, columns: list[int], scales: list[float], most: np.ndarray
    ) -> BoxedFormula:
        """The formula, with its own columns and rows in a program.

        Args:
            program: they are added to it.
            composite: the formula.
            columns: of its parts.
            scales: of these columns.
            most: the parts that are maxima, of which it is only known that they are at least so much.
        """
        formula = cls(composite, np.array(columns), np.array(scales), most)
        lower, upper = formula.box(np.array(program.lower), np.array(program.upper))
        formula.size = max((abs(end) for end in formula.ends(lower, upper) if math.isfinite(end)), default=1.0)
        infinite = -math.inf, math.inf
        summands = [each for each in composite.summands if each.weight > 0]
        if not all(np.isfinite(each.range(lower, upper)).all() and lower[each.part] >= 0 for each in summands):
            summands = []
        for summand in summands:
            part = formula.columns[summand.part]
            scale = formula.scales[summand.part]
            factor = program.column(*summand.range(lower, upper), False)
            column = program.column(*infinite, False)
            corners = [program.row([column, part, factor], 1.0, *infinite) for _ in range(2)]
            planes = [program.row([factor, *formula.columns], 1.0, *infinite) for _ in range(_SLOTS)]
            formula.terms.append(_Term(summand, column, scale, factor, planes, corners))
        if not summands:
            column = program.column(*infinite, False)
            scale = power_of_two(SIZE, formula.size)
            planes = [program.row([column, *formula.columns], 1.0, *infinite) for _ in range(_SLOTS)]
            formula.terms.append(_Term(None, column, scale, -1, planes, []))
        return formula

    @property
    def value(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and coefficients that the formula's value is at most."""
        weights = [(term.summand.weight if term.summand else 1.0) / term.scale for term in self.terms]
        return np.array([term.column for term in self.terms]), np.array(weights)

    @property
    def dimensions(self) -> np.ndarray:
        """The columns whose ranges make the formula's bound better: parts, and factors."""
        return np.array([*self.columns, *(term.factor for term in self.terms if term.factor >= 0)])

    def box(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ranges (P,) of the parts by those of the columns."""
        return lower[self.columns] / self.scales, upper[self.columns] / self.scales

    def ends(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        """The least and the most that the formula is in a box, by the signs of its parts; infinite where it has no value there."""
        rises = np.array(self.composite.signs) > 0
        corners = np.where(rises, lower, upper), np.where(rises, upper, lower)
        found = []
        for corner, outside in zip(corners, (-math.inf, math.inf), strict=True):
            with np.errstate(all="ignore"):
                try:
                    value = float(self.composite.formula(corner))
                except (ZeroDivisionError, OverflowError):
                    value = math.nan
            out = math.copysign(_OUT, outside) * abs(value)
            found.append(value + out if math.isfinite(value) else outside)
        return found[0], found[1]

    def narrow(self, lower: np.ndarray, upper: np.ndarray) -> bool:
        """Bring the columns of factors and products into what the parts' ranges leave, in place; whether they leave anything."""
        low, high = self.box(lower, upper)
        for term in self.terms:
            if term.summand is None:
                least, most = self.ends(low, high)
                lower[term.column], upper[term.column] = term.scale * least, term.scale * most
                continue
            least, most = term.summand.range(low, high)
            out = _OUT * max(abs(least), abs(most), 1.0)
            lower[term.factor] = max(lower[term.factor], least - out)
            upper[term.factor] = min(upper[term.factor], most + out)
            if lower[term.factor] > upper[term.factor]:
                return False
            a, b = lower[self.columns[term.summand.part]], upper[self.columns[term.summand.part]]
            products = [end * factor for end in (a, b) for factor in (lower[term.factor], upper[term.factor])]
            lower[term.column], upper[term.column] = min(products), max(products)
        return True

    def write(self, model: LinearModel, lower: np.ndarray, upper: np.ndarray, afresh: bool) -> None:
        """Write the planes of a box, given by its columns, into the rows of a model.

        Args:
            model: whose rows they are.
            lower: of the columns.
            upper: of the columns.
            afresh: whether to lay tangents that suit the box; those of any other box hold in it too.
        """
        low, high = self.box(lower, upper)
        rises = np.array(self.composite.signs) > 0
        best, worst = np.where(rises, high, low), np.where(rises, low, high)
        for term in self.terms:
            if term.summand is not None:
                part = self.columns[term.summand.part]
                for row, m, a in zip(
                    term.corners, (upper[term.factor], lower[term.factor]), (lower[part], upper[part]), strict=True
                ):
                    model.set_row(row, (part, term.factor), (-m, -a))
                    model.bound_row(row, -math.inf, -a * m + _OUT * abs(a * m))
            for number in range(_SLOTS if afresh or term.summand is None else 0):
                share = number / (_SLOTS - 1)
                self._plane(model, term, number, low, high, best + share * (worst - best))

    def _plane(self, model: LinearModel, term: _Term, slot: int, low: np.ndarray, high: np.ndarray, near: np.ndarray) -> None:
        """Write the plane that is tight near a point of the parts into a slot."""
        with np.errstate(all="ignore"):
            if term.summand is not None:
                slopes, constant = term.summand.tangent(near)
                scale = 1.0
            else:
                slopes, at_zero = overestimate(self.composite, low, high, near)
                scale, constant = term.scale, float(at_zero)
                # Of a maximum only a lower bound is a column: where the plane rises in it, its upper end is taken.
                up = self.most & (slopes > 0)
                constant, slopes = constant + float(slopes[up] @ high[up]), np.where(up, 0.0, slopes)
            coefficients, end = -scale * slopes / self.scales, scale * float(constant)
            size = float(np.abs(coefficients) @ (np.maximum(np.abs(low), np.abs(high)) * self.scales)) + abs(end)
        row = term.planes[slot]
        if not (np.isfinite(coefficients).all() and math.isfinite(size)):
            model.bound_row(row, -math.inf, math.inf)
            return
        model.set_row(row, self.columns.tolist(), coefficients.tolist())
        model.bound_row(row, -math.inf, end + _OUT * size)

    def sharpen(self, model: LinearModel, lower: np.ndarray, upper: np.ndarray, point: np.ndarray) -> bool:
        """Add the planes that are tight at a point of the columns where it is above the factors; whether it was."""
        low, high = self.box(lower, upper)
        parts = np.clip(point[self.columns] / self.scales, low, high)
        above = False
        for term in self.terms:
            with np.errstate(all="ignore"):
                if term.summand is not None:
                    value, here = float(term.summand.factor(parts)), point[term.factor]
                else:
                    slopes, constant = overestimate(self.composite, low, high, parts)
                    value, here = term.scale * float(slopes @ parts + constant), point[term.column]
            if here > value + _APART * max(abs(here), abs(value)):
                self._plane(model, term, term.next % _SLOTS, low, high, parts)
                term.next += 1
                above = True
        return above

    def claimed(self, point: np.ndarray) -> float:
        """What the columns of a point say that the formula is."""
        columns, coefficients = self.value
        return float(coefficients @ point[columns])

    def at(self, lower: np.ndarray, upper: np.ndarray, parts: np.ndarray) -> float:
        """What the formula is known to be at most at some parts (P,) of a box that is given by its columns."""
        low, high = self.box(lower, upper)
        total = 0.0
        for term in self.terms:
            if term.summand is None:
                with np.errstate(all="ignore"):
                    slopes, constant = overestimate(self.composite, low, high, parts)
                    value = float(slopes @ parts + constant)
                return value if math.isfinite(value) else math.inf
            least, most = term.summand.range(low, high)
            least, most = max(least, lower[term.factor]), min(most, upper[term.factor])
            m = min(max(float(term.summand.factor(parts)), least), most)
            value, a, b = parts[term.summand.part], low[term.summand.part], high[term.summand.part]
            total += term.summand.weight * min(most * value + a * (m - most), least * value + b * (m - least))
        return total
