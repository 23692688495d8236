"""Exact search with a linear engine: branch and bound over boxes of a composite's parts, each box a mixed-integer linear program.

The first boxes are one per total depth, each with the range that the parts have at that depth within the budgets. In a box the
composite lies below an affine function of its parts (`Composite.overestimator`), so the choice form with that objective is a MILP
whose optimum bounds the box. A box that may hold a better design is cut in two at the MILP's design, along the part that brings the
overestimators down most there; boxes shrink until the overestimator agrees with the composite.

What an engine says is a claim. Confirmed, or not needed:

* A design: it is scored and compared with the budgets here; one that exceeds a budget within the engine's tolerance is ruled out.
* A box that is closed, as infeasible or by its bound: either a bound of our own closes it (Lagrangian, or the composite at the
  corner of the box), or two solves of different kinds do: the second is asked to be careful (`LinearEngine`). So OPTIMAL and
  INFEASIBLE never rest on one solve. Where the two disagree the careful one is believed, in that box and in all that it is cut
  into.
* Arithmetic: every bound is raised by the engine's tolerances and by the rounding of the sums, both relative to the size of the
  terms (`linear_form.Total.margin`); where that is more than the gap asked for, a bound is returned and no proof.

Trusted: the bound of a box that is still open when a limit ends the search, for which no second solve is left.
"""

from __future__ import annotations

import heapq
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Quantity, Separable
from formulation.declarations import overestimate, underestimate
from formulation.derived import LAYERS
from formulation.table import tabulate
from solvers.base import Answer, Run, Stopped, broken_budgets
from solvers.evaluation import require_structure
from solvers.exact.bounds import Cells, LagrangianBound, ResourceBound, depth_boxes, narrow_parts, rounding_of
from solvers.incumbent import quick_incumbent
from solvers.programs.linear_form import LinearForm, LinearProgram, LinearRow, Total, formulas, prices

_ROUNDS = 3
"""Rounds of Lagrangian bounds and narrowing that the first boxes get."""
_STEPS = 1 << 15
"""Most steps that the budgets are cut into for a bound of our own."""
_FEW = 1 << 9
"""Fewer steps are not worth it."""
_WORK = 1 << 30
"""Most elementary operations that a bound of our own may take, about a second's worth."""
_FIRST_SHARE = 0.3
"""Share of the time limit after which the first boxes keep the bounds that they have, so that the engine has its turn."""
_CORNER = 1e-12
"""Relative to the size of a part: what its bounds are moved out by before the composite is read at a corner."""


@dataclass(frozen=True, eq=False)
class LinearEnd:
    """How one MILP ended.

    Attributes:
        bound: upper bound on its optimum; −∞ where it was called infeasible, None if the engine gave none.
        point: the best feasible point found, None if none was.
        finished: whether it was solved to the end.
    """

    bound: float | None
    point: np.ndarray | None
    finished: bool


LinearEngine = Callable[[LinearProgram, float | None, bool], LinearEnd]
"""Solve a program within some seconds (None: no limit). True asks for another way than False, with as little presolve as can be."""


def search_cells(problem: DesignProblem, run: Run, engine: LinearEngine) -> Answer:
    """Solve `problem` to proof with a linear engine; NotSeparable for black boxes and for composite budgets that are not linear."""
    with run.loading():  # what `solvers.programs.linear_form` needs
        importlib.import_module("scipy.optimize")
    return _Search(problem, run, engine).answer()


@dataclass(frozen=True, eq=False)
class _Box:
    """Designs of some total depth with their parts between bounds.

    Attributes:
        layers: total depth, None for any.
        near: a point of the box, at which the overestimator is to be close.
        proven: bound on their objective by an argument of our own.
        bound: that, or what an engine claims if it is lower.
        careful: whether the engine was caught in a contradiction here.
    """

    layers: int | None
    lower: np.ndarray
    upper: np.ndarray
    near: np.ndarray
    proven: float
    bound: float
    careful: bool = False


