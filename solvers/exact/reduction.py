"""Reduction before search: exact for objectives that add up over positions, under any number of budgets that do.

The problem is the multiple-choice knapsack problem with several budgets (`solvers.exact.multiple_choice`). Most of it is settled
by the linear relaxation: all but about as many positions as there are budgets take one item there, and a design better than a
good incumbent differs from that in a few positions only. The method, after the core algorithms for knapsack problems (Pisinger
1995):

1. Multipliers λ of the budgets bound all designs (`solvers.exact.multipliers`). A beam below targets that step down from that bound
   leaves an incumbent in milliseconds.
2. Against the incumbent items are fixed out (`solvers.exact.label_pass`). One complete label pass over what is left is the proof.
3. If it needs many labels: more multipliers, of right-hand sides near the real ones, made on the core; a wider beam; another pass.
4. If that needs too many: what is left goes to a mixed-integer engine whose word is confirmed by a second solve. A pass that has no
   limit but the clock and takes little memory, depth first, is what remains where the engine gives up.

Why it is exact: any λ ≥ 0 gives a valid bound, however it was found, and its rounding is added to it. A label or an item is
dropped only if every design that has it exceeds a limit, or is worth no more than the target by a valid bound, or is matched by
another label or item that is worth no less, costs no more and may be continued alike. So when a pass ends, whatever exceeds its
target is among its complete labels, which are compared with the real budgets. Where one of them is within the limits and exceeds
a budget by rounding alone, what was dropped for it may not: the pass is then made again without comparing labels.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from formulation import DesignProblem, NotSeparable
from solvers.base import ROUNDING, Answer, Run, Stopped, broken_budgets, relative_gap
from solvers.certificate import Additive, Certificate, Uncheckable, above_rounding
from solvers.evaluation import require_structure
from solvers.exact.label_pass import Bounds, LabelPass, LabelSet, fitting, undominated
from solvers.exact.multiple_choice import MultipleChoice, read_multiple_choice
from solvers.exact.multipliers import multipliers

_BEAM = 1 << 7
"""Labels that the first beam extends; each that leaves no design is followed by one of twice as many."""
_WIDE = 1 << 9
"""The most labels of such a beam."""
_WIDEST = 1 << 11
"""Labels of a beam that seeks a better design, or the only one there is."""
_STEP = 3.0
"""How many times farther below the bound the target of the second beam is; the step doubles from one to the next."""
_FIRST_LABELS = 1 << 14
"""Labels that a pass by one multiplier may take: more are worth further multipliers."""
_MORE_LABELS = 1 << 20
"""Labels that a pass by all multipliers may take before an engine is asked."""
_SHIFTS = (-3.0, -1.0, 1.0, 3.0)
"""By how many standard deviations of a position's costs right-hand sides are shifted for further multipliers."""

_CHANGES = 200
"""Most items changed to have any design at all."""
_DECIDING = 0.02
"""Share of a beam's labels whose least bound multipliers have to give to be kept."""
_COPIES = 16
"""Arrays of reduced values that there is to be memory for, by each of further multipliers."""
_WITHIN = 0.75
"""Share of the way to the next whole number, or of the gap, that a target is above the incumbent: well above rounding."""

Confirm = Callable[[np.ndarray], float | None]
"""The value of the design of some item numbers, (N,); None for one that exceeds a budget."""


@dataclass(frozen=True, eq=False)
class Best:
    """What is known after a search, and what it rests on.

    Attributes:
        choices: (N,) item numbers of the best design found, None if none above the target was.
        value: its value; the target if there isn't one.
        bound: no design within the limits is worth more, or it is no more than the target; −∞ if no design is within the limits.
        ended: whether the search ended by itself.
        multipliers: (M, K) what the bound was proved with.
        order: (N,) positions in the order of the last label pass.
        engine: the engine that the proof rests on, empty if on none.
        message: what was done, in words.
    """

    choices: np.ndarray | None
    value: float
    bound: float
    ended: bool
    multipliers: np.ndarray
    order: np.ndarray
    engine: str
    message: str

    def certificate(self, choice: MultipleChoice) -> Certificate:
        """What the bound rests on, of the problem that was searched."""
        if not self.ended:
            return Uncheckable("the search did not end")
        if self.engine:
            return Uncheckable(f"what reduction left was closed by a branch-and-bound tree of {self.engine}")
        bound = None if self.bound == -math.inf else self.bound
        if bound is not None and self.choices is not None:
            bound = max(bound, above_rounding(self.value, choice.values[np.arange(choice.positions), self.choices].tolist()))
        return Additive(
            choice.values,
            choice.costs,
            choice.limits,
            self.order,
            self.multipliers,
            bound,
            None if bound is None else self.choices,
            None if bound is None or self.choices is None else self.value,
            choice.allowed,
            choice.fixed,
        )


