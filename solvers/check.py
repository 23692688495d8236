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

A box is a range for each part and each m, and a set of items. The root's ranges follow from the terms. A split divides a box in
two; to tighten a range is a split whose one half is closed at once, with the planes of the whole box. Items are dropped whose
loss in a U, at all positions that are alike, exceeds the slack. So are those with a term beyond the most of a maximum, or of a
sum without negative terms, such as a part that counts positions. A box is closed by an affine U of the parts whose largest
value is at most BOUND, or by a pass with several such U, at whose end the formula itself is evaluated. Each U is made here,
from the box and from the numbers θ, ρ, λ, ν of a step, all of which any values will do for (λ, ν ≥ 0 and 0 ≤ θ ≤ 1 is checked):

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


def _shown(number: Fraction | None, digits: int = 17) -> str:
    """A number for people, to the last bit of a double where it has one."""
    try:
        return "none" if number is None else f"{float(number):.{digits}g}"
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
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{where} is not a finite number")
    try:
        is_double = float(value) == value and math.isfinite(value)
    except OverflowError:
        is_double = False
    if not is_double:
        raise Refused(f"{where} is not a finite number, or a whole one that no double is")
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
    return value.encode("ascii", "backslashreplace").decode() if value.isprintable() else ascii(value)


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

    @cached_property
    def is_growing(self) -> bool:
        """Whether no term is negative, so that an item or joint adds no less than nothing."""
        joints = [term for matrix in self.joints or () for row in matrix for term in row]
        return min(min(map(min, self.terms)), *joints, 0) >= 0

    @cached_property
    def greatest(self) -> int:
        """The greatest term of an item."""
        return max(map(max, self.terms))

    @cached_property
    def entries(self) -> dict[int, list[tuple[int, int]]]:
        """Of each row, by its id, the items that have a term other than 0, where they are few."""
        found = {}
        for row in {id(row): row for row in self.terms}.values():
            own = [(j, term) for j, term in enumerate(row) if term]
            if 4 * len(own) < len(row):
                found[id(row)] = own
        return found

    def exact(self, number: int) -> Fraction:
        """What a whole number of this part's stands for."""
        return Fraction(number, 1 << self.bits)


def _rows(value: Any, where: str, positions: int) -> tuple[list[Any], list[int]]:
    """Different rows, and which one each position has; in a certificate one row a position, or {"rows", "at"}."""
    if not isinstance(value, dict):
        rows, at = _list(value, where), list(range(len(value)))
    else:
        _object(value, where, ("rows", "at"))
        rows = _list(value["rows"], where)
        at = [_whole(number, f"{where}: a row", 0, len(rows)) for number in _list(value["at"], where)]
    if positions and len(at) != positions:
        raise Refused(f"{where} has {len(at)} entries; expected {positions}")
    if len(set(at)) < len(rows):
        raise Refused(f"{where} has a row that no position has")
    return rows, at


