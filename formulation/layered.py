"""A layered DAG of items: a menu per block and the allowed steps between neighbours, without a word on what an item is.

A *design* is a path through the layers. Solvers speak of it as `choices`, one menu item number per block; `encode` and `decode`
translate. What of a block matters to its neighbours is its *state*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from formulation.menu import Choices

if TYPE_CHECKING:
    import networkx

    from formulation.quantity import Quantity, Separable


class _Kinds(NamedTuple):
    """The items of one block that count alike.

    Attributes:
        states: state of each kind.
        items: its item numbers.
        before: whether no layer has come before the block and so one is owed, and whether one still is after it.
        after: whether no layer has come before the block and so one is owed, and whether one still is after it.
    """

    states: np.ndarray
    items: tuple[np.ndarray, ...]
    before: np.ndarray
    after: np.ndarray


def _runs(which: np.ndarray) -> tuple[slice, ...]:
    """The places where a bool array is true, as slices."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], which, [False])).astype(np.int8)))
    return tuple(slice(start, stop) for start, stop in edges.reshape(-1, 2).tolist())


def _arranged(states: np.ndarray, layers: np.ndarray, depths: Sequence[int]) -> np.ndarray:
    """Items by state and depth, see `SearchSpace.arranged`."""
    cells: dict[tuple[int, int], list[int]] = {}
    for item, cell in enumerate(zip(states.tolist(), layers.tolist(), strict=True)):
        cells.setdefault(cell, []).append(item)
    arranged = np.full((int(states.max()) + 1, max(map(len, cells.values())), len(depths)), -1, dtype=np.intp)
    for (state, depth), items in cells.items():
        arranged[state, : len(items), depths.index(depth)] = items
    return arranged


