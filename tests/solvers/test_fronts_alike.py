"""Fronts of alike layers at once, against brute force and against labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from formulation import Budget, Composite, DesignProblem, EffectiveEntropy, Menu, SearchSpace, Separable, SumOverLayers
from formulation.score_table import Column, OptionMenu, OptionSpace
from hardware_models import Flops, Params
from solvers.base import Limits, Run
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.fronts import alike, knapsack
from solvers.questions.pareto import check_certificate, exact_front
from tests.slow import slow
from tests.solvers.test_fronts_knapsack import StoppingRun, assert_accounts_for, assert_equal_fronts, larger


@pytest.fixture(autouse=True)
def these_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fronts are found by sums of alike layers, and labels, however small they are."""
    monkeypatch.setattr("solvers.questions.pareto._methods", lambda problem: (alike.alike_front, knapsack.knapsack_front))


def options_problem(seed: int, costs: int, kind: str) -> DesignProblem:
    """Two to six positions with the same two to five options: whole numbers, real ones, or tenths."""
    generator = np.random.default_rng(seed)
    positions, options = int(generator.integers(2, 6)), int(generator.integers(2, 6))
    space = OptionSpace(tuple(OptionMenu(f"layer {i}", tuple(map(str, range(options)))) for i in range(positions)))

    def column(number: int) -> Column:
        row = generator.integers(-2, 9, options).astype(float) if kind != "real" else generator.uniform(0, 1, options)
        row = row / 10 if kind == "tenths" else row
        return Column(f"column {number}", "1", (tuple(row.tolist()),) * positions, space)

    columns = [column(number) for number in range(costs + 3)]
    budgets = []
    for number, quantity in enumerate(columns[1:]):
        if generator.random() < 0.5:
            least, most = (positions * pick(quantity.values[0]) for pick in (min, max))
            bound = round(least + generator.uniform(-0.05, 0.9) * (most - least), {"whole": 0, "tenths": 1}.get(kind, 9))
            budgets.append(Budget(quantity, bound) if number % 2 else Budget(quantity, at_least=bound))
    return DesignProblem(space, columns[0], tuple(budgets), minimize=tuple(columns[1 : 1 + costs]))


CASES = [(seed, costs, kind) for seed in range(60) for costs in (1, 2) for kind in ("whole", "real", "tenths")]
FEW = [case for case in CASES if case[0] < 12]


@pytest.mark.parametrize(("seed", "costs", "kind"), [*FEW, *slow(case for case in CASES if case[0] >= 12)])
def test_it_is_the_front_of_brute_force(seed: int, costs: int, kind: str) -> None:
    problem = options_problem(seed, costs, kind)
    front = exact_front(problem)
    assert "one solve a box" not in front.message
    assert_equal_fronts(front)


@dataclass(frozen=True)
class Product(Composite):
    """The product of two columns without negative values."""

    columns: tuple[Column, Column]

    name, unit = "product", "1"

    @property
    def parts(self) -> tuple[Separable, ...]:
        return self.columns

    @property
    def signs(self) -> tuple[int, ...]:
        return (1, 1)

    def formula(self, parts: Any) -> Any:
        return parts[0] * parts[1]

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        coefficients = np.stack((lower[..., 1], upper[..., 0]), axis=-1)
        return coefficients, -upper[..., 0] * lower[..., 1]


