"""Completion bounds for dynamic programming: the most that the blocks still to come can add to a partial design.

A *valuation* gives every menu item and joint a value, so that the value of the remaining blocks adds up and its maximum over
the layered DAG depends on (block, left state, layers left) alone, the state as in `SearchSpace.state_of`. `best_completions`
tabulates that for many valuations at once; `LagrangianBound` prices the budgets into the valuation, `ResourceBound` keeps their
weighted sum as one more state.

All take a `poll`, called many times a second, which may raise Stopped. A LagrangianBound and `narrow_parts` then keep what they
have, since it is valid at any time; the others pass it on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from formulation.table import Table
from solvers.base import Stopped

Poll = Callable[[], object]

_SAFETY = 1e-9
"""Relative amount added to computed bounds, so that rounding cannot cut off the optimum; see also `rounding_of`."""
_NARROWING_SPREAD = (0.9, 1.0, 1.1)
"""Scalings of a cell's multipliers that `narrow_parts` tries."""
_LARGEST = 1e150
"""Multipliers beyond this could overflow in a product with a cost."""
_DIFFERENCE = 1e-6
"""Step of the forward differences of a root bound, whose value and variables are scaled to about 1."""
_CUTS = 18
"""Cuts of the ellipsoid method per budget; half as many where it begins near the end."""
_SEEDS = 16
"""Cells, spread over the depths, whose multipliers are sought first; the search in the others begins between theirs."""
_WHOLE = 1e-9
"""Distance from a whole number of steps that is put down to rounding."""
_CACHE = 1 << 17
"""Numbers in the tables of the valuations that are made at a time: what a processor's cache holds."""


def never() -> None:
    """The poll of work that nothing stops."""


def rounding_of(table: Table, size: np.ndarray) -> np.ndarray:
    """What rounding may do to sums of weighted terms whose magnitudes add up to `size`, where they are made in different ways.

    Some 2N terms are each weighted over R rows and added up, twice: in the bound and in the value that it bounds. Where terms
    cancel, this exceeds any fixed share of the sum.
    """
    operations = 2 * (2 * table.space.blocks + len(table.fixed) + 4)
    with np.errstate(over="ignore"):
        # Finite, so that a bound of −∞ stays one.
        return np.nan_to_num(2 * operations * 2.0**-53 * size, nan=np.finfo(float).max)


def _safe(bound: np.ndarray, rounding: np.ndarray | float) -> np.ndarray:
    """Bounds with the safety and the rounding of their terms added; −∞ stays, and what is not a number bounds nothing."""
    bound = np.where(np.isnan(bound), np.inf, bound)
    return bound + (_SAFETY * np.abs(np.where(np.isfinite(bound), bound, 0.0)) + rounding)


def _summed(table: Table, rows: slice, terms: np.ndarray) -> np.ndarray:
    """`terms` (R, …) of some rows, 0 for the rows that are maxima: these do not add up, and their weight is 0 in every sum."""
    return np.where(table.is_max[rows].reshape(-1, *[1] * (terms.ndim - 1)), 0.0, terms)


