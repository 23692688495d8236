"""OR-tools CP-SAT: the choice form in whole numbers, solved without tolerances; composites by `solvers.programs.linear_cells`.

Every row is rounded to whole coefficients and loosened by what the rounding can amount to, so that the integer program is a
relaxation and its optimum a bound. Rows that are whole already, as those of parameters and FLOPs, are kept as they are.

The engine runs in its own process: the wheels of ortools and highspy each bring a library libhighs.so.1, of different
versions, and a process that has loaded one of them cannot load the other (google/or-tools#5246): `cp_sat_process.py`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from formulation import DesignProblem
from formulation.command.processes import child_process
from solvers.base import Answer, EngineMissing, Run
from solvers.programs.linear_cells import LinearEnd, search_cells
from solvers.programs.linear_form import LinearProgram

_PROCESS = Path(__file__).with_name("cp_sat_process.py")
_BITS = 30
"""Coefficients stay below 2³⁰: a relative error near 10⁻⁹ a term, and sums far from the 64 bits of CP-SAT."""


@dataclass(frozen=True)
class CpSat:
    """The CP-SAT solver of Google's OR-tools on the choice form (Perron, Didier & Gay 2023), in one thread."""

    name = "CP-SAT"
    distributions = ("pyomo", "ortools")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it."""
        if importlib.util.find_spec("ortools") is None:
            raise EngineMissing("CP-SAT is not installed; install it with: pip install ortools")
        # By its path and not as a module of this package, whose import would load highspy.
        command = [sys.executable, "-P", str(_PROCESS)]
        with child_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            requests, replies = process.stdin, process.stdout
            assert requests is not None
            assert replies is not None
            try:
                return search_cells(
                    problem, run, lambda program, seconds, careful: _solve(requests, replies, program, seconds, careful, run)
                )
            finally:
                process.kill()
                with suppress(BrokenPipeError):  # at a request that it did not live to read
                    requests.close()


def _solve(requests: IO[str], replies: IO[str], linear: LinearProgram, seconds: float | None, careful: bool, run: Run) -> LinearEnd:
    """Have the process solve a program; see `LinearEngine`. It never has a presolve; the careful way branches differently."""
    program = integer_program(linear)
    request = {
        "upper": linear.upper.astype(int).tolist(),
        "rows": program.rows,
        "objective": program.objective.whole.tolist(),
        "seconds": seconds,
        "seed": (run.limits.seed + careful) % 2**31,
        "careful": careful,
    }

    def send(line: str) -> None:
        requests.write(line + "\n")
        requests.flush()

    try:
        send(json.dumps(request))
        run.on_interrupt = lambda: send("stop")
        if run.interrupted:
            send("stop")
        reply = replies.readline()
    except BrokenPipeError:
        reply = ""
    finally:
        run.on_interrupt = None
    if not reply:
        return LinearEnd(None, None, False)  # it has died; its last words are on the standard error
    answer = json.loads(reply)
    if answer["status"] == "INFEASIBLE":
        return LinearEnd(-math.inf, None, True)
    if answer["status"] not in ("OPTIMAL", "FEASIBLE"):
        return LinearEnd(None, None, False)
    return LinearEnd(program.bound(answer["bound"]), np.array(answer["values"], dtype=float), answer["status"] == "OPTIMAL")


@dataclass(frozen=True, eq=False)
class WholeRow:
    """An expression a·z over binaries z in whole numbers: at every design

    | 2^exponent · a·z − whole·z | ≤ slack
    """

    whole: np.ndarray
    exponent: int
    slack: float


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """maximize objective.whole·z subject to rows over binaries z: it relaxes the linear program.

    Attributes:
        rows: (columns, coefficients, low, high): low ≤ coefficients·z[columns] ≤ high.
    """

    rows: list[tuple[list[int], list[int], int, int]]
    objective: WholeRow

    def bound(self, value: float) -> float:
        """The bound on the linear program's objective that a bound on the integer objective stands for."""
        return math.ldexp(value + self.objective.slack, -self.objective.exponent)


def integer_program(program: LinearProgram) -> IntegerProgram:
    """Relax a linear program whose continuous columns are flows: these are 0 or 1 wherever the choices are, so may be binary."""
    # At a design one item a block counts, and one flow between two: no more than the first rows, one per block, say twice.
    blocks = sum(1 for row in program.rows if row.low == row.high == 1)
    rows = []
    for row in program.rows:
        own = whole_row(row.coefficients, 2 * blocks)
        # No design comes near the reach: bounds beyond it say nothing, or that there is no design.
        reach = float((2 * blocks + 1) * np.abs(row.coefficients).max(initial=0.0))
        low, high = (math.ldexp(min(max(end, -reach), reach), own.exponent) for end in (row.low, row.high))
        rows.append(
            (row.columns.tolist() or [0], own.whole.tolist() or [0], math.ceil(low - own.slack), math.floor(high + own.slack))
        )
    return IntegerProgram(rows, whole_row(program.objective, 2 * blocks))


def whole_row(coefficients: np.ndarray, terms: int) -> WholeRow:
    """An expression of which `terms` entries count at a design in whole numbers: as it is, or times a power of two and rounded."""
    size = float(np.abs(coefficients).max(initial=0.0))
    is_whole = size < 2**_BITS and bool(np.all(coefficients == np.rint(coefficients)))
    exponent = 0 if is_whole else _BITS - math.frexp(size)[1]
    scaled = np.ldexp(coefficients, exponent)  # exact, being a power of two
    whole = np.rint(scaled)
    return WholeRow(whole.astype(np.int64), exponent, terms * float(np.abs(scaled - whole).max(initial=0.0)))
