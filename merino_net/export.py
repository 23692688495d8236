"""A model made ready to pass on: a folder for the Hugging Face hub, with ONNX and OpenVINO beside it, each checked against PyTorch.

    python -m merino_net.export results/train --output results/export
    python -m merino_net.export results/train --output results/export --openvino int8 --evaluation results/evaluate/evaluate.json
    python -m merino_net.export facebook/opt-125m --output results/opt --no-onnx

Writes config.json, generation_config.json, model.safetensors, the tokenizer, README.md (the model card), what is known of design,
training and evaluation, export.json (what was compared, and the differences), onnx/ and openvino/. All of it or nothing.

Exit code: 0 exported; 2 a mistake in the command or a file that cannot be read; 3 exported, but the network exceeds a budget of the
design.json beside it, which the model card says too.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation.command.help import command_parser
from formulation.command.run import run_command
from formulation.command.words import counted, text_table
from formulation.records.files import locked, replace_file, writable_folder, write_json
from formulation.records.provenance import provenance
from merino_net.network.counting import parameter_count
from merino_net.network.pretrained import Model, embedding_rows, find_models, first_line, load_model, quieten
from merino_net.network.registration import require_network
from merino_net.shipping.forms import DEVICES
from merino_net.shipping.promises import Made, Outcome, Promise, exit_code, read_promises, table

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORMAT, _VERSION = "merino export", 1
_RECORD, _CARD = "export.json", "README.md"
_PACKAGES = ("torch", "transformers", "safetensors", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
_PRECISIONS = ("float32", "int8")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    devices = "\n".join(f"    {device}: {runtime}; {remark}" for device, runtime, remark in DEVICES).replace("`", "")
    parser = command_parser(__spec__, __doc__, f"which form for which device:\n{devices}")
    parser.add_argument("model", metavar="MODEL", help="a folder that save_pretrained wrote, or a name on the Hugging Face hub")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="new, or an earlier export, which is replaced")
    parser.add_argument(
        "--onnx", action=argparse.BooleanOptionalAction, default=True, help="for ONNX Runtime, float32 (default: yes)"
    )
    parser.add_argument(
        "--openvino",
        nargs="?",
        const="float32",
        choices=_PRECISIONS,
        help="for OpenVINO, in float32 or with INT8 weights (default: no; without a word behind it: float32)",
    )
    parser.add_argument("--name", metavar="NAME", help="of the model in its card (default: the output folder's name)")
    parser.add_argument(
        "--evaluation", metavar="FILE", help="the evaluate.json that has this model's results (default: MODEL/evaluate.json)"
    )
    return parser


def require(what: str, flag: str, packages: Sequence[str]) -> None:
    """ImportError, with the command that installs them, where one of the packages is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install {' '.join(packages)}, or {flag}")


def _check_output(output: Path, source: str) -> None:
    """ValueError if `output` is neither new, nor empty, nor an earlier export with nothing else in it."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder with --output")
    if Path(source).resolve() == output:
        raise ValueError(f"{output} is the model's own folder; name another with --output")
    if not output.is_dir() or not any(output.iterdir()):
        return
    try:
        record = json.loads((output / _RECORD).read_text(encoding="utf-8"))
        ours = set(record["files"]) if record["format"] == _FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if not ours:
        raise ValueError(f"{output} holds something else than an earlier export; name another folder with --output")
    others = [name for name in _files(output) if name not in ours]
    if others:
        raise ValueError(f"{output} holds {others[0]}, which no export wrote; take it away or name another folder with --output")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def replace_folder(output: Path) -> Iterator[Path]:
    """An empty folder to fill that takes the place of `output` once it is complete; on an error `output` stays as it was.

    ValueError if another process is about to replace it. What a killed process left of the same folder is removed.
    """
    temporary = writable_folder(output.parent) / f".{output.name}.unfinished"
    new, old = temporary / "new", temporary / "old"
    with locked(output, beside=True):
        if old.exists() and not output.exists():  # killed between the two renames below
            old.rename(output)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            new.mkdir()
            yield new
            if output.exists():
                output.rename(old)
            try:
                new.rename(output)
            except BaseException:
                if old.exists():
                    old.rename(output)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    onnx: bool = True,
    openvino: str | None = None,
) -> dict[str, Any]:
    """Write a float32 model on the CPU to an empty folder in every form asked for; gives sizes and differences from PyTorch.

    Args:
        openvino: "float32" or "int8" (weights); None leaves it out.

    Raises:
        ValueError: if a form differs from the model by more than rounding, or cannot be made of this model.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"the weights cannot be written ({first_line(error)}); make room on the disk") from None
    tokenizer.save_pretrained(folder)
    record: dict[str, Any] = {
        "huggingface": {"bytes": _bytes(folder), "differences": {"weights": _compare_weights(model, folder)}},
        "onnx": None,
        "openvino": None,
    }
    if onnx:
        from merino_net.shipping.onnx_model import compare_onnx, export_onnx

        export_onnx(model, folder / "onnx")
        record["onnx"] = {"differences": compare_onnx(model, folder / "onnx"), "bytes": _bytes(folder / "onnx")}
    if openvino is not None:
        from merino_net.shipping.openvino_model import compare_openvino, export_openvino

        export_openvino(model, folder / "openvino", openvino)
        record["openvino"] = {
            "weights": openvino,
            "differences": compare_openvino(model, folder / "openvino", openvino),
            "bytes": _bytes(folder / "openvino"),
        }
    return record


