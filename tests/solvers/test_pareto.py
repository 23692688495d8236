"""Fronts against brute force: exact ones with their certificates, NSGA-II, and the hypervolume."""

from __future__ import annotations

import math
import operator
import os
import signal
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from formulation import (
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    NotSeparable,
    Quantity,
    SearchSpace,
    SumOverLayers,
    paper_space,
)
from formulation.score_table import Column, OptionMenu, OptionSpace
from hardware_models import Flops, Params
from solvers.base import Limits, Run, Status
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.exact.exhaustive import Exhaustive
from solvers.fronts.whole import Open, WholeFront
from solvers.heuristics.nsga2 import nsga2_front
from solvers.heuristics.random_search import RandomSearch
from solvers.questions import pareto
from solvers.questions.pareto import (
    Box,
    Front,
    check_certificate,
    exact_front,
    exhaustive_front,
    hypervolume,
    non_dominated,
    point_of,
    reference_costs,
    values_of,
)
from tests.slow import slow
from tests.toys import RandomCost, toy

SAME = 1e-11
SMALL = SearchSpace.uniform(3, (512, 640, 768), (1, 2), (1, 2))
ALL_COSTS: tuple[Quantity, ...] = (Flops(), Params())
FEW = tuple(number for number in range(0, 30, 2) if number != 4)
"""Half of the problems; 4 and 11 have hundreds of boxes, which took more than half of the time of all 30."""


def several(number: int) -> DesignProblem:
    """The random problem of that number with one or two costs to minimize, mixed kinds, some with their own budget."""
    problem = toy(number).problem
    kinds: tuple[Quantity, ...] = (Params(), RandomCost(number + 1), RandomCost(number + 2, maximum=True), Flops(seq_len=128))
    first = number % 4
    costs = (kinds[first],) if number % 3 == 0 else (kinds[first], kinds[(first + 1 + number % 2) % 4])
    return replace(problem, minimize=costs)


def truth(problem: DesignProblem) -> np.ndarray:
    """Values of the front, one design at a time and every pair compared: objective, costs; sorted by costs."""
    designs = [design for design in problem.space if problem.evaluate(design).feasible]
    if not designs:
        return np.empty((0, 1 + len(problem.minimize)))
    values = np.array([[problem.maximize(design), *(cost(design) for cost in problem.minimize)] for design in designs])
    losses = values * np.array([-1.0] + [1.0] * len(problem.minimize))
    kept: list[np.ndarray] = []
    room = SAME * np.abs(losses)
    for i in range(len(losses)):
        no_worse = np.all(losses <= losses[i] + room[i], axis=1)
        better = np.any(losses < losses[i] - room[i], axis=1)
        if not np.any(no_worse & better) and not any(np.all(np.abs(values[i] - own) <= room[i]) for own in kept):
            kept.append(values[i])
    return by_costs(np.array(kept))


def by_costs(values: np.ndarray) -> np.ndarray:
    """Rows in an order that rounding does not change."""
    rounded = np.array([[float(f"{value:.9g}") for value in row] for row in values]).reshape(values.shape)
    return values[np.lexsort(rounded.T[[0, *range(values.shape[1] - 1, 0, -1)]])]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected)
    if len(found):
        np.testing.assert_allclose(by_costs(found), by_costs(expected), rtol=1e-10, atol=0)


@cache
def small_front() -> Front:
    """The exact front of the small space in both costs."""
    return exact_front(DesignProblem(SMALL, EffectiveEntropy(), minimize=ALL_COSTS))


def without_times(front: Front) -> tuple:
    return front.points, tuple(replace(box, seconds=0.0) for box in front.boxes)


@pytest.mark.parametrize("number", [*FEW, *slow(number for number in range(30) if number not in FEW)])
def test_exact_front_is_the_true_one(number: int) -> None:
    problem = several(number)
    expected = truth(problem)
    front = exact_front(problem)
    assert front.complete, front.message
    assert_same(front.values, expected)
    assert check_certificate(front) == ()
    witness = exhaustive_front(problem)
    assert_same(np.array([[point.objective, *point.costs] for point in witness]), expected)
    for point in front.points:
        assert problem.evaluate(point.architecture).feasible
        assert point == point_of(problem, point.architecture)


