"""A `DesignProblem` as a declarative program in Pyomo, in two forms that agree at every design.

*Choice form*: one binary per block and menu item, joints as a flow between states (`SearchSpace.state_of`).

*Look-up form*: integer width, FFN width and depth per block and one binary per entry of each other choice; entropies and costs are
look-ups in tables over the shapes of a block, times its depth.

In both, every separable quantity is linear: what is nonlinear, and not convex, is the formula of a composite objective or budget.
`linear=True` writes that exactly in further variables, too (`solvers.programs.linearization`).

SCIP solves them as they are (`solvers.programs.scip`); linear engines are given the choice form as arrays
(`solvers.programs.linear_form`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Separable
from formulation.declarations import overestimate
from formulation.derived import NegativeFormula
from formulation.menu import Menu
from formulation.problem import Constraint
from formulation.space import SearchSpace
from formulation.table import Table, tabulate
from solvers.evaluation import require_structure
from solvers.programs.linearization import Linearization
from solvers.programs.rational import rational

if TYPE_CHECKING:
    import pyomo.environ as pyo

_SAFETY = 1e-7
"""Relative amount added to SCIP's bounds: what its own tolerances can hide."""
_ROUNDING = 1e-12
"""Relative to the magnitudes added up: what a budget is loosened by for the order of floating-point sums."""
_SIZE = 1e-9
"""Added to SCIP's bounds besides, relative to the size of the objective's terms, which may be far above its value."""


class Form(Enum):
    """How the program is written: integer shapes with look-ups, or one binary per menu item."""

    LOOKUP = "lookup"
    CHOICE = "choice"


@dataclass(frozen=True, eq=False)
class Program:
    """A Pyomo model of a design problem and the way back from its variables.

    Attributes:
        model: the ConcreteModel; `model.objective` is maximized.
        unit: the objective is unit · model.objective: 1, or what brings its values near 10⁴ where they are tiny or huge, since the
            engines' tolerances are absolute.
        parts: expressions of the parts of a composite objective, in its order; empty for a separable one.
        scales: the part p is scales[p] · model.part[p].
        size: the most that the magnitudes of the objective's terms can add up to, in units of the objective.
        decode: the design that the variables' present values stand for, None if they have none.
        encode: set the variables of shapes, choices and parts to a design: a starting point.
        forbid: rule a design out.
    """

    model: pyo.ConcreteModel
    unit: float
    parts: tuple[Any, ...]
    scales: tuple[float, ...]
    size: float
    decode: Callable[[], Architecture | None]
    encode: Callable[[Architecture], None]
    forbid: Callable[[Architecture], None]


def engine_bound(program: Program, bound: float) -> float:
    """The bound on the problem's objective that an engine's bound stands for, raised by what its tolerances can hide."""
    return program.unit * (bound + _SAFETY * abs(bound)) + _SIZE * program.size


