"""The exact solver where its own machinery is at work: several budgets, coarse and fine tables, counting, stops."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from formulation import (
    Agreement,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Menu,
    Quantity,
    SearchSpace,
    Separable,
    deep_space,
    evaluator,
    fine_space,
    paper_space,
)
from formulation.architecture import Setting
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Limits, Status, solve
from solvers.exact.dynamic_programming import count_designs
from tests.slow import slow
from tests.toys import RandomCost, toy


def medium(number: int) -> DesignProblem:
    """A problem of 10⁴ to 10⁶ designs with two to four budgets of mixed kinds that all cut off a part of the space."""
    draw = np.random.default_rng([77, number])
    blocks = int(draw.integers(3, 6))
    widths = draw.choice(range(256, 1025, 64), size={3: 6, 4: 4, 5: 3}[blocks], replace=False).tolist()
    ratios = draw.choice([1, 1.5, 2, 3, 4], size={3: 3, 4: 2, 5: 2}[blocks], replace=False).tolist()
    depths = {3: range(1, 5), 4: range(1, 5), 5: (1, 2, 4)}[blocks]
    shared, ordered = bool(draw.random() < 0.5), bool(draw.random() < 0.8)
    space = SearchSpace.uniform(blocks, widths, ratios, depths, shared=shared, non_decreasing=ordered)
    objective: Quantity = EffectiveEntropy(rho=float(draw.choice([0.01, 0.3]))) if draw.random() < 0.8 else Params()
    sample = space.sample(draw, 500)
    kinds: list[Quantity] = [
        Flops(),
        Params(),
        Flops(seq_len=128),
        RandomCost(number),
        RandomCost(number + 1, maximum=True),
        Agreement(space.decode(sample[0])),
    ]
    budgets = []
    for k in draw.choice(len(kinds), size=draw.integers(2, 5), replace=False):
        budgets.append(Budget(kinds[k], float(np.quantile(evaluator(kinds[k], space)(sample), draw.uniform(0.3, 0.8)))))
    return DesignProblem(space, objective, tuple(budgets))


@pytest.mark.parametrize("number", range(24))
def test_several_budgets_on_medium_spaces(number: int) -> None:
    problem = medium(number)
    truth, solution = solve(problem, Exhaustive()), solve(problem, DynamicProgramming(), Limits(gap=0))
    assert solution.status is truth.status
    assert solution.objective == pytest.approx(truth.objective, rel=1e-12)


@pytest.mark.parametrize("options", [{"steps": 7}, {"rounds": 1}, {"merging": False}, {"beam": 1}], ids=str)
@pytest.mark.parametrize("number", range(6))
def test_options_change_the_work_and_not_the_answer(number: int, options: dict) -> None:
    problem = medium(number)
    expected = solve(problem, DynamicProgramming())
    assert solve(problem, DynamicProgramming(**options)).objective == pytest.approx(expected.objective, rel=1e-6)


@pytest.mark.parametrize("number", range(40))
def test_count_equals_brute_force(number: int) -> None:
    given = toy(number)
    values = given.objectives[given.feasible]
    for share in (1e-3, 0.05, 0.5):
        floor = values.max() * (1 - share) if len(values) else 1.0
        count = count_designs(given.problem, floor)
        assert count.exact
        assert count.number == int((values >= floor * (1 - 1e-9)).sum())


def test_count_of_a_space_with_equal_blocks() -> None:
    problem = medium(3)
    best = solve(problem, Exhaustive()).objective
    assert best is not None
    choices = np.array(list(problem.space.iterate_choices()))
    values = evaluator(problem.maximize, problem.space)(choices)
    for budget in problem.subject_to:
        values[evaluator(budget.quantity, problem.space)(choices) > budget.limit] = -np.inf
    for share in (1e-3, 0.02):
        floor = best * (1 - share)
        assert count_designs(problem, floor).number == int((values >= floor * (1 - 1e-9)).sum())


def test_a_count_that_is_stopped_is_a_lower_bound() -> None:
    problem = DesignProblem(deep_space(), EffectiveEntropy(), (Budget(Flops(), 160e9),))
    count = count_designs(problem, 40_000.0, Limits(seconds=0.5))
    assert not count.exact


def test_a_bound_at_a_time_limit_is_valid() -> None:
    problem = DesignProblem(deep_space(), EffectiveEntropy(), (Budget(Flops(), 160e9), Budget(Params(), 58e6)))
    for seconds in (0.05, 0.3):
        solution = solve(problem, DynamicProgramming(), Limits(seconds=seconds))
        assert solution.bound is None or solution.bound >= 56_597.38
        assert solution.status is not Status.INFEASIBLE


@dataclass(frozen=True)
class Terms(Separable):
    """A sum of given terms: one tuple per position, by the index of the block's depth less one."""

    terms: tuple[tuple[float, ...], ...]

    name = "terms"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        raise AssertionError("the position matters")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return self.terms[position][block.depth - 1]


