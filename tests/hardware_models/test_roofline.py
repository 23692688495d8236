"""Latency and energy from a datasheet: by hand, against the FLOPs, as tables, and what better hardware may never do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    Separable,
    paper_space,
    tabulate,
)
from formulation.layer import layer_of
from formulation.problem import budget_text
from formulation.quantity import column_texts, quantity_text
from hardware_models import (
    Achieved,
    Datasheet,
    DecodeEnergy,
    DecodeLatency,
    Flops,
    GenerationEnergy,
    GenerationLatency,
    Latency,
    PrefillEnergy,
    PrefillLatency,
    Sourced,
    read_datasheet,
    read_device,
    shipped_datasheets,
)
from hardware_models.roofline import layer_kernels
from hardware_models.workload import Workload
from solvers import DynamicProgramming, Exhaustive, Highs, solve


def figures(**values: float) -> dict[str, Sourced]:
    return {precision: Sourced(value, "made up") for precision, value in values.items()}


def own(value: float) -> Sourced:
    return Sourced(value, "made up")


TOY = Datasheet(
    "toy",
    "made up",
    figures(float32=1e9, float16=2e9, int8=4e9),
    own(1e8),
    ram_bytes=own(1e9),
    idle_power_w=own(2.0),
    energy_per_flop=figures(float32=1e-12, float16=1e-12, int8=1e-12),
    energy_per_byte=own(1e-10),
)
BY_POWER = replace(TOY, energy_per_flop=None, energy_per_byte=None, active_power_w=own(5.0))
REAL = replace(TOY, achieved=(Achieved("real", own(2e7), own(0.1), own(1e-3)), Achieved("better", own(5e7))))
ONE_FLOP_A_SECOND = replace(TOY, peak_flops=figures(float32=1.0), bandwidth=own(1e30))
ONE_BYTE_A_SECOND = replace(TOY, peak_flops=figures(float32=1e30), bandwidth=own(1.0))

blocks = st.builds(Block, st.integers(1, 16).map(lambda heads: 64 * heads), st.integers(1, 4096), st.integers(1, 6))
architectures = st.builds(
    Architecture,
    st.lists(blocks, min_size=1, max_size=5).map(tuple),
    shared=st.booleans(),
    embedding_width=st.integers(1, 1024),
    vocabulary=st.integers(1, 60_000),
    positions=st.integers(1, 4096),
)
DESIGN = Architecture((Block(64, 128, 3), Block(128, 64, 1)), embedding_width=64, vocabulary=1000, positions=50)
ONE_LAYER = Architecture((Block(64, 128, 1),), embedding_width=64, vocabulary=1000, positions=50)


def every(device: Datasheet, tokens: int = 128, precision: str = "float32", batch: int = 1) -> tuple[Separable, ...]:
    latencies = (PrefillLatency, DecodeLatency, partial(GenerationLatency, new_tokens=3))
    energies = (PrefillEnergy, DecodeEnergy, partial(GenerationEnergy, new_tokens=3))
    return tuple(
        quantity(device, **{name: tokens}, precision=precision, batch=batch)
        for kinds in (latencies, energies)
        for quantity, name in zip(kinds, ("seq_len", "context", "prompt"), strict=True)
    )


def prefill_by_hand(flops: float = 1e9, bandwidth: float = 1e8) -> float:
    """Seconds of T = 10 tokens through a layer of E = 64, F = 128: of arithmetic and of transfers, product by product."""
    return sum(
        [
            max(2 * 10 * 64 * 192 / flops, 4 * (64 * 192 + 10 * 64 + 10 * 192) / bandwidth),
            max(4 * 10 * 10 * 64 / flops, 4 * (4 * 10 * 64) / bandwidth),
            max(2 * 10 * 64 * 64 / flops, 4 * (64 * 64 + 2 * 10 * 64) / bandwidth),
            2 * max(2 * 10 * 64 * 128 / flops, 4 * (64 * 128 + 10 * 64 + 10 * 128) / bandwidth),
            max(2 * 64 * 1000 / flops, 4 * (64 * 1000 + 64 + 1000) / bandwidth),
        ]
    )


def test_prefill_latency_by_hand() -> None:
    assert PrefillLatency(TOY, 10)(ONE_LAYER) == pytest.approx(1e3 * prefill_by_hand(), rel=1e-12)
    assert PrefillLatency(TOY, 10, logits="all")(ONE_LAYER) > PrefillLatency(TOY, 10)(ONE_LAYER)


def test_what_software_achieves_is_used_where_it_is_known() -> None:
    """A tenth of the peak, a fifth of the bandwidth, 1 ms for each of 4 products, attention, 2 norms, activation, 2 sums, head."""
    assert layer_kernels(layer_of(ONE_LAYER.blocks[0], ONE_LAYER)) == 10
    by_hand = 1e3 * (prefill_by_hand(1e8, 2e7) + 11 * 1e-3)
    assert PrefillLatency(REAL, 10)(ONE_LAYER) == pytest.approx(by_hand, rel=1e-12)
    assert PrefillLatency(REAL, 10, software="real")(ONE_LAYER) == PrefillLatency(REAL, 10)(ONE_LAYER)
    better = PrefillLatency(REAL, 10, software="better")(ONE_LAYER)
    assert better == pytest.approx(1e3 * prefill_by_hand(1e9, 5e7), rel=1e-12)
    assert PrefillLatency(REAL, 10, software="rated")(ONE_LAYER) == PrefillLatency(TOY, 10)(ONE_LAYER)


def test_decode_latency_by_hand() -> None:
    """One token after 9 in the cache, in 16 bits: everything waits for memory."""
    design = Architecture((Block(64, 128, 2),), embedding_width=128, vocabulary=1000, positions=50)
    layer = (64 * 192 + 64 + 192) + (2 * 64 * (1 + 10)) + (64 * 64 + 128) + 2 * (64 * 128 + 64 + 128)
    around = 2 * (128 * 64 + 128 + 64) + (128 * 1000 + 128 + 1000)
    assert DecodeLatency(TOY, 9, "float16")(design) == pytest.approx(1e3 * (2 * 2 * layer + 2 * around) / 1e8, rel=1e-12)


def test_groups_gates_and_bits_by_hand() -> None:
    """A token after 9: E = 48, four query heads and two key/value heads of 16, a gate, 4 bits a weight, activations in 16."""
    block = Block(48, 96, 1, heads=4, kv_heads=2, head_size=16, gated=True, bits=4)
    design = Architecture((block,), family="llama", vocabulary=1000)
    weights = 48 * 64 + 2 * 48 * 32 + 64 * 48 + 3 * 48 * 96
    activations = (48 + 64) + 2 * (48 + 32) + (64 + 48) + 3 * (48 + 96) + (64 + 64) + (32 + 32) * 10
    head = 2 * (48 * 1000 + 48 + 1000)
    expected = 1e3 * (weights / 2 + 2 * activations + head) / 1e8
    assert DecodeLatency(TOY, 9, "float16")(design) == pytest.approx(expected, rel=1e-12)
    # int4 is the same for every block, and for the head.
    four = replace(design, blocks=(replace(block, bits=None),))
    head = (48 * 1000) / 2 + 2 * (48 + 1000)
    expected = 1e3 * (weights / 2 + 2 * activations + head) / 1e8
    assert DecodeLatency(TOY, 9, "int4")(four) == pytest.approx(expected, rel=1e-12)


def test_int4_runs_at_the_peak_of_float16() -> None:
    endless = replace(TOY, bandwidth=own(1e30))
    assert PrefillLatency(endless, 64, "int4")(DESIGN) == PrefillLatency(endless, 64, "float16")(DESIGN)
    assert PrefillLatency(endless, 64, "int4")(DESIGN) == pytest.approx(PrefillLatency(endless, 64)(DESIGN) / 2)


def test_a_shared_layer_that_fits_the_cache_is_read_once() -> None:
    """Three applications of a layer of 32,768 weights, the block of 128 wide applied once: two readings are saved, no more."""
    weights = 4 * 64 * 64 + 2 * 64 * 128
    fits, does_not = (replace(ONE_BYTE_A_SECOND, cache_bytes=own(size)) for size in (4 * weights, 4 * weights - 1))
    plain = DecodeLatency(ONE_BYTE_A_SECOND)(DESIGN)
    assert DecodeLatency(does_not)(DESIGN) == plain
    assert plain - DecodeLatency(fits)(DESIGN) == pytest.approx(1e3 * 2 * 4 * weights, rel=1e-12)
    unshared = replace(DESIGN, shared=False)
    assert DecodeLatency(fits)(unshared) == DecodeLatency(ONE_BYTE_A_SECOND)(unshared)
    alone = replace(DESIGN, blocks=(replace(DESIGN.blocks[0], shared=False), DESIGN.blocks[1]))
    assert DecodeLatency(fits)(alone) == plain
    # In 8 bits a quarter is enough.
    small = replace(fits, cache_bytes=own(weights), peak_flops=figures(int8=1e30))
    assert DecodeLatency(small, precision="int8")(DESIGN) < DecodeLatency(replace(small, cache_bytes=None), precision="int8")(
        DESIGN
    )


@given(architectures, st.integers(1, 300), st.integers(1, 40), st.integers(1, 3))
def test_an_answer_is_its_prompt_and_every_token_after_it(design: Architecture, prompt: int, new: int, batch: int) -> None:
    """Prefill of P, then one token after P, P + 1, … P + N − 1 in the cache; attention may be bound either way."""
    device = replace(REAL, peak_flops=figures(float32=1.1e8))
    for whole, first, then in (
        (GenerationLatency, PrefillLatency, DecodeLatency),
        (GenerationEnergy, PrefillEnergy, DecodeEnergy),
    ):
        parts = [first(device, prompt, batch=batch), *(then(device, prompt + step, batch=batch) for step in range(new))]
        value = whole(device, prompt, new, batch=batch)(design)
        assert value == pytest.approx(sum(part(design) for part in parts), rel=1e-10)


def test_energy_by_operations_by_hand() -> None:
    for energy, latency in ((PrefillEnergy, PrefillLatency), (DecodeEnergy, DecodeLatency)):
        flops, moved = (latency(device, 20)(DESIGN) / 1e3 for device in (ONE_FLOP_A_SECOND, ONE_BYTE_A_SECOND))
        expected = 1e3 * (1e-12 * flops + 1e-10 * moved) + 2.0 * latency(TOY, 20)(DESIGN)
        assert energy(TOY, 20)(DESIGN) == pytest.approx(expected, rel=1e-12)


def test_energy_by_power_by_hand() -> None:
    """5 W while something is computed or moved, 2 W while kernels start: 10 a layer, 4 layers, a joint on either side, the head."""
    device = replace(BY_POWER, achieved=(Achieved("slow", None, None, own(1e-3)),))
    busy, starting = PrefillLatency(BY_POWER, 20)(DESIGN), 4 * 10 + 2 + 1
    assert PrefillLatency(device, 20)(DESIGN) == pytest.approx(busy + starting)
    assert PrefillEnergy(device, 20)(DESIGN) == pytest.approx(5 * busy + 2 * starting)
    rated = replace(device, active_power_w=None, idle_power_w=None, rated_power_w=own(10.0))
    assert PrefillEnergy(rated, 20)(DESIGN) == pytest.approx(10 * PrefillLatency(rated, 20)(DESIGN))
    both = replace(device, rated_power_w=own(10.0))
    assert PrefillEnergy(both, 20)(DESIGN) == PrefillEnergy(device, 20)(DESIGN)


@given(architectures, st.integers(1, 2048))
def test_flops_of_the_roofline_are_flops(design: Architecture, seq_len: int) -> None:
    every_logit = PrefillLatency(ONE_FLOP_A_SECOND, seq_len, logits="all")(design) / 1e3
    assert every_logit == pytest.approx(Flops(seq_len, head=True)(design), rel=1e-12)
    head = 2 * design.embedding_width * design.vocabulary
    last = PrefillLatency(ONE_FLOP_A_SECOND, seq_len)(design) / 1e3
    assert last - head == pytest.approx(Flops(seq_len)(design), rel=1e-9)


@given(st.integers(0, 10_000), st.sampled_from([1, 8, 200]), st.sampled_from([1, 4]), st.sampled_from(["float32", "int8"]))
def test_table_equals_call(seed: int, tokens: int, batch: int, precision: str) -> None:
    space = paper_space(shared=bool(seed % 2))
    choices = space.sample(np.random.default_rng(seed), 6)
    designs = [space.decode(row) for row in choices]
    quantities = every(replace(REAL, cache_bytes=own(1e6)), tokens, precision, batch)
    for row, quantity in zip(tabulate(quantities, space).evaluate(choices), quantities, strict=True):
        assert row == pytest.approx([quantity(design) for design in designs], rel=1e-12)


@given(architectures, st.integers(1, 500), st.floats(1, 100), st.sampled_from(["float32", "int8"]), st.integers(1, 4))
def test_better_hardware_and_less_work_never_cost_more(
    design: Architecture, tokens: int, factor: float, precision: str, batch: int
) -> None:
    less = 1 + 1e-12
    faster = replace(TOY, peak_flops={name: own(factor * peak.value) for name, peak in TOY.peak_flops.items()})
    here = [quantity(design) for quantity in every(TOY, tokens, precision, batch)]
    for device in (
        faster,
        replace(TOY, bandwidth=own(factor * TOY.bandwidth.value)),
        replace(TOY, idle_power_w=own(2 / factor)),
        replace(TOY, cache_bytes=own(factor * 1e5)),
    ):
        there = [quantity(design) for quantity in every(device, tokens, precision, batch)]
        assert all(new <= old * less for new, old in zip(there, here, strict=True))
    longer = [quantity(design) for quantity in every(TOY, tokens + 1, precision, batch)]
    assert all(old <= new * less for new, old in zip(longer, here, strict=True))


def test_without_a_cache_sharing_weights_saves_no_time() -> None:
    unshared = replace(DESIGN, shared=False)
    assert [quantity(DESIGN) for quantity in every(TOY)] == [quantity(unshared) for quantity in every(TOY)]


def test_a_block_without_layers_costs_nothing() -> None:
    left_out = replace(DESIGN, blocks=(*DESIGN.blocks, Block(128, 64, 0)))
    assert [quantity(left_out) for quantity in every(REAL)] == [quantity(DESIGN) for quantity in every(REAL)]


@pytest.mark.parametrize("name", shipped_datasheets())
@pytest.mark.parametrize("design", PUBLISHED)
def test_one_sequence_is_decoded_at_the_speed_of_memory(name: str, design: str) -> None:
    device = replace(read_datasheet(name), cache_bytes=None)
    endless = replace(device, peak_flops={precision: own(1e30) for precision in device.peak_flops})
    for precision in device.peak_flops:
        rated = [DecodeLatency(one, 128, precision, software="rated") for one in (device, endless)]
        assert rated[0](PUBLISHED[design]) == rated[1](PUBLISHED[design])


def test_a_long_query_is_bound_by_arithmetic() -> None:
    device = read_datasheet("jetson-nano")
    wide = replace(device, bandwidth=own(1e30))
    assert PrefillLatency(device, 1024, logits="all")(PUBLISHED["MeRino-64M"]) == pytest.approx(
        PrefillLatency(wide, 1024, logits="all")(PUBLISHED["MeRino-64M"]), rel=0.01
    )


def test_calibrated_rooflines_come_near_the_tables_that_rated_ones_are_far_from() -> None:
    """A network like those that HAT measured, of one width and with its vocabulary: by the table of the same board."""
    design = Architecture((Block(512, 2048, 6),), shared=False, embedding_width=512, vocabulary=32768)
    for name, rated_is_faster in (("raspberry-pi-4", 15), ("titan-xp", 15)):
        table, sheet = Latency(read_device(name).table("hat-decode"), extrapolate=True), read_datasheet(name)
        rated, achieved = (DecodeLatency(sheet, 15, batch=5, software=software)(design) for software in ("rated", ""))
        assert table(design) > rated_is_faster * rated
        assert achieved == pytest.approx(table(design), rel=0.25)


def test_what_a_latency_assumes_is_said_wherever_it_stands() -> None:
    latency = PrefillLatency(REAL, 64, "float16", logits="all")
    said = "prefill latency (toy: prefill of 64 tokens, batch 1, all logits, float16, as real achieves)"
    assert quantity_text(latency) == said
    assert budget_text(Budget(latency, 50.0)) == f"{said} ≤ 50 ms"
    assert quantity_text(DecodeLatency(TOY)) == "decode latency (toy: decode of a token after 128, batch 1, float32, as rated)"
    assert quantity_text(GenerationEnergy(BY_POWER, 64, 32)) == (
        "generation energy (toy: prompt of 64 tokens, then 32 one by one, batch 1, float32, as rated, "
        "5 W active × time, 2 W idle while a kernel starts)"
    )
    rated = replace(BY_POWER, active_power_w=None, idle_power_w=None, rated_power_w=own(10.0))
    assert quantity_text(DecodeEnergy(rated)).endswith("as rated, 10 W rated × time)")
    assert quantity_text(DecodeEnergy(TOY)).endswith("as rated, operations, bytes and idle power)")
    table = Latency(read_device("amd-epyc-2cpu").table())
    assert quantity_text(table) == (
        "latency@amd-epyc-2cpu:torch-float32-prefill (prefill of 128 tokens, batch 1, last logits, float32)"
    )


def test_a_proof_says_what_it_rests_on() -> None:
    assert PrefillLatency(TOY).doubt == (
        "prefill latency by a roofline of toy with 1 G FLOP/s and 100 M bytes/s as rated, which no software reaches"
    )
    noted = replace(REAL, achieved=(replace(REAL.achieved[0], note="10 % off"),))
    assert PrefillLatency(noted).doubt.endswith("100 M FLOP/s and 20 M bytes/s as real achieves (10 % off)")
    assert DecodeEnergy(BY_POWER).doubt.endswith("so that this budget is one on latency in other units")
    assert "other units" not in DecodeEnergy(TOY).doubt


def test_as_a_budget_of_exact_solvers() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2, 3))
    values = [GenerationLatency(REAL)(design) for design in space]
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(GenerationLatency(REAL), float(np.median(values))),), every(REAL))
    wanted = solve(problem, Exhaustive())
    for solver in (DynamicProgramming(), Highs()):
        assert solve(problem, solver).objective == pytest.approx(wanted.objective, rel=1e-9)
    assert wanted.architecture is not None
    report = problem.evaluate(wanted.architecture).report
    assert [(usage.name, usage.unit) for usage in report] == [
        ("prefill latency", "ms"),
        ("decode latency", "ms"),
        ("generation latency", "ms"),
        ("prefill energy", "mJ"),
        ("decode energy", "mJ"),
        ("generation energy", "mJ"),
    ]


def test_workloads() -> None:
    assert PrefillLatency(TOY, 7, batch=2, logits="all").workload == Workload("prefill", 7, 2, "all")
    assert DecodeEnergy(TOY, 7, batch=2).workload == Workload("decode", 7, 2)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: PrefillLatency("jetson-nano"), "expected a Datasheet"),
        (
            lambda: PrefillLatency(read_datasheet("jetson-nano"), precision="int8"),
            "no peak_flops in 'int8'.* states it in float32, float16",
        ),
        (lambda: PrefillLatency(replace(TOY, peak_flops=figures(float32=1.0)), precision="int4"), "no peak_flops in 'float16'"),
        (lambda: PrefillLatency(TOY, precision="fp16"), "unknown precision 'fp16'.*float16"),
        (lambda: PrefillLatency(REAL, software="reel"), "unknown software of toy 'reel'; did you mean 'real'.*better, rated"),
        (lambda: PrefillEnergy(TOY, 0), "seq_len is 0"),
        (lambda: DecodeLatency(TOY, 0), "context is 0"),
        (lambda: DecodeEnergy(TOY, 1.5), "context is 1.5"),
        (lambda: GenerationLatency(TOY, 0), "prompt is 0"),
        (lambda: GenerationLatency(TOY, new_tokens=0), "new_tokens is 0"),
        (lambda: GenerationEnergy(TOY, new_tokens=10**9), "new_tokens is 1000000000; expected at most 1,000,000"),
        (lambda: DecodeLatency(TOY, batch=0), "batch is 0"),
        (lambda: PrefillLatency(TOY, logits="some"), "logits is 'some'"),
        (lambda: PrefillEnergy(replace(TOY, energy_per_byte=None)), "toy states no energy_per_byte"),
        (lambda: DecodeEnergy(replace(TOY, idle_power_w=None)), "toy states no idle_power_w"),
        (lambda: DecodeEnergy(replace(TOY, energy_per_flop=figures(int8=1e-12))), "no energy_per_flop in 'float32'"),
        (
            lambda: DecodeEnergy(replace(TOY, energy_per_flop=None)),
            "toy states neither energy_per_flop nor active_power_w nor rated_power_w",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(build: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_heads_of_columns_leave_out_what_names_distinguish() -> None:
    latency, energy, other = PrefillLatency(TOY), PrefillEnergy(TOY), PrefillLatency(TOY, 64)
    assert column_texts([latency, energy, Flops(128), latency]) == [
        "prefill latency",
        "prefill energy",
        "flops (seq_len=128)",
        "prefill latency",
    ]
    assert column_texts([latency, energy, other]) == [quantity_text(latency), "prefill energy", quantity_text(other)]
