"""Fronts of a few chained blocks by enumeration in two halves: quantities of any kind that add up over blocks, or formulas of them.

A *half* is a partial design of the first or of the last blocks. Of the halves that meet the other one in the same state, one that
another equals or betters in every row of the table, in the direction that the quantities ask for, is never needed: what completes
them adds the same to both; and sums, maxima, and formulas that are monotone in their parts, keep the order. What is left is
combined pair by pair, in *tiles* of halves that are alike. The ideal corner of two tiles bounds all of their pairs: where a point
of the front betters the corner, or the corner exceeds a budget, the same holds for all of them. Pairs of tiles come in the order of
what they cost at least, so that the points that rule one out come before it, and a search that is stopped has settled all smaller
costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from formulation import Architecture, Composite, DesignProblem, Quantity, Separable
from formulation.layered import LayeredSpace
from formulation.table import Table, value_range
from solvers.base import Run, Stopped, broken_budgets
from solvers.evaluation import Tabulated, is_tabular
from solvers.fronts.whole import Open, WholeFront

_SPACE = 1 << 38
"""Most designs of a space that is enumerated."""
_QUICK = 1 << 24
"""Designs up to which a search is over before anybody asks for a part of the front."""
_SAMPLED = 1 << 14
"""Random designs scored at the beginning of a longer search."""
_HALVES = 1 << 20
"""Most partial designs of a half, before those that others better are dropped."""
_DESIGNS = 1 << 36
"""Most designs left to combine after that, of which the bounds rule out many or nearly all."""
_COMPARED = 1 << 14
"""Halves compared with each other at a time."""
_PARTS = 4
"""Small tiles of a tile."""
_TILE_PAIRS = 1 << 21
"""Most pairs of tiles, which decides how many halves there are to a tile; at least two to a small one."""
_BOUNDED = 1 << 18
"""Pairs of tiles that are bounded at a time."""
_COMBINED = 1 << 15
"""Designs combined at a time, so that their terms fit a processor's cache."""
_WAITING = 1 << 10
"""Designs that are collected before they are compared with each other and with the known points; more where more are known."""
_CELLS = 1 << 16
"""Cells of the costs for which the best known objective is kept."""
_ROUNDING = 1e-12
"""Share of a row's range by which rounding may change it; where terms cancel it is more, and partial sums do not tell the order."""
_DOUBT = 1e-9
"""Share of a composite budget within which a design is evaluated by the problem itself."""

_Costs = Sequence[np.ndarray] | np.ndarray
"""K arrays, one per cost."""
_Sides = tuple[np.ndarray, np.ndarray]
"""Something of the first half, and of the second."""


def enumerated_front(problem: DesignProblem, run: Run) -> WholeFront | None:
    """The front of a problem whose halves can be enumerated, see `WholeFrontMethod`.

    It suits an objective, costs and budgets that are sums or maxima over blocks, or composites. It gives None where one is a black
    box, where terms cancel or a composite cost has no value for an ideal corner; for more than 2.7·10¹¹ designs, and where a half
    has over 1,048,576 partial designs or over 6.9·10¹⁰ designs are left to combine; and where the memory is too small. So it takes
    four blocks of 390 items, or seven of 60.

    Raises:
        Undefined: naming a quantity and a design for which it has no value.
    """
    tabular = is_tabular(problem) and all(isinstance(cost, Separable | Composite) for cost in problem.minimize)
    if not tabular or problem.space.size > _SPACE:
        return None
    first = np.empty((0, problem.space.blocks), dtype=np.intp)
    try:
        tabulated = Tabulated(problem, run.poll, problem.minimize)
        if problem.space.size > _QUICK:
            first = _sampled(problem, tabulated, run)
        search = _search(problem, run, tabulated)
    except Stopped:
        opened = Open.everything(len(problem.minimize), value_range(problem.goal, problem.space)[1])
        return WholeFront(first, (opened,), f"{run.why_stopped} before the halves of designs were combined")
    return None if search is None else search.front(first)


