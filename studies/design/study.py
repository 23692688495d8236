"""The everyday command: the best design for your budgets, its proof, and what a designer asks next.

    python -m studies.design --space fine --budget flops=60e9 --budget params=60e6
    python -m studies.design problem.json --seconds 30
    python -m studies.design --verify results/design/design.json

Prints the design, what binds, what more or less of each budget buys, alternatives and the number of near-optimal designs; where
no design exists, which budgets conflict and what each would have to be. Writes design.json, which --verify holds against the
definitions and a fresh proof, and design.png. A file that names code of a module is refused unless --trust-code lets it run.

Exit code: 0 a design was found (whether it is proved is printed and written) or, with --verify, verified; 1 proved that no design
meets the budgets; 2 a mistake in the command or a file that cannot be read; 3 with --verify, something stored does not hold;
4 neither a design nor a proof within the time limit. Ctrl-C ends the part that runs and keeps what it has found.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from formulation import DesignProblem, EffectiveEntropy, Quantity
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.reading import chosen
from solvers import Limits, Solution, Solver, Status, alternatives, count_near, explain_infeasibility, price_of_budgets, solve
from solvers.names import SOLVERS
from studies.compare_solvers.study import NEAR
from studies.design.figures import draw_design
from studies.design.tabulator import Tabulator
from studies.design_check import gap_of, verify
from studies.design_file import Findings, record_of
from studies.design_text import (
    alternatives_text,
    counted,
    design_text,
    diagnosis_text,
    near_text,
    price_text,
    proof_text,
)
from studies.problems import (
    add_budget_arguments,
    add_trust_argument,
    budget_text,
    problem_to_dict,
    read_budgets,
    read_problem,
    read_space,
)
from studies.quantities import quantity_from_dict, quantity_to_dict

EXACT: dict[str, Solver] = {name: entrant.solver for name, entrant in SOLVERS.items() if not entrant.seeded}
"""Solvers that prove and leave nothing to chance."""


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("problem", nargs="?", metavar="FILE", help="a problem file (JSON); studies/problems.py says what it holds")
    parser.add_argument("--space", default=None, metavar="NAME|FILE", help="paper, fine, deep, or a JSON file (default paper)")
    add_budget_arguments(parser, "all hold together")
    parser.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="N",
        help="designs of the space to measure a black-box budget on, at least 20; a table fitted to them is what is searched",
    )
    parser.add_argument("--solver", default="dp", metavar="NAME", help=f"of {', '.join(EXACT)} (default dp)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds for each part at most: the design or its diagnosis, the prices, the alternatives, the count (default 60)",
    )
    parser.add_argument("--alternatives", type=int, default=3, metavar="K", help="further designs to show (default 3)")
    parser.add_argument("--differ", type=int, metavar="D", help="decisions in which they differ at least (default 4)")
    parser.add_argument("--steps", type=int, default=3, metavar="K", help="steps of each budget to price, up and down (default 3)")
    parser.add_argument("--output", default="results/design", metavar="DIR", help="folder of the results (default results/design)")
    parser.add_argument(
        "--verify",
        default=None,
        metavar="FILE|FOLDER",
        help="check a design.json instead: its numbers and its proof, and the network that training left beside it",
    )
    add_trust_argument(parser)
    return parser


def problem_of(options: argparse.Namespace, tabulated: Callable[[Quantity], Quantity]) -> tuple[str, DesignProblem]:
    """The one problem that the command line names, with a title; `tabulated` stands in for a black box."""
    if options.problem is not None:
        flags = ("space", "budget", "confidence", "extrapolate", "measure")
        if given := [f"--{flag}" for flag in flags if getattr(options, flag)]:
            raise ValueError(f"{options.problem} names the whole problem; leave out {' and '.join(given)}, or the file")
        if "=" in options.problem and not Path(options.problem).exists():
            raise ValueError(f"there is no problem file {options.problem}; a budget is written --budget {options.problem}")
        problem = read_problem(Path(options.problem), partial(quantity_from_dict, trust_code=options.trust_code))
        if problem.minimize:
            names = [quantity.name for quantity in problem.minimize]
            raise ValueError(
                f"{options.problem} also minimizes {' and '.join(names)}, which has no single best design; give a budget in its "
                f"place, or run python -m studies.pareto {' '.join(f'--minimize {name}' for name in names)}"
            )
        return Path(options.problem).stem, problem
    if not options.budget:
        raise ValueError("there is no budget to design for; name a problem file or give --budget flops=60e9")
    problems = read_budgets(options.budget, options.confidence, options.extrapolate, tabulated)
    if len(problems) > 1:
        raise ValueError("a budget is named twice with different values; this command solves one problem, so give each name once")
    space = options.space or "paper"
    return Path(space).stem, DesignProblem(read_space(space), EffectiveEntropy(), problems[0])


def investigate(title: str, problem: DesignProblem, options: argparse.Namespace) -> Findings:
    """Solve the problem and answer what a designer asks next; prints each part as soon as it is known."""
    solver = chosen("solver", options.solver, EXACT)
    limits = Limits(seconds=options.seconds, gap=gap_of(solver))
    size = counted(problem.space.size, "design")
    print(f"{title}: {', '.join(map(budget_text, problem.subject_to)) or 'no budgets'}; {size}\n", flush=True)
    solution = solve(problem, solver, limits)
    _note_interruption("the search for a design", solution.interrupted)
    if solution.architecture is None:
        diagnosis = explain_infeasibility(problem, solver, limits, proved=solution.status is Status.INFEASIBLE)
        _note_interruption("the search for the reason", diagnosis.interrupted)
        if diagnosis.architecture is None:
            # What either search proved is proved.
            solution = replace(solution, status=diagnosis.status)
            print(f"{proof_text(problem, solution, solver)}\n\n{diagnosis_text(problem, diagnosis)}")
            return Findings(problem, solution, diagnosis=diagnosis)
        print("No design was found at first; looking for the reason met one, and the search went on from it.\n", flush=True)
        solution = solve(problem, solver, replace(limits, start=diagnosis.architecture))
        _note_interruption("the search for a better design", solution.interrupted)
    print(design_text(problem, solution, solver), flush=True)
    prices = price_of_budgets(problem, solver, limits, options.steps, optimum=solution)
    print(price_text(problem, prices), flush=True)
    _note_interruption("the prices", any(price.interrupted for price in prices))
    others: tuple[Solution, ...] = (solution,)
    if options.alternatives:
        others = alternatives(problem, options.alternatives + 1, options.differ, solver, limits, solution)
        print(alternatives_text(problem, others, options.differ, options.alternatives), flush=True)
        _note_interruption("the alternatives", any(other.interrupted for other in others[1:]))
    assert solution.objective is not None
    near = count_near(problem, solution.objective, NEAR, limits)
    print(near_text(near, solution), flush=True)
    # Nothing else ends a count before its time.
    _note_interruption("the count", not near.exact and near.seconds < options.seconds)
    return Findings(problem, solution, prices, others, options.differ, near)


def _note_interruption(part: str, interrupted: bool) -> None:
    if interrupted:
        print(f"Ctrl-C ended {part} early; the command goes on (a second one within a part stops it all).", file=sys.stderr)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line().parse_args(arguments)
    if not 0 < options.seconds < math.inf:
        raise ValueError(f"--seconds is {options.seconds}; expected a positive number")
    for flag in ("alternatives", "steps"):
        if getattr(options, flag) < 0:
            raise ValueError(f"--{flag} is {getattr(options, flag)}; expected at least 0")
    if options.measure and options.measure < 20:
        raise ValueError(f"--measure is {options.measure}; expected at least 20 designs to fit a table to")
    if options.verify is not None:
        read = partial(quantity_from_dict, trust_code=options.trust_code)
        return verify(Path(options.verify), chosen("solver", options.solver, EXACT), options.seconds, read)
    folder = output_folder(options.output)
    tabulator = Tabulator(read_space(options.space or "paper"), options.measure, folder)
    title, problem = problem_of(options, tabulator)
    if options.differ is None:
        options.differ = min(4, problem.space.decisions)
    if not 1 <= options.differ <= problem.space.decisions:
        raise ValueError(f"--differ is {options.differ}; expected 1 to {problem.space.decisions}, the decisions of a design")
    solver = chosen("solver", options.solver, EXACT)
    problem_to_dict(problem, quantity_to_dict)  # refuses, before any work is done, what design.json could not hold
    findings = investigate(title, problem, options)
    (folder / "design.png").unlink(missing_ok=True)  # of an earlier run: it would show another problem, should this one end here
    write_json(folder / "design.json", record_of(findings, solver, quantity_to_dict))
    written = ["design.json"]
    if findings.solution.architecture is not None and (text := tabulator.check_text(findings.solution.architecture)):
        print(text)
    if findings.solution.architecture is not None:
        save_figure(draw_design(problem, findings.solution, findings.prices), folder / "design.png")
        written.append("design.png")
    print(f"\nWritten to {folder}: {', '.join(written)}")
    if findings.solution.architecture is not None:
        return ExitCode.DONE
    return ExitCode.INFEASIBLE if findings.solution.status is Status.INFEASIBLE else ExitCode.NO_ANSWER
