"""What a budget is worth: the optimum as a function of that budget alone, exact around its present value.

H*(u) = max { H(A) : q(A) ≤ u, all other budgets kept } is a step function of u that never falls. Its breakpoints are found by
the ε-constraint method: solve, lower u to just below what the design uses, solve again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from formulation import Architecture, Budget, DesignProblem
from formulation.problem import just_below
from formulation.values import value_of
from solvers.base import ROUNDING, Limits, Run, Solution, Solver, Status, broken_budgets, share_of, solve_within
from solvers.exact.dynamic_programming import DynamicProgramming

_FIRST_STEP = 1e-4
"""Relative step by which a budget is first enlarged; it doubles until the optimum rises."""
_SHARES = 4
"""A solve may take this part of the time that is left for its budget; what it leaves goes to those that follow."""


@dataclass(frozen=True)
class Breakpoint:
    """Where the value function rises: H*(u) = objective from u = upper on, and less below.

    upper         least value of the budget at which the objective is reached, in its unit
    objective     the optimum from there on
    architecture  the design
    proved        whether both are proved: that no design within `upper` is better, and none below it as good
    """

    upper: float
    objective: float
    architecture: Architecture
    proved: bool


@dataclass(frozen=True)
class Price:
    """The value function of one budget around its present value, all other budgets kept.

    budget     the budget
    present    the breakpoint that the present optimum belongs to; its `upper` is what the budget could be cut to without loss
    binds      whether the optimum without this budget is higher; None where that is not proved
    unlimited  the optimum without this budget, or the best found; None where none was
    below      breakpoints under the present one, the nearest first: what less of the budget costs
    above      breakpoints over it, the nearest first: what more of the budget buys; proved ones leave none out
    floor      proved: no design keeps a budget lower than the last breakpoint of `below` (the present one where there is none)
    explored   `above` holds all breakpoints up to this value; math.inf where no further budget buys anything
    limited    whether a limit ended a search without its proof: steps may be missing then, or not proved
    interrupted  whether Ctrl-C did
    """

    budget: Budget
    present: Breakpoint
    binds: bool | None
    unlimited: float | None
    below: tuple[Breakpoint, ...]
    above: tuple[Breakpoint, ...]
    floor: bool
    explored: float
    limited: bool = False
    interrupted: bool = False

    @property
    def slack(self) -> float:
        """Budget minus the least that an optimal design needs, in its unit."""
        return self.budget.upper - self.present.upper

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """All of them, the lowest budget first."""
        return (*reversed(self.below), self.present, *self.above)


def price_of_budgets(
    problem: DesignProblem,
    solver: Solver | None = None,
    limits: Limits | None = None,
    steps: int = 3,
    reach: float = 2.0,
    optimum: Solution | None = None,
) -> tuple[Price, ...]:
    """The price of every budget of the problem, in its order.

    solver   an exact one, DynamicProgramming() unless given
    limits   of the whole call, shared out among the budgets; gap 0 unless given. With a larger gap g each value is the optimum
             up to the fraction g: steps that rise by less may be missing, and `proved` says that it holds up to that fraction
    steps    breakpoints to find on each side of the present one
    reach    multiple of the budget at which the search upwards ends
    optimum  the solution of the problem, where it is known already

    Values of a budget that differ by less than a relative 1e-11 are not told apart. A step whose proof the limits cut short
    is the last one on its side and says so. Raises ValueError where there is no design to start from, or for steps below 0 or
    a reach of 1 or less.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps is {steps!r}; expected a whole number of at least 0")
    if not 1 < reach < math.inf:
        raise ValueError(f"reach is {reach!r}; expected a factor above 1, such as 2")
    run = Run(limits or Limits(gap=0))
    solver = solver or DynamicProgramming()
    if optimum is None:
        optimum = solve_within(run, problem, solver, len(problem.subject_to) + 1)
    if optimum is None or optimum.architecture is None or broken_budgets(problem, optimum.architecture):
        raise ValueError(
            "there is no design whose budgets could be priced: none was found, or it breaks a budget of this problem; "
            "explain_infeasibility says what conflicts"
        )
    prices = []
    for number in range(len(problem.subject_to)):
        # Each budget gets an even share of the time that is left, whatever the ones before needed.
        own = Run(share_of(run, len(problem.subject_to) - number), interrupted=run.interrupted)
        with own.listening():
            prices.append(_Pricing(problem, number, solver, own).price(optimum, steps, reach))
        run.evaluations += own.evaluations
        run.interrupted |= own.interrupted
    return tuple(prices)


@dataclass(frozen=True)
class _Value:
    """What one solve says of H*(u): a design, and a bound that is −∞ where it is proved that there is none."""

    architecture: Architecture | None
    objective: float
    bound: float
    proved: bool


_NO_DESIGN = _Value(None, -math.inf, -math.inf, True)
_NOT_SOLVED = _Value(None, -math.inf, math.inf, False)


@dataclass(frozen=True)
class _Chain:
    """Breakpoints downwards, the highest first; `rest` is the value below them, None where a proof is missing."""

    breakpoints: tuple[Breakpoint, ...]
    rest: _Value | None


