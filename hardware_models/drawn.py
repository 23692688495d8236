"""Networks to measure, drawn from the spaces that a user designs in: a few shapes each, widths and depths all over the range.

Drawn item by item, deep designs would all be alike: each is near the mean of its menus. So a network has one to three shapes here,
one after another, and as many layers as are drawn on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from formulation import Architecture, Block, SearchSpace, SpaceUnion
from formulation.architecture import SETTING, Setting, read_blocks, said_of
from formulation.family import family_of

_UNSHARED = " unshared"
_SHAPES = 3
_ATTEMPTS = 100


def networks_of(space: SearchSpace | SpaceUnion, count: int, seed: int = 0) -> list[Architecture]:
    """`count` different designs of a space, or of each part of a union in turn; fewer are the beginning of more.

    Blocks without layers are left out, and equal neighbours whose layers share nothing are one block.

    Raises:
        ValueError: for a union whose parts differ in more than widths and menus, which no one table holds, and for a space that has
            no so many designs.
    """
    parts = space.parts
    if differing := [name for name in SETTING if name != "embedding_width" and len({getattr(part, name) for part in parts}) > 1]:
        raise ValueError(
            f"the spaces differ in {' and '.join(differing)}; expected one of each, as the tables of a device file have one "
            "surrounding: measure one space at a time, each under a --name of its own"
        )
    draw = np.random.default_rng(seed)
    stride = next(step for step in range(len(parts) // 2 + 1, len(parts) + 2) if math.gcd(step, len(parts)) == 1)
    networks: dict[Architecture, None] = {}
    tries = 0
    while len(networks) < count:
        part = parts[stride * len(networks) % len(parts)]
        ends = {0: 0.0, 1: 1.0}  # the shallowest and the deepest first, so that no design of the space lies beyond
        share = ends.get(len(networks), draw.random())
        networks.setdefault(_merged(_drawn(part, 1 + len(networks) % _SHAPES, share, draw)))
        tries += 1
        if tries > _ATTEMPTS * count:
            raise ValueError(f"the space has no {count} different designs; widen it, or ask for fewer --networks")
    return list(networks)


def _drawn(space: SearchSpace, shapes: int, share: float, draw: np.random.Generator) -> Architecture:
    """A design of so many shapes at most; one drawn item by item where the rules of the space leave none of these.

    Args:
        space: that it is of.
        shapes: how many.
        share: 0 for the fewest blocks with layers, 1 for the most; between them on a logarithmic scale.
        draw: the generator.
    """
    must = sum(0 not in menu.all_depths for menu in space.menus)
    most, least = sum(menu.all_depths[-1] > 0 for menu in space.menus), max(must, 1)
    full_blocks = round(math.exp(math.log(least) + share * math.log(most / least)))
    for _ in range(_ATTEMPTS):
        palette, optional = draw.random(shapes), full_blocks - must
        cuts = np.sort(draw.integers(1, full_blocks + 1, shapes - 1))
        choices = []
        for position, menu in enumerate(space.menus):
            blocks = space.blocks_of(menu)
            full = [item for item, block in enumerate(blocks) if block.depth]
            empty = [item for item, block in enumerate(blocks) if not block.depth]
            if empty and (not full or optional <= 0):
                choices.append(empty[0])
                continue
            optional -= bool(empty)
            choices.append(full[int(palette[np.searchsorted(cuts, position, side="right")] * len(full))])
        try:
            design = space.decode(choices)
        except ValueError:
            continue
        if design in space:
            return design
    return space.decode(space.sample(draw, 1)[0])


def _merged(design: Architecture) -> Architecture:
    """The same network without blocks that are left out, and equal neighbours as one block where layers share nothing."""
    blocks = tuple(block for block in design.blocks if block.depth or not family_of(design.family).one_width)
    if not design.shared and not any(block.shared for block in blocks):
        runs = [(alike, sum(block.depth for block in own)) for alike, own in groupby(blocks, _alike)]
        blocks = tuple(replace(block, depth=depth) for block, depth in runs)
    return replace(design, blocks=blocks)


def _alike(block: Block) -> Block:
    return replace(block, depth=min(block.depth, 1))


def setting_of(settings: Sequence[Setting]) -> dict[str, Any]:
    """What stands around the blocks of all these designs or spaces, by name; no embedding width where it is that of the blocks."""
    first = settings[0]
    own_width = not family_of(first.family).joints
    said = {name: value for name, value in said_of(first).items() if name != "shared"}
    return {name: value for name, value in said.items() if not (own_width and name == "embedding_width")}


def drawn_design(text: str, setting: Mapping[str, Any]) -> Architecture:
    """The design that `str` wrote, in the setting that `setting_of` told; ValueError for any other text."""
    return Architecture(read_blocks(text.removesuffix(_UNSHARED)), not text.endswith(_UNSHARED), **setting)
