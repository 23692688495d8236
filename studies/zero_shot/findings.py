"""What the published figures say when compared with their own errors, and the sentences that stand below the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from formulation.command.words import counted
from formulation.published import PUBLISHED_TOKENS, published_designs
from hardware_models import Flops
from studies.zero_shot.levels import (
    FIXED_ANSWERS,
    Level,
    attainable,
    averages_that_differ,
    metric_evidence,
    published_comparisons,
    standard_error,
)
from studies.zero_shot.published import PAPER_TASKS, PUBLISHED_SCORES
from studies.zero_shot.table import ScoreLine, chance_levels, published_lines

SEQUENCE = 1024
"""Tokens of the FLOPs, as in the paper."""


def findings(levels: dict[str, Level]) -> dict[str, Any]:
    """What the published figures say when compared with their errors, against guessing and against one answer to everything."""
    lines, chance = published_lines(), chance_levels(levels)
    signs = {line.name: line.signs(chance) for line in lines}
    comparisons = published_comparisons()
    found: dict[str, Any] = {
        "mean_of_guessing": fmean(chance.values()),
        "above_guessing": {name: sum(sign > 0 for sign in own.values()) for name, own in signs.items()},
        "below_guessing": {name: sum(sign < 0 for sign in own.values()) for name, own in signs.items()},
        "not_told_from_guessing": {name: [task for task, sign in own.items() if not sign] for name, own in signs.items()},
        "printed_average_is_not_the_mean": {name: list(pair) for name, pair in averages_that_differ().items()},
        "no_count_of_examples_gives": [
            {"system": line.name, "task": task, "accuracy": accuracy, "examples": line.examples[task]}
            for line in lines
            for task, accuracy in line.accuracies.items()
            if not attainable(accuracy, line.examples[task])
        ],
        "comparisons": comparisons,
        "share_of_the_variance": _variance_shares(lines),
        "metrics": metric_evidence(),
        "head_counted": {name: _head_counted(name) for name in PUBLISHED_SCORES},
    }
    if levels:
        constants = {name: level.best_constant for name, level in levels.items()}
        own_signs = {line.name: line.signs(constants) for line in lines}
        found |= {
            "mean_of_the_best_constants": fmean(constants.values()) if set(constants) == set(PAPER_TASKS) else None,
            "above_the_best_constant": {name: sum(sign > 0 for sign in own.values()) for name, own in own_signs.items()},
            "equal_to_a_constant_answer": {
                task: names
                for task in FIXED_ANSWERS
                if task in levels and (names := [line.name for line in lines if _is_constant(line.accuracies[task], levels[task])])
            },
        }
    return found


def _is_constant(accuracy: float, level: Level) -> bool:
    return any(accuracy == round(share, 3) for share in level.constants)


def _variance_shares(lines: Sequence[ScoreLine]) -> dict[str, float]:
    """By task the part of the variance of the mean that is its own, mean over the systems."""
    shares: dict[str, list[float]] = {task: [] for task in PAPER_TASKS}
    for line in lines:
        variances = {task: (standard_error(p, line.examples[task]) or 0.0) ** 2 for task, p in line.accuracies.items()}
        for task, variance in variances.items():
            shares[task].append(variance / sum(variances.values()))
    return {task: fmean(own) for task, own in shares.items()}


def _head_counted(name: str) -> dict[str, Any]:
    """A published count of FLOPs beside ours without and with the output head, and which of the two it is within 5 %."""
    design, printed = published_designs()[name], PUBLISHED_SCORES[name].flops
    counts = {head: Flops(SEQUENCE, head=head)(design) for head in (False, True)}
    nearest = min(counts, key=lambda head: abs(counts[head] / printed - 1))
    fits = abs(counts[nearest] / printed - 1) < 0.05
    return {"printed": printed, "without_head": counts[False], "with_head": counts[True], "head": nearest if fits else None}


def notes(found: dict[str, Any], levels: dict[str, Level]) -> list[str]:
    """How the table is to be read, and what follows from it, one sentence or two each."""
    metrics = [task.title for task in PAPER_TASKS.values() if task.metric == "acc_norm"]
    above, below = found["above_guessing"].values(), found["below_guessing"].values()
    lines = [
        f"paper: as printed (AAAI 2025, tables 2 and 3). GFLOPs of {SEQUENCE:,} tokens, ms of {PUBLISHED_TOKENS} tokens on the "
        "paper's Jetson Nano. ±: standard error of the mean of the twelve accuracies, from binomial variances",
        "in parentheses: not told from guessing at 95 %, |p − q| ≤ 1.96 √(q(1 − q)/n); above, below: tasks on the other side. "
        f"Of the published 12, {min(above)} to {max(above)} are above guessing and {min(below)} to {max(below)} below; the mean of "
        f"guessing is {found['mean_of_guessing']:.3f}",
    ]
    if levels:
        lines.append(_constant_note(found, levels))
    lines += [
        f"metric, inferred: acc_norm on {', '.join(metrics)}, acc elsewhere. {_metric_note(found['metrics'])}",
        "perplexity, inferred: per token of each model's own tokenizer, so it does not compare across tokenizers. The smallest "
        "GPT-2 has 29.41 on WikiText-2 in its own paper and 29.94 a token in windows side by side on the raw text; there, "
        "overlapping windows take GPT-2-large from 19.44 to 16.45 a token (karpathy/llm.c#276), so 25.19 is most likely a figure "
        "of tokens and overlapping windows. On PTB others find 52.5 a token and 79.7 a word (huggingface/transformers#13786), not "
        "33.95: which variant of that text was read is not known",
        _head_note(found["head_counted"]),
        *_difference_notes(found),
    ]
    for name, (printed, mean) in found["printed_average_is_not_the_mean"].items():
        lines.append(f"the printed average of {name}, {printed:.3f}, is not the mean of its accuracies, {mean:.4f}; all others are")
    odd = found["no_count_of_examples_gives"]
    if odd:
        said = ", ".join(
            f"{one['system']} {PAPER_TASKS[one['task']].title} {one['accuracy']:.3f} of {one['examples']}" for one in odd
        )
        lines.append(f"no number of right answers gives, rounded: {said}; another split, cut decimals or a misprint")
    return lines


def _constant_note(found: dict[str, Any], levels: dict[str, Level]) -> str:
    note = "best constant answer: always the same option, or the same place among the options; its share of the examples here"
    mean = found["mean_of_the_best_constants"]
    if mean is not None:
        best = max(line.mean or 0.0 for line in published_lines())
        note += f". Its mean is {mean:.3f}, the best published system's {best:.3f}"
    equal = [f"{PAPER_TASKS[task].title} of {', '.join(names)}" for task, names in found["equal_to_a_constant_answer"].items()]
    if equal:
        note += f". Accuracies that equal a constant answer's: {'; '.join(equal)}"
    partial = [
        f"{PAPER_TASKS[name].title} {level.examples:,} of {PAPER_TASKS[name].examples:,}"
        for name, level in levels.items()
        if level.examples < PAPER_TASKS[name].examples
    ]
    return note + (f". * from part of the examples: {', '.join(partial)}" if partial else "")


def _metric_note(evidence: Sequence[dict[str, Any]]) -> str:
    parts = []
    for record in evidence:
        said = f"{record['acc']:.3f} from acc"
        if record["acc_norm"] is not None:
            said += f", {record['acc_norm']:.3f} from acc_norm"
        part = f"{PAPER_TASKS[record['task']].title} {said} ({counted(len(record['systems']), 'system')}"
        far = " and ".join(record["unexplained"])
        parts.append(part + (f"; {far} beyond three standard errors, unexplained)" if far else ")"))
    return (
        f"Mean distance of the printed figures from public results of the harness: {'; '.join(parts)}. Without the division by "
        "length networks this small fall far below guessing on ARC-C and OBQA, and the printed figures do not"
    )


def _head_note(counts: dict[str, dict[str, Any]]) -> str:
    def those(head: bool | None) -> str:
        return ", ".join(name for name, one in counts.items() if one["head"] is head)

    return (
        f"FLOPs as printed count the output head for {those(True)} and leave it out for {those(False)} (inferred, within 5 %)"
        + (f"; {those(None)} fits neither" if those(None) else "")
        + "; measured models are counted without it, with parameters as they are stored"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _difference_notes(found: dict[str, Any]) -> list[str]:
    comparisons = found["comparisons"]

    def said(chosen: Iterable[dict[str, Any]]) -> str:
        return "; ".join(f"{one['model']} − {one['baseline']} {_signed(one['difference'])}" for one in chosen) or "none"

    shares = found["share_of_the_variance"]
    largest = sorted(shares, key=lambda task: -shares[task])[:2]
    return [
        f"differences of means within one standard error of the mean: {said(one for one in comparisons if one['within_error'])}",
        f"differences beyond 95 % of their own error, of {len(comparisons)} (errors taken as independent, not corrected for their "
        f"number): {said(one for one in comparisons if one['differs'])}",
        f"{' and '.join(f'{PAPER_TASKS[task].title} ({PAPER_TASKS[task].examples} examples)' for task in largest)} make "
        f"{100 * sum(shares[task] for task in largest):.0f} % of the variance of the mean",
    ]
