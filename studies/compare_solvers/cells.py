"""One cell of the comparison: a problem, a solver and a seed, how it is run, stored and read."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from formulation import Architecture, Block, Composite, DesignProblem, EffectiveEntropy, Separable
from formulation.command.words import number_text
from formulation.fingerprint import cell_key
from formulation.problem_file import read_one_space
from formulation.records.provenance import peak_memory_bytes, provenance, restart_peak_memory
from formulation.records.reading import chosen
from formulation.records.rows import Resume, Row, RowFile
from formulation.score_table import Option, Selection
from solvers import DynamicProgramming, EngineMissing, Limits, Solution, Solver, solve
from solvers.names import SOLVERS
from solvers.questions.alternatives import NEAR
from studies.budget_flags import BudgetOptions, read_budgets
from studies.stored import check_stored, note_unknown, same_number

PUBLISHED_BUDGETS = ("flops=60e9", "flops=110e9", "flops=160e9")
"""The three FLOPs budgets of the paper's search (MeRino, section 5)."""


STATUS_WORDS = {"optimal": "proved", "feasible": "found", "infeasible": "proved infeasible", "unknown": "nothing found"}
"""A status, as tables show it."""
PROVED = ("optimal", "infeasible")
"""The statuses that a proof ends with."""

_QUICK = ("exhaustive", "dp", "highs", "ea", "ga", "random")


@dataclass(frozen=True)
class CompareOptions:
    """What the comparison was asked for, see --help; ValueError for a number out of range."""

    space: str
    budgets: BudgetOptions
    solvers: str | None
    seeds: int
    repeats: int
    seconds: float
    output: str
    quick: bool

    def __post_init__(self) -> None:
        for flag, number in (("seeds", self.seeds), ("repeats", self.repeats)):
            if number < 1:
                raise ValueError(f"--{flag} is {number}; expected at least 1")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")


@dataclass(frozen=True)
class Cell:
    """One run of the comparison: a problem, an entrant, a seed (without chance: which repeat) and a time limit."""

    title: str
    problem: DesignProblem
    name: str
    solver: Solver
    seed: int
    seconds: float

    @cached_property
    def key(self) -> str | None:
        """What identifies the cell on disk: a `cell_key` of problem, solver options, seed and limit."""
        return cell_key(self.problem, self.solver, self.seed, self.seconds)


def cells_of(options: CompareOptions) -> list[Cell]:
    """Every cell that the command line asks for, in the order in which they run."""
    given = options.budgets
    space = read_one_space(options.space)
    problems = read_budgets(given.budget or PUBLISHED_BUDGETS, given.confidence, given.extrapolate)
    black_boxes = [b.quantity.name for budgets in problems for b in budgets if not isinstance(b.quantity, Separable | Composite)]
    default: Sequence[str] = _QUICK if options.quick else [name for name, entrant in SOLVERS.items() if not entrant.extra]
    names = [name.strip() for name in options.solvers.split(",")] if options.solvers is not None else list(default)
    if black_boxes and options.solvers is None:
        names = [name for name in names if SOLVERS[name].seeded and not isinstance(SOLVERS[name].solver, DynamicProgramming)]
        print(f"{black_boxes[0]} is a black box, so only heuristics take part: {', '.join(names)}", file=sys.stderr)
    entrants = {name: chosen("solver", name, SOLVERS) for name in names}
    seeds, seconds = (1, min(options.seconds, 2.0)) if options.quick else (options.seeds, options.seconds)
    label = Path(options.space).stem
    cells = []
    for budgets in problems:
        title = f"{label}, " + ", ".join(f"{b.quantity.name} {b.sign} {number_text(b.bound)}" for b in budgets)
        problem = DesignProblem(space, EffectiveEntropy(), budgets)
        for name, entrant in entrants.items():
            # Enumerating more designs than this at some 10 million a second is hopeless within any limit worth waiting for.
            if name == "exhaustive" and options.solvers is None and space.size > 2e7 * seconds:
                continue
            for seed in range(seeds if entrant.seeded else options.repeats):
                cells.append(Cell(title, problem, name, entrant.solver, seed, seconds))
    return cells


