"""pymoo, which breeds designs: generation after generation of vectors of menu places, with operators of our own for what it lacks.

Which designs are scored and how is their callers': `solvers.heuristics.genetic`, `solvers.heuristics.nsga2`. They import this file
when they search, as pymoo takes long to load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pymoo.algorithms.base.genetic import GeneticAlgorithm
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.algorithms.soo.nonconvex.ga import FitnessSurvival
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.infill import InfillCriterion
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.selection import Selection
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.selection.rnd import RandomSelection
from pymoo.operators.selection.tournament import TournamentSelection
from pymoo.termination import get_termination

if TYPE_CHECKING:
    from solvers.heuristics.design_vectors import DesignVectors


def generations(
    designs: DesignVectors, score: Callable[[np.ndarray], float], population: int, evaluations: int, seed: int
) -> Iterator[None]:
    """Breed for one objective, a generation each time that the next one is asked for, until so many `evaluations`.

    Args:
        score: what a vector costs, which is minimized.
    """
    mating = RandomSelection(), SBX(vtype=float, repair=RoundingRepair()), PM(vtype=float, repair=RoundingRepair())
    algorithm = GeneticAlgorithm(population, survival=FitnessSurvival(), **operators(designs, *mating))
    task = _Task(designs, lambda vectors: {"F": [score(vector) for vector in vectors]}, n_obj=1)
    algorithm.setup(task, termination=get_termination("n_eval", evaluations), seed=seed, verbose=False)
    while algorithm.has_next():
        yield
        algorithm.next()


def front_generations(
    designs: DesignVectors,
    score: Callable[[np.ndarray], tuple[np.ndarray, bool]],
    objectives: int,
    population: int,
    seed: int,
) -> Iterator[None]:
    """Breed for many objectives by NSGA-II, a generation each time that the next one is asked for.

    Args:
        score: what a vector loses in each objective, all minimized, and whether it is a candidate at all.
    """
    # Defaults for integers (simulated binary crossover, spread indices 15 and 20) move so little that on menus of four or five
    # entries rounding takes the child back to its parent: on the paper's space they left 4 to 7 % of the hypervolume where
    # these leave less than 0.3 %, after 10,000 designs.
    mating = TournamentSelection(func_comp=binary_tournament), UX(), PM(eta=3, vtype=float, repair=RoundingRepair())
    algorithm = NSGA2(pop_size=population, **operators(designs, *mating))

    def scores(vectors: np.ndarray) -> dict[str, Any]:
        found = [score(vector) for vector in vectors]
        # The rare design that repair could not mend is not a candidate: pymoo ranks it behind all that are.
        return {"F": np.array([losses for losses, _ in found]), "G": np.array([[0.0 if allowed else 1.0] for _, allowed in found])}

    algorithm.setup(_Task(designs, scores, n_obj=objectives, n_ieq_constr=1), termination=NoTermination(), seed=seed, verbose=False)
    while algorithm.has_next():
        yield
        algorithm.next()


class _Task(Problem):
    """Vectors of menu places to be scored."""

    def __init__(self, designs: DesignVectors, scores: Callable[[np.ndarray], dict[str, Any]], **options: int) -> None:
        self._scores = scores
        super().__init__(n_var=len(designs.counts), xl=0, xu=designs.counts - 1, vtype=int, **options)

    def _evaluate(self, vectors: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out.update(self._scores(vectors))


def operators(designs: DesignVectors, selection: Selection, crossover: Crossover, mutation: Mutation) -> dict[str, Any]:
    """What pymoo's genetic algorithms take: sampling, mating and repair of `designs`, of which no two are equal.

    `crossover` and `mutation` act on amounts. Other choices, as FFN ratios, take uniform crossover and mutate to any of the menu.
    """
    repair, unlike = _Feasible(designs), _Unlike()
    # pymoo's mating leaves children unrepaired, and tries 100 times over to fill a generation of a space too small for it.
    mating = _Mating(designs, selection, crossover, mutation, repair=repair, eliminate_duplicates=unlike, n_max_iterations=10)
    return {"sampling": _Sampling(designs), "repair": repair, "eliminate_duplicates": unlike, "mating": mating}


class _Sampling(Sampling):
    """Every index equally likely."""

    def __init__(self, designs: DesignVectors) -> None:
        super().__init__()
        self._counts = designs.counts

    def _do(self, problem: Problem, n_samples: int, *, random_state: np.random.Generator, **kwargs: Any) -> np.ndarray:
        return np.column_stack([random_state.integers(count, size=n_samples) for count in self._counts])


class _Feasible(Repair):
    def __init__(self, designs: DesignVectors) -> None:
        super().__init__()
        self._designs = designs

    def _do(self, problem: Problem, vectors: np.ndarray, **kwargs: Any) -> np.ndarray:
        return np.array([self._designs.repair(vector) for vector in vectors])


class _Unlike(DuplicateElimination):
    """Of equal designs the last stays; those that the other population holds go. pymoo's own compares every pair in Python."""

    def _do(self, pop: Population, other: Population | None, is_duplicate: np.ndarray) -> np.ndarray:
        seen = set() if other is None else {each.X.tobytes() for each in other}
        for i in reversed(range(len(pop))):
            design = pop[i].X.tobytes()
            is_duplicate[i] = design in seen
            if other is None:
                seen.add(design)
        return is_duplicate


class _Mating(InfillCriterion):
    """Two children of two parents. Amounts are crossed and mutated together, other choices one by one."""

    def __init__(
        self, designs: DesignVectors, selection: Selection, crossover: Crossover, mutation: Mutation, **options: Any
    ) -> None:
        super().__init__(**options)
        self._counts, self._selection, self._crossover, self._mutation = designs.counts, selection, crossover, mutation
        self._amounts, self._ratios = np.flatnonzero(designs.ordered), np.flatnonzero(~designs.ordered)
        self._task = Problem(n_var=len(self._amounts), xl=0, xu=self._counts[self._amounts] - 1)

    def _do(
        self, problem: Problem, pop: Population, n_offsprings: int, *, random_state: np.random.Generator, **kwargs: Any
    ) -> Population:
        pairs = math.ceil(n_offsprings / 2)
        parents = self._selection(problem, pop, pairs, 2, to_pop=False, random_state=random_state, **kwargs)
        vectors = pop.get("X")
        children = np.empty((2 * pairs, len(self._counts)), dtype=int)
        if len(self._amounts):
            amounts = Population.new("X", vectors[:, self._amounts])
            amounts = self._crossover(self._task, amounts, parents, random_state=random_state)
            children[:, self._amounts] = self._mutation(self._task, amounts, random_state=random_state).get("X")
        for part in self._ratios:
            own = vectors[:, part][parents.T]
            children[:, part] = _mixed(own, self._counts[part], random_state).ravel()
        return Population.new("X", children[:n_offsprings])


def _mixed(parents: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Children of pairs of parents, one index of a menu of `count` entries each; int arrays of shape (2, pairs).

    Nine pairs of ten are crossed: they swap their indices half of the time. Then every other child's index is drawn anew.
    """
    children = parents.copy()
    crossed = np.less(random.random(parents.shape[1]), 0.9)
    if crossed.any():
        swapped = crossed & (random.random(parents.shape[1]) < 0.5)
        children[:, swapped] = parents[::-1, swapped]
    anew = random.random(children.size).reshape(children.shape) < 0.5
    children[anew] = random.integers(count, size=anew.sum())
    random.random(children.size)  # pymoo asks here which children mutate, and all do: the draw keeps what a seed gives
    return children
