"""What exact methods need for their proofs: instances times solvers in one run, and every optimum compared with another method's.

    python -m studies.exact_methods
    python -m studies.exact_methods --instances variants,layers-3 --solvers dp,highs,bare-highspy --seconds 60

Each run has its own process: wall-clock and CPU seconds and peak memory are those of the search, without imports. Random
instances have one problem a seed, the others repeats; tables show medians. A solver that did not prove an instance is not tried on
the larger ones of its kind, unless with --hopeless. Beside the toolkit's solvers stands bare-highspy: HiGHS alone, called as one
would from arrays, for additive problems. Where a proof has a certificate, the checker of certificates is asked.
Writes rows.jsonl (a finished run is never run twice), summary.json and exact_methods.png, which `studies.exact_methods.figures`
draws.

    python -m studies.exact_methods --fronts
    python -m studies.exact_methods --fronts --moco instances/moco --instances 2KP50-11,paper-flops

Whole fronts instead: found at once, and point by point by the ε-constraint method, each complete one compared with the other's and
with what is published. --moco names a folder of knapsack problems (.mof.json, .dat), from MultiObjectiveAlgorithms.jl. Writes
rows.jsonl and fronts.json.

Exit code: 0 all proofs and fronts agree and no certificate is refused; 3 otherwise.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.reading import chosen
from formulation.records.rows import Resume, Row, RowFile
from solvers import EngineMissing
from studies.exact_methods.apart import REFUSED
from studies.exact_methods.fronts import FRONTS, fronts_of, fronts_summary, fronts_text, run_fronts
from studies.exact_methods.instances import INSTANCES
from studies.exact_methods.summary import MethodsPlan, Results, methods_summary, methods_text, proves
from studies.exact_methods.trial import BARE, ENTRANTS, TRIAL_COLUMNS, Trial, check_trial_row, measure

_FULL = tuple(
    name for name in ("automatic", "reduction", "counts", "dp", "exhaustive", "highs", "cpsat", "scip", BARE) if name in ENTRANTS
)
_ENUMERATED = 2e7
"""Designs a second that exhaustive search will not enumerate; it scores some 10 million."""
_QUICK_INSTANCES = ("variants-16-2", "paper-60")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "--instances",
        default=None,
        metavar="NAMES",
        help=f"names, or what several names begin with, comma-separated, of {', '.join(INSTANCES)}; "
        f"with --fronts of {', '.join(FRONTS)} and the files of --moco (default: all)",
    )
    parser.add_argument("--solvers", default=None, metavar="NAMES", help=f"of {', '.join(ENTRANTS)} (default: {', '.join(_FULL)})")
    parser.add_argument(
        "--seconds", type=float, default=None, metavar="S", help="time limit of one run in seconds (default 20, with --fronts 60)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="seeds of a random instance, else runs of the same problem (default 3)"
    )
    parser.add_argument("--fronts", action="store_true", help="whole fronts in place of single optima")
    parser.add_argument("--moco", default=None, metavar="DIR", help="folder of knapsack problems whose fronts are found, too")
    parser.add_argument(
        "--hopeless", action="store_true", help="try a solver even where it did not prove the smaller instance of the kind"
    )
    parser.add_argument(
        "--output", default="results/exact_methods", metavar="DIR", help="folder of the results (default results/exact_methods)"
    )
    parser.add_argument("--quick", action="store_true", help="two small instances, one run each, 2 s a run: under 30 s")
    return parser


@dataclass(frozen=True)
class MethodsOptions:
    """What the study was asked for, see --help; ValueError for a number out of range."""

    instances: str | None
    solvers: str | None
    seconds: float | None
    repeats: int
    fronts: bool
    moco: str | None
    hopeless: bool
    output: str
    quick: bool

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"--repeats is {self.repeats}; expected at least 1")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"--seconds is {self.seconds}; expected a positive number")
        if self.moco is not None and not self.fronts:
            raise ValueError(f"--moco is {self.moco}, whose problems have fronts; add --fronts")
        if self.fronts and self.solvers is not None:
            raise ValueError("--fronts finds fronts by its own methods; leave --solvers out")

    @property
    def limit(self) -> float:
        """Time limit of one run in seconds."""
        return self.seconds or (60.0 if self.fronts else 20.0)

    @property
    def plan(self) -> MethodsPlan:
        """What is run; ValueError naming an instance or a solver that is unknown."""
        every = _QUICK_INSTANCES if self.quick else tuple(INSTANCES)
        named = every if self.instances is None else [name for word in _words(self.instances) for name in _beginning_with(word)]
        solvers = _FULL if self.solvers is None else _words(self.solvers)
        for name in solvers:
            chosen("solver", name, ENTRANTS)
        return MethodsPlan(
            tuple(name for name in INSTANCES if name in named),
            tuple(dict.fromkeys(solvers)),
            min(self.limit, 2.0) if self.quick else self.limit,
            1 if self.quick else self.repeats,
            self.hopeless,
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _beginning_with(word: str) -> list[str]:
    if word not in INSTANCES and (several := [name for name in INSTANCES if name.startswith(f"{word}-")]):
        return several
    chosen("instance", word, INSTANCES)
    return [word]


def run_methods(plan: MethodsPlan, file: RowFile) -> Results:
    """Run what the file does not hold yet, small instances first.

    What is not tried follows from the rows alone, so a stopped study goes on as one that never stopped. Raises KeyboardInterrupt
    when the user stops a run: it is not kept, the ones before are.
    """
    results = Results({}, {}, {})
    with Resume(file, [trial.key for trial in plan.trials()], columns=TRIAL_COLUMNS) as resume:
        for name in plan.instances:
            for option in plan.options:
                reason = results.missing.get(option) or _hopeless(plan, name, option, results)
                trials = plan.of(name, option)
                if reason is None:
                    try:
                        results.rows[name, option] = _rows_of(trials, resume)
                    except EngineMissing as error:
                        results.missing[option] = reason = str(error)
                if reason is not None:
                    results.untried[name, option] = reason
                resume.skip(trial.key for trial in trials)
    return results


def _hopeless(plan: MethodsPlan, name: str, option: str, results: Results) -> str | None:
    """Why a solver is not tried on an instance, if it isn't: it cannot read the smaller one, or did not prove it."""
    if option == "exhaustive" and not plan.hopeless and INSTANCES[name].build(0).space.size > _ENUMERATED * plan.seconds:
        return "too many designs to enumerate"
    smaller = INSTANCES[name].smaller
    if smaller not in plan.instances:
        return None
    rows = results.rows.get((smaller, option))
    if rows is None:
        return results.untried[smaller, option]
    if plan.hopeless or any(map(proves, rows)):
        return None
    return f"no proof of {smaller}"


