"""What an earlier run stored is shown only where it still holds, and a file runs no code unless the user says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from formulation import Block, Budget, DesignProblem, EffectiveEntropy, Measured, SearchSpace
from formulation.problem_file import read_problem
from formulation.records.rows import RowFile
from hardware_models import Params
from hardware_models import names as quantities
from hardware_models.names import quantity_from_dict
from solvers import Exhaustive
from studies.compare_solvers import study as compare_solvers
from studies.compare_solvers.cells import Cell, check_row, resumed, run_cell, run_cells
from studies.design import study as design
from studies.pareto import study as pareto
from studies.stored import check_stored

ROOT = Path(__file__).parents[2]
SPACE = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
ENERGY = """
from dataclasses import dataclass
from formulation import Separable


@dataclass(frozen=True)
class Energy(Separable):
    name = "energy"
    unit = "J"

    def block(self, block, setting):
        return block.depth * block.width**2 * 1.0e-9
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module and a space in it."""
    (tmp_path / "my_energy.py").write_text(ENERGY)
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_dict()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("my_energy", None)
    yield tmp_path
    sys.modules.pop("my_energy", None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows on disk after `compare_solvers` with the module as it now stands."""
    sys.modules.pop("my_energy", None)
    flags = ["--space", "space.json", "--budget", "my_energy:Energy=0.0009", "--solvers", "dp", "--seconds", "20"]
    assert compare_solvers.main([*flags, "--output", "out"]) == 0
    return rows_of(folder / "out" / "rows.jsonl")


def test_a_changed_cost_function_is_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = compare(folder, monkeypatch)
    assert compare(folder, monkeypatch) == [first]
    (folder / "my_energy.py").write_text(ENERGY.replace("1.0e-9", "0.5e-9"))
    kept, second = compare(folder, monkeypatch)
    assert kept == first
    assert second["problem_sha256"] != first["problem_sha256"]
    assert second["objective"] > first["objective"]
    (folder / "my_energy.py").write_text(ENERGY)
    assert compare(folder, monkeypatch) == [first, second]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: {"objective": row["objective"] * (1 + 1e-8)}, "gives effective entropy as .*, re-evaluated it is"),
        (lambda row: {"usage": {"energy": row["usage"]["energy"] / 2}}, "gives the use of energy as"),
        (lambda row: {"usage": {}}, "states its use of nothing; expected energy"),
        (lambda row: {"depths": [1, 1]}, "re-evaluated"),
        (lambda row: {"widths": [1024, 1024]}, "cannot be re-evaluated"),
        (lambda row: {"widths": None}, "has status 'optimal', which does not go with its design"),
        (lambda row: {"status": "infeasible"}, "has status 'infeasible', which does not go with its design"),
        (lambda row: {"status": "superb"}, "has status 'superb'"),
        (lambda row: {"bound": row["objective"] / 2}, "has the bound .* below its objective"),
    ],
)
def test_a_row_changed_by_hand_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Any, words: str) -> None:
    (row,) = compare(folder, monkeypatch)
    changed = {**row, **change(row)}
    write_rows(folder / "out" / "rows.jsonl", [changed])
    with pytest.raises(ValueError, match=f"the stored row of dynamic programming, seed 0, for space, energy .*{words}"):
        compare(folder, monkeypatch)
    assert rows_of(folder / "out" / "rows.jsonl") == [changed]


def cell_of(quantity: Measured) -> Cell:
    return Cell("title", DesignProblem(SPACE, EffectiveEntropy(), (Budget(quantity, 5),)), "exhaustive", Exhaustive(), 0, 20.0)


