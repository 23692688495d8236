"""`merino choose`: what it prints, writes, refuses and verifies."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from formulation import Budget, DesignProblem, read_scores
from formulation.command.exit_code import ExitCode
from formulation.problem_file import problem_to_dict
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import Exhaustive, Status, check, solve
from solvers.questions.design_file import read_design
from studies.choose.study import main, read_budget
from studies.design import study as design

TABLE = """\
layer,variant,loss,memory [MB],latency [ms],remark
0,full,0,40,3.0,teacher
0,half,0.4,20,1.8,
0,skip,2.0,0,0,
1,full,0,40,3.0,teacher
1,half,1.1,20,1.8,
1,skip,2.5,0,0,
2,full,0,40,3.0,teacher
2,half,0.1,20,1.8,
2,skip,1.0,0,0,
"""
COLUMNS = ["--position", "layer", "--item", "variant", "--minimize", "loss"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(TABLE)
    return "scores.csv"


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_finds_the_best_selection(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=80"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("scores.csv: memory ≤ 80 MB; 27 selections of 3 positions of 3 items each\n")
    assert "least loss 0.5\n" in out
    assert "Proved optimal: no design within the budgets has less than 0.5 (gap" in out
    assert "memory ≤ 80 MB      80  0 (0 %)  binds\n" in out
    assert "+20 MB buys −80.0 % loss; less than 80 MB costs 180.0 %." in out
    assert "Alternatives" not in out
    assert out.endswith("Written to results/choose: design.json, selection.csv\n")
    assert rows("results/choose/selection.csv") == [
        {"position": "0", "item": "half", "loss": "0.4", "memory [MB]": "20.0", "latency [ms]": "1.8"},
        {"position": "1", "item": "full", "loss": "0.0", "memory [MB]": "40.0", "latency [ms]": "3.0"},
        {"position": "2", "item": "half", "loss": "0.1", "memory [MB]": "20.0", "latency [ms]": "1.8"},
    ]
    record = json.loads(Path("results/choose/design.json").read_text())
    assert record["architecture"] == {"options": ["half", "full", "half"]}
    assert record["solution"]["report"] == [{"name": "latency", "unit": "ms", "value": 6.6}]
    assert record["near"] is None


def test_alternatives_at_a_distance(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=80", "--alternatives", "2", "--distance", "3", "--steps", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Alternatives, each the best that differs from all above in at least 3 of 3 positions" in lines
    designs = json.loads(Path("results/choose/design.json").read_text())["alternatives"]["designs"]
    chosen = [one["architecture"]["options"] for one in designs]
    assert [(one["objective"], one["usage"][0]["value"]) for one in designs] == [(2.1, 60), (4.5, 40)]
    assert all(a != b for one in chosen for a, b in zip(one, ["half", "full", "half"], strict=True))


def test_shares_are_of_the_largest_or_of_an_option(table: str) -> None:
    scores = read_scores(table, "loss", least=True, position="layer", item="variant")
    memory = scores["memory"]
    assert read_budget(scores, "memory=60%") == Budget(memory, 72)
    assert read_budget(scores, "memory<=50%", "half") == Budget(memory, 30)
    assert read_budget(scores, "memory>=50%") == Budget(memory, at_least=60)
    assert read_budget(scores, "memory=4e1") == Budget(memory, 40)
    for text, sentence in (
        ("memory", "the budget 'memory' is not NAME<=NUMBER or NAME>=NUMBER"),
        ("memory=lots", "the budget 'memory=lots' is not NAME<=NUMBER"),
        ("memory=nan%", "the budget 'memory=nan%' is not NAME<=NUMBER"),
        ("memroy=3", "unknown column 'memroy'; did you mean 'memory'"),
        ("remark=3", "line 2: remark is 'teacher'; expected a number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_budget(scores, text)
    with pytest.raises(ValueError, match="'memory=5%' is a share of 0 MB; write it as a number"):
        read_budget(scores, "memory=5%", "skip")
    with pytest.raises(ValueError, match="position 0 has no option huge; it has full, half, skip"):
        read_budget(scores, "memory=5%", "huge")


def test_budgets_that_conflict(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=50%", "--of", "full", "--budget", "loss<=0.4"]) == ExitCode.INFEASIBLE
    out = capsys.readouterr().out
    assert "No design meets memory ≤ 60 MB and loss ≤ 0.4 together (proved). Any fewer budgets can be met." in out
    assert "memory ≤ 60 MB         100 (+40)  proved least" in out
    assert "loss ≤ 0.4              1.4 (+1)  proved least" in out
    assert not Path("results/choose/selection.csv").exists()


def test_the_front(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--front", "memory", "--budget", "latency<=9"]) == 0
    out = capsys.readouterr().out
    assert "The front of 7 selections is complete (proved)" in out
    front = rows("results/choose/front.csv")
    assert [(float(row["loss"]), float(row["memory [MB]"])) for row in front] == [
        (5.5, 0),
        (3.9, 20),
        (2.5, 40),
        (1.4, 60),
        (0.5, 80),
        (0.1, 100),
        (0.0, 120),
    ]
    assert [front[4][name] for name in ("0", "1", "2")] == ["half", "full", "half"]


def test_a_written_selection_is_verified(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=80", "--alternatives", "1"]) == 0
    capsys.readouterr()
    folder = "results/choose"
    assert main([table, *COLUMNS, "--verify", folder]) == 0
    assert "Verified: results/choose/design.json." in capsys.readouterr().out
    assert design.main(["--verify", folder]) == 0
    Path(table).write_text(TABLE.replace("1,half,1.1", "1,half,1.0"))
    with pytest.raises(ValueError, match=r"scores\.csv has other values of loss than the table of results/choose"):
        main([table, *COLUMNS, "--verify", folder])
    Path(table).write_text(TABLE.replace("2,skip,1.0,0,0,\n", ""))
    with pytest.raises(ValueError, match=r"scores\.csv has other positions or options than the table of results/choose"):
        main([table, *COLUMNS, "--verify", folder])
    path = Path(folder) / "design.json"
    record: dict[str, Any] = json.loads(path.read_text())
    for change, sentence in (
        ({"options": ["half", "full", "full"]}, "the design exceeds memory ≤ 80 MB: it has 100"),
        ({"options": ["half", "full"]}, "the selection has 2 options; the table has 3 positions"),
        ({"options": ["half", "full", "huge"]}, "position 2 has no option huge; it has full, half, skip"),
    ):
        path.write_text(json.dumps(record | {"architecture": change}))
        assert main(["--verify", folder]) == ExitCode.BROKEN_PROMISE
        assert sentence in capsys.readouterr().err


def test_a_certificate_is_accepted(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=80", "--solver", "reduction", "--certificate", "proof.json"]) == 0
    assert "Certificate written to proof.json; python -m solvers.check proof.json checks it." in capsys.readouterr().out
    assert check.main(["proof.json"]) == 0


def test_a_certificate_that_cannot_be_written_is_refused_before_the_work(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    for path, why in (("none/proof.json", "no such file or directory"), ("folder", "is a directory")):
        sentence = rf"cannot write the file {path} of --certificate \({why}\); name a file in a folder that exists"
        for command, flags in ((main, [table, *COLUMNS, "--budget", "memory=80"]), (design.main, ["--budget", "params=50e6"])):
            with pytest.raises(ValueError, match=sentence):
                command([*flags, "--certificate", path])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("bound", "why"), [(0.5, "the solver kept no record of what is proved"), (None, "nothing is proved")])
def test_the_certificate_of_something_else_does_not_stay(tmp_path: Path, bound: float | None, why: str) -> None:
    path = tmp_path / "proof.json"
    path.write_text("of another problem")
    problem = read_scores_problem(tmp_path)
    solution = replace(solve(problem, Exhaustive()), bound=bound, status=Status.FEASIBLE, certificate=None)
    assert design.write_certificate(solution, path, 1.0) == f"No certificate was written to {path}: {why}."
    assert not path.exists()


def read_scores_problem(folder: Path) -> DesignProblem:
    """The table's problem without budgets."""
    (folder / "scores.csv").write_text(TABLE)
    return read_scores(folder / "scores.csv", "loss", least=True, position="layer", item="variant").problem()


