"""Quantities by name: as a user writes them on the command line and in a problem file, and back.

    flops, params, memory, ...           with their default options; a file may give others: {"quantity": "flops", "seq_len": 128}
    latency@jetson-nano                  the first latency table of a device, shipped or in a file: latency@my-board.json
    latency@my-board.json:onnx-int8-decode   another of its tables
    prefill-latency@titan-xp             roofline latency or energy from a datasheet; memory-share@raspberry-pi-4 of its memory
    my_module:MyCost                     a user's own: a quantity, a class of one, or a plain function of an architecture, which is
                                         then a black box; found as Python finds modules, in the current folder first

A name with a colon and no @ runs the code of that module. On the command line you wrote it; a file may be somebody else's, and is
refused if it holds such a name, unless you say `--trust-code`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from formulation import BlockwiseEntropy, EffectiveEntropy, Measured, Quantity
from hardware_models import (
    DATASHEETS,
    ActivationMemory,
    CacheMemory,
    DecodeEnergy,
    DecodeLatency,
    DecoderParams,
    Flops,
    Latency,
    Memory,
    MemoryShare,
    Params,
    PrefillEnergy,
    PrefillLatency,
    WeightMemory,
    datasheet,
    read_device,
)

PLAIN: dict[str, type[Quantity]] = {
    "entropy": EffectiveEntropy,
    "blockwise-entropy": BlockwiseEntropy,
    "flops": Flops,
    "params": Params,
    "decoder-params": DecoderParams,
    "weight-memory": WeightMemory,
    "cache-memory": CacheMemory,
    "activation-memory": ActivationMemory,
    "memory": Memory,
}
"""Quantities that need nothing but their options, which have defaults."""

ROOFLINE: dict[str, type[Quantity]] = {
    "prefill-latency": PrefillLatency,
    "decode-latency": DecodeLatency,
    "prefill-energy": PrefillEnergy,
    "decode-energy": DecodeEnergy,
}
"""Quantities of a datasheet."""

COSTS = ("flops", "params")
"""The paper's own: what `studies.compare_solvers` holds the published designs to."""

ON_DEVICES = ("latency", *ROOFLINE, "memory-share")
_plugged_in: dict[str, Quantity] = {}
_plugged_in_classes: dict[type[Quantity], str] = {}
"""What modules of the user's gave, by name: so that a problem can be written to a file again."""


def chosen(what: str, name: Any, known: dict[str, Any]) -> Any:
    """known[name]; ValueError that suggests the nearest name."""
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {shown(name)}{hint} (choose from {', '.join(known)})")


def read_quantity(text: str, what: str = "quantity", extrapolate: bool = False, trust_code: bool = True) -> Quantity:
    """The quantity that a user names on the command line, with its default options.

    extrapolate  whether latency tables may predict what they were not validated on
    trust_code   whether module:name may be imported; ValueError naming the module where it may not
    """
    name, at, device = text.partition("@")
    if at and name in ON_DEVICES:
        table: dict[str, Any] = {}
        if name == "latency":
            path, colon, rest = device.rpartition(":")
            if colon and "/" not in rest and "\\" not in rest:
                device, table = path, {"table": rest}
            table["extrapolate"] = extrapolate
        return quantity_from_dict(what, {"quantity": name, "device": device} | table)
    if name in ON_DEVICES:
        raise ValueError(f"{name} is that of a device; write {name}@{'raspberry-pi-4' if name != 'latency' else 'amd-epyc-2cpu'}")
    if not at and ":" in text:
        return _plug_in(text, {}, trust_code)
    known: dict[str, Any] = {**PLAIN, **{f"{one}@DEVICE": None for one in ON_DEVICES}, "MODULE:NAME": None}
    kind: type[Quantity] = chosen(what, text, known)
    return kind()


def quantity_from_dict(what: str, record: Any, extra: tuple[str, ...] = (), trust_code: bool = False) -> Quantity:
    """The quantity of a problem file: a name, or an object with `quantity` and its options; keys in `extra` are left alone.

    Raises ValueError naming the key that is missing, unknown or wrong, and for module:name unless `trust_code`.
    """
    if isinstance(record, str):
        return read_quantity(record, trust_code=trust_code)
    if not isinstance(record, dict) or "quantity" not in record:
        raise ValueError(f'{what} holds {shown(record)}; expected a quantity\'s name or an object with "quantity"')
    options = {key: value for key, value in record.items() if key != "quantity" and key not in extra}
    confidence = options.pop("confidence", None)
    quantity = _with_options(record["quantity"], options, extra, trust_code)
    if confidence is None:
        return quantity
    if not is_number(confidence):
        raise ValueError(f"the confidence of {quantity.name} is {shown(confidence)}; expected a probability such as 0.95")
    return quantity.at_confidence(confidence)


