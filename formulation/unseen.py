"""Which open decisions of a space a quantity does not see: asked of its terms, not of a list of names.

An objective that does not see the vocabulary answers with the one that leaves most of the budgets, which says nothing of its worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement, product

import numpy as np

from formulation.architecture import CHOICES, SETTING
from formulation.menu import Menu
from formulation.quantity import Composite, Quantity, Separable
from formulation.space import SearchSpace
from formulation.table import Table, tabulate
from formulation.union import SpaceUnion

_NAMED = tuple(dict.fromkeys((*CHOICES, "ffn_ratio", *SETTING)))
"""The decisions that have a name by which people know them, as the options of a score table do not."""
_SAME = 1e-12
"""Relative difference of terms that is put down to the order of floating-point sums."""


def unseen(quantity: Quantity, space: SearchSpace | SpaceUnion) -> tuple[str, ...]:
    """The decisions that a space leaves open and that make no difference to a quantity, by name; see `CHOICES` and `SETTING`.

    Of a block: an axis of a menu such that items which differ in that choice alone have equal terms, in every part of the quantity.
    Of the whole network: a fact around the blocks in which spaces of a union differ, such that spaces which differ in it have equal
    terms, unless spaces that differ in it alone have others.

    Args:
        quantity: a separable or composite one; of a black box, which cannot be asked without designs, nothing is unseen.
        space: the designs in question.
    """
    if not isinstance(quantity, Separable | Composite):
        return ()
    quantities = tuple(quantity.parts) if isinstance(quantity, Composite) else (quantity,)
    tables = [tabulate(quantities, part) for part in space.parts]
    found = [*(pair for table in tables for pair in _of_blocks(table)), *_of_network(tables)]
    seen = {name for name, differs in found if differs}
    return tuple(name for name in _NAMED if name not in seen and (name, False) in found)


def _of_blocks(table: Table) -> Iterator[tuple[str, bool]]:
    """Open choices of blocks, each with whether it makes a difference."""
    for block, menu in enumerate(table.space.menus):
        for name, entries in menu.axes.items():
            if name in _NAMED and len(entries) > 1 and len(menu) > 1:
                items = _differing_alone(menu, name)
                if len(items):
                    yield name, _makes_difference(table, block, items)


def _differing_alone(menu: Menu, name: str) -> np.ndarray:
    """Pairs of items (n, 2) that differ in one choice alone, enough to join all that do; as in `Menu.variants`.

    What means nothing in one of the two, such as sharing in a single layer, makes no difference.
    """
    own, others = menu.places[name], [places for axis, places in menu.places.items() if axis != name]
    places = np.column_stack([*others, np.zeros(len(menu), dtype=np.intp)])
    meaning = places >= 0
    kinds = [np.flatnonzero((own >= 0) & (meaning == kind).all(axis=1)) for kind in np.unique(meaning[own >= 0], axis=0)]
    found = [np.empty((0, 2), dtype=np.intp)]
    for one, other in combinations_with_replacement(kinds, 2):
        common = meaning[one[0]] & meaning[other[0]]
        groups: dict[bytes, tuple[list[int], list[int]]] = {}
        for side, items in enumerate((one, other)):
            for item in items.tolist():
                groups.setdefault(places[item, common].tobytes(), ([], []))[side].append(item)
        # Among items of one kind, to compare each with the first will do.
        several = (product(left[:1] if one is other else left, right) for left, right in groups.values())
        pairs = np.array([pair for group in several for pair in group], dtype=np.intp).reshape(-1, 2)
        found.append(pairs[own[pairs[:, 0]] != own[pairs[:, 1]]])
    return np.concatenate(found)


def _makes_difference(table: Table, block: int, items: np.ndarray) -> bool:
    """Whether some pair of items (n, 2) of a block has different terms, those of its joints included."""
    left, right = items.T
    if not _equal(table.blocks[block][:, left], table.blocks[block][:, right]):
        return True
    one, other = (table.space.state_of[block][own] for own in (left, right))
    before = [table.joints[block - 1][:, :, own] for own in (one, other)] if block else []
    after = [table.joints[block][:, own] for own in (one, other)] if block < table.space.blocks - 1 else []
    return not all(_equal(*pair) for pair in (before, after) if pair)


def _of_network(tables: list[Table]) -> Iterator[tuple[str, bool]]:
    """Facts around the blocks in which spaces of a union differ, each with whether it makes a difference."""
    for one, other in combinations(tables, 2):
        if one.space.menus != other.space.menus:
            continue
        differing = [name for name in SETTING if getattr(one.space, name) != getattr(other.space, name)]
        equal = _equal(one.fixed, other.fixed) and all(
            _equal(*pair)
            for own, theirs in ((one.blocks, other.blocks), (one.joints, other.joints))
            for pair in zip(own, theirs, strict=True)
            if pair[0].shape == pair[1].shape
        )
        if equal or len(differing) == 1:
            yield from ((name, not equal) for name in differing)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=_SAME, atol=0.0))
