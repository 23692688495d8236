"""The declarative program in mathematical notation: one line for each family of constraints, rounded numbers in tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from formulation import Budget, Combine, Composite, DesignProblem, Quantity, SearchSpace, Separable
from formulation.command.words import counted
from formulation.menu import Menu
from formulation.quantity import quantity_text
from formulation.table import Table, tabulate
from solvers.evaluation import require_structure
from solvers.programs.pyomo_model import BlockShapes, Form

_SYMBOLS = {
    "depth": "L",
    "log-width": "W",
    "log-ffn-width": "V",
    "attention entropy": "A",
    "ffn entropy": "B",
    "attention entropy per bit": "A'",
    "ffn entropy per bit": "B'",
    "params": "P",
    "flops": "C",
    "memory": "M",
    "latency": "T",
}
"""Letters of quantities by their names; any other is a numbered Q."""
_AXES = {
    "width": ("$E$", "width"),
    "ffn_ratio": ("$r$", "ratio $F/E$"),
    "ffn_width": ("$F$", "FFN width"),
    "depth": ("$L$", "depth"),
    "heads": ("$h$", "query heads"),
    "kv_heads": ("$h_{kv}$", "key/value heads"),
    "head_size": ("$d$", "head size"),
    "gated": ("gate", "whether the FFN has one"),
    "shared": ("shared", "whether layers share their weights"),
    "bits": ("bits", "of a weight"),
}
"""What heads the columns of a menu, and what it means."""
_ROWS = 120
"""Rows of a table; of a longer one the first are shown and the others counted."""
_SIZES = ((12, r"\small", 4.5), (16, r"\scriptsize", 3), (math.inf, r"\tiny", 2))
"""Most columns of a table, the size of its letters and half the gap between two columns in points."""
_LONG = 60
"""Characters of a quantity's text from which on its name stands alone."""
_DIGITS = 4
"""Significant digits of the greatest number in a column."""


@dataclass(frozen=True)
class Line:
    """A family of constraints, or the objective.

    Attributes:
        label: its name, unique in the program.
        formula: LaTeX of the left side and the relation, without alignment.
        where: LaTeX of the indices that it is repeated for; empty for one constraint.
        words: what it says, as LaTeX text.
    """

    label: str
    formula: str
    where: str
    words: str


# Formulas


class _Expression:
    """LaTeX of a formula, put together by calling it: sums, products, quotients, powers."""

    __array_ufunc__ = None

    def __init__(self, text: str, level: int = 3, factors: tuple[str, ...] = ()) -> None:
        self.text, self.level, self.factors = text, level, factors or (text,)

    @staticmethod
    def of(value: Any) -> _Expression:
        """A number or an expression."""
        if isinstance(value, _Expression):
            return value
        return _Expression(number_latex(float(value)), 3 if value >= 0 else 1)

    def _within(self, level: int) -> str:
        return self.text if self.level >= level else rf"\left({self.text}\right)"

    def __add__(self, other: Any) -> _Expression:
        other = _Expression.of(other)
        sign = "" if other.text.startswith("-") else "+ "
        return _Expression(f"{self.text} {sign}{other.text}", 1)

    def __radd__(self, other: Any) -> _Expression:
        return _Expression.of(other) + self

    def __sub__(self, other: Any) -> _Expression:
        return _Expression(f"{self.text} - {_Expression.of(other)._within(2)}", 1)

    def __rsub__(self, other: Any) -> _Expression:
        return _Expression.of(other) - self

    def __neg__(self) -> _Expression:
        return _Expression(f"-{self._within(2)}", 1)

    def __mul__(self, other: Any) -> _Expression:
        other = _Expression.of(other)
        factors: list[str] = []
        for one in (self, other):
            factors += one.factors if one.level == 2 and one.factors else (one._within(3),)
        if factors[0] == "1":
            factors = factors[1:]
        return _Expression(_product(factors), 2 if len(factors) > 1 else 3, tuple(factors))

    def __rmul__(self, other: Any) -> _Expression:
        return _Expression.of(other) * self

    def __truediv__(self, other: Any) -> _Expression:
        return _Expression(rf"\frac{{{self.text}}}{{{_Expression.of(other).text}}}", 3)

    def __rtruediv__(self, other: Any) -> _Expression:
        return _Expression.of(other) / self

    def __pow__(self, exponent: Any) -> _Expression:
        return _Expression(rf"{self._within(3)}^{{{exponent}}}", 3)


