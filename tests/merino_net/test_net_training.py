"""Training: killed runs go on with the same losses, several processes equal one, nothing damaged is taken for whole."""

from __future__ import annotations

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
from transformers import AutoModelForCausalLM

from formulation import PUBLISHED, Architecture, Block
from formulation.command.run import run_command
from formulation.published import read_architecture
from merino_net import MerinoConfig
from merino_net.corpus.data import Sequences
from merino_net.train import main
from merino_net.training import run as training
from merino_net.training import run_folder
from merino_net.training.optimizer import MuonAdamW
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
    assert {path.suffix for path in folder.iterdir()} == {"", ".json", ".jsonl", ".png", ".safetensors"}
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


def test_muon_takes_the_inner_matrices_and_adamw_the_rest() -> None:
    model = AutoModelForCausalLM.from_config(MerinoConfig.from_architecture(DESIGN))
    optimizer = MuonAdamW(model, 1e-2, (0.9, 0.95), 0.1)
    inner, embeddings, vectors = optimizer.param_groups
    matrices = [module.weight for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    assert {id(parameter) for parameter in inner["params"]} == {id(weight) for weight in matrices}
    assert {id(parameter) for parameter in embeddings["params"]} == {
        id(model.model.tokens.weight),
        id(model.model.positions.weight),
    }
    assert vectors["weight_decay"] == 0
    assert all(parameter.ndim == 1 for parameter in vectors["params"])
    # Where the momentum is not rank-deficient, a step's singular values are near 0.2 √max(m, n) times the learning rate.
    before = matrices[0].detach().clone()
    model(input_ids=torch.arange(16)[None], labels=torch.arange(16)[None]).loss.backward()
    inner["weight_decay"] = 0.0
    optimizer.step()
    change = torch.linalg.svdvals(matrices[0].detach() - before) / (1e-2 * 0.2 * max(before.shape) ** 0.5)
    assert 0.7 < change[0] < 1.3
    assert change[8] > 0.5 * change[0]
    gradient = torch.linalg.svdvals(matrices[0].grad)
    assert gradient[8] < 0.5 * gradient[0]
    scheduled = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.005] * 3
    assert scheduled.get_last_lr() == [0.005] * 3


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
        ({"optimizer": "muon", "fsdp": True}, "muon needs whole matrices"),
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
    with pytest.raises(ValueError, match="FSDP shards a network over the GPUs"):
        check_processes(None, TrainingPlan(fsdp=True))
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
    assert "2 tokens, fewer than the 16 of one sequence" in refusal(capsys, command(tmp_path, "out", "--vocabulary", "257"))


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
