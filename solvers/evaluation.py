"""A problem's objective and budgets as functions of menu choices: many designs at once, or one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from formulation import Architecture, Composite, DesignProblem, LayerSum, NotSeparable, Quantity, Separable
from formulation.space import Choices
from formulation.table import evaluator, tabulate
from formulation.values import finite, value_of

LAYERS = LayerSum("layers", "layers", lambda width, ffn_width: 1.0)
"""Total depth as a quantity: what exact methods split a search by."""


def require_structure(problem: DesignProblem, solver: str) -> None:
    """NotSeparable where the objective or a budget is a black box, naming the solvers that take one."""
    for quantity in (problem.maximize, *(budget.quantity for budget in problem.subject_to)):
        if not isinstance(quantity, Separable | Composite):
            raise NotSeparable(
                f"{solver} needs quantities that add up over blocks, and {quantity.name} is a black box; "
                "use EvolutionaryAlgorithm, GeneticAlgorithm, RandomSearch or, on small spaces, Exhaustive"
            )


class Vectorised:
    """Objective and feasibility of many designs at once; tabulated where the quantities allow it."""

    def __init__(self, problem: DesignProblem) -> None:
        self._objective = evaluator(problem.maximize, problem.space)
        self._budgets = [(evaluator(b.quantity, problem.space), b.limit) for b in problem.subject_to]

    def feasible(self, choices: np.ndarray) -> np.ndarray:
        """Bool array: which of the designs, choices (n, N), keep every budget."""
        kept = np.ones(len(choices), dtype=bool)
        for evaluate, limit in self._budgets:
            kept[kept] = evaluate(choices[kept]) <= limit
        return kept

    def objective(self, choices: np.ndarray) -> np.ndarray:
        """Objective of each design, choices (n, N)."""
        return self._objective(choices)


class _Reader:
    """One quantity of one design at a time, by adding table rows in plain Python: faster than arrays for a single design."""

    def __init__(self, quantities: Sequence[Separable], problem: DesignProblem) -> None:
        table = tabulate(quantities, problem.space)
        menus = problem.space.menus
        self._fixed = tuple(table.fixed.tolist())
        self._blocks = [list(map(tuple, block.T.tolist())) for block in table.blocks]
        neutral = np.where(table.is_max, -np.inf, 0.0)[:, None, None]
        self._joints = [
            None if np.all(joint == neutral) else [list(map(tuple, row)) for row in joint.transpose(1, 2, 0).tolist()]
            for joint in table.joints
        ]
        self._widths = [menu.width_of.tolist() for menu in menus]
        self._folds = [max if combine else sum for combine in table.is_max]

    def __call__(self, choices: Choices) -> list[float]:
        """The values, Python floats."""
        rows = [self._fixed]
        rows += [block[item] for block, item in zip(self._blocks, choices, strict=True)]
        for i, joint in enumerate(self._joints):
            if joint is not None:
                rows.append(joint[self._widths[i][choices[i]]][self._widths[i + 1][choices[i + 1]]])
        return [fold(terms) for fold, terms in zip(self._folds, zip(*rows, strict=True), strict=True)]


class Scorer:
    """Objective and feasibility of one design at a time, remembering nothing."""

    def __init__(self, problem: DesignProblem) -> None:
        self._space = problem.space
        self._objective = self._reader(problem.maximize, problem)
        self._budgets = [(self._reader(b.quantity, problem), b.limit) for b in problem.subject_to]

    def _reader(self, quantity: Quantity, problem: DesignProblem):
        if isinstance(quantity, Separable):
            read = _Reader([quantity], problem)
            return lambda choices: read(choices)[0]
        if isinstance(quantity, Composite):
            read, formula = _Reader(quantity.parts, problem), quantity.formula
            return lambda choices: finite(
                quantity, lambda: f"the design {self._space.decode(choices)}", lambda: formula(read(choices))
            )
        return lambda choices: value_of(quantity, self._space.decode(choices))

    def feasible(self, choices: Choices) -> bool:
        """Whether the design keeps every budget."""
        return all(read(choices) <= limit for read, limit in self._budgets)

    def objective(self, choices: Choices) -> float:
        """The design's objective."""
        return self._objective(choices)


def decode_best(problem: DesignProblem, choices: Choices | None) -> Architecture | None:
    """The architecture of `choices`, None for None."""
    return None if choices is None else problem.space.decode(choices)
