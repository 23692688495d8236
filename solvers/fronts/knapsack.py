"""Fronts of multiple-choice knapsack problems at once: objective and costs are sums over positions, within budgets on sums.

With D values to maximize (the objective, the negated costs), y(x) = Σ_i p_i(x_i), and budgets Σ_i c_i(x_i) ≤ b:

1. For weights λ ≥ 0, many slopes, and multipliers μ ≥ 0, λ·y(x) ≤ Σ_i max_j (λ·p_ij − μ·c_ij) + μ·b for every design x within the
   budgets (Lagrangian relaxation). Every μ gives a valid bound; good ones are the duals of the linear relaxation, and of the
   relaxations with the budgets moved a little.
2. The known points leave zones in which others may lie (`solvers.fronts.zones`); a missing point reaches the target of some zone.
   A zone whose target exceeds a bound is closed.
3. The other zones go to the slope whose bound clears their target least. Per slope one label pass over the positions has their
   targets: a label is a choice at some positions, and lives while for some target all bounds near the slope, less what the choice
   loses against the best items, still reach it, and while the cheapest items of the other positions fit the budgets. A pass that
   drops no other label finds every design that reaches a target, so its zones are closed.
4. The first passes keep few labels and find most points, which raises the targets; later ones keep more, up to what memory holds.

When all zones are closed the front is complete. Labels that another dominates, no worse in y and in every cost, may be dropped at
any time: their completions are dominated as well. Whole numbers add up exactly; else bounds have room for the rounding of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from formulation import DesignProblem, Separable
from formulation.quantity import Combine
from solvers.base import Run, Stopped, broken_budgets
from solvers.exact.multiple_choice import MultipleChoice, read_multiple_choice
from solvers.fronts.whole import Open, WholeFront
from solvers.fronts.zones import Zones, non_dominated_rows, rounded, targets_of

_SLOPES = (48, 15)
"""Most slopes between the ends for two values; for more values, most steps along an edge of the simplex of weights."""
_PENALTY = 1e4
"""Most that a multiplier takes, where values and budgets are scaled to about 1: it keeps the relaxation feasible."""
_MOVES = 2.0
"""How far budgets are moved for further multipliers, in mean standard deviations of the costs of an item."""
_FIRST_ITEMS = 40
"""Items beside the best ones that the first search near a slope chooses from."""
_WIDTHS = (100, 1000)
"""Labels kept in the first passes."""
_ZONES = 48
"""Zones of a pass: each costs a comparison of all labels."""
_PORTION = 1 << 18
"""Labels made at a time, before those that reach nothing are dropped."""
_DOMINANCE = 500
"""Labels from which on dominated ones are looked for."""
_NEAR = (1, 2, 4, 8)
"""Slopes beside that of a pass whose bounds are used as well, by their distance."""


def knapsack_front(problem: DesignProblem, run: Run) -> WholeFront | None:
    """The front of a problem where objective, costs and budgets are sums (budgets also maxima) and nothing links neighbours."""
    try:
        knapsack = _read(problem, run)
    except Stopped:
        return WholeFront(_none(problem), (Open.everything(len(problem.minimize)),), run.why_stopped)
    return None if knapsack is None else _Search(problem, knapsack, run).front()


def _none(problem: DesignProblem) -> np.ndarray:
    return np.empty((0, problem.space.blocks), dtype=np.intp)


@dataclass(frozen=True, eq=False)
class _Knapsack:
    """A multiple-choice knapsack with several values.

    Attributes:
        values: (D, N, J) to be maximized.
        fixed: (D,) what every design has of them.
        costs: (B, N, J).
        limits: (B,).
        allowed: bool (N, J): items that a design of the front may need.
        whole: bool (D,): which values are whole numbers that add up exactly.
        whole_costs: bool (B,).
        steps: (D,) all sums differ by multiples of it, 0 where values are not whole.
    """

    values: np.ndarray
    fixed: np.ndarray
    costs: np.ndarray
    limits: np.ndarray
    allowed: np.ndarray
    whole: np.ndarray
    whole_costs: np.ndarray
    steps: np.ndarray

    @cached_property
    def alike(self) -> bool:
        """Whether all positions have the same items, so that designs which differ in their order alone are the same."""
        terms = np.where(self.allowed, np.concatenate((self.values, self.costs)), 0.0)
        return bool((self.allowed == self.allowed[:1]).all() and (terms == terms[:, :1]).all())


def _read(problem: DesignProblem, run: Run) -> _Knapsack | None:
    budgeted = DesignProblem(problem.space, problem.maximize, problem.subject_to)
    base = read_multiple_choice(budgeted, run.poll)
    if base is None or any(not isinstance(q, Separable) or q.combine is not Combine.SUM for q in problem.minimize):
        return None
    read: list[MultipleChoice] = [base]
    for quantity in problem.minimize:
        own = read_multiple_choice(DesignProblem(problem.space, quantity), run.poll)
        if own is None:
            return None
        read.append(own)
    signs = np.array([1.0] + [-1.0] * len(problem.minimize))
    values = np.array([own.values for own in read]) * signs[:, None, None]
    fixed = np.array([own.fixed for own in read]) * signs
    whole, steps = _wholeness(values, fixed, base.allowed)
    whole_costs, _ = _wholeness(base.costs, np.zeros(base.budgets), base.allowed)
    allowed = base.allowed & ~_dominated_items(np.concatenate((values, -base.costs)), base.allowed)
    return _Knapsack(values, fixed, base.costs, base.limits, allowed, whole, whole_costs, steps)


def _wholeness(terms: np.ndarray, fixed: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of terms (R, N, J) are whole and add up exactly, and the common divisor of their differences, 0 for the others."""
    used = np.where(allowed, terms, 0.0)
    size = np.abs(used).max(axis=2).sum(axis=1) + np.abs(fixed)
    whole = (used == np.rint(used)).all(axis=(1, 2)) & (fixed == np.rint(fixed)) & (size < 2**52)
    steps = np.zeros(len(terms))
    for row in np.flatnonzero(whole):
        first = np.take_along_axis(terms[row], allowed.argmax(axis=1)[:, None], axis=1)
        steps[row] = max(np.gcd.reduce(np.where(allowed, terms[row] - first, 0.0).astype(np.int64).ravel()), 1)
    return whole, steps