def _sampled(problem: DesignProblem, tabulated: Tabulated, run: Run) -> np.ndarray:
    """The best of some random designs, choices (n, N): what there is to show where the search is stopped early."""
    choices = problem.space.sample(np.random.default_rng(run.limits.seed), _SAMPLED)
    run.evaluations += len(choices)

    def design(number: int) -> Architecture:
        return problem.space.decode(choices[number].tolist())

    totals = tabulated.table.evaluate(choices)
    kept = tabulated.feasible(totals, design)
    costs = range(len(tabulated.quantities) - len(problem.minimize), len(tabulated.quantities))
    losses = [-tabulated.read(0, totals, design, kept), *(tabulated.read(number, totals, design, kept) for number in costs)]
    some = np.flatnonzero(kept)
    return choices[some[_unbeaten(np.column_stack(losses)[some])]] if len(some) else choices[some]


@dataclass(frozen=True, eq=False)
class _Halves:
    """Partial designs of some neighbouring blocks.

    Attributes:
        chosen: (n, blocks) menu items.
        first: (n,) state of their first block.
        last: (n,) state of their last block.
        layered: (n,) 1 where they have a layer or need none, else 0.
        totals: (rows, n) their terms, combined.
    """

    chosen: np.ndarray
    first: np.ndarray
    last: np.ndarray
    layered: np.ndarray
    totals: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def pick(self, which: np.ndarray) -> _Halves:
        return _Halves(self.chosen[which], self.first[which], self.last[which], self.layered[which], self.totals[:, which])


class _Wanted:
    """In which direction each row of a table is better, as the quantities ask: a row may be wanted large by one, small by another.

    Attributes:
        signs: per quantity +1 or −1 for each of its rows: where it grows with the row.
    """

    def __init__(self, tabulated: Tabulated) -> None:
        self.signs = [_signs(quantity) for quantity in tabulated.quantities]
        large, small = (np.zeros(len(tabulated.table.fixed), dtype=bool) for _ in range(2))
        for number, (rows, signs) in enumerate(zip(tabulated.rows, self.signs, strict=True)):
            rises = signs > 0 if number == 0 else signs < 0
            large[rows] |= rises
            small[rows] |= ~rises
        self._large, self._small = np.flatnonzero(large), np.flatnonzero(small)

    def losses(self, totals: np.ndarray) -> np.ndarray:
        """What is to be minimized (n, criteria) of totals (rows, n)."""
        return np.concatenate((-totals[self._large], totals[self._small])).T


def _signs(quantity: Quantity) -> np.ndarray:
    return np.array(quantity.signs if isinstance(quantity, Composite) else (1,))


def _unbeaten(losses: np.ndarray) -> np.ndarray:
    """Bool (n,): which rows (n, criteria), to be minimized, no other equals or betters in all; of equal rows the first."""
    import moocore

    return moocore.is_nondominated(np.ascontiguousarray(losses), keep_weakly=False)


def _spread(values: np.ndarray) -> np.ndarray:
    """By how much each column of (n, columns) varies, 1 where it does not: what differences are scaled by."""
    spread = np.ptp(values, axis=0)
    return np.where(spread > 0, spread, 1.0)


