"""Zero-shot accuracy on the paper's twelve tasks, as lm-evaluation-harness defines and measures them.

Prompts, options and metrics are the harness's installed task definitions. Their data come from the hub, or from local files, which
are converted here into the fields that each definition reads. Models, rows and tables are `merino_net.evaluate`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.command.processes import temporary_folder
from formulation.command.words import counted
from merino_net.network.pretrained import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Example = dict[str, Any]
_OPTIONS = "abcdefgh"
"""Letters of LogiQA's labels."""
_SPLIT = "test"
"""The split that local examples stand under, whatever the definition calls its own."""


@dataclass(frozen=True)
class Task:
    """One of the paper's tasks.

    title names it in tables; definition is the harness's file below its tasks folder; files are patterns of the local file, in the
    order they are looked for; examples is the size of the complete evaluation split; convert turns one line of the local file into
    the fields that the definition reads.
    """

    title: str
    definition: str
    files: tuple[str, ...]
    examples: int
    convert: Callable[[Example], Example]


@dataclass(frozen=True)
class Accuracy:
    """What the harness measured on a task without examples in the prompt; acc_norm only where the task defines it.

    acc: share of examples whose right option has the highest log-likelihood; acc_norm: with the log-likelihood divided by the
    option's length. The standard errors are of the mean over the examples, None for a single one. cut counts the requests whose
    prompt lost its beginning because it exceeds the model's positions.
    """

    acc: float
    acc_stderr: float | None
    acc_norm: float | None
    acc_norm_stderr: float | None
    examples: int
    requests: int
    cut: int


def _plain(*fields: str) -> Callable[[Example], Example]:
    """Keep these fields as they are."""
    return lambda line: {field: line[field] for field in fields}


def _with_label(labels: Sequence[Any], fields: dict[str, str]) -> Callable[[Example], Example]:
    """Fields under the definition's names ({its: ours}), and the label as its number in `labels`."""
    return lambda line: {
        **{theirs: line[ours] for theirs, ours in fields.items()},
        "label": _number_in(labels, line["label"]),
    }


def _number_in(labels: Sequence[Any], label: Any) -> int:
    """Where `label` stands; of the same type, as True is no 1 here."""
    number = next((i for i, one in enumerate(labels) if type(one) is type(label) and one == label), None)
    if number is None:
        raise ValueError(f"the label is {label!r}; expected {' or '.join(map(repr, labels))}")
    return number


def _science(question: str) -> Callable[[Example], Example]:
    """ARC and OpenBookQA: the stem under the name `question`, the options as one list of texts and one of labels."""

    def convert(line: Example) -> Example:
        options = line["question"]["choices"]
        labels = [option["label"] for option in options]
        _number_in(labels, line["answerKey"])
        return {
            question: line["question"]["stem"],
            "choices": {"text": [option["text"] for option in options], "label": labels},
            "answerKey": line["answerKey"],
        }

    return convert


def _winogrande(line: Example) -> Example:
    _number_in(("1", "2"), line["answer"])
    if "_" not in line["sentence"]:
        raise ValueError("the sentence has no gap; expected a _ in it")
    return _plain("sentence", "option1", "option2", "answer")(line)


def _pubmedqa(line: Example) -> Example:
    _number_in(("yes", "no", "maybe"), line["final_decision"])
    return _plain("QUESTION", "CONTEXTS", "final_decision")(line)


def _logiqa(line: Example) -> Example:
    _number_in(_OPTIONS[: len(line["options"])], line["label"].strip())
    return _plain("context", "question", "options", "label")(line)


def _wsc(line: Example) -> Example:
    """The spans brought out of `target`, mended where one is not found in the text (see `_found_span`)."""
    target = line["target"]
    spans = {
        f"span{n}_{what}": target[f"span{n}_index"] if what == "index" else _found_span(line["text"], target, n)
        for n in (1, 2)
        for what in ("index", "text")
    }
    return {"text": line["text"], **spans, "label": _number_in((False, True), line["label"])}


def _found_span(text: str, target: Example, number: int) -> str:
    """A span as it stands in the text.

    Some spans of the original file differ from their place in the text in a capital letter, a line end or a full stop; the hub's
    `wsc.fixed`, which the definition names, has them mended.
    """
    span, start = str(target[f"span{number}_text"]), int(target[f"span{number}_index"])
    if span in text:
        return span
    mended = span.replace("\n", " ").rstrip(".")
    words = text.split()
    if start < len(words) and words[start][:1].lower() == mended[:1].lower():
        mended = words[start][:1] + mended[1:]
    return mended if mended in text else span


def _hellaswag(line: Example) -> Example:
    """Lines of the original file as they are; lines that went through the definition's process_docs already keep its fields."""
    if "query" in line:
        _number_in(range(len(line["choices"])), line["gold"])
        return {**_plain("query", "choices", "gold")(line), "label": str(line["gold"])}
    _number_in(range(len(line["endings"])), int(line["label"]))
    return {**_plain("activity_label", "ctx_a", "ctx_b", "endings")(line), "label": str(line["label"])}


