"""Measuring a machine: the plan, the stand-alone script, the engines, and the command with its resumption.

The networks here are tiny: what is tested is that the right thing is timed, and not how fast it is.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from formulation import Architecture, Block
from formulation.rows import Row, RowFile
from hardware_models import Workload, profile, profile_standalone, read_device
from hardware_models.engines import RUNTIMES, Engine, _onnx_graph, engine_of
from hardware_models.profile_standalone import Network, plan, trimmed_mean
from merino_net import MerinoConfig, MerinoForCausalLM

SOURCE = Path(profile_standalone.__file__).read_text(encoding="utf-8")
TINY = Architecture((Block(64, 128, 2), Block(128, 128, 1)), embedding_width=64, vocabulary=50, positions=32)


def small_plan(count: int) -> list[tuple[tuple[tuple[int, int, int], ...], bool]]:
    return plan(count, widths=(64, 128), ratios=(1, 2), most_layers=4)


def test_the_plan_is_the_same_everywhere_and_grows_at_its_end() -> None:
    networks = plan(60)
    assert plan(20) == networks[:20]
    assert len(set(networks)) == 60
    widths = {width for blocks, _ in networks for width, _, _ in blocks}
    assert {256, 1024} <= widths
    layers = [sum(depth for _, _, depth in blocks) for blocks, _ in networks]
    assert min(layers) == 1
    assert max(layers) >= 20
    assert any(not shared for _, shared in networks)
    for blocks, _ in networks:
        assert list(blocks) == sorted(blocks, key=lambda block: block[0])  # widths never fall


def test_the_stand_alone_script_needs_nothing_new() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 6))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported == {"argparse", "datetime", "json", "math", "os", "platform", "random", "sys", "time", "torch", "warnings"}
    assert not any(isinstance(node, ast.NamedExpr | ast.AnnAssign | ast.Match) for node in ast.walk(tree))
    assert not any(argument.posonlyargs for argument in ast.walk(tree) if isinstance(argument, ast.arguments))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_the_plain_network_computes_what_merino_net_does(shared: bool, fused: bool) -> None:
    torch.manual_seed(0)
    design = Architecture(TINY.blocks, shared, 64, 50, 32)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design, hidden_act="gelu")).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    blocks = [(block.width, block.ffn_width, block.depth) for block in design.blocks]
    plain = Network(blocks, model.model.tokens.weight.data, model.model.positions.weight.data, shared, fused, "all").eval()
    with torch.no_grad():
        # Both name their maps in one order: joints, then layers with norm, attention, norm, feed-forward network.
        for ours, theirs in zip(plain.joints, model.model.joints, strict=True):
            ours.load_state_dict(theirs.state_dict())
        for ours, theirs in zip(plain.blocks, model.model.blocks, strict=True):
            for layer, other in zip(ours, theirs.layers, strict=True):
                pairs = {
                    layer.attention_norm: other.attention_norm,
                    layer.query_key_value: other.attention.query_key_value,
                    layer.output: other.attention.output,
                    layer.ffn_norm: other.ffn_norm,
                    layer.up: other.ffn.up,
                    layer.down: other.ffn.down,
                }
                for mine, its in pairs.items():
                    mine.load_state_dict(its.state_dict())
        plain.norm.load_state_dict(model.model.norm.state_dict())
        tokens = torch.randint(50, (2, 9))
        expected = model(input_ids=tokens).logits
        logits, *_ = plain(tokens)
        assert torch.allclose(logits, expected, atol=1e-5)
        _, *past = plain(tokens[:, :8])
        step, *_ = plain(tokens[:, 8:], *past)
        assert torch.allclose(step[:, -1], expected[:, -1], atol=1e-5)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("runtime", "precision"),
    [(runtime, precision) for runtime, precisions in RUNTIMES.items() for precision in precisions if runtime != "compiled"],
)
def test_every_engine_runs_a_pass(runtime: str, precision: str, phase: str) -> None:
    engine = Engine(runtime, precision, Workload(phase, seq_len=8), threads=1)
    assert engine.name == f"{runtime}-{precision}-{phase}"
    assert 0 < engine.latency_ms(TINY, seconds=0.001) < 1000
    assert engine.how["threads"] == 1


def test_a_decoding_step_may_be_repeated() -> None:
    run = Engine("torch", "float32", Workload("decode", seq_len=31), threads=1).prepare(TINY)
    for _ in range(5):  # the cache stays as long as it was: 32 positions hold no second step
        run()


def test_the_onnx_graph_computes_what_the_network_does() -> None:
    import onnxruntime

    embedding, positions = torch.randn(50, 64), torch.randn(32, 64)
    tokens = torch.randint(50, (1, 8))
    graph = _onnx_graph(TINY, embedding, positions, "last", (tokens,))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (weight,) = (value for value in session.get_outputs() if value.name == session.get_outputs()[0].name)
    logits = session.run([weight.name], {session.get_inputs()[0].name: tokens.numpy()})[0]
    assert logits.shape == (1, 1, 50)
    assert len(set(logits.ravel().tolist())) > 40  # the embedding put in after tracing is the one that is used


@pytest.mark.parametrize(
    ("runtime", "precision", "device", "words"),
    [
        ("tensorflow", "float32", "cpu", "the runtime is 'tensorflow'; expected one of torch, compiled, onnx"),
        ("onnx", "bfloat16", "cpu", "onnx has no precision 'bfloat16'"),
        ("onnx", "float32", "cuda", "measured on the CPU only"),
    ],
)
def test_engines_that_there_are_not(runtime: str, precision: str, device: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Engine(runtime, precision, Workload(), device)


def test_trimmed_mean_leaves_out_both_ends() -> None:
    assert trimmed_mean([1, 2, 3, 1000]) == 2.5
    assert trimmed_mean([5.0]) == 5.0


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small networks in small surroundings, and a folder to measure in."""
    monkeypatch.setattr(profile_standalone, "plan", small_plan)
    monkeypatch.setattr(profile_standalone, "SURROUNDINGS", {"embedding_width": 64, "vocabulary": 50, "positions": 32})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stand_alone_script_writes_a_device_file(tiny: Path) -> None:
    arguments = ["--name", "my-board", "--networks", "24", "--seconds", "0.001", "--seq-len", "8", "--phases", "prefill,decode"]
    arguments += ["--precisions", "float32,int8", "--device", "cpu"]
    profile_standalone.main([*arguments, "--rounds", "1"])
    profile_standalone.main([*arguments, "--rounds", "1"])  # another day
    device = read_device("my-board.json")
    assert [table.name for table in device.tables] == [
        "torch-float32-prefill",
        "torch-int8-prefill",
        "torch-float32-decode",
        "torch-int8-decode",
    ]
    for table in device.tables:
        assert [len(row.rounds_ms) for row in table.rows] == [2] * 24
        assert table.error is not None
        assert table.validated.vocabularies == (50,)
        assert min(row.passes for row in table.rows) >= 10
    assert {"name", "tables", "ram_bytes"} <= set(json.loads((tiny / "my-board.json").read_text()))