def _search(problem: DesignProblem, run: Run, tabulated: Tabulated) -> _Search | None:
    """The search of a problem that suits it, None for any other; Stopped where the run ends before there is one."""
    space = problem.space
    table, wanted = tabulated.table, _Wanted(tabulated)
    ends = np.abs(table.extremes).max(axis=0)
    if (table.rounding(slice(None), ends) > _ROUNDING * ends).any():
        return None
    sizes = [len(menu) for menu in space.menus]
    cut = min(range(1, space.blocks), key=lambda block: math.prod(sizes[:block]) + math.prod(sizes[block:]), default=1)
    left = _half(tabulated, wanted, 0, cut, run)
    right = None if left is None else _half(tabulated, wanted, cut, space.blocks, run)
    if left is None or right is None:
        return None
    rows = len(table.fixed)
    kinds_left, kinds_right = 2 * left.last + left.layered, 2 * right.first + right.layered
    if cut < space.blocks:
        step, joints = space.steps[cut - 1], table.joints[cut - 1]
    else:
        step, joints = np.ones((len(space.state_widths[-1]), 1), dtype=bool), np.zeros((rows, len(space.state_widths[-1]), 1))
        joints[table.is_max] = -np.inf
    some_layer = np.array([[False, True], [True, True]])
    allowed = np.kron(step, some_layer)
    counts = [np.bincount(kinds, minlength=n) for kinds, n in zip((kinds_left, kinds_right), allowed.shape, strict=True)]
    designs = int(counts[0].astype(float) @ allowed @ counts[1])
    if designs > _DESIGNS:
        return None
    most = min(_TILE_PAIRS, run.limits.memory // 1024)
    size = max(2, math.isqrt(designs // most) // _PARTS + 1)
    spread = _spread(np.concatenate((left.totals, right.totals), axis=1).T)
    tiles = _tiles(left, kinds_left, size, spread, run), _tiles(right, kinds_right, size, spread, run)
    search = _Search(problem, run, tabulated, wanted, (left, right), tiles, allowed, joints)
    return search if search.prepare() else None


def _half(tabulated: Tabulated, wanted: _Wanted, begin: int, end: int, run: Run) -> _Halves | None:
    """What is needed of the partial designs of blocks begin … end − 1; None where they are too many.

    Those of the first blocks, which begin at 0, meet the rest with their last state, the others with their first.
    """
    table, space = tabulated.table, tabulated.table.space
    if begin == end:
        return _nothing(table)
    first = space.state_of[begin] if begin else np.zeros(len(space.menus[0]), dtype=np.intp)
    layered = _layered(space, begin)
    items = np.arange(len(first))
    halves = _Halves(items[:, None], first, space.state_of[begin], layered, table.blocks[begin] if begin else table.start())
    for block in range(begin, end):
        if block > begin:
            step = space.steps[block - 1]
            following = step @ np.bincount(space.state_of[block], minlength=step.shape[1])
            count = int(following[halves.last].sum())
            if count > _HALVES or 64 * count * len(table.fixed) > run.limits.memory:
                return None
            parents, items, totals = table.extend(block, halves.last, halves.totals)
            chosen = np.column_stack((halves.chosen[parents], items))
            layered = halves.layered[parents] | _layered(space, block)[items]
            halves = _Halves(chosen, halves.first[parents], space.state_of[block][items], layered, totals)
        halves = _needed(halves, wanted, block + 1 == space.blocks and begin > 0, run)
    return halves


def _nothing(table: Table) -> _Halves:
    """The second half of a single block: one partial design without blocks, which adds nothing."""
    zero = np.zeros(1, dtype=np.intp)
    totals = np.where(table.is_max, table.blocks[0].min(axis=1), 0.0)[:, None]
    return _Halves(np.empty((1, 0), dtype=np.intp), zero, zero, zero + (not table.space.may_be_empty), totals)


def _layered(space: LayeredSpace, block: int) -> np.ndarray:
    """Per item 1 if it has a layer, or no design can be without one, else 0."""
    return ((space.menus[block].layers > 0) | (not space.may_be_empty)).astype(np.intp)


def _needed(halves: _Halves, wanted: _Wanted, complete: bool, run: Run) -> _Halves:
    """The halves that no other of the same states equals or betters; `complete`: what their last state is does not matter."""
    keys = np.stack((halves.first, halves.last * (not complete), halves.layered))
    order = np.lexsort(keys)
    starts = np.flatnonzero(np.any(np.diff(keys[:, order], axis=1), axis=0)) + 1
    kept = []
    for group in np.split(order, starts):
        losses = wanted.losses(halves.totals[:, group])
        if len(group) > _COMPARED:
            # Only some are compared with each other at a time, those alike first: those that others better are no fault.
            best = np.argsort((losses / _spread(losses)).sum(axis=1), kind="stable")
            group, losses = group[best], losses[best]
        for start in range(0, len(group), _COMPARED):
            run.poll()
            some = slice(start, start + _COMPARED)
            kept.append(group[some][_unbeaten(losses[some])])
    return halves.pick(np.sort(np.concatenate(kept)))


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Halves of the same kind, which is their state and whether they have a layer, in T tiles of `_PARTS` small ones each.

    Attributes:
        kinds: (T,).
        members: (size, T · _PARTS) numbers of halves by small tile; where one has fewer, its last stands for what lacks.
        sizes: (_PARTS, T) how many different ones each small tile has; 0 for one that a tile lacks.
        terms: (T · _PARTS, rows, size) totals of the halves.
        small: (T, 2, rows, _PARTS) the least and the greatest of them in each small tile.
        large: (T, 2, rows, 1) the same in each tile.
    """

    kinds: np.ndarray
    members: np.ndarray
    sizes: np.ndarray
    terms: np.ndarray
    small: np.ndarray
    large: np.ndarray


def _tiles(halves: _Halves, kinds: np.ndarray, size: int, spread: np.ndarray, run: Run) -> _Tiles:
    """The halves of each kind split again and again where they differ most, in units of `spread` (rows,), down to a small size."""
    scaled = halves.totals / spread[:, None]

    def split(group: np.ndarray, size: int) -> Iterator[np.ndarray]:
        if len(group) <= size:
            yield group
            return
        run.poll()
        own = scaled[:, group]
        row = own[int(np.ptp(own, axis=1).argmax())]
        half = size * max(len(group) // (2 * size), 1)
        order = np.argpartition(row, half)
        yield from split(group[order[:half]], size)
        yield from split(group[order[half:]], size)

    tiles = [tile for kind in np.unique(kinds) for tile in split(np.flatnonzero(kinds == kind), _PARTS * size)]
    parts = [list(split(tile, size)) for tile in tiles]
    sizes = np.array([[len(part) for part in own] + [0] * (_PARTS - len(own)) for own in parts]).T
    full = [part for own in parts for part in (*own, *[own[-1]] * (_PARTS - len(own)))]
    members = np.stack([np.pad(part, (0, size - len(part)), mode="edge") for part in full], axis=1)
    terms = halves.totals[:, members.T].swapaxes(0, 1).copy()
    ends = np.stack((terms.min(axis=2), terms.max(axis=2)), axis=1).reshape(len(tiles), _PARTS, 2, -1)
    small = np.moveaxis(ends, 1, 3).copy()
    large = np.stack((small[:, 0].min(axis=2, keepdims=True), small[:, 1].max(axis=2, keepdims=True)), axis=1)
    return _Tiles(kinds[members[0, ::_PARTS]], members, sizes, terms, small, large)


class _Known:
    """The designs found so far that no other betters, and for cells of the costs the best objective that they reach within them.

    Attributes:
        values: (n, 1 + K) negative objective and costs, so that less is better.
        pairs: (n, 2) the halves of each.

    Args:
        low: (K,) the least that designs cost.
        high: (K,) the most.
        whole: bool (K,) costs that are whole numbers.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, whole: np.ndarray) -> None:
        self.values, self.pairs = np.empty((0, 1 + len(low))), np.empty((0, 2), dtype=np.intp)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._low, ranges, left = low, high - low, _CELLS
        self._sizes, self._scales = np.ones(len(low), dtype=np.intp), np.zeros(len(low))
        # Below 0 many costs may be equally far from the least one up to rounding, which are not equal.
        self._merged = low < 0
        # Whole numbers of a small range have a cell each; the others share what is left.
        for done, k in enumerate(np.argsort(np.where(whole, ranges, np.inf), kind="stable")):
            share = max(int(left ** (1 / (len(low) - done))), 2)
            each = bool(whole[k]) and ranges[k] < share
            if ranges[k] > 0:
                self._sizes[k] = ranges[k] + 1 if each else share
                self._scales[k] = 1.0 if each else (share - 1) / ranges[k]
                self._merged[k] &= not each
            left = max(left // int(self._sizes[k]), 1)
        self._best = np.full(int(self._sizes.prod()), -np.inf)

    def best(self, costs: _Costs) -> np.ndarray:
        """The best objective of a design known to cost no more than each of n designs, or one like it, −∞ where there is none.

        Args:
            costs: K arrays (n,), none of which is below `low` or above `high` by more than rounding.
        """
        with np.errstate(invalid="ignore"):  # of designs that do not matter
            places = [
                ((own - low) * scale).astype(np.int32) for own, low, scale in zip(costs, self._low, self._scales, strict=True)
            ]
        cells = places[0]
        for place, size in zip(places[1:], self._sizes[1:].tolist(), strict=True):
            cells *= size
            cells += place
        return self._best.take(cells, mode="clip")

    def add(self, objectives: np.ndarray, costs: _Costs, pairs: np.ndarray) -> None:
        """Take in designs: objectives (n,), costs K times (n,), halves (n, 2)."""
        self._waiting.append((np.column_stack((-objectives, *costs)), pairs))
        if sum(len(values) for values, _ in self._waiting) >= max(_WAITING, len(self.values)):
            self.compare()

    def compare(self) -> None:
        """Compare what was taken in with each other and with what was there."""
        values, pairs = zip((self.values, self.pairs), *self._waiting, strict=True)
        self.values, self.pairs, self._waiting = np.concatenate(values), np.concatenate(pairs), []
        kept = _unbeaten(self.values) if len(self.values) else slice(None)
        self.values, self.pairs = self.values[kept], self.pairs[kept]
        # A design is within the cells that begin at its costs or above them; where some costs are merged above them.
        places = (self.values[:, 1:] - self._low) * self._scales
        places = np.where(self._merged, np.floor(places) + 1, np.ceil(places))
        inside = np.all(places < self._sizes, axis=1)
        best = np.full(tuple(self._sizes), -np.inf)
        np.maximum.at(best, tuple(np.maximum(places[inside], 0).astype(np.intp).T), -self.values[inside, 0])
        for axis in range(best.ndim):
            np.maximum.accumulate(best, axis=axis, out=best)
        self._best = best.ravel()


class _Search:
    """The pairs of tiles that are not ruled out, in the order in which they are combined.

    Attributes:
        bounds: (P,) the most that the objective is in a pair of tiles.
        least: (K, P) the least that its designs cost.
        which: (2, P) its tiles.
        known: the front so far.
    """

    def __init__(
        self,
        problem: DesignProblem,
        run: Run,
        tabulated: Tabulated,
        wanted: _Wanted,
        halves: tuple[_Halves, _Halves],
        tiles: tuple[_Tiles, _Tiles],
        allowed: np.ndarray,
        joints: np.ndarray,
    ) -> None:
        self.problem, self.run, self.tabulated, self.halves, self.tiles = problem, run, tabulated, halves, tiles
        self.signs, self.allowed, self.joints = wanted.signs, allowed, np.moveaxis(joints, 0, 2).copy()
        self.budgets = range(1, 1 + len(tabulated.limits))
        self.costs = range(1 + len(tabulated.limits), len(tabulated.rows))
        # What the problem evaluates may differ by so much from what is used by the table.
        self.margins = [
            _DOUBT * abs(limit) if isinstance(quantity, Composite) else float(tabulated.table.rounding(rows, limit[None])[0])
            for quantity, rows, limit in zip(tabulated.quantities[1:], tabulated.rows[1:], tabulated.limits, strict=False)
        ]
        self.bounds: np.ndarray
        self.least: np.ndarray
        self.which: np.ndarray
        self.known: _Known

    def prepare(self) -> bool:
        """Bound all pairs of tiles; False where a cost has no value in a corner."""
        left, right = self.tiles
        large = left.large, right.large
        bounds, least, which = [], [], []
        low, high = np.full(len(self.costs), np.inf), np.full(len(self.costs), -np.inf)
        for kind in np.unique(left.kinds):
            lefts, rights = np.flatnonzero(left.kinds == kind), np.flatnonzero(self.allowed[kind, right.kinds])
            portion = max(_BOUNDED // max(len(rights), 1), 1)
            for start in range(0, len(lefts) if len(rights) else 0, portion):
                self.run.poll()
                pair = np.stack([each.ravel() for each in np.meshgrid(lefts[start : start + portion], rights, indexing="ij")])
                ends = self._facing(large, pair, pair)
                bound, costs = self._ideal(ends)
                most = np.stack([self._corner(number, 1, ends) for number in self.costs])
                if not (np.isfinite(costs).all() and np.isfinite(most).all()):
                    return False
                low, high = np.minimum(low, costs.min(axis=1)), np.maximum(high, most.max(axis=1))
                open_ = bound > -np.inf
                bounds.append(bound[open_])
                least.append(costs[:, open_])
                which.append(pair[:, open_])
        self.bounds, self.least, self.which = np.concatenate(bounds), np.concatenate(least, axis=1), np.concatenate(which, axis=1)
        scaled = (self.least - low[:, None]) / _spread(np.stack((low, high)))[:, None]
        order = np.argsort(scaled.sum(axis=0), kind="stable")
        self.bounds, self.least, self.which = self.bounds[order], self.least[:, order], self.which[:, order]
        self.known = _Known(low, high, self._whole())
        return True

    def _facing(self, terms: _Sides, which: np.ndarray, pair: np.ndarray) -> _Sides:
        """The terms (…, rows, parts, P) of the left halves of P pairs, with what joins them to the right ones, and of these.

        Args:
            terms: of both sides (n, …, rows, parts).
            which: (2, P) which of these.
            pair: (2, P) the tiles that they belong to.
        """
        left, right = (np.moveaxis(own[some], 0, -1).copy() for own, some in zip(terms, which, strict=True))
        states = [tiles.kinds[some] // 2 for tiles, some in zip(self.tiles, pair, strict=True)]
        for row, (joint, is_max) in enumerate(zip(self.joints[*states].T, self.tabulated.table.is_max, strict=True)):
            own = left[..., row, :, :]
            (np.maximum if is_max else np.add)(own, joint, out=own)
        return left, right

    def _join(self, row: int, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """Combine a row of left halves (l, P) and of right halves (r, P), to (l, r, P)."""
        (np.maximum if self.tabulated.table.is_max[row] else np.add)(left[:, None], right, out=out)

    def _ideal(self, ends: _Sides) -> tuple[np.ndarray, np.ndarray]:
        """The most that the objective can be (n,), −∞ where no budget is met, and the least that the costs can be (K, n).

        Args:
            ends: see `_corner`.
        """
        bound = self._corner(0, 1, ends)
        bound[np.isnan(bound)] = np.inf
        for number, limit, margin in zip(self.budgets, self.tabulated.limits, self.margins, strict=True):
            bound[self._corner(number, -1, ends) > limit + margin] = -np.inf  # what is not a number closes nothing
        return bound, np.stack([self._corner(number, -1, ends) for number in self.costs])

    def _corner(self, number: int, sign: int, ends: _Sides) -> np.ndarray:
        """The most (sign 1) or the least (−1) that a quantity can be in pairs of tiles, NaN where it has no value.

        Args:
            number: of the quantity.
            sign: see above.
            ends: the least and greatest (2, rows, parts, P) in each part of a tile, of the left and the right one of P pairs.

        Returns:
            For every part of the left tile, every part of the right one and every pair, (parts · parts · P,).
        """
        _, _, parts, pairs = ends[0].shape
        totals = np.empty((len(self.tabulated.table.fixed), parts, parts, pairs))
        rows = self.tabulated.rows[number]
        for row, rises in zip(range(rows.start, rows.stop), self.signs[number], strict=True):
            left, right = (own[int(rises == sign), row] for own in ends)
            self._join(row, left, right, totals[row])
        return np.array(self.tabulated.read(number, totals.reshape(len(totals), -1)))

    def _whole(self) -> np.ndarray:
        """Bool (K,): costs whose terms are whole numbers."""
        table = self.tabulated.table

        def whole(number: int) -> bool:
            rows = self.tabulated.rows[number]
            terms = (*(block[rows] for block in table.blocks), *(joint[rows] for joint in table.joints), table.fixed[rows])
            alone = not isinstance(self.tabulated.quantities[number], Composite)
            return alone and all(bool(((own == np.rint(own)) | ~np.isfinite(own)).all()) for own in terms)

        return np.array([whole(number) for number in self.costs])

    def front(self, first: np.ndarray) -> WholeFront:
        """Combine the pairs of tiles that no known design rules out, until the run is stopped.

        Args:
            first: designs, choices (n, N), to be shown beside those found if it is.
        """
        pairs, at_once = len(self.bounds), _COMBINED // _PARTS**2
        combined = max(_COMBINED // len(self.tiles[0].members) ** 2, 1)
        seen = 0
        while seen < pairs and not self.run.stopped:
            some = np.arange(seen, min(seen + at_once, pairs))
            small = self._small(self.which[:, some[self._open(self.bounds[some], self.least[:, some])]])
            for start in range(0, small.shape[1], combined):
                if self.run.stopped:
                    break
                self._combine(small[:, start : start + combined])
            else:
                seen += len(some)
        self.known.compare()
        rest = np.arange(seen, pairs)
        rest = rest[self._open(self.bounds[rest], self.least[:, rest])]
        opened: tuple[Open, ...] = ()
        if len(rest):
            floor, bound = float(self.known.best(self.least[:, rest]).min()), float(self.bounds[rest].max())
            opened = (Open((math.inf,) * len(self.costs), floor, bound),)
        choices = np.column_stack([half.chosen[own] for half, own in zip(self.halves, self.known.pairs.T, strict=True)])
        if opened:
            choices = np.concatenate((choices, first))
        message = f"{self.run.evaluations:,} of {self.problem.space.size:,} designs combined from halves"
        return WholeFront(choices, opened, f"{self.run.why_stopped} after {message}" if opened else message)

    def _open(self, bounds: np.ndarray, least: _Costs) -> np.ndarray:
        """Bool (n,): whether designs up to an objective (n,) from costs (n,) on may be ones that no known one equals or betters."""
        return bounds > self.known.best(least)

    def _small(self, pair: np.ndarray) -> np.ndarray:
        """The pairs (2, n) of small tiles, of pairs (2, P) of tiles, that no known design rules out."""
        left, right = self.tiles
        bounds, costs = self._ideal(self._facing((left.small, right.small), pair, pair))
        there = (left.sizes[:, pair[0]] > 0)[:, None] & (right.sizes[:, pair[1]] > 0)
        found = np.flatnonzero(there.ravel() & self._open(bounds, costs))
        place, number = np.divmod(found, max(pair.shape[1], 1))
        return _PARTS * pair[:, number] + np.stack(np.divmod(place, _PARTS))

    def _combine(self, small: np.ndarray) -> None:
        """Take in the designs of pairs (2, P) of small tiles that no known one equals or betters."""
        tabulated, (left, right) = self.tabulated, self.tiles
        size, pair = len(left.members), small // _PARTS
        totals: np.ndarray = np.empty((len(tabulated.table.fixed), size, size, small.shape[1]))
        for row, (own, other) in enumerate(zip(*self._facing((left.terms, right.terms), small, pair), strict=True)):
            self._join(row, own, other, totals[row])
        totals = totals.reshape(len(totals), -1)
        self.run.evaluations += int(left.sizes[small[0] % _PARTS, pair[0]] @ right.sizes[small[1] % _PARTS, pair[1]])

        def halves(which: np.ndarray) -> np.ndarray:
            place, number = np.divmod(which, small.shape[1])
            return np.stack((left.members[place // size, small[0][number]], right.members[place % size, small[1][number]]), axis=1)

        def design(number: int) -> Architecture:
            return self._design(halves(np.array([number]))[0])

        kept, doubtful = np.ones(totals.shape[1], dtype=bool), np.zeros(totals.shape[1], dtype=bool)
        for number, limit, margin in zip(self.budgets, tabulated.limits, self.margins, strict=True):
            used = tabulated.read(number, totals, design, kept)
            kept &= used <= limit + margin
            if margin:
                doubtful |= used > limit - margin
        objectives = tabulated.read(0, totals, design, kept)
        costs = [tabulated.read(number, totals, design, kept) for number in self.costs]
        found = np.flatnonzero(kept & self._open(objectives, costs))
        pairs = halves(found)
        if doubtful[found].any():
            sure = [
                not (doubtful[n] and broken_budgets(self.problem, self._design(own))) for n, own in zip(found, pairs, strict=True)
            ]
            found, pairs = found[sure], pairs[sure]
        if len(found):
            self.known.add(objectives[found], [cost[found] for cost in costs], pairs)

    def _design(self, pair: np.ndarray) -> Architecture:
        """The design of two halves (2,)."""
        chosen = (half.chosen[own] for half, own in zip(self.halves, pair, strict=True))
        return self.problem.space.decode(np.concatenate(tuple(chosen)).tolist())
