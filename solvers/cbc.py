"""CBC through Pyomo with the binary of the PyPI package `cbcbox`: linear programs, composites by `solvers.linear_cells`.

Pyomo reports CBC's incumbent as its bound at a time limit, so what ended the search, and the bound, are read from CBC's log.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyomo.environ as pyo

from formulation import DesignProblem
from solvers.base import Answer, EngineMissing, Run
from solvers.linear_cells import TOLERANCE, LinearEnd, search_cells

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
            raise EngineMissing("CBC is not installed; install it with: pip install 'merino[cbc]' (or: pip install cbcbox)") from None
        # That a program ended infeasible or at its limit is read from the log; Pyomo's warnings would only repeat it.
        logging.getLogger("pyomo.core").setLevel(logging.ERROR)
        logging.getLogger("pyomo.opt").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "cbc.log"

            def engine(model: pyo.ConcreteModel, seconds: float | None) -> LinearEnd:
                solver = pyo.SolverFactory("cbc", executable=executable)
                solver.options.update({"ratioGap": 0, "allowableGap": 0, "primalT": TOLERANCE, "integerT": TOLERANCE})
                if seconds is not None:
                    solver.options["seconds"] = seconds
                log.unlink(missing_ok=True)
                results = solver.solve(model, load_solutions=False, logfile=str(log))
                end = read_log(log.read_text(errors="replace") if log.exists() else "")
                if end.found and len(results.solution):
                    model.solutions.load_from(results)
                    return end
                return LinearEnd(end.bound, False, end.finished and not end.found)

            return search_cells(problem, run, engine)


def read_log(text: str) -> LinearEnd:
    """What CBC's log says of a maximization: why it ended and the bound; nothing is claimed that the log does not say."""

    def number(label: str) -> float | None:
        match = re.search(rf"^{label}:\s+(\S+)\s*$", text, re.MULTILINE)
        try:
            value = float(match.group(1)) if match else math.nan
        except ValueError:
            value = math.nan
        return value if math.isfinite(value) and abs(value) < 1e30 else None

    if re.search(r"^(Result - Problem proven infeasible|Problem is infeasible\b)", text, re.MULTILINE):
        return LinearEnd(-math.inf, False, True)
    value = number("Objective value")
    if re.search(r"^Result - Optimal solution found\s*$", text, re.MULTILINE) and value is not None:
        return LinearEnd(value, True, True)
    bound = number("Upper bound")
    return LinearEnd(None if bound is None else bound + _PRINTED * abs(bound), value is not None, False)
