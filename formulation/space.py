"""The search space: a menu of blocks per position and the allowed steps between neighbours, a layered DAG.

A *design* of the space is a path through its layers. Solvers speak of it as `choices`, one menu item number per block;
`encode` and `decode` translate. What of a block matters to its neighbours is its *state*. Whether a design fits a budget is not
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from formulation.architecture import (
    JOINTS,
    SETTING,
    Architecture,
    Block,
    check_setting,
    check_widths,
    choice_values,
    positive_integer,
    said_of,
    settled,
)
from formulation.block_table import blocks_table
from formulation.command.words import counted
from formulation.derived import Agreement
from formulation.layered import LayeredSpace
from formulation.menu import Choices, Menu
from formulation.quantity import Quantity
from formulation.records.provenance import SAYS_NOTHING
from formulation.records.reading import PositiveInt, check_keys, read_record, read_value


@dataclass(frozen=True)
class SearchSpace(LayeredSpace):
    """All architectures with one item of each menu, where each block may follow the one before it.

    At least one block of a design has a layer, also if every menu has blocks of depth 0.

    Attributes:
        menus: one per block, input first.
        non_decreasing: True: E_1 ≤ … ≤ E_N, as in the paper; False: any width may follow any.
        shared: as in `Architecture`, the same for every design.
        embedding_width: of every design; 768 for `merino`, else the width of the first block, unless stated.
        vocabulary: of every design.
        positions: of every design.
        step: your own rule: step(left, right) is True if the block `right` may follow the block `left`. None: no further rule.
        family: as in `Architecture`, the same for every design.
        tied: as in `Architecture`, the same for every design.
        joints: as in `Architecture`, the same for every design.
        alike: True: all layers of a design are alike, so that its blocks differ in depth alone; blocks without layers come last.

    Raises:
        ValueError: for an empty or ill-formed menu, for one with two items that are the same block in this setting, for widths that
            the family cannot have, a rule that answers anything but True or False, and where no design satisfies the steps.
    """

    menus: tuple[Menu, ...]
    non_decreasing: bool = True
    shared: bool = True
    embedding_width: int = None  # type: ignore[assignment]  # replaced by a number below
    vocabulary: int = 50257
    positions: int = 2048
    step: Callable[[Block, Block], bool] | None = None
    family: str = field(default="merino", metadata={SAYS_NOTHING: "merino"})
    tied: bool = field(default=None, metadata={SAYS_NOTHING: True})  # type: ignore[assignment]  # as embedding_width
    joints: str = field(default=JOINTS[0], metadata={SAYS_NOTHING: JOINTS[0]})
    alike: bool = field(default=False, metadata={SAYS_NOTHING: False})

    design_head = "design: width/ffn x depth"

    def __post_init__(self) -> None:
        object.__setattr__(self, "menus", tuple(self.menus))
        if not self.menus or not all(isinstance(menu, Menu) for menu in self.menus):
            raise ValueError(f"menus is {self.menus!r}; expected one Menu per block, at least one")
        for name in ("non_decreasing", "alike"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected True or False")
        if self.step is not None and not callable(self.step):
            raise ValueError(
                f"step is {self.step!r}; expected a function of two blocks, left and right, that returns True or False"
            )
        check_setting(self, next(iter(first)) if len(first := {block.width for block in self.menus[0].items}) == 1 else None)
        check_widths(self, {block.width for menu in dict.fromkeys(self.menus) for block in menu.items})
        self._refuse_repeated()
        if self.size == 0:
            needs = "is non-decreasing; widen the later menus" if self.non_decreasing else "may follow one another"
            if self.alike:
                needs = "makes all layers alike; add items that the menus share"
            if self.step is not None:
                needs = "satisfies the rule for steps; loosen the rule or add items to the menus"
            if all(menu.all_depths == (0,) for menu in self.menus):
                needs = "has a layer; add a depth of 1 or more to a menu"
            raise ValueError(f"the space holds no design: no choice of the menus' items {needs}")

    def _refuse_repeated(self) -> None:
        """ValueError for two items of a menu that are one block in the setting, so that designs would count several times."""
        for menu, numbers in self._number_of.items():
            if len(numbers) < len(menu):
                blocks = self.blocks_of(menu)
                same = next(block for item, block in enumerate(blocks) if numbers[choice_values(block)] != item)
                raise ValueError(
                    f"two items of a menu are the block {same} of the family {self.family}: a gate or sharing that is not stated "
                    "is that of the family or the space; leave one out, or state it in the menu and in those that belong to it"
                )

    @classmethod
    def uniform(
        cls,
        blocks: int,
        widths: Sequence[int],
        ffn_ratios: Sequence[float] | None = None,
        depths: Sequence[int] = (1,),
        **options: Any,
    ) -> SearchSpace:
        """A space of `blocks` blocks with one and the same menu; `options` are the remaining fields of `Menu` and `SearchSpace`."""
        of_menu = {one.name: options.pop(one.name) for one in fields(Menu) if one.name in options and one.name not in SETTING}
        shared = options.get("shared", True)
        if not isinstance(shared, bool | np.bool_):  # both have it: the menu a list of entries, the space one of them
            of_menu["shared"] = options.pop("shared")
        menu = Menu(widths, ffn_ratios, depths, **of_menu)  # type: ignore[arg-type]  # Menu makes tuples of them
        return cls((menu,) * positive_integer("blocks", blocks), **options)

    @property
    def decisions(self) -> int:
        """Number of decisions in a design: one per block and axis of its menu."""
        return sum(len(menu.axes) for menu in self.menus)

    # States: what of a block matters to its neighbours

    @cached_property
    def _follows(self) -> tuple[np.ndarray, ...] | None:
        """For each pair of neighbours a bool array (items, items): which item may follow which. None if widths alone decide."""
        if self.step is None and not self.alike:
            return None
        known: dict[tuple[Menu, Menu], np.ndarray] = {}
        for left, right in pairwise(self.menus):
            if (left, right) not in known:
                known[left, right] = np.array(
                    [[self._may_follow(a, b) for b in self.blocks_of(right)] for a in self.blocks_of(left)]
                )
        return tuple(known[pair] for pair in pairwise(self.menus))

    def _may_follow(self, left: Block, right: Block) -> bool:
        if self.non_decreasing and left.width > right.width:
            return False
        if self.alike and not _may_be_alike(left, right):
            return False
        if self.step is None:
            return True
        try:
            allowed = self.step(left, right)
        except Exception as error:
            raise ValueError(f"the rule for steps raised {type(error).__name__} ({error}) for {left} before {right}") from error
        if not isinstance(allowed, bool | np.bool_):
            raise ValueError(f"the rule for steps returned {allowed!r} for {left} before {right}; expected True or False")
        return bool(allowed)

    @cached_property
    def state_of(self) -> tuple[np.ndarray, ...]:
        """Per block the state of each of its items, int array of shape (items,).

        Items of one state have one residual width, may follow the same items and may be followed by the same ones. Without a rule
        for steps the states are the widths.
        """
        follows = self._follows
        if follows is None:
            return tuple(menu.places["width"] for menu in self.menus)
        states = []
        for i, menu in enumerate(self.menus):
            rows = follows[i] if i < len(follows) else np.empty((len(menu), 0), dtype=bool)
            columns = follows[i - 1].T if i else np.empty((len(menu), 0), dtype=bool)
            keys = [
                (block.width, row.tobytes(), column.tobytes())
                for block, row, column in zip(self.blocks_of(menu), rows, columns, strict=True)
            ]
            number = {key: state for state, key in enumerate(dict.fromkeys(keys))}
            states.append(np.array([number[key] for key in keys], dtype=np.intp))
        return tuple(states)

    @cached_property
    def _first(self) -> tuple[np.ndarray, ...]:
        """Per block the first item of each state."""
        return tuple(np.unique(states, return_index=True)[1] for states in self.state_of)

    @cached_property
    def state_widths(self) -> tuple[tuple[int, ...], ...]:
        """Per block the residual width of each state."""
        return tuple(tuple(menu.items[item].width for item in first) for menu, first in zip(self.menus, self._first, strict=True))

    @cached_property
    def steps(self) -> tuple[np.ndarray, ...]:
        """Allowed steps: for each pair of neighbours a bool array (states of block i, states of block i + 1)."""
        if (follows := self._follows) is not None:
            return tuple(own[np.ix_(*first)] for own, first in zip(follows, pairwise(self._first), strict=True))
        return tuple(
            np.less_equal.outer(left, right) if self.non_decreasing else np.ones((len(left), len(right)), bool)
            for left, right in pairwise(self.state_widths)
        )

    def encode(self, architecture: Architecture) -> Choices:
        """The item numbers of a design; ValueError saying which part of it this space does not hold."""
        if not isinstance(architecture, Architecture):
            raise ValueError(f"the design is {architecture!r}; expected an Architecture")
        if len(architecture.blocks) != self.blocks:
            raise ValueError(f"the design has {len(architecture.blocks)} blocks; this space has {self.blocks}")
        for name in SETTING:
            if getattr(architecture, name) != getattr(self, name):
                raise ValueError(f"the design's {name} is {getattr(architecture, name)}; this space has {getattr(self, name)}")
        choices = []
        for number, (menu, block) in enumerate(zip(self.menus, architecture.blocks, strict=True), start=1):
            item = self._number_of[menu].get(choice_values(settled(block, self)))
            if item is None:
                raise ValueError(f"block {number} is {block} (width/ffn_width x depth), which its menu does not hold: {menu}")
            choices.append(item)
        if self.non_decreasing and any(left > right for left, right in pairwise(architecture.widths)):
            raise ValueError(f"the design's widths {architecture.widths} decrease; this space asks for non-decreasing widths")
        for number, (left, right) in enumerate(pairwise(choices), start=1):
            if not self._allows_step(number - 1, left, right):
                a, b = architecture.blocks[number - 1 : number + 1]
                raise ValueError(f"block {number + 1} is {b} after {a}, a step that this space's rule does not allow")
        return tuple(choices)

    def decode(self, choices: Sequence[int]) -> Architecture:
        """The architecture of one item number per block; ValueError if they have no layer."""
        blocks = tuple(self.blocks_of(menu)[int(item)] for menu, item in zip(self.menus, choices, strict=True))
        return Architecture(blocks, **{name: getattr(self, name) for name in SETTING})

    def blocks_of(self, menu: Menu) -> tuple[Block, ...]:
        """The items of a menu of this space as its designs hold them: with the gate that the family has, see `settled`."""
        return self._blocks_of[menu]

    @cached_property
    def _blocks_of(self) -> dict[Menu, tuple[Block, ...]]:
        return {menu: tuple(settled(block, self) for block in menu.items) for menu in dict.fromkeys(self.menus)}

    @cached_property
    def _number_of(self) -> dict[Menu, dict[tuple[Any, ...], int]]:
        """For each menu the item number of each of its blocks, by what an architecture says of the block."""
        return {
            menu: {choice_values(block): number for number, block in enumerate(blocks)} for menu, blocks in self._blocks_of.items()
        }

    def shared_items(self, other: SearchSpace, block: int) -> Iterator[tuple[int, int]]:
        """The items of one block that another space of the same setting has there too: their numbers here and there."""
        here, there = self._number_of[self.menus[block]], other._number_of[other.menus[block]]
        return ((number, there[key]) for key, number in here.items() if key in there)

    # How its designs are counted and shown

    @property
    def layout(self) -> str:
        """4 blocks of non-decreasing width."""
        order = "of non-decreasing width" if self.non_decreasing else "of any order"
        return f"{counted(self.blocks, 'block')} {order}" + (", with a rule for steps" if self.step else "")

    def agreement(self, design: Architecture) -> Agreement:
        """See `LayeredSpace.agreement`: what surrounds the blocks counts too."""
        return Agreement(design, setting=True)

    def design_table(self, design: Architecture, quantities: Sequence[Quantity]) -> tuple[list[str], list[list[str]], set[int]]:
        """See `LayeredSpace.design_table`: a row a block, or for equal neighbours of a long design."""
        return *blocks_table(design), set()

    def words(self, design: Architecture, beside: Architecture | None = None) -> str:
        """See `LayeredSpace.words`."""
        return str(design)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `from_dict` reads; ValueError for a space with a rule for steps, which is code."""
        if self.step is not None:
            raise ValueError(
                f"the space has the rule {self.step!r} for steps, which no JSON file can hold; build the space in Python"
            )
        return {
            "menus": [menu.to_dict() for menu in self.menus],
            "non_decreasing": self.non_decreasing,
            **said_of(self),
            **({"alike": True} if self.alike else {}),
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
        known = tuple(dict.fromkeys(("blocks", *of_menu, *_OPTIONS)))
        record = check_keys(record, known, where, ("blocks",), lambda key: "menus, or blocks and one menu for all of them")
        both = "shared" if isinstance(record.get("shared"), list) else ""  # a list is the menu's, true or false the space's
        menu = read_record(Menu, {key: record[key] for key in of_menu if key in record and (key != "shared" or both)}, where)
        blocks = read_value(PositiveInt, record["blocks"], f"{where}.blocks")
        options = {key: record[key] for key in _OPTIONS if key in record and key != both}
        return read_record(cls, options, where, _OPTIONS, {"menus": (menu,) * blocks})


_OPTIONS = ("non_decreasing", *SETTING, "alike")
"""What a space's record holds beside its menus."""


def _may_be_alike(left: Block, right: Block) -> bool:
    """Whether a block may follow another where all layers are alike: they differ in depth alone, and left-out ones come last."""
    if not (left.depth and right.depth):
        return left.width == right.width and not right.depth
    return replace(left, depth=1) == replace(right, depth=1)


def paper_space(**options: Any) -> SearchSpace:
    """The paper's space as we reconstruct it: N = 4, E ∈ {512, 640, … 1024}, r ∈ {1, 1.5, 2}, L ∈ 1…4; 1,451,520 designs."""
    return SearchSpace.uniform(4, (512, 640, 768, 896, 1024), (1, 1.5, 2), (1, 2, 3, 4), **options)


def fine_space(**options: Any) -> SearchSpace:
    """N = 4 with finer menus: E in steps of 64 from 256 to 1024, r ∈ {1, 1.5, 2, 3, 4}, L ∈ 1…6."""
    return SearchSpace.uniform(4, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7), **options)


def deep_space(**options: Any) -> SearchSpace:
    """The menus of `fine_space` with N = 8 blocks."""
    return SearchSpace.uniform(8, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7), **options)
