"""The study of a watch's measurements: what it reads, fits, scores and designs, and the device file that is shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation.command.run import run_command
from hardware_models.device import device_from_text, device_text, read_device, write_device
from hardware_models.latency import Latency
from studies.latency_data import cliff, watch
from studies.latency_data import study as latency_data
from studies.latency_data.trees import ADDITIVE, CEILING
from studies.latency_data.watch import (
    BLIND_TREES,
    CLIFF,
    MODELS,
    WITHOUT,
    MeasuredColumn,
    fit_column,
    fit_with_state,
    residuals_by_width,
    score,
    watch_device,
    without_condition,
)
from studies.latency_data.watch_file import WATCH_COLUMNS, WATCH_DESIGN, WatchData, is_watch_file, read_watch

ROWS, OTHER = 90, 30
PRICES = {
    "first-token": (700.0, 1.0, 140.0, 100.0, 35.0, 75.0),
    "token": (7.0, 45.0, 0.15, 120.0, 190.0, 360.0, 365.0, 70.0),
    "energy": (6.0, -0.1, 140.0, 260.0),
}
"""Prices of a made-up watch, in the order of each model's kinds of work."""
STATE = {"first-token": 1.4, "token": 1.5, "energy": 1.7}


def synthetic(rows: int = ROWS, other: int = OTHER, noise: float = 0.0) -> WatchData:
    """Random models in the range of the real ones on a made-up watch, exactly but for the noise."""
    draw = np.random.default_rng(3)
    heads = draw.choice([4, 8, 16], rows)
    columns = {
        "n_layer": draw.integers(3, 29, rows),
        "d_model": draw.choice(range(416, 641, 32), rows),
        "n_h": heads,
        "n_kv": heads // draw.choice([1, 2, 4], rows),
        "d_qk": draw.choice([16, 32, 64], rows),
        "d_v": draw.choice([8, 16, 32, 64], rows),
        "d_mlp": draw.choice(range(768, 2561, 16), rows),
    }
    columns["d_mlp"][::3] -= columns["d_mlp"][::3] % 64  # at the cliff, where the width is
    measured = {name: np.ones(rows) for name in WATCH_COLUMNS[len(WATCH_DESIGN) :]}
    data = WatchData("toy.csv", "", {name: values.astype(float) for name, values in (columns | measured).items()}, other)
    for model in MODELS:
        value = MeasuredColumn(data, model).work @ np.array(PRICES[model.table]) * np.exp(noise * draw.normal(size=rows))
        data.columns[model.column] = value * np.where(data.other, STATE[model.table], 1)
    return WatchData("toy.csv", "", data.columns, other)


def write(path: Path, data: WatchData) -> Path:
    lines = [",".join(WATCH_COLUMNS), *(",".join(f"{data[name][row]:.10g}" for name in WATCH_COLUMNS) for row in range(len(data)))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.table)
def test_a_fit_recovers_prices_conditions_and_state(model: watch.PriceModel) -> None:
    fitted = fit_column(MeasuredColumn(synthetic(), model))
    assert fitted.prices == pytest.approx(PRICES[model.table], rel=2e-3)
    assert fitted.other_state == pytest.approx(STATE[model.table], rel=1e-3)


def test_without_rows_of_another_state_the_factor_is_1() -> None:
    work = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]])
    prices, factor = fit_with_state(work, work @ [4.0, 2.0], np.zeros(3, dtype=bool))
    assert prices == pytest.approx([4, 2])
    assert factor == 1
    prices, _ = fit_with_state(work, work @ [-1.0, 2.0], np.zeros(3, dtype=bool), free=[0])
    assert prices == pytest.approx([-1, 2])


def test_the_device_predicts_what_it_was_fitted_to() -> None:
    data = synthetic()
    device = watch_device(data, 0)
    assert device_from_text(device_text(device)) == device
    for model, one in zip(MODELS, score(data, device), strict=True):
        table = device.table(model.table)
        assert table.error is not None
        assert table.error.mape < 0.01
        assert (one["table"], one["rows"], one["left_out"], one["beyond_validated"]) == (model.table, ROWS - OTHER, OTHER, 0)
        assert one["mape"] < 2e-3
        assert one["within_10"] == 1
        assert Latency(table)(data.designs[-1]) == pytest.approx(data[model.column][-1], rel=5e-3)


