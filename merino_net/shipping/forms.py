"""The forms a network is shipped in: each writes itself, shows that it computes what PyTorch does, and says how it is run.

`FORMS` is the table behind the command line's NAME[:WEIGHTS]. Those that have a client run in their own runtime, see
`merino_net.shipping.runtimes`. Loads no torch.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from formulation.command.words import text_table
from formulation.records.reading import chosen
from merino_net.shipping.runtimes import RUNTIMES, Runtime, require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BITS = (8, 4)
"""Of a quantized weight; see `merino_net.network.quantized_weights`."""

DEVICES = (
    (
        "Intel CPU",
        "openvino, openvino-genai",
        "the fastest measured there; with AMX, bfloat16 is three times as fast",
    ),
    ("ARM CPU", "gguf", "llama.cpp, a program without Python; or onnx, whose wheels for aarch64 are on PyPI"),
    ("phone", "executorch", "a program of its own in C++, Kotlin or Swift, on XNNPACK"),
    ("NVIDIA Jetson, GPU", "onnx", "the CUDA or TensorRT provider, from NVIDIA's builds (`TensorrtExecutionProvider`)"),
    ("Windows, .NET", "ort-genai", "ONNX Runtime's own loop for text; C, C#, Java and Python"),
    ("anything PyTorch runs on", "hf", "transformers"),
)
"""Device, form, remark: which of the forms is for what."""

Write: TypeAlias = "Callable[[PreTrainedModel, PreTrainedTokenizerBase, Path, str], dict[str, float]]"
"""Writes a form of a float32 model on the CPU to a folder, in weights, and gives its differences from PyTorch by name."""

_FULL = ("float32", "f32")


@dataclass(frozen=True)
class ExportForm:
    """A form that a network is exported in.

    Attributes:
        name: as it is typed.
        title: of what runs it.
        weights: number formats of the weights, the first unless another is asked for.
        packages: what has to be installed, by the names that `pip install` knows.
        quantizer: packages that weights in 8 or 4 bits need besides.
        patterns: which of its files hold weights; none: its safetensors say so themselves.
        write: see `Write`; ValueError where the form cannot have the model, or differs from it.
        runtime: whose client runs it; None for one without.
    """

    name: str
    title: str
    weights: tuple[str, ...]
    packages: tuple[str, ...]
    patterns: tuple[str, ...]
    write: Write
    runtime: Runtime | None = None
    quantizer: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportChoice:
    """A form in a number format of its weights, as `NAME:WEIGHTS` asks for it."""

    form: ExportForm
    weights: str

    @property
    def label(self) -> str:
        """gguf:q8_0, or the name alone where there is one number format."""
        return f"{self.form.name}:{self.weights}" if len(self.form.weights) > 1 else self.form.name

    @property
    def folder(self) -> str:
        """Where it lies in an export: its name, with the weights behind it unless they are the usual ones; hf lies on top."""
        if self.form.name == HF:
            return "."
        return self.form.name if self.weights == self.form.weights[0] else f"{self.form.name}-{self.weights}"

    @property
    def packed(self) -> bool:
        """Whether its weights take fewer than 32 bits."""
        return self.weights not in _FULL

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed for it."""
        return (*self.form.packages, *(self.form.quantizer if self.packed else ()))

    def require(self) -> None:
        """ImportError, with the command that installs them, where packages are missing."""
        require(self.form.title, f"leave {self.label} out of --to", self.packages)

    def weight_bytes(self, folder: Path) -> int:
        """Bytes of its files that hold weights."""
        return sum({path: path.stat().st_size for pattern in self.form.patterns for path in folder.rglob(pattern)}.values())

    def use(self, folder: str) -> tuple[str, str] | None:
        """How it is run with its runtime alone, lying in `folder`: the language and what to type; None where nothing is known."""
        if self.form.runtime is None:
            return None
        language, *lines = self.form.runtime.use
        return language, "\n".join(lines).replace("FOLDER", folder)


def read_choice(text: str, known: Mapping[str, ExportForm] | None = None) -> ExportChoice:
    """The form that NAME or NAME:WEIGHTS asks for; ValueError that suggests the nearest one."""
    name, colon, weights = text.partition(":")
    forms = FORMS if known is None else known
    for each in () if name in forms else forms.values():
        if each.runtime is not None and name.lower() in (each.runtime.profiled, each.runtime.title.lower()):
            raise ValueError(f"the form for {name} is called {each.name!r}; say {each.name}{colon}{weights}")
    form: ExportForm = chosen("form", name, forms)
    if not colon:
        return ExportChoice(form, form.weights[0])
    chosen(f"number format of {form.name}", weights, dict.fromkeys(form.weights))
    return ExportChoice(form, weights)


def read_choices(texts: Sequence[str]) -> tuple[ExportChoice, ...]:
    """Those that several texts ask for, each one or more with commas; ValueError for one that is unknown or asked for twice."""
    choices = [read_choice(part.strip()) for text in texts for part in text.split(",")]
    for number, choice in enumerate(choices):
        if choice in choices[:number]:
            raise ValueError(f"--to names {choice.label} twice; expected each form once")
    return tuple(choices)


def forms_text(known: Mapping[str, ExportForm]) -> str:
    """The table of forms for a help text."""
    lines = [(name, form.title, ", ".join(form.weights)) for name, form in known.items()]
    return text_table(("form", "runs in", "weights, the first by default"), lines, {0, 1, 2})


def differences_text(differences: dict[str, float]) -> str:
    """prefill 1.2e-06, last logit 8e-07."""
    return ", ".join(f"{what.replace('_', ' ')} {value:.2g}" for what, value in differences.items())


def _write_hf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str) -> dict[str, float]:
    from merino_net.shipping.hub_folder import write_hub_folder

    return write_hub_folder(model, tokenizer, folder)


def _write_graph(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str
) -> dict[str, float]:
    module: Any = importlib.import_module(f"merino_net.shipping.{name}_model")
    getattr(module, f"export_{name}")(model, folder, weights)
    differences: dict[str, float] = getattr(module, f"compare_{name}")(model, folder, weights)
    return differences


def _write_for_runtime(
    runtime: Runtime, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str
) -> dict[str, float]:
    from merino_net.shipping.agreement import compare_runtime

    runtime.export(model, tokenizer, folder, weights)
    return compare_runtime(runtime, model, folder, weights)


HF = "hf"
"""The folder of the Hugging Face kind, on top of which all other forms lie."""

_OTHERS = (
    ExportForm(HF, "transformers", ("float32",), (), (), _write_hf),
    ExportForm(
        "onnx",
        "ONNX Runtime",
        ("float32", "int8", "int4"),
        ("onnx", "onnxscript", "onnxruntime"),
        ("*.onnx", "*.data"),
        functools.partial(_write_graph, "onnx"),
    ),
    ExportForm(
        "openvino",
        "OpenVINO",
        ("float32", "int8", "int4"),
        ("openvino",),
        ("*.bin",),
        functools.partial(_write_graph, "openvino"),
        quantizer=("nncf",),
    ),
)


def form_of(runtime: Runtime) -> ExportForm:
    """A runtime as one of the forms of an export."""
    write = functools.partial(_write_for_runtime, runtime)
    return ExportForm(runtime.name, runtime.title, runtime.weights, runtime.packages, runtime.patterns, write, runtime)


FORMS: Mapping[str, ExportForm] = {form.name: form for form in (*_OTHERS, *map(form_of, RUNTIMES.values()))}
"""Forms by the name that is typed."""

USUAL = "hf,onnx"
"""What an export writes unless it is told."""
