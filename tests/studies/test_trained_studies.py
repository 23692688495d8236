"""Ablation and baselines on losses that are made up: who takes part, on equal terms, and what the tables say."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import PUBLISHED, Architecture, EffectiveEntropy
from formulation.records.rows import Row, RowFile
from hardware_models import DecoderParams, Flops, Params
from studies.ablation import study as ablation
from studies.baselines import study as baselines
from studies.proxy_correlation import proxies
from studies.report.claims import CLAIMS, CommittedResults
from studies.trained import runs as training_runs
from studies.trained import searches
from studies.trained.plan import TrainingRun
from studies.trained.scaled_designs import depth_scaled, scaled_problem, width_scaled
from studies.trained.side_by_side import Candidate, distinct, figure_of, records_of, table_text


def made_up(runs: Sequence[TrainingRun], file: RowFile, *_: Any) -> list[Row]:
    """A loss that falls with parameters, and a little with the seed."""
    rows = []
    for run in runs:
        loss = 5 - Params()(run.architecture) / 1e7 - 0.001 * run.plan["seed"]
        row = {"design": run.label, **run.identity(), "seed": run.plan["seed"], "held_out_loss": loss, "tokens_per_s": 1.0}
        rows.append(row)
        file.append(row)
    return rows


@pytest.fixture(autouse=True)
def quick_ntk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is worth is tested elsewhere, and here it would take most of the time."""
    monkeypatch.setattr(proxies, "_inverse_ntk", lambda tokens, design: 1 / sum(design.widths))


def arguments(folder: Path, *flags: str) -> list[str]:
    text = folder / "text.txt"
    words = np.random.default_rng(0).choice(("sheep", "wool", "soft", "map", "proof", "bound"), 3000)
    text.write_text("\n".join(" ".join(words[start : start + 12]) for start in range(0, 3000, 12)), encoding="utf-8")
    sizes = ["--vocabulary", "270", "--sequence", "16", "--batch", "4", "--steps", "20", "--evaluate-at-most", "8", "--jobs", "1"]
    return [*sizes, "--text", str(text), "--cache", str(folder / "cache"), "--output", str(folder / "out"), *flags]


def test_ablation_switches_one_thing_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_runs, "finished", made_up)
    assert ablation.main(arguments(tmp_path, "--seeds", "2")) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    groups = summary["groups"]
    assert len(groups) == 5
    for title, records in groups.items():
        if title.startswith("sharing"):
            shared, apart = records
            assert (shared["blocks"] + " unshared", shared["flops"]) == (apart["blocks"], apart["flops"])
            assert shared["params_saved"] == pytest.approx(1 - shared["params"] / apart["params"])
            assert apart["difference"] == pytest.approx((shared["params"] - apart["params"]) / 1e7)  # as the losses were made up
    whole = next(records for title, records in groups.items() if title.startswith("objective"))
    assert len({record["blocks"] for record in whole}) == len(whole)
    named = ", ".join(record["design"] for record in whole)
    assert all(name in named for name in ("effectiveness and weighting", "neither"))
    wide, deep = groups["wide against deep"]
    assert (wide["gamma"], deep["gamma"]) == pytest.approx((0.0078125, 0.25))
    assert wide["entropy_without_effectiveness"] < deep["entropy_without_effectiveness"]
    assert sorted(wide["losses"]) == ["0", "1"]
    assert summary["published_params_saved"]["MeRino-64M"] == pytest.approx(0.36, abs=0.005)
    assert "published designs by 12 %, 23 %, 36 %" in capsys.readouterr().out
    assert (tmp_path / "out" / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_one_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_runs, "finished", made_up)
    assert ablation.main(arguments(tmp_path, "--seeds", "1", "--parts", "wide-deep")) == 0
    summary = tmp_path / "out" / "summary.json"
    assert list(json.loads(summary.read_text())["groups"]) == ["wide against deep"]
    assert ablation.main(arguments(tmp_path, "--seeds", "1", "--parts", "objective")) == 0
    assert list(json.loads(summary.read_text())["groups"]) == ["wide against deep", "objective, FLOPs of MeRino-61M / 4"]
    assert ablation.main(arguments(tmp_path, "--seeds", "1", "--parts", "wide-deep", "--steps", "30")) == 0
    assert list(json.loads(summary.read_text())["groups"]) == ["wide against deep"]  # on other terms nothing is kept


