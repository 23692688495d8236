"""Whole exact fronts, method by method: at once, and by one solve a point; every complete front compared with the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from formulation import Budget, DesignProblem, EffectiveEntropy, Quantity, SearchSpace
from formulation.command.processes import temporary_folder
from formulation.command.words import counted, text_table
from formulation.fingerprint import cell_key
from formulation.problem_file import SPACES
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from formulation.records.rows import Resume, Row, RowFile
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Front, Limits, Solver, check_certificate, exact_front
from studies.exact_methods.apart import FAILED, Meter, run_apart
from studies.exact_methods.instances import LAYER_BUDGETS, additive_problem, layer_costs
from studies.exact_methods.knapsack_files import PUBLISHED_POINTS, knapsack_files, read_knapsack, read_points
from studies.stored import check_number

FRONT_METHODS: dict[str, Solver | None] = {"at-once": None, "point-by-point": DynamicProgramming()}
"""How a front is found -> the solver that `exact_front` is given for it; None leaves the choice of a method to it."""
FRONT_COLUMNS = {"front", "repeat", "method", "status", "message", "seconds_limit"}
"""What a row read from disk must have to stand for a finished run."""
_COMPLETE, _INCOMPLETE = "complete", "incomplete"
_SAME = 1e-9
"""Relative difference up to which values of two fronts are the same."""


def _entropy_against(space: str, *costs: Quantity) -> DesignProblem:
    return DesignProblem(SPACES[space](), EffectiveEntropy(), minimize=costs)


def _layers_front(within: bool) -> DesignProblem:
    """Effective entropy against decode latency of SmolLM2-135M's layers, or the same within its own parameters and cache."""
    params, _, cache, decode = layer_costs()
    most_params, _, most_cache = LAYER_BUDGETS
    budgets = (Budget(params, float(most_params)), Budget(cache, float(most_cache))) if within else ()
    return DesignProblem(SPACES["smollm2-135m-layers"](), EffectiveEntropy(), budgets, minimize=(decode,))


FRONTS: dict[str, Callable[[], DesignProblem]] = {
    "paper-flops": partial(_entropy_against, "paper", Flops()),
    "paper-params": partial(_entropy_against, "paper", Params()),
    "paper-both": partial(_entropy_against, "paper", Flops(), Params()),
    "fine-flops": partial(_entropy_against, "fine", Flops()),
    "layers-decode": partial(_layers_front, False),
    "layers-decode-within": partial(_layers_front, True),
}
"""Fronts by name: effective entropy against costs; the last within SmolLM2-135M's own parameters and cache."""


def fronts_of(folder: str | None) -> dict[str, Callable[[], DesignProblem]]:
    """All fronts by name: `FRONTS`, and those of the knapsack files in a folder."""
    files = {} if folder is None else knapsack_files(Path(folder))
    return FRONTS | {name: partial(_knapsack_problem, path) for name, path in files.items()}


def _knapsack_problem(path: Path) -> DesignProblem:
    return read_knapsack(path).problem()


@dataclass(frozen=True)
class FrontTrial:
    """A run in names, which two processes read alike.

    Attributes:
        front: one of `fronts_of(moco)`.
        repeat: its number.
        method: one of `FRONT_METHODS`.
        seconds: its time limit.
        moco: the folder of knapsack files, None for none.
    """

    front: str
    repeat: int
    method: str
    seconds: float
    moco: str | None

    @cached_property
    def problem(self) -> DesignProblem:
        """Whose front it is."""
        return fronts_of(self.moco)[self.front]()

    @cached_property
    def key(self) -> str | None:
        """What identifies its row on disk."""
        return cell_key(
            "exact fronts", self.front, self.problem, self.method, FRONT_METHODS[self.method], self.repeat, self.seconds
        )


