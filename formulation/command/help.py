"""The help of a command: its module's docstring, with the command named as it was typed."""

from __future__ import annotations

import argparse
import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from types import MappingProxyType

_names: ContextVar[Mapping[str, str]] = ContextVar("_names", default=MappingProxyType({}))
"""Module -> what a reader types to start it, where that is not `python -m MODULE`; see `called`."""


@contextmanager
def called(names: Mapping[str, str]) -> Iterator[None]:
    """Within it, the help of `command_parser` calls modules by these names: {"studies.design": "merino design"}.

    What starts the commands under its own names, such as `studies.front_door`, wraps their `main` in it.
    """
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def command_parser(spec: ModuleSpec | None, document: str | None, notes: str = "") -> argparse.ArgumentParser:
    """The parser of the command that a module is, whose help is the module's docstring; the module adds its flags.

    The docstring's first paragraph stands above the flags; below them stand the examples, which are an indented block behind the
    first paragraph, the other paragraphs, and `notes`. Lines are filled to the terminal, those that are indented stay as they are.
    In usage and examples the command is named as it was typed: `python -m studies.design`, or as `called` says.

    Args:
        spec: the module's `__spec__`, which knows its name under `python -m` too; None if it was started as a script.
        document: its `__doc__`.
        notes: what the docstring cannot say, such as a list made of a table in the code.
    """
    description, _, details = inspect.cleandoc(document or "").partition("\n\n")
    if details.startswith(" "):
        details = f"examples:\n{details}"
    return argparse.ArgumentParser(
        prog=None if spec is None else _as_called(f"python -m {typed_name(spec.name)}"),
        description=_filled(_as_called(description)),
        epilog=_filled(_as_called(f"{details}\n\n{notes}".strip())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def typed_name(module: str) -> str:
    """What stands behind `python -m` to start a module's command: a study is started by the name of its folder."""
    return module.removesuffix(".__main__").removesuffix(".study")


def _as_called(text: str) -> str:
    """`text`, with `python -m MODULE` replaced where the module is called otherwise."""
    names = _names.get()
    return re.sub(r"python -m (\w+(?:\.\w+)*)", lambda found: names.get(found[1], found[0]), text)


def _filled(text: str) -> str:
    """`text` with its paragraphs broken at the terminal's width, less what argparse leaves free; indented lines are kept."""
    width = shutil.get_terminal_size().columns - 2
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    runs = itertools.groupby(text.split("\n"), key=lambda line: line[:1] in ("", " "))
    return "\n".join("\n".join(lines) if kept else wrapper.fill(" ".join(lines)) for kept, lines in runs)
