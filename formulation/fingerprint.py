"""Identity is content: `fingerprint` is a SHA-256 of what a problem, a quantity or a solver *says*, the same in every process.

Keys of stored results are made of it, never of a `repr`. Whether a stored result still holds is for those who stored it to check.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.metadata
import logging
import re
import site
import struct
import sys
import sysconfig
import threading
import types
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from formulation.quantity import Quantity
from formulation.records.provenance import SAYS_NOTHING, version_of

_HOME = Path(__file__).resolve().parent.parent
_OURS = ("merino", "formulation", "solvers", "hardware_models", "merino_net", "studies")
_PLAIN_BASES = ("builtins.object", "abc.ABC", "typing.Generic", "typing.Protocol")
_STATELESS = (logging.Logger, type(threading.Lock()), type(threading.RLock()))
"""What code may refer to without a value depending on it."""
_ADVICE = "make its class a dataclass, or give it a method identity_record() that returns what tells one from another"


class NoIdentity(ValueError):
    """Something has no content that can be read, so nothing stored of it can be known again; the message names it and says why."""


def fingerprint(thing: Any) -> str:
    """SHA-256 of the content of a problem, a quantity, a solver, or a tuple of such things, as 64 hexadecimal digits.

    It is the same in every process of one version of Python, and differs where the content does. What counts as content:

    - numbers with their type, floats to the last bit; texts; lists, tuples, sets and mappings by what they hold; arrays by type,
      shape and bytes; members of an Enum; a path that names a file by the bytes of the file
    - a dataclass by its class and the fields that take part in its comparison (`field(compare=False)` leaves one out); of a
      dataclass of this package, known by its name alone, a field that is None says nothing and is left out, and so is one that has
      the value which its metadata call `SAYS_NOTHING`
    - a quantity's `revision`, where it is not 1
    - a function by its name, its bytecode, the source of its module, its defaults, the variables of its closure, and the global
      names that it uses, functions and data of other modules of yours included
    - a class of yours by the source of its module and all of its methods, likewise; a class or a function of this package by its
      name, one of an installed package by its name and the package's version; the name of what `formulation`, `solvers` or
      `hardware_models` exports is the one that it has there, whichever file it is in
    - an object with a method `identity_record()` by its class and what that returns

    So a class of this package may get a further field, None where it is not used, and may move to another file: what is stored
    stays known. A field is left out for its value, never for being the default: where a default changes, what is written in the
    same way says something else, and has another fingerprint. What None of a field stands for must therefore stay as it is.

    Not seen: what code reads while it runs (files, the environment, a clock, a device) and modules that it imports only then.

    Args:
        thing: what is to be identified.

    Returns:
        The hexadecimal digits.

    Raises:
        NoIdentity: something in it cannot be read: a function typed into a session or made by a compiled module around state, or an
            object that is not a dataclass and holds something. The message names the quantity.
    """
    return _Reader().whole(thing).hex()


def _digest(tag: str, *parts: bytes | str) -> bytes:
    """SHA-256 of a tag and of parts, each behind its length, so that no two lists of parts read alike."""
    contents = [tag.encode()]
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        contents += (b"%d:" % len(content), content)
    return hashlib.sha256(b"".join(contents)).digest()


class _Reader:
    """One pass over something: which objects it is inside of, and the global names that code it met uses."""

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}
        self._returns = 0
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._quantities: list[str] = []
        self._globals: dict[tuple[int, str], tuple[str, Any, list[str]]] = {}

    def whole(self, thing: Any) -> bytes:
        """The digest of a thing and of all that the code in it refers to by a global name.

        Names are read one after another, not where they are used, so that functions may call each other.
        """
        content = self.read(thing)
        names: list[tuple[str, str, bytes]] = []
        done: set[tuple[int, str]] = set()
        while waiting := [key for key in self._globals if key not in done]:
            for key in waiting:
                done.add(key)
                module, value, self._quantities = self._globals[key]
                names.append((module, key[1], self.read(value)))
        return _digest("whole", content, *(part for entry in sorted(names) for part in entry))

    def read(self, value: Any) -> bytes:
        """The digest of a value, that of its global names left out."""
        plain = _plain(value)
        if plain is not None:
            return plain
        if id(value) in self._known:
            return self._known[id(value)][1]
        depth = len(self._inside)
        if id(value) in self._inside:  # an object that holds itself, a function in its own closure
            self._returns += 1
            return _digest("inside", str(depth - self._inside[id(value)]))
        self._inside[id(value)] = depth
        returns = self._returns
        if isinstance(value, Quantity):
            self._quantities = [*self._quantities, str(getattr(value, "name", type(value).__name__))]
        content = self._read(value)
        if isinstance(value, Quantity):
            self._quantities = self._quantities[:-1]
        del self._inside[id(value)]
        if self._returns == returns:  # what is part of a circle reads otherwise where the circle is entered elsewhere
            self._known[id(value)] = (value, content)  # the value too: its id is its own only while it lives
        return content

    def _read(self, value: Any) -> bytes:
        kind = type(value)
        if kind in (tuple, list):
            return _digest(kind.__name__, *map(self.read, value))
        if kind in (set, frozenset):
            return _digest("set", *sorted(map(self.read, value)))
        if kind in (dict, OrderedDict, defaultdict, Counter, types.MappingProxyType):
            factory = self.read(value.default_factory) if kind is defaultdict else b""
            items = sorted((self.read(key), self.read(item)) for key, item in value.items())
            return _digest("mapping", factory, *(part for item in items for part in item))
        if isinstance(value, np.ndarray | np.generic):
            return self._array(np.asarray(value))
        if isinstance(value, np.dtype):
            return _digest("dtype", str(np.lib.format.dtype_to_descr(value)))
        if isinstance(value, PurePath):
            return _digest("file", Path(value).read_bytes()) if Path(value).is_file() else _digest("path", str(value))
        if isinstance(value, re.Pattern):
            return _digest("pattern", self.read(value.pattern), str(value.flags))
        if isinstance(value, types.ModuleType):
            return _digest("module", self._code_of(value.__name__, vars(value)))
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        wrapped = self._wrapped(value)
        return self._object(value) if wrapped is None else wrapped

    def _array(self, value: np.ndarray) -> bytes:
        if value.dtype.hasobject:
            return _digest("objects", str(value.shape), *map(self.read, value.ravel().tolist()))
        layout = str(np.lib.format.dtype_to_descr(value.dtype))
        return _digest("array", layout, str(value.shape), np.ascontiguousarray(value).tobytes())

    def _wrapped(self, value: Any) -> bytes | None:
        """The digest of what can be called and is made of a function, or is built in; None for anything else."""
        if isinstance(value, functools.partial):
            return _digest("partial", *map(self.read, (value.func, value.args, value.keywords)))
        if isinstance(value, types.MethodType):
            return _digest("method", self.read(value.__self__), self.read(value.__func__))
        if isinstance(value, functools._lru_cache_wrapper):
            return _digest("cached", self.read(value.__wrapped__))
        if isinstance(value, staticmethod | classmethod):
            return _digest(type(value).__name__, self.read(value.__func__))
        if isinstance(value, property):
            return _digest("property", *map(self.read, (value.fget, value.fset, value.fdel)))
        if isinstance(value, functools.cached_property):
            return _digest("property", self.read(value.func))
        if isinstance(value, np.ufunc):
            name = str(value.__name__)
            for package in ("numpy", "scipy.special"):
                if getattr(sys.modules.get(package), name, None) is value:
                    return _digest("ufunc", package, name, _version(package))
            raise self._none(f"{value!r} is not a function of NumPy's or SciPy's own, and has no source")
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            owner = value.__self__
            if owner is None or isinstance(owner, types.ModuleType):
                module, names = ("builtins", {}) if owner is None else (owner.__name__, vars(owner))
                return _digest("builtin", self._code_of(module, names), value.__qualname__)
            return _digest("bound", value.__name__, self.read(owner))
        if isinstance(value, types.MethodDescriptorType | types.WrapperDescriptorType):
            return _digest("descriptor", value.__name__, self.read(value.__objclass__))
        home, called = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(home, str) and isinstance(called, str) and home in sys.modules:
            names = vars(sys.modules[home])
            if names.get(called) is value and _room(home, names) is _Room.INSTALLED:
                return _digest("compiled", self._code_of(home, names), called)  # a function that some compiler made
        return None

    def _object(self, value: Any) -> bytes:
        """An instance of a class: a dataclass by its fields, one of yours without any state by its class alone."""
        kind = type(value)
        if isinstance(value, Enum):
            return _digest("member", self.read(kind), value.name)
        if callable(getattr(kind, "identity_record", None)):
            return _digest("record", self.read(kind), self.read(value.identity_record()))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return _digest("named tuple", self.read(kind), *map(self.read, tuple(value)))
        if (layout := _layout(kind)) is not object:
            raise self._none(f"a {_full_name(kind)} is a kind of {layout.__name__}, whose content cannot be read; {_ADVICE}")
        cached = _cached_names(kind)  # type: ignore[arg-type]  # a class has a hash
        state = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in cached}
        if dataclasses.is_dataclass(kind):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
            left_out = {field.name for field in dataclasses.fields(kind) if not field.compare}
            if "<" not in kind.__qualname__ and _room(kind.__module__, _globals_of(kind)) is _Room.OURS:
                silent = {f.name: f.metadata[SAYS_NOTHING] for f in dataclasses.fields(kind) if SAYS_NOTHING in f.metadata}
                left_out |= {name for name, item in fields.items() if item is None or (name in silent and item == silent[name])}
            state |= fields
            if (revision := getattr(kind, "revision", 1)) != 1:
                state["revision"] = revision
            items = [(name, self.read(item)) for name, item in sorted(state.items()) if name not in left_out]
            return _digest("object", self.read(kind), *(part for item in items for part in item))
        slots = any(vars(one).get("__slots__", ()) for one in kind.__mro__)
        if state or slots or _room(kind.__module__, _globals_of(kind)) is _Room.INSTALLED:
            raise self._none(f"a {_full_name(kind)} is not a dataclass, so what it holds cannot be read; {_ADVICE}")
        return _digest("object", self.read(kind))

    def _class(self, kind: type) -> bytes:
        names = _globals_of(kind)
        if _room(kind.__module__, names) is not _Room.YOURS and "<" not in kind.__qualname__:
            return _digest("class", self._code_of(_home(kind, kind.__module__), names), kind.__qualname__)
        said = {name: item for name, item in vars(kind).items() if _says(name, item)}
        if issubclass(kind, Enum):
            said = {name: item for name, item in said.items() if not name.startswith("_") and name not in kind.__members__}
            said |= {name: member.value for name, member in kind.__members__.items()}
        parts = [part for name, item in sorted(said.items()) for part in (name, self.read(item))]
        bases = [self.read(base) for base in kind.__mro__[1:] if _full_name(base) not in _PLAIN_BASES]
        return _digest("class", self._code_of(kind.__module__, names), kind.__qualname__, *parts, "bases", *bases)

    def _function(self, function: types.FunctionType) -> bytes:
        names = function.__globals__
        module = str(names.get("__name__"))
        held = [self.read(function.__defaults__), self.read(function.__kwdefaults__)]
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                held.append(_digest("variable", name, self.read(cell.cell_contents)))
            except ValueError as error:
                if isinstance(error, NoIdentity):
                    raise
                held.append(_digest("empty", name))
        if _room(module, names) is not _Room.YOURS:
            code = self._code(function.__code__) if "<" in function.__qualname__ else b""
            return _digest("function", self._code_of(_home(function, module), names), function.__qualname__, code, *held)
        for name in dict.fromkeys(_global_names(function.__code__)):
            self._refer(names, name, function.__code__)
        said = self.read({name: item for name, item in vars(function).items() if name != "__wrapped__"})
        return _digest("function", self._code_of(module, names), function.__qualname__, self._code(function.__code__), said, *held)

    def _refer(self, names: dict[str, Any], name: str, code: types.CodeType) -> None:
        """Note a global name that code uses, to be read later; of a module of yours also the names in it that the code mentions."""
        if name not in names or name.startswith("__") or isinstance(names[name], _STATELESS):
            return
        self._globals.setdefault((id(names), name), (str(names.get("__name__")), names[name], self._quantities))
        if isinstance(module := names[name], types.ModuleType) and _room(module.__name__, vars(module)) is _Room.YOURS:
            for attribute in _mentioned(code):
                if attribute in vars(module) and (id(vars(module)), attribute) not in self._globals:
                    self._refer(vars(module), attribute, code)

    def _code(self, code: types.CodeType) -> bytes:
        constants = [self._code(one) if isinstance(one, types.CodeType) else self.read(one) for one in code.co_consts]
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        return _digest("code", code.co_code, self.read(names), self.read(counts), *constants)

    def _code_of(self, module: str, names: Mapping[str, Any]) -> bytes:
        """What identifies the code of a module: its source where it is yours, else its name; the version of what is installed."""
        room = _room(module, names)
        if room is _Room.OURS:
            return _digest("ours", module)
        if room is _Room.INSTALLED:
            return _digest("installed", module, _version(module))
        file = names.get("__file__")
        if not isinstance(file, str) or not Path(file).is_file():
            raise self._none(
                f"there is no source of the module {module}, where it is defined; move it from the session to a file, and import it"
            )
        if module == "__main__":
            spec = names.get("__spec__")
            module = Path(file).stem if spec is None else spec.name
        return _digest("yours", module, Path(file).read_bytes())

    def _none(self, why: str) -> NoIdentity:
        return NoIdentity(f"{self._quantities[-1]} has no content to know it by: {why}" if self._quantities else why)


def _plain(value: Any) -> bytes | None:
    """A number, a text or another constant as bytes that tell its type; None for anything else."""
    kind = type(value)
    if kind in _WRITTEN:
        return f"{kind.__name__} {value}".encode("utf-8", "surrogatepass")
    if kind is float or kind is np.float64:
        return b"float " + (struct.pack(">d", value) if value == value else b"nan")
    if kind is complex:
        return b"complex " + struct.pack(">dd", value.real, value.imag)
    if kind is bytes or kind is bytearray:
        return kind.__name__.encode() + b" " + value
    return None


_WRITTEN = frozenset(map(type, (True, 0, "", None, range(0), slice(None), Fraction(), Decimal(), Ellipsis, NotImplemented)))
"""Constants that their text tells exactly."""


class _Room(Enum):
    """Where code comes from, which decides what identifies it."""

    OURS = "this package"
    INSTALLED = "Python or an installed package"
    YOURS = "anything else"


@functools.cache
def _folders() -> tuple[Path, ...]:
    """Where Python and installed packages lie."""
    named = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(folder).resolve() for folder in (*named, *site.getsitepackages(), site.getusersitepackages()))


def _room(module: str, names: Mapping[str, Any]) -> _Room:
    file = names.get("__file__")
    if file is None:  # a part of a compiled module is where the whole is
        file = getattr(sys.modules.get(module.partition(".")[0]), "__file__", None) if "." in module else None
    return _room_of(module, file if isinstance(file, str) else None)


@functools.lru_cache(maxsize=4096)
def _room_of(module: str, file: str | None) -> _Room:
    if file is None:
        return _Room.INSTALLED if module.partition(".")[0] in sys.stdlib_module_names and module != "__main__" else _Room.YOURS
    parents = Path(file).resolve().parents
    if any(_HOME / name in parents for name in _OURS):
        return _Room.OURS
    return _Room.INSTALLED if any(folder in parents for folder in _folders()) else _Room.YOURS


def _home(thing: type | types.FunctionType, module: str) -> str:
    """Where something is known by its name: its module, or the package of ours that exports it from there."""
    package = module.partition(".")[0]
    names = vars(sys.modules[package]) if package in _OURS and package in sys.modules else {}
    return package if names.get(thing.__qualname__) is thing else module


@functools.cache
def _version(module: str) -> str:
    """The version of the distribution that a module came with; of Python where it came with that."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:  # of another name
        names = importlib.metadata.packages_distributions().get(top, [])
        return " ".join(importlib.metadata.version(name) for name in sorted(set(names)))


