"""SCIP on the mixed-integer nonlinear program itself, in either form; Pyomo's `contrib.solver` translates it.

The engine runs in a process of its own, `scip_process.py`: on `deep` SCIP 10 was seen to end by memory corruption.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyomo.contrib.solver.common.factory import SolverFactory

from formulation import DesignProblem
from formulation.processes import child_process, temporary_folder
from solvers.base import Answer, EngineMissing, Run, broken_budgets
from solvers.pyomo_model import Form, Program, build_program, engine_bound

_PROCESS = Path(__file__).with_name("scip_process.py")
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
        if importlib.util.find_spec("pyscipopt") is None:
            raise EngineMissing("SCIP is not installed; install it with: pip install pyscipopt")
        program = build_program(problem, self.form)
        start = run.limits.start
        if start is not None:
            program.encode(start)
            run.record(problem.maximize(start))
        # Pyomo translates the program; its own `solve` would run SCIP in this process and read its messages from a pipe that nobody
        # empties meanwhile.
        solver = SolverFactory("scip_persistent")
        solver.set_instance(program.model)
        variables = {own.name: variable for variable, own in solver._pyomo_var_to_solver_var_map.items()}
        with temporary_folder() as folder:
            file = folder / "program.cip"
            solver._solver_model.writeProblem(str(file), trans=False, verbose=False)
            request = {
                "file": str(file),
                "parameters": {
                    "display/verblevel": 0,
                    "limits/gap": run.limits.gap / 2,
                    "limits/time": min(run.seconds_left or _ENDLESS, _ENDLESS),
                },
                "start": None if start is None else {name: v.value for name, v in variables.items() if v.is_integer()},
            }
            end = _watch(request, program, run)
        run.interrupted |= end.status == "userinterrupt"
        design = None
        if end.values is not None:
            for name, variable in variables.items():
                variable.set_value(end.values[name], skip_validation=True)
            design = program.decode()
            run.evaluations += 1
        message = f"{run.why_stopped or end.status}, {end.nodes:,} nodes"
        if design is None and end.status == "infeasible":
            return Answer(None, infeasible=True, message=f"no design keeps the budgets; {message}")
        kept = design is not None and not broken_budgets(problem, design)
        run.record(problem.maximize(design) if design is not None and kept else None, end.bound)
        return Answer(design, end.bound, message=message)


@dataclass
class _End:
    """What SCIP has reported so far, and how it ended."""

    status: str = ""
    bound: float | None = None
    values: dict[str, float] | None = None
    nodes: int = 0


def _watch(request: dict[str, Any], program: Program, run: Run) -> _End:
    """Have the process solve the program in a file; its reports go into the trace as they come."""
    end = _End()
    with child_process(
        [sys.executable, "-P", str(_PROCESS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        run.on_interrupt = lambda: process.send_signal(signal.SIGINT)
        try:
            with suppress(BrokenPipeError):  # it died before it could read: told below
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                record = json.loads(line)
                incumbent, bound = record["incumbent"], record["bound"]
                end.bound = engine_bound(program, bound) if abs(bound) < _ENDLESS else None
                end.values = record.get("values", end.values)
                end.status, end.nodes = record.get("status", ""), record.get("nodes", 0)
                run.record(program.unit * incumbent if abs(incumbent) < _ENDLESS else None, end.bound)
        finally:
            run.on_interrupt = None
            if not end.status:
                process.kill()
    if not end.status:
        end.status = f"crashed (exit code {process.returncode})"
    return end
