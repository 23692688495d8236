"""Searches obey `Limits.memory`, and what does not fit the process's memory ends them with a design and a valid bound."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from formulation import Budget, DesignProblem, SearchSpace, Separable
from solvers import DynamicProgramming, Exhaustive, Limits, Run, Status, count_designs, solve
from solvers.base import Answer
from solvers.exact import dynamic_programming, exhaustive
from solvers.incumbent import quick_incumbent
from tests.fuzz import false_claims, truth_of
from tests.solvers.test_dynamic_programming import medium
from tests.toys import table_problem, toy

MEBIBYTE = 1 << 20
CHILD = """
import json, resource, sys
from formulation import Budget, DesignProblem, EffectiveEntropy, SearchSpace, deep_space
from hardware_models import Flops, Memory, Params
from solvers import Limits, solve
from solvers.names import SOLVERS
from tests.toys import table_problem

name, solver, room, memory, seconds = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
wide = SearchSpace.uniform(24, range(256, 1025, 64), (1, 1.5, 2, 3, 4), range(1, 7))
problem = {
    "random": lambda: table_problem(24, 45, 3, seed=1),
    "additive": lambda: table_problem(80, 16, 4, seed=1),
    "blocks": lambda: DesignProblem(wide, EffectiveEntropy(beta=1 / 128), (Budget(Flops(), 5e11),)),
    "many budgets": lambda: DesignProblem(
        wide, EffectiveEntropy(beta=1 / 128), (Budget(Flops(), 5e11), Budget(Params(), 5e8), Budget(Memory(), 2e9))
    ),
    "deep": lambda: DesignProblem(deep_space(), EffectiveEntropy(), (Budget(Flops(), 300e9), Budget(Params(), 70e6))),
}[name]()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(room), -1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
solution = solve(problem, SOLVERS[solver].solver, Limits(seconds=seconds, memory=int(memory)))
used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([solution.status.value, solution.objective, solution.bound, solution.message, used]))
"""


def searched_within(name: str, solver: str, room: int, memory: int, seconds: float) -> tuple[str, float, float, str, int]:
    """Status, objective, bound, message and bytes taken of a search in a process that may take `room` bytes more than before it."""
    arguments = [sys.executable, "-c", CHILD, name, solver, str(room), str(memory), str(seconds)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, objective, bound, message, used = json.loads(done.stdout)
    return status, objective, bound, message, used


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
@pytest.mark.parametrize("name", ["random", "additive", "blocks", "many budgets", "deep"])
def test_an_exact_search_takes_no_more_than_it_may(name: str) -> None:
    status, objective, bound, message, used = searched_within(name, "dp", 256 * MEBIBYTE, 128 * MEBIBYTE, 3.0)
    assert status in ("optimal", "feasible")
    assert bound >= objective * (1 - 1e-12)
    assert "memory" not in message
    assert used <= 128 * MEBIBYTE


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
@pytest.mark.parametrize("solver", ["dp", "exhaustive"])
def test_a_process_without_the_memory_ends_with_what_it_has(solver: str) -> None:
    status, objective, bound, message, _ = searched_within("additive", solver, 48 * MEBIBYTE, 64 << 30, 30.0)
    assert status == "feasible"
    assert "memory used up" in message
    assert bound is None if solver == "exhaustive" else bound >= objective


def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every limit left a share of the memory that holds next to nothing."""
    for name in ("_TABLES", "_COMPLETIONS", "_OPEN_LABELS", "_MADE_LABELS"):
        monkeypatch.setattr(dynamic_programming, name, 0.0)
    monkeypatch.setattr(exhaustive, "_WAITING", 0.0)


@pytest.mark.parametrize("solver", [DynamicProgramming(beam=2), Exhaustive()], ids=lambda solver: solver.name)
@pytest.mark.parametrize("number", range(8))
def test_parts_of_the_least_size_lose_no_design(monkeypatch: pytest.MonkeyPatch, number: int, solver: Any) -> None:
    small_memory(monkeypatch)
    given = toy(number)
    solution = solve(given.problem, solver, Limits(gap=0))
    assert solution.objective == (None if given.optimum is None else pytest.approx(given.optimum, rel=1e-12))
    assert solution.status is (Status.INFEASIBLE if given.optimum is None else Status.OPTIMAL)


