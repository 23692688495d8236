"""What does each part of the method do? Sharing, effectiveness, weighting, and wide against deep: each switched, and trained.

    python -m studies.ablation --text train.txt.xz --held-out-text valid.txt
    python -m studies.ablation --parts sharing wide-deep --seeds 5

The parts (the first two with widths divided by `--scale`, at the FLOPs of the scaled published designs):

    sharing      the optimum of each budget with the layers of a block sharing their weights, and with none shared
    objective    the optimum of one budget under entropy alone, with effectiveness, and with effectiveness and weighting
    wide-deep    one wide layer against 24 narrow ones, the paper's example (its table 1)

Writes searches.jsonl, rows.jsonl (no search and no run is repeated), summary.json and ablation.png; parts run one after another
add up.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from formulation import PUBLISHED, Architecture, Block, DesignProblem, EffectiveEntropy
from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from hardware_models import DecoderParams, Params
from studies.trained.flags import (
    SMALL_NETWORKS,
    DataOptions,
    PlanOptions,
    WorkerOptions,
    add_data_arguments,
    add_plan_arguments,
    add_worker_arguments,
)
from studies.trained.plan import TRAINING_PACKAGES
from studies.trained.runs import prepare, trained, training_plan
from studies.trained.scaled_designs import scaled_problem, scaled_width
from studies.trained.searches import Searches, design_of
from studies.trained.side_by_side import Candidate, distinct, earlier, figure_of, records_of, table_text

Comparisons = dict[str, list[Candidate]]
"""Candidates by the title of their comparison; the first of a list is what the others are compared with."""


@dataclass(frozen=True)
class AblationOptions:
    """What the study was asked for, see --help; ValueError for a number out of range or a design that is not published."""

    parts: tuple[str, ...]
    published: str
    scale: int
    data: DataOptions
    plan: PlanOptions
    seeds: int
    workers: WorkerOptions

    def __post_init__(self) -> None:
        positive_integer("scale", self.scale)
        positive_integer("seeds", self.seeds)
        chosen("published design", self.published, PUBLISHED)

    def problem(self, design: Architecture) -> DesignProblem:
        """The scaled problem under the FLOPs of a published design."""
        return scaled_problem(design, self.scale, self.data.vocabulary, self.plan.sequence)[0]


def sharing(options: AblationOptions, searches: Searches) -> Comparisons:
    """The optimum of every budget, its layers sharing their weights inside blocks and not: equal FLOPs, fewer parameters."""
    groups: Comparisons = {}
    for name, design in PUBLISHED.items():
        problem = options.problem(design)
        budget = f"FLOPs of {name} / {options.scale}"
        best = design_of(searches.optimum(problem, budget, "entropy"))
        apart = dataclasses.replace(best, shared=False)
        title = f"sharing, {budget}"
        groups[title] = [Candidate("shared", best, _saved(best)), Candidate("not shared", apart, _saved(apart))]
    return groups


def _saved(design: Architecture) -> dict[str, float]:
    """Parameters between embedding and head, and by how much sharing lowers all of them."""
    apart = dataclasses.replace(design, shared=False)
    return {"decoder_params": DecoderParams()(design), "params_saved": 1 - Params()(design) / Params()(apart)}


def objective(options: AblationOptions, searches: Searches) -> Comparisons:
    """The optimum at one budget under the whole objective, without weighting, and without effectiveness either."""
    problem = options.problem(PUBLISHED[options.published])
    entropies = {
        "effectiveness and weighting": EffectiveEntropy(),
        "effectiveness": EffectiveEntropy(weighting=False),
        "neither": EffectiveEntropy(weighting=False, effectiveness=False),
    }
    budget = f"FLOPs of {options.published} / {options.scale}"
    problems = {name: dataclasses.replace(problem, maximize=one) for name, one in entropies.items()}
    optima = [Candidate(name, design_of(searches.optimum(one, budget, name))) for name, one in problems.items()]
    return {f"objective, {budget}": distinct(optima)}


def wide_deep(options: AblationOptions, _: Searches) -> Comparisons:
    """'Wide' (L = 1, E = 256) and 'Deep' (L = 24, E = 64), r = 1, nothing shared: the paper's table 1, the embedding scaled."""

    def design(width: int, depth: int) -> Architecture:
        embedding = scaled_width(768, options.scale)
        return Architecture((Block(width, width, depth),), False, embedding, options.data.vocabulary, options.plan.sequence)

    whole, plain = EffectiveEntropy(), EffectiveEntropy(effectiveness=False)
    candidates = []
    for name, one in (("wide", design(256, 1)), ("deep", design(64, 24))):
        gamma = max(whole.effectiveness_of(one))
        candidates.append(Candidate(name, one, {"entropy_without_effectiveness": plain(one), "gamma": gamma}))
    return {"wide against deep": candidates}


_PARTS: dict[str, Callable[[AblationOptions, Searches], Comparisons]] = {
    "sharing": sharing,
    "objective": objective,
    "wide-deep": wide_deep,
}


def published_sharing() -> dict[str, float]:
    """By how much sharing lowers the published designs' own parameters, by our counts; the paper says 23 % on average."""
    return {name: _saved(design)["params_saved"] for name, design in PUBLISHED.items()}


def _text(groups: dict[str, list[dict[str, Any]]]) -> str:
    """All comparisons for people."""
    return "\n\n".join(f"{title}\n{table_text(records)}" for title, records in groups.items() if records)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(AblationOptions, command_line(), arguments)
    folder = output_folder(options.workers.output)
    searches = Searches(folder)
    groups: Comparisons = {}
    for part in dict.fromkeys(options.parts):
        groups |= _PARTS[part](options, searches)
    plan = training_plan(options.plan, evaluations=1)
    data = prepare(options.data, folder)
    everyone: Sequence[Candidate] = [one for candidates in groups.values() for one in candidates]
    rows = trained(everyone, plan, data, options.seeds, options.workers, folder)
    terms = {"scale": options.scale, "seeds": options.seeds, "data": data.identity, "plan": dataclasses.asdict(plan)}
    records = earlier(folder / "summary.json", terms).get("groups", {})
    records |= {title: records_of(candidates, rows) for title, candidates in groups.items()}
    saved = published_sharing()
    print(_text(records))
    print("sharing lowers the parameters of the published designs by " + ", ".join(f"{100 * one:.0f} %" for one in saved.values()))
    save_figure(figure_of(records), folder / "ablation.png")
    write_json(
        folder / "summary.json",
        {
            "groups": records,
            "published_params_saved": saved,
            **terms,
            "provenance": provenance(0, TRAINING_PACKAGES),
        },
    )
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--parts", nargs="+", choices=tuple(_PARTS), default=list(_PARTS), help="what to switch (default: all)")
    parser.add_argument(
        "--published", default="MeRino-61M", metavar="NAME", help="whose FLOPs the objectives get (default: %(default)s)"
    )
    parser.add_argument("--scale", type=int, default=4, metavar="N", help="divide all widths by this (default: %(default)s)")
    add_data_arguments(parser, vocabulary=1024)
    add_plan_arguments(parser, **SMALL_NETWORKS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)")
    add_worker_arguments(parser, "results/ablation")
    return parser
