"""Rules of deployability: a space keeps the designs that meet them and no other, and the optimum is that of the filtered list."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, Menu, SearchSpace, SpaceUnion, layer_of
from formulation.deployability import DEPLOYABILITIES, Deployability, deployability
from formulation.problem_file import problem_from_dict, problem_to_dict
from formulation.union import decided
from hardware_models import Flops, Memory, MemoryShare, Params, WeightMemory
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import DynamicProgramming, Exhaustive, Scip, Solver, Status, design, solve

MENU = Menu((576,), ffn_widths=(512, 528, 768), heads=(4, 9), kv_heads=(1, 2, 3), head_sizes=(56, 64), gated=(True, False))
SPACES = {
    "llama": SearchSpace((MENU, MENU), shared=False, family="llama"),
    "left out": SearchSpace.uniform(3, (512,), ffn_widths=(512, 640), depths=(0, 1, 2), heads=(4, 8), shared=False, family="llama"),
    "qwen": SearchSpace.uniform(2, (640,), ffn_widths=(512, 640), heads=(5, 10), depths=(1, 2), shared=False, family="qwen2"),
    "gpt2": SearchSpace.uniform(
        2, (256,), ffn_widths=(512, 640), heads=(2, 4, 8), kv_heads=(2, 4), head_sizes=(32, 64), shared=False, family="gpt2"
    ),
    "widths": SearchSpace.uniform(2, (256, 320, 384), (1, 1.5), (0, 1), shared=False),
    "united menus": SearchSpace(
        (
            Menu(
                (256,), (1,), (1, 2), also=(Menu((200,), ffn_widths=(400,), heads=(2,), head_sizes=(100,)), Menu((384,), (1, 1.25)))
            ),
        )
        * 2,
        shared=False,
        non_decreasing=False,
    ),
    "union": SpaceUnion(
        tuple(SearchSpace.uniform(2, (width,), (1, 2), shared=False, family=f) for width in (192, 256) for f in ("llama", "gpt2"))
    ),
}


def obeys(rules: Deployability, design: Architecture) -> bool:
    """Whether a design meets the rules, written down from the runtimes' own words and not from how spaces are kept to them."""
    layers = [(block, layer_of(block, design)) for block in design.blocks if block.depth]
    shapes = {(layer.heads, layer.kv_heads, layer.head_size, layer["up"].outputs, layer["up"].inputs) for _, layer in layers}
    gates = {len(layer.maps) == 7 for _, layer in layers}
    inputs = {each.inputs for _, layer in layers for each in layer.maps} | {*design.widths, design.embedding_width}
    outputs = {each.outputs for _, layer in layers for each in layer.maps} | {*design.widths, design.embedding_width}
    if rules.name == "gptq-128":
        return all(width % 128 == 0 for width in inputs)
    if rules.name == "tensor-core-64":
        return all(width % 64 == 0 for width in inputs | outputs)
    stored = not any(block.depth > 1 and (block.shared or (block.shared is None and design.shared)) for block, _ in layers)
    if rules.name == "hf-llama":
        return design.family == "llama" and len(shapes) == 1 and gates == {True} and stored
    assert rules.name == "llama.cpp"
    runs = gates == {design.family != "gpt2"} and (
        design.family in ("llama", "qwen2") or (design.family == "gpt2" and len(shapes) == 1)
    )
    if design.family == "gpt2":
        runs &= all((layer["query"].outputs, layer["value"].outputs) == (block.width, block.width) for block, layer in layers)
    one_size = len({layer.head_size for _, layer in layers}) == 1 and len(set(design.widths)) == 1
    return runs and one_size and stored and all(width % 32 == 0 for width in inputs)


def empties_last(design: Architecture) -> bool:
    depths = [min(block.depth, 1) for block in design.blocks]
    return depths == sorted(depths, reverse=True)


