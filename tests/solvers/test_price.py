"""The price of budgets: the value function against brute force over the plain definitions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from formulation import Budget, DesignProblem, EffectiveEntropy, Measured, SearchSpace
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Highs, Limits, RandomSearch, Solver, Status, solve
from solvers.questions.price import Price, price_of_budgets
from tests.slow import slow
from tests.toys import RandomCost, toy

SPACE = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 3))


def truth(problem: DesignProblem, number: int) -> list[tuple[float, float]]:
    """All breakpoints (upper, objective) of one budget's value function, by brute force."""
    others = replace(problem, subject_to=tuple(b for i, b in enumerate(problem.subject_to) if i != number))
    quantity = problem.subject_to[number].quantity
    points = sorted((quantity(d), -problem.maximize(d)) for d in problem.space if others.evaluate(d).feasible)
    steps: list[tuple[float, float]] = []
    for upper, negative in points:
        if not steps or -negative > steps[-1][1] + 1e-12 * abs(negative):
            if steps and upper <= steps[-1][0] * (1 + 1e-11):
                steps.pop()
            steps.append((upper, -negative))
    return steps


def check(problem: DesignProblem, number: int, price: Price, steps: int, reach: float) -> None:
    every = truth(problem, number)
    budget = problem.subject_to[number]
    here = max(i for i, (upper, _) in enumerate(every) if upper <= budget.limit)
    end = max(budget.upper * reach, budget.upper)
    below, above = every[max(here - steps, 0) : here], [point for point in every[here + 1 :] if point[0] <= end][:steps]
    found = [(point.bound, point.objective) for point in price.breakpoints]
    assert found == pytest.approx(np.array([*below, every[here], *above]), rel=1e-9)
    assert price.slack == pytest.approx(budget.upper - every[here][0], abs=1e-9 * max(budget.upper, 1))
    assert price.binds is (here < len(every) - 1)
    assert price.unlimited == pytest.approx(every[-1][1], rel=1e-9)
    assert all(point.proved for point in price.breakpoints)
    assert price.floor is (steps >= here and len(price.below) == here)
    assert math.isinf(price.explored) is (here + len(above) == len(every) - 1)
    for point in price.breakpoints:
        budgets = list(problem.subject_to)
        budgets[number] = Budget(budget.quantity, point.bound)
        assert replace(problem, subject_to=tuple(budgets)).evaluate(point.architecture).feasible


SOLVABLE = [number for number in range(24) if toy(number).optimum is not None]


@pytest.mark.parametrize("number", [*SOLVABLE[::3], *slow(each for each in SOLVABLE if each not in SOLVABLE[::3])])
def test_the_whole_value_function(number: int) -> None:
    problem = toy(number).problem
    for k, price in enumerate(price_of_budgets(problem, steps=1000, reach=1e3)):
        check(problem, k, price, 1000, 1e3)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("number", [3, 8, 12, 24, 30])
def test_the_nearest_steps(number: int, steps: int) -> None:
    problem = toy(number).problem
    for k, price in enumerate(price_of_budgets(problem, steps=steps, reach=1.5)):
        every = truth(problem, k)
        found = price.breakpoints
        here = next(i for i, point in enumerate(every) if point[0] == pytest.approx(price.present.bound, rel=1e-11))
        expected = every[max(here - steps, 0) : here + len(price.above) + 1]
        assert [(p.bound, p.objective) for p in found] == pytest.approx(np.array(expected), rel=1e-9)
        assert len(price.above) <= steps
        # Nothing within reach is left out.
        if len(price.above) < steps and here + len(price.above) + 1 < len(every):
            assert every[here + len(price.above) + 1][0] > 1.5 * price.budget.upper


@pytest.mark.parametrize("solver", [Exhaustive(), Highs()], ids=lambda solver: solver.name)
def test_other_solvers_agree(solver: Solver) -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 40e9), Budget(Params(), 50e6)))
    gap = 1e-6 if solver == Highs() else 0.0
    prices = price_of_budgets(problem, steps=1), price_of_budgets(problem, solver, Limits(gap=gap), steps=1)
    for ours, theirs in zip(*prices, strict=True):
        assert not ours.limited
        assert [p.bound for p in theirs.breakpoints] == pytest.approx([p.bound for p in ours.breakpoints])
        assert theirs.binds is ours.binds


def test_a_maximum_and_a_composite_have_a_price() -> None:
    budgets = (Budget(RandomCost(4, maximum=True), 3.0), Budget(EffectiveEntropy(rho=0.1), 15_000))
    problem = DesignProblem(SPACE, Params(), budgets)
    for k, price in enumerate(price_of_budgets(problem, steps=100, reach=100)):
        check(problem, k, price, 100, 100)


def test_a_budget_of_nothing_has_a_price() -> None:
    wide = Measured("wide blocks", "blocks", lambda design: float(sum(width > 256 for width in design.widths)))
    price = price_of_budgets(DesignProblem(SPACE, Params(), (Budget(wide, 0),)), Exhaustive())[0]
    assert [point.bound for point in price.breakpoints] == [0, 1, 2]
    assert price.floor
    assert price.binds


def test_what_is_known_is_not_solved_again() -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 40e9),))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0))
    assert price_of_budgets(problem, optimum=optimum) == price_of_budgets(problem)


def test_a_heuristic_prices_nothing() -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 40e9),))
    price = price_of_budgets(problem, RandomSearch(samples=200))[0]
    assert not any(point.proved for point in price.breakpoints)
    assert price.binds is None
    assert not price.floor
    assert price.loose
    assert not price.limited
    assert not price.interrupted


def test_a_tolerance_is_no_limit_and_a_limit_is_one() -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 40e9),))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0))
    price = price_of_budgets(problem, RandomSearch(samples=40), Limits(evaluations=1_000_000), optimum=optimum)[0]
    assert (price.loose, price.limited) == (True, False)
    price = price_of_budgets(problem, RandomSearch(samples=40), Limits(evaluations=8), optimum=optimum)[0]
    assert price.limited


def test_the_time_limit_shows() -> None:
    calls = iter(range(10**9))

    def slow(design: object) -> float:
        return float(next(calls)) * 0 + 1.0

    optimum = solve(DesignProblem(SPACE, Params()), Exhaustive())
    problem = DesignProblem(SPACE, Params(), (Budget(Measured("slow", "s", slow), 1),))
    price = price_of_budgets(problem, Exhaustive(), Limits(seconds=1e-3), optimum=optimum)[0]
    assert price.present.objective == optimum.objective
    assert price.unlimited is None or price.unlimited <= optimum.objective
    assert not price.present.proved or price.floor


@pytest.mark.parametrize(("options", "words"), [({"steps": -1}, "steps"), ({"steps": True}, "steps"), ({"reach": 1.0}, "reach")])
def test_mistakes(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        price_of_budgets(DesignProblem(SPACE, Params(), ()), **options)


def test_an_infeasible_problem_has_no_price() -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Flops(), 1),))
    assert solve(problem, DynamicProgramming()).status is Status.INFEASIBLE
    with pytest.raises(ValueError, match="explain_infeasibility"):
        price_of_budgets(problem)
