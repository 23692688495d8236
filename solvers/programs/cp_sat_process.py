"""The process in which `solvers.programs.cp_sat` runs CP-SAT: its own script, which must not import anything of this package.

Each line of the standard input is an integer program as JSON and is answered by a line of JSON; the line `stop` ends the last
one early.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from queue import SimpleQueue

from ortools.sat.python import cp_model


def serve() -> None:
    """Solve program after program until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal; only `stop` counts here
    solver = cp_model.CpSolver()
    # One thread makes it repeatable. The presolve of 9.15 was seen to cut off optima where coefficients add up to more than 2³¹
    # (google/or-tools#5293), and here it saves no time; without it, ten threads are in doubt too (#5295).
    solver.parameters.num_workers = 1
    solver.parameters.cp_model_presolve = False
    solver.parameters.catch_sigint_signal = False
    programs: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            if line != "stop\n":
                programs.put(line)
                continue
            while True:  # again and again, since CP-SAT does not hear a request that comes before its search has begun
                solver.stop_search()
                time.sleep(0.05)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        program = json.loads(programs.get())
        solver.parameters.random_seed = program["seed"]
        solver.parameters.linearization_level = 1 if program["careful"] else 2
        if program["seconds"] is not None:
            solver.parameters.max_time_in_seconds = program["seconds"]
        model = cp_model.CpModel()
        binaries = [model.new_int_var(0, upper, "") for upper in program["upper"]]
        for columns, coefficients, low, high in program["rows"]:
            row = cp_model.LinearExpr.weighted_sum([binaries[column] for column in columns], coefficients)
            model.add_linear_constraint(row, low, high)
        model.maximize(cp_model.LinearExpr.weighted_sum(binaries, program["objective"]))
        status = solver.solve(model)
        found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
        reply = {
            "status": solver.status_name(status),
            "bound": solver.best_objective_bound if found else None,
            "values": [solver.value(binary) for binary in binaries] if found else None,
        }
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve()
