"""The proxy study on losses that are made up: its sample, its tables, what has not run, and the calibration that reads it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulation import Architecture, EffectiveEntropy, SearchSpace
from formulation.command.options import read_options
from formulation.records.rows import RowFile
from hardware_models import Flops, Params
from studies.calibration import study as calibration
from studies.calibration.data import DEFAULT, GRID, EntropySetting, losses_of_equals, published_equals, read_corpus, scores
from studies.proxy_correlation import proxies
from studies.proxy_correlation import study as proxy_correlation
from studies.proxy_correlation.study import plan_runs
from studies.trained import sample as proxy_sample
from studies.trained.plan import run_key
from studies.trained.runs import prepare
from studies.trained.sample import EQUAL_FLOPS, EQUAL_PARAMS, UNIFORM, WITHIN, sampled, scaled_space


def test_the_sample_is_distinct_repeatable_and_in_its_strata() -> None:
    space = scaled_space(1024, 128)
    groups = sampled(space, 40, 12, 128, seed=3)
    assert [len(set(designs)) for designs in groups.values()] == [40, 12, 12]
    assert all(design in space for designs in groups.values() for design in designs)
    for name, cost in ((EQUAL_FLOPS, Flops(128)), (EQUAL_PARAMS, Params())):
        values = np.array([cost(design) for design in groups[name]])
        assert values.max() / values.min() <= (1 + WITHIN) / (1 - WITHIN)
    fewer = sampled(space, 10, 4, 128, seed=3)
    assert all(fewer[name] == groups[name][: len(fewer[name])] for name in groups)
    assert sampled(space, 10, 4, 128, seed=4)[UNIFORM] != fewer[UNIFORM]


def test_a_stratum_that_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_sample, "_MOST_DRAWS", 3000)
    small = scaled_space(64, 16)
    with pytest.raises(ValueError, match=r"draws .*\d+ designs .*'equal FLOPs'.*100000, ask for fewer"):
        sampled(small, 5, 100_000, 16, seed=0)


def arguments(folder: Path, *flags: str) -> list[str]:
    text = folder / "text.txt"
    if not text.exists():
        words = np.random.default_rng(0).choice(("sheep", "wool", "soft", "map", "proof", "bound"), 3000)
        text.write_text("\n".join(" ".join(words[start : start + 12]) for start in range(0, 3000, 12)), encoding="utf-8")
    sizes = ["--vocabulary", "270", "--sequence", "16", "--batch", "4", "--steps", "20", "--designs", "10", "--stratum", "6"]
    places = ["--text", str(text), "--cache", str(folder / "cache"), "--output", str(folder / "out")]
    return [
        *sizes,
        *places,
        "--budgets",
        "4",
        "--repeats",
        "4",
        "--evaluate-at-most",
        "8",
        "--resamples",
        "30",
        "--jobs",
        "1",
        *flags,
    ]


def made_up_losses(folder: Path, flags: list[str], left_out: int = 0) -> None:
    """Rows as training would leave them: the loss falls with the entropy of another setting; a second seed adds 0.5 and noise."""
    options = read_options(proxy_correlation.ProxyOptions, proxy_correlation.command_line(), flags)
    out = Path(options.workers.output)
    out.mkdir(exist_ok=True)
    plan = plan_runs(options, prepare(options.data, out), out)
    truth = EffectiveEntropy(rho=1.0, alpha=(0.9, 0.1), beta=1 / 8)
    file = RowFile(out / "rows.jsonl")
    for number, run in enumerate(plan.runs[: len(plan.runs) - left_out]):
        share, seed = run.plan["steps"] / 20, run.plan["seed"]
        loss = 5 - truth(run.architecture) / 4000 - 0.1 * share + (0.5 + 0.001 * (-1) ** number) * seed
        file.append({"design": run.label, **run.identity(), "seed": seed, "held_out_loss": loss, "tokens_per_s": 1.0})


@pytest.fixture(autouse=True, scope="module")
def quick_network_proxies() -> Iterator[None]:
    """What they are worth is tested elsewhere, and here they would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxies, "_dss", lambda tokens, design: 1.0 + sum(design.depths))
        patch.setattr(proxies, "_inverse_ntk", lambda tokens, design: 1 / sum(design.widths))
        yield


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proxy")
    made_up_losses(folder, arguments(folder))
    assert proxy_correlation.main(arguments(folder, "--no-training")) == 0
    return folder / "out"


