"""Device files: one JSON file a device, with the latency tables measured on it and where each comes from.

    {"format": "merino device", "version": 1,
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
       "error": {"networks": 60, "mape": 0.03, "within_10": 0.98, "spearman": 0.99, "rmse": 1.2,
                 "quantiles": [[0.5, 1.0], [0.95, 1.06]]},
       "surroundings": {"embedding_width": 768, "vocabulary": 50257, "positions": 2048},
       "rows": [{"blocks": "512/512x2 640/960x1", "shared": true, "rounds_ms": [31.2, 31.5], "std_ms": 0.4, "passes": 20}]}]}

`workload` is `hardware_models.workload.Workload`; `how` is free text by name; `prices` are in ms per unit of the kinds of work in
`hardware_models.workload.FEATURES`; `error` is out of sample, its quantiles those of measured / predicted. A table has prices with
what they were validated on, or rows of measured networks, or both: without prices they are fitted to the rows when the file is
read (`hardware_models.latency.fit_table`), so that a device without scipy can write such a file. A row may also hold `visits`, from
which the stand-alone script chose its rounds; one that has no rounds, because none of its visits was clean, does not count. A table
whose mean error exceeds `hardware_models.fit.LARGE_ERROR` is doubtful, and every latency by it is named so. May be left out:
`description`, `source`, `ram_bytes`, `error`, `rows`, with rows `validated`, and `quantity`, which says what is predicted where it
is not latency (whose unit is ms).
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from formulation import Architecture
from formulation.records.files import replace_file
from hardware_models.fit import FitError
from hardware_models.latency import LatencyTable, Validated, fit_table
from hardware_models.measurement import MeasuredNetwork, read_blocks
from hardware_models.workload import FEATURES, Workload

FORMAT, VERSION = "merino device", 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Device:
    """A device with its latency tables.

    name         as `shipped` lists it, or as its file says: lower-case letters, digits, dots, hyphens
    tables       at least one; the first is the one that is meant where none is named
    description  what it is, in one sentence
    source       who measured it, or which publication
    ram_bytes    its memory, None where it is not known
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
        """The table of that name, the first where none is named; ValueError listing the names where there is none."""
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
            f"the device's name is {_shown(name)}; expected lower-case letters, digits, dots and hyphens, such as my-board"
        )


def shipped() -> tuple[str, ...]:
    """Names of the devices that come with the package."""
    return tuple(sorted(path.name.removesuffix(".json") for path in _folder().iterdir() if path.name.endswith(".json")))


def read_device(name: str) -> Device:
    """The shipped device of that name, or the one in a file whose name ends in .json.

    Raises ValueError in one sentence where there is none or the file is damaged; nothing is guessed.
    """
    if name.endswith(".json"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot read the device file {name}: {str(error.strerror).lower()}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the device file {name} is no text in UTF-8") from None
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
    """Write the file that `read_device` reads, whole or not at all; rows of measured networks take a line each."""
    with replace_file(path) as file:
        file.write(device_text(device).encode())


@lru_cache(maxsize=64)
def device_from_text(text: str) -> Device:
    """The device in the text of a file; ValueError naming the table, the key and the value that is wrong."""
    try:
        record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON, or cut short ({error})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply; expected a device as hardware_models/device.py describes it") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f'it is no device file; expected a JSON object with "format": "{FORMAT}"')
    if record.get("version") != VERSION or isinstance(record["version"], bool):
        raise ValueError(f"its version is {_shown(record.get('version'))}; this release reads version {VERSION}")
    top = _Reader(record, "the device", ("format", "version", "name", "tables", "description", "source", "ram_bytes"))
    name = top.text("name")
    tables = [_read_table(entry, name, number) for number, entry in enumerate(top.list("tables"), start=1)]
    return Device(
        name,
        tuple(tables),
        top.text("description", ""),
        top.text("source", ""),
        None if "ram_bytes" not in record else top.number("ram_bytes"),
    )


def device_text(device: Device) -> str:
    """The text of the file, with one line for each row."""
    record: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": device.name}
    record |= {"description": device.description, "source": device.source}
    if device.ram_bytes is not None:
        record["ram_bytes"] = device.ram_bytes
    record["tables"] = [_table_record(table) for table in device.tables]
    rows = [json.dumps(row) for table in record["tables"] for row in table.get("rows", [])]
    mark = "a row of a measured network"
    for table in record["tables"]:
        table["rows"] = [mark] * len(table.get("rows", []))
        if not table["rows"]:
            del table["rows"]
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    parts = text.split(json.dumps(mark))
    return "".join(part + row for part, row in zip(parts, [*rows, "\n"], strict=True))


def _table_record(table: LatencyTable) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": table.name,
        "quantity": table.quantity,
        "unit": table.unit,
        "workload": dataclasses.asdict(table.workload),
        "how": table.how,
        "validated": {key: list(value) for key, value in dataclasses.asdict(table.validated).items()},
        "prices": dict(table.prices),
    }
    if table.error is not None:
        record["error"] = {**dataclasses.asdict(table.error), "quantiles": [list(pair) for pair in table.error.quantiles]}
    if table.rows:
        first = table.rows[0].design
        record["surroundings"] = {key: getattr(first, key) for key in _SURROUNDINGS}
        record["rows"] = [
            {
                "blocks": " ".join(map(str, row.design.blocks)),
                "shared": row.design.shared,
                "rounds_ms": [float(f"{value:.6g}") for value in row.rounds_ms],
                "std_ms": float(f"{row.std_ms:.4g}"),
                "passes": row.passes,
            }
            for row in table.rows
        ]
    return record


