"""Device files: one JSON file a device, with the latency tables measured on it and where each comes from.

    {"format": "merino device", "version": 2,
     "name": "my-board",
     "description": "one sentence", "source": "who measured it, or which publication", "ram_bytes": 4e9,
     "tables": [
      {"name": "torch-float32-prefill",
       "unit": "ms",
       "workload": {"phase": "prefill", "seq_len": 128, "batch": 1, "logits": "last"},
       "how": {"runtime": "PyTorch 2.13.0", "precision": "float32", "date": "2026-11-24", ...},
       "validated": {"widths": [256, 1024], "ffn_widths": [256, 4096], "layers": [1, 24],
                     "embedding_widths": [768], "vocabularies": [50257], "shared": [true]},
       "prices": {"pass": 5.1, "layer": 0.3, "attention_maps": 8.2},
       "conditional_prices": [
        {"work": "ffn_maps", "price": 1.3, "where": {"of": ["width", "ffn_width"], "multiple_of": 64}},
        {"work": "layer", "price": 0.2, "where": {"of": ["width"], "equal": 576}}],
       "error": {"networks": 60, "mape": 0.03, "within_10": 0.98, "spearman": 0.99, "rmse": 1.2,
                 "quantiles": [[0.5, 1.0], [0.95, 1.06]]},
       "surroundings": {"embedding_width": 768, "vocabulary": 50257, "positions": 2048},
       "rows": [{"blocks": [{"width": 512, "ffn_width": 512, "depth": 2}, {"width": 640, "ffn_width": 960, "depth": 1}],
                 "shared": true, "rounds_ms": [31.2, 31.5], "std_ms": 0.4, "passes": 20}]}]}

`workload` is a `hardware_models.workload.Workload`; `how` is free text by name; `prices` are in ms per unit of the kinds of work
in `hardware_models.workload.FEATURES`, and of what is no latency may be negative; each of `conditional_prices` is added in the
blocks of which its condition holds (`hardware_models.condition`); `error` is out of sample, its quantiles those of measured /
predicted. A table has prices, with what they were validated on, or rows of measured networks, or both: without prices they are
fitted to the rows when the file is read (`hardware_models.latency.fit_table`), so that a device without scipy can write such a
file. A row may also hold `visits`, from which the stand-alone script chose its rounds; one that has no rounds, because none of its
visits was clean, does not count. A table whose mean error exceeds `hardware_models.fit.LARGE_ERROR` is doubtful, and every latency
by it is named so. May be left out: `description`, `source`, `ram_bytes`, `error`, `rows`, `conditional_prices`, with rows
`validated`, and `quantity`, which says what is predicted where it is not latency (whose unit is ms). What may be left out of
`validated`, and what it then says, is in `hardware_models.latency.Validated`; `surroundings` may name a `family` and say whether
the head is `tied` and what the `joints` are, and lacks an `embedding_width` where it is that of the blocks.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from formulation import Architecture, Block
from formulation.architecture import positive_integer
from formulation.records.files import json_text, replace_file
from formulation.records.reading import (
    VERSION,
    WHOLE,
    Amount,
    PositiveInt,
    Within,
    check_keys,
    parse_json,
    read_record,
    read_text,
    shipped_names,
    shown,
    versioned,
)
from hardware_models.condition import ConditionalPrice, SignedPrice
from hardware_models.drawn import setting_of
from hardware_models.fit import FitError
from hardware_models.latency import LatencyTable, MeasuredNetwork, Validated, fit_table
from hardware_models.workload import FEATURES, Workload

_FORMAT = "merino device"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Device:
    """A device with its latency tables.

    Attributes:
        name: as `shipped` lists it, or as its file says: lower-case letters, digits, dots, hyphens.
        tables: at least one; the first is the one that is meant where none is named.
        description: what it is, in one sentence.
        source: who measured it, or which publication.
        ram_bytes: its memory, None if it is not known.
    """

    name: str
    tables: tuple[LatencyTable, ...]
    description: str = ""
    source: str = ""
    ram_bytes: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", tuple(self.tables))
        check_device_name(self.name)
        names = [table.name for table in self.tables]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the device {self.name} has the tables {', '.join(names) or 'none'}; expected one or more, each once")
        if self.ram_bytes is not None and not 0 < self.ram_bytes < math.inf:
            raise ValueError(f"the device {self.name} has ram_bytes {self.ram_bytes!r}; expected a positive number of bytes")

    def table(self, name: str | None = None) -> LatencyTable:
        """The table of that name, the first where none is named; ValueError listing the names if there isn't one."""
        if name is None:
            return self.tables[0]
        for table in self.tables:
            if table.name == name:
                return table
        raise ValueError(f"{self.name} has no table {name!r} (choose from {', '.join(table.name for table in self.tables)})")


