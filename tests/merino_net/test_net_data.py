"""Text, tokenizer and packed sequences: what is read from where, that nothing is lost on the way, and every sentence of refusal."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from merino_net.corpus import data
from merino_net.corpus.data import (
    END_OF_TEXT,
    PADDING,
    Sequences,
    Text,
    load_tokenizer,
    packed,
    save_tokenizer,
    split,
    token_array,
    train_tokenizer,
)
from merino_net.corpus.text import Reading, TextFormat

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 600
TOPICS = list(Text().documents())
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress}

texts = st.text() | st.text("ab \n\r\t'.1é😀" + END_OF_TEXT)
"""Any Unicode, and the characters at which the tokenizer has something to decide."""
whole = texts.filter(lambda text: text.strip() and "\r\n" not in text and END_OF_TEXT not in text)
"""Texts that are one document, and read as they are written."""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TOPICS, VOCABULARY)


def serialized(tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.backend_tokenizer.to_str()


def read(*sources: Path | str, at_most: int | None = None) -> list[str]:
    return list(Text(tuple(map(str, sources)), at_most).documents())


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """The sentence of the ValueError that the call ends in: one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def file(path: Path, content: str | bytes) -> Path:
    """`path` with this content, compressed as its suffix says."""
    content = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(content))
    return path


# Where documents come from


def test_without_sources_it_is_the_documentation_of_python() -> None:
    assert [topics[name] for name in sorted(topics)] == TOPICS
    assert len(TOPICS) > 50


@pytest.mark.parametrize("compression", COMPRESS)
def test_plain_text(tmp_path: Path, compression: str) -> None:
    content = f"one\r\n\n two \n{END_OF_TEXT}\n\n \n{END_OF_TEXT}\r\nthree {END_OF_TEXT} three\n{END_OF_TEXT}"
    path = file(tmp_path / f"a.txt{compression}", content)
    assert read(path) == ["one\n\n two \n", "three ", " three\n"]
    assert read(path, at_most=1) == ["one\n\n two \n"]


@pytest.mark.parametrize("name", ["a.txt", "a.log", "plain", "a.TXT.XZ", "a.b.gz"])
def test_a_file_without_a_separator_is_one_document(tmp_path: Path, name: str) -> None:
    content = "Grüße\n\n 😀 of \x85 unusual\u2028 lines\x0c\r\r \n"
    path = tmp_path / name
    path.write_bytes(COMPRESS.get(path.suffix.lower(), bytes)(content.encode()))
    assert read(path) == [content]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read(file(tmp_path / "a.txt", f"\ufeff{END_OF_TEXT}\na\ufeff")) == ["a\ufeff"]
    assert read(file(tmp_path / "a.jsonl", '\ufeff{"text": "a"}')) == ["a"]