def _dominated_items(gains: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Bool (N, J): items for which another of the position is no worse in every row (R, N, J), all to be large; of equal ones all
    but the first."""
    dominated = np.zeros(allowed.shape, dtype=bool)
    number = np.arange(allowed.shape[1])
    for position, own in enumerate(allowed):
        terms = gains[:, position]
        no_worse = (terms[:, :, None] >= terms[:, None, :]).all(axis=0) & own[:, None]
        equal = no_worse & no_worse.T
        dominated[position] = (no_worse & (~equal | (number[:, None] < number[None]))).any(axis=0)
    return dominated


class _Bounds:
    """Bounds λ·y ≤ `root` on all designs, one a row.

    Attributes:
        weights: (R, D) λ.
        prices: (R, B) μ.
        reduced: (R, N, J) λ·p − μ·c of the items, −∞ for those left out.
        losses: (R, N, J) what each item has less than the best of its position.
        root: (R,), with room for rounding.
        room: (R,) that room.
        first: (S,) rows of the slopes themselves, in their order; the others are of the same slopes with other prices.
        of_slope: (R,) the number of a row's slope.
    """

    def __init__(
        self, knapsack: _Knapsack, weights: np.ndarray, prices: np.ndarray, first: np.ndarray, of_slope: np.ndarray
    ) -> None:
        self.weights, self.prices, self.first, self.of_slope = weights, prices, first, of_slope
        own = np.tensordot(weights, knapsack.values, 1) - np.tensordot(prices, knapsack.costs, 1)
        self.reduced = np.where(knapsack.allowed, own, -np.inf)
        best = self.reduced.max(axis=2)
        self.losses = best[:, :, None] - self.reduced
        self.constant = weights @ knapsack.fixed + prices @ knapsack.limits
        terms = np.tensordot(weights, np.abs(knapsack.values), 1) + np.tensordot(prices, np.abs(knapsack.costs), 1)
        size = np.where(knapsack.allowed, terms, 0.0).max(axis=2).sum(axis=1)
        size += weights @ np.abs(knapsack.fixed) + prices @ np.abs(knapsack.limits)
        self.room = 8 * (len(knapsack.allowed) + weights.shape[1] + prices.shape[1] + 4) * 2.0**-53 * size
        self.root = best.sum(axis=1) + self.constant + self.room

    def clearance(self, targets: np.ndarray) -> np.ndarray:
        """By how much each bound (R,) clears targets (G, D): (R, G), below 0 where no design reaches one."""
        return self.root[:, None] - self.weights @ targets.T


class _Relaxation:
    """The linear relaxation, solved again and again by HiGHS for other weights and budgets."""

    def __init__(self, knapsack: _Knapsack) -> None:
        import highspy

        self._knapsack = knapsack
        positions, items = np.nonzero(knapsack.allowed)
        self._positions, self._items = positions, items
        budgets, count = len(knapsack.limits), len(knapsack.allowed)
        costs = knapsack.costs[:, positions, items]
        self.scale = np.maximum(np.abs(knapsack.limits), np.abs(costs).max(axis=1, initial=0.0)) if budgets else np.empty(0)
        self.scale = np.where(self.scale > 0, self.scale, 1.0)
        self._columns = np.arange(len(items), dtype=np.int32)
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = len(items) + budgets, count + budgets
        program.sense_ = highspy.ObjSense.kMaximize
        program.col_cost_ = np.concatenate((np.zeros(len(items)), np.full(budgets, -_PENALTY)))
        program.col_lower_, program.col_upper_ = np.zeros(program.num_col_), np.full(program.num_col_, np.inf)
        program.row_lower_ = np.concatenate((np.ones(count), np.full(budgets, -np.inf)))
        program.row_upper_ = np.concatenate((np.ones(count), knapsack.limits / self.scale))
        rows = np.concatenate((positions[:, None], np.broadcast_to(count + np.arange(budgets), (len(items), budgets))), axis=1)
        entries = np.concatenate((np.ones((len(items), 1)), costs.T / self.scale), axis=1)
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        starts = np.concatenate((np.arange(len(items) + 1) * (1 + budgets), len(items) * (1 + budgets) + 1 + np.arange(budgets)))
        program.a_matrix_.start_ = starts.astype(np.int32)
        program.a_matrix_.index_ = np.concatenate((rows.ravel(), count + np.arange(budgets))).astype(np.int32)
        program.a_matrix_.value_ = np.concatenate((entries.ravel(), np.full(budgets, -1.0)))
        self._highs = highspy.Highs()
        self._highs.setOptionValue("output_flag", False)
        self._highs.setOptionValue("threads", 1)
        self._highs.passModel(program)

    def solve(self, weights: np.ndarray, moved: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Multipliers (B,), at least 0, and the values (D,) of the relaxation's solution without their fixed part.

        Args:
            weights: (D,) about 1 over what the values vary by.
            moved: (B,) added to the budgets.
        """
        knapsack, highs = self._knapsack, self._highs
        count = len(knapsack.allowed)
        for k, limit in enumerate(knapsack.limits if moved is None else knapsack.limits + moved):
            highs.changeRowBounds(count + k, -np.inf, float(limit / self.scale[k]))
        gains = knapsack.values[:, self._positions, self._items]
        highs.changeColsCost(len(self._columns), self._columns, weights @ gains)
        highs.run()
        solution = highs.getSolution()
        prices = np.abs(np.array(solution.row_dual[count:], dtype=float)) / self.scale
        used = np.array(solution.col_value[: len(self._columns)], dtype=float)
        return np.where(np.isfinite(prices), prices, 0.0), gains @ used


def _extensions(after: np.ndarray, items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every label with every item that may follow it, in portions: numbers of the labels, and of the items.

    Args:
        after: (n,) the first item that may follow each label.
        items: how many there are.
    """
    counts = items - after
    ends = np.cumsum(counts)
    start = 0
    while start < len(after):
        done = ends[start] - counts[start]
        stop = max(int(np.searchsorted(ends, done + _PORTION, side="right")), start + 1)
        own = counts[start:stop]
        parents = np.repeat(np.arange(start, stop), own)
        offsets = np.arange(len(parents)) - np.repeat(np.cumsum(own) - own, own)
        yield parents, offsets + after[parents]
        start = stop


def _simplex(dimensions: int, positions: int) -> np.ndarray:
    """Weights spread over the simplex, the ends of it among them, (S, D); for two dimensions in their order."""
    if dimensions == 2:
        slopes = min(_SLOPES[0], 4 * positions)
        share = np.concatenate(([0.0], (np.arange(slopes) + 0.5) / slopes, [1.0]))
        return np.column_stack((share, 1 - share))
    steps = min(_SLOPES[1], 2 + positions // 2)
    cuts = np.array(list(combinations_with_replacement(range(steps + 1), dimensions - 1)))
    edges = np.column_stack((np.zeros(len(cuts)), cuts, np.full(len(cuts), steps)))
    return np.diff(edges, axis=1) / steps


class _Search:
    """One search for a front."""

    def __init__(self, problem: DesignProblem, knapsack: _Knapsack, run: Run) -> None:
        self.problem, self.knapsack, self.run = problem, knapsack, run
        self.zones = Zones(len(knapsack.values))
        self.choices: list[np.ndarray] = []
        used = np.where(knapsack.allowed, knapsack.values, np.inf).min(axis=2).sum(axis=1) + knapsack.fixed
        self.least = used - 1e-9 * (1 + np.abs(used))
        self.passes = self.labels = 0
        self.may_drop = True  # labels that another dominates
        self.slopes = 0

    def front(self) -> WholeFront:
        """See the module."""
        if not self.knapsack.allowed.any(axis=1).all():
            return WholeFront(_none(self.problem), (), "no item of some position meets the budgets")
        opened: tuple[Open, ...] = (Open.everything(len(self.problem.minimize)),)
        why = ""
        try:
            self.bounds = self._bounds()
            opened = ()
            self._begin()
            self._close()
        except Stopped:
            why = self.run.why_stopped
        opened = opened or tuple(self._opened())
        if opened and not why:
            why = "memory does not hold the labels that are left"
        choices = np.array(self.choices).reshape(-1, self.problem.space.blocks)
        message = f"a knapsack problem: labels near {self.slopes} slopes, {self.passes:,} passes with {self.labels:,} labels"
        return WholeFront(choices, opened, f"{message}; {why}" if opened else message)

    def _bounds(self) -> _Bounds:
        knapsack = self.knapsack
        relaxation = _Relaxation(knapsack)
        dimensions, budgets = len(knapsack.values), len(knapsack.limits)
        used = np.where(knapsack.allowed, knapsack.values, np.nan)
        spread = np.nansum(np.nanmax(used, axis=2) - np.nanmin(used, axis=2), axis=1)
        spread = np.where(spread > 0, spread, 1.0)
        ends = np.array([relaxation.solve(weights / spread)[1] for weights in 0.999 * np.eye(dimensions) + 0.001])
        ranges = np.maximum(np.ptp(ends, axis=0), 1e-6 * spread)
        simplex = _simplex(dimensions, len(knapsack.allowed))
        self.slopes = len(simplex)
        moved = knapsack.costs.std(axis=2, where=knapsack.allowed).mean(axis=1) * _MOVES
        weights: list[np.ndarray] = []
        prices: list[np.ndarray] = []
        first: list[int] = []
        of_slope: list[int] = []
        for number, share in enumerate(simplex):
            self.run.poll()
            first.append(len(weights))
            for move in (np.zeros(budgets), *(sign * own for own in np.diag(moved) for sign in (1, -1))):
                weights.append(share / ranges)
                prices.append(relaxation.solve(share / ranges, move)[0])
                of_slope.append(number)
        self._simplex = simplex
        return _Bounds(
            knapsack, np.array(weights), np.array(prices).reshape(len(weights), budgets), np.array(first), np.array(of_slope)
        )

    def _near(self, slope: int) -> np.ndarray:
        """Rows of the bounds that a pass near a slope uses: its own, those of slopes beside it, and of the ends."""
        bounds = self.bounds
        own = np.flatnonzero(bounds.of_slope == slope)
        if len(self.knapsack.values) == 2:
            beside = [slope + sign * far for far in _NEAR for sign in (1, -1)] + [0, self.slopes - 1]
        else:
            distance = np.abs(self._simplex - self._simplex[slope]).sum(axis=1)
            beside = [*np.argsort(distance, kind="stable")[1:13].tolist(), *np.flatnonzero(self._simplex.max(axis=1) == 1).tolist()]
        rows = [bounds.first[number] for number in beside if 0 <= number < self.slopes and number != slope]
        return np.array(list(dict.fromkeys([*own.tolist(), *rows])))

    def _begin(self) -> None:
        """Find designs near each slope, from the items that lose least."""
        bounds = self.bounds
        for slope in range(self.slopes):
            self.run.poll()
            rows = np.flatnonzero(bounds.of_slope == slope)
            losses = bounds.losses[rows[0]]
            ordered = np.sort(losses[(losses > 0) & np.isfinite(losses)])
            most = ordered[min(_FIRST_ITEMS, len(ordered)) - 1] if len(ordered) else 0.0
            self._pass(rows, None, losses <= most, _WIDTHS[0])

    def _targets(self, which: np.ndarray) -> np.ndarray:
        return targets_of(self.zones.corners[which], self.knapsack.steps, self.least)

    def _close(self) -> None:
        """Close zones by bounds and passes, wider and wider ones."""
        zones, bounds = self.zones, self.bounds
        carried = len(self.knapsack.values) + len(self.knapsack.limits)
        per_label = 8 * (len(self.knapsack.allowed) + 4 * carried + 3 * len(self._near(0)))
        most = max(self.run.limits.memory // per_label, 2 * _WIDTHS[-1])
        for width in (*_WIDTHS, most):
            while True:
                self.run.poll()
                left = np.flatnonzero(~zones.closed & (zones.tried < width))
                if not len(left):
                    break
                targets = self._targets(left)
                clearance = bounds.clearance(targets)
                out = (clearance < 0).any(axis=0)
                zones.closed[left[out]] = True
                if out.all():
                    break
                left, clearance, targets = left[~out], clearance[:, ~out], targets[~out]
                slope_of = clearance[bounds.first].argmin(axis=0)
                slope = int(slope_of[0])
                group = np.flatnonzero(slope_of == slope)[:_ZONES]
                rows = self._near(slope)
                allowed = (
                    (bounds.losses[rows][:, :, :, None] <= clearance[np.ix_(rows, group)][:, None, None, :]).all(axis=0).any(axis=2)
                )
                corners = zones.corners[left[group]]
                complete = self._pass(rows, targets[group], allowed & self.knapsack.allowed, width)
                # The points that were found have replaced some of these zones by what they leave of them.
                held = np.any(np.all(zones.corners[:, None] >= corners[None], axis=2), axis=1)
                zones.tried[held] = np.maximum(zones.tried[held], width)
                if complete:
                    zones.closed |= held

    def _opened(self) -> Iterator[Open]:
        """What the zones that are not closed leave open."""
        zones, bounds = self.zones, self.bounds
        left = np.flatnonzero(~zones.closed)
        if not len(left):
            return
        targets = self._targets(left)
        clearance = bounds.clearance(targets)
        for number in np.flatnonzero(~(clearance < 0).any(axis=0)):
            corner, target = zones.corners[left[number]], targets[number]
            rises = bounds.weights[:, 0] > 0
            most = target[0] + float((clearance[rises, number] / bounds.weights[rises, 0]).min(initial=math.inf))
            upper = tuple((0.0 - corner[1:]).tolist())
            yield Open(upper, float(corner[0]), most + 1e-9 * abs(most) if most < math.inf else math.inf)

    def _pass(self, rows: np.ndarray, targets: np.ndarray | None, allowed: np.ndarray, width: int) -> bool:
        """One label pass; what it finds is added to the zones. Whether no label was dropped for want of width.

        Args:
            rows: of the bounds to use, the first one of the slope itself.
            targets: (G, D) that labels must reach, None for any.
            allowed: bool (N, J) items to choose from.
            width: labels kept at most.
        """
        if not allowed.any(axis=1).all():
            return True
        knapsack, bounds = self.knapsack, self.bounds
        self.passes += 1
        dimensions, budgets = len(knapsack.values), len(knapsack.limits)
        terms = np.concatenate((knapsack.values, knapsack.costs))
        losses = np.where(allowed, bounds.losses[rows[0]], np.inf)
        choices = losses.argmin(axis=1)
        second = np.partition(losses, 1, axis=1)[:, 1] if losses.shape[1] > 1 else np.full(len(losses), np.inf)
        free = np.flatnonzero(allowed.sum(axis=1) > 1)
        free = free[np.argsort(-second[free], kind="stable")]
        rest = np.ones(len(allowed), dtype=bool)
        rest[free] = False
        totals = np.concatenate((knapsack.fixed, np.zeros(budgets)))
        totals = (totals + terms[:, np.flatnonzero(rest), choices[rest]].sum(axis=1))[:, None]
        cheapest = np.where(allowed, knapsack.costs, np.inf).min(axis=2)
        best = np.where(allowed, bounds.reduced[rows], -np.inf).max(axis=2)
        still_cheapest, still_best = cheapest[:, free].sum(axis=1), best[:, free].sum(axis=1)
        pricing = np.concatenate((bounds.weights[rows], -bounds.prices[rows]), axis=1)
        priced = bounds.prices[rows] @ knapsack.limits
        reach = None if targets is None else (bounds.weights[rows] @ targets.T - bounds.room[rows][:, None])
        slack = 0.0 if knapsack.whole_costs.all() else 1e-12 * np.abs(knapsack.limits)
        back: list[tuple[np.ndarray, np.ndarray]] = []
        complete = True
        after = np.zeros(1, dtype=np.intp)  # per label the first of the items that it may be extended by
        for position in free:
            self.run.poll()
            items = np.flatnonzero(allowed[position])
            if knapsack.alike:  # in the order of their losses, the largest first: no other order of a design is made
                items = items[np.argsort(-losses[position, items], kind="stable")]
            still_cheapest, still_best = still_cheapest - cheapest[:, position], still_best - best[:, position]
            room = (knapsack.limits + slack - still_cheapest)[:, None]
            constant = (still_best + priced)[:, None]
            own = terms[:, position, items]
            found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
            for parents, which in _extensions(after, len(items)):
                grown = totals[:, parents] + own[:, which]
                kept = np.flatnonzero((grown[dimensions:] <= room).all(axis=0))
                if len(kept) < grown.shape[1]:
                    grown = grown[:, kept]
                if reach is not None and len(kept):
                    bound = pricing @ grown + constant
                    reaching = np.zeros(len(kept), dtype=bool)
                    for target in reach.T:
                        reaching |= (bound >= target[:, None]).all(axis=0)
                    kept, grown = kept[reaching], grown[:, reaching]
                found.append((parents[kept], which[kept], grown))
            parents, which = (np.concatenate([own[k] for own in found]) for k in (0, 1))
            grown = np.concatenate([own[2] for own in found], axis=1)
            if not len(parents):
                return complete
            if len(parents) > _DOMINANCE and self.may_drop:
                # Where the order of items is given, a label that has fewer of them before it dominates no other.
                compared = (grown[:dimensions], -grown[dimensions:], *((-which[None],) if knapsack.alike else ()))
                kept = non_dominated_rows(np.concatenate(compared).T)
                parents, which, grown = parents[kept], which[kept], grown[:, kept]
            if len(parents) > width:
                complete = False
                bound = pricing @ grown + constant
                if reach is None:
                    score = (bound - bounds.root[rows][:, None]).min(axis=0)
                else:
                    score = np.max([(bound - target[:, None]).min(axis=0) for target in reach.T], axis=0)
                kept = np.argpartition(-score, width)[:width]
                parents, which, grown = parents[kept], which[kept], grown[:, kept]
            self.labels += len(parents)
            back.append((parents.astype(np.int32), items[which].astype(np.int32)))
            totals, after = grown, which if knapsack.alike else np.zeros(len(which), dtype=np.intp)
        within = (totals[dimensions:] <= (knapsack.limits + slack)[:, None]).all(axis=0)
        if not self._add(totals[:dimensions].T, np.flatnonzero(within), choices, free, back) and self.may_drop:
            self.may_drop = False
            return self._pass(rows, targets, allowed, width)
        return complete

    def _add(
        self,
        values: np.ndarray,
        labels: np.ndarray,
        choices: np.ndarray,
        free: np.ndarray,
        back: list[tuple[np.ndarray, np.ndarray]],
    ) -> bool:
        """Add the designs of the complete labels that no other and no known point dominates, and that do meet the budgets.

        False if one does not, by rounding: it may have dominated a label that would.
        """
        all_meet = True
        values = rounded(values, self.knapsack.whole)
        while len(labels):
            best = labels[non_dominated_rows(values[labels])]
            fresh = np.array([n for n in best if (self.zones.corners < values[n]).all(axis=1).any()], dtype=np.intp)
            if not len(fresh):
                break
            designs = np.repeat(choices[None], len(fresh), axis=0)
            place = fresh
            for position, (parents, items) in zip(free[::-1], reversed(back), strict=True):
                designs[:, position] = items[place]
                place = parents[place]
            broken = []
            for number, design in zip(fresh, designs, strict=True):
                if not self.knapsack.whole_costs.all() and broken_budgets(self.problem, self.problem.space.decode(design)):
                    broken.append(number)
                elif self.zones.add(values[number]):
                    self.choices.append(design)
            labels = np.setdiff1d(labels, best) if broken else labels[:0]
            all_meet = all_meet and not broken
        return all_meet
