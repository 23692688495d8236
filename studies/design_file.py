"""The file design.json: what `python -m studies.design` found out, as JSON, and a strict reader of it.

Top-level keys: format, version, architecture, problem, solution (status, objective, bound, gap, seconds, …), price, alternatives,
near, diagnosis, provenance. Whether what a file says is true is `studies.design_check`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from formulation import Architecture, DesignProblem, Quantity
from formulation.records.provenance import provenance
from formulation.records.reading import VERSION, Within, brief, read_json, read_record, shown, versioned
from solvers import Breakpoint, Count, Diagnosis, Price, Solution, Solver, Status
from studies.compare_solvers.study import NEAR
from studies.problems import ReadQuantity, WriteQuantity, problem_from_dict, problem_to_dict

_FORMAT = "merino design"


@dataclass(frozen=True)
class Findings:
    """All that the command found out about a problem.

    prices        per budget; empty without a design
    others        the best design and its alternatives; the last may hold none and say why
    differing     decisions in which the alternatives differ at least
    near          how many designs lie within 0.1 % of the optimum, None without a design
    diagnosis     why there is no design, None where there is one
    """

    problem: DesignProblem
    solution: Solution
    prices: tuple[Price, ...] = ()
    others: tuple[Solution, ...] = ()
    differing: int = 1
    near: Count | None = None
    diagnosis: Diagnosis | None = None


def record_of(findings: Findings, solver: Solver, write_quantity: WriteQuantity) -> dict[str, Any]:
    """The object of design.json, which `read_design` reads; ValueError for a quantity that has no name in a file."""
    problem, solution = findings.problem, findings.solution
    return {
        "format": _FORMAT,
        "version": VERSION,
        "architecture": None if solution.architecture is None else solution.architecture.to_dict(),
        "problem": problem_to_dict(problem, write_quantity),
        "solution": _solution_record(problem, solution)
        | {
            "report": [] if solution.architecture is None else _report_record(problem, solution.architecture),
            "seconds": solution.seconds,
            "evaluations": solution.evaluations,
            "message": solution.message,
        },
        "price": [_price_record(price) for price in findings.prices],
        "alternatives": {
            "differing": findings.differing,
            "designs": [
                _solution_record(problem, other) | {"architecture": other.architecture.to_dict()}
                for other in findings.others[1:]
                if other.architecture is not None
            ],
        },
        "near": None if findings.near is None else {"within": NEAR, "number": findings.near.number, "exact": findings.near.exact},
        "diagnosis": None if findings.diagnosis is None else _diagnosis_record(problem, findings.diagnosis),
        "provenance": provenance(0, ("numpy", "scipy", *solver.distributions))
        | {"solver": repr(solver), "problem_sha256": solution.provenance.problem_sha256},
    }


def _solution_record(problem: DesignProblem, solution: Solution) -> dict[str, Any]:
    return {
        "status": solution.status.value,
        "objective": solution.objective,
        "unit": problem.maximize.unit,
        "bound": solution.bound,
        "gap": solution.gap,
        "usage": [{"name": u.name, "unit": u.unit, "value": u.value, "upper": u.upper} for u in solution.usage],
    }


def _report_record(problem: DesignProblem, design: Architecture) -> list[dict[str, Any]]:
    return [{"name": u.name, "unit": u.unit, "value": u.value} for u in problem.evaluate(design).report]


def _price_record(price: Price) -> dict[str, Any]:
    return {
        "name": price.budget.quantity.name,
        "unit": price.budget.quantity.unit,
        "upper": price.budget.upper,
        "binds": price.binds,
        "slack": price.slack,
        "unlimited": price.unlimited,
        "floor": price.floor,
        "explored": None if math.isinf(price.explored) else price.explored,
        "below": [_breakpoint_record(point) for point in price.below],
        "present": _breakpoint_record(price.present),
        "above": [_breakpoint_record(point) for point in price.above],
    }


def _breakpoint_record(point: Breakpoint) -> dict[str, Any]:
    return {
        "upper": point.upper,
        "objective": point.objective,
        "proved": point.proved,
        "architecture": point.architecture.to_dict(),
    }


def _diagnosis_record(problem: DesignProblem, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "status": diagnosis.status.value,
        "conflict": [problem.subject_to.index(budget) for budget in diagnosis.conflict],
        "smallest": diagnosis.smallest,
        "needs": [
            {
                "name": need.budget.quantity.name,
                "unit": need.budget.quantity.unit,
                "upper": need.budget.upper,
                "status": need.status.value,
                "least": need.least,
                "objective": need.objective,
                "architecture": None if need.architecture is None else need.architecture.to_dict(),
                "alone": need.alone,
            }
            for need in diagnosis.needs
        ],
        "joint": None if diagnosis.joint is None else diagnosis.joint.to_dict(),
    }


@dataclass(frozen=True)
class Stored:
    """A design file whose form is right: its JSON object with the problem and the designs read. Its numbers may be wrong."""

    record: dict[str, Any]
    problem: DesignProblem
    architecture: Architecture | None


_Natural = Annotated[int, Within(0)]


@dataclass(frozen=True)
class _Reported:
    """A quantity's value."""

    name: str
    unit: str
    value: float


@dataclass(frozen=True)
class _Used:
    """What a design uses of a budget."""

    name: str
    unit: str
    value: float
    upper: float


@dataclass(frozen=True)
class _Solution:
    """What is claimed of the design, or that there is none."""

    status: Status
    objective: float | None
    unit: str
    bound: float | None
    gap: float | None
    usage: tuple[_Used, ...]
    report: tuple[_Reported, ...]
    seconds: float
    evaluations: _Natural
    message: str


