"""The problems that exact methods are compared on: every one deterministic, small ones before the larger ones of their kind.

Additive ones come from score tables and are drawn at random, so that a seed is an instance of its own. Composite ones have the
effective entropy as their objective, and one instance each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, SearchSpace
from formulation.problem_file import SPACES
from formulation.score_table import Column, OptionMenu, OptionSpace
from hardware_models import CacheMemory, DecodeLatency, Flops, Memory, Params, PrefillLatency, read_datasheet


@dataclass(frozen=True)
class NamedInstance:
    """A problem, or a family of random ones.

    Attributes:
        name: on the command line and in rows.
        kind: the heading it stands under.
        build: the problem of a seed.
        seeded: whether seeds differ; without it they are repeats of one problem.
        smaller: the instance that a solver has to have proved before it is tried on this one, None if it always is.
    """

    name: str
    kind: str
    build: Callable[[int], DesignProblem]
    seeded: bool = False
    smaller: str | None = None


# Score tables


def additive_problem(values: np.ndarray, costs: np.ndarray, limits: Sequence[float]) -> DesignProblem:
    """Choose an item at each position: values and costs add up.

    Args:
        values: (positions, items).
        costs: (budgets, positions, items).
        limits: one for each budget.
    """
    positions, items = values.shape
    names = tuple(f"item {item}" for item in range(items))
    space = OptionSpace(tuple(OptionMenu(f"layer {position}", names) for position in range(positions)))
    budgets = tuple(
        Budget(Column(f"cost {number}", "1", cost.tolist(), space), float(limit))
        for number, (cost, limit) in enumerate(zip(costs, limits, strict=True), start=1)
    )
    score = Column("score", "1", values.tolist(), space)
    return DesignProblem(space, score, budgets)  # type: ignore[arg-type]  # a space of selections


_ATTENTION, _FFN = (1.0, 0.6, 0.3, 0.05), (1.0, 0.7, 0.45, 0.2)
"""Sizes of the four variants of each half of a layer, relative to the whole one."""
_VARIANT_COSTS = ((2.0, 6.0, 0.3), (3.0, 4.0, 0.5), (5.0, 1.0, 0.6), (1.0, 3.0, 1.5))
"""Of each cost what a whole attention takes, a whole FFN, and how far chance adds to their sum."""
_VARIANT_LIMITS = (0.55 * 8.15, 0.55 * 7.25, 0.5 * 6.3, 0.55 * 4.75)
"""A layer's share of each budget: half of what a whole layer takes on average, or a little more."""


def layer_variants(layers: int, budgets: int, seed: int) -> DesignProblem:
    """16 variants of each layer, the form of block-wise scores: four of its attention times four of its FFN.

    With relative sizes a and f of the two halves and u uniform in [0, 1), drawn for each layer and variant, a score is
    3 − u·(1.2·(1 − a) + (1 − f)), and a cost w_a·a + w_f·f + w_u·u: what is cut costs less and scores worse.

    Args:
        layers: how many.
        budgets: 2 or 4.
        seed: of the draws.
    """
    draw = random.Random(seed).random
    variants = [(attention, ffn) for attention in _ATTENTION for ffn in _FFN]

    def cost(attention: float, ffn: float, chance: float) -> np.ndarray:
        return np.array([[round(attention * a + ffn * f + chance * draw(), 3) for a, f in variants] for _ in range(layers)])

    costs = [cost(*weights) for weights in _VARIANT_COSTS[:2]]
    values = 3 - np.array([[round(draw() * (1.2 * (1 - a) + 1.0 * (1 - f)), 4) for a, f in variants] for _ in range(layers)])
    costs += [cost(*weights) for weights in _VARIANT_COSTS[2:budgets]]
    return additive_problem(values, np.array(costs), [share * layers for share in _VARIANT_LIMITS[:budgets]])