def build_program(problem: DesignProblem, form: Form = Form.CHOICE, linear: bool = False) -> Program:
    """The program of `problem` in one of its two forms.

    Args:
        problem: whose objective is maximized.
        form: which of the forms.
        linear: write composites as exact linear expressions of further variables; of the choice form alone.

    Raises:
        NotSeparable: if a quantity has no structure to write down, or one that the form cannot hold.
        NotRational: for a composite that has no linear form.
        ValueError: for the look-up form, if it is to be linear.
    """
    import pyomo.environ as pyo

    if linear and form is not Form.CHOICE:
        raise ValueError(f"linear is True and form is {form}; expected Form.CHOICE, whose composites alone have a linear form")
    require_structure(problem, "a declarative program")
    model = pyo.ConcreteModel(name=f"{form.value}_form")
    writer = _LookupForm(model, problem.space) if form is Form.LOOKUP else _ChoiceForm(model, problem.space)
    objective, constraints = problem.goal, problem.constraints
    composites = [one for one in (objective, *(own.quantity for own in constraints)) if isinstance(one, Composite)]
    linearized = Linearization(model, problem.space, [one for one in composites if not _maxima(one)]) if linear else None
    scales: tuple[float, ...] = ()
    parts: tuple[Any, ...] = ()
    own_parts = objective.parts if isinstance(objective, Composite) else ()
    if isinstance(objective, Composite):
        unit = _unit(objective.formula(_corner(objective, problem.space)))
        if linearized is None or _maxima(objective):
            scales = _part_variables(model, writer, objective)
            parts = tuple(scale * model.part[p] for p, scale in enumerate(scales))
        expression = objective.formula(parts) if linearized is None else linearized.expression(objective)
        slopes, constant = overestimate(objective, *part_ranges(objective, problem.space))
        size = float(np.abs(slopes) @ tabulate(objective.parts, problem.space).sizes + abs(constant))
        model.objective = pyo.Objective(expr=expression / unit, sense=pyo.maximize)
    else:
        assert isinstance(objective, Separable)
        if objective.combine is Combine.MAX:
            raise NotSeparable(f"{objective.name} is a maximum over blocks; use DynamicProgramming or Exhaustive")
        table = tabulate([objective], problem.space)
        unit = _unit(
            max(np.abs(array[np.isfinite(array)]).max(initial=0.0) for array in (table.fixed, *table.blocks, *table.joints))
        )
        size = float(table.sizes[0])
        model.objective = pyo.Objective(expr=sum(term / unit for term in writer.terms(objective)), sense=pyo.maximize)
    model.ruled_out = pyo.ConstraintList(doc="designs that exceed a budget within the engine's tolerance")
    model.budgets = pyo.ConstraintList(doc="budgets, scaled")
    made = {"part": (own_parts, scales)} if scales else {}
    for number, constraint in enumerate(constraints):
        name, quantity = f"part_of_budget_{number}", constraint.quantity
        if isinstance(quantity, Composite) and linearized is not None:
            _add_linear(model, writer, linearized, constraint)
        elif isinstance(quantity, Composite) and not _maxima(quantity):
            made[name] = quantity.parts, _add_formula(model, writer, quantity, constraint.limit, name)
        else:
            _add_budget(model, writer, constraint)

    def encode(architecture: Architecture) -> None:
        writer.encode(architecture)
        for name, (parts, scales) in made.items():
            for p, (part, scale) in enumerate(zip(parts, scales, strict=True)):
                # It may differ from a bound in its last digit.
                model.component(name)[p].set_value(part(architecture) / scale, skip_validation=True)

    return Program(model, unit, parts, scales, size, writer.decode, encode, writer.forbid)


def _unit(magnitude: float) -> float:
    """What to divide an objective by whose values reach `magnitude`: a power of ten."""
    return 1.0 if 1 <= abs(magnitude) <= 1e7 or not magnitude else 10.0 ** round(math.log10(abs(magnitude)) - 4)


def _maxima(composite: Composite) -> list[str]:
    """The names of the parts that are maxima over blocks."""
    return [part.name for part in composite.parts if part.combine is Combine.MAX]


def _corner(composite: Composite, space: SearchSpace) -> np.ndarray:
    """The parts' bounds that the signs point to."""
    lower, upper = part_ranges(composite, space)
    return np.where(np.array(composite.signs) > 0, upper, lower)


