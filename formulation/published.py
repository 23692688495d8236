"""The networks whose latencies the paper publishes, as architectures, and those latencies.

Its three designs (appendix) are `PUBLISHED`, and the budgets that the names of their files state `NAMED_PARAMS`. Models of these
latencies are in `studies.latency_data.published`; no other figure of the paper is here.
"""

from __future__ import annotations

from pathlib import Path

from formulation.architecture import Architecture, Block
from formulation.presets import PRESETS, uniform_model
from formulation.records.reading import read_json, versioned

PUBLISHED: dict[str, Architecture] = {
    "MeRino-52M": Architecture((Block(512, 512, 2), Block(512, 512, 3), Block(640, 640, 2), Block(896, 896, 1))),
    "MeRino-61M": Architecture((Block(640, 640, 2), Block(768, 1152, 2), Block(896, 896, 2), Block(1024, 1024, 2))),
    "MeRino-64M": Architecture((Block(640, 960, 3), Block(896, 1344, 3), Block(1024, 1024, 2), Block(1024, 1024, 3))),
}
"""The three designs that the paper publishes, by name."""

NAMED_PARAMS = {"MeRino-52M": 60e6, "MeRino-61M": 80e6, "MeRino-64M": 100e6}
"""Bounds on parameters with nothing shared that the names of their configurations in the first author's code state.

params_60_20_ms, params_80_29_ms and params_100_43_ms (kennethzhao24/latency_test on GitHub at bdb789f): that these are the bounds
of the searches is inferred. The latencies in them, 20, 29 and 43 ms, are on a device that is not named.
"""

FFN_RATIO = 4
"""F / E of GPT-2, Cerebras-GPT, Pythia and OPT."""

PUBLISHED_TOKENS = 128
PUBLISHED_MS = {
    "Pythia-70M": 95,
    "Pythia-162M": 243,
    "Cerebras-111M": 185,
    "GPT-2-124M": 213,
    "OPT-125M": 182,
    "OPT-350M": 559,
    "MeRino-52M": 48,
    "MeRino-61M": 77,
    "MeRino-64M": 114,
}
"""Latency of a query of `PUBLISHED_TOKENS` tokens, batch 1, mean of 16, on the paper's Jetson Nano [ms] (MeRino, its tables).

The precision is not stated. The first author's public code for such timings runs MeRino and OPT without an output head and the
others with all logits (`PUBLISHED_WITH_HEAD`).
"""

PUBLISHED_M1_MS: dict[str, dict[int, float]] = {
    "MeRino-52M": {64: 13.3, 128: 23.0, 256: 54.0, 512: 132.4, 1024: 422.5},
    "MeRino-61M": {64: 20.9, 128: 37.9, 256: 78.6, 512: 202.9, 1024: 621.0},
    "MeRino-64M": {64: 34.0, 128: 58.0, 256: 115.6, 512: 302.6, 1024: 935.9},
    "OPT-125M": {64: 52.5, 128: 74.3, 256: 133.7, 512: 270.7, 1024: 756.4},
    "OPT-350M": {64: 143.5, 128: 222.5, 256: 366.5, 512: 793.8, 1024: 2783.6},
    "Pythia-70M": {64: 24.1, 128: 36.0, 256: 55.9, 512: 117.9, 1024: 317.2},
    "Pythia-162M": {64: 63.6, 128: 89.0, 256: 150.5, 512: 325.8, 1024: 822.8},
    "Cerebras-111M": {64: 46.9, 128: 76.6, 256: 135.8, 512: 278.2, 1024: 682.9},
    "GPT-2-124M": {64: 67.3, 128: 114.8, 256: 235.2, 512: 551.7, 1024: 1764.1},
}
"""Latency of a query by its tokens, batch 1, on an Apple M1 [ms], as the paper's first author published them.

From kennethzhao24/latency_test on GitHub. Its code takes the mean of 16 passes of PyTorch in float32 on one thread of the CPU, with
dropout and gradients left on.
"""

PUBLISHED_WITH_HEAD = ("Pythia-70M", "Pythia-162M", "Cerebras-111M", "GPT-2-124M")
"""The networks that this code times with an output head, which makes logits of all tokens; the others end with hidden states."""


def published_designs() -> dict[str, Architecture]:
    """The nine networks of `PUBLISHED_MS`: the baselines have L layers of one width and `FFN_RATIO` that share no weights."""
    return {
        "Pythia-70M": PRESETS["pythia-70m"],
        "Pythia-162M": uniform_model("gpt_neox", 12, 768, FFN_RATIO * 768, 12, 12, 64, vocabulary=50_304),
        "Cerebras-111M": uniform_model("gpt2", 10, 768, FFN_RATIO * 768, 12, 12, 64),
        "GPT-2-124M": PRESETS["gpt2"],
        "OPT-125M": PRESETS["opt-125m"],
        "OPT-350M": PRESETS["opt-350m"],
        **PUBLISHED,
    }


def read_architecture(source: str) -> Architecture:
    """The architecture in a design.json, in an architecture's own JSON file, or of a published name; ValueError otherwise."""
    if source in PUBLISHED:
        return PUBLISHED[source]
    path = Path(source)
    if not path.is_file():
        raise ValueError(
            f"there is no file {source}; expected a design.json, an architecture's JSON or one of {', '.join(PUBLISHED)}"
        )
    record = read_json("design file", path)
    try:
        if isinstance(record, dict) and record.get("format") == "merino design":
            record = versioned(record, "merino design", "design").get("architecture")
            if record is None:
                raise ValueError("the design has no architecture: no design was found for its problem")
        return Architecture.from_dict(record)
    except ValueError as error:
        raise ValueError(f"the design file {source}: {error}") from None
