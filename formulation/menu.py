"""What one block may be: a menu of named choices, whose items are blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from formulation.architecture import EMPTY_CHOICES, Block, check_width, whole_number

Choices = tuple[int, ...]
"""One item number per block."""


def _menu_entries(name: str, values: Any, check: Any) -> tuple[Any, ...]:
    """`values` checked one by one, sorted, without repeats; ValueError if there isn't one."""
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
    """What one block may be: every combination of named choices. An item is a block; what was chosen for it is known by name.

    The axes are the choices by their names, in the singular, each with its entries. The items are all combinations, the last axis
    fastest. A block without layers is one item per width: nothing else of it means anything.

    Attributes:
        widths: E, multiples of 64.
        ffn_ratios: r = F/E; r·E must be whole for every width.
        depths: L, layers in the block; 0 leaves the block out.

    Raises:
        ValueError: for an entry that cannot be, or a ratio that makes no whole FFN width.
    """

    widths: tuple[int, ...]
    ffn_ratios: tuple[float, ...]
    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", _menu_entries("widths", self.widths, check_width))
        object.__setattr__(self, "ffn_ratios", _menu_entries("ffn_ratios", self.ffn_ratios, _positive_ratio))
        object.__setattr__(self, "depths", _menu_entries("depths", self.depths, whole_number))
        for width, ratio in product(self.widths, self.ffn_ratios):
            if abs(width * ratio - round(width * ratio)) > 1e-9 * width or round(width * ratio) < 1:
                raise ValueError(f"ffn ratio {ratio:g} times width {width} is {width * ratio:g}; expected a whole FFN width")

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The choices by name, each with its entries in order."""
        return {"width": self.widths, "ffn_ratio": self.ffn_ratios, "depth": self.depths}

    @cached_property
    def choice_of(self) -> tuple[dict[str, Any], ...]:
        """The named choices of each item; of a block without layers those alone that mean something."""
        made: dict[tuple[Any, ...], dict[str, Any]] = {}
        for entries in product(*self.axes.values()):
            choice = dict(zip(self.axes, entries, strict=True))
            if not choice["depth"]:
                choice = {name: choice[name] for name in EMPTY_CHOICES}
            made.setdefault(tuple(choice.items()), choice)
        return tuple(made.values())

    @cached_property
    def items(self) -> tuple[Block, ...]:
        """The blocks of this menu, in item order; the FFN width of a block without layers is that of the first ratio."""
        return tuple(
            Block(choice["width"], round(choice["width"] * choice.get("ffn_ratio", self.ffn_ratios[0])), choice["depth"])
            for choice in self.choice_of
        )

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """By the name of an axis the place of each item's entry on it, int array of shape (items,); −1 where it means nothing."""
        place = {name: {entry: i for i, entry in enumerate(entries)} for name, entries in self.axes.items()}
        return {
            name: np.array([own[choice[name]] if name in choice else -1 for choice in self.choice_of], dtype=np.intp)
            for name, own in place.items()
        }

    @cached_property
    def layers(self) -> np.ndarray:
        """Depth of each item in layers, int array of shape (items,)."""
        return np.array([block.depth for block in self.items], dtype=np.intp)

    @cached_property
    def variants(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """By the name of an axis, for each item the others that differ from it in that choice alone, in order.

        What means nothing in one of the two makes no difference: a block without layers grows into one of any FFN width.
        """
        return {name: tuple(self._others(item, name) for item in range(len(self))) for name in self.axes}

    def _others(self, item: int, name: str) -> tuple[int, ...]:
        same = np.ones(len(self), dtype=bool)
        for axis, places in self.places.items():
            same &= (places[item] != places) if axis == name else (places[item] == places) | (places < 0) | (places[item] < 0)
        return tuple(np.flatnonzero(same & (self.places[name] >= 0) & (self.places[name][item] >= 0)).tolist())

    def at(self, places: Mapping[str, int]) -> int:
        """The item at a place on each axis, by name; where the block has no layers, those that mean nothing do not matter."""
        empty = not self.depths[places["depth"]]
        return self._at[tuple(-1 if empty and name not in EMPTY_CHOICES else int(places[name]) for name in self.axes)]

    @cached_property
    def _at(self) -> dict[tuple[int, ...], int]:
        return {place: item for item, place in enumerate(zip(*(places.tolist() for places in self.places.values()), strict=True))}

    def find(self, block: Block) -> int | None:
        """The item that a block is, None if the menu lacks it; a block without layers may have any FFN width."""
        return self._number_of.get(tuple(block.choices.values()))

    @cached_property
    def _number_of(self) -> dict[tuple[int | None, ...], int]:
        return {tuple(block.choices.values()): number for number, block in enumerate(self.items)}

    def __str__(self) -> str:
        return ", ".join(f"{name} {entries}" for name, entries in self.axes.items())
