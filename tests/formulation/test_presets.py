"""Published models by name, and the spaces around two of them.

Their counts against transformers: tests/merino_net/test_families.py.
"""

from __future__ import annotations

import pytest

from formulation.presets import LAYER_SPACES, PRESETS, edge_space, layers_space
from formulation.problem_file import SPACES, read_one_space, read_space
from hardware_models import CacheMemory, Flops, Params


def test_shapes_of_published_models() -> None:
    assert {name: str(design) for name, design in PRESETS.items()} == {
        "smollm2-135m": "576/1536x30 kv 3 unshared",
        "smollm2-360m": "960/2560x32 kv 5 unshared",
        "qwen3-0.6b": "1024/3072x28 heads 16 kv 8 size 128 unshared",
        "qwen2.5-0.5b": "896/4864x24 kv 2 unshared",
        "tinyllama-1.1b": "2048/5632x22 kv 4 unshared",
        "llama-3.2-1b": "2048/8192x16 kv 8 unshared",
        "gpt2": "768/3072x12 unshared",
        "opt-125m": "768/3072x12 unshared",
        "opt-350m": "1024/4096x24 unshared",
        "pythia-70m": "512/2048x6 unshared",
    }
    assert [name for name, design in PRESETS.items() if not design.tied] == ["tinyllama-1.1b", "pythia-70m"]
    assert PRESETS["opt-350m"].embedding_width == 512


def test_smollm2_135m_layer_by_layer() -> None:
    space = read_space("smollm2-135m-layers")
    assert (space.blocks, space.family, space.embedding_width, space.vocabulary, space.tied) == (30, "llama", 576, 49_152, True)
    (menu,) = {*space.menus}
    assert menu.axes["ffn_width"] == tuple(range(384, 2305, 192))
    shapes = {(block.head_size, block.heads, block.kv_heads) for block in menu.items}
    assert shapes == {(size, number * 64 // size, kv) for size in (64, 32) for number in (3, 6, 9, 12) for kv in (1, 3)}
    assert {block.width for block in menu.items} == {576}
    assert {block.depth for block in menu.items} == {1}
    assert len(menu) == 11 * 16
    assert space.size == (11 * 16) ** 30


def test_smollm2_360m_layer_by_layer() -> None:
    space = read_space("smollm2-360m-layers")
    (menu,) = {*space.menus}
    assert (space.blocks, len(menu), space.embedding_width) == (32, 11 * 16, 960)
    assert menu.axes["ffn_width"] == tuple(range(640, 3841, 320))
    shapes = {(block.head_size, block.heads, block.kv_heads) for block in menu.items}
    assert shapes == {(size, number * 64 // size, kv) for size in (64, 32) for number in (5, 10, 15, 20) for kv in (1, 5)}


def test_edge_layers() -> None:
    space = read_space("edge-layers")
    assert [part.embedding_width for part in space.parts] == [128, 192, 256, 320, 384, 448, 512]
    assert {(part.blocks, part.family, part.vocabulary, part.shared, part.tied) for part in space.parts} == {
        (16, "llama", 4096, False, True)
    }
    shapes = {(block.heads, block.kv_heads, block.head_size) for block in space.parts[0].menus[0].items if block.depth}
    assert shapes == {(heads, kv, 64) for heads in (2, 4, 8) for kv in (1, 2, 4) if kv <= heads}
    gates = {block.gated for part in edge_space((False, True)).parts for menu in part.menus for block in part.blocks_of(menu)}
    assert gates == {False, None, True}
    with pytest.raises(ValueError, match="the space edge-layers holds a union of 7 spaces; expected a single one here"):
        read_one_space("edge-layers")


@pytest.mark.parametrize("name", LAYER_SPACES)
def test_the_published_model_is_a_design_of_its_space(name: str) -> None:
    space, preset = SPACES[name](), PRESETS[name.partition("-layers")[0]]
    design = preset.by_layer
    assert space.decode(space.encode(design)) == design
    for cost in (Params(), Flops(), CacheMemory(8192, bits=16)):
        assert cost(design) == cost(preset)


@pytest.mark.parametrize("name", ["smollm2-135m", "smollm2-360m"])
def test_a_layer_may_be_left_out_where_the_name_says_depth(name: str) -> None:
    always, maybe = (SPACES[f"{name}-layers{suffix}"]() for suffix in ("", "-depth"))
    assert maybe == layers_space(name, (0, 1))
    (menu,) = {*maybe.menus}
    left_out = [block for block in menu.items if not block.depth]
    assert len(left_out) == 1
    assert {*menu.items} - {*left_out} == {*always.menus[0].items}
    assert maybe.size == len(menu) ** maybe.blocks - 1, "all layers left out is no design"


@pytest.mark.parametrize("name", ["tinyllama-1.1b", "qwen3-0.6b"])
def test_a_model_with_a_layer_of_another_kind_has_no_such_space(name: str) -> None:
    with pytest.raises(ValueError, match=f"the layer of {name}, .*, is not one of 3k heads of size 64"):
        layers_space(name)