_SURROUNDINGS = ("embedding_width", "vocabulary", "positions")


def _read_table(entry: Any, device: str, number: int) -> LatencyTable:
    keys = ("name", "quantity", "unit", "workload", "how", "validated", "prices", "error", "surroundings", "rows")
    table = _Reader(entry, f"table {number}", keys)
    name = table.text("name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name of table {number} is {_shown(name)}; expected lower-case letters, digits, dots and hyphens")
    table = _Reader(entry, f"the table {name}", keys)
    quantity, unit = table.text("quantity", "latency"), table.text("unit")
    if quantity == "latency" and unit != "ms":
        raise ValueError(f"the table {name} has unit {_shown(unit)}; expected 'ms', nothing is converted")
    workload = _Reader(table.object("workload"), f"the workload of {name}", tuple(f.name for f in dataclasses.fields(Workload)))
    work = Workload(workload.text("phase"), workload.whole("seq_len"), workload.whole("batch"), workload.text("logits"))
    how = table.object("how", {})
    rows = _read_rows(table, name) if "rows" in table.record else ()
    if "prices" not in table.record:
        if not rows:
            raise ValueError(
                f"the table {name} has neither prices nor rows; expected measured rows, or prices with what they hold for"
            )
        return dataclasses.replace(fit_table(device, name, work, rows, how=how), quantity=quantity, unit=unit)
    prices = table.object("prices")
    if unknown := set(prices) - set(FEATURES):
        raise ValueError(
            f"the prices of {name} have unknown keys {_shown(sorted(unknown))}; expected some of {', '.join(FEATURES)}"
        )
    price = _Reader(prices, f"the prices of {name}", tuple(FEATURES))
    values = tuple((key, price.number(key)) for key in prices)
    if not any(value for _, value in values):
        raise ValueError(f"the prices of {name} are all 0; expected at least one that is not")
    validated, error = _read_validated(table.object("validated"), name), _read_error(table, name)
    return LatencyTable(device, name, work, values, validated, error, rows, how, quantity, unit)


def _read_validated(record: dict[str, Any], name: str) -> Validated:
    keys = tuple(field.name for field in dataclasses.fields(Validated))
    reader = _Reader(record, f"what {name} was validated on", keys)

    def ends(key: str) -> tuple[int, int]:
        values = reader.wholes(key)
        if len(values) != 2 or values[0] > values[1]:
            raise ValueError(f"{reader.what} has {key} {_shown(record[key])}; expected the least and the greatest")
        return values[0], values[1]

    shared = reader.list("shared")
    if not shared or not all(isinstance(value, bool) for value in shared):
        raise ValueError(f"{reader.what} has shared {_shown(shared)}; expected a list of true, false or both")
    around = tuple(reader.wholes("embedding_widths")), tuple(reader.wholes("vocabularies"))
    return Validated(ends("widths"), ends("ffn_widths"), ends("layers"), *around, tuple(shared))


