"""Training-free proxies of a trained network's quality, each a quantity to be maximized.

The analytic ones add up over blocks, so that exact solvers take them; those that look at a real network are black boxes. On the
command line `studies.proxy_correlation.proxies:dss` and `studies.proxy_correlation.proxies:inverse_ntk` name the latter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from formulation import Architecture, EffectiveEntropy, Quantity
from hardware_models import BlackBox, DecoderParams, Flops, Params
from studies.trained.plan import tokens_sha256

MINIBATCH = 16
"""Sequences that the network-based proxies look at, the first of the text."""
NTK_SEEDS = 3
"""Initialisations whose median condition number counts."""

ENTROPY, PARAMS, FLOPS = "entropy", "parameters", "FLOPs"
LTS, LTS_UNROLLED = "LTS", "LTS unrolled"
DSS, NTK = "DSS", "NTK"


def analytic_proxies(seq_len: int) -> dict[str, Quantity]:
    """The paper's entropy, LTS (decoder parameters, shared weights counted once, or at every application), and plain size."""
    return {
        ENTROPY: EffectiveEntropy(),
        LTS: DecoderParams(),
        LTS_UNROLLED: DecoderParams(unrolled=True),
        PARAMS: Params(),
        FLOPS: Flops(seq_len),
    }


def first_sequences(rows: np.ndarray) -> np.ndarray:
    """The minibatch of a study: the first `MINIBATCH` of its training sequences, int64 (B, T).

    ValueError if there are fewer, or two are alike: their tangent kernel would be singular.
    """
    first = np.asarray(rows[:MINIBATCH]).astype(np.int64)
    distinct = len(np.unique(first, axis=0))
    if distinct < MINIBATCH:
        raise ValueError(
            f"of the first {MINIBATCH} sequences of the training text {distinct} differ from one another; expected all of them to, "
            "for the tangent kernel: give another text, or longer --sequence"
        )
    return first


def network_proxies(tokens: np.ndarray | None = None, folder: Path | None = None) -> dict[str, BlackBox]:
    """DSS-score and inverse NTK condition number on a minibatch of tokens (B, T), random ones of each design's size unless given.

    Args:
        folder: where values are kept from one run to the next, in files named by the minibatch; None: in memory only.
    """

    minibatch = "random" if tokens is None else tokens_sha256(tokens)

    def black_box(name: str, short: str, function: Callable[[Architecture], float]) -> BlackBox:
        own = f"{short}-{minibatch}"
        return BlackBox(name, "1", function, 1, None if folder is None else folder / f"{own}.jsonl", identity=own)

    return {
        DSS: black_box("DSS-score", "dss", partial(_dss, tokens)),
        NTK: black_box(f"inverse NTK condition number, median of {NTK_SEEDS}", f"ntk{NTK_SEEDS}", partial(_inverse_ntk, tokens)),
    }


def _dss(tokens: np.ndarray | None, architecture: Architecture) -> float:
    from merino_net.network.scores import dss_score, random_tokens

    return dss_score(architecture, random_tokens(architecture) if tokens is None else tokens)


def _inverse_ntk(tokens: np.ndarray | None, architecture: Architecture) -> float:
    from merino_net.network.scores import ntk_condition_number, random_tokens

    minibatch = random_tokens(architecture) if tokens is None else tokens
    return 1 / median(ntk_condition_number(architecture, minibatch, seed) for seed in range(NTK_SEEDS))


dss, inverse_ntk = network_proxies().values()