class LayeredSpace(ABC):
    """What search spaces of every kind have in common: designs are the paths through a layered DAG of menu items.

    A kind of space gives its `menus`, with `layers` and `all_depths` of each, and says what an item is: `blocks_of`, `encode` and
    `decode`. Which item may follow which it says by `state_of` and `steps`. At least one block of a design has a layer. It also
    says how its designs are counted and shown: `agreement`, `design_table` and `words`.

    Attributes:
        menus: one per block.
        exchangeable: whether equally wide neighbours in another order are the same design, where no quantity depends on the order.
        design_head: what heads a column of designs in `words`.
        decision: what a decision is called.
    """

    menus: tuple[Any, ...]
    exchangeable = True
    design_head = "design"
    decision = "decision"

    @property
    @abstractmethod
    def state_of(self) -> tuple[np.ndarray, ...]:
        """Per block the state of each of its items, int array of shape (items,)."""

    @property
    @abstractmethod
    def state_widths(self) -> tuple[tuple[int, ...], ...]:
        """Per block the residual width of each state."""

    @property
    @abstractmethod
    def steps(self) -> tuple[np.ndarray, ...]:
        """Allowed steps: for each pair of neighbours a bool array (states of block i, states of block i + 1)."""

    @property
    @abstractmethod
    def embedding_width(self) -> int:
        """The width of what stands before the first block and behind the last."""

    @abstractmethod
    def blocks_of(self, menu: Any) -> tuple[Any, ...]:
        """The items of a menu as designs hold them."""

    @abstractmethod
    def encode(self, architecture: Any) -> Choices:
        """The item numbers of a design; ValueError saying which part of it this space does not hold."""

    @abstractmethod
    def decode(self, choices: Sequence[int]) -> Any:
        """The design of one item number per block."""

    @property
    @abstractmethod
    def decisions(self) -> int:
        """Number of decisions in a design."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """What a design is made of, in words."""

    @abstractmethod
    def agreement(self, design: Any) -> Separable:
        """The number of decisions that designs share with a given one, which shares all of its own with itself."""

    @abstractmethod
    def design_table(self, design: Any, quantities: Sequence[Quantity]) -> tuple[list[str], list[list[str]], set[int]]:
        """A design as a table for people: its head, its rows, and the columns that are aligned left.

        Args:
            design: of this space.
            quantities: those of the problem, which may have a column.
        """

    @abstractmethod
    def words(self, design: Any, beside: Any = None) -> str:
        """A design in a line of a table; `beside` is a design that stands above it, which it may be compared with."""

    def part_of(self, architecture: Any) -> Self:
        """The space itself, as of its only part."""
        return self

    @property
    def parts(self) -> tuple[Self, ...]:
        """The space itself, as the only part of it: what a `SpaceUnion` has several of."""
        return (self,)

    @property
    def blocks(self) -> int:
        """Number of blocks, N."""
        return len(self.menus)

    @cached_property
    def may_be_empty(self) -> bool:
        """Whether every menu has blocks of depth 0, so that it must be asked for that a design has a layer."""
        return all(0 in menu.all_depths for menu in self.menus)

    @cached_property
    def lefts(self) -> tuple[tuple[tuple[slice, ...], ...], ...]:
        """For each pair of neighbours and each state of the right one: the states that may come before it, in runs of neighbours.

        Where widths must not decrease it is one run.
        """
        return tuple(tuple(map(_runs, step.T)) for step in self.steps)

    @cached_property
    def arranged(self) -> tuple[np.ndarray, ...]:
        """Per block its items by state and depth: item numbers (states, items of a state and depth, depths), −1 where none is."""
        return tuple(
            _arranged(states, menu.layers, menu.all_depths) for states, menu in zip(self.state_of, self.menus, strict=True)
        )

    @cached_property
    def of_state(self) -> tuple[np.ndarray, ...]:
        """Per block the items of each state: item numbers (states, items of a state), −1 where none is."""
        return tuple(own.reshape(len(own), -1) for own in self.arranged)

    # Counting and drawing

    @cached_property
    def _kinds(self) -> tuple[_Kinds, ...]:
        """Per block the items by what they mean to a count: their state, and whether a layer is owed before and after them."""
        result = []
        for i, (menu, states) in enumerate(zip(self.menus, self.state_of, strict=True)):
            kinds = []
            for state in range(len(self.state_widths[i])):
                items = np.flatnonzero(states == state)
                layered = menu.layers[items] > 0
                kinds.append((state, items, False, False))
                if self.may_be_empty:
                    kinds += [(state, items[layered], True, False), (state, items[~layered], True, True)]
            if i == 0:
                kinds = [kind for kind in kinds if kind[2] == self.may_be_empty]
            if i == self.blocks - 1:
                kinds = [kind for kind in kinds if not kind[3]]
            kinds = [kind for kind in kinds if len(kind[1])]
            states, before, after = (np.array([kind[k] for kind in kinds], dtype=np.intp) for k in (0, 2, 3))
            result.append(_Kinds(states, tuple(kind[1] for kind in kinds), before, after))
        return tuple(result)

    @cached_property
    def _kind_steps(self) -> tuple[np.ndarray, ...]:
        """For each pair of neighbours a bool array (kinds of block i, kinds of block i + 1): which may follow which."""
        return tuple(
            step[np.ix_(left.states, right.states)] & np.equal.outer(left.after, right.before)
            for step, (left, right) in zip(self.steps, pairwise(self._kinds), strict=True)
        )

    @cached_property
    def _completions(self) -> tuple[np.ndarray, ...]:
        """Number of ways to choose blocks i … N once block i is of a given kind; exact Python integers per kind."""
        sizes = [np.array([len(items) for items in kinds.items], dtype=object) for kinds in self._kinds]
        counts = [sizes[-1]]
        for size, step in zip(reversed(sizes[:-1]), reversed(self._kind_steps), strict=True):
            counts.append(step.astype(object) @ counts[-1] * size)
        return tuple(reversed(counts))

    @cached_property
    def size(self) -> int:
        """Exact number of designs, counted over the layers without enumerating them."""
        return int(sum(self._completions[0]))

    def __contains__(self, architecture: Any) -> bool:
        try:
            self.encode(architecture)
        except ValueError:
            return False
        return True

    def _allows_step(self, block: int, left: int, right: int) -> bool:
        return bool(self.steps[block][self.state_of[block][left], self.state_of[block + 1][right]])

    def allows(self, choices: Sequence[int]) -> bool:
        """Whether item numbers, one per block, are a design: every step between neighbours is allowed, and there is a layer."""
        return all(self._allows_step(i, *pair) for i, pair in enumerate(pairwise(choices))) and self.has_layer(choices)

    def has_layer(self, choices: Sequence[int]) -> bool:
        """Whether some block of the first ones, one item number each, has a layer or needs none, since a later block always has."""
        return not self.may_be_empty or any(menu.layers[item] for menu, item in zip(self.menus, choices, strict=False))

    def have_layers(self, choices: np.ndarray) -> np.ndarray:
        """Bool array (n,): which of many designs, choices (n, N), have a layer."""
        if not self.may_be_empty:
            return np.ones(len(choices), dtype=bool)
        return np.any([menu.layers[items] > 0 for menu, items in zip(self.menus, np.asarray(choices).T, strict=True)], axis=0)

    def sample(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """`count` designs drawn uniformly and independently from the whole space: choices, int array (count, N)."""
        choices = np.empty((count, self.blocks), dtype=np.intp)
        previous = np.zeros(count, dtype=np.intp)
        for block, kinds in enumerate(self._kinds):
            ways = self._completions[block][np.newaxis, :]
            ways = ways if block == 0 else self._kind_steps[block - 1].astype(object) * ways
            totals = ways.sum(axis=1, keepdims=True)
            totals[totals == 0] = 1
            cumulative = np.cumsum((ways / totals).astype(float), axis=1)
            kind = (generator.random((count, 1)) * cumulative[previous, -1:] >= cumulative[previous]).sum(axis=1)
            sizes = np.array([len(items) for items in kinds.items])
            starts = np.cumsum(sizes) - sizes
            choices[:, block] = np.concatenate(kinds.items)[starts[kind] + generator.integers(sizes[kind])]
            previous = kind
        return choices

    def __iter__(self) -> Iterator[Any]:
        """Every design, in lexicographic order of its choices."""
        return map(self.decode, self.iterate_choices())

    def iterate_choices(self) -> Iterator[Choices]:
        """The choices of every design, in lexicographic order."""

        def extend(prefix: Choices) -> Iterator[Choices]:
            block = len(prefix)
            if block == self.blocks:
                if self.has_layer(prefix):
                    yield prefix
                return
            for item in range(len(self.menus[block])):
                if block == 0 or self._allows_step(block - 1, prefix[-1], item):
                    yield from extend((*prefix, item))

        return extend(())

    def graph(self) -> networkx.DiGraph:
        """The layered DAG: node "source", a node (i, Block) per block number and menu item, node "sink"; paths are designs.

        Where designs may begin with blocks without layers, a node (i, Block, "no layer yet") stands for such a block as long as no
        layer has come before it, so that no path is without any.
        """
        import networkx

        graph = networkx.DiGraph()
        layers: list[list[Any]] = []
        for number, (menu, kinds) in enumerate(zip(self.menus, self._kinds, strict=True), start=1):
            found = [
                (item, kind, (number, self.blocks_of(menu)[item]) + (("no layer yet",) if kinds.after[kind] else ()))
                for kind, items in enumerate(kinds.items)
                for item in items.tolist()
            ]
            layers.append(sorted(found, key=lambda one: one[:2]))
        graph.add_node("source", layer=0)
        for number, layer in enumerate(layers, start=1):
            graph.add_nodes_from((node for _, _, node in layer), layer=number)
        graph.add_node("sink", layer=self.blocks + 1)
        graph.add_edges_from(("source", node) for _, _, node in layers[0])
        for step, (left, right) in zip(self._kind_steps, pairwise(layers), strict=True):
            graph.add_edges_from((a, b) for (_, i, a), (_, j, b) in product(left, right) if step[i, j])
        graph.add_edges_from((node, "sink") for _, _, node in layers[-1])
        return graph

    @cached_property
    def deepest_with(self) -> tuple[np.ndarray, ...]:
        """Per block the most layers that a design with each of its items has, float array (items,); −∞ where no design has it."""
        deepest = [
            np.where(items < 0, -np.inf, menu.layers[items]).max(axis=1)
            for items, menu in zip(self.of_state, self.menus, strict=True)
        ]
        before, after = [np.zeros(len(deepest[0]))], [np.zeros(len(deepest[-1]))]
        for own, step in zip(deepest, self.steps, strict=False):
            before.append(np.where(step, (before[-1] + own)[:, None], -np.inf).max(axis=0))
        for own, step in zip(reversed(deepest), reversed(self.steps), strict=False):
            after.append(np.where(step, (after[-1] + own)[None], -np.inf).max(axis=1))
        around = (left + right for left, right in zip(before, reversed(after), strict=True))
        return tuple(total[states] + menu.layers for total, states, menu in zip(around, self.state_of, self.menus, strict=True))

    def shortest(self, lengths: Sequence[np.ndarray]) -> tuple[np.ndarray, Callable[[int], Choices]]:
        """For each total number of layers the least length of a design: a shortest path over (block, state, layers so far).

        Args:
            lengths: per block the length of each of its items, shape (items,); ∞ leaves an item out.

        Returns:
            The least sums of lengths, (most layers + 1,) by number of layers, ∞ where no design has so many, and at 0 always;
            and a function from a number of layers to the choices of a design that has that length.
        """
        reach, total = np.zeros((1, 1)), 0
        back: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for block, (arranged, menu) in enumerate(zip(self.arranged, self.menus, strict=True)):
            values = np.where(arranged < 0, np.inf, lengths[block][arranged])
            which = values.argmin(axis=1)
            least = np.take_along_axis(values, which[:, None], axis=1)[:, 0]
            items = np.take_along_axis(arranged, which[:, None], axis=1)[:, 0]
            step = np.ones((1, len(arranged)), dtype=bool) if block == 0 else self.steps[block - 1]
            before = np.where(step[:, :, None], reach[:, None], np.inf)
            previous, entered = before.argmin(axis=0), before.min(axis=0)
            total += menu.all_depths[-1]
            grown = np.full((len(menu.all_depths), len(arranged), total + 1), np.inf)
            for number, depth in enumerate(menu.all_depths):
                grown[number, :, depth : depth + entered.shape[1]] = entered + least[:, number, None]
            back.append((items, previous, grown.argmin(axis=0)))
            reach = grown.min(axis=0)
        reach[:, 0] = np.inf

        def path(layers: int) -> Choices:
            state, choices = int(reach[:, layers].argmin()), list[int]()
            for block, (items, previous, depth) in reversed(list(enumerate(back))):
                number = int(depth[state, layers])
                choices.append(int(items[state, number]))
                layers -= self.menus[block].all_depths[number]
                state = int(previous[state, layers])
            return tuple(reversed(choices))

        return reach.min(axis=0), path
