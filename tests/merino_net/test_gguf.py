"""What llama.cpp computes from the GGUF file of a network is what PyTorch computes from the network."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from formulation import Architecture, Block
from merino_net.corpus.data import train_tokenizer
from merino_net.network.configuration_merino import MerinoConfig
from merino_net.network.modeling_merino import MerinoForCausalLM
from merino_net.shipping.clients.llama_cpp import LlamaServer
from merino_net.shipping.gguf_model import FILE, export_gguf
from merino_net.shipping.runtimes import RUNTIMES, Job, Timing

gguf = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

VOCABULARY = 300
POSITIONS = 64
PROMPT = random.Random(0).sample(range(VOCABULARY), 20)
CLOSE = 1e-4
"""Of log-probabilities, with a cache in single precision."""

ROPE = {"rope_type": "default", "rope_theta": 500_000.0}
"""Another base of rotary positions than the usual one."""

GELU = 4e-3
"""The same where the activation is GELU, which llama.cpp reads from a table of half-precision numbers."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer((f"the quick brown fox jumps over the lazy dog, it's été {number}" for number in range(300)), VOCABULARY)


def network(family: str, blocks: tuple[Block, ...], **options: Any) -> MerinoForCausalLM:
    """A network whose every parameter matters: norms and biases are not the ones and zeros that they start as."""
    torch.manual_seed(0)
    options = {"embedding_width": blocks[0].width, "shared": False, **options}
    design = Architecture(blocks, family=family, vocabulary=VOCABULARY, positions=POSITIONS, **options)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design, initializer_range=0.2)).eval()
    return unlike_new(model)


def unlike_new(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def alike(heads: int = 2, kv_heads: int | None = None, head_size: int = 32, **options: Any) -> tuple[Block, ...]:
    return (Block(64, 96, 2, heads=heads, kv_heads=kv_heads, head_size=head_size, **options),)


def unlike(head_size: int = 32) -> tuple[Block, ...]:
    return (
        Block(64, 96, 1, heads=2, kv_heads=1, head_size=head_size),
        Block(64, 160, 2, heads=3, kv_heads=3, head_size=head_size),
        Block(64, 128, 1, heads=4, kv_heads=2, head_size=head_size),
    )


def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, weights: str = "f32") -> Path:
    folder.mkdir(exist_ok=True)
    export_gguf(model, tokenizer, folder, weights)
    return folder / FILE


