"""Fronts combined from two halves, against brute force, the ε-constraint method and the plain enumeration of all designs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from formulation import (
    Block,
    BlockwiseEntropy,
    Budget,
    Composite,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    Quantity,
    SearchSpace,
    Separable,
    SumOverLayers,
    deep_space,
    fine_space,
    paper_space,
)
from formulation.architecture import Setting
from formulation.score_table import Column, OptionMenu, OptionSpace
from formulation.values import Undefined
from hardware_models import Flops, Params
from solvers.base import Limits, Run, Stopped, solve
from solvers.evaluation import Tabulated
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.fronts import enumeration
from solvers.fronts.whole import Open, WholeFront
from solvers.questions.pareto import Point, exact_front, exhaustive_front, non_dominated, values_of
from tests.fuzz import random_problem
from tests.slow import slow
from tests.solvers.test_pareto import SAME, assert_same, several, truth
from tests.toys import RandomCost

SMALL = SearchSpace.uniform(3, (512, 640, 768), (1, 2), (1, 2))
BOTH: tuple[Quantity, ...] = (Flops(), Params())


def found(problem: DesignProblem, limits: Limits | None = None) -> WholeFront:
    """The front that enumeration finds, which suits the problem."""
    front = enumeration.enumerated_front(problem, Run(limits or Limits()))
    assert front is not None
    return front


def values(problem: DesignProblem, front: WholeFront) -> np.ndarray:
    """Objective and costs of its non-dominated designs that meet the budgets, evaluated by the problem."""
    designs = [problem.space.decode(choices) for choices in front.choices]
    points = [
        Point(design, problem.objective(design), tuple(cost(design) for cost in problem.minimize))
        for design in designs
        if problem.evaluate(design).feasible
    ]
    return values_of(non_dominated(points)).reshape(-1, 1 + len(problem.minimize))


def assert_true(problem: DesignProblem) -> np.ndarray:
    front = found(problem)
    assert front.opened == ()
    expected = truth(problem)
    assert_same(values(problem, front), expected)
    return expected


@pytest.fixture
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches of few designs even where the whole space would be one."""
    monkeypatch.setattr(enumeration, "_COMBINED", 64)
    monkeypatch.setattr(enumeration, "_WAITING", 1)


@pytest.mark.usefixtures("little_at_once")
@pytest.mark.parametrize("number", range(30))
def test_it_is_the_true_front(number: int) -> None:
    assert_true(several(number))


def fuzzed(seed: int) -> DesignProblem | None:
    """A problem of the fuzzer on a single space with one to three costs; None where a quantity is a black box."""
    problem = random_problem(seed)[0].parts[0]
    problem = replace(problem, maximize=problem.goal, minimize=())
    draw = np.random.default_rng([77, seed])
    pool: list[Quantity] = [
        *(budget.quantity for budget in problem.subject_to[:1]),
        Params(),
        Flops(seq_len=64),
        RandomCost(seed),
        RandomCost(seed + 1, maximum=True),
    ]
    pool = [quantity for number, quantity in enumerate(pool) if quantity not in (problem.maximize, *pool[:number])]
    costs = tuple(pool[k] for k in sorted(draw.choice(len(pool), size=draw.integers(1, 4), replace=False)))
    quantities = (problem.goal, *costs, *(budget.quantity for budget in problem.subject_to))
    return None if any(isinstance(quantity, Measured) for quantity in quantities) else replace(problem, minimize=costs)


@pytest.mark.usefixtures("little_at_once")
@pytest.mark.parametrize("seed", [*range(40), *slow(range(40, 400))])
def test_no_design_of_a_random_problem_is_missed(seed: int) -> None:
    # Joints, blocks left out, rules for steps, families, budgets from above and below, composites of every kind.
    problem = fuzzed(seed)
    if problem is None:
        return
    front = enumeration.enumerated_front(problem, Run(Limits()))
    if front is None:  # its terms cancel, or a formula has no value where no design is
        return
    assert front.opened == ()
    points = values(problem, front)
    for design in problem.space:
        if not problem.evaluate(design).feasible:
            continue
        point = np.array([problem.objective(design), *(cost(design) for cost in problem.minimize)])
        room = SAME * np.abs(point)
        assert np.any((points[:, 0] >= point[0] - room[0]) & np.all(points[:, 1:] <= point[1:] + room[1:], axis=1)), design


