"""Fitting prices of work to measured latencies, and saying how near the predictions come to measurements.

Plain arrays in, plain arrays out: which kinds of work there are is `hardware_models.workload`, what a table is
`hardware_models.latency`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

PROBABILITIES = (0.5, 0.8, 0.9, 0.95, 0.975, 0.99)
"""Probabilities at which a `FitError` states its quantiles."""
NEAR_ERROR = 0.1
"""Relative error up to which a prediction counts as near, the measure of HAT, nn-Meter and their users."""
LARGE_ERROR = 0.2
"""Mean relative error above which predictions are doubtful.

The FLOPs of the layers alone come as near to the nine latencies that are published for the Jetson Nano, left one out: a table with
a larger error tells no more than such a count does.
"""

_WORTH, _SAME = 0.05, 1e-6
"""Share of the error by which a kind of work must lower it to be priced, and what is too little to be a difference."""

_HUBER, _STEPS = 0.02, 30
"""Relative error beyond which `robust_fit` counts it linearly, and its steps of reweighting."""


@dataclass(frozen=True)
class FitError:
    """How near predictions p come to measurements m of networks that the fit had not seen.

    Attributes:
        networks: how many.
        mape: mean of |p − m| / m, a fraction.
        within_10: share of networks with |p − m| ≤ 0.1·m.
        spearman: rank correlation of p and m; 0 where one of them is the same for every network.
        rmse: root of the mean of (p − m)², in the unit of the values.
        quantiles: (probability, the ratio m / p that a further network stays below with that probability).

    Raises:
        ValueError: for a number that no error can have, and unless there are two quantiles or more, both entries rising.
    """

    networks: int
    mape: float
    within_10: float
    spearman: float
    rmse: float
    quantiles: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        for name in ("networks", "mape", "within_10", "rmse"):
            if not 0 <= getattr(self, name) < math.inf or (name == "networks" and self.networks < 1):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a number of at least {int(name == 'networks')}")
        if not -1 <= self.spearman <= 1:
            raise ValueError(f"spearman is {self.spearman!r}; expected a number from -1 to 1")
        for pair in self.quantiles:
            if not (0 < pair[0] < 1 and 0 < pair[1] < math.inf):
                raise ValueError(f"a quantile is {pair}; expected (probability, ratio measured / predicted)")
        if len(self.quantiles) < 2 or any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(self.quantiles)):
            raise ValueError(f"the quantiles are {self.quantiles}; expected two or more, both entries rising")

    @property
    def large(self) -> bool:
        """Whether the mean error exceeds `LARGE_ERROR`."""
        return self.mape > LARGE_ERROR


def fit_error(predicted: Any, measured: Any) -> FitError:
    """The error of out-of-sample predictions, both arrays (n,) in one unit.

    The quantile of m / p at probability P is the ⌈(n + 1)P⌉-th smallest ratio: a further network that is exchangeable with
    these n stays below it with probability at least P, whatever the distribution (split conformal prediction: Vovk, Gammerman
    and Shafer 2005; Lei et al. 2018, section 2.2). Where n is too small for that rank, it is the prediction quantile of a
    log-normal: exp(mean + t_{n−1,P}·s·√(1 + 1/n)), with mean and standard deviation s of log(m / p) and Student's t; never
    less than the quantile of a smaller probability. ValueError for fewer than two networks, other shapes, or a number that is
    not positive and finite.
    """
    p, m = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    if p.ndim != 1 or p.shape != m.shape or len(p) < 2:
        raise ValueError(f"predictions have shape {p.shape}, measurements {m.shape}; expected two or more of each, as many")
    _check_positive("predictions", p)
    _check_positive("measurements", m)
    relative = np.abs(p - m) / m
    return FitError(
        networks=len(m),
        mape=float(relative.mean()),
        within_10=float((relative <= NEAR_ERROR).mean()),
        spearman=_spearman(p, m),
        rmse=float(np.sqrt(np.mean((p - m) ** 2))),
        quantiles=_quantiles(m / p),
    )


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    """Correlation of ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    a, b = (ranks - ranks.mean() for ranks in (rankdata(left), rankdata(right)))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / norm, -1, 1)) if norm else 0.0


def _quantiles(ratios: np.ndarray) -> tuple[tuple[float, float], ...]:
    from scipy.stats import t as student

    count, logs = len(ratios), np.log(ratios)
    spread = logs.std(ddof=1) * math.sqrt(1 + 1 / count)
    ordered, quantiles, least = np.sort(ratios), [], 0.0
    for probability in PROBABILITIES:
        rank = math.ceil((count + 1) * probability - 1e-9)
        ratio = ordered[rank - 1] if rank <= count else math.exp(logs.mean() + student.ppf(probability, count - 1) * spread)
        least = max(least, float(ratio))
        quantiles.append((probability, least))
    return tuple(quantiles)


def nonnegative_fit(features: Any, values: Any) -> np.ndarray:
    """Prices b ≥ 0 of k kinds of work, (k,), that minimise the relative error Σ_i ((x_i·b − y_i) / y_i)².

    features: work of each kind in each network, (n, k); values: their measurements, (n,). Solved exactly by active sets
    (Lawson & Hanson 1974), with columns scaled to one length. ValueError for fewer networks than kinds, work that is not
    finite, or values that are not positive and finite.
    """
    x, y = _checked(features, values)
    return _weighted_fit(x / y[:, None], np.ones(len(y)))


