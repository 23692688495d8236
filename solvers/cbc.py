"""CBC through Pyomo with the binary of the PyPI package `cbcbox`: linear programs, composites by `solvers.linear_cells`.

Pyomo reports CBC's incumbent as its bound at a time limit, so what ended the search, and the bound, are read from CBC's log.
"""

from __future__ import annotations

import importlib
import math
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyomo.environ as pyo
from pyomo.common.errors import ApplicationError
from pyomo.common.tempfiles import TempfileManager

from formulation import DesignProblem
from formulation.processes import run_child, temporary_folder
from solvers.base import Answer, EngineMissing, Run
from solvers.linear_cells import LinearEnd, search_cells
from solvers.pyomo_model import quiet

_PRINTED = 2e-5
"""Relative amount added to a bound that the log prints with six digits."""


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
        # A crash of CBC (it happens, in its postprocessing) is met by a second attempt without preprocessing.
        silent = quiet("pyomo.common", "pyomo.solvers", "pyomo.core", "pyomo.opt")
        with silent, temporary_folder() as folder, _files_in(folder):
            log = folder / "cbc.log"

            def attempt(model: pyo.ConcreteModel, seconds: float | None, options: dict[str, object]) -> LinearEnd:
                solver = pyo.SolverFactory("cbc", executable=executable)
                solver._execute_command = _execute
                solver.options.update(options)
                if seconds is not None:
                    solver.options["seconds"] = seconds
                log.unlink(missing_ok=True)
                try:
                    results = solver.solve(model, load_solutions=False, logfile=str(log))
                except ApplicationError:
                    return LinearEnd(None, False, False)
                end = read_log(log.read_text(errors="replace") if log.exists() else "")
                if end.found and len(results.solution):
                    model.solutions.load_from(results)
                    return end
                return LinearEnd(end.bound, False, end.finished and not end.found)

            def engine(model: pyo.ConcreteModel, seconds: float | None) -> LinearEnd:
                # Its own tolerances stay: with tighter ones it has been seen to crash after preprocessing.
                end = attempt(model, seconds, {"ratioGap": 0, "allowableGap": 0})
                if not end.finished and not run.stopped:
                    end = attempt(model, run.seconds_left, {"ratioGap": 0, "allowableGap": 0, "preprocess": "off"})
                return end

            return search_cells(problem, run, engine)


@contextmanager
def _files_in(folder: Path) -> Iterator[None]:
    """Pyomo writes the programs and solutions of this thread to `folder`."""
    before, TempfileManager.tempdir = TempfileManager.tempdir, str(folder)
    try:
        yield
    finally:
        TempfileManager.tempdir = before


def _execute(command: Any) -> list[Any]:
    """What Pyomo does to run CBC, but so that it ends with this process, and without exchanging this process's descriptors."""
    ended = run_child(command.cmd, env=command.env, stderr=subprocess.STDOUT)
    return [ended.returncode, ended.stdout]


def read_log(text: str) -> LinearEnd:
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
        return LinearEnd(-math.inf, False, True)
    value, gap = number("Objective value"), number("Gap")
    optimal = re.search(r"^Result - Optimal solution found\s*(\(within gap tolerance\))?\s*$", text, re.MULTILINE)
    if optimal and value is not None and not (optimal.group(1) and gap is None):
        # The gap is printed with six digits of its own, and says more than the bound with six digits.
        within = 1.01 * abs(gap or 0.0) if optimal.group(1) else 0.0
        return LinearEnd(value + within * abs(value), True, True)
    bound = number("Upper bound")
    return LinearEnd(None if bound is None else bound + _PRINTED * abs(bound), value is not None, False)
