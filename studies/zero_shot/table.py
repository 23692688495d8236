"""The table of the zero-shot study: its lines, published or measured, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from formulation.command.words import markdown_table
from formulation.published import PUBLISHED_MS
from studies.zero_shot.levels import Level, beyond, mean_error, standard_error
from studies.zero_shot.published import PAPER_TASKS, PUBLISHED_SCORES

PAPER_BENCHMARKS = {"wikitext2": "WikiText-2", "ptb": "PTB"}
"""The perplexities: name on the command line to title."""


@dataclass(frozen=True)
class ScoreLine:
    """One system of the table, published or measured.

    Attributes:
        flops: of 1,024 tokens; of measured models without the output head.
        latency_ms: of the paper's device, where it is published.
        perplexities: by benchmark, accuracies and examples by task: those that are known.
    """

    name: str
    measured: bool
    parameters: float
    flops: float
    latency_ms: float | None
    perplexities: dict[str, float]
    accuracies: dict[str, float]
    examples: dict[str, int]

    @property
    def mean(self) -> float | None:
        """The plain mean of the twelve accuracies; None if one is not known."""
        return fmean(self.accuracies.values()) if set(self.accuracies) == set(PAPER_TASKS) else None

    @property
    def error(self) -> float | None:
        """The standard error of `mean`."""
        if self.mean is None:
            return None
        return mean_error(list(self.accuracies.values()), list(self.examples.values()))

    def partial(self, task: str) -> bool:
        """Whether fewer than all examples of a task were answered."""
        return self.examples[task] < PAPER_TASKS[task].examples

    def signs(self, levels: dict[str, float]) -> dict[str, int]:
        """By task whether its accuracy lies above (1) or below (−1) a level at 95 %; see `beyond`."""
        return {
            task: beyond(self.accuracies[task], level, self.examples[task])
            for task, level in levels.items()
            if task in self.accuracies
        }


def published_lines() -> list[ScoreLine]:
    """The nine systems of the paper."""
    return [
        ScoreLine(
            name=name,
            measured=False,
            parameters=scores.parameters,
            flops=scores.flops,
            latency_ms=PUBLISHED_MS[name],
            perplexities={"wikitext2": scores.wikitext2, "ptb": scores.ptb},
            accuracies=dict(zip(PAPER_TASKS, scores.accuracies, strict=True)),
            examples={name: task.examples for name, task in PAPER_TASKS.items()},
        )
        for name, scores in PUBLISHED_SCORES.items()
    ]


def chance_levels(levels: dict[str, Level]) -> dict[str, float]:
    """The accuracy of guessing on each task: from its examples where they are here, else 1 / options."""
    return {name: levels[name].chance if name in levels else 1 / task.options for name, task in PAPER_TASKS.items()}


def scores_table(lines: Sequence[ScoreLine], levels: dict[str, Level]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table: the systems, below them what the figures are to be compared with."""
    chance = chance_levels(levels)
    header = ["model", "from", "M params", "GFLOPs", "ms", *PAPER_BENCHMARKS.values()]
    header += [task.title for task in PAPER_TASKS.values()] + ["mean", "±", "above", "below"]
    rows = []
    for line in lines:
        signs = line.signs(chance)
        rows.append(
            [
                line.name,
                "here" if line.measured else "paper",
                _size(line.parameters / 1e6),
                _size(line.flops / 1e9),
                "-" if line.latency_ms is None else f"{line.latency_ms:g}",
                *(f"{line.perplexities[name]:,.2f}" if name in line.perplexities else "-" for name in PAPER_BENCHMARKS),
                *(_accuracy(line, task, signs) for task in PAPER_TASKS),
                _share(line.mean) + ("*" if line.mean is not None and any(map(line.partial, PAPER_TASKS)) else ""),
                _share(line.error, 4),
                str(sum(sign > 0 for sign in signs.values())),
                str(sum(sign < 0 for sign in signs.values())),
            ]
        )
        if line.measured:
            errors = [standard_error(line.accuracies[task], line.examples[task]) if task in signs else None for task in PAPER_TASKS]
            rows.append(_foot(f"{line.name}, ±", map(_share, errors)))
    published = [line for line in lines if not line.measured]
    rows.append(_foot("examples", (f"{task.examples:,}" for task in PAPER_TASKS.values())))
    rows.append(_foot("guessing", map(_share, chance.values()), _share(fmean(chance.values()))))
    rows.append(_foot(f"above it, of {len(published)}", _counts(published, chance)))
    if levels:
        constants = {name: level.best_constant for name, level in levels.items()}
        mean = _share(fmean(constants.values())) if set(constants) == set(PAPER_TASKS) else "-"
        cells = (
            _share(constants.get(name)) + ("*" if name in levels and levels[name].examples < task.examples else "")
            for name, task in PAPER_TASKS.items()
        )
        rows.append(_foot("best constant answer", cells, mean))
        rows.append(_foot(f"above it, of {len(published)}", _counts(published, constants)))
    return header, rows


def _foot(title: str, cells: Iterable[str], mean: str = "") -> list[str]:
    """A line that has figures of the tasks alone."""
    return [title, *[""] * 6, *cells, mean, "", "", ""]


def _counts(lines: Sequence[ScoreLine], levels: dict[str, float]) -> list[str]:
    """By task how many systems lie above a level."""
    signs = [line.signs(levels) for line in lines]
    return [str(sum(own[task] > 0 for own in signs)) if task in levels else "-" for task in PAPER_TASKS]


def _accuracy(line: ScoreLine, task: str, signs: dict[str, int]) -> str:
    """An accuracy, in parentheses where it cannot be told from guessing, with * where examples are missing."""
    if task not in signs:
        return "-"
    text = _share(line.accuracies[task]) + ("*" if line.partial(task) else "")
    return text if signs[task] else f"({text})"


def _share(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _size(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def markdown_of(header: Sequence[str], rows: Sequence[Sequence[str]], blocks: Sequence[str], lines: Sequence[str]) -> str:
    """The table and its notes as Markdown; `blocks` are tables of plain text."""
    text = "\n\n".join([markdown_table(header, rows, left=2), "\n".join(f"- {line}" for line in lines)]).replace("*", "\\*")
    return "\n\n".join(["# Perplexity and zero-shot accuracy", text, *(f"```\n{block}\n```" for block in blocks)]) + "\n"
