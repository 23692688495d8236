"""The formula of a composite read as a rational one: a sum of products and quotients of affine functions of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from formulation import Composite

Affine = tuple[float, ...]
"""Slopes of the parts, and last the constant."""


class NotRational(ValueError):
    """A formula that is more than a sum of products and quotients of affine functions of its parts."""


@dataclass(frozen=True)
class Fraction:
    """coefficient · Π factors / Π divisors, each of them an affine function of the parts that is no constant."""

    coefficient: float
    factors: tuple[Affine, ...] = ()
    divisors: tuple[Affine, ...] = ()


@dataclass(frozen=True)
class Rational:
    """affine(parts) + Σ terms. It takes + − * / and whole powers, so that a formula can be called with it."""

    affine: Affine
    terms: tuple[Fraction, ...] = ()

    __array_ufunc__ = None  # a NumPy number beside it leaves the arithmetic to this class

    @property
    def constant(self) -> float | None:
        """Its value where it depends on no part."""
        return self.affine[-1] if not (self.terms or any(self.affine[:-1])) else None

    def _scaled(self, by: float) -> Rational:
        terms = (Fraction(by * term.coefficient, term.factors, term.divisors) for term in self.terms)
        return Rational(tuple(by * slope for slope in self.affine), tuple(terms) if by else ())

    def _of(self, other: Any) -> Rational:
        if isinstance(other, Rational):
            return other
        if isinstance(other, int | float | np.number):
            return Rational((0.0,) * (len(self.affine) - 1) + (float(other),))
        raise NotRational(f"it meets {other!r}, neither a number nor a part")

    def __add__(self, other: Any) -> Rational:
        other = self._of(other)
        return Rational(tuple(a + b for a, b in zip(self.affine, other.affine, strict=True)), self.terms + other.terms)

    def __neg__(self) -> Rational:
        return self._scaled(-1.0)

    def __pos__(self) -> Rational:
        return self

    def __sub__(self, other: Any) -> Rational:
        return self + -self._of(other)

    def __rsub__(self, other: Any) -> Rational:
        return self._of(other) - self

    def __mul__(self, other: Any) -> Rational:
        other = self._of(other)
        for one, two in ((self, other), (other, self)):
            if (constant := one.constant) is not None:
                return two._scaled(constant)
        result = self._of(0)
        for one in self._summands():
            for two in other._summands():
                product = Fraction(one.coefficient * two.coefficient, one.factors + two.factors, one.divisors + two.divisors)
                result = result + result._from(product)
        return result

    def __truediv__(self, other: Any) -> Rational:
        other = self._of(other)
        if (constant := other.constant) is not None:
            return self._scaled(1.0 / constant)
        if len(by := other._summands()) > 1:
            raise NotRational("it divides by a sum of products or quotients")
        result = self._of(0)
        for one in self._summands():
            factors, divisors = one.factors + by[0].divisors, one.divisors + by[0].factors
            result = result + result._from(Fraction(one.coefficient / by[0].coefficient, factors, divisors))
        return result

    def __rtruediv__(self, other: Any) -> Rational:
        return self._of(other) / self

    def __pow__(self, exponent: Any) -> Rational:
        if exponent not in (1, 2, 3, 4):
            raise NotRational(f"it takes the power {exponent!r}")
        result = self
        for _ in range(int(exponent) - 1):
            result = result * self
        return result

    __radd__ = __add__
    __rmul__ = __mul__

    def _summands(self) -> tuple[Fraction, ...]:
        """Itself as terms alone."""
        if any(self.affine[:-1]):
            return (Fraction(1.0, (self.affine,)), *self.terms)
        return (Fraction(self.affine[-1]), *self.terms) if self.affine[-1] else self.terms

    def _from(self, term: Fraction) -> Rational:
        """A term by itself, affine where it is."""
        zero = self._of(0.0)
        if term.divisors or len(term.factors) > 1:
            return Rational(zero.affine, (term,))
        if not term.factors:
            return self._of(term.coefficient)
        return Rational(tuple(term.coefficient * slope for slope in term.factors[0]))


def rational(composite: Composite) -> Rational:
    """The formula of a composite, read by calling it; NotRational if it is none of the kind."""
    count = len(composite.parts)
    parts = [Rational(tuple(float(p == q) for q in range(count + 1))) for p in range(count)]
    try:
        return parts[0]._of(composite.formula(parts))
    except (TypeError, AttributeError, ZeroDivisionError) as error:
        raise NotRational(f"it is more than sums, products and quotients ({error})") from error