def test_the_fuzzer_brings_many_problems() -> None:
    problems = [problem for problem in map(fuzzed, range(40)) if problem is not None]
    fronts = [(problem, enumeration.enumerated_front(problem, Run(Limits()))) for problem in problems]
    enumerated = [problem for problem, front in fronts if front is not None]
    assert len(enumerated) >= 25
    assert {len(problem.minimize) for problem in enumerated} == {1, 2, 3}
    assert any(problem.space.may_be_empty for problem in enumerated)
    assert any(problem.space.step is not None for problem in enumerated)
    assert any(isinstance(budget.quantity, Composite) for problem in enumerated for budget in problem.subject_to)
    assert sum(len(front.choices) for _, front in fronts if front is not None) > 3 * len(enumerated)


@pytest.mark.parametrize("family", [EffectiveEntropy, BlockwiseEntropy])
@pytest.mark.parametrize("costs", [BOTH[:1], BOTH[1:], *slow([(BOTH,), ((*BOTH, RandomCost(5)),)])])
def test_it_equals_the_epsilon_constraint_method(family: type[Composite], costs: tuple[Quantity, ...]) -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3), shared=False)
    budgets = (Budget(Flops(), 50e9), Budget(Params(), at_least=40e6))
    problem = DesignProblem(space, family(), budgets, minimize=costs)
    expected = assert_true(problem)
    assert len(expected) > 3
    assert_same(exact_front(problem, DynamicProgramming()).values, expected)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_designs_whose_blocks_may_all_be_left_out(blocks: int) -> None:
    space = SearchSpace.uniform(blocks, (512, 640), (1, 2), (0, 1, 2))
    assert space.may_be_empty
    assert len(assert_true(DesignProblem(space, EffectiveEntropy(), minimize=BOTH))) > 1


def test_a_cost_may_be_a_composite_and_the_objective_a_sum_or_a_maximum() -> None:
    for goal in (Params(), RandomCost(3), RandomCost(4, maximum=True)):
        assert_true(DesignProblem(SMALL, goal, minimize=(EffectiveEntropy(), Flops())))


def test_ties_are_found_once() -> None:
    depth = SumOverLayers("layers", "layers", lambda layer: 1.0)
    problem = DesignProblem(SMALL, depth, minimize=(Params(),))
    front = found(problem)
    assert_same(values(problem, front), truth(problem))
    assert len(front.choices) == 1  # shared weights: depth costs no parameters


def test_costs_may_be_negative() -> None:
    saving = SumOverLayers("saving", "1", lambda layer: -1.0)
    front = found(DesignProblem(SMALL, EffectiveEntropy(), minimize=(saving,)))
    best = max(SMALL, key=EffectiveEntropy())
    assert [SMALL.decode(choices) for choices in front.choices] == [best]  # the deepest is the best


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_a_budget_that_a_design_meets_by_the_last_digit(step: int) -> None:
    # The designs at the limit are evaluated by the problem, however the table adds up.
    cost = RandomCost(9)
    middle = float(np.quantile([cost(design) for design in SMALL], 0.5, method="nearest"))
    limit = middle / (1 + 1e-12)
    for _ in range(3):
        limit = math.nextafter(limit, step * math.inf) if step else limit
    assert_true(DesignProblem(SMALL, EffectiveEntropy(), (Budget(cost, limit),), minimize=BOTH))