def read_part(name: str, is_max: bool, fixed: Any, terms: Any, joints: Any, chain: Chain) -> Part:
    """Read a part, and scale it to whole numbers."""
    rows, at = _rows(terms, f"{name}: terms", chain.positions)
    ratios: list[list[tuple[int, int]]] = []
    for row, first in zip(rows, map(at.index, range(len(rows))), strict=True):
        where, there = f"{name}: terms at position {first}", chain.there[first]
        if any(chain.there[i] != there for i, number in enumerate(at) if number == at[first]):
            raise Refused(f"{where} stand for positions with other items too")
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

    made = [list(map(scaled, row)) for row in ratios]
    return Part(
        name,
        is_max,
        bits,
        scaled(own_fixed),
        [made[number] for number in at],
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
    own_rows, at = _rows(pattern, where, 0)
    if not at:
        raise Refused(f"{where} has no positions")
    found = [[term is not None for term in _list(row, f"{where} at position {at.index(r)}")] for r, row in enumerate(own_rows)]
    rows = there = [found[number] for number in at]
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


Variable = int | str
"""The number of a part, or the name of what the worth says."""
Range = tuple[Fraction | None, Fraction | None]
"""The least and the most that a variable may be; None for no limit."""
Affine = tuple[Fraction, dict[Variable, Fraction]]
"""A constant, and coefficients of variables."""


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
        known: see `extremes`.
    """

    chain: Chain
    parts: list[Part]
    worth: Worth
    budgets: list[Budget]
    bound: Fraction | None
    design: list[int] | None
    said: Fraction | None
    known: dict[int, Range] = field(default_factory=dict)

    @cached_property
    def kinds(self) -> list[int]:
        """Per position the first one with the same items, terms and states."""
        seen: dict[Any, int] = {}
        chain = self.chain
        return [
            seen.setdefault((tuple(chain.there[i]), tuple(chain.state[i]), *(tuple(part.terms[i]) for part in self.parts)), i)
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

    @cached_property
    def everything(self) -> list[list[int]]:
        """Per position all items, one list for positions of one kind."""
        made = {i: [j for j, there in enumerate(self.chain.there[i]) if there] for i in set(self.kinds)}
        return [made[kind] for kind in self.kinds]

    def extremes(self, p: int) -> Range:
        """What a part may be, from the terms alone; an empty range where there is no choice."""
        if p not in self.known:
            part, everything = self.parts[p], self.everything
            ends: list[Fraction | None]
            if part.is_max:
                rows = [[part.terms[i][j] for j in everything[i]] for i in set(self.kinds)]
                joints = [[term for row in matrix for term in row] for matrix in part.joints or ()]
                low = part.exact(max(part.fixed, *map(min, rows))) if all(rows) else None
                ends = [low, None if low is None else part.exact(max(part.fixed, *map(max, rows), *map(max, joints)))]
            else:
                ends = []
                for sign in (-1, 1):
                    scores = _scores((Fraction(0), {p: Fraction(sign)}), self)
                    top, _ = _potential(scores, self, everything)
                    ends.append(None if top is None else sign * top * scores.unit)
            self.known[p] = (ends[0], ends[1]) if None not in ends else (Fraction(0), Fraction(-1))
        return self.known[p]

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


@dataclass(frozen=True, eq=False)
class Box:
    """Some of the choices.

    Attributes:
        ranges: of the variables that were narrowed, or derived; any other part is within its extremes.
        items: per position, one list for positions of one kind.
    """

    claim: Claim
    ranges: dict[Variable, Range]
    items: list[list[int]]

    def range(self, variable: Variable) -> Range:
        """The least and the most that a variable may be."""
        known = self.ranges.get(variable)
        return known or (self.claim.extremes(variable) if isinstance(variable, int) else (None, None))

    def ends(self, variable: Variable, where: str) -> tuple[Fraction, Fraction]:
        """The same; Refused where there is no limit."""
        least, most = self.range(variable)
        if least is None or most is None:
            raise Refused(f"{where}: variable {variable} has no finite range")
        return least, most

    @property
    def is_empty(self) -> bool:
        """Whether a variable has nothing that it may be."""
        return any(least is not None and most is not None and least > most for least, most in self.ranges.values())

    def rid(self) -> Box:
        """The box without items that its ranges keep out: a term beyond the most of a maximum, or of a sum of terms ≥ 0."""
        items = {kind: self.items[kind] for kind in self.claim.kinds}
        for variable, (_, most) in self.ranges.items():
            part = self.claim.parts[variable] if isinstance(variable, int) else None
            if part is None or most is None or not (part.is_max or part.is_growing):
                continue
            limit = math.floor(most * (1 << part.bits)) - (0 if part.is_max else part.fixed)
            if part.greatest > limit:
                items = {kind: [j for j in own if part.terms[kind][j] <= limit] for kind, own in items.items()}
        return self.within(items)

    def within(self, items: dict[int, list[int]]) -> Box:
        """The box with fewer items, by kind."""
        return Box(self.claim, self.ranges, [items[kind] for kind in self.claim.kinds])


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
    ranges: list[tuple[Variable, bool, Fraction]] = field(default_factory=list)


class Worth:
    """weights · parts, the worth of a choice; what else it may be derives from it."""

    variables: tuple[str, ...] = ()
    """Names of the variables beside the parts."""
    numbers: Sequence[int] = ()
    """The parts of a formula that is no sum."""

    def __init__(self, weights: list[Fraction]) -> None:
        self.weights = weights

    def value(self, parts: Sequence[Fraction]) -> Fraction:
        """The worth of a choice."""
        return sum((weight * part for weight, part in zip(self.weights, parts, strict=True)), Fraction(0))

    def size(self, parts: Sequence[Fraction], worth: Fraction) -> Fraction:
        """What the rounding of a worth that was added up in floating point is relative to."""
        return abs(worth) + sum((abs(weight * part) for weight, part in zip(self.weights, parts, strict=False)), Fraction(0))

    def derive(self, box: Box) -> Box:
        """The box with what follows from the ranges of its parts."""
        return box.rid()

    def above(self, step: Step, box: Box, where: str) -> Affine:
        """An affine function of variables that is nowhere below the worth in a box."""
        return Fraction(0), {p: weight for p, weight in enumerate(self.weights) if weight}

    def settle(self, step: Step, box: Box, affine: Affine, where: str) -> Affine:
        """The same in terms of the parts alone."""
        return affine


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

    def __init__(self, alpha: list[Fraction], beta: Fraction, numbers: list[int]) -> None:
        super().__init__([])
        self.alpha, self.beta, self.numbers = alpha, beta, numbers
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
        box = box.rid()
        if box.is_empty:
            return box
        low, high = box.ends(self.depth, "L")
        least, most = _square(low, high)
        ranges = dict(box.ranges)
        for name, alpha, log, ratios in zip(self.variables, self.alpha, self.logs, self.ratios, strict=True):
            if not (alpha and self.beta):  # no discount, or a term that is not there
                ranges[name] = Fraction(1), Fraction(1)
                continue
            narrow, wide = box.ends(log, "S")
            if ratios is not None and ratios[1] > 0 and low / ratios[1] > narrow:
                narrow = _down(low / ratios[1])
                ranges[log] = narrow, wide
            if narrow <= 0:  # no m, so that no step may speak of it
                ranges[name] = None, None
                continue
            if narrow > wide:
                break
            highest, lowest = 1 - self.beta * least / wide, 1 - self.beta * most / narrow
            if ratios is not None:
                highest, lowest = min(highest, 1 - self.beta * low * ratios[0]), max(lowest, 1 - self.beta * high * ratios[1])
            known_low, known_high = box.range(name)
            lowest, highest = _down(lowest), _up(highest)
            ranges[name] = (
                lowest if known_low is None else max(lowest, known_low),
                highest if known_high is None else min(highest, known_high),
            )
        return Box(box.claim, ranges, box.items)

    def above(self, step: Step, box: Box, where: str) -> Affine:
        constant = Fraction(0)
        coefficients: dict[Variable, Fraction] = {}
        for name, alpha, entropy, theta in zip(self.variables, self.alpha, self.entropies, step.theta, strict=True):
            (a, b), (low, high) = box.ends(entropy, where), box.ends(name, where)
            coefficients[entropy] = alpha * (theta * high + (1 - theta) * low)
            coefficients[name] = alpha * (theta * a + (1 - theta) * b)
            constant -= alpha * (theta * a * high + (1 - theta) * b * low)
        return constant, coefficients

    def settle(self, step: Step, box: Box, affine: Affine, where: str) -> Affine:
        constant, coefficients = affine
        for name, alpha, log, tangents in zip(self.variables, self.alpha, self.logs, step.tangents, strict=True):
            coefficient = coefficients.pop(name, Fraction(0))
            if not coefficient:
                continue
            if coefficient < 0 or not tangents or not alpha:
                low, high = box.ends(name, where)
                constant += coefficient * (low if coefficient < 0 else high)
                continue
            total = sum((weight for weight, _ in tangents), Fraction(0))
            if not total:
                raise Refused(f"{where}: the weights of the tangents of {name} are all 0")
            share = coefficient * self.beta / total
            constant += coefficient
            for part, slope in (
                (self.depth, -2 * sum((weight * rho for weight, rho in tangents), Fraction(0))),
                (log, sum((weight * rho * rho for weight, rho in tangents), Fraction(0))),
            ):
                coefficients[part] = coefficients.get(part, Fraction(0)) + share * slope
        return constant, coefficients


class BlockwiseEntropy(Worth):
    """α₁·(A − β·L·X) + α₂·(B − β·L·Y), see above."""

    def __init__(self, alpha: list[Fraction], beta: Fraction, numbers: list[int]) -> None:
        super().__init__([])
        self.alpha, self.beta, self.numbers = alpha, beta, numbers
        self.depth, self.entropies, self.losses = numbers[0], numbers[1:3], numbers[3:]

    def value(self, parts: Sequence[Fraction]) -> Fraction:
        terms = zip(self.alpha, self.entropies, self.losses, strict=True)
        return sum((a * (parts[e] - self.beta * parts[self.depth] * parts[x]) for a, e, x in terms), Fraction(0))

    def above(self, step: Step, box: Box, where: str) -> Affine:
        constant = Fraction(0)
        coefficients: dict[Variable, Fraction] = dict.fromkeys(self.numbers, Fraction(0))
        depths = box.ends(self.depth, where)
        for k, (alpha, entropy, loss) in enumerate(zip(self.alpha, self.entropies, self.losses, strict=True)):
            coefficients[entropy] += alpha
            for share, depth, end in zip((step.theta[k], 1 - step.theta[k]), depths, box.ends(loss, where), strict=True):
                weight = alpha * self.beta * share
                coefficients[loss] -= weight * depth
                coefficients[self.depth] -= weight * end
                constant += weight * depth * end
        return constant, coefficients


def _bound_of(step: Step, claim: Claim, box: Box, where: str, half: Box | None = None) -> Affine:
    """U of a step, in terms of the sums among the parts; `half`: the part of the box whose ranges are meant."""
    constant, coefficients = claim.worth.above(step, box, where) if step.counts else (Fraction(0), {})

    def add(variable: Variable, coefficient: Fraction) -> None:
        coefficients[variable] = coefficients.get(variable, Fraction(0)) + coefficient

    for multiplier, budget in zip(step.budgets, claim.budgets, strict=True):
        if multiplier:
            constant += multiplier * budget.limit
            for p, weight in enumerate(budget.weights):
                if weight:
                    add(p, -multiplier * weight)
    for variable, is_most, multiplier in step.ranges:
        least, most = (half or box).ends(variable, where)
        constant += multiplier * (most if is_most else -least)
        add(variable, -multiplier if is_most else multiplier)
    constant, coefficients = claim.worth.settle(step, box, (constant, coefficients), where)
    for p in [p for p in coefficients if isinstance(p, int) and claim.parts[p].is_max]:
        least, most = (half or box).ends(p, where)
        coefficient = coefficients.pop(p)
        constant += coefficient * (most if coefficient > 0 else least)
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
    used = [p for p, coefficient in coefficients.items() if coefficient]
    parts = [claim.parts[p] for p in used]  # type: ignore[index]
    bits = max((part.bits for part in parts), default=0)
    common = math.lcm(constant.denominator, *(coefficients[p].denominator for p in used))
    factors = [
        (coefficients[p].numerator * (common // coefficients[p].denominator)) << (bits - part.bits)
        for p, part in zip(used, parts, strict=True)
    ]
    whole = int(constant * common) << bits
    whole += sum(factor * part.fixed for factor, part in zip(factors, parts, strict=True))
    made: dict[int, list[int]] = {}
    for kind in set(claim.kinds):
        few = [
            (f, own) for f, part in zip(factors, parts, strict=True) if (own := part.entries.get(id(part.terms[kind]))) is not None
        ]
        many = [(f, row) for f, part in zip(factors, parts, strict=True) if id(row := part.terms[kind]) not in part.entries]
        row = [0] * len(claim.chain.there[kind])
        if many:
            own_factors = [f for f, _ in many]
            row = [sum(map(int.__mul__, own_factors, terms)) for terms in zip(*(row for _, row in many), strict=True)]
        for f, entries in few:
            for j, term in entries:
                row[j] += f * term
        made[kind] = row
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


Potential = list[list[int | None]]
"""Per position, per state, the best that may follow behind it; None if nothing may."""


def _potential(scores: Scores, claim: Claim, allowed: list[list[int]]) -> tuple[int | None, Potential]:
    """The largest value of a score, None where there is no choice, and what is behind each position and state."""
    chain = claim.chain
    behind: list[int | None] = [0] * chain.states[-1]
    found: Potential = [behind]
    known: dict[tuple[int, int], list[int | None]] = {}

    def entering_at(i: int) -> list[int | None]:
        key = claim.kinds[i], id(allowed[i])
        if key not in known:
            known[key] = _best(scores.items[i], chain.state[i], allowed[i], chain.states[i])
        return [None if a is None or b is None else a + b for a, b in zip(known[key], found[0], strict=True)]

    for i in range(chain.positions - 1, 0, -1):
        entering = entering_at(i)
        joint = None if scores.joints is None else scores.joints[i - 1]
        own: list[int | None] = []
        for s, after in enumerate(chain.after[i - 1]):
            reached = [value if joint is None else value + joint[s][t] for t in after if (value := entering[t]) is not None]
            own.append(max(reached, default=None))
        found.insert(0, own)
    first = [value for value in entering_at(0) if value is not None]
    return (max(first) + scores.constant if first else None), found


def _best(items: list[int], states: list[int], allowed: list[int], count: int) -> list[int | None]:
    """Per state the best of its items."""
    best: list[int | None] = [None] * count
    for j in allowed:
        known = best[states[j]]
        if known is None or items[j] > known:
            best[states[j]] = items[j]
    return best


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
                best = _best(terms, state, items, chain.states[i])
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
        narrowed = [p for p in box.ranges if isinstance(p, int) and not claim.parts[p].is_max]
        self.ranged = list(dict.fromkeys([*claim.worth.numbers, *narrowed]))
        for p in self.ranged:
            least, most = box.ends(p, where)
            self._add((Fraction(0), {p: Fraction(-1)}), -most, False, True)
            self._add((Fraction(0), {p: Fraction(1)}), least, False, True)
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
        allowed: list[list[int]] | None = list(box.items)
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
        if claim.bound is None or not claim.worth.numbers:
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
    scores = _scores((Fraction(0), dict(enumerate(claim.worth.weights))), claim)
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


def _undominated(claim: Claim, allowed: list[list[int]]) -> list[list[int]]:
    """Items without those for which another of the same state is at least as good in worth and in every budget.

    In a choice within the limits that is worth more than the bound, each item may be replaced by such a one.
    """
    directions = [[-weight for weight in budget.weights] for budget in claim.budgets]
    directions += [] if claim.bound is None else [claim.worth.weights]
    rows = [_scores((Fraction(0), dict(enumerate(direction))), claim).items for direction in directions]
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
    parts = [read_part("values", False, data["fixed"], data["values"], joints.get("values"), chain)]
    for k, (cost, joint) in enumerate(zip(costs, own_joints, strict=True)):
        parts.append(read_part(f"cost {k}", False, 0, cost, joint, chain))

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
    Pass(steps, claim, Box(claim, {}, claim.everything), "the label pass").run(order, count)
    return claim.bound, worth


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
    return make(alpha, beta, numbers)


def _variable(value: Any, claim: Claim, where: str) -> Variable:
    if isinstance(value, str) and value in claim.worth.variables:
        return value
    return _whole(value, f"{where}: the variable", 0, len(claim.parts))


def _divisible(value: Any, box: Box, claim: Claim, where: str) -> Variable:
    """A variable that every choice of a box has, so that to divide its range is to divide the box."""
    variable = _variable(value, claim, where)
    if not box.is_empty:
        box.ends(variable, where)
    return variable


def read_step(data: Any, claim: Claim, where: str) -> Step:
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


def close(data: Any, claim: Claim, box: Box, where: str, count: Count, half: Box | None = None) -> None:
    """Refused unless a proof closes a box, or `half` of it, to which the ranges of the proof belong."""
    if isinstance(data, dict) and "labels" in data:
        _object(data, where, ("labels", "order"))
        steps = [
            read_step(own, claim, f"{where}, multipliers {n}") for n, own in enumerate(_list(data["labels"], f"{where}: labels"))
        ]
        order = _claimed_order(data["order"], claim.chain, f"{where}: order")
        if not (half or box).is_empty:
            Pass(steps, claim, claim.worth.derive(half or box), where).run(order, count)
        return
    step = read_step(data, claim, where)
    if (half or box).is_empty:
        return
    largest = highest(step, claim, box, where, half)
    if largest is None:
        return
    if step.counts and claim.bound is not None:
        if largest > claim.bound:
            raise Refused(f"{where}: its multipliers prove {_shown(largest)} only, above the bound {_shown(claim.bound)}")
    elif largest >= 0:
        raise Refused(f"{where}: its multipliers do not show that budgets and ranges contradict each other")


def highest(step: Step, claim: Claim, box: Box, where: str, half: Box | None = None) -> Fraction | None:
    """The largest U of a step, None where no choice is left."""
    step = replace(step, counts=step.counts and claim.bound is not None)
    scores = _scores(_bound_of(step, claim, box, where, half), claim)
    top, _ = _potential(scores, claim, (half or box).rid().items)
    return None if top is None else top * scores.unit


def without_losers(step: Step, claim: Claim, box: Box, where: str) -> Box:
    """A box without the items, at all positions of a kind, whose losses exceed the slack of a step."""
    counts = step.counts and claim.bound is not None
    scores = _scores(_bound_of(replace(step, counts=counts), claim, box, where), claim)
    over = claim.bound if counts and claim.bound is not None else Fraction(0)
    losses = Sum(scores, over, counts, True).over_items(claim, box.items)
    kept: dict[int, set[int]] = {kind: set() for kind in claim.kinds}
    if losses is not None:
        for kind, own in zip(claim.kinds, losses.fixed(claim, box.items), strict=True):
            kept[kind].update(own)
    return box.within({kind: [j for j in box.items[kind] if j in own] for kind, own in kept.items()})


def cut(box: Box, variable: Variable, at: Fraction) -> tuple[Box, Box]:
    """The halves of a box in which a variable is at most, and at least, a number; of whole numbers, above it."""
    least, most = box.range(variable)
    whole = isinstance(variable, int) and box.claim.parts[variable].is_whole
    low, high = (Fraction(math.floor(at)), Fraction(math.floor(at) + 1)) if whole else (at, at)
    below = least, low if most is None else min(most, low)
    above = high if least is None else max(least, high), most
    return (
        Box(box.claim, {**box.ranges, variable: below}, box.items),
        Box(box.claim, {**box.ranges, variable: above}, box.items),
    )


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
        parts.append(read_part(name, row["combine"] == "max", row["fixed"], row["terms"], row.get("joints"), chain))
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
    if isinstance(claim.worth, EffectiveEntropy):
        _ratios(claim, claim.worth)
    root = Box(claim, {p: claim.extremes(p) for p in claim.worth.numbers}, claim.everything)
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
            below, above = cut(box, _divisible(variable, box, claim, where), _number(at, f"{where}: where it is split"))
            child(node["below"], n, below)
            child(node["above"], n, above)
        elif "tighten" in node:
            _object(node, where, ("tighten", "by", "then"))
            variable, side, to = _list(node["tighten"], f"{where}: tighten", 3)
            number, most = _divisible(variable, box, claim, where), _is_most(side, where)
            limit = _number(to, f"{where}: the new limit")
            if not most and isinstance(number, int) and claim.parts[number].is_whole:
                limit -= 1  # what is closed is below the new least
            below, above = cut(box, number, limit)
            close(node["by"], claim, box, f"{where}, tightened", count, above if most else below)
            child(node["then"], n, below if most else above)
        elif "drop" in node:
            _object(node, where, ("drop", "then"))
            step = read_step(node["drop"], claim, where)
            child(node["then"], n, box if box.is_empty else without_losers(step, claim, box, where))
        elif "close" in node:
            _object(node, where, ("close",))
            close(node["close"], claim, box, where, count)
        elif "engine" in node:
            _object(node, where, ("engine",))
            rests = rests or f"{where} rests on {_text(node['engine'], where)}"
        else:
            raise Refused(f"{where} is neither split, tightened, closed nor rid of items")
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
        gap = f", gap {_shown(_up((bound - worth) / abs(worth)), 2)}" if worth else ""
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
