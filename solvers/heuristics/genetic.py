"""Genetic algorithm by pymoo over vectors of menu places; designs are kept feasible by repair, never by penalties.

What is pymoo's is `solvers.heuristics.breeding`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from formulation import DesignProblem
from formulation.menu import Choices
from solvers.base import Answer, Run, Stopped
from solvers.evaluation import Scorer, decode_best
from solvers.heuristics.design_vectors import DesignVectors


@dataclass(frozen=True)
class GeneticAlgorithm:
    """pymoo's genetic algorithm (Blank & Deb 2020): uniform and simulated binary crossover, mutation, elitism.

    An integer per block and axis of its menu: the places of its width, FFN ratio and depth.

    Attributes:
        population: designs per generation.
        evaluations: designs scored before it ends, unless a limit ends it earlier.
    """

    population: int = 100
    evaluations: int = 5_000

    name = "genetic (pymoo)"
    distributions = ("pymoo",)

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Finds, proves nothing."""
        with run.loading():
            from solvers.heuristics.breeding import generations

        task = _Task(problem, run)
        with suppress(Stopped):
            for _ in generations(task.designs, task.score, self.population, self.evaluations, run.limits.seed):
                if run.stopped:
                    break
        message = run.why_stopped or f"{run.evaluations:,} designs scored"
        if task.best_choices is None and task.designs.feasible is not None:
            # Stopped before the first generation was scored.
            task.best_choices = task.designs.feasible
            run.record(problem.objective(problem.space.decode(task.best_choices)))
        if task.best_choices is None:
            message = f"repair found no design that meets the budgets; {message}"
        return Answer(decode_best(problem, task.best_choices), message=message)


class _Task:
    """The design problem as it is bred for, and the best design seen."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self._run, self._scorer = run, Scorer(problem, run.poll)
        self.designs = DesignVectors(problem, self._scorer, run)
        self.best: float = -np.inf
        self.best_choices: Choices | None = None
        if run.limits.start is not None:
            self.best_choices = self.designs.feasible
            self.best = problem.objective(run.limits.start)
            run.record(self.best)

    def score(self, vector: np.ndarray) -> float:
        """−objective, +∞ for the rare design that repair could not mend."""
        choices = self.designs.read(vector)
        self._run.evaluations += 1
        if not self.designs.allows(choices):
            return np.inf
        value = self._scorer.objective(choices)
        if value > self.best:
            self.best, self.best_choices = value, choices
            self._run.record(value)
        return -value
