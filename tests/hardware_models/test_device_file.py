"""Device files: they round-trip, those that are shipped can be used, and any damage is a sentence."""

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
from hardware_models import Condition, ConditionalPrice, Device, Latency, read_device, shipped, write_device
from hardware_models.device import device_from_text, device_text
from hardware_models.latency import fit_table
from hardware_models.workload import Workload
from tests.hardware_models.test_latency import TABLE, measured, random_designs
from tests.studies.test_problem_file import mutated

ROWS = fit_table("toy", "rows", Workload("decode"), [row for row in measured(random_designs(40), (1.0, 1.01)) if row.design.shared])
CLIFF = replace(
    TABLE,
    name="cliff",
    conditional=(
        ConditionalPrice("ffn_maps", 2.5, Condition(("width", "ffn_width"), multiple_of=64, not_multiple_of=128)),
        ConditionalPrice("layer", 0.5, Condition(("width",), equal=512)),
        ConditionalPrice("head", 0.25, Condition(("value_width", "query_width", "cache_width"), not_multiple_of=256)),
    ),
)
DEVICE = Device("toy", (TABLE, ROWS, CLIFF), "a toy", "made up", 4e9)
RECORD = json.loads(device_text(DEVICE))


def changed(change: Callable[[dict[str, Any]], Any]) -> str:
    record = copy.deepcopy(RECORD)
    change(record)
    return json.dumps(record)


def test_a_device_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_device(DEVICE, tmp_path / "toy.json")
    again = read_device(str(tmp_path / "toy.json"))
    assert again == DEVICE
    assert [table.origin for table in again.tables] == [str(tmp_path / "toy.json")] * 3
    assert [row.design for row in again.tables[1].rows] == [row.design for row in ROWS.rows]
    lines = (tmp_path / "toy.json").read_text().splitlines()
    assert sum('"blocks"' in line and '"passes"' in line for line in lines) == len(ROWS.rows)


def test_a_price_below_0_is_for_what_is_no_latency() -> None:
    def energy(record: dict[str, Any]) -> None:
        _first(record).update(quantity="energy", unit="mJ")
        _first(record)["prices"]["table"] = -0.25

    assert dict(device_from_text(changed(energy)).tables[0].prices)["table"] == -0.25


def test_prices_are_fitted_where_there_are_only_rows() -> None:
    def only_rows(record: dict[str, Any]) -> None:
        for key in ("prices", "validated", "error"):
            del record["tables"][1][key]

    fitted = device_from_text(changed(only_rows)).tables[1]
    designs = [row.design for row in ROWS.rows]
    assert [fitted.predict(design) for design in designs] == pytest.approx([ROWS.predict(design) for design in designs], rel=1e-3)
    assert fitted.error is not None
    assert fitted.validated == ROWS.validated


def _first(record: dict[str, Any]) -> dict[str, Any]:
    return record["tables"][0]


def _conditional(record: dict[str, Any]) -> dict[str, Any]:
    return record["tables"][2]["conditional_prices"][0]


