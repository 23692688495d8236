"""One reader of text: the same documents from every form of file, in every command that reads one, and what it asks for."""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from formulation.command.options import read_options
from formulation.command.run import run_command
from merino_net import MerinoConfig, MerinoForCausalLM, evaluate, train
from merino_net.corpus.data import train_tokenizer
from merino_net.corpus.text import END_OF_TEXT, Reading, Text, TextFormat
from merino_net.corpus.text_file import COMPRESSIONS, SUFFIXES
from merino_net.quantize import command_line as quantize_line
from studies.ablation.study import AblationOptions
from studies.ablation.study import command_line as ablation_line
from studies.quantization import study as quantization
from studies.quantization.variants import calibration_of
from studies.trained.runs import prepare

FIRST, SECOND = 'The "first", of Grüße\nand 😀.', "The second\tdocument\n"
DOCUMENTS = [FIRST, SECOND]


def zstandard(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard,
}


def json_lines(documents: Sequence[str], end: str = "\n") -> bytes:
    return "".join(json.dumps({"url": "x", "text": text}) + end for text in documents).encode()


def table(documents: Sequence[str], delimiter: str = ",", end: str = "\n") -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerows([("text", "url"), *((text, "http://x") for text in documents)])
    return file.getvalue().encode()


def parquet(documents: Sequence[Any], kind: Any = None, name: str = "text") -> bytes:
    sink = pyarrow.BufferOutputStream()
    columns = {"url": ["x"] * len(documents), name: pyarrow.array(documents, kind)}
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


BOM = "\ufeff".encode()
LINE = f"\n{END_OF_TEXT}\n".encode()
FORMS: dict[str, bytes] = {
    "inline.txt": f"{FIRST}{END_OF_TEXT}{SECOND}".encode(),
    "end_of_line.txt": f"{FIRST}{END_OF_TEXT}\n{SECOND}{END_OF_TEXT}\n".encode(),
    "bom_crlf.txt": BOM + f"{FIRST}{END_OF_TEXT}\n{SECOND}".replace("\n", "\r\n").encode(),
    "a.md": f"{FIRST}{END_OF_TEXT} \n{END_OF_TEXT}\n{SECOND}".encode(),
    "a.jsonl": json_lines(DOCUMENTS),
    "a.ndjson": json_lines(DOCUMENTS),
    "bom_crlf.jsonl": BOM + b"\r\n" + json_lines(DOCUMENTS, "\r\n"),
    "lines.json": b"\n" + json_lines(DOCUMENTS),
    "strings.json": BOM + json.dumps(DOCUMENTS).encode(),
    "objects.JSON": json.dumps([{"id": 1, "text": text} for text in DOCUMENTS], indent=2).encode(),
    "object.json": json.dumps({"text": f"{FIRST}{END_OF_TEXT}{SECOND}"}, indent=2).encode(),
    "crlf_inside.json": json.dumps([text.replace("\n", "\r\n") for text in DOCUMENTS]).encode(),
    "a.csv": table(DOCUMENTS),
    "bom_crlf.csv": BOM + table(DOCUMENTS, end="\r\n"),
    "a.TSV": table(DOCUMENTS, "\t"),
    "a.parquet": parquet(DOCUMENTS),
    "large.parquet": parquet(DOCUMENTS, pyarrow.large_string()),
    "categories.parquet": parquet(DOCUMENTS, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
}


def read(*sources: Path, **reading: Any) -> list[str]:
    return list(Text(tuple(map(str, sources)), reading=Reading(**reading)).documents())


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    assert read(file(tmp_path / name, FORMS[name])) == DOCUMENTS


@pytest.mark.parametrize("suffix", [*COMPRESSIONS, ".GZ", ".Xz", ".BZ2", ".ZST"])
@pytest.mark.parametrize("name", ["inline.txt", "bom_crlf.jsonl", "objects.JSON", "a.csv"])
def test_every_form_may_be_compressed_in_any_letter_case(tmp_path: Path, name: str, suffix: str) -> None:
    path = file(tmp_path / f"{name}{suffix}", COMPRESS[suffix.lower()](FORMS[name]))
    assert read(path) == DOCUMENTS


def test_every_suffix_and_compression_is_tried() -> None:
    assert {Path(name).suffix.lower() for name in FORMS} | {".rst"} == set(SUFFIXES)
    assert set(COMPRESS) == {"", *COMPRESSIONS}


@pytest.mark.parametrize("name", FORMS)
def test_a_format_that_is_named_goes_before_the_suffix(tmp_path: Path, name: str) -> None:
    form = SUFFIXES[Path(name).suffix.lower()]
    assert read(file(tmp_path / "unknown.data", FORMS[name]), format=form) == DOCUMENTS


# Where a document ends


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("one<|endoftext|>two\n", ["one", "two\n"]),
        ("one<|endoftext|>two\nmore\n", ["one", "two\nmore\n"]),
        ("one\n<|endoftext|>\ntwo", ["one\n", "two"]),
        ("one\n \t<|endoftext|> \r\ntwo", ["one\n", "two"]),
        ("one\n<|endoftext|>two", ["one\n", "two"]),
        ("one <|endoftext|> two", ["one ", " two"]),
        ("one<|endoftext|>\n\ntwo", ["one", "\ntwo"]),
        ("<|endoftext|>one<|endoftext|><|endoftext|>two<|endoftext|>", ["one", "two"]),
        ("one<|endoftext|>two<|endoftext|>\nthree\n<|endoftext|>\n<|endoftext|>four", ["one", "two", "three\n", "four"]),
        ("<|endoftext", ["<|endoftext"]),
    ],
)
def test_the_end_of_text_ends_a_document_wherever_it_stands(tmp_path: Path, text: str, documents: list[str]) -> None:
    assert read(file(tmp_path / "a.txt", text.encode())) == documents
    assert read(file(tmp_path / "a.json", json.dumps([text]).encode())) == documents
    assert read(file(tmp_path / "a.parquet", parquet([text]))) == documents


