"""The other reading of the paper's objective: what it shares with the first, its bounds, its optimum, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from formulation import (
    Architecture,
    Block,
    BlockwiseEntropy,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    evaluator,
    fine_space,
    layer_of,
    paper_space,
    tabulate,
)
from hardware_models import Flops, Params
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import DynamicProgramming, Exhaustive, Form, Highs, Limits, Scip, Status, solve

SPACE = SearchSpace.uniform(3, (256, 512, 1024), (1, 2), (1, 3, 6))


def test_equals_the_other_reading_where_all_widths_are_equal() -> None:
    design = Architecture((Block(512, 512, 3), Block(512, 512, 2)))
    assert BlockwiseEntropy()(design) == pytest.approx(EffectiveEntropy()(design), rel=1e-12)
    assert BlockwiseEntropy().effectiveness_of(design) == pytest.approx(EffectiveEntropy().effectiveness_of(design))
    unequal = Architecture((Block(256, 512, 3), Block(1024, 1024, 2)))
    assert BlockwiseEntropy()(unequal) != pytest.approx(EffectiveEntropy()(unequal), rel=1e-6)
    for switched in ({"effectiveness": False}, {"beta": 0.0}):
        assert BlockwiseEntropy(**switched)(unequal) == pytest.approx(EffectiveEntropy(**switched)(unequal), rel=1e-12)


def test_it_is_the_sum_over_blocks_that_the_docstring_states() -> None:
    objective = BlockwiseEntropy(rho=0.1, alpha=(0.7, 0.2), beta=0.1)
    design = Architecture((Block(256, 512, 3), Block(640, 640, 2), Block(1024, 2048, 1)))
    attention, ffn = (part.per_layer for part in objective.parts[1:3])  # type: ignore[attr-defined]
    total = sum(
        block.depth
        * (
            0.7 * (1 - 0.1 * 6 / math.log2(block.width)) * attention(layer_of(block, design))
            + 0.2 * (1 - 0.1 * 6 / math.log2(block.ffn_width)) * ffn(layer_of(block, design))
        )
        for block in design.blocks
    )
    assert objective(design) == pytest.approx(total, rel=1e-12)
    choices = SPACE.sample(np.random.default_rng(0), 50)
    values = evaluator(objective, SPACE)(choices)
    assert values == pytest.approx([objective(SPACE.decode(row)) for row in choices], rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_overestimator_lies_above_and_shrinks_to_the_formula(seed: int) -> None:
    objective, draw = BlockwiseEntropy(beta=0.2), np.random.default_rng(seed)
    space = fine_space()
    points = tabulate(objective.parts, space).evaluate(space.sample(draw, 40)).T
    values = objective.formula(points.T)
    lower, upper = points.min(axis=0), points.max(axis=0)
    for near in (None, lower + draw.random(5) * (upper - lower)):
        coefficients, constant = objective.overestimator(lower, upper, near)
        assert (points @ coefficients + constant - values).min() >= -1e-9 * np.abs(values).max()
    for point, value in zip(points[:5], values, strict=False):
        coefficients, constant = objective.overestimator(point, point)
        assert point @ coefficients + constant == pytest.approx(value, rel=1e-12)
    boxes = objective.overestimator(points[:20] * 0.9, points[:20] * 1.1)
    one, constant = objective.overestimator(points[3] * 0.9, points[3] * 1.1)
    assert boxes[0][3] == pytest.approx(one)
    assert boxes[1][3] == pytest.approx(constant)


def test_declared_signs_hold() -> None:
    objective = BlockwiseEntropy()
    space = fine_space()
    for point in tabulate(objective.parts, space).evaluate(space.sample(np.random.default_rng(1), 50)).T:
        for p, sign in enumerate(objective.signs):
            moved = point.copy()
            moved[p] *= 1.01
            assert sign * (objective.formula(moved) - objective.formula(point)) >= 0


@pytest.mark.parametrize("solver", [DynamicProgramming(), Scip(), Scip(Form.LOOKUP), Highs()])
@pytest.mark.parametrize("beta", [1 / 16, 0.3])
def test_exact_solvers_agree_with_brute_force(solver: object, beta: float) -> None:
    problem = DesignProblem(SPACE, BlockwiseEntropy(beta=beta), (Budget(Flops(), 60e9), Budget(Params(), 5.2e7)))
    truth = solve(problem, Exhaustive())
    found = solve(problem, solver, Limits(seconds=60))  # type: ignore[arg-type]
    assert truth.status is found.status is Status.OPTIMAL
    assert found.objective == pytest.approx(truth.objective, rel=1e-6)
    assert found.bound is not None
    assert found.bound >= truth.objective * (1 - 1e-9)  # type: ignore[operator]


def test_a_space_with_too_deep_and_narrow_a_block_is_refused_with_that_design() -> None:
    with pytest.raises(ValueError, match=r"512/512x4 512/512x4 512/512x4 512/512x4 .*1\.778"):
        BlockwiseEntropy(beta=1.0).check(paper_space())
    BlockwiseEntropy(beta=0.5).check(paper_space())
    worst = max(max(BlockwiseEntropy(beta=0.01).effectiveness_of(design)) for design in SPACE)
    BlockwiseEntropy(beta=0.01 / worst * 0.999).check(SPACE)
    with pytest.raises(ValueError, match="effective entropy needs γ < 1"):
        BlockwiseEntropy(beta=0.01 / worst * 1.001).check(SPACE)


def test_it_is_written_to_problem_files() -> None:
    quantity = BlockwiseEntropy(rho=0.1, beta=0.2)
    assert quantity_from_dict(quantity_to_dict(quantity)) == quantity
