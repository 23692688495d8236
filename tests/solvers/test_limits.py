"""Limits are heard inside the bounds and between any two designs: what is answered then is valid, whenever the stop comes.

Nothing here looks at a clock: runs are stopped at their n-th look at it, for many n.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, Measured, SearchSpace, Separable
from formulation.architecture import Setting
from formulation.table import tabulate
from hardware_models import Flops, Params
from solvers import (
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    GeneticAlgorithm,
    Limits,
    RandomSearch,
    Status,
    alternatives,
    count_near,
    exact_front,
    explain_infeasibility,
    nsga2_front,
    price_of_budgets,
    solve,
)
from solvers.base import Run, broken_budgets
from solvers.exact import bounds as completion
from solvers.exact import dynamic_programming, exhaustive
from solvers.exact.dynamic_programming import count_designs
from solvers.incumbent import quick_incumbent
from solvers.questions.pareto import check_certificate, exhaustive_front
from tests.toys import Toy, toy

HEURISTICS = [RandomSearch(samples=300), EvolutionaryAlgorithm(population=16, iterations=300), GeneticAlgorithm(10, 60)]


class Clock:
    """Stands in for the clock of all runs: the time is up from look `last` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last, self.looks = 0, 0
        self.at_last: Callable[[], object] = lambda: None
        monkeypatch.setattr(Run, "out_of_time", property(self._look))

    def _look(self, run: Run) -> bool:
        self.looks += 1
        if self.looks == self.last + 1:
            self.at_last()
        return run.interrupted or self.looks > self.last

    def stops(self, dense: int = 12) -> Iterator[int]:
        """Numbers of looks after which to stop, first each, then farther apart, until a search ended by itself."""
        last = 0
        for number in count():
            self.last, self.looks = last, 0
            yield last
            if self.looks <= self.last:
                return
            last += 1 if number < dense else max(last // 4, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def with_budgets(number: int) -> Toy:
    """The first toy from `number` on that has several budgets and a feasible design."""
    return next(given for given in map(toy, count(number)) if given.optimum is not None and len(given.problem.subject_to) > 1)


def check(given: Toy, architecture: Architecture | None, bound: float | None) -> None:
    if architecture is not None:
        assert not broken_budgets(given.problem, architecture)
    if bound is not None:
        assert given.optimum is not None
        assert bound >= given.optimum * (1 - 1e-12)


@pytest.mark.parametrize("slow", [0, 1 << 60], ids=["begins with an incumbent", "begins with bounds"])
@pytest.mark.parametrize("number", [0, 20, 40, 60])
def test_dynamic_programming_has_a_valid_bound_whenever_it_is_stopped(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int, slow: int
) -> None:
    given = with_budgets(number)
    monkeypatch.setattr(dynamic_programming, "_SLOW", slow)
    monkeypatch.setattr(dynamic_programming, "_MANY", slow)
    # Before there is a table nothing is known; from then on there is always a bound.
    monkeypatch.setattr(dynamic_programming, "tabulate", lambda quantities, space, poll: tabulate(quantities, space))
    bounds = []
    for _ in clock.stops(dense=30):
        solution = solve(given.problem, DynamicProgramming(beam=1), Limits(gap=0))
        check(given, solution.architecture, solution.bound)
        assert solution.bound is not None
        assert solution.status is Status.OPTIMAL or "time limit reached" in solution.message
        bounds.append(solution.bound)
    assert solution.status is Status.OPTIMAL
    assert len(bounds) > 10
    assert bounds[0] > bounds[-1]


def test_a_stop_before_the_table_is_there(clock: Clock) -> None:
    solution = solve(with_budgets(0).problem, DynamicProgramming())
    assert solution.status is Status.UNKNOWN
    assert solution.bound is None
    assert solution.message == "time limit reached before the search began"


def test_a_stop_at_the_first_bound_leaves_the_incumbent_and_a_bound(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    given = with_budgets(0)
    monkeypatch.setattr(dynamic_programming, "_SLOW", 0)

    def stop(*arguments: object, **options: object) -> np.ndarray:
        clock.last = 0
        raise completion.Stopped

    clock.last = 10**9
    monkeypatch.setattr(completion.LagrangianBound, "_roots", stop)
    solution = solve(given.problem, DynamicProgramming())
    assert solution.architecture is not None
    assert solution.bound is not None
    check(given, solution.architecture, solution.bound)
    first = next(point.incumbent for point in solution.trace if point.incumbent is not None)
    assert first == pytest.approx(solution.objective, rel=1e-12)


def test_ctrl_c_is_heard_at_any_look(clock: Clock) -> None:
    given = with_budgets(0)
    clock.at_last = lambda: signal.raise_signal(signal.SIGINT)
    for _ in clock.stops(dense=4):
        solution = solve(given.problem, DynamicProgramming())
        check(given, solution.architecture, solution.bound)
        assert solution.interrupted == (clock.looks > clock.last)
        assert solution.status is Status.OPTIMAL or "interrupted by the user" in solution.message


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("slow", [0, 1 << 60])
def test_what_large_problems_take_first_changes_no_answer(monkeypatch: pytest.MonkeyPatch, seeds: int, slow: int) -> None:
    monkeypatch.setattr(completion, "_SEEDS", seeds)
    monkeypatch.setattr(completion, "_CACHE", 100)
    monkeypatch.setattr(dynamic_programming, "_SLOW", slow)
    monkeypatch.setattr(dynamic_programming, "_MANY", slow)
    monkeypatch.setattr(dynamic_programming, "_COMPLETIONS", 0.0)
    for number in range(24):
        given = toy(number)
        solution = solve(given.problem, DynamicProgramming(), Limits(gap=0))
        assert solution.status is (Status.INFEASIBLE if given.optimum is None else Status.OPTIMAL)
        if given.optimum is not None:
            assert solution.objective == pytest.approx(given.optimum, rel=1e-12)


def test_prices_of_layers_bound_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds that only depth-free designs were searched for hold for designs of each depth."""
    monkeypatch.setattr(completion, "_SEEDS", 1)
    monkeypatch.setattr(completion.LagrangianBound, "_roots", lambda self, cell, tried: (_ for _ in ()).throw(completion.Stopped))
    seen = 0
    for number in range(60):
        given = toy(number)
        if given.optimum is None or len(given.problem.subject_to) < 2:
            continue
        search = dynamic_programming._Search(given.problem, Run(Limits()), DynamicProgramming())
        boxes = search._boxes()
        if len(boxes) < 5 or boxes.multipliers.shape[1] < 2:
            continue
        seen += 1
        root = completion.LagrangianBound(search.table, search.allowed, search._cells(boxes)).root
        assert np.isfinite(root).all()
        depths = np.array([sum(design.depths) for design in given.designs])
        for layers, bound in zip(boxes.layers, root, strict=True):
            values = given.objectives[given.feasible & (depths == layers)]
            assert values.max(initial=-np.inf) <= bound
    assert seen > 5


@pytest.mark.parametrize("number", range(30))
def test_a_quick_incumbent_meets_the_budgets(number: int) -> None:
    given = toy(number)
    run = Run(Limits())
    design = quick_incumbent(given.problem, run)
    if given.optimum is None:
        assert design is None
        assert not run.trace
        return
    assert design is not None
    check(given, design, None)
    assert given.problem.maximize(design) >= 0.8 * given.optimum
    assert run.trace[-1].incumbent == given.problem.maximize(design)
    assert quick_incumbent(given.problem, Run(Limits())) == design


def test_a_quick_incumbent_is_no_worse_than_the_start() -> None:
    given = with_budgets(0)
    best = max((d for d, ok in zip(given.designs, given.feasible, strict=True) if ok), key=given.problem.maximize)
    assert given.problem.maximize(quick_incumbent(given.problem, Run(Limits(start=best)))) == given.optimum  # type: ignore[arg-type]


def test_a_quick_incumbent_stopped_at_any_look(clock: Clock) -> None:
    given = with_budgets(20)
    found = []
    for _ in clock.stops():
        design = quick_incumbent(given.problem, Run(Limits()))
        check(given, design, None)
        found.append(design is not None)
    assert found[-1]


def test_no_quick_incumbent_of_a_black_box() -> None:
    given = with_budgets(0)
    problem = replace(given.problem, maximize=Measured("measured", "1", lambda design: float(sum(design.depths))))
    assert quick_incumbent(problem, Run(Limits())) is None


def test_a_quick_incumbent_in_a_large_space_is_near_the_bound() -> None:
    space = SearchSpace.uniform(12, range(256, 769, 128), (1, 2, 4), range(1, 7))
    problem = DesignProblem(space, EffectiveEntropy(beta=1 / 128), (Budget(Flops(), 150e9), Budget(Params(), 60e6)))
    design = quick_incumbent(problem, Run(Limits()))
    assert design is not None
    assert not broken_budgets(problem, design)
    assert problem.maximize(design) > 0.9 * (solve(problem, DynamicProgramming(), Limits(gap=0.05)).bound or np.inf)


@dataclass(frozen=True)
class Missing(Separable):
    """Layers that a block has less than `most`: repair, which lowers what it can, never meets a budget on it."""

    most: int

    name, unit = "missing", "layers"

    def block(self, block: Block, setting: Setting) -> float:
        return float(self.most - block.depth)


@pytest.mark.parametrize("solver", HEURISTICS[1:], ids=lambda solver: solver.name)
def test_heuristics_begin_where_no_random_design_is_feasible(solver: Any) -> None:
    space = SearchSpace.uniform(12, (256, 512), (1,), range(1, 9))
    problem = DesignProblem(space, Params(), (Budget(Missing(8), 0),))
    solution = solve(problem, solver, Limits(seed=3))
    assert solution.status is Status.FEASIBLE
    assert solution.objective == solve(problem, solver, Limits(seed=3)).objective
    assert solve(problem, RandomSearch(samples=2000)).status is Status.UNKNOWN


@pytest.mark.parametrize("black_box", [False, True], ids=["tabulated", "black box"])
@pytest.mark.parametrize("solver", [*HEURISTICS, Exhaustive()], ids=lambda solver: solver.name)
def test_a_stopped_search_returns_what_it_found(clock: Clock, solver: Any, black_box: bool) -> None:
    given = with_budgets(20)
    if black_box:
        budgets = tuple(
            Budget(Measured(b.quantity.name, b.quantity.unit, b.quantity.__call__), b.upper) for b in given.problem.subject_to
        )
        given = replace(given, problem=replace(given.problem, subject_to=budgets))
    trace_seen = False
    for _ in clock.stops(dense=6):
        solution = solve(given.problem, solver)
        check(given, solution.architecture, solution.bound)
        assert solution.status is not Status.INFEASIBLE
        # What was recorded is not lost.
        if solution.trace:
            trace_seen = True
            assert solution.objective == pytest.approx(solution.trace[-1].incumbent, rel=1e-12)
    assert trace_seen


def test_exhaustive_search_of_a_large_space_begins_with_an_incumbent(monkeypatch: pytest.MonkeyPatch) -> None:
    given = with_budgets(0)
    monkeypatch.setattr(exhaustive, "_QUICK", 0)
    quick = quick_incumbent(given.problem, Run(Limits()))
    assert quick is not None
    solution = solve(given.problem, Exhaustive())
    assert solution.status is Status.OPTIMAL
    assert solution.trace[0].incumbent == given.problem.maximize(quick)
    assert solution.evaluations == given.problem.space.size


def test_counts_are_lower_bounds_whenever_they_are_stopped(clock: Clock) -> None:
    given = with_budgets(40)
    assert given.optimum is not None
    floor = given.optimum * 0.7
    truth = int((given.objectives[given.feasible] >= floor * (1 - 1e-9)).sum())
    for _ in clock.stops():
        found = count_designs(given.problem, floor)
        assert found.number == truth if found.exact else found.number <= truth
        assert found.exact or clock.looks > clock.last
    assert found.exact
    clock.last, clock.looks = 10**9, 0
    assert count_near(given.problem, given.optimum, 0.3).number == truth


def test_a_stopped_front_says_what_is_missing(clock: Clock) -> None:
    given = with_budgets(20)
    problem = replace(given.problem, minimize=(Params(),), subject_to=given.problem.subject_to[:1])
    clock.last = 10**9
    truth = exhaustive_front(problem)
    for _ in clock.stops(dense=4):
        front = exact_front(problem)
        assert check_certificate(front) == ()
        assert front.complete == (clock.looks <= clock.last)
        values = {point.costs for point in front.points}
        for point in truth:
            within = [box for box in front.pending if all(c <= e for c, e in zip(point.costs, box.limits, strict=True))]
            assert point.costs in values or any(box.bound is None or box.bound >= point.objective for box in within)
    assert len(front.points) == len(truth)


def test_a_stopped_heuristic_front_holds_feasible_designs(clock: Clock) -> None:
    given = with_budgets(20)
    problem = replace(given.problem, minimize=(Params(),), subject_to=given.problem.subject_to[:1])
    sizes = []
    for _ in clock.stops(dense=4):
        front = nsga2_front(problem, Limits(evaluations=60), population=10)
        assert not any(broken_budgets(problem, point.architecture) for point in front.points)
        sizes.append(len(front.points))
    assert sizes[0] == 0 < sizes[-1]


def test_stopped_prices_and_alternatives_prove_nothing_false(clock: Clock) -> None:
    given = with_budgets(0)
    clock.last = 10**9
    prices, series = price_of_budgets(given.problem, steps=1), alternatives(given.problem, 3)
    for _ in clock.stops(dense=2):
        try:
            found = price_of_budgets(given.problem, steps=1)
        except ValueError as error:
            assert "none was found" in str(error)  # noqa: PT017
            continue
        for one, true in zip(found, prices, strict=True):
            assert one.limited or one == true
            assert not one.present.proved or one.present.bound == true.present.bound
            assert one.binds in (None, true.binds)
    for _ in clock.stops(dense=2):
        for one, true in zip(alternatives(given.problem, 3), series, strict=False):
            assert one.status is not Status.OPTIMAL or one.objective == pytest.approx(true.objective)
            assert one.bound is None or one.bound >= true.objective * (1 - 1e-9)  # type: ignore[operator]


def test_a_stopped_diagnosis_says_what_is_open(clock: Clock) -> None:
    given = with_budgets(0)
    broken = tuple(replace(budget, upper=budget.upper * 0.01) for budget in given.problem.subject_to)
    problem = replace(given.problem, subject_to=broken)
    clock.last = 10**9
    truth = explain_infeasibility(problem)
    assert truth.status is Status.INFEASIBLE
    for _ in clock.stops(dense=2):
        found = explain_infeasibility(problem)
        assert found.status in (Status.INFEASIBLE, Status.UNKNOWN)
        if found.conflict and found.smallest:
            assert len(found.conflict) == len(truth.conflict)
        for need, true in zip(found.needs, truth.needs, strict=False):
            assert need.status is not Status.OPTIMAL or need.bound == pytest.approx(true.least)
    assert found.smallest
