"""Rows of a study on disk, one JSON object a line: appended as they are measured, so that a stop loses none of them."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from formulation.records.files import held_by_command, locked, replace_file

Row = dict[str, Any]


class RowFile:
    """The rows in `path`; those that exist are read at once, a last line cut short by a kill left out.

    Reading changes nothing on disk. With the first change the folder is locked until the present command ends, or outside of
    commands for as long as this object lives, and a line cut short is removed; `append` and `keep` raise ValueError where another
    process writes to the folder.
    Raises ValueError where any other line isn't a JSON object, with the line's number: the file is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: int | None = None
        self.rows: list[Row] = []
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            row = _row(line)
            if row is not None:
                self.rows.append(row)
            elif line and number < len(lines):
                raise ValueError(f"line {number} of {path} is damaged; mend or move the file, or choose another --output")

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop the rows that are not `wanted`, on disk too."""
        rows = [row for row in self.rows if wanted(row)]
        if len(rows) < len(self.rows):
            self._lock()
            self.rows = rows
            with replace_file(self._path) as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows).encode())

    def append(self, row: Row) -> None:
        """Add a row and make sure it is on disk."""
        self._lock()
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _lock(self) -> None:
        """Make sure that this process is the one that writes, and that the file ends with a whole line."""
        if self._writer == os.getpid():
            return
        with ExitStack() as stack:
            stack.enter_context(locked(self._path.parent))
            if self._path.exists():
                _mend(self._path)
            if (held := held_by_command.get()) is not None:
                held.push(stack.pop_all())
            else:
                weakref.finalize(self, stack.pop_all().close)
        self._writer = os.getpid()


def _row(line: bytes) -> Row | None:
    """The JSON object that a line is, if it is one."""
    try:
        row = json.loads(line.decode(errors="replace"))
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _mend(path: Path) -> None:
    """End the last line, or remove it where it was cut short."""
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            if _row(content[whole:]) is None:
                file.truncate(whole)
            else:
                file.write(b"\n")
