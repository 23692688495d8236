"""Unions of spaces: one proof over all parts, against brute force over their designs; what is said after a limit."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from formulation import (
    Architecture,
    Block,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    SearchSpace,
    SeveralSpaces,
    SpaceUnion,
    fingerprint,
    paper_space,
    tabulate,
)
from formulation.problem_file import problem_from_dict, problem_to_dict, read_one_space, read_space
from formulation.union import decided
from hardware_models import Flops, Params
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import (
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    Limits,
    RandomSearch,
    Run,
    Status,
    alternatives,
    build_program,
    count_near,
    exact_front,
    exhaustive_front,
    explain_infeasibility,
    price_of_budgets,
    solve,
)
from solvers.base import Answer
from solvers.questions.alternatives import apart, count_exhaustively
from solvers.questions.text import parts_text
from tests.slow import slow
from tests.solvers.test_conformance import ENGINES, EXACT
from tests.toys import Toy, rich_toy, toy

FEW = (2, 6, 8, 20, 34)
"""Toys whose union some solver takes its time for."""


@cache
def union_of(number: int, kind: Callable[[int], Toy] = toy) -> DesignProblem:
    """The budgets of a toy over its own space, the same with two vocabularies, and the space of the next toy with a third."""
    given, other = kind(number).problem, kind(number + 1).problem.space
    parts = (given.space, replace(given.space, vocabulary=8192), replace(other, vocabulary=16384))
    return replace(given, space=SpaceUnion(parts))


def truth(problem: DesignProblem) -> dict[Architecture, float]:
    """The designs that meet the budgets, by the plain definitions, with their objectives."""
    each = ((design, problem.evaluate(design)) for part in problem.space.parts for design in part)
    return {design: found.objective for design, found in each if found.feasible}


def best(problem: DesignProblem) -> float | None:
    return (min if problem.least else max)(truth(problem).values(), default=None)


def check(problem: DesignProblem, found: object, value: float | None) -> None:
    """Status, value and bounds of a solution that is proved."""
    solution = found
    assert isinstance(solution, type(solve(problem, RandomSearch(samples=1), Limits(evaluations=3))))
    if value is None:
        assert solution.status is Status.INFEASIBLE
        assert all(part.infeasible for part in solution.parts)
        return
    assert solution.status is Status.OPTIMAL
    assert solution.objective == pytest.approx(value, rel=1e-6)
    assert solution.architecture in problem.space
    worst = max if not problem.least else min
    assert solution.bound == pytest.approx(worst(part.bound for part in solution.parts if part.bound is not None), rel=1e-12)
    for part, own in zip(solution.parts, problem.parts, strict=True):
        true = best(own)
        assert part.infeasible <= (true is None)
        if true is not None:
            assert part.bound is not None
            sign = -1 if problem.least else 1
            assert sign * part.bound >= sign * true - 1e-9 * abs(true)


CASES = [
    (name, number) if name not in ENGINES or number in FEW[:2] else slow([(name, number)])[0]
    for name in EXACT
    for number in (range(0, 24) if name not in ENGINES else FEW)
]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_the_best_of_all_parts(name: str, number: int) -> None:
    problem = union_of(number)
    check(problem, solve(problem, EXACT[name], Limits(seconds=120)), best(problem))


FURTHER = ("dp", "exhaustive", "scip choice", "highs", "cpsat")


@pytest.mark.parametrize(
    ("name", "number"),
    [*product(FURTHER, FEW[:2]), *product(FURTHER[:1], range(10, 20)), *slow(product(FURTHER, range(100, 140)))],
)
def test_the_best_of_all_parts_of_further_decisions(name: str, number: int) -> None:
    problem = union_of(number, rich_toy)
    check(problem, solve(problem, EXACT[name], Limits(seconds=120)), best(problem))


@pytest.mark.parametrize("name", ["dp", "exhaustive", *slow(["scip choice", "highs", "cpsat"])])
def test_the_least_of_all_parts(name: str) -> None:
    for number in (6, 20):
        given = union_of(number)
        some = np.median(list(truth(replace(given, subject_to=())).values()))
        problem = DesignProblem(given.space, minimize=(Params(),), subject_to=(Budget(given.goal, at_least=float(some)),))
        check(problem, solve(problem, EXACT[name], Limits(seconds=120)), best(problem))


def test_that_there_is_no_design_is_proved_of_every_part() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    union = SpaceUnion((space, replace(space, vocabulary=1000)))
    least = min(Params()(design) for design in union)
    for upper, status in ((least, Status.OPTIMAL), (least - 1, Status.INFEASIBLE)):
        problem = DesignProblem(union, EffectiveEntropy(), (Budget(Params(), upper),))
        solution = solve(problem, DynamicProgramming())
        assert solution.status is status
        assert solution.parts[0].infeasible
    diagnosis = explain_infeasibility(problem)
    assert diagnosis.needs[0].bound == least


@dataclass(frozen=True)
class Watched:
    """Exhaustive search that notes what it is given, and may claim less than it knows."""

    seen: list[tuple[SearchSpace, Run]]
    claims: bool = True
    name = "watched"
    distributions: tuple[str, ...] = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        self.seen.append((problem.space, run))
        answer = Exhaustive().search(problem, run)
        return answer if self.claims else replace(answer, bound=None)


SMALL = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
LARGE = SearchSpace.uniform(2, (768, 1024), (1, 2), (1, 2), vocabulary=1000)


def test_a_part_that_the_best_design_closed_is_not_called_open() -> None:
    """Its bound may lie above the design by rounding, where the gap of the whole is 0."""
    problem = union_of(1)
    solution = solve(problem, DynamicProgramming())
    assert solution.objective is not None
    assert solution.architecture is not None
    above = math.nextafter(solution.objective, math.inf)
    parts = tuple(part if solution.architecture in part.space else replace(part, bound=above) for part in solution.parts)
    lines = parts_text(problem, replace(solution, gap=0.0, bound=solution.objective, parts=parts)).splitlines()
    assert sum("nothing better (proved)" in line for line in lines) == len(parts) - 1
    far = tuple(replace(part, bound=1.1 * solution.objective) for part in parts)
    found = replace(solution, status=Status.FEASIBLE, gap=0.1, bound=1.1 * solution.objective, parts=far)
    assert parts_text(problem, found).count("open") == len(parts) - 1


def test_a_part_whose_bound_is_not_above_the_best_is_not_searched() -> None:
    seen: list[tuple[SearchSpace, Run]] = []
    problem = DesignProblem(SpaceUnion((SMALL, LARGE)), Flops())
    solution = solve(problem, Watched(seen))
    assert [space for space, _ in seen] == [LARGE]
    assert solution.objective == max(Flops()(design) for design in LARGE)
    assert solution.parts[0].bound is not None
    assert max(Flops()(design) for design in SMALL) <= solution.parts[0].bound < solution.objective
    assert "part 1 of" not in solution.message
    assert "vocabulary 50257: closed by its bound" in solution.message


def test_the_best_so_far_is_the_cut_off_of_the_others_and_a_start_goes_to_its_part() -> None:
    seen: list[tuple[SearchSpace, Run]] = []
    problem = DesignProblem(SpaceUnion((SMALL, replace(SMALL, vocabulary=1000))), EffectiveEntropy(), (Budget(Flops(), 20e9),))
    start = next(iter(truth(problem.parts[1])))
    solution = solve(problem, Watched(seen), Limits(start=start))
    assert [run.cutoff for _, run in seen] == [problem.objective(start), solution.objective]
    assert [run.limits.start for _, run in seen] == [None, start]
    assert solution.objective == best(problem)


def test_only_bounds_prove() -> None:
    problem = DesignProblem(SpaceUnion((SMALL, replace(SMALL, vocabulary=1000))), EffectiveEntropy(), (Budget(Flops(), 20e9),))
    solution = solve(problem, Watched([], claims=False))
    assert solution.status is Status.FEASIBLE
    assert solution.objective == best(problem)
    heuristic = solve(problem, EvolutionaryAlgorithm(iterations=300), Limits(seed=1))
    assert heuristic.status is Status.FEASIBLE
    assert heuristic.objective <= solution.objective
    assert heuristic == replace(
        solve(problem, EvolutionaryAlgorithm(iterations=300), Limits(seed=1)),
        seconds=heuristic.seconds,
        trace=heuristic.trace,
        parts=heuristic.parts,
    )


@pytest.mark.parametrize("solver", [DynamicProgramming(), Exhaustive(), RandomSearch(samples=500)])
def test_limits_are_kept_and_said(solver: object) -> None:
    problem = DesignProblem(decided(paper_space(), vocabulary=(4096, 8192)), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    solution = solve(problem, solver, Limits(seconds=1e-9))  # type: ignore[arg-type]
    assert solution.status in (Status.UNKNOWN, Status.FEASIBLE)
    assert "time limit reached" in solution.message
    if isinstance(solver, RandomSearch):
        solution = solve(problem, solver, Limits(evaluations=400))
        assert 300 <= solution.evaluations <= 400
        assert solution.status is Status.FEASIBLE
        assert {part.objective is None for part in solution.parts} == {False}


@dataclass(frozen=True)
class Interrupted:
    """Searches the first part it is given, and is interrupted in the second."""

    seen: list[SearchSpace]
    name = "interrupted"
    distributions: tuple[str, ...] = ()

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        self.seen.append(problem.space)
        if len(self.seen) == 2:
            signal.raise_signal(signal.SIGINT)
            assert run.interrupted
            return Answer(None, message=run.why_stopped)
        return Exhaustive().search(problem, run)


def test_ctrl_c_ends_the_whole_search_with_what_is_known() -> None:
    parts = tuple(replace(SMALL, vocabulary=vocabulary) for vocabulary in (1000, 2000, 3000))
    problem = DesignProblem(SpaceUnion(parts), EffectiveEntropy(), (Budget(Flops(), 20e9),))
    solver = Interrupted([])
    solution = solve(problem, solver)
    assert len(solver.seen) == 2
    assert solution.interrupted
    assert solution.status is Status.FEASIBLE
    assert solution.objective == best(problem.parts[0])
    assert "interrupted by the user" in solution.message
    assert "vocabulary 3000: not searched" in solution.message


@pytest.mark.parametrize("number", [2, 6, 20])
def test_the_trace_rises_to_the_optimum_under_falling_bounds(number: int) -> None:
    problem = union_of(number)
    solution = solve(problem, DynamicProgramming())
    values = [point.incumbent for point in solution.trace if point.incumbent is not None]
    bounds = [point.bound for point in solution.trace if point.bound is not None]
    assert values == sorted(values)
    assert bounds == sorted(bounds, reverse=True)
    assert solution.trace[-1].incumbent == solution.objective
    assert [point.seconds for point in solution.trace] == sorted(point.seconds for point in solution.trace)
    assert all(bound >= (best(problem) or -math.inf) * (1 - 1e-9) for bound in bounds)


def test_prices_are_those_of_brute_force() -> None:
    problem = union_of(20)
    for price, budget in zip(price_of_budgets(problem, steps=2), problem.subject_to, strict=True):
        others = replace(problem, subject_to=tuple(each for each in problem.subject_to if each is not budget))
        values = truth(others)
        assert price.unlimited == pytest.approx(max(values.values()))
        for point in price.breakpoints:
            assert point.proved
            assert point.objective == pytest.approx(max(v for d, v in values.items() if budget.value(d) <= point.bound))


@pytest.mark.parametrize("solver", [DynamicProgramming(), Exhaustive()])
def test_alternatives_differ_in_blocks_or_in_what_surrounds_them(solver: object) -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    longer = SearchSpace.uniform(3, (256, 512), (1,), (1, 2))
    for union in (SpaceUnion((space, replace(space, vocabulary=1000))), SpaceUnion((space, longer))):
        problem = DesignProblem(union, EffectiveEntropy(), (Budget(Flops(), 20e9), Budget(Params(), 45e6)))
        for differing in (1, 3):
            left = truth(problem)
            for solution in alternatives(problem, 4, differing, solver):  # type: ignore[arg-type]
                if solution.architecture is None:
                    assert not left
                    break
                assert solution.objective == pytest.approx(max(left.values()), rel=1e-9)
                left = {d: value for d, value in left.items() if apart(problem, solution.architecture, d) >= differing}
    one = Architecture((Block(256, 256, 1), Block(512, 512, 1)))
    assert apart(problem, one, replace(one, vocabulary=7, shared=False)) == 2
    assert apart(problem, one, Architecture((*one.blocks, Block(512, 512, 1)))) == 3


def test_near_designs_are_counted_in_all_parts() -> None:
    problem = union_of(20)
    value = best(problem)
    assert value is not None
    number = sum(each >= value - 0.05 * abs(value) for each in truth(problem).values())
    for counter in ({}, {"counter": count_exhaustively}):
        count = count_near(problem, value, 0.05, **counter)  # type: ignore[arg-type]
        assert (count.number, count.exact) == (number, True)
    assert not count_near(problem, value, 0.05, Limits(seconds=1e-9), count_exhaustively).exact


def test_fronts() -> None:
    parts = (SMALL, replace(SMALL, vocabulary=1000, shared=False))
    problem = DesignProblem(SpaceUnion(parts), EffectiveEntropy(), minimize=(Params(), Flops()))
    front = exact_front(problem)
    assert front.complete
    expected = exhaustive_front(problem)
    assert [point.costs for point in front.points] == [point.costs for point in expected]
    values = {(problem.objective(d), Params()(d), Flops()(d)) for d in problem.space}  # type: ignore[attr-defined]
    dominated = {a for a in values for b in values if b[0] >= a[0] and b[1] <= a[1] and b[2] <= a[2] and b != a}
    assert {point.costs for point in front.points} == {value[1:] for value in values - dominated}


def test_files_and_fingerprints_hold_unions() -> None:
    problem = DesignProblem(SpaceUnion((SMALL, LARGE)), EffectiveEntropy(), (Budget(Params(), 45e6),))
    record = problem_to_dict(problem, quantity_to_dict)
    again = problem_from_dict(record, quantity_from_dict)
    assert again == problem
    assert fingerprint(again) == fingerprint(problem)
    assert fingerprint(problem) != fingerprint(replace(problem, space=SpaceUnion((LARGE, SMALL))))
    named = problem_from_dict(record | {"space": {"union": ["paper", {**SMALL.to_dict(), "vocabulary": 9}]}}, quantity_from_dict)
    assert named.space.parts == (paper_space(), replace(SMALL, vocabulary=9))


def test_commands_that_read_one_space_refuse_a_file_of_several(tmp_path: Path) -> None:
    file = tmp_path / "several.json"
    file.write_text(json.dumps(SpaceUnion((SMALL, LARGE)).to_dict()))
    assert read_space(str(file)) == SpaceUnion((SMALL, LARGE))
    with pytest.raises(ValueError, match=r"several\.json holds a union of 2 spaces; expected a single one here"):
        read_one_space(str(file))
    assert read_one_space("paper") == paper_space()


@pytest.mark.parametrize(
    ("union", "said"),
    [
        ([], "parts is|expected two or more|at least"),
        (["paper"], "a single space; expected two or more"),
        (["paper", "paper"], "parts 1 and 2 of the union share the design 512/512x1"),
        (["paper", "papier"], "unknown space 'papier'"),
        ("paper", "union is 'paper'"),
    ],
)
def test_what_is_no_union(union: object, said: str) -> None:
    record = problem_to_dict(DesignProblem(SMALL, Params()), quantity_to_dict)
    with pytest.raises(ValueError, match=said):
        problem_from_dict(record | {"space": {"union": union}}, quantity_from_dict)


def test_parts_share_no_design() -> None:
    narrow, wide = (SearchSpace.uniform(2, widths, (1,), (0, 1)) for widths in ((256, 512), (512, 768)))
    with pytest.raises(ValueError, match=r"share the design 512/512x[01] 512/512x[01]"):
        SpaceUnion((narrow, wide))
    assert SpaceUnion((narrow, replace(wide, menus=wide.menus[:1]))).size == narrow.size + 2
    rising = replace(wide, step=lambda left, right: left.width < right.width)
    assert SpaceUnion((narrow, rising)).size == len(set(narrow) | set(rising))


def test_what_tells_parts_apart() -> None:
    union = decided(SMALL, vocabulary=(1000, 2000), shared=(True, False))
    assert union.labels == tuple(  # type: ignore[union-attr]
        f"shared {shared}, vocabulary {vocabulary}" for vocabulary in (1000, 2000) for shared in ("yes", "no")
    )
    assert union.decisions == SMALL.decisions + 2
    assert union.size == 4 * SMALL.size
    design = next(iter(union.parts[3]))
    assert union.label_of(design) == "shared no, vocabulary 2000"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"none of the 4 spaces of the union holds the design; of .*: block 1 is 64/64x1"):
        union.encode(Architecture((Block(64, 64, 1), Block(64, 64, 1)), vocabulary=1000))
    other = SearchSpace.uniform(2, (256, 512), (1, 2), (3,))
    assert SpaceUnion((SMALL, other)).labels == ("depth 1 or 2", "depth 3")
    assert SpaceUnion((SMALL, SearchSpace.uniform(3, (256, 512), (1, 2), (1, 2)))).labels == ("part 1", "part 2")


def test_a_family_of_one_width_has_a_space_for_each() -> None:
    union = decided(SMALL, family=("merino", "llama"))
    merino, *llama = union.parts
    assert merino == SMALL
    assert [(part.embedding_width, part.tied, part.family) for part in llama] == [(256, False, "llama"), (512, False, "llama")]
    expected = {tuple((b.width, b.ffn_width, b.depth) for b in design.blocks) for design in SMALL if len(set(design.widths)) == 1}
    found = {tuple((b.width, b.ffn_width, b.depth) for b in design.blocks) for part in llama for design in part}
    assert found == expected
    assert decided(SMALL, family=("llama",), embedding_width=(512,)).parts == (llama[1],)
    with pytest.raises(ValueError, match=r"no design of the space is of the family llama, .* make them equal"):
        decided(SMALL, family=("llama",), embedding_width=(300,))


def test_a_head_that_the_space_ties_stays_tied_in_another_family() -> None:
    """Which families tie by habit is no reason to compare a tied network with an untied one."""
    llama = SearchSpace.uniform(2, (128,), (2, 3), family="llama", tied=True)
    assert [(part.family, part.tied) for part in decided(llama, family=("llama", "qwen3")).parts] == [
        ("llama", True),
        ("qwen3", True),
    ]
    as_family = replace(llama, tied=False)
    assert [part.tied for part in decided(as_family, family=("qwen3", "gpt2")).parts] == [False, True]
    assert [part.tied for part in decided(llama, family=("qwen3",), tied=(False,)).parts] == [False]


def test_what_reads_one_space_says_so() -> None:
    union = SpaceUnion((SMALL, LARGE))
    problem = DesignProblem(union, EffectiveEntropy(), (Budget(Params(), 45e6),))
    for refused in (lambda: build_program(problem), lambda: tabulate([Params()], union), lambda: union.sample(None, 3)):  # type: ignore[arg-type, attr-defined]
        with pytest.raises(SeveralSpaces, match=r"the space is a union of 2, of which \w+ is not known as a whole"):
            refused()
    assert not hasattr(union, "something else")
