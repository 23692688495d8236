"""What is left of a multiple-choice knapsack problem as a mixed-integer program, for a linear engine whose word is then confirmed.

One binary for each item that is left, one of each position chosen. Terms are written relative to the least of each position and
rows scaled, as in `solvers.programs.linear_form`. A design is compared with the limits here; the end of a search is believed once
two solves of different kinds agree, see `solvers.programs.linear_cells`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from solvers.base import Run
from solvers.exact.multiple_choice import MultipleChoice
from solvers.programs.linear_cells import LinearEngine
from solvers.programs.linear_form import OBJECTIVE, ROW, SLACK, LinearProgram, LinearRow, hidden, power_of_two


class ChoiceProgram:
    """The program of the items that are left, bool (N, J), every position with one at least.

    Attributes:
        bound: what the engine proves of the designs of these items, as far as it got; valid but for the engine's word.
        programs: solved so far.
    """

    def __init__(self, choice: MultipleChoice, left: np.ndarray) -> None:
        self._choice, self.bound, self.programs = choice, math.inf, 0
        self._positions, self._items = np.nonzero(left)
        counts = left.sum(axis=1)
        self._starts = np.cumsum(counts) - counts
        self._counts = counts
        self._gains, self._constant, self._spread = self._relative(choice.values)
        self._constant += choice.fixed
        groups = np.split(np.arange(len(self._items)), self._starts[1:])
        self._rows = [LinearRow(own, np.ones(len(own)), 1.0, 1.0) for own in groups]
        for costs, limit in zip(choice.costs, choice.limits, strict=True):
            terms, least, spread = self._relative(costs)
            if spread > limit - least:
                factor = power_of_two(ROW, spread)
                columns = np.flatnonzero(terms)
                self._rows.append(LinearRow(columns, factor * terms[columns], -math.inf, factor * (limit - least) + SLACK, factor))

    def _relative(self, terms: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Terms of the columns above the least of their positions; the sum of these; the most that they can add up to."""
        own = terms[self._positions, self._items]
        least = np.minimum.reduceat(own, self._starts)
        above = own - np.repeat(least, self._counts)
        return above, float(least.sum()), float(np.maximum.reduceat(above, self._starts).sum())

    def _choices(self, point: np.ndarray) -> np.ndarray:
        """(N,) the items of the design nearest to a point."""
        return np.array([own[np.argmax(point[own])] for own in np.split(np.arange(len(point)), self._starts[1:])])

    def prove(
        self,
        engine: LinearEngine,
        run: Run,
        offer: Callable[[np.ndarray], object],
        threshold: Callable[[], float],
    ) -> bool:
        """Whether it is settled, by two solves, that no design of these items is worth more than `threshold()`.

        Args:
            engine: solves a program.
            run: may stop it; Stopped is raised then, with `bound` as far as it is known.
            offer: takes the item numbers of designs within the limits, which may raise the threshold.
            threshold: what a design has to exceed.
        """
        factor = power_of_two(OBJECTIVE, self._spread)
        row = power_of_two(ROW, self._spread)
        margin = hidden(self._spread) + self._choice.rounding
        columns = np.flatnonzero(self._gains)
        ruled_out: list[LinearRow] = []
        careful = False
        while True:
            run.poll()
            wanted = threshold()
            rows = [*self._rows, *ruled_out]
            if math.isfinite(wanted):
                low = row * (wanted - self._constant) - SLACK
                rows.append(LinearRow(columns, row * self._gains[columns], low, math.inf, row))
            program = LinearProgram(factor * self._gains, rows, np.ones(len(self._gains)), len(self._gains))
            end = engine(program, run.seconds_left, careful)
            self.programs += 1
            claimed = math.inf if end.bound is None else end.bound / factor + self._constant + margin
            if end.point is not None:
                chosen = self._choices(end.point)
                choices = self._items[chosen]
                if (self._choice.costs_of(choices) <= self._choice.limits).all():
                    offer(choices)
                # Scored, or beyond the limits within the engine's tolerance: not again.
                ruled_out.append(LinearRow(np.sort(chosen), np.ones(len(chosen)), -math.inf, len(chosen) - 1.0))
            closed = claimed <= threshold()
            if careful or not closed:  # what one solve closes counts once another has
                self.bound = min(self.bound, max(claimed, wanted))
            if not end.finished:
                run.poll()
                return False
            if closed:
                if careful:
                    return True
                careful = True
            elif end.point is None:
                return False
