"""Whether what a design file says is true: every stored design evaluated anew, its claim proved anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from formulation import Agreement, Architecture, Budget, DesignProblem
from solvers import DynamicProgramming, Exhaustive, Limits, Solver, Status, count_near, solve
from solvers.base import relative_gap
from studies.design_file import Stored, read_design
from studies.design_text import decisions_of, proof_text
from studies.problems import brief, budget_text, number_text

_GAP = 1e-6
"""Relative gap up to which a stored design counts as optimal."""
_SAME = 1e-9
"""Relative difference up to which a stored number agrees with the one evaluated anew."""


def gap_of(solver: Solver) -> float:
    """The gap to ask for: 0 where the solver has no tolerances; those of the engines leave about 1e-7."""
    return 0.0 if isinstance(solver, DynamicProgramming | Exhaustive) else _GAP


def verify(path: Path, solver: Solver, seconds: float) -> int:
    """Hold a design file against the definitions and prove its claim anew; prints what agrees and returns the exit code.

    Every stored design is evaluated again: objective, use of the budgets, and that it keeps them. The claim of `solution` is
    proved again, and the count of near designs repeated; prices and alternatives are not proved again, and the text says so.
    """
    stored = read_design(path)
    faults = list(_number_faults(stored))
    designs = sum(1 for _ in _designs(stored.record))
    if not faults:
        print(f"Stored designs held against the definitions: {designs}; every number agrees, and each design keeps its budgets.")
        faults = list(_claim_faults(stored, solver, Limits(seconds=seconds, gap=gap_of(solver), start=stored.architecture)))
    if faults:
        print("".join(f"Does not hold: {fault}.\n" for fault in faults), end="", file=sys.stderr)
        return 1
    further = " Steps of the budgets, alternatives and diagnosis were evaluated, not proved again." if designs > 1 else ""
    print(f"Verified: {path}.{further}")
    return 0


def _designs(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every stored object with an architecture."""
    if record["architecture"] is not None:
        yield record["solution"]
    for price in record["price"]:
        yield from (*price["below"], price["present"], *price["above"])
    yield from record["alternatives"]["designs"]
    if record["diagnosis"] is not None:
        yield from (need for need in record["diagnosis"]["needs"] if need["architecture"] is not None)


def _same(stored: float, true: float) -> bool:
    return abs(stored - true) <= _SAME * max(abs(stored), abs(true))


def _number_faults(stored: Stored) -> Iterator[str]:
    """Sentences on stored numbers that the definitions do not give."""
    record, problem = stored.record, stored.problem
    everything = dict.fromkeys(range(len(problem.subject_to)), True)
    if stored.architecture is not None:
        solution = record["solution"]
        yield from _design_faults("the design", solution, stored.architecture, problem, problem.subject_to)
        yield from _claimed_faults("the design", solution)
        if stored.architecture in problem.space:
            for entry, true in zip(solution["report"], problem.evaluate(stored.architecture).report, strict=True):
                if not _same(entry["value"], true.value):
                    yield f"the design has {true.name} {entry['value']!r}, evaluated {true.value!r} {true.unit}"
    for number, price in enumerate(record["price"]):
        budget = problem.subject_to[number]
        others = [problem.subject_to[i] for i in everything if i != number]
        if not _same(price["upper"], budget.upper):
            yield f"price names a budget of {price['upper']!r} for {budget.quantity.name}, the problem {budget.upper!r}"
        if not abs(price["slack"] - (price["upper"] - price["present"]["upper"])) <= _SAME * abs(price["upper"]):
            yield f"the slack of {budget.quantity.name} is not its budget less what is needed"
        points = [*reversed(price["below"]), price["present"], *price["above"]]
        for point in points:
            design = Architecture.from_dict(point["architecture"])
            what = f"the step of {budget.quantity.name} at {point['upper']!r}"
            yield from _design_faults(what, point, design, problem, others)
            if not _same(point["upper"], max(budget.quantity(design), 0.0)):
                yield f"{what} is not what its design needs, {budget.quantity(design)!r} {budget.quantity.unit}"
        for left, right in pairwise(points):
            if not (left["upper"] < right["upper"] and left["objective"] < right["objective"]):
                yield f"the steps of {budget.quantity.name} do not rise"
    designs = [] if stored.architecture is None else [stored.architecture]
    for number, other in enumerate(record["alternatives"]["designs"], start=1):
        design, what = Architecture.from_dict(other["architecture"]), f"alternative {number}"
        yield from _design_faults(what, other, design, problem, problem.subject_to)
        yield from _claimed_faults(what, other)
        for before in designs:
            if len(design.blocks) == len(before.blocks) == problem.space.blocks:
                apart = decisions_of(problem) - Agreement(before)(design)
                if apart < record["alternatives"]["differing"]:
                    yield f"{what} differs from a design before it in {apart:.0f} decisions only"
        designs.append(design)
    for number, need in enumerate((record["diagnosis"] or {"needs": []})["needs"]):
        budget = problem.subject_to[number]
        if not _same(need["upper"], budget.upper):
            yield f"diagnosis names a budget of {need['upper']!r} for {budget.quantity.name}, the problem {budget.upper!r}"
        if need["architecture"] is not None:
            relaxed = [problem.subject_to[i] for i in everything if i != number]
            relaxed.append(Budget(budget.quantity, max(need["least"], 0.0)))
            design = Architecture.from_dict(need["architecture"])
            yield from _design_faults(f"the design that needs other {budget.quantity.name}", need, design, problem, relaxed)


