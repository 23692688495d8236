"""Completion bounds for dynamic programming: the most that the blocks still to come can add to a partial design.

A *valuation* gives every menu item and joint a value, so that the value of the remaining blocks adds up and its maximum over
the layered DAG depends on (block, left width, layers left) alone. `best_completions` tabulates that for many valuations at
once; `LagrangianBound` prices the budgets into the valuation, `ResourceBound` keeps their weighted sum as one more state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from formulation.table import Table

_SAFETY = 1e-9
"""Relative amount added to computed bounds, so that rounding cannot cut off the optimum."""
_NARROWING_SPREAD = (0.9, 1.0, 1.1)
"""Scalings of a cell's multipliers that `narrow_parts` tries."""
_LARGEST = 1e150
"""Multipliers beyond this could overflow in a product with a cost."""
_DIFFERENCE = 1e-6
"""Step of the forward differences of a root bound, whose value and variables are scaled to about 1."""
_CUTS = 18
"""Cuts of the ellipsoid method per budget; half as many where it begins near the end."""
_WHOLE = 1e-9
"""Distance from a whole number of steps that is put down to rounding."""


def _safe(bound: np.ndarray) -> np.ndarray:
    """Bounds with the safety added; −∞ stays, and what is not a number bounds nothing."""
    bound = np.where(np.isnan(bound), np.inf, bound)
    return bound + _SAFETY * np.abs(np.where(np.isfinite(bound), bound, 0.0))


def _summed(table: Table, rows: slice, terms: np.ndarray) -> np.ndarray:
    """`terms` (R, …) of some rows, 0 for the rows that are maxima: these do not add up, and their weight is 0 in every sum."""
    return np.where(table.is_max[rows].reshape(-1, *[1] * (terms.ndim - 1)), 0.0, terms)


