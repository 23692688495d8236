"""Budgets from below, ranges and minimized objectives: every solver against brute force, and every question a designer asks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from formulation import (
    Architecture,
    Block,
    BlockwiseEntropy,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    FalseDeclaration,
    Measured,
    Quantity,
    SearchSpace,
    Separable,
    tabulate,
)
from formulation.architecture import Setting
from formulation.derived import negative
from formulation.problem import just_below
from formulation.problem_file import problem_from_dict, problem_to_dict
from hardware_models import Flops, Params
from hardware_models.names import quantity_from_dict, quantity_to_dict
from solvers import (
    Cbc,
    CpSat,
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    Form,
    GeneticAlgorithm,
    Highs,
    Limits,
    RandomSearch,
    Scip,
    Status,
    alternatives,
    count_near,
    exact_front,
    exhaustive_front,
    explain_infeasibility,
    price_of_budgets,
    solve,
)
from solvers.questions.alternatives import count_exhaustively
from solvers.questions.design_file import read_design
from studies.budget_flags import read_budgets
from studies.design import study as design
from tests.slow import slow
from tests.toys import RandomCost

SPACE = SearchSpace.uniform(2, (512, 640, 768), (1, 2), (1, 2, 3))
DESIGNS = tuple(SPACE)
ENTROPY, PER_BLOCK = EffectiveEntropy(), BlockwiseEntropy()
COST, PEAK = RandomCost(5), RandomCost(3, maximum=True)
LIMITS = Limits(seconds=60)


@dataclass(frozen=True)
class Debt(Separable):
    """A sum below 0: what a design owes."""

    name = "debt"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        return -block.depth * block.width / 512


@cache
def values(quantity: Quantity) -> np.ndarray:
    """By the definition, one design at a time."""
    return np.array([quantity(one) for one in DESIGNS])


def at(quantity: Quantity, share: float) -> float:
    return float(np.quantile(values(quantity), share))


def least(quantity: Quantity, share: float) -> Budget:
    return Budget(quantity, at_least=at(quantity, share))


def most(quantity: Quantity, share: float) -> Budget:
    return Budget(quantity, at(quantity, share))


PROBLEMS: dict[str, DesignProblem] = {
    "least FLOPs of so much entropy": DesignProblem(SPACE, minimize=(Flops(),), subject_to=(least(ENTROPY, 0.6),)),
    "least cost of so much blockwise entropy": DesignProblem(
        SPACE, minimize=(COST,), subject_to=(least(PER_BLOCK, 0.5), most(Params(), 0.6))
    ),
    "a range": DesignProblem(SPACE, ENTROPY, (least(Params(), 0.4), most(Params(), 0.5))),
    "a range of reals": DesignProblem(SPACE, ENTROPY, (least(COST, 0.4), most(COST, 0.5), most(Flops(), 0.5))),
    "a range of entropy": DesignProblem(SPACE, minimize=(Params(),), subject_to=(least(ENTROPY, 0.7), most(ENTROPY, 0.8))),
    "two entropies": DesignProblem(SPACE, PER_BLOCK, (least(ENTROPY, 0.5), most(Flops(), 0.6))),
    "entropy of so much entropy": DesignProblem(SPACE, ENTROPY, (least(PER_BLOCK, 0.3), most(Flops(), 0.5))),
    "least entropy": DesignProblem(SPACE, minimize=(ENTROPY,), subject_to=(least(Params(), 0.5), least(Flops(), 0.4))),
    "a peak of at least": DesignProblem(SPACE, ENTROPY, (least(PEAK, 0.7), most(Flops(), 0.4))),
    "a negative sum": DesignProblem(SPACE, ENTROPY, (most(Debt(), 0.8), least(Debt(), 0.3))),
    "an objective below 0": DesignProblem(SPACE, minimize=(Debt(),), subject_to=(most(Flops(), 0.4), least(COST, 0.2))),
    "an empty range": DesignProblem(SPACE, ENTROPY, (Budget(Params(), at_least=60e6), Budget(Params(), 59.9e6))),
    "more entropy than there is": DesignProblem(SPACE, minimize=(COST,), subject_to=(Budget(ENTROPY, at_least=1e6),)),
    "more entropy than FLOPs allow": DesignProblem(
        SPACE, minimize=(Params(),), subject_to=(least(ENTROPY, 0.9), most(Flops(), 0.3))
    ),
}
EXACT = {
    "exhaustive": Exhaustive(),
    "dp": DynamicProgramming(),
    "dp tiny": DynamicProgramming(beam=1, steps=3),
    "dp plain": DynamicProgramming(rounds=1, merging=False),
    "highs": Highs(),
    "cbc": Cbc(),
    "cpsat": CpSat(),
    "scip choice": Scip(Form.CHOICE),
    "scip lookup": Scip(Form.LOOKUP),
}
HEURISTIC = {
    "ea": EvolutionaryAlgorithm(iterations=1500),
    "ga": GeneticAlgorithm(population=20, evaluations=200),
    "random": RandomSearch(samples=2000),
}


def feasible(problem: DesignProblem) -> np.ndarray:
    kept = np.ones(len(DESIGNS), dtype=bool)
    for one in problem.subject_to:
        used = values(one.quantity)
        kept &= used <= one.bound * (1 + 1e-12) if one.upper is not None else used >= one.bound * (1 - 1e-12)
    if any(one.bound < 0 for one in problem.subject_to):
        kept = np.array([all(one.allows(one.quantity(design)) for one in problem.subject_to) for design in DESIGNS])
    return kept


def truth(problem: DesignProblem) -> float | None:
    """The best feasible objective, in its own sign."""
    reached = values(problem.goal)[feasible(problem)]
    return None if not len(reached) else float(reached.min() if problem.least else reached.max())


# An engine takes every third problem, each of them others.
ENGINES = ("highs", "cbc", "cpsat", "scip choice", "scip lookup")
PAIRS = [
    (name, problem) for number, (name, problem) in enumerate(product(EXACT, PROBLEMS)) if name not in ENGINES or not number % 3
]


@pytest.mark.parametrize(("name", "problem"), [*PAIRS, *slow(pair for pair in product(EXACT, PROBLEMS) if pair not in PAIRS)])
def test_exact_solver_proves_the_optimum(name: str, problem: str) -> None:
    asked = PROBLEMS[problem]
    solution, best = solve(asked, EXACT[name], LIMITS), truth(asked)
    if best is None:
        assert solution.status is Status.INFEASIBLE, solution.message
        return
    assert solution.status is Status.OPTIMAL, solution.message
    assert solution.objective == pytest.approx(best, rel=1e-6)
    assert solution.bound is not None
    assert (solution.bound - best) * (-1 if asked.least else 1) >= -1e-9 * abs(best)
    assert solution.gap is not None
    assert 0 <= solution.gap <= 1e-6
    assert all(used.within and used.slack >= -1e-9 * abs(used.value) for used in solution.usage)
    bounds = [point.bound for point in solution.trace if point.bound is not None]
    assert all((bound - best) * (-1 if asked.least else 1) >= -1e-6 * abs(best) for bound in bounds)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", HEURISTIC)
def test_heuristic_is_feasible(name: str, problem: str) -> None:
    asked = PROBLEMS[problem]
    solution, best = solve(asked, HEURISTIC[name], LIMITS), truth(asked)
    if best is None:
        assert solution.status is Status.UNKNOWN
        return
    assert solution.bound is None
    if solution.architecture is not None:
        assert asked.evaluate(solution.architecture).feasible
        assert solution.objective == asked.goal(solution.architecture)
        assert (best - solution.objective) * (-1 if asked.least else 1) >= -1e-9 * abs(best)


@pytest.mark.parametrize("name", ["exhaustive", "ea", "random"])
def test_black_boxes_are_minimized_and_bounded_from_below(name: str) -> None:
    layers = Measured("layers", "layers", lambda one: float(sum(one.depths)))
    asked = DesignProblem(SPACE, minimize=(Measured("cost", "1", COST),), subject_to=(Budget(layers, at_least=4),))
    best = min(cost for cost, one in zip(values(COST), DESIGNS, strict=True) if sum(one.depths) >= 4)
    assert solve(asked, {**EXACT, **HEURISTIC}[name], LIMITS).objective == pytest.approx(best)


def test_the_least_of_a_maximum_is_found_by_dynamic_programming() -> None:
    asked = DesignProblem(SPACE, minimize=(PEAK,), subject_to=(least(Params(), 0.6),))
    assert solve(asked, DynamicProgramming()).objective == truth(asked)


@pytest.mark.parametrize("quantity", [ENTROPY, PER_BLOCK, PEAK, COST, Measured("box", "1", COST)], ids=lambda one: one.name)
def test_a_negation_is_the_negation_and_its_estimators_hold(quantity: Quantity) -> None:
    turned = negative(quantity)
    assert [turned(one) for one in DESIGNS[::9]] == pytest.approx([-quantity(one) for one in DESIGNS[::9]], rel=1e-12)
    assert turned.unit == quantity.unit
    assert negative(turned) is quantity
    DesignProblem(SPACE, turned)  # whose declarations are checked


def test_underestimators_of_the_entropies_are_nowhere_above_them() -> None:
    draw = np.random.default_rng(0)
    for entropy in (ENTROPY, PER_BLOCK, EffectiveEntropy(rho=0.1, alpha=(3, 1), beta=0.2)):
        points = tabulate(entropy.parts, SPACE).evaluate(np.array([SPACE.encode(one) for one in DESIGNS]))
        for _ in range(60):
            some = points[:, draw.choice(len(DESIGNS), 4, replace=False)]
            lower, upper = some.min(axis=1), some.max(axis=1)
            slopes, constant = entropy.underestimator(lower, upper, some[:, 0] if draw.random() < 0.5 else None)
            inside = lower[:, None] + (upper - lower)[:, None] * draw.random((5, 40))
            reached = entropy.formula(inside)
            assert np.all(slopes @ inside + constant <= reached + 1e-9 * np.abs(reached))
        slopes, constants = entropy.underestimator(points.T, points.T)
        assert np.einsum("np,pn->n", slopes, points) + constants == pytest.approx(entropy.formula(points), rel=1e-9)


def test_a_false_underestimator_is_refused() -> None:
    class Overstating(EffectiveEntropy):
        def underestimator(self, lower: np.ndarray, upper: np.ndarray, near: np.ndarray | None = None) -> tuple:
            slopes, constants = super().underestimator(lower, upper, near)
            return slopes, constants + 100

    with pytest.raises(FalseDeclaration, match=r"the underestimator of effective entropy is .* above its value"):
        DesignProblem(SPACE, Overstating())


def test_a_budget_says_what_it_is() -> None:
    from_below = Budget(Params(), at_least=45e6)
    assert str(from_below) == "params ≥ 4.5e+07 parameters"
    assert (from_below.bound, from_below.side, from_below.sign) == (45e6, "at_least", "≥")
    assert from_below.allows(45e6 * (1 - 5e-13))
    assert not from_below.allows(45e6 * (1 - 2e-12))
    assert from_below.at(3) == Budget(Params(), at_least=3)
    assert from_below.constraint.limit == -from_below.limit
    assert Budget(Debt(), -3).allows(-3 * (1 - 5e-13))
    assert not Budget(Debt(), -3).allows(-3 * (1 - 2e-12))
    assert Budget(Debt(), at_least=-3).allows(-3 * (1 + 5e-13))
    for value in (5.0, -5.0, 0.0):
        assert just_below(value) < value
        assert not Budget(Debt(), just_below(value)).allows(value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"upper": 5, "at_least": 3}, "5 and at_least=3; expected one bound"),
        ({}, "None; expected one bound"),
        ({"at_least": math.nan}, "nan; expected a finite number, 0 or more parameters"),
        ({"at_least": -1}, "-1; expected a finite number, 0 or more"),
        ({"at_least": 3, "confidence": 0.9}, "confidence 0.9; expected none"),
    ],
)
def test_a_budget_that_is_none(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Budget(Params(), **arguments)


def test_a_problem_without_an_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="maximizes nothing and minimizes params and flops"):
        DesignProblem(SPACE, minimize=(Params(), Flops()))
    with pytest.raises(ValueError, match="maximizes nothing and minimizes nothing"):
        DesignProblem(SPACE)
    with pytest.raises(ValueError, match="expected a tuple"):
        DesignProblem(SPACE, minimize=Params())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a front needs a quantity in `maximize`"):
        exact_front(PROBLEMS["least entropy"])


@pytest.mark.parametrize("name", ["a range", "least FLOPs of so much entropy", "an objective below 0", "a range of reals"])
def test_prices_are_the_value_function(name: str) -> None:
    problem = PROBLEMS[name]
    for number, price in enumerate(price_of_budgets(problem, steps=2)):
        budget = problem.subject_to[number]
        upper, present = budget.upper is not None, price.present.objective
        assert price.slack >= 0
        for point in price.breakpoints:
            room = 1e-12 * abs(point.bound)
            assert point.proved
            assert point.objective == pytest.approx(_best_within(problem, number, point.bound, room), rel=1e-9)
            tighter = _best_within(problem, number, point.bound, -room)
            assert tighter > point.objective if problem.least else tighter < point.objective
        bounds = [point.bound for point in price.breakpoints]
        assert bounds == sorted(bounds, reverse=not upper)
        assert price.binds is (_best_within(problem, number, math.inf if upper else -math.inf, 0.0) != present)


def _best_within(problem: DesignProblem, number: int, bound: float, slack: float) -> float:
    """The best objective with one budget at another bound, loosened by a slack; by brute force."""
    budget, others = problem.subject_to[number], problem.subject_to[:number] + problem.subject_to[number + 1 :]
    used, reached = values(budget.quantity), values(problem.goal)
    met = feasible(DesignProblem(SPACE, problem.maximize, others, (), problem.minimize))
    met &= used <= bound + slack if budget.upper is not None else used >= bound - slack
    if not met.any():
        return math.inf if problem.least else -math.inf
    return float(reached[met].min() if problem.least else reached[met].max())


@pytest.mark.parametrize("solver", [DynamicProgramming(), Exhaustive()], ids=lambda one: one.name)
def test_a_conflict_of_a_budget_from_below(solver: object) -> None:
    budgets = (Budget(Flops(), at(Flops(), 0.3)), least(ENTROPY, 0.9), Budget(Params(), 1e9))
    diagnosis = explain_infeasibility(DesignProblem(SPACE, minimize=(COST,), subject_to=budgets), solver)  # type: ignore[arg-type]
    assert diagnosis.status is Status.INFEASIBLE
    assert diagnosis.conflict == budgets[:2]
    assert diagnosis.smallest
    flops, entropy, params = diagnosis.needs
    assert entropy.status is Status.OPTIMAL
    assert entropy.bound == pytest.approx(values(ENTROPY)[values(Flops()) <= budgets[0].limit].max(), rel=1e-12)
    assert flops.bound == values(Flops())[values(ENTROPY) >= budgets[1].limit].min()
    assert params.status is Status.INFEASIBLE
    assert "would have to be" in str(entropy)
    assert "(the greatest value)" in str(entropy)
    assert entropy.architecture is not None
    assert entropy.objective == COST(entropy.architecture)


def test_a_budget_from_below_that_is_impossible_alone() -> None:
    need = explain_infeasibility(DesignProblem(SPACE, ENTROPY, (Budget(Params(), at_least=1e12),))).needs[0]
    assert need.bound == need.alone == values(Params()).max()


def test_alternatives_and_near_designs_of_a_minimized_objective() -> None:
    problem = PROBLEMS["least cost of so much blockwise entropy"]
    reached = np.sort(values(COST)[feasible(problem)])
    found = [one.objective for one in alternatives(problem, 4)]
    assert found == pytest.approx(reached[:4], rel=1e-12)
    within = 0.1
    number = int((reached <= reached[0] * (1 + within)).sum())
    for count in (count_near(problem, reached[0], within), count_near(problem, reached[0], within, counter=count_exhaustively)):
        assert (count.number, count.exact) == (number, True)


def test_a_front_within_a_range() -> None:
    problem = DesignProblem(SPACE, ENTROPY, (least(Params(), 0.2), least(Flops(), 0.2)), minimize=(Params(),))
    front = exact_front(problem)
    assert front.complete
    assert [point.costs for point in front.points] == [point.costs for point in exhaustive_front(problem)]
    assert min(point.costs[0] for point in front.points) >= at(Params(), 0.2)


def test_budgets_are_read_from_the_command_line() -> None:
    assert read_budgets(["params>=45e6", "params<=50e6", "flops=60e9"]) == [
        (Budget(Params(), at_least=45e6), Budget(Params(), 50e6), Budget(Flops(), 60e9))
    ]
    two = read_budgets(["params>=45e6", "params<=50e6", "params=52e6"])
    assert [[one.bound for one in budgets] for budgets in two] == [[45e6, 50e6], [45e6, 52e6]]
    with pytest.raises(ValueError, match="'params>5' is not NAME<=NUMBER or NAME>=NUMBER"):
        read_budgets(["params>5"])


def test_a_problem_file_holds_both_sides_and_either_objective() -> None:
    problem = DesignProblem(SPACE, minimize=(Flops(),), subject_to=(Budget(ENTROPY, at_least=2e4), Budget(Params(), 5e7)))
    record = problem_to_dict(problem, quantity_to_dict)
    assert "maximize" not in record
    assert record["budgets"][0]["at_least"] == 2e4
    assert "upper" not in record["budgets"][0]
    assert problem_from_dict(record, quantity_from_dict) == problem
    record["budgets"] = [{"quantity": "params", "at_least": 4e7, "upper": 5e7}]
    assert problem_from_dict(record, quantity_from_dict).subject_to == (Budget(Params(), 5e7), Budget(Params(), at_least=4e7))
    record["budgets"] = [{"quantity": "params", "at_least": "4e7"}]
    with pytest.raises(ValueError, match=r"budgets\[0\]\.at_least is '4e7'; expected a number"):
        problem_from_dict(record, quantity_from_dict)


def _changed(file: Path, *path: str | int, to: object) -> Path:
    import json

    record = json.loads(file.read_text())
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    other = file.with_name("changed.json")
    other.write_text(json.dumps(record))
    return other


def test_the_command_minimizes_within_budgets_from_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE.to_dict()))
    problem = PROBLEMS["least FLOPs of so much entropy"]
    arguments = ["--space", str(space), "--minimize", "flops", "--budget", f"entropy>={problem.subject_to[0].bound!r}"]
    assert design.main([*arguments, "--output", str(tmp_path), "--alternatives", "1", "--steps", "1"]) == 0
    text, best = capsys.readouterr().out, truth(problem)
    assert best is not None
    assert f"least flops {best:,.0f} FLOPs" in text
    assert f"no design within the budgets has less than {best:,.0f} FLOPs" in text
    assert "effective entropy ≥" in text
    assert "negative" not in text
    stored = read_design(tmp_path / "design.json", quantity_from_dict)
    assert stored.record["solution"]["objective"] == stored.record["solution"]["bound"] == best
    assert stored.problem.least
    assert design.main(["--verify", str(tmp_path)]) == 0
    capsys.readouterr()
    lie = _changed(tmp_path / "design.json", "price", 0, "present", "at_least", to=1.0)
    assert design.main(["--verify", str(lie)]) == 3
    assert "the step of effective entropy at 1.0 is not what its design needs" in capsys.readouterr().err
    lie = _changed(tmp_path / "design.json", "solution", "bound", to=1.01 * best)
    assert design.main(["--verify", str(lie)]) == 3
    assert "above its own objective" in capsys.readouterr().err


def test_the_command_explains_a_conflict_from_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE.to_dict()))
    arguments = ["--space", str(space), "--budget", "params>=1e12", "--output", str(tmp_path)]
    assert design.main(arguments) == 1
    text = capsys.readouterr().out
    assert "No design meets params ≥ 1,000 G parameters (proved)." in text
    assert "proved greatest" in text
    assert design.main(["--verify", str(tmp_path)]) == 0


def test_a_trace_of_a_mirrored_solution_has_its_own_sign() -> None:
    problem = DesignProblem(SPACE, minimize=(Params(),))
    solution = solve(problem, DynamicProgramming())
    assert isinstance(solution.architecture, Architecture)
    assert solution.objective == values(Params()).min()
    assert solution.bound == pytest.approx(solution.objective, rel=1e-6)
    incumbents = [point.incumbent for point in solution.trace if point.incumbent is not None]
    assert incumbents
    assert min(incumbents) == solution.objective
