"""A good first design in a fraction of a second: Lagrangian prices for the budgets, then single-block improvements.

What exact solvers begin with where their first bound takes long, and heuristics where no random design meets the budgets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from formulation import Architecture, DesignProblem
from formulation.table import Table
from solvers.base import Run, broken_budgets
from solvers.evaluation import Tabulated, is_tabular

_STARTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""First prices, per budget, where objective and budgets are scaled to vary by 1 over the space."""
_STEPS = (4.0, 16.0)
"""Growth rates of the prices: a budget exceeded by the share x of its range has its price multiplied by exp(step · x)."""
_ROUNDS = 24
"""Renewals of the prices."""
_MEMORY = 0.6
"""Weight of the earlier designs in the point where formulas are replaced by tangents; without it the tangents swing."""
_KEPT = 3
"""Designs that are improved block by block."""
_MOVES = 64
"""Most blocks changed in a design, one after another."""
_DIFFERENCE = 1e-4
"""Step of the finite differences of a formula, as a share of the range of the part."""


def quick_incumbent(problem: DesignProblem, run: Run) -> Architecture | None:
    """A design that meets the budgets, usually within some per cent of the optimum; proves nothing.

    Maximizes objective − Σ λ_k · cost_k over the layered DAG for several prices λ ≥ 0 at once, formulas replaced by their
    tangents, raises the price of each exceeded budget and lowers that of the others. Then improves the best designs met by
    changing one block at a time, or mends them where all exceed a budget.

    The result is deterministic unless `run` is stopped meanwhile. Its objective is recorded in the trace; `run.evaluations`
    stays as it is, since the designs are only read off a table.

    Args:
        problem: any problem; the budgets are its own.
        run: its `limits.start` is a candidate; once it is stopped, the best design so far is returned.

    Returns:
        A design that was checked against the problem's budgets; None where none was found, or a quantity is a black box.
    """
    start = run.limits.start
    found = [] if start is None else [start]
    if is_tabular(problem) and not run.stopped:
        found += _Seeking(problem, run).designs()
    kept = [design for design in found if not broken_budgets(problem, design)]
    best = max(kept, key=problem.maximize, default=None)
    if best is not None:
        run.record(problem.maximize(best))
    return best


