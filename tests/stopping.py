"""Run a command that is stopped by a signal at a given moment of its work, however fast or slow the machine is.

    python -m tests.stopping SIGKILL 5 formulation.records.rows:RowFile.append studies.pareto --minimize flops

The signal comes from inside: a method raises it when its n-th call is done. A test that watches files from outside and then sends a
signal races the command to its end.
"""

from __future__ import annotations

import importlib
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROW_WRITTEN = "formulation.records.rows:RowFile.append"


def stopped(
    sign: signal.Signals, at_call: int, module: str, *flags: str, of: str = ROW_WRITTEN, **options: Any
) -> subprocess.CompletedProcess[str]:
    """How `python -m module flags` ended that got the signal when the method `of` had been called `at_call` times."""
    command = [sys.executable, "-m", "tests.stopping", sign.name, str(at_call), of, module, *flags]
    root = Path(__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, timeout=1800, **{"cwd": root, **options})
    assert f"stopped at call {at_call}" in result.stderr, result.stderr
    return result


@contextmanager
def signalled(sign: signal.Signals, at_call: int, of: str = ROW_WRITTEN) -> Iterator[None]:
    """Within it this process gets the signal when the method `of` has been called `at_call` times."""
    place, _, path = of.partition(":")
    owner, method = path.split(".")
    patched = getattr(importlib.import_module(place), owner)
    original, calls = getattr(patched, method), 0

    def counting(*arguments: Any) -> Any:
        nonlocal calls
        result = original(*arguments)
        calls += 1
        if calls == at_call:
            print(f"stopped at call {at_call}", file=sys.stderr, flush=True)
            signal.raise_signal(sign)
        return result

    setattr(patched, method, counting)
    try:
        yield
    finally:
        setattr(patched, method, original)


def main(name: str, at_call: str, of: str, module: str, *flags: str) -> None:
    """Run `module` as a command, with a signal after the given call."""
    sys.argv = [module, *flags]
    with signalled(signal.Signals[name], int(at_call), of):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
