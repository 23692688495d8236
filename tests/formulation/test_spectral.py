"""Entropy of one weight matrix: closed form, Monte-Carlo SVD and the look-up table against each other and against limits."""

from __future__ import annotations

import io
import json
import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import formulation.records.files
from formulation import EntropyTable, closed_form_entropy, monte_carlo_entropy, spectral_entropy

RHO = 0.01
GRID = (32, 64, 128, 256, 512)

dimensions = st.integers(1, 5000)
rhos = st.floats(1e-6, 1e4)


@pytest.fixture
def table() -> EntropyTable:
    return EntropyTable.build(RHO, GRID)


@pytest.fixture
def path(tmp_path: Path, table: EntropyTable) -> Path:
    """A file that holds `table`."""
    path = tmp_path / "table.npz"
    table.save(path)
    return path


def same(left: EntropyTable, right: EntropyTable) -> bool:
    names = ("rho", "grid", "method", "draws", "seed")
    return np.array_equal(left.values, right.values) and all(getattr(left, name) == getattr(right, name) for name in names)


# The closed form


@pytest.mark.parametrize("rho", [1e-3, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (24, 96), (96, 24), (40, 80)], ids=str)
def test_closed_form_agrees_with_svd(shape: tuple[int, int], rho: float) -> None:
    estimate = monte_carlo_entropy(*shape, rho, draws=250, seed=1)
    closed = closed_form_entropy(*shape, rho)
    assert abs(closed - estimate.value) < 4 * estimate.standard_error + 5e-4 * estimate.value


def formula(rows: int, columns: int, rho: float) -> float:
    """The formula of the docstring, term by term, in as many digits as its cancellations need."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60 + 2 * abs(round(math.log10(rho))), -(10**6), 10**6
        m, n, r = Decimal(rows), Decimal(columns), Decimal(rho)
        plus, minus = 1 + r * (m.sqrt() + n.sqrt()) ** 2, 1 + r * (m.sqrt() - n.sqrt()) ** 2
        a, root = 1 + r * (m + n), (plus * minus).sqrt()
        f = (a - root) / 2
        limit = m * (1 + r * n - f).ln() + n * (1 + r * m - f).ln() - f / r
        return float(limit + root.ln() / 2 - ((a + root) / 2).ln() / 2)


@pytest.mark.parametrize("rho", [1e-100, 1e-16, 1e-8, 0.01, 1.0, 1e4, 1e16, 1e100])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (1, 4096), (768, 64)], ids=str)
def test_closed_form_is_its_formula_to_the_last_digits(shape: tuple[int, int], rho: float) -> None:
    assert closed_form_entropy(*shape, rho) == pytest.approx(formula(*shape, rho), rel=1e-14)


@given(dimensions, dimensions, rhos)
def test_closed_form_is_symmetric(rows: int, columns: int, rho: float) -> None:
    assert closed_form_entropy(rows, columns, rho) == closed_form_entropy(columns, rows, rho)


@given(dimensions, dimensions, rhos, st.floats(1.001, 100))
def test_closed_form_rises_with_rho(rows: int, columns: int, rho: float, factor: float) -> None:
    assert closed_form_entropy(rows, columns, rho * factor) > closed_form_entropy(rows, columns, rho)


@given(dimensions, dimensions, rhos, st.integers(1, 500))
def test_closed_form_rises_with_a_dimension(rows: int, columns: int, rho: float, more: int) -> None:
    assert closed_form_entropy(rows + more, columns, rho) > closed_form_entropy(rows, columns, rho)


@given(dimensions, dimensions, st.floats(-100, 100))
def test_closed_form_is_finite_and_positive_for_tiny_and_huge_rho(rows: int, columns: int, exponent: float) -> None:
    value = closed_form_entropy(rows, columns, 10.0**exponent)
    assert math.isfinite(value)
    assert value > 0


@given(dimensions, dimensions, st.floats(-100, -12))
def test_small_rho_counts_the_entries(rows: int, columns: int, exponent: float) -> None:
    """H → ρ·E Σ s² = ρ·m·n, with a relative error of the order of ρ(m + n)."""
    rho = 10.0**exponent
    relative = closed_form_entropy(rows, columns, rho) / (rho * rows * columns) - 1
    assert abs(relative) < rho * (rows + columns + 1) + 1e-14


@given(dimensions, dimensions, st.floats(20, 99))
def test_large_rho_adds_its_logarithm_for_each_singular_value(rows: int, columns: int, exponent: float) -> None:
    """H → K·log ρ + constant, K = min(m, n). For square matrices the formula's finite-size term leaves ¼·log ρ less."""
    rise = closed_form_entropy(rows, columns, 10.0 ** (exponent + 1)) - closed_form_entropy(rows, columns, 10.0**exponent)
    values = min(rows, columns) - (0.25 if rows == columns else 0)
    assert rise == pytest.approx(values * math.log(10), rel=1e-6)


