"""The whole front of entropy against costs, every part of it proved, and how near NSGA-II comes to it in what time.

    python -m studies.pareto --minimize flops --minimize params --budget flops=160e9
    python -m studies.pareto --space fine --minimize params --budget flops=60e9 --seeds 1 --seconds 10 --exact-seconds 120
    python -m studies.pareto problem.json

Writes rows.jsonl (each settled box and each NSGA-II run, none of them computed twice), front.jsonl (a design of the front a line),
front.json (its certificate and all else that is said of it) and front.png, which `studies.pareto.figures` draws. The exact front is
printed and written before NSGA-II runs.

Exit code: 0 the front is complete; 1 proved that no design meets the budgets; 2 a mistake in the command or a file that cannot be
read; 3 the certificate does not hold; 4 the front is incomplete, and the same command goes on; 130 Ctrl-C, and what is proved is
kept.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from formulation import Architecture, DesignProblem
from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, number_text, text_table
from formulation.fingerprint import cell_key
from formulation.problem_file import NAMED_SPACES, problem_to_dict, read_one_space, read_problem
from formulation.quantity import column_texts, quantity_text
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile, write_rows
from hardware_models.names import quantity_from_dict, quantity_to_dict, read_quantity
from solvers import (
    Box,
    Front,
    Limits,
    Point,
    Status,
    check_certificate,
    exact_front,
    hypervolume,
    nsga2_front,
    reference_costs,
)
from solvers.questions.pareto import check_objectives, point_of
from solvers.questions.text import front_table
from studies.budget_flags import BudgetOptions, add_budget_arguments, add_trust_argument, read_budgets
from studies.pareto.bystanders import Baseline, baselines_of
from studies.stored import check_number, note_unknown

CHECKPOINTS = (1.0, 10.0, 60.0)
"""Seconds after which NSGA-II is compared with the exact front."""
_PACKAGES = ("numpy", "scipy", "pymoo", "moocore")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "problem",
        nargs="?",
        metavar="FILE",
        help='a problem file (JSON) in place of space, quantities and budgets; its "minimize" names the costs',
    )
    parser.add_argument("--space", metavar="NAME|FILE", help=f"{NAMED_SPACES} (default paper)")
    parser.add_argument("--maximize", metavar="NAME", help="quantity to maximize (default entropy)")
    parser.add_argument("--minimize", action="append", metavar="NAME", help="quantity to minimize, such as flops; may be repeated")
    add_budget_arguments(parser, "one for each quantity")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of NSGA-II (default 3)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="time limit of each NSGA-II run in seconds (default 60)"
    )
    parser.add_argument(
        "--evaluations", type=int, metavar="N", help="end each NSGA-II run after so many designs, so that it repeats exactly"
    )
    parser.add_argument("--population", type=int, default=100, metavar="N", help="designs in a generation (default 100)")
    parser.add_argument(
        "--exact-seconds",
        type=float,
        metavar="S",
        help="time limit of the exact front in seconds; the same command goes on (default: none)",
    )
    add_trust_argument(parser)
    parser.add_argument("--output", default="results/pareto", metavar="DIR", help="folder of the results (default results/pareto)")
    return parser


@dataclass(frozen=True)
class ParetoOptions:
    """What the study was asked for, see --help; ValueError for a number out of range."""

    problem: str | None
    space: str | None
    maximize: str | None
    minimize: tuple[str, ...] | None
    budgets: BudgetOptions
    seeds: int
    seconds: float
    evaluations: int | None
    population: int
    exact_seconds: float | None
    trust_code: bool
    output: str

    def __post_init__(self) -> None:
        for flag, least in (("seeds", 0), ("population", 2), ("evaluations", 1)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise ValueError(f"--{flag} is {value}; expected at least {least}")
        for flag in ("seconds", "exact_seconds"):
            value = getattr(self, flag)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{flag.replace('_', '-')} is {value}; expected a positive number")


def front_problem(options: ParetoOptions) -> tuple[str, DesignProblem]:
    """The problem that the command line names, with a title; ValueError for names that are unknown or repeated."""
    problem = _problem_in_flags(options) if options.problem is None else _problem_in_file(options)
    budgets = (f"{quantity_text(b.quantity)} {b.sign} {number_text(b.bound)}" for b in problem.subject_to)
    return ", ".join((Path(options.problem or options.space or "paper").stem, *budgets)), problem


def _problem_in_file(options: ParetoOptions) -> DesignProblem:
    flags = ("space", "maximize", "minimize", "budget", "confidence", "extrapolate")
    values = {**vars(options), **vars(options.budgets)}
    if given := [f"--{flag}" for flag in flags if values[flag]]:
        raise ValueError(f"{options.problem} names the whole problem; leave out {' and '.join(given)}, or the file")
    problem = read_problem(Path(str(options.problem)), partial(quantity_from_dict, trust_code=options.trust_code))
    if not problem.minimize:
        raise ValueError(
            f'the problem file {options.problem} minimizes nothing; name the costs in it, such as "minimize": ["flops"]'
        )
    check_objectives(problem)
    return problem


def _problem_in_flags(options: ParetoOptions) -> DesignProblem:
    maximize, names = options.maximize or "entropy", options.minimize or ()
    if not names:
        raise ValueError("--minimize is missing; name what to minimize, such as --minimize flops")
    flags = options.budgets
    quantities = [read_quantity(name, extrapolate=flags.extrapolate) for name in (maximize, *names)]
    if maximize in names:
        raise ValueError(f"{maximize} is both maximized and minimized; expected different quantities")
    if len(set(names)) < len(names):
        raise ValueError(f"--minimize names {', '.join(names)}; expected each quantity once")
    problems = read_budgets(flags.budget, flags.confidence, flags.extrapolate)
    if len(problems) > 1:
        raise ValueError(f"--budget gives one quantity several values ({', '.join(flags.budget)}); expected one for each")
    return DesignProblem(read_one_space(options.space or "paper"), quantities[0], problems[0], minimize=tuple(quantities[1:]))


def prove_front(problem: DesignProblem, seconds: float | None, file: RowFile) -> Front:
    """The exact front, from the settled boxes in the file on; each further one is appended to it.

    Raises KeyboardInterrupt when the user stops it: what is settled is kept.
    """
    key = cell_key("box", problem)

    def of_box(row: Row) -> str | None:
        return json.dumps(row.get("limits")) if key is not None and row.get("key") == key else None

    with Resume(file, key_of=of_box, columns=_BOX_COLUMNS, unit="box") as resume:
        resume.note("exact front")
        known = [_box(row) for row in resume.rows]
        for box in known:
            if box.point is not None:
                _check_point(f"the stored box of limits {box.limits}", problem, box.point)

        def keep(box: Box) -> None:
            row = _box_row(key, box)
            resume.add(of_box(row), row)

        front = exact_front(problem, None, Limits(seconds=seconds), known, keep)
        if front.interrupted:
            raise KeyboardInterrupt
        return front


_BOX_COLUMNS = {"limits", "status", "bound", "design", "objective", "costs", "seconds"}
_NSGA2_COLUMNS = {"seed", "seconds", "evaluations", "trace", "points"}
"""What a row of each kind must have."""


def _check_point(where: str, problem: DesignProblem, stored: Point) -> None:
    """ValueError if a stored point has not the values that its design has."""
    if stored.architecture not in problem.space:
        raise ValueError(f"{where} has the design {stored.architecture}, which is not in the space; remove the row")
    true = point_of(problem, stored.architecture)
    check_number(f"{where} gives {problem.goal.name}", stored.objective, true.objective)
    for quantity, cost, real in zip(problem.minimize, stored.costs, true.costs, strict=True):
        check_number(f"{where} gives {quantity_text(quantity)}", cost, real)


def _box_row(key: str | None, box: Box) -> Row:
    """A settled box as JSON; null stands for no limit."""
    point = box.point
    return {
        "key": key,
        "kind": "box",
        "limits": [None if limit == math.inf else limit for limit in box.limits],
        "status": box.status.value,
        "objective": None if point is None else point.objective,
        "costs": None if point is None else list(point.costs),
        "bound": box.bound,
        "design": None if point is None else point.architecture.to_dict(),
        "seconds": box.seconds,
        "evaluations": box.evaluations,
    }


def _box(row: Row) -> Box:
    """The box that `_box_row` wrote; what it says is checked with the whole certificate."""
    try:
        design = row["design"]
        point = None if design is None else Point(Architecture.from_dict(design), row["objective"], tuple(row["costs"]))
        limits = tuple(math.inf if limit is None else float(limit) for limit in row["limits"])
        return Box(limits, Status(row["status"]), point, row["bound"], row["seconds"], row["evaluations"])
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"a box in rows.jsonl cannot be read ({error}); move the file, or choose another --output") from None


class Nsga2Runs:
    """The runs of NSGA-II that the command line asks for, one per seed, with the rows that the file holds of them."""

    def __init__(self, problem: DesignProblem, options: ParetoOptions, file: RowFile) -> None:
        self._problem, self._options = problem, options
        asked = (options.population, options.seconds, options.evaluations)
        self._keys = [cell_key("nsga2", problem, *asked, seed) for seed in range(options.seeds)]
        self._resume = Resume(file, self._keys, columns=_NSGA2_COLUMNS)

    def known(self) -> list[Row]:
        """The rows that are there, by seed; ValueError if a point of one does not hold."""
        return [row for key in self._keys if (row := self._resume.stored(key, self._check)) is not None]

    def all(self) -> list[Row]:
        """One row per seed. Raises KeyboardInterrupt when the user stops a run: that one is not kept, the ones before are."""
        with self._resume as resume:
            resume.note(f"NSGA-II, each at most {self._options.seconds:g} s")
            return [resume.row(key, partial(self._run, key, seed), self._check) for seed, key in enumerate(self._keys)]

    def _run(self, key: str | None, seed: int) -> Row:
        options = self._options
        limits = Limits(seconds=options.seconds, evaluations=options.evaluations, seed=seed)
        front = nsga2_front(self._problem, limits, options.population)
        if front.interrupted:
            raise KeyboardInterrupt
        return _nsga2_row(key, seed, options, front)

    def _check(self, row: Row) -> None:
        for point in row["points"]:
            stored = Point(Architecture.from_dict(point["design"]), point["objective"], tuple(point["costs"]))
            _check_point(f"the stored NSGA-II run of seed {row['seed']}", self._problem, stored)


def _nsga2_row(key: str | None, seed: int, options: ParetoOptions, front: Front) -> Row:
    return {
        "key": key,
        "kind": "nsga2",
        "seed": seed,
        "population": options.population,
        "seconds_limit": options.seconds,
        "evaluations_limit": options.evaluations,
        "seconds": front.seconds,
        "evaluations": front.evaluations,
        "message": front.message,
        "points": [_point_record(point) for point in front.points],
        "trace": [[found.seconds, found.evaluations, *found.values] for found in front.trace],
        "machine": provenance(seed)["machine"],
    }


def _point_record(point: Point) -> dict[str, Any]:
    return {"objective": point.objective, "costs": list(point.costs), "design": point.architecture.to_dict()}


def ratios_of(rows: Sequence[Row], seconds: float, front: Front, reference: tuple[float, ...]) -> list[dict[float, float]]:
    """Per NSGA-II run the hypervolume of what it had found after each checkpoint and at its end, as a share of the exact one.

    Empty for a front that is not complete: a share of what is known of it would say nothing about the run.
    """
    exact = hypervolume(front.values, reference)
    if not front.complete or exact <= 0:
        return [{} for _ in rows]
    times = sorted({*(time for time in CHECKPOINTS if time < seconds), seconds})
    ratios = []
    for row in rows:
        trace = np.array(row["trace"]).reshape(-1, 3 + len(reference))
        volumes = {time: hypervolume(trace[trace[:, 0] <= time, 2:], reference) for time in times}
        ratios.append({time: volume / exact for time, volume in volumes.items()})
    return ratios


def _short(value: float) -> str:
    return number_text(float(f"{value:.5g}"))


def published_table(baselines: Sequence[Baseline], front: Front) -> str:
    """The published designs against the front."""
    header = ["published design", front.problem.goal.name, *column_texts(front.problem.minimize), "front", "loss"]
    lines = [
        [one.name, f"{one.point.objective:,.1f}", *map(_short, one.point.costs), *_comparison(one)]
        for one in baselines
        if one.family == "published"
    ]
    table = text_table(header, lines, {0})
    if any("≥" in line[-1] or line[-1] == "not settled" for line in lines):
        table += "\n(the front is not complete at these costs yet: ≥ marks lower bounds of the loss)"
    return table


def _comparison(one: Baseline) -> tuple[str, str]:
    """The front's best at a baseline's costs, and the loss or why there is none."""
    if not one.within:
        return "", "over budget"
    best = "-" if one.best is None else f"{one.best:,.1f}"
    if not one.in_space:
        return best, "outside the space"
    if one.loss is None:
        return best, "-" if one.settled else "not settled"
    return best, f"{'' if one.settled else '≥ '}{100 * one.loss:.2f} %"


def ratio_table(rows: Sequence[Row], ratios: Sequence[dict[float, float]]) -> str:
    """Hypervolume of NSGA-II as a share of the exact front's, per seed and second; without shares if there are none."""
    times = list(ratios[0])
    lines = [
        [str(row["seed"]), *(f"{100 * own[time]:.3f} %" for time in times), f"{row['evaluations']:,}", f"{len(row['points']):,}"]
        for row, own in zip(rows, ratios, strict=True)
    ]
    return text_table(["NSGA-II seed", *(f"{time:g} s" for time in times), "evaluations", "points"], lines, set())