class Board:
    """Nothing tells which board it is."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, design: Any) -> float:
        self.calls += 1
        return float(sum(design.depths))


def test_what_has_no_identity_is_measured_every_time_and_a_note_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, file = cell_of(Measured("board", "ms", Board())), RowFile(tmp_path / "rows.jsonl")
    assert cell.key is None
    for count in (1, 2):
        rows, _ = run_cells([cell], file)
        assert len(rows) == 1
        assert len(rows_of(tmp_path / "rows.jsonl")) == count
        assert "nothing is taken from an earlier run: board has no content to know it by" in capsys.readouterr().err
    assert resumed([cell], file).rows == []


def test_noise_is_named_where_it_may_be_the_reason(tmp_path: Path) -> None:
    calls: list[float] = []

    def noisy(design: Any) -> float:
        calls.append(0.001)
        return 1.0 + sum(calls)

    cell, file = cell_of(Measured("noisy", "ms", noisy)), RowFile(tmp_path / "rows.jsonl")
    row = run_cell(cell, resumed([cell], file))
    with pytest.raises(ValueError, match=r"use of noisy .*BlackBox with a file"):
        check_row(cell, row)


def test_a_stored_design_that_exceeds_a_budget_is_refused() -> None:
    problem = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Params(), 1e6),))
    large = next(iter(SPACE))
    value, spent = problem.maximize(large), Params()(large)
    with pytest.raises(ValueError, match=r"a row has params 40307456.0, which does not meet the budget params ≤ 1e\+06 parameters"):
        check_stored("a row", problem, large, value, {"params": spent})


def test_a_changed_point_of_nsga2_is_refused(folder: Path) -> None:
    flags = ["--space", "space.json", "--minimize", "params", "--seeds", "1", "--seconds", "20", "--evaluations", "200"]
    assert pareto.main([*flags, "--output", "front"]) == 0
    path = folder / "front" / "rows.jsonl"
    rows = rows_of(path)
    (run,) = (row for row in rows if row["kind"] == "nsga2")
    run["points"][0]["costs"][0] *= 1.001
    write_rows(path, rows)
    with pytest.raises(ValueError, match="the stored NSGA-II run of seed 0 gives params as"):
        pareto.main([*flags, "--output", "front"])


# A stranger's file runs no code


STRANGE = {"quantity": "stranger:cost"}
PLACES: dict[str, dict[str, Any]] = {
    "maximize": {"maximize": STRANGE},
    "maximize by its name": {"maximize": "stranger:cost"},
    "minimize": {"minimize": [STRANGE]},
    "report": {"report": [STRANGE]},
    "report by its name": {"report": ["stranger:cost"]},
    "budgets": {"budgets": [{**STRANGE, "upper": 1e9}]},
    "options": {"budgets": [{"quantity": "stranger:Cost", "factor": 2.0, "upper": 1e9}]},
}


@pytest.fixture
def strange(folder: Path) -> Iterator[Path]:
    """A module that leaves a trace where it is imported or called."""
    trace = 'open("RAN", "w").write("code of a data file ran")\n'
    text = (
        "from dataclasses import dataclass\nfrom formulation import Separable\n"
        + trace
        + ENERGY.replace("class Energy", "class Cost")
    )
    text += "    factor: float = 1.0\n\n\ndef cost(design):\n    " + trace + "    return 1.0 + sum(design.depths)\n"
    (folder / "stranger.py").write_text(text)
    sys.modules.pop("stranger", None)
    yield folder
    sys.modules.pop("stranger", None)


def problem_file(folder: Path, change: dict[str, Any]) -> str:
    record = {"format": "merino problem", "version": 2, "space": SPACE.to_dict(), "maximize": "entropy", **change}
    (folder / "problem.json").write_text(json.dumps(record))
    return str(folder / "problem.json")


REFUSED = (
    r"'stranger:[cC]ost' is code of the module 'stranger', and reading a file runs no code .* add --trust-code if you trust it"
)


@pytest.mark.parametrize("place", PLACES)
def test_a_problem_file_imports_nothing_unless_it_is_trusted(strange: Path, place: str) -> None:
    file = problem_file(strange, PLACES[place])
    for command in (design.main, pareto.main):
        with pytest.raises(ValueError, match=rf"the problem file .*problem\.json: {REFUSED}"):
            command([file])
    assert "stranger" not in sys.modules
    assert not (strange / "RAN").exists()
    assert read_problem(Path(file), partial(quantity_from_dict, trust_code=True)).quantities
    assert (strange / "RAN").exists()


def test_a_trusted_problem_file_is_solved(strange: Path) -> None:
    quick = ["--trust-code", "--output", "out"]
    assert design.main([problem_file(strange, PLACES["options"]), *quick, "--steps", "0", "--alternatives", "0"]) == 0
    assert pareto.main([problem_file(strange, {**PLACES["options"], "minimize": ["params"]}), *quick, "--seeds", "0"]) == 0


def test_a_design_file_imports_nothing_unless_it_is_trusted(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = f"params={Params()(next(iter(SPACE))) * 1.2}"
    flags = ["--space", "space.json", "--budget", budget, "--steps", "0", "--alternatives", "0", "--output", "out"]
    assert design.main(flags) == 0
    path = strange / "out" / "design.json"
    record = json.loads(path.read_text())
    assert design.main(["--verify", str(path)]) == 0
    assert "Verified is what the problem says now" not in capsys.readouterr().err
    record["problem"]["report"] = [{"quantity": "stranger:cost"}]
    depth = sum(block["depth"] for block in record["architecture"]["blocks"])
    record["solution"]["report"] = [{"name": "stranger:cost", "unit": "1", "value": 1.0 + depth}]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"the design file .*design\.json: {REFUSED}"):
        design.main(["--verify", str(path)])
    assert not (strange / "RAN").exists()
    assert design.main(["--verify", str(path), "--trust-code"]) == 0
    assert (strange / "RAN").exists()
    assert "it has changed since it was solved" in capsys.readouterr().err


def test_the_command_line_refuses_in_one_sentence(strange: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "studies.design", problem_file(strange, PLACES["report"])]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, cwd=strange)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: the problem file")
    assert ended.stderr.count("\n") == 1
    assert not (strange / "RAN").exists()


def test_a_name_on_the_command_line_is_the_user_s_own(strange: Path) -> None:
    flags = ["--space", "space.json", "--budget", "stranger:Cost=1", "--steps", "0", "--alternatives", "0", "--output", "out"]
    assert design.main(flags) == 0
    assert (strange / "RAN").exists()


def test_the_current_folder_replaces_no_module_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(folder), os.getcwd())])
    quantities.read_quantity("my_energy:Energy")
    assert sys.path[-1] == str(folder)
    assert str(folder) not in sys.path[:-1]
    assert quantities.read_quantity("my_energy:Energy")(next(iter(SPACE))) == pytest.approx(2 * 256**2 * 1e-9)
    assert Block(256, 256, 1).width == 256