class _Seeking:
    """One search: the table, what of it may be used, and the scales of objective and budgets."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self.space, self.run = problem.space, run
        self.tabulated = Tabulated(problem)
        self.table = self.tabulated.table
        self.is_max, self.quantities = self.table.is_max, len(self.tabulated.rows)
        low, high = (_extremes(self.table, pick) for pick in (np.min, np.max))
        self.middle, self.step = (low + high) / 2, _DIFFERENCE * (high - low)
        # Maxima have no price: what a budget on a maximum rules out is left out from the start.
        self.blocks = [np.where(self.is_max[:, None], 0.0, block) for block in self.table.blocks]
        self.joints = [np.where(self.is_max[:, None, None], 0.0, joint) for joint in self.table.joints]
        self.open_items, self.open_steps = self._open()
        # What each budget varies by over the space: the unit of its excess.
        self.scales = self._ranges(self._tangents(self.middle[:, None])[0])[1:]

    def designs(self) -> list[Architecture]:
        """The best designs met, improved as far as the run's limits allow."""
        starts = list(self._priced())
        if self.run.limits.start is not None:
            starts.append(np.array(self.space.encode(self.run.limits.start)))
        return [self.space.decode(self._improved(choices)) for choices in starts]

    def _open(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Per block the items, and per pair of neighbours the steps, that no budget on a maximum rules out by itself."""
        items = [np.ones(block.shape[1], dtype=bool) for block in self.table.blocks]
        steps = [step.copy() for step in self.space.steps]
        for rows, limit in zip(self.tabulated.rows[1:], self.tabulated.limits, strict=True):
            if rows.stop - rows.start == 1 and self.is_max[rows.start]:
                items = [kept & (block[rows.start] <= limit) for kept, block in zip(items, self.table.blocks, strict=True)]
                steps = [kept & (joint[rows.start] <= limit) for kept, joint in zip(steps, self.table.joints, strict=True)]
        return items, steps

    def _tangents(self, totals: np.ndarray) -> np.ndarray:
        """Slopes (n, quantities, rows) of objective and budgets at the totals (rows, n), 0 for maxima."""
        slopes = np.zeros((totals.shape[1], self.quantities, len(totals)))
        for number, rows in enumerate(self.tabulated.rows):
            if rows.stop - rows.start == 1:
                slopes[:, number, rows] = ~self.is_max[rows]
                continue
            here = self.tabulated.read(number, totals)
            for row in np.flatnonzero(~self.is_max[rows] & (self.step[rows] > 0)) + rows.start:
                # Towards the middle, so that the formula is not asked about parts that no design has.
                step = np.where(totals[row] > self.middle[row], -1, 1) * self.step[row]
                moved = totals.copy()
                moved[row] += step
                with np.errstate(all="ignore"):
                    slope = (self.tabulated.read(number, moved) - here) / step
                slopes[:, number, row] = np.where(np.isfinite(slope), slope, 0.0)
        return slopes

    def _ranges(self, slopes: np.ndarray) -> np.ndarray:
        """What quantities with these slopes (…, rows) vary by over all blocks, each on its own; 1 where they do not."""
        spread = sum(np.ptp(slopes @ block, axis=-1) for block in self.blocks)
        return np.where(spread > 0, spread, 1.0)

    def _priced(self) -> np.ndarray:
        """The best designs from the rounds of pricing, best first: choices (n, N)."""
        budgets = self.quantities - 1
        prices = np.repeat(_STARTS, len(_STEPS))[:, None] * np.ones(budgets)
        growth = np.tile(_STEPS, len(_STARTS))[:, None]
        # The last chain prices the budgets alone: it seeks the design that exceeds them least.
        prices, growth = np.vstack((prices, np.ones((1, budgets)))), np.vstack((growth, growth[-1:]))
        worth = np.ones(len(prices))
        worth[-1] = 0.0
        point = np.repeat(self.middle[:, None], len(prices), axis=1)
        found = np.empty((0, self.space.blocks), dtype=np.intp)
        for number in range(_ROUNDS):
            if number and self.run.stopped:
                break
            slopes = self._tangents(point)
            slopes /= self._ranges(slopes)[:, :, None]
            choices, possible = self._paths(worth[:, None] * slopes[:, 0] - np.einsum("vk,vkr->vr", prices, slopes[:, 1:]))
            if not possible.any():
                break
            totals = self._combined(self._terms(choices))
            found = np.unique(np.vstack((found, choices[possible])), axis=0)
            found = found[self._order(self._combined(self._terms(found)))[:_KEPT]]
            prices = np.clip(prices * np.exp(np.clip(growth / np.sqrt(1 + number / 4) * self._excess(totals).T, -3, 3)), 1e-9, 1e9)
            point = np.where(self.is_max[:, None] | (number == 0), totals, _MEMORY * point + (1 - _MEMORY) * totals)
        return found

    def _paths(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The design of largest value for each of V valuations weights (V, rows): choices (V, N), and whether there is one."""
        each, after = np.arange(len(weights)), np.zeros((len(weights), 1))
        items, follows = [], []
        for block in reversed(range(self.space.blocks)):
            values = weights @ self.blocks[block]
            values[:, ~self.open_items[block]] = -np.inf
            values = values.reshape(len(weights), len(self.space.menus[block].widths), -1)
            items.append(values.argmax(axis=2))
            here = values.max(axis=2) + after
            if block:
                joints = np.tensordot(weights, self.joints[block - 1], axes=1)
                joined = np.where(self.open_steps[block - 1], joints + here[:, None], -np.inf)
                follows.append(joined.argmax(axis=2))
                after = joined.max(axis=2)
        width, choices = here.argmax(axis=1), np.empty((len(weights), self.space.blocks), dtype=np.intp)
        for block, menu in enumerate(self.space.menus):
            if block:
                width = follows[-block][each, width]
            choices[:, block] = width * (len(menu) // len(menu.widths)) + items[-1 - block][each, width]
        return choices, np.isfinite(here.max(axis=1))

    def _terms(self, choices: np.ndarray) -> np.ndarray:
        """The terms (rows, 2N, n) of n designs: the fixed one, then block 1, joint 1, block 2, …, block N."""
        terms = [np.repeat(self.table.fixed[:, None], len(choices), axis=1), self.table.blocks[0][:, choices[:, 0]]]
        widths = [menu.width_of[column] for menu, column in zip(self.space.menus, choices.T, strict=True)]
        for i, joint in enumerate(self.table.joints):
            terms += [joint[:, widths[i], widths[i + 1]], self.table.blocks[i + 1][:, choices[:, i + 1]]]
        return np.stack(terms, axis=1)

    def _combined(self, terms: np.ndarray) -> np.ndarray:
        """Terms (rows, T, …) added up, or their maximum, as each row asks."""
        shape = (-1, *[1] * (terms.ndim - 2))
        sums = np.where(self.is_max.reshape(-1, *[1] * (terms.ndim - 1)), 0.0, terms).sum(axis=1)
        return np.where(self.is_max.reshape(shape), terms.max(axis=1), sums) if self.is_max.any() else sums

    def _excess(self, totals: np.ndarray) -> np.ndarray:
        """By how much of its range each budget is exceeded, (K, n) for totals (rows, n)."""
        used = [self.tabulated.read(number, totals) for number in range(1, self.quantities)]
        return (np.array(used).reshape(-1, totals.shape[1]) - self.tabulated.limits[:, None]) / self.scales[:, None]

    def _order(self, totals: np.ndarray) -> np.ndarray:
        """Designs by their totals (rows, n), best first: those that meet the budgets by objective, the others by excess."""
        excess = np.where(self.tabulated.feasible(totals), -np.inf, self._excess(totals).max(axis=0, initial=-np.inf))
        return np.lexsort((-self.tabulated.read(0, totals), excess))

    def _improved(self, choices: np.ndarray) -> np.ndarray:
        """A design after the best changes of one block at a time, as long as there is one that helps."""
        for _ in range(_MOVES):
            if self.run.stopped:
                break
            block, item, totals = self._neighbours(choices)
            kept = self.tabulated.feasible(totals)
            merit = self.tabulated.read(0, totals) if kept.any() else -self._excess(totals).max(axis=0)
            merit = np.where(kept | ~kept.any(), merit, -np.inf)
            best, own = int(merit.argmax()), int(np.flatnonzero(choices[block] == item)[0])
            if merit[best] <= merit[own]:
                break
            choices = choices.copy()
            choices[block[best]] = item[best]
        return choices

    def _neighbours(self, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The designs that differ from one in a block at most: block (n,), its item (n,) and the totals (rows, n)."""
        menus, steps, last = self.space.menus, self.space.steps, self.space.blocks - 1
        terms = self._terms(choices[None])[:, :, 0]
        before, after = self._accumulated(terms), self._accumulated(terms[:, ::-1])[:, ::-1]
        widths = [menu.width_of[item] for menu, item in zip(menus, choices, strict=True)]
        blocks, items, totals = [], [], []
        for block, menu in enumerate(menus):
            # The term of block i is number 2i + 1, those of its joints are its neighbours.
            own = [np.repeat(before[:, max(2 * block - 1, 0), None], len(menu.widths), axis=1)]
            allowed = np.ones(len(menu.widths), dtype=bool)
            if block:
                own.append(self.table.joints[block - 1][:, widths[block - 1]])
                allowed &= steps[block - 1][widths[block - 1]]
            if block < last:
                own += [self.table.joints[block][:, :, widths[block + 1]]]
                own.append(np.repeat(after[:, 2 * block + 3, None], len(menu.widths), axis=1))
                allowed &= steps[block][:, widths[block + 1]]
            around = self._combined(np.stack(own, axis=1))
            item = np.flatnonzero(allowed[menu.width_of])
            blocks.append(np.full(len(item), block))
            items.append(item)
            totals.append(self._combined(np.stack((around[:, menu.width_of[item]], self.table.blocks[block][:, item]), axis=1)))
        return np.concatenate(blocks), np.concatenate(items), np.concatenate(totals, axis=1)

    def _accumulated(self, terms: np.ndarray) -> np.ndarray:
        """Entry t combines the terms (rows, T) up to t."""
        sums = np.where(self.is_max[:, None], 0.0, terms).cumsum(axis=1)
        return np.where(self.is_max[:, None], np.maximum.accumulate(terms, axis=1), sums)


def _extremes(table: Table, pick: Callable[..., np.ndarray]) -> np.ndarray:
    """The least or greatest (rows,) that each quantity can be, each block and joint at its own extreme."""
    terms = [table.fixed, *(pick(array.reshape(len(array), -1), axis=1) for array in (*table.blocks, *table.joints))]
    sums = np.sum([np.where(table.is_max, 0.0, term) for term in terms], axis=0)
    return np.where(table.is_max, reduce(np.maximum, terms), sums)
