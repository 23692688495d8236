"""Fitting prices to measurements, and the error of a prediction: known values and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr, t

from hardware_models.fit import PROBABILITIES, assign_folds, cross_validated, fit_error, nonnegative_fit, robust_fit

SEEDS = st.integers(0, 2**32 - 1)


def random_work(seed: int, networks: int = 30, kinds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Work of random networks, in units of very different size, and prices of it, some of them nothing."""
    rng = np.random.default_rng(seed)
    work = rng.uniform(0.5, 5, (networks, kinds)) * 10.0 ** rng.integers(-6, 7, kinds)
    prices = rng.uniform(0.1, 1, kinds) / work.mean(axis=0) * (rng.random(kinds) < 0.7)
    return work, prices


@given(SEEDS)
def test_exact_data_give_their_prices(seed: int) -> None:
    work, prices = random_work(seed)
    assume(prices.any())
    share = work.mean(axis=0)
    assert share * nonnegative_fit(work, work @ prices) == pytest.approx(share * prices, rel=1e-6, abs=1e-6)
    assert cross_validated(work, work @ prices, seed=seed) == pytest.approx(work @ prices, rel=1e-6)


@given(SEEDS)
def test_a_price_is_never_negative_and_none_lies_nearer(seed: int) -> None:
    work, _ = random_work(seed)
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 100, len(work))
    prices = nonnegative_fit(work, values)
    assert (prices >= 0).all()

    def loss(prices: np.ndarray) -> float:
        return float((((work @ prices - values) / values) ** 2).sum())

    scale = 1 / work.mean(axis=0)
    for _ in range(20):
        nearby = np.maximum(0, prices + rng.normal(0, 0.1, len(prices)) * scale)
        assert loss(prices) <= loss(nearby) * (1 + 1e-9)


