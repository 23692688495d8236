"""A designed language model as data: blocks of identical layers between a token embedding and an output head.

Only what a design *is* lives here. What it is worth is `formulation.entropy`, what it costs is `hardware_models`, and the
PyTorch network built from it reads this file alone.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, Protocol

import numpy as np

from formulation.family import FAMILIES, family_of
from formulation.records.provenance import SAYS_NOTHING
from formulation.records.reading import VERSION, chosen, parse_json, read_record, versioned

HEAD_SIZE = 64
"""Width of one attention head unless stated; a block of width E then has E/64 heads (MeRino, section 3)."""

CHOICES = ("width", "ffn_width", "depth", "heads", "kv_heads", "head_size", "value_head_size", "gated", "shared", "bits")
"""Names of what is decided of a block."""

EMPTY_CHOICES = ("width", "depth")
"""Names of the choices that mean something in a block without layers."""

JOINTS = ("linear", "pad")
"""What joins neighbours of unequal width: a bias-free map, or zeros behind the narrower and nothing of what the wider has more."""

_LARGEST = 10**9
_FORMAT = "merino-architecture"


class Setting(Protocol):
    """What surrounds the blocks: the facts that an `Architecture` and a `SearchSpace` both carry."""

    @property
    def shared(self) -> bool: ...
    @property
    def embedding_width(self) -> int: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def positions(self) -> int: ...
    @property
    def family(self) -> str: ...
    @property
    def tied(self) -> bool: ...
    @property
    def joints(self) -> str: ...


SETTING = ("shared", "embedding_width", "vocabulary", "positions", "family", "tied", "joints")
"""The facts of a `Setting` by name."""


def said_of(setting: Setting) -> dict[str, Any]:
    """The facts of a setting by name as JSON has them; joints are said where they are not maps."""
    return {name: getattr(setting, name) for name in SETTING if name != "joints" or setting.joints != JOINTS[0]}


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


def check_width(name: str, value: Any, head_size: int = HEAD_SIZE) -> int:
    """`value` as a width that whole attention heads fill; ValueError naming the nearest widths that do."""
    width = positive_integer(name, value)
    if width % head_size:
        below = width // head_size * head_size
        nearest = f"{below} or {below + head_size}" if below else f"{head_size}"
        raise ValueError(
            f"{name} is {width}, which {head_size} (the attention head size) does not divide; use {nearest}, or state the heads"
        )
    return width


def check_flag(name: str, value: Any) -> bool:
    """`value` if it is True or False; else ValueError."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def check_setting(setting: Any, width: int | None) -> None:
    """The facts around the blocks as they are kept; ValueError if one of them makes no sense.

    Args:
        setting: whose fields are checked, those that are None replaced by what the family has.
        width: of the blocks where the first one begins; None where it is not settled.
    """
    family = family_of(setting.family)
    check_flag("shared", setting.shared)
    if setting.embedding_width is None:
        object.__setattr__(setting, "embedding_width", family.embedding_width or width)
        if setting.embedding_width is None:
            raise ValueError(
                f"the first block may have several widths; the family {family.name} has one residual width: "
                "keep one, or solve a union of spaces, one for each width"
            )
    for name in ("embedding_width", "vocabulary", "positions"):
        object.__setattr__(setting, name, positive_integer(name, getattr(setting, name)))
    object.__setattr__(setting, "tied", family.tied if setting.tied is None else check_flag("tied", setting.tied))
    chosen("joints", setting.joints, dict.fromkeys(JOINTS))
    if setting.joints != JOINTS[0] and not family.joints:
        raise ValueError(
            f"joints is {setting.joints!r}; the family {family.name} has one width and nothing to join: leave the joints out, or "
            f"take a family whose widths may differ ({', '.join(each.name for each in FAMILIES.values() if each.joints)})"
        )


