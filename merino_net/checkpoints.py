"""Checkpoints of a training run: which of them are whole, and whether there is room for the next.

What is in a checkpoint is transformers' Trainer's matter; a checkpoint counts once a list of its files lies in it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from formulation.files import replace_file

_LIST = "complete.json"
_PREFIX = "checkpoint-"


def mark_complete(checkpoint: Path) -> None:
    """Write down which files `checkpoint` has, and their sizes in bytes: the last step of saving it."""
    sizes = {path.name: path.stat().st_size for path in sorted(checkpoint.iterdir()) if path.is_file()}
    with replace_file(checkpoint / _LIST) as file:
        file.write(json.dumps(sizes, indent=1).encode())


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that `mark_complete` saw is there in its full size."""
    try:
        sizes = json.loads((checkpoint / _LIST).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which `checkpoint` was saved."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def newest_complete(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest whole checkpoint in `folder`, if any, and those after it that were cut short."""
    damaged: list[Path] = []
    names = (path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit())
    for checkpoint in sorted(names, key=step_of, reverse=True):
        if is_complete(checkpoint):
            return checkpoint, damaged
        damaged.append(checkpoint)
    return None, damaged


def check_room(folder: Path, needed: int) -> None:
    """OSError where fewer than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"the next checkpoint takes {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB left; "
            "make room and run the same command again: it goes on from the last checkpoint"
        )
