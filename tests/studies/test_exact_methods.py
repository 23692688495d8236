"""The comparison of exact methods: its instances, its measuring, what it makes of rows, and the command as a user runs it."""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, evaluator
from formulation.records.rows import Row
from formulation.score_table import OptionSpace
from solvers import DynamicProgramming, Limits, Status, exact_front, exhaustive_front, solve
from solvers.exact.multiple_choice import read_multiple_choice
from solvers.names import SOLVERS
from studies.exact_methods import study
from studies.exact_methods.apart import FAILED, REFUSED, Meter, run_apart
from studies.exact_methods.bare_highspy import BareHighspy
from studies.exact_methods.fronts import FRONTS, fronts_summary, fronts_text
from studies.exact_methods.instances import (
    INSTANCES,
    MANY_ITEMS_QUANTILES,
    QUANTILE_LIMITS,
    additive_problem,
    block_costs,
    block_problem,
    correlated_items,
    first_optimum,
    layer_variants,
    layers_problem,
    many_items,
    random_items,
)
from studies.exact_methods.knapsack_files import read_knapsack
from studies.exact_methods.study import main
from studies.exact_methods.summary import MethodsPlan, Results, faults_of, methods_summary, methods_text
from studies.exact_methods.trial import ENTRANTS, Trial
from studies.palette import REFERENCES, solver_style
from tests import commands

SMALL = "variants-8-2"
RESULTS = Path(__file__).resolve().parents[2] / "studies" / "results"


