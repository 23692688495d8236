"""Weights are read in one place: what is incomplete, damaged, no number or no causal language model is refused by every command."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from formulation import Architecture, Block
from merino_net import MerinoConfig, evaluate, export, generate, quantize
from merino_net.corpus.data import Sequences, train_tokenizer
from merino_net.network.pretrained import check_finite, find_models, load_weights
from merino_net.training.run import TrainingPlan, train
from merino_net.training.run_folder import is_complete

VOCABULARY, POSITIONS = 300, 64
TEXT = "The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."
CONFIG = MerinoConfig.from_architecture(Architecture((Block(64, 64, 1),), True, 64, VOCABULARY, POSITIONS))
NORM = "model.norm.weight"

Weights = dict[str, torch.Tensor]


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    train_tokenizer([TEXT] * 3, VOCABULARY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(AutoModelForCausalLM.from_config(CONFIG), tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def change(folder: Path, edit: Callable[[Weights], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder: Path) -> PreTrainedModel:
    [found] = find_models([str(folder)])
    return load_weights(found.source, found.name, torch.float32)


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match=r"model") as raised:
        load(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("value", "number"), [(float("nan"), 64), (float("inf"), 1), (-float("inf"), 3), (float("nan"), 1)])
def test_the_first_bad_tensor_is_named_with_its_bad_values(folder: Path, value: float, number: int) -> None:
    change(folder, lambda weights: weights[NORM][:number].fill_(value))
    assert refusal(folder).startswith(f"the weight {NORM} of model holds {number} of 64 values that are not finite numbers")


def test_large_weights_are_numbers(folder: Path) -> None:
    network = load(folder)
    with torch.no_grad():
        network.get_parameter("model.norm.bias").fill_(3.4e38)
    check_finite(network, "model")


def test_weights_of_whole_numbers_and_none_are_passed_over() -> None:
    module = torch.nn.Module()
    module.register_buffer("count", torch.arange(3))
    module.register_buffer("nothing", torch.zeros(0))
    check_finite(module, "model")


def commands(folder: Path, here: Path) -> dict[str, Callable[[], object]]:
    """What each command that reads weights does with a folder, into `here`/out."""
    choices = [{"text": text, "label": label} for text, label in zip("abcd", "ABCD", strict=True)]
    row = {"id": "0", "question": {"stem": "What?", "choices": choices}, "answerKey": "A"}
    (here / "arc_easy.test.jsonl").write_text(json.dumps(row) + "\n")
    (here / "text.txt").write_text(TEXT)
    model, out = str(folder), str(here / "out")
    tasks = ["--tasks", "arc_easy", "--data-dir", str(here)]
    return {
        "evaluate a text": lambda: evaluate.main([model, "--text", str(here / "text.txt"), "--output", out]),
        "evaluate tasks": lambda: evaluate.main([model, *tasks, "--output", out]),
        "generate": lambda: generate.main([model, "--prompt", "The", "--tokens", "2", "--greedy"]),
        "quantize": lambda: quantize.main([model, "--method", "rtn", "--bits", "8", "--output", out]),
        "export": lambda: export.main([model, "--output", out, "--to", "hf"]),
    }


COMMANDS = ("evaluate a text", "evaluate tasks", "generate", "quantize", "export")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_weights_that_are_no_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name == "evaluate tasks":
        pytest.importorskip("lm_eval")
    change(folder, lambda weights: weights[NORM].fill_(float("nan")))
    with pytest.raises(ValueError, match="64 of 64 values that are not finite numbers"):
        commands(folder, tmp_path)[name]()
    assert capsys.readouterr().out == ""
    assert not any(path.is_file() for path in (tmp_path / "out").rglob("*"))


def test_the_commands_take_the_sound_network(sound: Path, tmp_path: Path) -> None:
    assert commands(sound, tmp_path)["generate"]() == 0
    assert commands(sound, tmp_path)["export"]() == 0


def tokens() -> Sequences:
    return Sequences(torch.randint(VOCABULARY, (40, 16), generator=torch.Generator().manual_seed(0)).numpy())


@pytest.mark.parametrize("steps", [8, 12])
def test_a_run_does_not_go_on_from_weights_that_are_no_numbers(tmp_path: Path, steps: int) -> None:
    plan = TrainingPlan(steps=12, batch=4, seq_len=16, log_every=2, evaluate_every=4, save_every=4)
    train(CONFIG, tokens(), tokens(), plan, tmp_path, peak_flops_per_s=1e12, progress=False)
    (tmp_path / "training.json").unlink()
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("checkpoint-")) > steps:
            shutil.rmtree(checkpoint)
    checkpoint = change(tmp_path / "checkpoints" / f"checkpoint-{steps}", lambda weights: weights[NORM].fill_(float("nan")))
    assert is_complete(checkpoint)
    with pytest.raises(ValueError, match=rf"{NORM} of the checkpoint .*checkpoint-{steps} holds 64 of 64 values"):
        train(CONFIG, tokens(), tokens(), plan, tmp_path, peak_flops_per_s=1e12, progress=False)
    assert not (tmp_path / "training.json").exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda weights: weights.pop(NORM), f"model lacks 1 weight, such as {NORM}"),
        (lambda weights: weights.update({NORM: torch.ones(63)}), f"{NORM} of model has the shape (63,) and its configuration asks"),
        (
            lambda weights: weights.update(more=torch.ones(3)),
            "model has 1 weight that its configuration does not know, such as more",
        ),
    ],
)
def test_weights_of_another_network_are_refused(folder: Path, edit: Callable[[Weights], object], said: str) -> None:
    assert said in refusal(change(folder, edit))


def test_fewer_layers_in_the_configuration_than_in_the_file(folder: Path) -> None:
    deeper = MerinoConfig.from_architecture(Architecture((Block(64, 64, 2),), False, 64, VOCABULARY, POSITIONS))
    AutoModelForCausalLM.from_config(deeper).save_pretrained(folder)
    CONFIG.save_pretrained(folder)
    assert "that its configuration does not know" in refusal(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"junk" * 99)])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_damaged_file_is_a_sentence(folder: Path, suffix: str, damage: Callable[[Path], object]) -> None:
    path = folder / "model.safetensors"
    if suffix == "bin":
        torch.save(load_file(path), folder / "pytorch_model.bin")
        path.unlink()
        assert load(folder).config.vocab_size == VOCABULARY
        path = folder / "pytorch_model.bin"
    damage(path)
    said = refusal(folder)
    assert said.startswith("the weights of model cannot be loaded (")
    assert len(said) < 200


@pytest.mark.parametrize("content", [[1, 2], {NORM: 3}, {NORM: [1.0]}])
def test_a_bin_without_tensors_is_a_sentence(folder: Path, content: Any) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "cannot be loaded (" in refusal(folder)


class Hostile:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "code ran")


@pytest.mark.parametrize("plain", [True, False])
def test_a_hostile_bin_runs_no_code(folder: Path, tmp_path: Path, plain: bool) -> None:
    (folder / "model.safetensors").unlink()
    trap = Hostile(tmp_path / "trap")
    if plain:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    else:
        torch.save({NORM: trap}, folder / "pytorch_model.bin")
    assert "a .bin file holds more than tensors and could run code" in refusal(folder)
    assert not trap.path.exists()


SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}


@pytest.mark.parametrize(
    "encoder", [lambda: BertForMaskedLM(BertConfig(**SMALL)), lambda: RobertaForMaskedLM(RobertaConfig(**SMALL))]
)
def test_an_encoder_is_refused(tmp_path: Path, encoder: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    save(encoder(), tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(ValueError, match=r"model .*causal.* tokens that follow"):
        evaluate.main([str(tmp_path / "model"), "--text", str(tmp_path / "text.txt"), "--output", str(tmp_path / "out")])
    assert not any((tmp_path / "out").iterdir())


def test_an_encoder_with_a_decoder_is_refused_by_its_configuration(tmp_path: Path) -> None:
    layers = {
        f"{half}_{what}": count
        for half in ("encoder", "decoder")
        for what, count in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    config = BartConfig(vocab_size=VOCABULARY, d_model=32, max_position_embeddings=POSITIONS, **layers)
    save(BartForConditionalGeneration(config), tmp_path / "model")
    with pytest.raises(ValueError, match="is an encoder with a decoder"):
        find_models([str(tmp_path / "model")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_model_is_taken_in_either_number_format(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3)
    save(AutoModelForCausalLM.from_config(config), tmp_path / "model")
    assert load_weights(str(tmp_path / "model"), "model", dtype).dtype == dtype


def test_finite_weights_whose_predictions_overflow(folder: Path) -> None:
    change(folder, lambda weights: weights["model.tokens.weight"].fill_(3e38))
    assert "predicts numbers that are not finite" in refusal(folder)
