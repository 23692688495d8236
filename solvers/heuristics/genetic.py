"""Genetic algorithm by pymoo over vectors of menu places; designs are kept feasible by repair, never by penalties."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from pymoo.algorithms.base import genetic as pymoo_genetic
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
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.selection.rnd import RandomSelection
from pymoo.termination import get_termination

from formulation import DesignProblem
from formulation.space import Choices, Menu
from solvers.base import Answer, Run, Stopped
from solvers.evaluation import Scorer, decode_best
from solvers.incumbent import quick_incumbent


@dataclass(frozen=True)
class GeneticAlgorithm:
    """pymoo's genetic algorithm (Blank & Deb 2020): uniform and simulated binary crossover, mutation, elitism.

    An integer per block and axis of its menu: the places of its width, FFN ratio and depth.

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
        mating = RandomSelection(), SBX(vtype=float, repair=RoundingRepair()), PM(vtype=float, repair=RoundingRepair())
        algorithm = pymoo_genetic.GeneticAlgorithm(self.population, survival=FitnessSurvival(), **operators(task.designs, *mating))
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


class DesignVectors:
    """Designs as vectors of menu places, and their repair: what the genetic algorithms of one and of many objectives share.

    A vector holds for each block, and each axis of its menu, the place of what was chosen among the axis' entries.

    counts    entries of each axis, int array (entries of a vector,)
    ordered   which axes are amounts, whole numbers such as widths, whose neighbours in the menu are alike; bool, of the same shape
    feasible  the last design that kept every budget: `limits.start`, then what repair made; None before there is one

    Where the first repair fails, `quick_incumbent` finds the first such design, of separable and composite quantities.
    """

    def __init__(self, problem: DesignProblem, scorer: Scorer, run: Run) -> None:
        self.space, self._scorer = problem.space, scorer
        self._problem, self._run, self._sought = problem, run, False
        self._generator = np.random.default_rng(run.limits.seed)
        axes = [entries for menu in self.space.menus for entries in menu.axes.values()]
        self.counts = np.array([len(entries) for entries in axes])
        self.ordered = np.array([all(type(entry) is int for entry in entries) for entries in axes])
        known = {menu: _Places(menu) for menu in dict.fromkeys(self.space.menus)}
        self._places = [known[menu] for menu in self.space.menus]
        self._steps = [step.tolist() for step in self.space.steps]
        self._states = [states.tolist() for states in self.space.state_of]
        self._nearest: dict[tuple[int, int, int], int | None] = {}
        start = run.limits.start
        self.feasible: Choices | None = None if start is None else problem.space.encode(start)

    def read(self, vector: np.ndarray) -> Choices:
        """The design of a vector."""
        places, choices = iter(vector.tolist()), []
        for own in self._places:
            choices.append(own.item_at[tuple(next(places) for _ in own.axes)])
        return tuple(choices)

    def _write(self, choices: Choices) -> list[int]:
        return [place for own, item in zip(self._places, choices, strict=True) for place in own.of_item[item]]

    def allows(self, choices: Choices) -> bool:
        """Whether the design is in the space and keeps every budget; False for the rare one that repair could not mend."""
        return self.space.allows(choices) and self._scorer.feasible(choices)

    def repair(self, vector: np.ndarray) -> list[int]:
        """A feasible design near `vector`.

        Each block moves to the nearest one that may follow its neighbour, and a block gets a layer where none has one; then random
        choices of random blocks go one menu entry down until the budgets are kept. Where nothing is left to lower, a feasible
        design seen before takes its place.
        """
        self._run.poll()
        choices = self._in_space(self.read(vector))
        if choices is None:
            known = self._known()
            return vector.tolist() if known is None else self._write(known)
        while not self._scorer.feasible(choices):
            lower = [
                other
                for block, item in enumerate(choices)
                for below in self._places[block].below[item]
                if (other := self._changed(choices, block, below)) is not None
            ]
            if not lower:
                return self._write(self._known() or choices)
            choices = lower[int(self._generator.integers(len(lower)))]
        self.feasible = choices
        return self._write(choices)

    def _in_space(self, choices: Choices) -> Choices | None:
        """A design near some items, block by block; None where a block has no successor, or none gets a layer."""
        mended = list(choices)
        for block in range(1, len(mended)):
            nearest = self._near(block, self._states[block - 1][mended[block - 1]], mended[block])
            if nearest is None:
                return None
            mended[block] = nearest
        found = tuple(mended)
        if self.space.has_layer(found):
            return found
        deeper = (
            self._changed(found, block, item)
            for block, menu in enumerate(self.space.menus)
            for item in menu.variants["depth"][found[block]]
        )
        return next((other for other in deeper if other is not None), None)

    def _near(self, block: int, left: int, item: int) -> int | None:
        """The nearest item that may follow a state of the block before, None where none may.

        That is one of the nearest width, of these one whose other choices are nearest, of these the first.
        """
        key = block, left, item
        if key not in self._nearest:
            allowed = np.flatnonzero(self.space.steps[block - 1][left][self.space.state_of[block]])
            self._nearest[key] = self._places[block].nearest(item, allowed)
        return self._nearest[key]

    def _known(self) -> Choices | None:
        """A design that keeps the budgets, None where none is found."""
        if self.feasible is None and not self._sought:
            self._sought = True
            design = quick_incumbent(self._problem, self._run)
            self.feasible = None if design is None else self.space.encode(design)
        return self.feasible

    def _changed(self, choices: Choices, block: int, item: int) -> Choices | None:
        """A design with another item in one block; None where a neighbour does not allow it, or no block has a layer then."""
        state = self._states[block][item]
        if block and not self._steps[block - 1][self._states[block - 1][choices[block - 1]]][state]:
            return None
        if block < len(choices) - 1 and not self._steps[block][state][self._states[block + 1][choices[block + 1]]]:
            return None
        other = (*choices[:block], item, *choices[block + 1 :])
        return other if self.space.has_layer(other) else None


