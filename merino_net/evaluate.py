"""Perplexity and zero-shot accuracy of language models side by side, every convention named.

    python -m merino_net.evaluate results/train/model --benchmark wikitext2 ptb --tasks all
    python -m merino_net.evaluate model-a model-b facebook/opt-125m --benchmark wikitext2 --data-dir data --tasks boolq arc_easy
    python -m merino_net.evaluate model-a --text held_out.txt.xz --context 1024 --stride 1024
    python -m merino_net.evaluate model-a --text reviews.csv --text-field body

Writes rows.jsonl (one line a model and measurement, none of them measured twice) and evaluate.json (all that the tables show,
conventions, provenance). How a text is scored is `merino_net.scoring.perplexity`'s, how a task is,
`merino_net.scoring.zero_shot`'s.

Exit code: 0 all measured; 2 some tasks could not be run (the reason is printed), a mistake in the command or a file that cannot
be read; 130 Ctrl-C, and what is measured is kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command, run_command
from formulation.command.words import counted, text_table
from formulation.fingerprint import content_key
from formulation.records.files import output_folder, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from merino_net.corpus.text import Reading, Text, add_reading_arguments
from merino_net.network.pretrained import Model, find_models, load_model, quieten, start_token, torch_device
from merino_net.network.registration import require_network
from merino_net.scoring.perplexity import BENCHMARKS, NamedText, benchmark_text, score_text, window_of
from merino_net.scoring.zero_shot import TASKS, HubUnreachable, TaskUnavailable, ZeroShot, file_sha256, task_file, which_examples

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "lm_eval")


@dataclass(frozen=True)
class Request:
    """What is to be measured, and how: a command line, checked.

    Attributes:
        models: folders, or names on the hub.
        benchmarks: of `BENCHMARKS`.
        sources: further texts, as `Text` takes them.
        reading: how these are read.
        tasks: of `TASKS`, or "all".
        data_dir: folder of local files in place of the hub.
        context: window of the perplexities in tokens; None: the positions, at most 1,024.
        stride: tokens from window to window; None: half the window.
        batch: windows or prompts in a forward pass.
        dtype: number format of the model.
        device: to compute on; None: cuda where there is one.
        limit: examples of each task at most; None: all.
        again: measure again what is measured already.

    Raises:
        ValueError: nothing to measure, names that are unknown or given twice, numbers out of range, or no such folder.
        ImportError: tasks are asked for without lm-evaluation-harness.
    """

    models: tuple[str, ...]
    benchmarks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    tasks: tuple[str, ...] = ()
    data_dir: Path | None = None
    context: int | None = None
    stride: int | None = None
    batch: int = 8
    dtype: str = "float32"
    device: str | None = None
    limit: int | None = None
    again: bool = False

    def __post_init__(self) -> None:
        if not (self.benchmarks or self.sources or self.tasks):
            raise ValueError("nothing to measure; give --benchmark wikitext2 ptb, --text FILE, --tasks all, or several of them")
        for flag, given, known in (("benchmark", self.benchmarks, tuple(BENCHMARKS)), ("tasks", self.tasks, ("all", *TASKS))):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(f"--{flag} {unknown[0]} is not known; expected {', '.join(known[:-1])} or {known[-1]}")
        for flag in ("context", "stride", "batch", "limit"):
            value = getattr(self, flag)
            if value is not None and value < 1:
                raise ValueError(f"--{flag} is {value}; expected at least 1")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise ValueError(f"--data-dir {self.data_dir} is not a folder; name the one that holds the evaluation files")
        for flag, given in (("MODEL", self.models), ("--text", self.sources)):
            twice = next((name for name in given if given.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{flag} names {twice} twice; expected each once")
        if self.tasks and importlib.util.find_spec("lm_eval") is None:
            raise ImportError("--tasks needs lm-evaluation-harness, which is not installed; pip install lm_eval")


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of a command that evaluates networks, see --help."""

    models: tuple[str, ...]
    benchmark: tuple[str, ...]
    text: tuple[str, ...]
    text_field: str | None
    text_format: str | None
    text_memory: int
    tasks: tuple[str, ...]
    data_dir: str | None
    context: int | None
    stride: int | None
    batch: int
    dtype: str
    device: str | None
    limit: int | None
    output: str
    again: bool

    @property
    def request(self) -> Request:
        """What they ask to measure; ValueError and ImportError as `Request` raises them."""
        return Request(
            models=self.models,
            benchmarks=self.benchmark,
            sources=self.text,
            reading=Reading.of(self.text_field, self.text_format, self.text_memory),
            tasks=self.tasks,
            data_dir=None if self.data_dir is None else Path(self.data_dir),
            context=self.context,
            stride=self.stride,
            batch=self.batch,
            dtype=self.dtype,
            device=self.device,
            limit=self.limit,
            again=self.again,
        )


