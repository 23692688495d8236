"""What do ρ, α, β and the mean width have to be? Fitted to trained designs and to the published ones, and judged on others.

    python -m studies.calibration results/proxy_wikitext2 results/proxy_ptb
    python -m studies.calibration                                     the published designs alone: no training is needed

Two kinds of evidence. Trained designs (folders of `studies.proxy_correlation`): the setting that ranks a bootstrap sample of the
designs best is scored on those left out of it, of the same text and of the other. Published designs (inverse optimization): under
which setting are they nearest to the optimum at their own counted FLOPs and parameters? And how much does the optimum depend on
each choice?
Writes calibration.json and calibration.png.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution
from scipy.stats import rankdata

from formulation import PUBLISHED, Architecture, Budget, DesignProblem, paper_space
from formulation.architecture import positive_integer
from formulation.report import command_parser, counted, output_folder, provenance, run_command, save_figure, text_table, write_json
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Limits, Status, solve
from studies.calibration_data import (
    ATTENTIONS,
    BETAS,
    DEFAULT,
    FORMAT,
    GRID,
    LEAST,
    MEANS,
    RHOS,
    VERSION,
    Corpus,
    Equals,
    Setting,
    published_equals,
    published_losses,
    read_corpus,
    scores,
)
from studies.calibration_figures import calibration_figure
from studies.rank_correlation import spearman

_AXES: Mapping[str, Sequence[Any]] = {"rho": RHOS, "attention": ATTENTIONS, "beta": BETAS, "mean": tuple(MEANS)}
NEAR = 0.01
"""A published design this near to the optimum, relative, counts as explained."""


def score_table(corpus: Corpus) -> dict[str, np.ndarray]:
    """Every setting's entropy of every design, by group: (settings, designs)."""
    return {name: np.array([scores(setting, designs) for setting in GRID]) for name, designs in corpus.groups.items()}


def fit(table: Mapping[str, np.ndarray], quality: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray]) -> tuple[int, float]:
    """The setting (its number in the grid) of largest mean Spearman over the groups, on the chosen designs of each; and that mean.

    Of several settings that rank equally well the one nearest to the default counts.
    """
    means = np.mean(
        [_spearmans(table[name][:, which], quality[name][which]) for name, which in chosen.items()],
        axis=0,
    )
    best = int(np.argmax(np.round(means, 9)))
    return best, float(means[best])


