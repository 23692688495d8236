"""A problem's objective and budgets as functions of menu choices: many designs at once, or one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from formulation import Architecture, Composite, DesignProblem, NotSeparable, Quantity, SearchSpace, Separable
from formulation.menu import Choices
from formulation.quantity import Combine
from formulation.table import Table, evaluator, tabulate
from formulation.values import as_float, finite, value_of, values_of_formula
from solvers.base import ROUNDING

_PORTION = 4096
"""Tabulated designs that are evaluated at a time."""

Design = Callable[[int], Architecture]
"""The n-th of some designs."""


def require_structure(problem: DesignProblem, solver: str) -> None:
    """NotSeparable if an objective or a budget is a black box, naming the solvers that take one."""
    for quantity in (problem.goal, *problem.minimize, *(budget.quantity for budget in problem.subject_to)):
        if not isinstance(quantity, Separable | Composite):
            raise NotSeparable(
                f"{solver} needs quantities that add up over blocks, and {quantity.name} is a black box; "
                "use EvolutionaryAlgorithm, GeneticAlgorithm, RandomSearch or, on small spaces, Exhaustive"
            )


def is_tabular(problem: DesignProblem) -> bool:
    """Whether the objective and all budgets add up over blocks, or are formulas of quantities that do."""
    return all(isinstance(quantity, Separable | Composite) for quantity in (problem.goal, *_budgeted(problem)))


def _budgeted(problem: DesignProblem) -> tuple[Quantity, ...]:
    return tuple(constraint.quantity for constraint in problem.constraints)


class Tabulated:
    """The objective and the constraints of a problem as readings of one table, whose rows are the parts of all of them.

    Attributes:
        quantities: what is read, by number: the objective, those of the constraints, and the further ones.
        rows: per quantity the rows that hold its parts; equal quantities have the same.
        limits: (K,) of the constraints.

    Args:
        problem: on a single space.
        poll: see `tabulate`.
        further: quantities to read beside those of the problem.
    """

    def __init__(self, problem: DesignProblem, poll: Callable[[], object] = lambda: None, further: Sequence[Quantity] = ()) -> None:
        self.quantities = (problem.goal, *_budgeted(problem), *further)
        self.rows: list[slice] = []
        parts: list[Separable] = []
        for number, quantity in enumerate(self.quantities):
            first = self.quantities.index(quantity)
            if first < number:
                self.rows.append(self.rows[first])
                continue
            own = quantity.parts if isinstance(quantity, Composite) else (quantity,)
            self.rows.append(slice(len(parts), len(parts) + len(own)))
            parts += own  # type: ignore[arg-type]  # `tabulate` refuses what is not separable
        self.table = tabulate(parts, problem.space, poll)
        self.limits = np.array([constraint.limit for constraint in problem.constraints])

    def read(self, number: int, totals: np.ndarray, design: Design | None = None, among: np.ndarray | None = None) -> np.ndarray:
        """Quantity `number` of n designs with the totals (rows, n).

        Finite for the designs `among` them, or Undefined names one, where `design` tells the n-th; else NaN where it has no value.
        """
        quantity, own = self.quantities[number], totals[self.rows[number]]
        if not isinstance(quantity, Composite):
            return own[0]
        if design is None:
            return values_of_formula(quantity, own, lambda n: n, np.zeros(totals.shape[1], dtype=bool))
        return values_of_formula(quantity, own, design, among)

    def feasible(self, totals: np.ndarray, design: Design | None = None) -> np.ndarray:
        """Bool array (n,): which designs with the totals (rows, n) meet every budget; `design` as in `read`."""
        kept = np.ones(totals.shape[1], dtype=bool)
        for number, limit in enumerate(self.limits, start=1):
            kept &= self.read(number, totals, design, kept) <= limit
        return kept


class Vectorised:
    """Objective and feasibility of many designs at once; tabulated where the quantities allow it.

    Attributes:
        poll: called between terms and between black boxes' designs; may raise to end the work.
    """

    def __init__(self, problem: DesignProblem, poll: Callable[[], object] = lambda: None) -> None:
        self._portion = _PORTION if is_tabular(problem) else 1
        self._objective = evaluator(problem.goal, problem.space, poll)
        self._budgets = [(evaluator(c.quantity, problem.space, poll), c.limit) for c in problem.constraints]

    def portions(self, choices: np.ndarray) -> Iterator[np.ndarray]:
        """The designs, choices (n, N), as many at a time as are evaluated quickly: one by one for black boxes."""
        for start in range(0, len(choices), self._portion):
            yield choices[start : start + self._portion]

    def feasible(self, choices: np.ndarray) -> np.ndarray:
        """Bool array: which of the designs, choices (n, N), meet every budget."""
        kept = np.ones(len(choices), dtype=bool)
        for evaluate, limit in self._budgets:
            kept[kept] = evaluate(choices[kept]) <= limit
        return kept

    def objective(self, choices: np.ndarray) -> np.ndarray:
        """Objective of each design, choices (n, N)."""
        return self._objective(choices)


class _Reader:
    """One quantity of one design at a time, by adding table rows in plain Python: faster than arrays for a single design."""

    def __init__(self, quantities: Sequence[Separable], problem: DesignProblem, poll: Callable[[], object]) -> None:
        table = tabulate(quantities, problem.space, poll)
        self._fixed = tuple(table.fixed.tolist())
        self._blocks = [list(map(tuple, block.T.tolist())) for block in table.blocks]
        neutral = np.where(table.is_max, -np.inf, 0.0)[:, None, None]
        self._joints = [
            None if np.all(joint == neutral) else [list(map(tuple, row)) for row in joint.transpose(1, 2, 0).tolist()]
            for joint in table.joints
        ]
        self._states = [states.tolist() for states in problem.space.state_of]
        self._folds = [max if combine else sum for combine in table.is_max]

    def __call__(self, choices: Choices) -> list[float]:
        """The values, Python floats."""
        rows = [self._fixed]
        rows += [block[item] for block, item in zip(self._blocks, choices, strict=True)]
        for i, joint in enumerate(self._joints):
            if joint is not None:
                rows.append(joint[self._states[i][choices[i]]][self._states[i + 1][choices[i + 1]]])
        return [fold(terms) for fold, terms in zip(self._folds, zip(*rows, strict=True), strict=True)]


class Scorer:
    """Objective and feasibility of one design at a time, remembering nothing; `poll` as in `Vectorised`."""

    def __init__(self, problem: DesignProblem, poll: Callable[[], object] = lambda: None) -> None:
        self._space, self._poll = problem.space, poll
        self._objective = self._reader(problem.goal, problem)
        self._budgets = [(self._reader(c.quantity, problem), c.limit) for c in problem.constraints]

    def _reader(self, quantity: Quantity, problem: DesignProblem) -> Callable[[Choices], float]:
        if isinstance(quantity, Separable):
            read = _Reader([quantity], problem, self._poll)
            return lambda choices: read(choices)[0]
        if isinstance(quantity, Composite):
            read, formula = _Reader(quantity.parts, problem, self._poll), quantity.formula

            def composite(choices: Choices) -> float:
                try:
                    value = formula(read(choices))
                except Exception:
                    value = None
                if type(value) is float and -math.inf < value < math.inf:
                    return value
                return finite(quantity, lambda: f"the design {self._space.decode(choices)}", lambda: formula(read(choices)))

            return composite

        def black_box(choices: Choices) -> float:
            self._poll()
            return value_of(quantity, self._space.decode(choices))

        return black_box

    def feasible(self, choices: Choices) -> bool:
        """Whether the design meets every budget."""
        return all(read(choices) <= limit for read, limit in self._budgets)

    def objective(self, choices: Choices) -> float:
        """The design's objective."""
        return self._objective(choices)


