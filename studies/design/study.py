"""The everyday command: the best design for your budgets, its proof, and what a designer asks next.

    python -m studies.design --space fine --budget flops=60e9 --budget params=60e6
    python -m studies.design --minimize latency@amd-epyc-2cpu --budget "entropy>=20e3" --budget "params<=60e6"
    python -m studies.design problem.json --seconds 30
    python -m studies.design --verify results/design/design.json
    python -m studies.design --budget flops=60e9 --program latex > program.tex

Prints the design, what binds, what more or less of each budget buys, alternatives and the number of near-optimal designs; where
no design exists, which budgets conflict and what each would have to be. Writes design.json, which --verify checks by the
definitions and a fresh proof, and, unless --steps is 0, design.png. --program prints the problem as a mathematical program and
solves nothing. A file that names code of a module is refused unless --trust-code lets it run.

Exit code: 0 a design was found (whether it is proved is printed and written), verified (--verify) or printed (--program);
1 proved that no design meets the budgets; 2 a mistake in the command or a file that cannot be read; 3 with --verify, something
stored does not hold; 4 neither a design nor a proof within the time limit. Ctrl-C ends the part that runs and keeps what it has
found.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from formulation import FAMILIES, Composite, DesignProblem, EffectiveEntropy, Quantity, SearchSpace, Separable, SpaceUnion
from formulation.architecture import JOINTS
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, number_of
from formulation.deployability import DEPLOYABILITIES, deployability
from formulation.problem import budget_text
from formulation.problem_file import NAMED_SPACES, ReadQuantity, problem_to_dict, read_problem, read_space
from formulation.quantity import quantity_text
from formulation.records.files import output_folder, save_figure, writable_file, write_json
from formulation.records.reading import chosen
from formulation.union import decided
from hardware_models.names import quantity_from_dict, quantity_to_dict, read_quantity
from solvers import Findings, Limits, Solution, Solver, Status, design, program_text
from solvers.certificate import Uncheckable
from solvers.names import SOLVERS
from solvers.programs.program_text import PROGRAM_STYLES, Style
from solvers.programs.pyomo_model import Form
from solvers.questions.design_check import Undecided, check_design, identity_note
from solvers.questions.design_file import design_in, read_design
from solvers.questions.findings import gap_of
from studies.budget_flags import BudgetOptions, add_budget_arguments, add_trust_argument, read_budgets
from studies.design.tabulator import Tabulator
from studies.ship.promised import check_network

EXACT: dict[str, Solver] = {name: entrant.solver for name, entrant in SOLVERS.items() if not entrant.seeded}
"""Solvers that prove and leave nothing to chance."""


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "problem", nargs="?", metavar="FILE", help="a problem file (JSON); formulation/problem_file.py says what it holds"
    )
    parser.add_argument("--space", default=None, metavar="NAME|FILE", help=f"{NAMED_SPACES} (default paper)")
    for flag, (_, metavar, text) in _NETWORK.items():
        parser.add_argument(f"--{flag}", default=None, metavar=metavar, help=text)
    parser.add_argument(
        "--deployable",
        default=None,
        metavar="NAME",
        help=f"keep to what a runtime or a kernel asks, and say what that costs: {', '.join(DEPLOYABILITIES)}",
    )
    add_budget_arguments(parser, "all hold together")
    objective = parser.add_mutually_exclusive_group()
    objective.add_argument("--maximize", metavar="NAME", help="the objective, named as in a budget (default entropy)")
    objective.add_argument(
        "--minimize", action="append", metavar="NAME", help="the objective instead, if least is best, such as params"
    )
    parser.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="N",
        help="designs of the space to measure a black-box budget on, at least 20; what is searched is a table fitted to them",
    )
    parser.add_argument("--solver", default="automatic", metavar="NAME", help=f"of {', '.join(EXACT)} (default automatic)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds for each part at most: the design or its diagnosis, the prices, the alternatives, the count (default 60)",
    )
    parser.add_argument("--alternatives", type=int, default=3, metavar="K", help="further designs to show (default 3)")
    parser.add_argument("--differ", type=int, metavar="D", help="least number of decisions in which they differ (default 4)")
    parser.add_argument(
        "--steps", type=int, default=3, metavar="K", help="steps of each budget to price, up and down, and to draw (default 3)"
    )
    parser.add_argument("--output", default="results/design", metavar="DIR", help="folder of the results (default results/design)")
    parser.add_argument(
        "--certificate",
        default=None,
        metavar="FILE",
        help="write the proof to a file that the module solvers.check compares with exact arithmetic, by itself",
    )
    parser.add_argument(
        "--verify",
        default=None,
        metavar="FILE|FOLDER",
        help="check a design.json instead: its numbers and its proof, and the network that training left beside it",
    )
    parser.add_argument(
        "--program",
        nargs="?",
        const="text",
        choices=PROGRAM_STYLES,
        help="print the mathematical program instead of solving it: as text (the default), as a LaTeX page, or as a file for other "
        "solvers, lp and mps for linear ones, nl and gms for nonlinear ones",
    )
    parser.add_argument(
        "--form",
        choices=[form.value for form in Form],
        default=Form.CHOICE.value,
        help="of the program: a binary for each item of a menu (choice, the default), or whole sizes and look-ups (lookup)",
    )
    add_trust_argument(parser)
    return parser


def _whole(flag: str, word: str) -> int:
    """A whole number of a list of them."""
    if not word.isdecimal():
        raise ValueError(f"{flag} has the entry {word[:40]!r}; expected whole numbers with commas between them, such as 4096,8192")
    return int(word)


def _yes(flag: str, word: str) -> bool:
    """yes or no."""
    return chosen(flag, word, {"yes": True, "no": False})


def _name(flag: str, word: str) -> str:
    """One of the families."""
    return chosen(flag, word, FAMILIES).name


def _joints(flag: str, word: str) -> str:
    """One of what may join unequal widths."""
    return chosen(flag, word, {name: name for name in JOINTS})


_NETWORK: dict[str, tuple[Callable[[str, str], int | bool | str], str, str]] = {
    "vocabulary": (_whole, "N,N,…", "tokens, such as 8192; several with commas between them are searched together, with one proof"),
    "embedding-width": (_whole, "E,E,…", "width of the token embedding, one or several"),
    "family": (_name, "NAME,NAME,…", f"what the layers are, one or several of {', '.join(FAMILIES)}"),
    "shared": (_yes, "yes,no", "whether the layers of a block share their weights, or both"),
    "tied": (_yes, "yes,no", "whether the output head is the token embedding, or both"),
    "joints": (_joints, "NAME,NAME,…", "what joins unequal widths: linear (a map), pad (zeros, without parameters), or both"),
}
"""Decisions of the whole network: how an entry is read, and what --help says."""


@dataclass(frozen=True)
class DesignOptions:
    """What the command was asked for, see --help; ValueError for a number out of range."""

    problem: str | None
    space: str | None
    vocabulary: str | None
    embedding_width: str | None
    family: str | None
    shared: str | None
    tied: str | None
    joints: str | None
    deployable: str | None
    budgets: BudgetOptions
    maximize: str | None
    minimize: tuple[str, ...] | None
    measure: int
    solver: str
    seconds: float
    alternatives: int
    differ: int | None
    steps: int
    output: str
    certificate: str | None
    verify: str | None
    program: Style | None
    form: str
    trust_code: bool

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")
        for flag, number in (("alternatives", self.alternatives), ("steps", self.steps)):
            if number < 0:
                raise ValueError(f"--{flag} is {number}; expected at least 0")
        if self.measure and self.measure < 20:
            raise ValueError(f"--measure is {self.measure}; expected at least 20 designs to fit a table to")

    @property
    def read_quantity(self) -> ReadQuantity:
        """How a file names quantities; code only if the user trusts it."""
        return partial(quantity_from_dict, trust_code=self.trust_code)

    @property
    def searched(self) -> SearchSpace | SpaceUnion:
        """The space: the one that is named, over the decisions of the whole network; ValueError for what cannot be."""
        given = {name: getattr(self, name.replace("-", "_")) for name in _NETWORK}
        decisions = {
            name.replace("-", "_"): tuple(_NETWORK[name][0](f"--{name}", word.strip()) for word in text.split(","))
            for name, text in given.items()
            if text is not None
        }
        space = read_space(self.space or "paper")
        return decided(space, **decisions) if decisions else space

    @property
    def exact_solver(self) -> Solver:
        """The solver; ValueError with the nearest name for one that is not known."""
        solver: Solver = chosen("solver", self.solver, EXACT)
        return solver


def design_problem(options: DesignOptions, tabulated: Callable[[Quantity], Quantity]) -> tuple[str, DesignProblem]:
    """The one problem that the command line names, with a title; `tabulated` stands in for a black box."""
    if options.problem is not None:
        flags = (
            "space",
            *(name.replace("-", "_") for name in _NETWORK),
            "budget",
            "maximize",
            "minimize",
            "confidence",
            "extrapolate",
            "measure",
        )
        values = {**vars(options), **vars(options.budgets)}
        if given := [f"--{flag.replace('_', '-')}" for flag in flags if values[flag]]:
            raise ValueError(f"{options.problem} names the whole problem; leave out {' and '.join(given)}, or the file")
        if "=" in options.problem and not Path(options.problem).exists():
            raise ValueError(f"there is no problem file {options.problem}; a budget is written --budget {options.problem}")
        problem = read_problem(Path(options.problem), options.read_quantity)
        if not isinstance(problem.space, SearchSpace | SpaceUnion):
            raise ValueError(f"{options.problem} chooses from a score table; run python -m studies.choose {options.problem}")
        if problem.minimize and not problem.least:
            names = [quantity.name for quantity in problem.minimize]
            raise ValueError(
                f"{options.problem} also minimizes {' and '.join(names)}, which has no single best design; give a budget in its "
                f"place, or run python -m studies.pareto {' '.join(f'--minimize {name}' for name in names)}"
            )
        return Path(options.problem).stem, problem
    if not options.budgets.budget:
        example = '--budget "entropy>=20e3"' if options.minimize else "--budget flops=60e9"
        raise ValueError(f"there is no budget to design for; name a problem file or give {example}")
    problems = read_budgets(options.budgets.budget, options.budgets.confidence, options.budgets.extrapolate, tabulated)
    if len(problems) > 1:
        raise ValueError("a budget is named twice with different values; this command solves one problem, so give each name once")
    space = options.space or "paper"
    least = options.minimize or ()
    if len(least) > 1:
        raise ValueError(
            f"--minimize names {' and '.join(least)}, and no single design is best in all of them; keep one, make the others "
            f"budgets, or run python -m studies.pareto {' '.join(f'--minimize {name}' for name in least)}"
        )
    name = least[0] if least else options.maximize
    goal = EffectiveEntropy() if name is None else read_quantity(name, "objective", options.budgets.extrapolate)
    if not isinstance(goal, Separable | Composite):
        goal = tabulated(goal)
    maximize, minimize = (None, (goal,)) if least else (goal, ())
    union: SearchSpace = options.searched  # type: ignore[assignment]  # a union stands in for a space
    return Path(space).stem, DesignProblem(union, maximize, problems[0], minimize=minimize)


class Printer:
    """Prints the parts of findings as they come, and notes on stderr what Ctrl-C ended."""

    def __init__(self) -> None:
        self.parts = self.notes = 0

    def __call__(self, findings: Findings) -> None:
        for text in findings.parts[self.parts :]:
            print(text, flush=True)
        for part in findings.interrupted[self.notes :]:
            print(f"Ctrl-C ended {part} early; the command goes on (a second one within a part stops it all).", file=sys.stderr)
        self.parts, self.notes = len(findings.parts), len(findings.interrupted)


def investigate(title: str, problem: DesignProblem, options: DesignOptions) -> Findings:
    """Answer what a designer asks; prints each part as soon as it is known."""
    solver, size = options.exact_solver, counted(problem.space.size, "design")
    if len(problem.parts) > 1:
        size += f" in {len(problem.parts)} spaces"
    rules = None if options.deployable is None else deployability(options.deployable)
    if rules is not None:
        size += f", of which {number_of(rules.within(problem.space).size)} can be deployed with {rules.name}"
    goal = f"least {quantity_text(problem.goal)}, " if problem.least else ""
    print(f"{title}: {goal}{', '.join(map(budget_text, problem.subject_to)) or 'no budgets'}; {size}\n", flush=True)
    return design(
        problem,
        solver,
        Limits(seconds=options.seconds, gap=gap_of(solver)),
        steps=options.steps,
        alternatives=options.alternatives,
        differing=options.differ,
        deployability=rules,
        progress=Printer(),
    )


def write_certificate(solution: Solution, path: Path, seconds: float) -> str:
    """Write the proof of a solution to a file; what to say of it. A file of that name goes, as it is the proof of something else.

    Args:
        solution: see `solvers.certify.certified`.
        path: of the file.
        seconds: that a second proof may take, where the solver's own leaves nothing to check.
    """
    from solvers.certify import certified

    path.unlink(missing_ok=True)
    if solution.certificate is None:
        known = solution.bound is not None or solution.status is Status.INFEASIBLE
        why = "the solver kept no record of what is proved" if known else "nothing is proved"
        return f"No certificate was written to {path}: {why}."
    certificate = certified(solution, seconds)
    certificate.write(path)
    if isinstance(certificate.certificate, Uncheckable):
        return f"Certificate written to {path}; it is not checkable: {certificate.certificate.why}."
    return f"Certificate written to {path}; python -m solvers.check {path} checks it."


def verify(path: Path, solver: Solver, seconds: float, read_quantity: ReadQuantity) -> int:
    """Check a design file, or the one in a folder, and the network beside it; prints what agrees and returns the exit code.

    Args:
        path: the file or the folder.
        solver: for the proofs.
        seconds: of each proof.
        read_quantity: how the file names quantities.
    """
    path = design_in(path)
    stored = read_design(path, read_quantity)
    if note := identity_note(stored):
        print(note, file=sys.stderr)
    checked = check_design(stored, solver, seconds, print)
    for fault in checked.faults:
        print(f"{'Not decided' if isinstance(fault, Undecided) else 'Does not hold'}: {fault}.", file=sys.stderr)
    if checked.faults:
        return ExitCode.NO_ANSWER if checked.undecided else ExitCode.BROKEN_PROMISE
    if stored.record["solution"]["status"] == Status.UNKNOWN.value:
        print(f"Nothing to verify: {path} claims neither a design nor that there is none; design again with more --seconds.")
        return ExitCode.NO_ANSWER
    if code := check_network(stored, path.parent):
        return code
    unproved = " and ".join(checked.unproved)
    print(f"Verified: {path}." + (f" Evaluated, but not proved again: {unproved}." if unproved else ""))
    return ExitCode.DONE


def exit_code_of(findings: Findings) -> ExitCode:
    """What a command that prints findings ends with."""
    if findings.architecture is not None:
        return ExitCode.DONE
    return ExitCode.INFEASIBLE if findings.solution.status is Status.INFEASIBLE else ExitCode.NO_ANSWER


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = read_options(DesignOptions, command_line(), arguments)
    if options.verify is not None:
        return verify(Path(options.verify), options.exact_solver, options.seconds, options.read_quantity)
    printed = options.program is not None and not options.measure  # then nothing is written
    folder = Path(options.output) if printed else output_folder(options.output)
    if options.certificate is not None and options.program is None:
        writable_file(options.certificate, "--certificate")
    tabulator = Tabulator(options.searched, options.measure, folder)
    title, problem = design_problem(options, tabulator)
    if options.program is not None:
        kept = problem if options.deployable is None else deployability(options.deployable).of(problem)
        print(program_text(kept, Form(options.form), options.program), end="")
        return ExitCode.DONE
    if options.differ is not None and not 1 <= options.differ <= problem.space.decisions:
        raise ValueError(f"--differ is {options.differ}; expected 1 to {problem.space.decisions}, the decisions of a design")
    problem_to_dict(problem, quantity_to_dict)  # refuses, before any work is done, what design.json could not hold
    findings = investigate(title, problem, options)
    (folder / "design.png").unlink(missing_ok=True)  # of an earlier run: it would show another problem, should this one end here
    write_json(folder / "design.json", findings.to_dict(quantity_to_dict))
    written = ["design.json"]
    if findings.architecture is not None:
        if text := tabulator.check_text(findings.architecture):
            print(text)
        if options.steps:
            from studies.design.figures import draw_design

            save_figure(draw_design(findings.problem, findings.solution, findings.prices), folder / "design.png")
            written.append("design.png")
    print(f"\nWritten to {folder}: {', '.join(written)}")
    if options.certificate is not None:
        print(write_certificate(findings.solution, Path(options.certificate), options.seconds))
    return exit_code_of(findings)
