"""Measuring a machine: the plan, the stand-alone script, the engines, and the command with its resumption.

The networks here are tiny: what is tested is that the right thing is timed, and not how fast it is.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from formulation import Architecture, Block, layer_of
from formulation.architecture import read_blocks
from formulation.records.rows import Row, RowFile, StudyStopped
from hardware_models import (
    CacheMemory,
    Latency,
    Params,
    Validated,
    Workload,
    engines,
    plain_graph,
    profile,
    profile_standalone,
    read_device,
)
from hardware_models.artefacts import SHIPPED, ArtefactEngine, Workshop, tokenizer_of
from hardware_models.device import device_from_text
from hardware_models.engines import IN_PROCESS, Engine, Measurement, engine_of, random_network
from hardware_models.kernels import maps_of
from hardware_models.plain_graph import onnx_graph
from hardware_models.profile_standalone import Network, clean_rounds, is_steady, left_out, plan, trimmed_mean, usual_pace
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.shipping.runtimes import Job, Report, Runtime

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


def test_the_plain_network_is_made_of_the_maps_and_norms_of_the_layer() -> None:
    layer = layer_of(Block(128, 320, 1), TINY)
    shapes = {f"{own.name}.weight": (own.outputs, own.inputs) for own in layer.matrices}
    shapes |= {f"{own.name}.bias": (own.outputs,) for own in layer.matrices if own.bias}
    shapes |= {f"{own.name}.weight": (own.width,) for own in layer.norms}
    shapes |= {f"{own.name}.bias": (own.width,) for own in layer.norms if own.bias}
    plain = profile_standalone.Layer(128, 320, fused=False)
    assert {name: tuple(value.shape) for name, value in plain.state_dict().items()} == shapes
    assert (plain.heads, profile_standalone.HEAD_SIZE) == (layer.heads, layer.head_size)
    blocks = [(block.width, block.ffn_width, block.depth) for block in TINY.blocks]
    for shared in (True, False):
        around = torch.zeros(TINY.vocabulary, 64), torch.zeros(TINY.positions + profile_standalone.FIRST_POSITION, 64)
        counted = sum(value.numel() for value in Network(blocks, *around, shared).state_dict().values())
        assert counted == Params()(replace(TINY, shared=shared))
    cache = profile_standalone.cache_of(blocks, 5, 2, torch.float32, "cpu")
    assert 4 * sum(state.numel() for state in cache) == CacheMemory(5, 2)(TINY)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_the_plain_network_computes_what_merino_net_does(shared: bool, fused: bool) -> None:
    torch.manual_seed(0)
    design = Architecture(TINY.blocks, shared, 96, 50, 32)
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design)).eval()
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
    [(runtime, precision) for runtime, precisions in IN_PROCESS.items() for precision in precisions if runtime != "compiled"],
)
def test_every_engine_runs_all_linear_maps_in_its_precision(
    runtime: str, precision: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[dict[str, int]] = []
    check = engines.check_maps
    monkeypatch.setattr(engines, "check_maps", lambda *arguments: (ran.append(arguments[-1]), check(*arguments)))
    engine = Engine(runtime, precision, Workload(phase, seq_len=8), threads=1)
    assert engine.name == f"{runtime}-{precision}-{phase}"
    assert 0 < engine.latency_ms(TINY, seconds=0.001) < 1000
    assert ran == [{precision: 4 * 3 + 2 + 1}]  # four a layer, two joints (64 to 128 and back), the head
    assert engine.how["threads"] == 1


STATED = Architecture(
    (Block(96, 128, 2, heads=4, kv_heads=2, head_size=32, value_head_size=16, gated=True), Block(64, 48, 2, shared=False)),
    embedding_width=64,
    vocabulary=50,
    positions=32,
)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("precision", IN_PROCESS["torch"])
def test_heads_and_gates_are_measured_in_pytorch_and_refused_elsewhere(precision: str, phase: str) -> None:
    assert Engine("torch", precision, Workload(phase, seq_len=8), threads=1).latency_ms(STATED, seconds=0.001) > 0
    with pytest.raises(
        ValueError, match=r"96/128x2 .* states its heads and kv_heads and head_size and value_head_size and gated; .*torch"
    ):
        Engine("onnx", "float32", Workload(phase, seq_len=8), threads=1).prepare(STATED)


def unequal_layers(family: str, tied: bool = True) -> Architecture:
    blocks = (Block(96, 128, 2, heads=4, kv_heads=2, head_size=32), Block(96, 64, 1, heads=2, head_size=16))
    return Architecture(blocks, False, vocabulary=50, positions=32, family=family, tied=tied)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_families_are_measured_in_pytorch_as_they_are(family: str, tied: bool, phase: str) -> None:
    design = unequal_layers(family, tied)
    for precision in ("float32", "int8"):
        assert Engine("torch", precision, Workload(phase, seq_len=8), threads=1).latency_ms(design, seconds=0.001) > 0
    model = random_network(design, torch.zeros(50, 96))
    assert sum(each.numel() for each in model.parameters()) == Params()(design)
    assert (model.lm_head.weight is model.model.tokens.weight) is tied
    assert not any(each.is_meta for each in (*model.parameters(), *model.buffers()))


def test_a_random_network_turns_by_the_same_angles_as_a_trained_one() -> None:
    design = unequal_layers("llama")
    made = MerinoForCausalLM(MerinoConfig.from_architecture(design)).eval()
    model = random_network(design, torch.zeros(50, 96))
    model.load_state_dict(made.state_dict())
    tokens = torch.randint(50, (1, 9))
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, made(tokens).logits)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_plain_network_is_of_our_family_alone(family: str) -> None:
    design = Architecture((Block(64, 128, 1),), False, vocabulary=50, positions=32, family=family)
    with pytest.raises(ValueError, match=f"of the family {family}, which has no plain network .* onnxruntime-genai"):
        Engine("onnx", "float32", Workload(seq_len=8), threads=1).prepare(design)


PADDED = Architecture((Block(64, 128, 1), Block(128, 64, 1)), embedding_width=64, vocabulary=50, positions=32, joints="pad")


def test_padding_is_measured_in_pytorch_and_refused_elsewhere() -> None:
    assert maps_of(PADDED) == 2 * 4 + 1
    assert Engine("torch", "float32", Workload(seq_len=8), threads=1).latency_ms(PADDED, seconds=0.001) > 0
    with pytest.raises(ValueError, match="pads unequal widths, which the plain network does not"):
        Engine("onnx", "float32", Workload(seq_len=8), threads=1).prepare(PADDED)


def test_linear_maps_are_counted_as_they_are_applied() -> None:
    assert maps_of(TINY) == 15
    assert maps_of(STATED) == 2 * 5 + 2 * 4 + 2 + 1
    assert maps_of(Architecture((Block(64, 128, 2),), shared=False, embedding_width=64, vocabulary=50, positions=32)) == 9


@pytest.mark.parametrize(
    ("runtime", "precision", "part", "instead", "words"),
    [
        (
            "torch",
            "int8",
            "engines._with_plain_maps",
            lambda model: model,
            "expected all in int8, it ran 8 in float32 and 7 in int8",
        ),
        ("torch", "int8", "engines.in_8_bits", lambda model: model, "expected all in int8, it ran 15 in float32;"),
        ("torch", "bfloat16", "engines.Engine._dtype", torch.float32, "expected all in bfloat16, it ran 15 in float32;"),
        ("onnx", "int8", "plain_graph.fold_transposes", lambda graph: graph, "expected all in int8, it ran 15 in float32;"),
        ("onnx", "int8", "plain_graph.in_8_bits", plain_graph.fold_transposes, "expected all in int8, it ran 15 in float32;"),
        ("compiled", "float32", "engines.compile_whole", lambda model: model, "0 graphs were compiled, in float32"),
    ],
)
def test_an_engine_that_runs_something_else_measures_nothing(
    runtime: str, precision: str, part: str, instead: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"hardware_models.{part}", instead)
    with pytest.raises(ValueError, match=rf"{runtime}-{precision}-prefill is not what it says: .*{words}"):
        Engine(runtime, precision, Workload(seq_len=8), threads=1).prepare(TINY)


def test_every_design_is_compiled_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch keeps a few compiled versions of one piece of code, and runs all further ones uncompiled."""
    compile_it = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_it(function, backend="eager", **options))
    engine = Engine("compiled", "float32", Workload(seq_len=8), threads=1)
    with torch._dynamo.config.patch(recompile_limit=1):
        for width in (64, 128, 192):
            design = Architecture((Block(64, width, 1),), embedding_width=64, vocabulary=50, positions=32)
            engine.prepare(design)()


