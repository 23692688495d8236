"""Rank correlations with their intervals, and what counting pairs of tokens achieves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from studies.proxy_correlation.bigram import counted_losses
from studies.trained.rank_correlation import (
    holm,
    kendall,
    rank_correlations,
    resampled,
    resampled_kendall,
    resampled_spearman,
    spearman,
)


def test_coefficients_are_scipys() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        left, right = draw.integers(0, 8, 30), draw.integers(0, 8, 30)  # with ties
        assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)
        assert kendall(left, right) == pytest.approx(kendalltau(left, right).statistic)
    assert spearman(np.ones(5), np.arange(5)) == kendall(np.ones(5), np.arange(5)) == 0.0


def test_a_resample_has_the_coefficients_of_its_designs() -> None:
    draw = np.random.default_rng(3)
    score, quality = draw.integers(0, 6, 15).astype(float), draw.integers(0, 6, 15).astype(float)
    quality[4] = quality[7] = -np.inf  # two designs that diverged
    times = resampled(15, 40, seed=0)
    assert (times.sum(axis=1) == 15).all()
    found = zip(times.astype(int), resampled_spearman(score, quality, times), resampled_kendall(score, quality, times), strict=True)
    for often, own_spearman, own_kendall in found:
        chosen = np.repeat(np.arange(15), often)
        ranks = np.argsort(np.argsort(quality, kind="stable"), kind="stable")  # scipy's coefficients have no infinities
        finite = np.array([ranks[quality == value].min() for value in quality])
        assert own_spearman == pytest.approx(spearmanr(score[chosen], finite[chosen]).statistic)
        assert own_kendall == pytest.approx(kendalltau(score[chosen], finite[chosen]).statistic)
    rows = draw.normal(size=(3, 15))
    assert spearman(rows, quality) == pytest.approx([float(spearman(row, quality)) for row in rows])


def test_intervals_cover_and_do_not_hang_on_the_seed() -> None:
    draw = np.random.default_rng(4)
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # Spearman's coefficient of a normal pair of correlation 0.8
    covered = 0
    for _ in range(200):
        quality = draw.normal(size=60)
        low, high = rank_correlations({"a": 0.8 * quality + 0.6 * draw.normal(size=60)}, quality, resamples=400)[
            "a"
        ].spearman_interval
        covered += low <= truth <= high
    assert 0.88 <= covered / 200 <= 0.99
    quality = draw.normal(size=81)
    scores = {name: quality + draw.normal(size=81) for name in ("a", "b")}
    ends = np.array([rank_correlations(scores, quality, seed=seed)["b"].behind_interval for seed in range(4)])
    assert np.ptp(ends, axis=0).max() < 0.01


def test_holms_steps() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_intervals_hold_the_coefficient_and_narrow_with_more_designs() -> None:
    draw = np.random.default_rng(1)
    widths = []
    for count in (20, 200):
        quality = draw.normal(size=count)
        scores = {
            "good": quality + 0.3 * draw.normal(size=count),
            "poor": quality + 3 * draw.normal(size=count),
            "same": np.ones(count),
        }
        found = rank_correlations(scores, quality, resamples=200)
        assert found["good"].spearman > found["poor"].spearman
        assert found["good"].leads > 0.95
        assert sum(one.leads for one in found.values()) == pytest.approx(1)
        assert found["same"].spearman_interval == (0.0, 0.0)
        assert (found["good"].behind, found["good"].behind_interval) == (0.0, (0.0, 0.0))
        assert found["poor"].behind_interval[0] > 0
        low, high = found["good"].kendall_interval
        assert low <= found["good"].kendall <= high
        widths.append(high - low)
        assert found == rank_correlations(scores, quality, resamples=200)
        assert found["good"].behind_p == 1
        assert found["poor"].behind_p < 0.05
        twice = rank_correlations({**scores, "good too": 2 * scores["good"]}, quality, resamples=200)
        assert twice["good too"].leads == twice["good"].leads == found["good"].leads
        beside = rank_correlations(scores, quality, resamples=200, beside=("good",))
        assert beside["good"].leads is None
        assert beside["poor"].leads + beside["same"].leads == pytest.approx(1)
    assert widths[1] < widths[0] / 2


def test_two_designs_say_nothing() -> None:
    with pytest.raises(ValueError, match="2 trained designs; a rank correlation needs at least 3"):
        rank_correlations({"a": np.arange(2)}, np.arange(2))


def test_bigram_learns_pairs_and_sums_to_one() -> None:
    draw = np.random.default_rng(2)
    follows = draw.permutation(8)
    rows = np.empty((200, 20), dtype=np.uint16)
    rows[:, 0] = draw.integers(8, size=200)
    for place in range(1, 20):
        noise = draw.random(200) < 0.1
        rows[:, place] = np.where(noise, draw.integers(8, size=200), follows[rows[:, place - 1]])
    found = counted_losses(rows[:150], rows[150:], 8)
    assert found.tokens == 3000
    assert found.unigram == pytest.approx(math.log(8), rel=0.05)
    assert 0.4 < found.bigram < 0.8  # the source's own: 0.59
    # The probabilities of all successors of one context sum to 1, for one that was seen and for one that was not.
    for context in (0, 8):
        pairs = np.array([[context, after] for after in range(9)], dtype=np.uint16)
        losses = [counted_losses(rows[:150], pair[None], 9).bigram for pair in pairs]
        assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1)
