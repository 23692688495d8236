"""The paper's tables 2 and 3 as one table, and beside its rows the same measured here for whatever models are named.

    python -m studies.zero_shot
    python -m studies.zero_shot results/mine facebook/opt-125m --data-dir data
    python -m studies.zero_shot results/mine --data-dir data --tasks boolq rte --benchmark --limit 100

Without a MODEL nothing is measured. Models are measured by `merino_net.evaluate`, under its conventions, and never twice.
Beside each figure stands what it is worth: its standard error, what guessing reaches and, with --data-dir, what one answer
to all questions does.
Writes rows.jsonl (one line a model and measurement, where there is one), table.md, summary.json and zero_shot.png.

Exit code: 0 all measured; 2 some tasks could not be run (the reason is said), a mistake in the command or a file that cannot be
read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import text_table
from formulation.records.files import output_folder, replace_file, save_figure, write_json
from formulation.records.provenance import provenance
from merino_net.evaluate import EvaluateOptions, Measurements, Request, add_pass_arguments, measurements, quieten_all
from merino_net.network.registration import require_network
from studies.zero_shot.findings import SEQUENCE, findings, notes
from studies.zero_shot.levels import Level, level_of, standard_error
from studies.zero_shot.published import PAPER_TASKS, PUBLISHED_SCORES
from studies.zero_shot.table import PAPER_BENCHMARKS, ScoreLine, chance_levels, markdown_of, published_lines, scores_table

if TYPE_CHECKING:
    from merino_net.network.pretrained import Model

_MEASURED_WITH = ("torch", "transformers", "tokenizers", "datasets", "lm_eval")


def measured_lines(found: Measurements) -> list[ScoreLine]:
    """What was measured, in the columns of the paper: perplexity per token, and of each task the metric inferred for its column."""
    texts = {text: {model.name: row for model, row in rows} for text, rows in found.of_texts.items()}
    lines = []
    for model, tasks in found.of_tasks:
        own = {name: rows[model.name] for name, rows in texts.items()}
        scores = {row["measured"]["task"]: row["measured"] for row in tasks}
        perplexities = {name: row["measured"]["token_perplexity"] for name, row in own.items()}
        lines.append(
            ScoreLine(
                name=model.name,
                measured=True,
                parameters=next(iter([*own.values(), *tasks]))["parameters"],
                flops=_flops(model),
                latency_ms=None,
                perplexities={name: value for name, value in perplexities.items() if value is not None},
                accuracies={name: score[PAPER_TASKS[name].metric] for name, score in scores.items()},
                examples={name: score["examples"] for name, score in scores.items()},
            )
        )
    return lines


def _flops(model: Model) -> int:
    """FLOPs of 1,024 tokens without the output head, as PyTorch counts them, whatever the number of positions."""
    from transformers import AutoConfig

    from merino_net.network.counting import forward_flops

    config = AutoConfig.from_pretrained(model.source)
    if model.positions is not None:
        config.max_position_embeddings = max(SEQUENCE, model.positions)
    return forward_flops(config, SEQUENCE, head=False)


def task_levels(data_dir: str | None) -> dict[str, Level]:
    """The levels of the tasks whose examples lie in a folder, in the paper's order; none without a folder."""
    if data_dir is None:
        return {}
    from merino_net.scoring.zero_shot import local_examples, task_file

    files = {name: task_file(name, Path(data_dir)) for name in PAPER_TASKS}
    return {name: level_of(name, local_examples(name, file)) for name, file in files.items() if file is not None}


def request_of(options: EvaluateOptions) -> Request | None:
    """What is to be measured of the models named, None if there are none; ValueError for what is wrong with the flags."""
    if options.models:
        return options.request
    if options.data_dir is not None and not Path(options.data_dir).is_dir():
        raise ValueError(f"--data-dir {options.data_dir} is not a folder; name the one that holds the evaluation files")
    return None


