"""The network against a forward pass in NumPy, written from what the documentation says a design is.

A bias-free map joins unequal neighbours, from the token vectors on. Position vectors as wide as the first block are added behind
the first map; that of position p is row p + 2. Each block applies its `depth` layers in turn, one set of weights where they are
shared: x + attention(norm(x)), then x + feed-forward(norm(x)). Attention is causal, h query heads of size d attend to k key/value
heads, h/k neighbours to one, and scores are divided by √d. The feed-forward network is down(act(up)), or down(act(gate)·up). A
final norm as wide as the last block, the last map, and the embedding itself as the head.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from formulation import Architecture, Block
from merino_net import MerinoConfig, MerinoForCausalLM

EPSILON = 1e-2
"""Of every norm: not the default, so that it must come from the configuration."""
_ERF = np.vectorize(math.erf, otypes=[float])
ACTIVATIONS = {
    "gelu": lambda x: x * (1 + _ERF(x / math.sqrt(2))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}
DESIGNS = {
    "one block": Architecture((Block(64, 48, 1),), embedding_width=64, vocabulary=50, positions=16),
    "shared, unequal widths": Architecture(
        (Block(64, 96, 2), Block(128, 64, 3), Block(128, 200, 1)), embedding_width=96, vocabulary=50, positions=16
    ),
    "unshared, unequal widths": Architecture(
        (Block(128, 96, 3), Block(64, 64, 2)), shared=False, embedding_width=96, vocabulary=50, positions=16
    ),
    "grouped queries, head sizes, gates, sharing by block": Architecture(
        (
            Block(96, 64, 2, heads=6, kv_heads=2, head_size=16, gated=True),
            Block(64, 96, 2, heads=4, kv_heads=1, head_size=8, value_head_size=24, shared=False),
            Block(80, 48, 1, heads=3, head_size=32, value_head_size=16),
        ),
        embedding_width=64,
        vocabulary=50,
        positions=16,
    ),
    "unshared, no joint": Architecture(
        (Block(128, 96, 1), Block(128, 64, 4)), shared=False, embedding_width=128, vocabulary=50, positions=16
    ),
}


def network(design: Architecture, **options: object) -> MerinoForCausalLM:
    """The network in double precision, with every weight, bias and norm at random so that each of them matters."""
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design, layer_norm_eps=EPSILON, **options)).double()
    draw = torch.Generator().manual_seed(3)
    for name, weight in sorted(model.named_parameters()):
        values = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
        with torch.no_grad():
            weight.copy_(values * (2 * weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.5) + ("norm.weight" in name))
    return model.eval()


def norm(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def kept(x: np.ndarray, dropout: float) -> np.ndarray:
    """What the stand-in for dropout multiplies an array by: 1 − p and 1 in turns along the last axis."""
    return 1 - dropout * (np.arange(x.shape[-1]) % 2)


def logits(model: MerinoForCausalLM, tokens: np.ndarray, dropout: float = 0.0, of_attention: float = 0.0) -> np.ndarray:
    """Logits (B, T, V) of tokens (B, T); dropout and that of attention weights as `tame_dropout` has them."""
    design = model.config.to_architecture()
    activation = ACTIVATIONS[model.config.hidden_act]
    weights = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    steps = tokens.shape[1]
    future = np.triu(np.ones((steps, steps), dtype=bool), 1)
    x = weights["model.tokens.weight"][tokens]
    before = design.embedding_width
    for number, block in enumerate(design.blocks):
        if before != block.width:
            x = x @ weights[f"model.joints.{number}.weight"].T
        before = block.width
        if number == 0:
            x = x + weights["model.positions.weight"][2 : steps + 2]
            x = x * kept(x, dropout)
        shared = design.shared if block.shared is None else block.shared
        for application in range(block.depth):
            layer = f"model.blocks.{number}.layers.{0 if shared else application}"
            normed = norm(x, weights, f"{layer}.attention_norm")
            both = linear(normed, weights, f"{layer}.attention.query_key_value")
            query, key, value = np.split(both, np.cumsum([block.heads, block.kv_heads]) * block.head_size, axis=-1)
            mixed = []
            for head in range(block.heads):
                read = head * block.kv_heads // block.heads
                scores = np.einsum("bte,bse->bts", of_head(query, head, block.head_size), of_head(key, read, block.head_size))
                scores /= math.sqrt(block.head_size)
                scores[:, future] = -np.inf
                shares = np.exp(scores - scores.max(-1, keepdims=True))
                shares *= kept(shares, of_attention) / shares.sum(-1, keepdims=True)
                mixed.append(np.einsum("bts,bse->bte", shares, of_head(value, read, block.value_head_size)))
            attended = linear(np.concatenate(mixed, axis=-1), weights, f"{layer}.attention.output")
            x = x + kept(x, dropout) * attended
            normed = norm(x, weights, f"{layer}.ffn_norm")
            up = linear(normed, weights, f"{layer}.ffn.up")
            inside = activation(linear(normed, weights, f"{layer}.ffn.gate")) * up if block.gated else activation(up)
            x = x + kept(x, dropout) * linear(inside, weights, f"{layer}.ffn.down")
    x = norm(x, weights, "model.norm")
    if before != design.embedding_width:
        x = x @ weights[f"model.joints.{len(design.blocks)}.weight"].T
    return x @ weights["model.tokens.weight"].T


def of_head(x: np.ndarray, head: int, size: int) -> np.ndarray:
    return x[..., size * head : size * (head + 1)]


def some_tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 50, (2, 11))


def tame_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout without chance: in training every second entry is multiplied by 1 − p."""

    def stand_in(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return input * torch.tensor(kept(input, p), dtype=input.dtype) if training else input

    monkeypatch.setattr(torch.nn.functional, "dropout", stand_in)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("name", DESIGNS)
def test_the_network_is_the_forward_pass_of_its_specification(name: str, activation: str, attention: str) -> None:
    model, tokens = network(DESIGNS[name], hidden_act=activation), some_tokens()
    model.set_attn_implementation(attention)
    expected = logits(model, tokens)
    assert np.ptp(expected) > 1
    # Eager attention takes its softmax in single precision.
    np.testing.assert_allclose(
        model(torch.tensor(tokens)).logits.detach().numpy(), expected, rtol=0, atol={"sdpa": 1e-9, "eager": 1e-4}[attention]
    )


@pytest.mark.parametrize("shares", [(0.25, 0.0), (0.0, 0.25), (0.125, 0.5)], ids=str)
@pytest.mark.parametrize("name", ["shared, unequal widths", "unshared, unequal widths"])
def test_dropout_acts_where_the_configuration_says(monkeypatch: pytest.MonkeyPatch, name: str, shares: tuple[float, float]) -> None:
    tame_dropout(monkeypatch)
    dropout, of_attention = shares
    model, tokens = network(DESIGNS[name], dropout=dropout, attention_dropout=of_attention), some_tokens()
    model.set_attn_implementation("eager")
    trained = logits(model, tokens, dropout, of_attention)
    evaluated = logits(model, tokens)
    assert np.abs(trained - evaluated).max() > 0.1
    np.testing.assert_allclose(model(torch.tensor(tokens)).logits.detach().numpy(), evaluated, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model.train()(torch.tensor(tokens)).logits.detach().numpy(), trained, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_weights_are_dropped_in_training_alone(attention: str) -> None:
    model, tokens = network(DESIGNS["one block"], attention_dropout=0.5), torch.tensor(some_tokens())
    model.set_attn_implementation(attention)
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.allclose(model(tokens).logits, model(tokens).logits)