def test_toys_are_of_every_kind() -> None:
    problems = [several(number) for number in range(30)]
    assert {len(problem.minimize) for problem in problems} == {1, 2}
    assert any(len(truth(problem)) == 0 for problem in problems)
    assert any(len(truth(problem)) > 10 for problem in problems)
    assert any(set(problem.minimize) & {budget.quantity for budget in problem.subject_to} for problem in problems)


def test_three_costs() -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 50e9),), minimize=(*ALL_COSTS, RandomCost(5)))
    front = exact_front(problem, limits=Limits(seconds=60))
    assert front.complete
    assert check_certificate(front) == ()
    assert_same(front.values, truth(problem))


@pytest.mark.parametrize("costs", [(Flops(),), ALL_COSTS])
def test_a_front_that_is_cut_short_is_told_quickly(monkeypatch: pytest.MonkeyPatch, costs: tuple[Quantity, ...]) -> None:
    """After the deadline a few boxes stand for many regions, and no design that is missing escapes their bounds."""
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=costs)
    points = [point_of(problem, design) for design in SMALL]
    grid = [(*np.quantile([point.costs[k] for point in points], np.linspace(0.02, 0.98, 25)), math.inf) for k in range(len(costs))]
    opened = []
    for upper in product(*grid):
        within = [point.objective for point in points if all(map(operator.le, point.costs, upper))]
        if within:
            opened.append(Open(upper, bound=max(within)))
    known = np.array([SMALL.encode(point.architecture) for point in points[::7]])

    def cut_short(part: DesignProblem, run: Run) -> WholeFront:
        run.halted = "memory used up"
        return WholeFront(known, tuple(opened), "half of it")

    monkeypatch.setattr(pareto, "_methods", lambda part: (cut_short,))
    told = exact_front(problem)
    monkeypatch.setattr(pareto, "_GRACE_S", 0.0)
    quick = exact_front(problem)
    # Each design that is known has a box, and of the regions there are at most some 32·ln of their number.
    assert len(quick.boxes) <= len(known) + 32 * (1 + math.log(len(opened)))
    for front in (told, quick):
        assert not front.complete
        assert front.message.startswith("memory used up")
        assert check_certificate(front) == ()
        assert_same(front.values, values_of(non_dominated(points[::7])))
        for point in points:
            bounds = [box.bound for box in front.boxes if all(map(operator.le, point.costs, box.limits))]
            assert any(bound is None or point.objective <= bound * (1 + SAME) for bound in bounds)
        for box in front.boxes:
            within = [point.objective for point in points if all(map(operator.le, point.costs, box.limits))]
            assert box.bound is None or max(within) <= box.bound * (1 + SAME)


def test_ties_are_kept_once_and_at_least_cost() -> None:
    # Depth alone is worth something: many designs tie in it, and many pairs of them in both values.
    depth = SumOverLayers("layers", "layers", lambda layer: 1.0)
    problem = DesignProblem(SMALL, depth, minimize=(Params(),))
    front = exact_front(problem)
    assert front.complete
    assert check_certificate(front) == ()
    assert_same(front.values, truth(problem))
    assert len(front.points) == 1  # shared weights: depth costs no parameters


def test_a_cost_of_zero_ends_the_search_there() -> None:
    extra = SumOverLayers("extra width", "1", lambda layer: float(layer.width - 512))
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=(extra, Params()))
    front = exact_front(problem)
    assert front.complete
    assert front.points[0].costs[0] == 0
    assert check_certificate(front) == ()
    assert_same(front.values, truth(problem))


@pytest.mark.parametrize("solver", [None, DynamicProgramming()])
def test_costs_below_zero_are_costs_like_any_other(solver: DynamicProgramming | None) -> None:
    saving = SumOverLayers("saving", "1", lambda layer: -1.0)
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=(saving, Params()))
    front = exact_front(problem, solver)
    assert front.complete
    assert check_certificate(front) == ()
    assert front.values[:, 1].min() == -6
    assert_same(front.values, truth(problem))


