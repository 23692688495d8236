"""Alternatives and counts against brute force over the plain definitions."""

from __future__ import annotations

import numpy as np
import pytest

from formulation import Agreement, Budget, DesignProblem, EffectiveEntropy, Measured, SearchSpace, paper_space
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Limits, Status, solve
from solvers.exact.dynamic_programming import count_designs
from solvers.questions.alternatives import alternatives, count_exhaustively, count_near
from tests.toys import toy

TOYS = [number for number in range(30) if toy(number).optimum is not None]


@pytest.mark.parametrize("number", TOYS)
def test_the_k_best_designs(number: int) -> None:
    given = toy(number)
    truth = np.sort(given.objectives[given.feasible])[::-1][:6]
    found = alternatives(given.problem, 6)
    designs = [solution.architecture for solution in found if solution.architecture is not None]
    assert [given.problem.maximize(design) for design in designs] == pytest.approx(truth, rel=1e-9)
    assert len(set(designs)) == len(designs)
    if len(truth) < 6:
        assert found[-1].status is Status.INFEASIBLE
    assert all(solution.status is Status.OPTIMAL for solution in found[: len(designs)])
    assert all(len(solution.usage) == len(given.problem.subject_to) for solution in found[: len(designs)])


@pytest.mark.parametrize("differing", [2, 3, 6])
@pytest.mark.parametrize("number", TOYS[::3])
def test_each_is_the_best_that_differs_from_all_before(number: int, differing: int) -> None:
    given = toy(number)
    decisions = given.problem.space.decisions
    if differing > decisions:
        return
    left = dict(zip(given.designs, given.objectives, strict=True))
    left = {design: value for design, value in left.items() if given.problem.evaluate(design).feasible}
    for solution in alternatives(given.problem, 4, differing):
        if solution.architecture is None:
            assert solution.status is Status.INFEASIBLE
            assert not left
            break
        assert solution.objective == pytest.approx(max(left.values()), rel=1e-9)
        agreement = Agreement(solution.architecture)
        left = {design: value for design, value in left.items() if decisions - agreement(design) >= differing}


def test_the_known_optimum_is_the_first() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0))
    found = alternatives(problem, 3, 4, optimum=optimum)
    assert found[0] == optimum
    assert len(found) == 3
    best = [solution.objective for solution in alternatives(problem, 3, 4)]
    assert [solution.objective for solution in found] == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(
    ("count", "differing", "words"),
    [(0, 1, "count"), (True, 1, "count"), (2, 0, "differing"), (2, 7, "1 to 6"), (2, 1.5, "differing")],
)
def test_mistakes(count: int, differing: int, words: str) -> None:
    problem = DesignProblem(SearchSpace.uniform(2, (256,), (1,), (1, 2)), Params())
    with pytest.raises(ValueError, match=words):
        alternatives(problem, count, differing)


@pytest.mark.parametrize("number", TOYS)
def test_counts(number: int) -> None:
    given = toy(number)
    values = given.objectives[given.feasible]
    assert given.optimum is not None
    for within in (0.0, 0.013, 0.17):
        # The margins of both counters: values that differ by less than 1e-9 are not told apart.
        truth = int((values >= given.optimum - (within + 1e-12) * abs(given.optimum)).sum())
        for counter in (count_exhaustively, count_designs):
            count = count_near(given.problem, given.optimum, within, None, counter)
            assert count.exact
            assert count.number == truth


def test_counting_by_enumeration_agrees_on_the_paper_space() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 55e6)))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0)).objective
    assert optimum is not None
    counts = [count_near(problem, optimum, counter=counter).number for counter in (count_designs, count_exhaustively)]
    assert counts == [54, 54]


def test_a_count_that_is_stopped_says_so() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy())
    count = count_near(problem, 1.0, 0.5, Limits(evaluations=1000), count_exhaustively)
    assert not count.exact
    assert 0 < count.number < problem.space.size


def test_black_boxes_are_counted_one_by_one() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1,), (1, 2))
    problem = DesignProblem(space, Measured("score", "1", lambda design: float(sum(design.depths))), (Budget(Params(), 1e9),))
    assert count_near(problem, 4.0, 0.25, counter=count_exhaustively).number == sum(sum(d.depths) >= 3 for d in space)
    assert solve(problem, Exhaustive()).objective == 4


@pytest.mark.parametrize("within", [-0.1, float("nan"), float("inf")])
def test_a_loss_below_nothing(within: float) -> None:
    with pytest.raises(ValueError, match="within"):
        count_near(toy(0).problem, 1.0, within)
