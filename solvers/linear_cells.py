"""Composite objectives for linear solvers: branch and bound over boxes of the parts, each box a mixed-integer linear program.

The first boxes are one per total depth, each with the range that the parts have at that depth within the budgets. In a box the
composite lies below an affine function of its parts (`Composite.overestimator`), so the choice form with that objective is a MILP
whose optimum bounds the box. A box that may hold a better design is cut in two at the MILP's design, along the part that brings the
overestimators down most there; boxes shrink until the overestimator agrees with the composite.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, product

import numpy as np
import pyomo.environ as pyo

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Separable
from formulation.table import tabulate
from solvers.base import Answer, Run, broken_budgets
from solvers.completion import Cells, LagrangianBound, depth_boxes
from solvers.evaluation import LAYERS
from solvers.pyomo_model import Form, Program, build_program, engine_bound, part_ranges

TOLERANCE = 1e-7
"""Feasibility and integrality tolerance asked of the engine. With 1e-9 HiGHS was seen to call a feasible program infeasible."""


@dataclass(frozen=True)
class LinearEnd:
    """How one MILP ended.

    bound       valid upper bound on its optimum; −∞ where it was proved infeasible, None where the engine gave none
    found       whether the model's variables now hold a feasible point
    finished    whether it was solved to the end
    """

    bound: float | None
    found: bool
    finished: bool


LinearEngine = Callable[[pyo.ConcreteModel, float | None], LinearEnd]
"""Solve the model's active program within some seconds (None: no limit), loading what it finds into the variables."""


def linear_program(problem: DesignProblem) -> Program:
    """The choice form with a linear objective: the composite's overestimator on the whole space, in parameters.

    `model.total_depth`, `model.coefficient`, `model.constant` and the bounds of `model.part` make up the box; `model.cutoff` asks
    for an objective of at least `model.cutoff_value`.
    """
    program = build_program(problem, Form.CHOICE)
    model, objective = program.model, problem.maximize
    if isinstance(objective, Composite):
        lower, upper = part_ranges(objective, problem.space)
        coefficients, constant = objective.overestimator(lower, upper)
        rows = range(len(lower))
        model.total_depth = pyo.Param(mutable=True, initialize=sum(menu.depths[0] for menu in problem.space.menus))
        depths = [menu.depth_of for menu in problem.space.menus]
        model.depth_is = pyo.Constraint(
            expr=pyo.quicksum(int(depths[i][j]) * x for (i, j), x in model.x.items()) == model.total_depth
        )
        model.coefficient = pyo.Param(rows, mutable=True, initialize=lambda _, p: float(coefficients[p]) / program.unit)
        model.constant = pyo.Param(mutable=True, initialize=float(constant) / program.unit)
        expression = sum(model.coefficient[p] * program.parts[p] for p in rows) + model.constant
        model.del_component(model.objective)
        model.objective = pyo.Objective(expr=expression, sense=pyo.maximize)
    model.ruled_out = pyo.ConstraintList(doc="designs already scored or over a budget")
    model.cutoff_value = pyo.Param(mutable=True, initialize=0.0)
    model.cutoff = pyo.Constraint(expr=model.objective.expr >= model.cutoff_value)
    model.cutoff.deactivate()
    return program


@dataclass(frozen=True, eq=False)
class _Box:
    """Designs of some total depth with their parts between bounds, a point between them, a proven bound on their objective."""

    layers: int
    lower: np.ndarray
    upper: np.ndarray
    near: np.ndarray
    bound: float


def _is_linear(composite: Composite) -> bool:
    """Whether the formula is affine in the parts."""
    model = pyo.ConcreteModel()
    model.part = pyo.Var(range(len(composite.parts)))
    return composite.formula(list(model.part.values())).polynomial_degree() in (0, 1)


def search_cells(problem: DesignProblem, run: Run, engine: LinearEngine) -> Answer:
    """Solve `problem` to proof with a linear engine; NotSeparable for black boxes and for composite budgets that are not linear."""
    return _Search(problem, run, engine).answer()


