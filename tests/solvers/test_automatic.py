"""The solver that is used where none is named: what it chooses, that it says so, and that two searches prove what one does."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from formulation import Agreement, Budget, Combine, DesignProblem, EffectiveEntropy, Measured, Menu, SearchSpace, Separable
from formulation.architecture import Setting
from formulation.problem_file import SPACES
from formulation.score_table import Column, OptionMenu, OptionSpace
from formulation.union import united
from hardware_models import Flops, Params, quantity_to_dict
from solvers import (
    Automatic,
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    Highs,
    Limits,
    Run,
    Status,
    design,
    explain_infeasibility,
    price_of_budgets,
    solve,
)
from solvers import automatic as module
from solvers import rival as rivals
from solvers.automatic import Choice, choices
from solvers.base import Answer, Solver
from solvers.rival import rival
from tests.toys import table_problem, toy


@dataclass(frozen=True)
class Depth(Separable):
    """Σ_i i·L_i, or max_i L_i: a quantity that distinguishes positions, and one that does not."""

    maximum: bool = False

    name, unit = "depth", "layers"

    @property
    def combine(self) -> Combine:  # type: ignore[override]
        return Combine.MAX if self.maximum else Combine.SUM

    @property
    def positional(self) -> bool:
        return not self.maximum

    def block(self, block: Any, setting: Setting) -> float:
        return float(block.depth)

    def block_at(self, position: int, block: Any, setting: Setting) -> float:
        return float((1 if self.maximum else position + 1) * block.depth)


def space(blocks: int, widths: tuple[int, ...] = (512, 640, 768)) -> SearchSpace:
    return SearchSpace.uniform(blocks, widths, (1, 2, 4), (1, 2, 3))


def problem_of(blocks: int, **changes: Any) -> DesignProblem:
    given = DesignProblem(space(blocks), EffectiveEntropy(), (Budget(Flops(), blocks * 20e9),))
    return replace(given, **changes)


def called(name: str = "latency") -> Measured:
    return Measured(name, "s", lambda design: float(sum(design.depths)))


@cache
def preset() -> SearchSpace:
    return SPACES["smollm2-135m-layers"]()


def chosen(problem: DesignProblem) -> list[str]:
    return [choice.solver.name for choice in choices(problem)]


def test_each_structure_has_its_solver() -> None:
    assert chosen(table_problem(20, 8, 2, seed=0))[0] == "reduction"
    assert chosen(DesignProblem(preset(), EffectiveEntropy(), (Budget(Params(), 1e8),)))[0] == "counts"
    assert chosen(problem_of(12))[0] == "counts"
    assert chosen(problem_of(5)) == ["dynamic programming", "dynamic programming"]
    assert chosen(problem_of(2)) == ["exhaustive"]
    mixed = SearchSpace(tuple(Menu((512, 640, 768 + 64 * (i % 2)), (1, 2, 4), (1, 2, 3)) for i in range(12)))
    assert chosen(replace(problem_of(12), space=mixed)) == ["dynamic programming"]
    assert chosen(replace(problem_of(12), subject_to=(Budget(Depth(), 100),))) == ["dynamic programming"]
    assert chosen(problem_of(1, maximize=called())) == ["exhaustive"]
    assert chosen(problem_of(6, subject_to=(Budget(called(), 9),))) == ["evolutionary (paper)"]


def test_a_rival_is_named_where_two_may_lie_close() -> None:
    few, linear = choices(problem_of(5)), choices(DesignProblem(space(12), Depth(), (Budget(Flops(), 2e11),)))
    assert [choice.rival and choice.rival.name for choice in few] == ["counts", None]
    assert [choice.rival and choice.rival.name for choice in linear] == ["HiGHS"]


@pytest.mark.parametrize(
    ("problem", "solver", "why"),
    [
        (table_problem(10, 5, 2, seed=3), "reduction", "adds up over 10 positions"),
        (problem_of(2), "exhaustive", "the space has"),
        (problem_of(5), "dynamic programming", "its 5 blocks are few"),
        (problem_of(10), "counts", "its 10 blocks are alike"),
        (problem_of(3, maximize=Depth(), subject_to=(Budget(Flops(), 1e11),)), "exhaustive", "designs"),
    ],
)
def test_the_message_says_which_and_why_and_the_optimum_is_that_of_another(problem: DesignProblem, solver: str, why: str) -> None:
    solution, other = solve(problem), solve(problem, DynamicProgramming())
    assert solution.message.startswith(f"chose {solver}, since ")
    assert why in solution.message
    assert solution.status is other.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(other.objective, rel=2e-6)
    assert solution.provenance.solver.startswith("Automatic(processes=2) → ")
    assert solve(problem, limits=Limits()).objective == pytest.approx(solution.objective, rel=2e-6)


def test_black_boxes_are_enumerated_where_they_are_few_and_else_bred_without_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(1, subject_to=(Budget(called(), 2),))
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.message.startswith("chose exhaustive, since latency can only be called")
    monkeypatch.setattr(module, "_CALLED", 0)
    bred = solve(problem, limits=Limits(evaluations=500))
    assert (bred.status, bred.bound) == (Status.FEASIBLE, None)
    assert "it proves nothing" in bred.message
    assert repr(EvolutionaryAlgorithm()) in bred.provenance.solver


def test_what_its_terms_refuse_goes_to_the_next_solver() -> None:
    """Steps are free here, but joints cost: reduction finds that out only from the table."""
    free = SearchSpace.uniform(5, (512, 640, 768), (1, 2, 4), (1, 2, 3), non_decreasing=False)
    problem = DesignProblem(free, Depth(), (Budget(Params(), 4e7),))
    assert chosen(problem) == ["reduction", "dynamic programming"]
    solution = solve(problem)
    assert solution.message.startswith("chose dynamic programming, since its 5 blocks are a chain")
    assert solution.objective == solve(problem, DynamicProgramming()).objective


def test_each_part_of_a_union_gets_its_own_solver() -> None:
    problem = replace(problem_of(5), space=united((space(5), space(2))))  # type: ignore[arg-type]  # a union of spaces
    solution = solve(problem)
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(solve(problem, DynamicProgramming()).objective, rel=2e-6)
    assert "chose exhaustive, since the space has 729" in solution.message or solution.message.endswith("closed by its bound")
    assert "chose dynamic programming, since its 5 blocks are few" in solution.message
    assert DynamicProgramming().name in solution.chosen


def test_minimizing_and_infeasibility_are_settled_too() -> None:
    least = DesignProblem(space(4), minimize=(Params(),), subject_to=(Budget(EffectiveEntropy(), at_least=15_000.0),))
    assert solve(least).objective == solve(least, DynamicProgramming()).objective
    nothing = problem_of(4, subject_to=(Budget(Flops(), 1e6),))
    assert solve(nothing).status is Status.INFEASIBLE


def test_a_cutoff_is_passed_on() -> None:
    problem = problem_of(5)
    best = solve(problem, DynamicProgramming()).objective
    assert best is not None
    answer = Automatic().search(problem, Run(Limits(), cutoff=best * 1.01))
    assert answer.architecture is None
    assert answer.bound == pytest.approx(best * 1.01)


def test_dynamic_programming_heeds_a_cutoff_that_rises_meanwhile() -> None:
    problem, run = problem_of(5), Run(Limits())
    best = solve(problem, DynamicProgramming()).objective
    assert best is not None
    run.on_record = lambda point: setattr(run, "cutoff", best * 1.01)
    answer = DynamicProgramming().search(problem, run)
    assert answer.bound == pytest.approx(best * 1.01)


def test_questions_ask_it_unless_told_otherwise() -> None:
    problem = problem_of(3)
    found = design(problem, steps=1, alternatives=1)
    assert found.solution.message.startswith("chose exhaustive")
    assert found.to_dict(quantity_to_dict)["provenance"]["solver"] == f"{Automatic()!r} → {Exhaustive()!r}"
    assert price_of_budgets(problem, steps=1)[0].binds == price_of_budgets(problem, DynamicProgramming(), steps=1)[0].binds
    broken = replace(problem, subject_to=(Budget(Flops(), 1e6),))
    assert explain_infeasibility(broken).status is Status.INFEASIBLE


def test_processes_are_one_or_two() -> None:
    with pytest.raises(ValueError, match="processes is 3; expected 1 or 2"):
        Automatic(processes=3)


# Two searches at once


@dataclass(frozen=True)
class Waiting:
    """Searches nothing until its run is stopped; answers with a design if it is told one."""

    choices: tuple[int, ...] | None = None
    bound: float | None = None

    name, distributions = "waiting", ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        if self.choices is not None:
            run.record(problem.objective(problem.space.decode(self.choices)), self.bound)
        waiting = threading.Event()
        while not run.stopped:
            waiting.wait(0.01)
        design = None if self.choices is None else problem.space.decode(self.choices)
        return Answer(design, self.bound, message=run.why_stopped)


@dataclass(frozen=True)
class Dying:
    """Ends its process."""

    name, distributions = "dying", ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        os._exit(3)


@pytest.fixture(autouse=True)
def races_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALONE_S", 0.0)
    monkeypatch.setattr(module, "spare_core", lambda: True)
    monkeypatch.setattr(rivals, "_GRACE_S", 60.0)  # on a busy machine a process may take long to start


def raced(monkeypatch: pytest.MonkeyPatch, problem: DesignProblem, one: Solver, other: Solver, **limits: Any) -> Any:
    monkeypatch.setattr(module, "choices", lambda given: iter((Choice(one, "a test asks for it", other),)))
    return solve(problem, Automatic(), Limits(**{"seconds": 60, **limits}))


def test_a_second_search_that_proves_ends_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4)
    solution = raced(monkeypatch, problem, Waiting(), DynamicProgramming())
    assert solution.status is Status.OPTIMAL
    assert solution.objective == solve(problem, DynamicProgramming()).objective
    assert "waiting, since a test asks for it: settled by a search beside it; beside it dynamic programming: " in solution.message
    assert solution.provenance.solver.endswith(f"→ {Waiting()!r}, {DynamicProgramming()!r}")
    assert solution.seconds < 60


def test_a_second_search_that_proves_that_there_is_no_design_ends_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4, subject_to=(Budget(Flops(), 1e6),))
    assert raced(monkeypatch, problem, Waiting(), DynamicProgramming()).status is Status.INFEASIBLE


@pytest.mark.parametrize("first", [True, False], ids=["design here", "design there"])
def test_an_incumbent_of_one_and_a_bound_of_the_other_are_a_proof(monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    problem = problem_of(4)
    best = solve(problem, DynamicProgramming())
    assert best.architecture is not None
    found = Waiting(problem.space.encode(best.architecture))
    bounding = Waiting((0, 0, 0, 0), best.bound)
    one, other = (found, bounding) if first else (bounding, found)
    solution = raced(monkeypatch, problem, one, other)
    assert (solution.status, solution.objective) == (Status.OPTIMAL, best.objective)
    assert solution.seconds < 60


def test_what_two_searches_know_at_the_time_limit_is_the_better_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4)
    low, high = (0, 0, 0, 0), (26, 26, 26, 26)
    worth = [problem.objective(problem.space.decode(each)) for each in (low, high)]
    free = replace(problem, subject_to=())
    solution = raced(monkeypatch, free, Waiting(low, 9e9), Waiting(high, 8e9), seconds=8)
    assert (solution.objective, solution.bound) == (max(worth), 8e9)
    assert solution.status is Status.FEASIBLE


def test_a_second_search_that_dies_leaves_the_first_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    solution = raced(monkeypatch, problem_of(4), DynamicProgramming(), Dying())
    assert solution.status is Status.OPTIMAL


def test_no_second_search_is_sent_what_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(1, subject_to=(Budget(called(), 2),))
    solution = raced(monkeypatch, problem, Exhaustive(), Waiting())
    assert solution.status is Status.OPTIMAL
    assert "beside it" not in solution.message


def test_no_second_search_is_started_without_a_second_core(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(module, "rival", started)
    monkeypatch.setattr(module, "spare_core", lambda: False)
    assert solve(problem_of(4)).status is Status.OPTIMAL
    monkeypatch.setattr(module, "spare_core", lambda: True)
    assert solve(problem_of(4), Automatic(processes=1)).status is Status.OPTIMAL
    assert solve(problem_of(4), limits=Limits(evaluations=10**9)).status is Status.OPTIMAL


@pytest.mark.parametrize(("cores", "load", "spare"), [(1, 0.0, False), (2, 0.5, True), (2, 2.5, False), (8, 3.0, True)])
def test_a_core_is_spare_where_it_is_there_and_not_busy(
    monkeypatch: pytest.MonkeyPatch, cores: int, load: float, spare: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load), raising=False)
    assert rivals.spare_core() is spare


@dataclass(frozen=True)
class Interrupted(Waiting):
    """The user presses Ctrl-C once the second search has found something."""

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        while run.cutoff == -math.inf:
            threading.Event().wait(0.01)
        signal.raise_signal(signal.SIGINT)
        return super().search(problem, run)


def test_ctrl_c_ends_both_searches_with_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4, subject_to=())
    solution = raced(monkeypatch, problem, Interrupted(), Waiting((1, 1, 1, 1), 9e9))
    assert solution.interrupted
    assert solution.architecture == problem.space.decode((1, 1, 1, 1))
    assert (solution.status, solution.bound) == (Status.FEASIBLE, 9e9)


def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Those of second searches, as they are started from now on."""
    started: list[subprocess.Popen[str]] = []
    plain = subprocess.Popen

    def watched(command: Any, *rest: Any, **options: Any) -> Any:
        process = plain(command, *rest, **options)
        if command[:2] == [sys.executable, "-c"]:
            started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", watched)
    return started


