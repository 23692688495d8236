"""Whether what a design file says is true: every stored design evaluated anew, its claim proved anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from formulation import Agreement, Architecture, Budget, DesignProblem, NoIdentity, fingerprint
from formulation.command.exit_code import ExitCode
from formulation.command.words import counted
from formulation.records.reading import brief
from solvers import DynamicProgramming, Exhaustive, Limits, Need, Solver, Status, count_near, explain_infeasibility, solve
from solvers.base import relative_gap
from studies.design_file import Stored, read_design
from studies.design_text import proof_text
from studies.problems import ReadQuantity, budget_text, number_text
from studies.ship import check_network, design_in

_GAP = 1e-6
"""Relative gap up to which a stored design counts as optimal."""
_SAME = 1e-9
"""Relative difference up to which a stored number agrees with the one evaluated anew."""


class Undecided(str):
    """A fault that is only that the time did not suffice to prove a claim again."""


def gap_of(solver: Solver) -> float:
    """The gap to ask for: 0 where the solver has no tolerances; those of the engines leave about 1e-7."""
    return 0.0 if isinstance(solver, DynamicProgramming | Exhaustive) else _GAP


def verify(path: Path, solver: Solver, seconds: float, read_quantity: ReadQuantity) -> int:
    """Hold a design file against the definitions and prove its claim anew; prints what agrees and returns the exit code.

    Every stored design is evaluated again: objective, use of the budgets, and that it keeps them. The claim of `solution` and the
    diagnosis are proved again, and the count of near designs repeated; prices and alternatives are not, and the text says so.
    Of a folder, the design.json in it is verified. A network beside the file is compared with the design and its budgets.

    read_quantity  how the file names quantities; ValueError if it names code and that is not trusted
    """
    path = design_in(path)
    stored = read_design(path, read_quantity)
    record = stored.record
    _note_identity(stored)
    faults = list(_number_faults(stored))
    if not faults:
        print(_numbers_text(record))
        limits = Limits(seconds=seconds, gap=gap_of(solver), start=stored.architecture)
        faults = [*_claim_faults(stored, solver, limits), *_diagnosis_faults(stored, solver, limits)]
        if record["near"] is not None:
            faults += _near_faults(stored, limits)
    if faults:
        for fault in faults:
            print(f"{'Not decided' if isinstance(fault, Undecided) else 'Does not hold'}: {fault}.", file=sys.stderr)
        return ExitCode.NO_ANSWER if all(isinstance(fault, Undecided) for fault in faults) else ExitCode.BROKEN_PROMISE
    if record["solution"]["status"] == Status.UNKNOWN.value:
        print(f"Nothing to verify: {path} claims neither a design nor that there is none; design again with more --seconds.")
        return ExitCode.NO_ANSWER
    further = [
        ("the steps of the budgets", record["price"]),
        ("the alternatives", record["alternatives"]["designs"]),
        ("the diagnosis", record["diagnosis"] is not None and not _explained(record["diagnosis"])),
    ]
    evaluated = " and ".join(name for name, held in further if held)
    if code := check_network(stored, path.parent):
        return code
    print(f"Verified: {path}." + (f" Evaluated, but not proved again: {evaluated}." if evaluated else ""))
    return ExitCode.DONE


def _note_identity(stored: Stored) -> None:
    """Say on stderr where the problem is not known to be the one that was solved: what is verified then is the problem of today."""
    solved = stored.record["provenance"].get("problem_sha256")
    try:
        same = fingerprint(stored.problem) == solved
    except NoIdentity as error:
        print(
            f"Verified is what the problem says now; whether it said so when it was solved is not known: {error}.", file=sys.stderr
        )
        return
    if not same:
        known = (
            "has changed since it was solved: a device file or code that it names" if solved else "has no fingerprint in the file"
        )
        print(f"Verified is what the problem says now; it {known}.", file=sys.stderr)


def _numbers_text(record: dict[str, Any]) -> str:
    """What has been held against the definitions, once every stored number agrees with them."""
    changed = [("step", record["price"]), ("way out of the conflict", (record["diagnosis"] or {"needs": []})["needs"])]
    names = " or ".join(name for name, designs in changed if designs)
    kept = "each design keeps the budgets" + (f", for a {names} with its own value of the one that changes" if names else "")
    designs = sum(1 for _ in _designs(record))
    return f"Stored designs held against the definitions: {designs}" + (f"; every number agrees, and {kept}." if designs else ".")


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
            if not _same(point["upper"], max(budget.value(design), 0.0)):
                yield f"{what} is not what its design needs, {budget.value(design)!r} {budget.quantity.unit}"
        yield from _binding_faults(price, budget)
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
                apart = Agreement(before).most - Agreement(before)(design)
                if apart < record["alternatives"]["differing"]:
                    yield f"{what} differs from a design before it in {counted(round(apart), 'decision')} only"
        designs.append(design)
    joint = (record["diagnosis"] or {"joint": None})["joint"]
    if joint is not None and Architecture.from_dict(joint) not in problem.space:
        yield "the design that shows what is enough together is not in the space of the problem"
    for number, need in enumerate((record["diagnosis"] or {"needs": []})["needs"]):
        budget = problem.subject_to[number]
        if not _same(need["upper"], budget.upper):
            yield f"diagnosis names a budget of {need['upper']!r} for {budget.quantity.name}, the problem {budget.upper!r}"
        if need["architecture"] is not None:
            relaxed = [problem.subject_to[i] for i in everything if i != number]
            relaxed.append(Budget(budget.quantity, max(need["least"], 0.0)))
            design = Architecture.from_dict(need["architecture"])
            yield from _design_faults(f"the design that needs other {budget.quantity.name}", need, design, problem, relaxed)


def _binding_faults(price: dict[str, Any], budget: Budget) -> Iterator[str]:
    """Whether `binds` goes with the optimum without the budget and with the steps above the present one."""
    present, unlimited = price["present"]["objective"], price["unlimited"]
    room = _GAP * abs(present)
    known = [point["objective"] for point in price["above"]] + ([] if unlimited is None else [unlimited])
    if price["binds"] is False and max(known, default=present) > present + room:
        yield f"{budget_text(budget)} is said not to bind, yet {max(known)!r} is stored for more of it, above {present!r}"
    if price["binds"] is True and (unlimited is None or unlimited <= present):
        yield f"{budget_text(budget)} is said to bind, yet nothing above {present!r} is stored for the problem without it"


def _design_faults(
    what: str, entry: dict[str, Any], design: Architecture, problem: DesignProblem, budgets: Sequence[Budget]
) -> Iterator[str]:
    """What is wrong with one stored design: outside the space, over a budget, other objective or usage."""
    try:
        problem.space.encode(design)
    except ValueError as error:
        yield f"{what} is not in the space of the problem: {brief(error)}"
        return
    true = problem.objective(design)
    if not _same(entry["objective"], true):
        yield f"{what} has {problem.maximize.name} {entry['objective']!r}, evaluated {true!r} {problem.maximize.unit}"
    for budget in budgets:
        if (value := budget.value(design)) > budget.limit:
            yield f"{what} breaks {budget_text(budget)}: it uses {number_text(value)}"
    for used, budget in zip(entry.get("usage", ()), problem.subject_to, strict="usage" in entry):
        value = budget.value(design)
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
    if claim["status"] == Status.UNKNOWN.value:
        return
    solution = solve(problem, solver, limits)
    if claim["status"] == Status.INFEASIBLE.value:
        if solution.architecture is not None:
            yield f"no design should keep the budgets, but {solution.architecture} does"
        elif solution.status is not Status.INFEASIBLE:
            yield Undecided(f"that no design keeps the budgets {late}")
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
            yield Undecided(f"that no design exceeds {bound!r} {problem.maximize.unit} {late}")


def _diagnosis_faults(stored: Stored, solver: Solver, limits: Limits) -> Iterator[str]:
    """Prove anew that the stored conflict is one and none is smaller, and the least values of the budgets."""
    diagnosis, problem = stored.record["diagnosis"], stored.problem
    if not _explained(diagnosis):
        return
    late = f"could not be proved in {limits.seconds:g} s; give more --seconds"
    conflict = sorted(set(diagnosis["conflict"]))
    solution = solve(replace(problem, subject_to=tuple(problem.subject_to[i] for i in conflict)), solver, limits)
    if solution.architecture is not None:
        yield f"no design should keep the budgets that are said to conflict, but {solution.architecture} does"
        return
    if solution.status is not Status.INFEASIBLE:
        yield Undecided(f"the conflict of budgets {late}")
        return
    again = explain_infeasibility(problem, solver, limits, proved=True)
    if diagnosis["smallest"]:
        if len(again.conflict) < len(diagnosis["conflict"]):
            yield f"no fewer budgets should conflict, but no design keeps {' and '.join(map(budget_text, again.conflict))}"
        elif not again.smallest:
            yield Undecided(f"that no fewer budgets conflict {late}")
    faults = [fault for old, new in zip(diagnosis["needs"], again.needs, strict=True) for fault in _need_faults(old, new, late)]
    yield from faults
    if not faults:
        print("The conflict of the budgets and what each would have to be agree.")


def _explained(diagnosis: dict[str, Any] | None) -> bool:
    """Whether a stored diagnosis says why there is no design, which can be proved again."""
    return diagnosis is not None and diagnosis["status"] == Status.INFEASIBLE.value


def _need_faults(stored: dict[str, Any], need: Need, late: str) -> Iterator[str]:
    """What a stored need claims as proved and a fresh diagnosis refutes or leaves open."""
    name = budget_text(need.budget)
    if stored["status"] == Status.INFEASIBLE.value and need.status is not Status.INFEASIBLE:
        if need.least is None:
            yield Undecided(f"that to change {name} alone is not enough {late}")
        else:
            yield f"to change {name} alone is said not to be enough, but {number_text(need.least)} is"
    claims = [("with the other budgets kept", stored["least"] if stored["status"] == Status.OPTIMAL.value else None, need.least)]
    claims += [("by itself", stored["alone"], need.alone)]
    for which, claimed, found in claims:
        if claimed is None:
            continue
        proved = need.status is Status.OPTIMAL or which == "by itself"
        if found is not None and not abs(found - claimed) <= _GAP * abs(claimed) and (proved or found < claimed):
            yield f"the least value of {name} {which} is said to be {claimed!r}, proved again {found!r}"
        elif found is None or not proved:
            yield Undecided(f"the least value of {name} {which} {late}")


def _near_faults(stored: Stored, limits: Limits) -> Iterator[str]:
    near = stored.record["near"]
    again = count_near(stored.problem, stored.record["solution"]["objective"], near["within"], limits)
    # A count that is not exact is one of at least so many designs.
    if (near["exact"] and again.number > near["number"]) or (again.exact and again.number < near["number"]):
        yield f"{near['number']:,} designs are said to lie within {100 * near['within']:g} % of it, counted again {again.number:,}"
    elif near["exact"] and not again.exact:
        yield Undecided(f"the count of near designs could not be repeated in {limits.seconds:g} s; give more --seconds")
    else:
        print(f"The count of {'' if near['exact'] else 'at least '}{counted(near['number'], 'near design')} agrees.")
