"""Networks whose layers differ: parameters, FLOPs, cache and weights of random designs of every family are what the costs say.

Everything that may differ from block to block does: widths, feed-forward widths, depths (0 too), heads, key/value heads, head sizes
of keys and values, gates, sharing; joined by maps and by padding.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from formulation import FAMILIES, Architecture, Block
from formulation.architecture import JOINTS
from hardware_models import CacheMemory, Flops, Params, WeightMemory
from hardware_models.kernels import maps_of, torch_maps
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.configuration_merino import NOT_BUILT
from merino_net.network.counting import forward_flops
from tests.merino_net.test_families import shown
from tests.slow import slow

KINDS = [
    (name, joints) for name, family in FAMILIES.items() if name not in NOT_BUILT for joints in JOINTS[: 2 if family.joints else 1]
]
SEED = 22


def random_block(family: str, source: random.Random, width: int) -> Block:
    """A block of which everything is decided at random; heads are even where positions turn pairs."""
    kv_heads = source.randint(1, 3)
    sizes = range(1, 20) if FAMILIES[family].learned_positions else range(2, 20, 2)
    return Block(
        width,
        source.randint(1, 90),
        source.randint(0, 3),
        heads=kv_heads * source.randint(1, 3),
        kv_heads=kv_heads,
        head_size=source.choice(sizes),
        value_head_size=source.choice([None, source.randint(1, 20)]),
        gated=source.choice([None, True, False]),
        shared=source.choice([None, True, False]),
    )


def random_design(family: str, joints: str, source: random.Random) -> Architecture:
    """A design of one to five blocks; of one width where the family has one, the embedding's too where it joins none."""
    rules, widths = FAMILIES[family], [source.randint(1, 80) for _ in range(source.randint(1, 5))]
    if rules.one_width:
        widths = widths[:1] * len(widths)
    blocks = [random_block(family, source, width) for width in widths]
    if not any(block.depth for block in blocks):
        blocks.append(Block(widths[-1], 8, 1, heads=1, head_size=4))
    return Architecture(
        tuple(blocks),
        shared=source.random() < 0.5,
        embedding_width=source.randint(1, 90) if rules.joints else widths[0],
        vocabulary=source.randint(2, 300),
        positions=source.randint(20, 60),
        family=family,
        tied=source.random() < 0.5,
        joints=joints,
    )


def designs(family: str, joints: str, number: int) -> Iterator[tuple[Architecture, random.Random]]:
    """Random designs, the same each time, each with the source of what else is random."""
    for one in range(number):
        source = random.Random(f"{SEED} {family} {joints} {one}")
        yield random_design(family, joints, source), source


@pytest.mark.parametrize(("family", "joints", "number"), [*((*kind, 8) for kind in KINDS), *slow((*kind, 38) for kind in KINDS)])
def test_costs_of_unequal_layers_are_what_the_network_has(family: str, joints: str, number: int) -> None:
    for design, source in designs(family, joints, number):
        config = MerinoConfig.from_architecture(design)
        assert config.to_architecture() == design
        dtype = source.choice([torch.float32, torch.bfloat16])
        bits, tokens, batch = 8 * dtype.itemsize, source.randint(1, 20), source.randint(1, 3)
        model = MerinoForCausalLM(config).to(dtype).eval()
        stored = {each.data_ptr(): each.nbytes for each in model.state_dict().values()}
        cache = DynamicCache(config=config)
        read = torch.zeros(batch, tokens, dtype=torch.long)
        with torch.inference_mode():
            maps = torch_maps(lambda: model(read, past_key_values=cache))  # noqa: B023  (called at once)
        layers: list[Any] = cache.layers
        with shown(design):
            assert Params()(design) == sum(each.numel() for each in model.parameters())
            assert WeightMemory(bits)(design) == sum(stored.values())
            assert CacheMemory(tokens, batch, bits)(design) == sum(own.keys.nbytes + own.values.nbytes for own in layers)
            assert Flops(tokens, head=True)(design) == forward_flops(config, tokens)
            assert Flops(tokens)(design) == forward_flops(config, tokens, head=False)
            assert maps_of(design) == sum(maps.values())
            assert len(layers) == config.num_hidden_layers
