"""Training-free scores of a real network: against their definitions, and what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from formulation import Architecture, Block
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.scores import dss_score, ntk_condition_number, random_tokens

DESIGN = Architecture((Block(64, 96, 2), Block(128, 128, 1)), True, 64, 96, 24)
TOKENS = random_tokens(DESIGN, 4, 12, seed=3)


def network(design: Architecture, seed: int = 0) -> MerinoForCausalLM:
    torch.manual_seed(seed)
    return MerinoForCausalLM(MerinoConfig.from_architecture(design)).eval()


def test_dss_is_its_definition() -> None:
    model, tokens = network(DESIGN), torch.from_numpy(TOKENS)
    model(input_ids=tokens, labels=tokens).loss.backward()
    expected = 0.0
    for name, parameter in model.named_parameters():
        if "attention.query_key_value.weight" in name or "attention.output.weight" in name:
            for weight, gradient in zip(
                parameter.detach().split(parameter.shape[1]), parameter.grad.split(parameter.shape[1]), strict=True
            ):
                expected += float(torch.linalg.matrix_norm(weight, "nuc") * torch.linalg.matrix_norm(gradient, "nuc"))
        elif "ffn.up.weight" in name or "ffn.down.weight" in name:
            expected += float((parameter.detach() * parameter.grad).abs().sum())
    assert dss_score(DESIGN, TOKENS) == pytest.approx(expected, rel=1e-4)
    assert dss_score(DESIGN, TOKENS) == dss_score(DESIGN, TOKENS)
    assert dss_score(DESIGN, TOKENS, seed=1) != dss_score(DESIGN, TOKENS)


def test_ntk_is_its_definition() -> None:
    model = network(DESIGN)
    rows = []
    for sequence in torch.from_numpy(TOKENS):
        model.zero_grad()
        model(input_ids=sequence[None]).logits[0, -2, sequence[-1]].backward()
        rows.append(torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in model.parameters()]))
    jacobian = torch.stack(rows).double()
    singular = torch.linalg.svdvals(jacobian)
    assert ntk_condition_number(DESIGN, TOKENS) == pytest.approx(float(singular[0] / singular[-1]) ** 2, rel=1e-3)


def test_scores_leave_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    dss_score(DESIGN, TOKENS)
    ntk_condition_number(DESIGN, TOKENS)
    assert torch.equal(torch.rand(3), expected)


def test_unshared_layers_are_scored_one_by_one() -> None:
    assert dss_score(dataclasses.replace(DESIGN, shared=False), TOKENS) != pytest.approx(dss_score(DESIGN, TOKENS), rel=1e-3)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (np.zeros((4, 25), dtype=int), r"shape \(4, 25\); expected sequences of 2 to 24 tokens"),
        (np.zeros(12, dtype=int), r"shape \(12,\)"),
        (np.full((2, 8), 96), "run from 96 to 96; expected 0 to 95"),
        (np.ones((3, 8), dtype=int), "kernel of 3 sequences is singular"),
    ],
)
def test_what_is_no_minibatch_is_refused(tokens: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ntk_condition_number(DESIGN, tokens)


def test_random_tokens_fit_the_design() -> None:
    tokens = random_tokens(DESIGN)
    assert tokens.shape == (16, 24)
    assert 0 <= tokens.min() <= tokens.max() < 96
    assert np.array_equal(tokens, random_tokens(DESIGN))
