"""Problems as a user writes them: spaces, quantities and budgets by name, on the command line and in a JSON problem file.

The file is versioned. Every key but `space` and `maximize` may be left out:

    {"format": "merino problem", "version": 1,
     "space": "fine",
     "maximize": {"quantity": "entropy", "rho": 0.01},
     "minimize": ["params"],
     "budgets": [{"quantity": "flops", "upper": 60e9, "unit": "FLOPs"}],
     "report": ["params"]}

`space` is paper, fine, deep or an object as `SearchSpace.from_dict` reads it; a quantity is its name, or an object with `quantity`
and its options; a budget's `unit` may be left out, but one that is given must be the quantity's own: nothing is converted.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from formulation import Budget, DesignProblem, EffectiveEntropy, Quantity, SearchSpace, deep_space, fine_space, paper_space
from hardware_models import Flops, Params

SPACES: dict[str, Callable[[], SearchSpace]] = {"paper": paper_space, "fine": fine_space, "deep": deep_space}
QUANTITIES: dict[str, type[Quantity]] = {"entropy": EffectiveEntropy, "flops": Flops, "params": Params}
COSTS = ("flops", "params")
"""Quantities that a budget on the command line may name."""
_FORMAT, _VERSION = "merino problem", 1
_MOST_BLOCKS, _MOST_LAYERS, _MOST_ITEMS, _MOST_WIDTHS = 64, 2_000, 10_000, 256
"""What a problem file may ask for: more blocks, layers in all, items or widths of a block than this is taken for a mistake."""


def chosen(what: str, name: Any, known: dict[str, Any]) -> Any:
    """known[name]; ValueError that suggests the nearest name."""
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {shown(name)}{hint} (choose from {', '.join(known)})")


def read_space(name: str) -> SearchSpace:
    """The named space, or the one in a JSON file; ValueError where it is neither."""
    if not name.endswith(".json"):
        return chosen("space", name, SPACES)()
    record = read_json("space file", Path(name))
    try:
        return _space(record)
    except ValueError as error:
        raise ValueError(f"the space file {name}: {error}") from None


def read_budgets(texts: Sequence[str]) -> list[tuple[Budget, ...]]:
    """One tuple of budgets per problem: every combination of one value of each quantity named."""
    values: dict[str, list[Budget]] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            upper = float(number)
        except ValueError:
            upper = math.nan
        if not equals or math.isnan(upper):
            raise ValueError(f"the budget {text!r} is no NAME=NUMBER; write it as flops=60e9")
        budget = Budget(read_cost(name), upper)
        if budget not in values.setdefault(name, []):
            values[name].append(budget)
    return list(product(*values.values()))


def read_cost(name: str) -> Quantity:
    """The cost of that name with its default options."""
    return chosen("budget", name, {cost: QUANTITIES[cost] for cost in COSTS})()


def read_quantity(name: str) -> Quantity:
    """The quantity of that name with its default options."""
    return chosen("quantity", name, QUANTITIES)()


def number_text(value: float) -> str:
    """60 G, 61.3 M, 1,234."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.12g} {letter}"
    return f"{value:,.12g}"


def quantity_text(quantity: Quantity) -> str:
    """Its name with the options that are not the default, which tell two of one name apart: flops (seq_len=128)."""
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(quantity) if dataclasses.is_dataclass(quantity) else ()
    options = [f"{f.name}={getattr(quantity, f.name)}" for f in fields if f.repr and getattr(quantity, f.name) != f.default]
    return quantity.name + (f" ({', '.join(options)})" if options else "")


def budget_text(budget: Budget) -> str:
    """flops ≤ 60 G FLOPs."""
    return f"{quantity_text(budget.quantity)} ≤ {number_text(budget.upper)} {budget.quantity.unit}"


def read_problem(path: Path) -> DesignProblem:
    """The problem in a JSON file; ValueError in one sentence where there is none."""
    record = read_json("problem file", path)
    try:
        return problem_from_dict(record)
    except ValueError as error:
        raise ValueError(f"the problem file {path}: {error}") from None


def problem_from_dict(record: Any) -> DesignProblem:
    """The problem that a JSON object describes; ValueError naming the key that is missing, unknown or wrong."""
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ValueError(f'this is no problem: expected a JSON object with "format": "{_FORMAT}"')
    version = record.get("version")
    if version != _VERSION or isinstance(version, bool):
        raise ValueError(f"the problem's version is {shown(version)}; this release reads version {_VERSION}")
    keys = ("format", "version", "space", "maximize", "minimize", "budgets", "report")
    if unknown := set(record) - set(keys):
        raise ValueError(f"unknown keys {shown(sorted(unknown))}; expected {', '.join(keys)}")
    if missing := {"space", "maximize"} - set(record):
        raise ValueError(f"{' and '.join(sorted(missing))} missing; expected both a space and a quantity to maximize")
    budgets = tuple(_budget(entry) for entry in _list(record, "budgets"))
    return DesignProblem(
        _space(record["space"]),
        _quantity("maximize", record["maximize"]),
        budgets,
        tuple(_quantity("report", entry) for entry in _list(record, "report")),
        tuple(_quantity("minimize", entry) for entry in _list(record, "minimize")),
    )