@pytest.mark.slow
@pytest.mark.parametrize("precision", IN_PROCESS["compiled"])
def test_the_compiled_engine_compiles(precision: str) -> None:
    assert Engine("compiled", precision, Workload(seq_len=8), threads=1).latency_ms(TINY, seconds=0.001) > 0


def test_a_decoding_step_may_be_repeated() -> None:
    run = Engine("torch", "float32", Workload("decode", seq_len=31), threads=1).prepare(TINY)
    for _ in range(5):  # the cache stays as long as it was: 32 positions hold no second step
        run()


def onnx_logits(precision: str) -> np.ndarray:
    import onnxruntime

    torch.manual_seed(0)
    embedding, positions = torch.randn(50, 64), torch.randn(34, 64)
    tokens = torch.randint(50, (1, 8))
    graph = onnx_graph(TINY, embedding, positions, "last", (tokens,), precision)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tokens.numpy()})[0]


def test_the_onnx_graph_computes_what_the_network_does() -> None:
    logits = onnx_logits("float32")
    assert logits.shape == (1, 1, 50)
    assert len(set(logits.ravel().tolist())) > 40  # the embedding put in after tracing is the one that is used
    error = abs(onnx_logits("int8") - logits).max() / abs(logits).max()
    assert 0 < error < 0.1  # of 8 bits, in the head as well, whose weights are put in after quantizing


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


