"""The one strict reader of JSON: a format is a frozen dataclass, and every mistake is one sentence in one wording.

A sentence names the path of the key (`problem.budgets[0].upper`), the value found and what was expected. Refused are keys that are
unknown, missing or repeated, values of another type (true is not a number), NaN, infinity, and text that is not valid JSON, nested
too deeply or too long. What a format holds stands where it is used; `formulation.convert` rewrites files of version 1.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VERSION = 2
"""Of every format: an architecture, a problem, a design, a device."""
CONVERT = "python -m formulation.convert"
"""The command that rewrites files of version 1."""

_MOST_BYTES, _MOST_LEVELS = 1 << 28, 100
"""What a file may hold: more bytes, or more levels of nesting, is taken for a mistake."""

_Record = TypeVar("_Record")


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of a number in an annotation: Annotated[int, Within(1)] is a whole number of at least 1."""

    least: float = -sys.float_info.max
    most: float = sys.float_info.max

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most

    def __str__(self) -> str:
        ends = [("at least", self.least, Within.least), ("at most", self.most, Within.most)]
        stated = [f"{word} {end:,.12g}" for word, end, default in ends if end != default]
        return " of " + " and ".join(stated) if stated else ""


WHOLE = "whole"
"""In an annotation of a dataclass: every field has to be there, also those that have a default in Python."""

Amount = Annotated[float, Within(0, 1e100)]
"""A number of at least 0, and so small that sums and products of a few stay finite."""
PositiveInt = Annotated[int, Within(1)]
"""A whole number of at least 1."""


def read_text(what: str, path: Path) -> str:
    """The text of a file.

    Args:
        what: what it is called in a sentence, such as "device file".
        path: where it is.

    Raises:
        ValueError: in one sentence that names the file, if it cannot be read, is not text, or is too long to be one of ours.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"the {what} {path} has more than {_MOST_BYTES:,} bytes; expected one problem, design or device")
        return content.decode()
    except OSError as error:
        raise ValueError(f"cannot read the {what} {path}: {str(error.strerror).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the {what} {path} is not text in UTF-8") from None


def shipped_names(folder: Traversable) -> tuple[str, ...]:
    """Names of the JSON files of a folder of the package, without their ending."""
    return tuple(sorted(path.name.removesuffix(".json") for path in folder.iterdir() if path.name.endswith(".json")))


def read_json(what: str, path: Path) -> Any:
    """The JSON in a file; ValueError as of `read_text`, and if it is not valid JSON."""
    text = read_text(what, path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"the {what} {path} {error}") from None


def format_of(path: Path) -> str | None:
    """The format that a JSON file says it has, whatever else may be wrong with it; None for any other file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        record = read_json("file", path)
    except ValueError:
        return None
    named = record.get("format") if isinstance(record, dict) else None
    return named if isinstance(named, str) else None


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: with the rest of a sentence such as "is not valid JSON (...)", whose subject the caller names.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
        if not _is_deep(value):
            return value
    except RecursionError:
        pass
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON, or cut short ({brief(error)})") from None
    raise ValueError(f"is nested too deeply; expected at most {_MOST_LEVELS} levels")


class _Refused(Exception):
    """What JSON allows, or Python's reader of it, and a format of ours does not."""


def _refuse_constant(text: str) -> Any:
    raise _Refused(f"holds the value {text}; expected finite numbers")


def _without_repeats(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"holds the key {shown(twice)} twice in one object; expected it once")
    return record