@dataclass(frozen=True)
class TaskData:
    """Where the examples of a task come from: a local file with its SHA-256, or the hub (None)."""

    name: str
    file: Path | None
    sha256: str | None


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="a folder that save_pretrained wrote, or a name on the Hugging Face hub"
    )
    parser.add_argument(
        "--benchmark", nargs="+", default=[], metavar="NAME", help=f"perplexity on {' or '.join(BENCHMARKS)} (test)"
    )
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="SOURCE", help="perplexity on files, folders or the hub's, as in merino_net.train"
    )
    add_reading_arguments(parser)
    parser.add_argument("--tasks", nargs="+", default=[], metavar="NAME", help=f"zero-shot accuracy: all, or of {', '.join(TASKS)}")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="local files in place of the hub: DIR/wikitext2.test.txt and DIR/ptb.test.txt or in DIR/eval; the tasks' JSON "
        "lines in DIR or DIR/zero_shot",
    )
    add_pass_arguments(parser, "default C/2; C for windows side by side", "the model")
    parser.add_argument(
        "--output", default="results/evaluate", metavar="DIR", help="folder of the results (default results/evaluate)"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the output folder already holds")
    return parser


def add_pass_arguments(parser: argparse.ArgumentParser, stride: str, of: str) -> None:
    """The flags that say how networks are run; `stride` is said of its default, `of` whose number format it is."""
    parser.add_argument(
        "--context", type=int, metavar="C", help="window of the perplexities in tokens (default: the positions, at most 1024)"
    )
    parser.add_argument("--stride", type=int, metavar="S", help=f"tokens from window to window ({stride})")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="windows or prompts in a forward pass (default 8)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help=f"number format of {of} (default float32)"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 and so on (default: cuda where there is one)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N examples of each task, spread evenly over it")


