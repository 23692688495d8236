"""Exact dynamic programming: label setting over the layered DAG, split by total depth, with completion bounds.

For every total depth (a *cell*) the composite objective is replaced by an affine overestimator, valid in the box that its
parts can reach at that depth. What remains adds up over blocks, so `solvers.completion` can tabulate the most that a partial
design can still gain from (block, width, layers left, budget left). Three passes:

1. Lagrangian bounds of all cells, and a beam search led by them that finds a first incumbent;
2. for the cells whose bound beats it, resource bounds: exact up to rounding in one weighted sum of the budgets;
3. labels (partial designs) of those cells grow block by block, the most promising first; those that cannot beat the
   incumbent by more than the gap are dropped. When time runs out the largest bound still open is a valid bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from formulation import Budget, Combine, Composite, DesignProblem, Separable
from formulation.table import tabulate
from solvers.base import Answer, Run, Solver, broken_budgets
from solvers.completion import Cells, LagrangianBound, ResourceBound, best_completions, depth_boxes
from solvers.evaluation import LAYERS, decode_best, require_structure

_MEMORY = 1 << 28
"""Bytes of completion tables kept at a time; cells are taken in batches that fit."""
_PORTION = 4096
"""Labels extended at a time, the most promising first."""

Bound = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class DynamicProgramming:
    """Exact for separable and composite quantities, sums and maxima, any number of budgets.

    warm_start  a heuristic to run first for its incumbent, such as EvolutionaryAlgorithm(iterations=2000); None: the beam
                search inside is enough
    beam        partial designs that the beam search keeps per block
    steps       steps that the resource is cut into: more give tighter bounds and larger tables
    """

    warm_start: Solver | None = None
    beam: int = 128
    steps: int = 512

    distributions = ()

    @property
    def name(self) -> str:
        """Name in tables."""
        return "dynamic programming" + (f" after {self.warm_start.name}" if self.warm_start else "")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves its design optimal, or that none keeps the budgets, unless a limit stops it."""
        require_structure(problem, "dynamic programming")
        start = run.limits.start
        if self.warm_start is not None:
            found = self.warm_start.search(problem, run).architecture
            if found is not None and not broken_budgets(problem, found):
                start = found if start is None else max(start, found, key=problem.maximize)
        return _Search(problem, run, self, None if start is None else problem.space.encode(start)).answer()