def test_closed_form_broadcasts() -> None:
    sizes = np.array(GRID)
    values = closed_form_entropy(sizes[:, None], sizes[None, :], RHO)
    assert values.shape == (len(GRID), len(GRID))
    assert values[1, 3] == closed_form_entropy(GRID[1], GRID[3], RHO)
    assert isinstance(closed_form_entropy(64, 64, RHO), float)


# Monte Carlo


def test_same_seed_same_estimate() -> None:
    first = monte_carlo_entropy(32, 48, RHO, draws=4, seed=3)
    assert monte_carlo_entropy(32, 48, RHO, draws=4, seed=3) == first
    assert monte_carlo_entropy(32, 48, RHO, draws=4, seed=4) != first
    assert first.draws == 4


def test_standard_error_shrinks_with_the_root_of_the_draws() -> None:
    few, many = (monte_carlo_entropy(24, 24, RHO, draws) for draws in (400, 6400))
    assert few.standard_error / many.standard_error == pytest.approx(4, rel=0.2)


def test_spectral_entropy_is_either_method() -> None:
    assert spectral_entropy(48, 64, RHO) == closed_form_entropy(48, 64, RHO)
    assert spectral_entropy(48, 64, RHO, "svd", draws=3, seed=5) == monte_carlo_entropy(48, 64, RHO, 3, 5).value


# Bad input


@pytest.mark.parametrize("rho", [0, -1.0, 1e-101, 1e101, math.nan, math.inf, "0.01", None, True])
@pytest.mark.parametrize("call", [closed_form_entropy, monte_carlo_entropy], ids=["closed form", "svd"])
def test_bad_rho_is_refused(call: Any, rho: Any) -> None:
    with pytest.raises(ValueError, match=r"rho is .*; expected a positive number"):
        call(64, 64, rho)


@pytest.mark.parametrize(("size", "shown"), [(0, "0"), (-64, "-64"), (math.nan, "nan"), (math.inf, "inf"), ([64, math.inf], "inf")])
def test_bad_dimensions_are_refused(table: EntropyTable, size: Any, shown: str) -> None:
    for call in (lambda: closed_form_entropy(size, 64, RHO), lambda: table(size, 64)):
        with pytest.raises(ValueError, match=f"rows holds {shown}; expected finite dimensions of at least 1"):
            call()
    with pytest.raises(ValueError, match=f"columns holds {shown};"):
        closed_form_entropy(64, size, RHO)


def test_a_single_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="draws is 1; expected at least 2"):
        monte_carlo_entropy(8, 8, RHO, draws=1)


@pytest.mark.parametrize("call", [lambda: spectral_entropy(8, 8, RHO, "exact"), lambda: EntropyTable.build(RHO, GRID, "exact")])  # type: ignore[arg-type]
def test_an_unknown_method_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match='method is \'exact\'; expected "closed" or "svd"'):
        call()


@pytest.mark.parametrize("grid", [(), (64,), (64, 64), (128, 64)], ids=str)
def test_a_bad_grid_is_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected at least two strictly increasing dimensions"):
        EntropyTable.build(RHO, grid)


@pytest.mark.parametrize("values", [np.ones((2, 3)), np.full((2, 2), math.nan)], ids=["shape", "nan"])
def test_bad_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite numbers, 2 × 2"):
        EntropyTable(RHO, (64, 128), values)


# The table


def test_table_equals_its_source_on_the_grid(table: EntropyTable) -> None:
    sizes = np.array(GRID)
    expected = closed_form_entropy(sizes[:, None], sizes[None, :], RHO)
    np.testing.assert_allclose(table(sizes[:, None], sizes[None, :]), expected, rtol=1e-14)
    by_call = [[table(rows, columns) for columns in GRID] for rows in GRID]
    np.testing.assert_array_equal(by_call, table(sizes[:, None], sizes[None, :]))
    assert isinstance(table(64, 128), float)


def test_table_by_svd_equals_its_source() -> None:
    table = EntropyTable.build(RHO, (8, 16, 24), "svd", draws=3, seed=9)
    assert table(24, 8) == table(8, 24) == pytest.approx(monte_carlo_entropy(24, 8, RHO, 3, 9).value, rel=1e-14)
    assert (table.method, table.draws, table.seed) == ("svd", 3, 9)


@given(st.floats(GRID[0], GRID[-1]), st.floats(GRID[0], GRID[-1]))
def test_table_lies_between_its_neighbours(rows: float, columns: float) -> None:
    table = EntropyTable.build(RHO, GRID)
    i, j = (max(int(np.searchsorted(GRID, size)), 1) for size in (rows, columns))
    low, high = table.values[i - 1, j - 1], table.values[i, j]
    assert low * (1 - 1e-12) <= table(rows, columns) <= high * (1 + 1e-12)


