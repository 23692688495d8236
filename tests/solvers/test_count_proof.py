"""Proofs of composites of alike blocks: the checker accepts those of true claims, and nothing that enumeration refutes."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from formulation import BlockwiseEntropy, Budget, DesignProblem, EffectiveEntropy, Menu, SearchSpace
from formulation.architecture import Setting
from formulation.quantity import Separable
from hardware_models import Flops, Memory, Params
from solvers import check
from solvers.certify import certify
from solvers.exact.count_proof import CountProof
from tests.solvers.test_check import verdict
from tests.toys import RandomCost


class _Joined(RandomCost):
    """A random cost whose joints between equal widths are free, as counting needs."""

    def joint(self, left: int, right: int, setting: Setting) -> float:
        return 0.0 if left == right else super().joint(left, right, setting)


@cache
def drawn(number: int) -> tuple[DesignProblem, float | None, Any]:
    """A random composite problem of alike blocks, its optimum (None if no design meets the budgets) and a design that has it."""
    draw = np.random.default_rng(number)
    growing, empty = number % 2 == 0, number % 5 == 4
    menu = Menu((256, 320, 512)[: int(draw.integers(2, 4))], (1, 2), ((0,) if empty else ()) + (1, 3))
    space = SearchSpace((menu,) * 3, non_decreasing=growing, shared=bool(draw.random() < 0.5))
    entropy = (EffectiveEntropy, BlockwiseEntropy)[number % 3 == 2](beta=1 / 16)
    costs: list[Separable] = [(Flops(), Params(), Memory())[number % 3]]  # type: ignore[list-item]
    if growing:
        costs.append(_Joined(number))
    designs = list(space)
    share = 0.0 if number % 7 == 6 else float(draw.uniform(0.2, 0.7))
    uses = np.array([[cost(design) for design in designs] for cost in costs])
    limits = [float(np.quantile(own, share)) * (0.999 if share == 0 else 1.0) for own in uses]
    problem = DesignProblem(space, entropy, tuple(map(Budget, costs, limits)))
    within = np.all(uses <= np.array(limits)[:, None], axis=0)
    if not within.any():
        return problem, None, None
    values = [entropy(design) if fits else -np.inf for design, fits in zip(designs, within, strict=True)]
    best = int(np.argmax(values))
    return problem, float(values[best]), designs[best]


@pytest.mark.parametrize("number", range(14))
def test_optima_are_proved_by_counts(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, optimum, design = drawn(number)
    ran = []
    run = CountProof.run
    monkeypatch.setattr(CountProof, "run", lambda self: ran.append(run(self)))
    data = json.loads(json.dumps(certify(problem, design, optimum).to_dict()))
    assert bool(ran) >= (number % 2 == 0), "blocks are alike and widths grow, so that counts prove it"
    bound, worth = check.check(data)
    if optimum is None:
        assert (bound, worth) == (None, None)
    else:
        assert optimum <= float(bound) <= optimum * (1 + 1e-9)  # type: ignore[arg-type]
        assert float(worth) == pytest.approx(optimum, rel=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(14))
def test_what_is_false_is_not_proved(number: int) -> None:
    """Of a bound below the optimum neither a new proof is made nor the old one accepted; nor is one with a node left out."""
    problem, optimum, design = drawn(number)
    if optimum is None:
        return
    data = certify(problem, design, optimum).to_dict()
    for bound in (optimum * (1 - 1e-7), None):
        assert verdict({**data, "bound": bound, "design": None, "value": None}) == "refused"
    assert verdict(certify(problem, None, optimum * (1 - 1e-7)).to_dict()) != "accepted"
    assert verdict({**data, "nodes": data["nodes"][:-1]}) == "refused"


@pytest.mark.parametrize("number", range(0, 14, 3))
def test_boxes_of_another_problem_are_refused(number: int) -> None:
    """Limits that admit a better design, and items that are worth more."""
    problem, optimum, design = drawn(number)
    if optimum is None:
        return
    data = certify(problem, design, optimum).to_dict()
    values = [problem.objective(each) for each in problem.space]
    if max(values) > optimum * (1 + 1e-6):
        wider = copy.deepcopy(data)
        for own in wider["budgets"]:
            if own["limit"] > 0:  # those from below ask for a layer
                own["limit"] *= 100
        assert verdict(wider) == "refused"
    dearer = copy.deepcopy(data)
    entropies = (
        data["objective"]["parts"][3:] if data["objective"]["formula"] == "effective entropy" else data["objective"]["parts"][1:3]
    )
    for p in entropies:
        terms = dearer["parts"][p]["terms"]
        terms["rows"] = [[term and 1.01 * term for term in row] for row in terms["rows"]]
    dearer |= {"design": None, "value": None}
    assert verdict(dearer) == "refused"


def test_items_are_dropped_only_where_they_lose_enough() -> None:
    """A step whose multipliers say nothing drops nothing; one that says too much of a bound too high drops all."""
    problem, optimum, design = drawn(0)
    data = certify(problem, design, optimum).to_dict()
    assert optimum is not None
    nothing = {**data, "nodes": [{"drop": {"objective": 0}, "then": 1}, {"close": {"objective": 0}}]}
    assert verdict(nothing) == "refused"
    high = 10 * max(problem.objective(each) for each in problem.space)
    all_out = {**data, "bound": high, "nodes": [{"drop": {}, "then": 1}, {"close": {"objective": 0}}]}
    assert verdict(all_out) == "accepted"
    twice = {**data, "nodes": [{"drop": {}, "then": 1, "by": {}}, {"close": {}}]}
    with pytest.raises(check.Refused, match="box 0 has the unknown key 'by'"):
        check.check(twice)


def test_rows_that_positions_share_stand_there_once() -> None:
    problem, optimum, design = drawn(0)
    data = certify(problem, design, optimum).to_dict()
    terms = data["parts"][0]["terms"]
    assert len(terms["rows"]) == 1
    assert terms["at"] == [0] * len(problem.space.menus)
    for change, words in (
        ({"at": [0]}, "has 1 entries; expected 3"),
        ({"at": [1, 0, 0]}, "a row is not a whole number from 0 to 0"),
        ({"rows": terms["rows"] * 2}, "has a row that no position has"),
    ):
        parts = [data["parts"][0], {**data["parts"][1], "terms": {**data["parts"][1]["terms"], **change}}, *data["parts"][2:]]
        with pytest.raises(check.Refused, match=words):
            check.check({**data, "parts": parts})
