"""`merino cost`: its figures are those of the cost models, and each mistake is one sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from formulation import PUBLISHED, Architecture, Block
from formulation.presets import PRESETS
from hardware_models import CacheMemory, Flops, Params, PrefillLatency, WeightMemory
from hardware_models.datasheet import read_datasheet
from hardware_models.device import read_device
from studies.cost.study import costs_of, parts_of
from tests.commands import run

ROOT = Path(__file__).resolve().parent.parent.parent


def rows(text: str) -> dict[str, list[str]]:
    """Label of each line of the tables -> its cells."""
    parts = (re.split(r"  +", line.strip()) for line in text.splitlines())
    return {label: cells for label, *cells in parts}


def test_models_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "design.json").write_text(PUBLISHED["MeRino-52M"].to_json())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "n_embd": 64, "n_head": 1, "n_layer": 2, "vocab_size": 9})
    )
    text = ("32x960/2560 heads 15 kv 5", "--family", "llama", "--vocabulary", "49152", "--tied", "yes")
    ended = run("studies.cost", "smollm2-360m", str(tmp_path / "design.json"), str(tmp_path), *text, "--tokens", "512", "--devices")
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = rows(ended.stdout)
    assert shown["family"] == ["llama", "merino", "gpt2", "llama"]
    assert shown["parameters"] == ["361,821,120", "52,077,056", "166,208", "361,821,120"]
    assert shown["token embedding"] == ["47,185,920", "38,597,376", "576", "47,185,920"]
    assert shown["layers that a token passes"] == ["32", "8", "2", "32"]
    assert shown["weights in 16 bits [MB]"] == ["723.6", "104.2", "0.3324", "723.6"]
    assert shown["weights in 4 bits [MB]"] == ["180.9", "26.04", "0.0831", "180.9"]
    # keys and values of 5 heads of 64, 2 bytes each, for 512 tokens in 32 layers; and so on
    assert shown["cache of 512 tokens in 16 bits [MB]"] == ["20.97", "9.699", "0.2621", "20.97"]
    assert "latency" not in ended.stdout


@pytest.mark.parametrize("name", [*PRESETS, *PUBLISHED])
def test_the_figures_are_those_of_the_cost_models(name: str) -> None:
    model = (PRESETS | PUBLISHED)[name]
    parts = parts_of(model)
    assert sum(parts.values()) == Params()(model)
    assert min(parts.values()) >= 0
    head = 0 if model.tied else model.vocabulary * model.embedding_width
    assert (parts["token embedding"], parts["output head of its own"]) == (model.vocabulary * model.embedding_width, head)
    shown = costs_of(model, 100)
    assert shown["parameters"] == f"{Params()(model):,.0f}"
    figures = {
        "FLOPs of 100 tokens": Flops(100)(model),
        "  and all their logits": Flops(100, head=True)(model),
        "weights in 8 bits [MB]": WeightMemory(8)(model) / 1e6,
        "cache of 100 tokens in 16 bits [MB]": CacheMemory(100, bits=16)(model) / 1e6,
    }
    for label, value in figures.items():
        number, _, letter = shown[label].partition(" ")
        assert float(number.replace(",", "")) * {"": 1, "M": 1e6, "G": 1e9}[letter] == pytest.approx(value, rel=5e-4)


def test_latencies_and_what_is_left_out() -> None:
    ended = run("studies.cost", "gpt2", "smollm2-135m", "--devices", "titan-xp", "jetson-nano", "--tokens", "128")
    assert ended.returncode == 0
    shown, _, reasons = ended.stdout.partition("latency [ms]")[2].partition("Left out")
    lines = [line.split() for line in shown.splitlines()[2:] if line]
    assert [line[0] for line in lines] == ["titan-xp"] * 2 + ["jetson-nano"] * 4
    assert all(float(cell) > 0 for line in lines[:4] for cell in line[-2:])
    for line, table in zip(lines[4:], read_device("jetson-nano").tables, strict=True):
        assert table.name in [word.strip(",") for word in line]
        assert float(line[-2]) == pytest.approx(table.predict(PRESETS["gpt2"]), rel=5e-3)
        assert line[-1] == "–"
    left_out = [line.split(":")[0].strip() for line in reasons.partition("\n\n")[0].splitlines()[1:]]
    assert left_out == ["titan-xp, gpt2", "titan-xp, smollm2-135m", "jetson-nano, smollm2-135m"]
    assert "vocabulary 49,152 (validated 50,257, 50,272, 50,304); family llama" in reasons


def test_a_roofline_in_another_precision() -> None:
    ended = run("studies.cost", "opt-125m", "--devices", "titan-xp", "h100-sxm", "--precision", "bfloat16")
    (prefill,) = (line for line in ended.stdout.splitlines() if line.startswith("h100-sxm") and "prefill" in line)
    assert "roofline, bfloat16" in prefill
    cost = PrefillLatency(read_datasheet("h100-sxm"), 1024, "bfloat16")
    assert float(prefill.split()[-1]) == pytest.approx(cost(PRESETS["opt-125m"]), rel=5e-3)
    assert "  titan-xp: its datasheet states no peak in bfloat16, but in float32, int8" in ended.stdout.splitlines()


def test_files_of_ones_own() -> None:
    measured, sheet = (str(ROOT / "hardware_models" / name) for name in ("devices/jetson-nano.json", "datasheets/h100-sxm.json"))
    ended = run("studies.cost", "gpt2", "--devices", measured, sheet)
    devices = [line.split()[0] for line in ended.stdout.splitlines() if "prefill of" in line or "decode of" in line]
    assert devices == ["jetson-nano"] * 2 + ["h100-sxm"] * 2
    assert "table published, mean error 8.3 %" in ended.stdout


def test_without_tokens_the_shortest_model_says_how_many() -> None:
    ended = run("studies.cost", "gpt2", "2x128/256", "--positions", "512", "--devices", "jetson-nano")
    assert "FLOPs of 512 tokens" in ended.stdout
    assert "prefill of 512 tokens, batch 1, last logits" in ended.stdout
    assert "FLOPs of 1,024 tokens" in run("studies.cost", "gpt2", "smollm2-135m", "--devices").stdout


def test_a_roofline_is_said_to_be_none_of_the_measured() -> None:
    said = "A roofline is no measurement"
    assert said in run("studies.cost", "gpt2", "--devices", "h200-sxm").stdout
    measured = str(ROOT / "hardware_models" / "devices" / "jetson-nano.json")
    assert said not in run("studies.cost", "gpt2", "--devices", measured).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smollm2"], "unknown model 'smollm2'; did you mean 'smollm2-"),
        (["gpt2", "--vocabulary", "100"], "--vocabulary: only text leaves it open; gpt2 says so itself"),
        (["gpt2", "--tokens", "1025"], "--tokens is 1,025; expected at most the 1,024 positions of gpt2"),
        (["gpt2", "--tokens", "0"], "--tokens is 0; expected at least 1"),
        (["gpt2", "--devices", "titan"], "unknown device 'titan'; did you mean 'titan-xp'?"),
        (["2x100/4"], "block width is 100, which 64"),
        (["2x128/4", "--family", "llama", "--embedding-width", "64"], "the embedding is 64 wide and the blocks 128"),
    ],
)
def test_a_mistake_is_a_sentence(words: list[str], said: str) -> None:
    ended = run("studies.cost", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {said}")
    assert ended.stderr.count("\n") == 1


def test_it_answers_without_loading_what_is_heavy() -> None:
    heavy = {"torch", "transformers", "scipy", "pyomo", "pymoo", "matplotlib"}
    program = f"import sys\nfrom studies.cost.study import main\nmain(['gpt2'])\nprint({heavy!r} & {{*sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "set()"


def test_layers_that_share_weights_are_stored_once_and_passed_each_time() -> None:
    once, twice = (Architecture((Block(128, 256, depth),)) for depth in (1, 2))
    assert parts_of(once) == parts_of(twice)
    assert Flops()(twice) > Flops()(once)
