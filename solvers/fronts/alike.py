"""Fronts of alike layers at once: where every position has the same items, only how many positions take each of them matters.

F_k, the non-dominated sums of k items, follows by doubling, F_{a+b} = non-dominated(F_a + F_b): a sum that another dominates stays
dominated whatever is added to both. A composite objective is not a sum, but it is monotone in its parts, which are; so sums are
compared in the parts, turned by their signs, in the costs to minimize and in the costs that budgets limit. Only in the last step,
when sums are whole designs, the objective itself is computed and budgets are met or not. All of this is exact: nothing is dropped
for which there isn't a design that is no worse.

Decisions that do not interact in any term, such as FFN width and heads of a layer whose terms are an attention term plus an FFN
term, are summed apart: the front of all layers is that of the sums F_N of both decisions, each far smaller than of their pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from formulation import Composite, DesignProblem, Quantity, Separable
from formulation.quantity import Combine
from formulation.table import Table, tabulate
from formulation.values import values_of_formula
from solvers.base import Run, Stopped, broken_budgets
from solvers.exact.multiple_choice import is_chain_free
from solvers.fronts.whole import Open, WholeFront
from solvers.fronts.zones import non_dominated_rows, rounded

_PORTION = 1 << 20
"""Sums made at a time."""
_WORK = 1 << 32
"""Sums that one step may make; what needs more is left to other methods."""


class _NotForIt(Exception):
    """A step makes more sums than it may, or takes more memory; or a design meets the budgets in some order of its layers alone."""


def alike_front(problem: DesignProblem, run: Run) -> WholeFront | None:
    """The front of a problem with the same items at every position, where neighbours are not linked.

    Costs and budgets are sums over layers (budgets also maxima); the objective is a composite whose parts are sums, or, without
    budgets, a sum: within budgets `solvers.fronts.knapsack` is faster. None for any other problem, and where sums become too many.
    """
    try:
        layers = _read(problem, run)
        return None if layers is None else _Doubling(problem, layers, run).front()
    except _NotForIt:
        return None
    except Stopped:
        return WholeFront(
            np.empty((0, problem.space.blocks), dtype=np.intp), (Open.everything(len(problem.minimize)),), run.why_stopped
        )


@dataclass(frozen=True, eq=False)
class _Layers:
    """What the positions have in common.

    Attributes:
        terms: (R, J) of the items at any position: the parts of the objective, the costs to minimize, the costs of budgets.
        fixed: (R,) what every design has beside them.
        signs: (R,) 1 where more is better, −1 where less is.
        parts: of the R rows those of the objective, the first of them; then come the costs, then the budgets.
        limits: (B,) of the last rows, with room for the rounding of sums in another order.
        whole: bool (R,): rows of whole numbers, which add up exactly.
        groups: per group of decisions that do not interact the value (J,) that each item has there.
    """

    terms: np.ndarray
    fixed: np.ndarray
    signs: np.ndarray
    parts: int
    limits: np.ndarray
    whole: np.ndarray
    groups: tuple[np.ndarray, ...]


def _read(problem: DesignProblem, run: Run) -> _Layers | None:
    goal, space = problem.goal, problem.space
    if space.blocks < 2 or len(set(map(len, space.menus))) > 1:
        return None
    constraints = problem.constraints
    if constraints and not isinstance(goal, Composite):
        return None
    parts = goal.parts if isinstance(goal, Composite) else (goal,)
    rows: list[Quantity] = [*parts, *problem.minimize, *(constraint.quantity for constraint in constraints)]
    if not all(isinstance(quantity, Separable) for quantity in rows):
        return None
    summed = len(parts) + len(problem.minimize)
    if any(quantity.combine is not Combine.SUM for quantity in rows[:summed]):  # type: ignore[attr-defined]
        return None
    table = tabulate(rows, space, run.poll)  # type: ignore[arg-type]
    if not is_chain_free(table):
        return None
    limits = np.array([constraint.limit for constraint in constraints])
    maxima = np.flatnonzero(table.is_max)
    if (table.fixed[maxima] > limits[maxima - summed]).any():
        allowed = np.zeros(len(space.menus[0]), dtype=bool)
    else:
        allowed = np.all([(block[maxima] <= limits[maxima - summed, None]).all(axis=0) for block in table.blocks], axis=0)
        if any(((block[maxima] <= limits[maxima - summed, None]).all(axis=0) != allowed).any() for block in table.blocks):
            return None
    common = _common_terms(table)
    if common is None:
        return None
    sums = np.flatnonzero(~table.is_max)
    budgets = sums[sums >= summed]
    room = np.array([table.rounding(slice(row, row + 1), limits[row - summed : row - summed + 1])[0] for row in budgets])
    signs = goal.signs if isinstance(goal, Composite) else (1,)
    terms, fixed = common
    whole = np.array([bool((terms[row] == np.rint(terms[row])).all() and fixed[row] == np.rint(fixed[row])) for row in sums])
    return _Layers(
        np.where(allowed, terms[sums], np.nan),
        fixed[sums],
        np.array([*signs, *[-1] * (len(sums) - len(signs))], dtype=float),
        len(parts),
        limits[budgets - summed] + 4 * room.reshape(len(budgets)),
        whole & (table.sizes[sums] < 2**52),
        _groups(space.menus[0].places if len(set(space.menus)) == 1 else {}, terms[sums], allowed),
    )


def _common_terms(table: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """Terms (R, J) that the items have at every position, and what else each design has, (R,); None where positions differ.

    What a design has for its ends is a constant of the first and the last position; it may be rounded into their terms.
    """
    middle = table.blocks[len(table.blocks) // 2]
    fixed = table.fixed.copy()
    for block in table.blocks:
        added = block[:, :1] - middle[:, :1]
        if (np.abs(block - middle - added) > 4 * 2.0**-53 * (np.abs(block) + np.abs(middle))).any():
            return None
        fixed = fixed + added[:, 0]
    return middle, fixed


def _groups(places: dict[str, np.ndarray], terms: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, ...]:
    """Decisions that interact neither in which items there are nor in any of their terms (R, J), as the values (J,) they have.

    Each axis of the menu whose terms add to those of all other axes is a group by itself; the rest are one.
    """
    several = [axis for axis in places.values() if len(np.unique(axis)) > 1]
    if not allowed.all() or len(several) < 2:
        return (np.arange(terms.shape[1]),)
    apart, rest = [], list(range(len(several)))
    for number, axis in enumerate(several):
        others = np.column_stack([own for other, own in enumerate(several) if other != number])
        other = np.unique(others, axis=0, return_inverse=True)[1].ravel()
        value = np.unique(axis, return_inverse=True)[1].ravel()
        cells = np.full((len(terms), value.max() + 1, other.max() + 1), np.nan)
        cells[:, value, other] = terms
        if np.isnan(cells).any() or (value.max() + 1) * (other.max() + 1) != terms.shape[1]:
            continue
        interaction = cells - cells[:, :1] - cells[:, :, :1] + cells[:, :1, :1]
        if (np.abs(interaction).max(axis=(1, 2)) <= 8 * 2.0**-53 * np.abs(cells).max(axis=(1, 2))).all():
            apart.append(value)
            rest.remove(number)
    if rest:
        together = np.column_stack([several[number] for number in rest])
        apart.append(np.unique(together, axis=0, return_inverse=True)[1].ravel())
    return tuple(apart)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of some layers' decisions.

    Attributes:
        totals: (n, R).
        counts: per group of decisions (n, values): how many layers take each value; none for groups that are not in the sum.
    """

    totals: np.ndarray
    counts: dict[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.totals)

    def some(self, which: np.ndarray) -> _Sums:
        """Some of the sums, by their numbers."""
        return _Sums(self.totals[which], {group: own[which] for group, own in self.counts.items()})

    def pairs(self, other: _Sums, mine: np.ndarray, its: np.ndarray, totals: np.ndarray) -> _Sums:
        """Some sums of one of these and one of the others, by their numbers."""
        counts = {group: own[mine] for group, own in self.counts.items()}
        for group, own in other.counts.items():
            counts[group] = counts[group] + own[its] if group in counts else own[its]
        return _Sums(totals, counts)