def check_widths(setting: Setting, widths: Collection[int]) -> None:
    """ValueError if a family cannot have blocks of these widths in their setting."""
    family = family_of(setting.family)
    if family.one_width and len(set(widths)) > 1:
        raise ValueError(
            f"the blocks are {', '.join(map(str, sorted(set(widths))))} wide; the family {family.name} has one residual width: "
            "keep one, or solve a union of spaces, one for each width"
        )
    if not family.joints and {*widths} != {setting.embedding_width}:
        raise ValueError(
            f"the embedding is {setting.embedding_width} wide and the blocks {min(widths)}; the family {family.name} has no map "
            "that joins unequal widths: make them equal"
        )


@dataclass(frozen=True, slots=True)
class Block:
    """`depth` transformer layers of one shape: attention of `heads` heads, feed-forward network of `ffn_width`.

    The paper's E_i, F_i = r_i·E_i and L_i; h, k and d of grouped-query attention. A block of depth 0 is left out: it has no layer,
    so nothing but its width means anything; the residual stream keeps its width there, and so its joints.

    Attributes:
        width: E, of the residual stream.
        ffn_width: F.
        depth: L, layers.
        heads: query heads, h; width / head_size unless stated.
        kv_heads: key/value heads, k, which divide h; h unless stated.
        head_size: d, of queries and keys.
        value_head_size: of values; d unless stated.
        gated: whether the feed-forward network has a gate; None: as the family has it.
        shared: whether the layers share one set of weights; None: as the architecture says.
        bits: bits of a weight; None: as a cost model says.

    Raises:
        ValueError: for sizes that are not whole numbers of at least 1 (the depth: 0), where the head size does not divide the width
            and no heads are stated, and where k does not divide h.
    """

    width: int
    ffn_width: int
    depth: int
    heads: int = None  # type: ignore[assignment]  # replaced by a number below, as are the other two
    kv_heads: int = None  # type: ignore[assignment]
    head_size: int = HEAD_SIZE
    value_head_size: int = None  # type: ignore[assignment]
    gated: bool | None = None
    shared: bool | None = None
    bits: float | None = None

    def __post_init__(self) -> None:
        own = object.__setattr__
        own(self, "depth", whole_number("block depth", self.depth))
        if not self.depth:
            self._leave_out()
        own(self, "head_size", positive_integer("block head_size", self.head_size))
        if self.heads is None:
            own(self, "width", check_width("block width", self.width, self.head_size))
            own(self, "heads", self.width // self.head_size)
        own(self, "width", positive_integer("block width", self.width))
        own(self, "heads", positive_integer("block heads", self.heads))
        own(self, "kv_heads", self.heads if self.kv_heads is None else positive_integer("block kv_heads", self.kv_heads))
        if self.heads % self.kv_heads:
            raise ValueError(f"block kv_heads is {self.kv_heads}, which does not divide the {self.heads} heads; expected a divisor")
        if self.value_head_size is None:
            own(self, "value_head_size", self.head_size)
        own(self, "value_head_size", positive_integer("block value_head_size", self.value_head_size))
        own(self, "ffn_width", positive_integer("block ffn_width", self.ffn_width))
        for name in ("gated", "shared"):
            if getattr(self, name) is not None:
                own(self, name, check_flag(f"block {name}", getattr(self, name)))
        if self.depth <= 1:
            own(self, "shared", None)
        if self.bits is not None:
            own(self, "bits", positive_number("block bits", self.bits))

    def _leave_out(self) -> None:
        """What means nothing in a block without layers becomes what it is unless stated, so that equal blocks are equal."""
        heads = 1 if positive_integer("block width", self.width) % HEAD_SIZE else None
        for name in ("kv_heads", "value_head_size", "gated", "bits"):
            object.__setattr__(self, name, None)
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "head_size", HEAD_SIZE)

    @property
    def choices(self) -> dict[str, Any]:
        """What was decided of the block, by name; None for what follows from the rest, or means nothing without layers."""
        return dict(zip(CHOICES, choice_values(self), strict=True))

    @property
    def _following(self) -> dict[str, Any]:
        """What some choices are unless they are stated."""
        return {
            "heads": self.width / self.head_size,
            "kv_heads": self.heads,
            "head_size": HEAD_SIZE,
            "value_head_size": self.head_size,
        }

    @property
    def ffn_ratio(self) -> float:
        """r = F / E."""
        return self.ffn_width / self.width

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of its choices, by name; those that follow from the others are left out."""
        if not self.depth:
            return {"width": self.width, "ffn_width": self.ffn_width, "depth": 0}
        following = self._following
        return {
            name: value
            for name in CHOICES
            if (value := getattr(self, name)) is not None and not (name in following and value == following[name])
        }

    def __str__(self) -> str:
        """width/ffn_width x depth, then what does not follow from these: 576/1536x1 heads 9 kv 3."""
        said = self.to_dict()
        shape = f"{self.width}/{self.ffn_width}x{self.depth}"
        words = (f"{word} {_said(said[name])}" for word, name in _WORDS.items() if name in said)
        return " ".join((shape, *words)) if self.depth else shape


@lru_cache(maxsize=1 << 16)
def choice_values(block: Block) -> tuple[Any, ...]:
    """The values of `Block.choices`, in the order of `CHOICES`."""
    if not block.depth:
        return tuple(getattr(block, name) if name in EMPTY_CHOICES else None for name in CHOICES)
    following = block._following
    values = ((name, getattr(block, name)) for name in CHOICES)
    return tuple(None if name in following and value == following[name] else value for name, value in values)


_WORDS = {
    "heads": "heads",
    "kv": "kv_heads",
    "size": "head_size",
    "value_size": "value_head_size",
    "gated": "gated",
    "shared": "shared",
    "bits": "bits",
}
"""Word in the text of a block -> name of the choice."""


_TIMES, _MOST_SINGLE, _MOST_BLOCKS = "times", 8, 1_000
"""The word before how many equal blocks follow one another, how many are written one by one, and how many a text may have."""


def _said(value: Any) -> str:
    """A value as the text of a block has it."""
    return ("yes" if value else "no") if isinstance(value, bool) else np.format_float_positional(value, trim="-")


def settled(block: Block, setting: Setting) -> Block:
    """The block as an architecture holds it: what it says of gate and sharing is left out or said, as `Block` says it of itself.

    A gate is said where the family has one, and sharing where it is not that of the setting, so that equal blocks are equal.
    """
    of_family = family_of(setting.family).gated and block.depth > 0
    gated = block.gated if (of_family or block.gated) else None
    gated = True if gated is None and of_family else gated
    shared = None if block.shared == setting.shared else block.shared
    if (gated, shared) == (block.gated, block.shared):
        return block
    return replace(block, gated=gated, shared=shared)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A block-wise decoder-only transformer.

    Tokens enter `embedding_width` wide, pass the blocks in order and leave through the output head. Neighbours of unequal width
    are joined, by a bias-free linear map or by padding: embedding to first block, block to block, last block to head.

    Attributes:
        blocks: the blocks, input first; at least one has a layer.
        shared: True: the layers inside a block are one set of weights (ALBERT-style); False: each has its own. A block may say
            otherwise.
        embedding_width: width of the token embedding and of the output head; 768 for `merino`, else that of the first block,
            unless stated.
        vocabulary: number of tokens (GPT-2's 50,257 by default).
        positions: the longest sequence; learned positions are a table of so many rows, and the family's further ones.
        family: what the layers leave open, one of `formulation.family.FAMILIES`.
        tied: whether the output head is the token embedding; as the family has it unless stated.
        joints: "linear": a map joins unequal neighbours; "pad": zeros behind the narrower, and nothing of what the wider has more,
            without parameters.

    Raises:
        ValueError: for blocks that are none, for no layer, for widths or joints that the family cannot have, and for an unknown
            family.
    """

    blocks: tuple[Block, ...]
    shared: bool = True
    embedding_width: int = None  # type: ignore[assignment]  # replaced by a number below
    vocabulary: int = 50257
    positions: int = 2048
    family: str = "merino"
    tied: bool = None  # type: ignore[assignment]  # replaced by True or False below
    joints: str = field(default=JOINTS[0], metadata={SAYS_NOTHING: JOINTS[0]})

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
        check_setting(self, self.blocks[0].width)
        check_widths(self, self.widths)
        object.__setattr__(self, "blocks", tuple(settled(block, self) for block in self.blocks))

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
    def unequal_neighbours(self) -> Iterator[tuple[int, int]]:
        """(left, right) of every pair of neighbours of unequal width, embedding and head included: what is joined."""
        chain = (self.embedding_width, *self.widths, self.embedding_width)
        return ((left, right) for left, right in pairwise(chain) if left != right)

    @property
    def by_layer(self) -> Architecture:
        """The same network with one block for each layer; ValueError where layers share their weights."""
        if any(block.depth > 1 and (self.shared if block.shared is None else block.shared) for block in self.blocks):
            raise ValueError(f"the design {self} has layers that share their weights; expected layers with weights of their own")
        blocks = (replace(block, depth=1) for block in self.blocks for _ in range(block.depth))
        return replace(self, blocks=tuple(blocks))

    def __str__(self) -> str:
        plain = (block if block.gated is not family_of(self.family).gated else replace(block, gated=None) for block in self.blocks)
        texts = [str(block) for block in plain]
        if len(texts) > _MOST_SINGLE:  # equal neighbours of long designs are written once
            runs = ((text, len(list(run))) for text, run in groupby(texts))
            texts = [text + (f" {_TIMES} {count}" if count > 1 else "") for text, count in runs]
        return " ".join(texts) + ("" if self.shared else " unshared")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: format, version, blocks and what surrounds them."""
        return {
            "format": _FORMAT,
            "version": VERSION,
            "blocks": [block.to_dict() for block in self.blocks],
            **said_of(self),
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
_LAYERS = re.compile(r"([0-9]{1,9})x([0-9]{1,9})/([0-9]{1,9})")


def read_blocks(text: str) -> tuple[Block, ...]:
    """The blocks that `str` of an architecture writes; ValueError for any other text.

    Each is width/ffn_width x depth, or depth x width/ffn_width, followed by what does not follow from these, as word and value:
    heads, kv (key/value heads), size (of a head), value_size, gated, shared (yes or no), bits; times: how many such blocks follow
    one another. "512/512x2 640/960x1"; "32x960/2560 heads 15 kv 5".
    """
    wrong = ValueError(
        f"the blocks are {text[:100]!r}; expected width/ffn_widthxdepth, one after another, such as '512/512x2 640/960x1', each "
        f"with words such as 'heads 9 kv 3' after it (known: {', '.join((*_WORDS, _TIMES))})"
    )
    found: list[dict[str, Any]] = []
    words = iter(text.split())
    for word in words:
        if match := _BLOCK.fullmatch(word):
            found.append(dict(zip(("width", "ffn_width", "depth"), map(int, match.groups()), strict=True)))
        elif match := _LAYERS.fullmatch(word):
            found.append(dict(zip(("depth", "width", "ffn_width"), map(int, match.groups()), strict=True)))
        elif found and (name := {**_WORDS, _TIMES: _TIMES}.get(word)) is not None and name not in found[-1]:
            found[-1][name] = _read_word(next(words, ""), wrong)
        else:
            raise wrong
    counts = [whole_number(_TIMES, block.pop(_TIMES, 1), 1) for block in found]
    if not 1 <= sum(counts) <= _MOST_BLOCKS:
        raise wrong
    return tuple(Block(**block) for block, count in zip(found, counts, strict=True) for _ in range(count))


def _read_word(text: str, wrong: ValueError) -> int | float | bool:
    """yes, no or a number."""
    if text in ("yes", "no"):
        return text == "yes"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", text):
        raise wrong
    return float(text) if "." in text else int(text)


def positive_number(name: str, value: Any) -> float:
    """`value` as a float; ValueError if it is not a finite number above 0."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; expected a finite number above 0")
    return float(value)
