"""Perplexity against a token-by-token computation, the twelve tasks against prompts written out by hand, and the command."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from formulation.records.rows import StudyStopped
from merino_net import MerinoConfig, MerinoForCausalLM, evaluate
from merino_net.network.pretrained import Model, find_models, load_model
from merino_net.scoring import perplexity, zero_shot
from merino_net.scoring.perplexity import NamedText, Score, benchmark_text, score_text, window_of, windows
from merino_net.scoring.zero_shot import TASKS, Accuracy, HubUnreachable, TaskUnavailable, ZeroShot, local_examples, task_file

END_OF_TEXT = "<|endoftext|>"
POSITIONS = 64
TEXT = """ = The mill = \n \n The mill stood by the river , and the miller 's daughter sang while the wheel turned .
 In winter the river froze and the wheel stood still ; the village had no flour and the bread was dear .
 \n = = The flood = = \n \n One spring the water rose higher than the oldest man remembered , and took the bridge with it .
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    # Large initial weights, so that predictions differ from token to token and a wrong window or label shows.
    config = GPT2Config(
        vocab_size=320,
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


class ScaledLogits(GPT2LMHeadModel):
    """A model that does more to its logits than its head."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        output = super().forward(*arguments, **options)
        output.logits = 1.5 * output.logits
        return output


def scaled() -> PreTrainedModel:
    return ScaledLogits(gpt2().config).eval()


def opt() -> PreTrainedModel:
    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=320,
            hidden_size=32,
            word_embed_proj_dim=16,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=POSITIONS,
            init_std=0.3,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).eval()


def neox() -> PreTrainedModel:
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=320,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=POSITIONS,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


def merino() -> PreTrainedModel:
    torch.manual_seed(0)
    config = MerinoConfig(
        blocks=[{"width": 64, "ffn_width": 64, "depth": 2}, {"width": 128, "ffn_width": 128, "depth": 1}],
        embedding_width=64,
        vocab_size=320,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
    )
    return MerinoForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return gpt2()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> list[Path]:
    """Two models saved with their tokenizer: GPT-2 and ours."""
    folders = [tmp_path_factory.mktemp("gpt"), tmp_path_factory.mktemp("merino")]
    for folder, network in zip(folders, (gpt2(), merino()), strict=True):
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folders


# Perplexity


@given(tokens=st.integers(1, 200), context=st.integers(1, 40), data=st.data())
def test_windows_score_every_token_once_with_its_context(tokens: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    scored: list[int] = []
    for start, end, count in windows(tokens, context, stride):
        assert 0 <= start < end <= tokens
        assert end - start == min(context, tokens)
        targets = range(end + 1 - count, end + 1)  # z[target] is predicted from z[start:target]
        assert all(target - start >= min(target, context - stride + 1) for target in targets)
        scored.extend(targets)
    assert scored == list(range(1, tokens + 1))


def naive_nats(network: PreTrainedModel, ids: list[int], context: int, stride: int) -> float:
    """Token by token: each from its own forward pass over what its window shows before it."""
    sequence, last = [0, *ids], len(ids)
    total = 0.0
    for target in range(1, last + 1):
        moves = max(0, math.ceil((target - context) / stride))
        start = max(0, min(context + moves * stride, last) - context)
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([sequence[start:target]])).logits[0, -1]
        total -= float(logits.double().log_softmax(-1)[sequence[target]])
    return total


@pytest.mark.parametrize("build", [gpt2, opt, neox, merino, scaled])
def test_score_equals_one_token_at_a_time(build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    network = build()
    ids = tokenizer(TEXT)["input_ids"]
    assert len(ids) > 2 * 48
    score = score_text(network, tokenizer, TEXT, context=48, stride=20, batch=3)
    assert score.tokens == len(ids)
    assert score.nats == pytest.approx(naive_nats(network, ids, 48, 20), rel=1e-5)


def test_only_a_plain_head_is_applied_by_itself(tokenizer: PreTrainedTokenizerFast) -> None:
    probe = torch.tensor([0, 5, 7, 9])
    assert perplexity._halves(gpt2(), probe)[1] is not None
    assert perplexity._halves(merino(), probe)[1] is not None
    assert perplexity._halves(scaled(), probe)[1] is None


def test_score_depends_on_neither_batch_nor_rows_at_a_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = [score_text(model, tokenizer, TEXT, context=16, stride=4, batch=batch).nats for batch in (1, 5, 1000)]
    monkeypatch.setattr(perplexity, "_LOGITS_BYTES", 7 * 4 * 320)
    nats.append(score_text(model, tokenizer, TEXT, context=16, stride=4, batch=5).nats)
    assert nats == pytest.approx([nats[0]] * 4, rel=1e-6)
    assert score_text(model, tokenizer, TEXT, context=16, stride=8).nats != pytest.approx(nats[0], rel=1e-6)


def test_stride_as_long_as_the_context_is_side_by_side(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    ids = ids[: len(ids) // 16 * 16]
    text = str(tokenizer.decode(ids))
    assert tokenizer(text)["input_ids"] == ids
    before, total = 0, 0.0
    for first in range(0, len(ids), 16):
        block = ids[first : first + 16]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[before, *block[:-1]]])).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(block), reduction="sum"))
        before = block[-1]
    assert score_text(model, tokenizer, text, context=16, stride=16).nats == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("context", [POSITIONS, 24])
@pytest.mark.parametrize("text", ["The mill stood by the river .", TEXT])
def test_harness_rolling_likelihood_is_the_same(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, context: int
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", max_length=context, device="cpu")
    request = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0)
    (total,) = harness.loglikelihood_rolling([request], disable_tqdm=True)
    assert score_text(model, tokenizer, text, context=context, stride=context).nats == pytest.approx(-total, rel=1e-5)


@pytest.mark.parametrize("build", [gpt2, scaled])
def test_documents_are_scored_each_by_itself(build: Callable[[], PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> None:
    network, documents = build(), ["The mill stood .", TEXT, "a", "The mill stood .", "no flour\n"]
    alone = [score_text(network, tokenizer, document, context=24, stride=10) for document in documents]
    seen: list[tuple[int, int]] = []
    both = score_text(network, tokenizer, documents, context=24, stride=10, batch=3, progress=lambda *done: seen.append(done))
    assert both.nats == pytest.approx(sum(score.nats for score in alone), rel=1e-6)
    for count in ("tokens", "words", "lines", "bytes"):
        assert getattr(both, count) == sum(getattr(score, count) for score in alone)
    assert sum(scored for scored, _ in seen) == both.tokens
    with pytest.raises(ValueError, match="at least one character, in every document"):
        score_text(network, tokenizer, [TEXT, ""])


def test_a_text_is_its_documents_whatever_file_they_come_from() -> None:
    assert NamedText("a", "", ("one", "two")).sha256 == NamedText("b", "c", ("one", "two")).sha256
    assert NamedText("a", "", ("one", "two")).sha256 != NamedText("a", "", ("onetwo",)).sha256
    assert NamedText("a", "", ("é\n",)).sha256 == hashlib.sha256("é\n".encode()).hexdigest()


def test_score_divides_by_each_count() -> None:
    score = Score(nats=12.0, tokens=6, words=4, lines=2, bytes=24)
    assert score.token_perplexity == pytest.approx(math.exp(2))
    assert score.word_perplexity == pytest.approx(math.exp(2))
    assert score.word_perplexity_without_line_ends == pytest.approx(math.exp(3))
    assert score.byte_perplexity == pytest.approx(math.exp(0.5))
    assert score.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert Score(nats=1e4, tokens=1, words=0, lines=1, bytes=1).to_dict()["token_perplexity"] is None


@pytest.mark.parametrize(
    ("text", "words", "lines", "size"),
    [(" a b \n \n c\n", 3, 3, 11), ("a b\n\nc", 3, 3, 6), ("é", 1, 1, 2), (" \n", 0, 1, 2), ("a\r\nb\r\n", 2, 2, 6)],
)
def test_counts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, words: int, lines: int, size: int) -> None:
    score = score_text(model, tokenizer, text)
    assert (score.words, score.lines, score.bytes) == (words, lines, size)
    assert (score.word_perplexity_without_line_ends is None) == (words == 0)


def test_one_token_is_scored_after_the_start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    (token,) = tokenizer("a")["input_ids"]
    with torch.no_grad():
        expected = -model(input_ids=torch.tensor([[0]])).logits[0, 0].log_softmax(-1)[token]
    assert score_text(model, tokenizer, "a").nats == pytest.approx(float(expected), rel=1e-5)


def test_bfloat16_is_near_float32(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    exact = score_text(model, tokenizer, TEXT).nats
    low = score_text(gpt2().bfloat16(), tokenizer, TEXT).nats
    assert low != exact
    assert low == pytest.approx(exact, rel=0.02)


def test_progress_adds_up_to_all_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[tuple[int, int]] = []
    score = score_text(model, tokenizer, TEXT, context=8, stride=3, batch=2, progress=lambda *both: seen.append(both))
    assert sum(scored for scored, _ in seen) == score.tokens
    assert {of for _, of in seen} == {score.tokens}


def test_default_window() -> None:
    assert window_of(2048) == (1024, 512)
    assert window_of(128) == (128, 64)
    assert window_of(None) == (1024, 512)
    assert window_of(1) == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 65}, "context of 65 tokens exceeds the model's 64 positions; ask for 64 at most"),
        ({"context": 0}, "context is 0 tokens; expected at least 1"),
        ({"context": 16, "stride": 17}, "stride is 17 tokens; expected 1 to 16"),
        ({"stride": 0}, "stride is 0 tokens; expected 1 to 64"),
        ({"batch": 0}, "batch is 0 windows"),
    ],
)
def test_windows_that_do_not_fit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score_text(model, tokenizer, TEXT, **options)


def test_texts_and_tokenizers_that_do_not_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="text is empty"):
        score_text(model, tokenizer, "")
    without = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="no end-of-text token"):
        score_text(model, without, TEXT)
    small = gpt2()
    small.resize_token_embeddings(100)
    with pytest.raises(ValueError, match="but the model knows 100 tokens"):
        score_text(small, tokenizer, TEXT)
    broken = gpt2()
    with torch.no_grad():
        broken.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="loss on the text is nan"):
        score_text(broken, tokenizer, TEXT)


def test_benchmark_files(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/ptb.test.txt").write_text(" no <unk> \n")
    (tmp_path / "wikitext2.test.txt").write_text(" = A title = \n")
    assert benchmark_text("ptb", tmp_path) == NamedText(
        "ptb", "PTB test, tokenised, with <unk>, file ptb.test.txt", (" no <unk> \n",)
    )
    assert "without <unk>" in benchmark_text("wikitext2", tmp_path).variant
    (tmp_path / "wikitext2.test.txt").unlink()
    with pytest.raises(ValueError, match=r"WikiText-2 test .*eval/wikitext2\.test\.txt.*--data-dir"):
        benchmark_text("wikitext2", tmp_path)


def test_benchmarks_of_the_hub_are_the_files_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "Salesforce/wikitext": {"text": ["", " = A title = \n", "", " Words . \n"]},
        "ptb-text-only/ptb_text_only": {"sentence": ["no it was", "but <unk>"]},
    }
    monkeypatch.setattr("datasets.load_dataset", lambda name, *_, **__: rows[name])
    assert benchmark_text("wikitext2").documents == (" \n = A title = \n \n Words . \n",)
    assert "wikitext-2-raw-v1" in benchmark_text("wikitext2").variant
    assert benchmark_text("ptb").documents == (" no it was \n but <unk> \n",)


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(ValueError, match=r"Couldn't reach the Hub.*ptb\.test\.txt"):
        benchmark_text("ptb")


# Zero-shot tasks: the lines of each local file, and for each the requests (context, continuation) with the number of the right one.

Requests = list[tuple[list[tuple[str, str]], int]]


def options_after(context: str, options: list[str], right: int) -> tuple[list[tuple[str, str]], int]:
    return [(context, f" {option}") for option in options], right


def science(name: str, stem: str) -> tuple[list[dict[str, Any]], Requests]:
    lines = [
        {
            "id": name,
            "question": {
                "stem": "Ice is",
                "choices": [{"text": text, "label": label} for text, label in (("hot", "A"), ("cold", "B"), ("loud", "C"))],
            },
            "answerKey": "B",
        },
        {
            "id": name,
            "question": {
                "stem": "Fire is",
                "choices": [{"text": text, "label": label} for text, label in (("warm", "1"), ("wet", "2"))],
            },
            "answerKey": "1",
        },
    ]
    requests = [
        options_after(stem.format("Ice is"), ["hot", "cold", "loud"], 1),
        options_after(stem.format("Fire is"), ["warm", "wet"], 0),
    ]
    return lines, requests


HELLASWAG = {
    "ind": 4,
    "activity_label": "Baking",
    "ctx_a": "A man [title] mixes.",
    "ctx_b": "he",
    "ctx": "unused",
    "endings": ["eats [step] it.", "stirs  the dough."],
    "label": "1",
    "split": "val",
    "split_type": "indomain",
}

FILES: dict[str, tuple[str, tuple[list[dict[str, Any]], Requests]]] = {
    "hellaswag": (
        "hellaswag_val.sample.PARTIAL.jsonl",
        (
            [
                {"ind": 1, "query": "Baking: A man. mixes. He", "choices": ["eats it.", "stirs the dough.", "a", "b"], "gold": 1},
                {"ind": 2, "query": "Sport: She", "choices": ["wins", "jumps", "runs", "sits"], "gold": 3},
            ],
            [
                options_after("Baking: A man. mixes. He", ["eats it.", "stirs the dough.", "a", "b"], 1),
                options_after("Sport: She", ["wins", "jumps", "runs", "sits"], 3),
            ],
        ),
    ),
    "winogrande": (
        "winogrande_xl.dev.jsonl",
        (
            [
                {"sentence": "Ann beat Eve so _ was glad.", "option1": "Ann", "option2": "Eve", "answer": "1"},
                {"sentence": "Ann beat Eve so _ was sad.", "option1": "Ann", "option2": "Eve", "answer": "2"},
            ],
            [
                ([("Ann beat Eve so Ann", " was glad."), ("Ann beat Eve so Eve", " was glad.")], 0),
                ([("Ann beat Eve so Ann", " was sad."), ("Ann beat Eve so Eve", " was sad.")], 1),
            ],
        ),
    ),
    "arc_easy": ("arc_easy.test.jsonl", science("e", "Question: {}\nAnswer:")),
    "arc_challenge": ("arc_challenge.test.jsonl", science("c", "Question: {}\nAnswer:")),
    "openbookqa": ("openbookqa_main.test.jsonl", science("o", "{}")),
    "boolq": (
        "superglue_boolq.val.jsonl",
        (
            [
                {"question": "is ice cold", "passage": "Ice is frozen.", "idx": 0, "label": True},
                {"question": "is ice hot", "passage": "Ice is frozen.", "idx": 1, "label": False},
            ],
            [
                options_after("Ice is frozen.\nQuestion: is ice cold?\nAnswer:", ["no", "yes"], 1),
                options_after("Ice is frozen.\nQuestion: is ice hot?\nAnswer:", ["no", "yes"], 0),
            ],
        ),
    ),
    "wic": (
        "superglue_wic.val.jsonl",
        (
            [
                {
                    "word": "bank",
                    "sentence1": "The bank paid.",
                    "sentence2": "A river bank.",
                    "idx": index,
                    "label": label,
                    "start1": 4,
                    "end1": 8,
                    "start2": 8,
                    "end2": 12,
                    "version": 1.1,
                }
                for index, label in enumerate((False, True))
            ],
            [
                options_after(
                    "Sentence 1: The bank paid.\nSentence 2: A river bank.\nQuestion: Is the word 'bank' used in the same way in "
                    "the two sentences above?\nAnswer:",
                    ["no", "yes"],
                    right,
                )
                for right in (0, 1)
            ],
        ),
    ),
    "cb": (
        "superglue_cb.val.jsonl",
        (
            [
                {"premise": "It rains.", "hypothesis": "it is wet", "label": label, "idx": index}
                for index, label in enumerate(("entailment", "contradiction", "neutral"))
            ],
            [
                options_after(
                    "It rains.\nQuestion: it is wet. True, False, or Neither?\nAnswer:", ["True", "False", "Neither"], right
                )
                for right in (0, 1, 2)
            ],
        ),
    ),
    "wsc": (
        "superglue_wsc.val.jsonl",
        (
            [
                {
                    "text": "Tom told Bob that he was late .",
                    "target": {"span1_index": 0, "span1_text": "Tom", "span2_index": 4, "span2_text": "he"},
                    "idx": 0,
                    "label": True,
                },
                {
                    "text": "Move the table as it is big .",
                    "target": {"span1_index": 1, "span1_text": "The\ntable.", "span2_index": 4, "span2_text": "it"},
                    "idx": 1,
                    "label": False,
                },
            ],
            [
                options_after(
                    'Passage: Tom told Bob that *he* was late.\nQuestion: In the passage above, does the pronoun "*he*" refer to '
                    '"*Tom*"?\nAnswer:',
                    ["no", "yes"],
                    1,
                ),
                options_after(
                    'Passage: Move the table as *it* is big.\nQuestion: In the passage above, does the pronoun "*it*" refer to '
                    '"*the table*"?\nAnswer:',
                    ["no", "yes"],
                    0,
                ),
            ],
        ),
    ),
    "rte": (
        "superglue_rte.val.jsonl",
        (
            [
                {"premise": "It rains.", "hypothesis": "It is wet.", "label": label, "idx": index}
                for index, label in enumerate(("entailment", "not_entailment"))
            ],
            [
                options_after("It rains.\nQuestion: It is wet. True or False?\nAnswer:", ["True", "False"], right)
                for right in (0, 1)
            ],
        ),
    ),
    "pubmedqa": (
        "pubmedqa_pqal.test500.jsonl",
        (
            [
                {"pmid": "7", "QUESTION": "Does it help?", "CONTEXTS": ["We tried.", "It helped."], "final_decision": answer}
                for answer in ("maybe", "yes", "no")
            ],
            [
                options_after("Abstract: We tried.\nIt helped.\nQuestion: Does it help?\nAnswer:", ["yes", "no", "maybe"], right)
                for right in (2, 0, 1)
            ],
        ),
    ),
    "logiqa": (
        "logiqa.test.jsonl",
        (
            [
                {"label": label, "context": "All men die.", "question": "Who dies?", "options": ["Cats", "Men", "Gods", "Stars"]}
                for label in ("b", "d")
            ],
            [
                options_after(
                    "Passage: All men die.\nQuestion: Who dies?\nChoices:\nA. Cats\nB. Men\nC. Gods\nD. Stars\nAnswer:",
                    ["Cats", "Men", "Gods", "Stars"],
                    right,
                )
                for right in (1, 3)
            ],
        ),
    ),
}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hand-made local files of all twelve tasks, and the two benchmarks."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "zero_shot").mkdir()
    for name, (lines, _) in FILES.values():
        write_lines(folder / "zero_shot" / name, lines)
    for name in ("wikitext2.test.txt", "ptb.test.txt"):
        (folder / name).write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> ZeroShot:
    return ZeroShot(model, tokenizer, 512)


class Oracle:
    """In place of the harness's model: checks the requests, and finds the right option of the first `right` examples likeliest."""

    rank, world_size = 0, 1
    requests = cut = 0

    def __init__(self, expected: Requests, right: int) -> None:
        self.expected, self.right = expected, right

    def begin(self, stderr: Any) -> None:
        pass

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        wanted = [(*pair, number) for number, (pairs, _) in enumerate(self.expected) for pair in pairs]
        assert [request.args for request in requests] == [(context, option) for context, option, _ in wanted]
        chosen = [right if number < self.right else (right + 1) % len(pairs) for number, (pairs, right) in enumerate(self.expected)]
        likely = {(number, *self.expected[number][0][option]) for number, option in enumerate(chosen)}
        return [(-1.0 if (number, context, option) in likely else -9.0, False) for context, option, number in wanted]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("right", [0, 1, 9])
def test_prompts_options_and_labels(name: str, right: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, (lines, expected) = FILES[name]
    monkeypatch.setattr(zero_shot, "_harness_class", lambda: lambda *_: Oracle(expected, right))
    path = task_file(name, data_dir)
    assert path == data_dir / "zero_shot" / file
    found = ZeroShot(None, None, None).accuracy(name, path)  # type: ignore[arg-type]
    assert found.examples == len(lines)
    assert found.acc == pytest.approx(min(right, len(lines)) / len(lines))
    assert (found.acc_norm is not None) == (name in {"hellaswag", "arc_easy", "arc_challenge", "openbookqa", "logiqa"})


def test_original_hellaswag_becomes_the_prepared(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [options_after("Baking: A man. mixes. He", ["eats it.", "stirs the dough."], 1)]
    monkeypatch.setattr(zero_shot, "_harness_class", lambda: lambda *_: Oracle(expected, 1))
    for lines in ([HELLASWAG], [{"query": expected[0][0][0][0], "choices": ["eats it.", "stirs the dough."], "gold": 1}]):
        file = write_lines(tmp_path / "hellaswag_val.jsonl", lines)
        assert ZeroShot(None, None, None).accuracy("hellaswag", file).acc == 1  # type: ignore[arg-type]
    (tmp_path / "hellaswag_val.other.jsonl").write_text("")
    assert task_file("hellaswag", tmp_path) == tmp_path / "hellaswag_val.jsonl"
    assert task_file("boolq", tmp_path) is None


def option_nats(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, context: str, option: str) -> float:
    """Log-likelihood of an option by one forward pass over context and option, the beginning cut off as positions ask."""
    before, whole = tokenizer(context)["input_ids"], tokenizer(context + option)["input_ids"]
    scored = len(whole) - len(before)
    shown = whole[-(POSITIONS + 1) :]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([shown[:-1]])).logits[0, -scored:].log_softmax(-1)
    return float(logits.gather(1, torch.tensor(whole[-scored:])[:, None]).sum())


@pytest.mark.parametrize("name", TASKS)
def test_accuracy_equals_a_direct_computation(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data_dir: Path
) -> None:
    _, (_, expected) = FILES[name]
    nats = [[option_nats(model, tokenizer, *pair) for pair in pairs] for pairs, _ in expected]
    hits = [max(range(len(own)), key=own.__getitem__) == right for own, (_, right) in zip(nats, expected, strict=True)]
    found = ZeroShot(model, tokenizer, POSITIONS, batch=3).accuracy(name, task_file(name, data_dir))
    assert found.acc == pytest.approx(sum(hits) / len(hits))
    lengths = [len(tokenizer(context + option)["input_ids"]) for pairs, _ in expected for context, option in pairs]
    assert found.requests == len(lengths)
    assert found.cut == sum(length > POSITIONS + 1 for length in lengths)
    if found.acc_norm is not None:
        normed = [
            max(range(len(own)), key=lambda i, own=own, pairs=pairs: own[i] / len(pairs[i][1][1:])) == right  # type: ignore[misc]
            for own, (pairs, right) in zip(nats, expected, strict=True)
        ]
        assert found.acc_norm == pytest.approx(sum(normed) / len(normed))


def test_limit_takes_examples_spread_over_the_task(harness: ZeroShot, data_dir: Path, tmp_path: Path) -> None:
    assert zero_shot.spread(10, 4) == [0, 2, 5, 7]
    assert zero_shot.spread(3, 100) == [0, 1, 2]
    file = task_file("cb", data_dir)
    assert file is not None
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    hits = {harness.accuracy("cb", write_lines(tmp_path / "one.jsonl", [line])).acc: line for line in lines}
    assert set(hits) == {0.0, 1.0}
    ordered = write_lines(tmp_path / "ordered.jsonl", [hits[1.0], hits[1.0], hits[0.0], hits[0.0]])
    assert harness.accuracy("cb", ordered, limit=2).acc == 0.5
    assert harness.accuracy("cb", file, limit=2).examples == 2
    single = harness.accuracy("cb", file, limit=1)
    assert (single.examples, single.acc_stderr) == (1, None)
    assert harness.accuracy("cb", file, limit=100).examples == 3


def test_option_longer_than_the_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"an option is .* tokens long, but the model has 2 positions"):
        ZeroShot(model, tokenizer, 2).accuracy("hellaswag", task_file("hellaswag", data_dir))


def changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    """The lines of a task's file, the last one with other fields; None removes one."""
    *lines, last = FILES[name][1][0]
    last = {key: value for key, value in {**last, **fields}.items() if value is not None}
    return [*lines, last]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("boolq", changed("boolq", label=1), "line 2 of .*: the label is 1; expected False or True"),
        ("boolq", changed("boolq", passage=None), "line 2 of .* has no field 'passage'; expected the original format of boolq"),
        ("rte", changed("rte", label="neutral"), "label is 'neutral'; expected 'entailment' or 'not_entailment'"),
        ("arc_easy", changed("arc_easy", answerKey="C"), "label is 'C'; expected '1' or '2'"),
        ("winogrande", changed("winogrande", answer="3"), "label is '3'; expected '1' or '2'"),
        ("winogrande", changed("winogrande", sentence="no gap"), "the sentence has no gap"),
        ("pubmedqa", changed("pubmedqa", final_decision="Yes"), "expected 'yes' or 'no' or 'maybe'"),
        ("logiqa", changed("logiqa", label="e"), "label is 'e'"),
        ("hellaswag", changed("hellaswag", gold=4), "label is 4"),
        ("hellaswag", [{**HELLASWAG, "label": "2"}], "label is 2"),
        ("wsc", changed("wsc", target="it"), "line 2 of .* cannot be read as an example of wsc"),
        ("cb", [], "has no example"),
    ],
)
def test_local_files_that_do_not_fit(tmp_path: Path, name: str, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        local_examples(name, write_lines(tmp_path / "file.jsonl", lines))


def test_line_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text('\n{"premise": \n')
    with pytest.raises(ValueError, match=r"line 2 of .* cannot be read as an example of cb"):
        local_examples("cb", tmp_path / "file.jsonl")


# The command


def run(output: Path, *arguments: Any) -> tuple[int, dict[str, Any]]:
    """The command's exit code and what it wrote."""
    code = evaluate.main(["--output", str(output), "--device", "cpu", *map(str, arguments)])
    return code, json.loads((output / "evaluate.json").read_text())


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that does not answer; gives the names asked for."""
    asked: list[str] = []

    def fail(path: str, **_: Any) -> None:
        asked.append(path)
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("datasets.load_dataset", fail)
    monkeypatch.setattr(
        AutoConfig, "from_pretrained", lambda name: (_ for _ in ()).throw(OSError(f"We couldn't connect for {name}"))
    )
    return asked


def test_models_side_by_side(tmp_path: Path, folders: list[Path], data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "own.txt.xz"
    text.write_bytes(lzma.compress(b"The mill stood still .\n"))
    arguments = [*folders, "--benchmark", "wikitext2", "--text", text, "--tasks", "cb", "wic", "--data-dir", data_dir]
    code, found = run(tmp_path / "out", *arguments)
    assert code == 0
    assert [model["name"] for model in found["models"]] == [folder.name for folder in folders]
    assert found["models"][0]["texts"] != found["models"][1]["texts"]
    assert found["not_run"] == {}
    assert found["provenance"]["versions"].keys() >= {"torch", "transformers", "lm_eval"}
    first = found["models"][0]
    wikitext, own = first["texts"]
    assert (wikitext["text"], own["text"]) == ("wikitext2", "own.txt.xz")
    assert (wikitext["context"], wikitext["stride"], wikitext["start_token"]) == (POSITIONS, POSITIONS // 2, END_OF_TEXT)
    # The paper names WiC before CB.
    assert [task["task"] for task in first["tasks"]] == ["wic", "cb"]
    assert [task["few_shot"] for task in first["tasks"]] == [0, 0]
    assert first["mean_accuracy"] == pytest.approx(sum(task["acc"] for task in first["tasks"]) / 2)
    shown = capsys.readouterr().out
    for folder in folders:
        assert shown.count(f"\n{folder.name} ") == 3, "one line in each of three tables"
    assert "CB*" in shown
    assert "CB 3 of 56" in shown
    assert "no examples in the prompt" in shown
    assert f"lost their beginning to the model's positions: {folders[0].name} on WiC 4 of 4" in shown


def test_score_in_the_command_is_that_of_the_function(
    tmp_path: Path, folders: list[Path], model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data_dir: Path
) -> None:
    options = ["--context", 32, "--stride", 32, "--batch", 2]
    _, found = run(tmp_path, folders[0], "--benchmark", "ptb", "--data-dir", data_dir, *options)
    expected = score_text(model, tokenizer, TEXT, context=32, stride=32)
    assert found["models"][0]["texts"][0]["nats"] == pytest.approx(expected.nats, rel=1e-5)


def test_rows_that_exist_are_not_measured_again(
    tmp_path: Path, folders: list[Path], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = tmp_path / "network", tmp_path / "out/rows.jsonl"
    shutil.copytree(folders[0], folder)
    arguments = [folder, "--benchmark", "ptb", "--tasks", "rte", "--data-dir", data_dir]
    loads: list[str] = []

    def load(model: Model, *others: Any) -> Any:
        loads.append(model.name)
        return original(model, *others)

    original = load_model
    monkeypatch.setattr(evaluate, "load_model", load)
    _, first = run(tmp_path / "out", *arguments)
    _, second = run(tmp_path / "out", *arguments, "--batch", 3)
    assert (len(loads), first["models"]) == (1, second["models"])
    run(tmp_path / "out", *arguments, "--limit", 1)
    assert (len(loads), len(rows.read_text().splitlines())) == (2, 3), "the text's row stands, the task's is another"
    run(tmp_path / "out", *arguments, "--stride", 5)
    assert (len(loads), len(rows.read_text().splitlines())) == (3, 4)
    run(tmp_path / "out", *arguments, "--again")
    assert (len(loads), len(rows.read_text().splitlines())) == (4, 6)
    (folder / "training_args.bin").write_bytes(b"not of the model")
    run(tmp_path / "out", *arguments)
    assert len(loads) == 4
    gpt2(seed=1).save_pretrained(folder)
    _, other = run(tmp_path / "out", *arguments)
    assert len(loads) == 5
    assert other["models"][0]["texts"][0]["nats"] != first["models"][0]["texts"][0]["nats"]


def test_a_stop_keeps_what_is_measured(
    tmp_path: Path, folders: list[Path], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [folders[0], "--benchmark", "ptb", "wikitext2", "--tasks", "rte", "--data-dir", data_dir]

    def stop(*_: Any) -> Accuracy:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ZeroShot, "accuracy", stop)
        with pytest.raises(StudyStopped, match=r"what is finished is kept in .*rows\.jsonl"):
            run(tmp_path, *arguments)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "evaluate.json").exists()
    assert run(tmp_path, *arguments)[0] == 0
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_tasks_without_a_file_are_named(
    tmp_path: Path, folders: list[Path], data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(data_dir / "zero_shot/superglue_rte.val.jsonl", tmp_path)
    code, found = run(tmp_path / "out", folders[0], "--tasks", "all", "--data-dir", tmp_path)
    assert code == 2
    assert set(found["not_run"]) == set(TASKS) - {"rte"}
    assert "not run: boolq (no file superglue_boolq.val.jsonl in the data folder)" in capsys.readouterr().out


def test_tasks_of_a_hub_that_does_not_answer(tmp_path: Path, model: PreTrainedModel, harness: ZeroShot, no_hub: list[str]) -> None:
    with pytest.raises(HubUnreachable, match=r"boolq .*superglue_boolq"):
        harness.accuracy("boolq")
    assert no_hub == ["aps/super_glue"]


def test_a_task_that_the_hub_does_not_give(
    tmp_path: Path, folders: list[Path], data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    rows = [{"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0, "idx": 0}] * 3

    def load(path: str, name: str, **_: Any) -> Any:
        if path != "nyu-mll/glue":
            raise RuntimeError("Dataset scripts are no longer supported")
        data = datasets.Dataset.from_list(rows)
        return datasets.DatasetDict({"train": data, "validation": data})

    monkeypatch.setattr("datasets.load_dataset", load)
    code, found = run(tmp_path, *folders, "--tasks", "rte", "pubmedqa")
    assert code == 2
    assert [task["task"] for model in found["models"] for task in model["tasks"]] == ["rte", "rte"]
    assert "no longer supported" in found["not_run"]["pubmedqa"]
    assert "not run: pubmedqa" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no longer supported"):
        run(tmp_path, folders[0], "--tasks", "pubmedqa")
    assert issubclass(TaskUnavailable, ValueError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "nothing to measure; give --benchmark wikitext2 ptb, --text FILE, --tasks all"),
        (["MODEL", "--benchmark", "lambada"], "--benchmark lambada is not known; expected wikitext2 or ptb"),
        (["MODEL", "--tasks", "mmlu"], "--tasks mmlu is not known; expected all, hellaswag"),
        (["MODEL", "--benchmark", "ptb", "--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["MODEL", "--tasks", "all", "--data-dir", "EMPTY"], "holds none of the tasks' files, such as hellaswag_val.jsonl"),
        (["MODEL", "--text", "TEXT", "--batch", "0"], "--batch is 0; expected at least 1"),
        (["MODEL", "--text", "TEXT", "--context", "65"], "context of 65 tokens exceeds the model's 64 positions"),
        (["MODEL", "--text", "TEXT", "--device", "abacus"], "--device abacus does not work here"),
        (["MODEL", "MODEL", "--text", "TEXT"], "MODEL names .* twice"),
        (["EMPTY", "--text", "TEXT"], "is not a model: it has no config.json"),
        (["TEXT", "--text", "TEXT"], "is a file; expected a folder"),
        (["no/such/folder", "--text", "TEXT"], "there is no folder no/such/folder"),
        (["some/model", "--text", "TEXT"], "the Hugging Face hub does not give it .We couldn't connect for some/model"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, folders: list[Path], request: pytest.FixtureRequest, arguments: list[str], message: str
) -> None:
    places = {"MODEL": folders[0], "EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text.txt"}
    places["EMPTY"].mkdir()
    places["TEXT"].write_text(TEXT)
    if arguments[0] == "some/model":
        request.getfixturevalue("no_hub")
    with pytest.raises(ValueError, match=message) as raised:
        run(tmp_path / "out", *(places.get(argument, argument) for argument in arguments))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out/rows.jsonl").exists()


def test_folders_that_lack_a_part(tmp_path: Path, folders: list[Path]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)

    def fails(message: str, **files: bytes | None) -> None:
        folder = tmp_path / "part"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(folders[0], folder)
        for name, data in files.items():
            path = folder / name.replace("__", ".")
            path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "out", folder, "--text", text)

    fails("the config.json of .* cannot be used", config__json=b"{")
    fails("the weights of part cannot be loaded", model__safetensors=None)
    fails("the weights of part cannot be loaded", model__safetensors=b"damaged")
    fails("part has no tokenizer", tokenizer__json=None, tokenizer_config__json=None)
    half = tmp_path / "half"
    gpt2().save_pretrained(half)
    weights = load_file(half / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"half lacks 1 weight, such as transformer\.h\.1.mlp.c_fc.weight"):
        run(tmp_path / "out", half, "--text", text)


def test_models_of_one_folder_name_are_told_apart(tmp_path: Path, folders: list[Path]) -> None:
    for parent, folder in zip(("a", "b"), folders, strict=True):
        shutil.copytree(folder, tmp_path / parent / "model")
    sources = [str(tmp_path / parent / "model") for parent in ("a", "b")]
    assert [model.name for model in find_models(sources)] == sources
    assert [model.name for model in find_models(sources[:1])] == ["model"]


def test_hub_models_are_known_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(_commit_hash="abc", n_positions=7)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name: config)
    (found,) = find_models(["some/model"])
    assert (found.name, found.fingerprint, found.positions) == ("some/model", "some/model@abc", 7)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["--help"])
    assert ended.value.code == 0
    assert "python -m merino_net.evaluate" in capsys.readouterr().out
