"""Datasheets: what is published of a device, one JSON file each, every figure with its source.

    {"format": "merino datasheet", "version": 2,
     "name": "my-board",
     "description": "one sentence",
     "peak_flops": {"float32": {"value": 48e9, "source": "where it is published, and how it was derived"}, ...},
     "bandwidth": {"value": 12.8e9, "source": "..."},
     "achieved": [{"software": "stream", "note": "how near this comes to measured latencies, and for what",
                   "bandwidth": {"value": 5.6e9, "source": "..."},
                   "efficiency": {"value": 0.4, "source": "..."},
                   "kernel_overhead_s": {"value": 5e-6, "source": "..."}}],
     "cache_bytes": {...}, "ram_bytes": {...},
     "idle_power_w": {...}, "active_power_w": {...}, "rated_power_w": {...},
     "energy_per_flop": {"float32": {...}}, "energy_per_byte": {...}}

Only `name`, `description`, `peak_flops` and `bandwidth` are required. A figure that nobody published is left out, and what needs it
refuses the device in one sentence. Those that are shipped lie in hardware_models/datasheets; a user's own is named by its path.
`hardware_models.roofline` computes latency and energy from a datasheet, `hardware_models.calibration` finds what software achieves
from measured latencies.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from formulation.architecture import positive_number
from formulation.records.files import json_text, replace_file
from formulation.records.reading import VERSION, chosen, parse_json, read_record, read_text, shipped_names, versioned
from hardware_models.device import check_device_name

_FORMAT = "merino datasheet"
RATED = "rated"
"""In place of a software: the figures of the vendor, which no software reaches."""


@dataclass(frozen=True)
class Precision:
    """How numbers are stored and multiplied.

    Attributes:
        weight_bits: bits a weight, without the scales of a quantization.
        activation_bits: bits an activation, and a number of the key-value cache.
        arithmetic: the precision whose peak the products run at.
    """

    weight_bits: float
    activation_bits: float
    arithmetic: str


PRECISIONS: dict[str, Precision] = {
    "float32": Precision(32, 32, "float32"),
    "tf32": Precision(32, 32, "tf32"),
    "bfloat16": Precision(16, 16, "bfloat16"),
    "float16": Precision(16, 16, "float16"),
    "int8": Precision(8, 8, "int8"),
    "int4": Precision(4, 16, "float16"),
}
"""Precisions by name. Weights of 4 bits are multiplied, and activations kept, in float16."""

ARITHMETIC = tuple(name for name, own in PRECISIONS.items() if own.arithmetic == name)
"""The precisions that a device has a peak for."""


@dataclass(frozen=True)
class Sourced:
    """A published number.

    Attributes:
        value: in the unit that the field's name says, else in SI units.
        source: where it is published, and how it was derived.

    Raises:
        ValueError: for a value that is not a finite number above 0, and for a source that says nothing.
    """

    value: float
    source: str

    def __post_init__(self) -> None:
        positive_number("value", self.value)
        _check_text("source", self.source)


@dataclass(frozen=True)
class Achieved:
    """What a software achieves on a device; a figure that is None is taken to be the rated one.

    Attributes:
        software: its name among those of the device: lower-case letters, digits, dots, hyphens.
        bandwidth: bytes that are moved a second [bytes/s].
        efficiency: share of the peak that matrix products reach, in (0, 1], in any precision.
        kernel_overhead_s: time that a kernel takes besides arithmetic and transfers, such as its launch [s].
        note: how near latencies by these figures come to measured ones, and for what they hold.

    Raises:
        ValueError: for a name that is none, and for an efficiency above 1.
    """

    software: str
    bandwidth: Sourced | None = None
    efficiency: Sourced | None = None
    kernel_overhead_s: Sourced | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.software == RATED:
            raise ValueError(f"software is {RATED!r}, which stands for the vendor's figures; expected another name")
        check_device_name(self.software)
        if self.efficiency is not None and self.efficiency.value > 1:
            raise ValueError(f"efficiency is {self.efficiency.value!r}; expected a share of the peak, at most 1")


@dataclass(frozen=True)
class Rates:
    """What a latency is computed with.

    Attributes:
        flops: operations a second [FLOP/s].
        bandwidth: bytes a second.
        kernel_overhead_s: time a kernel takes besides [s].
        basis: whose figures they are, in words.
    """

    flops: float
    bandwidth: float
    kernel_overhead_s: float
    basis: str


@dataclass(frozen=True)
class Datasheet:
    """What is published of a device.

    Attributes:
        name: as `shipped_datasheets` lists it, or as its file says: lower-case letters, digits, dots, hyphens.
        description: what it is, in one sentence.
        peak_flops: precision of `ARITHMETIC` -> operations a second [FLOP/s], without sparsity.
        bandwidth: rated bandwidth of the memory that holds the weights [bytes/s].
        achieved: what software achieves; the first is meant where none is named.
        cache_bytes: the largest cache that all of the device shares [bytes].
        ram_bytes: memory [bytes].
        idle_power_w: power drawn whatever is computed [W].
        active_power_w: power drawn under full load [W].
        rated_power_w: power that the device is rated for [W].
        energy_per_flop: precision of `ARITHMETIC` -> energy an operation [J].
        energy_per_byte: energy a byte read or written [J].
        origin: the name or the path that it was read by.

    Raises:
        ValueError: for a name that is none, for precisions other than those of `ARITHMETIC`, and for two sets of achieved figures
            of one name.
    """

    name: str
    description: str
    peak_flops: dict[str, Sourced] = field(hash=False)
    bandwidth: Sourced
    achieved: tuple[Achieved, ...] = ()
    cache_bytes: Sourced | None = None
    ram_bytes: Sourced | None = None
    idle_power_w: Sourced | None = None
    active_power_w: Sourced | None = None
    rated_power_w: Sourced | None = None
    energy_per_flop: dict[str, Sourced] | None = field(default=None, hash=False)
    energy_per_byte: Sourced | None = None
    origin: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_device_name(self.name)
        _check_text("description", self.description)
        if not self.peak_flops:
            raise ValueError("peak_flops is empty; expected a figure for each precision that the device multiplies in")
        for name in ("peak_flops", "energy_per_flop"):
            if unknown := [precision for precision in getattr(self, name) or () if precision not in ARITHMETIC]:
                raise ValueError(f"{name} has {', '.join(unknown)}; expected precisions among {', '.join(ARITHMETIC)}")
        names = [own.software for own in self.achieved]
        if len(set(names)) < len(names):
            raise ValueError(f"achieved has {', '.join(names)}; expected each software once")
        for own in self.achieved:
            if own.bandwidth is not None and own.bandwidth.value > self.bandwidth.value:
                raise ValueError(
                    f"achieved has a bandwidth of {own.bandwidth.value!r} for {own.software}; "
                    f"expected at most the rated one, {self.bandwidth.value!r}"
                )

    def figure(self, name: str, precision: str | None = None) -> float:
        """The value of a field, at a precision of `ARITHMETIC` where it has several; ValueError if nobody published it."""
        found = getattr(self, name)
        if found is None:
            raise ValueError(f"the datasheet of {self.name} states no {name}; add it to a file of your own, with its source")
        if precision is None:
            return float(found.value)
        if precision not in found:
            raise ValueError(f"{self.name} has no {name} in {precision!r}; its datasheet states it in {', '.join(found)}")
        return float(found[precision].value)

    def rates(self, precision: str = "float32", software: str = "") -> Rates:
        """What a latency is computed with.

        Args:
            precision: one of `PRECISIONS`.
            software: of `achieved`, or "rated" for the vendor's figures; "": the first of `achieved`, rated where there is none.

        Raises:
            ValueError: for a precision in which the device has no peak, and for a software that its datasheet does not know.
        """
        peak = self.figure("peak_flops", chosen("precision", precision, PRECISIONS).arithmetic)
        bandwidth = self.bandwidth.value
        known = {own.software: own for own in self.achieved}
        if software == RATED or not (software or known):
            return Rates(peak, bandwidth, 0.0, "as rated")
        own = chosen(f"software of {self.name}", software or next(iter(known)), {**known, RATED: None})
        return Rates(
            peak * (1 if own.efficiency is None else own.efficiency.value),
            bandwidth if own.bandwidth is None else own.bandwidth.value,
            0.0 if own.kernel_overhead_s is None else own.kernel_overhead_s.value,
            f"as {own.software} achieves",
        )

    def note(self, software: str = "") -> str:
        """How near latencies by `rates` come to measured ones, as far as the datasheet says."""
        named = [own for own in self.achieved if own.software == software] if software else list(self.achieved[:1])
        return named[0].note if named else ""


def _check_text(name: str, text: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}; expected a text")


def shipped_datasheets() -> tuple[str, ...]:
    """Names of the datasheets that come with the package."""
    return shipped_names(_folder())


def read_datasheet(name: str) -> Datasheet:
    """The shipped datasheet of that name, or the one in a file whose name ends in .json.

    Raises:
        ValueError: in one sentence if there isn't one or the file is damaged; nothing is guessed.
    """
    if name.endswith(".json"):
        text = read_text("datasheet", Path(name))
    else:
        chosen("datasheet", name, {**dict.fromkeys(shipped_datasheets()), "FILE.json": None})
        text = (_folder() / f"{name}.json").read_text(encoding="utf-8")
    try:
        return dataclasses.replace(datasheet_from_text(text), origin=name)
    except ValueError as error:
        raise ValueError(f"the datasheet {name}: {error}") from None


@lru_cache(maxsize=64)
def datasheet_from_text(text: str) -> Datasheet:
    """The datasheet in the text of a file; ValueError naming the key, the value and what was expected."""
    try:
        record = parse_json(text)
    except ValueError as error:
        raise ValueError(f"it {error}") from None
    keys = [each.name for each in dataclasses.fields(Datasheet) if each.name != "origin"]
    return read_record(Datasheet, versioned(record, _FORMAT, "datasheet"), "datasheet", keys)


def is_datasheet(record: Any) -> bool:
    """Whether a JSON value is that of a datasheet, and not of a device file."""
    return isinstance(record, dict) and record.get("format") == _FORMAT


def datasheet_text(sheet: Datasheet) -> str:
    """The text of the file."""
    return json_text({"format": _FORMAT, "version": VERSION} | _stated(dataclasses.asdict(sheet), ("origin",)))


def write_datasheet(sheet: Datasheet, path: Path) -> None:
    """Write the file that `read_datasheet` reads, atomically."""
    with replace_file(path) as file:
        file.write(datasheet_text(sheet).encode())


def _stated(record: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a record that say something, in nested records too."""
    stated: dict[str, Any] = {}
    for key, value in record.items():
        if key in without or value is None or value in ("", ()):
            continue
        if isinstance(value, dict):
            stated[key] = _stated(value)
        else:
            stated[key] = [_stated(item) for item in value] if isinstance(value, tuple) else value
    return stated


def _folder() -> Any:
    return resources.files("hardware_models") / "datasheets"