def part_ranges(composite: Composite, space: SearchSpace) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (P,) of the parts over the whole space, each block and joint at its own extreme."""
    return tabulate(composite.parts, space).extremes


def _part_variables(model: pyo.ConcreteModel, writer: _Writer, composite: Composite, name: str = "part") -> tuple[float, ...]:
    """One variable per part of a composite, `model.<name>`, scaled to at most 1 unless whole; returns the scales."""
    import pyomo.environ as pyo

    if maxima := _maxima(composite):
        raise NotSeparable(f"{composite.name} is made of the maximum {maxima[0]}; use DynamicProgramming or Exhaustive")
    lower, upper = part_ranges(composite, writer.space)
    table = tabulate(composite.parts, writer.space)
    terms = np.concatenate([array.reshape(len(lower), -1) for array in (table.fixed, *table.blocks, *table.joints)], axis=1)
    # A part that takes whole numbers only, such as the depth, is an integer variable: branching on it is what tightens most.
    whole = np.all(terms == np.rint(terms), axis=1) & (upper < 2**31)
    scale = [1.0 if whole[p] else float(max(abs(lower[p]), abs(upper[p]))) or 1.0 for p in range(len(lower))]
    rows = range(len(scale))
    part = pyo.Var(
        rows,
        domain=lambda _, p: pyo.Integers if whole[p] else pyo.Reals,
        bounds=lambda _, p: (float(lower[p]) / scale[p], float(upper[p]) / scale[p]),
        doc="; ".join(f"{p}: {part.name} / {scale[p]:.6g} {part.unit}" for p, part in enumerate(composite.parts)),
    )
    model.add_component(name, part)
    part_is = pyo.Constraint(rows, rule=lambda m, p: part[p] == sum(term / scale[p] for term in writer.terms(composite.parts[p])))
    model.add_component(f"{name}_is", part_is)
    return tuple(scale)


def _add_formula(model: pyo.ConcreteModel, writer: _Writer, composite: Composite, limit: float, name: str) -> tuple[float, ...]:
    """composite ≤ limit in variables of its own for the parts, as for an objective: written out, SCIP gets stuck on it."""
    scales = _part_variables(model, writer, composite, name)
    parts = model.component(name)
    expression = composite.formula([scale * parts[p] for p, scale in enumerate(scales)])
    scale = _formula_scale(composite, writer.space, limit)
    _at_most(model, expression / scale, limit / scale)
    return scales


def _add_linear(model: pyo.ConcreteModel, writer: _Writer, linearized: Linearization, constraint: Constraint) -> None:
    """composite ≤ limit as a linear constraint; NotSeparable for a formula of a maximum that is not affine."""
    composite, limit = constraint.quantity, constraint.limit
    assert isinstance(composite, Composite)
    if not (maxima := _maxima(composite)):
        scale = _formula_scale(composite, writer.space, limit)
        _at_most(model, linearized.expression(composite) / scale, limit / scale)
    elif rational(composite).terms:
        raise NotSeparable(f"{composite.name} is a formula of the maximum {maxima[0]}, which no linear program can hold")
    else:
        _add_budget(model, writer, constraint)


def _formula_scale(composite: Composite, space: SearchSpace, limit: float) -> float:
    """What to divide a composite budget by. As in `budget_scale`, a limit far below the values is not a scale."""
    with np.errstate(all="ignore"):
        most = abs(float(composite.formula(_corner(composite, space))))
    return max(abs(limit), 1e-6 * most if math.isfinite(most) else 0.0) or 1.0


def _add_budget(model: pyo.ConcreteModel, writer: _Writer, constraint: Constraint) -> None:
    quantity, limit = constraint.quantity, constraint.limit
    if isinstance(quantity, NegativeFormula) and isinstance(quantity.quantity, Separable):
        writer.reach(quantity.quantity, -limit)
        return
    if isinstance(quantity, Composite):
        # A maximum in which the value grows meets the budget where each of its terms, put in its place, does.
        for part, sign in zip(quantity.parts, quantity.signs, strict=True):
            if part.combine is Combine.MAX and sign < 0:
                raise NotSeparable(f"{quantity.name} falls with the maximum {part.name}; use DynamicProgramming or Exhaustive")
        terms = [writer.terms(part) for part in quantity.parts]
        choices = [own if part.combine is Combine.MAX else [sum(own)] for part, own in zip(quantity.parts, terms, strict=True)]
        scale = _formula_scale(quantity, writer.space, limit)
        for values in product(*choices):
            _at_most(model, quantity.formula(values) / scale, limit / scale)
    elif quantity.combine is Combine.MAX:  # type: ignore[attr-defined]
        writer.cap(quantity, limit)  # type: ignore[arg-type]
    else:
        scale, most = budget_scale(tabulate([quantity], writer.space), limit)  # type: ignore[list-item]
        _at_most(model, sum(writer.terms(quantity)) / scale, most)  # type: ignore[arg-type]


def _at_most(model: pyo.ConcreteModel, expression: Any, limit: float) -> None:
    """Add expression ≤ limit to the budgets. Where all designs cost the same it is a number, which Pyomo refuses."""
    import pyomo.environ as pyo

    if not isinstance(expression, int | float):
        model.budgets.add(expression <= limit)
    elif expression > limit and model.component("never") is None:
        model.never = pyo.Var(bounds=(0, 0), doc="nothing meets the budgets")
        model.budgets.add(model.never >= 1)


def budget_scale(table: Table, limit: float) -> tuple[float, float]:
    """(scale, right-hand side) for a summed cost, so that terms / scale ≤ right-hand side is well scaled.

    Whole-number costs are divided by their greatest common divisor and loosened by a half, which lets no further design in. Other
    costs are scaled to a right-hand side of 1000 and loosened by what rounding can amount to.
    """
    terms = np.concatenate([array.ravel() for array in (table.fixed, *table.blocks, *table.joints)])
    if np.all(terms == np.rint(terms)) and np.abs(terms).max() < 2**53:
        divisor = math.gcd(*(int(abs(term)) for term in set(terms.tolist())))
        if divisor and abs(limit) / divisor < 1e9:
            return float(divisor), math.floor(limit / divisor) + 0.5
    size = float(table.sizes[0])
    # A limit far below the terms is not a scale: they would be too large for any tolerance.
    scale = max(abs(limit), 1e-6 * size) / 1000 or 1.0
    return scale, limit / scale + _ROUNDING * (size + abs(limit)) / scale


class _Writer(Protocol):
    """What the two forms have in common: they can write the terms of a separable quantity."""

    model: pyo.ConcreteModel
    space: SearchSpace

    def terms(self, quantity: Separable) -> list[Any]:
        """Expressions of the fixed, block and joint terms of a quantity, whichever way it combines them."""

    def cap(self, quantity: Separable, limit: float) -> None:
        """Constrain every term of a maximum to at most `limit`."""

    def reach(self, quantity: Separable, least: float) -> None:
        """Constrain some term of a maximum to at least `least`."""

    def decode(self) -> Architecture | None:
        """The design at the variables' values."""

    def encode(self, architecture: Architecture) -> None:
        """Set the variables' values to a design."""

    def forbid(self, architecture: Architecture) -> None:
        """Rule a design out."""


