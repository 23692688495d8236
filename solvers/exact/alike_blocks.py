"""What a problem is where its blocks are alike: it matters how many blocks take an item, not which, but for first, last and joints.

Two kinds of spaces are read. *Free*: any item may follow any other, and no joint between neighbours makes a difference. *Growing*:
there is an order of the states in which each may be followed by itself and all later ones, as where widths may not decrease; a
design's blocks then come in the order of their states, so the states that it uses say which joints it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from formulation import Block, DesignProblem, NotSeparable, SearchSpace
from formulation.menu import Choices
from formulation.table import Table
from solvers.base import Run
from solvers.evaluation import Tabulated

_CLOSE = 2.0**-46
"""Relative to the terms added up: differences between blocks that are put down to rounding."""
ADVICE = "use DynamicProgramming or Highs"
"""What can be used instead, in messages."""


@dataclass(frozen=True, eq=False)
class AlikeBlocks:
    """The rows of a problem's table, by item and state instead of by block.

    Of a row that adds up, a design's value is `fixed` + Σ over its blocks of `items` and `steps` + `first` and `last` of the states
    that it begins and ends with + Σ of the `joints` of the unequal neighbours among its states; of a maximum, the largest of these.

    Items of one state that differ in depth alone, and of which every sum grows by one and the same step from each to the next, are
    one *kind*: the sums of a design say of them only how many blocks have the kind, and how many steps these make together.

    Attributes:
        count: N, the number of blocks.
        members: per kind its items, step by step; most often one.
        state: (I,) the state of each kind; where spaces grow, in their order.
        layered: bool (I,): the kinds that have layers.
        may_be_empty: whether it must be asked for that a design has a layer.
        growing: whether the order of blocks is that of their states; else any order will do.
        linked: whether first, last or joints make a difference to some row.
        fixed: (rows,).
        items: (rows, I) of the first item of each kind.
        steps: (rows, I) what each step adds, 0 for maxima.
        first: (rows, S), for maxima −∞ where nothing is added.
        last: (rows, S).
        joints: (rows, S, S), of use above the diagonal alone.
        least: (rows,) no design has less.
        most: (rows,) no design has more.
        errors: (rows,) the most by which a sum read here may differ from the one that the problem itself adds up.
        is_max: (rows,).
    """

    count: int
    members: tuple[np.ndarray, ...]
    state: np.ndarray
    layered: np.ndarray
    may_be_empty: bool
    growing: bool
    linked: bool
    fixed: np.ndarray
    items: np.ndarray
    steps: np.ndarray
    first: np.ndarray
    last: np.ndarray
    joints: np.ndarray
    least: np.ndarray
    most: np.ndarray
    errors: np.ndarray
    is_max: np.ndarray

    @property
    def states(self) -> int:
        """S."""
        return int(self.state.max()) + 1

    @property
    def longest(self) -> np.ndarray:
        """(I,) the most steps that a block of each kind has."""
        return np.array([len(items) - 1 for items in self.members])

    def choices(self, counts: np.ndarray, steps: np.ndarray, first: int = 0, last: int = 0) -> Choices | None:
        """Item numbers of a design, in the order of states; where any order will do it begins and ends with two states.

        Args:
            counts: (I,) how many blocks have each kind; Σ = N.
            steps: (I,) how many steps these make together.

        Returns:
            None where the states that a design is to begin and end with are not both among its blocks.
        """
        items, rank = [], []
        for kind in np.flatnonzero(counts):
            each, more = divmod(int(steps[kind]), int(counts[kind]))
            for number in range(int(counts[kind])):
                items.append(int(self.members[kind][each + (number < more)]))
                rank.append(int(self.state[kind]))
        if not self.growing and len(items) > 1:
            begin = next((number for number, state in enumerate(rank) if state == first), None)
            end = next((number for number, state in enumerate(rank) if state == last and number != begin), None)
            if begin is None or end is None:
                return None
            rank[begin], rank[end] = -1, self.states
        return tuple(items[number] for number in np.argsort(rank, kind="stable"))


def read_alike(problem: DesignProblem, run: Run) -> tuple[AlikeBlocks, Tabulated]:
    """How a problem's blocks are alike, and its table.

    Raises:
        NotSeparable: saying what makes the blocks of this problem differ.
        Stopped: if the run is stopped meanwhile.
    """
    space = problem.space
    states, layers = space.state_of, [menu.layers for menu in space.menus]
    if not all(np.array_equal(own, each[0]) for each in (states, layers) for own in each):
        raise NotSeparable(f"counting blocks needs the same menu for every block, and those of this space differ; {ADVICE}")
    order = _order(space.steps, len(space.state_widths[0]))
    tabulated = Tabulated(problem, run.poll)
    table = tabulated.table
    free = all(bool(step.all()) for step in space.steps)
    jointless = all(bool(without.all()) for without in table.without_joints)
    if order is None and not (free and jointless):
        what = "rules for steps or joints that depend on it" if not free else "joints between neighbours of any width"
        raise NotSeparable(
            f"counting blocks needs an order of blocks that makes no difference, and this space has {what}; {ADVICE}"
        )
    growing = not (free and jointless)
    if not growing:
        order = np.arange(len(space.state_widths[0]))
    assert order is not None
    place = np.argsort(order)
    state = place[states[0]]
    items, first, last, errors = _ends(table, state, len(order), problem)
    joints = np.broadcast_to(np.where(table.is_max, -np.inf, 0.0)[:, None, None], (len(items), len(order), len(order)))
    if growing:
        joints = table.joints[0][:, order][:, :, order]
        if not all(np.array_equal(joint, table.joints[0]) for joint in table.joints[1:]):
            raise NotSeparable(f"counting blocks needs joints that ignore the position of a block; {ADVICE}")
    neutral = np.where(table.is_max, -np.inf, 0.0)[:, None]
    linked = bool((first != neutral).any() or (last != neutral).any()) or not jointless
    every = slice(0, len(items))
    rounding, (least, most) = table.rounding(every, table.sizes), table.extremes
    members, steps, bent = _kinds(space, state, items, table)
    heads = np.array([own[0] for own in members])
    return (
        AlikeBlocks(
            space.blocks,
            members,
            state[heads],
            layers[0][heads] > 0,
            space.may_be_empty,
            growing,
            linked,
            table.fixed,
            items[:, heads],
            steps,
            first,
            last,
            joints,
            least - table.rounding(every, least),
            most + table.rounding(every, most),
            errors + bent + rounding,
            table.is_max,
        ),
        tabulated,
    )


def _kinds(
    space: SearchSpace, state: np.ndarray, items: np.ndarray, table: Table
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """The items of each kind, the step of each row and kind, and the error of taking the steps as equal, per row."""
    families: dict[object, list[int]] = {}
    for item, block in enumerate(space.blocks_of(space.menus[0])):
        deep = isinstance(block, Block) and block.depth > 0
        families.setdefault((state[item], replace(block, depth=1)) if deep else item, []).append(item)
    layers = space.menus[0].layers
    members, steps, errors = [], [], np.zeros(len(items))
    sizes = _CLOSE * table.sizes / space.blocks
    for own in families.values():
        run = np.array(sorted(own, key=lambda item: layers[item]))
        while len(run):
            end, step, off = 1, np.zeros(len(items)), np.zeros(len(items))
            for stop in range(2, len(run) + 1):
                tried = run[:stop]
                pace = (items[:, tried[-1]] - items[:, tried[0]]) / (stop - 1)
                bent = np.abs(items[:, tried] - items[:, tried[:1]] - pace[:, None] * np.arange(stop)).max(axis=1)
                even = np.all(np.diff(layers[tried]) == layers[tried[1]] - layers[tried[0]])
                if not even or np.any(bent > sizes) or np.any(pace[table.is_max] != 0):
                    break
                end, step, off = stop, pace, bent
            members.append(run[:end])
            steps.append(step)
            errors = np.maximum(errors, off)
            run = run[end:]
    return tuple(members), np.stack(steps, axis=1), space.blocks * errors


def _order(steps: tuple[np.ndarray, ...], states: int) -> np.ndarray | None:
    """The states in an order in which each may be followed by itself and all later ones, None if there isn't one."""
    if not steps:
        return np.arange(states)
    if not all(np.array_equal(step, steps[0]) for step in steps):
        return None
    order = np.argsort(-steps[0].sum(axis=1), kind="stable")
    sorted_steps = steps[0][np.ix_(order, order)]
    return order if np.array_equal(sorted_steps, np.triu(np.ones((states, states), dtype=bool))) else None


