"""Do training-free proxies rank designs as training does? Many designs trained on equal terms, and every proxy's rank correlation.

    python -m studies.proxy_correlation --text wiki.train.txt.xz --held-out-text wiki.valid.txt --output results/proxy_wikitext2
    python -m studies.proxy_correlation --designs 20 --stratum 0 --steps 200          Python's documentation, minutes
    python -m studies.proxy_correlation ... --no-training                             tables and figures of what has been trained

The designs are a uniform sample of a scaled-down space and two strata, in which FLOPs or parameters are equal (see
`studies.trained.sample`). The entropy's parameters are the defaults, fixed before any training. Writes rows.jsonl (a finished run
is never run twice), the proxies' values, summary.json, scatter.png and correlation.png. What did not run is reported as not run.
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
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Row, RowFile
from hardware_models import BlackBox
from studies.calibration.data import fitted_name, read_calibration
from studies.proxy_correlation.bigram import counted_losses
from studies.proxy_correlation.proxies import ENTROPY, FLOPS, PARAMS, analytic_proxies, first_sequences, network_proxies
from studies.trained.flags import (
    SMALL_NETWORKS,
    DataOptions,
    PlanOptions,
    WorkerOptions,
    add_data_arguments,
    add_plan_arguments,
    add_worker_arguments,
)
from studies.trained.plan import TRAINING_PACKAGES, TokenData, TrainingRun, run_key
from studies.trained.rank_correlation import RESAMPLES, alike, kendall, rank_correlations, spearman, with_interval
from studies.trained.runs import environments, finished, introduce, prepare, seeded, training_plan
from studies.trained.sample import EQUAL_FLOPS, EQUAL_PARAMS, UNIFORM, sampled, scaled_space

TOKEN_BUDGETS = {"half": 0.5, "full": 1.0, "double": 2.0, "fourfold": 4.0}
"""Token budgets by name, as shares of the full one."""
HELD = {EQUAL_FLOPS: FLOPS, EQUAL_PARAMS: PARAMS}
"""The cost that each stratum holds equal, as a proxy."""


@dataclass(frozen=True)
class ProxyOptions:
    """What the study was asked for, see --help; ValueError for a number out of range."""

    data: DataOptions
    plan: PlanOptions
    designs: int
    stratum: int
    budgets: int
    other_budgets: tuple[str, ...]
    repeats: int
    sample_seed: int
    calibrated: str | None
    resamples: int
    no_training: bool
    workers: WorkerOptions

    def __post_init__(self) -> None:
        positive_integer("designs", self.designs)
        positive_integer("resamples", self.resamples)
        for name, most in (("stratum", None), ("budgets", self.designs), ("repeats", self.designs)):
            number = getattr(self, name)
            if number < 0 or number > (number if most is None else most):
                limit = "" if most is None else f" and at most the {most} designs"
                raise ValueError(f"{name} is {number}; expected at least 0{limit}")
        if self.designs < 3:
            raise ValueError(f"designs is {self.designs}; expected at least 3, which a rank correlation needs")
        if self.budgets and self.plan.steps < 20:
            raise ValueError(f"steps is {self.plan.steps}; expected at least 20, so that half of them are a budget")


@dataclass(frozen=True)
class PlannedRuns:
    """What is to be trained: designs by group, and the runs, each under the part of the study that asks for it.

    Attributes:
        budgets: runs of the first designs of the sample with fewer and more steps, by the budget's name.
        repeats: runs of the first designs with a second seed.
    """

    groups: dict[str, list[Architecture]]
    main: dict[Architecture, TrainingRun]
    budgets: dict[str, dict[Architecture, TrainingRun]]
    repeats: dict[Architecture, TrainingRun]

    @property
    def runs(self) -> list[TrainingRun]:
        """All of them in the order in which they are trained."""
        others = [run for group in (*self.budgets.values(), self.repeats) for run in group.values()]
        return [*self.main.values(), *others]


def plan_runs(options: ProxyOptions, data: TokenData, folder: Path) -> PlannedRuns:
    """The runs that the flags ask for."""
    plan = training_plan(options.plan, evaluations=1)
    space = scaled_space(options.data.vocabulary, plan.seq_len)
    groups = sampled(space, options.designs, options.stratum, plan.seq_len, options.sample_seed)

    def run(label: str, design: Architecture, share: float = 1.0, seed: int = 0) -> TrainingRun:
        scaled = dataclasses.replace(options.plan, steps=round(options.plan.steps * share))
        own = plan if share == 1 else training_plan(scaled, evaluations=1)
        return TrainingRun(label, design, seeded(own, seed), data, options.workers.threads, str(folder.resolve() / "runs"))

    main: dict[Architecture, TrainingRun] = {}
    for name, designs in groups.items():
        for number, design in enumerate(designs):
            main.setdefault(design, run(f"{name} {number:02d}", design))
    first = groups[UNIFORM]
    budgets = {
        name: {
            design: run(f"{main[design].label}, {name} budget", design, TOKEN_BUDGETS[name]) for design in first[: options.budgets]
        }
        for name in options.other_budgets
    }
    repeats = {design: run(f"{main[design].label}, again", design, seed=1) for design in first[: options.repeats]}
    return PlannedRuns(groups, main, budgets, repeats)


def calibrated(path: Path | None, data: TokenData) -> dict[str, Quantity]:
    """The entropies of a calibration file that were fitted on other texts than this one; ValueError if it is none."""
    if path is None:
        return {}
    return {
        fitted_name(corpus): setting.entropy
        for corpus, (setting, text_sha256) in read_calibration(path).fits.items()
        if text_sha256 != data.identity["text_sha256"]
    }


def proxy_values(designs: Sequence[Architecture], proxies: dict[str, Quantity], jobs: int) -> dict[str, np.ndarray]:
    """Every proxy's value of every design; those of real networks in `jobs` processes at a time."""
    return {
        name: quantity.values(designs, jobs) if isinstance(quantity, BlackBox) else np.array([quantity(one) for one in designs])
        for name, quantity in proxies.items()
    }


