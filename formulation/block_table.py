"""The blocks of an architecture as people read them, in rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from formulation.architecture import Architecture, Block
from formulation.family import family_of

_COLUMNS: dict[str, Callable[[Block], object]] = {
    "width E": lambda block: block.width,
    "FFN width F": lambda block: block.ffn_width if block.depth else "-",
    "F / E": lambda block: f"{block.ffn_ratio:.4g}" if block.depth else "-",
    "layers L": lambda block: block.depth,
    "heads": lambda block: block.heads,
}
_FURTHER: dict[str, tuple[str, Callable[[Block], object]]] = {
    "kv_heads": ("kv heads", lambda block: block.kv_heads),
    "head_size": ("head size", lambda block: block.head_size),
    "value_head_size": ("of values", lambda block: block.value_head_size),
    "gated": ("gate", lambda block: block.gated),
    "shared": ("shared", lambda block: block.shared),
    "bits": ("bits", lambda block: block.bits),
}
"""Choice -> column that is shown where some block has decided it, or does not have what others do."""
_MOST_ROWS = 8
"""Blocks up to which each has its own row; of longer designs equal neighbours share one."""


def blocks_table(design: Architecture) -> tuple[list[str], list[list[str]]]:
    """The blocks of a design as a table for people: its head and its rows."""
    decided = [name for name in _FURTHER if any(block.choices[name] is not None for block in design.blocks)]
    if {block.gated for block in design.blocks if block.depth} <= {family_of(design.family).gated, None}:
        decided = [name for name in decided if name != "gated"]
    columns = _COLUMNS | dict(_FURTHER[name] for name in decided)
    runs = [(block, [number]) for number, block in enumerate(design.blocks, start=1)]
    if len(runs) > _MOST_ROWS:
        numbered = groupby(runs, key=lambda run: run[0])
        runs = [(block, [number for _, (number,) in run]) for block, run in numbered]
    rows = [
        [
            str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}",
            *(_cell(column(block)) if block.depth or name in ("width E", "layers L") else "-" for name, column in columns.items()),
        ]
        for block, numbers in runs
    ]
    return ["block", *columns], rows


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
