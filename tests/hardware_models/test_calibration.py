"""Calibration: it finds the figures that latencies were made with, and says of the shipped ones where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from formulation import Architecture, Block
from hardware_models import (
    Achieved,
    Datasheet,
    DecodeLatency,
    Device,
    LatencyTable,
    MeasuredNetwork,
    PrefillLatency,
    Sourced,
    Validated,
    Workload,
    read_datasheet,
    read_device,
    write_datasheet,
    write_device,
)
from hardware_models.calibration import _designs, calibrate, main

RATED = Datasheet("my-board", "a toy", {"float32": Sourced(1e11, "made up")}, Sourced(1e10, "made up"))
REAL = replace(RATED, achieved=(Achieved("real", Sourced(4e9, "made up"), Sourced(0.25, "made up"), Sourced(2e-5, "made up")),))


def table(workload: Workload, model: Callable[[Architecture], float]) -> LatencyTable:
    """Networks of all sizes, measured without noise."""
    random = np.random.default_rng(3)
    designs = {
        Architecture((Block(64 * int(heads), int(ffn), int(depth)),), vocabulary=1000)
        for heads, ffn, depth in random.integers((1, 64, 1), (16, 4096, 9), (60, 3))
    }
    rows = tuple(MeasuredNetwork(design, (model(design),)) for design in sorted(designs, key=str))
    return LatencyTable("my-board", workload.phase, workload, (("pass", 1.0),), Validated.of(designs), rows=rows)


TABLES = (
    table(Workload("prefill", 256), PrefillLatency(REAL, 256)),
    table(Workload("decode", 64), DecodeLatency(REAL, 64)),
)


def test_the_figures_behind_the_latencies_are_found() -> None:
    found = calibrate(RATED, TABLES, "found")
    own = found.achieved
    assert own.software == "found"
    assert own.bandwidth is not None
    assert own.efficiency is not None
    assert own.kernel_overhead_s is not None
    assert (own.bandwidth.value, own.efficiency.value, own.kernel_overhead_s.value) == pytest.approx((4e9, 0.25, 2e-5), rel=5e-3)
    assert set(found.errors) == {"my-board:prefill", "my-board:decode"}
    assert all(error.mape < 1e-4 for error in found.errors.values())
    assert all(ratio > 2 for ratio in found.before.values())
    assert "my-board:prefill: mean error 0 %" in own.note


def test_what_no_latency_depends_on_is_left_out() -> None:
    """A single token is nowhere bound by arithmetic, so that a decoding table says nothing of the peak."""
    own = calibrate(RATED, TABLES[1:], "found").achieved
    assert own.efficiency is None
    assert own.bandwidth is not None
    assert own.bandwidth.value == pytest.approx(4e9, rel=5e-3)


def test_rated_figures_that_are_reached_are_left_out() -> None:
    rated = (table(Workload("prefill", 256), PrefillLatency(RATED, 256)), table(Workload("decode", 64), DecodeLatency(RATED, 64)))
    own = calibrate(RATED, rated, "found").achieved
    assert own.bandwidth is None
    assert own.efficiency is None


@pytest.mark.parametrize("name", ["raspberry-pi-4", "titan-xp"])
def test_shipped_calibrations_are_those_of_the_shipped_tables(name: str) -> None:
    sheet = read_datasheet(name)
    assert calibrate(sheet, read_device(name).tables, sheet.achieved[0].software).achieved == sheet.achieved[0]


@pytest.mark.parametrize("name", ["pixel-watch-5:token", "apple-m1:logits-128", "xeon:hat-decode"])
def test_networks_are_drawn_from_what_a_table_was_validated_on(name: str) -> None:
    """Of the watch's table: llama layers with grouped heads of several sizes, and widths of which none need be a multiple of 64."""
    device, of_device = name.split(":")
    own = read_device(device).table(of_device)
    designs = _designs(own, np.random.default_rng(0))
    assert not any(own.leaves_out(design) for design in designs)
    assert {design.family for design in designs} == {"llama" if device == "pixel-watch-5" else "merino"}
    shapes = {
        (block.heads, block.kv_heads, block.head_size, block.value_head_size) for design in designs for block in design.blocks
    }
    assert (len(shapes) > 50) is (device == "pixel-watch-5")
    assert calibrate(RATED, (own,), "found").errors[name].networks == len(designs) // 2


def test_the_command_writes_a_datasheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet, device, output = (str(tmp_path / name) for name in ("sheet.json", "board.json", "out.json"))
    write_datasheet(RATED, Path(sheet))
    write_device(Device("my-board", TABLES), Path(device))
    assert main([sheet, device, "--software", "found", "--output", output]) == 0
    assert read_datasheet(output).achieved == (calibrate(RATED, TABLES, "found").achieved,)
    assert "my-board:decode" in capsys.readouterr().out
    assert main([sheet, f"{device}:decode", "--software", "found", "--output", output]) == 0
    assert read_datasheet(output).achieved == (calibrate(RATED, TABLES[1:], "found").achieved,)


def test_what_cannot_be_calibrated_with_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no latency table"):
        calibrate(RATED, (), "found")
    with pytest.raises(ValueError, match="the table prefill of my-board is in mJ; expected latencies in ms"):
        calibrate(RATED, (replace(TABLES[0], quantity="energy", unit="mJ"),), "found")
