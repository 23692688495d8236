"""A file of language models with alike layers that were measured on a watch: its columns, and the designs that its rows stand for.

The makers of nanollmforge.c (Evansika959/nanollmforge.c on GitHub, MIT) ran them with their C program on a Pixel Watch 5: weights
of 8 bits, four threads, a prompt of about 48 tokens, then 32 tokens decoded. Their models have the token embedding as output head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from formulation import Architecture, Block
from studies.latency_data.csv_file import header_of, read_rows
from studies.latency_data.hat_file import FEWEST

WATCH_DESIGN = ("n_layer", "d_model", "n_h", "n_kv", "d_qk", "d_v", "d_mlp")
MEASURED = ("ttft_ms", "tpot_ms", "dynamic_energy_per_token_mj")
WATCH_COLUMNS = (*WATCH_DESIGN, *MEASURED)
"""Layers, width, heads, key/value heads, head size of queries and of values, FFN width; then what was measured.

That is the time to the first token and for each further one [ms], and the energy of the query above idle by decoded token [mJ].
"""

FEWEST_SCORED = 2
"""Rows of a file that is compared with a device file: nothing is fitted, but an error has a spread."""

VOCABULARY = 50_257
PROMPT_TOKENS, DECODED_TOKENS = 48, 32

OTHER_STATE = {"8cadd555a327964df1d833d54ca256ed6abbb2932996d79b1d82aa0c0152ab9e": 36}
"""SHA-256 of a file -> its first rows that come from another state of the watch.

In the file of 109 rows the idle power is 0.28 W in the first 36 and 0.11 W in the others, and times are about 1.5 times as long.
"""


@dataclass(frozen=True)
class WatchData:
    """The rows of one file.

    Attributes:
        file: name of the file, without its folder.
        sha256: of the file.
        columns: column -> its values, (rows,).
        other_state: how many of the first rows come from another state of the device than the rest.
    """

    file: str
    sha256: str
    columns: dict[str, np.ndarray]
    other_state: int = 0

    def __len__(self) -> int:
        return len(self.columns["n_layer"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def select(self, rows: np.ndarray) -> WatchData:
        """Some of the rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return WatchData(self.file, self.sha256, columns, int(rows[: self.other_state].sum()))

    @cached_property
    def other(self) -> np.ndarray:
        """Which rows come from the other state, (rows,)."""
        return np.arange(len(self)) < self.other_state

    @cached_property
    def designs(self) -> list[Architecture]:
        """The network of each row: its layers are one block, which share no weights."""
        return [_design(*map(int, row)) for row in zip(*(self[name] for name in WATCH_DESIGN), strict=True)]


def _design(
    layers: int, width: int, heads: int, kv_heads: int, head_size: int, value_head_size: int, ffn_width: int
) -> Architecture:
    block = Block(width, ffn_width, layers, heads, kv_heads, head_size, value_head_size)
    return Architecture((block,), False, vocabulary=VOCABULARY, family="llama", tied=True)


def is_watch_file(path: Path) -> bool:
    """Whether a file has the columns of this format."""
    return set(WATCH_COLUMNS) <= set(header_of(path))


def read_watch(path: Path, fewest: int = FEWEST) -> WatchData:
    """The rows of a file; more columns than `WATCH_COLUMNS` are passed over.

    Args:
        path: of the file.
        fewest: rows that are needed; as many as a cross-validation takes unless stated.

    Raises:
        ValueError: in one sentence naming file, line and column, see `studies.latency_data.csv_file.read_rows`; and for heads that
            key/value heads do not divide.
    """
    rows = read_rows(path, WATCH_COLUMNS, "a file of watch measurements", _allowed, fewest)
    data = WatchData(path.name, rows.sha256, rows.by_column, OTHER_STATE.get(rows.sha256, 0))
    for line, heads, kv_heads in zip(rows.lines, data["n_h"], data["n_kv"], strict=True):
        if heads % kv_heads:
            raise ValueError(f"line {line} of {path.name} has n_kv {kv_heads:g}, which does not divide n_h {heads:g}")
    return data


def _allowed(name: str, value: float) -> str | None:
    """What a value should have been, in words, if it cannot be; an energy above idle may be 0, where noise has swallowed it."""
    whole, may_be_0 = name in WATCH_DESIGN, name == "dynamic_energy_per_token_mj"
    if math.isfinite(value) and (value > 0 or (may_be_0 and value == 0)) and (not whole or value == int(value)):
        return None
    return "whole number of at least 1" if whole else f"finite number {'of at least' if may_be_0 else 'above'} 0"
