"""Training: killed runs go on with the same losses, several processes equal one, nothing damaged is taken for whole."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from formulation import PUBLISHED, Architecture, Block
from formulation.command.run import run_command
from formulation.family import FAMILIES
from formulation.published import read_architecture
from merino_net import MerinoConfig
from merino_net.corpus.data import Sequences
from merino_net.network.modeling_merino import MerinoAttention
from merino_net.train import main
from merino_net.training import run as training
from merino_net.training import run_folder
from merino_net.training.optimizer import make_optimizer, scale_repeated
from merino_net.training.run import TrainingPlan, check_processes, train
from merino_net.training.run_folder import is_complete, mark_complete, newest_complete, start_over
from tests.stopping import stopped

ROOT = Path(__file__).resolve().parents[2]
DESIGN = Architecture((Block(64, 96, 2), Block(128, 64, 1)), embedding_width=96, vocabulary=300, positions=32)
WORDS = ("the merino is a sheep", "whose wool is soft", "a model is a map", "of words to words", "and a proof is a bound")


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_design(folder: Path, design: Architecture = DESIGN) -> Path:
    path = folder / "design.json"
    path.write_text(design.to_json(), encoding="utf-8")
    return path


def write_text(folder: Path) -> Path:
    random = np.random.default_rng(0)
    path = folder / "text.txt"
    path.write_text("\n".join(" ".join(random.permutation(WORDS)) for _ in range(400)), encoding="utf-8")
    return path


def command(folder: Path, output: str, *flags: str) -> list[str]:
    sizes = ["--sequence", "16", "--batch", "8", "--steps", "24", "--log-every", "2", "--evaluate-every", "6", "--save-every", "6"]
    places = ["--text", str(folder / "text.txt"), "--cache", str(folder / "cache"), "--output", str(folder / output)]
    return [str(folder / "design.json"), *sizes, *places, "--dropout", "0.1", "--peak-tflops", "1", *flags]


def losses(folder: Path) -> list[tuple[int, str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["step"], name, row[name]) for row in rows for name in ("loss", "held_out_loss") if name in row]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with design.json, text.txt and the finished run `whole`, trained by one process with one thread."""
    folder = tmp_path_factory.mktemp("training")
    write_design(folder)
    write_text(folder)
    assert main(command(folder, "whole")) == 0
    return folder


def test_a_run_leaves_a_network_that_loads_and_a_log_that_falls(undisturbed: Path) -> None:
    folder = undisturbed / "whole"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.to_architecture() == DESIGN
    record = json.loads((folder / "training.json").read_text())
    assert record["result"]["steps"] == 24
    assert record["result"]["tokens"] == 24 * 8 * 16
    assert record["provenance"]["versions"]["torch"] == torch.__version__
    held_out = [value for _, name, value in losses(folder) if name == "held_out_loss"]
    assert held_out[-1] < held_out[0] - 0.2
    assert [step for step, name, _ in losses(folder) if name == "held_out_loss"] == [6, 12, 18, 24]
    assert {path.suffix for path in folder.iterdir()} == {"", ".json", ".jsonl", ".png", ".py", ".safetensors"}
    assert Architecture.from_json((folder / "design.json").read_text()) == DESIGN


