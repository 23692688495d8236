"""One option for each position of a score table: the best selection within your budgets, its proof and its prices.

    python -m studies.choose scores.csv --budget memory=40e9
    python -m studies.choose scores.csv --minimize kl --budget memory=60% --of full --budget "latency<=12"
    python -m studies.choose scores.json --position layer --item variant --budget params=7e9 --alternatives 3 --distance 5
    python -m studies.choose scores.csv --front memory
    python -m studies.choose --verify results/choose/design.json

A table has a row an option, with the columns position, item and score, and any number of costs; formulation/score_file.py says
what files may look like. Scores and costs of the chosen options add up.

Prints the selection, what binds, what more or less of each budget buys and alternatives; where no selection meets the budgets,
which of them conflict and what each would have to be. Writes selection.csv and design.json, which --verify checks by the table and
a fresh proof. --front seeks all selections that no other one betters in score and costs, and writes front.csv.

Exit code: 0 a selection was found (whether it is proved is printed and written), the front is complete, or verified (--verify);
1 proved that no selection meets the budgets; 2 a mistake in the command or a file that cannot be read; 3 with --verify, something
stored does not hold; 4 neither a selection nor a proof within the time limit, or a front that is not complete. Ctrl-C ends the part
that runs and keeps what it has found.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from formulation import Budget, DesignProblem
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, number_text, with_unit
from formulation.derived import NegativeSum
from formulation.problem import budget_text
from formulation.problem_file import is_problem_file, problem_to_dict, read_problem
from formulation.quantity import Quantity
from formulation.records.files import output_folder, replace_file, writable_file, write_json
from formulation.records.reading import chosen, format_of
from formulation.score_file import ITEM, POSITION, SCORE, ScoreTable, read_scores
from formulation.score_table import Column, OptionSpace, Selection
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import Front, Limits, Solver, design, exact_front
from solvers.questions.design_file import design_in, read_design
from solvers.questions.findings import FORMAT, gap_of
from solvers.questions.text import front_table
from studies.budget_flags import number_in, split_budget
from studies.design.study import EXACT, Printer, exit_code_of, verify, write_certificate

_MOST_COLUMNS = 8
"""Columns up to which a table of costs is reported as a whole; of more, those that are named."""


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "table", nargs="?", metavar="FILE", help="a score table (CSV or JSON), or a problem file (JSON) whose space is one"
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME<=VALUE",
        help="a column and what it may add up to: memory<=40e9, or memory=40e9; accuracy>=0.5 (at least); memory=60%% (of the most "
        "that it can add up to, or of what --of has). Quote what holds < or >, which a shell reads otherwise. May be repeated: all "
        "hold together",
    )
    parser.add_argument("--of", metavar="ITEM", help="the option whose costs, at every position, are the 100%% of budgets")
    objective = parser.add_mutually_exclusive_group()
    objective.add_argument("--score", metavar="NAME", help=f"the column of the score (default {SCORE})")
    objective.add_argument("--minimize", metavar="NAME", help="the column of the score, if least is best, such as a loss")
    parser.add_argument("--position", metavar="NAME", help=f"the column of the positions (default {POSITION})")
    parser.add_argument("--item", metavar="NAME", help=f"the column of the options' names (default {ITEM})")
    parser.add_argument(
        "--report",
        action="append",
        metavar="NAME",
        help=f"a further column to show; may be repeated (default: all, of a table that has at most {_MOST_COLUMNS})",
    )
    parser.add_argument("--solver", default=_SOLVER, metavar="NAME", help=f"of {', '.join(EXACT)} (default {_SOLVER})")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds for each part at most: the selection or its diagnosis, the prices, the alternatives, the front (default 60)",
    )
    parser.add_argument("--alternatives", type=int, default=0, metavar="K", help="further selections to show (default 0)")
    parser.add_argument(
        "--distance", type=int, metavar="D", help="least number of positions in which they differ from all before (default 1)"
    )
    parser.add_argument(
        "--steps", type=int, default=_STEPS, metavar="K", help=f"steps of each budget to price, up and down (default {_STEPS})"
    )
    parser.add_argument(
        "--front",
        action="append",
        metavar="NAME",
        help="seek the front instead: a column to minimize beside the score; may be repeated",
    )
    parser.add_argument("--output", default="results/choose", metavar="DIR", help="folder of the results (default results/choose)")
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="write the proof to a file that the module solvers.check compares with exact arithmetic, by itself",
    )
    parser.add_argument(
        "--verify",
        metavar="FILE|FOLDER",
        help="check a design.json instead: its numbers and its proof, and that its table is that of FILE, if one is named",
    )
    return parser


_SOLVER, _STEPS = "automatic", 1
"""The solver unless another is named, and the steps of each budget."""


@dataclass(frozen=True)
class ChooseOptions:
    """What the command was asked for, see --help; ValueError for a number out of range."""

    table: str | None
    budget: tuple[str, ...]
    of: str | None
    score: str | None
    minimize: str | None
    position: str | None
    item: str | None
    report: tuple[str, ...] | None
    solver: str
    seconds: float
    alternatives: int
    distance: int | None
    steps: int
    front: tuple[str, ...] | None
    output: str
    certificate: str | None
    verify: str | None

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")
        for flag, number in (("alternatives", self.alternatives), ("steps", self.steps)):
            if number < 0:
                raise ValueError(f"--{flag} is {number}; expected at least 0")
        if self.table is None and self.verify is None:
            raise ValueError("there is no table to choose from; name a CSV or JSON file")

    def check_front(self) -> None:
        """ValueError if something is given that a front has no use for."""
        given = {
            "certificate": self.certificate is not None,
            "solver": self.solver != _SOLVER,
            "alternatives": self.alternatives > 0,
            "distance": self.distance is not None,
            "steps": self.steps != _STEPS,
        }
        if named := [f"--{flag}" for flag, is_given in given.items() if is_given]:
            verb, they = ("goes", "it") if len(named) == 1 else ("go", "them")
            raise ValueError(f"{' and '.join(named)} {verb} with one selection; leave {they} out beside --front")

    @property
    def exact_solver(self) -> Solver:
        """The solver; ValueError with the nearest name for one that is not known."""
        solver: Solver = chosen("solver", self.solver, EXACT)
        return solver

    def read_table(self, without_score: bool = False) -> ScoreTable:
        """The table that is named."""
        score = self.minimize or self.score or SCORE
        position, item = self.position or POSITION, self.item or ITEM
        return read_scores(
            str(self.table), None if without_score else score, least=self.minimize is not None, position=position, item=item
        )


def table_problem(options: ChooseOptions) -> tuple[str, DesignProblem]:
    """The problem that the command line names, with a title; that of a front if --front is given."""
    path = Path(str(options.table))
    if is_problem_file(path):
        flags = ("budget", "of", "score", "minimize", "position", "item", "report", "front")
        if given := [f"--{flag}" for flag in flags if getattr(options, flag)]:
            raise ValueError(f"{path} names the whole problem; leave out {' and '.join(given)}, or name its table")
        problem = read_problem(path, quantity_from_dict)
        if not isinstance(problem.space, OptionSpace):
            raise ValueError(f"{path} does not choose from a score table; run python -m studies.design {path}")
        return path.stem, problem
    if format_of(path) == FORMAT:
        raise ValueError(f"{path} is a design that was chosen already, not a score table; check it with --verify {path}")
    table = options.read_table()
    if options.report is None:
        for name in table.partly:
            print(f"{name} is no cost: {table.unread[name]}", file=sys.stderr)
    budgets = tuple(read_budget(table, text, options.of) for text in options.budget)
    if options.of is not None and not any(text.endswith("%") for text in options.budget):
        raise ValueError(f"--of is {options.of}, and no budget is a share of it; expected one such as memory=60%")
    named = options.report
    if named is None:
        named = tuple(column.name for column in table.costs) if len(table.columns) <= _MOST_COLUMNS else ()
    budgeted = [budget.quantity.name for budget in budgets]
    report = [table[name] for name in dict.fromkeys(named) if name not in (table.goal.name, *budgeted)]
    costs = [table[name] for name in options.front or ()]
    if len({table.goal, *costs}) <= len(costs):
        raise ValueError(
            f"--front names {', '.join(options.front or ())} beside the score {table.goal.name}; expected each column once"
        )
    return path.name, table.problem(*budgets, minimize=costs, report=() if costs else report)


def read_budget(table: ScoreTable, text: str, of: str | None = None) -> Budget:
    """A budget on a column as a user writes it.

    Args:
        table: whose column it is.
        text: memory<=40e9, memory=40e9, memory>=1e9, or memory=60%.
        of: the option whose sum over all positions is 100 %; unless given, that is the most that the column can add up to.

    Raises:
        ValueError: for another text, a column that the table does not have, and a share of what is not positive.
    """
    name, side, written = split_budget(text)
    if name.endswith("="):
        raise ValueError(f"the budget {text!r} has two signs =; write it as {name.rstrip('=')}={written}")
    share, number = written.endswith("%"), number_in(written.removesuffix("%"))
    if number is None:
        raise ValueError(f'the budget {text!r} is not NAME<=NUMBER or NAME>=NUMBER; write it as "memory<=40e9" or memory=60%')
    column = table[name]
    if share:
        whole = table.largest(name) if of is None else column(table.space.same(of))
        if whole <= 0:
            raise ValueError(
                f"the budget {text!r} is a share of {with_unit(number_text(whole), column.unit)}; write it as a number"
            )
        number = number / 100 * whole
    return Budget(column, number) if side == "upper" else Budget(column, at_least=number)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file, in place of one that was there."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replace_file(path) as file:
        file.write(text.getvalue().encode())


def _columns(problem: DesignProblem, further: Sequence[Quantity] = ()) -> list[Column]:
    """The columns of a table that a problem speaks of, the score first."""
    known = (one.quantity if isinstance(one, NegativeSum) else one for one in (*problem.quantities, *further))
    return [one for one in dict.fromkeys(known) if isinstance(one, Column)]


def _heads(columns: Sequence[Column]) -> list[str]:
    return [one.name if one.unit == "1" else f"{one.name} [{one.unit}]" for one in columns]


def write_selection(path: Path, problem: DesignProblem, selection: Selection) -> None:
    """A selection as a CSV file: a row a position, with the option's score and costs."""
    space, columns = problem.space, _columns(problem)
    assert isinstance(space, OptionSpace)
    items = space.encode(selection)
    rows = [
        [menu.position, menu.names[item], *(repr(column.values[i, item].item()) for column in columns)]
        for i, (menu, item) in enumerate(zip(space.menus, items, strict=True))
    ]
    write_table(path, [POSITION, ITEM, *_heads(columns)], rows)


