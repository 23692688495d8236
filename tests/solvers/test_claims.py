"""An engine's word is a claim: engines that lie, programs on which real ones are known to err, budgets on a knife's edge."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from formulation import Agreement, Budget, DesignProblem, EffectiveEntropy, SearchSpace, Separable, SumOverLayers
from formulation.architecture import Block, Setting
from hardware_models import Flops, Params
from solvers import Cbc, CpSat, Exhaustive, Form, Highs, Limits, Scip, Solution, Status, solve
from solvers.base import Answer, Run
from solvers.programs import linear_cells as cells
from solvers.programs.highs import solve_program
from solvers.programs.linear_cells import LinearEnd
from solvers.programs.linear_form import LinearForm, LinearProgram
from tests.solvers.test_soundness import Drawn
from tests.toys import RandomCost, toy

ENGINES = [Highs(), Cbc(), CpSat(), Scip(Form.CHOICE), Scip(Form.LOOKUP)]


def best_of(problem: DesignProblem) -> float | None:
    """The truth, by the plain definitions."""
    evaluations = map(problem.evaluate, problem.space)
    return max((each.objective for each in evaluations if each.feasible), default=None)


def check(problem: DesignProblem, solution: Solution) -> None:
    """No false proof, no bound below the truth."""
    truth = best_of(problem)
    if solution.status is Status.INFEASIBLE:
        assert truth is None, solution.message
    if solution.status is Status.OPTIMAL:
        assert truth is not None
        assert solution.objective == pytest.approx(truth, rel=1e-6, abs=0), solution.message
    if solution.bound is not None and truth is not None:
        assert solution.bound >= truth - 1e-9 * abs(truth), solution.message


# Engines that lie


def infeasible(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    return LinearEnd(-np.inf, None, True)


def bound_too_low(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    return LinearEnd(-1e9, true.point, true.finished)


def worse_point_as_optimum(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    """The worst design in place of the best one, with the bound to match."""
    worst = _true(LinearProgram(-program.objective, program.rows, program.upper, program.binaries))
    return true if worst.point is None else LinearEnd(float(program.objective @ worst.point), worst.point, True)


def over_budget(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    """The first item of the last width everywhere, as if it were the optimum."""
    point = np.zeros(len(program.objective))
    for row in program.rows:
        if row.low == row.high == 1 and np.all(row.coefficients == 1):
            point[row.columns[-1]] = 1
    return LinearEnd(true.bound, point, true.finished)


def no_design(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    return LinearEnd(true.bound, None, True)


def unfinished(program: LinearProgram, true: LinearEnd) -> LinearEnd:
    return LinearEnd(None, None, False)


def _true(program: LinearProgram) -> LinearEnd:
    return solve_program(program, None, True, Run(Limits()))


@dataclass(frozen=True)
class Liar:
    """HiGHS behind an interpreter that lies, always or in the first of two solves only."""

    lie: Callable[[LinearProgram, LinearEnd], LinearEnd]
    also_carefully: bool = False

    name = "liar"
    distributions = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        def engine(program: LinearProgram, seconds: float | None, careful: bool) -> LinearEnd:
            true = _true(program)
            return true if careful and not self.also_carefully else self.lie(program, true)

        return cells.search_cells(problem, run, engine)


@pytest.fixture
def no_bounds_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the engine decides: no first design, no bound that closes a box without it."""
    monkeypatch.setattr(cells, "quick_incumbent", lambda problem, run: None)
    monkeypatch.setattr(cells._Search, "_own_bound", lambda self, box, total: np.inf)


@pytest.mark.usefixtures("no_bounds_of_our_own")
@pytest.mark.parametrize("lie", [infeasible, bound_too_low, worse_point_as_optimum])
@pytest.mark.parametrize("number", range(12))
def test_a_lie_told_once_is_refuted(lie: Callable, number: int) -> None:
    problem = toy(number).problem
    solution = solve(problem, Liar(lie), Limits(evaluations=200))
    check(problem, solution)
    if toy(number).optimum is not None:
        assert solution.status is Status.OPTIMAL, solution.message