def _ends(
    table: Table, state: np.ndarray, states: int, problem: DesignProblem
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Terms of items in the middle, what the first and the last block have beside them by state, and the error of that."""
    blocks = np.stack(table.blocks)
    items = blocks[min(1, len(blocks) - 1)].copy()
    items[table.is_max] = blocks.min(axis=0)[table.is_max]
    neutral = np.where(table.is_max, -np.inf, 0.0)
    ends, errors = [], np.zeros(len(items))
    for block in (blocks[0], blocks[-1]):
        own = np.repeat(neutral[:, None], states, axis=1)
        beyond = np.where(table.is_max[:, None], np.where(block > items, block, -np.inf), block - items)
        for number in range(states):
            here = beyond[:, state == number]
            own[:, number] = np.where(table.is_max, here.max(axis=1), here[:, 0])
        made = np.where(table.is_max[:, None], np.maximum(items, own[:, state]), items + own[:, state])
        off = np.where(table.is_max[:, None], np.where(made == block, 0.0, np.inf), np.abs(made - block))
        errors += off.max(axis=1)
        ends.append(own)
    inner = blocks[1:-1]
    same = all(np.array_equal(block, items) for block in inner)
    if not same or np.any(errors > _CLOSE * table.sizes):
        names = _names(problem)
        wrong = errors > _CLOSE * table.sizes
        wrong |= np.any([(block != items).any(axis=1) for block in inner] or [np.zeros(len(items), dtype=bool)], axis=0)
        raise NotSeparable(
            "counting blocks needs quantities that ignore the position of a block, "
            f"and {names[int(wrong.argmax())]} does not; {ADVICE}"
        )
    return items, ends[0], ends[1], errors


def _names(problem: DesignProblem) -> list[str]:
    """The quantity that each row of the table belongs to."""
    names = []
    for quantity in (problem.goal, *(constraint.quantity for constraint in problem.constraints)):
        names += [quantity.name] * len(getattr(quantity, "parts", (quantity,)))
    return names
