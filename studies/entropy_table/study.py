"""The paper's look-up table of entropies beside the closed form: how exact each is, and what an entry costs.

    python -m studies.entropy_table
    python -m studies.entropy_table --quick --rho 0.1

Three questions, each a list of rows: does the closed form agree with SVD, what does interpolation in a table add, and how
long does an entry take. The mathematics is `formulation.spectral`.
Writes entropy_table.json and entropy_table.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import timeit
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from formulation import EntropyTable, Estimate, closed_form_entropy, monte_carlo_entropy
from formulation.command.help import command_parser
from formulation.command.run import command
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.spectral import check_rho

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THREADS = 1
"""Threads of linear algebra while the study runs.

More cost more than they save on matrices of this size, most of all on a busy machine, and the closed form uses one too.
"""

Shape = tuple[int, int]

STEPS = (64, 128, 256)
"""Steps of the tables compared; 64 is the step of the paper's widths."""
SMALLEST, LARGEST = 64, 4096
"""Dimensions that the tables cover: one attention head to the FFN width of a 1024-wide block."""
ACCURACY = 1e-3
"""Relative standard error at which an SVD entry counts as known, for the comparison of times."""
GOAL = 1000
"""How many times faster than such an SVD entry the closed form is meant to be."""


@dataclass(frozen=True)
class ShapePlan:
    """Which shapes are measured: `shapes` for the closed form, `on_grid` and `off_grid` for the tables, `squares` for time."""

    shapes: tuple[Shape, ...]
    on_grid: tuple[Shape, ...]
    off_grid: tuple[Shape, ...]
    squares: tuple[int, ...]

    @property
    def measured(self) -> tuple[Shape, ...]:
        """Every shape that needs SVD, once."""
        return tuple(dict.fromkeys([*self.shapes, *self.on_grid, *self.off_grid, *((size, size) for size in self.squares)]))


FULL_SHAPES = ShapePlan(
    shapes=(
        *((64, 64), (64, 256), (128, 128), (128, 512), (256, 256)),
        *((256, 1024), (512, 512), (512, 2048), (1024, 1024), (1024, 4096)),
    ),
    on_grid=((64, 64), (256, 256), (256, 1024), (1024, 1024)),
    off_grid=((96, 96), (160, 160), (160, 608), (352, 352), (608, 1888)),
    squares=(64, 128, 256, 512, 1024, 2048),
)
QUICK_SHAPES = ShapePlan(
    shapes=(
        *((32, 32), (32, 128), (64, 64), (64, 256), (96, 96)),
        *((96, 384), (128, 128), (128, 512), (256, 256), (256, 512)),
    ),
    on_grid=((64, 64), (64, 256), (256, 256)),
    off_grid=((96, 96), (160, 160), (160, 352)),
    squares=(64, 128, 256),
)


@dataclass(frozen=True)
class Settings:
    """What a run depends on.

    Attributes:
        rho: (σ/ε)² of every entropy.
        seed: of the random matrices.
        draws: matrices of the largest shape; smaller shapes get more, so that each shape sees about as many random entries.
        quick: the short plan, for a first look.
    """

    rho: float
    seed: int
    draws: int
    quick: bool

    def __post_init__(self) -> None:
        check_rho(self.rho)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected a whole number of at least 0")
        if self.draws < 2:
            raise ValueError(f"draws is {self.draws}; expected at least 2, for a standard error")

    @property
    def plan(self) -> ShapePlan:
        """The shapes of this run."""
        return QUICK_SHAPES if self.quick else FULL_SHAPES


@dataclass(frozen=True)
class MeasuredShape:
    """Entropy of one shape by SVD, and the seconds that one draw took (matrix, singular values and sum)."""

    estimate: Estimate
    draw_s: float

    @property
    def relative_error(self) -> float:
        """Standard error of the mean relative to the mean."""
        return self.estimate.standard_error / self.estimate.value

    @property
    def relative_deviation(self) -> float:
        """Standard deviation of one draw relative to the mean, from the sample."""
        return self.relative_error * math.sqrt(self.estimate.draws)