def test_an_infeasible_problem_has_an_empty_front_with_proof() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 1.0),), minimize=ALL_COSTS)
    front = exact_front(problem)
    assert front.complete
    assert front.points == ()
    assert [box.status for box in front.boxes] == [Status.INFEASIBLE]
    assert check_certificate(front) == ()
    assert exhaustive_front(problem) == ()


def test_black_boxes_need_exhaustive_search() -> None:
    space = SearchSpace.uniform(2, (512, 640), (1,), (1, 2, 3))
    layers = Measured("latency", "s", lambda design: float(sum(design.depths)))
    problem = DesignProblem(space, EffectiveEntropy(), minimize=(layers,))
    with pytest.raises(NotSeparable, match="Exhaustive"):
        exact_front(problem)
    front = exact_front(problem, Exhaustive())
    assert front.complete
    assert_same(front.values, truth(problem))
    assert_same(nsga2_front(problem, Limits(evaluations=300), 20).values, truth(problem))


@pytest.mark.parametrize("stored", [60, *slow((1,))])
def test_it_goes_on_from_stored_boxes(stored: int) -> None:
    whole, again = small_front(), []
    resumed = exact_front(whole.problem, known=whole.boxes[:stored], on_box=again.append)
    assert without_times(resumed) == without_times(whole)
    assert tuple(again) == resumed.boxes[stored:]


def test_with_all_boxes_stored_nothing_is_solved() -> None:
    whole, again = small_front(), []
    assert exact_front(whole.problem, known=whole.boxes, on_box=again.append).points == whole.points
    assert again == []


def test_boxes_of_another_problem_are_refused() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=(Params(),))
    loose = exact_front(problem)
    tight = replace(problem, subject_to=(Budget(Params(), 56e6),))
    with pytest.raises(ValueError, match="a known box"):
        exact_front(tight, known=loose.boxes)
    with pytest.raises(ValueError, match="a known box"):
        exact_front(replace(problem, minimize=ALL_COSTS), known=loose.boxes)


def test_control_c_leaves_boxes_pending_with_bounds_that_hold() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=ALL_COSTS)
    boxes: list[Box] = []

    def keep(box: Box) -> None:
        boxes.append(box)
        if len(boxes) == 10:
            os.kill(os.getpid(), signal.SIGINT)

    front = exact_front(problem, on_box=keep)
    assert front.interrupted
    assert not front.complete
    assert "interrupted by the user" in front.message
    assert len(front.boxes) - len(front.pending) == 10
    assert check_certificate(front) == ()  # what is missing is accounted for by the pending boxes
    for point in small_front().points:
        within = [box for box in front.pending if all(c <= e for c, e in zip(point.costs, box.limits, strict=True))]
        assert point in front.points or within
        assert all(box.bound is not None and point.objective <= box.bound for box in within)


def test_what_boxes_settle_no_later_box_changes() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=ALL_COSTS)
    whole = exact_front(problem)
    part = replace(whole, boxes=(*whole.boxes[: len(whole.boxes) // 3], Box((np.inf,) * 2, Status.UNKNOWN)))
    part = replace(part, points=non_dominated(box.point for box in part.boxes if box.point is not None))

    def best(front: Front, costs: tuple[float, ...]) -> float:
        return max((own.objective for own in front.points if np.all(np.array(own.costs) <= costs)), default=-np.inf)

    asked = [point_of(problem, design).costs for design in SMALL]
    assert all(whole.settles(costs) for costs in asked)
    settled = [costs for costs in asked if part.settles(costs)]
    assert 0 < len(settled) < len(asked)
    assert all(best(part, costs) == best(whole, costs) for costs in settled)


def test_a_solver_without_proof_leaves_everything_pending() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=(Params(),))
    front = exact_front(problem, RandomSearch(samples=50))
    assert not front.complete
    assert len(front.boxes) == len(front.pending) == 1
    assert len(front.points) == 1


def test_limits_hold_over_all_solves() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), minimize=ALL_COSTS)
    front = exact_front(problem, DynamicProgramming(), Limits(seconds=0.5))
    assert front.pending
    assert check_certificate(front) == ()
    small = DesignProblem(SMALL, EffectiveEntropy(), minimize=ALL_COSTS)
    assert exact_front(small, Exhaustive(), Limits(evaluations=4 * SMALL.size + 1)).evaluations <= 5 * SMALL.size


