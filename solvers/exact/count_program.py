"""The linear program over counts: how many blocks take each item, and where blocks are linked a path over the states used.

    Σ_i n_i = N                                  n_i whole, 0 … N
    y_s ≤ Σ_{i of s} n_i ≤ N·y_s                 y_s: whether state s is used
    Σ_s source_s = 1,  Σ_s sink_s = 1            the first and the last state of a design
    source_s + Σ_r arc_rs = y_s = sink_s + Σ_t arc_st     where states grow: the path source → states used → sink carries the joints
    source_s + sink_s ≤ Σ_{i of s} n_i           where any item may follow any other

With whole n and y a path that visits every state used, in their order, is the only one, so arcs need not be asked to be whole.
Every sum is written relative to its least item, which Σ n = N allows: what cancels does so here, in float64. A maximum M has a
column too. It lies above the mean of what the blocks have, and above the least term of each state used; a box in M closes items
beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from solvers.exact.alike_blocks import AlikeBlocks
from solvers.programs.highs_model import ModelRow
from solvers.programs.linear_form import power_of_two

SIZE = 2.0**7
"""What sums and parts are scaled to, by powers of two: a row's feasibility tolerance of 1e-7 is then a share of 1e-9."""


@dataclass(frozen=True, eq=False)
class Linear:
    """constant + coefficients · x[columns], a sum over a design's terms, with the most that rounding may change it by."""

    columns: np.ndarray
    coefficients: np.ndarray
    constant: float
    error: float