class _Pricing:
    """The value function of one budget: its evaluations, and the chains of breakpoints read off them."""

    def __init__(self, problem: DesignProblem, number: int, solver: Solver, run: Run) -> None:
        self.problem, self.number, self.solver, self.run = problem, number, solver, run
        self.budget = problem.subject_to[number]
        self.quantity = self.budget.quantity
        self.room = max(run.limits.gap, ROUNDING)
        self.limited = False

    def price(self, optimum: Solution, steps: int, reach: float) -> Price:
        unlimited = self._value(None, optimum.architecture)
        chain = self._chain(_value_of(optimum), -math.inf, steps + 1)
        present, *below = chain.breakpoints
        floor = chain.rest is not None and chain.rest.architecture is None
        if self._as_good(present.objective, unlimited.bound):
            binds: bool | None = False
        else:
            binds = True if optimum.bound is not None and not self._as_good(optimum.bound, unlimited.objective) else None
        above, explored = self._above(present, unlimited, steps, reach)
        best = None if unlimited.architecture is None else unlimited.objective
        ended = self.limited, self.run.interrupted
        return Price(self.budget, present, binds, best, tuple(below), above, floor, explored, *ended)

    def _value(self, upper: float | None, start: Architecture | None = None) -> _Value:
        """H* at `upper`, None for no budget at all."""
        budgets = list(self.problem.subject_to)
        budgets[self.number : self.number + 1] = [] if upper is None else [Budget(self.quantity, upper)]
        solution = solve_within(self.run, replace(self.problem, subject_to=tuple(budgets)), self.solver, _SHARES, start)
        self.limited |= solution is None or solution.status not in (Status.OPTIMAL, Status.INFEASIBLE)
        return _value_of(solution)

    def _as_good(self, value: float, other: float) -> bool:
        """Whether `value` is at least `other`, up to the gap."""
        return value >= other or value >= other - self.room * abs(other)

    def _chain(self, top: _Value, least: float, most: int) -> _Chain:
        """Up to `most` breakpoints from that of `top` downwards, those of an objective above `least`."""
        found: list[Breakpoint] = []
        while (design := top.architecture) is not None and len(found) < most and not self._as_good(least, top.objective):
            used = value_of(self.quantity, design)
            below = self._value(just_below(used)) if used > 0 else _NO_DESIGN
            if below.architecture is not None and self._as_good(below.objective, top.objective):
                # Another design as good that needs less: the step begins there.
                top = replace(below, proved=top.proved and below.proved)
                continue
            proved = top.proved and not self._as_good(below.bound, top.objective)
            found.append(Breakpoint(max(used, 0.0), top.objective, design, proved))
            if not proved or not below.proved:
                if proved and len(found) < most and below.architecture is not None and not self._as_good(least, below.objective):
                    used = max(self.quantity(below.architecture), 0.0)
                    found.append(Breakpoint(used, below.objective, below.architecture, False))
                return _Chain(tuple(found), None)
            top = below
        return _Chain(tuple(found), top)

    def _above(self, present: Breakpoint, unlimited: _Value, steps: int, reach: float) -> tuple[tuple[Breakpoint, ...], float]:
        """The nearest breakpoints over the present one, and up to where none is left out."""
        found: list[Breakpoint] = []
        last, base, step = present, self.budget.upper, _FIRST_STEP
        most_used = self.quantity(unlimited.architecture) if unlimited.architecture is not None else 0.0
        scale = self.budget.upper or most_used
        end = self.budget.upper * reach or most_used
        while len(found) < steps and base < end:
            if self._as_good(last.objective, unlimited.bound):
                return tuple(found), math.inf
            upper = min(base + step * scale, end)
            top = self._value(upper, last.architecture)
            if top.proved and self._as_good(last.objective, top.objective):
                base, step = upper, 2 * step
                continue
            nearest = self._between(base, last, top, steps - len(found))
            found += nearest
            if not nearest or not nearest[-1].proved:
                return tuple(found), base
            last, base = nearest[-1], nearest[-1].upper
        return tuple(found), math.inf if self._as_good(last.objective, unlimited.bound) else base

    def _between(self, base: float, last: Breakpoint, top: _Value, count: int) -> tuple[Breakpoint, ...]:
        """The lowest `count` breakpoints, the lowest first, in the stretch from `base`, where `last` is best, to that of `top`.

        Where the stretch holds many it is halved first, so that the chain down to `base` stays short.
        """
        chain = self._chain(top, last.objective, 2 * count + 2)
        while chain.rest is not None and not self._as_good(last.objective, chain.rest.objective):
            middle = (base + chain.breakpoints[-1].upper) / 2
            value = self._value(middle, last.architecture)
            if value.proved and self._as_good(last.objective, value.objective):
                base, value = middle, chain.rest
            chain = self._chain(value, last.objective, 2 * count + 2)
        lowest = tuple(reversed(chain.breakpoints))
        if chain.rest is None:
            # Broken off on the way down: what was met is there, but others may lie before it.
            return tuple(replace(breakpoint, proved=False) for breakpoint in lowest[:1])
        return lowest[:count]


def _value_of(solution: Solution | None) -> _Value:
    if solution is None:
        return _NOT_SOLVED
    if solution.architecture is None or solution.objective is None:
        return _NO_DESIGN if solution.status is Status.INFEASIBLE else _NOT_SOLVED
    bound = math.inf if solution.bound is None else solution.bound
    return _Value(solution.architecture, solution.objective, bound, solution.status is Status.OPTIMAL)
