"""Families count as transformers' own classes do: parameters, FLOPs, cache and weights of random models whose layers are alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from formulation import FAMILIES, PUBLISHED, Architecture
from formulation.model_file import EXPECTED, KEYS, read_config, read_model
from formulation.presets import PRESETS, uniform_model
from hardware_models import CacheMemory, Flops, Params, WeightMemory
from merino_net.network.configuration_merino import MerinoConfig
from tests.slow import slow

OTHERS = sorted(FAMILIES.keys() - {"merino"})
"""The families that are classes of transformers."""

GROUPED = ("llama", "qwen2", "qwen3")
"""Those with key/value heads and head sizes of their own."""

PRINTED = {
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "qwen3-0.6b": 596_049_920,
    "qwen2.5-0.5b": 494_032_768,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-3.2-1b": 1_235_814_400,
    "gpt2": 124_439_808,
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "pythia-70m": 70_426_624,
}
"""Parameters of the models as their authors state them."""

SEED = 20


def config_of(design: Architecture) -> PreTrainedConfig:
    """The configuration of transformers' class that builds a design whose layers are alike."""
    (block,) = design.blocks
    model_type = design.family.removesuffix("_post_norm")
    sizes: dict[str, Any] = {
        "layers": block.depth,
        "width": block.width,
        "ffn_width": block.ffn_width,
        "heads": block.heads,
        "kv_heads": block.kv_heads,
        "head_size": block.head_size,
        "vocabulary": design.vocabulary,
        "positions": design.positions,
        "tied": design.tied,
        "embedding_width": design.embedding_width,
        "pre_norm": design.family != "opt_post_norm",
    }
    named = {key: sizes[name] for name, (key, _) in KEYS[model_type].items()}
    kind: Any = CONFIG_MAPPING[model_type]
    config: PreTrainedConfig = kind(**named, bos_token_id=0, eos_token_id=0)
    return config


def build(design: Architecture, device: str = "meta", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """transformers' own model of a design; on the meta device it has shapes and no numbers."""
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config_of(design), dtype=dtype)
    return model.eval()


def random_design(family: str, source: random.Random, largest: int = 64) -> Architecture:
    """A model with layers that are alike; its numbers are odd, where the class allows it."""
    heads, head_size = source.randint(1, 12), 8 * source.randint(1, max(1, largest // 8))
    kv_heads, width = heads, heads * head_size
    if family in GROUPED:
        kv_heads = source.choice([number for number in range(1, heads + 1) if heads % number == 0])
        width = heads * source.randint(1, 2 * largest)
    around: dict[str, Any] = {"vocabulary": source.randint(10, 40 * largest), "positions": source.randint(40, 400)}
    if FAMILIES[family].joints and source.random() < 0.5:
        around["embedding_width"] = source.randint(1, 4 * largest)
    ffn_width = source.randint(1, 40 * largest)
    layers = source.randint(1, 6)
    tied = source.random() < 0.5
    return uniform_model(family, layers, width, ffn_width, heads, kv_heads, head_size, tied=tied, **around)


def designs(family: str, number: int, largest: int = 64) -> Iterator[tuple[Architecture, random.Random]]:
    """Random designs of a family, the same each time, each with the source of what else is random."""
    for one in range(number):
        source = random.Random(f"{SEED} {family} {one}")
        yield random_design(family, source, largest), source


@contextmanager
def shown(design: Architecture) -> Iterator[None]:
    """Which design it was that differed."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{design.family} {design} in {design.to_dict()}: {error}") from error


COUNTS = pytest.mark.parametrize(("family", "number"), [*((one, 10) for one in OTHERS), *slow([(one, 300) for one in OTHERS])])
FEWER = pytest.mark.parametrize(("family", "number"), [*((one, 4) for one in OTHERS), *slow([(one, 50) for one in OTHERS])])


@COUNTS
def test_parameters_of_a_family(family: str, number: int) -> None:
    for design, _ in designs(family, number):
        with shown(design):
            assert Params()(design) == sum(each.numel() for each in build(design).parameters())


@FEWER
def test_flops_of_a_family(family: str, number: int) -> None:
    for design, source in designs(family, number):
        model, tokens = build(design), source.randint(1, 40)
        read = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        for head, part in ((True, model), (False, model.base_model)):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                part(input_ids=read, use_cache=True)
            with shown(design):
                assert Flops(tokens, head)(design) == counter.get_total_flops()


@FEWER
def test_bytes_of_a_family(family: str, number: int) -> None:
    for design, source in designs(family, number, largest=16):
        dtype = source.choice([torch.float32, torch.bfloat16, torch.float16])
        bits, tokens, batch = 8 * dtype.itemsize, source.randint(1, 40), source.randint(1, 3)
        model = build(design, "cpu", dtype)
        stored = {each.data_ptr(): each.nbytes for each in model.state_dict().values()}
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=torch.zeros(batch, tokens, dtype=torch.long), past_key_values=cache)
        layers: list[Any] = cache.layers
        with shown(design):
            assert WeightMemory(bits)(design) == sum(stored.values())
            assert CacheMemory(tokens, batch, bits)(design) == sum(own.keys.nbytes + own.values.nbytes for own in layers)


@pytest.mark.parametrize("name", PRESETS)
def test_published_counts(name: str) -> None:
    design = PRESETS[name]
    assert Params()(design) == PRINTED[name]
    assert sum(each.numel() for each in build(design).parameters()) == PRINTED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_flops_of_published_models(name: str) -> None:
    model = build(PRESETS[name])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 100, dtype=torch.long, device="meta"), use_cache=True)
    assert Flops(100, head=True)(PRESETS[name]) == counter.get_total_flops()


@pytest.mark.parametrize("family", OTHERS)
def test_config_files_of_a_family(family: str) -> None:
    for design, _ in designs(family, 20):
        config = config_of(design)
        assert read_config(config.to_dict()) == design
        assert read_config({"model_type": config.model_type} | config.to_diff_dict()) == design


@pytest.mark.parametrize("model_type", KEYS)
def test_keys_that_are_left_out_have_the_defaults_of_the_class(model_type: str) -> None:
    config = CONFIG_MAPPING[model_type]()
    whole = config.to_dict()
    said = {key: default for key, default in KEYS[model_type].values() if default is not None}
    said |= {key: expected for key, (expected, _) in EXPECTED[model_type].items()}
    assert {key: whole.get(key, said[key]) for key in said} == said
    assert read_config({"model_type": model_type}) == read_config(whole)


def test_config_files_of_our_own() -> None:
    for name, design in PUBLISHED.items():
        config = MerinoConfig.from_architecture(design)
        assert read_config(config.to_dict()) == config.to_architecture() == design, name
    assert read_config(MerinoConfig().to_diff_dict()) == MerinoConfig().to_architecture()


def test_folders_of_networks(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    MerinoConfig.from_architecture(PUBLISHED["MeRino-61M"], dropout=0.1).save_pretrained(ours)
    config_of(PRESETS["qwen3-0.6b"]).save_pretrained(theirs)
    assert read_model(str(ours)) == PUBLISHED["MeRino-61M"]
    assert read_model(str(theirs)) == PRESETS["qwen3-0.6b"]
