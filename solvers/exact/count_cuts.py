"""Where a box of counts is cut in two: at a part while planes are what its bound rests on, else at a whole number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from solvers.exact.counted_problem import CountedProblem
from solvers.exact.part_boxes import BoxedFormula

APART = 1e-6
"""Distance from a whole number, and relative distance between values, that is put down to an engine's tolerance."""
_FRACTION = 1e-4
"""Distance from a whole number from which on a part that is one is cut there."""
_PLANES = 0.1
"""Share of the distance between bound and incumbent from which on planes are to blame, so that a part is cut."""
_MIDDLE = 0.2
"""Share of a range that both parts of a cut have at least."""
_WIDE = 4
"""Whole numbers in the range of a part from which on it is cut before others."""
_NOISE = 1e-9
"""Relative to the size of a formula: by less than this a point is not above it, but for an engine's tolerance."""
_FINEST = 1e-3
"""Share of its whole range below which the range of a part is not cut further."""
_FEW = 256
"""Where about so many designs are left only whole numbers are cut, each of which settles some."""
_CUTS = 12
"""Most cuts of parts, one in another, while whole numbers are still to be cut."""


@dataclass(frozen=True)
class Cut:
    """A column is at most `at` in one half, and at least `after` in the other."""

    column: int
    at: float
    after: float

    def halves(self, lower: np.ndarray, upper: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ranges of the columns in each half of a box, without one that has nothing in it."""
        below, above, column = upper.copy(), lower.copy(), self.column
        below[column], above[column] = min(self.at, upper[column]), max(self.after, lower[column])
        return [half for half in ((lower, below), (above, upper)) if half[0][column] <= half[1][column]]


def cut_of_whole(counted: CountedProblem, point: np.ndarray) -> Cut | None:
    """At a column that should be whole: whether a state is used, before how often, before items; None if all are."""
    off, whole, program = counted.fractions(point), counted.whole, counted.program
    if off.max(initial=0.0) <= APART:
        return None
    column = int(whole[off.argmax()])
    for group, least in ((program.totals, 1e-2), (program.used, APART)):
        among = np.isin(whole, group) & (off > least)
        if among.any():
            column = int(whole[np.where(among, off, -1.0).argmax()])
    at = math.floor(point[column])
    return Cut(column, at, at + 1)


def cut_of_parts(
    counted: CountedProblem, lower: np.ndarray, upper: np.ndarray, point: np.ndarray, distance: float, cuts: int
) -> Cut | None:
    """At a part; None if a whole column is to be cut.

    Args:
        counted: whose columns they are.
        lower: of the columns.
        upper: of the columns.
        point: where the program of the box ended.
        distance: of its bound from the incumbent.
        cuts: how often parts have been cut already.
    """
    units = counted.units.copy()
    units[counted.whole] = 0.0
    for column in np.flatnonzero(units):
        share = point[column] / units[column]
        if abs(share - np.rint(share)) > _FRACTION:
            at = units[column] * math.floor(share)
            return Cut(int(column), at, at + units[column])
    whole = counted.fractions(point).max(initial=0.0) <= APART
    found: list[tuple[float, Cut]] = []
    for formula in counted.formulas if cuts < _CUTS and _left(counted, upper) > _FEW else ():
        parts = point[formula.columns] / formula.scales
        with np.errstate(all="ignore"):
            value = float(formula.composite.formula(parts))
        over = formula.claimed(point) - value
        if formula is counted.goal_formula:
            blamed = over > (0.0 if whole else _PLANES) * distance or not math.isfinite(distance)
        else:
            blamed = whole and over > APART * abs(value)
        if blamed and over > _NOISE * formula.size:
            found += _of_formula(counted, formula, parts, lower, upper, point)
    if whole:
        found += _of_maxima(counted, lower, upper, point)
    return min(found, key=lambda each: each[0])[1] if found else None


def _left(counted: CountedProblem, upper: np.ndarray) -> int:
    """At most how many designs are left in a box: in how many ways N blocks may be drawn from the items that are open."""
    program, blocks = counted.program, counted.blocks
    items = int((1 + blocks.longest)[upper[program.items] > 0].sum())
    return math.comb(items + blocks.count - 1, blocks.count)


def _of_formula(
    counted: CountedProblem, formula: BoxedFormula, parts: np.ndarray, lower: np.ndarray, upper: np.ndarray, point: np.ndarray
) -> Iterator[tuple[float, Cut]]:
    """Cuts of each part of a formula, with what its planes leave at a point."""
    for column in map(int, formula.columns):
        low, high, unit = lower[column], upper[column], counted.units[column]
        if high - low <= (0.5 * unit if unit else _FINEST * (counted.program.upper[column] - counted.program.lower[column])):
            continue
        if unit:
            first, last = math.ceil(low / unit - APART), math.floor(high / unit + APART) - 1
            at = unit * min(max(math.floor(point[column] / unit + APART), first), last)
            cut = Cut(column, at, at + unit)
        else:
            at = min(max(point[column], low + _MIDDLE * (high - low)), high - _MIDDLE * (high - low))
            cut = Cut(column, at, at)
        if unit and high - low > _WIDE * unit:
            yield -math.inf, cut
            continue
        halves = [half for half in cut.halves(lower, upper) if formula.narrow(*(end.copy() for end in half))]
        yield max((formula.at(*half, parts) for half in halves), default=-math.inf), cut


def _of_maxima(counted: CountedProblem, lower: np.ndarray, upper: np.ndarray, point: np.ndarray) -> Iterator[tuple[float, Cut]]:
    """Cuts between what the column of a maximum says at a design and what the maximum is."""
    for column, (row, scale) in counted.maxima.items():
        most = float(counted.program.values(row, point).max())
        below = float(np.nextafter(most, -math.inf))
        if point[column] / scale < most - APART * abs(most) and lower[column] < scale * most <= upper[column]:
            yield 0.0, Cut(column, scale * below, scale * most)