SLOWED = tuple(5.6 * (1.15 + 0.02 * k) for k in range(80))  # other work takes what it takes: no two alike
CLEAN = tuple(5.6 * (0.99 + 0.001 * k) for k in range(20))


@pytest.mark.parametrize(
    ("paces", "usual"),
    [
        (CLEAN, 5.6),
        ((*SLOWED, *CLEAN), 5.6),  # 80 of 100 slowed
        ((5.0, 5.0, *CLEAN), 5.6),  # two by luck
        ((*CLEAN, *(5.1 for _ in range(10))), 5.1),  # a third at a higher clock
        ((7.0,), 7.0),
        ((7.0, 5.6), 5.6),
    ],
)
def test_the_usual_pace_is_that_of_the_fast_visits(paces: tuple[float, ...], usual: float) -> None:
    assert usual_pace(paces) == pytest.approx(usual, rel=0.01)
    assert usual_pace(paces[::-1]) == usual_pace(paces)
    assert is_steady(usual * 1.03, usual_pace(paces))


def test_of_each_round_the_cleanest_visit_counts() -> None:
    visits = [{"round": number, "pace_ms": pace} for number, pace in ((1, 5.7), (0, 5.75), (0, 5.61), (2, 9.0), (0, 5.3), (1, 5.9))]
    assert clean_rounds(visits, 5.6) == [visits[2], visits[0]]
    assert clean_rounds(visits[3:4], 5.6) == []
    assert left_out([visits, visits[3:4]], 5.6) == "2 of 4 measurements left out, and with them 1 of 2 networks"


