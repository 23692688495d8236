"""The main job as a user runs it, rightly and wrongly, on a small space."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from formulation import PUBLISHED, EffectiveEntropy, SearchSpace
from formulation.published import NAMED_PARAMS
from hardware_models import Flops, Params
from solvers import EvolutionaryAlgorithm, GeneticAlgorithm, RandomSearch
from studies.compare_solvers.study import SOLVERS, main
from studies.compare_solvers.tables import named_losses
from tests import commands

SPACE = {"blocks": 3, "widths": [512, 640, 768], "ffn_ratios": [1, 2], "depths": [1, 2, 3]}
KEYS = {
    "problem",
    "solver",
    "seed",
    "status",
    "objective",
    "bound",
    "gap",
    "seconds",
    "evaluations",
    "widths",
    "ffn_widths",
    "depths",
}


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE))
    return str(path)


@pytest.fixture(autouse=True)
def quick_heuristics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heuristics score hundreds of designs, not tens of thousands."""
    quick = {
        "ea": EvolutionaryAlgorithm(iterations=300),
        "ga": GeneticAlgorithm(population=20, evaluations=200),
        "random": RandomSearch(samples=300),
    }
    for name, solver in quick.items():
        monkeypatch.setitem(SOLVERS, name, replace(SOLVERS[name], solver=solver))


run = partial(commands.run, "studies.compare_solvers")


def test_it_writes_what_it_promises_and_resumes(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    flags = ["--space", space, "--budget", "flops=60e9", "--budget", "flops=30e9", "--budget", "params=58e6", "--seeds", "2"]
    flags += ["--solvers", "exhaustive,dp,dp-ea,highs,ea,random", "--seconds", "20", "--output", str(output)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.count("published MeRino-52M") == 2
    assert "2 of 2 problems were settled with proof and every proof agrees" in text
    summary = json.loads((output / "summary.json").read_text())
    assert all(set(row) >= KEYS for row in summary)
    assert len(summary) == 2 * (3 + 3 * 2 + 3)
    proved = {row["objective"] for row in summary if row["problem"].startswith("space, flops ≤ 60") and row["status"] == "optimal"}
    assert max(proved) - min(proved) <= 1e-6 * max(proved)
    assert {path.name for path in output.iterdir()} == {
        "rows.jsonl",
        "summary.json",
        "published.json",
        "anytime.png",
        "designs.png",
    }

    rows = (output / "rows.jsonl").read_bytes()
    assert main(flags) == 0
    assert (output / "rows.jsonl").read_bytes() == rows
    # A line cut short by a kill is dropped and measured again.
    (output / "rows.jsonl").write_bytes(rows[:-40])
    assert main(flags) == 0
    again = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    assert [row["key"] for row in again] == [json.loads(line)["key"] for line in rows.decode().splitlines()]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--solvers", "higs"], "did you mean 'highs'"),
        (["--space", "papr"], "did you mean 'paper'"),
        (["--space", "nowhere.json"], "cannot read the space file nowhere.json"),
        (["--budget", "flops"], 'write it as "flops<=60e9"'),
        (["--budget", "flops=many"], 'write it as "flops<=60e9"'),
        (["--budget", "flop=1e9"], "did you mean 'flops'"),
        (["--budget", "flops=-1"], "expected a finite number"),
        (["--budget", "flops=nan"], 'write it as "flops<=60e9"'),
        (["--seconds", "0"], "--seconds is 0"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], words: str) -> None:
    result = run("--quick", *flags)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": []}, "widths is empty"),
        ({"widths": [500]}, "448 or 512"),
        ({"head_count": 3}, "unknown key 'head_count'"),
        ({"depths": "12"}, "expected a list"),
    ],
)
def test_a_bad_space_file_is_one_sentence(change: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**SPACE, **change}))
    result = run("--quick", "--space", str(path), "--output", str(tmp_path / "out"))
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_budget_that_no_design_meets_is_proved_infeasible(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--space",
        space,
        "--budget",
        "flops=1e9",
        "--solvers",
        "exhaustive,dp,highs,ea",
        "--seeds",
        "1",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.count("proved infeasible") == 3
    assert "nothing found" in text
    assert "1 of 1 problems were settled with proof" in text


def test_control_c_keeps_finished_rows_and_a_re_run_completes(space: str, tmp_path: Path) -> None:
    flags = [
        "--space",
        space,
        "--budget",
        "flops=60e9",
        "--solvers",
        "random,ga",
        "--seeds",
        "1",
        "--output",
        str(tmp_path),
    ]
    rows = tmp_path / "rows.jsonl"
    interrupted = commands.interrupted(1, "studies.compare_solvers", *flags)
    assert interrupted.returncode == 130
    assert "interrupted; what is finished is kept" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    kept = rows.read_text()
    assert kept.count("\n") == 1
    result = run(*flags)
    assert result.returncode == 0
    assert rows.read_text().startswith(kept)
    assert rows.read_text().count("\n") == 2


def test_a_damaged_row_file_is_left_alone(space: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('not json\n{"key": "x"}\n')
    result = run("--quick", "--space", space, "--output", str(tmp_path))
    assert result.returncode == 2
    assert "line 1 of" in result.stderr
    assert rows.read_text() == 'not json\n{"key": "x"}\n'


def test_the_bounds_in_the_names_are_on_networks_that_share_nothing() -> None:
    for name, design in PUBLISHED.items():
        assert 0.98 * NAMED_PARAMS[name] < Params()(replace(design, shared=False)) < NAMED_PARAMS[name]
    space = SearchSpace.uniform(4, (512, 640, 896), (1,), (1, 2, 3))
    designs = [replace(design, shared=False) for design in space]
    costs = [(Params()(design), Flops()(design), EffectiveEntropy()(design)) for design in designs]
    rows = named_losses(space, 20.0)
    assert [("flops" in row) for row in rows] == 3 * [False, True]
    for row in rows:
        assert row["params"] == NAMED_PARAMS[row["design"]]
        best = max(value for params, flops, value in costs if params <= row["params"] and flops <= row.get("flops", math.inf))
        assert row["optimum"] == pytest.approx(best, rel=1e-9)
    small = rows[1]
    assert small["flops"] == Flops()(PUBLISHED["MeRino-52M"])
    assert small["loss"] == pytest.approx(1 - EffectiveEntropy()(PUBLISHED["MeRino-52M"]) / small["optimum"])
