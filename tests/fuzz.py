"""Random problems of every kind through the exact solvers, compared with brute force in plain Python.

    python -m tests.fuzz --seconds 3600 --solvers dp,exhaustive,highs
    python -m tests.fuzz --seed 4711 --problems 1                      one problem again

A problem is a function of its seed alone. The truth about it comes from here: every design, the terms of every quantity added up
without rounding, none of the solvers' tables. A claim that contradicts the truth is a failure; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from formulation import (
    FAMILIES,
    Agreement,
    Architecture,
    Block,
    BlockwiseEntropy,
    Budget,
    Combine,
    Composite,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    Menu,
    NotSeparable,
    Quantity,
    SearchSpace,
    Separable,
    SpaceUnion,
)
from formulation.architecture import Setting, settled
from formulation.values import Undefined
from hardware_models import Flops, Params
from solvers import (
    Automatic,
    Cbc,
    Counts,
    CpSat,
    DynamicProgramming,
    EngineMissing,
    Exhaustive,
    Form,
    Highs,
    Limits,
    Reduction,
    Scip,
    Solution,
    Solver,
    Status,
    solve,
)
from solvers.base import mirrored

SOLVERS: dict[str, Solver] = {
    "automatic": Automatic(),
    "dp": DynamicProgramming(),
    "dp-small": DynamicProgramming(beam=1, steps=7),
    "dp-plain": DynamicProgramming(rounds=1, merging=False),
    "exhaustive": Exhaustive(),
    "reduction": Reduction(),
    "counts": Counts(),
    "highs": Highs(),
    "cbc": Cbc(),
    "scip": Scip(Form.CHOICE),
    "scip-lookup": Scip(Form.LOOKUP),
    "cpsat": CpSat(),
}
MOST_DESIGNS = 1500
UNITED = (1000, 2000, 4000)
"""Vocabularies of the parts of a union, of which each has terms of its own."""
_AGREEMENT = 1e-9
"""Relative amount by which an exact solver's floating-point sums may differ from the truth."""
_ENGINE = 1e-6
"""Relative amount by which an engine may overstate an incumbent in the trace."""
_EPSILON = 16 * sys.float_info.epsilon
"""The same relative to the terms that are added up: at most some twenty of them."""


class Kind(Enum):
    """How the terms of a random quantity are drawn, in units of its scale."""

    REAL = "real"
    SIGNED = "signed"
    WHOLE = "whole"
    TIES = "ties"
    SPREAD = "spread over ten orders of magnitude"
    CANCELLING = "far larger than their sum"
    NEAR = "equal up to a few parts in a billion"
    SPARSE = "mostly zero"


@functools.cache
def _uniform(*key: int) -> float:
    return float(np.random.default_rng(key).random())


@dataclass(frozen=True)
class Terms(Separable):
    """Terms drawn per block shape and per joint; `offset` is added to each block and its multiple to what all designs have."""

    seed: int
    kind: Kind
    scale: float
    blocks: int
    maximum: bool = False
    joined: bool = False
    per_layer: bool = False
    floor: float = 0.0

    name = "terms"
    unit = "1"

    @property
    def combine(self) -> Combine:  # type: ignore[override]
        return Combine.MAX if self.maximum else Combine.SUM

    def drawn(self, *key: int) -> float:
        """The term of some key."""
        draw = _uniform(self.seed, *key)
        value = {
            Kind.REAL: draw,
            Kind.SIGNED: 2 * draw - 1,
            Kind.WHOLE: math.floor(1000 * draw),
            Kind.TIES: math.floor(3 * draw),
            Kind.SPREAD: 10 ** (10 * draw - 5),
            Kind.CANCELLING: draw,
            Kind.NEAR: 1 + math.floor(4 * draw) * 2.0**-30,
            Kind.SPARSE: draw if draw > 0.7 else 0.0,
        }[self.kind]
        return self.scale * value

    @property
    def offset(self) -> float:
        """What cancels out between the blocks and what every design has."""
        return self.scale * 10.0 ** math.floor(4 + 7 * _uniform(self.seed, 0)) if self.kind is Kind.CANCELLING else 0.0

    def block(self, block: Block, setting: Setting) -> float:
        term = self.drawn(1, *key_of(block)) * (block.depth if self.per_layer else 1)
        return term + self.offset

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self.drawn(2, left, right) if self.joined else 0.0

    def entry(self, width: int, setting: Setting) -> float:
        return self.drawn(4, width) if self.joined else 0.0

    def exit(self, width: int, setting: Setting) -> float:
        return self.drawn(5, width) if self.joined else 0.0

    def fixed(self, setting: Setting) -> float:
        other = self.drawn(6, setting.vocabulary) if setting.vocabulary in UNITED else 0.0
        return self.floor + other - (0.0 if self.maximum else self.blocks * self.offset)


