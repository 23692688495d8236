"""A measured run in its own process, which nothing before it has warmed or filled, and the meter of its time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from formulation.command.processes import run_child
from formulation.records.provenance import peak_memory_bytes, restart_peak_memory
from formulation.records.rows import Row
from solvers import EngineMissing

REFUSED, FAILED = "refused", "failed"
"""Statuses of a run that `solve` has none for: the solver cannot read the problem; its process ended without an answer."""

_GRACE_S = 60.0
"""Seconds that a process may take beyond its time limit, its start included."""
_CHECK_S = 120.0
"""Seconds that a certificate may take to check."""
_VERDICTS = {0: "accepted", 3: "refused", 4: "not checkable"}
"""Exit codes of `python -m solvers.check`."""


class Meter:
    """Time and memory of what is done in its block, child processes that ended in it included.

    Attributes:
        seconds: wall-clock time.
        cpu_seconds: of all cores together.
        memory_bytes: by how much memory grew at most, None where the system does not tell (anything but Linux). Of a child process
            it tells what exceeds the largest one before it.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: int | None

    def __enter__(self) -> Meter:
        restart_peak_memory()
        self._own = peak_memory_bytes()
        self._children = 0 if self._own is None else _largest_child()
        self._cpu, self._since = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_seconds = time.perf_counter() - self._since, _cpu_seconds() - self._cpu
        own = peak_memory_bytes()
        known = own is not None and self._own is not None
        self.memory_bytes = max(own - self._own, 0) + _largest_child() - self._children if known else None  # type: ignore[operator]


def _cpu_seconds() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _largest_child() -> int:
    """The most memory that any child process which has ended held [bytes], on Linux."""
    import resource  # Unix only

    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def run_apart(kind: str, words: Mapping[str, Any], certificate: Path, seconds: float) -> Row:
    """Have a fresh process measure, see `process.py`; EngineMissing, and KeyboardInterrupt where the user stops it.

    Args:
        kind: of the run.
        words: what it is of, in names that both processes read alike.
        certificate: a file for the certificate, where there is one.
        seconds: its time limit.

    Returns:
        The row; of status `FAILED` where the process ends without an answer.
    """
    command = [sys.executable, "-m", "studies.exact_methods.process", kind, json.dumps(words), str(certificate)]
    ended = _ended_within(command, seconds + _GRACE_S)
    if ended.returncode == 130:
        raise KeyboardInterrupt
    if ended.returncode:
        last = next((line for line in reversed(ended.stderr.splitlines()) if line.strip()), "no message")
        return {"status": FAILED, "message": f"the process ended with code {ended.returncode}: {last}"}
    row: Row = json.loads(ended.stdout.splitlines()[-1])
    if "missing" in row:
        raise EngineMissing(row["missing"])
    return row


def check(certificate: Path) -> Row:
    """What `python -m solvers.check` says of a certificate, and how long it takes."""
    since = time.perf_counter()
    ended = _ended_within([sys.executable, "-m", "solvers.check", str(certificate)], _CHECK_S)
    seconds = time.perf_counter() - since
    said = (ended.stdout + ended.stderr).strip().splitlines()
    verdict = _VERDICTS.get(ended.returncode, f"not checked: the checker ended with code {ended.returncode}")
    size = certificate.stat().st_size
    return {"verdict": verdict, "check_seconds": seconds, "bytes": size, "message": said[-1] if said else ""}


def _ended_within(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it is killed after so many seconds."""
    since = time.perf_counter()

    def watch(process: subprocess.Popen[Any]) -> None:
        if time.perf_counter() - since > seconds:
            process.kill()

    return run_child(command, watch, stderr=subprocess.PIPE)
