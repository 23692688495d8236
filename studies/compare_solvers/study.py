"""The main job: solve the paper's design problem with every solver, prove which answer is best, and compare.

    python -m studies.compare_solvers
    python -m studies.compare_solvers --space fine --budget flops=60e9 --budget params=60e6 --solvers dp,highs --seconds 30

Writes rows.jsonl (a finished cell is never run twice), summary.json and two figures; draws them with
`studies.compare_solvers.figures`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    Budget,
    Composite,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    Separable,
)
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command
from formulation.command.words import number_text, text_table
from formulation.problem_file import read_space
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import peak_memory_bytes, provenance, restart_peak_memory
from formulation.records.reading import chosen
from formulation.records.rows import Resume, Row, RowFile, cell_key
from solvers import (
    DynamicProgramming,
    EngineMissing,
    Limits,
    Solution,
    Solver,
    solve,
)
from solvers.names import SOLVERS
from solvers.questions.alternatives import NEAR
from studies.problems import add_budget_arguments, read_budgets
from studies.quantities import COSTS, read_quantity
from studies.stored import check_stored, note_unknown, same_number

PUBLISHED_BUDGETS = ("flops=60e9", "flops=110e9", "flops=160e9")
"""The three FLOPs budgets of the paper's search (MeRino, section 5)."""


_QUICK = ("exhaustive", "dp", "highs", "ea", "ga", "random")


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


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--space", default="paper", metavar="NAME|FILE", help="paper, fine, deep, or a JSON file (default paper)")
    add_budget_arguments(
        parser,
        "different names hold together, a name given again makes a further problem (default: the paper's three FLOPs budgets)",
    )
    parser.add_argument(
        "--solvers",
        default=None,
        metavar="NAMES",
        help=f"comma-separated, of {', '.join(SOLVERS)} (default: all but dp-wide, dp-coarse and dp-unmerged)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each heuristic (default 3)")
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="runs of each other solver, whose median time is shown (default 1)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time limit of one run in seconds (default 60)")
    parser.add_argument(
        "--output", default="results/compare_solvers", metavar="DIR", help="folder of the results (default results/compare_solvers)"
    )
    parser.add_argument("--quick", action="store_true", help="the quick solvers, one seed, 2 s a run: under 30 s")
    return parser


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """Every cell that the command line asks for, in the order in which they run."""
    for flag in ("seeds", "repeats"):
        if getattr(arguments, flag) < 1:
            raise ValueError(f"--{flag} is {getattr(arguments, flag)}; expected at least 1")
    if not 0 < arguments.seconds < math.inf:
        raise ValueError(f"--seconds is {arguments.seconds}; expected a positive number")
    space = read_space(arguments.space)
    problems = read_budgets(arguments.budget or PUBLISHED_BUDGETS, arguments.confidence, arguments.extrapolate)
    black_boxes = [b.quantity.name for budgets in problems for b in budgets if not isinstance(b.quantity, Separable | Composite)]
    default: Sequence[str] = _QUICK if arguments.quick else [name for name, entrant in SOLVERS.items() if not entrant.extra]
    names = [name.strip() for name in arguments.solvers.split(",")] if arguments.solvers is not None else list(default)
    if black_boxes and arguments.solvers is None:
        names = [name for name in names if SOLVERS[name].seeded and not isinstance(SOLVERS[name].solver, DynamicProgramming)]
        print(f"{black_boxes[0]} is a black box, so only heuristics take part: {', '.join(names)}", file=sys.stderr)
    entrants = {name: chosen("solver", name, SOLVERS) for name in names}
    seeds, seconds = (1, min(arguments.seconds, 2.0)) if arguments.quick else (arguments.seeds, arguments.seconds)
    label = Path(arguments.space).stem
    cells = []
    for budgets in problems:
        title = f"{label}, " + ", ".join(f"{b.quantity.name} {b.sign} {number_text(b.bound)}" for b in budgets)
        problem = DesignProblem(space, EffectiveEntropy(), budgets)
        for name, entrant in entrants.items():
            # Enumerating more designs than this at some 10 million a second is hopeless within any limit worth waiting for.
            if name == "exhaustive" and arguments.solvers is None and space.size > 2e7 * seconds:
                continue
            for seed in range(seeds if entrant.seeded else arguments.repeats):
                cells.append(Cell(title, problem, name, entrant.solver, seed, seconds))
    return cells