def _add_flow(model: pyo.ConcreteModel, space: SearchSpace, has_state: Callable[[int, int], Any]) -> None:
    """flow[i, a, b] = 1 where block i has state a and block i + 1 state b; `has_state(i, a)` is 1 where block i has state a.

    Without a rule of the user's for steps the states are the widths.
    """
    import pyomo.environ as pyo

    steps = [(i, int(a), int(b)) for i, step in enumerate(space.steps) for a, b in np.argwhere(step)]
    model.flow = pyo.Var(steps, bounds=(0, 1), doc="block i has state a, block i + 1 state b")
    model.leave = pyo.Constraint(
        [(i, a) for i, step in enumerate(space.steps) for a in range(step.shape[0])],
        rule=lambda m, i, a: has_state(i, a) == sum(m.flow[i, a, int(b)] for b in np.flatnonzero(space.steps[i][a])),
    )
    model.enter = pyo.Constraint(
        [(i, b) for i, step in enumerate(space.steps) for b in range(step.shape[1])],
        rule=lambda m, i, b: has_state(i + 1, b) == sum(m.flow[i, int(a), b] for a in np.flatnonzero(space.steps[i][:, b])),
    )


def _joint_terms(model: pyo.ConcreteModel, table: Table) -> list[Any]:
    """Expressions of the joint terms of the single quantity in `table`, linear in the flow.

    Where a maximum has no joint term its fixed one stands for it.
    """
    import pyomo.environ as pyo

    expressions = []
    for i, (joint, step) in enumerate(zip(table.joints, table.space.steps, strict=True)):
        values = np.where(np.isfinite(joint[0]), joint[0], table.fixed[0])
        used = [(int(a), int(b)) for a, b in np.argwhere(step & (values != 0))]
        if used:
            expressions.append(pyo.quicksum(float(values[a, b]) * model.flow[i, a, b] for a, b in used))
    return expressions