def selecting_fit(always: int, folds: int = 5) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A `nonnegative_fit` of the first `always` kinds of work, and of those others without which networks are predicted worse.

    Others join one by one: each time the one that most lowers the mean relative error of networks that the fit has not seen
    (`cross_validated`), as long as it lowers it by `_WORTH`. A kind that is a sum of multiples of those before it tells nothing and
    never joins. The price of what was not chosen is 0.

    Args:
        always: how many kinds are not chosen.
        folds: of the cross-validation.
    """

    def fit(features: np.ndarray, values: np.ndarray) -> np.ndarray:
        chosen = list(range(always))

        def error(kinds: list[int]) -> float:
            return float(np.mean(np.abs(cross_validated(features[:, kinds], values, folds) / values - 1)))

        least = math.inf
        while others := [kind for kind in _telling(features, chosen) if len(chosen) < len(values) * (folds - 1) // folds]:
            least = error(chosen) if least == math.inf else least
            best = min(others, key=lambda kind: error([*chosen, kind]))
            if least - (reached := error([*chosen, best])) < max(_WORTH * least, _SAME):
                break
            chosen, least = [*chosen, best], reached
        prices = np.zeros(features.shape[1])
        prices[chosen] = nonnegative_fit(features[:, chosen], values)
        return prices

    return fit


def _telling(features: np.ndarray, known: list[int]) -> list[int]:
    """The kinds of work that are no sum of multiples of those known."""
    lengths = np.linalg.norm(features, axis=0)
    scaled = features / np.where(lengths, lengths, 1)
    rest = scaled - scaled[:, known] @ np.linalg.lstsq(scaled[:, known], scaled, rcond=None)[0]
    return [kind for kind in range(features.shape[1]) if kind not in known and np.linalg.norm(rest[:, kind]) > _SAME]


def robust_fit(features: Any, values: Any) -> np.ndarray:
    """As `nonnegative_fit`, with Huber's loss of the relative error r: r² up to 2 %, beyond it 2 %·(2|r| − 2 %).

    A few networks measured on a slow occasion then pull as much as one that is 2 % off. Solved by iteratively reweighted least
    squares (Holland & Welsch 1977), 30 steps.
    """
    x, y = _checked(features, values)
    relative = x / y[:, None]
    prices = _weighted_fit(relative, np.ones(len(y)))
    for _ in range(_STEPS):
        prices = _weighted_fit(relative, np.sqrt(_HUBER / np.maximum(np.abs(relative @ prices - 1), _HUBER)))
    return prices


def _checked(features: Any, values: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, dtype=float), np.asarray(values, dtype=float)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"features have shape {x.shape}, values {y.shape}; expected (networks, kinds of work) and (networks,)")
    if not 1 <= x.shape[1] <= x.shape[0]:
        raise ValueError(
            f"{x.shape[0]} networks cannot price {x.shape[1]} kinds of work; measure at least as many networks as kinds"
        )
    if not np.isfinite(x).all():
        raise ValueError("a feature is not finite; expected the work of each network as numbers")
    _check_positive("values", y)
    return x, y


def _weighted_fit(relative: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """argmin of Σ_i w_i²(relative_i·b − 1)² over b ≥ 0, with columns scaled to one length."""
    from scipy.optimize import nnls

    weighted = relative * weights[:, None]
    lengths = np.linalg.norm(weighted, axis=0)
    lengths[lengths == 0] = 1
    prices: np.ndarray = nnls(weighted / lengths, weights)[0] / lengths
    return prices


def assign_folds(count: int, folds: int = 10, seed: int = 0, groups: Sequence[Any] | None = None) -> np.ndarray:
    """Number of the fold, 0 … folds − 1, of each of `count` rows, (count,): at random under `seed`, as even as can be.

    groups: a label for each row; rows of one label share a fold. ValueError for fewer groups than folds, or than two folds.
    """
    labels = list(range(count)) if groups is None else list(groups)
    if len(labels) != count:
        raise ValueError(f"there are {len(labels)} group labels for {count} rows; expected one for each")
    names = list(dict.fromkeys(labels))
    if not 2 <= folds <= len(names):
        what = "rows" if groups is None else "groups"
        raise ValueError(f"{folds} folds of {len(names)} {what}; expected 2 to {len(names)} folds, each with one at least")
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[place]: number % folds for number, place in enumerate(order)}
    return np.array([fold_of[label] for label in labels])


def cross_validated(
    features: Any,
    values: Any,
    folds: int = 10,
    seed: int = 0,
    groups: Sequence[Any] | None = None,
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray] = nonnegative_fit,
) -> np.ndarray:
    """Prediction of each value, (n,), by a `fit` to the other folds; arguments and errors as there.

    folds, seed, groups: see `assign_folds`; as many folds as rows leave one out at a time.
    """
    x, y = np.asarray(features, dtype=float), np.asarray(values, dtype=float)
    fold = assign_folds(len(y), folds, seed, groups)
    predicted = np.empty(len(y))
    for number in range(folds):
        held = fold == number
        predicted[held] = x[held] @ fit(x[~held], y[~held])
    return predicted


def _check_positive(what: str, values: np.ndarray) -> None:
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise ValueError(f"{what} hold {wrong[0]:g}; expected positive, finite numbers")
