"""Pretrained models by folder or hub name, ours and anyone's: found, fingerprinted, loaded, and the few facts read off them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from formulation.report import counted

_MODEL_FILES = re.compile(
    r"config\.json|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab.*|merges\.txt|.*\.(safetensors|bin|model|py)"
)
"""Files of a model folder that its numbers depend on; what training leaves beside them is not among them."""
_TRAINING_FILES = {"training_args.bin", "optimizer.bin", "scheduler.bin"}


@dataclass(frozen=True)
class Model:
    """A model to evaluate: what was typed, its name in tables, a fingerprint of weights and tokenizer, and its positions."""

    source: str
    name: str
    fingerprint: str
    positions: int | None


def find_models(sources: Sequence[str]) -> list[Model]:
    """The models named on the command line, nothing loaded yet but their configurations; ValueError for one that is none."""
    short = [Path(source).name if Path(source).is_dir() else source for source in sources]
    models = []
    for source, name in zip(sources, short, strict=True):
        config = _configuration(source)
        models.append(
            Model(
                source=source,
                name=name if name and short.count(name) == 1 else source,
                fingerprint=_folder_fingerprint(Path(source)) if Path(source).is_dir() else f"{source}@{config._commit_hash}",
                positions=positions_of(config),
            )
        )
    return models


def _configuration(source: str) -> Any:
    """A model's configuration; ValueError in one sentence where there is none."""
    folder = Path(source)
    if folder.is_file():
        raise ValueError(f"{source} is a file; expected a folder that save_pretrained wrote, or a name on the hub")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{source} is no model: it has no config.json; expected a folder that save_pretrained wrote")
    if not folder.is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ValueError(f"there is no folder {source}; name a folder that save_pretrained wrote, or a model on the hub")
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        if folder.is_dir():
            raise ValueError(f"the config.json of {source} cannot be used ({first_line(error)})") from None
        raise ValueError(
            f"{source} is no folder here, and the Hugging Face hub does not give it ({first_line(error)}); "
            "check the name and the network"
        ) from None


def _folder_fingerprint(folder: Path) -> str:
    """SHA-256 of the names and bytes of the files that a model's numbers depend on."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and _MODEL_FILES.fullmatch(path.name) and path.name not in _TRAINING_FILES:
            with path.open("rb") as file:
                digest.update(f"{path.name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def load_model(model: Model, dtype: str, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Weights and tokenizer, the weights in `dtype` on `device`.

    Raises ValueError where either cannot be read, and where weights are missing: transformers would fill them with random numbers.
    """
    try:
        # With output_loading_info it returns a pair, which its annotation does not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(model.source, dtype=getattr(torch, dtype), output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the weights of {model.name} cannot be loaded ({first_line(error)})") from None
    network, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{model.name} lacks {counted(len(missing), 'weight')}, such as {missing[0]}; expected a complete causal language model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.source)
        # Where the files are missing, transformers may make an empty tokenizer.
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise ValueError("its vocabulary is empty")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{model.name} has no tokenizer that works ({first_line(error)}); save one beside the weights") from None
    return network.to(device), tokenizer


def device_of(name: str | None) -> str:
    """The device to compute on, tried; ValueError for one that does not work here."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} does not work here ({first_line(error)}); expected cpu, cuda or cuda:0") from None
    return name


def positions_of(config: Any) -> int | None:
    """The most tokens a model of this configuration takes; None where it sets no such limit."""
    values = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx"))
    return next((int(value) for value in values if value is not None), None)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token put before a text, never scored: the tokenizer's bos, else its eos (for GPT-2 and ours both are end of text).

    Raises ValueError where it has neither.
    """
    token = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if token is None:
        raise ValueError("the tokenizer has no end-of-text token (eos or bos), which the text must begin with; set eos_token in it")
    return int(token)


def embedding_rows(model: PreTrainedModel) -> int:
    """How many tokens a model has an embedding for."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def first_line(error: BaseException) -> str:
    """What an error of another library says, up to its first line end; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "").rstrip(".:") or type(error).__name__


def quieten(source: str | None = None) -> None:
    """Leave the terminal to our own lines; the download of a `source` on the hub keeps its bar."""
    logging.set_verbosity_error()
    if source is None or Path(source).is_dir():
        logging.disable_progress_bar()
