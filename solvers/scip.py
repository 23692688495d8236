"""SCIP through Pyomo's `contrib.solver`: the mixed-integer nonlinear program itself, in either form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import TerminationCondition

from formulation import DesignProblem
from solvers.base import Answer, EngineMissing, Run, broken_budgets
from solvers.pyomo_model import Form, build_program, engine_bound


@dataclass(frozen=True)
class Scip:
    """The SCIP spatial branch-and-bound solver (Bestuzheva et al. 2023).

    form  which of the two declarative programs it is given
    """

    form: Form = Form.CHOICE

    distributions = ("pyomo", "PySCIPOpt")

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"SCIP ({'look-up' if self.form is Form.LOOKUP else 'choice'} form)"

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it or its design breaks a budget by less than SCIP's tolerance.

        `solve` discards such a design. Costs that are whole numbers are scaled so that it cannot happen to them.
        """
        try:
            import pyscipopt
        except ImportError:
            raise EngineMissing("SCIP is not installed; install it with: pip install pyscipopt") from None
        program = build_program(problem, self.form)
        start = run.limits.start
        if start is not None:
            program.encode(start)
            run.record(problem.maximize(start))
        solver = SolverFactory("scip_persistent")
        solver.set_instance(program.model)

        class Watch(pyscipopt.Eventhdlr):
            """Records SCIP's incumbent and bound whenever it finds a design or has solved a node."""

            events = (pyscipopt.SCIP_EVENTTYPE.BESTSOLFOUND, pyscipopt.SCIP_EVENTTYPE.NODESOLVED)

            def eventinit(self) -> None:
                for event in self.events:
                    self.model.catchEvent(event, self)

            def eventexit(self) -> None:
                for event in self.events:
                    self.model.dropEvent(event, self)

            def eventexec(self, event: object) -> None:
                incumbent, bound = self.model.getPrimalbound(), self.model.getDualbound()
                found = program.unit * incumbent if abs(incumbent) < 1e19 else None
                run.record(found, engine_bound(program, bound) if abs(bound) < 1e19 else None)

        solver._solver_model.includeEventhdlr(Watch(), "watch", "records incumbents and bounds")
        result = solver.solve(
            program.model,
            time_limit=run.seconds_left,
            rel_gap=run.limits.gap / 2,
            warmstart_discrete_vars=start is not None,
            load_solutions=False,
            raise_exception_on_nonoptimal_result=False,
            # Pyomo reads SCIP's log through a pipe that nobody empties while SCIP runs: a long log would block it for ever.
            solver_options={"display/verblevel": 0},
        )
        ended = result.termination_condition
        run.interrupted |= ended is TerminationCondition.interrupted
        design = None
        if result.solution_loader.get_number_of_solutions():
            result.solution_loader.load_vars()
            design = program.decode()
            run.evaluations += 1
        bound = result.objective_bound
        bound = None if bound is None or not math.isfinite(bound) or abs(bound) >= 1e19 else engine_bound(program, bound)
        infeasible = design is None and ended is TerminationCondition.provenInfeasible
        message = f"{run.why_stopped or ended.name}, {result.extra_info.NNodes:,} nodes"
        if infeasible:
            return Answer(None, infeasible=True, message=f"no design keeps the budgets; {message}")
        kept = design is not None and not broken_budgets(problem, design)
        run.record(problem.maximize(design) if design is not None and kept else None, bound)
        return Answer(design, bound, message=message)