def _product(coefficients: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Σ_p coefficients · values over the last axis, where a coefficient of 0 leaves its value out, whatever it is."""
    return (coefficients * np.where(coefficients == 0, 0.0, values)).sum(axis=-1)


@dataclass(frozen=True)
class Cells:
    """The search split by total depth: in cell c designs have `layers[c]` layers and an objective bounded by an affine function.

    Attributes:
        layers: (C,) total depth.
        coefficients: (C, P) of the parts, 0 for parts that are maxima.
        constants: (C,).
        parts: rows of the table that hold the parts of the objective, and of composite budgets, and the budgeted sums.
        costs: rows of the table that hold the parts of the objective, and of composite budgets, and the budgeted sums.
        limits: (K,) of the budgeted sums.
        slopes: (C, J, P) of the parts in J composite budgets: designs that meet them have slopes · parts ≤ rooms.
        rooms: (C, J).
    """

    layers: np.ndarray
    coefficients: np.ndarray
    constants: np.ndarray
    parts: slice
    costs: slice
    limits: np.ndarray
    slopes: np.ndarray
    rooms: np.ndarray

    @staticmethod
    def of_sums(
        layers: np.ndarray, coefficients: np.ndarray, constants: np.ndarray, parts: slice, costs: slice, limits: np.ndarray
    ) -> Cells:
        """Cells where all budgets are on sums."""
        none = np.zeros((len(layers), 0, coefficients.shape[1]))
        return Cells(layers, coefficients, constants, parts, costs, limits, none, none.sum(axis=2))

    def pick(self, which: np.ndarray) -> Cells:
        """Some of the cells."""
        layers, coefficients, constants = self.layers[which], self.coefficients[which], self.constants[which]
        return Cells(layers, coefficients, constants, self.parts, self.costs, self.limits, self.slopes[which], self.rooms[which])

    def priced(self, multipliers: np.ndarray) -> tuple[Cells, np.ndarray]:
        """The cells with their composite budgets priced into the objective, and the multipliers (C, K) of the sums that are left.

        For μ ≥ 0 a design that meets the budgets has objective ≤ affine function + μ · (rooms − slopes · parts).

        Args:
            multipliers: (C, K + J).
        """
        sums, prices = np.split(multipliers, [len(self.limits)], axis=1)
        if not prices.shape[1]:
            return self, multipliers
        coefficients = self.coefficients - np.einsum("cj,cjp->cp", prices, self.slopes)
        constants = self.constants + np.einsum("cj,cj->c", prices, self.rooms)
        return Cells.of_sums(self.layers, coefficients, constants, self.parts, self.costs, self.limits), sums

    def slack(self, number: int, costs: slice, limits: np.ndarray) -> Cells:
        """The cells with the slack of one composite budget in place of the objective, and budgets on sums alone.

        Where it can only be negative no design meets the budget.
        """
        return Cells.of_sums(self.layers, -self.slopes[:, number], self.rooms[:, number], self.parts, costs, limits)

    def room_left(self, cell: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """rooms − slopes · parts of n partial designs, (J, n): cell (n,), totals (Q, n)."""
        used = np.where(np.isfinite(totals[self.parts]), totals[self.parts], 0.0)
        return self.rooms[cell].T - np.einsum("njp,pn->jn", self.slopes[cell], used)

    def rounding(self, table: Table) -> np.ndarray:
        """What rounding may do to affine values (C,) of designs."""
        return rounding_of(table, np.abs(self.constants) + _product(np.abs(self.coefficients), table.sizes[self.parts]))

    def ceiling(self, lower: np.ndarray, upper: np.ndarray, table: Table) -> np.ndarray:
        """The most (C,) that the affine functions reach in the boxes lower, upper (C, P) of the parts: a bound without a search."""
        corner = np.where(self.coefficients > 0, upper, lower)
        return _safe(self.constants + _product(self.coefficients, corner), self.rounding(table))

    def so_far(self, cell: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Affine value of the parts that n partial designs have gathered: cell (n,), totals (Q, n) to (n,)."""
        used = np.where(self.coefficients[cell].T == 0, 0.0, totals[self.parts])
        return self.constants[cell] + np.einsum("np,pn->n", self.coefficients[cell], used)

    def of_nothing(self, table: Table) -> np.ndarray:
        """Affine value (C,) of the terms that every design has: where partial designs begin."""
        return self.so_far(np.arange(len(self.layers)), np.repeat(table.fixed[:, None], len(self.layers), axis=1))


def best_completions(
    table: Table, allowed: list[np.ndarray], most_layers: int, weights: np.ndarray, rows: slice, poll: Poll = never
) -> list[np.ndarray]:
    """The largest value of blocks i … N − 1 for V valuations weights (V, R) · table rows (R).

    Args:
        allowed: per block a bool array: items that may be used.

    Entry i of the result is an array (V, states of block i − 1, most_layers + 1) over the exact number of layers in those
    blocks, −∞ where no completion exists; entry 0 has one left state, the last entry is 0 for 0 layers.
    """
    backward = _backward(table, allowed, most_layers, weights, rows, poll)
    return [_padded(after, most_layers) for after in backward][::-1]


def best_designs(
    table: Table,
    allowed: list[np.ndarray],
    most_layers: int,
    weights: np.ndarray,
    rows: slice,
    poll: Poll = never,
    maximum: bool = False,
) -> np.ndarray:
    """Entry 0 of `best_completions` without its left state: the largest value of whole designs, (V, most_layers + 1).

    Args:
        maximum: the terms of the single row combine by maximum, for weights of 1, instead of a sum.
    """
    best = np.empty((len(weights), most_layers + 1))
    portion = _portion(table, most_layers)
    for start in range(0, len(weights), portion):
        some = slice(start, start + portion)
        for after in _backward(table, allowed, most_layers, weights[some], rows, poll, maximum):
            last = after
        best[some] = _padded(last, most_layers)[:, 0]
    return best


def _portion(table: Table, most_layers: int) -> int:
    """Valuations whose tables fit the cache."""
    return max(_CACHE // (max(map(len, table.space.state_widths)) * (most_layers + 1)), 1)


def _padded(values: np.ndarray, most_layers: int) -> np.ndarray:
    """Values (V, states, layers up to some) with −∞ for more layers, up to the most."""
    padded = np.full((*values.shape[:2], most_layers + 1), -np.inf)
    padded[:, :, : values.shape[2]] = values
    return padded


def _backward(
    table: Table,
    allowed: list[np.ndarray],
    most_layers: int,
    weights: np.ndarray,
    rows: slice,
    poll: Poll,
    maximum: bool = False,
    per_layer: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """The entries of `best_completions` from the last to the first, each over the layers that its blocks can have at most.

    Args:
        per_layer: (V,) value of each layer: layers then are not counted, and every design is held to have none.
    """
    space = table.space
    join = np.maximum if maximum else np.add
    count = len(weights)
    after = np.full((count, len(space.state_widths[-1]), 1), np.finfo(float).min if maximum else 0.0)
    yield after
    for block in reversed(range(space.blocks)):
        poll()
        arranged, depths = space.arranged[block], space.menus[block].all_depths
        own = table.blocks[block][rows][:, arranged.ravel()]
        values = (weights @ (own if maximum else _summed(table, rows, own))).reshape(count, *arranged.shape)
        values[:, ~(allowed[block][arranged] & (arranged >= 0))] = -np.inf
        by_depth = values.max(axis=2)
        if per_layer is not None:
            by_depth, depths = (by_depth + per_layer[:, None, None] * depths).max(axis=2, keepdims=True), (0,)
        before = after.shape[2] - 1
        reach = min(before + depths[-1], most_layers)
        here = np.full((count, len(arranged), reach + 1), -np.inf)
        for index, depth in enumerate(depths):
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
        own, step = table.joints[block - 1][rows], space.steps[block - 1]
        if table.without_joints[block - 1][rows].all():
            joints = np.broadcast_to(-np.inf if maximum else 0.0, (count, *step.shape))
        else:
            joints = np.tensordot(weights, own if maximum else _summed(table, rows, own), axes=1)
        after = np.full((count, joints.shape[1], reach + 1), -np.inf)
        for right in range(len(arranged)):
            for span in space.lefts[block - 1][right]:
                value, rest = joints[:, span, right, None], here[:, right, None]
                joined = join(value, rest)
                if maximum:
                    joined[np.broadcast_to(np.isneginf(rest), joined.shape)] = -np.inf
                np.maximum(after[:, span], joined, out=after[:, span])
        yield after


def depth_boxes(
    table: Table, allowed: list[np.ndarray], layers_row: int, parts: slice, poll: Poll = never
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The total depths D of designs, at least 1, and the least and largest value of some rows among the designs of each depth.

    Args:
        layers_row: row of the table that holds the number of layers.
        parts: rows to bound.

    Returns depths (D,), lower and upper (D, rows). For a row that is a maximum the lower end is a valid bound, not the least.
    """
    most_layers = sum(menu.all_depths[-1] for menu in table.space.menus)
    possible = best_designs(table, allowed, most_layers, np.zeros((1, 1)), slice(layers_row, layers_row + 1), poll)[0]
    depths = np.flatnonzero(np.isfinite(possible))
    depths = depths[depths > 0]  # without a layer it is not a design
    lower, upper = np.empty((2, len(depths), parts.stop - parts.start))
    for p, row in enumerate(range(parts.start, parts.stop)):
        one = slice(row, row + 1)
        fixed = table.fixed[row]
        if table.is_max[row]:
            high = best_designs(table, allowed, most_layers, np.ones((1, 1)), one, poll, maximum=True)[0, depths]
            lower[:, p] = max(fixed, *(block[row].min() for block in table.blocks))
            upper[:, p] = np.maximum(high, fixed)
        else:
            ends = best_designs(table, allowed, most_layers, np.array([[-1.0], [1.0]]), one, poll)[:, depths]
            lower[:, p], upper[:, p] = fixed - ends[0], fixed + ends[1]
    return depths, lower, upper


class LagrangianBound:
    """bound = affine value so far + min_λ [ best completion of (coefficients·parts − λ·costs) + λ·(budget left) ].

    Valid for every λ ≥ 0 (Lagrangian relaxation of the budgets). Per cell λ is sought so that the root bound is small;
    completions are then kept for a few scalings of it. A search that is stopped leaves the least bound met, ∞ if there isn't one.

    Attributes:
        root: (C,) bound on all designs of the cell.
        best_multipliers: (C, K) λ of that bound.
    """

    _SPREAD = (1.0, 0.6, 0.8, 0.9, 1.1, 1.25, 1.6)

    def __init__(
        self,
        table: Table,
        allowed: list[np.ndarray],
        cells: Cells,
        near: np.ndarray | None = None,
        poll: Poll = never,
        enough: float = -np.inf,
    ) -> None:
        """See the class.

        Args:
            near: multipliers (cells, K) to begin the search at, as those of a similar bound.
            enough: a cell whose root bound is no larger is closed, and its bound is not sought any further.
        """
        self._table, self._allowed, self.cells, self._poll, self._enough = table, allowed, cells, poll, enough
        self._rows = slice(cells.parts.start, cells.costs.stop)
        self._room = cells.limits - table.fixed[cells.costs]
        every, fixed = np.arange(len(cells.layers)), np.repeat(table.fixed[:, None], len(cells.layers), axis=1)
        self._own_room = cells.room_left(every, fixed).T
        self._rounding = cells.rounding(table)
        # What rounding may do to one unit of each multiplier's part in a bound.
        self._per_multiplier = rounding_of(table, table.sizes[cells.costs] + np.abs(cells.limits))
        self._own_per_multiplier = rounding_of(table, np.abs(cells.slopes) @ table.sizes[cells.parts] + np.abs(cells.rooms))
        self._fixed = cells.of_nothing(table)
        kinds = len(cells.limits) + cells.rooms.shape[1]
        self.root = np.full(len(cells.layers), np.inf)
        self.best_multipliers = np.zeros((len(cells.layers), kinds))
        try:
            if kinds > 1:
                self._search_all(near)
            elif kinds:
                self._line_search()
            open_ = self._open()
            self._roots(open_, self._spread(open_))
        except Stopped:
            pass

    def _open(self) -> np.ndarray:
        """The numbers of the cells that are not closed yet."""
        return np.flatnonzero(self.root > self._enough)

    def _spread(self, cell: np.ndarray) -> np.ndarray:
        """The multipliers (n, M, K) for which completions are kept."""
        spread = self._SPREAD if self.best_multipliers.shape[1] else self._SPREAD[:1]
        return self.best_multipliers[cell, None] * np.array(spread)[None, :, None]

    def restricted(self, which: np.ndarray) -> LagrangianBound:
        """The same bound of some of the cells."""
        few = copy(self)
        few.cells = self.cells.pick(which)
        few.root, few.best_multipliers = self.root[which], self.best_multipliers[which]
        few._rounding, few._fixed = self._rounding[which], self._fixed[which]
        few._own_room, few._own_per_multiplier = self._own_room[which], self._own_per_multiplier[which]
        few.__dict__.pop("_kept", None)
        return few

    def bytes_per_cell(self) -> int:
        """Bytes of the tables of completions of one cell, roughly."""
        states = sum(map(len, self._table.space.state_widths))
        return 8 * len(self._SPREAD) * states * (int(self.cells.layers.max()) + 1)

    @cached_property
    def _kept(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Multipliers (cells, M, K) and the completions (cells, M, left states, layers + 1) per block: made at the first call."""
        multipliers = self._spread(np.arange(len(self.cells.layers)))
        weights = self._weights(np.arange(len(self.cells.layers)), multipliers)
        most = int(self.cells.layers.max())
        tables = best_completions(self._table, self._allowed, most, weights, self._rows, self._poll)
        return multipliers, [array.reshape(*multipliers.shape[:2], *array.shape[1:]) for array in tables]

    def _weights(self, cell: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
        """The valuations of multipliers (n, M, K + J) in the cells (n,), in the order of (n, M)."""
        sums, prices = np.split(multipliers, [len(self.cells.limits)], axis=2)
        values = np.repeat(self.cells.coefficients[cell][:, None], multipliers.shape[1], axis=1)
        if prices.shape[2]:
            values -= np.einsum("nmj,njp->nmp", prices, self.cells.slopes[cell])
        weights = np.concatenate((values, -sums), axis=2)
        return weights.reshape(-1, weights.shape[2])

    def _weighed(self, cell: np.ndarray, multipliers: np.ndarray, common: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Multipliers (n, M, K + J) of the cells (n,) times what is common to all cells (K,) and what is a cell's own (C, J)."""
        sums, prices = np.split(multipliers, [len(common)], axis=2)
        total = sums @ common
        return total + np.einsum("nmj,nj->nm", prices, own[cell]) if prices.shape[2] else total

    def _roots(self, cell: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
        """Root bounds (n, M) of n cells for multipliers (n, M, K), fixed terms and safety left out; the least are kept."""
        roots = np.empty(multipliers.shape[:2])
        # Cells of similar depth at a time, so that the tables of shallow ones are small.
        order = np.argsort(self.cells.layers[cell], kind="stable")
        start = 0
        while start < len(order):
            portion = max(_portion(self._table, int(self.cells.layers[cell[order[start]]])) // multipliers.shape[1], 1)
            some = order[start : start + portion]
            start += portion
            layers, tried = self.cells.layers[cell[some]], multipliers[some]
            weights = self._weights(cell[some], tried)
            ends = best_designs(self._table, self._allowed, int(layers.max()), weights, self._rows, self._poll)
            values = ends.reshape(*tried.shape[:2], -1)[np.arange(len(some)), :, layers]
            values = values + self._weighed(cell[some], tried, self._room, self._own_room)
            roots[some] = values
            self._keep(cell[some], tried, values)
        return roots

    def _keep(self, cell: np.ndarray, multipliers: np.ndarray, values: np.ndarray, more: np.ndarray | float = 0.0) -> None:
        """Note the root bounds (n, M) where they are the least so far; more: further rounding in them."""
        priced = self._weighed(cell, multipliers, self._per_multiplier, self._own_per_multiplier)
        rounding = np.nan_to_num(self._rounding[cell, None] + priced + more)
        bounds = _safe(self._fixed[cell, None] + values, rounding)
        each, winner = np.arange(len(cell)), bounds.argmin(axis=1)
        better = bounds[each, winner] < self.root[cell]
        self.root[cell[better]] = bounds[each, winner][better]
        self.best_multipliers[cell[better]] = multipliers[each, winner][better]

    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        """`_sizes` of the root bounds without prices."""
        cells, kinds = self.best_multipliers.shape
        return self._sizes(np.abs(self._roots(np.arange(cells), np.zeros((cells, 1, kinds))))[:, 0])

    def _sizes(self, stake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value at stake (cells,), and a natural size (cells, K) of the multipliers.

        That size is the stake over the budget left, or over what the budget's dearest term exceeds the cheapest by where nothing is
        left. What is left counts from the least that the blocks can use, since terms may be negative.
        """
        stake = np.where(np.isfinite(stake) & (stake > 0), stake, 1.0)
        sizes = []
        room = self._room - _negative_terms(self._table, self.cells.costs).sum(axis=1)
        terms = [array[self.cells.costs] for array in self._table.blocks]
        sizes.append(np.broadcast_to(_budget_size(room, terms), (len(stake), len(room))))
        if self.cells.slopes.shape[1]:
            terms = [
                self.cells.slopes @ _summed(self._table, self.cells.parts, own[self.cells.parts]) for own in self._table.blocks
            ]
            room = self._own_room - np.sum([np.minimum(own.min(axis=2), 0.0) for own in terms], axis=0)
            sizes.append(_budget_size(room, terms))
        size = np.concatenate(sizes, axis=1)
        return stake, stake[:, None] / np.maximum(size, stake[:, None] / _LARGEST)

    def _line_search(self) -> None:
        """Multipliers (cells, 1) with a small root bound: a grid refined around its best point."""
        scale = self._scale()[1]
        grid = np.tile(np.concatenate(([0.0], np.geomspace(0.1, 3.0, 8))), (len(scale), 1))
        for _ in range(3):
            open_ = self._open()
            each, own = np.arange(len(open_)), grid[open_]
            winner = self._roots(open_, (own * scale[open_])[:, :, None]).argmin(axis=1)
            left = own[each, np.maximum(winner - 1, 0)]
            right = own[each, np.minimum(winner + 1, own.shape[1] - 1)]
            refined = np.empty((len(scale), 7))
            refined[open_] = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 7)
            grid = refined

    def _search_all(self, near: np.ndarray | None) -> None:
        """Multipliers (cells, K), K ≥ 2, with a small root bound; near: multipliers to begin at."""
        cells, kinds = self.best_multipliers.shape
        if near is None and cells > 4 * _SEEDS:
            near = self._near_seeds()
        stake, scale = self._scale()
        centres = np.full((cells, kinds), 0.5) if near is None else near / scale
        steps = _CUTS if near is None else _CUTS // 2

        def roots(own: np.ndarray, points: np.ndarray) -> np.ndarray:
            return self._roots(own, points * scale[own, None]) / stake[own, None]

        self._ellipsoids(roots, centres, 2.0 if near is None else 0.2, steps * kinds, kinds)

    def _near_seeds(self) -> np.ndarray:
        """Multipliers (cells, K) at which to begin: those of some cells where the depth has a price, too, which is quick."""
        order = np.argsort(self.cells.layers, kind="stable")
        seeds = order[np.linspace(0, len(order) - 1, _SEEDS).round().astype(int)]
        everything, kinds = np.arange(len(order)), self.best_multipliers.shape[1]
        stake = np.abs(self._priced_depth(everything, np.zeros((len(order), 1, kinds + 1))))[:, 0]
        stake, size = self._sizes(stake)
        scale = np.column_stack((size, stake / np.maximum(self.cells.layers, 1)))

        def roots(own: np.ndarray, points: np.ndarray) -> np.ndarray:
            cell = seeds[own]
            return self._priced_depth(cell, points * scale[cell, None]) / stake[cell, None]

        points, layers = np.tile(np.append(np.full(kinds, 0.5), 0.0), (_SEEDS, 1)), self.cells.layers[seeds]
        for radius in (2.0, 0.5):
            points = self._ellipsoids(roots, points, radius, _CUTS // 3 * (kinds + 1), kinds)
            best = points * scale[seeds]
            prices = np.column_stack([np.interp(self.cells.layers, layers, price) for price in best.T])
            self._priced_depth(everything, prices[:, None])
        return prices[:, :kinds]

    def _priced_depth(self, cell: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Root bounds (n, M) as of `_roots` for prices (n, M, K + 1), the last of which, of any sign, is that of a layer.

        max [ coefficients·parts − λ·costs + ν·(layers − depth) ] over designs of any depth: a little larger, and much quicker.
        """
        multipliers, per_layer = prices[..., :-1], prices[..., -1]
        weights = self._weights(cell, multipliers)
        values = np.empty(len(weights))
        portion = max(_CACHE // max(len(menu) for menu in self._table.space.menus), 1)
        for start in range(0, len(values), portion):
            some = slice(start, start + portion)
            valued = weights[some], self._rows, self._poll
            for after in _backward(self._table, self._allowed, 0, *valued, per_layer=per_layer.ravel()[some]):
                last = after
            values[some] = last[:, 0, 0]
        left = self._weighed(cell, multipliers, self._room, self._own_room)
        roots = values.reshape(per_layer.shape) - per_layer * self.cells.layers[cell, None] + left
        most = self._table.space.blocks * max(menu.all_depths[-1] for menu in self._table.space.menus)
        self._keep(cell, multipliers, roots, rounding_of(self._table, 2 * most * np.abs(per_layer)))
        return roots

    def _ellipsoids(
        self,
        roots: Callable[[np.ndarray, np.ndarray], np.ndarray],
        centres: np.ndarray,
        radius: float,
        cuts: int,
        kinds: int,
    ) -> np.ndarray:
        """Points (n, D) where each of n convex functions is small, by the ellipsoid method with deep cuts (Bland et al. 1981).

        The root bound is convex and piecewise linear, and searches along coordinates get stuck in its kinks. Its slope comes from
        forward differences, with values and points scaled to about 1.

        Args:
            roots: values (m, M) of the functions numbered (m,) at points (m, M, D).
            centres: (n, D) to begin at; radius  that of the first ellipsoids.
            kinds: coordinates that must not be negative, the first ones.
        """
        count, dimensions = centres.shape
        centres = centres.copy()
        shapes = np.tile(np.eye(dimensions) * radius**2 * dimensions, (count, 1, 1))
        best, leasts = centres.copy(), np.full(count, np.inf)
        steps = np.concatenate((np.zeros((1, dimensions)), _DIFFERENCE * np.eye(dimensions)))
        going = np.ones(count, dtype=bool)
        for _ in range(cuts):
            if count == len(self.root):
                going &= self.root > self._enough
            own = np.flatnonzero(going)
            if not len(own):
                break
            centre, shape = centres[own], shapes[own]
            point = centre.copy()
            point[:, :kinds] = np.maximum(point[:, :kinds], 0.0)
            values = roots(own, point[:, None] + steps)
            value = values[:, 0]
            best[own] = np.where((value < leasts[own])[:, None], point, best[own])
            leasts[own] = least = np.fmin(leasts[own], value)
            slope = (values[:, 1:] - value[:, None]) / _DIFFERENCE
            # Outside the orthant the cut is the most violated sign constraint.
            outside = centre[:, :kinds].min(axis=1)
            axis = np.eye(dimensions)[centre[:, :kinds].argmin(axis=1)]
            slope = np.where(outside[:, None] < 0, -axis, slope)
            excess = np.where(outside < 0, -outside, value - least)
            shaped = np.einsum("cij,cj->ci", shape, slope)
            length = np.sqrt(np.maximum(np.einsum("ci,ci->c", slope, shaped), 0.0))
            usable = np.isfinite(length) & (length > 1e-12) & np.isfinite(value)
            depth = np.where(usable, excess / np.where(usable, length, 1.0), 1.0)
            moving = usable & (depth < 1)
            depth = np.where(moving, depth, 0.0)
            direction = np.where(moving[:, None], shaped / np.where(usable, length, 1.0)[:, None], 0.0)
            centres[own] = centre - ((1 + dimensions * depth) / (dimensions + 1))[:, None] * direction
            factor = dimensions**2 * (1 - depth**2) / (dimensions**2 - 1)
            shrink = 2 * (1 + dimensions * depth) / ((dimensions + 1) * (1 + depth))
            cut = shape - shrink[:, None, None] * direction[:, :, None] * direction[:, None, :]
            shapes[own] = factor[:, None, None] * cut
            going[own] = moving
        return best

    def __call__(self, block: int, cell: np.ndarray, state: np.ndarray, layers: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Bounds (n,) of partial designs of blocks 0 … block − 1: cell, state and layers (n,), totals (Q, n)."""
        left = self.cells.layers[cell] - layers
        room = self.cells.limits[:, None] - totals[self.cells.costs]
        if self.cells.rooms.shape[1]:
            room = np.concatenate((room, self.cells.room_left(cell, totals)))
        multipliers, tables = self._kept
        completion = tables[block][cell, :, state, left] + np.einsum("nmk,kn->nm", multipliers[cell], room)
        bound = self.cells.so_far(cell, totals) + completion.min(axis=1)
        priced = self._weighed(np.arange(len(multipliers)), multipliers, self._per_multiplier, self._own_per_multiplier)
        rounding = np.nan_to_num(self._rounding + priced.max(axis=1, initial=0.0))
        return _safe(bound, rounding[cell])


def narrow_parts(
    table: Table,
    allowed: list[np.ndarray],
    cells: Cells,
    multipliers: np.ndarray,
    at_least: float,
    lower: np.ndarray,
    upper: np.ndarray,
    poll: Poll = never,
) -> tuple[np.ndarray, np.ndarray]:
    """Narrower boxes (C, P) of the parts that still hold every design with an objective of at least `at_least` in its cell.

    For a part p and each sign s, over the designs that meet the budgets and whose affine overestimator g reaches `at_least`:

        s·p ≤ min_{μ ≥ 0, λ ≥ 0} max [ s·p + μ·(g − at_least) + λ·(budget left) ]

    by Lagrangian relaxation of both. λ/μ is tried near `multipliers` (C, K), those of the cell's own bound: a design that makes p
    extreme sells objective for it at that price. A box that comes out empty (lower > upper) holds no such design. Where `poll`
    raises Stopped, the parts that are left keep their ranges.
    """
    cells, multipliers = cells.priced(multipliers)
    lower, upper = lower.copy(), upper.copy()
    each, most_layers = np.arange(len(cells.layers)), int(cells.layers.max())
    rows = slice(cells.parts.start, cells.costs.stop)
    parts_fixed = np.where(table.is_max[cells.parts], 0.0, table.fixed[cells.parts])
    room = cells.limits - table.fixed[cells.costs]
    affine = cells.rounding(table) + rounding_of(table, np.abs(at_least))
    spare = cells.of_nothing(table) - at_least + affine
    size = abs(at_least) or float(np.abs(spare).max()) or 1.0
    priced = multipliers @ rounding_of(table, table.sizes[cells.costs] + np.abs(cells.limits))
    for p, sign in product(range(lower.shape[1]), (1.0, -1.0)):
        if table.is_max[cells.parts][p] or not np.any(lower[:, p] < upper[:, p]):
            continue
        # μ's natural size: the part's range over the objective's excess; the true one lies within two orders of it.
        unit = (upper[:, p] - lower[:, p]) / (1e-3 * size)
        exponents = np.linspace(-2.5, 1.5, 5)
        best, grid = np.full(len(each), np.inf), np.tile(exponents, (len(each), 1))
        own = float(rounding_of(table, table.sizes[cells.parts][p]))
        try:
            for _ in range(2):
                price = np.power(10.0, grid)[:, None, :] * np.array(_NARROWING_SPREAD)[None, :, None] * unit[:, None, None]
                weight = np.broadcast_to((np.power(10.0, grid) * unit[:, None])[:, None, :], price.shape)
                weights = np.concatenate(
                    (weight[..., None] * cells.coefficients[:, None, None], -price[..., None] * multipliers[:, None, None]), axis=3
                )
                weights[..., p] += sign
                ends = best_designs(table, allowed, most_layers, weights.reshape(-1, weights.shape[3]), rows, poll)
                value = ends.reshape(*price.shape, -1)[each, :, :, cells.layers]
                value = value + sign * parts_fixed[p] + weight * spare[:, None, None] + price * (multipliers @ room)[:, None, None]
                value = _safe(value, own + weight * affine[:, None, None] + price * priced[:, None, None])
                least = value.min(axis=1)
                winner = least.argmin(axis=1)
                best = np.minimum(best, least[each, winner])
                grid = grid[each, winner][:, None] + np.array([-0.6, -0.3, 0.3, 0.6])
        except Stopped:
            break
        end = sign * best
        if sign > 0:
            upper[:, p] = np.minimum(upper[:, p], end)
        else:
            lower[:, p] = np.maximum(lower[:, p], end)
    return lower, upper


def _budget_size(room: np.ndarray, terms: Sequence[np.ndarray]) -> np.ndarray:
    """What budgets (…, K) vary by: the room (…, K) that they leave, or their dearest term (…, K, items) where that is nothing."""
    dearest = np.max([(own - np.minimum(own.min(axis=-1, keepdims=True), 0.0)).max(axis=-1) for own in terms], axis=0)
    return np.where(room > 1e-9 * dearest, room, np.where(dearest > 0, dearest, 1.0))


def _negative_terms(table: Table, costs: slice) -> np.ndarray:
    """Per cost the least that each block, and each joint after it, adds where that is below 0: (K, 2N − 1), 0 for others."""
    least = [array[costs].min(axis=tuple(range(1, array.ndim))) for array in (*table.blocks, *table.joints)]
    return np.minimum(np.array(least).T, 0.0)


class ResourceBound:
    """bound = affine value so far + best completion whose *resource*, one weighted sum of the costs, fits what is left.

    The resource is cut into equal steps; the completion's terms and what is left are rounded down, so the bound stays valid
    and has no duality gap beyond that rounding. Where the resource is a single cost of whole numbers whose greatest common
    divisor cuts the budget into at most `steps` steps, nothing is rounded: the bound is the exact optimum of the affine function.
    Terms below 0, of budgets from below, count from the least that their block can add, and so does what is left of the budget.

    Attributes:
        direction: (K,) weights ≥ 0 of the costs in the resource; all 0 leaves the budgets out.
    """

    def __init__(
        self, table: Table, allowed: list[np.ndarray], cells: Cells, direction: np.ndarray, steps: int, poll: Poll = never
    ) -> None:
        rows, count = cells.costs, table.space.blocks
        self._least = _negative_terms(table, rows)
        # What the blocks from i on, and the joints before them, add at least: (K, N + 1).
        per_block = self._least[:, :count].copy()
        per_block[:, 1:] += self._least[:, count:]
        self._to_come = np.column_stack((per_block[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros(len(per_block))))
        room = float(direction @ (cells.limits - table.fixed[rows] - self._to_come[:, 0])) if len(direction) else 0.0
        if room > _LARGEST:
            # A budget that is none: steps of it would overflow.
            direction, room = np.zeros_like(direction), 0.0
        self.cells, self._direction = cells, direction
        self._unit, self._steps = 1.0, 0
        if room > steps * np.finfo(float).tiny:  # of less, a step would be 0
            divisor = _common_divisor(table, rows, direction, self._least)
            self._unit = divisor if divisor and room / divisor < steps else room / steps
            self._steps = int(room / self._unit + 1e-6)
        # What each of the 2N − 1 terms may have been rounded up by.
        self._slack = 2 * table.space.blocks * _WHOLE
        self._rounding = cells.rounding(table)
        self._fewest, self._tables = self._build(table, allowed, poll)
        root = self._tables[0][np.arange(len(cells.layers)), 0, cells.layers - self._fewest[0], self._steps]
        self.root = _safe(cells.of_nothing(table) + root, self._rounding)

    def _whole(self, cost: np.ndarray, least: np.ndarray) -> np.ndarray:
        """Costs (K, …) over the least (K,) as whole steps of the resource, rounded down, cut off beyond the budget."""
        cost = cost - least.reshape(-1, *[1] * (cost.ndim - 1))
        steps = np.floor(np.tensordot(self._direction, cost, axes=1) / self._unit + _WHOLE)
        return np.clip(steps, 0, self._steps + 1).astype(np.intp)

    def _build(self, table: Table, allowed: list[np.ndarray], poll: Poll) -> tuple[list[int], list[np.ndarray]]:
        """Per block i the least number of layers that blocks i … N − 1 may have, and the best value of these blocks.

        Values are (cells, left states, layers from that least number on, steps + 1) over the steps left.
        """
        space, cells = table.space, self.cells
        shallow = np.array([menu.all_depths[0] for menu in space.menus])
        deep = np.array([menu.all_depths[-1] for menu in space.menus])
        count, wide = len(cells.layers), self._steps + 1
        after = np.zeros((count, len(space.state_widths[-1]), 1, wide))
        windows, result = [(0, 0)], [after]
        for block in reversed(range(space.blocks)):
            layers, states = space.menus[block].layers, space.state_of[block]
            first, last = windows[-1]
            least = max(int(shallow[block:].sum()), int(cells.layers.min() - deep[:block].sum()))
            most = min(int(deep[block:].sum()), int(cells.layers.max() - shallow[:block].sum()))
            values = cells.coefficients @ _summed(table, cells.parts, table.blocks[block][cells.parts])
            costs = self._whole(table.blocks[block][cells.costs], self._least[:, block])
            here = np.full((count, len(space.state_widths[block]), most - least + 1, wide), -np.inf)
            for item in np.flatnonzero(allowed[block] & (costs <= self._steps)):
                poll()
                state, depth, cost = states[item], int(layers[item]), costs[item]
                start, stop = max(least, first + depth), min(most, last + depth) + 1
                if start >= stop:
                    continue
                into = here[:, state, start - least : stop - least, cost:]
                rest = after[:, state, start - depth - first : stop - depth - first, : wide - cost]
                np.maximum(into, rest + values[:, item, None, None], out=into)
            windows.append((least, most))
            if block == 0:
                after = here.max(axis=1, keepdims=True)
            else:
                own = table.joints[block - 1][cells.parts]
                joints = np.tensordot(cells.coefficients, _summed(table, cells.parts, own), axes=1)
                costs = self._whole(table.joints[block - 1][cells.costs], self._least[:, space.blocks + block - 1])
                after = np.full((count, costs.shape[0], most - least + 1, wide), -np.inf)
                for left, right in np.argwhere(space.steps[block - 1] & (costs <= self._steps)):
                    poll()
                    cost = costs[left, right]
                    into = after[:, left, :, cost:]
                    np.maximum(into, here[:, right, :, : wide - cost] + joints[:, left, right, None, None], out=into)
            result.append(after)
        return [least for least, _ in windows[::-1]], result[::-1]

    def __call__(self, block: int, cell: np.ndarray, state: np.ndarray, layers: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Bounds (n,) of partial designs of blocks 0 … block − 1: cell, state and layers (n,), totals (Q, n)."""
        table = self._tables[block]
        left = self.cells.layers[cell] - layers - self._fewest[block]
        spare = (
            self._direction @ (self.cells.limits[:, None] - totals[self.cells.costs] - self._to_come[:, block, None])
            if len(self._direction)
            else np.zeros(len(cell))
        )
        room = np.clip(np.floor(spare / self._unit + self._slack), -1, self._steps).astype(np.intp)
        possible = (left < table.shape[2]) & (left >= 0) & (room >= 0)
        bound = np.full(len(cell), -np.inf)
        cell, state, left = cell[possible], state[possible], left[possible]
        completion = table[cell, state, left, room[possible]]
        bound[possible] = _safe(self.cells.so_far(cell, totals[:, possible]) + completion, self._rounding[cell])
        return bound


def _common_divisor(table: Table, rows: slice, direction: np.ndarray, least: np.ndarray) -> float:
    """The greatest common divisor of the terms of the one cost that the resource consists of; 0 if there isn't one."""
    used = np.flatnonzero(direction)
    if len(used) != 1:
        return 0.0
    row = rows.start + int(used[0])
    arrays = [array[row].ravel() for array in (*table.blocks, *table.joints)]
    terms = np.unique(np.concatenate([own - low for own, low in zip(arrays, least[used[0]], strict=True)]))
    if np.any(terms != np.rint(terms)) or np.abs(terms).max() >= 2**53:
        return 0.0
    return float(direction[used[0]]) * math.gcd(*map(int, terms.tolist()))