def front_and_measure(trial: FrontTrial, certificate: Path) -> Row:
    """What a process keeps of its run."""
    problem, solver = trial.problem, FRONT_METHODS[trial.method]
    _warm_up(problem, solver)
    with Meter() as meter:
        front = exact_front(problem, solver, Limits(seconds=trial.seconds))
    with Meter() as checking:
        faults = check_certificate(front)
    return {
        "status": _COMPLETE if front.complete else _INCOMPLETE,
        "points": len(front.points),
        "boxes": len(front.boxes),
        "pending": len(front.pending),
        "seconds": front.seconds,
        "cpu_seconds": meter.cpu_seconds,
        "memory_bytes": meter.memory_bytes,
        "check_seconds": checking.seconds,
        "faults": list(faults),
        "evaluations": front.evaluations,
        "values": front.values.tolist(),
        "items": _items(problem, front),
        "message": front.message,
    }


def _warm_up(problem: DesignProblem, solver: Solver | None) -> None:
    """A tiny front of the same kind, which imports whatever is imported."""
    if isinstance(problem.space, SearchSpace):
        tiny = DesignProblem(SearchSpace.uniform(2, (256, 512), (1,), (1, 2)), EffectiveEntropy(), minimize=(Flops(),))
    else:
        given = additive_problem(np.array([[2.0, 1.0]] * 2), np.array([[[2.0, 1.0]] * 2] * 2), [3.0, 4.0])
        limited, minimized = given.subject_to
        tiny = DesignProblem(given.space, given.maximize, (limited,), minimize=(minimized.quantity,))
    exact_front(tiny, solver, Limits(seconds=10))


def _items(problem: DesignProblem, front: Front) -> list[list[int]]:
    return [[int(item) for item in problem.space.encode(point.architecture)] for point in front.points]


def _measure(trial: FrontTrial) -> Row:
    with temporary_folder() as folder:
        row = run_apart("front", asdict(trial), folder / "certificate.json", trial.seconds)
    source = provenance(0)
    return {
        "key": trial.key,
        "front": trial.front,
        "repeat": trial.repeat,
        "method": trial.method,
        "seconds_limit": trial.seconds,
        **row,
        **{name: source[name] for name in ("versions", "command", "machine")},
    }


def _check_row(trial: FrontTrial, row: Row) -> None:
    """Re-evaluate the designs of a stored front; ValueError if their values do not hold."""
    where = f"the stored front {trial.front}, {trial.method}"
    problem = trial.problem
    for items, (objective, *costs) in zip(row.get("items", ()), row.get("values", ()), strict=True):
        design = problem.space.decode(items)
        check_number(f"{where} gives {problem.goal.name}", objective, problem.objective(design))
        for quantity, cost in zip(problem.minimize, costs, strict=True):
            check_number(f"{where} gives {quantity.name}", cost, quantity(design))


def run_fronts(names: Sequence[str] | None, seconds: float, repeats: int, moco: str | None, file: RowFile) -> list[Row]:
    """The rows of all fronts, run where the file does not hold them; a method that did not finish one is not asked again.

    Raises KeyboardInterrupt when the user stops a run: it is not kept, the ones before are.
    """
    fronts = fronts_of(moco)
    for name in names or ():
        chosen("front", name, fronts)
    groups = [
        [FrontTrial(name, repeat, method, seconds, moco) for repeat in range(repeats)]
        for name in (fronts if names is None else dict.fromkeys(names))
        for method in FRONT_METHODS
    ]
    rows = []
    with Resume(file, [trial.key for group in groups for trial in group], columns=FRONT_COLUMNS, unit="front") as resume:
        for group in groups:
            for trial in group:
                resume.note(f"{trial.front}: {trial.method}")
                row = resume.row(trial.key, partial(_measure, trial), partial(_check_row, trial))
                rows.append(row)
                if row["status"] != _COMPLETE:
                    break
            resume.skip(trial.key for trial in group)
    return rows


