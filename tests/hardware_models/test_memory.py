"""Memory: weights and cache to the byte, activations against what PyTorch allocates, their sum as a budget of exact solvers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    evaluator,
    paper_space,
    tabulate,
)
from hardware_models import Params
from hardware_models.memory import ActivationMemory, CacheMemory, Memory, MemoryShare, WeightMemory
from merino_net import MerinoConfig, MerinoForCausalLM
from solvers import DynamicProgramming, EvolutionaryAlgorithm, Exhaustive, Highs, Limits, Scip, Status, solve

OPT_125M = Architecture((Block(768, 3072, 12),), shared=False, vocabulary=50272)
SPACE = SearchSpace.uniform(3, (128, 256, 512), (1, 2), (1, 2, 3), embedding_width=256, vocabulary=500, positions=64)


@st.composite
def stated_blocks(draw: st.DrawFn) -> Block:
    """A block of which everything is decided but a head size of values, which PyTorch has no fused kernel for."""
    kv_heads = draw(st.integers(1, 3))
    return Block(
        draw(st.integers(1, 640)),
        draw(st.integers(1, 2500)),
        draw(st.integers(0, 3)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_size=draw(st.sampled_from([16, 32, 64])),
        gated=draw(st.sampled_from([None, True])),
        shared=draw(st.sampled_from([None, True, False])),
    )


plain_blocks = st.builds(
    Block, width=st.integers(1, 10).map(lambda heads: 64 * heads), ffn_width=st.integers(1, 2500), depth=st.integers(1, 3)
)
blocks = st.one_of(plain_blocks, stated_blocks())
architectures = st.builds(
    Architecture,
    blocks=st.lists(blocks, min_size=1, max_size=3).map(tuple).filter(lambda blocks: any(block.depth for block in blocks)),
    shared=st.booleans(),
    embedding_width=st.one_of(st.integers(1, 900), st.integers(1, 12).map(lambda heads: 64 * heads)),
    vocabulary=st.integers(2, 20_000),
    positions=st.just(256),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Every thread of an attention kernel would take work space of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(architecture: Architecture, attention: str = "fused") -> MerinoForCausalLM:
    model = MerinoForCausalLM(MerinoConfig.from_architecture(architecture)).eval()
    model.set_attn_implementation({"fused": "sdpa", "eager": "eager"}[attention])
    return model


def allocated_at_most(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch's allocator had given out and not taken back while `work` ran."""
    with torch.no_grad():
        work()  # what is made once and kept is there before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            kept = work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    assert kept is not None
    return int(np.cumsum([event.nbytes() for event in events]).max())


def measured_and_predicted(design: Architecture, quantity: ActivationMemory) -> tuple[int, float]:
    model = network(design, quantity.attention)
    tokens = torch.zeros((quantity.batch, quantity.seq_len), dtype=torch.long)
    keep = 1 if quantity.logits == "last" else 0
    return allocated_at_most(lambda: model(tokens, use_cache=False, logits_to_keep=keep)), quantity(design)


@settings(max_examples=50, deadline=None)
@given(architectures)
def test_weight_memory_is_what_the_parameters_take(design: Architecture) -> None:
    with torch.device("meta"):
        model = MerinoForCausalLM(MerinoConfig.from_architecture(design))
    for bits, dtype in ((32, torch.float32), (16, torch.bfloat16)):
        of_dtype = model.to(dtype)
        assert sum(weight.nbytes for weight in of_dtype.parameters()) == WeightMemory(bits)(design)


def test_weight_memory_with_fractional_bits_and_an_embedding_of_its_own() -> None:
    design = PUBLISHED["MeRino-52M"]
    embedding = 50257 * 768 + 2050 * 512
    others = Params()(design) - embedding
    assert WeightMemory(4.5)(design) == Params()(design) * 4.5 / 8
    assert WeightMemory(4.5, embedding_bits=8)(design) == embedding + others * 4.5 / 8
    assert embedding / Params()(design) == pytest.approx(0.761, abs=5e-4)


def test_bits_of_a_block_are_its_own() -> None:
    plain = Architecture((Block(64, 96, 2), Block(128, 128, 1)), embedding_width=64, vocabulary=50, positions=16)
    stated = replace(plain, blocks=(replace(plain.blocks[0], bits=4.5), plain.blocks[1]))
    of_block = Params().block(plain.blocks[0], plain)
    assert WeightMemory(16)(plain) - WeightMemory(16)(stated) == of_block * (16 - 4.5) / 8
    assert WeightMemory(4.5)(stated) == WeightMemory(4.5)(plain)


def test_a_head_of_its_own_is_a_map_like_others() -> None:
    tied = Architecture((Block(64, 96, 2),), embedding_width=64, vocabulary=50, positions=16)
    assert WeightMemory(16, embedding_bits=8)(replace(tied, tied=False)) == WeightMemory(16, 8)(tied) + 50 * 64 * 16 / 8


