"""Cached decoding is full decoding, a seed is a text, and the command says in a sentence what is wrong."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from formulation import Block
from merino_net import MerinoConfig, MerinoForCausalLM, generate
from merino_net.corpus.data import END_OF_TEXT, train_tokenizer
from merino_net.generate import GREEDY, Sampling, continuation

POSITIONS = 32
VOCABULARY = 270
TEXT = ["The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood."]


def network(seed: int = 0, **changes: object) -> MerinoForCausalLM:
    """A small network whose large weights make its predictions differ from token to token."""
    blocks = [Block(64, 96, 2), Block(128, 64, 1)]
    shape = {"blocks": [block.to_dict() for block in blocks], "embedding_width": 96}
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "initializer_range": 0.1}
    torch.manual_seed(seed)
    return MerinoForCausalLM(MerinoConfig(**{**shape, **sizes, **changes})).eval()  # type: ignore[arg-type]


@st.composite
def networks(draw: st.DrawFn) -> MerinoForCausalLM:
    kv_heads = st.sampled_from([1, 2, 3])
    block = st.builds(
        lambda groups, kv_heads, **others: Block(heads=groups * kv_heads, kv_heads=kv_heads, **others),
        groups=kv_heads,
        kv_heads=kv_heads,
        width=st.sampled_from([48, 64, 128, 192]),
        ffn_width=st.integers(8, 192),
        depth=st.integers(1, 3),
        head_size=st.sampled_from([16, 64]),
        value_head_size=st.sampled_from([None, 24]),
        gated=st.sampled_from([None, True]),
        shared=st.sampled_from([None, True, False]),
    )
    return network(
        seed=draw(st.integers(0, 2**31)),
        blocks=[each.to_dict() for each in draw(st.lists(block, min_size=1, max_size=4))],
        shared=draw(st.booleans()),
        embedding_width=draw(st.sampled_from([64, 80, 128, 192])),
        vocab_size=draw(st.integers(5, 60)),
        hidden_act=draw(st.sampled_from(["gelu", "relu", "silu"])),
        initializer_range=0.05,
    )


@settings(max_examples=50, derandomize=True)
@given(networks(), st.integers(1, 8), st.data())
def test_cached_decoding_is_full_decoding(model: MerinoForCausalLM, length: int, data: st.DataObject) -> None:
    vocabulary = model.config.vocab_size
    tokens = torch.tensor([data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=length, max_size=length))])
    cached, full = (continuation(model, tokens, 12, cache=cache) for cache in (True, False))
    assert cached.shape == (1, 12)
    assert torch.equal(cached, full)

    whole = torch.cat([tokens, cached], 1)
    with torch.no_grad():
        at_once = model(whole, use_cache=False).logits
        step = model(whole[:, :length], use_cache=True)
        parts = [step.logits]
        for i in range(length, whole.shape[1]):
            step = model(whole[:, i : i + 1], past_key_values=step.past_key_values, use_cache=True)
            parts.append(step.logits)
    assert (torch.cat(parts, 1) - at_once).abs().max() < 1e-5
    assert torch.equal(at_once[:, length - 1 : -1].argmax(-1), cached)  # greedy is the most probable token


@settings(max_examples=10, derandomize=True)
@given(networks(), st.integers(1, 5))
def test_a_padded_batch_gives_what_each_row_gives_alone(model: MerinoForCausalLM, padding: int) -> None:
    rows = [torch.arange(6), torch.arange(6).flip(0)[: 6 - padding]]
    rows = [row % model.config.vocab_size for row in rows]
    batch = torch.stack([rows[0], torch.cat([torch.zeros(padding, dtype=torch.long), rows[1]])])
    mask = torch.ones_like(batch)
    mask[1, :padding] = 0
    together = continuation(model, batch, 8, attention_mask=mask)
    for row, found in zip(rows, together, strict=True):
        assert torch.equal(continuation(model, row[None], 8)[0], found)


def test_a_seed_is_a_text() -> None:
    model, tokens = network(), torch.tensor([[1, 2, 3]])
    first, again, other = (continuation(model, tokens, 20, Sampling(), seed=seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_sampling_keeps_to_what_is_asked() -> None:
    model, tokens = network(), torch.tensor([[1, 2, 3]] * 200)
    greedy = continuation(model, tokens[:1], 1)[0]
    assert set(continuation(model, tokens, 1, Sampling(top_k=1)).flatten().tolist()) == {int(greedy)}
    assert set(continuation(model, tokens, 1, Sampling(top_p=1e-9)).flatten().tolist()) == {int(greedy)}
    few, all_of_them = (set(continuation(model, tokens, 1, Sampling(temperature=5, top_k=k)).flatten().tolist()) for k in (3, 0))
    assert len(few) == 3
    assert len(all_of_them) > 50


def test_settings_of_the_model_do_not_enter() -> None:
    model, tokens = network(), torch.tensor([[1, 2, 3]])
    plain = continuation(model, tokens, 10)
    model.generation_config.repetition_penalty = 50.0
    model.generation_config.max_length = 4
    kept = model.generation_config
    assert torch.equal(continuation(model, tokens, 10), plain)
    assert model.generation_config is kept


def test_a_text_ends_at_its_end() -> None:
    model, tokens = network(), torch.tensor([[1, 2, 3]])
    free = continuation(model, tokens, 10)[0].tolist()
    end = free[4]
    assert continuation(model, tokens, 10, end=end)[0].tolist() == free[: free.index(end) + 1]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": 1e-40}, "temperature is 1e-40"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top-k is -1"),
        ({"top_p": 0.0}, "top-p is 0"),
        ({"top_p": 1.5}, "top-p is 1.5"),
    ],
)
def test_sampling_that_makes_no_sense(values: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Sampling(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXT * 3, VOCABULARY)


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "model"
    network().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert generate.main(arguments) == 0
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_the_command_streams_a_text(
    folder: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = answer(capsys, str(folder), "--prompt", "The mill", "--tokens", "12", "--greedy", "--device", "cpu")
    tokens = tokenizer("The mill", return_tensors="pt")["input_ids"]
    made = continuation(MerinoForCausalLM.from_pretrained(folder), tokens, 12, end=tokenizer.eos_token_id)
    assert out == tokenizer.decode([*tokens[0], *made[0]], skip_special_tokens=True) + "\n"
    assert "tokens/s" in err
    without, _ = answer(capsys, str(folder), "--prompt", "The mill", "--tokens", "12", "--greedy", "--no-cache", "--device", "cpu")
    assert without == out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"The mill\n")))
    piped, _ = answer(capsys, str(folder), "--prompt", "-", "--tokens", "12", "--greedy", "--device", "cpu")
    assert piped == out


def test_an_empty_prompt_begins_a_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = answer(capsys, str(folder), "--tokens", "5", "--seed", "3")
    assert END_OF_TEXT not in out
    assert out == answer(capsys, str(folder), "--tokens", "5", "--seed", "3")[0]


def test_the_positions_hold_prompt_and_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    length = len(tokenizer("The mill")["input_ids"])
    assert generate.prompt_tokens(tokenizer, "The mill", POSITIONS - length, POSITIONS).shape == (1, length)
    with pytest.raises(ValueError, match=f"leaves {POSITIONS - length} and not the {POSITIONS} asked for"):
        generate.prompt_tokens(tokenizer, "The mill", POSITIONS, POSITIONS)
    with pytest.raises(ValueError, match="shorten it"):
        generate.prompt_tokens(tokenizer, "x" * 100, 1, POSITIONS)
    assert generate.prompt_tokens(tokenizer, "x" * 100, 10**6, None).shape == (1, 100)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--tokens", "0"], "--tokens is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--greedy", "--top-k", "5"], "--greedy takes the most probable token, so --top-k"),
        (["--temperature", "nan"], "temperature is nan"),
        (["--tokens", "1000"], "asked for"),
        (["--prompt", "b\udcffd"], "byte 0xff at offset 1"),
        (["--device", "abacus"], "--device abacus does not work"),
    ],
)
def test_mistakes_are_a_sentence(folder: Path, arguments: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        generate.main([str(folder), *arguments])
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_model(folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        generate.main([str(tmp_path)])
    network().save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="tokenizer"):
        generate.main([str(tmp_path / "bare")])
    weights = (folder / "model.safetensors").read_bytes()
    for name, damaged in (("cut", weights[: len(weights) // 2]), ("empty", b""), ("noise", b"\xff" * 1000)):
        network().save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        (tmp_path / name / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="weights") as caught:
            generate.main([str(tmp_path / name)])
        assert "\n" not in str(caught.value)
    network(vocab_size=100).save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    with pytest.raises(ValueError, match="use the model's own tokenizer"):
        generate.main([str(tmp_path / "short"), "--prompt", "zzz é", "--tokens", "2"])
    config = json.loads((folder / "config.json").read_text())
    of_before = {"block_widths": [64, 128], "block_ffn_widths": [96, 64], "block_depths": [2, 1]}
    wrong = [({"blocks": [{"width": 65, "ffn_width": 64, "depth": 1}]}, "65, which 64"), (of_before, "train the design again")]
    for change, said in wrong:
        (tmp_path / "noise" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=rf"config\.json .*{said}") as caught:
            generate.main([str(tmp_path / "noise")])
        assert "\n" not in str(caught.value)


def test_the_command_line(folder: Path) -> None:
    command = [sys.executable, "-m", "merino_net.generate", str(folder), "--prompt", "-", "--tokens"]
    done = subprocess.run([*command, "4"], input=b"b\xff", capture_output=True, timeout=1800)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == ["error: the prompt is not UTF-8: byte 0xff at offset 1 cannot be read; convert it"]


def test_greedy_is_temperature_zero() -> None:
    assert generate.sampling_of(False, temperature=0.0, top_k=None, top_p=None) == GREEDY
    assert generate.sampling_of(True, temperature=None) == GREEDY
    assert generate.sampling_of(False, temperature=None, top_p=0.5) == Sampling(top_p=0.5)
