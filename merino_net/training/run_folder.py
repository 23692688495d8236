"""The folder of a training run: whose it is, which of its checkpoints are whole, and whether there is room for the next.

What is in a checkpoint is transformers' Trainer's matter; a checkpoint counts once a list of its files lies in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState

from formulation.records.files import locked, replace_file, write_json
from formulation.records.reading import read_json
from formulation.records.rows import RowFile
from merino_net.network.configuration_merino import CODE

RESULT = "training.json"
"""Says that a run is finished, and what came of it."""

_LOG = "log.jsonl"
_STABLE = "stable"
"""Folder of the checkpoint at the end of a stable learning rate, which stays when others go."""

_LIST = "complete.json"
_PREFIX = "checkpoint-"
_RUN = "run.json"
_LENGTH = ("steps", "decay", "warm_up")
"""What of a plan may differ between a run and one that goes on from it, if only in how it is stated (the warm-up)."""
_NETWORK = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_OTHERS = (RESULT, _LOG, "loss.png", _RUN)


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


def run_in(folder: Path) -> Any:
    """What the run in `folder` was asked for; ValueError if there isn't one."""
    if not (folder / _RUN).is_file():
        raise ValueError(f"{folder} holds no run to go on from; expected the output folder of a training run")
    return read_json("run", folder / _RUN)


def keep_stable(checkpoint: Path) -> None:
    """Keep a copy of the whole `checkpoint`, of its run's last step with a stable learning rate, beside the checkpoints."""
    kept = checkpoint.parent.parent / _STABLE / checkpoint.name
    if is_complete(kept):
        return
    check_room(checkpoint, sum(path.stat().st_size for path in checkpoint.iterdir()))
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(checkpoint, kept)


def stable_checkpoint(before: Path, run: dict[str, Any], decay_begins: int) -> Path:
    """The checkpoint where the decay of the run in `before` began, for `run` to go on from.

    Raises:
        ValueError: if it is another run by more than its steps, if it has no such checkpoint, or if that lies behind the step at
            which the new decay begins.
    """
    there, here = ({**one, "plan": {**one["plan"], **dict.fromkeys(_LENGTH)}} for one in (run_in(before), run))
    if differences := list(_differences(there, here)):
        raise ValueError(f"{before} holds another run: {'; '.join(differences[:3])}; only steps and decay may differ")
    checkpoint, _ = newest_complete(before / _STABLE)
    if checkpoint is None:
        raise ValueError(
            f"the run in {before} has no checkpoint at the end of a stable learning rate; expected a run with --schedule wsd that "
            "came to its decay"
        )
    if step_of(checkpoint) > decay_begins:
        raise ValueError(
            f"the decay would begin at step {decay_begins}, and the run in {before} was stable until step {step_of(checkpoint)}; "
            "give more steps, or fewer of decay"
        )
    return checkpoint


def begin_from(checkpoint: Path, folder: Path) -> None:
    """Give the run in `folder`, if it has none yet, the stable `checkpoint` of another run, and that run's log until then."""
    if newest_complete(folder / "checkpoints")[0] is not None:
        return
    check_room(folder, sum(path.stat().st_size for path in checkpoint.iterdir()))
    rows = RowFile(checkpoint.parent.parent / _LOG).rows
    with replace_file(folder / _LOG) as file:
        file.writelines(f"{json.dumps(row)}\n".encode() for row in rows if row["step"] <= step_of(checkpoint))
    shutil.copytree(checkpoint, folder / "checkpoints" / checkpoint.name, dirs_exist_ok=True)


def check_room(folder: Path, needed: int) -> None:
    """OSError if fewer than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"the next checkpoint takes {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB left; "
            "make room and run the same command again: it goes on from the last checkpoint"
        )


@contextmanager
def owned(folder: Path, run: dict[str, Any], processes: PartialState, fresh: bool) -> Iterator[None]:
    """While it lasts `folder` belongs to `run`, and no second command trains in it.

    Args:
        fresh: remove the run that is there first.

    ValueError if the folder holds another run, naming what differs, a network that no run made, or a run at work.
    """
    path = folder / _RUN
    with ExitStack() as stack:
        if processes.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
            if fresh:
                start_over(folder)
            if not path.exists():
                if foreign := [name for name in _NETWORK if (folder / name).exists()]:
                    raise ValueError(
                        f"{folder} holds a {foreign[0]} that no run of merino_net.train wrote; choose another output folder"
                    )
                write_json(path, run)
        processes.wait_for_everyone()
        try:
            there = read_json("run", path)
        except ValueError as error:
            raise ValueError(f"{error}; move {folder} away or choose another output folder") from None
        if differences := list(_differences(there, run)):
            raise ValueError(
                f"{folder} holds another run: {'; '.join(differences[:3])}; choose another output folder, or --fresh to start over"
            )
        yield


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} is {there!r} there and {here!r} here"


def start_over(folder: Path) -> None:
    """Remove the run in `folder` with its network, and nothing else that lies there."""
    if not (folder / _RUN).exists():
        return
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(folder / _STABLE, ignore_errors=True)
    shutil.rmtree(folder / ".unfinished", ignore_errors=True)
    for name in (*_NETWORK, *CODE, *_OTHERS):
        (folder / name).unlink(missing_ok=True)
