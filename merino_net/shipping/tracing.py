"""What every exported form of a model is traced with and checked by: a sample and texts to compare on. No runtime comes in here."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from merino_net.network.pretrained import embedding_rows, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PAST, _NEW = 4, 3
"""Tokens of the sample that is traced: unequal, and none of them 1, so that no axis of the graph gets fixed or tied to another."""


RELATIVE = {"int8": 0.1, "int4": 0.5}
"""Largest root mean square difference of logits that passes with such weights, relative to that of the logits themselves.

8 bits cost half a percent to four percent, and 4 bits of random weights, the worst there are, up to 40 %; a graph that computes
something else is off by 100 % or more.
"""


class Differences:
    """How far the logits of a graph are from PyTorch's: the largest absolute difference of each kind of pass, and the relative one.

    "relative" is the root mean square of all differences over that of PyTorch's logits.
    """

    def __init__(self, *kinds: str) -> None:
        self._largest = dict.fromkeys(kinds, 0.0)
        self._logit = 0.0
        self._squares = np.zeros(2)

    def note(self, kind: str, logits: np.ndarray, truth: np.ndarray, mask: np.ndarray, start: int = 0) -> None:
        """Compare logits (B, T, vocabulary) with those of whole texts from `start` on, where `mask` (B, whole text) is not zero."""
        span = slice(start, start + logits.shape[1])
        counted = mask[:, span] == 1
        true = truth[:, span][counted]
        off = abs(logits[counted] - true)
        largest = float(off.max())
        self._largest[kind] = largest if largest != largest else max(self._largest[kind], largest)
        self._logit = max(self._logit, float(abs(true).max()))
        self._squares += [np.square(each, dtype=np.float64).sum() for each in (off, true)]

    def checked(self, title: str, weights: str) -> dict[str, float]:
        """What was found, by kind.

        Raises:
            ValueError: if a difference exceeds rounding (float32: 1e-4, or 1e-5 of the largest logit if that is more; quantized
                weights: `RELATIVE`), or a logit is not finite.
        """
        found = {**self._largest, "relative": float(np.sqrt(self._squares[0] / self._squares[1]))}
        if weights in RELATIVE:
            if not found["relative"] <= RELATIVE[weights]:
                raise ValueError(
                    f"{weights.upper()} weights change the logits of the {title} graph by {found['relative']:.1%} of their size, "
                    f"more than {RELATIVE[weights]:.0%}; export it in float32 instead"
                )
            return found
        most = max(1e-4, 1e-5 * self._logit)
        for kind, difference in self._largest.items():
            if not difference <= most:
                raise ValueError(
                    f"the logits of the {title} graph differ from PyTorch's by {difference:.2g} ({kind.replace('_', ' ')}), "
                    f"more than {most:.2g}; it is not to be used"
                )
        return found


def sample(model: PreTrainedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs of a decoding step to trace (two sequences, one of them padded, and a cache), and which of their axes vary.

    Raises:
        ValueError: for a model that does not keep keys and values for every layer, is not float32 on the CPU, or has fewer than 7
            positions.
    """
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ValueError(f"the model is {model.dtype} on {model.device}; load it in float32 on the CPU to export it")
    positions = positions_of(model.config)
    if positions is not None and positions < _PAST + _NEW:
        raise ValueError(f"the model has {positions} positions; the sample that is traced for an export takes {_PAST + _NEW}")
    tokens = torch.arange(2 * (_PAST + _NEW)).reshape(2, -1) % embedding_rows(model)
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0
    order = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode(False), torch.no_grad():
        model.eval()(tokens[:, :_PAST], attention_mask=mask[:, :_PAST], past_key_values=cache, use_cache=True)
    states = [tensor for layer in cache.layers for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None))]
    if not states or any(state is None or state.dim() != 4 or state.shape[2] != _PAST for state in states):
        raise ValueError(f"{type(model).__name__} does not keep keys and values for every token and layer, which this export needs")
    auto = torch.export.Dim.AUTO
    inputs = {
        "input_ids": tokens[:, _PAST:],
        "attention_mask": mask,
        "position_ids": order[:, _PAST:],
        "past_key_values": copy.deepcopy(cache),
        "use_cache": True,
        "return_dict": True,
    }
    both = {0: auto, 1: auto}
    shapes = {
        "input_ids": both,
        "attention_mask": both,
        "position_ids": both,
        "past_key_values": [{0: auto, 2: auto}] * len(states),
    }
    return inputs, shapes


def check_value_sizes(model: PreTrainedModel, title: str) -> None:
    """ValueError for a model with values that are not as wide as their keys, for a runtime that takes both for alike."""
    for number, layer in enumerate(sample(model)[0]["past_key_values"].layers):
        keys, values = layer.keys.shape[-1], layer.values.shape[-1]
        if keys != values:
            raise ValueError(
                f"layer application {number} has keys of size {keys} and values of size {values}, and {title} takes one size for "
                "both; take a design where the two are equal, or another runtime"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep tracing from writing to the terminal: warnings of several libraries about their own inner works."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def texts_to_compare(model: PreTrainedModel) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Random texts to compare runtimes on: tokens and mask (B, T), and after how many tokens decoding begins."""
    random = np.random.default_rng(0)
    longest = positions_of(model.config) or 128
    for length in sorted({min(length, longest - 5) for length in (1, 2, 17, 90)} - {0}):
        for batch in (1, 3):
            tokens = random.integers(0, embedding_rows(model), (batch, length + 5))
            mask = np.ones_like(tokens)
            for row in range(1, batch):
                mask[row, : row * length // batch] = 0
            yield tokens, mask, length


def reference_logits(model: PreTrainedModel, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """PyTorch's logits (B, T, vocabulary), the whole text at once."""
    attention_mask = torch.from_numpy(mask)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(
            torch.from_numpy(tokens),
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).logits
    return logits.numpy()


def decoding_steps(tokens: int) -> list[int]:
    """How many tokens each decoding step takes: one at a time, and several at once at the end."""
    single = tokens // 2
    return [*([1] * single), tokens - single]
