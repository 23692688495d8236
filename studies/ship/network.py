"""The network that is to be shipped: one that was trained, or a design's own with random weights, to measure speed and size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulation import Architecture, Budget
from formulation.problem_file import ReadQuantity
from formulation.published import read_architecture
from formulation.records.reading import read_json
from solvers.questions.design_file import design_in, read_design
from solvers.questions.findings import FORMAT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG = "config.json"


@dataclass(frozen=True)
class Asked:
    """A design that is to be shipped.

    Attributes:
        path: its file.
        design: the architecture.
        budgets: what was promised of it; none for an architecture's own file.
        weights: the folder of the trained network; None: there isn't one.
    """

    path: Path
    design: Architecture
    budgets: tuple[Budget, ...]
    weights: Path | None


def read_asked(name: str, read_quantity: ReadQuantity) -> Asked:
    """The design in a file, or in a folder that `merino train` wrote.

    Raises:
        ValueError: for a folder without a design.json, a file that is not a design, and a problem that has none.
    """
    given = Path(name)
    path = design_in(given)
    if given.is_dir() and not path.is_file():
        raise ValueError(f"there is no design.json in {name}; name a design file, or a folder that merino train wrote")
    weights = given if given.is_dir() and (given / _CONFIG).is_file() else None
    record = read_json("design file", path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return Asked(path, read_architecture(str(path)), (), weights)
    stored = read_design(path, read_quantity)
    if not isinstance(stored.architecture, Architecture):
        raise ValueError(f"the design file {path} holds no architecture, so there is nothing to ship; design one first")
    return Asked(path, stored.architecture, tuple(stored.problem.subject_to), weights)


@dataclass(frozen=True)
class ToShip:
    """A network on the CPU in float32, and what it is.

    Attributes:
        model: itself.
        tokenizer: its own, or a stand-in of as many tokens.
        trained: whether its weights were trained; else they are random.
        fingerprint: of the trained files; empty for random weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    trained: bool
    fingerprint: str


def network_of(asked: Asked, seed: int) -> ToShip:
    """The trained network, or one with random weights by `seed`; ValueError where files cannot be read."""
    if asked.weights is not None:
        from merino_net.network.pretrained import embedding_rows, find_models, load_model, quieten

        quieten(str(asked.weights))
        [found] = find_models([str(asked.weights)])
        model, tokenizer = load_model(found, "float32", "cpu")
        if len(tokenizer) > (rows := embedding_rows(model)):
            raise ValueError(
                f"the tokenizer has {len(tokenizer):,} tokens and the network {rows:,}; save the network's own beside it"
            )
        return ToShip(model.eval(), tokenizer, True, found.fingerprint)
    import torch
    from transformers import AutoModelForCausalLM

    from hardware_models.artefacts import tokenizer_of
    from merino_net.network.configuration_merino import MerinoConfig
    from merino_net.network.pretrained import quieten

    quieten()
    tokenizer = tokenizer_of(asked.design.vocabulary)  # a runtime's files need one, and its size counts
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = MerinoConfig.from_architecture(asked.design, **ends)
    torch.manual_seed(seed)
    random: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return ToShip(random.eval(), tokenizer, False, "")
