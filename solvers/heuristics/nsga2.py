"""NSGA-II by pymoo: fronts without proof, on any quantities. Designs are kept feasible by repair, never by penalties."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.selection.tournament import TournamentSelection

from formulation import DesignProblem
from formulation.space import Choices
from solvers.base import Limits, Run, Stopped
from solvers.evaluation import Scorer
from solvers.heuristics.genetic import DesignVectors, operators
from solvers.questions.pareto import Found, Front, check_objectives, non_dominated, point_of


def nsga2_front(problem: DesignProblem, limits: Limits, population: int = 100) -> Front:
    """A front by NSGA-II (Deb et al. 2002) on vectors of menu indices; it proves nothing.

    Every design that no design scored before dominates is kept in an archive outside the population: `points` at the end, `trace`
    over time. The seed decides all random choices, so a run limited by evaluations repeats exactly, and finishes its
    last generation; the clock and Ctrl-C end it within a generation.

    limits      seconds, evaluations or both must be given; `limits.start` enters the archive, and repair may fall back on it
    population  designs per generation

    Raises ValueError where nothing is minimized, an objective is given twice, no limit is given, or the population is below 2.
    """
    check_objectives(problem)
    if limits.seconds is None and limits.evaluations is None:
        raise ValueError("NSGA-II does not end by itself; set limits.seconds or limits.evaluations")
    if population < 2:
        raise ValueError(f"population is {population!r}; expected at least 2")
    run = Run(limits)
    archive = _Archive(run, 1 + len(problem.minimize))
    with run.listening(), suppress(Stopped):
        task = _Task(problem, run, archive)
        # Defaults for integers (simulated binary crossover, spread indices 15 and 20) move so little that on menus of four or five
        # entries rounding takes the child back to its parent: on the paper's space they left 4 to 7 % of the hypervolume where
        # these leave less than 0.3 %, after 10,000 designs.
        mating = TournamentSelection(func_comp=binary_tournament), UX(), PM(eta=3, vtype=float, repair=RoundingRepair())
        algorithm = NSGA2(pop_size=population, **operators(task.designs, *mating))
        algorithm.setup(task, termination=NoTermination(), seed=limits.seed, verbose=False)
        while algorithm.has_next() and not run.stopped:
            algorithm.next()
    points = non_dominated(point_of(problem, problem.space.decode(choices)) for choices in archive.choices)
    message = run.why_stopped or f"no new designs after {run.evaluations:,}"
    if not points:
        message = f"repair found no design that keeps the budgets; {message}"
    return Front(problem, points, (), tuple(archive.trace), run.seconds, run.evaluations, message, run.interrupted)


class _Archive:
    """The non-dominated designs scored so far."""

    def __init__(self, run: Run, objectives: int) -> None:
        self._run = run
        self._losses = np.empty((0, objectives))
        self.choices: list[Choices] = []
        self.trace: list[Found] = []

    def offer(self, choices: Choices, losses: np.ndarray) -> None:
        """Keep a design of these values, all to be minimized, where none kept is at least as good in each."""
        if np.all(self._losses <= losses, axis=1).any():
            return
        kept = ~np.all(losses <= self._losses, axis=1)
        self._losses = np.vstack((self._losses[kept], losses))
        self.choices = [own for own, keep in zip(self.choices, kept, strict=True) if keep] + [choices]
        values = (-float(losses[0]), *map(float, losses[1:]))
        self.trace.append(Found(self._run.seconds, self._run.evaluations, values))


class _Task(Problem):
    """The design problem as pymoo minimizes it: −objective and the costs."""

    def __init__(self, problem: DesignProblem, run: Run, archive: _Archive) -> None:
        self._run, scorer = run, Scorer(problem, run.poll)
        self._readers = [scorer, *(Scorer(DesignProblem(problem.space, quantity), run.poll) for quantity in problem.minimize)]
        self.designs, self.archive = DesignVectors(problem, scorer, run), archive
        start = self.designs.feasible
        if start is not None and self.designs.allows(start):
            self.archive.offer(start, self._losses(start))
        counts = self.designs.counts
        super().__init__(n_var=len(counts), n_obj=len(self._readers), n_ieq_constr=1, xl=0, xu=counts - 1, vtype=int)

    def _losses(self, choices: Choices) -> np.ndarray:
        losses = np.array([reader.objective(choices) for reader in self._readers], dtype=float)
        losses[0] = -losses[0]
        return losses

    def _evaluate(self, vectors: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        scores = [self._score(self.designs.read(vector)) for vector in vectors]
        out["F"] = np.array([losses for losses, _ in scores])
        # The rare design that repair could not mend is no candidate: pymoo ranks it behind all that are.
        out["G"] = np.array([[0.0 if allowed else 1.0] for _, allowed in scores])

    def _score(self, choices: Choices) -> tuple[np.ndarray, bool]:
        """The losses, and whether the design is a candidate; losses of 0 where it is none."""
        self._run.evaluations += 1
        if not self.designs.allows(choices):
            return np.zeros(len(self._readers)), False
        losses = self._losses(choices)
        self.archive.offer(choices, losses)
        return losses, True
