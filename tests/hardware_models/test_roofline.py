"""Latency and energy from a datasheet: by hand, against the FLOPs, as tables, and what better hardware may never do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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
from hardware_models import Flops
from hardware_models.datasheet import DATASHEETS, Datasheet, datasheet
from hardware_models.roofline import DecodeEnergy, DecodeLatency, PrefillEnergy, PrefillLatency
from hardware_models.workload import Workload
from solvers import DynamicProgramming, Exhaustive, Highs, solve

TOY = Datasheet(
    "toy",
    {"float32": 1e9, "float16": 2e9, "int8": 4e9},
    1e8,
    "made up",
    layer_overhead_s=1e-3,
    ram_bytes=1e9,
    energy_per_flop={"float32": 1e-12, "float16": 1e-12, "int8": 1e-12},
    energy_per_byte=1e-10,
    static_power_w=2.0,
)
ONE_FLOP_A_SECOND = replace(TOY, peak_flops={"float32": 1.0}, bandwidth=1e30, layer_overhead_s=0.0)
ONE_BYTE_A_SECOND = replace(TOY, peak_flops={"float32": 1e30}, bandwidth=1.0, layer_overhead_s=0.0)

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


def every(device: Datasheet, tokens: int = 128, precision: str = "float32", batch: int = 1) -> tuple[Separable, ...]:
    return tuple(
        quantity(device, tokens, precision, batch) for quantity in (PrefillLatency, DecodeLatency, PrefillEnergy, DecodeEnergy)
    )


def test_prefill_latency_by_hand() -> None:
    """T = 10 tokens through a layer of E = 64, F = 128: seconds of arithmetic and of transfers, product by product."""
    design = Architecture((Block(64, 128, 1),), embedding_width=64, vocabulary=1000, positions=50)
    of_products = [
        max(2 * 10 * 64 * 192 / 1e9, 4 * (64 * 192 + 10 * 64 + 10 * 192) / 1e8),
        max(4 * 10 * 10 * 64 / 1e9, 4 * (4 * 10 * 64) / 1e8),
        max(2 * 10 * 64 * 64 / 1e9, 4 * (64 * 64 + 2 * 10 * 64) / 1e8),
        2 * max(2 * 10 * 64 * 128 / 1e9, 4 * (64 * 128 + 10 * 64 + 10 * 128) / 1e8),
        max(2 * 64 * 1000 / 1e9, 4 * (64 * 1000 + 64 + 1000) / 1e8),
    ]
    assert PrefillLatency(TOY, 10)(design) == pytest.approx(1e3 * (sum(of_products) + 1e-3), rel=1e-12)
    assert PrefillLatency(TOY, 10, logits="all")(design) > PrefillLatency(TOY, 10)(design)


def test_decode_latency_by_hand() -> None:
    """One token after 9 in the cache, in 16 bits: everything waits for memory."""
    design = Architecture((Block(64, 128, 2),), embedding_width=128, vocabulary=1000, positions=50)
    layer = (64 * 192 + 64 + 192) + (2 * 64 * (1 + 10)) + (64 * 64 + 128) + 2 * (64 * 128 + 64 + 128)
    around = 2 * (128 * 64 + 128 + 64) + (128 * 1000 + 128 + 1000)
    assert DecodeLatency(TOY, 9, "float16")(design) == pytest.approx(1e3 * (2 * (2 * layer + around) / 1e8 + 2e-3), rel=1e-12)


def test_energy_by_hand() -> None:
    flops = PrefillLatency(ONE_FLOP_A_SECOND, 20)(DESIGN) / 1e3
    moved = PrefillLatency(ONE_BYTE_A_SECOND, 20)(DESIGN) / 1e3
    expected = 1e3 * (1e-12 * flops + 1e-10 * moved) + 2.0 * PrefillLatency(TOY, 20)(DESIGN)
    assert PrefillEnergy(TOY, 20)(DESIGN) == pytest.approx(expected, rel=1e-12)
    flops, moved = (DecodeLatency(device, 20)(DESIGN) / 1e3 for device in (ONE_FLOP_A_SECOND, ONE_BYTE_A_SECOND))
    expected = 1e3 * (1e-12 * flops + 1e-10 * moved) + 2.0 * DecodeLatency(TOY, 20)(DESIGN)
    assert DecodeEnergy(TOY, 20)(DESIGN) == pytest.approx(expected, rel=1e-12)


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
    quantities = every(TOY, tokens, precision, batch)
    for row, quantity in zip(tabulate(quantities, space).evaluate(choices), quantities, strict=True):
        assert row == pytest.approx([quantity(design) for design in designs], rel=1e-12)


@given(architectures, st.integers(1, 500), st.floats(1, 100), st.sampled_from(["float32", "int8"]), st.integers(1, 4))
def test_better_hardware_and_less_work_never_cost_more(
    design: Architecture, tokens: int, factor: float, precision: str, batch: int
) -> None:
    less = 1 + 1e-12
    faster = replace(TOY, peak_flops={name: factor * peak for name, peak in TOY.peak_flops}, layer_overhead_s=0.0)
    here = [quantity(design) for quantity in every(TOY, tokens, precision, batch)]
    for device in (faster, replace(TOY, bandwidth=factor * TOY.bandwidth), replace(TOY, static_power_w=2 / factor)):
        there = [quantity(design) for quantity in every(device, tokens, precision, batch)]
        assert all(new <= old * less for new, old in zip(there, here, strict=True))
    longer = [quantity(design) for quantity in every(TOY, tokens + 1, precision, batch)]
    assert all(old <= new * less for new, old in zip(longer, here, strict=True))


def test_sharing_weights_saves_no_time() -> None:
    unshared = replace(DESIGN, shared=False)
    assert [quantity(DESIGN) for quantity in every(TOY)] == [quantity(unshared) for quantity in every(TOY)]


@pytest.mark.parametrize("name", DATASHEETS)
@pytest.mark.parametrize("design", PUBLISHED)
def test_one_sequence_is_decoded_at_the_speed_of_memory(name: str, design: str) -> None:
    device = datasheet(name)
    endless = replace(device, peak_flops={precision: 1e30 for precision, _ in device.peak_flops})
    for precision, _ in device.peak_flops:
        assert DecodeLatency(device, 128, precision)(PUBLISHED[design]) == DecodeLatency(endless, 128, precision)(PUBLISHED[design])


def test_a_long_query_is_bound_by_arithmetic() -> None:
    device = datasheet("jetson-nano")
    wide = replace(device, bandwidth=1e30)
    assert PrefillLatency(device, 1024, logits="all")(PUBLISHED["MeRino-64M"]) == pytest.approx(
        PrefillLatency(wide, 1024, logits="all")(PUBLISHED["MeRino-64M"]), rel=0.01
    )


def test_datasheets_hold_the_quoted_figures() -> None:
    quoted = {
        "jetson-nano": ({"float32": 236e9, "float16": 472e9}, 25.6e9),
        "jetson-orin-nano-8gb": ({"float32": 1.28e12, "float16": 10e12, "int8": 20e12}, 68e9),
        "raspberry-pi-4": ({"float32": 48e9}, 12.8e9),
        "titan-xp": ({"float32": 12.15e12, "int8": 48.6e12}, 547.7e9),
        "xeon-platinum-8180": ({"float32": 4.48e12}, 128e9),
        "h100-sxm": ({"float32": 67e12, "float16": 989e12, "bfloat16": 989e12, "int8": 1979e12}, 3.35e12),
    }
    assert quoted.keys() == DATASHEETS.keys()
    for name, (peaks, bandwidth) in quoted.items():
        device = datasheet(name)
        assert dict(device.peak_flops) == pytest.approx(peaks, rel=2e-3)
        assert device.bandwidth == pytest.approx(bandwidth, rel=2e-3)
        assert hash(device) == hash(replace(device))
        assert device.name == name
        assert name in repr(PrefillLatency(device))


@pytest.mark.parametrize("name", DATASHEETS)
def test_every_shipped_datasheet_gives_energies(name: str) -> None:
    device, design = datasheet(name), PUBLISHED["MeRino-52M"]
    for energy, latency in ((PrefillEnergy(device), PrefillLatency(device)), (DecodeEnergy(device), DecodeLatency(device))):
        if device.power_w is not None:
            assert energy(design) == pytest.approx(device.power_w * latency(design))
        else:
            assert device.static_power_w is not None
            assert energy(design) > device.static_power_w * latency(design)


def test_as_a_budget_of_exact_solvers() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2, 3))
    values = [DecodeLatency(TOY)(design) for design in space]
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(DecodeLatency(TOY), float(np.median(values))),), every(TOY))
    wanted = solve(problem, Exhaustive())
    for solver in (DynamicProgramming(), Highs()):
        assert solve(problem, solver).objective == pytest.approx(wanted.objective, rel=1e-9)
    assert wanted.architecture is not None
    report = problem.evaluate(wanted.architecture).report
    assert [(usage.name, usage.unit) for usage in report] == [
        ("prefill latency", "ms"),
        ("decode latency", "ms"),
        ("prefill energy", "mJ"),
        ("decode energy", "mJ"),
    ]


def test_workloads() -> None:
    assert PrefillLatency(TOY, 7, batch=2, logits="all").workload == Workload("prefill", 7, 2, "all")
    assert DecodeEnergy(TOY, 7, batch=2).workload == Workload("decode", 7, 2)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: datasheet("jetson nano"), "no datasheet 'jetson nano'; did you mean jetson-nano"),
        (lambda: datasheet("abacus"), "no datasheet 'abacus'; choose one of jetson-nano, "),
        (lambda: PrefillLatency("jetson-nano"), "expected a Datasheet"),
        (
            lambda: PrefillLatency(datasheet("jetson-nano"), precision="int8"),
            "no peak_flops in 'int8'.* states it in float32, float16",
        ),
        (lambda: PrefillEnergy(TOY, 0), "seq_len is 0"),
        (lambda: DecodeLatency(TOY, 0), "context is 0"),
        (lambda: DecodeEnergy(TOY, 1.5), "context is 1.5"),
        (lambda: DecodeLatency(TOY, batch=0), "batch is 0"),
        (lambda: PrefillLatency(TOY, logits="some"), "logits is 'some'"),
        (lambda: PrefillEnergy(replace(TOY, energy_per_flop=None)), "toy states no energy_per_flop"),
        (lambda: DecodeEnergy(replace(TOY, static_power_w=None)), "toy states no static_power_w"),
        (lambda: DecodeEnergy(replace(TOY, energy_per_flop={"int8": 1e-12})), "no energy_per_flop in 'float32'"),
        (lambda: replace(TOY, bandwidth=0), "bandwidth is 0; expected a finite number above 0"),
        (lambda: replace(TOY, bandwidth=None), "bandwidth is None"),
        (lambda: replace(TOY, ram_bytes=math.inf), "ram_bytes is inf"),
        (lambda: replace(TOY, layer_overhead_s=-1), "layer_overhead_s is -1"),
        (lambda: replace(TOY, peak_flops={}), "peak_flops is {}"),
        (lambda: replace(TOY, peak_flops={"float32": math.nan}), "peak_flops in float32 is nan"),
        (lambda: replace(TOY, peak_flops={"fp32": 1e9}), "'fp32'.*expected precisions among float32"),
        (lambda: replace(TOY, peak_flops=1e9), "expected a figure for each precision"),
        (lambda: replace(TOY, source=" "), "source is ' '"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(build: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        build()
    assert "\n" not in str(caught.value)
