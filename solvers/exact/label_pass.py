"""Labels for a multiple-choice knapsack problem whose items were fixed by multipliers: what is left, enumerated with proof.

For multipliers λ ≥ 0 the *loss* of an item is by how much its reduced value v − λ·c falls short of the best one of its position.
A design within the limits is worth at most L(λ) minus its losses, for every λ. So against a *target*, with the best reduced
values taken among the items that are left:

* an item is out where L(λ) − its loss ≤ target for some λ, or where with the cheapest items elsewhere it exceeds a limit;
* of two items of a position one is out where the other is worth no less and costs no more;
* a *label*, one item for each of some positions, is out by the same two tests, with the sum of its losses and the sum of its costs.

Whatever is dropped is worth no more than the target, or exceeds a limit, or is matched by what stays. Rounding: each L(λ) is
raised by the error of all sums that a bound is made of (Higham 2002, eq. 4.4, with the sizes of the terms), so that "≤ target"
holds of the true bounds; limits have room for the sums of costs (`MultipleChoice`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from solvers.exact.multiple_choice import MultipleChoice

_PAIRS = 1 << 15
"""Labels made at a time, at most, as far as memory allows: what stays in a processor's cache, and soon has complete ones."""
_MERGING = 1 << 18
"""The same where many of them are merged."""
_FEWEST = 1 << 10
"""Labels made at a time, at least."""
_MANY = 1 << 11
"""Labels from which on equal and dominated ones are looked for."""
_RIVALS = 64
"""Labels that the others are compared with for dominance, those of largest bound."""
_USEFUL = 0.05
"""Share of labels that such a comparison has to drop to be made again at once, and not after twice the pause."""
_COURSE = 0.05
"""Share of what the bound is above the target that a beam takes off a label for each standard deviation from an even course."""
_CUBE = 1 << 22
"""Pairs of items compared for dominance at a time."""


class Bounds:
    """The Lagrangian bounds of a problem for some multipliers.

    Attributes:
        multipliers: (M, K).
        reduced: (M, N, J) reduced values, −∞ for what no design may have.
        constant: (M,) λ·b, the fixed value, and what rounding may hide.
    """

    def __init__(self, choice: MultipleChoice, multipliers: np.ndarray) -> None:
        count, terms = len(multipliers), choice.budgets
        flat = choice.costs.reshape(terms, choice.values.size)
        with np.errstate(over="ignore", invalid="ignore"):
            self.reduced = choice.open_values - (multipliers @ flat).reshape(count, *choice.values.shape)
            sizes = np.where(choice.allowed, np.abs(choice.costs), 0.0).max(axis=2).sum(axis=1) + np.abs(choice.limits)
            error = 4 * (choice.positions + terms + 8) * 2.0**-53 * (choice.size + multipliers @ sizes)
            self.constant = multipliers @ choice.limits + choice.fixed + error
        usable = np.isfinite(self.constant) & ~np.isnan(self.reduced).any(axis=(1, 2))
        self.multipliers, self.reduced, self.constant = multipliers[usable], self.reduced[usable], self.constant[usable]

    def among(self, which: np.ndarray) -> Bounds:
        """Those by some of the multipliers."""
        result = Bounds.__new__(Bounds)
        result.multipliers, result.reduced, result.constant = self.multipliers[which], self.reduced[which], self.constant[which]
        return result

    def roots(self, left: np.ndarray) -> np.ndarray:
        """(M,) bounds on all designs of the items that are `left`, bool (N, J)."""
        return np.where(left, self.reduced, -np.inf).max(axis=2).sum(axis=1) + self.constant

    def fixed_out(self, left: np.ndarray, target: float) -> np.ndarray:
        """The items that are left, bool (N, J), without those that take a bound to the target; none at all where all bounds do."""
        while True:
            reduced = np.where(left, self.reduced, -np.inf)
            best = reduced.max(axis=2)
            roots = best.sum(axis=1) + self.constant
            if not (roots > target).all():
                return np.zeros_like(left)
            loss = best[:, :, None] - reduced
            now = left & (roots[:, None, None] - loss > target).all(axis=0)
            if not now.any(axis=1).all():
                return np.zeros_like(left)
            if now.sum() == left.sum():
                return left
            left = now


