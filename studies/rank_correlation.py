"""How well a score ranks trained designs: Spearman's and Kendall's coefficients with bootstrap intervals, several scores paired."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Of one score with the trained quality, over some designs; intervals hold 95 % of the bootstrap resamples (percentiles).

    spearman, kendall   ρ and τ_b; NaN-free: a score that is the same for every design has 0, as it ranks nothing
    leads               share of the resamples in which this score's Spearman is the highest of those compared; ties are shared;
                        None for a score that is only shown beside them
    behind              the first score's Spearman minus this one's, on the same designs
    """

    designs: int
    spearman: float
    spearman_interval: tuple[float, float]
    kendall: float
    kendall_interval: tuple[float, float]
    leads: float | None
    behind: float
    behind_interval: tuple[float, float]


def spearman(score: np.ndarray, quality: np.ndarray) -> float:
    """Pearson's coefficient of the ranks, ties at their mean rank; 0 where one side is constant."""
    left, right = rankdata(score), rankdata(quality)
    left, right = left - left.mean(), right - right.mean()
    norm = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / norm if norm else 0.0


def kendall(score: np.ndarray, quality: np.ndarray) -> float:
    """τ_b; 0 where one side is constant."""
    value = float(kendalltau(score, quality).statistic)
    return 0.0 if math.isnan(value) else value


def rank_correlations(
    scores: Mapping[str, np.ndarray],
    quality: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    beside: Collection[str] = (),
) -> dict[str, RankCorrelation]:
    """The correlation of each score, (n,), with `quality`, (n,): designs are drawn with replacement, the same for all scores.

    beside  scores that do not compete for the lead, such as one that was fitted to these very designs

    ValueError for fewer than 3 designs, which no coefficient says anything about.
    """
    if len(quality) < 3:
        raise ValueError(f"there are {len(quality)} trained designs; a rank correlation needs at least 3")
    draw = np.random.default_rng(seed)
    spearmans = {name: np.empty(resamples) for name in scores}
    kendalls = {name: np.empty(resamples) for name in scores}
    for number in range(resamples):
        chosen = draw.integers(len(quality), size=len(quality))
        for name, score in scores.items():
            spearmans[name][number] = spearman(score[chosen], quality[chosen])
            kendalls[name][number] = kendall(score[chosen], quality[chosen])
    competing = [name for name in scores if name not in beside]
    table = np.array([spearmans[name] for name in competing])
    best = table >= table.max(axis=0) - 1e-12
    leads = dict(zip(competing, (best / best.sum(axis=0)).mean(axis=1).tolist(), strict=True))
    first = next(iter(scores))
    return {
        name: RankCorrelation(
            designs=len(quality),
            spearman=(own := spearman(score, quality)),
            spearman_interval=_interval(spearmans[name]),
            kendall=kendall(score, quality),
            kendall_interval=_interval(kendalls[name]),
            leads=leads.get(name),
            behind=spearman(scores[first], quality) - own,
            behind_interval=_interval(spearmans[first] - spearmans[name]),
        )
        for name, score in scores.items()
    }


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
