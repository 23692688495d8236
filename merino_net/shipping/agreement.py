"""Whether an artefact computes in its runtime what the network does in PyTorch: greedy text and scores, by the runtime's client.

PyTorch in float32 is the truth. Of text that the client wrote, each token is compared with the one that PyTorch holds most probable
behind the same tokens, so that one near-tie does not make the rest of the text count as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from merino_net.shipping.runtimes import Job, Report, Runtime
from merino_net.shipping.tracing import reference_logits, texts_to_compare

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

_THREADS = 2

TOLERANCES = {"f32": 1e-3, "float32": 1e-3, "f16": 3e-2}
"""Largest difference of a log-probability [nat] that passes, by weights that are not quantized; and of the best one from that of a
token that the client preferred. Runtimes sum in another order."""

QUANTIZED_TOLERANCES = {"q8_0": 0.1, "int8": 0.15, "q4_0": 0.5, "int4": 0.5}
"""Largest root mean square difference of log-probabilities that passes, by weights that are quantized, relative to the standard
deviation of PyTorch's own. One of a graph that computes something else is 1 or more."""


def compare_runtime(runtime: Runtime, model: PreTrainedModel, folder: Path, weights: str) -> dict[str, float]:
    """Differences of an artefact from a float32 model on the CPU, by what was computed.

    Args:
        runtime: whose client runs it.
        model: what it was made of.
        folder: of the artefact.
        weights: one of the runtime's.

    Returns:
        score: largest absolute difference of a log-probability [nat]; relative: root mean square of those differences, divided by
        the standard deviation of PyTorch's; loss: mean of PyTorch's log-probabilities minus the client's [nat per token]; greedy:
        by how much the most probable token exceeds the one that the client wrote, at most [nat].

    Raises:
        ValueError: if the client fails, or a difference exceeds `TOLERANCES` or `QUANTIZED_TOLERANCES`.
    """
    texts = [(tokens[0], length) for tokens, _, length in texts_to_compare(model) if len(tokens) == 1]
    job = Job(
        _THREADS,
        write=tuple((_whole(tokens[:length]), len(tokens) - length) for tokens, length in texts),
        score=tuple(_whole(tokens) for tokens, _ in texts),
        exact=True,
    )
    differences = differences_of(model, job, runtime.run(folder, job))
    _check(runtime, weights, differences)
    return differences


def _whole(tokens: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, tokens))


def log_probabilities(model: PreTrainedModel, tokens: Sequence[int]) -> np.ndarray:
    """PyTorch's natural logarithms of the probability of every token at each place of a text, (T, vocabulary), in float64."""
    row = np.array([tokens])
    logits = reference_logits(model, row, np.ones_like(row))[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    found: np.ndarray = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return found


def scores_of(model: PreTrainedModel, tokens: Sequence[int]) -> np.ndarray:
    """PyTorch's natural logarithms of the probability of each token of a text but the first."""
    rows = log_probabilities(model, tokens)[:-1]
    found: np.ndarray = rows[np.arange(len(rows)), list(tokens[1:])]
    return found


def differences_of(model: PreTrainedModel, job: Job, report: Report) -> dict[str, float]:
    """What `compare_runtime` gives, of a job that was done; ValueError if the report is not of that job."""
    truth = [scores_of(model, tokens) for tokens in job.score]
    if [len(scores) for scores in truth] != [len(scores) for scores in report.scored]:
        raise ValueError(
            f"the client scored {[len(one) for one in report.scored]} tokens of the texts; expected {[*map(len, truth)]}"
        )
    true, seen = np.concatenate(truth), np.concatenate([np.array(scores) for scores in report.scored])
    off = seen - true
    spread = float(true.std())
    return {
        "score": float(abs(off).max()),
        "relative": float(np.sqrt((off**2).mean())) / spread if spread else 0.0,
        "loss": float((true - seen).mean()),
        "greedy": max((_greedy(model, prompt, count, own) for (prompt, count), own in _written(job, report)), default=0.0),
    }


def _written(job: Job, report: Report) -> list[tuple[tuple[tuple[int, ...], int], list[int]]]:
    if len(job.write) != len(report.written):
        raise ValueError(f"the client continued {len(report.written)} texts; expected {len(job.write)}")
    return list(zip(job.write, report.written, strict=True))


def _greedy(model: PreTrainedModel, prompt: Sequence[int], count: int, written: Sequence[int]) -> float:
    """By how much the most probable token exceeds the one written, at most [nat]; ValueError where tokens are missing."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    stopped = bool(written) and written[-1] in (ends if isinstance(ends, list) else [ends])
    if not written or (len(written) != count and not stopped):
        raise ValueError(f"the client wrote {len(written)} tokens behind {len(prompt)}; expected {count}, or an end of text")
    rows = log_probabilities(model, [*prompt, *written])[len(prompt) - 1 : -1]
    return float((rows.max(-1) - rows[np.arange(len(rows)), list(written)]).max())


def _check(runtime: Runtime, weights: str, differences: dict[str, float]) -> None:
    if weights in TOLERANCES:
        most, names = TOLERANCES[weights], ["score", "greedy"]
    else:
        most, names = QUANTIZED_TOLERANCES[weights], ["relative"]
    for name in names:
        if not differences[name] <= most:
            raise ValueError(
                f"what {runtime.title} computes with {weights} weights differs from PyTorch's log-probabilities by "
                f"{differences[name]:.2g} ({name}), more than {most:g}; it is not to be used"
            )
