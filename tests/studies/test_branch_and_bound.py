"""The teaching solvers: their optima, trees and labels against brute force over the plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulation import Budget, DesignProblem, EffectiveEntropy, Measured, Menu, NotSeparable, SearchSpace
from formulation.menu import Choices
from hardware_models import Flops, Params
from solvers import Exhaustive, Status, exhaustive_front, solve
from studies.lessons import branch_and_bound as module
from studies.lessons.branch_and_bound import (
    Fate,
    LabelFate,
    Rule,
    Tree,
    best_price,
    branch_and_bound,
    label_setting,
    lagrangian_bound,
    undiscounted,
)
from tests.toys import toy

SPACE = SearchSpace.uniform(3, (512, 768), (1,), (1, 2))
TOY = DesignProblem(SPACE, undiscounted(EffectiveEntropy()), (Budget(Flops(), 45e9),))
LARGER = SearchSpace.uniform(3, (512, 768, 1024), (1, 2), (1, 2, 3))


def below(choices: Choices, designs: list[Choices]) -> list[Choices]:
    """The designs that complete a partial one."""
    return [design for design in designs if design[: len(choices)] == choices]


def check_tree(tree: Tree) -> None:
    """Every node says what is true of its completions, and the leaves account for all designs."""
    problem = tree.problem
    designs = list(problem.space.iterate_choices())
    evaluated = {choices: problem.evaluate(problem.space.decode(choices)) for choices in designs}
    leaves: list[Choices] = []
    last = math.inf
    for number, node in enumerate(tree.nodes):
        assert node.number == number
        if node.parent is None:
            assert number == 0
            assert node.choices == ()
        else:
            parent = tree.nodes[node.parent]
            assert node.parent < number
            assert parent.fate is Fate.BRANCHED
            assert parent.choices == node.choices[:-1]
            # A design over budget may well be better than the priced bound, which speaks of those within.
            assert node.fate is Fate.BUDGET or node.bound <= parent.bound * (1 + 1e-12)
        completions = below(node.choices, designs)
        assert completions
        feasible = [evaluated[choices].objective for choices in completions if evaluated[choices].feasible]
        if node.fate is Fate.BUDGET:
            assert not feasible
        else:
            assert max(feasible, default=-math.inf) <= node.bound * (1 + 1e-9)
        for k, cost in enumerate(node.costs):
            least = min(evaluated[choices].usage[k].value for choices in completions)
            assert cost <= least * (1 + 1e-9)
        if node.fate in (Fate.BOUND, Fate.NO_BETTER):
            assert node.incumbent is not None
            assert node.bound <= node.incumbent * (1 + 1e-11)
        if node.fate is not Fate.BRANCHED:
            leaves += completions
        assert node.proved <= last * (1 + 1e-12)
        last = node.proved
    assert sorted(leaves) == designs
    truth = max((each.objective for each in evaluated.values() if each.feasible), default=None)
    assert tree.objective == (None if truth is None else pytest.approx(truth, rel=1e-9))
    assert tree.nodes[-1].proved == (-math.inf if truth is None else pytest.approx(truth, rel=1e-9))
    if tree.architecture is not None:
        assert problem.evaluate(tree.architecture).feasible


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("number", range(50))
def test_branch_and_bound_on_random_toys(number: int, rule: Rule) -> None:
    check_tree(branch_and_bound(toy(number).problem, rule))


@pytest.mark.parametrize("number", range(0, 50, 2))
def test_priced_branch_and_bound_on_random_toys(number: int) -> None:
    problem = toy(number).problem
    draw = np.random.default_rng(number)
    prices = []
    for budget in problem.subject_to:
        is_sum = getattr(budget.quantity, "combine", None) is not None and budget.quantity.combine.value == "sum"
        prices.append(float(draw.choice([0, 0.3, 1, 3]) * 1e4 / max(budget.upper, 1.0)) if is_sum else 0.0)
    check_tree(branch_and_bound(problem, Rule.DEPTH_FIRST, prices))


@st.composite
def problems(draw: st.DrawFn) -> DesignProblem:
    """Two or three blocks with their own menus, the objective with or without discount, budgets from slack to impossible."""
    widths = st.lists(st.sampled_from([256, 512, 640, 768, 1024]), min_size=1, max_size=3, unique=True)
    depths = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)
    ratios = st.lists(st.sampled_from([1, 1.5, 2]), min_size=1, max_size=2, unique=True)
    menus = [Menu(draw(widths), draw(ratios), draw(depths)) for _ in range(draw(st.integers(2, 3)))]
    space = SearchSpace(menus, non_decreasing=False)
    objective = draw(st.sampled_from([EffectiveEntropy(), undiscounted(EffectiveEntropy()), EffectiveEntropy(rho=0.1)]))
    budgets = []
    for quantity in (Flops(), Params()):
        values = [quantity(design) for design in space]
        share = draw(st.floats(-0.1, 1.1))
        budgets.append(Budget(quantity, min(values) + share * (max(values) - min(values)) if share > -0.05 else 0.9 * min(values)))
    return DesignProblem(space, objective, tuple(budgets[: draw(st.integers(1, 2))]))


@settings(max_examples=60)
@given(problem=problems(), rule=st.sampled_from(Rule), price=st.floats(0, 2e-6))
def test_all_agree_with_exhaustive_search(problem: DesignProblem, rule: Rule, price: float) -> None:
    truth = solve(problem, Exhaustive())
    prices = (price, *[0.0] * (len(problem.subject_to) - 1))
    for found in (branch_and_bound(problem, rule), branch_and_bound(problem, rule, prices), label_setting(problem)):
        assert found.objective == (None if truth.objective is None else pytest.approx(truth.objective, rel=1e-9))
    assert (truth.status is Status.INFEASIBLE) is (truth.objective is None)
    if truth.objective is not None:
        assert lagrangian_bound(problem, prices) >= truth.objective * (1 - 1e-9)


def test_the_tree_of_the_lesson() -> None:
    tree = branch_and_bound(TOY, Rule.DEPTH_FIRST)
    counts = {fate: tree.count(fate) for fate in Fate}
    assert counts == {Fate.BRANCHED: 10, Fate.INCUMBENT: 3, Fate.NO_BETTER: 5, Fate.BOUND: 6, Fate.BUDGET: 5}
    assert tree.complete == sum(len(node.choices) == 3 and node.fate is not Fate.BUDGET for node in tree.nodes) == 8
    first = branch_and_bound(TOY)
    # The largest bound first meets no incumbent but the optimum.
    assert first.count(Fate.INCUMBENT) == 1
    assert first.architecture == tree.architecture
    assert tree.block(tree.nodes[0]) is None
    assert tree.block(tree.nodes[1]) in SPACE.menus[0].items


def test_a_start_only_cuts_more() -> None:
    problem = DesignProblem(SPACE, TOY.maximize, (Budget(Flops(), 50e9),))
    best = solve(problem, Exhaustive()).architecture
    cold, warm = (branch_and_bound(problem, Rule.DEPTH_FIRST, start=start) for start in (None, best))
    assert len(warm.nodes) < len(cold.nodes)
    assert warm.objective == cold.objective
    assert warm.nodes[0].incumbent == cold.objective


def test_a_good_price_shrinks_the_tree() -> None:
    problem = DesignProblem(LARGER, TOY.maximize, (Budget(Flops(), 60e9),))
    plain, priced = branch_and_bound(problem), branch_and_bound(problem, prices=(3.8e-7,))
    assert len(priced.nodes) < len(plain.nodes) / 3
    assert priced.objective == plain.objective


@pytest.mark.parametrize("price", [0.0, 1e-7, 3.8e-7, 1e-6])
def test_the_lagrangian_bound_is_the_maximum_that_it_says(price: float) -> None:
    limit = TOY.subject_to[0].limit
    truth = max(TOY.maximize(design) + price * (limit - Flops()(design)) for design in SPACE)
    assert lagrangian_bound(TOY, (price,)) == pytest.approx(truth, rel=1e-12)


def test_the_lagrangian_bound_is_convex_in_the_price() -> None:
    prices = np.linspace(0, 1e-6, 41)
    for objective in (TOY.maximize, EffectiveEntropy()):
        problem = DesignProblem(LARGER, objective, (Budget(Flops(), 60e9),))
        bounds = np.array([lagrangian_bound(problem, (price,)) for price in prices])
        assert np.all(np.diff(bounds, 2) >= -1e-6 * bounds[1:-1])
        assert lagrangian_bound(problem, (best_price(problem, prices),)) == bounds.min()


def test_undiscounted_is_the_objective_without_effectiveness() -> None:
    for weighting in (True, False):
        objective = EffectiveEntropy(alpha=(0.7, 0.2), weighting=weighting)
        plain = EffectiveEntropy(alpha=(0.7, 0.2), weighting=weighting, effectiveness=False)
        for design in list(LARGER)[::97]:
            assert undiscounted(objective)(design) == pytest.approx(plain(design), rel=1e-12)


@pytest.mark.parametrize("number", range(50))
def test_labels_on_random_toys(number: int) -> None:
    given_toy = toy(number)
    labels = label_setting(given_toy.problem)
    assert labels.objective == (None if given_toy.optimum is None else pytest.approx(given_toy.optimum, rel=1e-9))
    every = label_setting(given_toy.problem, dominance=False)
    assert every.objective == labels.objective
    assert sum(every.count(LabelFate.DOMINATED)) == 0
    for stage, all_labels in zip(labels.stages, every.stages, strict=True):
        assert len(stage) <= len(all_labels)
        by_choices = {label.choices: label for label in stage}
        for label in stage:
            assert (label.by is not None) is (label.fate is LabelFate.DOMINATED)
            if label.by is not None:
                other = by_choices[label.by]
                assert all(ours >= theirs - 1e-12 * abs(ours) for ours, theirs in zip(label.costs, other.costs, strict=True))


def test_a_label_over_budget_has_no_feasible_completion() -> None:
    designs = list(SPACE.iterate_choices())
    for stage in label_setting(TOY, dominance=False).stages:
        for label in stage:
            feasible = any(TOY.evaluate(SPACE.decode(design)).feasible for design in below(label.choices, designs))
            assert feasible is (label.fate is LabelFate.KEPT)


def test_the_last_labels_are_the_front() -> None:
    problem = DesignProblem(LARGER, TOY.maximize, (Budget(Flops(), 60e9),))
    kept = {label.costs + label.gathered for label in label_setting(problem).stages[-1] if label.fate is LabelFate.KEPT}
    front = exhaustive_front(DesignProblem(LARGER, TOY.maximize, problem.subject_to, minimize=(Flops(),)))
    assert len(kept) == len(front)
    assert np.array(sorted(kept)) == pytest.approx(np.array([(*point.costs, point.objective) for point in front]), rel=1e-12)


def test_mistakes_are_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    box = DesignProblem(SPACE, Measured("score", "1", lambda design: 1.0))
    for search in (branch_and_bound, label_setting):
        with pytest.raises(NotSeparable, match="black box"):
            search(box)
    for prices in ((), (-1.0,), (math.nan,), (math.inf,), (1.0, 1.0)):
        with pytest.raises(ValueError, match="expected one number of at least 0"):
            lagrangian_bound(TOY, prices)
    tight = DesignProblem(SPACE, TOY.maximize, (Budget(EffectiveEntropy(), 20_000),))
    with pytest.raises(ValueError, match="is not a sum over blocks"):
        branch_and_bound(tight, prices=(1.0,))
    with pytest.raises(ValueError, match="for each of the 2 budgets"):
        best_price(DesignProblem(SPACE, TOY.maximize, (Budget(Flops(), 45e9), Budget(Params(), 1e9))), (0.0,))
    assert branch_and_bound(tight, prices=(0.0,)).objective == solve(tight, Exhaustive()).objective
    with pytest.raises(ValueError, match=r"the start does not meet flops ≤ 4\.5e"):
        branch_and_bound(TOY, start=list(SPACE)[-1])
    monkeypatch.setattr(module, "_MOST", 20)
    with pytest.raises(ValueError, match="more than 20 nodes"):
        branch_and_bound(TOY)
    with pytest.raises(ValueError, match="block 3 has 24 labels"):
        label_setting(TOY)
