"""The entropy-table study from its command line: what it writes, and what it says to a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from formulation.command.exit_code import ExitCode
from formulation.command.run import run_command
from studies.entropy_table import study as entropy_table

QUICK = ["--quick", "--draws", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a quick run writes, into a folder that it makes."""
    folder = tmp_path_factory.mktemp("study") / "results" / "entropy"
    entropy_table.main([*QUICK, "--seed", "3", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "entropy_table.json").read_text(encoding="utf-8"))


def leave(capsys: pytest.CaptureFixture[str], main: Callable[..., None], *arguments: Any) -> tuple[Any, str]:
    """Exit code and stderr of a command."""
    with pytest.raises(SystemExit) as left:
        run_command(main, *arguments)
    return left.value.code, capsys.readouterr().err


def test_it_writes_rows_and_figure(folder: Path, record: dict[str, Any]) -> None:
    assert {file.name for file in folder.iterdir()} == {"entropy_table.json", "entropy_table.png"}
    assert (folder / "entropy_table.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert set(record) == {"study", "provenance", "settings", "summary", "accuracy", "interpolation", "tables", "times"}
    assert record["settings"].items() >= {"rho": 0.01, "seed": 3, "draws": 2, "quick": True}.items()


def test_it_says_where_its_numbers_come_from(record: dict[str, Any]) -> None:
    assert set(record["provenance"]) == {"command", "seed", "versions", "entropy_defaults", "machine"}
    assert set(record["provenance"]["versions"]) >= {"python", "numpy", "scipy"}
    assert "/" not in record["provenance"]["machine"]


def test_closed_form_agrees_with_svd(record: dict[str, Any]) -> None:
    assert len(record["accuracy"]) == 10
    for row in record["accuracy"]:
        assert abs(row["error"]) < 5 * row["standard_error"] + 5e-4, row
        assert row["error"] == pytest.approx(row["closed_entropy"] / row["svd_entropy"] - 1)


def test_interpolation_error_grows_with_the_step(record: dict[str, Any]) -> None:
    rows = record["interpolation"]
    assert [(row["step"], row["entries"]) for row in rows] == [(64, 64**2), (128, 33**2), (256, 17**2)]
    for name in ("median_error", "largest_error"):
        errors = [row[name] for row in rows]
        assert errors == sorted(errors)
    assert all(row["median_error"] < row["largest_error"] for row in rows)


def test_a_table_agrees_with_svd_on_its_grid(record: dict[str, Any]) -> None:
    assert {row["on_grid"] for row in record["tables"]} == {True, False}
    for row in record["tables"]:
        if row["on_grid"]:
            assert abs(row["error"]) < 5 * row["standard_error"] + 5e-4, row


def test_draws_needed_follow_from_the_sample(record: dict[str, Any]) -> None:
    for row in record["times"]:
        assert row["draws_needed"] >= (row["relative_deviation"] / 1e-3) ** 2 - 1e-9
        assert row["svd_entry_s"] == pytest.approx(row["draws_needed"] * row["svd_draw_s"])
        assert row["ratio_call"] == pytest.approx(row["svd_entry_s"] / row["closed_call_s"])
        assert row["ratio_array"] == pytest.approx(row["svd_entry_s"] / row["closed_array_s"])


def test_grids_start_at_64_and_end_at_4096() -> None:
    for step in entropy_table.STEPS:
        grid = entropy_table.table_grid(step)
        assert (grid[0], grid[-1]) == (64, 4096)
        assert all(size % step == 0 for size in grid[1:])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rho", "0"], "error: rho is 0.0; expected a positive number from 1e-100 to 1e100, (σ/ε)²\n"),
        (["--rho", "-1"], "error: rho is -1.0; expected a positive number from 1e-100 to 1e100, (σ/ε)²\n"),
        (["--rho", "nan"], "error: rho is nan; expected a positive number from 1e-100 to 1e100, (σ/ε)²\n"),
        (["--draws", "1"], "error: draws is 1; expected at least 2, for a standard error\n"),
        (["--seed", "-1"], "error: seed is -1; expected a whole number of at least 0\n"),
        (["--rho", "much"], "python -m studies.entropy_table: error: argument --rho: invalid float value: 'much'\n"),
        (["--fast"], "python -m studies.entropy_table: error: unrecognized arguments: --fast\n"),
    ],
    ids=" ".join,
)
def test_a_bad_flag_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], sentence: str) -> None:
    output = tmp_path / "output"
    assert leave(capsys, entropy_table.main, [*QUICK, "--output", str(output), *flags]) == (2, sentence)
    assert not output.exists()


@pytest.mark.parametrize(("name", "reason"), [("file", "file exists"), ("file/folder", "not a directory")])
def test_an_unusable_folder_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("earlier results")
    code, said = leave(capsys, entropy_table.main, [*QUICK, "--output", str(tmp_path / name)])
    assert code == 2
    assert said == f"error: cannot write to the output folder {tmp_path / name} ({reason}); choose another with --output\n"
    assert (tmp_path / "file").read_text() == "earlier results"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted: a file is written atomically, so earlier results stand\n"),
        (ImportError("HiGHS is not installed;\ninstall it with: pip install highspy"), 2, None),
        (OSError(28, "No space left on device", "rows.json"), 2, "error: no space left on device: rows.json\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_end_is_one_sentence(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str | None) -> None:
    def main() -> None:
        raise error

    expected = sentence or "error: HiGHS is not installed; install it with: pip install highspy\n"
    assert leave(capsys, main) == (code, expected)


def test_our_own_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == ExitCode.FAULT
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "error: this is a fault of ours (ZeroDivisionError: )" in said


def test_an_interrupted_run_keeps_earlier_results(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    earlier = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(entropy_table, "monte_carlo_entropy", interrupt)
    code, said = leave(capsys, entropy_table.main, [*QUICK, "--output", str(folder)])
    assert code == 130
    assert "Traceback" not in said
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == earlier
