"""Counting alike blocks: compared with every design of random spaces, with dynamic programming, and stopped at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest

from formulation import (
    Agreement,
    BlockwiseEntropy,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    Menu,
    NotSeparable,
    Quantity,
    SearchSpace,
    SpaceUnion,
    fine_space,
    paper_space,
)
from formulation.declarations import FalseDeclaration
from formulation.score_table import Column, OptionMenu, OptionSpace
from formulation.values import Undefined
from hardware_models import Flops, Memory, Params
from solvers import Counts, DynamicProgramming, Highs, Limits, Solver, Status, check, solve
from solvers.base import Run
from solvers.exact.alike_blocks import read_alike
from solvers.exact.counted_problem import CountedProblem
from solvers.programs.highs_model import LinearModel
from tests.fuzz import Kind, Placed, Terms, Truth, false_claims, random_alike_problem, truth_of
from tests.slow import slow

SEEDS = range(80)


@cache
def alike(seed: int) -> tuple[DesignProblem, Truth]:
    """A random problem whose menus are equal, and the truth about it."""
    problem = random_alike_problem(seed)
    return problem, truth_of(problem)


@pytest.mark.parametrize("tens", [*range(8), *slow(range(8, 60))])
def test_every_claim_is_true(tens: int) -> None:
    answered = 0
    for seed in range(10 * tens, 10 * tens + 10):
        problem, truth = alike(seed)
        limits = Limits(seconds=60)
        try:
            solution = solve(problem, Counts(), limits)
        except (NotSeparable, Undefined):
            continue
        answered += 1
        assert not false_claims(problem, limits, truth, solution), seed
        assert solution.status in (Status.OPTIMAL, Status.INFEASIBLE), (seed, solution.message)
    assert answered >= 2


def test_random_problems_are_of_every_kind() -> None:
    problems, readable = [alike(seed)[0] for seed in SEEDS], []
    for problem in problems:
        try:
            readable.append(CountedProblem(problem, Run(Limits())))
        except (NotSeparable, Undefined):
            continue
    blocks = [each.blocks for each in readable]
    assert {each.count for each in blocks} == {1, 2, 3, 4}
    assert {(each.growing, each.linked) for each in blocks} >= {(True, True), (True, False), (False, True), (False, False)}
    assert any(each.may_be_empty for each in blocks)
    assert any(each.longest.any() for each in blocks)
    assert any(each.joints[~each.is_max].any() for each in blocks)
    assert any(each.maxima for each in readable)
    goals = [problem.goal for problem in problems]
    assert any(isinstance(goal, EffectiveEntropy) for goal in goals)
    assert any(isinstance(goal, BlockwiseEntropy) for goal in goals)
    assert any(problem.least for problem in problems)
    assert any(each.formulas and not each.goal_formula for each in readable)
    assert any(alike(seed)[1].possible is None for seed in SEEDS)


def joined(seed: int, **options: object) -> Terms:
    """Real terms with joints, entries and exits."""
    return Terms(seed, Kind.REAL, 10.0, 3, joined=True, **options)  # type: ignore[arg-type]


def test_table_and_counts_add_up_to_the_same() -> None:
    """Every design, read by kinds, states and joints, has the values of its table."""
    space = SearchSpace.uniform(3, (64, 128, 192), (1, 2), (0, 1, 2, 3))
    problem = DesignProblem(space, Params(), (Budget(Flops(), 1e15), Budget(Memory(), 1e15)))
    blocks, tabulated = read_alike(problem, Run(Limits()))
    kind_of = {int(item): (kind, step) for kind, items in enumerate(blocks.members) for step, item in enumerate(items)}
    assert sorted(kind_of) == list(range(len(space.menus[0])))
    assert max(map(len, blocks.members)) > 1
    assert list(blocks.is_max) == [False, False, False, True]
    for choices in list(space.iterate_choices())[::17]:
        kinds = [kind_of[item] for item in choices]
        states = [int(blocks.state[kind]) for kind, _ in kinds]
        assert states == sorted(states)
        total = tabulated.table.evaluate(np.array([choices]))[:, 0]
        for row, is_max in enumerate(blocks.is_max):
            terms = [blocks.fixed[row], blocks.first[row, states[0]], blocks.last[row, states[-1]]]
            terms += [blocks.items[row, kind] + step * blocks.steps[row, kind] for kind, step in kinds]
            terms += [blocks.joints[row, a, b] for a, b in pairwise(states) if a != b]
            assert (max(terms) if is_max else sum(terms)) == pytest.approx(total[row], rel=1e-12)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("growing", [True, False])
def test_ends_count_where_nothing_is_joined(blocks: int, growing: bool) -> None:
    """What stands before the first block and behind the last, by brute force, in spaces of one to three blocks."""

    class Ends(Terms):
        """Terms whose neighbours are joined for nothing."""

        def joint(self, left: int, right: int, setting: object) -> float:
            return 0.0

    space = SearchSpace.uniform(blocks, (64, 128, 192), (1, 2), (1, 2), non_decreasing=growing)
    cost = Ends(5, Kind.REAL, 10.0, blocks, joined=True)
    values = sorted(cost(design) for design in space)
    for share in (0.02, 0.3, 0.7):
        problem = DesignProblem(space, EffectiveEntropy(), (Budget(cost, values[int(share * len(values))]),))
        truth = max(problem.objective(design) for design in space if problem.evaluate(design).feasible)
        solution = solve(problem, Counts())
        assert solution.status is Status.OPTIMAL
        assert solution.objective == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("objective", [EffectiveEntropy(), BlockwiseEntropy(), EffectiveEntropy(effectiveness=False)])
@pytest.mark.parametrize("gflops", [60, 160])
def test_agrees_with_dynamic_programming(objective: Quantity, gflops: float) -> None:
    problem = DesignProblem(paper_space(), objective, (Budget(Flops(), gflops * 1e9), Budget(Params(), 90e6)))
    counts, labels = solve(problem, Counts()), solve(problem, DynamicProgramming())
    assert counts.status is labels.status is Status.OPTIMAL
    assert counts.objective == pytest.approx(labels.objective, rel=1e-6)
    assert counts.bound is not None
    assert labels.objective is not None
    assert counts.bound >= labels.objective * (1 - 1e-12)


def test_a_maximum_inside_a_budget_binds() -> None:
    """Memory is weights plus the largest activations, of which the program knows a lower bound alone."""
    space = SearchSpace.uniform(4, (256, 384, 512, 640), (1, 2, 4), (1, 2, 3))
    sample = space.sample(np.random.default_rng(0), 100)
    used = np.array([Memory(seq_len=4096)(space.decode(choices)) for choices in sample])
    for quantile in (0.1, 0.5):
        problem = DesignProblem(space, EffectiveEntropy(), (Budget(Memory(seq_len=4096), float(np.quantile(used, quantile))),))
        counts, labels = solve(problem, Counts()), solve(problem, DynamicProgramming())
        assert counts.status is labels.status is Status.OPTIMAL
        assert counts.objective == pytest.approx(labels.objective, rel=1e-6)


def test_budgets_that_the_optimum_uses_up_are_met_exactly() -> None:
    """Each budget is what a design uses, to the last digit: the engine's tolerance neither loses that design nor lets others in."""
    space = SearchSpace.uniform(3, (256, 320, 384), (1, 2), (1, 2, 3))
    costs = Flops(), Params()
    for choices in space.sample(np.random.default_rng(3), 4):
        design = space.decode(choices)
        problem = DesignProblem(space, EffectiveEntropy(), tuple(Budget(cost, cost(design)) for cost in costs))
        below = DesignProblem(space, EffectiveEntropy(), tuple(Budget(cost, cost(design) * (1 - 1e-10)) for cost in costs))
        for given in (problem, below):
            feasible = [each for each in space if given.evaluate(each).feasible]
            solution = solve(given, Counts())
            if feasible:
                assert solution.status is Status.OPTIMAL
                assert solution.objective == pytest.approx(max(map(given.objective, feasible)), rel=1e-9)
            else:
                assert solution.status is Status.INFEASIBLE


