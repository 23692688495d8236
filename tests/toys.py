"""Small random problems whose truth brute force gives, for the tests of solvers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from formulation import (
    Architecture,
    Block,
    Budget,
    Combine,
    DesignProblem,
    EffectiveEntropy,
    Menu,
    Quantity,
    SearchSpace,
    Separable,
)
from formulation.architecture import Setting
from formulation.score_table import Column, OptionMenu, OptionSpace
from hardware_models import Flops, Params


@dataclass(frozen=True)
class RandomCost(Separable):
    """A cost drawn at random per block shape and per joint: neither whole nor affine in depth, as a measured table may be."""

    seed: int
    maximum: bool = False

    name = "random cost"
    unit = "1"

    @property
    def combine(self) -> Combine:  # type: ignore[override]
        return Combine.MAX if self.maximum else Combine.SUM

    def block(self, block: Block, setting: Setting) -> float:
        draw = np.random.default_rng([self.seed, block.width, block.ffn_width, block.depth])
        return float(block.depth * block.width / 500 + draw.random())

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return float(np.random.default_rng([self.seed, left, right]).random())

    def fixed(self, setting: Setting) -> float:
        return 0.25


@dataclass(frozen=True)
class Toy:
    """A problem with its designs and their values by the plain definitions, one design at a time."""

    problem: DesignProblem
    designs: tuple[Architecture, ...]
    objectives: np.ndarray
    feasible: np.ndarray

    @property
    def optimum(self) -> float | None:
        """The best feasible objective; None if no design is feasible."""
        return float(self.objectives[self.feasible].max()) if self.feasible.any() else None


def _subset(draw: np.random.Generator, pool: list, most: int) -> tuple:
    return tuple(sorted(draw.choice(pool, size=draw.integers(1, min(most, len(pool)) + 1), replace=False).tolist()))


def _random_space(draw: np.random.Generator) -> SearchSpace:
    blocks = int(draw.integers(1, 4))
    most = {1: 5, 2: 4, 3: 3}[blocks]
    while True:
        menus = tuple(
            Menu(
                _subset(draw, [256, 320, 384, 512, 640, 768, 1024], most),
                _subset(draw, [1, 1.5, 2, 4], 2),
                _subset(draw, [1, 2, 3, 5], most),
            )
            for _ in range(blocks)
        )
        try:
            return SearchSpace(menus, non_decreasing=bool(draw.random() < 0.8), shared=bool(draw.random() < 0.7))
        except ValueError:
            continue


def _slowly(left: Block, right: Block) -> bool:
    return right.depth <= left.depth + 1


def _alternating(left: Block, right: Block) -> bool:
    return left.ffn_width <= right.ffn_width or left.depth != right.depth


def _no_jump(left: Block, right: Block) -> bool:
    return right.width < 2 * left.width


RULES = (_slowly, _alternating, _no_jump, None)
"""Rules for steps; the last but one asks for widths alone."""


def _open_space(draw: np.random.Generator) -> SearchSpace:
    """Two or three blocks, unlike, some or all of which may be left out, with or without a rule for steps."""
    blocks = int(draw.integers(1, 4))
    while True:
        menus = tuple(
            Menu(
                _subset(draw, [256, 320, 512, 768], 3),
                _subset(draw, [1, 1.5, 2], 2),
                (*((0,) if draw.random() < 0.75 else ()), *_subset(draw, [1, 2, 4], 2)),
            )
            for _ in range(blocks)
        )
        try:
            return SearchSpace(
                menus,
                non_decreasing=bool(draw.random() < 0.5),
                shared=bool(draw.random() < 0.7),
                step=RULES[int(draw.integers(len(RULES)))],
            )
        except ValueError:
            continue


def _rich_space(draw: np.random.Generator) -> SearchSpace:
    """Up to three blocks of one or two widths with heads, groups, gates, sharing and bits; menus that others belong to."""
    family = str(draw.choice(["merino", "llama", "gpt2"]))
    while True:
        widths = _subset(draw, [128, 192, 256], 1 if family != "merino" else 2)
        menus = []
        for _ in range(int(draw.integers(1, 4))):
            further = {
                "heads": _subset(draw, [2, 3, 6], 2),
                "kv_heads": _subset(draw, [1, 2, 3], 2),
                "head_sizes": _subset(draw, [32, 64], 2),
                "gated": (True, False),
                "shared": (True, False),
                "bits": (4, 16),
            }
            said = draw.choice(list(further), size=2, replace=False)
            also = (Menu(widths[:1], depths=(4,), ffn_widths=(320,), heads=(4,), kv_heads=(4,)),) if draw.random() < 0.4 else None
            depths = (*((0,) if draw.random() < 0.5 else ()), *_subset(draw, [1, 2, 3, 5], 2))
            try:
                menu = Menu(widths, depths=depths, ffn_widths=(256, 384), also=also, **{name: further[name] for name in said})
            except ValueError:
                continue
            menus.append(menu)
        try:
            own = {} if family == "merino" else {"embedding_width": widths[0]}
            space = SearchSpace(tuple(menus), family=family, step=RULES[int(draw.integers(len(RULES)))], **own)
        except ValueError:
            continue
        if space.size <= 4000:
            return space


@cache
def rich_toy(number: int) -> Toy:
    """A like problem with the decisions that a layer has beside its widths and depth."""
    draw = np.random.default_rng([20270, number])
    return _problem(number, draw, _rich_space(draw))


@cache
def toy(number: int) -> Toy:
    """The random problem of that number: random menus, one to three budgets of mixed kinds, some of them infeasible."""
    draw = np.random.default_rng([20250, number])
    return _problem(number, draw, _random_space(draw))


@cache
def open_toy(number: int) -> Toy:
    """A like problem whose blocks may be left out and have to follow a rule for steps."""
    draw = np.random.default_rng([20260, number])
    return _problem(number, draw, _open_space(draw))


def _problem(number: int, draw: np.random.Generator, space: SearchSpace) -> Toy:
    objective: Quantity = (
        EffectiveEntropy(
            rho=float(draw.choice([0.01, 0.1])), effectiveness=bool(draw.random() < 0.9), weighting=bool(draw.random() < 0.8)
        )
        if draw.random() < 0.85
        else RandomCost(number)
    )
    designs = tuple(space)
    kinds: list[Quantity] = [
        Flops(seq_len=128),
        Params(),
        Flops(head=True),
        RandomCost(number + 1),
        RandomCost(number + 2, maximum=True),
    ]
    budgets = []
    for k in draw.choice(len(kinds), size=draw.integers(1, 4), replace=False):
        values = np.array([kinds[k](design) for design in designs])
        upper = values.min() * 0.99 if draw.random() < 0.08 else np.quantile(values, draw.uniform(0.1, 0.9))
        budgets.append(Budget(kinds[k], float(upper)))
    problem = DesignProblem(space, objective, tuple(budgets))
    evaluations = [problem.evaluate(design) for design in designs]
    return Toy(
        problem,
        designs,
        np.array([evaluation.objective for evaluation in evaluations]),
        np.array([evaluation.feasible for evaluation in evaluations]),
    )


def table_problem(positions: int, options: int, budgets: int, seed: int) -> DesignProblem:
    """One of some options a position, scores and costs at random, in whole hundredths; several budgets bind."""
    draw = np.random.default_rng(seed)
    space = OptionSpace(tuple(OptionMenu(f"layer {number}", tuple(map(str, range(options)))) for number in range(1, positions + 1)))
    score, *costs = draw.integers(100, 10_000, (1 + budgets, positions, options)) / 100

    def column(name: str, values: np.ndarray) -> Column:
        return Column(name, "points", tuple(map(tuple, values.tolist())), space)

    limits = (
        Budget(column(f"cost {number}", cost), round(positions * (35 - 1.4 * number), 2)) for number, cost in enumerate(costs)
    )
    return DesignProblem(space, column("score", score), tuple(limits))
