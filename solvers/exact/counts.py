"""Exact search by counts: how many blocks take each item instead of which, where blocks are alike (`solvers.exact.alike_blocks`).

Branch and bound over boxes: ranges of the columns of a linear program (`solvers.exact.counted_problem`), best bound first. Columns
are how many blocks take an item, how many layers those of one width and shape have together, which widths are used and how often,
and the parts of formulas.

1. In a box formulas lie below planes (`solvers.exact.part_boxes`), so that a linear program bounds it.
2. Under the row "objective ≥ incumbent" further linear programs narrow the ranges of the parts; reduced costs close items.
3. A box is cut in two at a part while planes are what its bound rests on, else at a whole number.
4. A box of one design is settled by scoring that: neither planes nor an engine's tolerance have a say in it.

Why it is exact: every design of the problem is a point of the program (the columns of its parts are what it adds up to, within the
rounding that rows have room for), and no step but the last drops a point that is worth more than the incumbent. What a step
drops is proved by multipliers alone (`LinearModel.proved`): that a program is infeasible by a ray, that its optimum or an end of a
range is no further by its duals. HiGHS chooses the multipliers; where they prove nothing, the box is cut further.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from formulation import Architecture, DesignProblem
from solvers.base import ROUNDING, Answer, Run, Stopped, broken_budgets
from solvers.certificate import MadeAgain
from solvers.evaluation import require_structure
from solvers.exact.count_cuts import APART, Cut, cut_of_parts, cut_of_whole
from solvers.exact.counted_problem import SHARPENED, CountedProblem
from solvers.incumbent import quick_incumbent
from solvers.programs.highs_model import LinearBound, LinearModel

ROUNDS = 2
"""Most rounds of narrowing that a box gets."""
WORTHWHILE = 0.1
"""A further round is worth its time where the last one brought the bound this share of the way down to the incumbent."""
_DIVE = 100
"""Most programs of a dive."""
_USED = 0.5
"""Share of `Limits.memory` that open boxes may take; from then on the newest is explored first, which keeps few of them."""


@dataclass(frozen=True)
class Counts:
    """Branch and bound over how many blocks take each item, for alike blocks whose position does not matter.

    All menus have to be the same, and quantities have to ignore the position of a block, except for what stands before the first
    and behind the last. Either any block may follow any other and none is joined to its neighbour at a cost, or widths may only
    grow: joints may then cost what they like. HiGHS solves linear programs; no proof rests on its word.
    """

    name = "counts"
    distributions = ("highspy",)

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves its design optimal, or that none meets the budgets, unless a limit stops it.

        Raises:
            NotSeparable: where blocks are not alike, or a quantity is a black box or asks for much of a maximum.
            EngineMissing: without highspy.
        """
        require_structure(problem, "counting blocks")
        answer = _Search(problem, run).answer()
        proved = answer.infeasible or answer.bound is not None
        return replace(answer, certificate=MadeAgain(problem, answer.architecture, answer.bound)) if proved else answer


@dataclass(frozen=True, eq=False)
class _Box:
    """Ranges of the columns.

    Attributes:
        lower: of the columns.
        upper: of the columns.
        bound: on the objective in them.
        cut: whether parts have been cut since the ranges were narrowed.
        cuts: how often parts have been cut where they are not counted.
    """

    lower: np.ndarray
    upper: np.ndarray
    bound: float
    cut: bool
    cuts: int = 0