def write_front(path: Path, front: Front) -> None:
    """A front as a CSV file: a row a selection, with what its score and costs add up to and its option at each position."""
    space, columns = front.problem.space, _columns(front.problem)
    assert isinstance(space, OptionSpace)
    designs = [point.architecture for point in front.points]
    rows = [[*(repr(column(one)) for column in columns), *one.names] for one in designs if isinstance(one, Selection)]
    write_table(path, [*_heads(columns), *space.positions], rows)


def remove_results(folder: Path) -> None:
    """Remove what an earlier run left in its folder: it would be the answer to another problem."""
    for name in ("design.json", "selection.csv", "front.csv"):
        (folder / name).unlink(missing_ok=True)


def show_front(problem: DesignProblem, options: ChooseOptions, folder: Path) -> int:
    """Find a front, print and write it; returns the exit code."""
    front = exact_front(problem, None, Limits(seconds=options.seconds))
    remove_results(folder)
    if not front.points:
        print("Proved: no selection meets the budgets." if front.complete else f"No selection was found ({front.message}).")
        return ExitCode.INFEASIBLE if front.complete else ExitCode.NO_ANSWER
    print(front_table(front))
    points = counted(len(front.points), "selection")
    advice = "" if front.interrupted else "; give more --seconds"
    proof = "is complete (proved)" if front.complete else f"is not known to be complete ({front.message}){advice}"
    print(f"\nThe front of {points} {proof}; {front.seconds:.2f} s.")
    write_front(folder / "front.csv", front)
    print(f"\nWritten to {folder}: front.csv")
    return ExitCode.DONE if front.complete else ExitCode.NO_ANSWER


