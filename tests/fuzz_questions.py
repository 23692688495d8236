"""The questions beside the best design, asked about the random problems of `tests.fuzz` and compared with brute force.

    python -m tests.fuzz_questions --problems 200
    python -m tests.fuzz_questions --seed 4711 --problems 1 --questions prices

What is claimed is compared with what rounding leaves certain: designs that meet a budget, or are better than another, by more than
the rounding of their values.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from formulation import Architecture, Block, DesignProblem, NotSeparable, Quantity
from formulation.architecture import SETTING
from formulation.values import Undefined
from solvers import (
    Limits,
    Status,
    alternatives,
    count_near,
    design,
    exact_front,
    explain_infeasibility,
    price_of_budgets,
    solve,
)
from solvers.arrangements import order_is_free
from tests import fuzz

_ROOM = 1e-9
"""Relative difference of two values below which nothing is claimed about their order."""


class Values:
    """A quantity of every design of a problem: its value, and how far it may be off or from what is the same to a solver."""

    def __init__(self, quantity: Quantity, problem: DesignProblem) -> None:
        values = [fuzz.value_of(quantity, each) for each in fuzz.designs_of(problem.space)]
        self.exact = np.array([value.exact for value in values])
        self.room = np.array([value.rounding for value in values]) + _ROOM * np.abs(self.exact)


@dataclass
class Asked:
    """A problem with all that brute force knows of it; objectives are to be maximized here, negated where they are minimized."""

    problem: DesignProblem
    limits: Limits
    seed: int

    def __post_init__(self) -> None:
        self.designs = fuzz.designs_of(self.problem.space)
        self.place = {each: n for n, each in enumerate(self.designs)}
        goal = Values(self.problem.goal, self.problem)
        self.sign = -1.0 if self.problem.least else 1.0
        self.objective, self.room = self.sign * goal.exact, goal.room
        self.used = [Values(budget.quantity, self.problem) for budget in self.problem.subject_to]
        self.certain = self.meeting(range(len(self.used)), 1.0)
        self.possible = self.meeting(range(len(self.used)), -1.0)

    def within(self, number: int, bound: float, room: float) -> np.ndarray:
        """Bool (designs,): which meet a budget with another bound, with `room` times what is doubtful to spare."""
        budget, used = self.problem.subject_to[number], self.used[number]
        way = 1.0 if budget.upper is not None else -1.0
        return way * (bound - used.exact) >= room * (used.room + _ROOM * abs(bound))

    def meeting(self, numbers: Sequence[int] | range, room: float) -> np.ndarray:
        """Bool (designs,): which meet these budgets."""
        every = np.ones(len(self.designs), dtype=bool)
        return np.logical_and.reduce([every, *(self.within(n, self.problem.subject_to[n].bound, room) for n in numbers)])

    def better(self, value: float, among: np.ndarray) -> np.ndarray:
        """Numbers of the designs among some that are certainly better than an objective, best first."""
        found = np.flatnonzero(among & (self.objective - self.room > value + (_ROOM + self.limits.gap) * abs(value)))
        return found[np.argsort(-self.objective[found], kind="stable")]


def _arranged(blocks: Sequence[Block]) -> Iterator[tuple[Block, ...]]:
    """Blocks in every order that leaves the widths where they are."""
    stretches = [list(own) for _, own in itertools.groupby(blocks, key=lambda block: block.width)]
    ways = [set(itertools.permutations(own)) for own in stretches]
    return (tuple(itertools.chain(*parts)) for parts in itertools.product(*ways))


def _apart(one: Architecture, other: Architecture, free: bool) -> int:
    """In how many decisions two designs differ, in the orders in which they differ least, by trying all of them."""

    def differing(left: Sequence[Block], right: Sequence[Block]) -> int:
        pairs = zip(left, right, strict=True)
        return sum(sum(a.choices[name] != b.choices[name] for name in a.choices) for a, b in pairs)

    around = sum(getattr(one, name) != getattr(other, name) for name in SETTING)
    if not free:
        return around + differing(one.blocks, other.blocks)
    return around + min(differing(a, b) for a, b in itertools.product(_arranged(one.blocks), _arranged(other.blocks)))


def _same(design: Architecture) -> frozenset[tuple[object, ...]]:
    """What a design shares with all that only reorder equally wide neighbours."""
    around = tuple(getattr(design, name) for name in SETTING)
    return frozenset((around, *(tuple(block.choices.values()) for block in order)) for order in _arranged(design.blocks))


def ask_for_alternatives(asked: Asked) -> list[str]:
    """Each design is the best of those that differ enough from all before, and the series ends where there is none."""
    problem, claims = asked.problem, []
    free, differing = order_is_free(problem), 1 + asked.seed % min(4, problem.space.decisions)
    found, before = alternatives(problem, 4, differing, limits=asked.limits), []

    def near(number: int) -> bool:
        return any(_apart(each, asked.designs[number], free) < differing for each in before)

    for solution in found:
        if solution.architecture is None:
            if solution.status is Status.INFEASIBLE and (missed := [n for n in np.flatnonzero(asked.certain) if not near(n)]):
                claims.append(f"after {len(before)} designs none is left, but {asked.designs[missed[0]]} is")
            break
        own = asked.place.get(solution.architecture)
        if own is None or not asked.possible[own]:
            claims.append(f"{solution.architecture} is outside the space or exceeds a budget")
            break
        if near(own):
            claims.append(f"{solution.architecture} differs from one before in fewer than {differing} decisions")
        best = [n for n in asked.better(asked.objective[own], asked.certain) if not near(n)]
        if solution.status is Status.OPTIMAL and best:
            claims.append(f"{asked.objective[own]!r} is no best one, {asked.objective[best[0]]!r} is left")
        if len(solution.usage) != len(problem.subject_to):
            claims.append(f"{len(solution.usage)} budgets in its usage")
        before.append(solution.architecture)
    return claims


def ask_for_a_count(asked: Asked) -> list[str]:
    """The number of near-optimal designs, and of those apart from order, between those that are counted for certain and perhaps."""
    if not asked.certain.any():
        return []
    best, claims = float(asked.objective[asked.certain].max()), []
    for within in (0.0, 1e-3, 0.1):
        count = count_near(asked.problem, asked.sign * best, within, asked.limits)
        threshold = best - within * abs(best)
        slack = asked.room + _ROOM * abs(best)
        least = asked.certain & (asked.objective >= threshold + (slack if within else 0.0))
        most = asked.possible & (asked.objective >= threshold - 2 * slack)
        if not within:
            least &= asked.objective > threshold + slack
        if count.number > most.sum() or (count.exact and count.number < least.sum()):
            claims.append(f"{count.number} designs within {within}, the truth is {least.sum()} to {most.sum()}")
        if count.distinct is not None:
            kinds = [len({_same(asked.designs[n]) for n in np.flatnonzero(own)}) for own in (least, most)]
            if not order_is_free(asked.problem):
                kinds = [int(least.sum()), int(most.sum())]
            if not kinds[0] <= count.distinct <= kinds[1]:
                claims.append(f"{count.distinct} apart from order within {within}, the truth is {kinds[0]} to {kinds[1]}")
    return claims


def ask_for_the_reason(asked: Asked) -> list[str]:
    """Conflicts that no design refutes, fewer budgets that one refutes, and needs that no nearer value meets."""
    problem, claims = asked.problem, []
    diagnosis = explain_infeasibility(problem, limits=asked.limits)
    if diagnosis.status is Status.INFEASIBLE and asked.certain.any():
        claims.append("false INFEASIBLE")
    if diagnosis.status is Status.FEASIBLE:
        own = None if diagnosis.architecture is None else asked.place.get(diagnosis.architecture)
        return claims if own is not None and asked.possible[own] else [*claims, f"{diagnosis.architecture} meets no budgets"]
    if diagnosis.conflict:
        numbers = [problem.subject_to.index(budget) for budget in diagnosis.conflict]
        if asked.meeting(numbers, 1.0).any():
            claims.append(f"no conflict: {numbers}")
        if diagnosis.smallest:
            fewer = itertools.combinations(range(len(problem.subject_to)), len(numbers) - 1)
            claims += [f"{own} conflict already" for own in fewer if not asked.meeting(own, -1.0).any()]
    if diagnosis.joint is not None and diagnosis.joint not in asked.place:
        claims.append(f"{diagnosis.joint} is outside the space")
    for n, need in enumerate(diagnosis.needs):
        way = 1.0 if need.budget.upper is not None else -1.0
        others = [m for m in range(len(problem.subject_to)) if m != n]
        if need.status is Status.INFEASIBLE and asked.meeting(others, 1.0).any():
            claims.append(f"{need.budget}: false INFEASIBLE of the others")
        for bound, among in ((need.bound, others), (need.alone, [])):
            if bound is None:
                continue
            proved = need.status is Status.OPTIMAL or among == []
            nearer = asked.meeting(among, 1.0) & (way * (bound - asked.used[n].exact) > asked.used[n].room + _ROOM * abs(bound))
            if proved and nearer.any():
                claims.append(f"{need.budget}: {bound!r}, but {asked.used[n].exact[nearer].tolist()[0]!r} is nearer")
            if not (asked.meeting(among, -1.0) & asked.within(n, bound, -1.0)).any():
                claims.append(f"{need.budget}: {bound!r} does not suffice")
        if need.architecture is not None and need.bound is not None:
            own = asked.place.get(need.architecture)
            if own is None or not (asked.meeting(others, -1.0) & asked.within(n, need.bound, -1.0))[own]:
                claims.append(f"{need.budget}: {need.architecture} does not suffice")
            elif need.objective is None or abs(asked.sign * need.objective - asked.objective[own]) > asked.room[own]:
                claims.append(f"{need.budget}: the objective is {need.objective!r}, that of its design {asked.objective[own]!r}")
    return claims


def ask_for_prices(asked: Asked) -> list[str]:
    """The value function of each budget by trying every bound."""
    problem, claims = asked.problem, []
    optimum = solve(problem, fuzz.SOLVERS["dp"], asked.limits)
    if optimum.architecture is None:
        return []
    for n, price in enumerate(price_of_budgets(problem, limits=asked.limits, steps=2, optimum=optimum)):
        budget, used = price.budget, asked.used[n]
        way = 1.0 if budget.upper is not None else -1.0
        others = [m for m in range(len(problem.subject_to)) if m != n]
        certain, possible = asked.meeting(others, 1.0), asked.meeting(others, -1.0)

        def tighter(bound: float, used: Values = used, way: float = way) -> np.ndarray:
            return way * (bound - used.exact) > used.room + _ROOM * abs(bound)

        points = price.breakpoints
        if any(
            way * (b.bound - a.bound) < 0 or asked.sign * (b.objective - a.objective) < 0 for a, b in itertools.pairwise(points)
        ):
            claims.append(f"{budget}: breakpoints out of order: {[(point.bound, point.objective) for point in points]}")
        for point in points:
            own, objective = asked.place.get(point.architecture), asked.sign * point.objective
            if own is None or not (possible & asked.within(n, point.bound, -1.0))[own]:
                claims.append(f"{budget}: {point.architecture} is not within {point.bound!r}")
            elif abs(objective - asked.objective[own]) > asked.room[own]:
                claims.append(f"{budget}: the objective is {objective!r}, that of its design {asked.objective[own]!r}")
            elif point.proved:
                better = asked.better(objective, certain & asked.within(n, point.bound, 1.0))
                as_good = asked.better(objective, certain & tighter(point.bound))
                if len(better) or len(as_good):
                    claims.append(f"{budget}: at {point.bound!r} {objective!r} is no breakpoint: {len(better)}, {len(as_good)}")
        for nearer, further in itertools.pairwise((price.present, *price.below)):
            if further.proved and len(asked.better(asked.sign * further.objective, certain & tighter(nearer.bound))):
                claims.append(f"{budget}: a step is missing between {further.bound!r} and {nearer.bound!r}")
        for nearer, further in itertools.pairwise((price.present, *price.above)):
            if further.proved and len(asked.better(asked.sign * nearer.objective, certain & tighter(further.bound))):
                claims.append(f"{budget}: a step is missing between {nearer.bound!r} and {further.bound!r}")
        last = price.above[-1] if price.above else price.present
        reached = certain if math.isinf(price.explored) else certain & asked.within(n, price.explored, 1.0)
        if last.proved and len(asked.better(asked.sign * last.objective, reached)):
            claims.append(f"{budget}: a step is missing above {last.bound!r}, explored {price.explored!r}")
        if price.floor and (certain & tighter((price.below[-1] if price.below else price.present).bound)).any():
            claims.append(f"{budget}: there are designs below the floor")
        present = asked.sign * price.present.objective
        if price.binds and not (possible & (asked.objective + asked.room > present)).any():
            claims.append(f"{budget}: does not bind")
        if price.binds is False and len(asked.better(present, certain)):
            claims.append(f"{budget}: binds")
    return claims


def ask_for_the_front(asked: Asked) -> list[str]:
    """Every design is dominated by a point of a complete front, and no point by a design."""
    problem = asked.problem
    if problem.least:
        return []
    draw = np.random.default_rng([61, asked.seed])
    costs: list[Quantity] = [fuzz.Params(), fuzz.Flops(seq_len=128)]
    costs = costs[: draw.integers(1, 3)]
    if problem.goal in costs:
        return []
    front = exact_front(DesignProblem(problem.space, problem.goal, problem.subject_to, minimize=tuple(costs)), limits=asked.limits)
    values = [Values(cost, problem) for cost in costs]
    claims, covered = [], np.zeros(len(asked.designs), dtype=bool)
    for point in front.points:
        own = asked.place.get(point.architecture)
        if own is None or not asked.possible[own]:
            claims.append(f"{point.architecture} is outside the space or exceeds a budget")
            continue
        objective = float(asked.objective[own])
        no_dearer = np.logical_and.reduce([value.exact <= value.exact[own] for value in values])
        cheaper = np.logical_or.reduce([value.exact < value.exact[own] for value in values])
        beaten = no_dearer & asked.certain & (asked.objective - asked.room > objective + _ROOM * abs(objective))
        beaten |= no_dearer & cheaper & asked.certain & (asked.objective - 2 * asked.room > objective)
        if front.complete and beaten.any():
            claims.append(f"the point {point.architecture} is dominated")
        dearer = np.logical_and.reduce([value.exact >= value.exact[own] - value.room for value in values])
        covered |= dearer & (asked.objective - 2 * asked.room <= objective + _ROOM * abs(objective))
    if front.complete and (asked.certain & ~covered).any():
        claims.append(f"{asked.designs[int((asked.certain & ~covered).argmax())]} is missing from the front")
    return claims


def ask_for_findings(asked: Asked) -> list[str]:
    """The findings print themselves, and what they say of the best design is true."""
    findings = design(asked.problem, limits=asked.limits, steps=1, alternatives=1)
    truth = fuzz.truth_of(asked.problem)
    assert str(findings)
    return fuzz.false_claims(asked.problem, asked.limits, truth, findings.solution)


QUESTIONS: dict[str, Callable[[Asked], list[str]]] = {
    "alternatives": ask_for_alternatives,
    "count": ask_for_a_count,
    "reason": ask_for_the_reason,
    "prices": ask_for_prices,
    "front": ask_for_the_front,
    "findings": ask_for_findings,
}


def check(seed: int, names: Sequence[str], seconds: float, asked_for: Counter[str]) -> list[str]:
    """One problem through some questions; a line for each false claim."""
    problem, given = fuzz.random_problem(seed)
    asked, lines = Asked(problem, Limits(seconds=seconds, gap=min(given.gap, 1e-9)), seed), []
    for name in names:
        try:
            claims = QUESTIONS[name](asked)
            asked_for[name] += 1
        except (NotSeparable, Undefined):
            continue
        except Exception as error:  # whatever comes out is to be listed beside the others
            claims = [f"{type(error).__name__}: {error}"]
        lines += [f"seed {seed} {name}: {claim}" for claim in claims]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a claim was false or a question failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_questions", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=100, help="how many problems (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first problem; the next has the next number")
    parser.add_argument("--questions", default=",".join(QUESTIONS), help=f"some of {', '.join(QUESTIONS)} (default: all)")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a question may take for a problem (default: 20)")
    options = parser.parse_args(arguments)
    names = options.questions.split(",")
    if unknown := [name for name in names if name not in QUESTIONS]:
        parser.error(f"unknown questions {', '.join(unknown)}; expected some of {', '.join(QUESTIONS)}")
    failures, asked_for, started = 0, Counter[str](), time.monotonic()
    for seed in range(options.seed, options.seed + options.problems):
        for line in check(seed, names, options.limit, asked_for):
            failures += 1
            print(line, flush=True)
    told = ", ".join(f"{name} {asked_for[name]}" for name in names)
    print(f"{options.problems} problems, {failures} failures, {time.monotonic() - started:.0f} s; asked: {told}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
