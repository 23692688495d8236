"""CP-SAT: its integer programs relax the choice form, its proofs are right, and it stops, repeats and refuses as it should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from formulation import (
    Budget,
    DesignProblem,
    EffectiveEntropy,
    Measured,
    NotSeparable,
    deep_space,
    fine_space,
    paper_space,
    tabulate,
)
from hardware_models import Flops, Params
from solvers import EngineMissing, Highs, Limits, Status, solve
from solvers.programs import cp_sat
from solvers.programs.cp_sat import CpSat, integer_program, whole_row
from solvers.programs.linear_form import LinearForm
from tests.interrupting import interrupt_search
from tests.solvers.test_soundness import SPACE, Drawn
from tests.toys import RandomCost, toy

pytest.importorskip("ortools")


def test_the_paper_space_is_solved_to_proof() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    solution = solve(problem, CpSat(), Limits(seconds=60))
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(23_104.92, abs=0.01)


@pytest.mark.parametrize("number", range(30))
def test_rows_in_whole_numbers_err_by_no_more_than_their_slack(number: int) -> None:
    given = toy(number)
    form = LinearForm(given.problem)
    if not form.possible:
        return
    table = tabulate([RandomCost(number)], given.problem.space)
    total = form.total(form.terms(table, 0), 0.25, 10.0)
    program, _ = form.program(total, [form.scaled(total, -np.inf, 30.0)])
    integer = integer_program(program)
    for design in given.designs:
        z = form.point(design)
        if np.any(z > program.upper):
            continue  # an item that exceeds a budget by itself
        for row, (columns, whole, low, high) in zip(program.rows, integer.rows, strict=True):
            # What the real row admits, the whole one admits, and hardly anything else.
            activity = float(row.coefficients @ z[row.columns])
            size = np.abs(row.coefficients).max(initial=0.0)
            if row.low <= activity <= row.high:
                assert low <= np.dot(whole, z[columns]) <= high
            elif not row.low - 1e-7 * size <= activity <= row.high + 1e-7 * size:
                assert not low <= np.dot(whole, z[columns]) <= high
        value = float(program.objective @ z)
        bound = integer.bound(int(np.dot(integer.objective.whole, z)))
        assert value <= bound + 1e-9
        assert bound <= value + 1e-7 * program.objective.max(initial=0.0) + 1e-9


def test_whole_number_budgets_stay_whole() -> None:
    form = LinearForm(DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 55e6))))
    assert len(form.budgets) == 2
    for budget in form.budgets.values():
        row = whole_row(budget.coefficients, 8)
        assert (row.exponent, row.slack) == (0, 0.0)
        assert np.gcd.reduce(row.whole) == 1
        assert budget.high % 1 == 0.5


def test_a_time_limit_leaves_a_valid_bound() -> None:
    problem = DesignProblem(fine_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    for seconds in (0.5, 1.5, 3.0):
        solution = solve(problem, CpSat(), Limits(seconds=seconds))
        assert solution.bound is None or solution.bound >= 23_387.679
        assert solution.status is Status.OPTIMAL or "time limit" in solution.message


def test_ctrl_c_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = tuple(Budget(RandomCost(seed), 30.0) for seed in (2, 3, 4))
    interrupt_search(monkeypatch, at_look=10**9)
    solution = solve(DesignProblem(deep_space(), RandomCost(1), budgets), CpSat(), Limits(seconds=3600))
    assert solution.interrupted
    assert solution.status is Status.FEASIBLE
    assert solution.bound is not None
    assert solution.bound >= 36.366


def test_the_start_is_never_lost_and_runs_repeat() -> None:
    given = toy(0)
    best = given.designs[int(np.where(given.feasible, given.objectives, -np.inf).argmax())]
    first, second = (solve(given.problem, CpSat(), Limits(start=best, seed=2**40)) for _ in range(2))
    assert first.status is Status.OPTIMAL
    assert first.objective == pytest.approx(given.optimum, rel=1e-12)
    assert (first.architecture, first.bound, first.message) == (second.architecture, second.bound, second.message)


def test_it_lives_beside_highs() -> None:
    """Their wheels cannot be loaded into one process."""
    given = toy(1)
    for solver in (CpSat(), Highs(), CpSat()):
        assert solve(given.problem, solver, Limits(seconds=60)).objective == pytest.approx(given.optimum, rel=1e-6)
    assert "ortools.sat.python.cp_model" not in sys.modules


def test_what_it_cannot_hold_is_refused() -> None:
    black_box = Measured("latency", "s", lambda design: 1.0)
    with pytest.raises(NotSeparable, match="EvolutionaryAlgorithm"):
        solve(DesignProblem(SPACE, black_box), CpSat())
    with pytest.raises(NotSeparable, match="DynamicProgramming"):
        solve(DesignProblem(SPACE, Drawn(0, maximum=True)), CpSat())


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools", None)
    with pytest.raises(EngineMissing, match="pip install ortools"):
        solve(DesignProblem(SPACE, Params()), CpSat())


def test_an_engine_that_dies_proves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(cp_sat, "_PROCESS", script)
    # Two budgets leave a gap to our own bounds, so that the engine is needed.
    budgets = tuple(Budget(RandomCost(seed), 30.0) for seed in (2, 3, 4))
    solution = solve(DesignProblem(deep_space(), RandomCost(1), budgets), CpSat())
    assert solution.status is Status.FEASIBLE
    assert "ended without an answer" in solution.message