def problem_to_dict(problem: DesignProblem) -> dict[str, Any]:
    """The JSON object that `problem_from_dict` reads; ValueError for a quantity that has no name in such a file."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "space": problem.space.to_dict(),
        "maximize": _quantity_record(problem.maximize),
        "minimize": [_quantity_record(quantity) for quantity in problem.minimize],
        "budgets": [
            {**_quantity_record(budget.quantity), "upper": budget.upper, "unit": budget.quantity.unit}
            for budget in problem.subject_to
        ],
        "report": [_quantity_record(quantity) for quantity in problem.report],
    }


def read_json(what: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the {what} {path}: {str(error.strerror).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {what} {path} is no JSON that can be read ({error})") from None


def shown(value: Any) -> str:
    """A value as an error message shows it: never more than a line."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def brief(error: Exception) -> str:
    """An error's message, without the middle where it repeats a long value."""
    text = str(error)
    return text if len(text) <= 400 else f"{text[:250]} ... {text[-145:]}"


def _list(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} is {shown(value)}; expected a list")
    return value


def _space(record: Any) -> SearchSpace:
    if not isinstance(record, dict):
        return chosen("space", record, SPACES)()
    blocks = record.get("blocks", 1)
    menus = record.get("menus", [])
    for count in (blocks, len(menus) if isinstance(menus, list) else 0):
        if isinstance(count, int | float) and count > _MOST_BLOCKS:
            raise ValueError(f"the space has {shown(count)} blocks; expected at most {_MOST_BLOCKS}")
    for menu in [record, *(menus if isinstance(menus, list) else [])]:
        if isinstance(menu, dict):
            lists = [menu[key] for key in ("widths", "ffn_ratios", "depths") if isinstance(menu.get(key), list)]
            if math.prod(len(entries) for entries in lists) > _MOST_ITEMS:
                raise ValueError(f"a menu has more than {_MOST_ITEMS:,} items; expected fewer widths, ffn_ratios or depths")
    try:
        space = SearchSpace.from_dict(record)
        _check_size(space)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the space: {brief(error)}") from None
    return space


def _check_size(space: SearchSpace) -> None:
    """ValueError for a space that no solver could take in, or that holds a block which is none."""
    if (layers := sum(menu.depths[-1] for menu in space.menus)) > _MOST_LAYERS:
        raise ValueError(f"its depths add up to {layers:,} layers; expected at most {_MOST_LAYERS:,}")
    for menu in dict.fromkeys(space.menus):
        if len(menu.widths) > _MOST_WIDTHS:
            raise ValueError(f"a menu has {len(menu.widths):,} widths; expected at most {_MOST_WIDTHS}")
        assert menu.items  # makes every block, which refuses those out of range


def _options(what: str, record: Any, extra: tuple[str, ...] = ()) -> tuple[type[Quantity], dict[str, Any]]:
    """The class of the quantity that `record` names, and its options."""
    if isinstance(record, str):
        return chosen("quantity", record, QUANTITIES), {}
    if not isinstance(record, dict) or "quantity" not in record:
        raise ValueError(f'{what} holds {shown(record)}; expected a quantity\'s name or an object with "quantity"')
    kind = chosen("quantity", record["quantity"], QUANTITIES)
    options = {key: value for key, value in record.items() if key != "quantity" and key not in extra}
    known = _option_names(kind)
    if unknown := set(options) - set(known):
        expected = ", ".join((*known, *extra)) or "no options"
        raise ValueError(f"{record['quantity']} has unknown keys {shown(sorted(unknown))}; expected {expected}")
    return kind, options


def _option_names(kind: type[Quantity]) -> list[str]:
    """Fields of a quantity that a file may set: those that JSON can hold."""
    return [field.name for field in dataclasses.fields(kind) if field.name != "table"]  # type: ignore[arg-type]


def _quantity(what: str, record: Any, extra: tuple[str, ...] = ()) -> Quantity:
    kind, options = _options(what, record, extra)
    for name, value in options.items():
        default = next(field.default for field in dataclasses.fields(kind) if field.name == name)  # type: ignore[arg-type]
        _check_kind(f"{kind.name}'s {name}", value, default)
        if isinstance(default, tuple):
            options[name] = tuple(value)
    return kind(**options)


def _check_kind(what: str, value: Any, default: Any) -> None:
    """ValueError where an option is no truth value, number or list of numbers as its default is."""
    if isinstance(default, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, tuple):
        good = isinstance(value, list) and len(value) == len(default) and all(map(is_number, value))
        expected = f"a list of {len(default)} numbers"
    else:
        good, expected = is_number(value), "a number"
    if not good:
        raise ValueError(f"{what} is {shown(value)}; expected {expected}")


def is_number(value: Any, largest: float = 1e100) -> bool:
    """Whether a value is a number of at most `largest`, a size that sums and products of a few keep finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= largest  # also false for NaN


def _budget(record: Any) -> Budget:
    if not isinstance(record, dict):
        raise ValueError(f'budgets holds {shown(record)}; expected an object such as {{"quantity": "flops", "upper": 60e9}}')
    quantity = _quantity("budgets", record, ("upper", "unit"))
    unit = record.get("unit", quantity.unit)
    if unit != quantity.unit:
        raise ValueError(f"the budget for {quantity.name} has unit {shown(unit)}; expected {quantity.unit!r}, nothing is converted")
    if not is_number(record.get("upper")):
        raise ValueError(
            f"the budget for {quantity.name} has upper {shown(record.get('upper'))}; expected a number of {quantity.unit}"
        )
    return Budget(quantity, record["upper"])


def _quantity_record(quantity: Quantity) -> dict[str, Any]:
    names = {kind: name for name, kind in QUANTITIES.items()}
    if type(quantity) not in names or getattr(quantity, "table", None) is not None:
        raise ValueError(f"{quantity.name} cannot be written to a problem file; expected one of {', '.join(QUANTITIES)}")
    options = {name: getattr(quantity, name) for name in _option_names(type(quantity))}
    return {
        "quantity": names[type(quantity)],
        **{key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
    }
