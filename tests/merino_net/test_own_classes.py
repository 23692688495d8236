"""The network against transformers' own classes: the same weights give the same logits, layer by layer where layers differ."""

from __future__ import annotations

import ast
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from formulation import Architecture, Block
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network import configuration_merino
from merino_net.network.configuration_merino import CODE
from merino_net.network.plain import own_form, plain_form
from tests.merino_net.test_families import GROUPED, config_of, random_design

FAMILIES = ("gpt2", "opt", *GROUPED)
FINAL_NORM = {"gpt2": "ln_f", "opt": "decoder.final_layer_norm", "llama": "norm", "qwen2": "norm", "qwen3": "norm"}


def randomized(model: Any) -> Any:
    """The model with every weight, bias and norm at random, so that each of them matters."""
    draw = torch.Generator().manual_seed(5)
    for name, weight in sorted(model.named_parameters()):
        values = torch.randn(weight.shape, generator=draw)
        weight.data.copy_(values * (weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.3) + ("norm" in name and weight.ndim == 1))
    return model.eval()


def some_tokens(vocabulary: int) -> torch.Tensor:
    return torch.randint(0, vocabulary, (2, 13), generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_alike_layers_compute_what_the_class_does(family: str, dtype: torch.dtype, attention: str) -> None:
    for number in range(3):
        design = random_design(family, random.Random(f"{family} {number}"), largest=16)
        theirs = randomized(AutoModelForCausalLM.from_config(config_of(design), dtype=dtype, attn_implementation=attention))
        ours, tokens = own_form(theirs), some_tokens(design.vocabulary)
        assert ours.config.to_architecture() == design
        expected, logits = theirs(tokens).logits, ours(tokens).logits
        if family in ("gpt2", "opt"):  # maps of transposed matrices, and queries scaled before the product, may round otherwise
            assert (logits - expected).norm() < (1e-6 if dtype == torch.float32 else 0.02) * expected.norm()
        else:
            assert torch.equal(logits, expected)


def unequal(family: str) -> Architecture:
    """Layers that differ in all that a class of transformers may be, shared and not."""
    if family in GROUPED:
        blocks = (
            Block(24, 40, 2, heads=4, kv_heads=2, head_size=8, shared=True),
            Block(24, 64, 2, heads=2, kv_heads=1, head_size=16),
            Block(24, 8, 0),
            Block(24, 17, 1, heads=3, head_size=10),
        )
    else:
        blocks = (Block(24, 40, 2, heads=3, head_size=8, shared=True), Block(24, 64, 2, heads=2, head_size=12), Block(24, 8, 0))
    return Architecture(blocks, False, 24, vocabulary=50, positions=32, family=family, tied=True)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_unequal_layers_compute_what_one_class_after_the_other_does(family: str) -> None:
    design = unequal(family)
    model = randomized(MerinoForCausalLM(MerinoConfig.from_architecture(design)))
    tokens = some_tokens(50)
    x = model.model.tokens(tokens)
    applied = 0
    for block, own in zip(design.blocks, model.model.blocks, strict=True):
        for i in range(block.depth):
            alone = MerinoForCausalLM(MerinoConfig.from_architecture(replace(design, blocks=(replace(block, depth=1),)))).eval()
            alone.model.blocks[0].layers[0].load_state_dict(own.layers[i % len(own.layers)].state_dict())
            if model.model.positions is not None:  # they are added once, before the first layer
                alone.model.positions.weight.copy_(model.model.positions.weight * (not applied))
            theirs: Any = plain_form(alone)
            theirs.base_model.set_submodule(FINAL_NORM[family], nn.Identity())
            x = theirs.base_model(inputs_embeds=x, use_cache=False).last_hidden_state
            applied += 1
    expected = model.lm_head(model.model.norm(x))
    assert applied == model.config.num_hidden_layers
    torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CODE)
def test_the_files_of_a_folder_import_torch_and_transformers_alone(name: str) -> None:
    """What else is imported may be missing: it stands in a `try` or, of the checkpoint's loader, comes with transformers."""
    tree = ast.parse(Path(configuration_merino.__file__).with_name(name).read_text(encoding="utf-8"))
    optional = {node for each in ast.walk(tree) if isinstance(each, ast.Try) for node in ast.walk(each)}
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in optional:
            roots |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node not in optional and not node.level:
            roots.add(str(node.module).split(".")[0])
    assert roots - sys.stdlib_module_names <= {"torch", "transformers", "huggingface_hub", "safetensors"}