def quantity_to_dict(quantity: Quantity) -> dict[str, Any]:
    """The object that `quantity_from_dict` reads; ValueError for a quantity that has no name in a file."""
    confidence = getattr(quantity, "confidence", None)
    if confidence is not None:
        plain = dataclasses.replace(quantity, confidence=None)  # type: ignore[type-var]
        return quantity_to_dict(plain) | {"confidence": confidence}
    for name, known in _plugged_in.items():
        if known == quantity:
            return {"quantity": name}
    if type(quantity) in _plugged_in_classes:
        return {"quantity": _plugged_in_classes[type(quantity)]} | _options_of(quantity)
    if isinstance(quantity, Latency) and quantity.table.origin:
        options = {"device": quantity.table.origin, "table": quantity.table.name, "extrapolate": quantity.extrapolate}
        return {"quantity": "latency", **options}
    for name, kind in ROOFLINE.items():
        if type(quantity) is kind and DATASHEETS.get(quantity.device.name) == quantity.device:  # type: ignore[attr-defined]
            return {"quantity": name, "device": quantity.device.name} | _options_of(quantity, ("device",))  # type: ignore[attr-defined]
    if isinstance(quantity, MemoryShare) and quantity.device:
        return {"quantity": "memory-share", "device": quantity.device} | _options_of(quantity.memory)
    for name, kind in PLAIN.items():
        if type(quantity) is kind and getattr(quantity, "table", None) is None:
            return {"quantity": name} | _options_of(quantity)
    raise ValueError(f"{quantity.name} cannot be written to a problem file; expected one of {', '.join((*PLAIN, *ON_DEVICES))}")


def quantity_text(quantity: Quantity) -> str:
    """Its name with the options that are not the default, which tell two of one name apart: flops (seq_len=128)."""
    if isinstance(getattr(type(quantity), "name", None), property):
        return quantity.name  # made from the options
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(quantity) if dataclasses.is_dataclass(quantity) else ()
    known = ("name", "unit")
    values = {f.name: getattr(quantity, f.name) for f in fields if f.repr and f.name not in known}
    options = [f"{f.name}={_brief(values[f.name])}" for f in fields if f.name in values and values[f.name] != f.default]
    return quantity.name + (f" ({', '.join(options)})" if options else "")


def _brief(value: Any) -> Any:
    """A value as the text of a quantity shows it: a datasheet by its name."""
    return getattr(value, "name", value) if dataclasses.is_dataclass(value) else value


def shown(value: Any) -> str:
    """A value as an error message shows it: never more than a line."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def is_number(value: Any, largest: float = 1e100) -> bool:
    """Whether a value is a number of at most `largest`, a size that sums and products of a few keep finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= largest  # also false for NaN


def _with_options(name: Any, options: dict[str, Any], extra: tuple[str, ...], trust_code: bool) -> Quantity:
    if isinstance(name, str) and ":" in name and "@" not in name:
        return _plug_in(name, options, trust_code)
    kind = chosen("quantity", name, {**PLAIN, **ROOFLINE, "latency": Latency, "memory-share": MemoryShare})
    if kind is Latency:
        _check_names(name, options, ("device", "table", "extrapolate"), extra)
        if not isinstance(options.get("extrapolate", False), bool):
            raise ValueError(f"latency's extrapolate is {shown(options['extrapolate'])}; expected true or false")
        table = read_device(_text(name, options, "device")).table(_text(name, options, "table") if "table" in options else None)
        if table.doubt:
            print(f"warning: {table.doubt}", file=sys.stderr)
        return Latency(table, extrapolate=options.get("extrapolate", False))
    if kind is MemoryShare:
        device = _text(name, options, "device")
        memory = _of_kind("memory", Memory, {key: value for key, value in options.items() if key != "device"}, extra)
        assert isinstance(memory, Memory)
        return MemoryShare(memory, _ram_of(device), device)
    if name in ROOFLINE:
        sheet = datasheet(_text(name, options, "device"))
        return _of_kind(name, kind, {key: value for key, value in options.items() if key != "device"}, extra, device=sheet)
    return _of_kind(name, kind, options, extra)