def test_the_stand_alone_script_adds_to_nothing_else(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--name", "my-board", "--networks", "20", "--seconds", "0.001", "--rounds", "1", "--device", "cpu"]
    profile_standalone.main([*common, "--seq-len", "8"])
    before = (tiny / "my-board.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        profile_standalone.main([*common, "--seq-len", "9"])
    assert "measured with other --seq-len" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        profile_standalone.main([*common, "--seq-len", "8", "--name", "other", "--output", "my-board.json"])
    assert "no file that this script wrote for other" in capsys.readouterr().err
    assert (tiny / "my-board.json").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "My Board"],
        ["--name", "board", "--networks", "5"],
        ["--name", "board", "--phases", "training"],
        ["--name", "board", "--precisions", "float8"],
        ["--name", "board", "--seq-len", "2048"],
        ["--name", "board", "--device", "tpu"],
    ],
)
def test_mistakes_on_the_stand_alone_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        profile_standalone.main(arguments)
    message = capsys.readouterr().err.splitlines()[-1]
    assert arguments[-2] in message
    assert arguments[-1] in message


def small_networks(count: int) -> list[Architecture]:
    return [Architecture(tuple(Block(*block) for block in blocks), shared) for blocks, shared in small_plan(count)]


def measure(folder: Path, *more: str) -> int:
    options = ["--name", "box", "--networks", "20", "--seconds", "0.001", "--seq-len", "4", "--threads", "1"]
    return profile.main([*options, "--runtimes", "torch", "--output", str(folder), *more])