@settings(max_examples=50)
@given(
    documents=st.lists(whole, min_size=1),
    compression=st.sampled_from(sorted(COMPRESS)),
)
def test_json_lines(tmp_path_factory: pytest.TempPathFactory, documents: list[str], compression: str) -> None:
    lines = [json.dumps({"id": 1, "text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(documents)]
    path = file(tmp_path_factory.mktemp("json") / f"a.jsonl{compression}", "\n\n".join([*lines, '{"text": " "}\n']))
    assert read(path) == documents


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    names = ("b.txt", "a/z.md.xz", "a/b/c.rst", "a/y.jsonl.gz", "c.TXT", "d.json", "e.csv")
    for name in names:
        file(tmp_path / name, f"text\n{name}\n" if "csv" in name else json.dumps({"text": name}) if "json" in name else name)
    for name in ("d.py", "e.gz", ".hidden.txt", ".git/f.txt"):
        file(tmp_path / name, "left out")
    file(tmp_path / "blank.txt", " \n")
    assert read(tmp_path) == ["a/b/c.rst", "a/y.jsonl.gz", "a/z.md.xz", "b.txt", "c.TXT", "d.json", "e.csv"]
    assert read(tmp_path / "d.py", tmp_path, at_most=2) == ["left out", "a/b/c.rst"]


def test_a_big_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    path = file(tmp_path / "a.txt", b"one\n" + END_OF_TEXT.encode() + b"\n\xff")
    documents = Text((str(path),)).documents()
    assert next(documents) == "one\n"
    assert "0xff at offset 18" in refusal(next, documents)
    assert read(path, at_most=1) == ["one\n"]


BAD_JSON = ["{", "[1]", "3", '{"text": 1}', '{"body": "a"}', "9" * 5000, "[" * 100_000]


@pytest.mark.parametrize("line", BAD_JSON, ids=lambda line: line[:15])
def test_refused_json_lines(tmp_path: Path, line: str) -> None:
    path = file(tmp_path / "a.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    sentence = refusal(read, path)
    assert sentence.startswith(f"line 3 of {path} ")
    assert "; expected " in sentence


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}')
    assert f"line 2 of {path} holds '\\ud83d'" in refusal(read, path)


def test_wrong_utf_8_names_the_byte(tmp_path: Path) -> None:
    wrong = "\ufeffé\n".encode() + END_OF_TEXT.encode() + b"\na\nbc\xe9d\n"
    offset = wrong.index(b"\xe9")
    for name in ("a.txt", "a.txt.xz"):
        path = file(tmp_path / name, wrong)
        sentence = refusal(read, path)
        assert sentence.startswith(f"byte 0xe9 at offset {offset} of {path}")
        assert ("uncompressed" in sentence) == name.endswith("xz")
    path = file(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}')
    assert f"offset 24 of {path}" in refusal(read, path)
    assert "0xff at offset 0" in refusal(read, file(tmp_path / "b.txt", "a".encode("utf-16")))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
@pytest.mark.parametrize("content", ["", " \r\n\t\n", "\ufeff"], ids=repr)
def test_nothing_to_read(tmp_path: Path, name: str, content: str) -> None:
    path = file(tmp_path / name, content)
    assert f"{path} holds no text" in refusal(read, path)
    assert f"{tmp_path} holds 1 text file but no text" in refusal(read, tmp_path)


@pytest.mark.parametrize("suffix", [".xz", ".gz"])
def test_damaged_compression(tmp_path: Path, suffix: str) -> None:
    whole = file(tmp_path / f"a.txt{suffix}", "\n".join(TOPICS[:5])).read_bytes()
    flipped = whole[:200] + bytes([whole[200] ^ 0xFF]) + whole[201:]
    for content in (whole[:-20], whole[: len(whole) // 2], b"no such thing", flipped, b"\0" + whole):
        (tmp_path / f"b.txt{suffix}").write_bytes(content)
        assert f"b.txt{suffix} is damaged or not a {suffix} file" in refusal(read, tmp_path / f"b.txt{suffix}")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    there = file(tmp_path / "a.txt", "a")
    missing = str(tmp_path / "missing.txt")
    assert f"there is no file or folder {missing}" in refusal(Text((str(there), missing)).documents)
    (tmp_path / "empty").mkdir()
    assert "empty holds no text file; expected .txt, .md" in refusal(Text((str(there), str(tmp_path / "empty"))).documents)
    assert "expected a tuple" in refusal(Text, "a.txt")
    assert "expected a tuple" in refusal(Text, ("",))
    assert "documents_at_most is 0" in refusal(Text, (), 0)


# Data sets of the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `load_dataset` was asked for ("asked") and what it answers ("rows": a list, or an error to raise)."""
    state: dict[str, Any] = {"rows": []}

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        assert streaming
        state["asked"] = (name, config, split)
        if isinstance(state["rows"], Exception):
            raise state["rows"]
        return iter(state["rows"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return state


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hub:lm1b", ("lm1b", None, "train")),
        ("hub:owner/name", ("owner/name", None, "train")),
        ("hub:owner/name@test", ("owner/name", None, "test")),
        ("hub:owner/name/config@train[:5%]", ("owner/name", "config", "train[:5%]")),
    ],
)
def test_names_of_the_hub(hub: dict[str, Any], source: str, asked: tuple[str, str | None, str]) -> None:
    hub["rows"] = [{"text": "a"}]
    assert read(source) == ["a"]
    assert hub["asked"] == asked


@pytest.mark.parametrize("source", ["hub:", "hub:@test", "hub:a/", "hub:a/b/c/d", "hub:a/b@"])
def test_refused_names_of_the_hub(source: str) -> None:
    assert f"{source} names no data set; expected hub:OWNER/NAME" in refusal(Text((source,)).documents)


@pytest.mark.parametrize("field", ["text", "content", "sentence"])
def test_rows_of_the_hub(hub: dict[str, Any], field: str) -> None:
    hub["rows"] = [{"title": "x", field: value} for value in ("one", "", " \n", "two", "three")]
    assert read("hub:a/b") == ["one", "two", "three"]
    assert read("hub:a/b", at_most=2) == ["one", "two"]


def test_an_endless_data_set_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any, **__: Any) -> Iterator[dict[str, str]]:
        number = 0
        while True:
            yield {"text": str(number)}
            number += 1

    monkeypatch.setattr(datasets, "load_dataset", endless)
    assert read("hub:a/b", at_most=3) == ["0", "1", "2"]


def test_of_text_and_content_the_user_says_which(hub: dict[str, Any]) -> None:
    hub["rows"] = [{"content": "b", "text": "a"}]
    assert "hub:a/b has the fields content, text, and text and content may each hold the text" in refusal(read, "hub:a/b")
    assert list(Text(("hub:a/b",), reading=Reading("content")).documents()) == ["b"]


def test_refused_rows_of_the_hub(hub: dict[str, Any]) -> None:
    hub["rows"] = [{"question": "a", "answer": "b"}]
    assert "hub:a/b has the fields question, answer; expected one of text, content, sentence" in refusal(read, "hub:a/b")
    hub["rows"] = [{"text": "a"}, {"text": None}]
    assert 'row 2 of hub:a/b has None as its "text"' in refusal(read, "hub:a/b")


UNREADABLE = [
    ConnectionError("Couldn't reach 'a/b' on the Hub\n(OfflineModeIsEnabled)."),
    ValueError("BuilderConfig 'x' not found."),
    RuntimeError("Dataset scripts are no longer supported"),
    datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"),
    datasets.exceptions.DatasetGenerationError("An error occurred"),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__)
def test_a_hub_that_cannot_be_read(hub: dict[str, Any], error: Exception) -> None:
    hub["rows"] = error
    reason = " ".join(str(error).split()).rstrip(".")
    assert refusal(read, "hub:a/b").startswith(f"hub:a/b cannot be read ({reason}); check the name and the connection")


def test_a_connection_lost_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        raise ConnectionError("Server Disconnected")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    assert read("hub:a/b", at_most=1) == ["a"]
    assert "cannot be read (Server Disconnected)" in refusal(read, "hub:a/b")


def test_without_the_package_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        read("hub:a/b")


# The fingerprint


def test_fingerprints_tell_texts_apart(tmp_path: Path) -> None:
    a, b = file(tmp_path / "x" / "a.txt", "a"), file(tmp_path / "x" / "b.txt", "b")
    lines = [file(tmp_path / name, '{"text": "a"}') for name in ("c.txt", "c.jsonl", "c.txt.gz")]
    file(tmp_path / "ab.txt", "ab")
    sources: list[tuple[Path | str, ...]] = [
        (),
        (a,),
        (b,),
        (a, b),
        (b, a),
        (a, a),
        (tmp_path / "ab.txt",),
        *((one,) for one in lines),
    ]
    sources += [("hub:a/b",), ("hub:a/b@test",), ("hub:a/b/test",), ("hub:a",)]
    some = [Text(tuple(map(str, names)), most) for names in sources for most in (None, 1)]
    forms = (TextFormat.JSON, TextFormat.CSV, TextFormat.TSV, TextFormat.PARQUET)
    some += [Text((str(a),), reading=Reading(format=form)) for form in forms]
    some += [Text((str(a),), reading=Reading(field, TextFormat.JSON_LINES)) for field in (None, "a", "b")]
    some += [Text(("hub:a/b",), reading=Reading(field)) for field in ("a", "b")]
    prints = [text.fingerprint() for text in some]
    assert len(set(prints)) == len(prints)
    assert all(len(one) == 64 for one in prints)
    assert [text.fingerprint() for text in some] == prints


def test_fingerprints_of_results_that_exist_stand(tmp_path: Path) -> None:
    """They are parts of the keys of committed rows, so that with other ones the rows would be measured again."""

    def expected(*files: list[Any]) -> str:
        return hashlib.sha256(json.dumps([1, None, *files]).encode()).hexdigest()

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    plain, packed, lines = (file(tmp_path / name, '{"text": "a"}') for name in ("a.txt", "a.txt.xz", "a.jsonl"))
    assert Text((str(plain),)).fingerprint() == expected([False, "", sha256(plain)])
    assert Text((str(packed), str(lines))).fingerprint() == expected([False, ".xz", sha256(packed)], [True, "", sha256(lines)])
    known = Text((str(plain),), reading=Reading(format=TextFormat.JSON_LINES))
    assert known.fingerprint() == Text((str(lines),)).fingerprint()
    assert Text((str(plain),), reading=Reading(memory_bytes=99)).fingerprint() == Text((str(plain),)).fingerprint()


def test_fingerprints_know_bytes_and_not_names(tmp_path: Path) -> None:
    a, b = file(tmp_path / "a.txt", "a"), file(tmp_path / "b.txt", "b")
    other = file(tmp_path / "other" / "z.md", "a")
    assert Text((str(a),)).fingerprint() == Text((str(other),)).fingerprint()
    before = Text((str(a), str(b))).fingerprint()
    assert Text((str(tmp_path),)).fingerprint() != before
    other.unlink()
    assert Text((str(tmp_path),)).fingerprint() == before
    file(b, "c")
    assert Text((str(a), str(b))).fingerprint() != before


# The tokenizer


def test_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == VOCABULARY
    assert sorted(tokenizer.get_vocab().values()) == list(range(VOCABULARY))
    assert tokenizer.bos_token == tokenizer.eos_token == END_OF_TEXT
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert tokenizer.pad_token == PADDING
    assert len(train_tokenizer(TOPICS, 258)) == 258


@given(texts)
def test_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("text", ["do n't . , ? !", " a  b ", "\n\n", "", "\0\x7f\x80\ud7ff\ue000\uffff\U0010ffff", "é", "e\u0301"])
def test_round_trip_of_what_others_tidy(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_words_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    assert {"Ġthe", "Ġof", "Ġstatement"} <= set(tokenizer.get_vocab())
    ids = tokenizer(TOPICS[0]).input_ids
    assert len(ids) < 0.5 * len(TOPICS[0].encode())
    assert tokenizer("the").input_ids != tokenizer(" the").input_ids  # no space is put in front


def test_same_text_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    assert serialized(train_tokenizer(iter(TOPICS), VOCABULARY)) == serialized(tokenizer)


@pytest.mark.slow
def test_another_process_makes_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    program = f"""
import sys
from merino_net.corpus.data import Text, train_tokenizer
sys.stdout.write(train_tokenizer(Text().documents(), {VOCABULARY}).backend_tokenizer.to_str())
"""
    command = [sys.executable, "-c", program]
    alone = {"PATH": "", "PYTHONHASHSEED": "7", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, encoding="utf-8", timeout=1800, check=True)
    assert ended.stdout == serialized(tokenizer)


def test_long_documents_are_cut_for_training_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr(data, "_PIECE", 100)
    assert serialized(train_tokenizer(TOPICS, VOCABULARY)) == serialized(tokenizer)


def test_too_large_a_vocabulary() -> None:
    documents = ["abc abc abd"]
    sentence = refusal(train_tokenizer, documents, 50_257)
    most = 260  # two merges: of the pairs that then remain, each is seen once
    assert sentence == (
        "the text supports a vocabulary of 260 tokens at most, fewer than the 50,257 asked for; "
        "give more text or ask for fewer with --vocabulary 260"
    )
    assert len(train_tokenizer(documents, most)) == most
    assert f"supports a vocabulary of {most} tokens" in refusal(train_tokenizer, documents, most + 1)


def test_the_largest_vocabulary_is_written_for_people() -> None:
    sentence = refusal(train_tokenizer, TOPICS, 200_000)
    most = int(sentence.rpartition("--vocabulary ")[2])
    assert most > 1000
    assert f"of {most:,} tokens at most, fewer than the 200,000" in sentence


@pytest.mark.parametrize("vocabulary", [257, 256, 1, 0, -1, 2.5, True])
def test_refused_vocabularies(vocabulary: Any) -> None:
    assert f"vocabulary is {vocabulary}; expected" in refusal(train_tokenizer, TOPICS, vocabulary)


# Tokenizers of others


def test_saved_and_loaded(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is False
    for loaded in (load_tokenizer(str(tmp_path)), load_tokenizer(str(tmp_path / "tokenizer.json"))):
        assert serialized(loaded) == serialized(tokenizer)
        assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 0, 1)
        text = f" do n't . {END_OF_TEXT} é"
        assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.decode(loaded(text).input_ids) == text


def test_saved_for_others(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The class is one that every release of transformers knows, and nothing of this machine is written down."""
    tokenizer.save_pretrained(tmp_path)
    for source, kind in ((tmp_path, "GPT2Tokenizer"), (tmp_path / "tokenizer.json", "PreTrainedTokenizerFast")):
        folder = tmp_path / kind
        folder.mkdir()
        save_tokenizer(load_tokenizer(str(source)), folder, 64)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == kind
        assert not {"local_files_only", "is_local", "name_or_path"} & set(settings)
        loaded = load_tokenizer(str(folder))
        assert loaded.model_max_length == 64
        assert serialized(loaded) == serialized(tokenizer)


def word_tokenizer(end: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words in lower case, the very opposite of ours; `end` is its end of text."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[UNK]", *([end] if end else [])]
    tokenizer.train_from_iterator(TOPICS, trainers.WordLevelTrainer(vocab_size=200, special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **({"eos_token": end} if end else {}))


def test_another_end_of_text(tmp_path: Path) -> None:
    word_tokenizer("</s>").save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert (loaded.eos_token, loaded.pad_token) == ("</s>", "</s>")
    tokens = token_array(Text(documents_at_most=2), loaded, tmp_path / "cache")
    assert list(tokens).count(loaded.eos_token_id) == 2
    assert tokens[-1] == loaded.eos_token_id
    file_alone = refusal(load_tokenizer, str(tmp_path / "tokenizer.json"))
    assert f"has no token {END_OF_TEXT}" in file_alone


def test_no_end_of_text(tmp_path: Path) -> None:
    without = word_tokenizer(None)
    without.save_pretrained(tmp_path)
    assert "has no end-of-text token" in refusal(load_tokenizer, str(tmp_path))
    assert "has no end-of-text token" in refusal(token_array, Text(), without, tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', ""])
def test_damaged_tokenizers(tmp_path: Path, content: str) -> None:
    path = file(tmp_path / "tokenizer.json", content)
    for name in (path, tmp_path):
        assert f"{path} is not a tokenizer file" in refusal(load_tokenizer, str(name))


def test_tokenizers_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"the folder {tmp_path} holds no tokenizer" in refusal(load_tokenizer, str(tmp_path))
    for name in (str(tmp_path / "missing"), "runs/a/tokenizer.json", "a/b/c", "tokenizer.json"):
        assert f"there is no file or folder {name}" in refusal(load_tokenizer, name)

    def unreachable(name: str, **_: Any) -> None:
        raise OSError(f"We couldn't connect to the hub for {name}.\nCheck your internet connection.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    sentence = refusal(load_tokenizer, "owner/name")
    assert "there is no folder owner/name, and no such tokenizer came from the hub (We couldn't connect" in sentence


# Tokens on disk


def parts(tokens: np.ndarray, end: int) -> list[list[int]]:
    """The documents of an array of tokens, each of which must end in `end`."""
    found: list[list[int]] = [[]]
    for token in tokens.tolist():
        if token == end:
            found.append([])
        else:
            found[-1].append(token)
    assert found.pop() == []
    return found


@settings(max_examples=50)
@given(documents=st.lists(whole, min_size=1, max_size=5))
def test_every_document_survives_in_order(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, documents: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    path = file(folder / "a.jsonl", "\n".join(json.dumps({"text": text}) for text in documents))
    tokens = token_array(Text((str(path),)), tokenizer, folder / "deep" / "cache")
    assert [tokenizer.decode(part) for part in parts(tokens, tokenizer.eos_token_id)] == documents


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_spelling_the_end_of_text_ends_it(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    text = f"say {END_OF_TEXT} here"
    path = file(tmp_path / name, json.dumps([text]) if name == "a.json" else text)
    tokens = token_array(Text((str(path),)), tokenizer, tmp_path)
    assert tokens.tolist() == [*tokenizer("say ").input_ids, 0, *tokenizer(" here").input_ids, 0]


def test_spelling_another_special_token_does_not_make_it(tmp_path: Path) -> None:
    path = file(tmp_path / "a.txt", "say </s> here")
    tokens = token_array(Text((str(path),)), word_tokenizer("</s>"), tmp_path)
    assert tokens.tolist().count(1) == 1
    assert tokens[-1] == 1


@pytest.mark.parametrize("piece", [1, 50, 1000])
@pytest.mark.parametrize("batch", [1, 3000])
def test_pieces_and_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, piece: int, batch: int
) -> None:
    text = Text(documents_at_most=4)
    whole = token_array(text, tokenizer, tmp_path / "whole")
    expected = [tokenizer(document).input_ids for document in text.documents()]
    assert parts(whole, 0) == expected
    monkeypatch.setattr(data, "_PIECE", piece)
    monkeypatch.setattr(data, "_BATCH", batch)
    assert len(list(data._pieces(TOPICS[0], tokenizer.backend_tokenizer))) > (len(TOPICS[0]) / piece) / 20
    assert np.array_equal(token_array(text, tokenizer, tmp_path / "pieces"), whole)


@given(text=st.text("ab1 \n\t'.,é\u00a0\u3000½", min_size=1), piece=st.integers(1, 5))
def test_a_cut_changes_no_token(tokenizer: PreTrainedTokenizerFast, text: str, piece: int) -> None:
    encoder = tokenizer.backend_tokenizer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_PIECE", piece)
        found = list(data._pieces(text, encoder))
        trained_on = list(data._pieces(text))
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    for pieces in (found, trained_on):
        assert "".join(part for part, _ in pieces) == text
        assert [one for part, _ in pieces for one in data._ids(encoder, part)] == data._ids(encoder, text)


def test_no_cut_where_a_tokenizer_marks_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.normalizer = normalizers.Prepend("▁")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    tokenizer.train_from_iterator(TOPICS[:5], trainer)
    monkeypatch.setattr(data, "_PIECE", 50)
    assert list(data._pieces(TOPICS[0], tokenizer)) == [(TOPICS[0], True)]


def test_the_settings_of_a_tokenizer_do_not_leak_in(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(documents_at_most=2)
    expected = token_array(text, tokenizer, tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "saved")
    other = load_tokenizer(str(tmp_path / "saved"))
    other("a", split_special_tokens=True)
    other(["a", "a b"], padding=True, truncation=True, max_length=2)
    assert np.array_equal(token_array(text, other, tmp_path / "b"), expected)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [path.name for path in (tmp_path / "b").iterdir()]


def test_the_type_follows_the_vocabulary(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(documents_at_most=1)
    small = token_array(text, tokenizer, tmp_path)
    assert small.dtype == np.uint16
    tokenizer.save_pretrained(tmp_path / "saved")
    wide = load_tokenizer(str(tmp_path / "saved"))
    wide.add_tokens([f"\ue000{number}" for number in range((1 << 16) - VOCABULARY)])
    assert token_array(text, wide, tmp_path).dtype == np.uint16
    wide.add_tokens(["\ue001"])
    large = token_array(text, wide, tmp_path)
    assert large.dtype == np.uint32
    assert np.array_equal(small, large)


def cache_file(folder: Path) -> Path:
    """The one file in the cache: nothing temporary may be left beside it."""
    (path,) = folder.iterdir()
    assert path.suffix == ".npy"
    return path


def test_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(documents_at_most=3)
    built = token_array(text, tokenizer, tmp_path)
    path = cache_file(tmp_path)
    assert np.array_equal(np.load(path, mmap_mode="r"), built)
    assert not built.flags.writeable
    assert isinstance(built, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(Text, "documents", None)
        assert np.array_equal(token_array(text, tokenizer, tmp_path), built)
    token_array(Text(documents_at_most=2), tokenizer, tmp_path)
    token_array(text, train_tokenizer(TOPICS, 300), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_caches_are_built_again(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(documents_at_most=1)
    good = np.array(token_array(text, tokenizer, tmp_path))
    path = cache_file(tmp_path)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:50],
        whole[:128],
        whole[:-2],
        whole[:-1],
        whole + b"\0",
        whole + b"\0\0",
        b"\0" * len(whole),
        b"PK" + whole[2:],
    ):
        path.write_bytes(damaged)
        assert np.array_equal(token_array(text, tokenizer, tmp_path), good)
        assert cache_file(tmp_path).read_bytes() == whole


def test_several_at_once(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(documents_at_most=20)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda _: np.array(token_array(text, tokenizer, tmp_path)), range(8)))
    assert all(np.array_equal(array, arrays[0]) for array in arrays)
    cache_file(tmp_path)


def test_a_text_that_cannot_be_read_leaves_no_cache(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = file(tmp_path / "a.txt", f"one\n{END_OF_TEXT}\n".encode() * 1000 + b"\xff")
    assert "is not UTF-8" in refusal(token_array, Text((str(path),)), tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_leaves_no_cache(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    resource = pytest.importorskip("resource", reason="only Unix limits the size of a file")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"[Tt]oo large"):
            token_array(Text(), tokenizer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


# Sequences


@given(length=st.integers(2, 500), seq_len=st.integers(2, 50))
def test_packed(length: int, seq_len: int) -> None:
    tokens = np.arange(length, dtype=np.uint16)
    if length < seq_len:
        assert f"holds {length} tokens, fewer than the {seq_len} of one sequence" in refusal(packed, tokens, seq_len)
        return
    rows = packed(tokens, seq_len)
    assert rows.shape == (length // seq_len, seq_len)
    assert np.shares_memory(rows, tokens)
    assert np.array_equal(rows.ravel(), tokens[: rows.size])
    assert length - rows.size < seq_len


def test_a_text_of_one_character(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = token_array(Text((str(file(tmp_path / "a.txt", "x")),)), tokenizer, tmp_path)
    assert "the text holds 2 tokens, fewer than the 1,024 of one sequence" in refusal(packed, tokens, 1024)
    assert "holds 1 token," in refusal(packed, tokens[:1], 2)


@pytest.mark.parametrize("seq_len", [1, 0, -3, 1.5])
def test_refused_sequence_lengths(seq_len: Any) -> None:
    assert f"seq_len is {seq_len}; expected" in refusal(packed, np.arange(9), seq_len)


@given(sequences=st.integers(2, 300), held_out=st.floats(0.001, 0.999), seed=st.integers(0, 2**32))
def test_split(sequences: int, held_out: float, seed: int) -> None:
    count = round(sequences * held_out)
    if count in (0, sequences):
        assert f"a share of {held_out:g} of {sequences} sequences leaves none" in refusal(split, sequences, held_out, seed)
        return
    train, held = split(sequences, held_out, seed)
    assert len(held) == count
    assert sorted([*train, *held]) == list(range(sequences))
    assert all(np.all(np.diff(side) > 0) for side in (train, held))
    again = split(sequences, held_out, seed)
    assert all(np.array_equal(one, other) for one, other in zip((train, held), again, strict=True))


def test_the_split_is_a_function_of_the_seed() -> None:
    sides = {tuple(split(1000, 0.1, seed)[1]) for seed in range(5)}
    assert len(sides) == 5
    drawn = np.concatenate([split(1000, 0.1, seed)[1] for seed in range(50)])
    assert abs(drawn.mean() - 499.5) < 25  # from all over the text: 5,000 draws have a standard error of 4


def test_refused_splits() -> None:
    for held_out in (0.0, 1.0, -0.1, 2.0, float("nan")):
        assert f"held_out is {held_out}; expected a share above 0 and below 1" in refusal(split, 100, held_out, 0)
    assert "of 1 sequence leaves none to hold out" in refusal(split, 1, 0.1, 0)
    assert "of 10 sequences leaves none to hold out" in refusal(split, 10, 0.01, 0)
    assert "of 10 sequences leaves none to train on" in refusal(split, 10, 0.99, 0)
    assert "seed is -1" in refusal(split, 10, 0.5, -1)


def test_sequences(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = packed(token_array(Text(documents_at_most=3), tokenizer, tmp_path), 32)
    train, held = split(len(rows), 0.25, seed=3)
    everything, some = Sequences(rows), Sequences(rows, held)
    assert (len(everything), len(some)) == (len(rows), len(held))
    for number, index in enumerate(held):
        item = some[number]
        assert set(item) == {"input_ids", "labels"}
        assert item["input_ids"].dtype == item["labels"].dtype == torch.int64
        assert item["input_ids"].tolist() == item["labels"].tolist() == rows[index].tolist()
    batch = transformers.default_data_collator([everything[index] for index in train[:4].tolist()])
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 32)
    batch["labels"][0, 0] = -100
    assert everything[int(train[0])]["input_ids"].min() >= 0
    assert len(list(torch.utils.data.DataLoader(some, batch_size=4))) == -(-len(held) // 4)
    with pytest.raises(IndexError):
        some[len(held)]