@pytest.mark.parametrize("name", DEPLOYABILITIES)
@pytest.mark.parametrize("space", SPACES)
def test_what_is_kept_obeys_and_what_is_dropped_does_not(space: str, name: str) -> None:
    rules = DEPLOYABILITIES[name]
    designs = set(SPACES[space])
    expected = {design for design in designs if obeys(rules, design)}
    assert {design for design in designs if not rules.faults(design)} == expected
    if not expected:
        with pytest.raises(ValueError, match=f"no design of the space can be deployed with {name}: "):
            rules.within(SPACES[space])
        return
    kept = rules.within(SPACES[space])
    if name == "hf-llama" or space == "qwen":
        expected = {design for design in expected if empties_last(design)}
    assert set(kept) == expected
    assert kept.size == len(expected)


@pytest.mark.parametrize("step", [None, lambda left, right: right.depth <= left.depth + 1])
def test_any_block_may_be_left_out_where_menus_differ(step: Callable[[Block, Block], bool] | None) -> None:
    menus = Menu((256,), (1, 2), (0, 1)), Menu((256,), (2, 3), (0, 1, 2)), Menu((256,), (1, 2, 3), (0, 1))
    space = SearchSpace(menus, shared=False, family="llama", step=step)
    rules = DEPLOYABILITIES["hf-llama"]
    kept = rules.within(space)

    def said(design: Architecture) -> str:
        return " ".join(str(block) if block.depth else "none" for block in design.blocks)

    expected = [said(design) for design in space if obeys(rules, design)]
    assert sorted(map(said, kept)) == sorted(expected)
    late = SearchSpace((Menu((256,), (1,), (0,)), Menu((256,), (2,))), shared=False, family="llama")
    assert rules.within(late).size == 1


def test_every_rule_keeps_some_and_drops_some_of_these() -> None:
    for rules in DEPLOYABILITIES.values():
        shares = [sum(obeys(rules, each) for each in space) / space.size for space in SPACES.values()]
        assert any(0 < share < 1 for share in shares), rules.name


@pytest.mark.parametrize("solver", [DynamicProgramming(), Exhaustive(), Scip()])
@pytest.mark.parametrize(("space", "name"), [("llama", "llama.cpp"), ("left out", "hf-llama"), ("widths", "gptq-128")])
def test_the_optimum_is_that_of_the_filtered_list(space: str, name: str, solver: Solver) -> None:
    rules = DEPLOYABILITIES[name]
    for share in (0.4, 0.7):
        designs = list(SPACES[space])
        upper = sorted(map(Params(), designs))[int(share * len(designs))]
        problem = DesignProblem(SPACES[space], EffectiveEntropy(), (Budget(Params(), upper),))
        kept = [each for each in designs if obeys(rules, each) and problem.evaluate(each).feasible]
        found = solve(replace(problem, space=rules.within(problem.space)), solver)
        assert found.status is (Status.OPTIMAL if kept else Status.INFEASIBLE)
        if kept:
            assert found.objective == pytest.approx(max(map(problem.objective, kept)), rel=1e-6)


def test_layers_that_are_shared_are_counted_each_time_they_are_applied() -> None:
    space = SearchSpace.uniform(2, (256,), (1, 2), (1, 3), family="llama")
    rules = DEPLOYABILITIES["llama.cpp"]
    assert set(rules.within(space)) == set(space)
    deep = Architecture((Block(256, 256, 3), Block(256, 512, 3)), family="llama")
    apart = replace(deep, shared=False)
    assert rules.faults(deep) == ()
    assert DEPLOYABILITIES["hf-llama"].faults(deep)[-1] == "layers share their weights; hf-llama stores each layer that is applied"
    for quantity in (WeightMemory(8), Memory(bits=4), MemoryShare(Memory(), 1e9)):
        assert rules.counted(quantity)(deep) == quantity(apart) > quantity(deep)
    assert rules.counted(Params()) == Params()
    assert DEPLOYABILITIES["hf-llama"].counted(WeightMemory(8)) == WeightMemory(8)
    asked = DesignProblem(space, EffectiveEntropy(), (Budget(WeightMemory(8), 60e6), Budget(Params(), at_least=1)), (Memory(),))
    kept = rules.of(asked)
    assert [budget.value(deep) for budget in kept.subject_to] == [WeightMemory(8)(apart), Params()(deep)]
    assert [budget.bound for budget in kept.subject_to] == [60e6, 1]
    assert kept.report == (Memory(apart=True),)
    assert problem_from_dict(problem_to_dict(kept, quantity_to_dict), quantity_from_dict) == kept
    mixed = SearchSpace.uniform(2, (256,), (1,), (2,), shared=(True, False), family="llama")
    assert DEPLOYABILITIES["hf-llama"].within(mixed).size == 1


