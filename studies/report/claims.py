"""What the paper claims, what the committed results say of it, and whether the two agree.

A claim is judged by a function of the results alone, so that a new result changes the verdict and no sentence. What is measured
with an error speaks for or against a claim where 95 % of the error does, and else decides nothing (`_together`). Figures of the
paper that are data (latencies, accuracies) are elsewhere: `formulation.published`, `studies.zero_shot.published`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from formulation import PUBLISHED, Architecture, Block, EffectiveEntropy
from formulation.published import PUBLISHED_MS, published_designs
from hardware_models import Flops, Memory, Params
from studies.trained.rank_correlation import holm, with_interval

PROXY_STUDIES = {
    "WikiText-2": "proxy_correlation/wikitext2",
    "PTB": "proxy_correlation/ptb",
    "WikiText-2 with ten times the tokens": "proxy_correlation/wikitext2_10x",
}
"""Folders of the proxy study's results, by the text and what else tells one from another."""


class Verdict(Enum):
    """Whether a claim stands; not decided: what was measured is compatible with it and with its contrary."""

    AGREES = "agrees"
    BY_CONSTRUCTION = "by construction"
    PARTLY = "in part"
    UNDECIDED = "not decided"
    DISAGREES = "does not agree"
    NOT_MEASURED = "not measured yet"


@dataclass(frozen=True)
class Finding:
    """What was measured, at which scale, and the verdict."""

    verdict: Verdict
    measured: str
    scale: str


class Missing(Exception):
    """A result file that a claim needs is not there."""


