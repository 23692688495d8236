"""Where a front may have further points: the zones that the known points leave, and the corners that a missing point exceeds."""

from __future__ import annotations

import numpy as np

from solvers.base import ROUNDING

_DIGITS = 42
"""Bits that values are rounded to, a relative 2.3e-13: sums of equal terms in other orders become the same."""


def rounded(values: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Values (n, D) to maximize, rounded so that equal ones are the same; columns of whole numbers (bool (D,)) stay as they are."""
    fraction, exponent = np.frexp(values)
    return np.where(whole, values, np.ldexp(np.rint(np.ldexp(fraction, _DIGITS)), exponent - _DIGITS))


def non_dominated_rows(values: np.ndarray) -> np.ndarray:
    """Indices of the rows (n, D), all to maximize, that no other dominates; of equal rows the first."""
    if values.shape[1] == 2:
        order = np.lexsort((-values[:, 1], -values[:, 0]))
        second = values[order, 1]
        before = np.concatenate(([-np.inf], np.maximum.accumulate(second[:-1]))) if len(second) else second
        return order[second > before]
    import moocore

    kept = moocore.is_nondominated(values, maximise=True, keep_weakly=False) if len(values) else np.zeros(0, dtype=bool)
    return np.flatnonzero(kept)


class Zones:
    """The parts of the space of D values, all to maximize, that no known point dominates.

    A zone of corner u holds the values y with y_j > u_j for every j. Together the zones hold whatever is not weakly dominated by a
    known point (the local upper bounds of Klamroth, Lacour & Vanderpooten 2015, turned round): a missing point of the front lies in
    one at least, and dominates its corner.

    Attributes:
        corners: (G, D), −∞ where nothing bounds a zone.
        closed: bool (G,): zones of which it is proved that no point is missing; what a known point leaves of one stays closed.
        tried: (G,) how wide a search has been in each.
        points: (n, D) the known points, in the order in which they came; later ones may dominate earlier ones.
    """

    def __init__(self, dimensions: int) -> None:
        self.corners = np.full((1, dimensions), -np.inf)
        self.closed = np.zeros(1, dtype=bool)
        self.tried = np.zeros(1)
        self._points = np.empty((16, dimensions))
        self._count = 0

    @property
    def points(self) -> np.ndarray:
        return self._points[: self._count]

    def add(self, point: np.ndarray) -> bool:
        """Add a point; False, and nothing changes, if a known one is as good in every value."""
        hit = (self.corners < point).all(axis=1)
        if not hit.any():
            return False
        if self._count == len(self._points):
            self._points = np.concatenate((self._points, np.empty_like(self._points)))
        self._points[self._count] = point
        self._count += 1
        inside, closed, tried = self.corners[hit], self.closed[hit], self.tried[hit]
        corners, flags, widths = [self.corners[~hit]], [self.closed[~hit]], [self.tried[~hit]]
        for j, value in enumerate(point):
            raised = inside.copy()
            raised[:, j] = value
            kept = _least_rows(raised) if len(raised) > 1 else slice(None)
            corners.append(raised[kept])
            flags.append(closed[kept])
            widths.append(tried[kept])
        self.corners, self.closed, self.tried = np.concatenate(corners), np.concatenate(flags), np.concatenate(widths)
        return True


def _least_rows(corners: np.ndarray) -> np.ndarray:
    """Indices of the corners whose zones no other zone holds; of equal ones the first."""
    below = (corners[:, None] <= corners[None]).all(axis=2)  # below[a, b]: zone b lies in zone a
    equal = below & below.T
    number = np.arange(len(corners))
    return np.flatnonzero(~(below & (~equal | (number[:, None] < number[None]))).any(axis=0))


def targets_of(corners: np.ndarray, steps: np.ndarray, least: np.ndarray) -> np.ndarray:
    """The least values (G, D) that a point has which exceeds a corner by more than fronts distinguish.

    Args:
        corners: (G, D), the objective first, then the negated costs.
        steps: (D,) all values are multiples of it, 0 where they are not whole.
        least: (D,) no design has less.
    """
    shares = np.full(corners.shape[1], 5 * ROUNDING)
    shares[0] = ROUNDING / 2
    exceeded = corners + np.where(steps > 0, steps, shares * np.where(np.isfinite(corners), np.abs(corners), 0.0))
    return np.where(np.isneginf(corners), least, exceeded)
