"""The everyday command: what it prints and writes, and that --verify believes no number that does not hold."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, fine_space
from formulation.command.exit_code import ExitCode
from formulation.command.words import change_text
from formulation.deployability import DEPLOYABILITIES
from formulation.problem_file import problem_to_dict
from hardware_models import Device, Flops, LatencyTable, Params, Validated, Workload, write_device
from hardware_models.fit import FitError
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import Count, DynamicProgramming, Exhaustive, Limits, RandomSearch, Run, Status, price_of_budgets, solve
from solvers.base import Answer
from solvers.questions.design_file import read_design
from solvers.questions.text import alternatives_text, near_text, price_text
from studies.design import study as design
from studies.design.study import main
from tests import commands
from tests.studies.test_problem_file import PROBLEMS, QUICK, SMALL, damaged, sentence

FEASIBLE = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 15e9), Budget(Params(), 44e6)), (Flops(head=True),))
INFEASIBLE = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 4e9), Budget(Params(), 42e6), Budget(Flops(128), 1e12)))
FREE = DesignProblem(SMALL, Params())
NOT_ENOUGH = {"status": "infeasible", "bound": None, "objective": None, "architecture": None}
DESIGNED = {"feasible": FEASIBLE, "infeasible": INFEASIBLE, "free": FREE}


def write(path: Path, record: Any) -> str:
    path.write_text(json.dumps(record))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The design file that the command writes for each problem."""
    folder = tmp_path_factory.mktemp("made")
    records = {}
    for name, problem in DESIGNED.items():
        file = write(folder / f"{name}.json", problem_to_dict(problem, quantity_to_dict))
        assert main([file, "--differ", "2", "--output", str(folder / name)]) == (1 if name == "infeasible" else 0)
        records[name] = json.loads((folder / name / "design.json").read_text())
    return records


def test_what_it_writes(made: dict[str, dict[str, Any]]) -> None:
    record = made["feasible"]
    assert (record["format"], record["version"]) == ("merino design", 2)
    best = solve(FEASIBLE, Exhaustive())
    assert Architecture.from_dict(record["architecture"]) in SMALL
    assert record["solution"]["status"] == "optimal"
    assert record["solution"]["objective"] == pytest.approx(best.objective)
    assert {"bound", "gap", "seconds", "usage", "message"} <= set(record["solution"])
    assert record["provenance"]["solver"].startswith("Automatic(")
    assert [price["binds"] for price in record["price"]] == [True, False]
    assert len(record["alternatives"]["designs"]) == 3
    assert record["near"]["exact"]
    assert record["diagnosis"] is None
    assert {"numpy", "scipy"} <= set(record["provenance"]["versions"])
    assert made["infeasible"]["architecture"] is None
    assert made["infeasible"]["diagnosis"]["conflict"] == [0]


def test_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "--budget",
        "flops=60e9",
        "--budget",
        "params=55e6",
        "--output",
        str(tmp_path),
        "--alternatives",
        "1",
        "--steps",
        "1",
    ]
    assert main(command) == 0
    text = capsys.readouterr().out
    for words in (
        "paper: flops ≤ 60 G FLOPs, params ≤ 55 M parameters; 1,451,520 designs",
        "Proved optimal: no design within the budgets exceeds 23,104.92 nat",
        "does not bind",
        "+129.6 M FLOPs buys +0.74 % effective entropy",
        "less than 59.592671232 G FLOPs costs 0.74 %",
        "more of it buys nothing",
        "54 designs lie within 0.1 % of the optimum, 4 if the order of equally wide neighbouring blocks is ignored.",
        "in at least 4 of 12 decisions, whatever the order of equally wide neighbouring blocks",
        "design.png",
    ):
        assert words in text
    assert (tmp_path / "design.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (tmp_path / "design.json").read_text()


def test_two_budgets_of_one_quantity_are_one_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--budget", "params>=47.5e6", "--budget", "params<=55e6", "--budget", "flops<=60e9"]
    assert main([*given, "--alternatives", "1", "--steps", "0", "--output", str(tmp_path)]) == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if "apart" in line)
    assert header.split("apart")[1].split() == ["params", "flops", "design:", "width/ffn", "x", "depth"]


