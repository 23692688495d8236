"""What a method that finds a whole front at once hands back: designs, and where better ones may be missing.

`solvers.questions.pareto.exact_front` makes points and boxes of it, with every value re-evaluated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from formulation import DesignProblem
from solvers.base import Run


@dataclass(frozen=True)
class Open:
    """Where designs may be missing from a front: better ones than `floor`, at costs up to `upper`.

    Attributes:
        upper: a limit on each cost, ∞ where there isn't one.
        floor: an objective, −∞ where even the first design within `upper` may be missing.
        bound: no missing design within `upper` has a larger objective; ∞ if nothing is known.
    """

    upper: tuple[float, ...]
    floor: float = -math.inf
    bound: float = math.inf

    @staticmethod
    def everything(costs: int, bound: float = math.inf) -> Open:
        """Any design at all may be missing: of a search with some number of costs that ended before anything was proved."""
        return Open((math.inf,) * costs, bound=bound)


@dataclass(frozen=True, eq=False)
class WholeFront:
    """The designs of a front, as far as a method got.

    Let h(e) be the best objective among `choices` that meet the budgets at costs ≤ e, −∞ if there are none. No design of the space
    that meets the budgets at costs ≤ e has an objective above h(e), but by less than fronts distinguish (1e-12, relative), unless
    some `Open` holds e: e ≤ upper and floor ≤ h(e) < bound. Without an `Open` the front is complete.

    Attributes:
        choices: int (n, N), item numbers of designs; some that others dominate, or that exceed a budget, do no harm.
        opened: where better designs may be missing.
        message: how the front was found, in half a sentence, and why the search stopped if it did.
    """

    choices: np.ndarray
    opened: tuple[Open, ...]
    message: str


class WholeFrontMethod(Protocol):
    """A function that finds fronts of problems of some structure."""

    def __call__(self, problem: DesignProblem, run: Run) -> WholeFront | None:
        """The front of a problem on a single space; None where the method does not suit its structure or size.

        It never raises `Stopped`: when the run is out of time, interrupted, or out of memory (`run.limits.memory`), it returns what
        it has, and where better designs may be missing.

        Args:
            problem: maximizes one quantity and minimizes one or more, within budgets, of which some may be on these too.
            run: polled at least every tenth of a second; designs scored are added to its `evaluations`.
        """
