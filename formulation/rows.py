"""Rows of a study on disk, one JSON object a line: appended as they are measured, so that a stop loses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from formulation.files import replace_file

Row = dict[str, Any]


class RowFile:
    """The rows in `path`; those that exist are read at once. A last line cut short by a kill is dropped.

    Raises ValueError where any other line is no JSON object, with the line's number: the file is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = []
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if isinstance(row, dict):
                self.rows.append(row)
            elif number < len(lines):
                raise ValueError(f"line {number} of {path} is damaged; mend or move the file, or choose another --output")
        if lines and lines[-1]:
            self._write()

    def keep(self, wanted: Callable[[Row], bool]) -> None:
        """Drop the rows that are not `wanted`, on disk too."""
        rows = [row for row in self.rows if wanted(row)]
        if len(rows) < len(self.rows):
            self.rows = rows
            self._write()

    def append(self, row: Row) -> None:
        """Add a row and make sure it is on disk."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _write(self) -> None:
        with replace_file(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode())