def test_the_command_measures_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(profile, "networks_to_measure", small_networks)
    monkeypatch.setattr(profile_standalone, "is_steady", lambda pace, usual: True)
    timed: list[Architecture] = []
    prepare = Engine.prepare

    def counting(self: Engine, design: Architecture):
        if len(timed) == 30:
            timed.append(design)
            raise KeyboardInterrupt
        timed.append(design)
        return prepare(self, design)

    monkeypatch.setattr(Engine, "prepare", counting)
    assert measure(tmp_path, "--rounds", "2") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "box.json").exists()
    assert measure(tmp_path, "--rounds", "2") == 0
    assert len(timed) == 41  # 40 and the one that was interrupted
    device = read_device(str(tmp_path / "box.json"))
    assert [len(row.rounds_ms) for row in device.tables[0].rows] == [2] * 20
    assert "95 % margin" in capsys.readouterr().out
    assert engine_of(device.tables[0]).threads == 1
    assert measure(tmp_path, "--rounds", "3") == 0
    assert len(timed) == 61
    with pytest.raises(ValueError, match=r"was measured with .* delete that file to begin anew"):
        measure(tmp_path, "--batch", "2")


def test_what_was_measured_while_the_machine_was_not_steady_is_measured_again(tmp_path: Path) -> None:
    designs = {("table", 0, str(design)): design for design in small_networks(20)}
    asked: Counter[str] = Counter()

    def key_of(row: Row) -> tuple | None:
        return (row["table"], row["round"], row["network"])

    def visit(key: tuple, design: Architecture) -> Row:
        asked[key[2]] += 1
        hopeless, disturbed = key[2] == str(small_networks(20)[0]), sum(asked.values()) in (5, 9)
        pace = 12.0 if hopeless else 9.0 if disturbed else 6.0 + 0.01 * sum(asked.values()) / 20
        return {"table": "table", "round": 0, "network": key[2], "pace_ms": pace, "trimmed_ms": pace}

    file = RowFile(tmp_path / "rows.jsonl")
    profile.measure_steadily(designs, file, key_of, visit)
    best = profile.steadiest(file.rows, key_of)
    assert sorted(asked.values()) == [1] * 17 + [2, 2] + [profile_standalone.ATTEMPTS]
    assert sorted(row["pace_ms"] > 6.5 for row in best.values()) == [False] * 19 + [True]
    before = len(file.rows)
    profile.measure_steadily(designs, file, key_of, visit)
    assert len(file.rows) == before  # what could not be measured steadily is not tried for ever


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "My Box"], "expected lower-case letters"),
        (["--name", "box", "--runtimes", "tvm"], "--runtimes is 'tvm'"),
        (["--name", "box", "--runtimes", "onnx", "--precisions", "bfloat16"], "onnx has no precision bfloat16"),
        (["--name", "box", "--networks", "3"], "--networks is 3; expected at least 20"),
        (["--name", "box", "--seconds", "0"], "--seconds is 0"),
        (["--name", "box", "--phases", "training"], "--phases is 'training'"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        profile.main([*arguments, "--output", str(tmp_path)])


def test_only_tables_of_this_command_name_an_engine() -> None:
    with pytest.raises(ValueError, match=r"is none that python -m hardware_models.profile wrote"):
        engine_of(read_device("jetson-nano").table())
