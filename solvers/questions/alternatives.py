"""The designs beside the best one: the next best that differ enough from it, and how many are nearly as good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np

from formulation import Architecture, Budget, DesignProblem
from solvers.arrangements import SortedItems, aligned, can_sort, order_is_free, orders, sorted_design
from solvers.automatic import Automatic
from solvers.base import ROUNDING, Limits, Run, Solution, Solver, Status, share_of, solve_within
from solvers.exact.dynamic_programming import Count, DynamicProgramming, SortedDesigns, count_designs
from solvers.exact.exhaustive import scored_designs

NEAR = 1e-3
"""Relative loss up to which a design counts as nearly as good as the best one."""
_ORDERS = 24
"""Orders of a design that are ruled out at once for solvers which search all of them; further ones are once they are met."""
_SHARES = 8
"""A design may take this part of what is left at least, however many are asked for: most need far less."""


def apart(problem: DesignProblem, one: Architecture, other: Architecture) -> int:
    """In how many decisions two designs differ, equally wide neighbouring blocks in the order in which they differ least.

    Where the order matters to the problem (`solvers.arrangements.order_is_free`) the blocks stay where they are.
    """
    if order_is_free(problem):
        return aligned(one, other).differing
    agreement = problem.space.agreement(one)
    return round(agreement(one) - agreement(other))


def alternatives(
    problem: DesignProblem,
    count: int,
    differing: int = 1,
    solver: Solver | None = None,
    limits: Limits | None = None,
    optimum: Solution | None = None,
) -> tuple[Solution, ...]:
    """The best design, then `count` − 1 times the best that differs from all before in at least `differing` decisions.

    A decision is one choice for one block: its width, its FFN width, its depth; in a union of spaces, what surrounds the blocks as
    well, such as the vocabulary; of a score table, the option of a position; `space.decisions` in all. Designs are compared
    with equally wide neighbouring blocks in the order in which they differ least, see `apart`: what only reorders such blocks is
    the same design. With differing = 1 these are the `count` best designs of the problem, ties in any order. Each solution says
    whether it was proved.

    Nothing is passed over: a design that the solver returns and that is too near to one before rules out, as a budget, only designs
    that are too near as well, and the search is repeated. Dynamic programming searches just one order of each design.

    Args:
        problem: with a single objective.
        count: designs to find, the best included.
        differing: decisions in which each differs from all before.
        solver: an exact one; Automatic() by default, which leaves further designs to dynamic programming where their order makes no
            difference.
        limits: of the whole call, shared out evenly among the designs, an eighth of what is left for each at least; one for which
            that does not suffice gets all that is left. Gap 0 by default: with a larger gap g each design is the best of those
            left only up to the fraction g.
        optimum: the solution of the problem, if it is known already: the first of the series.

    Returns:
        The solutions. If fewer than `count` designs were found, the last one has none and its status says why: INFEASIBLE if no
        further design exists, else UNKNOWN. If the limits left no time to look for a further one, the series just ends.

    Raises:
        ValueError: for a count below 1, and for differing outside 1 … `space.decisions`.
    """
    decisions = problem.space.decisions
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}; expected a whole number of designs, at least 1")
    if isinstance(differing, bool) or not isinstance(differing, int) or not 1 <= differing <= decisions:
        raise ValueError(f"differing is {differing!r}; expected a whole number from 1 to {decisions}, the decisions of a design")
    run = Run(limits or Limits(gap=0))
    with run.listening():
        return _Series(problem, differing, solver or Automatic(), run).solutions(count, optimum)


class _Series:
    """One call of `alternatives`: the designs so far, and the budgets that keep further ones away from them."""

    def __init__(self, problem: DesignProblem, differing: int, solver: Solver, run: Run) -> None:
        self.problem, self.differing, self.run = problem, differing, run
        self.free = order_is_free(problem)
        self.sorts = isinstance(solver, Automatic | DynamicProgramming) and can_sort(problem)
        options = solver if isinstance(solver, DynamicProgramming) else DynamicProgramming()
        self.first, self.solver = solver, SortedDesigns(options, self._differs) if self.sorts else solver
        self.designs: list[Architecture] = []
        self.away: tuple[Budget, ...] = ()

    def solutions(self, count: int, optimum: Solution | None) -> tuple[Solution, ...]:
        found: list[Solution] = []
        while len(found) < count:
            solution = optimum if optimum is not None and not found else self._next(count - len(found))
            if solution is None:
                break
            # The budgets that keep the designs apart are ours and not the user's.
            found.append(replace(solution, usage=solution.usage[: len(self.problem.subject_to)]))
            if solution.architecture is None:
                break
            self._leave(solution.architecture)
        return tuple(found)

    def _next(self, shares: int) -> Solution | None:
        """The best design away from all before, of `shares` still asked for; None once the run is used up."""
        solver, shares = self.solver if self.designs else self.first, min(shares, _SHARES)
        while True:
            problem = replace(self.problem, subject_to=(*self.problem.subject_to, *self.away))
            solution = solve_within(self.run, problem, solver, shares)
            if solution is None:
                return None
            if solution.architecture is None:
                if solution.status is Status.UNKNOWN and shares > 1 and not self.run.stopped:
                    shares = 1  # the share did not suffice: what is left may
                    continue
                return solution
            too_near = self._too_near(solution.architecture)
            if not too_near:
                return solution
            self.away += too_near

    def _leave(self, design: Architecture) -> None:
        """Keep further designs away from this one."""
        self.designs.append(design)
        kept = [design]
        if self.sorts:
            kept = [sorted_design(design)]
        elif self.free:
            kept = list(islice(orders(design), _ORDERS))
        agreements = map(self.problem.space.agreement, kept)
        self.away += tuple(
            Budget(agreement, agreement(each) - self.differing) for agreement, each in zip(agreements, kept, strict=True)
        )

    def _differs(self, design: Architecture) -> bool:
        """Whether a design differs enough from all before."""
        return all(aligned(before, design).differing >= self.differing for before in self.designs)

    def _too_near(self, design: Architecture) -> tuple[Budget, ...]:
        """Budgets that rule out a design which is too near to some before; none where it differs enough."""
        budgets = []
        for before in self.designs if self.free else ():
            for both in (False, True):
                alignment = aligned(before, design, both)
                if alignment.differing < self.differing:
                    budgets.append(alignment.budget(self.differing))
                    break
        return tuple(budgets)


def count_near(
    problem: DesignProblem,
    optimum: float,
    within: float = NEAR,
    limits: Limits | None = None,
    counter: Callable[[DesignProblem, float, Limits | None], Count] = count_designs,
) -> Count:
    """How many designs meet the budgets with an objective worse than the optimum by at most within·|optimum|.

    Args:
        problem: with a single objective.
        optimum: an objective.
        within: relative loss, 0.1 % by default.
        limits: of the whole call.
        counter: `count_designs`, which does not list them, or `count_exhaustively`.

    Raises:
        ValueError: for a `within` that is negative or not a finite number.
    """
    if not 0 <= within < math.inf:
        raise ValueError(f"within is {within!r}; expected a relative loss of at least 0, such as 1e-3")
    loss = max(within, ROUNDING) * abs(optimum)
    threshold = optimum + loss if problem.least else optimum - loss
    if len(problem.parts) == 1:
        return counter(problem, threshold, limits)
    run = Run(limits or Limits())
    evenly = share_of(run, len(problem.parts)).evaluations
    counts: list[Count] = []
    with run.listening():
        for number, part in enumerate(problem.parts):
            if run.stopped:
                break
            counts.append(counter(part, threshold, replace(share_of(run, len(problem.parts) - number), evaluations=evenly)))
            run.interrupted |= counts[-1].interrupted
    exact = len(counts) == len(problem.parts) and all(count.exact for count in counts)
    distinct = [count.distinct for count in counts if count.distinct is not None]
    settled = sum(distinct) if exact and len(distinct) == len(counts) else None
    return Count(threshold, sum(count.number for count in counts), exact, run.seconds, settled, run.interrupted)


def count_exhaustively(problem: DesignProblem, threshold: float, limits: Limits | None = None) -> Count:
    """What `count_designs` counts, by scoring every design of the space: its witness, and the way to count with black boxes."""
    run = Run(limits or Limits())
    number = distinct = 0
    free = order_is_free(problem)
    in_order = SortedItems(problem.space) if can_sort(problem) else None
    with run.listening():
        for chunk in scored_designs(problem.maximizing, run):
            counted = np.flatnonzero(chunk.values >= (-threshold if problem.least else threshold))
            number += len(counted)
            if in_order is not None:
                distinct += int(in_order.contain(chunk.choices(counted)).sum())
    exact = run.evaluations == problem.space.size
    settled = distinct if in_order is not None else None if free else number
    return Count(threshold, number, exact, run.seconds, settled if exact else None, run.interrupted)
