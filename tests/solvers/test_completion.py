"""The bounds that dynamic programming rests on, against every design: none may lie below what a partial design can still become."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from formulation import BlockwiseEntropy, Composite, EffectiveEntropy, Menu, SearchSpace, Separable
from formulation.derived import LAYERS
from formulation.table import Table, tabulate
from hardware_models import Params
from solvers.exact.bounds import Cells, LagrangianBound, ResourceBound, depth_boxes, narrow_parts
from tests.fuzz import Kind, Mixture, Product, Terms

SPACES = (
    SearchSpace.uniform(3, (64, 128, 256), (1, 2), (1, 2), embedding_width=128),
    SearchSpace((Menu((128, 256), (1,), (1, 3)), Menu((64, 128, 512), (0.5, 2), (2, 3)), Menu((256, 512), (1, 4), (1, 2, 4)))),
    SearchSpace((Menu((64, 256), (1, 2), (1, 2)), Menu((64, 128), (1,), (1, 4)), Menu((64,), (2, 3), (2,))), non_decreasing=False),
)
COMPOSITES: tuple[Composite, ...] = (
    EffectiveEntropy(rho=0.1),
    BlockwiseEntropy(beta=0.05),
    Product((Terms(1, Kind.REAL, 1.0, 3, joined=True), Terms(2, Kind.WHOLE, 1.0, 3, floor=2.0))),
    Mixture((Terms(3, Kind.SIGNED, 1.0, 3), Terms(4, Kind.REAL, 1.0, 3, floor=0.5), Terms(5, Kind.REAL, 1.0, 3, joined=True))),
)
COSTS: dict[str, tuple[Separable, ...]] = {
    "whole": (Params(),),
    "small whole": (Terms(6, Kind.WHOLE, 12.0, 3, joined=True),),
    "real": (Terms(7, Kind.REAL, 1.0, 3, joined=True, floor=0.3),),
    "signed": (Terms(8, Kind.SIGNED, 1.0, 3, joined=True),),
    "two": (Params(), Terms(9, Kind.REAL, 1.0, 3)),
    "three": (Terms(10, Kind.REAL, 1e9, 3), Terms(11, Kind.SIGNED, 1.0, 3), Params()),
    "none": (),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A space's designs, cells with their overestimators, and what is true of them.

    Attributes:
        choices: (n, N).
        totals: (Q, n) of whole designs.
        cell: (n,) of each design, by its depth.
        affine: (n,) the overestimator at each design.
        value: (n,) the composite itself.
        feasible: (n,) bool.
    """

    table: Table
    allowed: list[np.ndarray]
    cells: Cells
    lower: np.ndarray
    upper: np.ndarray
    choices: np.ndarray
    totals: np.ndarray
    cell: np.ndarray
    affine: np.ndarray
    value: np.ndarray
    feasible: np.ndarray

    def prefix(self, block: int) -> np.ndarray:
        """Totals (Q, n) of the first `block` blocks of every design, added up here."""
        table = self.table
        totals = np.repeat(table.fixed[:, None], len(self.choices), axis=1)
        for i in range(block):
            totals = totals + table.blocks[i][:, self.choices[:, i]]
        for i in range(block - 1):
            left, right = (table.space.state_of[j][self.choices[:, j]] for j in (i, i + 1))
            totals = totals + table.joints[i][:, left, right]
        return totals


def case(space: SearchSpace, composite: Composite, costs: tuple[Separable, ...], share: float) -> Case:
    """Each budget is exactly what one of the designs costs, at this share of all."""
    table = tabulate((LAYERS, *composite.parts, *costs), space)
    parts = slice(1, 1 + len(composite.parts))
    allowed = [np.ones(len(menu), dtype=bool) for menu in space.menus]
    choices = np.array(list(space.iterate_choices()))
    totals = table.evaluate(choices)
    spent = totals[parts.stop :]
    limits = np.quantile(spent, share, axis=1, method="nearest") * (1 + 1e-12)
    depths, lower, upper = depth_boxes(table, allowed, 0, parts)
    cells = Cells.of_sums(depths, *composite.overestimator(lower, upper), parts, slice(parts.stop, len(table.fixed)), limits)
    cell = np.searchsorted(depths, totals[0])
    affine = cells.constants[cell] + np.einsum("np,pn->n", cells.coefficients[cell], totals[parts])
    value = np.array([composite.formula(list(column)) for column in totals[parts].T])
    return Case(table, allowed, cells, lower, upper, choices, totals, cell, affine, value, np.all(spent <= limits[:, None], axis=0))


CASES = [(s, c, name, (0.2, 0.7)[(s + c + len(COSTS[name])) % 2]) for s in range(3) for c in range(4) for name in COSTS]
every_case = pytest.mark.parametrize("which", CASES, ids=str)


def given(which: tuple[int, int, str, float]) -> Case:
    space, composite, name, share = which
    return case(SPACES[space], COMPOSITES[composite], COSTS[name], share)


def room(values: np.ndarray) -> np.ndarray:
    return 1e-12 * np.abs(values).max()


def check_bound(each: Case, bound: LagrangianBound | ResourceBound) -> None:
    for c in range(len(each.cells.layers)):
        inside = each.affine[each.feasible & (each.cell == c)]
        assert not len(inside) or bound.root[c] >= inside.max() - room(inside)
    menus = each.table.space.menus
    for block in range(1, len(menus) + 1):
        depth = sum(menu.layers[each.choices[:, i]] for i, menu in enumerate(menus[:block]))
        state = each.table.space.state_of[block - 1][each.choices[:, block - 1]]
        bounds = bound(block, each.cell, state, depth, each.prefix(block))
        assert np.all(bounds[each.feasible] >= each.affine[each.feasible] - room(each.affine))