def test_equal_quantities_share_the_rows_of_a_table() -> None:
    budgets = (Budget(Flops(), 60e9), Budget(EffectiveEntropy(), at_least=1e4), Budget(Flops(), 80e9))
    problem = DesignProblem(SMALL, EffectiveEntropy(), budgets, minimize=BOTH)
    tabulated = Tabulated(problem, further=problem.minimize)
    assert tabulated.rows[1] == tabulated.rows[3] == tabulated.rows[4]
    assert tabulated.table.fixed.shape == (5 + 1 + 5 + 1,)  # entropy, FLOPs, negative entropy, parameters
    choices = np.array([[0, 3, 5]])
    totals, design = tabulated.table.evaluate(choices), SMALL.decode(choices[0])
    read = [float(tabulated.read(number, totals)[0]) for number in range(len(tabulated.rows))]
    assert read == pytest.approx([quantity(design) for quantity in tabulated.quantities])


def test_an_infeasible_problem_has_an_empty_front() -> None:
    front = found(DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 1.0),), minimize=BOTH))
    assert front.choices.shape == (0, 3)
    assert front.opened == ()


@dataclass(frozen=True)
class Cancelling(Separable):
    """Terms far larger than their sum."""

    name = "cancelling"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        return 1e12 + RandomCost(1).block(block, setting)

    def fixed(self, setting: Setting) -> float:
        return -3e12


def test_what_it_does_not_suit() -> None:
    plain = DesignProblem(SMALL, EffectiveEntropy(), minimize=(Flops(),))
    box = Measured("latency", "s", lambda design: float(sum(design.depths)))
    assert enumeration.enumerated_front(replace(plain, minimize=(box,)), Run(Limits())) is None
    assert enumeration.enumerated_front(replace(plain, maximize=box), Run(Limits())) is None
    assert enumeration.enumerated_front(replace(plain, subject_to=(Budget(box, 5),)), Run(Limits())) is None
    assert enumeration.enumerated_front(replace(plain, minimize=(Cancelling(),)), Run(Limits())) is None
    assert enumeration.enumerated_front(DesignProblem(deep_space(), EffectiveEntropy(), minimize=(Flops(),)), Run(Limits())) is None
    fine = DesignProblem(fine_space(), EffectiveEntropy(), minimize=(Flops(),))
    assert enumeration.enumerated_front(fine, Run(Limits(memory=1 << 20))) is None


@dataclass(frozen=True)
class Inverse(Composite):
    """−1 / (layers − 5), undefined for five layers."""

    name = "inverse"
    unit = "1"
    signs = (1,)
    parts = (SumOverLayers("layers", "layers", lambda layer: 1.0),)

    def formula(self, parts: Sequence[float] | np.ndarray) -> float:
        return -1 / (parts[0] - 5)

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(np.shape(lower)), np.full(np.shape(lower)[:-1], np.inf)


def test_a_design_without_a_value_is_named() -> None:
    space = SearchSpace.uniform(3, (512,), (1,), (1, 2))
    problem = DesignProblem(space, EffectiveEntropy(), minimize=(Flops(),))
    object.__setattr__(problem, "maximize", Inverse())  # the problem itself would refuse it
    with pytest.raises(Undefined, match="inverse has no value for the design"):
        enumeration.enumerated_front(problem, Run(Limits()))


@pytest.mark.usefixtures("little_at_once")
@pytest.mark.parametrize("costs", [BOTH[:1], BOTH])
@pytest.mark.parametrize("evaluations", [1, 100, 300])
def test_a_stopped_search_says_what_is_open(costs: tuple[Quantity, ...], evaluations: int) -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(), minimize=costs)
    front = found(problem, Limits(evaluations=evaluations))
    assert len(front.opened) == 1
    assert "evaluation limit reached" in front.message
    opened, known = front.opened[0], values(problem, front)
    missing = [point for point in truth(problem) if not np.any(np.all(np.isclose(known, point, rtol=1e-10, atol=0), axis=1))]
    assert missing
    for point in missing:
        reached = max((own[0] for own in known if np.all(own[1:] <= point[1:])), default=-math.inf)
        assert opened.floor <= reached < point[0] <= opened.bound * (1 + 1e-12)
    assert opened.bound < math.inf
    assert opened.floor > -math.inf


