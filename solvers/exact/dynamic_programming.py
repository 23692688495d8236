"""Exact search by dynamic programming bounds and label setting, for the structure that `Separable` and `Composite` reveal.

A design is a path through the layered DAG. The search is split by total depth L; in each of these cells the objective, if a
composite, is replaced by an affine overestimator, valid in the box of the parts. What remains adds up over blocks, so
`solvers.exact.bounds` can tabulate the most that a partial design can still gain from (block, state, layers left, budget left).

1. Boxes are narrowed to what designs better than the incumbent can reach within the budgets, which brings the overestimator
   down; Lagrangian bounds close most cells. A beam search led by each new bound improves the incumbent.
2. Open cells get resource bounds, first coarse, then finer, in the end exact in the budget that binds. At each fineness labels
   (partial designs) grow block by block, the most promising first; those that cannot beat the incumbent by more than the
   gap are dropped, those with equal totals merged. A cell that needs too many labels waits for the next fineness.
3. The clock is looked at inside all of this. When time runs out the largest bound still open is a valid bound: that of the box of
   each depth before there is a better one.

`count_designs` is the same search with a fixed threshold in place of the incumbent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, Separable
from formulation.architecture import positive_integer
from formulation.declarations import overestimate, underestimate
from formulation.derived import LAYERS, negative
from formulation.problem import Constraint
from formulation.table import Table, tabulate
from formulation.values import values_of_formula
from solvers.arrangements import SortedItems, can_sort, order_is_free, sorted_design
from solvers.base import Answer, Limits, Run, Solver, Stopped, broken_budgets
from solvers.evaluation import decode_best, objective_rounding, require_structure
from solvers.exact.bounds import Cells, LagrangianBound, ResourceBound, best_completions, depth_boxes, narrow_parts
from solvers.incumbent import quick_incumbent

_TABLES = 1 / 2
"""Share of the memory that resource bounds take at a time; boxes are taken in batches that fit, else fewer steps."""
_COMPLETIONS = 1 / 32
"""Share of it for the Lagrangian completions that lead a beam search: the boxes of largest bound that fit."""
_OPEN_LABELS = 1 / 8
"""Share of it for labels that wait to be extended: fewer are extended at a time where it runs short."""
_MADE_LABELS = 1 / 32
"""Share of it for labels that are made at a time; what is computed of them takes some times as much."""
_SLOW = 1 << 17
"""States of the cells' tables from which on the first bounds take so long that an incumbent is sought before them."""
_MANY = 1 << 12
"""The same of the menus' items, times the budgets squared, which is what the search for multipliers takes."""
_EXTENSIONS = 1 << 21
"""Labels made before the best of them are extended further: the most promising labels come first, as many as give that number."""
_PIECE = 1 << 16
"""Labels made at a time, between two looks at the clock."""
_LEVELS = ((1 << 9, 1 << 16), (1 << 12, 1 << 20))
"""Fineness levels: steps that the resource is cut into, and labels that a batch of cells may take before the next level."""
_WORTHWHILE = 0.8
"""A further round is worth its time where the last one left less than this share of the bounds' excess."""
_EQUAL = 1e-9
"""Relative difference of objectives that `count_designs` does not tell apart: what rounding may do to a bound."""
_TOTALS_APART = 2.0**44
"""Totals are equal where they agree in so many parts of what they end as: closer than what Budget puts down to rounding."""

Bound = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class DynamicProgramming:
    """Exact for separable and composite quantities, sums and maxima, any number of budgets.

    Attributes:
        warm_start: a heuristic to run first for its incumbent, such as EvolutionaryAlgorithm(iterations=2000); None: the beam
            searches inside are enough.
        beam: partial designs that a beam search keeps per block.
        steps: most steps that the resource is cut into: more give tighter bounds and larger tables.
        rounds: most rounds of renewing Lagrangian bounds and narrowing boxes at a time; 1 narrows none.
        merging: whether labels with equal totals are merged.
    """

    warm_start: Solver | None = None
    beam: int = 128
    steps: int = 1 << 15
    rounds: int = 4
    merging: bool = True

    distributions = ()

    def __post_init__(self) -> None:
        for name in ("beam", "steps", "rounds"):
            positive_integer(name, getattr(self, name))

    @property
    def name(self) -> str:
        """Name in tables: says what differs from the defaults."""
        plain = [field for field in fields(self) if field.name != "warm_start" and getattr(self, field.name) != field.default]
        options = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in plain)
        after = f" after {self.warm_start.name}" if self.warm_start else ""
        return "dynamic programming" + after + (f" ({options})" if options else "")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves its design optimal, or that none meets the budgets, unless a limit stops it."""
        require_structure(problem, "dynamic programming")
        start = run.limits.start
        if self.warm_start is not None:
            found = self.warm_start.search(problem, run).architecture
            if found is not None and not broken_budgets(problem, found):
                start = found if start is None else max(start, found, key=problem.objective)
        return _Search(problem, run, self, None if start is None else problem.space.encode(start)).answer()


@dataclass(frozen=True)
class Count:
    """How many designs meet the budgets with an objective as good as a threshold.

    Attributes:
        threshold: the objective is at least that, or at most if it is minimized.
        number: designs counted; values that differ by a relative 1e-9 or less are not distinguished.
        exact: whether the search ended: if not, `number` is a lower bound.
        seconds: wall-clock time.
        distinct: of these, those that differ in more than the order of equally wide neighbours; None if that was not counted.
        interrupted: whether Ctrl-C ended it.
    """

    threshold: float
    number: int
    exact: bool
    seconds: float
    distinct: int | None = None
    interrupted: bool = False


def count_designs(problem: DesignProblem, threshold: float, limits: Limits | None = None) -> Count:
    """Count the feasible designs whose objective is at least `threshold`, or at most where it is minimized, without listing them.

    Labels with equal totals are merged and their number kept, so that designs which differ in the order of equal blocks cost one
    label. Those that differ in more are counted by a second search, of sorted designs alone. Raises NotSeparable for black boxes.
    """
    require_structure(problem, "count_designs")
    run = Run(limits or Limits())

    def counted(in_order: bool) -> tuple[int, bool]:
        try:
            floor = -threshold if problem.least else threshold
            with run.within_memory():
                search = _Search(problem.maximizing, run, DynamicProgramming(), floor=floor, in_order=in_order)
        except Stopped:
            return 0, False
        search.answer()
        return search.counted, search.ended

    with run.listening():
        number, exact = counted(False)
        distinct, settled = (number, exact) if not order_is_free(problem) else counted(True) if can_sort(problem) else (0, False)
    return Count(threshold, number, exact, run.seconds, distinct if exact and settled else None, run.interrupted)


@dataclass(frozen=True, repr=False)
class SortedDesigns:
    """Dynamic programming over the designs that have equally wide neighbouring blocks in ascending order.

    Its claims are about those of these that it may return, so it is for problems in which the sorted order of every design that is
    sought meets the budgets and is in the space: see `can_sort`.

    Attributes:
        options: of the search; labels are not merged, since what is said of one design need not hold for another of its costs.
        accept: whether a design may be returned.
    """

    options: DynamicProgramming
    accept: Callable[[Architecture], bool]

    distributions = ()

    def __repr__(self) -> str:
        return repr(self.options)

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.options.name

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`."""
        require_structure(problem, self.name)
        return _Search(problem, run, replace(self.options, merging=False), in_order=True, accept=self.accept).answer()


