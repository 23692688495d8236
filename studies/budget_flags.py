"""Budgets as a user writes them on the command line, and the flags that go with them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from formulation import Budget, Composite, Quantity, Separable
from hardware_models.names import read_quantity, split_options


def add_budget_arguments(parser: argparse.ArgumentParser, repeats: str) -> None:
    """--budget and what goes with it; `repeats` says what a name given again means."""
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME<=VALUE",
        help="flops<=60e9, or flops=60e9 (60 GFLOPs for a forward pass), params>=45e6 (at least), memory=200e6 (bytes), "
        "latency@DEVICE=50 (ms; a shipped device or a .json file), my_module:MyCost=1 (its own unit). Options stand in brackets: "
        '"generation-latency@jetson-orin-nano-super(prompt=512,new_tokens=128,precision=int4)<=800". '
        "hardware_models/names.py lists them all. Quote what holds <, > or brackets, which a shell reads otherwise. "
        f"May be repeated: {repeats}",
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


@dataclass(frozen=True)
class BudgetOptions:
    """The flags of `add_budget_arguments`."""

    budget: tuple[str, ...]
    confidence: float | None
    extrapolate: bool


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """--trust-code, of commands that read problem or design files."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="let the file name code, as my_module:MyCost, which is imported and run; without it such a file is refused",
    )


def split_budget(text: str) -> tuple[str, str, str]:
    """flops<=60e9 -> its name, the side, upper or at_least, and what stands behind the sign, empty where there is none."""
    name, _, number = text.rpartition("=")
    side = "at_least" if name.endswith(">") else "upper"
    return (name.removesuffix(">") if side == "at_least" else name.removesuffix("<")), side, number if name else ""


def number_in(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def read_budgets(
    texts: Sequence[str],
    confidence: float | None = None,
    extrapolate: bool = False,
    tabulated: Callable[[Quantity], Quantity] = lambda quantity: quantity,
) -> list[tuple[Budget, ...]]:
    """One tuple of budgets per problem: every combination of one value of each quantity named, from above and from below.

    Args:
        confidence: with which budgets of quantities that know their error hold; ValueError if there isn't one of them.
        extrapolate: whether latency tables may predict what they were not validated on.
        tabulated: what stands in for a black box.
    """
    values: dict[tuple[str, str], list[Budget]] = {}
    uncertain = False
    for text in texts:
        name, side, number = split_budget(text)
        bound = number_in(number)
        if bound is None:
            raise ValueError(f'the budget {text!r} is not NAME<=NUMBER or NAME>=NUMBER; write it as "flops<=60e9" or flops=60e9')
        if "=" in split_options(name)[0]:
            raise ValueError(
                f"{text!r} is more than one budget; give --budget once for each, as in --budget flops=60e9 --budget params=5e7"
            )
        quantity = read_quantity(name, "budget", extrapolate)
        if not isinstance(quantity, Separable | Composite):
            quantity = tabulated(quantity)
        knows_error = type(quantity).at_confidence is not Quantity.at_confidence
        uncertain |= knows_error
        if side == "upper":
            budget = Budget(quantity, bound, confidence if knows_error else None)
        else:
            budget = Budget(quantity, at_least=bound)
        if budget not in values.setdefault((name, side), []):
            values[name, side].append(budget)
    if confidence is not None and not uncertain:
        names = ", ".join(dict.fromkeys(name for name, _ in values)) or "none"
        raise ValueError(
            f"--confidence needs a budget that knows its error, such as latency@amd-epyc-2cpu=50; the budgets are {names}"
        )
    return list(product(*values.values()))