def row_of(cell: Cell, solution: Solution, source: dict[str, Any]) -> Row:
    """What is kept of one run."""
    design = solution.architecture
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
        "widths": None if design is None else list(design.widths),
        "ffn_widths": None if design is None else list(design.ffn_widths),
        "depths": None if design is None else list(design.depths),
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
    """Re-evaluate the design of a stored row; ValueError where the row does not hold (any more)."""
    where = f"the stored row of {cell.solver.name}, seed {cell.seed}, for {cell.title}"
    if (row["widths"] is None) != (row["status"] in ("infeasible", "unknown")) or row["status"] not in _WORDS:
        raise ValueError(f"{where} has status {row['status']!r}, which does not go with its design; remove it and run again")
    if row["widths"] is None:
        return
    space, shapes = cell.problem.space, zip(row["widths"], row["ffn_widths"], row["depths"], strict=True)
    design = Architecture(
        tuple(Block(*shape) for shape in shapes), space.shared, space.embedding_width, space.vocabulary, space.positions
    )
    check_stored(where, cell.problem, design, row["objective"], row["usage"])
    bound = row["bound"]
    if bound is not None and bound < row["objective"] and not same_number(bound, row["objective"]):
        raise ValueError(f"{where} has the bound {bound!r} below its objective {row['objective']!r}; remove it and run again")


def run_cell(cell: Cell, resume: Resume[str]) -> Row:
    """The cell's row, stored or measured now. EngineMissing; KeyboardInterrupt where the user stops it.

    A stored row is re-evaluated first; ValueError where it does not hold.
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
    """Seconds until the run's incumbent was within 0.1 % of `best`; None where it never was."""
    return next((s for s, _, incumbent, _ in row["trace"] if incumbent is not None and incumbent >= best - NEAR * abs(best)), None)


def loss_at(row: Row, seconds: float, best: float) -> float | None:
    """Relative loss of the run's incumbent after so many seconds; None where it had none by then."""
    found = [incumbent for s, _, incumbent, _ in row["trace"] if incumbent is not None and s <= seconds]
    return (best - found[-1]) / abs(best) if found else None


def best_bound(rows: Sequence[Row]) -> float | None:
    """The lowest proven bound among the rows of one problem."""
    return min((row["bound"] for row in rows if row["bound"] is not None), default=None)


def published_rows(cell: Cell, bound: float | None) -> list[Row]:
    """The published designs as rows of a problem: whether they keep its budgets, and their gap to its best proven bound."""
    rows = []
    for name, design in PUBLISHED.items():
        objective = cell.problem.objective(design)
        kept = all(budget.allows(budget.value(design)) for budget in cell.problem.subject_to)
        comparable = bound is not None and kept and design in cell.problem.space
        gap = max(bound - objective, 0) / objective if comparable and bound is not None else None
        rows.append(
            {
                "problem": cell.title,
                "solver": f"published {name}",
                "seed": None,
                "status": "feasible" if kept else "over budget",
                "objective": objective,
                "bound": bound if comparable else None,
                "gap": gap,
                "seconds": None,
                "evaluations": None,
                "widths": list(design.widths),
                "ffn_widths": list(design.ffn_widths),
                "depths": list(design.depths),
                "usage": {budget.quantity.name: budget.value(design) for budget in cell.problem.subject_to},
            }
        )
    return rows