@pytest.mark.parametrize("number", [*range(20), *slow(range(20, 120))])
def test_a_composite_within_budgets_is_that_of_brute_force(number: int) -> None:
    kind = ("whole", "real", "tenths")[number % 3]
    problem = options_problem(number, 1 + number // 3 % 2, kind)
    generator = np.random.default_rng(number)
    space, options = problem.space, len(problem.space.menus[0])
    first, second = (
        Column(name, "1", (tuple(generator.integers(1, 9, options) / (10 if kind == "tenths" else 1)),) * space.blocks, space)
        for name in ("first", "second")
    )
    problem = DesignProblem(space, Product((first, second)), problem.subject_to, minimize=problem.minimize)
    front = alike.alike_front(problem, Run(Limits()))
    if front is None:  # a design within a budget by rounding, in some order of its layers alone
        assert kind == "tenths"
        return
    assert_equal_fronts(exact_front(problem))


def attention(layer: object) -> float:
    """A term of a layer that only its heads change."""
    return float(layer.heads * layer.head_size)  # type: ignore[attr-defined]


def layers(blocks: int = 3) -> SearchSpace:
    """Layers of one width whose heads and FFN widths interact in no term."""
    menu = Menu((256,), None, (1,), ffn_widths=(256, 384, 640, 1024), heads=(2, 4), kv_heads=(1, 2), head_sizes=(32, 64))
    return SearchSpace((menu,) * blocks, family="llama", shared=False)


@pytest.mark.parametrize(
    "budgets", [(), (Budget(Params(), 27.1e6),), (Budget(Params(), 27.1e6), Budget(SumOverLayers("heads", "1", attention), 400))]
)
def test_decisions_that_do_not_interact_are_summed_apart(budgets: tuple[Budget, ...]) -> None:
    problem = DesignProblem(layers(), EffectiveEntropy(), budgets, minimize=(Flops(),))
    front = exact_front(problem)
    assert "2 decisions that do not interact" in front.message
    assert_equal_fronts(front)
    assert len(front.points) > 1


def test_three_objectives_of_layers() -> None:
    front = exact_front(DesignProblem(layers(), EffectiveEntropy(), minimize=(Flops(), SumOverLayers("heads", "1", attention))))
    assert "decisions that do not interact" in front.message
    assert_equal_fronts(front)
    assert len(front.points) > 20


def test_many_layers_have_the_front_that_labels_find() -> None:
    generator = np.random.default_rng(3)
    space = OptionSpace(tuple(OptionMenu(f"layer {i}", ("a", "b", "c", "d")) for i in range(12)))
    score, cost, memory = (
        Column(name, "1", (tuple(generator.uniform(0, 1, 4)),) * 12, space) for name in ("score", "cost", "memory")
    )
    problem = DesignProblem(space, score, (Budget(memory, 6.0),), minimize=(cost,))
    at_once = exact_front(problem)
    found = knapsack.knapsack_front(problem, Run(Limits()))
    assert found is not None
    assert not found.opened
    by_boxes = exact_front(problem, DynamicProgramming())
    assert check_certificate(at_once) == ()
    np.testing.assert_allclose(at_once.values, by_boxes.values, rtol=1e-11)


def test_a_term_that_heads_and_ffn_width_share_keeps_them_together() -> None:
    both = SumOverLayers("product", "1", lambda layer: float(layer.ffn_width * layer.heads))
    front = exact_front(DesignProblem(layers(2), EffectiveEntropy(), minimize=(both,)))
    assert "alike layers" in front.message
    assert "do not interact" not in front.message
    assert_equal_fronts(front)


@pytest.mark.parametrize(
    "problem",
    [
        DesignProblem(SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2)), EffectiveEntropy(), minimize=(Flops(),)),
        DesignProblem(SearchSpace.uniform(1, (256,), (1, 2), (1, 2)), EffectiveEntropy(), minimize=(Flops(),)),
    ],
)
def test_linked_layers_and_single_ones_are_not_for_it(problem: DesignProblem) -> None:
    assert alike.alike_front(problem, Run(Limits())) is None


@pytest.mark.parametrize("polls", [0, 193, 195])
def test_what_a_stopped_search_misses_is_said(polls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = DesignProblem(layers(4), EffectiveEntropy(), minimize=(Flops(),))
    whole = exact_front(problem)
    run = StoppingRun(Limits())
    run.polls_left = polls
    monkeypatch.setattr("solvers.questions.pareto.Run", lambda limits: run)
    front = exact_front(problem)
    assert_accounts_for(front, whole)
    assert not front.complete
    assert len(front.points) > 1 or polls == 0


def test_which_method_finds_a_front_follows_from_its_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    chained = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    assert "combined from halves" in exact_front(DesignProblem(chained, EffectiveEntropy(), minimize=(Flops(),))).message
    assert "alike layers" in exact_front(DesignProblem(layers(), EffectiveEntropy(), minimize=(Flops(),))).message
    assert "labels" in exact_front(larger(64, 2, 1)).message