def _forbid(model: pyo.ConcreteModel, table: Table, limit: float, item: Callable[[int, int], Any]) -> None:
    """Rule out every item and joint whose term of the single maximum in `table` exceeds `limit`; all where the fixed one does.

    item(i, j) is an expression that is 0 where block i does not take item j.
    """
    over = [item(i, int(j)) for i, block in enumerate(table.blocks) for j in np.flatnonzero(block[0] > limit)]
    over += [
        model.flow[i, int(a), int(b)]
        for i, (joint, step) in enumerate(zip(table.joints, table.space.steps, strict=True))
        for a, b in np.argwhere(step & (joint[0] > limit))
    ]
    if table.fixed[0] > limit:
        over = [item(0, j) for j in range(len(table.space.menus[0]))]
    for expression in over:
        model.budgets.add(expression <= 0)


def _reach(model: pyo.ConcreteModel, table: Table, least: float, item: Callable[[int, int], Any]) -> None:
    """Have a design take an item or a joint whose term of the single maximum in `table` is at least `least`.

    item(i, j) is an expression that is at most 1 where block i takes item j, and 0 where it does not.
    """
    if table.fixed[0] >= least:
        return
    enough = [item(i, int(j)) for i, block in enumerate(table.blocks) for j in np.flatnonzero(block[0] >= least)]
    enough += [
        model.flow[i, int(a), int(b)]
        for i, (joint, step) in enumerate(zip(table.joints, table.space.steps, strict=True))
        for a, b in np.argwhere(step & (joint[0] >= least))
    ]
    _at_most(model, 1 - sum(enough), 0.0)


class _ChoiceForm:
    """x[i, j] = 1 where block i takes item j of its menu."""

    def __init__(self, model: pyo.ConcreteModel, space: SearchSpace) -> None:
        import pyomo.environ as pyo

        self.model, self.space = model, space
        self._blocks = range(space.blocks)
        items = [(i, j) for i in self._blocks for j in range(len(space.menus[i]))]
        model.x = pyo.Var(items, domain=pyo.Binary, doc="block i takes item j of its menu")
        model.one_item = pyo.Constraint(
            self._blocks, rule=lambda m, i: pyo.quicksum(m.x[i, j] for j in range(len(space.menus[i]))) == 1
        )

        def has_state(block: int, state: int) -> Any:
            return pyo.quicksum(model.x[block, int(j)] for j in np.flatnonzero(space.state_of[block] == state))

        _add_flow(model, space, has_state)
        if space.may_be_empty:
            layered = [(i, int(j)) for i, menu in enumerate(space.menus) for j in np.flatnonzero(menu.layers)]
            model.some_layer = pyo.Constraint(expr=pyo.quicksum(model.x[i, j] for i, j in layered) >= 1)

    def terms(self, quantity: Separable) -> list[Any]:
        import pyomo.environ as pyo

        table, x = tabulate([quantity], self.space), self.model.x
        blocks = [pyo.quicksum(float(value) * x[i, j] for j, value in enumerate(block[0])) for i, block in enumerate(table.blocks)]
        return [float(table.fixed[0]), *blocks, *_joint_terms(self.model, table)]

    def cap(self, quantity: Separable, limit: float) -> None:
        _forbid(self.model, tabulate([quantity], self.space), limit, lambda i, j: self.model.x[i, j])

    def reach(self, quantity: Separable, least: float) -> None:
        _reach(self.model, tabulate([quantity], self.space), least, lambda i, j: self.model.x[i, j])

    def decode(self) -> Architecture | None:
        choices = []
        for i in self._blocks:
            values = [self.model.x[i, j].value for j in range(len(self.space.menus[i]))]
            if any(value is None for value in values):
                return None
            choices.append(int(np.argmax(values)))
        return self.space.decode(choices) if self.space.allows(choices) else None

    def encode(self, architecture: Architecture) -> None:
        choices = self.space.encode(architecture)
        for (i, j), variable in self.model.x.items():
            variable.set_value(int(choices[i] == j))

    def forbid(self, architecture: Architecture) -> None:
        import pyomo.environ as pyo

        chosen = [self.model.x[i, item] for i, item in enumerate(self.space.encode(architecture))]
        self.model.ruled_out.add(pyo.quicksum(chosen) <= self.space.blocks - 1)