def test_a_folder_holds_the_answer_to_one_problem(table: str) -> None:
    """What an earlier run left goes, whatever the new one finds."""
    folder = Path("results/choose")
    assert main([table, *COLUMNS, "--budget", "memory=80"]) == 0
    assert {path.name for path in folder.iterdir()} == {"design.json", "selection.csv"}
    assert main([table, *COLUMNS, "--front", "memory"]) == 0
    assert {path.name for path in folder.iterdir()} == {"front.csv"}
    assert main([table, *COLUMNS, "--front", "memory", "--budget", "memory<=-1"]) == ExitCode.INFEASIBLE
    assert not list(folder.iterdir())
    assert main([table, *COLUMNS, "--front", "memory"]) == 0
    assert main([table, *COLUMNS, "--budget", "memory=-1"]) == ExitCode.INFEASIBLE
    assert {path.name for path in folder.iterdir()} == {"design.json"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--certificate", "proof.json"], "--certificate goes with one selection; leave it out beside --front"),
        (["--solver", "exhaustive", "--steps", "3"], "--solver and --steps go with one selection; leave them out beside --front"),
        (["--alternatives", "3", "--distance", "2"], "--alternatives and --distance go with one selection"),
    ],
)
def test_a_front_takes_no_flags_of_one_selection(table: str, flags: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        main([table, *COLUMNS, "--front", "memory", *flags])


def test_a_problem_file_names_a_table(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = read_scores(table, "loss", least=True, position="layer", item="variant")
    problem = scores.problem(Budget(scores["memory"], 80))
    record = problem_to_dict(problem, quantity_to_dict)
    Path("whole.json").write_text(json.dumps(record))
    record["space"] = {"table": table, "position": "layer", "item": "variant"}
    Path("named.json").write_text(json.dumps(record))
    for name in ("whole", "named"):
        assert main([f"{name}.json", "--output", name]) == 0
        assert capsys.readouterr().out.startswith(f"{name}: memory ≤ 80 MB; 27 selections")
        stored = read_design(Path(name) / "design.json", quantity_from_dict)
        assert stored.problem == problem
        assert stored.architecture == solve(problem, Exhaustive()).architecture
    with pytest.raises(ValueError, match=r"whole\.json names the whole problem; leave out --budget, or name its table"):
        main(["whole.json", "--budget", "memory=3"])
    with pytest.raises(ValueError, match=r"whole\.json chooses from a score table; run python -m studies.choose whole\.json"):
        design.main(["whole.json"])
    Path("space.json").write_text(json.dumps({"format": "merino problem", "version": 2, "space": "paper", "maximize": "entropy"}))
    with pytest.raises(
        ValueError, match=r"space\.json does not choose from a score table; run python -m studies\.design space\.json"
    ):
        main(["space.json"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is no table to choose from; name a CSV or JSON file"),
        (["none.csv"], "cannot read the score table none.csv: no such file or directory"),
        (["scores.csv"], "the score table scores.csv: it has no column position; name that of the positions with --position NAME"),
        (["scores.csv", *COLUMNS, "--budget", "memory"], "the budget 'memory' is not NAME<=NUMBER"),
        (["scores.csv", *COLUMNS, "--budget", "flops=3"], "unknown column 'flops'; did you mean 'loss'"),
        (["scores.csv", *COLUMNS, "--front", "loss"], "--front names loss beside the score loss; expected each column once"),
        (["scores.csv", *COLUMNS, "--distance", "4"], "--distance is 4; expected 1 to 3, the positions of the table"),
        (["scores.csv", *COLUMNS, "--seconds", "0"], "--seconds is 0.0; expected a positive number"),
        (["scores.csv", *COLUMNS, "--alternatives", "-1"], "--alternatives is -1; expected at least 0"),
        (["scores.csv", *COLUMNS, "--budget", "memory==3"], "the budget 'memory==3' has two signs =; write it as memory=3"),
        (["scores.csv", *COLUMNS, "--of", "full"], "--of is full, and no budget is a share of it"),
        (["scores.csv", *COLUMNS, "--solver", "gurobi"], "unknown solver 'gurobi'"),
    ],
)
def test_mistakes_are_one_sentence(table: str, arguments: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        main(arguments)
    assert "\n" not in str(refused.value)
    assert not Path("results/choose/design.json").exists()


def test_a_cell_that_is_no_number_is_told(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(table).write_text(TABLE.replace("2,full,0,40,3.0", "2,full,0,40,3_000"))
    assert main([table, *COLUMNS, "--budget", "memory=80", "--steps", "0"]) == 0
    said = capsys.readouterr().err
    sentence = "latency is no cost: the score table scores.csv: line 8: latency is '3_000'; expected a number with nothing between"
    assert sentence in said
    assert "remark" not in said


def test_files_of_another_kind_are_named(table: str) -> None:
    assert main([table, *COLUMNS, "--budget", "memory=80", "--steps", "0"]) == 0
    path = "results/choose/design.json"
    with pytest.raises(ValueError, match=rf"{path} is a design that was chosen already, not a score table; check it with --verify"):
        main([path])
    Path("whole.json").write_text(json.dumps({"format": "merino problem", "version": 2}))
    with pytest.raises(ValueError, match=r"whole\.json is a problem file; --verify compares a score table with that of results"):
        main(["whole.json", "--verify", "results/choose"])


def test_prices_where_the_objective_is_nothing(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The full model has no loss at all, of which no change is a share; and a single budget has no others."""
    assert main([table, *COLUMNS, "--budget", "memory=120"]) == 0
    out = capsys.readouterr().out
    assert "less than 120 MB costs 0.1 loss; more of it buys nothing." in out
    assert "Steps of memory ≤ 120 MB\n" in out
    assert "  +0.1  " in out
    assert main([table, *COLUMNS, "--budget", "memory=35", "--steps", "10"]) == 0
    out = capsys.readouterr().out
    assert "no further step up to 70 MB, where the search ended" in out  # twice the budget; there are steps at 80, 100 and 120
    assert "below 0 MB there is no design" in out
