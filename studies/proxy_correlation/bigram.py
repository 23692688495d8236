"""What counting pairs of tokens achieves: the loss below which a network must know more than the word before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CountedLosses:
    """Losses of counting models on held-out sequences [nat per token], counted on `tokens` tokens of training text."""

    tokens: int
    unigram: float
    bigram: float


def counted_losses(training: np.ndarray, held_out: np.ndarray, vocabulary: int) -> CountedLosses:
    """Unigram and interpolated bigram, counted on rows (n, T) and scored on rows (m, T) as networks are: not on first tokens.

        p(w) = (c(w) + 1) / (Σ c + V),   p(w | v) = λ_v·c(v, w)/c(v) + (1 − λ_v)·p(w),   λ_v = c(v) / (c(v) + t(v))

    with t(v) the number of distinct tokens after v (Witten & Bell 1991, as in Chen & Goodman 1999). Pairs are counted inside rows.
    """
    counts = np.bincount(training.ravel(), minlength=vocabulary)
    unigram = (counts + 1) / (counts.sum() + vocabulary)
    contexts, targets = held_out[:, :-1].ravel(), held_out[:, 1:].ravel()
    pairs, times = np.unique(training[:, :-1].astype(np.int64).ravel() * vocabulary + training[:, 1:].ravel(), return_counts=True)
    before, types = (np.bincount(pairs // vocabulary, weights, vocabulary) for weights in (times, None))
    wanted = contexts.astype(np.int64) * vocabulary + targets
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen, total = np.where(pairs[place] == wanted, times[place], 0), np.maximum(before[contexts] + types[contexts], 1)
    # λ·c(v, w)/c(v) = c(v, w)/(c(v) + t(v)); a context never seen leaves all to the unigram.
    left = np.where(before[contexts] > 0, types[contexts] / total, 1.0)
    bigram = seen / total + left * unigram[targets]
    return CountedLosses(training.size, float(-np.log(unigram[targets]).mean()), float(-np.log(bigram).mean()))