class BusyMachine:
    """Additive latencies, measured on a machine whose other work slows more visits than not, by up to three times."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()

    def visit(self, network: str) -> tuple[float, float]:
        """Latency and pace [ms]; the same for the same visit of the same network, whoever asks."""
        draw = np.random.default_rng([*network.encode(), self.visits[network]])
        self.visits[network] += 1
        slower = 1.0 if draw.random() < 0.45 else draw.uniform(1.1, 3)
        blocks = read_blocks(network.removesuffix(" unshared"))
        true = 5 + sum(block.depth * (2 + block.width / 100 + block.ffn_width / 300) for block in blocks)
        return true * slower * draw.normal(1, 0.01), 5.6 * slower * draw.normal(1, 0.005)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> BusyMachine:
    machine = BusyMachine()

    def measure(self: Engine, design: Architecture, seconds: float) -> Measurement:
        latency, pace = machine.visit(str(design))
        return Measurement(latency, 0.1, 5, pace)

    monkeypatch.setattr(Engine, "measure", measure)
    monkeypatch.setattr(profile, "networks_to_measure", lambda count: [full_size(*one) for one in plan(count)])
    return machine


def full_size(blocks: tuple[tuple[int, int, int], ...], shared: bool) -> Architecture:
    return Architecture(tuple(Block(*block) for block in blocks), shared)


def test_a_busy_machine_is_measured_by_its_clean_visits(
    busy: BusyMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(tmp_path, "--rounds", "2", "--networks", "24") == 0
    (table,) = read_device(str(tmp_path / "box.json")).tables
    assert len(table.rows) >= 20
    assert table.error is not None
    assert table.error.mape < 0.05
    assert table.how["pace_ms"] == pytest.approx(5.6, rel=0.01)
    assert "measurements left out" in table.how["not_steady"]
    assert not table.doubt
    assert "doubtful" not in capsys.readouterr().out


def test_both_scripts_choose_the_same_visits(busy: BusyMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-alone one sees the same visits of the same networks, and makes the same table of them."""
    assert measure(tmp_path, "--rounds", "1", "--networks", "24") == 0
    (ours,) = read_device(str(tmp_path / "box.json")).tables
    busy.visits.clear()
    networks = plan(24)

    class Pace:
        def __init__(self, device: str) -> None: ...

        def around(self, network: Architecture, seconds: float) -> tuple[list[float], float]:
            latency, pace = busy.visit(str(network))
            return [latency / 1000], pace

    by_blocks = {blocks: full_size(blocks, shared) for blocks, shared in networks}
    monkeypatch.setattr(profile_standalone, "Pace", Pace)
    monkeypatch.setattr(profile_standalone, "Network", lambda *arguments: torch.nn.Identity())
    monkeypatch.setattr(profile_standalone, "check_precision", lambda *arguments: None)
    monkeypatch.setattr(profile_standalone, "table_on", lambda *arguments: None)
    monkeypatch.setattr(profile_standalone, "pass_of", lambda network, blocks, *rest: by_blocks[blocks])
    profile_standalone.main(
        ["--name", "box", "--networks", "24", "--rounds", "1", "--device", "cpu", "--output", str(tmp_path / "twin.json")]
    )
    (theirs,) = read_device(str(tmp_path / "twin.json")).tables
    chosen, twin = ({row.design: row.mean_ms for row in table.rows} for table in (ours, theirs))
    assert twin == pytest.approx(chosen, rel=1e-5)
    assert theirs.how["pace_ms"] == pytest.approx(ours.how["pace_ms"], rel=1e-4)
    assert theirs.how["not_steady"] == ours.how["not_steady"]
    assert theirs.error is not None
    assert theirs.error.mape < 0.05


def test_a_machine_that_is_never_free_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: BusyMachine) -> None:
    paces = iter(range(1000))
    monkeypatch.setattr(Engine, "measure", lambda self, design, seconds: Measurement(9.0, 0.1, 5, 5.6 * 1.05 ** next(paces)))
    with pytest.raises(ValueError, match=r"fewer than 20 networks .*usual pace"):
        measure(tmp_path, "--rounds", "1")
    assert not (tmp_path / "box.json").exists()


