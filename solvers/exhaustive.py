"""Exhaustive search: every design of the space is scored, vectorised. The truth that small problems are checked against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from formulation import Composite, DesignProblem, Quantity, SearchSpace, Separable
from formulation.table import tabulate
from formulation.values import values_of_formula
from solvers.base import Answer, Run
from solvers.evaluation import Scorer

_CHUNK = 1 << 15
"""Partial designs extended at a time: bounds the memory, and fits the cache."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Some designs of a space with their objectives.

    values  (n,) objective, −∞ where a budget is broken
    """

    values: np.ndarray
    _chosen: np.ndarray
    _parents: np.ndarray
    _items: np.ndarray

    def choices(self, which: np.ndarray) -> np.ndarray:
        """The menu items (m, N) of some of them, by their numbers (m,)."""
        return np.column_stack((self._chosen[self._parents[which]], self._items[which]))


def scored_designs(problem: DesignProblem, run: Run) -> Iterator[Scored]:
    """Every design of the space once, in chunks, until `run` is stopped; `run.evaluations` counts them.

    Tabulated and added up block by block where the quantities allow it, else called design by design, which is slow.
    """
    quantities = (problem.maximize, *(budget.quantity for budget in problem.subject_to))
    tabular = all(isinstance(quantity, Separable | Composite) for quantity in quantities)
    return _vectorised(problem, run) if tabular else _one_by_one(problem, run)


@dataclass(frozen=True)
class Exhaustive:
    """Scores all designs, block by block, in chunks; the best feasible one is optimal once all are seen.

    Takes any quantity: black boxes are called design by design, which is slow.
    """

    name = "exhaustive"
    distributions: tuple[str, ...] = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Before the last design is seen nothing is proved and there is no bound."""
        best: float = -np.inf
        architecture = None
        for chunk in scored_designs(problem, run):
            winner = int(chunk.values.argmax())
            if chunk.values[winner] > best:
                best = float(chunk.values[winner])
                architecture = problem.space.decode(chunk.choices(np.array([winner]))[0])
                run.record(best)
        if (why := run.why_stopped) and run.evaluations < problem.space.size:
            return Answer(architecture, message=f"{why} after {run.evaluations:,} of {problem.space.size:,} designs")
        if architecture is not None:
            run.record(best, best)
        message = f"all {problem.space.size:,} designs seen"
        return Answer(architecture, best if architecture else None, architecture is None, message)


def _one_by_one(problem: DesignProblem, run: Run) -> Iterator[Scored]:
    scorer = Scorer(problem)
    single = np.zeros(1, dtype=np.intp)
    for choices in problem.space.iterate_choices():
        if run.stopped:
            return
        run.evaluations += 1
        value = scorer.objective(choices) if scorer.feasible(choices) else -np.inf
        yield Scored(np.array([value]), np.array([choices[:-1]], dtype=np.intp), single, np.array([choices[-1]]))


def _vectorised(problem: DesignProblem, run: Run) -> Iterator[Scored]:
    space = problem.space
    # One table holds the parts of every quantity; `readings` say which of its rows make up which quantity.
    parts: list[Separable] = []
    readings = []
    for quantity in (problem.maximize, *(budget.quantity for budget in problem.subject_to)):
        own = quantity.parts if isinstance(quantity, Composite) else (quantity,)
        readings.append((quantity, slice(len(parts), len(parts) + len(own))))
        parts += own
    table = tabulate(parts, space)
    limits = [budget.limit for budget in problem.subject_to]

    first = np.arange(len(space.menus[0]))
    stack = [(first[:, None], table.start())]
    while stack and not run.stopped:
        chosen, totals = stack.pop()
        block = chosen.shape[1]
        if block < space.blocks:
            width = space.menus[block - 1].width_of[chosen[:, -1]]
            portion = max(_CHUNK // len(space.menus[block]), 1)
            if len(chosen) > portion:
                stack.append((chosen[portion:], totals[:, portion:]))
                chosen, totals, width = chosen[:portion], totals[:, :portion], width[:portion]
            parents, items, totals = table.extend(block, width, totals)
            if block < space.blocks - 1:
                stack.append((np.column_stack((chosen[parents], items)), totals))
                continue
        else:
            parents, items = np.arange(len(chosen)), chosen[:, -1]
            chosen = chosen[:, :-1]
        if not len(items):
            continue  # no width of the last block may follow these
        run.evaluations += len(items)
        scored = Scored(np.full(len(items), -np.inf), chosen, parents, items)
        kept = np.ones(len(items), dtype=bool)
        for (quantity, rows), limit in zip(readings[1:], limits, strict=True):
            kept &= _values(quantity, totals[rows], scored, space, kept) <= limit
        quantity, rows = readings[0]
        values = _values(quantity, totals[rows], scored, space, kept)
        yield replace(scored, values=np.where(kept, values, -np.inf))


def _values(quantity: Quantity, totals: np.ndarray, scored: Scored, space: SearchSpace, among: np.ndarray) -> np.ndarray:
    """The quantity of many designs from the totals (P, n) of its parts; finite where `among` says that a value is used."""
    if not isinstance(quantity, Composite):
        return totals[0]
    return values_of_formula(quantity, totals, lambda n: space.decode(scored.choices(np.array([n]))[0]), among)