def test_a_run_that_is_over_leaves_everything_open() -> None:
    run = Run(Limits())
    run.interrupted = True
    front = enumeration.enumerated_front(DesignProblem(SMALL, EffectiveEntropy(), minimize=BOTH), run)
    assert front is not None
    assert front.choices.shape == (0, 3)
    assert front.opened == (Open.everything(2, front.opened[0].bound),)
    assert max(map(EffectiveEntropy(), SMALL)) <= front.opened[0].bound < math.inf


def test_a_long_search_that_is_stopped_early_shows_designs(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(enumeration, "_half", stopped)
    budget = Budget(Flops(), 200e9)
    problem = DesignProblem(fine_space(), EffectiveEntropy(), (budget,), minimize=(Params(),))
    front = found(problem)
    assert len(values(problem, front)) == len(front.choices) > 10
    best = DesignProblem(fine_space(), EffectiveEntropy(), (budget,))
    assert front.opened[0].floor == -math.inf
    optimum = solve(best, DynamicProgramming()).objective
    assert optimum is not None
    assert values(problem, front)[-1, 0] <= optimum <= front.opened[0].bound


@pytest.mark.parametrize(("costs", "size"), [(BOTH[:1], 393), (BOTH[1:], 101), (BOTH, 686)])
def test_the_fronts_of_the_paper_space(costs: tuple[Quantity, ...], size: int) -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), minimize=costs)
    run = Run(Limits())
    front = enumeration.enumerated_front(problem, run)
    assert front is not None
    points = values(problem, front)
    assert len(points) == size
    assert_same(points, values_of(exhaustive_front(problem)))
    assert run.evaluations < paper_space().size / 2  # halves that others better, and pairs of tiles that are ruled out


def test_budgets_on_the_paper_space() -> None:
    budgets = (Budget(Params(), 75e6), Budget(Flops(), 60e9), Budget(Flops(), at_least=20e9))
    problem = DesignProblem(paper_space(), EffectiveEntropy(), budgets, minimize=BOTH)
    points = values(problem, found(problem))
    assert len(points) > 50
    assert_same(points, values_of(exhaustive_front(problem)))


@pytest.mark.slow
def test_the_front_of_the_fine_space() -> None:
    problem = DesignProblem(fine_space(), EffectiveEntropy(), minimize=(Flops(),))
    front = found(problem)
    assert front.opened == ()
    points = values(problem, front)
    assert len(points) == 1547
    # The best design within the costs of some points, from a search of its own.
    for point in points[::300]:
        alone = DesignProblem(fine_space(), EffectiveEntropy(), (Budget(Flops(), float(point[1])),))
        assert solve(alone, DynamicProgramming()).objective == pytest.approx(point[0], rel=1e-6)


def test_costs_near_zero_are_distinguished_where_others_are_far_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle item makes costs of 1e-14 to 4e-12: all are as far from the least one, −3.4e7, up to rounding."""
    monkeypatch.setattr(enumeration, "_COMBINED", 64)
    monkeypatch.setattr(enumeration, "_WAITING", 1)
    designs, unit, tiny = 400, 2.0**18, 1e-14
    ranks = np.random.default_rng(0).permutation(designs)
    space = OptionSpace((OptionMenu("first", ("low", "middle", "high")), OptionMenu("second", tuple(map(str, range(designs))))))

    def column(name: str, first: Sequence[float], second: np.ndarray) -> Column:
        return Column(name, "1", (tuple(first), tuple(second.astype(float).tolist())), space)

    worth = column("worth", (-1e6, 0.0, 1e6), designs - ranks)
    one = column("one", (-128 * unit, 0.0, 127 * unit - designs * tiny), (designs - ranks) * tiny)
    problem = DesignProblem(space, worth, minimize=(one, column("other", (0.0, 0.0, 0.0), ranks)))
    front = found(problem)
    assert front.opened == ()
    assert sum(int(choices[0]) == 1 for choices in front.choices) == designs
