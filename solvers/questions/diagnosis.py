"""Why no design meets the budgets: the fewest of them that conflict, and what each alone would have to be.

A deletion filter over the named budgets, by size. It works with any exact solver; irreducible subsystems of a linear program
(HiGHS `getIis`, Pyomo's `mis`) miss conflicts that only the whole numbers cause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from formulation import Architecture, Budget, Combine, Composite, DesignProblem, Separable
from formulation.command.words import with_unit
from formulation.derived import NegativeFormula, negative
from formulation.problem import just_below
from formulation.values import value_of
from solvers.automatic import Automatic
from solvers.base import Limits, Run, Solver, Status, broken_budgets, solve_within

_ANY = 1e6
"""Relative gap of a solve that asks whether there is a design at all: the first one found settles it."""
_SHARES = 8
"""A solve may take this part of the time that is left; most need far less, and what they leave goes to those that follow."""


@dataclass(frozen=True)
class Need:
    """What one budget alone would have to be for a design to exist, all other budgets met.

    Attributes:
        budget: the budget as it stands.
        status: OPTIMAL: `bound` is proved the nearest value, the least of a budget from above and the greatest of one from below;
            FEASIBLE: it suffices, and whether a nearer one would is not proved; INFEASIBLE: proved that no value helps, since the
            other budgets conflict without this one; UNKNOWN: the limits were reached before anything was found.
        bound: that value in the budget's unit, None if there isn't one.
        architecture: the best design found with the budget at that value.
        objective: its objective.
        alone: where no design meets this budget even if all others are dropped: the nearest value that any design reaches, proved;
            None if some design meets it or the limits left that open.
    """

    budget: Budget
    status: Status
    bound: float | None = None
    architecture: Architecture | None = None
    objective: float | None = None
    alone: float | None = None

    def __str__(self) -> str:
        if self.status is Status.INFEASIBLE:
            return f"{self.budget}: to change it alone is not enough, the other budgets conflict without it"
        if self.bound is None:
            return f"{self.budget}: nothing found within the limits, nothing proved"
        bound = with_unit(f"{self.bound:,.12g}", self.budget.quantity.unit)
        value = f"the {'least' if self.budget.upper is not None else 'greatest'} value"
        proof = value if self.status is Status.OPTIMAL else f"not proved to be {value}"
        return f"{self.budget}: would have to be {bound} ({proof})"


@dataclass(frozen=True)
class Diagnosis:
    """Why a problem has no feasible design.

    Attributes:
        status: INFEASIBLE: proved that it has none; FEASIBLE: it has one, `architecture`, and there is nothing to explain; UNKNOWN:
            the limits were reached first.
        conflict: budgets that no design meets together, proved; the fewest where `smallest`; empty unless INFEASIBLE.
        smallest: whether it is proved that some design meets any fewer of them.
        needs: one per budget of the problem, in its order; empty where it is feasible.
        joint: where no change of one budget alone is known to be enough: a design met whose use of the budgets would suffice for
            all of them together, the one that exceeds them by the smallest factor; not proved to be the least.
        interrupted: whether Ctrl-C ended it.
    """

    status: Status
    conflict: tuple[Budget, ...] = ()
    smallest: bool = False
    needs: tuple[Need, ...] = ()
    architecture: Architecture | None = None
    seconds: float = 0.0
    joint: Architecture | None = None
    interrupted: bool = False

    def __str__(self) -> str:
        if self.status is Status.FEASIBLE:
            return "a design meets all budgets"
        if self.status is Status.UNKNOWN:
            return "whether a design meets all budgets was not settled within the limits"
        budgets = " and ".join(map(str, self.conflict))
        if len(self.conflict) == 1:
            return f"no design meets {budgets}" + (", whatever the other budgets" if len(self.needs) > 1 else "")
        fewer = (
            "any fewer budgets can be met" if self.smallest else "whether fewer budgets conflict was not settled within the limits"
        )
        return f"no design meets {budgets} together; {fewer}"


def explain_infeasibility(
    problem: DesignProblem, solver: Solver | None = None, limits: Limits | None = None, proved: bool = False
) -> Diagnosis:
    """The smallest set of budgets that conflict, and for each budget the least value that it alone would need.

    Sets are tried by size, so the first that no design meets is smallest, provided that each one before was settled. Least
    values are exact up to a relative 1e-11: a sum is minimized; of any other quantity ever lower values are asked for until
    it is proved that no design lies below. What the limits left open is said to be open, never guessed.

    Args:
        solver: an exact one, Automatic() unless given.
        limits: of the whole call, shared out among its solves; their gap matters only to `Need.objective`.
        proved: whether it is proved already that no design meets all budgets: they are a conflict then, whatever the limits leave
            open.
    """
    run = Run(limits or Limits(gap=0))
    with run.listening():
        plain = replace(problem.maximizing, minimize=(), report=())
        diagnosis = _Diagnosing(plain, solver or Automatic(), run).diagnosis(proved)
    if not problem.least:
        return diagnosis
    needs = (replace(need, objective=None if need.objective is None else 0.0 - need.objective) for need in diagnosis.needs)
    return replace(diagnosis, needs=tuple(needs))


class _Diagnosing:
    """One call: its problem, solver and clock, and the designs and conflicts met so far, which settle further questions."""

    def __init__(self, problem: DesignProblem, solver: Solver, run: Run) -> None:
        self.problem, self.solver, self.run = problem, solver, run
        self.budgets = problem.subject_to
        self.designs: list[Architecture] = []
        self.conflicts: list[tuple[int, ...]] = []

    def diagnosis(self, proved: bool) -> Diagnosis:
        everything = tuple(range(len(self.budgets)))
        if proved:
            self.conflicts.append(everything)
        first = self._kept(everything, _SHARES)
        conflict: tuple[int, ...] = ()
        smallest, needs = False, list[Need]()
        if first is not Status.FEASIBLE:
            conflict, smallest = self._conflict(first, everything)
            needs = [self._need(number, conflict) for number in everything]
        status = Status.INFEASIBLE if conflict else Status.UNKNOWN
        # A search for something else may have met a design that the first solve did not find in its time.
        architecture = max(self._keeping(everything), key=self.problem.objective, default=None)
        if architecture is not None:
            return Diagnosis(Status.FEASIBLE, architecture=architecture, seconds=self.run.seconds, interrupted=self.run.interrupted)
        budgets, run = tuple(self.budgets[i] for i in conflict), self.run
        return Diagnosis(status, budgets, smallest, tuple(needs), None, run.seconds, self._joint(needs), run.interrupted)

    def _conflict(self, first: Status, everything: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        """The first set by size that is proved to conflict, and whether every smaller one was proved not to."""
        smallest = True
        for size in range(1, len(everything)):
            settled = True
            for subset in combinations(everything, size):
                if self.run.stopped:
                    return (everything, False) if first is Status.INFEASIBLE else ((), False)
                status = self._kept(subset, _SHARES)
                if status is Status.INFEASIBLE:
                    return subset, smallest
                settled &= status is Status.FEASIBLE
            smallest &= settled
        return (everything, smallest) if first is Status.INFEASIBLE else ((), False)

    def _need(self, number: int, conflict: tuple[int, ...]) -> Need:
        budget, quantity = self.budgets[number], self.budgets[number].quantity
        others = tuple(i for i in range(len(self.budgets)) if i != number)
        shares = max(_SHARES, 2 * (len(self.budgets) - number))
        alone = None
        if self.run.stopped:
            return Need(budget, Status.INFEASIBLE if conflict and number not in conflict else Status.UNKNOWN)
        # Where the fewest budgets in conflict are one, others may be impossible alone too; where they are more, none is.
        if len(conflict) == 1 and self._kept((number,), shares) is Status.INFEASIBLE:
            status, design = self._least(budget, (), shares)
            alone = value_of(quantity, design) if design is not None and status is Status.OPTIMAL else None
        if conflict and number not in conflict:
            return Need(budget, Status.INFEASIBLE, alone=alone)
        status, design = self._least(budget, others, shares)
        if design is None:
            return Need(budget, status, alone=alone)
        least = value_of(quantity, design)
        if not budget.allows(least):
            # The design that shows the least value need not be good: this is the best one at that value.
            best = self._solve(self._within(others, budget.at(least)), shares, self.run.limits.gap, start=design)[1]
            design = best or design
        return Need(budget, status, least, design, self.problem.objective(design), alone)

    def _joint(self, needs: Sequence[Need]) -> Architecture | None:
        """A design met that would suffice for all budgets together; one at the least values that each needs alone is looked for."""
        if any(need.bound is not None for need in needs):
            return None
        if any(need.alone is not None for need in needs) and not self.run.stopped:
            budgets = (need.budget if need.alone is None else need.budget.at(need.alone) for need in needs)
            self._solve(replace(self.problem, subject_to=tuple(budgets)), 1, _ANY)
        return min(self.designs, key=self._excess, default=None)

    def _excess(self, design: Architecture) -> float:
        """The largest share of a budget by which a design exceeds it; infinite for a budget of nothing."""
        broken = broken_budgets(self.problem, design)
        return max((abs(b.value(design) - b.bound) / abs(b.bound) if b.bound else math.inf for b in broken), default=0.0)

    def _least(self, budget: Budget, others: tuple[int, ...], shares: int) -> tuple[Status, Architecture | None]:
        """The design nearest to a budget, of the least of its quantity, or the most for one from below, that meets the others."""
        quantity = budget.constraint.quantity
        is_sum = isinstance(quantity, Separable) and quantity.combine is Combine.SUM
        # Of a composite only the maximum is found well: that is what `overestimator` is for.
        if is_sum or (isinstance(quantity, NegativeFormula) and isinstance(quantity.quantity, Composite)):
            status, design = self._solve(replace(self._within(others), maximize=negative(quantity)), shares, gap=0)
            if status is not Status.FEASIBLE:
                return status, design
            # An engine's tolerances may leave a gap that asking for less closes.
        return self._descend(budget, others, shares)

    def _descend(self, budget: Budget, others: tuple[int, ...], shares: int) -> tuple[Status, Architecture | None]:
        """The design nearest to a budget among those that meet the others, for a quantity that cannot be minimized.

        Each round asks for a value just below the least one met, which ends it with a proof, and then for half the distance
        to what is known to be too low. For a budget from below that is the negated quantity.
        """
        quantity, sign = budget.constraint.quantity, 1.0 if budget.upper is not None else -1.0
        status = self._kept(others, shares)
        if status is not Status.FEASIBLE:
            return status, None
        best, low = min(self._keeping(others), key=quantity), sign * budget.bound
        while quantity(best) > quantity.least:
            nearer = budget.at(sign * just_below(quantity(best)))
            status, design = self._solve(self._within(others, nearer), shares, _ANY)
            if design is None:
                return Status.OPTIMAL if status is Status.INFEASIBLE else Status.FEASIBLE, best
            best = design
            middle = (low + quantity(best)) / 2
            if low < middle:
                status, design = self._solve(self._within(others, budget.at(sign * middle)), shares, _ANY)
                if status is Status.INFEASIBLE:
                    low = middle
                best = design or best
        return Status.OPTIMAL, best

    def _kept(self, subset: tuple[int, ...], shares: int) -> Status:
        """FEASIBLE where some design meets these budgets, INFEASIBLE where it is proved that none does, else UNKNOWN."""
        if any(True for _ in self._keeping(subset)):
            return Status.FEASIBLE
        if any(set(conflict) <= set(subset) for conflict in self.conflicts):
            return Status.INFEASIBLE
        if self.run.stopped:
            return Status.UNKNOWN
        status, design = self._solve(self._within(subset), shares, _ANY)
        if status is Status.INFEASIBLE:
            self.conflicts.append(subset)
        return status if design is None else Status.FEASIBLE

    def _keeping(self, subset: tuple[int, ...]) -> Iterator[Architecture]:
        """The designs met so far that meet these budgets."""
        budgets = [self.budgets[i] for i in subset]
        return (design for design in self.designs if all(b.allows(b.value(design)) for b in budgets))

    def _within(self, subset: tuple[int, ...], *more: Budget) -> DesignProblem:
        return replace(self.problem, subject_to=(*(self.budgets[i] for i in subset), *more))

    def _solve(
        self, problem: DesignProblem, shares: int, gap: float, start: Architecture | None = None
    ) -> tuple[Status, Architecture | None]:
        solution = solve_within(self.run, problem, self.solver, shares, start, gap)
        if solution is None:
            return Status.UNKNOWN, None
        if solution.architecture is not None:
            self.designs.append(solution.architecture)
        return solution.status, solution.architecture
