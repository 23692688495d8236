"""Every solver on every toy problem; brute force over the plain definitions gives the truth."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

import solvers
from formulation import PUBLISHED, Agreement, Budget, DesignProblem, EffectiveEntropy, Measured, NotSeparable, SearchSpace
from hardware_models import Flops, Params
from solvers import (
    Automatic,
    Cbc,
    Counts,
    CpSat,
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    Form,
    GeneticAlgorithm,
    Highs,
    Limits,
    RandomSearch,
    Reduction,
    Scip,
    Status,
    solve,
)
from solvers.base import Run
from solvers.exact.counted_problem import CountedProblem
from solvers.exact.multiple_choice import read_multiple_choice
from tests.slow import slow
from tests.toys import RandomCost, Toy, rich_toy, toy

EXACT = {
    "automatic": Automatic(),
    "exhaustive": Exhaustive(),
    "dp": DynamicProgramming(),
    "dp tiny": DynamicProgramming(beam=1, steps=3),
    "dp after ea": DynamicProgramming(warm_start=EvolutionaryAlgorithm(iterations=200)),
    "scip choice": Scip(Form.CHOICE),
    "scip lookup": Scip(Form.LOOKUP),
    "highs": Highs(),
    "cbc": Cbc(),
    "cpsat": CpSat(),
}
HEURISTIC = {
    "ea": EvolutionaryAlgorithm(iterations=1500),
    "ga": GeneticAlgorithm(population=20, evaluations=200),
    "random": RandomSearch(samples=2000),
}
SPECIAL = {"reduction": Reduction(), "counts": Counts()}
"""Exact solvers for problems of some structure; they refuse the others."""


def has_alike_blocks(problem: DesignProblem) -> bool:
    """Whether blocks can be counted."""
    try:
        CountedProblem(problem, Run(Limits()))
    except NotSeparable:
        return False
    return True


READABLE: dict[str, Callable[[DesignProblem], bool]] = {
    "reduction": lambda problem: read_multiple_choice(problem) is not None,
    "counts": has_alike_blocks,
}
"""Which problems each of them is for."""
TOYS = range(50)
ENGINES = ("scip choice", "scip lookup", "cbc", "highs", "cpsat")
"""These start a process or build a program for each toy."""
FEW = (2, 6, 8, 16, 20, 24, 25, 31, 34, 39, 45, 48)
"""Toys of every kind, for those who take their time; all others are slow."""
LIMITS = Limits(seconds=60)


def test_every_solver_is_in_the_table() -> None:
    public = {getattr(solvers, name) for name in solvers.__all__}
    classes = {cls for cls in public if isinstance(cls, type) and hasattr(cls, "search") and cls is not solvers.Solver}
    assert classes == {type(solver) for solver in (*EXACT.values(), *SPECIAL.values(), *HEURISTIC.values())}


@pytest.mark.parametrize("numbers", [TOYS, FEW])
def test_toys_are_of_every_kind(numbers: Sequence[int]) -> None:
    toys = [toy(number) for number in numbers]
    assert sum(each.optimum is None for each in toys) >= 3
    assert {len(each.problem.subject_to) for each in toys} == {1, 2, 3}
    assert any(not each.problem.space.non_decreasing for each in toys)
    assert any(not each.problem.space.shared for each in toys)
    assert {each.problem.space.blocks for each in toys} == {1, 2, 3}
    assert {type(each.problem.maximize) for each in toys} == {EffectiveEntropy, RandomCost}
    assert {type(budget.quantity) for each in toys for budget in each.problem.subject_to} == {Flops, Params, RandomCost}


def on_toys(names: Iterable[str], slowly: Container[str]) -> list[Any]:
    """Pairs of a solver and a toy: a few toys for those that run `slowly`, 50 for the others; the rest of 200 with -m slow."""
    quick = {name: FEW if name in slowly else TOYS for name in names}
    fast = [(name, number) for name, numbers in quick.items() for number in numbers]
    return [*fast, *slow((name, number) for name in names for number in range(200) if number not in quick[name])]


@pytest.mark.parametrize(("name", "number"), on_toys(EXACT, ENGINES))
def test_exact_solver_proves_the_optimum(name: str, number: int) -> None:
    check_proof(toy(number), name)


@pytest.mark.parametrize(("name", "number"), on_toys(EXACT, EXACT))
def test_exact_solver_proves_the_optimum_of_further_decisions(name: str, number: int) -> None:
    check_proof(rich_toy(number), name)


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("kind", [toy, rich_toy])
def test_special_solver_proves_the_optimum_or_refuses(kind: Callable[[int], Toy], name: str) -> None:
    readable = [number for number in TOYS if READABLE[name](kind(number).problem)]
    assert readable
    for number in readable:
        check_proof(kind(number), name)
    for number in {*FEW} - {*readable}:
        with pytest.raises(NotSeparable, match="use DynamicProgramming"):
            solve(kind(number).problem, SPECIAL[name])


def check_proof(given: Toy, name: str) -> None:
    """What an exact solver proves of a toy is what brute force says."""
    solution = solve(given.problem, {**EXACT, **SPECIAL}[name], LIMITS)
    if given.optimum is None:
        assert solution.status is Status.INFEASIBLE, solution.message
        assert solution.architecture is None
        assert solution.objective is None
        return
    assert solution.status is Status.OPTIMAL, solution.message
    assert solution.objective == pytest.approx(given.optimum, rel=1e-6)
    assert solution.bound is not None
    assert solution.bound >= given.optimum * (1 - 1e-12)
    assert solution.gap is not None
    assert solution.gap <= 1e-6
    assert all(usage.within for usage in solution.usage)
    bounds = [point.bound for point in solution.trace if point.bound is not None]
    assert all(bound >= given.optimum * (1 - 1e-6) for bound in bounds)


@pytest.mark.parametrize(("name", "number"), on_toys(HEURISTIC, ("ga",)))
def test_heuristic_is_feasible_and_repeats(name: str, number: int) -> None:
    given = toy(number)
    solution = solve(given.problem, HEURISTIC[name], Limits(seconds=60, seed=3))
    if given.optimum is None:
        assert solution.status is Status.UNKNOWN
        return
    assert solution.bound is None
    assert solution.status is Status.FEASIBLE, solution.message
    assert solution.objective is not None
    assert solution.objective <= given.optimum * (1 + 1e-12)
    again = solve(given.problem, HEURISTIC[name], Limits(seconds=60, seed=3))
    assert (again.architecture, again.evaluations) == (solution.architecture, solution.evaluations)


@pytest.mark.parametrize("name", [*EXACT, *HEURISTIC])
def test_start_is_never_lost(name: str) -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 40e9),))
    best = solve(problem, Exhaustive()).architecture
    solver = {**EXACT, **HEURISTIC}[name]
    solution = solve(problem, solver, Limits(seconds=60, start=best))
    assert solution.objective == pytest.approx(problem.maximize(best), rel=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_a_quantity_may_tell_positions_apart(name: str) -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
    best = solve(DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 40e9),)), Exhaustive()).architecture
    assert best is not None
    differing = Budget(Agreement(best), 6 - 3)
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 40e9), differing))
    truth = max(problem.maximize(design) for design in space if problem.evaluate(design).feasible)
    solution = solve(problem, EXACT[name], LIMITS)
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("name", [key for key in (*EXACT, *SPECIAL) if key not in ("automatic", "exhaustive")])
def test_black_box_is_refused_with_advice(name: str) -> None:
    space = SearchSpace.uniform(2, (512,), (1,), (1, 2))
    problem = DesignProblem(space, Measured("latency", "s", lambda design: -float(sum(design.depths))))
    with pytest.raises(NotSeparable, match="EvolutionaryAlgorithm"):
        solve(problem, {**EXACT, **SPECIAL}[name])


@pytest.mark.parametrize("name", ["automatic", "exhaustive", *HEURISTIC])
def test_black_box_is_searched(name: str) -> None:
    space = SearchSpace.uniform(2, (512, 640), (1,), (1, 2, 3))
    budget = Budget(Measured("latency", "s", lambda design: float(sum(design.depths))), 4)
    problem = DesignProblem(space, EffectiveEntropy(), (budget,))
    truth = max(problem.maximize(design) for design in space if sum(design.depths) <= 4)
    solution = solve(problem, {**EXACT, **HEURISTIC}[name], LIMITS)
    assert solution.objective == pytest.approx(truth)


@pytest.mark.parametrize("name", ["automatic", "dp", "exhaustive"])
def test_composite_budget(name: str) -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
    composite = EffectiveEntropy(alpha=(0.5, 0.5), rho=0.1)
    problem = DesignProblem(space, Params(), (Budget(composite, 20_000),))
    truth = max(Params()(design) for design in space if composite(design) <= 20_000)
    solution = solve(problem, EXACT[name], LIMITS)
    assert solution.status is Status.OPTIMAL
    assert solution.objective == truth


@pytest.mark.parametrize("flops", [60e9, 110e9, 160e9])
def test_dynamic_programming_is_right_on_the_paper_space(flops: float) -> None:
    from formulation import paper_space

    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), flops),))
    truth, solution = solve(problem, Exhaustive()), solve(problem, DynamicProgramming())
    assert solution.status is truth.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(truth.objective, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("flops", [60e9, 110e9, 160e9])
@pytest.mark.parametrize("name", ["scip choice", "scip lookup", "highs", "cbc", "cpsat"])
def test_engines_agree_on_the_paper_space(name: str, flops: float) -> None:
    from formulation import paper_space

    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), flops),))
    truth, solution = solve(problem, Exhaustive()), solve(problem, EXACT[name], Limits(seconds=300))
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(truth.objective, rel=1e-6)


def test_loosening_a_budget_never_lowers_the_optimum() -> None:
    space = SearchSpace.uniform(3, (512, 640, 768), (1, 2), (1, 2, 3))
    last = -np.inf
    for upper in np.linspace(30e9, 120e9, 12):
        solution = solve(
            DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), upper), Budget(Params(), 56e6))), DynamicProgramming()
        )
        value = -np.inf if solution.objective is None else solution.objective
        assert value >= last
        last = value


def test_published_designs_lie_below_the_optimum_under_their_own_counts() -> None:
    from formulation import paper_space

    for design in PUBLISHED.values():
        budgets = (Budget(Flops(), Flops()(design)), Budget(Params(), Params()(design)))
        solution = solve(DesignProblem(paper_space(), EffectiveEntropy(), budgets), DynamicProgramming())
        assert solution.status is Status.OPTIMAL
        assert 0.0 < 1 - EffectiveEntropy()(design) / solution.objective < 0.1