def compare_tables(options: ChooseOptions, stored: DesignProblem) -> None:
    """ValueError that says where the table that is named is another than the one a design file holds."""
    if is_problem_file(Path(str(options.table))):
        raise ValueError(f"{options.table} is a problem file; --verify compares a score table with that of {options.verify}")
    table = options.read_table(without_score=True)
    for column in _columns(stored):
        now = table[column.name]
        if now.space != column.space:
            raise ValueError(f"{options.table} has other positions or options than the table of {options.verify}")
        if now != column:
            raise ValueError(f"{options.table} has other values of {column.name} than the table of {options.verify}")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = read_options(ChooseOptions, command_line(), arguments)
    solver = options.exact_solver
    if options.verify is not None:
        path = design_in(Path(options.verify))
        if options.table is not None:
            compare_tables(options, read_design(path, quantity_from_dict).problem)
        return verify(path, solver, options.seconds, quantity_from_dict)
    folder = output_folder(options.output)
    if options.certificate is not None:
        writable_file(options.certificate, "--certificate")
    title, problem = table_problem(options)
    space, of_front = problem.space, bool(problem.minimize) and not problem.least
    if of_front:
        options.check_front()
    if options.distance is not None and not 1 <= options.distance <= space.decisions:
        raise ValueError(f"--distance is {options.distance}; expected 1 to {space.decisions}, the positions of the table")
    budgets = ", ".join(map(budget_text, problem.subject_to)) or "no budgets"
    print(f"{title}: {budgets}; {counted(space.size, 'selection')} of {space.layout}\n", flush=True)
    if of_front:
        return show_front(problem, options, folder)
    problem_to_dict(problem, quantity_to_dict)  # refuses, before any work is done, what design.json could not hold
    findings = design(
        problem,
        solver,
        Limits(seconds=options.seconds, gap=gap_of(solver)),
        steps=options.steps,
        alternatives=options.alternatives,
        differing=options.distance or 1,
        count=False,
        progress=Printer(),
    )
    remove_results(folder)
    write_json(folder / "design.json", findings.to_dict(quantity_to_dict))
    written = ["design.json"]
    if isinstance(findings.architecture, Selection):
        write_selection(folder / "selection.csv", problem, findings.architecture)
        written.append("selection.csv")
    print(f"\nWritten to {folder}: {', '.join(written)}")
    if options.certificate is not None:
        print(write_certificate(findings.solution, Path(options.certificate), options.seconds))
    return exit_code_of(findings)
