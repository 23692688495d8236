"""Problems as JSON files: spaces by name or in full, quantities as the caller has them read and written, budgets.

The file is versioned. Every key but `space` and an objective may be left out:

    {"format": "merino problem", "version": 2,
     "space": "fine",
     "maximize": {"quantity": "entropy", "rho": 0.01},
     "minimize": ["params"],
     "budgets": [{"quantity": "flops", "upper": 60e9, "unit": "FLOPs"}, {"quantity": "params", "at_least": 45e6}],
     "report": ["params"]}

A budget has an `upper` or an `at_least`; an object with both is a range, two budgets. Without `maximize`, the one quantity of
`minimize` is the objective: {"minimize": ["flops"]} asks for the fewest FLOPs.

`space` is paper, fine, deep, an object as `SearchSpace.from_dict` reads it, or {"union": [...]} of several; a quantity is its name,
or an object with `quantity` and its options: {"quantity": "latency", "device": "my-board.json", "confidence": 0.95, "upper": 50}.
`space` may also be a score table, in a file, {"table": "scores.csv"}, or in full, {"rows": [...]}: the quantities are its columns.
A budget's `unit` may be left out, but one that is given must be the quantity's own: nothing is converted.
A file that names code of a module (`my_module:MyCost`) is refused unless the user says `--trust-code`: reading a file runs no code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol

from formulation import Budget, DesignProblem, Quantity, SearchSpace, SpaceUnion, deep_space, fine_space, paper_space
from formulation.presets import LAYER_SPACES, edge_space
from formulation.records.reading import (
    VERSION,
    Within,
    brief,
    check_keys,
    chosen,
    format_of,
    is_number,
    read_json,
    read_record,
    shown,
    versioned,
)
from formulation.score_file import ITEM, POSITION, ScoreTable, read_scores, table_from_json, table_to_dict
from formulation.score_table import Column, OptionSpace

SPACES: dict[str, Callable[[], Any]] = {
    "paper": paper_space,
    "fine": fine_space,
    "deep": deep_space,
    **LAYER_SPACES,
    "edge-layers": edge_space,
}
"""Spaces by name: each a SearchSpace or a SpaceUnion."""
NAMED_SPACES = f"{', '.join(SPACES)}, or a JSON file"
"""What may be given for a space, for the help of a command."""


_FORMAT = "merino problem"


_MOST_BLOCKS, _MOST_LAYERS, _MOST_ITEMS, _MOST_WIDTHS, _MOST_PARTS = 64, 2_000, 10_000, 256, 256
"""What a problem file may ask for: more blocks, layers in all, items or widths of a block, or spaces of a union are a mistake."""


def read_space(name: str) -> SearchSpace | SpaceUnion:
    """The named space, or the one or the union in a JSON file; ValueError if it is neither."""
    if not name.endswith(".json"):
        return chosen("space", name, {**SPACES, "FILE.json": None})()
    record = read_json("space file", Path(name))
    try:
        return _space(record, "space")
    except ValueError as error:
        raise ValueError(f"the space file {name}: {error}") from None


def read_one_space(name: str) -> SearchSpace:
    """As `read_space`, for what reads a single space; ValueError for a union."""
    space = read_space(name)
    if isinstance(space, SpaceUnion):
        what = f"the space file {name}" if name.endswith(".json") else f"the space {name}"
        raise ValueError(f"{what} holds a union of {len(space.parts)} spaces; expected a single one here")
    return space


class ReadQuantity(Protocol):
    """How a file names a quantity: `hardware_models.names.quantity_from_dict`, with or without trust in code."""

    def __call__(self, record: Any, where: str, beside: Collection[str] = (), /) -> Quantity:
        """The quantity of a JSON value; ValueError with its path `where`. Keys in `beside` belong to somebody else."""
        ...


WriteQuantity = Callable[[Quantity], dict[str, Any]]
"""The other way round: `hardware_models.names.quantity_to_dict`."""


@dataclass(frozen=True)
class _Written:
    """A problem as a file holds it, its quantities still to be read."""

    space: Any
    maximize: Any = None
    minimize: tuple[Any, ...] = ()
    budgets: tuple[Any, ...] = ()
    report: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Union:
    """Several spaces as a file holds them, each still to be read."""

    union: tuple[Any, ...]


_Bound = Annotated[float, Within(-1e100, 1e100)]
"""So small that sums and products of a few stay finite."""


@dataclass(frozen=True)
class _Limit:
    """What an entry of `budgets` holds beside its quantity."""

    upper: _Bound | None = None
    at_least: _Bound | None = None
    unit: str | None = None


def is_problem_file(path: Path) -> bool:
    """Whether a file is JSON that says it is a problem, whatever else may be wrong with it."""
    return format_of(path) == _FORMAT


def read_problem(path: Path, read_quantity: ReadQuantity) -> DesignProblem:
    """The problem in a JSON file.

    Args:
        path: where it is.
        read_quantity: how quantities are named.

    Raises:
        ValueError: in one sentence if there is no such file or it is not a problem, and what `read_quantity` raises.
    """
    record = read_json("problem file", path)
    try:
        return problem_from_dict(record, read_quantity)
    except ValueError as error:
        raise ValueError(f"the problem file {path}: {error}") from None


def problem_from_dict(record: Any, read_quantity: ReadQuantity, where: str = "problem") -> DesignProblem:
    """The problem that a JSON object describes.

    Args:
        record: a JSON value.
        read_quantity: how quantities are named.
        where: what it is called in a sentence.

    Raises:
        ValueError: naming the key that is missing, unknown or wrong.
    """
    written = read_record(_Written, versioned(record, _FORMAT, where), where)
    table = _score_table(written.space, f"{where}.space")
    if table is not None:
        read_quantity = table.quantity

    def several(key: str, entries: Sequence[Any]) -> tuple[Quantity, ...]:
        return tuple(read_quantity(entry, f"{where}.{key}[{number}]") for number, entry in enumerate(entries))

    budgets = [_budgets(entry, read_quantity, f"{where}.budgets[{number}]") for number, entry in enumerate(written.budgets)]
    return DesignProblem(
        _space(written.space, f"{where}.space") if table is None else table.space,  # type: ignore[arg-type]  # stand in for a space
        None if written.maximize is None else read_quantity(written.maximize, f"{where}.maximize"),
        tuple(chain.from_iterable(budgets)),
        several("report", written.report),
        several("minimize", written.minimize),
    )


def problem_to_dict(problem: DesignProblem, write_quantity: WriteQuantity) -> dict[str, Any]:
    """The JSON object that `problem_from_dict` reads; ValueError for a quantity that has no name in such a file."""
    space: Any = problem.space
    if isinstance(space, OptionSpace):
        columns = [quantity for quantity in dict.fromkeys(problem.quantities) if isinstance(quantity, Column)]
        write_quantity = partial(_column_record, columns)
    return {
        "format": _FORMAT,
        "version": VERSION,
        "space": table_to_dict(space, columns) if isinstance(space, OptionSpace) else space.to_dict(),
        **({} if problem.maximize is None else {"maximize": write_quantity(problem.maximize)}),
        "minimize": [write_quantity(quantity) for quantity in problem.minimize],
        "budgets": [
            {**write_quantity(budget.quantity), budget.side: budget.bound, "unit": budget.quantity.unit}
            for budget in problem.subject_to
        ],
        "report": [write_quantity(quantity) for quantity in problem.report],
    }


@dataclass(frozen=True)
class _TableFile:
    """A score table in a file of its own."""

    table: str
    position: str = POSITION
    item: str = ITEM


def _score_table(record: Any, where: str) -> ScoreTable | None:
    """The score table that a space is; None if it is none."""
    if isinstance(record, dict) and "rows" in record:
        check_keys(record, ("rows",), where)
        try:
            return table_from_json(record, None)
        except ValueError as error:
            raise ValueError(f"{where}: {brief(error)}") from None
    if isinstance(record, dict) and "table" in record:
        file = read_record(_TableFile, record, where)
        return read_scores(file.table, None, position=file.position, item=file.item)
    return None


def _column_record(columns: Sequence[Column], quantity: Quantity) -> dict[str, Any]:
    """How a file names a column of its table."""
    if not isinstance(quantity, Column) or [column.name for column in columns].count(quantity.name) > 1:
        raise ValueError(f"{quantity.name} cannot be written beside a score table; expected a column with a name of its own")
    return {"quantity": quantity.name}


def _space(record: Any, where: str) -> SearchSpace | SpaceUnion:
    if not isinstance(record, dict):
        return chosen("space", record, SPACES)()
    if "union" in record:
        parts = read_record(_Union, record, where).union
        if len(parts) > _MOST_PARTS:
            raise ValueError(f"{where}.union has {len(parts):,} spaces; expected at most {_MOST_PARTS}")
        spaces = tuple(_space(part, f"{where}.union[{number}]") for number, part in enumerate(parts))
        try:
            return SpaceUnion(spaces)  # type: ignore[arg-type]  # takes unions apart
        except ValueError as error:
            raise ValueError(f"{where}: {brief(error)}") from None
    menus = record.get("menus", [])
    for count in (record.get("blocks", 1), len(menus) if isinstance(menus, list) else 0):
        if is_number(count, math.inf) and count > _MOST_BLOCKS:
            raise ValueError(f"{where} has {shown(count)} blocks; expected at most {_MOST_BLOCKS}")
    for menu in [record, *(menus if isinstance(menus, list) else [])]:
        if isinstance(menu, dict):
            choices = [entries for key, entries in menu.items() if key != "menus" and isinstance(entries, list)]
            if math.prod(map(len, choices)) > _MOST_ITEMS:
                raise ValueError(f"{where} has a menu of more than {_MOST_ITEMS:,} items; expected fewer choices")
    space = SearchSpace.from_dict(record, where)
    try:
        _check_size(space)
    except ValueError as error:
        raise ValueError(f"{where}: {brief(error)}") from None
    return space


def _check_size(space: SearchSpace) -> None:
    """ValueError for a space that no solver could take in, or that holds a block which is none."""
    if (layers := sum(menu.all_depths[-1] for menu in space.menus)) > _MOST_LAYERS:
        raise ValueError(f"its depths add up to {layers:,} layers; expected at most {_MOST_LAYERS:,}")
    for menu in dict.fromkeys(space.menus):
        if len(menu.widths) > _MOST_WIDTHS:
            raise ValueError(f"a menu has {len(menu.widths):,} widths; expected at most {_MOST_WIDTHS}")
        _ = menu.items  # makes every block, which refuses those out of range


def _budgets(record: Any, read_quantity: ReadQuantity, where: str) -> list[Budget]:
    """The budget of an object with `upper` or `at_least`, or the two budgets of one with both."""
    if not isinstance(record, dict):
        raise ValueError(f'{where} is {shown(record)}; expected an object such as {{"quantity": "flops", "upper": 60e9}}')
    quantity = read_quantity(record, where, ("upper", "at_least", "unit"))
    limit = read_record(_Limit, {key: record[key] for key in ("upper", "at_least", "unit") if key in record}, where)
    if limit.unit not in (None, quantity.unit):
        raise ValueError(
            f"{where}.unit is {shown(limit.unit)}; expected {quantity.unit!r} for {quantity.name}, nothing is converted"
        )
    bounds = {side: bound for side in ("upper", "at_least") if (bound := getattr(limit, side)) is not None}
    if not bounds:
        raise ValueError(f"{where} lacks upper or at_least; expected a number of {quantity.unit}")
    try:
        return [Budget(quantity, **{side: bound}) for side, bound in bounds.items()]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
