"""Genetic algorithm by pymoo over mixed variables; designs are kept feasible by repair, never by penalties."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymoo.core.mixed import MixedVariableDuplicateElimination, MixedVariableGA, MixedVariableMating, MixedVariableSampling
from pymoo.core.problem import ElementwiseProblem
from pymoo.core.repair import Repair
from pymoo.core.variable import Choice, Integer, Variable
from pymoo.termination import get_termination

from formulation import DesignProblem
from formulation.space import Choices
from solvers.base import Answer, Run, Stopped
from solvers.evaluation import Scorer, decode_best
from solvers.incumbent import quick_incumbent


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
        task = _Task(problem, run)
        algorithm = MixedVariableGA(pop_size=self.population, **operators(task.designs))
        algorithm.setup(task, termination=get_termination("n_eval", self.evaluations), seed=run.limits.seed, verbose=False)
        with suppress(Stopped):
            while algorithm.has_next() and not run.stopped:
                algorithm.next()
        message = run.why_stopped or f"{run.evaluations:,} designs scored"
        if task.best_choices is None and task.designs.feasible is not None:
            # Stopped before the first generation was scored.
            task.best_choices = task.designs.feasible
            run.record(problem.objective(problem.space.decode(task.best_choices)))
        if task.best_choices is None:
            message = f"repair found no design that keeps the budgets; {message}"
        return Answer(decode_best(problem, task.best_choices), message=message)


class MixedDesigns:
    """Designs as pymoo's mixed variables, and their repair: what the genetic algorithms of one and of many objectives share.

    feasible  the last design that kept every budget: `limits.start`, then what repair made; None before there is one

    Where the first repair fails, `quick_incumbent` finds the first such design, of separable and composite quantities.
    """

    def __init__(self, problem: DesignProblem, scorer: Scorer, run: Run) -> None:
        self.space, self._scorer = problem.space, scorer
        self._problem, self._run, self._sought = problem, run, False
        self._generator = np.random.default_rng(run.limits.seed)
        start = run.limits.start
        self.feasible: Choices | None = None if start is None else problem.space.encode(start)

    @property
    def variables(self) -> dict[str, Variable]:
        """pymoo's variables."""
        variables: dict[str, Variable] = {}
        for i, menu in enumerate(self.space.menus):
            widths, ratios, depths = menu.shape
            variables[f"width{i}"] = Integer(bounds=(0, widths - 1))
            variables[f"ratio{i}"] = Choice(options=list(range(ratios)))
            variables[f"depth{i}"] = Integer(bounds=(0, depths - 1))
        return variables

    def read(self, values: dict[str, Any]) -> Choices:
        """The design that pymoo's values of the variables say."""
        return self._choices(self._indices(values))

    def _indices(self, values: dict[str, Any]) -> list[list[int]]:
        """Indices [width, ratio, depth] per block."""
        return [[int(values[f"{part}{i}"]) for part in ("width", "ratio", "depth")] for i in range(self.space.blocks)]

    def _choices(self, indices: list[list[int]]) -> Choices:
        return tuple(menu.item(*index) for menu, index in zip(self.space.menus, indices, strict=True))

    def _write(self, choices: Choices) -> dict[str, int]:
        values = {}
        for i, (menu, item) in enumerate(zip(self.space.menus, choices, strict=True)):
            for part, index in zip(("width", "ratio", "depth"), np.unravel_index(item, menu.shape), strict=True):
                values[f"{part}{i}"] = int(index)
        return values

    def allows(self, choices: Choices) -> bool:
        """Whether the design is in the space and keeps every budget; False for the rare one that repair could not mend."""
        return self.space.allows(choices) and self._scorer.feasible(choices)

    def repair(self, values: dict[str, Any]) -> dict[str, int]:
        """A feasible design near `values`.

        Each width moves to the nearest one that may follow its neighbour's; then random parts of random blocks go one menu
        entry down until the budgets are kept. Where nothing is left to lower, a feasible design seen before takes its place.
        """
        self._run.poll()
        indices = self._indices(values)
        for i, step in enumerate(self.space.steps):
            allowed = np.flatnonzero(step[indices[i][0]])
            if not len(allowed):
                known = self._known()
                return values if known is None else self._write(known)
            indices[i + 1][0] = int(allowed[np.abs(allowed - indices[i + 1][0]).argmin()])
        while not self._scorer.feasible(choices := self._choices(indices)):
            lower = [(i, part) for i, index in enumerate(indices) for part in range(3) if self._can_lower(indices, i, part)]
            if not lower:
                return self._write(self._known() or choices)
            i, part = lower[int(self._generator.integers(len(lower)))]
            indices[i][part] -= 1
        self.feasible = choices
        return self._write(choices)

    def _known(self) -> Choices | None:
        """A design that keeps the budgets, None where none is found."""
        if self.feasible is None and not self._sought:
            self._sought = True
            design = quick_incumbent(self._problem, self._run)
            self.feasible = None if design is None else self.space.encode(design)
        return self.feasible

    def _can_lower(self, indices: list[list[int]], block: int, part: int) -> bool:
        index = indices[block][part]
        if not index:
            return False
        if part:
            return True
        steps = self.space.steps
        left_ok = block == 0 or steps[block - 1][indices[block - 1][0], index - 1]
        return bool(left_ok and (block == self.space.blocks - 1 or steps[block][index - 1, indices[block + 1][0]]))


def operators(designs: MixedDesigns, **mating_options: Any) -> dict[str, Any]:
    """pymoo's operators on mixed variables, every child repaired.

    mating_options: selection, crossover and mutation as `MixedVariableMating` takes them, in place of its defaults
    """
    repair, unlike = _Feasible(designs), MixedVariableDuplicateElimination()
    # The default mating leaves children unrepaired, and tries 100 times over to fill a generation of a space too small for it.
    mating = MixedVariableMating(repair=repair, eliminate_duplicates=unlike, n_max_iterations=10, **mating_options)
    return {"sampling": MixedVariableSampling(), "repair": repair, "eliminate_duplicates": unlike, "mating": mating}


class _Feasible(Repair):
    def __init__(self, designs: MixedDesigns) -> None:
        super().__init__()
        self._designs = designs

    def _do(self, problem: Any, designs: np.ndarray, **kwargs: Any) -> np.ndarray:
        return np.array([self._designs.repair(values) for values in designs], dtype=object)


class _Task(ElementwiseProblem):
    """The design problem as pymoo minimizes it, and the best design seen."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self._run, self._scorer = run, Scorer(problem, run.poll)
        self.designs = MixedDesigns(problem, self._scorer, run)
        self.best: float = -np.inf
        self.best_choices: Choices | None = None
        if run.limits.start is not None:
            self.best_choices = self.designs.feasible
            self.best = problem.objective(run.limits.start)
            run.record(self.best)
        super().__init__(vars=self.designs.variables, n_obj=1)

    def _evaluate(self, x: dict[str, Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = self._score(self.designs.read(x))

    def _score(self, choices: Choices) -> float:
        """−objective, +∞ for the rare design that repair could not mend."""
        self._run.evaluations += 1
        if not self.designs.allows(choices):
            return np.inf
        value = self._scorer.objective(choices)
        if value > self.best:
            self.best, self.best_choices = value, choices
            self._run.record(value)
        return -value