def fronts_summary(rows: Sequence[Row], seconds: float, moco: str | None) -> dict[str, Any]:
    """The numbers of all fronts, ready for JSON."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["front"], row["method"]), []).append(row)
    return {
        "provenance": provenance(0, ("numpy", "scipy", "moocore", "highspy")),
        "seconds_limit": seconds,
        "fronts": [_front_record(*name, own) for name, own in groups.items()],
        "faults": list(_faults(rows, moco)),
    }


def _front_record(front: str, method: str, rows: Sequence[Row]) -> dict[str, Any]:
    def middle(key: str) -> float | None:
        known = [row[key] for row in rows if row.get(key) is not None]
        return median(known) if known else None

    last = rows[-1]
    return {
        "front": front,
        "method": method,
        "runs": len(rows),
        "status": last["status"],
        "points": last.get("points"),
        "published": PUBLISHED_POINTS.get(front),
        "pending": last.get("pending"),
        **{key: middle(key) for key in ("seconds", "cpu_seconds", "memory_bytes", "check_seconds")},
        "message": last["message"],
    }


def _faults(rows: Sequence[Row], moco: str | None) -> Iterator[str]:
    """Sentences on certificates that do not hold, and on complete fronts that are not the other's or the published one.

    Of an incomplete front every point has to be on the complete one, or dominated by it.
    """
    first: dict[str, Row] = {}
    for row in rows:
        if row["status"] == _COMPLETE:
            first.setdefault(row["front"], row)
    for row in rows:
        named = f"{row['front']}, {row['method']}"
        yield from (f"{named}: {fault}" for fault in row.get("faults", ()))
        other = first.get(row["front"])
        if row["status"] == _INCOMPLETE and other is not None and (missing := _beyond(row["values"], other["values"])):
            yield f"{named}: {counted(missing, 'point')} that the complete front of {other['method']} lacks"
        if row["status"] != _COMPLETE or other is None:
            continue
        if not _same_points(np.array(row["values"]), np.array(other["values"])):
            yield f"{named}: {row['points']} points, which are not the {other['points']} of {other['method']}"
        published = PUBLISHED_POINTS.get(row["front"])
        if published is not None and row["points"] != published:
            yield f"{named}: {row['points']} points; published are {published}"
        if moco is not None and (path := knapsack_files(Path(moco)).get(row["front"])) is not None:
            points = read_points(path)
            if points is not None and not _same_points(points, read_knapsack(path).profits_of(np.array(row["values"]))):
                yield f"{named}: the points are not those of the published front"


def _beyond(some: Sequence[Sequence[float]], front: Sequence[Sequence[float]]) -> int:
    """How many points (objective, cost_1, …) no point of a front equals or dominates."""
    better = np.array(front) * np.array([1.0] + [-1.0] * (len(front[0]) - 1))
    missing = 0
    for point in some:
        signed = np.array(point) * np.array([1.0] + [-1.0] * (len(point) - 1))
        missing += not (better >= signed - _SAME * np.abs(signed)).all(axis=1).any()
    return missing


def _same_points(some: np.ndarray, others: np.ndarray) -> bool:
    """Whether two arrays (points, objectives) hold the same points in whatever order."""
    if some.shape != others.shape:
        return False
    some, others = (points[np.lexsort(np.round(points, 6).T)] for points in (some, others))
    return bool(np.allclose(some, others, rtol=_SAME, atol=0.0))


def fronts_text(summary: dict[str, Any]) -> str:
    """The fronts for people."""
    header = ["front", "method", "points", "published", "", "seconds", "CPU s", "MiB", "check s"]
    lines = [
        [
            each["front"],
            each["method"],
            _text(each["points"], "d"),
            _text(each["published"], "d"),
            each["status"],
            _text(each["seconds"]),
            _text(each["cpu_seconds"]),
            "" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 2**20:.0f}",
            _text(each["check_seconds"]),
        ]
        for each in summary["fronts"]
    ]
    parts = [f"Whole fronts, medians, limit {summary['seconds_limit']:g} s\n{text_table(header, lines, {0, 1, 4})}"]
    left = [each for each in summary["fronts"] if each["status"] == _INCOMPLETE]
    if left:
        parts.append("\n".join(f"{each['front']}, {each['method']}: {_left_text(each)}" for each in left))
    failed = [f"{each['front']}, {each['method']}: {each['message']}" for each in summary["fronts"] if each["status"] == FAILED]
    parts += ["\n".join(failed)] if failed else []
    if summary["faults"]:
        parts.append("\n".join(["THE FRONTS DO NOT HOLD", *summary["faults"]]))
    return "\n\n".join(parts)


def _text(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else f"{value:{form}}"


def _left_text(each: dict[str, Any]) -> str:
    return f"{counted(each['pending'], 'box is', 'boxes are')} not settled ({each['message']})"
