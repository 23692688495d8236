"""Exact solvers whose work is cut into pieces or ends early: no design is lost between pieces, and bounds stay valid."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from formulation import DesignProblem, EffectiveEntropy, SearchSpace, evaluator
from formulation.derived import LAYERS
from solvers import DynamicProgramming, Exhaustive, Limits, Run, Status, count_designs, solve
from solvers.exact import dynamic_programming, exhaustive
from solvers.exact.bounds import LagrangianBound
from tests.fuzz import Truth, false_claims, truth_of
from tests.solvers.test_dynamic_programming import medium
from tests.toys import toy

SOLVERS = [DynamicProgramming(beam=1), DynamicProgramming(beam=1, rounds=1, steps=3), Exhaustive()]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest pieces of work that there can be."""
    monkeypatch.setattr(dynamic_programming, "_EXTENSIONS", 1)
    monkeypatch.setattr(dynamic_programming, "_PIECE", 1)
    monkeypatch.setattr(dynamic_programming, "_TABLES", 0.0)
    monkeypatch.setattr(exhaustive, "_CHUNK", 1)


@cache
def truth(number: int) -> Truth:
    return truth_of(toy(number).problem)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("evaluations", [1, 4, 30])
def test_a_search_that_ends_early_claims_nothing_false(solver: object, evaluations: int) -> None:
    limits, ended = Limits(gap=0, evaluations=evaluations), set()
    for number in range(12):
        problem = toy(number).problem
        solution = solve(problem, solver, limits)  # type: ignore[arg-type]
        assert false_claims(problem, limits, truth(number), solution) == []
        ended.add(solution.status)
    assert evaluations > 4 or {Status.FEASIBLE, Status.UNKNOWN} & ended


def test_the_last_evaluation_that_is_allowed_may_be_the_proof() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    problem = DesignProblem(space, EffectiveEntropy())
    assert solve(problem, Exhaustive(), Limits(evaluations=space.size)).status is Status.OPTIMAL


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("number", range(20))
def test_pieces_of_the_smallest_size_lose_no_design(number: int) -> None:
    given = toy(number)
    for solver in SOLVERS:
        solution = solve(given.problem, solver, Limits(gap=0))
        assert (solution.objective is None) == (given.optimum is None)
        assert given.optimum is None or solution.objective == pytest.approx(given.optimum, rel=1e-12)
    assert solve(given.problem, Exhaustive()).evaluations == given.problem.space.size
    free = replace(given.problem, subject_to=())
    assert count_designs(free, float(given.objectives.min())).number == given.problem.space.size


@pytest.mark.parametrize("gap", [0.02, 0.1])
@pytest.mark.parametrize("number", range(10))
def test_an_asked_gap_is_reached_and_not_exceeded(gap: float, number: int) -> None:
    given = toy(number)
    solution = solve(given.problem, DynamicProgramming(beam=1), Limits(gap=gap))
    if given.optimum is None:
        assert solution.status is Status.INFEASIBLE
        return
    assert solution.status is Status.OPTIMAL
    assert solution.objective is not None
    assert given.optimum - solution.objective <= gap * abs(solution.objective)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("solver", SOLVERS[:2], ids=lambda solver: solver.name)
@pytest.mark.parametrize("number", [1, 2, 5])
def test_many_pieces_lose_no_design_and_open_ones_are_in_the_bound(number: int, solver: DynamicProgramming) -> None:
    problem = medium(number)
    optimum = solve(problem, Exhaustive()).objective
    assert optimum is not None
    assert solve(problem, solver, Limits(gap=0)).objective == pytest.approx(optimum, rel=1e-12)
    for evaluations in (1, 8):
        solution = solve(problem, solver, Limits(gap=0, evaluations=evaluations))
        assert solution.bound is not None
        assert solution.bound >= optimum * (1 - 1e-9)
        assert solution.objective is None or solution.objective <= optimum * (1 + 1e-12)


@pytest.mark.parametrize("number", range(12))
def test_a_cell_that_is_searched_again_more_finely_is_counted_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    given = toy(number)
    values = given.objectives[given.feasible]
    monkeypatch.setattr(dynamic_programming, "_LEVELS", ((2, 3), (5, 10), (9, 40)))
    for floor in (float(values.min()), float(values.max()) * 0.97) if len(values) else (1.0,):
        count = count_designs(given.problem, floor)
        assert (count.number, count.exact) == (int((values >= floor * (1 - 1e-9)).sum()), True)
    solution = solve(given.problem, DynamicProgramming(beam=1), Limits(gap=0))
    assert given.optimum is None or solution.objective == pytest.approx(given.optimum, rel=1e-12)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("levels", [((2, 10**9),), ((2, 40), (5, 300), (9, 1000))], ids=["one level", "many levels"])
@pytest.mark.parametrize("number", [5, 6, 8])
def test_a_count_in_many_pieces_is_exact(monkeypatch: pytest.MonkeyPatch, number: int, levels: tuple[tuple[int, int], ...]) -> None:
    problem = medium(number)
    monkeypatch.setattr(dynamic_programming, "_LEVELS", levels)
    choices = np.array(list(problem.space.iterate_choices()))
    kept = [evaluator(budget.quantity, problem.space)(choices) <= budget.limit for budget in problem.subject_to]
    values = evaluator(problem.maximize, problem.space)(choices)[np.all(kept, axis=0)]
    for share in (0.03, 0.1):
        floor = float(values.max()) * (1 - share)
        assert count_designs(problem, floor).number == int((values >= floor * (1 - 1e-9)).sum())


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("most", [20, 100])
@pytest.mark.parametrize("number", [5, 6])
def test_what_is_left_of_a_cell_is_in_its_bound(number: int, most: int) -> None:
    """A cell whose labels are put off until the next level: none of its designs exceeds the incumbent and what is left open."""
    problem = medium(number)
    choices = np.array(list(problem.space.iterate_choices()))
    kept = np.all([evaluator(b.quantity, problem.space)(choices) <= b.limit for b in problem.subject_to], axis=0)
    values = np.where(kept, evaluator(problem.maximize, problem.space)(choices), -np.inf)
    depths = evaluator(LAYERS, problem.space)(choices)
    boxes = dynamic_programming._Search(problem, Run(Limits(gap=0)), DynamicProgramming())._boxes()
    for each in range(len(boxes)):
        search = dynamic_programming._Search(problem, Run(Limits(gap=0)), DynamicProgramming())
        search._boxes()
        cells = search._cells(boxes.pick(slice(each, each + 1)))
        left = search._grow_labels(cells, LagrangianBound(search.table, search.allowed, cells), most)
        assert max(left, search.best) >= values[depths == cells.layers[0]].max() * (1 - 1e-9)
