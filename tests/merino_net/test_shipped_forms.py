"""Forms by their names, and artefacts compared with PyTorch by the client of their runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from formulation.architecture import Architecture, Block
from merino_net import MerinoConfig, export
from merino_net.corpus.data import train_tokenizer
from merino_net.shipping import runtimes
from merino_net.shipping.agreement import QUANTIZED_TOLERANCES, differences_of, log_probabilities, scores_of
from merino_net.shipping.forms import FORMS, read_choice, read_choices
from merino_net.shipping.runtimes import RUNTIMES, Job, Report, Runtime, Timing, perplexity_of
from tests.fake_runtime import NAME, Abacus, install, spread_of

ARCHITECTURE = Architecture((Block(64, 96, 2), Block(128, 64, 1)), embedding_width=64, vocabulary=300, positions=48)
TEXT = ["The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and its tokenizer."""
    folder = tmp_path_factory.mktemp("forms") / "model"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(ARCHITECTURE, initializer_range=0.1)).save_pretrained(folder)
    train_tokenizer(TEXT * 3, 300).save_pretrained(folder)
    return folder


@pytest.fixture
def abacus(monkeypatch: pytest.MonkeyPatch) -> Abacus:
    """A runtime that is PyTorch."""
    return install(monkeypatch)


@pytest.mark.parametrize(
    ("text", "label", "folder", "packed"),
    [
        ("hf", "hf", ".", False),
        ("onnx", "onnx:float32", "onnx", False),
        ("openvino:int8", "openvino:int8", "openvino-int8", True),
        ("gguf", "gguf:f32", "gguf", False),
        ("gguf:f16", "gguf:f16", "gguf-f16", True),
        ("ort-genai:int4", "ort-genai:int4", "ort-genai-int4", True),
    ],
)
def test_a_form_by_its_name(text: str, label: str, folder: str, packed: bool) -> None:
    choice = read_choice(text)
    assert (choice.label, choice.folder, choice.packed) == (label, folder, packed)