def test_certificate_shows_what_is_wrong() -> None:
    front = small_front()
    first = front.boxes[0]
    assert first.point is not None
    assert first.bound is not None

    def faults(*boxes: Box) -> str:
        return " ".join(check_certificate(replace(front, boxes=boxes)))

    for number in range(0, len(front.boxes), 20):
        rest = front.boxes[:number] + front.boxes[number + 1 :]
        assert "no box accounts for" in faults(*rest)
        assert "no box accounts for" not in faults(*rest, Box(front.boxes[number].limits, Status.UNKNOWN))
    assert "no box accounts for" in faults()
    assert "bound" in faults(replace(first, bound=first.bound * 1.001), *front.boxes[1:])
    assert "other values" in faults(replace(first, point=replace(first.point, objective=1.0)), *front.boxes[1:])
    assert "does not meet flops" in faults(replace(first, limits=(1e9, 1e9)), *front.boxes[1:])
    assert "called infeasible" in faults(replace(first, status=Status.INFEASIBLE), *front.boxes[1:])
    assert "points" in " ".join(check_certificate(replace(front, points=front.points[1:])))


def test_mistakes_are_one_sentence() -> None:
    plain = DesignProblem(SMALL, EffectiveEntropy())
    twice = replace(plain, minimize=(Params(), Params()))
    both = replace(plain, maximize=Params(), minimize=(Params(),))
    for search in (exact_front, exhaustive_front, lambda problem: nsga2_front(problem, Limits(evaluations=10))):
        with pytest.raises(ValueError, match="minimizes nothing"):
            search(plain)
        for problem in (twice, both):
            with pytest.raises(ValueError, match="params is an objective twice"):
                search(problem)
    with pytest.raises(ValueError, match=r"set limits.seconds or limits.evaluations"):
        nsga2_front(replace(plain, minimize=(Params(),)), Limits())
    with pytest.raises(ValueError, match="population is 1"):
        nsga2_front(replace(plain, minimize=(Params(),)), Limits(seconds=1), population=1)


@pytest.mark.parametrize("number", range(0, 30, 2))
def test_nsga2_is_feasible_never_beats_the_front_and_repeats(number: int) -> None:
    problem = several(number)
    expected = truth(problem)
    limits = Limits(evaluations=300, seed=3)
    front = nsga2_front(problem, limits, population=20)
    assert not front.complete
    assert front.boxes == ()
    if not len(expected):
        assert front.points == ()
        assert "repair found no design" in front.message
        return
    assert front.points
    for point in front.points:
        assert problem.evaluate(point.architecture).feasible
        assert point == point_of(problem, point.architecture)
        costs, objectives = expected[:, 1:], expected[:, 0]
        affordable = np.all(costs <= np.array(point.costs) * (1 + SAME), axis=1)
        assert objectives[affordable].max() >= point.objective * (1 - SAME)
    assert front.points == non_dominated(front.points)
    again = nsga2_front(problem, limits, population=20)
    assert (again.points, again.evaluations) == (front.points, front.evaluations)
    assert [found.values for found in again.trace] == [found.values for found in front.trace]


def test_nsga2_archive_forgets_nothing_and_its_trace_leads_to_it() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 60e9),), minimize=ALL_COSTS)
    reference = reference_costs(problem)
    front = nsga2_front(problem, Limits(evaluations=600, seed=1), population=30)
    seconds = [found.seconds for found in front.trace]
    assert seconds == sorted(seconds)
    volumes = [hypervolume(np.array([found.values for found in front.trace[:n]]), reference) for n in range(len(front.trace) + 1)]
    assert volumes[0] == 0
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(hypervolume(front.values, reference), rel=1e-9)
    best = hypervolume(exact_front(problem).values, reference)
    assert 0.8 * best < volumes[-1] <= best * (1 + 1e-12)


