"""One solver on one instance: what is measured, kept, and checked again before it is shown."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from formulation import Budget, DesignProblem, EffectiveEntropy, NotSeparable, SearchSpace
from formulation.command.processes import temporary_folder
from formulation.fingerprint import cell_key
from formulation.records.files import write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Row
from formulation.score_table import OptionSpace
from hardware_models import Flops
from solvers import Limits, Solution, Solver, Status, solve
from solvers.names import SOLVERS
from studies.exact_methods.apart import FAILED, REFUSED, Meter, check, run_apart
from studies.exact_methods.bare_highspy import BareHighspy, arrays_of
from studies.exact_methods.instances import INSTANCES, additive_problem
from studies.stored import check_stored, same_number

BARE = "bare-highspy"
"""The name of `BareHighspy` on the command line of this study."""

ENTRANTS: dict[str, Solver] = {name: entrant.solver for name, entrant in SOLVERS.items() if not entrant.seeded} | {
    BARE: BareHighspy()
}
"""Every solver that proves, by its name on the command line: those of the toolkit, and the reference beside them."""

_STATUSES = {status.value for status in Status} | {REFUSED, FAILED}
TRIAL_COLUMNS = {"instance", "seed", "option", "status", "message", "seconds_limit"}
"""What a row read from disk must have to stand for a finished run."""


@dataclass(frozen=True)
class Trial:
    """A run in names, which two processes read alike.

    Attributes:
        instance: one of `INSTANCES`.
        seed: of a random instance; else the number of the repeat.
        option: one of `ENTRANTS`.
        seconds: its time limit.
    """

    instance: str
    seed: int
    option: str
    seconds: float

    @cached_property
    def problem(self) -> DesignProblem:
        """What is solved."""
        return INSTANCES[self.instance].build(self.seed)

    @property
    def solver(self) -> Solver:
        """What solves it."""
        return ENTRANTS[self.option]

    @cached_property
    def key(self) -> str | None:
        """What identifies its row on disk."""
        return cell_key("exact methods", self.problem, self.solver, self.seed, self.seconds)


def solve_and_measure(trial: Trial, certificate: Path) -> Row:
    """What a process keeps of its run; the certificate of a proof goes to a file where it can be checked."""
    problem, solver = trial.problem, trial.solver
    try:
        _warm_up(problem, solver)
        if isinstance(solver, BareHighspy):
            arrays_of(problem)
        with Meter() as meter:
            solution = solve(problem, solver, Limits(seconds=trial.seconds, seed=trial.seed))
    except NotSeparable as error:
        return {"status": REFUSED, "message": str(error)}
    row = _row_of(problem, solution) | {"cpu_seconds": meter.cpu_seconds, "memory_bytes": meter.memory_bytes}
    if solution.certificate is None:
        return row | {"certificate": None}
    record = solution.certificate.to_dict()
    if record["kind"] == "not checkable":
        return row | {"certificate": {"kind": record["kind"], "verdict": record["kind"], "message": record["why"]}}
    write_json(certificate, record)
    return row | {"certificate": {"kind": record["kind"]}}


def _warm_up(problem: DesignProblem, solver: Solver) -> None:
    """Solve a tiny problem of the same kind, which imports whatever the solver imports."""
    if isinstance(problem.space, OptionSpace):
        tiny = additive_problem(np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([[[2.0, 1.0], [2.0, 1.0]]]), [3.0])
    else:
        space = SearchSpace.uniform(2, (256, 512), (1,), (1, 2))
        tiny = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 1e10),))
    with suppress(NotSeparable):  # said again of the problem itself
        solve(tiny, solver, Limits(seconds=10))


def _row_of(problem: DesignProblem, solution: Solution) -> Row:
    design = solution.architecture
    incumbents = (point.seconds for point in solution.trace if point.incumbent is not None)
    bounds = (point.seconds for point in solution.trace if point.bound is not None)
    return {
        "status": solution.status.value,
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "seconds": solution.seconds,
        "first_design_seconds": next(incumbents, None if design is None else solution.seconds),
        "first_bound_seconds": next(bounds, None if solution.bound is None else solution.seconds),
        "evaluations": solution.evaluations,
        "items": None if design is None else [int(item) for item in problem.space.encode(design)],
        "usage": {usage.name: usage.value for usage in solution.usage},
        "message": solution.message,
        "solver_record": solution.provenance.solver,
        "problem_sha256": solution.provenance.problem_sha256,
        "versions": solution.provenance.versions,
    }


def measure(trial: Trial) -> Row:
    """The row of a run in its own process, with what the checker says of its certificate. EngineMissing; KeyboardInterrupt."""
    with temporary_folder() as folder:
        certificate = folder / "certificate.json"
        row = run_apart("solve", asdict(trial), certificate, trial.seconds)
        if certificate.exists():
            row["certificate"] |= check(certificate)
    source = provenance(trial.seed)
    return {
        "key": trial.key,
        "instance": trial.instance,
        "seed": trial.seed,
        "option": trial.option,
        "solver": trial.solver.name,
        "seconds_limit": trial.seconds,
        **row,
        "command": source["command"],
        "machine": source["machine"],
    }


def check_trial_row(trial: Trial, row: Row) -> None:
    """Re-evaluate the design of a stored row; ValueError if the row does not hold (any more)."""
    where = f"the stored row of {trial.solver.name}, seed {trial.seed}, for {trial.instance}"
    if row["status"] not in _STATUSES:
        raise ValueError(f"{where} has the status {row['status']!r}; remove it and run again")
    if (items := row.get("items")) is None:
        return
    check_stored(where, trial.problem, trial.problem.space.decode(items), row["objective"], row["usage"])
    bound = row["bound"]
    if bound is not None and bound < row["objective"] and not same_number(bound, row["objective"]):
        raise ValueError(f"{where} has the bound {bound!r} below its objective {row['objective']!r}; remove it and run again")
