"""The scaling study: its instances, its numbers, and the command as a user runs, kills and mistypes it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from formulation import DesignProblem, fine_space, paper_space
from formulation.records.rows import Row
from solvers import DynamicProgramming, EngineMissing, Limits, Status, solve
from solvers.names import SOLVERS
from studies.scaling.study import (
    HEURISTICS,
    MENUS,
    QUANTILES,
    SWEEPS,
    Instance,
    ScalingPlan,
    ScalingRows,
    Sweep,
    main,
    power_law,
    scaling_summary,
    scaling_text,
    sized_problem,
)
from tests import commands
from tests.solvers.test_conformance import HEURISTIC


def read_rows(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_every_solver_is_exact_or_a_heuristic_without_its_own_end() -> None:
    kinds = {type(solver) for solver in HEURISTIC.values()}
    assert set(HEURISTICS) == {name for name, entrant in SOLVERS.items() if type(entrant.solver) in kinds}
    assert all(type(solver) is type(SOLVERS[name].solver) for name, solver in HEURISTICS.items())


def test_sweeps_grow_around_one_base_instance() -> None:
    sweeps = {name: build(False) for name, build in SWEEPS.items()}
    assert [instance.size for instance in sweeps["blocks"].instances] == [2, 3, 4, 6, 8, 12, 24, 80, 160]
    assert [instance.size for instance in sweeps["menu"].instances] == [12, 30, 60, 120, 210, 390]
    assert [instance.size for instance in sweeps["budgets"].instances] == [1, 2, 3, 4, 5]
    base = sized_problem()
    assert base.space == paper_space()
    composite = [sweep for sweep in sweeps.values() if not sweep.additive]
    assert [sweep.name for sweep in composite] == ["blocks", "menu", "budgets"]
    assert all(any(instance.problem == base for instance in sweep.instances) for sweep in composite)
    assert MENUS[-1] == fine_space().menus[0]
    assert all(set(small.items) < set(large.items) for small, large in pairwise(MENUS))
    for build in SWEEPS.values():
        assert set(build(True).instances) < set(build(False).instances)


def test_additive_sweeps_grow_in_one_direction_each() -> None:
    shapes = {
        name: [
            (len(one.problem.space.menus), len(one.problem.space.menus[0]), len(one.problem.subject_to)) for one in sweep.instances
        ]
        for name in ("layers", "items", "limits")
        if (sweep := SWEEPS[name](False)).additive
    }
    assert shapes == {
        "layers": [(layers, 16, 2) for layers in (2, 4, 8, 16, 32, 80, 160)],
        "items": [(24, items, 3) for items in (10, 25, 50, 100, 200, 400)],
        "limits": [(24, 45, budgets) for budgets in (1, 2, 3, 4, 5)],
    }


@pytest.mark.parametrize("count", range(1, len(QUANTILES) + 1))
def test_every_budget_binds(count: int) -> None:
    problem = sized_problem(budgets=count)
    full = solve(problem, DynamicProgramming(), Limits(seconds=60))
    assert full.status is Status.OPTIMAL
    for left_out in problem.subject_to:
        others = tuple(budget for budget in problem.subject_to if budget is not left_out)
        more = solve(replace(problem, subject_to=others), DynamicProgramming(), Limits(seconds=60))
        assert more.status is Status.OPTIMAL
        assert more.objective > full.objective * (1 + 1e-5), f"{left_out} does not bind"


def test_a_larger_menu_under_the_same_budget_never_has_a_lower_optimum() -> None:
    budgets = sized_problem().subject_to
    optima = [
        solve(DesignProblem(sized_problem(menu=menu).space, sized_problem().maximize, budgets), DynamicProgramming()).objective
        for menu in MENUS[:4]
    ]
    assert optima == sorted(optima)


def test_power_law() -> None:
    fit = power_law([2, 4, 8, 16], [3 * size**1.5 for size in (2, 4, 8, 16)])
    assert fit is not None
    assert (fit["exponent"], fit["coefficient"], fit["spread"]) == pytest.approx((1.5, 3, 1))
    assert (fit["from"], fit["to"], fit["points"]) == (2, 16, 4)
    assert power_law([2, 4], [1, 2]) is None
    assert power_law([5, 5, 5, 5], [1, 2, 3, 4]) is None


def row(option: str, seed: int, status: str, trace: list[list[Any]], **values: Any) -> Row:
    record = {"option": option, "solver": SOLVERS[option].solver.name, "seed": seed, "status": status, "trace": trace}
    return {**record, "objective": None, "bound": None, "gap": None, "seconds": 1.0, "message": "time limit reached", **values}


def summary_of(rows: list[Row]) -> dict[str, Any]:
    sweep = Sweep("blocks", "blocks N", (Instance(2, sized_problem(blocks=2)),))
    names = {row["option"] for row in rows}
    exact = {name: SOLVERS[name].solver for name in SOLVERS if name in names - set(HEURISTICS)}
    plan = ScalingPlan((sweep,), exact, {name: HEURISTICS[name] for name in HEURISTICS if name in names}, 1.0, (1.0, 2.0), 2)
    return scaling_summary(plan, ScalingRows({("blocks", 2): rows}, {}))


def test_losses_are_read_at_equal_time() -> None:
    exact = row("dp", 0, "optimal", [], objective=200.0, bound=200.0, gap=0.0)
    quick = row("ea", 0, "feasible", [[0.5, 10, 150.0, None], [1.5, 20, 190.0, None], [2.1, 30, 200.0, None]])
    late = row("ea", 1, "feasible", [[1.2, 10, 180.0, None]])
    first, second = summary_of([exact, quick, late])["sweeps"][0]["heuristics"]
    assert (first["seconds"], first["loss"]) == (1.0, [{"size": 2, "losses": [0.25, None], "median": None}])
    assert second["loss"][0]["losses"] == pytest.approx([0.05, 0.1])
    assert second["loss"][0]["median"] == pytest.approx(0.075)


def test_without_a_proof_losses_are_against_the_best_bound_and_without_a_bound_unknown() -> None:
    heuristic = row("ea", 0, "feasible", [[0.5, 10, 150.0, None]])
    bounded = summary_of([row("dp", 0, "feasible", [], objective=160.0, bound=300.0, gap=0.875), heuristic])
    assert bounded["sweeps"][0]["heuristics"][0]["loss"][0]["losses"] == [0.5]
    assert "gap 88 %" in scaling_text(bounded)
    unbounded = summary_of([row("exhaustive", 0, "feasible", [], objective=160.0), heuristic])
    assert unbounded["sweeps"][0]["heuristics"][0]["loss"][0]["losses"] is None
    assert scaling_text(unbounded).count("no bound") == 3
    assert "found none" in scaling_text(summary_of([row("highs", 0, "unknown", [])]))


def test_proofs_that_disagree_are_shouted() -> None:
    one = row("dp", 0, "optimal", [], objective=200.0, bound=200.0, gap=0.0)
    assert "DISAGREE" not in scaling_text(summary_of([one, {**one, "option": "highs"}]))
    for other in ({"objective": 201.0}, {"status": "infeasible", "objective": None}):
        assert "THE PROOFS DISAGREE at blocks N = 2" in scaling_text(summary_of([one, {**one, "option": "highs", **other}]))


def test_it_writes_what_it_promises_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--quick", "--sweeps", "blocks,budgets", "--solvers", "exhaustive,dp,random", "--heuristic-seconds", "0.2,0.05"]
    flags += ["--output", str(tmp_path)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    for words in ("blocks N", "budgets K", "random search, 0.05 s", "random search, 0.2 s", "0.25 (flops)", "over 2…4"):
        assert words in text
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "summary.json", "scaling.png"}
    rows = read_rows(tmp_path)
    # The base instance belongs to both sweeps and is run once.
    assert len(rows) == 3 * (3 + 3 - 1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"numpy", "merino"} <= set(summary["provenance"]["versions"])
    blocks, budgets = summary["sweeps"]
    assert [each["designs"] for each in blocks["instances"]][-1] == 1_451_520
    assert all(each["optimum"] is not None and each["proofs_agree"] for sweep in (blocks, budgets) for each in sweep["instances"])
    for solver in blocks["exact"]:
        assert solver["growth"]["points"] == len(solver["proved"]) == 3
        assert solver["gave_up"] is None
    assert budgets["exact"][0]["growth_in_designs"] is None

    before = (tmp_path / "rows.jsonl").read_bytes()
    assert main(flags) == 0
    assert capsys.readouterr().out == text
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_selection_is_stored_and_checked_like_a_design(tmp_path: Path) -> None:
    flags = ["--quick", "--sweeps", "layers,menu", "--solvers", "reduction,dp", "--output", str(tmp_path)]
    assert main(flags) == 0
    rows = read_rows(tmp_path)
    # Reduction cannot read the composite sweep, and heuristics take no part in the additive one.
    assert [(row["problem"].split(",")[0], row["option"]) for row in rows] == [
        *((f"{layers} layers", option) for layers in (2, 4, 8) for option in ("reduction", "dp")),
        *[("4 blocks", "dp")] * 3,
    ]
    assert all(len(row["options"]) == int(row["problem"].split()[0]) for row in rows[:6])
    summary = json.loads((tmp_path / "summary.json").read_text())
    layers, menu = summary["sweeps"]
    assert all(each["proofs_agree"] for each in layers["instances"])
    assert list(menu["unread"]) == ["reduction"]
    assert "reduction was not run on menu" in scaling_text(summary)
    changed = [{**rows[0], "options": ["item 15"] * 2}, *rows[1:]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    with pytest.raises(ValueError, match="the stored row of reduction, seed 0, for 2 layers, 16 items, 2 budgets gives score as"):
        main(flags)


def test_a_solver_that_gives_up_is_not_tried_on_larger_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--quick", "--sweeps", "menu", "--solvers", "highs,dp", "--output", str(tmp_path)]
    assert main([*flags, "--seconds", "0.01"]) == 0
    assert "HiGHS gave up at menu items per block = 12" in capsys.readouterr().out
    assert sum(row["option"] == "highs" for row in read_rows(tmp_path)) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    highs = summary["sweeps"][0]["exact"][0]
    assert highs["gave_up"]["size"] == 12
    assert "time limit" in highs["gave_up"]["message"]
    assert highs["proved"] == []
    assert highs["growth"] is None


def test_without_any_engine_it_says_how_to_install_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbcbox", None)
    flags = ["--quick", "--sweeps", "blocks", "--output", str(tmp_path)]
    with pytest.raises(EngineMissing, match="pip install cbcbox"):
        main([*flags, "--solvers", "cbc"])
    assert main([*flags, "--solvers", "cbc,dp"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["missing"]) == ["cbc"]
    assert [each["option"] for each in summary["sweeps"][0]["exact"]] == ["dp"]


@pytest.mark.parametrize("solver", ["dp", "random"])
def test_one_solver_alone_is_drawn(solver: str, tmp_path: Path) -> None:
    flags = ["--quick", "--sweeps", "menu", "--solvers", solver, "--heuristic-seconds", "0.05", "--output", str(tmp_path)]
    assert main(flags) == 0
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sweeps", "blokcs"], "did you mean 'blocks'"),
        (["--solvers", "higs"], "did you mean 'highs'"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--heuristic-seconds", "1,x"], "--heuristic-seconds is '1,x'; expected positive numbers"),
        (["--heuristic-seconds", "0,1"], "expected positive numbers"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], words: str) -> None:
    result = commands.run("studies.scaling", "--quick", *flags)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
