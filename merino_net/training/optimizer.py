"""Muon for the matrices inside a network and AdamW for everything else, behind the interface of one optimizer of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from merino_net.training.bf16_products import widened_products


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on the weights of linear maps, AdamW on embeddings, head, biases and norms; PyTorch's own two.

    Muon's step is the momentum's nearest semi-orthogonal matrix, scaled by 0.2·√max(m, n) to the size of a step of AdamW (Liu
    et al. 2025, "Muon is scalable for LLM training"), so that one learning rate serves both. Its momentum is 0.95 (Nesterov).
    Weight decay is decoupled; biases and norms have none. Query, key and value are one map
    in these networks, and one matrix to Muon.

    Attributes:
        learning_rate: as in AdamW.
        betas: as in AdamW.
        weight_decay: as in AdamW.
    """

    def __init__(self, model: PreTrainedModel, learning_rate: float, betas: tuple[float, float], weight_decay: float) -> None:
        outer = {
            id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None
        }
        inner = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)} - outer
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in trained if id(parameter) in inner]
        others = [parameter for parameter in trained if id(parameter) not in inner]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [
                    {"params": [parameter for parameter in others if parameter.ndim > 1], "weight_decay": weight_decay},
                    {"params": [parameter for parameter in others if parameter.ndim < 2], "weight_decay": 0.0},
                ],
                lr=learning_rate,
                betas=betas,
                fused=True,
            ),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with widened_products(self.param_groups[0]["params"][0].device):
            for part in self._parts:
                part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
