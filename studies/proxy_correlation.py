"""Do training-free proxies rank designs as training does? Many designs trained on equal terms, and every proxy's rank correlation.

    python -m studies.proxy_correlation --text wiki.train.txt.xz --held-out-text wiki.valid.txt --output results/proxy_wikitext2
    python -m studies.proxy_correlation --designs 20 --stratum 0 --steps 200          Python's documentation, minutes
    python -m studies.proxy_correlation ... --no-training                             tables and figures of what has been trained

The designs are a uniform sample of a scaled-down space and two strata, in which FLOPs or parameters are equal (see
`studies.proxy_sample`). The entropy's parameters are the defaults, fixed before any training. Writes rows.jsonl (a finished run is
never run twice), the proxies' values, summary.json, scatter.png and correlation.png. What did not run is reported as not run.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formulation import Architecture, EffectiveEntropy, Quantity
from formulation.architecture import positive_integer
from formulation.report import command_parser, counted, output_folder, provenance, run_command, save_figure, text_table, write_json
from formulation.rows import Row, RowFile
from hardware_models import BlackBox
from studies.bigram import counted_losses
from studies.calibration_data import read_calibration
from studies.proxies import ENTROPY, MINIBATCH, analytic_proxies, network_proxies
from studies.proxy_figures import correlation_figure, scatter_figure
from studies.proxy_sample import UNIFORM, sampled, scaled_space
from studies.rank_correlation import RESAMPLES, kendall, rank_correlations, spearman
from studies.training_runs import (
    PACKAGES,
    SMALL_NETWORKS,
    Run,
    TokenData,
    add_data_arguments,
    add_plan_arguments,
    add_worker_arguments,
    check_workers,
    finished,
    introduce,
    plan_of,
    prepare,
    run_key,
    seeded,
)

BUDGETS = {"half": 0.5, "full": 1.0, "double": 2.0, "fourfold": 4.0}
"""Token budgets by name, as shares of the full one."""


@dataclass(frozen=True)
class PlannedRuns:
    """What is to be trained: designs by group, and the runs, each under the part of the study that asks for it.

    budgets   runs of the first designs of the sample with fewer and more steps, by the budget's name
    repeats   runs of the first designs with a second seed
    """

    groups: dict[str, list[Architecture]]
    main: dict[Architecture, Run]
    budgets: dict[str, dict[Architecture, Run]]
    repeats: dict[Architecture, Run]

    @property
    def runs(self) -> list[Run]:
        """All of them in the order in which they are trained."""
        others = [run for group in (*self.budgets.values(), self.repeats) for run in group.values()]
        return [*self.main.values(), *others]


def plan_runs(options: argparse.Namespace, data: TokenData, folder: Path) -> PlannedRuns:
    """The runs that the flags ask for."""
    plan = plan_of(options, evaluations=1)
    space = scaled_space(options.vocabulary, options.sequence)
    groups = sampled(space, options.designs, options.stratum, options.sequence, options.sample_seed)

    def run(label: str, design: Architecture, share: float = 1.0, seed: int = 0) -> Run:
        scaled = argparse.Namespace(**{**vars(options), "steps": round(options.steps * share)})
        own = plan if share == 1 else plan_of(scaled, evaluations=1)
        return Run(label, design, seeded(own, seed), data, options.threads, str(folder.resolve() / "runs"))

    main: dict[Architecture, Run] = {}
    for name, designs in groups.items():
        for number, design in enumerate(designs):
            main.setdefault(design, run(f"{name} {number:02d}", design))
    first = groups[UNIFORM]
    budgets = {
        name: {design: run(f"{main[design].label}, {name} budget", design, BUDGETS[name]) for design in first[: options.budgets]}
        for name in options.other_budgets
    }
    repeats = {design: run(f"{main[design].label}, again", design, seed=1) for design in first[: options.repeats]}
    return PlannedRuns(groups, main, budgets, repeats)


def calibrated(path: Path | None, data: TokenData) -> dict[str, Quantity]:
    """The entropies of a calibration file that were fitted on other texts than this one; ValueError where it is none."""
    if path is None:
        return {}
    return {
        f"entropy fitted on {corpus}": setting.entropy
        for corpus, (setting, text_sha256) in read_calibration(path).fits.items()
        if text_sha256 != data.identity["text_sha256"]
    }


def proxy_values(designs: Sequence[Architecture], proxies: dict[str, Quantity], jobs: int) -> dict[str, np.ndarray]:
    """Every proxy's value of every design; those of real networks in `jobs` processes at a time."""
    return {
        name: quantity.values(designs, jobs) if isinstance(quantity, BlackBox) else np.array([quantity(one) for one in designs])
        for name, quantity in proxies.items()
    }