@dataclass(frozen=True)
class AccuracyRow:
    """Closed form against SVD at one shape; entropies in nat, errors relative to SVD."""

    rows: int
    columns: int
    draws: int
    svd_entropy: float
    closed_entropy: float
    error: float
    standard_error: float


@dataclass(frozen=True)
class InterpolationRow:
    """One table against the closed form at the midpoints of its cells; errors relative to the closed form."""

    step: int
    entries: int
    median_error: float
    largest_error: float
    largest_at: Shape


@dataclass(frozen=True)
class TableRow:
    """One table against SVD at one shape; errors relative to SVD. on_grid: the shape is an entry, nothing is interpolated."""

    step: int
    rows: int
    columns: int
    on_grid: bool
    table_entropy: float
    svd_entropy: float
    error: float
    standard_error: float


@dataclass(frozen=True)
class TimeRow:
    """Seconds per entry of a square matrix, SVD on `THREADS` threads.

    Attributes:
        draws_needed: (relative deviation of one draw / 0.001)², at least 1: the draws that a standard error of 0.1 % takes.
        svd_entry_s: draws_needed · svd_draw_s.
        closed_call_s: one scalar call; one entry of an array call over as many entries as the finest table has.
        closed_array_s: one scalar call; one entry of an array call over as many entries as the finest table has.
        ratio_call: svd_entry_s over each.
        ratio_array: svd_entry_s over each.
    """

    dimension: int
    svd_draw_s: float
    relative_deviation: float
    draws_needed: int
    svd_entry_s: float
    closed_call_s: float
    closed_array_s: float
    ratio_call: float
    ratio_array: float


@dataclass(frozen=True)
class TableRows:
    """All rows of a run."""

    accuracy: tuple[AccuracyRow, ...]
    interpolation: tuple[InterpolationRow, ...]
    tables: tuple[TableRow, ...]
    times: tuple[TimeRow, ...]


def table_grid(step: int) -> tuple[int, ...]:
    """Dimensions of the table with that step: 64, then the multiples of the step up to 4096."""
    return tuple(sorted({SMALLEST, *range(step, LARGEST + 1, step)}))


def measure_by_svd(settings: Settings) -> dict[Shape, MeasuredShape]:
    """Entropy of every shape of the plan by SVD, with its time; shows progress.

    At small ρ one draw of an m×n matrix is nearly ρ·χ² with m·n degrees of freedom, so its relative deviation is √(2/(m·n)):
    draws in proportion to 1/(m·n) give every shape about the same standard error.
    """
    shapes = settings.plan.measured
    most = max(rows * columns for rows, columns in settings.plan.shapes)
    draws = {shape: max(2, math.ceil(settings.draws * most / math.prod(shape))) for shape in shapes}
    # A singular value decomposition takes about rows · columns · min(rows, columns) operations: that is what the bar counts.
    work = {shape: draws[shape] * math.prod(shape) * min(shape) for shape in shapes}
    for shape in ((64, 64), (256, 256)):
        monte_carlo_entropy(*shape, settings.rho, 2, settings.seed)  # the first calls load and start the linear algebra
    measured = {}
    with tqdm(total=sum(work.values()), bar_format="{desc:<28}{percentage:3.0f} %|{bar}| {elapsed}<{remaining}") as bar:
        for shape in shapes:
            bar.set_description_str(f"SVD {shape[0]} × {shape[1]}, {draws[shape]} draws")
            start = time.perf_counter()
            estimate = monte_carlo_entropy(*shape, settings.rho, draws[shape], settings.seed)
            measured[shape] = MeasuredShape(estimate, (time.perf_counter() - start) / draws[shape])
            bar.update(work[shape])
        bar.set_description_str(f"SVD of {len(shapes)} shapes")
    return measured


