"""Alternatives and counts against brute force over the plain definitions."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, permutations, product

import numpy as np
import pytest

from formulation import (
    Agreement,
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    SearchSpace,
    paper_space,
)
from formulation.architecture import Setting
from hardware_models import Flops, Params
from solvers import Count, DynamicProgramming, Exhaustive, Limits, Solution, Solver, Status, solve
from solvers.arrangements import aligned, orders, sorted_design
from solvers.base import Answer, Run
from solvers.exact.dynamic_programming import count_designs
from solvers.questions.alternatives import alternatives, apart, count_exhaustively, count_near
from tests.slow import slow
from tests.toys import RandomCost, toy

TOYS = [number for number in range(30) if toy(number).optimum is not None]

UNIFORM = [
    SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2)),
    SearchSpace.uniform(3, (256, 320), (1, 2), (1, 3), non_decreasing=False),
    SearchSpace.uniform(4, (256,), (1, 2), (1, 2, 3)),
    SearchSpace.uniform(3, (256, 512), (1, 2), (0, 1, 2)),
    SearchSpace((*SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2)).menus, *SearchSpace.uniform(1, (512,), (1, 4), (2, 3)).menus)),
]
"""Spaces in which many designs have equally wide neighbours; the menus of the last one differ, so that not every order is in it."""
SMALL = [DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 50e9), Budget(Params(), 46e6))) for space in UNIFORM]


@cache
def in_every_order(design: Architecture) -> tuple[tuple[Block, ...], ...]:
    """The blocks in every order that leaves the widths as they are, by trying all permutations."""

    def keeps_widths(blocks: tuple[Block, ...]) -> bool:
        stretches = [list(group) for _, group in groupby(range(len(blocks)), key=lambda i: design.blocks[i].width)]
        return all(Counter(blocks[i] for i in own) == Counter(design.blocks[i] for i in own) for own in stretches)

    return tuple(filter(keeps_widths, set(permutations(design.blocks))))


@cache
def differing_choices(left: Block, right: Block) -> int:
    return sum(map(operator.ne, left.choices.values(), right.choices.values()))


@cache
def least_apart(one: Architecture, other: Architecture) -> int:
    """Decisions in which two designs differ, by trying every pair of orders."""

    pairs = product(in_every_order(one), in_every_order(other))
    return min(sum(map(differing_choices, left, right)) for left, right in pairs)


def feasible(problem: DesignProblem) -> dict[Architecture, float]:
    return {design: problem.objective(design) for design in problem.space if problem.evaluate(design).feasible}


def check_series(problem: DesignProblem, found: Sequence[Solution], differing: int, count: int) -> None:
    """Each design is the best of those that differ enough from all before, by brute force; and the series ends where none does."""
    left = feasible(problem)
    for solution in found:
        if solution.architecture is None:
            assert solution.status is Status.INFEASIBLE
            assert not left
            return
        assert solution.status is Status.OPTIMAL
        assert solution.objective == pytest.approx(max(left.values()), rel=1e-9)
        assert len(solution.usage) == len(problem.subject_to)
        left = {design: value for design, value in left.items() if least_apart(solution.architecture, design) >= differing}
    assert len(found) == count


@pytest.mark.parametrize("number", [*TOYS[::2], *slow(TOYS[1::2])])
def test_the_k_best_designs(number: int) -> None:
    given = toy(number)
    check_series(given.problem, alternatives(given.problem, 6), 1, 6)


@pytest.mark.parametrize("differing", [2, 3, 6])
@pytest.mark.parametrize("number", TOYS[::3])
def test_each_is_the_best_that_differs_from_all_before(number: int, differing: int) -> None:
    given = toy(number)
    if differing <= given.problem.space.decisions:
        check_series(given.problem, alternatives(given.problem, 4, differing), differing, 4)


@pytest.mark.parametrize("differing", [1, 2, 4])
@pytest.mark.parametrize("problem", SMALL)
@pytest.mark.parametrize("solver", [DynamicProgramming(), Exhaustive()], ids=["dp", "exhaustive"])
def test_what_only_reorders_blocks_is_no_alternative(solver: Solver, problem: DesignProblem, differing: int) -> None:
    check_series(problem, alternatives(problem, 5, differing, solver), differing, 5)


@dataclass(frozen=True)
class Rising(RandomCost):
    """A cost that counts a block the more, the further back it is."""

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return (position + 1) * self.block(block, setting)


def test_where_the_position_counts_every_order_is_a_design_of_its_own() -> None:
    space = SearchSpace.uniform(2, (256,), (1, 2), (1, 2))
    problem = DesignProblem(space, Rising(3))
    assert problem.maximize.positional
    assert not Flops().positional
    found = alternatives(problem, space.size)
    assert [solution.objective for solution in found] == pytest.approx(sorted(feasible(problem).values(), reverse=True))
    assert len({solution.architecture for solution in found}) == space.size
    count = count_near(problem, 0.0, 0.0)
    assert (count.number, count.distinct) == (space.size, space.size)


@pytest.mark.parametrize("problem", SMALL)
def test_designs_are_apart_as_far_as_their_nearest_orders(problem: DesignProblem) -> None:
    draw = np.random.default_rng(0)
    designs = [problem.space.decode(row) for row in problem.space.sample(draw, 60)]
    for one, other in zip(designs[::2], designs[1::2], strict=True):
        assert apart(problem, one, other) == apart(problem, other, one) == least_apart(one, other)
        assert apart(problem, one, sorted_design(one)) == 0
        assert set(in_every_order(one)) == {each.blocks for each in orders(one)}


@pytest.mark.parametrize("problem", SMALL)
def test_a_budget_against_a_design_rules_out_only_what_is_as_near(problem: DesignProblem) -> None:
    draw, designs = np.random.default_rng(1), list(problem.space)
    decisions = problem.space.decisions
    for first, second in draw.integers(len(designs), size=(10, 2)):
        given, design = designs[first], designs[second]
        for both in (False, True):
            alignment = aligned(given, design, both)
            differing = Agreement(given, setting=True).most - alignment.shared + 1
            if differing > decisions:
                continue
            budget = alignment.budget(differing)
            out = [each for each in designs if budget.value(each) > budget.limit]
            assert design in out
            assert all(least_apart(given, each) < differing for each in out)


def test_the_known_optimum_is_the_first() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0))
    found = alternatives(problem, 3, 4, optimum=optimum)
    assert found[0] == optimum
    assert len(found) == 3
    best = [solution.objective for solution in alternatives(problem, 3, 4)]
    assert [solution.objective for solution in found] == pytest.approx(best, rel=1e-12)


@dataclass(frozen=True)
class Hungry:
    """Finds nothing at all with fewer evaluations than it needs."""

    needs: int

    name = "hungry"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        allowed = run.limits.evaluations or self.needs
        run.evaluations = min(allowed, self.needs)
        if allowed < self.needs:
            return Answer(None, message="evaluation limit reached")
        return Exhaustive().search(problem, Run(Limits(gap=0)))


@pytest.mark.parametrize(
    ("limit", "count", "number"),
    [(1000, 8, 8), (1000, 16, 16), (1000, 300, 16), (85, 8, 8), (85, 300, 6), (9, 300, 0)],
)
def test_a_share_that_does_not_suffice_does_not_end_the_series(limit: int, count: int, number: int) -> None:
    """Ten evaluations a design, of 16 designs; of 85 evaluations 9, 7, 4, 3 and 1 go on shares that do not suffice."""
    menus = (*SearchSpace.uniform(1, (256,), (1, 2), (1, 2)).menus, *SearchSpace.uniform(1, (512,), (1, 2), (1, 2)).menus)
    problem = DesignProblem(SearchSpace(menus), RandomCost(3))
    found = alternatives(problem, count, solver=Hungry(10), limits=Limits(evaluations=limit))
    designs = [solution.architecture for solution in found if solution.architecture is not None]
    assert len(designs) == number
    if len(designs) == count:
        return
    assert len(found) == len(designs) + 1
    assert found[-1].status is (Status.INFEASIBLE if limit == 1000 else Status.UNKNOWN)


@pytest.mark.parametrize(
    ("count", "differing", "words"),
    [(0, 1, "count"), (True, 1, "count"), (2, 0, "differing"), (2, 7, "1 to 6"), (2, 1.5, "differing")],
)
def test_mistakes(count: int, differing: int, words: str) -> None:
    problem = DesignProblem(SearchSpace.uniform(2, (256,), (1,), (1, 2)), Params())
    with pytest.raises(ValueError, match=words):
        alternatives(problem, count, differing)


@pytest.mark.parametrize("number", TOYS)
def test_counts(number: int) -> None:
    given = toy(number)
    values = given.objectives[given.feasible]
    assert given.optimum is not None
    for within in (0.0, 0.013, 0.17):
        # The margins of both counters: values that differ by less than 1e-9 are not distinguished.
        truth = int((values >= given.optimum - (within + 1e-12) * abs(given.optimum)).sum())
        for counter in (count_exhaustively, count_designs):
            count = count_near(given.problem, given.optimum, within, None, counter)
            assert count.exact
            assert count.number == truth


@pytest.mark.parametrize("problem", SMALL)
@pytest.mark.parametrize("counter", [count_designs, count_exhaustively])
def test_reordered_designs_are_counted_once(
    counter: Callable[[DesignProblem, float, Limits | None], Count], problem: DesignProblem
) -> None:
    values = feasible(problem)
    best = max(values.values())
    for within in (0.0, 0.05, 0.3):
        near = [design for design, value in values.items() if value >= best - (within + 1e-9) * best]
        count = count_near(problem, best, within, None, counter)
        assert (count.number, count.exact) == (len(near), True)
        distinct = len({frozenset(in_every_order(design)) for design in near})
        # Where the menus differ the sorted order of a design may be outside the space, and nothing is said.
        assert count.distinct == (distinct if len(set(problem.space.menus)) == 1 else None)


def test_counting_by_enumeration_agrees_on_the_paper_space() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 55e6)))
    optimum = solve(problem, DynamicProgramming(), Limits(gap=0)).objective
    assert optimum is not None
    counts = [count_near(problem, optimum, counter=counter) for counter in (count_designs, count_exhaustively)]
    assert [(count.number, count.distinct) for count in counts] == [(54, 4), (54, 4)]


def test_a_count_that_is_stopped_says_so() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy())
    count = count_near(problem, 1.0, 0.5, Limits(evaluations=1000), count_exhaustively)
    assert not count.exact
    assert 0 < count.number < problem.space.size


def test_black_boxes_are_counted_one_by_one() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1,), (1, 2))
    problem = DesignProblem(space, Measured("score", "1", lambda design: float(sum(design.depths))), (Budget(Params(), 1e9),))
    assert count_near(problem, 4.0, 0.25, counter=count_exhaustively).number == sum(sum(d.depths) >= 3 for d in space)
    assert solve(problem, Exhaustive()).objective == 4


@pytest.mark.parametrize("within", [-0.1, float("nan"), float("inf")])
def test_a_loss_below_nothing(within: float) -> None:
    with pytest.raises(ValueError, match="within"):
        count_near(toy(0).problem, 1.0, within)
