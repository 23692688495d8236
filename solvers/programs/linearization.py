"""The exact linear form of a composite over the choice form: what an LP or MPS file holds in its place.

A composite of the toolkit is a rational function of its parts (`solvers.programs.rational`), and a part is an affine function of
binaries of which exactly one is 1 in each group: the items of a block, the flow between two blocks. So every product and quotient
is linear in further variables, with no approximation at any design (Glover 1975; Wu 1997):

* u = N / D, a variable with its range: u·D = N, which is a product again.
* u·Σ_c d_c x_c = Σ_c d_c w_c, where w_c = u·x_c: in each group Σ_c w_c = u, and low·x_c ≤ w_c ≤ high·x_c.
* u·L, where L is the number of layers: Σ_L L·q_L, where q_L is u if the design has L layers and otherwise 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation import Combine, Composite, NotSeparable
from formulation.space import SearchSpace
from formulation.table import Table, tabulate
from solvers.programs.rational import Affine, Fraction, NotRational, rational

if TYPE_CHECKING:
    import pyomo.environ as pyo

_APART = 1e-3
"""Relative: what ranges are widened by. Where the ends were as near as 1e-6, HiGHS's presolve was seen to cut designs off."""
_SIZE = 2.0**10
"""Size that factors are scaled to, since the engines' tolerances are absolute."""


@dataclass(eq=False)
class _Value:
    """A linear expression, its range, and what is known of its products.

    Attributes:
        number: what names of variables call it.
        columns: (n,) its coefficients and its constant, where it is a function of the choices alone.
        shares: by group and class of columns the variable that is its value where one of them is 1.
        of_depth: by number of layers an expression that is its value where the design has so many, else 0.
        ends: its least and its greatest value by number of layers.
    """

    number: int
    expression: Any
    low: float
    high: float
    columns: tuple[np.ndarray, float] | None = None
    shares: dict[tuple[int, int], Any] = field(default_factory=dict)
    of_depth: dict[int, Any] | None = None
    ends: tuple[np.ndarray, np.ndarray] | None = None


