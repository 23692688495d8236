"""The paper's evolutionary algorithm, as we reconstruct it from its text (MeRino, section 4; its listing is not in our copy)."""

from __future__ import annotations

from bisect import insort
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from formulation import DesignProblem
from formulation.menu import Choices
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

    Each iteration takes a random parent from the best `parents`, mutates one choice of one block (its width, FFN ratio or depth;
    steps between blocks stay allowed), discards the child if it exceeds a budget, else scores it and inserts it; when the
    population exceeds `population` the worst leaves. The first population is `population` random designs that meet the budgets.
    Only where none of many random designs does, it is the one design of `quick_incumbent`, which takes separable and composite
    quantities.

    Attributes:
        population: designs kept; 512 as published.
        parents: the best of them, of which one is mutated; 64 as published.
        iterations: mutations tried; 100,000 as published.
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
            return Answer(None, message=run.why_stopped or "no random design meets the budgets")
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
    """Changes one choice of one block (its width, FFN ratio or depth) to another that the neighbours allow."""

    def __init__(self, problem: DesignProblem) -> None:
        self._space = problem.space
        self._variants = [list(menu.variants.values()) for menu in self._space.menus]
        self._states = [states.tolist() for states in self._space.state_of]
        self._steps = [step.tolist() for step in self._space.steps]

    def __call__(self, parent: Choices, which_block: float, which_choice: float, which_value: float) -> Choices | None:
        """The child for three uniform random numbers in [0, 1); None if that choice of that block can be nothing else."""
        block = int(which_block * len(parent))
        variants = self._variants[block]
        own = variants[int(which_choice * len(variants))][parent[block]]
        left, right = self._open(parent, block)
        states = self._states[block]
        items = [item for item in own if left[states[item]] and right[states[item]]]
        if not items:
            return None
        child = (*parent[:block], items[int(which_value * len(items))], *parent[block + 1 :])
        return child if self._space.has_layer(child) else None

    def _open(self, parent: Choices, block: int) -> tuple[list[bool], list[bool]]:
        """By state of a block: whether it may follow the block before it, and be followed by the next one."""
        states = len(self._space.state_widths[block])
        left = right = [True] * states
        if block:
            left = self._steps[block - 1][self._states[block - 1][parent[block - 1]]]
        if block < len(parent) - 1:
            after = self._states[block + 1][parent[block + 1]]
            right = [row[after] for row in self._steps[block]]
        return left, right