def read_rows(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


# Instances


def test_instances_are_of_all_sizes_and_the_smaller_ones_stand_before() -> None:
    names = list(INSTANCES)
    assert len(names) == 10 + 8 + 9 + 14 + 3
    for name, instance in INSTANCES.items():
        assert instance.name == name
        if instance.smaller is not None:
            assert names.index(instance.smaller) < names.index(name)
            assert INSTANCES[instance.smaller].kind == instance.kind


def test_a_seed_is_an_instance_of_its_own_and_the_same_every_time() -> None:
    for build in (
        layer_variants,
        lambda n, k, seed: random_items(n, 5, k, seed),
        lambda n, k, seed: correlated_items(n, 5, k, seed),
    ):
        assert build(3, 2, 0) == build(3, 2, 0)
        assert build(3, 2, 0) != build(3, 2, 1)


def test_variants_are_drawn_as_they_are_described() -> None:
    """Within what chance adds: u·w to each cost, and nothing off the score of the whole layer."""
    few, many = (read_multiple_choice(layer_variants(6, budgets, 3)) for budgets in (2, 4))
    assert few is not None
    assert many is not None
    assert few.values.shape == (6, 16)
    assert np.array_equal(few.values, many.values)
    assert np.array_equal(few.costs, many.costs[:2])
    assert (few.values[:, 0] == 3).all()
    sizes = np.array([(a, f) for a in (1.0, 0.6, 0.3, 0.05) for f in (1.0, 0.7, 0.45, 0.2)])
    for cost, (attention, ffn, chance) in zip(many.costs, ((2, 6, 0.3), (3, 4, 0.5), (5, 1, 0.6), (1, 3, 1.5)), strict=True):
        added = cost - sizes @ (attention, ffn)
        assert added.min() >= -1e-3
        assert added.max() <= chance + 1e-3
        assert added.max() > chance / 2
    lost = 3 - few.values
    assert (lost <= 1.2 * (1 - sizes[:, 0]) + (1 - sizes[:, 1]) + 1e-4).all()
    assert many.limits == pytest.approx([0.55 * 8.15 * 6, 0.55 * 7.25 * 6, 0.5 * 6.3 * 6, 0.55 * 4.75 * 6])


@pytest.mark.parametrize("blocks", [12, 24])
def test_limits_of_many_items_are_their_quantiles_and_the_first_optimum_uses_the_first(blocks: int) -> None:
    space = many_items(blocks)
    sample = space.sample(np.random.default_rng(0), 400)
    limits = [
        float(np.quantile(evaluator(cost, space)(sample), share))
        for cost, share in zip(block_costs(), MANY_ITEMS_QUANTILES, strict=True)
    ]
    assert limits == pytest.approx(QUANTILE_LIMITS[blocks], rel=1e-12)
    assert len(space.menus[0]) == 390
    optimum = first_optimum(blocks)
    alone = block_problem(blocks, 5, None, 0).evaluate(optimum)
    assert alone.feasible
    assert alone.usage[0].value > 0.999 * limits[0]
    usage = block_problem(blocks, 5, 0.85, 0).evaluate(optimum).usage
    assert [used.value / used.upper for used in usage[1:]] == pytest.approx([1 / 0.85] * 4)


def test_the_decode_latency_of_the_layers_binds() -> None:
    """The optimum within the other budgets, as it is kept, takes longer."""
    kept = json.loads((RESULTS / "layers" / "own" / "design.json").read_text(encoding="utf-8"))
    assert kept["solution"]["status"] == "optimal"
    few, all_of_them = (layers_problem(budgets, 0).evaluate(Architecture.from_dict(kept["architecture"])) for budgets in (3, 4))
    assert few.objective == pytest.approx(kept["solution"]["objective"], rel=1e-12)
    assert few.feasible
    assert [used.within for used in all_of_them.usage] == [True, True, True, False]


# The reference


@pytest.mark.parametrize("seed", range(3))
def test_bare_highspy_finds_what_dynamic_programming_proves(seed: int) -> None:
    problem = INSTANCES[SMALL].build(seed)
    bare, proved = (solve(problem, solver, Limits(seconds=60)) for solver in (BareHighspy(), DynamicProgramming()))
    assert bare.status is proved.status is Status.OPTIMAL
    assert bare.objective == pytest.approx(proved.objective, rel=1e-9)


def test_bare_highspy_says_that_nothing_is_within_the_limits() -> None:
    problem = additive_problem(np.ones((2, 2)), np.ones((1, 2, 2)), [1.5])
    assert solve(problem, BareHighspy()).status is Status.INFEASIBLE


# Measuring


def test_the_meter_sees_memory_and_work_of_its_block_alone() -> None:
    with Meter() as idle:
        pass
    with Meter() as busy:
        # 64 MiB of pages of its own: an array may be given what an earlier one has left to the process.
        filled = np.frombuffer(mmap.mmap(-1, 64 << 20), dtype=float)
        for _ in range(20):
            filled += 1
    assert busy.cpu_seconds > 10 * idle.cpu_seconds
    if busy.memory_bytes is not None:
        assert idle.memory_bytes is not None
        assert idle.memory_bytes < 8 << 20 < 60 << 20 < busy.memory_bytes


def test_a_process_that_ends_without_an_answer_is_a_failed_run(tmp_path: Path) -> None:
    row = run_apart("solve", {"instance": "nothing", "seed": 0, "option": "dp", "seconds": 1.0}, tmp_path / "certificate", 1.0)
    assert row["status"] == FAILED
    assert "'nothing'" in row["message"]


def test_what_a_solver_cannot_read_is_refused(tmp_path: Path) -> None:
    row = run_apart("solve", {"instance": "paper-60", "seed": 0, "option": "bare-highspy", "seconds": 1.0}, tmp_path / "c", 1.0)
    assert row == {"status": REFUSED, "message": row["message"]}
    assert "multiple-choice knapsack" in row["message"]


# What is made of rows


def row(option: str, status: str = "optimal", instance: str = SMALL, seed: int = 0, **values: Any) -> Row:
    record = {"instance": instance, "seed": seed, "option": option, "solver": option, "status": status, "message": "ended"}
    numbers = {"objective": 10.0, "bound": 10.0, "gap": 0.0, "seconds": 1.0, "cpu_seconds": 1.0, "memory_bytes": 1 << 20}
    return {**record, **numbers, "first_design_seconds": 0.5, "first_bound_seconds": 0.5, "certificate": None, **values}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("dp"), row("highs", objective=10.1)], "the proved optima differ: dp 10.0, highs 10.1"),
        ([row("dp", "infeasible", objective=None, bound=None), row("highs")], "dp proved that there is no design, highs found one"),
        (
            [row("dp", "feasible", bound=12.0, gap=0.2), row("highs", "feasible", objective=9.0, bound=9.5)],
            "the bound 9.5 of highs",
        ),
        ([row("dp", bound=10.000005), row("highs", objective=10.000001, bound=10.000005)], None),
        ([row("dp"), row("highs", objective=10.1, bound=10.1, seed=1)], None),
        (
            [row("dp", instance="paper-60"), row("dp", instance="paper-60", seed=1, objective=11.0)],
            "paper-60: the proved optima differ",
        ),
        ([row("dp"), row("bare-highspy", objective=9.9999999, bound=9.9999999)], None),
    ],
)
def test_proofs_that_contradict_each_other_are_faults(rows: list[Row], words: str | None) -> None:
    faults = faults_of(rows)
    if words is None:
        assert faults == []
    else:
        assert any(words in fault for fault in faults)


