"""`design(problem) -> Findings`: the best design, its proof and the answers to what a designer asks next, as a value.

Nothing prints here. The words are `solvers.questions.text`, the file design.json is read by `solvers.questions.design_file`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from formulation import Architecture, Budget, DesignProblem
from formulation.deployability import Deployability
from formulation.problem_file import WriteQuantity, problem_to_dict
from formulation.records.provenance import provenance
from formulation.records.reading import VERSION
from formulation.unseen import unseen
from solvers.arrangements import can_sort, sorted_design
from solvers.automatic import Automatic
from solvers.base import Limits, Part, Run, Solution, Solver, Status, check_kinds, solve
from solvers.exact.dynamic_programming import Count, DynamicProgramming
from solvers.exact.exhaustive import Exhaustive
from solvers.questions.alternatives import NEAR, count_near
from solvers.questions.alternatives import alternatives as series_of_designs
from solvers.questions.diagnosis import Diagnosis, explain_infeasibility
from solvers.questions.price import Breakpoint, Price, price_of_budgets
from solvers.questions.text import (
    alternatives_text,
    deployment_text,
    diagnosis_text,
    near_text,
    parts_text,
    price_text,
    proof_text,
    solution_text,
)

FORMAT = "merino design"
"""What design.json says it is."""
GAP = 1e-6
"""Relative gap up to which a design counts as optimal for a solver that has tolerances."""
_DIFFERING = 4
"""Decisions in which alternatives differ at least, if a design has so many."""


@dataclass(frozen=True)
class Findings:
    """All that was found out about a problem. `str` says it in words and tables, `to_dict` is what design.json holds.

    Attributes:
        problem: as it was asked.
        solver: that searched for all of it.
        solution: the best design with its proof, or the proof that there is none.
        prices: what each budget is worth, in the order of the problem's budgets; empty without a design.
        others: the best design and its alternatives; the last may hold none and say why.
        differing: decisions in which the alternatives differ at least.
        wanted: alternatives asked for.
        near: how many designs lie within 0.1 % of the optimum; None without a design, and where they were not to be counted.
        diagnosis: why there is no design; None if there is one.
        met: whether a design was first met when looking for the reason that there is none.
        deployability: the rules that the problem's space was kept to, None if there were none.
        without: the best design without these rules, and its proof; None without rules.
        interrupted: the parts that Ctrl-C ended early, in words such as "the prices".
    """

    problem: DesignProblem
    solver: Solver
    solution: Solution
    prices: tuple[Price, ...] = ()
    others: tuple[Solution, ...] = ()
    differing: int = 1
    wanted: int = 0
    near: Count | None = None
    diagnosis: Diagnosis | None = None
    met: bool = False
    deployability: Deployability | None = None
    without: Solution | None = None
    interrupted: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture | None:
        """The best design; None if none was found."""
        return self.solution.architecture

    @property
    def binding(self) -> tuple[Budget, ...]:
        """The budgets without which the optimum would be better (proved)."""
        return tuple(price.budget for price in self.prices if price.binds)

    @property
    def unseen(self) -> tuple[str, ...]:
        """The decisions that the space leaves open and that make no difference to the objective, by name."""
        return unseen(self.problem.goal, self.problem.space)

    @property
    def alternatives(self) -> tuple[Solution, ...]:
        """The further designs in the order found, which is best first where all are proved."""
        return tuple(other for other in self.others[1:] if other.architecture is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """What was found out, part by part, in words and tables."""
        parts = []
        if self.met:
            parts.append("No design was found at first; looking for the reason met one, and the search went on from it.\n")
        if self.diagnosis is not None:
            proof = proof_text(self.problem, self.solution, self.solver)
            proof = "\n\n".join(filter(None, (proof, parts_text(self.problem, self.solution))))
            return (*parts, f"{proof}\n\n{diagnosis_text(self.problem, self.diagnosis)}", *self._deployment)
        if self.solution.architecture is None:
            return tuple(parts)
        parts.append(solution_text(self.problem, self.solution, self.solver))
        parts += self._deployment
        if self.prices:
            parts.append(price_text(self.problem, self.prices))
        if self.others and self.wanted:
            parts.append(alternatives_text(self.problem, self.others, self.differing, self.wanted))
        if self.near is not None:
            parts.append(near_text(self.near, self.solution))
        return tuple(parts)

    @property
    def _deployment(self) -> tuple[str, ...]:
        """What the rules cost, in words; nothing without rules."""
        if self.deployability is None or self.without is None:
            return ()
        return (f"\n{deployment_text(self.problem, self.solution, self.deployability, self.without)}",)

    def __str__(self) -> str:
        return "\n".join(self.parts)

    def to_dict(self, write_quantity: WriteQuantity) -> dict[str, Any]:
        """The object of design.json, which `solvers.questions.design_file.read_design` reads.

        Args:
            write_quantity: how the file names a quantity: `hardware_models.quantity_to_dict`, which raises ValueError for one that
                has no name in a file.
        """
        problem, solution = self.problem, self.solution
        return {
            "format": FORMAT,
            "version": VERSION,
            "architecture": None if solution.architecture is None else solution.architecture.to_dict(),
            "problem": problem_to_dict(problem, write_quantity),
            "solution": _solution_record(problem, solution)
            | {
                "report": [] if solution.architecture is None else _report_record(problem, solution.architecture),
                "seconds": solution.seconds,
                "evaluations": solution.evaluations,
                "message": solution.message,
                "parts": [_part_record(part) for part in solution.parts],
            },
            "unseen": list(self.unseen),
            "deployability": None if self.without is None else _deployability_record(self.deployability, self.without),
            "price": [_price_record(price) for price in self.prices],
            "alternatives": {
                "differing": self.differing,
                "designs": [
                    _solution_record(problem, other) | {"architecture": other.architecture.to_dict()}
                    for other in self.alternatives
                    if other.architecture is not None
                ],
            },
            "near": None if self.near is None else _near_record(self.near),
            "diagnosis": None if self.diagnosis is None else _diagnosis_record(problem, self.diagnosis),
            "provenance": provenance(0, ("numpy", "scipy", *self.solver.distributions))
            | {"solver": solution.provenance.solver, "problem_sha256": solution.provenance.problem_sha256},
        }


def gap_of(solver: Solver) -> float:
    """The gap to ask for: 0 if the solver has no tolerances; those of the engines leave about 1e-7."""
    return 0.0 if isinstance(solver, Automatic | DynamicProgramming | Exhaustive) else GAP


def design(
    problem: DesignProblem,
    solver: Solver | None = None,
    limits: Limits | None = None,
    *,
    steps: int = 3,
    alternatives: int = 3,
    differing: int | None = None,
    deployability: Deployability | None = None,
    count: bool = True,
    progress: Callable[[Findings], object] = lambda findings: None,
) -> Findings:
    """The best design for a problem, and what a designer asks next.

    What binds, what more or less of each budget buys, which other designs are nearly as good, and how many there are. If no design
    meets the budgets: which of them conflict, and what each would have to be. Ctrl-C ends the part that runs, with what it has
    found; the findings say so, and the next part follows.

    Args:
        problem: with a single objective.
        solver: an exact one; Automatic() by default.
        limits: of each part: the design or its diagnosis, the prices, the alternatives, the count. By default there is no limit,
            and the gap is `gap_of(solver)`.
        steps: of each budget to price, up and down.
        alternatives: further designs to find.
        differing: decisions in which they differ at least from all better ones; 4 by default, if a design has so many.
        deployability: rules of a runtime, see `formulation.deployability`, that the space is kept to; what they cost in
            objective is found out as well.
        count: whether to count the designs that are nearly as good.
        progress: called with the findings so far after each part.

    Raises:
        ValueError: for numbers out of range, and for a problem of several objectives.
        NotSeparable: if the solver cannot search a quantity of the problem.
        EngineMissing: if the solver's engine is not installed.
    """
    solver = solver or Automatic()
    limits = limits or Limits(gap=gap_of(solver))
    check_kinds(problem, solver, limits)
    asked = problem
    if deployability is not None:
        problem = deployability.of(problem)
    differing = min(_DIFFERING, problem.space.decisions) if differing is None else differing
    for name, number in (("steps", steps), ("alternatives", alternatives)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"{name} is {number!r}; expected a whole number of at least 0")
    if isinstance(differing, bool) or not isinstance(differing, int) or not 1 <= differing <= problem.space.decisions:
        raise ValueError(f"differing is {differing!r}; expected 1 to {problem.space.decisions}, the decisions of a design")
    run = Run(limits)
    with run.listening():  # what comes between the searches, which listen themselves, belongs to the part it comes in
        return _find_out(problem, solver, run, steps, alternatives, differing, progress, deployability, asked, count)


_LONG = 8
"""Blocks beyond which a design is put in order: it then reads in a few rows."""


def _in_order(problem: DesignProblem, solution: Solution) -> Solution:
    """A solution with the equally wide neighbours of a long design in ascending order, where their order makes no difference."""
    design = solution.architecture
    if design is None or len(design.blocks) <= _LONG or not can_sort(problem):
        return solution
    design = sorted_design(design)
    value = problem.evaluate(design)
    if not value.feasible or solution.bound is None:
        return solution
    # Terms that are added up in another order may exceed the bound by their rounding.
    bound = (min if problem.least else max)(solution.bound, value.objective)
    return replace(solution, architecture=design, objective=value.objective, usage=value.usage, bound=bound)


def _find_out(
    problem: DesignProblem,
    solver: Solver,
    run: Run,
    steps: int,
    alternatives: int,
    differing: int,
    progress: Callable[[Findings], object],
    deployability: Deployability | None,
    asked: DesignProblem,
    count: bool,
) -> Findings:
    """Part by part what `design` returns; `asked` is the problem without rules of deployability."""
    limits = run.limits
    interrupted: list[str] = []

    def note(part: str, ended: bool) -> None:
        if ended or run.interrupted:
            interrupted.append(part)
        run.interrupted = False

    def known(findings: Findings) -> Findings:
        findings = replace(findings, interrupted=tuple(interrupted))
        progress(findings)
        return findings

    solution = _in_order(problem, solve(problem, solver, limits))
    note("the search for a design", solution.interrupted)
    findings = Findings(problem, solver, solution, differing=differing, wanted=alternatives, deployability=deployability)

    def compared(findings: Findings) -> Findings:
        """With the best design without rules, if there are any."""
        if deployability is None:
            return findings
        without = solve(asked, solver, limits)
        note("the search without the rules of deployability", without.interrupted)
        return known(replace(findings, without=without))

    if solution.architecture is None:
        diagnosis = explain_infeasibility(problem, solver, limits, proved=solution.status is Status.INFEASIBLE)
        note("the search for the reason", diagnosis.interrupted)
        if diagnosis.architecture is None:
            # What either search proved is proved.
            return compared(known(replace(findings, solution=replace(solution, status=diagnosis.status), diagnosis=diagnosis)))
        findings = known(replace(findings, met=True))
        solution = _in_order(problem, solve(problem, solver, replace(limits, start=diagnosis.architecture)))
        note("the search for a better design", solution.interrupted)
    findings = compared(known(replace(findings, solution=solution, others=(solution,) if not alternatives else ())))
    prices = price_of_budgets(problem, solver, limits, steps, optimum=solution)
    note("the prices", any(price.interrupted for price in prices))
    findings = known(replace(findings, prices=prices))
    if alternatives:
        others = series_of_designs(problem, alternatives + 1, differing, solver, limits, solution)
        note("the alternatives", any(other.interrupted for other in others[1:]))
        findings = known(replace(findings, others=others))
    if not count:
        return findings
    assert solution.objective is not None
    near = count_near(problem, solution.objective, NEAR, limits)
    note("the count", near.interrupted)
    return known(replace(findings, near=near))


def _solution_record(problem: DesignProblem, solution: Solution) -> dict[str, Any]:
    return {
        "status": solution.status.value,
        "objective": solution.objective,
        "unit": problem.goal.unit,
        "bound": solution.bound,
        "gap": solution.gap,
        "usage": [
            {"name": b.quantity.name, "unit": b.quantity.unit, "value": u.value, b.side: b.bound}
            for u, b in zip(solution.usage, problem.subject_to, strict=bool(solution.usage))
        ],
    }


def _part_record(part: Part) -> dict[str, Any]:
    return {"label": part.label, "objective": part.objective, "bound": part.bound, "infeasible": part.infeasible}


def _deployability_record(rules: Deployability | None, without: Solution) -> dict[str, Any]:
    assert rules is not None
    return {
        "rules": rules.name,
        "without": {
            "status": without.status.value,
            "objective": without.objective,
            "bound": without.bound,
            "architecture": None if without.architecture is None else without.architecture.to_dict(),
        },
    }


def _report_record(problem: DesignProblem, design: Architecture) -> list[dict[str, Any]]:
    return [{"name": u.name, "unit": u.unit, "value": u.value} for u in problem.evaluate(design).report]


def _price_record(price: Price) -> dict[str, Any]:
    return {
        "name": price.budget.quantity.name,
        "unit": price.budget.quantity.unit,
        price.budget.side: price.budget.bound,
        "binds": price.binds,
        "slack": price.slack,
        "unlimited": price.unlimited,
        "floor": price.floor,
        "explored": None if math.isinf(price.explored) else price.explored,
        "below": [_breakpoint_record(price, point) for point in price.below],
        "present": _breakpoint_record(price, price.present),
        "above": [_breakpoint_record(price, point) for point in price.above],
    }


def _breakpoint_record(price: Price, point: Breakpoint) -> dict[str, Any]:
    return {
        price.budget.side: point.bound,
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
                need.budget.side: need.budget.bound,
                "status": need.status.value,
                "bound": need.bound,
                "objective": need.objective,
                "architecture": None if need.architecture is None else need.architecture.to_dict(),
                "alone": need.alone,
            }
            for need in diagnosis.needs
        ],
        "joint": None if diagnosis.joint is None else diagnosis.joint.to_dict(),
    }


def _near_record(near: Count) -> dict[str, Any]:
    return {"within": NEAR, "number": near.number, "exact": near.exact, "distinct": near.distinct}