@dataclass(frozen=True)
class Trained:
    """The runs that have ended and what came of them.

    Attributes:
        losses: held-out loss by `run_key`, nat per token; infinite for a run that diverged.
        values: every proxy's value of every design that was trained.
    """

    losses: dict[str, float]
    values: dict[Architecture, dict[str, float]]

    def of(self, runs: dict[Architecture, TrainingRun], designs: Sequence[Architecture]) -> dict[Architecture, float]:
        """The losses of those of the designs whose run has ended."""
        keys = {design: run_key(runs[design].identity()) for design in designs if design in runs}
        return {design: self.losses[key] for design, key in keys.items() if key in self.losses}

    def scores(self, designs: Collection[Architecture]) -> dict[str, np.ndarray]:
        """Every proxy's values of these designs, in their order."""
        names = self.values[next(iter(designs))]
        return {name: np.array([self.values[design][name] for design in designs]) for name in names}


def quality(losses: dict[Architecture, float]) -> np.ndarray:
    """Negative perplexity; −∞, below all others, of a design whose run diverged."""
    return -np.exp(np.array(list(losses.values())))


def correlations_of(
    plan: PlannedRuns, trained: Trained, resamples: int = RESAMPLES, fitted: Collection[str] = ()
) -> dict[str, Any]:
    """Rank correlations with negative perplexity by group, across budgets, and what a second seed says of the noise.

    Args:
        fitted: names of proxies fitted to the same designs' losses on another text: shown, and never the leader.

    Of each group it says how many designs have not run, how many diverged (they take part, tied below all others), and which
    proxies are held equal in it: they rank its designs as the cost does that the stratum is of, by what its tolerance leaves.
    """
    groups: dict[str, Any] = {}
    for name, designs in plan.groups.items():
        losses = trained.of(plan.main, designs)
        finite = np.array([loss for loss in losses.values() if loss < np.inf])
        groups[name] = {
            "designs": len(designs),
            "not_run": len(designs) - len(losses),
            "diverged": len(losses) - len(finite),
        }
        if len(losses) > 2 and len(finite):
            scores = trained.scores(losses)
            held = [proxy for proxy, score in scores.items() if name in HELD and alike(score, scores[HELD[name]])]
            kept = {proxy: score for proxy, score in scores.items() if proxy not in held}
            correlations = rank_correlations(kept, quality(losses), resamples=resamples, beside=fitted)
            perplexity = np.exp(finite)
            groups[name] |= {
                "perplexity": {
                    "least": float(perplexity.min()),
                    "median": float(np.median(perplexity)),
                    "most": float(perplexity.max()),
                },
                "held": held,
                "correlations": {proxy: dataclasses.asdict(one) for proxy, one in correlations.items()},
            }
    return {"groups": groups, "budgets": _budgets(plan, trained, resamples), "repeats": _repeats(plan, trained)}


def _budgets(plan: PlannedRuns, trained: Trained, resamples: int) -> dict[str, Any]:
    """How ranks move with the token budget: of the losses themselves, and of every proxy's correlation with them.

    Told of the designs trained on all the budgets that at least three designs were trained on.
    """
    ended = {name: trained.of(own, list(own)) for name, own in {"full": plan.main, **plan.budgets}.items()}
    ended = {name: own for name, own in ended.items() if len(own) >= 3}
    subset = [design for design in next(iter(plan.budgets.values()), {}) if all(design in own for own in ended.values())]
    if len(subset) < 3 or len(ended) == 1:
        return {"designs": 0}
    qualities = {
        name: quality({design: ended[name][design] for design in subset}) for name in sorted(ended, key=TOKEN_BUDGETS.__getitem__)
    }
    return {
        "designs": len(subset),
        "median_perplexity": {name: float(np.median(-one)) for name, one in qualities.items()},
        "rank_of_full": {
            name: {"spearman": float(spearman(one, qualities["full"])), "kendall": kendall(one, qualities["full"])}
            for name, one in qualities.items()
            if name != "full"
        },
        "correlations": {
            name: {
                proxy: dataclasses.asdict(found)
                for proxy, found in rank_correlations(trained.scores(subset), one, resamples=resamples).items()
            }
            for name, one in qualities.items()
        },
    }


