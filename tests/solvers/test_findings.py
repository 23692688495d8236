"""`design`: all answers as one value that says itself, and nothing printed on the way."""

from __future__ import annotations

import json
import signal
from dataclasses import FrozenInstanceError, dataclass, field, replace
from pathlib import Path

import pytest

from formulation import Budget, DesignProblem, EffectiveEntropy, SearchSpace
from hardware_models import Flops, Params
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import (
    DynamicProgramming,
    Exhaustive,
    Findings,
    Limits,
    Run,
    Status,
    alternatives,
    count_near,
    design,
    explain_infeasibility,
    price_of_budgets,
    solve,
)
from solvers.base import Answer
from solvers.questions.design_check import check_design
from solvers.questions.design_file import read_design

SMALL = SearchSpace.uniform(2, (256, 512), (1, 1.5), (1, 2))
FEASIBLE = DesignProblem(SMALL, EffectiveEntropy(), (Budget(Flops(), 15e9), Budget(Params(), 44e6)))
INFEASIBLE = replace(FEASIBLE, subject_to=(Budget(Flops(), 4e9), Budget(Params(), 42e6)))
EXACT = Limits(gap=0)


def test_they_are_the_answers_of_the_single_questions() -> None:
    found = design(FEASIBLE, steps=2, alternatives=2, differing=2)
    best = solve(FEASIBLE, DynamicProgramming(), EXACT)
    assert found.architecture == best.architecture
    assert (found.solution.objective, found.solution.status) == (best.objective, Status.OPTIMAL)
    assert found.prices == price_of_budgets(FEASIBLE, steps=2)
    assert found.binding == (FEASIBLE.subject_to[0],)
    series = alternatives(FEASIBLE, 3, 2)
    assert [other.architecture for other in found.others] == [other.architecture for other in series]
    assert found.alternatives == found.others[1:]
    assert best.objective is not None
    count = count_near(FEASIBLE, best.objective)
    assert found.near is not None
    assert (found.near.number, found.near.distinct, found.near.exact) == (count.number, count.distinct, True)
    assert (found.diagnosis, found.interrupted, found.met) == (None, (), False)


def test_a_conflict_is_explained() -> None:
    found = design(INFEASIBLE)
    assert (found.architecture, found.solution.status, found.prices, found.others, found.near) == (
        None,
        Status.INFEASIBLE,
        (),
        (),
        None,
    )
    assert found.diagnosis is not None
    assert found.diagnosis.conflict == explain_infeasibility(INFEASIBLE).conflict
    assert "No design meets flops ≤ 4 G FLOPs, whatever the other budgets (proved)." in str(found)
    assert "No design meets flops" in found.parts[-1]


def test_nothing_is_printed_and_progress_grows_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Findings] = []
    found = design(FEASIBLE, Exhaustive(), steps=1, alternatives=1, progress=seen.append)
    assert capsys.readouterr() == ("", "")
    assert seen[-1] == found
    assert [len(one.parts) for one in seen] == [1, 2, 3, 4]
    assert all(found.parts[: len(one.parts)] == one.parts for one in seen)
    assert str(found) == "\n".join(found.parts)
    for words in ("Proved optimal", "binds", "Alternatives, each the best", "within 0.1 % of the optimum"):
        assert words in str(found)


def test_without_alternatives_none_are_looked_for() -> None:
    found = design(FEASIBLE, steps=0, alternatives=0)
    assert found.alternatives == ()
    assert "Alternatives" not in str(found)
    assert found.to_dict(quantity_to_dict)["alternatives"]["designs"] == []


def test_they_are_data() -> None:
    found = design(FEASIBLE, steps=1, alternatives=2)
    with pytest.raises(FrozenInstanceError):
        found.near = None  # type: ignore[misc]
    record = json.loads(json.dumps(found.to_dict(quantity_to_dict)))
    assert record["solution"]["objective"] == found.solution.objective
    assert len(record["price"]) == 2
    assert found.near is not None
    assert record["near"] == {"within": 1e-3, "number": found.near.number, "exact": True, "distinct": found.near.distinct}


@dataclass(frozen=True)
class Pressed:
    """Dynamic programming during whose solve of that number Ctrl-C is pressed."""

    call: int
    calls: list[int] = field(default_factory=list, compare=False)

    name = "pressed"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        self.calls.append(len(self.calls))
        run.interrupted |= len(self.calls) == self.call
        return DynamicProgramming().search(problem, Run(run.limits))


def test_what_ctrl_c_ended_is_said_and_the_rest_follows() -> None:
    counter = Pressed(0)
    design(FEASIBLE, counter, steps=1, alternatives=1)
    for call, part in ((1, "the search for a design"), (2, "the prices"), (len(counter.calls), "the alternatives")):
        found = design(FEASIBLE, Pressed(call), steps=1, alternatives=1)
        assert found.interrupted == (part,)
        assert found.near is not None
        assert found.architecture == solve(FEASIBLE, DynamicProgramming(), EXACT).architecture


def test_ctrl_c_between_the_searches_loses_nothing() -> None:
    seen: list[Findings] = []

    def press(findings: Findings) -> None:
        seen.append(findings)
        if len(seen) == 1:
            signal.raise_signal(signal.SIGINT)

    found = design(FEASIBLE, steps=1, alternatives=1, progress=press)
    assert found.interrupted == ("the prices",)
    assert len(found.parts) == 4
    assert found.near is not None


def test_a_minimum_and_its_slack_are_said_in_its_own_words(tmp_path: Path) -> None:
    problem = DesignProblem(SMALL, minimize=(Params(),), subject_to=(Budget(Flops(), at_least=1e8),))
    found = design(problem, steps=0, alternatives=0)
    path = tmp_path / "design.json"
    path.write_text(json.dumps(found.to_dict(quantity_to_dict)))
    checked = check_design(read_design(path, quantity_from_dict), DynamicProgramming(), 60.0)
    assert checked.faults == ()
    assert "No design has less than the stored bound." in checked.agreed[1]
    smallest = min(map(Params(), SMALL))
    assert found.prices[0].slack == max(Flops()(each) for each in SMALL if Params()(each) == smallest) - 1e8
    assert f"({100 * found.prices[0].slack / 1e8:,.0f} %)" in str(found)


@pytest.mark.parametrize("mistake", [{"steps": -1}, {"alternatives": -1}, {"differing": 0}, {"differing": 7}, {"steps": True}])
def test_numbers_out_of_range(mistake: dict[str, int]) -> None:
    (name,) = mistake
    with pytest.raises(ValueError, match=name):
        design(FEASIBLE, **mistake)


def test_a_long_design_is_in_order_where_the_order_makes_no_difference() -> None:
    space = SearchSpace.uniform(9, (128,), ffn_widths=(128, 256, 512), heads=(1, 2), family="llama", vocabulary=100)
    problem = DesignProblem(space, EffectiveEntropy(), (Budget(Params(), 1.6e6),))
    found = design(problem, steps=0, alternatives=0)
    assert found.solution.status is Status.OPTIMAL
    shapes = [(block.ffn_width, block.heads) for block in found.architecture.blocks]
    assert shapes == sorted(shapes)
    assert len(set(shapes)) > 1
    assert found.solution.objective == problem.objective(found.architecture)
    assert found.solution.objective == pytest.approx(solve(problem, DynamicProgramming(), EXACT).objective, rel=1e-12)
    assert any(line.split()[1:2] == ["to"] for line in str(found).splitlines())
