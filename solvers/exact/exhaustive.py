"""Exhaustive search: every design of the space is scored, vectorised. The truth that small problems are checked against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from formulation import Architecture, DesignProblem
from solvers.base import ROUNDING, Answer, Run, Stopped
from solvers.evaluation import Scorer, Tabulated, is_tabular, objective_rounding
from solvers.incumbent import quick_incumbent

_QUICK = 1 << 24
"""Designs up to which the search is over in seconds, so that no incumbent is sought before it."""
_CHUNK = 1 << 15
"""Partial designs made at a time: what the cache holds."""
_WAITING = 1 / 8
"""Share of the memory for partial designs that wait to be extended: fewer are made at a time where it runs short."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Some designs of a space with their objectives.

    Attributes:
        values: (n,) objective, −∞ where a budget is broken.
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
    return _vectorised(problem, run) if is_tabular(problem) else _one_by_one(problem, run)


@dataclass(frozen=True)
class Exhaustive:
    """Scores all designs, block by block, in chunks; the best feasible one is optimal once all are seen.

    Takes any quantity: black boxes are called design by design, which is slow.
    """

    name = "exhaustive"
    distributions: tuple[str, ...] = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Before the last design is seen nothing is proved and there is no bound."""
        architecture = quick_incumbent(problem, run) if problem.space.size > _QUICK else None
        best: float = -np.inf if architecture is None else problem.objective(architecture)
        with suppress(Stopped), run.within_memory():
            for chunk in scored_designs(problem, run):
                winner = int(chunk.values.argmax())
                if chunk.values[winner] > best:
                    best = float(chunk.values[winner])
                    architecture = problem.space.decode(chunk.choices(np.array([winner]))[0])
                    run.record(best)
        if (why := run.why_stopped) and run.evaluations < problem.space.size:
            return Answer(architecture, message=f"{why} after {run.evaluations:,} of {problem.space.size:,} designs")
        message = f"all {problem.space.size:,} designs seen"
        if architecture is None:
            return Answer(None, infeasible=True, message=message)
        rounding = _rounding(problem, architecture)
        if rounding > max(run.limits.gap, ROUNDING) * abs(best):
            message += f"; terms cancel, so that their objectives are known up to {rounding:.2g} only"
        run.record(best, best + rounding)
        return Answer(architecture, best + rounding, message=message)


def _rounding(problem: DesignProblem, architecture: Architecture) -> float:
    """By how much the objective of designs as good as this one depends on the order in which it is added up."""
    if not is_tabular(problem):
        return 0.0
    tabulated = Tabulated(replace(problem, subject_to=()))
    totals = tabulated.table.evaluate(np.array([problem.space.encode(architecture)]))[:, 0]
    return objective_rounding(problem.goal, tabulated.table, tabulated.rows[0], totals)  # type: ignore[arg-type]


def _one_by_one(problem: DesignProblem, run: Run) -> Iterator[Scored]:
    single = np.zeros(1, dtype=np.intp)
    with suppress(Stopped):
        scorer = Scorer(problem, run.poll)
        for choices in problem.space.iterate_choices():
            if run.stopped:
                return
            value = scorer.objective(choices) if scorer.feasible(choices) else -np.inf
            run.evaluations += 1
            yield Scored(np.array([value]), np.array([choices[:-1]], dtype=np.intp), single, np.array([choices[-1]]))


def _vectorised(problem: DesignProblem, run: Run) -> Iterator[Scored]:
    space = problem.space
    try:
        tabulated = Tabulated(problem, run.poll)
    except Stopped:
        return
    table = tabulated.table

    first = np.arange(len(space.menus[0]))
    item = np.min_scalar_type(max(map(len, space.menus)))
    # Partial designs wait for each block but the first.
    waiting = run.limits.memory * _WAITING / space.blocks / (8 * len(table.fixed) + item.itemsize * space.blocks)
    most = int(min(_CHUNK, waiting))
    stack = [(first[:, None].astype(item), table.start())]
    while stack and not run.stopped:
        chosen, totals = stack.pop()
        block = chosen.shape[1]
        if block < space.blocks:
            state = space.state_of[block - 1][chosen[:, -1]]
            portion = max(most // len(space.menus[block]), 1)
            if len(chosen) > portion:
                stack.append((chosen[portion:], totals[:, portion:]))
                chosen, totals, state = chosen[:portion], totals[:, :portion], state[:portion]
            parents, items, totals = table.extend(block, state, totals)
            if block < space.blocks - 1:
                stack.append((np.column_stack((chosen[parents], items.astype(item))), totals))
                continue
        else:
            parents, items = np.arange(len(chosen)), chosen[:, -1]
            chosen = chosen[:, :-1]
        if space.may_be_empty:
            layered = space.have_layers(np.column_stack((chosen[parents], items)))
            parents, items, totals = parents[layered], items[layered], totals[:, layered]
        if not len(items):
            continue  # no item of the last block may follow these
        run.evaluations += len(items)
        scored = Scored(np.full(len(items), -np.inf), chosen, parents, items)

        def design(number: int, scored: Scored = scored) -> Architecture:
            return space.decode(scored.choices(np.array([number]))[0])

        kept = tabulated.feasible(totals, design)
        values = tabulated.read(0, totals, design, kept)
        yield replace(scored, values=np.where(kept, values, -np.inf))