def test_every_runtime_is_a_form() -> None:
    assert set(FORMS) == {"hf", "onnx", "openvino", *RUNTIMES}
    for name, runtime in RUNTIMES.items():
        assert FORMS[name].runtime is runtime
        assert FORMS[name].weights == runtime.weights
        assert runtime.weights[0] in ("f32", "float32")
    assert RUNTIMES["gguf"].table("q8_0", "decode") == "llama.cpp-q8_0-decode"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["ggfu"], "unknown form 'ggfu'; did you mean 'gguf'"),
        (["llama.cpp:q8_0"], "the form for llama.cpp is called 'gguf'; say gguf:q8_0"),
        (["gguf:q8"], "unknown number format of gguf 'q8'; did you mean 'q8_0'"),
        (["hf:int8"], "unknown number format of hf 'int8'"),
        (["hf,gguf", "gguf:f32"], "--to names gguf:f32 twice"),
        (["hf,"], "unknown form ''"),
    ],
)
def test_forms_that_there_are_not(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_choices(texts)


def test_a_misspelt_form_is_a_sentence_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'openvino'"):
        export.main([str(tmp_path / "nothing"), "--output", str(tmp_path / "out"), "--to", "hf,openvno"])
    assert list(tmp_path.iterdir()) == []


def test_an_artefact_is_compared_with_pytorch(source: Path, tmp_path: Path, abacus: Abacus) -> None:
    output = tmp_path / "out"
    assert export.main([str(source), "--output", str(output), "--to", f"{NAME},{NAME}:q8_0"]) == 0
    record = json.loads((output / "export.json").read_text())
    full, packed = record["forms"]
    assert (full["folder"], packed["folder"]) == (NAME, f"{NAME}-q8_0")
    assert full["differences"] == {"score": 0.0, "relative": 0.0, "loss": 0.0, "greedy": 0.0}
    assert full["weight_bytes"] == (output / NAME / "f32.beads").stat().st_size == 4 * packed["weight_bytes"]
    assert full["bytes"] == sum(path.stat().st_size for path in (output / NAME).rglob("*") if path.is_file())
    card = (output / "README.md").read_text()
    assert not (output / "config.json").exists()
    assert "from transformers" not in card
    assert f"| {NAME} | q8_0 | `{NAME}-q8_0` | score 0, relative 0, loss 0, greedy 0 |" in card
    assert f"```sh\nabacus out/{NAME}-q8_0\n```" in card
    job = abacus.jobs[0]
    assert job.timing is None
    assert max(len(prompt) + count for prompt, count in job.write) == ARCHITECTURE.positions  # up to the last of them


def test_an_artefact_that_computes_something_else_is_refused(source: Path, tmp_path: Path, abacus: Abacus) -> None:
    command = [str(source), "--output", str(tmp_path / "out"), "--to"]
    abacus.noise = {"f32": 2e-3}
    with pytest.raises(ValueError, match=r"Abacus computes with f32 weights differs .* 0\.002 \(score\), more than 0\.001"):
        export.main([*command, NAME])
    assert list(tmp_path.iterdir()) == []
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    spread = spread_of(model, abacus.jobs[0])
    abacus.noise = {"q8_0": 1.01 * QUANTIZED_TOLERANCES["q8_0"] * spread}
    with pytest.raises(ValueError, match=r"q8_0 weights .* 0\.1 \(relative\), more than 0\.1"):
        export.main([*command, f"{NAME}:q8_0"])
    abacus.noise = {"q8_0": 0.99 * QUANTIZED_TOLERANCES["q8_0"] * spread}
    assert export.main([*command, f"{NAME}:q8_0"]) == 0
    abacus.fail = "its beads are lost"
    with pytest.raises(ValueError, match=r"Abacus cannot run .*\(its beads are lost\)"):
        export.main([*command, NAME])
    assert (tmp_path / "out" / f"{NAME}-q8_0").is_dir()  # the earlier one


def test_differences_of_a_report(source: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    prompt = (5, 6, 7)
    rows = log_probabilities(model, [*prompt, 9])
    torch_rows = torch.log_softmax(model(torch.tensor([[*prompt, 9]])).logits[0].double(), -1)
    assert abs(rows - torch_rows.detach().numpy()).max() < 1e-9
    own = scores_of(model, prompt)
    assert own.tolist() == pytest.approx([rows[0, 6], rows[1, 7]])
    job = Job(1, write=((prompt, 2),), score=(prompt,))
    first = int(rows[2].argmin())
    second = int(log_probabilities(model, [*prompt, first])[-1].argmax())
    found = differences_of(model, job, Report("1", [[first, second]], [""], [[own[0] + 0.5, own[1] - 0.25]]))
    assert found["score"] == pytest.approx(0.5)
    assert found["loss"] == pytest.approx(-0.125)
    assert found["greedy"] == pytest.approx(rows[2].max() - rows[2].min())
    assert found["relative"] == pytest.approx(((0.25 + 0.0625) / 2) ** 0.5 / (abs(own[0] - own[1]) / 2))
    with pytest.raises(ValueError, match=r"wrote 1 tokens behind 3; expected 2, or an end of text"):
        differences_of(model, job, Report("1", [[second]], [""], [own.tolist()]))
    with pytest.raises(ValueError, match=r"scored \[1\] tokens"):
        differences_of(model, job, Report("1", [[first, second]], [""], [[0.0]]))
    with pytest.raises(ValueError, match="continued 0 texts; expected 1"):
        differences_of(model, job, Report("1", [], [], [own.tolist()]))


def runtime_with(client: str) -> Runtime:
    return Runtime("x", "X", "x", (), ("f32",), ("none", "none"), client, (), ("sh", "x FOLDER"))


def test_a_client_is_a_process_without_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "client.py").write_text(
        "import importlib.util, json, sys\n"
        "job = json.load(sys.stdin)\n"
        "print('a word of the runtime')\n"
        "assert importlib.util.find_spec('tests') is None\n"
        "print(json.dumps({'version': '7', 'written': [list(job['write'][0][0]) * job['write'][0][1]], 'scored': job['score'],\n"
        "                  'texts': [job['folder']], 'prefill_ms': [job['timing']['seq_len']], 'peak_bytes': job['threads']}))\n"
    )
    monkeypatch.setattr(runtimes, "_CLIENTS", tmp_path)
    job = Job(3, write=(((4,), 2),), score=((1, 2),), timing=Timing(64))
    report = runtime_with("client.py").run(tmp_path, job)
    assert report == Report("7", [[4, 4]], [str(tmp_path.resolve())], [[1, 2]], [64], peak_bytes=3)


@pytest.mark.parametrize(
    ("client", "reason"),
    [("raise ValueError('no such bead')", "ValueError: no such bead"), ("raise SystemExit(5)", "exit code 5"), ("", "no report")],
)
def test_a_client_that_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, reason: str) -> None:
    (tmp_path / "client.py").write_text(client)
    monkeypatch.setattr(runtimes, "_CLIENTS", tmp_path)
    with pytest.raises(ValueError, match=rf"X cannot run .*\({reason}\); export it again, or choose another runtime"):
        runtime_with("client.py").run(tmp_path, Job(1))


def test_perplexity() -> None:
    assert perplexity_of([[-1.0, -2.0], [-3.0]]) == pytest.approx(7.389056099)
