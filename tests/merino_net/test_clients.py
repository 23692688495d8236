"""Folders of ours in the hands of others: transformers, TRL and PEFT in a process that has none of our packages."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from formulation import Architecture, Block
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.corpus.data import save_tokenizer, train_tokenizer
from merino_net.network.plain import plain_form
from merino_net.quantize import Plan, quantize, write_model

VOCABULARY, POSITIONS = 270, 64
TOKENS = list(range(2, 12))
AROUND: dict[str, Any] = {"vocabulary": VOCABULARY, "positions": POSITIONS}
SMALL = Block(32, 48, 1, heads=2, kv_heads=1, head_size=16)
MORE_HEADS = Block(32, 96, 1, heads=4, kv_heads=1, head_size=16)
MORE_OF_BOTH = Block(32, 96, 1, heads=4, kv_heads=2, head_size=16)
DESIGNS = {
    "plain": Architecture((SMALL, SMALL), family="llama", tied=True, **AROUND),
    "llama": Architecture((SMALL, MORE_HEADS), family="llama", tied=True, **AROUND),
    "merino": Architecture((Block(32, 48, 2, head_size=16), Block(64, 96, 1, head_size=16)), embedding_width=48, **AROUND),
    "quantized": Architecture((SMALL, MORE_OF_BOTH), family="llama", tied=False, **AROUND),
}
TUNED = ("plain", "llama", "merino")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["the cat sat on the mat"] * 50, VOCABULARY)


@pytest.fixture(scope="module")
def folders(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of each design, a folder as it is given away and the network that it holds."""
    root = tmp_path_factory.mktemp("folders")
    made = {}
    for name, design in DESIGNS.items():
        torch.manual_seed(0)
        config = MerinoConfig.from_architecture(design, bos_token_id=0, eos_token_id=0, pad_token_id=tokenizer.pad_token_id)
        model: Any = MerinoForCausalLM(config).eval()
        folder = root / name
        folder.mkdir()
        if name == "quantized":
            plan = Plan("rtn", 8, embedding_bits=8)
            write_model(model, tokenizer, *quantize(model, plan, tokenizer, None), plan, folder)
            model = MerinoForCausalLM.from_pretrained(folder)
        else:
            (plain_form(model) or model).save_pretrained(folder)
            save_tokenizer(tokenizer, folder, POSITIONS)
        made[name] = folder, model
    return made


def of_clients(clients: str, folders: dict[str, Path], home: Path) -> dict[str, dict[str, Any]]:
    """What other people's programs give, by the names of `folders`, from a process in an empty folder."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "home"), "HF_MODULES_CACHE": str(home / "code")}
    script = Path(__file__).with_name("folder_clients.py")
    ran = subprocess.run(
        [sys.executable, "-I", script, clients, json.dumps(TOKENS), *folders.values()],
        capture_output=True,
        text=True,
        env=environment,
        cwd=home,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    results = json.loads(ran.stdout.splitlines()[-1])
    return {name: results[str(folder)] for name, folder in folders.items()}


@pytest.fixture(scope="module")
def found(folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return of_clients("transformers", {name: folder for name, (folder, _) in folders.items()}, tmp_path_factory.mktemp("user"))


@pytest.mark.parametrize("name", DESIGNS)
def test_a_folder_loads_without_our_packages(name: str, folders: Any, found: Any, tokenizer: Any) -> None:
    """The class that is promised, the same logits to the bit, the same text."""
    (folder, model), found = folders[name], found[name]
    carried = name != "plain"
    assert (folder / "modeling_merino.py").exists() is carried
    assert found["class"] == ("transformers_modules.MerinoForCausalLM" if carried else "transformers.LlamaForCausalLM")
    with torch.no_grad():
        assert found["logits"] == model(torch.tensor([TOKENS])).logits[0, -1].tolist()
    prompt = tokenizer("the cat", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0]
    assert found["generate"] == written.tolist()
    assert found["pipeline"] == tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_folder_is_trained_without_our_packages(name: str, found: Any) -> None:
    """By Trainer, whose saved copies load again with their weights, and with either head of classification."""
    assert found[name]["Trainer"] is True
    family = "Llama" if name == "plain" else "Merino"
    assert found[name]["Sequence"] == [f"{family}ForSequenceClassification", True]
    assert found[name]["Token"] == [f"{family}ForTokenClassification", True]


@pytest.mark.parametrize("name", DESIGNS)
def test_a_tokenizer_in_a_folder(name: str, folders: Any, found: Any) -> None:
    """Of a class that is known everywhere; labels leave out the padding and keep the end of a text."""
    assert "local_files_only" not in (folders[name][0] / "tokenizer_config.json").read_text()
    assert found[name]["tokenizer"] == ["GPT2Tokenizer", POSITIONS, 1, 0]
    assert found[name]["labels"] == [2, 3, 4, 0, -100, -100]


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("peft", "trl")), reason="needs peft and trl")
def test_a_folder_is_tuned_without_our_packages(folders: Any, tmp_path: Path) -> None:
    """By adapters and supervised fine-tuning; PEFT knows prefixes of one number of key/value heads, which `merino` lacks here."""
    found = of_clients("tuning", {name: folders[name][0] for name in TUNED}, tmp_path)
    assert found["merino"].pop("PEFT prefix") != "works"
    works = ("PEFT LoRA", "PEFT prefix", "TRL SFT")
    assert found == {name: dict.fromkeys(works if name != "merino" else works[::2], "works") for name in TUNED}