def random_items(layers: int, items: int, budgets: int, seed: int) -> DesignProblem:
    """Scores and costs uniform in [1, 100), each for itself: nothing says which items are good.

    Budget k allows 35·(1 − 0.04·k) a layer, k = 0, 1, …
    """
    draw = np.random.default_rng(seed).uniform
    costs = draw(1, 100, (budgets, layers, items)).round(2)
    values = draw(1, 100, (layers, items)).round(2)
    return additive_problem(values, costs, [0.35 * 100 * layers * (1 - 0.04 * number) for number in range(budgets)])


def correlated_items(layers: int, items: int, budgets: int, seed: int) -> DesignProblem:
    """Scores that grow with the root of a size q in [0, 1), costs that grow with q: what is good is dear.

    With u uniform in [0, 1): score 100·√q + 10·u; cost 100·(q·w + 0.3·u), w uniform in [0.5, 1) for each item number. A budget
    allows 0.45 of what the dearest items cost.
    """
    draw = np.random.default_rng(seed).uniform
    size = draw(0, 1, (layers, items))
    costs = np.array([(size * draw(0.5, 1, (1, items)) + 0.3 * draw(0, 1, (layers, items))) * 100 for _ in range(budgets)]).round(3)
    values = (np.sqrt(size) * 100 + 10 * draw(0, 1, (layers, items))).round(3)
    return additive_problem(values, costs, [0.45 * cost.max(axis=1).sum() for cost in costs])


# Blocks with the effective entropy


def many_items(blocks: int) -> SearchSpace:
    """Blocks of 390 items: widths 256 to 1024 by 64, ratios 1, 1.5, 2, 3, 4, depths 1 to 6; the items of `fine_space`."""
    return SearchSpace.uniform(blocks, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7))


_DEVICE = "jetson-orin-nano-8gb"


def block_costs() -> tuple[Flops, Params, PrefillLatency, DecodeLatency, Memory]:
    """What the budgets of the blocks are on: FLOPs, parameters, prefill and decode latency, memory, in this order."""
    device = read_datasheet(_DEVICE)
    return Flops(), Params(), PrefillLatency(device, 128, "float16"), DecodeLatency(device, 128, "float16"), Memory()


MANY_ITEMS_QUANTILES = (0.5, 0.4, 0.5, 0.45, 0.5)
QUANTILE_LIMITS = {
    12: (457711812608.0, 86177977.60000001, 7.833316264705882, 6.054648500000001, 393655552.0),
    24: (910742781952.0, 131596672.0, 14.407095088235291, 11.040669394117646, 618175744.0),
}
"""Blocks -> limits of the `block_costs`: their `MANY_ITEMS_QUANTILES` over 400 designs of `many_items` drawn with seed 0.

Only FLOPs bind.
"""
FIRST_OPTIMA = {
    12: ((1, (512, 512, 5)), (11, (576, 576, 6))),
    24: ((11, (640, 640, 4)), (1, (640, 640, 5)), (11, (640, 640, 6)), (1, (768, 768, 2))),
}
"""Blocks -> the optimum within the first of these limits alone, as (number of blocks, (E, F, L))."""


def first_optimum(blocks: int) -> Architecture:
    """See `FIRST_OPTIMA`."""
    space = many_items(blocks)
    shapes = tuple(Block(*shape) for number, shape in FIRST_OPTIMA[blocks] for _ in range(number))
    return Architecture(shapes, space.shared, space.embedding_width, space.vocabulary, space.positions)


def block_problem(blocks: int, budgets: int, share: float | None, seed: int) -> DesignProblem:
    """Blocks of 390 items, effective entropy with β = 1/128.

    Args:
        blocks: 12 or 24.
        budgets: how many of the `block_costs` are limited.
        share: None: by `QUANTILE_LIMITS`; else all but the first by this share of what `first_optimum` uses, so that several bind.
        seed: makes no difference.
    """
    limits = list(QUANTILE_LIMITS[blocks][:budgets])
    costs = block_costs()[:budgets]
    if share is not None:
        optimum = first_optimum(blocks)
        limits[1:] = [share * cost(optimum) for cost in costs[1:]]
    return DesignProblem(many_items(blocks), EffectiveEntropy(beta=1 / 128), tuple(map(Budget, costs, limits)))