def test_every_proxy_is_correlated_in_every_group(studied: Path) -> None:
    summary = json.loads((studied / "summary.json").read_text())
    assert list(summary["groups"]) == [UNIFORM, EQUAL_FLOPS, EQUAL_PARAMS]
    # There a proxy ranks what 1 % leaves. On 16 tokens attention is next to nothing, and FLOPs rank as the applied weights do.
    held = {UNIFORM: set(), EQUAL_FLOPS: {"FLOPs", "LTS unrolled"}, EQUAL_PARAMS: {"LTS", "parameters"}}
    for name, record in summary["groups"].items():
        assert (record["not_run"], record["diverged"]) == (0, 0)
        assert set(record["held"]) == held[name]
        everything = {"entropy", "LTS", "LTS unrolled", "parameters", "FLOPs", "DSS", "NTK"}
        assert set(record["correlations"]) == everything - held[name]
        leads = {proxy: one["leads"] for proxy, one in record["correlations"].items()}
        for alike in ({"LTS", "parameters"} & set(leads), {"LTS unrolled", "FLOPs"} & set(leads)):
            assert len({leads[proxy] for proxy in alike}) <= 1  # the same ranks: what one leads the other does
            for proxy in list(alike)[1:]:
                del leads[proxy]
        assert sum(leads.values()) == pytest.approx(1)
        for one in record["correlations"].values():
            assert one["behind_interval"][0] <= one["behind"] <= one["behind_interval"][1]
    assert summary["groups"][UNIFORM]["correlations"]["entropy"]["spearman"] > 0.8
    assert summary["budgets"]["designs"] == 4
    assert summary["budgets"]["rank_of_full"]["half"]["spearman"] == pytest.approx(1)
    assert summary["repeats"]["noise_sd"] == pytest.approx(0.001 * (4 / 3) ** 0.5 / 2**0.5)  # four differences of ±0.001 about 0.5
    low, high = summary["repeats"]["noise_sd_interval"]
    assert low < summary["repeats"]["noise_sd"] < high
    assert list(summary["repeats"]["groups"]) == [UNIFORM, EQUAL_FLOPS, EQUAL_PARAMS]
    for record in summary["repeats"]["groups"].values():
        low, high = record["reliability_interval"]
        assert 0.9 < low < record["reliability"] < high < 1
    assert summary["made_with"] == [{"runs": 10 + 6 + 6 + 4 + 2 * 4}]
    assert summary["budgets"]["correlations"]["half"]["entropy"]["designs"] == 4
    same, whole = summary["counting"]["as many tokens"], summary["counting"]["whole text"]
    assert same["tokens"] == 20 * 4 * 16 <= whole["tokens"]
    for name in ("scatter.png", "correlation.png"):
        assert (studied / name).read_bytes().startswith(b"\x89PNG")


def test_what_did_not_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_losses(tmp_path, arguments(tmp_path), left_out=8 + 4 + 2)
    assert proxy_correlation.main(arguments(tmp_path, "--no-training")) == 0
    assert "equal parameters: 2 of 6 designs not run" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["budgets"] == {"designs": 0}
    assert summary["repeats"] == {"designs": 0}


