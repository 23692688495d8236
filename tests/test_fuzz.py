"""A short run of the command that fuzzes the solvers, and the command itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from formulation import FAMILIES, DesignProblem
from solvers import Limits, Solution, Status, solve
from tests import fuzz

SOLVERS = ("automatic", "dp", "exhaustive", "highs")
LIMIT_S = 10.0
"""Of one solver and problem. On a slow machine less is proved, which is not a false claim."""


@pytest.mark.parametrize("seed", [*range(40), 30_120])  # the last: a budget of 5e-324
def test_no_solver_contradicts_brute_force(seed: int) -> None:
    assert fuzz.check(seed, SOLVERS, LIMIT_S, {name: fuzz.Tally() for name in SOLVERS}) == []


@pytest.mark.parametrize("seed", [30_183, 30_197])
def test_a_composite_budget_of_nothing(seed: int) -> None:
    """Its row once had coefficients beyond what SCIP takes for infinity."""
    names = ("scip",)
    assert fuzz.check(seed, names, LIMIT_S, {name: fuzz.Tally() for name in names}) == []


def test_problems_are_of_every_kind_and_repeat() -> None:
    problems = [fuzz.random_problem(seed) for seed in range(60)]
    assert repr(problems) == repr([fuzz.random_problem(seed) for seed in range(60)])
    kinds = {type(quantity).__name__ for problem, _ in problems for quantity in problem.quantities}
    assert {"Terms", "Placed", "EffectiveEntropy", "BlockwiseEntropy", "Product", "Ratio", "Mixture", "Measured"} <= kinds
    parts = [part for problem, _ in problems for part in problem.space.parts]
    assert {part.blocks for part in parts} == {1, 2, 3, 4}
    assert {part.non_decreasing for part in parts} == {True, False}
    assert {len(problem.space.parts) for problem, _ in problems} == {1, 2, 3}
    assert {part.family for part in parts} == set(FAMILIES)
    assert {name for part in parts for menu in part.menus for name in menu.axes} >= {"heads", "kv_heads", "gated", "shared", "bits"}
    truths = [fuzz.truth_of(problem) for problem, _ in problems]
    assert 5 <= sum(truth.possible is None for truth in truths) <= 30
    assert any(budget.upper == 0 for problem, _ in problems for budget in problem.subject_to)


def solved(least: bool) -> tuple[DesignProblem, Solution]:
    """The first random problem of that sense that has a design, and budgets, none of them from below."""
    problems = (fuzz.random_problem(seed)[0] for seed in count())
    wanted = (one for one in problems if one.least is least and one.subject_to and all(b.upper is not None for b in one.subject_to))
    pairs = ((problem, solve(problem, fuzz.SOLVERS["exhaustive"])) for problem in wanted)
    return next((problem, solution) for problem, solution in pairs if solution.architecture is not None)


@pytest.mark.parametrize("least", [False, True])
def test_a_false_claim_is_seen(least: bool) -> None:
    problem, solution = solved(least)
    truth, sign = fuzz.truth_of(problem), -1 if least else 1
    assert solution.status is Status.OPTIMAL
    assert fuzz.false_claims(problem, Limits(), truth, solution) == []
    assert solution.objective is not None
    worst = min(problem.space, key=lambda design: sign * fuzz.value_of(problem.goal, design).exact)
    low = solution.objective - sign * 1e-5 * abs(solution.objective)
    high = solution.objective + sign * (abs(solution.objective) + 1)
    for false, said in (
        (replace(solution, status=Status.INFEASIBLE, architecture=None, objective=None, bound=None), "false INFEASIBLE"),
        (replace(solution, status=Status.UNKNOWN, architecture=None, objective=None, bound=low), "the bound is"),
        (replace(solution, architecture=worst, objective=problem.objective(worst)), "false OPTIMAL"),
        (replace(solution, objective=low), "that of the design"),
        (replace(solution, status=Status.UNKNOWN), "UNKNOWN with the design"),
        (replace(solution, bound=None), "with the bound None"),
        (replace(solution, trace=(replace(solution.trace[-1], bound=low),)), "the bound in the trace"),
        (replace(solution, trace=(replace(solution.trace[-1], incumbent=high),)), "an incumbent"),
    ):
        assert any(said in claim for claim in fuzz.false_claims(problem, Limits(), truth, false)), said


@pytest.mark.parametrize("least", [False, True])
def test_a_tighter_budget_makes_the_design_a_false_one(least: bool) -> None:
    problem, solution = solved(least)
    spent = max(solution.usage, key=lambda usage: usage.value)
    budgets = [replace(b, upper=0.5 * spent.value) if b.quantity.name == spent.name else b for b in problem.subject_to]
    tighter = replace(problem, subject_to=tuple(budgets))
    assert any("exceeds" in claim for claim in fuzz.false_claims(tighter, Limits(), fuzz.truth_of(tighter), solution))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--problems", "3", "--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert "3 problems, seeds 5 to 7, 0 failures" in said
    assert [line.split()[0] for line in said.splitlines()[2:4]] == ["dp", "exhaustive"]
    with pytest.raises(SystemExit) as ended:
        fuzz.main(["--solvers", "dp,gurobi"])
    assert ended.value.code == 2
    assert "unknown solvers gurobi" in capsys.readouterr().err


def test_the_command_ends_with_1_after_a_false_claim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fuzz, "truth_of", lambda problem: fuzz.Truth(fuzz.Value(1e300, 0.0), fuzz.Value(1e300, 0.0)))
    assert fuzz.main(["--problems", "2", "--solvers", "dp"]) == 1
    assert "seed 0 dp: " in capsys.readouterr().out
