"""Whether a quantity is what it declares to be, tried on a sample of designs: exact solvers believe the declaration.

A proof by a false overestimator, a false sign or terms that do not add up to the quantity is a false proof, and nothing later can
notice. What is sampled here is not proved; what is found is an error that shows the design.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from formulation.architecture import Architecture
from formulation.derived import NegativeSum
from formulation.quantity import Composite, Quantity, Separable
from formulation.score_table import Column
from formulation.space import SearchSpace
from formulation.table import tabulate
from formulation.values import Undefined, value_of, values_of_formula

_DESIGNS = 64
"""Random designs that are looked at, beside the regular ones."""
_CALLED = 4
"""Designs for which the quantity itself is called and compared with its table; a call costs as much as many table entries."""
_BOXES = 16
"""Boxes between two designs in which an overestimator is compared with its formula."""
_ROUNDING = 1e-9
"""Relative to the magnitudes added up: differences that are put down to the order of floating-point sums."""


class FalseDeclaration(ValueError):
    """A quantity does not have the structure that it declares; the message shows a design."""


def check_declarations(quantity: Quantity, space: SearchSpace) -> None:
    """Compare what a separable or composite quantity declares with what it returns, on a fixed sample of `space`.

    Of a separable quantity: that every term is finite, and that the terms add up to the quantity itself. Of a composite: besides,
    that it has one sign per part, that the formula moves with each part as its sign says, that the overestimator is finite and
    nowhere below the formula on boxes between designs, and that the underestimator is nowhere above it. A black box, which
    declares nothing and may be dear, is not called. Nor is a column of a score table: its terms are numbers that it has looked at
    itself, and its value is their sum, without any code of a user's in between.

    Raises:
        Undefined: naming the quantity and a design, block or joint that has no finite value.
        FalseDeclaration: naming the quantity and a design that contradicts the declaration.
    """
    while isinstance(quantity, NegativeSum):
        quantity = quantity.quantity  # what holds of its terms holds of their opposites
    if isinstance(quantity, Column) or not isinstance(quantity, Separable | Composite):
        return
    try:
        _checked(quantity, space)
    except TypeError:  # a quantity of unhashable fields is checked each time
        _check(quantity, space)


def _check(quantity: Separable | Composite, space: SearchSpace) -> None:
    choices = _sample(space)
    if isinstance(quantity, Separable):
        table = tabulate([quantity], space)
        _compare_calls(quantity, space, choices, table.evaluate(choices)[0], float(table.sizes[0]))
        return
    _check_composite(quantity, space, choices)


_checked = lru_cache(maxsize=256)(_check)


def _sample(space: SearchSpace) -> np.ndarray:
    """Choices (n, N): for every item number of the menus the design that has it throughout, if allowed, and random designs."""
    most = max(len(menu) for menu in space.menus)
    numbers = np.unique(np.linspace(0, most - 1, min(most, _DESIGNS)).astype(np.intp))
    alike = [tuple(min(int(number), len(menu) - 1) for menu in space.menus) for number in numbers]
    random = space.sample(np.random.default_rng(0), _DESIGNS)
    return np.array([*filter(space.allows, alike), *map(tuple, random)], dtype=np.intp)


def _compare_calls(quantity: Quantity, space: SearchSpace, choices: np.ndarray, values: np.ndarray, size: float) -> None:
    """FalseDeclaration where the quantity, called, differs from what its structure adds up to."""
    for n in np.linspace(0, len(choices) - 1, _CALLED).astype(int):
        design = space.decode(choices[n])
        value = value_of(quantity, design)
        if abs(value - values[n]) > _ROUNDING * max(size, abs(value)):
            structure = "terms add up to" if isinstance(quantity, Separable) else "formula gives"
            raise FalseDeclaration(
                f"{quantity.name} of the design {design} is {value:.10g}, but its {structure} {values[n]:.10g}; "
                "a quantity must return what its declared structure says"
            )


def _check_composite(quantity: Composite, space: SearchSpace, choices: np.ndarray) -> None:
    parts, signs = tuple(quantity.parts), tuple(quantity.signs)
    if wrong := [part for part in parts if not isinstance(part, Separable)]:
        raise FalseDeclaration(f"{quantity.name} has the part {wrong[0]!r}; expected Separable quantities such as Params()")
    if not parts or len(parts) != len(signs) or not set(signs) <= {-1, 1}:
        raise FalseDeclaration(
            f"{quantity.name} has {len(parts)} parts and the signs {signs}; expected one sign per part, each +1 or −1"
        )
    table = tabulate(parts, space)
    points = table.evaluate(choices)

    def design(n: int) -> Architecture:
        return space.decode(choices[n])

    values = values_of_formula(quantity, points, design)
    _compare_calls(quantity, space, choices, values, _size(quantity, points, table.sizes, design))
    _check_signs(quantity, signs, points, values, design)
    _check_estimators(quantity, points, values, design)
    _check_summands(quantity, points, values, design)


def _check_summands(quantity: Composite, points: np.ndarray, values: np.ndarray, design: Callable[[int], Architecture]) -> None:
    """FalseDeclaration where the summands do not add up to the formula, or a factor is above a tangent or out of its range."""
    if not (summands := quantity.summands):
        return
    with np.errstate(all="ignore"):
        factors = [np.broadcast_to(summand.factor(points), points.shape[1:]) for summand in summands]
        terms = [each.weight * factor * points[each.part] for each, factor in zip(summands, factors, strict=True)]
    wrong = np.abs(np.sum(terms, axis=0) - values) > _ROUNDING * (np.sum(np.abs(terms), axis=0) + np.abs(values))
    if wrong.any():
        n = int(wrong.argmax())
        total = np.sum(terms, axis=0)[n]
        raise FalseDeclaration(
            f"the summands of {quantity.name} add up to {total:.10g} at {design(n)}, its value is {values[n]:.10g}"
        )
    lower, upper = points.min(axis=1), points.max(axis=1)
    for number, (summand, factor) in enumerate(zip(summands, factors, strict=True), start=1):
        least, most = summand.range(lower, upper)
        above = (factor > most + _ROUNDING * abs(most)) | (factor < least - _ROUNDING * abs(least))
        for near in points.T[:_BOXES]:
            coefficients, constant = summand.tangent(near)
            plane = coefficients @ points + constant
            above |= factor > plane + _ROUNDING * (np.abs(coefficients) @ np.abs(points) + abs(constant))
        if above.any() or summand.weight < 0 or points[summand.part].min() < 0:
            n = int(above.argmax())
            raise FalseDeclaration(
                f"summand {number} of {quantity.name} is not what a Summand has to be at {design(n)}: "
                "expected a weight and a part of at least 0, and a factor within its range and nowhere above its tangents"
            )


def _size(quantity: Composite, points: np.ndarray, sizes: np.ndarray, design: Callable[[int], Architecture]) -> float:
    """What the rounding of the parts is relative to: Σ_p |∂q/∂p|·(size of part p), at the most over the sample."""
    step, none = 1e-6, np.zeros(points.shape[1], dtype=bool)
    here = values_of_formula(quantity, points, design, none)
    total = np.abs(here)
    for p, size in enumerate(sizes):
        moved = points.copy()
        moved[p] += step * size
        total = total + np.abs(values_of_formula(quantity, moved, design, none) - here) / step
    return float(total[np.isfinite(total)].max(initial=0.0))


def _check_signs(
    quantity: Composite,
    signs: tuple[int, ...],
    points: np.ndarray,
    values: np.ndarray,
    design: Callable[[int], Architecture],
) -> None:
    """FalseDeclaration where the value falls as one part moves from a design in the direction that its sign calls better."""
    for p, sign in enumerate(signs):
        better = points[p].max() if sign > 0 else points[p].min()
        moved = points.copy()
        # Half way and all the way to the best value of the part in the sample, all other parts as in the design.
        for share in (0.5, 1.0):
            moved[p] = points[p] + share * (better - points[p])
            after = values_of_formula(quantity, moved, design, among=np.zeros(len(values), dtype=bool))
            fallen = np.flatnonzero(values - after > _ROUNDING * np.maximum(np.abs(values), np.abs(after)))
            if len(fallen):
                n = int(fallen[0])
                direction = "grows" if sign > 0 else "falls"
                raise FalseDeclaration(
                    f"{quantity.name} declares the sign {sign:+d} for its part {quantity.parts[p].name}, but from the design "
                    f"{design(n)} it falls from {values[n]:.10g} to {after[n]:.10g} as that part {direction} from "
                    f"{points[p, n]:.10g} to {moved[p, n]:.10g}"
                )


def _check_estimators(quantity: Composite, points: np.ndarray, values: np.ndarray, design: Callable[[int], Architecture]) -> None:
    """FalseDeclaration where the formula at a design in a box between two designs is above the overestimator of the box, or below
    its underestimator."""
    count = points.shape[1]
    corners = np.random.default_rng(1).integers(count, size=(2, _BOXES))
    corners[:, :2] = [[0, 0], [0, count - 1]]  # one box is a point
    lower = np.minimum(points[:, corners[0]], points[:, corners[1]]).T
    upper = np.maximum(points[:, corners[0]], points[:, corners[1]]).T
    lower[-1], upper[-1] = points.min(axis=1), points.max(axis=1)  # and one holds them all
    for near in (None, points[:, corners[0]].T):
        over, under = overestimate(quantity, lower, upper, near), underestimate(quantity, lower, upper, near)
        if not (np.isfinite(over[0]).all() and np.isfinite(over[1]).all()):
            box = int(np.flatnonzero(~(np.isfinite(over[0]).all(axis=1) & np.isfinite(over[1])))[0])
            raise Undefined(
                f"the overestimator of {quantity.name} is not finite on the box between the designs {design(int(corners[0, box]))} "
                f"and {design(int(corners[1, box]))}; expected finite coefficients and a finite constant"
            )
        for which, (coefficients, constants), sign in (("overestimator", over, 1), ("underestimator", under, -1)):
            # An underestimator that is not finite bounds nothing, which is no mistake.
            for box in map(int, np.flatnonzero(np.isfinite(coefficients).all(axis=1) & np.isfinite(constants))):
                slopes, constant = coefficients[box], constants[box]
                inside = np.flatnonzero(np.all((lower[box, :, None] <= points) & (points <= upper[box, :, None]), axis=0))
                estimate = slopes @ points[:, inside] + constant
                size = np.abs(slopes) @ np.abs(points[:, inside]) + abs(constant) + np.abs(values[inside])
                wrong = inside[sign * (values[inside] - estimate) > _ROUNDING * size]
                if len(wrong):
                    n = int(wrong[0])
                    raise FalseDeclaration(
                        f"the {which} of {quantity.name} is {slopes @ points[:, n] + constant:.10g} at the design {design(n)}, "
                        f"{'below' if sign > 0 else 'above'} its value {values[n]:.10g}, on the box from {_numbers(lower[box])} to "
                        f"{_numbers(upper[box])}"
                    )


def overestimate(
    composite: Composite, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """composite.overestimator in float64, of the shapes that it promises: coefficients (…, P) and constants (…).

    Raises FalseDeclaration naming the quantity for other shapes. Entries that are not finite bound nothing; whoever uses them must
    treat them so.
    """
    return _affine(composite, "overestimator", lower, upper, near)


def underestimate(
    composite: Composite, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """composite.underestimator, as `overestimate` gives the overestimator."""
    return _affine(composite, "underestimator", lower, upper, near)


def _affine(
    composite: Composite, which: str, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):
        coefficients, constants = getattr(composite, which)(lower, upper, near)
    coefficients, constants = np.asarray(coefficients, dtype=float), np.asarray(constants, dtype=float)
    if coefficients.shape != lower.shape or constants.shape != lower.shape[:-1]:
        raise FalseDeclaration(
            f"the {which} of {composite.name} returns arrays of shapes {coefficients.shape} and {constants.shape} for boxes "
            f"of shape {lower.shape}; expected {lower.shape} and {lower.shape[:-1]}"
        )
    return coefficients, constants


def _numbers(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
