"""The paper's evolutionary algorithm, as we reconstruct it from its text (MeRino, section 4; its listing is not in our copy)."""

from __future__ import annotations

from bisect import insort
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np

from formulation import DesignProblem
from formulation.space import Choices
from solvers.base import Answer, Run, Stopped
from solvers.evaluation import Scorer, Vectorised, decode_best, is_tabular
from solvers.incumbent import quick_incumbent

_DRAWS = 4096
_ENOUGH_DRAWS = 16 * _DRAWS
"""Random designs drawn to fill the first population: then those found are enough, or another method finds the first."""
_MOST_DRAWS = 1 << 20
"""Random designs drawn at most to find a first one with black boxes, for which there is no other method."""


@dataclass(frozen=True)
class EvolutionaryAlgorithm:
    """Steady-state evolution by mutation alone.

    Each iteration takes a random parent from the best `parents`, mutates one block (its width, FFN ratio or depth, widths
    staying in allowed steps), discards the child if it breaks a budget, else scores it and inserts it; when the population
    exceeds `population` the worst leaves. The first population is `population` random designs that keep the budgets. Only where
    none of many random designs does, it is the one design of `quick_incumbent`, which takes separable and composite quantities.

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
        scorer = Scorer(problem, run.poll)
        # Ranked best first: (−objective, choices).
        ranked = self._first_population(problem, run, scorer, generator)
        if not ranked:
            return Answer(None, message=run.why_stopped or "no random design keeps the budgets")
        mutate = _Mutation(problem)
        batch, draws = 1 << 14, np.empty((0, 4))
        done = 0
        for done in range(self.iterations):
            if run.stopped:
                break
            if not done % batch:
                draws = generator.random((min(batch, self.iterations - done), 4))
            draw = draws[done % batch]
            parent = ranked[int(draw[0] * min(self.parents, len(ranked)))][1]
            child = mutate(parent, draw[1], draw[2], draw[3])
            try:
                if child is None or not scorer.feasible(child):
                    continue
                value = scorer.objective(child)
            except Stopped:
                break
            run.evaluations += 1
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
        evaluate = Vectorised(problem, run.poll)
        found: list[Choices] = []
        if run.limits.start is not None:
            found.append(problem.space.encode(run.limits.start))
        tabular = is_tabular(problem)
        with suppress(Stopped):
            for drawn in range(0, _MOST_DRAWS, _DRAWS):
                if len(found) >= self.population or (drawn >= _ENOUGH_DRAWS and (found or tabular)):
                    break
                run.poll()
                for portion in evaluate.portions(problem.space.sample(generator, _DRAWS)):
                    if len(found) < self.population:
                        found += [tuple(row) for row in portion[evaluate.feasible(portion)].tolist()]
        if not found and (design := quick_incumbent(problem, run)) is not None:
            found = [problem.space.encode(design)]
        ranked: list[tuple[float, Choices]] = []
        with suppress(Stopped):
            for choices in found[: self.population]:
                insort(ranked, (-scorer.objective(choices), choices))
                run.evaluations += 1
                run.record(-ranked[0][0])
        return ranked


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
