"""Designs as vectors of menu places, and their repair: what the genetic algorithms of one and of many objectives share."""

from __future__ import annotations

from itertools import product

import numpy as np

from formulation import DesignProblem
from formulation.menu import Choices, Menu
from solvers.base import Run
from solvers.evaluation import Scorer
from solvers.incumbent import quick_incumbent


class DesignVectors:
    """Designs as vectors of menu places, and their repair: what the genetic algorithms of one and of many objectives share.

    A vector holds for each block, and each axis of its menu, the place of what was chosen among the axis' entries.

    Attributes:
        counts: entries of each axis, int array (entries of a vector,).
        ordered: which axes are amounts, whole numbers such as widths, whose neighbours in the menu are alike; bool, of the same
            shape.
        feasible: the last design that met every budget: `limits.start`, then what repair made; None before there is one.

    Where the first repair fails, `quick_incumbent` finds the first such design, of separable and composite quantities.
    """

    def __init__(self, problem: DesignProblem, scorer: Scorer, run: Run) -> None:
        self.space, self._scorer = problem.space, scorer
        self._problem, self._run, self._sought = problem, run, False
        self._generator = np.random.default_rng(run.limits.seed)
        axes = [entries for menu in self.space.menus for entries in menu.axes.values()]
        self.counts = np.array([len(entries) for entries in axes])
        self.ordered = np.array([all(type(entry) is int for entry in entries) for entries in axes])
        known = {menu: _Places(menu) for menu in dict.fromkeys(self.space.menus)}
        self._places = [known[menu] for menu in self.space.menus]
        self._steps = [step.tolist() for step in self.space.steps]
        self._states = [states.tolist() for states in self.space.state_of]
        self._nearest: dict[tuple[int, int, int], int | None] = {}
        start = run.limits.start
        self.feasible: Choices | None = None if start is None else problem.space.encode(start)

    def read(self, vector: np.ndarray) -> Choices:
        """The design of a vector."""
        places, choices = iter(vector.tolist()), []
        for own in self._places:
            choices.append(own.item_at[tuple(next(places) for _ in own.axes)])
        return tuple(choices)

    def _write(self, choices: Choices) -> list[int]:
        return [place for own, item in zip(self._places, choices, strict=True) for place in own.of_item[item]]

    def allows(self, choices: Choices) -> bool:
        """Whether the design is in the space and meets every budget; False for the rare one that repair could not mend."""
        return self.space.allows(choices) and self._scorer.feasible(choices)

    def repair(self, vector: np.ndarray) -> list[int]:
        """A feasible design near `vector`.

        Each block moves to the nearest one that may follow its neighbour, and a block gets a layer where none has one; then random
        choices of random blocks go one menu entry down until the budgets are kept. Where nothing is left to lower, a feasible
        design seen before takes its place.
        """
        self._run.poll()
        choices = self._in_space(self.read(vector))
        if choices is None:
            known = self._known()
            return vector.tolist() if known is None else self._write(known)
        while not self._scorer.feasible(choices):
            lower = [
                other
                for block, item in enumerate(choices)
                for below in self._places[block].below[item]
                if (other := self._changed(choices, block, below)) is not None
            ]
            if not lower:
                return self._write(self._known() or choices)
            choices = lower[int(self._generator.integers(len(lower)))]
        self.feasible = choices
        return self._write(choices)

    def _in_space(self, choices: Choices) -> Choices | None:
        """A design near some items, block by block; None if a block has no successor, or none gets a layer."""
        mended = list(choices)
        for block in range(1, len(mended)):
            nearest = self._near(block, self._states[block - 1][mended[block - 1]], mended[block])
            if nearest is None:
                return None
            mended[block] = nearest
        found = tuple(mended)
        if self.space.has_layer(found):
            return found
        deeper = (
            self._changed(found, block, item)
            for block, menu in enumerate(self.space.menus)
            for item in menu.variants["depth"][found[block]]
        )
        return next((other for other in deeper if other is not None), None)

    def _near(self, block: int, left: int, item: int) -> int | None:
        """The nearest item that may follow a state of the block before, None if none may.

        That is one of the nearest width, of these one whose other choices are nearest, of these the first.
        """
        key = block, left, item
        if key not in self._nearest:
            allowed = np.flatnonzero(self.space.steps[block - 1][left][self.space.state_of[block]])
            self._nearest[key] = self._places[block].nearest(item, allowed)
        return self._nearest[key]

    def _known(self) -> Choices | None:
        """A design that meets the budgets, None if none is found."""
        if self.feasible is None and not self._sought:
            self._sought = True
            design = quick_incumbent(self._problem, self._run)
            self.feasible = None if design is None else self.space.encode(design)
        return self.feasible

    def _changed(self, choices: Choices, block: int, item: int) -> Choices | None:
        """A design with another item in one block; None if a neighbour does not allow it, or no block has a layer then."""
        state = self._states[block][item]
        if block and not self._steps[block - 1][self._states[block - 1][choices[block - 1]]][state]:
            return None
        if block < len(choices) - 1 and not self._steps[block][state][self._states[block + 1][choices[block + 1]]]:
            return None
        other = (*choices[:block], item, *choices[block + 1 :])
        return other if self.space.has_layer(other) else None


class _Places:
    """A menu as places on its axes.

    Attributes:
        axes: names of the axes.
        item_at: the item at a place on each axis.
        of_item: the places of each item, 0 where one means nothing.
        below: by item those that are one entry lower in one choice.
    """

    def __init__(self, menu: Menu) -> None:
        self.axes = tuple(menu.axes)
        counts = (range(len(entries)) for entries in menu.axes.values())
        self.item_at = {places: menu.at(dict(zip(self.axes, places, strict=True))) for places in product(*counts)}
        self._all = np.column_stack([menu.places[name] for name in self.axes])
        self.of_item = np.maximum(self._all, 0).tolist()
        self.below = [
            [lower for axis in range(len(self.axes)) if (lower := self._lower(menu, item, axis)) is not None]
            for item in range(len(menu))
        ]

    def _lower(self, menu: Menu, item: int, axis: int) -> int | None:
        """The item that is nearest below another one on one axis and the same on all others; None if there isn't one."""
        own = self._all[:, axis]
        lower = [other for other in menu.variants[self.axes[axis]][item] if own[other] < own[item]]
        return max(lower, key=lambda other: own[other], default=None)

    def nearest(self, item: int, among: np.ndarray) -> int | None:
        """Of some items the nearest to one, by its first axis, the width, before all others."""
        if not len(among):
            return None
        apart = np.where((self._all[among] < 0) | (self._all[item] < 0), 0, np.abs(self._all[among] - self._all[item]))
        return int(among[np.lexsort((apart[:, 1:].sum(axis=1), apart[:, 0]))[0]])