def logarithms(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def differences(model: PreTrainedModel, run: LlamaServer) -> Iterator[float]:
    """Of log-probabilities: each token of a prompt, and the twenty most probable after it."""
    expected = logarithms(model, PROMPT)
    yield from (abs(found - expected[i, PROMPT[i + 1]].item()) for i, found in enumerate(run.score(PROMPT)))
    yield from (abs(found - expected[-1, token].item()) for token, found in run.top(PROMPT, 20).items())


def architecture_of(path: Path) -> str:
    return str(gguf.GGUFReader(path).fields["general.architecture"].contents())


OURS = [
    pytest.param("llama", alike(kv_heads=1), "llama", CLOSE, id="llama"),
    pytest.param("llama", alike(6, 3, 16), "llama", CLOSE, id="llama-heads-wider-than-the-stream"),
    pytest.param("llama", unlike(), "deci", CLOSE, id="llama-unlike"),
    pytest.param("llama", unlike(16), "deci", CLOSE, id="llama-unlike-16"),
    pytest.param("qwen2", alike(kv_heads=1), "qwen2", CLOSE, id="qwen2"),
    pytest.param("qwen2", alike(3, 1), "deci", CLOSE, id="qwen2-heads-wider-than-the-stream"),
    pytest.param("qwen2", unlike(), "deci", CLOSE, id="qwen2-unlike"),
    pytest.param("qwen3", alike(4, 2), "qwen3", CLOSE, id="qwen3"),
    pytest.param("gpt2", alike(4, 2, 16), "gpt2", GELU, id="gpt2"),
    pytest.param("opt", alike(), "gpt2", CLOSE, id="opt"),
    pytest.param("merino", (*alike(), *alike()), "gpt2", CLOSE, id="merino"),
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("family", "blocks", "name", "close"), OURS)
def test_our_networks(
    family: str, blocks: tuple[Block, ...], name: str, close: float, tied: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = network(family, blocks, tied=tied)
    path = written(model, tokenizer, tmp_path)
    assert architecture_of(path) == name
    assert max(differences(model, LlamaServer(path, 1, POSITIONS, exact=True))) < close


def test_layers_that_differ_and_norms_on_queries_and_keys(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = network("qwen3", unlike(), tied=True)
    path = written(model, tokenizer, tmp_path)
    assert architecture_of(path) == "openelm"
    assert max(differences(model, LlamaServer(path, 1, POSITIONS, exact=True))) < CLOSE


def test_client_in_a_process_of_its_own(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Greedy text, scores and times by the client alone, of a network with shared layers, and in the weights that are shipped."""
    model = network("llama", unlike(), shared=True)
    written(model, tokenizer, tmp_path)
    job = Job(threads=1, write=((tuple(PROMPT), 12),), score=(tuple(PROMPT),), timing=Timing(16, 0.01), exact=True)
    report = RUNTIMES["gguf"].run(tmp_path, job)
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False)[0, len(PROMPT) :]
    assert report.written == [expected.tolist()]
    assert report.texts == [tokenizer.decode(expected)]
    wanted = logarithms(model, PROMPT)[range(19), PROMPT[1:]].tolist()
    assert report.scored[0] == pytest.approx(wanted, abs=CLOSE)
    assert min(len(report.prefill_ms), len(report.decode_ms)) >= 5
    assert min(report.prefill_ms + report.decode_ms) > 0
    assert 0 < report.idle_bytes < report.peak_bytes


def test_last_positions(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The last row of the positions is scored; a prompt as long as the positions is timed one token shorter."""
    model = network("opt", alike())
    written(model, tokenizer, tmp_path)
    sequence = [*PROMPT, *PROMPT, *PROMPT, 1, 2, 3, 4]
    assert len(sequence) == POSITIONS
    report = RUNTIMES["gguf"].run(tmp_path, Job(1, score=(tuple(sequence),), timing=Timing(POSITIONS, 0.01), exact=True))
    wanted = logarithms(model, sequence)[range(POSITIONS - 1), sequence[1:]].tolist()
    assert report.scored[0] == pytest.approx(wanted, abs=CLOSE)
    assert min(report.prefill_ms) > 0
    assert min(report.decode_ms) > 0.01  # a step, not the nothing that stands behind the first token


def test_end_of_text_ends_writing(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = network("llama", alike())
    end = tokenizer.eos_token_id
    with torch.no_grad():
        model.model.norm.weight.copy_(model.lm_head.weight[end].sign())  # then its logit leads in most places
        model.model.norm.weight.mul_(3)
    path = written(model, tokenizer, tmp_path)
    run = LlamaServer(path, 1, POSITIONS, exact=True)
    prompts = [[number, *PROMPT[:5]] for number in range(12)]
    expected = [model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, 6:].tolist() for prompt in prompts]
    assert [run.write(prompt, 8)[0] for prompt in prompts] == expected
    assert any(tokens[-1] == end for tokens in expected)


THEIRS = [
    pytest.param("llama", {"num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96}, CLOSE, id="llama"),
    pytest.param("llama", {"hidden_size": 64, "intermediate_size": 96, "rope_parameters": ROPE}, CLOSE, id="llama-theta"),
    pytest.param("qwen2", {"num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96}, CLOSE, id="qwen2"),
    pytest.param(
        "qwen3", {"num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}, CLOSE, id="qwen3"
    ),
    pytest.param("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}, GELU, id="gpt2"),
    pytest.param("opt", {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96, "num_attention_heads": 4}, CLOSE, id="opt"),
]


@pytest.mark.parametrize(("model_type", "sizes", "close"), THEIRS)
def test_transformers_own_classes(
    model_type: str, sizes: dict[str, Any], close: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    common = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "init_std": 0.2, "max_position_embeddings": POSITIONS}
    layers = {} if model_type == "gpt2" else {"num_hidden_layers": 2}
    heads = {} if model_type in ("gpt2", "opt") else {"num_attention_heads": 4}
    config = CONFIG_MAPPING[model_type](**{**common, **layers, **heads, **sizes})
    model = unlike_new(AutoModelForCausalLM.from_config(config))
    path = written(model, tokenizer, tmp_path)
    assert max(differences(model, LlamaServer(path, 1, POSITIONS, exact=True))) < close


@pytest.mark.parametrize(
    ("weights", "file_type", "matrix", "narrow", "close"),
    [
        ("f32", 0, "F32", "F32", CLOSE),
        ("f16", 1, "F16", "F16", 0.03),
        ("q8_0", 7, "Q8_0", "F16", 0.5),
        ("q4_0", 2, "Q4_0", "F16", 0.5),
    ],
)
def test_formats_of_weights(
    weights: str, file_type: int, matrix: str, narrow: str, close: float, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Matrices in the format asked for, where rows divide by its 32, and the network that they are, but for what enters a map.

    That is rounded as well: to half precision beside f16, to 8 bits beside q8_0 and q4_0.
    """
    blocks = (Block(64, 80, 1, heads=2, head_size=32), Block(64, 96, 1, heads=2, head_size=32))
    model = network("llama", blocks)
    path = written(model, tokenizer, tmp_path, weights)
    read = gguf.GGUFReader(path)
    assert read.fields["general.file_type"].contents() == file_type
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_q.weight"] == kinds["blk.1.ffn_down.weight"] == matrix
    assert kinds["blk.0.ffn_down.weight"] == narrow  # rows of 80
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"
    rounded = rounded_as(model, read)
    assert max(differences(rounded, LlamaServer(path, 1, POSITIONS, exact=True))) < close
    if weights == "q4_0":  # the weights' own rounding is far more
        assert abs(logarithms(model, PROMPT) - logarithms(rounded, PROMPT)).max() > 2 * close


def rounded_as(model: MerinoForCausalLM, read: Any) -> MerinoForCausalLM:
    """A copy of a network with the matrices of a file, apart from queries and keys, whose rows stand in another order there."""
    copied = copy.deepcopy(model)
    values = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in read.tensors}
    number = 0
    for block in copied.model.blocks:
        for layer in block.layers:
            inside = {"attn_v": layer.attention.value, "attn_output": layer.attention.output}
            inside |= {"ffn_up": layer.ffn.up, "ffn_gate": layer.ffn.gate, "ffn_down": layer.ffn.down}
            for name, module in inside.items():
                module.weight.data = torch.tensor(values[f"blk.{number}.{name}.weight"])
            for name, module in (("attn_q", layer.attention.query), ("attn_k", layer.attention.key)):
                rows = torch.tensor(values[f"blk.{number}.{name}.weight"]).unflatten(0, (-1, 16, 2))
                module.weight.data = rows.transpose(1, 2).flatten(0, 2).contiguous()
            number += 1
    copied.model.tokens.weight.data = torch.tensor(values["token_embd.weight"])
    copied.lm_head.weight.data = torch.tensor(values["output.weight"])
    return copied


@pytest.mark.parametrize("weights", ["f16", "q8_0"])
def test_relu_networks_keep_their_digits(weights: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Scaling the stream, so that GELU does as ReLU, costs no digits of rounded weights: as close as a network without it."""
    off = []
    for family in ("opt", "qwen2"):
        model = network(family, alike())
        path = written(model, tokenizer, tmp_path / family, weights)
        spread = logarithms(model, PROMPT).std().item()
        off.append(max(differences(model, LlamaServer(path, 1, POSITIONS, exact=True))) / spread)
    assert off[0] < 2 * off[1]


def test_shared_layers_are_stored_as_often_as_applied(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = network("llama", (Block(64, 96, 3, heads=2, head_size=32),), shared=True)
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(written(model, tokenizer, tmp_path)).tensors}
    assert sum(name.endswith("ffn_up.weight") for name in tensors) == 3
    assert (tensors["blk.0.ffn_up.weight"] == tensors["blk.2.ffn_up.weight"]).all()


TEXTS = [
    "the quick  brown\n\n fox's 1234 <|endoftext|>x",
    "été — ünï 日本語 🙂 \t\t a",
    " leading",
    "trailing  ",
    "it'll've 'S",
    "a\r\nb\u3000c",
]


def test_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Texts are the same tokens in llama.cpp and back, special tokens included; rows beyond the tokenizer's are unused."""
    model = network("llama", alike())
    model.resize_token_embeddings(VOCABULARY + 20)
    run = LlamaServer(written(model, tokenizer, tmp_path), 1, POSITIONS)
    assert run.vocabulary == VOCABULARY + 20
    for text in TEXTS:
        tokens = tokenizer(text).input_ids
        assert run.tokens(text) == tokens
        assert run.text(tokens) == text


@pytest.mark.parametrize(
    ("family", "blocks", "options", "said"),
    [
        (
            "merino",
            (Block(64, 64, 1), Block(128, 64, 1)),
            {},
            "unequal residual widths (embedding 64, blocks 64, 128): solve a space",
        ),
        (
            "merino",
            (Block(64, 64, 1),),
            {"embedding_width": 128},
            "unequal residual widths (embedding 128, blocks 64): solve a space",
        ),
        ("merino", (*alike(), *alike(1, head_size=64)), {}, "head sizes that differ from layer to layer (32, 64)"),
        ("merino", (*alike(), *alike(1)), {}, "learned positions and layers that differ in heads or FFN width"),
        ("merino", alike(3), {}, "learned positions and heads × head size (3 × 32) unequal to the width (64)"),
        ("merino", alike(gated=True), {}, "learned positions beside gates or norms on queries and keys"),
        ("llama", alike(value_head_size=16), {}, "values of another head size (16) than queries and keys (32)"),
        ("llama", alike(gated=False), {}, "feed-forward networks without a gate"),
        ("llama", (*alike(gated=True), *alike(gated=False)), {}, "a gate in some layers and none in others"),
        ("qwen3", unlike(), {"tied": False}, "norms on queries and keys, layers that differ and an output head of its own"),
    ],
)
def test_what_llama_cpp_cannot_state(
    family: str, blocks: tuple[Block, ...], options: dict[str, Any], said: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = network(family, blocks, **options)
    with pytest.raises(ValueError, match=re.escape("llama.cpp has no architecture with ")) as refused:
        export_gguf(model, tokenizer, tmp_path, "f32")
    assert said in str(refused.value)
    assert str(refused.value).endswith("; or ship it to ort-genai, openvino-genai or executorch")
    assert not any(tmp_path.iterdir())


def test_other_activations_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    for family, said in (
        ("opt", "learned positions and the activation gelu; expected relu or gelu_new"),
        ("llama", "rotary positions and the activation gelu; expected silu"),
    ):
        model = network(family, alike())
        model.config.hidden_act = "gelu"
        with pytest.raises(ValueError, match=said):
            export_gguf(model, tokenizer, tmp_path, "f32")


def test_other_tokenizers_are_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = network("llama", alike())
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match=r"the tokenizer is WordLevel with the pre-tokenizer .*; expected byte-level BPE"):
        export_gguf(model, PreTrainedTokenizerFast(tokenizer_object=words), tmp_path, "f32")
    with pytest.raises(ValueError, match=r"the tokenizer merges no pairs of bytes, which llama.cpp does not read"):
        export_gguf(model, PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, []))), tmp_path, "f32")
    model.resize_token_embeddings(VOCABULARY - 1)
    with pytest.raises(ValueError, match="the tokenizer has 300 tokens and the network 299"):
        export_gguf(model, tokenizer, tmp_path, "f32")


def test_client_says_what_is_wrong(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder has 0 files \*\.gguf; expected one"):
        RUNTIMES["gguf"].run(tmp_path, Job(1))
    (tmp_path / FILE).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"llama\.cpp cannot run .*; export it again"):
        RUNTIMES["gguf"].run(tmp_path, Job(1))
    written(network("llama", alike()), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="exceeds the available context size"):
        RUNTIMES["gguf"].run(tmp_path, Job(1, write=((tuple(range(POSITIONS)), 1),)))


def test_weights_that_half_precision_cannot_hold(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = network("llama", alike())
    model.model.tokens.weight.data[0, 0] = 70_000.0
    with pytest.raises(ValueError, match=r"a weight of token_embd\.weight is 70000, more than half precision holds; export to f32"):
        export_gguf(model, tokenizer, tmp_path, "f16")
