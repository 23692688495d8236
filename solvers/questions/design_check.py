"""Whether what a design file says is true: every stored design re-evaluated, its claim proved again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from formulation import Architecture, Budget, DesignProblem, NoIdentity, fingerprint
from formulation.command.words import counted, number_text
from formulation.problem import budget_text
from formulation.records.reading import brief
from solvers.base import Limits, Solver, Status, relative_gap, solve
from solvers.questions.alternatives import apart, count_near
from solvers.questions.design_file import Stored, StoredDesign
from solvers.questions.diagnosis import Need, explain_infeasibility
from solvers.questions.findings import GAP, gap_of
from solvers.questions.text import proof_text

_SAME = 1e-9
"""Relative difference up to which a stored number agrees with the one re-evaluated."""


class Agreed(str):
    """What a check found to hold."""


class Undecided(str):
    """A fault that is only that the time did not suffice to prove a claim again."""


@dataclass(frozen=True)
class Verification:
    """What became of the claims of a design file.

    Attributes:
        agreed: sentences on what holds.
        faults: what does not, or could not be decided (`Undecided`): sentences without their full stop.
        unproved: what was re-evaluated but not proved again, such as "the alternatives".
    """

    agreed: tuple[str, ...]
    faults: tuple[str, ...]
    unproved: tuple[str, ...]

    @property
    def undecided(self) -> bool:
        """Whether all that is wrong is that the time did not suffice."""
        return bool(self.faults) and all(isinstance(fault, Undecided) for fault in self.faults)


def check_design(
    stored: Stored, solver: Solver, seconds: float, progress: Callable[[str], object] = lambda sentence: None
) -> Verification:
    """Compare a design file with the definitions, and prove its claim again.

    Every stored design is evaluated again: objective, use of the budgets, and that it meets them. The claim of `solution` and the
    diagnosis are proved again, and the count of near designs repeated; prices and alternatives are not.

    Args:
        stored: the file, as `read_design` gives it.
        solver: for the proofs.
        seconds: of each of them.
        progress: called with each sentence on what holds as it is known.
    """
    record, agreed, faults = stored.record, list[str](), list[str]()

    def take(found: Iterator[str]) -> None:
        for each in found:
            if isinstance(each, Agreed):
                agreed.append(each)
                progress(each)
            else:
                faults.append(each)

    take(_number_faults(stored))
    if not faults:
        take(iter([Agreed(_numbers_text(record))]))
        limits = Limits(seconds=seconds, gap=gap_of(solver), start=stored.architecture)
        take(_claim_faults(stored, solver, limits))
        take(_diagnosis_faults(stored, solver, limits))
        if record["near"] is not None:
            take(_near_faults(stored, limits))
    further = [
        ("the steps of the budgets", record["price"]),
        ("the alternatives", record["alternatives"]["designs"]),
        ("the design without rules of deployability", record.get("deployability") is not None),
        ("the diagnosis", record["diagnosis"] is not None and not _explained(record["diagnosis"])),
    ]
    return Verification(tuple(agreed), tuple(faults), tuple(name for name, held in further if held))


def identity_note(stored: Stored) -> str:
    """A sentence if the problem is not known to be the one that was solved, else empty: what is verified is today's problem."""
    solved = stored.record["provenance"].get("problem_sha256")
    try:
        same = fingerprint(stored.problem) == solved
    except NoIdentity as error:
        return f"Verified is what the problem says now; whether it said so when it was solved is not known: {error}."
    if same:
        return ""
    known = "has changed since it was solved: a device file or code that it names" if solved else "has no fingerprint in the file"
    return f"Verified is what the problem says now; it {known}."


