"""Vectors of menu indices as pymoo's genetic algorithms breed them. What they find: `test_conformance.py` and `test_pareto.py`."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.selection.rnd import RandomSelection

from formulation import DesignProblem
from solvers import GeneticAlgorithm, Limits, Status, solve
from solvers.base import Run
from solvers.evaluation import Scorer
from solvers.heuristics.breeding import operators
from solvers.heuristics.design_vectors import DesignVectors
from tests.toys import toy


def _vectors(problem: DesignProblem) -> DesignVectors:
    run = Run(Limits(seed=5))
    return DesignVectors(problem, Scorer(problem, run.poll), run)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_every_design_is_one_vector(number: int) -> None:
    space = toy(number).problem.space
    vectors = _vectors(DesignProblem(space, toy(number).problem.maximize))
    designs = [space.encode(design) for design in toy(number).designs]
    written = [vectors.repair(np.array(vectors._write(choices))) for choices in designs]
    assert [vectors.read(np.array(vector)) for vector in written] == designs
    assert (np.array(written) >= 0).all()
    assert (np.array(written) < vectors.counts).all()


def test_of_equal_designs_the_last_stays() -> None:
    unlike = operators(_vectors(toy(1).problem), RandomSelection(), UX(), PM())["eliminate_duplicates"]
    first = Population.new("X", np.array([[0, 1], [2, 2], [0, 1], [1, 0], [2, 2]]))
    assert list(unlike.do(first)) == [first[2], first[3], first[4]]
    second = Population.new("X", np.array([[1, 0], [0, 0]]))
    assert list(unlike.do(first, second)) == [first[2], first[4]]


def test_a_generation_holds_no_design_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    given = next(toy(number) for number in range(50) if toy(number).optimum is not None and toy(number).feasible.sum() > 100)
    scored: list[tuple[int, ...]] = []
    read = DesignVectors.read

    def reading(self: DesignVectors, vector: np.ndarray) -> tuple[int, ...]:
        scored.append(read(self, vector))
        return scored[-1]

    monkeypatch.setattr(DesignVectors, "read", reading)
    solution = solve(given.problem, GeneticAlgorithm(population=10, evaluations=40), Limits(seed=3))
    assert solution.status is Status.FEASIBLE
    assert len(scored) >= 30
    assert len(set(scored[:10])) == len(scored[:10])  # the first generation
