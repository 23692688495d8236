"""The declarative program as text: for people a listing or a LaTeX document, for engines an LP, MPS, NL or GAMS file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, get_args

from formulation import Composite, DesignProblem
from formulation.command.processes import temporary_folder
from formulation.command.words import counted, with_unit
from formulation.quantity import quantity_text
from formulation.records.provenance import version_of
from solvers.programs.program_latex import latex_document
from solvers.programs.pyomo_model import Form, Program, build_program

if TYPE_CHECKING:
    import pyomo.environ as pyo

    _Writer = Callable[[pyo.ConcreteModel, list[str]], str]

Style = Literal["text", "latex", "lp", "mps", "nl", "gms"]
PROGRAM_STYLES: tuple[Style, ...] = get_args(Style)
_COLUMNS = 120
"""Width of the comments in a file."""


def program_text(problem: DesignProblem, form: Form = Form.CHOICE, style: Style = "text") -> str:
    """The program of `problem` as text, which begins with what it is.

    Every file is the same problem: its optimum is that of `solve`, with numbers in full precision. Only "latex" rounds them.

    Args:
        problem: whose objective is maximized, or minimized.
        form: which of the two forms.
        style: "text": sets, variables and constraints as Pyomo lists them, with their descriptions; "latex": a document for people,
            see `program_latex`; "nl" and "gms": the program as it is, for engines that solve nonlinear ones; "lp" and "mps": for
            linear engines. There a composite objective or budget is written in an exact linear form
            (`solvers.programs.linearization`), of the choice form alone.

    Raises:
        ValueError: for an unknown form or style, for a union of spaces, for a score table as a LaTeX page, for a composite in the
            look-up form as an LP or MPS file, and for one that has no linear form.
        NotSeparable: if a quantity has no structure to write down.
    """
    if style not in PROGRAM_STYLES:
        raise ValueError(f"style is {style!r}; expected {', '.join(PROGRAM_STYLES[:-1])} or {PROGRAM_STYLES[-1]}")
    if not isinstance(form, Form):
        raise ValueError(f"form is {form!r}; expected Form.CHOICE or Form.LOOKUP")
    if len(parts := problem.space.parts) > 1:
        raise ValueError(
            f"the space is a union of {len(parts)} spaces, each of which has a program of its own; "
            "name one of them, or write one for each of problem.parts"
        )
    if style == "latex":
        return latex_document(problem, form)
    quantities = (problem.goal, *(budget.quantity for budget in problem.subject_to))
    formula = next((one.name for one in quantities if isinstance(one, Composite)), None)
    linear = style in ("lp", "mps") and formula is not None
    if linear and form is Form.LOOKUP:
        raise ValueError(
            f"{formula} is nonlinear in the look-up form, which an {style.upper()} file cannot hold; "
            "use Form.CHOICE, which has an exact linear form, or write nl or gms"
        )
    program = build_program(problem.maximizing, form, linear)
    model = program.model
    _as_stated(problem, program)
    told = list(_description(problem, form, program, linear))
    return _WRITERS[style](model, told)


def _as_stated(problem: DesignProblem, program: Program) -> None:
    """Give the model the objective of the problem itself: minimized where it is, in its own unit unless that makes it tiny."""
    import pyomo.environ as pyo

    objective = program.model.objective
    factor = max(program.unit, 1.0) * (-1 if problem.least else 1)
    if factor != 1:
        objective.set_value(factor * objective.expr)
    if problem.least:
        objective.sense = pyo.minimize


def _description(problem: DesignProblem, form: Form, program: Program, linear: bool) -> Iterator[str]:
    """What a file is, line by line."""
    of, sense = problem.goal, "minimize" if problem.least else "maximize"
    version = version_of("merino")
    yield f"{sense} {quantity_text(of)}" + ("" if of.unit == "1" else f" [{of.unit}]")
    for budget in problem.subject_to:
        bound = f"{budget.bound:.0f}" if budget.bound.is_integer() else repr(budget.bound)
        yield f"subject to {quantity_text(budget.quantity)} {budget.sign} {with_unit(bound, budget.quantity.unit)}"
    yield f"over {counted(problem.space.size, 'design')} of {problem.space.layout}"
    if program.unit < 1:
        yield f"objective in units of {program.unit:g} {of.unit}"
    yield ("choice form" if form is Form.CHOICE else "look-up form") + (
        ", composites in their exact linear form: the optimum is that of the problem itself" if linear else ""
    )
    if form is Form.CHOICE:
        yield "x[i,j] = 1: block i takes item j of its menu; flow[i,a,b] = 1: block i is in state a, block i + 1 in state b"
        if linear:
            yield "quotient[u], share[u,group,class], at_layers[u,L]: for products of choices; has_layers[L] = 1: it has L layers"
    else:
        sizes = "width[i], ffn_width[i], " if len(program.model.width) else ""
        yield f"{sizes}depth[i]: of block i; entry[i,axis,p] = 1: it takes entry p of that axis of its menu"
    for menu in dict.fromkeys(problem.space.menus):
        blocks = ", ".join(str(i) for i, own in enumerate(problem.space.menus) if own == menu)
        items = (
            (f"{j}: {item}" for j, item in enumerate(menu.items))
            if form is Form.CHOICE
            else (
                f"{axis} {', '.join(f'{one:g}' if isinstance(one, float) else str(one) for one in entries)}"
                for axis, entries in menu.axes.items()
            )
        )
        yield f"menu of block {blocks}: {'; '.join(items)}"
    yield f"written by Merino{' ' + version if version else ''}"


def _plain(lines: list[str], mark: str) -> str:
    """Lines of comment in ASCII, each begun with a mark."""
    text = (line.translate({ord("≤"): "<=", ord("≥"): ">="}).encode("ascii", "backslashreplace").decode() for line in lines)
    return "".join(
        f"{mark} {part}\n" for line in text for part in wrap(line, _COLUMNS, subsequent_indent="   ", break_on_hyphens=False)
    )


def _listing(model: pyo.ConcreteModel, told: list[str]) -> str:
    output = io.StringIO()
    model.pprint(ostream=output)
    return "".join(f"# {line}\n" for line in told) + output.getvalue()


def _lp(model: pyo.ConcreteModel, told: list[str]) -> str:
    from pyomo.repn.plugins.lp_writer import LPWriter

    output = io.StringIO()
    LPWriter().write(model, output, symbolic_solver_labels=True)
    return _plain(told, "\\") + output.getvalue()


def _nl(model: pyo.ConcreteModel, told: list[str]) -> str:
    """An NL file has room for words in its first line only."""
    from pyomo.repn.plugins.nl_writer import NLWriter

    output = io.StringIO()
    NLWriter().write(model, output, symbolic_solver_labels=True, linear_presolve=False)
    _, rest = output.getvalue().split("\n", 1)
    about = [line for line in told if not line.startswith("menu of block")]
    return f"g3 1 1 0\t# problem {_plain(['; '.join(about)], '').replace(chr(10), ' ').strip()}\n{rest}"


def _by_file(suffix: str, **options: object) -> _Writer:
    """A writer that Pyomo has for files alone, whose comments begin with a star."""

    def write(model: pyo.ConcreteModel, told: list[str]) -> str:
        with temporary_folder() as folder:
            path = folder / f"program.{suffix}"
            model.write(str(path), io_options={"symbolic_solver_labels": True, **options})
            return _plain(told, "*") + path.read_text(encoding="utf-8")

    return write


_WRITERS: dict[str, _Writer] = {
    "text": _listing,
    "lp": _lp,
    "mps": _by_file("mps"),
    "nl": _nl,
    "gms": _by_file("gms", mtype="minlp", add_options=["GAMS_MODEL.optca = 0;", "GAMS_MODEL.optcr = 0;"]),
}