class Recalled:
    """A quantity of one design at a time, equal to the last bit to what it is when called, with each term asked for only once.

    Terms are added up in the order of `Separable.__call__`, which those of a `_Reader` are not.
    """

    def __init__(self, quantity: Quantity, space: SearchSpace) -> None:
        self._quantity, self._space = quantity, space
        self._parts = [Recalled(part, space) for part in quantity.parts] if isinstance(quantity, Composite) else []
        self._terms: list[dict[int, float]] = [{} for _ in space.menus]
        self._others: dict[object, float] = {}

    def __call__(self, choices: Choices, architecture: Architecture) -> float:
        """The value of a design, given by its item numbers and as an architecture; Undefined if it has none."""
        quantity = self._quantity
        if isinstance(quantity, Composite):
            parts = [part(choices, architecture) for part in self._parts]
            return finite(quantity, lambda: f"the design {architecture}", lambda: quantity.formula(parts))
        if not isinstance(quantity, Separable) or type(quantity).__call__ is not Separable.__call__:
            return value_of(quantity, architecture)
        first, last = architecture.widths[0], architecture.widths[-1]
        terms = [
            self._other("fixed", lambda: quantity.fixed(architecture)),
            self._other(("entry", first), lambda: quantity.entry(first, architecture)),
            self._other(("exit", last), lambda: quantity.exit(last, architecture)),
        ]
        for position, (known, item) in enumerate(zip(self._terms, choices, strict=True)):
            if item not in known:
                known[item] = as_float(quantity.block_at(position, architecture.blocks[position], architecture))
            terms.append(known[item])
        for joint in architecture.unequal_neighbours:
            terms.append(self._other(joint, partial(quantity.joint, *joint, architecture)))
        return float(sum(terms) if quantity.combine is Combine.SUM else max(terms))

    def _other(self, key: object, term: Callable[[], float]) -> float:
        if key not in self._others:
            self._others[key] = as_float(term())
        return self._others[key]


def objective_rounding(quantity: Separable | Composite, table: Table, rows: slice, totals: np.ndarray) -> float:
    """By how much objectives near that of a design may differ between two ways to evaluate them.

    0 where that is within the `ROUNDING` which all gaps allow for; more where the terms of the objective cancel.

    Args:
        quantity: the objective.
        table: holds its parts in `rows`.
        rows: see `table`.
        totals: (rows,) the design's parts.
    """
    rounding = table.rounding(rows, totals)
    if not isinstance(quantity, Composite):
        value, change = totals[0], rounding[0]
    else:
        value = quantity.formula(totals)
        with np.errstate(all="ignore"):
            moved = [quantity.formula(totals + step * np.eye(len(totals))[p]) for p, step in enumerate(rounding)]
        change = np.abs(np.nan_to_num(np.array(moved, dtype=float) - value)).sum()
    return float(change) if change > ROUNDING * abs(value) else 0.0


def decode_best(problem: DesignProblem, choices: Choices | None) -> Architecture | None:
    """The architecture of `choices`, None for None."""
    return None if choices is None else problem.space.decode(choices)
