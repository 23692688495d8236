"""The study of cost models on a small space, and its mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from formulation import PUBLISHED, SearchSpace
from hardware_models import Device, Flops, Workload, write_device
from hardware_models.workload import feature_matrix
from studies.hardware import figures as hardware_figures
from studies.hardware import study as hardware
from tests.hardware_models.test_latency import TABLE

SPACE = SearchSpace.uniform(4, (512, 640, 1024), (1, 1.5), (1, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_dict()))
    write_device(Device("toy", (TABLE,)), tmp_path / "toy.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return hardware.main(["--space", "space.json", "--designs", "200", "--output", "out", *arguments])


def test_every_optimum_keeps_its_own_budget_and_the_common_design_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = ["params", "flops", "memory", "latency@toy.json", "latency@jetson-nano"]
    assert run("--costs", *costs, "--extrapolate") == 0
    record = json.loads((folder / "out" / "hardware.json").read_text())
    matrix = np.array(record["matrix"])
    assert matrix.shape == (5, 5)
    assert (np.diag(matrix) <= 1 + 1e-9).all()
    entropies = [one["entropy"] for one in record["optima"]]
    for row, entropy in zip(matrix, entropies, strict=True):
        # A design that keeps another model's budget too is no better there than that model's optimum.
        assert all(entropy <= own * (1 + 1e-6) for spent, own in zip(row, entropies, strict=True) if spent <= 1)
    common = record["common"]
    assert all(device["spent_of_limit"] <= 1 + 1e-9 for device in common["devices"])
    assert all(device["entropy_lost"] >= -1e-9 for device in common["devices"])
    assert [one["extrapolated"] for one in record["optima"]][:3] == ["", "", ""]
    assert "total depth" in record["optima"][3]["extrapolated"]
    out = capsys.readouterr().out
    assert "latency@toy.json*" in out
    assert "* outside what the device's table was validated on" in out
    for name in ("optima.png", "matrix.png", "flops_latency.png"):
        assert (folder / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_not_validated_is_left_out_unless_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--costs", "params", "latency@toy.json") == 0
    captured = capsys.readouterr()
    assert "left out: latency@toy:prefill was not validated for this: the space has width 1,024" in captured.err
    assert "toy" not in captured.out
    assert not (folder / "out" / "flops_latency.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--costs", "latency@toy.json"], "no cost model is validated on this space"),
        (["--costs", "flops", "flops"], "expected each once"),
        (["--costs", "wattage"], "unknown cost 'wattage'"),
        (["--reference", "GPT-4"], "unknown reference 'GPT-4'"),
        (["--designs", "3"], "--designs is 3; expected at least 20"),
        (["--costs", "latency"], "latency needs a device; write latency@amd-epyc-2cpu"),
        (["--costs", "latency@jetson-nano:decode"], "has no table 'decode'"),
    ],
)
def test_mistakes_are_sentences(folder: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(*arguments)
    assert not (folder / "out" / "hardware.json").exists()


def test_latency_of_designs_of_equal_flops_spreads(folder: Path) -> None:
    space = SearchSpace.uniform(4, (512, 768, 1024), (1, 2), (1, 2, 3))
    picture = hardware.latency_at_equal_flops(space, hardware.read_costs(["flops", "params"], space, False), 500, seed=0)
    assert picture["costs"]["flops"]["spearman"] == pytest.approx(1.0)
    assert picture["costs"]["flops"]["spread"] < 1.03
    assert picture["costs"]["params"]["spread"] > 1.05  # sharing: depth costs FLOPs and no parameters


def test_flops_are_those_of_the_pass_that_the_table_predicts() -> None:
    space = SearchSpace.uniform(2, (512, 1024), (1, 2), (1, 3))
    choices = space.sample(np.random.default_rng(0), 20)
    designs = [space.decode(choice) for choice in choices]
    works = [Workload("prefill", 128), Workload("prefill", 30, batch=4), Workload("decode", 15, batch=5)]
    for work in works:
        counted = feature_matrix(designs, work, ["attention_maps", "ffn_maps", "scores", "joint_maps"]).sum(axis=1)
        assert hardware.pass_flops(space, choices, work) == pytest.approx(1e9 * counted)
    assert hardware.pass_flops(space, choices, works[0]) == pytest.approx(np.array([Flops(128)(design) for design in designs]))


def test_each_panel_has_the_flops_of_its_own_pass() -> None:
    space = hardware.read_one_space("paper")
    tables = hardware.read_costs(["latency@amd-epyc-2cpu", "latency@titan-xp"], space, extrapolate=True)
    picture = hardware.latency_at_equal_flops(space, tables, 200, seed=0)
    prefill, decode = hardware_figures.draw_latency({"flops": picture}).axes
    assert prefill.get_xlabel().endswith("prefill of 128 tokens, batch 1, last logits")
    assert decode.get_xlabel().endswith("decode of a token after 15, batch 5, last logits")
    # Five tokens of a beam against 128 of a query, and a little less of scores.
    ratios = decode.lines[0].get_xdata() / prefill.lines[0].get_xdata()
    assert 0.9 * 5 / 128 < ratios.min() <= ratios.max() < 5 / 128
    spread = picture["costs"]["latency@titan-xp"]["spread"]
    assert decode.get_title().endswith(f"at equal FLOPs slowest / fastest {spread:.2f} (median)")
    assert {axis.get_ylabel() for axis in (prefill, decode)} == {"predicted latency [ms]"}


def test_the_default_reference_is_in_the_default_space() -> None:
    assert PUBLISHED["MeRino-61M"] in hardware.read_one_space("paper")


def test_a_table_of_large_error_is_marked_in_every_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert TABLE.error is not None
    poor = replace(TABLE, error=replace(TABLE.error, mape=0.559))
    write_device(Device("poor", (poor,)), folder / "poor.json")
    assert run("--costs", "params", "latency@poor.json", "latency@jetson-nano", "--extrapolate") == 0
    printed = capsys.readouterr()
    assert "warning: the table prefill of poor is doubtful: its mean error" in printed.err
    assert printed.out.count("latency@poor.json*?") == 3  # the optima, the common design, the spread
    assert "? the table prefill of poor is doubtful" in printed.out
    record = json.loads((folder / "out" / "hardware.json").read_text())
    assert [bool(one["doubt"]) for one in record["optima"]] == [False, True, False]
    assert "(doubtful: mean error 56 %) (prefill of 128 tokens" in record["optima"][1]["quantity"]
