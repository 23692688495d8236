"""Latency tables: what they predict, how they are fitted, what they refuse, and budgets that hold with a confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, SearchSpace, evaluator, tabulate
from formulation.architecture import read_blocks
from formulation.presets import edge_space
from hardware_models import (
    FEATURES,
    Condition,
    ConditionalPrice,
    Flops,
    Latency,
    LatencyTable,
    MeasuredNetwork,
    Params,
    Validated,
    Workload,
    fit_error,
    fit_table,
)
from hardware_models.device import read_device, shipped
from hardware_models.drawn import networks_of
from hardware_models.fit import FitError, selecting_fit
from hardware_models.latency import unseen_rounds
from hardware_models.workload import BODY_FEATURES, feature_matrix
from solvers import DynamicProgramming, Exhaustive, Status, solve
from solvers.questions.text import proof_text

SPACE = SearchSpace.uniform(2, (256, 512, 768), (1, 2), (1, 2, 4))
PRICES = {"pass": 3.0, "block": 0.1, "layer": 0.2, "attention_maps": 9.0, "ffn_maps": 8.0, "scores": 12.0, "joint_maps": 10.0}
ERROR = FitError(40, 0.02, 0.99, 0.99, 1.0, ((0.5, 1.0), (0.9, 1.05), (0.95, 1.08), (0.99, 1.2)))
TABLE = LatencyTable("toy", "prefill", Workload(), tuple(PRICES.items()), Validated.of_space(SPACE), ERROR)


def random_designs(count: int, seed: int = 0) -> list[Architecture]:
    draw = np.random.default_rng(seed)
    spaces = [SearchSpace.uniform(blocks, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7)) for blocks in (1, 2, 3)]
    designs = [space.decode(space.sample(draw, 1)[0]) for number in range(count) if (space := spaces[number % 3])]
    return [replace(design, shared=number % 3 > 0) for number, design in enumerate(dict.fromkeys(designs))]


def measured(designs: list[Architecture], rounds: tuple[float, ...] = (1.0,), noise: float = 0.0) -> list[MeasuredNetwork]:
    """Networks whose latency is that of `PRICES`, times a factor for each round and a log-normal noise."""
    draw = np.random.default_rng(7)
    return [
        MeasuredNetwork(design, tuple(TABLE.predict(design) * factor * np.exp(noise * draw.normal()) for factor in rounds))
        for design in designs
    ]


def test_a_prediction_is_the_priced_sum_of_the_work() -> None:
    design = Architecture((Block(512, 768, 2), Block(768, 768, 1)))
    tokens = 128
    flop = {
        "attention_maps": 8 * tokens * (2 * 512**2 + 768**2),
        "ffn_maps": 4 * tokens * (2 * 512 * 768 + 768**2),
        "scores": 4 * tokens**2 * (2 * 512 + 768),
        "joint_maps": 2 * tokens * (768 * 512 + 512 * 768),
    }
    expected = 3.0 + 2 * 0.1 + 3 * 0.2 + sum(PRICES[name] * value / 1e9 for name, value in flop.items())
    assert Latency(TABLE)(design) == pytest.approx(expected)
    assert sum(flop.values()) == pytest.approx(Flops(tokens)(design))  # the kinds of work are all FLOPs there are


def test_work_of_a_decoding_step() -> None:
    work = Workload("decode", seq_len=100, batch=2)
    design = Architecture((Block(512, 512, 3),), shared=False, embedding_width=512)
    amounts = dict(zip(FEATURES, feature_matrix([design], work, tuple(FEATURES))[0], strict=True))
    assert work.tokens == 2
    assert amounts["scores"] == pytest.approx(3 * 4 * 2 * 101 * 512 / 1e9)
    assert amounts["weights"] == pytest.approx(3 * 6 * 512**2 / 1e6)
    assert amounts["head"] == pytest.approx(2 * 2 * 512 * 50257 / 1e9)
    assert amounts["joint"] == amounts["joint_maps"] == 0
    assert amounts["table"] == pytest.approx(512 * 50257 / 1e6)
    assert dict(zip(FEATURES, feature_matrix([design], replace(work, logits="none"), tuple(FEATURES))[0], strict=True))["head"] == 0


def test_work_of_grouped_heads_and_a_gate() -> None:
    work = Workload("decode", seq_len=100, batch=2)
    block = Block(576, 1536, 3, heads=9, kv_heads=3, head_size=64, value_head_size=32)
    design = Architecture((block,), shared=True, family="llama")
    amounts = dict(zip(FEATURES, feature_matrix([design], work, tuple(FEATURES))[0], strict=True))
    attention = 576 * (9 * 64 + 3 * 64 + 3 * 32 + 9 * 32)
    assert amounts["attention_maps"] == pytest.approx(3 * 2 * 2 * attention / 1e9)
    assert amounts["key_value_maps"] == pytest.approx(3 * 2 * 2 * 576 * (3 * 64 + 3 * 32) / 1e9)
    assert amounts["ffn_maps"] == pytest.approx(3 * 2 * 2 * 3 * 576 * 1536 / 1e9)
    assert amounts["maps"] == pytest.approx(amounts["attention_maps"] + amounts["ffn_maps"])
    assert amounts["query_key_width"] == pytest.approx(3 * 2 * (9 + 3) * 64 / 1e6)
    assert amounts["value_width"] == pytest.approx(3 * 2 * 9 * 32 / 1e6)
    assert amounts["cache"] == pytest.approx(3 * 2 * 101 * 3 * (64 + 32) / 1e6)
    assert amounts["scores"] == pytest.approx(3 * 2 * 2 * 101 * 9 * (64 + 32) / 1e9)
    assert amounts["applied_weights"] == pytest.approx(3 * (attention + 3 * 576 * 1536) / 1e6)  # applied thrice, stored once
    assert amounts["weights"] == pytest.approx((attention + 3 * 576 * 1536) / 1e6)


CLIFF = Condition(("width", "ffn_width"), multiple_of=128)
STEEP = replace(
    TABLE,
    conditional=(
        ConditionalPrice("ffn_maps", 50.0, CLIFF),
        ConditionalPrice("layer", 2.0, Condition(("width",), equal=320)),
        ConditionalPrice("head", 4.0, CLIFF),
    ),
)


def test_a_conditional_price_is_added_where_its_condition_holds() -> None:
    at, beside, cell = Block(256, 256, 2), Block(256, 320, 2), Block(320, 320, 1)
    for blocks, ffn, head, cells in (
        ((at, beside, cell), 2 * 256 * 256, 1, 1),
        ((beside, at), 2 * 256 * 256, 0, 0),
        ((cell,), 0, 0, 1),
    ):
        design = Architecture(blocks)
        extra = 50 * 4 * 128 * ffn / 1e9 + head * 4 * 2 * 768 * 50257 / 1e9 + cells * 2
        extrapolated = [Latency(table, extrapolate=True)(design) for table in (STEEP, TABLE)]
        assert extrapolated[0] - extrapolated[1] == pytest.approx(extra)


@pytest.mark.parametrize(
    ("condition", "holding"),
    [
        (Condition(("width", "ffn_width"), multiple_of=128), {"a"}),
        (Condition(("width", "ffn_width"), not_multiple_of=128), {"b", "c"}),
        (Condition(("ffn_width",), multiple_of=64, not_multiple_of=128), {"b", "c"}),
        (Condition(("width",), equal=512), {"a", "b"}),
        (Condition(("query_width", "value_width", "cache_width"), multiple_of=256), {"a", "b"}),
    ],
)
def test_conditions_on_widths(condition: Condition, holding: set[str]) -> None:
    blocks = {"a": Block(512, 512, 1), "b": Block(512, 576, 2), "c": Block(640, 960, 1), "left out": Block(512, 512, 0)}
    setting = Architecture(tuple(blocks.values()))
    assert {name for name, block in blocks.items() if condition.holds(block, setting)} == holding
    assert Condition(**condition.to_dict()) == condition  # type: ignore[arg-type]


def test_solvers_prove_with_conditional_prices() -> None:
    assert Latency(STEEP).positional
    assert not Latency(replace(STEEP, conditional=STEEP.conditional[:2])).positional
    space = SearchSpace.uniform(3, (256, 320, 512), ffn_widths=(256, 320, 512), depths=(1, 2), non_decreasing=False)
    latency = Latency(STEEP, extrapolate=True)
    values = evaluator(latency, space)(np.array(list(space.iterate_choices())))
    assert values == pytest.approx([latency(design) for design in space])
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(latency, 21),))
    found, best = solve(problem, DynamicProgramming()), solve(problem, Exhaustive())
    assert found.status is best.status is Status.OPTIMAL
    assert found.objective == pytest.approx(best.objective)
    blind = solve(DesignProblem(space, EffectiveEntropy(), (Budget(Latency(TABLE, extrapolate=True), 21),)), DynamicProgramming())
    assert found.objective is not None
    assert blind.objective is not None
    assert found.objective < blind.objective


def test_a_first_block_that_may_be_left_out_has_no_widths_to_ask() -> None:
    for design in (Architecture((Block(256, 256, 0), Block(256, 256, 2))),):
        with pytest.raises(ValueError, match=r"by the widths of the first one, which is left out \(depth 0\)"):
            Latency(STEEP)(design)
    space = SearchSpace.uniform(2, (256,), (1,), (0, 1, 2))
    with pytest.raises(ValueError, match="give the first block a layer"):
        DesignProblem(space, EffectiveEntropy(), (Budget(Latency(STEEP, extrapolate=True), 50),))


LLAMA = Architecture((Block(576, 1536, 2, heads=9, kv_heads=3),), family="llama")


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (replace(LLAMA, family="qwen2"), r"family qwen2 \(validated llama\)"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], heads=12),)), "heads times head size other than the width"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], kv_heads=1),)), r"kv_heads 1 \(validated 3 to 3\)"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], heads=18, kv_heads=3, head_size=32),)), r"head size 32 \(validated 64\)"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], value_head_size=32),)), "values with a head size of their own"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], gated=False),)), "feed-forward networks without a gate"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], bits=4.0),)), r"bits 4.0 \(validated none of their own\)"),
        (replace(LLAMA, blocks=(replace(LLAMA.blocks[0], shared=False),)), "layers that do not share weights"),
    ],
)
def test_choices_that_were_not_validated_are_refused(design: Architecture, words: str) -> None:
    table = replace(TABLE, validated=Validated.of([LLAMA]))
    assert not table.leaves_out(LLAMA)
    with pytest.raises(ValueError, match=words):
        Latency(table)(design)


def test_a_table_of_the_paper_s_layers_knows_no_llama() -> None:
    outside = TABLE.leaves_out(Architecture((Block(512, 512, 2, heads=8, kv_heads=2),), family="llama"))
    assert "family llama (validated merino)" in outside
    assert "query heads that share key/value heads (none were measured)" in outside
    assert "feed-forward networks with a gate (none were measured)" in outside


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phase": "training"}, "phase is 'training'; expected prefill or decode"),
        ({"logits": "some"}, "logits is 'some'; expected last or all"),
        ({"seq_len": 0}, "seq_len is 0; expected a whole number"),
        ({"batch": 1.5}, "batch is 1.5"),
    ],
)
def test_workloads_that_are_none(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Workload(**options)


def test_a_table_of_terms_equals_the_call() -> None:
    latency = Latency(TABLE, confidence=0.95)
    choices = np.array(list(SPACE.iterate_choices()))
    values = evaluator(latency, SPACE)(choices)
    assert values == pytest.approx([latency(design) for design in SPACE])
    assert tabulate([latency], SPACE).fixed[0] == pytest.approx(1.08 * 3.0)


def test_a_fit_recovers_prices_from_exact_measurements() -> None:
    fitted = fit_table("toy", "prefill", Workload(), measured(random_designs(60)), features=tuple(PRICES))
    assert dict(fitted.prices) == pytest.approx(PRICES, rel=1e-6)
    assert fitted.error is not None
    assert fitted.error.mape < 1e-9
    assert fitted.error.within_10 == 1
    assert fitted.validated == Validated.of(random_designs(60))


def test_a_fit_with_all_features_predicts_noisy_networks() -> None:
    fitted = fit_table("toy", "prefill", Workload(), measured(random_designs(60), (1.0, 1.0, 1.0), noise=0.02), BODY_FEATURES)
    assert all(price > 0 for _, price in fitted.prices)
    fresh = random_designs(200, seed=3)
    error = fit_error([fitted.predict(design) for design in fresh], [TABLE.predict(design) for design in fresh])
    assert error.within_10 > 0.99
    assert error.spearman > 0.99


LLAMA_PRICES = {"pass": 0.1, "layer": 0.05, "weights": 0.2, "cache": 3.0, "head": 20.0}


def measured_llamas(prices: dict[str, float], noise: float = 0.02) -> list[MeasuredNetwork]:
    """Networks of unequal layers and several widths, of which these are the prices of a decoding step."""
    designs, draw = networks_of(edge_space(), 60), np.random.default_rng(0)
    exact = feature_matrix(designs, Workload("decode"), tuple(prices)) @ np.array(list(prices.values()))
    return [
        MeasuredNetwork(design, tuple(value * np.exp(noise * draw.normal(size=3))))
        for design, value in zip(designs, exact, strict=True)
    ]


def test_work_is_priced_where_unseen_networks_are_predicted_worse_without() -> None:
    rows = measured_llamas(LLAMA_PRICES)
    chosen = fit_table("toy", "decode", Workload("decode"), rows)
    assert {"cache", "head"} <= {*dict(chosen.prices)}
    assert dict(chosen.prices)["head"] == pytest.approx(20, rel=0.2)
    assert chosen.error is not None
    assert chosen.error.mape < 0.025
    without = fit_table("toy", "decode", Workload("decode"), rows, choices=())
    assert without.error is not None
    assert without.error.mape > 0.05
    plain = fit_table("toy", "decode", Workload("decode"), measured_llamas({"pass": 0.1, "layer": 0.05, "weights": 0.2}))
    assert not {"cache", "head"} & {*dict(plain.prices)}


def test_work_that_is_a_sum_of_other_work_is_never_chosen() -> None:
    """Of the paper's layers, that have as many key/value heads as heads, grouped heads tell nothing."""
    work = feature_matrix(random_designs(40), Workload("decode"), (*BODY_FEATURES, "key_value_maps", "query_key_width", "head"))
    values = work @ np.random.default_rng(0).uniform(0.1, 1, work.shape[1]) + np.random.default_rng(1).uniform(0, 1, len(work))
    assert not selecting_fit(len(BODY_FEATURES))(work, values)[len(BODY_FEATURES) :].any()