@given(st.floats(64, 1024), st.floats(64, 1024))
def test_table_keeps_the_error_bound_of_linear_interpolation(rows: float, columns: float) -> None:
    """In one dimension |error| ≤ step²/8·max |H''|, in two the sum of both; H'' by differences of the closed form."""
    step = 64
    table = EntropyTable.build(RHO, range(64, 1025, step))
    bound = 0.0
    for along, across in ((rows, columns), (columns, rows)):
        low = min(step * math.floor(along / step), 1024 - step)
        places = np.linspace(low, low + step, 9)
        # Interpolation across reaches the two grid lines beside the point: the curvature between them counts.
        lines = np.array([across, step * math.floor(across / step), min(1024, step * math.ceil(across / step))])
        values = closed_form_entropy(places[:, None], lines[None, :], RHO)
        bound += step**2 / 8 * 1.2 * float(np.abs(np.diff(values, 2, axis=0)).max()) / (places[1] - places[0]) ** 2
    assert abs(table(rows, columns) - closed_form_entropy(rows, columns, RHO)) <= bound + 1e-9


def test_table_refuses_what_lies_outside(table: EntropyTable) -> None:
    for rows, columns in ((31, 64), (64, 513), ([64, 600], 64)):
        with pytest.raises(ValueError, match=r"32 to 512; .*wider grid"):
            table(rows, columns)


def test_table_values_cannot_be_changed(table: EntropyTable) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table.values[0, 0] = 0


# The file


@pytest.mark.parametrize("method", ["closed", "svd"])
def test_round_trip(tmp_path: Path, method: Any) -> None:
    table = EntropyTable.build(RHO, (8, 16, 24), method, draws=3, seed=2)
    table.save(tmp_path / "table.npz")
    loaded = EntropyTable.load(str(tmp_path / "table.npz"), rho=RHO, grid=[8, 16, 24], method=method)
    assert same(loaded, table)
    assert loaded(10, 20) == table(10, 20)


def test_the_file_is_an_npz_archive(path: Path, table: EntropyTable) -> None:
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["values"], table.values)
        assert json.loads(str(archive["parameters"]))["rho"] == RHO


@pytest.mark.parametrize("expected", [{"rho": 0.02}, {"grid": (32, 64)}, {"method": "svd"}, {"draws": 16}, {"seed": 1}], ids=str)
def test_another_table_is_refused(path: Path, expected: dict[str, Any]) -> None:
    (name,) = expected
    with pytest.raises(ValueError, match=rf"built with {name} = .*, but {name} = .* is needed; build it again") as error:
        EntropyTable.load(path, **expected)
    assert str(path) in str(error.value)


def test_no_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        EntropyTable.load(tmp_path / "nothing.npz")


def archive_of(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


FOREIGN = {
    "empty": b"",
    "text": b"rho,grid,values\n0.01,64,27.3\n",
    "long text": b"x" * 10_000,
    "npz of others": archive_of(values=np.ones((2, 2))),
    "npz without checksum": archive_of(parameters=np.array("{}"), values=np.ones((2, 2))),
    "pickled": archive_of(parameters=np.array({"rho": 1}, dtype=object), values=np.ones((2, 2))),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not an entropy table or is damaged .*; build it again") as error:
        EntropyTable.load(path)
    assert str(path) in str(error.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an entropy table"):
        EntropyTable.load(tmp_path)


def test_another_version_is_refused(path: Path, table: EntropyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulation.spectral._VERSION", 2)
    with pytest.raises(ValueError, match="another format or version"):
        EntropyTable.load(path)


@pytest.mark.parametrize("grid", [GRID, range(64, 4097, 64)], ids=["small", "large"])
def test_damage_is_refused(tmp_path: Path, grid: Any) -> None:
    """Cut anywhere, or with any byte changed, a file is refused: no other error, no wrong table."""
    path = tmp_path / "table.npz"
    EntropyTable.build(RHO, grid).save(path)
    intact = path.read_bytes()
    generator = np.random.default_rng(0)
    damaged = [intact[:length] for length in generator.integers(len(intact), size=100)]
    # Headers stand at the ends of the file; a change there is the harder one to notice.
    ends = [*range(0, min(len(intact), 2600), 3), *range(max(0, len(intact) - 400), len(intact))]
    for place in [*ends, *generator.integers(len(intact), size=300)]:
        changed = bytearray(intact)
        changed[place] ^= 1 << int(generator.integers(8))
        damaged.append(bytes(changed))
    damaged += [intact + b"\0", intact[1:], intact + intact]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged") as error:
            EntropyTable.load(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("failing", ["replace", "fdopen"])
def test_a_failing_save_leaves_the_old_file(path: Path, table: EntropyTable, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(formulation.records.files.os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            EntropyTable.build(1.0, GRID).save(path)
    assert same(EntropyTable.load(path), table)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
