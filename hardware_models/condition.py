"""Prices that depend on the choice: a cliff where widths are multiples of some number, a cell of its own for one width.

A condition is asked of one block, so that a table with such prices still adds up over blocks, and exact solvers prove with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from formulation import Block
from formulation.architecture import Setting, positive_integer
from formulation.layer import Layer, layer_of
from formulation.records.reading import PositiveInt, Within, chosen

LAYER_WIDTHS: dict[str, Callable[[Layer], int]] = {
    "width": lambda layer: layer.width,
    "ffn_width": lambda layer: layer.ffn_width,
    "query_width": lambda layer: layer.query_width,
    "value_width": lambda layer: layer.value_width,
    "cache_width": lambda layer: layer.cache_width,
}
"""Widths of a layer that a condition may name: E, F, h·d, h·d' (what the output map reads) and k·(d + d')."""


@dataclass(frozen=True)
class Condition:
    """What has to hold of the widths of a block's layers; everything that is stated has to.

    Attributes:
        of: names of `LAYER_WIDTHS`, one or more.
        multiple_of: all of them are multiples of this number.
        not_multiple_of: not all of them are multiples of this number.
        equal: all of them are this number.

    Raises:
        ValueError: for a width that is unknown or named twice, and where nothing is stated.
    """

    of: tuple[str, ...]
    multiple_of: PositiveInt | None = None
    not_multiple_of: PositiveInt | None = None
    equal: PositiveInt | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", tuple(self.of))
        for name in self.of:
            chosen("width in a condition", name, LAYER_WIDTHS)
        if not self.of or len(set(self.of)) < len(self.of):
            raise ValueError(f"of is {list(self.of)}; expected one or more of {', '.join(LAYER_WIDTHS)}, each once")
        stated = {name: value for name in _RULES if (value := getattr(self, name)) is not None}
        if not stated:
            raise ValueError(f"the condition on {', '.join(self.of)} states nothing; expected one or more of {', '.join(_RULES)}")
        for name, value in stated.items():
            object.__setattr__(self, name, positive_integer(name, value))

    def holds(self, block: Block, setting: Setting) -> bool:
        """Whether it holds of a block; never of one without layers."""
        if not block.depth:
            return False
        layer = layer_of(block, setting)
        widths = [LAYER_WIDTHS[name](layer) for name in self.of]
        return all(rule(widths, value) for name, rule in _RULES.items() if (value := getattr(self, name)) is not None)

    def to_dict(self) -> dict[str, object]:
        """The JSON object, without what is not stated."""
        return {"of": list(self.of)} | {name: value for name in _RULES if (value := getattr(self, name)) is not None}

    def __str__(self) -> str:
        words = {"multiple_of": "all multiples of", "not_multiple_of": "not all multiples of", "equal": "equal to"}
        stated = (f"{word} {value:,}" for name, word in words.items() if (value := getattr(self, name)) is not None)
        return f"{', '.join(self.of)} {' and '.join(stated)}"


_RULES: dict[str, Callable[[list[int], int], bool]] = {
    "multiple_of": lambda widths, number: not any(width % number for width in widths),
    "not_multiple_of": lambda widths, number: any(width % number for width in widths),
    "equal": lambda widths, number: all(width == number for width in widths),
}


SignedPrice = Annotated[float, Within(-1e100, 1e100)]
"""A price, so small that sums and products of a few stay finite."""


@dataclass(frozen=True)
class ConditionalPrice:
    """A further price of a kind of work, in the blocks of which a condition holds.

    Of work outside the blocks, such as the output head, it is the price where the condition holds of the first block.

    Attributes:
        work: a name of `hardware_models.workload.FEATURES` that is no map between blocks.
        price: per unit of the work, added to the one that it has everywhere.
        where: the condition.
    """

    work: str
    price: SignedPrice
    where: Condition