def key_of(block: Block) -> tuple[int, ...]:
    """What a term depends on: the shape, and the further choices where there are any."""
    said = block.choices.values()
    further = tuple(0 if value is None else 1 + int(10 * value) for value in said)[3:]
    return (block.width, block.ffn_width, block.depth, *(further if any(further) else ()))


@dataclass(frozen=True)
class Placed(Separable):
    """The same with other terms at every position."""

    terms: Terms

    name = "placed terms"
    unit = "1"

    @property
    def combine(self) -> Combine:  # type: ignore[override]
        return self.terms.combine

    def block(self, block: Block, setting: Setting) -> float:
        raise AssertionError("the position matters")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        own = self.terms
        return own.drawn(3, position, *key_of(block)) + own.offset

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return self.terms.joint(left, right, setting)

    def fixed(self, setting: Setting) -> float:
        return self.terms.fixed(setting)

    def entry(self, width: int, setting: Setting) -> float:
        return self.terms.entry(width, setting)

    def exit(self, width: int, setting: Setting) -> float:
        return self.terms.exit(width, setting)


def _lower_plane(
    first: tuple[np.ndarray, np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray, np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of two planes (slope in x, slope in y, constant) the one that is lower at a point."""
    values = [a * x + b * y + c for a, b, c in (first, second)]
    return tuple(np.where(values[0] <= values[1], one, other) for one, other in zip(first, second, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Product(Composite):
    """x · y of two quantities that are never negative, below the planes of McCormick (1976)."""

    of: tuple[Separable, Separable]

    name = "product"
    unit = "1"
    signs = (1, 1)

    @property
    def parts(self) -> tuple[Separable, ...]:
        return self.of

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return parts[0] * parts[1]

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        (x, y), (a, b), (c, d) = (np.moveaxis(each, -1, 0) for each in (centre, lower, upper))
        slope_x, slope_y, constant = _lower_plane((b, c, -b * c), (d, a, -a * d), x, y)
        return np.stack((slope_x, slope_y), axis=-1), constant


@dataclass(frozen=True)
class Ratio(Composite):
    """x / y of quantities x ≥ 0 and y > 0: 1/y lies below its secant, and the product below the planes of McCormick (1976)."""

    of: tuple[Separable, Separable]

    name = "ratio"
    unit = "1"
    signs = (1, -1)

    @property
    def parts(self) -> tuple[Separable, ...]:
        return self.of

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return parts[0] / parts[1]

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        centre = (lower + upper) / 2 if near is None else np.clip(near, lower, upper)
        (x, y), (a, b), (c, d) = (np.moveaxis(each, -1, 0) for each in (centre, lower, upper))
        secant, at_zero = -1 / (b * d), 1 / b + 1 / d
        planes = [(slope, corner * secant, corner * at_zero - slope * corner) for slope, corner in ((1 / d, c), (1 / b, a))]
        slope_x, slope_y, constant = _lower_plane(planes[0], planes[1], x, y)
        return np.stack((slope_x, slope_y), axis=-1), constant


@dataclass(frozen=True)
class Mixture(Composite):
    """x + 2y − z/2, its own overestimator."""

    of: tuple[Separable, Separable, Separable]

    name = "mixture"
    unit = "1"
    signs = (1, 1, -1)

    @property
    def parts(self) -> tuple[Separable, ...]:
        return self.of

    def formula(self, parts: Sequence[Any] | np.ndarray) -> Any:
        return parts[0] + 2 * parts[1] - parts[2] / 2

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return np.broadcast_to(np.array([1.0, 2.0, -0.5]), np.shape(lower)), np.zeros(np.shape(lower)[:-1])


@dataclass(frozen=True)
class Value:
    """A quantity of a design without the rounding of sums, and how far floating-point sums of another order may be from it."""

    exact: float
    rounding: float


@functools.lru_cache(maxsize=1 << 16)
def _block_term(quantity: Separable, position: int, block: Block, setting: Setting) -> float:
    return float(quantity.block_at(position, block, setting))


def value_of(quantity: Quantity, design: Architecture) -> Value:
    """The value of a quantity by its definition, term by term."""
    if isinstance(quantity, Separable):
        widths = design.blocks[0].width, design.blocks[-1].width
        terms = [float(quantity.fixed(design)), float(quantity.entry(widths[0], design)), float(quantity.exit(widths[1], design))]
        terms += [_block_term(quantity, position, block, design) for position, block in enumerate(design.blocks)]
        chain = (design.embedding_width, *(block.width for block in design.blocks), design.embedding_width)
        terms += [float(quantity.joint(a, b, design)) for a, b in itertools.pairwise(chain) if a != b]
        if quantity.combine is Combine.MAX:
            return Value(max(terms), 0.0)
        return Value(math.fsum(terms), _EPSILON * math.fsum(map(abs, terms)))
    if isinstance(quantity, Composite):
        values = [value_of(part, design) for part in quantity.parts]
        parts = [value.exact for value in values]
        exact = float(quantity.formula(parts))
        rounding = _EPSILON * abs(exact)
        for p, value in enumerate(values):
            # One digit of a part's own is rounded inside the formula too.
            step = value.rounding + _EPSILON * abs(value.exact)
            rounding += abs(float(quantity.formula([*parts[:p], parts[p] + step, *parts[p + 1 :]])) - exact)
        return Value(exact, rounding)
    return Value(float(quantity(design)), 0.0)


def _subset(draw: np.random.Generator, pool: Sequence[float], most: int) -> tuple:
    return tuple(draw.choice(pool, size=draw.integers(1, most + 1), replace=False).tolist())


def _random_space(draw: np.random.Generator) -> SearchSpace:
    while True:
        blocks = int(draw.integers(1, 5))
        most = {1: 6, 2: 5, 3: 4, 4: 3}[blocks]
        menus = [
            Menu(
                _subset(draw, (64, 128, 256, 512, 768, 1024), most),
                _subset(draw, (0.5, 1, 1.5, 2, 4), 2),
                _subset(draw, range(1, 7), most),
            )
            for _ in range(blocks)
        ]
        shape = draw.random()
        if shape < 0.06:  # one item only
            menus = [Menu(menu.widths[:1], menu.ffn_ratios[:1], menu.depths[:1]) for menu in menus]
        elif shape < 0.2:  # the same width throughout
            menus = [Menu(menus[0].widths[:1], menu.ffn_ratios, menu.depths) for menu in menus]
        elif shape < 0.45:  # the same menu throughout
            menus = menus[:1] * blocks
        try:
            space = SearchSpace(
                tuple(menus),
                non_decreasing=bool(draw.random() < 0.7),
                shared=bool(draw.random() < 0.6),
                embedding_width=int(draw.choice((256, 768))),
                vocabulary=int(draw.choice((300, 50257))),
            )
        except ValueError:
            continue
        if space.size <= MOST_DESIGNS:
            return space


@dataclass(frozen=True)
class Rule:
    """A rule for steps: the depth may not rise by more than one, the width by less than half, or pairs of blocks are drawn."""

    seed: int
    kind: str

    def __call__(self, left: Block, right: Block) -> bool:
        if self.kind == "slow":
            return right.depth <= left.depth + 1
        if self.kind == "narrow":
            return 2 * right.width <= 3 * left.width
        ffn = (left.ffn_width if left.depth else 0, right.ffn_width if right.depth else 0)
        return _uniform(self.seed, left.width, right.width, left.depth, right.depth, *ffn) < 0.7


def _opened(draw: np.random.Generator, space: SearchSpace) -> SearchSpace:
    """A space like a given one, some or all of whose blocks may be left out, and often with a rule for steps."""
    while True:
        share = draw.choice((0.0, 0.6, 1.0), p=(0.25, 0.3, 0.45))
        replaced = {menu: replace(menu, depths=(0, *menu.depths)) if draw.random() < share else menu for menu in space.menus}
        kind = str(draw.choice(("none", "slow", "narrow", "drawn"), p=(0.35, 0.2, 0.1, 0.35)))
        rule = None if kind == "none" else Rule(int(draw.integers(1 << 30)), kind)
        try:
            opened = replace(space, menus=tuple(replaced[menu] for menu in space.menus), step=rule)
        except ValueError:  # no design satisfies the rule
            continue
        if opened.size <= MOST_DESIGNS:
            return opened
        space = replace(space, menus=tuple(replace(menu, depths=menu.depths[:2]) for menu in space.menus[:3]))


def _enriched(draw: np.random.Generator, space: SearchSpace) -> SearchSpace:
    """A space like a given one with further choices: heads, groups, head sizes, gates, sharing, bits, and often another family."""
    family = str(draw.choice(list(FAMILIES))) if draw.random() < 0.6 else "merino"
    width = space.menus[0].widths[0]

    def menu(old: Menu) -> Menu:
        widths = old.widths if family == "merino" else (width,)
        most = 2 if len(old) <= 6 else 1
        further: dict[str, Any] = {}
        if draw.random() < 0.6:
            further["heads"] = _subset(draw, (2, 4, 6), most)
            further["kv_heads"] = _subset(draw, (1, 2), most)
        if draw.random() < 0.3:
            further["head_sizes"] = _subset(draw, (16, 32), most)
        for name, pool in (("gated", (True, False)), ("shared", (True, False)), ("bits", (4, 8, 16))):
            if draw.random() < 0.4:
                further[name] = _subset(draw, pool, most)
        depths = (*old.depths[: most - 1], old.depths[-1] or 1)
        made = Menu(widths, old.ffn_ratios[:most], depths, **further)
        if draw.random() < 0.3:
            made = replace(made, also=(Menu(widths[:1], None, (2,), ffn_widths=(80, 160)[:most], gated=(True,)),))
        return made

    known = {old: menu(old) for old in dict.fromkeys(space.menus)}
    menus = tuple(known[old] for old in space.menus)
    own = {"family": family, "tied": None} | ({} if FAMILIES[family].joints else {"embedding_width": width})
    while True:
        try:
            enriched = replace(space, menus=menus, **own)
        except ValueError:  # the rule for steps knows nothing of these blocks
            enriched = replace(space, menus=menus, step=None, **own)
        if enriched.size <= MOST_DESIGNS:
            return enriched
        menus = menus[:-1] if len(menus) > 1 else (replace(menus[0], also=None, ffn_ratios=menus[0].ffn_ratios[:1]),)


def _united(draw: np.random.Generator, space: SearchSpace) -> SpaceUnion:
    """A union of two or three spaces like a given one: with vocabularies of their own, and some with fewer items."""
    vocabularies = _subset(draw, UNITED, 3) if space.size <= MOST_DESIGNS // 3 else UNITED[:1]
    parts = [replace(space, vocabulary=vocabulary) for vocabulary in vocabularies]
    if len(parts) < 2:
        parts.append(replace(space, shared=not space.shared, vocabulary=UNITED[1]))
    return SpaceUnion(tuple(parts))


def blocks_of(menu: Menu) -> Iterator[Block]:
    """The blocks of a menu by its definition: every combination that makes a block, then those of the menus beside it."""
    ffn = [(ratio, None) for ratio in menu.ffn_ratios or ()] + [(None, width) for width in menu.ffn_widths or ()]
    further = (menu.heads, menu.kv_heads, menu.head_sizes, menu.gated, menu.shared, menu.bits)
    for width, (ratio, own), depth, *said in itertools.product(
        menu.widths, ffn, menu.depths, *(each or (None,) for each in further)
    ):
        heads, kv_heads, size, gated, shared, bits = said
        size = 64 if size is None else size
        ffn_width = round(width * ratio) if own is None else own
        if not depth:
            yield Block(width, round(width * menu.ffn_ratios[0]) if menu.ffn_ratios else menu.ffn_widths[0], 0, 1)
        elif (heads is not None or width % size == 0) and (heads or width // size) % (kv_heads or 1) == 0:
            yield Block(width, ffn_width, depth, heads, kv_heads, size, None, gated, shared, bits)
    for other in menu.also or ():
        yield from blocks_of(other)


def designs_of(space: SearchSpace | SpaceUnion) -> tuple[Architecture, ...]:
    """Every design of a space or a union of some, see `_designs_of`."""
    return tuple(design for part in space.parts for design in _designs_of(part))


@functools.lru_cache(maxsize=8)
def _designs_of(space: SearchSpace) -> tuple[Architecture, ...]:
    """Every design of a space by its definition: all combinations of the menus' blocks, without those that its steps forbid."""
    kinds = []
    for menu in space.menus:
        said = {tuple(settled(block, space).choices.values()): settled(block, space) for block in blocks_of(menu)}
        kinds.append(tuple(said.values()))

    def may_follow(left: Block, right: Block) -> bool:
        return not (space.non_decreasing and left.width > right.width) and (space.step is None or space.step(left, right))

    return tuple(
        Architecture(blocks, space.shared, space.embedding_width, space.vocabulary, space.positions, space.family, space.tied)
        for blocks in itertools.product(*kinds)
        if any(block.depth for block in blocks) and all(itertools.starmap(may_follow, itertools.pairwise(blocks)))
    )


def _random_terms(draw: np.random.Generator, space: SearchSpace, kinds: Sequence[Kind], maxima: float, **options: Any) -> Separable:
    terms = Terms(
        int(draw.integers(1 << 30)),
        kinds[draw.integers(len(kinds))],
        float(10 ** draw.uniform(-12, 18)) if draw.random() < 0.4 else float(10.0 ** draw.integers(-1, 5)),
        space.blocks,
        maximum=bool(draw.random() < maxima),
        joined=bool(draw.random() < 0.5),
        per_layer=bool(draw.random() < 0.4),
        **options,
    )
    return Placed(terms) if draw.random() < 0.25 else terms


def _random_composite(draw: np.random.Generator, space: SearchSpace) -> Composite:
    choice = draw.random()
    if choice < 0.5:
        family = EffectiveEntropy if draw.random() < 0.6 else BlockwiseEntropy
        beta = float(draw.choice((1 / 16, 0.3, 1e-4)))
        while True:
            entropy = family(
                rho=float(draw.choice((0.01, 1e-6, 7.5))),
                alpha=((0.6, 0.4), (0.0, 1.0), (1.0, 0.0), (1e-9, 3.0), (1e6, 2e6))[draw.integers(5)],
                beta=beta,
                effectiveness=bool(draw.random() < 0.9),
                weighting=bool(draw.random() < 0.8),
            )
            try:
                entropy.check(space)
                return entropy
            except ValueError:  # γ ≥ 1
                beta /= 2
    positive = (Kind.REAL, Kind.WHOLE, Kind.TIES, Kind.SPREAD, Kind.NEAR, Kind.SPARSE)
    if choice < 0.67:
        return Product(tuple(_random_terms(draw, space, positive, 0.15) for _ in range(2)))  # type: ignore[arg-type]
    if choice < 0.84:
        floor = float(10.0 ** draw.integers(-3, 4))
        return Ratio((_random_terms(draw, space, positive, 0.15), _random_terms(draw, space, positive, 0.15, floor=floor)))
    return Mixture(tuple(_random_terms(draw, space, tuple(Kind), 0.15) for _ in range(3)))  # type: ignore[arg-type]


def _random_quantity(draw: np.random.Generator, space: SearchSpace, composites: float) -> Quantity:
    choice = draw.random()
    if choice < composites:
        return _random_composite(draw, space)
    if choice < composites + 0.03:
        return Measured("measured", "1", functools.partial(_measured, int(draw.integers(1 << 30))))
    if choice < composites + 0.2:
        given = (Params(), Flops(), Flops(seq_len=128, head=True), Agreement(space.decode(space.sample(draw, 1)[0])))
        return given[draw.integers(len(given))]
    return _random_terms(draw, space, tuple(Kind), 0.25)


def _measured(seed: int, design: Architecture) -> float:
    return 2 * _uniform(seed, *design.widths, *design.ffn_widths, *design.depths) - 1


def _random_upper(draw: np.random.Generator, values: Sequence[float], of_best: float, signed: bool = False) -> float:
    """A limit between the values, exactly at one, just below or above it, far off, or 0; often at that of the best design.

    Args:
        signed: whether it may be negative even if some values are not.
    """
    if max(values) > 0 and not signed:
        values = [value for value in values if value >= 0]
    value = of_best if of_best in values and draw.random() < 0.5 else float(values[draw.integers(len(values))])
    least = min(values)
    ways: tuple[Callable[[], float], ...] = (
        lambda: float(np.quantile(values, draw.uniform(0.1, 0.9))),
        lambda: float(np.quantile(values, draw.uniform(0.3, 0.7))),
        lambda: value,
        lambda: value / (1 + 1e-12),
        lambda: math.nextafter(value, -math.inf),
        lambda: math.nextafter(value, math.inf),
        lambda: value * (1 - 10.0 ** -draw.integers(3, 13)),
        lambda: value * (1 + 10.0 ** -draw.integers(3, 13)),
        lambda: least,
        lambda: least * 0.99,
        lambda: least * (1 - 1e-9),
        lambda: 0.0,
        lambda: 1e300,
    )
    weights = np.array([8, 8, 4, 1, 2, 1, 4, 2, 2, 1, 1, 1, 1])
    upper = ways[draw.choice(len(ways), p=weights / weights.sum())]()
    return upper if signed else max(upper, 0.0)


def random_problem(seed: int) -> tuple[DesignProblem, Limits]:
    """The problem of that seed and the limits to solve it with, but for the time: a gap, and sometimes a design to start with."""
    draw = np.random.default_rng([18, seed])
    space = _random_space(draw)
    # In some spaces blocks may be left out or have to follow a rule; drawn apart, so that the other problems stay what they were.
    opening = np.random.default_rng([58, seed])
    if opening.random() < 0.4:
        space = _opened(opening, space)
    richer = np.random.default_rng([20, seed])
    if richer.random() < 0.5:
        space = _enriched(richer, space)
    searched: SearchSpace | SpaceUnion = space
    uniting = np.random.default_rng([21, seed])
    if uniting.random() < 0.25:
        searched = _united(uniting, space)
    objective = _random_quantity(draw, space, 0.45)
    designs = designs_of(searched)
    best = max(range(len(designs)), key=lambda n: value_of(objective, designs[n]).exact)
    budgets = []
    for _ in range(draw.choice(5, p=(0.1, 0.35, 0.3, 0.15, 0.1))):
        quantity = _random_quantity(draw, space, 0.15)
        values = [value_of(quantity, design).exact for design in designs]
        budgets.append(Budget(quantity, _random_upper(draw, values, values[best])))
    gap = float(draw.choice((1e-6, 0.0, 1e-9, 0.02), p=(0.7, 0.12, 0.1, 0.08)))
    start = designs[draw.integers(len(designs))] if draw.random() < 0.15 else None
    problem = DesignProblem(searched, objective, tuple(budgets))
    # Half of the problems have budgets from below, some a minimized objective; drawn apart, so that the others stay what they were.
    other = np.random.default_rng([19, seed])
    return (_two_sided(other, problem, designs, best) if other.random() < 0.5 else problem), Limits(gap=gap, start=start)


def random_alike_problem(seed: int) -> DesignProblem:
    """The problem of that seed whose blocks have one and the same menu, and most of whose quantities ignore positions."""
    draw = np.random.default_rng([22, seed])
    while True:
        space = _random_space(draw)
        menu = space.menus[0]
        if draw.random() < 0.4:
            menu = replace(menu, depths=(0, *menu.depths))
        try:
            space = replace(space, menus=(menu,) * int(draw.integers(1, 5)))
        except ValueError:
            continue
        if draw.random() < 0.3:
            space = _enriched(draw, space)
        if space.size <= MOST_DESIGNS:
            break

    def quantity(composites: float) -> Quantity:
        while isinstance(found := _random_quantity(draw, space, composites), Placed | Measured | Agreement):
            continue
        return found

    objective, designs, budgets = quantity(0.5), designs_of(space), []
    of_best = max(range(len(designs)), key=lambda n: value_of(objective, designs[n]).exact)
    for _ in range(int(draw.integers(4))):
        cost = quantity(0.35)
        values = [value_of(cost, design).exact for design in designs]
        upper = _random_upper(draw, values, values[of_best], True)
        least = max(upper, cost.least)
        budgets.append(Budget(cost, least) if draw.random() < 0.7 else Budget(cost, at_least=least))
    if draw.random() < 0.2:
        return DesignProblem(space, minimize=(objective,), subject_to=tuple(budgets))
    return DesignProblem(space, objective, tuple(budgets))


def _two_sided(draw: np.random.Generator, problem: DesignProblem, designs: Sequence[Architecture], best: int) -> DesignProblem:
    """The problem with budgets turned round, ranges, and often its objective minimized."""
    budgets = []
    for budget in problem.subject_to:
        values = [value_of(budget.quantity, design).exact for design in designs]
        from_below = Budget(
            budget.quantity,
            at_least=max(-_random_upper(draw, [-value for value in values], -values[best], True), budget.quantity.least),
        )
        from_above = Budget(budget.quantity, max(_random_upper(draw, values, values[best], True), budget.quantity.least))
        budgets += ((from_below,), (from_above,), (budget,), (from_below, budget))[draw.choice(4, p=(0.5, 0.15, 0.15, 0.2))]
    if draw.random() < 0.5:
        return DesignProblem(problem.space, minimize=(problem.goal,), subject_to=tuple(budgets))
    return DesignProblem(problem.space, problem.goal, tuple(budgets))


@dataclass(frozen=True)
class Truth:
    """What brute force says of a problem.

    Attributes:
        certain: the best objective among the designs that meet every budget by more than rounding; None if there isn't one.
        possible: the best among those that meet them up to rounding.

    The objective is what is maximized: negated where the problem minimizes.
    """

    certain: Value | None
    possible: Value | None


def truth_of(problem: DesignProblem) -> Truth:
    """Every design of the space, by the definitions."""
    certain, possible = [], []
    for design in designs_of(problem.space):
        objective = value_of(problem.goal, design)
        if problem.least:
            objective = Value(-objective.exact, objective.rounding)
        # How much room each budget leaves, and the rounding of the value.
        used = [(value_of(b.quantity, design), b) for b in problem.subject_to]
        rooms = [((b.limit - value.exact) * (1 if b.upper is not None else -1), value.rounding) for value, b in used]
        if all(room >= -rounding for room, rounding in rooms):
            possible.append(objective)
        if all(room >= rounding for room, rounding in rooms):
            certain.append(objective)
    best = functools.partial(max, key=lambda value: value.exact, default=None)
    return Truth(best(certain), best(possible))


def false_claims(problem: DesignProblem, limits: Limits, truth: Truth, solution: Solution) -> list[str]:
    """What a solution says that the truth contradicts, one sentence each."""
    sign = -1.0 if problem.least else 1.0
    solution = mirrored(solution) if problem.least else solution
    space, design, objective = problem.space, solution.architecture, solution.objective
    claims = []
    if truth.certain is not None:
        best = truth.certain
        room = _AGREEMENT * abs(best.exact) + best.rounding
        if solution.status is Status.INFEASIBLE:
            claims.append(f"false INFEASIBLE, a design of {best.exact!r} meets the budgets")
        bounds = [point.bound for point in solution.trace if point.bound is not None]
        for where, bound in (("", solution.bound), (" in the trace", min(bounds, default=None))):
            if bound is not None and not bound >= best.exact - room:
                claims.append(f"the bound{where} is {bound!r}, the truth {best.exact!r}")
        if solution.status is Status.OPTIMAL and objective is not None:
            promised = (limits.gap + _AGREEMENT) * abs(objective) + room
            if not best.exact - objective <= promised:
                claims.append(f"false OPTIMAL {objective!r}, the truth is {best.exact!r}")
    if (design is None) is not (solution.status in (Status.INFEASIBLE, Status.UNKNOWN)) or (design is None) is not (
        objective is None
    ):
        claims.append(f"{solution.status.name} with the design {design} and the objective {objective!r}")
    if design is not None and objective is not None:
        if design not in designs_of(space):
            claims.append(f"the design {design} is outside the space")
        value = value_of(problem.goal, design)
        value = Value(sign * value.exact, value.rounding)
        if not abs(objective - value.exact) <= value.rounding:
            claims.append(f"the objective is {objective!r}, that of the design {value.exact!r}")
        for budget in problem.subject_to:
            used = value_of(budget.quantity, design)
            over = used.exact - budget.limit if budget.upper is not None else budget.limit - used.exact
            if not over <= used.rounding:
                claims.append(f"the design exceeds {budget}: {used.exact!r}")
        if truth.possible is None:
            claims.append("a design where none meets the budgets")
        elif objective > truth.possible.exact + truth.possible.rounding:
            claims.append(f"the objective is {objective!r}, the truth {truth.possible.exact!r}")
        # An engine says what it finds in its own numbers, which its tolerances may raise.
        incumbents = [point.incumbent for point in solution.trace if point.incumbent is not None]
        most = max(incumbents, default=objective)
        if most > objective + _ENGINE * abs(objective) + value.rounding:
            claims.append(f"an incumbent in the trace is {most!r}, the design's objective {objective!r}")
        if solution.status is Status.OPTIMAL and (solution.bound is None or solution.bound < objective):
            claims.append(f"OPTIMAL {objective!r} with the bound {solution.bound!r}")
    return claims


@dataclass
class Tally:
    """What one solver did with the problems."""

    ended: Counter[Status] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    seconds: float = 0.0


def check(seed: int, names: Sequence[str], seconds: float, tallies: dict[str, Tally]) -> list[str]:
    """One problem through some solvers; a line for each failure."""
    problem, limits = random_problem(seed)
    truth = truth_of(problem)
    lines = []
    for name in names:
        tally, started = tallies[name], time.perf_counter()
        try:
            solution = solve(problem, SOLVERS[name], Limits(seconds=seconds, gap=limits.gap, start=limits.start))
            claims = false_claims(problem, limits, truth, solution)
            tally.ended[solution.status] += 1
        except Exception as error:  # whatever comes out of a solver is to be listed beside the others
            refusal = isinstance(error, NotSeparable | EngineMissing | Undefined) or type(error) is ValueError
            claims = [] if refusal else [f"{type(error).__name__}: {error}"]
            if refusal:
                tally.refused[re.split(r" ≤|\d|,|;", f"{type(error).__name__}: {error}")[0]] += 1
        tally.seconds += time.perf_counter() - started
        tally.failures += bool(claims)
        lines += [f"seed {seed} {name}: {claim}" for claim in claims]
    return lines


def _table(tallies: dict[str, Tally]) -> str:
    rows = [("solver", "problems", "proved", "found", "unknown", "refused", "failures", "seconds")]
    for name, tally in tallies.items():
        ended, refused = tally.ended, sum(tally.refused.values())
        proved = ended[Status.OPTIMAL] + ended[Status.INFEASIBLE]
        counts = (proved, ended[Status.FEASIBLE], ended[Status.UNKNOWN], refused, tally.failures)
        rows.append((name, str(sum(ended.values()) + refused), *map(str, counts), f"{tally.seconds:.1f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    reasons = sum((tally.refused for tally in tallies.values()), Counter())
    return "\n".join([*lines, *(f"refused {count} times: {reason}" for reason, count in reasons.most_common())])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a claim was false or a solver failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long to go on (default: until --problems are done)")
    parser.add_argument("--problems", type=int, help="how many problems (default: 200, or as many as --seconds allows)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first problem; the next has the next number")
    parser.add_argument("--solvers", default="dp,exhaustive", help=f"some of {', '.join(SOLVERS)}, or all (default: dp,exhaustive)")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that a solver may take for a problem (default: 20)")
    options = parser.parse_args(arguments)
    names = list(SOLVERS) if options.solvers == "all" else options.solvers.split(",")
    if unknown := [name for name in names if name not in SOLVERS]:
        parser.error(f"unknown solvers {', '.join(unknown)}; expected some of {', '.join(SOLVERS)}, or all")
    problems = options.problems if options.problems is not None else 200 if options.seconds == math.inf else sys.maxsize
    tallies, started, failures, seed = {name: Tally() for name in names}, time.monotonic(), 0, options.seed
    try:
        while seed < options.seed + problems and time.monotonic() - started < options.seconds:
            for line in check(seed, names, options.limit, tallies):
                failures += 1
                print(line, flush=True)
            seed += 1
    except KeyboardInterrupt:
        print("interrupted")
    print(f"{seed - options.seed} problems, seeds {options.seed} to {seed - 1}, {failures} failures\n{_table(tallies)}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
