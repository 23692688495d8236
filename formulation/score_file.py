"""Score tables as files: a row an option of a position, with its score and what it costs, in CSV or JSON.

    position,item,score,memory [MB],latency [ms]
    layer 0,full,1.92,402,3.1
    layer 0,half,1.71,201,1.9

Columns go by their names; a unit may stand behind one in brackets. In JSON a row is an object, and the table a list of them, an
object {"rows": [...]}, an object of rows by any name, or {position: {option: row}}. What a row nests counts by its path:
{"stats": {"memory_mib": 402}} has the column stats.memory_mib, and a list of one name is that name.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from formulation.derived import negative
from formulation.problem import Budget, DesignProblem
from formulation.quantity import Quantity
from formulation.records.reading import check_keys, chosen, parse_json, read_text, shown
from formulation.score_table import Column, OptionMenu, OptionSpace

POSITION, ITEM, SCORE = "position", "item", "score"
"""The names of the columns that a table must have, unless others are named."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEAD = re.compile(r"(?P<name>.*?)\s*[\[(](?P<unit>[^\[\]()]*)[\])]")


@dataclass(frozen=True)
class ScoreTable:
    """Options for some positions, one to be chosen for each, and what each adds to some sums.

    Attributes:
        space: the positions and their options.
        columns: the numbers of each option, by name.
        score: the name of the column that says how good an option is, None if none is named so.
        least: whether the least score is best, as of a loss.
        unread: why a column of the file holds no quantity, by its name.
        partly: those of them that hold numbers too, more often than not: one cell of them may be a slip.
    """

    space: OptionSpace
    columns: Mapping[str, Column]
    score: str | None = None
    least: bool = False
    unread: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    partly: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.score is not None:
            _ = self[self.score]

    def __getitem__(self, name: str) -> Column:
        """The column of a name; ValueError with the names that there are, or what is wrong with the column."""
        if name in self.unread:
            raise ValueError(self.unread[name])
        column: Column = chosen("column", name, self.columns)
        return column

    @property
    def goal(self) -> Column:
        """The column of the score; ValueError if none is named."""
        if self.score is None:
            raise ValueError("the table has no column for the score; name one when it is read")
        return self[self.score]

    def quantity(self, record: Any, where: str = "quantity", beside: Collection[str] = ()) -> Column:
        """The column that a problem file names: its name, or an object with the key `quantity`.

        Args:
            record: a JSON value.
            where: what it is called in a sentence.
            beside: keys of the object that somebody else reads.

        Raises:
            ValueError: for anything else, with the names that there are.
        """
        if isinstance(record, dict):
            record = check_keys(record, ("quantity", *beside), where, ("quantity",))["quantity"]
        try:
            return self[record]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    @property
    def costs(self) -> tuple[Column, ...]:
        """The other columns."""
        return tuple(column for name, column in self.columns.items() if name != self.score)

    @cached_property
    def rows(self) -> int:
        """Number of options of all positions together."""
        return sum(map(len, self.space.menus))

    def problem(self, *budgets: Budget, minimize: Sequence[Quantity] = (), report: Sequence[Quantity] = ()) -> DesignProblem:
        """The problem of the best selection within budgets.

        Args:
            budgets: on columns of the table, such as Budget(table["memory"], 40e9).
            minimize: columns to minimize beside the score: what is sought then is their front, with a score of which the least is
                best turned into its opposite.
            report: columns to report besides.
        """
        goal, costs = self.goal, tuple(minimize)
        space: Any = self.space  # stands in for a space of blocks
        if self.least and not costs:
            return DesignProblem(space, None, budgets, tuple(report), (goal,))
        return DesignProblem(space, negative(goal) if self.least else goal, budgets, tuple(report), costs)

    def largest(self, name: str) -> float:
        """The most that the values of a column can add up to; ValueError where that is beyond float64."""
        try:
            return math.fsum(float(row.max()) for row in self[name].rows)
        except OverflowError:
            raise ValueError(f"{name} adds up beyond the largest float64, {_LARGEST:.3g}; give it a larger unit") from None


def read_scores(
    path: Path | str, score: str | None = SCORE, *, least: bool = False, position: str = POSITION, item: str = ITEM
) -> ScoreTable:
    """The score table in a file: JSON if its name ends so, else CSV, with commas, semicolons or tabs between the cells.

    Positions that are all whole numbers come in their order, others in that of the file. A column in which every cell is a number
    is a quantity; any other may be present, and is not a quantity.

    Args:
        path: where it is.
        score: the column that says how good an option is; None: none of them does.
        least: whether the least score is best, as of a loss.
        position: the column of the positions.
        item: the column of the options' names; in JSON the names of the rows, unless they have it.

    Raises:
        ValueError: in one sentence with the file, the line or row, the column, the value and what is expected.
    """
    path = Path(path)
    text = read_text("score table", path).removeprefix("\ufeff")
    record = None
    if path.suffix.lower() == ".json":
        try:
            record = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the score table {path} {error}") from None
    try:
        cells = _of_csv(text) if record is None else _of_json(record, position, item)
        table = _table(cells, score, least, position, item)
    except ValueError as error:
        raise ValueError(f"the score table {path}: {error}") from None
    return replace(table, unread={name: f"the score table {path}: {why}" for name, why in table.unread.items()})