def summary_of(rows: list[Row], repeats: int = 3) -> dict[str, Any]:
    options = tuple(dict.fromkeys(each["option"] for each in rows))
    own = {(SMALL, option): [each for each in rows if each["option"] == option] for option in options}
    return methods_summary(MethodsPlan((SMALL,), options, 20.0, repeats, False), Results(own, {}, {}))


def test_medians_count_runs_without_a_proof_as_longer_than_any_with_one() -> None:
    never = {"status": "feasible", "gap": 0.25, "seconds": 20.0}
    one = [row("dp", seed=0, seconds=3.0), row("dp", seed=1, seconds=1.0), row("dp", seed=2, **never)]
    two = [row("highs", seed=0, seconds=1.0), row("highs", seed=1, **never), row("highs", seed=2, **never)]
    (record,) = summary_of([*one, *two])["instances"]
    dp, highs = record["solvers"]
    assert (dp["seconds"], dp["proved"], dp["runs"]) == (3.0, 2, 3)
    assert (highs["seconds"], highs["gap"]) == (None, 0.25)
    text = methods_text(summary_of([*one, *two]))
    assert "3.00 (2 of 3)" in text
    assert "gap 25 % (1 of 3)" in text


def test_who_wins_leaves_the_reference_out() -> None:
    rows = [row("dp", seconds=2.0), row("highs", seconds=4.0), row("bare-highspy", seconds=1.0)]
    (record,) = summary_of(rows, 1)["instances"]
    assert record["fastest"] == "dp"
    assert (record["own_over_engines"], record["own_over_bare"]) == (0.5, 2.0)


def test_verdicts_on_certificates_are_counted_and_a_refused_one_is_a_fault() -> None:
    verdicts = ("accepted", "not checkable", "refused")
    rows = [
        row("dp", seed=seed, certificate={"verdict": verdict, "message": "step 3", "check_seconds": 1.0 + seed})
        for seed, verdict in enumerate(verdicts)
    ]
    summary = summary_of(rows)
    (record,) = summary["certificates"]
    assert record["verdicts"] == dict.fromkeys(verdicts, 1)
    assert (record["check_seconds"], record["longest_check_seconds"]) == (2.0, 3.0)
    assert summary["faults"] == [f"{SMALL}, seed 2: the certificate of dp is refused: step 3"]
    assert "THE PROOFS DISAGREE" in methods_text(summary)


def test_an_optimum_that_no_other_method_proved_is_said() -> None:
    assert summary_of([row("dp"), row("highs", "feasible", gap=0.1), row("bare-highspy")], 1)["alone"] == [f"{SMALL}, seed 0 (dp)"]
    assert summary_of([row("dp"), row("highs")], 1)["alone"] == []


# The command


def test_it_writes_what_it_promises_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--instances", SMALL, "--solvers", "dp,bare-highspy", "--repeats", "2", "--seconds", "60"]
    flags += ["--output", str(tmp_path)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "summary.json", "exact_methods.png"}
    rows = read_rows(tmp_path)
    assert len(rows) == 2 * 2
    assert {each["status"] for each in rows} == {"optimal"}
    assert all(each["cpu_seconds"] > 0 and each["seconds"] >= each["first_design_seconds"] for each in rows)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["faults"] == []
    assert summary["alone"] == [f"{SMALL}, seed 0 (dp)", f"{SMALL}, seed 1 (dp)"]
    assert {"numpy", "highspy", "merino"} <= set(summary["provenance"]["versions"])
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert main(flags) == 0
    assert capsys.readouterr().out == text
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    # A row that does not hold any more is not shown.
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**each, "objective": each["objective"] + 0.1}) + "\n" for each in rows))
    with pytest.raises(ValueError, match=f"the stored row of .*, seed 0, for {SMALL} gives score as"):
        main(flags)


