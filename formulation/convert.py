"""Rewrite files of version 1 of the formats as version 2.

    python -m formulation.convert design.json my-board.json
    python -m formulation.convert results/design runs/tiny

Takes problem, design, device and architecture files, and any other JSON file, JSON lines (.jsonl, also .jsonl.xz) or folder of such
that holds an architecture or a problem: files beside a network, rows of a study. Each file is replaced atomically; one that holds
nothing of version 1 stays as it is, so that the command may run twice. A space file has no version, and needs no conversion.

What changes: a block is an object of named choices everywhere, {"width": 512, "ffn_width": 512, "depth": 2}, in the rows of devices
too, where it was a text. Numbers stay.

Exit code: 0 every file is of version 2 or holds none of the formats; 2 one could not be converted, and is as it was.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from formulation.command.exit_code import ExitCode
from formulation.command.help import command_parser
from formulation.command.run import command, run_command
from formulation.command.words import counted
from formulation.records.files import json_text, locked, replace_file
from formulation.records.reading import VERSION, parse_json, shown

_ENDINGS = (".json", ".jsonl", ".jsonl.xz")
_BLOCK = re.compile(r"([0-9]{1,9})/([0-9]{1,9})x([0-9]{1,9})")


def convert(record: Any) -> tuple[Any, int]:
    """A JSON value with every record of version 1 of the formats as version 2, and how many there were.

    Raises:
        ValueError: for a record whose blocks cannot be read, or whose version is neither 1 nor 2.
    """
    if isinstance(record, list):
        pairs = [convert(item) for item in record]
        return [item for item, _ in pairs], sum(number for _, number in pairs)
    if not isinstance(record, dict):
        return record, 0
    inner = {key: convert(item) for key, item in record.items()}
    record, found = {key: item for key, (item, _) in inner.items()}, sum(number for _, number in inner.values())
    change = _CHANGES.get(record.get("format")) if isinstance(record.get("format"), str) else None
    if change is None or record.get("version") == VERSION:
        return record, found
    if type(record.get("version")) is not int or record["version"] != 1:
        raise ValueError(f"a {record['format']} in it is of version {shown(record.get('version'))}; expected 1 or {VERSION}")
    return change({**record, "version": VERSION}), found + 1


def _as_it_is(record: dict[str, Any]) -> dict[str, Any]:
    return record


def _device(record: dict[str, Any]) -> dict[str, Any]:
    """The blocks of the rows, which version 1 writes as 512/512x2 640/960x1, as objects."""
    try:
        tables = [
            {**table, "rows": [{**row, "blocks": _blocks(row["blocks"])} for row in table["rows"]]} if "rows" in table else table
            for table in record["tables"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the device in it is damaged ({error!r}); expected tables of rows with blocks") from None
    return {**record, "tables": tables}


def _blocks(text: Any) -> list[dict[str, int]]:
    matches = [_BLOCK.fullmatch(part) for part in text.split()] if isinstance(text, str) else []
    if not matches or None in matches:
        raise ValueError(f"the blocks of a row in it are {shown(text)}; expected a text such as '512/512x2 640/960x1'")
    return [dict(zip(("width", "ffn_width", "depth"), map(int, match.groups()), strict=True)) for match in matches if match]


_CHANGES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "merino-architecture": _as_it_is,
    "merino problem": _as_it_is,
    "merino design": _as_it_is,
    "merino device": _device,
}
"""What there is to change in a record of a format, beside its version and the records in it."""


def converted_text(text: str, lines: bool) -> tuple[str, int]:
    """The text of a file with its records converted, laid out as before, and how many records there were.

    Args:
        text: of a file.
        lines: whether each line of it is a JSON value, as in .jsonl; a line that is not one, such as one cut short, stays.

    Raises:
        ValueError: as of `convert`, and for a text that is not valid JSON, with the rest of a sentence about the file.
    """
    if not lines:
        before = parse_json(text)
        record, found = convert(before)
        return (_layout(text, before)(record) if found else text), found
    out, total = [], 0
    for line in text.splitlines(keepends=True):
        try:
            record, found = convert(json.loads(line))
        except json.JSONDecodeError:
            found = 0
        out.append(json.dumps(record, ensure_ascii=text.isascii()) + "\n" * line.endswith("\n") if found else line)
        total += found
    return "".join(out), total


def _layout(text: str, record: Any) -> Callable[[Any], str]:
    """How to write a record so that it looks as the text does: the first way that gives that text, else the nearest."""
    second = text.split("\n", 2)[1] if "\n" in text.rstrip() else None
    indent = None if second is None else len(second) - len(second.lstrip())
    end = "\n" * text.endswith("\n")

    def plain(value: Any) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=text.isascii()) + end

    def by_rows(value: Any) -> str:
        return json_text(value, indent or 1)

    return by_rows if plain(record) != text and by_rows(record) == text else plain


def convert_file(path: Path) -> int:
    """Convert a file in place; how many records of version 1 it held.

    Raises:
        ValueError: in one sentence, if it cannot be converted; it is as it was then.
    """
    try:
        content = path.read_bytes()
        text = (lzma.decompress(content) if path.suffix == ".xz" else content).decode()
        new, found = converted_text(text, lines=path.suffix != ".json")
        if not found:
            return 0
        with locked(path.parent), replace_file(path) as file:
            file.write(lzma.compress(new.encode(), preset=9 | lzma.PRESET_EXTREME) if path.suffix == ".xz" else new.encode())
        return found
    except OSError as error:
        raise ValueError(f"cannot convert {path}: {str(error.strerror).lower()}") from None
    except (UnicodeDecodeError, lzma.LZMAError):
        raise ValueError(f"cannot convert {path}: it is not text in UTF-8") from None
    except ValueError as error:
        raise ValueError(f"cannot convert {path}: {error}") from None


def files_of(paths: Sequence[str]) -> Iterator[Path]:
    """The files that a command line names, those in folders included; ValueError for one of which nothing is known."""
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())
            if not files:
                raise ValueError(f"the folder {path} holds no file whose name ends in {', '.join(_ENDINGS)}; name another")
            yield from files
        elif path.name.endswith(_ENDINGS):
            yield path
        else:
            raise ValueError(f"{path} is neither a folder nor a file whose name ends in {', '.join(_ENDINGS)}; name one of these")


def command_line() -> argparse.ArgumentParser:
    """The command line; see --help."""
    parser = command_parser(__spec__, __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a JSON file, JSON lines, or a folder of such")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    code = ExitCode.DONE
    for path in list(files_of(command_line().parse_args(arguments).files)):
        try:
            found = convert_file(path)
        except ValueError as error:
            code = ExitCode.MISTAKE
            print(f"error: {error}", file=sys.stderr)
            continue
        print(f"{path}: {counted(found, 'record')} of version 1 rewritten" if found else f"{path}: nothing of version 1")
    return code


if __name__ == "__main__":
    run_command(main)