def table_from_json(
    record: Any, score: str | None = SCORE, *, least: bool = False, position: str = POSITION, item: str = ITEM
) -> ScoreTable:
    """The score table of a JSON value, see `read_scores`."""
    return _table(_of_json(record, position, item), score, least, position, item)


def table_to_dict(space: OptionSpace, columns: Sequence[Column]) -> dict[str, Any]:
    """The JSON object that `table_from_json` reads: every option of a space with its values in some columns."""
    heads = [column.name if column.unit == "1" else f"{column.name} [{column.unit}]" for column in columns]
    rows = [
        {
            POSITION: menu.position,
            ITEM: name,
            **{head: column.values[i, j].item() for head, column in zip(heads, columns, strict=True)},
        }
        for i, menu in enumerate(space.menus)
        for j, name in enumerate(menu.names)
    ]
    return {"rows": rows}


@dataclass(frozen=True)
class _Cells:
    """A table as it is written.

    Attributes:
        columns: the cells of each column by its name; None for one that a row of JSON lacks.
        units: of the columns.
        places: what each row is called in a sentence, such as line 7.
    """

    columns: dict[str, list[Any]]
    units: dict[str, str]
    places: Sequence[str]


def _of_csv(text: str) -> _Cells:
    """The cells of a CSV text: texts without the spaces around them."""
    head_line = text.lstrip().partition("\n")[0]
    if re.fullmatch("sep=.", head_line.strip()):
        raise ValueError(f"its first line is {head_line.strip()}, which only Excel reads; leave it out")
    if not head_line:
        raise ValueError(f"it is empty; expected a head such as {POSITION},{ITEM},{SCORE},memory and a row an option")
    delimiter = max(",;\t", key=head_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    head: list[str] | None = None
    rows, places = list[list[str]](), list[str]()
    try:
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if head is None:
                if len(row) == 1 and row[0].strip().startswith("#"):
                    raise ValueError(
                        f"line {reader.line_num} is a comment, {shown(row[0])}; expected the head of the table: leave it out"
                    )
                head = row
                continue
            if len(row) != len(head):
                raise ValueError(f"line {reader.line_num} has {len(row)} cells; expected {len(head)}, as the head has")
            rows.append(row)
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({error}); expected quotes around a cell in pairs") from None
    assert head is not None
    names, units = _heads(head)
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return _Cells({name: list(map(str.strip, cells)) for name, cells in zip(names, columns, strict=True)}, units, places)


def _of_json(record: Any, position: str, item: str) -> _Cells:
    """The cells of a JSON value, by the paths of its keys."""
    rows, places = list[dict[str, Any]](), list[str]()
    for place, row in _json_rows(record, position, item):
        if not isinstance(row, dict):
            raise ValueError(f"{place} is {shown(row)}; expected an object such as {_EXAMPLE}")
        rows.append(dict(_flat(row)))
        places.append(place)
    heads = list(dict.fromkeys(head for row in rows for head in row))
    names, units = _heads(heads)
    return _Cells({name: [row.get(head, _LACKING) for row in rows] for name, head in zip(names, heads, strict=True)}, units, places)


_EXAMPLE = '{"position": "layer 0", "item": "full", "score": 1.92, "memory": 402}'


class _Lacking:
    """Stands for a key that a row of JSON does not have."""

    def __repr__(self) -> str:
        return "missing"


_LACKING = _Lacking()


def _json_rows(record: Any, position: str, item: str) -> Iterator[tuple[str, Any]]:
    """The rows of a JSON value in any of its forms, each with what it is called; what its keys say is put into them."""
    if isinstance(record, dict) and isinstance(record.get("rows"), list):
        record = record["rows"]
    if isinstance(record, list):
        yield from ((f"row {number}", row) for number, row in enumerate(record, start=1))
    elif isinstance(record, dict) and all(isinstance(row, dict) for row in record.values()):
        for name, row in record.items():
            if position in dict(_flat(row)):
                yield f"row {shown(name)}", {item: name} | row
                continue
            for option, inner in row.items():
                place = f"option {shown(option)} of position {shown(name)}"
                yield place, {position: name, item: option} | inner if isinstance(inner, dict) else inner
    else:
        raise ValueError(f"it is {shown(record)}; expected a list of rows such as {_EXAMPLE}")


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested objects by their paths; a list of one entry is that entry."""
    for key, value in row.items():
        path = f"{before}.{key}" if before else key
        if isinstance(value, dict):
            yield from _flat(value, path)
        else:
            yield path, value[0] if isinstance(value, list) and len(value) == 1 else value


def _heads(heads: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The names of columns and their units: memory [MB] is the column memory in MB, and one without a unit a pure number."""
    names, units = list[str](), dict[str, str]()
    for number, head in enumerate(map(str.strip, heads), start=1):
        match = _HEAD.fullmatch(head)
        name, unit = (match["name"], match["unit"].strip()) if match and match["name"] else (head, "")
        if not name:
            raise ValueError(f"column {number} has no name; expected one in the head of each")
        if name in units:
            raise ValueError(f"two columns are called {name}; expected each name once")
        names.append(name)
        units[name] = unit or "1"
    return names, units


def _table(cells: _Cells, score: str | None, least: bool, position: str, item: str) -> ScoreTable:
    """The table of some cells."""
    named = {"position": position, "item": item} | ({} if score is None else {"minimize" if least else "score": score})
    for what, name in named.items():
        if name not in cells.columns:
            said = {"position": "the positions", "item": "the options"}.get(what, "the score")
            raise ValueError(
                f"it has no column {name}; name that of {said} with --{what} NAME, of {', '.join(cells.columns) or 'no columns'}"
            )
    if len(set(named.values())) < len(named):
        raise ValueError(f"position, item and score are named {', '.join(named.values())}; expected three columns")
    if not cells.places:
        raise ValueError("it has a head and no rows; expected a row an option")
    positions = [_name(cell, position, place) for cell, place in zip(cells.columns[position], cells.places, strict=True)]
    items = [_name(cell, item, place) for cell, place in zip(cells.columns[item], cells.places, strict=True)]
    order = list(dict.fromkeys(positions))
    if all(name.isascii() and name.isdigit() for name in order):
        order.sort(key=int)
    rows_of: dict[str, dict[str, int]] = {name: {} for name in order}
    for row, (where, name) in enumerate(zip(positions, items, strict=True)):
        first = rows_of[where].setdefault(name, row)
        if first != row:
            raise ValueError(
                f"{cells.places[row]}: position {where} has the option {name} already, at {cells.places[first]}; "
                "expected each option of a position once"
            )
    # Positions that have the same options have them in the same order.
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys(chain.from_iterable(rows_of.values())))}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    menus, places = [], []
    for where, own in rows_of.items():
        names = tuple(sorted(own, key=ranks.__getitem__))
        menus.append(OptionMenu(where, known.setdefault(names, names)))
        places.append(np.array([own[name] for name in names]))
    space, columns, unread, partly = OptionSpace(tuple(menus)), dict[str, Column](), dict[str, str](), list[str]()
    for name, column in cells.columns.items():
        if name in (position, item):
            continue
        if wrong := [row for row, cell in enumerate(column) if not _is_number(cell)]:
            unread[name] = f"{cells.places[wrong[0]]}: {_wrong(name, column[wrong[0]])}"
            if 2 * len(wrong) < len(column):
                partly.append(name)
            continue
        values = np.array(column, dtype=float)
        rows = [values[own] for own in places]
        columns[name] = Column(name, cells.units[name], rows, space)  # type: ignore[arg-type]  # made an array
    return ScoreTable(space, columns, score, least, unread, tuple(partly))


