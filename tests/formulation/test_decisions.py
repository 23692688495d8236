"""Decisions inside a layer: heads, groups, head sizes, gates, sharing, bits, and the families that say the rest."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import (
    FAMILIES,
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Menu,
    SearchSpace,
    closed_form_entropy,
    layer_of,
)
from formulation.architecture import read_blocks, settled
from formulation.fingerprint import fingerprint
from formulation.layer import final_norm, learned_positions, surroundings
from formulation.union import decided
from hardware_models import CacheMemory, DecoderParams, Flops, Memory, Params
from hardware_models.workload import Workload, feature_matrix
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Exhaustive, GeneticAlgorithm, Limits, Status, solve

FFN = (768, 1152, 1536)
MENU = Menu(widths=(576,), heads=(3, 6, 9), kv_heads=(1, 3), ffn_widths=FFN, gated=(True,))
SMALL_HEADS = Menu((576,), ffn_widths=FFN, heads=(6, 12), kv_heads=(1, 2), head_sizes=(32,), gated=(True,))


def llama(blocks: int, menu: Menu = MENU, **options: Any) -> SearchSpace:
    return SearchSpace((menu,) * blocks, family="llama", vocabulary=1000, tied=True, **options)


def test_items_are_what_is_valid() -> None:
    menu = Menu((576, 640), ffn_widths=(768,), heads=(4, 6), kv_heads=(2, 3), head_sizes=(32, 64), depths=(0, 1))
    valid = [(h, k) for h, k in itertools.product((4, 6), (2, 3)) if h % k == 0]
    assert valid == [(4, 2), (6, 2), (6, 3)]
    layered = [
        Block(width, 768, 1, heads, kv_heads, size) for width in (576, 640) for heads, kv_heads in valid for size in (32, 64)
    ]
    assert {block for block in menu.items if block.depth} == set(layered)
    assert len(menu) == len(layered) + 2
    assert [block.width for block in menu.items if not block.depth] == [576, 640]
    assert all(menu.find(block) == number for number, block in enumerate(menu.items))


def test_without_stated_heads_the_head_size_divides_the_width() -> None:
    menu = Menu((576, 640), (1,), head_sizes=(48, 64))
    assert [(block.width, block.head_size, block.heads) for block in menu.items] == [(576, 48, 12), (576, 64, 9), (640, 64, 10)]


def test_a_union_of_menus_has_the_items_of_each_once() -> None:
    both = Menu(**{**vars_of(MENU), "also": (SMALL_HEADS, MENU)})
    assert set(both.items) == {*MENU.items, *SMALL_HEADS.items}
    assert len(both) == len(MENU) + len(SMALL_HEADS)
    assert both.axes["heads"] == (3, 6, 9, 12)
    assert both.axes["head_size"] == (32, 64)
    assert both.axes["kv_heads"] == (1, 2, 3)
    for block, choice in zip(both.items, both.choice_of, strict=True):
        assert choice == {name: getattr(block, name) for name in both.axes}
    mixed = Menu((512,), (1.0, 2.0), also=(Menu((512,), ffn_widths=(700,)),))
    assert mixed.axes == {"width": (512,), "ffn_width": (512, 700, 1024), "depth": (1,)}


def vars_of(menu: Menu) -> dict[str, Any]:
    return {name: getattr(menu, name) for name in menu.__dataclass_fields__}


def test_the_item_at_places_is_the_nearest_where_none_is() -> None:
    menu = Menu((576,), ffn_widths=(768,), heads=(4, 9), kv_heads=(2, 3))
    assert {(block.heads, block.kv_heads) for block in menu.items} == {(4, 2), (9, 3)}
    for heads, kv_heads in itertools.product(range(2), repeat=2):
        item = menu.items[menu.at({"width": 0, "ffn_width": 0, "depth": 0, "heads": heads, "kv_heads": kv_heads})]
        assert heads != kv_heads or (item.heads, item.kv_heads) == ((4, 2), (9, 3))[heads]


def test_multiples_leave_items_out() -> None:
    menu = Menu((512,), ffn_widths=(544, 560, 576), heads=(3, 4), kv_heads=(1,), head_sizes=(40, 64), input_multiple=32)
    kept = {(block.ffn_width, block.heads, block.head_size) for block in menu.items}
    # 3 · 40 = 120 and 560 are no multiples of 32; 4 · 40, 3 · 64 and 4 · 64 are.
    assert kept == {(f, h, d) for f in (544, 576) for h, d in ((4, 40), (3, 64), (4, 64))}
    both = Menu(**{**vars_of(menu), "output_multiple": 64})
    assert {(block.ffn_width, block.head_size) for block in both.items} == {(576, 64)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Menu((576,)), "needs ffn_ratios or ffn_widths; got none"),
        (lambda: Menu((576,), (1,), ffn_widths=(768,)), "needs ffn_ratios or ffn_widths; got both"),
        (lambda: Menu((576,), (1,), heads=(4, 6), kv_heads=(5,)), "no combination of .* makes a block"),
        (lambda: Menu((576,), (1,), heads=(4, 6), kv_heads=(1, 5)), "kv_heads 5 is in no valid combination"),
        (lambda: Menu((100, 576), (1,), head_sizes=(32, 64)), "width 100 is in no valid combination"),
        (lambda: Menu((100,), (1,)), "100, which 64 .* use 64 or 128, or state the heads"),
        (lambda: Menu((576,), (1,), gated=(1,)), "an entry of gated is 1; expected True or False"),
        (lambda: Menu((576,), (1,), bits=(0,)), "an entry of bits is 0"),
        (lambda: Menu((576,), (1,), also=((576,),)), "also is .*; expected menus"),
        (lambda: Block(576, 768, 1, 9, 2), "kv_heads is 2, which does not divide the 9 heads"),
        (lambda: Block(100, 768, 1), "100, which 64 "),
        (lambda: Block(576, 768, 1, gated="yes"), "block gated is 'yes'"),
        (lambda: llama(2, Menu((512, 576), (1,))), "the family llama has one residual width: keep one"),
        (lambda: llama(2, Menu((512, 576), (1,)), embedding_width=512), "the family llama has one residual width"),
        (lambda: llama(2, embedding_width=512), "the embedding is 512 wide and the blocks 576; the family llama has no map"),
        (lambda: Architecture((Block(576, 768, 1),), family="lama"), "unknown family 'lama'; did you mean 'llama'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_equal_blocks_are_equal() -> None:
    plain = Block(512, 1024, 2)
    assert plain == Block(512, 1024, 2, heads=8, kv_heads=8, head_size=64, value_head_size=64)
    assert Block(512, 1024, 1, shared=False) == Block(512, 1024, 1)
    assert Block(512, 1024, 0, heads=3, head_size=7, gated=True, bits=4) == Block(512, 1024, 0)
    assert Architecture((Block(512, 1024, 2, gated=False, shared=True),)).blocks == (plain,)
    (of_llama,) = Architecture((plain,), family="llama").blocks
    assert of_llama.gated is True
    assert Architecture((Block(512, 1024, 2, gated=False),), family="llama").blocks[0].gated is False
    assert Architecture((plain,), family="llama").embedding_width == 512
    assert Architecture((plain,)).embedding_width == 768


BLOCKS = st.builds(
    lambda heads, groups, **rest: Block(heads=heads * groups, kv_heads=heads, **rest),
    heads=st.integers(1, 8),
    groups=st.integers(1, 4),
    width=st.integers(1, 2000),
    ffn_width=st.integers(1, 9000),
    depth=st.integers(0, 40),
    head_size=st.sampled_from((16, 48, 64, 128)),
    value_head_size=st.sampled_from((None, 32, 64)),
    gated=st.sampled_from((None, True, False)),
    shared=st.sampled_from((None, True, False)),
    bits=st.sampled_from((None, 4, 4.5, 4.0078125, 8, 1e7, 1e-7)),
)


@given(st.lists(BLOCKS, min_size=1, max_size=4), st.sampled_from(["merino", "llama"]), st.booleans())
def test_text_and_json_give_the_design_back(blocks: list[Block], family: str, shared: bool) -> None:
    if not any(block.depth for block in blocks):
        return
    if family == "llama":
        blocks = blocks[:1] if blocks[0].depth else [Block(64, 64, 1)]
    design = Architecture(tuple(blocks), shared, family=family)
    text = str(design).removesuffix(" unshared")
    many = Architecture(tuple(blocks) * 9, shared, family=family)
    assert Architecture(read_blocks(str(many).removesuffix(" unshared")), shared, family=family) == many
    assert Architecture(read_blocks(text), shared, family=family) == design
    assert Architecture.from_json(design.to_json()) == design
    assert all(settled(block, design) == block for block in design.blocks)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "heads 4 512/512x1",
        "512/512x1 heads",
        "512/512x1 heads yes.",
        "512/512x1 heads 8 heads 8",
        "512/512x1 hat 3",
        "5x4",
        "1/1x1 times 1001",
    ],
)
def test_other_texts_are_no_blocks(text: str) -> None:
    with pytest.raises(ValueError, match="expected width/ffn_widthxdepth"):
        read_blocks(text)


def test_both_orders_of_a_text_are_read() -> None:
    assert read_blocks("32x960/2560 heads 15 kv 5") == (Block(960, 2560, 32, 15, 5),)
    assert read_blocks("512/640x2 gated yes 640/640x1 bits 8") == (Block(512, 640, 2, gated=True), Block(640, 640, 1, bits=8))


def test_equal_blocks_of_long_designs_are_written_once() -> None:
    design = Architecture((Block(576, 768, 1, 9, 3),) * 8 + (Block(576, 768, 1),), family="llama")
    assert str(design) == "576/768x1 kv 3 times 8 576/768x1"
    assert str(Architecture(design.blocks[:8], family="llama")) == " ".join(["576/768x1 kv 3"] * 8)


def test_one_block_a_layer_is_the_same_network() -> None:
    design = Architecture((Block(576, 1536, 3, 9, 3), Block(576, 768, 2)), False, family="llama", tied=True)
    by_layer = design.by_layer
    assert [block.depth for block in by_layer.blocks] == [1] * 5
    for quantity in (Params(), Flops(128), CacheMemory(), EffectiveEntropy()):
        assert quantity(by_layer) == pytest.approx(quantity(design), rel=1e-12)
    with pytest.raises(ValueError, match="share their weights"):
        _ = Architecture((Block(576, 1536, 3),)).by_layer


def test_costs_of_a_grouped_gated_layer_by_hand() -> None:
    design = Architecture((Block(576, 1536, 30, 9, 3),), False, vocabulary=49_152, family="llama", tied=True)
    layer = 576 * 576 + 2 * 576 * 192 + 576 * 576 + 3 * 576 * 1536 + 2 * 576
    assert Params()(design) == 49_152 * 576 + 30 * layer + 576 == 134_515_008
    matrices = layer - 2 * 576
    assert Flops(100)(design) == 30 * (2 * 100 * matrices + 4 * 100 * 100 * 576)
    assert CacheMemory(100, bits=16)(design) == 30 * 2 * 192 * 100 * 2
    entropy = EffectiveEntropy(effectiveness=False, weighting=False)
    expected = 2 * closed_form_entropy(576, 576, 0.01) + 2 * closed_form_entropy(192, 576, 0.01)
    expected += 3 * closed_form_entropy(1536, 576, 0.01)
    assert entropy(design) == pytest.approx(30 * expected, rel=1e-12)


def test_values_may_have_a_head_size_of_their_own() -> None:
    block = Block(608, 1376, 1, 8, 4, 48, 16)
    layer = layer_of(block, Architecture((block,), family="llama"))
    assert (layer.query_width, layer.value_width, layer.cache_width) == (8 * 48, 8 * 16, 4 * (48 + 16))
    assert layer.flops(10, 20) == 2 * 10 * layer.weights + 2 * 10 * 20 * (8 * 48 + 8 * 16)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_family_says_what_the_maps_leave_open(family: Any) -> None:
    design = Architecture((Block(128, 256, 1),), vocabulary=10, positions=5, family=family.name, embedding_width=128)
    layer = layer_of(design.blocks[0], design)
    assert [each.name for each in layer.maps if each.bias] == [name for name in family.biases if name != "gate" or layer.gated]
    assert layer.gated is family.gated
    assert [norm.parameters for norm in layer.norms[:2]] == [128 * (1 + family.norm_bias)] * 2
    assert [norm.width for norm in layer.norms[2:]] == ([64, 64] if family.head_norms else [])
    positions, norm = learned_positions(128, design), final_norm(128, design)
    assert (positions is None) is not family.learned_positions
    assert positions is None or positions.rows == 5 + family.extra_positions
    assert (norm is None) is not family.final_norm
    assert surroundings(design).parameters == 10 * 128 * (1 if family.tied else 2)


def test_heuristics_and_exact_methods_find_the_best_layers() -> None:
    menu = Menu(**{**vars_of(MENU), "also": (SMALL_HEADS,), "depths": (0, 1)})
    space = llama(2, menu)
    costs = [Params()(design) for design in space]
    upper = float(np.quantile(costs, 0.4))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Params(), upper),))
    best = max(EffectiveEntropy()(design) for design, cost in zip(space, costs, strict=True) if cost <= upper)
    for solver in (DynamicProgramming(), Exhaustive()):
        solution = solve(problem, solver, Limits(seconds=60))
        assert solution.status is Status.OPTIMAL
        assert solution.objective == pytest.approx(best, rel=1e-9)
    for heuristic in (EvolutionaryAlgorithm(), GeneticAlgorithm()):
        found = solve(problem, heuristic, Limits(seconds=20, evaluations=4000))
        assert found.objective == pytest.approx(best, rel=1e-9)


def test_a_space_survives_json() -> None:
    menu = Menu(**{**vars_of(MENU), "also": (SMALL_HEADS,), "shared": (True, False), "depths": (1, 2), "bits": (4, 8)})
    space = llama(3, menu, shared=False)
    assert SearchSpace.from_dict(space.to_dict()) == space
    record = {"blocks": 2, "widths": [576], "ffn_widths": [768], "shared": [True, False], "depths": [2], "family": "llama"}
    assert SearchSpace.from_dict(record).menus[0].shared == (False, True)
    assert SearchSpace.from_dict(record | {"shared": False}).shared is False
    assert SearchSpace.uniform(2, (576,), ffn_widths=(768,), depths=(2,), shared=(True, False), family="llama").size == 4


PADDED = Architecture((Block(64, 96, 2), Block(128, 64, 1)), embedding_width=96, vocabulary=50, positions=16, joints="pad")


def test_a_padded_joint_costs_neither_parameters_nor_work() -> None:
    linear = replace(PADDED, joints="linear")
    entries = 96 * 64 + 64 * 128 + 128 * 96
    assert Params()(linear) - Params()(PADDED) == DecoderParams()(linear) - DecoderParams()(PADDED) == entries
    assert Flops(7)(linear) - Flops(7)(PADDED) == 2 * 7 * entries
    assert Memory(seq_len=16)(linear) - Memory(seq_len=16)(PADDED) == 4 * entries
    [of_linear], [of_padded] = (
        feature_matrix([one], Workload(seq_len=7), ("joint", "joint_maps", "maps")) for one in (linear, PADDED)
    )
    assert of_linear - of_padded == pytest.approx([3, 2 * 7 * entries / 1e9, 2 * 7 * entries / 1e9])
    assert of_padded[0] == 0


def test_joints_are_written_where_they_are_not_maps() -> None:
    linear = replace(PADDED, joints="linear")
    assert PADDED.to_dict()["joints"] == "pad"
    assert "joints" not in linear.to_dict()
    assert Architecture.from_json(PADDED.to_json()) == PADDED != linear == Architecture.from_json(linear.to_json())
    space = SearchSpace((Menu((64,), (1,)), Menu((128,), (1,))), joints="pad")
    assert SearchSpace.from_dict(space.to_dict()) == space != replace(space, joints="linear")
    assert fingerprint(space) != fingerprint(replace(space, joints="linear"))
    assert space.decode((0, 0)).joints == "pad"
    with pytest.raises(ValueError, match="the design's joints is linear; this space has pad"):
        space.encode(replace(space.decode((0, 0)), joints="linear"))
    assert [part.joints for part in decided(space, joints=("linear", "pad")).parts] == ["linear", "pad"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_family_of_one_width_has_no_joints(family: str) -> None:
    with pytest.raises(ValueError, match=f"joints is 'pad'; the family {family} has one width and nothing to join"):
        Architecture((Block(64, 96, 2),), family=family, joints="pad")
    with pytest.raises(ValueError, match="unknown joints 'glue'"):
        Architecture((Block(64, 96, 2),), joints="glue")
