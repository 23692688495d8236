"""What is exported computes what PyTorch computes, is published atomically, and its card tells what the files say."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    MambaConfig,
    OPTConfig,
    PreTrainedConfig,
)

from formulation.architecture import Architecture, Block
from formulation.command.words import markdown_table
from merino_net import MerinoConfig, MerinoForCausalLM, export
from merino_net.corpus.data import train_tokenizer
from merino_net.generate import continuation
from merino_net.network.counting import forward_flops, parameter_count
from merino_net.network.pretrained import find_models
from merino_net.shipping.hub_folder import replace_folder
from merino_net.shipping.model_card import model_card, number, proof_section
from merino_net.training.run import TrainingPlan, TrainingResult

onnx_model = pytest.importorskip("merino_net.shipping.onnx_model")
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
REPOSITORY = Path(__file__).parents[2]
DESIGN = REPOSITORY / "studies" / "results" / "design" / "design.json"
POSITIONS = 48
VOCABULARY = 300
TEXT = ["The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."]

ARCHITECTURE = Architecture(
    (Block(64, 96, 2), Block(128, 64, 1)), shared=True, embedding_width=96, vocabulary=VOCABULARY, positions=POSITIONS
)


def network(config: PreTrainedConfig, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def ours(architecture: Architecture = ARCHITECTURE) -> MerinoConfig:
    return MerinoConfig.from_architecture(architecture, initializer_range=0.1)


def training_record(**changes: Any) -> dict[str, Any]:
    result = TrainingResult(
        steps=40,
        parameters=1,
        training_flops_per_token=1e6,
        held_out_sequences=100,
        held_out_loss=4.25,
        training_loss=4.5,
        tokens=81920,
        seconds=12.5,
        tokens_per_s=6553.6,
        mfu=0.25,
        peak_flops_per_s=1e11,
    )
    return {
        "format": "merino training",
        "version": 1,
        "plan": asdict(TrainingPlan(steps=40)),
        "data": {"training": 320, "held_out": 8, "text_sha256": "abc123", "vocabulary": VOCABULARY},
        "result": asdict(result),
        "provenance": {"command": "python -m merino_net.train x", "machine": "Linux, 2 CPUs", "versions": {"torch": "2.13.0"}},
        **changes,
    }


def evaluation_record(fingerprint: str) -> dict[str, Any]:
    text = {"text": "wikitext2", "variant": "WikiText-2 test, with <unk>", "context": 48, "stride": 24, "token_perplexity": 71.5}
    task = {"task": "boolq", "acc": 0.625, "acc_stderr": 0.0085, "acc_norm": None, "examples": 3270, "complete": 3270}
    return {
        "models": [
            {"name": "other", "fingerprint": "f" * 64, "texts": [{**text, "token_perplexity": 9999.0}], "tasks": []},
            {"name": "model", "fingerprint": fingerprint, "texts": [text], "tasks": [task], "mean_accuracy": 0.625},
        ],
        "conventions": {"perplexity": ["token ppl = exp(nats / tokens)"]},
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model's folder as the other commands leave it."""
    folder = tmp_path_factory.mktemp("export") / "model"
    network(ours()).save_pretrained(folder)
    train_tokenizer(TEXT * 3, VOCABULARY).save_pretrained(folder)
    (folder / "design.json").write_bytes(DESIGN.read_bytes())
    (folder / "training.json").write_text(json.dumps(training_record()))
    [found] = find_models([str(folder)])
    (folder / "evaluate.json").write_text(json.dumps(evaluation_record(found.fingerprint)))
    return folder


@pytest.fixture(scope="module")
def exported(source: Path) -> Path:
    """The export of `source`, made once for all tests that read it."""
    output = source.parent / "exported"
    forms = "hf,onnx,openvino" if HAS_OPENVINO else "hf,onnx"
    assert export.main([str(source), "--output", str(output), "--to", forms]) == 0
    return output