def certificate_text(front: Front, faults: Sequence[str]) -> str:
    """What is proved, in a sentence or two."""
    infeasible = sum(box.status is Status.INFEASIBLE for box in front.boxes)
    settled = len(front.boxes) - len(front.pending)
    kinds = f"{counted(settled - infeasible, 'optimum', 'optima')}, {infeasible:,} without any design"
    text = f"Certificate: {counted(settled, 'box', 'boxes')} settled with proof ({kinds}) in {front.seconds:.2g} s ({front.method})"
    if faults:
        return f"{text}; BUT IT DOES NOT HOLD: {'; '.join(faults[:3])}{' and more' if len(faults) > 3 else ''}."
    points = counted(len(front.points), "point", "points")
    if front.complete:
        return f"{text}; they cover all cost limits, so the front of {points} is complete."
    bounds = [box.bound for box in front.pending if box.bound is not None]
    most = f", in which no design exceeds {max(bounds):,.1f}" if len(bounds) == len(front.pending) else ""
    pending = counted(len(front.pending), "box is", "boxes are")
    return f"{text}; {pending} pending{most}: the front of {points} is NOT complete, and the same command goes on."


def _summary_of(
    front: Front,
    faults: Sequence[str],
    reference: tuple[float, ...],
    rows: Sequence[Row],
    ratios: Sequence[dict[float, float]],
    baselines: Sequence[Baseline],
) -> dict[str, Any]:
    """What front.json holds."""
    return {
        "problem": problem_to_dict(front.problem, quantity_to_dict),
        "objectives": {
            "maximize": front.problem.goal.name,
            "minimize": [quantity_text(cost) for cost in front.problem.minimize],
        },
        "reference": {"objective": 0, "costs": list(reference), "rule": "each cost's budget, else its largest value on the space"},
        "hypervolume": hypervolume(front.values, reference),
        "certificate": {
            "complete": front.complete and not faults,
            "method": front.method,
            "optimal": sum(box.status is Status.OPTIMAL for box in front.boxes),
            "infeasible": sum(box.status is Status.INFEASIBLE for box in front.boxes),
            "pending": [{"limits": _box_row("", box)["limits"], "bound": box.bound} for box in front.pending],
            "faults": list(faults),
            "seconds": front.seconds,
        },
        "points": len(front.points),
        "nsga2": [
            {
                "seed": row["seed"],
                "seconds": row["seconds"],
                "evaluations": row["evaluations"],
                "points": len(row["points"]),
                "hypervolume_ratio": {f"{time:g}": ratio for time, ratio in own.items()},
            }
            for row, own in zip(rows, ratios, strict=True)
        ],
        "baselines": [
            {
                "name": one.name,
                "family": one.family,
                **_point_record(one.point),
                "in_space": one.in_space,
                "within_budgets": one.within,
                "front_objective": one.best,
                "loss": one.loss,
                "settled": one.settled,
            }
            for one in baselines
        ],
        "provenance": provenance(0, _PACKAGES),
    }