def test_a_carriage_return_elsewhere_stays(tmp_path: Path) -> None:
    assert read(file(tmp_path / "a.txt", b"a\rb\r\r\nc\r")) == ["a\rb\r\nc\r"]


# The field


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_field_of_another_name_is_asked_for(tmp_path: Path, name: str) -> None:
    records = [{"title": "t", "body": text} for text in DOCUMENTS]
    csv_text = table(DOCUMENTS).replace(b"text,url", b"body,title")
    contents = {
        "a.jsonl": "\n".join(map(json.dumps, records)).encode(),
        "a.json": json.dumps(records).encode(),
        "a.csv": csv_text,
        "a.parquet": parquet(DOCUMENTS, name="body"),
    }
    path = file(tmp_path / name, contents[name])
    sentence = refusal(read, path)
    assert str(path) in sentence
    assert "; expected one of text, content, sentence, or say which holds the text with --text-field" in sentence
    assert read(path, field="body") == DOCUMENTS
    assert "and no bodi; give one of them to --text-field" in refusal(read, path, field="bodi")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_of_two_candidates_the_user_says_which(tmp_path: Path, name: str) -> None:
    record = {"sentence": "one", "text": "two"}
    contents = {"a.jsonl": json.dumps(record), "a.json": json.dumps([record]), "a.csv": "sentence,text\none,two\n"}
    path = file(tmp_path / name, contents.get(name, "sentence\ttext\none\ttwo\n").encode())
    assert "text and sentence may each hold the text; say which with --text-field" in refusal(read, path)
    assert (read(path, field="sentence"), read(path, field="text")) == (["one"], ["two"])


def test_a_field_of_a_text_without_fields_is_refused(tmp_path: Path) -> None:
    plain, lines = file(tmp_path / "a.txt", b"one"), file(tmp_path / "a.jsonl", b'{"body": "two"}')
    assert "a.txt is plain and has no field body; leave --text-field out" in refusal(read, plain, field="body")
    assert "is plain and has no field" in refusal(Text(reading=Reading("body")).documents)
    assert read(plain, lines, field="body") == ["one", "two"]
    assert sorted(read(tmp_path, field="body")) == ["one", "two"]
    strings = file(tmp_path / "a.json", b'["one"]')
    assert f'item 1 of {strings} is a string; expected an object with a "body"' in refusal(read, strings, field="body")


# What cannot be read