def _row(record: dict[str, Any]) -> dict[str, Any]:
    return record["tables"][1]["rows"][0]


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda r: r.update(version=1), "version 1.*formulation.convert"),
    "later version": (lambda r: r.update(version=3), "version 3.*version 2"),
    "format": (lambda r: r.update(format="merino problem"), 'merino problem.*"format": "merino device"'),
    "unit": (lambda r: _first(r).update(unit="s"), r"tables\[0\].unit is 's'.*'ms'"),
    "negative price": (lambda r: _first(r)["prices"].update(layer=-1), r"tables\[0\].prices.layer is -1.*at least 0"),
    "negative conditional price": (
        lambda r: _conditional(r).update(price=-1),
        r"tables\[2\].conditional_prices\[0\].price is -1.*at least 0 in a table of latencies",
    ),
    "unknown conditional work": (lambda r: _conditional(r).update(work="flops"), r"conditional_prices\[0\].work is 'flops'"),
    "conditional joint": (lambda r: _conditional(r).update(work="joint_maps"), "work is 'joint_maps'; expected one of pass, block"),
    "no condition": (lambda r: _conditional(r).pop("where"), r"conditional_prices\[0\] lacks where"),
    "condition on nothing": (lambda r: _conditional(r)["where"].update(of=[]), r"where: of is \[\]; expected one or more of width"),
    "condition on what is unknown": (
        lambda r: _conditional(r)["where"].update(of=["depth"]),
        "where: unknown width in a condition 'depth'",
    ),
    "condition that states nothing": (
        lambda r: _conditional(r).update(where={"of": ["width"]}),
        "states nothing; expected one or more of multiple_of, not_multiple_of, equal",
    ),
    "multiple of 0": (lambda r: _conditional(r)["where"].update(multiple_of=0), r"where.multiple_of is 0.*at least 1"),
    "condition with an unknown key": (lambda r: _conditional(r)["where"].update(multiples=64), "unknown key 'multiples'"),
    "family of nobody": (lambda r: _first(r)["validated"].update(families=["bert"]), "validated: unknown family 'bert'"),
    "heads the wrong way": (lambda r: _first(r)["validated"].update(heads=[9, 3]), r"validated: heads are \[9, 3\]"),
    "unknown price": (lambda r: _first(r)["prices"].update(flops=1), r"prices.*'flops'.*expected pass"),
    "text for a price": (lambda r: _first(r)["prices"].update(layer="1"), "prices.layer is '1'.*a number"),
    "no prices": (lambda r: _first(r).pop("prices"), "neither prices nor rows"),
    "prices of 0": (lambda r: _first(r).update(prices={"pass": 0}), "all 0"),
    "nothing validated": (lambda r: _first(r).pop("validated"), r"tables\[0\].*lacks validated"),
    "duplicate row": (lambda r: r["tables"][1]["rows"].append(dict(_row(r))), r"rows\[\d+\] repeats the network"),
    "negative latency": (lambda r: _row(r).update(rounds_ms=[3.0, -2.0]), r"rows\[0\].*-2.0 ms.*positive"),
    "no latency": (lambda r: _row(r).update(rounds_ms=[]), "measured in no round"),
    "text for a latency": (lambda r: _row(r).update(rounds_ms=["3 ms"]), r"rounds_ms\[0\] is '3 ms'.*a number"),
    "blocks": (lambda r: _row(r).update(blocks="512/512x2"), r"blocks is '512/512x2'.*objects with width, ffn_width, depth"),
    "row without a key": (lambda r: _row(r).pop("passes"), r"rows\[0\] lacks passes"),
    "no surroundings": (lambda r: r["tables"][1].pop("surroundings"), r"tables\[1\].*lacks surroundings"),
    "table twice": (lambda r: r["tables"].append(r["tables"][0]), "expected one or more, each once"),
    "no tables": (lambda r: r.update(tables=[]), "the tables none"),
    "name": (lambda r: r.update(name="My Board"), "My Board.*lower-case letters"),
    "name of a table": (lambda r: _first(r).update(name="My Table"), r"tables\[0\].name is 'My Table'"),
    "memory": (lambda r: r.update(ram_bytes=-4), "ram_bytes is -4"),
    "no memory": (lambda r: r.update(ram_bytes=0), "ram_bytes 0"),
    "unknown key": (lambda r: r.update(vendor="x"), "unknown key 'vendor'"),
    "workload": (lambda r: _first(r)["workload"].update(phase="train"), "workload.*phase is 'train'"),
    "half a workload": (lambda r: _first(r)["workload"].pop("batch"), "workload lacks batch"),
    "range": (lambda r: _first(r)["validated"].update(widths=[512, 256]), r"validated: widths.*\[512, 256\]"),
    "nothing seen": (lambda r: _first(r)["validated"].update(shared=[]), "validated: shared is empty"),
    "no width": (lambda r: _first(r)["validated"].update(embedding_widths=[0]), "validated: embedding_widths"),
    "quantiles": (
        lambda r: _first(r)["error"].update(quantiles=[[0.9, 1.1], [0.5, 1.0]]),
        "error: the quantiles.*both entries rising",
    ),
    "quantile": (lambda r: _first(r)["error"].update(quantiles=[[0.5, 1.0], [95, 1.1]]), r"error: a quantile is \(95, 1.1\)"),
    "rank correlation": (lambda r: _first(r)["error"].update(spearman=2), "error: spearman is 2"),
    "error": (lambda r: _first(r)["error"].update(mape=-0.1), "error: mape is -0.1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_a_sentence(kind: str) -> None:
    change, words = DAMAGE[kind]
    with pytest.raises(ValueError, match=words) as caught:
        device_from_text(changed(change))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_or_with_nan(tmp_path: Path) -> None:
    text = device_text(DEVICE)
    path = tmp_path / "toy.json"
    for content, words in (
        (text[: len(text) // 2], "not valid JSON, or cut short"),
        (text.replace('"ram_bytes": 4000000000.0', '"ram_bytes": NaN'), "the value NaN; expected finite numbers"),
        (text.replace('"ram_bytes": 4000000000.0', '"ram_bytes": 1e999'), "ram_bytes is inf"),
        (text.replace('"ram_bytes": 4000000000.0', '"ram_bytes": 1' + "0" * 400), "ram_bytes is 10"),
        (text.replace('"version": 2,', '"version": 2, "version": 2,', 1), "the key 'version' twice"),
        ("[" * 100_000, "nested too deeply"),
        ("", "not valid JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"the device file .*toy.json: .*{words}"):
            read_device(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        read_device(str(path))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_any_damage_is_a_value_error_or_harmless(seed: int) -> None:
    text = json.dumps(mutated(RECORD, random.Random(seed)))
    try:
        device = device_from_text(text)
    except ValueError:
        return
    assert device.tables


def test_unknown_devices_tables_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'jetson-nano'\? \(choose from .*xeon"):
        read_device("jetson")
    with pytest.raises(ValueError, match=r"cannot read the device file .*: no such file"):
        read_device(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="has no table 'decode'"):
        read_device("jetson-nano").table("decode")


@pytest.mark.parametrize("name", shipped())
def test_shipped_devices_say_what_they_hold_for(name: str) -> None:
    device = read_device(name)
    assert device.name == name
    assert device.source
    for table in device.tables:
        assert table.error is not None
        assert table.margin(0.95) >= 1
        assert {"runtime", "precision", "clocks", "date"} <= set(table.how)
        assert Latency(table, extrapolate=True)(PUBLISHED["MeRino-52M"]) > 0


def test_the_paper_s_devices_are_shipped() -> None:
    assert {"apple-m1", "jetson-nano", "pixel-watch-5", "raspberry-pi-4", "titan-xp", "xeon"} <= set(shipped())
    nano = Latency(read_device("jetson-nano").table())
    for name, published in {"MeRino-52M": 48, "MeRino-61M": 77, "MeRino-64M": 114}.items():
        assert nano(PUBLISHED[name]) == pytest.approx(published, rel=0.1)
