"""Models by name, file, folder and text; what a config.json says that no family has is refused in one sentence.

Against transformers' own reading: tests/merino_net/test_families.py.
"""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from formulation import PUBLISHED, Architecture, Block
from formulation.model_file import EXPECTED, KEYS, is_text, read_config, read_model
from formulation.presets import PRESETS, uniform_model
from tests.studies.test_problem_file import JUNK

SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 100000,
    "pretraining_tp": 1,
    "torch_dtype": "bfloat16",
}
"""The keys of SmolLM2-135M's file that say what it is, and some that change no count."""


def test_config_files() -> None:
    assert read_config(SMOLLM2) == PRESETS["smollm2-135m"]
    assert read_config({"model_type": "gpt2"}) == PRESETS["gpt2"]
    assert read_config({"model_type": "gpt2", "hidden_size": 768, "num_hidden_layers": 12}) == PRESETS["gpt2"]
    opt = {"model_type": "opt", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "ffn_dim": 4096}
    assert read_config({**opt, "word_embed_proj_dim": 512, "do_layer_norm_before": False}) == PRESETS["opt-350m"]
    ours = {
        "blocks": [{"width": 128, "ffn_width": 128, "depth": 2, "kv_heads": 1}, {"width": 192, "ffn_width": 64, "depth": 0}],
        "embedding_width": 100,
        "shared": False,
    }
    design = Architecture((Block(128, 128, 2, kv_heads=1), Block(192, 64, 0)), False, 100, 300)
    assert read_config({"model_type": "merino", "vocab_size": 300, **ours}) == design


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "mistral"}, "unknown model_type 'mistral' (choose from merino, gpt2, opt, gpt_neox, llama, qwen2, qwen3)"),
        ({"attention_bias": True}, "config.attention_bias is True; expected False: the family llama has no biases"),
        ({"mlp_bias": True}, "config.mlp_bias is True; expected False: the family llama has no biases"),
        (
            {"model_type": "qwen3", "use_sliding_window": True, "attention_bias": False},
            "config.use_sliding_window is True; expected False: the family qwen3 has layers that attend to all tokens",
        ),
        (
            {"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
            "config.layer_types has 'sliding_attention'; expected 'full_attention' for every layer",
        ),
        ({"per_layer_config": {"0": {}}}, "config.per_layer_config is given; expected layers that are all alike"),
        ({"num_key_value_heads": 2}, "config: block kv_heads is 2, which does not divide the 9 heads"),
        ({"num_attention_heads": 7}, "config has 7 heads at a width of 576; expected heads that divide it, or a head_dim"),
        ({"hidden_size": "576"}, "config.hidden_size is '576'; expected a whole number of at least 1"),
        ({"vocab_size": None}, "config.vocab_size is None; expected a whole number of at least 1"),
        ({"tie_word_embeddings": 1}, "config.tie_word_embeddings is 1; expected true or false"),
        (
            {"model_type": "merino", "block_widths": [64], "block_ffn_widths": [64], "block_depths": [1]},
            "config lacks blocks; expected a list of objects",
        ),
    ],
)
def test_what_no_family_has_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        read_config(SMOLLM2 | changed)


@pytest.mark.parametrize("model_type", ["merino", *KEYS])
def test_junk_is_refused_in_a_sentence(model_type: str) -> None:
    source = random.Random(model_type)
    keys = [*(key for key, _ in KEYS.get(model_type, {}).values()), *EXPECTED.get(model_type, ()), "blocks", "shared"]
    for _ in range(300):
        record = {"model_type": model_type} | {key: source.choice(JUNK) for key in source.sample(keys, 2)}
        with suppress(ValueError):  # and nothing else
            read_config(record)
    for junk in JUNK:
        with pytest.raises(ValueError, match='expected an object with "model_type"'):
            read_config(junk)
        with pytest.raises(ValueError, match="model_type"):
            read_config({"model_type": junk})


def test_models_by_name_file_folder_and_text(tmp_path: Path) -> None:
    assert read_model("smollm2-135m") == PRESETS["smollm2-135m"]
    assert read_model("MeRino-61M") == PUBLISHED["MeRino-61M"]
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    assert read_model(str(tmp_path)) == read_model(str(tmp_path / "config.json")) == PRESETS["smollm2-135m"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "design.json").write_text(PUBLISHED["MeRino-52M"].to_json())
    assert read_model(str(tmp_path / "mine")) == PUBLISHED["MeRino-52M"]
    whole = Path(__file__).resolve().parents[2] / "studies" / "results" / "design" / "design.json"
    assert read_model(str(whole)) == Architecture.from_dict(json.loads(whole.read_text())["architecture"])


def test_models_as_text() -> None:
    around = {"family": "llama", "vocabulary": 49_152, "positions": 8192, "tied": True}
    assert read_model("32x960/2560 heads 15 kv 5", **around) == PRESETS["smollm2-360m"]
    assert read_model("2x128/512") == Architecture((Block(128, 512, 2),))
    for design in (*PUBLISHED.values(), PRESETS["gpt2"]):
        around = {name: getattr(design, name) for name in ("family", "vocabulary", "positions", "embedding_width")}
        assert read_model(str(design), **around) == design
    assert read_model("2x128/512", family="llama") == uniform_model("llama", 2, 128, 512, 2, 2, 64)
    assert read_model("2x128/512 shared yes", family="llama").blocks[0].shared is True


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("smollm2-135", "unknown model 'smollm2-135'; did you mean 'smollm2-135m'?"),
        ("none.json", "cannot read the model file none.json: no such file or directory"),
        ("2x128/512 head 2", "the blocks are '2x128/512 head 2'; expected"),
        ("2x100/512", "block width is 100, which 64"),
        (".", "the folder . has neither config.json nor design.json; expected a network or a design in it"),
        ("other.json", "the config file other.json: config is {'blocks': []}; expected an object with \"model_type\""),
        ("bert.json", "the config file bert.json: unknown model_type 'bert'"),
        ("cut.json", "the model file cut.json is not valid JSON"),
    ],
)
def test_what_is_no_model(source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"blocks": []}')
    Path("bert.json").write_text('{"model_type": "bert"}')
    Path("cut.json").write_text("{")
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        read_model(source)


def test_what_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_text("2x128/512")
    assert is_text("128/512x2 64/64x1")
    Path("2x128").mkdir()
    Path("2x128/512").touch()
    assert not any(map(is_text, ("2x128/512", "gpt2", "results/design", "a/b.json", "2x128")))
