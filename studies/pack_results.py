"""Shrink results that are to be kept: rows are compressed, and pictures get by with 256 colours.

    python -m studies.pack_results results/compare_solvers
    python -m studies.pack_results studies/results

Every .jsonl below the folders becomes a .jsonl.xz, which each study reads and goes on from: no row is lost or changed, what is
appended afterwards stays plain until it is packed as well, and `xz -dc FILE` shows them. A .png keeps its size in dots; where it is
a plot, of few colours and the shades between them, the nearest ones are merged. One with a colour scale keeps all of its colours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command, run_command
from formulation.command.words import counted
from formulation.records.files import replace_file
from formulation.records.rows import pack, packed_path

_SHADE = 0.1
"""By how much colours may change on average, of 255 levels: plots stay below, a colour scale of 256 shades would show steps."""


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, and say what that saves; returns the exit code."""
    folders = [Path(name) for name in command_line().parse_args(arguments).folders]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; expected one with results of a study, such as results/compare_solvers")
    for kind, packing in (("jsonl", _pack_rows), ("png", reduce_colours)):
        files = sorted({path for folder in folders for path in folder.rglob(f"*.{kind}")})
        sizes = [packing(path) for path in files]
        before, after = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
        print(f"{counted(len(files), f'.{kind} file')}: {before:,} bytes are {after:,} now")
    return ExitCode.DONE


def _pack_rows(path: Path) -> tuple[int, int]:
    """Pack rows; the bytes before and after."""
    before = sum(one.stat().st_size for one in (path, packed_path(path)) if one.exists())
    pack(path)
    return before, packed_path(path).stat().st_size


def reduce_colours(path: Path) -> tuple[int, int]:
    """Rewrite a picture with at most 256 colours, or all of its own where these would not do; the bytes before and after."""
    from io import BytesIO

    from PIL import Image

    before, smaller = path.stat().st_size, BytesIO()
    with Image.open(path) as picture:
        if picture.mode == "P":
            return before, before
        whole = picture.convert("RGB")
    reduced = whole.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    change = abs(np.asarray(whole, dtype=int) - np.asarray(reduced.convert("RGB"), dtype=int)).mean()
    (reduced if change <= _SHADE else whole).save(smaller, "PNG", optimize=True)
    if len(smaller.getvalue()) < before:
        with replace_file(path) as file:
            file.write(smaller.getvalue())
    return before, path.stat().st_size


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="with results of studies, at any depth")
    return parser


if __name__ == "__main__":
    run_command(main)
