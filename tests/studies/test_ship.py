"""`merino ship`: an artefact in its runtime, promised, predicted and measured; what is refused, and what stays as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from formulation import Architecture, Block, Budget
from formulation.command.exit_code import ExitCode
from hardware_models import CacheMemory, Latency, Memory, Params, WeightMemory
from hardware_models.device import Device, write_device
from hardware_models.latency import LatencyTable, Validated
from hardware_models.names import read_quantity
from hardware_models.profile_standalone import Pace, conditions
from hardware_models.workload import Workload
from merino_net import MerinoConfig
from merino_net.corpus.data import train_tokenizer
from merino_net.corpus.text import Text
from merino_net.network.counting import parameter_count
from merino_net.shipping.agreement import scores_of
from merino_net.shipping.promises import Made
from merino_net.shipping.runtimes import RUNTIMES, Job, Report, Runtime, perplexity_of
from studies.design.study import main as design
from studies.ship.artefact import ProcessMemory, TimedPass, Visit, timed_pass, visited, windows_of
from studies.ship.compared import Kept, Place, Shown, compared, lengths_of, tables_of
from studies.ship.study import main as ship
from tests.fake_runtime import NAME, Abacus, install

VOCABULARY, POSITIONS = 300, 64
SPACE = {
    "blocks": 2,
    "widths": [64, 128],
    "ffn_ratios": [1],
    "depths": [1, 2],
    "embedding_width": 64,
    "vocabulary": VOCABULARY,
    "positions": POSITIONS,
}
TEXT = "The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still.\n"


def device_file(path: Path, price: float, name: str = NAME, **how: Any) -> Path:
    """A device of this machine, with a table of the stand-in in q8_0 by which a decoding step takes `price` ms a layer."""
    validated = Validated((64, 128), (64, 128), (1, 8), (64,), (VOCABULARY,), (True,))
    torch.set_num_threads(1)
    here = {"threads": 1, "hardware": conditions("", "", "cpu")["hardware"]} | how
    table = LatencyTable("box", f"{name}-q8_0-decode", Workload("decode", 32), (("layer", price),), validated, how=here)
    write_device(Device("box", (table,)), path)
    return path


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The machine's pace is what the test says, the last one for good."""
    paces = [10.0]
    monkeypatch.setattr(Pace, "__call__", lambda self: paces.pop(0) if len(paces) > 1 else paces[0])
    return paces


@pytest.fixture
def abacus(monkeypatch: pytest.MonkeyPatch) -> Abacus:
    """A runtime that is PyTorch, whose steps take 3 ms and whose prompts take 12."""
    return install(monkeypatch)


def designed(folder: Path, *budgets: dict[str, Any]) -> Path:
    """A design for these budgets; its file."""
    problem = {"format": "merino problem", "version": 2, "space": SPACE, "maximize": "entropy", "budgets": list(budgets)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problem.json").write_text(json.dumps(problem))
    assert design([str(folder / "problem.json"), "--output", str(folder), "--alternatives", "0", "--steps", "0"]) == 0
    return folder / "design.json"


def trained(folder: Path, *budgets: dict[str, Any]) -> Path:
    """A folder as `merino train` leaves it, but for what it learned."""
    path = designed(folder, *budgets)
    architecture = Architecture.from_dict(json.loads(path.read_text())["architecture"])
    torch.manual_seed(0)
    config = MerinoConfig.from_architecture(architecture, initializer_range=0.1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    train_tokenizer([TEXT * 3], VOCABULARY).save_pretrained(folder)
    return folder


def latency(path: Path, upper: float) -> dict[str, Any]:
    return {"quantity": "latency", "device": str(path), "upper": upper}


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "ship.json").read_text(encoding="utf-8"))


def budgets_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {budget["name"]: budget for budget in record(folder)["budgets"]}