def _read_error(table: _Reader, name: str) -> FitError | None:
    if "error" not in table.record:
        return None
    reader = _Reader(table.object("error"), f"the error of {name}", tuple(field.name for field in dataclasses.fields(FitError)))
    quantiles = []
    for pair in reader.list("quantiles"):
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)) or not 0 < pair[0] < 1 or pair[1] <= 0:
            raise ValueError(f"{reader.what} has the quantile {_shown(pair)}; expected [probability, ratio measured / predicted]")
        quantiles.append((float(pair[0]), float(pair[1])))
    if len(quantiles) < 2 or any(a[0] >= b[0] or a[1] > b[1] for a, b in itertools.pairwise(quantiles)):
        raise ValueError(f"{reader.what} has quantiles {_shown(quantiles)}; expected two or more, both entries rising")
    spearman: Any = reader.record.get("spearman")
    if not _is_number(spearman) or not -1 <= spearman <= 1:
        raise ValueError(f"{reader.what} has spearman {_shown(spearman)}; expected a number from -1 to 1")
    return FitError(
        reader.whole("networks"),
        reader.number("mape"),
        reader.number("within_10"),
        float(spearman),
        reader.number("rmse"),
        tuple(quantiles),
    )


def _read_rows(table: _Reader, name: str) -> tuple[MeasuredNetwork, ...]:
    around = _Reader(table.object("surroundings"), f"the surroundings of {name}", _SURROUNDINGS)
    setting = {key: around.whole(key) for key in _SURROUNDINGS}
    rows: dict[Architecture, MeasuredNetwork] = {}
    for number, entry in enumerate(table.list("rows"), start=1):
        row = _Reader(entry, f"row {number} of {name}", ("blocks", "shared", "rounds_ms", "std_ms", "passes", "visits"))
        if not isinstance(row.record.get("shared"), bool):
            raise ValueError(f"{row.what} has shared {_shown(row.record.get('shared'))}; expected true or false")
        rounds = row.list("rounds_ms")
        if not rounds and row.record.get("visits"):
            continue
        if not all(map(_is_number, rounds)):
            raise ValueError(f"{row.what} has rounds_ms {_shown(rounds)}; expected a list of numbers")
        try:
            design = Architecture(read_blocks(row.text("blocks")), row.record["shared"], **setting)
            network = MeasuredNetwork(design, tuple(rounds), row.number("std_ms"), row.whole("passes"))
        except ValueError as error:
            raise ValueError(f"row {number} of {name}: {error}") from None
        if design in rows:
            raise ValueError(
                f"row {number} of {name} repeats the network {design}; expected one row a network, with all its rounds"
            )
        rows[design] = network
    return tuple(rows.values())


class _Reader:
    """A JSON object whose keys are read with checks; ValueError in one sentence that names object, key and value."""

    def __init__(self, record: Any, what: str, known: Sequence[str]) -> None:
        if not isinstance(record, dict):
            raise ValueError(f"{what} is {_shown(record)}; expected a JSON object")
        if unknown := set(record) - set(known):
            raise ValueError(f"{what} has unknown keys {_shown(sorted(unknown))}; expected some of {', '.join(known)}")
        self.record, self.what = record, what

    def _get(self, key: str, kind: type, expected: str, default: Any) -> Any:
        value = self.record.get(key, default)
        if key not in self.record and default is None:
            raise ValueError(f"{self.what} lacks {key}; expected {expected}")
        if not isinstance(value, kind):
            raise ValueError(f"{self.what} has {key} {_shown(value)}; expected {expected}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._get(key, str, "a text", default)
        return value

    def list(self, key: str) -> list[Any]:
        value: list[Any] = self._get(key, list, "a list", None)
        return value

    def object(self, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        value: dict[str, Any] = self._get(key, dict, "an object", default)
        return value

    def number(self, key: str) -> float:
        value = self._get(key, object, "a number of at least 0", None)
        if not _is_number(value) or value < 0:
            raise ValueError(f"{self.what} has {key} {_shown(value)}; expected a number of at least 0")
        return float(value)

    def whole(self, key: str) -> int:
        value = self._get(key, object, "a whole number of at least 1", None)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.what} has {key} {_shown(value)}; expected a whole number of at least 1")
        return value

    def wholes(self, key: str) -> Sequence[int]:
        values = self.list(key)
        if not values or not all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values):
            raise ValueError(f"{self.what} has {key} {_shown(values)}; expected whole numbers of at least 1")
        return values


def _folder() -> Any:
    return resources.files("hardware_models") / "devices"


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"it holds the value {text}; expected finite numbers")


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"it holds the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object; expected it once"
        )
    return record


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e100  # sums and products stay finite


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