def _bytes(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in _files(folder))


def _compare_weights(model: PreTrainedModel, folder: Path) -> float:
    """Largest difference between the weights of the model and those read back, which must be none: 0."""
    import torch
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, weight in model.state_dict().items():
        if not torch.equal(weight, again[name]):
            raise ValueError(f"the weight {name} is not the same when read back from the folder; is the disk sound?")
    return 0.0


def outcomes_of(promises: Sequence[Promise], folder: Path, forms: dict[str, Any]) -> list[Outcome]:
    """What became of a design's budgets in an exported folder; those about bytes of weights once more for each further form."""
    made = Made.stored(folder)
    outcomes = [promise.outcome(made) for promise in promises]
    for form, files in {"onnx": "*.data", "openvino": "*.bin"}.items():
        if forms[form] is not None:
            quantized = forms[form].get("weights", "float32") != "float32"
            weights = sum(path.stat().st_size for path in (folder / form).glob(files))
            other = dataclasses.replace(made, weight_bytes=weights or forms[form]["bytes"], quantized=quantized)
            own = [
                dataclasses.replace(promise, name=f"{promise.name}, {form}").outcome(other)
                for promise in promises
                if promise.of_bytes
            ]
            outcomes += own
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
    output = Path(options.output).resolve()
    _check_output(output, options.model)
    require_network()
    if options.onnx:
        require("the ONNX export", "leave it out with --no-onnx", ("onnx", "onnxscript", "onnxruntime"))
    if options.openvino is not None:
        extra = ("nncf",) if options.openvino == "int8" else ()
        require("the OpenVINO export", "leave --openvino out", ("openvino", *extra))
    quieten(options.model)
    [found] = find_models([options.model])
    promises = read_promises(Path(options.model) / "design.json")
    model, tokenizer = load_model(found, "float32", "cpu")
    rows = embedding_rows(model)
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer):,} tokens and the network {rows:,}; save the network's own beside it")
    model.eval()
    with replace_folder(output) as folder:
        remarks = copy_records(found, options.evaluation, folder)
        forms = export_model(model, tokenizer, folder, onnx=options.onnx, openvino=options.openvino)
        outcomes = outcomes_of(promises, folder, forms) if promises else []
        record = {
            "format": _FORMAT,
            "version": _VERSION,
            "source": found.name,
            "fingerprint": found.fingerprint,
            "parameters": parameter_count(model),
            **forms,
            "budgets": [outcome.to_dict() for outcome in outcomes],
            "files": sorted({*_files(folder), _RECORD, _CARD}),
            "provenance": provenance(0, _PACKAGES),
        }
        write_json(folder / _RECORD, record)
        from merino_net.shipping.model_card import model_card

        card = model_card(folder, options.name or output.name)
        with replace_file(folder / _CARD) as file:
            file.write(card.encode())
    for remark in remarks:
        print(remark)
    print(_report(forms))
    if outcomes:
        print(f"\n{table(outcomes)}")
    print(f"\nWritten to {options.output}: {counted(len(record['files']), 'file')}", flush=True)
    return exit_code(outcomes)


def _report(forms: dict[str, Any]) -> str:
    """A table for people: each form with its size and its differences from PyTorch."""
    names = {"huggingface": "Hugging Face folder", "onnx": "ONNX, float32", "openvino": "OpenVINO"}
    lines = []
    for form, name in names.items():
        made = forms[form]
        if made is not None:
            shown = ", ".join(f"{what.replace('_', ' ')} {value:.2g}" for what, value in made["differences"].items())
            lines.append([f"{name}, {made['weights']}" if "weights" in made else name, f"{made['bytes'] / 1e6:,.1f}", shown])
    return text_table(("form", "MB", "difference from PyTorch"), lines, {0, 2})


if __name__ == "__main__":
    run_command(main)