def _is_deep(value: Any) -> bool:
    """Whether a JSON value has more levels than a file may have."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def versioned(record: Any, format: str, where: str) -> dict[str, Any]:
    """The keys of a record of one of the formats, but for `format` and `version`.

    Args:
        record: a JSON value.
        format: what its key `format` has to say, such as "merino problem".
        where: what it is called in a sentence.

    Raises:
        ValueError: for anything else, and for version 1 with the command that converts it.
    """
    if not isinstance(record, dict) or record.get("format") != format:
        found = (
            f"has the format {shown(record['format'])}"
            if isinstance(record, dict) and "format" in record
            else f"is {shown(record)}"
        )
        raise ValueError(f'{where} {found}; expected an object with "format": "{format}"')
    version = record.get("version")
    if type(version) is not int or version != VERSION:
        convert = f"; rewrite its file with {CONVERT} FILE" if type(version) is int and version == 1 else ""
        raise ValueError(f"{where} is of version {shown(version)}; this release reads version {VERSION}{convert}")
    return {key: value for key, value in record.items() if key not in ("format", "version")}


def read_record(
    kind: type[_Record],
    value: Any,
    where: str,
    keys: Collection[str] | None = None,
    given: Mapping[str, Any] | None = None,
    beside: Collection[str] = (),
) -> _Record:
    """A dataclass from a JSON object that has its fields as keys.

    Args:
        kind: the dataclass. The types of its fields say what is accepted: bool, int, float (a whole number as well), str, Any,
            `Literal`, an enum's values, tuples and lists of these, dict[str, ...], further dataclasses, classes with a method
            `from_dict(value, where)`, one of these or None, and `Annotated` with `Within` or `WHOLE`. A field with a default may
            be left out.
        value: a JSON value.
        where: its path, for sentences.
        keys: the fields that may be in the object; None: all but those given.
        given: values of fields that are not read from the object.
        beside: keys of the object that somebody else reads.

    Raises:
        ValueError: in one sentence with the path of the key that is unknown, missing or wrong, or refused by the dataclass itself.
    """
    return _record(kind, value, where, keys, given or {}, beside)


def read_value(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as any of the types that `read_record` knows; ValueError likewise."""
    if kind is Any:
        return value
    if hasattr(kind, "from_dict"):
        return kind.from_dict(value, where)
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        if value is None:
            return None
        _check(_fits(inner, value), where, value, kind)
        return read_value(inner, value, where)
    if origin is Annotated:
        inner, rule = arguments
        if rule == WHOLE:
            return _record(inner, value, where, whole=True)
        _check(_fits(inner, value), where, value, kind)
        result = read_value(inner, value, where)
        _check(result in rule, where, value, kind)
        return result
    _check(_fits(kind, value), where, value, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if origin in (tuple, list):
        variadic = origin is list or arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(value) if variadic else arguments
        paths = (f"{where}[{number}]" for number in range(len(value)))
        return origin(map(read_value, kinds, value, paths))
    if origin is dict:
        return {key: read_value(arguments[1], item, _below(where, key)) for key, item in value.items()}
    return value


def check_keys(
    record: Any, known: Collection[str], where: str, required: Iterable[str] = (), expected: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """`record` as an object that has only known keys, and all those required.

    Args:
        record: a JSON value.
        known: the keys that it may have.
        where: its path.
        required: the keys that it has to have.
        expected: what to say of a missing key.

    Raises:
        ValueError: otherwise, with the nearest known key beside an unknown one.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where} is {shown(record)}; expected an object with {_listed(known)}")
    if unknown := [key for key in record if key not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]!r}? (expected {_listed(known)})" if near else f"expected {_listed(known)}"
        raise ValueError(f"{where} has the unknown key {shown(unknown[0])}; {hint}")
    for key in required:
        if key not in record:
            raise ValueError(f"{where} lacks {key}; expected {expected(key) if expected else _listed(known)}")
    return record


def _record(
    kind: Any,
    value: Any,
    where: str,
    keys: Collection[str] | None = None,
    given: Mapping[str, Any] = types.MappingProxyType({}),
    beside: Collection[str] = (),
    whole: bool = False,
) -> Any:
    types_of, defaults = _fields(kind)
    known = {name: one for name, one in types_of.items() if name not in given and (keys is None or name in keys)}
    required = [name for name in known if whole or name not in defaults]
    record = check_keys(value, (*known, *beside), where, required, lambda key: _expected(known[key]))
    values = {name: read_value(one, record[name], _below(where, name)) for name, one in known.items() if name in record}
    try:
        return kind(**given, **values)
    except ValueError as error:
        raise ValueError(f"{where}: {brief(error)}") from None


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of a dataclass's fields by name, and which have a default."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [field for field in dataclasses.fields(kind) if field.init and not field.name.startswith("_")]
    missing = dataclasses.MISSING
    defaults = (field.name for field in fields if field.default is not missing or field.default_factory is not missing)
    return {field.name: hints[field.name] for field in fields}, frozenset(defaults)


def _fits(kind: Any, value: Any) -> bool:
    """Whether a JSON value has the type itself; what is inside of it is seen later."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _fits(arguments[0], value)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin in (tuple, list):
        return isinstance(value, list) and (origin is list or arguments[-1] is Ellipsis or len(value) == len(arguments))
    if origin is dict:
        return isinstance(value, dict)
    if kind is float:
        return is_number(value, sys.float_info.max)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str):
        return isinstance(value, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, str) and value in {one.value for one in kind}
    return True  # a record, which says itself what it lacks


def _expected(kind: Any) -> str:
    """What a type accepts, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(one) for one in sorted(arguments, key=lambda one: one is types.NoneType))
    if origin is Annotated:
        return _expected(arguments[0]) + ("" if arguments[1] == WHOLE else str(arguments[1]))
    if origin is Literal:
        return _listed([json.dumps(one) for one in arguments], "or")
    if origin in (tuple, list):
        number = "" if origin is list or arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {number}{_plural(_expected(arguments[0]))}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _listed([json.dumps(one.value) for one in kind], "or")
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        types.NoneType: "null",
        Any: "any value",
    }
    if kind in words:
        return words[kind]
    if origin is dict or hasattr(kind, "from_dict"):
        return "an object"
    return f"an object with {_listed(_fields(kind)[0])}"


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "null",
    Any: "any value",
}


def _plural(words: str) -> str:
    """A whole number of at least 1 -> whole numbers of at least 1."""
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers"), ("a text", "texts"), ("an object", "objects")):
        if words.startswith(one):
            return many + words.removeprefix(one)
    return words if words == "true or false" else "lists" if words.startswith("a list") else words


def _check(good: bool, where: str, value: Any, kind: Any) -> None:
    if not good:
        raise ValueError(f"{where} is {shown(value)}; expected {_expected(kind)}")


def _below(where: str, key: str) -> str:
    """The path of a key of the object at `where`."""
    return f"{where}.{key}" if key.isidentifier() else f"{where}[{shown(key)}]"


def _listed(words: Collection[str], last: str = "and") -> str:
    *first, end = words or ("nothing",)
    return f"{', '.join(first)} {last} {end}" if first else end


def chosen(what: str, name: Any, known: Mapping[str, Any]) -> Any:
    """known[name]; ValueError that suggests the nearest name."""
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {shown(name)}{hint} (choose from {', '.join(known)})")


def shown(value: Any) -> str:
    """A value as an error message shows it: never more than a line."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def brief(error: Exception) -> str:
    """An error's message, without the middle where it repeats a long value."""
    text = str(error)
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-145:]}"


def is_number(value: Any, largest: float = 1e100) -> bool:
    """Whether a value is a number of at most `largest`, a size that sums and products of a few keep finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= largest  # also false for NaN
