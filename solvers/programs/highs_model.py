"""One linear program inside HiGHS that is changed in place and solved many times, with bounds that do not rest on HiGHS's word.

HiGHS says which multipliers to use; what they prove is computed here (Neumaier & Shcherbina 2004). For row multipliers y of any
value, and columns within finite bounds,

    c·x ≤ Σ_r max(y_r·low_r, y_r·high_r) + Σ_j max over x_j of (c_j − A_jᵀy)·x_j

where a multiplier that leans on an infinite end of its row is set to 0. The rounding of that sum is added to it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.base import EngineMissing, Stopped

ModelRow = tuple[np.ndarray, np.ndarray, float, float]
"""low ≤ coefficients · x[columns] ≤ high, as (columns, coefficients, low, high)."""

_UNIT = 2.0**-52
_BEYOND = 1e19
"""Ends of rows and columns beyond this are left out: HiGHS takes 1e20 for infinite, and refuses a lower end of so much."""
_RAY = 1e-9
"""Entries of a ray below this share of the largest are left out: they are what rounding left."""


@dataclass(frozen=True, eq=False)
class LinearBound:
    """What the multipliers of one solve prove.

    Attributes:
        bound: c·x is nowhere greater; −∞ where they prove that no x satisfies the rows, ∞ if nothing was proved.
        multipliers: y, from which `bound` follows.
        reduced: (columns,) c − Aᵀy.
        point: the x at which HiGHS ended, None if it has none.
    """

    bound: float
    multipliers: np.ndarray
    reduced: np.ndarray
    point: np.ndarray | None


class LinearModel:
    """maximize c·x subject to rows and bounds of the columns, all of which may change between two solves.

    Attributes:
        lower: (columns,) see `bound_columns`.
        upper: (columns,) see `bound_columns`.
        low: (rows,) see `bound_row`.
        high: (rows,) see `bound_row`.
        matrix: dense (rows, columns).
        solves: how many linear programs have been solved.
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray, rows: Sequence[ModelRow], poll: Callable[[], object]) -> None:
        """`poll` is called while HiGHS works, and ends that by raising Stopped."""
        if importlib.util.find_spec("highspy") is None:
            raise EngineMissing("HiGHS is not installed; install it with: pip install highspy")
        import highspy

        self._kinds = highspy.HighsModelStatus
        self._primal, self._dual = 4, 1
        self.lower, self.upper = _relaxed(np.asarray(lower), np.asarray(upper))
        self.low, self.high = _relaxed(np.array([row[2] for row in rows]), np.array([row[3] for row in rows]))
        self.matrix = np.zeros((len(rows), len(self.lower)))
        for number, (columns, coefficients, _, _) in enumerate(rows):
            np.add.at(self.matrix[number], columns, coefficients)
        self._sizes = np.abs(self.matrix)
        self.cost = np.zeros(len(self.lower))
        self.solves = 0
        self._stopped = False
        self._highs = self._made(highspy, poll)

    def _made(self, highspy: Any, poll: Callable[[], object]) -> Any:
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.matrix.shape[1], self.matrix.shape[0]
        lp.sense_ = highspy.ObjSense.kMaximize
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = self.cost, self.lower, self.upper
        lp.row_lower_, lp.row_upper_ = self.low, self.high
        where = [np.flatnonzero(row) for row in self.matrix]
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum([len(own) for own in where]))).astype(np.int32)
        lp.a_matrix_.index_ = np.concatenate(where).astype(np.int32)
        lp.a_matrix_.value_ = np.concatenate([row[own] for row, own in zip(self.matrix, where, strict=True)])
        highs = highspy.Highs()
        for name, value in {"output_flag": False, "threads": 1, "presolve": "off", "solver": "simplex"}.items():
            highs.setOptionValue(name, value)
        self._usable = highs.passModel(lp) != highspy.HighsStatus.kError

        def asked(event: Any) -> None:
            try:
                poll()
            except Stopped:
                self._stopped = True
                event.interrupt()

        highs.cbSimplexInterrupt += asked
        return highs

    def bound_columns(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Give the columns new bounds."""
        lower, upper = _relaxed(lower, upper)
        changed = np.flatnonzero((lower != self.lower) | (upper != self.upper))
        if len(changed) and self._usable:
            self.lower[changed], self.upper[changed] = lower[changed], upper[changed]
            self._highs.changeColsBounds(len(changed), changed.astype(np.int32), self.lower[changed], self.upper[changed])

    def bound_row(self, row: int, low: float, high: float) -> None:
        """Give a row new ends."""
        low = -math.inf if low <= -_BEYOND else min(low, _BEYOND)
        high = math.inf if high >= _BEYOND else max(high, -_BEYOND)
        if self._usable and (low != self.low[row] or high != self.high[row]):
            self.low[row], self.high[row] = low, high
            self._highs.changeRowBounds(row, low, high)

    def set_row(self, row: int, columns: Iterable[int], coefficients: Iterable[float]) -> None:
        """Give some coefficients of a row new values."""
        for column, value in zip(columns, coefficients, strict=True):
            if self._usable and value != self.matrix[row, column]:
                self.matrix[row, column] = value
                self._sizes[row, column] = abs(value)
                self._highs.changeCoeff(int(row), int(column), float(value))

    def maximize(self, cost: np.ndarray, primal: bool = False) -> LinearBound:
        """Solve with the objective `cost`; Stopped once `poll` says so.

        Args:
            cost: (columns,).
            primal: whether the last basis is still feasible, since only the objective has changed.
        """
        self.solves += 1
        if not self._usable:
            return LinearBound(math.inf, np.zeros(len(self.low)), cost.copy(), None)
        changed = np.flatnonzero(cost != self.cost)
        if len(changed):
            self.cost[changed] = cost[changed]
            self._highs.changeColsCost(len(changed), changed.astype(np.int32), self.cost[changed])
        self._highs.setOptionValue("simplex_strategy", self._primal if primal else self._dual)
        self._highs.run()
        if self._stopped:
            raise Stopped
        status = self._highs.getModelStatus()
        if status == self._kinds.kOptimal:
            solution = self._highs.getSolution()
            multipliers = np.array(solution.row_dual)
            bound, used, reduced = self.proved(cost, multipliers)
            return LinearBound(bound, used, reduced, np.array(solution.col_value))
        if status == self._kinds.kInfeasible:
            _, has_ray, ray = self._highs.getDualRay()
            if has_ray:
                for sign in (1.0, -1.0):
                    if (proof := self.refuted(sign * np.array(ray))) is not None:
                        return proof
        return LinearBound(math.inf, np.zeros(len(self.low)), cost.copy(), None)

    def proved(self, cost: np.ndarray, multipliers: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The bound on cost·x that multipliers prove, those of them that were used, and the reduced costs."""
        used = np.where(multipliers > 0, self.high, self.low)
        y = np.where(np.isfinite(used), multipliers, 0.0)
        ends = np.where(y != 0, y * np.where(np.isfinite(used), used, 0.0), 0.0)
        reduced = cost - y @ self.matrix
        reach = np.maximum(np.abs(self.lower), np.abs(self.upper))
        weight = np.abs(cost) + np.abs(y) @ self._sizes
        with np.errstate(invalid="ignore"):
            best = np.where(reduced > 0, reduced * self.upper, np.where(reduced < 0, reduced * self.lower, 0.0))
            size = np.abs(ends).sum() + np.where(weight > 0, weight * reach, 0.0).sum()
        rounding = _UNIT * (len(y) + len(reduced) + 4) * size
        return float(ends.sum() + best.sum() + rounding), y, reduced

    def refuted(self, ray: np.ndarray) -> LinearBound | None:
        """The proof by a ray that no x satisfies the rows; None if it is none."""
        size = np.abs(ray).max(initial=0.0)
        if not 0 < size < math.inf:
            return None
        ray = np.where(np.abs(ray) < _RAY * size, 0.0, ray) / size
        bound, used, reduced = self.proved(np.zeros(len(self.lower)), ray)
        return LinearBound(-math.inf, used, reduced, None) if bound < 0 else None


def _relaxed(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends that HiGHS takes, nowhere tighter than those given."""
    low, high = np.minimum(low, _BEYOND), np.maximum(high, -_BEYOND)
    return np.where(low <= -_BEYOND, -math.inf, low), np.where(high >= _BEYOND, math.inf, high)
