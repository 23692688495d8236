"""Networks timed as they are shipped: an artefact of a runtime, run by the runtime's own client in a process of its own."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass, field
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from formulation import Architecture
from formulation.layer import surroundings
from hardware_models.engines import Measurement, random_network
from hardware_models.profile_standalone import Pace, conditions, deviation, table_on, trimmed_mean
from hardware_models.workload import Workload
from merino_net import MerinoForCausalLM
from merino_net.shipping.runtimes import RUNTIMES, Job, Runtime, Timing

SHIPPED: dict[str, Runtime] = {runtime.profiled: runtime for runtime in RUNTIMES.values()}
"""Runtimes by their names in tables of device files."""

_END = "<|endoftext|>"


class Workshop:
    """The artefacts of one design at a time, made when they are first asked for; those of the design before are deleted."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="merino-")
        self._design: Architecture | None = None
        self._model: MerinoForCausalLM | None = None
        self._tables: dict[tuple[int, int], torch.Tensor] = {}
        self._tokenizers: dict[int, PreTrainedTokenizerFast] = {}

    def artefact(self, design: Architecture, runtime: Runtime, weights: str) -> Path:
        """The folder of a design's artefact; what the runtime's exporter raises if it cannot have it."""
        if design != self._design:
            self._folder.cleanup()
            self._folder = tempfile.TemporaryDirectory(prefix="merino-")
            self._model, self._design = random_network(design, self._embedding(design)), design
        folder = Path(self._folder.name) / f"{runtime.name}-{weights}"
        if not folder.exists():
            unfinished = folder.with_name("unfinished")
            unfinished.mkdir()
            assert self._model is not None
            try:
                runtime.export(self._model, self._tokenizer(design.vocabulary), unfinished, weights)
            except BaseException:
                shutil.rmtree(unfinished)
                raise
            unfinished.rename(folder)
        return folder

    def _embedding(self, design: Architecture) -> torch.Tensor:
        tokens = surroundings(design).tokens
        key = (tokens.rows, tokens.width)
        if key not in self._tables:
            self._tables[key] = table_on("cpu", torch.float32, *key)
        return self._tables[key]

    def _tokenizer(self, vocabulary: int) -> PreTrainedTokenizerFast:
        if vocabulary not in self._tokenizers:
            self._tokenizers[vocabulary] = tokenizer_of(vocabulary)
        return self._tokenizers[vocabulary]


@dataclass
class ArtefactEngine:
    """A runtime that networks are shipped to, in one form of their weights for one workload: timed by the runtime's own client.

    Attributes:
        shop: where artefacts are made, for several engines.
        runtime: by its name in tables, such as llama.cpp.
        precision: form of the weights.
        workload: one sequence, of which the head sees the last token.
        device: "cpu".
        threads: of the processor.

    Raises:
        ValueError: for a runtime, form or workload that there is not; ImportError where its packages are missing.
    """

    shop: Workshop
    runtime: str
    precision: str
    workload: Workload
    device: str = "cpu"
    threads: int = 2
    _pace: Pace | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.workload.batch, self.workload.logits, self.device) != (1, "last", "cpu"):
            raise ValueError(
                f"{self.runtime} is measured with one sequence at a time, the last logits and on the CPU; got batch "
                f"{self.workload.batch}, {self.workload.logits} logits, device {self.device}: leave these flags out"
            )
        SHIPPED[self.runtime].require("name other --runtimes")

    @property
    def name(self) -> str:
        """runtime-weights-phase, the name of its table in a device file."""
        return SHIPPED[self.runtime].table(self.precision, self.workload.phase)

    @property
    def how(self) -> dict[str, Any]:
        """How it measures, for a device file."""
        runtime = SHIPPED[self.runtime]
        how = conditions(f"{runtime.title}, an artefact in its own client", self.precision, "cpu")
        how |= {"threads": self.threads, "device": self.device}
        how["linear_maps"] = f"weights in {self.precision}, as the exporter to this runtime writes them"
        how["versions"] |= {name: importlib.metadata.version(name) for name in runtime.packages}
        return how

    def measure(self, design: Architecture, seconds: float = 0.3) -> Measurement:
        """Passes timed by the runtime's client for so many seconds, at least five, and the pace of the machine around them."""
        torch.set_num_threads(self.threads)
        runtime = SHIPPED[self.runtime]
        folder = self.shop.artefact(design, runtime, self.precision)
        if self._pace is None:
            self._pace = Pace("cpu")
        before = self._pace()
        report = runtime.run(folder, Job(self.threads, timing=Timing(self.workload.seq_len, seconds, (self.workload.phase,))))
        after = self._pace()
        values = report.prefill_ms if self.workload.phase == "prefill" else report.decode_ms
        written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return Measurement(trimmed_mean(values), deviation(values), len(values), (before + after) / 2, written)


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of so many tokens that no text was needed for: all bytes, then pairs of them, then triples."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens, merges = [_END, *alphabet][:vocabulary], []
    longer = chain(product(alphabet, repeat=2), ((a + b, c) for a, b, c in product(alphabet, repeat=3)))
    for left, right in islice(longer, max(vocabulary - len(tokens), 0)):
        merges.append((left, right))
        tokens.append(left + right)
    own = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=own, eos_token=_END, bos_token=_END)