@dataclass(frozen=True)
class CommittedResults:
    """The committed results below a folder; each file is read when it is asked for."""

    folder: Path

    def __call__(self, *names: str) -> Any:
        path = self.folder.joinpath(*names)
        if not path.is_file():
            raise Missing(str(Path(*names)))
        return json.loads(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        part: the heading under which it stands.
        text: in our words.
        results: the files that it is judged by, below the folder of results; none: it is judged by our counts, here and now.
        judge: from the results to the finding.
    """

    part: str
    text: str
    results: tuple[str, ...]
    judge: Callable[[CommittedResults], Finding]


def _counts(_: CommittedResults) -> Finding:
    designs = PUBLISHED.values()
    params = [Params()(replace(design, shared=shared)) / 1e6 for shared in (True, False) for design in designs]
    flops = [Flops()(design) / 1e9 for design in designs]
    off = max(abs(ours / figure - 1) for ours, figure in zip(flops, (60, 110, 160), strict=True))
    exact = [round(ours) for ours in params] == [52, 61, 64, 59, 79, 100]
    return Finding(
        Verdict.BY_CONSTRUCTION if exact and off < 0.03 else Verdict.PARTLY,
        f"{', '.join(f'{ours:.2f}' for ours in params[:3])} M, unshared {', '.join(f'{ours:.2f}' for ours in params[3:])} M; "
        f"{', '.join(f'{ours:.2f}' for ours in flops)} G (at most {100 * off:.1f} % off)",
        "parameters by the rules of the author's public code, FLOPs by ours, chosen to give these figures",
    )


def _gammas(_: CommittedResults) -> Finding:
    def gamma(width: int, depth: int) -> float:
        return EffectiveEntropy().effectiveness_of(Architecture((Block(width, width, depth),)))[0]

    wide, deep = gamma(256, 1), gamma(64, 24)
    agrees = round(wide, 3) == 0.008 and round(deep, 2) == 0.25
    return Finding(
        Verdict.BY_CONSTRUCTION if agrees else Verdict.DISAGREES,
        f"{wide:.4f} and {deep:.4f}",
        "β = 1/16 and base 2 of the logarithm, chosen to give these figures",
    )


def _optimal(results: CommittedResults) -> Finding:
    record = results("compare_solvers", "published.json")
    losses = [loss["loss"] for loss in record["losses"]]
    alone, with_flops = ([loss["loss"] for loss in record["named"] if ("flops" in loss) is both] for both in (False, True))
    nearest = results("calibration", "calibration.json")["inverse_optimization"]["nearest"]["losses"].values()
    text = (
        f"below the proven optimum at their own FLOPs and parameters by {_percents(losses)}; under the bounds on unshared "
        f"parameters that the author's files are named after (60, 80, 100 M) by {_percents(alone)}, with their FLOPs by "
        f"{_percents(with_flops)}; "
        f"under the setting of ρ, α and β found to bring them nearest by {_percents(nearest)}"
    )
    return Finding(
        Verdict.AGREES if max(nearest) <= 0.01 else Verdict.DISAGREES, text, "full size, our reconstruction of the objective"
    )


def _search_cost(results: CommittedResults) -> Finding:
    rows = [row for row in results("compare_solvers", "summary.json") if row["seconds"] is not None]
    optimum = {row["problem"]: row["objective"] for row in rows if row["solver"] == "dynamic programming"}
    exact = [row["seconds"] for row in rows if row["solver"] == "dynamic programming"]
    evolved = [row for row in rows if row["solver"] == "evolutionary (paper)"]
    shortfall = max(1 - row["objective"] / optimum[row["problem"]] for row in evolved)
    seconds = max(row["seconds"] for row in evolved)
    text = (
        f"the evolutionary algorithm takes up to {seconds:.1f} s and ends up to {100 * shortfall:.1f} % below the optimum, which "
        f"dynamic programming proves in up to {max(exact):.2f} s"
    )
    return Finding(
        Verdict.AGREES if seconds <= 180 else Verdict.DISAGREES, text, "full size, two cores against the paper's Jetson Nano"
    )


def _proxy_studies(results: CommittedResults) -> dict[str, Any]:
    """The summary of each of the proxy studies that was run."""
    found = {}
    for study, folder in PROXY_STUDIES.items():
        with suppress(Missing):
            found[study] = results(folder, "summary.json")
    return found or {"": results(PROXY_STUDIES["WikiText-2"], "summary.json")}  # raises Missing


def _judged_on(studies: Mapping[str, Any]) -> list[str]:
    """The studies that a verdict rests on: those that trained every design of the uniform sample, or all if there is none."""
    whole = [study for study, record in studies.items() if not record["groups"]["uniform"]["not_run"]]
    return whole or list(studies)


def _correlation(results: CommittedResults) -> Finding:
    """Above the printed figure: where the whole bootstrap interval is; below it likewise."""
    studies = _proxy_studies(results)
    judged = _judged_on(studies)
    texts, signs = [], []
    for study, record in studies.items():
        one = record["groups"]["uniform"]["correlations"]["entropy"]
        shown = []
        for name, figure in (("spearman", 0.8), ("kendall", 0.6)):
            low, high = one[f"{name}_interval"]
            shown.append(f"{name.capitalize()} {with_interval(one[name], (low, high), '.2f')}")
            if study in judged:
                signs.append(1 if low > figure else -1 if high < figure else 0)
        texts.append(f"{study}: {', '.join(shown)} ({_designs(record['groups']['uniform'])})")
    return Finding(_together(signs), "; ".join(texts), _proxy_scale(results))


def _designs(group: Mapping[str, Any]) -> str:
    ended = group["designs"] - group["not_run"]
    return f"{ended} designs" if not group["not_run"] else f"{ended} of {group['designs']} designs so far"


def _first(results: CommittedResults) -> Finding:
    """Each difference of Spearman's coefficient over the uniform sample, tested by paired bootstrap, three at a time (Holm)."""
    studies = _proxy_studies(results)
    judged = _judged_on(studies)
    texts, signs = [], []
    for study, record in studies.items():
        own = record["groups"]["uniform"]["correlations"]
        rivals = {name: own[name]["behind_p"] for name in ("LTS", "DSS", "NTK")}
        adjusted = holm(rivals)
        if study in judged:
            signs += [0 if adjusted[name] > 0.05 else 1 if own[name]["behind"] > 0 else -1 for name in rivals]
        shown = []
        for name, one in own.items():
            if name != "entropy" and one["leads"] is not None:
                tested = f", {_p_text(adjusted[name])}" if name in adjusted else ""
                shown.append(f"{name} {with_interval(one['behind'], one['behind_interval'], '+.3f')}{tested}")
        strata = ", ".join(
            f"{name} {_leaders(group['correlations'])}"
            for name, group in record["groups"].items()
            if name != "uniform" and "correlations" in group
        )
        texts.append(f"{study}: entropy's Spearman minus that of {', '.join(shown)}" + (f"; within {strata}" if strata else ""))
    return Finding(_together(signs), "; ".join(texts), _proxy_scale(results))


def _p_text(p: float) -> str:
    """A p-value for people."""
    return f"p {p:.2f}" if p >= 0.01 else "p below 0.01"


def _leaders(correlations: Mapping[str, Any]) -> str:
    """Entropy's coefficient and the highest of the others'."""
    others = {name: one["spearman"] for name, one in correlations.items() if name != "entropy" and one["leads"] is not None}
    best = max(others, key=lambda name: others[name])
    return f"{correlations['entropy']['spearman']:+.2f} (highest other: {best} {others[best]:+.2f})"


def _proxy_scale(results: CommittedResults) -> str:
    studies = _proxy_studies(results)
    plans = [record["plan"] for record in studies.values()]
    tokens = sorted({plan["steps"] * plan["batch"] * plan["seq_len"] for plan in plans})
    vocabulary = next(iter(studies.values()))["data"]["vocabulary"]
    budgets = " and ".join(f"{one / 1e6:.1f}" for one in tokens)
    left = [study for study in PROXY_STUDIES if study not in studies]
    return f"0.3 to 2.3 M parameters, {budgets} M tokens, vocabulary {vocabulary:,}" + (
        f"; not run on {' and '.join(left)}" if left else ""
    )


def _sharing_params(_: CommittedResults) -> Finding:
    saved = [1 - Params()(design) / Params()(replace(design, shared=False)) for design in PUBLISHED.values()]
    mean = fmean(saved)
    return Finding(
        Verdict.AGREES if abs(mean - 0.23) < 0.015 else Verdict.DISAGREES,
        f"{_percents(saved, 0)}, mean {100 * mean:.0f} %",
        "full size, our counts",
    )


def _groups(results: CommittedResults, study: str, start: str) -> dict[str, list[dict[str, Any]]]:
    groups = results(study, "summary.json")["groups"]
    own = {title: records for title, records in groups.items() if title.startswith(start)}
    if not own:
        raise Missing(f"the part {start!r} of {study}")
    return own


def _named(records: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The record whose design goes by this name, perhaps beside others."""
    return next(record for record in records if name in record["design"].split(", "))


_CLEARLY = {-1: "clearly lower", 0: "within the seeds' spread", 1: "clearly higher"}
HARMLESS = 0.01
"""A loss higher by less than this, nat per token, is no harm: 1 % of perplexity."""


def _difference(record: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of `record`'s loss minus the other's, by Student's paired test over seeds; None of fewer than two seeds."""
    pairs = [record["losses"][seed] - other["losses"][seed] for seed in record["losses"] if seed in other["losses"]]
    if len(pairs) < 2:
        return None
    from scipy.stats import t as student

    half = float(student.ppf(0.975, len(pairs) - 1)) * stdev(pairs) / len(pairs) ** 0.5
    return fmean(pairs) - half, fmean(pairs) + half


def _clearly(record: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """−1 where `record` has the lower loss, 1 where the higher, by `_difference`, else 0. A design that diverged has the higher."""
    failed = bool(record.get("diverged")), bool(other.get("diverged"))
    if any(failed):
        return failed[0] - failed[1]
    interval = _difference(record, other)
    return 0 if interval is None else 1 if interval[0] > 0 else -1 if interval[1] < 0 else 0


def _perplexity(record: Mapping[str, Any]) -> str:
    return f"{record['perplexity']:.2f}" if record["perplexity"] is not None else "diverged"


def _sharing_quality(results: CommittedResults) -> Finding:
    """For the claim speaks a difference that is, with its error, below `HARMLESS`; against it one that is clearly above 0."""
    signs, texts = [], []
    for title, records in _groups(results, "ablation", "sharing").items():
        shared, apart = _named(records, "shared"), _named(records, "not shared")
        interval = _difference(shared, apart)
        harmless = interval is not None and interval[1] < HARMLESS
        signs.append(-1 if _clearly(shared, apart) > 0 else 1 if harmless else 0)
        budget, saved = title.removeprefix("sharing, FLOPs of "), shared["params_saved"]
        within = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
        texts.append(
            f"optimum at the FLOPs of {budget}: perplexity {_perplexity(shared)} against {_perplexity(apart)}, loss{within} nat, "
            f"with {100 * saved:.0f} % fewer parameters"
        )
    return Finding(_together(signs), "; ".join(texts), _ablation_scale(results))


def _ablation_scale(results: CommittedResults) -> str:
    record = results("ablation", "summary.json")
    plan, seeds = record["plan"], {len(one["losses"]) for group in record["groups"].values() for one in group}
    least, most = min(seeds), max(seeds)
    told = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    return f"scaled widths, {plan['steps'] * plan['batch'] * plan['seq_len'] / 1e6:.1f} M tokens, {told}"


def _objective_parts(results: CommittedResults) -> Finding:
    (records,) = _groups(results, "ablation", "objective").values()
    names = ("neither", "effectiveness", "effectiveness and weighting")
    chosen = {name: _named(records, name) for name in names}
    texts = [f"{name}: perplexity {_perplexity(one)} ({one['blocks']})" for name, one in chosen.items()]
    signs = [
        -1 if chosen[right] is chosen[left] else -_clearly(chosen[right], chosen[left])  # the same design is no improvement
        for left, right in pairwise(names)
    ]
    return Finding(_together(signs), "; ".join(texts), _ablation_scale(results))


def _wide_deep(results: CommittedResults) -> Finding:
    (records,) = _groups(results, "ablation", "wide").values()
    wide, deep = _named(records, "wide"), _named(records, "deep")
    text = (
        f"perplexity {_perplexity(wide)} and {_perplexity(deep)}; "
        f"entropy {wide['entropy_without_effectiveness']:,.0f} and {deep['entropy_without_effectiveness']:,.0f}, "
        f"effective {wide['entropy']:,.0f} and {deep['entropy']:,.0f}"
    )
    signs = [-_clearly(wide, deep), 1 if wide["entropy"] > deep["entropy"] else -1]
    return Finding(_together(signs), text, _ablation_scale(results))


def _equal_flops(results: CommittedResults) -> Finding:
    """At each budget the optimum is compared with the designs of the space that was searched, and shown against all."""
    groups = results("baselines", "summary.json")["groups"]
    texts, gains, signs = [], [], []
    for title, records in groups.items():
        own = _named(records, "optimum of entropy")
        ranked = sorted(records, key=lambda record: math.inf if record["loss"] is None else record["loss"])
        most = max(record["flops"] for record in records)
        told = []
        for one in ranked:
            notes = [f"at {100 * one['flops'] / most:.0f} % of the FLOPs"] if one["flops"] < 0.9 * most else []
            notes += ["outside the space"] if not one["in_space"] else []
            notes += [] if one is own else [_CLEARLY[_clearly(one, own)]]
            told.append(f"{one['design']} {_perplexity(one)}" + (f" ({', '.join(notes)})" if notes else ""))
        texts.append(f"{title.removeprefix('FLOPs of ')}: {', '.join(told)}")
        against = [_clearly(other, own) for other in records if other is not own and other["in_space"]]
        signs.append(min(against))  # one that is clearly better speaks against it; for it, that all are clearly worse
        published = next((one for one in records if one.get("published")), own)
        if published is not own and not own.get("diverged") and not published.get("diverged"):
            gains.append(f"{100 * (own['perplexity'] / published['perplexity'] - 1):+.1f} % ({_CLEARLY[_clearly(own, published)]})")
    if gains:
        texts.append(f"perplexity of entropy's optimum against the published designs': {', '.join(gains)}")
    scale = (
        "scaled widths, at most equal FLOPs, equal tokens; perplexity, and whether its difference to entropy's is beyond the seeds'"
    )
    return Finding(_together(signs), "; ".join(texts), scale)


def _cheaper_search(results: CommittedResults) -> Finding:
    searches = results("baselines", "summary.json")["searches"]

    def of(name: str) -> tuple[float, float]:
        """Median seconds of a search, and of one evaluation in it."""
        own = [row for row in searches if row["objective"] == name]
        return median(row["seconds"] for row in own), median(
            row["seconds"] / (row.get("scored") or row["evaluations"]) for row in own
        )

    (entropy, _), (_, dss), (ntk, ntk_once) = map(of, ("entropy", "DSS", "NTK"))
    evaluations = max(row["evaluations"] for row in searches if row["objective"] == "NTK")
    text = (
        f"entropy {entropy:.2f} s with a proof; one design's DSS {dss:.2f} s, its NTK {ntk_once:.2f} s, a search of up to "
        f"{evaluations:,} evaluations for NTK {ntk:,.0f} s: {ntk / entropy:,.0f} times as long"
    )
    return Finding(
        Verdict.AGREES if ntk > 24 * entropy else Verdict.DISAGREES,
        text,
        "a quarter of the widths, one core",
    )


def _smaller(_: CommittedResults) -> Finding:
    designs = published_designs()
    params, flops = (1 - cost(designs["MeRino-64M"]) / cost(designs["OPT-350M"]) for cost in (Params(), Flops()))
    fewer = f"{100 * params:.0f} % fewer parameters, {100 * flops:.0f} % fewer FLOPs"
    agrees = abs(params - 0.82) < 0.02 and abs(flops - 0.78) < 0.02
    return Finding(_all_or_some([agrees, abs(params - 0.82) < 0.02 or abs(flops - 0.78) < 0.02]), fewer, "full size, our counts")


def _faster(results: CommittedResults) -> Finding:
    ratio = PUBLISHED_MS["OPT-350M"] / PUBLISHED_MS["MeRino-64M"]
    found = []
    for task in results("net_speed", "summary.json")["tasks"]:
        own = [one["ratio"] for one in task["ratios"] if (one["model"], one["reference"]) == ("MeRino-64M", "OPT-350M")]
        found += [(one, f"{task['part']} {task['work']}".strip() + f", {task['runtime']}") for one in own]
    text = (
        f"{min(found)[0]:.1f} to {max(found)[0]:.1f} times ({min(found)[1]}; {max(found)[1]}); "
        f"the printed milliseconds give {ratio:.1f}, of two networks without their output heads"
    )
    inside = min(found)[0] <= 4.9 <= max(found)[0]
    return Finding(
        Verdict.AGREES if inside and median(one for one, _ in found) > 4.4 else Verdict.PARTLY if inside else Verdict.DISAGREES,
        text,
        "full size, 2 CPU cores; the paper's Jetson Nano is not at hand",
    )


def _faster_than_pythia(_: CommittedResults) -> Finding:
    """The printed latencies, and whether they compare like with like, can be looked at; nothing was measured on that device."""
    ratio = PUBLISHED_MS["Pythia-70M"] / PUBLISHED_MS["MeRino-52M"]
    return Finding(
        Verdict.PARTLY,
        f"the printed milliseconds give {ratio:.1f}; in the author's timing code MeRino and OPT have no output head, and Pythia, "
        "GPT-2 and Cerebras compute all logits",
        "the printed figures",
    )


def _memory(_: CommittedResults) -> Finding:
    design = published_designs()["OPT-125M"]
    least = Memory(128)(design) / 1e6
    most = Memory(128, logits="all", attention="eager")(design) / 1e6
    text = f"{least:,.0f} MB with fused attention and the last logit, {most:,.0f} MB with all logits and attention written out"
    return Finding(
        Verdict.AGREES if most > 1200 else Verdict.DISAGREES,
        text,
        "our memory model in float32: weights, cache and activations, no framework",
    )


def _zero_shot(results: CommittedResults) -> Finding:
    findings = results("zero_shot", "summary.json")["findings"]
    above, compared = findings["above_guessing"].values(), findings["comparisons"]
    worse = sum(one["differs"] and one["difference"] < 0 for one in compared)
    better = sum(one["differs"] and one["difference"] > 0 for one in compared)
    text = (
        f"of {len(compared)} differences of printed averages between a MeRino and a baseline {better} are above their error, "
        f"{worse} below, the others within; of the twelve accuracies {min(above)} to {max(above)} are above guessing"
    )
    verdict = Verdict.AGREES if not worse else Verdict.DISAGREES if worse > better else Verdict.PARTLY
    return Finding(verdict, text, "the printed figures, 95 %")


GPTQ = {"GPTQ INT8": 0.001, "GPTQ INT4": 0.03}
"""Variants of the quantization study that the paper has, and the rise of perplexity that its claim on each allows."""


def _quantized(results: CommittedResults) -> Finding:
    """INT8 may cost a tenth of a percent of perplexity and INT4 three, what a point of accuracy is worth in networks this small."""
    texts, holds = [], []
    for model in results("quantization", "summary.json")["models"]:
        variants = {one["variant"]: one for one in model["variants"]}
        first = model["variants"][0]
        for name, most in GPTQ.items():
            ratios = [
                one["token_perplexity"] / first["texts"][text]["token_perplexity"] - 1
                for text, one in variants[name]["texts"].items()
            ]
            accuracy = ""
            if first["mean_accuracy"] is not None:
                accuracy = f", accuracy {100 * (variants[name]['mean_accuracy'] - first['mean_accuracy']):+.1f} points"
            size = variants[name]["bytes"]["file"] / first["bytes"]["file"]
            texts.append(f"{name}: perplexity {100 * max(ratios):+.2f} %{accuracy}, {100 * size:.0f} % of the file")
            holds.append(max(ratios) <= most)
    return Finding(_all_or_some(holds), "; ".join(texts), "a network trained here")


def _percents(values: Any, digits: int = 1) -> str:
    return ", ".join(f"{100 * value:.{digits}f} %" for value in values)


def _together(signs: Sequence[int]) -> Verdict:
    """Of what speaks for a claim (1), against it (−1), or for neither (0)."""
    if min(signs) > 0:
        return Verdict.AGREES
    if max(signs) > 0:
        return Verdict.PARTLY
    return Verdict.DISAGREES if min(signs) < 0 else Verdict.UNDECIDED


def _all_or_some(holds: Sequence[bool]) -> Verdict:
    return _together([1 if one else -1 for one in holds])


_ABLATION, _BASELINES = ("ablation/summary.json",), ("baselines/summary.json",)
_PROXY = tuple(f"{folder}/summary.json" for folder in PROXY_STUDIES.values())
CLAIMS = (
    Claim(
        "The formulation",
        "MeRino-52M, 61M and 64M have 52, 61 and 64 million parameters (59, 79 and 100 with nothing shared) and 60, 110 and 160 "
        "GFLOPs",
        (),
        _counts,
    ),
    Claim(
        "The formulation", "the depth-to-width ratio γ is 0.008 for one layer 256 wide and 0.25 for 24 layers 64 wide", (), _gammas
    ),
    Claim(
        "The formulation",
        "the published designs are the best under their budgets",
        ("compare_solvers/published.json", "calibration/calibration.json"),
        _optimal,
    ),
    Claim("The formulation", "a search takes 0.05 CPU-hours", ("compare_solvers/summary.json",), _search_cost),
    Claim("The proxy", "entropy ranks trained networks with Spearman above 0.8 and Kendall above 0.6", _PROXY, _correlation),
    Claim("The proxy", "entropy ranks better than LTS, DSS-score and NTK", _PROXY, _first),
    Claim("What each part does", "sharing weights saves 23 % of the parameters on average", (), _sharing_params),
    Claim("What each part does", "sharing does no harm (+0.5 % accuracy)", _ABLATION, _sharing_quality),
    Claim(
        "What each part does", "effectiveness improves the design, and weighting improves it further", _ABLATION, _objective_parts
    ),
    Claim(
        "What each part does", "a wide network beats a deep one of higher entropy, as effective entropy says", _ABLATION, _wide_deep
    ),
    Claim("Against others", "at equal FLOPs the design of most entropy is best", _BASELINES, _equal_flops),
    Claim(
        "Against others", "the search costs a small part of TE-NAS's (0.05 CPU-hours, 1.2 GPU-hours)", _BASELINES, _cheaper_search
    ),
    Claim("Against others", "MeRino-64M has 82 % fewer parameters and 78 % fewer FLOPs than OPT-350M", (), _smaller),
    Claim("On a device", "MeRino-64M is 4.9 times as fast as OPT-350M", ("net_speed/summary.json",), _faster),
    Claim("On a device", "MeRino-52M is 2.0 times as fast as Pythia-70M", (), _faster_than_pythia),
    Claim("On a device", "OPT-125M needs more than 1,200 MB for a query of 128 tokens", (), _memory),
    Claim("On a device", "GPTQ to INT8 keeps the quality, to INT4 costs about 1 %", ("quantization/summary.json",), _quantized),
    Claim(
        "Evaluation", "zero-shot accuracy on a par with networks several times the size", ("zero_shot/summary.json",), _zero_shot
    ),
)
"""In the order of the page."""