def accuracy_row(shape: Shape, svd: MeasuredShape, rho: float) -> AccuracyRow:
    """The closed form beside the SVD estimate of one shape."""
    closed, value = closed_form_entropy(*shape, rho), svd.estimate.value
    return AccuracyRow(*shape, svd.estimate.draws, value, closed, closed / value - 1, svd.relative_error)


def interpolation_row(step: int, table: EntropyTable) -> InterpolationRow:
    """The table against the closed form at the midpoints of its cells, where linear interpolation is farthest off."""
    grid = np.array(table.grid)
    midpoints = (grid[1:] + grid[:-1]) // 2
    exact = closed_form_entropy(midpoints[:, None], midpoints[None, :], table.rho)
    error = np.abs(table(midpoints[:, None], midpoints[None, :]) / exact - 1)
    row, column = np.unravel_index(int(error.argmax()), error.shape)
    largest_at = int(midpoints[row]), int(midpoints[column])
    return InterpolationRow(step, table.values.size, float(np.median(error)), float(error.max()), largest_at)


def table_row(step: int, table: EntropyTable, shape: Shape, svd: MeasuredShape) -> TableRow:
    """The table against the SVD estimate of one shape."""
    entropy, value = table(*shape), svd.estimate.value
    on_grid = set(shape) <= set(table.grid)
    return TableRow(step, *shape, on_grid, entropy, value, entropy / value - 1, svd.relative_error)


def time_row(dimension: int, svd: MeasuredShape, rho: float) -> TimeRow:
    """What an entry costs at one dimension by SVD and by closed form (medians of seven timings)."""
    entries = np.full((len(table_grid(STEPS[0])),) * 2, float(dimension))
    call_s = _median_seconds(lambda: closed_form_entropy(dimension, dimension, rho), 500)
    array_s = _median_seconds(lambda: closed_form_entropy(entries, entries, rho), 20) / entries.size
    needed = max(1, math.ceil((svd.relative_deviation / ACCURACY) ** 2))
    entry_s = needed * svd.draw_s
    return TimeRow(
        dimension, svd.draw_s, svd.relative_deviation, needed, entry_s, call_s, array_s, entry_s / call_s, entry_s / array_s
    )


def _median_seconds(call: Any, calls: int) -> float:
    return statistics.median(timeit.repeat(call, number=calls, repeat=7)) / calls


def measure_tables(settings: Settings) -> TableRows:
    """All rows of the study."""
    svd = measure_by_svd(settings)
    plan, rho = settings.plan, settings.rho
    tables = {step: EntropyTable.build(rho, table_grid(step)) for step in STEPS}
    return TableRows(
        accuracy=tuple(accuracy_row(shape, svd[shape], rho) for shape in plan.shapes),
        interpolation=tuple(interpolation_row(step, table) for step, table in tables.items()),
        tables=tuple(
            table_row(step, table, shape, svd[shape]) for shape in (*plan.on_grid, *plan.off_grid) for step, table in tables.items()
        ),
        times=tuple(time_row(size, svd[size, size], rho) for size in plan.squares),
    )


def tables_summary(results: TableRows) -> dict[str, Any]:
    """The study in a few numbers: worst errors (relative), smallest ratios of time, and whether those reach the goal."""
    worst = max(results.accuracy, key=lambda row: abs(row.error))
    ratio = min(row.ratio_call for row in results.times)
    return {
        "closed_form_largest_error": abs(worst.error),
        "closed_form_largest_error_in_standard_errors": max(abs(row.error) / row.standard_error for row in results.accuracy),
        "interpolation_largest_error": {str(row.step): row.largest_error for row in results.interpolation},
        "smallest_ratio_call": ratio,
        "smallest_ratio_array": min(row.ratio_array for row in results.times),
        "goal_reached": ratio >= GOAL,
    }


