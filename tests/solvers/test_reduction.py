"""Reduction against brute force: every kind of budget and value, every way that a search can take, every moment of a stop."""

from __future__ import annotations

import itertools
import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest

from formulation import Budget, Combine, DesignProblem, EffectiveEntropy, NotSeparable, SearchSpace, Separable
from formulation.architecture import Setting
from formulation.score_table import Column, Option, OptionMenu, OptionSpace, Selection
from hardware_models import Flops
from solvers import DynamicProgramming, Highs, Limits, Reduction, Status, solve
from solvers.base import Run
from solvers.check import NotCheckable, Refused
from solvers.check import check as checker
from solvers.exact import label_pass, reduction
from solvers.exact.label_pass import Bounds, LabelPass, fitting, undominated
from solvers.exact.multiple_choice import MultipleChoice, read_multiple_choice
from solvers.exact.multipliers import multipliers
from solvers.exact.reduction import best_choice
from solvers.programs import highs
from solvers.programs.linear_cells import LinearEnd
from solvers.programs.linear_form import LinearProgram
from tests.solvers.test_limits import Clock, clock  # noqa: F401, a fixture


@dataclass(frozen=True)
class Peak(Separable):
    """The greatest of the values of a design's options."""

    values: tuple[tuple[float, ...], ...]

    name = "peak"
    unit = "1"
    combine = Combine.MAX
    positional = True

    def block(self, block: Option, setting: Setting) -> float:  # type: ignore[override]
        raise AssertionError("the position matters")

    def block_at(self, position: int, block: Option, setting: Setting) -> float:  # type: ignore[override]
        return self.values[position][int(block.name)]

    def fixed(self, setting: Setting) -> float:
        return self.values[0][0] - 1.0


def space_of(counts: list[int]) -> OptionSpace:
    return OptionSpace(tuple(OptionMenu(f"layer {i}", tuple(map(str, range(count)))) for i, count in enumerate(counts)))


def rows_of(values: np.ndarray, counts: list[int]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row[:count].tolist()) for row, count in zip(values, counts, strict=True))


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "real": lambda draw, shape: draw.uniform(1, 100, shape),
    "whole": lambda draw, shape: draw.integers(0, 6, shape).astype(float),
    "signed": lambda draw, shape: draw.normal(0, 1, shape),
    "few": lambda draw, shape: draw.choice([0.0, 0.1, 0.2], shape),
    "equal": lambda draw, shape: np.broadcast_to(draw.choice([0.0, 3.0, -0.7]), shape).copy(),
    "tiny": lambda draw, shape: draw.uniform(1, 2, shape) * 1e-9,
    "huge": lambda draw, shape: draw.uniform(1, 2, shape) * 1e12,
}


@dataclass(frozen=True)
class Case:
    """A random problem with the value of its best design by exact sums, None where none meets the budgets."""

    problem: DesignProblem
    optimum: Fraction | None
    feasible: tuple[Selection, ...]


def case(kind: str, cost_kind: str, seed: int, alike: bool = False) -> Case:
    """A problem of one to six positions under none to four budgets of all sorts; some limits are exactly what a design uses."""
    draw = np.random.default_rng([seed, len(kind), len(cost_kind)])
    positions = int(draw.integers(1, 7))
    counts = draw.integers(1, 5, positions).tolist()
    if alike:
        counts = [counts[0]] * positions
    budgets = int(draw.integers(0, 5))
    shape = positions, max(counts)
    values, costs = KINDS[kind](draw, shape), [KINDS[cost_kind](draw, shape) for _ in range(budgets)]
    if alike:
        values, costs = np.broadcast_to(values[:1], shape), [np.broadcast_to(cost[:1], shape) for cost in costs]
    space = space_of(counts)
    score = Column("score", "1", rows_of(values, counts), space)
    designs = list(space)
    limits = []
    for k, cost in enumerate(costs):
        rows = rows_of(cost, counts)
        quantity: Separable = Peak(rows) if draw.random() < 0.2 else Column(f"cost {k}", "1", rows, space)
        used = sorted(map(quantity, designs))
        place, sort = int(draw.uniform(0.05, 0.7) * (len(used) - 1)), draw.random()
        if isinstance(quantity, Column) and sort < 0.25:
            limits.append(Budget(quantity, at_least=used[len(used) - 1 - place]))
        elif sort < 0.35 and used[0] > 0:
            limits.append(Budget(quantity, used[0] * (1 - 1e-9)))
        elif sort < 0.45:
            limits.append(Budget(quantity, 0.0))
        elif sort < 0.7:
            limits.append(Budget(quantity, used[place]))
        else:
            limits.append(Budget(quantity, float(draw.uniform(used[0], used[-1] or 1.0))))
    problem = DesignProblem(space, score, tuple(limits))
    kept = tuple(design for design in designs if problem.evaluate(design).feasible)
    worth = [sum((Fraction(score.values[i][int(o.name)]) for i, o in enumerate(d.blocks)), Fraction(0)) for d in kept]
    return Case(problem, max(worth, default=None), kept)


