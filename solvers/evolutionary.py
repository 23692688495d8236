"""The paper's evolutionary algorithm, as we reconstruct it from its text (MeRino, section 4; its listing is not in our copy)."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from itertools import product

import numpy as np

from formulation import DesignProblem
from formulation.space import Choices
from solvers.base import Answer, Run
from solvers.evaluation import Scorer, Vectorised, decode_best

_DRAWS = 4096
_MOST_DRAWS = 1 << 20
"""Random designs drawn at most to fill the first population."""


@dataclass(frozen=True)
class EvolutionaryAlgorithm:
    """Steady-state evolution by mutation alone.

    Each iteration takes a random parent from the best `parents`, mutates one block (its width, FFN ratio or depth, widths
    staying in allowed steps), discards the child if it breaks a budget, else scores it and inserts it; when the population
    exceeds `population` the worst leaves. The first population is `population` random designs that keep the budgets.

    population, parents, iterations  as published: 512, 64, 100,000
    """

    population: int = 512
    parents: int = 64
    iterations: int = 100_000

    name = "evolutionary (paper)"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Finds, proves nothing."""
        generator = np.random.default_rng(run.limits.seed)
        scorer = Scorer(problem)
        # Ranked best first: (−objective, choices).
        ranked = self._first_population(problem, run, scorer, generator)
        if not ranked:
            return Answer(None, message=run.why_stopped or f"none of {_MOST_DRAWS:,} random designs keeps the budgets")
        run.record(-ranked[0][0])
        mutate = _Mutation(problem)
        batch, draws = 1 << 14, np.empty((0, 4))
        done = 0
        for done in range(self.iterations):
            if not done % 64 and run.stopped:
                break
            if not done % batch:
                draws = generator.random((min(batch, self.iterations - done), 4))
            draw = draws[done % batch]
            parent = ranked[int(draw[0] * min(self.parents, len(ranked)))][1]
            child = mutate(parent, draw[1], draw[2], draw[3])
            if child is None or not scorer.feasible(child):
                continue
            run.evaluations += 1
            value = scorer.objective(child)
            if value > -ranked[0][0]:
                run.record(value)
            insort(ranked, (-value, child))
            if len(ranked) > self.population:
                ranked.pop()
        message = run.why_stopped or f"{self.iterations:,} iterations done"
        return Answer(decode_best(problem, ranked[0][1]), message=message)

    def _first_population(
        self, problem: DesignProblem, run: Run, scorer: Scorer, generator: np.random.Generator
    ) -> list[tuple[float, Choices]]:
        evaluate = Vectorised(problem)
        found: list[Choices] = []
        if run.limits.start is not None:
            found.append(problem.space.encode(run.limits.start))
        drawn = 0
        while len(found) < self.population and drawn < _MOST_DRAWS and not run.stopped:
            if drawn >= 16 * _DRAWS and found:
                break
            choices = problem.space.sample(generator, _DRAWS)
            drawn += _DRAWS
            found += [tuple(row) for row in choices[evaluate.feasible(choices)].tolist()]
        found = found[: self.population]
        run.evaluations += len(found)
        return sorted((-scorer.objective(choices), choices) for choices in found)


class _Mutation:
    """Changes one of width, FFN ratio and depth of one block to another value that the neighbours allow."""

    def __init__(self, problem: DesignProblem) -> None:
        self._shapes = [menu.shape for menu in problem.space.menus]
        self._steps = [step.tolist() for step in problem.space.steps]
        self._indices = [list(product(*map(range, menu.shape))) for menu in problem.space.menus]

    def __call__(self, parent: Choices, which_block: float, which_part: float, which_value: float) -> Choices | None:
        """The child for three uniform random numbers in [0, 1); None where that part of that block can be nothing else."""
        block = int(which_block * len(parent))
        part = int(which_part * 3)
        index = list(self._indices[block][parent[block]])
        if part == 0:
            values = [w for w in range(self._shapes[block][0]) if w != index[0] and self._fits(parent, block, w)]
        else:
            values = [value for value in range(self._shapes[block][part]) if value != index[part]]
        if not values:
            return None
        index[part] = values[int(which_value * len(values))]
        _, ratios, depths = self._shapes[block]
        item = (index[0] * ratios + index[1]) * depths + index[2]
        return (*parent[:block], item, *parent[block + 1 :])

    def _fits(self, parent: Choices, block: int, width: int) -> bool:
        left_ok = block == 0 or self._steps[block - 1][self._indices[block - 1][parent[block - 1]][0]][width]
        last = block == len(parent) - 1
        return left_ok and (last or self._steps[block][width][self._indices[block + 1][parent[block + 1]][0]])
