"""Fronts of knapsack problems at once, against brute force and the ε-constraint method."""

from __future__ import annotations

import numpy as np
import pytest

from formulation import Budget, DesignProblem
from formulation.score_table import Column, OptionMenu, OptionSpace
from solvers.base import Limits, Run, Status
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.fronts import knapsack
from solvers.questions.pareto import Front, check_certificate, exact_front, exhaustive_front, values_of
from tests.slow import slow


@pytest.fixture(autouse=True)
def these_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts are found by labels, however small they are."""
    monkeypatch.setattr("solvers.questions.pareto._methods", lambda problem: (knapsack.knapsack_front,))


def space_of(*options: int) -> OptionSpace:
    """A space with so many options at its positions."""
    return OptionSpace(tuple(OptionMenu(f"layer {i}", tuple(map(str, range(n)))) for i, n in enumerate(options)))


def column(name: str, values: list[np.ndarray], space: OptionSpace) -> Column:
    return Column(name, "1", tuple(tuple(row.tolist()) for row in values), space)


def random_problem(seed: int, costs: int, kind: str) -> DesignProblem:
    """A small random problem: whole numbers with many ties, real numbers, tenths (whose sums round), or some negative ones."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 5, size=generator.integers(2, 7))
    space = space_of(*sizes.tolist())

    def values() -> list[np.ndarray]:
        if kind == "whole":
            return [generator.integers(0, 8, n).astype(float) for n in sizes]
        if kind == "tenths":
            return [generator.integers(0, 12, n) / 10 for n in sizes]
        low = -1.0 if kind == "negative" else 0.0
        return [generator.uniform(low, 1.0, n) for n in sizes]

    columns = [column(f"column {k}", values(), space) for k in range(costs + 3)]
    budgets = []
    for number, quantity in enumerate(columns[1:]):
        if generator.random() < 0.4:
            least, most = (sum(pick(row) for row in quantity.values) for pick in (min, max))
            bound = least + generator.uniform(-0.05, 0.9) * (most - least)
            if kind in ("whole", "tenths"):
                bound = round(bound, 1 if kind == "tenths" else 0)
            budgets.append(Budget(quantity, bound) if number % 3 < 2 else Budget(quantity, at_least=bound))
    return DesignProblem(space, columns[0], tuple(budgets), minimize=tuple(columns[1 : 1 + costs]))


def assert_equal_fronts(front: Front) -> None:
    """It is complete, holds together, and is that of brute force."""
    assert front.complete, front.message
    assert check_certificate(front) == ()
    expected = values_of(exhaustive_front(front.problem)).reshape(-1, 1 + len(front.problem.minimize))
    assert front.values.shape == expected.shape
    by_costs = (values[np.lexsort(np.round(values, 9).T)] for values in (front.values, expected))
    np.testing.assert_allclose(*by_costs, rtol=1e-11, atol=1e-11)


CASES = [(seed, costs, kind) for seed in range(60) for costs in (1, 2) for kind in ("whole", "real", "tenths", "negative")]
FEW = [case for case in CASES if case[0] < 12]


@pytest.mark.parametrize(("seed", "costs", "kind"), [*FEW, *slow(case for case in CASES if case[0] >= 12)])
def test_it_is_the_front_of_brute_force(seed: int, costs: int, kind: str) -> None:
    problem = random_problem(seed, costs, kind)
    assert knapsack.knapsack_front(problem, Run(Limits())) is not None
    assert_equal_fronts(exact_front(problem))


def larger(positions: int, options: int, budgets: int, seed: int = 0, whole: bool = False) -> DesignProblem:
    """A problem that brute force would not end on: costs that rise with the score, each with noise."""
    generator = np.random.default_rng(seed)
    space = space_of(*[options] * positions)
    size = generator.uniform(0, 1, (positions, options))

    def noisy(name: str) -> Column:
        values = 100 * (size + 0.3 * generator.uniform(0, 1, size.shape))
        return column(name, list(np.rint(values) if whole else values), space)

    score, cost, *others = (noisy(f"column {k}") for k in range(2 + budgets))
    limits = (Budget(own, 0.5 * sum(map(max, own.values))) for own in others)
    return DesignProblem(space, score, tuple(limits), minimize=(cost,))


