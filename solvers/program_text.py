"""The declarative program as text for people: Pyomo's listing, an LP file, or LaTeX."""

from __future__ import annotations

import io
from typing import Literal

from pyomo.contrib.latex_printer import latex_printer
from pyomo.repn.plugins.lp_writer import LPWriter

from formulation import DesignProblem
from solvers.linear_cells import linear_program
from solvers.pyomo_model import Form, build_program

Style = Literal["text", "lp", "latex"]


def program_text(problem: DesignProblem, form: Form = Form.CHOICE, style: Style = "text") -> str:
    """The program of `problem` as text.

    style  "text": sets, variables and constraints as Pyomo lists them, with their descriptions; "latex": a LaTeX document with
           every constraint in an align environment; "lp": an LP file, which any linear solver reads. LP files hold no
           nonlinear terms: of a composite objective they hold the affine overestimator on the whole space, so that the
           optimum of the file is an upper bound.
    Raises ValueError for an unknown style and for the look-up form as an LP file.
    """
    if style not in ("text", "lp", "latex"):
        raise ValueError(f'style is {style!r}; expected "text", "lp" or "latex"')
    output = io.StringIO()
    if style == "lp":
        if form is Form.LOOKUP:
            raise ValueError(
                "the look-up form has nonlinear constraints, which an LP file cannot hold; use Form.CHOICE, or text or latex"
            )
        model = linear_program(problem).model
        if model.component("depth_is") is not None:
            model.depth_is.deactivate()
        LPWriter().write(model, output, symbolic_solver_labels=True)
    elif style == "latex":
        latex_printer(build_program(problem, form).model, ostream=output)
    else:
        build_program(problem, form).model.pprint(ostream=output)
    return output.getvalue()
