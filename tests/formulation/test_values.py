"""Every number that a quantity's code returns is a finite float64, or an error names the quantity and the design."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from formulation import Budget, Composite, DesignProblem, EffectiveEntropy, Measured, SearchSpace, Separable, Undefined, evaluator
from formulation.declarations import FalseDeclaration
from formulation.table import tabulate
from formulation.values import value_of
from hardware_models import Params
from solvers import (
    DynamicProgramming,
    EvolutionaryAlgorithm,
    Exhaustive,
    GeneticAlgorithm,
    RandomSearch,
    exact_front,
    solve,
)

SPACE = SearchSpace.uniform(3, (256, 512, 768), (1, 2), (1, 2, 3))


@dataclass(frozen=True)
class Cost(Separable):
    """A sum whose block terms come in any numeric type."""

    convert: Any
    scale: float = 1.0

    name = "cost"
    unit = "1"

    def block(self, block, setting):
        return self.convert(self.scale * block.depth * (4 * block.width**2 + 2 * block.width * block.ffn_width))


@pytest.mark.parametrize(
    ("convert", "scale"), [(np.int32, 100), (np.int16, 1e-3), (np.uint8, 1e-5), (np.float32, 1 / 3), (np.float16, 1e-3)]
)
def test_terms_of_small_types_add_up_in_float64(convert, scale) -> None:
    cost = Cost(convert, scale)
    right = np.array([sum(float(cost.block(block, SPACE)) for block in design.blocks) for design in SPACE])
    choices = np.array(list(SPACE.iterate_choices()))
    assert np.array_equal([cost(design) for design in SPACE], right)
    assert np.array_equal(evaluator(cost, SPACE)(choices), right)
    # A budget that half of the designs exceed is met by the others alone.
    cap = float(np.median(right))
    problem = DesignProblem(SPACE, Params(), (Budget(cost, cap),))
    truth = max(Params()(design) for design, value in zip(SPACE, right, strict=True) if value <= cap)
    for solver in (DynamicProgramming(), Exhaustive()):
        assert solve(problem, solver).objective == truth


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, None, "3", 1j, [1.0], np.array([1.0, 2.0]), np.nan, 10**400, Decimal("NaN")]
)
def test_what_is_not_a_finite_number_is_refused_by_name(value) -> None:
    black_box = Measured("score", "1", lambda design: value if design.depths == (2, 1, 1) else 1.0)
    problem = DesignProblem(SPACE, black_box)
    for solver in (Exhaustive(), EvolutionaryAlgorithm(iterations=20_000), GeneticAlgorithm(), RandomSearch(20_000)):
        with pytest.raises(Undefined, match=r"score has no value for the design \S+x2 \S+x1 \S+x1: "):
            solve(problem, solver)
    with pytest.raises(Undefined, match=r"cost has no value for block 256/256x1 at position 1: "):
        tabulate([Cost(lambda _: value)], SPACE)


@pytest.mark.parametrize("value", [3, 3.0, True, np.float16(3), np.int8(3), np.array(3.0), Decimal(3)])
def test_every_real_type_is_taken_as_float64(value) -> None:
    taken = value_of(Measured("score", "1", lambda design: value), SPACE.decode((0, 0, 0)))
    assert type(taken) is float
    assert taken == float(value)


def test_an_exception_of_a_users_function_names_quantity_and_design() -> None:
    def fails(design):
        raise KeyError("no such design")

    score = Measured("score", "1", fails)
    with pytest.raises(Undefined, match=r"score .*256/256x1 .*KeyError"):
        solve(DesignProblem(SPACE, score), Exhaustive())
    with pytest.raises(Undefined, match="score has no value"):
        solve(DesignProblem(SPACE, Params(), (Budget(score, 1),)), RandomSearch(10))


def test_a_missing_package_stays_an_import_error() -> None:
    def needs(design):
        raise ImportError("pip install something")

    with pytest.raises(ImportError, match="pip install something"):
        solve(DesignProblem(SPACE, Measured("score", "1", needs)), Exhaustive())


@dataclass(frozen=True)
class Joints(Separable):
    """The number of joining maps."""

    name = "joints"
    unit = "1"

    def block(self, block, setting):
        return 0.0

    def joint(self, left, right, setting):
        return 1.0


@dataclass(frozen=True)
class Undefinable(Composite):
    """0/0 on the designs without a joint, Params elsewhere."""

    name = "undefined"
    unit = "1"
    parts = (Joints(), Params())
    signs = (1, 1)

    def formula(self, parts):
        with np.errstate(all="ignore"):
            return np.divide(parts[0], parts[0]) * parts[1]

    def overestimator(self, lower, upper, near=None):
        coefficients = np.zeros(np.shape(lower))
        coefficients[..., 1] = 1
        return coefficients, np.zeros(np.shape(lower)[:-1])


def test_a_formula_that_is_undefined_somewhere_is_refused_with_the_design() -> None:
    assert sum(math.isnan(Undefinable()(design)) for design in SPACE) == 6**3
    for pose in (
        lambda: DesignProblem(SPACE, Undefinable()),
        lambda: DesignProblem(SPACE, Params(), (Budget(Undefinable(), 1e9),)),
        lambda: DesignProblem(SPACE, Params(), report=(Undefinable(),)),
        lambda: exact_front(DesignProblem(SPACE, Undefinable(), minimize=(Params(),))),
    ):
        with pytest.raises(Undefined, match=r"undefined .*768/\S+ 768/\S+ 768/\S+.*nan"):
            pose()


@dataclass(frozen=True)
class Rare(Undefinable):
    """Undefined at one design that no sample meets: where the parameters are `bad`."""

    bad: float = 0.0

    name = "rare"

    def formula(self, parts):
        return np.where(np.asarray(parts[1]) == self.bad, np.nan, parts[1])[()]


def test_an_undefined_value_that_no_sample_meets_is_an_error_when_it_is_made() -> None:
    values = np.array([Params()(design) for design in SPACE])
    best = float(values.max())
    second = float(np.sort(np.unique(values))[-2])
    for bad in (best, second):
        rare = Rare(bad=bad)
        for solver in (Exhaustive(), DynamicProgramming()):
            if bad == second and isinstance(solver, DynamicProgramming):
                continue  # it proves the best one without looking at the second
            try:
                problem = DesignProblem(SPACE, rare)
            except Undefined:
                continue
            with pytest.raises(Undefined, match="rare has no value for the design"):
                solve(problem, solver)


@dataclass(frozen=True)
class Product(Composite):
    """layers · parameters, with a declaration that can be falsified piece by piece."""

    signs_: tuple[int, ...] = (1, 1)
    shift: float = 0.0
    shape: int = 2

    name = "product"
    unit = "1"
    parts = (Joints(), Params())

    @property
    def signs(self):
        return self.signs_

    def formula(self, parts):
        return (1 + parts[0]) * parts[1]

    def overestimator(self, lower, upper, near=None):
        # McCormick: (1 + a)·p ≤ (1 + a⁺)·p + p⁻·(a − a⁺)
        lower, upper = np.asarray(lower), np.asarray(upper)
        coefficients = np.stack([lower[..., 1], 1 + upper[..., 0]], axis=-1)
        constant = -lower[..., 1] * upper[..., 0] + self.shift
        return (coefficients[..., : self.shape], constant) if self.shape < 3 else (coefficients, constant[..., None])


def test_a_true_declaration_is_accepted() -> None:
    assert solve(DesignProblem(SPACE, Product()), DynamicProgramming()).objective == max(Product()(design) for design in SPACE)


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (Product(signs_=(1, -1)), r"declares the sign -1 for its part params, but from the design \S+x"),
        (Product(signs_=(-1, 1)), r"declares the sign -1 for its part joints, but from the design \S+x"),
        (Product(signs_=(1,)), r"has 2 parts and the signs \(1,\)"),
        (Product(signs_=(1, 0)), r"has 2 parts and the signs \(1, 0\)"),
        (Product(shift=-1e4), r"the overestimator of product is \S+ at the design \S+x\d \S+ \S+, below its value"),
        (Product(shift=math.nan), r"the overestimator of product is not finite on the box between the designs"),
        (Product(shape=1), r"the overestimator of product returns arrays of shapes"),
        (Product(shape=3), r"the overestimator of product returns arrays of shapes"),
    ],
)
def test_a_false_declaration_is_an_error_that_shows_the_design(product, message) -> None:
    with pytest.raises((FalseDeclaration, Undefined), match=message):
        DesignProblem(SPACE, product)


@dataclass(frozen=True)
class TwoFaced(Separable):
    """Its call says something else than its terms."""

    name = "two-faced"
    unit = "1"

    def block(self, block, setting):
        return 1.0

    def __call__(self, architecture):
        return 5.0


def test_a_separable_that_is_not_the_sum_of_its_terms_is_refused() -> None:
    with pytest.raises(FalseDeclaration, match=r"two-faced of the design \S+x.* is 5, but its terms add up to 3"):
        DesignProblem(SPACE, Params(), (Budget(TwoFaced(), 10),))


def test_terms_that_overflow_only_in_their_sum_are_refused() -> None:
    with pytest.raises(Undefined, match="cost adds up beyond the largest float64"):
        DesignProblem(SPACE, Cost(lambda value: 1e308))


def test_the_checks_call_no_black_box() -> None:
    calls = []
    DesignProblem(SPACE, Measured("score", "1", lambda design: calls.append(design) or 1.0))
    assert not calls


def test_the_papers_objective_passes_on_odd_settings() -> None:
    for rho, beta in ((1e-6, 1 / 16), (0.01, 0.0), (1e4, 1 / 8)):
        DesignProblem(SPACE, EffectiveEntropy(rho=rho, beta=beta))


def test_an_undefined_value_among_many_is_refused_where_they_are_evaluated() -> None:
    values = np.array([Params()(design) for design in SPACE])
    choices = np.array(list(SPACE.iterate_choices()))
    first = int(values.argmax())
    rare = Rare(bad=float(values[first]))
    with pytest.raises(Undefined, match=f"rare .*{SPACE.decode(choices[first])}.*nan"):
        evaluator(rare, SPACE)(choices)
    assert len(evaluator(rare, SPACE)(choices[:first])) == first


def test_a_quantity_without_a_name_or_unit_is_refused() -> None:
    class Nameless(Separable):
        unit = "J"

        def block(self, block: Any, setting: Any) -> float:
            return 1.0

    class Unitless(Nameless):
        name = "energy"
        unit = None  # type: ignore[assignment]

    space = SearchSpace.uniform(2, (512, 640), (1, 2), (1, 2))
    for quantity, lacking in ((Nameless(), "Nameless lacks a name"), (Unitless(), "Unitless lacks a unit")):
        with pytest.raises(ValueError, match=lacking):
            DesignProblem(space, quantity)
        with pytest.raises(ValueError, match=lacking):
            DesignProblem(space, EffectiveEntropy(), (Budget(quantity, 1.0),))
