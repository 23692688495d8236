"""At equal FLOPs, which way of choosing a design gives the best language model, and what does the choice cost?

    python -m studies.baselines --text train.txt.xz --held-out-text valid.txt
    python -m studies.baselines --budgets MeRino-61M --seeds 5 --evaluations 2000

For each budget (the FLOPs of a published design, widths divided by `--scale`): the proven optimum of entropy and of LTS (shared
weights counted once, and at every application), the best that the paper's evolutionary algorithm finds for DSS-score and NTK
condition number, naive scaling of depth and of width, the published design, and a GPT-2-like one that shares no weights; with
`--calibrated` the optima of the calibrated entropies too. All are trained on equal tokens; one budget is complete before the next
begins. Writes searches.jsonl, rows.jsonl (no search and no run is repeated), summary.json, baselines.png and search_cost.png;
budgets run one after another add up.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formulation import PUBLISHED, Architecture, DesignProblem, Quantity, fingerprint
from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import text_table
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.reading import chosen
from formulation.records.rows import Row
from hardware_models import BlackBox
from studies.calibration.data import FittedEntropies, read_calibration
from studies.proxy_correlation.proxies import (
    DSS,
    ENTROPY,
    LTS,
    LTS_UNROLLED,
    NTK,
    analytic_proxies,
    first_sequences,
    network_proxies,
)
from studies.trained.flags import (
    SMALL_NETWORKS,
    DataOptions,
    PlanOptions,
    WorkerOptions,
    add_data_arguments,
    add_plan_arguments,
    add_worker_arguments,
)
from studies.trained.plan import TRAINING_PACKAGES, TokenData
from studies.trained.runs import prepare, trained, training_plan
from studies.trained.scaled_designs import depth_scaled, scaled_problem, uniform_design, width_scaled
from studies.trained.searches import Searches, design_of
from studies.trained.side_by_side import Candidate, distinct, earlier, figure_of, records_of, table_text


@dataclass(frozen=True)
class BaselinesOptions:
    """What the study was asked for, see --help; ValueError for a number out of range or a design that is not published."""

    budgets: tuple[str, ...]
    scale: int
    evaluations: int
    calibrated: str | None
    search_seed: int
    data: DataOptions
    plan: PlanOptions
    seeds: int
    workers: WorkerOptions

    def __post_init__(self) -> None:
        for name in ("scale", "seeds", "evaluations"):
            positive_integer(name, getattr(self, name))
        for name in self.budgets:
            chosen("published design", name, PUBLISHED)


def objectives(seq_len: int, minibatch: np.ndarray, calibration: FittedEntropies | None) -> dict[str, Quantity]:
    """What is maximized, by name; the separable ones are solved exactly. DSS and NTK look at tokens (B, T)."""
    analytic, networks = analytic_proxies(seq_len), network_proxies(minibatch)
    found: dict[str, Quantity] = {name: analytic[name] for name in (ENTROPY, LTS, LTS_UNROLLED)}
    found |= {name: networks[name] for name in (DSS, NTK)}
    if calibration is not None:
        found |= calibration.entropies
    return found


def candidates(problem: DesignProblem, published: tuple[str, Architecture], searches: list[Row]) -> list[Candidate]:
    """Everyone that takes part at one budget, the optimum of the entropy first, and whether it lies in the space searched.

    Naive scaling leaves the space: its widths, its depths or its sharing are not on the menus.
    """
    designs = [
        Candidate(
            f"{'optimum' if row['status'] == 'optimal' else 'best found'} of {row['objective']}",
            design_of(row),
            {"search_s": row["seconds"], "objective_value": row["value"]},
        )
        for row in searches
    ]
    naive: dict[str, Callable[[DesignProblem], Architecture]] = {
        "deeper": depth_scaled,
        "wider": width_scaled,
        "GPT-2-like, not shared": uniform_design,
    }
    designs += [Candidate(name, make(problem)) for name, make in naive.items()]
    designs.append(Candidate(*published, {"published": True}))
    return [
        dataclasses.replace(one, extra={**one.extra, "in_space": one.architecture in problem.space}) for one in distinct(designs)
    ]


def _minibatch(data: TokenData, sequence: int, threads: int) -> np.ndarray:
    """The first sequences of the training text, as in the correlation study; searches run on as many threads as a training does."""
    import torch

    from merino_net.corpus.data import packed

    torch.set_num_threads(threads)
    return first_sequences(packed(np.load(data.training, mmap_mode="r"), sequence))


def cost_text(searches: list[Row]) -> str:
    """What the searches cost, for people."""
    lines = [
        (row["budget"], row["objective"], row["status"], f"{row['evaluations']:,}", f"{row['seconds']:.2f}") for row in searches
    ]
    return text_table(("budget", "objective", "status", "evaluations", "seconds"), lines, left={0, 1, 2})


def cost_figure(searches: list[Row]) -> Any:
    """Seconds of each search, a dot for each budget, on a logarithmic axis."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["objective"] for row in searches))
    figure = Figure(figsize=(6.5, 0.5 * len(names) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for place, name in enumerate(names):
        own = [row["seconds"] for row in searches if row["objective"] == name]
        axes.plot(own, [place] * len(own), "o", color="#0072B2", alpha=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("search [s]")
    axes.grid(axis="x", alpha=0.3)
    return figure


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(BaselinesOptions, command_line(), arguments)
    calibration = None if options.calibrated is None else read_calibration(Path(options.calibrated))
    folder = output_folder(options.workers.output)
    plan = training_plan(options.plan, evaluations=1)
    data = prepare(options.data, folder)
    minibatch = _minibatch(data, plan.seq_len, options.workers.threads)
    terms = {
        **{name: getattr(options, name) for name in ("scale", "seeds", "evaluations", "search_seed")},
        "calibrated": None if calibration is None else [*map(fingerprint, calibration.entropies.values())],
        "data": data.identity,
        "plan": dataclasses.asdict(plan),
    }
    before = earlier(folder / "summary.json", terms)
    groups: dict[str, list[dict[str, Any]]] = before.get("groups", {})
    searches: list[Row] = before.get("searches", [])
    found = Searches(folder)
    for budget in dict.fromkeys(options.budgets):
        problem, small = scaled_problem(PUBLISHED[budget], options.scale, options.data.vocabulary, plan.seq_len)
        name = f"{budget} / {options.scale}"
        own = []
        for objective, quantity in objectives(plan.seq_len, minibatch, calibration).items():
            wanted = dataclasses.replace(problem, maximize=quantity)
            if isinstance(quantity, BlackBox):
                own.append(found.evolved(wanted, name, objective, minibatch, options.evaluations, options.search_seed))
            else:
                own.append(found.optimum(wanted, name, objective))
        searches = [row for row in searches if row["budget"] != name]
        searches += [{**row, "design": str(design_of(row))} for row in own]
        everyone = candidates(problem, (f"published {name}", small), own)
        title = f"FLOPs of {name}"
        groups[title] = records_of(everyone, trained(everyone, plan, data, options.seeds, options.workers, folder))
        print(f"{title}\n{table_text(groups[title])}\n")
        save_figure(figure_of(groups), folder / "baselines.png")
        save_figure(cost_figure(searches), folder / "search_cost.png")
        write_json(
            folder / "summary.json",
            {
                "groups": groups,
                "searches": searches,
                **terms,
                "provenance": provenance(options.search_seed, TRAINING_PACKAGES),
            },
        )
    print(cost_text(searches))
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("--budgets", nargs="+", default=list(PUBLISHED), metavar="NAME", help="published designs (default: all)")
    parser.add_argument("--scale", type=int, default=4, metavar="N", help="divide all widths by this (default: %(default)s)")
    parser.add_argument(
        "--evaluations",
        type=int,
        default=500,
        metavar="N",
        help="designs that the evolutionary search for DSS and NTK evaluates (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrated", metavar="FILE", help="of studies.calibration: the optima of its entropies take part too (default: none)"
    )
    parser.add_argument("--search-seed", type=int, default=0, metavar="N", help="of the evolutionary search (default: %(default)s)")
    add_data_arguments(parser, vocabulary=1024)
    add_plan_arguments(parser, **SMALL_NETWORKS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)")
    add_worker_arguments(parser, "results/baselines")
    return parser
