"""A command's options as a frozen dataclass: the one place where what argparse has read becomes a value of its own type."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

_Options = TypeVar("_Options")


def read_options(kind: type[_Options], parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> _Options:
    """The options of a command line.

    Args:
        kind: a frozen dataclass with a field for every destination of the parser, its own or one of a field that is such a
            dataclass itself: what several commands share. Lists become tuples.
        parser: of the command.
        arguments: in place of those that the command was called with.

    Raises:
        ValueError: from the dataclass, for options out of range.
    """
    given = vars(parser.parse_args(arguments))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options: _Options = _filled(kind, values)
    assert not values, f"{kind.__name__} has no field for {', '.join(values)}"
    return options


def _filled(kind: Any, values: dict[str, Any]) -> Any:
    """A record of the values that its fields name, which are taken out of `values`."""
    types = get_type_hints(kind)
    groups = {field.name for field in fields(kind) if is_dataclass(types[field.name])}
    return kind(
        **{
            field.name: _filled(types[field.name], values) if field.name in groups else values.pop(field.name)
            for field in fields(kind)
        }
    )
