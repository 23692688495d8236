"""The docstrings of this repository as Markdown, for the reference of the site: an extension of griffe, which reads the code.

The docstrings are plain text with three forms that Markdown would run together:

    name   meaning, in columns; a meaning that needs more lines
           goes on behind the name                                   -> a definition list
      H = Σ_i L_i H_i      an indented formula or file               -> a block of code
    1. steps, - points     whose further lines are indented          -> a list

Everything else is prose, in which only `code` has a meaning: a name that can be found in the scope of the docstring becomes a link
where the reference shows it.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import griffe

Link = Callable[[str], str | None]
"""From a name in backquotes to the path of what it names, None where that is nothing known."""

_NAMES = re.compile(r"(?P<names>[^\s,]+(?:, [^\s,]+)*) {2,}(?P<meaning>\S.*)")
"""A row of columns: one or several names, two blanks or more, the meaning."""
_REMARK = re.compile(r"(?P<formula>\S.*?) {4,}(?P<remark>\S.*)")
_POINT = re.compile(r"(?:\d+\.|-) \S")
_CODE = re.compile(r"`([^`]+)`")
_MARKUP = re.compile(r"[\\*_\[\]#$]")
_LANGUAGES = ((re.compile(r"(?:python3?|make|merino|torchrun|pip) "), "sh"), (re.compile(r"[{\[]\s*\""), "json"))


def markdown_of(docstring: str, link: Link = lambda name: None) -> str:
    """The docstring as Markdown; `link` says what names in backquotes lead to."""
    return "\n\n".join(_blocks(docstring.expandtabs().splitlines(), link))


def _blocks(lines: list[str], link: Link) -> Iterator[str]:
    """The docstring's parts in their order, each as Markdown."""
    place = 0
    while place < len(lines):
        if not lines[place].strip():
            place += 1
            continue
        kind, length = _part(lines[place:])
        yield kind(lines[place : place + length], link)
        place += length


def _part(lines: list[str]) -> tuple[Callable[[list[str], Link], str], int]:
    """What the first of these lines begins, and how many lines it takes."""
    if lines[0].startswith(" "):
        length = len(list(itertools.takewhile(lambda line: not line.strip() or line.startswith(" "), lines)))
        while not lines[length - 1].strip():
            length -= 1
        return _indented, length
    if _NAMES.fullmatch(lines[0]):
        return _columns, _until(lines, lambda line: not line.startswith(" ") and not _is_row(line, _column(lines[0])))
    if _POINT.match(lines[0]):
        return _points, _until(lines, lambda line: not line.startswith(" ") and not _POINT.match(line))
    return _prose, _until(lines, lambda line: line.startswith(" ") or bool(_NAMES.fullmatch(line)))


def _until(lines: list[str], ends: Callable[[str], bool]) -> int:
    """The number of lines before the first that is empty or `ends` the part; the first line never does."""
    return next((number for number, line in enumerate(lines) if number and (not line.strip() or ends(line))), len(lines))


def _column(row: str) -> int:
    found = _NAMES.fullmatch(row)
    assert found
    return found.start("meaning")


def _is_row(line: str, column: int) -> bool:
    """Whether a line is a row of columns; names so long that they reach the meaning's column leave one blank before it."""
    one_blank = len(line) > column > 0 and line[column - 1] == " " and line[column] != " " and "," in line[:column]
    return bool(_NAMES.fullmatch(line)) or one_blank


def _indented(lines: list[str], link: Link) -> str:
    """A list, columns whose names are plain words, formulas with their remarks, or else a block of code."""
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    inner = [line[indent:].rstrip() for line in lines]
    first = [line for line in inner if line and not line.startswith(" ")]
    language = next((name for start, name in _LANGUAGES if start.match(inner[0])), None)
    if _POINT.match(inner[0]):
        return _points(inner, link)
    if language is None and "" not in inner:
        rows = [_NAMES.fullmatch(line) for line in first]
        if all(row and all(re.fullmatch(r"[\w-]+", name) for name in row["names"].split(", ")) for row in rows):
            return _columns(inner, link)
        remarks = [found for line in inner if (found := _REMARK.fullmatch(line))]
        if len(remarks) == len(inner):
            shown = "\n\n".join(f"`{row['formula']}`\n:   {_inline(row['remark'], link)}" for row in remarks)
            return f'<div class="formulas" markdown="1">\n\n{shown}\n\n</div>'
    start = language or ("text" if any("    " in line for line in inner) else "{ .text .formula }")
    return "\n".join([f"```{start}", *inner, "```"])


def _columns(lines: list[str], link: Link) -> str:
    """A definition list: names, each as code, and their meaning."""
    column = _column(lines[0])
    rows: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith(" "):
            rows[-1][1].append(line.strip())
        else:
            found = _NAMES.fullmatch(line)
            names, meaning = (found["names"], found["meaning"]) if found else (line[: column - 1], line[column:])
            rows.append((names, [meaning]))
    return "\n\n".join(
        f"{', '.join(f'`{name}`' for name in names.split(', '))}\n:   {_inline(' '.join(meaning), link)}" for names, meaning in rows
    )


def _points(lines: list[str], link: Link) -> str:
    """A list, each point on one line."""
    points: list[list[str]] = []
    for line in lines:
        if _POINT.match(line):
            points.append([])
        points[-1].append(line.strip())
    return "\n".join(f"{start} {_inline(rest, link)}" for start, _, rest in (" ".join(point).partition(" ") for point in points))


def _prose(lines: list[str], link: Link) -> str:
    return _inline(" ".join(line.strip() for line in lines), link)


def _inline(text: str, link: Link) -> str:
    """Prose with all that Markdown would take for markup escaped, and code that names something linked to it."""
    text = re.sub(r"\s+", " ", text)
    parts = []
    for number, part in enumerate(_CODE.split(text)):
        if number % 2 == 0:
            parts.append(_MARKUP.sub(r"\\\g<0>", part.replace("&", "&amp;").replace("<", "&lt;")))
        elif path := link(part):
            parts.append(f'<autoref identifier="{html.escape(path)}" optional><code>{html.escape(part)}</code></autoref>')
        else:
            parts.append(f"`{part}`")
    return "".join(parts)


class DocstringColumns(griffe.Extension):
    """Turns the docstrings of a package into Markdown once all of it has been read, and private bases into their public ones."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """See `griffe.Extension.on_package`."""
        for thing in _things(pkg):
            if thing.docstring is not None and not thing.extra["docstring_columns"].get("done"):
                thing.docstring.value = markdown_of(thing.docstring.value, partial(_path, thing))
                thing.extra["docstring_columns"]["done"] = True
            if isinstance(thing, griffe.Class):
                thing.bases = list(_public_bases(thing))


def _things(thing: griffe.Object) -> Iterator[griffe.Object]:
    """`thing` and all that is defined in it."""
    yield thing
    for member in thing.members.values():
        if isinstance(member, griffe.Object):
            yield from _things(member)


def _public_bases(of: griffe.Class) -> Iterator[str | griffe.Expr]:
    """The bases of a class, in place of a private one those that it has itself."""
    for base in of.bases:
        name = str(base)
        hidden = of.module.members.get(name) if name.startswith("_") else None
        if isinstance(hidden, griffe.Class):
            yield from _public_bases(hidden)
        else:
            yield base


def _path(thing: griffe.Object, name: str) -> str | None:
    """The path of what `name` names in the docstring of `thing`; None for anything but a name that is known there."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name):
        return None
    first, dot, rest = name.partition(".")
    try:
        return thing.resolve(first) + dot + rest
    except griffe.NameResolutionError:
        return name if dot else None
