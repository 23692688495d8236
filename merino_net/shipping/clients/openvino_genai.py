"""OpenVINO GenAI as its users have it: does a job with a folder that `shipping.openvino_genai` wrote, without our package.

Reads the job as JSON from the input (see `merino_net.shipping.runtimes.Job`) and prints the report as one line of JSON. Texts and
times are those of `LLMPipeline` on the processor; scores are read off the same graph by OpenVINO, as the pipeline keeps no logits.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

STEPS = 16
"""Decoding steps that are timed after one prompt, before the next: the cache is longer by one after each."""

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
"""Everything in float32; left alone, OpenVINO takes bfloat16 where the processor has it and a cache of 8 bits."""


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
    """A pipeline, and how long a text may be."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self.pipeline = openvino_genai.LLMPipeline(folder, "CPU", settings)
        config = json.loads((Path(folder) / "config.json").read_text())
        self.vocabulary = config["vocab_size"]
        self.positions = next(config[name] for name in ("max_position_embeddings", "n_positions") if name in config)

    def written(self, tokens: Sequence[int], count: int) -> Any:
        """The `count` most probable tokens, one after the other, and how long each took."""
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens, settings.ignore_eos, settings.do_sample = count, True, False
        prompt = np.array([tokens], np.int64)
        return self.pipeline.generate(
            openvino_genai.TokenizedInputs(openvino.Tensor(prompt), openvino.Tensor(np.ones_like(prompt))), settings
        )

    def passes(self, seq_len: int, steps: int) -> Iterable[list[float]]:
        """Milliseconds of reading a prompt and of each step after it, again and again.

        No prompt begins as an earlier one, which the pipeline might remember.
        """
        for number in itertools.count():
            source = random.Random(number)
            tokens = [source.randrange(self.vocabulary) for _ in range(seq_len)]
            durations = self.written(tokens, 1 + steps).perf_metrics.raw_metrics.token_infer_durations
            yield [microseconds / 1e3 for microseconds in durations]


def timed(passes: Iterable[list[float]], seconds: float) -> list[float]:
    """The times of so many seconds, at least five, after two passes that are not counted."""
    found: list[float] = []
    start = time.perf_counter()
    for number, milliseconds in enumerate(passes):
        if number < 2:
            start = time.perf_counter()
            continue
        found += milliseconds
        if len(found) >= 5 and time.perf_counter() - start > seconds:
            break
    return found


def scorer(folder: str, settings: dict[str, Any]) -> Any:
    """The pipeline's graph, which gives the log-probability of each token of a sequence but the first."""
    graph = openvino.Core().compile_model(Path(folder) / "openvino_model.xml", "CPU", settings)
    names = {port.any_name for port in graph.inputs}
    request = graph.create_infer_request()

    def scored(tokens: Sequence[int]) -> list[float]:
        request.reset_state()
        ids = np.array([tokens[:-1]], np.int64)
        fed = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        logits = request.infer({name: fed[name] for name in names})["logits"][0].astype(np.float64)
        largest = logits.max(-1)
        normalizers = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
        return [float(row[token] - normalizer) for row, token, normalizer in zip(logits, tokens[1:], normalizers, strict=True)]

    return scored


def main() -> None:
    job = json.load(sys.stdin)
    report: dict[str, Any] = {"version": openvino_genai.__version__, "idle_bytes": peak_bytes()}
    start = time.perf_counter()
    settings = {"INFERENCE_NUM_THREADS": job["threads"], **(EXACT if job["exact"] else {})}
    writer = Writer(job["folder"], settings)
    report["load_ms"] = 1e3 * (time.perf_counter() - start)
    if job["write"]:
        report["written"] = [list(writer.written(tokens, count).tokens[0]) for tokens, count in job["write"]]
        report["texts"] = [writer.pipeline.get_tokenizer().decode(tokens) for tokens in report["written"]]
    if job["timing"] is not None:
        length, seconds, phases = (job["timing"][name] for name in ("seq_len", "seconds", "phases"))
        if "prefill" in phases:
            report["prefill_ms"] = timed((each[:1] for each in writer.passes(length, 0)), seconds)
        if "decode" in phases:
            steps = min(STEPS, writer.positions - length)
            report["decode_ms"] = timed((each[1:] for each in writer.passes(length, steps)), seconds)
    report["peak_bytes"] = peak_bytes()  # before the graph is read a second time
    if job["score"]:
        scored = scorer(job["folder"], settings)
        report["scored"] = [scored(tokens) for tokens in job["score"]]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
