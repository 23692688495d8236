"""The process in which `solvers.programs.scip` runs SCIP: its own script, since a crash of native code must not end the
caller.

The standard input holds one line of JSON: `file` (a problem in SCIP's CIP format), `parameters`, `start` (values by variable name,
or null). The standard output gets a line of JSON whenever a design or a better bound is found, and a last one with `status`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pyscipopt


def solve() -> None:
    """Read the request, solve it, report."""
    # What native code writes to the standard output must not mix with the reports.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    model = pyscipopt.Model()
    model.hideOutput()
    model.readProblem(request["file"])
    variables = {variable.name: variable for variable in model.getVars()}
    model.setParams(request["parameters"])
    if request["start"] is not None:
        start = model.createPartialSol()
        for name, value in request["start"].items():
            start[variables[name]] = value
        model.addSol(start)

    def report(**more: Any) -> None:
        record = {"incumbent": model.getPrimalbound(), "bound": model.getDualbound(), **more}
        reports.write(json.dumps(record) + "\n")
        reports.flush()

    def values() -> dict[str, float] | None:
        if not model.getNSols():
            return None
        best = model.getBestSol()
        return {name: model.getSolVal(best, variable) for name, variable in variables.items()}

    class Watch(pyscipopt.Eventhdlr):
        """Reports SCIP's incumbent and bound whenever it finds a design or has solved a node."""

        events = (pyscipopt.SCIP_EVENTTYPE.BESTSOLFOUND, pyscipopt.SCIP_EVENTTYPE.NODESOLVED)

        def eventinit(self) -> None:
            for event in self.events:
                self.model.catchEvent(event, self)

        def eventexit(self) -> None:
            for event in self.events:
                self.model.dropEvent(event, self)

        def eventexec(self, event: Any) -> None:
            found = event.getType() == pyscipopt.SCIP_EVENTTYPE.BESTSOLFOUND
            report(**({"values": values()} if found else {}))

    model.includeEventhdlr(Watch(), "watch", "reports incumbents and bounds")
    try:
        model.optimize()
    except Exception as error:
        # PySCIPOpt knows no other class for what SCIP reports, such as "SCIP: error in LP solver!".
        if not str(error).startswith("SCIP:"):
            raise
        report(status=f"ended by its own error ({str(error).removeprefix('SCIP: ')})", nodes=model.getNNodes(), values=values())
    else:
        report(status=model.getStatus(), nodes=model.getNNodes(), values=values())


if __name__ == "__main__":
    solve()
