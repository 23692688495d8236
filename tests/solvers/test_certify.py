"""Proofs made again: the checker accepts what `certify` makes of true claims, and of boxes nothing that enumeration refutes."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulation import BlockwiseEntropy, Budget, Composite, DesignProblem, EffectiveEntropy, SearchSpace, SpaceUnion
from formulation.derived import negative
from formulation.score_table import Column, OptionMenu, OptionSpace
from hardware_models import Flops, Memory, Params
from solvers import DynamicProgramming, Exhaustive, Limits, RandomSearch, Status, check, solve
from solvers.certify import certified, certify
from studies.design import study
from tests.solvers.test_check import verdict
from tests.toys import Toy, open_toy, rich_toy, toy


def rows_of(part: dict[str, Any]) -> list[list[float | None]]:
    """The terms of a part per position."""
    return [part["terms"]["rows"][row] for row in part["terms"]["at"]]


def totals(part: dict[str, Any], items: tuple[int, ...], states: list[int] | None) -> Fraction:
    """A part of a choice, by the plain definition."""
    terms = [Fraction(part["fixed"]), *(Fraction(rows_of(part)[i][j]) for i, j in enumerate(items))]
    if part["joints"] is not None and states is not None:
        terms += [Fraction(part["joints"][i][s][t]) for i, (s, t) in enumerate(itertools.pairwise(states))]
    return max(terms) if part["combine"] == "max" else sum(terms, Fraction(0))


def worth(objective: dict[str, Any], parts: list[Fraction]) -> Fraction:
    """The objective of a certificate of boxes, by the plain definition."""
    if objective["formula"] == "sum":
        return sum((Fraction(w) * part for w, part in zip(objective["weights"], parts, strict=True)), Fraction(0))
    (first, second), beta = map(Fraction, objective["alpha"]), Fraction(objective["beta"])
    p = [parts[number] for number in objective["parts"]]
    if objective["formula"] == "effective entropy":
        return first * (1 - beta * p[0] ** 2 / p[1]) * p[3] + second * (1 - beta * p[0] ** 2 / p[2]) * p[4]
    return first * (p[1] - beta * p[0] * p[3]) + second * (p[2] - beta * p[0] * p[4])


def worths_within(data: dict[str, Any]) -> Iterator[Fraction]:
    """The worth of every choice of a certificate of boxes that is within the limits."""
    links = data["links"]
    for items in itertools.product(*(range(len(row)) for row in rows_of(data["parts"][0]))):
        if any(rows_of(data["parts"][0])[i][j] is None for i, j in enumerate(items)):
            continue
        states = None if links is None else [links["states"][i][j] for i, j in enumerate(items)]
        if states and not all(links["steps"][i][s][t] for i, (s, t) in enumerate(itertools.pairwise(states))):
            continue
        parts = [totals(part, items, states) for part in data["parts"]]
        uses = [sum((Fraction(w) * p for w, p in zip(own["weights"], parts, strict=True)), Fraction(0)) for own in data["budgets"]]
        if all(use <= Fraction(own["limit"]) for use, own in zip(uses, data["budgets"], strict=True)):
            yield worth(data["objective"], parts)


def accepted(certificate: Any) -> tuple[Fraction | None, Fraction | None]:
    """What the checker says, of what a file would hold."""
    return check.check(json.loads(json.dumps(certificate.to_dict())))


@pytest.mark.parametrize("make", [toy, open_toy, rich_toy])
@pytest.mark.parametrize("number", range(12))
def test_optima_of_toys_are_certified(make: Any, number: int) -> None:
    each: Toy = make(number)
    design = None if each.optimum is None else each.designs[int(np.where(each.feasible, each.objectives, -np.inf).argmax())]
    bound, value = accepted(certify(each.problem, design, each.optimum))
    if each.optimum is None:
        assert (bound, value) == (None, None)
    else:
        assert each.optimum <= float(bound) <= each.optimum + 1e-9 * abs(each.optimum)  # type: ignore[arg-type]
        assert float(value) == pytest.approx(each.optimum, rel=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(12))
def test_false_claims_on_toys_are_not_certified(number: int) -> None:
    each = toy(number)
    if each.optimum is None:
        return
    for bound in (each.optimum * (1 - 1e-6), None):
        data = certify(each.problem, None, bound).to_dict()
        assert verdict(data) in ("refused", "not checkable")


SMALL = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 3))


@cache
def small(kind: int) -> dict[str, Any]:
    """A certificate of boxes on a space of 512 designs or fewer."""
    entropy = (EffectiveEntropy(beta=1 / 8), BlockwiseEntropy(beta=1 / 8))[kind % 2]
    costs = (Memory() if kind > 1 else Flops(), Params())
    budgets = tuple(Budget(cost, float(np.quantile([cost(design) for design in SMALL], 0.5))) for cost in costs)
    problem = DesignProblem(SMALL, entropy, budgets)
    solution = solve(problem, Exhaustive())
    assert solution.status is Status.OPTIMAL
    data: dict[str, Any] = certify(problem, solution.architecture, solution.bound).to_dict()
    assert data["kind"] == "boxes"
    assert verdict(data) == "accepted"
    best = max(worths_within(data))
    assert float(best) == pytest.approx(solution.objective)
    assert best <= Fraction(data["bound"])
    return data


@pytest.mark.parametrize("kind", range(4))
def test_boxes_that_are_tampered_with(kind: int) -> None:
    data = small(kind)
    best = max(worths_within(data))
    refused = 0
    for change in range(30):
        own = copy.deepcopy(data)
        draw = np.random.default_rng([kind, change])
        what = change % 6
        if what == 0:
            own["bound"] = float(best) * (1 - 10.0 ** -float(draw.integers(1, 12)))
        elif what == 1:
            own["budgets"][int(draw.integers(2))]["limit"] *= float(draw.uniform(1.05, 2))
        elif what == 2:
            part = own["parts"][int(draw.integers(len(own["parts"])))]
            row = part["terms"]["rows"][int(draw.integers(len(part["terms"]["rows"])))]
            row[int(draw.integers(len(row)))] *= float(draw.uniform(0.3, 2))
        elif what == 3:
            own["objective"]["alpha"][int(draw.integers(2))] *= float(draw.uniform(0.5, 2))
        elif what == 4:
            own["nodes"].pop()
        else:
            own["design"][int(draw.integers(3))] = int(draw.integers(4))
        result = verdict(own)
        if what == 4:
            assert result == "refused"
        elif result == "accepted":
            assert all(one <= Fraction(own["bound"]) for one in worths_within(own))
        refused += result != "accepted"
    assert refused >= 12


def changed(node: Any, draw: np.random.Generator) -> Any:
    """A node with some of the numbers of its proofs changed."""
    if isinstance(node, dict):
        return {key: value if key in ("order", "below", "above", "then") else changed(value, draw) for key, value in node.items()}
    if isinstance(node, list):
        return [changed(value, draw) for value in node]
    return float(min(node * draw.uniform(0.5, 1.5), 1.0)) if isinstance(node, float) and draw.random() < 0.3 else node


@pytest.mark.parametrize("kind", range(4))
def test_proofs_with_other_numbers_prove_nothing_false(kind: int) -> None:
    """The proof of the optimum, changed or not, of a bound a little below it."""
    data = small(kind)
    best = max(worths_within(data))
    for change in range(12):
        draw = np.random.default_rng([kind, change])
        nodes = [changed(node, draw) for node in data["nodes"]] if change else data["nodes"]
        own = {
            **data,
            "nodes": nodes,
            "bound": float(best) * (1 - 10.0 ** -float(draw.integers(3, 12))),
            "design": None,
            "value": None,
        }
        assert verdict(own) in ("refused", "not checkable")


def random_tree(draw: np.random.Generator, data: dict[str, Any]) -> list[dict[str, Any]]:
    """A tree of boxes with random numbers, most of which prove nothing."""
    parts = data["objective"]["parts"]
    names: list[Any] = [*parts, *(("m1", "m2") if data["objective"]["formula"] == "effective entropy" else ())]
    middle = {p: float(np.mean([sum(max(row) for row in rows_of(data["parts"][p])), 0])) for p in parts}

    def proof() -> dict[str, Any]:
        scale = 10.0 ** draw.uniform(-12, 2, len(data["budgets"]))
        step: dict[str, Any] = {"theta": draw.random(2).tolist(), "budgets": scale.tolist()}
        if draw.random() < 0.7:
            step["tangents"] = [[[float(draw.random()), float(draw.uniform(0, 0.3))] for _ in range(2)] for _ in range(2)]
        if draw.random() < 0.5:
            step["ranges"] = [
                [names[int(draw.integers(len(names)))], str(draw.choice(["least", "most"])), float(draw.exponential(10))]
            ]
        if draw.random() < 0.1:
            step["objective"] = 0
        return {"labels": [step], "order": [0, 1, 2]} if draw.random() < 0.4 else step

    nodes: list[dict[str, Any]] = [{}]
    at = 0
    while at < len(nodes):
        if len(nodes) < 6 and draw.random() < 0.5:
            name = names[int(draw.integers(len(names)))]
            value = float(middle[name] * draw.uniform(0, 2)) if not isinstance(name, str) else float(draw.uniform(0.5, 1))
            if draw.random() < 0.5:
                nodes[at] = {"split": [name, value], "below": len(nodes), "above": len(nodes) + 1}
                nodes += [{}, {}]
            else:
                nodes[at] = {"tighten": [name, str(draw.choice(["least", "most"])), value], "by": proof(), "then": len(nodes)}
                nodes.append({})
        else:
            nodes[at] = {"close": proof()}
        at += 1
    return nodes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.floats(-0.2, 0.6))
def test_no_tree_of_random_boxes_proves_what_is_false(seed: int, kind: int, above: float) -> None:
    data = copy.deepcopy(small(kind))
    best = max(worths_within(data))
    data |= {
        "nodes": random_tree(np.random.default_rng(seed), data),
        "bound": float(best) * (1 + above),
        "design": None,
        "value": None,
    }
    if verdict(data) == "accepted":
        assert Fraction(data["bound"]) >= best


def test_boxes_of_an_engine_are_not_checkable() -> None:
    data = copy.deepcopy(small(0))
    number = next(n for n, node in enumerate(data["nodes"]) if "close" in node)
    data["nodes"][number] = {"engine": "HiGHS, 12 nodes"}
    with pytest.raises(check.NotCheckable, match=f"box {number} rests on HiGHS, 12 nodes"):
        check.check(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": []}, "nodes: there are none"),
        ({"nodes": [{"close": {"budgets": [-1.0, 0.0]}}]}, "box 0: multiplier of budget 0 is negative"),
        ({"nodes": [{"close": {"theta": [2.0, 0.0]}}]}, "box 0: theta is above 1"),
        ({"nodes": [{"close": {"ranges": [[0, "most", -1.0]]}}]}, "box 0: multiplier of a range is negative"),
        ({"nodes": [{"close": {"tangents": [[[-1.0, 0.1]], []]}}]}, "box 0: weight of a tangent is negative"),
        ({"nodes": [{"close": {}}]}, "box 0: its multipliers prove"),
        ({"nodes": [{"close": {"objective": 0}}]}, "box 0: its multipliers do not show"),
        ({"nodes": [{"split": [0, 5.0], "below": 1, "above": 1}, {"close": {}}]}, "box 1 is the child of two boxes"),
        ({"nodes": [{"split": [0, 5.0], "below": 0, "above": 1}, {"close": {}}]}, "box 0: a child is not a whole number from 1"),
        ({"nodes": [{"close": {}}, {"close": {}}]}, "box 0: its multipliers prove"),
        ({"nodes": [{"split": ["m3", 5.0], "below": 1, "above": 2}]}, "box 0: the variable is not"),
        ({"nodes": [{}]}, "box 0 is neither split, tightened, closed nor rid of items"),
        ({"parts": []}, "parts: there are none"),
        ({"objective": {"formula": "entropy"}}, "its formula is none of"),
    ],
)
def test_malformed_boxes_are_refused_with_the_step(change: dict[str, Any], words: str) -> None:
    with pytest.raises(check.Refused, match=words):
        check.check({**small(0), **change})


def test_solutions_carry_certificates_with_the_words_of_the_problem(tmp_path: Any) -> None:
    space = OptionSpace((OptionMenu("layer 1", ("full", "half")), OptionMenu("layer 2", ("full", "half", "none"))))
    score = Column("score", "1", ((2.0, 1.5), (3.0, 1.0, 0.0)), space)
    memory = Column("memory", "GB", ((4.0, 2.0), (4.0, 2.0, 1.0)), space)
    problem = DesignProblem(space, score, (Budget(memory, 6.0),))
    solution = solve(problem, DynamicProgramming())
    assert solution.certificate is not None
    assert verdict(solution.certificate.to_dict()) in ("accepted", "not checkable")
    data = certify(problem, solution.architecture, solution.bound).to_dict()
    assert verdict(data) == "accepted"
    words = solution.certificate.to_dict()["problem"]
    assert words["objective"] == "maximize score [1]"
    assert words["spaces"][0][1] == {"position": "layer 2", "items": ["full", "half", "none"]}
    assert words["fingerprint"] == solution.provenance.problem_sha256
    solution.certificate.write(tmp_path / "certificate.json")
    assert check.read(str(tmp_path / "certificate.json")) == json.loads(json.dumps(solution.certificate.to_dict()))


def test_what_the_checker_does_not_know_is_said() -> None:
    entropy = EffectiveEntropy(beta=1 / 8)
    problem = DesignProblem(SMALL, negative(Flops()), (Budget(entropy, at_least=100.0),))
    assert certify(problem, None, 0.0).to_dict() == {
        "kind": "not checkable",
        "why": "the formula of negative effective entropy is not one that the checker knows",
    }


def test_the_design_command_writes_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "certificate.json", str(tmp_path / "results")
    flags = ["--alternatives", "0", "--steps", "0", "--output", folder, "--certificate", str(file)]
    assert study.main(["--budget", "flops=30e9", *flags]) == 0
    assert f"Certificate written to {file}; python -m solvers.check {file} checks it." in capsys.readouterr().out
    assert check.main([str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("accepted: no choice within the limits is worth more than 11626.24489")
    assert study.main(["--minimize", "params", "--budget", "entropy>=1e3", *flags]) == 0
    assert "it is not checkable: the formula of negative effective entropy is not one" in capsys.readouterr().out
    assert check.main([str(file)]) == 4


def test_parts_of_a_union_are_certified_one_by_one() -> None:
    parts, cost = (replace(SMALL, vocabulary=1000), replace(SMALL, vocabulary=2000)), Params()
    budget = Budget(cost, float(np.quantile([cost(design) for part in parts for design in part], 0.4)))
    problem = DesignProblem(SpaceUnion(parts), EffectiveEntropy(beta=1 / 8), (budget,))
    solution = solve(problem, DynamicProgramming())
    certificate = certified(solution)
    data = certificate.to_dict()
    assert data["kind"] == "union"
    bound, value = accepted(certificate)
    assert float(bound) == pytest.approx(solution.bound, rel=1e-9)  # type: ignore[arg-type]
    assert float(value) == pytest.approx(solution.objective)  # type: ignore[arg-type]


def test_without_a_proof_there_is_no_certificate() -> None:
    problem = DesignProblem(SMALL, EffectiveEntropy(beta=1 / 8))
    solution = solve(problem, RandomSearch(), Limits(evaluations=3))
    with pytest.raises(ValueError, match="nothing is proved of the problem"):
        certified(solution)


@dataclass(frozen=True)
class Started(Composite):
    """The price per started unit of a part: at whole numbers of it, the part itself."""

    part: Column
    name = "started units"
    unit = "1"
    signs = (1,)

    @property
    def parts(self) -> tuple[Column, ...]:
        return (self.part,)

    def formula(self, parts: Any) -> Any:
        return np.ceil(parts[0])

    def overestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(np.shape(lower)), np.ceil(np.asarray(upper)[..., 0])


def test_a_formula_that_is_a_sum_at_whole_numbers_alone_is_not_taken_for_one() -> None:
    space = OptionSpace((OptionMenu("layer 1", ("a", "b")), OptionMenu("layer 2", ("a", "b"))))
    goal = Started(Column("x", "1", ((1.0, 1.125), (1.0, 0.75)), space))
    problem = DesignProblem(space, goal)  # type: ignore[arg-type]
    assert certify(problem, None, 2.2).to_dict()["kind"] == "not checkable"


def test_without_budgets_there_are_no_multipliers() -> None:
    space = OptionSpace((OptionMenu("layer 1", ("a", "b")), OptionMenu("layer 2", ("a", "b"))))
    problem = DesignProblem(space, Column("x", "1", ((1.0, 2.0), (4.0, 3.0)), space))
    bound, worth = accepted(certified(solve(problem, DynamicProgramming())))
    assert worth == 6
    assert 6 <= bound < 6 * (1 + 1e-6)  # type: ignore[operator]
