"""The latency check against a device that is a formula: what it reports, and that it measures nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from formulation import Architecture, EffectiveEntropy, SearchSpace
from hardware_models import Device, Latency, write_device
from hardware_models.engines import Measurement
from studies.latency_check import study as latency_check
from studies.latency_check.study import Check, fastest_with
from tests.hardware_models.test_latency import TABLE

SPACE = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 4))


class Machine:
    """As fast as the toy table says, times a log-normal error; counts what it measures."""

    def __init__(self, error: float, slower: float = 1.0) -> None:
        self.measured: list[Architecture] = []
        self._draw, self._error, self._slower = np.random.default_rng(3), error, slower

    def measure(self, design: Architecture, seconds: float) -> Measurement:
        self.measured.append(design)
        value = float(TABLE.predict(design) * self._slower * np.exp(self._error * self._draw.normal()))
        return Measurement(value, 0.0, 5, pace_ms=6.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_dict()))
    write_device(Device("toy", (TABLE,)), tmp_path / "toy.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency_check, "FLOPS_BUDGETS", (1e9, 2e9))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, machine: Machine, *arguments: str) -> dict:
    monkeypatch.setattr("hardware_models.engines.engine_of", lambda table: machine)
    options = ["toy.json", "--space", "space.json", "--networks", "30", "--limits", "20", "--turns", "3", "--output", "out"]
    assert latency_check.main([*options, *arguments]) == 0
    return json.loads(Path("out/summary.json").read_text())


def test_a_machine_that_is_as_its_file_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(error=0.02)
    summary = run(monkeypatch, machine)
    assert len(machine.measured) == 30 + 2 * 20 + 2 * 2 * 3
    assert summary["networks"]["within_10"] == 1
    assert summary["networks"]["spearman"] > 0.98
    plain, robust = summary["budgets"]["as predicted"], summary["budgets"]["confident"]
    assert robust["kept"] == 20  # the margin of 1.08 is four standard deviations
    assert plain["kept"] < 20
    assert robust["clopper_pearson_95"][0] == pytest.approx(0.025 ** (1 / 20))
    assert robust["median_of_limit"] < 1
    assert summary["budgets"]["median_entropy_loss"] > 0
    for pair in summary["flops"]:
        assert pair["ratio_predicted"] <= 1
        assert pair["entropy_latency"] >= pair["entropy_flops"] * (1 - 1e-6)
        assert len(pair["ratios"]) == 3
    assert "limits kept" in capsys.readouterr().out
    assert (folder / "out" / "latency_check.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_is_not_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(monkeypatch, Machine(error=0.02))
    again = Machine(error=0.02)
    second = run(monkeypatch, again)
    assert not again.measured
    assert first["networks"] == second["networks"]
    assert first["budgets"] == second["budgets"]


def test_a_machine_that_has_become_slower_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = run(monkeypatch, Machine(error=0.01, slower=1.3), "--parts", "networks,budgets")
    assert summary["networks"]["within_10"] == 0
    assert summary["networks"]["median_ratio"] == pytest.approx(1.3, rel=0.02)
    assert summary["budgets"]["confident"]["kept"] == 0
    assert "flops" not in summary


@pytest.mark.parametrize("entropy", [3000.0, 8000.0, 14000.0])
def test_the_fastest_design_with_enough_entropy(entropy: float) -> None:
    check = Check(SPACE, Latency(TABLE), 2, 2, 0.95, 1, 0.1)
    objective, latency = EffectiveEntropy(), Latency(TABLE)
    best = min((design for design in SPACE if objective(design) >= entropy), key=latency)
    found = fastest_with(check, entropy)
    assert objective(found) >= entropy * (1 - 1e-6)
    assert latency(found) == pytest.approx(latency(best), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toy.json", "--parts", "speed"], "--parts is 'speed'"),
        (["toy.json", "--networks", "1"], "--networks is 1; expected at least 2"),
        (["toy.json", "--confidence", "0.999"], "states its error for 0.5 to 0.99"),
        (["toy.json", "--table", "decode"], "has no table 'decode'"),
        (["toy.json"], "was not validated for this: the space has width"),
        (["toy.json", "--space", "space.json"], "is none that python -m hardware_models.profile wrote"),
    ],
)
def test_mistakes_are_sentences(folder: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        latency_check.main([*arguments, "--output", "out"])


def test_rows_of_another_table_are_not_taken_for_this_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, Machine(error=0.02), "--parts", "networks")
    with pytest.raises(ValueError, match=r"another --output"):
        run(monkeypatch, Machine(error=0.02), "--parts", "networks", "--seconds", "0.5")
