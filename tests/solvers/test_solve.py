"""`solve` itself: limits, interruption, re-checking, bad arguments, engines that are missing."""

from __future__ import annotations

import importlib
import itertools
import math
from dataclasses import dataclass

import pytest

from formulation import (
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    deep_space,
    fine_space,
    paper_space,
)
from hardware_models import Flops, Params
from solvers import (
    Answer,
    Cbc,
    DynamicProgramming,
    EngineMissing,
    EvolutionaryAlgorithm,
    Exhaustive,
    GeneticAlgorithm,
    Highs,
    Limits,
    RandomSearch,
    Run,
    Scip,
    Status,
    design,
    solve,
)
from solvers.programs.cbc import read_log
from tests.interrupting import interrupt_search

SPACE = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
PROBLEM = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 40e9),))
DEEP = DesignProblem(deep_space(), EffectiveEntropy(), (Budget(Flops(), 110e9), Budget(Params(), 60e6)))
WIDE = DesignProblem(deep_space(), EffectiveEntropy(), (Budget(Flops(), 160e9), Budget(Params(), 58e6)))
FINE = DesignProblem(fine_space(), EffectiveEntropy(), (Budget(Flops(), 110e9),))
ENDLESS = [
    Exhaustive(),
    DynamicProgramming(),
    EvolutionaryAlgorithm(iterations=10**9),
    GeneticAlgorithm(evaluations=10**9),
    RandomSearch(samples=10**12),
    Scip(),
    Highs(),
    Cbc(),
]


@dataclass(frozen=True)
class Liar:
    """A solver that claims whatever it was told to."""

    claim: Answer

    name = "liar"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        return self.claim


def best_design() -> Architecture:
    design = solve(PROBLEM, Exhaustive()).architecture
    assert design is not None
    return design


def test_a_bound_below_its_own_design_is_discarded() -> None:
    value = PROBLEM.maximize(best_design())
    solution = solve(PROBLEM, Liar(Answer(best_design(), bound=0.9 * value)))
    assert solution.status is Status.FEASIBLE
    assert solution.bound is None
    assert "discarded" in solution.message


def test_a_design_over_budget_is_discarded() -> None:
    big = Architecture((Block(640, 1280, 3), Block(640, 1280, 3)))
    solution = solve(PROBLEM, Liar(Answer(big, bound=1e9)))
    assert solution.status is Status.UNKNOWN
    assert solution.architecture is None
    assert "does not meet flops" in solution.message


def test_a_design_outside_the_space_is_discarded() -> None:
    solution = solve(PROBLEM, Liar(Answer(Architecture((Block(64, 64, 1),)))))
    assert solution.status is Status.UNKNOWN
    assert "outside the space" in solution.message


def test_infeasible_is_not_believed_beside_a_design() -> None:
    solution = solve(PROBLEM, Liar(Answer(best_design(), infeasible=True)))
    assert solution.status is Status.FEASIBLE
    start = solve(PROBLEM, Liar(Answer(None, infeasible=True)), Limits(start=best_design()))
    assert start.status is Status.FEASIBLE


def test_a_bound_that_is_not_a_number_proves_nothing() -> None:
    assert solve(PROBLEM, Liar(Answer(best_design(), bound=math.nan))).status is Status.FEASIBLE
    assert solve(PROBLEM, Liar(Answer(best_design(), bound=math.inf))).status is Status.FEASIBLE


@pytest.mark.parametrize("solver", ENDLESS, ids=lambda solver: solver.name)
def test_time_limit_keeps_incumbent_and_valid_bound(solver: object) -> None:
    solution = solve(DEEP, solver, Limits(seconds=2.0))  # type: ignore[arg-type]
    assert solution.status in (Status.FEASIBLE, Status.UNKNOWN, Status.OPTIMAL)
    assert solution.status is Status.OPTIMAL or "time limit" in solution.message
    if solution.bound is not None:
        reference = solve(DEEP, EvolutionaryAlgorithm(iterations=3000))
        assert reference.objective is not None
        assert solution.bound >= reference.objective * (1 - 1e-9)


