"""Problem files: what they hold, and that any damage to one is a sentence and never another exception.

`mutated` and `damaged` are also used on design files.
"""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from formulation import (
    Budget,
    DesignProblem,
    EffectiveEntropy,
    EntropyTable,
    Menu,
    SearchSpace,
    deep_space,
    fine_space,
    paper_space,
)
from formulation.problem import budget_text
from formulation.problem_file import problem_from_dict, problem_to_dict, read_problem
from formulation.quantity import quantity_text
from hardware_models import Flops, Params
from hardware_models.names import quantity_from_dict, quantity_to_dict

QUICK = {"suppress_health_check": [HealthCheck.function_scoped_fixture], "database": None}
SMALL = SearchSpace.uniform(2, (256, 512), (1, 1.5), (1, 2))
PROBLEMS = (
    DesignProblem(SMALL, EffectiveEntropy(rho=0.1, alpha=(1, 0)), (Budget(Flops(128, head=True), 60e9), Budget(Params(), 5e7))),
    DesignProblem(
        SearchSpace((Menu((256, 320), (1,), (1, 3)), Menu((320,), (2,), (2,))), False, False, 512, 1000, 64),
        Params(),
        (Budget(EffectiveEntropy(effectiveness=False), 1e5),),
        (Flops(),),
        (Flops(),),
    ),
)
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, -0.0, 1e-320, 64, 10**9, 10**9 + 1, 10**30, 10**400, 1e308, -1e300),
    *(math.nan, math.inf, -math.inf, "", "paper", "flops", "params", "entropy", "nan", "1e9", "FLOPs", "\n\n", "x" * 3000, "\x00"),
    *([], {}, [[]], [{}], [1, 2], [None] * 70, [64] * 300, list(range(64, 64 * 500, 64)), {"": {}}, [[[[[[[[1]]]]]]]]),
    *({"quantity": "flops"}, {"quantity": "flops", "seq_len": 1e9}),
)


def places(node: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    own = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in own] + [place for _, value in own for place in places(value)]


def mutated(record: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with one to three keys dropped, renamed or added, or values replaced, scaled, swapped or repeated."""
    record = copy.deepcopy(record)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        here = places(record)
        if not here:
            break
        action = draw.choice((0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 7))
        numbers = [(node, name) for node, name in here if type(node[name]) in (int, float)]
        container, key = draw.choice(numbers if action == 3 and numbers else here)
        value = container[key]
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[draw.choice([key + "x", key.upper(), "", draw.choice(here)[1]])] = container.pop(key)
        elif action == 2 and isinstance(container, dict):
            container[draw.choice(("extra", "unit", "blocks", "table", "name"))] = draw.choice(JUNK)
        elif action == 3 and type(value) in (int, float) and abs(value) < 1e300:
            scaled = value * draw.choice((-1, 0, 0.5, 2, 2, 3, 1 + 1e-12, 1 + 1e-7, 1.01, 1e12, 1e300))
            container[key] = int(scaled) if isinstance(value, int) and abs(scaled) < 1e9 else scaled
        elif action == 4:
            other, place = draw.choice(here)
            container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
        elif action == 5 and isinstance(container, list):
            container.extend(copy.deepcopy(container[: draw.randrange(1, 4)]))
        elif action == 6:
            container[key] = [value]
        else:
            container[key] = copy.deepcopy(draw.choice(JUNK))
    return record


def damaged(record: Any, draw: random.Random) -> bytes:
    """The bytes of a file that holds a JSON value, hurt as JSON or as text."""
    action = draw.randrange(12)
    text = json.dumps(record, indent=draw.choice((None, 1))).encode()
    if action == 0:
        return text[: draw.randrange(len(text))]
    if action == 1:
        place = draw.randrange(len(text))
        return text[:place] + bytes([draw.randrange(256)]) + text[place + 1 :]
    if action == 2:
        return draw.choice(
            (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe", b"", b"null", b"[]", b"{}", b"NaN", text * 2)
        )
    return json.dumps(mutated(record, draw)).encode()


def sentence(error: ValueError) -> str:
    """The message, which must be one line of reasonable length."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 1000
    return text


def check_reader(path: Path, draw: random.Random) -> None:
    path.write_bytes(damaged(problem_to_dict(draw.choice(PROBLEMS), quantity_to_dict), draw))
    try:
        problem = read_problem(path, quantity_from_dict)
    except ValueError as error:
        sentence(error)
        return
    # What is accepted is a problem: it has designs that can be evaluated, and goes through a file unchanged.
    assert problem_from_dict(json.loads(json.dumps(problem_to_dict(problem, quantity_to_dict))), quantity_from_dict) == problem


@settings(max_examples=400, **QUICK)
@given(st.randoms(use_true_random=False))
def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path, draw: random.Random) -> None:
    check_reader(tmp_path / "problem.json", draw)


@pytest.mark.slow
@settings(max_examples=10_000, **QUICK)
@given(st.randoms(use_true_random=False))
def test_many_damaged_files_are_refused_in_one_sentence(tmp_path: Path, draw: random.Random) -> None:
    check_reader(tmp_path / "problem.json", draw)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["space", "maximize", "budgets", "a"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=200, **QUICK)