def best_choice(
    choice: MultipleChoice,
    run: Run,
    target: float = -math.inf,
    start: np.ndarray | None = None,
    confirm: Confirm | None = None,
) -> Best:
    """The best design of a multiple-choice knapsack problem, of those worth more than a target.

    Args:
        choice: the problem; its limits have room for the rounding of sums.
        run: whose clock, memory and gap are respected; `Run.record` is told what is known, `evaluations` counts designs confirmed.
        target: designs worth no more are not sought.
        start: (N,) item numbers of a design that meets the budgets.
        confirm: compares a design with the budgets themselves; within the limits is enough unless given.
    """
    return _Search(choice, run, target, start, confirm).best()


@dataclass(frozen=True)
class Reduction:
    """Exact for sums over positions under budgets on sums and maxima, where any item may follow any other."""

    name = "reduction"
    distributions = ()

    @np.errstate(over="ignore", invalid="ignore")  # of terms beyond 1e150 or below 1e-300: what is no number then proves nothing
    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves its design optimal, or that none meets the budgets, unless a limit stops it.

        Raises:
            NotSeparable: where the objective is not a sum, a budget neither a sum nor a maximum, or neighbours are linked.
        """
        require_structure(problem, self.name)
        choice = read_multiple_choice(problem, run.poll)
        if choice is None:
            raise NotSeparable(
                f"{self.name} takes an objective that adds up over positions and budgets on sums and maxima, where any item "
                "may follow any other without a joint; this problem is not of that form: use DynamicProgramming or Highs"
            )
        start = run.limits.start

        def confirm(choices: np.ndarray) -> float | None:
            run.evaluations += 1
            design = problem.space.decode(choices.tolist())
            return None if broken_budgets(problem, design) else problem.objective(design)

        best = best_choice(choice, run, run.cutoff, None if start is None else np.array(problem.space.encode(start)), confirm)
        design = None if best.choices is None else problem.space.decode(best.choices.tolist())
        bound = best.bound if math.isfinite(best.bound) else None
        return Answer(design, bound, best.bound == -math.inf, best.message, best.certificate(choice))


class _Ended(Exception):
    """The search is settled."""


class _Search:
    """State of one search."""

    def __init__(self, choice: MultipleChoice, run: Run, target: float, start: np.ndarray | None, confirm: Confirm | None) -> None:
        self.choice, self.run, self.confirm = choice, run, confirm
        self.gap = max(run.limits.gap, ROUNDING)
        self.target = target
        self.value, self.choices = -math.inf, start
        if start is not None:
            self.value = choice.value_of(start)
        # Every design is worth more than the floor: where nothing exceeds that, no design is within the limits.
        self.floor = max(target, math.nextafter(choice.least, -math.inf))
        self.bound = math.inf
        self.impossible = False
        self.bounds = Bounds(choice, np.zeros((1, choice.budgets)))
        self.left = choice.allowed
        self.order = np.arange(choice.positions)
        self.merging, self.engine, self.labels, self.done = True, "", 0, ""

    # What is known

    @property
    def threshold(self) -> float:
        """What a further design has to exceed: the incumbent but for rounding, or the floor.

        Where values are whole numbers a better one is worth 1 more.
        """
        if self.value == -math.inf:
            return self.floor
        if self.choice.whole:
            return max(self.floor, self.value + _WITHIN)
        rounding = self.choice.rounding
        return max(self.floor, self.value + (rounding if rounding <= ROUNDING * abs(self.value) else 0.0))

    @property
    def loose(self) -> float:
        """The most that a bound may be for the incumbent to count as proved."""
        wide = self.value + _WITHIN * self.gap * abs(self.value)
        return max(self.threshold, wide) if math.isfinite(self.value) else self.threshold

    def _claimed(self, bound: float) -> float:
        """A bound on values from one on the relaxation, or from the target of a pass."""
        return math.floor(bound) if self.choice.whole and self.floor < bound < math.inf else bound

    def _known(self, bound: float) -> None:
        """Note a bound on all designs; _Ended where it settles the search."""
        self._bounded(bound)
        has = math.isfinite(self.value)
        self.run.record(self.value if has else None, self.bound if has or self.bound > self.floor else None)
        if self._settled:
            raise _Ended

    def _bounded(self, bound: float) -> None:
        """Note a bound on all designs but those that are confirmed."""
        self.impossible |= bound < self.choice.least
        self.bound = min(self.bound, max(self._claimed(bound), self.value))

    @property
    def _settled(self) -> bool:
        """Whether bound and incumbent leave nothing to seek."""
        return self.bound <= self.floor or (math.isfinite(self.value) and relative_gap(self.value, self.bound) <= self.gap)

    def _offer(self, choices: np.ndarray) -> bool:
        """Confirm a design within the limits, and take it as the incumbent if it is better; whether it meets the budgets."""
        value = self.choice.value_of(choices) if self.confirm is None else self.confirm(choices)
        if value is not None and value > self.value:
            self.value, self.choices = value, choices
            self.run.record(value, self.bound if math.isfinite(self.bound) else None)
        if self._settled:
            raise _Ended
        if self.run.stopped:
            raise Stopped
        return value is not None

    def _take(self, current: LabelPass, labels: LabelSet) -> bool:
        """Take the best of complete labels that meets the budgets; False where one that did not may have displaced others."""
        displaced = False
        for number in np.argsort(-labels.totals[0], kind="stable").tolist():
            if labels.totals[0, number] <= self.threshold:
                break
            self.run.poll()
            if self._offer(current.choices(labels, number)):
                break
            displaced |= current.merged
        return not displaced

    # The search

    def best(self) -> Best:
        ended = True
        try:
            self._reduce()
        except _Ended:
            pass
        except Stopped:
            ended = self._settled
        has = math.isfinite(self.value)
        bound = self.bound
        if ended and self.bound <= self.floor and not has:
            bound = -math.inf if self.impossible or self.target < self.floor else self.target
        nothing = "no design meets the budgets" if bound == -math.inf else "no design exceeds what is sought"
        told = [*([] if ended else [self.run.why_stopped]), *([nothing] if ended and not has else []), self.done]
        return Best(
            self.choices,
            self.value if has else self.target,
            bound,
            ended,
            self.bounds.multipliers,
            self.order,
            self.engine,
            "; ".join(filter(None, told)),
        )

    def _reduce(self) -> None:
        choice, run = self.choice, self.run
        run.poll()
        self.done = "settled by the budgets one by one"
        self.left = fitting(choice, choice.allowed)
        if not self.left.any(axis=1).all():
            self.impossible = True
            self._known(self.threshold)
        values = np.where(self.left, choice.values, -np.inf)
        best = values.argmax(axis=1)
        self.done = "settled by the best item of each position"
        self._known(choice.value_of(best) + choice.rounding)
        if (choice.costs_of(best) <= choice.limits).all():
            self._offer(best)
            self._known(self.bound)
        if choice.budgets:
            found, _ = multipliers(values, np.where(self.left, choice.costs, 0.0), choice.limits[None], run.poll, self.floor)
            bounds = Bounds(choice, found)
            if len(bounds.multipliers):
                self.bounds = bounds
        self.done = "settled by multipliers"
        self._known(float(self.bounds.roots(self.left).min()))
        self._descend()
        if not self._pass(_FIRST_LABELS):
            self._more_multipliers(self.threshold)
            self._beam(self.threshold, _WIDEST)
            while not self._pass(_MORE_LABELS):
                if self._by_engine():
                    break
                while not self._pass(None):
                    pass
                break

    def _descend(self) -> None:
        """Beams below targets that step down from the bound, until one leaves a design; with more multipliers where they fail."""
        reduced = np.where(self.left, self.bounds.reduced[0], -np.inf)
        if reduced.shape[1] > 1:
            losses = reduced.max(axis=1) - np.partition(reduced, -2, axis=1)[:, -2]
            losses = np.sort(losses[np.isfinite(losses) & (losses > 0)])[: self.choice.budgets + 3]
        else:
            losses = np.zeros(0)
        root, step, width = self.bound, _STEP, _BEAM
        below = max(0.5 * float(losses.sum()), 1.0 if self.choice.whole else 0.0) or root - self.floor
        while True:
            aim = max(self.threshold, root - below)
            if self._beam(aim, width):
                self._known(max(aim, self.threshold))
            if aim == self.threshold or self.value >= aim:
                break
            below, step, width = below * step, 2 * step, min(2 * width, _WIDE)
            if width == _WIDE and self.choices is None and len(self.bounds.multipliers) == 1:
                # None near the bound: any at all, then better ones by more multipliers.
                self._repair()
                self._more_multipliers(root - below)
        if self.choices is None and self._beam(self.threshold, _WIDEST):
            self._known(self.threshold)

    def _repair(self) -> None:
        """Take a design that changes the best items by the first multipliers until the limits hold, then for the better."""
        choice, rows = self.choice, np.arange(self.choice.positions)
        reduced = np.where(self.left, self.bounds.reduced[0], -np.inf)
        choices = reduced.argmax(axis=1)
        values = np.where(self.left, choice.values, -np.inf)
        scale = np.ptp(choice.costs, axis=2).mean(axis=1)
        scale = np.where(scale > 0, scale, 1.0)[:, None, None]
        for _ in range(_CHANGES):
            self.run.poll()
            used = choice.costs_of(choices)
            moved = choice.costs - choice.costs[:, rows, choices][:, :, None] + used[:, None, None]
            excess = (np.maximum(moved - choice.limits[:, None, None], 0.0) / scale).sum(axis=0)
            here = float((np.maximum(used - choice.limits, 0.0) / scale[:, 0, 0]).sum())
            if here > 0:
                loss = reduced[rows, choices][:, None] - reduced
                merit = np.where(self.left & (excess < here), (here - excess) / np.maximum(loss, 1e-9 * here), -np.inf)
            else:
                gain = values - values[rows, choices][:, None]
                merit = np.where((excess <= 0) & (gain > 0), gain, -np.inf)
            position, item = divmod(int(merit.argmax()), merit.shape[1])
            if merit[position, item] == -np.inf:
                break
            choices = choices.copy()
            choices[position] = item
        if (choice.costs_of(choices) <= choice.limits).all() and choice.value_of(choices) > self.threshold:
            self._offer(choices)

    def _beam(self, target: float, width: int) -> bool:
        """A beam of that width over what exceeds a target; whether nothing was left out, so that no other design exceeds it."""
        current = self._core(target)
        if current is None:
            return True
        labels, whole = current.dive(width, self.run.poll)
        self._told(current)
        if width == _WIDEST:  # those that hardly ever decide only cost time
            useful = current.shares >= _DECIDING
            useful[0] = True
            self.bounds = self.bounds.among(useful)
        if not len(labels):
            return whole
        if not self._take(current, labels):
            self.merging = whole = False
        return whole

    def _core(self, target: float) -> LabelPass | None:
        """The pass over what is left against a target, None where nothing is."""
        left = self._narrowed(target)
        self.run.poll()
        if not left.any():
            return None
        return LabelPass(self.choice, self.bounds, left, target, self.run.limits.memory, self.merging)

    def _told(self, current: LabelPass) -> None:
        self.labels += current.labels
        rest = np.setdiff1d(np.arange(self.choice.positions), current.order)
        self.order = np.concatenate((current.order, rest))
        count = len(self.bounds.multipliers)
        self.done = (
            f"{self.labels:,} labels over {current.levels:,} of {self.choice.positions:,} positions, "
            f"{count:,} multiplier{'s' if count > 1 else ''} of the budgets"
        )

    def _pass(self, most: int | None) -> bool:
        """A complete pass over what exceeds the incumbent; False where it takes more than `most` labels, or must be made again.

        The first one asks for the optimum, the others are content with the gap.
        """

        def target() -> float:
            return self.threshold if most == _FIRST_LABELS else self.loose

        current = self._core(target())
        if current is None:
            self._bounded(target())
            return True
        open_, clean = [current.root], True
        try:
            for labels in current.walk(lambda: self._poll(current, most), open_):
                clean &= self._take(current, labels)
                current.target = max(current.target, target())
        except _TooMany:
            pass
        finally:
            self._told(current)
            if clean:
                self._bounded(current.bound(open_))
        self.merging &= clean
        return clean and not open_

    def _poll(self, current: LabelPass, most: int | None) -> None:
        self.run.poll()
        if most is not None and current.labels > most:
            raise _TooMany

    def _more_multipliers(self, target: float) -> None:
        """Multipliers of right-hand sides near the real ones, on the core: for labels whose costs are not as the relaxation's."""
        core = self._core(target)
        if core is None or not self.choice.budgets:
            return
        choice, terms = self.choice, self.choice.budgets
        left = self._narrowed(target)
        open_, settled = core.order, np.setdiff1d(np.arange(choice.positions), core.order)
        if not len(open_):
            return
        items = np.argsort(~left[open_], axis=1, kind="stable")[:, : int(left[open_].sum(axis=1).max())]
        own = np.take_along_axis(left[open_], items, axis=1)
        rows = open_[:, None]
        values = np.where(own, choice.values[rows, items], -np.inf)
        costs = np.where(own, choice.costs[:, rows, items], 0.0)
        spent = choice.costs[:, settled, left[settled].argmax(axis=1)].sum(axis=1)
        deviation = choice.costs[:, rows, items].std(axis=2, where=np.broadcast_to(own, costs.shape)).mean(axis=1)
        single = [shift * np.eye(terms)[k] for k in range(terms) for shift in _SHIFTS]
        shifts = np.array([np.zeros(terms), *(shift * np.ones(terms) for shift in _SHIFTS), *(single if terms > 1 else [])])
        shifts = shifts[: max(1, self.run.limits.memory // (_COPIES * 8 * choice.values.size))]
        near = self.bounds.multipliers[0]
        found, _ = multipliers(values, costs, choice.limits - spent + shifts * deviation, self.run.poll, near=near)
        together = np.concatenate((found[:1], self.bounds.multipliers[:1], found[1:]))
        scale = np.abs(together).max(axis=0)
        rounded = np.round(together / np.where(scale > 0, scale, 1.0), 3)
        kept = np.sort(np.unique(rounded, axis=0, return_index=True)[1])
        bounds = Bounds(choice, together[kept])
        if len(bounds.multipliers):
            self.bounds = bounds

    def _narrowed(self, target: float) -> np.ndarray:
        """The items that are left against a target, none at all where no design exceeds it."""
        left = self.bounds.fixed_out(self.left, target)
        if left.any():
            left = fitting(self.choice, left)
        return undominated(self.choice, left, self.run.poll)

    def _by_engine(self) -> bool:
        """Whether HiGHS settles what is left."""
        with self.run.loading():
            importlib.import_module("highspy")
        from solvers.programs.choice_program import ChoiceProgram
        from solvers.programs.highs import solve_program

        left = self._narrowed(self.loose)
        if not left.any():
            self._bounded(self.loose)
            return True
        program = ChoiceProgram(self.choice, left)
        try:
            settled = program.prove(
                lambda written, seconds, careful: solve_program(written, seconds, careful, self.run),
                self.run,
                self._offer,
                lambda: self.loose,
            )
        finally:
            if program.bound < self.bound:
                self.engine = "HiGHS"
                self._bounded(max(program.bound, self.loose))
            self.done += f", then {program.programs:,} programs for HiGHS"
        if settled:
            self.engine = "HiGHS"
            self._bounded(self.loose)
        return settled


class _TooMany(Exception):
    """A pass takes more labels than it may."""
