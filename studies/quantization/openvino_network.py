"""OpenVINO's variant of a network, behind what is asked of one in PyTorch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from merino_net.shipping.openvino_model import OpenVinoModel


class OpenVinoNetwork(nn.Module):
    """An OpenVINO graph behind what `score_text` and the harness ask of a network: tokens (B, T) in, float32 logits out."""

    def __init__(self, folder: Path, config: Any, threads: int, precision: str = "f32") -> None:
        super().__init__()
        self.graph, self.config, self.device = OpenVinoModel(folder, precision, threads), config, torch.device("cpu")

    @property
    def base_model(self) -> nn.Module:
        return self

    def get_output_embeddings(self) -> None:
        return None

    def get_input_embeddings(self) -> nn.Module:
        return nn.Embedding(self.config.vocab_size, 1, device="meta")

    def tie_weights(self) -> None:
        return None

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        tokens = input_ids.numpy()
        self.graph.begin()
        return SimpleNamespace(logits=torch.from_numpy(self.graph.logits(tokens, np.ones_like(tokens))))
