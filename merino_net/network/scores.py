"""Training-free scores of a network at its random initial weights: what other architecture searches maximize or minimize.

How such a score becomes an objective is the studies' business.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from formulation.architecture import Architecture, positive_integer
from merino_net.network.configuration_merino import MerinoConfig
from merino_net.network.modeling_merino import MerinoAttention, MerinoFeedForward, MerinoForCausalLM


def random_tokens(architecture: Architecture, sequences: int = 16, seq_len: int = 128, seed: int = 0) -> np.ndarray:
    """A minibatch that needs no text: tokens drawn uniformly from the vocabulary, int64 (sequences, seq_len or all positions)."""
    length = min(positive_integer("seq_len", seq_len), architecture.positions)
    shape = (positive_integer("sequences", sequences), length)
    return np.random.default_rng(seed).integers(architecture.vocabulary, size=shape)


def dss_score(architecture: Architecture, tokens: np.ndarray, seed: int = 0) -> float:
    """DSS-score of TF-TAS (Zhou et al., CVPR 2022, equations 5 to 7), to be maximized:

        Σ over attention matrices ‖∂ℓ/∂W‖_nuc · ‖W‖_nuc  +  Σ over feed-forward matrices Σ_jk |∂ℓ/∂W ⊙ W|_jk

    with ℓ the mean cross-entropy of `tokens` (B, T). A matrix that several layers share counts once, with the gradient of all its
    applications. float32, weights of `seed`.

    This follows the equations, for language models. The public code, for image models, also takes |W| for every W before it
    computes gradients, sums the outputs for an input of ones in place of a loss, has one nuclear norm for query, key and value
    together, and adds the patch embedding and the classifier.
    """
    model = _network(architecture, seed)
    tokens_BT = _checked(tokens, architecture)
    model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss.backward()
    total = 0.0
    for module in model.modules():
        if isinstance(module, MerinoAttention):
            for weight, gradient in _attention_matrices(module):
                total += float(_nuclear_norm(gradient) * _nuclear_norm(weight))
        elif isinstance(module, MerinoFeedForward):
            for linear in filter(None, (module.up, module.gate, module.down)):
                assert linear.weight.grad is not None
                total += float((linear.weight.grad * linear.weight.detach()).abs().sum())
    return total


def ntk_condition_number(architecture: Architecture, tokens: np.ndarray, seed: int = 0) -> float:
    """Condition number of the empirical neural tangent kernel, TE-NAS's trainability (Chen et al., ICLR 2021), to be minimized:

        κ = λ_max(Θ) / λ_min(Θ),   Θ = J Jᵀ (B, B),   J_bp = ∂f_b/∂θ_p

    with f_b the logit of sequence b's last token, predicted from the T − 1 before it, and θ all parameters: our reading for
    language models, where TE-NAS's code takes the sum of an image's logits, and leaves biases out. float32 gradients, float64
    eigenvalues. ValueError if Θ is singular: two sequences are alike, or too many are given.
    """
    model = _network(architecture, seed)
    tokens_BT = _checked(tokens, architecture)
    parameters = list(model.parameters())
    jacobian: list[Tensor] = []
    for tokens_T in tokens_BT:  # one at a time: a batch's backward pass would be done once for each of its outputs
        logits_V = model(input_ids=tokens_T[None, :-1], use_cache=False, logits_to_keep=1).logits[0, -1]
        gradients = torch.autograd.grad(logits_V[tokens_T[-1]], parameters)
        jacobian.append(torch.cat([gradient.flatten() for gradient in gradients]))
    rows_BP = torch.stack(jacobian)
    kernel = (rows_BP @ rows_BP.T).double()
    eigenvalues = torch.linalg.eigvalsh(kernel)
    if not eigenvalues[0] > 1e-7 * eigenvalues[-1]:
        raise ValueError(
            f"the tangent kernel of {len(tokens_BT)} sequences is singular for the design {architecture}; "
            "give sequences that differ, or fewer of them"
        )
    return float(eigenvalues[-1] / eigenvalues[0])


def _network(architecture: Architecture, seed: int) -> MerinoForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = MerinoConfig.from_architecture(architecture, attn_implementation="eager")
        return MerinoForCausalLM(config).eval()


def _checked(tokens: np.ndarray, architecture: Architecture) -> Tensor:
    """The tokens as a tensor (B, T); ValueError if they are no minibatch of this network."""
    if tokens.ndim != 2 or not 2 <= tokens.shape[1] <= architecture.positions:
        raise ValueError(
            f"the tokens have shape {tokens.shape}; expected sequences of 2 to {architecture.positions} tokens, (number, length)"
        )
    if tokens.min() < 0 or tokens.max() >= architecture.vocabulary:
        raise ValueError(
            f"the tokens run from {tokens.min()} to {tokens.max()}; expected 0 to {architecture.vocabulary - 1}, the vocabulary"
        )
    return torch.from_numpy(tokens.astype(np.int64))


def _attention_matrices(module: MerinoAttention) -> Iterator[tuple[Tensor, Tensor]]:
    """Q, K, V and O with their gradients."""
    for linear, parts in ((module.query_key_value, module.parts), (module.output, [module.output.out_features])):
        assert linear.weight.grad is not None
        yield from zip(linear.weight.detach().split(parts), linear.weight.grad.split(parts), strict=True)


def _nuclear_norm(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix).sum()
