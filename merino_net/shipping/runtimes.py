"""Runtimes that a network is shipped to: what each writes, in which weights, and the client that runs it there.

A client is a script of `clients/` that imports its runtime and nothing of this package: it is run by a Python of its own (`-I`), so
that what it shows is what a user of that runtime sees. It reads a `Job` as JSON from its input and prints a `Report` as the last
line of its output.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CLIENTS = Path(__file__).with_name("clients")


@dataclass(frozen=True)
class Timing:
    """What to time, in what one pass is: `hardware_models.Workload`'s words.

    Attributes:
        seq_len: tokens of a prompt (prefill), or in the cache (decode).
        seconds: to time each phase for, after a warm-up; at least five passes.
        phases: prefill, decode or both.
    """

    seq_len: int
    seconds: float = 1.0
    phases: tuple[str, ...] = ("prefill", "decode")


@dataclass(frozen=True)
class Job:
    """What a client is to do with an artefact.

    Attributes:
        threads: of the runtime.
        write: (tokens of a prompt, how many more): continued with the most probable token each time.
        score: token sequences, whose tokens but the first are scored.
        timing: what to time; None: nothing.
    """

    threads: int
    write: tuple[tuple[tuple[int, ...], int], ...] = ()
    score: tuple[tuple[int, ...], ...] = ()
    timing: Timing | None = None


@dataclass(frozen=True)
class Report:
    """What a client found.

    Attributes:
        version: of the runtime.
        written: the tokens after each prompt of `Job.write`.
        texts: the same as text, by the runtime's own tokenizer.
        scored: natural logarithms of the probability of each token but the first, a list a sequence.
        prefill_ms: each timed pass [ms].
        decode_ms: each timed step [ms].
        load_ms: from the files to a model that runs [ms].
        peak_bytes: most memory that the client's process took, Python and runtime included.
        idle_bytes: what it had taken before it read the model.
    """

    version: str
    written: list[list[int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    scored: list[list[float]] = field(default_factory=list)
    prefill_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    load_ms: float = 0.0
    peak_bytes: int = 0
    idle_bytes: int = 0


@dataclass(frozen=True)
class Runtime:
    """A runtime: how a network gets there.

    Attributes:
        name: as it is typed.
        title: as it calls itself.
        packages: what has to be installed, by the names that `pip install` knows.
        modules: the same as `import` knows them.
        weights: number formats of the weights, the first unless another is asked for.
        exporter: module and function that write the artefact: (float32 model on the CPU, its tokenizer, an empty folder, weights).
        client: file name of its script in `clients/`.
        patterns: which files of the artefact hold weights.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    weights: tuple[str, ...]
    exporter: tuple[str, str]
    client: str
    patterns: tuple[str, ...]

    def require(self) -> None:
        """ImportError, with the command that installs it, where a package is missing."""
        if missing := [
            one for one, module in zip(self.packages, self.modules, strict=True) if not importlib.util.find_spec(module)
        ]:
            raise ImportError(f"{self.title} needs {' and '.join(missing)}: pip install {' '.join(missing)}")

    def export(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: str) -> None:
        """Write the artefact of a float32 model on the CPU to an empty folder; ValueError where the runtime cannot have it."""
        module, function = self.exporter
        write: Callable[..., None] = getattr(importlib.import_module(module), function)
        write(model, tokenizer, folder, weights)

    def run(self, folder: Path, job: Job) -> Report:
        """Have the runtime's own client, in a process without this package, do a job with the artefact in `folder`.

        Raises:
            ValueError: in one sentence, if the client fails.
        """
        told = json.dumps({"folder": str(folder.resolve()), **asdict(job)})
        command = [sys.executable, "-I", str(_CLIENTS / self.client)]
        ended = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = [line for line in ended.stderr.strip().splitlines() if line.strip()]
            reason = said[-1] if said else f"exit code {ended.returncode}"
            raise ValueError(f"{self.title} cannot run {folder} ({reason[:300]}); export it again, or choose another runtime")
        found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
        return Report(**found)


def _shipping(module: str) -> str:
    return f"merino_net.shipping.{module}"


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "gguf",
            "llama.cpp",
            ("gguf", "xllamacpp"),
            ("gguf", "xllamacpp"),
            ("f32", "f16", "q8_0", "q4_0"),
            (_shipping("gguf_model"), "export_gguf"),
            "llama_cpp.py",
            ("*.gguf",),
        ),
        Runtime(
            "ort-genai",
            "ONNX Runtime GenAI",
            ("onnxruntime-genai", "onnxscript"),
            ("onnxruntime_genai", "onnxscript"),
            ("float32", "int8", "int4"),
            (_shipping("ort_genai"), "export_ort_genai"),
            "ort_genai.py",
            ("*.onnx", "*.data"),
        ),
        Runtime(
            "openvino-genai",
            "OpenVINO GenAI",
            ("openvino-genai", "openvino-tokenizers", "nncf"),
            ("openvino_genai", "openvino_tokenizers", "nncf"),
            ("float32", "int8", "int4"),
            (_shipping("openvino_genai"), "export_openvino_genai"),
            "openvino_genai.py",
            ("openvino_model.bin",),
        ),
        Runtime(
            "executorch",
            "ExecuTorch",
            ("executorch",),
            ("executorch",),
            ("float32", "int8"),
            (_shipping("executorch_model"), "export_executorch"),
            "executorch.py",
            ("*.pte",),
        ),
    )
}
"""Runtimes by the name that is typed."""


def perplexity_of(scored: Sequence[Sequence[float]]) -> float:
    """exp of the mean negative log-probability of all scored tokens."""
    every = [value for sequence in scored for value in sequence]
    return math.exp(-math.fsum(every) / len(every))
