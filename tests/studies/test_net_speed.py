"""The speed study: GPT-2 of equal FLOPs, counts, ratios, and the study on tiny models as a user runs, stops and mistypes it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, GPT2Config, OPTConfig, PreTrainedConfig

from formulation import PUBLISHED, Architecture, Block
from formulation.command.options import read_options
from formulation.records.rows import Row, RowFile, StudyStopped
from merino_net import MerinoConfig
from merino_net.network.baselines import baseline_config
from merino_net.network.counting import forward_flops
from studies.net_speed.study import (
    PER_LAYER,
    SPEED_PARTS,
    SPEED_RUNTIMES,
    Bench,
    Load,
    NetSpeedOptions,
    Shapes,
    TimedTask,
    _size,
    benches_of,
    command_line,
    decode_flops,
    equal_gpt2,
    fixed_tokens,
    inference_benches,
    llama_bench,
    main,
    mean_layer,
    measure_and_write,
    onnx_engine,
    plain_llama,
    prefill_flops,
    random_model,
    ratio_of,
    run_benches,
    speed_summary,
    speed_text,
    torch_engine,
    train_bench,
    weights_read,
)

SMALL = Shapes(batch=2, seq_len=16, steps=1, prompt=8, calls=1, new_tokens=3)


def design() -> MerinoConfig:
    return MerinoConfig(
        blocks=[{"width": 64, "ffn_width": 64, "depth": 2}, {"width": 128, "ffn_width": 192, "depth": 1}],
        embedding_width=128,
        vocab_size=300,
        max_position_embeddings=64,
    )


def reference() -> OPTConfig:
    return OPTConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, ffn_dim=128, num_attention_heads=1, max_position_embeddings=64
    )


def small_benches(runtimes: Sequence[str] = ("torch", "torch-bf16"), turns: int = 2) -> list[Bench]:
    train = train_bench(design(), SMALL, "bfloat16", compiled=False, threads=1, turns=turns)
    return [train, *inference_benches({"small": design()}, {"OPT": reference()}, SPEED_PARTS, runtimes, SMALL, 1, turns)]


def read_rows(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seq_len", [256, 1024])
def test_gpt2_of_equal_flops_is_one(name: str, seq_len: int) -> None:
    config = MerinoConfig.from_architecture(PUBLISHED[name])
    gpt2 = equal_gpt2(config, seq_len)
    assert forward_flops(gpt2, seq_len) == pytest.approx(forward_flops(config, seq_len), rel=0.01)
    assert gpt2.n_inner == pytest.approx(4 * gpt2.n_embd, rel=0.05)
    assert (gpt2.vocab_size, gpt2.n_positions) == (config.vocab_size, config.max_position_embeddings)
    assert gpt2.n_embd == 64 * gpt2.n_head
    assert gpt2.activation_function == "gelu_new"
    assert (gpt2.resid_pdrop, gpt2.embd_pdrop, gpt2.attn_pdrop) == (0, 0, 0)


def test_a_small_design_has_its_gpt2_too() -> None:
    assert forward_flops(equal_gpt2(design(), 16), 16) == pytest.approx(forward_flops(design(), 16), rel=0.03)
    assert equal_gpt2(design(), 16, "gelu").activation_function == "gelu"


def test_unequal_layers_their_mean_and_llama_are_of_equal_flops_and_parameters() -> None:
    uniform = mean_layer(PER_LAYER)
    assert len(set(PER_LAYER.blocks)) == 3
    assert len(set(uniform.blocks)) == 1
    models = [MerinoConfig.from_architecture(PER_LAYER), MerinoConfig.from_architecture(uniform), plain_llama(uniform)]
    assert len({forward_flops(config, 256) for config in models}) == 1
    assert len({_size(config)["parameters"] for config in models}) == 1
    with pytest.raises(ValueError, match="have no mean layer"):
        mean_layer(replace(PER_LAYER, blocks=PER_LAYER.blocks[0:3:2]))


def test_llama_is_timed_beside_designs_of_its_family() -> None:
    blocks = tuple(Block(64, ffn_width, 1, heads=heads, kv_heads=1, head_size=16) for ffn_width, heads in ((64, 6), (128, 2)))
    small = Architecture(blocks, family="llama", tied=True, vocabulary=300, positions=64)
    bench = llama_bench(small, SMALL, "bfloat16", compiled=False, threads=1, turns=1)
    assert bench.references == ("Llama",)
    (task,) = bench.tasks
    for config in bench.models.values():
        with ExitStack() as stack:
            assert task.timer(bench.build(config, stack))() > 0


@pytest.mark.parametrize("config", [design(), reference(), GPT2Config(n_layer=2, n_embd=64, n_head=1, vocab_size=300)])
def test_flops_of_prefill_and_decoding_are_those_that_pytorch_counts(config: PreTrainedConfig) -> None:
    model = random_model(config).eval()
    model.set_attn_implementation("eager")  # whose products the counter sees
    tokens = fixed_tokens(config, 1, 8)
    with torch.inference_mode(), FlopCounterMode(display=False) as last:
        model(input_ids=tokens, use_cache=False, logits_to_keep=1)
    assert prefill_flops(config, 8, 1) == last.get_total_flops()
    assert prefill_flops(config, 8, 8) == forward_flops(config, 8)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=tokens[:, :5], past_key_values=cache, use_cache=True)
        with FlopCounterMode(display=False) as decoding:
            for i in range(5, 8):
                model(input_ids=tokens[:, i : i + 1], past_key_values=cache, use_cache=True)
    assert decode_flops(config, 5, 3) == decoding.get_total_flops()


def test_random_models_keep_their_own_configuration_and_repeat() -> None:
    config = design()
    first = random_model(config)
    forward_flops(config, 4)
    assert first.config._attn_implementation == "sdpa"
    again = random_model(config)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), again.parameters(), strict=True))


def test_weights_read_leave_out_what_is_looked_up() -> None:
    config = design()
    model = random_model(config)
    positions = (config.max_position_embeddings + 2) * 64
    assert weights_read(model) == sum(p.numel() for p in model.parameters()) - positions
    untied = random_model(replaced(baseline_config("Pythia-70M"), vocab_size=200, num_hidden_layers=1))
    assert weights_read(untied) == sum(p.numel() for p in untied.parameters()) - 200 * 512


def replaced(config: PreTrainedConfig, **changes: Any) -> PreTrainedConfig:
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def test_ratio_is_the_geometric_mean_and_its_interval_holds_it() -> None:
    found = ratio_of([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert found == {"ratio": pytest.approx(2), "low": pytest.approx(2), "high": pytest.approx(2)}
    noise = np.exp(np.random.default_rng(1).normal(0, 0.1, 40))
    found = ratio_of(noise, 3 * np.ones(40))
    assert found["low"] < found["ratio"] < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 3 * 0.1 / math.sqrt(40), rel=0.3)
    assert found == ratio_of(noise, 3 * np.ones(40))
    assert ratio_of([1.0], [2.0]) == {"ratio": 2.0, "low": None, "high": None}


def test_study_measures_every_task_and_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_and_write(small_benches(), tmp_path) == 0
    rows = read_rows(tmp_path)
    assert len(rows) == 2 * (1 + 2 * 3)
    assert {(row["part"], row["work"], row["runtime"]) for row in rows} == {
        ("train", "", "PyTorch bfloat16"),
        *((part, work, SPEED_RUNTIMES[runtime]) for runtime in ("torch", "torch-bf16") for part, work in WORK),
    }
    assert all(second > 0 for row in rows for second in row["seconds"].values())
    assert all(row["order"] == list(row["models"])[:: -1 if row["turn"] else 1] for row in rows)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [task["part"] for task in summary["tasks"]] == ["train"] + ["prefill"] * 4 + ["decode"] * 2
    assert (tmp_path / "net_speed.png").read_bytes().startswith(b"\x89PNG")
    assert speed_text(summary) in capsys.readouterr().out


WORK = (("prefill", "last logit"), ("prefill", "all logits"), ("decode", ""))


def test_summary_compares_by_turns_and_says_what_was_expected() -> None:
    bench = small_benches()[1]
    rows = [made_row(bench, task, turn, {"small": 0.1 + turn, "OPT": 0.3 + 3 * turn}) for task in bench.tasks for turn in range(3)]
    tasks = speed_summary(rows)["tasks"]
    assert [(task["part"], task["work"]) for task in tasks] == [
        ("prefill", "all logits"),
        ("prefill", "last logit"),
        ("decode", ""),
    ]
    for task in tasks:
        (ratio,) = task["ratios"]
        assert (ratio["model"], ratio["reference"]) == ("small", "OPT")
        assert [ratio[key] for key in ("ratio", "low", "high")] == pytest.approx([3, 3, 3])
        flops = {each["model"]: each["flops"] for each in task["models"]}
        assert ratio["by_flops"] == flops["OPT"] / flops["small"]
        assert (ratio["by_weights"] is not None) == (task["part"] == "decode")
        assert ratio["paper"] is None  # it measured no such models
    assert "Not to be trusted" not in speed_text({"tasks": tasks})


@pytest.mark.parametrize(("others", "trusted"), [(None, True), (0.0, True), (0.1, True), (0.5, False), (3.0, False)])
def test_report_says_when_others_used_the_cores(others: float | None, trusted: bool) -> None:
    bench = small_benches()[1]
    row = made_row(bench, bench.tasks[0], 0, {"small": 1.0, "OPT": 2.0}, others)
    row["setting"] |= {"cpus": 2, "threads": 2}
    assert ("Not to be trusted" not in speed_text(speed_summary([row]))) == trusted


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_own_work_is_not_counted_as_that_of_others() -> None:
    load = Load()
    quiet = load.other_cores()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        load = Load()
        start, own = time.perf_counter(), time.process_time()
        while time.perf_counter() - start < 1:
            pass
        busy, own = load.other_cores(), time.process_time() - own
        other.kill()
    assert quiet is not None
    assert busy is not None
    # Two busy processes and whatever else the machine does: never more than its cores, less what we had ourselves.
    assert 0.1 < busy <= (os.cpu_count() or 1) - own + 0.1


def made_row(bench: Bench, task: TimedTask, turn: int, seconds: dict[str, float], others: float | None = 0.0) -> Row:
    models = {name: {"flops": task.flops[name], "parameters": 10, "weights_read": 5} for name in bench.models}
    kind = {"part": task.part, "work": task.work, "runtime": task.runtime, "tokens": task.tokens}
    setting = {**task.setting, "memory_kept": False}
    measured = {"turn": turn, "order": list(seconds), "seconds": seconds, "other_cores": others}
    return {**kind, "setting": setting, "models": models, "references": list(bench.references), **measured}


@pytest.mark.slow
def test_paper_figures_stand_beside_the_models_that_it_measured() -> None:
    designs, references = {"MeRino-52M": MerinoConfig()}, {"OPT-125M": baseline_config("OPT-125M")}
    for prompt, expected in ((128, 182 / 48), (64, None)):
        shapes = replace(SMALL, prompt=prompt)
        (bench,) = inference_benches(designs, references, ["prefill"], ["torch"], shapes, 1, 1)
        rows = [made_row(bench, task, 0, dict.fromkeys(bench.models, 1.0)) for task in bench.tasks]
        assert [task["ratios"][0]["paper"] for task in speed_summary(rows)["tasks"]] == [expected] * 2


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    prepared: list[str] = []
    benches = [counting_bench(prepared, stop_after=3)]
    with pytest.raises(StudyStopped, match=r"what is finished is kept in .*rows\.jsonl"):
        measure_and_write(benches, tmp_path)
    kept = read_rows(tmp_path)
    assert [row["turn"] for row in kept] == [0]
    assert not (tmp_path / "summary.json").exists()
    assert measure_and_write([counting_bench(prepared)], tmp_path) == 0
    rows = read_rows(tmp_path)
    assert rows[:1] == kept
    assert [row["turn"] for row in rows] == [0, 1, 2]
    prepared.clear()
    assert measure_and_write([counting_bench(prepared)], tmp_path) == 0
    assert (read_rows(tmp_path), prepared) == (rows, [])
    file = RowFile(tmp_path / "rows.jsonl")
    run_benches([replace(counting_bench(prepared), turns=5)], file)
    assert [row["turn"] for row in file.rows] == [0, 1, 2, 3, 4]
    bench = counting_bench(prepared)
    (task,) = bench.tasks
    run_benches([replace(bench, tasks=(replace(task, setting={**task.setting, "threads": 2}),))], file)
    assert len(file.rows) == 8
    assert [task["turns"] for task in speed_summary(file.rows)["tasks"]] == [5, 3]


def counting_bench(prepared: list[str], stop_after: int | None = None) -> Bench:
    """Two models, of which the first always takes 1 s and the other 2 s; Ctrl-C after that many timings."""
    seconds = {"small": 1.0, "OPT": 2.0}
    done = 0

    def build(config: PreTrainedConfig, stack: ExitStack) -> str:
        prepared.append(config.model_type)
        return "small" if config.model_type == "merino" else "OPT"

    def run(name: str) -> float:
        nonlocal done
        if done == stop_after:
            raise KeyboardInterrupt
        done += 1
        return seconds[name]

    setting = {"prompt": 4, "threads": 1, "cpus": 2, "versions": {"torch": "0"}}
    task = TimedTask(
        "prefill", "all logits", "PyTorch float32", setting, 4, {"small": 10, "OPT": 20}, 0, lambda name: partial(run, name)
    )
    return Bench({"small": design(), "OPT": reference()}, ["OPT"], 3, build, (task,))


@pytest.mark.slow
def test_both_engines_answer_the_same_query() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with ExitStack() as stack:
        ours = torch_engine(design(), stack, 6, torch.float32)
        graph = onnx_engine(design(), stack, 6, 1)
        with torch.inference_mode():
            truth = ours.model(input_ids=ours.prompt).logits.numpy()
        assert graph.model.prefill(graph.prompt, logits_to_keep=0)[0] == pytest.approx(truth, abs=1e-4)
        for engine in (ours, graph):
            engine.prefill(1)
            assert engine.decode(2) > 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--parts", "training"], "--parts is 'training'; expected some of train, prefill, decode"),
        (["--runtimes", "torch,jax"], "--runtimes is 'torch,jax'; expected some of torch, torch-bf16, onnx"),
        (["--dtype", "float16"], "--dtype is 'float16'; expected one of bfloat16, float32"),
        (["--alternations", "0"], "--alternations is 0; expected at least 1"),
        (["--rounds", "-1"], "--rounds is -1; expected at least 1"),
        (["--threads", "0"], "--threads is 0; expected at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(flags: list[str], sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with pytest.raises(ValueError, match=sentence):
        main([*flags, "--output", str(folder)])
    assert not folder.exists()


@pytest.mark.slow
def test_default_study_is_the_one_that_is_described() -> None:
    train, *inference = benches_of(
        read_options(NetSpeedOptions, command_line(), ["--parts", "train,decode", "--runtimes", "torch,onnx"])
    )
    assert [*train.models] == ["MeRino-52M", "GPT-2", "GPT-2, one-kernel GELU"]
    (task,) = train.tasks
    assert (task.tokens, train.turns) == (2 * 8 * 256, 12)
    assert [task.flops[name] / task.flops["MeRino-52M"] for name in train.references] == pytest.approx([1, 1], rel=0.03)
    assert [[task.runtime for task in bench.tasks] for bench in inference] == [[SPEED_RUNTIMES["torch"]], [SPEED_RUNTIMES["onnx"]]]
    assert all([*bench.models] == [*PUBLISHED, "OPT-125M", "OPT-350M"] for bench in inference)


ALLOCATIONS = """
import resource, torch
from merino_net.training.allocator import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
kept = keep_memory()
for _ in range(4):  # until the heap has room for two of them: how soon depends on what lies between
    faults()
print(kept, given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
@pytest.mark.slow
def test_kept_memory_is_not_asked_for_again() -> None:
    done = subprocess.run([sys.executable, "-c", ALLOCATIONS], capture_output=True, text=True, check=True)
    kept, given_back, again = done.stdout.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert int(again) < int(given_back) / 20
