"""SCIP on the mixed-integer nonlinear program itself, in either form; Pyomo's `contrib.solver` hands it over."""

from __future__ import annotations

from dataclasses import dataclass

from pyomo.contrib.solver.common.factory import SolverFactory

from formulation import DesignProblem
from solvers.base import Answer, EngineMissing, Run, broken_budgets
from solvers.pyomo_model import Form, build_program, engine_bound

_ENDLESS = 1e19
"""From here on SCIP's numbers stand for infinity."""


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
                found = program.unit * incumbent if abs(incumbent) < _ENDLESS else None
                run.record(found, engine_bound(program, bound) if abs(bound) < _ENDLESS else None)

        engine = solver._solver_model
        engine.includeEventhdlr(Watch(), "watch", "records incumbents and bounds")
        engine.setParams(
            {"display/verblevel": 0, "limits/gap": run.limits.gap / 2, "limits/time": min(run.seconds_left or _ENDLESS, _ENDLESS)}
        )
        if start is not None:
            solver._mipstart()
        failure = ""
        try:
            # Not through Pyomo, which reads the engine's messages from a pipe that fills up while the engine holds the interpreter.
            engine.optimize()
        except Exception as error:
            # PySCIPOpt knows no other class for what SCIP reports, such as "SCIP: error in LP solver!".
            if not str(error).startswith("SCIP:"):
                raise
            failure = f"ended by its own error ({str(error).removeprefix('SCIP: ')})"
        ended = failure or engine.getStatus()
        run.interrupted |= ended == "userinterrupt"
        design = None
        if engine.getNSols():
            values = engine.getBestSol()
            for variable, own in solver._pyomo_var_to_solver_var_map.items():
                variable.set_value(engine.getSolVal(values, own), skip_validation=True)
            design = program.decode()
            run.evaluations += 1
        dual = engine.getDualbound()
        bound = engine_bound(program, dual) if abs(dual) < _ENDLESS else None
        infeasible = design is None and ended == "infeasible"
        message = f"{run.why_stopped or ended}, {engine.getNNodes():,} nodes"
        if infeasible:
            return Answer(None, infeasible=True, message=f"no design keeps the budgets; {message}")
        kept = design is not None and not broken_budgets(problem, design)
        run.record(problem.maximize(design) if design is not None and kept else None, bound)
        return Answer(design, bound, message=message)
