"""Quantities by name: as a user writes them on the command line and in a problem file, and back.

    flops, params, memory, ...           with their default options
    flops(seq_len=128)                   with others; in a file also {"quantity": "flops", "seq_len": 128}
    latency@jetson-nano                  the first latency table of a device, shipped or in a file: latency@my-board.json
    latency@my-board.json:onnx-int8-decode   another of its tables
    prefill-latency@titan-xp             roofline latency or energy from a datasheet, shipped or in a file: @my-board.json
    generation-latency@raspberry-pi-5(prompt=512,new_tokens=128,precision=int8)
    memory-share@raspberry-pi-4          of the memory that a datasheet or a device file states
    my_module:MyCost                     a user's own: a quantity, a class of one, or a plain function of an architecture, which is
                                         then a black box; found as Python finds modules, in the current folder first

A value of an option is JSON, or else taken for a text: seq_len=128, precision=float16, extrapolate=true, alpha=[0.6,0.4].
A name with a colon and no @ runs the code of that module. On the command line you wrote it; a file may be somebody else's, and is
refused if it holds such a name, unless you say `--trust-code`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from formulation import BlockwiseEntropy, EffectiveEntropy, Measured, Quantity
from formulation.records.reading import check_keys, chosen, parse_json, read_json, read_record, read_value, shown
from hardware_models.datasheet import Datasheet, is_datasheet, read_datasheet, shipped_datasheets
from hardware_models.device import read_device, shipped
from hardware_models.flops import Flops
from hardware_models.latency import Latency
from hardware_models.memory import ActivationMemory, CacheMemory, Memory, MemoryShare, WeightMemory
from hardware_models.params import DecoderParams, Params
from hardware_models.roofline import (
    DecodeEnergy,
    DecodeLatency,
    GenerationEnergy,
    GenerationLatency,
    PrefillEnergy,
    PrefillLatency,
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
    "generation-latency": GenerationLatency,
    "prefill-energy": PrefillEnergy,
    "decode-energy": DecodeEnergy,
    "generation-energy": GenerationEnergy,
}
"""Quantities of a datasheet."""

COSTS = ("flops", "params")
"""The paper's own: the budgets under which `studies.compare_solvers` compares designs."""

ON_DEVICES = ("latency", *ROOFLINE, "memory-share")


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """flops(seq_len=128) -> its name and its options; no options where it ends in no bracket.

    Raises:
        ValueError: for an option that is not NAME=VALUE, given twice, or what stands before the brackets.
    """
    if not text.endswith(")") or "(" not in text:
        return text, {}
    name, _, inside = text[:-1].rpartition("(")
    options: dict[str, Any] = {}
    for part in re.split(r",(?![^\[]*\])", inside) if inside.strip() else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key in ("quantity", "device"):
            raise ValueError(
                f"{shown(text)} names its {key} in brackets; expected it before them, as in prefill-latency@jetson-nano()"
            )
        if not (key and equals and value) or key in options:
            raise ValueError(f"the option {part.strip()!r} of {shown(text)} is not NAME=VALUE, given once, such as seq_len=128")
        try:
            options[key] = parse_json(value)
        except ValueError:
            options[key] = value
    return name, options


def read_quantity(text: str, what: str = "quantity", extrapolate: bool = False, trust_code: bool = True) -> Quantity:
    """The quantity that a user names on the command line, with its options in brackets.

    Args:
        text: its name.
        what: what it is called in a sentence, such as "budget".
        extrapolate: whether latency tables may predict what they were not validated on.
        trust_code: whether module:name may be imported.

    Raises:
        ValueError: for a name of none, for options that it does not have, and for module:name that is not trusted, naming it.
    """
    plain, options = split_options(text)
    name, at, device = plain.partition("@")
    if at and name in ON_DEVICES:
        if name == "latency":
            path, colon, rest = device.rpartition(":")
            if colon and "/" not in rest and "\\" not in rest:
                device, options = path, {"table": rest} | options
            options = {"extrapolate": extrapolate} | options
        return quantity_from_dict({"quantity": name, "device": device} | options, what)
    if name in ON_DEVICES:
        raise ValueError(f"{name} needs a device; write {name}@{'raspberry-pi-4' if name != 'latency' else 'amd-epyc-2cpu'}")
    if not at and ":" in plain:
        return _plug_in(plain, options, trust_code)
    known: dict[str, Any] = {**PLAIN, **{f"{one}@DEVICE": None for one in ON_DEVICES}, "MODULE:NAME": None}
    chosen(what, plain, known)
    return quantity_from_dict({"quantity": plain} | options, what)


