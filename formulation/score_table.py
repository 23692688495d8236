"""Problems without any architecture of ours: one option a position, from a table of scores and costs that add up.

Such tables are what replacing one block at a time by cheaper variants leaves behind (block-wise scoring as in Puzzle, Bercovich et
al. 2024), or cutting nested slices out of one trained model (MatFormer, Devvrit et al. 2024). The problem

    maximize Σ_i score_i(option_i)  subject to  Σ_i cost_ki(option_i) ≤ b_k for every k

is the multiple-choice knapsack problem with several budgets. An `OptionSpace` is its space, a `Selection` a design of it and a
`Column` a quantity, so that all solvers and all questions take it like any other problem. `formulation.score_file` reads tables.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from formulation.architecture import Setting
from formulation.command.words import counted, number_text, short
from formulation.layered import LayeredSpace
from formulation.menu import Choices
from formulation.quantity import Quantity, Separable, column_texts
from formulation.records.reading import check_keys, read_value


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
    """The options of one position. Menus of the same options are equal, whatever their positions are called.

    Attributes:
        position: what the position is called, such as layer 7.
        names: of the options, each once.

    Raises:
        ValueError: for no option, or two of one name.
    """

    position: str = field(compare=False)
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

    unequal_neighbours = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """0 throughout: options have no width, and nothing joins them."""
        return (0,) * len(self.blocks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the options."""
        return tuple(option.name for option in self.blocks)

    def __str__(self) -> str:
        """The names, each once with how many neighbours have it: full ×12, half, skip ×3."""
        runs = [(name, len(list(run))) for name, run in groupby(self.names)]
        return ", ".join(name if length == 1 else f"{name} ×{length}" for name, length in runs)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `from_dict` reads."""
        return {"options": list(self.names)}

    @classmethod
    def from_dict(cls, record: Any, where: str = "selection") -> Selection:
        """The selection of a JSON object, {"options": ["full", "half", ...]}.

        Args:
            record: a JSON value.
            where: what it is called in a sentence.

        Raises:
            ValueError: naming the key that is missing, unknown or wrong.
        """
        names = read_value(tuple[str, ...], check_keys(record, ("options",), where, ("options",))["options"], f"{where}.options")
        return cls(tuple(map(Option, names)))


@dataclass(frozen=True, eq=False)
class OptionSpace(LayeredSpace):
    """All selections of one option a position; every option may follow every other.

    Attributes:
        menus: one a position.
    """

    menus: tuple[OptionMenu, ...]

    embedding_width = 0
    exchangeable = False
    design_head = "choice"
    decision = "position"

    def __post_init__(self) -> None:
        object.__setattr__(self, "menus", tuple(self.menus))
        if not self.menus:
            raise ValueError("the table has no positions; expected one at least")
        named = [menu.position for menu in self.menus]
        if len(set(named)) < len(named):
            raise ValueError(f"two positions are called {max(named, key=named.count)}; expected each name once")

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, OptionSpace) and self.menus == other.menus and self.positions == other.positions)

    def __hash__(self) -> int:
        return hash(self.menus)

    def identity_record(self) -> str:
        """What tells the space from others, for `fingerprint`: the names of positions and options."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = [[menu.position, menu.names] for menu in self.menus]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def positions(self) -> tuple[str, ...]:
        """What the positions are called."""
        return tuple(menu.position for menu in self.menus)

    @property
    def decisions(self) -> int:
        """Number of decisions in a design: one a position."""
        return len(self.menus)

    @cached_property
    def size(self) -> int:
        """Exact number of selections."""
        return math.prod(map(len, self.menus))

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

    @cached_property
    def _numbers(self) -> tuple[dict[str, int], ...]:
        return tuple(menu.number_of for menu in self.menus)

    def encode(self, architecture: Selection) -> Choices:
        """The item numbers of a selection; ValueError naming the position whose option this space does not hold."""
        if not isinstance(architecture, Selection):
            raise ValueError(f"the design is {architecture!r}; expected a Selection of one option a position")
        if len(architecture.blocks) != len(self.menus):
            raise ValueError(f"the selection has {len(architecture.blocks)} options; the table has {len(self.menus)} positions")
        numbers = list(map(dict.get, self._numbers, [option.name for option in architecture.blocks]))
        if None in numbers:
            menu, option = self.menus[numbers.index(None)], architecture.blocks[numbers.index(None)]
            raise ValueError(f"position {menu.position} has no option {option.name}; it has {_listed(menu.names)}")
        return tuple(numbers)  # type: ignore[arg-type]  # none is None

    def decode(self, choices: Sequence[int]) -> Selection:
        """The selection of one item number a position."""
        return Selection(tuple(menu.items[int(item)] for menu, item in zip(self.menus, choices, strict=True)))

    def same(self, name: str) -> Selection:
        """The selection of one option throughout, and of the only one where a position has a single other.

        ValueError naming the first position that has others, and not this one.
        """
        for menu in self.menus:
            if name not in menu.number_of and len(menu) > 1:
                raise ValueError(f"position {menu.position} has no option {name}; it has {_listed(menu.names)}")
        return Selection(tuple(Option(name if name in menu.number_of else menu.names[0]) for menu in self.menus))

    # How its designs are counted, written and shown

    @property
    def layout(self) -> str:
        """80 positions of 16 items each."""
        sizes = {len(menu) for menu in self.menus}
        items = f"{counted(min(sizes), 'item')} each" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)} items"
        return f"{counted(len(self.menus), 'position')} of {items}"

    def agreement(self, design: Selection) -> Column:
        """The number of positions at which a selection has the same option as a given one."""
        chosen = self.encode(design)
        ones = [[float(item == own) for item in range(len(menu))] for menu, own in zip(self.menus, chosen, strict=True)]
        return Column("agreement", "positions", ones, self)  # type: ignore[arg-type]  # made an array

    def design_table(self, design: Selection, quantities: Sequence[Quantity]) -> tuple[list[str], list[list[str]], set[int]]:
        """See `LayeredSpace.design_table`: a row a position, or for neighbours of one option, what they add up to; and the sums."""
        columns = [quantity for quantity in dict.fromkeys(quantities) if isinstance(quantity, Column)]
        chosen = self.encode(design)
        values = [[column.rows[i][item] for i, item in enumerate(chosen)] for column in columns]
        runs = [[number] for number in range(len(chosen))]
        if len(runs) > _MOST_ROWS:
            runs = [list(run) for _, run in groupby(range(len(chosen)), key=design.names.__getitem__)]
        spans = [
            self.positions[run[0]] if len(run) == 1 else f"{self.positions[run[0]]} to {self.positions[run[-1]]}" for run in runs
        ]
        counts = [str(len(run)) if len(run) > 1 else "" for run in runs]
        rows = [
            [span, count, design.names[run[0]], *(_value_text(math.fsum(own[i] for i in run)) for own in values)]
            for span, count, run in zip(spans, counts, runs, strict=True)
        ]
        rows.append(["sum", "", "", *(_value_text(math.fsum(own)) for own in values)])
        units = [f" [{column.unit}]" if column.unit != "1" else "" for column in columns]
        header = ["position", "", "item", *map("".join, zip(column_texts(columns), units, strict=True))]
        if not any(counts):
            header, rows = header[:1] + header[2:], [row[:1] + row[2:] for row in rows]
        return header, rows, {0, header.index("item")}

    def words(self, design: Selection, beside: Selection | None = None) -> str:
        """See `LayeredSpace.words`: how a selection differs from another one, position by position, where that is shorter."""
        if beside is None:
            return _shortened(str(design).split(", "))
        pairs = zip(self.positions, beside.names, design.names, strict=True)
        differing = _shortened([f"{position}: {name}" for position, own, name in pairs if own != name])
        return f"but {differing}" if differing else "as above"

    def to_dict(self) -> dict[str, Any]:
        """ValueError: a file holds the table as a whole, see `formulation.score_file.table_to_dict`."""
        raise ValueError("the options of a table are written with their scores and costs; use table_to_dict")


