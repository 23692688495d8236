"""One file of text: its form (plain, JSON, JSON lines, CSV, TSV, Parquet), its compression, and the documents in it.

Which files are read, and texts that are no files, are `merino_net.corpus.text`'s.
"""

from __future__ import annotations

import argparse
import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from formulation.architecture import positive_integer
from formulation.command.words import counted

END_OF_TEXT = "<|endoftext|>"
"""What stands between documents: in a text wherever it is spelled, and one special token among the tokens."""

FIELDS = ("text", "content", "sentence")
"""Names that a field with the text is found by; where there is another, or more than one of them, --text-field says which."""

_MIB = 1 << 20

_BLANK = " \t\r\f\v"
_REST_OF_LINE = re.compile(rf"[{_BLANK}]*(?:\n|\Z)")
"""What goes with an END_OF_TEXT in front of it."""

_ROWS = 16
"""Rows of a Parquet file unpacked at a time: all of them are held."""


class TextFormat(StrEnum):
    """How documents lie in a file."""

    PLAIN = "plain"
    JSON = "json"
    JSON_LINES = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


SUFFIXES = {
    ".txt": TextFormat.PLAIN,
    ".md": TextFormat.PLAIN,
    ".rst": TextFormat.PLAIN,
    ".json": TextFormat.JSON,
    ".jsonl": TextFormat.JSON_LINES,
    ".ndjson": TextFormat.JSON_LINES,
    ".csv": TextFormat.CSV,
    ".tsv": TextFormat.TSV,
    ".parquet": TextFormat.PARQUET,
}
"""Suffix, in any letter case and in front of that of the compression -> format. A file with another suffix is plain."""


def _zstandard(path: Path, _: str) -> Any:
    pyarrow = _pyarrow(path)
    return pyarrow.CompressedInputStream(pyarrow.OSFile(os.fspath(path)), "zstd")


_OPENERS: dict[str, Callable[[Path, str], Any]] = {
    "": open,
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _zstandard,
}
COMPRESSIONS = tuple(suffix for suffix in _OPENERS if suffix)