def test_the_folder_is_whole_and_reads_back_exactly(source: Path, exported: Path) -> None:
    record = json.loads((exported / "export.json").read_text())
    there = sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file())
    assert record["files"] == there
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= set(there)
    assert not any(name.endswith((".bin", ".pt", ".pkl")) and not name.startswith("openvino/") for name in there)
    before, after = (MerinoForCausalLM.from_pretrained(folder) for folder in (source, exported))
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name])
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(before(tokens).logits, after(tokens).logits)
    text = "The mill stood by the river, naïvely 🙂"
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert sorted(path.name for path in exported.parent.iterdir()) == ["exported", "model"]
    assert record["parameters"] == parameter_count(before)
    forms = {form["form"]: form for form in record["forms"]}
    assert (record["version"], list(forms)[:2]) == (2, ["hf", "onnx"])
    assert (forms["hf"]["folder"], forms["hf"]["differences"]) == (".", {"weights": 0.0})
    weights = (exported / "model.safetensors").stat().st_size
    assert 0 < weights - forms["hf"]["weight_bytes"] < 0.1 * weights  # but for the names in the file
    assert forms["hf"]["bytes"] > weights
    assert forms["onnx"]["bytes"] == sum(path.stat().st_size for path in (exported / "onnx").iterdir())
    assert 0 < max(forms["onnx"]["differences"].values()) < 1e-4