TASKS = {
    "hellaswag": Task(
        "HellaSwag", "hellaswag/hellaswag.yaml", ("hellaswag_val.jsonl", "hellaswag_val.*.jsonl"), 10_042, _hellaswag
    ),
    "winogrande": Task("WinoGrande", "winogrande/default.yaml", ("winogrande_xl.dev.jsonl",), 1_267, _winogrande),
    "arc_easy": Task("ARC-E", "arc/arc_easy.yaml", ("arc_easy.test.jsonl",), 2_376, _science("question")),
    "arc_challenge": Task("ARC-C", "arc/arc_challenge.yaml", ("arc_challenge.test.jsonl",), 1_172, _science("question")),
    "openbookqa": Task("OBQA", "openbookqa/openbookqa.yaml", ("openbookqa_main.test.jsonl",), 500, _science("question_stem")),
    "boolq": Task(
        "BoolQ",
        "super_glue/boolq/default.yaml",
        ("superglue_boolq.val.jsonl",),
        3_270,
        _with_label((False, True), {"question": "question", "passage": "passage"}),
    ),
    "wic": Task(
        "WiC",
        "super_glue/wic/default.yaml",
        ("superglue_wic.val.jsonl",),
        638,
        _with_label((False, True), {name: name for name in ("sentence1", "sentence2", "word", "start1", "end1", "start2", "end2")}),
    ),
    # The harness offers True, False, Neither in this order.
    "cb": Task(
        "CB",
        "super_glue/cb/default.yaml",
        ("superglue_cb.val.jsonl",),
        56,
        _with_label(("entailment", "contradiction", "neutral"), {"premise": "premise", "hypothesis": "hypothesis"}),
    ),
    "wsc": Task("WSC", "super_glue/wsc/default.yaml", ("superglue_wsc.val.jsonl",), 104, _wsc),
    # The harness's rte is GLUE's (sentence1, sentence2; entailment is 0); the local file is SuperGLUE's, with as many examples.
    "rte": Task(
        "RTE",
        "glue/rte/default.yaml",
        ("superglue_rte.val.jsonl",),
        277,
        _with_label(("entailment", "not_entailment"), {"sentence1": "premise", "sentence2": "hypothesis"}),
    ),
    "pubmedqa": Task("PubMedQA", "pubmedqa/pubmedqa.yaml", ("pubmedqa_pqal.test500.jsonl",), 500, _pubmedqa),
    "logiqa": Task("LogiQA", "logiqa/logiqa.yaml", ("logiqa.test.jsonl",), 651, _logiqa),
}
"""The paper's twelve tasks by the harness's names, in the paper's order."""


def task_file(name: str, data_dir: Path) -> Path | None:
    """The local file of a task in `data_dir` or data_dir/zero_shot; None if neither has it."""
    for folder in (data_dir, data_dir / "zero_shot"):
        for pattern in TASKS[name].files:
            found = sorted(folder.glob(pattern))
            if found:
                return found[0]
    return None


def local_examples(name: str, path: Path) -> list[Example]:
    """The examples of a task's local file (JSON lines) with the fields that the harness's definition reads.

    Raises ValueError, naming the line, for one that is not a JSON object, lacks a field or has a label that the task does not know.
    """
    examples = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            examples.append(TASKS[name].convert(json.loads(line)))
        except KeyError as error:
            raise ValueError(f"line {number} of {path} has no field {error}; expected the original format of {name}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number} of {path} cannot be read as an example of {name}: {error}") from None
    if not examples:
        raise ValueError(f"{path} has no example; expected one JSON object a line")
    return examples


