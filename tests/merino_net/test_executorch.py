"""An ExecuTorch program writes what PyTorch writes, in a process without this package.

These tests need executorch and run in its own environment (make test-executorch).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from formulation.architecture import Architecture, Block
from merino_net import MerinoConfig
from merino_net.corpus.data import train_tokenizer
from merino_net.generate import continuation
from merino_net.network.counting import parameter_count
from merino_net.shipping.runtimes import RUNTIMES, Job, Report, Timing

HAS_EXECUTORCH = importlib.util.find_spec("executorch") is not None
pytestmark = pytest.mark.skipif(not HAS_EXECUTORCH, reason="executorch has its own environment: make test-executorch")

EXECUTORCH = RUNTIMES["executorch"]
VOCABULARY, POSITIONS = 300, 64
TEXT = "The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."
PROMPT = (264, 280, 296, 291, 69)
SCORED = tuple(number * 7 % VOCABULARY for number in range(POSITIONS))
JOB = Job(1, ((PROMPT, 12), (PROMPT[:1], 5)), (SCORED,), Timing(16, 0.01), exact=True)

DESIGNS = {
    "merino": Architecture((Block(64, 96, 2), Block(128, 64, 1)), True, 96, VOCABULARY, POSITIONS),
    "llama": Architecture(
        (
            Block(64, 96, 1, heads=4, kv_heads=2, head_size=16, gated=True),
            Block(64, 48, 1, heads=3, kv_heads=1, head_size=32, gated=True),
        ),
        False,
        64,
        VOCABULARY,
        POSITIONS,
        family="llama",
    ),
}
PLAIN = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=POSITIONS,
    initializer_range=0.1,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
    tie_word_embeddings=False,
)


def network(name: str) -> Any:
    torch.manual_seed(0)
    config = PLAIN if name == "plain" else MerinoConfig.from_architecture(DESIGNS[name], initializer_range=0.1)
    return AutoModelForCausalLM.from_config(config).eval()


Shipped = Callable[[str, str], tuple[Any, Path, Report]]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """A network by its name and weights, the folder it was shipped to, and what the client reports of it; each is made once."""

    @functools.cache
    def made(name: str, weights: str) -> tuple[Any, Path, Report]:
        model, folder = network(name), tmp_path_factory.mktemp(f"{name}-{weights}")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        EXECUTORCH.export(model, train_tokenizer([TEXT] * 3, VOCABULARY), folder, weights)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        return model, folder, EXECUTORCH.run(folder, JOB)

    return made


def scores(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([SCORED])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(SCORED[1:])[:, None])[:, 0]


@pytest.mark.parametrize("name", [*DESIGNS, "plain"])
def test_writes_what_pytorch_writes(name: str, shipped: Shipped) -> None:
    model, _, report = shipped(name, "float32")
    for (prompt, count), written in zip(JOB.write, report.written, strict=True):
        assert written == continuation(model, torch.tensor([prompt]), count)[0].tolist()
    assert report.scored[0] == pytest.approx(scores(model).tolist(), abs=1e-4)
    assert len(report.texts) == len(JOB.write)
    assert min(len(report.prefill_ms), len(report.decode_ms)) >= 5
    assert 0 < report.idle_bytes < report.peak_bytes


@pytest.mark.parametrize("name", DESIGNS)
def test_shared_and_tied_weights_are_stored_once(name: str, shipped: Shipped) -> None:
    model, folder, _ = shipped(name, "float32")
    twice = 4 * VOCABULARY * model.config.embedding_width
    assert abs((folder / "model.ptd").stat().st_size - 4 * parameter_count(model)) < twice / 10


@pytest.mark.parametrize("name", DESIGNS)
def test_eight_bits_are_smaller_and_close(name: str, shipped: Shipped) -> None:
    model, folder, report = shipped(name, "int8")
    truth = scores(model)
    off = torch.tensor(report.scored[0]) - truth
    assert 1e-6 < off.square().mean().sqrt() / truth.std() < 0.1
    assert (folder / "model.ptd").stat().st_size < 2 * parameter_count(model)


def test_refuses_values_of_another_size(tmp_path: Path) -> None:
    uneven = replace(DESIGNS["llama"], blocks=(Block(64, 96, 1, heads=4, kv_heads=2, head_size=16, value_head_size=8, gated=True),))
    model = AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(uneven))
    with pytest.raises(ValueError, match="heads of size 16 with values of size 8"):
        EXECUTORCH.export(model, train_tokenizer([TEXT] * 3, VOCABULARY), tmp_path, "float32")