def fitting(choice: MultipleChoice, left: np.ndarray) -> np.ndarray:
    """The items that are left, bool (N, J), without those that exceed a limit even with the cheapest items elsewhere."""
    while left.any(axis=1).all():
        least = np.where(left, choice.costs, np.inf).min(axis=2)
        room = choice.limits - least.sum(axis=1)
        now = left & (choice.costs - least[:, :, None] <= room[:, None, None]).all(axis=0)
        if now.sum() == left.sum():
            return left
        left = now
    return np.zeros_like(left)


def undominated(choice: MultipleChoice, left: np.ndarray, poll: Callable[[], object]) -> np.ndarray:
    """The items that are left, bool (N, J), without those that another of their position is as good as.

    Of equal ones the first stays.
    """
    result = left.copy()
    counts = left.sum(axis=1)
    several = np.flatnonzero(counts > 1)
    most = int(counts.max(initial=0))
    step = max(1, _CUBE // max(1, most * most))
    for start in range(0, len(several), step):
        poll()
        rows = several[start : start + step]
        items = np.argsort(~left[rows], axis=1, kind="stable")[:, :most]
        own = np.take_along_axis(left[rows], items, axis=1)
        values = choice.values[rows[:, None], items]
        no_worse = (values[:, :, None] >= values[:, None, :]) & own[:, :, None] & own[:, None, :]
        no_better = values[:, :, None] <= values[:, None, :]
        for cost in choice.costs:
            costs = cost[rows[:, None], items]
            no_worse &= costs[:, :, None] <= costs[:, None, :]
            no_better &= costs[:, :, None] >= costs[:, None, :]
        later = np.arange(most)[:, None] < np.arange(most)
        dominated = (no_worse & (~no_better | later)).any(axis=1)
        result[rows[:, None], items] &= ~dominated
    return result


@dataclass(eq=False)
class LabelSet:
    """Some labels that give items to as many positions, the first ones of a pass.

    Attributes:
        level: number of positions.
        totals: (1 + K, n) values and costs so far, of the positions without a choice too.
        bounds: (n,) the least of their bounds.
        first: (n,) their bounds by the first multipliers.
        items: (n,) the place of the last item among those of its position.
        parents: (n,) which labels of `before` they extend.
        before: None for the first one.
    """

    level: int
    totals: np.ndarray
    bounds: np.ndarray
    first: np.ndarray
    items: np.ndarray
    parents: np.ndarray | None
    before: LabelSet | None

    def __len__(self) -> int:
        return len(self.bounds)

    def among(self, which: np.ndarray) -> LabelSet:
        """Some of them."""
        parents = None if self.parents is None else self.parents[which]
        return LabelSet(
            self.level,
            self.totals.take(which, axis=1),
            self.bounds[which],
            self.first[which],
            self.items[which],
            parents,
            self.before,
        )


class LabelPass:
    """The label pass over the positions that still have a choice, largest second-smallest loss first.

    Alike positions follow each other, and their items are taken in ascending order only: every other order has the same totals.

    Attributes:
        target: labels whose bound does not exceed it are dropped; may be raised at any time.
        order: the positions that have a choice, in the order of the pass.
        labels: made so far.
        shares: (M,) of how many labels of the last beam each of the multipliers gave the least bound.
        merged: whether any design was dropped for another of the same or better totals.
    """

    def __init__(
        self, choice: MultipleChoice, bounds: Bounds, left: np.ndarray, target: float, memory: int, merging: bool = True
    ) -> None:
        self.target, self.labels, self.merging, self.merged = target, 0, merging, False
        counts = left.sum(axis=1)
        settled, open_ = np.flatnonzero(counts == 1), np.flatnonzero(counts > 1)
        self._fixed_items = settled, left[settled].argmax(axis=1)
        reduced = np.where(left, bounds.reduced, -np.inf)[:, open_]
        best = reduced.max(axis=2)
        loss = best[0][:, None] - reduced[0]
        ranked = np.argsort(loss, axis=1, kind="stable")
        second = np.take_along_axis(loss, ranked[:, 1:2], axis=1)[:, 0] if len(open_) else np.zeros(0)
        kinds = self._kinds(choice, left, open_)
        by = np.lexsort((kinds, -second))
        self.order = open_[by]
        self._follows = np.concatenate(([False], kinds[by][1:] == kinds[by][:-1]))[: len(by)] & merging
        self.merged = bool(self._follows.any())
        self._items = [ranked[place, : counts[position]] for place, position in zip(by, self.order, strict=True)]
        terms = np.concatenate((choice.values[None], choice.costs))
        self._terms = [terms[:, position, items] for position, items in zip(self.order, self._items, strict=True)]
        self._losses = [loss[place, items] for place, items in zip(by, self._items, strict=True)]
        start = terms[:, settled, self._fixed_items[1]].sum(axis=1)
        start[0] += choice.fixed
        least = np.where(left, choice.costs, np.inf).min(axis=2)[:, self.order]
        # What the positions from a level on add at least to the costs, and at most to the reduced values: (…, levels + 1).
        rest = np.concatenate((np.cumsum(least[:, ::-1], axis=1)[:, ::-1], np.zeros((choice.budgets, 1))), axis=1)
        self._rooms = choice.limits[:, None] - rest
        self._even = lambda: self._even_course(choice, bounds.multipliers[0], left[self.order], start[1:])
        gains = best[:, by]
        ahead = np.concatenate((np.cumsum(gains[:, ::-1], axis=1)[:, ::-1], np.zeros((len(gains), 1))), axis=1)
        self._ahead = ahead + (bounds.constant - choice.fixed)[:, None]
        # The fixed value is in the totals.
        self._weights = np.concatenate((np.ones((len(bounds.multipliers), 1)), -bounds.multipliers), axis=1)
        by_label = 8 * (choice.budgets + 1) + 32
        self._fit = max(int(memory // (3 * by_label * (len(self.order) + 2))), _FEWEST)
        self._pairs = min(self._fit, _PAIRS)
        self._skip, self._pause = 0, 1
        self._uses: np.ndarray | None = None
        self.shares = np.ones(len(self._weights))
        self.root = self._labels(0, start[:, None], np.zeros(1, dtype=np.intp), None, None)

    @cached_property
    def _course(self) -> tuple[np.ndarray, np.ndarray]:
        """See `_even_course`."""
        return self._even()

    def _even_course(
        self, choice: MultipleChoice, multipliers: np.ndarray, left: np.ndarray, spent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a beam takes for an even course: room (K, levels + 1), and prices (2, K) of less and of more room than that.

        The room of a budget is what the cheapest items leave of it; an even course uses it up in proportion to what the mean
        items need beyond the cheapest. Missing it by a standard deviation of a position's costs is priced as much as in values,
        or a tenth of a position's deviation of values if that is more: then only where it is too little room.
        """
        costs = choice.costs[:, self.order]
        there = np.broadcast_to(left, costs.shape)
        least = np.where(left, costs, np.inf).min(axis=2)
        need = costs.mean(axis=2, where=there) - least
        ahead = np.concatenate((np.cumsum(need[:, ::-1], axis=1)[:, ::-1], np.zeros((choice.budgets, 1))), axis=1)
        room = self._rooms[:, 0] - spent
        total = np.where(ahead[:, :1] > 0, ahead[:, :1], 1.0)
        deviation = costs.std(axis=2, where=there).mean(axis=1) if len(left) else np.zeros(choice.budgets)
        worth = choice.values[self.order].std(axis=1, where=left).mean() if len(left) else 0.0
        floor = 0.1 * worth / np.where(deviation > 0, deviation, np.inf)
        prices = np.stack((np.maximum(multipliers, floor), multipliers))
        scale = float(prices[0] @ deviation)
        return room[:, None] * ahead / total, prices / (scale if scale > 0 else 1.0)

    def _promise(self, labels: LabelSet) -> np.ndarray:
        """(n,) by what a beam ranks labels: their bounds, less a share of what is above the target for leaving the even course."""
        course, prices = self._course
        room = self._rooms[:, labels.level, None] - labels.totals[1:] - course[:, labels.level, None]
        off = prices[0] @ np.maximum(-room, 0.0) + prices[1] @ np.maximum(room, 0.0)
        return labels.bounds - _COURSE * (float(self.root.bounds.max(initial=self.target)) - self.target) * off

    @staticmethod
    def _kinds(choice: MultipleChoice, left: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """A number for each of some positions, the same for those that have the same items left."""
        known: dict[bytes, int] = {}
        kinds = np.empty(len(positions), dtype=np.intp)
        for place, position in enumerate(positions):
            own = left[position]
            key = np.concatenate((choice.values[position, own], choice.costs[:, position, own].ravel(), np.flatnonzero(own)))
            kinds[place] = known.setdefault(key.tobytes(), len(known))
        return kinds

    def _labels(
        self, level: int, totals: np.ndarray, items: np.ndarray, parents: np.ndarray | None, before: LabelSet | None
    ) -> LabelSet:
        """Labels with their bounds, without those that are out."""
        bounds = self._weights @ totals
        bounds += self._ahead[:, level, None]
        least = bounds.min(axis=0) if len(bounds) > 1 else bounds[0]
        if self._uses is not None:
            self._uses += np.bincount(bounds.argmin(axis=0), minlength=len(bounds))
        made = LabelSet(level, totals, least, bounds[0], items, parents, before)
        open_ = least > self.target
        return made if open_.all() else made.among(np.flatnonzero(open_))

    @property
    def levels(self) -> int:
        """Number of positions that have a choice."""
        return len(self.order)

    def extended(self, labels: LabelSet) -> LabelSet:
        """All extensions of labels by the items of the next position that are not out."""
        level = labels.level
        losses, terms, follows = self._losses[level], self._terms[level], self._follows[level]
        possible = losses < (labels.first - self.target)[:, None]
        if follows:
            possible &= np.arange(len(losses)) >= labels.items[:, None]
        parents, items = np.divmod(np.flatnonzero(possible), len(losses))
        totals = labels.totals.take(parents, axis=1)
        totals += terms.take(items, axis=1)
        fit = np.ones(len(parents), dtype=bool)
        for used, room in zip(totals[1:], self._rooms[:, level + 1], strict=True):
            fit &= used <= room
        if not fit.all():
            kept = np.flatnonzero(fit)
            parents, items, totals = parents[kept], items[kept], totals.take(kept, axis=1)
        made = self._labels(level + 1, totals, items, parents, labels)
        self.labels += len(made)
        if self.merging and level + 1 < self.levels and len(made) > _MANY:
            made = self._merged(made)
        return made

    def _merged(self, labels: LabelSet) -> LabelSet:
        """Labels without those that a rival among them is as good as, as far as comparing them is worth its time."""
        if self._skip:
            self._skip -= 1
            return labels
        before = len(labels)
        rows = np.concatenate((-labels.totals[:1], labels.totals[1:]))
        if self._follows[labels.level]:  # the smaller the last item, the more may follow
            rows = np.concatenate((rows, labels.items[None].astype(float)))
        # Equal ones, found by a sum of random weights.
        mark = np.random.default_rng(0).uniform(1, 2, len(rows)) @ rows
        by = np.argsort(mark, kind="stable")
        equal = np.zeros(before, dtype=bool)
        equal[by[1:]] = (rows[:, by[1:]] == rows[:, by[:-1]]).all(axis=0)
        keep = np.flatnonzero(~equal)
        rows = rows[:, keep]
        if len(rows) == 2:
            by = np.lexsort((rows[0], rows[1]))
            reached = np.minimum.accumulate(rows[0][by])
            better = np.concatenate(([True], rows[0][by][1:] < reached[:-1]))
            keep = keep[np.sort(by[better])]
        else:
            bound = labels.bounds[keep]
            top = np.argpartition(-bound, min(_RIVALS, len(bound) - 1))[:_RIVALS]
            dominated = np.zeros(len(keep), dtype=bool)
            for rival in top:
                if not dominated[rival]:
                    beaten = np.logical_and.reduce(rows >= rows[:, rival, None], axis=0)
                    beaten[rival] = False
                    dominated |= beaten
            keep = keep[~dominated]
        if len(keep) > (1 - _USEFUL) * before:
            self._skip, self._pause = self._pause, 2 * self._pause
        else:
            self._pause, self._pairs = 1, min(self._fit, max(_PAIRS, _MERGING))
        if len(keep) == before:
            return labels
        self.merged = True
        return labels.among(keep)

    def at_a_time(self, level: int) -> int:
        """How many labels of a level are extended at a time."""
        return max(1, self._pairs // len(self._losses[level]))

    def dive(self, width: int, poll: Callable[[], object]) -> tuple[LabelSet, bool]:
        """A beam: of each level only the most promising labels are extended.

        Returns:
            The complete labels, and whether nothing was left out on the way.
        """
        self._uses = np.zeros(len(self._weights))
        labels, whole = self.root, True
        while labels.level < self.levels and len(labels):
            poll()
            labels = self.extended(labels)
            if len(labels) > width:
                labels, whole = labels.among(np.argpartition(-self._promise(labels), width)[:width]), False
        uses, self._uses = self._uses, None
        self.shares = uses / max(uses.sum(), 1.0)
        return labels, whole

    def walk(self, poll: Callable[[], object], open_: list[LabelSet]) -> Iterator[LabelSet]:
        """All complete labels above the target, some at a time: depth first in chunks of labels, those of largest bound first.

        Args:
            poll: called before each chunk; may raise, and `open_` then holds whatever is not finished.
            open_: the labels to begin with, of any levels; filled with those still to be extended.
        """
        while open_:
            poll()
            labels = open_[-1]
            above = np.flatnonzero(labels.bounds > self.target)
            if len(above) < len(labels):
                labels = labels.among(above)
            if not len(labels):
                open_.pop()
                continue
            if labels.level == self.levels:
                yield labels
                open_.pop()
                continue
            most = self.at_a_time(labels.level)
            if len(labels) > most:
                by = np.argpartition(-labels.bounds, most)
                made = self.extended(labels.among(by[:most]))
                open_[-1] = labels.among(by[most:])
            else:
                made = self.extended(labels)
                open_.pop()
            if len(made):
                open_.append(made)

    def bound(self, open_: list[LabelSet]) -> float:
        """The largest bound of labels that are still open, and the target if there is nothing above it."""
        return max([self.target, *(float(labels.bounds.max()) for labels in open_ if len(labels))])

    def choices(self, labels: LabelSet, number: int) -> np.ndarray:
        """(N,) the item numbers of a complete label."""
        result = np.empty(len(self._fixed_items[0]) + self.levels, dtype=np.intp)
        result[self._fixed_items[0]] = self._fixed_items[1]
        here: LabelSet | None = labels
        while here is not None and here.before is not None:
            assert here.parents is not None
            level = here.level - 1
            result[self.order[level]] = self._items[level][here.items[number]]
            number = int(here.parents[number])
            here = here.before
        return result
