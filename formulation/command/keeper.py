"""The process that outlives its parent by a moment, to end the parent's children and remove its temporary folders.

`formulation.command.processes` starts it as a script and tells it on the standard input, line by line, what to end: `+child PID`,
`+folder PATH` with the path's bytes in hexadecimal digits, and the same with a minus once it has ended by itself. The input ends
with the parent, however that ends. A thread in a child could not do this: native code may keep every other thread waiting.
"""

import os
import signal
import sys
import time

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_ATTEMPTS = 100
_PAUSE_S = 0.1
"""A killed process may still write for a moment, so a folder is removed again until it is gone."""


def main() -> None:
    """Read until the parent has gone, then clean up after it."""
    kept: dict[str, set[str]] = {"child": set(), "folder": set()}
    for line in sys.stdin:
        if line.endswith("\n"):  # else the parent was killed while it wrote
            what, value = line[1:].split()
            (kept[what].add if line[0] == "+" else kept[what].discard)(value)
    for child in kept["child"]:
        try:
            os.kill(int(child), _KILL)
        except OSError:
            continue
    for folder in kept["folder"]:
        _remove(os.fsdecode(bytes.fromhex(folder)))


def _remove(folder: str) -> None:
    import shutil  # takes longer than all the rest, and is mostly not needed

    for _ in range(_ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
