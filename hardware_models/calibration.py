"""What software achieves of a datasheet's figures, fitted to measured latencies: bandwidth, share of the peak, overhead a kernel.

    python -m hardware_models.calibration raspberry-pi-4 raspberry-pi-4
    python -m hardware_models.calibration my-board-sheet.json my-board.json:torch-float32-prefill --output calibrated.json

The first names a datasheet, the others devices with their latency tables, all or one of them. Three numbers are fitted such that
the roofline comes near the measured networks of the tables; where a table keeps only prices, near its predictions for networks
drawn at random from what it was validated on. Half of the networks are fitted to, the error is that of the other half. Numbers that
no latency depends on, or that end at the rated ones, are left out. --output writes the datasheet with what was found as its first
set.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formulation import Architecture, Block
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command, run_command
from formulation.command.words import text_table
from formulation.family import family_of
from formulation.records.files import json_text
from hardware_models.datasheet import RATED, Achieved, Datasheet, Sourced, read_datasheet, write_datasheet
from hardware_models.device import read_device
from hardware_models.fit import FitError, fit_error
from hardware_models.latency import LatencyTable, Validated
from hardware_models.roofline import DecodeLatency, PrefillLatency

_NETWORKS = 200
"""Networks drawn at random for a table that keeps only prices."""
_NEAR = 0.02
"""A number this near the rated one, relatively, cannot be told from it."""
_SEEN = 1e-6
"""Derivative below which a number changes no latency, and is not seen."""


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        achieved: the figures, ready for a datasheet.
        errors: name of a table -> error on networks that were not fitted to.
        before: name of a table -> median of measured / rated roofline on the same networks.
    """

    achieved: Achieved
    errors: dict[str, FitError]
    before: dict[str, float]


def calibrate(sheet: Datasheet, tables: Sequence[LatencyTable], software: str, precision: str = "float32") -> Calibration:
    """Fit what software achieves on a device to latency tables of it, by least squares of the logarithm of the ratio.

    Args:
        sheet: the rated figures.
        tables: of the device; each counts alike.
        software: name for what is found.
        precision: that the tables were measured in.

    Raises:
        ValueError: for no tables, and for one that holds something else than a latency.
    """
    from scipy.optimize import least_squares

    if not tables:
        raise ValueError("there is no latency table to calibrate with; expected at least one")
    samples = [_Sample.of(table, sheet) for table in tables]

    def differences(logarithms: np.ndarray) -> np.ndarray:
        known = _with(sheet, *_numbers(logarithms))
        return np.concatenate([np.log(one.ratios(known, precision)[0::2]) / math.sqrt(len(one.measured)) for one in samples])

    # From the rated figures and nothing a kernel: by shares of peak and bandwidth, and the overhead in units of 10 µs.
    found = least_squares(differences, np.log([0.3, 0.3, 1.0]), bounds=(np.log([1e-4, 1e-4, 1e-6]), np.log([1.0, 1.0, 1e5])))
    efficiency, share, overhead = _numbers(found.x)
    seen = np.abs(found.jac).max(axis=0) > _SEEN
    calibrated = _with(sheet, efficiency, share, overhead)
    errors = {}
    for one in samples:
        ratios = one.ratios(calibrated, precision)[1::2]
        errors[one.name] = fit_error(ratios * one.measured[1::2], one.measured[1::2])
    before = {one.name: float(np.median(1 / one.ratios(_with(sheet, 1.0, 1.0, 0.0), precision)[1::2])) for one in samples}
    names = ", ".join(one.name for one in samples)
    source = f"fitted to the latency tables {names} (python -m hardware_models.calibration)"
    mean = "; ".join(f"{name}: mean error {100 * error.mape:.0f} %" for name, error in errors.items())
    return Calibration(
        Achieved(
            software,
            Sourced(_rounded(share * sheet.bandwidth.value), source) if seen[1] and share < 1 - _NEAR else None,
            Sourced(_rounded(efficiency), source) if seen[0] and efficiency < 1 - _NEAR else None,
            Sourced(_rounded(overhead), source) if seen[2] else None,
            f"on networks that were not fitted to, beside the tables' own error: {mean}",
        ),
        errors,
        before,
    )


@dataclass(frozen=True)
class _Sample:
    """Networks with the latencies that a table has for them [ms]; without their output head where the table prices none."""

    table: LatencyTable
    designs: tuple[Architecture, ...]
    measured: np.ndarray
    head: bool

    @property
    def name(self) -> str:
        return f"{self.table.device}:{self.table.name}"

    @classmethod
    def of(cls, table: LatencyTable, sheet: Datasheet) -> _Sample:
        if table.unit != "ms":
            raise ValueError(f"the table {table.name} of {table.device} is in {table.unit}; expected latencies in ms")
        if table.rows:
            return cls(table, tuple(row.design for row in table.rows), np.array([row.mean_ms for row in table.rows]), True)
        designs = _designs(table, np.random.default_rng(0))
        # A table without a price of a pass or of the head prices layers alone.
        head = bool({"pass", "head"} & {name for name, _ in table.prices})
        return cls(table, designs, np.array([table.predict(design) for design in designs]), head)

    def ratios(self, sheet: Datasheet, precision: str) -> np.ndarray:
        """Roofline / measured of every network."""
        work = self.table.workload
        model = (
            PrefillLatency(sheet, work.seq_len, precision, work.batch, work.logits)
            if work.phase == "prefill"
            else DecodeLatency(sheet, work.seq_len, precision, work.batch)
        )
        values = [model(design) - (0 if self.head else model.fixed(design)) for design in self.designs]
        return np.array(values) / self.measured