def test_a_gap_of_nothing_is_proved() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 80e9),))
    exact, usual = solve(problem, Counts(), Limits(gap=0.0)), solve(problem, DynamicProgramming())
    assert exact.status is Status.OPTIMAL
    assert exact.objective == pytest.approx(usual.objective, rel=1e-12)


def test_options_of_alike_positions() -> None:
    """A score table whose positions are alike: the sum of the best multiset of options, by brute force over counts."""
    draw = np.random.default_rng(11)
    values, costs = draw.uniform(1, 9, 6), draw.uniform(1, 9, 6)
    space = OptionSpace(tuple(OptionMenu(f"layer {n}", tuple("abcdef")) for n in range(12)))
    columns = [Column(name, "1", (tuple(row.tolist()),) * 12, space) for name, row in (("score", values), ("cost", costs))]
    problem = DesignProblem(space, columns[0], (Budget(columns[1], 45.0),))
    counts, labels = solve(problem, Counts()), solve(problem, DynamicProgramming())
    assert counts.status is labels.status is Status.OPTIMAL
    assert counts.objective == pytest.approx(labels.objective, rel=1e-9)


def test_unions_take_the_best_part() -> None:
    parts = tuple(replace(paper_space(), vocabulary=vocabulary) for vocabulary in (1000, 50257))
    budgets = (Budget(Flops(seq_len=128, head=True), 9e9), Budget(Params(), 70e6))
    problem = DesignProblem(SpaceUnion(parts), EffectiveEntropy(), budgets)
    counts, labels = solve(problem, Counts()), solve(problem, DynamicProgramming())
    assert counts.status is labels.status is Status.OPTIMAL
    assert counts.objective == pytest.approx(labels.objective, rel=1e-6)


