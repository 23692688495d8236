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
from typing import Any

from formulation import PUBLISHED, Architecture, Block, EffectiveEntropy
from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.run import command
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from hardware_models import DecoderParams, Params
from studies.trained.flags import SMALL_NETWORKS, add_data_arguments, add_plan_arguments, add_worker_arguments, check_workers
from studies.trained.plan import PACKAGES
from studies.trained.runs import plan_of, prepare, trained
from studies.trained.scaled_designs import problem_of, scaled_width
from studies.trained.searches import Searches, design_of
from studies.trained.side_by_side import Candidate, distinct, earlier, figure_of, records_of, table_text

Group = dict[str, list[Candidate]]
"""Candidates by the title of their comparison; the first of a list is what the others are held against."""


def sharing(options: argparse.Namespace, searches: Searches) -> Group:
    """The optimum of every budget, its layers sharing their weights inside blocks and not: equal FLOPs, fewer parameters."""
    groups: Group = {}
    for name, design in PUBLISHED.items():
        problem, _ = problem_of(design, options.scale, options.vocabulary, options.sequence)
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


def objective(options: argparse.Namespace, searches: Searches) -> Group:
    """The optimum at one budget under the whole objective, without weighting, and without effectiveness either."""
    problem, _ = problem_of(PUBLISHED[options.published], options.scale, options.vocabulary, options.sequence)
    entropies = {
        "effectiveness and weighting": EffectiveEntropy(),
        "effectiveness": EffectiveEntropy(weighting=False),
        "neither": EffectiveEntropy(weighting=False, effectiveness=False),
    }
    budget = f"FLOPs of {options.published} / {options.scale}"
    problems = {name: dataclasses.replace(problem, maximize=one) for name, one in entropies.items()}
    optima = [Candidate(name, design_of(searches.optimum(one, budget, name))) for name, one in problems.items()]
    return {f"objective, {budget}": distinct(optima)}


def wide_deep(options: argparse.Namespace, _: Searches) -> Group:
    """'Wide' (L = 1, E = 256) and 'Deep' (L = 24, E = 64), r = 1, nothing shared: the paper's table 1, the embedding scaled."""

    def design(width: int, depth: int) -> Architecture:
        return Architecture(
            (Block(width, width, depth),), False, scaled_width(768, options.scale), options.vocabulary, options.sequence
        )

    whole, plain = EffectiveEntropy(), EffectiveEntropy(effectiveness=False)
    candidates = []
    for name, one in (("wide", design(256, 1)), ("deep", design(64, 24))):
        gamma = max(whole.effectiveness_of(one))
        candidates.append(Candidate(name, one, {"entropy_without_effectiveness": plain(one), "gamma": gamma}))
    return {"wide against deep": candidates}


PARTS: dict[str, Callable[[argparse.Namespace, Searches], Group]] = {
    "sharing": sharing,
    "objective": objective,
    "wide-deep": wide_deep,
}


def published_sharing() -> dict[str, float]:
    """By how much sharing lowers the published designs' own parameters, by our counts; the paper says 23 % on average."""
    return {name: _saved(design)["params_saved"] for name, design in PUBLISHED.items()}


def text_of(groups: dict[str, list[dict[str, Any]]]) -> str:
    """All comparisons for people."""
    return "\n\n".join(f"{title}\n{table_text(records)}" for title, records in groups.items() if records)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    positive_integer("scale", options.scale)
    positive_integer("seeds", options.seeds)
    check_workers(options)
    chosen("published design", options.published, PUBLISHED)
    folder = output_folder(options.output)
    searches = Searches(folder)
    groups: Group = {}
    for part in dict.fromkeys(options.parts):
        groups |= PARTS[part](options, searches)
    plan = plan_of(options, evaluations=1)
    data = prepare(options, folder)
    everyone: Sequence[Candidate] = [one for candidates in groups.values() for one in candidates]
    rows = trained(everyone, plan, data, options, folder)
    terms = {"scale": options.scale, "seeds": options.seeds, "data": data.identity, "plan": dataclasses.asdict(plan)}
    records = earlier(folder / "summary.json", terms).get("groups", {})
    records |= {title: records_of(candidates, rows) for title, candidates in groups.items()}
    saved = published_sharing()
    print(text_of(records))
    print("sharing lowers the parameters of the published designs by " + ", ".join(f"{100 * one:.0f} %" for one in saved.values()))
    save_figure(figure_of(records), folder / "ablation.png")
    write_json(
        folder / "summary.json",
        {
            "groups": records,
            "published_params_saved": saved,
            **terms,
            "provenance": provenance(0, PACKAGES),
        },
    )
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="what to switch (default: all)")
    parser.add_argument(
        "--published", default="MeRino-61M", metavar="NAME", help="whose FLOPs the objectives get (default: %(default)s)"
    )
    parser.add_argument("--scale", type=int, default=4, metavar="N", help="divide all widths by this (default: %(default)s)")
    add_data_arguments(parser, vocabulary=1024)
    add_plan_arguments(parser, **SMALL_NETWORKS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)")
    add_worker_arguments(parser, "results/ablation")
    return parser
