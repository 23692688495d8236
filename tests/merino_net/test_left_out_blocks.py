"""Networks with blocks that are left out: counted, trained and generating as the formulas and the network without them say."""

from __future__ import annotations

import copy

import pytest
import torch

from formulation import Architecture, Block
from hardware_models import ActivationMemory, CacheMemory, DecoderParams, Flops, Params, WeightMemory
from hardware_models.workload import FEATURES, Workload
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.counting import forward_flops, parameter_count

SURROUNDED = {"embedding_width": 96, "vocabulary": 120, "positions": 32}
DESIGNS = [
    Architecture((Block(64, 96, 2), Block(128, 50, 0), Block(128, 64, 1)), shared, **SURROUNDED) for shared in (True, False)
] + [
    Architecture((Block(64, 7, 0), Block(64, 96, 2)), **SURROUNDED),
    Architecture((Block(64, 96, 1), Block(192, 192, 0)), shared=False, **SURROUNDED),
]


def network(design: Architecture) -> MerinoForCausalLM:
    torch.manual_seed(0)
    return MerinoForCausalLM(MerinoConfig.from_architecture(design, initializer_range=0.1)).eval()


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_costs_count_what_is_there(design: Architecture) -> None:
    model = network(design)
    assert parameter_count(model) == Params()(design) == WeightMemory(8)(design)
    assert forward_flops(model.config, 9, True) == Flops(9, True)(design)
    cache = model(torch.zeros((1, 5), dtype=torch.long), use_cache=True).past_key_values
    assert sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values)) == CacheMemory(5)(design)
    assert MerinoConfig.from_architecture(design).to_architecture() == design


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_a_left_out_block_costs_nothing_but_its_joints(design: Architecture) -> None:
    for number, block in enumerate(design.blocks):
        if block.depth:
            continue
        for quantity in (DecoderParams(), DecoderParams(unrolled=True), Flops(9), CacheMemory(9), WeightMemory()):
            assert quantity.block_at(number, block, design) == 0
        for name, feature in FEATURES.items():
            assert feature.block(block, design, Workload(seq_len=9)) == 0, name
        # It holds no more than the stream, which is there anyway.
        assert ActivationMemory(9).block(block, design) == 8 * 9 + 4 * 9 * block.width


def test_it_hands_on_what_it_is_given() -> None:
    with_it = Architecture((Block(64, 96, 2), Block(64, 8, 0), Block(64, 64, 1)), **SURROUNDED)
    without = Architecture((Block(64, 96, 2), Block(64, 64, 1)), **SURROUNDED)
    model, plain = network(with_it), network(without)
    names = {"model.blocks.2.": "model.blocks.1.", "model.joints.3.": "model.joints.2."}
    state = {}
    for name, tensor in model.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    plain.load_state_dict(state)
    tokens = torch.arange(20).reshape(2, 10)
    torch.testing.assert_close(model(tokens).logits, plain(tokens).logits, rtol=0, atol=0)
    generated = [each.generate(tokens, max_new_tokens=8, do_sample=False, eos_token_id=None) for each in (model, plain)]
    assert torch.equal(*generated)


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_it_trains(design: Architecture) -> None:
    model = network(design).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.arange(24).reshape(2, 12)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        losses.append(loss.item())
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