def test_a_score_shows_another_state_and_what_cannot_be_compared() -> None:
    data = synthetic(other=0)
    device = watch_device(data, 0)
    data.columns["tpot_ms"] = 2 * data.columns["tpot_ms"]
    data.columns["dynamic_energy_per_token_mj"][:5] = 0
    first, token, energy = score(WatchData("toy.csv", "", data.columns), device)
    assert first["median_ratio"] == pytest.approx(1, rel=1e-3)
    assert token["median_ratio"] == pytest.approx(2, rel=1e-3)
    assert token["mape"] == pytest.approx(0.5, rel=1e-2)
    assert token["scaled"]["mape"] < 2e-3
    assert (energy["rows"], energy["left_out"]) == (ROWS - 5, 5)
    with pytest.raises(ValueError, match="no table of titan-xp-like predicts"):
        score(data, replace(device, name="titan-xp-like", tables=(replace(device.tables[2], quantity="cost"),)))


def test_residuals_by_width_are_those_of_the_width() -> None:
    rows = residuals_by_width(np.array([512, 640, 512]), np.array([1.25, 1.0, 2.0]))
    assert [(row["width"], row["rows"]) for row in rows] == [(512, 2), (640, 1)]
    assert rows[0]["mape"] == pytest.approx((0.2 + 0.5) / 2)
    assert rows[0]["median_ratio"] == pytest.approx(1.625)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command on a made-up file, with small trees and a small space."""
    folder = tmp_path_factory.mktemp("watch")
    few = {"trees": {"max_depth": 2, "loss": "squared_error", "learning_rate": 0.1, "n_estimators": 50}}
    choices = {"ffn_widths": (1024, 1056), "depths": (8, 16), "heads": (8,), "kv_heads": (2,), "head_sizes": (32,)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "_TREES", few)
        patch.setattr(cliff, "_CHOICES", choices)
        patch.setattr(cliff, "RESIDUAL_WIDTHS", (512, 544))
        path = write(folder / "toy.csv", synthetic(other=0, noise=0.02))
        latency_data.main([str(path), "--output", str(folder / "out"), "--devices", str(folder)])
    return folder


def test_the_command_cross_validates_and_compares_designs(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))["watch"]
    assert record["rows"] == ROWS
    assert (folder / "out" / "latency_watch.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    errors = {(row["table"], row["model"]): row["mape"] for row in record["errors"]}
    for model in MODELS:
        assert errors[model.table, ADDITIVE] < 0.1
        assert errors[model.table, ADDITIVE] < min(errors[model.table, other] for other in (WITHOUT, CEILING, BLIND_TREES, "FLOPs"))
    assert "points" not in record
    for row in record["designs"]["rows"]:
        known, blind = row["knowing"], row["blind"]
        if known:
            assert known["predicted_ms"] <= row["limit_ms"]
        if blind and row["meeting"]:
            assert blind["predicted_blind_ms"] <= row["limit_ms"]
            assert known["entropy"] >= row["meeting"]["entropy"]
            assert row["meeting"]["predicted_ms"] <= row["limit_ms"]


def test_the_command_scores_a_device_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = str(folder / "pixel-watch-5.json")
    latency_data.main([str(folder / "toy.csv"), "--score", device, "--output", str(folder / "scores")])
    said = capsys.readouterr().out
    assert "Residuals by width" in said
    record = json.loads((folder / "scores" / "results.json").read_text(encoding="utf-8"))["scores"]
    assert [one["table"] for one in record["tables"]] == [model.table for model in MODELS]
    assert (folder / "scores" / "latency_scores.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_few_rows_are_enough_for_a_score(folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("".join((folder / "toy.csv").read_text().splitlines(keepends=True)[:6]))
    latency_data.main([str(few), "--score", str(folder / "pixel-watch-5.json"), "--output", str(tmp_path)])
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["scores"]
    assert [one["rows"] for one in record["tables"]] == [5, 5, 5]
    few.write_text("".join(few.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ValueError, match=r"few\.csv has 1 row; expected at least 2"):
        latency_data.main([str(few), "--score", str(folder / "pixel-watch-5.json"), "--output", str(tmp_path)])


def test_the_optimum_that_knows_the_cliff_is_the_best_by_enumeration() -> None:
    data = synthetic(other=0)
    table = watch_device(data, 0).table("token")
    blind = without_condition(data, MODELS[1]).table("toy", table.validated, None, {})
    assert not blind.conditional
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cliff, "RESIDUAL_WIDTHS", (512, 544))
        patch.setattr(
            cliff, "_CHOICES", {"ffn_widths": (1024, 1056), "depths": (8, 16), "heads": (8,), "kv_heads": (2,), "head_sizes": (32,)}
        )
        found = cliff._best(table, 40.0)
        assert found is not None
        best = max(
            cliff.EffectiveEntropy()(design)
            for width in cliff.RESIDUAL_WIDTHS
            for design in cliff.watch_space(width)
            if Latency(table)(design) <= 40
        )
        assert found.entropy == pytest.approx(best)
        block = found.design.blocks[0]
        assert not CLIFF.holds(block, found.design)


BAD: dict[str, tuple[Callable[[str], str], str]] = {
    "heads": (lambda text: text.replace(",8,", ",7,", 1), "which does not divide n_h|n_h 7"),
    "column": (lambda text: text.replace("tpot_ms", "tpot", 1), "lacks the columns encoder_embed_dim"),
    "number": (lambda text: text + "14,608,8,4,48,16,1376,x,1,1\n", "has ttft_ms 'x'; expected a number"),
    "negative": (lambda text: text + "14,608,8,4,48,16,1376,1,-1,1\n", "has tpot_ms -1; expected a finite number above 0"),
    "fraction": (lambda text: text + "14.5,608,8,4,48,16,1376,1,1,1\n", "has n_layer 14.5; expected a whole number of at least 1"),
    "few": (lambda text: "\n".join(text.splitlines()[:30]) + "\n", "has 29 rows; expected at least 40"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_wrong_file_is_one_sentence(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = BAD[kind]
    data = synthetic()
    data.columns["n_h"][0], data.columns["n_kv"][0] = 8, 8
    path = write(tmp_path / "toy.csv", data)
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit) as left:
        run_command(latency_data.main, [str(path), "--output", str(tmp_path / "out")])
    assert left.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_files_are_known_by_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", synthetic())
    assert is_watch_file(path)
    assert read_watch(path).other_state == 0  # a name proves nothing
    (tmp_path / "b.csv").write_text("n_layer,d_model\n1,2\n")
    assert not is_watch_file(tmp_path / "b.csv")


def test_the_shipped_watch_has_a_cliff() -> None:
    device = read_device("pixel-watch-5")
    data = synthetic()
    at, beside = data.designs[0], data.designs[0]
    block = replace(at.blocks[0], width=576, ffn_width=1536, heads=8, kv_heads=4, head_size=64, value_head_size=64, depth=16)
    at, beside = (
        replace(one, blocks=(own,), embedding_width=576) for one, own in ((at, block), (beside, replace(block, ffn_width=1568)))
    )
    first, token, energy = (Latency(device.table(name)) for name in ("first-token", "token", "energy"))
    assert 2 < token(at) / token(beside) < 3
    assert first(at) < 0.85 * first(beside)
    assert energy(at) > 2 * energy(beside)
    errors: dict[str, Any] = {table.name: table.error for table in device.tables}
    assert errors["first-token"].mape < 0.05
    assert errors["token"].mape < 0.06
    assert errors["energy"].mape <= 0.2
    assert "another state" in device.table("token").how["state"]


def test_a_mixed_file_and_a_score_of_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / name, synthetic()) for name in ("a.csv", "b.csv")]
    for flags, words in (
        ([*map(str, paths)], "both measurements of a watch"),
        (["--published", "--score", "pixel-watch-5"], "no file with the columns of the watch's measurements"),
    ):
        with pytest.raises(SystemExit) as left:
            run_command(latency_data.main, [*flags, "--output", str(tmp_path / "out")])
        assert left.value.code == 2
        assert words in capsys.readouterr().err


def test_a_device_file_in_another_unit_is_refused(tmp_path: Path) -> None:
    data = synthetic()
    device = watch_device(data, 0)
    other = replace(device, tables=(*device.tables[:2], replace(device.tables[2], unit="J")))
    write_device(other, tmp_path / "watch.json")
    with pytest.raises(ValueError, match="is in J; expected mJ"):
        score(data, read_device(str(tmp_path / "watch.json")))
