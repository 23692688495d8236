"""The declarative program: both forms agree with the exact objective and budgets at every design."""

from __future__ import annotations

import numpy as np
import pyomo.environ as pyo
import pytest

from formulation import Budget, DesignProblem, EffectiveEntropy, Measured, NotSeparable, SearchSpace, paper_space
from hardware_models import Flops, Params
from solvers import Form, Program, build_program
from tests.toys import Toy, open_toy, rich_toy, toy


def _set_auxiliary(program: Program, choices: tuple[int, ...], problem: DesignProblem) -> None:
    """Give the flow the values that the choices imply."""
    space, model = problem.space, program.model
    states = [own[item] for own, item in zip(space.state_of, choices, strict=True)]
    for (i, a, b), variable in model.flow.items():
        variable.set_value(int(states[i] == a and states[i + 1] == b))


def _violation(model: pyo.ConcreteModel, but: str = "") -> float:
    worst = 0.0
    for constraint in model.component_data_objects(pyo.Constraint, active=True):
        if but and constraint.parent_component().local_name == but:
            continue
        value = pyo.value(constraint.body)
        scale = max(abs(value), 1.0)
        if constraint.lower is not None:
            worst = max(worst, (pyo.value(constraint.lower) - value) / scale)
        if constraint.upper is not None:
            worst = max(worst, (value - pyo.value(constraint.upper)) / scale)
    return worst


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("number", range(25))
def test_program_equals_the_plain_definitions(number: int, form: Form) -> None:
    check_program(toy(number), number, form)


def check_program(given: Toy, number: int, form: Form) -> None:
    """Some designs, set in the program: its objective and whether its constraints hold are those of the problem."""
    problem = given.problem
    program = build_program(problem, form)
    draw = np.random.default_rng(number)
    for index in draw.choice(len(given.designs), size=min(6, len(given.designs)), replace=False):
        design = given.designs[index]
        program.encode(design)
        _set_auxiliary(program, problem.space.encode(design), problem)
        assert program.decode() == design
        assert pyo.value(program.model.objective) == pytest.approx(given.objectives[index], rel=1e-9)
        assert _violation(program.model, but="budgets") < 1e-9
        assert (_violation(program.model) < 1e-9) == given.feasible[index]


def test_sizes_of_the_paper_program() -> None:
    """Golden counts: 240 choices; look-ups with 5 + 3 binaries a block instead of 60."""
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9),))
    choice, lookup = (build_program(problem, form).model for form in (Form.CHOICE, Form.LOOKUP))

    def binaries(model: pyo.ConcreteModel) -> int:
        return sum(variable.is_binary() for variable in model.component_data_objects(pyo.Var))

    assert (binaries(choice), binaries(lookup)) == (4 * 60, 4 * (5 + 3))
    assert len(choice.flow) == len(lookup.flow) == 3 * 15
    assert sum(v.is_integer() and not v.is_binary() for v in lookup.component_data_objects(pyo.Var)) == 4 * 4 + 1


def test_ffn_width_is_ratio_times_width() -> None:
    problem = DesignProblem(SearchSpace.uniform(1, (512, 640), (1, 1.5), (1, 2)), EffectiveEntropy())
    program = build_program(problem, Form.LOOKUP)
    for design in problem.space:
        program.encode(design)
        assert pyo.value(program.model.ffn_width[0]) == design.blocks[0].ffn_width
        program.model.ffn_width[0] = design.blocks[0].ffn_width + 1
        assert abs(pyo.value(program.model.ffn_width_is[0].body)) >= 1 - 1e-9


def test_only_composites_are_nonlinear() -> None:
    budgets = (Budget(Params(), 45e6), Budget(EffectiveEntropy(), at_least=5000))
    problem = DesignProblem(SearchSpace.uniform(2, (512, 640), (1, 1.5), (0, 1, 3)), EffectiveEntropy(), budgets)
    for form in Form:
        model = build_program(problem, form).model
        nonlinear = [
            constraint.name
            for constraint in model.component_data_objects(pyo.Constraint)
            if constraint.body.polynomial_degree() not in (0, 1)
        ]
        assert nonlinear == ["budgets[2]"]
        assert model.objective.expr.polynomial_degree() is None
    exact = build_program(problem, Form.CHOICE, linear=True).model
    assert all(constraint.body.polynomial_degree() in (0, 1) for constraint in exact.component_data_objects(pyo.Constraint))
    assert exact.objective.expr.polynomial_degree() == 1
    with pytest.raises(ValueError, match=r"form is Form\.LOOKUP; expected Form\.CHOICE"):
        build_program(problem, Form.LOOKUP, linear=True)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("number", range(25))
def test_program_of_further_decisions(number: int, form: Form) -> None:
    check_program(rich_toy(number), number, form)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("number", range(15))
def test_program_of_rules_for_steps(number: int, form: Form) -> None:
    check_program(open_toy(number), number, form)


def test_black_box_has_no_program() -> None:
    problem = DesignProblem(
        SearchSpace.uniform(1, (512,), (1,), (1,)), EffectiveEntropy(), (Budget(Measured("t", "s", lambda d: 1.0), 1),)
    )
    with pytest.raises(NotSeparable):
        build_program(problem)