def row_of(cell: Cell, solution: Solution, source: dict[str, Any]) -> Row:
    """What is kept of one run."""
    design = solution.architecture
    shaped = design if isinstance(design, Architecture) else None
    return {
        "key": cell.key,
        "problem": cell.title,
        "solver": cell.solver.name,
        "option": cell.name,
        "seed": cell.seed,
        "status": solution.status.value,
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "seconds": solution.seconds,
        "evaluations": solution.evaluations,
        "widths": None if shaped is None else list(shaped.widths),
        "ffn_widths": None if shaped is None else list(shaped.ffn_widths),
        "depths": None if shaped is None else list(shaped.depths),
        "options": list(design.names) if isinstance(design, Selection) else None,
        "usage": {usage.name: usage.value for usage in solution.usage},
        "seconds_limit": cell.seconds,
        "message": solution.message,
        "trace": [[point.seconds, point.evaluations, point.incumbent, point.bound] for point in solution.trace],
        "solver_record": solution.provenance.solver,
        "problem_sha256": solution.provenance.problem_sha256,
        "versions": solution.provenance.versions,
        "command": source["command"],
        "machine": source["machine"],
    }


_COLUMNS = {
    *("problem", "solver", "option", "seed", "status", "objective", "bound", "seconds", "evaluations"),
    *("widths", "ffn_widths", "depths", "usage", "trace"),
}
"""What a row read from disk must have to stand for a finished run."""


def resumed(cells: Sequence[Cell], file: RowFile) -> Resume[str]:
    """The cells with the rows that the file holds of them."""
    return Resume(file, [cell.key for cell in cells], columns=_COLUMNS)


def check_row(cell: Cell, row: Row) -> None:
    """Re-evaluate the design of a stored row; ValueError if the row does not hold (any more)."""
    where = f"the stored row of {cell.solver.name}, seed {cell.seed}, for {cell.title}"
    design = _design_of(row, cell.problem.space)
    if (design is None) != (row["status"] in ("infeasible", "unknown")) or row["status"] not in STATUS_WORDS:
        raise ValueError(f"{where} has status {row['status']!r}, which does not go with its design; remove it and run again")
    if design is None:
        return
    check_stored(where, cell.problem, design, row["objective"], row["usage"])  # type: ignore[arg-type]  # or a selection
    bound = row["bound"]
    if bound is not None and bound < row["objective"] and not same_number(bound, row["objective"]):
        raise ValueError(f"{where} has the bound {bound!r} below its objective {row['objective']!r}; remove it and run again")


def _design_of(row: Row, space: Any) -> Architecture | Selection | None:
    """The design of a row; None if it has none."""
    if row.get("options") is not None:
        return Selection(tuple(map(Option, row["options"])))
    if row["widths"] is None:
        return None
    blocks = tuple(Block(*shape) for shape in zip(row["widths"], row["ffn_widths"], row["depths"], strict=True))
    return Architecture(blocks, space.shared, space.embedding_width, space.vocabulary, space.positions)


def run_cell(cell: Cell, resume: Resume[str]) -> Row:
    """The cell's row, stored or measured now. EngineMissing; KeyboardInterrupt where the user stops it.

    A stored row is re-evaluated first; ValueError if it does not hold.
    """

    def measured() -> Row:
        resume.note(f"{cell.title}: {cell.name}")
        restart_peak_memory()
        solution = solve(cell.problem, cell.solver, Limits(seconds=cell.seconds, seed=cell.seed))
        if solution.interrupted:
            raise KeyboardInterrupt
        return {**row_of(cell, solution, provenance(cell.seed)), "peak_memory_bytes": peak_memory_bytes()}

    return resume.row(cell.key, measured, lambda row: check_row(cell, row))


def run_cells(cells: Sequence[Cell], file: RowFile) -> tuple[list[Row], dict[str, str]]:
    """Run the cells that the file does not hold yet; all their rows, and the reason for each solver that is not installed.

    Raises KeyboardInterrupt when the user stops a run: that cell is not kept, the ones before are.
    """
    note_unknown({id(cell.problem): cell.problem for cell in cells}.values())
    missing: dict[str, str] = {}
    rows = []
    with resumed(cells, file) as resume:
        for cell in cells:
            if cell.name in missing:
                resume.skip([cell.key])
                continue
            try:
                rows.append(run_cell(cell, resume))
            except EngineMissing as error:
                missing[cell.name] = str(error)
                resume.skip([cell.key])
    return rows, missing


def near_seconds(row: Row, best: float) -> float | None:
    """Seconds until the run's incumbent was within 0.1 % of `best`; None if it never was."""
    return next((s for s, _, incumbent, _ in row["trace"] if incumbent is not None and incumbent >= best - NEAR * abs(best)), None)


def loss_at(row: Row, seconds: float, best: float) -> float | None:
    """Relative loss of the run's incumbent after so many seconds; None if it had none by then."""
    found = [incumbent for s, _, incumbent, _ in row["trace"] if incumbent is not None and s <= seconds]
    return (best - found[-1]) / abs(best) if found else None


def best_bound(rows: Sequence[Row]) -> float | None:
    """The lowest proven bound among the rows of one problem."""
    return min((row["bound"] for row in rows if row["bound"] is not None), default=None)