def spread(count: int, limit: int) -> list[int]:
    """`limit` of the positions 0, …, count − 1 at equal distances, all where there are no more.

    A data set may be sorted: the first 200 questions of PubMedQA's test set have one and the same answer.
    """
    taken = min(count, limit)
    return [count * place // taken for place in range(taken)]


def which_examples(limit: int | None) -> str | None:
    """What a key says of the examples that an accuracy is on."""
    return None if limit is None else f"{limit}, spread"


class ZeroShot:
    """The harness around a model in this process.

    batch requests make one forward pass; log-softmax is float32. A prompt that exceeds `positions` loses its beginning. Tokens are
    added before a prompt where the tokenizer's own settings say so (OPT's does), as the harness does by itself.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int | None, batch: int = 8) -> None:
        with _quiet():
            self._model = _harness_class()(model, tokenizer, positions, batch)

    def accuracy(self, name: str, file: Path | None = None, limit: int | None = None) -> Accuracy:
        """Accuracy on a task, on the examples of `file` or on the hub's; with `limit` on that many, spread evenly over the task.

        `lm_eval.evaluator.evaluate` is what the harness's simple_evaluate calls; what that adds are seeds, which log-likelihoods do
        not use, and a record of the machine that takes seconds for every task.
        Raises TaskUnavailable where the hub does not give the data, ValueError for a file that cannot be used.
        """
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager

        examples = None if file is None else local_examples(name, file)
        with temporary_folder() as folder, _quiet() as stderr:
            _write_definition(name, examples, folder)
            try:
                tasks = TaskManager(include_path=str(folder), include_defaults=False).load([name])
            except ConnectionError as error:
                raise HubUnreachable(_unavailable(name, error)) from None
            except (OSError, RuntimeError, ValueError) as error:
                raise TaskUnavailable(_unavailable(name, error)) from None
            self._model.begin(stderr)
            samples = None if limit is None else {name: spread(len(tasks["tasks"][name].eval_docs), limit)}
            # The iterations concern other metrics than the mean, whose standard error has a formula; 0 would leave that out too.
            found = evaluator.evaluate(self._model, tasks, samples=samples, bootstrap_iters=1, log_samples=False)
        measured = found["results"][name]
        return Accuracy(
            acc=float(measured["acc,none"]),
            acc_stderr=_number(measured["acc_stderr,none"]),
            acc_norm=_number(measured.get("acc_norm,none")),
            acc_norm_stderr=_number(measured.get("acc_norm_stderr,none")),
            examples=int(found["n-samples"][name]["effective"]) if samples is None else len(samples[name]),
            requests=self._model.requests,
            cut=self._model.cut,
        )


class TaskUnavailable(ValueError):
    """The hub does not give a task's data: it is gone, renamed, or a script that `datasets` no longer runs."""


class HubUnreachable(TaskUnavailable):
    """The hub does not answer at all, so no other task will fare better."""


def _unavailable(name: str, error: Exception) -> str:
    return (
        f"the data of {name} cannot be had from the Hugging Face hub ({first_line(error)}); "
        f"give a folder that holds {TASKS[name].files[0]} with --data-dir"
    )


def _number(value: Any) -> float | None:
    """A measured number; None for the harness's "N/A" and if there isn't one."""
    return float(value) if isinstance(value, (int, float)) else None


def _write_definition(name: str, examples: list[Example] | None, folder: Path) -> None:
    """A task definition that includes the installed one, and for local examples names them as its data.

    Accuracy alone is asked of CB: its F1 is not reported here. Parquet keeps each field's type, which JSON would have guessed.
    """
    import datasets
    import lm_eval.tasks

    definition: dict[str, Any] = {"include": str(Path(lm_eval.tasks.__file__).parent / TASKS[name].definition), "task": name}
    if name == "cb":
        definition["metric_list"] = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    if examples is not None:
        data = folder / "examples.parquet"
        datasets.Dataset.from_list(examples).to_parquet(data)
        definition |= {
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {_SPLIT: str(data)}, "cache_dir": str(folder / "cache")},
            "training_split": None,
            "validation_split": None,
            "test_split": _SPLIT,
        }
        if "query" in examples[0]:
            definition["process_docs"] = None
    # JSON is YAML.
    (folder / f"{name}.yaml").write_text(json.dumps(definition))


@contextlib.contextmanager
def _quiet() -> Iterator[io.TextIOBase | Any]:
    """Keep the harness and the data sets from writing to stderr; gives the real one."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    stderr = sys.stderr
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield stderr
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


@cache
def _harness_class() -> type[Any]:
    """The harness's model class, told to count requests and to show its progress on a terminal only.

    Made when first asked for: importing the harness takes seconds.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    class InProcess(HFLM):
        def __init__(self, model: Any, tokenizer: Any, positions: int | None, batch: int) -> None:
            super().__init__(
                pretrained=model,
                tokenizer=tokenizer,
                backend="causal",
                max_length=positions,
                batch_size=batch,
                softmax_dtype=torch.float32,
            )

        def begin(self, stderr: Any) -> None:
            self._stderr, self.requests, self.cut = stderr, 0, 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with contextlib.redirect_stderr(self._stderr):
                return super().loglikelihood(requests, disable_tqdm=disable_tqdm or not self._stderr.isatty())

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
            most = self.max_length + 1
            self.requests += len(requests)
            self.cut += sum(len(context) + len(option) > most for _, context, option in requests)
            longest = max(len(option) for _, _, option in requests)
            if longest > self.max_length:
                raise ValueError(
                    f"an option is {counted(longest, 'token')} long, but the model has {counted(self.max_length, 'position')}; "
                    "evaluate it on other tasks"
                )
            found = super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
            if bad := sum(not math.isfinite(value) for value, _ in found):
                raise ValueError(
                    f"the log-likelihood of {bad:,} of {counted(len(found), 'option')} is not a finite number; the model overflows "
                    "in this number format: try --dtype float32"
                )
            return found

    return InProcess


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
