"""Designs scaled down for machines without a GPU, and training them side by side for real: equal terms, and resumption."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import PUBLISHED, Architecture, Block
from hardware_models import Flops
from solvers import Exhaustive, Limits, Status, solve
from studies.ablation import study as ablation
from studies.baselines import study as baselines
from studies.trained import searches
from studies.trained.scaled_designs import scaled, scaled_problem, uniform_design
from studies.trained.searches import Searches, design_of


def test_scaling_divides_widths_and_keeps_the_rest() -> None:
    half = scaled(PUBLISHED["MeRino-61M"], 2, 4096, 256)
    assert half.widths == (320, 384, 448, 512)
    assert half.ffn_widths == (320, 576, 448, 512)
    assert half.depths == PUBLISHED["MeRino-61M"].depths
    assert (half.embedding_width, half.vocabulary, half.positions) == (384, 4096, 256)
    assert scaled(PUBLISHED["MeRino-61M"], 1, 50257, 2048) == PUBLISHED["MeRino-61M"]
    assert scaled(Architecture((Block(96 * 64, 64, 1),)), 1000, 9, 9).widths == (64,)


@pytest.mark.parametrize(("published", "scale"), [("MeRino-52M", 4), ("MeRino-61M", 4), ("MeRino-52M", 2)])
def test_the_scaled_problem_has_the_published_designs_flops_and_its_proven_optimum(
    tmp_path: Path, published: str, scale: int
) -> None:
    problem, small = scaled_problem(PUBLISHED[published], scale, 2048, 256)
    flops, budget = problem.subject_to[0].quantity, problem.subject_to[0].upper
    assert small == scaled(PUBLISHED[published], scale, 2048, 256)
    assert (flops, budget) == (Flops(256), Flops(256)(small))
    truth = solve(problem, Exhaustive(), Limits(seconds=60))
    assert truth.status is Status.OPTIMAL
    row = Searches(tmp_path).optimum(problem, "a budget", "entropy")
    assert problem.maximize(design_of(row)) == pytest.approx(truth.objective)
    assert (row["budget"], row["objective"], row["scored"]) == ("a budget", "entropy", None)
    uniform = uniform_design(problem)
    assert 0.9 * budget <= flops(uniform) <= budget
    assert not uniform.shared


def test_a_search_is_made_once_and_its_design_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, small = scaled_problem(PUBLISHED["MeRino-52M"], 4, 2048, 256)
    row = Searches(tmp_path).optimum(problem, "a budget", "entropy")
    kept = tmp_path / "searches.jsonl"
    evaluation = dataclasses.replace(problem, report=()).evaluate(small)
    usage = {used.name: used.value for used in evaluation.usage}
    other = {**row, "architecture": small.to_dict(), "value": evaluation.objective, "usage": usage}
    kept.write_text(json.dumps(other) + "\n")  # of another solver, or another machine
    with monkeypatch.context() as patch:
        patch.setattr(searches, "solve", None)
        assert design_of(Searches(tmp_path).optimum(problem, "a budget", "its name elsewhere")) == small
    looser = dataclasses.replace(problem, subject_to=(dataclasses.replace(problem.subject_to[0], upper=1e9),))
    Searches(tmp_path).optimum(looser, "more", "entropy")
    assert len(kept.read_text().splitlines()) == 2
    kept.write_text(json.dumps({**other, "value": 1.001 * evaluation.objective}) + "\n")
    with pytest.raises(ValueError, match=r"row of entropy for a budget .*searches\.jsonl .*effective entropy"):
        Searches(tmp_path).optimum(problem, "a budget", "entropy")
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(searches, "_EXACT", Limits(seconds=1e-6))
        with pytest.raises(ValueError, match=r"no optimum of entropy was proved in .*; choose a larger --scale"):
            Searches(tmp_path / "elsewhere").optimum(problem, "a budget", "entropy")
    again = Searches(tmp_path / "elsewhere").optimum(problem, "a budget", "entropy")  # a search that proved nothing is not kept
    assert again["status"] == "optimal"


def test_a_uniform_design_uses_the_budget_up() -> None:
    problem, _ = scaled_problem(PUBLISHED["MeRino-52M"], 4, 2048, 256)
    (block,) = uniform_design(problem).blocks
    assert (block.width, block.ffn_width, block.depth) == (256, 1216, 2)


def arguments(folder: Path, *flags: str) -> list[str]:
    text = folder / "text.txt"
    if not text.exists():
        random = np.random.default_rng(0)
        words = ("sheep", "wool", "soft", "map", "proof", "bound", "model", "words")
        text.write_text("\n".join(" ".join(random.choice(words, 12)) for _ in range(200)), encoding="utf-8")
    sizes = ["--vocabulary", "270", "--sequence", "16", "--batch", "4", "--steps", "10", "--seeds", "2", "--precision", "float32"]
    places = ["--text", str(text), "--cache", str(folder / "cache"), "--output", str(folder / "out")]
    return [*sizes, *places, "--evaluate-at-most", "8", *flags]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "rows.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_runs_are_resumed_and_compared_on_equal_terms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = arguments(tmp_path, "--parts", "wide-deep")
    assert ablation.main([*flags, "--jobs", "1"]) == 0  # several at once: test_training_runs.py
    first = rows(tmp_path)
    assert sorted((row["design"], row["seed"]) for row in first) == [(name, seed) for name in ("deep", "wide") for seed in (0, 1)]
    assert {row["tokens"] for row in first} == {10 * 4 * 16}
    assert len({json.dumps({**row["plan"], "seed": None}) for row in first}) == 1
    assert "held-out loss" in capsys.readouterr().out

    kept = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    (tmp_path / "out" / "rows.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    assert ablation.main([*flags, "--jobs", "1"]) == 0
    again = rows(tmp_path)
    assert again[:-1] == first[:-1]
    assert again[-1]["held_out_loss"] == first[-1]["held_out_loss"]


@pytest.mark.parametrize(
    ("main", "flags", "said"),
    [
        (ablation.main, ["--seeds", "0"], "seeds is 0"),
        pytest.param(baselines.main, ["--scale", "9", "--evaluations", "1"], "no uniform design", marks=pytest.mark.slow),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(tmp_path: Path, main: Any, flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        main([*arguments(tmp_path), *flags])
    assert not (tmp_path / "out" / "rows.jsonl").exists()
