"""Budgets that lie exactly at the cost of a design, or just below it, and partial designs whose costs all but agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from formulation import Block, BlockwiseEntropy, Budget, DesignProblem, EffectiveEntropy, Quantity, SearchSpace, Separable
from formulation.architecture import Setting
from formulation.problem import just_below
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Limits, Status, count_designs, solve
from tests.fuzz import Kind, Mixture, Placed, Product, Ratio, Terms, value_of

SPACE = SearchSpace.uniform(2, (128, 256), (0.5, 1, 2), (1, 2, 3), embedding_width=256)
VALUE = Placed(Terms(5, Kind.REAL, 1.0, 2))
COSTS: dict[str, Quantity] = {
    "sum": Terms(9, Kind.REAL, 1.0, 2, joined=True),
    "whole sum": Params(),
    "maximum": Terms(10, Kind.REAL, 1.0, 2, maximum=True, joined=True),
    "entropy": EffectiveEntropy(rho=0.3),
    "blockwise entropy": BlockwiseEntropy(alpha=(1.0, 0.1), beta=0.1),
    "product": Product((Params(), Flops(seq_len=16))),
    "product with a maximum": Product((Terms(1, Kind.WHOLE, 0.1, 2, maximum=True), Terms(2, Kind.REAL, 3.0, 2))),
    "ratio": Ratio((Terms(3, Kind.REAL, 1.0, 2, joined=True), Terms(4, Kind.REAL, 1.0, 2, floor=0.5))),
    "mixture": Mixture((Terms(6, Kind.REAL, 1.0, 2), Terms(7, Kind.SIGNED, 1.0, 2), Terms(8, Kind.REAL, 1.0, 2))),
}


@pytest.mark.parametrize("solver", [DynamicProgramming(), DynamicProgramming(beam=1, steps=5), Exhaustive()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", COSTS)
def test_a_budget_ends_exactly_at_its_limit(name: str, solver: object) -> None:
    """The best design costs `cost`: a budget of that finds it, one that is smaller by a relative 1e-11 finds the next."""
    quantity = COSTS[name]
    rows = [(value_of(VALUE, design).exact, value_of(quantity, design).exact) for design in SPACE]
    costs = sorted(cost for _, cost in rows if cost > 0)
    for place in (0.0, 0.1, 0.4, 0.7, 1.0):
        most = costs[int(place * (len(costs) - 1))]
        _, cost = max(row for row in rows if 0 < row[1] <= most)
        for upper in (cost, just_below(cost)):
            expected = max((value for value, cost in rows if cost <= upper * (1 + 1e-12)), default=None)
            solution = solve(DesignProblem(SPACE, VALUE, (Budget(quantity, upper),)), solver, Limits(gap=0))  # type: ignore[arg-type]
            if expected is None:
                assert solution.status is Status.INFEASIBLE
            else:
                assert solution.objective == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_designs_within_a_budget_are_counted_exactly(name: str) -> None:
    quantity = COSTS[name]
    costs = np.array([quantity(design) for design in SPACE])
    for upper in np.quantile(costs[costs > 0], (0.0, 0.3, 0.6, 0.9), method="nearest"):
        problem = DesignProblem(SPACE, VALUE, (Budget(quantity, float(upper)),))
        assert count_designs(problem, 0.0).number == int((costs <= upper * (1 + 1e-12)).sum())
        problem = DesignProblem(SPACE, VALUE, (Budget(quantity, just_below(float(upper))),))
        assert count_designs(problem, 0.0).number == int((costs < upper * (1 - 5e-12)).sum())


@dataclass(frozen=True)
class Listed(Separable):
    """Given terms: one row per position, by the FFN ratio 1, 2, …"""

    rows: tuple[tuple[float, ...], ...]

    name = "listed"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        raise AssertionError("the position matters")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return self.rows[position][block.ffn_width // block.width - 1]


@pytest.mark.parametrize("merging", [True, False])
@pytest.mark.parametrize("exponent", [-20, -25, -30, -34, -38])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 3e14])
def test_partial_designs_that_all_but_agree_are_not_one(scale: float, exponent: int, merging: bool) -> None:
    """The first of two alike blocks is the better one by a hair, and too dear by a hair for the best second block."""
    hair = 2.0**exponent
    space = SearchSpace.uniform(2, (64,), (1, 2), (1,), embedding_width=64)
    value = Listed(((1 + hair, 1.0), (10.0, 1.0)))
    cost = Listed(((scale * (1 + hair), scale), (scale, scale / 2)))
    problem = DesignProblem(space, value, (Budget(cost, 2 * scale),))
    solution = solve(problem, DynamicProgramming(merging=merging), Limits(gap=0))
    assert solution.objective == 11.0
    assert solution.bound is not None
    assert solution.bound >= 11.0
    assert count_designs(problem, 0.0).number == 3
    assert count_designs(problem, 5.0).number == 1


@pytest.mark.parametrize("merging", [True, False])
def test_partial_designs_that_agree_up_to_rounding_are_one(merging: bool) -> None:
    """0.1 + 0.2 and 0.3 are the same cost: what is counted does not depend on the order of the blocks."""
    space = SearchSpace.uniform(3, (64,), (1, 2, 3), (1,), embedding_width=64)
    problem = DesignProblem(space, Listed(((1.0, 1.0, 1.0),) * 3), (Budget(Listed(((0.1, 0.2, 0.3),) * 3), 0.6),))
    truth = sum(a + b + c <= 6 for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3))
    assert count_designs(problem, 3.0).number == truth
    assert solve(problem, DynamicProgramming(merging=merging)).objective == 3.0


@pytest.mark.parametrize("exponent", [-22, -26, -30, -34])
def test_the_better_of_two_designs_that_all_but_agree_is_found(exponent: int) -> None:
    """Asked for a gap of nothing, the search must not take the second best, which comes first, for the best."""
    hair = 2.0**exponent
    space = SearchSpace.uniform(3, (64,), (1, 2, 3), (1,), embedding_width=64)
    value = Listed(((1.0, 1 + hair, 0.5), (2.0, 2.0, 2 + hair), (3.0, 1.0, 3 + hair)))
    for upper, expected in ((9.0, 6 + 3 * hair), (7.0, 6 + 2 * hair), (6.0, 6 + hair), (5.0, 6.0)):
        problem = DesignProblem(space, value, (Budget(Listed(((1.0, 2.0, 1.0), (1.0, 1.0, 3.0), (3.0, 1.0, 4.0))), upper),))
        assert expected == max(value(design) for design in space if problem.evaluate(design).feasible)
        assert solve(problem, DynamicProgramming(), Limits(gap=0)).objective == expected


@pytest.mark.parametrize("maximum", [True, False])
def test_a_budget_of_nothing_admits_what_costs_nothing(maximum: bool) -> None:
    cost = Terms(3, Kind.SPARSE, 1.0, 2, maximum=maximum)
    free = [VALUE(design) for design in SPACE if cost(design) == 0]
    assert 0 < len(free) < SPACE.size
    for solver in (DynamicProgramming(), Exhaustive()):
        assert solve(DesignProblem(SPACE, VALUE, (Budget(cost, 0),)), solver).objective == pytest.approx(max(free))