class _LookupForm:
    """Integer width, FFN width and depth per block, and the weights of its look-ups.

    A *shape* of a block is everything that is chosen for it but the depth. A look-up is Σ_s value_s · weight[i, s] over the shapes,
    whose weights add up to 1. What is chosen on each axis is a binary, entry[i, axis, place] = Σ weight over the shapes that have
    it, so that one weight is 1; for a width it is where the width's own multiple of the menu's step is a whole number, too.

    A term that is affine in the depth, as entropies and the analytic cost models are, is a look-up of the offset plus depth times a
    look-up of the slope. The latter is linear in layers[i, s] = depth · weight[i, s], which needs no product: layers are between
    the least and the greatest depth times the weight and add up to the depth, which leaves them no other value. Any other term, and
    whatever asks for one item, is a look-up over items, item[i, j], made where it is needed.
    """

    def __init__(self, model: pyo.ConcreteModel, space: SearchSpace) -> None:
        import pyomo.environ as pyo

        self.model, self.space, self._blocks = model, space, range(space.blocks)
        menus, m = space.menus, model
        self._shapes = [BlockShapes(menu) for menu in menus]
        shapes = [(i, s) for i in self._blocks for s in range(len(self._shapes[i].first))]
        axes = {name: None for menu in menus for name in menu.axes if name != "depth"}
        entries = [(i, name, p) for i in self._blocks for name in axes for p in range(len(menus[i].axes.get(name, ())))]
        self._sized = self._blocks if "width" in axes else range(0)  # the options of a score table have no sizes
        m.width = pyo.Var(self._sized, domain=pyo.Integers, bounds=lambda _, i: self._range(i, "width"), doc="E_i")
        m.ffn_width = pyo.Var(self._sized, domain=pyo.Integers, bounds=lambda _, i: self._range(i, "ffn_width"), doc="F_i")
        m.depth = pyo.Var(self._blocks, domain=pyo.Integers, bounds=lambda _, i: self._range(i, "depth"), doc="L_i")
        m.entry = pyo.Var(
            pyo.Any, dense=False, domain=pyo.Binary, doc="[i, axis, p]: block i takes entry p of that axis of its menu"
        )
        m.weight = pyo.Var(shapes, bounds=(0, 1), doc="[i, s]: weight of shape s in the look-ups of block i")
        m.layers = pyo.Var(shapes, bounds=lambda _, i, s: (0, self._shapes[i].most[s]), doc="[i, s]: depth times weight")
        m.item = pyo.Var(pyo.Any, dense=False, bounds=(0, 1), doc="[i, j]: weight of item j of the menu of block i")

        m.one_shape = pyo.Constraint(self._blocks, rule=lambda m, i: sum(m.weight[i, s] for s in self._numbers(i)) == 1)
        m.entry_is = pyo.Constraint(
            entries,
            rule=lambda m, i, name, p: (
                m.entry[i, name, p] == pyo.quicksum(m.weight[i, int(s)] for s in np.flatnonzero(self._shapes[i].places[name] == p))
            ),
        )
        m.width_is = pyo.Constraint(self._sized, rule=lambda m, i: m.width[i] == self._of_shapes(i, "width"))
        m.ffn_width_is = pyo.Constraint(self._sized, rule=lambda m, i: m.ffn_width[i] == self._of_shapes(i, "ffn_width"))
        widths = [menu.axes.get("width", ()) for menu in menus]
        stepped = [i for i in self._sized if len(set(np.diff(widths[i]))) == 1]
        m.multiple = pyo.Var(stepped, domain=pyo.Integers, bounds=lambda _, i: (0, len(widths[i]) - 1), doc="menu steps")
        m.width_step = pyo.Constraint(
            stepped, rule=lambda m, i: m.width[i] == widths[i][0] + (widths[i][1] - widths[i][0]) * m.multiple[i]
        )
        m.layers_least = pyo.Constraint(
            shapes, rule=lambda m, i, s: m.layers[i, s] >= int(self._shapes[i].least[s]) * m.weight[i, s]
        )
        m.layers_most = pyo.Constraint(shapes, rule=lambda m, i, s: m.layers[i, s] <= int(self._shapes[i].most[s]) * m.weight[i, s])
        m.depth_is = pyo.Constraint(self._blocks, rule=lambda m, i: m.depth[i] == sum(m.layers[i, s] for s in self._numbers(i)))
        if self._sized and space.non_decreasing:
            m.non_decreasing = pyo.Constraint(range(space.blocks - 1), rule=lambda m, i: m.width[i] <= m.width[i + 1])
        if space.may_be_empty:
            m.some_layer = pyo.Constraint(expr=sum(m.depth[i] for i in self._blocks) >= 1)
        m.item_is = pyo.ConstraintList(doc="items have one shape and one depth")
        for i, own in enumerate(self._shapes):
            if not own.every_depth:
                self._items(i)
        _add_flow(m, space, self._state)

    def _numbers(self, block: int) -> range:
        return range(len(self._shapes[block].first))

    def _range(self, block: int, name: str) -> tuple[int, int]:
        values = [getattr(item, name) for item in self.space.menus[block].items]
        return min(values), max(values)

    def _of_shapes(self, block: int, name: str) -> Any:
        """What a block's shape says of it, as a look-up."""
        items = self.space.menus[block].items
        return sum(getattr(items[j], name) * self.model.weight[block, s] for s, j in enumerate(self._shapes[block].first.tolist()))

    def _state(self, block: int, state: int) -> Any:
        """1 where a block is in a state: where that is a width its entry, else the items of the state."""
        states, menu = self.space.state_of[block], self.space.menus[block]
        if "width" in menu.axes and np.array_equal(states, menu.places["width"]):
            return self.model.entry[block, "width", state]
        items = self._items(block)
        return sum(items[j] for j in np.flatnonzero(states == state))

    def _items(self, block: int) -> list[Any]:
        """One variable per item of a menu, 1 where it is taken, made when first needed, with a binary for each of its depths."""
        import pyomo.environ as pyo

        m, menu, own = self.model, self.space.menus[block], self._shapes[block]
        made = (block, 0) in m.item
        items = [m.item[block, j] for j in range(len(menu))]
        if not made:
            for s in self._numbers(block):
                of_shape = np.flatnonzero(own.shape_of == s).tolist()
                m.item_is.add(sum(items[j] for j in of_shape) == m.weight[block, s])
                m.item_is.add(sum(int(menu.layers[j]) * items[j] for j in of_shape) == m.layers[block, s])
            for p in range(len(menu.axes.get("depth", ()))):
                chosen = np.flatnonzero(menu.places["depth"] == p).tolist()
                m.item_is.add(pyo.quicksum(items[j] for j in chosen) == m.entry[block, "depth", p])
        return items

    def _block_term(self, block: int, term: np.ndarray) -> Any:
        """The term of one block, from its values (items,) on the menu."""
        import pyomo.environ as pyo

        m = self.model
        if (line := self._shapes[block].line(term)) is not None:
            looked_up = zip(line, (m.weight, m.layers), strict=True)
            return pyo.quicksum(float(values[k]) * of[block, int(k)] for values, of in looked_up for k in np.flatnonzero(values))
        items = self._items(block)
        return pyo.quicksum(float(term[j]) * items[j] for j in np.flatnonzero(term))

    def terms(self, quantity: Separable) -> list[Any]:
        table = tabulate([quantity], self.space)
        blocks = [self._block_term(i, block[0]) for i, block in enumerate(table.blocks)]
        return [float(table.fixed[0]), *blocks, *_joint_terms(self.model, table)]

    def cap(self, quantity: Separable, limit: float) -> None:
        _forbid(self.model, tabulate([quantity], self.space), limit, lambda i, j: self._items(i)[j])

    def reach(self, quantity: Separable, least: float) -> None:
        _reach(self.model, tabulate([quantity], self.space), least, lambda i, j: self._items(i)[j])

    def decode(self) -> Architecture | None:
        m, choices = self.model, []
        for i, (menu, own) in enumerate(zip(self.space.menus, self._shapes, strict=True)):
            weights, depth = [m.weight[i, s].value for s in self._numbers(i)], m.depth[i].value
            if depth is None or None in weights:
                return None
            found = np.flatnonzero((own.shape_of == int(np.argmax(weights))) & (menu.layers == round(depth)))
            if not len(found):
                return None
            choices.append(int(found[0]))
        return self.space.decode(choices) if self.space.allows(choices) else None

    def encode(self, architecture: Architecture) -> None:
        m = self.model
        for i, (menu, item) in enumerate(zip(self.space.menus, self.space.encode(architecture), strict=True)):
            block, own = menu.items[item], self._shapes[i]
            m.depth[i] = block.depth
            if self._sized:
                m.width[i], m.ffn_width[i] = block.width, block.ffn_width
            for s in self._numbers(i):
                m.weight[i, s] = int(s == own.shape_of[item])
                m.layers[i, s] = block.depth * int(s == own.shape_of[item])
            if i in m.multiple:
                m.multiple[i] = int(menu.places["width"][item])
            for name, places in menu.places.items():
                for p in range(len(menu.axes[name])):
                    if (i, name, p) in m.entry:
                        m.entry[i, name, p] = int(p == places[item])
            for j in range(len(menu)):
                if (i, j) in m.item:
                    m.item[i, j] = int(j == item)

    def forbid(self, architecture: Architecture) -> None:
        chosen = [self._items(i)[item] for i, item in enumerate(self.space.encode(architecture))]
        self.model.ruled_out.add(sum(chosen) <= len(chosen) - 1)


