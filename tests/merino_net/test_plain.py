"""Networks of ours in transformers' own classes and back: the same logits, the same architecture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

from formulation import Architecture, Block
from formulation.model_file import in_terms_of, plain_architecture
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.plain import architecture_of, own_form, plain_form

AROUND: dict[str, Any] = {"vocabulary": 90, "positions": 24}
GROUPED = Block(96, 80, 1, heads=4, kv_heads=2, head_size=32)
FULL = Block(96, 80, 1, head_size=32)
SIXTEEN = Block(64, 80, 2, head_size=16)

PLAIN = {
    "LlamaForCausalLM": Architecture((GROUPED,) * 3, family="llama", **AROUND),
    "LlamaForCausalLM, tied": Architecture((GROUPED, GROUPED), family="llama", tied=True, **AROUND),
    "Qwen2ForCausalLM": Architecture((GROUPED,) * 2, family="qwen2", **AROUND),
    "Qwen3ForCausalLM": Architecture((Block(96, 80, 2, heads=4, kv_heads=2, head_size=64),), False, family="qwen3", **AROUND),
    "GPT2LMHeadModel": Architecture((FULL,) * 2, family="gpt2", **AROUND),
    "OPTForCausalLM": Architecture((SIXTEEN,), False, family="opt", embedding_width=48, **AROUND),
    "OPTForCausalLM, merino": Architecture((SIXTEEN,), False, embedding_width=48, **AROUND),
    "OPTForCausalLM, heads of 32": Architecture((FULL,) * 2, embedding_width=96, **AROUND),
}
OURS = {
    "unequal layers": Architecture((GROUPED, Block(96, 96, 1, heads=4, kv_heads=2, head_size=32)), family="llama", **AROUND),
    "shared layers": Architecture((SIXTEEN,), **AROUND),
    "an empty block of another width": Architecture((FULL, Block(64, 64, 0)), **AROUND),
    "grouped heads in merino": Architecture((GROUPED,), **AROUND),
    "values of another size": Architecture(
        (Block(96, 80, 1, heads=3, head_size=32, value_head_size=16),), family="llama", **AROUND
    ),
    "a width that heads do not divide": Architecture((Block(96, 80, 1, heads=5, head_size=32),), family="llama", **AROUND),
}


def network(design: Architecture, **options: Any) -> MerinoForCausalLM:
    """A network whose biases and norms are not what they start with."""
    torch.manual_seed(0)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_logits(name: str) -> None:
    design = PLAIN[name]
    model = network(design, rope_theta=5000.0, eos_token_id=3, pad_token_id=1)
    plain = plain_form(model)
    assert plain is not None
    assert type(plain).__name__ == name.partition(",")[0]
    assert (plain.config.eos_token_id, plain.config.pad_token_id, plain.generation_config.pad_token_id) == (3, 1, 1)
    tokens = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        ours, theirs, again = (one(tokens).logits for one in (model, plain, own_form(plain)))
    if name.endswith("heads of 32"):  # 1/√32 is no power of two, and OPT scales the queries before the product
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    else:
        assert torch.equal(theirs, ours)
    assert torch.equal(again, ours)
    assert architecture_of(plain.config) == plain_architecture(design)
    assert in_terms_of(design, architecture_of(plain.config) or design) == design


@pytest.mark.parametrize("name", OURS)
def test_what_stays_ours(name: str) -> None:
    assert plain_architecture(OURS[name]) is None
    assert plain_form(network(OURS[name])) is None


def test_what_the_classes_of_opt_lack() -> None:
    design = PLAIN["OPTForCausalLM, merino"]
    assert plain_form(network(design, layer_norm_eps=1e-6)) is None
    assert plain_form(network(replace(design, joints="pad"))) is None


def test_another_family_is_none_of_ours() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, is_decoder=True
    )
    model = BertLMHeadModel(config)
    assert architecture_of(config) is None
    assert plain_form(model) is None
    with pytest.raises(ValueError, match="the network is a bert; expected merino or llama, qwen2, qwen3, opt, gpt2"):
        own_form(model)
