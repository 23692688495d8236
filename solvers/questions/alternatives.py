"""The designs beside the best one: the next best that differ enough from it, and how many are nearly as good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from formulation import Agreement, Budget, DesignProblem
from solvers.base import ROUNDING, Limits, Run, Solution, Solver, solve_within
from solvers.exact.dynamic_programming import Count, DynamicProgramming, count_designs
from solvers.exact.exhaustive import scored_designs


def alternatives(
    problem: DesignProblem,
    count: int,
    differing: int = 1,
    solver: Solver | None = None,
    limits: Limits | None = None,
    optimum: Solution | None = None,
) -> tuple[Solution, ...]:
    """The best design, then `count` − 1 times the best that differs from all before in at least `differing` decisions.

    A decision is one choice for one block: its width, its FFN width, its depth; `space.decisions` in all. With differing = 1 these
    are the `count` best designs of the problem, ties in any order. Each solution says whether it was proved. Where fewer than
    `count` designs were found, the last solution has none and its status says why: INFEASIBLE where no further design exists, else
    UNKNOWN; where the limits left no time to look for a further one, the series just ends.

    solver   DynamicProgramming() unless given
    limits   of the whole call, even shares for the designs; gap 0 unless given: with a larger gap g each design is the best of
             those left only up to the fraction g
    optimum  the solution of the problem, where it is known already: the first of the series
    Raises ValueError for a count below 1 and for differing outside 1 … `space.decisions`.
    """
    decisions = problem.space.decisions
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}; expected a whole number of designs, at least 1")
    if isinstance(differing, bool) or not isinstance(differing, int) or not 1 <= differing <= decisions:
        raise ValueError(f"differing is {differing!r}; expected a whole number from 1 to {decisions}, the decisions of a design")
    run = Run(limits or Limits(gap=0))
    found: list[Solution] = []
    apart = problem
    with run.listening():
        while len(found) < count:
            solution = optimum if optimum is not None and not found else None
            solution = solution or solve_within(run, apart, solver or DynamicProgramming(), count - len(found))
            if solution is None:
                break
            # The budgets that keep the designs apart are ours and not the user's.
            found.append(replace(solution, usage=solution.usage[: len(problem.subject_to)]))
            if solution.architecture is None:
                break
            own = Agreement(solution.architecture)
            apart = replace(apart, subject_to=(*apart.subject_to, Budget(own, own.most - differing)))
    return tuple(found)


def count_near(
    problem: DesignProblem,
    optimum: float,
    within: float = 1e-3,
    limits: Limits | None = None,
    counter: Callable[[DesignProblem, float, Limits | None], Count] = count_designs,
) -> Count:
    """How many designs keep the budgets with an objective of at least optimum − within·|optimum|.

    within   relative loss, 0.1 % unless given
    counter  `count_designs`, which does not list them, or `count_exhaustively`
    Raises ValueError for a `within` that is negative or no number.
    """
    if not 0 <= within < math.inf:
        raise ValueError(f"within is {within!r}; expected a relative loss of at least 0, such as 1e-3")
    return counter(problem, optimum - max(within, ROUNDING) * abs(optimum), limits)


def count_exhaustively(problem: DesignProblem, at_least: float, limits: Limits | None = None) -> Count:
    """What `count_designs` counts, by scoring every design of the space: its witness, and the way to count with black boxes."""
    run = Run(limits or Limits())
    number = 0
    with run.listening():
        for chunk in scored_designs(problem, run):
            number += int((chunk.values >= at_least).sum())
    return Count(at_least, number, run.evaluations == problem.space.size, run.seconds)