def summary_of(
    plan: PlannedRuns,
    losses: dict[str, float],
    values: dict[Architecture, dict[str, float]],
    resamples: int = RESAMPLES,
    fitted: Collection[str] = (),
) -> dict[str, Any]:
    """Rank correlations with negative perplexity by group, across budgets, and what a second seed says of the noise.

    losses   held-out loss by `run_key`
    values   every proxy's value of every trained design
    fitted   names of proxies fitted to the same designs' losses on another text: shown, and never the leader
    """

    def loss(run: Run) -> float | None:
        return losses.get(run_key(run.identity()))

    def trained(runs: dict[Architecture, Run], designs: Sequence[Architecture]) -> list[Architecture]:
        return [design for design in designs if design in runs and loss(runs[design]) is not None]

    def quality(runs: dict[Architecture, Run], designs: Sequence[Architecture]) -> np.ndarray:
        return -np.exp(np.array([losses[run_key(runs[design].identity())] for design in designs]))

    groups: dict[str, Any] = {}
    for name, designs in plan.groups.items():
        done = trained(plan.main, designs)
        groups[name] = {"designs": len(designs), "not_run": len(designs) - len(done)}
        if len(done) > 2:
            scores = {proxy: np.array([values[design][proxy] for design in done]) for proxy in values[done[0]]}
            perplexity = -quality(plan.main, done)
            correlations = rank_correlations(scores, -perplexity, resamples=resamples, beside=fitted)
            groups[name] |= {
                "perplexity": {
                    "least": float(perplexity.min()),
                    "median": float(np.median(perplexity)),
                    "most": float(perplexity.max()),
                },
                "correlations": {proxy: dataclasses.asdict(one) for proxy, one in correlations.items()},
            }
    return {"groups": groups, "budgets": _budgets(plan, trained, quality, values), "repeats": _repeats(plan, loss)}


def _budgets(plan: PlannedRuns, trained: Any, quality: Any, values: dict[Architecture, dict[str, float]]) -> dict[str, Any]:
    """How ranks move with the token budget: of the losses themselves, and of every proxy's correlation with them.

    Told of the designs trained on all the budgets that at least three designs were trained on.
    """
    runs = {"full": plan.main} | {name: own for name, own in plan.budgets.items() if len(trained(own, list(own))) >= 3}
    subset = list(next(iter(plan.budgets.values())))
    for own in runs.values():
        subset = trained(own, subset)
    if len(subset) < 3 or len(runs) == 1:
        return {"designs": 0}
    qualities = {name: quality(runs[name], subset) for name in sorted(runs, key=lambda name: BUDGETS[name])}
    return {
        "designs": len(subset),
        "median_perplexity": {name: float(np.median(-one)) for name, one in qualities.items()},
        "rank_of_full": {
            name: {"spearman": spearman(one, qualities["full"]), "kendall": kendall(one, qualities["full"])}
            for name, one in qualities.items()
            if name != "full"
        },
        "spearman": {
            proxy: {name: spearman(np.array([values[design][proxy] for design in subset]), one) for name, one in qualities.items()}
            for proxy in values[subset[0]]
        },
    }


def _repeats(plan: PlannedRuns, loss: Any) -> dict[str, Any]:
    """What a second seed says: the noise of one loss, and the correlation with itself that noise leaves (the reliability).

    A difference that all designs share, as the order of the training text makes it, moves no rank and is no noise.
    """
    pairs = [(loss(plan.main[design]), loss(run)) for design, run in plan.repeats.items()]
    both = np.array([pair for pair in pairs if None not in pair], dtype=float)
    if len(both) < 3:
        return {"designs": len(both)}
    noise = float(np.std(both[:, 0] - both[:, 1], ddof=1) / np.sqrt(2))
    everything = np.array([one for design in plan.groups[UNIFORM] if (one := loss(plan.main[design])) is not None])
    return {
        "designs": len(both),
        "noise_sd": noise,
        "loss_sd": float(everything.std(ddof=1)),
        "reliability": float(max(0.0, 1 - noise**2 / everything.var(ddof=1))),
        "spearman": spearman(both[:, 0], both[:, 1]),
    }