def _repeats(plan: PlannedRuns, trained: Trained) -> dict[str, Any]:
    """What a second seed says: the noise σ of one loss, and the share 1 − σ²/s² of each group's variance that is not noise.

    σ has the interval of a variance of so few pairs (chi-squared), and with it the reliability of every group. A difference that
    all designs share, as the order of the training text makes it, moves no rank and is not noise.
    """
    again = trained.of(plan.repeats, list(plan.repeats))
    once = trained.of(plan.main, list(again))
    both = np.array([(once[design], loss) for design, loss in again.items() if design in once and max(once[design], loss) < np.inf])
    if len(both) < 3:
        return {"designs": len(both)}
    from scipy.stats import chi2

    noise = float(np.std(both[:, 0] - both[:, 1], ddof=1) / np.sqrt(2))
    freedom = len(both) - 1
    least, most = (noise * float(np.sqrt(freedom / chi2.ppf(share, freedom))) for share in (0.975, 0.025))

    def of_group(designs: Sequence[Architecture]) -> dict[str, Any]:
        spread = float(np.std([loss for loss in trained.of(plan.main, designs).values() if loss < np.inf], ddof=1))
        reliability, low, high = (max(0.0, 1 - (one / spread) ** 2) for one in (noise, most, least))
        return {"loss_sd": spread, "reliability": reliability, "reliability_interval": [low, high]}

    groups = {name: of_group(designs) for name, designs in plan.groups.items() if len(trained.of(plan.main, designs)) > 2}
    return {
        "designs": len(both),
        "noise_sd": noise,
        "noise_sd_interval": [least, most],
        "groups": groups,
        "spearman": float(spearman(both[:, 0], both[:, 1])),
    }


def correlations_text(summary: dict[str, Any]) -> str:
    """The correlations for people."""

    lines = []
    for group, record in summary["groups"].items():
        for proxy, one in record.get("correlations", {}).items():
            spearman_text, kendall_text = (with_interval(one[name], one[f"{name}_interval"]) for name in ("spearman", "kendall"))
            leads = "" if one["leads"] is None else f"{one['leads']:.0%}"
            behind = with_interval(one["behind"], one["behind_interval"]) if proxy != ENTROPY else ""
            lines.append((group, str(one["designs"]), proxy, spearman_text, kendall_text, leads, behind))
        lines += [
            (group, str(record["designs"] - record["not_run"]), proxy, *("held equal", "", "", ""))
            for proxy in record.get("held", ())
        ]
    return text_table(("group", "designs", "proxy", "Spearman", "Kendall", "leads", "entropy − it"), lines, left={0, 2})


