"""Rank correlations with their intervals, and what counting pairs of tokens achieves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from studies.bigram import counted_losses
from studies.rank_correlation import kendall, rank_correlations, spearman


def test_coefficients_are_scipys() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        left, right = draw.integers(0, 8, 30), draw.integers(0, 8, 30)  # with ties
        assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)
        assert kendall(left, right) == pytest.approx(kendalltau(left, right).statistic)
    assert spearman(np.ones(5), np.arange(5)) == kendall(np.ones(5), np.arange(5)) == 0.0


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