@dataclass(frozen=True)
class Halted(Waiting):
    """Ends in the middle of long work once its run is stopped, by the exception of that work."""

    memory: bool = False

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        super().search(problem, run)
        if self.memory:
            raise MemoryError
        run.poll()
        raise AssertionError


@pytest.mark.parametrize("memory", [False, True], ids=["stopped", "out of memory"])
def test_a_first_search_that_ends_in_the_middle_leaves_the_proof_of_the_second(
    monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    problem = problem_of(4)
    solution = raced(monkeypatch, problem, Halted(memory=memory), DynamicProgramming())
    assert solution.status is Status.OPTIMAL
    assert solution.objective == solve(problem, DynamicProgramming()).objective
    why = "memory used up" if memory else "settled by a search beside it"
    assert f"{why} before the search began; beside it dynamic programming: " in solution.message


@dataclass(frozen=True)
class InterruptedWithin(Halted):
    """The user presses Ctrl-C in the middle of long work."""

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        signal.raise_signal(signal.SIGINT)
        return super().search(problem, run)


def test_ctrl_c_in_the_middle_of_the_first_search_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    solution = raced(monkeypatch, problem_of(4), InterruptedWithin(), Waiting())
    assert solution.interrupted
    assert "interrupted by the user before the search began" in solution.message


@dataclass(frozen=True)
class Heavy(Waiting):
    """More than a pipe holds."""

    ballast: str = "x" * (1 << 20)


def test_the_first_search_goes_on_while_the_second_does_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second process reads nothing until a file is there, which comes only once the first search has said what it found."""
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    monkeypatch.setattr(rivals, "_SERVE", waits + rivals._SERVE)
    run, problem = Run(Limits(seconds=60)), problem_of(4, subject_to=())
    opened_late = threading.Timer(30, gate.touch)  # only where the test fails
    opened_late.start()
    try:
        with rival(problem, Heavy((1, 1, 1, 1), 9e9), run, 0.0) as other:
            while not other.began:
                threading.Event().wait(0.01)
            for incumbent in range(1, 20):
                run.record(float(incumbent))
                threading.Event().wait(0.01)
            assert not gate.exists()
            gate.touch()
            while run.cutoff == -math.inf:
                threading.Event().wait(0.01)
        assert other.answer is not None
        assert other.answer.bound == 9e9
    finally:
        opened_late.cancel()


def test_a_second_search_that_never_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started = processes(monkeypatch)
    monkeypatch.setattr(rivals, "_SERVE", "import time; time.sleep(30)")
    monkeypatch.setattr(rivals, "_GRACE_S", 0.05)
    with rival(problem_of(4), Heavy(), Run(Limits(seconds=60)), 0.0) as other:
        while not other.began:
            threading.Event().wait(0.01)
    assert other.answer is None
    assert [process.returncode for process in started] == [-signal.SIGKILL]


@pytest.mark.parametrize("fails", [False, True])
def test_no_process_outlives_the_search(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    started = processes(monkeypatch)
    run = Run(Limits(seconds=60))

    def failing() -> None:
        with rival(problem_of(4), Waiting(), run, 0.0):
            while not started:
                threading.Event().wait(0.01)
            raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            failing()
    else:
        with rival(problem_of(4), Waiting((0, 0, 0, 0), 1e9), run, 0.0) as other:
            while run.cutoff == -math.inf:
                threading.Event().wait(0.01)
        assert other.answer is not None
        assert other.answer.message == "interrupted by the user"
    assert [process.poll() is not None for process in started] == [True]
    assert (run.halted, run.on_record) == ("", None)


def test_a_race_is_run_from_a_thread_and_without_a_guarded_main_module() -> None:
    script = (
        "from tests.solvers.test_automatic import Waiting, problem_of\n"
        "from solvers import Automatic, DynamicProgramming, Limits, automatic, solve\n"
        "automatic._ALONE_S, automatic.spare_core = 0.0, lambda: True\n"
        "automatic.choices = lambda problem: iter((automatic.Choice(Waiting(), 'so', DynamicProgramming()),))\n"
        "import threading\n"
        "thread = threading.Thread(target=lambda: print(solve(problem_of(4), limits=Limits(seconds=60)).status.value))\n"
        "thread.start(); thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "optimal\n", done.stderr


@pytest.mark.parametrize("number", range(12))
def test_toys_are_proved_as_by_brute_force_with_a_race(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    given = toy(number)
    if number % 4:
        monkeypatch.setattr(module, "spare_core", lambda: False)
    solution = raced(monkeypatch, given.problem, DynamicProgramming(), Highs())
    assert solution.objective == (None if given.optimum is None else pytest.approx(given.optimum, rel=1e-6))
    assert solution.status is (Status.INFEASIBLE if given.optimum is None else Status.OPTIMAL)


def test_an_agreement_makes_positions_matter() -> None:
    problem = problem_of(12)
    best = solve(problem).architecture
    assert best is not None
    away = replace(problem, subject_to=(*problem.subject_to, Budget(Agreement(best), 30)))
    assert chosen(away) == ["dynamic programming"]


def test_that_all_designs_were_seen_without_a_proof_is_explained() -> None:
    space = OptionSpace((OptionMenu("one", ("a", "b")), OptionMenu("two", ("a", "b"))))
    worth = Column("worth", "1", ((1e8, 3e8), (-1e8 + 1e-3, -2e8)), space)
    solution = solve(DesignProblem(space, worth, (Budget(worth, 1.0),)), Exhaustive())
    assert solution.status is Status.FEASIBLE
    assert "all 4 designs seen; terms cancel, so that their objectives are known up to" in solution.message
    assert solve(DesignProblem(space, worth), Exhaustive()).message == "all 4 designs seen"
