"""What one block may be: a menu of named choices, whose items are blocks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from formulation.architecture import (
    EMPTY_CHOICES,
    HEAD_SIZE,
    Block,
    check_flag,
    check_width,
    choice_values,
    positive_integer,
    positive_number,
    whole_number,
)

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


_AXES = {
    "widths": ("width", positive_integer),
    "ffn_ratios": ("ffn_ratio", _positive_ratio),
    "ffn_widths": ("ffn_width", positive_integer),
    "depths": ("depth", whole_number),
    "heads": ("heads", positive_integer),
    "kv_heads": ("kv_heads", positive_integer),
    "head_sizes": ("head_size", positive_integer),
    "gated": ("gated", check_flag),
    "shared": ("shared", check_flag),
    "bits": ("bits", positive_number),
}
"""Field of a menu -> name of the choice, and how its entries are checked."""

_MULTIPLES = ("input_multiple", "output_multiple")


@dataclass(frozen=True)
class Menu:
    """What one block may be: every valid combination of named choices. An item is a block; what was chosen for it is known by name.

    The axes are the choices that are stated, by their names in the singular, each with its entries. The items are all combinations
    that make a block, the last axis fastest: k must divide h, and the head size the width where no heads are stated. A block
    without layers is one item per width: nothing else of it means anything; nor does sharing in a block of one layer.

    Attributes:
        widths: E; multiples of the head size where no heads are stated.
        ffn_ratios: r = F/E; r·E must be whole for every width.
        depths: L, layers in the block; 0 leaves the block out.
        ffn_widths: F, in place of ratios.
        heads: query heads, h; E/d unless stated.
        kv_heads: key/value heads, k; h unless stated.
        head_sizes: d; 64 unless stated.
        gated: whether the feed-forward network has a gate; as the family has it unless stated.
        shared: whether the layers of the block share one set of weights; as the space says unless stated.
        bits: bits of a weight; as a cost model says unless stated.
        also: further menus, whose items belong to this one as well.
        input_multiple: what the width that each map of a layer reads (E, h·d, F) must be a multiple of; others are no items.
        output_multiple: the same of the width that each map writes.

    Raises:
        ValueError: for an entry that cannot be or is in no item, a ratio that makes no whole FFN width, and a menu without items.
    """

    widths: tuple[int, ...]
    ffn_ratios: tuple[float, ...] | None = None
    depths: tuple[int, ...] = (1,)
    ffn_widths: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    kv_heads: tuple[int, ...] | None = None
    head_sizes: tuple[int, ...] | None = None
    gated: tuple[bool, ...] | None = None
    shared: tuple[bool, ...] | None = None
    bits: tuple[float, ...] | None = None
    also: tuple[Menu, ...] | None = None
    input_multiple: int | None = None
    output_multiple: int | None = None

    def __post_init__(self) -> None:
        for field, (_, check) in _AXES.items():
            if getattr(self, field) is not None or field in ("widths", "depths"):
                object.__setattr__(self, field, _menu_entries(field, getattr(self, field), check))
        for name in _MULTIPLES:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, positive_integer(name, getattr(self, name)))
        if (self.ffn_ratios is None) is (self.ffn_widths is None):
            given = "none" if self.ffn_ratios is None else "both"
            raise ValueError(f"a menu needs ffn_ratios or ffn_widths; got {given}")
        for width, ratio in product(self.widths, self.ffn_ratios or ()):
            if abs(width * ratio - round(width * ratio)) > 1e-9 * width or round(width * ratio) < 1:
                raise ValueError(f"ffn ratio {ratio:g} times width {width} is {width * ratio:g}; expected a whole FFN width")
        if self.heads is None and self.head_sizes is None:
            for width in self.widths:
                check_width("an entry of widths", width)
        also = tuple(self.also or ())
        if not all(isinstance(menu, Menu) for menu in also):
            raise ValueError(f"also is {self.also!r}; expected menus, such as (Menu(widths, ffn_ratios, depths),)")
        object.__setattr__(self, "also", also or None)
        self._refuse_unused()

    def _refuse_unused(self) -> None:
        """ValueError for an entry that no item has, unless multiples leave it out, and for no item at all."""
        used = [choice for choice, _ in self._own]
        if not used and not self.also:
            rules = "".join(f", {name} {getattr(self, name)}" for name in _MULTIPLES if getattr(self, name) is not None)
            stated = ", ".join(f"{name} {entries}" for name, entries in self._stated.items())
            raise ValueError(
                f"no combination of {stated} makes a block{rules}: kv_heads must divide heads, the head size the width"
            )
        if self.input_multiple is None and self.output_multiple is None:
            for name in ("width", "heads", "kv_heads", "head_size"):
                for entry in self._stated.get(name, ()) if any(self.depths) else ():
                    if all(choice.get(name) != entry for choice in used):
                        raise ValueError(
                            f"{name} {entry} is in no valid combination of the menu: kv_heads must divide heads, and the head size "
                            "the width where no heads are stated; leave it out, or add what it goes with"
                        )

    @cached_property
    def _stated(self) -> dict[str, tuple[Any, ...]]:
        """The entries of the axes of this menu's own."""
        return {name: getattr(self, field) for field, (name, _) in _AXES.items() if getattr(self, field) is not None}

    @cached_property
    def _own(self) -> list[tuple[dict[str, Any], Block]]:
        """The valid combinations of this menu's own choices, each with its block."""
        made: dict[tuple[Any, ...], tuple[dict[str, Any], Block]] = {}
        for entries in product(*self._stated.values()):
            stated = dict(zip(self._stated, entries, strict=True))
            choice = _meant(stated)
            if tuple(choice.items()) not in made and (block := self._block(choice)) is not None:
                made[tuple(choice.items())] = choice, block
        return list(made.values())

    def _block(self, choice: Mapping[str, Any]) -> Block | None:
        """The block of a combination; None if it makes none."""
        width = choice["width"]
        ratio, ffn_width = ((choice.get(name) or self._stated.get(name, (None,))[0]) for name in ("ffn_ratio", "ffn_width"))
        ffn_width = ffn_width if ratio is None else round(width * ratio)
        if not choice["depth"]:
            return Block(width, ffn_width, 0)
        size = choice.get("head_size", HEAD_SIZE)
        if "heads" not in choice and width % size:
            return None
        heads = choice.get("heads", width // size)
        kv_heads = choice.get("kv_heads", heads)
        if heads % kv_heads:
            return None
        flags = {name: choice[name] for name in ("gated", "shared", "bits") if name in choice}
        block = Block(width, ffn_width, choice["depth"], heads, kv_heads, size, **flags)
        return block if _are_multiples(block, self.input_multiple, self.output_multiple) else None

    def within(
        self, kept: Mapping[str, Collection[Any]], input_multiple: int | None = None, output_multiple: int | None = None
    ) -> Menu | None:
        """The menu of some of the items, by the axes and rules of this one; None if there are none.

        Args:
            kept: names of choices, each with what it may be; of a block without layers only the width is asked about.
            input_multiple: what else the widths that maps read must be a multiple of, as in `Menu`, those of left-out blocks too.
            output_multiple: the same of the widths that maps write.
        """
        menus = (each._own_within(kept, input_multiple, output_multiple) for each in (self, *self._united))
        left = [menu for menu in menus if menu is not None]
        return replace(left[0], also=tuple(left[1:])) if left else None

    def _own_within(self, kept: Mapping[str, Collection[Any]], *multiples: int | None) -> Menu | None:
        def stays(choice: dict[str, Any], block: Block) -> bool:
            asked = kept if block.depth else {name: kept[name] for name in EMPTY_CHOICES if name in kept}
            named = all((choice[name] if name in choice else getattr(block, name)) in own for name, own in asked.items())
            return named and _are_multiples(block, *multiples) and not any(block.width % (each or 1) for each in multiples)

        used = [choice for choice, block in self._own if stays(choice, block)]
        if not used:
            return None
        axes = {field: name for field, (name, _) in _AXES.items() if name in self._stated}
        entries: dict[str, Any] = {
            field: tuple(entry for entry in self._stated[name] if any(choice.get(name) == entry for choice in used))
            for field, name in axes.items()
        }
        # An axis that means nothing to any item left keeps an entry: a menu has none without.
        entries = {field: own or self._stated[axes[field]][:1] for field, own in entries.items()}
        rules: dict[str, Any] = {
            name: own if each is None else math.lcm(each, own or 1)
            for name, each in zip(_MULTIPLES, multiples, strict=True)
            for own in (getattr(self, name),)
        }
        return replace(self, also=None, **entries, **rules)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The choices by name, each with its entries in order."""
        if self.also is None:
            return self._stated
        entries: dict[str, set[Any]] = {name: set() for name in self._axis_names}
        for choice in self.choice_of:
            for name, value in choice.items():
                entries[name].add(value)
        return {name: tuple(sorted(own, key=lambda value: (value is not None, value))) for name, own in entries.items()}

    @cached_property
    def _axis_names(self) -> tuple[str, ...]:
        """Names of the axes of this menu and of those that belong to it, in their order; FFN widths where some have no ratios."""
        stated = {name for menu in (self, *self._united) for name in menu._stated}
        if {"ffn_ratio", "ffn_width"} <= stated:
            stated.remove("ffn_ratio")
        return tuple(name for name, _ in _AXES.values() if name in stated)

    @property
    def _united(self) -> Iterator[Menu]:
        """The menus that belong to this one, and those that belong to them."""
        for menu in self.also or ():
            yield menu
            yield from menu._united

    @cached_property
    def _choices_and_items(self) -> list[tuple[dict[str, Any], Block]]:
        if self.also is None:
            return self._own
        found: dict[tuple[Any, ...], tuple[dict[str, Any], Block]] = {}
        for menu in (self, *self._united):
            for choice, block in menu._own:
                read = {name: choice[name] if name in choice else getattr(block, name) for name in self._axis_names}
                found.setdefault(choice_values(block), (_meant(read), block))
        return list(found.values())

    @cached_property
    def choice_of(self) -> tuple[dict[str, Any], ...]:
        """The named choices of each item; of a block without layers those alone that mean something."""
        return tuple(choice for choice, _ in self._choices_and_items)

    @cached_property
    def items(self) -> tuple[Block, ...]:
        """The blocks of this menu, in item order; what means nothing in a block without layers is that of the first entry."""
        return tuple(block for _, block in self._choices_and_items)

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
    def all_depths(self) -> tuple[int, ...]:
        """The depths of the items in order, those of united menus included."""
        return tuple(sorted({block.depth for block in self.items}))

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
        """The item at a place on each axis, by name; where none is, the nearest one: first in width, then in places away.

        Where the block has no layers, the places that mean nothing do not matter.
        """
        choice = _meant({name: entries[places[name]] for name, entries in self.axes.items()})
        key = tuple(int(places[name]) if name in choice else -1 for name in self.axes)
        if key not in self._at:
            apart = [
                np.where(own < 0, 0, np.abs(own - place)) if place >= 0 else (own >= 0).astype(np.intp)
                for place, own in zip(key, self.places.values(), strict=True)
            ]
            self._at[key] = int(np.lexsort((np.sum(apart, axis=0), apart[0]))[0])
        return self._at[key]

    @cached_property
    def _at(self) -> dict[tuple[int, ...], int]:
        return {place: item for item, place in enumerate(zip(*(places.tolist() for places in self.places.values()), strict=True))}

    def find(self, block: Block) -> int | None:
        """The item that a block is, None if the menu lacks it; of a block without layers only the width matters."""
        return self._number_of.get(choice_values(block))

    @cached_property
    def _number_of(self) -> dict[tuple[Any, ...], int]:
        return {choice_values(block): number for number, block in enumerate(self.items)}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of what is stated, by the names of the fields."""
        record: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            if name == "also":
                record |= {"also": [menu.to_dict() for menu in self.also]} if self.also else {}
            elif (value := getattr(self, name)) is not None:
                record[name] = list(value) if isinstance(value, tuple) else value
        return record

    def __str__(self) -> str:
        own = ", ".join(f"{name} {entries}" for name, entries in self._stated.items())
        rules = "".join(f", {name} {getattr(self, name)}" for name in _MULTIPLES if getattr(self, name) is not None)
        return own + rules + "".join(f"; or {menu}" for menu in self.also or ())


def _are_multiples(block: Block, input_multiple: int | None, output_multiple: int | None) -> bool:
    """Whether the widths that the maps of a block's layers read, and those that they write, are multiples of these."""
    if not block.depth:
        return True
    inputs = (block.width, block.heads * block.head_size, block.ffn_width)
    outputs = (*inputs, block.kv_heads * block.head_size)
    pairs = ((input_multiple, inputs), (output_multiple, outputs))
    return not any(width % multiple for multiple, own in pairs if multiple is not None for width in own)


def _meant(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Of the choices by name those that mean something."""
    if not stated["depth"]:
        return {name: stated[name] for name in EMPTY_CHOICES}
    return {name: value for name, value in stated.items() if name != "shared" or stated["depth"] > 1}