def notes_text(summary: dict[str, Any]) -> str:
    """What stands below the table."""
    lines = []
    for group, record in summary["groups"].items():
        if record["not_run"]:
            lines.append(f"{group}: {record['not_run']} of {counted(record['designs'], 'design')} not run")
        if record["diverged"]:
            lines.append(f"{group}: {counted(record['diverged'], 'design')} diverged and rank below all others")
    if len(summary["made_with"]) > 1:
        lines.append("the runs are not of one kind of machine and versions; see made_with in summary.json:")
        for one in summary["made_with"]:
            named = ", ".join(f"{name} {version}" for name, version in one.items() if name != "runs")
            lines.append(f"  {counted(one['runs'], 'run')}: {named or 'not recorded'}")
    budgets, repeats, counting = summary["budgets"], summary["repeats"], summary["counting"]
    if "rank_of_full" in budgets:
        moved = ", ".join(f"{name} {one['spearman']:+.2f}" for name, one in budgets["rank_of_full"].items())
        entropy = ", ".join(f"{name} {one[ENTROPY]['spearman']:+.2f}" for name, one in budgets["correlations"].items())
        lines.append(
            f"{budgets['designs']} designs by token budget: Spearman with the full budget's losses {moved}; entropy's {entropy}"
        )
    if "noise_sd" in repeats:
        told = (
            f"{name} {one['loss_sd']:.4f}, reliability {with_interval(one['reliability'], one['reliability_interval'], '.2f')}"
            for name, one in repeats["groups"].items()
        )
        lines.append(
            f"a second seed of {repeats['designs']} designs: one loss has noise "
            f"{with_interval(repeats['noise_sd'], repeats['noise_sd_interval'], '.4f')} nat, against a spread of " + ", ".join(told)
        )
    same, whole, loss = counting["as many tokens"], counting["whole text"], summary["loss"]
    lines.append(
        f"interpolated bigram: {same['bigram']:.3f} nat counted on as many tokens as were trained on, {whole['bigram']:.3f} on the "
        f"whole text; networks: {loss['least']:.3f} to {loss['most']:.3f}, median {loss['median']:.3f}"
    )
    return "\n".join(lines)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(ProxyOptions, command_line(), arguments)
    workers = options.workers
    folder = output_folder(workers.output)

    from merino_net.corpus.data import packed

    data = prepare(options.data, folder)
    training = packed(np.load(data.training, mmap_mode="r"), options.plan.sequence)
    minibatch = first_sequences(training)
    extra = calibrated(None if options.calibrated is None else Path(options.calibrated), data)
    plan = plan_runs(options, data, folder)
    file = RowFile(folder / "rows.jsonl")
    if not options.no_training:
        introduce(data, training_plan(options.plan, evaluations=1), plan.runs)
        finished(plan.runs, file, workers.backend, workers.scheduler, workers.jobs)
    planned = {run_key(run.identity()) for run in plan.runs}
    rows: dict[str, Row] = {key: row for row in file.rows if (key := run_key(row)) in planned}
    losses = {key: float(row.get("held_out_loss", np.inf)) for key, row in rows.items()}
    ended = {design: losses[key] for design, run in plan.main.items() if (key := run_key(run.identity())) in losses}
    done = [design for design, loss in ended.items() if loss < np.inf]
    if all(sum(design in done for design in group) < 3 for group in plan.groups.values()):
        raise ValueError(
            f"of this study {counted(len(done), 'design')} ended with a loss, and a rank correlation needs 3 of one group; "
            + ("leave --no-training out" if options.no_training else "see the errors in rows.jsonl")
        )
    proxies = {**analytic_proxies(options.plan.sequence), **extra, **network_proxies(minibatch, folder)}
    columns = proxy_values(list(ended), proxies, workers.jobs)
    values = {design: {name: float(column[i]) for name, column in columns.items()} for i, design in enumerate(ended)}
    summary = correlations_of(plan, Trained(losses, values), options.resamples, extra)
    trained = np.array([ended[design] for design in done])
    made_by = provenance(options.sample_seed, ("scipy", *TRAINING_PACKAGES))
    summary |= {
        "loss": {"least": float(trained.min()), "median": float(np.median(trained)), "most": float(trained.max())},
        "counting": _counting(data, training, options.plan, options.data.vocabulary),
        "data": data.identity,
        "sample": {"designs": options.designs, "stratum": options.stratum, "seed": options.sample_seed},
        "plan": seeded(training_plan(options.plan, evaluations=1), 0),
        "made_with": environments(rows.values()),
        "entropy_defaults": dataclasses.asdict(EffectiveEntropy()),
        "provenance": {**made_by, "command": made_by["command"].replace(" --no-training", "")},  # what makes the rows again
    }
    print(correlations_text(summary))
    print(notes_text(summary))
    points = {name: [design for design in designs if design in done] for name, designs in plan.groups.items()}
    perplexity = {design: float(np.exp(loss)) for design, loss in zip(done, trained, strict=True)}
    units = {name: quantity.unit for name, quantity in proxies.items() if quantity.unit not in ("1", name)}
    from studies.proxy_correlation.figures import correlation_figure, scatter_figure

    save_figure(scatter_figure(points, values, perplexity, summary["groups"], units), folder / "scatter.png")
    save_figure(correlation_figure(summary["groups"]), folder / "correlation.png")
    write_json(folder / "summary.json", summary)
    return 0


def _counting(data: TokenData, training: np.ndarray, plan: PlanOptions, vocabulary: int) -> dict[str, Any]:
    """Losses of counting on the held-out sequences that the networks are evaluated on."""
    from merino_net.corpus.data import packed, split

    if data.held_out is None:
        kept, left = split(len(training), data.held_out_share, 0)
        rows, held_out = training[kept], training[left]
    else:
        rows, held_out = np.asarray(training), packed(np.load(data.held_out, mmap_mode="r"), plan.sequence)
    seen = np.random.default_rng(0).permutation(len(rows))[: plan.steps * plan.batch]
    texts = {"as many tokens": rows[seen], "whole text": rows}
    judged = np.asarray(held_out[: plan.evaluate_at_most])
    return {name: dataclasses.asdict(counted_losses(one, judged, vocabulary)) for name, one in texts.items()}


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
    others = tuple(name for name in TOKEN_BUDGETS if name != "full")
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
