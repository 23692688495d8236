"""The choice form as arrays: it agrees with the declarative program at every design, and its rows err on the safe side only."""

from __future__ import annotations

import numpy as np
import pytest

from formulation import Budget, DesignProblem, EffectiveEntropy, NotSeparable, SearchSpace, tabulate
from hardware_models import Flops, Params
from solvers.programs.linear_form import LinearForm, LinearRow, formulas, hidden, power_of_two, prices
from tests.fuzz import Product
from tests.solvers.test_soundness import Drawn
from tests.toys import RandomCost, toy


def _meets(row: LinearRow, z: np.ndarray) -> bool:
    return bool(row.low <= row.coefficients @ z[row.columns] <= row.high)


@pytest.mark.parametrize("number", range(50))
def test_its_points_are_the_feasible_designs(number: int) -> None:
    """Golden truth: the plain definitions, design by design."""
    given = toy(number)
    form = LinearForm(given.problem)
    for design, feasible in zip(given.designs, given.feasible, strict=True):
        z = form.point(design)
        assert form.decode(z) == design
        assert (form.possible and bool(np.all(z <= form.open)) and all(_meets(row, z) for row in form.rows)) == feasible


@pytest.mark.parametrize("number", range(20))
def test_totals_are_the_quantities(number: int) -> None:
    given = toy(number)
    form = LinearForm(DesignProblem(given.problem.space, RandomCost(1)))
    for quantity in (RandomCost(5), Params(), Drawn(3, -1e6, 1e6)):
        table = tabulate([quantity], given.problem.space)
        total = form.total(form.terms(table, 0), float(table.fixed[0]), float(table.sizes[0]))
        assert total.coefficients.min() == 0
        for design in given.designs[:50]:
            value = float(total.coefficients @ form.point(design)) + total.constant
            assert abs(value - quantity(design)) <= total.error
            assert 0 <= value - total.constant <= total.spread + total.error


def test_a_design_at_its_limit_is_kept_and_one_above_whole_numbers_is_not() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    for design in space:
        for cost in (Flops(), Params(), RandomCost(7), Drawn(2, -50, 60)):
            value = cost(design)
            if value > 0:
                form, z = LinearForm(DesignProblem(space, RandomCost(1), (Budget(cost, value),))), None
                z = form.point(design)
                assert form.possible
                assert np.all(z <= form.open)
                assert all(_meets(row, z) for row in form.rows)
        form = LinearForm(DesignProblem(space, RandomCost(1), (Budget(Params(), Params()(design) - 1),)))
        z = form.point(design)
        assert not (form.possible and np.all(z <= form.open) and all(_meets(row, z) for row in form.rows))


def test_the_price_of_a_budget_on_the_objective_itself_is_one() -> None:
    space, gain = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2)), Drawn(4, 1, 2)
    form = LinearForm(DesignProblem(space, gain, (Budget(gain, 2.9),)))
    table = tabulate([gain], space)
    given, factor = form.program(form.total(form.terms(table, 0), 0.0, 10.0), [])
    for row, price in zip(given.rows, prices(given), strict=True):
        if row is form.budgets[0]:
            assert price * row.scale / factor == pytest.approx(1)
        else:
            assert price == 0  # rows that make a design, whose multipliers may be of either sign


def test_budgets_that_are_not_linear_are_left_to_the_boxes() -> None:
    space = SearchSpace.uniform(2, (256, 512), (1, 2), (1, 2))
    problem = DesignProblem(space, Params(), (Budget(EffectiveEntropy(), 20_000), Budget(Flops(), sorted(map(Flops(), space))[20])))
    assert set(LinearForm(problem).budgets) == {1}
    assert formulas(problem) == [(EffectiveEntropy(), problem.constraints[0].limit)]


def test_budgets_on_a_formula_of_a_maximum_are_refused() -> None:
    space = SearchSpace.uniform(1, (256, 512), (1, 2), (1, 2))
    product = Product((RandomCost(1, maximum=True), RandomCost(2)))
    for budget in (Budget(product, 2.0), Budget(product, at_least=2.0)):
        with pytest.raises(NotSeparable, match="DynamicProgramming"):
            formulas(DesignProblem(space, Params(), (budget,)))


@pytest.mark.parametrize(
    ("size", "factor"), [(1.0, 64.0), (100.0, 1.0), (1e-290, 2.0**970), (1e-305, 2.0**1000), (5e-324, 2.0**1000), (0.0, 1.0)]
)
def test_scales_stay_within_what_a_float_holds(size: float, factor: float) -> None:
    assert power_of_two(100.0, size) == factor


def test_what_cannot_be_scaled_to_the_size_of_an_objective_may_hide_more() -> None:
    assert hidden(1.0) == 3e-9
    assert hidden(0.0) == 0.0
    # 2⁻¹⁰²⁰ is scaled to 2⁻²⁰ instead of 2¹⁷: an absolute tolerance is 2³⁷ times as large a share of it.
    assert hidden(2.0**-1020) == 3e-9 * 2.0**37 * 2.0**-1020
