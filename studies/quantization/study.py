"""What 8 and 4 bits save and cost: size on disk, perplexity, zero-shot accuracy, logits and speed of a network before and after.

    python -m studies.quantization results/train --calibration-text books/ --benchmark wikitext2 --data-dir data --tasks all
    python -m studies.quantization results/a results/b --methods rtn --evaluation-text held_out.txt
    python -m studies.quantization results/train --gptq-python .venv-quantize/bin/python --calibration-text books/ --benchmark ptb

Every network is rounded to nearest, quantized by GPTQ and put into OpenVINO, its embedding too or not (`merino_net.quantize`).
GPTQ's library has its own environment: --gptq-python names its Python, and all the rest runs in this one.
Speed is OpenVINO's, float32, INT8 and INT4 in turns. Writes rows.jsonl (nothing is measured twice), summary.json, quantization.png,
and the quantized networks in variants/.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from formulation.architecture import positive_integer
from formulation.command.help import command_parser
from formulation.command.options import read_options
from formulation.command.run import command
from formulation.command.words import counted, text_table
from formulation.fingerprint import content_key
from formulation.records.files import cache_folder, output_folder, save_figure, write_json
from formulation.records.provenance import provenance
from formulation.records.rows import Resume, Row, RowFile
from merino_net.corpus.text import add_reading_arguments
from merino_net.evaluate import TaskData, find_tasks, find_texts
from merino_net.network.counting import part_bytes
from merino_net.network.pretrained import Model, find_models, load_model, quieten, start_token
from merino_net.network.registration import require_network
from merino_net.quantize import graph_bytes, load_float_model
from merino_net.scoring.perplexity import NamedText, score_text, window_of
from merino_net.scoring.zero_shot import TASKS, ZeroShot, which_examples
from merino_net.shipping.runtimes import require
from studies.net_speed.study import Load
from studies.quantization.variants import (
    NEW_TOKENS,
    PROMPT,
    MakingOptions,
    Variant,
    calibration_of,
    make_variant,
    timed,
    variants_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_METHODS = ("rtn", "gptq", "openvino")
_PACKAGES = ("torch", "transformers", "openvino", "nncf", "lm_eval")


@dataclass(frozen=True)
class QuantizationOptions:
    """What the study was asked for, see --help.

    Raises:
        ValueError: a number out of range, no text to compare on, an unknown task, or GPTQ without a text to calibrate on.
    """

    models: tuple[str, ...]
    methods: tuple[str, ...]
    variants: tuple[str, ...]
    making: MakingOptions
    benchmark: tuple[str, ...]
    evaluation_text: tuple[str, ...]
    tasks: tuple[str, ...]
    data_dir: str | None
    limit: int | None
    context: int | None
    batch: int
    error_sequences: int
    threads: int
    precision: str
    turns: int
    output: str

    def __post_init__(self) -> None:
        for name in ("batch", "error_sequences", "threads", "turns", *(("limit",) if self.limit is not None else ())):
            positive_integer(f"--{name.replace('_', '-')}", getattr(self, name))
        if not self.benchmark and not self.evaluation_text:
            raise ValueError("there is no text to compare on; give --benchmark wikitext2, or --evaluation-text FILE")
        unknown = [name for name in self.tasks if name not in ("all", *TASKS)]
        if unknown:
            raise ValueError(f"--tasks {unknown[0]} is not known; expected all or some of {', '.join(TASKS)}")
        if "gptq" in self.methods and not self.making.calibration_text:
            raise ValueError(
                "GPTQ calibrates on a text; name it with --calibration-text, or leave GPTQ out with --methods rtn openvino"
            )


@dataclass(frozen=True)
class Work:
    """What is measured of every variant: perplexity on texts, accuracy on tasks, logits on tokens of the first text."""

    texts: Sequence[NamedText]
    tasks: Sequence[TaskData]
    context: int | None
    batch: int
    limit: int | None
    error_sequences: int


def measured_rows(
    models: Sequence[Model], variants: Sequence[Variant], work: Work, options: QuantizationOptions, folder: Path, file: RowFile
) -> dict[str, list[Row]]:
    """The rows of every network by its name, those missing in the file measured and appended."""
    plan = [(model, variant, steps_of(model, variant, work, options)) for model in models for variant in variants]
    speeds = {model.name: _speed_keys(model, variants, options) for model in models}
    wanted = [*(key for *_, steps in plan for key in steps), *(key for keys in speeds.values() for key in keys)]
    with Resume(file, wanted, unit="measurement") as resume:
        places = {}
        for model, variant, steps in plan:
            if any(key not in resume for key in (*steps, *(speeds[model.name] if variant.openvino else ()))):
                resume.note(f"{model.name}: making {variant.name}")
                below = output_folder(folder / "variants" / f"{model.name.replace('/', '-')}-{model.fingerprint[:8]}")
                places[model.name, variant.name] = make_variant(model, variant, below, options.making)
        for model, variant, steps in plan:
            missing = {key: step for key, step in steps.items() if key not in resume}
            if missing:
                bench = LoadedVariant(model, variant, places[model.name, variant.name], work, options.threads)
                for key, (kind, run) in missing.items():
                    resume.note(f"{model.name}, {variant.name}: {kind}")
                    resume.add(key, _measured(key, model, variant, kind, partial(run, bench)))
        for model in models:
            own = {variant: places.get((model.name, variant.name)) for variant in variants if variant.openvino}
            _measure_speed(model, own, speeds[model.name], options, resume)
    return {
        model.name: [resume[key] for one, _, steps in plan if one is model for key in steps]
        + [resume[key] for key in speeds[model.name]]
        for model in models
    }


MeasuringStep = tuple[str, Callable[["LoadedVariant"], Row]]
"""What is measured, and how."""


def steps_of(model: Model, variant: Variant, work: Work, options: QuantizationOptions) -> dict[str, MeasuringStep]:
    """Everything that is measured of a variant by the key of its row, which holds all that the numbers depend on."""
    calibration = calibration_of(options.making) if variant.plan is not None and variant.plan.method == "gptq" else None
    plan = None if variant.plan is None else asdict(variant.plan)
    window = window_of(model.positions, work.context)
    steps: dict[str, MeasuringStep] = {}

    def add(kind: str, run: Callable[[LoadedVariant], Row], *parts: Any) -> None:
        steps[_key(model.fingerprint, plan, variant.openvino, calibration, kind, *parts)] = (kind, run)

    add("size", LoadedVariant.size)
    if variant.plan is not None or variant.openvino:
        first = work.texts[0]
        add("logits", LoadedVariant.logits, first.sha256, work.error_sequences, window)
    for text in work.texts:
        add(f"text {text.name}", partial(LoadedVariant.perplexity, text=text), text.sha256, window)
    for task in work.tasks:
        add(f"task {task.name}", partial(LoadedVariant.accuracy, task=task), task.sha256, which_examples(work.limit))
    return steps


def _key(*content: Any) -> str:
    """The key of numbers, texts and lists of them, with the versions of what measures."""
    return content_key(*content, provenance(0, _PACKAGES)["versions"])


class LoadedVariant:
    """A variant of a network, loaded when the first measurement needs it."""

    def __init__(self, found: Model, variant: Variant, folder: Path, work: Work, threads: int) -> None:
        self._found, self._variant, self._folder, self._work, self._threads = found, variant, folder, work, threads
        self._network: Any = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._harness: ZeroShot | None = None

    def _load(self) -> tuple[Any, PreTrainedTokenizerBase]:
        if self._network is None or self._tokenizer is None:
            if self._variant.openvino:
                from transformers import AutoConfig, AutoTokenizer

                from studies.quantization.openvino_network import OpenVinoNetwork

                config = AutoConfig.from_pretrained(self._found.source)
                self._network = OpenVinoNetwork(self._folder, config, self._threads)
                self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
            else:
                [own] = find_models([str(self._folder)])
                self._network, self._tokenizer = load_model(own, "float32", "cpu")
            self._network.eval()
        return self._network, self._tokenizer

    @property
    def _batch(self) -> int:
        return 1 if self._variant.openvino else self._work.batch  # its logits are all held, and whole

    def size(self) -> Row:
        """Bytes of the whole file, and of its parts where the file tells."""
        return graph_bytes(self._folder) if self._variant.openvino else part_bytes(self._folder)

    def logits(self) -> Row:
        """√(Σ (logit − float32 logit)² / Σ (float32 logit)²) over the first tokens of the first text, all logits."""
        import torch

        network, tokenizer = self._load()
        reference, _ = load_float_model(self._found)
        length, _ = window_of(self._found.positions, self._work.context)
        documents = tokenizer(list(self._work.texts[0].documents), add_special_tokens=False, verbose=False)["input_ids"]
        rows = chain.from_iterable(torch.tensor(tokens).split(length) for tokens in documents)
        squares = squared_differences = 0.0
        with torch.inference_mode():
            for row in islice(rows, self._work.error_sequences):
                text = torch.cat([torch.tensor([start_token(tokenizer)]), row])[None, :length]
                truth = reference(input_ids=text, use_cache=False).logits.double()
                difference = network(input_ids=text, use_cache=False).logits.double() - truth
                squares += float(truth.square().sum())
                squared_differences += float(difference.square().sum())
        return {"relative_error": (squared_differences / squares) ** 0.5}

    def perplexity(self, text: NamedText) -> Row:
        """Perplexities, as in merino_net.evaluate."""
        network, tokenizer = self._load()
        score = score_text(network, tokenizer, text.documents, context=self._work.context, batch=self._batch)
        return {"name": text.name, **score.to_dict()}

    def accuracy(self, task: TaskData) -> Row:
        """Zero-shot accuracy, as in merino_net.evaluate."""
        network, tokenizer = self._load()
        self._harness = self._harness or ZeroShot(network, tokenizer, self._found.positions, self._batch)
        return {"name": task.name, **asdict(self._harness.accuracy(task.name, task.file, self._work.limit))}


def _measured(key: str, model: Model, variant: Variant | None, kind: str, run: Callable[[], Row]) -> Row:
    start = time.perf_counter()
    value = run()
    return {
        "key": key,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "variant": None if variant is None else variant.name,
        "plan": None if variant is None or variant.plan is None else asdict(variant.plan),
        "kind": kind,
        "value": value,
        "seconds": time.perf_counter() - start,
        "machine": provenance(0)["machine"],
        "versions": provenance(0, _PACKAGES)["versions"],
    }


def _speed_keys(model: Model, variants: Sequence[Variant], options: QuantizationOptions) -> list[str]:
    """The key of each turn in which all OpenVINO variants are timed; none if there are none."""
    names = [variant.name for variant in variants if variant.openvino]
    key = _key(model.fingerprint, names, options.threads, options.precision, options.making.group_size)
    return [f"{key}-{turn}" for turn in range(options.turns if names else 0)]


def _measure_speed(
    model: Model,
    places: dict[Variant, Path | None],
    keys: Sequence[str],
    options: QuantizationOptions,
    resume: Resume[str],
) -> None:
    """Time the OpenVINO variants in turns, in every second one in reverse order, so that a slow while slows all."""
    missing = [turn for turn, key in enumerate(keys) if key not in resume]
    if not missing:
        return
    from transformers import AutoConfig

    from studies.quantization.openvino_network import OpenVinoNetwork

    resume.note(f"{model.name}: speed")
    config = AutoConfig.from_pretrained(model.source)
    networks = {
        variant.name: OpenVinoNetwork(place, config, options.threads, options.precision)
        for variant, place in places.items()
        if place
    }
    for network in networks.values():
        timed(network)
    for turn in missing:

        def run(turn: int = turn) -> Row:
            load = Load()
            times = {name: timed(networks[name]) for name in list(networks)[:: -1 if turn % 2 else 1]}
            return {"turn": turn, "threads": options.threads, "times": times, "other_cores": load.other_cores()}

        resume.add(keys[turn], _measured(keys[turn], model, None, "speed", run))


def records_of_variants(rows: dict[str, list[Row]], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """A record for each network: its variants in their order with everything measured of them."""
    return [
        {
            "model": name,
            "fingerprint": own[0]["fingerprint"],
            "variants": [_variant_record(variant, own) for variant in variants],
            "other_cores": [row["value"]["other_cores"] for row in own if row["kind"] == "speed"],
        }
        for name, own in rows.items()
    ]


def _variant_record(variant: Variant, rows: Sequence[Row]) -> dict[str, Any]:
    own = {row["kind"]: row["value"] for row in rows if row["variant"] == variant.name}
    tasks = {value["name"]: value["acc"] for kind, value in own.items() if kind.startswith("task ")}
    errors = [value["acc_stderr"] or 0.0 for kind, value in own.items() if kind.startswith("task ")]
    times = [row["value"]["times"][variant.name] for row in rows if row["kind"] == "speed"] if variant.openvino else []
    return {
        "variant": variant.name,
        "plan": None if variant.plan is None else asdict(variant.plan),
        "bytes": own["size"],
        "relative_error": own["logits"]["relative_error"] if "logits" in own else None,
        "texts": {value["name"]: value for kind, value in own.items() if kind.startswith("text ")},
        "accuracy": tasks,
        "mean_accuracy": sum(tasks.values()) / len(tasks) if tasks else None,
        "mean_accuracy_stderr": sum(error**2 for error in errors) ** 0.5 / len(tasks) if tasks else None,
        "prefill_ms": 1000 * median(one["prefill_s"] for one in times) if times else None,
        "tokens_per_s": median(one["tokens_per_s"] for one in times) if times else None,
    }


def variants_table(record: dict[str, Any]) -> str:
    """The variants of a network, a line each; ± is the standard error of the mean accuracy, Δ is against float32."""
    texts, tasks = list(record["variants"][0]["texts"]), record["variants"][0]["accuracy"]
    header = ["variant", "MB", "of float32", "logit error", *(f"ppl {name}" for name in texts)]
    header += [f"accuracy ({counted(len(tasks), 'task')})", "Δ"] if tasks else []
    header += ["ms", "tokens/s"]
    return f"{record['model']}\n" + text_table(header, list(_lines(record, texts)), {0})


def _lines(record: dict[str, Any], texts: Sequence[str]) -> Iterator[list[str]]:
    first = record["variants"][0]
    for one in record["variants"]:
        size, accuracy = one["bytes"]["file"], one["mean_accuracy"]
        line = [one["variant"], f"{size / 1e6:,.2f}", f"{size / first['bytes']['file']:.1%}", _shown(one["relative_error"], ".4f")]
        line += [_shown(one["texts"][name]["token_perplexity"], ",.3f") for name in texts]
        line += (
            []
            if accuracy is None
            else [
                f"{accuracy:.4f} ± {one['mean_accuracy_stderr']:.4f}",
                f"{accuracy - first['mean_accuracy']:+.4f}",
            ]
        )
        yield [*line, _shown(one["prefill_ms"], ",.1f"), _shown(one["tokens_per_s"], ",.1f")]


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("models", nargs="+", metavar="FOLDER", help="trained networks, as merino_net.train leaves them")
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=list(_METHODS), help="default: all")
    parser.add_argument("--variants", nargs="+", default=[], metavar="NAME", help="only these, such as gptq-int4-embedding-int8")
    parser.add_argument("--group-size", type=int, metavar="N", help="as in merino_net.quantize")
    parser.add_argument("--calibration-text", nargs="+", default=[], metavar="SOURCE", help="for GPTQ, as in merino_net.train")
    parser.add_argument(
        "--sequences", type=int, default=128, metavar="N", help="token sequences of the calibration (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the calibration (default %(default)s)")
    parser.add_argument(
        "--gptq-python", default=sys.executable, metavar="FILE", help="Python that has llmcompressor (default: this)"
    )
    parser.add_argument("--cache", default=str(cache_folder()), metavar="FOLDER", help="of the tokens (default: ~/.cache/merino)")
    parser.add_argument("--benchmark", nargs="+", default=[], metavar="NAME", help="perplexity, as in merino_net.evaluate")
    parser.add_argument("--evaluation-text", nargs="+", default=[], metavar="SOURCE", help="perplexity on these texts")
    add_reading_arguments(parser)
    parser.add_argument("--tasks", nargs="+", default=[], metavar="NAME", help=f"zero-shot: all, or of {', '.join(TASKS)}")
    parser.add_argument("--data-dir", metavar="DIR", help="local files of benchmarks and tasks, as in merino_net.evaluate")
    parser.add_argument("--limit", type=int, metavar="N", help="only N examples of each task, spread evenly over it")
    parser.add_argument("--context", type=int, metavar="C", help="window of the perplexities in tokens, as in merino_net.evaluate")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="windows or prompts in a pass (default %(default)s)")
    parser.add_argument("--error-sequences", type=int, default=8, metavar="N", help="windows whose logits are compared (default 8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="of OpenVINO (default: one per core)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="that OpenVINO is timed in; all else is float32 (default f32)"
    )
    parser.add_argument("--turns", type=int, default=8, metavar="N", help="of the speed (default %(default)s)")
    parser.add_argument(
        "--output", default="results/quantization", metavar="DIR", help="folder of the results (default %(default)s)"
    )
    return parser


def work_of(options: QuantizationOptions) -> tuple[Work, dict[str, str]]:
    """What the command line asks for, and the tasks that cannot be run with the reason; ImportError for a missing package."""
    if "openvino" in options.methods:
        require("the method openvino", "leave it out with --methods rtn gptq", ("openvino", "nncf"))
    if options.tasks and importlib.util.find_spec("lm_eval") is None:
        raise ImportError("--tasks needs lm-evaluation-harness, which is not installed; pip install lm_eval")
    folder = None if options.data_dir is None else Path(options.data_dir)
    tasks, not_run = find_tasks(options.tasks, folder)
    reading = options.making.reading_flags.reading
    texts = find_texts(options.benchmark, options.evaluation_text, folder, reading)
    return Work(texts, tasks, options.context, options.batch, options.limit, options.error_sequences), not_run


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; returns the exit code."""
    options = read_options(QuantizationOptions, command_line(), arguments)
    work, not_run = work_of(options)
    variants = variants_of(list(dict.fromkeys(options.methods)), options.making.group_size, options.variants)
    require_network()
    quieten()
    models = find_models(options.models)
    folder = output_folder(options.output)
    import torch

    torch.set_num_threads(options.threads)
    rows = measured_rows(models, variants, work, options, folder, RowFile(folder / "rows.jsonl"))
    records = records_of_variants(rows, variants)
    print("\n" + "\n\n".join(map(variants_table, records)))
    for name, reason in not_run.items():
        print(f"not run: {name} ({reason})")
    write_json(
        folder / "summary.json",
        {
            "models": records,
            "not_run": not_run,
            "calibration": calibration_of(options.making) if "gptq" in options.methods else None,
            "speed": {
                "turns": options.turns,
                "prompt": PROMPT,
                "new_tokens": NEW_TOKENS,
                "threads": options.threads,
                "precision": options.precision,
            },
            "provenance": provenance(options.making.seed, _PACKAGES),
        },
    )
    from studies.quantization.figures import draw_quantization

    save_figure(draw_quantization(records), folder / "quantization.png")
    print(f"\nWritten to {folder}: rows.jsonl, summary.json, quantization.png, variants/", flush=True)
    return 0
