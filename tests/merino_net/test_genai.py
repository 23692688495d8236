"""ONNX Runtime GenAI and OpenVINO GenAI write what PyTorch writes, in a process without this package."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from formulation.architecture import Architecture, Block
from merino_net import MerinoConfig
from merino_net.corpus.data import train_tokenizer
from merino_net.generate import continuation
from merino_net.network.counting import parameter_count
from merino_net.shipping.runtimes import RUNTIMES, Job, Report, Runtime, Timing
from tests.slow import slow

VOCABULARY, POSITIONS = 300, 64
TEXT = "The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."
PROMPT = (264, 280, 296, 291, 69)
SCORED = tuple(number * 7 % VOCABULARY for number in range(40))
JOB = Job(1, ((PROMPT, 12), (PROMPT[:1], 5)), (SCORED,), Timing(16, 0.01), exact=True)

DESIGNS = {
    "merino": Architecture((Block(64, 96, 2), Block(128, 64, 1)), shared=True, embedding_width=96),
    "gpt2": Architecture(
        (Block(64, 96, 1, heads=4, head_size=16), Block(64, 48, 1, heads=2, head_size=32)),
        shared=False,
        embedding_width=64,
        family="gpt2",
    ),
    "opt": Architecture(
        (Block(64, 96, 1, heads=4, head_size=16), Block(64, 48, 1, heads=2, head_size=32)),
        shared=False,
        embedding_width=64,
        family="opt",
    ),
    **{
        family: Architecture(
            (
                Block(64, 96, 1, heads=4, kv_heads=2, head_size=16, gated=True),
                Block(64, 48, 1, heads=3, kv_heads=1, head_size=32, gated=True),
            ),
            shared=False,
            embedding_width=64,
            family=family,
        )
        for family in ("llama", "qwen3")
    },
}

OWN = {
    "GPT2": GPT2Config(
        n_embd=64, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=POSITIONS, bos_token_id=0, eos_token_id=0
    ),
    "OPT": OPTConfig(
        hidden_size=64,
        num_hidden_layers=1,
        ffn_dim=96,
        num_attention_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
        word_embed_proj_dim=64,
        bos_token_id=0,
        eos_token_id=0,
    ),
    **{
        kind.model_type: kind(
            hidden_size=64,
            num_hidden_layers=1,
            intermediate_size=96,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=VOCABULARY,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        for kind in (LlamaConfig, Qwen3Config)
    },
}
"""transformers' own classes."""


def network(config: PreTrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def of_design(design: Architecture, **options: Any) -> Any:
    sized = Architecture.from_dict({**design.to_dict(), "vocabulary": VOCABULARY, "positions": POSITIONS})
    return network(MerinoConfig.from_architecture(sized, initializer_range=0.1, **options))


def shipped(runtime: Runtime, model: PreTrainedModel, folder: Path, weights: str = "float32", job: Job = JOB) -> Report:
    """What the runtime's client reports of an export."""
    runtime.require()
    folder.mkdir(exist_ok=True)
    runtime.export(model, train_tokenizer([TEXT] * 3, VOCABULARY), folder, weights)
    return runtime.run(folder, job)


def check_like_pytorch(model: PreTrainedModel, report: Report) -> None:
    for (prompt, count), written in zip(JOB.write, report.written, strict=True):
        assert written == continuation(model, torch.tensor([prompt]), count)[0].tolist()
    with torch.no_grad():
        truth = model(torch.tensor([SCORED])).logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(SCORED[1:])[:, None])
    assert report.scored[0] == pytest.approx(truth[:, 0].tolist(), abs=1e-4)
    assert min(len(report.prefill_ms), len(report.decode_ms)) >= 5
    assert 0 < report.idle_bytes < report.peak_bytes


RUNS = [
    ("ort-genai", "merino"),
    ("openvino-genai", "llama"),
    *slow([(name, design) for name in ("ort-genai", "openvino-genai") for design in DESIGNS if design not in ("merino", "llama")]),
    *slow([("ort-genai", "llama"), ("openvino-genai", "merino")]),
]


@pytest.mark.parametrize(("name", "design"), RUNS)
def test_writes_what_pytorch_writes(name: str, design: str, tmp_path: Path) -> None:
    model = of_design(DESIGNS[design], **({"joints": "pad"} if name == "openvino-genai" and design == "merino" else {}))
    check_like_pytorch(model, shipped(RUNTIMES[name], model, tmp_path / "shipped"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ort-genai", "openvino-genai"])
@pytest.mark.parametrize("own", OWN)
def test_writes_what_classes_of_transformers_write(name: str, own: str, tmp_path: Path) -> None:
    model = network(OWN[own])
    check_like_pytorch(model, shipped(RUNTIMES[name], model, tmp_path / "shipped"))


@pytest.fixture(scope="module")
def trained() -> tuple[Any, list[int]]:
    """A network that knows one text by heart, and the text's tokens."""
    tokens: list[int] = train_tokenizer([TEXT] * 3, VOCABULARY)(TEXT)["input_ids"]
    model = of_design(DESIGNS["merino"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    batch = torch.tensor([tokens])
    for _ in range(60):
        optimizer.zero_grad()
        model(batch, labels=batch).loss.backward()
        optimizer.step()
    return model.eval(), tokens


COSTS = {"float32": 1e-5, "int8": 0.01, "int4": 0.1}
"""Most that weights in this format cost [nat per token] of a text that the network knows by heart."""


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ort-genai", "int8"),
        *slow([("ort-genai", "float32"), ("ort-genai", "int4"), *(("openvino-genai", weights) for weights in COSTS)]),
    ],
)
def test_quantized_weights_write_the_same_text(name: str, weights: str, trained: Any, tmp_path: Path) -> None:
    model, tokens = trained
    runtime = RUNTIMES[name]
    report = shipped(runtime, model, tmp_path / "shipped", weights, Job(1, ((tokens[:4], 20),), (tokens,), exact=True))
    assert report.texts == [train_tokenizer([TEXT] * 3, VOCABULARY).decode(tokens[4:24])]
    with torch.no_grad():
        loss = float(model(torch.tensor([tokens]), labels=torch.tensor([tokens])).loss)
    assert abs(-fmean(report.scored[0]) - loss) < COSTS[weights]
    size = sum(path.stat().st_size for pattern in runtime.patterns for path in (tmp_path / "shipped").glob(pattern))
    graph = 60_000 if name == "ort-genai" else 0
    assert size - graph < {"float32": 4.1, "int8": 1.4, "int4": 1.1}[weights] * parameter_count(model)


def test_what_the_runtime_cannot_have(tmp_path: Path) -> None:
    runtime = RUNTIMES["ort-genai"]
    with pytest.raises(ValueError, match="weights of an ONNX graph cannot be q8_0"):
        shipped(runtime, of_design(DESIGNS["merino"]), tmp_path / "shipped", "q8_0")
    with pytest.raises(ValueError, match="ONNX Runtime GenAI cannot run"):
        runtime.run(tmp_path, JOB)
    narrow = Architecture((Block(64, 64, 1, heads=2, head_size=32, value_head_size=16),), shared=True, embedding_width=64)
    for name in ("ort-genai", "openvino-genai"):
        with pytest.raises(ValueError, match="keys of size 32 and values of size 16"):
            shipped(RUNTIMES[name], of_design(narrow), tmp_path / name)
