"""A solver that lies in every way: what `solve` makes of each claim. Nothing it says is shown unless it was checked."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, Block, Budget, DesignProblem, SearchSpace, Separable
from formulation.architecture import Setting
from solvers import Answer, Limits, Run, Solution, Status, solve
from solvers.base import relative_gap


@dataclass(frozen=True)
class Depth(Separable):
    """factor times the number of layers."""

    factor: float = 1.0

    name = "depth"
    unit = "layers"

    def block(self, block: Block, setting: Setting) -> float:
        return self.factor * block.depth


@dataclass(frozen=True)
class Liar:
    """Says and records what it was told to."""

    claim: Any
    says: Callable[[Run], object] = lambda run: None

    name = "liar"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        self.says(run)
        return self.claim


SPACE = SearchSpace.uniform(2, (64, 128), (1,), (1, 2, 3))
PROBLEM = DesignProblem(SPACE, Depth(100.0), (Budget(Depth(), 4),))
OPTIMUM = 400.0


def design(*depths: int) -> Architecture:
    return SPACE.decode(SPACE.encode(Architecture(tuple(Block(64, 64, depth) for depth in depths), **SETTING)))


SETTING = {name: getattr(SPACE, name) for name in ("shared", "embedding_width", "vocabulary", "positions")}
BEST, WORSE, BROKEN = design(2, 2), design(1, 1), design(3, 3)
ELSEWHERE = Architecture((Block(256, 64, 2), Block(256, 64, 2)), **SETTING)


def shown(
    claim: Any, problem: DesignProblem = PROBLEM, says: Callable[[Run], object] = lambda run: None, **limits: Any
) -> Solution:
    return solve(problem, Liar(claim, says), Limits(**limits))


def test_the_truth_is_believed() -> None:
    solution = shown(Answer(BEST, bound=OPTIMUM))
    assert (solution.status, solution.objective, solution.bound, solution.gap) == (Status.OPTIMAL, OPTIMUM, OPTIMUM, 0.0)
    assert shown(Answer(None, infeasible=True)).status is Status.INFEASIBLE


@pytest.mark.parametrize("below", [1e-10, 5e-10])
def test_a_bound_below_its_design_by_rounding_is_raised_to_it(below: float) -> None:
    solution = shown(Answer(BEST, bound=OPTIMUM * (1 - below)))
    assert (solution.status, solution.bound, solution.gap) == (Status.OPTIMAL, OPTIMUM, 0.0)
    assert "discarded" not in solution.message


@pytest.mark.parametrize("below", [2e-9, 1e-8, 1e-6, 1e-3, 0.5, 3.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bound_below_its_design_by_more_proves_nothing(below: float, sign: float) -> None:
    problem = DesignProblem(SPACE, Depth(sign * 100.0))
    value = problem.maximize(BEST)
    solution = shown(Answer(BEST, bound=value - below * abs(value)), problem)
    assert (solution.status, solution.objective, solution.bound, solution.gap) == (Status.FEASIBLE, value, None, None)
    assert "lies below a design" in solution.message


def test_a_bound_that_a_better_start_refutes_proves_nothing() -> None:
    solution = shown(Answer(WORSE, bound=200.0), start=BEST)
    assert (solution.status, solution.architecture, solution.bound) == (Status.FEASIBLE, BEST, None)


@pytest.mark.parametrize(
    "bound",
    [
        math.nan,
        math.inf,
        -math.inf,
        np.float64("nan"),
        4e2 + 0j,
        "400",
        [400.0],
        np.array([400.0]),
        True,
        10**400,
        fractions.Fraction(10) ** 400,
    ],
    ids=str,
)
@pytest.mark.parametrize("answered", [BEST, None], ids=["design", "no design"])
def test_a_bound_that_is_no_finite_number_proves_nothing(bound: Any, answered: Architecture | None) -> None:
    solution = shown(Answer(answered, bound=bound))
    assert solution.status is (Status.UNKNOWN if answered is None else Status.FEASIBLE)
    assert (solution.bound, solution.gap) == (None, None)


@pytest.mark.parametrize("bound", [400, np.float32(400), np.int64(400), fractions.Fraction(400)], ids=repr)
def test_a_bound_of_another_type_is_a_float(bound: Any) -> None:
    solution = shown(Answer(BEST, bound=bound))
    assert solution.status is Status.OPTIMAL
    assert (type(solution.bound), solution.bound) == (float, OPTIMUM)


@pytest.mark.parametrize("bound", [None, OPTIMUM, 1e9, -5.0])
@pytest.mark.parametrize("infeasible", [False, True])
@pytest.mark.parametrize("answered", [BROKEN, ELSEWHERE, Architecture((Block(64, 64, 1),)), "a design", 7], ids=str)
def test_a_design_that_does_not_count_proves_nothing(answered: Any, infeasible: bool, bound: float | None) -> None:
    solution = shown(Answer(answered, bound=bound, infeasible=infeasible))
    assert solution.status is Status.UNKNOWN
    assert (solution.architecture, solution.objective, solution.gap, solution.usage) == (None, None, None, ())
    assert "discarded" in solution.message
    assert ("does not meet depth ≤ 4" if answered is BROKEN else "outside the space") in solution.message


def test_beside_a_design_that_does_not_count_the_start_does() -> None:
    solution = shown(Answer(BROKEN, bound=OPTIMUM, infeasible=True), start=WORSE)
    assert (solution.status, solution.architecture, solution.objective) == (Status.FEASIBLE, WORSE, 200.0)


@pytest.mark.parametrize("bound", [None, OPTIMUM, 1.0])
def test_infeasible_is_not_believed_beside_a_design_that_counts(bound: float | None) -> None:
    expected = Status.OPTIMAL if bound == OPTIMUM else Status.FEASIBLE
    for solution in (shown(Answer(BEST, bound, infeasible=True)), shown(Answer(None, bound, infeasible=True), start=BEST)):
        assert (solution.status, solution.architecture) == (expected, BEST)
        assert "a design meets the budgets, so its claim that none does was discarded" in solution.message


def test_the_better_of_two_designs_is_shown() -> None:
    assert shown(Answer(WORSE), start=BEST).architecture == BEST
    assert shown(Answer(BEST), start=WORSE).architecture == BEST


def test_a_start_over_budget_does_not_reach_the_solver() -> None:
    seen = []
    solution = shown(Answer(None), says=lambda run: seen.append(run.limits.start), start=BROKEN)
    assert seen == [None]
    assert (solution.status, solution.architecture) == (Status.UNKNOWN, None)
    assert "the start does not meet depth ≤ 4" in solution.message


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("above", "status"), [(9e-7, Status.OPTIMAL), (2e-6, Status.FEASIBLE), (5e-6, Status.FEASIBLE), (0.1, Status.FEASIBLE)]
)
def test_the_gap_is_relative_to_the_size_of_the_objective(sign: float, above: float, status: Status) -> None:
    problem = DesignProblem(SPACE, Depth(sign * 100.0))
    value = problem.maximize(BEST)
    solution = shown(Answer(BEST, bound=value + above * abs(value)), problem)
    assert solution.status is status
    assert solution.gap == pytest.approx(above, rel=1e-6)


def test_gaps_by_hand() -> None:
    assert relative_gap(100.0, 110.0) == pytest.approx(0.1)
    assert relative_gap(-100.0, -90.0) == pytest.approx(0.1)
    assert relative_gap(-100.0, 100.0) == pytest.approx(2.0)
    assert relative_gap(100.0, 90.0) == 0.0
    assert relative_gap(0.0, 0.0) == 0.0
    assert relative_gap(0.0, 1e-3) > 1e300
    assert relative_gap(1e-20, 2e-20) == pytest.approx(1.0)


def test_an_asked_gap_is_the_one_that_proves() -> None:
    assert shown(Answer(BEST, bound=420.0), gap=0.06).status is Status.OPTIMAL
    assert shown(Answer(BEST, bound=420.0), gap=0.04).status is Status.FEASIBLE
    assert shown(Answer(BEST, bound=OPTIMUM * (1 + 1e-11)), gap=0.0).status is Status.FEASIBLE
    assert shown(Answer(BEST, bound=OPTIMUM), gap=0.0).status is Status.OPTIMAL


def test_the_trace_of_a_bound_only_falls() -> None:
    def says(run: Run) -> None:
        for incumbent, bound in ((None, 600.0), (None, 700.0), (200.0, math.nan), (200.0, 500.0), (300.0, None), (300.0, 550.0)):
            run.record(incumbent, bound)

    trace = shown(Answer(BEST, bound=OPTIMUM), says=says).trace
    assert [(point.incumbent, point.bound) for point in trace] == [(None, 600.0), (200.0, 600.0), (200.0, 500.0), (300.0, 500.0)]


def test_what_the_design_refutes_is_not_in_the_trace() -> None:
    def says(run: Run) -> None:
        run.record(200.0, 500.0)
        run.record(1e6, 450.0)
        run.record(300.0, 390.0)

    trace = shown(Answer(BEST, bound=390.0), says=says).trace
    assert [(point.incumbent, point.bound) for point in trace] == [(200.0, 500.0), (None, 450.0), (300.0, None)]


def test_a_trace_without_a_design_has_no_incumbents() -> None:
    trace = shown(Answer(BROKEN), says=lambda run: run.record(600.0, 700.0)).trace
    assert [(point.incumbent, point.bound) for point in trace] == [(None, 700.0)]


def test_an_interruption_is_shown_and_proves_nothing() -> None:
    solution = shown(Answer(WORSE, message="stopped"), says=lambda run: setattr(run, "interrupted", True))
    assert (solution.status, solution.interrupted, solution.message) == (Status.FEASIBLE, True, "stopped")
    assert not shown(Answer(WORSE)).interrupted


def test_a_claimed_objective_is_not_a_field_of_an_answer() -> None:
    names = ["architecture", "bound", "infeasible", "message", "certificate", "solvers"]
    assert [field.name for field in dataclasses.fields(Answer)] == names


@pytest.mark.parametrize("claim", [None, (BEST, OPTIMUM), BEST], ids=["nothing", "tuple", "design"])
def test_what_is_no_answer_is_refused_by_name(claim: Any) -> None:
    with pytest.raises(ValueError, match=r"liar returned .*; expected an Answer"):
        shown(claim)
