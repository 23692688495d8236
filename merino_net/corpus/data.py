"""From documents to packed sequences: the tokenizer, the token cache, packing and the held-out split.

Where documents come from is `merino_net.corpus.text`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from formulation.architecture import positive_integer
from formulation.command.processes import temporary_folder
from formulation.command.words import counted
from formulation.records.files import replace_file, write_json
from merino_net.corpus.text import END_OF_TEXT, Text

__all__ = [
    "END_OF_TEXT",
    "Sequences",
    "Text",
    "kept_tokenizer",
    "load_tokenizer",
    "packed",
    "save_tokenizer",
    "split",
    "token_array",
    "train_tokenizer",
]

PADDING = "<|pad|>"
"""What fills up a batch: a token of its own, so that whoever leaves padding out of a loss does not leave out the ends of texts."""

_LEAST_VOCABULARY = 258
"""The 256 bytes, the end of text and the padding."""

_PIECE = 1 << 16
"""Characters after which a long document is cut: enough for a cut to cost nothing, small enough for all cores to have some."""

_BATCH = 1 << 20
"""Characters encoded at a time. The tokenizer's records of a token take some 100 bytes, so that a batch holds tens of megabytes."""

_SURROUNDINGS = 64
"""Characters on either side of a cut that must be encoded alike with and without it."""

_CUT = re.compile(r"(?<=\S) (?=[^\W\d_])")
"""In front of a space between words: there every pre-tokenizer of the GPT family begins a new token."""

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

_ENCODING = 3
"""Raised whenever the same text gives another tokenizer or, by the same one, other tokens: no earlier cache is taken then."""


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of exactly `vocabulary` tokens, learned from `documents`; any text survives a round trip.

    Token 0 is END_OF_TEXT (begin and end alike), token 1 PADDING, then come the 256 bytes, then the merges, most frequent first;
    text is split into words as GPT-2 does, without a space put in front (Radford et al. 2019, section 2.2). A pair of tokens seen
    only once is not merged. The same documents give the same tokenizer. ValueError if `vocabulary` is below 258 or more than the
    documents support.
    """
    if positive_integer("vocabulary", vocabulary) < _LEAST_VOCABULARY:
        raise ValueError(f"vocabulary is {vocabulary}; expected at least {_LEAST_VOCABULARY} (256 bytes, end of text, padding)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for document in documents for piece, _ in _pieces(document)), trainer)
    size = tokenizer.get_vocab_size()
    if size < vocabulary:
        raise ValueError(
            f"the text supports a vocabulary of {size:,} tokens at most, fewer than the {vocabulary:,} asked for; "
            f"give more text or ask for fewer with --vocabulary {size}"
        )
    model = json.loads(tokenizer.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return GPT2Tokenizer(
        model["vocab"], merges, pad_token=PADDING, clean_up_tokenization_spaces=False
    )  # the last for transformers 4


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, positions: int | None) -> None:
    """Save a tokenizer beside a network, for whoever loads it: of a class that every release of transformers knows.

    Args:
        tokenizer: left as it is.
        folder: there already.
        positions: of the network, the most tokens that it takes; None if it sets no such limit.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("local_files_only", "is_local", "backend"):  # of the machine it was read on
        settings.pop(name, None)
    if settings.get("tokenizer_class") == "TokenizersBackend":  # transformers 4 knows the other name alone, and 5 knows both
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if positions is not None:
        settings["model_max_length"] = positions
    write_json(path, settings)


