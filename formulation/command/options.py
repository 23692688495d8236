"""A command's options as a frozen dataclass: the one place where what argparse has read becomes a value of its own type."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def read_options(kind: type[T], parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> T:
    """The options of a command line.

    Args:
        kind: a frozen dataclass with a field for every destination of the parser. Lists become tuples.
        parser: of the command.
        arguments: in place of those that the command was called with.

    Raises:
        ValueError: from the dataclass, for options out of range.
    """
    values: dict[str, Any] = vars(parser.parse_args(arguments))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
