"""Datasheets: they round-trip, those that are shipped hold the figures quoted of them, and any damage is a sentence."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from formulation import PUBLISHED
from hardware_models import (
    Achieved,
    Datasheet,
    DecodeEnergy,
    DecodeLatency,
    PrefillEnergy,
    PrefillLatency,
    Sourced,
    read_datasheet,
    shipped_datasheets,
    write_datasheet,
)
from hardware_models.datasheet import PRECISIONS, datasheet_from_text, datasheet_text
from tests.studies.test_problem_file import mutated

BOARD = Datasheet(
    "my-board",
    "a toy",
    {"float32": Sourced(48e9, "a"), "int8": Sourced(96e9, "b")},
    Sourced(12.8e9, "c"),
    (Achieved("stream", Sourced(5.6e9, "d"), Sourced(0.4, "e"), Sourced(5e-6, "f"), "10 % off"), Achieved("other")),
    *(Sourced(value, "g") for value in (1e6, 4e9, 2.0, 6.0, 10.0)),
    {"float32": Sourced(1e-12, "h")},
    Sourced(1e-10, "i"),
)
RECORD = json.loads(datasheet_text(BOARD))


def test_a_datasheet_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "my-board.json"
    write_datasheet(BOARD, path)
    again = read_datasheet(str(path))
    assert again == BOARD
    assert hash(again) == hash(BOARD)
    assert again.origin == str(path)
    small = Datasheet("small", "a toy", {"float32": Sourced(1e9, "a")}, Sourced(1e9, "b"))
    assert set(json.loads(datasheet_text(small))) == {"format", "version", "name", "description", "peak_flops", "bandwidth"}
    assert datasheet_from_text(datasheet_text(small)) == small


def test_what_a_latency_is_computed_with() -> None:
    assert BOARD.rates() == BOARD.rates("float32", "stream")
    own = BOARD.rates()
    assert (own.flops, own.bandwidth, own.kernel_overhead_s) == pytest.approx((0.4 * 48e9, 5.6e9, 5e-6))
    rated = BOARD.rates("int8", "rated")
    assert (rated.flops, rated.bandwidth, rated.kernel_overhead_s, rated.basis) == (96e9, 12.8e9, 0.0, "as rated")
    assert replace(rated, basis="as other achieves") == BOARD.rates("int8", "other")
    assert replace(BOARD, achieved=()).rates("int8") == rated
    assert (BOARD.note(), BOARD.note("stream"), BOARD.note("other"), BOARD.note("rated")) == ("10 % off", "10 % off", "", "")


QUOTED: dict[str, tuple[dict[str, float], float]] = {
    "apple-m1": ({"float32": 2.6e12}, 68.25e9),
    "apple-m2": ({"float32": 3.55e12}, 100e9),
    "h100-sxm": ({"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989e12, "float16": 989e12, "int8": 1979e12}, 3.35e12),
    "h200-sxm": ({"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989e12, "float16": 989e12, "int8": 1979e12}, 4.8e12),
    "intel-n100": ({"float32": 185e9}, 38.4e9),
    "jetson-agx-orin-64gb": ({"float32": 5.3e12, "bfloat16": 42.5e12, "float16": 42.5e12, "int8": 85e12}, 204.8e9),
    "jetson-nano": ({"float32": 236e9, "float16": 472e9}, 25.6e9),
    "jetson-orin-nano-8gb": ({"float32": 1.28e12, "bfloat16": 10e12, "float16": 10e12, "int8": 20e12}, 68e9),
    "jetson-orin-nano-super": ({"float32": 2.09e12, "bfloat16": 16.75e12, "float16": 16.75e12, "int8": 33.5e12}, 102e9),
    "jetson-orin-nx-16gb": ({"float32": 1.88e12, "bfloat16": 14.7e12, "float16": 14.7e12, "int8": 29.4e12}, 102.4e9),
    "raspberry-pi-4": ({"float32": 48e9}, 12.8e9),
    "raspberry-pi-5": ({"float32": 153.6e9, "float16": 307.2e9, "int8": 614.4e9}, 17.07e9),
    "rtx-4090": ({"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12, "float16": 165.2e12, "int8": 660.6e12}, 1008e9),
    "snapdragon-8-gen-3": ({"float32": 355.2e9, "float16": 710.4e9}, 76.8e9),
    "titan-xp": ({"float32": 12.15e12, "int8": 48.6e12}, 547.7e9),
    "xeon-platinum-8180": ({"float32": 4.48e12}, 128e9),
}
"""Peaks and bandwidths as their vendors round them."""


def test_shipped_datasheets_hold_the_quoted_figures() -> None:
    assert set(QUOTED) == set(shipped_datasheets())
    for name, (peaks, bandwidth) in QUOTED.items():
        device = read_datasheet(name)
        assert device.name == name
        assert {precision: peak.value for precision, peak in device.peak_flops.items()} == pytest.approx(peaks, rel=2e-3)
        assert device.bandwidth.value == pytest.approx(bandwidth, rel=2e-3)
        for own in device.achieved:
            assert own.note
            assert own.bandwidth is None or own.bandwidth.value < device.bandwidth.value
    # What is moved on a Raspberry Pi 4 by a benchmark of bandwidth.
    assert 5e9 < read_datasheet("raspberry-pi-4").rates(software="benchmarks").bandwidth < 6e9


@pytest.mark.parametrize("name", shipped_datasheets())
def test_a_shipped_datasheet_prices_what_it_states(name: str) -> None:
    device, design = read_datasheet(name), PUBLISHED["MeRino-52M"]
    for precision, own in PRECISIONS.items():
        if own.arithmetic in device.peak_flops:
            assert DecodeLatency(device, precision=precision)(design) > 0
    powers = [figure.value for figure in (device.idle_power_w, device.active_power_w or device.rated_power_w) if figure]
    for energy, latency in ((PrefillEnergy, PrefillLatency), (DecodeEnergy, DecodeLatency)):
        if not powers:
            with pytest.raises(ValueError, match=f"the datasheet of {name} states neither"):
                energy(device)
        else:
            assert min(powers) <= energy(device)(design) / latency(device)(design) * (1 + 1e-12)
            assert energy(device)(design) / latency(device)(design) <= max(powers) * (1 + 1e-12)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda r: r.update(version=3), "version 3.*version 2"),
    "format": (lambda r: r.update(format="merino device"), 'merino device.*"format": "merino datasheet"'),
    "name": (lambda r: r.update(name="My Board"), "My Board.*lower-case letters"),
    "description": (lambda r: r.update(description=" "), "description is ' '"),
    "unknown key": (lambda r: r.update(bandwith={}), "unknown key 'bandwith'; did you mean 'bandwidth'"),
    "no bandwidth": (lambda r: r.pop("bandwidth"), "datasheet lacks bandwidth"),
    "a number": (
        lambda r: r.update(bandwidth=1e9),
        "datasheet.bandwidth is 1000000000.0; expected an object with value and source",
    ),
    "no source": (lambda r: r["bandwidth"].pop("source"), "datasheet.bandwidth lacks source"),
    "empty source": (lambda r: r["bandwidth"].update(source=""), "datasheet.bandwidth: source is ''"),
    "no value": (lambda r: r["ram_bytes"].update(value=0), "datasheet.ram_bytes: value is 0; expected a finite number above 0"),
    "text": (lambda r: r["ram_bytes"].update(value="4 GB"), r"datasheet.ram_bytes.value is '4 GB'; expected a number"),
    "no peaks": (lambda r: r.update(peak_flops={}), "peak_flops is empty"),
    "precision": (lambda r: r["peak_flops"].update(fp32=r["bandwidth"]), "peak_flops has fp32; expected precisions among float32"),
    "4 bits": (lambda r: r["peak_flops"].update(int4=r["bandwidth"]), "peak_flops has int4; expected precisions among float32"),
    "efficiency": (lambda r: r["achieved"][0]["efficiency"].update(value=1.2), r"achieved\[0\]: efficiency is 1.2.*at most 1"),
    "achieved": (
        lambda r: r["achieved"][0].update(bandwidth={"value": 1e15, "source": "made up"}),
        "achieved has a bandwidth of 1000000000000000.0 for .*; expected at most the rated one",
    ),
    "software": (lambda r: r["achieved"][1].update(software="stream"), "achieved has stream, stream; expected each software once"),
    "rated": (lambda r: r["achieved"][1].update(software="rated"), r"achieved\[1\]: software is 'rated'"),
    "no software": (lambda r: r["achieved"][1].pop("software"), r"achieved\[1\] lacks software"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_a_sentence(kind: str) -> None:
    change, words = DAMAGE[kind]
    record = copy.deepcopy(RECORD)
    change(record)
    with pytest.raises(ValueError, match=words) as caught:
        datasheet_from_text(json.dumps(record))
    assert "\n" not in str(caught.value)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_any_damage_is_a_value_error_or_harmless(seed: int) -> None:
    text = json.dumps(mutated(RECORD, random.Random(seed)))
    try:
        sheet = datasheet_from_text(text)
    except ValueError:
        return
    assert sheet.peak_flops


def test_unknown_datasheets_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown datasheet 'jetson nano'; did you mean 'jetson-nano'\? \(choose from apple-m1"):
        read_datasheet("jetson nano")
    with pytest.raises(ValueError, match=r"cannot read the datasheet .*: no such file"):
        read_datasheet(str(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text(datasheet_text(BOARD)[:50])
    with pytest.raises(ValueError, match=r"the datasheet .*cut.json: it is not valid JSON, or cut short"):
        read_datasheet(str(tmp_path / "cut.json"))
