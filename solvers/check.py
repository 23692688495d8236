"""Checks a certificate with exact arithmetic, by itself: the standard library, and nothing of what found the proof.

    python -m solvers.check certificate.json          or, alone:   python -I -S solvers/check.py certificate.json

It answers *accepted* (exit code 0), *refused* with the step that fails (3), or *not checkable* with the reason (4).

What is claimed. One item is chosen at each of N positions; where the positions are linked, each item has a state, and which state
may follow which is listed. A *part* of a choice is a fixed number plus the terms of its items (and of the joints between the
states of neighbours), or the greatest of them. A *budget* says that a weighted sum of parts is at most a limit. The claim is

    no choice that is within all limits is worth more than BOUND                    (or, without a bound: no choice is within them)

and that the choice which is given is one, within all limits, and worth what is said. All numbers are the fractions that their
doubles are; each row of terms is multiplied by a power of two, so that the checker adds whole numbers, and rounds nowhere, unless
a comment says so: then away from the claim. That the terms are those of the problem is not checked: they are the data.

One step. Let U(choice) = c + Σ_i u_i(item_i) be what no choice within the limits exceeds in worth, such as its value plus λ times
what it leaves of the limits, for any λ ≥ 0. The largest U is a longest path over the positions. The *loss* of an item is by how
much U falls short of that if the item is taken; losses add up along a choice. With the slack, largest U − BOUND, a choice that is
worth more than BOUND has losses below the slack in every such U, and likewise what it needs of each budget beyond the least fits
into what the least leaves. So a *label*, a partial choice, may be dropped as soon as one of these sums is too large, and labels
with equal sums (and states) are one: what may follow is the same. If no label is left after the last position, the claim holds.
The value itself and the budgets are always among the sums, exactly. A label that is left at the end is a choice that refutes the
claim.

Additive problems: the part "values" is the worth, the budgets are on the other parts; one such pass is the proof.

Boxes. The worth is a formula of a few parts, such as effective entropy

    α₁·m₁·A + α₂·m₂·B,   m₁ = 1 − β·L²/S₁,   m₂ = 1 − β·L²/S₂,   α, β ≥ 0, S > 0

A box is a range for each part and each m. The root's ranges follow from the terms. A split divides a box in two; to tighten a
range is a split whose one half is closed at once. A box is closed by an affine U of the parts whose largest value is at most
BOUND, or by a pass with several such U, at whose end the formula itself is evaluated. Each U is made here, from the box and from
the numbers θ, ρ, λ, ν of a step, all of which any values will do for (λ, ν ≥ 0 and 0 ≤ θ ≤ 1 is checked):

    A in [a, b], m in [m⁻, m⁺]:   m·A ≤ m⁺·A + a·(m − m⁺),   m·A ≤ m⁻·A + b·(m − m⁻)     (McCormick 1976), mixed by θ
    0 ≤ (L − ρ·S)²/S:             m ≤ 1 − β·(2ρL − ρ²S)                  (a tangent), where m's coefficient is ≥ 0
    least ≤ x ≤ most:             0 ≤ ν·(most − x),   0 ≤ ν·(x − least)    for parts and m
    use ≤ limit:                  0 ≤ λ·(limit − use)          for budgets
    L·X ≥ l·X + x·L − l·x,   L·X ≥ u·X + y·L − u·y   for L in [l, u], X in [x, y]   (blockwise entropy)

A part that is a maximum enters with the end of its range that is worse for the claim; its range says which items are out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

FORMAT = "merino certificate 1"
LABELS = 2_000_000
"""Labels that a pass may hold at a time, about 300 bytes each."""
_FILE = 1 << 30
"""Bytes that a certificate may have."""
_FINE = 80
"""Bits behind the point to which m⁺ is rounded up, m⁻ down."""
_FIELD = 44
"""Bits of a sum of losses: slack and losses are rounded down to so many, which drops no label that should stay."""


class Refused(Exception):
    """A step of a certificate does not hold; the message names it."""


class NotCheckable(Exception):
    """A certificate rests on something that cannot be checked; the message says on what."""


def _shown(number: Fraction | None) -> str:
    """A number for people, to the last bit of a double where it has one."""
    try:
        return "none" if number is None else f"{float(number):.17g}"
    except OverflowError:
        return "a number beyond 1.8e308"


# Reading


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused("reading the file: an object has a key twice")
    return found


def _constant(text: str) -> Any:
    raise Refused(f"reading the file: {text} is not a finite number")


def read(path: str) -> Any:
    """The JSON value in a file; Refused where it isn't one, OSError where there is no such file."""
    with open(path, "rb") as file:
        data = file.read(_FILE + 1)
    if len(data) > _FILE:
        raise Refused(f"reading the file: it has more than {_FILE:,} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(f"reading the file: it is not valid JSON ({str(error) or 'nested too deeply'})") from None


def _object(value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{where} is not an object")
    required = set(required)
    if missing := sorted(required - value.keys()):
        raise Refused(f"{where} lacks {missing[0]}")
    if unknown := sorted(value.keys() - required - set(optional)):
        raise Refused(f"{where} has the unknown key {unknown[0]!r}")
    return value


def _list(value: Any, where: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(f"{where} is not a list")
    if length is not None and len(value) != length:
        raise Refused(f"{where} has {len(value)} entries; expected {length}")
    return value


def _number(value: Any, where: str) -> Fraction:
    """The fraction that a number is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refused(f"{where} is not a finite number")
    return Fraction(value)


def _whole(value: Any, where: str, least: int, below: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < below:
        raise Refused(f"{where} is not a whole number from {least} to {below - 1}")
    return value


def _nonnegative(value: Any, where: str) -> Fraction:
    number = _number(value, where)
    if number < 0:
        raise Refused(f"{where} is negative")
    return number


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{where} is not a text")
    return value


# The data of a claim


@dataclass(frozen=True, eq=False)
class Part:
    """A number of a choice, as whole numbers times 2^−bits.

    Attributes:
        terms: per position of each item; of an item that is not in the problem, 0.
        joints: per pair of neighbours, by their states; None where no joint has a term.
    """

    name: str
    is_max: bool
    bits: int
    fixed: int
    terms: list[list[int]]
    joints: list[list[list[int]]] | None

    @cached_property
    def is_whole(self) -> bool:
        """Whether it is a whole number for every choice."""
        return self.bits == 0

    def exact(self, number: int) -> Fraction:
        """What a whole number of this part's stands for."""
        return Fraction(number, 1 << self.bits)


def _part(name: str, is_max: bool, fixed: Any, terms: Any, joints: Any, chain: Chain) -> Part:
    """Read a part, and scale it to whole numbers."""
    rows = _list(terms, f"{name}: terms", chain.positions)
    ratios: list[list[tuple[int, int]]] = []
    for i, (row, there) in enumerate(zip(rows, chain.there, strict=True)):
        where = f"{name}: terms at position {i}"
        own = []
        for j, (term, is_there) in enumerate(zip(_list(row, where, len(there)), there, strict=True)):
            if (term is not None) is not is_there:
                raise Refused(f"{where}: item {j} is null in some parts only")
            if type(term) is float and math.isfinite(term):
                own.append(term.as_integer_ratio())
            else:
                own.append(_number(term, f"{where}: item {j}").as_integer_ratio() if is_there else (0, 1))
        ratios.append(own)
    pairs: list[list[list[tuple[int, int]]]] | None = None
    if joints is not None:
        pairs = [
            [
                [
                    _number(term, f"{name}: joint {i} {s} {t}").as_integer_ratio()
                    for t, term in enumerate(_list(row, f"{name}: joint {i} {s}", chain.states[i + 1]))
                ]
                for s, row in enumerate(_list(matrix, f"{name}: joint {i}", chain.states[i]))
            ]
            for i, matrix in enumerate(_list(joints, f"{name}: joints", chain.positions - 1))
        ]
    own_fixed = _number(fixed, f"{name}: fixed").as_integer_ratio()
    flat = [own_fixed, *(r for row in ratios for r in row), *(r for m in pairs or () for row in m for r in row)]
    bits = max(denominator for _, denominator in flat).bit_length() - 1

    def scaled(ratio: tuple[int, int]) -> int:
        return (ratio[0] << bits) // ratio[1]

    return Part(
        name,
        is_max,
        bits,
        scaled(own_fixed),
        [list(map(scaled, row)) for row in ratios],
        None if pairs is None else [[list(map(scaled, row)) for row in matrix] for matrix in pairs],
    )


@dataclass(frozen=True, eq=False)
class Chain:
    """Which choices there are.

    Attributes:
        there: per position which items the problem has.
        state: per position the state of each item.
        after: per pair of neighbours, per state of the first, the states that may follow.
        states: per position how many.
        linked: whether it matters which item stands where.
    """

    there: list[list[bool]]
    state: list[list[int]]
    after: list[list[list[int]]]
    states: list[int]
    linked: bool

    @property
    def positions(self) -> int:
        """N."""
        return len(self.there)


def _chain(pattern: Any, where: str, links: Any) -> Chain:
    """Read the items from a row of terms, and how they are linked."""
    rows = _list(pattern, where)
    if not rows:
        raise Refused(f"{where} has no positions")
    there = [[term is not None for term in _list(row, f"{where} at position {i}")] for i, row in enumerate(rows)]
    for i, row in enumerate(there):
        if not row:
            raise Refused(f"{where} at position {i} has no items")
    if links is None or len(rows) == 1:  # one position has no neighbours
        single = [[0] * len(row) for row in there]
        return Chain(there, single, [[[0]]] * (len(there) - 1), [1] * len(there), False)
    matrices = _list(links["steps"], "links: steps", len(there) - 1)
    states = [len(_list(matrix, f"links: steps {i}")) for i, matrix in enumerate(matrices)]
    states.append(len(_list(matrices[-1][0], "links: the last step")) if matrices[-1] else 0)
    after = []
    for i, matrix in enumerate(matrices):
        own = []
        for s, row in enumerate(matrix):
            allowed = _list(row, f"links: step {i} from state {s}", states[i + 1])
            if not all(type(entry) in (int, bool) and entry in (0, 1) for entry in allowed):
                raise Refused(f"links: step {i} from state {s} has an entry other than 0 and 1")
            own.append([t for t, entry in enumerate(allowed) if entry])
        after.append(own)
    state = []
    for i, (row, items) in enumerate(zip(_list(links["states"], "links: states", len(there)), there, strict=True)):
        own_states = _list(row, f"links: states at position {i}", len(items))
        state.append([_whole(s, f"links: state of item {j} at position {i}", 0, states[i]) for j, s in enumerate(own_states)])
    return Chain(there, state, after, states, True)


Affine = tuple[Fraction, list[Fraction]]
"""A constant, and a coefficient for each part."""


@dataclass(frozen=True, eq=False)
class Budget:
    """weights · parts ≤ limit."""

    weights: list[Fraction]
    limit: Fraction


@dataclass(frozen=True, eq=False)
class Claim:
    """What is claimed, see above.

    Attributes:
        bound: None for the claim that no choice is within the limits.
        design: an item for each position, None if none is given.
        said: what the design is said to be worth.
    """

    chain: Chain
    parts: list[Part]
    worth: Worth
    budgets: list[Budget]
    bound: Fraction | None
    design: list[int] | None
    said: Fraction | None

    @cached_property
    def kinds(self) -> list[int]:
        """Per position the first one with the same items, terms and states."""
        seen: dict[Any, int] = {}
        chain = self.chain
        return [
            seen.setdefault((tuple(chain.there[i]), tuple(chain.state[i]), tuple(tuple(part.terms[i]) for part in self.parts)), i)
            for i in range(chain.positions)
        ]

    @cached_property
    def joint_kinds(self) -> list[int]:
        """Per pair of neighbours the first one with the same steps and joints."""
        seen: dict[Any, int] = {}
        joints = [part.joints for part in self.parts if part.joints is not None]

        def content(i: int) -> Any:
            return tuple(map(tuple, self.chain.after[i])), tuple(tuple(map(tuple, own[i])) for own in joints)

        return [seen.setdefault(content(i), i) for i in range(len(self.chain.after))]

    def totals(self, design: Sequence[int]) -> list[Fraction]:
        """The parts of a choice."""
        state = [self.chain.state[i][j] for i, j in enumerate(design)]
        found = []
        for part in self.parts:
            terms = [part.fixed, *(part.terms[i][j] for i, j in enumerate(design))]
            terms += [part.joints[i][s][t] for i, (s, t) in enumerate(pairwise(state))] if part.joints is not None else []
            found.append(part.exact(max(terms) if part.is_max else sum(terms)))
        return found

    def check_design(self) -> Fraction | None:
        """The worth of the choice that is given; Refused if it isn't one, exceeds a limit or is not worth what is said."""
        if self.design is None:
            if self.said is not None:
                raise Refused("design: a value is given, but no design")
            return None
        if self.bound is None:
            raise Refused("design: one is given, and no choice is said to be within the limits")
        chain, design = self.chain, self.design
        for i, j in enumerate(design):
            if not chain.there[i][j]:
                raise Refused(f"design: item {j} at position {i} is not in the problem")
            if i and chain.state[i][j] not in chain.after[i - 1][chain.state[i - 1][design[i - 1]]]:
                raise Refused(f"design: item {j} at position {i} may not follow item {design[i - 1]}")
        parts = self.totals(design)
        for k, budget in enumerate(self.budgets):
            use = sum((weight * part for weight, part in zip(budget.weights, parts, strict=True)), Fraction(0))
            if use > budget.limit:
                raise Refused(f"design: it uses {_shown(use)} of budget {k}, whose limit is {_shown(budget.limit)}")
        worth = self.worth.value(parts)
        if self.said is not None and abs(worth - self.said) > self.worth.size(parts, worth) / 10**9:
            raise Refused(f"design: it is worth {_shown(worth)}, not {_shown(self.said)}")
        if worth > self.bound:
            raise Refused(f"design: it is worth {_shown(worth)}, more than the bound {_shown(self.bound)}")
        return worth


# Boxes

Box = list[tuple[Fraction | None, Fraction | None]]
"""Per variable, parts first, the least and the most that it may be; None for no limit."""


@dataclass(frozen=True, eq=False)
class Step:
    """The numbers of one affine bound, see above.

    Attributes:
        counts: whether the worth is in it, or the budgets and ranges alone contradict each other.
        ranges: variable, whether it is the most that is meant, and the multiplier.
    """

    counts: bool = True
    theta: tuple[Fraction, Fraction] = (Fraction(1, 2), Fraction(1, 2))
    tangents: tuple[list[tuple[Fraction, Fraction]], list[tuple[Fraction, Fraction]]] = ([], [])
    budgets: list[Fraction] = field(default_factory=list)
    ranges: list[tuple[int, bool, Fraction]] = field(default_factory=list)


class Worth:
    """weights · parts, the worth of a choice; what else it may be derives from it."""

    variables: tuple[str, ...] = ()
    """Names of the variables beside the parts."""

    def __init__(self, weights: list[Fraction]) -> None:
        self.weights = weights

    def value(self, parts: Sequence[Fraction]) -> Fraction:
        """The worth of a choice."""
        return sum((weight * part for weight, part in zip(self.weights, parts, strict=True)), Fraction(0))

    def size(self, parts: Sequence[Fraction], worth: Fraction) -> Fraction:
        """What the rounding of a worth that was added up in floating point is relative to."""
        return abs(worth) + sum((abs(weight * part) for weight, part in zip(self.weights, parts, strict=False)), Fraction(0))

    def derive(self, box: Box) -> Box:
        """The box with the ranges that follow from those of the parts."""
        return box

    def above(self, step: Step, box: Box, where: str) -> tuple[Fraction, list[Fraction]]:
        """A constant and coefficients of all variables, nowhere below the worth in a box."""
        return Fraction(0), list(self.weights)

    def settle(self, step: Step, box: Box, constant: Fraction, coefficients: list[Fraction], where: str) -> Affine:
        """The same in terms of the parts alone."""
        return constant, coefficients


def _ends(box: Box, variable: int, where: str) -> tuple[Fraction, Fraction]:
    least, most = box[variable]
    if least is None or most is None:
        raise Refused(f"{where}: variable {variable} has no finite range")
    return least, most


def is_empty(box: Box) -> bool:
    """Whether a variable has nothing that it may be."""
    return any(least is not None and most is not None and least > most for least, most in box)


def _square(low: Fraction, high: Fraction) -> tuple[Fraction, Fraction]:
    """The least and the greatest square of what lies between."""
    squares = low * low, high * high
    return (Fraction(0) if low < 0 < high else min(squares)), max(squares)


def _up(value: Fraction) -> Fraction:
    return Fraction(math.ceil(value * (1 << _FINE)), 1 << _FINE)


def _down(value: Fraction) -> Fraction:
    return Fraction(math.floor(value * (1 << _FINE)), 1 << _FINE)


class EffectiveEntropy(Worth):
    """α₁·m₁·A + α₂·m₂·B, see above. `ratios`: for S₁ and S₂ the least and greatest of L/S over items, None if none follow."""

    variables = ("m1", "m2")

    def __init__(self, alpha: list[Fraction], beta: Fraction, numbers: list[int], parts: int) -> None:
        super().__init__([])
        self.alpha, self.beta, self.count = alpha, beta, parts
        self.depth, self.entropies = numbers[0], numbers[3:]
        self.logs = numbers[1:3]
        self.ratios: list[tuple[Fraction, Fraction] | None] = [None, None]

    def value(self, parts: Sequence[Fraction]) -> Fraction:
        total = Fraction(0)
        for alpha, log, entropy in zip(self.alpha, self.logs, self.entropies, strict=True):
            discounted = alpha and self.beta
            if discounted and parts[log] <= 0:
                raise Refused("a choice within the limits has no worth: its logarithmic width is 0")
            discount = self.beta * parts[self.depth] ** 2 / parts[log] if discounted else 0
            total += alpha * (1 - discount) * parts[entropy]
        return total

    def derive(self, box: Box) -> Box:
        if is_empty(box):
            return box
        least, most = _square(*_ends(box, self.depth, "L"))
        box = list(box)
        for k, log in enumerate(self.logs):
            if not (self.alpha[k] and self.beta):  # no discount, or a term that is not there
                box[self.count + k] = Fraction(1), Fraction(1)
                continue
            narrow, wide = _ends(box, log, "S")
            if self.ratios[k] is not None and self.ratios[k][1] > 0:  # type: ignore[index]
                narrow = max(narrow, _ends(box, self.depth, "L")[0] / self.ratios[k][1])  # type: ignore[index]
                box[log] = narrow, wide
            if narrow <= 0:  # no m, so that no step may speak of it
                box[self.count + k] = None, None
                continue
            if narrow > wide:
                return box
            highest, lowest = 1 - self.beta * least / wide, 1 - self.beta * most / narrow
            if self.ratios[k] is not None:
                small, large = self.ratios[k]  # type: ignore[misc]
                low, high = _ends(box, self.depth, "L")
                highest = min(highest, 1 - self.beta * low * small)
                lowest = max(lowest, 1 - self.beta * high * large)
            known_low, known_high = box[self.count + k]
            lowest, highest = _down(lowest), _up(highest)
            box[self.count + k] = (
                lowest if known_low is None else max(lowest, known_low),
                highest if known_high is None else min(highest, known_high),
            )
        return box

    def above(self, step: Step, box: Box, where: str) -> tuple[Fraction, list[Fraction]]:
        constant, coefficients = Fraction(0), [Fraction(0)] * len(box)
        for k, (alpha, entropy) in enumerate(zip(self.alpha, self.entropies, strict=True)):
            a, b = _ends(box, entropy, where)
            low, high = _ends(box, self.count + k, where)
            for share, corner, end in ((step.theta[k], a, high), (1 - step.theta[k], b, low)):
                coefficients[entropy] += alpha * share * end
                coefficients[self.count + k] += alpha * share * corner
                constant -= alpha * share * corner * end
        return constant, coefficients

    def settle(self, step: Step, box: Box, constant: Fraction, coefficients: list[Fraction], where: str) -> Affine:
        coefficients = list(coefficients)
        for k, log in enumerate(self.logs):
            coefficient = coefficients[self.count + k]
            if not coefficient:
                continue
            if coefficient < 0 or not step.tangents[k] or not self.alpha[k]:
                low, high = _ends(box, self.count + k, where)
                constant += coefficient * (low if coefficient < 0 else high)
                continue
            total = sum((weight for weight, _ in step.tangents[k]), Fraction(0))
            if not total:
                raise Refused(f"{where}: the weights of the tangents of m{k + 1} are all 0")
            constant += coefficient
            for weight, rho in step.tangents[k]:
                share = coefficient * self.beta * weight / total
                coefficients[self.depth] -= share * 2 * rho
                coefficients[log] += share * rho * rho
        return constant, coefficients[: self.count]


class BlockwiseEntropy(Worth):
    """α₁·(A − β·L·X) + α₂·(B − β·L·Y), see above."""

    def __init__(self, alpha: list[Fraction], beta: Fraction, numbers: list[int], parts: int) -> None:
        super().__init__([])
        self.alpha, self.beta, self.count = alpha, beta, parts
        self.depth, self.entropies, self.losses = numbers[0], numbers[1:3], numbers[3:]

    def value(self, parts: Sequence[Fraction]) -> Fraction:
        terms = zip(self.alpha, self.entropies, self.losses, strict=True)
        return sum((a * (parts[e] - self.beta * parts[self.depth] * parts[x]) for a, e, x in terms), Fraction(0))

    def above(self, step: Step, box: Box, where: str) -> tuple[Fraction, list[Fraction]]:
        constant, coefficients = Fraction(0), [Fraction(0)] * len(box)
        depths = _ends(box, self.depth, where)
        for k, (alpha, entropy, loss) in enumerate(zip(self.alpha, self.entropies, self.losses, strict=True)):
            coefficients[entropy] += alpha
            for share, depth, end in zip((step.theta[k], 1 - step.theta[k]), depths, _ends(box, loss, where), strict=True):
                weight = alpha * self.beta * share
                coefficients[loss] -= weight * depth
                coefficients[self.depth] -= weight * end
                constant += weight * depth * end
        return constant, coefficients


def _bound_of(step: Step, claim: Claim, box: Box, where: str) -> Affine:
    """U of a step, in terms of the sums among the parts."""
    size = len(box)
    constant, coefficients = claim.worth.above(step, box, where) if step.counts else (Fraction(0), [Fraction(0)] * size)
    coefficients = coefficients + [Fraction(0)] * (size - len(coefficients))
    for multiplier, budget in zip(step.budgets, claim.budgets, strict=True):
        constant += multiplier * budget.limit
        for p, weight in enumerate(budget.weights):
            coefficients[p] -= multiplier * weight
    for variable, is_most, multiplier in step.ranges:
        least, most = _ends(box, variable, where)
        constant += multiplier * (most if is_most else -least)
        coefficients[variable] += -multiplier if is_most else multiplier
    constant, coefficients = claim.worth.settle(step, box, constant, coefficients, where)
    for p, part in enumerate(claim.parts):
        if part.is_max and coefficients[p]:
            least, most = _ends(box, p, where)
            constant += coefficients[p] * (most if coefficients[p] > 0 else least)
            coefficients[p] = Fraction(0)
    return constant, coefficients


# Paths and labels


@dataclass(frozen=True, eq=False)
class Scores:
    """An affine function of the sums among the parts, as whole numbers times `unit`.

    Attributes:
        items: per position.
        joints: per pair of neighbours by states; None where none has a term.
    """

    constant: int
    items: list[list[int]]
    joints: list[list[list[int]]] | None
    unit: Fraction


def _scores(affine: Affine, claim: Claim) -> Scores:
    constant, coefficients = affine
    used = [p for p, coefficient in enumerate(coefficients) if coefficient]
    parts = [claim.parts[p] for p in used]
    bits = max((part.bits for part in parts), default=0)
    common = math.lcm(constant.denominator, *(coefficients[p].denominator for p in used))
    factors = [int(coefficients[p] * common) << (bits - claim.parts[p].bits) for p in used]
    whole = int(constant * common) << bits
    whole += sum(factor * part.fixed for factor, part in zip(factors, parts, strict=True))
    made: dict[int, list[int]] = {}
    for kind in set(claim.kinds):
        rows = [part.terms[kind] for part in parts]
        made[kind] = [sum(map(int.__mul__, factors, terms)) for terms in zip(*rows, strict=True)] or [0] * len(
            claim.chain.there[kind]
        )
    joints = None
    pairs = [(factor, part.joints) for factor, part in zip(factors, parts, strict=True) if part.joints is not None]
    if pairs:
        known: dict[int, list[list[int]]] = {}
        for i in set(claim.joint_kinds):
            known[i] = [
                [sum(factor * own[i][s][t] for factor, own in pairs) for t in range(claim.chain.states[i + 1])]
                for s in range(claim.chain.states[i])
            ]
        joints = [known[i] for i in claim.joint_kinds]
    return Scores(whole, [made[kind] for kind in claim.kinds], joints, Fraction(1, common << bits))


def _allowed(claim: Claim, box: Box) -> list[list[int]]:
    """Per position the items of a box: those in the problem that no maximum keeps out."""
    tops = [(part, box[p][1]) for p, part in enumerate(claim.parts) if part.is_max]
    limits = [(part.terms, math.floor(most * (1 << part.bits))) for part, most in tops if most is not None]
    return [
        [j for j, there in enumerate(row) if there and all(terms[i][j] <= limit for terms, limit in limits)]
        for i, row in enumerate(claim.chain.there)
    ]


Potential = list[list[int | None]]
"""Per position, per state, the best that may follow behind it; None if nothing may."""


def _potential(scores: Scores, claim: Claim, allowed: list[list[int]]) -> tuple[int | None, Potential]:
    """The largest value of a score, None where there is no choice, and what is behind each position and state."""
    chain = claim.chain
    behind: list[int | None] = [0] * chain.states[-1]
    found: Potential = [behind]
    for i in range(chain.positions - 1, 0, -1):
        entering = _entering(scores.items[i], chain.state[i], allowed[i], found[0])
        joint = None if scores.joints is None else scores.joints[i - 1]
        own: list[int | None] = []
        for s, after in enumerate(chain.after[i - 1]):
            reached = [value if joint is None else value + joint[s][t] for t in after if (value := entering[t]) is not None]
            own.append(max(reached, default=None))
        found.insert(0, own)
    first = [value for value in _entering(scores.items[0], chain.state[0], allowed[0], found[0]) if value is not None]
    return (max(first) + scores.constant if first else None), found


def _entering(items: list[int], states: list[int], allowed: list[int], behind: list[int | None]) -> list[int | None]:
    """Per state the best of an item of that state with what follows it."""
    best: list[int | None] = [None] * len(behind)
    for j in allowed:
        known = best[states[j]]
        if known is None or items[j] > known:
            best[states[j]] = items[j]
    return [None if a is None or b is None else a + b for a, b in zip(best, behind, strict=True)]


@dataclass(frozen=True, eq=False)
class Sum:
    """What the losses of a choice may add up to, for one U.

    Attributes:
        over: what U has to exceed, or `strictly` False, to reach.
        is_exact: whether the losses are not to be rounded down.
    """

    scores: Scores
    over: Fraction
    strictly: bool
    is_exact: bool

    def over_items(self, claim: Claim, allowed: list[list[int]]) -> Losses | None:
        """The losses among some items; None where no choice of them does."""
        top, behind = _potential(self.scores, claim, allowed)
        if top is None:
            return None
        room = top - self.over / self.scores.unit
        slack = math.ceil(room) - 1 if self.strictly else math.floor(room)
        shift = 0 if self.is_exact else max(slack.bit_length() - _FIELD, 0)
        return None if slack < 0 else Losses(self.scores, behind, top, slack, shift)


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of one U among some items.

    Attributes:
        behind: see `Potential`.
        top: the largest U, as a whole number.
        slack: the most that the losses of a choice may add up to.
        shift: bits that are dropped of each loss, and of the slack.
    """

    scores: Scores
    behind: Potential
    top: int
    slack: int
    shift: int

    @property
    def width(self) -> int:
        """Bits of the slack."""
        return (self.slack >> self.shift).bit_length()

    def after(self, i: int, s: int, chain: Chain, items: list[int]) -> list[int | None]:
        """The loss of items of position i after state s; None of one that nothing may follow."""
        before = self.top - self.scores.constant if i == 0 else self.behind[i - 1][s]
        assert before is not None
        terms, behind, state = self.scores.items[i], self.behind[i], chain.state[i]
        joint = self.scores.joints[i - 1][s] if i and self.scores.joints is not None else [0] * chain.states[i]
        found: list[int | None] = []
        for j in items:
            rest = behind[state[j]]
            found.append(None if rest is None else before - terms[j] - rest - joint[state[j]])
        return found

    def fixed(self, claim: Claim, allowed: list[list[int]]) -> list[list[int]]:
        """Per position the items whose loss, with the best before and behind them, is within the slack."""
        chain, scores = claim.chain, self.scores
        ahead: list[int | None] = [self.scores.constant] * chain.states[0]
        kept = []
        for i, items in enumerate(allowed):
            terms, state, behind = scores.items[i], chain.state[i], self.behind[i]
            least = self.top - self.slack
            kept.append(
                [
                    j
                    for j in items
                    if (a := ahead[state[j]]) is not None and (b := behind[state[j]]) is not None and a + terms[j] + b >= least
                ]
            )
            if i + 1 < chain.positions:
                best = _entering(terms, state, items, [0 if a is not None else None for a in ahead])
                reached = [None if a is None or b is None else a + b for a, b in zip(ahead, best, strict=True)]
                ahead = [None] * chain.states[i + 1]
                for s, after in enumerate(chain.after[i]):
                    value = reached[s]
                    for t in after if value is not None else ():
                        through = value + (0 if scores.joints is None else scores.joints[i][s][t])  # type: ignore[operator]
                        known = ahead[t]
                        ahead[t] = through if known is None else max(known, through)
        return kept


@dataclass
class Count:
    """What checking took, and may take.

    Attributes:
        boxes: seen so far.
        labels: extended so far.
        most: labels held at a time.
        work: labels extended in all; None for no limit.
    """

    boxes: int = 0
    labels: int = 0
    most: int = LABELS
    work: int | None = None


class Pass:
    """One complete label pass over a box. `ranged`: the sums among the parts whose range the box says, two sums for each."""

    def __init__(self, steps: list[Step], claim: Claim, box: Box, where: str) -> None:
        self.claim, self.where = claim, where
        self.sums: list[Sum] = []
        self.ranged = [p for p, part in enumerate(claim.parts) if not part.is_max and box[p] != (None, None)]
        for p in self.ranged:
            least, most = _ends(box, p, where)
            self._add(_unit(p, -1, claim), -most, False, True)
            self._add(_unit(p, 1, claim), least, False, True)
        sums = type(claim.worth) is Worth and not any(part.is_max for part in claim.parts)
        plain = type(claim.worth) is Worth
        beyond, strictly = (claim.bound, True) if claim.bound is None or not sums else _beyond(claim, claim.bound)
        nothing = [Fraction(0)] * len(claim.budgets)
        if plain and beyond is not None:
            self._add(_bound_of(Step(budgets=nothing), claim, box, where), beyond, strictly, True)
        for k in range(len(claim.budgets)):
            alone = Step(counts=False, budgets=[*nothing[:k], Fraction(1), *nothing[k + 1 :]])
            self._add(_bound_of(alone, claim, box, where), Fraction(0), False, True)
        for step in steps:
            counts = step.counts and claim.bound is not None
            over = beyond if counts and beyond is not None else Fraction(0)
            self._add(_bound_of(replace(step, counts=counts), claim, box, where), over, counts and strictly, False)
        allowed: list[list[int]] | None = _allowed(claim, box)
        self.losses: list[Losses] = []
        while allowed is not None and allowed != (left := self._fixed(allowed, sums and not self.ranged)):
            allowed = left
        self.allowed = allowed

    def _add(self, affine: Affine, over: Fraction, strictly: bool, is_exact: bool) -> None:
        self.sums.append(Sum(_scores(affine, self.claim), over, strictly, is_exact))

    def _fixed(self, allowed: list[list[int]], dominate: bool) -> list[list[int]] | None:
        """The items that are left; None where that leaves no choice. Notes the losses among the ones given."""
        self.losses = []
        for own in self.sums:
            losses = own.over_items(self.claim, allowed)
            if losses is None:
                return None
            self.losses.append(losses)
        for losses in self.losses:
            allowed = [
                [j for j in items if j in kept]
                for items, kept in zip(allowed, map(set, losses.fixed(self.claim, allowed)), strict=True)
            ]
        return _undominated(self.claim, allowed) if dominate else allowed

    def run(self, order: list[int], count: Count) -> None:
        """Refused if a choice is left, NotCheckable where too many labels are."""
        if self.allowed is None:
            return
        self.places = [sum(own.width for own in self.losses[:f]) + f for f in range(len(self.losses))]
        guard = sum(1 << (place + own.width) for place, own in zip(self.places, self.losses, strict=True))
        start = guard + sum((own.slack >> own.shift) << place for place, own in zip(self.places, self.losses, strict=True))
        labels: dict[int, set[int]] = {0: {start}}
        for i in order:
            made: dict[int, set[int]] = {}
            held = 0
            for s, own_labels in labels.items():
                for t, losses in self._moves(i, s):
                    into = made.setdefault(t, set())
                    held -= len(into)
                    into |= {left for label in own_labels if (left := label - losses) & guard == guard}
                    held += len(into)
                    count.labels += len(own_labels)
                    if count.work is not None and count.labels > count.work:
                        raise NotCheckable(f"{self.where}: more than {count.work:,} labels have to be extended")
                    if held > count.most:
                        raise NotCheckable(f"{self.where}: more than {count.most:,} labels at position {i}; --labels allows more")
            labels = {t: own for t, own in made.items() if own}
            if not labels:
                return
        self._judge([label for own in labels.values() for label in own])

    def _moves(self, i: int, s: int) -> list[tuple[int, int]]:
        """State and packed losses of the items of position i that may follow state s."""
        chain = self.claim.chain
        assert self.allowed is not None
        items = [j for j in self.allowed[i] if not i or not chain.linked or chain.state[i][j] in chain.after[i - 1][s]]
        packed = [0] * len(items)
        for own, place in zip(self.losses, self.places, strict=True):
            for n, loss in enumerate(own.after(i, s, chain, items)):
                if packed[n] >= 0:
                    packed[n] = -1 if loss is None or loss > own.slack else packed[n] | (loss >> own.shift << place)
        return [(chain.state[i][j], losses) for j, losses in zip(items, packed, strict=True) if losses >= 0]

    def _judge(self, labels: list[int]) -> None:
        """Refused unless the formula closes every label that is left."""
        claim = self.claim
        if claim.bound is None or not self.ranged:
            above = "" if claim.bound is None else " and above the bound"
            raise Refused(f"{self.where}: {len(labels):,} choices that may be within all limits{above} are left")
        for label in labels:
            totals = [Fraction(0)] * len(claim.parts)
            for p, own, place in zip(self.ranged, self.losses[::2], self.places[::2], strict=False):
                lost = own.slack - (label >> place & (1 << own.width) - 1)
                totals[p] = (lost - own.top) * own.scores.unit
            worth = claim.worth.value(totals)
            if worth > claim.bound:
                raise Refused(f"{self.where}: a choice that may be within all limits is worth {_shown(worth)}")


def _beyond(claim: Claim, bound: Fraction) -> tuple[Fraction, bool]:
    """What a choice above a bound is worth at least; or the bound, and that it is worth more, where all are worth the same.

    Worths differ by multiples of what divides all differences between the terms of a position: whole numbers by 1 at least.
    """
    scores = _scores((Fraction(0), claim.worth.weights), claim)
    base, divisor = scores.constant, 0
    for terms, there in zip(scores.items, claim.chain.there, strict=True):
        own = [term for term, is_there in zip(terms, there, strict=True) if is_there]
        base += own[0] if own else 0
        divisor = math.gcd(divisor, *(term - own[0] for term in own))
    for joint in scores.joints or ():
        divisor = math.gcd(divisor, *(term for row in joint for term in row))
    if not divisor:
        return bound, True
    return (base + divisor * (math.floor((bound / scores.unit - base) / divisor) + 1)) * scores.unit, False


def _unit(p: int, sign: int, claim: Claim) -> Affine:
    """A part, or what it is negated."""
    return Fraction(0), [Fraction(sign if q == p else 0) for q in range(len(claim.parts))]


def _undominated(claim: Claim, allowed: list[list[int]]) -> list[list[int]]:
    """Items without those for which another of the same state is at least as good in worth and in every budget.

    In a choice within the limits that is worth more than the bound, each item may be replaced by such a one.
    """
    directions = [[-weight for weight in budget.weights] for budget in claim.budgets]
    directions += [] if claim.bound is None else [claim.worth.weights]
    rows = [_scores((Fraction(0), direction), claim).items for direction in directions]
    known: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    result = []
    for i, items in enumerate(allowed):
        key = claim.kinds[i], tuple(items)
        if key not in known:
            points = sorted(((*(row[i][j] for row in rows), -j) for j in items), reverse=True)
            kept: dict[int, list[tuple[int, ...]]] = {}
            for point in points:
                own = kept.setdefault(claim.chain.state[i][-point[-1]], [])
                if not any(all(map(int.__ge__, other[:-1], point[:-1])) for other in own):
                    own.append(point)
            known[key] = sorted(-point[-1] for own in kept.values() for point in own)
        result.append(known[key])
    return result


# Kinds of certificates


def _claimed_bound(data: dict[str, Any]) -> Fraction | None:
    return None if data["bound"] is None else _number(data["bound"], "bound")


def _claimed_design(data: dict[str, Any], chain: Chain) -> list[int] | None:
    if data.get("design") is None:
        return None
    design = _list(data["design"], "design", chain.positions)
    return [_whole(item, f"design: item at position {i}", 0, len(chain.there[i])) for i, item in enumerate(design)]


def _claimed_order(order: Any, chain: Chain, where: str) -> list[int]:
    own = [_whole(i, f"{where}: a position", 0, chain.positions) for i in _list(order, where, chain.positions)]
    if len(set(own)) < len(own):
        raise Refused(f"{where} has a position twice")
    if chain.linked and own != sorted(own):
        raise Refused(f"{where} is not ascending, and neighbours are linked")
    return own


def _optional_number(data: dict[str, Any], key: str) -> Fraction | None:
    return None if data.get(key) is None else _number(data[key], key)


def _additive(data: dict[str, Any], count: Count) -> tuple[Fraction | None, Fraction | None]:
    required = ("format", "kind", "values", "costs", "limits", "fixed", "design", "bound", "multipliers", "order")
    _object(data, "the certificate", required, ("problem", "objective", "links"))
    links = data.get("links")
    joints: dict[str, Any] = {}
    if links is not None:
        _object(links, "links", ("states", "steps"), ("joints",))
        if links.get("joints") is not None:
            joints = _object(links["joints"], "links: joints", ("values", "costs"))
    chain = _chain(data["values"], "values", links)
    limits = [_number(limit, f"limit {k}") for k, limit in enumerate(_list(data["limits"], "limits"))]
    costs = _list(data["costs"], "costs", len(limits))
    own_joints = _list(joints["costs"], "links: joints: costs", len(limits)) if joints else [None] * len(limits)
    parts = [_part("values", False, data["fixed"], data["values"], joints.get("values"), chain)]
    for k, (cost, joint) in enumerate(zip(costs, own_joints, strict=True)):
        parts.append(_part(f"cost {k}", False, 0, cost, joint, chain))

    def one(p: int) -> list[Fraction]:
        return [Fraction(int(q == p)) for q in range(len(parts))]

    budgets = [Budget(one(k + 1), limit) for k, limit in enumerate(limits)]
    claim = Claim(
        chain,
        parts,
        Worth(one(0)),
        budgets,
        _claimed_bound(data),
        _claimed_design(data, chain),
        _optional_number(data, "objective"),
    )
    steps = [
        Step(
            budgets=[
                _nonnegative(x, f"multiplier {k} of set {n}") for k, x in enumerate(_list(row, f"multipliers {n}", len(limits)))
            ]
        )
        for n, row in enumerate(_list(data["multipliers"], "multipliers"))
    ]
    order = _claimed_order(data["order"], chain, "order")
    worth = claim.check_design()
    count.boxes += 1
    Pass(steps, claim, [(None, None)] * len(parts), "the label pass").run(order, count)
    return claim.bound, worth


def _extremes(claim: Claim) -> Box:
    """What the parts may be, from the terms alone."""
    box: Box = []
    everything = [[j for j, there in enumerate(row) if there] for row in claim.chain.there]
    for p, part in enumerate(claim.parts):
        if part.is_max:
            rows = [[part.terms[i][j] for j in items] for i, items in enumerate(everything)]
            ends = [[term for row in matrix for term in row] for matrix in part.joints or ()]
            if not all(rows):
                box.append((Fraction(0), Fraction(-1)))
                continue
            box.append(
                (part.exact(max(part.fixed, *map(min, rows))), part.exact(max(part.fixed, *map(max, rows), *map(max, ends))))
            )
            continue
        ends_of = []
        for sign in (-1, 1):
            scores = _scores(_unit(p, sign, claim), claim)
            top, _ = _potential(scores, claim, everything)
            ends_of.append(None if top is None else sign * top * scores.unit)
        low, high = ends_of
        box.append((Fraction(0), Fraction(-1)) if low is None or high is None else (low, high))
    return box + [(None, None)] * len(claim.worth.variables)


def _ratios(claim: Claim, worth: EffectiveEntropy) -> None:
    """L/S is between the least and the greatest ratio of an item's terms, where no term is below 0 and L and S consist of those."""
    depth = claim.parts[worth.depth]
    for k, log in enumerate(worth.logs):
        part = claim.parts[log]
        pairs = [
            (depth.terms[i][j], part.terms[i][j]) for i in set(claim.kinds) for j, there in enumerate(claim.chain.there[i]) if there
        ]
        alone = depth.fixed or part.fixed or depth.joints is not None or part.joints is not None
        if alone or any(a < 0 or b < 0 or (a > 0) is not (b > 0) for a, b in pairs):
            continue
        ratios = [depth.exact(a) / part.exact(b) for a, b in pairs if b]
        if ratios:
            worth.ratios[k] = min(ratios), max(ratios)


def _worth(data: Any, parts: list[Part]) -> Worth:
    if not isinstance(data, dict) or data.get("formula") not in ("sum", "effective entropy", "blockwise entropy"):
        raise Refused("objective: its formula is none of sum, effective entropy, blockwise entropy")
    if data["formula"] == "sum":
        _object(data, "objective", ("formula", "weights"))
        weights = _list(data["weights"], "objective: weights", len(parts))
        return Worth([_number(weight, f"objective: weight {p}") for p, weight in enumerate(weights)])
    _object(data, "objective", ("formula", "alpha", "beta", "parts"))
    alpha = [_nonnegative(x, f"objective: alpha {k}") for k, x in enumerate(_list(data["alpha"], "objective: alpha", 2))]
    beta = _nonnegative(data["beta"], "objective: beta")
    numbers = [_whole(p, "objective: a part", 0, len(parts)) for p in _list(data["parts"], "objective: parts", 5)]
    if len(set(numbers)) < 5 or any(parts[p].is_max for p in numbers):
        raise Refused("objective: its parts are not five different sums")
    make = EffectiveEntropy if data["formula"] == "effective entropy" else BlockwiseEntropy
    return make(alpha, beta, numbers, len(parts))


def _variable(value: Any, claim: Claim, where: str) -> int:
    if isinstance(value, str) and value in claim.worth.variables:
        return len(claim.parts) + claim.worth.variables.index(value)
    return _whole(value, f"{where}: the variable", 0, len(claim.parts))


def _divisible(value: Any, box: Box, claim: Claim, where: str) -> int:
    """A variable that every choice of a box has, so that to divide its range is to divide the box."""
    variable = _variable(value, claim, where)
    if not is_empty(box):
        _ends(box, variable, where)
    return variable


def _step(data: Any, claim: Claim, where: str) -> Step:
    _object(data, where, (), ("objective", "theta", "tangents", "budgets", "ranges"))
    counts = _whole(data.get("objective", 1), f"{where}: objective", 0, 2) == 1
    theta = [_nonnegative(x, f"{where}: theta") for x in _list(data.get("theta", [0.5, 0.5]), f"{where}: theta", 2)]
    if max(theta) > 1:
        raise Refused(f"{where}: theta is above 1")
    tangents = []
    for k, own in enumerate(_list(data.get("tangents", [[], []]), f"{where}: tangents", 2)):
        pairs = [_list(pair, f"{where}: a tangent of m{k + 1}", 2) for pair in _list(own, f"{where}: tangents of m{k + 1}")]
        tangents.append([(_nonnegative(w, f"{where}: weight of a tangent"), _number(rho, f"{where}: rho")) for w, rho in pairs])
    budgets = _list(data.get("budgets", [0] * len(claim.budgets)), f"{where}: budgets", len(claim.budgets))
    ranges = []
    for entry in _list(data.get("ranges", []), f"{where}: ranges"):
        variable, side, multiplier = _list(entry, f"{where}: a range", 3)
        ranges.append(
            (_variable(variable, claim, where), _is_most(side, where), _nonnegative(multiplier, f"{where}: multiplier of a range"))
        )
    return Step(
        counts,
        (theta[0], theta[1]),
        (tangents[0], tangents[1]),
        [_nonnegative(x, f"{where}: multiplier of budget {k}") for k, x in enumerate(budgets)],
        ranges,
    )


def _is_most(side: Any, where: str) -> bool:
    if side not in ("least", "most"):
        raise Refused(f"{where}: the side is neither least nor most")
    return bool(side == "most")


def close(data: Any, claim: Claim, box: Box, where: str, count: Count) -> None:
    """Refused unless a proof closes a box."""
    if isinstance(data, dict) and "labels" in data:
        _object(data, where, ("labels", "order"))
        steps = [_step(own, claim, f"{where}, multipliers {n}") for n, own in enumerate(_list(data["labels"], f"{where}: labels"))]
        order = _claimed_order(data["order"], claim.chain, f"{where}: order")
    else:
        steps, order = [_step(data, claim, where)], None
    if is_empty(box):
        return
    if order is not None:
        Pass(steps, claim, box, where).run(order, count)
        return
    counts = steps[0].counts and claim.bound is not None
    scores = _scores(_bound_of(replace(steps[0], counts=counts), claim, box, where), claim)
    top, _ = _potential(scores, claim, _allowed(claim, box))
    if top is None:
        return
    largest = top * scores.unit
    if counts and largest > claim.bound:  # type: ignore[operator]
        raise Refused(f"{where}: its multipliers prove {_shown(largest)} only, above the bound {_shown(claim.bound)}")
    if not counts and largest >= 0:
        raise Refused(f"{where}: its multipliers do not show that budgets and ranges contradict each other")


def cut(box: Box, variable: int, at: Fraction, claim: Claim) -> tuple[Box, Box]:
    """The halves of a box in which a variable is at most, and at least, a number; of whole numbers, above it."""
    below, above = list(box), list(box)
    least, most = box[variable]
    whole = variable < len(claim.parts) and claim.parts[variable].is_whole
    low, high = (Fraction(math.floor(at)), Fraction(math.floor(at) + 1)) if whole else (at, at)
    below[variable] = least, low if most is None else min(most, low)
    above[variable] = high if least is None else max(least, high), most
    return below, above


def boxes_claim(data: dict[str, Any]) -> Claim:
    """The claim of a certificate of boxes, without its tree; Refused or NotCheckable as in `check`."""
    required = ("format", "kind", "parts", "objective", "budgets", "design", "bound", "nodes")
    _object(data, "the certificate", required, ("problem", "value", "links"))
    links = data.get("links")
    if links is not None:
        _object(links, "links", ("states", "steps"))
    rows = [
        _object(row, f"part {p}", ("name", "combine", "fixed", "terms"), ("joints",))
        for p, row in enumerate(_list(data["parts"], "parts"))
    ]
    if not rows:
        raise Refused("parts: there are none")
    chain = _chain(rows[0]["terms"], "part 0: terms", links)
    parts = []
    for p, row in enumerate(rows):
        if row["combine"] not in ("sum", "max"):
            raise Refused(f"part {p}: combine is neither sum nor max")
        name = f"part {p} ({_text(row['name'], f'part {p}: name')})"
        parts.append(_part(name, row["combine"] == "max", row["fixed"], row["terms"], row.get("joints"), chain))
    budgets = []
    for k, row in enumerate(_list(data["budgets"], "budgets")):
        _object(row, f"budget {k}", ("weights", "limit"), ("name",))
        weights = [
            (_nonnegative if part.is_max else _number)(weight, f"budget {k}: weight of part {p}")
            for p, (weight, part) in enumerate(zip(_list(row["weights"], f"budget {k}: weights", len(parts)), parts, strict=True))
        ]
        budgets.append(Budget(weights, _number(row["limit"], f"budget {k}: limit")))
    worth = _worth(data["objective"], parts)
    bound, design, said = _claimed_bound(data), _claimed_design(data, chain), _optional_number(data, "value")
    return Claim(chain, parts, worth, budgets, bound, design, said)


def root_box(claim: Claim) -> Box:
    """The box of all choices."""
    root = _extremes(claim)
    if isinstance(claim.worth, EffectiveEntropy):
        _ratios(claim, claim.worth)
    return claim.worth.derive(root)


def _boxes(data: dict[str, Any], count: Count) -> tuple[Fraction | None, Fraction | None]:
    claim = boxes_claim(data)
    root = root_box(claim)
    value = claim.check_design()
    _tree(_list(data["nodes"], "nodes"), root, claim, count)
    return claim.bound, value


def _tree(nodes: list[Any], root: Box, claim: Claim, count: Count) -> None:
    """Check that the boxes of a tree cover its root and are all closed."""
    boxes: dict[int, Box] = {0: root}
    rests = ""

    def child(number: Any, parent: int, box: Box) -> None:
        own = _whole(number, f"box {parent}: a child", parent + 1, len(nodes))
        if own in boxes:
            raise Refused(f"box {own} is the child of two boxes")
        boxes[own] = box

    if not nodes:
        raise Refused("nodes: there are none")
    for n, node in enumerate(nodes):
        if n not in boxes:
            raise Refused(f"box {n} is the child of none")
        where, box = f"box {n}", claim.worth.derive(boxes.pop(n))
        count.boxes += 1
        if not isinstance(node, dict):
            raise Refused(f"{where} is not an object")
        if "split" in node:
            _object(node, where, ("split", "below", "above"))
            variable, at = _list(node["split"], f"{where}: split", 2)
            below, above = cut(box, _divisible(variable, box, claim, where), _number(at, f"{where}: where it is split"), claim)
            child(node["below"], n, below)
            child(node["above"], n, above)
        elif "tighten" in node:
            _object(node, where, ("tighten", "by", "then"))
            variable, side, to = _list(node["tighten"], f"{where}: tighten", 3)
            number, most = _divisible(variable, box, claim, where), _is_most(side, where)
            limit = _number(to, f"{where}: the new limit")
            if not most and number < len(claim.parts) and claim.parts[number].is_whole:
                limit -= 1  # what is closed is below the new least
            below, above = cut(box, number, limit, claim)
            close(node["by"], claim, claim.worth.derive(above if most else below), f"{where}, tightened", count)
            child(node["then"], n, below if most else above)
        elif "close" in node:
            _object(node, where, ("close",))
            close(node["close"], claim, box, where, count)
        elif "engine" in node:
            _object(node, where, ("engine",))
            rests = rests or f"{where} rests on {_text(node['engine'], where)}"
        else:
            raise Refused(f"{where} is neither split, tightened nor closed")
    if rests:
        raise NotCheckable(rests)


def _union(data: dict[str, Any], count: Count) -> tuple[Fraction | None, Fraction | None]:
    _object(data, "the certificate", ("format", "kind", "parts", "bound"), ("problem",))
    bound = _claimed_bound(data)
    worths = []
    for row in _list(data["parts"], "parts"):
        _object(row, "a part", ("label", "certificate"))
        label = _text(row["label"], "the label of a part")
        try:
            own, worth = check(row["certificate"], count)
        except (Refused, NotCheckable) as error:
            raise type(error)(f"{label}: {error}") from None
        if own is not None and (bound is None or own > bound):
            raise Refused(f"{label}: its bound is above that of the union")
        worths.append(worth)
    if not worths:
        raise Refused("parts: there are none")
    return bound, max((worth for worth in worths if worth is not None), default=None)


def _unchecked(data: dict[str, Any], count: Count) -> tuple[Fraction | None, Fraction | None]:
    _object(data, "the certificate", ("kind", "why"), ("format", "problem"))
    raise NotCheckable(_text(data["why"], "why"))


_KINDS: dict[str, Callable[[dict[str, Any], Count], tuple[Fraction | None, Fraction | None]]] = {
    "additive": _additive,
    "boxes": _boxes,
    "union": _union,
    "not checkable": _unchecked,
}


def check(data: Any, count: Count | None = None) -> tuple[Fraction | None, Fraction | None]:
    """The bound that a certificate proves and the worth of its design, either None where there is none.

    Raises:
        Refused: naming the step that does not hold.
        NotCheckable: saying what it rests on.
    """
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str) or data["kind"] not in _KINDS:
        raise Refused(f"the certificate is not an object whose kind is one of {', '.join(_KINDS)}")
    if data["kind"] != "not checkable" and data.get("format") != FORMAT:
        raise Refused(f"the certificate's format is not {FORMAT!r}")
    return _KINDS[data["kind"]](data, count or Count())


def _report(data: dict[str, Any], bound: Fraction | None, worth: Fraction | None, count: Count) -> str:
    negated = isinstance(data.get("problem"), dict) and data["problem"].get("negated") is True
    sign, more = (-1, "less") if negated else (1, "more")
    if bound is None:
        claim = "no choice is within the limits"
    else:
        claim = f"no choice within the limits is worth {more} than {_shown(sign * bound)}"
    if worth is not None and bound is not None:
        gap = f", gap {float(_up((bound - worth) / abs(worth))):.2g}" if worth else ""
        claim += f"; the one given is within them and worth {_shown(sign * worth)}{gap}"
    return f"accepted: {claim} ({count.boxes:,} boxes, {count.labels:,} labels)"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m solvers.check",
        description="Check the certificate of a proof with exact arithmetic, without the code that found it.",
        epilog="Exit code: 0 accepted, 2 bad usage, 3 refused, 4 not checkable.",
    )
    parser.add_argument("certificate", help="the JSON file")
    parser.add_argument("--labels", type=int, default=LABELS, help="labels that a pass may hold at a time (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.labels < 1:
        parser.error(f"--labels is {options.labels}; expected a whole number of at least 1")
    count = Count(most=options.labels)
    try:
        data = read(options.certificate)
        bound, worth = check(data, count)
    except OSError as error:
        parser.error(f"cannot read {options.certificate}: {error.strerror or error}")
    except Refused as error:
        print(f"refused: {error}")
        return 3
    except NotCheckable as error:
        print(f"not checkable: {error}")
        return 4
    except MemoryError:
        print("not checkable: it takes more memory than there is")
        return 4
    except RecursionError:
        print("refused: reading the file: it is nested too deeply")
        return 3
    print(_report(data, bound, worth, count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
