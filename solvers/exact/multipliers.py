"""Multipliers of budgets by Newton's method on a smoothed Lagrangian dual: what a linear program would give, in a few milliseconds.

For a multiple-choice knapsack problem every λ ≥ 0 bounds the values v of all designs whose costs c are within the limits b:

    L(λ) = Σ_i max_j (v_ij − λ·c_ij) + λ·b

The least L is the optimum of the linear relaxation. L has kinks; for μ > 0

    F_μ(λ) = Σ_i μ log Σ_j exp((v_ij − λ·c_ij) / μ) + λ·b − μ Σ_k log λ_k

is smooth and convex, with its minimum in λ > 0, and L ≤ F_μ + μ Σ_k log λ_k ≤ L + μ Σ_i log J_i. Its minimum is followed while μ
falls (Nesterov 2005 for the smoothing, the logarithm is the barrier of an interior-point method). There are as many unknowns as
budgets, so that a step costs one pass over the items. Nothing has to converge: the multipliers of the least L seen are returned,
and any are valid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_FIRST, _NEXT, _FALL = 0.3, 0.03, 0.12
"""The smoothing μ, in units of the mean range of a position's values: at first; where it begins near; the factor it falls by."""
_FINE, _ROUGH = 1e-5, 2e-3
"""The last μ is at most that."""
_CENTRED = 0.3
"""Newton decrement, in units of μ, below which μ falls."""
_TO_BORDER = 0.9
"""Largest share of the way to λ_k = 0 that a step takes."""
_SHORTER = 0.3
"""By what a step is shortened that does not lower F."""
_EVALUATIONS = 160
"""Most evaluations of F."""
_WORK = 1 << 20
"""Terms looked at between two looks at the clock."""


def multipliers(
    values: np.ndarray,
    costs: np.ndarray,
    limits: np.ndarray,
    poll: Callable[[], object] = lambda: None,
    floor: float = -np.inf,
    near: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each of M right-hand sides the multipliers that make L about as small as they can.

    Args:
        values: (N, J), −∞ for an item that no design has; or (M, N, J) of its own for each right-hand side.
        costs: (K, N, J), finite; K ≥ 1.
        limits: (M, K) right-hand sides.
        poll: called between evaluations; may raise.
        floor: no L below it is of use, as where it shows that no design is within the limits.
        near: (K,) multipliers to begin with, where rough ones near these are enough.

    Returns:
        (M, K) multipliers ≥ 0 and (M,) the L that they were seen to have, without a word on rounding.
    """
    (count, terms, positions, items) = (len(limits), len(costs), *values.shape[-2:])
    ranges = values.max(axis=-1) - np.where(np.isfinite(values), values, np.inf).min(axis=-1)
    unit = float(ranges.mean())
    unit = unit if np.isfinite(unit) and unit > 0 else 1.0
    spread = np.ptp(costs, axis=2).mean(axis=1)
    spread = np.where(spread > 0, spread, 1.0)
    flat = (costs / spread[:, None, None]).reshape(terms, positions * items)
    worth = (values / unit).reshape(-1, positions * items)
    room = limits / spread
    diagonal = np.arange(terms)

    def most(point: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L, (m,), at some points (m, K), and by how much each item falls short of its position's best, ≤ 0, (m, N, J)."""
        reduced = ((worth if len(worth) == 1 else worth[rows]) - point @ flat).reshape(len(rows), positions, items)
        best = reduced.max(axis=2)
        reduced -= best[:, :, None]
        return best.sum(axis=1) + (point * room[rows]).sum(axis=1), reduced

    point = np.full((count, terms), 1.0 / terms)
    smooth = np.full(count, _FIRST)
    if near is not None:
        point, smooth = np.tile(np.maximum(near * (spread / unit), 1e-3), (count, 1)), np.full(count, _NEXT)
    last = _FINE if near is None else _ROUGH
    best, least = point.copy(), np.full(count, np.inf)
    base, value, share = point.copy(), np.full(count, np.inf), np.ones(count)
    step, used, mean = np.zeros((count, terms)), np.empty(0), np.empty(0)
    rows, since = np.arange(count), 0  # those whose multipliers are still sought
    with np.errstate(all="ignore"):
        for _ in range(_EVALUATIONS):
            since += len(rows) * positions * items * terms
            if since > _WORK:
                poll()
                since = 0
            # Where the steps lead to.
            bound, weights = most(point, rows)
            weights /= smooth[:, None, None]
            np.exp(weights, out=weights)
            total = weights.sum(axis=2)
            weights /= total[:, :, None]
            there = bound + smooth * (np.log(total).sum(axis=1) - np.log(point).sum(axis=1))
            better = bound < least[rows]
            best[rows[better]], least[rows[better]] = point[better], bound[better]
            taken = (there <= value + 1e-9 * np.abs(value)) | np.isinf(value)
            if taken.any():
                used = flat * weights[taken].reshape(-1, 1, positions * items)
                mean = used.reshape(-1, terms, positions, items).sum(axis=3)
                slope = room[rows[taken]] - mean.sum(axis=2) - smooth[taken, None] / point[taken]
                curve = (used @ flat.T - mean @ mean.transpose(0, 2, 1)) / smooth[taken, None, None]
                curve[:, diagonal, diagonal] += smooth[taken, None] / point[taken] ** 2
                curve[:, diagonal, diagonal] += 1e-13 * np.abs(curve).max(axis=(1, 2))[:, None]
                try:
                    new = -np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
                except np.linalg.LinAlgError:
                    break
                decrement = -(slope * new).sum(axis=1) / smooth[taken]
                base[taken], step[taken], value[taken] = point[taken], new, there[taken]
                share[taken] = np.minimum(1.0, _TO_BORDER / np.maximum((-new / point[taken]).max(axis=1), 1e-300))
                centred = np.zeros(len(rows), dtype=bool)
                centred[taken] = decrement < _CENTRED
                done = centred & (smooth <= last)
                smooth = np.where(centred, _FALL * smooth, smooth)
                value = np.where(centred, np.inf, value)
            else:
                done = np.zeros(len(rows), dtype=bool)
            share = np.where(taken, share, _SHORTER * share)
            done |= (least[rows] * unit < floor) | ~np.isfinite(step).all(axis=1) | (share < 1e-8)
            if done.any():
                left = ~done
                rows, base, step = rows[left], base[left], step[left]
                value, share, smooth = value[left], share[left], smooth[left]
                if not len(rows):
                    break
            point = base + share[:, None] * step
        # A budget that does not bind has a multiplier of about μ / slack: without it L may be less.
        plain = np.where(best > 1e-3 * best.max(axis=1, keepdims=True), best, 0.0)
        reduced, _ = most(plain, np.arange(count))
    without = reduced <= least
    best, least = np.where(without[:, None], plain, best), np.where(without, reduced, least)
    return best * (unit / spread), least * unit
