"""NSGA-II by pymoo: fronts without proof, on any quantities. Designs are kept feasible by repair, never by penalties."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from formulation import DesignProblem
from formulation.menu import Choices
from solvers.base import Limits, Run, Stopped
from solvers.evaluation import Scorer
from solvers.heuristics.design_vectors import DesignVectors
from solvers.questions.pareto import Found, Front, check_objectives, non_dominated, point_of


def nsga2_front(problem: DesignProblem, limits: Limits, population: int = 100) -> Front:
    """A front by NSGA-II (Deb et al. 2002) on vectors of menu indices; it proves nothing.

    Every design that no design scored before dominates is kept in an archive outside the population: `points` at the end, `trace`
    over time. The seed decides all random choices, so a run limited by evaluations repeats exactly, and finishes its
    last generation; the clock and Ctrl-C end it within a generation.

    Args:
        limits: seconds, evaluations or both must be given; `limits.start` enters the archive, and repair may fall back on it.
        population: designs per generation.

    Raises:
        ValueError: if nothing is minimized, an objective is given twice, no limit is given, or the population is below 2.
    """
    from solvers.heuristics.breeding import front_generations

    check_objectives(problem)
    if limits.seconds is None and limits.evaluations is None:
        raise ValueError("NSGA-II does not end by itself; set limits.seconds or limits.evaluations")
    if population < 2:
        raise ValueError(f"population is {population!r}; expected at least 2")
    run = Run(limits)
    archive = _Archive(run, 1 + len(problem.minimize))
    with run.listening(), suppress(Stopped):
        task = _Task(problem, run, archive)
        for _ in front_generations(task.designs, task.score, 1 + len(problem.minimize), population, limits.seed):
            if run.stopped:
                break
    points = non_dominated(point_of(problem, problem.space.decode(choices)) for choices in archive.choices)
    message = run.why_stopped or f"no new designs after {run.evaluations:,}"
    if not points:
        message = f"repair found no design that meets the budgets; {message}"
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


class _Task:
    """The design problem as it is bred for: −objective and the costs."""

    def __init__(self, problem: DesignProblem, run: Run, archive: _Archive) -> None:
        self._run, scorer = run, Scorer(problem, run.poll)
        self._readers = [scorer, *(Scorer(DesignProblem(problem.space, quantity), run.poll) for quantity in problem.minimize)]
        self.designs, self.archive = DesignVectors(problem, scorer, run), archive
        start = self.designs.feasible
        if start is not None and self.designs.allows(start):
            self.archive.offer(start, self._losses(start))

    def _losses(self, choices: Choices) -> np.ndarray:
        losses = np.array([reader.objective(choices) for reader in self._readers], dtype=float)
        losses[0] = -losses[0]
        return losses

    def score(self, vector: np.ndarray) -> tuple[np.ndarray, bool]:
        """The losses, and whether the design is a candidate; losses of 0 where it is none."""
        choices = self.designs.read(vector)
        self._run.evaluations += 1
        if not self.designs.allows(choices):
            return np.zeros(len(self._readers)), False
        losses = self._losses(choices)
        self.archive.offer(choices, losses)
        return losses, True
