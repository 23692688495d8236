"""Which designs the proxy study trains: a scaled-down space, a uniform sample of it, and strata in which one cost is equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from formulation import Architecture, Quantity, SearchSpace
from hardware_models import Flops, Params

UNIFORM, EQUAL_FLOPS, EQUAL_PARAMS = "uniform", "equal FLOPs", "equal parameters"
WITHIN = 0.01
"""How far a cost in its stratum may lie from the stratum's, relative."""
_MEDIAN_OF = 1001
"""Designs drawn for the median cost, which the strata are put at."""
_MOST_DRAWS = 2_000_000


def scaled_space(vocabulary: int, seq_len: int) -> SearchSpace:
    """The paper's space with widths that two cores can train: N = 4, E ∈ {64, 128, 192, 256}, r ∈ {1, 1.5, 2}, L ∈ 1…3.

    229,635 designs of 0.3 to 2.3 million parameters (vocabulary 1,024), embedding 128.
    """
    return SearchSpace.uniform(
        4, (64, 128, 192, 256), (1, 1.5, 2), (1, 2, 3), embedding_width=128, vocabulary=vocabulary, positions=seq_len
    )


def sampled(space: SearchSpace, designs: int, stratum: int, seq_len: int, seed: int) -> dict[str, list[Architecture]]:
    """Distinct designs by group: `designs` drawn uniformly, and `stratum` each of equal FLOPs and of equal parameters.

    A stratum holds designs, drawn uniformly from those within 1 % of the space's median cost. Groups may share designs. Fewer
    designs begin the lists of more. Raises ValueError if the space has not so many.
    """
    median = [space.decode(choices) for choices in space.sample(np.random.default_rng(seed), _MEDIAN_OF)]
    groups = {UNIFORM: _first(_drawn(space, seed + 1), designs, UNIFORM)}
    costs: dict[str, Quantity] = {EQUAL_FLOPS: Flops(seq_len), EQUAL_PARAMS: Params()}
    for number, (name, cost) in enumerate(costs.items(), start=2):
        centre = float(np.median([cost(design) for design in median]))
        near = (design for design in _drawn(space, seed + number) if abs(cost(design) / centre - 1) <= WITHIN)
        groups[name] = _first(near, stratum, name)
    return groups


def _drawn(space: SearchSpace, seed: int) -> Iterator[Architecture]:
    generator = np.random.default_rng(seed)
    for _ in range(_MOST_DRAWS // 1000):
        yield from map(space.decode, space.sample(generator, 1000))


def _first(designs: Iterator[Architecture], count: int, group: str) -> list[Architecture]:
    """The first `count` distinct ones."""
    found: dict[Architecture, None] = {}
    while len(found) < count:
        design = next(designs, None)
        if design is None:
            raise ValueError(
                f"{_MOST_DRAWS:,} draws gave {len(found)} designs of the group {group!r}; expected {count}, ask for fewer"
            )
        found[design] = None
    return list(found)