def test_a_large_error_is_marked_wherever_it_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: BusyMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pace tells nothing here: other work that does not slow the fixed piece, as on the memory bus."""
    draw = np.random.default_rng(0)
    monkeypatch.setattr(Engine, "measure", lambda self, design, seconds: Measurement(draw.uniform(10, 60), 0.1, 5, 5.6))
    assert measure(tmp_path, "--rounds", "1") == 3
    printed = capsys.readouterr()
    assert " % (doubtful)" in printed.out
    assert "warning: the table torch-float32-prefill of box is doubtful" in printed.err
    table = read_device(str(tmp_path / "box.json")).table()
    assert "more than 20 %; measure again" in table.doubt
    assert f"(doubtful: mean error {100 * table.error.mape:.0f} %)" in Latency(table).name


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Small networks in small surroundings, on a machine of steady pace, and a folder to measure in."""
    monkeypatch.setattr(profile_standalone, "plan", small_plan)
    monkeypatch.setattr(profile_standalone, "SURROUNDINGS", {"embedding_width": 64, "vocabulary": 50, "positions": 32})
    monkeypatch.setattr(profile_standalone.Pace, "__call__", lambda self: 6.0)
    monkeypatch.setattr(profile_standalone.time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stand_alone_script_writes_a_device_file(tiny: Path) -> None:
    arguments = ["--name", "my-board", "--networks", "20", "--seconds", "0.001", "--seq-len", "8", "--phases", "prefill,decode"]
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
        assert [len(row.rounds_ms) for row in table.rows] == [2] * 20
        assert table.error is not None
        assert table.validated.vocabularies == (50,)
        assert min(row.passes for row in table.rows) >= 10
        assert table.how["not_steady"] == "0 of 40 measurements left out, and with them 0 of 20 networks"
    assert {"name", "tables", "ram_bytes"} <= set(json.loads((tiny / "my-board.json").read_text()))


def test_networks_without_a_clean_visit_are_left_out_of_the_stand_alone_script_s_file(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "--name",
        "my-board",
        "--networks",
        "24",
        "--seconds",
        "0.001",
        "--seq-len",
        "8",
        "--device",
        "cpu",
        "--rounds",
        "1",
    ]
    slow = {small_plan(24)[number] for number in (3, 17)}
    around = profile_standalone.Pace.around
    now: list[object] = []
    network = profile_standalone.Network
    monkeypatch.setattr(
        profile_standalone, "Network", lambda blocks, e, p, shared: (now.append((blocks, shared)), network(blocks, e, p, shared))[1]
    )
    monkeypatch.setattr(
        profile_standalone.Pace, "around", lambda self, run, s: (around(self, run, s)[0], 9.0 if now[-1] in slow else 6.0)
    )
    profile_standalone.main(arguments)
    assert len(read_device("my-board.json").table().rows) == 22
    slow.update(small_plan(24)[4:7])
    with pytest.raises(SystemExit, match="fewer than 20 networks were measured at the usual pace"):
        profile_standalone.main([*arguments, "--output", "other.json"])
    with pytest.raises(ValueError, match="there are 19 measured networks"):
        device_from_text(Path("other.json").read_text())


@pytest.mark.parametrize(
    ("precision", "network", "words"),
    [
        ("int8", torch.nn.Sequential(torch.nn.Linear(4, 4)), "1 linear maps of the network are not in 8 bits"),
        ("float16", torch.nn.Linear(4, 4), "the network holds torch.float32; leave float16 out"),
    ],
)
def test_the_stand_alone_script_times_nothing_else(precision: str, network: torch.nn.Module, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        profile_standalone.check_precision(network, precision)


def test_the_stand_alone_script_adds_to_nothing_else(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--name", "my-board", "--networks", "20", "--seconds", "0.001", "--rounds", "1", "--device", "cpu"]
    profile_standalone.main([*common, "--seq-len", "8"])
    before = (tiny / "my-board.json").read_bytes()
    with pytest.raises(SystemExit, match="2"):
        profile_standalone.main([*common, "--seq-len", "9"])
    assert "measured with other --seq-len" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        profile_standalone.main([*common, "--seq-len", "8", "--name", "other", "--output", "my-board.json"])
    assert "not a file that this script wrote for other" in capsys.readouterr().err
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


class FakeRuntime:
    """A runtime whose artefact is the network's parameters in words, and whose client is a formula of them."""

    def __init__(self) -> None:
        self.exported: list[tuple[str, str]] = []
        self.ran: list[Path] = []

    def export(self, runtime: Runtime, model: torch.nn.Module, tokenizer: object, folder: Path, weights: str) -> None:
        design = model.config.to_architecture()
        assert not any(folder.iterdir())
        assert len(tokenizer) == design.vocabulary
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        self.exported.append((str(design), weights))
        layers = [(block, block.depth) for block in design.blocks]
        work = sum(depth * (0.1 + block.width * block.ffn_width / 1e5 + 0.2 * block.kv_heads) for block, depth in layers)
        (folder / "network.txt").write_text(json.dumps(work * (2 if weights in ("q8_0", "int8") else 1)))

    def run(self, runtime: Runtime, folder: Path, job: Job) -> Report:
        self.ran.append(folder)
        assert job.threads == 1
        assert job.timing is not None
        (phase,) = job.timing.phases
        step = json.loads((folder / "network.txt").read_text())
        passes = [step * share * (job.timing.seq_len if phase == "prefill" else 1) for share in (1.0, 1.0, 1.0, 9.0)]
        return Report("1", **{f"{phase}_ms": passes})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRuntime:
    own = FakeRuntime()
    monkeypatch.setattr(Runtime, "export", lambda self, *given: own.export(self, *given))
    monkeypatch.setattr(Runtime, "run", lambda self, *given: own.run(self, *given))
    monkeypatch.setattr(Runtime, "require", lambda self, instead="": None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")
    monkeypatch.setattr(profile_standalone.Pace, "__call__", lambda self: 6.0)
    space = {
        "blocks": 3,
        "widths": [64, 128],
        "ffn_widths": [64, 96, 128, 256],
        "heads": [2, 4],
        "kv_heads": [1, 2],
        "depths": [0, 1],
    }
    around = {"head_sizes": [16], "shared": False, "vocabulary": 300, "positions": 64, "tied": True, "family": "llama"}
    parts = [space | around | {"widths": [width]} for width in space["widths"]]
    (tmp_path / "space.json").write_text(json.dumps({"union": parts}))
    return own


def ship(folder: Path, *more: str) -> int:
    options = ["--name", "pi", "--networks", "24", "--rounds", "1", "--seq-len", "4", "--threads", "1", "--runtime", "llama.cpp"]
    return profile.main([*options, "--space", str(folder / "space.json"), "--output", str(folder), *more])


def test_artefacts_of_a_runtime_become_tables(fake: FakeRuntime, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ship(tmp_path) == 0
    device = read_device(str(tmp_path / "pi.json"))
    names = [f"llama.cpp-{weights}-{phase}" for weights in ("q8_0", "q4_0") for phase in ("prefill", "decode")]
    assert [table.name for table in device.tables] == names
    assert [len(fake.exported), len(fake.ran)] == [2 * 24, 4 * 24]  # both phases of one artefact
    assert not any(folder.exists() for folder in fake.ran[:-4])  # each is deleted once all was timed
    for table in device.tables:
        assert len(table.rows) == 24
        assert table.error is not None
        assert table.error.mape < 0.01
        assert table.workload == Workload(table.name.rpartition("-")[2], 4)
        assert table.how["largest_artefact_bytes"] > 0
        assert table.validated == Validated.of([row.design for row in table.rows])
        assert (table.validated.families, table.validated.vocabularies) == (("llama",), (300,))
        assert (table.validated.widths, table.validated.heads, table.validated.kv_heads) == ((64, 128), (2, 4), (1, 2))
        engine = engine_of(table)
        assert isinstance(engine, ArtefactEngine)
        assert (engine.name, engine.threads) == (table.name, 1)
    design = device.tables[0].rows[0].design
    slow, quick = (device.table(f"llama.cpp-{weights}-decode") for weights in ("q8_0", "q4_0"))
    assert Latency(slow)(design) == pytest.approx(2 * Latency(quick)(design), rel=0.01)
    assert "llama.cpp-q4_0-decode" in capsys.readouterr().out


def test_each_runtime_has_precisions_and_phases_of_its_own_unless_they_are_named() -> None:
    flags = vars(profile.command_line().parse_args(["--name", "pi", "--runtimes", "torch,onnxruntime-genai,openvino-genai,torch"]))
    asked = profile.Campaign.of(flags)
    artefacts = [
        (runtime, precision, phase)
        for runtime in ("onnxruntime-genai", "openvino-genai")
        for precision in ("int8", "int4")
        for phase in ("prefill", "decode")
    ]
    assert list(asked.tables) == [("torch", "float32", "prefill"), *artefacts]
    flags |= {"precisions": "float32,int4", "phases": "decode"}
    assert profile.Campaign.of(flags).tables == (
        ("torch", "float32", "decode"),
        *(
            (runtime, precision, "decode")
            for runtime in ("onnxruntime-genai", "openvino-genai")
            for precision in ("float32", "int4")
        ),
    )
    assert {design.family for design in asked.designs()} == {"llama"}
    assert {block.gated for design in asked.designs() for block in design.blocks} == {True, False}


def test_artefacts_are_not_made_again_for_rows_that_are_there(fake: FakeRuntime, tmp_path: Path) -> None:
    assert ship(tmp_path, "--precisions", "q8_0", "--phases", "decode") == 0
    assert ship(tmp_path, "--precisions", "q8_0", "--phases", "decode") == 0
    assert len(fake.exported) == len(fake.ran) == 24
    assert ship(tmp_path, "--precisions", "q8_0", "--phases", "decode", "--rounds", "2") == 0
    assert len(fake.exported) == len(fake.ran) == 48
    with pytest.raises(ValueError, match=r"the rows of llama.cpp-q8_0-decode are of networks in .*; choose the same --space"):
        profile.main(["--name", "pi", "--runtimes", "llama.cpp", "--seq-len", "4", "--threads", "1", "--output", str(tmp_path)])


def test_a_table_of_llamas_prices_no_merino_and_the_other_way_round(fake: FakeRuntime, tmp_path: Path) -> None:
    assert ship(tmp_path, "--precisions", "q8_0", "--phases", "decode") == 0
    latency = Latency(read_device(str(tmp_path / "pi.json")).table())
    design = latency.table.rows[0].design
    ours = replace(design, family="merino", embedding_width=design.widths[0])
    with pytest.raises(ValueError, match=r"family merino \(validated llama\)"):
        latency(ours)
    with pytest.raises(ValueError, match=r"feed-forward networks without a gate \(none were measured\)"):
        latency(replace(design, blocks=tuple(replace(block, gated=False) for block in design.blocks)))
    with pytest.raises(ValueError, match=r"heads 8 \(validated 2 to 4\)"):
        latency(replace(design, blocks=(replace(design.blocks[0], heads=8),)))
    with pytest.raises(ValueError, match=r"kv_heads 4 \(validated 1 to 2\)"):
        latency(replace(design, blocks=(replace(design.blocks[0], heads=4, kv_heads=4),)))
    assert replace(latency, extrapolate=True).extrapolates(ours).startswith("family merino")


def test_an_artefact_that_cannot_be_exported_leaves_none_behind(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop()

    def refuse(*given: object) -> None:
        raise ValueError("llama.cpp has no such layer")

    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "export", refuse)
        with pytest.raises(ValueError, match="no such layer"):
            shop.artefact(unequal_llama(), SHIPPED["llama.cpp"], "q8_0")
    assert [file.name for file in shop.artefact(unequal_llama(), SHIPPED["llama.cpp"], "q8_0").iterdir()] == ["network.txt"]


def unequal_llama() -> Architecture:
    return replace(unequal_layers("llama"), vocabulary=300)


@pytest.mark.parametrize("vocabulary", [300, 4096])
def test_a_tokenizer_without_a_text_has_as_many_tokens_as_asked_for(vocabulary: int) -> None:
    tokenizer = tokenizer_of(vocabulary)
    assert len(tokenizer) == vocabulary
    text = "Ünequal layers, 3 of them"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def small_networks(count: int) -> list[Architecture]:
    return [Architecture(tuple(Block(*block) for block in blocks), shared) for blocks, shared in small_plan(count)]


def measure(folder: Path, *more: str) -> int:
    options = ["--name", "box", "--networks", "20", "--seconds", "0.001", "--seq-len", "4", "--threads", "1"]
    return profile.main([*options, "--runtimes", "torch", "--output", str(folder), *more])


def test_the_command_measures_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: BusyMachine, capsys: pytest.CaptureFixture[str]
) -> None:
    timed: list[Architecture] = []

    def counting(self: Engine, design: Architecture, seconds: float) -> Measurement:
        timed.append(design)
        if len(timed) == 31:
            raise KeyboardInterrupt
        return Measurement(5.0 + sum(block.depth * block.width / 100 for block in design.blocks), 0.1, 5, 6.0)

    monkeypatch.setattr(Engine, "measure", counting)
    with pytest.raises(StudyStopped, match=r"what is finished is kept in .*box\.rows\.jsonl, and the same command goes on"):
        measure(tmp_path, "--rounds", "2")
    assert not (tmp_path / "box.json").exists()
    assert measure(tmp_path, "--rounds", "2") == 0
    assert len(timed) == 41  # 40 and the one that was interrupted
    device = read_device(str(tmp_path / "box.json"))
    assert [len(row.rounds_ms) for row in device.tables[0].rows] == [2] * 20
    assert "95 % margin" in capsys.readouterr().out
    assert engine_of(device.tables[0]).threads == 1
    assert measure(tmp_path, "--rounds", "3") == 0
    assert len(timed) == 61
    with pytest.raises(ValueError, match=r"this run is of .* delete that file to start over"):
        measure(tmp_path, "--batch", "2")


def test_rows_that_nobody_looked_into_are_not_added_to(tmp_path: Path, busy: BusyMachine) -> None:
    assert measure(tmp_path, "--rounds", "2", "--networks", "24") == 0
    path = tmp_path / "box.rows.jsonl"
    text = path.read_text().replace('"linear_maps": ', '"maps": ')
    path.write_text(text)
    with pytest.raises(ValueError, match="torch-float32-prefill were measured without a look at what really ran"):
        measure(tmp_path, "--rounds", "2")
    assert path.read_text() == text


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
        (["--name", "box", "--runtimes", "tvm"], "--runtimes names 'tvm' .expected some of torch, compiled, onnx, llama.cpp"),
        (["--name", "box", "--runtime", "llama.ccp"], "--runtimes names 'llama.ccp'; did you mean llama.cpp?"),
        (["--name", "box", "--runtimes", "torch,gguf"], "--runtimes names 'gguf'; did you mean llama.cpp?"),
        (["--name", "box", "--runtimes", "ort-genai"], "did you mean onnxruntime-genai?"),
        (["--name", "box", "--runtimes", "llama.cpp", "--precisions", "q4"], "--precisions names 'q4'; did you mean q4_0?"),
        (["--name", "box", "--runtimes", "llama.cpp", "--precisions", "int8"], "llama.cpp has no precision int8"),
        (["--name", "box", "--runtimes", "llama.cpp", "--batch", "2"], "one sequence at a time, .* got batch 2"),
        (["--name", "box", "--runtimes", "llama.cpp", "--space", "smal"], "space"),
        (["--name", "box", "--runtimes", "onnx", "--precisions", "bfloat16"], "onnx has no precision bfloat16"),
        (["--name", "box", "--networks", "3"], "--networks is 3; expected at least 20"),
        (["--name", "box", "--seconds", "0"], "--seconds is 0"),
        (["--name", "box", "--phases", "training"], "--phases names 'training'"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        profile.main([*arguments, "--output", str(tmp_path)])


def test_only_tables_of_this_command_name_an_engine() -> None:
    with pytest.raises(ValueError, match=r"is none that python -m hardware_models.profile wrote"):
        engine_of(read_device("jetson-nano").table())
