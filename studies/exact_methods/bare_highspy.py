"""The reference for additive problems: HiGHS alone on the multiple-choice program, with nothing of ours around it."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from formulation import DesignProblem, NotSeparable
from solvers import EngineMissing
from solvers.base import Answer, Run
from solvers.exact.multiple_choice import MultipleChoice, read_multiple_choice

NAME = "bare highspy"


@dataclass(frozen=True)
class BareHighspy:
    """HiGHS with its own defaults on the multiple-choice program straight from arrays, in one thread, to a gap of 0.

    Reading the arrays takes none of its time: a user who has them would call highspy just so. Its bound is HiGHS's word, without
    what tolerances can hide, so it is a clock, not a witness.
    """

    name = NAME
    distributions = ("highspy",)

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. NotSeparable for anything but a multiple-choice knapsack problem."""
        if importlib.util.find_spec("highspy") is None:
            raise EngineMissing("HiGHS is not installed; install it with: pip install highspy")
        with run.loading():
            import highspy

            arrays = arrays_of(problem)
        highs = _program(arrays, highspy)
        highs.setOptionValue("time_limit", math.inf if run.seconds_left is None else run.seconds_left)
        highs.run()
        status, info = highs.getModelStatus(), highs.getInfo()
        message = f"{highs.modelStatusToString(status)}, {info.mip_node_count:,} nodes"
        if status == highspy.HighsModelStatus.kInfeasible:
            return Answer(None, infeasible=True, message=message)
        bound = info.mip_dual_bound + arrays.fixed
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return Answer(None, bound, message=message)
        chosen = np.array(highs.getSolution().col_value).reshape(arrays.values.shape).argmax(axis=1)
        return Answer(problem.space.decode(chosen.tolist()), bound, message=message)


@lru_cache(maxsize=1)
def arrays_of(problem: DesignProblem) -> MultipleChoice:
    """The arrays of a problem; NotSeparable where it is not a multiple-choice knapsack problem."""
    arrays = read_multiple_choice(problem)
    if arrays is None:
        raise NotSeparable(f"{NAME} is for multiple-choice knapsack problems; choose another solver for {problem.goal.name}")
    return arrays


def _program(arrays: MultipleChoice, highspy: Any) -> Any:
    """maximize v·x subject to Σ_j x_ij = 1 for every position i and c_k·x ≤ b_k, x binary and 0 where no design may go."""
    positions, items = arrays.values.shape
    columns, budgets = positions * items, arrays.budgets
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = columns, positions + budgets
    program.sense_ = highspy.ObjSense.kMaximize
    program.col_cost_ = arrays.values.ravel()
    program.col_lower_, program.col_upper_ = np.zeros(columns), arrays.allowed.ravel().astype(float)
    program.row_lower_ = np.concatenate((np.ones(positions), np.full(budgets, -np.inf)))
    program.row_upper_ = np.concatenate((np.ones(positions), arrays.limits))
    index = np.empty((columns, 1 + budgets), dtype=np.int32)
    index[:, 0], index[:, 1:] = np.repeat(np.arange(positions), items), positions + np.arange(budgets)
    value = np.ones((columns, 1 + budgets))
    value[:, 1:] = arrays.costs.reshape(budgets, columns).T
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.arange(columns + 1, dtype=np.int32) * (1 + budgets)
    program.a_matrix_.index_, program.a_matrix_.value_ = index.ravel(), value.ravel()
    program.integrality_ = [highspy.HighsVarType.kInteger] * columns
    highs = highspy.Highs()
    for option, setting in {"output_flag": False, "threads": 1, "mip_rel_gap": 0.0, "mip_abs_gap": 0.0}.items():
        highs.setOptionValue(option, setting)
    highs.passModel(program)
    return highs
