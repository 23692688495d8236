"""A model made ready to pass on: in the forms that its readers run, each checked against PyTorch before it is kept.

    python -m merino_net.export results/train --output results/export
    python -m merino_net.export results/train --output results/export --to hf --to gguf:q8_0,gguf:q4_0
    python -m merino_net.export results/train --output results/export --to hf,openvino:int8 --evaluation evaluate.json
    python -m merino_net.export facebook/opt-125m --output results/opt --to hf

Form hf is config.json, generation_config.json, model.safetensors and the tokenizer; each other form has a folder of its name below.
Beside them lie README.md (the model card), what is known of design, training and evaluation, and export.json: what was compared,
and the differences. The folder is written atomically.

Exit code: 0 exported; 2 a mistake in the command or a file that cannot be read; 3 exported, but the network exceeds a budget of the
design.json beside it, which the model card says too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.command.help import command_parser
from formulation.command.run import run_command
from formulation.command.words import counted, text_table
from formulation.records.files import replace_file, write_json
from formulation.records.provenance import provenance
from merino_net.network.counting import parameter_count
from merino_net.network.pretrained import Model, embedding_rows, find_models, load_model, quieten
from merino_net.network.registration import require_network
from merino_net.shipping.forms import DEVICES, FORMS, HF, USUAL, ExportChoice, differences_text, forms_text, read_choices
from merino_net.shipping.hub_folder import check_replaceable, files_in, replace_folder
from merino_net.shipping.promises import Made, Outcome, Promise, exit_code, read_promises, table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT, _VERSION = "merino export", 2
_RECORD, _CARD = "export.json", "README.md"
_PACKAGES = ("torch", "transformers", "safetensors")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    devices = text_table(("device", "form", "remark"), [tuple(word.replace("`", "") for word in row) for row in DEVICES], {0, 1, 2})
    tables = (text.replace("\n", "\n    ") for text in (forms_text(FORMS), devices))
    parser = command_parser(__spec__, __doc__, "forms:\n    {}\n\nwhich form for which device:\n    {}".format(*tables))
    parser.add_argument("model", metavar="MODEL", help="a folder that save_pretrained wrote, or a name on the Hugging Face hub")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="new, or an earlier export, which is replaced")
    parser.add_argument(
        "--to",
        action="append",
        metavar="FORM[:WEIGHTS]",
        help=f"a form to write, several with commas or by further --to; forms are below (default: {USUAL})",
    )
    parser.add_argument("--name", metavar="NAME", help="of the model in its card (default: the output folder's name)")
    parser.add_argument(
        "--evaluation", metavar="FILE", help="the evaluate.json that has this model's results (default: MODEL/evaluate.json)"
    )
    return parser


@dataclass(frozen=True)
class ExportedForm:
    """A form in an exported folder.

    Attributes:
        form: its name.
        weights: number format of the weights.
        folder: where it lies in the export.
        bytes: of all its files.
        weight_bytes: of those that hold weights.
        differences: from PyTorch, by what was compared.
    """

    form: str
    weights: str
    folder: str
    bytes: int
    weight_bytes: int
    differences: dict[str, float]


def write_form(choice: ExportChoice, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> ExportedForm:
    """Write a float32 model on the CPU in one form to its folder in `output`, where nothing of it is yet, and check it.

    Raises:
        ValueError: if the form differs from the model by more than its weights account for, or cannot be made of this model.
    """
    folder = output / choice.folder
    folder.mkdir(exist_ok=True)
    before = set(files_in(folder))
    differences = choice.form.write(model, tokenizer, folder, choice.weights)
    size = sum((folder / name).stat().st_size for name in files_in(folder) if name not in before)
    weights = choice.weight_bytes(folder) if choice.form.patterns else sum(parameter.nbytes for parameter in model.parameters())
    return ExportedForm(choice.form.name, choice.weights, choice.folder, size, weights, differences)


def outcomes_of(promises: Sequence[Promise], model: PreTrainedModel, forms: Sequence[ExportedForm]) -> list[Outcome]:
    """What became of a design's budgets in a model; those about bytes of weights once for each form it was written in."""
    count = parameter_count(model)
    outcomes = []
    for promise in promises:
        if not promise.of_bytes:
            outcomes.append(promise.outcome(Made(model.config, count, 0)))
            continue
        for form in forms:
            made = Made(model.config, count, form.weight_bytes, form.weights not in ("float32", "f32"))
            name = promise.name if form.form == HF else f"{promise.name}, {form.folder}"
            outcomes.append(dataclasses.replace(promise, name=name).outcome(made))
    return outcomes


