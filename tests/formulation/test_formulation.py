"""Architectures, search spaces, quantities, the entropy objective and problems."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulation import (
    PUBLISHED,
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    EntropyTable,
    Measured,
    Menu,
    NotSeparable,
    SearchSpace,
    closed_form_entropy,
    deep_space,
    evaluator,
    fine_space,
    paper_space,
    tabulate,
)
from formulation.derived import SumOverLayers
from hardware_models import Flops, Params
from tests.toys import RandomCost, toy

blocks = st.builds(Block, st.integers(1, 16).map(lambda k: 64 * k), st.integers(1, 4096), st.integers(1, 12))
architectures = st.builds(
    Architecture,
    st.lists(blocks, min_size=1, max_size=6).map(tuple),
    shared=st.booleans(),
    embedding_width=st.integers(1, 2048),
    vocabulary=st.integers(1, 100_000),
    positions=st.integers(1, 4096),
)


@given(architectures)
def test_json_round_trip(design: Architecture) -> None:
    again = Architecture.from_json(design.to_json())
    assert again == design
    assert hash(again) == hash(design)


def test_json_is_as_documented() -> None:
    record = json.loads(PUBLISHED["MeRino-52M"].to_json())
    assert record["blocks"][3] == {"width": 896, "ffn_width": 896, "depth": 1}
    assert record["shared"] is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "merino-architecture", "version": 1}',
        '{"format": "merino-architecture", "version": 2, "blocks": 3}',
    ]
    + [
        json.dumps({**PUBLISHED["MeRino-52M"].to_dict(), **change})
        for change in (
            {"blocks": []},
            {"blocks": [{"width": 100, "ffn_width": 64, "depth": 1}]},
            {"blocks": [{"width": 128, "ffn_width": 64}]},
            {"blocks": [{"width": 128, "ffn_width": 64, "depth": 1, "head": 2}]},
            {"blocks": [7]},
            {"shared": "yes"},
            {"vocabulary": 0},
            {"surprise": 1},
        )
    ],
)
def test_bad_json_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        Architecture.from_json(text)
    assert "\n" not in str(caught.value)


def test_bad_blocks_name_the_value_and_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"500, which 64 .* use 448 or 512"):
        Block(500, 500, 1)
    for arguments in ((512, 0, 1), (512, 512, -1), (512, 512.5, 1), (True, 512, 1), (-64, 64, 1)):
        with pytest.raises(ValueError, match="expected a whole number"):
            Block(*arguments)  # type: ignore[arg-type]


def test_published_counts() -> None:
    expected = {
        "MeRino-52M": (52_077_056, 59_275_008, (52, 59), 59.96, 139.0),
        "MeRino-61M": (61_014_912, 78_743_296, (61, 79), 107.31, 186.4),
        "MeRino-64M": (63_786_752, 99_697_920, (64, 100), 163.04, 242.1),
    }
    for name, (shared, unshared, printed, flops, with_head) in expected.items():
        design = PUBLISHED[name]
        assert Params()(design) == shared
        assert Params()(replace(design, shared=False)) == unshared
        assert (round(shared / 1e6), round(unshared / 1e6)) == printed
        assert Flops()(design) / 1e9 == pytest.approx(flops, abs=0.005)
        assert Flops(head=True)(design) / 1e9 == pytest.approx(with_head, abs=0.05)


def test_params_by_hand() -> None:
    """Two layers of width 128, FFN 256, in an embedding of 64: every weight written out."""
    layer = 4 * (128 * 128 + 128) + (128 * 256 + 256) + (256 * 128 + 128) + 2 * 2 * 128
    around = 100 * 64 + (10 + 2) * 128 + 2 * 128 + 64 * 128 + 128 * 64
    for shared, copies in ((True, 1), (False, 2)):
        design = Architecture((Block(128, 256, 2),), shared, embedding_width=64, vocabulary=100, positions=10)
        assert Params()(design) == around + copies * layer


def test_flops_by_hand() -> None:
    layer = 2 * 8 * (4 * 128 * 128 + 2 * 128 * 256) + 4 * 8 * 8 * 128
    for shared in (True, False):
        design = Architecture((Block(128, 256, 3),), shared, embedding_width=64, vocabulary=100)
        assert Flops(seq_len=8)(design) == 3 * layer + 2 * (2 * 8 * 64 * 128)
        assert Flops(seq_len=8, head=True)(design) == 3 * layer + 2 * (2 * 8 * 64 * 128) + 2 * 8 * 64 * 100


def test_sizes_of_the_named_spaces() -> None:
    assert paper_space().size == 1_451_520
    # Non-decreasing sequences of n widths out of 13: C(12 + n, n); 30 ratios and depths per block.
    assert fine_space().size == math.comb(16, 4) * 30**4
    assert deep_space().size == math.comb(20, 8) * 30**8


@pytest.mark.parametrize("number", range(12))
def test_space_counts_iterates_encodes_and_draws_itself(number: int) -> None:
    space = toy(number).problem.space
    designs = list(space)
    assert len(designs) == len(set(designs)) == space.size
    graph = space.graph()
    assert networkx.is_directed_acyclic_graph(graph)
    assert sum(1 for _ in networkx.all_simple_paths(graph, "source", "sink")) == space.size
    for design in designs[:: max(len(designs) // 50, 1)]:
        assert design in space
        assert space.decode(space.encode(design)) == design
    drawn = space.sample(np.random.default_rng(0), 400 * len(designs) if len(designs) < 40 else 2000)
    assert {space.decode(row) for row in drawn} <= set(designs)
    if len(designs) < 40:
        counts = np.unique(drawn, axis=0, return_counts=True)[1]
        assert len(counts) == len(designs)
        assert counts.min() > 400 - 6 * 20
        assert counts.max() < 400 + 6 * 20


def test_bad_spaces() -> None:
    cases = [
        (lambda: Menu((), (1,), (1,)), "widths is empty"),
        (lambda: Menu((512,), (), (1,)), "ffn_ratios is empty"),
        (lambda: Menu((512,), (1,), ()), "depths is empty"),
        (lambda: Menu((500,), (1,), (1,)), "448 or 512"),
        (lambda: Menu((512,), (0,), (1,)), "positive number"),
        (lambda: Menu((512,), (math.nan,), (1,)), "positive number"),
        (lambda: Menu((64,), (0.3,), (1,)), "whole FFN width"),
        (lambda: Menu(512, (1,), (1,)), "expected a list"),  # type: ignore[arg-type]
        (lambda: SearchSpace(()), "at least one"),
        (lambda: SearchSpace((Menu((512,), (1,), (1,)), Menu((256,), (1,), (1,)))), "holds no design"),
        (lambda: SearchSpace.uniform(0, (512,), (1,), (1,)), "blocks is 0"),
        (lambda: SearchSpace.from_dict({"blocks": 2, "widths": [512], "depths": [1]}), "ffn_ratios"),
        (lambda: SearchSpace.from_dict({"menus": [{}]}), r"menus\[0\] lacks widths"),
        (lambda: SearchSpace.from_dict({"blocks": 1, "width": [512]}), "unknown key 'width'.*'widths'"),
        (lambda: paper_space().encode(PUBLISHED["MeRino-52M"].__class__((Block(512, 512, 1),))), "1 blocks"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_space_json_round_trip() -> None:
    for space in (paper_space(), toy(3).problem.space, toy(4).problem.space):
        assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert SearchSpace.from_dict({"blocks": 2, "widths": [512], "ffn_ratios": [1], "depths": [1]}).size == 1


def test_decreasing_widths_are_not_in_the_paper_space() -> None:
    design = Architecture((Block(640, 640, 1), Block(512, 512, 1), Block(640, 640, 1), Block(640, 640, 1)))
    assert design not in paper_space()
    with pytest.raises(ValueError, match="decrease"):
        paper_space().encode(design)
    assert design in paper_space(non_decreasing=False)


@pytest.mark.parametrize("number", range(12))
def test_table_equals_call(number: int) -> None:
    given_toy = toy(number)
    space, designs = given_toy.problem.space, given_toy.designs[:300]
    choices = np.array([space.encode(design) for design in designs])
    quantities = (Params(), Flops(), Flops(head=True), RandomCost(1), RandomCost(2, maximum=True), *EffectiveEntropy().parts)
    values = tabulate(quantities, space).evaluate(choices)
    for row, quantity in zip(values, quantities, strict=True):
        assert row == pytest.approx([quantity(design) for design in designs], rel=1e-12)
    objective = EffectiveEntropy()
    assert evaluator(objective, space)(choices) == pytest.approx([objective(design) for design in designs], rel=1e-12)
    with pytest.raises(NotSeparable, match="latency"):
        tabulate([Measured("latency", "s", lambda _: 1.0)], space)  # type: ignore[list-item]


def test_table_names_the_block_that_is_not_finite() -> None:
    bad = SumOverLayers("bad", "1", lambda layer: math.nan if layer.width == 640 else 1.0)
    with pytest.raises(ValueError, match="bad has no value for block 640/640x1 at position 1: it is nan"):
        tabulate([bad], paper_space())


def _designs(draws: int) -> np.ndarray:
    space = fine_space()
    parts = tabulate(EffectiveEntropy().parts, space)
    return parts.evaluate(space.sample(np.random.default_rng(5), draws)).T


@given(st.integers(0, 10_000), st.sampled_from([(True, True), (False, True), (True, False)]))
@settings(max_examples=60, deadline=None)
def test_overestimator_lies_above_and_shrinks_to_the_formula(seed: int, switches: tuple[bool, bool]) -> None:
    objective = EffectiveEntropy(effectiveness=switches[0], weighting=switches[1])
    draw = np.random.default_rng(seed)
    points = _designs(2000)[draw.choice(2000, size=40, replace=False)]
    lower, upper = points.min(axis=0), points.max(axis=0)
    near = lower + draw.random(5) * (upper - lower)
    for at in (None, near):
        coefficients, constant = objective.overestimator(lower, upper, at)
        excess = points @ coefficients + constant - objective.formula(points.T)
        assert excess.min() >= -1e-9 * np.abs(objective.formula(points.T)).max()
    for point in points[:5]:
        coefficients, constant = objective.overestimator(point, point)
        assert point @ coefficients + constant == pytest.approx(objective.formula(point), rel=1e-12)


def test_overestimator_takes_many_boxes() -> None:
    points = _designs(60).reshape(3, 20, 5)
    lower, upper = points.min(axis=1), points.max(axis=1)
    coefficients, constants = EffectiveEntropy().overestimator(lower, upper)
    for box in range(3):
        one, constant = EffectiveEntropy().overestimator(lower[box], upper[box])
        assert coefficients[box] == pytest.approx(one)
        assert constants[box] == pytest.approx(constant)


def test_declared_signs_hold() -> None:
    objective = EffectiveEntropy()
    for point in _designs(200):
        here = objective.formula(point)
        for p, sign in enumerate(objective.signs):
            moved = point.copy()
            moved[p] *= 1.01
            assert sign * (objective.formula(moved) - here) >= 0


def test_gamma_of_the_published_example() -> None:
    objective = EffectiveEntropy()
    assert objective.effectiveness_of(Architecture((Block(256, 256, 1),)))[0] == pytest.approx(0.008, abs=0.0005)
    assert objective.effectiveness_of(Architecture((Block(64, 64, 24),)))[0] == pytest.approx(0.25, abs=0.0005)


def test_effective_entropy_by_hand() -> None:
    design = Architecture((Block(512, 768, 2), Block(640, 640, 3)))
    attention = 4 * (2 * closed_form_entropy(512, 512, 0.05) + 3 * closed_form_entropy(640, 640, 0.05))
    ffn = 2 * (2 * closed_form_entropy(512, 768, 0.05) + 3 * closed_form_entropy(640, 640, 0.05))
    log_width = 2 * math.log2(512) + 3 * math.log2(640)
    log_ffn = 2 * math.log2(768) + 3 * math.log2(640)
    expected = 0.7 * (1 - 25 / 20 / log_width) * attention + 0.3 * (1 - 25 / 20 / log_ffn) * ffn
    options = {"rho": 0.05, "alpha": (0.7, 0.3), "beta": 1 / 20}
    assert EffectiveEntropy(**options)(design) == pytest.approx(expected, rel=1e-12)
    assert EffectiveEntropy(**options, effectiveness=False)(design) == pytest.approx(0.7 * attention + 0.3 * ffn)
    assert EffectiveEntropy(**options, effectiveness=False, weighting=False)(design) == pytest.approx(attention + ffn)


def test_entropy_from_a_table() -> None:
    table = EntropyTable.build(0.01, range(256, 2049, 64))
    with_table, closed = EffectiveEntropy(table=table), EffectiveEntropy()
    for design in PUBLISHED.values():
        assert with_table(design) == pytest.approx(closed(design), rel=1e-9)  # their shapes are grid points
    off_grid = Architecture((Block(320, 480, 2),))
    assert with_table(off_grid) == pytest.approx(closed(off_grid), rel=0.03)
    assert with_table(off_grid) != closed(off_grid)
    with pytest.raises(ValueError, match=r"rho = 0\.01, the objective has rho = 0.02"):
        EffectiveEntropy(rho=0.02, table=table)


@pytest.mark.parametrize(
    "options", [{"rho": 0}, {"rho": math.nan}, {"alpha": (1,)}, {"alpha": (-1, 1)}, {"alpha": (0, 0)}, {"beta": -1}]
)
def test_bad_objective(options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        EffectiveEntropy(**options)


@pytest.mark.parametrize("number", range(12))
def test_gamma_check_of_a_space_agrees_with_its_designs(number: int) -> None:
    given_toy = toy(number)
    worst = max(max(EffectiveEntropy(beta=1e-9).effectiveness_of(design)) for design in given_toy.designs) / 1e-9
    EffectiveEntropy(beta=0.999 / worst).check(given_toy.problem.space)
    with pytest.raises(ValueError, match=r"γ = 1\.00"):
        EffectiveEntropy(beta=1.001 / worst).check(given_toy.problem.space)


def test_a_space_with_gamma_of_one_is_refused_with_the_design() -> None:
    with pytest.raises(ValueError, match=r"512/512x4 512/512x4 512/512x4 512/512x4 .* γ = 1.778"):
        DesignProblem(paper_space(), EffectiveEntropy(beta=1.0))
    with pytest.raises(ValueError, match="γ"):
        EffectiveEntropy(beta=1.0)(Architecture((Block(64, 64, 24),)))


@pytest.mark.parametrize("upper", [-1, math.nan, math.inf, "60e9", None, True])
def test_bad_budget(upper: object) -> None:
    with pytest.raises(ValueError, match="the budget for flops is"):
        Budget(Flops(), upper)  # type: ignore[arg-type]


def test_bad_problem() -> None:
    for arguments in (("paper", EffectiveEntropy()), (paper_space(), "entropy"), (paper_space(), EffectiveEntropy(), (Flops(),))):
        with pytest.raises(ValueError, match="expected"):
            DesignProblem(*arguments)  # type: ignore[arg-type]


def test_evaluation() -> None:
    design = PUBLISHED["MeRino-64M"]
    problem = DesignProblem(
        paper_space(), EffectiveEntropy(), (Budget(Flops(), 160e9), Budget(Params(), 65e6)), (Flops(head=True),)
    )
    evaluation = problem.evaluate(design)
    assert not evaluation.feasible
    assert [usage.within for usage in evaluation.usage] == [False, True]
    assert evaluation.usage[0].slack == pytest.approx(160e9 - Flops()(design))
    assert evaluation.report[0].value == Flops(head=True)(design)
    with pytest.raises(ValueError, match="blocks"):
        problem.evaluate(Architecture((Block(512, 512, 1),)))


def test_importing_the_formulation_brings_no_solver_and_no_torch() -> None:
    code = (
        "import formulation, hardware_models, sys; print([m for m in ('torch', 'pyomo', 'pymoo', 'solvers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