def table_text(summary: dict[str, Any]) -> str:
    """The correlations for people."""

    def span(value: float, interval: Sequence[float]) -> str:
        return f"{value:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"

    lines = []
    for group, record in summary["groups"].items():
        for proxy, one in record.get("correlations", {}).items():
            spearman_text, kendall_text = (span(one[name], one[f"{name}_interval"]) for name in ("spearman", "kendall"))
            leads = "" if one["leads"] is None else f"{one['leads']:.0%}"
            behind = span(one["behind"], one["behind_interval"]) if proxy != ENTROPY else ""
            lines.append((group, str(one["designs"]), proxy, spearman_text, kendall_text, leads, behind))
    return text_table(("group", "designs", "proxy", "Spearman", "Kendall", "leads", "entropy − it"), lines, left={0, 2})


def notes_text(summary: dict[str, Any]) -> str:
    """What stands below the table."""
    lines = []
    for group, record in summary["groups"].items():
        if record["not_run"]:
            lines.append(f"{group}: {record['not_run']} of {counted(record['designs'], 'design')} not run")
    budgets, repeats, counting = summary["budgets"], summary["repeats"], summary["counting"]
    if "rank_of_full" in budgets:
        moved = ", ".join(f"{name} {one['spearman']:+.2f}" for name, one in budgets["rank_of_full"].items())
        entropy = ", ".join(f"{name} {one:+.2f}" for name, one in budgets["spearman"]["entropy"].items())
        lines.append(
            f"{budgets['designs']} designs by token budget: Spearman with the full budget's losses {moved}; entropy's {entropy}"
        )
    if "reliability" in repeats:
        lines.append(
            f"a second seed of {repeats['designs']} designs: one loss has noise {repeats['noise_sd']:.4f} nat against a spread of "
            f"{repeats['loss_sd']:.4f}, reliability {repeats['reliability']:.2f}"
        )
    same, whole, loss = counting["as many tokens"], counting["whole text"], summary["loss"]
    lines.append(
        f"interpolated bigram: {same['bigram']:.3f} nat counted on as many tokens as were trained on, {whole['bigram']:.3f} on the "
        f"whole text; networks: {loss['least']:.3f} to {loss['most']:.3f}, median {loss['median']:.3f}"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    check_workers(options)
    positive_integer("designs", options.designs)
    positive_integer("resamples", options.resamples)
    for name, most in (("stratum", None), ("budgets", options.designs), ("repeats", options.designs)):
        number = getattr(options, name)
        if number < 0 or number > (number if most is None else most):
            limit = "" if most is None else f" and at most the {most} designs"
            raise ValueError(f"{name} is {number}; expected at least 0{limit}")
    if options.designs < 3:
        raise ValueError(f"designs is {options.designs}; expected at least 3, which a rank correlation needs")
    if options.budgets and options.steps < 20:
        raise ValueError(f"steps is {options.steps}; expected at least 20, so that half of them are a budget")
    folder = output_folder(options.output)

    from merino_net.data import packed

    data = prepare(options, folder)
    extra = calibrated(None if options.calibrated is None else Path(options.calibrated), data)
    plan = plan_runs(options, data, folder)
    file = RowFile(folder / "rows.jsonl")
    if not options.no_training:
        introduce(data, plan_of(options, evaluations=1), plan.runs)
        finished(plan.runs, file, options.backend, options.scheduler, options.jobs)
    rows: dict[str, Row] = {run_key(row): row for row in file.rows if "held_out_loss" in row}
    losses = {key: float(row["held_out_loss"]) for key, row in rows.items()}
    done = [design for design, run in plan.main.items() if run_key(run.identity()) in rows]
    if all(sum(design in done for design in group) < 3 for group in plan.groups.values()):
        raise ValueError(
            f"of this study {counted(len(done), 'design')} ended with a loss, and a rank correlation needs 3 of one group; "
            + ("leave --no-training out" if options.no_training else "see the errors in rows.jsonl")
        )
    training = packed(np.load(data.training, mmap_mode="r"), options.sequence)
    minibatch = training[:MINIBATCH].astype(np.int64)
    proxies = {**analytic_proxies(options.sequence), **extra, **network_proxies(minibatch, folder)}
    columns = proxy_values(done, proxies, options.jobs)
    values = {design: {name: float(column[i]) for name, column in columns.items()} for i, design in enumerate(done)}
    summary = summary_of(plan, losses, values, options.resamples, extra)
    trained = np.array([losses[run_key(plan.main[design].identity())] for design in done])
    made_by = provenance(options.sample_seed, ("scipy", *PACKAGES))
    summary |= {
        "loss": {"least": float(trained.min()), "median": float(np.median(trained)), "most": float(trained.max())},
        "counting": _counting(data, training, options),
        "data": data.identity,
        "sample": {"designs": options.designs, "stratum": options.stratum, "seed": options.sample_seed},
        "plan": seeded(plan_of(options, evaluations=1), 0),
        "entropy_defaults": dataclasses.asdict(EffectiveEntropy()),
        "provenance": {**made_by, "command": made_by["command"].replace(" --no-training", "")},  # what makes the rows again
    }
    print(table_text(summary))
    print(notes_text(summary))
    points = {name: [design for design in designs if design in values] for name, designs in plan.groups.items()}
    perplexity = {design: float(np.exp(loss)) for design, loss in zip(done, trained, strict=True)}
    units = {name: quantity.unit for name, quantity in proxies.items() if quantity.unit not in ("1", name)}
    save_figure(scatter_figure(points, values, perplexity, summary["groups"], units), folder / "scatter.png")
    save_figure(correlation_figure(summary["groups"]), folder / "correlation.png")
    write_json(folder / "summary.json", summary)
    return 0


def _counting(data: TokenData, training: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Losses of counting on the held-out sequences that the networks are evaluated on."""
    from merino_net.data import packed, split

    if data.held_out is None:
        kept, left = split(len(training), data.held_out_share, 0)
        rows, held_out = training[kept], training[left]
    else:
        rows, held_out = np.asarray(training), packed(np.load(data.held_out, mmap_mode="r"), options.sequence)
    seen = np.random.default_rng(0).permutation(len(rows))[: options.steps * options.batch]
    texts = {"as many tokens": rows[seen], "whole text": rows}
    judged = np.asarray(held_out[: options.evaluate_at_most])
    return {name: dataclasses.asdict(counted_losses(one, judged, options.vocabulary)) for name, one in texts.items()}


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    add_data_arguments(parser, vocabulary=1024)
    add_plan_arguments(parser, **SMALL_NETWORKS)
    parser.add_argument(
        "--designs", type=int, default=81, metavar="N", help="drawn uniformly from the space (default: %(default)s, the paper's)"
    )
    parser.add_argument(
        "--stratum",
        type=int,
        default=24,
        metavar="N",
        help="designs of equal FLOPs, and of equal parameters (default: %(default)s)",
    )
    parser.add_argument(
        "--budgets", type=int, default=0, metavar="N", help="designs also trained on fewer and more tokens (default: none)"
    )
    others = tuple(name for name in BUDGETS if name != "full")
    parser.add_argument(
        "--other-budgets", nargs="+", choices=others, default=["half", "double"], help="of these designs (default: half double)"
    )
    parser.add_argument(
        "--repeats", type=int, default=0, metavar="N", help="designs also trained with a second seed (default: none)"
    )
    parser.add_argument("--sample-seed", type=int, default=0, metavar="N", help="of the sample of designs (default: %(default)s)")
    parser.add_argument(
        "--calibrated", metavar="FILE", help="of studies.calibration: its entropies, fitted on other texts, take part"
    )
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, metavar="N", help="of the bootstrap intervals (default: %(default)s)"
    )
    parser.add_argument("--no-training", action="store_true", help="tables and figures of the runs that are there")
    add_worker_arguments(parser, "results/proxy_correlation")
    return parser


if __name__ == "__main__":
    run_command(main)
