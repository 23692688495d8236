"""One colour, line and mark per solver, and how blocks are drawn, in every figure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from solvers.names import SOLVERS

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#7f7f7f",
    "#8c564b",
    "#bcbd22",
    "#9467bd",
    "#17becf",
    "#1b5e20",
    "#f4837d",
    "#3f2b96",
    "#8a7a00",
    "#c2185b",
    "#7fb69a",
)
"""Okabe & Ito's colours, which colour-blind readers can distinguish, and eleven more."""


STYLES = tuple(zip(COLOURS, ("-", "--", "-.", ":"), "os^D", strict=False))
"""Colour, line and marker of the first, second, … of up to four curves: each distinguishes the curves without the others."""


HATCHES = ("", "//", "..", "\\\\")
"""Patterns of up to four kinds of bars or boxes."""


_MARKS: tuple[Any, ...] = (*"os^DvPX<>*hpd8H", (4, 1, 45), (3, 1, 0), (6, 1, 0))
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (9, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (3, 3)))
"""A mark and a pattern per colour, for readers who see none."""


REFERENCES = ("bare-highspy",)
"""What solvers are compared with and is none of their table, by its name on the command line."""


def solver_style(name: str) -> dict[str, Any]:
    """Colour, mark and line of a solver, the same in every figure.

    Args:
        name: the solver's name on the command line, or the one that it shows. Any other name gets its own style too, which a
            solver of the table may share.
    """
    shown = {entrant.solver.name: option for option, entrant in SOLVERS.items()}
    main = {type(entrant.solver) for entrant in SOLVERS.values() if not entrant.extra}
    extras = [option for option in SOLVERS if SOLVERS[option].extra]
    usual = [*(option for option in SOLVERS if not SOLVERS[option].extra), *REFERENCES]
    usual += sorted(extras, key=lambda option: type(SOLVERS[option].solver) in main)  # variants of another come last
    option = shown.get(name, name)
    number = usual.index(option) if option in usual else len(usual) + zlib.crc32(name.encode()) % len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": _MARKS[number % len(_MARKS)],
        "ls": _LINES[number % len(_LINES)],
    }


def draw_blocks(axis: Axes, widths: Sequence[int], ffn_widths: Sequence[int], depths: Sequence[int]) -> None:
    """Bars of width and FFN width for each block, its depth above them."""
    place = np.arange(1, len(widths) + 1)
    axis.bar(place - 0.2, widths, 0.38, color=COLOURS[0], label="width E")
    axis.bar(place + 0.2, ffn_widths, 0.38, color=COLOURS[4], label="FFN width F")
    for block, (width, ffn_width, depth) in enumerate(zip(widths, ffn_widths, depths, strict=True), start=1):
        axis.annotate(
            f"{depth} ×", (block, max(width, ffn_width)), ha="center", va="bottom", xytext=(0, 2), textcoords="offset points"
        )
    axis.set_xticks(place)
    axis.margins(y=0.18)