def test_what_is_kept_is_written_into_files() -> None:
    for name, space in (("llama.cpp", SPACES["llama"]), ("hf-llama", SPACES["left out"]), ("gptq-128", SPACES["united menus"])):
        problem = DesignProblem(DEPLOYABILITIES[name].within(space), EffectiveEntropy(), (Budget(Params(), 1e9),))
        record = json.loads(json.dumps(problem_to_dict(problem, quantity_to_dict)))
        assert problem_from_dict(record, quantity_from_dict) == problem


@pytest.mark.parametrize(
    ("space", "name", "said"),
    [
        (
            SearchSpace.uniform(1, (512,), (1,)),
            "llama.cpp",
            "llama.cpp does not run the family merino; expected one of llama, gpt2",
        ),
        (SearchSpace.uniform(1, (512,), (1,), embedding_width=500), "gptq-128", "the embedding is 500 wide, .* multiple of 128"),
        (
            SearchSpace.uniform(2, (320,), (1,)),
            "gptq-128",
            "block 1 has no item that meets widths read by its maps that are multiples",
        ),
        (
            SearchSpace((Menu((256,), (1,)), Menu((256,), (2,))), family="llama"),
            "hf-llama",
            "the space holds no design: no choice of the menus' items makes all layers alike",
        ),
    ],
)
def test_what_cannot_be_deployed(space: SearchSpace, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"no design of the space can be deployed with {name}: {said}"):
        deployability(name).within(space)


@pytest.mark.parametrize("name", ["llama.cpp", "hf-llama"])
def test_values_have_the_head_size_of_keys(name: str) -> None:
    block = Block(128, 256, 2, heads=2, kv_heads=1, head_size=64)
    whole = Architecture((block,), shared=False, family="llama")
    assert deployability(name).faults(whole) == ()
    (fault,) = deployability(name).faults(replace(whole, blocks=(replace(block, value_head_size=32),)))
    assert fault == f"its values have a head size of their own; {name} has one for queries, keys and values"
    assert deployability("gptq-128").faults(replace(whole, blocks=(replace(block, value_head_size=128),))) == ()


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown deployable 'llama-cpp'; did you mean 'llama.cpp'"):
        deployability("llama-cpp")


def test_what_it_costs() -> None:
    space = decided(SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2), shared=False), family=("llama",))
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 22e9),))
    rules = DEPLOYABILITIES["hf-llama"]
    found = design(problem, steps=0, alternatives=0, deployability=rules)
    feasible = [each for each in space if problem.evaluate(each).feasible]
    without = max(map(problem.objective, feasible))
    within = max(problem.objective(each) for each in feasible if obeys(rules, each))
    assert within < without
    assert (found.solution.objective, found.without.objective) == (pytest.approx(within), pytest.approx(without))
    loss = f"It costs {without - within:,.2f} nat (−{100 * (without - within) / without:.1f} %)"
    assert loss in str(found)
    assert "both proved" in str(found)
    record = found.to_dict(quantity_to_dict)["deployability"]
    assert (record["rules"], record["without"]["objective"]) == ("hf-llama", pytest.approx(without))
    assert design(problem, steps=0, alternatives=0).without is None


def test_where_there_is_none_without_the_rule_either() -> None:
    problem = DesignProblem(SPACES["qwen"], EffectiveEntropy(), (Budget(Params(), 1.0),))
    found = design(problem, steps=0, alternatives=0, deployability=DEPLOYABILITIES["llama.cpp"])
    assert "(Q8_0, Q4_0). Without it there is no design either (proved)." in str(found)