def test_onnx_logits_are_pytorchs(exported: Path) -> None:
    model = MerinoForCausalLM.from_pretrained(exported).eval()
    graph = onnx_model.load_onnx(exported / "onnx", threads=1)
    tokens = torch.randint(0, VOCABULARY, (4, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[1, :3], mask[2, :8] = 0, 0
    with torch.no_grad():
        truth = model(tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits.numpy()
    real = mask.numpy() == 1
    whole, _ = graph.logits(tokens.numpy(), mask.numpy())
    assert abs(whole - truth)[real].max() < 1e-4
    last, cache = graph.prefill(tokens.numpy()[:, :9], mask.numpy()[:, :9])
    assert last.shape == (4, 1, VOCABULARY)
    assert abs(last[:, 0] - truth[:, 8]).max() < 1e-4
    more, cache = graph.logits(tokens.numpy()[:, 9:10], mask.numpy()[:, :10], cache)
    assert abs(more[:, 0] - truth[:, 9]).max() < 1e-4
    more, _ = graph.logits(tokens.numpy()[:, 10:], mask.numpy(), cache, 1)
    assert abs(more[:, 0] - truth[:, 10]).max() < 1e-4
    alone, _ = graph.logits(tokens.numpy()[1:2, 3:])
    assert abs(alone[0] - truth[1, 3:]).max() < 1e-4


def test_onnx_generates_what_pytorch_does(exported: Path) -> None:
    model = MerinoForCausalLM.from_pretrained(exported).eval()
    graph = onnx_model.load_onnx(exported / "onnx", threads=1)
    tokens = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    truth = continuation(model, tokens, 30, attention_mask=mask).numpy()
    assert (graph.generate(tokens.numpy(), 30, mask.numpy()) == truth).all()
    end = int(truth[0, 3])
    truth = continuation(model, tokens, 30, attention_mask=mask, end=end).numpy()
    assert (graph.generate(tokens.numpy(), 30, mask.numpy(), end=end) == truth).all()


def test_onnx_stores_shared_weights_once_and_no_folders(exported: Path) -> None:
    weights = 4 * parameter_count(MerinoForCausalLM.from_pretrained(exported))
    size = (exported / "onnx" / "model.onnx.data").stat().st_size
    assert 0.98 * weights < size < 1.01 * weights  # the smallest lie in the graph itself
    for path in exported.rglob("*"):
        if path.is_file():
            assert str(REPOSITORY).encode() not in path.read_bytes(), path


def test_the_library_reads_our_graph(exported: Path) -> None:
    from transformers.exporters import ExportedModel

    runner = ExportedModel.from_pretrained(exported / "onnx").runners["model"]
    assert {value.name for value in runner.session.get_inputs()} >= {"input_ids", "attention_mask", "logits_to_keep"}
    assert runner.session.get_inputs()[0].shape == ["batch", "tokens"]


def test_a_graph_of_other_weights_is_refused(exported: Path) -> None:
    model = MerinoForCausalLM.from_pretrained(exported).eval()
    assert max(onnx_model.compare_onnx(model, exported / "onnx").values()) < 1e-4
    for value in (0.01, float("nan")):
        with torch.no_grad():
            model.model.norm.bias[3] += value
        with pytest.raises(ValueError, match="differ from PyTorch's"):
            onnx_model.compare_onnx(model, exported / "onnx")


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=POSITIONS, bos_token_id=0, eos_token_id=0),
        *(
            pytest.param(config, marks=pytest.mark.slow)
            for config in (
                OPTConfig(
                    hidden_size=128,
                    num_hidden_layers=2,
                    ffn_dim=96,
                    num_attention_heads=2,
                    vocab_size=VOCABULARY,
                    max_position_embeddings=POSITIONS,
                    word_embed_proj_dim=64,
                    do_layer_norm_before=False,
                ),
                GPTNeoXConfig(
                    hidden_size=128,
                    num_hidden_layers=2,
                    intermediate_size=96,
                    num_attention_heads=2,
                    vocab_size=VOCABULARY,
                    max_position_embeddings=POSITIONS,
                    tie_word_embeddings=False,
                ),
                ours(Architecture((Block(64, 64, 1),), embedding_width=64, vocabulary=VOCABULARY, positions=7)),
                ours(
                    Architecture(
                        (Block(128, 64, 2, heads=4, kv_heads=2, head_size=32, value_head_size=16, gated=True), Block(64, 64, 2)),
                        shared=False,
                        embedding_width=64,
                        vocabulary=VOCABULARY,
                        positions=POSITIONS,
                    )
                ),
            )
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_other_models_export_too(config: PreTrainedConfig, tmp_path: Path) -> None:
    model = network(config)
    onnx_model.export_onnx(model, tmp_path)
    assert max(onnx_model.compare_onnx(model, tmp_path).values()) < 1e-4


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    mamba = network(MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=VOCABULARY))
    with pytest.raises(ValueError, match="does not keep keys and values"):
        onnx_model.export_onnx(mamba, tmp_path)
    short = Architecture((Block(64, 64, 1),), embedding_width=64, vocabulary=VOCABULARY, positions=6)
    with pytest.raises(ValueError, match="6 positions"):
        onnx_model.export_onnx(network(ours(short)), tmp_path)
    with pytest.raises(ValueError, match="bfloat16"):
        onnx_model.export_onnx(network(ours()).bfloat16(), tmp_path)


def test_opening_what_is_no_graph(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model\.onnx"):
        onnx_model.load_onnx(tmp_path)
    (tmp_path / "model.onnx").write_bytes((exported / "onnx" / "model.onnx").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be opened"):
        onnx_model.load_onnx(tmp_path)
    (tmp_path / "model.onnx").write_bytes((exported / "onnx" / "model.onnx").read_bytes())
    with pytest.raises(ValueError, match="cannot be opened"):  # its weights are not beside it
        onnx_model.load_onnx(tmp_path)
    with pytest.raises(ValueError, match="no AbacusExecutionProvider"):
        onnx_model.load_onnx(exported / "onnx", providers=["AbacusExecutionProvider"])


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_openvino_logits_are_pytorchs(exported: Path) -> None:
    from merino_net.shipping.openvino_model import OpenVinoModel, check_products, compare_openvino

    record = json.loads((exported / "export.json").read_text())["forms"][2]
    assert (record["form"], record["weights"], record["folder"]) == ("openvino", "float32", "openvino")
    assert max(record["differences"].values()) < 1e-4
    model = MerinoForCausalLM.from_pretrained(exported).eval()
    graph = OpenVinoModel(exported / "openvino", threads=1)
    layers = 4 * model.config.num_hidden_layers
    assert set(graph.products) == {"f32"}
    assert layers < graph.products.total() <= layers + len(model.config.blocks) + 2  # and joints, and the head
    for products, kind in (({"f32": 24}, "f32"), ({"i8": 20, "f32": 4}, "f32"), ({}, "nothing")):
        with pytest.raises(ValueError, match=f"in {kind} on this processor, not in bf16; ask for another"):
            check_products(products, "bf16")
    check_products({"i8": 20, "bf16": 4}, "bf16")
    tokens = np.arange(10)[None]
    with torch.no_grad():
        truth = model(torch.from_numpy(tokens)).logits.numpy()
    for _ in range(2):
        graph.begin()
        parts = [graph.logits(tokens[:, a:b], np.ones((1, b), np.int64)) for a, b in ((0, 6), (6, 7), (7, 10))]
        assert abs(np.concatenate(parts, 1) - truth).max() < 1e-4
    with torch.no_grad():
        model.model.norm.bias[3] += 0.01
    with pytest.raises(ValueError, match="OpenVINO graph differ"):
        compare_openvino(model, exported / "openvino")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_openvino_with_int8_weights(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    from merino_net.shipping.openvino_model import compare_openvino, export_openvino

    model = network(ours())
    export_openvino(model, tmp_path, "int8")
    assert (tmp_path / "openvino_model.bin").stat().st_size < 1.3 * parameter_count(model)
    assert 1e-4 < compare_openvino(model, tmp_path, "int8")["relative"] < 0.1
    with pytest.raises(ValueError, match="INT8 weights change the logits"):
        compare_openvino(network(ours(), seed=1), tmp_path, "int8")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A stand-in for tracing, and for how far its result is off."""

    def set_difference(difference: float) -> None:
        def compare(model: Any, folder: Path, weights: str) -> dict[str, float]:
            if difference > 1e-4:
                raise ValueError("the logits differ")
            return {"prefill": difference}

        monkeypatch.setattr(onnx_model, "export_onnx", lambda model, folder, weights: (folder / "model.onnx").touch())
        monkeypatch.setattr(onnx_model, "compare_onnx", compare)

    return set_difference


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_failed_export_leaves_the_earlier_one(source: Path, tmp_path: Path, quick: Callable[[float], None]) -> None:
    output = tmp_path / "out"
    quick(0.5)
    with pytest.raises(ValueError, match="the logits differ"):
        export.main([str(source), "--output", str(output)])
    assert list(tmp_path.iterdir()) == []
    quick(1e-6)
    assert export.main([str(source), "--output", str(output)]) == 0
    before = snapshot(output)
    quick(0.5)
    with pytest.raises(ValueError, match="the logits differ"):
        export.main([str(source), "--output", str(output)])
    assert snapshot(output) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert export.main([str(source), "--output", str(output), "--to", "hf", "--name", "Miller"]) == 0
    assert not (output / "onnx").exists()
    assert "# Miller" in (output / "README.md").read_text()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()

    def stopped() -> None:
        with replace_folder(tmp_path / "out") as folder:
            (folder / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert snapshot(tmp_path) == {"out/old": b""}
    with replace_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert snapshot(tmp_path) == {"out/new": b""}


def test_folders_that_are_not_ours_stay(source: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than an earlier export"):
        export.main([str(source), "--output", str(tmp_path), "--to", "hf"])
    with pytest.raises(ValueError, match="is a file"):
        export.main([str(source), "--output", str(tmp_path / "notes.txt"), "--to", "hf"])
    with pytest.raises(ValueError, match="model's own folder"):
        export.main([str(source), "--output", str(source), "--to", "hf"])
    output = tmp_path / "out"
    assert export.main([str(source), "--output", str(output), "--to", "hf"]) == 0
    (output / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which is not of an earlier export"):
        export.main([str(source), "--output", str(output), "--to", "hf"])
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("missing", "arguments", "command"),
    [
        ("onnxscript", [], "pip install onnx onnxscript onnxruntime, or leave onnx:float32 out of --to"),
        ("openvino", ["--to", "openvino"], "pip install openvino, or leave openvino:float32 out of --to"),
        ("nncf", ["--to", "hf,openvino:int8"], "pip install openvino nncf, or leave openvino:int8 out of --to"),
        ("xllamacpp", ["--to", "hf", "--to", "gguf:q8_0"], "pip install gguf xllamacpp, or leave gguf:q8_0 out of --to"),
    ],
)
def test_a_missing_package_is_a_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, arguments: list[str], command: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name) or True)
    with pytest.raises(ImportError, match=re.escape(command)) as caught:
        export.main([str(source), "--output", str(tmp_path / "out"), *arguments])
    assert missing in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_evaluation_is_of_these_weights(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "out")
    assert export.main([str(source), "--output", output, "--to", "hf"]) == 0
    assert [model["name"] for model in json.loads((tmp_path / "out" / "evaluate.json").read_text())["models"]] == ["model"]
    other = tmp_path / "evaluate.json"
    other.write_text(json.dumps(evaluation_record("0" * 64)))
    with pytest.raises(ValueError, match="no results of model with these very weights"):
        export.main([str(source), "--output", output, "--to", "hf", "--evaluation", str(other)])
    other.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        export.main([str(source), "--output", output, "--to", "hf", "--evaluation", str(other)])
    with pytest.raises(ValueError, match="there is no file"):
        export.main([str(source), "--output", output, "--to", "hf", "--evaluation", str(tmp_path / "none.json")])
    bare = tmp_path / "bare"
    MerinoForCausalLM.from_pretrained(source).save_pretrained(bare)
    AutoTokenizer.from_pretrained(source).save_pretrained(bare)
    (bare / "evaluate.json").write_text(json.dumps(evaluation_record("0" * 64)))
    capsys.readouterr()
    assert export.main([str(bare), "--output", output, "--to", "hf"]) == 0
    assert "left out" in capsys.readouterr().out
    assert not (tmp_path / "out" / "evaluate.json").exists()


def test_the_card_with_all_files(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    config = MerinoConfig.from_pretrained(exported)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    for expected in (
        f"{parameter_count(MerinoForCausalLM(config)):,} parameters",
        "proved to be the best of its search space",
        "| 1 | 64 | 96 | 2 | 1 |",
        "| 2 | 128 | 64 | 1 | 2 |",
        "share one set of weights",
        "optimal: no design of the search space",
        "23,387.7 nat",
        "| flops | FLOPs | 59,953,381,376 | ≤ 60,000,000,000 | 99.92% |",
        "vocabulary is 300 and not 50,257",
        f"| FLOPs of a forward pass over {POSITIONS} tokens | {forward_flops(config, POSITIONS):,} |",
        "| held-out loss [nat per token] | 4.2500 |",
        "| tokens trained on | 81,920 |",
        "WikiText-2 test, with <unk>",
        "71.5",
        "0.625",
        "| onnx | float32 | `onnx` | prefill",
        "2403.07921",
        "## Limitations",
        "TensorrtExecutionProvider",
    ):
        assert expected in card, expected
    assert "9999" not in card  # another model's result
    assert "None" not in card
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_the_card_tells_to_type_works(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    blocks = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == (3 if HAS_OPENVINO else 2)
    names: dict[str, Any] = {}
    for block in blocks:
        # The model has few positions.
        exec(block.replace("50)", "5)").replace("new_tokens=50", "new_tokens=5"), names)
    assert names["tokens"].shape[0] == 1


def test_the_card_without_any_file(tmp_path: Path) -> None:
    ours().save_pretrained(tmp_path / "bare")
    card = model_card(tmp_path / "bare")
    assert "# bare" in card
    assert "## Architecture" in card
    for absent in ("## What is proved", "## Training", "## Evaluation", "proved to be", "None"):
        assert absent not in card
    assert "has not been evaluated" in card
    assert "How it was trained is not recorded" in card
    with pytest.raises(ValueError, match=r"no config\.json"):
        model_card(tmp_path)


def test_the_card_of_odd_files(tmp_path: Path) -> None:
    ours().save_pretrained(tmp_path)
    (tmp_path / "design.json").write_text(ARCHITECTURE.to_json())  # a bare architecture
    (tmp_path / "training.json").write_text(json.dumps({"plan": None, "result": {"tokens": 5}}))
    (tmp_path / "evaluate.json").write_text(json.dumps({"models": [{"tasks": [{"task": "cb"}]}, {}]}))
    card = model_card(tmp_path)
    assert "| tokens trained on | 5 |" in card
    assert "## What is proved" not in card
    assert "| cb | - | - | - | - of - |" in card
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(ValueError, match=r"training\.json is \[\].*JSON object"):
        model_card(tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ValueError, match=r"training\.json is not valid JSON"):
        model_card(tmp_path)


def test_the_card_says_what_a_feasible_design_is_worth(tmp_path: Path) -> None:
    ours().save_pretrained(tmp_path)
    record = json.loads(DESIGN.read_text())
    record["solution"] |= {"status": "feasible", "bound": 24000.0, "gap": 0.02618}
    record["architecture"] = ARCHITECTURE.to_dict()
    (tmp_path / "design.json").write_text(json.dumps(record))
    card = model_card(tmp_path)
    assert "with a bound on how much better any other could be" in card
    assert "| 24,000 nat |" in card
    assert "2.618%" in card
    assert "not quite the design" not in card


def test_the_card_of_another_family(tmp_path: Path) -> None:
    GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=POSITIONS).save_pretrained(tmp_path)
    card = model_card(tmp_path, "small-gpt2")
    assert "trust_remote_code" not in card
    assert "| 1 | 64 | 256 | 2 | 2 | 2 | 32 |" in card
    assert "- activation: gelu_new\n" in card
    assert "- gpt2" in card


def test_the_card_says_what_a_family_has(tmp_path: Path) -> None:
    block = Block(32, 48, 1, heads=2, kv_heads=1, head_size=16)
    design = Architecture(
        (block, replace(block, ffn_width=96)), family="llama", tied=False, vocabulary=VOCABULARY, positions=POSITIONS
    )
    MerinoForCausalLM(MerinoConfig.from_architecture(design)).save_pretrained(tmp_path)
    card = model_card(tmp_path)
    python = card.split("```python")[1].split("```")[0]
    assert "import merino_net" not in python
    assert python.count("trust_remote_code=True") == 2
    for expected in (
        "- family: llama\n",
        "beside an output head of its own: ",
        "positions, rotary: 48,",
        "- norms: RMSNorm",
        "- activation: silu",
    ):
        assert expected in card, expected
    assert "between unequal widths" not in card


def test_the_card_of_what_is_no_design(tmp_path: Path) -> None:
    GPTNeoConfig(
        hidden_size=64, num_layers=2, num_heads=2, attention_types=[[["global"], 2]], vocab_size=VOCABULARY
    ).save_pretrained(tmp_path)
    assert "| layers | 2 |" in model_card(tmp_path)


def test_numbers_and_tables() -> None:
    assert [number(value) for value in (None, 3, 1e6, 0.0125, 23387.6798, 1.5e20, True, "x", float("inf"))] == [
        "-", "3", "1,000,000", "0.0125", "23,387.7", "150,000,000,000,000,000,000", "True", "x", "inf",
    ]  # fmt: skip
    assert markdown_table(("a", "b"), [("x|y", "1")]) == "| a | b |\n| :-- | --: |\n| x\\|y | 1 |"


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    network(ours()).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="tokenizer"):
        export.main([str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--to", "hf"])
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_more_tokens_than_the_network(source: Path, tmp_path: Path) -> None:
    short = Architecture((Block(64, 64, 1),), embedding_width=64, vocabulary=VOCABULARY - 1, positions=POSITIONS)
    network(ours(short)).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="the tokenizer has 300 tokens and the network 299"):
        export.main([str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--to", "hf"])


def test_help_names_the_devices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export.command_line().parse_args(["--help"])
    shown = capsys.readouterr().out
    for word in ("Jetson", "TensorRT", "ARM CPU", "Intel CPU", "--to FORM", "q4_0"):
        assert word in shown


def test_a_doubtful_budget_is_named_so_in_the_card() -> None:
    name = "latency@box:torch-float32-prefill (doubtful: mean error 56 %)"
    solution = {"status": "optimal", "usage": [{"name": name, "unit": "ms", "value": 49.5, "upper": 50}]}
    assert f"| {name} | ms | 49.5 | ≤ 50 | 99.00% |" in proof_section({"solution": solution}, ours(), {})


def test_a_minimized_objective_and_a_budget_from_below_in_the_card() -> None:
    usage = [{"name": "effective entropy", "unit": "nat", "value": 21_000, "at_least": 20_000}]
    solution = {"status": "optimal", "objective": 43.2, "bound": 43.2, "gap": 0.0, "unit": "ms", "usage": usage}
    problem = {"minimize": [{"quantity": "latency"}]}
    card = proof_section({"solution": solution, "problem": problem}, ours(), {})
    assert "has a smaller objective" in card
    assert "objective (least latency)" in card
    assert "no design is below it" in card
    assert "| effective entropy | nat | 21,000 | ≥ 20,000 | 105.00% |" in card
