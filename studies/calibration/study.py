"""What do ρ, α, β and the mean width have to be? Fitted to trained designs and to the published ones, and judged on others.

    python -m studies.calibration results/proxy_wikitext2 results/proxy_ptb
    python -m studies.calibration                                     the published designs alone: no training is needed

Two kinds of evidence. Trained designs (folders of `studies.proxy_correlation`): the setting that ranks one half of the designs best
is scored on the other half, of the same text and of the other. Published designs (inverse optimization): under
which setting are they nearest to the optimum at their own counted FLOPs and parameters? And how much does the optimum depend on
each choice?
Writes calibration.json and calibration.png.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from formulation import PUBLISHED, Architecture, Budget, DesignProblem, paper_space
from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import text_table
from formulation.records.files import output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Limits, Status, solve
from studies.calibration.data import (
    ATTENTIONS,
    BETAS,
    CALIBRATION_FORMAT,
    CALIBRATION_VERSION,
    DEFAULT,
    GRID,
    LEAST,
    MEANS,
    RHOS,
    Corpus,
    EntropySetting,
    Equals,
    losses_of_equals,
    published_equals,
    read_corpus,
    scores,
)
from studies.trained.rank_correlation import interval, spearman, with_interval

_AXES: Mapping[str, Sequence[Any]] = {"rho": RHOS, "attention": ATTENTIONS, "beta": BETAS, "mean": tuple(MEANS)}
_EXPLAINED = 0.01
"""A published design this near to the optimum, relative, counts as explained."""


def on_common_groups(corpora: Sequence[Corpus]) -> list[Corpus]:
    """The corpora with the groups that all of them have, so that means over groups compare; ValueError if there isn't one."""
    common = [name for name in (corpora[0].groups if corpora else ()) if all(name in corpus.groups for corpus in corpora)]
    if corpora and not common:
        raise ValueError("no group of designs was trained on every text; train the same sample on all of them")
    for corpus in corpora:
        for name in (name for name in corpus.groups if name not in common):
            print(f"{corpus.name}: {name} is left out, of which another text has fewer than {LEAST} designs")
    return [
        dataclasses.replace(
            corpus,
            groups={name: corpus.groups[name] for name in common},
            quality={name: corpus.quality[name] for name in common},
        )
        for corpus in corpora
    ]


def score_table(corpus: Corpus) -> dict[str, np.ndarray]:
    """Every setting's entropy of every design, by group: (settings, designs)."""
    return {name: np.array([scores(setting, designs) for setting in GRID]) for name, designs in corpus.groups.items()}


CHOSEN_AXES: Mapping[str, tuple[str, ...]] = {"all choices": tuple(_AXES), "β alone": ("beta",)}
"""What a fit may move; the other choices keep their default. Fewer choices fit less noise."""
_SPLITS = 40
"""Halvings of the designs whose mean is the gain; a bootstrap resample is halved `_SPLITS_OF_RESAMPLE` times."""
_SPLITS_OF_RESAMPLE = 2


def family(axes: Sequence[str]) -> np.ndarray:
    """Numbers of the settings of the grid in which only these choices differ from the default."""
    fixed = [axis for axis in _AXES if axis not in axes]
    same = [all(getattr(setting, axis) == getattr(DEFAULT, axis) for axis in fixed) for setting in GRID]
    return np.flatnonzero(same)


def fit(means: np.ndarray, settings: np.ndarray) -> int:
    """The number of the setting of largest mean, of those numbered; of several the one nearest to the default.

    Args:
        means: Spearman's coefficient of every setting of the grid, the mean over the groups.
    """
    return int(settings[np.argmax(np.round(means[settings], 9))])