def published_losses(space: SearchSpace, seconds: float) -> list[dict[str, Any]]:
    """Each published design against the optimum of `space` under its own counted FLOPs and parameters, by dynamic programming."""
    losses = []
    for name, design in PUBLISHED.items():
        budgets = tuple(Budget(quantity, quantity(design)) for quantity in map(read_quantity, COSTS))
        objective = EffectiveEntropy()
        solution = solve(DesignProblem(space, objective, budgets), DynamicProgramming(), Limits(seconds=seconds))
        value, best = objective(design), solution.objective
        losses.append(
            {
                "design": name,
                "objective": value,
                **{budget.quantity.name: budget.upper for budget in budgets},
                "optimum_status": solution.status.value,
                "optimum": best,
                "optimum_bound": solution.bound,
                "loss": (best - value) / best if best is not None and design in space else None,
                "optimum_design": None if solution.architecture is None else str(solution.architecture),
                "seconds": solution.seconds,
            }
        )
        if solution.interrupted:
            raise KeyboardInterrupt
    return losses


def _design_text(row: Row) -> str:
    if row["widths"] is None:
        return "none"
    return " ".join(f"{e}/{f}x{d}" for e, f, d in zip(row["widths"], row["ffn_widths"], row["depths"], strict=True))


_WORDS = {"optimal": "proved", "feasible": "found", "infeasible": "proved infeasible", "unknown": "nothing found"}


