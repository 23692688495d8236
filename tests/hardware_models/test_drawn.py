"""Networks to measure: designs of their space, spread over it, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from formulation import SearchSpace, SpaceUnion, paper_space
from formulation.presets import edge_space
from hardware_models import Validated
from hardware_models.drawn import drawn_design, networks_of, setting_of


def test_drawn_networks_span_their_spaces() -> None:
    space = edge_space()
    networks = networks_of(space, 40)
    assert networks[:20] == networks_of(space, 20)
    assert networks != networks_of(space, 40, seed=1)
    assert len(set(networks)) == 40
    whole = [Validated.of_space(part) for part in space.parts]
    for part in (networks, networks[:20]):
        seen = Validated.of(part)
        assert seen.widths == (128, 512)
        assert seen.ffn_widths == (128, 1536)
        assert seen.layers == (1, 16)
        assert (seen.heads, seen.kv_heads) == (whole[0].heads, whole[0].kv_heads)
        assert not any(seen.leaves_out(design, design.blocks, [sum(design.depths)]) for design in networks)
    assert {len(design.blocks) for design in networks} == {1, 2, 3}
    menu = {replace(block, depth=1) for block in space.parts[0].blocks_of(space.parts[0].menus[0]) if block.depth}
    assert {replace(block, depth=1) for design in networks if design.widths[0] == 128 for block in design.blocks} <= menu


def test_networks_of_one_space_are_designs_of_it() -> None:
    space = paper_space()
    networks = networks_of(space, 30)
    assert all(design in space for design in networks)
    totals = [sum(design.depths) for design in networks]
    assert max(totals) > 2 * min(totals)


def test_designs_are_read_back_in_their_setting() -> None:
    for space in (edge_space(), paper_space(), paper_space(shared=False)):
        networks = networks_of(space, 12)
        setting = setting_of(space.parts)
        assert setting == setting_of(networks)
        assert [drawn_design(str(design), setting) for design in networks] == networks
    assert setting_of(edge_space().parts) == {"vocabulary": 4096, "positions": 2048, "family": "llama", "tied": True}


def test_spaces_that_cannot_be_measured_together() -> None:
    parts = SpaceUnion((paper_space(), replace(paper_space(), vocabulary=4096)))
    with pytest.raises(ValueError, match="the spaces differ in vocabulary; expected one of each"):
        networks_of(parts, 20)
    with pytest.raises(ValueError, match="the space has no 20 different designs; widen it, or ask for fewer --networks"):
        networks_of(SearchSpace.uniform(1, (64, 128), (1, 2), (1, 2)), 20)