def quantity_from_dict(record: Any, where: str = "quantity", beside: Collection[str] = (), trust_code: bool = False) -> Quantity:
    """The quantity of a problem file: a name, or an object with `quantity` and its options.

    Args:
        record: a JSON value.
        where: what it is called in a sentence.
        beside: keys of the object that somebody else reads, such as those of a budget.
        trust_code: whether module:name may be imported.

    Raises:
        ValueError: naming the key that is missing, unknown or wrong, and for module:name that is not trusted.
    """
    if isinstance(record, str):
        return read_quantity(record, where, trust_code=trust_code)
    if not isinstance(record, dict) or "quantity" not in record:
        raise ValueError(f'{where} is {shown(record)}; expected a quantity\'s name or an object with "quantity"')
    options = {key: value for key, value in record.items() if key not in ("quantity", "confidence", *beside)}
    quantity = _with_options(record["quantity"], options, where, beside, trust_code)
    confidence = read_value(float | None, record.get("confidence"), f"{where}.confidence")
    return quantity if confidence is None else quantity.at_confidence(confidence)


def quantity_to_dict(quantity: Quantity) -> dict[str, Any]:
    """The object that `quantity_from_dict` reads; ValueError for a quantity that has no name in a file."""
    confidence = getattr(quantity, "confidence", None)
    if confidence is not None:
        plain = dataclasses.replace(quantity, confidence=None)  # type: ignore[type-var]
        return quantity_to_dict(plain) | {"confidence": confidence}
    if isinstance(quantity, Latency) and quantity.table.origin:
        options = {"device": quantity.table.origin, "table": quantity.table.name, "extrapolate": quantity.extrapolate}
        return {"quantity": "latency", **options}
    for name, kind in ROOFLINE.items():
        if type(quantity) is kind:
            return {"quantity": name, "device": _name_of(quantity.device)} | _options_of(quantity, ("device",))  # type: ignore[attr-defined]
    if isinstance(quantity, MemoryShare) and quantity.device:
        return {"quantity": "memory-share", "device": quantity.device} | _options_of(quantity.memory)
    for name, kind in PLAIN.items():
        if type(quantity) is kind and getattr(quantity, "table", None) is None:
            return {"quantity": name} | _options_of(quantity)
    if (own := _plugged_in(quantity)) is not None:
        return own
    raise ValueError(f"{quantity.name} cannot be written to a problem file; expected one of {', '.join((*PLAIN, *ON_DEVICES))}")


def _with_options(name: Any, options: dict[str, Any], where: str, beside: Collection[str], trust_code: bool) -> Quantity:
    if isinstance(name, str) and ":" in name and "@" not in name:
        return _plug_in(name, options, trust_code)
    kind: Any = chosen("quantity", name, {**PLAIN, **ROOFLINE, "latency": Latency, "memory-share": MemoryShare})
    others = ("quantity", "confidence", *beside)
    if kind is Latency:
        asked = read_record(_Asked, options, where, beside=others)
        if asked.device in shipped_datasheets() and asked.device not in shipped():
            raise ValueError(
                f"{where}: nobody measured latencies of {asked.device} for this package; it has a datasheet: "
                f"ask for prefill-latency@{asked.device}, decode-latency@{asked.device} or generation-latency@{asked.device}"
            )
        table = read_device(asked.device).table(asked.table)
        if table.doubt:
            print(f"warning: {table.doubt}", file=sys.stderr)
        return Latency(table, extrapolate=asked.extrapolate)
    known = [field.name for field in dataclasses.fields(kind) if field.name not in ("device", "table")]
    if name not in ROOFLINE and kind is not MemoryShare:
        return read_record(kind, options, where, known, beside=others)
    of_memory = [field.name for field in dataclasses.fields(Memory)]
    check_keys(
        options, ("device", *(of_memory if kind is MemoryShare else known), *others), where, ("device",), lambda key: _DEVICE
    )
    device = options.pop("device")
    if not isinstance(device, str):
        raise ValueError(f"{where}.device is {shown(device)}; expected {_DEVICE}")
    if kind is not MemoryShare and device in shipped() and device not in shipped_datasheets():
        raise ValueError(f"{where}: {device} has no datasheet, but measured tables; ask for latency@{device}")
    if kind is MemoryShare:
        return MemoryShare(read_record(Memory, options, where), _ram_of(device), device)
    return read_record(kind, options, where, known, {"device": read_datasheet(device)}, others)