def _product(factors: Sequence[str]) -> str:
    """Factors beside each other, equal neighbours as a power."""
    runs: list[list[Any]] = []
    for factor in factors:
        if runs and runs[-1][0] == factor and not re.fullmatch(r"[\d.]+", factor):
            runs[-1][1] += 1
        else:
            runs.append([factor, 1])
    return r"\,".join(factor if times == 1 else rf"{factor}^{{{times}}}" for factor, times in runs)


def number_latex(value: float, digits: int = 6) -> str:
    """LaTeX of a number, rounded: 0.0625, 45, 6 · 10¹⁰."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        exponent = math.floor(math.log10(abs(value)))
        mantissa = f"{value / 10.0**exponent:.{digits}g}"
        power = rf"10^{{{exponent}}}"
        return power if mantissa == "1" else f"-{power}" if mantissa == "-1" else rf"{mantissa}\cdot {power}"
    return f"{value:.{digits}g}"


def text_latex(text: str) -> str:
    """Text as LaTeX sets it."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≤": r"$\leq$", "≥": r"$\geq$"}
    special |= {"<": "$<$", ">": "$>$", "·": r"$\cdot$", "−": "$-$", "×": r"$\times$"}
    return "".join(special.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


# Quantities and their terms


@dataclass(frozen=True, eq=False)
class _Sum:
    """A separable quantity with its symbol and its terms.

    Attributes:
        quantity: the quantity.
        letter: capital letter.
        number: where others have the same letter, which of them it is; 0 for the only one.
        table: its terms.
    """

    quantity: Separable
    letter: str
    number: int
    table: Table

    @property
    def symbol(self) -> str:
        """L, Q_2."""
        return self.letter + (f"_{{{self.number}}}" if self.number else "")

    def term(self, index: str, accent: str = "") -> str:
        """A coefficient: p_{ij}, with a bar that of a step, with a hat that of an offset."""
        letter = self.letter if self.letter == "L" else self.letter.lower()
        mark = "'" if letter.endswith("'") else ""
        letter = letter.removesuffix("'")
        raised = rf"^{{({self.number})}}" if self.number else ""
        return (rf"\{accent}{{{letter}}}" if accent else letter) + mark + raised + f"_{{{index}}}"

    @property
    def fixed(self) -> float:
        return float(self.table.fixed[0])

    @property
    def joined(self) -> bool:
        """Whether a step between blocks adds to it."""
        return any(np.any(joint[0][step]) for joint, step in zip(self.table.joints, self.table.space.steps, strict=True))

    @property
    def is_max(self) -> bool:
        return self.quantity.combine is Combine.MAX

    def groups(self, blocks: Sequence[int]) -> list[list[int]]:
        """Blocks of one menu by equal terms."""
        found: dict[bytes, list[int]] = {}
        for i in blocks:
            found.setdefault(self.table.blocks[i][0].tobytes(), []).append(i)
        return list(found.values())


class _Notation:
    """Symbols for the separable quantities of a problem: those of the objective, of its parts and of the budgets."""

    def __init__(self, problem: DesignProblem) -> None:
        self.problem, self.sums = problem, list[_Sum]()
        for quantity in (problem.goal, *(budget.quantity for budget in problem.subject_to)):
            for part in quantity.parts if isinstance(quantity, Composite) else (quantity,):
                self._name(part)  # type: ignore[arg-type]

    def _name(self, part: Separable) -> None:
        if any(own.quantity is part or own.quantity == part for own in self.sums):
            return
        letter = _SYMBOLS.get(part.name, "Q")
        same = sum(own.letter == letter for own in self.sums)
        number = same + 1 if same or letter == "Q" else 0
        self.sums.append(_Sum(part, letter, number, tabulate([part], self.problem.space)))

    @property
    def parts(self) -> list[_Sum]:
        """The sums and maxima that a composite is made of."""
        quantities = (self.problem.goal, *(budget.quantity for budget in self.problem.subject_to))
        composed = [part for quantity in quantities if isinstance(quantity, Composite) for part in quantity.parts]
        return [own for own in self.sums if any(own.quantity is part or own.quantity == part for part in composed)]

    def of(self, part: Quantity) -> _Sum:
        """The notation of one quantity."""
        return next(own for own in self.sums if own.quantity is part or own.quantity == part)

    def value(self, quantity: Quantity) -> str:
        """The symbol of a sum, or the formula of a composite in those of its parts."""
        if not isinstance(quantity, Composite):
            return self.of(quantity).symbol
        return _Expression.of(quantity.formula([_Expression(self.of(part).symbol) for part in quantity.parts])).text


# The program


def program_lines(problem: DesignProblem, form: Form = Form.CHOICE) -> tuple[Line, ...]:
    """The objective and the families of constraints of a program, in mathematical notation; the objective comes first.

    Raises:
        ValueError: for a space without widths and depths, such as that of a score table.
        NotSeparable: if a quantity has no structure to write down.
    """
    if not isinstance(problem.space, SearchSpace):
        raise ValueError(
            f"the space is one of {problem.space.layout}, and a LaTeX page speaks of blocks with widths and depths; "
            "write it as text, lp, mps, nl or gms"
        )
    require_structure(problem, "a declarative program")
    notation = _Notation(problem)
    objective = Line("objective", notation.value(problem.goal), "", _named(problem.goal))
    return (
        objective,
        *(_definition(own, form) for own in notation.sums if not own.is_max),
        *(line for own in notation.parts if own.is_max for line in _maximum(own, form)),
        *(_budget(problem, budget, k, notation, form) for k, budget in enumerate(problem.subject_to, start=1)),
        *(_choice_lines(problem) if form is Form.CHOICE else _lookup_lines(problem)),
    )


def _definition(own: _Sum, form: Form) -> Line:
    """symbol = Σ of terms."""
    parts = [number_latex(own.fixed)] if own.fixed else []
    if form is Form.CHOICE:
        parts.append(rf"\sum_{{i,j}} {own.term('ij')}\,x_{{ij}}")
    else:
        parts.append(_looked_up(own))
    if own.joined:
        parts.append(rf"\sum_{{i,s,t}} {own.term('ist', 'bar')}\,y_{{ist}}")
    return Line(f"is-{_plain(own.symbol)}", f"{own.symbol} = {' + '.join(parts)}", "", _named(own.quantity))


def _maximum(own: _Sum, form: Form) -> Iterator[Line]:
    """symbol ≥ each of its terms: as good as equal where the program is worse off with more of it."""
    choice = "x" if form is Form.CHOICE else "z"
    name, text = f"is-{_plain(own.symbol)}", f"{_named(own.quantity)}, a maximum"
    yield Line(name, rf"{own.symbol} \geq \sum_{{j}} {own.term('ij')}\,{choice}_{{ij}}", r"i\leq N", text)
    if _has_joint(own):
        yield Line(f"{name}-steps", rf"{own.symbol} \geq \sum_{{s,t}} {own.term('ist', 'bar')}\,y_{{ist}}", "i<N", "and over steps")
    if own.fixed:
        yield Line(f"{name}-fixed", rf"{own.symbol} \geq {number_latex(own.fixed)}", "", "and what every design has")


def _named(quantity: Quantity) -> str:
    """A quantity in words, with its unit; of what it was made with only what is short."""
    text = quantity_text(quantity)
    text = quantity.name if "<" in text or len(text) > _LONG else text
    return text_latex(text) + (f" [{text_latex(quantity.unit)}]" if quantity.unit != "1" else "")


def _beside(line: Line) -> str:
    """What a line says and for which indices, as text in the margin."""
    text = line.words + (rf", for ${line.where}$" if line.where else "")
    return rf"\parbox{{46mm}}{{\raggedright\footnotesize {text}}}"


def _plain(symbol: str) -> str:
    return re.sub("[^A-Za-z0-9]+", "", symbol.replace("mathrm", "").replace("text", "").replace("'", "prime"))


def _budget(problem: DesignProblem, budget: Budget, k: int, notation: _Notation, form: Form) -> Line:
    """A budget; of a maximum the choices that exceed it are ruled out, or some that reach it asked for."""
    quantity, relation = budget.quantity, r"\leq" if budget.upper is not None else r"\geq"
    bound = number_latex(budget.bound, 12 if float(f"{budget.bound:.12g}") == budget.bound else 8)
    text = f"budget {k}: {_named(quantity)}"
    if isinstance(quantity, Composite) or quantity.combine is Combine.SUM:  # type: ignore[attr-defined]
        return Line(f"budget-{k}", rf"{notation.value(quantity)} {relation} {bound}", "", text)
    own = notation.of(quantity)
    choice = "x" if form is Form.CHOICE else "z"
    if budget.upper is not None and own.fixed > budget.bound:
        return Line(f"budget-{k}", rf"{number_latex(own.fixed)} \leq {bound}", "", f"{text}, a maximum: no design meets it")
    terms, steps_terms = own.term("ij"), own.term("ist", "bar")
    if budget.upper is not None:
        steps = rf";\ y_{{ist}} = 0 \text{{ if }} {steps_terms} > {bound}" if _has_joint(own) else ""
        return Line(
            f"budget-{k}",
            rf"{choice}_{{ij}} = 0 \text{{ if }} {terms} > {bound}{steps}",
            r"i\leq N,\ j\in J_i",
            f"{text}, a maximum",
        )
    steps = rf" + \sum_{{i,s,t:\,{steps_terms}\geq {bound}}} y_{{ist}}" if _has_joint(own) else ""
    return Line(
        f"budget-{k}",
        rf"\sum_{{i,j:\,{terms}\geq {bound}}} {choice}_{{ij}}{steps} \geq 1",
        "",
        f"{text}, a maximum that one choice reaches",
    )


def _has_joint(own: _Sum) -> bool:
    return any(
        np.any(np.isfinite(joint[0][step]) & (joint[0][step] != 0))
        for joint, step in zip(own.table.joints, own.table.space.steps, strict=True)
    )


def _flow_lines(problem: DesignProblem, left: str, right: str) -> Iterator[Line]:
    if problem.space.blocks == 1:
        return
    yield Line(
        "leave",
        rf"{left} = \sum_{{t:\,(s,t)\in S_i}} y_{{ist}}",
        r"i<N,\ s\in\Sigma_i",
        "a block in state $s$ is left by a step from $s$",
    )
    yield Line(
        "enter",
        rf"{right} = \sum_{{s:\,(s,t)\in S_i}} y_{{ist}}",
        r"i<N,\ t\in\Sigma_{i+1}",
        "the next block is entered by a step to its state $t$",
    )


def _choice_lines(problem: DesignProblem) -> Iterator[Line]:
    yield Line("one-item", r"\sum_{j\in J_i} x_{ij} = 1", r"i\leq N", "every block takes one item of its menu")
    yield from _flow_lines(problem, r"\sum_{j\in J_i(s)} x_{ij}", r"\sum_{j\in J_{i+1}(t)} x_{i+1,j}")
    if problem.space.may_be_empty:
        yield Line("some-layer", r"\sum_{i,j:\,L_{ij}>0} x_{ij} \geq 1", "", "some block has a layer")
    steps = r",\quad y_{ist} \geq 0" if problem.space.blocks > 1 else ""
    yield Line("domains", rf"x_{{ij}} \in \{{0,1\}}{steps}", "", "choices are made or not; steps follow")


def _looked_up(own: _Sum) -> str:
    """A sum in the look-up form: of offsets and slopes over shapes, or of values over items where it is not affine in the depth."""
    if _is_depth(own):
        return r"\sum_{i} L_i"
    if (used := _slopes_and_offsets(own)) is None:
        return rf"\sum_{{i,j}} {own.term('ij')}\,z_{{ij}}"
    slopes, offsets = used
    if not slopes:
        return rf"\sum_{{i,k}} {own.term('ik')}\,\lambda_{{ik}}"
    text = rf"{own.term('ik')}\,n_{{ik}}"
    return rf"\sum_{{i,k}} \bigl({text} + {own.term('ik', 'hat')}\,\lambda_{{ik}}\bigr)" if offsets else rf"\sum_{{i,k}} {text}"


def _is_depth(own: _Sum) -> bool:
    """Whether a sum is the number of layers."""
    return not own.joined and all(
        np.array_equal(block[0], menu.layers) for block, menu in zip(own.table.blocks, own.table.space.menus, strict=True)
    )


def _slopes_and_offsets(own: _Sum) -> tuple[bool, bool] | None:
    """Whether a sum's look-ups of the slope are used, and those of the offset; None where it is not affine in the depths."""
    menus = own.table.space.menus
    lines = [BlockShapes(menu).line(block[0]) for menu, block in zip(menus, own.table.blocks, strict=True)]
    if own.is_max or any(line is None for line in lines):
        return None
    return any(line[1].any() for line in lines if line), any(line[0].any() for line in lines if line)


def _lookup_lines(problem: DesignProblem) -> Iterator[Line]:
    space = problem.space
    each, shapes = r"i\leq N", r"i\leq N,\ k\in K_i"
    yield Line("one-shape", r"\sum_{k\in K_i} \lambda_{ik} = 1", each, "the weights of the look-ups of a block add up to 1")
    yield Line(
        "entry",
        r"\sum_{k:\,a_k = p} \lambda_{ik} = e^{a}_{ip}",
        r"i\leq N\text{, each axis }a\text{ and entry }p",
        "one entry of every axis is taken",
    )
    yield Line("width", r"E_i = \sum_{k\in K_i} E_{ik}\,\lambda_{ik}", each, "width, as a look-up")
    yield Line("ffn-width", r"F_i = \sum_{k\in K_i} F_{ik}\,\lambda_{ik}", each, "FFN width, as a look-up")
    yield Line(
        "layers",
        r"L^{-}_{ik}\,\lambda_{ik} \leq n_{ik} \leq L^{+}_{ik}\,\lambda_{ik}",
        shapes,
        r"$n_{ik}$ is the depth where shape $k$ is taken, else 0",
    )
    yield Line("depth", r"L_i = \sum_{k\in K_i} n_{ik}", each, "depth of a block")
    if space.non_decreasing and space.blocks > 1:
        yield Line("non-decreasing", r"E_i \leq E_{i+1}", "i<N", "widths do not decrease")
    if _by_items(problem):
        yield Line("item-shape", r"\sum_{j\in J_i:\,k_j = k} z_{ij} = \lambda_{ik}", shapes, "items by their shape")
        yield Line("item-layers", r"\sum_{j\in J_i:\,k_j = k} L_{ij}\,z_{ij} = n_{ik}", shapes, "and by their depth")
        yield Line(
            "item-depth",
            r"\sum_{j\in J_i:\,L_{ij} = p} z_{ij} = e^{L}_{ip}",
            r"i\leq N\text{ and each depth }p",
            "one depth is taken",
        )
    by_width = _widths_are_states(problem)
    chosen = ("e^{E}_{is}", "e^{E}_{i+1,t}") if by_width else (r"\sum_{j\in J_i(s)} z_{ij}", r"\sum_{j\in J_{i+1}(t)} z_{i+1,j}")
    yield from _flow_lines(problem, *chosen)
    if space.may_be_empty:
        yield Line("some-layer", r"\sum_{i=1}^{N} L_i \geq 1", "", "some block has a layer")
    steps = r",\ y_{ist}" if space.blocks > 1 else ""
    items = r",\ z_{ij}" if _by_items(problem) else ""
    yield Line(
        "domains",
        rf"E_i, F_i, L_i \in \mathbb{{Z}},\quad e^{{a}}_{{ip}} \in \{{0,1\}},\quad \lambda_{{ik}}{steps}{items} \in [0,1]",
        "",
        "whole numbers, choices, and weights that follow from them",
    )


def _widths_are_states(problem: DesignProblem) -> bool:
    space = problem.space
    return all(np.array_equal(states, menu.places["width"]) for states, menu in zip(space.state_of, space.menus, strict=True))


def _by_items(problem: DesignProblem) -> bool:
    """Whether the look-up form needs weights of items beside those of shapes."""
    if not _widths_are_states(problem) or not all(BlockShapes(menu).every_depth for menu in problem.space.menus):
        return True
    return any(_slopes_and_offsets(own) is None for own in _Notation(problem).sums)


# The document


def latex_document(problem: DesignProblem, form: Form = Form.CHOICE) -> str:
    """A LaTeX document that states the program of `problem`: sets, parameters, variables, objective and constraints, all numbered.

    Numbers are rounded. It needs amsmath, amssymb, longtable and geometry, which every LaTeX installation has.

    Raises:
        NotSeparable: if a quantity has no structure to write down.
    """
    lines = program_lines(problem, form)
    notation = _Notation(problem)
    heads = (r"\text{%s}\quad" % ("min" if problem.least else "max"), r"\text{s.\,t.}\quad", *("",) * len(lines))
    rows = [
        rf"  {head} &{line.formula} && {_beside(line)} \label{{{line.label}}}" for head, line in zip(heads, lines, strict=False)
    ]
    body = [
        *_introduction(problem, form),
        r"\section*{Sets and variables}",
        *_sets(problem, form),
        r"\section*{Program}",
        r"\begin{align}",
        " \\\\\n".join(rows),
        r"\end{align}",
        *_nature(problem, form),
        r"\section*{Parameters}",
        *_parameters(notation, form),
    ]
    return "\n".join((*_PREAMBLE, *body, r"\end{document}", ""))


_PREAMBLE = (
    r"\documentclass[11pt]{article}",
    r"\usepackage[utf8]{inputenc}",
    r"\usepackage{amsmath,amssymb,longtable}",
    r"\usepackage[a4paper,margin=21mm]{geometry}",
    r"\allowdisplaybreaks\setlength{\jot}{2pt}",
    r"\setlength{\parindent}{0pt}\setlength{\parskip}{4pt}\setlength{\LTleft}{0pt}",
    r"\begin{document}",
)


def _introduction(problem: DesignProblem, form: Form) -> Iterator[str]:
    space, goal = problem.space, problem.goal
    yield rf"\section*{{{'Least' if problem.least else 'Greatest'} {text_latex(goal.name)} of {counted(space.blocks, 'block')}}}"
    order = " of non-decreasing width" if space.non_decreasing and space.blocks > 1 else ""
    rule = ", where a rule says which may follow which" if space.step else ""
    unit = f" in {text_latex(goal.unit)}" if goal.unit != "1" else ""
    budgets = ", subject to " + counted(len(problem.subject_to), "budget") if problem.subject_to else ""
    size = f"{space.size:,}".replace(",", r"\,")
    if space.size >= 10**12:
        mantissa, exponent = f"{Decimal(space.size):.3e}".split("e+")
        size = rf"about ${mantissa}\cdot 10^{{{exponent}}}$"
    yield (
        f"A transformer of {counted(space.blocks, 'block')}{order}{rule} is sought, "
        f"whose {text_latex(quantity_text(goal))}{unit} is {'least' if problem.least else 'greatest'}{budgets}. "
        f"There are {size} designs. "
        + (
            "This is the choice form: one binary for each block and item of its menu."
            if form is Form.CHOICE
            else "This is the look-up form: whole numbers for width, FFN width and depth, and look-ups in tables."
        )
    )


def _nature(problem: DesignProblem, form: Form) -> Iterator[str]:
    """What is linear in the program and what is not, and how a composite becomes linear."""
    from solvers.programs.rational import NotRational, rational

    formulas = []
    for place, quantity in (
        ("objective", problem.goal),
        *((f"budget-{k}", b.quantity) for k, b in enumerate(problem.subject_to, 1)),
    ):
        if isinstance(quantity, Composite):
            try:
                linear = not rational(quantity).terms
            except NotRational:
                linear = False
            if not linear:
                formulas.append((place, quantity))
    if not formulas:
        yield r"Everything in it is linear: it is a mixed-integer linear program."
        return
    named = " and ".join(rf"\eqref{{{place}}}" for place, _ in formulas)
    yield rf"All of it is linear but {named}, which is a formula of sums, and in general neither concave nor convex."
    if form is Form.LOOKUP:
        return
    yield _EXACT


_EXACT = r"""\paragraph{Exact linear form.} Products and quotients of such sums need no approximation. A quotient $u = Q/R$ is a
variable with $u^{-}\leq u\leq u^{+}$ and $u\,R = Q$. A product $u\sum_{i,j} r_{ij}x_{ij}$ is $\sum_{i,j} r_{ij}\pi_{ij}$ with
\begin{equation*}
  \sum_{j\in J_i} \pi_{ij} = u,\qquad u^{-}x_{ij} \leq \pi_{ij} \leq u^{+}x_{ij},
\end{equation*}
since exactly one $x_{ij}$ of each block is 1. A product of $u$ with the number of layers is $\sum_{m} m\,q_m$, where $q_m$ is $u$
if the design has $m$ layers, else 0: with binaries $\delta_m$, one of which is 1,
\begin{equation*}
  \sum_m q_m = u,\qquad u^{-}\delta_m\leq q_m\leq u^{+}\delta_m,\qquad \sum_m m\,\delta_m = \sum_{i,j} L_{ij}x_{ij}.
\end{equation*}
That is what LP and MPS files of this program hold."""


def _sets(problem: DesignProblem, form: Form) -> Iterator[str]:
    space = problem.space
    rows = [(r"$i=1,\dots,N$", f"blocks, $N={space.blocks}$, in the order in which a token meets them")]
    by_items = form is Form.CHOICE or _by_items(problem)
    if by_items:
        rows.append((r"$j\in J_i$", "items of the menu of block $i$, " + _sizes([len(menu) for menu in space.menus])))
    if form is Form.LOOKUP:
        rows.append(
            (
                r"$k\in K_i$",
                "shapes of block $i$: all that is chosen but the depth, "
                + _sizes([len(BlockShapes(menu).first) for menu in space.menus]),
            )
        )
    if space.blocks > 1:
        if _widths_are_states(problem):
            rows.append((r"$s\in\Sigma_i$", "states of block $i$: its widths"))
            order = "$s\\leq t$" if space.non_decreasing and not space.step else "any $s$ and $t$"
            allowed = f"{order}" if not space.step else "as the rule for steps has it"
        else:
            rows.append(
                (r"$s\in\Sigma_i$", "states of block $i$: items of one state may follow, and be followed by, the same ones")
            )
            allowed = "as the rule for steps has it"
        steps = counted(int(sum(step.sum() for step in space.steps)), "step")
        rows.append((r"$(s,t)\in S_i$", f"steps from block $i$ to the next: {allowed}, {steps} in all"))
        if by_items:
            rows.append((r"$J_i(s)$", "items of block $i$ in state $s$"))
    if form is Form.CHOICE:
        rows.append(
            (r"$x_{ij}$", f"1 where block $i$ takes item $j$, else 0: {counted(sum(map(len, space.menus)), 'binary', 'binaries')}")
        )
    else:
        rows += [
            (r"$E_i,\ F_i,\ L_i$", "width, FFN width and depth of block $i$"),
            (r"$e^{a}_{ip}$", r"1 where block $i$ takes entry $p$ of axis $a$ of its menu, else 0"),
            (r"$\lambda_{ik},\ n_{ik}$", r"weight of shape $k$, and depth times weight"),
        ]
        if by_items:
            rows.append((r"$z_{ij}$", "weight of item $j$"))
    if space.blocks > 1:
        rows.append((r"$y_{ist}$", "1 where block $i$ is in state $s$ and the next in state $t$, else 0"))
    yield r"\begin{tabular}{@{}ll@{}}"
    yield " \\\\\n".join(f"{symbol} & {text}" for symbol, text in rows)
    yield r"\end{tabular}"


def _sizes(sizes: Sequence[int]) -> str:
    return f"{sizes[0]} each" if len(set(sizes)) == 1 else f"{', '.join(map(str, sizes))}"


def _parameters(notation: _Notation, form: Form) -> Iterator[str]:
    space = notation.problem.space
    shown = "Numbers are rounded. A dash stands for a choice that means nothing, since the block is left out."
    ends = "Terms of the first and the last block hold what joins them to embedding and head."
    yield shown if any(0 in menu.layers for menu in space.menus) else "Numbers are rounded."
    yield ends + (" Columns of zeros are left out." if form is Form.LOOKUP else "")
    used = dict.fromkeys(name for menu in space.menus for name in menu.axes)
    if "ffn_ratio" in used:
        used["ffn_width"] = None
    yield (
        "; ".join(f"{symbol}: {what}" for name in used for symbol, what in [_AXES.get(name, ("", ""))] if what[:3] != symbol[:3])
        + "."
    )
    for menu in dict.fromkeys(space.menus):
        blocks = [i for i, own in enumerate(space.menus) if own == menu]
        whose = "all blocks" if len(blocks) == space.blocks else f"block{'s' if len(blocks) > 1 else ''} {_ranges(blocks)}"
        sums = [own for own in notation.sums if form is Form.CHOICE or _slopes_and_offsets(own) is None]
        if sums:
            columns = [column for own in sums for column in _item_columns(own, blocks)]
            numbers = [("$j$", [str(j) for j in range(1, len(menu) + 1)])]
            yield from _table([*numbers, *_axis_columns(menu, np.arange(len(menu))), *columns], f"Menu of {whose}.")
        if form is Form.LOOKUP:
            yield from _shape_table(notation, menu, blocks, f"Shapes of {whose}.")
    yield from _joint_table(notation)


def _ranges(blocks: Sequence[int]) -> str:
    """1, 3 to 5: numbers from 1 on."""
    runs: list[list[int]] = []
    for i in blocks:
        if runs and runs[-1][-1] == i:
            runs[-1][-1] = i + 1
        else:
            runs.append([i + 1, i + 1])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs)


