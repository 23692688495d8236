"""The zones that known points leave, against what they are meant to hold; values with remembered terms."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from formulation import Composite, EffectiveEntropy, Quantity, Separable
from hardware_models import Flops, Params
from solvers.evaluation import Recalled
from solvers.fronts.zones import Zones, non_dominated_rows, rounded, targets_of
from tests.toys import RandomCost, toy


@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_zones_hold_just_what_no_point_dominates(dimensions: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.integers(0, 6, (25, dimensions)).astype(float)
    zones = Zones(dimensions)
    added = [zones.add(point) for point in points]
    for number, point in enumerate(points):
        assert added[number] == (not (points[:number] >= point).all(axis=1).any())
    for place in product(range(7), repeat=dimensions):
        dominated = (points >= np.array(place)).all(axis=1).any()
        assert (zones.corners < np.array(place)).all(axis=1).any() == (not dominated)


def test_what_a_point_leaves_of_a_closed_zone_stays_closed() -> None:
    zones = Zones(2)
    zones.add(np.array([2.0, 2.0]))
    zones.closed[:] = (zones.corners == [-np.inf, 2.0]).all(axis=1)
    zones.tried[:] = np.where(zones.closed, 7, 3)
    zones.add(np.array([1.0, 4.0]))
    zones.add(np.array([4.0, 1.0]))
    kept = {
        tuple(corner): (closed, tried)
        for corner, closed, tried in zip(zones.corners.tolist(), zones.closed, zones.tried, strict=True)
    }
    infinite = float("-inf")
    assert kept == {
        (infinite, 4.0): (True, 7),
        (1.0, 2.0): (True, 7),
        (2.0, 1.0): (False, 3),
        (4.0, infinite): (False, 3),
    }


def test_targets_exceed_corners_by_a_step_or_by_more_than_is_the_same() -> None:
    corners = np.array([[10.0, -4.0], [-np.inf, -np.inf]])
    assert targets_of(corners, np.array([1.0, 2.0]), np.array([0.0, -9.0])).tolist() == [[11.0, -2.0], [0.0, -9.0]]
    ((objective, cost), _) = targets_of(corners, np.zeros(2), np.array([0.0, -9.0])).tolist()
    assert 10 < objective < 10 * (1 + 1e-12)
    assert -4 < cost < -4 * (1 - 1e-11)


def test_sums_of_another_order_are_rounded_to_the_same() -> None:
    one, other = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert one != other
    values = rounded(np.array([[one, one], [other, other]]), np.array([False, True]))
    assert values[0, 0] == values[1, 0]
    assert values[0, 1] != values[1, 1]
    assert abs(values[0, 0] - one) < 1e-12 * one


@pytest.mark.parametrize("dimensions", [2, 3])
def test_non_dominated_rows_are_those_of_every_pair(dimensions: int) -> None:
    rows = np.random.default_rng(1).integers(0, 5, (40, dimensions)).astype(float)
    kept = non_dominated_rows(rows)
    front = {tuple(row) for row in rows.tolist() if not ((rows >= row).all(axis=1) & (rows > row).any(axis=1)).any()}
    assert len(kept) == len(front)
    assert {tuple(row) for row in rows[kept].tolist()} == front


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("quantity", [EffectiveEntropy(), Flops(), Params(), RandomCost(1), RandomCost(2, maximum=True)])
def test_recalled_values_are_those_of_a_call_to_the_last_bit(number: int, quantity: Quantity) -> None:
    space = toy(number).problem.space
    recalled = Recalled(quantity, space)
    assert isinstance(quantity, Separable | Composite)
    for choices in space.sample(np.random.default_rng(number), 30).tolist():
        design = space.decode(choices)
        assert recalled(choices, design) == quantity(design)
