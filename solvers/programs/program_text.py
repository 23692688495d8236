"""The declarative program as text for people: Pyomo's listing, an LP file, or LaTeX."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from formulation import Composite, DesignProblem
from formulation.declarations import overestimate
from solvers.programs.pyomo_model import Form, build_program, part_ranges

if TYPE_CHECKING:
    import pyomo.environ as pyo

Style = Literal["text", "lp", "latex"]


def program_text(problem: DesignProblem, form: Form = Form.CHOICE, style: Style = "text") -> str:
    """The program of `problem` as text.

    Args:
        style: "text": sets, variables and constraints as Pyomo lists them, with their descriptions; "latex": a LaTeX document with
            every constraint in an align environment; "lp": an LP file, which any linear solver reads. LP files hold no nonlinear
            terms: of a composite objective they hold the affine overestimator on the whole space, so that the optimum of the file
            is an upper bound.

    Raises:
        ValueError: for an unknown form or style and for the look-up form as an LP file.
    """
    if style not in ("text", "lp", "latex"):
        raise ValueError(f'style is {style!r}; expected "text", "lp" or "latex"')
    if not isinstance(form, Form):
        raise ValueError(f"form is {form!r}; expected Form.CHOICE or Form.LOOKUP")
    output = io.StringIO()
    if style == "lp":
        if form is Form.LOOKUP:
            raise ValueError(
                "the look-up form has nonlinear constraints, which an LP file cannot hold; use Form.CHOICE, or text or latex"
            )
        from pyomo.repn.plugins.lp_writer import LPWriter

        LPWriter().write(_linear_model(problem), output, symbolic_solver_labels=True)
    elif style == "latex":
        from pyomo.contrib.latex_printer import latex_printer

        latex_printer(build_program(problem.maximizing, form).model, ostream=output)
    else:
        build_program(problem.maximizing, form).model.pprint(ostream=output)
    return output.getvalue()


def _linear_model(problem: DesignProblem) -> pyo.ConcreteModel:
    """The choice form with a linear objective: a composite's overestimator on the whole space."""
    import pyomo.environ as pyo

    problem = problem.maximizing
    program, objective = build_program(problem, Form.CHOICE), problem.goal
    if isinstance(objective, Composite):
        coefficients, constant = overestimate(objective, *part_ranges(objective, problem.space))
        expression = sum(slope * part for slope, part in zip(coefficients.tolist(), program.parts, strict=True)) + float(constant)
        program.model.del_component(program.model.objective)
        program.model.objective = pyo.Objective(expr=expression / program.unit, sense=pyo.maximize)
    return program.model