def _numbers_text(record: dict[str, Any]) -> str:
    """What has been compared with the definitions, once every stored number agrees with them."""
    changed = [("step", record["price"]), ("way out of the conflict", (record["diagnosis"] or {"needs": []})["needs"])]
    names = " or ".join(name for name, designs in changed if designs)
    kept = "each design meets the budgets" + (f", for a {names} with its own value of the one that changes" if names else "")
    designs = sum(1 for _ in _designs(record))
    return f"Stored designs compared with the definitions: {designs}" + (f"; every number agrees, and {kept}." if designs else ".")


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
        yield from _claimed_faults("the design", solution, problem.least)
        if stored.architecture in problem.space:
            for entry, true in zip(solution["report"], problem.evaluate(stored.architecture).report, strict=True):
                if not _same(entry["value"], true.value):
                    yield f"the design has {true.name} {entry['value']!r}, evaluated {true.value!r} {true.unit}"
    for number, price in enumerate(record["price"]):
        budget = problem.subject_to[number]
        others = [problem.subject_to[i] for i in everything if i != number]
        side = budget.side
        if not _same(price[side], budget.bound):
            yield f"price names a budget of {price[side]!r} for {budget.quantity.name}, the problem {budget.bound!r}"
        if not abs(price["slack"] - abs(price[side] - price["present"][side])) <= _SAME * abs(price[side]):
            yield f"the slack of {budget.quantity.name} is not the difference of its budget from what is needed"
        points = [*reversed(price["below"]), price["present"], *price["above"]]
        for point in points:
            design = StoredDesign.from_dict(point["architecture"])
            what = f"the step of {budget.quantity.name} at {point[side]!r}"
            yield from _design_faults(what, point, design, problem, others)
            if not _same(point[side], budget.value(design)):
                yield f"{what} is not what its design needs, {budget.value(design)!r} {budget.quantity.unit}"
        yield from _binding_faults(price, budget, problem.least)
        for left, right in pairwise(points):
            looser = left[side] < right[side] if budget.upper is not None else left[side] > right[side]
            better = left["objective"] > right["objective"] if problem.least else left["objective"] < right["objective"]
            if not (looser and better):
                yield f"the steps of {budget.quantity.name} do not {'fall' if problem.least else 'rise'}"
    designs = [] if stored.architecture is None else [stored.architecture]
    for number, other in enumerate(record["alternatives"]["designs"], start=1):
        design, what = StoredDesign.from_dict(other["architecture"]), f"alternative {number}"
        yield from _design_faults(what, other, design, problem, problem.subject_to)
        yield from _claimed_faults(what, other, problem.least)
        for earlier, before in enumerate(designs):
            if design in problem.space and before in problem.space:
                differing = apart(problem, before, design)
                if differing < record["alternatives"]["differing"]:
                    named = f"alternative {earlier}" if earlier else "the best design"
                    yield f"{what} differs from {named} in {counted(differing, 'decision')} only"
        designs.append(design)
    joint = (record["diagnosis"] or {"joint": None})["joint"]
    if joint is not None and StoredDesign.from_dict(joint) not in problem.space:
        yield "the design that shows what is enough together is not in the space of the problem"
    for number, need in enumerate((record["diagnosis"] or {"needs": []})["needs"]):
        budget = problem.subject_to[number]
        if not _same(need[budget.side], budget.bound):
            yield f"diagnosis names a budget of {need[budget.side]!r} for {budget.quantity.name}, the problem {budget.bound!r}"
        if need["architecture"] is not None:
            relaxed = [problem.subject_to[i] for i in everything if i != number]
            relaxed.append(budget.at(need["bound"]))
            design = StoredDesign.from_dict(need["architecture"])
            yield from _design_faults(f"the design that needs other {budget.quantity.name}", need, design, problem, relaxed)


def _binding_faults(price: dict[str, Any], budget: Budget, least: bool) -> Iterator[str]:
    """Whether `binds` goes with the optimum without the budget and with the steps above the present one."""
    present, unlimited = price["present"]["objective"], price["unlimited"]
    room, sign = GAP * abs(present), -1 if least else 1
    known = [point["objective"] for point in price["above"]] + ([] if unlimited is None else [unlimited])
    best = max(known, key=lambda value: sign * value, default=present)
    if price["binds"] is False and sign * (best - present) > room:
        yield f"{budget_text(budget)} is said not to bind, yet {best!r} is stored for a looser one, better than {present!r}"
    if price["binds"] is True and (unlimited is None or sign * (unlimited - present) <= 0):
        yield f"{budget_text(budget)} is said to bind, yet nothing better than {present!r} is stored for the problem without it"


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
        yield f"{what} has {problem.goal.name} {entry['objective']!r}, evaluated {true!r} {problem.goal.unit}"
    for budget in budgets:
        if not budget.allows(value := budget.value(design)):
            yield f"{what} exceeds {budget_text(budget)}: it has {number_text(value)}"
    for used, budget in zip(entry.get("usage", ()), problem.subject_to, strict="usage" in entry):
        value = budget.value(design)
        if not _same(used["value"], value) or not _same(used[budget.side], budget.bound):
            yield (
                f"{what} is said to use {used['value']!r} of {used[budget.side]!r} {budget.quantity.name}, evaluated {value!r} of "
                f"{budget.bound!r}"
            )


def _claimed_faults(what: str, entry: dict[str, Any], least: bool) -> Iterator[str]:
    """What is wrong with a stored status, bound and gap among themselves."""
    if entry["bound"] is None or entry["gap"] is None:
        return
    sign = -1 if least else 1
    gap = relative_gap(sign * entry["objective"], sign * entry["bound"])
    if sign * (entry["objective"] - entry["bound"]) > _SAME * abs(entry["objective"]):
        yield f"{what} has a bound of {entry['bound']!r}, {'above' if least else 'below'} its own objective"
    if abs(entry["gap"] - gap) > _SAME:
        yield f"{what} has gap {entry['gap']!r}; bound and objective give {gap!r}"
    elif entry["status"] == Status.OPTIMAL.value and gap > GAP:
        yield f"{what} is called optimal with a gap of {gap:.2g}; optimal means {GAP:g} at most"


