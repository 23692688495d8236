"""The Pareto study as a user runs it, rightly and wrongly, on a small space."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, SearchSpace
from hardware_models import Flops, Params
from solvers.pareto import exhaustive_front, hypervolume, reference_costs
from studies.baselines import uniform_designs
from studies.pareto import main

SPACE = {"blocks": 3, "widths": [512, 640, 768], "ffn_ratios": [1, 2], "depths": [1, 2]}


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE))
    return str(path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "studies.pareto", *arguments], capture_output=True, text=True, timeout=120)


def rows_of(folder: Path) -> list[dict]:
    """The rows with their times left out."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
        row["trace"] = [entry[1:] for entry in row.get("trace", [])]
    return rows


def test_it_writes_what_it_promises_and_resumes(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    flags = ["--space", space, "--minimize", "flops", "--minimize", "params", "--budget", "flops=55e9", "--seeds", "2"]
    flags += ["--seconds", "20", "--evaluations", "300", "--output", str(output)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert "is complete" in text
    assert "published design" in text
    assert "reference point: effective entropy 0, flops 55 G" in text
    assert {path.name for path in output.iterdir()} == {"rows.jsonl", "front.json", "front.png"}

    problem = DesignProblem(
        SearchSpace.from_dict(SPACE), EffectiveEntropy(), (Budget(Flops(), 55e9),), minimize=(Flops(), Params())
    )
    front = json.loads((output / "front.json").read_text())
    truth = exhaustive_front(problem)
    assert [point["costs"] for point in front["points"]] == [list(point.costs) for point in truth]
    designs = [Architecture.from_dict(point["design"]) for point in front["points"]]
    assert [problem.maximize(design) for design in designs] == [point["objective"] for point in front["points"]]
    assert front["certificate"]["complete"]
    assert front["certificate"]["pending"] == front["certificate"]["faults"] == []
    assert front["reference"]["costs"] == list(reference_costs(problem))
    values = np.array([[point.objective, *point.costs] for point in truth])
    assert front["hypervolume"] == pytest.approx(hypervolume(values, reference_costs(problem)))
    ratios = [list(own["hypervolume_ratio"].values()) for own in front["nsga2"]]
    assert len(ratios) == 2
    assert all(own == sorted(own) and 0.5 < own[-1] <= 1 + 1e-12 for own in ratios)
    assert list(front["nsga2"][0]["hypervolume_ratio"]) == ["1", "10", "20"]
    losses = [one["loss"] for one in front["baselines"] if one["loss"] is not None]
    assert losses
    assert min(losses) >= -1e-12
    assert {one["family"] for one in front["baselines"]} == {"published", "uniform"}
    assert any(not one["in_space"] for one in front["baselines"])

    before = (output / "rows.jsonl").read_bytes()
    assert main(flags) == 0
    assert (output / "rows.jsonl").read_bytes() == before


def test_a_kill_loses_no_box_and_the_same_command_gives_the_same_rows(space: str, tmp_path: Path) -> None:
    flags = ["--space", space, "--minimize", "flops", "--minimize", "params", "--seeds", "1", "--evaluations", "300"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.pareto", *flags, "--output", str(killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rows, deadline = killed / "rows.jsonl", time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    kept = rows.read_text()
    assert run(*flags, "--output", str(killed)).returncode == 0
    assert run(*flags, "--output", str(whole)).returncode == 0
    assert rows.read_text().startswith(kept[: kept.rfind("\n") + 1])
    assert rows_of(killed) == rows_of(whole)
    fronts = [json.loads((folder / "front.json").read_text()) for folder in (killed, whole)]
    assert fronts[0]["points"] == fronts[1]["points"]


def test_control_c_keeps_what_is_proved(tmp_path: Path) -> None:
    flags = ["--minimize", "flops", "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "studies.pareto", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    rows, deadline = tmp_path / "rows.jsonl", time.monotonic() + 60
    while not (rows.exists() and rows.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what is proved is kept" in errors
    assert "Traceback" not in errors
    assert len(rows_of(tmp_path)) >= 5


def test_a_front_that_time_cut_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--minimize", "flops", "--seeds", "1", "--seconds", "1", "--exact-seconds", "0.5", "--output", str(tmp_path)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert "NOT complete" in text
    assert "boxes are pending, in which no design exceeds" in text
    assert "share of the front's known so far" in text
    certificate = json.loads((tmp_path / "front.json").read_text())["certificate"]
    assert not certificate["complete"]
    assert certificate["pending"]


def test_no_design_within_the_budget_is_a_complete_empty_front(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--space", space, "--minimize", "params", "--budget", "flops=1e9", "--seeds", "1", "--evaluations", "40"]
    assert main([*flags, "--output", str(tmp_path / "out")]) == 0
    assert "the front of 0 points is complete" in capsys.readouterr().out


def test_a_false_row_is_found_out(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--space", space, "--minimize", "params", "--seeds", "0", "--output", str(tmp_path / "out")]
    assert main(flags) == 0
    path = tmp_path / "out" / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["objective"] = rows[2]["bound"] = rows[2]["objective"] * 1.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert main(flags) == 1
    assert "BUT IT DOES NOT HOLD" in capsys.readouterr().out
    rows[2]["limits"] = "many"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"a box in rows.jsonl cannot be read"):
        main(flags)


def test_uniform_designs_are_alike_in_every_block() -> None:
    space = SearchSpace.from_dict(SPACE)
    designs = uniform_designs(space)
    assert len(designs) == 2 * 3 * 2
    assert all(len(set(design.blocks)) == 1 for design in designs)
    assert {design.blocks[0].ffn_ratio for design in designs} == {2, 4}
    assert sum(design in space for design in designs) == 6


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--minimize is missing"),
        (["--minimize", "flop"], "did you mean 'flops'"),
        (["--minimize", "flops", "--maximize", "entrpy"], "did you mean 'entropy'"),
        (["--minimize", "entropy"], "both maximized and minimized"),
        (["--minimize", "flops", "--minimize", "flops"], "expected each quantity once"),
        (["--minimize", "flops", "--space", "papr"], "did you mean 'paper'"),
        (["--minimize", "flops", "--budget", "flops"], "write it as flops=60e9"),
        (["--minimize", "flops", "--budget", "flops=1e9", "--budget", "flops=2e9"], "expected one for each"),
        (["--minimize", "flops", "--seconds", "0"], "--seconds is 0"),
        (["--minimize", "flops", "--exact-seconds", "nan"], "--exact-seconds is nan"),
        (["--minimize", "flops", "--seeds", "-1"], "--seeds is -1"),
        (["--minimize", "flops", "--population", "1"], "--population is 1"),
        (["--minimize", "flops", "--output", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as mistake:
        main(flags)
    assert "\n" not in str(mistake.value)


def test_a_mistake_ends_the_command_with_code_2() -> None:
    result = run("--maximize", "entropy")
    assert result.returncode == 2
    assert result.stderr == "error: --minimize is missing; name what to minimize, such as --minimize flops\n"
