"""Problems without any architecture of ours: one option a position, from a table of scores and costs that add up.

Such tables are what replacing one block at a time by cheaper variants leaves behind (block-wise scoring as in Puzzle, Bercovich et
al. 2024), or cutting nested slices out of one trained model (MatFormer, Devvrit et al. 2024). The problem

    maximize Σ_i score_i(option_i)  subject to  Σ_i cost_ki(option_i) ≤ b_k for every k

is the multiple-choice knapsack problem with several budgets. An `OptionSpace` is its space, a `Selection` a design of it and a
`Column` a quantity, so that all solvers and all questions take it like any other problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from formulation.architecture import Setting
from formulation.layered import LayeredSpace
from formulation.menu import Choices
from formulation.quantity import Separable


@dataclass(frozen=True, slots=True)
class Option:
    """What one position may take.

    Attributes:
        name: distinguishes it from the others of its position.
    """

    name: str

    depth = 1
    width = 0

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class OptionMenu:
    """The options of one position.

    Attributes:
        position: what the position is called, such as layer 7.
        names: of the options, each once.

    Raises:
        ValueError: for no option, or two of one name.
    """

    position: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names:
            raise ValueError(f"position {self.position} has no options; expected one at least")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"position {self.position} has the option {twice} twice; expected each option of a position once")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def items(self) -> tuple[Option, ...]:
        """The options, in item order."""
        return tuple(map(Option, self.names))

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Item number of each name."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def layers(self) -> np.ndarray:
        """Depth of each item, as a space of layers would count: 1, int array of shape (items,)."""
        return np.ones(len(self.names), dtype=np.intp)

    all_depths = (1,)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The one decision of a position by its name, with its entries."""
        return {"option": self.names}

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """The place of each item on the axis."""
        return {"option": np.arange(len(self.names))}

    @cached_property
    def variants(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """For each item the others."""
        numbers = range(len(self.names))
        return {"option": tuple(tuple(other for other in numbers if other != number) for number in numbers)}

    def at(self, places: dict[str, int]) -> int:
        """The item at a place."""
        return places["option"]


@dataclass(frozen=True)
class Selection:
    """A design of an `OptionSpace`: one option a position.

    Attributes:
        blocks: the options, first position first.
    """

    blocks: tuple[Option, ...]

    joints = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """0 throughout: options have no width, and nothing joins them."""
        return (0,) * len(self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the options."""
        return tuple(option.name for option in self.blocks)

    def __str__(self) -> str:
        return " ".join(self.names)


@dataclass(frozen=True)
class OptionSpace(LayeredSpace):
    """All selections of one option a position; every option may follow every other.

    Attributes:
        menus: one a position.
    """

    menus: tuple[OptionMenu, ...]

    embedding_width = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "menus", tuple(self.menus))
        if not self.menus:
            raise ValueError("the table has no positions; expected one at least")
        named = [menu.position for menu in self.menus]
        if len(set(named)) < len(named):
            raise ValueError(f"two positions are called {max(named, key=named.count)}; expected a name of its own for each")

    @property
    def decisions(self) -> int:
        """Number of decisions in a design: one a position."""
        return len(self.menus)

    @cached_property
    def state_of(self) -> tuple[np.ndarray, ...]:
        """One state for all options of a position."""
        return tuple(np.zeros(len(menu), dtype=np.intp) for menu in self.menus)

    @cached_property
    def state_widths(self) -> tuple[tuple[int, ...], ...]:
        """0: options have no width."""
        return ((0,),) * len(self.menus)

    @cached_property
    def steps(self) -> tuple[np.ndarray, ...]:
        """Every option may follow every other."""
        return (np.ones((1, 1), dtype=bool),) * (len(self.menus) - 1)

    def blocks_of(self, menu: OptionMenu) -> tuple[Option, ...]:
        """The options of a position."""
        return menu.items

    def encode(self, architecture: Selection) -> Choices:
        """The item numbers of a selection; ValueError naming the position whose option this space does not hold."""
        if not isinstance(architecture, Selection) or len(architecture.blocks) != len(self.menus):
            raise ValueError(f"the design {architecture} is no selection of one option for each of {len(self.menus)} positions")
        for menu, option in zip(self.menus, architecture.blocks, strict=True):
            if option.name not in menu.number_of:
                raise ValueError(f"position {menu.position} has no option {option.name}; it has {', '.join(menu.names)}")
        return tuple(menu.number_of[option.name] for menu, option in zip(self.menus, architecture.blocks, strict=True))

    def decode(self, choices: Sequence[int]) -> Selection:
        """The selection of one item number a position."""
        return Selection(tuple(menu.items[int(item)] for menu, item in zip(self.menus, choices, strict=True)))


@dataclass(frozen=True)
class Column(Separable):
    """Σ_i value_i(option_i): a column of a score table as a quantity.

    Attributes:
        name: as in `Quantity`.
        unit: as in `Quantity`.
        values: per position the value of each of its options, in item order.
        space: the positions and options that the values are of.
    """

    name: str
    unit: str
    values: tuple[tuple[float, ...], ...] = field(repr=False)
    space: OptionSpace = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(tuple(map(float, row)) for row in self.values))
        if tuple(map(len, self.values)) != tuple(map(len, self.space.menus)):
            raise ValueError(f"column {self.name} lacks values of some options, or has too many; expected one an option")
        for menu, row in zip(self.space.menus, self.values, strict=True):
            for name, value in zip(menu.names, row, strict=True):
                if not math.isfinite(value):
                    raise ValueError(f"{self.name} of {name} at position {menu.position} is {value}; expected a finite number")

    @property
    def positional(self) -> bool:
        """Whether the value of an option depends on the position."""
        return len({(menu.names, row) for menu, row in zip(self.space.menus, self.values, strict=True)}) > 1

    def block(self, block: Option, setting: Setting) -> float:  # type: ignore[override]  # an option in place of a block
        raise ValueError(f"{self.name} depends on the position of an option; use block_at")

    def block_at(self, position: int, block: Option, setting: Setting) -> float:  # type: ignore[override]
        return self.values[position][self.space.menus[position].number_of[block.name]]

    def terms_at(self, position: int, blocks: Sequence[Any], setting: Setting) -> Sequence[float]:
        """See `Separable.terms_at`."""
        number_of, row = self.space.menus[position].number_of, self.values[position]
        return [row[number_of[block.name]] for block in blocks]


def columns_of(space: OptionSpace, columns: dict[str, tuple[str, Sequence[Sequence[float]]]]) -> Iterator[Column]:
    """A quantity for each of some columns, given as unit and values by their names."""
    for name, (unit, values) in columns.items():
        yield Column(name, unit, tuple(map(tuple, values)), space)