@pytest.mark.slow
def test_a_small_least_value_keeps_its_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--minimize", "memory-share@raspberry-pi-4", "--budget", "entropy>=20e3", "--alternatives", "0", "--steps", "0"]
    assert main([*given, "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    least = json.loads((tmp_path / "design.json").read_text())["solution"]["objective"]
    assert f"least memory share {least:.4g}\n" in text
    assert f"has less than {least:.4g} (gap" in text


def test_two_quantities_to_minimize_are_a_front() -> None:
    with pytest.raises(
        ValueError, match=r"--minimize names flops and params, .*studies\.pareto --minimize flops --minimize params"
    ):
        main(["--minimize", "flops", "--minimize", "params", "--budget", "entropy>=20e3"])


def test_an_infeasible_problem_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--budget", "flops=20e9", "--budget", "params=48e6", "--output", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "No design meets flops ≤ 20 G FLOPs, whatever the other budgets (proved)." in text
    assert "23.085449216 G (+3.086 G)" in text
    assert "not part of the conflict" in text
    assert main(["--verify", str(tmp_path / "design.json")]) == 0
    text = capsys.readouterr().out
    assert "what each would have to be agree" in text
    assert "for a way out of the conflict with its own value" in text
    assert "not proved again" not in text


def test_every_budget_that_is_impossible_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "design.png").write_bytes(b"of another problem")
    assert main(["--budget", "flops=20e9", "--budget", "params=20e6", "--output", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "flops ≤ 20 G FLOPs; every design needs at least 23.085449216 G\n" in text
    assert "params ≤ 20 M parameters; every design needs at least 46.746368 M\n" in text
    assert "Enough together: flops ≤ 23.085449216 G FLOPs and params ≤ 46.746368 M parameters" in text
    assert "no design comes nearer to any" in text
    assert not (tmp_path / "design.png").exists()
    assert main(["--verify", str(tmp_path / "design.json")]) == 0


@pytest.mark.parametrize("budgets", [("60e9", "55e6"), ("110e9", "60e6")])
def test_printed_budgets_suffice(budgets: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--budget", f"flops={budgets[0]}", "--budget", f"params={budgets[1]}"]
    assert main([*given, "--alternatives", "0", "--steps", "2", "--output", str(tmp_path)]) == 0
    factor = {"G": 1e9, "M": 1e6}
    steps = re.findall(r"^ *([\d.,]+) ([GM])  +(?:[+−][\d.]+ [GM]|needed now) +([\d.,]+) ", capsys.readouterr().out, re.MULTILINE)
    prices = json.loads((tmp_path / "design.json").read_text())["price"]
    names = [price["name"] for price in prices for _ in (*price["below"], price["present"], *price["above"])]
    problem = read_design(tmp_path / "design.json", quantity_from_dict).problem
    assert len(steps) == len(names) > 4
    for name, (number, letter, objective) in zip(names, steps, strict=True):
        typed = (
            Budget(b.quantity, float(number) * factor[letter] if b.quantity.name == name else b.upper) for b in problem.subject_to
        )
        solution = solve(replace(problem, subject_to=tuple(typed)), DynamicProgramming(), Limits(gap=0))
        assert f"{solution.objective:,.2f}" == objective


@pytest.mark.parametrize("value", [129_472_911.5, 0.1 + 0.2, 1.00004, 7_465_056.0, 0.99999])
def test_changes_are_rounded_to_the_side_that_suffices(value: float) -> None:
    factor = {"G": 1e9, "M": 1e6}

    def read(text: str) -> float:
        number, _, letter = text.replace("−", "-").replace(",", "").partition(" ")
        return float(number) * factor.get(letter, 1)

    for change in (value, -value):
        assert change * (1 - 1e-12 if change > 0 else 1 + 1e-12) <= read(change_text(change)) <= change + 1e-3 * value


@dataclass(frozen=True)
class Scripted:
    """Dynamic programming that gives up, proves no more than the whole problem, or is interrupted, as a slow engine may be."""

    blind: int = 0
    only: int = 0
    interrupted: bool = False
    calls: list[int] = field(default_factory=list, compare=False)

    name = "scripted"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        self.calls.append(len(problem.subject_to))
        run.interrupted |= self.interrupted and len(self.calls) == 1
        if len(self.calls) <= self.blind or (self.only and len(problem.subject_to) != self.only):
            return Answer(None, message="gave up")
        return DynamicProgramming().search(problem, Run(run.limits))


def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: DesignProblem, solver: Scripted) -> int:
    monkeypatch.setitem(design.EXACT, "scripted", solver)
    file = write(tmp_path / "p.json", problem_to_dict(problem, quantity_to_dict))
    return main([file, "--solver", "scripted", "--steps", "1", "--alternatives", "1", "--output", str(tmp_path)])


def test_what_is_proved_stays_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripted(monkeypatch, tmp_path, INFEASIBLE, Scripted(only=3)) == 1
    text = capsys.readouterr().out
    assert "Proved: no design meets the budgets" in text
    assert "together (proved). Whether fewer conflict already is open; give more --seconds." in text
    diagnosis = json.loads((tmp_path / "design.json").read_text())["diagnosis"]
    assert (diagnosis["conflict"], diagnosis["smallest"]) == ([0, 1, 2], False)
    assert main(["--verify", str(tmp_path / "design.json")]) == 0


def test_a_proof_by_the_diagnosis_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripted(monkeypatch, tmp_path, INFEASIBLE, Scripted(blind=1)) == 1
    assert json.loads((tmp_path / "design.json").read_text())["solution"]["status"] == "infeasible"


def test_a_design_met_by_the_diagnosis_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scripted(monkeypatch, tmp_path, FEASIBLE, Scripted(blind=1)) == 0
    assert "looking for the reason met one" in capsys.readouterr().out
    record = json.loads((tmp_path / "design.json").read_text())
    assert record["solution"]["objective"] == pytest.approx(solve(FEASIBLE, Exhaustive()).objective)
    assert record["price"]
    assert record["diagnosis"] is None


def test_an_interruption_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert scripted(monkeypatch, tmp_path, FEASIBLE, Scripted(interrupted=True)) == 0
    said = capsys.readouterr().err
    assert said.startswith("Ctrl-C ended the search for a design early; the command goes on")
    assert said.count("\n") == 1


def test_what_the_limits_left_open_is_said() -> None:
    optimum = solve(FEASIBLE, DynamicProgramming(), Limits(gap=0))
    prices = price_of_budgets(FEASIBLE, RandomSearch(samples=20), optimum=optimum)
    text = price_text(FEASIBLE, prices)
    assert "Some searches for the prices ended by themselves without a proof" in text
    assert "--seconds" not in text
    assert "The time limit ended some searches for the prices" in price_text(
        FEASIBLE, [replace(price, limited=True) for price in prices]
    )
    assert "Ctrl-C ended the prices" in price_text(FEASIBLE, [replace(price, interrupted=True) for price in prices])
    assert "whether a tighter one suffices is open" in text
    assert "for the prices" not in price_text(FEASIBLE, price_of_budgets(FEASIBLE, optimum=optimum))
    others = (optimum, replace(optimum, status=Status.FEASIBLE))
    assert "each the best that" not in alternatives_text(FEASIBLE, others, 1, 1)
    assert "each the best that" in alternatives_text(FEASIBLE, (optimum, optimum), 1, 1)
    assert "ended before a further one" in alternatives_text(FEASIBLE, (optimum,), 1, 1)
    assert near_text(Count(1.0, 0, False, 1.0), optimum).startswith("\nAt least 1 design lies within 0.1 % of the optimum;")
    assert near_text(Count(1.0, 2, True, 1.0, 2), optimum) == "\n2 designs lie within 0.1 % of the optimum."
    assert "of the optimum, 1 if the order" in near_text(Count(1.0, 2, True, 1.0, 1), optimum)
    assert "with every order of equally wide neighbouring blocks counted" in near_text(Count(1.0, 2, True, 1.0), optimum)


def test_several_objectives_are_sent_to_the_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "p.json", problem_to_dict(replace(FEASIBLE, minimize=(Params(),)), quantity_to_dict))
    with pytest.raises(ValueError, match=r"python -m studies\.pareto --minimize params"):
        main([file, "--output", str(tmp_path)])
    assert capsys.readouterr().out == ""


def test_neither_design_nor_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--space", "deep", "--budget", "flops=1e6", "--solver", "exhaustive", "--seconds", "0.05", "--output", str(tmp_path)]
    assert main(command) == 4
    text = capsys.readouterr().out
    assert "nothing proved" in text
    assert "give more --seconds" in text
    assert main(["--verify", str(tmp_path / "design.json")]) == 4
    assert "Nothing to verify" in capsys.readouterr().out


def test_an_engine_designs_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "p.json", problem_to_dict(FEASIBLE, quantity_to_dict))
    assert main([file, "--solver", "highs", "--steps", "0", "--alternatives", "1", "--output", str(tmp_path)]) == 0
    for solver in ("dp", "highs", "exhaustive"):
        assert main(["--verify", str(tmp_path / "design.json"), "--solver", solver]) == 0
        text = capsys.readouterr().out
        assert "Verified" in text
        assert text.endswith("Evaluated, but not proved again: the steps of the budgets and the alternatives.\n")


@pytest.mark.parametrize(
    ("style", "start"),
    [
        ([], "# maximize effective entropy [nat]\n# subject to flops ≤ 60000000000 FLOPs"),
        (["latex"], "\\documentclass"),
        (["lp"], "\\ maximize effective entropy"),
        (["mps"], "* maximize"),
        (["nl"], "g3 1 1 0\t# problem maximize"),
        (["gms"], "* maximize"),
    ],
)
def test_the_program_is_printed_and_nothing_written(
    style: list[str], start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    assert main(["--budget", "flops=60e9", "--output", str(folder), "--program", *style]) == 0
    assert capsys.readouterr().out.startswith(start)
    assert not folder.exists()


def test_both_forms_of_the_program_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for form, said in (("choice", "choice form"), ("lookup", "look-up form")):
        assert main(["--budget", "flops=60e9", "--program", "--form", form]) == 0
        assert f"# {said}\n" in capsys.readouterr().out


def test_the_program_of_what_can_be_deployed(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--space", "fine", "--budget", "flops=60e9", "--program", "lp"]
    assert main([*common, "--maximize", "params", "--deployable", "gptq-128"]) == 0
    kept = DEPLOYABILITIES["gptq-128"].within(fine_space())
    assert f"over {kept.size:,} designs of 4 blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "no budget"),
        (["missing.json"], "cannot read the problem file missing.json: no such file"),
        (["flops=60e9"], "a budget is written --budget flops=60e9"),
        (["p.json", "--budget", "flops=1"], "leave out"),
        (["--budget", "flops=6e10,params=5e7"], "give --budget once for each"),
        (["--space", "tiny", "--budget", "flops=1e9"], r"choose from paper, fine, deep, smollm2-135m-layers, .*, FILE\.json"),
        (["--budget", "flops=1e9", "--budget", "flops=2e9"], "named twice"),
        (["--budget", "flops=60"], "--differ is 13"),
        (["--budget", "flops=60", "--solver", "ea"], "choose from exhaustive, dp"),
        (["--budget", "flops=60", "--seconds", "nan"], "--seconds"),
        (["--budget", "flops=60", "--steps", "-1"], "--steps"),
        (["--verify", "missing.json"], "cannot read the design file"),
        (["--verify", "missing.json", "--solver", "hihgs"], "did you mean 'highs'"),
    ],
)
def test_mistakes(command: list[str], words: str, tmp_path: Path) -> None:
    extra = ["--differ", "13"] if "--differ" in words else []
    with pytest.raises(ValueError, match=words) as error:
        main([*command, *extra, "--output", str(tmp_path)])
    sentence(error.value)


def test_exit_codes_of_the_command(tmp_path: Path, made: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    run = partial(commands.run, "studies.design")
    broken = copy.deepcopy(made["feasible"])
    broken["solution"]["objective"] *= 1.01
    ended = run("--verify", write(tmp_path / "broken.json", broken))
    assert ended.returncode == 3
    assert ended.stderr.startswith("Does not hold: the design has effective entropy")
    (tmp_path / "cut.json").write_text(json.dumps(made["feasible"])[:500])
    ended = run("--verify", str(tmp_path / "cut.json"))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Exit code: 0 a design was found" in " ".join(capsys.readouterr().out.split())


def worse(record: dict[str, Any]) -> None:
    """A feasible design that is not the best, with all its own numbers right and its status claimed."""
    problem = FEASIBLE
    other = min((d for d in SMALL if problem.evaluate(d).feasible), key=problem.maximize)
    evaluation = problem.evaluate(other)
    record["architecture"] = other.to_dict()
    record["solution"] |= {"objective": evaluation.objective, "bound": evaluation.objective, "gap": 0.0}
    for entry, usage in zip(record["solution"]["usage"], evaluation.usage, strict=True):
        entry["value"] = usage.value
    record["solution"]["report"][0]["value"] = evaluation.report[0].value
    record["price"], record["alternatives"]["designs"], record["near"] = [], [], None


def set_in(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = to(record[path[-1]]) if callable(to) else to

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("feasible", worse, "no design should exceed"),
        ("feasible", set_in("solution", "objective", to=lambda v: v * 1.001), "evaluated"),
        ("feasible", set_in("solution", "bound", to=lambda v: v * 0.99), "below its own objective"),
        ("feasible", set_in("solution", "gap", to=0.1), "bound and objective give"),
        ("feasible", set_in("solution", "usage", 0, "value", to=1e9), "is said to use"),
        ("feasible", set_in("solution", "report", 0, "value", to=1e9), "evaluated"),
        ("feasible", set_in("problem", "budgets", 0, "upper", to=10e9), "exceeds flops ≤ 10 G FLOPs"),
        ("feasible", set_in("problem", "budgets", 0, "upper", to=90e9), "evaluated"),
        ("feasible", set_in("problem", "space", "menus", 0, "depths", to=[5]), "not in the space"),
        ("feasible", set_in("problem", "maximize", "rho", to=0.5), "evaluated"),
        ("feasible", set_in("price", 0, "below", 0, "upper", to=lambda v: v - 1000), "is not what its design needs"),
        ("feasible", set_in("price", 0, "below", 0, "objective", to=1.0), "evaluated"),
        ("feasible", set_in("price", 0, "slack", to=lambda v: v + 1000), "slack"),
        ("feasible", set_in("price", 0, "below", to=lambda v: v[::-1]), "do not rise"),
        ("feasible", set_in("alternatives", "designs", to=lambda v: [v[0], v[0]]), "alternative 2 differs from alternative 1 in 0"),
        ("feasible", set_in("near", "number", to=10_000), "counted again"),
        ("infeasible", set_in("problem", "budgets", 0, "upper", to=500e9), "names a budget"),
        ("infeasible", set_in("diagnosis", "conflict", to=[1]), "said to conflict"),
        ("infeasible", set_in("diagnosis", "needs", 0, "bound", to=1.0), "exceeds flops"),
        ("feasible", set_in("price", 0, "binds", to=False), "is said not to bind"),
        ("feasible", set_in("price", 1, "binds", to=True), "is said to bind"),
        ("infeasible", set_in("diagnosis", "conflict", to=[0, 1]), "no fewer budgets should conflict"),
        ("infeasible", set_in("diagnosis", "needs", 0, "bound", to=lambda v: v * 1.1), "the least value of flops"),
        ("infeasible", set_in("diagnosis", "needs", 0, "alone", to=lambda v: v * 1.1), "by itself"),
        ("infeasible", set_in("diagnosis", "needs", 0, to=lambda v: v | NOT_ENOUGH), "is said not to be enough"),
    ],
)
def test_what_does_not_hold(
    name: str,
    change: Callable[[dict[str, Any]], None],
    words: str,
    made: dict[str, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = copy.deepcopy(made[name])
    change(record)
    assert main(["--verify", write(tmp_path / "design.json", record)]) == 3
    said = capsys.readouterr().err
    assert words in said
    told = [line for line in said.splitlines() if not line.startswith("Verified is what the problem says now")]
    assert all(line.startswith(("Does not hold: ", "Not decided: ")) for line in told)


def test_a_count_that_was_ended_is_a_lower_bound(made: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    record = copy.deepcopy(made["feasible"])
    record["near"] |= {"number": 0, "exact": False}
    assert main(["--verify", write(tmp_path / "design.json", record)]) == 0


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("feasible", set_in("version", to=1), "version 1.*formulation.convert"),
        ("feasible", set_in("format", to="merino problem"), "merino problem.*merino design"),
        ("feasible", set_in("solution", "unit", to="bit"), "nothing is converted"),
        ("feasible", set_in("solution", "usage", 0, "unit", to="GFLOPs"), "nothing is converted"),
        ("feasible", set_in("problem", "budgets", 0, "unit", to="GFLOPs"), "nothing is converted"),
        ("feasible", set_in("price", 1, "name", to="flops"), r"price\[1\] is of 'flops'.*the problem has params"),
        ("feasible", set_in("solution", "objective", to=float("nan")), "holds the value NaN"),
        ("feasible", set_in("solution", "status", to="best"), r"solution.status is 'best'.*\"optimal\""),
        ("feasible", set_in("solution", "status", to="infeasible"), "does not go with"),
        ("feasible", set_in("architecture", to=None), "does not go with"),
        ("feasible", set_in("architecture", "blocks", 0, "width", to=100), "64"),
        ("feasible", lambda record: record.update(extra=1), "unknown key 'extra'"),
        ("feasible", lambda record: record.pop("near"), "lacks near"),
        ("infeasible", set_in("diagnosis", "conflict", to=[7]), "counted from 0"),
        ("infeasible", set_in("diagnosis", "conflict", to=[]), "does not go with its conflict"),
        ("infeasible", set_in("diagnosis", "needs", 0, "bound", to=None), "only some of"),
    ],
)
def test_what_cannot_be_read(
    name: str, change: Callable[[dict[str, Any]], None], words: str, made: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    record = copy.deepcopy(made[name])
    change(record)
    with pytest.raises(ValueError, match=words) as error:
        main(["--verify", write(tmp_path / "design.json", record)])
    sentence(error.value)


def test_a_proof_that_takes_too_long_is_no_proof(
    made: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(design.EXACT, "automatic", design.SOLVERS["random"].solver)
    for name in ("feasible", "infeasible"):
        assert main(["--verify", write(tmp_path / "design.json", made[name])]) == ExitCode.NO_ANSWER
        assert capsys.readouterr().err.startswith("Not decided: that no design ")


def check_verification(path: Path, made: dict[str, dict[str, Any]], draw: random.Random) -> None:
    """A damaged design file is refused in a sentence, found not to hold, or true by brute force."""
    path.write_bytes(damaged(made[draw.choice(list(made))], draw))
    try:
        code = main(["--verify", str(path), "--seconds", "2"])
    except ValueError as error:
        sentence(error)
        return
    assert code in (0, 3, 4)
    if code:
        return
    stored = read_design(path, quantity_from_dict)
    claim = stored.record["solution"]
    if claim["status"] == "unknown" or stored.problem.space.size > 50_000:
        return
    truth = solve(stored.problem, Exhaustive(), Limits(gap=0))
    if claim["status"] == "infeasible":
        assert truth.status is Status.INFEASIBLE
        return
    assert stored.architecture is not None
    assert stored.problem.evaluate(stored.architecture).feasible
    assert claim["objective"] == pytest.approx(stored.problem.maximize(stored.architecture), rel=1e-9)
    assert claim["bound"] is None or claim["bound"] >= truth.objective - 1e-9 * abs(truth.objective)
    if claim["status"] == "optimal":
        assert claim["objective"] == pytest.approx(truth.objective, rel=1e-6)


@settings(max_examples=300, **QUICK)
@given(st.randoms(use_true_random=False))
def test_damaged_design_files_prove_nothing_wrong(tmp_path: Path, made: dict[str, dict[str, Any]], draw: random.Random) -> None:
    check_verification(tmp_path / "design.json", made, draw)


@pytest.mark.slow
@settings(max_examples=10_000, **QUICK)
@given(st.randoms(use_true_random=False))
def test_many_damaged_design_files_prove_nothing_wrong(
    tmp_path: Path, made: dict[str, dict[str, Any]], draw: random.Random
) -> None:
    check_verification(tmp_path / "design.json", made, draw)


def check_command(folder: Path, draw: random.Random) -> None:
    """A damaged problem file gives a sentence, or a design file that --verify accepts."""
    path = folder / "problem.json"
    path.write_bytes(damaged(problem_to_dict(draw.choice((*PROBLEMS, FEASIBLE, INFEASIBLE)), quantity_to_dict), draw))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(design, "save_figure", lambda figure, path: None)  # drawn, not written: that is tested elsewhere, and slow
        try:
            code = main(
                [str(path), "--output", str(folder), "--seconds", "2", "--alternatives", "1", "--steps", "1", "--differ", "1"]
            )
        except ValueError as error:
            sentence(error)
            return
    assert code in (0, 1, 4)
    assert main(["--verify", str(folder / "design.json"), "--seconds", "2"]) == (4 if code == 4 else 0)


@settings(max_examples=60, **QUICK)
@given(st.randoms(use_true_random=False))
def test_damaged_problem_files_through_the_command(tmp_path: Path, draw: random.Random) -> None:
    check_command(tmp_path, draw)


@pytest.mark.slow
@settings(max_examples=2_000, **QUICK)
@given(st.randoms(use_true_random=False))
def test_many_damaged_problem_files_through_the_command(tmp_path: Path, draw: random.Random) -> None:
    check_command(tmp_path, draw)


def test_a_design_on_a_doubtful_table_says_so_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is proved holds for a table whose predictions are 56 % off: in the output, and by the name in design.json."""
    monkeypatch.chdir(tmp_path)
    validated = Validated.of_space(SMALL)
    error = FitError(24, 0.559, 0.3, 0.7, 40.0, ((0.5, 1.0), (0.95, 3.0)))
    table = LatencyTable("busy-box", "prefill", Workload(), (("attention_maps", 9.0), ("ffn_maps", 8.0)), validated, error)
    write_device(Device("busy-box", (table,)), Path("busy-box.json"))
    write(Path("space.json"), SMALL.to_dict())
    arguments = ["--space", "space.json", "--budget", "latency@busy-box.json=1000", "--output", "out", "--alternatives", "0"]
    assert main([*arguments, "--steps", "0"]) == 0
    printed, name = capsys.readouterr(), "latency@busy-box:prefill (doubtful: mean error 56 %)"
    assert "warning: the table prefill of busy-box is doubtful: its mean error" in printed.err
    assert f"{name} (prefill of 128 tokens, batch 1, last logits, precision not stated) ≤ 1,000 ms" in printed.out
    assert "What is proved holds for the latencies of a table: the table prefill of busy-box is doubtful" in printed.out
    record = json.loads(Path("out/design.json").read_text())
    assert [usage["name"] for usage in record["solution"]["usage"]] == [name]
    assert main(["--verify", "out/design.json"]) == 0
    assert "warning: the table prefill of busy-box is doubtful" in capsys.readouterr().err


SMALL_SPACE = {"blocks": 2, "widths": [256, 512], "ffn_ratios": [1, 2], "depths": [1, 2]}


def test_decisions_of_the_whole_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = write(tmp_path / "space.json", SMALL_SPACE)
    given = ["--space", space, "--budget", "params=17e6", "--steps", "1", "--alternatives", "1", "--output", str(tmp_path / "out")]
    assert main([*given, "--vocabulary", "16384,8192", "--shared", "yes,no"]) == 0
    shown = capsys.readouterr().out
    assert "192 designs in 4 spaces" in shown
    assert "\nshared yes, vocabulary 8192\n" in shown
    assert re.search(r"\nshared no, vocabulary 16384 .* nothing better \(proved\)\n", shown)
    assert "Effective entropy does not see the sharing of weights and the vocabulary: they are chosen for what they leave" in shown
    record = json.loads((tmp_path / "out" / "design.json").read_text())
    assert record["unseen"] == ["shared", "vocabulary"]
    assert record["solution"]["parts"][0]["label"] == "shared yes, vocabulary 16384"
    assert main(["--verify", str(tmp_path / "out")]) == 0
    assert main([*given, "--vocabulary", "8192"]) == 0
    assert "does not see" not in capsys.readouterr().out


def test_what_deployability_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = write(tmp_path / "space.json", {**SMALL_SPACE, "shared": False})
    given = ["--space", space, "--family", "llama", "--budget", "flops=22e9", "--steps", "0", "--alternatives", "0"]
    given += ["--output", str(tmp_path / "out")]
    assert main([*given, "--deployable", "hf-llama"]) == 0
    shown = capsys.readouterr().out
    assert "of which 16 can be deployed with hf-llama" in shown
    assert re.search(r"Deployable with hf-llama: .*\. It costs [0-9,.]+ nat \(−[0-9.]+ %\): .*, both proved\.\n", shown)
    record = json.loads((tmp_path / "out" / "design.json").read_text())
    assert record["problem"]["space"]["union"][0]["alike"] is True
    assert record["deployability"]["without"]["objective"] > record["solution"]["objective"]
    assert main(["--verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--vocabulary", "8192,many"], "--vocabulary has the entry 'many'; expected whole numbers"),
        (["--shared", "maybe"], "unknown --shared 'maybe' (choose from yes, no)"),
        (["--family", "lama"], "unknown --family 'lama'; did you mean 'llama'?"),
        (["--deployable", "llama.cpp"], "llama.cpp does not run the family merino"),
        (["--vocabulary", "8192", "problem.json"], "leave out --vocabulary, or the file"),
    ],
)
def test_decisions_that_cannot_be(flags: list[str], said: str, tmp_path: Path) -> None:
    write(tmp_path / "problem.json", problem_to_dict(FEASIBLE, quantity_to_dict))
    flags = [str(tmp_path / flag) if flag.endswith(".json") else flag for flag in flags]
    given = [] if any(flag.endswith(".json") for flag in flags) else ["--budget", "params=60e6"]
    with pytest.raises(ValueError, match=re.escape(said)):
        main([*given, *flags, "--output", str(tmp_path)])
