"""The page of claims: judged by the results alone, on the committed ones and on some that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studies.report.claims import CLAIMS, GPTQ, CommittedResults, Verdict
from studies.report.study import main

COMMITTED = Path(__file__).resolve().parents[2] / "studies" / "results"
PLAN = {"steps": 1000, "batch": 8, "seq_len": 128}


def write(folder: Path, name: str, record: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def judged(folder: Path, text: str) -> Any:
    (claim,) = [one for one in CLAIMS if text in one.text]
    return claim.judge(CommittedResults(folder))


def test_the_committed_results_can_all_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(COMMITTED), "--output", str(tmp_path)]) == 0
    markdown, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for claim in CLAIMS:
        assert claim.text in markdown
    assert markdown.count("\n| ") - 2 * markdown.count("\n| :-- |") == len(CLAIMS)
    assert page.startswith("<!doctype html>")
    assert page.count("<tr style=") == len(CLAIMS)
    assert "`python -m studies.compare_solvers" in markdown
    assert f"{len(CLAIMS)} claims: agrees " in capsys.readouterr().out


def test_without_results_the_counts_are_still_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert main(["--results", str(tmp_path / "none"), "--output", str(tmp_path)]) == 0
    unmeasured = sum(bool(claim.results) for claim in CLAIMS)
    assert f"not measured yet {unmeasured}" in capsys.readouterr().out


def test_the_counts_are_the_printed_ones(tmp_path: Path) -> None:
    found = judged(tmp_path, "52, 61 and 64 million parameters")
    assert found.verdict is Verdict.BY_CONSTRUCTION
    assert found.measured.startswith("52.08, 61.01, 63.79 M, unshared 59.28, 78.74, 99.70 M; 59.96, 107.31, 163.04 G")


def correlations(entropy: float, lts: float, not_run: int = 0) -> dict[str, Any]:
    """A summary whose intervals are ±0.05, and that distinguishes two coefficients from 0.06 on."""

    def one(value: float) -> dict[str, Any]:
        behind = entropy - value
        kendall = value - 0.2
        intervals = {"spearman_interval": [value - 0.05, value + 0.05], "kendall_interval": [kendall - 0.05, kendall + 0.05]}
        apart = {
            "behind": behind,
            "behind_interval": [behind - 0.06, behind + 0.06],
            "behind_p": 0.01 if abs(behind) > 0.06 else 0.5,
        }
        return {"spearman": value, "kendall": kendall, "designs": 81 - not_run, "leads": 0.25, **intervals, **apart}

    proxies = {"entropy": one(entropy), "LTS": one(lts), "DSS": one(0.2), "NTK": one(0.1)}
    group = {"designs": 81, "not_run": not_run, "correlations": proxies}
    return {"groups": {"uniform": group, "equal FLOPs": group}, "plan": PLAN, "data": {"vocabulary": 1024}}


@pytest.mark.parametrize(
    ("wikitext", "ptb", "value", "first"),
    [
        ((0.9, 0.8), (0.86, 0.75), Verdict.AGREES, Verdict.AGREES),
        ((0.9, 0.8), (0.7, 0.68), Verdict.PARTLY, Verdict.PARTLY),  # on the second text not told from LTS
        ((0.5, 0.8), (0.5, 0.8), Verdict.DISAGREES, Verdict.PARTLY),  # worse than LTS, better than the others
        ((0.81, 0.8), (0.79, 0.8), Verdict.UNDECIDED, Verdict.PARTLY),  # the printed figures lie within the intervals
    ],
)
def test_the_proxy_is_judged_on_both_texts(
    tmp_path: Path, wikitext: tuple[float, float], ptb: tuple[float, float], value: Verdict, first: Verdict
) -> None:
    write(tmp_path, "proxy_correlation/wikitext2/summary.json", correlations(*wikitext))
    alone = judged(tmp_path, "entropy ranks trained networks")
    assert "1.0 M tokens, vocabulary 1,024; not run on PTB and WikiText-2 with ten times the tokens" in alone.scale
    write(tmp_path, "proxy_correlation/ptb/summary.json", correlations(*ptb))
    found = judged(tmp_path, "entropy ranks trained networks")
    assert found.verdict is value
    assert f"WikiText-2: Spearman {wikitext[0]:.2f}" in found.measured
    assert "PTB" not in found.scale
    better = judged(tmp_path, "better than LTS")
    assert better.verdict is first
    assert f"LTS {wikitext[0] - wikitext[1]:+.3f} [" in better.measured
    assert "within equal FLOPs" in better.measured


def test_a_proxy_that_others_clearly_lead_does_not_agree(tmp_path: Path) -> None:
    write(tmp_path, "proxy_correlation/wikitext2/summary.json", correlations(0.0, 0.8))
    assert judged(tmp_path, "better than LTS").verdict is Verdict.DISAGREES


def test_three_rivals_are_tested_together(tmp_path: Path) -> None:
    record = correlations(0.0, 0.8)
    for one in record["groups"]["uniform"]["correlations"].values():
        one["behind_p"] = 0.04  # of three such differences none is told from 0
    write(tmp_path, "proxy_correlation/wikitext2/summary.json", record)
    found = judged(tmp_path, "better than LTS")
    assert found.verdict is Verdict.UNDECIDED
    assert found.measured.count("p 0.12") == 3


def test_half_a_text_decides_nothing_beside_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path, "proxy_correlation/wikitext2/summary.json", correlations(0.9, 0.8))
    write(tmp_path, "proxy_correlation/ptb/summary.json", correlations(0.5, 0.8, not_run=40))
    found = judged(tmp_path, "entropy ranks trained networks")
    assert found.verdict is Verdict.AGREES
    assert "PTB: Spearman 0.50 [0.45, 0.55], Kendall 0.30 [0.25, 0.35] (41 of 81 designs so far)" in found.measured
    assert judged(tmp_path, "better than LTS").verdict is Verdict.AGREES


def test_more_tokens_are_a_study_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "proxy_correlation/wikitext2/summary.json", correlations(0.7, 0.8))
    longer = correlations(0.9, 0.8)
    write(tmp_path, "proxy_correlation/wikitext2_10x/summary.json", {**longer, "plan": {**PLAN, "batch": 10 * PLAN["batch"]}})
    found = judged(tmp_path, "entropy ranks trained networks")
    assert found.verdict is Verdict.PARTLY
    assert "WikiText-2 with ten times the tokens: Spearman 0.90" in found.measured
    assert "1.0 and 10.2 M tokens" in found.scale


def trained(name: str, losses: tuple[float, ...], **extra: Any) -> dict[str, Any]:
    return {
        "design": name,
        "blocks": name,
        "losses": {str(seed): loss for seed, loss in enumerate(losses)},
        "loss": losses[0],
        "perplexity": 40.0 + losses[0],
        "flops": 100.0,
        "in_space": True,
        **extra,
    }


@pytest.mark.parametrize(
    ("shared", "verdict"),
    [
        ((4.001, 4.1, 4.199), Verdict.AGREES),  # alike to within less than 1 % of perplexity
        ((4.0, 4.15, 4.22), Verdict.UNDECIDED),  # higher in the mean, and no more than that
        ((4.1, 4.2, 4.31), Verdict.DISAGREES),
        ((4.0,), Verdict.UNDECIDED),  # one seed says nothing
    ],
)
def test_no_harm_has_to_be_shown(tmp_path: Path, shared: tuple[float, ...], verdict: Verdict) -> None:
    records = [trained("shared", shared, params_saved=0.2), trained("not shared", (4.0, 4.1, 4.2))]
    write(tmp_path, "ablation/summary.json", {"groups": {"sharing, FLOPs of MeRino-52M / 4": records}, "plan": PLAN})
    found = judged(tmp_path, "sharing does no harm")
    assert found.verdict is verdict
    assert "20 % fewer parameters" in found.measured
    assert found.scale.endswith("tokens, 3 seeds" if len(shared) == 3 else "tokens, 1 to 3 seeds")


def test_at_equal_flops_every_other_design_is_held_against_the_optimum(tmp_path: Path) -> None:
    own, lts = trained("optimum of entropy", (4.0, 4.1)), trained("optimum of LTS", (4.5, 4.601))

    def judge(*others: dict[str, Any]) -> Any:
        write(tmp_path, "baselines/summary.json", {"groups": {"FLOPs of MeRino-52M / 4": [own, *others]}})
        return judged(tmp_path, "at equal FLOPs")

    better = trained("deeper", (3.5, 3.601))
    assert judge(lts, better).verdict is Verdict.DISAGREES
    assert judge(lts, trained("deeper", (3.5, 4.5))).verdict is Verdict.UNDECIDED  # better in the mean, and no more than that
    found = judge(lts, {**better, "in_space": False})
    assert found.verdict is Verdict.AGREES
    assert "deeper 43.50 (outside the space, clearly lower)" in found.measured
    published = trained("published MeRino-52M / 4", (4.2, 4.301), published=True)
    calibrated = trained("optimum of entropy nearest to the published designs", (4.3, 4.401))
    found = judge({**lts, "flops": 60.0}, calibrated, published)
    assert found.verdict is Verdict.AGREES
    assert "optimum of LTS 44.50 (at 60 % of the FLOPs, clearly higher)" in found.measured
    assert "against the published designs': -0.5 % (clearly lower)" in found.measured
    gone = {**trained("wider", (4.0,)), "losses": {}, "loss": None, "perplexity": None, "diverged": 2}
    found = judge(lts, gone)
    assert found.verdict is Verdict.AGREES
    assert "wider diverged (clearly higher)" in found.measured


@pytest.mark.parametrize(
    ("wide", "entropy", "verdict"),
    [
        ((4.0, 4.1), 2.0, Verdict.AGREES),
        ((4.0, 4.1), 1.0, Verdict.PARTLY),  # better, against what effective entropy says
        ((4.5, 4.7), 2.0, Verdict.PARTLY),  # not clearly better, as effective entropy says
        ((4.6, 4.7), 1.0, Verdict.DISAGREES),
    ],
)
def test_wide_against_deep(tmp_path: Path, wide: tuple[float, ...], entropy: float, verdict: Verdict) -> None:
    own, other = ({"entropy": one, "entropy_without_effectiveness": 2.0} for one in (entropy, 1.5))
    records = [trained("wide", wide, **own), trained("deep", (4.5, 4.601), **other)]
    write(tmp_path, "ablation/summary.json", {"groups": {"wide against deep": records}, "plan": PLAN})
    assert judged(tmp_path, "a wide network beats").verdict is verdict


def test_the_parts_of_the_objective(tmp_path: Path) -> None:
    def verdict(*records: dict[str, Any]) -> Verdict:
        write(tmp_path, "ablation/summary.json", {"groups": {"objective, FLOPs of MeRino-61M / 4": records}, "plan": PLAN})
        found = judged(tmp_path, "effectiveness improves")
        assert found.measured.count("perplexity") == 3
        return found.verdict

    whole, one, none = trained("effectiveness and weighting", (4.0, 4.1)), trained("effectiveness", (4.2, 4.3)), (4.4, 4.5)
    assert verdict(whole, one, trained("neither", none)) is Verdict.AGREES
    assert verdict(whole, trained("effectiveness, neither", none)) is Verdict.PARTLY  # the same design: no improvement
    assert verdict(trained("effectiveness and weighting, effectiveness, neither", none)) is Verdict.DISAGREES


@pytest.mark.parametrize(("ntk", "verdict"), [(100.0, Verdict.AGREES), (20.0, Verdict.DISAGREES)])
def test_the_cost_of_a_search(tmp_path: Path, ntk: float, verdict: Verdict) -> None:
    seconds = {"entropy": (1.0, 1), "DSS": (10.0, 500), "NTK": (ntk, 500)}
    searches = [{"objective": name, "seconds": one, "evaluations": count} for name, (one, count) in seconds.items()]
    searches[-1]["scored"] = 400
    write(tmp_path, "baselines/summary.json", {"searches": searches})
    found = judged(tmp_path, "a small part of TE-NAS's")
    assert found.verdict is verdict
    assert (
        f"one design's DSS 0.02 s, its NTK {ntk / 400:.2f} s, a search of up to 500 evaluations for NTK {ntk:.0f} s"
        in found.measured
    )


@pytest.mark.parametrize(
    ("ratios", "verdict"), [((4.8, 5.0), Verdict.AGREES), ((2.0, 5.0), Verdict.PARTLY), ((2.0, 3.0), Verdict.DISAGREES)]
)
def test_the_speed(tmp_path: Path, ratios: tuple[float, ...], verdict: Verdict) -> None:
    tasks = [
        {
            "part": "prefill",
            "work": "128 tokens",
            "runtime": runtime,
            "ratios": [{"model": "MeRino-64M", "reference": "OPT-350M", "ratio": one}],
        }
        for runtime, one in zip(("torch", "openvino"), ratios, strict=True)
    ]
    write(tmp_path, "net_speed/summary.json", {"tasks": tasks})
    found = judged(tmp_path, "4.9 times as fast")
    assert found.verdict is verdict
    assert "the printed milliseconds give 4.9" in found.measured


def test_the_memory_of_a_query_is_counted_here_and_now(tmp_path: Path) -> None:
    found = judged(tmp_path, "more than 1,200 MB")
    assert found.verdict is Verdict.DISAGREES
    assert found.measured.endswith("MB with all logits and attention written out")


@pytest.mark.parametrize(
    ("signs", "verdict"),
    [((1, 0), Verdict.AGREES), ((-1, 1), Verdict.PARTLY), ((-1, -1), Verdict.DISAGREES)],
)
def test_zero_shot_is_judged_by_the_clear_differences(tmp_path: Path, signs: tuple[int, ...], verdict: Verdict) -> None:
    comparisons = [{"differs": sign != 0, "difference": 1.0 * sign} for sign in signs]
    write(tmp_path, "zero_shot/summary.json", {"findings": {"above_guessing": {"MeRino-64M": 5}, "comparisons": comparisons}})
    assert judged(tmp_path, "zero-shot accuracy").verdict is verdict


def test_quantization_is_judged_by_perplexity(tmp_path: Path) -> None:
    def variant(name: str, perplexity: float) -> dict[str, Any]:
        return {"variant": name, "texts": {"a": {"token_perplexity": perplexity}}, "mean_accuracy": 0.38, "bytes": {"file": 100}}

    for int4, verdict in ((40.5, Verdict.AGREES), (44.0, Verdict.PARTLY)):
        variants = [variant("float32", 40.0), variant("GPTQ INT8", 40.01), variant("GPTQ INT4", int4)]
        write(tmp_path, "quantization/summary.json", {"models": [{"variants": variants}]})
        assert judged(tmp_path, "GPTQ").verdict is verdict


def test_quantization_is_looked_up_by_the_names_of_the_study() -> None:
    from studies.quantization.variants import variants_of

    assert set(GPTQ) <= {variant.name for variant in variants_of(("gptq",), None)}


def test_damaged_results_are_said_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "ablation/summary.json", {"published": {}})
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "page")]) == 0
    assert "the results of ablation/summary.json lack 'groups'" in (tmp_path / "page" / "report.md").read_text()
    (tmp_path / "ablation" / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"ablation/summary\.json.*JSONDecodeError: "):
        main(["--results", str(tmp_path), "--output", str(tmp_path / "page")])
    with pytest.raises(ValueError, match=r"there is no folder .*; expected one with a folder for each study"):
        main(["--results", str(tmp_path / "nowhere"), "--output", str(tmp_path / "page")])