def print_tables(results: TableRows) -> None:
    """The rows as text for people: errors in percent, times in the unit that suits them."""
    _print_table(
        "Closed form against SVD (error and standard error relative to SVD)",
        ("shape", "draws", "SVD, nat", "closed form, nat", "error, %", "std. error, %"),
        [
            (
                _name((row.rows, row.columns)),
                f"{row.draws:,}",
                f"{row.svd_entropy:,.3f}",
                f"{row.closed_entropy:,.3f}",
                f"{100 * row.error:+.4f}",
                f"{100 * row.standard_error:.4f}",
            )
            for row in results.accuracy
        ],
    )
    _print_table(
        f"Table over {SMALLEST} to {LARGEST} against the closed form, at the midpoints of its cells",
        ("step", "entries", "median error, %", "largest error, %", "largest at"),
        [
            (
                str(row.step),
                f"{row.entries:,}",
                f"{100 * row.median_error:.5f}",
                f"{100 * row.largest_error:.4f}",
                _name(row.largest_at),
            )
            for row in results.interpolation
        ],
    )
    shapes = dict.fromkeys((row.rows, row.columns) for row in results.tables)
    found = {(row.rows, row.columns, row.step): row for row in results.tables}
    _print_table(
        "Table against SVD (error relative to SVD, %; * the shape is an entry of that table)",
        ("shape", "std. error, %", *(f"step {step}" for step in STEPS)),
        [
            (
                _name(shape),
                f"{100 * found[*shape, STEPS[0]].standard_error:.4f}",
                *(f"{100 * row.error:+.4f}{'*' if row.on_grid else ' '}" for row in (found[*shape, step] for step in STEPS)),
            )
            for shape in shapes
        ],
    )
    _print_table(
        f"Time per entry (SVD to a standard error of {100 * ACCURACY:g} %)",
        (
            *("dimension", "SVD draw, ms", "deviation, %", "draws", "SVD entry, ms"),
            *("closed call, µs", "closed array, ns", "ratio call", "ratio array"),
        ),
        [
            (
                str(row.dimension),
                f"{1e3 * row.svd_draw_s:.3f}",
                f"{100 * row.relative_deviation:.3f}",
                f"{row.draws_needed:,}",
                f"{1e3 * row.svd_entry_s:,.1f}",
                f"{1e6 * row.closed_call_s:.1f}",
                f"{1e9 * row.closed_array_s:.0f}",
                f"{row.ratio_call:,.0f}",
                f"{row.ratio_array:,.0f}",
            )
            for row in results.times
        ],
    )
    total = tables_summary(results)
    print(
        f"The closed form is within {100 * total['closed_form_largest_error']:.3f} % of SVD, at most "
        f"{total['closed_form_largest_error_in_standard_errors']:.1f} standard errors, and at least "
        f"{total['smallest_ratio_call']:,.0f} times faster in single calls, {total['smallest_ratio_array']:,.0f} times in arrays "
        f"(goal {GOAL:,})."
    )