def uniform(**options: object) -> SearchSpace:
    """Two alike blocks of two widths."""
    return SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("space", "objective", "words"),
    [
        (SearchSpace((Menu((256,), (1,), (1, 2)), Menu((256,), (1,), (1,)))), EffectiveEntropy(), "the same menu"),
        (uniform(non_decreasing=False), joined(3), "joints between neighbours of any width"),
        (uniform(step=lambda left, right: right.depth <= left.depth), EffectiveEntropy(), "rules for steps"),
        (uniform(), Placed(joined(3)), "ignore the position of a block, and placed terms"),
        (uniform(), Agreement(list(uniform())[1]), "ignore the position of a block, and agreement"),
        (uniform(), joined(3, maximum=True), "maximize the maximum"),
        (uniform(), Measured("latency", "s", lambda design: 1.0), "is a black box"),
    ],
)
def test_what_cannot_be_counted_is_refused_with_advice(space: SearchSpace, objective: Quantity, words: str) -> None:
    with pytest.raises(NotSeparable, match=words) as caught:
        solve(DesignProblem(space, objective, (Budget(Params(), 1e9), Budget(joined(4), 1e9))[: 1 + (words[0] == "j")]), Counts())
    assert "use " in str(caught.value)


class Looks:
    """Stands in for the clock of all runs: the time is up from look `last` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last, self.looks = math.inf, 0
        monkeypatch.setattr(Run, "out_of_time", property(self._look))

    def _look(self, run: Run) -> bool:
        self.looks += 1
        return self.looks > self.last


def test_stopped_at_any_look_at_the_clock_it_claims_nothing_false(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace.uniform(4, (256, 384, 512), (1, 2), (1, 2, 3))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 40e9), Budget(Params(), 50e6)))
    truth = solve(problem, DynamicProgramming()).objective
    looks = Looks(monkeypatch)
    bounds = []
    for number in count():
        looks.last, looks.looks = int(1.3**number) if number else 0, 0
        solution = solve(problem, Counts())
        assert solution.bound is None or solution.bound >= truth * (1 - 1e-12)
        assert solution.objective is None or solution.objective <= truth * (1 + 1e-12)
        assert solution.status is not Status.INFEASIBLE
        if solution.status is Status.OPTIMAL:
            assert solution.objective == pytest.approx(truth, rel=1e-6)
        bounds.append(solution.bound)
        if looks.looks <= looks.last:
            break
    assert solution.status is Status.OPTIMAL
    assert sum(bound is not None for bound in bounds[:-1]) > 2


def test_evaluations_are_a_limit() -> None:
    problem = DesignProblem(fine_space(), EffectiveEntropy(), (Budget(Flops(), 110e9),))
    solution = solve(problem, Counts(), Limits(evaluations=1))
    assert solution.status is Status.FEASIBLE
    assert solution.bound is not None
    assert solution.bound >= 40755.65 > solution.objective
    assert "evaluation limit reached" in solution.message


def test_little_memory_changes_the_order_but_no_claim() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 110e9), Budget(Params(), 60e6)))
    little, much = (solve(problem, Counts(), Limits(memory=memory)) for memory in (1 << 20, 1 << 31))
    assert little.status is much.status is Status.OPTIMAL
    assert little.objective == pytest.approx(much.objective, rel=1e-6)


def test_a_start_is_kept_and_a_cutoff_is_heard() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    best = solve(problem, Counts())
    again = solve(problem, Counts(), Limits(start=best.architecture))
    assert again.objective == best.objective
    assert best.objective is not None
    answer = Counts().search(problem, Run(Limits(), cutoff=best.objective * 1.01))
    assert answer.architecture is None
    assert not answer.infeasible
    assert answer.bound == pytest.approx(best.objective * 1.01)


def test_multipliers_prove_bounds_by_themselves() -> None:
    """maximize 2x + y with x + y ≤ 3 and 0 ≤ x ≤ 2, 0 ≤ y ≤ 2: 5; any multiplier gives a bound, no bound is below 5."""
    row = np.array([0, 1]), np.array([1.0, 1.0]), -math.inf, 3.0
    model = LinearModel(np.zeros(2), np.full(2, 2.0), [row], lambda: None)
    cost = np.array([2.0, 1.0])
    end = model.maximize(cost)
    assert end.bound == pytest.approx(5.0, abs=1e-12)
    assert end.bound >= 5.0
    for multiplier, bound in ((0.0, 6.0), (1.0, 5.0), (2.0, 6.0), (-1.0, 10.0)):
        assert model.proved(cost, np.array([multiplier]))[0] == pytest.approx(bound if multiplier >= 0 else 6.0)
    model.bound_row(0, 5.0, math.inf)
    refuted = model.maximize(cost)
    assert refuted.bound == -math.inf
    assert model.proved(np.zeros(2), refuted.multipliers)[0] < 0
    assert model.refuted(np.array([1.0])) is None


@pytest.mark.parametrize("entropy", [EffectiveEntropy(), BlockwiseEntropy(beta=0.1), EffectiveEntropy(effectiveness=False)])
def test_summands_add_up_to_the_entropy_and_lie_below_their_tangents(entropy: EffectiveEntropy) -> None:
    draw = np.random.default_rng(5)
    points = draw.uniform((4, 30, 40, 1e3, 2e3), (12, 90, 95, 5e3, 6e3), size=(200, 5)).T
    total = np.sum([each.weight * each.factor(points) * points[each.part] for each in entropy.summands], axis=0)
    assert total == pytest.approx(entropy.formula(points), rel=1e-12)
    for summand in entropy.summands:
        least, most = summand.range(points.min(axis=1), points.max(axis=1))
        factors = summand.factor(points) + np.zeros(points.shape[1])
        assert least <= factors.min()
        assert most >= factors.max()
        for near in points.T[:50]:
            slopes, constant = summand.tangent(near)
            assert slopes @ near + constant == pytest.approx(float(summand.factor(near)), rel=1e-12)
            assert np.all(slopes @ points + constant >= factors - 1e-12)


def test_false_summands_are_refused() -> None:
    class Doubled(EffectiveEntropy):
        """Its formula is not what its summands add up to."""

        def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
            return 2 * super().formula(parts)

        def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple:
            slopes, constants = super().overestimator(lower, upper, near)
            return 2 * slopes, 2 * constants

        def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple:
            slopes, constants = super().underestimator(lower, upper, near)
            return 2 * slopes, 2 * constants

    with pytest.raises(FalseDeclaration, match=r"the summands of effective entropy add up to \S+ at .*, its value is"):
        DesignProblem(paper_space(), Doubled())


def test_a_maximum_is_cut_between_any_two_of_its_values() -> None:
    """Budgets on weights plus the largest activations all over their range, by brute force."""
    space = SearchSpace.uniform(2, (256, 384, 512, 640), (1, 2, 4), (1, 2))
    for upper in sorted(Memory(seq_len=4096)(design) for design in space)[::97]:
        problem = DesignProblem(space, EffectiveEntropy(), (Budget(Memory(seq_len=4096), upper),))
        truth = max(problem.objective(design) for design in space if problem.evaluate(design).feasible)
        assert solve(problem, Counts()).objective == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("solver", [Counts(), Highs()], ids=["counts", "highs"])
@pytest.mark.parametrize("least", [5e-324, 1e-310, 1e-307, 1e-303])
def test_terms_too_small_to_be_scaled(solver: Solver, least: float) -> None:
    """Factors that would bring them to size are beyond the largest float."""
    space = OptionSpace(tuple(OptionMenu(f"layer {number}", ("one", "two")) for number in range(3)))
    worth = Column("worth", "1", ((least, 2 * least),) * 3, space)
    free = solve(DesignProblem(space, worth), solver)
    assert (free.status, free.objective) == (Status.OPTIMAL, 6 * least)
    used = Column("used", "1", ((1.0, 2.0),) * 3, space)
    within = solve(DesignProblem(space, used, (Budget(worth, 5 * least),)), solver)
    assert within.status is not Status.INFEASIBLE
    assert within.bound is None or within.bound >= 5.0
    assert within.objective is None or within.objective <= 5.0


def test_a_proof_is_made_again_for_the_checker_when_it_is_asked_for() -> None:
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 2e10),))
    solution = solve(problem, Counts())
    assert solution.certificate is not None
    assert solution.objective is not None
    record = solution.certificate.to_dict()
    assert record["kind"] == "boxes"
    bound, worth = check.check(record)
    assert worth is not None
    assert bound is not None
    assert float(worth) == pytest.approx(solution.objective, rel=1e-12)
    assert worth <= bound <= 1.00001 * solution.objective


def test_that_no_design_meets_the_budgets_is_proved_again_for_the_checker() -> None:
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    solution = solve(DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 1.0),)), Counts())
    assert solution.status is Status.INFEASIBLE
    assert solution.certificate is not None
    assert check.check(solution.certificate.to_dict()) == (None, None)