@given(SEEDS, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_units_change_nothing(seed: int, of_work: float, of_values: float) -> None:
    work, _ = random_work(seed)
    values = np.random.default_rng(seed).uniform(1, 100, len(work))
    prices = nonnegative_fit(work, values)
    assert nonnegative_fit(work * of_work, values * of_values) == pytest.approx(prices * of_values / of_work, rel=1e-6)


def test_a_slow_occasion_hardly_moves_a_robust_fit() -> None:
    values = np.array([1.0] * 20 + [1.5] * 3)
    work = np.ones((23, 1))
    assert robust_fit(work, values)[0] == pytest.approx(1.0, abs=0.01)
    assert nonnegative_fit(work, values)[0] > 1.03


@given(SEEDS)
def test_a_robust_fit_is_never_negative_and_gives_exact_prices(seed: int) -> None:
    work, prices = random_work(seed)
    assume(prices.any())
    share = work.mean(axis=0)
    assert share * robust_fit(work, work @ prices) == pytest.approx(share * prices, rel=1e-6, abs=1e-6)
    assert (robust_fit(work, np.random.default_rng(seed).uniform(1, 100, len(work))) >= 0).all()


def test_work_that_no_network_does_costs_nothing() -> None:
    assert nonnegative_fit([[1, 0], [2, 0], [3, 0]], [2, 4, 6]) == pytest.approx([2, 0])


def test_relative_error_decides() -> None:
    """Of one price, the least-squares solution of Σ (b/y − 1)² is Σ(1/y) / Σ(1/y²)."""
    assert nonnegative_fit([[1.0], [1.0]], [1.0, 2.0]) == pytest.approx([1.5 / 1.25])


@pytest.mark.parametrize(
    ("features", "values", "sentence"),
    [
        ([[1.0, 2.0]], [1.0], "1 networks cannot price 2 kinds of work"),
        ([[1.0], [math.nan]], [1.0, 2.0], "a feature is not finite"),
        ([[1.0], [2.0]], [1.0, 0.0], "values hold 0; expected positive, finite numbers"),
        ([[1.0], [2.0]], [1.0, -3.0], "values hold -3"),
        ([[1.0], [2.0]], [1.0, math.inf], "values hold inf"),
        ([1.0, 2.0], [1.0, 2.0], "features have shape"),
        ([[1.0], [2.0]], [1.0], "features have shape"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: list, values: list, sentence: str) -> None:
    for fit in (nonnegative_fit, robust_fit):
        with pytest.raises(ValueError, match=sentence):
            fit(features, values)


@given(SEEDS, st.integers(2, 10), st.integers(10, 60))
def test_a_group_stays_together_and_folds_are_even(seed: int, folds: int, count: int) -> None:
    fold = assign_folds(count, folds, seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    groups = np.random.default_rng(seed).integers(0, 40, count)
    assume(len(set(groups)) >= folds)
    fold = assign_folds(count, folds, seed, list(groups))
    assert set(fold) == set(range(folds))
    for group in set(groups):
        assert len(set(fold[groups == group])) == 1
    assert (fold == assign_folds(count, folds, seed, list(groups))).all()


def test_leave_one_out() -> None:
    work, values = np.ones((3, 1)), np.array([1.0, 2.0, 4.0])
    predicted = cross_validated(work, values, folds=3)
    assert predicted == pytest.approx([nonnegative_fit(work[[1, 2]], values[[1, 2]])[0], 1.25 / 1.0625, 1.2])


@pytest.mark.parametrize(
    ("count", "folds", "groups", "sentence"),
    [
        (5, 10, None, "10 folds of 5 rows; expected 2 to 5 folds"),
        (5, 1, None, "1 folds of 5 rows"),
        (4, 3, ["a", "a", "b", "b"], "3 folds of 2 groups"),
        (4, 2, ["a", "b"], "2 group labels for 4 rows"),
    ],
)
def test_folds_that_cannot_be_are_refused(count: int, folds: int, groups: list[str] | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        assign_folds(count, folds, groups=groups)


def test_known_error() -> None:
    error = fit_error([100.0, 90.0, 120.0, 300.0], [100.0, 100.0, 100.0, 200.0])
    assert (error.networks, error.within_10) == (4, 0.5)
    assert error.mape == pytest.approx((0 + 0.1 + 0.2 + 0.5) / 4)
    assert error.rmse == pytest.approx(math.sqrt((100 + 400 + 10000) / 4))
    assert error.spearman == pytest.approx(spearmanr([100, 90, 120, 300], [100, 100, 100, 200]).statistic)
    assert [probability for probability, _ in error.quantiles] == list(PROBABILITIES)
    assert error.quantiles[0][1] == pytest.approx(1.0)  # the third smallest of 2/3, 5/6, 1, 10/9
    logs = np.log([1, 10 / 9, 5 / 6, 2 / 3])
    expected = math.exp(logs.mean() + t.ppf(0.9, 3) * logs.std(ddof=1) * math.sqrt(1.25))
    assert error.quantiles[2][1] == pytest.approx(expected)


def test_quantiles_are_conformal_order_statistics() -> None:
    ratios = np.arange(1, 200) / 100
    quantiles = dict(fit_error(np.ones(199), np.random.default_rng(0).permutation(ratios)).quantiles)
    assert quantiles == pytest.approx({0.5: 1.0, 0.8: 1.6, 0.9: 1.8, 0.95: 1.9, 0.975: 1.95, 0.99: 1.98})


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=150), SEEDS)
def test_quantiles_are_ordered_and_finite(predicted: list[float], seed: int) -> None:
    measured = np.array(predicted) * np.exp(np.random.default_rng(seed).normal(0, 0.3, len(predicted)))
    error = fit_error(predicted, measured)
    ratios = [ratio for _, ratio in error.quantiles]
    assert ratios == sorted(ratios)
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
    assert -1 <= error.spearman <= 1
    assert 0 <= error.within_10 <= 1


@given(SEEDS, st.floats(1e-3, 1e3))
def test_an_error_does_not_depend_on_the_unit(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, measured = rng.uniform(1, 2, (2, 40))
    one, other = fit_error(predicted, measured), fit_error(predicted * unit, measured * unit)
    assert other.rmse == pytest.approx(one.rmse * unit)
    assert (other.mape, other.spearman) == pytest.approx((one.mape, one.spearman))
    assert np.array(other.quantiles) == pytest.approx(np.array(one.quantiles))


def test_the_conformal_promise_is_kept() -> None:
    """A further network stays below the quantile in at least that share of many draws, for a few networks as for many."""
    rng = np.random.default_rng(0)
    for networks in (9, 40):
        kept = np.zeros(len(PROBABILITIES))
        for _ in range(2000):
            ratios = np.exp(rng.normal(0, 0.2, networks + 1))
            quantiles = fit_error(np.ones(networks), ratios[:-1]).quantiles
            kept += [ratios[-1] <= ratio for _, ratio in quantiles]
        assert (kept / 2000 >= np.array(PROBABILITIES) - 0.03).all()


@pytest.mark.parametrize(
    ("predicted", "measured", "sentence"),
    [
        ([1.0], [1.0], "expected two or more of each"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], "expected two or more of each"),
        ([0.0, 2.0], [1.0, 2.0], "predictions hold 0"),
        ([1.0, 2.0], [1.0, math.nan], "measurements hold nan"),
    ],
)
def test_an_error_that_is_none_is_refused(predicted: list[float], measured: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_error(predicted, measured)


def test_no_variation_is_no_correlation() -> None:
    assert fit_error([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).spearman == 0


@pytest.mark.parametrize("groups", [None, "four of a kind"])
@pytest.mark.parametrize("fit", [nonnegative_fit, robust_fit])
def test_a_prediction_comes_from_a_fit_that_has_not_seen_its_value(fit, groups: str | None) -> None:
    """Whatever a row's own fold holds, its prediction is the same; and it is that of a fit to the rows of the other folds."""
    rng = np.random.default_rng(5)
    work = rng.uniform(0.5, 5, (24, 3))
    values = work @ [1.0, 0.3, 2.0] * np.exp(rng.normal(0, 0.3, 24))
    labels = None if groups is None else [row // 4 for row in range(24)]
    fold = assign_folds(24, 5, 2, labels)
    predicted = cross_validated(work, values, 5, 2, labels, fit)
    assert (predicted != work @ fit(work, values)).all()
    for number in range(5):
        inside = [row for row in range(24) if fold[row] == number]
        outside = [row for row in range(24) if fold[row] != number]
        prices = fit(work[outside], values[outside])
        assert predicted[inside] == pytest.approx([float(np.dot(work[row], prices)) for row in inside], rel=1e-12)
        disturbed = values.copy()
        disturbed[inside] *= rng.uniform(0.1, 10, len(inside))
        assert (cross_validated(work, disturbed, 5, 2, labels, fit)[inside] == predicted[inside]).all()


def test_the_error_of_a_fit_is_that_on_data_really_left_out() -> None:
    """With as many prices as rows to fit them to, a fit that has seen a value meets it: only the data left out show the noise."""
    rng = np.random.default_rng(8)
    errors, left_out = [], []
    for _ in range(40):
        work = rng.uniform(0.5, 5, (12, 4))
        values = work @ [1.0, 0.3, 2.0, 0.5] * np.exp(rng.normal(0, 0.2, 12))
        errors.append(fit_error(cross_validated(work, values, folds=3), values).mape)
        further = rng.uniform(0.5, 5, (200, 4))
        truth = further @ [1.0, 0.3, 2.0, 0.5] * np.exp(rng.normal(0, 0.2, 200))
        prices = nonnegative_fit(work[:8], values[:8])  # as many rows as two folds of three have
        left_out.append(np.abs(further @ prices / truth - 1).mean())
        assert np.abs(work @ nonnegative_fit(work, values) / values - 1).mean() < errors[-1]
    assert np.mean(errors) == pytest.approx(np.mean(left_out), rel=0.1)