TableColumn = tuple[str, list[str]]


def _axis_columns(menu: Menu, items: np.ndarray, but: tuple[str, ...] = ()) -> list[TableColumn]:
    """What was chosen for some items, axis by axis, with the FFN width where a ratio makes it."""
    columns: list[TableColumn] = []
    for name, entries in menu.axes.items():
        if name in but:
            continue
        places = menu.places[name][items].tolist()
        columns.append((_AXES.get(name, (text_latex(name), ""))[0], [_entry(entries[p]) if p >= 0 else "--" for p in places]))
        if name == "ffn_ratio":
            blocks = [menu.items[int(j)] for j in items]
            ffn = [str(block.ffn_width) if p >= 0 else "--" for block, p in zip(blocks, places, strict=True)]
            columns.append((_AXES["ffn_width"][0], ffn))
    return columns


def _entry(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else text_latex(str(value))


def _item_columns(own: _Sum, blocks: Sequence[int]) -> Iterator[TableColumn]:
    """The coefficients of a sum for the items of a menu, a column for each group of blocks where they differ."""
    groups = own.groups(blocks)
    if _is_depth(own):
        return  # it is a column of the menu
    for group in groups:
        index = "ij" if len(groups) == 1 else rf"{_ranges(group).replace(' to ', '-')},j"
        yield _number_column(own.term(index), own.table.blocks[group[0]][0])


def _number_column(symbol: str, values: np.ndarray) -> TableColumn:
    """Numbers with as many digits after the point as the greatest asks for, in powers of a thousand where they are large."""
    most = float(np.abs(values).max(initial=0.0))
    power = 3 * (math.floor(math.log10(most)) // 3) if most >= 1e5 or 0 < most < 1e-2 else 0
    scaled = values / 10.0**power
    if power == 0 and np.array_equal(values, np.rint(values)):
        cells = [f"{value:.0f}" for value in scaled]
    else:
        digits = max(0, _DIGITS - 1 - (math.floor(math.log10(most / 10.0**power)) if most else 0))
        cells = [f"{value:.{digits}f}" for value in scaled]
    return (rf"${symbol}$" + (rf" $[10^{{{power}}}]$" if power else "")), [cell.replace("-", "$-$") for cell in cells]


def _shape_table(notation: _Notation, menu: Menu, blocks: Sequence[int], title: str) -> Iterator[str]:
    shapes = BlockShapes(menu)
    columns: list[TableColumn] = [("$k$", [str(k) for k in range(1, len(shapes.first) + 1)])]
    columns += _axis_columns(menu, shapes.first, ("depth",))
    columns += [("$L^-$", [str(depth) for depth in shapes.least]), ("$L^+$", [str(depth) for depth in shapes.most])]
    for own in notation.sums:
        used = _slopes_and_offsets(own)
        if used is None or _is_depth(own):
            continue
        groups = own.groups(blocks)
        for group in groups:
            line = shapes.line(own.table.blocks[group[0]][0])
            assert line is not None
            index = "ik" if len(groups) == 1 else rf"{_ranges(group).replace(' to ', '-')},k"
            columns += [
                _number_column(own.term(index, accent), values)
                for accent, values in ((("hat" if used[0] else ""), line[0]), ("", line[1]))
                if values.any()
            ]
    yield from _table(columns, title)


def _joint_table(notation: _Notation) -> Iterator[str]:
    """What steps between blocks of unequal widths add to each sum."""
    space = notation.problem.space
    sums = [own for own in notation.sums if _has_joint(own)]
    if not sums:
        return
    values: dict[tuple[int, int], list[float]] = {}
    for i, step in enumerate(space.steps):
        for a, b in np.argwhere(step):
            left, right = space.state_widths[i][a], space.state_widths[i + 1][b]
            if left != right:
                values[left, right] = [float(own.table.joints[i][0, a, b]) for own in sums]
    if not values:
        return
    pairs = sorted(values)
    columns: list[TableColumn] = [
        ("width of block $i$", [str(left) for left, _ in pairs]),
        ("of block $i+1$", [str(right) for _, right in pairs]),
        *(_number_column(own.term("ist", "bar"), np.array([values[pair][q] for pair in pairs])) for q, own in enumerate(sums)),
    ]
    yield from _table(columns, "Steps between blocks of unequal widths; one between equal widths adds nothing.")


def _table(columns: Sequence[TableColumn], title: str) -> Iterator[str]:
    heads, cells = zip(*columns, strict=True)
    rows = list(zip(*cells, strict=True))
    size, gap = next((size, gap) for most, size, gap in _SIZES if len(columns) <= most)
    yield rf"{{{size}\setlength{{\tabcolsep}}{{{gap}pt}}"
    yield rf"\begin{{longtable}}{{@{{}}{'r' * len(columns)}@{{}}}}"
    head = rf"\hline\rule{{0pt}}{{2.6ex}}{' & '.join(heads)} \\ \hline\noalign{{\vskip 2pt}}"
    yield rf"\multicolumn{{{len(columns)}}}{{@{{}}l@{{}}}}{{\makebox[0pt][l]{{\textbf{{{title}}}}}}} \\[3pt]"
    yield rf"{head}\endfirsthead {head}\endhead"
    yield from (rf"{' & '.join(row)} \\" for row in rows[:_ROWS])
    if len(rows) > _ROWS:
        yield rf"\multicolumn{{{len(columns)}}}{{@{{}}l@{{}}}}{{and {len(rows) - _ROWS:,} more}} \\"
    yield r"\hline \end{longtable}}"
