"""Genetic algorithm by pymoo over mixed variables; designs are kept feasible by repair, never by penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableGA, MixedVariableMating
from pymoo.core.problem import ElementwiseProblem
from pymoo.core.repair import Repair
from pymoo.core.variable import Choice, Integer, Variable
from pymoo.termination import get_termination

from formulation import DesignProblem
from formulation.space import Choices
from solvers.base import Answer, Run
from solvers.evaluation import Scorer, decode_best


@dataclass(frozen=True)
class GeneticAlgorithm:
    """pymoo's mixed-variable genetic algorithm (Blank & Deb 2020): uniform and simulated binary crossover, mutation, elitism.

    Variables per block: an integer width index, a choice of FFN ratio, an integer depth index.

    population   designs per generation
    evaluations  designs scored before it ends, unless a limit ends it earlier
    """

    population: int = 100
    evaluations: int = 5_000

    name = "genetic (pymoo)"
    distributions = ("pymoo",)

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Finds, proves nothing."""
        design = _Design(problem, run)
        repair, unlike = _Feasible(design), MixedVariableDuplicateElimination()
        # The default mating leaves children unrepaired, and tries 100 times over to fill a generation of a space too small for it.
        mating = MixedVariableMating(repair=repair, eliminate_duplicates=unlike, n_max_iterations=10)
        algorithm = MixedVariableGA(pop_size=self.population, repair=repair, eliminate_duplicates=unlike, mating=mating)
        algorithm.setup(
            _Pymoo(design), termination=get_termination("n_eval", self.evaluations), seed=run.limits.seed, verbose=False
        )
        while algorithm.has_next() and not run.stopped:
            algorithm.next()
        message = run.why_stopped or f"{run.evaluations:,} designs scored"
        if design.best_choices is None:
            message = f"repair found no design that keeps the budgets; {message}"
        return Answer(decode_best(problem, design.best_choices), message=message)


class _Design:
    """What pymoo's problem and repair share: the reading of its variables, the scorer, the best design and the random state."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self.space, self.run, self.scorer = problem.space, run, Scorer(problem)
        self.generator = np.random.default_rng(run.limits.seed)
        self.best: float = -np.inf
        self.best_choices: Choices | None = None
        self.feasible: Choices | None = None
        if run.limits.start is not None:
            self.feasible = self.best_choices = problem.space.encode(run.limits.start)
            self.best = problem.maximize(run.limits.start)
            run.record(self.best)

    def read(self, variables: dict[str, Any]) -> list[list[int]]:
        """Indices [width, ratio, depth] per block."""
        return [[int(variables[f"{part}{i}"]) for part in ("width", "ratio", "depth")] for i in range(self.space.blocks)]

    def write(self, choices: Choices) -> dict[str, int]:
        """pymoo's variables of a design."""
        variables = {}
        for i, (menu, item) in enumerate(zip(self.space.menus, choices, strict=True)):
            for part, index in zip(("width", "ratio", "depth"), np.unravel_index(item, menu.shape), strict=True):
                variables[f"{part}{i}"] = int(index)
        return variables

    def choices(self, indices: list[list[int]]) -> Choices:
        return tuple(menu.item(*index) for menu, index in zip(self.space.menus, indices, strict=True))

    def score(self, choices: Choices) -> float:
        """−objective, +∞ for the rare design that repair could not mend."""
        self.run.evaluations += 1
        if not self.space.allows(choices) or not self.scorer.feasible(choices):
            return np.inf
        value = self.scorer.objective(choices)
        if value > self.best:
            self.best, self.best_choices = value, choices
            self.run.record(value)
        return -value

    def repair(self, variables: dict[str, Any]) -> dict[str, int]:
        """A feasible design near `variables`.

        Each width moves to the nearest one that may follow its neighbour's; then random parts of random blocks go one menu
        entry down until the budgets are kept. Where nothing is left to lower, a feasible design seen before takes its place.
        """
        indices = self.read(variables)
        for i, step in enumerate(self.space.steps):
            allowed = np.flatnonzero(step[indices[i][0]])
            if not len(allowed):
                return variables if self.feasible is None else self.write(self.feasible)
            indices[i + 1][0] = int(allowed[np.abs(allowed - indices[i + 1][0]).argmin()])
        while not self.scorer.feasible(choices := self.choices(indices)):
            lower = [(i, part) for i, index in enumerate(indices) for part in range(3) if self._can_lower(indices, i, part)]
            if not lower:
                return self.write(choices if self.feasible is None else self.feasible)
            i, part = lower[int(self.generator.integers(len(lower)))]
            indices[i][part] -= 1
        self.feasible = choices
        return self.write(choices)

    def _can_lower(self, indices: list[list[int]], block: int, part: int) -> bool:
        index = indices[block][part]
        if not index:
            return False
        if part:
            return True
        steps = self.space.steps
        left_ok = block == 0 or steps[block - 1][indices[block - 1][0], index - 1]
        return bool(left_ok and (block == self.space.blocks - 1 or steps[block][index - 1, indices[block + 1][0]]))


class _Pymoo(ElementwiseProblem):
    def __init__(self, design: _Design) -> None:
        variables: dict[str, Variable] = {}
        for i, menu in enumerate(design.space.menus):
            widths, ratios, depths = menu.shape
            variables[f"width{i}"] = Integer(bounds=(0, widths - 1))
            variables[f"ratio{i}"] = Choice(options=list(range(ratios)))
            variables[f"depth{i}"] = Integer(bounds=(0, depths - 1))
        super().__init__(vars=variables, n_obj=1)
        self._design = design

    def _evaluate(self, x: dict[str, Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self._design.score(self._design.choices(self._design.read(x)))


class _Feasible(Repair):
    def __init__(self, design: _Design) -> None:
        super().__init__()
        self._design = design

    def _do(self, problem: Any, designs: np.ndarray, **kwargs: Any) -> np.ndarray:
        return np.array([self._design.repair(variables) for variables in designs], dtype=object)