class BlockShapes:
    """What is chosen for a block but its depth, in every combination that its menu has.

    Attributes:
        first: an item of each shape.
        shape_of: (items,) the shape of each item.
        layers: (items,) its depth.
        places: by the name of an axis but the depth, the place of each shape on it, −1 where it means nothing.
        least: (shapes,) the least depth of a shape.
        most: (shapes,) its greatest depth.
        every_depth: whether each shape has every depth in between.
    """

    def __init__(self, menu: Menu) -> None:
        names = [name for name in menu.axes if name != "depth"]
        chosen = np.stack([menu.places[name] for name in names])
        _, self.first, self.shape_of = np.unique(chosen, axis=1, return_index=True, return_inverse=True)
        self.shape_of = self.shape_of.ravel()
        self.places = {name: menu.places[name][self.first] for name in names}
        self.layers = menu.layers
        depths = [menu.layers[self.shape_of == k] for k in range(len(self.first))]
        self.least, self.most = (np.array([pick(own) for own in depths]) for pick in (np.min, np.max))
        self.every_depth = all(len(own) == own.max() - own.min() + 1 for own in depths)

    def line(self, term: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Offset and slope (shapes,) of a term, values (items,), that is affine in the depth for each shape; None for any other."""
        offset, slope = np.zeros(len(self.first)), np.zeros(len(self.first))
        for k in range(len(self.first)):
            values, layers = term[self.shape_of == k], self.layers[self.shape_of == k]
            shallow, deep = int(layers.argmin()), int(layers.argmax())
            if layers[deep] > layers[shallow]:
                slope[k] = (values[deep] - values[shallow]) / (layers[deep] - layers[shallow])
            elif layers[deep]:
                slope[k] = values[deep] / layers[deep]
            offset[k] = values[shallow] - slope[k] * layers[shallow]
        rounding = 1e-12 * np.abs(term).max(initial=0.0)
        if np.any(np.abs(offset[self.shape_of] + slope[self.shape_of] * self.layers - term) > rounding):
            return None
        offset[np.abs(offset) <= rounding] = 0.0
        return offset, slope