def _designs(table: LatencyTable, random: np.random.Generator) -> tuple[Architecture, ...]:
    """Networks of one block, drawn from what a table was validated on."""
    seen = table.validated
    widths = [width for width in range(seen.widths[0], seen.widths[1] + 1) if width % 64 == 0] or list(seen.widths)
    family = "merino" if "merino" in seen.families else seen.families[0]
    designs = []
    for _ in range(_NETWORKS):
        width = int(random.choice(widths))
        outside = width if width in seen.embedding_widths or not family_of(family).joints else seen.embedding_widths[0]
        ffn_width, layers = (int(random.integers(ends[0], ends[1] + 1)) for ends in (seen.ffn_widths, seen.layers))
        block = Block(width, ffn_width, layers, *_heads(seen, width, random), gated=seen.gated[0])
        designs.append(Architecture((block,), seen.shared[0], outside, seen.vocabularies[0], family=family))
    return tuple(designs)


def _heads(seen: Validated, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """h, k, d and d' of a layer, drawn from what was seen; h·d = E where no heads are stated."""
    head_size = int(random.choice(seen.head_sizes))
    heads = width // head_size if seen.heads is None else int(random.integers(seen.heads[0], seen.heads[1] + 1))
    least, most = seen.kv_heads or (heads, heads)
    kv_heads = int(random.choice([number for number in range(least, most + 1) if heads % number == 0] or [heads]))
    return heads, kv_heads, head_size, int(random.choice(seen.value_head_sizes or (head_size,)))


def _numbers(logarithms: np.ndarray) -> tuple[float, float, float]:
    """Share of the peak, share of the bandwidth, overhead of a kernel [s]."""
    efficiency, share, overhead = map(float, np.exp(logarithms))
    return efficiency, share, overhead * 1e-5


def _with(sheet: Datasheet, efficiency: float, share: float, overhead: float) -> Datasheet:
    """The datasheet with these numbers as its only set, where nothing is kept in a cache: the tables priced each application."""
    own = Achieved(
        "fitted",
        Sourced(share * sheet.bandwidth.value, "fitted"),
        Sourced(min(1.0, efficiency), "fitted"),
        Sourced(overhead, "fitted") if overhead > 0 else None,
    )
    return dataclasses.replace(sheet, achieved=(own,), cache_bytes=None)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


@dataclass(frozen=True)
class RooflineFitOptions:
    """What the command was asked for, see --help."""

    datasheet: str
    tables: tuple[str, ...]
    software: str
    precision: str
    output: str | None


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("datasheet", metavar="SHEET", help="a shipped datasheet, or a .json file")
    parser.add_argument(
        "tables", nargs="+", metavar="DEVICE[:TABLE]", help="a shipped device or a .json file; all its tables, or one"
    )
    parser.add_argument("--software", default="measured", metavar="NAME", help="name of what is found (default measured)")
    parser.add_argument("--precision", default="float32", metavar="NAME", help="that the tables were measured in (default float32)")
    parser.add_argument("--output", default=None, metavar="FILE", help="write the datasheet with what was found as its first set")
    return parser


def _read_tables(name: str) -> tuple[LatencyTable, ...]:
    device, colon, table = name.rpartition(":")
    if colon and "/" not in table and "\\" not in table:
        return (read_device(device).table(table),)
    return read_device(name).tables


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = read_options(RooflineFitOptions, command_line(), arguments)
    sheet = read_datasheet(options.datasheet)
    tables = [table for name in options.tables for table in _read_tables(name)]
    found = calibrate(sheet, tables, options.software, options.precision)
    rows = [
        (name, f"{found.before[name]:.1f}", f"{100 * error.mape:.1f} %", f"{100 * error.within_10:.0f} %")
        for name, error in found.errors.items()
    ]
    print(text_table(("table", f"times the {RATED} roofline", "mean error", "within 10 %"), rows, {0}))
    own = {key: value for key, value in dataclasses.asdict(found.achieved).items() if value is not None}
    print(json_text(own), end="")
    if options.output is not None:
        others = tuple(one for one in sheet.achieved if one.software != options.software)
        write_datasheet(dataclasses.replace(sheet, achieved=(found.achieved, *others)), Path(options.output))
        print(f"Written to {options.output}.")
    return 0


if __name__ == "__main__":
    run_command(main)
