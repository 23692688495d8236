"""The study of designs in llama.cpp: what it compares, times and says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from merino_net import MerinoConfig
from studies.llama_cpp.study import (
    SETTINGS,
    agreement_summary,
    agreement_text,
    configurations,
    main,
    random_design,
    speed_benches,
)
from studies.net_speed.study import measure_and_write

STORED = Path(__file__).parents[2] / "studies" / "results" / "llama_cpp"


def test_designs_differ_from_layer_to_layer_and_come_again() -> None:
    designs = [random_design(seed) for seed in range(20)]
    assert designs == [random_design(seed) for seed in range(20)]
    assert len({str(design) for design in designs}) == 20
    for design in designs:
        assert len({(block.heads, block.kv_heads, block.ffn_width) for block in design.blocks}) > 1
        assert len({block.head_size for block in design.blocks}) == 1
    assert {design.tied for design in designs} == {True, False}
    assert {block.shared is False for design in designs for block in design.blocks if block.depth > 1} == {True, False}


def test_agreement_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--parts", "agreement", "--designs", "1", "--output", str(tmp_path)]
    assert main(command) == 0
    first = (tmp_path / "agreement.jsonl").read_text()
    assert main(command) == 0
    assert (tmp_path / "agreement.jsonl").read_text() == first
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["scale"] for row in rows] == [1, 2]
    for row in rows:
        found = row["differences"]
        assert list(found) == list(SETTINGS)
        assert found["f32, f32 cache"]["top"] < 1e-4
        assert found["f32, f32 cache"]["top"] < found["f32, f16 cache"]["top"] < found["q8_0"]["top"]
    assert "20 most probable tokens after 64, 1 random designs, weights 2/√width" in capsys.readouterr().out


def test_agreement_summary() -> None:
    rows = [
        {"scale": scale, "spread": 2.0 + i, "differences": {"f16": {"top": 0.1 * i, "best": -0.1 * i}}}
        for scale in (2, 1)
        for i in (2, 0, scale)
    ]
    summary = agreement_summary(rows)
    assert [each["scale"] for each in summary["scales"]] == [1, 2]
    assert summary["scales"][0]["settings"] == {"f16": {"largest": 0.2, "median": 0.1, "median_of_best": -0.1}}
    assert summary["scales"][0]["median_spread"] == 3.0
    assert "f16          0.2     0.1                  -0.1" in agreement_text(summary)


def test_speed_of_small_models(tmp_path: Path) -> None:
    models = {name: MerinoConfig.from_architecture(random_design(seed)) for name, seed in (("one", 0), ("other", 1))}
    assert measure_and_write(speed_benches(models, ["q8_0"], [1], 16, 2), tmp_path) == 0
    tasks = json.loads((tmp_path / "summary.json").read_text())["tasks"]
    assert [(task["part"], task["runtime"]) for task in tasks] == [
        ("prefill", "llama.cpp q8_0, 1 thread"),
        ("decode", "llama.cpp q8_0, 1 thread"),
    ]
    for task in tasks:
        assert [each["reference"] for each in task["ratios"]] == ["one"]
        assert all(each["seconds"] > 0 for each in task["models"])


def test_models_are_named_by_their_folders() -> None:
    found = configurations(["smollm2-135m", "studies/results/layers/params/design.json", "studies/results/layers/llama_cpp"])
    assert list(found) == ["smollm2-135m", "params", "llama_cpp"]
    assert found["smollm2-135m"].to_architecture().blocks[0].ffn_width == 1536


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="--rounds is 0; expected at least 1"):
        main(["--rounds", "0"])


def test_stored_agreement_meets_its_goals() -> None:
    """With an f32 cache within 1e-4; and with llama.cpp's own, f16, what docs/llama_cpp.md says."""
    page = (STORED.parents[2] / "docs" / "llama_cpp.md").read_text()
    for scale in json.loads((STORED / "agreement.json").read_text())["scales"]:
        assert scale["settings"]["f32, f32 cache"]["largest"] < 1e-4
        for setting, found in scale["settings"].items():
            assert f"{found['largest']:.2g}" in page, setting
