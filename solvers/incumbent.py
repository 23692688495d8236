"""A good first design in a fraction of a second: Lagrangian prices for the budgets, then single-block improvements.

What exact solvers begin with where their first bound takes long, and heuristics where no random design meets the budgets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np

from formulation import Architecture, DesignProblem
from solvers.base import Run, Stopped, broken_budgets
from solvers.evaluation import Tabulated, is_tabular

_PRICES = (0.1, 1.0, 10.0)
"""First prices, per budget, where objective and budgets are scaled to vary by 1 over the space."""
_GROWTH = (4.0, 16.0)
"""Rates of the prices: a budget exceeded by the share x of its range has its price multiplied by exp(rate · x)."""
_SPREAD = (0.1, 0.3)
"""Relative spread of the values from block to block: equal blocks would all change at the same price."""
_ROUNDS = 24
"""Renewals of the prices."""
_INERTIA = 0.85
"""Weight of the earlier designs in the point where formulas are replaced by tangents; without it the tangents swing."""
_KEPT = 3
"""Designs that are improved block by block."""
_MOVES = 64
"""Most blocks changed in a design, one after another."""
_VALUED = 1 / 32
"""Share of the memory for the values of all items under as many prices as are tried at a time."""
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
        A design that was checked against the problem's budgets; None if none was found, or a quantity is a black box.
    """
    best: Architecture | None = None

    def take(design: Architecture) -> None:
        nonlocal best
        if not broken_budgets(problem, design) and (best is None or problem.objective(design) > problem.objective(best)):
            best = design
            run.record(problem.objective(best))

    if run.limits.start is not None:
        take(run.limits.start)
    if is_tabular(problem):
        # Before the table is complete there is nothing to answer with but the start, nor where memory runs short.
        with suppress(Stopped, MemoryError):
            for design in _Seeking(problem, run).designs():
                take(design)
    return best