@every_case
def test_boxes_hold_the_parts_of_every_design(which: tuple) -> None:
    each = given(which)
    parts = each.totals[each.cells.parts].T
    assert np.array_equal(np.unique(each.totals[0]), each.cells.layers)
    for p in range(parts.shape[1]):
        for c in range(len(each.cells.layers)):
            inside = parts[each.cell == c, p]
            assert (each.lower[c, p], each.upper[c, p]) == pytest.approx((inside.min(), inside.max()), rel=1e-12, abs=1e-12)
    assert np.all(each.affine >= each.value - room(each.affine))


@every_case
def test_lagrangian_bounds_lie_above_every_completion(which: tuple) -> None:
    each = given(which)
    bound = LagrangianBound(each.table, each.allowed, each.cells)
    assert np.all(bound.best_multipliers >= 0)
    check_bound(each, bound)
    check_bound(each, LagrangianBound(each.table, each.allowed, each.cells, bound.best_multipliers * 0.7))


@every_case
@pytest.mark.parametrize("steps", [3, 40, 1 << 12])
def test_resource_bounds_lie_above_every_completion(which: tuple, steps: int) -> None:
    each = given(which)
    kinds = len(each.cells.limits)
    for direction in (np.linspace(1, 0.25, kinds), np.zeros(kinds)):
        check_bound(each, ResourceBound(each.table, each.allowed, each.cells, direction, steps))


@pytest.mark.parametrize("kind", [Kind.WHOLE, Kind.TIES])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("composite", range(4))
@pytest.mark.parametrize("space", range(3))
def test_a_resource_of_whole_steps_gives_the_optimum(space: int, composite: int, share: float, kind: Kind) -> None:
    """The cost's terms are multiples of 12, fewer than the steps: the bound is the best design's affine value itself."""
    each = case(SPACES[space], COMPOSITES[composite], (Terms(13, kind, 12.0, 3, joined=True, per_layer=True),), share)
    bound = ResourceBound(each.table, each.allowed, each.cells, np.ones(1), 1 << 12)
    for c in range(len(each.cells.layers)):
        inside = each.affine[each.feasible & (each.cell == c)]
        assert bound.root[c] == (pytest.approx(inside.max(), rel=1e-8, abs=1e-8) if len(inside) else -np.inf)


@every_case
def test_narrowed_boxes_hold_every_design_that_is_good_enough(which: tuple) -> None:
    each = given(which)
    parts = each.totals[each.cells.parts].T
    multipliers = LagrangianBound(each.table, each.allowed, each.cells).best_multipliers
    values = each.value[each.feasible] if each.feasible.any() else each.value
    for share in (0.3, 0.8, 1.0):
        at_least = float(np.quantile(values, share))
        lower, upper = narrow_parts(each.table, each.allowed, each.cells, multipliers, at_least, each.lower, each.upper)
        good = each.feasible & (each.affine >= at_least)
        slack = 1e-12 * np.abs(parts).max(axis=0)
        assert np.all(lower[each.cell[good]] <= parts[good] + slack)
        assert np.all(upper[each.cell[good]] >= parts[good] - slack)
        assert np.all(lower >= each.lower)
        assert np.all(upper <= each.upper)


def test_narrowing_narrows() -> None:
    each = case(SPACES[0], COMPOSITES[0], COSTS["whole"], 0.3)
    multipliers = LagrangianBound(each.table, each.allowed, each.cells).best_multipliers
    best = float(each.value[each.feasible].max())
    lower, upper = narrow_parts(each.table, each.allowed, each.cells, multipliers, best, each.lower, each.upper)
    assert (upper - lower).clip(0).sum() < 0.5 * (each.upper - each.lower).sum()


def test_the_prefix_of_a_whole_design_is_its_total() -> None:
    each = case(SPACES[1], COMPOSITES[0], COSTS["two"], 0.5)
    assert each.prefix(3) == pytest.approx(each.totals)
    assert all(np.all(a <= b) for a, b in pairwise([each.prefix(block)[0] for block in range(4)]))


@pytest.mark.parametrize("name", ["whole", "real", "two"])
@pytest.mark.parametrize("composite", range(4))
def test_prices_of_budgets_bring_the_bound_down(composite: int, name: str) -> None:
    """Lagrangian bounds of the cells lie well below the best design of each, whatever it costs."""
    each = case(SPACES[0], COMPOSITES[composite], COSTS[name], 0.3)
    bound = LagrangianBound(each.table, each.allowed, each.cells)
    free = np.array([each.affine[each.cell == c].max() for c in range(len(each.cells.layers))])
    feasible = [c for c in range(len(free)) if each.feasible[each.cell == c].any()]
    best = np.array([each.affine[each.feasible & (each.cell == c)].max() for c in feasible])
    assert np.all(bound.root[feasible] <= free[feasible] * (1 + 1e-8) + 1e-8)
    assert (bound.root[feasible] - best).sum() < 0.7 * (free[feasible] - best).sum()


@pytest.mark.parametrize("floor", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("space", range(3))
def test_boxes_hold_maxima_between_a_valid_least_and_the_greatest(space: int, floor: float) -> None:
    highest = Terms(12, Kind.REAL, 1.0, 3, maximum=True, joined=True, floor=floor)
    table = tabulate((LAYERS, highest), SPACES[space])
    choices = np.array(list(SPACES[space].iterate_choices()))
    layers, values = table.evaluate(choices)
    depths, lower, upper = depth_boxes(table, [np.ones(len(menu), dtype=bool) for menu in SPACES[space].menus], 0, slice(1, 2))
    for depth, low, high in zip(depths, lower[:, 0], upper[:, 0], strict=True):
        inside = values[layers == depth]
        assert floor <= low <= inside.min()
        assert high == inside.max()