class _Doubling:
    """One search for a front."""

    def __init__(self, problem: DesignProblem, layers: _Layers, run: Run) -> None:
        self.problem, self.layers, self.run = problem, layers, run
        self.blocks = problem.space.blocks
        self.budgets = slice(len(layers.terms) - len(layers.limits), len(layers.terms))
        self.made = 0
        allowed = ~np.isnan(layers.terms).any(axis=0)
        self.items = [self._values(group, allowed) for group in range(len(layers.groups))]
        self.portion = max(min(_PORTION, run.limits.memory // (64 * len(layers.terms))), 1024)
        self.most = max(run.limits.memory // (32 * (len(layers.terms) + layers.terms.shape[1])), 1024)
        self.best = _Sums(np.empty((0, len(layers.terms))), {})
        self.values = np.empty((0, 1 + len(problem.minimize)))
        self.whole = np.concatenate(([not isinstance(problem.goal, Composite) and layers.whole[0]], layers.whole[layers.parts :]))
        self.whole = self.whole[: 1 + len(problem.minimize)]

    def _values(self, group: int, allowed: np.ndarray) -> _Sums:
        """One layer's decision of a group. Terms are of the item that has the first value in every other group.

        What that item has with the first value in this group too is counted in group 0 alone.
        """
        place = self.layers.groups[group]
        if len(self.layers.groups) == 1:
            kept = np.flatnonzero(allowed)
            return _Sums(self.layers.terms[:, kept].T, {0: np.eye(len(place), dtype=np.int16)[kept]})
        others = [own == own[0] for number, own in enumerate(self.layers.groups) if number != group]
        base = np.flatnonzero(np.all(others, axis=0))
        first = base[np.argsort(place[base], kind="stable")]
        terms = self.layers.terms[:, first].T
        if group:
            terms = terms - self.layers.terms[:, :1].T
        return _Sums(terms, {group: np.eye(len(first), dtype=np.int16)})

    def front(self) -> WholeFront:
        """See the module."""
        left: tuple[Open, ...] = ()
        if not all(len(items) for items in self.items):
            return WholeFront(np.empty((0, self.blocks), dtype=np.intp), (), "no item meets a budget")
        try:
            if len(self.items) == 1:
                half, other = self._half(0)
            else:
                powers = sorted((self._sum(*self._half(group), group) for group in range(len(self.items))), key=len)
                half, other = powers[0], powers[-1]
                for between in powers[1:-1]:
                    half = self._sum(half, between)
            self._finish(half, other)
            self._check_budgets()
            message, choices = "", self._choices(self.best)
        except Stopped:
            message, left = f"; {self.run.why_stopped}", (Open.everything(len(self.problem.minimize)),)
            # What can be said without any sum: every layer with the same item.
            same = np.repeat(np.arange(self.layers.terms.shape[1])[:, None], self.blocks, axis=1)
            choices = np.concatenate((self._choices(self.best), same))
        groups = "" if len(self.items) == 1 else f" of {len(self.items)} decisions that do not interact"
        message = f"sums of {self.blocks} alike layers by doubling{groups}, {self.made:,} sums{message}"
        return WholeFront(choices, left, message)

    def _half(self, group: int) -> tuple[_Sums, _Sums]:
        """F_a and F_b of a group with a + b = N, a = b or a + 1 = b."""

        def power(count: int) -> _Sums:
            if count == 1:
                return self._kept(self.items[group], 1, group)
            half = power(count // 2)
            double = self._sum(half, half, group, 2 * (count // 2))
            return double if count % 2 == 0 else self._sum(double, power(1), group, count)

        half = power(self.blocks // 2)
        return half, half if self.blocks % 2 == 0 else self._sum(half, power(1), group, self.blocks // 2 + 1)

    def _kept(self, sums: _Sums, layers: int, group: int) -> _Sums:
        """Sums of a group without those that exceed a budget whatever else is chosen, or that others dominate."""
        kept = np.flatnonzero(self._affordable(sums.totals, self._least(group, layers)))
        kept = kept[non_dominated_rows(self._compared(sums.totals[kept], (group,)))]
        return sums.some(kept)

    def _least(self, group: int | None, layers: int) -> np.ndarray:
        """What the rest of a design costs at least in each budget, if a group has some layers so far; None: all groups have all."""
        least = self.layers.fixed[self.budgets].copy()
        for number, items in enumerate(self.items):
            left = self.blocks - layers if number == group else 0 if group is None else self.blocks
            least += left * items.totals[:, self.budgets].min(axis=0)
        return least

    def _affordable(self, totals: np.ndarray, least: np.ndarray) -> np.ndarray:
        limits = self.layers.limits
        return (totals[:, self.budgets] + least <= limits + 1e-12 * np.abs(limits)).all(axis=1)

    def _compared(self, totals: np.ndarray, groups: tuple[int, ...]) -> np.ndarray:
        """What sums of some groups are compared in: the rows that differ within these groups, all to be large."""
        differ = np.any([np.ptp(self.items[group].totals, axis=0) > 0 for group in groups], axis=0)
        rows = np.flatnonzero(differ)
        if not len(rows):
            rows = np.array([0])
        return rounded(totals[:, rows] * self.layers.signs[rows], self.layers.whole[rows])

    def _portions(self, some: _Sums, others: _Sums) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The sums of two sets, in portions: numbers of the first, of the second, totals."""
        if len(some) * len(others) > _WORK:
            raise _NotForIt
        step = max(self.portion // len(others), 1) if len(others) else 1
        for start in range(0, len(some), step):
            self.run.poll()
            totals = (some.totals[start : start + step, None] + others.totals[None]).reshape(-1, len(self.layers.terms))
            self.made += len(totals)
            number = np.arange(len(totals))
            yield start + number // len(others), number % len(others), totals

    def _sum(self, some: _Sums, others: _Sums, group: int | None = None, layers: int | None = None) -> _Sums:
        """The non-dominated sums of two sets, of a group with so many layers (all unless given), or of several whole groups."""
        layers = self.blocks if layers is None else layers
        groups = tuple({**some.counts, **others.counts})
        least = self._least(group, layers) if group is not None else self._rest(groups)
        found: list[_Sums] = []
        for mine, its, totals in self._portions(some, others):
            kept = np.flatnonzero(self._affordable(totals, least))
            kept = kept[non_dominated_rows(self._compared(totals[kept], groups))]
            found.append(some.pairs(others, mine[kept], its[kept], totals[kept]))
            if sum(map(len, found)) > self.most:
                raise _NotForIt
        joined = _joined(found, len(self.layers.terms))
        kept = non_dominated_rows(self._compared(joined.totals, groups)) if len(found) > 1 else np.arange(len(joined))
        return joined.some(kept)

    def _rest(self, groups: tuple[int, ...]) -> np.ndarray:
        """What groups beside some whole ones cost at least in each budget."""
        least = self.layers.fixed[self.budgets].copy()
        for number, items in enumerate(self.items):
            if number not in groups:
                least += self.blocks * items.totals[:, self.budgets].min(axis=0)
        return least

    def _finish(self, some: _Sums, others: _Sums) -> None:
        """The non-dominated designs among the sums of two sets that make whole designs."""
        for mine, its, totals in self._portions(some, others):
            totals = totals + self.layers.fixed
            kept = np.flatnonzero(self._affordable(totals, np.zeros(len(self.layers.limits))))
            totals = totals[kept]
            candidates = some.pairs(others, mine[kept], its[kept], totals)
            values = self._values_of(candidates)
            self._merge(candidates, values)

    def _values_of(self, designs: _Sums) -> np.ndarray:
        """Objective and negated costs (n, D), rounded."""
        parts, goal = designs.totals[:, : self.layers.parts].T, self.problem.goal
        if isinstance(goal, Composite):

            def design(number: int) -> object:
                return self.problem.space.decode(self._choices(designs.some(np.array([number])))[0])

            objective = values_of_formula(goal, parts, design)
        else:
            objective = parts[0]
        costs = designs.totals[:, self.layers.parts : self.layers.parts + len(self.problem.minimize)]
        return rounded(np.column_stack((objective, -costs)), self.whole)

    def _merge(self, designs: _Sums, values: np.ndarray) -> None:
        """Add the non-dominated ones of some designs that do meet the budgets to the best."""
        if len(self.values) and values.shape[1] == 2:
            # Those that a known one dominates: objectives rise along the negated costs, the largest first.
            order = np.argsort(-self.values[:, 1])
            at = np.searchsorted(-self.values[order, 1], -values[:, 1], side="right")
            reached = np.concatenate(([-np.inf], np.maximum.accumulate(self.values[order, 0])))
            fresh = np.flatnonzero(values[:, 0] > reached[at])
        else:
            fresh = np.arange(len(values))
        best = fresh[non_dominated_rows(values[fresh])]
        joined = _joined([self.best, designs.some(best)], 0)
        both = np.concatenate((self.values, values[best]))
        kept = non_dominated_rows(both)
        self.best, self.values = joined.some(kept), both[kept]

    def _check_budgets(self) -> None:
        """Ask the designs near a limit for what they really use: sums may be rounded, and so depend on the order of layers."""
        limits = self.layers.limits
        used = self.best.totals[:, self.budgets]
        size = np.abs(limits) + self.blocks * np.nanmax(np.abs(self.layers.terms[self.budgets]), axis=1, initial=0.0)
        near = (used > limits - 1e-9 * size) & ~self.layers.whole[self.budgets]
        for choices in self._choices(self.best.some(np.flatnonzero(near.any(axis=1)))):
            if broken_budgets(self.problem, self.problem.space.decode(choices)):
                raise _NotForIt

    def _choices(self, designs: _Sums) -> np.ndarray:
        """Designs that take each value of each group so often, as item numbers (n, N)."""
        chosen = np.empty((len(designs), self.blocks), dtype=np.intp)
        groups = self.layers.groups
        item_of = {values: item for item, values in enumerate(zip(*(group.tolist() for group in groups), strict=True))}
        for number in range(len(designs)):
            taken = [np.repeat(np.arange(own.shape[1]), own[number]) for _, own in sorted(designs.counts.items())]
            chosen[number] = [item_of[values] for values in zip(*(own.tolist() for own in taken), strict=True)]
        return chosen


def _joined(sets: list[_Sums], rows: int) -> _Sums:
    """All sums of some sets, of which empty ones may lack counts."""
    filled = [own for own in sets if len(own)]
    if not filled:
        return sets[-1] if sets else _Sums(np.empty((0, rows)), {})
    totals = np.concatenate([own.totals for own in filled])
    return _Sums(totals, {group: np.concatenate([own.counts[group] for own in filled]) for group in filled[0].counts})