PUBLISHED_GFLOPS = (60, 110, 160)
"""The FLOPs budgets of the paper's search (MeRino, section 5)."""


def published_problem(space: str, gflops: int, seed: int) -> DesignProblem:
    """A space by its name under one of the paper's FLOPs budgets; the seed makes no difference."""
    return DesignProblem(SPACES[space](), EffectiveEntropy(), (Budget(Flops(), gflops * 1e9),))


LAYER_BUDGETS = (134_515_008, 289_910_292_480, 23_592_960)
"""What SmolLM2-135M has itself: parameters, FLOPs for 1,024 tokens, bytes of cache for them in 16 bits."""
DECODE_MS = 3.8
"""Limit of the decode latency after 128 tokens on a Jetson Orin Nano, in float16: the optimum within the others takes 3.85 ms."""


def layer_costs() -> tuple[Params, Flops, CacheMemory, DecodeLatency]:
    """Parameters, FLOPs, cache and decode latency [ms] of a model's layers."""
    return Params(), Flops(), CacheMemory(1024, bits=16), DecodeLatency(read_datasheet(_DEVICE), 128, "float16")


def layers_problem(budgets: int, seed: int) -> DesignProblem:
    """All decisions of SmolLM2-135M's 30 layers, under the first of its parameters, FLOPs, cache and a decode latency."""
    limits = map(float, (*LAYER_BUDGETS, DECODE_MS)[:budgets])
    return DesignProblem(SPACES["smollm2-135m-layers"](), EffectiveEntropy(), tuple(map(Budget, layer_costs()[:budgets], limits)))


_VARIANTS = "16 variants of each layer, additive"
_PUBLISHED = "blocks of the paper, effective entropy"
_MANY_ITEMS = "390 items a block, effective entropy"
_LAYERS = "30 layers of SmolLM2-135M, effective entropy"


def _listed() -> Iterator[NamedInstance]:
    """All instances, each behind the smaller one."""
    for budgets in (2, 4):
        smaller = None
        for layers in (8, 16, 32, 80, 160):
            name = f"variants-{layers}-{budgets}"
            yield NamedInstance(name, _VARIANTS, partial(layer_variants, layers, budgets), True, smaller)
            smaller = name
    for word, build in (("random", random_items), ("correlated", correlated_items)):
        for budgets in (3, 5):
            names = [f"{word}-{layers}-{budgets}" for layers in (24, 32)]
            kind = f"45 {word} items, additive"
            yield NamedInstance(names[0], kind, partial(build, 24, 45, budgets), True)
            yield NamedInstance(names[1], kind, partial(build, 32, 45, budgets), True, names[0])
    before = {"paper": "", "fine": "paper-", "deep": "fine-"}
    for space, other in before.items():
        for gflops in PUBLISHED_GFLOPS:
            smaller = f"{other}{gflops}" if other else None
            yield NamedInstance(f"{space}-{gflops}", _PUBLISHED, partial(published_problem, space, gflops), False, smaller)
    for blocks in (12, 24):
        for budgets, share in ((1, None), (3, None), (5, None), (3, 0.93), (5, 0.93), (3, 0.85), (5, 0.85)):
            ending = f"{budgets}" if share is None else f"{budgets}-at-{share:.2f}"
            smaller = f"blocks-12-{ending}" if blocks == 24 else None if budgets == 1 else "blocks-12-1"
            yield NamedInstance(
                f"blocks-{blocks}-{ending}", _MANY_ITEMS, partial(block_problem, blocks, budgets, share), False, smaller
            )
    for budgets, fewer in ((1, None), (3, 1), (4, 3)):
        smaller = None if fewer is None else f"layers-{fewer}"
        yield NamedInstance(f"layers-{budgets}", _LAYERS, partial(layers_problem, budgets), False, smaller)


INSTANCES: dict[str, NamedInstance] = {instance.name: instance for instance in _listed()}
"""All instances by name, small ones before larger ones of their kind."""
