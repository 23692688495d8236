"""The optimizer of a plan: which tensors it steps, at which learning rate, and which of them decay.

A tensor's learning rate is the plan's times a factor that its shape gives (`tensors`). Weight decay is for matrices that multiply;
embeddings, positions, norms and biases have none, and a tied head is an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from merino_net.network.modeling_merino import MerinoAttention, MerinoBlock, MerinoOutput
from merino_net.training.bf16_products import widened_products


@dataclass(frozen=True)
class OptimizerPlan:
    """What a `TrainingPlan` says of the optimizer.

    Attributes:
        name: "adamw" or "muon".
        learning_rate: at its highest, of embeddings and of matrices as wide as `rate_width`.
        betas: AdamW's.
        weight_decay: decoupled from the gradient.
        rate_width: width for which the learning rate was found; None: one learning rate for every width.
        repeat_exponent: α; what a layer adds that is applied L times is scaled by L^−α.
        decayed: "matrices", or "all" that is no bias or norm.
        attention_parts: whether Muon takes query, key and value apart where they are one matrix.
    """

    name: str
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    rate_width: int | None = None
    repeat_exponent: float = 0.0
    decayed: str = "matrices"
    attention_parts: bool = True


@dataclass(frozen=True)
class TrainedTensor:
    """A parameter as the optimizer sees it.

    Attributes:
        parameter: of the network.
        rows: of the matrices that it consists of.
        inner: whether it is the weight of a map inside the network, which Muon takes.
        decays: whether it has weight decay.
        inputs: of a map; None for anything else.
        repeated: how often the layer that it ends is applied; 1 for anything else.
    """

    parameter: nn.Parameter
    rows: tuple[int, ...]
    inner: bool
    decays: bool
    inputs: int | None
    repeated: int

    def factor(self, plan: OptimizerPlan) -> float:
        """What the plan's learning rate is multiplied by.

        - a map with n inputs, where the plan says for which width w its learning rate was found: w / n with AdamW (Yang et al.
          2022, table 8), √(w / n) with Muon, whose step of 0.2·√max(m, n) then has the spectral norm 0.2·√w·√max(1, m / n) (Yang
          et al. 2023, condition 1)
        - what ends a layer that is applied L times: L^−α, as its initial weights are
        """
        width = 1.0
        if self.inputs is not None and plan.rate_width is not None:
            width = plan.rate_width / self.inputs
            if self.inner and plan.name == "muon":
                width = math.sqrt(width)
        return width * self.repeated**-plan.repeat_exponent


def trained_tensors(model: PreTrainedModel, plan: OptimizerPlan) -> list[TrainedTensor]:
    """The parameters that are trained, each once, in the order of the network."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    outer = embeddings | ({id(head.weight)} if head is not None else set())
    maps = {id(module.weight): module for module in model.modules() if isinstance(module, nn.Linear)}
    fused = {
        id(module.query_key_value.weight): tuple(module.parts)
        for module in model.modules()
        if isinstance(module, MerinoAttention) and module.config.one_matrix
    }
    repeated = {id(parameter): times for output, times in repeated_outputs(model) for parameter in output.parameters()}
    found = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        key = id(parameter)
        inner = key in maps and key not in outer
        found.append(
            TrainedTensor(
                parameter,
                fused.get(key, (len(parameter),)) if plan.attention_parts else (len(parameter),),
                inner,
                parameter.ndim > 1 and (plan.decayed == "all" or key not in embeddings),
                maps[key].in_features if key in maps and key not in embeddings else None,
                repeated.get(key, 1),
            )
        )
    return found


def repeated_outputs(model: nn.Module) -> Iterator[tuple[MerinoOutput, int]]:
    """The maps that end a sub-layer of a layer which its block applies several times, with that number."""
    for block in model.modules():
        if isinstance(block, MerinoBlock) and len(block.layers) == 1 < len(block.applications):
            for module in block.modules():
                if isinstance(module, MerinoOutput):
                    yield module, len(block.applications)


@torch.no_grad()
def scale_repeated(model: nn.Module, exponent: float) -> None:
    """Multiply the initial weights of what ends a layer that is applied L times by L^−exponent.

    With the learning rate of `TrainedTensor.factor` this is training a network that scales what such a layer adds by that
    factor, since neither optimizer's step depends on the size of the gradient: the factor lies in the weights from the start,
    and whatever reads them needs to know nothing of it.
    """
    for output, times in repeated_outputs(model):
        output.weight.mul_(times**-exponent)


def make_optimizer(model: PreTrainedModel, plan: OptimizerPlan) -> torch.optim.Optimizer:
    """The plan's optimizer of a network's parameters."""
    tensors = trained_tensors(model, plan)
    if plan.name == "adamw":
        return _adamw(tensors, plan)
    return MuonAdamW(tensors, plan)


def _grouped(tensors: list[TrainedTensor], plan: OptimizerPlan) -> list[dict[str, Any]]:
    """Parameter groups of one factor and one weight decay each; those with the plan's own learning rate come first."""
    groups: dict[tuple[float, bool], list[TrainedTensor]] = {}
    for one in sorted(tensors, key=lambda one: one.factor(plan) != 1):  # the log shows the rate of the first group
        groups.setdefault((one.factor(plan), one.decays), []).append(one)
    return [
        {
            "params": [one.parameter for one in group],
            "lr": plan.learning_rate * factor,
            "weight_decay": plan.weight_decay if decays else 0.0,
        }
        for (factor, decays), group in groups.items()
    ]


def _adamw(tensors: list[TrainedTensor], plan: OptimizerPlan) -> torch.optim.AdamW:
    return torch.optim.AdamW(_grouped(tensors, plan), lr=plan.learning_rate, betas=plan.betas, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on the weights of linear maps, AdamW on embeddings, head, biases and norms; PyTorch's own two.

    Muon's step is the momentum's nearest semi-orthogonal matrix, scaled by 0.2·√max(m, n) to the size of a step of AdamW (Liu
    et al. 2025, "Muon is scalable for LLM training"), so that one learning rate serves both. Its momentum is 0.95 (Nesterov).
    Weight decay is decoupled. Query, key and value are three matrices to Muon also where they are stored as one: it steps views of
    its rows.
    """

    def __init__(self, tensors: list[TrainedTensor], plan: OptimizerPlan) -> None:
        matrices = [one for one in tensors if one.inner]
        others = [one for one in tensors if not one.inner]
        self._views: list[tuple[nn.Parameter, tuple[Tensor, ...]]] = []
        groups = _grouped(matrices, plan)
        rows = {id(one.parameter): one.rows for one in matrices}
        for group in groups:
            views = [(parameter, parameter.detach().split(rows[id(parameter)])) for parameter in group["params"]]
            self._views += views
            group["params"] = [part for _, parts in views for part in parts]
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            _adamw(others, plan),
            torch.optim.Muon(groups, lr=plan.learning_rate, adjust_lr_fn="match_rms_adamw"),
        )
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for parameter, views in self._views:
            sizes = [len(view) for view in views]
            gradients = [None] * len(views) if parameter.grad is None else parameter.grad.split(sizes)
            for view, gradient in zip(views, gradients, strict=True):
                view.grad = gradient
        with widened_products(self.param_groups[0]["params"][0].device):
            for part in self._parts:
                part.step()
        for _, views in self._views:
            for view in views:
                view.grad = None  # or the gradients would outlive the network's own
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for parameter, _ in self._views:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
