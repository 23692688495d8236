"""Files of version 1 become files of version 2, once, whole or not at all."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import PUBLISHED, Architecture, Block
from formulation.convert import convert, converted_text, main
from hardware_models.device import device_from_text

BLOCKS = [{"width": 512, "ffn_width": 512, "depth": 2}, {"width": 640, "ffn_width": 960, "depth": 1}]
ARCHITECTURE = {"format": "merino-architecture", "version": 1, "blocks": BLOCKS, "shared": True}
PROBLEM = {
    "format": "merino problem",
    "version": 1,
    "space": "paper",
    "maximize": "entropy",
    "budgets": [{"quantity": "flops", "upper": 6e10}],
}
DESIGN = {
    "format": "merino design",
    "version": 1,
    "architecture": ARCHITECTURE,
    "problem": PROBLEM,
    "price": [{"present": ARCHITECTURE}],
}
DEVICE = {
    "format": "merino device",
    "version": 1,
    "name": "toy",
    "tables": [
        {
            "name": "prefill",
            "unit": "ms",
            "workload": {"phase": "prefill", "seq_len": 128, "batch": 1, "logits": "last"},
            "surroundings": {"embedding_width": 768, "vocabulary": 50257, "positions": 2048},
            "prices": {"pass": 1.5},
            "validated": {
                "widths": [512, 640],
                "ffn_widths": [512, 960],
                "layers": [1, 3],
                "embedding_widths": [768],
                "vocabularies": [50257],
                "shared": [True],
            },
            "rows": [{"blocks": "512/512x2 640/960x1", "shared": True, "rounds_ms": [31.25], "std_ms": 0.5, "passes": 20}],
        }
    ],
}
RECORDS = {"architecture": (ARCHITECTURE, 1), "problem": (PROBLEM, 1), "design": (DESIGN, 4), "device": (DEVICE, 1)}


def versions(value: Any) -> list[int]:
    """The version of every record in a JSON value."""
    if isinstance(value, list):
        return [version for item in value for version in versions(item)]
    if not isinstance(value, dict):
        return []
    own = [value["version"]] if "format" in value else []
    return own + [version for item in value.values() for version in versions(item)]


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_converted_once(name: str) -> None:
    record, number = RECORDS[name]
    new, found = convert(record)
    assert found == number
    assert versions(new) == [2] * number
    assert convert(new) == (new, 0)


def test_what_is_converted_can_be_read() -> None:
    design = Architecture((Block(512, 512, 2), Block(640, 960, 1)))
    assert Architecture.from_dict(convert(ARCHITECTURE)[0]) == design
    (row,) = device_from_text(json.dumps(convert(DEVICE)[0])).tables[0].rows
    assert row.design == design
    assert row.rounds_ms == (31.25,)


def test_version_1_is_refused_with_the_command() -> None:
    with pytest.raises(ValueError, match=r"version 1.*python -m formulation\.convert"):
        Architecture.from_dict(ARCHITECTURE)
    with pytest.raises(ValueError, match=r"version 1.*python -m formulation\.convert"):
        device_from_text(json.dumps(DEVICE))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(values, st.sampled_from([None, 1, 2, 4]), st.booleans())
def test_only_the_records_change(value: Any, indent: int | None, end: bool) -> None:
    record = {"other": value, "record": ARCHITECTURE}
    text = json.dumps(record, indent=indent) + "\n" * end
    new, found = converted_text(text, lines=False)
    assert found == 1
    assert new == text.replace('"version": 1', '"version": 2') or '"version": 1' in json.dumps(value)
    assert converted_text(new, lines=False) == (new, 0)
    untouched = json.dumps(value, indent=indent)
    assert converted_text(untouched, lines=False) == (untouched, 0)


def test_files_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "design.json").write_text(json.dumps(DESIGN, indent=1) + "\n")
    (folder / "config.json").write_text('{"version": 1}')
    (folder / "network.bin").write_bytes(b"\xff")
    cut = '{"architecture": {"form'
    lines = "".join(json.dumps(row) + "\n" for row in ({"design": ARCHITECTURE, "loss": 1e-5}, {"error": "é"}))
    (folder / "rows.jsonl").write_text(lines + cut)
    (folder / "old.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    assert main([str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert sum("4 records of version 1 rewritten" in line for line in said) == 1
    assert versions(json.loads((folder / "design.json").read_text())) == [2] * 4
    assert (folder / "config.json").read_text() == '{"version": 1}'
    assert (folder / "rows.jsonl").read_text() == lines.replace('"version": 1', '"version": 2') + cut
    assert lzma.decompress((folder / "old.jsonl.xz").read_bytes()).decode() == lines.replace('"version": 1', '"version": 2')
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main([str(folder)]) == 0
    assert all("nothing of version 1" in line for line in capsys.readouterr().out.splitlines())
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not text in UTF-8"),
        (json.dumps({**ARCHITECTURE, "version": 3}).encode(), "version 3"),
        (json.dumps({**ARCHITECTURE, "version": True}).encode(), "version True"),
        (json.dumps({**DEVICE, "tables": [{"rows": [{"blocks": "512"}]}]}).encode(), "'512'"),
        (json.dumps({**DEVICE, "tables": 7}).encode(), "device in it is damaged"),
        (json.dumps({**DEVICE, "tables": [{"rows": [{}]}]}).encode(), "device in it is damaged"),
    ],
)
def test_what_cannot_be_converted_stays(content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_bytes(content)
    good.write_text(json.dumps(ARCHITECTURE))
    assert main([str(bad), str(good)]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith(f"error: cannot convert {bad}: ")
    assert said.err.count("\n") == 1
    assert bad.read_bytes() == content
    assert json.loads(good.read_text())["version"] == 2


def test_a_name_of_another_kind(tmp_path: Path) -> None:
    good = tmp_path / "good.json"
    good.write_text(json.dumps(ARCHITECTURE))
    with pytest.raises(ValueError, match=r"page\.md is neither a folder nor a file"):
        main([str(good), "page.md"])
    assert json.loads(good.read_text()) == ARCHITECTURE


def test_a_folder_without_files_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("{}")
    with pytest.raises(ValueError, match=r"holds no file whose name ends in \.json, \.jsonl"):
        main([str(tmp_path)])


def test_published_designs_are_written_in_version_2() -> None:
    assert all(design.to_dict()["version"] == 2 for design in PUBLISHED.values())