def test_a_solver_is_not_tried_where_it_did_not_prove_the_smaller_one(tmp_path: Path) -> None:
    flags = ["--instances", "blocks-12-1,blocks-12-3", "--solvers", "dp", "--repeats", "2", "--seconds", "0.2"]
    assert main([*flags, "--output", str(tmp_path)]) == 0
    assert [each["instance"] for each in read_rows(tmp_path)] == ["blocks-12-1"]  # nor is a run without a proof repeated
    _, larger = json.loads((tmp_path / "summary.json").read_text())["instances"]
    assert larger["untried"] == {"dp": "no proof of blocks-12-1"}
    assert main([*flags, "--hopeless", "--output", str(tmp_path)]) == 0
    assert [each["instance"] for each in read_rows(tmp_path)] == ["blocks-12-1", "blocks-12-3"]


def test_random_instances_are_run_until_their_median_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = {0: "optimal", 1: "feasible", 2: "optimal", 3: "feasible", 4: "feasible"}

    def measured(trial: Trial) -> Row:
        design = {"items": None, "usage": {}, "seconds_limit": trial.seconds}
        return row(trial.option, statuses[trial.seed], seed=trial.seed, **design, key=trial.key)

    monkeypatch.setattr(study, "measure", measured)
    flags = ["--instances", SMALL, "--solvers", "dp", "--seconds", "1"]
    for repeats, runs in ((3, 3), (5, 5), (2, 2), (4, 4)):
        output = tmp_path / str(repeats)
        assert main([*flags, "--repeats", str(repeats), "--output", str(output)]) == 0
        assert len(read_rows(output)) == runs
    statuses[0] = "feasible"
    assert main([*flags, "--repeats", "5", "--output", str(tmp_path / "again")]) == 0
    assert [each["status"] for each in read_rows(tmp_path / "again")] == ["feasible", "feasible", "optimal", "feasible"]


def test_every_solver_has_a_colour_and_a_mark_of_its_own() -> None:
    styles = [solver_style(name) for name in (*SOLVERS, *REFERENCES)]
    assert {*REFERENCES} <= set(ENTRANTS)
    assert len({style["color"] for style in styles}) == len({style["marker"] for style in styles}) == len(styles)