class _Search:
    """State of one search."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self.problem, self.run = problem, run
        self.counted = CountedProblem(problem, run)
        self.model: LinearModel
        self.best = run.cutoff
        self.design: Architecture | None = None
        self.closed: float = -math.inf
        self.explored = 0
        self.scored: set[bytes] = set()
        self.gap = max(run.limits.gap, ROUNDING)

    @property
    def threshold(self) -> float:
        """Bound at which a box is closed."""
        return self.best + self.gap * (1 - ROUNDING) * abs(self.best) if math.isfinite(self.best) else -math.inf

    def answer(self) -> Answer:
        ceiling = self.counted.ceiling
        self.run.record(None, ceiling)
        if (first := quick_incumbent(self.problem, self.run)) is not None:
            self._offer(first)
        if self.counted.memory > self.run.limits.memory:
            return Answer(
                self.design, ceiling, message=f"a linear program takes {self.counted.memory:,} bytes, more than the limit"
            )
        try:
            self.model = self.counted.model(self.run.poll)
            heap, ended = self._searched()
        except Stopped:  # before the first bound
            return Answer(self.design, ceiling, message=f"{self.run.why_stopped} before the first linear program")
        message = f"{self.explored:,} boxes, {self.model.solves:,} linear programs"
        bound = max(self.closed, self.best, *(box.bound for box in heap))
        if not heap and bound == -math.inf:
            return Answer(None, infeasible=True, message=f"no design meets the budgets; {message}")
        return Answer(self.design, bound, message=message if ended else f"{self.run.why_stopped} after {message}")

    def _searched(self) -> tuple[list[_Box], bool]:
        """The boxes that are left open, and whether none is; Stopped before the first has a bound."""
        if not self.counted.possible:
            return [], True
        program, order = self.counted.program, count()
        root = _Box(np.array(program.lower), np.array(program.upper), math.inf, True)
        heap: list[tuple[float, int, _Box]] = []
        stack = [root]  # of boxes that are explored before those of the heap
        most = _USED * self.run.limits.memory / (root.lower.nbytes + root.upper.nbytes)
        while heap or stack:
            box = stack.pop() if stack else heapq.heappop(heap)[2]
            if self._closes(box.bound):
                continue
            children = [box]
            try:
                if not self.run.stopped:
                    children = self._explore(box)
            except Stopped:
                if box is root:
                    raise
            for child in children:
                if len(heap) > most:
                    stack.append(child)
                else:
                    heapq.heappush(heap, (-child.bound, next(order), child))
            left = [*(each[2] for each in heap[:1]), *stack]
            bound = max((each.bound for each in left), default=-math.inf)
            if (bound := max(bound, self.closed, self.best)) < math.inf:
                self.run.record(None if self.design is None else self.best, bound)
            if self.run.stopped:
                return [*(each[2] for each in heap), *stack], not (heap or stack)
        return [], True

    # Designs

    def _offer(self, design: Architecture) -> None:
        """Score a design that meets the budgets."""
        value = self.problem.objective(design)
        if value > self.best or (self.design is None and value >= self.best):
            self.best, self.design = value, design
            self.run.record(value)

    def _try(self, point: np.ndarray | None) -> None:
        """Score the design that a point of the columns is, if it is one."""
        if point is None or (design := self.counted.design(point)) is None:
            return
        key = np.rint(point[self.counted.whole]).astype(np.int32).tobytes()
        if key not in self.scored:
            self.scored.add(key)
            self.run.evaluations += 1
            if not broken_budgets(self.problem, design):
                self._offer(design)

    def _dive(self, lower: np.ndarray, upper: np.ndarray, end: LinearBound) -> None:
        """Round one whole column after another, the states used first, until a point is a design or nothing is left to gain."""
        lower, upper = lower.copy(), upper.copy()
        whole, used = self.counted.whole, np.isin(self.counted.whole, self.counted.program.used)
        for _ in range(_DIVE):
            point = end.point
            if point is None:
                return
            off = self.counted.fractions(point)
            if off.max(initial=0.0) <= APART:
                self._try(point)
                return
            among = used & (off > APART)
            among = among if among.any() else off > APART
            column = whole[np.flatnonzero(among)[off[among].argmin()]]
            nearest = float(np.rint(point[column]))
            for value in (nearest, nearest + (1.0 if point[column] > nearest else -1.0)):
                low, high = lower.copy(), upper.copy()
                low[column] = high[column] = value
                if lower[column] <= value <= upper[column] and self.counted.narrow(low, high):
                    end = self._bounded(low, high, False, sharpened=1)
                    if end.point is not None and self.counted.value(end) > self.threshold:
                        lower, upper = low, high
                        break
            else:
                return

    # Bounds

    def _closes(self, bound: float) -> bool:
        """Whether a bound closes its box, and note it if so."""
        if not bound <= self.threshold and bound != -math.inf:
            return False
        self.closed = max(self.closed, bound)
        return True

    def _bounded(self, lower: np.ndarray, upper: np.ndarray, afresh: bool, sharpened: int = SHARPENED) -> LinearBound:
        """Bound a box, with planes at the points where the program ends; `afresh` as in `CountedProblem.write`."""
        counted, model = self.counted, self.model
        counted.write(model, lower, upper, afresh)
        return counted.bounded(model, lower, upper, self.threshold, sharpened)

    def _fix(self, end: LinearBound, lower: np.ndarray, upper: np.ndarray) -> None:
        """Close, in place, the values of whole columns that reduced costs show to be worth no more than the incumbent."""
        if not math.isfinite(self.best):
            return
        whole, reduced = self.counted.whole, end.reduced[self.counted.whole]
        room = end.bound - self.counted.scaled(self.best)
        with np.errstate(divide="ignore", over="ignore"):
            steps = np.floor(room / np.abs(reduced) * (1 + 1e-9) + 1e-9)
        down, up = whole[reduced < 0], whole[reduced > 0]
        upper[down] = np.minimum(upper[down], lower[down] + steps[reduced < 0])
        lower[up] = np.maximum(lower[up], upper[up] - steps[reduced > 0])

    def _narrowed(self, lower: np.ndarray, upper: np.ndarray) -> bool:
        """Narrow the ranges of parts, in place, to those of designs at least as good as the incumbent; whether any are left."""
        counted, model = self.counted, self.model
        counted.write(model, lower, upper)
        model.bound_row(counted.objective_row, counted.scaled(self.best), math.inf)
        high, low = np.full(len(lower), -math.inf), np.full(len(lower), math.inf)
        totals = counted.program.totals
        for column, sign in [
            *((column, sign) for column in counted.boxed for sign in (1, -1)),
            *((column, 1) for column in totals),
        ]:
            size = APART * max(abs(lower[column]), abs(upper[column]))
            if upper[column] - lower[column] <= size:
                continue
            if (high[column] >= upper[column] - size) if sign > 0 else (low[column] <= lower[column] + size):
                continue  # a point that another program ended at lies there
            cost = np.zeros(len(lower))
            cost[column] = sign
            end = model.maximize(cost, primal=True)
            if end.bound == -math.inf:
                return False
            if end.point is not None:
                np.maximum(high, end.point, out=high)
                np.minimum(low, end.point, out=low)
            if not math.isfinite(reached := end.bound):
                continue
            if unit := counted.units[column]:
                reached = unit * math.floor(reached / unit + 1e-9)
            if sign > 0:
                upper[column] = min(upper[column], reached)
            else:
                lower[column] = max(lower[column], -reached)
            if lower[column] > upper[column]:
                return False
        return counted.narrow(lower, upper)

    # Boxes

    def _explore(self, box: _Box) -> list[_Box]:
        """The boxes that remain to be explored in place of one."""
        self.explored += 1
        lower, upper = box.lower.copy(), box.upper.copy()
        if not self.counted.narrow(lower, upper):
            return []
        end = self._bounded(lower, upper, box.cut)
        bound = min(box.bound, self.counted.value(end))
        if self._closes(bound):
            return []
        self._try(end.point)
        if box.cut or (self.design is None and self.explored & (self.explored - 1) == 0):
            self._dive(lower, upper, end)
        for _ in range(ROUNDS if box.cut and self.counted.formulas and math.isfinite(self.best) else 0):
            self._fix(end, lower, upper)
            if not (self.counted.narrow(lower, upper) and self._narrowed(lower, upper)):
                return []
            end = self._bounded(lower, upper, True)
            before, bound = bound, min(bound, self.counted.value(end))
            if self._closes(bound):
                return []
            self._try(end.point)
            if not before - bound > WORTHWHILE * (before - self.best):
                break
        if self._closes(bound):
            return []
        self._fix(end, lower, upper)
        children = self._branches(lower, upper, end, bound, box.cuts)
        return [replace(child, cuts=child.cuts + box.cuts) for child in children]

    def _branches(self, lower: np.ndarray, upper: np.ndarray, end: LinearBound, bound: float, cuts: int) -> list[_Box]:
        """The parts that a box is cut into; none of a box of one design, which is scored."""
        counted, point = self.counted, end.point
        if point is not None:
            if (cut := cut_of_parts(counted, lower, upper, point, bound - self.best, cuts)) is not None:
                return [_Box(*half, bound, True, int(cut.at == cut.after)) for half in cut.halves(lower, upper)]
            if (cut := cut_of_whole(counted, point)) is not None:
                return [_Box(*half, bound, False) for half in cut.halves(lower, upper)]
        free = counted.whole[upper[counted.whole] > lower[counted.whole]]
        if not len(free):
            self._try(np.clip(lower if point is None else point, lower, upper))
            return []
        if point is None:
            column = free[(upper[free] - lower[free]).argmax()]
            at = math.floor((lower[column] + upper[column]) / 2)
            return [_Box(*half, bound, False) for half in Cut(int(column), at, at + 1).halves(lower, upper)]
        # The point is a design that is scored: the boxes around it, and one that has the same number in this column.
        column = free[point[free].argmax()]
        value = float(np.clip(np.rint(point[column]), lower[column], upper[column]))
        low, high = lower.copy(), upper.copy()
        low[column] = high[column] = value
        around = Cut(int(column), value - 1, value + 1).halves(lower, upper)
        return [_Box(*half, bound, False) for half in (*around, (low, high))]
