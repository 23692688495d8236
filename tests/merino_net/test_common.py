"""What transformers checks of every model that it has, checked of ours: each family, with layers that all differ.

The checks follow test_modeling_common.py, generation/test_utils.py and causal_lm_tester.py of its source distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, DynamicCache, GenerationConfig, StaticCache
from transformers.configuration_utils import get_head_shapes

from formulation import FAMILIES, Architecture, Block
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.network.configuration_merino import NOT_BUILT
from merino_net.network.modeling_merino import MerinoForSequenceClassification, MerinoForTokenClassification

pytestmark = pytest.mark.filterwarnings(
    "ignore:flex_attention called without torch.compile", "ignore:_compile flag on create_block_mask"
)

BUILT = [name for name in FAMILIES if name not in NOT_BUILT]
PAD, END = 1, 2
KINDS = [(family, "linear") for family in BUILT] + [("merino", "pad"), ("opt", "pad")]
"""The cases: a family, and what joins unequal widths."""
EVERY = pytest.mark.parametrize(("family", "joints"), KINDS)
FAMILY = pytest.mark.parametrize("family", BUILT)


def design_of(family: str, joints: str = "linear", values: int | None = 12) -> Architecture:
    """Unequal layers: shared and not, grouped, of several head sizes, gated and not, a block left out."""
    rules = FAMILIES[family]
    narrow, wide = (32, 32) if rules.one_width else (32, 48)
    blocks = (
        Block(narrow, 40, 2, heads=4, kv_heads=2, head_size=8, shared=True),
        Block(wide, 64, 2, heads=2, kv_heads=1, head_size=16, value_head_size=values, gated=not rules.gated),
        Block(wide, 64, 0),
        Block(wide, 24, 1, heads=4, head_size=8),
    )
    embedding = 40 if rules.joints else 32
    return Architecture(blocks, False, embedding, vocabulary=70, positions=64, family=family, tied=True, joints=joints)


ALIKE_IN_KEYS = (
    Block(32, 40, 2, heads=4, kv_heads=2, head_size=8, shared=True),
    Block(32, 64, 2, heads=6, kv_heads=2, head_size=8),
)
"""Blocks with unequal query heads and FFN widths, whose keys and values are of one shape."""


def fresh(design: Architecture, **options: Any) -> MerinoForCausalLM:
    """A network whose tokens differ clearly, so that what it generates depends on all of it."""
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": END, "pad_token_id": PAD}
    return MerinoForCausalLM(MerinoConfig.from_architecture(design, initializer_range=0.3, **ids, **options)).eval()


@cache
def network(family: str, joints: str = "linear") -> MerinoForCausalLM:
    """The network of `design_of`; a test that changes it takes a fresh one."""
    return fresh(design_of(family, joints))


def some_tokens(batch: int = 2, length: int = 9) -> torch.Tensor:
    return torch.randint(3, 70, (batch, length), generator=torch.Generator().manual_seed(1))


def near(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=atol)


def greedy(model: MerinoForCausalLM, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    """Six greedy tokens behind a prompt, none of them the end."""
    return model.generate(tokens, **{"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False} | options)  # type: ignore[no-any-return]


def attentions(model: MerinoForCausalLM) -> Iterator[str]:
    """The attention implementations that exist here, set one after the other; flex_attention as it is before it is compiled."""
    with torch.compiler.set_stance("force_eager"):
        for name in ("sdpa", "eager", "flex_attention"):
            model.set_attn_implementation(name)
            yield name


# The configuration and the weights


@EVERY
@torch.no_grad()
def test_saved_and_loaded(family: str, joints: str, tmp_path: Path) -> None:
    model, tokens = network(family, joints), some_tokens()
    model.save_pretrained(tmp_path)
    again, told = MerinoForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert again.config.to_architecture() == design_of(family, joints)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {each.dtype for each in half.parameters()} == {torch.bfloat16}
    near(half(tokens).logits.float(), model(tokens).logits, atol=0.5)


@EVERY
def test_standard_keys_are_read_without_a_word(family: str, joints: str, caplog: pytest.LogCaptureFixture) -> None:
    config = network(family, joints).config
    said = config.to_dict()
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
    width = config.embedding_width
    assert [said[name] for name in names] == [getattr(config, name) for name in names] == [5, width, 4, 2, 8, 40]
    assert [own.num_attention_heads for own in config.per_layer_config] == [4, 4, 2, 2, 4]
    assert [own.intermediate_size for own in config.per_layer_config] == [40, 40, 64, 64, 24]
    assert [own.hidden_size for own in config.per_layer_config] == [
        block.width for block in design_of(family).blocks for _ in range(block.depth)
    ]
    assert get_head_shapes(config) == ([2, 2, 1, 1, 4], [8, 8, 16, 16, 8])
    assert MerinoConfig(**said).to_dict() == said
    assert not caplog.records


@EVERY
def test_every_weight_has_a_gradient(family: str, joints: str) -> None:
    model, tokens = fresh(design_of(family, joints)).train(), some_tokens()
    model(tokens, labels=tokens).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@FAMILY
def test_made_without_memory_and_initialized_as_said(family: str) -> None:
    config = MerinoConfig.from_architecture(design_of(family), initializer_range=0.3)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    assert {each.device.type for each in empty.parameters()} == {"meta"}
    real = fresh(design_of(family))
    for name, weight in real.named_parameters():
        assert weight.isfinite().all()
        if "norm" in name or name.endswith("bias"):
            assert (weight == (1 if name.endswith("norm.weight") else 0)).all(), name
        else:
            assert weight.std() > 0.01, name


@FAMILY
@torch.no_grad()
def test_resized_embeddings_stay_tied(family: str) -> None:
    model, tokens = fresh(design_of(family)), some_tokens()
    before = model(tokens).logits
    model.resize_token_embeddings(77, mean_resizing=False)
    assert model.config.vocab_size == 77
    assert model.lm_head.weight is model.get_input_embeddings().weight
    near(model(tokens).logits[..., :70], before)
    model.resize_token_embeddings(70)
    near(model(tokens).logits, before)


@FAMILY
@torch.no_grad()
def test_a_copy_is_a_network_of_its_own(family: str) -> None:
    model, tokens = network(family), some_tokens()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(tokens).logits, model(tokens).logits)
    assert twin.lm_head.weight is twin.model.tokens.weight
    assert twin.lm_head.weight is not model.lm_head.weight


# The forward pass


@EVERY
@torch.no_grad()
def test_attention_implementations_agree(family: str, joints: str) -> None:
    model, tokens = fresh(design_of(family, joints)), some_tokens()
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    fused = model(tokens, attention_mask=mask).logits
    for _ in attentions(model):
        near(model(tokens, attention_mask=mask).logits[:, 3:], fused[:, 3:])


@EVERY
@torch.no_grad()
def test_outputs_of_every_layer(family: str, joints: str) -> None:
    model, tokens = fresh(design_of(family, joints), attn_implementation="eager"), some_tokens()
    outputs = model(tokens, output_attentions=True, output_hidden_states=True)
    assert [tuple(each.shape) for each in outputs.attentions] == [(2, heads, 9, 9) for heads in (4, 4, 2, 2, 4)]
    widths = [block.width for block in design_of(family).blocks for _ in range(block.depth)]
    what_left = [
        widths[0],
        *widths[:-1],
        model.config.hidden_size,
    ]  # what enters the first layer, and what leaves each, the last joined
    assert [each.shape[-1] for each in outputs.hidden_states] == what_left
    assert torch.equal(model.lm_head(outputs.hidden_states[-1]), outputs.logits)
    assert len(model(tokens, return_dict=False, use_cache=True)) == 2


@EVERY
@torch.no_grad()
def test_embeddings_for_tokens_and_the_last_logits(family: str, joints: str) -> None:
    model, tokens = network(family, joints), some_tokens()
    logits = model(tokens).logits
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(tokens)).logits, logits)
    near(model(tokens, logits_to_keep=1).logits, logits[:, -1:])
    near(model(tokens, logits_to_keep=torch.tensor([2, 5])).logits, logits[:, [2, 5]])


@EVERY
@torch.no_grad()
def test_going_on_from_a_cache(family: str, joints: str) -> None:
    model, tokens = network(family, joints), some_tokens()
    logits = model(tokens).logits
    past = model(tokens[:, :4], use_cache=True).past_key_values
    middle = model(tokens[:, 4:7], past_key_values=past).logits
    near(middle, logits[:, 4:7])
    near(model(tokens[:, 7:], past_key_values=past).logits, logits[:, 7:])
    assert past.get_seq_length() == 9
    past.crop(-4)
    near(model(tokens[:, 5:], past_key_values=past).logits, logits[:, 5:])


@EVERY
@torch.no_grad()
def test_left_padding_changes_nothing(family: str, joints: str) -> None:
    model, tokens = network(family, joints), some_tokens()
    padded = torch.cat([torch.full((2, 3), PAD), tokens], 1)
    mask = (torch.arange(12) >= 3).long().expand(2, 12)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    near(model(padded, attention_mask=mask, position_ids=positions).logits[:, 3:], model(tokens).logits)
    assert torch.equal(greedy(model, padded, attention_mask=mask)[:, 12:], greedy(model, tokens)[:, 9:])


@EVERY
@torch.no_grad()
def test_packed_sequences_do_not_see_each_other(family: str, joints: str) -> None:
    model, tokens = fresh(design_of(family, joints)), some_tokens(1, 10)
    positions = torch.tensor([[*range(4), *range(6)]])
    apart = torch.cat([model(tokens[:, :4]).logits, model(tokens[:, 4:]).logits], 1)
    for _ in attentions(model):
        near(model(tokens, position_ids=positions, use_cache=False).logits, apart)


@EVERY
def test_recomputed_activations_give_the_same_gradients(family: str, joints: str) -> None:
    tokens = some_tokens()

    def gradients(reentrant: bool | None) -> list[torch.Tensor]:
        model = fresh(design_of(family, joints)).train()
        if reentrant is not None:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        return [weight.grad for weight in model.parameters() if weight.grad is not None]

    plain = gradients(None)
    for reentrant in (False, True):
        for one, other in zip(plain, gradients(reentrant), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@FAMILY
@torch.no_grad()
def test_half_precision_is_near(family: str) -> None:
    model, tokens = network(family), some_tokens()
    logits = model(tokens).logits
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(tokens).logits.dtype == torch.bfloat16
    assert (half(tokens).logits.float() - logits).norm() < 0.05 * logits.norm()


@FAMILY
@torch.no_grad()
def test_classification_heads(family: str) -> None:
    config = MerinoConfig.from_architecture(design_of(family), num_labels=3, pad_token_id=PAD)
    tokens = some_tokens()
    padded = torch.cat([tokens, torch.full((2, 2), PAD)], 1)
    text = MerinoForSequenceClassification(config).eval()
    assert text(tokens, labels=torch.tensor([0, 2])).loss > 0
    near(text(padded, attention_mask=(padded != PAD).long()).logits, text(tokens).logits)
    each = MerinoForTokenClassification(config).eval()(tokens, labels=tokens % 3)
    assert each.logits.shape == (2, 9, 3)


def test_one_graph_also_of_shared_layers_and_recomputed() -> None:
    tokens = some_tokens()
    for family in ("merino", "qwen3"):
        model = fresh(design_of(family))
        torch.compiler.reset()
        compiled: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
        near(compiled(tokens, use_cache=False).logits, model(tokens).logits)
    model.train().activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    loss = compiled(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    near(loss.detach(), model.eval()(tokens, labels=tokens).loss.detach())
    exported = torch.export.export(model, (tokens,), {"use_cache": False}, strict=False)
    near(exported.module()(tokens, use_cache=False).logits, model(tokens).logits)


# Generation


@EVERY
def test_caches_of_every_kind_generate_the_same(family: str, joints: str) -> None:
    model, tokens = network(family, joints), some_tokens()
    expected = greedy(model, tokens)
    assert len(expected[:, 9:].unique()) > 2
    assert torch.equal(greedy(model, tokens, use_cache=False), expected)
    assert torch.equal(greedy(model, tokens, cache_implementation="static", disable_compile=True), expected)
    assert torch.equal(greedy(model, tokens, prefill_chunk_size=4), expected)
    chunked = {"cache_implementation": "static", "prefill_chunk_size": 4, "disable_compile": True}
    assert torch.equal(greedy(model, tokens, **chunked), expected)
    past = DynamicCache(config=model.config)
    first = greedy(model, tokens, max_new_tokens=3, min_new_tokens=3, past_key_values=past)
    assert torch.equal(greedy(model, first, max_new_tokens=3, min_new_tokens=3, past_key_values=past), expected)


@FAMILY
@torch.no_grad()
def test_a_static_cache_made_beforehand_has_the_shapes_of_each_layer(family: str) -> None:
    model, tokens = fresh(design_of(family, values=None)), some_tokens()
    heads, sizes = get_head_shapes(model.config)
    cache = StaticCache(config=model.config, max_cache_len=12)
    cache.early_initialization(2, heads, sizes, torch.float32, torch.device("cpu"))
    layers: list[Any] = cache.layers
    expected = [(2, *shape) for shape in ((2, 12, 8), (2, 12, 8), (1, 12, 16), (1, 12, 16), (4, 12, 8))]
    assert [tuple(own.keys.shape) for own in layers] == [tuple(own.values.shape) for own in layers] == expected
    near(model(tokens, past_key_values=cache).logits, model(tokens).logits)


@FAMILY
def test_ways_to_search(family: str) -> None:
    model, tokens = network(family), some_tokens(1)
    beams = greedy(model, tokens, num_beams=3, num_return_sequences=2, use_cache=True)
    assert torch.equal(beams, greedy(model, tokens, num_beams=3, num_return_sequences=2, use_cache=False))
    assistant = fresh(Architecture((Block(32, 8, 1, heads=2, head_size=8),), False, 32, 70, 64, family))
    assert torch.equal(greedy(model, tokens, assistant_model=assistant), greedy(model, tokens))
    assert torch.equal(greedy(model, tokens, prompt_lookup_num_tokens=2), greedy(model, tokens))
    torch.manual_seed(3)
    drawn = greedy(model, tokens, do_sample=True, num_return_sequences=3)
    assert drawn.shape == (3, 15)
    embedded = model.get_input_embeddings()(tokens)
    assert torch.equal(greedy(model, None, inputs_embeds=embedded), greedy(model, tokens)[:, 9:])  # type: ignore[arg-type]


def test_continuous_batching_where_keys_and_values_have_one_shape() -> None:
    model = fresh(Architecture(ALIKE_IN_KEYS, False, 32, 70, 64, "llama", True))
    prompts = [[5, 6, 7, 8, 9], [11, 12, 13]]
    settings = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=-1, pad_token_id=PAD)
    alone = [
        greedy(model, torch.tensor([each]), max_new_tokens=4, min_new_tokens=0, eos_token_id=-1)[0, len(each) :].tolist()
        for each in prompts
    ]
    cache = ContinuousBatchingConfig(num_blocks=4, max_batch_tokens=64)  # left to itself it takes most of the memory there is
    answers = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=cache, progress_bar=False)
    assert [each.generated_tokens for each in answers.values()] == alone


def test_continuous_batching_says_why_it_cannot() -> None:
    with pytest.raises(ValueError, match="keys and values of 1 heads of 12 and 1 heads of 16 and 2 heads of 8 and 4 heads of 8;"):
        network("llama").generate_batch([[5, 6]])