@dataclass(frozen=True)
class _Alternative:
    """What is claimed of another design."""

    status: Status
    objective: float | None
    unit: str
    bound: float | None
    gap: float | None
    usage: tuple[_Used, ...]
    architecture: Architecture


@dataclass(frozen=True)
class _Alternatives:
    """Other designs, and in how many decisions they differ at least."""

    differing: _Natural
    designs: tuple[_Alternative, ...]


@dataclass(frozen=True)
class _Step:
    """A value of a budget at which the best design changes."""

    upper: float
    objective: float
    proved: bool
    architecture: Architecture


@dataclass(frozen=True)
class _Price:
    """What more or less of a budget buys."""

    name: str
    unit: str
    upper: float
    binds: bool | None
    slack: float
    unlimited: float | None
    floor: bool
    explored: float | None
    below: tuple[_Step, ...]
    present: _Step
    above: tuple[_Step, ...]


@dataclass(frozen=True)
class _Near:
    """How many designs lie within a fraction of the optimum."""

    within: Annotated[float, Within(0, 1)]
    number: _Natural
    exact: bool


@dataclass(frozen=True)
class _Need:
    """What one budget would have to be."""

    name: str
    unit: str
    upper: float
    status: Status
    least: float | None
    objective: float | None
    architecture: Architecture | None
    alone: float | None


@dataclass(frozen=True)
class _Diagnosis:
    """Why there is no design."""

    status: Status
    conflict: tuple[int, ...]
    smallest: bool
    needs: tuple[_Need, ...]
    joint: Architecture | None


@dataclass(frozen=True)
class _Written:
    """A design file."""

    architecture: Architecture | None
    problem: dict[str, Any]
    solution: _Solution
    price: tuple[_Price, ...]
    alternatives: _Alternatives
    near: _Near | None
    diagnosis: _Diagnosis | None
    provenance: dict[str, Any]


def read_design(path: Path, read_quantity: ReadQuantity) -> Stored:
    """The design file at `path`.

    Args:
        path: where it is.
        read_quantity: how its problem names quantities.

    Raises:
        ValueError: in one sentence if it is not a design file of this version, or damaged, and what `read_quantity` raises.
    """
    record = read_json("design file", path)
    try:
        return _stored(record, read_quantity)
    except ValueError as error:
        raise ValueError(f"the design file {path}: {brief(error)}") from None


def _stored(record: Any, read_quantity: ReadQuantity) -> Stored:
    written = read_record(_Written, versioned(record, _FORMAT, "design"), "design")
    problem = problem_from_dict(written.problem, read_quantity, "design.problem")
    found, solution = written.architecture is not None, written.solution
    _check_claim("design.solution", solution, problem, found)
    _check_named("design.solution.report", solution.report, problem.report if found else ())
    _check_named("design.price", written.price, _quantities(problem) if written.price else ())
    for number, other in enumerate(written.alternatives.designs):
        _check_claim(f"design.alternatives.designs[{number}]", other, problem, True)
    if written.diagnosis is not None:
        _check_diagnosis(written.diagnosis, problem)
    if not found and (written.price or written.alternatives.designs or written.near is not None):
        raise ValueError("design.architecture is null, yet price, alternatives or near speak of one")
    return Stored(record, problem, written.architecture)


def _check_named(where: str, entries: Sequence[_Reported | _Used | _Price | _Need], quantities: Sequence[Quantity]) -> None:
    """ValueError unless there is one entry per quantity, with its name and unit."""
    if len(entries) != len(quantities):
        raise ValueError(f"{where} has {len(entries)} entries; expected {len(quantities)}, one per quantity of the problem")
    for number, (entry, quantity) in enumerate(zip(entries, quantities, strict=True)):
        if (entry.name, entry.unit) != (quantity.name, quantity.unit):
            raise ValueError(
                f"{where}[{number}] is of {shown(entry.name)} in {shown(entry.unit)}; the problem has {quantity.name} in "
                f"{quantity.unit}, and nothing is converted"
            )


def _check_claim(where: str, claim: _Solution | _Alternative, problem: DesignProblem, found: bool) -> None:
    """ValueError unless status, design and numbers belong together."""
    if claim.unit != problem.maximize.unit:
        raise ValueError(f"{where}.unit is {shown(claim.unit)}; expected {problem.maximize.unit!r}, nothing is converted")
    if (claim.status in (Status.OPTIMAL, Status.FEASIBLE)) != found or (claim.objective is not None) != found:
        raise ValueError(f"{where}.status is {claim.status.value}, which does not go with its architecture and objective")
    if claim.status is Status.OPTIMAL and (claim.bound is None or claim.gap is None):
        raise ValueError(f"{where}.status is optimal, which needs a bound and a gap")
    _check_named(f"{where}.usage", claim.usage, _quantities(problem) if found else ())


def _check_diagnosis(diagnosis: _Diagnosis, problem: DesignProblem) -> None:
    if not set(diagnosis.conflict) <= set(range(len(problem.subject_to))):
        raise ValueError(
            f"design.diagnosis.conflict is {shown(list(diagnosis.conflict))}; expected numbers of budgets, counted from 0"
        )
    if (diagnosis.status is Status.INFEASIBLE) != bool(diagnosis.conflict):
        raise ValueError(f"design.diagnosis.status is {diagnosis.status.value}, which does not go with its conflict")
    _check_named("design.diagnosis.needs", diagnosis.needs, _quantities(problem) if diagnosis.needs else ())
    for number, need in enumerate(diagnosis.needs):
        given = [one is not None for one in (need.least, need.objective, need.architecture)]
        if any(given) != all(given):
            raise ValueError(f"design.diagnosis.needs[{number}] has only some of least, objective and architecture")


def _quantities(problem: DesignProblem) -> tuple[Quantity, ...]:
    return tuple(budget.quantity for budget in problem.subject_to)