BAD = [
    ("a.json", b"{", "line 1 of a.json, column 2, is not valid JSON"),
    ("a.json", b'\n[{"text": "a"},\n {"text" "b"}]', "line 3 of a.json, column 10, is not valid JSON"),
    ("a.json", b'{"text": "a"}\n{"text": 1}', 'line 2 of a.json has a number as its "text"; expected a string'),
    ("a.json", b'\n{"text": "a"}\n{"url": "b"}', 'line 3 of a.json has no "text", which held the text so far'),
    ("a.json", b'[{"text": "a"}, {"url": "b"}]', 'item 2 of a.json has no "text"'),
    ("a.json", b'["a", null]', "item 2 of a.json is null; expected a string or an object"),
    ("a.json", b"3", "a.json holds a number; expected an array"),
    ("a.json", b'{"text": ["a"]}', 'line 1 of a.json has an array as its "text"'),
    ("a.json", b'{"n": 1}', "line 1 of a.json has the field n; expected one of text"),
    ("a.json", b"{}", "line 1 of a.json has the fields (none)"),
    ("a.json", b"[{}]", "item 1 of a.json has the fields (none)"),
    ("a.json", b"[" * 100_000, "a.json cannot be read as JSON: it is nested too deeply"),
    ("a.json", b'["\\ud83d"]', "item 1 of a.json holds '\\ud83d', half a surrogate pair"),
    ("a.json", b'["a\xff"]', "byte 0xff at offset 3 of a.json is not UTF-8"),
    ("a.jsonl", b'["a"]', "line 1 of a.jsonl is an array; expected an object on each line"),
    ("a.ndjson", b'{"text": "a"}\n{"text"', "line 2 of a.ndjson is not valid JSON; expected an object on each line"),
    ("a.csv", b"text,url\na\n", "line 2 of a.csv has 1 value; expected 2, one for each column of the first line"),
    ("a.csv", b"text,url\na,b,c\n", "line 2 of a.csv has 3 values; expected 2"),
    ("a.csv", b'text\n"a\nb', "line 3 of a.csv is not valid CSV (unexpected end of data)"),
    ("a.tsv", b'text\n"a"b', "line 2 of a.tsv is not valid TSV"),
    ("a.csv", b"text,text\na,b\n", "a.csv has the column text twice; expected it once"),
    ("a.csv", b"text\na\xe9b\n", "byte 0xe9 at offset 6 of a.csv is not UTF-8"),
    ("a.csv", b"text\n\n \n", "a.csv holds no text"),
    ("a.csv", b"a line of prose\n", "a.csv has the field a line of prose; expected one of text"),
    ("a.parquet", b"no such thing", "a.parquet is damaged or not a Parquet file"),
    ("a.parquet", parquet(DOCUMENTS)[:-20], "a.parquet is damaged or not a Parquet file"),
    ("a.parquet", parquet([1, 2]), "the column text of a.parquet holds int64; expected strings"),
    ("a.parquet", parquet(["a", None]), 'row 2 of a.parquet has no value as its "text"; expected a string'),
    ("a.parquet", parquet(["a"], name="body"), "a.parquet has the fields url, body; expected one of text"),
    ("a.parquet.gz", gzip.compress(parquet(DOCUMENTS)), "a.parquet.gz is compressed as a whole"),
    *((f"a.txt{suffix}", b"no such thing", f"a.txt{suffix} is damaged or not a {suffix} file") for suffix in COMPRESSIONS),
    *(
        (f"a.json{suffix}", COMPRESS[suffix](FORMS["strings.json"])[:-9], f"a.json{suffix} is damaged or not a {suffix} file")
        for suffix in COMPRESSIONS
    ),
    *(
        (name, b"", f"{name} holds no text")
        for name in ("a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.txt.gz", "a.json.zst")
    ),
    *((name, BOM + b" \r\n\n", f"{name} holds no text") for name in ("a.json", "a.jsonl", "a.txt")),
    ("a.json", b"[]", "a.json holds no text"),
    ("a.parquet", parquet([], pyarrow.string()), "a.parquet holds no text"),
    ("a.txt.gz", gzip.compress(b"a\xff"), "byte 0xff at offset 1 of a.txt.gz (uncompressed) is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    sentence = refusal(read, file(tmp_path / name, content))
    assert said in sentence.replace(f"{tmp_path}/", "")


def test_parquet_that_is_not_utf_8_names_the_byte(tmp_path: Path) -> None:
    raw = pyarrow.array([b"fine", b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
    path = file(tmp_path / "a.parquet", parquet(raw))
    assert f"byte 0xe9 at offset 3 of the text in row 2 of {path} is not UTF-8" in refusal(read, path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"field": ""}, "the text field has no name"),
        ({"format": "xml"}, "the text format is 'xml'; expected one of plain, json, jsonl, csv, tsv, parquet"),
        ({"memory_bytes": 0}, "memory_bytes is 0; expected at least 1"),
    ],
)
def test_readings_that_are_none(arguments: dict[str, Any], said: str) -> None:
    assert said in refusal(Reading, **arguments)


# Memory


LONG = "x" * 200_000
TOO_LONG: dict[str, bytes] = {
    "a.txt": LONG.encode(),
    "lines.txt": b"x\n" * 100_000,
    "blank.txt": b"\n" * 200_000,
    "a.jsonl": json_lines(["a", LONG]),
    "a.json": json.dumps(["a"] * 40_000).encode(),
    "a.csv": table(["a", LONG]),
    "open.csv": b'text\n"' + b"a\n" * 200_000,
    "a.parquet": parquet(["a", LONG]),
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, suffix) for name in TOO_LONG for suffix in ("", *COMPRESSIONS) if not suffix or not name.endswith("parquet")],
)
def test_a_piece_longer_than_the_memory_for_it_is_one_sentence(tmp_path: Path, name: str, suffix: str) -> None:
    path = file(tmp_path / f"{name}{suffix}", COMPRESS[suffix](TOO_LONG[name]))
    where = f"{path} has more than 100,000 bytes{' (uncompressed)' if suffix else ''} in one piece, the most text held at a time"
    sentence = refusal(read, path, memory_bytes=100_000)
    assert sentence.startswith(where)
    assert sentence.endswith("allow more with --text-memory")
    if name not in ("open.csv", "blank.txt"):
        assert read(path, memory_bytes=1_000_000)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_what_can_be_read_a_document_at_a_time_may_be_of_any_length(tmp_path: Path, name: str) -> None:
    documents = [str(number) * 50 for number in range(1000, 1500)]
    contents = {
        "a.txt": LINE.decode().join(documents).encode(),
        "a.jsonl": json_lines(documents),
        "a.json": json_lines(documents),
        "a.csv": table(documents),
        "a.parquet": parquet(documents),
    }
    found = [document.strip() for document in read(file(tmp_path / name, contents[name]), memory_bytes=1000)]
    assert found == documents


