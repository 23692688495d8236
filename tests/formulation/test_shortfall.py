"""A demand of "at least" as a budget."""

from __future__ import annotations

import math

import numpy as np
import pytest

from formulation import Budget, Composite, DesignProblem, EffectiveEntropy, Measured, SearchSpace, Separable
from hardware_models import Flops, Memory, Params
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Exhaustive, Status, explain_infeasibility, solve
from studies.shortfall import Shortfall

SPACE = SearchSpace.uniform(2, (512, 640, 768), (1, 2), (1, 2, 3))
ENTROPY = EffectiveEntropy()


@pytest.mark.parametrize("quantity", [ENTROPY, Params(), Memory()], ids=lambda quantity: quantity.name)
def test_it_is_what_is_missing(quantity: Separable | Composite) -> None:
    for design in SPACE:
        assert Shortfall(quantity, 12_345.0)(design) == pytest.approx(12_345 - quantity(design), rel=1e-12)


@pytest.mark.parametrize(
    "solver", [Exhaustive(), DynamicProgramming(), EvolutionaryAlgorithm(iterations=500)], ids=lambda s: s.name
)
@pytest.mark.parametrize("target", [9_000.0, 14_000.0, 20_000.0])
def test_a_budget_of_it_asks_for_at_least(target: float, solver: object) -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Shortfall(ENTROPY, target), 0), Budget(Flops(), 60e9)))
    truth = max(Params()(design) for design in SPACE if ENTROPY(design) >= target and Flops()(design) <= 60e9)
    solution = solve(problem, solver)  # type: ignore[arg-type]
    assert solution.objective == truth
    assert solution.architecture is not None
    assert ENTROPY(solution.architecture) >= target


def test_its_overestimator_is_nowhere_below_it() -> None:
    draw = np.random.default_rng(0)
    shortfall = Shortfall(ENTROPY, 30_000)
    parts = np.array([[part(design) for part in shortfall.parts] for design in SPACE])
    for _ in range(50):
        some = parts[draw.choice(len(parts), 5, replace=False)]
        coefficients, constant = shortfall.overestimator(some.min(axis=0), some.max(axis=0))
        assert np.all(some @ coefficients + constant >= shortfall.formula(some.T) - 1e-9)
    boxes = parts[:4]
    coefficients, constant = shortfall.overestimator(boxes, boxes)
    assert boxes.shape == coefficients.shape
    assert constant == pytest.approx(shortfall.formula(boxes.T))


def test_a_conflict_of_three() -> None:
    problem = DesignProblem(SPACE, ENTROPY, (Budget(Shortfall(ENTROPY, 16_000), 0), Budget(Flops(), 40e9), Budget(Params(), 60e6)))
    diagnosis = explain_infeasibility(problem, Exhaustive())
    assert diagnosis.status is Status.INFEASIBLE
    assert str(diagnosis.conflict[0]) == "16,000 − effective entropy ≤ 0 nat"
    least = diagnosis.needs[0].least
    assert least == pytest.approx(16_000 - max(ENTROPY(d) for d in SPACE if Flops()(d) <= 40e9 and Params()(d) <= 60e6))


def test_mistakes_are_said_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="expected a separable or composite one"):
        Shortfall(Measured("score", "1", lambda design: 1.0), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target is nan; expected a finite number of nat"):
        Shortfall(ENTROPY, math.nan)
    with pytest.raises(ValueError, match="γ"):
        DesignProblem(SearchSpace.uniform(2, (64,), (1,), (60,)), Params(), (Budget(Shortfall(ENTROPY, 1), 0),))
