"""Pretrained models by folder or hub name, ours and anyone's: found, fingerprinted, loaded, and the few facts read off them.

Whatever reads weights reads them here, so that incomplete ones, numbers that are not finite and encoders are refused everywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from formulation.command.words import counted

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    """A model's configuration; ValueError in one sentence if there isn't one."""
    from transformers import AutoConfig

    folder = Path(source)
    if folder.is_file():
        raise ValueError(f"{source} is a file; expected a folder that save_pretrained wrote, or a name on the hub")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"{source} is not a model: it has no config.json; expected a folder that save_pretrained wrote")
    if not folder.is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ValueError(f"there is no folder {source}; name a folder that save_pretrained wrote, or a model on the hub")
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        if folder.is_dir():
            raise ValueError(f"the config.json of {source} cannot be used ({first_line(error)})") from None
        raise ValueError(
            f"{source} is not a folder here, and the Hugging Face hub does not give it ({first_line(error)}); "
            "check the name and the network"
        ) from None
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{source} is an encoder with a decoder; expected a causal language model, such as GPT-2, OPT or ours")
    return config


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

    Raises:
        ValueError: if either cannot be read, and for weights that `load_weights` refuses.
    """
    import torch
    from transformers import AutoTokenizer

    network: Any = load_weights(model.source, model.name, getattr(torch, dtype))
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.source)
        # Where the files are missing, transformers may make an empty tokenizer.
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise ValueError("its vocabulary is empty")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{model.name} has no tokenizer that works ({first_line(error)}); save one beside the weights") from None
    return network.to(device), tokenizer


def load_weights(source: str | Path, name: str, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model in a folder or of a hub name, on the CPU in evaluation mode; errors call it `name`.

    Raises:
        ValueError: if the weights cannot be read (a damaged file, or a pickle that would run code), where some are missing or of
            another shape, which transformers would fill with random numbers, where one of our networks has weights too many, where
            a weight is not a finite number, and for an encoder, whose predictions see the token that they are to predict.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from merino_net.network.configuration_merino import MerinoConfig

    try:
        # With output_loading_info it returns a pair, which its annotation does not say.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except UnpicklingError:
        raise ValueError(
            f"the weights of {name} cannot be loaded (a .bin file holds more than tensors and could run code); "
            "ask for them as .safetensors"
        ) from None
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = first_line(error).partition(". ")[0]  # torch explains a damaged file at length
        raise ValueError(f"the weights of {name} cannot be loaded ({reason})") from None
    except (EOFError, LookupError, TypeError, AttributeError):  # what readers of damaged files raise
        raise ValueError(f"the weights of {name} cannot be loaded (a file is cut short or holds no weights)") from None
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{name} lacks {counted(len(missing), 'weight')}, such as {missing[0]}; expected a complete causal language model"
        )
    if mismatched := sorted(report["mismatched_keys"]):
        weight, there, wanted = mismatched[0]
        raise ValueError(
            f"the weight {weight} of {name} has the shape {tuple(there)} and its configuration asks for {tuple(wanted)}; "
            "the weights and config.json are of two different networks"
        )
    unexpected = sorted(report["unexpected_keys"])
    if unexpected and isinstance(network.config, MerinoConfig):  # of other families, a file may hold the weights of further tasks
        raise ValueError(
            f"{name} has {counted(len(unexpected), 'weight')} that its configuration does not know, such as {unexpected[0]}; "
            "the weights and config.json are of two different networks"
        )
    check_finite(network, name)
    with torch.inference_mode():
        _check_causal(network.eval(), name)
    return network


def check_finite(network: nn.Module, name: str) -> None:
    """ValueError if a weight of `network`, which the error calls `name`, is not a finite number.

    It names the first such tensor and how many of its values are bad. One pass over the weights, without a copy.
    """
    import torch

    for weight, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not torch.stack(tensor.aminmax()).isfinite().all():  # NaN is passed on by both
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(
                f"the weight {weight} of {name} holds {bad:,} of {counted(tensor.numel(), 'value')} that are not finite numbers "
                "(NaN or infinite); the network is damaged or its training diverged, so take an earlier copy or train it again"
            )


_CAUSAL = 1e-3
"""Largest change of a logit, relative to the largest, that is put down to rounding; of a small random BERT it is 1e-2."""


def _check_causal(network: PreTrainedModel, name: str) -> None:
    """ValueError if what `network` predicts depends on tokens that come later, as with BERT, or is not a finite number."""
    import torch

    if embedding_rows(network) < 3 or (positions_of(network.config) or 2) < 2:
        return
    logits = network(input_ids=torch.tensor([[0, 1], [0, 2]], device=network.device)).logits[:, 0].float()
    if not logits.isfinite().all():
        raise ValueError(
            f"{name} predicts numbers that are not finite (NaN or infinite); its weights overflow in this number format"
        )
    if (logits[0] - logits[1]).abs().max() > _CAUSAL * logits.abs().max():
        raise ValueError(
            f"{name} is not a causal language model: its predictions depend on the tokens that follow, as an encoder's do; "
            "expected one such as GPT-2, OPT or ours"
        )


def torch_device(name: str | None) -> str:
    """The device to compute on, tried; ValueError for one that does not work here."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} does not work here ({first_line(error)}); expected cpu, cuda or cuda:0") from None
    return name


def positions_of(config: Any) -> int | None:
    """The most tokens a model of this configuration takes; None if it sets no such limit."""
    values = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx"))
    return next((int(value) for value in values if value is not None), None)


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token put before a text, never scored: the tokenizer's bos, else its eos (for GPT-2 and ours both are end of text).

    Raises:
        ValueError: if it has neither.
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
    from transformers.utils import logging

    logging.set_verbosity_error()
    if source is None or Path(source).is_dir():
        logging.disable_progress_bar()
