"""A layer as data: the list itself, what is read off it, and that nothing else knows the layer's formula."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    BlockwiseEntropy,
    EffectiveEntropy,
    Group,
    LinearMap,
    Norm,
    layer_of,
    stored_layers,
)
from formulation.layer import final_norm, joint_map, learned_positions, make_layer, surroundings
from formulation.spectral import closed_form_entropy
from hardware_models import CacheMemory, DecoderParams, Flops, Params, Workload
from hardware_models.kernels import maps_of
from hardware_models.workload import FEATURES

ROOT = Path(__file__).resolve().parent.parent.parent
DESIGN = Architecture((Block(128, 320, 3), Block(256, 64, 1)), embedding_width=192, vocabulary=1000, positions=50)
LAYER = layer_of(DESIGN.blocks[0], DESIGN)


def test_the_list_of_a_block() -> None:
    one = "query_key_value"
    assert LAYER.maps == (
        LinearMap("query", Group.ATTENTION, 128, 128, True, one),
        LinearMap("key", Group.ATTENTION, 128, 128, True, one),
        LinearMap("value", Group.ATTENTION, 128, 128, True, one),
        LinearMap("output", Group.ATTENTION, 128, 128, True, "output"),
        LinearMap("up", Group.FFN, 128, 320, True, "up"),
        LinearMap("down", Group.FFN, 320, 128, True, "down"),
    )
    assert LAYER.norms == (Norm("attention_norm", 128, True), Norm("ffn_norm", 128, True))
    assert [(each.name, each.inputs, each.outputs) for each in LAYER.matrices] == [
        (one, 128, 384),
        ("output", 128, 128),
        ("up", 128, 320),
        ("down", 320, 128),
    ]
    assert (LAYER.width, LAYER.ffn_width, LAYER.heads, LAYER.kv_heads, LAYER.head_size) == (128, 320, 2, 2, 64)
    assert LAYER.cache_width == 256


def test_sums_over_the_list() -> None:
    assert LAYER["up"].parameters == 128 * 320 + 320
    assert LAYER[LAYER["key"].matrix].parameters == 3 * (128 * 128 + 128)
    assert (LAYER.attention_weights, LAYER.ffn_weights) == (4 * 128**2, 2 * 128 * 320)
    assert LAYER.parameters == 4 * 128**2 + 2 * 128 * 320 + 9 * 128 + 320
    assert LAYER.flops(10, 7) == 2 * 10 * LAYER.weights + LAYER.score_flops(10, 7)
    assert LAYER.score_flops(10, 7) == 4 * 10 * 7 * 128


@pytest.mark.parametrize(("shared", "stored"), [(True, [1, 1]), (False, [3, 1])])
def test_sharing_saves_what_is_stored(shared: bool, stored: list[int]) -> None:
    design = Architecture(DESIGN.blocks, shared, 192, 1000, 50)
    assert [stored_layers(block, design) for block in design.blocks] == stored


def test_what_stands_around_the_blocks() -> None:
    around = surroundings(DESIGN)
    assert around.parameters == 1000 * 192
    positions, norm = learned_positions(128, DESIGN), final_norm(256, DESIGN)
    assert positions is not None
    assert norm is not None
    assert (positions.rows, positions.width, positions.parameters) == (52, 128, 52 * 128)
    assert (norm.width, norm.bias, norm.parameters) == (256, True, 2 * 256)
    assert (around.head.weights, around.head.bias, around.head.matrix) == (1000 * 192, False, around.tokens.name)
    assert joint_map(128, 256, DESIGN).parameters == 128 * 256


@pytest.mark.parametrize("design", [DESIGN, Architecture(DESIGN.blocks, False, 192, 1000, 50), *PUBLISHED.values()], ids=str)
def test_costs_and_entropies_are_sums_over_the_list(design: Architecture) -> None:
    layers = [(block, layer_of(block, design)) for block in design.blocks]
    maps = [(block, each) for block, layer in layers for each in layer.maps]
    joints = [joint_map(left, right, design) for left, right in design.unequal_neighbours]
    stored = [stored_layers(block, design) * each.parameters for block, layer in layers for each in (*layer.maps, *layer.norms)]
    assert DecoderParams()(design) == sum(stored) + sum(each.parameters for each in joints)
    ends = learned_positions(design.widths[0], design), final_norm(design.widths[-1], design)
    around = surroundings(design).parameters + sum(each.parameters for each in ends if each is not None)
    assert Params()(design) == DecoderParams()(design) + around
    applied = sum(2 * 9 * block.depth * each.weights for block, each in maps) + sum(2 * 9 * each.weights for each in joints)
    scores = sum(block.depth * 4 * 9 * 9 * layer.heads * layer.head_size for block, layer in layers)
    assert Flops(9)(design) == applied + scores
    assert CacheMemory(9)(design) == sum(block.depth * 2 * layer.kv_heads * layer.head_size * 9 * 4 for block, layer in layers)
    assert maps_of(design) == sum(block.depth * len(layer.matrices) for block, layer in layers) + len(joints) + 1
    for group, feature in ((Group.ATTENTION, "attention_maps"), (Group.FFN, "ffn_maps")):
        own = [(block, each) for block, each in maps if each.group is group]
        work = sum(FEATURES[feature].block(block, design, Workload(seq_len=9)) for block in design.blocks)
        assert work == pytest.approx(sum(2 * 9 * block.depth * each.weights for block, each in own) / 1e9, rel=1e-12)
        entropy = sum(block.depth * closed_form_entropy(each.outputs, each.inputs, 0.01) for block, each in own)
        for objective, part in ((EffectiveEntropy(), 3), (BlockwiseEntropy(), 1)):
            assert objective.parts[part + (group is Group.FFN)](design) == pytest.approx(entropy, rel=1e-12)


def test_arrays_of_sizes_are_many_layers_at_once() -> None:
    widths, ffn_widths = np.array([128, 256]), np.array([320, 64])
    many = make_layer(widths, ffn_widths, widths // 64)
    each = [layer_of(block, DESIGN) for block in DESIGN.blocks]
    assert many.parameters.tolist() == [layer.parameters for layer in each]  # type: ignore[attr-defined]
    assert many.flops(5, 3).tolist() == [layer.flops(5, 3) for layer in each]  # type: ignore[attr-defined]
    wide = make_layer(128, 320, 8)
    assert (wide["query"].weights, wide["output"].inputs, wide.heads, wide.width) == (128 * 512, 512, 8, 128)


def test_no_other_file_multiplies_widths() -> None:
    formula = re.compile(r"\b(ffn_)?width\)? ?(\*\* ?2|\* ?\(?(\w+\.)*(ffn_)?width\b)|[2-9] ?\* ?\w*\.?heads?\b")
    alone = {
        "formulation/layer.py",
        "hardware_models/profile_standalone.py",
    }  # the latter is copied to devices that have nothing else
    found = [
        f"{name}:{number}: {line.strip()}"
        for package in ("formulation", "solvers", "hardware_models", "merino_net", "studies", "docs", "notebooks")
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in (".py", ".md", ".ipynb") and (name := path.relative_to(ROOT).as_posix()) not in alone
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "image/png" not in line and formula.search(line)
    ]
    assert not found, "read the sums of formulation.layer instead:\n" + "\n".join(found)