def mean_spearmans(
    table: Mapping[str, np.ndarray], quality: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Of every setting, (settings,): the mean over the groups, each on the chosen of its designs."""
    return np.mean([spearman(table[name][:, which], quality[name][which]) for name, which in chosen.items()], axis=0)


@dataclass(frozen=True)
class Shared:
    """The designs that two corpora share, by group: their places in either, and the number of each among all of them.

    Attributes:
        number: (n,) by group, the same for a design that is in two groups.
        here: places in the corpus that is fitted on, (n,); `there` in the one that is scored on.
    """

    designs: int
    number: dict[str, np.ndarray]
    here: dict[str, np.ndarray]
    there: dict[str, np.ndarray]

    @classmethod
    def of(cls, fitted_on: Corpus, scored_on: Corpus) -> Shared:
        """ValueError if no group has enough of them."""
        pairs = {name: _both(fitted_on, scored_on, name) for name in fitted_on.groups}
        pairs = {name: own for name, own in pairs.items() if len(own) >= LEAST}
        if not pairs:
            raise ValueError(
                f"{fitted_on.name} and {scored_on.name} share fewer than {LEAST} designs in every group; "
                "train the same sample on both"
            )
        everything = sorted({design for own in pairs.values() for design in own}, key=str)
        numbers = {design: number for number, design in enumerate(everything)}
        return cls(
            len(everything),
            {name: np.array([numbers[design] for design in own]) for name, own in pairs.items()},
            *({name: np.array([places[side] for places in own.values()]) for name, own in pairs.items()} for side in (0, 1)),
        )

    def halved(self, times: np.ndarray, draw: np.random.Generator) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """What is fitted and what is scored, by group: each half of the designs once, each design as often as `times` says.

        A design is never in both halves. Each half has at least three designs of every group.
        """
        while True:
            first = np.zeros(self.designs, dtype=bool)
            first[draw.permutation(self.designs)[: self.designs // 2]] = True
            sides = (first, ~first)
            if all(((side & (times > 0))[number]).sum() >= 3 for side in sides for number in self.number.values()):
                break
        for fitted, scored in (sides, sides[::-1]):
            yield (
                {name: np.repeat(self.here[name], (times * fitted)[number]) for name, number in self.number.items()},
                {name: np.repeat(self.there[name], (times * scored)[number]) for name, number in self.number.items()},
            )


def held_out_gain(
    fitted_on: Corpus, scored_on: Corpus, tables: Mapping[str, Mapping[str, np.ndarray]], resamples: int, seed: int
) -> dict[str, Any]:
    """Fit on one half of the designs, score on the other, of the same corpus or of another; for each of the `CHOSEN_AXES`.

    Returns, by group and on average over the groups, Spearman's coefficient of the fitted setting and of the default on designs
    that were not fitted to, and the gain, fitted − default, with its 95 % bootstrap interval: the designs are drawn with
    replacement, and each resample is halved again. ValueError if the two corpora share too few designs.
    """
    shared, draw = Shared.of(fitted_on, scored_on), np.random.default_rng(seed)
    numbers = {name: family(axes) for name, axes in CHOSEN_AXES.items()}
    default = GRID.index(DEFAULT)

    def scored(times: np.ndarray, splits: int) -> tuple[np.ndarray, dict[str, list[int]]]:
        """Means over halvings of the default's coefficient and each family's, (1 + families, groups); the settings fitted."""
        found: list[list[list[float]]] = []
        settings: dict[str, list[int]] = {name: [] for name in numbers}
        for _ in range(splits):
            for fitted, left_out in shared.halved(times, draw):
                means = mean_spearmans(tables[fitted_on.name], fitted_on.quality, fitted)
                for name, own in numbers.items():
                    settings[name].append(fit(means, own))
                rows = [default, *(own[-1] for own in settings.values())]
                found.append(
                    [
                        spearman(
                            tables[scored_on.name][name][np.ix_(np.array(rows), which)], scored_on.quality[name][which]
                        ).tolist()
                        for name, which in left_out.items()
                    ]
                )
        return np.mean(found, axis=0).T, settings

    values, settings = scored(np.ones(shared.designs, dtype=int), _SPLITS)
    spread: list[np.ndarray] = []
    while len(spread) < resamples:
        times = np.bincount(draw.integers(shared.designs, size=shared.designs), minlength=shared.designs)
        if min((times[number] > 0).sum() for number in shared.number.values()) >= LEAST:
            spread.append(scored(times, _SPLITS_OF_RESAMPLE)[0])
    gains = np.array(spread)[:, 1:] - np.array(spread)[:, :1]  # (resamples, families, groups)
    names = list(shared.number)
    return {
        "fitted_on": fitted_on.name,
        "scored_on": scored_on.name,
        "resamples": resamples,
        "default": _by_group(names, values[0]),
        "families": {
            what: {
                "fitted": _by_group(names, values[1 + place]),
                "gain": {
                    **{
                        name: _gain(values[1 + place][group] - values[0][group], gains[:, place, group])
                        for group, name in enumerate(names)
                    },
                    "mean": _gain(values[1 + place].mean() - values[0].mean(), gains[:, place].mean(axis=1)),
                },
                "chosen": _chosen([GRID[number] for number in settings[what]]),
            }
            for place, what in enumerate(CHOSEN_AXES)
        },
    }


def _by_group(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """A value for each group, and their mean."""
    return {**dict(zip(names, values.tolist(), strict=True)), "mean": float(values.mean())}


def _gain(value: float, spread: np.ndarray) -> dict[str, Any]:
    return {"value": float(value), "interval": list(interval(spread))}


def _both(left: Corpus, right: Corpus, name: str) -> dict[Architecture, tuple[int, int]]:
    """Designs of a group that were trained on both texts, with their places in either."""
    places = {design: place for place, design in enumerate(right.groups.get(name, ()))}
    return {design: (place, places[design]) for place, design in enumerate(left.groups[name]) if design in places}


def _chosen(settings: Sequence[EntropySetting]) -> dict[str, dict[str, int]]:
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
            by_group = {name: float(spearman(rows[number], corpus.quality[name])) for name, rows in table.items()}
            lines[axis].append({"value": value, "mean": fmean(by_group.values()), **by_group})
    return lines


def inverse_optimization() -> dict[str, Any]:
    """How near the published designs are to the optimum under every setting of the grid, and under which they are nearest.

    The nearest setting is the one of least largest loss that a global search finds (`nearest_setting`): found, not proved. Both
    settings' optima are proved once more by dynamic programming.
    """
    equals = published_equals()
    losses = losses_of_equals(equals, GRID)
    nearest = nearest_setting(equals, losses)
    proved = {}
    for name, setting in (("default", DEFAULT), ("nearest", nearest)):
        proved[name] = _proved_losses(setting)
        enumerated = losses_of_equals(equals, [setting])[0]
        if not np.allclose(list(proved[name].values()), enumerated, atol=1e-9):
            raise RuntimeError(f"dynamic programming and enumeration disagree for {name}: {proved[name]}, {enumerated}")
    return {
        "equals": {one.name: one.designs for one in equals},
        "default": {**DEFAULT.to_dict(), "losses": proved["default"]},
        "nearest": {**nearest.to_dict(), "losses": proved["nearest"]},
        "explained": max(proved["nearest"].values()) <= _EXPLAINED,
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


def nearest_setting(equals: Sequence[Equals], losses: np.ndarray) -> EntropySetting:
    """The setting of least largest loss found: by differential evolution for each mean width, made finer by a pattern search.

    Args:
        losses: of the grid, (settings, designs): its best point of each mean width takes part.
    """
    from scipy.optimize import differential_evolution

    found = []
    for mean in MEANS:
        own = [number for number, setting in enumerate(GRID) if setting.mean == mean]
        best = GRID[own[int(np.argmin(losses[own].max(axis=1)))]]
        evolved = differential_evolution(
            lambda point, mean=mean: float(losses_of_equals(equals, [_at(point, mean)]).max()),
            bounds=((-4, 6), (0, 1), (0, max(BETAS))),
            popsize=12,
            maxiter=60,
            polish=False,
            rng=0,
            x0=(np.log10(best.rho), best.attention, best.beta),
        )
        found.append(_between(_at(evolved.x, mean), equals))
    return found[int(np.argmin(losses_of_equals(equals, found).max(axis=1)))]


def _at(point: Sequence[float], mean: str) -> EntropySetting:
    """The setting at (log₁₀ ρ, α₁, β)."""
    return EntropySetting(float(10 ** point[0]), float(point[1]), float(point[2]), mean)


def _between(start: EntropySetting, equals: Sequence[Equals]) -> EntropySetting:
    """A setting near `start` whose largest loss no step of ρ, α₁ or β lowers, by a pattern search that halves its steps."""
    best, least = start, float(losses_of_equals(equals, [start]).max())
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
                    largest = float(losses_of_equals(equals, [setting]).max())
                    if largest < least - 1e-9:
                        best, least, better = setting, largest, True
    return best


def _problem(setting: EntropySetting, name: str) -> DesignProblem:
    budgets = tuple(Budget(cost, cost(PUBLISHED[name])) for cost in (Flops(), Params()))
    return DesignProblem(paper_space(), setting.entropy, budgets)


def _proved_losses(setting: EntropySetting) -> dict[str, float]:
    losses = {}
    for name, design in PUBLISHED.items():
        problem = _problem(setting, name)
        losses[name] = 1 - problem.objective(design) / problem.objective(_optimum(problem))
    return losses


def sensitivity() -> dict[str, list[dict[str, Any]]]:
    """The proven optimum at each published design's own FLOPs as one choice moves: does the design change, and what would it cost?

    - `regret`: what the default's optimum loses under the moved setting, relative
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
    if solution.status is not Status.OPTIMAL:
        raise RuntimeError(f"no optimum was proved within 120 s (status {solution.status.value}); run the command again")
    return solution.architecture


def verdict(validated: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether the defaults should change: only where settings fitted on either text do better on other designs of both texts.

    - `pairs`: of the text fitted on and the text scored on
    - `better`: by what a fit may move: those in which the whole interval of the mean gain is above 0
    """
    better = {
        what: sum(one["families"][what]["gain"]["mean"]["interval"][0] > 0 for one in validated)
        for what in CHOSEN_AXES
        if validated
    }
    pairs = len(validated)
    return {"pairs": pairs, "better": better, "change_defaults": pairs > 1 and max(better.values()) == pairs}


def _text(record: dict[str, Any]) -> str:
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
        + ("one brings all three within 1 %" if inverse["explained"] else "no setting that was found brings all three within 1 %")
    )
    if record["held_out"]:
        rows = [
            (
                pair["fitted_on"],
                pair["scored_on"],
                what,
                f"{pair['default']['mean']:+.3f}",
                f"{one['fitted']['mean']:+.3f}",
                *(with_interval(gain["value"], gain["interval"], "+.3f") for gain in one["gain"].values()),
            )
            for pair in record["held_out"]
            for what, one in pair["families"].items()
        ]
        groups = [f"gain, {name}" for name in record["held_out"][0]["families"]["β alone"]["gain"]]
        header = ("fitted on", "scored on other designs of", "moved", "default", "fitted", *groups)
        lines.append(text_table(header, rows, left={0, 1, 2}))
        decision = record["verdict"]
        told = ", ".join(f"{what} {number}" for what, number in decision["better"].items())
        lines.append(
            "Spearman of designs that were not fitted to, mean over the groups; pairs of texts, of "
            f"{decision['pairs']}, in which fitting is clearly better: {told}. The defaults "
            + ("should change" if decision["change_defaults"] else "stay")
        )
    for axis, one in record["sensitivity"].items():
        changed, regret = sum(not line["same"] for line in one), max(line["regret"] for line in one)
        lines.append(f"{axis}: {changed} of {len(one)} optima differ from the default's, which loses {100 * regret:.2f} % at most")
    return "\n".join(lines)


def setting_text(one: Mapping[str, Any]) -> str:
    """A setting in a cell."""
    return f"{one['rho']:g}, {one['alpha'][0]:g}, {one['beta']:.4g}, {one['mean']}"


@dataclass(frozen=True)
class CalibrationOptions:
    """What the study was asked for, see --help; ValueError for fewer than one resample."""

    corpus: tuple[str, ...]
    resamples: int
    seed: int
    output: str

    def __post_init__(self) -> None:
        positive_integer("resamples", self.resamples)


@command
def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(CalibrationOptions, command_line(), arguments)
    corpora = [read_corpus(Path(folder)) for folder in options.corpus]
    if len({corpus.name for corpus in corpora}) < len(corpora):
        raise ValueError("two folders have one name, which would stand for both texts; rename one")
    corpora = on_common_groups(corpora)
    folder = output_folder(options.output)
    tables = {corpus.name: score_table(corpus) for corpus in corpora}
    fits = []
    for corpus in corpora:
        everything = {name: np.arange(len(own)) for name, own in corpus.groups.items()}
        means = mean_spearmans(tables[corpus.name], corpus.quality, everything)
        best = fit(means, np.arange(len(GRID)))
        fits.append({"corpus": corpus.name, "data": corpus.data, **GRID[best].to_dict(), "score_on_itself": float(means[best])})
    validated = [held_out_gain(left, right, tables, options.resamples, options.seed) for left in corpora for right in corpora]
    record = {
        "format": CALIBRATION_FORMAT,
        "version": CALIBRATION_VERSION,
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
    print(_text(record))
    from studies.calibration.figures import calibration_figure

    save_figure(calibration_figure(record), folder / "calibration.png")
    write_json(folder / "calibration.json", record)
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("corpus", nargs="*", metavar="FOLDER", help="folders of studies.proxy_correlation")
    parser.add_argument(
        "--resamples", type=int, default=200, metavar="N", help="bootstrap resamples of the designs (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples and halvings (default: %(default)s)")
    parser.add_argument(
        "--output", default="results/calibration", metavar="DIR", help="folder of the results (default: %(default)s)"
    )
    return parser