def test_baselines_keep_one_budget_and_remember_their_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_runs, "finished", made_up)
    flags = arguments(tmp_path, "--seeds", "2", "--budgets", "MeRino-52M", "--evaluations", "4", "--sequence", "16")
    assert baselines.main(flags) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    ((_, records),) = summary["groups"].items()
    budget = next(record["flops"] for record in records if record.get("published"))
    outside = {record["design"] for record in records if not record["in_space"]}
    assert {"wider", "GPT-2-like, not shared"} <= outside
    assert all(one in ("deeper", "wider", "GPT-2-like, not shared") for one in outside)
    assert all(record["flops"] <= budget for record in records)
    names = ", ".join(record["design"] for record in records)
    for name in ("optimum of entropy", "optimum of LTS", "best found of DSS", "best found of NTK", "deeper", "wider", "GPT-2-like"):
        assert name in names
    assert records[0]["entropy"] == max(record["entropy"] for record in records if record["shared"])
    assert [row["objective"] for row in summary["searches"]] == ["entropy", "LTS", "LTS unrolled", "DSS", "NTK"]
    assert summary["scale"] == 4
    assert all(row["seconds"] >= 0 for row in summary["searches"])
    scored = {row["objective"]: row["scored"] for row in summary["searches"]}
    assert scored["entropy"] is None
    assert 0 < scored["DSS"] <= 20
    assert "searched in" in capsys.readouterr().out
    calibration = tmp_path / "calibration.json"
    setting = {"rho": 1.0, "alpha": [0.9, 0.1], "beta": 0.0, "mean": "block"}
    fits = [{"corpus": "a text", "data": {"text_sha256": "0"}, **setting}]
    record = {"format": "merino calibration", "version": 1, "fits": fits, "inverse_optimization": {"nearest": setting}}
    calibration.write_text(json.dumps(record))
    assert baselines.main([*flags, "--calibrated", str(calibration)]) == 0
    said = capsys.readouterr().out
    assert "MeRino-52M / 4: entropy fitted on a text searched in" in said
    assert "MeRino-52M / 4: entropy searched in" not in said
    assert "optimum of entropy fitted on a text, optimum of entropy nearest to the published designs" in said
    (tmp_path / "results" / "baselines").mkdir(parents=True)
    shutil.copy(tmp_path / "out" / "summary.json", tmp_path / "results" / "baselines")
    (claim,) = [one for one in CLAIMS if "at equal FLOPs" in one.text]
    records = json.loads((tmp_path / "out" / "summary.json").read_text())["groups"]["FLOPs of MeRino-52M / 4"]
    (published,) = [record for record in records if record.get("published")]
    gain = 100 * (records[0]["perplexity"] / published["perplexity"] - 1)
    assert f"published designs': {gain:+.1f} %" in claim.judge(CommittedResults(tmp_path / "results")).measured
    monkeypatch.setattr(searches, "solve", None)
    assert baselines.main(flags) == 0
    assert "searched in" not in capsys.readouterr().out


@pytest.mark.slow
def test_budgets_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_runs, "finished", made_up)
    for budget in ("MeRino-52M", "MeRino-61M", "MeRino-52M"):
        flags = arguments(tmp_path, "--seeds", "1", "--budgets", budget, "--evaluations", "4", "--sequence", "16")
        assert baselines.main(flags) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["groups"]) == ["FLOPs of MeRino-52M / 4", "FLOPs of MeRino-61M / 4"]
    assert sorted((row["budget"], row["objective"]) for row in summary["searches"]) == sorted(
        (f"{budget} / 4", name)
        for budget in ("MeRino-52M", "MeRino-61M")
        for name in ("entropy", "LTS", "LTS unrolled", "DSS", "NTK")
    )