def _ram_of(device: str) -> float:
    """Memory of a device [bytes], by its datasheet or its file."""
    ram = DATASHEETS[device].ram_bytes if device in DATASHEETS else read_device(device).ram_bytes
    if ram is None:
        raise ValueError(f"nothing says how much memory {device} has; use memory with a number of bytes instead")
    return ram


def _text(name: str, options: dict[str, Any], key: str) -> str:
    value = options.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{name}'s {key} is {shown(value)}; expected a name, or the path of a device file")
    return value


def _of_kind(name: str, kind: Callable[..., Quantity], options: dict[str, Any], extra: tuple[str, ...], **given: Any) -> Quantity:
    """An instance of a dataclass from options that JSON can hold, each checked to be like its default."""
    fields = [field for field in dataclasses.fields(kind) if field.name != "table" and field.name not in given]  # type: ignore[arg-type]
    _check_names(name, options, tuple(field.name for field in fields), extra)
    values = dict(options)
    for field in fields:
        if field.name in options:
            _check_like(f"{name}'s {field.name}", options[field.name], field.default)
            if isinstance(field.default, tuple):
                values[field.name] = tuple(options[field.name])
    return kind(**given, **values)


def _check_names(name: str, options: dict[str, Any], known: tuple[str, ...], extra: tuple[str, ...]) -> None:
    if unknown := set(options) - set(known):
        expected = ", ".join((*known, *extra)) or "no options"
        raise ValueError(f"{name} has unknown keys {shown(sorted(unknown))}; expected {expected}")


def _check_like(what: str, value: Any, default: Any) -> None:
    """ValueError where an option is no truth value, text, number or list of numbers as its default is; None stands for a number."""
    if isinstance(default, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        good, expected = isinstance(value, str), "a text"
    elif isinstance(default, tuple):
        good = isinstance(value, list) and len(value) == len(default) and all(map(is_number, value))
        expected = f"a list of {len(default)} numbers"
    elif default is None:
        good, expected = value is None or is_number(value), "a number or null"
    else:
        good, expected = is_number(value), "a number"
    if not good:
        raise ValueError(f"{what} is {shown(value)}; expected {expected}")


def _options_of(quantity: Quantity, without: tuple[str, ...] = ()) -> dict[str, Any]:
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(quantity) if dataclasses.is_dataclass(quantity) else ()
    names = [field.name for field in fields if field.name not in ("table", *without)]
    values = {name: getattr(quantity, name) for name in names}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Within it, modules are found in the current folder first; afterwards in it last, so that no file there replaces one of ours.

    Nothing changes where Python itself has put the folder first, as `python -m` does.
    """
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)


def _plug_in(name: str, options: dict[str, Any], trust_code: bool) -> Quantity:
    """The quantity that `module:name` is, makes or, a plain function, measures; ValueError in one sentence where it is none."""
    module_name, _, attribute = name.partition(":")
    if not trust_code:
        raise ValueError(
            f"{shown(name)} is code of the module {shown(module_name)}, and reading a file runs no code unless you say so; "
            "read the module, and add --trust-code if you trust it"
        )
    if not options and name in _plugged_in:
        return _plugged_in[name]
    try:
        with _current_folder_first():
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"cannot import {module_name!r} for {name} ({error}); expected a module in the current folder") from None
    except Exception as error:  # whatever the user's module does wrong
        kind = type(error).__name__
        raise ValueError(f"{name!r} names no module that can be imported ({kind}: {error}); expected MODULE:NAME") from error
    found = getattr(module, attribute, None)
    if isinstance(found, type) and issubclass(found, Quantity):
        try:
            quantity = found(**options)
            _plugged_in_classes[found] = name
        except TypeError as error:
            raise ValueError(f"{name} cannot be made with the options {shown(options)} ({error})") from None
    elif options:
        raise ValueError(f"{name} takes no options; got {shown(options)}")
    elif isinstance(found, Quantity):
        quantity = found
    elif callable(found) and not isinstance(found, type):
        quantity = Measured(name, str(getattr(found, "unit", "1")), found)
    else:
        raise ValueError(f"{module_name} has no quantity or function {attribute!r}; expected MODULE:NAME, such as my_costs:Energy")
    if not options:
        _plugged_in[name] = quantity
    return quantity