@dataclass(frozen=True)
class Reading:
    """What a text's own files do not say about how to read them.

    Attributes:
        field: name of the field, or column, that holds the text; None: the one of `FIELDS` that there is.
        format: of every file; None: as its suffix says.
        memory_bytes: the most bytes of unpacked text held at a time. What can be is read a document at a time and may be of any
            length; this bounds one document, one line, and all of a file where the file is one document or a JSON array. Python
            takes about twice as much while it makes text of the bytes.

    Raises:
        ValueError: an empty field, a format that isn't one, or a memory below one byte.
    """

    field: str | None = None
    format: TextFormat | None = None
    memory_bytes: int = 1024 * _MIB

    def __post_init__(self) -> None:
        if self.field == "":
            raise ValueError("the text field has no name; expected the name of a field, such as text")
        if self.format is not None and not isinstance(self.format, TextFormat):
            raise ValueError(f"the text format is {self.format!r}; expected one of {', '.join(TextFormat)}, as a TextFormat")
        if self.memory_bytes < 1:
            raise ValueError(f"memory_bytes is {self.memory_bytes}; expected at least 1")

    @classmethod
    def of(cls, text_field: str | None, text_format: str | None, text_memory: int) -> Reading:
        """What the flags of `add_reading_arguments` say, the memory in MiB."""
        memory = positive_integer("--text-memory", text_memory)
        return cls(text_field, None if text_format is None else TextFormat(text_format), memory * _MIB)

    @property
    def memory(self) -> str:
        """`memory_bytes` in words."""
        return f"{self.memory_bytes // _MIB:,} MiB" if self.memory_bytes >= _MIB else counted(self.memory_bytes, "byte")

    def arguments(self) -> list[str]:
        """The flags that say this to another command; MiB are rounded up."""
        field = [] if self.field is None else ["--text-field", self.field]
        form = [] if self.format is None else ["--text-format", self.format.value]
        return [*field, *form, "--text-memory", str(-(-self.memory_bytes // _MIB))]


def add_reading_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags of every command that reads a text, see `Reading`."""
    parser.add_argument(
        "--text-field",
        metavar="NAME",
        help=f"field or column that holds the text (default: {', '.join(FIELDS[:-1])} or {FIELDS[-1]}, if there is one of them)",
    )
    parser.add_argument(
        "--text-format", choices=tuple(form.value for form in TextFormat), help="of all text files (default: as the suffix says)"
    )
    parser.add_argument(
        "--text-memory",
        type=int,
        default=Reading.memory_bytes // _MIB,
        metavar="MIB",
        help="most text held at a time, unpacked: the longest document, or a file that is read whole (default: %(default)s)",
    )


def field_named(names: Sequence[str], wanted: str | None, where: str) -> str:
    """The field that holds the text: the one wanted, or the one of `FIELDS` that there is.

    Raises:
        ValueError: it is not there, or without one wanted there is none of `FIELDS`, or more than one; `where` is the text's name.
    """
    have = f"{where} has the field{'s' * (len(names) != 1)} {', '.join(names) or '(none)'}"
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"{have} and no {wanted}; give one of them to --text-field")
        return wanted
    found = [name for name in FIELDS if name in names]
    if len(found) > 1:
        raise ValueError(f"{have}, and {' and '.join(found)} may each hold the text; say which with --text-field")
    if not found:
        raise ValueError(f"{have}; expected one of {', '.join(FIELDS)}, or say which holds the text with --text-field")
    return found[0]


def documents_of(text: str) -> Iterator[str]:
    """The documents of a text, which END_OF_TEXT divides wherever it stands, without \\r before \\n; none of them is white space.

    A line that holds only END_OF_TEXT is not a part of a document, nor is what ends the line behind one.
    """
    text = text.replace("\r\n", "\n")
    parts = text.split(END_OF_TEXT)
    for number, behind in enumerate(parts[1:]):
        if rest := _REST_OF_LINE.match(behind):
            parts[number + 1] = behind[rest.end() :]
            indented = parts[number].rstrip(_BLANK)
            if indented.endswith("\n"):
                parts[number] = indented
    return (part for part in parts if part and not part.isspace())


def at_least_one(documents: Iterable[str], none: str) -> Iterator[str]:
    """The documents as they are; ValueError, saying `none`, at their end if there weren't any."""
    empty = True
    for document in documents:
        empty = False
        yield document
    if empty:
        raise ValueError(none)


def suffix_of(path: Path) -> str:
    """The suffix that tells the format: in lower case, and in front of that of the compression."""
    return Path(path.stem if _compression(path) else path.name).suffix.lower()


def _compression(path: Path) -> str:
    """One of `COMPRESSIONS`, or nothing."""
    suffix = path.suffix.lower()
    return suffix if suffix in _OPENERS else ""


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
    except ImportError:
        raise ImportError(f"{path} needs the package pyarrow; install it with: pip install pyarrow") from None
    return pyarrow


@dataclass(frozen=True)
class TextFile:
    """A file of UTF-8 text, read a document at a time wherever its format allows.

    A byte order mark at the start is left out. Every error of reading is a ValueError that names the file and the place in it.
    """

    path: Path
    reading: Reading = Reading()

    @property
    def format(self) -> TextFormat:
        """As the reading says, or else the suffix."""
        return self.reading.format or SUFFIXES.get(suffix_of(self.path), TextFormat.PLAIN)

    @property
    def has_fields(self) -> bool:
        """Whether the text lies in a field, so that --text-field says something about it."""
        return self.format is not TextFormat.PLAIN

    def documents(self) -> Iterator[str]:
        """The documents; ValueError at the end if there weren't any."""
        none = f"{self.path} holds no text: it is empty or only white space; give a file with text in it"
        return at_least_one(self.documents_if_any(), none)

    def documents_if_any(self) -> Iterator[str]:
        """The documents."""
        return chain.from_iterable(map(documents_of, self._texts()))

    def identity(self) -> list[Any]:
        """What the documents depend on: the bytes on disk, and how they are read."""
        # True and False are JSON lines and plain: so they are written in fingerprints of results that exist.
        known = {TextFormat.PLAIN: False, TextFormat.JSON_LINES: True}
        field = [self.reading.field] if self.has_fields and self.reading.field is not None else []
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return [[known.get(self.format, self.format.value), _compression(self.path), sha256, *field]]

    def _texts(self) -> Iterator[str]:
        match self.format:
            case TextFormat.PLAIN:
                return self._plain()
            case TextFormat.JSON:
                return self._json()
            case TextFormat.JSON_LINES:
                return self._json_lines(self._lines(), 1)
            case TextFormat.CSV:
                return self._table(",")
            case TextFormat.TSV:
                return self._table("\t")
            case TextFormat.PARQUET:
                return self._parquet()

    def _plain(self) -> Iterator[str]:
        """The text, cut behind each line in which END_OF_TEXT stands, or within it if the line goes on."""
        separator, most = END_OF_TEXT.encode(), self.reading.memory_bytes
        document, start = bytearray(), 0
        for offset, line in self._lines():
            if not document:
                start = offset
            if len(document) + len(line) > most:
                self._check_size(len(document) + len(line))
            if separator not in line:
                document += line
                continue
            cut = line.rindex(separator) + len(separator)
            if not line[cut:].strip():
                cut = len(line)
            document += line[:cut]
            yield self._taken(document, start)
            document += line[cut:]
            start = offset + cut
        yield self._taken(document, start)

    def _taken(self, document: bytearray, start: int) -> str:
        """The document as text. Its bytes are let go at once: they may be most of the memory."""
        text = self._decoded(document, start)
        document.clear()
        return text

    def _json(self) -> Iterator[str]:
        """An array of strings or objects, an object, or an object on each line."""
        lines = self._lines()
        for number, (offset, line) in enumerate(lines, start=1):
            if not line.isspace():
                read = self._json_lines if line.lstrip().startswith(b"{") and _is_json(line) else self._json_whole
                yield from read(chain([(offset, line)], lines), number)

    def _json_whole(self, lines: Iterable[tuple[int, bytes]], first: int) -> Iterator[str]:
        """The array or object that begins on line `first`."""
        content, start = bytearray(), 0
        for offset, line in lines:
            start = start if content else offset
            self._check_size(len(content) + len(line))
            content += line
        text = self._taken(content, start)
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {first - 1 + error.lineno:,} of {self.path}, column {error.colno:,},"
            raise ValueError(f"{where} is not valid JSON ({error.msg}); mend it, or name the format with --text-format") from None
        except (ValueError, RecursionError):
            raise ValueError(f"{self.path} cannot be read as JSON: it is nested too deeply, or a number is too long") from None
        if isinstance(value, dict):
            yield self._field_of(value, str(self.path), field_named(list(value), self.reading.field, str(self.path)))
            return
        if not isinstance(value, list):
            raise ValueError(f"{self.path} holds {_kind(value)}; expected an array of strings or objects, or an object a line")
        field = None
        for number, item in enumerate(value, start=1):
            where = f"item {number:,} of {self.path}"
            if isinstance(item, str) and self.reading.field is None:
                yield self._whole_characters(item, where)
                continue
            if not isinstance(item, dict):
                expected = "a string or an object" if self.reading.field is None else f'an object with a "{self.reading.field}"'
                raise ValueError(f"{where} is {_kind(item)}; expected {expected}")
            field = field or field_named(list(item), self.reading.field, where)
            yield self._field_of(item, where, field)

    def _json_lines(self, lines: Iterable[tuple[int, bytes]], first: int) -> Iterator[str]:
        """The objects of lines that are numbered from `first`."""
        field = None
        for number, (offset, line) in enumerate(lines, start=first):
            if line.isspace():
                continue
            where = f"line {number:,} of {self.path}"
            decoded = self._decoded(line, offset)
            try:
                record = json.loads(decoded)
            except (ValueError, RecursionError):  # also a number of too many digits, or nested too deeply
                raise ValueError(f"{where} is not valid JSON; expected an object on each line") from None
            if not isinstance(record, dict):
                raise ValueError(f"{where} is {_kind(record)}; expected an object on each line")
            field = field or field_named(list(record), self.reading.field, where)
            yield self._field_of(record, where, field)

    def _field_of(self, record: dict[str, Any], where: str, field: str) -> str:
        if field not in record:
            raise ValueError(f'{where} has no "{field}", which held the text so far; expected it in every object')
        if not isinstance(record[field], str):
            raise ValueError(f'{where} has {_kind(record[field])} as its "{field}"; expected a string')
        return self._whole_characters(record[field], where)

    @staticmethod
    def _whole_characters(text: str, where: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON can spell half of a character, which UTF-8 cannot
            half = ascii(text[error.start])
            raise ValueError(f"{where} holds {half}, half a surrogate pair; mend it") from None
        return text

    def _table(self, delimiter: str) -> Iterator[str]:
        kind = "CSV" if delimiter == "," else "TSV"
        csv.field_size_limit(max(csv.field_size_limit(), self.reading.memory_bytes))  # of the process, so that it is never lowered
        row_bytes = 0

        def lines() -> Iterator[str]:
            nonlocal row_bytes
            for offset, line in self._lines():
                row_bytes += len(line)
                self._check_size(4 * row_bytes)  # while a row is read, a character takes four bytes
                yield self._decoded(line, offset)

        rows = csv.reader(lines(), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        try:
            for cells in rows:
                row_bytes = 0
                if not cells:
                    continue
                where = f"line {rows.line_num:,} of {self.path}"
                if header is None:
                    header = [name.strip() for name in cells]
                    field = field_named(header, self.reading.field, str(self.path))
                    if header.count(field) > 1:
                        raise ValueError(f"{self.path} has the column {field} twice; expected it once")
                    column = header.index(field)
                    continue
                if len(cells) != len(header):
                    expected = f"expected {len(header)}, one for each column of the first line"
                    raise ValueError(f"{where} has {counted(len(cells), 'value')}; {expected}")
                yield cells[column]
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num:,} of {self.path} is not valid {kind} ({error})") from None

    def _parquet(self) -> Iterator[str]:
        if _compression(self.path):
            raise ValueError(f"{self.path} is compressed as a whole, but Parquet is read from its end; unpack it first")
        if self.path.stat().st_size == 0:
            return
        pyarrow = _pyarrow(self.path)
        import pyarrow.parquet as parquet

        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                schema = file.schema_arrow
                field = field_named(schema.names, self.reading.field, str(self.path))
                kind = schema.field(field).type
                kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
                if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                    raise ValueError(f"the column {field} of {self.path} holds {kind}; expected strings, or another --text-field")
                for batch in file.iter_batches(_ROWS, columns=[field]):
                    for value in batch.column(0):
                        number += 1
                        text = value.as_py()
                        if text is None:
                            raise ValueError(f'row {number:,} of {self.path} has no value as its "{field}"; expected a string')
                        self._check_size(len(text))
                        yield text
        except UnicodeDecodeError as error:
            where = f"offset {error.start} of the text in row {number:,} of {self.path}"
            raise ValueError(f"byte 0x{error.object[error.start]:02x} at {where} is not UTF-8; write the file again") from None
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{self.path} is damaged or not a Parquet file ({_reason(error)}); fetch it again") from None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its offset in the unpacked bytes; a byte order mark at the start is left out."""
        offset, most = 0, self.reading.memory_bytes + 1
        try:
            # What unpacks finds lines in Python; a reader around it does it in C.
            with _OPENERS[_compression(self.path)](self.path, "rb") as raw, io.BufferedReader(raw, 1 << 20) as file:
                if file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
                    offset = len(file.read(len(codecs.BOM_UTF8)))
                for line in iter(partial(file.readline, most), b""):
                    if len(line) == most:
                        self._check_size(most)
                    yield offset, line
                    offset += len(line)
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            compression = _compression(self.path)
            raise ValueError(f"{self.path} is damaged or not a {compression} file ({_reason(error)}); fetch it again") from None

    def _check_size(self, size: int) -> None:
        """ValueError if a piece that has to be held is longer than the memory for it."""
        if size > self.reading.memory_bytes:
            advice = f"divide it by lines of {END_OF_TEXT}, or " if self.format is TextFormat.PLAIN else ""
            raise ValueError(
                f"{self.path} has more than {self.reading.memory}{self._unpacked} in one piece, the most text held at a time; "
                f"{advice}allow more with --text-memory"
            )

    @property
    def _unpacked(self) -> str:
        return " (uncompressed)" if _compression(self.path) else ""

    def _decoded(self, text: bytes | bytearray, start: int) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            where = f"offset {start + error.start} of {self.path}{self._unpacked}"
            raise ValueError(f"byte 0x{text[error.start]:02x} at {where} is not UTF-8; convert the file to UTF-8") from None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _kind(value: Any) -> str:
    """What a JSON value that is not the one expected is called."""
    names = {str: "a string", dict: "an object", list: "an array", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".").lower()
