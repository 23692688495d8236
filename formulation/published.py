"""The networks whose latencies the paper publishes, as architectures, and those latencies.

Its three designs (appendix) are `PUBLISHED`. A model of the nine latencies is `studies.latency_data.published`; no other figure of
the paper is here.
"""

from __future__ import annotations

from pathlib import Path

from formulation.architecture import Architecture, Block
from formulation.records.reading import read_json, versioned

PUBLISHED: dict[str, Architecture] = {
    "MeRino-52M": Architecture((Block(512, 512, 2), Block(512, 512, 3), Block(640, 640, 2), Block(896, 896, 1))),
    "MeRino-61M": Architecture((Block(640, 640, 2), Block(768, 1152, 2), Block(896, 896, 2), Block(1024, 1024, 2))),
    "MeRino-64M": Architecture((Block(640, 960, 3), Block(896, 1344, 3), Block(1024, 1024, 2), Block(1024, 1024, 3))),
}
"""The three designs that the paper publishes, by name."""

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

Whether all logits were computed, and in which precision, is not stated.
"""


def published_designs() -> dict[str, Architecture]:
    """The nine networks of `PUBLISHED_MS`: the baselines have L layers of one width and `FFN_RATIO` that share no weights."""

    def uniform(layers: int, width: int, vocabulary: int, embedding_width: int | None = None) -> Architecture:
        return Architecture((Block(width, FFN_RATIO * width, layers),), False, embedding_width or width, vocabulary)

    return {
        "Pythia-70M": uniform(6, 512, 50_304),
        "Pythia-162M": uniform(12, 768, 50_304),
        "Cerebras-111M": uniform(10, 768, 50_257),
        "GPT-2-124M": uniform(12, 768, 50_257),
        "OPT-125M": uniform(12, 768, 50_272),
        "OPT-350M": uniform(24, 1024, 50_272, 512),
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