def _write_results(
    folder: Path,
    title: str,
    front: Front,
    faults: Sequence[str],
    reference: tuple[float, ...],
    rows: Sequence[Row],
    ratios: Sequence[dict[float, float]],
    baselines: Sequence[Baseline],
) -> None:
    """Write front.json and front.jsonl and, where there is a point to draw, front.png, else remove an earlier one; says so."""
    write_json(folder / "front.json", _summary_of(front, faults, reference, rows, ratios, baselines))
    write_rows(folder / "front.jsonl", map(_point_record, front.points))
    written = ["rows.jsonl", "front.jsonl", "front.json"]
    if front.points:
        from studies.pareto.figures import draw_front

        save_figure(draw_front(front, title, rows, baselines, reference), folder / "front.png")
        written.append("front.png")
    else:
        (folder / "front.png").unlink(missing_ok=True)
    print(f"\nWritten to {folder}: {', '.join(written)}", flush=True)


def _study(title: str, problem: DesignProblem, options: ParetoOptions, folder: Path) -> int:
    """Prove the front, show and write it, then run NSGA-II; returns the exit code. KeyboardInterrupt where the user stops it."""
    file = RowFile(folder / "rows.jsonl")
    note_unknown([problem])
    reference = reference_costs(problem)
    front = prove_front(problem, options.exact_seconds, file)
    faults = check_certificate(front)
    baselines = baselines_of(front)
    print(f"\n{title}: {problem.goal.name} against {' and '.join(map(quantity_text, problem.minimize))}")
    if front.complete and not front.points and not faults:
        print(f"\nProved: no design meets the budgets; {_design_command(options)} says which conflict.")
        _write_results(folder, title, front, faults, reference, (), (), baselines)
        return ExitCode.INFEASIBLE
    if front.points:
        print(f"\n{front_table(front)}\n\n{published_table(baselines, front)}")
    print(f"\n{certificate_text(front, faults)}", flush=True)
    runs = Nsga2Runs(problem, options, file)
    rows = runs.known()
    if len(rows) < options.seeds:
        _write_results(folder, title, front, faults, reference, rows, ratios_of(rows, options.seconds, front, reference), baselines)
        rows = runs.all()
    ratios = ratios_of(rows, options.seconds, front, reference)
    if rows:
        print(f"\n{ratio_table(rows, ratios)}\n({_ratio_note(front, reference)})")
    _write_results(folder, title, front, faults, reference, rows, ratios, baselines)
    if faults:
        return ExitCode.BROKEN_PROMISE
    return ExitCode.DONE if front.complete else ExitCode.NO_ANSWER


def _design_command(options: ParetoOptions) -> str:
    """The command that explains why no design meets the budgets; it takes no problem of several objectives."""
    command = ["python", "-m", "studies.design"]
    if options.problem is not None:
        trust = ["--trust-code"] if options.trust_code else []
        return f'`{shlex.join([*command, options.problem, *trust])}`, once "minimize" is taken out of the file,'
    space = [] if options.space is None else ["--space", options.space]
    return f"`{shlex.join([*command, *space, *(part for budget in options.budgets.budget for part in ('--budget', budget))])}`"


def _ratio_note(front: Front, reference: tuple[float, ...]) -> str:
    if not front.complete:
        return "hypervolumes as shares of the exact front's follow when the front is complete"
    problem = front.problem
    at = ", ".join(f"{quantity_text(cost)} {number_text(most)}" for cost, most in zip(problem.minimize, reference, strict=True))
    return f"hypervolume as a share of the exact front's; reference point: {problem.goal.name} 0, {at}"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code, see --help."""
    options = read_options(ParetoOptions, command_line(), arguments)
    title, problem = front_problem(options)
    return _study(title, problem, options, output_folder(options.output))
