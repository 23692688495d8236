"""How well a score ranks trained designs: Spearman's and Kendall's coefficients with bootstrap intervals, several scores paired."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 20_000
"""Of the designs: the ends of an interval then move by some 0.003 from one seed to the next."""
LEVEL = 0.95


@dataclass(frozen=True)
class RankCorrelation:
    """Of one score with the trained quality, over some designs; intervals hold 95 % of the bootstrap resamples (percentiles).

    Attributes:
        spearman: ρ and τ_b; NaN-free: a score that is the same for every design has 0, as it ranks nothing.
        kendall: ρ and τ_b; NaN-free: a score that is the same for every design has 0, as it ranks nothing.
        leads: share of the resamples in which this score's Spearman is the highest of those compared; scores that tie share it, and
            two that rank all designs alike count as one and have it both; None for a score that is only shown beside them.
        behind: the first score's Spearman minus this one's, on the same designs.
        behind_p: two-sided bootstrap p-value of behind = 0: twice the share of the resamples on the rarer side of 0.
    """

    designs: int
    spearman: float
    spearman_interval: tuple[float, float]
    kendall: float
    kendall_interval: tuple[float, float]
    leads: float | None
    behind: float
    behind_interval: tuple[float, float]
    behind_p: float


def spearman(scores: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Pearson's coefficient of the ranks, ties at their mean rank, of each row of scores, (..., n), with `quality`, (n,).

    0 where one side is constant.
    """
    from scipy.stats import rankdata

    left, right = rankdata(scores, axis=-1), rankdata(quality)
    left, right = left - left.mean(axis=-1, keepdims=True), right - right.mean()
    norms = np.sqrt((left**2).sum(axis=-1) * (right @ right))
    return np.divide(left @ right, norms, out=np.zeros(left.shape[:-1]), where=norms > 0)


def kendall(score: np.ndarray, quality: np.ndarray) -> float:
    """τ_b; 0 where one side is constant."""
    from scipy.stats import kendalltau

    value = float(kendalltau(score, quality).statistic)
    return 0.0 if math.isnan(value) else value


def alike(score: np.ndarray, other: np.ndarray) -> bool:
    """Whether two scores rank the designs in the same way, ties included."""
    from scipy.stats import rankdata

    return bool(np.array_equal(rankdata(score), rankdata(other)))


def resampled(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `count` designs is drawn in each bootstrap resample, (resamples, count)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)


def resampled_spearman(score: np.ndarray, quality: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Spearman's coefficient in each resample, (R,), of designs drawn so many `times`, (R, n); 0 where one side is constant.

    A design drawn w times stands for w designs of one mean rank: what lies below it, and half of what is equal to it.
    """
    below = [(one[:, None] < one).astype(float) + (one[:, None] == one) / 2 for one in (score, quality)]
    left, right = (times @ half for half in below)
    totals = times.sum(axis=1, keepdims=True)
    left, right = (ranks - (times * ranks).sum(axis=1, keepdims=True) / totals for ranks in (left, right))
    norms = np.sqrt((times * left**2).sum(axis=1) * (times * right**2).sum(axis=1))
    return _quotient((times * left * right).sum(axis=1), norms)


def resampled_kendall(score: np.ndarray, quality: np.ndarray, times: np.ndarray) -> np.ndarray:
    """τ_b in each resample, as `resampled_spearman`: concordant minus discordant pairs over the pairs without a tie."""
    from scipy.stats import rankdata

    left, right = (np.sign(one[:, None] - one) for one in (rankdata(score), rankdata(quality)))  # infinities have no differences

    def pairs(signs: np.ndarray) -> np.ndarray:
        return np.asarray(((times @ signs) * times).sum(axis=1))

    return _quotient(pairs(left * right), np.sqrt(pairs(left**2) * pairs(right**2)))


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 1e-9)


def rank_correlations(
    scores: Mapping[str, np.ndarray],
    quality: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    beside: Collection[str] = (),
) -> dict[str, RankCorrelation]:
    """The correlation of each score, (n,), with `quality`, (n,): designs are drawn with replacement, the same for all scores.

    Args:
        beside: scores that do not compete for the lead, such as one that was fitted to these very designs.

    ValueError for fewer than 3 designs, which no coefficient says anything about.
    """
    if len(quality) < 3:
        raise ValueError(f"there are {len(quality)} trained designs; a rank correlation needs at least 3")
    times = resampled(len(quality), resamples, seed)
    spearmans = {name: resampled_spearman(score, quality, times) for name, score in scores.items()}
    leads = _leads({name: scores[name] for name in scores if name not in beside}, spearmans)
    first = next(iter(scores))
    own = {name: float(spearman(score, quality)) for name, score in scores.items()}
    found = {}
    for name, score in scores.items():
        apart = spearmans[first] - spearmans[name]
        found[name] = RankCorrelation(
            designs=len(quality),
            spearman=own[name],
            spearman_interval=interval(spearmans[name]),
            kendall=kendall(score, quality),
            kendall_interval=interval(resampled_kendall(score, quality, times)),
            leads=leads.get(name),
            behind=own[first] - own[name],
            behind_interval=interval(apart),
            behind_p=min(1.0, 2 * min(float((apart <= 0).mean()), float((apart >= 0).mean()))),
        )
    return found


def _leads(scores: Mapping[str, np.ndarray], spearmans: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of the resamples that each score leads."""
    classes: list[list[str]] = []
    for name, score in scores.items():
        same = next((own for own in classes if alike(score, scores[own[0]])), None)
        if same is None:
            classes.append([name])
        else:
            same.append(name)
    table = np.array([spearmans[own[0]] for own in classes])
    best = table >= table.max(axis=0) - 1e-9
    shares = (best / best.sum(axis=0)).mean(axis=1).tolist()
    return {name: share for own, share in zip(classes, shares, strict=True) for name in own}


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The percentiles that hold 95 % of the values."""
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def with_interval(value: float, ends: Sequence[float], form: str = "+.2f") -> str:
    """A value with the ends of its interval, for people."""
    return f"{value:{form}} [{ends[0]:{form}}, {ends[1]:{form}}]"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: the k-th smallest of m times m − k + 1, and none below one before it."""
    adjusted: dict[str, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = least
    return adjusted
