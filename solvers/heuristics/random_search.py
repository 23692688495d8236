"""Random search: designs drawn uniformly from the space; the yardstick that any heuristic must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from formulation import DesignProblem
from solvers.base import Answer, Run, Stopped
from solvers.evaluation import Vectorised, decode_best

_BATCH = 4096


@dataclass(frozen=True)
class RandomSearch:
    """Scores `samples` uniform designs, in batches; keeps the best that meets the budgets.

    It borrows no other method's incumbent, even where no sample meets the budgets: it is what chance finds.

    Attributes:
        samples: designs to draw, 100,000 as the paper's algorithm takes iterations.
    """

    samples: int = 100_000

    name = "random search"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Finds, proves nothing."""
        evaluate = Vectorised(problem, run.poll)
        generator = np.random.default_rng(run.limits.seed)
        allowed = min(self.samples, run.limits.evaluations or self.samples)
        best: float = -np.inf
        best_choices = None
        if run.limits.start is not None:
            best_choices = problem.space.encode(run.limits.start)
            best = problem.objective(run.limits.start)
            run.record(best)
        while run.evaluations < allowed and not run.stopped:
            choices = problem.space.sample(generator, min(_BATCH, allowed - run.evaluations))
            for portion in evaluate.portions(choices):
                try:
                    feasible = portion[evaluate.feasible(portion)]
                    values = evaluate.objective(feasible)
                except Stopped:
                    break
                run.evaluations += len(portion)
                if len(values) and values[winner := int(values.argmax())] > best:
                    best, best_choices = float(values[winner]), tuple(map(int, feasible[winner]))
                    run.record(best)
        return Answer(decode_best(problem, best_choices), message=run.why_stopped or f"{run.evaluations:,} samples drawn")