class _Places:
    """A menu as places on its axes.

    axes     names of the axes
    item_at  the item at a place on each axis
    of_item  the places of each item, 0 where one means nothing
    below    by item those that are one entry lower in one choice
    """

    def __init__(self, menu: Menu) -> None:
        self.axes = tuple(menu.axes)
        counts = (range(len(entries)) for entries in menu.axes.values())
        self.item_at = {places: menu.at(dict(zip(self.axes, places, strict=True))) for places in product(*counts)}
        self._all = np.column_stack([menu.places[name] for name in self.axes])
        self.of_item = np.maximum(self._all, 0).tolist()
        self.below = [
            [self._lower(item, axis) for axis in range(len(self.axes)) if self._all[item, axis] > 0] for item in range(len(menu))
        ]

    def _lower(self, item: int, axis: int) -> int:
        places = list(self.of_item[item])
        places[axis] -= 1
        return self.item_at[tuple(places)]

    def nearest(self, item: int, among: np.ndarray) -> int | None:
        """Of some items the nearest to one, by its first axis, the width, before all others."""
        if not len(among):
            return None
        apart = np.where((self._all[among] < 0) | (self._all[item] < 0), 0, np.abs(self._all[among] - self._all[item]))
        return int(among[np.lexsort((apart[:, 1:].sum(axis=1), apart[:, 0]))[0]])


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


class _Task(Problem):
    """The design problem as pymoo minimizes it, and the best design seen."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self._run, self._scorer = run, Scorer(problem, run.poll)
        self.designs = DesignVectors(problem, self._scorer, run)
        self.best: float = -np.inf
        self.best_choices: Choices | None = None
        if run.limits.start is not None:
            self.best_choices = self.designs.feasible
            self.best = problem.objective(run.limits.start)
            run.record(self.best)
        super().__init__(n_var=len(self.designs.counts), n_obj=1, xl=0, xu=self.designs.counts - 1, vtype=int)

    def _evaluate(self, vectors: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        out["F"] = [self._score(self.designs.read(vector)) for vector in vectors]

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
