"""What the repository keeps of results: what pages quote, packed, each with the command that makes it again."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from formulation import Budget, DesignProblem, EffectiveEntropy, fingerprint, paper_space
from formulation.fingerprint import cell_key
from formulation.records.rows import RowFile, packed_path
from hardware_models import Flops, Params
from solvers.names import SOLVERS
from studies import pack_results
from studies.compare_solvers.cells import Cell

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "studies" / "results"
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
FOLDERS = sorted({path.parent for path in RESULTS.rglob("*") if path.is_file()})
MOST_BYTES = 5_000_000
"""Of all kept results together; they came to 2.5 MB when this was set, and to 13.4 MB before."""


def commands_in(record: Any) -> list[str]:
    """Every command that a record says it was made by."""
    if isinstance(record, list):
        return [command for one in record for command in commands_in(one)]
    if not isinstance(record, dict):
        return []
    own = [record["command"]] if isinstance(record.get("command"), str) else []
    return own + [command for one in record.values() for command in commands_in(one)]


def test_pages_name_only_what_is_there_and_show_every_picture_that_is_kept() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {name.rstrip(".,;:") for name in re.findall(r"studies/results/([\w./-]+)", text)}
    assert len(named) > 20
    assert [name for name in sorted(named) if "<" not in name and not (RESULTS / name).exists()] == []
    pictures = {path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*") if path.suffix in (".png", ".svg", ".jpg")}
    assert pictures - named == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(RESULTS).as_posix())
def test_a_folder_says_by_which_command_it_was_made(folder: Path) -> None:
    if folder.name == "report":
        return  # the command that made a finding stands beside it
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    commands = commands_in(records)
    assert any(command.startswith("python -m ") for command in commands)


def test_kept_results_are_packed_and_small() -> None:
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".jsonl"] == []
    assert sum(path.stat().st_size for path in files) < MOST_BYTES


def test_every_packed_file_is_read_and_no_two_rows_of_a_comparison_are_alike() -> None:
    for path in RESULTS.rglob("*.jsonl.xz"):
        assert RowFile(path.with_suffix("")).rows, path
    keys = [row["key"] for row in RowFile(RESULTS / "compare_solvers" / "rows.jsonl").rows]
    assert len(keys) == len(set(keys)) == 329


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> str:
    """The release that the kept rows were made with, which their keys tell, in the place of the present one."""
    real, release = importlib.metadata.version, "0.1.0"
    monkeypatch.setattr(importlib.metadata, "version", lambda name: release if name == "merino" else real(name))
    return release


def test_the_main_comparison_finds_its_kept_rows(release: str) -> None:
    rows = RowFile(RESULTS / "compare_solvers" / "rows.jsonl").rows
    own = [row for row in rows if row["command"] == "python -m studies.compare_solvers --output compare_solvers"]
    assert len(own) == 57
    space, entropy = paper_space(), EffectiveEntropy()
    problems = {f"paper, flops ≤ {n} G": DesignProblem(space, entropy, (Budget(Flops(), n * 1e9),)) for n in (60, 110, 160)}
    for row in own:
        problem, solver = problems[row["problem"]], SOLVERS[row["option"]].solver
        assert row["versions"]["merino"] == release
        assert row["problem_sha256"] == fingerprint(problem)
        assert row["key"] == Cell(row["problem"], problem, row["option"], solver, row["seed"], row["seconds_limit"]).key


@pytest.mark.parametrize(("name", "costs"), [("flops", (Flops(),)), ("params", (Params(),)), ("both", (Flops(), Params()))])
def test_a_front_finds_its_kept_boxes(name: str, costs: tuple[Flops | Params, ...], release: str) -> None:
    record = json.loads((RESULTS / "pareto" / name / "front.json").read_text(encoding="utf-8"))
    assert record["provenance"]["versions"]["merino"] == release
    key = cell_key("box", DesignProblem(paper_space(), EffectiveEntropy(), minimize=costs))
    boxes = [row for row in RowFile(RESULTS / "pareto" / name / "rows.jsonl").rows if row["kind"] == "box"]
    assert len(boxes) == record["certificate"]["optimal"] + record["certificate"]["infeasible"]
    assert {row["key"] for row in boxes} == {key}


def drawing(levels: int) -> Image.Image:
    """A grey scale of so many levels in colours that are no grey."""
    ramp = np.linspace(0, 255, levels).astype(np.uint8)
    dots = np.stack(np.broadcast_arrays(ramp[None, :, None], ramp[:, None, None], ramp[None, None, :1]), axis=-1)
    return Image.fromarray(dots.reshape(levels, levels, 3))


def test_packing_changes_no_row_and_no_picture_that_one_could_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below = tmp_path / "study" / "run"
    below.mkdir(parents=True)
    for number in range(50):
        RowFile(below / "rows.jsonl").append({"key": str(number), "value": number / 3})
    rows = RowFile(below / "rows.jsonl").rows
    pictures = {"plot": drawing(8).resize((400, 400), Image.Resampling.NEAREST), "scale": drawing(256)}
    for name, picture in pictures.items():
        picture.save(below / f"{name}.png", compress_level=0)
    before = {path.name: path.stat().st_size for path in below.iterdir()}
    assert pack_results.main([str(tmp_path)]) == 0
    assert "1 .jsonl file: " in capsys.readouterr().out
    assert RowFile(below / "rows.jsonl").rows == rows
    assert {path.name for path in below.iterdir()} == {"rows.jsonl.xz", "plot.png", "scale.png"}
    for name, picture in pictures.items():
        with Image.open(below / f"{name}.png") as kept:
            assert np.array_equal(np.asarray(kept.convert("RGB")), np.asarray(picture)), name
        assert (below / f"{name}.png").stat().st_size < before[f"{name}.png"] / 2
    assert packed_path(below / "rows.jsonl").stat().st_size < before["rows.jsonl"] / 2
    after = {path.name: path.read_bytes() for path in below.iterdir()}
    assert pack_results.main([str(tmp_path)]) == 0
    assert {path.name: path.read_bytes() for path in below.iterdir()} == after
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere; expected one with results"):
        pack_results.main([str(tmp_path / "nowhere")])