def check_device_name(name: str) -> None:
    """ValueError for a name that no device may have."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the device's name is {shown(name)}; expected lower-case letters, digits, dots and hyphens, such as my-board"
        )


def shipped() -> tuple[str, ...]:
    """Names of the devices that come with the package."""
    return shipped_names(_folder())


def read_device(name: str) -> Device:
    """The shipped device of that name, or the one in a file whose name ends in .json.

    Raises:
        ValueError: in one sentence if there isn't one or the file is damaged; nothing is guessed.
    """
    if name.endswith(".json"):
        text = read_text("device file", Path(name))
    elif name in shipped():
        text = (_folder() / f"{name}.json").read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name, shipped(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown device {name!r}{hint} (choose from {', '.join(shipped())}, or name a device file ending in .json)"
        )
    try:
        device = device_from_text(text)
        return dataclasses.replace(device, tables=tuple(dataclasses.replace(table, origin=name) for table in device.tables))
    except ValueError as error:
        raise ValueError(f"the device file {name}: {error}") from None


def write_device(device: Device, path: Path) -> None:
    """Write the file that `read_device` reads, atomically; rows of measured networks take a line each."""
    with replace_file(path) as file:
        file.write(device_text(device).encode())


@dataclass(frozen=True)
class _Surroundings:
    """What the measured networks of a table have around their blocks."""

    vocabulary: PositiveInt
    positions: PositiveInt
    embedding_width: PositiveInt | None = None
    family: str = "merino"
    tied: bool | None = None
    joints: str = "linear"


@dataclass(frozen=True)
class _Row:
    """A measured network. One of which no visit was clean has visits and no rounds, and does not count."""

    blocks: tuple[Block, ...]
    shared: bool
    rounds_ms: tuple[float, ...]
    std_ms: Amount
    passes: Annotated[int, Within(0)]
    visits: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Table:
    """A latency table as a file holds it."""

    name: str
    unit: str
    workload: Annotated[Workload, WHOLE]
    quantity: str = "latency"
    how: dict[str, Any] = field(default_factory=dict)
    validated: Validated | None = None
    prices: dict[str, SignedPrice] | None = None
    conditional_prices: tuple[ConditionalPrice, ...] = ()
    error: FitError | None = None
    surroundings: _Surroundings | None = None
    rows: tuple[_Row, ...] = ()


@dataclass(frozen=True)
class _Written:
    """A device file."""

    name: str
    tables: tuple[_Table, ...]
    description: str = ""
    source: str = ""
    ram_bytes: Amount | None = None


@lru_cache(maxsize=64)
def device_from_text(text: str) -> Device:
    """The device in the text of a file; ValueError naming the key, the value and what was expected."""
    try:
        record = parse_json(text)
    except ValueError as error:
        raise ValueError(f"it {error}") from None
    written = read_record(_Written, versioned(record, _FORMAT, "device"), "device")
    tables = [_table(table, written.name, f"device.tables[{number}]") for number, table in enumerate(written.tables)]
    return Device(written.name, tuple(tables), written.description, written.source, written.ram_bytes)


def device_text(device: Device) -> str:
    """The text of the file, with one line for each row."""
    record: dict[str, Any] = {"format": _FORMAT, "version": VERSION, "name": device.name}
    record |= {"description": device.description, "source": device.source}
    if device.ram_bytes is not None:
        record["ram_bytes"] = device.ram_bytes
    record["tables"] = [_table_record(table) for table in device.tables]
    return json_text(record)


def _table_record(table: LatencyTable) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": table.name,
        "quantity": table.quantity,
        "unit": table.unit,
        "workload": dataclasses.asdict(table.workload),
        "how": table.how,
        "validated": {
            one.name: list(value)
            for one in dataclasses.fields(table.validated)
            if (value := getattr(table.validated, one.name)) or one.default is dataclasses.MISSING
        },
        "prices": dict(table.prices),
    }
    if table.conditional:
        record["conditional_prices"] = [
            {"work": each.work, "price": each.price, "where": each.where.to_dict()} for each in table.conditional
        ]
    if table.error is not None:
        record["error"] = {**dataclasses.asdict(table.error), "quantiles": [list(pair) for pair in table.error.quantiles]}
    if table.rows:
        record["surroundings"] = setting_of([row.design for row in table.rows])
        record["rows"] = [
            {
                "blocks": [block.to_dict() for block in row.design.blocks],
                "shared": row.design.shared,
                "rounds_ms": [float(f"{value:.6g}") for value in row.rounds_ms],
                "std_ms": float(f"{row.std_ms:.4g}"),
                "passes": row.passes,
            }
            for row in table.rows
        ]
    return record


def _table(table: _Table, device: str, where: str) -> LatencyTable:
    if not _NAME.fullmatch(table.name):
        raise ValueError(f"{where}.name is {shown(table.name)}; expected lower-case letters, digits, dots and hyphens")
    if table.quantity == "latency" and table.unit != "ms":
        raise ValueError(f"{where}.unit is {shown(table.unit)}; expected 'ms', nothing is converted")
    rows = _rows(table, where)
    if table.prices is None:
        if not rows:
            raise ValueError(f"{where} has neither prices nor rows; expected measured rows, or prices with what they hold for")
        if table.conditional_prices:
            raise ValueError(f"{where} has conditional_prices and lacks prices; expected both, or rows that prices are fitted to")
        fitted = fit_table(device, table.name, table.workload, rows, how=table.how)
        return dataclasses.replace(fitted, quantity=table.quantity, unit=table.unit)
    check_keys(table.prices, FEATURES, f"{where}.prices")
    _check_conditional(table.conditional_prices, where)
    if table.quantity == "latency":
        stated = {f"prices.{name}": price for name, price in table.prices.items()}
        stated |= {f"conditional_prices[{place}].price": each.price for place, each in enumerate(table.conditional_prices)}
        for name, price in stated.items():
            if price < 0:
                raise ValueError(f"{where}.{name} is {price:g}; expected a number of at least 0 in a table of latencies")
    if not any(table.prices.values()):
        raise ValueError(f"{where}.prices are all 0; expected at least one that is not")
    if table.validated is None:
        raise ValueError(f"{where} has prices and lacks validated; expected what they were validated on")
    prices = tuple((key, float(price)) for key, price in table.prices.items())
    return LatencyTable(
        device,
        table.name,
        table.workload,
        prices,
        table.validated,
        table.error,
        rows,
        table.how,
        table.quantity,
        table.unit,
        conditional=table.conditional_prices,
    )


def _check_conditional(prices: tuple[ConditionalPrice, ...], where: str) -> None:
    """ValueError for a work that is unknown, or that no block of which something could hold has."""
    known = [name for name, feature in FEATURES.items() if feature.in_blocks or feature.around]
    for place, each in enumerate(prices):
        if each.work not in known:
            raise ValueError(f"{where}.conditional_prices[{place}].work is {shown(each.work)}; expected one of {', '.join(known)}")


def _rows(table: _Table, where: str) -> tuple[MeasuredNetwork, ...]:
    rows: dict[Architecture, MeasuredNetwork] = {}
    if table.rows and table.surroundings is None:
        raise ValueError(f"{where} has rows and lacks surroundings; expected what is around the blocks of their networks")
    for number, row in enumerate(table.rows):
        if not row.rounds_ms and row.visits:
            continue
        assert table.surroundings is not None
        try:
            design = Architecture(row.blocks, row.shared, **dataclasses.asdict(table.surroundings))
            network = MeasuredNetwork(design, row.rounds_ms, float(row.std_ms), positive_integer("passes", row.passes))
        except ValueError as error:
            raise ValueError(f"{where}.rows[{number}]: {error}") from None
        if design in rows:
            raise ValueError(
                f"{where}.rows[{number}] repeats the network {design}; expected one row a network, with all its rounds"
            )
        rows[design] = network
    return tuple(rows.values())


def _folder() -> Any:
    return resources.files("hardware_models") / "devices"