def find_texts(benchmarks: Sequence[str], sources: Sequence[str], data_dir: Path | None, reading: Reading) -> list[NamedText]:
    """The benchmarks and texts of these names; ValueError for one that cannot be read."""
    texts = [benchmark_text(name, data_dir) for name in dict.fromkeys(benchmarks)]
    texts += [NamedText(*_named(source), Text((source,), reading=reading).in_memory()) for source in sources]
    names = [text.name for text in texts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two texts are called {twice}; rename one, or evaluate them apart")
    return texts


def _named(source: str) -> tuple[str, str]:
    """What a text is called, and what it is."""
    path = Path(source)
    return (path.name, f"{'folder' if path.is_dir() else 'file'} {path.name}") if path.exists() else (source, source)


def find_tasks(names: Sequence[str], data_dir: Path | None) -> tuple[list[TaskData], dict[str, str]]:
    """The tasks to run in the paper's order, and those that cannot be with the reason. ValueError if none is left."""
    wanted = [name for name in TASKS if "all" in names or name in names]
    if data_dir is None:
        return [TaskData(name, None, None) for name in wanted], {}
    files = {name: task_file(name, data_dir) for name in wanted}
    missing = {name: f"no file {TASKS[name].files[0]} in the data folder" for name, file in files.items() if file is None}
    found = [TaskData(name, file, file_sha256(file)) for name, file in files.items() if file is not None]
    if wanted and not found:
        first = TASKS[wanted[0]].files[0]
        raise ValueError(
            f"{data_dir} holds none of the tasks' files, such as {first}; name another --data-dir, or none for the hub"
        )
    return found, missing


def text_key(model: Model, text: NamedText, request: Request) -> str:
    """The key of a perplexity; ValueError for a window that the model does not take."""
    try:
        window = window_of(model.positions, request.context, request.stride)
    except ValueError as error:
        raise ValueError(f"{model.name}: {error}") from None
    return content_key("text", model.fingerprint, text.name, text.sha256, *window, request.dtype)


def task_key(model: Model, task: TaskData, request: Request) -> str:
    """The key of an accuracy."""
    examples = which_examples(request.limit)
    return content_key("task", model.fingerprint, task.name, task.sha256, examples, request.dtype, _version("lm_eval"))


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def measured_by_key(
    models: Sequence[Model], texts: Sequence[NamedText], tasks: Sequence[TaskData], request: Request, file: RowFile
) -> tuple[Resume[str], dict[str, str]]:
    """Every row by its key, those missing in the file measured and appended; and the tasks that the hub does not give, and why."""
    plan: list[tuple[Model, str, NamedText | TaskData]] = [
        *((model, text_key(model, text, request), text) for model in models for text in texts),
        *((model, task_key(model, task, request), task) for model in models for task in tasks),
    ]
    device = torch_device(request.device)
    failed: dict[str, str] = {}
    keys = [key for _, key, _ in plan]
    with Resume(file, keys, columns={"measured"}, unit="measurement", again=request.again) as resume:
        for model in models:
            missing = [(key, what) for one, key, what in plan if one is model and key not in resume]
            if missing:
                _measure_model(model, missing, request, device, failed, resume)
    return resume, failed


def _measure_model(
    model: Model,
    missing: Sequence[tuple[str, NamedText | TaskData]],
    request: Request,
    device: str,
    failed: dict[str, str],
    resume: Resume[str],
) -> None:
    """Load a model once and measure what is missing."""
    import torch

    resume.note(f"{model.name}: loading")
    network, tokenizer = load_model(model, request.dtype, device)
    harness: ZeroShot | None = None
    for key, what in missing:
        resume.note(f"{model.name}: {what.name}")
        start = time.perf_counter()
        try:
            if isinstance(what, TaskData):
                if what.name in failed:
                    resume.skip([key])
                    continue
                harness = harness or ZeroShot(network, tokenizer, model.positions, request.batch)
                measured = _task_record(harness, model, what, request)
            else:
                measured = _text_record(network, tokenizer, model, what, request)
        except HubUnreachable:
            raise
        except TaskUnavailable as error:
            failed[what.name] = str(error)
            resume.skip([key])
            continue
        except torch.OutOfMemoryError:
            raise ValueError(
                f"{model.name} on {what.name} needs more memory than {device} has with --batch {request.batch}; give a smaller one"
            ) from None
        except ValueError as error:
            raise ValueError(f"{model.name} on {what.name}: {error}") from None
        row = {
            "key": key,
            "model": model.name,
            "fingerprint": model.fingerprint,
            "parameters": network.num_parameters(),
            "positions": model.positions,
            "dtype": request.dtype,
            "device": device if device == "cpu" else torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
            "batch": request.batch,
            "seconds": time.perf_counter() - start,
            "machine": provenance(0)["machine"],
            "versions": provenance(0, _PACKAGES)["versions"],
            "measured": measured,
        }
        resume.add(key, row)


def _text_record(network: Any, tokenizer: Any, model: Model, text: NamedText, request: Request) -> Row:
    context, stride = window_of(model.positions, request.context, request.stride)
    # Shown on a terminal only.
    with tqdm(unit="token", unit_scale=True, leave=False, disable=None, file=sys.stderr, dynamic_ncols=True) as bar:

        def advance(scored: int, of: int) -> None:
            bar.total = of
            bar.update(scored)

        score = score_text(
            network, tokenizer, text.documents, context=context, stride=stride, batch=request.batch, progress=advance
        )
    start = tokenizer.convert_ids_to_tokens(start_token(tokenizer))
    return {
        "text": text.name,
        "variant": text.variant,
        "sha256": text.sha256,
        "context": context,
        "stride": stride,
        "start_token": start,
        **score.to_dict(),
    }


def _task_record(harness: ZeroShot, model: Model, task: TaskData, request: Request) -> Row:
    return {
        "task": task.name,
        "data": "hub" if task.file is None else task.file.name,
        "sha256": task.sha256,
        "complete": TASKS[task.name].examples,
        "limit": request.limit,
        "few_shot": 0,
        "lm_eval": _version("lm_eval"),
        **asdict(harness.accuracy(task.name, task.file, request.limit)),
    }


def _number(value: float | None, form: str = ",.2f") -> str:
    return "-" if value is None else format(value, form)


def perplexity_table(text: NamedText, rows: Sequence[tuple[Model, Row]]) -> str:
    """One line a model: the perplexities on a text, and what they were divided by below."""
    header = ["model", "context/stride", "tokens", "token ppl", "word ppl", "word ppl, no line ends", "byte ppl", "bits/byte"]
    lines = []
    for model, row in rows:
        one = row["measured"]
        lines.append(
            [
                model.name,
                f"{one['context']}/{one['stride']}",
                f"{one['tokens']:,}",
                _number(one["token_perplexity"]),
                _number(one["word_perplexity"]),
                _number(one["word_perplexity_without_line_ends"]),
                _number(one["byte_perplexity"], ",.4f"),
                _number(one["bits_per_byte"], ",.4f"),
            ]
        )
    size = rows[0][1]["measured"]
    counts = (
        f"{size['words'] + size['lines']:,} words with one end of line a line, {size['words']:,} without, {size['bytes']:,} bytes"
    )
    return f"{text.name}: {text.variant}; {counts}\n\n{text_table(header, lines, {0})}"


def accuracy_table(rows: Sequence[tuple[Model, Sequence[Row]]]) -> str:
    """One line a model: accuracies and their mean, the examples below; then standard errors and acc_norm."""
    header = ["accuracy", *(_title(row["measured"]) for row in rows[0][1]), "mean"]
    lines = [
        [model.name, *(_number(row["measured"]["acc"], ".3f") for row in own), _number(mean_accuracy(own), ".3f")]
        for model, own in rows
    ]
    lines.append(["examples", *(f"{row['measured']['examples']:,}" for row in rows[0][1]), ""])
    other_lines = [
        [f"{model.name}, {label}", *(_number(row["measured"][field], ".3f") for row in own)]
        for model, own in rows
        for label, field in (("standard error", "acc_stderr"), ("acc_norm", "acc_norm"), ("its standard error", "acc_norm_stderr"))
        if any(row["measured"][field] is not None for row in own)
    ]
    others = text_table(["also", *header[1:-1]], other_lines, {0}) if other_lines else ""
    return f"{text_table(header, lines, {0})}\n\n{others}".rstrip()


def _title(measured: Row) -> str:
    """A task's name in the table, with * where fewer than all examples were evaluated."""
    return TASKS[measured["task"]].title + ("*" if measured["examples"] < measured["complete"] else "")


def mean_accuracy(rows: Sequence[Row]) -> float:
    """The plain mean of acc over tasks, each counted once, as in the paper's average."""
    return sum(row["measured"]["acc"] for row in rows) / len(rows)


def text_conventions() -> list[str]:
    """How the perplexities are to be read."""
    return [
        "token ppl = exp(nats / tokens of the model's own tokenizer): compare it within one tokenizer only",
        "word ppl = exp(nats / (white-space words + one end of line a line)); no line ends: exp(nats / words)",
        "byte ppl = exp(nats / UTF-8 bytes); bits/byte = nats / (bytes ln 2)",
        "each document of a text is scored by itself, after the tokenizer's bos or else eos token and with nothing behind it",
        "windows of `context` tokens move by `stride`: every token is scored once, from all that precedes it or at least "
        "context - stride + 1 tokens",
    ]


def task_conventions(rows_of: Sequence[tuple[Model, Sequence[Row]]], not_run: dict[str, str]) -> list[str]:
    """How the accuracies are to be read, of which data, and what was not run."""
    rows = [row for _, own in rows_of for row in own]
    versions = ", ".join(sorted({row["measured"]["lm_eval"] for row in rows}))
    names = dict.fromkeys(row["measured"]["task"] for row in rows)
    lines = [
        f"acc of lm-evaluation-harness {versions} with its own task definitions, no examples in the prompt; higher is better",
        f"mean = plain mean of acc over the {counted(len(names), 'task')} run (the paper's average is over {len(TASKS)})",
    ]
    partial = {
        TASKS[one["task"]].title: f"{TASKS[one['task']].title} {one['examples']:,} of {one['complete']:,}"
        for one in (row["measured"] for row in rows)
        if one["examples"] < one["complete"]
    }
    if partial:
        lines.append(f"* partial, so not comparable with published figures: {', '.join(partial.values())}")
    cut = [
        f"{model.name} on {TASKS[one['task']].title} {one['cut']:,} of {one['requests']:,}"
        for model, own in rows_of
        for one in (row["measured"] for row in own)
        if one["cut"]
    ]
    if cut:
        lines.append(f"prompts that lost their beginning to the model's positions: {', '.join(cut)}")
    lines.extend(f"not run: {name} ({reason})" for name, reason in not_run.items())
    return lines


@dataclass(frozen=True)
class Measurements:
    """What a command line asked for: rows by text and by model, models in its order, and the tasks that were not run, and why."""

    models: list[Model]
    texts: list[NamedText]
    of_texts: dict[str, list[tuple[Model, Row]]]
    of_tasks: list[tuple[Model, list[Row]]]
    not_run: dict[str, str]


def measurements(request: Request, folder: Path) -> Measurements:
    """Measure what `request` asks for and folder/rows.jsonl does not hold yet.

    Raises:
        ValueError: for a model, text or task that cannot be had, where nothing is left to measure.
    """
    texts = find_texts(request.benchmarks, request.sources, request.data_dir, request.reading)
    tasks, not_run = find_tasks(request.tasks, request.data_dir)
    models = find_models(request.models)
    rows, failed = measured_by_key(models, texts, tasks, request, RowFile(folder / "rows.jsonl"))
    tasks = [task for task in tasks if task.name not in failed]
    if not texts and not tasks:
        raise ValueError(next(iter(failed.values())))
    return Measurements(
        models=models,
        texts=texts,
        of_texts={text.name: [(model, rows[text_key(model, text, request)]) for model in models] for text in texts},
        of_tasks=[(model, [rows[task_key(model, task, request)] for task in tasks]) for model in models],
        not_run=not_run | failed,
    )


def _evaluate(request: Request, folder: Path) -> int:
    """Measure, show and write; returns the exit code."""
    found = measurements(request, folder)
    for text in found.texts:
        print(f"\n{perplexity_table(text, found.of_texts[text.name])}")
    conventions: dict[str, list[str]] = {}
    if found.texts:
        conventions["perplexity"] = text_conventions()
        _print_legend(conventions["perplexity"])
    if found.of_tasks[0][1]:
        conventions["accuracy"] = task_conventions(found.of_tasks, found.not_run)
        print(f"\n{accuracy_table(found.of_tasks)}")
        _print_legend(conventions["accuracy"])
    write_json(
        folder / "evaluate.json",
        {
            "models": [
                {
                    "name": model.name,
                    "fingerprint": model.fingerprint,
                    "texts": [_without_key(dict(found.of_texts[text.name])[model]) for text in found.texts],
                    "tasks": [_without_key(row) for row in own],
                    "mean_accuracy": mean_accuracy(own) if own else None,
                }
                for model, own in found.of_tasks
            ],
            "not_run": found.not_run,
            "conventions": conventions,
            "provenance": provenance(0, _PACKAGES),
        },
    )
    print(f"\nWritten to {folder}: rows.jsonl, evaluate.json", flush=True)
    return ExitCode.MISTAKE if found.not_run else ExitCode.DONE


def _print_legend(lines: Sequence[str]) -> None:
    print("\n" + "\n".join(f"  {line}" for line in lines), flush=True)


def _without_key(row: Row) -> Row:
    """A row for evaluate.json: what was measured, and on what."""
    return {**row["measured"], **{name: row[name] for name in ("parameters", "dtype", "device", "batch", "seconds", "machine")}}


def quieten_all() -> None:
    """What goes wrong is said in our own words; what goes well needs no words of the libraries'."""
    quieten()
    for name in ("huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see --help."""
    options = read_options(EvaluateOptions, command_line(), arguments)
    request = options.request
    require_network()
    quieten_all()
    return _evaluate(request, output_folder(options.output))


if __name__ == "__main__":
    run_command(main)