def test_the_held_out_loss_in_the_log_is_that_of_the_network(undisturbed: Path) -> None:
    from merino_net.corpus.data import kept_tokenizer, packed, split, token_array
    from merino_net.corpus.text import Text

    folder = undisturbed / "whole"
    text = Text((str(undisturbed / "text.txt"),))
    rows = packed(token_array(text, kept_tokenizer(text, 300, folder / "tokenizer"), undisturbed / "cache"), 16)
    _, held_out = split(len(rows), 0.02, 0)
    tokens = torch.from_numpy(rows[held_out].astype(np.int64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss = AutoModelForCausalLM.from_pretrained(folder).eval()(tokens, labels=tokens).loss
    assert losses(folder)[-1][2] == pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize("at_row", [5, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_and_started_again_has_the_same_losses(undisturbed: Path, at_row: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = f"killed-{at_row}"
    process = stopped(signal.SIGKILL, at_row, "merino_net.train", *command(undisturbed, output), cwd=ROOT, env=ENVIRONMENT)
    assert process.returncode == -signal.SIGKILL
    assert len(losses(undisturbed / output)) == at_row
    assert not (undisturbed / output / "training.json").exists()
    assert main(command(undisturbed, output)) == 0
    assert "going on from step" in capsys.readouterr().out
    assert losses(undisturbed / output) == losses(undisturbed / "whole")
    weights = [(undisturbed / name / "model.safetensors").read_bytes() for name in (output, "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(undisturbed: Path) -> None:
    flags = ("--dropout", "0", "--precision", "float32", "--evaluate-at-most", "8")
    assert main(command(undisturbed, "one", *flags)) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "merino_net.train"]
    two = [*launcher, *command(undisturbed, "two", *flags, "--processes", "2")]
    ended = subprocess.run(two, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    ends = [losses(undisturbed / output) for output in ("one", "two")]
    assert [end[:2] for end in ends[0]] == [end[:2] for end in ends[1]]
    np.testing.assert_allclose([end[2] for end in ends[1]], [end[2] for end in ends[0]], rtol=1e-4)


def sequences(count: int = 40, seq_len: int = 16) -> Sequences:
    return Sequences(np.random.default_rng(3).integers(0, 300, (count, seq_len)).astype(np.uint16))


def short(**changes: Any) -> TrainingPlan:
    every = {"log_every": 2, "evaluate_every": 4, "save_every": 4}
    return TrainingPlan(**{"steps": 8, "batch": 4, "seq_len": 16, **every, **changes})


def short_run(folder: Path, plan: TrainingPlan | None = None, **options: Any) -> training.TrainingResult:
    config = MerinoConfig.from_architecture(DESIGN)
    return train(config, sequences(), sequences(6), plan or short(), folder, progress=False, peak_flops_per_s=1e12, **options)


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    plans = (short(precision="float32"), short(precision="float32", device_batch=1))
    for plan, name in zip(plans, "ab", strict=True):
        short_run(tmp_path / name, plan)
    ends = [losses(tmp_path / name) for name in "ab"]
    np.testing.assert_allclose([end[2] for end in ends[0]], [end[2] for end in ends[1]], rtol=1e-5)


def test_muon_moves_matrices_and_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    plan = short(optimizer="muon", learning_rate=4e-3, save_every=4, steps=12)
    whole = short_run(tmp_path / "whole", plan)
    assert whole.held_out_loss != short_run(tmp_path / "adamw", short(learning_rate=4e-3, steps=12)).held_out_loss
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for path in (tmp_path / "stopped").glob("*"):
        if path.name not in ("run.json", "log.jsonl", "checkpoints"):
            path.unlink()
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-12")
    assert short_run(tmp_path / "stopped", plan).held_out_loss == whole.held_out_loss


GROUPED = Architecture(
    (Block(64, 96, 1, heads=4, kv_heads=2, head_size=16), Block(64, 128, 1, heads=2, kv_heads=1, head_size=16)),
    family="llama",
    vocabulary=300,
    positions=32,
)
GROUPED_IN_ONE = dataclasses.replace(
    DESIGN, blocks=(Block(64, 96, 3, heads=4, kv_heads=2, head_size=16), Block(128, 64, 1, heads=2, kv_heads=1, head_size=16))
)


def optimizer_of(design: Architecture, **changes: Any) -> tuple[Any, torch.optim.Optimizer]:
    """A random network and its optimizer, without weight decay unless the plan states it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(design), dtype=torch.float32)
    return model, make_optimizer(model, TrainingPlan(**{"learning_rate": 1e-2, "weight_decay": 0.0, **changes}).optimizer_plan)


def stepped(model: Any, optimizer: torch.optim.Optimizer, seed: int = 0) -> dict[str, torch.Tensor]:
    """By how much one step on random tokens moves each parameter."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(seed))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def named(model: Any, tensors: Any) -> set[str]:
    """The names of the parameters whose memory `tensors` are in."""
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return {name for name, parameter in model.named_parameters() if parameter.untyped_storage().data_ptr() in places}


@pytest.mark.parametrize("design", [DESIGN, GROUPED, GROUPED_IN_ONE], ids=["merino", "llama", "merino grouped"])
def test_muon_takes_the_inner_matrices_and_adamw_the_rest(design: Architecture) -> None:
    model, optimizer = optimizer_of(design, optimizer="muon")
    linears = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    muon = [tensor for group in optimizer.param_groups if "ns_steps" in group for tensor in group["params"]]
    adamw = [tensor for group in optimizer.param_groups if "ns_steps" not in group for tensor in group["params"]]
    assert named(model, muon) == linears - {"lm_head.weight"}
    assert named(model, adamw) == {name for name, _ in model.named_parameters()} - named(model, muon)
    assert sum(tensor.numel() for tensor in (*muon, *adamw)) == sum(parameter.numel() for parameter in model.parameters())
    scheduled = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}
    assert scheduled.get_last_lr()[0] == 0.005
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("design", [DESIGN, GROUPED, GROUPED_IN_ONE], ids=["merino", "llama", "merino grouped"])
def test_query_key_and_value_are_each_orthogonalized_for_themselves(design: Architecture) -> None:
    model, optimizer = optimizer_of(design, optimizer="muon")
    change = stepped(model, optimizer)
    seen = 0
    for name, module in model.named_modules():
        if not isinstance(module, MerinoAttention):
            continue
        if module.config.one_matrix:
            parts = change[f"{name}.query_key_value.weight"].split(module.parts)
            gradients = module.query_key_value.weight.grad.split(module.parts)
        else:
            parts = [change[f"{name}.{part}.weight"] for part in ("query", "key", "value")]
            gradients = [getattr(module, part).weight.grad for part in ("query", "key", "value")]
        for part, gradient in zip(parts, gradients, strict=True):
            # what PyTorch's own Muon does to this matrix alone; its first step is that of the gradient itself
            alone = torch.nn.Parameter(torch.zeros_like(part))
            alone.grad = gradient.clone()
            torch.optim.Muon([alone], lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
            torch.testing.assert_close(part, alone.detach(), rtol=1e-3, atol=2e-6)
            seen += 1
    assert seen == 3 * sum(isinstance(module, MerinoAttention) for module in model.modules())
    muon = [tensor for group in optimizer.param_groups if "ns_steps" in group for tensor in group["params"]]
    assert all(tensor.grad is None for tensor in muon)  # a view's gradient would keep that of the network in memory


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_weight_decay_is_for_matrices_that_multiply(optimizer: str, tied: bool) -> None:
    design = dataclasses.replace(DESIGN, tied=tied)
    still, moved = ({}, {})
    for decay, kept in ((0.0, still), (0.5, moved)):
        model, stepper = optimizer_of(design, optimizer=optimizer, weight_decay=decay)
        start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        kept.update(stepped(model, stepper))
    decayed = {name for name in still if not torch.equal(still[name], moved[name])}
    linears = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert decayed == linears - ({"lm_head.weight"} if tied else set())
    for name in decayed:
        torch.testing.assert_close(moved[name] - still[name], -0.5e-2 * start[name], rtol=1e-2, atol=1e-7)


def test_wider_maps_learn_more_slowly_where_a_width_is_stated() -> None:
    for optimizer, power in (("adamw", 1.0), ("muon", 0.5)):
        model, plain = optimizer_of(DESIGN, optimizer=optimizer)
        even = stepped(model, plain)
        model, carried = optimizer_of(DESIGN, optimizer=optimizer, rate_width=32)
        assert carried.param_groups[0]["lr"] == 1e-2  # what the log shows
        uneven = stepped(model, carried)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                wanted = even[f"{name}.weight"] * (32 / module.in_features) ** power
                torch.testing.assert_close(uneven[f"{name}.weight"], wanted, rtol=1e-3, atol=1e-7)
        assert torch.equal(even["model.tokens.weight"], uneven["model.tokens.weight"])


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("gpt_neox", "opt_post_norm")])
def test_every_family_trains_with_its_own_activation(tmp_path: Path, undisturbed: Path, family: str) -> None:
    own = Architecture(
        (Block(64, 96, 1, heads=4, kv_heads=2, head_size=16), Block(64, 128, 1, heads=2, kv_heads=1, head_size=16)),
        shared=False,
        family=family,
        embedding_width=64,
        vocabulary=300,
        positions=32,
    )
    shutil.copy(undisturbed / "text.txt", tmp_path / "text.txt")
    write_design(tmp_path, own)
    flags = ("--steps", "6", "--optimizer", "muon", "--learning-rate", "4e-3", "--fresh")
    assert main(command(tmp_path, "out", *flags)) == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert config.to_architecture() == own
    assert config.hidden_act == FAMILIES[family].activation
    held_out = [value for _, name, value in losses(tmp_path / "out") if name == "held_out_loss"]
    assert held_out[-1] < np.log(300) - 0.05


def test_documents_of_a_sequence_do_not_see_each_other() -> None:
    rows = np.array([[7, 8, 0, 5, 6, 0, 9, 4], [0, 3, 4, 5, 6, 7, 8, 9]])
    apart = Sequences(rows).documents_apart(0)
    assert apart[0]["position_ids"].tolist() == [0, 1, 0, 1, 2, 0, 1, 2]
    assert apart[1]["position_ids"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert apart[0]["labels"].tolist() == rows[0].tolist()  # each token has a target, also the last of a document: its end
    with pytest.raises(ValueError, match=r"the end of text is \[0, 2\]; expected one token"):
        Sequences(rows).documents_apart([0, 2])
    for design in (DESIGN, GROUPED):
        for attention in ("sdpa", "eager"):
            config = MerinoConfig.from_architecture(design, attn_implementation=attention)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            with torch.no_grad():
                logits = model(apart[0]["input_ids"][None], position_ids=apart[0]["position_ids"][None], use_cache=False).logits[0]
                alone = [model(apart[0]["input_ids"][None, part]).logits[0] for part in (slice(0, 2), slice(2, 5), slice(5, 8))]
            torch.testing.assert_close(logits, torch.cat(alone))


def test_a_plan_trains_on_documents_apart(tmp_path: Path) -> None:
    apart, together = (short_run(tmp_path / str(apart), short(documents_apart=apart)) for apart in (True, False))
    assert apart.held_out_loss != together.held_out_loss


def test_what_a_repeated_layer_adds_is_scaled(tmp_path: Path) -> None:
    model, _ = optimizer_of(DESIGN)
    plain = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    scale_repeated(model, 0.5)
    ends = {f"model.blocks.0.layers.0.{name}.weight" for name in ("attention.output", "ffn.down")}
    for name, parameter in model.named_parameters():
        factor = 2**-0.5 if name in ends else 1.0  # the first block applies its layer twice, the second once
        torch.testing.assert_close(parameter.detach(), plain[name] * factor)
    # a network that has the factor in its graph, and takes a step there, is the one that has it in its weights
    model, optimizer = optimizer_of(DESIGN, optimizer="muon", repeat_exponent=0.5)
    even = stepped(*optimizer_of(DESIGN, optimizer="muon"))
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2, 1e-2 * 2**-0.5}
    scaled = stepped(model, optimizer)
    for name in ends:
        torch.testing.assert_close(scaled[name], even[name] * 2**-0.5, rtol=1e-3, atol=1e-7)
    assert short_run(tmp_path / "a", short(repeat_exponent=1.0)).held_out_loss != short_run(tmp_path / "b").held_out_loss


def test_logits_of_some_tokens_at_a_time_change_nothing_but_rounding(tmp_path: Path) -> None:
    whole, parts = (short(precision="float32", logits_at_a_time=count) for count in (None, 7))
    for plan, name in ((whole, "whole"), (parts, "parts")):
        short_run(tmp_path / name, plan)
    ends = [losses(tmp_path / name) for name in ("whole", "parts")]
    np.testing.assert_allclose([end[2] for end in ends[0]], [end[2] for end in ends[1]], rtol=1e-5)
    with pytest.raises(ValueError, match="this one is of type gpt2"):
        train(GPT2Config(n_positions=16), sequences(), sequences(6), parts, tmp_path / "gpt2")


def test_the_stable_part_is_followed_by_a_linear_decay(tmp_path: Path) -> None:
    plan = short(schedule="wsd", steps=20, warm_up=4, decay=8, learning_rate=1e-3, save_every=20, evaluate_every=20)
    short_run(tmp_path, plan)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    stable = dict.fromkeys((6, 8, 10, 12), 1e-3)
    # a row holds the rate of its step, which is the k-th of the schedule that begins with 0
    assert rates == pytest.approx({2: 0.25e-3, 4: 0.75e-3, **stable, 14: 0.875e-3, 16: 0.625e-3, 18: 0.375e-3, 20: 0.125e-3})
    assert TrainingPlan(schedule="wsd", steps=1000).stable_steps == 800
    assert TrainingPlan(schedule="wsd", steps=555).stable_steps == 440  # a fifth, and a row of the log


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_longer_run_goes_on_from_the_stable_part_of_a_shorter_one(tmp_path: Path, optimizer: str) -> None:
    def plan(steps: int) -> TrainingPlan:
        return short(schedule="wsd", steps=steps, decay=4, save_every=12, evaluate_every=4, optimizer=optimizer, learning_rate=4e-3)

    short_run(tmp_path / "short", plan(14))  # of which 10 are stable, where no checkpoint is due
    whole = short_run(tmp_path / "whole", dataclasses.replace(plan(24), warm_up=plan(14).warm_up_steps))
    went_on = short_run(tmp_path / "long", plan(24), going_on_from=tmp_path / "short")
    assert losses(tmp_path / "long") == losses(tmp_path / "whole")
    assert [row for row in losses(tmp_path / "short") if row[0] <= 10] == [row for row in losses(tmp_path / "long") if row[0] <= 10]
    assert losses(tmp_path / "short") != losses(tmp_path / "long")[: len(losses(tmp_path / "short"))]
    assert went_on.held_out_loss == whole.held_out_loss
    assert (tmp_path / "long" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert [path.name for path in (tmp_path / "long" / "stable").iterdir()] == ["checkpoint-20"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 1e-3}, "holds another run: plan.learning_rate is 0.0006 there and 0.001 here; only steps and decay may"),
        ({"decay": 20}, "the decay would begin at step 4, and the run in .* was stable until step 8"),
        ({"warm_up": 3}, "warm_up is 3 and in the run in .* it was 1"),
    ],
)
def test_a_run_that_cannot_be_gone_on_from(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    plan = short(schedule="wsd", steps=12, decay=4)
    short_run(tmp_path / "short", plan)
    with pytest.raises(ValueError, match=said):
        short_run(tmp_path / "long", dataclasses.replace(plan, **{"steps": 24, **changes}), going_on_from=tmp_path / "short")
    assert not (tmp_path / "long").exists()


def test_a_linear_decay_cannot_be_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run to go on from"):
        short_run(tmp_path / "long", going_on_from=tmp_path)
    short_run(tmp_path / "short")
    with pytest.raises(ValueError, match="has no checkpoint at the end of a stable learning rate"):
        short_run(tmp_path / "long", short(steps=16), going_on_from=tmp_path / "short")


def test_checkpointing_changes_nothing(tmp_path: Path) -> None:
    for name, checkpointing in (("a", False), ("b", True)):
        short_run(tmp_path / name, short(checkpointing=checkpointing))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = short_run(tmp_path)
    written = (tmp_path / "log.jsonl").read_bytes()
    assert short_run(tmp_path) == first
    assert (tmp_path / "log.jsonl").read_bytes() == written


def test_utilisation_counts_three_forward_passes(tmp_path: Path) -> None:
    from hardware_models import Flops

    result = short_run(tmp_path)
    assert result.training_flops_per_token == 3 * Flops(16, head=True)(DESIGN) / 16
    assert result.mfu == pytest.approx(result.tokens_per_s * result.training_flops_per_token / 1e12)


def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    short_run(tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"learning_rate is 0\.0006 there and 0\.001 here.*--fresh"):
        short_run(tmp_path, short(learning_rate=1e-3))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written
    start_over(tmp_path)
    short_run(tmp_path, short(learning_rate=1e-3))
    assert json.loads((tmp_path / "run.json").read_text())["plan"]["learning_rate"] == 1e-3


def test_starting_over_removes_the_run_and_spares_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    short_run(tmp_path)
    start_over(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex"}


def test_a_network_of_others_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(ValueError, match=r"holds a model\.safetensors that no run"):
        short_run(tmp_path)
    start_over(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    short_run(tmp_path)
    with (tmp_path / ".lock").open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by another process"):
            short_run(tmp_path)
    short_run(tmp_path)


def test_one_configuration_serves_several_runs(tmp_path: Path) -> None:
    config = MerinoConfig.from_architecture(DESIGN)
    before = config.to_dict()
    results = [
        train(config, sequences(), sequences(6), short(), tmp_path / name, progress=False, peak_flops_per_s=1e12) for name in "ab"
    ]
    assert config.to_dict() == before
    assert results[0].held_out_loss == results[1].held_out_loss
    assert train(config, sequences(), sequences(6), short(), tmp_path / "a", progress=False, peak_flops_per_s=1e12) == results[0]


def test_the_published_configuration_caches(tmp_path: Path) -> None:
    short_run(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.use_cache is True


@pytest.mark.parametrize(("batch", "at_most", "used"), [(4, 512, 6), (8, 512, 6), (4, 5, 5)])
def test_what_is_held_out_does_not_depend_on_the_batch(tmp_path: Path, batch: int, at_most: int, used: int) -> None:
    result = short_run(tmp_path, short(batch=batch, evaluate_at_most=at_most))
    assert result.held_out_sequences == used


def test_several_processes_evaluate_full_batches() -> None:
    for available, processes, device_batch in product((1, 2, 7, 63, 64, 513), (1, 2, 3), (1, 4, 16)):
        if available < processes:
            continue
        count, at_a_time = training._evaluated(available, TrainingPlan(), processes, device_batch)
        assert count <= available
        assert at_a_time <= device_batch
        assert processes == 1 or count % (processes * at_a_time) == 0


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan"), float("inf")])
def test_a_peak_that_makes_no_sense_is_refused_before_anything_is_written(tmp_path: Path, peak: float) -> None:
    config = MerinoConfig.from_architecture(DESIGN)
    with pytest.raises(ValueError, match="the peak is"):
        train(config, sequences(), sequences(6), short(), tmp_path, peak_flops_per_s=peak)
    assert not (tmp_path / "run.json").exists()


def test_sequences_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 tokens and the plan 32"):
        short_run(tmp_path, short(seq_len=32))
    config = MerinoConfig.from_architecture(DESIGN)
    with pytest.raises(ValueError, match="longer than the network's 32 positions"):
        train(config, sequences(8, 64), sequences(6, 64), short(seq_len=64), tmp_path, progress=False)


def interrupted_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops when its network is to be published, with checkpoints of steps 4 and 8."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_publish", stop)
        with pytest.raises(KeyboardInterrupt):
            short_run(folder)


def test_a_checkpoint_cut_short_gives_way_to_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run(tmp_path / "whole")
    interrupted_run(tmp_path / "cut", monkeypatch)
    weights = tmp_path / "cut" / "checkpoints" / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    short_run(tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert is_complete(tmp_path / "cut" / "checkpoints" / "checkpoint-8")


def test_without_a_whole_checkpoint_a_run_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run(tmp_path / "whole")
    interrupted_run(tmp_path / "cut", monkeypatch)
    for name in ("checkpoint-4", "checkpoint-8"):
        (tmp_path / "cut" / "checkpoints" / name / "complete.json").unlink()
    short_run(tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_stopped_before_the_network_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run(tmp_path / "whole")
    interrupted_run(tmp_path / "cut", monkeypatch)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    short_run(tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_whole_checkpoints_are_told_by_their_files(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"1234")
        mark_complete(folder)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"123")
    (tmp_path / "checkpoint-15" / "complete.json").write_text("{")
    newest, damaged = newest_complete(tmp_path)
    assert newest == tmp_path / "checkpoint-5"
    assert damaged == [tmp_path / "checkpoint-15", tmp_path / "checkpoint-10"]


def test_a_full_disk_is_said_before_the_checkpoint_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_run(tmp_path / "whole")
    usage = shutil.disk_usage(tmp_path)
    calls = iter([usage, usage._replace(free=1000)])
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "disk_usage", lambda _: next(calls))
        with pytest.raises(OSError, match="0 MB left; make room and run the same command again"):
            short_run(tmp_path / "full")
    short_run(tmp_path / "full")
    assert losses(tmp_path / "full") == losses(tmp_path / "whole")


def test_a_write_that_fails_midway_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="nothing can be written"):
            short_run(tmp_path)
    assert newest_complete(tmp_path / "checkpoints")[0] is None
    short_run(tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is nan at step .*lower the learning rate"):
        short_run(tmp_path, short(learning_rate=1e30, clip=1e30, steps=40, save_every=40, precision="float32"))


def test_too_few_sequences(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="40 sequences to train on, fewer than the 41"):
        short_run(tmp_path, short(batch=41))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"evaluate_every": 15}, "multiple of log_every, which is 10"),
        ({"precision": "fp8"}, "'fp8'"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected adamw or muon"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; expected linear or wsd"),
        ({"decay": 100}, "decay is 100 and the schedule linear"),
        ({"schedule": "wsd", "decay": 105}, "begins at step 895; expected a multiple of log_every, which is 10"),
        ({"schedule": "wsd", "decay": 950}, "begins at step 50; expected .* after the 100 steps of warm-up"),
        ({"rate_width": 0}, "rate_width is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warm_up": 2000}, "at most the 1000 steps"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "less than 2"),
        ({"device_batch": 0}, "device_batch is 0"),
        ({"keep": 1}, "keep is 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingPlan(**changes)


def test_a_step_is_divided_evenly_or_not_at_all() -> None:
    assert TrainingPlan(batch=32).accumulation(2) == (16, 1)
    assert TrainingPlan(batch=32, device_batch=4).accumulation(2) == (4, 4)
    with pytest.raises(ValueError, match="3 processes do not divide"):
        TrainingPlan(batch=32).accumulation(3)
    with pytest.raises(ValueError, match="device_batch is 5"):
        TrainingPlan(batch=32, device_batch=5).accumulation(1)


def test_the_papers_plan_is_the_papers() -> None:
    plan = TrainingPlan.paper(seed=3)
    assert (plan.steps, plan.tokens_per_step, plan.learning_rate, plan.warm_up_steps) == (600_000, 2**20, 6e-4, 1000)
    assert plan.seed == 3
    assert TrainingPlan(steps=300).warm_up_steps == 30


def test_one_process_is_not_taken_for_two_and_does_not_take_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"2 processes .*\b1\b.*torchrun --nproc-per-node 2"):
        check_processes(2, TrainingPlan())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(ValueError, match=r"8 GPUs and one process.*torchrun"):
        check_processes(None, TrainingPlan())


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that the command says, its exit code checked."""
    with pytest.raises(SystemExit) as left:
        run_command(main, arguments)
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the text.txt holds no text"),
        (b"x", "the text supports a vocabulary of"),
        (b"caf\xe9 au lait " * 100, "is not UTF-8"),
    ],
)
def test_a_text_that_cannot_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str) -> None:
    write_design(tmp_path)
    (tmp_path / "text.txt").write_bytes(content)
    assert said.removeprefix("the ") in refusal(capsys, command(tmp_path, "out")).replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize(
    "mistake",
    [["--held-out", "2"], ["--activation", "gulu"], ["--batch", "5000"], ["--text", "nowhere.txt"], ["--peak-tflops", "0"]],
)
def test_starting_over_with_a_mistake_loses_nothing(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: list[str]
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    refusal(capsys, [*command(tmp_path, "whole"), "--fresh", *mistake])
    assert {path: path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file()} == before


def test_a_design_in_the_output_folder(undisturbed: Path, tmp_path: Path) -> None:
    write_text(tmp_path)
    (tmp_path / "out").mkdir()
    design = write_design(tmp_path / "out")
    assert main([str(design), *command(tmp_path, "out")[1:], "--steps", "6"]) == 0
    assert read_architecture(str(design)) == DESIGN
    assert "provenance" in json.loads((tmp_path / "out" / "training.json").read_text())


@pytest.mark.parametrize("flags", [["--threads", "0"], ["--threads", "-1"], ["--processes", "0"]])
def test_no_threads_or_processes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    write_design(tmp_path)
    write_text(tmp_path)
    assert f"{flags[0].removeprefix('--')} is {flags[1]}" in refusal(capsys, [*command(tmp_path, "out"), *flags])


def test_a_text_shorter_than_a_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_design(tmp_path)
    (tmp_path / "text.txt").write_text("x")
    assert "2 tokens, fewer than the 16 of one sequence" in refusal(capsys, command(tmp_path, "out", "--vocabulary", "258"))


def test_a_vocabulary_larger_than_the_text_supports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_design(tmp_path)
    write_text(tmp_path)
    said = refusal(capsys, command(tmp_path, "out", "--vocabulary", "9000"))
    assert "tokens at most, fewer than the 9,000 asked for; give more text or ask for fewer with --vocabulary" in said


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda record: record["blocks"][0].update(width=65), "64 or 128"),
        (lambda record: record.update(format="yaml"), "the format 'yaml'"),
        (lambda record: record["blocks"][0].pop("depth"), "blocks[0] lacks depth"),
        (lambda record: record.update(colour="red"), "unknown key 'colour'"),
    ],
)
def test_a_design_edited_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str], edit: Any, said: str) -> None:
    record = DESIGN.to_dict()
    edit(record)
    (tmp_path / "design.json").write_text(json.dumps(record))
    assert said in refusal(capsys, command(tmp_path, "out"))
    assert not (tmp_path / "out").exists()


def test_designs_are_read_from_files_and_by_published_names(tmp_path: Path) -> None:
    assert read_architecture("MeRino-61M") == PUBLISHED["MeRino-61M"]
    assert read_architecture(str(write_design(tmp_path))) == DESIGN
    whole = ROOT / "studies" / "results" / "design" / "design.json"
    assert read_architecture(str(whole)) == Architecture.from_dict(json.loads(whole.read_text())["architecture"])
    (tmp_path / "none.json").write_text(json.dumps({"format": "merino design", "version": 2, "architecture": None}))
    with pytest.raises(ValueError, match="architecture"):
        read_architecture(str(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_architecture(str(tmp_path / "cut.json"))
    with pytest.raises(ValueError, match=r"there is no file nowhere\.json"):
        read_architecture("nowhere.json")


def test_a_sequence_longer_than_the_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_design(tmp_path)
    write_text(tmp_path)
    assert "longer than the design's 32 positions" in refusal(capsys, [*command(tmp_path, "out"), "--sequence", "64"])


def test_a_tokenizer_of_another_size_is_refused(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_design(tmp_path, PUBLISHED["MeRino-52M"])
    write_text(tmp_path)
    tokenizer = str(undisturbed / "whole")
    said = refusal(capsys, [str(tmp_path / "design.json"), "--tokenizer", tokenizer, "--output", str(tmp_path / "out")])
    assert "has 300 tokens and the design 50,257; --vocabulary 300" in said