@dataclass(eq=False)
class CountProgram:
    """Columns and rows while they are put together.

    Attributes:
        blocks: what they are read from.
        lower: of the columns.
        upper: of the columns.
        whole: which columns are whole numbers.
        rows: see `ModelRow`.
        step_rows: steps ≤ longest · n, of the kinds that are `longer`.
        layered: the row that asks for a layer, −1 if there is none.
        items: the columns of the items; `first`, `last`, `used` those of the states, empty where nothing is linked.
    """

    blocks: AlikeBlocks
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[ModelRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        blocks = self.blocks
        count, states = blocks.count, blocks.states
        self.items = np.array([self.column(0, count, True) for _ in blocks.state])
        longer = np.flatnonzero(blocks.longest)
        self.longer = longer
        self.steps = np.array([self.column(0, count * blocks.longest[kind], True) for kind in longer], dtype=np.intp)
        self.step_rows = []
        for kind, steps in zip(longer, self.steps, strict=True):
            row = self.row([steps, self.items[kind]], [1.0, -blocks.longest[kind]], -math.inf, 0.0)
            self.step_rows.append(row)
        self.first = self.last = self.used = self.totals = self.arcs = np.zeros(0, dtype=np.intp)
        self.pairs: list[tuple[int, int]] = []
        self.links: list[int] = []
        self.row(self.items, 1.0, count, count)
        self.layered = self.row(self.items[blocks.layered], 1.0, 1.0, count) if blocks.may_be_empty else -1
        if blocks.linked:
            self.first, self.last = (np.array([self.column(0, 1, True) for _ in range(states)]) for _ in range(2))
            self.row(self.first, 1.0, 1.0, 1.0)
            self.row(self.last, 1.0, 1.0, 1.0)
            (self._path if blocks.growing else self._ends)()

    def _ends(self) -> None:
        """Any order: the first and the last block are among those of their states."""
        for state, (first, last) in enumerate(zip(self.first, self.last, strict=True)):
            own = self.items[self.blocks.state == state]
            self.row([*own, first, last], [*np.ones(len(own)), -1, -1], 0.0, math.inf)

    def _path(self) -> None:
        """States in their order: a path from source to sink over those that are used."""
        states, count = range(self.blocks.states), self.blocks.count
        self.used = np.array([self.column(0, 1, True) for _ in states])
        self.pairs = [(left, right) for left in states for right in states if left < right]
        self.arcs = np.array([self.column(0, 1, False) for _ in self.pairs], dtype=np.intp)
        self.totals = np.array([self.column(0, count, True) for _ in states])
        for state in states:
            own, used, total = self.items[self.blocks.state == state], self.used[state], self.totals[state]
            self.row([*own, total], [*np.ones(len(own)), -1.0], 0.0, 0.0)
            self.links.append(self.row([total, used], [1.0, -count], -math.inf, 0.0))
            self.row([total, used], [1.0, -1.0], 0.0, math.inf)
            into = [arc for arc, (_, right) in zip(self.arcs, self.pairs, strict=True) if right == state]
            out = [arc for arc, (left, _) in zip(self.arcs, self.pairs, strict=True) if left == state]
            for end, flow in ((self.first[state], into), (self.last[state], out)):
                self.row([end, *flow, used], [*np.ones(1 + len(flow)), -1], 0.0, 0.0)

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Values of the items' columns, added up by state."""
        return np.bincount(self.blocks.state, weights=columns[self.items], minlength=self.blocks.states)

    def column(self, lower: float, upper: float, whole: bool) -> int:
        """A further column."""
        self.lower.append(float(lower))
        self.upper.append(float(upper))
        self.whole.append(whole)
        return len(self.lower) - 1

    def row(self, columns: object, coefficients: object, low: float, high: float) -> int:
        """A further row."""
        columns = np.asarray(columns, dtype=np.intp)
        self.rows.append((columns, np.broadcast_to(np.asarray(coefficients, dtype=float), columns.shape), low, high))
        return len(self.rows) - 1

    def total(self, number: int) -> Linear:
        """Row `number` of the table, a sum."""
        blocks = self.blocks
        terms, steps = blocks.items[number], blocks.steps[number]
        least = float(np.minimum(terms, terms + blocks.longest * steps).min())
        columns, coefficients = [self.items, self.steps], [terms - least, steps[self.longer]]
        if blocks.linked:
            joints = np.array([blocks.joints[number, left, right] for left, right in self.pairs])
            columns += [self.first, self.last, self.arcs]
            coefficients += [blocks.first[number], blocks.last[number], joints]
        where, what = np.concatenate(columns), np.concatenate(coefficients)
        constant = float(blocks.fixed[number]) + blocks.count * least
        return Linear(where[what != 0], what[what != 0], constant, float(blocks.errors[number]))

    def limit(self, total: Linear, limit: float) -> tuple[int, float]:
        """total ≤ limit, with room for what rounding may do to it; the row, and the power of two that it is scaled by."""
        room = limit - total.constant + total.error
        factor = power_of_two(SIZE, float(np.abs(total.coefficients).max(initial=0.0)) * self.blocks.count)
        return self.row(total.columns, factor * total.coefficients, -math.inf, factor * room), factor

    def part(self, number: int) -> tuple[int, float]:
        """A column that equals row `number` of the table, a sum, within its error; and the power of two that it is scaled by."""
        total = self.total(number)
        low, high = float(self.blocks.least[number]), float(self.blocks.most[number])
        factor = power_of_two(SIZE, max(abs(low), abs(high)))
        column = self.column(factor * low, factor * high, False)
        slack = factor * total.error
        at = -factor * total.constant
        self.row([*total.columns, column], [*(factor * total.coefficients), -1.0], at - slack, at + slack)
        return column, factor

    def maximum(self, number: int) -> tuple[int, float]:
        """A column that is at least row `number` of the table, a maximum; and its scale."""
        blocks = self.blocks
        terms, base = blocks.items[number], max(float(blocks.items[number].min()), float(blocks.fixed[number]))
        others = [blocks.first[number], blocks.last[number], *(blocks.joints[number, left, right] for left, right in self.pairs)]
        high = max(base, float(terms.max()), *(float(np.max(own)) for own in others))
        factor = power_of_two(SIZE, max(abs(base), abs(high)))
        column = self.column(factor * base, factor * high, False)
        over = factor * np.maximum(terms - base, 0.0)
        self.row([column, *self.items], [1.0, *(-over / blocks.count)], factor * base, math.inf)
        for state in range(blocks.states) if len(self.used) else ():
            own = np.flatnonzero(blocks.state == state)
            least = float(over[own].min())
            if over[own].any():
                more = -(over[own] - least) / blocks.count
                self.row([column, self.used[state], *self.items[own]], [1.0, -least, *more], factor * base, math.inf)
        if blocks.linked:
            joints = [blocks.joints[number, left, right] for left, right in self.pairs]
            for where, values in ((self.first, others[0]), (self.last, others[1]), (self.arcs, joints)):
                for at, value in zip(where, values, strict=True):
                    if value > base:
                        self.row([column, at], [1.0, -factor * (value - base)], factor * base, math.inf)
        return column, factor

    def beyond(self, number: int, most: float) -> np.ndarray:
        """The columns whose terms in row `number` of the table, a maximum, exceed `most`."""
        blocks = self.blocks
        over = blocks.items[number] > most
        closed = [self.items[over], self.steps[over[self.longer]]]
        if blocks.linked:
            joints = np.array([blocks.joints[number, left, right] for left, right in self.pairs])
            for where, values in ((self.first, blocks.first[number]), (self.last, blocks.last[number]), (self.arcs, joints)):
                closed.append(where[values > most] if len(where) else where)
        return np.concatenate(closed)

    def values(self, number: int, point: np.ndarray) -> np.ndarray:
        """The terms of row `number` of the table, a maximum, that a point of the columns has."""
        blocks = self.blocks
        found = [blocks.fixed[number : number + 1], blocks.items[number][point[self.items] > 0.5]]
        if blocks.linked:
            joints = np.array([blocks.joints[number, left, right] for left, right in self.pairs])
            for where, values in ((self.first, blocks.first[number]), (self.last, blocks.last[number]), (self.arcs, joints)):
                found.append(values[point[where] > 0.5] if len(where) else where)
        return np.concatenate(found)

    def close(self, columns: np.ndarray) -> None:
        """Rule columns out."""
        for column in columns:
            self.upper[column] = 0.0
