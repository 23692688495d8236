"""A designed language model as data: blocks of identical layers between a token embedding and its tied output head.

Only what a design *is* lives here. What it is worth is `formulation.entropy`, what it costs is `hardware_models`, and the
PyTorch network built from it reads this file alone.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from formulation.records.reading import VERSION, parse_json, read_record, versioned

HEAD_SIZE = 64
"""Width of one attention head; a block of width E has E/64 heads (MeRino, section 3)."""

EMPTY_CHOICES = ("width", "depth")
"""Names of the choices that mean something in a block without layers."""

_LARGEST = 10**9
_FORMAT = "merino-architecture"


class Setting(Protocol):
    """What surrounds the blocks: the four facts that an `Architecture` and a `SearchSpace` both carry."""

    @property
    def shared(self) -> bool: ...
    @property
    def embedding_width(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def positions(self) -> int: ...


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """`value` as an int; ValueError if it is not a whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or not least <= number <= _LARGEST:
        got = repr(value) if not isinstance(value, int) or number <= _LARGEST else "larger"
        raise ValueError(f"{name} is {got}; expected a whole number of at least {least} and at most {_LARGEST:,}")
    return number


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int; ValueError if it is not a whole number of at least 1."""
    return whole_number(name, value, 1)


def check_width(name: str, value: Any) -> int:
    """`value` as a width that whole attention heads fill; ValueError naming the nearest widths that do."""
    width = positive_integer(name, value)
    if width % HEAD_SIZE:
        below = width // HEAD_SIZE * HEAD_SIZE
        nearest = f"{below} or {below + HEAD_SIZE}" if below else f"{HEAD_SIZE}"
        raise ValueError(f"{name} is {width}, which {HEAD_SIZE} (the attention head size) does not divide; use {nearest}")
    return width


def check_setting(setting: Setting) -> None:
    """ValueError if one of the four facts around the blocks makes no sense."""
    if not isinstance(setting.shared, bool):
        raise ValueError(f"shared is {setting.shared!r}; expected True or False")
    for name in ("embedding_width", "vocabulary", "positions"):
        object.__setattr__(setting, name, positive_integer(name, getattr(setting, name)))


@dataclass(frozen=True, slots=True)
class Block:
    """`depth` transformer layers of one shape: attention of `width`, feed-forward network of `ffn_width`.

    The paper's E_i, F_i = r_i·E_i and L_i. A block of depth 0 is left out: it has no layer, so its FFN width means nothing; the
    residual stream keeps its width there, and so its joints. Raises ValueError if 64 does not divide the width.
    """

    width: int
    ffn_width: int
    depth: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", check_width("block width", self.width))
        object.__setattr__(self, "ffn_width", positive_integer("block ffn_width", self.ffn_width))
        object.__setattr__(self, "depth", whole_number("block depth", self.depth))

    @property
    def choices(self) -> dict[str, int | None]:
        """What was decided of the block, by name; None for what means nothing in a block without layers."""
        return {"width": self.width, "ffn_width": self.ffn_width if self.depth else None, "depth": self.depth}

    @property
    def heads(self) -> int:
        """Number of attention heads, width / 64."""
        return self.width // HEAD_SIZE

    @property
    def ffn_ratio(self) -> float:
        """r = F / E."""
        return self.ffn_width / self.width

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of its choices, by name."""
        return {"width": self.width, "ffn_width": self.ffn_width, "depth": self.depth}

    def __str__(self) -> str:
        return f"{self.width}/{self.ffn_width}x{self.depth}"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A block-wise decoder-only transformer.

    Tokens enter `embedding_width` wide, pass the blocks in order and leave through the tied output head. A bias-free linear
    map joins neighbours of unequal width: embedding to first block, block to block, last block to head.

    Attributes:
        blocks: the blocks, input first; at least one has a layer.
        shared: True: the layers inside a block are one set of weights (ALBERT-style); False: each has its own.
        embedding_width: width of the token embedding and of the output head.
        vocabulary: number of tokens (GPT-2's 50,257 by default).
        positions: number of learned positions.
    """

    blocks: tuple[Block, ...]
    shared: bool = True
    embedding_width: int = 768
    vocabulary: int = 50257
    positions: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.blocks:
            raise ValueError("an architecture needs at least one block; got none")
        for block in self.blocks:
            if not isinstance(block, Block):
                raise ValueError(f"blocks holds {block!r}; expected Block(width, ffn_width, depth)")
        if not any(block.depth for block in self.blocks):
            raise ValueError(
                f"the architecture has no layer: all of its {len(self.blocks)} blocks have depth 0; expected one of depth 1 or more"
            )
        check_setting(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """E_1 … E_N."""
        return tuple(block.width for block in self.blocks)

    @property
    def ffn_widths(self) -> tuple[int, ...]:
        """F_1 … F_N."""
        return tuple(block.ffn_width for block in self.blocks)

    @property
    def depths(self) -> tuple[int, ...]:
        """L_1 … L_N."""
        return tuple(block.depth for block in self.blocks)

    @property
    def joints(self) -> Iterator[tuple[int, int]]:
        """(left, right) of every pair of unequal neighbours, embedding and head included: where a linear map joins them."""
        chain = (self.embedding_width, *self.widths, self.embedding_width)
        return ((left, right) for left, right in pairwise(chain) if left != right)

    def __str__(self) -> str:
        return " ".join(map(str, self.blocks)) + ("" if self.shared else " unshared")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: format, version, blocks (width, ffn_width, depth), shared and the three sizes around them."""
        return {
            "format": _FORMAT,
            "version": VERSION,
            "blocks": [block.to_dict() for block in self.blocks],
            "shared": self.shared,
            "embedding_width": self.embedding_width,
            "vocabulary": self.vocabulary,
            "positions": self.positions,
        }

    def to_json(self) -> str:
        """The object of `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, record: Any, where: str = "architecture") -> Architecture:
        """The architecture that `to_dict` wrote.

        Args:
            record: a JSON value.
            where: what it is called in a sentence.

        Raises:
            ValueError: naming the key that is missing, unknown or wrong.
        """
        return read_record(cls, versioned(record, _FORMAT, where), where)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture in a JSON text; ValueError if it is not valid JSON or not an architecture."""
        try:
            record = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the architecture {error}") from None
        return cls.from_dict(record)


_BLOCK = re.compile(r"([0-9]{1,9})/([0-9]{1,9})x([0-9]{1,9})")


def read_blocks(text: str) -> tuple[Block, ...]:
    """The blocks that `str` of an architecture writes, width/ffn_width x depth: "512/512x2 640/960x1"; ValueError for any other."""
    matches = [_BLOCK.fullmatch(part) for part in text.split()]
    if not matches or None in matches:
        raise ValueError(
            f"the blocks are {text[:100]!r}; expected width/ffn_widthxdepth, one after another, such as '512/512x2 640/960x1'"
        )
    return tuple(Block(*map(int, match.groups())) for match in matches if match)


def positive_number(name: str, value: Any) -> float:
    """`value` as a float; ValueError if it is not a finite number above 0."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a finite number above 0")
    return float(value)
