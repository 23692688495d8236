"""Where text comes from: documents read one at a time from files, folders, data sets of the hub or Python's documentation.

How documents become tokens is `merino_net.data`.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from formulation.architecture import positive_integer
from formulation.report import counted

END_OF_TEXT = "<|endoftext|>"
"""What stands between documents: a line of its own in a plain file, one special token among the tokens."""

_OPENERS: dict[str, Callable[[Path, str], Any]] = {"": open, ".xz": lzma.open, ".gz": gzip.open}
_TEXT_SUFFIXES = (".txt", ".md", ".rst", ".jsonl")
_HUB = "hub:"
_HUB_FIELDS = ("text", "content", "sentence")
_READING = 1
"""Raised whenever the same bytes are read as other documents, so that no token cache of an earlier release is taken."""


@dataclass(frozen=True)
class Text:
    """Documents from `sources` in their order; without sources, Python's own documentation (`pydoc_data.topics`), a topic each.

    A source is
      - a file, read as UTF-8. In a .jsonl file each line is a JSON object whose "text" is a document. Any other file is plain:
        a line that holds only <|endoftext|> separates documents, a file without such a line is one document, and line ends
        stay as they are. Either may be compressed (.xz, .gz).
      - a folder: its .txt, .md, .rst and .jsonl files (also .xz, .gz), those of its folders as well, sorted by path; names that
        begin with a dot are left out, and so are files without text.
      - "hub:OWNER/NAME[/CONFIG][@SPLIT]" (or hub:NAME): a data set of the Hugging Face hub, streamed; each row is a document, its
        field "text", "content" or "sentence", the first that there is. The split is "train" unless given.

    documents_at_most: stop after this many documents; a streamed data set may have no end.

    A document of nothing but white space is left out. Files are read as they are needed, a document at a time, so a plain file
    without a separator is held in memory. ValueError for what cannot be read, naming the file and the place in it.
    """

    sources: tuple[str, ...] = ()
    documents_at_most: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sources, str) or not all(isinstance(source, str) and source for source in self.sources):
            raise ValueError(f"sources are {self.sources!r}; expected a tuple of names of files, folders or hub data sets")
        if self.documents_at_most is not None:
            positive_integer("documents_at_most", self.documents_at_most)

    def documents(self) -> Iterator[str]:
        """The documents, none of them empty. A missing file and a folder without text files are reported before any is read."""
        return islice(chain.from_iterable([source.documents() for source in self._all()]), self.documents_at_most)

    def fingerprint(self) -> str:
        """A sha256 that differs where the documents may: of the files' bytes as they lie on disk, in order, whatever their names.

        Of a data set of the hub only the name counts: a change made there goes unnoticed. The files are read once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        identity = [_READING, self.documents_at_most, *chain.from_iterable(source.identity() for source in self._all())]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def _all(self) -> list[_Source]:
        return [_source(name) for name in self.sources] or [_PythonDocumentation()]


class _Source(Protocol):
    def documents(self) -> Iterator[str]: ...
    def identity(self) -> list[Any]: ...


def _not_blank(documents: Iterable[str]) -> Iterator[str]:
    return (document for document in documents if document and not document.isspace())


def _at_least_one(documents: Iterable[str], none: str) -> Iterator[str]:
    """The documents as they are; ValueError, saying `none`, at their end where there was none."""
    empty = True
    for document in documents:
        empty = False
        yield document
    if empty:
        raise ValueError(none)


def _source(name: str) -> _Source:
    if name.startswith(_HUB):
        return _HubDataSet.named(name)
    path = Path(name)
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise ValueError(f"there is no file or folder {name}; a data set of the Hugging Face hub is written {_HUB}OWNER/NAME")
    return _File(path)


class _PythonDocumentation:
    """The topics of Python's `help()`, in the order of their names."""

    def documents(self) -> Iterator[str]:
        from pydoc_data.topics import topics

        return _not_blank(topics[name] for name in sorted(topics))

    def identity(self) -> list[Any]:
        joined = f"\n{END_OF_TEXT}\n".join(self.documents())
        return [["python", hashlib.sha256(joined.encode()).hexdigest()]]


