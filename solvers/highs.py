"""HiGHS through Pyomo's `contrib.solver`: mixed-integer linear programs, composites by `solvers.linear_cells`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import TerminationCondition

from formulation import DesignProblem
from solvers.base import Answer, EngineMissing, Run
from solvers.linear_cells import TOLERANCE, LinearEnd, search_cells
from solvers.pyomo_model import quiet


@dataclass(frozen=True)
class Highs:
    """The HiGHS branch-and-cut solver on the choice form (Huangfu & Hall 2018)."""

    name = "HiGHS"
    distributions = ("pyomo", "highspy")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it."""
        if not SolverFactory("highs").available():
            raise EngineMissing("HiGHS is not installed; install it with: pip install highspy")

        def engine(model: pyo.ConcreteModel, seconds: float | None) -> LinearEnd:
            # A fresh instance each time: HiGHS counts its time limit over the life of an instance.
            solver = SolverFactory("highs")
            solver.set_instance(model)
            run.on_interrupt = solver._solver_model.cancelSolve
            try:
                result = solver.solve(
                    model,
                    time_limit=seconds,
                    rel_gap=0.0,
                    abs_gap=0.0,
                    load_solutions=False,
                    raise_exception_on_nonoptimal_result=False,
                    solver_options={"mip_feasibility_tolerance": TOLERANCE, "primal_feasibility_tolerance": TOLERANCE},
                )
            finally:
                run.on_interrupt = None
            ended = result.termination_condition
            if ended in (TerminationCondition.provenInfeasible, TerminationCondition.infeasibleOrUnbounded):
                return LinearEnd(-math.inf, False, True)
            finished = ended is TerminationCondition.convergenceCriteriaSatisfied
            found = result.incumbent_objective is not None
            if found:
                result.solution_loader.load_vars()
            bound = result.objective_bound
            return LinearEnd(bound if bound is not None and math.isfinite(bound) else None, found, finished)

        with quiet("pyomo.contrib.solver.solvers.highs"):
            return search_cells(problem, run, engine)