def test_a_design_that_diverged_ranks_below_all_others(studied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(studied.parent, tmp_path / "copy")
    rows = [json.loads(line) for line in (studied / "rows.jsonl").read_text().splitlines()]
    uniform = [row for row in rows if row["design"].startswith("uniform") and len(row["design"]) == len("uniform 00")]
    before = json.loads((studied / "summary.json").read_text())["groups"][UNIFORM]["correlations"]["entropy"]["spearman"]
    for chosen, sign in ((min, 1), (max, 0)):  # the best design, and the one that was the worst already
        loss = chosen(row["held_out_loss"] for row in uniform)
        changed = [
            {**{name: row[name] for name in row if name != "held_out_loss"}, "error": "diverged", "versions": {"device": "GPU"}}
            if row.get("held_out_loss") == loss
            else row
            for row in rows
        ]
        (tmp_path / "copy" / "out" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
        assert proxy_correlation.main(arguments(tmp_path / "copy", "--no-training")) == 0
        said = capsys.readouterr().out
        assert "uniform: 1 design diverged and rank below all others" in said
        assert "1 run: device GPU" in said
        record = json.loads((tmp_path / "copy" / "out" / "summary.json").read_text())["groups"][UNIFORM]
        assert (record["not_run"], record["diverged"], record["correlations"]["entropy"]["designs"]) == (0, 1, 10)
        assert (before - record["correlations"]["entropy"]["spearman"] > 0.1) == bool(sign)
        assert np.isfinite(record["perplexity"]["most"])


def test_nothing_trained_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"of this study 0 designs ended with a loss, .*leave --no-training out"):
        proxy_correlation.main(arguments(tmp_path, "--no-training"))


def test_a_calibration_of_another_text_takes_part(studied: Path, tmp_path: Path) -> None:
    setting = {"rho": 1.0, "alpha": [0.9, 0.1], "beta": 0.125, "mean": "network"}
    fit = {"corpus": "other", "data": {"text_sha256": "0"}, **setting}
    own = {**fit, "corpus": "own", "data": json.loads((studied / "summary.json").read_text())["data"]}
    file = tmp_path / "calibration.json"
    record = {"format": "merino calibration", "version": 1, "fits": [fit, own], "inverse_optimization": {"nearest": setting}}
    file.write_text(json.dumps(record))
    assert proxy_correlation.main(arguments(studied.parent, "--no-training", "--calibrated", str(file))) == 0
    correlations = json.loads((studied / "summary.json").read_text())["groups"][UNIFORM]["correlations"]
    assert correlations["entropy fitted on other"]["spearman"] == pytest.approx(1)
    assert correlations["entropy fitted on other"]["leads"] is None  # it was fitted to these designs
    assert "entropy fitted on own" not in correlations
    for changes, said in (
        ({"fits": [{"corpus": "other", **setting}]}, r"\('data'\)"),
        ({"version": 2}, r"\(it says 'merino calibration', version 2\)"),
    ):
        file.write_text(json.dumps(record | changes))
        with pytest.raises(ValueError, match=rf"calibration {said}; .*python -m studies\.calibration"):
            proxy_correlation.main(arguments(studied.parent, "--no-training", "--calibrated", str(file)))


def test_a_corpus_is_read_back(studied: Path) -> None:
    corpus = read_corpus(studied)
    assert {name: len(designs) for name, designs in corpus.groups.items()} == {UNIFORM: 10, EQUAL_FLOPS: 6, EQUAL_PARAMS: 6}
    designs = corpus.groups[UNIFORM]
    assert scores(DEFAULT, designs) == pytest.approx([EffectiveEntropy()(design) for design in designs], rel=1e-12)
    truth = EntropySetting(1.0, 0.9, 1 / 8, "network")
    assert np.corrcoef(scores(truth, designs), corpus.quality[UNIFORM])[0, 1] == pytest.approx(1)


def test_calibration_finds_the_setting_that_made_the_losses(studied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibration, "inverse_optimization", lambda: made_up_inverse())
    monkeypatch.setattr(calibration, "sensitivity", lambda: {"rho": [{"same": True, "regret": 0.0}]})
    assert calibration.main([str(studied), "--resamples", "4", "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "calibration.json").read_text())
    (fitted,) = record["fits"]
    assert fitted["score_on_itself"] == pytest.approx(1)
    (validated,) = record["held_out"]
    assert validated["resamples"] == 4
    everything, alone = validated["families"].values()
    assert everything["fitted"]["mean"] > 0.8
    assert everything["fitted"]["mean"] - everything["gain"]["mean"]["value"] == pytest.approx(validated["default"]["mean"])
    assert set(alone["chosen"]["rho"]) == {"0.01"}  # β alone was moved
    assert len(everything["chosen"]["beta"]) > 1
    assert set(everything["gain"]) == {UNIFORM, EQUAL_FLOPS, EQUAL_PARAMS, "mean"}
    assert not record["verdict"]["change_defaults"]  # one text is not enough
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_holds_on_other_designs_of_every_text_changes_the_defaults() -> None:
    def pair(both: float, beta: float) -> dict[str, Any]:
        gains = {"all choices": both, "β alone": beta}
        return {"families": {name: {"gain": {"mean": {"interval": [low, 0.3]}}} for name, low in gains.items()}}

    def changes(*pairs: dict[str, Any]) -> bool:
        return bool(calibration.verdict(pairs)["change_defaults"])

    assert changes(*[pair(0.1, -0.1)] * 4)
    assert changes(*[pair(-0.1, 0.1)] * 4)
    assert not changes(*[pair(0.1, -0.1)] * 3, pair(-0.1, 0.1))  # each pair another fit: no fit is better on all of them
    assert not changes(pair(0.1, 0.1))  # one text is not enough
    assert calibration.verdict([pair(0.1, -0.1)] * 2)["better"] == {"all choices": 2, "β alone": 0}
    assert calibration.verdict([]) == {"pairs": 0, "better": {}, "change_defaults": False}


def test_fitting_and_scoring_take_the_same_designs_of_two_texts(studied: Path) -> None:
    corpus = read_corpus(studied)
    names = {name: tuple(reversed(designs)) for name, designs in corpus.groups.items()}
    quality = {name: values[::-1] for name, values in corpus.quality.items()}
    other = dataclasses.replace(corpus, name="other", groups=names, quality=quality)
    tables = {one.name: calibration.score_table(one) for one in (corpus, other)}
    here, there = (calibration.held_out_gain(corpus, one, tables, 4, 0) for one in (corpus, other))
    assert here["families"] == there["families"]  # the order in which designs come is nothing to them
    assert here["families"]["all choices"]["fitted"]["mean"] > 0.8
    apart = dataclasses.replace(corpus, name="apart", groups={name: designs[:3] for name, designs in corpus.groups.items()})
    with pytest.raises(ValueError, match=r"out and apart .*fewer than 6 designs.* same sample"):
        calibration.held_out_gain(corpus, apart, tables, 4, 0)


def test_no_design_is_fitted_and_scored_at_once(studied: Path) -> None:
    corpus = read_corpus(studied)
    shared = calibration.Shared.of(corpus, corpus)
    draw = np.random.default_rng(0)
    times = np.array([3, *np.ones(shared.designs - 1)], dtype=int)
    for _ in range(5):
        (fitted, scored), (second, _) = shared.halved(times, draw)
        for name, number in shared.number.items():
            assert not set(fitted[name]) & set(scored[name])
            assert sorted([*fitted[name], *scored[name]]) == sorted(np.repeat(shared.here[name], times[number]))
            assert (second[name] == scored[name]).all()


def test_texts_are_compared_on_the_groups_of_all(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = read_corpus(studied)
    half = dataclasses.replace(corpus, name="half", groups={UNIFORM: corpus.groups[UNIFORM]})
    both = calibration.on_common_groups([corpus, half])
    assert [list(one.groups) for one in both] == [[UNIFORM]] * 2
    assert "out: equal FLOPs is left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no group of designs was trained on every text"):
        calibration.on_common_groups([corpus, dataclasses.replace(corpus, groups={"another": ()})])
    assert calibration.on_common_groups([]) == []


def test_a_diverged_run_is_the_last_of_a_corpus(studied: Path, tmp_path: Path) -> None:
    lines = (studied / "rows.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["error"] = f"loss {first.pop('held_out_loss')}"
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    (tmp_path / "summary.json").write_text((studied / "summary.json").read_text())
    corpus = read_corpus(tmp_path)
    assert len(corpus.groups[UNIFORM]) == 10
    assert np.isinf(corpus.quality[UNIFORM]).sum() == 1
    assert np.isfinite(calibration.mean_spearmans(calibration.score_table(corpus), corpus.quality, {UNIFORM: np.arange(10)})).all()


def made_up_inverse() -> dict[str, Any]:
    losses = {"MeRino-52M": 0.1, "MeRino-61M": 0.2, "MeRino-64M": 0.3}
    lines = {axis: [{"value": value, "losses": [0.1, 0.2, 0.3]} for value in values] for axis, values in calibration._AXES.items()}
    one = {**DEFAULT.to_dict(), "losses": losses}
    return {"default": one, "nearest": one, "explained": False, "profiles": lines}


def test_published_losses_are_those_of_exhaustive_search() -> None:
    space = SearchSpace.uniform(4, (512, 640, 896), (1,), (1, 2, 3))
    (equals,) = published_equals(space, ["MeRino-52M"])
    settings = [DEFAULT, EntropySetting(1.0, 0.3, 0.25, "block"), EntropySetting(0.1, 1.0, 0.0, "block")]
    losses = losses_of_equals([equals], settings)[:, 0]
    costs = (Flops(), Params())
    within = [design for design in space if all(cost(design) <= cost(equals.design) for cost in costs)]
    assert len(within) == equals.designs >= len(equals.layers)
    for setting, loss in zip(settings, losses, strict=True):
        best = max(setting.entropy(design) for design in within)
        assert loss == pytest.approx(1 - setting.entropy(equals.design) / best, abs=1e-12)


def test_no_setting_of_another_scan_beats_the_nearest_one() -> None:
    space = SearchSpace.uniform(4, (512, 640, 768, 896, 1024), (1, 1.5), (1, 2, 3))
    equals = published_equals(space)
    nearest = calibration.nearest_setting(equals, losses_of_equals(equals, GRID))
    least = losses_of_equals(equals, [nearest]).max()
    draw = np.random.default_rng(0)
    means = draw.choice(["network", "block"], 300)
    others = [
        EntropySetting(float(10 ** draw.uniform(-4, 4)), float(draw.random()), float(draw.uniform(0, 0.46)), str(mean))
        for mean in means
    ]
    assert losses_of_equals(equals, others).max(axis=1).min() >= least - 1e-9


def test_the_grid_holds_the_default_and_no_setting_twice() -> None:
    assert DEFAULT in GRID
    assert len(set(GRID)) == len(GRID)
    assert EntropySetting(**{**vars(DEFAULT), "mean": "block"}).entropy.name == "blockwise effective entropy"
    assert run_key({"architecture": Architecture, "plan": 1, "data": 2, "seed": 3} | {"architecture": "a"}) == '["a", 1, 2]'


@pytest.mark.parametrize(
    ("folders", "said"),
    [(["nowhere"], r"nowhere has no summary\.json and rows\.jsonl"), (["{0}", "{0}"], "two folders have one name")],
)
def test_wrong_folders_are_said(studied: Path, tmp_path: Path, folders: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        calibration.main([*(folder.format(studied) for folder in folders), "--output", str(tmp_path)])