class _Search:
    """State of one search."""

    def __init__(self, problem: DesignProblem, run: Run, engine: LinearEngine) -> None:
        for budget in problem.subject_to:
            if isinstance(budget.quantity, Composite) and not _is_linear(budget.quantity):
                raise NotSeparable(f"a linear program cannot hold the composite budget {budget}; use DynamicProgramming or Scip")
        self.problem, self.run, self.engine = problem, run, engine
        self.composite = problem.maximize if isinstance(problem.maximize, Composite) else None
        self.program = linear_program(problem)
        self.best: float = -np.inf
        self.design: Architecture | None = None
        self.closed: float = -np.inf
        self.programs = 0
        self.gave_up = False
        if run.limits.start is not None:
            self._offer(run.limits.start)

    @property
    def cutoff(self) -> float:
        """Objective asked of any further design: better than the incumbent by half the gap."""
        return self.best + 0.5 * self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    @property
    def threshold(self) -> float:
        """Bound at which a box is closed: the whole gap above the incumbent, so that the engine's tolerances keep none open."""
        return self.best + self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    def _offer(self, design: Architecture) -> None:
        value = self.problem.maximize(design)
        self.run.evaluations += 1
        if value > self.best:
            self.best, self.design = value, design
            self.run.record(value)

    def answer(self) -> Answer:
        order = count()
        heap = [(-box.bound, next(order), box) for box in self._first_boxes()]
        heapq.heapify(heap)
        while heap:
            _, _, box = heapq.heappop(heap)
            if box.bound <= self.threshold:
                # Best first: nothing that is left can beat the incumbent.
                self.closed = max(self.closed, box.bound)
                break
            children = [box] if self.run.stopped else self._explore(box)
            for child in children:
                heapq.heappush(heap, (-child.bound, next(order), child))
            bound = max(self.closed, self.best, -heap[0][0] if heap else -np.inf)
            if np.isfinite(bound):
                self.run.record(None if self.design is None else self.best, bound)
            if self.run.stopped or self.gave_up:
                message = f"{self.run.why_stopped or 'the engine ended without an answer'} after {self.programs:,} MILPs"
                return Answer(self.design, bound if heap else max(self.closed, self.best), message=message)
        message = f"{self.programs:,} MILPs solved"
        if self.design is None:
            return Answer(None, infeasible=True, message=f"no design keeps the budgets; {message}")
        bound = max(self.closed, self.best)
        self.run.record(self.best, bound)
        return Answer(self.design, bound, message=message)

    def _first_boxes(self) -> list[_Box]:
        if self.composite is None:
            return [_Box(0, np.zeros(0), np.zeros(0), np.zeros(0), np.inf)]
        space, composite = self.problem.space, self.composite
        sums = [b for b in self.problem.subject_to if isinstance(b.quantity, Separable) and b.quantity.combine is Combine.SUM]
        table = tabulate((LAYERS, *composite.parts, *(b.quantity for b in sums)), space)  # type: ignore[arg-type]
        allowed = [np.ones(len(menu), dtype=bool) for menu in space.menus]
        parts = slice(1, 1 + len(composite.parts))
        depths, lower, upper = depth_boxes(table, allowed, 0, parts)
        # The budgets narrow each part's range: Lagrangian bounds on the part itself, and on its negative.
        limits = np.array([budget.limit for budget in sums])
        for p, sign in product(range(lower.shape[1]), (1.0, -1.0)):
            if self.run.stopped or np.array_equal(lower[:, p], upper[:, p]):
                continue
            coefficients = np.zeros(lower.shape)
            coefficients[:, p] = sign
            cells = Cells(depths, coefficients, np.zeros(len(depths)), parts, slice(parts.stop, len(table.fixed)), limits)
            bound = LagrangianBound(table, allowed, cells).root
            if sign > 0:
                upper[:, p] = np.minimum(upper[:, p], bound)
            else:
                lower[:, p] = np.maximum(lower[:, p], -bound)
        possible = np.all(lower <= upper, axis=1)
        depths, lower, upper = depths[possible], lower[possible], upper[possible]
        return [
            _Box(int(depth), low, high, (low + high) / 2, self._corner(low, high))
            for depth, low, high in zip(depths, lower, upper, strict=True)
        ]

    def _corner(self, lower: np.ndarray, upper: np.ndarray) -> float:
        """The composite at the corner of a box that its signs point to: a bound that needs no engine, exact on a point."""
        assert self.composite is not None
        value = float(self.composite.formula(np.where(np.array(self.composite.signs) > 0, upper, lower)))
        return value + 1e-9 * abs(value)

    def _explore(self, box: _Box) -> list[_Box]:
        """Solve the program of a box; the boxes that remain to be explored in its place."""
        model = self.program.model
        self._set(box)
        end = self.engine(model, self.run.seconds_left)
        self.programs += 1
        bound = box.bound if end.bound is None else min(box.bound, engine_bound(self.program, end.bound))
        box = replace(box, bound=bound)
        design = self.program.decode() if end.found else None
        if design is not None:
            if broken_budgets(self.problem, design):
                # Within the engine's tolerance only: rule this one design out and solve the box again.
                self._rule_out()
                return [box]
            self._offer(design)
        if not end.finished:
            self.gave_up = not self.run.stopped
            return [box]
        if end.bound == -np.inf:
            # Infeasible: no design of the box exceeds the cutoff.
            self.closed = max(self.closed, min(box.bound, self.cutoff))
            return []
        if bound <= self.threshold:
            self.closed = max(self.closed, bound)
            return []
        if design is None:
            self.gave_up = True
            return [box]
        if self._value_at(box, design) <= self.threshold:
            # What exceeds the threshold is the engine's tolerance: the design is scored, so rule it out and solve again.
            self._rule_out()
            return [box]
        return self._split(box, design)

    def _value_at(self, box: _Box, design: Architecture) -> float:
        """The program's objective at a design, without the engine's tolerances."""
        if self.composite is None:
            return self.problem.maximize(design)
        coefficients, constant = self.composite.overestimator(box.lower, box.upper, box.near)
        return float(coefficients @ [part(design) for part in self.composite.parts] + constant)

    def _rule_out(self) -> None:
        """Forbid the design that the variables hold."""
        chosen = [variable for variable in self.program.model.x.values() if variable.value > 0.5]
        self.program.model.ruled_out.add(sum(chosen) <= self.problem.space.blocks - 1)

    def _set(self, box: _Box) -> None:
        """Restrict the parts to the box, put its overestimator in the objective, ask for more than the cutoff."""
        model = self.program.model
        if self.composite is not None:
            coefficients, constant = self.composite.overestimator(box.lower, box.upper, box.near)
            model.constant.set_value(float(constant) / self.program.unit)
            model.total_depth.set_value(box.layers)
            for p, scale in enumerate(self.program.scales):
                model.coefficient[p].set_value(float(coefficients[p]) / self.program.unit)
                slack = 0.0 if model.part[p].is_integer() else TOLERANCE
                model.part[p].setlb(float(box.lower[p]) / scale - slack)
                model.part[p].setub(float(box.upper[p]) / scale + slack)
        if np.isfinite(self.cutoff):
            model.cutoff_value.set_value(self.cutoff / self.program.unit)
            model.cutoff.activate()

    def _split(self, box: _Box, design: Architecture) -> list[_Box]:
        """Two parts of a box, cut at `design` along the part that brings the overestimators down most there; none of a point.

        The design lies on the border of both, where an overestimator can be exact.
        """
        assert self.composite is not None
        here = np.array([part(design) for part in self.composite.parts])
        best: tuple[float, list[_Box]] = (np.inf, [])
        for p in range(len(here)):
            low, high = box.lower[p], box.upper[p]
            whole = self.program.model.part[p].is_integer()
            step = 1.0 if whole else 1e-9 * max(abs(low), abs(high))
            if high - low < (1.0 if whole else 4 * step):
                continue
            cut = np.floor((low + high) / 2) if whole else (low + high) / 2
            # On the border of a part already: halve it, so that every chain of cuts ends.
            if (whole and low <= here[p] < high) or (not whole and low + step < here[p] < high - step):
                cut = here[p]
            halves = []
            for start, stop in ((low, cut), (cut + 1 if whole else cut, high)):
                lower, upper = box.lower.copy(), box.upper.copy()
                lower[p], upper[p] = start, stop
                bound = min(box.bound, self._corner(lower, upper))
                halves.append(_Box(box.layers, lower, upper, np.clip(here, lower, upper), bound))
            values = []
            for half in halves:
                if np.all((half.lower - step <= here) & (here <= half.upper + step)):
                    coefficients, constant = self.composite.overestimator(half.lower, half.upper, half.near)
                    values.append(float(coefficients @ here + constant))
            if values and max(values) < best[0]:
                best = (max(values), halves)
        if not best[1]:
            self.closed = max(self.closed, box.bound)
        return best[1]
