"""The search space: a menu of blocks per position and the allowed steps between neighbours, a layered DAG.

A *design* of the space is a path through its layers. Solvers speak of it as `choices`, one menu item number per block;
`encode` and `decode` translate. Whether a design fits a budget is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import networkx
import numpy as np

from formulation.architecture import Architecture, Block, check_setting, check_width, positive_integer
from formulation.records.reading import Count, check_keys, read_record, read_value

Choices = tuple[int, ...]
"""One item number per block."""


def _menu_entries(name: str, values: Any, check: Any) -> tuple[Any, ...]:
    """`values` checked one by one, sorted, without repeats; ValueError where there is none."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray | range):
        raise ValueError(f"{name} is {values!r}; expected a list such as (1, 2, 3)")
    entries = tuple(sorted({check(f"an entry of {name}", value) for value in values}))
    if not entries:
        raise ValueError(f"{name} is empty; expected at least one entry")
    return entries


def _positive_ratio(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value <= 1e6:
        raise ValueError(f"{name} is {value!r}; expected a positive number of at most a million, F / E")
    return float(value)


@dataclass(frozen=True)
class Menu:
    """What one block may be: every combination of a width, an FFN ratio and a depth.

    widths      E, multiples of 64
    ffn_ratios  r = F/E; r·E must be whole for every width
    depths      L, layers in the block

    The items are numbered width-major: item = (width index · number of ratios + ratio index) · number of depths + depth index.
    """

    widths: tuple[int, ...]
    ffn_ratios: tuple[float, ...]
    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", _menu_entries("widths", self.widths, check_width))
        object.__setattr__(self, "ffn_ratios", _menu_entries("ffn_ratios", self.ffn_ratios, _positive_ratio))
        object.__setattr__(self, "depths", _menu_entries("depths", self.depths, positive_integer))
        for width, ratio in product(self.widths, self.ffn_ratios):
            if abs(width * ratio - round(width * ratio)) > 1e-9 * width or round(width * ratio) < 1:
                raise ValueError(f"ffn ratio {ratio:g} times width {width} is {width * ratio:g}; expected a whole FFN width")

    def __len__(self) -> int:
        return len(self.widths) * len(self.ffn_ratios) * len(self.depths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of widths, ratios and depths."""
        return len(self.widths), len(self.ffn_ratios), len(self.depths)

    @cached_property
    def items(self) -> tuple[Block, ...]:
        """The blocks of this menu, in item order."""
        return tuple(Block(e, round(e * r), depth) for e, r, depth in product(self.widths, self.ffn_ratios, self.depths))

    @cached_property
    def width_of(self) -> np.ndarray:
        """Width index of each item, int array of shape (items,)."""
        return np.repeat(np.arange(len(self.widths)), len(self.ffn_ratios) * len(self.depths))

    @cached_property
    def depth_of(self) -> np.ndarray:
        """Depth of each item in layers, int array of shape (items,)."""
        return np.tile(np.array(self.depths), len(self.widths) * len(self.ffn_ratios))

    @cached_property
    def number_of(self) -> dict[Block, int]:
        """Item number of each block."""
        return {block: number for number, block in enumerate(self.items)}

    def item(self, width: int, ratio: int, depth: int) -> int:
        """Item number of a width index, ratio index and depth index."""
        return (width * len(self.ffn_ratios) + ratio) * len(self.depths) + depth


@dataclass(frozen=True)
class SearchSpace:
    """All architectures with one item of each menu, where consecutive widths may follow one another.

    menus           one per block, input first
    non_decreasing  True: E_1 ≤ … ≤ E_N, as in the paper; False: any width may follow any
    shared, embedding_width, vocabulary, positions  as in `Architecture`: the same for every design

    Raises ValueError for an empty or ill-formed menu, and where no design satisfies the steps.
    """

    menus: tuple[Menu, ...]
    non_decreasing: bool = True
    shared: bool = True
    embedding_width: int = 768
    vocabulary: int = 50257
    positions: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "menus", tuple(self.menus))
        if not self.menus or not all(isinstance(menu, Menu) for menu in self.menus):
            raise ValueError(f"menus is {self.menus!r}; expected one Menu per block, at least one")
        if not isinstance(self.non_decreasing, bool):
            raise ValueError(f"non_decreasing is {self.non_decreasing!r}; expected True or False")
        check_setting(self)
        if self.size == 0:
            raise ValueError("the space holds no design: no choice of the menus' widths is non-decreasing; widen the later menus")

    @classmethod
    def uniform(
        cls, blocks: int, widths: Sequence[int], ffn_ratios: Sequence[float], depths: Sequence[int], **options: Any
    ) -> SearchSpace:
        """A space of `blocks` blocks with one and the same menu; `options` are the remaining fields of `SearchSpace`."""
        menu = Menu(widths, ffn_ratios, depths)  # type: ignore[arg-type]  # Menu makes tuples of them
        return cls((menu,) * positive_integer("blocks", blocks), **options)

    @property
    def blocks(self) -> int:
        """Number of blocks, N."""
        return len(self.menus)

    @cached_property
    def steps(self) -> tuple[np.ndarray, ...]:
        """Allowed steps: for each pair of neighbours a boolean array (widths of block i, widths of block i + 1)."""
        return tuple(
            np.less_equal.outer(left.widths, right.widths)
            if self.non_decreasing
            else np.ones((len(left.widths), len(right.widths)), bool)
            for left, right in zip(self.menus, self.menus[1:], strict=False)
        )

    @cached_property
    def _completions(self) -> tuple[np.ndarray, ...]:
        """Number of ways to choose blocks i … N once block i has a given width; exact Python integers per width."""
        counts = [np.full(len(self.menus[-1].widths), len(self.menus[-1]) // len(self.menus[-1].widths), dtype=object)]
        for menu, step in zip(reversed(self.menus[:-1]), reversed(self.steps), strict=True):
            counts.append(step.astype(object) @ counts[-1] * (len(menu) // len(menu.widths)))
        return tuple(reversed(counts))

    @cached_property
    def size(self) -> int:
        """Exact number of designs, counted over the layers without enumerating them."""
        return int(sum(self._completions[0]))

    def __contains__(self, architecture: Architecture) -> bool:
        try:
            self.encode(architecture)
        except ValueError:
            return False
        return True

    def encode(self, architecture: Architecture) -> Choices:
        """The item numbers of a design; ValueError saying which part of it this space does not hold."""
        if len(architecture.blocks) != self.blocks:
            raise ValueError(f"the design has {len(architecture.blocks)} blocks; this space has {self.blocks}")
        for name in ("shared", "embedding_width", "vocabulary", "positions"):
            if getattr(architecture, name) != getattr(self, name):
                raise ValueError(f"the design's {name} is {getattr(architecture, name)}; this space has {getattr(self, name)}")
        for number, (menu, block) in enumerate(zip(self.menus, architecture.blocks, strict=True), start=1):
            if block not in menu.number_of:
                raise ValueError(
                    f"block {number} is {block} (width/ffn_width x depth), which its menu does not hold: "
                    f"widths {menu.widths}, ffn ratios {menu.ffn_ratios}, depths {menu.depths}"
                )
        choices = tuple(menu.number_of[block] for menu, block in zip(self.menus, architecture.blocks, strict=True))
        if not self.allows(choices):
            raise ValueError(f"the design's widths {architecture.widths} decrease; this space asks for non-decreasing widths")
        return choices

    def decode(self, choices: Sequence[int]) -> Architecture:
        """The architecture of one item number per block."""
        blocks = tuple(menu.items[int(item)] for menu, item in zip(self.menus, choices, strict=True))
        return Architecture(blocks, self.shared, self.embedding_width, self.vocabulary, self.positions)

    def allows(self, choices: Sequence[int]) -> bool:
        """Whether every step between neighbours is allowed."""
        widths = [menu.width_of[item] for menu, item in zip(self.menus, choices, strict=True)]
        return all(step[left, right] for step, left, right in zip(self.steps, widths, widths[1:], strict=False))

    def sample(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """`count` designs drawn uniformly and independently from the whole space: choices, int array (count, N)."""
        choices = np.empty((count, self.blocks), dtype=np.intp)
        previous = np.zeros(count, dtype=np.intp)
        for block, menu in enumerate(self.menus):
            ways = self._completions[block][np.newaxis, :]
            ways = ways if block == 0 else self.steps[block - 1].astype(object) * ways
            totals = ways.sum(axis=1, keepdims=True)
            totals[totals == 0] = 1
            cumulative = np.cumsum((ways / totals).astype(float), axis=1)
            width = (generator.random((count, 1)) * cumulative[previous, -1:] >= cumulative[previous]).sum(axis=1)
            per_width = len(menu) // len(menu.widths)
            choices[:, block] = width * per_width + generator.integers(per_width, size=count)
            previous = width
        return choices

    def __iter__(self) -> Iterator[Architecture]:
        """Every design, in lexicographic order of its choices."""
        return map(self.decode, self.iterate_choices())

    def iterate_choices(self) -> Iterator[Choices]:
        """The choices of every design, in lexicographic order."""

        def extend(prefix: Choices) -> Iterator[Choices]:
            block = len(prefix)
            if block == self.blocks:
                yield prefix
                return
            menu = self.menus[block]
            for item in range(len(menu)):
                width = menu.width_of[item]
                if block == 0 or self.steps[block - 1][self.menus[block - 1].width_of[prefix[-1]], width]:
                    yield from extend((*prefix, item))

        return extend(())

    def graph(self) -> networkx.DiGraph:
        """The layered DAG: node "source", a node (i, Block) per block number and menu item, node "sink"; paths are designs."""
        graph = networkx.DiGraph()
        layers: list[list[Any]] = [["source"]]
        layers += [[(number, block) for block in menu.items] for number, menu in enumerate(self.menus, start=1)]
        layers += [["sink"]]
        for depth, layer in enumerate(layers):
            graph.add_nodes_from(layer, layer=depth)
        for depth, (left, right) in enumerate(pairwise(layers)):
            inner = 0 < depth < self.blocks
            graph.add_edges_from(
                (a, b)
                for (i, a), (j, b) in product(enumerate(left), enumerate(right))
                if not inner or self.steps[depth - 1][self.menus[depth - 1].width_of[i], self.menus[depth].width_of[j]]
            )
        return graph

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `from_dict` reads."""
        return {
            "menus": [{"widths": m.widths, "ffn_ratios": m.ffn_ratios, "depths": m.depths} for m in self.menus],
            "non_decreasing": self.non_decreasing,
            "shared": self.shared,
            "embedding_width": self.embedding_width,
            "vocabulary": self.vocabulary,
            "positions": self.positions,
        }

    @classmethod
    def from_dict(cls, record: Any, where: str = "space") -> SearchSpace:
        """The space of a JSON object: `menus` (a list of widths, ffn_ratios, depths) or `blocks` with one such menu beside it.

        Args:
            record: a JSON value.
            where: what it is called in a sentence.

        Raises:
            ValueError: naming the key that is missing, unknown or wrong.
        """
        if isinstance(record, dict) and "menus" in record:
            return read_record(cls, record, where, ("menus", *_OPTIONS))
        of_menu = [one.name for one in fields(Menu)]
        known = ("blocks", *of_menu, *_OPTIONS)
        record = check_keys(record, known, where, ("blocks",), lambda key: "menus, or blocks and one menu for all of them")
        menu = read_record(Menu, {key: record[key] for key in of_menu if key in record}, where)
        blocks = read_value(Count, record["blocks"], f"{where}.blocks")
        options = {key: record[key] for key in _OPTIONS if key in record}
        return read_record(cls, options, where, _OPTIONS, {"menus": (menu,) * blocks})


_OPTIONS = ("non_decreasing", "shared", "embedding_width", "vocabulary", "positions")
"""What a space's record holds beside its menus."""


def paper_space(**options: Any) -> SearchSpace:
    """The paper's space as we reconstruct it: N = 4, E ∈ {512, 640, … 1024}, r ∈ {1, 1.5, 2}, L ∈ 1…4; 1,451,520 designs."""
    return SearchSpace.uniform(4, (512, 640, 768, 896, 1024), (1, 1.5, 2), (1, 2, 3, 4), **options)


def fine_space(**options: Any) -> SearchSpace:
    """N = 4 with finer menus: E in steps of 64 from 256 to 1024, r ∈ {1, 1.5, 2, 3, 4}, L ∈ 1…6."""
    return SearchSpace.uniform(4, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7), **options)


def deep_space(**options: Any) -> SearchSpace:
    """The menus of `fine_space` with N = 8 blocks."""
    return SearchSpace.uniform(8, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7), **options)
