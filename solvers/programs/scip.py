"""SCIP on the mixed-integer nonlinear program itself, in either form; Pyomo's `contrib.solver` translates it.

The engine runs in its own process, `scip_process.py`: on `deep` SCIP 10 was seen to end by memory corruption.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulation import Architecture, Budget, DesignProblem
from formulation.command.processes import child_process, temporary_folder
from solvers.base import Answer, EngineMissing, Run, broken_budgets
from solvers.evaluation import require_structure
from solvers.incumbent import quick_incumbent
from solvers.programs.pyomo_model import Form, Program, build_program, engine_bound

_PROCESS = Path(__file__).with_name("scip_process.py")
_ENDLESS = 1e19
"""From here on SCIP's numbers stand for infinity."""
_DIFFERENTLY = {
    "presolving/maxrounds": 1,
    "randomization/permutationseed": 1,
    "randomization/permutevars": True,
    "randomization/permuteconss": True,
}
"""Parameters of a second solve: hardly any presolve, and another order of everything. With no presolve at all SCIP 10 crashes."""
_GRACE_S = 0.8
"""Seconds after its time limit, or after Ctrl-C, until SCIP is stopped."""


@dataclass(frozen=True)
class Scip:
    """The SCIP spatial branch-and-bound solver (Bestuzheva et al. 2023).

    Attributes:
        form: which of the two declarative programs it is given.
    """

    form: Form = Form.CHOICE

    distributions = ("pyomo", "PySCIPOpt")

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"SCIP ({'look-up' if self.form is Form.LOOKUP else 'choice'} form)"

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. Proves, unless a limit stops it.

        SCIP's feasibility tolerance is relative and lets designs through that exceed a budget by up to a millionth. Each of them is
        ruled out and the program solved again. Its word that nothing is feasible is believed once a solve of another kind has
        ended so, too; its bound is trusted, raised by what its tolerances can hide (`engine_bound`).
        """
        if importlib.util.find_spec("pyscipopt") is None:
            raise EngineMissing("SCIP is not installed; install it with: pip install pyscipopt")
        require_structure(problem, "a declarative program")
        with run.loading():
            importlib.import_module("pyomo.environ")
        best = quick_incumbent(problem, run)
        program = build_program(problem, self.form)
        nodes, ruled_out, plain = 0, 0, True
        refused = ""
        while True:
            end = _solve(program, best, run, plain)
            nodes += end.nodes
            run.interrupted |= end.status == "userinterrupt"
            design = program.decode() if end.values is not None else None
            exceeded: tuple[Budget, ...] = ()
            if design is not None:
                run.evaluations += 1
                exceeded = broken_budgets(problem, design)
                if not exceeded and (best is None or problem.objective(design) > problem.objective(best)):
                    best = design
            if design is not None and exceeded and not run.stopped:
                refused = _excess(problem, design)
                program.forbid(design)
                ruled_out += 1
                continue
            if end.status == "infeasible" and best is None and plain and not run.stopped:
                plain = False
                continue
            break
        message = f"{run.why_stopped or end.status}, {nodes:,} nodes"
        if ruled_out:
            message += f", {ruled_out:,} designs ruled out; the last {refused}"
        if best is None and design is None and end.status == "infeasible" and not plain:
            return Answer(None, infeasible=True, message=f"no design meets the budgets; {message}")
        run.record(None if best is None else problem.objective(best), end.bound)
        return Answer(best, end.bound, message=message)


def _excess(problem: DesignProblem, design: Architecture) -> str:
    """Which budgets a design exceeds, and by how much."""
    usage = [used for used in problem.evaluate(design).usage if not used.within]
    return "exceeds " + ", ".join(f"{used} by {-used.slack:.3g}" for used in usage)


def _solve(program: Program, start: Architecture | None, run: Run, plain: bool) -> _End:
    """Have SCIP solve the program from a start within what is left of the run, loading what it finds. Not plain: in another way."""
    if start is not None:
        program.encode(start)
    # Pyomo translates the program; its own `solve` would run SCIP in this process and read its messages from a pipe that nobody
    # empties meanwhile.
    from pyomo.contrib.solver.common.factory import SolverFactory

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
                "randomization/randomseedshift": run.limits.seed % 2**31,
                **({} if plain else _DIFFERENTLY),
            },
            "start": None if start is None else {name: v.value for name, v in variables.items() if v.is_integer()},
        }
        end = _watch(request, program, run)
    if end.values is not None:
        for name, variable in variables.items():
            variable.set_value(end.values[name], skip_validation=True)
    return end


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
        done = threading.Event()
        watchdog = threading.Thread(target=_stop_late, args=(process, run, done), daemon=True)
        watchdog.start()
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
            done.set()
            if not end.status:
                process.kill()
            watchdog.join()
    if not end.status:
        end.status = f"crashed (exit code {process.returncode})"
    return end


def _stop_late(process: subprocess.Popen[str], run: Run, done: threading.Event) -> None:
    """End the process if it is not back some time after the run was stopped: SCIP's presolve polls neither clock nor Ctrl-C."""
    while not done.wait(0.1):
        if run.stopped:
            if not done.wait(_GRACE_S):
                process.kill()
            return