@pytest.mark.parametrize("published", PUBLISHED)
def test_naive_scaling_uses_the_budget(published: str) -> None:
    problem, _ = scaled_problem(PUBLISHED[published], 4, 1024, 128)
    budget = problem.subject_to[0]
    deep, wide = depth_scaled(problem), width_scaled(problem)
    for design in (deep, wide):
        assert 0.9 * budget.upper <= budget.quantity(design) <= budget.upper
        assert design.widths == (design.widths[0],) * 4
    assert set(deep.ffn_widths) == set(deep.widths) == {128}
    assert set(wide.depths) == {1}
    assert sum(deep.depths) > 10


def test_records_are_paired_by_seed_and_designs_with_two_names_counted_once() -> None:
    _, small = scaled_problem(PUBLISHED["MeRino-52M"], 4, 1024, 128)
    other = dataclasses.replace(small, shared=False)
    both = distinct([Candidate("a", small, {"x": 1}), Candidate("b", other), Candidate("c", small, {"y": 2})])
    assert [(one.name, dict(one.extra)) for one in both] == [("a, c", {"x": 1, "y": 2}), ("b", {})]
    losses = {small: (2.0, 4.0), other: (2.5, 4.1)}
    rows = [
        {"architecture": design.to_dict(), "plan": {"seed": seed}, "held_out_loss": loss}
        for design, pair in losses.items()
        for seed, loss in enumerate(pair)
    ]
    first, second = records_of([*both, Candidate("not run", Architecture(small.blocks, True, 64, 10, 10))], rows)
    assert (first["loss"], first["difference"], first["x"]) == (3.0, 0.0, 1)
    assert second["difference"] == pytest.approx(0.3)
    assert second["difference_sd"] == pytest.approx(0.4 / 2**0.5)
    assert first["perplexity"] == pytest.approx(np.exp(3.0))
    assert first["entropy"] == EffectiveEntropy()(small)
    assert (first["flops"], first["params"]) == (Flops(128)(small), Params()(small))
    assert DecoderParams()(other) > DecoderParams()(small)


def test_a_design_that_diverged_in_a_seed_has_no_mean(tmp_path: Path) -> None:
    _, small = scaled_problem(PUBLISHED["MeRino-52M"], 4, 1024, 128)
    other = dataclasses.replace(small, shared=False)
    pair = [Candidate("a", small), Candidate("b", other)]

    def row(design: Architecture, seed: int, **ending: Any) -> Row:
        return {"architecture": design.to_dict(), "plan": {"seed": seed}, **ending}

    whole = [row(small, 0, held_out_loss=4.0), row(small, 1, held_out_loss=4.2)]
    parted = [row(other, 0, held_out_loss=3.0), row(other, 1, error="loss nan")]
    first, second = records_of(pair, [*whole, *parted])
    assert (first["loss"], first["diverged"]) == (pytest.approx(4.1), 0)
    assert (second["losses"], second["diverged"]) == ({"0": 3.0}, 1)
    assert [second[name] for name in ("loss", "loss_sd", "perplexity", "difference", "difference_sd")] == [None] * 5
    assert "1 diverged" in table_text([first, second])
    figure_of({"both": [first, second]}).savefig(tmp_path / "figure.png")
    first, second = records_of(pair[::-1], [*whole, *parted])  # compared with one without a mean
    assert (first["loss"], second["loss"], second["difference"]) == (None, pytest.approx(4.1), None)
    apart = records_of(pair, [whole[0], row(other, 1, held_out_loss=3.0)])[1]
    assert (apart["loss"], apart["difference"]) == (3.0, None)  # no seed in common
    with pytest.raises(ValueError, match="no run of 'a' has ended"):
        records_of(pair, parted)


@pytest.mark.parametrize(
    ("main", "flags", "said"),
    [
        (ablation.main, ["--scale", "0"], "scale is 0"),
        (ablation.main, ["--published", "MeRino-53M"], "did you mean 'MeRino-52M'"),
        (baselines.main, ["--budgets", "MeRino-53M"], "did you mean 'MeRino-52M'"),
        (baselines.main, ["--evaluations", "0"], "evaluations is 0"),
        (baselines.main, ["--jobs", "0"], "jobs is 0"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(tmp_path: Path, main: Any, flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        main(arguments(tmp_path, *flags))
    assert not (tmp_path / "out" / "rows.jsonl").exists()
