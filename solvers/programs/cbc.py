"""CBC by the binary of the PyPI package `cbcbox`: linear programs as LP files, composites by `solvers.programs.linear_cells`.

What ended a search, and the bound, are read from CBC's log.
"""

from __future__ import annotations

import importlib
import math
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formulation import DesignProblem
from formulation.command.processes import run_child, temporary_folder
from solvers.base import Answer, EngineMissing, Run
from solvers.programs.linear_cells import LinearEnd, search_cells
from solvers.programs.linear_form import LinearProgram

_PRINTED = 2e-5
"""Relative amount added to a bound that the log prints with six digits."""
_GRACE_S = 0.8
"""Seconds after its time limit, or after Ctrl-C, until CBC is stopped: its preprocessing polls no clock."""


@dataclass(frozen=True)
class Cbc:
    """The COIN-OR branch-and-cut solver on the choice form (Forrest & Lougee-Heimer 2005)."""

    name = "CBC"
    distributions = ("pyomo", "cbcbox")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it or its log cannot be read."""
        try:
            executable = importlib.import_module("cbcbox").cbc_bin_path()
        except ImportError:
            raise EngineMissing("CBC is not installed; install it with: pip install cbcbox") from None
        with temporary_folder() as folder:

            def engine(program: LinearProgram, seconds: float | None, careful: bool) -> LinearEnd:
                # Its own tolerances stay: with tighter ones it has been seen to crash after preprocessing.
                plain, bare = ("-preprocess", "off"), ("-preprocess", "off", "-presolve", "off")
                end = _solve(executable, folder, program, seconds, bare if careful else (), run)
                if not end.finished and not run.stopped:
                    # A crash of CBC (it happens, in its postprocessing) is met by a second attempt without preprocessing.
                    end = _solve(executable, folder, program, run.seconds_left, plain, run)
                return end

            return search_cells(problem, run, engine)


def _solve(
    executable: str, folder: Path, program: LinearProgram, seconds: float | None, options: tuple[str, ...], run: Run
) -> LinearEnd:
    """Run CBC on a program; see `LinearEngine`."""
    file, solution = folder / "program.lp", folder / "program.sol"
    file.write_text("\n".join(lp_text(program)))
    solution.unlink(missing_ok=True)
    limit = () if seconds is None else ("-timeMode", "elapsed", "-seconds", f"{seconds:.3f}")
    command = [executable, *limit, "-ratioGap", "0", "-allowableGap", "0", *options]
    command += ["-import", str(file), "-solve", "-solution", str(solution)]
    asked = False

    def watch(process: subprocess.Popen[Any]) -> None:
        nonlocal asked
        late = run.limits.seconds is not None and run.seconds > run.limits.seconds + _GRACE_S
        if late or asked:
            process.kill()
        elif run.interrupted:
            process.send_signal(signal.SIGINT)
            asked = True

    log = run_child(command, watch, stderr=subprocess.STDOUT).stdout
    end = read_log(log)
    if end.found and solution.exists() and (point := read_solution(solution.read_text(), len(program.objective))) is not None:
        return LinearEnd(end.bound, point, end.finished)
    return LinearEnd(end.bound, None, end.finished and not end.found)


def lp_text(program: LinearProgram) -> Iterator[str]:
    """The lines of a program in the LP format that CBC reads; column 3 is called c3."""

    def terms(columns: np.ndarray, coefficients: np.ndarray) -> Iterator[str]:
        for column, coefficient in zip(columns.tolist(), coefficients.tolist(), strict=True):
            yield f"{coefficient:+.17g} c{column}"

    yield "Maximize"
    yield "obj:"
    used = np.flatnonzero(program.objective)
    yield from terms(used, program.objective[used]) if len(used) else ("0 c0",)
    yield "Subject To"
    for number, row in enumerate(program.rows):
        ends = ((row.low, "="),) if row.low == row.high else ((row.low, ">="), (row.high, "<="))
        for side, (end, sign) in enumerate(ends):
            if math.isfinite(end):
                yield f"r{number}_{side}:"
                yield from terms(row.columns, row.coefficients)
                yield f"{sign} {end:.17g}"
    yield "Bounds"
    for column, upper in enumerate(program.upper.tolist()):
        yield f"0 <= c{column} <= {upper:g}"
    yield "Generals"
    yield from (f"c{column}" for column in range(program.binaries))
    yield "End"


def read_solution(text: str, columns: int) -> np.ndarray | None:
    """The point (columns,) in CBC's solution file, which lists what is not 0; None if there isn't one."""
    lines = [line.replace("**", " ").split() for line in text.splitlines()[1:]]
    point = np.zeros(columns)
    for _, name, value, *_ in (line for line in lines if len(line) >= 3 and line[1].startswith("c")):
        point[int(name[1:])] = float(value)
    return point if lines else None


@dataclass(frozen=True)
class Log:
    """What CBC's log says: a bound as in `LinearEnd`, whether it found a point and whether it finished."""

    bound: float | None
    found: bool
    finished: bool


def read_log(text: str) -> Log:
    """What CBC's log says of a maximization: why it ended and the bound; nothing is claimed that the log does not say."""

    def number(label: str) -> float | None:
        match = re.search(rf"^{label}:\s+(\S+)\s*$", text, re.MULTILINE)
        try:
            value = float(match.group(1)) if match else math.nan
        except ValueError:
            value = math.nan
        return value if math.isfinite(value) and abs(value) < 1e30 else None

    infeasible = r"^(Result - Problem proven infeasible|Problem is infeasible\b|Bound tightening: infeasibility proved\b)"
    if re.search(infeasible, text, re.MULTILINE):
        return Log(-math.inf, False, True)
    value, gap = number("Objective value"), number("Gap")
    optimal = re.search(r"^Result - Optimal solution found\s*(\(within gap tolerance\))?\s*$", text, re.MULTILINE)
    if optimal and value is not None and not (optimal.group(1) and gap is None):
        # The gap is printed with six digits of its own, and says more than the bound with six digits.
        within = 1.01 * abs(gap or 0.0) if optimal.group(1) else 0.0
        return Log(value + within * abs(value), True, True)
    bound = number("Upper bound")
    return Log(None if bound is None else bound + _PRINTED * abs(bound), value is not None, False)
