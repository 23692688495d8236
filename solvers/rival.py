"""A second solver on the same problem in its own process, while a first one searches here: each hears what the other finds.

They share the best objective, as a cut-off, and their bounds: once the better incumbent meets the smaller bound both end. The
process is started by its own command, not by `multiprocessing`, which would import the user's main module again.
"""

from __future__ import annotations

import base64
import json
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, Any

from formulation import DesignProblem
from formulation.command.processes import child_process
from solvers.base import ROUNDING, Answer, Run, Solver, TracePoint, searched

_SERVE = "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from solvers.rival import serve; serve()"
_GRACE_S = 3.0
"""How long the process has to answer once it is asked to stop, before it is ended."""
SETTLED = "settled by a search beside it"
"""Why a run was halted whose problem the other search has settled."""


def spare_core() -> bool:
    """Whether a processor core is left for a second process, as far as the system says how busy they are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores > 1 and (not hasattr(os, "getloadavg") or os.getloadavg()[0] < cores)


@dataclass(eq=False)
class Rival:
    """The second search, as seen from the first one's process.

    Attributes:
        solver: what it searches with.
        began: whether it was started: not where the first search ended before, nor where the problem cannot be sent to it.
        needed: whether its answer could matter still, once the first search has ended.
        answer: what it claims at the end; its last bound where it did not live to answer, None if it has said nothing.
    """

    solver: Solver
    began: bool = False
    needed: bool = True
    answer: Answer | None = None


@contextmanager
def rival(problem: DesignProblem, solver: Solver, run: Run, after: float) -> Iterator[Rival]:
    """Search a problem with a second solver while the block lasts, which searches it within `run`.

    Halts the run once the two together have settled the problem. At the end of the block it is asked for what it has, if that is
    needed.

    Args:
        problem: on a single space; maximizes.
        solver: of the second search.
        run: of the first one; its `cutoff` rises with what the second one finds.
        after: seconds that the first search has to itself.
    """
    other, race = Rival(solver), _Race(problem, solver, run)
    thread = threading.Thread(target=race.hold, args=(other, after), daemon=True)
    thread.start()
    try:
        yield other
    except BaseException:
        other.needed = False
        raise
    finally:
        race.end(other)
        thread.join()
        run.on_record = None
        if run.halted == SETTLED:
            run.halted = ""


class _Race:
    """What both searches know, kept by a thread beside the first.

    The first search itself never writes to the process, which may not read for a while: a pipe holds little. What it has to say
    waits in a queue for a thread that only writes.
    """

    def __init__(self, problem: DesignProblem, solver: Solver, run: Run) -> None:
        self.problem, self.solver, self.run = problem, solver, run
        self.gap = max(run.limits.gap, ROUNDING)
        self.ended = threading.Event()
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process: subprocess.Popen[str] | None = None
        # The best objective of either search, the least bound of either and of the second one.
        self.best = run.cutoff
        self.bound = self.their_bound = math.inf
        run.on_record = self.heard_here

    def hold(self, other: Rival, after: float) -> None:
        """Start the process after a while, and listen to it until it has answered."""
        if self.ended.wait(after):
            return
        sent = self._request()
        if sent is None:
            return
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with suppress(OSError), child_process([sys.executable, "-c", _SERVE], **pipes) as process:
            self.process = process
            other.began = True
            assert process.stdin is not None
            assert process.stdout is not None
            begin = json.dumps(sys.path), sent, json.dumps(self.best)
            writer = threading.Thread(target=self._write, args=(process.stdin, begin), daemon=True)
            writer.start()
            if self.ended.is_set():
                self.end(other)
            self._listen(process.stdout, other)
            process.kill()
            self.lines.put(None)
            writer.join()
        if other.answer is None and math.isfinite(self.their_bound):
            other.answer = Answer(None, self.their_bound, message="ended before it could answer")

    def _request(self) -> str | None:
        """The problem and how to search it, in a line; None where it cannot be sent to another process, such as a lambda."""
        limits = replace(self.run.limits, seconds=self.run.seconds_left)
        try:
            return base64.b64encode(pickle.dumps((self.problem, self.solver, limits))).decode()
        except Exception:  # pickle raises whatever a class's own code does
            return None

    def _listen(self, replies: IO[str], other: Rival) -> None:
        for line in replies:
            with suppress(ValueError, KeyError, TypeError):  # whatever an engine prints is passed over
                said = json.loads(line)
                if "answer" in said:
                    choices, bound, infeasible, message = said["answer"]
                    design = None if choices is None else self.problem.space.decode(choices)
                    other.answer = Answer(design, bound, infeasible, message)
                    self._heard_there(None, -math.inf if infeasible else bound)
                    return
                self._heard_there(*said["known"])

    def heard_here(self, point: TracePoint) -> None:
        """Note what the first search has found; tell the second one."""
        if point.incumbent is not None and point.incumbent > self.best:
            self.best = point.incumbent
            self.lines.put(json.dumps(self.best))
        self._note(point.bound)

    def _heard_there(self, incumbent: float | None, bound: float | None) -> None:
        if incumbent is not None:
            self.best = max(self.best, incumbent)
            self.run.cutoff = max(self.run.cutoff, incumbent)
        if bound is not None:
            self.their_bound = min(self.their_bound, bound)
        self._note(bound)

    def _note(self, bound: float | None) -> None:
        """A bound of either; halts the first search once it is met by the best design of either, or no design can be."""
        if bound is not None:
            self.bound = min(self.bound, bound)
        met = math.isfinite(self.best) and self.bound - self.best <= self.gap * abs(self.best)
        if (met or self.bound == -math.inf) and not self.ended.is_set():
            self.run.halted = SETTLED

    def _write(self, requests: IO[str], begin: Iterable[str]) -> None:
        """Write to the process what it begins with, then what is put into the queue."""
        with suppress(OSError, ValueError):  # it may have ended meanwhile
            for line in chain(begin, iter(self.lines.get, None)):
                requests.write(line + "\n")
                requests.flush()

    def end(self, other: Rival) -> None:
        """The first search has ended: ask the second one for what it has, or end it without an answer."""
        self.ended.set()
        process = self.process
        if process is None:
            return
        if not other.needed:
            process.kill()
            return
        timer = threading.Timer(_GRACE_S, process.kill)
        timer.daemon = True
        timer.start()
        self.lines.put("stop")


def serve() -> None:
    """The second process: search the problem of the first line, say what is found, listen to what the first search finds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal; only `stop` counts here
    problem, solver, limits = pickle.loads(base64.b64decode(sys.stdin.readline()))
    run = Run(limits)
    run.cutoff = float(json.loads(sys.stdin.readline()))

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    def listen() -> None:
        for line in sys.stdin:
            if line == "stop\n":
                run.interrupted = True
                if run.on_interrupt is not None:
                    run.on_interrupt()
            else:
                run.cutoff = max(run.cutoff, float(json.loads(line)))
        os._exit(0)

    run.on_record = lambda point: say(known=[point.incumbent, point.bound])
    threading.Thread(target=listen, daemon=True).start()
    answer = searched(problem, solver, run)
    choices = None if answer.architecture is None else list(map(int, problem.space.encode(answer.architecture)))
    say(answer=[choices, answer.bound, answer.infeasible, answer.message])