_MOST_ROWS = 8
"""Positions up to which each has its own row; of more, equal neighbours share one."""
_MOST_WORDS = 6
"""Positions that a line names."""


def _listed(names: Sequence[str], most: int = 12) -> str:
    """Names with commas between them, of many the first."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shortened(words: Sequence[str]) -> str:
    return ", ".join(words[:_MOST_WORDS]) + (f" and {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else "")


def _value_text(value: float) -> str:
    """A score or a cost in a table: 0.04183, 12.4, 1,234, 61.3 M."""
    return short(value, 6) if abs(value) >= 10 else number_text(float(f"{value:.4g}"))


@dataclass(frozen=True, eq=False)
class Column(Separable):
    """Σ_i value_i(option_i): a column of a score table as a quantity.

    Attributes:
        name: as in `Quantity`.
        unit: as in `Quantity`.
        space: the positions and options that the values are of.
        values: of each option of each position, given as a list a position; kept as a read-only float array (positions, most
            options of a position), 0 where a position has fewer.

    Raises:
        ValueError: for a value that is missing or is not a finite number.
    """

    name: str
    unit: str
    values: np.ndarray = field(repr=False)
    space: OptionSpace = field(repr=False)

    def __post_init__(self) -> None:
        given: Sequence[Sequence[float]] | np.ndarray = self.values
        sizes = tuple(map(len, self.space.menus))
        if tuple(map(len, given)) != sizes:
            raise ValueError(f"column {self.name} lacks values of some options, or has too many; expected one an option")
        values = np.zeros((len(sizes), max(sizes)))
        for row, own in zip(values, given, strict=True):
            row[: len(own)] = own
        if not np.isfinite(values).all():
            position, item = np.argwhere(~np.isfinite(values))[0].tolist()
            menu, value = self.space.menus[position], values[position, item]
            raise ValueError(f"{self.name} of {menu.names[item]} at position {menu.position} is {value}; expected a finite number")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Column)
            and (self.name, self.unit, self._digest) == (other.name, other.unit, other._digest)
            and self.space == other.space
        )

    def __hash__(self) -> int:
        return hash((self.name, self.unit, self._digest))

    def identity_record(self) -> tuple[str, str, str, OptionSpace]:
        """What tells the column from others, for `fingerprint`."""
        return self.name, self.unit, self._digest, self.space

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.values + 0.0, dtype="<f8").tobytes()).hexdigest()

    @cached_property
    def rows(self) -> tuple[np.ndarray, ...]:
        """Per position the value of each of its options, in item order."""
        return tuple(row[: len(menu)] for row, menu in zip(self.values, self.space.menus, strict=True))

    def __call__(self, architecture: Selection) -> float:  # type: ignore[override]  # a selection in place of an architecture
        items = self.space.encode(architecture)
        return float(sum(self.values[np.arange(len(items)), items].tolist()))

    @property
    def positional(self) -> bool:
        """Whether the value of an option depends on the position."""
        return len({(menu.names, row.tobytes()) for menu, row in zip(self.space.menus, self.rows, strict=True)}) > 1

    def check(self, space: Any) -> None:
        """ValueError for a space of other positions or options than the column has."""
        if self.space is not space and self.space != space:
            raise ValueError(f"the column {self.name} is of other positions or options than the space; take both from one table")

    def block(self, block: Option, setting: Setting) -> float:  # type: ignore[override]  # an option in place of a block
        raise ValueError(f"{self.name} depends on the position of an option; use block_at")

    def block_at(self, position: int, block: Option, setting: Setting) -> float:  # type: ignore[override]
        return float(self.values[position, self.space.menus[position].number_of[block.name]])

    def terms_of(self, space: Any) -> Sequence[np.ndarray]:
        """See `Separable.terms_of`."""
        self.check(space)
        return self.rows