@settings(max_examples=15, deadline=None)
@given(architectures, st.integers(1, 40), st.integers(1, 3))
def test_cache_memory_is_what_the_cache_takes(design: Architecture, seq_len: int, batch: int) -> None:
    cache = network(design)(torch.zeros((batch, seq_len), dtype=torch.long), use_cache=True).past_key_values
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert taken == CacheMemory(seq_len, batch)(design)


quantities = st.builds(
    ActivationMemory,
    seq_len=st.sampled_from([16, 33, 64, 128, 200]),
    batch=st.integers(1, 3),
    logits=st.sampled_from(["last", "all"]),
    attention=st.sampled_from(["fused", "eager"]),
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(architectures, quantities)
def test_activation_memory_is_what_pytorch_allocates(design: Architecture, quantity: ActivationMemory) -> None:
    measured, predicted = measured_and_predicted(design, quantity)
    work_space = 1 << 17
    assert predicted <= measured <= predicted + work_space


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("heads", "kv_heads", "sizes"), [(4, 4, (64, 32)), (4, 2, (32, 64)), (6, 3, (16, 24)), (4, 1, (32, 16))])
def test_fused_attention_without_a_kernel_is_an_estimate_from_above(
    heads: int, kv_heads: int, sizes: tuple[int, int], depth: int
) -> None:
    design = Architecture((Block(96, 64, depth, heads, kv_heads, *sizes),), embedding_width=64, vocabulary=90, positions=256)
    for seq_len, batch in ((64, 1), (128, 2)):
        measured, predicted = measured_and_predicted(design, ActivationMemory(seq_len, batch))
        assert measured <= predicted <= 1.5 * measured


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("logits", ["last", "all"])
@pytest.mark.parametrize(("ffn_width", "depth", "seq_len", "batch"), [(128, 1, 64, 1), (512, 1, 96, 2), (1536, 3, 200, 1)])
def test_activation_memory_without_joints_is_exact(
    attention: str, logits: str, ffn_width: int, depth: int, seq_len: int, batch: int
) -> None:
    design = Architecture((Block(320, ffn_width, depth), Block(320, 320, 2)), embedding_width=320, vocabulary=700, positions=256)
    measured, predicted = measured_and_predicted(design, ActivationMemory(seq_len, batch, logits=logits, attention=attention))
    assert measured == predicted


def test_activation_memory_by_hand() -> None:
    """One layer, E = 128, F = 512, E₀ = 64, T = 16: the FFN around its activation is the most, three times with a gate."""
    design = Architecture((Block(128, 512, 1),), embedding_width=64, vocabulary=100, positions=32)
    assert ActivationMemory(16)(design) == 8 * 16 + 4 * 16 * (128 + 3 * 128 + 2 * 512)
    assert ActivationMemory(16, attention="eager")(design) == 8 * 16 + 4 * 16 * (128 + 3 * 128 + 2 * 512 + 2 * 16 + 16)
    gated = replace(design, blocks=(Block(128, 512, 1, gated=True),))
    assert ActivationMemory(16)(gated) == 8 * 16 + 4 * 16 * (128 + 3 * 128 + 3 * 512)
    wide = Architecture((Block(128, 512, 1),), embedding_width=64, vocabulary=10_000, positions=32)
    assert ActivationMemory(16, logits="all")(wide) == 4 * 16 * (64 + 10_000)
    assert ActivationMemory(16)(wide) == ActivationMemory(16)(design)


def test_activation_memory_where_nothing_but_the_ends_is_large() -> None:
    """A first and a last block without layers: positions and final norm are the most that there is."""
    first = Architecture((Block(640, 64, 0), Block(64, 64, 1)), embedding_width=64, vocabulary=90, positions=256)
    last = replace(first, blocks=first.blocks[::-1])
    for batch in (1, 2):
        rows = 32 * batch
        assert ActivationMemory(32, batch)(first) == 8 * 32 + 4 * 640 * (2 * rows + 32)
        assert ActivationMemory(32, batch)(last) == 8 * 32 + 4 * rows * (2 * 640 + 2)
        for design in (first, last):
            measured, predicted = measured_and_predicted(design, ActivationMemory(32, batch))
            assert measured == predicted


def test_memory_is_the_sum_of_its_parts() -> None:
    memory = Memory(200, 2, bits=4.5, embedding_bits=16, logits="all", attention="eager", activation_bits=16, cache_bits=8)
    parts = (WeightMemory(4.5, 16), CacheMemory(200, 2, 8), ActivationMemory(200, 2, 16, "all", "eager"))
    for design in (*PUBLISHED.values(), OPT_125M):
        assert memory(design) == sum(part(design) for part in parts)
        assert MemoryShare(memory, 4e9)(design) == memory(design) / 4e9
    assert Memory(activation_bits=16) == Memory(activation_bits=16)
    assert Memory(activation_bits=16)(OPT_125M) == Memory(activation_bits=16, cache_bits=16)(OPT_125M)


