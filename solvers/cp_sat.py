"""OR-tools CP-SAT: the choice form in whole numbers, solved without tolerances; composites by `solvers.linear_cells`.

Every row is rounded to whole coefficients and loosened by what the rounding can amount to, so that the integer program is a
relaxation and its optimum a bound. Rows that are whole already, as those of parameters and FLOPs, are kept as they are.

The engine runs in a process of its own: the wheels of ortools and highspy each bring a library libhighs.so.1, of different
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
from typing import IO, Any

import numpy as np
import pyomo.environ as pyo
from pyomo.repn import generate_standard_repn

from formulation import DesignProblem
from formulation.processes import child_process
from solvers.base import Answer, EngineMissing, Run
from solvers.linear_cells import LinearEnd, search_cells

_PROCESS = Path(__file__).with_name("cp_sat_process.py")
_BITS = 30
"""Coefficients stay below 2³⁰: a relative error near 10⁻⁹ a term, and sums far from the 64 bits of CP-SAT."""
_FLOAT_ERROR = 2.0**-48
"""Relative error of a coefficient that Pyomo and the substitution of parts put together in a few floating-point operations."""


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
                return search_cells(problem, run, lambda model, seconds: _solve(requests, replies, model, seconds, run))
            finally:
                process.kill()
                with suppress(BrokenPipeError):  # at a request that it did not live to read
                    requests.close()


def _solve(requests: IO[str], replies: IO[str], model: pyo.ConcreteModel, seconds: float | None, run: Run) -> LinearEnd:
    """Have the process solve the model's present program; see `LinearEngine`."""
    program = integer_program(model)
    request = {
        "binaries": program.binaries,
        "rows": program.rows,
        "objective": program.objective.whole.tolist(),
        "seconds": seconds,
        "seed": run.limits.seed % 2**31,
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
        return LinearEnd(None, False, False)  # it has died; its last words are on the standard error
    answer = json.loads(reply)
    if answer["status"] == "INFEASIBLE":
        return LinearEnd(-math.inf, False, True)
    if answer["status"] not in ("OPTIMAL", "FEASIBLE"):
        return LinearEnd(None, False, False)
    for variable, value in zip(model.x.values(), answer["values"], strict=False):
        variable.set_value(value)
    return LinearEnd(program.bound(answer["bound"]), True, answer["status"] == "OPTIMAL")


@dataclass(frozen=True, eq=False)
class WholeRow:
    """An expression a·z + c over binaries z in whole numbers: at every design

      | 2^exponent · (a·z + c) − (whole·z + constant) | ≤ slack

    size  no entry of a, nor c, is larger in magnitude
    """

    whole: np.ndarray
    constant: int
    exponent: int
    slack: float
    size: float


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """maximize objective.whole·z subject to rows over binaries z, those of `x` and then of `flow`: it relaxes the choice form.

    rows  (columns, coefficients, low, high): low ≤ coefficients·z[columns] ≤ high
    """

    binaries: int
    rows: list[tuple[list[int], list[int], int, int]]
    objective: WholeRow

    def bound(self, value: float) -> float:
        """The bound on the choice form's objective that a bound on the integer objective stands for."""
        row = self.objective
        return math.ldexp(value + row.constant + row.slack, -row.exponent)


def integer_program(model: pyo.ConcreteModel) -> IntegerProgram:
    """Relax the choice form that `linear_program` has written, with the box, cutoff and objective that it holds at present.

    The flow is 0 or 1 wherever the choices are, so it may be binary. The parts, continuous in general, are replaced by their
    definitions.
    """
    reader = _Reader(model)
    rows = []
    bounded = [
        (constraint.body, constraint.lb, constraint.ub)
        for constraint in model.component_data_objects(pyo.Constraint, active=True)
        if constraint.parent_component() is not model.component("part_is")
    ]
    bounded += [(part, part.lb, part.ub) for part in reader.parts]
    for expression, lower, upper in bounded:
        row = reader.row(expression)
        # No design comes near the reach: bounds beyond it say nothing, or that there is no design.
        reach = (reader.terms + 1) * row.size
        low, high = np.clip((-np.inf if lower is None else lower, np.inf if upper is None else upper), -reach, reach)
        columns = np.flatnonzero(row.whole).tolist() or [0]
        rows.append(
            (
                columns,
                row.whole[columns].tolist(),
                math.ceil(math.ldexp(low, row.exponent) - row.constant - row.slack),
                math.floor(math.ldexp(high, row.exponent) - row.constant + row.slack),
            )
        )
    return IntegerProgram(len(reader.binaries), rows, reader.row(model.objective.expr))


class _Reader:
    """Reads linear expressions of the choice form as rows over its binaries.

    terms  how many terms of a row can count at a design: one item a block, one flow between two, and the constant
    """

    def __init__(self, model: pyo.ConcreteModel) -> None:
        self.binaries = [*model.x.values(), *model.flow.values()]
        self.terms = 2 * len(model.one_item)
        self.parts = [] if model.component("part") is None else list(model.part.values())
        self._column = {id(variable): column for column, variable in enumerate(self.binaries)}
        self._definition: dict[int, np.ndarray] = {}
        for p, part in enumerate(self.parts):
            # The body of its definition is part − Σ terms.
            self._definition[id(part)] = self._read(part - model.part_is[p].body)[0]

    def _read(self, expression: Any) -> tuple[np.ndarray, float]:
        """Coefficients and, last, the constant; and the largest magnitude among them before anything cancels out."""
        linear = generate_standard_repn(expression)
        assert linear.is_linear()
        row = np.zeros(len(self.binaries) + 1)
        row[-1] = linear.constant
        size = np.abs(row)
        for variable, coefficient in zip(linear.linear_vars, linear.linear_coefs, strict=True):
            if (column := self._column.get(id(variable))) is not None:
                row[column] += coefficient
                size[column] += abs(coefficient)
            else:
                row += coefficient * self._definition[id(variable)]
                size += np.abs(coefficient * self._definition[id(variable)])
        return row, float(size.max())

    def row(self, expression: Any) -> WholeRow:
        """An expression in whole numbers: as it is where it has no others, else times a power of two and rounded."""
        row, size = self._read(expression)
        is_whole = size < 2**_BITS and np.abs(row - np.rint(row)).max() <= _FLOAT_ERROR * size
        exponent = 0 if is_whole else _BITS - math.frexp(size)[1]
        scaled = np.ldexp(row, exponent)  # exact, being a power of two
        whole = np.rint(scaled)
        slack = self.terms * (np.abs(scaled - whole).max() + math.ldexp(_FLOAT_ERROR * size, exponent))
        return WholeRow(whole[:-1].astype(np.int64), int(whole[-1]), exponent, float(slack), size)
