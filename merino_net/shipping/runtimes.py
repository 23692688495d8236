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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CLIENTS = Path(__file__).with_name("clients")


def require(what: str, instead: str, packages: Sequence[str]) -> None:
    """ImportError, with the command that installs them, where packages are missing; `instead` says how to do without."""
    if missing := [one for one in packages if importlib.util.find_spec(one.replace("-", "_")) is None]:
        otherwise = f", or {instead}" if instead else ""
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install {' '.join(packages)}{otherwise}")


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
        exact: compute in float32 where the runtime, left alone, takes less (activations, cache): to compare with PyTorch.
    """

    threads: int
    write: tuple[tuple[tuple[int, ...], int], ...] = ()
    score: tuple[tuple[int, ...], ...] = ()
    timing: Timing | None = None
    exact: bool = False


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
        profiled: as `hardware_models.profile` calls it, in the names of its tables: profiled-weights-phase.
        packages: what has to be installed, by the names that `pip install` knows.
        weights: number formats of the weights, the first unless another is asked for.
        exporter: module and function that write the artefact: (float32 model on the CPU, its tokenizer, an empty folder, weights).
        client: file name of its script in `clients/`.
        patterns: which files of the artefact hold weights.
        use: what a user types to run the artefact in a folder, which stands there as FOLDER: the language, then the lines.
    """

    name: str
    title: str
    profiled: str
    packages: tuple[str, ...]
    weights: tuple[str, ...]
    exporter: tuple[str, str]
    client: str
    patterns: tuple[str, ...]
    use: tuple[str, ...]

    def require(self, instead: str = "") -> None:
        """ImportError, with the command that installs it, where a package is missing."""
        require(self.title, instead, self.packages)

    def table(self, weights: str, phase: str) -> str:
        """Name of the latency table of this runtime in a device file."""
        return f"{self.profiled}-{weights}-{phase}"

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
        try:
            if ended.returncode:
                said = [line for line in ended.stderr.strip().splitlines() if line.strip()]
                raise ValueError(said[-1] if said else f"exit code {ended.returncode}")
            if not ended.stdout.strip():
                raise ValueError("no report")
            return Report(**json.loads(ended.stdout.strip().splitlines()[-1]))
        except (ValueError, TypeError) as error:
            reason = str(error)[:300]
            raise ValueError(f"{self.title} cannot run {folder} ({reason}); export it again, or choose another runtime") from None


def _shipping(module: str) -> str:
    return f"merino_net.shipping.{module}"


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "gguf",
            "llama.cpp",
            "llama.cpp",
            ("gguf", "xllamacpp"),
            ("f32", "f16", "q8_0", "q4_0"),
            (_shipping("gguf_model"), "export_gguf"),
            "llama_cpp.py",
            ("*.gguf",),
            ("sh", 'llama-cli -m FOLDER/*.gguf -no-cnv -p "The network"'),
        ),
        Runtime(
            "ort-genai",
            "ONNX Runtime GenAI",
            "onnxruntime-genai",
            ("onnxruntime-genai", "onnxscript"),
            ("float32", "int8", "int4"),
            (_shipping("ort_genai"), "export_ort_genai"),
            "ort_genai.py",
            ("*.onnx", "*.data"),
            (
                "python",
                "import onnxruntime_genai",
                "",
                'model = onnxruntime_genai.Model("FOLDER")',
                "tokenizer = onnxruntime_genai.Tokenizer(model)",
                "settings = onnxruntime_genai.GeneratorParams(model)",
                "settings.set_search_options(max_length=50)",
                "generator = onnxruntime_genai.Generator(model, settings)",
                'generator.append_tokens(tokenizer.encode("The network"))',
                "while not generator.is_done():",
                "    generator.generate_next_token()",
                "print(tokenizer.decode(generator.get_sequence(0)))",
            ),
        ),
        Runtime(
            "openvino-genai",
            "OpenVINO GenAI",
            "openvino-genai",
            ("openvino-genai", "openvino-tokenizers", "nncf"),
            ("float32", "int8", "int4"),
            (_shipping("openvino_genai"), "export_openvino_genai"),
            "openvino_genai.py",
            ("openvino_model.bin",),
            (
                "python",
                "import openvino_genai",
                "",
                'pipeline = openvino_genai.LLMPipeline("FOLDER", "CPU")',
                'print(pipeline.generate("The network", max_new_tokens=50))',
            ),
        ),
        Runtime(
            "executorch",
            "ExecuTorch",
            "executorch",
            ("executorch",),
            ("float32", "int8"),
            (_shipping("executorch_model"), "export_executorch"),
            "executorch.py",
            ("*.pte", "*.ptd"),
            (
                "python",
                "import torch",
                "from executorch.runtime import Runtime",
                "",
                'program = Runtime.get().load_program("FOLDER/model.pte", data_path="FOLDER/model.ptd")',
                'forward = program.load_method("forward")',
                "tokens = torch.tensor([[1, 2, 3]])",
                "[logits] = forward.execute([tokens, torch.arange(3)])  # of the next token; go on with it at position 3",
            ),
        ),
    )
}
"""Runtimes by the name that is typed."""


def perplexity_of(scored: Sequence[Sequence[float]]) -> float:
    """exp of the mean negative log-probability of all scored tokens."""
    every = [value for sequence in scored for value in sequence]
    return math.exp(-math.fsum(every) / len(every))
