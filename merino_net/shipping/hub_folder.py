"""A folder of the Hugging Face kind, read back and compared; and how a folder of ours takes the place of an earlier one, whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from formulation.records.files import locked, writable_folder
from merino_net.network.pretrained import embedding_rows, first_line, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def files_in(folder: Path) -> list[str]:
    """Names of all files in a folder and below, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder and below."""
    return sum((folder / name).stat().st_size for name in files_in(folder))


def check_replaceable(output: Path, source: Path, name: str, form: str, what: str) -> None:
    """ValueError if a folder is neither new, nor empty, nor an earlier result of ours with nothing else in it.

    Args:
        output: where a result is to go.
        source: what it is made of, which must lie elsewhere.
        name: of the file in which a result lists its files.
        form: what this file calls its format.
        what: a result in words: "an earlier export".
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; name a folder with --output")
    if source.resolve() == output:
        raise ValueError(f"{output} is the model's own folder; name another with --output")
    if not output.is_dir() or not any(output.iterdir()):
        return
    try:
        record = json.loads((output / name).read_text(encoding="utf-8"))
        ours = set(record["files"]) if record["format"] == form else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if not ours:
        raise ValueError(f"{output} holds something else than {what}; name another folder with --output")
    others = [file for file in files_in(output) if file not in ours]
    if others:
        raise ValueError(f"{output} holds {others[0]}, which is not of {what}; take it away or name another folder with --output")


@contextmanager
def replace_folder(output: Path) -> Iterator[Path]:
    """An empty folder to fill that takes the place of `output` once it is complete; on an error `output` stays as it was.

    So it does if the folder is removed again. ValueError if another process is about to replace it. What a killed process left of
    the same folder is removed.
    """
    temporary = writable_folder(output.parent) / f".{output.name}.unfinished"
    new, old = temporary / "new", temporary / "old"
    with locked(output, beside=True):
        if old.exists() and not output.exists():  # killed between the two renames below
            old.rename(output)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            new.mkdir()
            yield new
            if not new.exists():
                return
            if output.exists():
                output.rename(old)
            try:
                new.rename(output)
            except BaseException:
                if old.exists():
                    old.rename(output)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_hub_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, float]:
    """Write what from_pretrained reads: transformers' own class where one builds the network, else ours with its code beside it.

    Returns:
        weights: largest difference of a weight that was read back, which must be none; logits: of transformers' class from ours,
        where it took the place of ours.

    Raises:
        OSError: if the disk is full.
        ValueError: if a weight is not the same, or transformers' class computes something else.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from merino_net.corpus.data import save_tokenizer
    from merino_net.network.plain import plain_form

    plain = plain_form(model)
    written = model if plain is None else plain
    try:
        written.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"the weights cannot be written ({first_line(error)}); make room on the disk") from None
    save_tokenizer(tokenizer, folder, positions_of(model.config))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    for name, weight in written.state_dict().items():
        if not torch.equal(weight, again[name]):
            raise ValueError(f"the weight {name} is not the same when read back from the folder; is the disk sound?")
    differences = {"weights": 0.0}
    if plain is not None:
        differences["logits"] = _compare_logits(model, plain)
    return differences


_ROUNDING = 1e-5
"""Largest difference of a logit, relative to the largest, between our class and transformers': OPT's scales queries before the
product, ours the product, which are the same bits for head sizes of 4, 16, 64."""


def _compare_logits(model: PreTrainedModel, plain: PreTrainedModel) -> float:
    """Largest absolute difference between the logits of a network in two classes; ValueError for more than rounding."""
    import torch

    rows = min(64, positions_of(model.config) or 64)
    tokens = torch.randint(embedding_rows(model), (2, rows), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = (one(input_ids=tokens, use_cache=False).logits for one in (model, plain))
    difference = float((ours - theirs).abs().max())
    if not difference <= _ROUNDING * float(ours.abs().max()):
        raise ValueError(f"the network computes otherwise as {type(plain).__name__}: its logits differ by {difference:.3g}")
    return difference
