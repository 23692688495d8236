"""Searches whose answers a study trains: each is made once, and its row says what it found and what that cost.

Equally good designs are many, and which of them a search returns may depend on the machine. A study that goes on elsewhere goes on
with the designs that it has begun to train.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from formulation import Architecture, DesignProblem
from formulation.rows import Row, RowFile
from hardware_models import BlackBox
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Limits, Solver, Status, solve
from studies.proxies import fingerprint

_EXACT = Limits(seconds=120)
"""Of dynamic programming, which needs less than one."""


class Searches:
    """The searches of a study, kept in searches.jsonl in its folder.

    A row holds the name of its `budget` and of its `objective`, what tells its `search` from others, the `architecture` found with
    its `status` and `value`, and

    seconds      of the search alone, on the machine that made it, in one process
    evaluations  of the objective, those of a design that was met before included
    scored       how many different designs a black box looked at; None for a separable objective
    """

    def __init__(self, folder: Path) -> None:
        self._file = RowFile(folder / "searches.jsonl")
        self._rows = {json.dumps(row["search"], sort_keys=True): row for row in self._file.rows}

    def optimum(self, problem: DesignProblem, budget: str, name: str) -> Row:
        """The row of the proven optimum of a separable objective; ValueError, and no row, where none is proved in two minutes."""
        told: dict[str, object] = {"minibatch": None, "evaluations": None, "seed": None}
        return self._row(problem, DynamicProgramming(), _EXACT, budget, name, told)

    def evolved(self, problem: DesignProblem, budget: str, name: str, minibatch: np.ndarray, evaluations: int, seed: int) -> Row:
        """The row of the best design that the paper's evolutionary algorithm finds for a black box.

        minibatch  tokens that the black box looks at, (B, T)

        Its population is an eighth of these few evaluations and its parents are an eighth of that.
        """
        population = max(16, evaluations // 8)
        solver = EvolutionaryAlgorithm(population, max(2, population // 8), iterations=100 * evaluations)
        told = {"minibatch": fingerprint(minibatch), "evaluations": evaluations, "seed": seed}
        return self._row(problem, solver, Limits(evaluations=evaluations, seed=seed), budget, name, told)

    def _row(self, problem: DesignProblem, solver: Solver, limits: Limits, budget: str, name: str, told: dict[str, object]) -> Row:
        search = {
            **told,
            "objective": repr(problem.maximize),
            "solver": repr(solver),
            "space": json.loads(json.dumps(problem.space.to_dict())),
            "budgets": [[repr(one.quantity), one.upper] for one in problem.subject_to],
        }
        key = json.dumps(search, sort_keys=True)
        if key not in self._rows:
            solution = solve(dataclasses.replace(problem, report=()), solver, limits)
            if isinstance(solver, DynamicProgramming) and solution.status is not Status.OPTIMAL:
                raise ValueError(
                    f"{budget}: no optimum of {name} was proved in {solution.seconds:.0f} s ({solution.status.value}); "
                    "choose a larger --scale"
                )
            if solution.architecture is None:
                raise ValueError(f"the search for {name} found no design in {solution.evaluations:,} evaluations; allow more")
            self._rows[key] = {
                "budget": budget,
                "objective": name,
                "search": search,
                "architecture": solution.architecture.to_dict(),
                "status": solution.status.value,
                "value": solution.objective,
                "seconds": solution.seconds,
                "evaluations": solution.evaluations,
                "scored": problem.maximize.designs if isinstance(problem.maximize, BlackBox) else None,
            }
            self._file.append(self._rows[key])
            print(f"{budget}: {name} searched in {solution.seconds:.2f} s ({solution.status.value})", flush=True)
        return {**self._rows[key], "objective": name}


def design_of(row: Row) -> Architecture:
    """The design that a search found."""
    return Architecture.from_dict(row["architecture"])
