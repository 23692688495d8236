"""A union of search spaces: decisions of the whole network, such as its vocabulary or family, as one space for each answer.

`solvers.solve` searches the parts with one proof. Which part a design is of is told by its setting and blocks: no two share any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np

from formulation.architecture import JOINTS, SETTING, Architecture
from formulation.derived import Agreement
from formulation.family import family_of
from formulation.menu import Choices
from formulation.records.reading import shown
from formulation.space import SearchSpace

_FEW = 3
"""Entries of a menu's axis that tell a part of a union from the others in its name."""


class SeveralSpaces(AttributeError, ValueError):
    """Something that reads one space was given a union of several."""


@dataclass(frozen=True)
class SpaceUnion:
    """All designs of some spaces, which may differ in anything: vocabulary, family, menus, number of blocks.

    It is the `space` of a `DesignProblem` like any other. What reads one space, such as a table of costs or a program, takes
    `DesignProblem.parts` one at a time, and says so.

    Attributes:
        parts: the spaces, two at least; unions among them are replaced by their parts.

    Raises:
        ValueError: for fewer than two spaces, and for two that share a design.
    """

    parts: tuple[SearchSpace, ...]

    def __post_init__(self) -> None:
        given = tuple(self.parts) if isinstance(self.parts, tuple | list) else ()
        if not given or not all(isinstance(part, SearchSpace | SpaceUnion) for part in given):
            raise ValueError(f"parts is {self.parts!r}; expected search spaces, such as (paper_space(), paper_space(shared=False))")
        object.__setattr__(self, "parts", tuple(part for each in given for part in each.parts))
        if len(self.parts) == 1:
            raise ValueError("the union has a single space; expected two or more, or the space itself")
        for (i, one), (j, other) in combinations(enumerate(self.parts, start=1), 2):
            if (design := _common_design(one, other)) is not None:
                raise ValueError(f"parts {i} and {j} of the union share the design {design}; expected parts that share none")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and (hasattr(SearchSpace, name) or name in SearchSpace.__dataclass_fields__):
            raise SeveralSpaces(
                f"the space is a union of {len(self.parts)}, of which {name} is not known as a whole; take its parts one at a "
                "time (problem.parts), or ask solve, which proves over all of them"
            )
        raise AttributeError(f"'SpaceUnion' object has no attribute {shown(name)}")

    @property
    def size(self) -> int:
        """Exact number of designs."""
        return sum(part.size for part in self.parts)

    @property
    def decisions(self) -> int:
        """Number of decisions in a design: those of the part that has the most, and of the setting those in which parts differ."""
        return max(part.decisions for part in self.parts) + len(self.differing)

    @property
    def most_blocks(self) -> int:
        """Blocks of the designs that have the most."""
        return max(part.blocks for part in self.parts)

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """The facts around the blocks, of `SETTING`, in which parts differ."""
        return tuple(name for name in SETTING if len({getattr(part, name) for part in self.parts}) > 1)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What tells each part from the others: vocabulary 4096, shared yes; its menus or a number where the setting does not."""
        said = [[f"{name.replace('_', ' ')} {_said(getattr(part, name))}" for name in self.differing] for part in self.parts]
        if len(set(map(tuple, said))) < len(said):
            said = [[*facts, *choices] for facts, choices in zip(said, self._differing_choices, strict=True)]
        if len(set(map(tuple, said))) < len(said):
            said = [[f"part {number}", *facts] for number, facts in enumerate(said, start=1)]
        return tuple(", ".join(facts) for facts in said)

    @property
    def _differing_choices(self) -> list[list[str]]:
        """For each part the entries of its menus on the axes in which parts differ and have few."""
        axes: list[dict[str, set[Any]]] = [{} for _ in self.parts]
        for own, part in zip(axes, self.parts, strict=True):
            for menu in dict.fromkeys(part.menus):
                for name, entries in menu.axes.items():
                    own.setdefault(name, set()).update(entries)
        names = [name for name in axes[0] if all(own.get(name) != axes[0][name] for own in axes[1:])]
        names = [name for name in names if all(len(own.get(name, ())) <= _FEW for own in axes)]
        return [[f"{name.replace('_', ' ')} {_listed(own.get(name, ()))}" for name in names] for own in axes]

    def label_of(self, architecture: Architecture) -> str:
        """The label of the part that a design is of; ValueError if it is of none."""
        return self.labels[self.parts.index(self.part_of(architecture))]

    def part_of(self, architecture: Architecture) -> SearchSpace:
        """The part that holds a design; ValueError that says why the nearest part does not."""
        for part in self.parts:
            if architecture in part:
                return part
        nearest = max(
            range(len(self.parts)),
            key=lambda i: (
                len(architecture.blocks) == self.parts[i].blocks,
                sum(getattr(architecture, name) == getattr(self.parts[i], name) for name in SETTING),
            ),
        )
        try:
            self.parts[nearest].encode(architecture)
        except ValueError as error:
            raise ValueError(
                f"none of the {len(self.parts)} spaces of the union holds the design; of {self.labels[nearest]}: {error}"
            ) from None
        raise AssertionError

    def __contains__(self, architecture: Architecture) -> bool:
        return any(architecture in part for part in self.parts)

    def encode(self, architecture: Architecture) -> Choices:
        """The item numbers of a design in the part that holds it; ValueError if none does."""
        return self.part_of(architecture).encode(architecture)

    def __iter__(self) -> Iterator[Architecture]:
        """Every design, part by part."""
        for part in self.parts:
            yield from part

    @property
    def design_head(self) -> str:
        """What heads a column of designs."""
        return self.parts[0].design_head

    @property
    def decision(self) -> str:
        """What a decision is called."""
        return self.parts[0].decision

    def agreement(self, design: Architecture) -> Agreement:
        """See `LayeredSpace.agreement`: designs of different parts may be compared."""
        return self.parts[0].agreement(design)

    def words(self, design: Architecture, beside: Architecture | None = None) -> str:
        """See `LayeredSpace.words`, with what tells its part from the others."""
        return f"{self.part_of(design).words(design, beside)}; {self.label_of(design)}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object {"union": [...]}; ValueError if a part has a rule for steps, which is code."""
        return {"union": [part.to_dict() for part in self.parts]}


