"""Problems built to break a proof: what an exact solver claims, compared with brute force over the plain definitions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from formulation import Block, Budget, Combine, DesignProblem, NotSeparable, SearchSpace, Separable
from formulation.architecture import Setting
from hardware_models import Flops, Params
from solvers import Cbc, CpSat, DynamicProgramming, Exhaustive, Highs, Limits, Scip, Status, solve
from solvers.exact import dynamic_programming
from tests.toys import toy

SPACE = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2), embedding_width=512)
ENGINES = [DynamicProgramming(beam=1), Exhaustive(), Highs(), Cbc(), CpSat(), Scip()]


@dataclass(frozen=True)
class Drawn(Separable):
    """Terms drawn uniformly from [low, high] per block shape; `wide` costs 1 per block wider than 256 instead."""

    seed: int
    low: float = 0.0
    high: float = 1.0
    maximum: bool = False
    wide: bool = False

    name = "drawn"
    unit = "1"

    @property
    def combine(self) -> Combine:  # type: ignore[override]
        return Combine.MAX if self.maximum else Combine.SUM

    def block(self, block: Block, setting: Setting) -> float:
        if self.wide:
            return float(block.width > 256)
        draw = np.random.default_rng([self.seed, block.width, block.ffn_width, block.depth])
        return float(self.low + (self.high - self.low) * draw.random())


def brute_force(problem: DesignProblem) -> float | None:
    """The best feasible objective by calling the definitions design by design."""
    evaluations = map(problem.evaluate, problem.space)
    return max((evaluation.objective for evaluation in evaluations if evaluation.feasible), default=None)


def check(problem: DesignProblem, solver: object) -> None:
    """A proof must be right; nothing need be proved."""
    truth, solution = brute_force(problem), solve(problem, solver, Limits(seconds=20))  # type: ignore[arg-type]
    if solution.status is Status.INFEASIBLE:
        assert truth is None
    if solution.bound is not None:
        assert truth is None or solution.bound >= truth - 1e-9 * abs(truth)
    if solution.status is Status.OPTIMAL:
        assert truth is not None
        assert solution.objective == pytest.approx(truth, rel=1e-6, abs=0)


@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e9, 1e14])
def test_objectives_of_any_size(solver: object, scale: float) -> None:
    for seed in range(3):
        problem = DesignProblem(SPACE, Drawn(seed, high=scale), (Budget(Params(), 5e7),))
        check(problem, solver)
        assert solve(problem, solver, Limits(seconds=20)).status is Status.OPTIMAL  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
@pytest.mark.parametrize("objective", [Drawn(1, high=2e8), Flops(), Params()], ids=lambda quantity: quantity.name)
def test_a_budget_of_nothing(solver: object, objective: Separable) -> None:
    problem = DesignProblem(SPACE, objective, (Budget(Drawn(0, wide=True), 0),))
    check(problem, solver)
    assert solve(problem, solver, Limits(seconds=20)).status is Status.OPTIMAL  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", [DynamicProgramming(beam=1), Exhaustive()], ids=lambda solver: solver.name)
def test_terms_below_zero(solver: object) -> None:
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    for seed in range(60):
        upper = float(np.random.default_rng(seed).uniform(0, 4))
        check(DesignProblem(space, Drawn(seed, -1, 1), (Budget(Drawn(seed + 999, -4, 4), upper),)), solver)


@pytest.mark.parametrize("solver", [Highs(), Cbc(), CpSat(), Scip()], ids=lambda solver: solver.name)
def test_terms_below_zero_in_the_engines(solver: object) -> None:
    for seed in range(4):
        check(DesignProblem(SPACE, Drawn(seed, -1, 1), (Budget(Drawn(seed + 999, -4, 4), 1.0),)), solver)


def test_an_objective_that_is_a_maximum() -> None:
    for seed in range(10):
        problem = DesignProblem(SPACE, Drawn(seed, maximum=True), (Budget(Params(), 4.2e7),))
        for solver in (DynamicProgramming(), DynamicProgramming(beam=1, steps=2), Exhaustive()):
            check(problem, solver)
            assert solve(problem, solver).status in (Status.OPTIMAL, Status.INFEASIBLE)
        with pytest.raises(NotSeparable, match="DynamicProgramming"):
            solve(problem, Highs())


@pytest.mark.parametrize("gap", [0.05, 0.2])
def test_a_loose_gap_leaves_the_bound_valid(monkeypatch: pytest.MonkeyPatch, gap: float) -> None:
    monkeypatch.setattr(dynamic_programming, "_TABLES", 0.0)  # one cell at a time
    for number in range(50):
        given = toy(number)
        solution = solve(given.problem, DynamicProgramming(beam=1), Limits(gap=gap))
        if given.optimum is not None:
            assert solution.bound is not None
            assert solution.bound >= given.optimum * (1 - 1e-9)
            bounds = [point.bound for point in solution.trace if point.bound is not None]
            assert all(bound >= given.optimum * (1 - 1e-9) for bound in bounds)


def test_joints_that_are_not_finite_are_refused() -> None:
    @dataclass(frozen=True)
    class Forbidden(Drawn):
        def joint(self, left: int, right: int, setting: Setting) -> float:
            return np.inf

    for solver, quantity in itertools.product((DynamicProgramming(), Highs()), (Forbidden(0),)):
        with pytest.raises(ValueError, match="expected a finite number"):
            solve(DesignProblem(SPACE, Params(), (Budget(quantity, 5),)), solver)


@dataclass(frozen=True)
class Cancelling(Separable):
    """Terms of about `size` per block, and a fixed term that takes that away again: what is left is some 1e-3 to 3."""

    size: float
    seed: int
    blocks: int = 3

    name = "cancelling"
    unit = "1"

    def fixed(self, setting: Setting) -> float:
        return -self.blocks * self.size

    def block(self, block: Block, setting: Setting) -> float:
        draw = np.random.default_rng([self.seed, block.width, block.ffn_width, block.depth])
        return self.size + float(draw.integers(0, 1000)) / 1000


@pytest.mark.parametrize("solver", [DynamicProgramming(beam=1), Exhaustive()], ids=lambda solver: solver.name)
@pytest.mark.parametrize("size", [1e6, 1e9, 1e12, 1e15])
def test_terms_that_cancel(solver: object, size: float) -> None:
    """An objective and a budget whose terms are up to 1e15 times what they add up to."""
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    for seed in range(3):
        for budgets in ((), (Budget(Cancelling(size, seed + 99), 1.2),), (Budget(Drawn(seed, high=4), 6.0),)):
            check(DesignProblem(space, Cancelling(size, seed), budgets), solver)
        check(DesignProblem(space, Drawn(seed), (Budget(Cancelling(size, seed + 99), 1.2), Budget(Params(), 5e7))), solver)


def test_terms_that_cancel_are_counted_apart() -> None:
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    problem = DesignProblem(space, Cancelling(1e9, 0))
    values = np.array([problem.maximize(design) for design in space])
    # 1e9 holds some 1e-7, the terms are multiples of 1e-3.
    assert dynamic_programming.count_designs(problem, 1.9995).number == int((values >= 1.9995).sum())
