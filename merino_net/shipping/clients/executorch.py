"""ExecuTorch as its users have it: does a job with a folder of `merino_net.shipping.executorch_model`. Needs no package of ours.

Reads the job as JSON from the input (see `merino_net.shipping.runtimes.Job`) and prints the report as one line of JSON.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 16
"""Decoding steps that are timed after one prompt, before the next."""


def peak_bytes() -> int:
    """Most memory that this process has taken [bytes]; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Writer:
    """A program with its constants; `logits` reads tokens, and position 0 begins a text."""

    def __init__(self, folder: Path, threads: int) -> None:
        import executorch.kernels.quantized  # noqa: F401  (embeddings in 8 bits)
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime, Verification

        portable_lib._unsafe_reset_threadpool(threads)
        self.torch = torch
        self.program = Runtime.get().load_program(
            folder / "model.pte", verification=Verification.Minimal, data_path=folder / "model.ptd"
        )
        self.forward = self.program.load_method("forward")
        self.positions = self.told("get_max_context_len")
        self.most = self.told("get_max_seq_len")

    def told(self, name: str) -> Any:
        """What a method without inputs returns."""
        return self.program.load_method(name).execute([])[0]

    def logits(self, tokens: Sequence[int], first: int) -> np.ndarray:
        """Logits behind the last of these tokens, the first of which is at position `first`."""
        for start in range(0, len(tokens), self.most):
            part = self.torch.tensor([tokens[start : start + self.most]])
            [out] = self.forward.execute([part, self.torch.arange(part.shape[1]) + first + start])
        return out.numpy()[0, -1]

    def written(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` most probable tokens, one after the other."""
        found = [int(self.logits(tokens, 0).argmax())]
        while len(found) < count:
            found.append(int(self.logits(found[-1:], len(tokens) + len(found) - 1).argmax()))
        return found

    def scored(self, tokens: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first, from the cache."""
        found = []
        for number, token in enumerate(tokens[1:]):
            logits = self.logits(tokens[number : number + 1], number).astype(np.float64)
            largest = logits.max()
            found.append(float(logits[token] - largest - np.log(np.exp(logits - largest).sum())))
        return found

    def prefills(self, tokens: Sequence[int]) -> Iterable[float]:
        """Milliseconds of reading a whole prompt, again and again."""
        while True:
            start = time.perf_counter()
            self.logits(tokens, 0)
            yield 1e3 * (time.perf_counter() - start)

    def steps(self, tokens: Sequence[int]) -> Iterable[float]:
        """Milliseconds of a decoding step after these tokens, again and again."""
        self.logits(tokens, 0)
        first = min(len(tokens), self.positions - 1)
        while True:
            for position in range(first, min(first + STEPS, self.positions)):
                start = time.perf_counter()
                self.logits(tokens[:1], position)
                yield 1e3 * (time.perf_counter() - start)


def timed(passes: Iterable[float], seconds: float) -> list[float]:
    """The passes of so many seconds, at least five, after two that are not counted."""
    found: list[float] = []
    start = time.perf_counter()
    for number, milliseconds in enumerate(passes):
        if number < 2:
            start = time.perf_counter()
            continue
        found.append(milliseconds)
        if len(found) >= 5 and time.perf_counter() - start > seconds:
            break
    return found


def main() -> None:
    job = json.load(sys.stdin)
    folder = Path(job["folder"])
    report: dict[str, Any] = {"version": importlib.metadata.version("executorch")}
    import executorch.runtime
    import torch  # noqa: F401  (what it takes is not the model's)

    executorch.runtime.Runtime.get()
    report["idle_bytes"] = peak_bytes()
    start = time.perf_counter()
    writer = Writer(folder, job["threads"])
    report["load_ms"] = 1e3 * (time.perf_counter() - start)
    if job["write"]:
        from pytorch_tokenizers import HuggingFaceTokenizer

        tokenizer = HuggingFaceTokenizer(str(folder / "tokenizer.json"))
        report["written"] = [writer.written(tokens, count) for tokens, count in job["write"]]
        report["texts"] = [tokenizer.decode(tokens) for tokens in report["written"]]
    report["scored"] = [writer.scored(tokens) for tokens in job["score"]]
    if job["timing"] is not None:
        tokens = [number % 7 for number in range(job["timing"]["seq_len"])]
        for phase, passes in {"prefill": writer.prefills, "decode": writer.steps}.items():
            if phase in job["timing"]["phases"]:
                report[f"{phase}_ms"] = timed(passes(tokens), job["timing"]["seconds"])
    report["peak_bytes"] = peak_bytes()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
