"""The one check of every number that a quantity's own code hands to the toolkit: float64 and finite, or an error.

A proof compares numbers. One that is not a number, is infinite, or wrapped around in a small integer type compares wrongly without
a word, so tables, evaluations, fronts and heuristics all take theirs through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from formulation.architecture import Architecture


class Named(Protocol):
    """What an error can call by its name: a `Quantity`."""

    @property
    def name(self) -> str: ...


class Valued(Named, Protocol):
    """A function of architectures with a name: a `Quantity`."""

    def __call__(self, architecture: Architecture) -> Any: ...


class Formula(Named, Protocol):
    """A formula of parts with a name: a `Composite`."""

    def formula(self, parts: Any) -> Any: ...


class Undefined(ValueError):
    """A quantity has no usable value for a design; the message names both."""


def as_float(value: Any) -> float:
    """`value` as a float64, whatever numeric type it came in; TypeError if it is not one real number."""
    if isinstance(value, str | bytes | bytearray) or not hasattr(value, "__float__"):
        raise TypeError(f"it is {value!r}")
    return float(value)


def finite(quantity: Named, where: Callable[[], object], compute: Callable[[], Any]) -> float:
    """What `compute` returns as a finite float64.

    Args:
        quantity: whose value it is.
        where: what it is the value of (a design, block or joint), asked only if an error has to name it.
        compute: the quantity's own code.

    Raises:
        Undefined: naming the quantity and `where`, if the code raises, or returns what is not one finite real number.
        ImportError, MemoryError: as the code raised them: they say nothing about the quantity.
    """
    try:
        value = as_float(compute())
    except (ImportError, MemoryError):
        raise
    except Undefined as error:
        raise error if quantity.name in str(error) else Undefined(f"{_no_value(quantity, where)}: {error}") from None
    except ValueError as error:  # a refusal in the quantity's own words
        raise Undefined(f"{_no_value(quantity, where)}: {error}") from error
    except (Exception, SystemExit) as error:
        raise Undefined(f"{_no_value(quantity, where)}: its code raised {type(error).__name__} ({error})") from error
    if not math.isfinite(value):
        raise Undefined(f"{_no_value(quantity, where)}: it is {value}; expected a finite number")
    return value


def value_of(quantity: Valued, architecture: Architecture) -> float:
    """quantity(architecture) as a finite float64, in the quantity's unit; Undefined naming both if it is none."""
    return finite(quantity, lambda: f"the design {architecture}", lambda: quantity(architecture))


def values_of_formula(
    composite: Formula, parts: np.ndarray, design: Callable[[int], object], among: np.ndarray | None = None
) -> np.ndarray:
    """composite.formula of many designs at once, float64 of shape (n,), finite where they are used.

    Args:
        parts: values (P, n) of its parts.
        design: the n-th design, to be named in an error.
        among: bool (n,), the designs whose values are used: only these need one. All unless given.

    Raises:
        Undefined: naming the quantity and the first design for which the formula raises or is not a finite number.
    """
    try:
        with np.errstate(all="ignore"):
            raw = np.asarray(composite.formula(parts))
            values = np.broadcast_to(raw, parts.shape[1:]).astype(float) if raw.dtype.kind in "biuf" else None
    except (ImportError, MemoryError):
        raise
    except Exception:
        values = None  # not a formula for arrays, or one that raises for some design: found below, design by design
    if values is None:
        values = np.full(parts.shape[1], np.nan)
        for n in range(len(values)) if among is None else np.flatnonzero(among):
            values[n] = finite(composite, partial(_design, design, int(n)), partial(composite.formula, parts[:, n].tolist()))
        return values
    undefined = ~np.isfinite(values) if among is None else among & ~np.isfinite(values)
    if undefined.any():
        bad = int(undefined.argmax())
        raise Undefined(f"{_no_value(composite, partial(_design, design, bad))}: it is {values[bad]}; expected a finite number")
    return values


def _design(design: Callable[[int], object], number: int) -> str:
    return f"the design {design(number)}"


def _no_value(quantity: Named, where: Callable[[], object]) -> str:
    text = str(where())
    shown = text if len(text) < 160 else text[:120] + " …"
    return f"{quantity.name} has no value for {shown}"
