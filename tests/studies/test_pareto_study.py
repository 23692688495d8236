"""The Pareto study as a user runs it, rightly and wrongly, on a small space."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, Budget, DesignProblem, EffectiveEntropy, Menu, SearchSpace
from formulation.command.exit_code import ExitCode
from formulation.problem import just_below
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Limits, nsga2_front
from solvers.base import Status
from solvers.questions.pareto import Box, Front, check_certificate, exact_front, exhaustive_front, hypervolume, reference_costs
from studies.pareto.bystanders import Baseline, baselines_of, uniform_designs
from studies.pareto.figures import draw_front, nsga2_rows
from studies.pareto.study import certificate_text, main, published_table
from tests import commands
from tests.stopping import stopped

SPACE = {"blocks": 3, "widths": [512, 640, 768], "ffn_ratios": [1, 2], "depths": [1, 2]}


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE))
    return str(path)


def points_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "front.jsonl").read_text().splitlines()]


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
    assert text.index("is complete") < text.index("Written to") < text.index("NSGA-II seed")
    assert "published design" in text
    assert "reference point: effective entropy 0, flops 55 G" in text
    assert {path.name for path in output.iterdir()} == {"rows.jsonl", "front.jsonl", "front.json", "front.png"}

    problem = DesignProblem(
        SearchSpace.from_dict(SPACE), EffectiveEntropy(), (Budget(Flops(), 55e9),), minimize=(Flops(), Params())
    )
    front = json.loads((output / "front.json").read_text())
    truth = exhaustive_front(problem)
    points = points_of(output)
    assert [point["costs"] for point in points] == [list(point.costs) for point in truth]
    designs = [Architecture.from_dict(point["design"]) for point in points]
    assert [problem.maximize(design) for design in designs] == [point["objective"] for point in points]
    assert front["points"] == len(points)
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


@pytest.mark.slow
def test_a_kill_loses_no_box_and_the_same_command_gives_the_same_rows(space: str, tmp_path: Path) -> None:
    flags = ["--space", space, "--minimize", "flops", "--minimize", "params", "--seeds", "1", "--evaluations", "300"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    rows = killed / "rows.jsonl"
    assert stopped(signal.SIGKILL, 5, "studies.pareto", *flags, "--output", str(killed)).returncode == -signal.SIGKILL
    kept = rows.read_text()
    assert kept.count("\n") == 5
    for folder in (killed, whole):
        assert main([*flags, "--output", str(folder)]) == 0
    assert rows.read_text().startswith(kept[: kept.rfind("\n") + 1])
    assert rows_of(killed) == rows_of(whole)
    assert points_of(killed) == points_of(whole)


def test_control_c_during_nsga2_leaves_the_exact_front_shown_and_written(space: str, tmp_path: Path) -> None:
    flags = ["--space", space, "--minimize", "flops", "--seconds", "100", "--output", str(tmp_path / "out")]
    interrupted = commands.interrupted(50, "studies.pareto", *flags, of="solvers.evaluation:Scorer.objective")
    assert interrupted.returncode == 130
    assert "interrupted; what is finished is kept" in interrupted.stderr
    assert "is complete" in interrupted.stdout
    assert json.loads((tmp_path / "out" / "front.json").read_text())["certificate"]["complete"]
    assert (tmp_path / "out" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_front_that_time_cut_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = ["--space", "fine", "--minimize", "flops"]  # takes several seconds
    flags = [*space, "--seeds", "1", "--seconds", "1", "--exact-seconds", "0.5", "--output", str(tmp_path)]
    assert main(flags) == ExitCode.NO_ANSWER
    text = capsys.readouterr().out
    assert re.search(r"pending, in which no design exceeds [0-9,.]+: the front of [0-9,]+ points? is NOT complete", text)
    assert "NOT complete" in text
    assert "MeRino-61M" in text
    assert "≥ marks lower bounds of the loss" in text
    assert "over budget" not in text
    assert "follow when the front is complete" in text
    front = json.loads((tmp_path / "front.json").read_text())
    assert not front["certificate"]["complete"]
    assert front["certificate"]["pending"]
    assert front["nsga2"][0]["hypervolume_ratio"] == {}


@cache
def part_of_a_front() -> tuple[Front, Front]:
    """A complete front and what is known of it when its box of the least limits, as large as can be, is still pending."""
    problem = DesignProblem(SearchSpace.from_dict(SPACE), EffectiveEntropy(), minimize=(Flops(),))
    whole = exact_front(problem, DynamicProgramming())
    known = sorted(whole.boxes, key=lambda box: box.limits)[len(whole.boxes) // 2 :]
    assert known[0].point is not None
    pending = Box((just_below(known[0].point.costs[0]),), Status.UNKNOWN, bound=known[0].bound)
    points = tuple(box.point for box in known if box.point is not None)
    return whole, replace(whole, boxes=(*known, pending), points=points)


def test_losses_against_part_of_a_front_are_exact_or_lower_bounds() -> None:
    whole, part = part_of_a_front()
    assert check_certificate(part) == ()
    pairs = list(zip(baselines_of(whole), baselines_of(part), strict=True))
    assert all(one.settled for one, _ in pairs)
    assert {now.settled for _, now in pairs} == {True, False}
    for one, now in pairs:
        if now.settled:
            assert now.loss == one.loss
        elif now.loss is not None:
            assert one.loss is not None
            assert now.loss <= one.loss


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({}, ("10.0", "20.00 %")),
        ({"settled": False}, ("10.0", "≥ 20.00 %")),
        ({"settled": False, "best": 7.0}, ("7.0", "not settled")),
        ({"settled": False, "best": None}, ("-", "not settled")),
        ({"within": False}, ("", "over budget")),
        ({"in_space": False}, ("10.0", "outside the space")),
    ],
)
def test_a_published_design_is_compared_only_where_that_is_fair(changes: dict[str, Any], cells: tuple[str, str]) -> None:
    whole, _ = part_of_a_front()
    point = replace(whole.points[0], objective=8.0)
    one = replace(Baseline("design", "published", point, in_space=True, within=True, best=10.0, settled=True), **changes)
    line = published_table([one], whole).splitlines()[2]
    assert tuple(re.split(r"\s{2,}", line)[3:]) == tuple(cell for cell in cells if cell)


def test_an_incomplete_figure_says_so_and_has_no_curves_over_time() -> None:
    whole, part = part_of_a_front()
    for front, axes in ((whole, 2), (part, 1)):
        figure = draw_front(front, "problem", (), baselines_of(front), reference_costs(front.problem))
        assert len(figure.axes) == axes
        assert ("incomplete front, 1 box pending" in figure.get_suptitle()) is (front is part)


def test_a_front_found_at_once_has_a_moment_and_no_course() -> None:
    whole, _ = part_of_a_front()
    front, reference = exact_front(whole.problem), reference_costs(whole.problem)
    alone = draw_front(front, "problem", (), (), reference)
    assert len(alone.axes) == 1
    assert alone.get_suptitle() == "problem"
    beside = draw_front(front, "problem", nsga2_rows([nsga2_front(whole.problem, Limits(evaluations=200))]), (), reference)
    curve = next(each for each in beside.axes[1].get_lines() if each.get_label() == "exact front, at once")
    assert np.allclose(curve.get_xdata(), front.seconds)
    assert set(curve.get_ydata()) == {1e-3}, "it lacks nothing"


def test_a_figure_shows_the_front_whatever_the_baselines_cost() -> None:
    whole, _ = part_of_a_front()
    costs = [point.costs[0] for point in whole.points]
    far = replace(whole.points[-1], costs=(100 * costs[-1],))
    baselines = [Baseline("far", "published", far, in_space=True, within=False, best=None, settled=True)]
    plane = draw_front(whole, "problem", (), baselines, reference_costs(whole.problem)).axes[0]
    left, right = plane.get_xlim()
    assert left < costs[0]
    assert costs[-1] < right < 1.2 * costs[-1]
    legend = plane.get_legend()
    assert legend is not None
    assert "published, outside the space or budgets (1 beyond the axes)" in [text.get_text() for text in legend.get_texts()]


def test_a_problem_without_a_design_is_no_front(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--space", space, "--minimize", "params", "--budget", "flops=1e9", "--seeds", "1", "--evaluations", "40"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "front.png").write_text("of another problem")
    assert main([*flags, "--output", str(tmp_path / "out")]) == 1
    text = capsys.readouterr().out
    assert f"Proved: no design meets the budgets; `python -m studies.design --space {space} --budget flops=1e9` says" in text
    assert "complete" not in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rows.jsonl", "front.jsonl", "front.json"}


def problem_file(folder: Path, **changes: Any) -> str:
    """A problem file with those keys changed."""
    record = {"format": "merino problem", "version": 2, "space": SPACE, "maximize": "entropy", "minimize": ["flops"]}
    path = folder / "problem.json"
    path.write_text(json.dumps({**record, **changes}))
    return str(path)


def test_a_problem_file_gives_the_front_that_the_flags_give(space: str, tmp_path: Path) -> None:
    path = problem_file(tmp_path, budgets=[{"quantity": "flops", "upper": 40e9}])
    flags = ["--space", space, "--minimize", "flops", "--budget", "flops=40e9"]
    for name, arguments in (("file", [path]), ("flags", flags)):
        assert main([*arguments, "--seeds", "0", "--output", str(tmp_path / name)]) == 0
    assert rows_of(tmp_path / "file") == rows_of(tmp_path / "flags")
    assert points_of(tmp_path / "file") == points_of(tmp_path / "flags")


def test_mistakes_with_a_problem_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out")]
    for extra in (["--space", "paper"], ["--maximize", "entropy"], ["--minimize", "params"], ["--budget", "flops=60e9"]):
        with pytest.raises(ValueError, match=r"names the whole problem; leave out --"):
            main([problem_file(tmp_path), *extra, *output])
    with pytest.raises(ValueError, match=r"minimizes nothing; name the costs in it"):
        main([problem_file(tmp_path, minimize=[]), *output])
    with pytest.raises(ValueError, match=r"flops is an objective twice"):
        main([problem_file(tmp_path, minimize=["flops", "flops"]), *output])
    with pytest.raises(ValueError, match=r"cannot read the problem file"):
        main([str(tmp_path / "none.json"), *output])
    path = problem_file(tmp_path, budgets=[{"quantity": "flops", "upper": 1e9}])
    assert main([path, *output]) == 1
    assert '"minimize" is taken out of the file' in capsys.readouterr().out


def test_one_is_not_many() -> None:
    whole, part = part_of_a_front()
    box = whole.boxes[0]
    assert box.point is not None
    one = certificate_text(replace(whole, boxes=(box,), points=(box.point,)), ())
    assert "1 box settled" in one
    assert "(1 optimum, 0 without any design)" in one
    assert "the front of 1 point is complete" in one
    assert "1 box is pending" in certificate_text(part, ())
    two = replace(part, boxes=(*part.boxes, part.pending[0]))
    assert "2 boxes are pending" in certificate_text(two, ())


def test_a_false_row_is_found_out(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--space", space, "--minimize", "params", "--seeds", "0", "--output", str(tmp_path / "out")]
    assert main(flags) == 0
    path = tmp_path / "out" / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2]["objective"] = rows[2]["bound"] = rows[2]["objective"] * 1.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"stored box of limits .* effective entropy "):
        main(flags)
    rows[2] = {**rows[2], "objective": None, "costs": None, "design": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(flags) == 3
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


def test_uniform_designs_of_layers_with_choices_of_their_own() -> None:
    menu = Menu((256,), ffn_widths=(512, 768), heads=(2, 4), kv_heads=(1, 2), depths=(0, 1))
    space = SearchSpace((menu,) * 3, shared=False, family="llama", vocabulary=512, positions=64)
    widest, wider = uniform_designs(space)
    assert widest in space
    assert wider not in space
    assert {(each.width, each.ffn_width, each.depth, each.heads, each.kv_heads) for each in widest.blocks} == {(256, 768, 1, 4, 2)}
    assert wider == replace(widest, blocks=(replace(widest.blocks[0], ffn_width=1024),) * 3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--minimize is missing"),
        (["--minimize", "flop"], "did you mean 'flops'"),
        (["--minimize", "flops", "--maximize", "entrpy"], "did you mean 'entropy'"),
        (["--minimize", "entropy"], "both maximized and minimized"),
        (["--minimize", "flops", "--minimize", "flops"], "expected each quantity once"),
        (["--minimize", "flops", "--space", "papr"], "did you mean 'paper'"),
        (["--minimize", "flops", "--budget", "flops"], "or flops=60e9"),
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
    result = commands.run("studies.pareto", "--maximize", "entropy")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --minimize ")
    assert result.stderr.count("\n") == 1
