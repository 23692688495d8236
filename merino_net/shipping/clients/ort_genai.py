"""ONNX Runtime GenAI as its users have it: does a job with a folder that `shipping.ort_genai` wrote, without our package.

Reads the job as JSON from the input (see `merino_net.shipping.runtimes.Job`) and prints the report as one line of JSON.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

STEPS = 16
"""Decoding steps that are timed after one prompt, before the next: the cache is longer by one after each."""


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
    """A model, and how long a text may be."""

    def __init__(self, folder: str, threads: int) -> None:
        config = onnxruntime_genai.Config(folder)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = onnxruntime_genai.Model(config)
        self.positions = json.loads((Path(folder) / "genai_config.json").read_text())["model"]["context_length"]

    def begun(self, tokens: Sequence[int]) -> Any:
        """A generator that has read these tokens."""
        settings = onnxruntime_genai.GeneratorParams(self.model)
        # An end of the text ends nothing before min_length.
        settings.set_search_options(do_sample=False, max_length=self.positions, min_length=self.positions)
        generator = onnxruntime_genai.Generator(self.model, settings)
        generator.append_tokens(np.array(tokens, np.int32))
        return generator

    def written(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` most probable tokens, one after the other."""
        generator = self.begun(tokens)
        found = []
        for _ in range(count):
            generator.generate_next_token()
            found.append(int(generator.get_next_tokens()[0]))
        return found

    def scored(self, tokens: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first, from the cache."""
        generator, found = self.begun(tokens[:1]), []
        for token in tokens[1:]:
            logits = np.asarray(generator.get_logits(), np.float64).reshape(-1)
            largest = logits.max()
            found.append(float(logits[token] - largest - np.log(np.exp(logits - largest).sum())))
            generator.append_tokens(np.array([token], np.int32))
        return found

    def prefills(self, tokens: Sequence[int]) -> Iterable[float]:
        """Milliseconds of reading a whole prompt, again and again."""
        while True:
            start = time.perf_counter()
            self.begun(tokens)
            yield 1e3 * (time.perf_counter() - start)

    def steps(self, tokens: Sequence[int]) -> Iterable[float]:
        """Milliseconds of a decoding step after these tokens, again and again."""
        while True:
            generator = self.begun(tokens)
            generator.generate_next_token()  # picks a token; the next call reads it
            for _ in range(min(STEPS, self.positions - len(tokens) - 1)):
                start = time.perf_counter()
                generator.generate_next_token()
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
    report: dict[str, Any] = {"version": onnxruntime_genai.__version__, "idle_bytes": peak_bytes()}
    start = time.perf_counter()
    writer = Writer(job["folder"], job["threads"])
    report["load_ms"] = 1e3 * (time.perf_counter() - start)
    if job["write"]:
        tokenizer = onnxruntime_genai.Tokenizer(writer.model)
        report["written"] = [writer.written(tokens, count) for tokens, count in job["write"]]
        report["texts"] = [tokenizer.decode(np.array(tokens, np.int32)) for tokens in report["written"]]
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
