"""HiGHS: mixed-integer linear programs, handed to its own Python interface; composites by `solvers.programs.linear_cells`.

Every program is its own instance, so searches may run in several threads at once.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import DesignProblem
from solvers.base import Answer, EngineMissing, Run
from solvers.programs.linear_cells import LinearEnd, search_cells
from solvers.programs.linear_form import LinearProgram

_TOLERANCE = 1e-7
"""Feasibility and integrality tolerance asked of the engine. With 1e-9 HiGHS was seen to call a feasible program infeasible."""


@dataclass(frozen=True)
class Highs:
    """The HiGHS branch-and-cut solver on the choice form (Huangfu & Hall 2018), in one thread.

    Its presolve was seen to call feasible programs infeasible, so what it closes is solved again without presolve.
    """

    name = "HiGHS"
    distributions = ("pyomo", "highspy")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it."""
        if importlib.util.find_spec("highspy") is None:
            raise EngineMissing("HiGHS is not installed; install it with: pip install highspy")
        return search_cells(problem, run, lambda program, seconds, careful: solve_program(program, seconds, careful, run))


def solve_program(program: LinearProgram, seconds: float | None, careful: bool, run: Run) -> LinearEnd:
    """See `LinearEngine`."""
    import highspy

    highs = highspy.Highs()
    options = {
        "output_flag": False,
        "threads": 1,
        "random_seed": run.limits.seed % 2**31,
        "presolve": "off" if careful else "on",
        "time_limit": math.inf if seconds is None else seconds,
        "mip_rel_gap": 0.0,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": _TOLERANCE,
        "primal_feasibility_tolerance": _TOLERANCE,
    }
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(_model(program, highspy))

    def poll(event: Any) -> None:
        if run.stopped:
            event.interrupt()

    # Called from within the solve, where Python hears Ctrl-C.
    highs.cbMipInterrupt += poll
    highs.cbSimplexInterrupt += poll
    highs.run()
    status, info = highs.getModelStatus(), highs.getInfo()
    ended = highspy.HighsModelStatus
    if status in (ended.kInfeasible, ended.kUnboundedOrInfeasible):
        return LinearEnd(-math.inf, None, True)
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    point = np.array(highs.getSolution().col_value) if found else None
    bound = info.mip_dual_bound
    return LinearEnd(bound if math.isfinite(bound) else None, point, status == ended.kOptimal)


def _model(program: LinearProgram, highspy: Any) -> Any:
    """The program as HiGHS's own record."""
    lp = highspy.HighsLp()
    columns = len(program.objective)
    lp.num_col_, lp.num_row_ = columns, len(program.rows)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = program.objective, np.zeros(columns), program.upper
    kinds = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    lp.integrality_ = [kinds[column >= program.binaries] for column in range(columns)]
    lp.row_lower_ = np.array([row.low for row in program.rows])
    lp.row_upper_ = np.array([row.high for row in program.rows])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum([len(row.columns) for row in program.rows]))).astype(np.int32)
    lp.a_matrix_.index_ = np.concatenate([row.columns for row in program.rows]).astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate([row.coefficients for row in program.rows])
    return lp