@pytest.mark.parametrize(
    "solver", [s for s in ENDLESS if not isinstance(s, Cbc | DynamicProgramming)], ids=lambda solver: solver.name
)
def test_control_c_stops_with_the_incumbent(solver: object, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_search(monkeypatch)
    solution = solve(WIDE, solver, Limits(seconds=3600))  # type: ignore[arg-type]
    assert solution.interrupted
    assert "interrupted" in solution.message
    assert solution.status in (Status.FEASIBLE, Status.UNKNOWN)


@pytest.mark.parametrize("at_look", [1, 10, 100])
def test_control_c_stops_dynamic_programming(at_look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_search(monkeypatch, at_look)
    solution = solve(WIDE, DynamicProgramming(), Limits(seconds=3600))
    assert solution.interrupted
    assert solution.status in (Status.FEASIBLE, Status.UNKNOWN)
    assert solution.bound is None or solution.objective is None or solution.bound >= solution.objective


@pytest.mark.parametrize(
    "solver", [Exhaustive(), EvolutionaryAlgorithm(), RandomSearch(), GeneticAlgorithm()], ids=lambda s: s.name
)
def test_evaluation_limit(solver: object) -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 160e9),))
    solution = solve(problem, solver, Limits(evaluations=3000))  # type: ignore[arg-type]
    assert solution.status is Status.FEASIBLE
    assert solution.evaluations < 3000 + 40_000
    assert "evaluation limit" in solution.message or isinstance(solver, RandomSearch)


def test_a_wide_gap_is_honoured() -> None:
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 110e9),))
    solution = solve(problem, DynamicProgramming(), Limits(gap=0.05))
    assert solution.status is Status.OPTIMAL
    assert solution.gap is not None
    assert solution.gap <= 0.05


def test_an_infeasible_start_is_left_out() -> None:
    big = Architecture((Block(640, 1280, 3), Block(640, 1280, 3)))
    solution = solve(PROBLEM, DynamicProgramming(), Limits(start=big))
    assert solution.status is Status.OPTIMAL
    assert "the start does not meet flops" in solution.message


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="solver record such as DynamicProgramming"):
        solve(PROBLEM, DynamicProgramming)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a DesignProblem"):
        solve("problem", DynamicProgramming())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"limits is 5; expected Limits such as"):
        solve(PROBLEM, DynamicProgramming(), 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a DesignProblem"):
        design("problem")  # type: ignore[arg-type]
    for limits in (
        {"seconds": 0},
        {"seconds": math.nan},
        {"evaluations": 0},
        {"gap": -1},
        {"gap": math.nan},
        {"seed": -1},
        {"seed": 0.5},
    ):
        with pytest.raises(ValueError, match="expected"):
            Limits(**limits)
    with pytest.raises(ValueError, match="blocks"):
        solve(PROBLEM, DynamicProgramming(), Limits(start=Architecture((Block(64, 64, 1),))))


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name == "cbcbox":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(EngineMissing, match="pip install"):
        solve(PROBLEM, Cbc())


def test_cbc_log_is_read_and_not_believed_beyond_what_it_says() -> None:
    stopped = read_log(
        "Result - Stopped on time limit\nObjective value:                43093.159958\nUpper bound:                    43495\n"
    )
    assert stopped.found
    assert not stopped.finished
    assert stopped.bound is not None
    assert 43495.4 <= stopped.bound <= 43497
    optimal = read_log("Result - Optimal solution found\nObjective value:                43093.159958\n")
    assert (optimal.bound, optimal.finished) == (43093.159958, True)
    assert read_log("Result - Problem proven infeasible\nNo feasible solution found\n").bound == -math.inf
    for text in ("", "Result - Stopped on time limit\nObjective value:  12\n", "Upper bound:  nonsense\n", "Upper bound:  1e+50\n"):
        assert read_log(text).bound is None
        assert not read_log(text).finished


def test_trace_bounds_fall_and_incumbents_rise() -> None:
    for solver in (DynamicProgramming(), Highs(), Scip()):
        problem = DesignProblem(
            SearchSpace.uniform(3, (512, 640, 768), (1, 2), (1, 2, 3)), EffectiveEntropy(), (Budget(Flops(), 60e9),)
        )
        trace = solve(problem, solver, Limits(seconds=30)).trace
        bounds = [point.bound for point in trace if point.bound is not None]
        found = [point.incumbent for point in trace if point.incumbent is not None]
        assert bounds == sorted(bounds, reverse=True)
        assert all(b >= a * (1 - 1e-6) for a, b in itertools.pairwise(found))
        assert [point.seconds for point in trace] == sorted(point.seconds for point in trace)


def test_provenance_tells_problems_apart() -> None:
    first, second = solve(PROBLEM, Exhaustive()), solve(DesignProblem(SPACE, EffectiveEntropy(rho=0.02)), Exhaustive())
    assert first.provenance.problem_sha256 != second.provenance.problem_sha256
    assert first.provenance.versions["numpy"]