@pytest.mark.usefixtures("no_bounds_of_our_own")
def test_a_refuted_lie_is_told() -> None:
    assert "refuted" in solve(toy(0).problem, Liar(infeasible)).message


@pytest.mark.usefixtures("no_bounds_of_our_own")
@pytest.mark.parametrize("lie", [over_budget, no_design, unfinished])
@pytest.mark.parametrize("number", range(12))
def test_what_is_no_answer_proves_nothing(lie: Callable, number: int) -> None:
    problem = toy(number).problem
    solution = solve(problem, Liar(lie, also_carefully=True), Limits(evaluations=40))
    check(problem, solution)
    assert all(used.within for used in solution.usage)
    if lie is not over_budget:
        assert solution.architecture is None or solution.status is Status.OPTIMAL


@pytest.mark.parametrize("number", range(12))
def test_our_own_bounds_need_no_engine(number: int) -> None:
    """The bound of a box, with multipliers from a relaxation, is valid at every feasible design."""
    given = toy(number)
    search = cells._Search(given.problem, Run(Limits()), lambda *_: LinearEnd(None, None, False))
    for box in search.first_boxes():
        own = search._own_bound(box, search._objective(box))
        for design, value, feasible in zip(given.designs, given.objectives, given.feasible, strict=True):
            if feasible and (box.layers is None or sum(design.depths) == box.layers):
                assert min(own, box.proven) >= value - 1e-12 * abs(value)


# Programs on which engines err


@dataclass(frozen=True)
class _Peak(RandomCost):
    """A maximum that leaves 7 of 16 shapes; beside it HiGHS's presolve called a feasible box infeasible."""


def test_a_box_that_presolve_calls_infeasible() -> None:
    space = SearchSpace.uniform(1, (256, 1024), (1.5, 4), (1, 2, 3, 5))
    budgets = (Budget(_Peak(9005, maximum=True), 2.39368), Budget(Flops(seq_len=128), 9.49926e9))
    problem = DesignProblem(space, EffectiveEntropy(rho=0.1), budgets)
    for solver in (Exhaustive(), *ENGINES):
        solution = solve(problem, solver, Limits(seconds=60))
        assert solution.status is Status.OPTIMAL, (solver.name, solution.message)
        assert solution.objective == pytest.approx(14_124.4207, abs=1e-3), solver.name


@dataclass(frozen=True)
class Cancelling(Separable):
    """Terms near `size` and a fixed one that cancels them: the objective is near 2.5."""

    size: float
    seed: int

    name, unit = "cancelling", "1"

    def fixed(self, setting: Setting) -> float:
        return -3 * self.size

    def block(self, block: Block, setting: Setting) -> float:
        draw = np.random.default_rng([self.seed, block.width, block.ffn_width, block.depth])
        return self.size + float(draw.integers(0, 1000)) / 1000


@pytest.mark.parametrize("solver", [*ENGINES[:4]], ids=lambda solver: solver.name)
@pytest.mark.parametrize("size", [1e4, 1e10, 1e12])
def test_terms_that_cancel(solver: object, size: float) -> None:
    space = SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2))
    for seed in range(1 if isinstance(solver, Scip) else 2):
        # The second best design: the best takes the best block everywhere, which is proof enough.
        free = DesignProblem(space, Cancelling(size, seed))
        best = solve(free, Exhaustive()).architecture
        assert best is not None
        problem = replace(free, subject_to=(Budget(Agreement(best), Agreement(best).most - 1),))
        solution = solve(problem, solver, Limits(seconds=60))  # type: ignore[arg-type]
        check(problem, solution)
        assert solution.architecture is not None
        assert (solution.status is Status.OPTIMAL) == (size == 1e4 and not isinstance(solver, Scip)), solution.message


# Budgets on a knife's edge


