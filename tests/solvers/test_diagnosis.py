"""Infeasibility explained: conflicts and least values against brute force over the plain definitions."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np
import pytest

from formulation import (
    Block,
    Budget,
    Combine,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    Quantity,
    SearchSpace,
    Separable,
    paper_space,
)
from formulation.architecture import Setting
from formulation.derived import negative
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Highs, Limits, RandomSearch, Solver, Status
from solvers.questions.diagnosis import explain_infeasibility
from tests.toys import RandomCost, toy


@dataclass(frozen=True)
class Drawn(Separable):
    """Terms drawn per position and block shape: costs that pull in different directions, as those of real sizes do not."""

    seed: int
    combine: Combine = Combine.SUM

    name = "drawn"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        raise AssertionError("the position matters")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return float(np.random.default_rng([self.seed, position, block.width, block.ffn_width, block.depth]).random())


SPACE = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 3))
DESIGNS = tuple(SPACE)
QUANTITIES: tuple[Quantity, ...] = (
    Flops(),
    Params(),
    RandomCost(1),
    RandomCost(2, maximum=True),
    EffectiveEntropy(rho=0.1),
    Drawn(1),
    Drawn(2),
    Drawn(3, Combine.MAX),
    Drawn(4, Combine.MAX),
)
VALUES = np.array([[quantity(design) for design in DESIGNS] for quantity in QUANTITIES])


def random_problem(seed: int) -> tuple[DesignProblem, np.ndarray]:
    """Two to four tight budgets, and which design keeps which of them (budgets, designs)."""
    draw = np.random.default_rng([77, seed])
    chosen = draw.choice(len(QUANTITIES), size=draw.integers(2, 5), replace=False)
    uppers = [float(np.quantile(VALUES[k], draw.choice([0.02, 0.1, 0.3]))) for k in chosen]
    if draw.random() < 0.3:
        uppers[0] = float(VALUES[chosen[0]].min() * 0.9)
    budgets = tuple(Budget(QUANTITIES[k], upper) for k, upper in zip(chosen, uppers, strict=True))
    objective = EffectiveEntropy() if draw.random() < 0.7 else RandomCost(9)
    kept = np.array([VALUES[k] <= budget.limit for k, budget in zip(chosen, budgets, strict=True)])
    return DesignProblem(SPACE, objective, budgets), kept


def check(problem: DesignProblem, kept: np.ndarray, solver: Solver) -> str:
    diagnosis = explain_infeasibility(problem, solver)
    if kept.all(axis=0).any():
        assert diagnosis.status is Status.FEASIBLE
        assert diagnosis.architecture is not None
        assert problem.evaluate(diagnosis.architecture).feasible
        assert not diagnosis.conflict
        return "feasible"
    numbers = range(len(problem.subject_to))
    sizes = [
        k for k in range(1, len(kept) + 1) for subset in itertools.combinations(numbers, k) if not kept[list(subset)].all(0).any()
    ]
    assert diagnosis.status is Status.INFEASIBLE
    assert diagnosis.smallest
    assert len(diagnosis.conflict) == sizes[0]
    conflict = [problem.subject_to.index(budget) for budget in diagnosis.conflict]
    assert not kept[conflict].all(axis=0).any()
    for number, need in enumerate(diagnosis.needs):
        budget = problem.subject_to[number]
        assert need.budget == budget
        among = np.flatnonzero(np.delete(kept, number, axis=0).all(axis=0))
        if not len(among):
            assert need.status is Status.INFEASIBLE
            assert need.bound is None
            assert need.architecture is None
            continue
        values = np.array([budget.quantity(DESIGNS[i]) for i in among])
        assert need.status is Status.OPTIMAL
        assert need.bound == pytest.approx(values.min(), rel=1e-11)
        assert need.architecture is not None
        best = max(
            problem.maximize(DESIGNS[i]) for i, value in zip(among, values, strict=True) if value <= values.min() * (1 + 1e-12)
        )
        assert need.objective == pytest.approx(best, rel=1e-9)
        relaxed = [b if i != number else Budget(b.quantity, need.bound) for i, b in enumerate(problem.subject_to)]
        assert DesignProblem(SPACE, problem.maximize, tuple(relaxed)).evaluate(need.architecture).feasible
    return f"conflict of {len(diagnosis.conflict)}"


def test_conflicts_and_least_values() -> None:
    kinds = [check(*random_problem(seed), DynamicProgramming()) for seed in range(21)]
    assert {"feasible", "conflict of 1", "conflict of 2", "conflict of 3"} <= set(kinds)


@pytest.mark.parametrize("seed", [2, 5])
def test_any_exact_solver_will_do(seed: int) -> None:
    check(*random_problem(seed), Exhaustive())


def test_an_engine_finds_the_same() -> None:
    budgets = (Budget(Flops(), 20e9), Budget(Params(), 48e6))
    problem = DesignProblem(paper_space(), EffectiveEntropy(), budgets)
    ours, theirs = explain_infeasibility(problem), explain_infeasibility(problem, Highs(), Limits(seconds=30))
    assert theirs.conflict == ours.conflict == budgets[:1]
    assert theirs.needs[0].bound == ours.needs[0].bound
    assert theirs.needs[1].status is ours.needs[1].status is Status.INFEASIBLE


def test_equal_names_and_equal_budgets_are_kept_apart() -> None:
    least = float(VALUES[0].min())
    problem = DesignProblem(
        SPACE, Params(), (Budget(Flops(), least / 2), Budget(Flops(head=True), 1e12), Budget(Flops(), least / 2))
    )
    diagnosis = explain_infeasibility(problem)
    assert diagnosis.conflict == (problem.subject_to[0],)
    # Each alone cannot help: the other one of the same value stays.
    assert [need.status for need in diagnosis.needs] == [Status.INFEASIBLE] * 3


def test_black_boxes_by_enumeration() -> None:
    budget = Budget(Measured("latency", "s", lambda design: float(sum(design.depths))), 1)
    diagnosis = explain_infeasibility(DesignProblem(SPACE, Params(), (budget,)), Exhaustive())
    assert diagnosis.needs[0].status is Status.OPTIMAL
    assert diagnosis.needs[0].bound == 2


def test_objectives_to_minimize_do_not_matter() -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Flops(), 1),), minimize=(Flops(),))
    assert explain_infeasibility(problem).needs[0].bound == VALUES[0].min()


def test_a_heuristic_proves_nothing() -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Flops(), 1), Budget(Params(), 1e9)))
    diagnosis = explain_infeasibility(problem, RandomSearch(samples=50))
    assert diagnosis.status is Status.UNKNOWN
    assert not diagnosis.conflict
    assert not diagnosis.smallest
    assert {need.status for need in diagnosis.needs} <= {Status.FEASIBLE, Status.UNKNOWN}
    assert "not settled" in str(diagnosis)


def test_what_is_proved_already_is_a_conflict_whatever_the_limits_leave_open() -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Flops(), 1), Budget(Params(), 1e9)))
    diagnosis = explain_infeasibility(problem, RandomSearch(samples=50), proved=True)
    assert diagnosis.status is Status.INFEASIBLE
    assert diagnosis.conflict == problem.subject_to
    assert not diagnosis.smallest
    assert explain_infeasibility(problem, proved=True).conflict == problem.subject_to[:1]


def test_budgets_that_are_impossible_alone_are_all_named() -> None:
    tight = tuple(Budget(QUANTITIES[k], float(VALUES[k].min() / 2)) for k in (0, 1, 3))
    diagnosis = explain_infeasibility(DesignProblem(SPACE, EffectiveEntropy(), (*tight, Budget(QUANTITIES[2], 1e9))))
    assert [need.alone for need in diagnosis.needs] == [VALUES[0].min(), VALUES[1].min(), VALUES[3].min(), None]
    assert {need.status for need in diagnosis.needs} == {Status.INFEASIBLE}
    assert diagnosis.joint in SPACE
    assert [budget.quantity(diagnosis.joint) for budget in tight[:2]] == [VALUES[0].min(), VALUES[1].min()]


def test_what_is_enough_together_need_not_be_least() -> None:
    least = VALUES[5:7].min(axis=1)
    assert not (VALUES[5:7] <= least[:, None]).all(axis=0).any()
    diagnosis = explain_infeasibility(
        DesignProblem(SPACE, EffectiveEntropy(), tuple(Budget(QUANTITIES[k], float(VALUES[k].min() / 2)) for k in (5, 6)))
    )
    assert [need.alone for need in diagnosis.needs] == pytest.approx(least)
    assert diagnosis.joint in SPACE


def test_the_time_limit_leaves_things_open() -> None:
    def slow(design: object) -> float:
        time.sleep(0.002)
        return 2.0

    budgets = (Budget(Measured("first", "s", slow), 1), Budget(Measured("second", "s", slow), 1))
    diagnosis = explain_infeasibility(DesignProblem(SPACE, Params(), budgets), Exhaustive(), Limits(seconds=0.2))
    assert diagnosis.status is Status.UNKNOWN
    assert all(need.status is Status.UNKNOWN for need in diagnosis.needs)


def test_it_speaks_in_sentences() -> None:
    problem = DesignProblem(SPACE, Params(), (Budget(Flops(), 1), Budget(Params(), 1e9)))
    diagnosis = explain_infeasibility(problem)
    assert "flops ≤ 1 FLOPs" in str(diagnosis)
    assert "whatever the other budgets" in str(diagnosis)
    assert "would have to be" in str(diagnosis.needs[0])
    assert "not enough" in str(diagnosis.needs[1])


@pytest.mark.parametrize("number", range(6))
def test_the_negative_of_a_sum(number: int) -> None:
    for design in toy(number).designs[:5]:
        for quantity in (Flops(head=True), Params(), RandomCost(3)):
            assert negative(quantity)(design) == pytest.approx(-quantity(design), rel=1e-12)
