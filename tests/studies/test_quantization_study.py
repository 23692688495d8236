"""The quantization study: what it makes and measures of each variant, nothing of it twice, and what it says of mistakes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from formulation.architecture import Architecture, Block
from merino_net import MerinoConfig
from merino_net.corpus.data import train_tokenizer
from merino_net.quantize import Plan
from studies.quantization import study as quantization
from studies.quantization import variants as quantization_variants
from studies.quantization.figures import draw_quantization
from studies.quantization.variants import Variant, variants_of

HAS_GPTQ = importlib.util.find_spec("llmcompressor") is not None
HAS_OPENVINO = importlib.util.find_spec("nncf") is not None and importlib.util.find_spec("openvino") is not None
HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
VOCABULARY, POSITIONS = 300, 32
SENTENCE = "The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still. "


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantization")
    torch.manual_seed(0)
    architecture = Architecture((Block(64, 64, 3),), True, 64, VOCABULARY, POSITIONS)
    AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(architecture, initializer_range=0.1)).save_pretrained(
        folder / "model"
    )
    train_tokenizer([SENTENCE] * 3, VOCABULARY).save_pretrained(folder / "model")
    (folder / "text.txt").write_text(SENTENCE * 12)
    (folder / "superglue_cb.val.jsonl").write_text(
        "".join(
            json.dumps({"premise": SENTENCE[:20], "hypothesis": "It froze.", "label": label, "idx": i}) + "\n"
            for i, label in enumerate(["entailment", "contradiction", "neutral"])
        )
    )
    return folder


def command(source: Path, output: Path, *flags: str) -> list[str]:
    text = ["--evaluation-text", str(source / "text.txt"), "--error-sequences", "2", "--threads", "1", "--turns", "2"]
    return [str(source / "model"), *text, "--cache", str(output / "cache"), "--output", str(output), *flags]


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]


def test_the_variants() -> None:
    names = [variant.name for variant in variants_of(["rtn", "openvino"], None)]
    assert names == [
        "float32",
        "RTN INT8",
        "RTN INT8, embedding INT8",
        "RTN INT4",
        "RTN INT4, embedding INT8",
        "RTN INT4, embedding INT4",
        "OpenVINO float32",
        "OpenVINO INT8",
        "OpenVINO INT4",
    ]
    assert len({variant.folder for variant in variants_of(["rtn", "gptq", "openvino"], 32)}) == 14
    some = variants_of(["rtn", "openvino"], None, ["openvino-int8", "rtn-int4-embedding-int8"])
    assert [variant.name for variant in some] == ["float32", "RTN INT4, embedding INT8", "OpenVINO INT8"]


def test_the_whole_study_and_nothing_twice(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ["--tasks", "cb", "boolq", "--data-dir", str(source)] if HAS_HARNESS else []
    arguments = command(source, tmp_path, "--methods", "rtn", *tasks)
    assert quantization.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "RTN INT4, embedding INT4" in shown
    assert "ppl text.txt" in shown
    assert ("not run: boolq" in shown) == HAS_HARNESS
    first = rows(tmp_path)
    assert len(first) == 6 * (2 + HAS_HARNESS) + 5  # size, text and task of six variants, logits of all but float32
    summary = json.loads((tmp_path / "summary.json").read_text())
    [model] = summary["models"]
    by_name = {one["variant"]: one for one in model["variants"]}
    assert [one["bytes"]["file"] for one in model["variants"][:3]] == sorted(
        (one["bytes"]["file"] for one in model["variants"][:3]), reverse=True
    )
    assert by_name["float32"]["relative_error"] is None
    assert 0 < by_name["RTN INT8"]["relative_error"] < by_name["RTN INT4"]["relative_error"] < 0.5
    assert by_name["RTN INT8"]["texts"]["text.txt"]["nats"] == pytest.approx(
        by_name["float32"]["texts"]["text.txt"]["nats"], rel=0.01
    )
    assert by_name["float32"]["accuracy"].keys() == ({"cb"} if HAS_HARNESS else set())
    assert (tmp_path / "quantization.png").read_bytes().startswith(b"\x89PNG")
    assert quantization.main(arguments) == 0
    assert rows(tmp_path) == first
    assert quantization.main(command(source, tmp_path, "--methods", "rtn", "--group-size", "32")) == 0
    assert len(rows(tmp_path)) > len(first)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra openvino")
def test_openvino_is_measured_by_the_same_measures(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One graph, as tracing one takes seconds.
    monkeypatch.setattr(quantization, "variants_of", lambda *_: [Variant(None), Variant(Plan("nncf", 4, 32), True)])
    tasks = ["--tasks", "cb", "--data-dir", str(source)] if HAS_HARNESS else []
    assert quantization.main(command(source, tmp_path, "--methods", "openvino", *tasks)) == 0
    [model] = json.loads((tmp_path / "summary.json").read_text())["models"]
    before, after = model["variants"]
    assert after["variant"] == "OpenVINO INT4"
    assert 0 < after["relative_error"] < 0.5
    assert after["texts"]["text.txt"]["tokens"] == before["texts"]["text.txt"]["tokens"]
    assert after["texts"]["text.txt"]["nats"] == pytest.approx(before["texts"]["text.txt"]["nats"], rel=0.1)
    assert after["accuracy"].keys() == before["accuracy"].keys()
    assert after["prefill_ms"] > 0
    assert after["tokens_per_s"] > 0
    assert before["prefill_ms"] is None
    speed = [row for row in rows(tmp_path) if row["kind"] == "speed"]
    assert [row["value"]["turn"] for row in speed] == [0, 1]


def test_gptq_runs_in_the_python_that_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def fake(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(arguments)
        return subprocess.CompletedProcess(arguments, 2, "", "loading\nerror: GPTQ needs llmcompressor\n")

    monkeypatch.setattr(quantization_variants, "run_child", fake)
    flags = [
        "--methods",
        "gptq",
        "--calibration-text",
        str(source / "text.txt"),
        "--gptq-python",
        "other/python",
        "--sequences",
        "3",
    ]
    with pytest.raises(ValueError, match=r"GPTQ did not succeed in other/python: GPTQ needs llmcompressor"):
        quantization.main(command(source, tmp_path, *flags))
    [one] = commands
    assert one[:3] == ["other/python", "-m", "merino_net.quantize"]
    assert one[one.index("--sequences") + 1] == "3"


@pytest.mark.skipif(not HAS_GPTQ, reason="llmcompressor has its own environment: make test-quantize")
def test_gptq_for_real(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [Variant(None), Variant(Plan("rtn", 4, 32)), Variant(Plan("gptq", 4, 32))]
    monkeypatch.setattr(quantization, "variants_of", lambda *_: variants)
    flags = ["--methods", "gptq", "--calibration-text", str(source / "text.txt"), "--group-size", "32", "--sequences", "8"]
    assert quantization.main(command(source, tmp_path, *flags)) == 0
    [model] = json.loads((tmp_path / "summary.json").read_text())["models"]
    nearest, gptq = model["variants"][1:]
    assert gptq["relative_error"] < nearest["relative_error"]
    assert gptq["bytes"]["layers"] == nearest["bytes"]["layers"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--methods", "gptq"], "GPTQ calibrates on a text; name it with --calibration-text"),
        (["--methods", "rtn", "--tasks", "chess"], "--tasks chess is not known"),
        (["--methods", "rtn", "--variants", "int3"], "there is no variant int3; expected some of rtn-int8, "),
        (["--methods", "rtn", "--turns", "0"], "--turns is 0"),
        (["--methods", "rtn", "--context", "999"], "exceeds the model's 32 positions"),
        (["--methods", "rtn", "--group-size", "48"], "groups of 48 do not divide a width of 64"),
    ],
)
def test_mistakes_are_said_in_a_sentence(source: Path, tmp_path: Path, flags: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quantization.main(command(source, tmp_path, *flags))


def test_without_a_text_there_is_nothing_to_compare_on(source: Path) -> None:
    with pytest.raises(ValueError, match="there is no text to compare on"):
        quantization.main([str(source / "model"), "--methods", "rtn"])


def test_the_figure_of_two_networks_without_tasks() -> None:
    sizes = {"file": 2_000_000, "embedding": 1_000_000, "positions": 100_000, "layers": 800_000, "norm": 1000}
    one = {"variant": "float32", "bytes": sizes, "texts": {"x": {"token_perplexity": 9.0}}, "accuracy": {}, "mean_accuracy": None}
    graph = {**one, "variant": "OpenVINO INT8", "bytes": {"file": 600_000}}
    figure = draw_quantization([{"model": name, "variants": [one, graph]} for name in ("a", "b")])
    assert len(figure.axes) == 4
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert sum(widths) == pytest.approx(2.6)


def test_the_figure_shows_accuracy_beside_its_error() -> None:
    sizes = {"file": 2_000_000}
    first = {"variant": "float32", "bytes": sizes, "texts": {"x": {"token_perplexity": 9.0}}, "accuracy": {"cb": 0.4}}
    first |= {"mean_accuracy": 0.4, "mean_accuracy_stderr": 0.02}
    other = first | {"variant": "RTN INT4", "mean_accuracy": 0.39}
    axis = draw_quantization([{"model": "a", "variants": [first, other]}]).axes[2]
    points = axis.lines[0].get_xdata()
    assert list(points) == pytest.approx([0.0, -1.0])
    assert axis.get_xlim()[0] < -2.0 < 2.0 < axis.get_xlim()[1]
    assert "40.0 %" in axis.get_xlabel()


def test_help_names_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quantization.command_line().parse_args(["--help"])
    assert "--gptq-python" in capsys.readouterr().out
    assert sys.executable == quantization.command_line().parse_args(["x"]).gptq_python