def _name(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(title)
    for cells in (header, *rows):
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    print()


def draw(results: TableRows, settings: Settings) -> Figure:
    """The figure: error of the closed form, error of interpolation, time per entry."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(14, 5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    panels = figure.subplots(1, 3)
    _draw_accuracy(panels[0], results.accuracy)
    _draw_interpolation(panels[1], results.interpolation)
    _draw_times(panels[2], results.times)
    figure.suptitle(f"Entropy of a random weight matrix, ρ = {settings.rho:g}")
    return figure


def _draw_accuracy(axes: Axes, rows: Sequence[AccuracyRow]) -> None:
    axes.axhspan(-0.05, 0.05, color="tab:green", alpha=0.12, label="± 0.05 %")
    axes.axhline(0, color="black", linewidth=0.8)
    for square, marker, color in ((True, "s", "tab:blue"), (False, "o", "tab:orange")):
        places = [place for place, row in enumerate(rows) if (row.rows == row.columns) == square]
        axes.errorbar(
            places,
            [100 * rows[place].error for place in places],
            yerr=[200 * rows[place].standard_error for place in places],
            fmt=marker,
            color=color,
            capsize=3,
            label="square" if square else "rectangular",
        )
    axes.set_xticks(range(len(rows)), [_name((row.rows, row.columns)) for row in rows], rotation=45, ha="right")
    axes.set(title="Closed form against SVD", xlabel="shape (bars: 2 standard errors)", ylabel="error relative to SVD, %")
    axes.margins(y=0.2)
    axes.legend(fontsize="small", ncols=3, loc="upper center")


def _draw_interpolation(axes: Axes, rows: Sequence[InterpolationRow]) -> None:
    steps = [row.step for row in rows]
    largest, median = [100 * row.largest_error for row in rows], [100 * row.median_error for row in rows]
    for errors, style, color, name in ((largest, "o-", "tab:red", "largest"), (median, "s-", "tab:blue", "median")):
        axes.loglog(steps, errors, style, color=color, label=name)
        for step, error in zip(steps, errors, strict=True):
            axes.annotate(f"{error:.2g} %", (step, error), (0, 8), textcoords="offset points", ha="center", fontsize="small")
    axes.set_xticks(steps, [f"{row.step}\n{row.entries:,} entries" for row in rows])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(0.15)
    axes.set(title="Table against closed form, at cell midpoints", xlabel="step of the table", ylabel="interpolation error, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left")


def _draw_times(axes: Axes, rows: Sequence[TimeRow]) -> None:
    sizes = [row.dimension for row in rows]
    for name, seconds, style, color, place, offset in (
        (f"SVD, to {100 * ACCURACY:g} %", [row.svd_entry_s for row in rows], "o-", "tab:red", 0, (0, 8)),
        ("SVD, one draw", [row.svd_draw_s for row in rows], "o--", "lightcoral", 1, (8, -8)),
        ("closed form, one call", [row.closed_call_s for row in rows], "s-", "tab:blue", 0, (0, 8)),
        ("closed form, in an array", [row.closed_array_s for row in rows], "s--", "cornflowerblue", 0, (0, 8)),
    ):
        axes.loglog(sizes, seconds, style, color=color)
        axes.annotate(name, (sizes[place], seconds[place]), offset, textcoords="offset points", color=color, fontsize="small")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(top=10 * max(row.svd_entry_s for row in rows))
    axes.set(title="Time per entry", xlabel="dimension of the square matrix", ylabel="seconds")
    axes.grid(alpha=0.3)


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.usage = argparse.SUPPRESS  # a mistake on the command line is answered in one sentence
    parser.add_argument(
        "--rho", type=float, default=0.01, metavar="R", help="(σ/ε)² of every entropy, without unit (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random matrices (default %(default)s)")
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="matrices of the largest shape; smaller shapes get more (default 16, with --quick 32)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/entropy_table"), metavar="DIR", help="folder (default %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="small shapes only, in seconds instead of minutes")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study with command-line flags; writes entropy_table.json and entropy_table.png. ValueError for bad input."""
    flags = command_line().parse_args(argv)
    draws = flags.draws if flags.draws is not None else 32 if flags.quick else 16
    settings = Settings(flags.rho, flags.seed, draws, flags.quick)
    folder = output_folder(flags.output)
    with threadpool_limits(THREADS):
        results = measure_tables(settings)
    print_tables(results)
    record = {
        "study": "entropy_table",
        "provenance": provenance(settings.seed, ("numpy", "scipy", "matplotlib")),
        "settings": {**asdict(settings), "threads": THREADS},
        "summary": tables_summary(results),
        **asdict(results),
    }
    write_json(folder / "entropy_table.json", record)
    save_figure(draw(results, settings), folder / "entropy_table.png")