class _Rows:
    """Which rows of the one table hold what: layers, objective parts, summed costs, maxima, parts of composite budgets."""

    def __init__(self, problem: DesignProblem) -> None:
        objective = problem.maximize
        self.composite = objective if isinstance(objective, Composite) else None
        quantities: list[Separable] = [LAYERS]
        sums: list[Budget] = []
        maxima: list[Budget] = []
        composites: list[tuple[Budget, Composite]] = []
        for budget in problem.subject_to:
            if isinstance(budget.quantity, Composite):
                composites.append((budget, budget.quantity))
            else:
                assert isinstance(budget.quantity, Separable)
                (sums if budget.quantity.combine is Combine.SUM else maxima).append(budget)

        def place(new: tuple[object, ...]) -> slice:
            quantities.extend(new)  # type: ignore[arg-type]
            return slice(len(quantities) - len(new), len(quantities))

        self.parts = place(self.composite.parts if self.composite else (objective,))
        self.costs = place(tuple(budget.quantity for budget in sums))
        self.maxima = place(tuple(budget.quantity for budget in maxima))
        self.cost_limits = np.array([budget.limit for budget in sums])
        self.max_limits = np.array([budget.limit for budget in maxima])
        self.formulas = [(composite.formula, place(composite.parts), budget.limit) for budget, composite in composites]
        self.quantities = quantities

    def objective(self, totals: np.ndarray) -> np.ndarray:
        """Objective of complete designs from their totals (Q, n)."""
        parts = totals[self.parts]
        return self.composite.formula(parts) if self.composite else parts[0]

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, is_max: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (cells, P) and constants (cells,) that bound the objective on boxes (cells, P) of the parts."""
        if self.composite:
            coefficients, constants = self.composite.overestimator(lower, upper)
        else:
            coefficients, constants = np.ones(lower.shape), np.zeros(len(lower))
        # A maximum does not add up over blocks: bound what it contributes once and for all.
        most = np.maximum(coefficients * lower, coefficients * upper)
        return np.where(is_max, 0.0, coefficients), constants + np.where(is_max, most, 0.0).sum(axis=1)


@dataclass(frozen=True, eq=False)
class _Labels:
    """Partial designs with the same number of blocks, best bound first.

    cell, width, layers, bounds  (n,): their cell, width index of the last block, layers so far, upper bound
    chosen                       (n, blocks): menu items
    totals                       (Q, n): table rows added up
    """

    cell: np.ndarray
    chosen: np.ndarray
    width: np.ndarray
    layers: np.ndarray
    totals: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.cell)

    def pick(self, which: np.ndarray | slice) -> _Labels:
        return _Labels(
            self.cell[which], self.chosen[which], self.width[which], self.layers[which], self.totals[:, which], self.bounds[which]
        )


class _Search:
    """State of one search."""

    def __init__(self, problem: DesignProblem, run: Run, options: DynamicProgramming, start: tuple[int, ...] | None) -> None:
        self.problem, self.run, self.space, self.options = problem, run, problem.space, options
        self.rows = _Rows(problem)
        self.table = tabulate(self.rows.quantities, problem.space)
        # A term over the budget of a maximum rules its item out by itself.
        limits = self.rows.max_limits[:, None]
        self.allowed = [np.all(block[self.rows.maxima] <= limits, axis=0) for block in self.table.blocks]
        self.best: float = -np.inf
        self.choices = start
        self.labels = 0
        self.least_costs: list[list[np.ndarray]] = []
        self.dropped: float = -np.inf
        if start is not None:
            self.best = problem.maximize(problem.space.decode(start))
            run.record(self.best)

    @property
    def threshold(self) -> float:
        """Objective that a label must be able to exceed to be worth keeping."""
        return self.best + self.run.limits.gap * abs(self.best) if np.isfinite(self.best) else -np.inf

    def answer(self) -> Answer:
        cells = self._cells()
        bound = max(self.best, self._search_cells(cells)) if len(cells.layers) else -np.inf
        architecture = decode_best(self.problem, self.choices)
        why = self.run.why_stopped
        message = f"{why + ' after ' if why else ''}{self.labels:,} labels"
        if bound == -np.inf and not why:
            return Answer(None, infeasible=True, message=f"no design keeps the budgets; {message}")
        self.run.record(self.best if architecture else None, bound)
        return Answer(architecture, bound, message=message)

    def _cells(self) -> Cells:
        """One cell per total depth that the budgets, each alone, leave open, with its affine overestimator."""
        rows, table = self.rows, self.table
        most_layers = sum(menu.depths[-1] for menu in self.space.menus)
        one = np.ones((1, 1))

        costs = list(range(rows.costs.start, rows.costs.stop))
        self.least_costs = [best_completions(table, self.allowed, most_layers, -one, slice(row, row + 1)) for row in costs]
        alive = np.ones(most_layers + 1, dtype=bool)
        for least, row, limit in zip(self.least_costs, costs, rows.cost_limits, strict=True):
            alive &= table.fixed[row] - least[0][0, 0] <= limit
        for row, limit in zip(range(rows.maxima.start, rows.maxima.stop), rows.max_limits, strict=True):
            alive &= table.fixed[row] <= limit
        layers, lower, upper = depth_boxes(table, self.allowed, 0, rows.parts)
        kept = alive[layers]
        coefficients, constants = rows.overestimator(lower[kept], upper[kept], table.is_max[rows.parts])
        layers = layers[kept]
        return Cells(layers, coefficients, constants, rows.parts, rows.costs, rows.cost_limits)

    def _search_cells(self, cells: Cells) -> float:
        """The three passes; returns a valid upper bound on the optimum, −∞ where nothing is feasible."""
        lagrangian = LagrangianBound(self.table, self.allowed, cells)
        if not self.run.stopped:
            self._beam(cells, lagrangian)
        order = np.argsort(-lagrangian.root, kind="stable")
        direction = lagrangian.best_multipliers[order[0]]
        direction = direction / direction.max() if direction.any() else direction
        states = (self.options.steps + 1) * sum(len(menu.widths) * (menu.depths[-1] + 1) for menu in self.space.menus)
        batch = max(_MEMORY // (8 * states * max(self.space.blocks // 2, 1)), 1)
        while len(order):
            self._drop(lagrangian.root[order])
            if self.best > -np.inf:
                self.run.record(self.best, max(float(lagrangian.root[order[0]]), self.best, self.dropped))
            if lagrangian.root[order[0]] <= self.threshold:
                break
            if self.run.stopped:
                return max(self.dropped, float(lagrangian.root[order[0]]))
            now, order = order[:batch], order[batch:]
            now = now[lagrangian.root[now] > self.threshold]
            some = cells.pick(now)
            bound = ResourceBound(self.table, self.allowed, some, direction, self.options.steps)
            open_bound = self._grow_labels(some, bound)
            if self.run.stopped:
                later = float(lagrangian.root[order[0]]) if len(order) else -np.inf
                return max(self.dropped, open_bound, later)
        return max(self.dropped, self.best)

    def _extend(self, labels: _Labels | None, cells: Cells, bound: Bound) -> _Labels:
        """All extensions of labels by one block (None: the first blocks) that can beat the threshold, best first."""
        if labels is None:
            block, menu = 0, self.space.menus[0]
            cell, items = np.divmod(np.arange(len(cells.layers) * len(menu)), len(menu))
            chosen, totals = items[:, None], self.table.start()[:, items]
        else:
            block = labels.chosen.shape[1]
            menu = self.space.menus[block]
            parents, items, totals = self.table.extend(block, labels.width, labels.totals)
            cell, chosen = labels.cell[parents], np.column_stack((labels.chosen[parents], items))
        self.labels += len(items)
        layers, width = totals[0].astype(np.intp), menu.width_of[items]
        possible = self.allowed[block][items] & (layers <= cells.layers[cell])
        left = np.where(possible, cells.layers[cell] - layers, 0)
        for least, row, limit in zip(self.least_costs, totals[self.rows.costs], self.rows.cost_limits, strict=True):
            possible &= row - least[block + 1][0, width, left] <= limit
        for row, limit in zip(totals[self.rows.maxima], self.rows.max_limits, strict=True):
            possible &= row <= limit
        found = _Labels(cell, chosen, width, layers, totals, np.zeros(len(cell))).pick(possible)
        bounds = bound(block + 1, found.cell, found.width, found.layers, found.totals)
        self._drop(bounds)
        kept = np.flatnonzero(bounds > self.threshold)
        kept = kept[np.argsort(-bounds[kept], kind="stable")]
        grown = found.pick(kept)
        return _Labels(grown.cell, grown.chosen, grown.width, grown.layers, grown.totals, bounds[kept])

    def _drop(self, bounds: np.ndarray) -> None:
        """Remember the largest bound among those dropped although they exceed the incumbent (by no more than the gap)."""
        within = bounds[(bounds <= self.threshold) & (bounds > self.best)]
        if len(within):
            self.dropped = max(self.dropped, float(within.max()))

    def _beam(self, cells: Cells, bound: Bound) -> None:
        """A beam search for a first incumbent: per block only the labels of largest bound survive. Proves nothing."""
        dropped = self.dropped
        labels = self._extend(None, cells, bound)
        for _ in range(self.space.blocks - 1):
            labels = self._extend(labels.pick(slice(0, self.options.beam)), cells, bound)
        self._take(labels, cells)
        self.dropped = dropped

    def _grow_labels(self, cells: Cells, bound: Bound) -> float:
        """The forward pass over some cells; returns the largest bound left open, −∞ when none is."""
        stack = [self._extend(None, cells, bound)]
        while stack:
            labels = stack.pop()
            self._drop(labels.bounds)
            labels = labels.pick(slice(0, int(np.searchsorted(-labels.bounds, -self.threshold))))
            if not len(labels):
                continue
            if self.run.stopped:
                return max(float(open_.bounds[0]) for open_ in (*stack, labels) if len(open_))
            if labels.chosen.shape[1] == self.space.blocks:
                self._take(labels, cells)
                continue
            if len(labels) > _PORTION:
                stack.append(labels.pick(slice(_PORTION, None)))
                labels = labels.pick(slice(0, _PORTION))
            stack.append(self._extend(labels, cells, bound))
        return -np.inf

    def _take(self, labels: _Labels, cells: Cells) -> None:
        """Score complete designs; `_extend` has already held them against the budgets that are sums or maxima."""
        kept = labels.layers == cells.layers[labels.cell]
        for formula, rows, limit in self.rows.formulas:
            kept &= formula(labels.totals[rows]) <= limit
        self.run.evaluations += len(labels)
        if not kept.any():
            return
        values = np.where(kept, self.rows.objective(labels.totals), -np.inf)
        winner = int(values.argmax())
        if values[winner] > self.best:
            self.best, self.choices = float(values[winner]), tuple(map(int, labels.chosen[winner]))
            self.run.record(self.best)
