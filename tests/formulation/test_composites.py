"""Composite objectives whose parts are sums or maxima, against every design of the space."""

from __future__ import annotations

import pytest

from formulation import Budget, Composite, DesignProblem, SearchSpace
from hardware_models import Params
from solvers import DynamicProgramming, Limits, Status, solve
from tests.fuzz import Kind, Mixture, Placed, Product, Ratio, Terms, false_claims, truth_of

SPACE = SearchSpace.uniform(3, (128, 256), (1, 2), (1, 2, 3), embedding_width=256)
BLOCKS = SPACE.blocks


def highest(seed: int, floor: float = 0.0, kind: Kind = Kind.REAL) -> Terms:
    """A maximum over blocks and joints, never below `floor`."""
    return Terms(seed, kind, 1.0, BLOCKS, maximum=True, joined=True, floor=floor)


def total(seed: int, floor: float = 0.0, kind: Kind = Kind.REAL) -> Terms:
    return Terms(seed, kind, 1.0, BLOCKS, joined=True, per_layer=True, floor=floor)


OBJECTIVES: dict[str, Composite] = {
    "sum · sum": Product((total(1), total(2))),
    "maximum · sum": Product((highest(3), total(4))),
    "sum · maximum with a floor": Product((total(5), highest(6, floor=0.9))),
    "sum · maximum that is its floor": Product((total(5), highest(6, floor=1.5))),
    "maximum · maximum": Product((highest(7), highest(8))),
    "sum / maximum": Ratio((total(9), highest(10, floor=0.2))),
    "sum / maximum that is its floor": Ratio((total(9), highest(10, floor=1.5))),
    "maximum / sum": Ratio((highest(11), total(12, floor=0.5))),
    "sum + 2 maximum − maximum / 2": Mixture((total(13), highest(14), highest(15))),
    "signed": Mixture(
        (total(16, kind=Kind.SIGNED), highest(17, kind=Kind.SIGNED, floor=-5.0), Placed(total(18, kind=Kind.SIGNED)))
    ),
}
SOLVERS = [DynamicProgramming(beam=1), DynamicProgramming(beam=1, rounds=1, steps=3)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_composite_objective_is_proved(name: str, solver: DynamicProgramming) -> None:
    costs = sorted(Params()(design) for design in SPACE)
    for upper in (costs[len(costs) // 8], costs[len(costs) // 2], costs[-1]):
        problem, limits = DesignProblem(SPACE, OBJECTIVES[name], (Budget(Params(), upper),)), Limits()
        solution = solve(problem, solver, limits)
        assert false_claims(problem, limits, truth_of(problem), solution) == []
        assert solution.status is Status.OPTIMAL
