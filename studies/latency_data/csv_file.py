"""A CSV file of measurements: its header, its rows as numbers, and what may be wrong with either, in one sentence."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formulation.command.words import counted


@dataclass(frozen=True)
class Rows:
    """The rows of one file.

    Attributes:
        columns: names of the columns that were asked for.
        lines: number of the line of each row.
        values: of each row, in the order of the columns.
        sha256: of the file.
    """

    columns: tuple[str, ...]
    lines: list[int]
    values: list[tuple[float, ...]]
    sha256: str

    @property
    def by_column(self) -> dict[str, np.ndarray]:
        """Column -> its values, (rows,)."""
        return {name: np.array(values) for name, values in zip(self.columns, zip(*self.values, strict=True), strict=True)}


def header_of(path: Path) -> list[str]:
    """The names in the first line of a file; none if it is empty or no text."""
    try:
        return _header(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except UnicodeDecodeError:
        return []


def read_rows(path: Path, columns: Sequence[str], format: str, allowed: Callable[[str, float], str | None], fewest: int) -> Rows:
    """The rows of a file that has some columns; further ones are passed over.

    Args:
        path: of the file.
        columns: that it has to have.
        format: whose columns these are, in words.
        allowed: what a column's value should have been, in words, if it is not allowed; else None.
        fewest: rows that are needed.

    Raises:
        ValueError: in one sentence naming file, line and column: for an empty file or too few rows, missing columns, and a value
            that is not a number or not allowed.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8 text; expected a CSV file of {format}") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    header = _header(lines)
    if not header:
        raise ValueError(f"{path.name} is empty; expected a header and a row for each network")
    if missing := [name for name in columns if name not in header]:
        raise ValueError(f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; expected those of {format}")
    if repeated := [name for name in columns if header.count(name) > 1]:
        raise ValueError(f"{path.name} has the column {repeated[0]} twice; expected it once")
    rows = Rows(tuple(columns), [], [], hashlib.sha256(content).hexdigest())
    try:
        for cells in lines:
            if any(cell.strip() for cell in cells):
                rows.lines.append(lines.line_num)
                rows.values.append(_read_row(f"line {lines.line_num} of {path.name}", header, cells, columns, allowed))
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num} of {path.name} is not valid CSV ({error})") from None
    if len(rows.values) < fewest:
        raise ValueError(f"{path.name} has {counted(len(rows.values), 'row')}; expected at least {fewest}")
    return rows


def _header(lines: object) -> list[str]:
    return [name.strip() for name in next(lines, [])]  # type: ignore[call-overload]  # a reader of the csv module has no public type


def _read_row(
    where: str,
    header: Sequence[str],
    cells: Sequence[str],
    columns: Sequence[str],
    allowed: Callable[[str, float], str | None],
) -> tuple[float, ...]:
    if len(cells) != len(header):
        raise ValueError(f"{where} has {counted(len(cells), 'value')}; expected {len(header)}, one for each column")
    given = dict(zip(header, cells, strict=True))
    row = []
    for name in columns:
        try:
            value = float(given[name])
        except ValueError:
            raise ValueError(f"{where} has {name} {given[name].strip()!r}; expected a number") from None
        if expected := allowed(name, value):
            raise ValueError(f"{where} has {name} {given[name].strip()}; expected a {expected}")
        row.append(value)
    return tuple(row)