def test_memory_of_opt_125m_for_one_query() -> None:
    """501 MB of weights, 9 MB of cache, 26 MB of logits: the paper's 1,200 MB holds much besides the network."""
    assert WeightMemory()(OPT_125M) == 4 * 125_239_296
    assert Memory(128, logits="all")(OPT_125M) / 1e6 == pytest.approx(536.5, abs=0.05)
    assert Memory(128)(OPT_125M) / 1e6 == pytest.approx(515.5, abs=0.05)


QUANTITIES = (
    WeightMemory(4.5, 8),
    CacheMemory(100, 2, 16),
    ActivationMemory(100),
    ActivationMemory(300, 2, 16, "all", "eager"),
    *Memory(100).parts,
)


@given(st.integers(0, 10_000), st.booleans())
def test_table_equals_call(seed: int, shared: bool) -> None:
    space = paper_space(shared=shared)
    choices = space.sample(np.random.default_rng(seed), 8)
    designs = [space.decode(row) for row in choices]
    for row, quantity in zip(tabulate(QUANTITIES, space).evaluate(choices), QUANTITIES, strict=True):
        assert row == pytest.approx([quantity(design) for design in designs], rel=1e-12)
    for quantity in (Memory(100), MemoryShare(Memory(300, attention="eager"), 4e9)):
        assert evaluator(quantity, space)(choices) == pytest.approx([quantity(design) for design in designs], rel=1e-12)


@given(architectures, st.integers(1, 2000))
def test_more_tokens_never_take_less(design: Architecture, seq_len: int) -> None:
    for kind in (CacheMemory, ActivationMemory, Memory):
        assert kind(seq_len)(design) <= kind(seq_len + 1)(design)


def test_overestimator_is_the_formula() -> None:
    space = paper_space()
    points = tabulate(Memory().parts, space).evaluate(space.sample(np.random.default_rng(1), 6)).T
    for quantity in (Memory(), MemoryShare(Memory(), 4e9)):
        coefficients, constants = quantity.overestimator(points - 1, points + 1)
        assert coefficients.shape == points.shape
        assert (coefficients * points).sum(axis=1) + constants == pytest.approx(quantity.formula(points.T))
        assert quantity.signs == (1, 1)


def problem(quantity: Memory | MemoryShare, share: float) -> DesignProblem:
    """A budget that the given share of the designs keeps."""
    values = np.array([quantity(design) for design in SPACE])
    return DesignProblem(SPACE, EffectiveEntropy(), (Budget(quantity, float(np.quantile(values, share))),), (Memory(64),))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize(
    "quantity",
    [
        Memory(64),
        Memory(64, bits=4.5, embedding_bits=8, attention="eager", activation_bits=16),
        Memory(512, 2, logits="all"),
        MemoryShare(Memory(256, 4, bits=8), 1e8),
    ],
    ids=str,
)
def test_exact_solvers_keep_a_memory_budget(quantity: Memory | MemoryShare, share: float) -> None:
    wanted = solve(problem(quantity, share), Exhaustive())
    for solver in (DynamicProgramming(), Scip(), Highs()):
        found = solve(problem(quantity, share), solver)
        assert found.objective == pytest.approx(wanted.objective, rel=1e-6)
        assert found.status is Status.OPTIMAL
        assert all(usage.within for usage in found.usage)
        assert found.architecture is not None
    assert [usage.name for usage in problem(quantity, share).evaluate(found.architecture).report] == ["memory"]


def test_heuristics_keep_a_memory_budget() -> None:
    found = solve(problem(Memory(64), 0.3), EvolutionaryAlgorithm(iterations=300), Limits(seed=0))
    assert found.architecture is not None
    assert all(usage.within for usage in found.usage)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: WeightMemory(0), "bits is 0; expected a finite number above 0"),
        (lambda: WeightMemory(float("inf")), "bits is inf"),
        (lambda: WeightMemory(True), "bits is True"),
        (lambda: WeightMemory(8, embedding_bits=-1), "embedding_bits is -1"),
        (lambda: CacheMemory(0), "seq_len is 0"),
        (lambda: CacheMemory(4, batch=1.5), "batch is 1.5"),
        (lambda: CacheMemory(4, bits="8"), "bits is '8'"),
        (lambda: ActivationMemory(4, logits="first"), "logits is 'first'; expected last or all"),
        (lambda: ActivationMemory(4, attention="flash"), "attention is 'flash'; expected fused or eager"),
        (lambda: Memory(4, logits="none"), "logits is 'none'"),
        (lambda: Memory(4, cache_bits=0), "bits is 0"),
        (lambda: MemoryShare(WeightMemory(), 1e9), "expected a Memory"),
        (lambda: MemoryShare(Memory(), 0), "ram_bytes is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(build: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        build()
    assert "\n" not in str(caught.value)