def test_what_is_held_whole_is_bounded_as_well(tmp_path: Path) -> None:
    text = Text((str(file(tmp_path / "a.jsonl", json_lines(["é" * 300] * 4))),), reading=Reading(memory_bytes=2000))
    assert len(list(text.documents())) == 4
    assert "a.jsonl is longer than 2,000 bytes, and it has to be held whole" in refusal(text.in_memory)
    assert Text(text.sources, reading=Reading(memory_bytes=2400)).in_memory() == ("é" * 300,) * 4


def test_a_compressed_text_takes_the_memory_that_was_stated(tmp_path: Path) -> None:
    """A gzip of 64 KB that unpacks to 64 MB is refused when 1 MB of it has been read."""
    pytest.importorskip("resource", reason="what a process held is asked of Unix")
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(bytes(1 << 20))
    program = f"""
import resource, sys
from merino_net.corpus.text import Reading, Text
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(Text(({str(path)!r},), reading=Reading(memory_bytes=1 << 20)).documents())
except ValueError as error:
    print(error)
kib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (1024 if sys.platform == "darwin" else 1)
sys.exit(f"{{kib}} KiB were held" if kib > 16 * 1024 else 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "has more than 1 MiB (uncompressed) in one piece" in ended.stdout, ended.stderr
    assert ended.returncode == 0, ended.stderr


# The commands


PROSE = [" ".join(f"{word} {number}" for word in ("the", "mill", "stood", "still")) + "\n" for number in range(200)]
COMMAND_FORMS: dict[str, bytes] = {
    "a.jsonl": json_lines(PROSE),
    "b.ndjson": json_lines(PROSE, "\r\n"),
    "c.JSON.GZ": gzip.compress(json.dumps([{"text": text} for text in PROSE]).encode()),
    "d.csv": table(PROSE),
    "e.parquet": parquet(PROSE),
    "f.txt": BOM + "\r\n".join(f"{text.strip()}\r\n{END_OF_TEXT}" for text in PROSE).encode(),
    "g.txt.zst": zstandard("".join(f"{text}{END_OF_TEXT}" for text in PROSE).encode()),
}
VOCABULARY = 280


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("forms")
    return [str(file(folder / name, content)) for name, content in COMMAND_FORMS.items()]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(PROSE, VOCABULARY)
    tokenizer.save_pretrained(folder)
    config = MerinoConfig(
        blocks=[{"width": 64, "ffn_width": 64, "depth": 1}],
        embedding_width=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    )
    MerinoForCausalLM(config).save_pretrained(folder)
    return folder


def test_evaluate_scores_the_same_bytes_of_every_form(tmp_path: Path, forms: list[str], network: Path) -> None:
    arguments = ["--output", str(tmp_path), "--device", "cpu", "--text", *forms]
    assert evaluate.main([str(network), *arguments]) == 0
    [model] = json.loads((tmp_path / "evaluate.json").read_text())["models"]
    assert [one["text"] for one in model["texts"]] == list(COMMAND_FORMS)
    size = sum(map(len, PROSE))
    for one in model["texts"]:
        assert (one["bytes"], one["lines"], one["sha256"]) == (size, len(PROSE), model["texts"][0]["sha256"])
        assert one["nats"] == model["texts"][0]["nats"]


def test_train_and_the_studies_read_the_same_tokens_of_every_form(tmp_path: Path, forms: list[str]) -> None:
    from merino_net.corpus.data import kept_tokenizer, token_array

    expected = None
    for form in forms:
        given = ["--text", form, "--vocabulary", "270", "--cache", str(tmp_path / "cache")]
        data = prepare(read_options(AblationOptions, ablation_line(), given).data, tmp_path / Path(form).name)
        text = Text((form,))
        tokens = token_array(text, kept_tokenizer(text, 270, tmp_path / Path(form).name / "tokenizer"), tmp_path / "cache")
        assert data.training == str(tokens.filename)
        expected = tokens if expected is None else expected
        assert (tokens == expected).all()
        assert list(tokens).count(0) == len(PROSE)


COMMANDS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "train": train.command_line,
    "evaluate": evaluate.command_line,
    "quantize": quantize_line,
    "ablation": ablation_line,
    "quantization": quantization.command_line,
}
NEEDED = {
    "train": ["design.json"],
    "evaluate": ["model"],
    "quantize": ["model", "--method", "gptq", "--bits", "4", "--output", "o"],
    "quantization": ["model"],
}


def reading_of(name: str, flags: Sequence[str]) -> Reading:
    options = COMMANDS[name]().parse_args([*NEEDED.get(name, []), *flags])
    return Reading.of(options.text_field, options.text_format, options.text_memory)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_reads_a_text_has_the_same_flags(name: str) -> None:
    flags = ["--text-field", "body", "--text-format", "csv", "--text-memory", "7"]
    reading = Reading("body", TextFormat.CSV, 7 << 20)
    assert reading_of(name, flags) == reading
    assert reading.arguments() == flags
    default = reading_of(name, [])
    assert default == Reading()
    assert default.arguments() == ["--text-memory", "1024"]


def test_the_calibration_text_is_read_as_the_flags_say(tmp_path: Path) -> None:
    path = file(tmp_path / "a.data", b"body\nx\n")
    given = ["model", "--calibration-text", str(path), "--text-format", "csv", "--text-field", "body"]
    flags = ["--evaluation-text", str(path), *given[1:]]
    options = read_options(quantization.QuantizationOptions, quantization.command_line(), ["model", *flags])
    found = calibration_of(options.making)
    assert found["text_sha256"] == Text((str(path),), reading=Reading("body", TextFormat.CSV)).fingerprint()


def design(folder: Path) -> Path:
    from formulation import Architecture, Block

    path = folder / "design.json"
    path.write_text(Architecture((Block(64, 64, 1),), embedding_width=64, vocabulary=VOCABULARY, positions=32).to_json())
    return path


SHORT = [
    "--steps",
    "2",
    "--log-every",
    "1",
    "--batch",
    "2",
    "--sequence",
    "16",
    "--peak-tflops",
    "1",
    "--evaluate-every",
    "2",
    "--save-every",
    "2",
]


@pytest.mark.parametrize("name", ["a.csv", "a.json.gz"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_command_reads_the_field_that_it_is_told(tmp_path: Path, network: Path, command: str, name: str) -> None:
    records = json.dumps([{"title": "t", "body": text} for text in PROSE]).encode()
    body = table(PROSE).replace(b"text,url", b"body,title")
    path = file(tmp_path / name, body if name == "a.csv" else gzip.compress(records))
    if command == "train":
        arguments = [str(design(tmp_path)), *SHORT, "--cache", str(tmp_path / "cache"), "--held-out", "0.1"]
    else:
        arguments = [str(network), "--device", "cpu"]
    arguments += ["--output", str(tmp_path / "out"), "--text", str(path)]
    main = train.main if command == "train" else evaluate.main
    assert "say which holds the text with --text-field" in refusal(main, arguments)
    assert main([*arguments, "--text-field", "body"]) == 0


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_command_refuses_a_text_that_unpacks_to_too_much(
    tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = file(tmp_path / "a.txt.gz", gzip.compress(bytes(3 << 20)))
    first = [str(design(tmp_path)), *SHORT] if command == "train" else [str(network)]
    given = [*first, "--output", str(tmp_path / "out"), "--text", str(path), "--text-memory", "1"]
    with pytest.raises(SystemExit) as left:
        run_command(train.main if command == "train" else evaluate.main, given)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.count("\n") == 1
    assert said.startswith(f"error: {path} has more than 1 MiB (uncompressed) in one piece")
