"""Child processes and temporary folders that do not outlive this process, even where it is killed.

A `finally` is not run by SIGKILL, nor by SIGTERM and SIGHUP; so what is started here is also told to its own process,
`keeper.py`, which ends it once this one has gone.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_KEEPER = Path(__file__).with_name("keeper.py")
_GATE = ("/bin/sh", "-c", 'read -r _ && exec "$0" "$@"') if os.name == "posix" else ()
"""Starts a foreign program only once a line has come: one whose parent is killed before the keeper knows of it never begins."""
_WATCH_S = 0.25
"""Seconds between two looks of `run_child` at a running program."""


class _Keeper:
    """What this process keeps, and the process that knows of it; started with the first thing that is kept."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._guard = threading.RLock()
        self._kept: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def ready(self) -> None:
        """Start the process if there isn't one."""
        with self._guard:
            self._tell("")

    @contextmanager
    def keep(self, what: str) -> Iterator[None]:
        """While it lasts, `what` (see `keeper.py`) ends with this process."""
        with self._guard:
            self._kept.append(what)
            self._tell(f"+{what}\n")
        try:
            yield
        finally:
            with self._guard:
                if what in self._kept:  # not so in a fork of the process that kept it
                    self._kept.remove(what)
                    self._tell(f"-{what}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None:
            try:
                self._write(line)
                return
            except BrokenPipeError:  # somebody ended it
                self._process.wait()
        # Its own session: what is sent to our process group (Ctrl-C, a closed terminal, kill -9 of a job) must not end it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
        self._write("".join(f"+{kept}\n" for kept in self._kept))

    def _write(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def close(self) -> None:
        """Let the process go; it ends what is left."""
        if self._process is not None:
            with suppress(BrokenPipeError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._process.wait()

    def forget(self) -> None:
        """In a fork: the parent's children are not ours, and its keeper must not wait for our end."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.returncode = 0  # it is not ours to wait for
        self._reset()


_keeper = _Keeper()
atexit.register(_keeper.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keeper.forget)


@contextmanager
def child_process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A `subprocess.Popen` that is waited for at the end of the block, killed where the block raises, and ends with this process.

    It must do nothing before it has read from its standard input; for a program that doesn't, see `run_child`.
    """
    _keeper.ready()
    process = subprocess.Popen(command, **options)
    with keep_process(process.pid), process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def run_child(
    command: Sequence[str], watch: Callable[[subprocess.Popen[Any]], None] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run any program to its end, its output captured; like `subprocess.run`, but it ends with this process.

    Args:
        watch: is called with the process from time to time, and may send it a signal or end it.
    """
    text = {"text": True, "errors": "replace"}
    with child_process([*_GATE, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **text, **options) as process:
        line = "\n" if _GATE else None
        while True:
            try:
                output, errors = process.communicate(line, timeout=None if watch is None else _WATCH_S)
                break
            except subprocess.TimeoutExpired:
                line = None
                assert watch is not None
                watch(process)
    return subprocess.CompletedProcess(list(command), process.returncode, output, errors)


@contextmanager
def keep_process(number: int) -> Iterator[None]:
    """While it lasts, the process of that number, started elsewhere, ends with this one."""
    with _keeper.keep(f"child {number}"):
        yield


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder that is removed at the end of the block, or with this process; in `parent` or where the system keeps such."""
    _keeper.ready()
    with tempfile.TemporaryDirectory(prefix=".merino-" if parent else "merino-", dir=parent) as folder:  # noqa: SIM117
        with _keeper.keep(f"folder {os.fsencode(os.path.abspath(folder)).hex()}"):
            yield Path(folder)


def end_with_parent() -> None:
    """In a process of `multiprocessing`: end as soon as the process that asked for it has."""
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