def copy_records(found: Model, evaluation: str | None, folder: Path) -> list[str]:
    """Put design.json, training.json and the model's part of evaluate.json beside the model; remarks on what is left out.

    Raises:
        ValueError: if `evaluation` is not a file with results of this very model.
    """
    remarks = []
    source = Path(found.source)
    for name in ("design.json", "training.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    path = source / "evaluate.json" if evaluation is None else Path(evaluation)
    if evaluation is not None and not path.is_file():
        raise ValueError(f"there is no file {path}; name the evaluate.json that python -m merino_net.evaluate wrote")
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            own = [model for model in record["models"] if model["fingerprint"] == found.fingerprint]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged; expected what python -m merino_net.evaluate writes") from None
        if own:
            write_json(folder / "evaluate.json", {**record, "models": own})
        elif evaluation is not None:
            raise ValueError(f"{path} has no results of {found.name} with these very weights and tokenizer; evaluate it first")
        else:
            remarks.append(f"{path} is left out: it has no results of these very weights and tokenizer")
    return remarks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = command_line().parse_args(arguments)
    choices = sorted(read_choices(options.to or [USUAL]), key=lambda choice: choice.form.name != HF)
    output = Path(options.output).resolve()
    check_replaceable(output, Path(options.model), _RECORD, _FORMAT, "an earlier export")
    require_network()
    for choice in choices:
        choice.require()
    quieten(options.model)
    [found] = find_models([options.model])
    promises = read_promises(Path(options.model) / "design.json")
    model, tokenizer = load_model(found, "float32", "cpu")
    rows = embedding_rows(model)
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer):,} tokens and the network {rows:,}; save the network's own beside it")
    model.eval()
    with replace_folder(output) as folder:
        forms = [write_form(choice, model, tokenizer, folder) for choice in choices]
        remarks = copy_records(found, options.evaluation, folder)
        outcomes = outcomes_of(promises, model, forms) if promises else []
        packages = (*_PACKAGES, *(package for choice in choices for package in choice.packages))
        record: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "source": found.name,
            "fingerprint": found.fingerprint,
            "parameters": parameter_count(model),
            "forms": [asdict(form) for form in forms],
            "budgets": [outcome.to_dict() for outcome in outcomes],
            "files": sorted({*files_in(folder), _RECORD, _CARD}),
            "provenance": provenance(0, packages),
        }
        write_json(folder / _RECORD, record)
        from merino_net.shipping.model_card import model_card

        card = model_card(folder, options.name or output.name, model.config)
        with replace_file(folder / _CARD) as file:
            file.write(card.encode())
    for remark in remarks:
        print(remark)
    print(_report(forms))
    if outcomes:
        print(f"\n{table(outcomes)}")
    print(f"\nWritten to {options.output}: {counted(len(record['files']), 'file')}", flush=True)
    return exit_code(outcomes)


def _report(forms: Sequence[ExportedForm]) -> str:
    """A table for people: each form with its size and its differences from PyTorch."""
    lines = [
        (form.form, form.weights, f"{form.bytes / 1e6:,.1f}", differences_text(form.differences), form.folder) for form in forms
    ]
    return text_table(("form", "weights", "MB", "difference from PyTorch", "folder"), lines, {0, 1, 3, 4})


if __name__ == "__main__":
    run_command(main)