def _claim_faults(stored: Stored, solver: Solver, limits: Limits) -> Iterator[str]:
    """Prove the stored claim again; a sentence where it is refuted or cannot be proved in time, and what was proved."""
    claim, problem = stored.record["solution"], stored.problem
    late = f"could not be proved in {limits.seconds:g} s; give more --seconds"
    if claim["status"] == Status.UNKNOWN.value:
        return
    solution = solve(problem, solver, limits)
    if claim["status"] == Status.INFEASIBLE.value:
        if solution.architecture is not None:
            yield f"no design should meet the budgets, but {solution.architecture} does"
        elif solution.status is not Status.INFEASIBLE:
            yield Undecided(f"that no design meets the budgets {late}")
        else:
            yield Agreed(proof_text(problem, solution, solver))
    elif claim["bound"] is None:
        yield Agreed("The file claims no bound, so there is nothing to prove.")
    else:
        bound, room, sign = claim["bound"], abs(claim["bound"]), -1 if problem.least else 1
        exceed, exceeds = ("have less than", "has less than") if problem.least else ("exceed", "exceeds")
        if solution.objective is not None and sign * (solution.objective - bound) > _SAME * room:
            found = f"{solution.architecture} has {solution.objective!r}"
            yield f"no design should {exceed} {bound!r} {problem.goal.unit}, but {found}"
        elif solution.status is Status.INFEASIBLE or (solution.bound is not None and sign * (solution.bound - bound) <= GAP * room):
            yield Agreed(f"No design {exceeds} the stored bound. {proof_text(problem, solution, solver)}")
        else:
            yield Undecided(f"that no design can {exceed} {bound!r} {problem.goal.unit} {late}")


def _diagnosis_faults(stored: Stored, solver: Solver, limits: Limits) -> Iterator[str]:
    """Prove again that the stored conflict is one and none is smaller, and the least values of the budgets."""
    diagnosis, problem = stored.record["diagnosis"], stored.problem
    if not _explained(diagnosis):
        return
    late = f"could not be proved in {limits.seconds:g} s; give more --seconds"
    conflict = sorted(set(diagnosis["conflict"]))
    solution = solve(replace(problem, subject_to=tuple(problem.subject_to[i] for i in conflict)), solver, limits)
    if solution.architecture is not None:
        yield f"no design should meet the budgets that are said to conflict, but {solution.architecture} does"
        return
    if solution.status is not Status.INFEASIBLE:
        yield Undecided(f"the conflict of budgets {late}")
        return
    again = explain_infeasibility(problem, solver, limits, proved=True)
    if diagnosis["smallest"]:
        if len(again.conflict) < len(diagnosis["conflict"]):
            yield f"no fewer budgets should conflict, but no design meets {' and '.join(map(budget_text, again.conflict))}"
        elif not again.smallest:
            yield Undecided(f"that no fewer budgets conflict {late}")
    faults = [fault for old, new in zip(diagnosis["needs"], again.needs, strict=True) for fault in _need_faults(old, new, late)]
    yield from faults
    if not faults:
        yield Agreed("The conflict of the budgets and what each would have to be agree.")


def _explained(diagnosis: dict[str, Any] | None) -> bool:
    """Whether a stored diagnosis says why there is no design, which can be proved again."""
    return diagnosis is not None and diagnosis["status"] == Status.INFEASIBLE.value


def _need_faults(stored: dict[str, Any], need: Need, late: str) -> Iterator[str]:
    """What a stored need claims as proved and a fresh diagnosis refutes or leaves open."""
    name = budget_text(need.budget)
    if stored["status"] == Status.INFEASIBLE.value and need.status is not Status.INFEASIBLE:
        if need.bound is None:
            yield Undecided(f"that to change {name} alone is not enough {late}")
        else:
            yield f"to change {name} alone is said not to be enough, but {number_text(need.bound)} is"
    claims = [("with the other budgets met", stored["bound"] if stored["status"] == Status.OPTIMAL.value else None, need.bound)]
    claims += [("by itself", stored["alone"], need.alone)]
    for which, claimed, found in claims:
        if claimed is None:
            continue
        proved = need.status is Status.OPTIMAL or which == "by itself"
        nearer = found is not None and (found < claimed if need.budget.upper is not None else found > claimed)
        extreme = "least" if need.budget.upper is not None else "greatest"
        if found is not None and not abs(found - claimed) <= GAP * abs(claimed) and (proved or nearer):
            yield f"the {extreme} value of {name} {which} is said to be {claimed!r}, proved again {found!r}"
        elif found is None or not proved:
            yield Undecided(f"the {extreme} value of {name} {which} {late}")


def _near_faults(stored: Stored, limits: Limits) -> Iterator[str]:
    near = stored.record["near"]
    again = count_near(stored.problem, stored.record["solution"]["objective"], near["within"], limits)
    # A count that is not exact is one of at least so many designs.
    distinct = near.get("distinct")
    if distinct is not None and again.distinct is not None and distinct != again.distinct:
        yield f"{distinct:,} near designs are said to differ in more than the order of blocks, counted again {again.distinct:,}"
    if (near["exact"] and again.number > near["number"]) or (again.exact and again.number < near["number"]):
        yield f"{near['number']:,} designs are said to lie within {100 * near['within']:g} % of it, counted again {again.number:,}"
    elif near["exact"] and not again.exact:
        yield Undecided(f"the count of near designs could not be repeated in {limits.seconds:g} s; give more --seconds")
    else:
        yield Agreed(f"The count of {'' if near['exact'] else 'at least '}{counted(near['number'], 'near design')} agrees.")
