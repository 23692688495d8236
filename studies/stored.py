"""Whether what an earlier run stored of a design still holds: it is evaluated again before it is shown as known."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from formulation import Architecture, Composite, DesignProblem, NoIdentity, Separable, fingerprint

_SAME = 1e-9
"""Relative difference up to which a stored number agrees with the one that is re-evaluated."""
_ADVICE = "the row was changed, or what defines the problem was; remove the row, or choose another --output"
_NOISY = "a measurement with noise belongs into a BlackBox with a file, which remembers it"


def same_number(stored: Any, true: float, relative: float = _SAME) -> bool:
    """Whether a stored value is a number that agrees with a re-evaluated one."""
    if isinstance(stored, bool) or not isinstance(stored, int | float):
        return False
    return stored == true or abs(stored - true) <= relative * max(abs(stored), abs(true)) < math.inf


def check_stored(
    where: str, problem: DesignProblem, design: Architecture, objective: Any, usage: Mapping[str, Any], relative: float = _SAME
) -> None:
    """Evaluate a stored design once, and compare.

    Args:
        where: what names the row in a message, such as "the row of HiGHS in rows.jsonl".
        problem: what it is said to belong to.
        design: its architecture.
        objective: its stored objective.
        usage: its stored use of the budgets, by the name of the quantity.
        relative: by how much the objective may differ; more than the default where it is computed in float32.

    Raises:
        ValueError: the design is not in the space or exceeds a budget, or its objective or usage is not the stored one (it differs
            by more than `relative`, a usage by 1e-9). The sentence gives both numbers.
    """
    try:
        evaluation = problem.evaluate(design)
    except ValueError as error:
        raise ValueError(f"{where} cannot be re-evaluated ({error}); {_ADVICE}") from error
    names = {used.name for used in evaluation.usage}
    if set(usage) != names:
        raise ValueError(
            f"{where} states its use of {', '.join(usage) or 'nothing'}; expected {', '.join(names) or 'nothing'}: {_ADVICE}"
        )
    noisy = "" if _repeats(problem) else f"; {_NOISY}"
    check_number(f"{where} gives {problem.goal.name}", objective, evaluation.objective, relative, noisy)
    for used in {used.name: used for used in evaluation.usage}.values():
        check_number(f"{where} gives the use of {used.name}", usage[used.name], used.value, _SAME, noisy)
    for used in evaluation.usage:
        if not used.within:
            raise ValueError(f"{where} has {used.name} {used.value!r}, which does not meet the budget {used}; {_ADVICE}")


def check_number(what: str, stored: Any, true: float, relative: float = _SAME, further: str = "") -> None:
    """ValueError if a stored number does not agree with the re-evaluated one; `further` ends the sentence."""
    if not same_number(stored, true, relative):
        raise ValueError(f"{what} as {stored!r}, re-evaluated it is {true!r}; {_ADVICE}{further}")


def note_unknown(problems: Iterable[DesignProblem]) -> None:
    """Say on stderr which problems have no identity, so that nothing of them is taken from an earlier run, and why."""
    reasons: dict[str, None] = {}
    for problem in problems:
        try:
            fingerprint(problem)
        except NoIdentity as error:
            reasons[str(error)] = None
    for reason in reasons:
        print(f"nothing is taken from an earlier run: {reason}", file=sys.stderr)


def _repeats(problem: DesignProblem) -> bool:
    """Whether every quantity is a formula, which gives the same number every time."""
    return all(isinstance(quantity, Separable | Composite) for quantity in problem.quantities)
