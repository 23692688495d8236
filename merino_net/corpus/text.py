"""Where text comes from: documents read one at a time from files, folders, data sets of the hub or Python's documentation.

How a file is read is `merino_net.corpus.text_file`'s, how documents become tokens is `merino_net.corpus.data`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from formulation.architecture import positive_integer
from formulation.command.words import counted
from merino_net.corpus.text_file import (
    COMPRESSIONS,
    END_OF_TEXT,
    SUFFIXES,
    Reading,
    TextFile,
    TextFormat,
    add_reading_arguments,
    at_least_one,
    documents_of,
    field_named,
    suffix_of,
)

__all__ = ["END_OF_TEXT", "Reading", "Text", "TextFormat", "add_reading_arguments"]

_HUB = "hub:"
_READING = 1
"""First part of a fingerprint, and so of the keys of every result that names its text: with another, none is found again."""


@dataclass(frozen=True)
class Text:
    """Documents from `sources` in their order; without sources, Python's own documentation (`pydoc_data.topics`), a topic each.

    A source is one of these:

    - A file, read as UTF-8 in the format of its suffix: .json (an array of strings or of objects, or an object on each line),
      .jsonl and .ndjson (an object on each line), .csv and .tsv (a header, then rows), .parquet. A document is what the object or
      row has in the field that `reading` names, or else in "text", "content" or "sentence". Any other file is plain, one document.
      All but Parquet may be compressed (.gz, .xz, .bz2, .zst). Suffixes are known in any letter case.
    - A folder: its files of these formats, the plain ones being .txt, .md and .rst, and those of its folders, sorted by path. Names
      that begin with a dot are left out, and so are files without text.
    - `hub:OWNER/NAME[/CONFIG][@SPLIT]` (or `hub:NAME`): a data set of the Hugging Face hub, streamed. Each row is a document, as in
      a file. The split is "train" by default.

    In each of them <|endoftext|> ends a document, on a line to itself or within one, and a carriage return in front of a line
    end is dropped; else a document is as it was written. One of nothing but white space is left out. Files are read as they are
    needed, a document at a time: a document is held in memory, and so is a JSON array, up to `reading.memory_bytes`.

    Attributes:
        sources: names of files, folders and data sets of the hub.
        documents_at_most: stop after this many documents; a streamed data set may have no end.
        reading: what files do not say about how they are to be read.

    Raises:
        ValueError: what cannot be read, naming the file and the place in it; a field named though no source has fields.
    """

    sources: tuple[str, ...] = ()
    documents_at_most: int | None = None
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if isinstance(self.sources, str) or not all(isinstance(source, str) and source for source in self.sources):
            raise ValueError(f"sources are {self.sources!r}; expected a tuple of names of files, folders or hub data sets")
        if self.documents_at_most is not None:
            positive_integer("documents_at_most", self.documents_at_most)

    def documents(self) -> Iterator[str]:
        """The documents, none of them empty. A missing file and a folder without text files are reported before any is read."""
        return islice(chain.from_iterable([source.documents() for source in self._all()]), self.documents_at_most)

    def in_memory(self) -> tuple[str, ...]:
        """All documents at once; ValueError if their UTF-8 takes more than `reading.memory_bytes`."""
        documents, size = [], 0
        for document in self.documents():
            documents.append(document)
            size += len(document.encode())
            if size > self.reading.memory_bytes:
                raise ValueError(
                    f"the text {', '.join(self.sources)} is longer than {self.reading.memory}, and it has to be held whole; "
                    "give less of it, or more with --text-memory"
                )
        return tuple(documents)

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
        sources = [_source(name, self.reading) for name in self.sources] or [_PythonDocumentation()]
        if self.reading.field is not None and not any(source.has_fields for source in sources):
            names = ", ".join(self.sources) or "Python's documentation"
            raise ValueError(
                f"the text {names} is plain and has no field {self.reading.field}; leave --text-field out, or name the format "
                "with --text-format"
            )
        return sources


class _Source(Protocol):
    @property
    def has_fields(self) -> bool: ...
    def documents(self) -> Iterator[str]: ...
    def identity(self) -> list[Any]: ...


def _source(name: str, reading: Reading) -> _Source:
    if name.startswith(_HUB):
        return _HubDataSet.named(name, reading.field)
    path = Path(name)
    if path.is_dir():
        return _Folder(path, reading)
    if not path.exists():
        raise ValueError(f"there is no file or folder {name}; a data set of the Hugging Face hub is written {_HUB}OWNER/NAME")
    return TextFile(path, reading)


class _PythonDocumentation:
    """The topics of Python's `help()`, in the order of their names."""

    has_fields = False

    def documents(self) -> Iterator[str]:
        from pydoc_data.topics import topics

        return chain.from_iterable(documents_of(topics[name]) for name in sorted(topics))

    def identity(self) -> list[Any]:
        joined = f"\n{END_OF_TEXT}\n".join(self.documents())
        return [["python", hashlib.sha256(joined.encode()).hexdigest()]]


@dataclass(frozen=True)
class _Folder:
    path: Path
    reading: Reading

    @property
    def has_fields(self) -> bool:
        return any(file.has_fields for file in self._files())

    def documents(self) -> Iterator[str]:
        files = self._files()
        none = f"{self.path} holds {counted(len(files), 'text file')} but no text: nothing in them but white space"
        return at_least_one(chain.from_iterable(file.documents_if_any() for file in files), none)

    def identity(self) -> list[Any]:
        return list(chain.from_iterable(file.identity() for file in self._files()))

    def _files(self) -> list[TextFile]:
        paths = [path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file()]
        paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
        files = [TextFile(self.path / path, self.reading) for path in sorted(paths) if suffix_of(path) in SUFFIXES]
        if not files:
            raise ValueError(
                f"{self.path} holds no text file; expected {', '.join(SUFFIXES)}, also with {', '.join(COMPRESSIONS)} after it"
            )
        return files


@dataclass(frozen=True)
class _HubDataSet:
    """A split of a data set of the Hugging Face hub; what the user wrote is `source`."""

    source: str
    name: str
    config: str | None
    split: str
    field: str | None

    has_fields = True

    @classmethod
    def named(cls, source: str, field: str | None) -> _HubDataSet:
        name, at, split = source.removeprefix(_HUB).partition("@")
        parts = name.split("/")
        if not all(parts) or len(parts) > 3 or (at and not split):
            raise ValueError(
                f"{source} names no data set; expected {_HUB}OWNER/NAME, then /CONFIG and @SPLIT where they are needed"
            )
        return cls(source, "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or "train", field)

    def documents(self) -> Iterator[str]:
        return chain.from_iterable(map(documents_of, self._texts()))

    def _texts(self) -> Iterator[str]:
        field = None
        for number, row in enumerate(self._rows(), start=1):
            field = field or field_named(list(row), self.field, self.source)
            if not isinstance(row.get(field), str):
                raise ValueError(f'row {number} of {self.source} has {row.get(field)!r:.40} as its "{field}"; expected a string')
            yield row[field]

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

    def identity(self) -> list[Any]:
        return [["hub", self.name, self.config, self.split, *([] if self.field is None else [self.field])]]