def _rows_of(trials: Sequence[Trial], resume: Resume[str]) -> list[Row]:
    """The rows of one solver's runs on an instance, up to the first that says enough of the others.

    That is one that could not read the problem, one without a proof where all are of the same problem, and of random ones that
    which leaves the median without a proof.
    """
    rows: list[Row] = []
    without = 0
    for trial in trials:
        resume.note(f"{trial.instance}: {trial.option}")
        rows.append(resume.row(trial.key, partial(measure, trial), partial(check_trial_row, trial)))
        without += not proves(rows[-1])
        if rows[-1]["status"] == REFUSED or (without and not INSTANCES[trial.instance].seeded) or 2 * without >= len(trials):
            break
    return rows


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(MethodsOptions, command_line(), arguments)
    return _compare_fronts(options) if options.fronts else _compare_solvers(options)


def _compare_fronts(options: MethodsOptions) -> ExitCode:
    named = None if options.instances is None else _words(options.instances)
    repeats = 1 if options.quick else options.repeats
    if options.quick and named is None:
        named = ["paper-flops"]
    moco = None if options.moco is None else str(Path(options.moco).resolve())
    fronts_of(moco)
    folder = output_folder(options.output)
    rows = run_fronts(named, options.limit, repeats, moco, RowFile(folder / "rows.jsonl"))
    summary = fronts_summary(rows, options.limit, moco)
    print(f"\n{fronts_text(summary)}")
    write_json(folder / "fronts.json", summary)
    print(f"\nWritten to {folder}: rows.jsonl, fronts.json")
    return ExitCode.BROKEN_PROMISE if summary["faults"] else ExitCode.DONE


def _compare_solvers(options: MethodsOptions) -> ExitCode:
    plan = options.plan
    folder = output_folder(options.output)
    results = run_methods(plan, RowFile(folder / "rows.jsonl"))
    if not results.rows:
        raise EngineMissing("; ".join(results.missing.values()))
    summary = methods_summary(plan, results)
    print(f"\n{methods_text(summary)}")
    write_json(folder / "summary.json", summary)
    from studies.exact_methods.figures import draw_methods

    save_figure(draw_methods(summary), folder / "exact_methods.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, exact_methods.png")
    return ExitCode.BROKEN_PROMISE if summary["faults"] else ExitCode.DONE
