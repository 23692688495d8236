"""The network against the formulas: parameters and FLOPs exactly; files, switches, compilation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache
from transformers.activations import GELUActivation

from formulation import PUBLISHED, Architecture, Block, layer_of
from hardware_models import Flops, Params
from merino_net import MerinoConfig, MerinoForCausalLM, MerinoModel
from merino_net.network.baselines import HUB_NAMES, baseline_config
from merino_net.network.counting import forward_flops, matmul_flops_per_s, parameter_count


@st.composite
def stated_blocks(draw: st.DrawFn) -> Block:
    """A block of which everything is decided that a network can have."""
    kv_heads = draw(st.integers(1, 4))
    return Block(
        draw(st.integers(1, 800)),
        draw(st.integers(1, 3000)),
        draw(st.integers(1, 5)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_size=draw(st.integers(1, 96)),
        value_head_size=draw(st.sampled_from([None, 16, 33])),
        gated=draw(st.sampled_from([None, True])),
        shared=draw(st.sampled_from([None, True, False])),
    )


plain_blocks = st.builds(
    Block, width=st.integers(1, 12).map(lambda heads: 64 * heads), ffn_width=st.integers(1, 3000), depth=st.integers(1, 5)
)
blocks = st.one_of(plain_blocks, stated_blocks())
architectures = st.builds(
    Architecture,
    blocks=st.lists(blocks, min_size=1, max_size=5).map(tuple),
    shared=st.booleans(),
    embedding_width=st.one_of(st.integers(1, 900), st.integers(1, 12).map(lambda heads: 64 * heads)),
    vocabulary=st.integers(2, 60_000),
    positions=st.integers(16, 2048),
)
SMALL = Architecture((Block(64, 96, 2), Block(128, 64, 3)), embedding_width=96, vocabulary=120, positions=64)


def small_model(**options: object) -> MerinoForCausalLM:
    torch.manual_seed(0)
    return MerinoForCausalLM(MerinoConfig.from_architecture(SMALL, **options)).eval()


def on_meta(architecture: Architecture) -> MerinoForCausalLM:
    with torch.device("meta"):
        return MerinoForCausalLM(MerinoConfig.from_architecture(architecture))


@given(architectures)
def test_parameter_count_is_params(architecture: Architecture) -> None:
    assert parameter_count(on_meta(architecture)) == Params()(architecture)


@settings(max_examples=40)  # each traces a network
@given(architectures, st.integers(1, 16), st.booleans())
def test_counted_flops_are_flops(architecture: Architecture, seq_len: int, head: bool) -> None:
    config = MerinoConfig.from_architecture(architecture)
    assert forward_flops(config, seq_len, head) == Flops(seq_len, head)(architecture)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_designs_at_their_full_length(name: str) -> None:
    architecture = PUBLISHED[name]
    config = MerinoConfig.from_architecture(architecture)
    assert forward_flops(config, 1024, head=False) == Flops()(architecture)
    assert forward_flops(config, 1024) == Flops(head=True)(architecture)


def test_counting_leaves_the_configuration_alone() -> None:
    config = MerinoConfig()
    before = config.to_dict()
    forward_flops(config, 4)
    assert config.to_dict() == before
    assert config._attn_implementation != "eager"


@pytest.mark.parametrize("shared", [True, False])
def test_weights_are_named_and_shaped_by_the_lists(shared: bool) -> None:
    design = Architecture((Block(64, 192, 2), Block(128, 64, 1)), shared, embedding_width=128, vocabulary=50, positions=9)
    shapes = {"lm_head.weight": (50, 128), "model.tokens.weight": (50, 128), "model.positions.weight": (11, 64)}
    shapes |= {"model.norm.weight": (128,), "model.norm.bias": (128,)}
    shapes |= {"model.joints.0.weight": (64, 128), "model.joints.1.weight": (128, 64)}  # the last neighbours are alike
    for number, block in enumerate(design.blocks):
        layer = layer_of(block, design)
        for copy in range(1 if shared else block.depth):
            at = f"model.blocks.{number}.layers.{copy}"
            for own in layer.matrices:
                name = f"{at}.{own.group}.{own.name}"
                shapes |= {f"{name}.weight": (own.outputs, own.inputs), f"{name}.bias": (own.outputs,)}
            for norm in ("attention_norm", "ffn_norm"):
                shapes |= {f"{at}.{norm}.weight": (block.width,), f"{at}.{norm}.bias": (block.width,)}
    model = MerinoForCausalLM(MerinoConfig.from_architecture(design))
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == shapes


def test_default_configuration_is_merino_52m() -> None:
    assert MerinoConfig().to_architecture() == PUBLISHED["MeRino-52M"]


@given(architectures)
@settings(max_examples=50, deadline=None)
def test_configuration_round_trip(architecture: Architecture) -> None:
    config = MerinoConfig.from_architecture(architecture, dropout=0.1)
    again = MerinoConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))
    assert again.to_architecture() == architecture
    assert again.to_dict() == config.to_dict()
    assert config.num_hidden_layers == sum(architecture.depths)


def test_saved_and_loaded_by_the_auto_classes(tmp_path: Path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".py"}
    assert isinstance(AutoConfig.from_pretrained(tmp_path), MerinoConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), MerinoModel)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, MerinoForCausalLM)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in model.state_dict().items())
    assert loaded.lm_head.weight is loaded.model.tokens.weight
    tokens = torch.arange(20).view(2, 10)
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_shared_weights_are_one_set_and_still_apply_every_layer() -> None:
    model = small_model()
    assert [len(block.layers) for block in model.model.blocks] == [1, 1]
    unshared = MerinoForCausalLM(MerinoConfig(**{**model.config.to_dict(), "shared": False})).eval()
    assert [len(block.layers) for block in unshared.model.blocks] == [2, 3]
    for name, weight in unshared.state_dict().items():
        parts = name.split(".")
        if "layers" in parts:
            parts[parts.index("layers") + 1] = "0"
        weight.copy_(model.state_dict()[".".join(parts)])
    tokens = torch.arange(20).view(2, 10)
    assert torch.equal(unshared(tokens).logits, model(tokens).logits)


def test_cache_has_an_entry_per_layer_application() -> None:
    cache = small_model()(torch.arange(10).view(1, 10), use_cache=True).past_key_values
    assert isinstance(cache, DynamicCache)
    assert [layer.keys.shape for layer in cache.layers] == [(1, 1, 10, 64)] * 2 + [(1, 2, 10, 64)] * 3


def test_no_token_sees_a_later_one() -> None:
    model = small_model()
    tokens = torch.randint(0, 120, (1, 12), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 120
    first, second = model(tokens).logits, model(changed).logits
    torch.testing.assert_close(first[:, :7], second[:, :7], rtol=0, atol=0)
    assert (first[:, 7:] != second[:, 7:]).any()


def test_eager_and_fused_attention_agree() -> None:
    model = small_model()
    tokens = torch.arange(24).view(2, 12)
    fused = model(tokens).logits
    model.set_attn_implementation("eager")
    outputs = model(tokens, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, fused, rtol=0, atol=1e-5)
    assert len(outputs.attentions) == 5
    torch.testing.assert_close(outputs.attentions[-1].sum(-1), torch.ones(2, 2, 12))


def test_last_logits_only() -> None:
    model = small_model()
    tokens = torch.arange(24).view(2, 12)
    torch.testing.assert_close(model(tokens, logits_to_keep=1).logits, model(tokens).logits[:, -1:])


def test_loss_is_the_mean_cross_entropy_of_the_next_token() -> None:
    model = small_model()
    tokens = torch.arange(24).view(2, 12)
    outputs = model(tokens, labels=tokens)
    chosen = outputs.logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])
    torch.testing.assert_close(outputs.loss, -chosen.mean())


def test_gradient_checkpointing_changes_no_gradient() -> None:
    tokens = torch.arange(24).view(2, 12)

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        model = small_model().train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_dropout_acts_in_training_alone() -> None:
    model = small_model(dropout=0.5, attention_dropout=0.5)
    tokens = torch.arange(24).view(2, 12)
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)


def test_initial_standard_deviations() -> None:
    model = small_model(initializer_range=0.3).model
    layer = model.blocks[1].layers[0]
    of_residual = 0.3 / (2 * 5) ** 0.5
    expected = {
        layer.attention.query_key_value.weight: 0.3,
        layer.attention.output.weight: of_residual,
        layer.ffn.up.weight: 0.3,
        layer.ffn.down.weight: of_residual,
        model.tokens.weight: 0.3,
        model.positions.weight: 0.3,
        model.joints[1].weight: 64**-0.5,
        model.joints[2].weight: 128**-0.5,
    }
    for weight, deviation in expected.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert not layer.attention.query_key_value.bias.any()
    assert (layer.ffn_norm.weight == 1).all()


def test_activation_is_a_switch() -> None:
    assert isinstance(small_model().model.blocks[0].layers[0].ffn.activation, torch.nn.ReLU)
    assert isinstance(small_model(hidden_act="gelu").model.blocks[0].layers[0].ffn.activation, GELUActivation)


def test_compiles_in_one_graph() -> None:
    model = small_model()
    tokens = torch.arange(24).view(2, 12)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, labels=tokens, use_cache=False).loss, model(tokens, labels=tokens).loss)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"blocks": []}, "at least one block"),
        ({"blocks": [{"width": 64, "ffn_width": 64}]}, "block 1 of the configuration .*depth"),
        ({"blocks": [{"width": 65, "ffn_width": 64, "depth": 1}]}, "65, which 64"),
        ({"blocks": [{"width": 64, "ffn_width": 64, "depth": -1}]}, "block depth is -1"),
        ({"blocks": [{"width": 64, "ffn_width": 64, "depth": 0}]}, "has no layer"),
        ({"blocks": [{"width": 64, "ffn_width": 64, "depth": 1, "bits": 4}]}, "the block .* states the bits of its weights"),
        ({"block_widths": [64], "block_ffn_widths": [64], "block_depths": [1]}, "block_widths is of a network from before"),
        ({"hidden_act": "gulu"}, "'gulu'"),
        ({"dropout": 1}, "dropout is 1"),
        ({"initializer_range": 0}, "initializer_range is 0"),
        ({"joints": "glue"}, "joints is 'glue'; expected linear or pad"),
        ({"norm_bias": False}, "norm_bias is False, and in the family merino it is True; make"),
        ({"head_dim": 32}, "head_dim is 32, and by the blocks it is 64"),
        ({"per_layer_config": {0: {"head_dim": 32}}}, "it follows from the blocks"),
        ({"vocab_size": 0}, "vocabulary is 0"),
    ],
)
def test_a_configuration_of_no_network_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MerinoConfig(**options)


@pytest.mark.parametrize(
    ("design", "said"),
    [
        (Architecture((Block(64, 64, 1),), family="gpt_neox"), "of the family gpt_neox, which adds attention and feed-forward"),
        (Architecture((Block(64, 64, 1),), family="opt_post_norm"), "of the family opt_post_norm, which has its norms behind"),
        (Architecture((Block(64, 64, 1, heads=4, head_size=15),), family="llama"), "heads of size 15; rotary positions turn pairs"),
        (Architecture((Block(64, 64, 1, bits=4.5),)), "states the bits of its weights"),
    ],
)
def test_a_design_that_the_network_cannot_be_is_refused(design: Architecture, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        MerinoConfig.from_architecture(design)
    assert "\n" not in str(caught.value)


def test_tokens_and_embeddings_exclude_each_other() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model()
    tokens = torch.arange(12).view(1, 12)
    torch.testing.assert_close(model(inputs_embeds=model.model.tokens(tokens)).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("name", "million", "body_gflops", "gflops"),
    [
        # Parameters as published; FLOPs by hand, L (2T(4E² + 2EF) + 4T²E) at T = 1024, and 2T·E·V for the head.
        ("OPT-125M", 125.24, 212.60, 291.67),
        ("OPT-350M", 331.20, 723.70, 776.42),
        ("GPT-2", 124.44, 212.60, 291.65),
        ("Pythia-70M", 70.43, 51.54, 104.29),
        ("Pythia-162M", 162.32, 212.60, 291.72),
        ("Cerebras-111M", 111.05, 177.17, 256.21),
    ],
)
def test_baselines_have_the_published_sizes(name: str, million: float, body_gflops: float, gflops: float) -> None:
    config = baseline_config(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert parameter_count(model) / 1e6 == pytest.approx(million, abs=0.005)
    assert forward_flops(config, 1024, head=False) / 1e9 == pytest.approx(body_gflops, abs=0.005)
    assert forward_flops(config, 1024) / 1e9 == pytest.approx(gflops, abs=0.005)


def test_every_baseline_has_a_name_on_the_hub_and_others_are_refused() -> None:
    assert all(baseline_config(name) for name in HUB_NAMES)
    with pytest.raises(ValueError, match=r"'GPT-5'.*OPT-125M"):
        baseline_config("GPT-5")


def test_matmul_peak_leaves_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert matmul_flops_per_s(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.rand(3), expected)