def test_all_exact_solvers_take_part() -> None:
    assert set(ENTRANTS) == {name for name, entrant in SOLVERS.items() if not entrant.seeded} | {"bare-highspy"}
    assert Trial(SMALL, 0, "dp", 1.0).key != Trial(SMALL, 0, "dp", 2.0).key != Trial(SMALL, 1, "dp", 2.0).key


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--instances", "variants-8-3"], "did you mean 'variants-8-"),
        (["--solvers", "higs"], "did you mean 'highs'"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--moco", "there"], "add --fronts"),
        (["--fronts", "--solvers", "dp"], "leave --solvers out"),
        (["--fronts", "--instances", "paper-flop"], "did you mean 'paper-flops'"),
        (["--fronts", "--moco", "/proc/self/fd"], "holds no knapsack file"),
        (["--output", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], words: str) -> None:
    result = commands.run("studies.exact_methods", "--quick", *flags)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


# Fronts


PROFITS, WEIGHTS = [[7, 2, 5, 3, 4], [1, 6, 2, 4, 3]], [3, 4, 2, 5, 1]


def mof(sense: str = "max") -> dict[str, Any]:
    names = [f"x[{number}]" for number in range(5)]
    terms = [
        {"output_index": index, "scalar_term": {"coefficient": profit, "variable": name}}
        for index, profits in enumerate(PROFITS, start=1)
        for name, profit in zip(names, profits, strict=True)
    ]
    weights = [{"coefficient": weight, "variable": name} for name, weight in zip(names, WEIGHTS, strict=True)]
    return {
        "variables": [{"name": name} for name in names],
        "objective": {"sense": sense, "function": {"type": "VectorAffineFunction", "terms": terms, "constants": [0, 0]}},
        "constraints": [
            {
                "function": {"type": "ScalarAffineFunction", "terms": weights, "constant": 0},
                "set": {"type": "LessThan", "upper": 8},
            },
            *({"function": {"type": "Variable", "name": name}, "set": {"type": "ZeroOne"}} for name in names),
        ],
    }


@pytest.fixture
def moco(tmp_path: Path) -> Path:
    """A folder with one knapsack in both forms, and its front beside one of them."""
    folder = tmp_path / "moco"
    folder.mkdir()
    (folder / "five.mof.json").write_text(json.dumps(mof()))
    (folder / "same.dat").write_text(f"2\n5\n8.0\n{json.dumps(PROFITS)}\n{json.dumps(WEIGHTS)}\n")
    points = set()
    for chosen in np.ndindex(*[2] * 5):
        if np.dot(WEIGHTS, chosen) <= 8:
            points.add(tuple((np.array(PROFITS) @ chosen).tolist()))
    front = [point for point in points if not any(p != point and p[0] >= point[0] and p[1] >= point[1] for p in points)]
    (folder / "five.front.json").write_text(json.dumps([{"Y": point} for point in [*front, front[0]]]))
    return folder


def test_a_knapsack_is_the_same_from_both_kinds_of_file(moco: Path) -> None:
    one, other = (read_knapsack(moco / name).problem() for name in ("five.mof.json", "same.dat"))
    assert one == other
    assert isinstance(one.space, OptionSpace)
    points = exhaustive_front(one)
    assert [(point.objective, point.costs) for point in exact_front(one, DynamicProgramming()).points] == [
        (point.objective, point.costs) for point in points
    ]


def test_fronts_are_found_both_ways_and_compared_with_the_published_one(
    moco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--fronts", "--moco", str(moco), "--instances", "five,same", "--repeats", "1", "--seconds", "60"]
    flags += ["--output", str(out)]
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.count("complete") == 4
    rows = read_rows(out)
    assert len(rows) == 2 * 2
    assert {each["status"] for each in rows} == {"complete"}
    assert len({json.dumps(sorted(each["values"])) for each in rows}) == 1
    assert all(each["faults"] == [] for each in rows)
    assert main(flags) == 0
    assert read_rows(out) == rows
    (moco / "five.front.json").write_text(json.dumps([{"Y": [1.0, 1.0]}]))
    assert main(flags) == 3
    assert re.search("five, at-once: the points are not those of the published front", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.mof.json", json.dumps(mof("min")), "does not maximize several sums"),
        ("a.mof.json", "{}", "is not a knapsack problem of several objectives"),
        ("a.dat", "2\n4\n8.0\n[[1, 2], [3, 4]]\n[1, 2]", r"expected 2 objectives of 4 items"),
        ("a.dat", "2 3", "is not a knapsack problem of several objectives"),
    ],
)
def test_a_file_that_is_no_knapsack_is_one_sentence(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_knapsack(path)


def front_row(method: str, points: list[list[float]], **values: Any) -> Row:
    record = {"front": "paper-flops", "repeat": 0, "method": method, "status": "complete", "message": "", "pending": 0}
    numbers = {"points": len(points), "values": points, "seconds": 1.0, "cpu_seconds": 1.0, "memory_bytes": None}
    return {**record, **numbers, "check_seconds": 0.1, "faults": [], **values}


def test_complete_fronts_that_differ_are_faults() -> None:
    one, other = front_row("at-once", [[2.0, 1.0], [3.0, 2.0]]), front_row("point-by-point", [[3.0, 2.0], [2.0, 1.0]])
    assert fronts_summary([one, other], 1.0, None)["faults"] == []
    short = front_row("point-by-point", [[3.0, 2.0]])
    (fault,) = fronts_summary([one, short], 1.0, None)["faults"]
    assert fault == "paper-flops, point-by-point: 1 points, which are not the 2 of at-once"
    left = {**short, "status": "incomplete", "pending": 1, "message": "time limit reached"}
    summary = fronts_summary([one, left], 1.0, None)
    assert summary["faults"] == []
    assert "1 box is not settled (time limit reached)" in fronts_text(summary)


def test_a_point_that_a_complete_front_lacks_is_a_fault() -> None:
    whole = front_row("at-once", [[2.0, 1.0], [3.0, 2.0]])
    for points, count in (([[3.0, 2.0], [2.5, 2.5]], 0), ([[2.0, 1.0], [3.5, 2.5], [3.0, 1.5]], 2)):
        part = front_row("point-by-point", points, status="incomplete", pending=1)
        faults = fronts_summary([part, whole], 1.0, None)["faults"]
        assert faults == (
            [f"paper-flops, point-by-point: {count} points that the complete front of at-once lacks"] if count else []
        )


def test_fronts_are_of_spaces_of_the_house() -> None:
    assert [len(build().minimize) for build in FRONTS.values()] == [1, 1, 2, 1, 1, 1]
    assert [len(build().subject_to) for build in FRONTS.values()] == [0, 0, 0, 0, 0, 2]
