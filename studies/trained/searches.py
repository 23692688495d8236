"""Searches whose answers a study trains: each is made once, and its row says what it found and what that cost.

Equally good designs are many, and which of them a search returns may depend on the machine. A study that goes on elsewhere goes on
with the designs that it has begun to train.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from formulation import Architecture, DesignProblem, fingerprint
from formulation.records.rows import Resume, Row, RowFile
from hardware_models import BlackBox
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Limits, Solver, Status, solve
from studies.stored import check_stored
from studies.trained.plan import tokens_sha256

_EXACT = Limits(seconds=120)
"""Of dynamic programming, which needs less than one."""
_NETWORKS = 1e-2
"""Relative difference up to which scores of networks agree: they are computed in float32, and machines differ in late digits."""


class Searches:
    """The searches of a study, kept in searches.jsonl in its folder.

    A row holds its `key`, the name of its `budget` and of its `objective`, what the `search` was, the `architecture` found with its
    `status`, its `value` and its `usage` of the budgets, and

    - `seconds`: of the search alone, on the machine that made it, in one process
    - `evaluations`: of the objective, those of a design that was met before included
    - `scored`: how many different designs a black box looked at; None for a separable objective

    The key is a fingerprint of the problem and, for a heuristic, of its options, limits and minibatch; the proven optimum of a
    problem is the same whoever finds it. A row that is used again is evaluated once; ValueError if it no longer holds.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "searches.jsonl"
        self._resume: Resume[str] = Resume(RowFile(self._path), unit="search")

    def optimum(self, problem: DesignProblem, budget: str, name: str) -> Row:
        """The row of the proven optimum of a separable objective; ValueError, and no row, where none is proved in two minutes."""
        return self._row(problem, DynamicProgramming(), _EXACT, budget, name, None)

    def evolved(self, problem: DesignProblem, budget: str, name: str, minibatch: np.ndarray, evaluations: int, seed: int) -> Row:
        """The row of the best design that the paper's evolutionary algorithm finds for a black box.

        Args:
            minibatch: tokens that the black box looks at, (B, T).

        Its population is an eighth of these few evaluations and its parents are an eighth of that.
        """
        population = max(16, evaluations // 8)
        solver = EvolutionaryAlgorithm(population, max(2, population // 8), iterations=100 * evaluations)
        limits = Limits(evaluations=evaluations, seed=seed)
        return self._row(problem, solver, limits, budget, name, tokens_sha256(minibatch))

    def _row(self, problem: DesignProblem, solver: Solver, limits: Limits, budget: str, name: str, minibatch: str | None) -> Row:
        problem = dataclasses.replace(problem, report=())
        key = fingerprint((problem, "optimum") if minibatch is None else (problem, solver, limits, minibatch))
        where = f"the row of {name} for {budget} in {self._path}"
        relative = {"relative": _NETWORKS} if isinstance(problem.goal, BlackBox) else {}

        def check(row: Row) -> None:
            check_stored(where, problem, design_of(row), row["value"], row["usage"], **relative)

        def found() -> Row:
            return {"key": key, "budget": budget, "objective": name, **_found(problem, solver, limits, budget, name, minibatch)}

        return {**self._resume.row(key, found, check), "objective": name}


def _found(problem: DesignProblem, solver: Solver, limits: Limits, budget: str, name: str, minibatch: str | None) -> Row:
    """What a search was, and what it found; ValueError if it found nothing, or did not prove what it has to."""
    solution = solve(problem, solver, limits)
    if isinstance(solver, DynamicProgramming) and solution.status is not Status.OPTIMAL:
        raise ValueError(
            f"{budget}: no optimum of {name} was proved in {solution.seconds:.0f} s ({solution.status.value}); "
            "choose a larger --scale"
        )
    if solution.architecture is None:
        raise ValueError(f"the search for {name} found no design in {solution.evaluations:,} evaluations; allow more")
    print(f"{budget}: {name} searched in {solution.seconds:.2f} s ({solution.status.value})", flush=True)
    return {
        "search": {
            "solver": solver.name,
            "minibatch": minibatch,
            "evaluations": limits.evaluations,
            "seed": None if minibatch is None else limits.seed,
            "space": problem.space.to_dict(),
            "budgets": [[one.quantity.name, one.bound] for one in problem.subject_to],
        },
        "architecture": solution.architecture.to_dict(),
        "status": solution.status.value,
        "value": solution.objective,
        "usage": {used.name: used.value for used in solution.usage},
        "seconds": solution.seconds,
        "evaluations": solution.evaluations,
        "scored": problem.goal.designs if isinstance(problem.goal, BlackBox) else None,
    }


def design_of(row: Row) -> Architecture:
    """The design that a search found."""
    return Architecture.from_dict(row["architecture"])