class Linearization:
    """Composites as linear expressions of a model in choice form.

    Args:
        model: whose `x` and `flow` are those of the choice form; the further variables become components of it.
        space: of the model.
        composites: all that are to be written.

    Raises:
        NotSeparable: for a composite made of a maximum over blocks.
    """

    def __init__(self, model: pyo.ConcreteModel, space: SearchSpace, composites: Sequence[Composite]) -> None:
        import pyomo.environ as pyo

        self.model, self.space = model, space
        items = [[model.x[i, j] for j in range(len(menu))] for i, menu in enumerate(space.menus)]
        flows = [[model.flow[i, int(a), int(b)] for a, b in np.argwhere(step)] for i, step in enumerate(space.steps)]
        self._groups = [*items, *flows]
        self._layers = np.concatenate([menu.layers for menu in space.menus] + [np.zeros(len(flow)) for flow in flows])
        self._values: dict[Any, _Value] = {}
        self._quotients: dict[tuple[int, int], tuple[_Value, float]] = {}
        self._depths: dict[int, Any] = {}
        self._count = 0
        self._tables: list[tuple[Composite, np.ndarray, np.ndarray]] = []
        for composite in composites:
            if maxima := [part.name for part in composite.parts if part.combine is Combine.MAX]:
                raise NotSeparable(
                    f"{composite.name} is a formula of the maximum {maxima[0]}, which no linear program can hold; write nl or gms"
                )
            table = tabulate(composite.parts, space)
            self._tables.append((composite, np.stack([self._columns(table, p) for p in range(len(table.fixed))]), table.fixed))
        # The columns of a class are alike in every part and in layers: numbered within each group.
        alike = np.vstack([self._layers, *(parts for _, parts, _ in self._tables)]).T
        self._classes = np.concatenate([np.unique(alike[own], axis=0, return_inverse=True)[1].ravel() for own in self._slices])
        model.quotient = pyo.Var(pyo.Any, dense=False, doc="[u]: a quotient u of the objective or a budget, scaled")
        model.share = pyo.Var(pyo.Any, dense=False, doc="[u, group, class]: u where the group's choice is of the class, else 0")
        model.has_layers = pyo.Var(pyo.Any, dense=False, domain=pyo.Binary, doc="[L]: the design has L layers")
        model.at_layers = pyo.Var(pyo.Any, dense=False, doc="[u, L]: u where the design has L layers, else 0")
        model.linear = pyo.ConstraintList(doc="what makes products and quotients of choices linear")

    def expression(self, composite: Composite) -> Any:
        """One of the composites as a linear expression, equal to it at every design.

        Raises:
            NotRational: for a formula that is no sum of products and quotients, or that divides by what can be 0.
        """
        parts, fixed = next((parts, fixed) for own, parts, fixed in self._tables if own is composite)
        try:
            formula = rational(composite)
            value, scale = self._affine(formula.affine, parts, fixed)
            result = scale * value.expression
            for term in formula.terms:
                result += self._term(term, parts, fixed)
        except NotRational as error:
            raise NotRational(
                f"{composite.name} has no exact linear form: {error}; write the program as nl or gms, which hold it as it is"
            ) from error
        return result

    @cached_property
    def _slices(self) -> list[slice]:
        """The columns of each group."""
        ends = np.cumsum([len(group) for group in self._groups]).tolist()
        return [slice(stop - len(group), stop) for stop, group in zip(ends, self._groups, strict=True)]

    def _columns(self, table: Table, part: int) -> np.ndarray:
        joints = [joint[part][step] for joint, step in zip(table.joints, self.space.steps, strict=True)]
        return np.concatenate([*(block[part] for block in table.blocks), *joints])

    # Values

    def _affine(self, affine: Affine, parts: np.ndarray, fixed: np.ndarray) -> tuple[_Value, float]:
        """An affine function of the parts divided by a power of two, and that: its value has about the size `_SIZE`."""
        slopes = np.array(affine[:-1])
        columns, constant = slopes @ parts, float(slopes @ fixed + affine[-1])
        size = max(float(np.abs(columns).max(initial=0.0)), abs(constant))
        scale = _power(size / _SIZE)
        columns, constant = columns / scale, constant / scale
        key = columns.tobytes(), constant
        if key not in self._values:
            ends = self._range(columns, constant)
            self._values[key] = self._value(self._sum(columns) + constant, *ends, columns=(columns, constant))
        return self._values[key], scale

    def _value(self, expression: Any, low: float, high: float, **known: Any) -> _Value:
        self._count += 1
        return _Value(self._count, expression, low, high, **known)

    def _sum(self, columns: np.ndarray) -> Any:
        import pyomo.environ as pyo

        variables = [variable for group in self._groups for variable in group]
        return pyo.quicksum(float(columns[c]) * variables[c] for c in np.flatnonzero(columns))

    def _by_layers(self, columns: np.ndarray) -> np.ndarray:
        """The least value of Σ columns, by number of layers: blocks along a path, each step at its own least; ∞ for no design."""
        own = [columns[one] for one in self._slices]
        blocks, steps = own[: self.space.blocks], own[self.space.blocks :]
        return self.space.shortest(blocks)[0] + sum(float(step.min()) for step in steps)

    def _range(self, columns: np.ndarray, constant: float) -> tuple[float, float]:
        low, high = float(self._by_layers(columns).min()) + constant, constant - float(self._by_layers(-columns).min())
        apart = _APART * (abs(low) + abs(high))
        return low - apart, high + apart

    # Products and quotients

    def _term(self, term: Fraction, parts: np.ndarray, fixed: np.ndarray) -> Any:
        """A term as a linear expression: its quotients first, whose ranges are narrow; the number of layers last."""
        factors, divisors = ([self._affine(one, parts, fixed) for one in own] for own in (term.factors, term.divisors))
        scale = term.coefficient * math.prod(size for _, size in factors) / math.prod(size for _, size in divisors)
        left = sorted((value for value, _ in factors), key=lambda value: self._of_layers(value) is not None)
        if left and (not divisors or self._of_layers(left[0]) is None):
            value = left.pop(0)
        else:
            value = self._value(1.0, 1.0, 1.0, columns=(np.zeros(len(self._layers)), 1.0))
        for step, others in ((self._quotient, [divisor for divisor, _ in divisors]), (self._product, left)):
            for other in others:
                value, size = step(value, other)
                scale *= size
        return scale * value.expression

    def _of_layers(self, value: _Value) -> tuple[float, float] | None:
        """Slope and constant of a value that is a function of the number of layers alone; None for any other."""
        assert value.columns is not None
        columns, constant = value.columns
        layered = np.flatnonzero(self._layers)
        slope = float(columns[layered[0]] / self._layers[layered[0]])
        return (slope, constant) if np.allclose(columns, slope * self._layers, rtol=1e-14, atol=0) else None

    def _product(self, value: _Value, factor: _Value) -> tuple[_Value, float]:
        """value · factor, where the factor is a function of the choices, divided by a power of two; and that."""
        ends = [a * b for a in (value.low, value.high) for b in (factor.low, factor.high)]
        size = _power(max(map(abs, ends)))
        low, high = min(ends) / size, max(ends) / size
        if (line := self._of_layers(factor)) is None:
            return self._value(self._shared(value, factor) / size, low, high), size
        pieces = self._at_layers(value)
        of_depth = {layers: (line[0] * layers + line[1]) / size * piece for layers, piece in pieces.items()}
        return self._value(sum(of_depth.values()), low, high, of_depth=of_depth), size

    def _shared(self, value: _Value, factor: _Value) -> Any:
        """value · factor = constant · value + Σ over groups of the factor's columns times the shares of the value."""
        assert factor.columns is not None
        columns, result = factor.columns[0], factor.columns[1] * value.expression
        for number, own in enumerate(self._slices):
            if not columns[own].any():
                continue
            kinds, first = np.unique(self._classes[own], return_index=True)
            for kind, place in zip(kinds.tolist(), first.tolist(), strict=True):
                if len(kinds) == 1:
                    result += float(columns[own][place]) * value.expression
                elif columns[own][place]:
                    result += float(columns[own][place]) * self._share(value, number, kind)
        return result

    def _share(self, value: _Value, group: int, kind: int) -> Any:
        """The value where a column of the group and class is 1, else 0; the shares of a group are made together."""
        if (group, kind) not in value.shares:
            own = self._classes[self._slices[group]]
            for number in np.unique(own).tolist():
                share = self.model.share[value.number, group, number]
                chosen = sum(self._groups[group][c] for c in np.flatnonzero(own == number))
                self._within(share, value.low, value.high, chosen)
                value.shares[group, number] = share
            total = sum(share for (of, _), share in value.shares.items() if of == group)
            self.model.linear.add(total == value.expression)
        return value.shares[group, kind]

    def _within(self, variable: Any, low: float, high: float, chosen: Any) -> None:
        """low ≤ variable ≤ high where `chosen` is 1, and variable = 0 where it is 0."""
        variable.setlb(min(low, 0.0))
        variable.setub(max(high, 0.0))
        if low:
            self.model.linear.add(variable >= low * chosen)
        if high:
            self.model.linear.add(variable <= high * chosen)

    def _at_layers(self, value: _Value) -> dict[int, Any]:
        """By number of layers what is the value where the design has so many, else 0."""
        if value.of_depth is None:
            self._count_layers()
            pieces = {layers: self.model.at_layers[value.number, layers] for layers in self._depths}
            for layers, piece in pieces.items():
                self._within(piece, *self._range_at(value, layers), self._depths[layers])
            self.model.linear.add(sum(pieces.values()) == value.expression)
            if value.shares:  # L times the value both ways: implied by whole choices, but not by fractions of them
                of_choices = _Value(0, None, 0.0, 0.0, (self._layers, 0.0))
                times = sum(layers * piece for layers, piece in pieces.items())
                self.model.linear.add(self._shared(value, of_choices) == times)
            value.of_depth = pieces
        return value.of_depth

    def _range_at(self, value: _Value, layers: int) -> tuple[float, float]:
        """The range of a value in designs of so many layers."""
        if value.columns is None:
            return value.low, value.high
        columns, constant = value.columns
        if value.ends is None:
            value.ends = self._by_layers(columns) + constant, constant - self._by_layers(-columns)
        low, high = (float(end[layers]) for end in value.ends)
        return max(value.low, low - _APART * abs(low)), min(value.high, high + _APART * abs(high))

    def _count_layers(self) -> None:
        """A binary for each number of layers that a design can have."""
        if self._depths:
            return
        least = self.space.shortest([np.zeros(len(menu)) for menu in self.space.menus])[0]
        self._depths = {int(layers): self.model.has_layers[int(layers)] for layers in np.flatnonzero(np.isfinite(least))}
        self.model.linear.add(sum(self._depths.values()) == 1)
        self.model.linear.add(sum(layers * chosen for layers, chosen in self._depths.items()) == self._sum(self._layers))

    def _quotient(self, value: _Value, divisor: _Value) -> tuple[_Value, float]:
        """value / divisor, divided by a power of two, as a variable u with u · divisor = value; and that."""
        assert divisor.columns is not None
        if not (divisor.low > 0 or divisor.high < 0):
            raise NotRational("it divides by what may be 0 for some choices")
        key = value.number, divisor.number
        if key not in self._quotients:
            if value.columns is not None and divisor.low > 0:
                top, constant = value.columns
                low, high = -self._most(-top, -constant, divisor.columns), self._most(top, constant, divisor.columns)
            else:
                ends = [a / b for a in (value.low, value.high) for b in (divisor.low, divisor.high)]
                low, high = min(ends), max(ends)
            apart, size = _APART * (abs(low) + abs(high)), _power(max(abs(low), abs(high)))
            result = self._value(None, (low - apart) / size, (high + apart) / size)
            result.expression = self.model.quotient[result.number]
            result.expression.setlb(result.low)
            result.expression.setub(result.high)
            self.model.linear.add(self._shared(result, divisor) == value.expression / size)
            self._quotients[key] = result, size
        return self._quotients[key]

    def _most(self, top: np.ndarray, constant: float, bottom: tuple[np.ndarray, float]) -> float:
        """The greatest quotient (top + constant) / bottom of two functions of the choices (Dinkelbach 1967), the second above 0."""
        blocks, most = self.space.blocks, -float(np.finfo(float).max)
        starts = [one.start for one in self._slices]
        choice = [int(top[one].argmax()) for one in self._slices]
        design = self.space.shortest([-top[one] for one in self._slices[:blocks]])
        while True:
            least, path = design
            choice[:blocks] = path(int(least.argmin()))
            chosen = np.add(starts, choice)
            here = float((top[chosen].sum() + constant) / (bottom[0][chosen].sum() + bottom[1]))
            if here <= most + 1e-12 * abs(most):
                return max(here, most)
            most = here
            gain = top - most * bottom[0]
            choice = [int(gain[one].argmax()) for one in self._slices]
            design = self.space.shortest([-gain[one] for one in self._slices[:blocks]])


def _power(size: float) -> float:
    """The least power of two that is no less than a size; 1 for nothing."""
    return 2.0 ** math.ceil(math.log2(size)) if size else 1.0