def test_nsga2_never_loses_its_start() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=(Params(),))
    best = exact_front(problem).points[-1]
    front = nsga2_front(problem, Limits(evaluations=20, start=best.architecture), population=10)
    assert best.objective == pytest.approx(front.points[-1].objective)


def test_reference_is_the_budget_or_the_largest_cost() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 60e9),), minimize=ALL_COSTS)
    assert reference_costs(problem) == (60e9, max(Params()(design) for design in SMALL))
    nothing = SumOverLayers("nothing", "1", lambda layer: 0.0)
    with pytest.raises(ValueError, match="nothing is at most 0 for every design"):
        reference_costs(replace(problem, minimize=(nothing,)))


def test_hypervolume_is_the_mean_best_objective_over_all_limits() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((6, 3)) * [10, 2, 5]
    limits = generator.random((200_000, 2)) * [2, 5]
    best = np.max(np.where(np.all(values[:, None, 1:] <= limits, axis=2), values[:, None, 0], 0), axis=0)
    assert hypervolume(values, (2, 5)) == pytest.approx(best.mean(), rel=0.01)
    assert hypervolume(np.array([[3.0, 1.0]]), (4,)) == pytest.approx(3 * 0.75)
    assert hypervolume(np.array([[3.0, 5.0], [-1.0, 1.0]]), (4,)) == 0
    assert hypervolume(np.array([[3.0, -1.0]]), (4,)) == pytest.approx(3)  # within every limit of 0 … 4
    assert hypervolume(np.empty((0, 3)), (1, 1)) == 0


def test_exact_front_of_the_paper_space_in_parameters() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), minimize=(Params(),))
    front = exact_front(problem, DynamicProgramming(), Limits(seconds=100))
    assert front.complete
    assert check_certificate(front) == ()
    assert len(front.points) == 101
    assert_same(front.values, np.array([[point.objective, *point.costs] for point in exhaustive_front(problem)]))


@pytest.mark.slow
@pytest.mark.parametrize(("costs", "size"), [((Flops(),), 393), ((Flops(), Params()), 686)])
def test_exact_fronts_of_the_paper_space(costs: tuple[Quantity, ...], size: int) -> None:
    # Compared to the last bit there may be more points: some cost more for a gain of 2e-16, which is rounding.
    problem = DesignProblem(paper_space(), EffectiveEntropy(), minimize=costs)
    front = exact_front(problem)
    assert front.complete
    assert check_certificate(front) == ()
    assert len(front.points) == size
    assert_same(front.values, np.array([[point.objective, *point.costs] for point in exhaustive_front(problem)]))


def test_limits_between_a_cost_and_just_below_it_are_accounted_for() -> None:
    """Costs that differ by a few 1e-11 of themselves: a limit that one design sets lies that near to what another costs."""
    space = OptionSpace((OptionMenu("one", ("a", "b")), OptionMenu("two", ("a", "b")), OptionMenu("three", ("a", "b", "c"))))

    def column(name: str, *values: tuple[float, ...]) -> Column:
        return Column(name, "1", values, space)

    worth = column(
        "worth",
        (0.4919369154744133, 0.3898531725154495),
        (0.7928965934188594, 0.4089139721227695),
        (0.6899337916872241, 0.9208963835417906, 0.8461738693963196),
    )
    near = column("near", (1.000000000006, 2.0), (3.99999999985, 4.99999999984), (1.999999999998, 3.0000000000030003, 1.0))
    other = column(
        "other",
        (-0.027908196055788537, -0.5833087223557334),
        (-0.07382874466317757, -0.9954920581887279),
        (-0.41528523272313, 0.8651954794632131, 0.9882971778271226),
    )
    problem = DesignProblem(space, worth, minimize=(near, other))
    front = exact_front(problem)
    assert front.complete
    assert check_certificate(front) == ()
    assert np.array_equal(front.values, values_of(exhaustive_front(problem)))