_DEVICE = "a name, or the path of a device file"


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The options of a latency in a file."""

    device: str
    table: str | None = None
    extrapolate: bool = False


def _name_of(sheet: Datasheet) -> str:
    """The name or the path by which a datasheet is read again; ValueError if what is read is not this one."""
    if not sheet.origin or read_datasheet(sheet.origin) != sheet:
        raise ValueError(
            f"the datasheet of {sheet.name} is in no file, so that no file can name it; write it with write_datasheet, "
            "and read it with read_datasheet"
        )
    return sheet.origin


def _ram_of(device: str) -> float:
    """Memory of a device [bytes], by its datasheet or its file."""
    if device.endswith(".json"):
        from_sheet = is_datasheet(read_json("device file", Path(device)))
    else:
        chosen("device", device, dict.fromkeys((*shipped_datasheets(), *shipped(), "FILE.json")))
        from_sheet = device in shipped_datasheets()
    if from_sheet:
        return read_datasheet(device).figure("ram_bytes")
    ram = read_device(device).ram_bytes
    if ram is None:
        raise ValueError(f"nothing says how much memory {device} has; use memory with a number of bytes instead")
    return ram


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
    """The quantity that `module:name` is, makes or, a plain function, measures; ValueError in one sentence if it does not."""
    module_name, _, attribute = name.partition(":")
    if not trust_code:
        raise ValueError(
            f"{shown(name)} is code of the module {shown(module_name)}, and reading a file runs no code unless you say so; "
            "read the module, and add --trust-code if you trust it"
        )
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
            return found(**options)
        except TypeError as error:
            raise ValueError(f"{name} cannot be made with the options {shown(options)} ({error})") from None
    if options:
        raise ValueError(f"{name} takes no options; got {shown(options)}")
    if isinstance(found, Quantity):
        return found
    if callable(found) and not isinstance(found, type):
        return Measured(name, str(getattr(found, "unit", "1")), found)
    raise ValueError(f"{module_name} has no quantity or function {attribute!r}; expected MODULE:NAME, such as my_costs:Energy")


def _plugged_in(quantity: Quantity) -> dict[str, Any] | None:
    """The object by which `_plug_in` finds a quantity again, None if it cannot.

    A function has its name in its `Measured`; others are made again by their class and its fields, or lie in a module as they are.
    """
    if isinstance(quantity, Measured):
        module_name, _, name = quantity.name.partition(":")
        found = getattr(sys.modules.get(module_name), name, None) if name else None
        return {"quantity": quantity.name} if found is quantity.function else None
    kind, options = type(quantity), _options_of(quantity)
    module_name, name = kind.__module__, kind.__qualname__
    if module_name != "__main__" and getattr(sys.modules.get(module_name), name, None) is kind and _makes(kind, options, quantity):
        return {"quantity": f"{module_name}:{name}", **options}
    for module in [module for module_name, module in sys.modules.items() if module_name != "__main__"]:
        for name, value in list(vars(module).items()) if isinstance(module, ModuleType) else ():
            if value is quantity or (type(value) is kind and value == quantity):
                return {"quantity": f"{module.__name__}:{name}"}
    return None


def _makes(kind: type[Quantity], options: dict[str, Any], quantity: Quantity) -> bool:
    """Whether a class makes the very quantity from options as a file would hold them."""
    if not dataclasses.is_dataclass(kind):
        return kind.__init__ is object.__init__ and not vars(quantity)
    try:
        return bool(kind(**json.loads(json.dumps(options))) == quantity)
    except (TypeError, ValueError):  # an option that JSON does not have
        return False