@dataclass(frozen=True)
class _File:
    path: Path

    def documents(self) -> Iterator[str]:
        none = f"{self.path} holds no text: it is empty or only white space; give a file with text in it"
        return _at_least_one(self.documents_if_any(), none)

    def documents_if_any(self) -> Iterator[str]:
        return _not_blank(self._json_lines() if _is_json_lines(self.path) else self._plain())

    def identity(self) -> list[Any]:
        with self.path.open("rb") as file:
            return [[_is_json_lines(self.path), _compression(self.path), hashlib.file_digest(file, "sha256").hexdigest()]]

    def _plain(self) -> Iterator[str]:
        separator = END_OF_TEXT.encode()
        document, start = bytearray(), 0
        for offset, line in self._lines():
            if not document:
                start = offset
            if separator in line and line.strip() == separator:
                yield self._taken(document, start)
            else:
                document += line
        yield self._taken(document, start)

    def _taken(self, document: bytearray, start: int) -> str:
        """The document as text. Its bytes are let go at once: they may be most of the memory."""
        text = self._decoded(document, start)
        document.clear()
        return text

    def _json_lines(self) -> Iterator[str]:
        for number, (offset, line) in enumerate(self._lines(), start=1):
            if line.isspace():
                continue
            decoded = self._decoded(line, offset)
            try:
                record = json.loads(decoded)
            except (ValueError, RecursionError):  # also a number of too many digits, or nested too deeply
                raise ValueError(f'line {number} of {self.path} is no JSON; expected {{"text": "..."}}') from None
            text = record.get("text") if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise ValueError(f'line {number} of {self.path} has no "text"; expected {{"text": "..."}} with a string')
            try:
                text.encode()
            except UnicodeEncodeError as error:  # JSON can spell half of a character, which UTF-8 cannot
                half = ascii(text[error.start])
                raise ValueError(f"line {number} of {self.path} holds {half}, half a surrogate pair; mend the line") from None
            yield text

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its offset in the uncompressed bytes; a byte order mark at the start is left out."""
        offset = 0
        try:
            # lzma and gzip find lines in Python; a reader around them does it in C.
            with _OPENERS[_compression(self.path)](self.path, "rb") as raw, io.BufferedReader(raw, 1 << 20) as file:
                if file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
                    offset = len(file.read(len(codecs.BOM_UTF8)))
                for line in file:
                    yield offset, line
                    offset += len(line)
        except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            what = str(error).rstrip(".").lower()
            raise ValueError(f"{self.path} is damaged or no {_compression(self.path)} file ({what}); fetch it again") from None

    def _decoded(self, text: bytes | bytearray, start: int) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            where = f"offset {start + error.start} of {self.path}{' (uncompressed)' if _compression(self.path) else ''}"
            raise ValueError(f"byte 0x{text[error.start]:02x} at {where} is not UTF-8; convert the file to UTF-8") from None


def _compression(path: Path) -> str:
    """.xz, .gz or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in _OPENERS else ""


def _text_suffix(path: Path) -> str:
    """The suffix in front of that of the compression."""
    return Path(path.stem if _compression(path) else path.name).suffix.lower()


def _is_json_lines(path: Path) -> bool:
    return _text_suffix(path) == ".jsonl"


@dataclass(frozen=True)
class _Folder:
    path: Path

    def documents(self) -> Iterator[str]:
        files = self._files()
        none = f"{self.path} holds {counted(len(files), 'text file')} but no text: nothing in them but white space"
        return _at_least_one(chain.from_iterable(file.documents_if_any() for file in files), none)

    def identity(self) -> list[Any]:
        return list(chain.from_iterable(file.identity() for file in self._files()))

    def _files(self) -> list[_File]:
        paths = [path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file()]
        paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
        files = [_File(self.path / path) for path in sorted(paths) if _text_suffix(path) in _TEXT_SUFFIXES]
        if not files:
            raise ValueError(f"{self.path} holds no text file; expected {', '.join(_TEXT_SUFFIXES)}, also with .xz or .gz after it")
        return files


@dataclass(frozen=True)
class _HubDataSet:
    """A split of a data set of the Hugging Face hub; what the user wrote is `source`."""

    source: str
    name: str
    config: str | None
    split: str

    @classmethod
    def named(cls, source: str) -> _HubDataSet:
        name, at, split = source.removeprefix(_HUB).partition("@")
        parts = name.split("/")
        if not all(parts) or len(parts) > 3 or (at and not split):
            raise ValueError(
                f"{source} names no data set; expected {_HUB}OWNER/NAME, then /CONFIG and @SPLIT where they are needed"
            )
        return cls(source, "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or "train")

    def documents(self) -> Iterator[str]:
        return _not_blank(self._document(number, row) for number, row in enumerate(self._rows(), start=1))

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            import datasets
        except ImportError:
            raise ImportError(f"{self.source} needs the package datasets; install it with: pip install datasets") from None
        try:
            yield from datasets.load_dataset(self.name, self.config, split=self.split, streaming=True)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            # Not reachable; no such name, configuration or split; made by a script, which `datasets` no longer runs.
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{self.source} cannot be read ({reason}); check the name and the connection, or give files") from None

    def _document(self, number: int, row: dict[str, Any]) -> str:
        field = next((name for name in _HUB_FIELDS if name in row), None)
        if field is None:
            raise ValueError(f"{self.source} has the fields {', '.join(row)}; expected one of {', '.join(_HUB_FIELDS)}")
        if not isinstance(row[field], str):
            raise ValueError(f'row {number} of {self.source} has {row[field]!r:.40} as its "{field}"; expected a string')
        return row[field]

    def identity(self) -> list[Any]:
        return [["hub", self.name, self.config, self.split]]