def _design_faults(
    what: str, entry: dict[str, Any], design: Architecture, problem: DesignProblem, budgets: Sequence[Budget]
) -> Iterator[str]:
    """What is wrong with one stored design: outside the space, over a budget, other objective or usage."""
    try:
        problem.space.encode(design)
    except ValueError as error:
        yield f"{what} is not in the space of the problem: {brief(error)}"
        return
    true = problem.maximize(design)
    if not _same(entry["objective"], true):
        yield f"{what} has {problem.maximize.name} {entry['objective']!r}, evaluated {true!r} {problem.maximize.unit}"
    for budget in budgets:
        if (value := budget.quantity(design)) > budget.limit:
            yield f"{what} breaks {budget_text(budget)}: it uses {number_text(value)}"
    for used, budget in zip(entry.get("usage", ()), problem.subject_to, strict="usage" in entry):
        value = budget.quantity(design)
        if not _same(used["value"], value) or not _same(used["upper"], budget.upper):
            yield (
                f"{what} is said to use {used['value']!r} of {used['upper']!r} {budget.quantity.name}, evaluated {value!r} of "
                f"{budget.upper!r}"
            )


def _claimed_faults(what: str, entry: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a stored status, bound and gap among themselves."""
    if entry["bound"] is None or entry["gap"] is None:
        return
    gap = relative_gap(entry["objective"], entry["bound"])
    if entry["bound"] < entry["objective"] - _SAME * abs(entry["objective"]):
        yield f"{what} has a bound of {entry['bound']!r}, below its own objective"
    if abs(entry["gap"] - gap) > _SAME:
        yield f"{what} has gap {entry['gap']!r}; bound and objective give {gap!r}"
    elif entry["status"] == Status.OPTIMAL.value and gap > _GAP:
        yield f"{what} is called optimal with a gap of {gap:.2g}; optimal means {_GAP:g} at most"


def _claim_faults(stored: Stored, solver: Solver, limits: Limits) -> Iterator[str]:
    """Prove the stored claim anew; a sentence where it is refuted or cannot be proved in time. Prints what was proved."""
    claim, problem = stored.record["solution"], stored.problem
    late = f"could not be proved in {limits.seconds:g} s; give more --seconds"
    solution = solve(problem, solver, limits)
    if claim["status"] == Status.INFEASIBLE.value:
        conflict = (stored.record["diagnosis"] or {"conflict": []})["conflict"]
        if solution.status is Status.INFEASIBLE and conflict:
            alone = replace(problem, subject_to=tuple(problem.subject_to[number] for number in sorted(set(conflict))))
            solution = solve(alone, solver, limits)
        if solution.architecture is not None:
            yield f"no design should keep the budgets that are said to conflict, but {solution.architecture} does"
        elif solution.status is not Status.INFEASIBLE:
            yield f"that no design keeps the budgets {late}"
        else:
            print(proof_text(problem, solution, solver))
    elif claim["bound"] is None:
        print("The file claims no bound, so there is nothing to prove.")
    else:
        bound, room = claim["bound"], abs(claim["bound"])
        if solution.objective is not None and solution.objective > bound + _SAME * room:
            found = f"{solution.architecture} has {solution.objective!r}"
            yield f"no design should exceed {bound!r} {problem.maximize.unit}, but {found}"
        elif solution.status is Status.INFEASIBLE or (solution.bound is not None and solution.bound <= bound + _GAP * room):
            print(f"No design exceeds the stored bound. {proof_text(problem, solution, solver)}")
        else:
            yield f"that no design exceeds {bound!r} {problem.maximize.unit} {late}"
    if stored.record["near"] is not None:
        yield from _near_faults(stored, limits)


def _near_faults(stored: Stored, limits: Limits) -> Iterator[str]:
    near = stored.record["near"]
    again = count_near(stored.problem, stored.record["solution"]["objective"], near["within"], limits)
    if again.number > near["number"] if not again.exact else again.number != near["number"]:
        yield f"{near['number']:,} designs are said to lie within {100 * near['within']:g} % of it, counted again {again.number:,}"
    elif near["exact"] and not again.exact:
        yield f"the count of near designs could not be repeated in {limits.seconds:g} s; give more --seconds"
    else:
        print(f"The count of {near['number']:,} near designs agrees.")