class _Seeking:
    """One search, over arrays in which all blocks have as many states and items of a state: what a block lacks is closed.

    Attributes:
        numbers: (N, S, R) item numbers by state, as in `SearchSpace.of_state`.
        blocks: (N, rows, S, R) terms.
        joints: (N − 1, rows, S, S).
        items: (N, S, R) bool: items that no budget on a maximum rules out by itself.
        steps: (N − 1, S, S) bool: the same of the steps between neighbours.
        layered: (N, S, R) bool: items that have a layer.
    """

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self.space, self.run = problem.space, run
        self.tabulated = Tabulated(problem, run.poll)
        table, of_state = self.tabulated.table, self.space.of_state
        self.is_max, self.fixed, self.quantities = table.is_max, table.fixed, len(self.tabulated.rows)
        rows, blocks = len(table.fixed), self.space.blocks
        states, rest = np.max([own.shape for own in of_state], axis=0)
        self.numbers = np.full((blocks, states, rest), -1)
        for i, items in enumerate(of_state):
            self.numbers[i, : items.shape[0], : items.shape[1]] = items
        self.items = self.numbers >= 0
        self.blocks = np.stack([block[:, numbers] for block, numbers in zip(table.blocks, self.numbers, strict=True)])
        self.layered = np.stack([menu.layers[own] > 0 for menu, own in zip(self.space.menus, self.numbers, strict=True)])
        self.joints, self.steps = np.zeros((blocks - 1, rows, states, states)), np.zeros((blocks - 1, states, states), dtype=bool)
        for i, (step, joint) in enumerate(zip(self.space.steps, table.joints, strict=True)):
            here = slice(step.shape[0]), slice(step.shape[1])
            self.joints[i][:, *here] = joint
            self.steps[i][here] = step
        self._all_items, self._all_steps = self.items.copy(), self.steps.copy()
        for own, limit in zip(self.tabulated.rows[1:], self.tabulated.limits, strict=True):
            if own.stop - own.start == 1 and self.is_max[own.start]:
                self.items &= self.blocks[:, own.start] <= limit
                self.steps &= self.joints[:, own.start] <= limit
        # For each state those that may follow it, padded with closed steps: few where the rule for steps distinguishes blocks.
        self._most = max(1, int(self.steps.sum(axis=2).max(initial=1)))
        self._successors = np.argsort(~self.steps, axis=2, kind="stable")[:, :, : self._most]
        self._followed = np.take_along_axis(self.steps, self._successors, axis=2)
        self._joined = np.take_along_axis(self.joints, self._successors[:, None], axis=3)
        # Maxima have no slope, so that no price reaches them.
        self._summed = ~self.is_max
        low, high = (self._extreme(sign) for sign in (-1, 1))
        self.middle, self.spread = (low + high) / 2, high - low
        # What each budget varies by over the space: the unit of its excess.
        self.scales = self._ranges(self._slopes(self.middle[:, None])[0])[1:]

    def designs(self) -> Iterator[Architecture]:
        """The best designs met, as they are and improved as far as the run's limits allow."""
        starts = list(self._priced())
        yield from self._decoded(starts[:1])
        if self.run.limits.start is not None:
            items = self.space.encode(self.run.limits.start)
            starts.append(np.array([np.argwhere(own == item)[0] for own, item in zip(self.numbers, items, strict=True)]))
        yield from self._decoded(map(self._improved, starts))

    def _decoded(self, designs: Iterable[np.ndarray]) -> Iterator[Architecture]:
        """The designs of choices (N, 2) that have a layer."""
        for choices in designs:
            if self._real(choices[None])[0]:
                yield self.space.decode(self.numbers[np.arange(self.space.blocks), *choices.T])

    def _real(self, choices: np.ndarray) -> np.ndarray:
        """Bool array (n,): which designs, choices (n, N, 2), have a layer."""
        return self.layered[np.arange(self.space.blocks), choices[:, :, 0], choices[:, :, 1]].any(axis=1)

    def _extreme(self, sign: int) -> np.ndarray:
        """The largest (sign 1) or least (−1) that each row can be, each block and joint at its own extreme."""
        blocks = sign * np.where(self._all_items[:, None], sign * self.blocks, -np.inf).max(axis=(2, 3))
        joints = sign * np.where(self._all_steps[:, None], sign * self.joints, -np.inf).max(axis=(2, 3))
        return self._combined(np.concatenate((self.fixed[None], blocks, joints)).T)

    def _slopes(self, totals: np.ndarray) -> np.ndarray:
        """Slopes (n, quantities, rows) of objective and budgets at the totals (rows, n), 0 for maxima."""
        slopes = np.zeros((totals.shape[1], self.quantities, len(totals)))
        for number, rows in enumerate(self.tabulated.rows):
            if rows.stop - rows.start == 1:
                slopes[:, number, rows] = self._summed[rows]
                continue
            here = self.tabulated.read(number, totals)
            for row in range(rows.start, rows.stop):
                if self.is_max[row] or not self.spread[row] > 0:
                    continue
                # Towards the middle, so that the formula is not asked about parts that no design has.
                step = np.where(totals[row] > self.middle[row], -1, 1) * _DIFFERENCE * self.spread[row]
                moved = totals.copy()
                moved[row] += step
                with np.errstate(all="ignore"):
                    slope = (self.tabulated.read(number, moved) - here) / step
                slopes[:, number, row] = np.where(np.isfinite(slope), slope, 0.0)
        return slopes

    def _ranges(self, slopes: np.ndarray) -> np.ndarray:
        """What quantities with these slopes (…, rows) vary by over the space, at most; 1 where they do not."""
        spread = np.abs(slopes) @ self.spread
        return np.where(spread > 0, spread, 1.0)

    def _priced(self) -> np.ndarray:
        """The best designs from the rounds of pricing, best first: choices (n, N, 2)."""
        first, rate, spread = (array.ravel()[:, None] for array in np.meshgrid(_PRICES, _GROWTH, _SPREAD))
        # The last chain prices the budgets alone: it seeks the design that exceeds them least.
        first, rate, spread = (np.vstack((array, array[-1:])) for array in (first, rate, spread))
        worth = np.ones(len(first))
        worth[-1] = 0.0
        prices = np.repeat(first, self.quantities - 1, axis=1)
        tilt = np.random.default_rng(0).uniform(-1, 1, size=(self.space.blocks, 1, len(self.fixed)))
        tilt = 1 + spread * tilt
        point = np.repeat(self.middle[:, None], len(prices), axis=1)
        found = np.empty((0, self.space.blocks, 2), dtype=np.intp)
        for number in range(_ROUNDS):
            if number and self.run.out_of_time:
                break
            slopes = self._slopes(point)
            with np.errstate(over="ignore", invalid="ignore"):  # of terms beyond 1e300 or below 1e-300: it is a heuristic
                slopes /= self._ranges(slopes)[:, :, None]
                weights = worth[:, None] * slopes[:, 0] - np.einsum("vk,vkr->vr", prices, slopes[:, 1:])
            choices, possible = self._paths(weights, tilt * weights)
            if not possible.any():
                break
            totals = self._combined(self._terms(choices))
            found = np.unique(np.concatenate((found, choices[possible])), axis=0)
            found = found[self._order(found)[:_KEPT]]
            change = rate / np.sqrt(1 + number / 4) * self._excess(totals).T
            prices = np.clip(prices * np.exp(np.clip(change, -3, 3)), 1e-9, 1e9)
            point = totals if not number else np.where(self.is_max[:, None], totals, _INERTIA * point + (1 - _INERTIA) * totals)
        return found

    def _paths(self, weights: np.ndarray, tilted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The design of largest value for each of V valuations, and whether there is one: choices (V, N, 2), bool (V,).

        Args:
            weights: (V, rows) of the joints; tilted  (N, V, rows) of the blocks.
        """
        rows, (blocks, _, states, items_) = self._summed, self.blocks.shape
        portion = int(self.run.limits.memory * _VALUED / (8 * blocks * states * max(items_, self._most)))
        if len(weights) > max(portion, 1):
            halves = [
                self._paths(weights[some], tilted[:, some]) for some in (slice(len(weights) // 2), slice(len(weights) // 2, None))
            ]
            choices_, possible_ = zip(*halves, strict=True)
            return np.concatenate(choices_), np.concatenate(possible_)
        values = np.einsum("nvr,nrwi->nvwi", tilted[:, :, rows], self.blocks[:, rows])
        values = np.where(self.items[:, None], values, -np.inf)
        joints = np.einsum("vr,nrlw->nvlw", weights[:, rows], self._joined[:, rows])
        joints = np.where(self._followed[:, None], joints, -np.inf)
        items, here = values.argmax(axis=3), values.max(axis=3)
        follows = np.empty((len(joints), *here.shape[1:]), dtype=np.intp)
        after = here[-1]
        for block in reversed(range(len(joints))):
            joined = joints[block] + after[:, self._successors[block]]
            best = joined.argmax(axis=2)
            follows[block] = self._successors[block][np.arange(best.shape[1]), best]
            after = here[block] + joined.max(axis=2)
        each, state = np.arange(len(weights)), after.argmax(axis=1)
        choices = np.empty((len(weights), self.space.blocks, 2), dtype=np.intp)
        for block in range(self.space.blocks):
            if block:
                state = follows[block - 1][each, state]
            choices[:, block, 0], choices[:, block, 1] = state, items[block][each, state]
        return choices, np.isfinite(after.max(axis=1))

    def _terms(self, choices: np.ndarray) -> np.ndarray:
        """The terms (rows, 2N, n) of n designs: the fixed one, then block 1, joint 1, block 2, …, block N."""
        state, item = choices[:, :, 0].T, choices[:, :, 1].T
        numbers = np.arange(self.space.blocks)[:, None]
        terms = np.empty((len(self.fixed), 2 * self.space.blocks, len(choices)))
        terms[:, 0] = self.fixed[:, None]
        terms[:, 1::2] = self.blocks[numbers, :, state, item].transpose(2, 0, 1)
        terms[:, 2::2] = self.joints[numbers[:-1], :, state[:-1], state[1:]].transpose(2, 0, 1)
        return terms

    def _combined(self, terms: np.ndarray) -> np.ndarray:
        """Terms (rows, T, …) added up, or their maximum, as each row asks."""
        combined = np.empty((len(terms), *terms.shape[2:]))
        combined[self._summed] = terms[self._summed].sum(axis=1)
        combined[self.is_max] = terms[self.is_max].max(axis=1)
        return combined

    def _excess(self, totals: np.ndarray) -> np.ndarray:
        """By how much of its range each budget is exceeded, (K, n) for totals (rows, n)."""
        used = [self.tabulated.read(number, totals) for number in range(1, self.quantities)]
        with np.errstate(over="ignore"):  # what is more than a float holds is far beyond every other
            excess = (np.array(used).reshape(-1, totals.shape[1]) - self.tabulated.limits[:, None]) / self.scales[:, None]
        return np.where(np.isnan(excess), np.inf, excess)  # what has no value, as a formula without any layer, meets no budget

    def _order(self, choices: np.ndarray) -> np.ndarray:
        """Designs, choices (n, N, 2), best first: what meets the budgets by objective, the rest by excess; without a layer last."""
        totals, real = self._combined(self._terms(choices)), self._real(choices)
        excess = np.where(self.tabulated.feasible(totals), -np.inf, self._excess(totals).max(axis=0, initial=-np.inf))
        return np.lexsort((-self.tabulated.read(0, totals), excess, ~real))

    def _improved(self, choices: np.ndarray) -> np.ndarray:
        """A design after the best changes of one block at a time, as long as there is one that helps."""
        for _ in range(_MOVES):
            if self.run.out_of_time:
                break
            moves, totals = self._neighbours(choices)
            kept, real = self.tabulated.feasible(totals), self._still_real(choices, moves)
            any_kept = bool((kept & real).any())
            merit = np.where(kept, self.tabulated.read(0, totals), -np.inf) if any_kept else -self._excess(totals).max(axis=0)
            merit = np.where(real, merit, -np.inf)
            best = int(merit.argmax())
            own = np.flatnonzero(np.all(moves[:, 1:] == choices[moves[:, 0]], axis=1))[0]
            if not merit[best] > merit[own]:
                break
            choices = choices.copy()
            choices[moves[best, 0]] = moves[best, 1:]
        return choices

    def _still_real(self, choices: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Bool array (n,): after which moves (block, state, item of the state), (n, 3), a design has a layer."""
        own = self.layered[np.arange(len(choices)), *choices.T]
        return self.layered[*moves.T] | ((own.sum() - own)[moves[:, 0]] > 0)

    def _neighbours(self, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The designs that differ from one in a block at most, as (block, state, item of it), (n, 3), and totals (rows, n)."""
        terms, state = self._terms(choices[None])[:, :, 0], choices[:, 0]
        rows, blocks = len(terms), self.space.blocks
        # The term of block i is number 2i + 1, those of its joints are its neighbours.
        around = np.empty((4, rows, blocks, self.blocks.shape[2]))
        around[...] = np.where(self.is_max, -np.inf, 0.0)[:, None, None]
        numbers, open_states = np.arange(blocks - 1), np.ones((blocks, self.blocks.shape[2]), dtype=bool)
        around[0] = self._running(terms)[:, np.maximum(2 * np.arange(blocks) - 1, 0), None]
        around[1][:, 1:] = self.joints[numbers, :, state[:-1]].transpose(1, 0, 2)
        around[2][:, :-1] = self.joints[numbers, :, :, state[1:]].transpose(1, 0, 2)
        around[3][:, :-1] = self._running(terms[:, ::-1])[:, ::-1][:, 3::2, None]
        open_states[1:] &= self._all_steps[numbers, state[:-1]]
        open_states[:-1] &= self._all_steps[numbers, :, state[1:]]
        moves = np.argwhere(self._all_items & open_states[:, :, None])
        block, own, rest = moves.T
        fixed = self._combined(around.transpose(1, 0, 2, 3))[:, block, own]
        return moves, self._combined(np.stack((fixed, self.blocks[block, :, own, rest].T), axis=1))

    def _running(self, terms: np.ndarray) -> np.ndarray:
        """Entry t combines the terms (rows, T) up to t."""
        return np.where(self.is_max[:, None], np.maximum.accumulate(terms, axis=1), terms.cumsum(axis=1))