def test_counts_beyond_64_bits() -> None:
    space = SearchSpace.uniform(32, (256,), (1, 2, 3, 4), (1,))
    problem = DesignProblem(space, Agreement(next(iter(space))))
    assert solve(problem, DynamicProgramming()).objective == 96
    assert count_designs(problem, 0.0).number == 4**32
    assert count_designs(problem, 95.0).number == 1 + 32 * 3


def test_a_budget_that_is_none_leaves_the_others_their_say() -> None:
    for number in range(3):
        problem = medium(number)
        free = Budget(RandomCost(7), sys.float_info.max)
        loose = replace(problem, subject_to=(*problem.subject_to, free))
        expected = solve(problem, DynamicProgramming())
        found = solve(loose, DynamicProgramming(beam=1), Limits(gap=0))
        assert found.status is Status.OPTIMAL
        assert found.objective == pytest.approx(expected.objective, rel=1e-6)


@pytest.mark.parametrize("huge", [-1e14, -1e16, 1e16])
def test_huge_terms_do_not_make_others_equal(huge: float) -> None:
    menus = (Menu((256,), (1,), (1, 2, 3)), Menu((256,), (1,), (1, 2)))
    space = SearchSpace(menus)
    objective, cost = Terms(((2.0, 2.0, 1.5), (0.0, 1.0))), Terms(((2.0, 1.0, huge), (1.0, 2.0)))
    problem = DesignProblem(space, objective, (Budget(cost, 3.0),))
    truth = max(objective(design) for design in space if cost(design) <= 3)
    for merging in (True, False):
        assert solve(problem, DynamicProgramming(merging=merging), Limits(gap=0)).objective == truth


def test_a_count_from_zero_on_holds_every_design() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    assert count_designs(DesignProblem(space, Agreement(next(iter(space)))), 0.0).number == space.size


@pytest.mark.parametrize("upper", [5e-324, 1e-310, 1e-300])
def test_budgets_near_nothing(upper: float) -> None:
    space = SearchSpace((Menu((256,), (1,), (1, 2)), Menu((256,), (1,), (1, 2))))
    problem = DesignProblem(space, Terms(((1.0, 2.0), (1.0, 2.0))), (Budget(Terms(((0.0, upper), (0.0, 2 * upper))), upper),))
    solution = solve(problem, DynamicProgramming())
    assert solution.status is Status.OPTIMAL
    assert solution.objective == 3


@pytest.mark.parametrize("name", ["beam", "steps", "rounds"])
def test_options_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        DynamicProgramming(**{name: 0})


@pytest.mark.parametrize("flops", [160e9, *slow((60e9, 110e9))])
def test_blocks_of_equal_width_can_be_split(flops: float) -> None:
    # A design of four blocks with eight layers or more is one of eight blocks too, at the same costs but for its parameters.
    def optimum(space: SearchSpace) -> float:
        solution = solve(DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), flops),)), DynamicProgramming())
        assert solution.status is Status.OPTIMAL
        assert solution.objective is not None
        return solution.objective

    four, eight = optimum(fine_space()), optimum(deep_space())
    assert eight >= four * (1 - 1e-9)
    assert four >= optimum(paper_space())