def test_what_differs_between_rounds_is_part_of_the_error() -> None:
    steady = fit_table("toy", "prefill", Workload(), measured(random_designs(40), (1.0, 1.0)), tuple(PRICES))
    drifting = fit_table("toy", "prefill", Workload(), measured(random_designs(40), (1.0, 1.2)), tuple(PRICES))
    assert steady.margin(0.9) == pytest.approx(1.0, abs=1e-6)
    assert drifting.margin(0.9) == pytest.approx(1.2, abs=1e-3)  # half of the rounds are 1.2 times what the others say


@pytest.mark.parametrize(("designs", "words"), [(12, "12 measured networks; expected at least 20"), (0, "0 measured networks")])
def test_too_few_networks(designs: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_table("toy", "prefill", Workload(), measured(random_designs(designs)) if designs else [])


def test_one_network_twice_is_refused() -> None:
    rows = measured(random_designs(30))
    with pytest.raises(ValueError, match="was measured twice"):
        fit_table("toy", "prefill", Workload(), [*rows, rows[0]])


@given(st.floats(0.5, 0.99))
def test_margins_lie_between_the_stated_quantiles(confidence: float) -> None:
    margin = TABLE.margin(confidence)
    assert 1.0 <= margin <= 1.2
    below = [ratio for probability, ratio in ERROR.quantiles if probability <= confidence]
    assert margin >= below[-1] - 1e-12


@pytest.mark.parametrize("confidence", [0.3, 0.999, 1.5, float("nan"), True, "0.9"])
def test_confidences_of_which_nothing_is_known(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"states its error for 0\.5 to 0\.99"):
        Budget(Latency(TABLE), 50, confidence)


def test_a_budget_with_a_confidence_is_that_much_tighter() -> None:
    plain, robust = Budget(Latency(TABLE), 20), Budget(Latency(TABLE), 20, confidence=0.95)
    design = next(iter(SPACE))
    assert robust.quantity(design) == pytest.approx(1.08 * plain.quantity(design))
    assert robust.quantity.name == "latency@toy:prefill at 95 %"
    assert replace(robust, upper=30.0).quantity == robust.quantity  # it does not tighten twice
    solutions = [solve(DesignProblem(SPACE, EffectiveEntropy(), (budget,)), DynamicProgramming()) for budget in (plain, robust)]
    assert all(solution.status is Status.OPTIMAL for solution in solutions)
    assert solutions[0].objective > solutions[1].objective  # type: ignore[operator]
    assert Latency(TABLE)(solutions[1].architecture) <= 20 / 1.08  # type: ignore[arg-type]
    brute = solve(DesignProblem(SPACE, EffectiveEntropy(), (robust,)), Exhaustive())
    assert brute.objective == pytest.approx(solutions[1].objective)


@pytest.mark.parametrize("quantity", [Flops(), Params(), EffectiveEntropy()])
def test_what_has_no_error_holds_with_no_confidence(quantity: Flops) -> None:
    with pytest.raises(ValueError, match="has no error"):
        Budget(quantity, 1e9, confidence=0.9)


def test_a_table_without_an_error_says_so() -> None:
    with pytest.raises(ValueError, match="states no error"):
        Budget(Latency(replace(TABLE, error=None)), 50, confidence=0.9)


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (Architecture((Block(1024, 1024, 1), Block(1024, 1024, 1))), r"width 1,024 \(validated 256 to 768\)"),
        (Architecture((Block(256, 2048, 1), Block(256, 256, 1))), r"ffn_width 2,048 \(validated 256 to 1,536\)"),
        (Architecture((Block(256, 256, 8), Block(256, 256, 8))), r"total depth 16 \(validated 2 to 8\)"),
        (Architecture((Block(256, 256, 1),) * 2, shared=False), "layers that do not share weights"),
        (Architecture((Block(256, 256, 1),) * 2, vocabulary=1000), r"vocabulary 1,000 \(validated 50,257\)"),
        (Architecture((Block(256, 256, 1),) * 2, embedding_width=512), "embedding width 512"),
    ],
)
def test_extrapolations_have_to_be_asked_for(design: Architecture, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Latency(TABLE)(design)
    assert Latency(TABLE, extrapolate=True)(design) > 0
    assert TABLE.leaves_out(design)
    assert "(extrapolating)" in Latency(TABLE, extrapolate=True).name


def test_the_answer_says_what_is_extrapolated() -> None:
    wide = SearchSpace.uniform(1, (768, 832), (1,), (1, 2), vocabulary=4096)
    for extrapolate, space, words in (
        (True, wide, ["Extrapolated: latency@toy:prefill (extrapolating) was not validated on width 832 (validated 256 to 768); "]),
        (True, SPACE, []),
        (False, SPACE, []),
    ):
        problem = DesignProblem(space, EffectiveEntropy(), (Budget(Latency(TABLE, extrapolate=extrapolate), 500),))
        solver = DynamicProgramming()
        said = [line for line in proof_text(problem, solve(problem, solver), solver).splitlines() if "xtrapolat" in line]
        assert len(said) == len(words)
        assert all(line.startswith(word) for line, word in zip(said, words, strict=True))


def test_a_problem_on_a_space_beyond_the_table_is_refused_as_a_whole() -> None:
    wide = SearchSpace.uniform(2, (512, 1024), (1,), (1, 5))
    with pytest.raises(ValueError, match=r"the space has width 1,024 .* total depth 10"):
        DesignProblem(wide, EffectiveEntropy(), (Budget(Latency(TABLE), 50),))
    DesignProblem(wide, EffectiveEntropy(), (Budget(Latency(TABLE, extrapolate=True), 50),))
    DesignProblem(SPACE, EffectiveEntropy(), (Budget(Latency(TABLE), 50),))


@pytest.mark.parametrize("text", ["", "512", "512/512", "512/512x-1", "512x2", "512/512x2,640/640x1", "500/512x1", "a/bxc"])
def test_blocks_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|use 448 or 512|state the heads"):
        read_blocks(text)


def test_blocks_are_read_as_they_are_written() -> None:
    for design in random_designs(20):
        assert read_blocks(" ".join(map(str, design.blocks))) == design.blocks
    assert read_blocks("512/512x0 640/960x1") == (Block(512, 512, 0), Block(640, 960, 1))


@pytest.mark.parametrize("rounds", [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_latencies_that_are_none(rounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        MeasuredNetwork(next(iter(SPACE)), rounds)


def test_networks_with_fewer_rounds_are_fitted_and_predicted_too() -> None:
    rows = measured(random_designs(40), rounds=(1.0, 1.1, 1.2))
    rows = [replace(row, rounds_ms=row.rounds_ms[: 1 + number % 3]) for number, row in enumerate(rows)]
    work = feature_matrix([row.design for row in rows], Workload(), list(PRICES))
    predicted, seen = unseen_rounds(work, rows, folds=10)
    assert sorted(seen) == sorted(time for row in rows for time in row.rounds_ms)
    assert len(predicted) == len(seen)
    alike = [replace(row, rounds_ms=row.rounds_ms[:1] * (1 + number % 3)) for number, row in enumerate(rows)]
    predicted, seen = unseen_rounds(work, alike, folds=10)
    assert predicted == pytest.approx(seen, rel=1e-6)


@pytest.mark.parametrize(
    ("mape", "mark"), [(0.2, ""), (0.2001, " (doubtful: mean error 20 %)"), (0.559, " (doubtful: mean error 56 %)")]
)
def test_latencies_by_a_table_of_large_error_are_named_so(mape: float, mark: str) -> None:
    table = replace(TABLE, error=replace(ERROR, mape=mape))
    assert Latency(table).name == f"latency@toy:prefill{mark}"
    assert bool(table.doubt) == bool(mark)
    assert Latency(table).at_confidence(0.9).name == f"latency@toy:prefill at 90 %{mark}"
    assert not replace(TABLE, error=None).doubt


def test_no_shipped_table_is_doubtful() -> None:
    tables = [table for name in shipped() for table in read_device(name).tables]
    assert not [table.doubt for table in tables if table.doubt]
    assert not [table.name for table in tables if table.how.get("precision") == "int8" and "linear_maps" not in table.how]
