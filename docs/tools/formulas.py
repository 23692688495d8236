"""Formulas in LaTeX as MathML, which browsers draw themselves: no script, no fonts, no server."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

_FUNCTION = re.compile(r"<m[io]>(log|ln|exp|max|min|det|sup|inf|arg|Pr)</m[io]>")


def mathml_of(latex: str, block: bool) -> str:
    """The MathML of a formula, on its own line if `block`; ValueError with the reason where it cannot be set."""
    # Of the environments that align, the converter knows arrays best.
    latex = re.sub(r"\\begin\{(?:aligned|split|align\*?)\}", r"\\begin{array}{rlrl}", latex)
    latex = re.sub(r"\\end\{(?:aligned|split|align\*?)\}", r"\\end{array}", latex)
    if block:  # limits stand below and above, between brackets too
        latex = re.sub(r"\\(sum|prod|max|min)(?!\\limits)(?=[_^])", r"\\\1\\limits", latex)
    if latex.count("{") != latex.count("}"):
        raise ValueError("its braces do not match")
    try:
        mathml = convert(latex, display="block" if block else "inline")
    except Exception as error:  # whatever the converter stumbles over
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if unknown := re.search(r"\\[A-Za-z]+|&(?!#?\w+;)", mathml):  # what the converter does not know it leaves as it is
        raise ValueError(f"{unknown[0]} is not known")
    # As operators, names of functions stand apart from what is before and after them.
    return _FUNCTION.sub(r'<mo lspace="0.17em" rspace="0.17em" movablelimits="false">\1</mo>', mathml)