def shipped(source: Path, output: Path, *flags: str, to: str = f"{NAME}:q8_0") -> int:
    return ship([str(source), "--to", to, "--output", str(output), "--threads", "1", "--tokens", "32", *flags])


def test_a_trained_network_with_the_table(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    box = device_file(tmp_path / "box.json", 1.0)
    source = trained(
        tmp_path / "train",
        {"quantity": "params", "upper": 200e3},
        {"quantity": "weight-memory", "bits": 8, "upper": 200e3},
        {"quantity": "flops", "seq_len": 32, "upper": 1e9},
        {"quantity": "memory", "seq_len": 32, "upper": 41e6},
        {"quantity": "cache-memory", "seq_len": 32, "upper": 1e6},
        {"quantity": "entropy", "at_least": 1},
        latency(box, 5),
    )
    (tmp_path / "text.txt").write_text(TEXT * 3)
    capsys.readouterr()
    abacus.noise = {"q8_0": 0.01}
    assert shipped(source, tmp_path / "out", "--text", str(tmp_path / "text.txt"), "--text-tokens", "60") == 0
    said = capsys.readouterr()
    assert said.err == ""
    found, kept = record(tmp_path / "out"), budgets_in(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    beads = sum(parameter.nbytes for parameter in model.parameters()) // 4
    layers = sum(model.config.to_architecture().depths)
    assert kept["params"]["measured"] == kept["params"]["predicted"] == parameter_count(model)
    assert kept["weight memory in 8 bits"]["measured"] == beads == found["form"]["weight_bytes"]
    assert kept["memory"]["measured"] == 40e6  # what the process took since it read the model
    assert (kept["cache memory"]["measured"], kept["cache memory"]["verdict"]) == (None, "within, predicted")
    assert kept["cache memory"]["remark"] == "Abacus does not tell its memory by parts"
    assert (kept["effective entropy"]["at_least"], kept["effective entropy"]["verdict"]) == (True, "within, predicted")
    [step] = [budget for name, budget in kept.items() if name.startswith("latency@")]
    assert (step["limit"], step["predicted"], step["measured"], step["verdict"], step["remark"]) == (5, layers, 3.0, "within", "")
    assert {budget["verdict"] for name, budget in kept.items() if name in ("params", "memory", "flops")} == {"within"}
    scored = next(job.score for job in abacus.jobs if job.score and not job.exact)
    truth = [[float(one) for one in scores_of(model, tokens)] for tokens in scored]
    assert found["perplexity"]["pytorch"] == pytest.approx(perplexity_of(truth))
    assert found["perplexity"]["tokens"] == 60
    assert 1 < found["perplexity"]["artefact"] / found["perplexity"]["pytorch"] < math.exp(0.01)
    assert [(one["phase"], one["tokens"], one["median_ms"]) for one in found["passes"]] == [
        ("prefill", 32, 12.0),
        ("decode", 32, 3.0),
    ]
    assert found["trained"] is True
    there = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found["files"] == there
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| memory | bytes | ≤ 41,000,000 |" in card
    assert "| 40,000,000 | **within** | of the process, since it began to read the model |" in card
    assert f"abacus out/{NAME}-q8_0" in card
    assert "40,000,000  within" in said.out
    assert "perplexity per token" in said.out


def test_random_weights_of_a_design_alone(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    path = designed(tmp_path / "design", {"quantity": "params", "upper": 200e3})
    assert shipped(path, tmp_path / "out", "--seed", "3") == 0
    assert "random, by seed 3: speed and size hold, what it writes means nothing" in capsys.readouterr().out
    assert (record(tmp_path / "out")["trained"], record(tmp_path / "out")["perplexity"]) == (False, None)
    before = (tmp_path / "out" / f"{NAME}-q8_0" / "model" / "model.safetensors").read_bytes()
    assert shipped(path, tmp_path / "out", "--seed", "3") == 0
    assert (tmp_path / "out" / f"{NAME}-q8_0" / "model" / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="gives random weights, so no perplexity; leave --text out or name a trained folder"):
        shipped(path, tmp_path / "out", "--text", str(path))


def test_a_latency_that_is_exceeded_is_refused(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained(tmp_path / "train", latency(device_file(tmp_path / "box.json", 0.5), 4))
    assert shipped(source, tmp_path / "out") == 0
    before = (tmp_path / "out" / "ship.json").read_bytes()
    abacus.decode_ms = 4.5
    capsys.readouterr()
    assert shipped(source, tmp_path / "out") == ExitCode.BROKEN_PROMISE
    said = capsys.readouterr()
    assert f"latency@box:{NAME}-q8_0-decode is 4.5 ms, which exceeds the design's budget of 4" in said.err
    assert "≤ 4" in said.out
    assert "exceeds" in said.out
    assert "Nothing was written" in said.out
    assert (tmp_path / "out" / "ship.json").read_bytes() == before
    assert shipped(source, tmp_path / "out", "--anyway") == ExitCode.BROKEN_PROMISE
    [budget] = record(tmp_path / "out")["budgets"]
    assert (budget["measured"], budget["verdict"]) == (4.5, "exceeds")
    assert "**exceeds**" in (tmp_path / "out" / "README.md").read_text()


def test_a_prediction_alone_that_exceeds_is_refused_too(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    box = device_file(tmp_path / "box.json", 1.0)
    source = trained(tmp_path / "train", latency(box, 4))
    device_file(box, 5.0)  # measured anew: the device is slower than was thought
    assert shipped(source, tmp_path / "out") == ExitCode.BROKEN_PROMISE
    assert "is predicted to be 20 ms, which exceeds the design's budget of 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_busy_machine_exceeds_only_by_more_than_it_was_slowed(
    tmp_path: Path, abacus: Abacus, steady: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained(tmp_path / "train", latency(device_file(tmp_path / "box.json", 0.5, pace_ms=8.0), 4))
    abacus.decode_ms = 4.5
    assert shipped(source, tmp_path / "out") == 0
    [budget] = record(tmp_path / "out")["budgets"]
    assert (budget["measured"], budget["verdict"]) == (4.5, "within, predicted")
    assert "the machine was busy, up to 1.25 times as slow as usual" in budget["remark"]
    assert len([job for job in abacus.jobs if job.timing is not None]) == 8  # it was given more tries
    abacus.decode_ms = 5.5
    assert shipped(source, tmp_path / "out") == ExitCode.BROKEN_PROMISE
    assert "is 5.5 ms, which exceeds" in capsys.readouterr().err
    abacus.decode_ms, steady[0] = 4.5, 8.0
    assert shipped(source, tmp_path / "out") == ExitCode.BROKEN_PROMISE
    assert "is 4.5 ms, which exceeds" in capsys.readouterr().err


def test_milliseconds_of_another_device(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained(tmp_path / "train", latency(device_file(tmp_path / "box.json", 1.0), 4))
    abacus.decode_ms = 100.0
    slower = device_file(tmp_path / "slower.json", 0.75)
    assert shipped(source, tmp_path / "out", "--device", f"{slower}:{NAME}-q8_0-decode") == 0
    [budget] = record(tmp_path / "out")["budgets"]
    assert (budget["predicted"], budget["measured"], budget["verdict"]) == (4.0, 3.0, "within")
    assert budget["remark"] == "by a table that was measured on box"
    assert (record(tmp_path / "out")["passes"], record(tmp_path / "out")["pace_ms"]) == ([], None)
    assert "a token after 32" in capsys.readouterr().out
    device_file(slower, 1.25)
    assert shipped(source, tmp_path / "out", "--device", str(slower)) == ExitCode.BROKEN_PROMISE
    assert "is 5 ms, which exceeds" in capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"box has no table of Abacus with q4_0 weights, such as {NAME}-q4_0-decode; it has"):
        shipped(source, tmp_path / "out", "--device", str(slower), to=f"{NAME}:q4_0")


# --- Wrong use ----------------------------------------------------------------------------------------------------------------


def test_wrong_use_is_a_sentence(tmp_path: Path, abacus: Abacus) -> None:
    path = designed(tmp_path / "design", {"quantity": "params", "upper": 200e3})
    out = tmp_path / "out"
    for flags, message in (
        (["--to", "ggfu"], "unknown form 'ggfu'; did you mean 'gguf'"),
        (["--to", "gguf:q8"], "unknown number format of gguf 'q8'; did you mean 'q8_0'"),
        (["--to", "hf"], "unknown form 'hf'"),
        (["--to", NAME, "--threads", "0"], "--threads is 0; expected at least 1"),
        (["--to", NAME, "--seconds", "0"], "--seconds is 0"),
        (["--to", NAME, "--device", "no-such-device"], "unknown device"),
    ):
        with pytest.raises(ValueError, match=message):
            ship([str(path), "--output", str(out), *flags])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no design\.json in .*; name a design file, or a folder that merino train wrote"):
        shipped(tmp_path / "empty", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than an earlier shipment"):
        shipped(path, tmp_path / "mine")
    assert not out.exists()


def test_a_network_without_a_tokenizer(tmp_path: Path, abacus: Abacus) -> None:
    source = trained(tmp_path / "train", {"quantity": "params", "upper": 200e3})
    for file in source.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(ValueError, match="has no tokenizer to read --text with"):
        shipped(source, tmp_path / "out", "--text", str(tmp_path / "text.txt"))


def test_another_network_than_the_design(tmp_path: Path, abacus: Abacus, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained(tmp_path / "train", {"quantity": "params", "upper": 200e3})
    other = Architecture((Block(64, 64, 1),), embedding_width=64, vocabulary=VOCABULARY, positions=POSITIONS)
    AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(other)).save_pretrained(source)
    assert shipped(source, tmp_path / "out") == ExitCode.BROKEN_PROMISE
    assert "a promise is broken: the network is not the design, the blocks are" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_fails_leaves_an_earlier_result(tmp_path: Path, abacus: Abacus, monkeypatch: pytest.MonkeyPatch) -> None:
    path = designed(tmp_path / "design", {"quantity": "params", "upper": 200e3})
    assert shipped(path, tmp_path / "out") == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    abacus.fail = "its beads are lost"
    with pytest.raises(ValueError, match=r"Abacus cannot run .*\(its beads are lost\)"):
        shipped(path, tmp_path / "out")

    def interrupted(self: Runtime, folder: Path, job: Job) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runtime, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shipped(path, tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["design", "out"]


# --- The parts ----------------------------------------------------------------------------------------------------------------

ARCHITECTURE = Architecture((Block(64, 64, 2),), embedding_width=64, vocabulary=VOCABULARY, positions=POSITIONS)
PLACE = Place(RUNTIMES["gguf"], "q8_0", 2, "a machine")


def shown(passes: Mapping[tuple[str, int], TimedPass] | None = None) -> Shown:
    made = Made(MerinoConfig.from_architecture(ARCHITECTURE), int(Params()(ARCHITECTURE)), 0)
    steps = {("decode", 32): TimedPass(3.0, 5, 1.0), ("prefill", 32): TimedPass(12.0, 5, 1.0)}
    return Shown(ARCHITECTURE, made, 60_000, passes or steps, {32: ProcessMemory(90_000_000, 40_000_000)}, {})


def table(name: str, work: Workload, **how: Any) -> Latency:
    validated = Validated((64, 64), (64, 64), (1, 8), (64,), (VOCABULARY,), (True,))
    return Latency(LatencyTable("box", name, work, (("layer", 1.0),), validated, how=how, origin="box.json"))


def kept(quantity: Any, upper: float = 1e9, seen: Shown | None = None) -> Kept:
    [found] = compared([Budget(quantity, upper)], seen or shown(), PLACE)
    return found


HERE = {"threads": 2, "hardware": "a machine"}


def test_a_latency_is_compared_where_it_is_the_same_thing() -> None:
    same = kept(table("llama.cpp-q8_0-decode", Workload("decode", 32), **HERE), 2.5)
    assert (same.finding.value, same.outcome.measured, same.outcome.exceeds, same.finding.remark) == (3.0, True, True, "")
    assert (same.predicted.value, same.predicted.exceeds) == (2.0, False)
    for quantity, remark in (
        (table("onnx-int8-decode", Workload("decode", 32), **HERE), "the table is of another runtime, onnx-int8-decode of box"),
        (table("llama.cpp-q4_0-decode", Workload("decode", 32), **HERE), "the table is of another runtime"),
        (table("llama.cpp-q8_0-decode", Workload("decode", 32), **HERE | {"threads": 4}), "the table is of 4 threads"),
        (table("llama.cpp-q8_0-decode", Workload("decode", 32)), "the table is of an unknown number of threads"),
        (
            table("llama.cpp-q8_0-decode", Workload("decode", 32), **HERE | {"hardware": "a board"}),
            "machine, box (a board)",
        ),
        (read_quantity("decode-latency@raspberry-pi-5(context=32)"), "predicted from a datasheet of raspberry-pi-5"),
    ):
        other = kept(quantity, 2.5)
        assert other.finding.remark.startswith("measured in llama.cpp, q8_0, 2 threads; "), remark
        assert remark in other.finding.remark
        assert (other.finding.value, other.outcome) == (3.0, other.predicted)
    assert kept(table("llama.cpp-q8_0-decode", Workload("decode", 48), **HERE)).finding.value is None
    batch = kept(table("llama.cpp-q8_0-prefill", Workload("prefill", 32, 4), **HERE))
    assert (batch.finding.value, batch.finding.remark) == (None, "4 sequences at a time; the client runs one")
    every = kept(table("llama.cpp-q8_0-prefill", Workload("prefill", 32, 1, "all"), **HERE))
    assert every.finding.remark == "all logits of a prompt; the client makes the last"


@pytest.mark.parametrize(("upper", "verdict"), [(3.5, "within"), (2.5, "within, predicted"), (2.2, "exceeds"), (1.5, "exceeds")])
def test_a_slowed_step_exceeds_a_budget_only_by_more_than_it_was_slowed(upper: float, verdict: str) -> None:
    slowed = shown({("decode", 32): TimedPass(3.0, 5, 1.3)})
    found = kept(table("llama.cpp-q8_0-decode", Workload("decode", 32), **HERE), upper, slowed)
    assert found.outcome.verdict == verdict
    assert "1.30 times as slow as usual" in found.finding.remark


def test_bits_are_told_where_they_are_others() -> None:
    count = Params()(ARCHITECTURE)
    assert kept(WeightMemory(8)).finding.remark == f"8 bits a weight promised, {8 * 60_000 / count:.2f} shipped"
    assert kept(WeightMemory(8), 59_000).outcome.exceeds
    same = kept(WeightMemory(8 * 60_000 / count))
    assert (same.finding.value, same.finding.remark) == (60_000, "")


def test_memory_is_the_process_since_it_read_the_model() -> None:
    assert kept(Memory(32), 39e6).outcome.exceeds
    assert kept(Memory(32, batch=2)).finding.remark == "2 sequences at a time; the client runs one"
    share = kept(read_quantity("memory-share@raspberry-pi-5(seq_len=32)"), 0.1)
    assert share.finding.value == pytest.approx(40_000_000 / share.predicted.value * share.predicted.value / 8e9, rel=0.1)
    assert kept(Memory(48)).finding.value is None


def test_what_no_runtime_shows_says_why() -> None:
    assert "by parts" in kept(CacheMemory(32)).finding.remark
    assert kept(read_quantity("decode-energy@raspberry-pi-5")).finding.remark == "nothing here measures energy"
    assert "a prompt and many tokens" in kept(read_quantity("generation-latency@raspberry-pi-5")).finding.remark
    assert kept(read_quantity("entropy")).finding.remark == "a property of the design, which no runtime shows"


def test_lengths_that_budgets_speak_of() -> None:
    budgets = [
        Budget(table("llama.cpp-q8_0-decode", Workload("decode", 40), **HERE), 1),
        Budget(Memory(16), 1),
        Budget(Memory(500), 1),
        Budget(Params(), 1),
    ]
    assert lengths_of(budgets, 128, 61) == (61, 40, 16)


def test_tables_of_an_artefact() -> None:
    names = ("llama.cpp-q8_0-decode", "llama.cpp-q8_0-prefill", "onnx-int8-decode")
    tables = tuple(table(name, Workload(name.rpartition("-")[2], 32)).table for name in names)
    device = Device("box", tables)
    assert [one.name for one in tables_of(device, None, RUNTIMES["gguf"], "q8_0")] == list(names[:2])
    assert [one.name for one in tables_of(device, names[1], RUNTIMES["gguf"], "q8_0")] == [names[1]]
    with pytest.raises(ValueError, match=r"no table of llama\.cpp with q8_0 weights"):
        tables_of(device, names[2], RUNTIMES["gguf"], "q8_0")


def visit(step: float, pace: float) -> Visit:
    return Visit(Report("1", decode_ms=[step] * 5, prefill_ms=[2 * step] * 5), pace)


def steady_within(pace: float, usual: float) -> bool:
    return abs(pace / usual - 1) <= 0.04


def test_a_pass_is_the_median_of_clean_visits() -> None:
    visits = [visit(9.0, 15.0), visit(3.0, 10.0), visit(3.5, 10.2), visit(3.2, 9.9)]
    assert timed_pass(visits, "decode", 10.0, steady_within) == TimedPass(3.2, 15, 1.0)
    assert timed_pass(visits, "prefill", 10.0, steady_within) == TimedPass(6.4, 15, 1.0)
    assert timed_pass(visits[:1], "decode", 10.0, steady_within) == TimedPass(9.0, 5, 1.5)
    assert timed_pass([visit(2.0, 8.0), visits[0]], "decode", 10.0, steady_within) == TimedPass(2.0, 5, 1.0)  # a faster machine


def test_visits_go_on_until_enough_are_steady() -> None:
    paces = iter([10, 10, 30, 30, 10, 10, 10, 10, 99, 99])
    jobs: list[Job] = []

    def run(job: Job) -> Report:
        jobs.append(job)
        return Report("1", prefill_ms=[2.0] * 5, decode_ms=[1.0] * 5, peak_bytes=100 + len(jobs), idle_bytes=40)

    passes, memory, usual = visited(run, lambda: next(paces), [16], 2, 0.5, None)
    assert (len(jobs), usual) == (4, 10)
    assert passes["decode", 16] == TimedPass(1.0, 15, 1.0)
    assert memory == {16: ProcessMemory(104, 64)}
    assert {(job.threads, job.timing.seq_len, job.timing.seconds) for job in jobs if job.timing} == {(2, 16, 0.5)}


def test_windows_hold_every_token_once(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([TEXT * 3], VOCABULARY)
    (tmp_path / "a.txt").write_text(TEXT)
    tokens = tokenizer(TEXT)["input_ids"]
    windows = windows_of(Text((str(tmp_path / "a.txt"),)), tokenizer, 9, 10_000)
    assert [token for window in windows for token in window[1:]] == tokens
    assert {window[0] for window in windows} == {tokenizer.bos_token_id}
    assert max(map(len, windows)) == 9
    assert sum(len(window) - 1 for window in windows_of(Text((str(tmp_path / "a.txt"),)), tokenizer, 9, 20)) == 20
