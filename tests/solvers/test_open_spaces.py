"""Every solver and question where blocks may be left out and steps follow a rule of the user's; brute force gives the truth."""

from __future__ import annotations

import numpy as np
import pytest

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, SearchSpace
from hardware_models import Flops, Params
from solvers import (
    DynamicProgramming,
    Exhaustive,
    Form,
    Limits,
    Scip,
    Status,
    alternatives,
    build_program,
    count_near,
    exact_front,
    exhaustive_front,
    explain_infeasibility,
    nsga2_front,
    program_text,
    solve,
)
from solvers.questions.pareto import values_of
from studies.lessons.branch_and_bound import branch_and_bound, label_setting
from tests.solvers.test_alternatives import check_series
from tests.solvers.test_conformance import EXACT, HEURISTIC
from tests.toys import open_toy

TOYS = range(24)
LIMITS = Limits(seconds=60)


def asks_for_more_than_widths(space: SearchSpace) -> bool:
    return any(len(widths) > len(menu.widths) for widths, menu in zip(space.state_widths, space.menus, strict=True))


def test_toys_are_of_every_kind() -> None:
    toys = [open_toy(number) for number in TOYS]
    spaces = [each.problem.space for each in toys]
    assert {each.optimum is None for each in toys} == {True, False}
    assert {space.may_be_empty for space in spaces} == {True, False}
    assert {space.step is None for space in spaces} == {True, False}
    assert {asks_for_more_than_widths(space) for space in spaces if space.step} == {True, False}
    assert any(len(set(space.menus)) == space.blocks > 1 for space in spaces)
    best = [each.designs[int(np.where(each.feasible, each.objectives, -np.inf).argmax())] for each in toys]
    assert sum(0 in design.depths for design in best) >= 4


ENGINES = [name for name in EXACT if name not in ("exhaustive", "dp", "dp tiny", "dp after ea")]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number, marks=[pytest.mark.slow] if name in ENGINES and number % 4 else [])
        for name in EXACT
        for number in TOYS
    ],
)
def test_exact_solver_proves_the_optimum(name: str, number: int) -> None:
    given = open_toy(number)
    solution = solve(given.problem, EXACT[name], LIMITS)
    if given.optimum is None:
        assert solution.status is Status.INFEASIBLE, solution.message
        return
    assert solution.status is Status.OPTIMAL, solution.message
    assert solution.objective == pytest.approx(given.optimum, rel=1e-6)
    assert solution.bound is not None
    assert solution.bound >= given.optimum * (1 - 1e-12)


@pytest.mark.parametrize("number", TOYS)
@pytest.mark.parametrize("name", HEURISTIC)
def test_heuristic_is_feasible(name: str, number: int) -> None:
    given = open_toy(number)
    solution = solve(given.problem, HEURISTIC[name], Limits(seconds=60, seed=3))
    if given.optimum is None:
        assert solution.architecture is None
        return
    assert solution.architecture in given.designs
    assert solution.objective is not None
    assert solution.objective <= given.optimum * (1 + 1e-12)


@pytest.mark.parametrize("number", TOYS)
def test_the_lesson_proves_the_optimum(number: int) -> None:
    given = open_toy(number)
    for search in (branch_and_bound, label_setting):
        choices = search(given.problem).choices
        assert (choices is None) == (given.optimum is None)
        if choices is not None:
            assert given.problem.objective(given.problem.space.decode(choices)) == pytest.approx(given.optimum, rel=1e-9)


@pytest.mark.parametrize("number", TOYS[::2])
def test_alternatives_and_counts(number: int) -> None:
    given = open_toy(number)
    if given.optimum is None:
        return
    assert count_near(given.problem, given.optimum, 0.1).number == (given.objectives[given.feasible] >= 0.9 * given.optimum).sum()
    differing = min(2, given.problem.space.decisions)
    check_series(given.problem, alternatives(given.problem, 3, differing), differing, 3)


@pytest.mark.parametrize("number", TOYS)
def test_a_conflict_is_one_of_budgets(number: int) -> None:
    given = open_toy(number)
    diagnosis = explain_infeasibility(given.problem)
    assert diagnosis.status is (Status.INFEASIBLE if given.optimum is None else Status.FEASIBLE)
    assert set(diagnosis.conflict) <= set(given.problem.subject_to)
    for need in diagnosis.needs:
        if need.bound is not None:
            others = [budget for budget in given.problem.subject_to if budget is not need.budget]
            kept = [design for design in given.designs if all(budget.value(design) <= budget.limit for budget in others)]
            assert need.bound == pytest.approx(min(map(need.budget.value, kept)), rel=1e-9)


def test_fronts() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1,), (0, 1, 2), step=lambda left, right: right.depth <= left.depth + 1)
    problem = DesignProblem(space, EffectiveEntropy(), minimize=(Flops(), Params()))
    truth = values_of(exhaustive_front(problem))
    front = exact_front(problem)
    assert front.complete
    np.testing.assert_allclose(values_of(front.points), truth, rtol=1e-9)
    near = nsga2_front(problem, Limits(evaluations=200))
    assert all(point.architecture in space for point in near.points)


@pytest.mark.parametrize("name", [*EXACT, *HEURISTIC])
def test_the_least_design_has_one_layer(name: str) -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (0, 1, 2))
    least = min(map(Flops(), space))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), least),))
    solution = solve(problem, {**EXACT, **HEURISTIC}[name], LIMITS)
    assert solution.architecture is not None
    assert sum(solution.architecture.depths) == 1
    none = solve(DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), least * 0.999),)), {**EXACT, **HEURISTIC}[name], LIMITS)
    assert none.architecture is None
    assert none.status is (Status.INFEASIBLE if name in EXACT else Status.UNKNOWN)


@pytest.mark.parametrize("solver", [Exhaustive(), DynamicProgramming()])
def test_a_start_may_name_any_ffn_width_of_a_block_left_out(solver: Exhaustive | DynamicProgramming) -> None:
    space = SearchSpace.uniform(2, (256,), (1, 2), (0, 1))
    start = Architecture((Block(256, 512, 1), Block(256, 1000, 0)))
    solution = solve(DesignProblem(space, Params(), (Budget(Flops(), Flops()(start)),)), solver, Limits(start=start))
    assert solution.status is Status.OPTIMAL
    assert solution.architecture is not None
    assert solution.architecture in set(space)
    assert solution.architecture.depths.count(0) == 1


def test_the_programs_ask_for_a_layer() -> None:
    problem = DesignProblem(SearchSpace.uniform(2, (256, 512), (1, 2), (0, 1)), EffectiveEntropy())
    for form in Form:
        model = build_program(problem, form).model
        assert model.some_layer.lower == 1
    assert "some_layer" in program_text(problem)
    with_layers = DesignProblem(SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2)), EffectiveEntropy())
    assert build_program(with_layers, Form.CHOICE).model.component("some_layer") is None


def test_the_look_up_form_takes_a_rule_for_widths() -> None:
    space = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2), step=lambda left, right: right.width < 2 * left.width)
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 20e9),))
    truth = solve(problem, Exhaustive())
    assert solve(problem, Scip(Form.LOOKUP), LIMITS).objective == pytest.approx(truth.objective, rel=1e-6)
