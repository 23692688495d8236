"""An artefact measured in its runtime: milliseconds with an eye on the pace of the machine, memory, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from merino_net.shipping.runtimes import Job, Report, Timing, perplexity_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from merino_net.corpus.text import Text

VISITS = (3, 8)
"""Processes that time a pass: so many, and up to so many until that number ran at the machine's usual pace."""

PassKind = tuple[str, int]
"""A phase, prefill or decode, and the tokens of its prompt or in its cache."""


@dataclass(frozen=True)
class TimedPass:
    """How long a pass took.

    Attributes:
        median_ms: of the passes at the usual pace of the machine [ms]; of all, where there was none.
        passes: how many.
        slower: how many times as long as usual the machine took for a fixed piece of work meanwhile, at most; 1 where it was
            steady.
    """

    median_ms: float
    passes: int
    slower: float

    @property
    def busy(self) -> bool:
        """Whether the machine had other work all the time."""
        return self.slower > 1


@dataclass(frozen=True)
class ProcessMemory:
    """What the client's process took [bytes]: in all, and beyond what Python and the runtime take before they read the model."""

    peak_bytes: int
    own_bytes: int


def _own(memory: ProcessMemory) -> int:
    return memory.own_bytes


@dataclass(frozen=True)
class Visit:
    """One process that timed passes, and how fast the machine was around it."""

    report: Report
    pace_ms: float


def visited(
    run: Callable[[Job], Report],
    pace: Callable[[], float],
    lengths: Sequence[int],
    threads: int,
    seconds: float,
    usual_ms: float | None,
) -> tuple[dict[PassKind, TimedPass], dict[int, ProcessMemory], float]:
    """Passes timed in processes of their own.

    Args:
        run: does a job with the artefact.
        pace: milliseconds of a fixed piece of work, `hardware_models.profile_standalone.Pace`.
        lengths: tokens of a prompt, and in the cache.
        threads: of the runtime.
        seconds: to time each phase for, in each process.
        usual_ms: pace of the machine when nothing else runs; None: that of the fast ones among these visits.

    Returns:
        The passes, what memory they took by length, and the pace that counted as usual [ms].
    """
    from hardware_models.profile_standalone import is_steady, usual_pace

    visits: dict[int, list[Visit]] = {length: [] for length in lengths}
    fewest, most = VISITS
    for _ in range(most):
        usual = _usual(visits, usual_ms, usual_pace)
        wanted = [
            length
            for length, own in visits.items()
            if sum(usual is not None and is_steady(one.pace_ms, usual) for one in own) < fewest
        ]
        if not wanted:
            break
        for length in wanted:
            before = pace()
            report = run(Job(threads, timing=Timing(length, seconds)))
            visits[length].append(Visit(report, (before + pace()) / 2))
    usual = _usual(visits, usual_ms, usual_pace)
    assert usual is not None
    passes = {
        (phase, length): timed_pass(own, phase, usual, is_steady)
        for length, own in visits.items()
        for phase in ("prefill", "decode")
    }
    memory = {
        length: max((memory_in(one.report) for one in own), key=lambda one: one.own_bytes) for length, own in visits.items() if own
    }
    return passes, memory, usual


def _usual(visits: dict[int, list[Visit]], usual_ms: float | None, usual_pace: Callable[[Iterable[float]], float]) -> float | None:
    paces = [one.pace_ms for own in visits.values() for one in own]
    return usual_ms if usual_ms is not None else usual_pace(paces) if paces else None


def memory_in(report: Report) -> ProcessMemory:
    """What a report says of memory."""
    return ProcessMemory(report.peak_bytes, report.peak_bytes - report.idle_bytes)


def timed_pass(visits: Sequence[Visit], phase: str, usual_ms: float, is_steady: Callable[[float, float], bool]) -> TimedPass:
    """What visits say of a phase: the median of the passes at the usual pace, or at a faster one; else of all, as busy."""

    def times(chosen: Sequence[Visit]) -> list[float]:
        return [value for one in chosen for value in (one.report.prefill_ms if phase == "prefill" else one.report.decode_ms)]

    clean = [one for one in visits if is_steady(one.pace_ms, usual_ms)] or [one for one in visits if one.pace_ms < usual_ms]
    slower = 1.0 if clean else max(one.pace_ms for one in visits) / usual_ms
    values = times(clean or visits)
    return TimedPass(median(values), len(values), slower)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity per token of the artefact in its runtime, and of the network in PyTorch, on the same tokens."""

    artefact: float
    pytorch: float
    tokens: int
    window: int

    @property
    def loss(self) -> float:
        """By how much the artefact's loss is greater [nat per token]."""
        return math.log(self.artefact / self.pytorch)


def windows_of(text: Text, tokenizer: PreTrainedTokenizerBase, window: int, most: int) -> tuple[tuple[int, ...], ...]:
    """The first `most` tokens of a text in windows side by side, the start token before each, `window` tokens with it.

    Raises:
        ValueError: for a text that has no token.
    """
    from merino_net.network.pretrained import start_token

    start, found, left = start_token(tokenizer), [], most
    for document in text.documents():
        tokens = tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"][:left]
        found += [(start, *tokens[place : place + window - 1]) for place in range(0, len(tokens), window - 1)]
        left -= len(tokens)
        if not left:
            break
    if not found:
        raise ValueError("the text of --text has no token; expected at least one")
    return tuple(found)


def perplexity(
    run: Callable[[Job], Report], model: PreTrainedModel, sequences: Sequence[tuple[int, ...]], threads: int, window: int
) -> Perplexity:
    """Perplexities on sequences whose tokens but the first count."""
    from merino_net.shipping.agreement import scores_of

    report = run(Job(threads, score=tuple(sequences)))
    truth = [[float(one) for one in scores_of(model, tokens)] for tokens in sequences]
    if [len(one) for one in truth] != [len(one) for one in report.scored]:
        raise ValueError("the client did not score every token of the text; the artefact is not to be used")
    return Perplexity(perplexity_of(report.scored), perplexity_of(truth), sum(map(len, truth)), window)