@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
@pytest.mark.parametrize("share", [1.0, 1 - 1e-9])
def test_a_real_cost_at_or_just_below_its_limit(solver: object, share: float) -> None:
    """The best design uses the whole budget, or a little more than it: both are resolved, to proof."""
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2, 3))
    for seed in range(1 if isinstance(solver, Scip) else 4):
        cost, gain = RandomCost(seed + 50), RandomCost(seed + 80)
        costs = sorted(cost(design) for design in space)
        best = max((design for design in space if cost(design) <= costs[len(costs) // 2]), key=gain)
        problem = DesignProblem(space, gain, (Budget(cost, cost(best) * share),))
        solution = solve(problem, solver, Limits(seconds=60))  # type: ignore[arg-type]
        check(problem, solution)
        assert solution.status is Status.OPTIMAL, solution.message
        assert (solution.architecture == best) == (share == 1.0)


@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
def test_a_budget_just_below_every_design(solver: object) -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    cost = RandomCost(3)
    least = min(map(cost, space))
    solution = solve(DesignProblem(space, RandomCost(4), (Budget(cost, least * (1 - 1e-9)),)), solver)  # type: ignore[arg-type]
    assert solution.status is Status.INFEASIBLE, solution.message


@pytest.mark.parametrize("solver", ENGINES[:4], ids=lambda solver: solver.name)
def test_costs_that_cancel_in_a_budget(solver: object) -> None:
    """Costs of both signs that all but cancel, the limit far below them: no feasible design is cut off."""
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    for seed in range(4):
        cost = Drawn(seed, -1e9, 1e9)
        usable = sorted(value for value in map(cost, space) if value > 0)
        check(
            problem := DesignProblem(space, RandomCost(seed), (Budget(cost, usable[0]),)),
            solve(problem, solver, Limits(seconds=60)),  # type: ignore[arg-type]
        )


# Limits and threads


def test_two_threads_solve_at_once() -> None:
    solutions: dict[int, Solution] = {}
    threads = [
        threading.Thread(target=lambda n=n: solutions.update({n: solve(toy(n).problem, Highs())}))  # type: ignore[misc]
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, solution in solutions.items():
        optimum = toy(number).optimum
        assert solution.objective == (None if optimum is None else pytest.approx(optimum, rel=1e-6))
    assert len(solutions) == 6


@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
def test_an_interrupted_run_has_a_design_and_no_false_proof(solver: object) -> None:
    """Ctrl-C before the engine has begun, as while the program is built: the first design is kept."""
    given = toy(0)
    run = Run(Limits())
    first = cells.quick_incumbent(given.problem, run)
    assert first is not None
    run = Run(Limits(start=first))
    run.interrupted = True
    answer = solver.search(given.problem, run)  # type: ignore[attr-defined]
    assert answer.architecture == first
    assert not answer.infeasible
    assert answer.bound is None or answer.bound >= given.optimum * (1 - 1e-9)


def test_an_impossible_budget_needs_no_engine() -> None:
    problem = DesignProblem(SearchSpace.uniform(2, (256,), (1, 2), (1, 2)), RandomCost(1), (Budget(RandomCost(2), 0.1),))
    assert not LinearForm(problem).possible
    answer = cells.search_cells(problem, Run(Limits()), lambda *_: pytest.fail("asked"))  # type: ignore[arg-type, return-value]
    assert answer.infeasible


@pytest.mark.parametrize("share", [0.5, 2.0])
@pytest.mark.parametrize("solver", ENGINES, ids=lambda solver: solver.name)
def test_budgets_that_every_design_uses_alike(solver: object, share: float) -> None:
    """Two budgets whose rows hold no variable: met by all designs or by none."""
    space = SearchSpace.uniform(2, (256,), (1, 2), (1, 2))
    budgets = tuple(Budget(SumOverLayers(name, "1", lambda layer: 0.0), 0.0) for name in ("free", "free too"))
    alike = tuple(Budget(_Fixed(name), share) for name in ("one", "another"))
    solution = solve(DesignProblem(space, Params(), budgets + alike), solver)  # type: ignore[arg-type]
    assert solution.status is (Status.OPTIMAL if share > 1 else Status.INFEASIBLE)


@dataclass(frozen=True)
class _Fixed(Separable):
    """1 for every design."""

    name: str

    unit = "1"

    def block(self, block, setting):
        return 0.0

    def fixed(self, setting):
        return 1.0
