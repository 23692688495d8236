"""Run a command of the house inside the process of the tests, without the seconds that Python, numpy and torch take to start.

What needs its own process is elsewhere: a kill in `stopping`, broken pipes in test_processes.py, imports in test_frame.py.
"""

from __future__ import annotations

import io
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from formulation.command.run import run_command
from merino_packages import load
from tests.stopping import ROW_WRITTEN, signalled


@dataclass(frozen=True)
class Ended:
    """How a command ended, by the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run(module: str, *flags: str) -> Ended:
    """How `python -m module flags` ends."""
    main = load(module).main
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as complained, pytest.raises(SystemExit) as end:
        run_command(main, list(flags))
    return Ended(int(end.value.code or 0), said.getvalue(), complained.getvalue())


def interrupted(at_call: int, module: str, *flags: str, of: str = ROW_WRITTEN) -> Ended:
    """How it ends after Ctrl-C, pressed when the method `of` had been called `at_call` times."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a process that has just begun
    try:
        with signalled(signal.SIGINT, at_call, of):
            ended = run(module, *flags)
    finally:
        signal.signal(signal.SIGINT, before)
    assert f"stopped at call {at_call}" in ended.stderr, ended.stderr
    return ended
