"""A strict reader of the file design.json, which `Findings.to_dict` fills.

Top-level keys: format, version, architecture, problem, solution (status, objective, bound, gap, seconds, …), price, alternatives,
near, diagnosis, provenance; unseen and deployability may be missing. Whether what a file says is true is
`solvers.questions.design_check`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from formulation import Architecture, Budget, DesignProblem, Quantity
from formulation.problem_file import ReadQuantity, problem_from_dict
from formulation.records.reading import Within, brief, read_json, read_record, shown, versioned
from formulation.score_table import Selection
from solvers.base import Status
from solvers.questions.findings import FORMAT


class StoredDesign:
    """How a design is read: a selection of options by its key, else an architecture."""

    @staticmethod
    def from_dict(record: Any, where: str = "design") -> Architecture:
        """The design of a JSON object; ValueError naming the key that is missing, unknown or wrong."""
        if isinstance(record, dict) and "options" in record:
            return Selection.from_dict(record, where)  # type: ignore[return-value]  # stands in for an architecture
        return Architecture.from_dict(record, where)


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
    upper: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class _Part:
    """What is claimed of one space of a union."""

    label: str
    objective: float | None
    bound: float | None
    infeasible: bool


@dataclass(frozen=True)
class _Without:
    """What is claimed of the problem without rules of deployability."""

    status: Status
    objective: float | None
    bound: float | None
    architecture: StoredDesign | None


@dataclass(frozen=True)
class _Deployability:
    """The rules of deployability, by name, and the best design without them."""

    rules: str
    without: _Without


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
    parts: tuple[_Part, ...] = ()


@dataclass(frozen=True)
class _Alternative:
    """What is claimed of another design."""

    status: Status
    objective: float | None
    unit: str
    bound: float | None
    gap: float | None
    usage: tuple[_Used, ...]
    architecture: StoredDesign


@dataclass(frozen=True)
class _Alternatives:
    """Other designs, and in how many decisions they differ at least."""

    differing: _Natural
    designs: tuple[_Alternative, ...]


@dataclass(frozen=True)
class _Step:
    """A value of a budget at which the best design changes."""

    objective: float
    proved: bool
    architecture: StoredDesign
    upper: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class _Price:
    """What more or less of a budget buys."""

    name: str
    unit: str
    binds: bool | None
    slack: float
    unlimited: float | None
    floor: bool
    explored: float | None
    below: tuple[_Step, ...]
    present: _Step
    above: tuple[_Step, ...]
    upper: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class _Near:
    """How many designs lie within a fraction of the optimum."""

    within: Annotated[float, Within(0, 1)]
    number: _Natural
    exact: bool
    distinct: _Natural | None = None


@dataclass(frozen=True)
class _Need:
    """What one budget would have to be."""

    name: str
    unit: str
    status: Status
    bound: float | None
    objective: float | None
    architecture: StoredDesign | None
    alone: float | None
    upper: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class _Diagnosis:
    """Why there is no design."""

    status: Status
    conflict: tuple[int, ...]
    smallest: bool
    needs: tuple[_Need, ...]
    joint: StoredDesign | None


@dataclass(frozen=True)
class _Written:
    """A design file."""

    architecture: StoredDesign | None
    problem: dict[str, Any]
    solution: _Solution
    price: tuple[_Price, ...]
    alternatives: _Alternatives
    near: _Near | None
    diagnosis: _Diagnosis | None
    provenance: dict[str, Any]
    unseen: tuple[str, ...] = ()
    deployability: _Deployability | None = None


def design_in(path: Path) -> Path:
    """The design file that a path names: itself, or design.json in a folder."""
    return path / "design.json" if path.is_dir() else path


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
    written = read_record(_Written, versioned(record, FORMAT, "design"), "design")
    problem = problem_from_dict(written.problem, read_quantity, "design.problem")
    found, solution = written.architecture is not None, written.solution
    _check_claim("design.solution", solution, problem, found)
    _check_named("design.solution.report", solution.report, problem.report if found else ())
    _check_budgets("design.price", written.price, problem.subject_to if written.price else ())
    for number, (price, budget) in enumerate(zip(written.price, problem.subject_to, strict=bool(written.price))):
        for step in (*price.below, price.present, *price.above):
            _check_side(f"a step of design.price[{number}]", step, budget)
    for number, other in enumerate(written.alternatives.designs):
        _check_claim(f"design.alternatives.designs[{number}]", other, problem, True)
    if written.diagnosis is not None:
        _check_diagnosis(written.diagnosis, problem)
    if not found and (written.price or written.alternatives.designs or written.near is not None):
        raise ValueError("design.architecture is null, yet price, alternatives or near speak of one")
    return Stored(record, problem, written.architecture)  # type: ignore[arg-type]  # what `StoredDesign` reads is one


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


def _check_budgets(where: str, entries: Sequence[_Used | _Price | _Need], budgets: Sequence[Budget]) -> None:
    """ValueError unless there is one entry per budget, with the name and unit of its quantity and a bound on the same side."""
    _check_named(where, entries, [budget.quantity for budget in budgets])
    for number, (entry, budget) in enumerate(zip(entries, budgets, strict=True)):
        _check_side(f"{where}[{number}]", entry, budget)


def _check_side(where: str, entry: _Used | _Price | _Need | _Step, budget: Budget) -> None:
    """ValueError unless the bound of an entry is on the side of the budget."""
    given = [side for side in ("upper", "at_least") if getattr(entry, side) is not None]
    if given != [budget.side]:
        raise ValueError(f"{where} has {' and '.join(given) or 'no bound'}; expected {budget.side}, as the budget has")


def _check_claim(where: str, claim: _Solution | _Alternative, problem: DesignProblem, found: bool) -> None:
    """ValueError unless status, design and numbers belong together."""
    if claim.unit != problem.goal.unit:
        raise ValueError(f"{where}.unit is {shown(claim.unit)}; expected {problem.goal.unit!r}, nothing is converted")
    if (claim.status in (Status.OPTIMAL, Status.FEASIBLE)) != found or (claim.objective is not None) != found:
        raise ValueError(f"{where}.status is {claim.status.value}, which does not go with its architecture and objective")
    if claim.status is Status.OPTIMAL and (claim.bound is None or claim.gap is None):
        raise ValueError(f"{where}.status is optimal, which needs a bound and a gap")
    _check_budgets(f"{where}.usage", claim.usage, problem.subject_to if found else ())


def _check_diagnosis(diagnosis: _Diagnosis, problem: DesignProblem) -> None:
    if not set(diagnosis.conflict) <= set(range(len(problem.subject_to))):
        raise ValueError(
            f"design.diagnosis.conflict is {shown(list(diagnosis.conflict))}; expected numbers of budgets, counted from 0"
        )
    if (diagnosis.status is Status.INFEASIBLE) != bool(diagnosis.conflict):
        raise ValueError(f"design.diagnosis.status is {diagnosis.status.value}, which does not go with its conflict")
    _check_budgets("design.diagnosis.needs", diagnosis.needs, problem.subject_to if diagnosis.needs else ())
    for number, need in enumerate(diagnosis.needs):
        given = [one is not None for one in (need.bound, need.objective, need.architecture)]
        if any(given) != all(given):
            raise ValueError(f"design.diagnosis.needs[{number}] has only some of bound, objective and architecture")