def united(spaces: Iterable[SearchSpace]) -> SearchSpace | SpaceUnion:
    """The union of some spaces, each taken once; the space itself where there is one."""
    parts = tuple(dict.fromkeys(spaces))
    return parts[0] if len(parts) == 1 else SpaceUnion(parts)


def decided(space: SearchSpace | SpaceUnion, **decisions: Sequence[Any]) -> SearchSpace | SpaceUnion:
    """The union of a space over decisions of the whole network: a space for each combination of their entries.

    The embedding width of a new family is its own, unless decided; so is whether the head is tied, unless the space says otherwise
    than its family; and a family that has no joints forgets them. Where a family has one residual width and the menus have several,
    there is a space for each width.

    Args:
        space: what is decided already.
        decisions: names of `SETTING`, each with its entries, such as vocabulary=(4096, 8192).

    Raises:
        ValueError: for a combination that makes no space.
    """
    spaces: list[SearchSpace] = []
    for part, entries in product(space.parts, product(*decisions.values())):
        facts = dict(zip(decisions, entries, strict=True))
        if facts.get("family", part.family) != part.family:
            as_family = part.tied is family_of(part.family).tied
            joints = part.joints if family_of(facts["family"]).joints else JOINTS[0]
            facts = {"embedding_width": None, "tied": None if as_family else part.tied, "joints": joints} | facts
        spaces += _one_width_each(part, facts)
    return united(spaces)


def _one_width_each(part: SearchSpace, facts: dict[str, Any]) -> list[SearchSpace]:
    """A space with other facts around its blocks; several, one for each residual width, where its family has just one."""
    widths = sorted({block.width for menu in part.menus for block in menu.items})
    if len(widths) == 1 or not family_of(facts.get("family", part.family)).one_width:
        return [replace(part, **facts)]
    spaces, wrong = [], None
    for width in widths:
        menus = [found for menu in part.menus if (found := menu.within({"width": (width,)})) is not None]
        if len(menus) == part.blocks:
            try:
                spaces.append(replace(part, menus=tuple(menus), **facts))
            except ValueError as error:  # an embedding of another width, in a family that joins none
                wrong = error
    if not spaces:
        family = facts.get("family", part.family)
        raise ValueError(
            f"no design of the space is of the family {family}, which has one residual width: {wrong or 'the menus share no width'}"
        )
    return spaces


def _listed(entries: Iterable[Any]) -> str:
    return " or ".join(_said(entry) for entry in sorted(entries)) or "as it follows"


def _said(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _common_design(one: SearchSpace, other: SearchSpace) -> Architecture | None:
    """A design of both spaces, None if there isn't one: a path through pairs of their states, with a layer on the way."""
    if one.blocks != other.blocks or any(getattr(one, name) != getattr(other, name) for name in SETTING):
        return None
    paths: dict[tuple[int, int, bool], Choices] = {(-1, -1, False): ()}
    for block in range(one.blocks):
        reached: dict[tuple[int, int, bool], Choices] = {}
        items: dict[tuple[int, int, bool], int] = {}
        for own, theirs in one.shared_items(other, block):
            key = (int(one.state_of[block][own]), int(other.state_of[block][theirs]), bool(one.menus[block].layers[own]))
            items.setdefault(key, own)
        for (a, b, layered), path in paths.items():
            for (c, d, layer), item in items.items():
                if not block or (_allowed(one.steps[block - 1], a, c) and _allowed(other.steps[block - 1], b, d)):
                    reached.setdefault((c, d, layered or layer), (*path, item))
        paths = reached
    return next((one.decode(path) for (_, _, layered), path in paths.items() if layered), None)


def _allowed(step: np.ndarray, left: int, right: int) -> bool:
    return bool(step[left, right])
