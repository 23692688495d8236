"""A `DesignProblem` as a declarative program in Pyomo, in two forms that agree at every design.

*Look-up form*: integer width, FFN width and depth per block; entropies and costs per layer are piecewise-linear look-ups of the
width, one per FFN ratio. F = r·E, depth times look-up and the effectiveness ratio are nonlinear: a MINLP as the paper states it.

*Choice form*: one binary per block and menu item, joints as a flow between states (`SearchSpace.state_of`). Every separable
quantity is linear; only the composite objective is not.

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
from formulation.problem import Constraint
from formulation.space import SearchSpace
from formulation.table import Table, tabulate
from solvers.evaluation import require_structure

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


def build_program(problem: DesignProblem, form: Form = Form.CHOICE) -> Program:
    """The program of `problem` in one of its two forms; NotSeparable if a quantity has no structure to write down."""
    import pyomo.environ as pyo

    require_structure(problem, "a declarative program")
    model = pyo.ConcreteModel(name=f"{form.value}_form")
    writer = _LookupForm(model, problem.space) if form is Form.LOOKUP else _ChoiceForm(model, problem.space)
    objective = problem.goal
    scales: tuple[float, ...] = ()
    parts: tuple[Any, ...] = ()
    own_parts = objective.parts if isinstance(objective, Composite) else ()
    if isinstance(objective, Composite):
        scales = _part_variables(model, writer, objective)
        parts = tuple(scale * model.part[p] for p, scale in enumerate(scales))
        unit = _unit(objective.formula(_corner(objective, problem.space)))
        slopes, constant = overestimate(objective, *part_ranges(objective, problem.space))
        size = float(np.abs(slopes) @ tabulate(objective.parts, problem.space).sizes + abs(constant))
        model.objective = pyo.Objective(expr=objective.formula(parts) / unit, sense=pyo.maximize)
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
    made = {"part": (own_parts, scales)} if own_parts else {}
    for number, constraint in enumerate(problem.constraints):
        name, quantity = f"part_of_budget_{number}", constraint.quantity
        if isinstance(quantity, Composite) and not any(part.combine is Combine.MAX for part in quantity.parts):
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
    """What to divide an objective by whose values reach `magnitude`."""
    return 1.0 if 1 <= abs(magnitude) <= 1e7 or not magnitude else abs(float(magnitude)) / 1e4


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

    if maxima := [part.name for part in composite.parts if part.combine is Combine.MAX]:
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
    """Integer width, ffn_width and depth per block, and the interpolation weights of its look-ups.

    A look-up is for each FFN ratio r a univariate piecewise-linear function of the width whose vertices v are the menu's
    widths, in the convex-combination form: weight[i, r, v] are the weights of the vertices of ratio r and add up to the
    indicator ratio[i, r]. Every design lies on a vertex, so vertex[i, v] = Σ_r weight[i, r, v] is binary, and the width is
    an integer multiple of the menu's step besides, where the menu has one.

    A block's term that is affine in its depth, as entropies and the analytic cost models are, is a look-up of the offset plus
    depth times a look-up of the slope; the product layers[i, r, v] = depth[i] · weight[i, r, v] stays in the program and is
    strengthened by its bounds and by its sum over v and r (the reformulation-linearization of Sherali & Adams). Any other
    term is one look-up for each depth, chosen by a binary depth_item[i, k].

    ValueError for a rule for steps that asks for more of a block than its width: the form has no variable for it.
    """

    def __init__(self, model: pyo.ConcreteModel, space: SearchSpace) -> None:
        import pyomo.environ as pyo

        if any(len(widths) > len(menu.widths) for widths, menu in zip(space.state_widths, space.menus, strict=True)):
            raise ValueError(
                f"the look-up form states which width may follow which, and the rule {space.step!r} asks for more of a block; "
                "use the choice form or another solver"
            )
        self.model, self.space, self._blocks = model, space, range(space.blocks)
        menus, m = space.menus, model
        ratios = [(i, r) for i in self._blocks for r in self._ratios(i)]
        vertices = [(i, v) for i in self._blocks for v in self._vertices(i)]
        both = [(i, r, v) for i, r in ratios for v in self._vertices(i)]
        m.width = pyo.Var(self._blocks, domain=pyo.Integers, bounds=lambda _, i: _ends(menus[i].widths), doc="E_i")
        m.ffn_width = pyo.Var(self._blocks, domain=pyo.Integers, bounds=lambda _, i: self._ffn_range(i), doc="F_i")
        m.depth = pyo.Var(self._blocks, domain=pyo.Integers, bounds=lambda _, i: _ends(menus[i].depths), doc="L_i")
        m.ratio = pyo.Var(ratios, domain=pyo.Binary, doc="block i has FFN ratio r of its menu")
        m.vertex = pyo.Var(vertices, domain=pyo.Binary, doc="block i has width v of its menu")
        m.weight = pyo.Var(both, bounds=(0, 1), doc="weight of vertex v in the look-ups of ratio r")
        m.layers = pyo.Var(both, bounds=lambda _, i, r, v: (0, menus[i].depths[-1]), doc="depth times weight")

        m.one_ratio = pyo.Constraint(self._blocks, rule=lambda m, i: sum(m.ratio[i, r] for r in self._ratios(i)) == 1)
        m.ffn_width_is = pyo.Constraint(
            self._blocks,
            rule=lambda m, i: (
                m.ffn_width[i] == sum(ratio * m.ratio[i, r] for r, ratio in enumerate(menus[i].ffn_ratios)) * m.width[i]
            ),
            doc="F = r·E",
        )
        m.weights_of_ratio = pyo.Constraint(
            ratios, rule=lambda m, i, r: sum(m.weight[i, r, v] for v in self._vertices(i)) == m.ratio[i, r]
        )
        m.weights_of_vertex = pyo.Constraint(
            vertices, rule=lambda m, i, v: sum(m.weight[i, r, v] for r in self._ratios(i)) == m.vertex[i, v]
        )
        m.width_is = pyo.Constraint(
            self._blocks, rule=lambda m, i: m.width[i] == sum(width * m.vertex[i, v] for v, width in enumerate(menus[i].widths))
        )
        stepped = [i for i in self._blocks if len(set(np.diff(menus[i].widths))) == 1]
        m.multiple = pyo.Var(stepped, domain=pyo.Integers, bounds=lambda _, i: (0, len(menus[i].widths) - 1), doc="menu steps")
        m.width_step = pyo.Constraint(
            stepped, rule=lambda m, i: m.width[i] == menus[i].widths[0] + (menus[i].widths[1] - menus[i].widths[0]) * m.multiple[i]
        )
        m.layers_are = pyo.Constraint(both, rule=lambda m, i, r, v: m.layers[i, r, v] == m.depth[i] * m.weight[i, r, v])
        m.layers_least = pyo.Constraint(both, rule=lambda m, i, r, v: m.layers[i, r, v] >= menus[i].depths[0] * m.weight[i, r, v])
        m.layers_most = pyo.Constraint(both, rule=lambda m, i, r, v: m.layers[i, r, v] <= menus[i].depths[-1] * m.weight[i, r, v])
        m.layers_sum = pyo.Constraint(
            self._blocks,
            rule=lambda m, i: sum(m.layers[i, r, v] for r in self._ratios(i) for v in self._vertices(i)) == m.depth[i],
        )
        if space.non_decreasing:
            m.non_decreasing = pyo.Constraint(range(space.blocks - 1), rule=lambda m, i: m.width[i] <= m.width[i + 1])
        if space.may_be_empty:
            m.some_layer = pyo.Constraint(expr=sum(m.depth[i] for i in self._blocks) >= 1)
        _add_flow(m, space, lambda i, v: m.vertex[i, v])
        depths = [(i, k) for i in self._blocks for k in range(len(menus[i].depths))]
        m.depth_item = pyo.Var(depths, domain=pyo.Binary, dense=False, doc="block i has depth k of its menu")
        m.depth_items = pyo.ConstraintList()
        for i in self._blocks:
            if set(np.diff(menus[i].depths)) - {1}:
                self._depth_items(i)

    def _ratios(self, block: int) -> range:
        return range(len(self.space.menus[block].ffn_ratios))

    def _vertices(self, block: int) -> range:
        return range(len(self.space.menus[block].widths))

    def _ffn_range(self, block: int) -> tuple[int, int]:
        menu = self.space.menus[block]
        return round(menu.widths[0] * menu.ffn_ratios[0]), round(menu.widths[-1] * menu.ffn_ratios[-1])

    def _depth_items(self, block: int) -> list[Any]:
        """One binary per depth of the menu, made when first needed."""
        m, depths = self.model, self.space.menus[block].depths
        made = (block, 0) in m.depth_item
        items = [m.depth_item[block, k] for k in range(len(depths))]
        if not made:
            m.depth_items.add(sum(items) == 1)
            m.depth_items.add(m.depth[block] == sum(depth * item for depth, item in zip(depths, items, strict=True)))
        return items

    def _items(self, block: int) -> np.ndarray:
        """The items of a menu by the places of their width v, ratio r and depth k, int array (v, r, k)."""
        menu = self.space.menus[block]
        places = product(self._vertices(block), self._ratios(block), range(len(menu.depths)))
        items = [menu.at({"width": v, "ffn_ratio": r, "depth": k}) for v, r, k in places]
        return np.array(items).reshape(len(menu.widths), len(menu.ffn_ratios), -1)

    def _look_up(self, variable: Any, block: int, values: np.ndarray) -> Any:
        """Σ values[v, r] · variable[block, r, v]: a look-up for `weight`, depth times the look-up for `layers`."""
        import pyomo.environ as pyo

        used = [(r, v) for r in self._ratios(block) for v in self._vertices(block) if values[v, r]]
        return pyo.quicksum(float(values[v, r]) * variable[block, r, v] for r, v in used)

    def _block_term(self, block: int, term: np.ndarray) -> Any:
        """The term of one block, from its values (items,) on the menu."""
        m, menu = self.model, self.space.menus[block]
        values, depths = term[self._items(block)], np.array(menu.depths, dtype=float)
        slope = (values[:, :, -1] - values[:, :, 0]) / max(depths[-1] - depths[0], 1)
        offset = values[:, :, 0] - slope * depths[0]
        rounding = 1e-12 * np.abs(values).max()
        if np.all(np.abs(offset[:, :, None] + slope[:, :, None] * depths - values) <= rounding):
            offset[np.abs(offset) <= rounding] = 0.0
            return self._look_up(m.weight, block, offset) + self._look_up(m.layers, block, slope)
        items = self._depth_items(block)
        return sum(item * self._look_up(m.weight, block, values[:, :, k]) for k, item in enumerate(items))

    def terms(self, quantity: Separable) -> list[Any]:
        table = tabulate([quantity], self.space)
        blocks = [self._block_term(i, block[0]) for i, block in enumerate(table.blocks)]
        return [float(table.fixed[0]), *blocks, *_joint_terms(self.model, table)]

    def _chosen(self, block: int, item: int) -> list[Any]:
        """The binaries that are all 1 where a block takes an item: its width's, its ratio's where it has one, its depth's."""
        m, place = self.model, {name: int(places[item]) for name, places in self.space.menus[block].places.items()}
        ratio = [m.ratio[block, place["ffn_ratio"]]] if place["ffn_ratio"] >= 0 else []
        return [m.vertex[block, place["width"]], *ratio, self._depth_items(block)[place["depth"]]]

    def _shape_and_depth(self, block: int, item: int) -> tuple[Any, Any]:
        """The two binaries whose product is 1 where a block takes an item: of its width and ratio together, and of its depth."""
        v, r, k = (int(self.space.menus[block].places[name][item]) for name in ("width", "ffn_ratio", "depth"))
        return self.model.vertex[block, v] if r < 0 else self.model.weight[block, r, v], self._depth_items(block)[k]

    def cap(self, quantity: Separable, limit: float) -> None:
        def item(block: int, number: int) -> Any:
            shape, depth = self._shape_and_depth(block, number)
            return shape + depth - 1

        _forbid(self.model, tabulate([quantity], self.space), limit, item)

    def reach(self, quantity: Separable, least: float) -> None:
        import pyomo.environ as pyo

        m = self.model
        if m.component("taken") is None:
            m.taken = pyo.VarList(bounds=(0, 1), doc="at most what a block takes of an item")
            m.taken_is = pyo.ConstraintList()

        def item(block: int, number: int) -> Any:
            shape, depth = self._shape_and_depth(block, number)
            taken = m.taken.add()
            m.taken_is.add(taken <= shape)
            m.taken_is.add(taken <= depth)
            return taken

        _reach(m, tabulate([quantity], self.space), least, item)

    def decode(self) -> Architecture | None:
        m, choices = self.model, []
        for i, menu in enumerate(self.space.menus):
            vertex = [m.vertex[i, v].value for v in self._vertices(i)]
            ratio = [m.ratio[i, r].value for r in self._ratios(i)]
            depth = m.depth[i].value
            if depth is None or None in vertex or None in ratio or round(depth) not in menu.depths:
                return None
            places = {"width": int(np.argmax(vertex)), "ffn_ratio": int(np.argmax(ratio)), "depth": menu.depths.index(round(depth))}
            choices.append(menu.at(places))
        return self.space.decode(choices) if self.space.allows(choices) else None

    def encode(self, architecture: Architecture) -> None:
        m = self.model
        for i, (menu, item) in enumerate(zip(self.space.menus, self.space.encode(architecture), strict=True)):
            block = menu.items[item]
            m.width[i], m.ffn_width[i], m.depth[i] = block.width, block.ffn_width, block.depth
            at_vertex, at_depth = (int(menu.places[name][item]) for name in ("width", "depth"))
            at_ratio = max(int(menu.places["ffn_ratio"][item]), 0)  # a block without layers has that of the first
            for v in self._vertices(i):
                m.vertex[i, v] = int(v == at_vertex)
                for r in self._ratios(i):
                    m.ratio[i, r] = int(r == at_ratio)
                    m.weight[i, r, v] = int(v == at_vertex and r == at_ratio)
                    m.layers[i, r, v] = block.depth * int(v == at_vertex and r == at_ratio)
            if i in m.multiple:
                m.multiple[i] = at_vertex
            for k in range(len(menu.depths)):
                if (i, k) in m.depth_item:
                    m.depth_item[i, k] = int(k == at_depth)

    def forbid(self, architecture: Architecture) -> None:
        import pyomo.environ as pyo

        chosen = [variable for i, item in enumerate(self.space.encode(architecture)) for variable in self._chosen(i, item)]
        self.model.ruled_out.add(pyo.quicksum(chosen) <= len(chosen) - 1)


def _ends(entries: tuple[int, ...]) -> tuple[int, int]:
    return entries[0], entries[-1]
