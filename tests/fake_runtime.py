"""A runtime that stands in for the real ones: PyTorch in this very process, on an artefact that is a safetensors file.

What it gives is a `Report` like any client's, so that tests of what is built on runtimes need none of them.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from merino_net.shipping import agreement, forms, runtimes
from merino_net.shipping.runtimes import Job, Report, Runtime

NAME = "abacus"


@dataclass
class Abacus:
    """What the stand-in was asked, and what it is to answer beside what it computes.

    Attributes:
        noise: standard deviation added to a log-probability, by weights [nat].
        prefill_ms, decode_ms: of every pass.
        peak_bytes: of its process, of which half was taken before it read the model.
        fail: what it says instead of running.
        jobs: those that it was given.
    """

    noise: dict[str, float] = field(default_factory=dict)
    prefill_ms: float = 12.0
    decode_ms: float = 3.0
    peak_bytes: int = 80_000_000
    fail: str = ""
    jobs: list[Job] = field(default_factory=list)

    def export(self, model: Any, tokenizer: Any, folder: Path, weights: str) -> None:
        """Write the artefact: the model, and beside it weights of half, a quarter or an eighth of its bytes."""
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        share = {"f32": 1, "q8_0": 4, "q4_0": 8}[weights]
        size = sum(parameter.nbytes for parameter in model.parameters()) // share
        (folder / f"{weights}.beads").write_bytes(bytes(size))

    def run(self, folder: Path, job: Job) -> Report:
        """Do a job as a client would."""
        from transformers import AutoModelForCausalLM

        self.jobs.append(job)
        if self.fail:
            raise ValueError(f"Abacus cannot run {folder} ({self.fail}); export it again, or choose another runtime")
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
        [beads] = folder.glob("*.beads")
        noise = self.noise.get(beads.stem, 0.0)
        written = []
        for prompt, count in job.write:
            tokens = list(prompt)
            for _ in range(count):
                tokens.append(int(agreement.log_probabilities(model, tokens)[-1].argmax()))
            written.append(tokens[len(prompt) :])
        signs = [[-noise if place % 3 else noise for place in range(len(tokens) - 1)] for tokens in job.score]
        scored = [
            [float(one) + off for one, off in zip(agreement.scores_of(model, tokens), own, strict=True)]
            for tokens, own in zip(job.score, signs, strict=True)
        ]
        phases = () if job.timing is None else job.timing.phases
        return Report(
            "9.9",
            written,
            [""] * len(written),
            scored,
            [self.prefill_ms] * 5 if "prefill" in phases else [],
            [self.decode_ms] * 5 if "decode" in phases else [],
            1.0,
            self.peak_bytes,
            self.peak_bytes // 2,
        )


def install(patch: pytest.MonkeyPatch) -> Abacus:
    """Make the stand-in one of the runtimes, until the test ends."""
    abacus = Abacus()
    runtime = Runtime(
        NAME, "Abacus", NAME, (), ("f32", "q8_0", "q4_0"), (__name__, "_export"), "none.py", ("*.beads",), ("sh", "abacus FOLDER")
    )
    _INSTALLED[0] = abacus
    known: Mapping[str, Runtime] = {**runtimes.RUNTIMES, NAME: runtime}
    for name, module in list(sys.modules.items()):
        ours = name.partition(".")[0] in ("hardware_models", "merino_net", "studies", "tests")
        if ours and getattr(module, "RUNTIMES", None) is runtimes.RUNTIMES and module is not runtimes:
            patch.setattr(module, "RUNTIMES", known)
    patch.setattr(forms, "FORMS", {**forms.FORMS, NAME: forms.form_of(runtime)})
    patch.setattr(runtimes, "RUNTIMES", known)
    real: Callable[..., Report] = Runtime.run

    @functools.wraps(real)
    def run(self: Runtime, folder: Path, job: Job) -> Report:
        return abacus.run(folder, job) if self.name == NAME else real(self, folder, job)

    patch.setattr(Runtime, "run", run)
    return abacus


_INSTALLED: list[Abacus] = [Abacus()]


def _export(model: Any, tokenizer: Any, folder: Path, weights: str) -> None:
    _INSTALLED[0].export(model, tokenizer, folder, weights)


def spread_of(model: Any, job: Job) -> float:
    """Standard deviation of PyTorch's log-probabilities of the texts of a job [nat]."""
    values = [float(one) for tokens in job.score for one in agreement.scores_of(model, tokens)]
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