class _Search:
    """State of one search."""

    def __init__(self, problem: DesignProblem, run: Run, engine: LinearEngine) -> None:
        require_structure(problem, "a declarative program")
        objective = problem.goal
        self.composite = objective if isinstance(objective, Composite) else None
        own: tuple[Quantity, ...] = self.composite.parts if self.composite else (objective,)
        if maxima := [part.name for part in own if isinstance(part, Separable) and part.combine is Combine.MAX]:
            what = f"{objective.name} is {'made of the' if self.composite else 'a'} maximum"
            raise NotSeparable(f"{what} ({maxima[0]}); use DynamicProgramming or Exhaustive")
        self.problem, self.run, self.engine = problem, run, engine
        self.objective_parts = slice(0, len(own))
        self.formulas: list[tuple[Composite, slice, float]] = []
        for composite, limit in formulas(problem):
            self.formulas.append((composite, slice(len(own), len(own) + len(composite.parts)), limit))
            own = (*own, *composite.parts)
        self.parts = tabulate(own, problem.space)  # type: ignore[arg-type]
        self.quantities = own
        self.best: float = -np.inf
        self.design: Architecture | None = None
        self.ruled_out: list[LinearRow] = []
        self.closed: float = -np.inf
        self.programs = self.contradictions = 0
        self.gave_up = False

    @property
    def cutoff(self) -> float:
        """Objective asked of any further design: better than the incumbent by half the gap."""
        return self.best + 0.5 * self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    @property
    def threshold(self) -> float:
        """Bound at which a box is closed: the whole gap above the incumbent, so that the engine's tolerances keep none open."""
        return self.best + self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    def _offer(self, design: Architecture) -> None:
        value = self.problem.objective(design)
        if value > self.best:
            self.best, self.design = value, design
            self.run.record(value)

    def answer(self) -> Answer:
        if (first := quick_incumbent(self.problem, self.run)) is not None:
            self._offer(first)
        order = count()
        try:
            boxes = self.first_boxes()
        except Stopped:
            return Answer(self.design, self._ceiling(), message=f"{self.run.why_stopped} before the first MILP")
        heap = [(-box.bound, next(order), box) for box in boxes]
        heapq.heapify(heap)
        while heap:
            box = heapq.heappop(heap)[2]
            if box.proven <= self.threshold:
                self.closed = max(self.closed, box.proven)
                children = []
            else:
                children = [box] if self.run.stopped else self._explore(box)
            for child in children:
                heapq.heappush(heap, (-child.bound, next(order), child))
            bound = self._bound([box for *_, box in heap])
            if np.isfinite(bound):
                self.run.record(None if self.design is None else self.best, bound)
            if heap and (self.run.stopped or self.gave_up):
                why = self.run.why_stopped or "the engine ended without an answer"
                return Answer(self.design, bound, message=self._told(f"{why} after {self.programs:,} MILPs"))
        message = self._told(f"{self.programs:,} MILPs solved")
        if self.design is None:
            return Answer(None, infeasible=True, message=f"no design meets the budgets; {message}")
        bound = max(self.closed, self.best)
        self.run.record(self.best, bound)
        return Answer(self.design, bound, message=message)

    def _told(self, message: str) -> str:
        """A message, and that the engine contradicted itself where it did."""
        return message + (f", {self.contradictions:,} answers of the engine refuted" if self.contradictions else "")

    def _bound(self, boxes: list[_Box]) -> float:
        """What is known while `boxes` are open: one that is closed by a claim alone counts with what is proven of it."""
        open_ = (box.bound if box.bound > self.threshold else box.proven for box in boxes)
        return max(self.closed, self.best, *open_)

    def first_boxes(self) -> list[_Box]:
        """One box per total depth, narrowed to what designs better than the incumbent can reach within the budgets.

        A single box for a separable objective, with the largest of the bounds by depth. Builds the program first; Stopped if a
        limit is reached before there are boxes.
        """
        self.form = LinearForm(self.problem, self.run.poll)
        self.terms = [self.form.terms(self.parts, p) for p in range(len(self.parts.fixed))]
        self.whole = [
            bool(np.all(np.mod((*terms, fixed), 1) == 0)) for terms, fixed in zip(self.terms, self.parts.fixed, strict=True)
        ]
        if not self.form.possible:
            return []
        space, poll = self.problem.space, self.run.poll
        parts = self.quantities
        sums = {
            number: budget
            for number, budget in enumerate(self.problem.constraints)
            if isinstance(budget.quantity, Separable) and budget.quantity.combine is Combine.SUM
        }
        self.sums = list(sums)
        table = self.table = tabulate((LAYERS, *parts, *(b.quantity for b in sums.values())), space, poll)  # type: ignore[arg-type]
        rows = self.rows_of_parts = slice(1, 1 + len(parts))
        costs = self.costs = slice(rows.stop, len(table.fixed))
        limits = self.limits = np.array([budget.limit for budget in sums.values()])
        depths, lower, upper = depth_boxes(table, self.form.allowed, 0, rows, poll)
        for composite, own, limit in self.formulas:
            depths, lower, upper = self._meeting(composite, own, limit, depths, lower, upper)
        self.depths = depths.tolist()
        proven, multipliers = np.full(len(depths), np.inf), None
        for number in range(_ROUNDS):
            if not len(depths) or self._share_used:
                break
            coefficients, constants = self._overestimators(lower, upper)
            cells = Cells.of_sums(depths, coefficients, constants, rows, costs, limits)
            bound = LagrangianBound(table, self.form.allowed, cells, multipliers, self._poll_first, self.best)
            totals = [self._total(*each) for each in zip(coefficients, constants, strict=True)]
            proven = np.minimum(proven, bound.root + [total.error for total in totals])
            multipliers, last = bound.best_multipliers, (lower, upper)
            if not self.boxed or number == _ROUNDS - 1 or self.design is None:
                break
            lower, upper = narrow_parts(table, self.form.allowed, cells, multipliers, self.best, lower, upper, self._poll_first)
            kept = (proven > self.threshold) & np.all(lower <= upper, axis=1)
            dropped = np.where(np.all(lower <= upper, axis=1), proven, self.best)[~kept]
            self.closed = max(self.closed, dropped.max(initial=-np.inf))
            depths, lower, upper, proven, multipliers = (each[kept] for each in (depths, lower, upper, proven, multipliers))
            if np.array_equal(lower, last[0][kept]) and np.array_equal(upper, last[1][kept]):
                break
        if not self.boxed:
            most, none = proven.max(initial=-np.inf), np.zeros(0)
            return [_Box(None, none, none, none, most, most)] if len(depths) else []
        return [
            _Box(int(depth), low, high, (low + high) / 2, least, least)
            for depth, low, high, root in zip(depths, lower, upper, proven, strict=True)
            for least in [min(float(root), self._corner(low, high))]
        ]

    @property
    def boxed(self) -> bool:
        """Whether the search is split into boxes of parts: where the objective or a budget is a formula that is not affine."""
        return self.composite is not None or bool(self.formulas)

    def _overestimators(
        self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (…, P) and constants (…) of the objective on boxes (…, P) of the parts."""
        own = self.objective_parts
        coefficients, constants = np.zeros(lower.shape), np.zeros(lower.shape[:-1])
        if self.composite is None:
            coefficients[..., own] = 1.0
        else:
            points = None if near is None else near[..., own]
            coefficients[..., own], constants = overestimate(self.composite, lower[..., own], upper[..., own], points)
        return coefficients, constants

    def _meeting(
        self, composite: Composite, own: slice, limit: float, depths: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The depths and boxes (D, P) in which designs may meet a composite budget beside the sums, narrowed to those designs."""
        for _ in range(_ROUNDS):
            if not len(depths) or self._share_used:
                break
            slopes, constants = underestimate(composite, lower[:, own], upper[:, own])
            coefficients = np.zeros(lower.shape)
            coefficients[:, own] = -slopes
            cells = Cells.of_sums(depths, coefficients, limit - constants, self.rows_of_parts, self.costs, self.limits)
            bound = LagrangianBound(self.table, self.form.allowed, cells, None, self._poll_first, np.nextafter(0.0, -1.0))
            last = lower, upper
            lower, upper = narrow_parts(
                self.table, self.form.allowed, cells, bound.best_multipliers, 0.0, lower, upper, self._poll_first
            )
            open_ = (bound.root >= 0) & np.all(lower <= upper, axis=1)
            depths, lower, upper = depths[open_], lower[open_], upper[open_]
            if np.array_equal(lower, last[0][open_]) and np.array_equal(upper, last[1][open_]):
                break
        return depths, lower, upper

    @property
    def _share_used(self) -> bool:
        """Whether the first boxes have had their share of the time."""
        limit = self.run.limits.seconds
        return self.run.out_of_time or (limit is not None and self.run.seconds > _FIRST_SHARE * limit)

    def _poll_first(self) -> None:
        """Stopped once the first boxes have had their share of the time: their bounds so far are kept, and the engine begins."""
        if self._share_used:
            raise Stopped

    def _ceiling(self) -> float:
        """A bound on all designs from the extremes of single blocks and joints."""
        lower, upper = self.parts.extremes
        return self._corner(lower, upper)

    def _total(self, coefficients: np.ndarray, constant: float) -> Total:
        """An affine function of the parts as a sum over blocks."""
        used = [(slope, p) for p, slope in enumerate(coefficients) if slope]
        terms = sum((slope * self.terms[p] for slope, p in used), np.zeros(self.form.columns))
        fixed = sum(slope * self.parts.fixed[p] for slope, p in used)
        size = sum(abs(slope) * self.parts.sizes[p] for slope, p in used)
        return self.form.total(terms, float(constant + fixed), float(abs(constant) + size))

    def _corner(self, lower: np.ndarray, upper: np.ndarray) -> float:
        """The objective at the corner of a box that its signs point to: a bound that needs no engine, exact on a point.

        −∞ where some composite budget is exceeded even at its own best corner.
        """
        out = _CORNER * self.parts.sizes
        low, high = lower - out, upper + out
        for composite, own, limit in self.formulas:
            with np.errstate(all="ignore"):
                least = float(composite.formula(np.where(np.array(composite.signs) > 0, low[own], high[own])))
            if least > limit + 1e-9 * abs(limit):
                return -np.inf
        own = self.objective_parts
        if self.composite is None:
            return float(upper[0] + rounding_of(self.parts, self.parts.sizes)[0])
        with np.errstate(all="ignore"):
            value = float(self.composite.formula(np.where(np.array(self.composite.signs) > 0, high[own], low[own])))
        return value + 1e-9 * abs(value) if np.isfinite(value) else np.inf

    def _explore(self, box: _Box) -> list[_Box]:
        """Solve the program of a box; the boxes that remain to be explored in its place."""
        total = self._objective(box)
        program, factor = self.form.program(total, self._rows(box, total))
        claimed = box.bound <= self.threshold
        end = self.engine(program, self.run.seconds_left, claimed or box.careful)
        self.programs += 1
        bound = np.inf if end.bound is None else end.bound / factor + total.constant + total.margin
        design = None if end.point is None else self.form.decode(end.point)
        if design is not None:
            self.run.evaluations += 1
            if (halves := self._exceeding(box, design)) is not None:
                bound = box.bound if claimed else min(box.bound, bound)
                return [replace(half, bound=min(half.bound, bound)) for half in halves]
            if broken_budgets(self.problem, design):
                # Within the engine's tolerance only: rule this one design out and solve the box again.
                self.ruled_out.append(self.form.other_than(design))
                return [box if claimed else replace(box, bound=min(box.bound, bound))]
            self._offer(design)
        if not end.finished:
            self.gave_up = not self.run.stopped
            return [box if claimed else replace(box, bound=min(box.bound, bound))]
        if end.bound == -np.inf:
            # Infeasible: no design of the box exceeds the cutoff.
            bound = self.cutoff
        if bound <= self.threshold:
            if not (claimed or box.careful):
                # To be confirmed, after the boxes that are still open.
                return [replace(box, bound=min(box.bound, bound), proven=min(box.proven, self._own_bound(box, total)))]
            # Of the two claims the weaker; the careful one alone where the other was refuted.
            self.closed = max(self.closed, min(max(box.bound, bound) if claimed else bound, box.proven))
            return []
        if claimed:
            self.contradictions += 1
            box = replace(box, bound=min(box.proven, bound), careful=True)
        box = replace(box, bound=min(box.bound, bound))
        if design is None:
            self.gave_up = True
            return [box]
        value = float(total.coefficients @ self.form.point(design)) + total.constant
        if value <= self.threshold:
            # What exceeds the threshold is the margin: the design is scored, so rule it out and solve again.
            if self.cutoff - total.margin > self.best:
                self.ruled_out.append(self.form.other_than(design))
                return [box]
            # Unless the margin is so large that one could go on like this through all designs near the best.
            return self._unresolved(box)
        return self._split(box, design)

    def _own_bound(self, box: _Box, total: Total) -> float:
        """A bound on a box without an engine's word, +∞ where it would take too long.

        Multipliers μ ≥ 0 of the box's ends and λ ≥ 0 of the budgets are read off the linear relaxation; any are valid. μ goes into
        the overestimator g as g + μ·(upper − part) (or part − lower); the budgets weighted by λ become one, and over its designs
        g is maximized exactly, but for the rounding of the costs, by `ResourceBound`.
        """
        table, rows, costs, limits = self.table, self.rows_of_parts, self.costs, self.limits
        menus = self.problem.space.menus
        work = len(self.terms[0]) * sum(menu.all_depths[-1] for menu in menus) * (1 if box.layers else len(self.depths))
        steps = min(_WORK // work, _STEPS)
        if steps < _FEW:
            return np.inf
        coefficients, constant = self._affine(box)
        ends = self._ends(box)
        program, factor = self.form.program(total, ends)
        price = prices(program) / factor
        count = len(self.form.rows)
        for p, end in enumerate(ends[:-1] if box.layers is not None else ()):
            slope = price[count + p] * end.scale
            coefficients[p] -= slope
            constant += slope * (box.upper[p] if slope > 0 else box.lower[p])
        of_row = {id(row): float(price[number] * row.scale) for number, row in enumerate(self.form.rows)}
        direction = np.array([of_row.get(id(self.form.budgets.get(number)), 0.0) for number in self.sums])
        direction = direction / direction.max(initial=0.0) if direction.any() else direction
        most = -np.inf
        for depth in self.depths if box.layers is None else [box.layers]:
            cells = Cells.of_sums(np.array([depth]), coefficients[None], np.array([constant]), rows, costs, limits)
            try:
                bound = ResourceBound(table, self.form.allowed, cells, direction, steps, self.run.poll)
            except Stopped:
                return np.inf
            most = max(most, float(bound.root[0]))
        return most + self._total(coefficients, constant).error

    def _unresolved(self, box: _Box) -> list[_Box]:
        """Closes a box by its bound, though that exceeds the threshold."""
        self.closed = max(self.closed, box.bound)
        return []

    def _objective(self, box: _Box) -> Total:
        """The overestimator of a box, or the separable objective."""
        return self._total(*self._affine(box))

    def _affine(self, box: _Box) -> tuple[np.ndarray, float]:
        """Coefficients of the parts and constant of the overestimator of a box, or the separable objective as such."""
        if not self.boxed:
            return np.ones(1), 0.0
        coefficients, constant = self._overestimators(box.lower, box.upper, box.near)
        return coefficients.copy(), float(constant)

    def _rows(self, box: _Box, objective: Total) -> list[LinearRow]:
        """Restrict the designs to a box and to those not ruled out, and ask for more than the cutoff."""
        rows = [*self._ends(box), *self.ruled_out, *self._relaxed(box)]
        if np.isfinite(self.cutoff):
            rows.append(self.form.scaled(objective, self.cutoff - objective.margin, np.inf))
        return rows

    def _relaxed(self, box: _Box) -> list[LinearRow]:
        """The composite budgets, relaxed to what holds in a box."""
        rows = []
        for composite, own, limit in self.formulas:
            slopes, constant = underestimate(composite, box.lower[own], box.upper[own], box.near[own])
            if np.isfinite(slopes).all() and np.isfinite(constant):
                coefficients = np.zeros(len(box.lower))
                coefficients[own] = slopes
                rows.append(self.form.scaled(self._total(coefficients, float(constant)), -np.inf, limit))
        return rows

    def _exceeding(self, box: _Box, design: Architecture) -> list[_Box] | None:
        """The parts of a box, cut at a design that exceeds a composite budget by more than an engine's tolerance; else None."""
        here = np.array([part(design) for part in self.quantities])
        for composite, own, limit in self.formulas:
            value = float(composite.formula(here[own]))
            if value <= limit + 1e-6 * abs(limit):
                continue

            def relaxed(half: _Box, composite: Composite = composite, own: slice = own) -> float:
                slopes, constant = underestimate(composite, half.lower[own], half.upper[own], half.near[own])
                return -float(slopes @ here[own] + constant)

            return self._cut(box, here, relaxed) or None
        return None

    def _ends(self, box: _Box) -> list[LinearRow]:
        """The range of each part in a box, and last its depth; none for a box of any depth."""
        rows = []
        if box.layers is not None:
            for p, terms in enumerate(self.terms):
                total = self.form.total(terms, float(self.parts.fixed[p]), float(self.parts.sizes[p]))
                rows.append(self.form.scaled(total, box.lower[p], box.upper[p]))
            depths = np.concatenate([menu.layers for menu in self.problem.space.menus]).astype(float)
            layers = self.form.total(np.concatenate((depths, np.zeros(self.form.columns - len(depths)))), 0.0, 0.0)
            rows.append(LinearRow(np.arange(len(depths)), layers.coefficients[: len(depths)], *[box.layers - layers.constant] * 2))
        return rows

    def _split(self, box: _Box, design: Architecture) -> list[_Box]:
        """Two parts of a box, cut at `design` along the part that brings the overestimators down most there; none of a point.

        The design lies on the border of both, where an overestimator can be exact.
        """
        if self.composite is None:
            return self._unresolved(box)

        def overestimated(half: _Box) -> float:
            coefficients, constant = self._overestimators(half.lower, half.upper, half.near)
            return float(coefficients @ here + constant)

        here = np.array([part(design) for part in self.quantities])
        return self._cut(box, here, overestimated) or self._unresolved(box)

    def _cut(self, box: _Box, here: np.ndarray, value_in: Callable[[_Box], float]) -> list[_Box]:
        """Two parts of a box, cut along the part that brings a value at a point of it down most; none of a point."""
        best: tuple[float, list[_Box]] = (np.inf, [])
        for p, whole in enumerate(self.whole):
            low, high = box.lower[p], box.upper[p]
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
                corner = self._corner(lower, upper)
                near = np.clip(here, lower, upper)
                bounds = min(box.proven, corner), min(box.bound, corner)
                halves.append(_Box(box.layers, lower, upper, near, *bounds, box.careful))
            values = []
            for half in halves:
                if np.all((half.lower - step <= here) & (here <= half.upper + step)):
                    values.append(value_in(half))
            if values and max(values) < best[0]:
                best = (max(values), halves)
        return best[1]
