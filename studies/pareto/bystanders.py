"""Designs that nobody optimized for the problem at hand, compared with a front: the published ones and uniform ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from formulation import PUBLISHED, Architecture, Block, SearchSpace
from formulation.architecture import SETTING
from formulation.published import FFN_RATIO
from solvers import Front, Point


@dataclass(frozen=True)
class Baseline:
    """A design that nobody optimized for this problem, compared with the front.

    Attributes:
        family: "published" or "uniform": all blocks alike, as in GPT-2.
        point: its values.
        in_space: whether the space holds it.
        within: whether it keeps the problem's budgets.
        best: the best objective of the front at no larger costs; None if the front has no such point.
        settled: whether that is proved; where it is not, the front is incomplete there, and its true best may be larger.
    """

    name: str
    family: str
    point: Point
    in_space: bool
    within: bool
    best: float | None
    settled: bool

    @property
    def loss(self) -> float | None:
        """By how much it falls short of the front at its own costs, relative; a lower bound where that is not `settled`.

        None if the comparison would not be fair, or where the front knows nothing as good yet.
        """
        if not (self.in_space and self.within and self.best):
            return None
        if not self.settled and self.best < self.point.objective:
            return None
        return (self.best - self.point.objective) / self.best


def baselines_of(front: Front) -> list[Baseline]:
    """The published designs and the uniform ones, compared with the front."""
    problem = front.problem
    designs = [(name, "published", design) for name, design in PUBLISHED.items()]
    designs += [(str(design.blocks[0]), "uniform", design) for design in uniform_designs(problem.space)]
    baselines = []
    for name, family, design in designs:
        point = Point(design, problem.objective(design), tuple(cost(design) for cost in problem.minimize))
        within = all(budget.allows(budget.value(design)) for budget in problem.subject_to)
        cheaper = (own.objective for own in front.points if all(np.array(own.costs) <= point.costs))
        best = max(cheaper, default=None)
        baselines.append(Baseline(name, family, point, design in problem.space, within, best, front.settles(point.costs)))
    return baselines


def uniform_designs(space: SearchSpace) -> list[Architecture]:
    """Designs with all blocks alike, as in GPT-2: every width and depth that all menus hold, with the largest FFN that all hold
    and with GPT-2's `FFN_RATIO`, whether the menus hold it or not; of what else is open, with as many heads as all hold.
    """

    def size(block: Block) -> tuple[int, ...]:
        return block.ffn_width, block.heads * block.head_size, block.kv_heads * block.head_size

    common = set.intersection(*({block for block in space.blocks_of(menu) if block.depth} for menu in space.menus))
    largest: dict[tuple[int, int], Block] = {}
    for block in sorted(common, key=str):
        key = block.width, block.depth
        largest[key] = max(largest.get(key, block), block, key=size)
    shapes = {*largest.values(), *(replace(each, ffn_width=FFN_RATIO * each.width) for each in largest.values())}
    setting = {name: getattr(space, name) for name in SETTING}
    return [
        Architecture((shape,) * space.blocks, **setting)
        for shape in sorted(shapes, key=lambda each: (each.ffn_ratio, each.width, each.depth))
    ]