@pytest.mark.parametrize(("positions", "options", "budgets", "whole"), [(8, 4, 0, True), (10, 3, 1, False), (7, 4, 2, False)])
def test_it_is_the_front_of_the_method_by_boxes(positions: int, options: int, budgets: int, whole: bool) -> None:
    problem = larger(positions, options, budgets, whole=whole)
    at_once, by_boxes = exact_front(problem), exact_front(problem, DynamicProgramming())
    assert at_once.complete
    assert by_boxes.complete
    assert check_certificate(at_once) == ()
    assert check_certificate(by_boxes) == ()
    np.testing.assert_allclose(at_once.values, by_boxes.values, rtol=1e-11)
    assert "labels" in at_once.message
    assert "one solve a box by dynamic programming" in by_boxes.message


def test_one_box_a_point_of_two_objectives() -> None:
    front = exact_front(larger(10, 3, 1))
    assert len(front.boxes) == len(front.points) + 1  # and one for what costs less than the first
    assert [box.point for box in front.boxes[:-1]] == list(reversed(front.points))
    assert front.boxes[-1].status is Status.INFEASIBLE


def assert_accounts_for(front: Front, whole: Front) -> None:
    """It holds together, and what it misses lies in its pending boxes, up to their bounds."""
    assert check_certificate(front) == ()
    for point in whole.points:
        if point not in front.points:
            within = [box for box in front.pending if all(c <= e for c, e in zip(point.costs, box.limits, strict=True))]
            assert any(box.bound is None or point.objective <= box.bound for box in within)
    for box in front.boxes:
        if box.settled and box.point is not None:
            within = [own for own in whole.points if np.all(np.array(own.costs) <= np.array(box.limits) * (1 + 1e-12))]
            assert box.point.objective == pytest.approx(max(own.objective for own in within), rel=1e-11)


class StoppingRun(Run):
    """A run that is out of time after some polls."""

    polls_left = 0

    @property
    def out_of_time(self) -> bool:
        self.polls_left -= 1
        return self.polls_left < 0


@pytest.mark.parametrize("costs", [1, 2])
@pytest.mark.parametrize("polls", [0, 3, 40, 120, 300, 600, 900])
def test_what_a_stopped_search_misses_is_said(costs: int, polls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(5, costs, "real") if costs == 2 else larger(10, 3, 1)
    whole = exact_front(problem)
    run = StoppingRun(Limits())
    run.polls_left = polls
    monkeypatch.setattr("solvers.questions.pareto.Run", lambda limits: run)
    front = exact_front(problem)
    if polls == 0:
        assert front.points == ()
        assert len(front.pending) == 1
    assert_accounts_for(front, whole)


def test_what_memory_does_not_hold_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "_WIDTHS", (4, 8))
    problem = larger(10, 3, 1)
    whole = exact_front(problem, DynamicProgramming())
    run = Run(Limits())
    object.__setattr__(run.limits, "memory", 1)  # less than Limits takes: no more labels than the widest of the passes before
    monkeypatch.setattr("solvers.questions.pareto.Run", lambda limits: run)
    front = exact_front(problem)
    assert not front.complete
    assert "memory does not hold the labels" in front.message
    assert_accounts_for(front, whole)


def test_labels_whose_order_is_given_leave_no_design_out() -> None:
    generator = np.random.default_rng(8)
    space = space_of(*[5] * 6)
    score, cost, memory = (
        column(name, [generator.integers(1, 30, 5).astype(float)] * 6, space) for name in ("score", "cost", "memory")
    )
    assert_equal_fronts(exact_front(DesignProblem(space, score, (Budget(memory, 90.0),), minimize=(cost,))))


@pytest.mark.parametrize("whole", [True, False])
def test_dominated_labels_may_be_dropped(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "_DOMINANCE", 1)
    for seed in range(3):
        assert_equal_fronts(exact_front(larger(6, 4, 1, seed=seed, whole=whole)))
        assert_equal_fronts(exact_front(random_problem(40 + seed, 2, "tenths")))