def _globals_of(kind: type) -> Mapping[str, Any]:
    """The names of the module that a class was made in."""
    for item in vars(kind).values():
        if isinstance(item, types.FunctionType) and item.__globals__.get("__name__") == kind.__module__:
            return item.__globals__
    module = sys.modules.get(kind.__module__)
    return {} if module is None else vars(module)


def _layout(kind: type) -> type:
    """The built-in class whose memory an instance extends."""
    while kind.__flags__ & _HEAP:
        assert kind.__base__ is not None
        kind = kind.__base__
    return kind


_HEAP = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the class was made while Python ran."""


@functools.lru_cache(maxsize=1024)
def _cached_names(kind: type) -> frozenset[str]:
    """Attributes that instances compute from the others when they are first asked for."""
    return frozenset(
        name for one in kind.__mro__ for name, item in vars(one).items() if isinstance(item, functools.cached_property)
    )


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _says(name: str, item: Any) -> bool:
    """Whether an attribute of a class is something that its author wrote, not what Python or `dataclass` adds."""
    if isinstance(item, types.FunctionType):
        return item.__code__.co_filename != "<string>"
    made = (types.MemberDescriptorType, types.GetSetDescriptorType)
    special = name.startswith("__") and name.endswith("__")
    return not isinstance(item, made) and name != "_abc_impl" and (not special or callable(item))


def _global_names(code: types.CodeType) -> Iterator[str]:
    """The global names that code and the functions inside it read."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _mentioned(code: types.CodeType) -> Iterator[str]:
    """Every name that code and the functions inside it mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _mentioned(constant)


def content_key(*content: Any) -> str:
    """The key of what this release of the toolkit computes: a `fingerprint`; NoIdentity where the content has none."""
    return fingerprint((*content, version_of("merino")))


def cell_key(*content: Any) -> str | None:
    """The `content_key`, None if a part of the content has no identity: such a cell is run every time."""
    try:
        return content_key(*content)
    except NoIdentity:
        return None