def typical(rows: Sequence[Row]) -> list[Row]:
    """The rows of one problem, with one row for the repeats of a solver without chance: the one of median time."""
    repeats: dict[str, list[Row]] = {}
    for row in rows:
        repeats.setdefault(f"{row['option']} {row['seed'] if SOLVERS[row['option']].seeded else ''}", []).append(row)
    return [sorted(group, key=lambda row: row["seconds"])[(len(group) - 1) // 2] for group in repeats.values()]


def problem_table(rows: Sequence[Row], published: Sequence[Row], missing: dict[str, str]) -> str:
    """The table of one problem."""
    bound = best_bound(rows)
    best = max((row["objective"] for row in rows if row["objective"] is not None), default=None)
    proved = min((row["seconds"] for row in rows if row["status"] == "optimal"), default=None)
    lines = []
    for row in sorted(typical(rows), key=lambda row: (row["status"] != "optimal", row["seconds"])):
        gap = None if bound is None or row["objective"] is None else max(bound - row["objective"], 0) / abs(row["objective"])
        near = None if best is None else near_seconds(row, best)
        then = None if proved is None or best is None else loss_at(row, proved, best)
        seeded = SOLVERS[row["option"]].seeded
        lines.append(
            [
                row["solver"] + (f" #{row['seed']}" if seeded else ""),
                _WORDS[row["status"]],
                "-" if row["objective"] is None else f"{row['objective']:,.1f}",
                "-" if gap is None else f"{100 * gap:.4f} %",
                "-" if near is None else f"{near:.3f}",
                "-" if then is None else f"{100 * then:.3f} %",
                f"{row['seconds']:.3f}",
                "-" if row.get("peak_memory_bytes") is None else f"{row['peak_memory_bytes'] / 2**20:,.0f}",
                f"{row['evaluations']:,}",
                _design_text(row),
            ]
        )
    for row in published:
        gap_text = "-" if row["gap"] is None else f"{100 * row['gap']:.4f} %"
        lines.append([row["solver"], row["status"], f"{row['objective']:,.1f}", gap_text, *["-"] * 5, _design_text(row)])
    lines += [[SOLVERS[name].solver.name, "not run", *["-"] * 7, reason] for name, reason in missing.items()]
    header = [
        "solver",
        "result",
        "effective entropy",
        "gap to bound",
        "s to 0.1 %",
        "loss at t*",
        "total s",
        "peak MiB",
        "evaluations",
        "design: width/ffn x depth",
    ]
    table = text_table(header, lines, {0, 1, 9})
    return table if proved is None else f"{table}\nt*: the first proof, after {proved:.3g} s"


def losses_table(losses: Sequence[dict[str, Any]]) -> str:
    """The published designs against the optimum under their own counts."""
    lines = [
        [
            loss["design"],
            f"{loss['objective']:,.1f}",
            f"{loss['flops'] / 1e9:.2f} G",
            f"{loss['params'] / 1e6:.2f} M",
            "-" if loss["optimum"] is None else f"{loss['optimum']:,.1f}",
            _WORDS[loss["optimum_status"]],
            "-" if loss["loss"] is None else f"{100 * loss['loss']:.2f} %",
            loss["optimum_design"] or "none",
        ]
        for loss in losses
    ]
    header = [
        "published design",
        "effective entropy",
        "its FLOPs",
        "its params",
        "optimum there",
        "result",
        "loss",
        "optimal design",
    ]
    return text_table(header, lines, {0, 5, 7})


def proofs_agree(rows: Sequence[Row]) -> bool:
    """Whether what the runs on one problem proved can be true together."""
    optima = [row["objective"] for row in rows if row["status"] == "optimal"]
    empty = any(row["status"] == "infeasible" for row in rows)
    return not (optima and (max(optima) - min(optima) > 1e-6 * abs(max(optima)) or empty))


def sentence(rows: Sequence[Row], problems: Sequence[str]) -> str:
    """What the comparison shows, in one sentence."""
    by_problem = {title: typical([row for row in rows if row["problem"] == title]) for title in problems}
    proofs: dict[str, list[float]] = {}
    heuristic: dict[str, list[bool]] = {}
    agreed, proven = True, 0
    for own in by_problem.values():
        optima = [row["objective"] for row in own if row["status"] == "optimal"]
        empty = any(row["status"] == "infeasible" for row in own)
        agreed &= proofs_agree(own)
        proven += bool(optima) or empty
        for row in own:
            if row["status"] in ("optimal", "infeasible"):
                proofs.setdefault(row["solver"], []).append(row["seconds"])
            elif SOLVERS[row["option"]].seeded and optima:
                heuristic.setdefault(row["solver"], []).append(near_seconds(row, max(optima)) is not None)
    if not proofs:
        return f"No solver proved an optimum on any of the {len(problems)} problems within its time limit."
    everywhere = {name: median(times) for name, times in proofs.items() if len(times) >= len(problems)}
    text = f"{proven} of {len(problems)} problems were settled with proof"
    text += " and every proof agrees" if agreed else ", BUT THE PROOFS DISAGREE"
    if everywhere:
        ranked = sorted(everywhere, key=everywhere.__getitem__)
        text += f"; {ranked[0]} proves fastest (median {everywhere[ranked[0]]:.3g} s)"
        text += "".join(f", {everywhere[name] / everywhere[ranked[0]]:.1f} times faster than {name}" for name in ranked[1:2])
        text += (
            f" and {everywhere[ranked[-1]] / everywhere[ranked[0]]:.0f} times faster than {ranked[-1]}" if len(ranked) > 2 else ""
        )
    if heuristic:
        near = ", ".join(f"{name} in {sum(hits)} of {len(hits)}" for name, hits in heuristic.items())
        text += f"; without proof, these runs came within 0.1 % of the optimum: {near}"
    return text + "."


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = command_line().parse_args(arguments)
    cells = cells_of(options)
    folder = output_folder(options.output)
    rows, missing = run_cells(cells, RowFile(folder / "rows.jsonl"))
    losses = published_losses(cells[0].problem.space, min(cells[0].seconds, 20.0))
    titles = list(dict.fromkeys(cell.title for cell in cells))
    summary: list[Row] = []
    for title in titles:
        own = [row for row in rows if row["problem"] == title]
        cell = next(cell for cell in cells if cell.title == title)
        published = published_rows(cell, best_bound(own))
        print(f"\n{title}\n{problem_table(own, published, missing)}")
        summary += [{key: value for key, value in row.items() if key not in ("trace", "key", "option")} for row in own] + published
    print(f"\nPublished designs under their own counted FLOPs and parameters\n{losses_table(losses)}")
    print(f"\n{sentence(rows, titles)}")
    write_json(folder / "summary.json", summary)
    write_json(folder / "published.json", {"losses": losses, "provenance": provenance(0)})
    from studies.compare_solvers.figures import draw_anytime, draw_designs

    save_figure(draw_anytime(rows, titles), folder / "anytime.png")
    save_figure(draw_designs(rows, titles), folder / "designs.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, published.json, anytime.png, designs.png")
    agreed = all(proofs_agree([row for row in rows if row["problem"] == title]) for title in titles)
    return ExitCode.DONE if agreed else ExitCode.BROKEN_PROMISE