def kept_tokenizer(text: Text, vocabulary: int, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that `train_tokenizer` makes of `text`, kept in `folder` under the text's fingerprint and made only once."""
    kept = folder / text.fingerprint()[:16] / f"{vocabulary}-{_ENCODING}"
    if not (kept / "tokenizer.json").exists():
        tokenizer = train_tokenizer(text.documents(), vocabulary)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(kept.parent) as folder:
            unfinished = folder / "tokenizer"  # made by itself it has the permissions that every folder has
            save_tokenizer(tokenizer, unfinished, None)
            os.replace(unfinished, kept)
    return load_tokenizer(str(kept))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, in a tokenizer.json file or of that name on the Hugging Face hub, with an end-of-text token.

    One without a padding token pads with its end of text. A file alone does not say which token ends a text: there it is
    <|endoftext|>. ValueError if there is no tokenizer, a damaged one, one that the `tokenizers` library does not run, or one
    without an end of text.
    """
    path = Path(name)
    if path.is_file():
        return _tokenizer_in_file(path)
    if path.is_dir():
        tokenizer = _tokenizer_in_folder(path)
    elif _HUB_NAME.fullmatch(name) and path.suffix != ".json":
        tokenizer = _tokenizer_of_hub(name)
    else:
        raise ValueError(f"there is no file or folder {name}; expected a folder with a tokenizer, a tokenizer.json or a hub name")
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer {name} is not run by the tokenizers library; give one that has a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer {name} has no end-of-text token (eos_token); give one that has")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_in_file(path: Path) -> PreTrainedTokenizerFast:
    tokenizer = _read_tokenizer(path)
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise ValueError(f"{path} has no token {END_OF_TEXT} to end a text with; give its folder, whose settings may name another")
    special = dict.fromkeys(("bos_token", "eos_token"), END_OF_TEXT)
    padding = END_OF_TEXT if tokenizer.token_to_id(PADDING) is None else PADDING
    # Said for those who load it: transformers 4 would else take away spaces in front of punctuation.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=padding, clean_up_tokenization_spaces=False, **special)


def _tokenizer_in_folder(path: Path) -> PreTrainedTokenizerBase:
    if (path / "tokenizer.json").is_file():
        _read_tokenizer(path / "tokenizer.json")
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # the last three of settings of the wrong kind
        raise ValueError(f"the folder {path} holds no tokenizer that can be read; expected a tokenizer.json in it") from None


def _tokenizer_of_hub(name: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"there is no folder {name}, and no such tokenizer came from the hub ({reason}); "
            "check the name and the connection, or give a folder"
        ) from None


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises this very class
        raise ValueError(f"{path} is not a tokenizer file ({str(error).rstrip('.')}); expected a tokenizer.json") from None


def token_array(text: Text, tokenizer: PreTrainedTokenizerBase, cache: Path) -> np.memmap:
    """The tokens of all documents in a row, (n,), memory-mapped: uint16 where every token fits, else uint32.

    Each document is followed by the end-of-text token, and that token comes from nowhere else: where a document spells a special
    token, the letters are encoded as text.

    The tokens lie in `cache` (a folder, made where it is missing) in one .npy file, named by the sha256 of the text's fingerprint
    and the tokenizer's content. It is written atomically, and again where its size and its header disagree, so that
    several processes may ask for it at once. Texts longer than the memory are no trouble, but a document is held whole.
    ValueError for a text that cannot be read, OSError if the disk is full.
    """
    plain = _plain_encoder(tokenizer)
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("the tokenizer has no end-of-text token (eos_token), which must follow every document")
    dtype = np.dtype("<u2" if max(plain.get_vocab().values()) < 1 << 16 else "<u4")
    key = hashlib.sha256(json.dumps([_ENCODING, text.fingerprint(), plain.to_str(), end]).encode()).hexdigest()
    path = cache / f"{key}.npy"
    cached = _mapped(path, dtype)
    if cached is not None:
        return cached
    cache.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as file:
        count = 0
        file.write(_header(count, dtype))
        for tokens in _encoded(text.documents(), plain, end):
            file.write(np.array(tokens, dtype).tobytes())
            count += len(tokens)
        file.seek(0)
        file.write(_header(count, dtype))
        file.flush()
        os.fsync(file.fileno())  # the name must not reach the disk before the tokens do
    written = _mapped(path, dtype)
    if written is None:
        raise OSError(f"the token cache {path} is not what was written to it")
    return written


def _plain_encoder(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of the tokenizer at work that knows no special tokens in a text and neither truncates nor pads."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    return plain


def _header(count: int, dtype: np.dtype) -> bytes:
    """How an .npy file of `count` tokens begins: always as many bytes, since NumPy leaves room for a longer count."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
    return header.getvalue()


def _mapped(path: Path, dtype: np.dtype) -> np.memmap | None:
    """The tokens in `path`; None if there is no such file or its size and its header disagree."""
    if not path.is_file():
        return None
    room = len(_header(0, dtype))
    count, rest = divmod(path.stat().st_size - room, dtype.itemsize)
    with path.open("rb") as file:
        if count < 1 or rest or file.read(room) != _header(count, dtype):
            return None
    return np.memmap(path, dtype, "r", offset=room, shape=(count,))


def _encoded(documents: Iterable[str], encoder: Tokenizer, end: int) -> Iterator[list[int]]:
    """The tokens of the documents, each closed by `end`, a batch at a time."""
    for batch in _batches(documents, encoder):
        encodings = encoder.encode_batch_fast([piece for piece, _ in batch], add_special_tokens=False)
        tokens: list[int] = []
        for encoding, (_, last) in zip(encodings, batch, strict=True):
            tokens += encoding.ids
            if last:
                tokens.append(end)
        yield tokens


def _batches(documents: Iterable[str], encoder: Tokenizer) -> Iterator[list[tuple[str, bool]]]:
    """The pieces of all documents in lists of about `_BATCH` characters."""
    batch: list[tuple[str, bool]] = []
    size = 0
    for document in documents:
        for piece, last in _pieces(document, encoder):
            batch.append((piece, last))
            size += len(piece)
            if size >= _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _pieces(document: str, encoder: Tokenizer | None = None) -> Iterator[tuple[str, bool]]:
    """The document in pieces of about `_PIECE` characters, each with whether it is the last.

    A tokenizer takes a hundred times the memory of a string and one core for it. Pieces meet in front of a word, and with an
    `encoder` only where it encodes the surroundings alike with and without the cut, so that the tokens are those of the whole.
    """
    start, cut = 0, _CUT.search(document, _PIECE)
    while cut is not None:
        here = cut.start()
        left, right = document[max(start, here - _SURROUNDINGS) : here], document[here : here + _SURROUNDINGS]
        if encoder is None or _ids(encoder, left + right) == _ids(encoder, left) + _ids(encoder, right):
            yield document[start:here], False
            start = here
        cut = _CUT.search(document, here + _PIECE)
    yield document[start:], True


def _ids(encoder: Tokenizer, text: str) -> list[int]:
    return encoder.encode(text, add_special_tokens=False).ids


def packed(tokens: np.ndarray, seq_len: int) -> np.ndarray:
    """The tokens as sequences, (n, seq_len), a view: documents follow one another, and the remainder at the end is dropped.

    ValueError if they do not fill one sequence.
    """
    if positive_integer("seq_len", seq_len) < 2:
        raise ValueError("seq_len is 1; expected at least 2, so that a token has a next one to predict")
    rows = len(tokens) // seq_len
    if rows < 1:
        raise ValueError(
            f"the text holds {counted(len(tokens), 'token')}, fewer than the {seq_len:,} of one sequence; "
            "give more text or ask for shorter sequences"
        )
    return tokens[: rows * seq_len].reshape(rows, seq_len)


def split(sequences: int, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (to train on, held out), each ascending: the share `held_out` of `sequences`, drawn by `default_rng(seed)`.

    A held-out sequence may be the middle of a document whose other sequences are trained on, so that its loss flatters the model
    a little; a held-out text of its own is the stricter choice. ValueError if either side would be empty.
    """
    positive_integer("sequences", sequences)
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; expected a share above 0 and below 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected a whole number of at least 0")
    count = round(held_out * sequences)
    if not 0 < count < sequences:
        raise ValueError(
            f"a share of {held_out:g} of {counted(sequences, 'sequence')} leaves none to {'train on' if count else 'hold out'}; "
            "choose another share, give more text or ask for shorter sequences"
        )
    order = np.random.default_rng(seed).permutation(sequences)
    return np.sort(order[count:]), np.sort(order[:count])


class Sequences(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The rows `indices` (all unless given) of packed sequences (n, seq_len) for a causal language model.

    An item is {"input_ids", "labels"}, the same int64 tensor (seq_len,) twice: the model itself predicts each token from those
    before it. Rows are read when asked for, so a memory-mapped array stays on disk.

    Args:
        rows: packed sequences.
        indices: of those that count, in their order.
        end: the end-of-text token, for an item that also has "position_ids": 0 at each such token, which so begins the document
            behind it (as the token before a prompt does). transformers' networks read from them which tokens belong together.
    """

    def __init__(self, rows: np.ndarray, indices: np.ndarray | None = None, end: int | None = None) -> None:
        self._rows = rows
        self._indices = np.arange(len(rows)) if indices is None else indices
        self._end = end

    def documents_apart(self, end: int | list[int] | None) -> Sequences:
        """The same with the positions of documents that `end` divides; ValueError if that is not one token."""
        if not isinstance(end, int):
            raise ValueError(f"the end of text is {end}; expected one token, which tells the documents of a sequence apart")
        return Sequences(self._rows, self._indices, end)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self._rows[self._indices[index]].astype(np.int64)
        tokens = torch.from_numpy(row)
        item = {"input_ids": tokens, "labels": tokens}
        if self._end is not None:
            places = np.arange(len(row))
            item["position_ids"] = torch.from_numpy(places - np.maximum.accumulate(np.where(row == self._end, places, 0)))
        return item
