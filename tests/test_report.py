"""The page of claims: judged by the results alone, on the committed ones and on some that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studies.report import main
from studies.report_claims import CLAIMS, Results, Verdict

COMMITTED = Path(__file__).resolve().parent.parent / "studies" / "results"


def write(folder: Path, name: str, record: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def judged(folder: Path, text: str) -> Any:
    (claim,) = [one for one in CLAIMS if text in one.text]
    return claim.judge(Results(folder))


def test_the_committed_results_can_all_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(COMMITTED), "--output", str(tmp_path)]) == 0
    markdown, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for claim in CLAIMS:
        assert claim.text in markdown
    assert markdown.count("\n| ") - 2 * markdown.count("\n| :-- |") == len(CLAIMS)
    assert page.startswith("<!doctype html>")
    assert page.count("<tr style=") == len(CLAIMS)
    assert "`python -m studies.compare_solvers" in markdown
    assert f"Of {len(CLAIMS)} claims: " in capsys.readouterr().out


def test_without_results_the_counts_are_still_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert main(["--results", str(tmp_path / "none"), "--output", str(tmp_path)]) == 0
    unmeasured = sum(bool(claim.results) for claim in CLAIMS)
    assert f"{unmeasured} not measured yet" in capsys.readouterr().out


def correlations(entropy: float, lts: float) -> dict[str, Any]:
    def one(value: float) -> dict[str, Any]:
        return {"spearman": value, "kendall": value - 0.2, "spearman_interval": [value - 0.1, value + 0.1], "designs": 81}

    group = {"correlations": {"entropy": one(entropy), "LTS": one(lts), "DSS": one(0.2), "NTK": one(0.1)}}
    plan = {"steps": 1000, "batch": 8, "seq_len": 128}
    return {"groups": {"uniform": group, "equal FLOPs": group}, "plan": plan, "data": {"vocabulary": 1024}}


@pytest.mark.parametrize(
    ("wikitext", "ptb", "value", "first"),
    [
        ((0.9, 0.8), (0.85, 0.8), Verdict.AGREES, Verdict.AGREES),
        ((0.9, 0.8), (0.7, 0.8), Verdict.PARTLY, Verdict.PARTLY),
        ((0.5, 0.8), (0.7, 0.8), Verdict.DISAGREES, Verdict.DISAGREES),
    ],
)
def test_the_proxy_is_judged_on_both_texts(
    tmp_path: Path, wikitext: tuple[float, float], ptb: tuple[float, float], value: Verdict, first: Verdict
) -> None:
    write(tmp_path, "proxy_correlation_wikitext2/summary.json", correlations(*wikitext))
    write(tmp_path, "proxy_correlation_ptb/summary.json", correlations(*ptb))
    found = judged(tmp_path, "entropy ranks trained networks")
    assert found.verdict is value
    assert f"WikiText-2: Spearman {wikitext[0]:.2f}" in found.measured
    assert judged(tmp_path, "better than LTS").verdict is first


def trained(name: str, losses: tuple[float, ...], **extra: Any) -> dict[str, Any]:
    return {
        "design": name,
        "blocks": name,
        "losses": {str(seed): loss for seed, loss in enumerate(losses)},
        "loss": losses[0],
        "perplexity": 40.0 + losses[0],
        **extra,
    }


@pytest.mark.parametrize(
    ("shared", "verdict"),
    [((4.0, 4.1, 4.2), Verdict.AGREES), ((4.0, 4.15, 4.22), Verdict.AGREES), ((4.1, 4.2, 4.31), Verdict.DISAGREES)],
)
def test_a_difference_within_its_error_over_seeds_is_no_harm(tmp_path: Path, shared: tuple[float, ...], verdict: Verdict) -> None:
    records = [trained("shared", shared, params_saved=0.2), trained("not shared", (4.0, 4.1, 4.2))]
    plan = {"steps": 1000, "batch": 8, "seq_len": 128}
    write(tmp_path, "ablation/summary.json", {"groups": {"sharing, FLOPs of MeRino-52M / 4": records}, "plan": plan})
    found = judged(tmp_path, "sharing does no harm")
    assert found.verdict is verdict
    assert "20 % fewer parameters" in found.measured


def test_at_equal_flops_every_other_design_is_held_against_the_optimum(tmp_path: Path) -> None:
    group = [trained("optimum of entropy", (4.0, 4.1)), trained("optimum of LTS", (4.5, 4.6)), trained("deeper", (3.5, 3.6))]
    write(tmp_path, "baselines/summary.json", {"groups": {"FLOPs of MeRino-52M / 4": group}})
    assert judged(tmp_path, "at equal FLOPs").verdict is Verdict.DISAGREES
    noisy = [group[0], group[1], trained("deeper", (3.5, 4.5))]  # better in the mean, and no more than that
    write(tmp_path, "baselines/summary.json", {"groups": {"FLOPs of MeRino-52M / 4": noisy}})
    assert judged(tmp_path, "at equal FLOPs").verdict is Verdict.PARTLY
    write(tmp_path, "baselines/summary.json", {"groups": {"FLOPs of MeRino-52M / 4": group[:2]}})
    assert judged(tmp_path, "at equal FLOPs").verdict is Verdict.AGREES


def test_quantization_is_judged_by_perplexity(tmp_path: Path) -> None:
    def variant(name: str, perplexity: float) -> dict[str, Any]:
        return {"variant": name, "texts": {"a": {"token_perplexity": perplexity}}, "mean_accuracy": 0.38, "bytes": {"file": 100}}

    for int4, verdict in ((40.5, Verdict.AGREES), (44.0, Verdict.PARTLY)):
        variants = [variant("float32", 40.0), variant("gptq-int8", 40.01), variant("gptq-int4", int4)]
        write(tmp_path, "quantization/summary.json", {"models": [{"variants": variants}]})
        assert judged(tmp_path, "GPTQ").verdict is verdict


def test_damaged_results_are_said_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "ablation/summary.json", {"groups": {"sharing": [], "objective": [], "wide": []}})
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "page")]) == 0
    assert "the results of ablation/summary.json lack 'published_params_saved'" in (tmp_path / "page" / "report.md").read_text()
    (tmp_path / "ablation" / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"results of ablation/summary\.json cannot be read \(JSONDecodeError: .*make them again"):
        main(["--results", str(tmp_path), "--output", str(tmp_path / "page")])
    with pytest.raises(ValueError, match=r"there is no folder .*; expected one with a folder for each study"):
        main(["--results", str(tmp_path / "nowhere"), "--output", str(tmp_path / "page")])
