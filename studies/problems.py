"""Problems as a user writes them: spaces, quantities and budgets by name, on the command line and in a JSON problem file.

The file is versioned. Every key but `space` and `maximize` may be left out:

    {"format": "merino problem", "version": 1,
     "space": "fine",
     "maximize": {"quantity": "entropy", "rho": 0.01},
     "minimize": ["params"],
     "budgets": [{"quantity": "flops", "upper": 60e9, "unit": "FLOPs"}],
     "report": ["params"]}

`space` is paper, fine, deep or an object as `SearchSpace.from_dict` reads it; a quantity is its name, or an object with `quantity`
and its options, as `studies.quantities` says: {"quantity": "latency", "device": "my-board.json", "confidence": 0.95, "upper": 50}.
A budget's `unit` may be left out, but one that is given must be the quantity's own: nothing is converted.
A file that names code of a module (`my_module:MyCost`) is refused unless the user says `--trust-code`: reading a file runs no code.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from formulation import Budget, Composite, DesignProblem, Quantity, SearchSpace, Separable, deep_space, fine_space, paper_space
from studies.quantities import chosen, is_number, quantity_from_dict, quantity_text, quantity_to_dict, read_quantity, shown

SPACES: dict[str, Callable[[], SearchSpace]] = {"paper": paper_space, "fine": fine_space, "deep": deep_space}
_FORMAT, _VERSION = "merino problem", 1
_MOST_BLOCKS, _MOST_LAYERS, _MOST_ITEMS, _MOST_WIDTHS = 64, 2_000, 10_000, 256
"""What a problem file may ask for: more blocks, layers in all, items or widths of a block than this is taken for a mistake."""


def read_space(name: str) -> SearchSpace:
    """The named space, or the one in a JSON file; ValueError where it is neither."""
    if not name.endswith(".json"):
        return chosen("space", name, {**SPACES, "FILE.json": None})()
    record = read_json("space file", Path(name))
    try:
        return _space(record)
    except ValueError as error:
        raise ValueError(f"the space file {name}: {error}") from None


def add_budget_arguments(parser: argparse.ArgumentParser, repeats: str) -> None:
    """--budget and what goes with it; `repeats` says what a name given again means."""
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="flops=60e9 (60 GFLOPs for a forward pass), params=60e6, memory=200e6 (bytes), latency@DEVICE=50 (ms; a shipped "
        f"device or a .json file), my_module:MyCost=1 (its own unit); studies/quantities.py lists them. May be repeated: {repeats}",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="P",
        help="probability with which budgets of measured latency hold under its error, such as 0.95",
    )
    parser.add_argument(
        "--extrapolate", action="store_true", help="let latency tables predict what they were not validated on; tables say so"
    )


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """--trust-code, of commands that read problem or design files."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="let the file name code, as my_module:MyCost, which is imported and run; without it such a file is refused",
    )


def read_budgets(
    texts: Sequence[str],
    confidence: float | None = None,
    extrapolate: bool = False,
    tabulated: Callable[[Quantity], Quantity] = lambda quantity: quantity,
) -> list[tuple[Budget, ...]]:
    """One tuple of budgets per problem: every combination of one value of each quantity named.

    confidence   with which budgets of quantities that know their error hold; ValueError where there is none of them
    extrapolate  whether latency tables may predict what they were not validated on
    tabulated    what stands in for a black box
    """
    values: dict[str, list[Budget]] = {}
    uncertain = False
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            upper = float(number)
        except ValueError:
            upper = math.nan
        if not equals or math.isnan(upper):
            raise ValueError(f"the budget {text!r} is no NAME=NUMBER; write it as flops=60e9")
        if "=" in name:
            raise ValueError(
                f"{text!r} is more than one budget; give --budget once for each, as in --budget flops=60e9 --budget params=5e7"
            )
        quantity = read_quantity(name, "budget", extrapolate)
        if not isinstance(quantity, Separable | Composite):
            quantity = tabulated(quantity)
        knows_error = type(quantity).at_confidence is not Quantity.at_confidence
        uncertain |= knows_error
        budget = Budget(quantity, upper, confidence if knows_error else None)
        if budget not in values.setdefault(name, []):
            values[name].append(budget)
    if confidence is not None and not uncertain:
        names = ", ".join(values) or "none"
        raise ValueError(
            f"--confidence needs a budget that knows its error, such as latency@amd-epyc-2cpu=50; the budgets are {names}"
        )
    return list(product(*values.values()))


def number_text(value: float) -> str:
    """60 G, 61.3 M, 1,234."""
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:,.12g} {letter}"
    return f"{value:,.12g}"


def budget_text(budget: Budget) -> str:
    """flops ≤ 60 G FLOPs."""
    return f"{quantity_text(budget.quantity)} ≤ {number_text(budget.upper)} {budget.quantity.unit}"


def read_problem(path: Path, trust_code: bool = False) -> DesignProblem:
    """The problem in a JSON file; ValueError in one sentence where there is none, or where it names code and is not trusted."""
    record = read_json("problem file", path)
    try:
        return problem_from_dict(record, trust_code)
    except ValueError as error:
        raise ValueError(f"the problem file {path}: {error}") from None


def problem_from_dict(record: Any, trust_code: bool = False) -> DesignProblem:
    """The problem that a JSON object describes; ValueError naming the key that is missing, unknown or wrong.

    trust_code  whether code that it names as module:name is imported; ValueError naming the module where it is not
    """
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
    budgets = tuple(_budget(entry, trust_code) for entry in _list(record, "budgets"))
    return DesignProblem(
        _space(record["space"]),
        quantity_from_dict("maximize", record["maximize"], trust_code=trust_code),
        budgets,
        tuple(quantity_from_dict("report", entry, trust_code=trust_code) for entry in _list(record, "report")),
        tuple(quantity_from_dict("minimize", entry, trust_code=trust_code) for entry in _list(record, "minimize")),
    )


def problem_to_dict(problem: DesignProblem) -> dict[str, Any]:
    """The JSON object that `problem_from_dict` reads; ValueError for a quantity that has no name in such a file."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "space": problem.space.to_dict(),
        "maximize": quantity_to_dict(problem.maximize),
        "minimize": [quantity_to_dict(quantity) for quantity in problem.minimize],
        "budgets": [
            {**quantity_to_dict(budget.quantity), "upper": budget.upper, "unit": budget.quantity.unit}
            for budget in problem.subject_to
        ],
        "report": [quantity_to_dict(quantity) for quantity in problem.report],
    }


def read_json(what: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the {what} {path}: {str(error.strerror).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {what} {path} is no JSON that can be read ({error})") from None


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
        _ = menu.items  # makes every block, which refuses those out of range


def _budget(record: Any, trust_code: bool) -> Budget:
    if not isinstance(record, dict):
        raise ValueError(f'budgets holds {shown(record)}; expected an object such as {{"quantity": "flops", "upper": 60e9}}')
    quantity = quantity_from_dict("budgets", record, ("upper", "unit"), trust_code)
    unit = record.get("unit", quantity.unit)
    if unit != quantity.unit:
        raise ValueError(f"the budget for {quantity.name} has unit {shown(unit)}; expected {quantity.unit!r}, nothing is converted")
    if not is_number(record.get("upper")):
        raise ValueError(
            f"the budget for {quantity.name} has upper {shown(record.get('upper'))}; expected a number of {quantity.unit}"
        )
    return Budget(quantity, record["upper"])
