"""What a zero-shot accuracy is worth: its standard error, and the levels that guessing and a constant answer reach.

The accuracies themselves are `studies.zero_shot.published`' and `merino_net.evaluate`'s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from studies.zero_shot.published import PAPER_TASKS, PUBLIC_RESULTS, PUBLISHED_SCORES

NORMAL_95 = 1.96
"""Half the width of a two-sided 95 % interval in standard errors."""
FIXED_ANSWERS = ("boolq", "wic", "cb", "wsc", "rte", "pubmedqa")
"""Tasks whose options are the same words in every example, so that a model may give one answer throughout."""
_DECIMALS = 3
"""Of the published accuracies."""


@dataclass(frozen=True)
class Level:
    """What needs no model: the accuracy of guessing, mean of 1 / options, and of every constant answer, its share of the examples.

    Where options change from example to example an answer is a position: always the first, always the second.
    """

    examples: int
    chance: float
    constants: tuple[float, ...]

    @property
    def best_constant(self) -> float:
        """The majority-class level: the accuracy of the constant answer that is right most often."""
        return max(self.constants)


def level_of(name: str, examples: Sequence[dict[str, Any]]) -> Level:
    """The levels of a task from its examples, which have the fields of `merino_net.scoring.zero_shot.local_examples`."""
    answers = [_answer(name, example) for example in examples]
    counts = Counter(position for position, _ in answers)
    shares = [counts[position] / len(answers) for position in range(max(options for _, options in answers))]
    return Level(len(answers), fmean(1 / options for _, options in answers), tuple(shares))


def _answer(name: str, example: dict[str, Any]) -> tuple[int, int]:
    """Where the right option stands, and among how many."""
    match name:
        case "hellaswag":
            return int(example["label"]), len(example["choices" if "choices" in example else "endings"])
        case "winogrande":
            return int(example["answer"]) - 1, 2
        case "arc_easy" | "arc_challenge" | "openbookqa":
            labels = example["choices"]["label"]
            return labels.index(example["answerKey"]), len(labels)
        case "pubmedqa":
            return ("yes", "no", "maybe").index(example["final_decision"]), 3
        case "logiqa":
            return "abcdefgh".index(example["label"].strip()), len(example["options"])
    return int(example["label"]), PAPER_TASKS[name].options


def standard_error(accuracy: float, examples: int) -> float | None:
    """√(p(1 − p) / (n − 1)) of the share p of n examples, as the harness computes it; None for a single one."""
    return None if examples < 2 else math.sqrt(accuracy * (1 - accuracy) / (examples - 1))


def mean_error(accuracies: Sequence[float], examples: Sequence[int]) -> float | None:
    """Standard error √(Σ s_i²) / k of the plain mean of k accuracies with standard errors s_i; None if one has none."""
    errors = [standard_error(p, n) for p, n in zip(accuracies, examples, strict=True)]
    if any(error is None for error in errors):
        return None
    return math.hypot(*(error for error in errors if error is not None)) / len(errors)


def beyond(accuracy: float, level: float, examples: int) -> int:
    """1 where the accuracy lies above a level at 95 %, −1 below, 0 where it cannot be told from it.

    The test is |p − q| > 1.96 √(q(1 − q) / n) with the level q taken as exact.
    """
    if abs(accuracy - level) <= NORMAL_95 * math.sqrt(level * (1 - level) / examples):
        return 0
    return 1 if accuracy > level else -1


def attainable(accuracy: float, examples: int) -> bool:
    """Whether some number of right answers k gives k / examples = accuracy, rounded to three decimals (either way at a tie)."""
    k = round(accuracy * examples)
    return any(abs(one / examples - accuracy) <= 0.5 * 10**-_DECIMALS + 1e-12 for one in (k - 1, k, k + 1))


def averages_that_differ() -> dict[str, tuple[float, float]]:
    """The systems whose printed average is not the mean of their twelve printed accuracies: (printed, mean).

    Rounding moves the mean by at most half a unit of the last decimal and the printed average by as much again.
    """
    return {
        name: (scores.average, fmean(scores.accuracies))
        for name, scores in PUBLISHED_SCORES.items()
        if abs(scores.average - fmean(scores.accuracies)) > 10**-_DECIMALS + 1e-12
    }


def published_comparisons() -> list[dict[str, Any]]:
    """Every MeRino beside every baseline: the difference of the means of twelve accuracies, and what its error leaves of it.

    - `error`: standard error of MeRino's mean; `within_error` says whether the difference is no larger
    - `z`: difference / √(error² + error of the baseline²). Both answered the same examples, so their errors are not independent: as
      models tend to fail alike, the error of the difference is rather smaller, but no published figure tells by how much
    - `differs`: |z| > 1.96
    """
    examples = [task.examples for task in PAPER_TASKS.values()]
    names = list(PUBLISHED_SCORES)
    records = []
    for name in (name for name in names if name.startswith("MeRino")):
        for baseline in (name for name in names if not name.startswith("MeRino")):
            own, other = PUBLISHED_SCORES[name].accuracies, PUBLISHED_SCORES[baseline].accuracies
            difference = fmean(own) - fmean(other)
            error, other_error = mean_error(own, examples), mean_error(other, examples)
            assert error is not None
            assert other_error is not None
            z = difference / math.hypot(error, other_error)
            records.append(
                {
                    "model": name,
                    "baseline": baseline,
                    "difference": difference,
                    "error": error,
                    "within_error": abs(difference) <= error,
                    "z": z,
                    "differs": abs(z) > NORMAL_95,
                }
            )
    return records


def metric_evidence() -> list[dict[str, Any]]:
    """For each task with an acc_norm: how far the published figures lie from public acc and acc_norm of the same systems.

    - `acc`, `acc_norm`: mean absolute distances over the systems that both have; None if none is public
    - `unexplained`: systems whose published figure is beyond 3 of its standard errors from the public value of the inferred metric
    """
    records = []
    for name, task in PAPER_TASKS.items():
        results = [result for result in PUBLIC_RESULTS if result.task == name]
        if not results:
            continue
        published = {system: scores.accuracies[list(PAPER_TASKS).index(name)] for system, scores in PUBLISHED_SCORES.items()}
        distances = {
            metric: {
                result.system: abs(published[result.system] - value)
                for result in results
                if (value := getattr(result, metric)) is not None
            }
            for metric in ("acc", "acc_norm")
        }
        records.append(
            {
                "task": name,
                "metric": task.metric,
                "systems": [result.system for result in results],
                **{metric: fmean(own.values()) if own else None for metric, own in distances.items()},
                "unexplained": [
                    system
                    for system, distance in distances[task.metric].items()
                    if distance > 3 * (standard_error(published[system], task.examples) or 0.0)
                ],
                "sources": list(dict.fromkeys(result.source for result in results)),
            }
        )
    return records