def _name(cell: Any, column: str, place: str) -> str:
    """What a cell calls a position or an option."""
    if isinstance(cell, int) and not isinstance(cell, bool):
        cell = str(cell)
    if isinstance(cell, list):
        raise ValueError(
            f"{place}: {column} is {shown(cell)}; expected one name, as one option is chosen for each position by itself"
        )
    if not isinstance(cell, str) or not cell.strip():
        said = "is empty" if cell == "" or cell is _LACKING else f"is {shown(cell)}"
        raise ValueError(f"{place}: {column} {said}; expected a name")
    if len(cell.strip().splitlines()) > 1:
        raise ValueError(f"{place}: {column} is {shown(cell)}; expected a name on one line")
    return cell.strip()


def _is_number(cell: Any) -> bool:
    """Whether a cell is a finite number."""
    if isinstance(cell, str):
        return _NUMBER.fullmatch(cell) is not None and math.isfinite(float(cell))
    return isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) <= _LARGEST


_LARGEST = float(np.finfo(float).max)


def _wrong(name: str, cell: Any) -> str:
    """Why a cell is not a number."""
    if cell == "" or cell is _LACKING:
        return f"{name} is {'empty' if cell == '' else 'missing'}; expected a number"
    if isinstance(cell, str) and re.fullmatch(r"[+-]?[1-9][0-9]{0,2}([,_ '][0-9]{3})+", cell):
        digits = re.sub("[,_ ']", "", cell)
        decimal = f", or {cell.replace(',', '.')} if the comma is a decimal one" if re.fullmatch("[^,]+,[^,]+", cell) else ""
        return f"{name} is {shown(cell)}; expected a number with nothing between its thousands, such as {digits}{decimal}"
    if isinstance(cell, str) and re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell):
        return f"{name} is {shown(cell)}; expected a number with a decimal point, such as {cell.replace(',', '.')}"
    if isinstance(cell, str) and re.fullmatch(r"[+-]?(nan|inf(inity)?)|#?n/?a", cell.lower()):
        return f"{name} is {shown(cell)}; expected a finite number"
    if isinstance(cell, str) and _NUMBER.fullmatch(cell):
        return f"{name} is {shown(cell)}; expected a number of at most {_LARGEST:.3g}"
    return f"{name} is {'null' if cell is None else shown(cell)}; expected a number"