def measured_details(found: Measurements) -> tuple[list[str], dict[str, list[str]]]:
    """Tables of plain text with every measure of what was measured, and how they are to be read."""
    from merino_net.evaluate import accuracy_table, perplexity_table, task_conventions, text_conventions

    tables = [perplexity_table(text, found.of_texts[text.name]) for text in found.texts]
    conventions = {"perplexity": text_conventions()} if found.texts else {}
    if found.of_tasks[0][1]:
        tables.append(accuracy_table(found.of_tasks))
        conventions["accuracy"] = task_conventions(found.of_tasks, found.not_run)
    return tables, conventions


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = read_options(EvaluateOptions, command_line(), arguments)
    request = request_of(options)
    folder = output_folder(options.output)
    levels = task_levels(options.data_dir)
    if options.data_dir is not None and not (levels or options.models):
        raise ValueError(
            f"{options.data_dir} holds none of the tasks' files, such as superglue_rte.val.jsonl; name another --data-dir, or none"
        )
    lines, tables, conventions, not_run = published_lines(), list[str](), dict[str, list[str]](), dict[str, str]()
    if request is not None:
        require_network()
        quieten_all()
        found = measurements(request, folder)
        lines += measured_lines(found)
        tables, conventions = measured_details(found)
        not_run = found.not_run
    held_against = findings(levels)
    header, rows = scores_table(lines, levels)
    said = [
        *notes(held_against, levels),
        *(f"tables of what was measured here: {line}" for group in conventions.values() for line in group),
    ]
    print("\n\n".join([text_table(header, rows, {0, 1}), *tables, "\n".join(f"  {line}" for line in said)]))
    _write_results(folder, lines, levels, held_against, markdown_of(header, rows, tables, said), conventions, not_run)
    print(f"\nWritten to {folder}: table.md, summary.json, zero_shot.png" + (", rows.jsonl" if options.models else ""), flush=True)
    return ExitCode.MISTAKE if not_run else ExitCode.DONE


def _write_results(
    folder: Path,
    lines: Sequence[ScoreLine],
    levels: dict[str, Level],
    held_against: dict[str, Any],
    markdown: str,
    conventions: dict[str, list[str]],
    not_run: dict[str, str],
) -> None:
    """table.md, zero_shot.png and summary.json."""
    from studies.zero_shot.figures import draw_scores

    figure = draw_scores(lines, held_against["mean_of_guessing"], held_against.get("mean_of_the_best_constants"))
    save_figure(figure, folder / "zero_shot.png")
    with replace_file(folder / "table.md") as file:
        file.write(markdown.encode())
    write_json(
        folder / "summary.json",
        {
            "systems": [_record(line) for line in lines],
            "tasks": [_task_record(name, levels.get(name)) for name in PAPER_TASKS],
            "findings": held_against,
            "conventions": conventions,
            "not_run": not_run,
            "provenance": provenance(0, ("numpy", "matplotlib", *(_MEASURED_WITH if conventions else ()))),
        },
    )


def _record(line: ScoreLine) -> dict[str, Any]:
    return {
        "name": line.name,
        "measured": line.measured,
        "parameters": line.parameters,
        "flops": line.flops,
        "latency_ms": line.latency_ms,
        "perplexities": line.perplexities,
        "accuracies": line.accuracies,
        "standard_errors": {task: standard_error(p, line.examples[task]) for task, p in line.accuracies.items()},
        "examples": line.examples,
        "mean": line.mean,
        "standard_error_of_the_mean": line.error,
        "printed_average": None if line.measured else PUBLISHED_SCORES[line.name].average,
    }


def _task_record(name: str, level: Level | None) -> dict[str, Any]:
    task = PAPER_TASKS[name]
    return {
        "task": name,
        "title": task.title,
        "metric": task.metric,
        "examples": task.examples,
        "guessing": chance_levels({} if level is None else {name: level})[name],
        "examples_here": None if level is None else level.examples,
        "constant_answers": None if level is None else list(level.constants),
    }


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help. What concerns measuring is named as in `merino_net.evaluate`, which needs PyTorch."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="a folder that save_pretrained wrote, or a name on the Hugging Face hub"
    )
    parser.add_argument(
        "--benchmark", nargs="*", default=list(PAPER_BENCHMARKS), metavar="NAME", help="perplexities to measure (default: both)"
    )
    parser.add_argument(
        "--tasks", nargs="*", default=["all"], metavar="NAME", help="of lm-evaluation-harness to measure (default: all twelve)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="local files in place of the hub, as in merino_net.evaluate")
    add_pass_arguments(parser, "default C/2", "the models")
    parser.add_argument(
        "--output", default="results/zero_shot", metavar="DIR", help="folder of the results (default results/zero_shot)"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the output folder already holds")
    parser.set_defaults(text=[], text_field=None, text_format=None, text_memory=1024)  # it takes no text of yours
    return parser