@given(json_values)
def test_any_json_is_refused_in_one_sentence(value: Any) -> None:
    for record in (value, {"format": "merino problem", "version": 2, "space": value, "maximize": value, "budgets": [value]}):
        with pytest.raises(ValueError, match=r".") as error:
            problem_from_dict(record, quantity_from_dict)
        sentence(error.value)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_problem_goes_through_a_file_unchanged(problem: DesignProblem, tmp_path: Path) -> None:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(problem_to_dict(problem, quantity_to_dict)))
    assert read_problem(path, quantity_from_dict) == problem


@pytest.mark.parametrize(("name", "space"), [("paper", paper_space()), ("fine", fine_space()), ("deep", deep_space())])
def test_the_shortest_file(name: str, space: SearchSpace) -> None:
    record = {"format": "merino problem", "version": 2, "space": name, "maximize": "entropy"}
    assert problem_from_dict(record, quantity_from_dict) == DesignProblem(space, EffectiveEntropy())


def test_the_example_of_the_documentation() -> None:
    from formulation import problem_file

    assert problem_file.__doc__ is not None
    text = problem_file.__doc__.split("\n\n")[2]
    problem = problem_from_dict(json.loads(text), quantity_from_dict)
    assert problem.subject_to == (Budget(Flops(), 60e9), Budget(Params(), at_least=45e6))
    assert problem.minimize == problem.report == (Params(),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "version 1.*formulation.convert"),
        ({"version": True}, "version True"),
        ({"format": "merino design"}, "merino design.*merino problem"),
        ({"budget": []}, "unknown key 'budget'.*did you mean 'budgets'"),
        ({"space": "papr"}, "did you mean 'paper'"),
        ({"maximize": "flop"}, "did you mean 'flops'"),
        ({"maximize": {"quantity": "entropy", "table": 1}}, "maximize has the unknown key 'table'"),
        ({"maximize": {"quantity": "entropy", "alpha": [1]}}, r"maximize.alpha is \[1\].*2 numbers"),
        ({"budgets": [{"quantity": "flops", "upper": 60, "unit": "GFLOPs"}]}, r"budgets\[0\].unit is 'GFLOPs'.*'FLOPs'"),
        ({"budgets": [{"quantity": "flops", "upper": math.nan}]}, r"budgets\[0\].upper is nan.*a number"),
        ({"budgets": [{"quantity": "flops", "upper": -1}]}, r"budgets\[0\].*flops is -1.*0 or more"),
        ({"budgets": {"flops": 1}}, "budgets is .*expected a list"),
        ({"budgets": ["flops"]}, r"budgets\[0\] is 'flops'.*upper"),
        ({"budgets": [{"quantity": "flops"}]}, r"budgets\[0\] lacks upper"),
        ({"budgets": [{"quantity": "flops", "upper": 1, "uint": "FLOPs"}]}, r"budgets\[0\] has the unknown key 'uint'.*'unit'"),
        ({"report": [{"quantity": "flops", "seq_len": 1.5}]}, r"report\[0\].seq_len is 1.5.*a whole number"),
        ({"report": [{"quantity": "flops", "head": 1}]}, r"report\[0\].head is 1.*true or false"),
        ({"report": [{"quantity": "flops", "confidence": "high"}]}, r"report\[0\].confidence is 'high'.*a number"),
        ({"report": [{"quantity": "latency"}]}, r"report\[0\] lacks device"),
        ({"report": [{"quantity": "decode-latency", "device": 7}]}, r"report\[0\].device is 7"),
        (
            {"report": [{"quantity": "memory-share", "device": "titan-xp", "bit": 8}]},
            r"report\[0\] has the unknown key 'bit'.*'bits'",
        ),
        ({"report": [7]}, r"report\[0\] is 7.*quantity"),
        ({"space": {"blocks": 100, "widths": [256], "ffn_ratios": [1], "depths": [1]}}, "at most 64"),
        ({"space": {"blocks": 2, "widths": [256], "ffn_ratios": [1], "depths": [10**8]}}, "depth"),
        ({"space": {"blocks": 2, "widths": [64 * k for k in range(1, 600)], "ffn_ratios": [1], "depths": [1]}}, "widths"),
        ({"space": {"blocks": 2, "widths": [100], "ffn_ratios": [1], "depths": [1]}}, "use 64 or 128"),
        ({"space": {"blocks": 2, "widths": [10**9 // 64 * 64], "ffn_ratios": [1000], "depths": [1]}}, "ffn_width"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], words: str) -> None:
    record = {"format": "merino problem", "version": 2, "space": "paper", "maximize": "params"} | change
    with pytest.raises(ValueError, match=words):
        problem_from_dict(record, quantity_from_dict)


def test_a_quantity_without_a_name_is_not_written() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(table=EntropyTable.build(0.01, (256, 512, 768))))
    with pytest.raises(ValueError, match="cannot be written"):
        problem_to_dict(problem, quantity_to_dict)


def test_two_of_one_name_are_told_apart() -> None:
    assert quantity_text(Flops()) == "flops"
    assert quantity_text(Flops(seq_len=128, head=True)) == "flops (seq_len=128, head=True)"
    assert budget_text(Budget(Params(), 61.3e6)) == "params ≤ 61.3 M parameters"
