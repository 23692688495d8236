"""One training run of a study as data: its tokens, its design, its plan, its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formulation import Architecture
from formulation.records.rows import Row

TRAINING_PACKAGES = ("numpy", "torch", "transformers", "accelerate", "tokenizers")
"""Whose versions a training's result names."""


_IDENTITY = ("architecture", "plan", "data")


@dataclass(frozen=True)
class TokenData:
    """Tokens that runs train on and are evaluated on, in files that every worker can read.

    Attributes:
        training: paths of the token arrays; held_out None: `held_out_share` of the sequences.
        held_out: paths of the token arrays; held_out None: `held_out_share` of the sequences.
        end_of_text: token that ends every document.
        identity: what tells these data from others: fingerprints of the texts, the vocabulary, the number of tokens.
    """

    training: str
    held_out: str | None
    held_out_share: float
    end_of_text: int
    identity: dict[str, Any]


@dataclass(frozen=True)
class TrainingRun:
    """One training run: all that a worker, perhaps on another machine, needs to know.

    Attributes:
        label: what the row is called; another label makes it no other run.
        plan: the fields of a `TrainingPlan`, the seed among them.
        folder: where runs keep their checkpoints while they last, each in its own folder.
    """

    label: str
    architecture: Architecture
    plan: dict[str, Any]
    data: TokenData
    threads: int
    folder: str

    def identity(self) -> Row:
        """What a finished row of this run holds of it."""
        return {"architecture": self.architecture.to_dict(), "plan": self.plan, "data": self.data.identity}

    @property
    def network(self) -> Path:
        """The folder of this run's network."""
        return Path(self.folder) / hashlib.sha256(run_key(self.identity()).encode()).hexdigest()[:16]


def run_key(row: Row) -> str:
    """Tells one run from another: design, plan with its seed, and data."""
    return json.dumps([row[name] for name in _IDENTITY], sort_keys=True)


def tokens_sha256(tokens: np.ndarray) -> str:
    """What distinguishes one minibatch from another: the first 12 digits of its SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()[:12]