class _Rows:
    """Which rows of the one table hold what: layers, objective parts, summed costs, maxima, parts of composite budgets."""

    def __init__(self, problem: DesignProblem) -> None:
        objective = problem.goal
        self.composite = objective if isinstance(objective, Composite) else None
        quantities: list[Separable] = [LAYERS]
        sums: list[Constraint] = []
        maxima: list[Constraint] = []
        composites: list[tuple[Constraint, Composite]] = []
        for budget in problem.constraints:
            if isinstance(budget.quantity, Composite):
                composites.append((budget, budget.quantity))
            else:
                assert isinstance(budget.quantity, Separable)
                (sums if budget.quantity.combine is Combine.SUM else maxima).append(budget)

        def place(new: tuple[object, ...]) -> slice:
            quantities.extend(new)  # type: ignore[arg-type]
            return slice(len(quantities) - len(new), len(quantities))

        self.objective_parts = place(self.composite.parts if self.composite else (objective,))
        self.formulas = [(composite, place(composite.parts), budget.limit) for budget, composite in composites]
        self.parts = slice(self.objective_parts.start, len(quantities))
        # Composite budgets with an underestimator of their own; the others are read at the corners of boxes and at whole designs.
        self.relaxed = [each for each in self.formulas if type(each[0]).underestimator is not Composite.underestimator]
        # Parts of composites that grow with all of them are costs of their own, with the limits that the others leave: `imply`.
        rising = [composite.parts for _, composite in composites if min(composite.signs) > 0]
        of = {combine: tuple(part for parts in rising for part in parts if part.combine is combine) for combine in Combine}
        self.costs = place(tuple(budget.quantity for budget in sums) + of[Combine.SUM])
        # Where composite budgets go with an objective that is a sum, what a better design needs of it is one more cost.
        self.sum_sought = bool(self.relaxed) and isinstance(objective, Separable) and objective.combine is Combine.SUM
        self.all_costs = slice(self.costs.start, place((negative(objective),) if self.sum_sought else ()).stop)
        self.maxima = place(tuple(budget.quantity for budget in maxima) + of[Combine.MAX])
        self.cost_limits = np.array([budget.limit for budget in sums] + [np.inf] * len(of[Combine.SUM]))
        self.max_limits = np.array([budget.limit for budget in maxima] + [np.inf] * len(of[Combine.MAX]))
        self.rising = []
        costs, peaks = self.costs.start + len(sums), self.maxima.start + len(maxima)
        for budget, composite in composites:
            if min(composite.signs) > 0:
                rows = []
                for part in composite.parts:
                    is_sum = part.combine is Combine.SUM
                    rows.append(costs if is_sum else peaks)
                    costs, peaks = costs + is_sum, peaks + (not is_sum)
                self.rising.append((composite.formula, rows, budget.limit))
        self.quantities = quantities

    def imply(self, table: Table) -> None:
        """Limits of each part of a rising composite: what its budget leaves when all others are as small as they may be."""
        for formula, rows, limit in self.rising:
            lower, upper = (extreme[rows] for extreme in table.extremes)
            for p, row in enumerate(rows):
                least, most = lower[p], upper[p]
                for _ in range(60 if formula([*lower[:p], most, *lower[p + 1 :]]) > limit else 0):
                    middle = (least + most) / 2
                    if formula([*lower[:p], middle, *lower[p + 1 :]]) > limit:
                        most = middle
                    else:
                        least = middle
                limits, first = (self.max_limits, self.maxima) if table.is_max[row] else (self.cost_limits, self.costs)
                limits[row - first.start] = most + _EQUAL * abs(most)  # sums of other orders may differ in their last digits

    def objective(self, totals: np.ndarray, design: Callable[[int], Architecture], among: np.ndarray) -> np.ndarray:
        """Objective of complete designs from their totals (Q, n), finite `among` those in question; `design` names them."""
        parts = totals[self.objective_parts]
        return values_of_formula(self.composite, parts, design, among) if self.composite else parts[0]

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, is_max: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (cells, P) and constants (cells,) that bound the objective on boxes (cells, P) of the parts."""
        own = self._own(self.objective_parts)
        coefficients, constants = np.zeros(lower.shape), np.zeros(len(lower))
        if self.composite:
            coefficients[:, own], constants = overestimate(self.composite, lower[:, own], upper[:, own])
        else:
            coefficients[:, own] = 1.0
        # A maximum does not add up over blocks: bound what it contributes once and for all.
        most = np.maximum(coefficients * lower, coefficients * upper)
        return np.where(is_max, 0.0, coefficients), constants + np.where(is_max, most, 0.0).sum(axis=1)

    def relaxations(self, lower: np.ndarray, upper: np.ndarray, is_max: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slopes (cells, J, P) and rooms (cells, J) of the composite budgets on boxes (cells, P) of the parts, see `Cells`."""
        slopes, rooms = np.zeros((len(lower), len(self.relaxed), lower.shape[1])), np.zeros((len(lower), len(self.relaxed)))
        for j, (composite, rows, limit) in enumerate(self.relaxed):
            own = self._own(rows)
            slopes[:, j, own], constants = underestimate(composite, lower[:, own], upper[:, own])
            least = np.minimum(slopes[:, j] * lower, slopes[:, j] * upper)
            rooms[:, j] = limit - constants - np.where(is_max, least, 0.0).sum(axis=1)
            slopes[:, j] = np.where(is_max, 0.0, slopes[:, j])
        # What is not finite relaxes to nothing at all.
        usable = np.isfinite(slopes).all(axis=2) & np.isfinite(rooms)
        return np.where(usable[:, :, None], slopes, 0.0), np.where(usable, rooms, 0.0)

    def possible(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Bool (cells,): boxes (cells, P) of the parts that the best corner of every composite budget leaves open."""
        open_ = np.ones(len(lower), dtype=bool)
        for composite, rows, limit in self.formulas:
            own = self._own(rows)
            corner = np.where(np.array(composite.signs) > 0, lower[:, own], upper[:, own])
            values = values_of_formula(composite, corner.T, lambda n: n, np.zeros(len(lower), dtype=bool))
            open_ &= ~(values > limit + _EQUAL * abs(limit))  # what is not a number closes nothing
        return open_

    def _own(self, rows: slice) -> slice:
        """Rows of the table as columns of the parts."""
        return slice(rows.start - self.parts.start, rows.stop - self.parts.start)


@dataclass(frozen=True, eq=False)
class _Labels:
    """Partial designs with the same number of blocks, best bound first.

    Attributes:
        cell: (n,): their cell, state of the last block, layers so far, upper bound.
        state: (n,): their cell, state of the last block, layers so far, upper bound.
        layers: (n,): their cell, state of the last block, layers so far, upper bound.
        bounds: (n,): their cell, state of the last block, layers so far, upper bound.
        chosen: (n, blocks): menu items.
        totals: (Q, n): table rows added up.
        ways: (n,): designs that the label stands for.
    """

    cell: np.ndarray
    chosen: np.ndarray
    state: np.ndarray
    layers: np.ndarray
    totals: np.ndarray
    bounds: np.ndarray
    ways: np.ndarray

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def pick(self, which: np.ndarray | slice) -> _Labels:
        return _Labels(
            self.cell[which],
            self.chosen[which],
            self.state[which],
            self.layers[which],
            self.totals[:, which],
            self.bounds[which],
            self.ways[which],
        )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Cells of the search as data that tightens, largest bound first.

    Attributes:
        layers: (C,) total depth.
        lower: (C, P) what the parts of the objective may be.
        upper: (C, P) what the parts of the objective may be.
        bounds: (C,) proven bound on the objective.
        multipliers: (C, K) of the budgets in the cell's Lagrangian bound, NaN before there is one.
    """

    layers: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    bounds: np.ndarray
    multipliers: np.ndarray

    def __len__(self) -> int:
        return len(self.layers)

    def pick(self, which: np.ndarray | slice) -> _Boxes:
        return _Boxes(*(getattr(self, field.name)[which] for field in fields(self)))

    def bounded(self, bounds: np.ndarray | float) -> _Boxes:
        """The same boxes with further bounds, best first."""
        least = np.minimum(self.bounds, bounds)
        return replace(self, bounds=least).pick(np.argsort(-least, kind="stable"))


def _all_labels(labels: Sequence[_Labels]) -> _Labels:
    """All labels in one, in their order."""
    if len(labels) == 1:
        return labels[0]
    return _Labels(
        *(
            np.concatenate([getattr(each, field.name) for each in labels], axis=-1 if field.name == "totals" else 0)
            for field in fields(_Labels)
        )
    )


def _joined(boxes: Sequence[_Boxes]) -> _Boxes:
    """All boxes in one."""
    return _Boxes(*(np.concatenate([getattr(each, field.name) for each in boxes]) for field in fields(_Boxes)))


class _Search:
    """State of one search for the best design or, where `floor` is given, for all designs of at least that objective."""

    def __init__(
        self,
        problem: DesignProblem,
        run: Run,
        options: DynamicProgramming,
        start: tuple[int, ...] | None = None,
        floor: float | None = None,
        in_order: bool = False,
        accept: Callable[[Architecture], bool] = lambda design: True,
    ) -> None:
        self.problem, self.run, self.space, self.options, self.floor = problem, run, problem.space, options, floor
        self.rows = _Rows(problem)
        self.table = tabulate(self.rows.quantities, problem.space, run.poll)
        self.rows.imply(self.table)
        self.sorted, self.accept = SortedItems(self.space) if in_order else None, accept
        # A term over the budget of a maximum rules its item out by itself.
        limits = self.rows.max_limits[:, None]
        self.allowed = [np.all(block[self.rows.maxima] <= limits, axis=0) for block in self.table.blocks]
        # Bounds allow for what other orders of summation may save; complete designs in between are evaluated one by one.
        self.limits = self.rows.cost_limits.copy()
        self.margins = self.table.rounding(self.rows.costs, self.limits)
        with np.errstate(over="ignore"):
            self.rows.cost_limits = np.minimum(self.limits + self.margins, np.finfo(float).max)
        self.best: float = -np.inf
        self.choices = start
        self.labels = self.counted = 0
        self.ended = False
        # Python's integers where 64 bits may not hold a count of designs; without counting an overflow does no harm.
        self.count_type = object if floor is not None and problem.space.size >= 2**63 else np.int64
        self.least_costs: list[list[np.ndarray]] = []
        self.dropped: float = -np.inf
        # What is open still; None before there are boxes.
        self.open: _Boxes | None = None
        self.rounding, self.apart = 0.0, np.zeros(len(self.table.fixed))
        self.item_type = np.min_scalar_type(max(map(len, self.space.menus)))
        label = 8 * (len(self.table.fixed) + 5) + self.item_type.itemsize * self.space.blocks
        memory = run.limits.memory
        self.piece = max(min(_PIECE, int(memory * min(_MADE_LABELS, _OPEN_LABELS / self.space.blocks) / label)), 1)
        if start is not None:
            self.best = problem.objective(problem.space.decode(start))
            run.record(self.best)
        if floor is None and run.cutoff > self.best:
            self.best, self.choices = run.cutoff, None

    @property
    def least_counted(self) -> float:
        """The floor with room for rounding."""
        assert self.floor is not None
        return self.floor - max(_EQUAL * abs(self.floor), self.rounding)

    @property
    def at_least(self) -> float:
        """Objective of the designs that are sought: the floor, or what the incumbent has; −∞ where neither is there."""
        return self.best if self.floor is None else self.least_counted

    @property
    def threshold(self) -> float:
        """Bound that a label or box must exceed to be worth keeping."""
        if self.floor is not None:
            return float(np.nextafter(self.least_counted, -np.inf))
        return self.best + self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    def answer(self) -> Answer:
        bound = self._ceiling()
        with suppress(Stopped), self.run.within_memory():
            if self.floor is None:
                self.run.record(self.best if np.isfinite(self.best) else None, bound)
            self.open = self._boxes()
        if self.open is not None:
            with suppress(Stopped), self.run.within_memory():
                self._begin(self.open)
                self._search_boxes()
            bound = max(self.dropped, self.best, self.open.bounds.max(initial=-np.inf))
        architecture = decode_best(self.problem, self.choices)
        message = f"{self.labels:,} labels"
        if self.ended and bound == -np.inf:
            return Answer(None, infeasible=True, message=f"no design meets the budgets; {message}")
        if np.isfinite(self.best) and self.floor is None:
            bound = max(bound, self.best + self._rounding_of_best())
        self.run.record(self.best if architecture else None, bound)
        return Answer(architecture, bound, message=message if self.ended else f"{self.run.why_stopped} after {message}")

    def _begin(self, boxes: _Boxes) -> None:
        """Seek an incumbent where the first bounds take long: before them the boxes have nothing to beat."""
        states = sum(map(len, self.space.state_widths))
        items = sum(map(len, self.space.menus))
        slow = bool(self.rows.relaxed) or items * self.multiplied**2 >= _MANY
        slow |= len(boxes) * states * int(boxes.layers.max(initial=0)) >= _SLOW
        if self.floor is not None or not slow:
            return
        found = quick_incumbent(self.problem, self.run)
        if found is not None and self.sorted is not None:
            found = sorted_design(found)
            found = None if broken_budgets(self.problem, found) or not self.accept(found) else found
        if found is not None and (value := self.problem.objective(found)) > self.best:
            self.best, self.choices = value, self.space.encode(found)
        self._report(boxes)

    def _rounding_of_best(self) -> float:
        """By how much the objective of designs as good as the incumbent depends on how it is added up."""
        rows, totals = self.rows.objective_parts, self.table.extremes[1]
        if self.choices is not None:
            totals = self.table.evaluate(np.array([self.choices]))[:, 0]
        assert isinstance(self.problem.goal, Separable | Composite)
        return objective_rounding(self.problem.goal, self.table, rows, totals[rows])

    def _ceiling(self) -> float:
        """A bound on all designs from the extremes of single blocks and joints."""
        lower, upper = (extreme[None, self.rows.parts] for extreme in self.table.extremes)
        layers, none = np.zeros(1, dtype=np.intp), np.full((1, self.multiplied), np.nan)
        boxes = _Boxes(layers, lower, upper, np.full(1, np.inf), none)
        return float(self._cells(boxes).ceiling(lower, upper, self.table)[0])

    def _boxes(self) -> _Boxes:
        """One box per total depth that the budgets, each alone, leave open."""
        rows, table, poll = self.rows, self.table, self.run.poll
        most_layers = sum(menu.all_depths[-1] for menu in self.space.menus)
        one = np.ones((1, 1))

        costs = list(range(rows.costs.start, rows.costs.stop))
        self.least_costs = [best_completions(table, self.allowed, most_layers, -one, slice(row, row + 1), poll) for row in costs]
        alive = np.ones(most_layers + 1, dtype=bool)
        for least, row, limit in zip(self.least_costs, costs, rows.cost_limits, strict=True):
            alive &= table.fixed[row] - least[0][0, 0] <= limit
        for row, limit in zip(range(rows.maxima.start, rows.maxima.stop), rows.max_limits, strict=True):
            alive &= table.fixed[row] <= limit
        layers, lower, upper = depth_boxes(table, self.allowed, 0, rows.parts, poll)
        unknown = np.full((len(layers), self.multiplied), np.nan)
        boxes = _Boxes(layers, lower, upper, np.full(len(layers), np.inf), unknown).pick(
            alive[layers] & rows.possible(lower, upper)
        )
        for number in range(len(rows.relaxed)):
            boxes = self._meeting(boxes, number, self.options.rounds)
        self.apart, cells = self._differences(boxes), self._cells(boxes)
        self.rounding = float(cells.rounding(table).max(initial=0.0))
        return boxes.bounded(cells.ceiling(boxes.lower, boxes.upper, table))

    def _cells(self, boxes: _Boxes) -> Cells:
        """The boxes with their affine overestimators."""
        rows = self.rows
        coefficients, constants = rows.overestimator(boxes.lower, boxes.upper, self.table.is_max[rows.parts])
        slopes, rooms = rows.relaxations(boxes.lower, boxes.upper, self.table.is_max[rows.parts])
        return Cells(boxes.layers, coefficients, constants, rows.parts, rows.costs, rows.cost_limits, slopes, rooms)

    @property
    def multiplied(self) -> int:
        """Number of budgets that have a multiplier in a Lagrangian bound: sums and composites."""
        return len(self.limits) + len(self.rows.relaxed)

    def _slack(self, cells: Cells, number: int) -> Cells:
        """The cells with the slack of a composite budget as their objective, over designs that are as good as sought."""
        limits = self.rows.cost_limits
        if self.rows.sum_sought:
            limits = np.append(limits, self._most_of_negative)
        return cells.slack(number, self.rows.all_costs, limits)

    @property
    def _sought(self) -> float:
        """Objective asked of designs while a composite budget is bounded: half the gap above the incumbent, or the floor."""
        if self.floor is not None or not np.isfinite(self.best):
            return self.threshold
        return self.best + 0.5 * self.run.limits.gap * abs(self.best)

    @property
    def _most_of_negative(self) -> float:
        """The most that the negated objective of a design that is sought can be, with room for rounding."""
        row = slice(self.rows.all_costs.stop - 1, self.rows.all_costs.stop)
        limit = -self._sought
        return limit + float(self.table.rounding(row, np.array([limit]))[0]) if np.isfinite(limit) else np.finfo(float).max

    def _meeting(self, boxes: _Boxes, number: int, rounds: int) -> _Boxes:
        """The boxes in which designs may meet a composite budget together with the sums, narrowed to those designs."""
        near = None
        for _ in range(rounds):
            if not len(boxes) or self.run.stopped:
                break
            slack = self._slack(self._cells(boxes), number)
            self._drop_sought()
            bound = LagrangianBound(self.table, self.allowed, slack, near, self.run.poll, np.nextafter(0.0, -1.0))
            narrowed = narrow_parts(
                self.table, self.allowed, slack, bound.best_multipliers, 0.0, boxes.lower, boxes.upper, self.run.poll
            )
            open_ = (bound.root >= 0) & np.all(narrowed[0] <= narrowed[1], axis=1) & self.rows.possible(*narrowed)
            before, shrunk = len(boxes), bool((narrowed[1] - narrowed[0] < _WORTHWHILE * (boxes.upper - boxes.lower)).any())
            boxes = replace(boxes, lower=narrowed[0], upper=narrowed[1]).pick(open_)
            near = bound.best_multipliers[open_]
            if not shrunk and len(boxes) == before:
                break
        return boxes

    def _search_boxes(self) -> None:
        """Closes the open boxes, coarse to fine; at any time they and `dropped` bound the designs that were not seen."""
        assert self.open is not None
        levels = [level for level in _LEVELS if level[0] < self.options.steps]
        for steps, labels in (*levels, (self.options.steps, np.inf)):
            self.open = boxes = self._tighten(self.open)
            later: list[_Boxes] = []
            while len(boxes) and not self.run.stopped:
                size, fitting = self._batch(boxes, steps)
                later.append(self._search_batch(boxes.pick(slice(size)), fitting, labels))
                boxes = self._alive(boxes.pick(slice(size, None)))
                self.open = _joined((boxes, *later))
                self._report(self.open)
            self.open = self._alive(self.open.bounded(np.inf))
            self.ended = not len(self.open)
            if self.run.stopped or self.ended:
                break

    def _tighten(self, boxes: _Boxes) -> _Boxes:
        """Lagrangian bounds and narrower boxes in turns, as long as that brings the bounds down."""
        excess = np.inf
        for number in range(self.options.rounds):
            if self.rows.sum_sought and np.isfinite(self.threshold):
                for which in range(len(self.rows.relaxed)):
                    boxes = self._meeting(boxes, which, 1)
            if not len(boxes):
                break
            near = None if np.isnan(boxes.multipliers).any() else boxes.multipliers
            bound = LagrangianBound(self.table, self.allowed, self._cells(boxes), near, self.run.poll, self.at_least)
            if not number:
                self._beam_search(bound)
            boxes = self._alive(replace(boxes, multipliers=bound.best_multipliers).bounded(bound.root))
            last, excess = excess, float((boxes.bounds - self.at_least).sum())
            self._report(boxes)
            narrow = (
                (self.rows.composite is not None or bool(self.rows.relaxed))
                and number + 1 < self.options.rounds
                and excess < _WORTHWHILE * last
            )
            if not narrow or not len(boxes) or self.run.stopped:
                break
            lower, upper = narrow_parts(
                self.table,
                self.allowed,
                self._cells(boxes),
                boxes.multipliers,
                self.at_least,
                boxes.lower,
                boxes.upper,
                self.run.poll,
            )
            open_ = np.all(lower <= upper, axis=1) & self.rows.possible(lower, upper)
            boxes = replace(boxes, lower=lower, upper=upper).pick(open_)
        return boxes

    def _beam_search(self, bound: LagrangianBound) -> None:
        """A beam search in the cells of largest bound, as many as have room for the completions that lead it."""
        most = max(int(_COMPLETIONS * self.run.limits.memory / bound.bytes_per_cell()), 1)
        cells = np.sort(np.argsort(-bound.root, kind="stable")[:most])
        cells = cells[bound.root[cells] > self.threshold]
        if len(cells) and self.floor is None:
            few = bound.restricted(cells)
            self._beam(few.cells, few)

    def _batch(self, boxes: _Boxes, steps: int) -> tuple[int, int]:
        """How many boxes share one table of resource bounds, and its steps: what fits the memory.

        It is one box where budgets are weighed up against each other, since the weights differ from box to box.
        """
        depths = np.array([(menu.all_depths[0], menu.all_depths[-1]) for menu in self.space.menus])
        layers = np.minimum((depths[:, 1] - depths[:, 0])[::-1].cumsum(), boxes.layers.max()) + 1
        states = layers * [len(widths) for widths in self.space.state_widths[::-1]]
        # Each composite budget has a table of its own, and a block's is made from another two.
        bytes_ = 8 * int(states.sum() + 2 * states.max()) * (1 + len(self.rows.relaxed))
        memory = int(_TABLES * self.run.limits.memory)
        steps = max(min(steps, memory // bytes_ - 1), 1)
        alone = self.rows.all_costs.stop - self.rows.all_costs.start > 1
        return (1 if alone else max(memory // (bytes_ * (steps + 1)), 1)), steps

    def _search_batch(self, boxes: _Boxes, steps: int, most: float) -> _Boxes:
        """Resource bounds and a label search of some boxes; those that remain after `most` labels, with their bounds."""
        whole = self._cells(boxes)
        cells, multipliers = whole.priced(boxes.multipliers)
        direction = multipliers[0]
        direction = direction / direction.max() if direction.any() else direction
        try:
            bound = ResourceBound(self.table, self.allowed, cells, direction, steps, self.run.poll)
            meets = [self._meets(self._slack(whole, number), steps) for number in range(len(self.rows.relaxed))]
        except Stopped:
            return boxes

        def of_labels(block: int, *labels: np.ndarray) -> np.ndarray:
            """The bound, −∞ for labels that cannot meet some composite budget, or have less than is sought."""
            bounds = bound(block, *labels)
            for meet in meets:
                if self.rows.sum_sought:
                    meet.cells.limits[-1] = self._most_of_negative
                    self._drop_sought()
                bounds = np.where(meet(block, *labels) < 0, -np.inf, bounds)
            return bounds

        self._drop(bound.root)
        self._beam(cells, of_labels)
        left = self._grow_labels(cells, of_labels, most)
        return self._alive(boxes.bounded(np.minimum(bound.root, left)))

    def _drop_sought(self) -> None:
        """Designs up to what is sought are left out from here on, those with the incumbent's objective and those within the gap."""
        if self.rows.sum_sought and self.floor is None and np.isfinite(self.best):
            self.dropped = max(self.dropped, self._sought)

    def _meets(self, slack: Cells, steps: int) -> LagrangianBound | ResourceBound:
        """A bound on the slack of a composite budget in some boxes: by resources where there are any."""
        bound = LagrangianBound(self.table, self.allowed, slack, None, self.run.poll)
        direction = bound.best_multipliers[0]
        if not direction.any():
            return bound
        return ResourceBound(self.table, self.allowed, slack, direction / direction.max(), steps, self.run.poll)

    def _alive(self, boxes: _Boxes) -> _Boxes:
        """The boxes whose bounds exceed the threshold; the others are closed."""
        self._drop(boxes.bounds)
        return boxes.pick(boxes.bounds > self.threshold)

    def _report(self, boxes: _Boxes) -> None:
        """Record what is proved while `boxes` are open, and heed what was found elsewhere meanwhile."""
        if self.floor is None:
            self.best = max(self.best, self.run.cutoff)
            self.run.record(
                self.best if self.best > -np.inf else None, max(self.dropped, self.best, boxes.bounds.max(initial=-np.inf))
            )

    def _extend(self, labels: _Labels, cells: Cells, bound: Bound, room: float = np.inf) -> tuple[_Labels, int]:
        """Extensions of labels by one block that can beat the threshold, best first, and how many labels were extended.

        These are the first ones, as many as have extensions that fit `room` bytes, at least one.
        """
        done, found = 0, list[_Labels]()
        portion = max(self.piece // len(self.space.menus[labels.chosen.shape[1]]), 1)
        while not found or (done < len(labels) and room > 0):
            found.append(self._extended(labels.pick(slice(done, done + portion)), cells, bound))
            done += portion
            room -= found[-1].bytes
        return self._in_order(_all_labels(found)), done

    def _first(self, cells: Cells, bound: Bound) -> _Labels:
        """The labels of the first blocks that can beat the threshold, best first."""
        cell, items = np.divmod(np.arange(len(cells.layers) * len(self.space.menus[0])), len(self.space.menus[0]))
        ways = np.ones(len(items), dtype=self.count_type)
        return self._in_order(
            self._beating(cell, items[:, None].astype(self.item_type), items, self.table.start()[:, items], ways, cells, bound)
        )

    def _extended(self, labels: _Labels, cells: Cells, bound: Bound) -> _Labels:
        """All extensions of labels by one block that can beat the threshold."""
        block = labels.chosen.shape[1]
        parents, items, totals = self.table.extend(block, labels.state, labels.totals)
        chosen = np.column_stack((labels.chosen[parents], items.astype(self.item_type)))
        return self._beating(labels.cell[parents], chosen, items, totals, labels.ways[parents], cells, bound)

    def _beating(
        self,
        cell: np.ndarray,
        chosen: np.ndarray,
        items: np.ndarray,
        totals: np.ndarray,
        ways: np.ndarray,
        cells: Cells,
        bound: Bound,
    ) -> _Labels:
        """Of the partial designs that end with `items` those that can beat the threshold."""
        block = chosen.shape[1] - 1
        self.labels += len(items)
        self.run.poll()
        layers, state = totals[0].astype(np.intp), self.space.state_of[block][items]
        possible = self.allowed[block][items] & (layers <= cells.layers[cell])
        if self.sorted is not None and block:
            possible &= self.sorted.allow(block, chosen[:, -2], items)
        left = np.where(possible, cells.layers[cell] - layers, 0)
        for least, row, limit in zip(self.least_costs, totals[self.rows.costs], self.rows.cost_limits, strict=True):
            possible &= row - least[block + 1][0, state, left] <= limit
        for row, limit in zip(totals[self.rows.maxima], self.rows.max_limits, strict=True):
            possible &= row <= limit
        for formula, rows, limit in self.rows.rising:
            parts = [
                totals[row]
                if self.table.is_max[row]
                else totals[row] - self.least_costs[row - self.rows.costs.start][block + 1][0, state, left]
                for row in rows
            ]
            possible &= ~(np.asarray(formula(parts)) > limit + _EQUAL * abs(limit))  # what is not a number rules nothing out
        found = _Labels(cell, chosen, state, layers, totals, np.zeros(len(cell)), ways).pick(possible)
        self.run.poll()
        bounds = bound(block + 1, found.cell, found.state, found.layers, found.totals)
        self._drop(bounds)
        return replace(found, bounds=bounds).pick(bounds > self.threshold)

    def _in_order(self, labels: _Labels) -> _Labels:
        """Labels best first, those with equal totals merged where they are."""
        self.run.poll()
        labels = labels.pick(np.argsort(-labels.bounds, kind="stable"))
        self.run.poll()
        if not self.options.merging:
            return labels
        # What may follow depends on the last item where designs are sorted, else on its width alone.
        block = labels.chosen.shape[1] - 1
        last = labels.state if self.sorted is None else self.sorted.ranks[block][labels.chosen[:, -1]]
        return _merged(labels, self.apart, last)

    def _drop(self, bounds: np.ndarray) -> None:
        """Remember the largest bound among those dropped although they exceed the incumbent (by no more than the gap)."""
        within = bounds[(bounds <= self.threshold) & (bounds > self.best)]
        if len(within):
            self.dropped = max(self.dropped, float(within.max()))

    def _beam(self, cells: Cells, bound: Bound) -> None:
        """A beam search for a better incumbent: per block only the labels of largest bound survive. Proves nothing."""
        if self.floor is not None or self.run.stopped:
            return
        dropped = self.dropped
        with suppress(Stopped):
            labels = self._first(cells, bound)
            for _ in range(self.space.blocks - 1):
                labels, _ = self._extend(labels.pick(slice(0, self.options.beam)), cells, bound)
            self._take(labels, cells)
        self.dropped = dropped

    def _grow_labels(self, cells: Cells, bound: Bound, most: float) -> float:
        """The forward pass over some cells; returns the largest bound left open, −∞ when none is.

        Ends early when `most` labels have been made; designs are counted only where it ends otherwise.
        """
        stack, first, counted = list[_Labels](), self.labels, 0
        sizes = list[int]()  # bytes: what is left of some labels holds on to all of them
        room = _OPEN_LABELS * self.run.limits.memory
        try:
            stack.append(self._first(cells, bound))
        except Stopped:
            return np.inf
        sizes.append(stack[-1].bytes)
        while stack:
            labels = stack[-1]
            self._drop(labels.bounds)
            labels = labels.pick(slice(0, int(np.searchsorted(-labels.bounds, -self.threshold))))
            if not len(labels):
                stack.pop()
                sizes.pop()
                continue
            stack[-1] = labels
            if self.run.stopped or self.labels - first > most:
                self.counted += counted if self.run.stopped else 0
                return max(float(open_.bounds[0]) for open_ in stack if len(open_))
            try:
                if labels.chosen.shape[1] == self.space.blocks:
                    counted += self._take(labels, cells)
                    stack.pop()
                    sizes.pop()
                    continue
                block = labels.chosen.shape[1]
                portion = max(_EXTENSIONS // len(self.space.menus[block]), 16)
                share = min((room - sum(sizes)) / (self.space.blocks - block), _MADE_LABELS * self.run.limits.memory)
                extended, done = self._extend(labels.pick(slice(0, portion)), cells, bound, max(share, 1))
            except Stopped:
                continue  # the labels are on the stack still: the next look at the clock counts them among the open ones
            stack[-1] = labels.pick(slice(done, None))
            stack.append(extended)
            sizes.append(extended.bytes)
        self.counted += counted
        return -np.inf

    def _take(self, labels: _Labels, cells: Cells) -> int:
        """Score complete designs, which `_extend` has compared with summed and maximum budgets; how many reach the threshold."""
        kept, doubtful = labels.layers == cells.layers[labels.cell], np.zeros(len(labels), dtype=bool)

        def design(number: int) -> Architecture:
            return self.space.decode(labels.chosen[number])

        # A count goes by the table; an incumbent that is within a budget by less than rounding is evaluated first.
        counting = self.floor is not None
        loose = self.limits if counting else self.rows.cost_limits
        for used, limit, most, margin in zip(labels.totals[self.rows.costs], self.limits, loose, self.margins, strict=True):
            kept &= used <= most
            doubtful |= used > limit - margin
        for composite, rows, limit in self.rows.formulas:
            margin = _EQUAL * abs(limit)
            values = values_of_formula(composite, labels.totals[rows], design, kept)
            kept &= values <= limit + (0.0 if counting else margin)
            doubtful |= values > limit - margin
        self.run.evaluations += len(labels)
        if not kept.any():
            return 0
        values = np.where(kept, self.rows.objective(labels.totals, design, kept), -np.inf)
        if counting:
            return int(labels.ways[values >= self.least_counted].sum())
        while values[winner := int(values.argmax())] > self.best:
            self.run.poll()
            if (doubtful[winner] and broken_budgets(self.problem, design(winner))) or not self.accept(design(winner)):
                values[winner] = -np.inf
                continue
            self.best, self.choices = float(values[winner]), tuple(map(int, labels.chosen[winner]))
            self.run.record(self.best)
        return 0

    def _differences(self, boxes: _Boxes) -> np.ndarray:
        """(Q,) differences below which totals count as equal: relative to what they end as, so that terms that cancel stay apart.

        A budget's total matters as compared with its limit; any other ends within its range, so is at least as large as the nearer
        end. 0, for no difference at all, where the range holds 0, and for maxima, which are equal where one term is.
        """
        rows, sizes = self.rows, np.zeros(len(self.table.fixed))

        def nearer(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
            return np.where(lower * upper > 0, np.minimum(np.abs(lower), np.abs(upper)), 0.0)

        sizes[rows.costs] = np.where(np.isfinite(self.limits), np.abs(self.limits), 0.0)
        if len(boxes):
            sizes[rows.parts] = nearer(boxes.lower, boxes.upper).min(axis=0)
        for _, own, _ in rows.formulas:
            sizes[own] = nearer(*(extreme[own] for extreme in self.table.extremes))
        return np.where(self.table.is_max, 0.0, sizes / _TOTALS_APART)


def _merged(labels: _Labels, apart: np.ndarray, last: np.ndarray) -> _Labels:
    """Labels with equal cell, last block, layers and totals merged: the same completions fit them all, so one stands for its kind.

    Args:
        apart: (Q,) totals are equal where they differ by less.
        last: (n,) last blocks are equal where this is.
    """
    if len(labels) < 2:
        return labels
    steps = labels.totals.copy()
    # Beyond 2⁵² steps of a row every number is its own step.
    stepped = (apart > 0) & (np.abs(steps).max(axis=1) / 2.0**52 < apart)
    steps[stepped] = np.rint(steps[stepped] / apart[stepped, None])
    steps += 0.0  # −0 and 0 are one number of two kinds
    keys = np.concatenate((np.stack((labels.cell, last, labels.layers)), steps.view(np.int64)))
    odd = np.random.default_rng(0).integers(1, 2**62, size=len(keys), dtype=np.int64) * 2 + 1
    _, first, kind = np.unique((keys * odd[:, None]).sum(axis=0), return_index=True, return_inverse=True)
    twin = first[kind]
    # Labels of the same hash and different keys stay apart.
    each = np.arange(len(labels))
    twin = np.where(np.all(keys == keys[:, twin], axis=0), twin, each)
    ways = np.zeros_like(labels.ways)
    np.add.at(ways, twin, labels.ways)
    kept = np.flatnonzero(twin == each)
    return replace(labels, ways=ways).pick(kept)
