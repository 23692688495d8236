"""What a budget is worth: the optimum as a function of that budget alone, exact around its present value.

H*(u) = max { H(A) : q(A) ≤ u, all other budgets met } is a step function of u that never falls. Its breakpoints are found by
the ε-constraint method: solve, lower u to just below what the design uses, solve again. A budget from below is one from above on
−q, and an objective to be minimized is −H; what comes out is in their own words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from formulation import Architecture, Budget, DesignProblem, Separable, tabulate
from formulation.problem import just_below
from formulation.values import value_of
from solvers.automatic import Automatic
from solvers.base import ROUNDING, Limits, Run, Solution, Solver, Status, broken_budgets, mirrored, share_of, solve_within

_FIRST_STEP = 1e-4
"""Relative step by which a budget is first enlarged; it doubles until the optimum rises."""
_SHARES = 4
"""A solve may take this part of the time that is left for its budget; what it leaves goes to those that follow."""


@dataclass(frozen=True)
class Breakpoint:
    """Where the value function steps: the optimum is `objective` from a budget of `bound` on, and worse where it is tighter.

    Attributes:
        bound: tightest value of the budget at which the objective is reached, in its unit.
        objective: the optimum from there on.
        architecture: the design.
        proved: whether both are proved: that no design within `bound` is better, and no tighter one as good.
    """

    bound: float
    objective: float
    architecture: Architecture
    proved: bool


@dataclass(frozen=True)
class Price:
    """The value function of one budget around its present value, all other budgets kept.

    Attributes:
        budget: the budget.
        present: the breakpoint that the present optimum belongs to; its `bound` is what the budget could be tightened to without
            loss.
        binds: whether the optimum without this budget is better; None if that is not proved.
        unlimited: the optimum without this budget, or the best found; None if none was.
        below: breakpoints of tighter budgets, the nearest first: what they cost.
        above: breakpoints of looser budgets, the nearest first: what they buy; proved ones leave none out.
        floor: proved: no design meets a budget tighter than the last breakpoint of `below` (the present one if there isn't one).
        explored: `above` holds all breakpoints up to this value; ±∞ where no looser one buys anything.
        limited: whether a limit ended a search without its proof: steps may be missing then, or not proved.
        interrupted: whether Ctrl-C did.
        loose: whether a search ended by itself with a bound that its tolerances keep from being a proof, as engines do: then too
            steps may be missing or not proved, and more time is of no help.
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
    loose: bool = False

    @property
    def slack(self) -> float:
        """How much tighter the budget could be without loss, in its unit."""
        return abs(self.budget.bound - self.present.bound)

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """All of them, the tightest budget first."""
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

    Values of a budget that differ by less than a relative 1e-11 are not distinguished. A step whose proof the limits cut short is
    the last one on its side and says so.

    Args:
        solver: an exact one, Automatic() unless given.
        limits: of the whole call, shared out among the budgets; gap 0 unless given. With a larger gap g each value is the optimum
            up to the fraction g: steps that rise by less may be missing, and `proved` says that it holds up to that fraction.
        steps: breakpoints to find on each side of the present one.
        reach: multiple of the budget, or for one from below the fraction 1/reach of it, at which the search for looser ones ends.
        optimum: the solution of the problem, where it is known already.

    Raises:
        ValueError: if there is no design to start from, and for steps below 0 or a reach of 1 or less.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps is {steps!r}; expected a whole number of at least 0")
    if not 1 < reach < math.inf:
        raise ValueError(f"reach is {reach!r}; expected a factor above 1, such as 2")
    run = Run(limits or Limits(gap=0))
    with run.listening():
        return _prices(problem, solver or Automatic(), run, steps, reach, optimum)


def _prices(
    problem: DesignProblem, solver: Solver, run: Run, steps: int, reach: float, optimum: Solution | None
) -> tuple[Price, ...]:
    """The prices, one budget after the other."""
    if optimum is None:
        optimum = solve_within(run, problem, solver, len(problem.subject_to) + 1)
    if optimum is None or optimum.architecture is None or broken_budgets(problem, optimum.architecture):
        raise ValueError(
            "there is no design whose budgets could be priced: none was found, or it exceeds a budget of this problem; "
            "explain_infeasibility says what conflicts"
        )
    prices = []
    plain = problem.maximizing
    if problem.least:
        optimum = mirrored(optimum)
    for number in range(len(problem.subject_to)):
        # Each budget gets an even share of the time that is left, whatever the ones before needed.
        own = Run(share_of(run, len(problem.subject_to) - number), interrupted=run.interrupted)
        with own.listening():
            price = _Pricing(plain, number, solver, own).price(optimum, steps, reach)
        prices.append(_in_own_words(price, problem.least))
        run.evaluations += own.evaluations
        run.interrupted |= own.interrupted
    return tuple(prices)


def _in_own_words(price: Price, least: bool) -> Price:
    """A price of −q and −H in those of q, where the budget is from below, and of H where it is minimized."""
    bound = -1.0 if price.budget.upper is None else 1.0
    objective = -1.0 if least else 1.0

    def own(point: Breakpoint) -> Breakpoint:
        return replace(point, bound=bound * point.bound + 0.0, objective=objective * point.objective + 0.0)

    return replace(
        price,
        present=own(price.present),
        unlimited=None if price.unlimited is None else objective * price.unlimited + 0.0,
        below=tuple(map(own, price.below)),
        above=tuple(map(own, price.above)),
        explored=bound * price.explored + 0.0,
    )


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
    """Breakpoints downwards, the highest first; `rest` is the value below them, None if a proof is missing."""

    breakpoints: tuple[Breakpoint, ...]
    rest: _Value | None


class _Pricing:
    """The value function of one budget q ≤ u, of the maximization: its evaluations, and the chains of breakpoints read off them.

    Attributes:
        sign: −1 for a budget from below, whose q and u are negated here.
        upper: the present u.
        least: q is nowhere less, as far as its terms say.
    """

    def __init__(self, problem: DesignProblem, number: int, solver: Solver, run: Run) -> None:
        self.problem, self.number, self.solver, self.run = problem, number, solver, run
        self.budget = problem.subject_to[number]
        self.sign = 1.0 if self.budget.upper is not None else -1.0
        self.upper = self.sign * self.budget.bound
        self.quantity = self.budget.constraint.quantity
        self.least = self.quantity.least
        if isinstance(self.quantity, Separable):
            lowest = (tabulate([self.quantity], part).extremes[0][0] for part in problem.space.parts)
            self.least = max(self.least, float(min(lowest)))
        self.room = max(run.limits.gap, ROUNDING)
        self.limited = self.loose = False

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
        ended = self.limited, self.run.interrupted, self.loose
        return Price(self.budget, present, binds, best, tuple(below), above, floor, explored, *ended)

    def _value(self, upper: float | None, start: Architecture | None = None) -> _Value:
        """H* at `upper`, None for no budget at all."""
        budgets = list(self.problem.subject_to)
        budgets[self.number : self.number + 1] = [] if upper is None else [self.budget.at(self.sign * upper)]
        share = share_of(self.run, _SHARES)
        solution = solve_within(self.run, replace(self.problem, subject_to=tuple(budgets)), self.solver, _SHARES, start)
        if solution is None or solution.status not in (Status.OPTIMAL, Status.INFEASIBLE):
            by_limit = solution is None or solution.interrupted or _reached(solution, share)
            self.limited |= by_limit
            self.loose |= not by_limit
        return _value_of(solution)

    def _as_good(self, value: float, other: float) -> bool:
        """Whether `value` is at least `other`, up to the gap."""
        return value >= other or value >= other - self.room * abs(other)

    def _chain(self, top: _Value, least: float, most: int) -> _Chain:
        """Up to `most` breakpoints from that of `top` downwards, those of an objective above `least`."""
        found: list[Breakpoint] = []
        while (design := top.architecture) is not None and len(found) < most and not self._as_good(least, top.objective):
            used = value_of(self.quantity, design)
            below = self._value(just_below(used)) if used > self.least else _NO_DESIGN
            if below.architecture is not None and self._as_good(below.objective, top.objective):
                # Another design as good that needs less: the step begins there.
                top = replace(below, proved=top.proved and below.proved)
                continue
            proved = top.proved and not self._as_good(below.bound, top.objective)
            found.append(Breakpoint(used, top.objective, design, proved))
            if not proved or not below.proved:
                if proved and len(found) < most and below.architecture is not None and not self._as_good(least, below.objective):
                    used = self.quantity(below.architecture)
                    found.append(Breakpoint(used, below.objective, below.architecture, False))
                return _Chain(tuple(found), None)
            top = below
        return _Chain(tuple(found), top)

    def _above(self, present: Breakpoint, unlimited: _Value, steps: int, reach: float) -> tuple[tuple[Breakpoint, ...], float]:
        """The nearest breakpoints over the present one, and up to where none is left out."""
        found: list[Breakpoint] = []
        last, base, step = present, self.upper, _FIRST_STEP
        most_used = self.quantity(unlimited.architecture) if unlimited.architecture is not None else 0.0
        scale = abs(self.upper or most_used)
        end = (self.upper * reach if self.upper > 0 else self.upper / reach) or most_used
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
            last, base = nearest[-1], nearest[-1].bound
        return tuple(found), math.inf if self._as_good(last.objective, unlimited.bound) else base

    def _between(self, base: float, last: Breakpoint, top: _Value, count: int) -> tuple[Breakpoint, ...]:
        """The lowest `count` breakpoints, the lowest first, in the stretch from `base`, where `last` is best, to that of `top`.

        Where the stretch holds many it is halved first, so that the chain down to `base` stays short.
        """
        chain = self._chain(top, last.objective, 2 * count + 2)
        while chain.rest is not None and not self._as_good(last.objective, chain.rest.objective):
            middle = (base + chain.breakpoints[-1].bound) / 2
            value = self._value(middle, last.architecture)
            if value.proved and self._as_good(last.objective, value.objective):
                base, value = middle, chain.rest
            chain = self._chain(value, last.objective, 2 * count + 2)
        lowest = tuple(reversed(chain.breakpoints))
        if chain.rest is None:
            # Broken off on the way down: what was met is there, but others may lie before it.
            return tuple(replace(breakpoint, proved=False) for breakpoint in lowest[:1])
        return lowest[:count]


def _reached(solution: Solution, limits: Limits) -> bool:
    """Whether a search lasted until a limit; an engine may stop a moment before its time is up."""
    seconds, evaluations = limits.seconds, limits.evaluations
    timed_out = seconds is not None and solution.seconds >= 0.95 * seconds
    return timed_out or (evaluations is not None and solution.evaluations >= evaluations)


def _value_of(solution: Solution | None) -> _Value:
    if solution is None:
        return _NOT_SOLVED
    if solution.architecture is None or solution.objective is None:
        return _NO_DESIGN if solution.status is Status.INFEASIBLE else _NOT_SOLVED
    bound = math.inf if solution.bound is None else solution.bound
    return _Value(solution.architecture, solution.objective, bound, solution.status is Status.OPTIMAL)