@dataclass(frozen=True)
class Cells:
    """The search split by total depth: in cell c designs have `layers[c]` layers and an objective bounded by an affine function.

    layers        (C,) total depth
    coefficients  (C, P) of the parts, 0 for parts that are maxima
    constants     (C,)
    parts, costs  rows of the table that hold the parts of the objective and the budgeted sums
    limits        (K,) of the budgeted sums
    """

    layers: np.ndarray
    coefficients: np.ndarray
    constants: np.ndarray
    parts: slice
    costs: slice
    limits: np.ndarray

    def pick(self, which: np.ndarray) -> Cells:
        """Some of the cells."""
        return Cells(self.layers[which], self.coefficients[which], self.constants[which], self.parts, self.costs, self.limits)

    def so_far(self, cell: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Affine value of the parts that n partial designs have gathered: cell (n,), totals (Q, n) to (n,)."""
        used = np.where(self.coefficients[cell].T == 0, 0.0, totals[self.parts])
        return self.constants[cell] + np.einsum("np,pn->n", self.coefficients[cell], used)

    def of_nothing(self, table: Table) -> np.ndarray:
        """Affine value (C,) of the terms that every design has: where partial designs begin."""
        return self.so_far(np.arange(len(self.layers)), np.repeat(table.fixed[:, None], len(self.layers), axis=1))


def best_completions(
    table: Table, allowed: list[np.ndarray], most_layers: int, weights: np.ndarray, rows: slice
) -> list[np.ndarray]:
    """The largest value of blocks i … N − 1 for V valuations weights (V, R) · table rows (R).

    allowed  per block a bool array: items that may be used

    Entry i of the result is an array (V, widths of block i − 1, most_layers + 1) over the exact number of layers in those
    blocks, −∞ where no completion exists; entry 0 has one left width, the last entry is 0 for 0 layers.
    """
    return [_padded(after, most_layers) for after in _backward(table, allowed, most_layers, weights, rows)][::-1]


def best_designs(
    table: Table, allowed: list[np.ndarray], most_layers: int, weights: np.ndarray, rows: slice, maximum: bool = False
) -> np.ndarray:
    """Entry 0 of `best_completions` without its left width: the largest value of whole designs, (V, most_layers + 1).

    maximum  the terms of the single row combine by maximum, for weights of 1, instead of a sum
    """
    for after in _backward(table, allowed, most_layers, weights, rows, maximum):
        last = after
    return _padded(last, most_layers)[:, 0]


def _padded(values: np.ndarray, most_layers: int) -> np.ndarray:
    """Values (V, widths, layers up to some) with −∞ for more layers, up to the most."""
    padded = np.full((*values.shape[:2], most_layers + 1), -np.inf)
    padded[:, :, : values.shape[2]] = values
    return padded


def _backward(
    table: Table, allowed: list[np.ndarray], most_layers: int, weights: np.ndarray, rows: slice, maximum: bool = False
) -> Iterator[np.ndarray]:
    """The entries of `best_completions` from the last to the first, each over the layers that its blocks can have at most."""
    space = table.space
    join = np.maximum if maximum else np.add
    count = len(weights)
    after = np.full((count, len(space.menus[-1].widths), 1), np.finfo(float).min if maximum else 0.0)
    yield after
    for block in reversed(range(space.blocks)):
        menu = space.menus[block]
        own = table.blocks[block][rows]
        values = weights @ (own if maximum else _summed(table, rows, own))
        values[:, ~allowed[block]] = -np.inf
        by_depth = values.reshape(count, *menu.shape).max(axis=2)
        before = after.shape[2] - 1
        reach = min(before + menu.depths[-1], most_layers)
        here = np.full((count, len(menu.widths), reach + 1), -np.inf)
        for index, depth in enumerate(menu.depths):
            if depth > reach:
                break
            stop = min(before + depth, reach) + 1
            value, rest = by_depth[:, :, index, None], after[:, :, : stop - depth]
            grown = join(value, rest)
            if maximum:
                grown[np.isneginf(np.minimum(value, rest))] = -np.inf
            np.maximum(here[:, :, depth:stop], grown, out=here[:, :, depth:stop])
        if block == 0:
            yield here.max(axis=1, keepdims=True)
            return
        own = table.joints[block - 1][rows]
        joints = np.tensordot(weights, own if maximum else _summed(table, rows, own), axes=1)
        after = np.full((count, joints.shape[1], reach + 1), -np.inf)
        for right in range(len(menu.widths)):
            lefts = np.flatnonzero(space.steps[block - 1][:, right])
            if not len(lefts):
                continue
            # The widths that may precede are neighbours in the menu, since it is sorted: a slice, not a copy.
            span = slice(lefts[0], lefts[-1] + 1)
            value, rest = joints[:, span, right, None], here[:, right, None]
            joined = join(value, rest)
            if maximum:
                joined[np.broadcast_to(np.isneginf(rest), joined.shape)] = -np.inf
            np.maximum(after[:, span], joined, out=after[:, span])
        yield after


def depth_boxes(
    table: Table, allowed: list[np.ndarray], layers_row: int, parts: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The total depths D of the space, and the least and largest value of some rows among its designs of each depth.

    layers_row  row of the table that holds the number of layers
    parts       rows to bound
    Returns depths (D,), lower and upper (D, rows). For a row that is a maximum the lower end is a valid bound, not the least.
    """
    most_layers = sum(menu.depths[-1] for menu in table.space.menus)
    possible = best_designs(table, allowed, most_layers, np.zeros((1, 1)), slice(layers_row, layers_row + 1))[0]
    depths = np.flatnonzero(np.isfinite(possible))
    lower, upper = np.empty((2, len(depths), parts.stop - parts.start))
    for p, row in enumerate(range(parts.start, parts.stop)):
        one = slice(row, row + 1)
        fixed = table.fixed[row]
        if table.is_max[row]:
            high = best_designs(table, allowed, most_layers, np.ones((1, 1)), one, maximum=True)[0, depths]
            lower[:, p] = max(fixed, *(block[row].min() for block in table.blocks))
            upper[:, p] = np.maximum(high, fixed)
        else:
            ends = best_designs(table, allowed, most_layers, np.array([[-1.0], [1.0]]), one)[:, depths]
            lower[:, p], upper[:, p] = fixed - ends[0], fixed + ends[1]
    return depths, lower, upper


class LagrangianBound:
    """bound = affine value so far + min_λ [ best completion of (coefficients·parts − λ·costs) + λ·(budget left) ].

    Valid for every λ ≥ 0 (Lagrangian relaxation of the budgets). Per cell λ is sought so that the root bound is small;
    completions are then kept for a few scalings of it.
    """

    _SPREAD = (1.0, 0.6, 0.8, 0.9, 1.1, 1.25, 1.6)

    def __init__(self, table: Table, allowed: list[np.ndarray], cells: Cells, near: np.ndarray | None = None) -> None:
        """`near`: multipliers (cells, K) to begin the search at, as those of a similar bound."""
        self._table, self._allowed, self.cells = table, allowed, cells
        self._most_layers = int(cells.layers.max())
        self._rows = slice(cells.parts.start, cells.costs.stop)
        self._room = cells.limits - table.fixed[cells.costs]
        kinds = len(cells.limits)
        if kinds > 1:
            self.best_multipliers = self._ellipsoid_search(near)
        else:
            self.best_multipliers = self._line_search() if kinds else np.zeros((len(cells.layers), 0))
        self.best_multipliers = np.nan_to_num(self.best_multipliers, nan=0.0, posinf=0.0)
        spread = self._SPREAD if len(cells.limits) else self._SPREAD[:1]
        self._multipliers = self.best_multipliers[:, None] * np.array(spread)[None, :, None]
        self.root = _safe(cells.of_nothing(table) + self._roots(self._multipliers).min(axis=1))

    @cached_property
    def _tables(self) -> list[np.ndarray]:
        """Completions (cells, M, left widths, layers + 1) per block: made when a partial design is first bounded."""
        weights = self._weights(self._multipliers)
        tables = best_completions(self._table, self._allowed, self._most_layers, weights, self._rows)
        return [array.reshape(*self._multipliers.shape[:2], *array.shape[1:]) for array in tables]

    def _weights(self, multipliers: np.ndarray) -> np.ndarray:
        """The valuations of multipliers (cells, M, K), in the order of (cell, M)."""
        values = np.repeat(self.cells.coefficients[:, None], multipliers.shape[1], axis=1)
        weights = np.concatenate((values, -multipliers), axis=2)
        return weights.reshape(-1, weights.shape[2])

    def _roots(self, multipliers: np.ndarray) -> np.ndarray:
        """Root bounds (cells, M), fixed terms left out, for multipliers (cells, M, K)."""
        cells = len(self.cells.layers)
        values = best_designs(self._table, self._allowed, self._most_layers, self._weights(multipliers), self._rows)
        return values.reshape(cells, multipliers.shape[1], -1)[np.arange(cells), :, self.cells.layers] + multipliers @ self._room

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """The value at stake (cells,), and a natural size (cells, K) of the multipliers.

        That size is the stake over the budget left, or over the budget's dearest term where nothing is left.
        """
        kinds = len(self.cells.limits)
        dearest = np.max([np.abs(array[self.cells.costs]).reshape(kinds, -1).max(axis=1) for array in self._table.blocks], axis=0)
        size = np.where(self._room > 1e-9 * dearest, self._room, np.maximum(dearest, 1.0))
        stake = np.abs(self._roots(np.zeros((len(self.cells.layers), 1, kinds))))[:, 0]
        stake = np.where(np.isfinite(stake) & (stake > 0), stake, 1.0)
        return stake, stake[:, None] / np.maximum(size, stake[:, None] / _LARGEST)

    def _line_search(self) -> np.ndarray:
        """Multipliers (cells, 1) with a small root bound: a grid refined around its best point."""
        (_, scale), each = self._scale(), np.arange(len(self.cells.layers))
        best = np.zeros_like(scale)
        grid = np.tile(np.concatenate(([0.0], np.geomspace(0.1, 3.0, 8))), (len(each), 1))
        for _ in range(3):
            trial = (grid * scale)[:, :, None]
            winner = self._roots(trial).argmin(axis=1)
            best = trial[each, winner]
            left = grid[each, np.maximum(winner - 1, 0)]
            right = grid[each, np.minimum(winner + 1, grid.shape[1] - 1)]
            grid = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 7)
        return best

    def _ellipsoid_search(self, near: np.ndarray | None) -> np.ndarray:
        """Multipliers (cells, K), K ≥ 2, with a small root bound: the ellipsoid method with deep cuts (Bland et al. 1981).

        The root bound is convex and piecewise linear, and searches along coordinates get stuck in its kinks. Its slope comes from
        forward differences, with values and multipliers scaled to about 1. near: multipliers to begin at, in a small ellipsoid.
        """
        stake, scale = self._scale()
        cells, kinds = scale.shape
        centre = np.full((cells, kinds), 0.5) if near is None else near / scale
        shape = np.tile(np.eye(kinds) * (2.0 if near is None else 0.2) ** 2 * kinds, (cells, 1, 1))
        best, least = np.maximum(centre, 0.0), np.full(cells, np.inf)
        steps = np.concatenate((np.zeros((1, kinds)), _DIFFERENCE * np.eye(kinds)))
        for _ in range((_CUTS if near is None else _CUTS // 2) * kinds):
            point = np.maximum(centre, 0.0)
            values = self._roots((point[:, None] + steps) * scale[:, None]) / stake[:, None]
            value = values[:, 0]
            improved = value < least
            best, least = np.where(improved[:, None], point, best), np.minimum(least, value)
            slope = (values[:, 1:] - value[:, None]) / _DIFFERENCE
            # Outside the orthant the cut is the most violated sign constraint.
            outside = centre.min(axis=1)
            axis = np.eye(kinds)[centre.argmin(axis=1)]
            slope = np.where(outside[:, None] < 0, -axis, slope)
            excess = np.where(outside < 0, -outside, value - least)
            shaped = np.einsum("cij,cj->ci", shape, slope)
            length = np.sqrt(np.maximum(np.einsum("ci,ci->c", slope, shaped), 0.0))
            usable = np.isfinite(length) & (length > 1e-12) & np.isfinite(value)
            depth = np.where(usable, excess / np.where(usable, length, 1.0), 1.0)
            moving = usable & (depth < 1)
            if not moving.any():
                break
            depth = np.where(moving, depth, 0.0)
            direction = np.where(moving[:, None], shaped / np.where(usable, length, 1.0)[:, None], 0.0)
            centre = centre - ((1 + kinds * depth) / (kinds + 1))[:, None] * direction
            factor = kinds**2 * (1 - depth**2) / (kinds**2 - 1)
            shrink = 2 * (1 + kinds * depth) / ((kinds + 1) * (1 + depth))
            cut = shape - shrink[:, None, None] * direction[:, :, None] * direction[:, None, :]
            shape = np.where(moving[:, None, None], factor[:, None, None] * cut, shape)
        return best * scale

    def __call__(self, block: int, cell: np.ndarray, width: np.ndarray, layers: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Bounds (n,) of partial designs of blocks 0 … block − 1: cell, width index and layers (n,), totals (Q, n)."""
        left = self.cells.layers[cell] - layers
        room = self.cells.limits[:, None] - totals[self.cells.costs]
        completion = self._tables[block][cell, :, width, left] + np.einsum("nmk,kn->nm", self._multipliers[cell], room)
        bound = self.cells.so_far(cell, totals) + completion.min(axis=1)
        return _safe(bound)


def narrow_parts(
    table: Table,
    allowed: list[np.ndarray],
    cells: Cells,
    multipliers: np.ndarray,
    at_least: float,
    lower: np.ndarray,
    upper: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Narrower boxes (C, P) of the parts that still hold every design with an objective of at least `at_least` in its cell.

    For a part p and each sign s, over the designs that keep the budgets and whose affine overestimator g reaches `at_least`:

      s·p ≤ min_{μ ≥ 0, λ ≥ 0} max [ s·p + μ·(g − at_least) + λ·(budget left) ]

    by Lagrangian relaxation of both. λ/μ is tried near `multipliers` (C, K), those of the cell's own bound: a design that makes p
    extreme sells objective for it at that price. A box that comes out empty (lower > upper) holds no such design.
    """
    lower, upper = lower.copy(), upper.copy()
    each, most_layers = np.arange(len(cells.layers)), int(cells.layers.max())
    rows = slice(cells.parts.start, cells.costs.stop)
    parts_fixed = np.where(table.is_max[cells.parts], 0.0, table.fixed[cells.parts])
    room = cells.limits - table.fixed[cells.costs]
    spare = cells.of_nothing(table) - at_least
    size = abs(at_least) or float(np.abs(spare).max()) or 1.0
    for p, sign in product(range(lower.shape[1]), (1.0, -1.0)):
        if table.is_max[cells.parts][p] or not np.any(lower[:, p] < upper[:, p]):
            continue
        # μ's natural size: the part's range over the objective's excess; the true one lies within two orders of it.
        unit = (upper[:, p] - lower[:, p]) / (1e-3 * size)
        exponents = np.linspace(-2.5, 1.5, 5)
        best, grid = np.full(len(each), np.inf), np.tile(exponents, (len(each), 1))
        for _ in range(2):
            price = np.power(10.0, grid)[:, None, :] * np.array(_NARROWING_SPREAD)[None, :, None] * unit[:, None, None]
            weight = np.broadcast_to((np.power(10.0, grid) * unit[:, None])[:, None, :], price.shape)
            weights = np.concatenate(
                (weight[..., None] * cells.coefficients[:, None, None], -price[..., None] * multipliers[:, None, None]), axis=3
            )
            weights[..., p] += sign
            ends = best_designs(table, allowed, most_layers, weights.reshape(-1, weights.shape[3]), rows)
            value = ends.reshape(*price.shape, -1)[each, :, :, cells.layers]
            value = value + sign * parts_fixed[p] + weight * spare[:, None, None] + price * (multipliers @ room)[:, None, None]
            # What is not a number bounds nothing.
            least = np.where(np.isnan(value), np.inf, value).min(axis=1)
            winner = least.argmin(axis=1)
            best = np.minimum(best, least[each, winner])
            grid = grid[each, winner][:, None] + np.array([-0.6, -0.3, 0.3, 0.6])
        end = sign * _safe(best)
        if sign > 0:
            upper[:, p] = np.minimum(upper[:, p], end)
        else:
            lower[:, p] = np.maximum(lower[:, p], end)
    return lower, upper


class ResourceBound:
    """bound = affine value so far + best completion whose *resource*, one weighted sum of the costs, fits what is left.

    The resource is cut into equal steps; the completion's terms and what is left are rounded down, so the bound stays valid
    and has no duality gap beyond that rounding. Where the resource is a single cost of whole numbers whose greatest common
    divisor cuts the budget into at most `steps` steps, nothing is rounded: the bound is the exact optimum of the affine function.

    direction  (K,) weights ≥ 0 of the costs in the resource; all 0 leaves the budgets out
    """

    def __init__(self, table: Table, allowed: list[np.ndarray], cells: Cells, direction: np.ndarray, steps: int) -> None:
        # Terms below 0 cannot be cut into steps of a budget: leave the budgets out.
        rows = cells.costs
        if any((array[rows] < 0).any() for array in (*table.blocks, *table.joints)):
            direction = np.zeros_like(direction)
        room = float(direction @ (cells.limits - table.fixed[cells.costs])) if len(direction) else 0.0
        if room > _LARGEST:
            # A budget that is none: steps of it would overflow.
            direction, room = np.zeros_like(direction), 0.0
        self.cells, self._direction = cells, direction
        self._unit, self._steps = 1.0, 0
        if room > 0:
            divisor = _common_divisor(table, rows, direction)
            self._unit = divisor if divisor and room / divisor < steps else room / steps
            self._steps = int(room / self._unit + 1e-6)
        # What each of the 2N − 1 terms may have been rounded up by.
        self._slack = 2 * table.space.blocks * _WHOLE
        self._fewest, self._tables = self._build(table, allowed)
        root = self._tables[0][np.arange(len(cells.layers)), 0, cells.layers - self._fewest[0], self._steps]
        self.root = _safe(cells.of_nothing(table) + root)

    def _whole(self, cost: np.ndarray) -> np.ndarray:
        """Costs (K, …) as whole steps of the resource, rounded down, cut off beyond the budget."""
        steps = np.floor(np.tensordot(self._direction, cost, axes=1) / self._unit + _WHOLE)
        return np.clip(steps, 0, self._steps + 1).astype(np.intp)

    def _build(self, table: Table, allowed: list[np.ndarray]) -> tuple[list[int], list[np.ndarray]]:
        """Per block i the least number of layers that blocks i … N − 1 may have, and the best value of these blocks.

        Values are (cells, left widths, layers from that least number on, steps + 1) over the steps left.
        """
        space, cells = table.space, self.cells
        shallow = np.array([menu.depths[0] for menu in space.menus])
        deep = np.array([menu.depths[-1] for menu in space.menus])
        count, wide = len(cells.layers), self._steps + 1
        after = np.zeros((count, len(space.menus[-1].widths), 1, wide))
        windows, result = [(0, 0)], [after]
        for block in reversed(range(space.blocks)):
            menu = space.menus[block]
            first, last = windows[-1]
            least = max(int(shallow[block:].sum()), int(cells.layers.min() - deep[:block].sum()))
            most = min(int(deep[block:].sum()), int(cells.layers.max() - shallow[:block].sum()))
            values = cells.coefficients @ _summed(table, cells.parts, table.blocks[block][cells.parts])
            costs = self._whole(table.blocks[block][cells.costs])
            here = np.full((count, len(menu.widths), most - least + 1, wide), -np.inf)
            for item in np.flatnonzero(allowed[block] & (costs <= self._steps)):
                width, depth, cost = menu.width_of[item], int(menu.depth_of[item]), costs[item]
                start, stop = max(least, first + depth), min(most, last + depth) + 1
                if start >= stop:
                    continue
                into = here[:, width, start - least : stop - least, cost:]
                rest = after[:, width, start - depth - first : stop - depth - first, : wide - cost]
                np.maximum(into, rest + values[:, item, None, None], out=into)
            windows.append((least, most))
            if block == 0:
                after = here.max(axis=1, keepdims=True)
            else:
                own = table.joints[block - 1][cells.parts]
                joints = np.tensordot(cells.coefficients, _summed(table, cells.parts, own), axes=1)
                costs = self._whole(table.joints[block - 1][cells.costs])
                after = np.full((count, costs.shape[0], most - least + 1, wide), -np.inf)
                for left, right in np.argwhere(space.steps[block - 1] & (costs <= self._steps)):
                    cost = costs[left, right]
                    into = after[:, left, :, cost:]
                    np.maximum(into, here[:, right, :, : wide - cost] + joints[:, left, right, None, None], out=into)
            result.append(after)
        return [least for least, _ in windows[::-1]], result[::-1]

    def __call__(self, block: int, cell: np.ndarray, width: np.ndarray, layers: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Bounds (n,) of partial designs of blocks 0 … block − 1: cell, width index and layers (n,), totals (Q, n)."""
        table = self._tables[block]
        left = self.cells.layers[cell] - layers - self._fewest[block]
        spare = (
            self._direction @ (self.cells.limits[:, None] - totals[self.cells.costs])
            if len(self._direction)
            else np.zeros(len(cell))
        )
        room = np.clip(np.floor(spare / self._unit + self._slack), -1, self._steps).astype(np.intp)
        possible = (left < table.shape[2]) & (left >= 0) & (room >= 0)
        bound = np.full(len(cell), -np.inf)
        cell, width, left = cell[possible], width[possible], left[possible]
        completion = table[cell, width, left, room[possible]]
        bound[possible] = _safe(self.cells.so_far(cell, totals[:, possible]) + completion)
        return bound


def _common_divisor(table: Table, rows: slice, direction: np.ndarray) -> float:
    """The greatest common divisor of the terms of the one cost that the resource consists of; 0 where there is none."""
    used = np.flatnonzero(direction)
    if len(used) != 1:
        return 0.0
    row = rows.start + int(used[0])
    terms = np.unique(np.concatenate([array[row].ravel() for array in (*table.blocks, *table.joints)]))
    if np.any(terms != np.rint(terms)) or np.abs(terms).max() >= 2**53:
        return 0.0
    return float(direction[used[0]]) * math.gcd(*map(int, terms.tolist()))
