"""Designs that differ only in the order of equally wide neighbouring blocks: one design, as far as costs and objective can tell.

Blocks of one residual width that follow one another need no joining maps between them, whatever their order: it changes neither the
layers of the network nor the maps between them. Which of these orders a solver returns is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, permutations, product

import numpy as np

from formulation import Agreement, Architecture, Block, Budget, DesignProblem, SearchSpace, Separable
from formulation.architecture import CHOICES, Setting
from formulation.derived import shared_decisions, shared_setting


def order_is_free(problem: DesignProblem) -> bool:
    """Whether the objective and the budgets are the same for every order of equally wide neighbouring blocks.

    They are where no term of theirs depends on the position of its block. Nothing is known of black boxes. In a union of spaces
    with different numbers of blocks, which blocks of two designs belong together is settled by their positions alone; and so it is
    where the space says that another order is another design.
    """
    if len({part.blocks for part in problem.space.parts}) > 1 or not all(part.exchangeable for part in problem.space.parts):
        return False
    return not any(quantity.positional for quantity in (problem.goal, *(budget.quantity for budget in problem.subject_to)))


def can_sort(problem: DesignProblem) -> bool:
    """Whether `sorted_design` stays within budgets and space for every design.

    It does where the order is free, all menus are equal, and no rule but that widths may not fall says what may follow a block.
    """
    plain = (len(set(part.menus)) == 1 and part.step is None and not part.alike for part in problem.space.parts)
    return order_is_free(problem) and all(plain)


def runs(design: Architecture) -> tuple[range, ...]:
    """The longest stretches of neighbouring blocks of one width, as positions."""
    positions, found = range(len(design.blocks)), []
    for _, run in groupby(positions, key=lambda position: design.blocks[position].width):
        own = list(run)
        found.append(range(own[0], own[-1] + 1))
    return tuple(found)


def sorted_design(design: Architecture) -> Architecture:
    """The design with equally wide neighbours in ascending order: the same for all that differ in nothing else."""
    blocks = [block for run in runs(design) for block in sorted(design.blocks[run.start : run.stop], key=_rank)]
    return replace(design, blocks=tuple(blocks))


def orders(design: Architecture) -> Iterator[Architecture]:
    """The design in every order of equally wide neighbours, each once."""
    ways = [dict.fromkeys(permutations(design.blocks[run.start : run.stop])) for run in runs(design)]
    return (replace(design, blocks=tuple(block for part in parts for block in part)) for parts in product(*ways))


class SortedItems:
    """Whether designs have their equally wide neighbours in ascending order, read off menu items.

    Attributes:
        ranks: per block the place of each item in that order.
    """

    def __init__(self, space: SearchSpace) -> None:
        distinct = sorted(
            {block for menu in space.menus for block in space.blocks_of(menu)}, key=lambda block: (block.width, *_rank(block))
        )
        place = {block: number for number, block in enumerate(distinct)}
        self.ranks = [np.array([place[block] for block in space.blocks_of(menu)]) for menu in space.menus]
        self._widths = [np.array([block.width for block in space.blocks_of(menu)]) for menu in space.menus]

    def allow(self, block: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Bool (n,): which items `right` (n,) of a block may follow the items `left` (n,) of the block before it."""
        equal = self._widths[block - 1][left] == self._widths[block][right]
        return ~equal | (self.ranks[block - 1][left] <= self.ranks[block][right])

    def contain(self, choices: np.ndarray) -> np.ndarray:
        """Bool (n,): which of the designs, choices (n, N), are sorted."""
        pairs = (self.allow(block, choices[:, block - 1], choices[:, block]) for block in range(1, choices.shape[1]))
        return np.logical_and.reduce([np.ones(len(choices), dtype=bool), *pairs])


def _rank(block: Block) -> tuple[int, ...]:
    """Distinguishes the blocks of one width; what means nothing in a block without layers comes first."""
    return tuple(value or 0 for name, value in block.choices.items() if name != "width")


@dataclass(frozen=True)
class Alignment:
    """Two designs side by side, equally wide neighbours of each in the order in which the two share the most decisions.

    Attributes:
        given: the first design.
        shared: how many decisions they share then, those around the blocks included.
        blocks: the blocks of the first design, each at the position of the block of the second one that it is compared with.
        widths: of the second design's runs whose blocks had to be moved for that; None at the other positions.
    """

    given: Architecture
    shared: int
    blocks: tuple[Block, ...]
    widths: tuple[int | None, ...]

    @property
    def differing(self) -> int:
        """In how many decisions they differ then."""
        return Agreement(self.given, setting=True).most - self.shared

    def budget(self, differing: int) -> Budget:
        """A budget that rules out the second design, and only designs that differ from the first in fewer decisions than asked for.

        In every design that has `widths` where they are named, those blocks may be moved as in the second design. In any other
        one at least one weight of `differing` is missing, and the budget allows whatever its blocks are.

        Args:
            differing: in how many decisions two designs have to differ; more than they do.
        """
        named = sum(width is not None for width in self.widths)
        most = Agreement(self.given, setting=True).most
        return Budget(_Nearness(self.given, self.blocks, self.widths, differing), most - differing + differing * named)


@dataclass(frozen=True)
class _Nearness(Separable):
    """Decisions shared with `blocks` in the setting of `given`, and `weight` for each block of the width named at its position."""

    given: Architecture
    blocks: tuple[Block, ...]
    widths: tuple[int | None, ...]
    weight: int

    name = "nearness"
    unit = "decisions"

    def fixed(self, setting: Setting) -> float:
        return shared_setting(self.given, setting)

    def block(self, block: Block, setting: Setting) -> float:
        raise ValueError("nearness depends on the position of a block; use block_at")

    def block_at(self, position: int, block: Block, setting: Setting) -> float:
        return shared_decisions(self.blocks[position], block) + self.weight * (block.width == self.widths[position])


def aligned(given: Architecture, design: Architecture, both: bool = True) -> Alignment:
    """The alignment of two designs with equally many blocks.

    Every order of both is one way to pair the blocks of one with those of the other, a pair only if their runs overlap. The
    converse holds too: runs are intervals, so which overlap is a forest, in which the lengths of the runs settle how many pairs
    each overlap has: as many as it has positions. So the order sought solves an assignment problem.

    Args:
        given: a design.
        design: another one.
        both: whether the blocks of `design` may be moved too, or only those of `given`.
    """
    from scipy.optimize import linear_sum_assignment

    count = len(given.blocks)
    own = {position: run for run in runs(given) for position in run}
    other = {position: run for run in runs(design) for position in run} if both else {i: range(i, i + 1) for i in range(count)}
    never = -2.0 * len(CHOICES) * count - 1  # less than all that pairs can differ by
    gains = np.full((count, count), never)
    for i, j in product(range(count), repeat=2):
        if own[i].start < other[j].stop and other[j].start < own[i].stop:
            gains[i, j] = shared_decisions(given.blocks[i], design.blocks[j])
    _, sources = linear_sum_assignment(gains.T, maximize=True)
    moved = {other[place] for place, source in enumerate(sources) if place not in own[source]}
    widths = tuple(design.blocks[place].width if other[place] in moved else None for place in range(count))
    shared = int(gains[sources, range(count)].sum()) + shared_setting(given, design)
    return Alignment(given, shared, tuple(given.blocks[source] for source in sources), widths)