def check(given: Case, limits: Limits | None = None) -> None:
    solution = solve(given.problem, Reduction(), limits)
    if given.optimum is None:
        assert solution.status is Status.INFEASIBLE, solution.message
        return
    size = sum(max(map(abs, row)) for row in given.problem.goal.values)  # type: ignore[attr-defined]
    assert solution.objective == pytest.approx(float(given.optimum), rel=1e-9, abs=1e-14 * size)
    assert solution.bound is not None
    assert solution.bound >= float(given.optimum) - 1e-14 * size
    assert solution.bound <= float(given.optimum) + 1e-9 * abs(float(given.optimum)) + 1e-13 * size
    if abs(float(given.optimum)) > 1e-3 * size or float(given.optimum) == size == 0:
        assert solution.status is Status.OPTIMAL, solution.message


@pytest.mark.parametrize("cost_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_optimum_and_bound_are_those_of_brute_force(kind: str, cost_kind: str) -> None:
    for seed in range(8):
        check(case(kind, cost_kind, seed), Limits(gap=0))


@pytest.mark.parametrize("kind", ["real", "whole", "few", "signed"])
def test_alike_positions(kind: str) -> None:
    for seed in range(12):
        check(case(kind, kind, seed, alike=True), Limits(gap=0))


def test_cases_are_of_every_sort() -> None:
    cases = [case(kind, cost, seed) for kind in KINDS for cost in KINDS for seed in range(8)]
    assert sum(each.optimum is None for each in cases) > 20
    assert sum(each.optimum is not None and len(each.feasible) > 3 for each in cases) > 100
    budgets = [budget for each in cases for budget in each.problem.subject_to]
    assert sum(budget.upper is None for budget in budgets) > 50
    assert sum(isinstance(budget.quantity, Peak) for budget in budgets) > 50


ROUTES: dict[str, dict[str, int]] = {
    "many multipliers": {"_FIRST_LABELS": 0, "_BEAM": 1, "_WIDE": 1, "_WIDEST": 1, "_DECIDING": 0},
    "engine": {"_FIRST_LABELS": 0, "_MORE_LABELS": 0, "_BEAM": 1, "_WIDE": 1, "_WIDEST": 1},
    "narrow beam": {"_BEAM": 1, "_WIDE": 1, "_WIDEST": 1},
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["real", "whole", "few", "signed"])
def test_every_way_of_a_search_is_right(monkeypatch: pytest.MonkeyPatch, route: str, kind: str) -> None:
    for name, value in ROUTES[route].items():
        monkeypatch.setattr(reduction, name, value)
    for seed in range(20, 28):
        check(case(kind, "real", seed), Limits(gap=0))
        check(case(kind, kind, seed), Limits(gap=0))


@pytest.mark.parametrize("kind", ["real", "whole", "few", "signed"])
def test_chunks_and_comparisons_of_labels_are_right(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(label_pass, "_MANY", 2)
    monkeypatch.setattr(label_pass, "_PAIRS", 8)
    monkeypatch.setattr(label_pass, "_MERGING", 8)
    monkeypatch.setattr(label_pass, "_FEWEST", 8)
    monkeypatch.setattr(label_pass, "_RIVALS", 3)
    for name, value in ROUTES["narrow beam"].items():
        monkeypatch.setattr(reduction, name, value)
    for seed in range(30, 42):
        check(case(kind, "real", seed), Limits(gap=0))
        check(case(kind, kind, seed, alike=seed % 2 == 0), Limits(gap=0))


def middle(positions: int, items: int, budgets: int, seed: int) -> DesignProblem:
    """A problem too large for brute force, with budgets that bind together."""
    draw = np.random.default_rng(seed)
    counts = [items] * positions
    space = space_of(counts)
    values = Column("score", "1", rows_of(draw.uniform(1, 100, (positions, items)), counts), space)
    costs = [Column(f"cost {k}", "1", rows_of(draw.uniform(1, 100, (positions, items)), counts), space) for k in range(budgets)]
    return DesignProblem(space, values, tuple(Budget(cost, 37.0 * positions) for cost in costs))


@pytest.mark.parametrize(("positions", "items", "budgets"), [(8, 8, 2), (10, 6, 3), (6, 10, 4), (20, 5, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_middle_problems_as_other_solvers(positions: int, items: int, budgets: int, seed: int) -> None:
    problem = middle(positions, items, budgets, seed)
    found = solve(problem, Reduction(), Limits(gap=0))
    assert found.status is Status.OPTIMAL
    for solver in (Highs(), DynamicProgramming()):
        other = solve(problem, solver)
        assert found.status is other.status
        assert found.objective == pytest.approx(other.objective, rel=1e-6)


def test_what_it_cannot_read_is_refused_with_advice() -> None:
    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2, 3))
    with pytest.raises(NotSeparable, match="DynamicProgramming or Highs"):
        solve(DesignProblem(space, EffectiveEntropy(), (Budget(Flops(), 40e9),)), Reduction())


@pytest.mark.parametrize("stops", [False, True])
def test_what_one_solve_of_an_engine_closes_is_not_believed(monkeypatch: pytest.MonkeyPatch, stops: bool) -> None:
    """The first solve says that nothing better is left, which is wrong; the second, if there is time for it, finds the rest."""
    best = best_choice(choice_of(), Run(Limits(gap=0)))
    assert best.choices is not None
    for name, value in ROUTES["engine"].items():
        monkeypatch.setattr(reduction, name, value)
    run, honest = Run(Limits(gap=0)), highs.solve_program

    def lying(program: LinearProgram, seconds: float | None, careful: bool, run: Run) -> LinearEnd:
        if careful:
            return honest(program, seconds, careful, run)
        run.interrupted = stops
        return LinearEnd(-math.inf, None, True)

    monkeypatch.setattr(highs, "solve_program", lying)
    found = best_choice(choice_of(), run)
    if stops:
        assert not found.ended
        assert found.bound > best.value > found.value
    else:
        assert (found.ended, found.value) == (True, best.value)


# Stops


@pytest.mark.parametrize("route", ["engine", "narrow beam"])
@pytest.mark.parametrize("kind", ["real", "few", "whole"])
def test_the_bound_is_valid_whenever_it_is_stopped(
    clock: Clock,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    route: str,
) -> None:
    monkeypatch.setattr(label_pass, "_PAIRS", 16)
    monkeypatch.setattr(label_pass, "_MERGING", 16)
    monkeypatch.setattr(label_pass, "_FEWEST", 16)
    for name, value in ROUTES[route].items():
        monkeypatch.setattr(reduction, name, value)
    for seed in range(50, 56):
        given = case(kind, "real", seed)
        for _ in clock.stops(dense=20):
            solution = solve(given.problem, Reduction(), Limits(gap=0))
            if given.optimum is None:
                assert solution.status in (Status.INFEASIBLE, Status.UNKNOWN)
            elif solution.bound is not None:
                assert solution.bound >= float(given.optimum) * (1 - 1e-14)
            assert solution.status in (Status.OPTIMAL, Status.INFEASIBLE) or "time limit reached" in solution.message


def test_the_bound_falls_while_it_is_searched(clock: Clock) -> None:  # noqa: F811
    problem = middle(12, 8, 3, 0)
    optimum = solve_undisturbed(clock, problem)
    bounds = []
    for _ in clock.stops(dense=30):
        solution = solve(problem, Reduction(), Limits(gap=0))
        if solution.bound is not None:
            assert solution.bound >= optimum
            bounds.append(solution.bound)
    assert bounds[0] > bounds[-1] == pytest.approx(optimum, rel=1e-11)


def solve_undisturbed(clock: Clock, problem: DesignProblem) -> float:  # noqa: F811
    clock.last = 10**9
    found = solve(problem, DynamicProgramming(), Limits(gap=1e-12)).objective
    assert found is not None
    return found * (1 - 1e-12)


def test_ctrl_c_is_heard(clock: Clock) -> None:  # noqa: F811
    clock.at_last = lambda: signal.raise_signal(signal.SIGINT)
    for _ in clock.stops(dense=4):
        solution = solve(middle(8, 8, 2, 0), Reduction())
        assert solution.interrupted == (clock.looks > clock.last)
        assert solution.status is Status.OPTIMAL or "interrupted by the user" in solution.message


def test_an_evaluation_limit_leaves_the_first_design_and_a_valid_bound() -> None:
    problem = middle(12, 8, 3, 0)
    best = solve(problem, Reduction(), Limits(gap=0))
    first = solve(problem, Reduction(), Limits(gap=0, evaluations=1))
    assert (first.evaluations, first.message) == (1, "evaluation limit reached; " + first.message.partition("; ")[2])
    assert first.objective is not None
    assert first.bound is not None
    assert best.objective is not None
    assert first.objective <= best.objective <= first.bound


def test_a_start_is_kept_and_counts_as_incumbent() -> None:
    problem = middle(12, 8, 3, 0)
    best = solve(problem, Reduction(), Limits(gap=0))
    again = solve(problem, Reduction(), Limits(gap=0, start=best.architecture))
    assert (again.status, again.objective, again.evaluations) == (Status.OPTIMAL, best.objective, 0)


def test_a_wide_gap_is_settled_by_the_first_bound() -> None:
    solution = solve(middle(12, 8, 3, 0), Reduction(), Limits(gap=0.2))
    assert solution.status is Status.OPTIMAL
    assert 1e-6 < solution.gap < 0.2  # type: ignore[operator]


def test_little_memory_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = middle(14, 10, 4, 2)
    plenty = solve(problem, Reduction(), Limits(gap=0))
    made: list[int] = []
    extended = LabelPass.extended

    def noting(self: LabelPass, labels: label_pass.LabelSet) -> label_pass.LabelSet:
        result = extended(self, labels)
        made.append(len(labels))
        return result

    monkeypatch.setattr(LabelPass, "extended", noting)
    for name, value in ROUTES["narrow beam"].items():
        monkeypatch.setattr(reduction, name, value)
    little = solve(problem, Reduction(), Limits(gap=0, memory=1 << 20))
    assert (little.status, little.objective) == (Status.OPTIMAL, plenty.objective)
    assert max(made) <= label_pass._FEWEST


# A choice without a design problem


def choice_of(positions: int = 12, items: int = 8, budgets: int = 3, seed: int = 0) -> MultipleChoice:
    found = read_multiple_choice(middle(positions, items, budgets, seed))
    assert found is not None
    return found


def test_designs_below_a_target_are_passed_over() -> None:
    choice = choice_of()
    best = best_choice(choice, Run(Limits(gap=0)))
    assert best.choices is not None
    assert best.value == choice.value_of(best.choices)
    assert (choice.costs_of(best.choices) <= choice.limits).all()
    below = best_choice(choice, Run(Limits(gap=0)), target=best.value * (1 - 1e-6))
    assert below.choices.tolist() == best.choices.tolist()  # type: ignore[union-attr]
    above = best_choice(choice, Run(Limits(gap=0)), target=best.value * (1 + 1e-9))
    assert above.choices is None
    assert (above.bound, above.ended) == (best.value * (1 + 1e-9), True)


def test_a_cutoff_of_a_run_is_the_target() -> None:
    problem = middle(12, 8, 3, 0)
    best = solve(problem, Reduction(), Limits(gap=0)).objective
    assert best is not None
    answer = Reduction().search(problem, Run(Limits(), cutoff=best + 1))
    assert (answer.architecture, answer.bound, answer.infeasible) == (None, best + 1, False)


def test_that_nothing_is_within_the_limits_is_said_in_spite_of_a_target() -> None:
    choice = choice_of()
    tight = MultipleChoice(choice.values, choice.costs, choice.limits * 1e-3, choice.allowed)
    for target in (0.0, choice.least + 1):
        assert best_choice(tight, Run(Limits()), target=target).bound == -math.inf


def test_a_design_that_only_rounding_lets_in_hides_none() -> None:
    """Confirming refuses a design of each kind of totals, as if it exceeded its budget in the last digit: the next one is found."""
    draw = np.random.default_rng(3)
    for seed in range(20):
        items = np.sort(draw.permuted(np.tile(np.arange(6.0), (2, 1)), axis=1)[:, :3])  # none is as good as another
        values, costs = np.tile(items[0], (4, 1)), np.tile(items[1], (1, 4, 1))
        choice = MultipleChoice(values, costs, np.array([6.0]), np.ones((4, 3), dtype=bool))
        designs = [d for d in itertools.product(range(3), repeat=4) if choice.costs_of(np.array(d))[0] <= 6]
        if not designs:
            continue
        accepted = set(map(tuple, draw.permutation(designs)[: 1 + seed % 3].tolist()))

        def confirm(choices: np.ndarray, accepted: set = accepted, choice: MultipleChoice = choice) -> float | None:
            return choice.value_of(choices) if tuple(choices.tolist()) in accepted else None

        best = best_choice(choice, Run(Limits(gap=0)), confirm=confirm)
        assert best.value == max(choice.value_of(np.array(design)) for design in accepted)


# The pieces


@pytest.mark.parametrize("seed", range(10))
def test_multipliers_are_as_good_as_those_of_the_linear_program(seed: int) -> None:
    from scipy.optimize import linprog

    choice = choice_of(10, 6, 1 + seed % 4, seed)
    found, bound = multipliers(choice.values, choice.costs, choice.limits[None])
    rows = np.kron(np.eye(10), np.ones(6))
    solved = linprog(
        -choice.values.ravel(), choice.costs.reshape(choice.budgets, -1), choice.limits, rows, np.ones(10), method="highs"
    )
    assert bound[0] >= -solved.fun * (1 - 1e-9)
    assert bound[0] <= -solved.fun * (1 + 1e-6)
    assert (found >= 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_what_is_fixed_out_is_in_no_better_design(seed: int) -> None:
    given = case("real", "real", seed)
    choice = read_multiple_choice(given.problem)
    assert choice is not None
    if given.optimum is None or not choice.budgets:
        return
    draw = np.random.default_rng(seed)
    bounds = Bounds(choice, draw.uniform(0, 2, (3, choice.budgets)))
    score = given.problem.objective
    values = sorted(map(score, given.feasible))
    for target in (values[0], values[len(values) // 2]):
        left = undominated(choice, fitting(choice, bounds.fixed_out(choice.allowed, target)), lambda: None)
        kept = [d for d in given.feasible if all(left[i, int(o.name)] for i, o in enumerate(d.blocks))]
        assert max(map(score, kept), default=target) == max([target, *values])
        assert (bounds.roots(choice.allowed) >= values[-1]).all()


# What a proof leaves behind


def recheck(certificate: object) -> None:
    """Check a certificate as the command does, from its JSON."""
    checker(json.loads(json.dumps(certificate.to_dict())))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["real", "whole", "few", "signed", "tiny", "huge"])
def test_certificates_are_accepted(kind: str) -> None:
    for seed in range(60, 72):
        given = case(kind, "real" if seed % 2 else kind, seed)
        solution = solve(given.problem, Reduction(), Limits(gap=0))
        if solution.status in (Status.OPTIMAL, Status.INFEASIBLE):
            assert solution.certificate is not None
            recheck(solution.certificate)


def test_the_certificate_of_a_proof_by_several_multipliers_is_accepted_and_a_better_bound_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ROUTES["many multipliers"].items():
        monkeypatch.setattr(reduction, name, value)
    choice = choice_of()
    best = best_choice(choice, Run(Limits(gap=0)))
    assert len(best.multipliers) > 1
    certificate = best.certificate(choice)
    recheck(certificate)
    with pytest.raises(Refused):
        recheck(replace(certificate, bound=best.value * (1 - 1e-9), design=None, objective=None))  # type: ignore[type-var]


def test_what_an_engine_closed_is_said_to_be_not_checkable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ROUTES["engine"].items():
        monkeypatch.setattr(reduction, name, value)
    best = best_choice(choice_of(), Run(Limits(gap=0)))
    assert best.engine == "HiGHS"
    with pytest.raises(NotCheckable, match="HiGHS"):
        recheck(best.certificate(choice_of()))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("worth", "cost"), [(1.0, 1e-320), (1e-305, 1e306)])
def test_huge_and_tiny_terms_are_no_warning(worth: float, cost: float) -> None:
    draw = np.random.default_rng(0)
    space = OptionSpace(tuple(OptionMenu(f"layer {number}", tuple("abcdefgh")) for number in range(12)))
    values, *costs = draw.random((3, 12, 8))
    budgets = tuple(
        Budget(Column(f"cost {number}", "1", each * cost, space), float((0.6 * each.min(1) + 0.4 * each.max(1)).sum() * cost))
        for number, each in enumerate(costs)
    )
    solution = solve(
        DesignProblem(space, Column("worth", "1", values * worth, space), budgets), Reduction(), Limits(evaluations=200)
    )
    assert solution.objective is not None
    assert solution.bound is not None
