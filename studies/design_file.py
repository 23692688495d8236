"""The file design.json: what `python -m studies.design` found out, as JSON, and a strict reader of it.

Top-level keys: format, version, architecture, problem, solution (status, objective, bound, gap, seconds, …), price, alternatives,
near, diagnosis, provenance. Whether what a file says is true is `studies.design_check`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulation import Architecture, DesignProblem, Quantity
from formulation.records.provenance import provenance
from solvers import Breakpoint, Count, Diagnosis, Price, Solution, Solver, Status
from studies.compare_solvers.study import NEAR
from studies.problems import brief, problem_from_dict, problem_to_dict, read_json
from studies.quantities import is_number, shown

_FORMAT, _VERSION = "merino design", 1


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


def record_of(findings: Findings, solver: Solver) -> dict[str, Any]:
    """The object of design.json, which `read_design` reads."""
    problem, solution = findings.problem, findings.solution
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "architecture": None if solution.architecture is None else solution.architecture.to_dict(),
        "problem": problem_to_dict(problem),
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


_KINDS = {
    "text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "true, false or null": lambda value: value is None or isinstance(value, bool),
    "a number": lambda value: is_number(value, sys.float_info.max),
    "a number or null": lambda value: value is None or is_number(value, sys.float_info.max),
    "a whole number of at least 0": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
    "an object or null": lambda value: value is None or isinstance(value, dict),
    "optimal, feasible, infeasible or unknown": lambda value: isinstance(value, str) and value in {s.value for s in Status},
}
_STATUS = "optimal, feasible, infeasible or unknown"
_SOLUTION = {
    "status": _STATUS,
    "objective": "a number or null",
    "unit": "text",
    "bound": "a number or null",
    "gap": "a number or null",
    "usage": "a list",
}
_REPORT = {"name": "text", "unit": "text", "value": "a number"}
_PRICE = {
    "name": "text",
    "unit": "text",
    "upper": "a number",
    "binds": "true, false or null",
    "slack": "a number",
    "unlimited": "a number or null",
    "floor": "true or false",
    "explored": "a number or null",
    "below": "a list",
    "present": "an object",
    "above": "a list",
}
_BREAKPOINT = {"upper": "a number", "objective": "a number", "proved": "true or false", "architecture": "an object"}
_NEED = {
    "name": "text",
    "unit": "text",
    "upper": "a number",
    "status": _STATUS,
    "least": "a number or null",
    "objective": "a number or null",
    "architecture": "an object or null",
    "alone": "a number or null",
}
_DIAGNOSIS = {"status": _STATUS, "conflict": "a list", "smallest": "true or false", "needs": "a list", "joint": "an object or null"}


def read_design(path: Path, trust_code: bool = False) -> Stored:
    """The design file at `path`; ValueError in one sentence where it is none, or not of this version, or damaged.

    trust_code  whether code that its problem names as module:name is imported; ValueError where it names some and is not trusted
    """
    record = read_json("design file", path)
    try:
        return _stored(record, trust_code)
    except ValueError as error:
        raise ValueError(f"the design file {path}: {brief(error)}") from None


def _stored(record: Any, trust_code: bool) -> Stored:
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ValueError(f'this is no design: expected a JSON object with "format": "{_FORMAT}"')
    if record.get("version") != _VERSION or isinstance(record["version"], bool):
        raise ValueError(f"the version is {shown(record.get('version'))}; this release reads version {_VERSION}")
    _check(
        "the file",
        record,
        {
            "format": "text",
            "version": "a number",
            "architecture": "an object or null",
            "problem": "an object",
            "solution": "an object",
            "price": "a list",
            "alternatives": "an object",
            "near": "an object or null",
            "diagnosis": "an object or null",
            "provenance": "an object",
        },
    )
    problem = problem_from_dict(record["problem"], trust_code)
    architecture = None if record["architecture"] is None else Architecture.from_dict(record["architecture"])
    solution = record["solution"]
    further = {"report": "a list", "seconds": "a number", "evaluations": "a whole number of at least 0", "message": "text"}
    _check("solution", solution, _SOLUTION | further)
    _check_solution("solution", solution, problem, architecture is not None)
    _check_named("solution's report", solution["report"], _REPORT, problem.report if architecture is not None else ())

    _check_named("price", record["price"], _PRICE, _quantities(problem) if record["price"] else ())
    for price in record["price"]:
        for point in (*price["below"], price["present"], *price["above"]):
            _check("a step of price", point, _BREAKPOINT)
            Architecture.from_dict(point["architecture"])
    _check("alternatives", record["alternatives"], {"differing": "a whole number of at least 0", "designs": "a list"})
    for other in record["alternatives"]["designs"]:
        _check("an alternative", other, _SOLUTION | {"architecture": "an object"})
        Architecture.from_dict(other["architecture"])
        _check_solution("an alternative", other, problem, True)
    if record["near"] is not None:
        _check("near", record["near"], {"within": "a number", "number": "a whole number of at least 0", "exact": "true or false"})
        if not 0 <= record["near"]["within"] <= 1:
            raise ValueError(f"near has within {shown(record['near']['within'])}; expected a fraction from 0 to 1")
    if record["diagnosis"] is not None:
        _check_diagnosis(record["diagnosis"], problem)
    if architecture is None and (record["price"] or record["alternatives"]["designs"] or record["near"] is not None):
        raise ValueError("there is no architecture, yet price, alternatives or near speak of one")
    return Stored(record, problem, architecture)


def _check(what: str, record: Any, kinds: dict[str, str]) -> None:
    """ValueError where `record` is no object with exactly these keys, each of its kind."""
    if not isinstance(record, dict):
        raise ValueError(f"{what} is {shown(record)}; expected an object")
    if unknown := sorted(set(record) - set(kinds)):
        raise ValueError(f"{what} has unknown keys {shown(unknown)}; expected {', '.join(kinds)}")
    for key, kind in kinds.items():
        if key not in record:
            raise ValueError(f"{what} lacks {key}")
        if not _KINDS[kind](record[key]):
            raise ValueError(f"{what} has {key} {shown(record[key])}; expected {kind}")


def _check_named(what: str, records: list[Any], kinds: dict[str, str], quantities: Sequence[Quantity]) -> None:
    """ValueError where `records` does not hold one object of these kinds per quantity, with its name and unit."""
    if len(records) != len(quantities):
        raise ValueError(f"{what} has {len(records)} entries; expected {len(quantities)}, one per quantity of the problem")
    for record, quantity in zip(records, quantities, strict=True):
        _check(f"an entry of {what}", record, kinds)
        if (record["name"], record["unit"]) != (quantity.name, quantity.unit):
            raise ValueError(
                f"{what} speaks of {shown(record['name'])} in {shown(record['unit'])}; the problem has {quantity.name} in "
                f"{quantity.unit}, and nothing is converted"
            )


def _check_solution(what: str, record: dict[str, Any], problem: DesignProblem, found: bool) -> None:
    """ValueError where status, design and numbers do not belong together."""
    if record["unit"] != problem.maximize.unit:
        raise ValueError(f"{what} has unit {shown(record['unit'])}; expected {problem.maximize.unit!r}, nothing is converted")
    claims = record["status"] in (Status.OPTIMAL.value, Status.FEASIBLE.value)
    if claims != found or (record["objective"] is not None) != found:
        raise ValueError(f"{what} has status {record['status']}, which does not go with its architecture and objective")
    if record["status"] == Status.OPTIMAL.value and (record["bound"] is None or record["gap"] is None):
        raise ValueError(f"{what} has status optimal, which needs a bound and a gap")
    _check_named(f"{what}'s usage", record["usage"], _REPORT | {"upper": "a number"}, _quantities(problem) if found else ())


def _check_diagnosis(record: dict[str, Any], problem: DesignProblem) -> None:
    _check("diagnosis", record, _DIAGNOSIS)
    numbers = range(len(problem.subject_to))
    for number in record["conflict"]:
        if isinstance(number, bool) or not isinstance(number, int) or number not in numbers:
            raise ValueError(f"diagnosis has conflict {shown(record['conflict'])}; expected numbers of budgets, counted from 0")
    if (record["status"] == Status.INFEASIBLE.value) != bool(record["conflict"]):
        raise ValueError(f"diagnosis has status {record['status']}, which does not go with its conflict")
    _check_named("diagnosis's needs", record["needs"], _NEED, _quantities(problem) if record["needs"] else ())
    if record["joint"] is not None:
        Architecture.from_dict(record["joint"])
    for need in record["needs"]:
        given = [need[key] is not None for key in ("least", "objective", "architecture")]
        if any(given) != all(given):
            raise ValueError("diagnosis has a need with only some of least, objective and architecture")
        if need["architecture"] is not None:
            Architecture.from_dict(need["architecture"])


def _quantities(problem: DesignProblem) -> tuple[Quantity, ...]:
    return tuple(budget.quantity for budget in problem.subject_to)