def _spearmans(rows: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Of each row, (settings, n), with `quality`, (n,)."""
    left, right = rankdata(rows, axis=1), rankdata(quality)
    left, right = left - left.mean(axis=1, keepdims=True), right - right.mean()
    norms = np.sqrt((left**2).sum(axis=1) * (right @ right))
    return np.divide(left @ right, norms, out=np.zeros(len(rows)), where=norms > 0)


def held_out_gain(
    fitted_on: Corpus, scored_on: Corpus, tables: Mapping[str, Mapping[str, np.ndarray]], resamples: int, seed: int
) -> dict[str, Any]:
    """Fit on a bootstrap sample of the designs, score on those left out of it, of the same corpus or of another.

    Returns, by group and on average, the mean Spearman of the fitted settings and of the default on the designs left out, the mean
    difference, and its 2.5 and 97.5 percentiles over the samples. About a third of the designs is left out of a sample, so that
    the interval is, if anything, too wide for all of them. ValueError where the two corpora share too few designs.
    """
    names = [name for name in fitted_on.groups if len(_both(fitted_on, scored_on, name)) >= LEAST]
    if not names:
        raise ValueError(
            f"{fitted_on.name} and {scored_on.name} share fewer than {LEAST} designs in every group; train the same sample on both"
        )
    pairs = {name: _both(fitted_on, scored_on, name) for name in names}
    designs = sorted({design for name in names for design in pairs[name]}, key=str)
    index = {name: np.array([designs.index(design) for design in pairs[name]]) for name in names}
    here, there = ({name: np.array(list(pairs[name].values()))[:, side] for name in names} for side in (0, 1))
    table, other = tables[fitted_on.name], tables[scored_on.name]
    default = GRID.index(DEFAULT)
    draw = np.random.default_rng(seed)
    fitted: dict[str, list[float]] = {name: [] for name in names}
    usual: dict[str, list[float]] = {name: [] for name in names}
    settings: list[Setting] = []
    while len(settings) < resamples:
        times = np.bincount(draw.integers(len(designs), size=len(designs)), minlength=len(designs))
        chosen = {name: np.repeat(here[name], times[index[name]]) for name in names}
        left_out = {name: there[name][times[index[name]] == 0] for name in names}
        if min(*(len(np.unique(one)) for one in chosen.values()), *map(len, left_out.values())) < 3:
            continue
        best, _ = fit(table, fitted_on.quality, chosen)
        settings.append(GRID[best])
        for name, which in left_out.items():
            quality = scored_on.quality[name][which]
            fitted[name].append(spearman(other[name][best][which], quality))
            usual[name].append(spearman(other[name][default][which], quality))
    differences = np.mean([np.array(fitted[name]) - np.array(usual[name]) for name in names], axis=0)
    low, high = np.quantile(differences, (0.025, 0.975))
    return {
        "fitted_on": fitted_on.name,
        "scored_on": scored_on.name,
        "resamples": resamples,
        "groups": {name: {"fitted": fmean(fitted[name]), "default": fmean(usual[name])} for name in names},
        "fitted": fmean(fmean(values) for values in fitted.values()),
        "default": fmean(fmean(values) for values in usual.values()),
        "difference": float(np.mean(differences)),
        "difference_interval": [float(low), float(high)],
        "chosen": _chosen(settings),
    }


def _both(left: Corpus, right: Corpus, name: str) -> dict[Architecture, tuple[int, int]]:
    """Designs of a group that were trained on both texts, with their places in either."""
    places = {design: place for place, design in enumerate(right.groups.get(name, ()))}
    return {design: (place, places[design]) for place, design in enumerate(left.groups[name]) if design in places}


def _chosen(settings: Sequence[Setting]) -> dict[str, dict[str, int]]:
    """How often each value of each choice was fitted."""
    counts: dict[str, dict[str, int]] = {}
    for axis, values in _AXES.items():
        found = [getattr(setting, axis) for setting in settings]
        counts[axis] = {f"{value:.4g}" if axis != "mean" else value: found.count(value) for value in values if value in found}
    return counts


def profiles(table: Mapping[str, np.ndarray], corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """Mean Spearman over the groups as one choice moves and the others keep their default."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for axis, values in _AXES.items():
        lines[axis] = []
        for value in values:
            number = GRID.index(dataclasses.replace(DEFAULT, **{axis: value}))
            by_group = {name: spearman(rows[number], corpus.quality[name]) for name, rows in table.items()}
            lines[axis].append({"value": value, "mean": fmean(by_group.values()), **by_group})
    return lines


def inverse_optimization() -> dict[str, Any]:
    """How near the published designs are to the optimum under every setting of the grid, and under which they are nearest.

    The nearest setting is the one of least largest loss that a global search finds (`nearest_setting`): found, not proved. Both
    settings' optima are proved once more by dynamic programming.
    """
    equals = published_equals()
    losses = published_losses(equals, GRID)
    nearest = nearest_setting(equals, losses)
    proved = {}
    for name, setting in (("default", DEFAULT), ("nearest", nearest)):
        proved[name] = _proved_losses(setting)
        enumerated = published_losses(equals, [setting])[0]
        assert np.allclose(list(proved[name].values()), enumerated, atol=1e-9), "dynamic programming and enumeration disagree"
    return {
        "equals": {one.name: one.designs for one in equals},
        "default": {**DEFAULT.to_dict(), "losses": proved["default"]},
        "nearest": {**nearest.to_dict(), "losses": proved["nearest"]},
        "explained": max(proved["nearest"].values()) <= NEAR,
        "nearest_one_by_one": {
            one.name: {**GRID[int(np.argmin(losses[:, column]))].to_dict(), "loss": float(losses[:, column].min())}
            for column, one in enumerate(equals)
        },
        "profiles": {
            axis: [
                {"value": value, "losses": losses[GRID.index(dataclasses.replace(DEFAULT, **{axis: value}))].tolist()}
                for value in values
            ]
            for axis, values in _AXES.items()
        },
    }


def nearest_setting(equals: Sequence[Equals], losses: np.ndarray) -> Setting:
    """The setting of least largest loss found: by differential evolution for each mean width, made finer by a pattern search.

    losses   of the grid, (settings, designs): its best point of each mean width takes part
    """
    found = []
    for mean in MEANS:
        own = [number for number, setting in enumerate(GRID) if setting.mean == mean]
        best = GRID[own[int(np.argmin(losses[own].max(axis=1)))]]
        evolved = differential_evolution(
            lambda point, mean=mean: float(published_losses(equals, [_at(point, mean)]).max()),
            bounds=((-4, 5), (0, 1), (0, max(BETAS))),
            popsize=12,
            maxiter=60,
            polish=False,
            rng=0,
            x0=(np.log10(best.rho), best.attention, best.beta),
        )
        found.append(_between(_at(evolved.x, mean), equals))
    return found[int(np.argmin(published_losses(equals, found).max(axis=1)))]


def _at(point: Sequence[float], mean: str) -> Setting:
    """The setting at (log₁₀ ρ, α₁, β)."""
    return Setting(float(10 ** point[0]), float(point[1]), float(point[2]), mean)


def _between(start: Setting, equals: Sequence[Equals]) -> Setting:
    """A setting near `start` whose largest loss no step of ρ, α₁ or β lowers, by a pattern search that halves its steps."""
    best, least = start, float(published_losses(equals, [start]).max())
    for halving in range(7):
        factor, share, discount = 10 ** (0.5 / 2**halving), 0.05 / 2**halving, 1 / 32 / 2**halving
        better = True
        while better:
            better = False
            moved = [dataclasses.replace(best, rho=best.rho * one) for one in (factor, 1 / factor)]
            moved += [dataclasses.replace(best, attention=best.attention + one) for one in (share, -share)]
            moved += [dataclasses.replace(best, beta=best.beta + one) for one in (discount, -discount)]
            for setting in moved:
                if 0 <= setting.attention <= 1 and 0 <= setting.beta <= max(BETAS):
                    largest = float(published_losses(equals, [setting]).max())
                    if largest < least - 1e-9:
                        best, least, better = setting, largest, True
    return best


def _problem(setting: Setting, name: str) -> DesignProblem:
    budgets = tuple(Budget(cost, cost(PUBLISHED[name])) for cost in (Flops(), Params()))
    return DesignProblem(paper_space(), setting.entropy, budgets)


def _proved_losses(setting: Setting) -> dict[str, float]:
    losses = {}
    for name, design in PUBLISHED.items():
        problem = _problem(setting, name)
        solution = solve(problem, DynamicProgramming(), Limits(seconds=120))
        assert solution.status is Status.OPTIMAL
        assert solution.objective is not None
        losses[name] = 1 - problem.maximize(design) / solution.objective
    return losses


def sensitivity() -> dict[str, list[dict[str, Any]]]:
    """The proven optimum at each published design's own FLOPs as one choice moves: does the design change, and what would it cost?

    regret   what the default's optimum loses under the moved setting, relative
    """
    lines: dict[str, list[dict[str, Any]]] = {axis: [] for axis in _AXES}
    for name, design in PUBLISHED.items():
        budget = (Budget(Flops(), Flops()(design)),)
        usual = _optimum(DesignProblem(paper_space(), DEFAULT.entropy, budget))
        for axis, values in _AXES.items():
            for value in values:
                entropy = dataclasses.replace(DEFAULT, **{axis: value}).entropy
                best = _optimum(DesignProblem(paper_space(), entropy, budget))
                regret = 1 - entropy(usual) / entropy(best)
                lines[axis].append(
                    {"budget": name, "value": value, "design": str(best), "same": best == usual, "regret": max(regret, 0.0)}
                )
    return lines


def _optimum(problem: DesignProblem) -> Any:
    solution = solve(problem, DynamicProgramming(), Limits(seconds=120))
    assert solution.status is Status.OPTIMAL
    return solution.architecture


def verdict(validated: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the defaults should change: only where settings fitted on either text do better on other designs of both texts.

    pairs   of the text fitted on and the text scored on
    better  those in which the whole interval of the difference is above 0
    """
    better = [one["difference_interval"][0] > 0 for one in validated]
    return {"pairs": len(better), "better": sum(better), "change_defaults": len(better) > 1 and all(better)}


def text_of(record: dict[str, Any]) -> str:
    """The findings for people."""
    lines = []
    inverse = record["inverse_optimization"]
    table = [
        (name, setting_text(inverse[name]), *(f"{100 * loss:.2f} %" for loss in inverse[name]["losses"].values()))
        for name in ("default", "nearest")
    ]
    lines.append(text_table(("setting", "ρ, α₁, β, mean", *PUBLISHED), table, left={0, 1}))
    lines.append(
        f"published designs below the proven optimum at their own FLOPs and parameters; {len(GRID):,} settings tried: "
        + ("one brings all three within 1 %" if inverse["explained"] else "none brings all three within 1 %")
    )
    if record["held_out"]:
        rows = [
            (
                one["fitted_on"],
                one["scored_on"],
                f"{one['default']:+.3f}",
                f"{one['fitted']:+.3f}",
                f"{one['difference']:+.3f} [{one['difference_interval'][0]:+.3f}, {one['difference_interval'][1]:+.3f}]",
            )
            for one in record["held_out"]
        ]
        header = ("fitted on", "scored on other designs of", "default", "fitted", "difference [95 %]")
        lines.append(text_table(header, rows, left={0, 1}))
        decision = record["verdict"]
        lines.append(
            "mean Spearman over the groups, of designs that were not fitted to; clearly better fitted in "
            f"{decision['better']} of {counted(decision['pairs'], 'pair')} of texts: the defaults "
            + ("should change" if decision["change_defaults"] else "stay")
        )
    for axis, one in record["sensitivity"].items():
        changed, regret = sum(not line["same"] for line in one), max(line["regret"] for line in one)
        lines.append(f"{axis}: {changed} of {len(one)} optima differ from the default's, which loses {100 * regret:.2f} % at most")
    return "\n".join(lines)


def setting_text(one: Mapping[str, Any]) -> str:
    """A setting in a cell."""
    return f"{one['rho']:g}, {one['alpha'][0]:g}, {one['beta']:.4g}, {one['mean']}"


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = command_line().parse_args(arguments)
    positive_integer("resamples", options.resamples)
    corpora = [read_corpus(Path(folder)) for folder in options.corpus]
    if len({corpus.name for corpus in corpora}) < len(corpora):
        raise ValueError("two folders have one name, which would stand for both texts; rename one")
    folder = output_folder(options.output)
    tables = {corpus.name: score_table(corpus) for corpus in corpora}
    everything = {corpus.name: {name: np.arange(len(own)) for name, own in corpus.groups.items()} for corpus in corpora}
    fits = []
    for corpus in corpora:
        best, score = fit(tables[corpus.name], corpus.quality, everything[corpus.name])
        fits.append({"corpus": corpus.name, "data": corpus.data, **GRID[best].to_dict(), "score_on_itself": score})
    validated = [held_out_gain(left, right, tables, options.resamples, options.seed) for left in corpora for right in corpora]
    record = {
        "format": FORMAT,
        "version": VERSION,
        "grid": {axis: list(values) for axis, values in _AXES.items()},
        "default": DEFAULT.to_dict(),
        "fits": fits,
        "held_out": validated,
        "verdict": verdict(validated),
        "profiles": {corpus.name: profiles(tables[corpus.name], corpus) for corpus in corpora},
        "inverse_optimization": inverse_optimization(),
        "sensitivity": sensitivity(),
        "provenance": provenance(options.seed),
    }
    print(text_of(record))
    save_figure(calibration_figure(record), folder / "calibration.png")
    write_json(folder / "calibration.json", record)
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("corpus", nargs="*", metavar="FOLDER", help="folders of studies.proxy_correlation")
    parser.add_argument(
        "--resamples", type=int, default=200, metavar="N", help="bootstrap samples of the designs (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of these samples (default: %(default)s)")
    parser.add_argument(
        "--output", default="results/calibration", metavar="DIR", help="folder of the results (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    run_command(main)