@pytest.mark.parametrize("number", [1, 2])
def test_labels_wait_in_the_room_that_there_is(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Fewer labels at a time take less memory, and prove the same."""
    problem = medium(number)
    truth = solve(problem, DynamicProgramming(beam=1), Limits(gap=0))
    most = []
    for share in (1 / 8, 0.0):
        held: list[int] = []
        extend = dynamic_programming._Search._extend

        def watched(self: Any, labels: Any, *rest: Any, held: list[int] = held, extend: Any = extend) -> Any:
            extended, done = extend(self, labels, *rest)
            held.append(len(extended))
            return extended, done

        monkeypatch.setattr(dynamic_programming._Search, "_extend", watched)
        monkeypatch.setattr(dynamic_programming, "_OPEN_LABELS", share)
        solution = solve(problem, DynamicProgramming(beam=1), Limits(gap=0))
        monkeypatch.setattr(dynamic_programming._Search, "_extend", extend)
        assert (solution.status, solution.objective) == (truth.status, pytest.approx(truth.objective, rel=1e-12))
        most.append(max(held))
    assert most[1] < most[0]


@pytest.mark.parametrize("failing", ["tabulate", "depth_boxes", "narrow_parts", "LagrangianBound", "ResourceBound", "_merged"])
def test_wherever_memory_runs_out_what_is_claimed_is_true(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Each of the first calls of each step of the search is the one that runs out of memory."""
    ended = set()
    for number in (0, 3):
        given = toy(number)
        problem, truth = given.problem, truth_of(given.problem)
        for last in range(4):
            left, plain = [last], getattr(dynamic_programming, failing)

            def short(*arguments: Any, left: list[int] = left, plain: Any = plain, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise MemoryError
                return plain(*arguments, **options)

            with monkeypatch.context() as patch:
                patch.setattr(dynamic_programming, failing, short)
                solution = solve(problem, DynamicProgramming(beam=1), Limits(gap=0))
                ran_out = left[0] < 0
                left[0] = last
                count = count_designs(problem, 0.0)
            total = int(given.feasible.sum())
            assert count.number == total if count.exact else count.number <= total
            assert left[0] < 0 or count.exact
            assert false_claims(problem, Limits(gap=0), truth, solution) == []
            assert ran_out == ("memory used up" in solution.message)
            assert failing == "tabulate" or solution.bound is not None or solution.status is Status.INFEASIBLE
            ended.add(ran_out)
    assert True in ended


def test_an_incumbent_is_done_without_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    given = next(each for each in map(toy, range(50)) if each.optimum is not None)
    run, start = Run(Limits()), next(design for design, kept in zip(given.designs, given.feasible, strict=True) if kept)

    def short(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("solvers.incumbent.Tabulated", short)
    assert quick_incumbent(given.problem, run) is None
    assert quick_incumbent(given.problem, Run(Limits(start=start))) == start
    assert not run.stopped


@pytest.mark.parametrize("number", [0, 3, 8])
def test_prices_tried_one_at_a_time_find_the_same_incumbent(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    problem = toy(number).problem
    together = quick_incumbent(problem, Run(Limits()))
    monkeypatch.setattr("solvers.incumbent._VALUED", 0.0)
    assert quick_incumbent(problem, Run(Limits())) == together


class _Short(Separable):
    """A quantity whose terms take more memory than there is."""

    name, unit = "short", "1"

    def block(self, block: Any, setting: Any) -> float:
        return float(block.depth)


def test_a_solver_that_runs_out_of_memory_is_answered_for() -> None:
    class Greedy:
        name, distributions = "greedy", ()

        def search(self, problem: DesignProblem, run: Run) -> Answer:
            run.record(None, 100.0)
            raise MemoryError

    problem = DesignProblem(SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2)), _Short(), (Budget(_Short(), 3),))
    solution = solve(problem, Greedy())
    assert (solution.status, solution.bound, solution.message) == (Status.UNKNOWN, 100.0, "memory used up in the search")


def test_tables_are_cut_into_fewer_steps_where_memory_is_short() -> None:
    problem = table_problem(12, 8, 1, seed=0)
    steps = []
    for memory in (MEBIBYTE, 2 << 30):
        search = dynamic_programming._Search(problem, Run(Limits(memory=memory)), DynamicProgramming())
        size, fitting = search._batch(search._boxes(), 1 << 15)
        assert size >= 1
        steps.append(fitting)
    assert steps[0] < steps[1] == 1 << 15
    bound = solve(problem, DynamicProgramming(), Limits(memory=MEBIBYTE)).bound
    assert bound is not None
