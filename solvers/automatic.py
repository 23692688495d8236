"""The solver used when none is named: it chooses among the others by structure and size, and says which and why.

What is chosen was measured: `studies/results/exact_methods` holds the table of instances that the thresholds below come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from formulation import Combine, Composite, DesignProblem, NotSeparable, Quantity, Separable
from solvers.base import ROUNDING, Answer, EngineMissing, Run, Solver, recorded, relative_gap, searched
from solvers.evaluation import is_tabular
from solvers.exact.counts import Counts
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.exact.exhaustive import Exhaustive
from solvers.exact.reduction import Reduction
from solvers.heuristics.evolutionary import EvolutionaryAlgorithm
from solvers.programs.highs import Highs
from solvers.rival import rival, spare_core

_CALLED = 1 << 14
"""Designs of a space up to which black boxes are called for each of them."""
_ENUMERATED = 1 << 17
"""Designs up to which enumeration takes about 10 ms, less than the first bounds of any other exact method."""
_FEW_BLOCKS = 8
"""Alike blocks up to which dynamic programming is chosen, if their items are few too.

Seconds of it and of counts for 27 items a block and two budgets: 0.2 and 0.4 for 8 blocks, 0.2 and 0.2 for 10, 0.6 and 0.2 for 16.
"""
_FEW_ITEMS = 2000
"""The same of the items of all alike blocks together.

Seconds of it and of counts for 390 items a block and three budgets: 0.3 and 0.6 for 4 blocks, 0.5 and 0.3 for 6, 0.9 and 0.4 for 8,
3.4 and 0.3 for 12.
"""
_ALONE_S = 1.0
"""Seconds that the solver chosen first has to itself before a second one is started beside it: to start it takes about as long."""


@dataclass(frozen=True)
class Choice:
    """A solver for a problem.

    Attributes:
        solver: the solver.
        why: what of the problem speaks for it, as a clause.
        rival: a second solver, for a second core, where the first may take long and this one may not; None if there is none.
    """

    solver: Solver
    why: str
    rival: Solver | None = None


@dataclass(frozen=True)
class Automatic:
    """Chooses a solver by the structure and size of the problem: an exact one, but for large spaces with a black box.

    Attributes:
        processes: 2: where two solvers lie close, a second one is started in its own process if a core is spare, and they
            share incumbents and bounds; which of several optimal designs is returned may then depend on timing. 1: never.
    """

    processes: int = 2

    name = "automatic"
    distributions = ()

    def __post_init__(self) -> None:
        if self.processes not in (1, 2):
            raise ValueError(f"processes is {self.processes!r}; expected 1 or 2")

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """See `Solver.search`. The message names the solver chosen and says why; a heuristic proves nothing."""
        for choice in choices(problem):
            try:
                return self._searched(problem, choice, run)
            except (NotSeparable, EngineMissing):
                continue  # what it needs was seen not to be there once the terms were read
        raise AssertionError("the last choice takes every problem")

    def _searched(self, problem: DesignProblem, choice: Choice, run: Run) -> Answer:
        said = f"chose {choice.solver.name}, since {choice.why}"
        races = choice.rival is not None and self.processes > 1 and run.limits.evaluations is None and spare_core()
        if not races:
            answer = choice.solver.search(problem, run)
            return replace(recorded(answer, choice.solver), message=f"{said}: {answer.message}", solvers=(choice.solver,))
        assert choice.rival is not None
        own = Run(replace(run.limits, memory=max(run.limits.memory // 2, 1 << 20)), run.started, run.evaluations, cutoff=run.cutoff)
        own.trace = run.trace
        try:
            with own.listening(), rival(problem, choice.rival, own, _ALONE_S) as other:
                # One that is stopped in the middle of long work has answered too, and the other one may have more to say.
                answer = recorded(searched(problem, choice.solver, own), choice.solver)
                other.needed = not _settles(problem, answer, own)
        finally:
            run.started, run.evaluations, run.halted = own.started, own.evaluations, own.halted
            run.interrupted |= own.interrupted
        message = f"{said}: {answer.message}"
        if not other.began:
            return replace(answer, message=message, solvers=(choice.solver,))
        if other.answer is not None and other.needed:
            message += f"; beside it {choice.rival.name}: {other.answer.message}"
            answer = _joint(problem, answer, recorded(other.answer, choice.rival))
            run.record(None if answer.architecture is None else problem.objective(answer.architecture), answer.bound)
        return replace(answer, message=message, solvers=(choice.solver, choice.rival))


def choices(problem: DesignProblem) -> Iterator[Choice]:
    """The solvers for a problem on a single space, the best first. Each but the last may find that it cannot take the problem."""
    space, size = problem.space, problem.space.size
    if not is_tabular(problem):
        called = (quantity for quantity in _searched_quantities(problem) if not isinstance(quantity, Separable | Composite))
        names = ", ".join(dict.fromkeys(quantity.name for quantity in called))
        if size <= _CALLED:
            yield Choice(Exhaustive(), f"{names} can only be called, and the space has {size:,} designs")
        else:
            yield Choice(EvolutionaryAlgorithm(), f"{names} can only be called, for a design at a time; it proves nothing")
        return
    if _adds_up(problem):
        yield Choice(Reduction(), f"everything adds up over {space.blocks} positions and nothing links neighbours")
    if size <= _ENUMERATED:
        yield Choice(Exhaustive(), f"the space has {size:,} designs")
        return
    alike = all(menu == space.menus[0] for menu in space.menus) and not any(q.positional for q in _searched_quantities(problem))
    few = space.blocks <= _FEW_BLOCKS and sum(map(len, space.menus)) <= _FEW_ITEMS
    if alike and not few:
        yield Choice(Counts(), f"its {space.blocks} blocks are alike, so that it matters how many take an item and not which")
    if alike and few:
        yield Choice(DynamicProgramming(), f"its {space.blocks} blocks are few", Counts())
    # Formulas are what engines are slow at; sums under several budgets may suit them.
    engine = Highs() if all(isinstance(quantity, Separable) for quantity in _searched_quantities(problem)) else None
    yield Choice(DynamicProgramming(), f"its {space.blocks} blocks are a chain whose order matters", engine)


def _searched_quantities(problem: DesignProblem) -> tuple[Quantity, ...]:
    return (problem.goal, *(constraint.quantity for constraint in problem.constraints))


def _adds_up(problem: DesignProblem) -> bool:
    """Whether the problem may be a multiple-choice knapsack problem, as far as can be told without a table."""
    goal, *rest = _searched_quantities(problem)
    sums = isinstance(goal, Separable) and goal.combine is Combine.SUM and all(isinstance(each, Separable) for each in rest)
    return sums and not problem.space.may_be_empty and all(bool(step.all()) for step in problem.space.steps)


def _settles(problem: DesignProblem, answer: Answer, run: Run) -> bool:
    """Whether an answer proves its design optimal, or that there is none."""
    if answer.architecture is None or answer.bound is None:
        return answer.infeasible
    return relative_gap(problem.objective(answer.architecture), answer.bound) <= max(run.limits.gap, ROUNDING)


def _joint(problem: DesignProblem, one: Answer, other: Answer) -> Answer:
    """What two searches of one problem claim together: the better design and the lesser bound, with the record of who proved it."""
    designs = [answer.architecture for answer in (one, other) if answer.architecture is not None]
    best = max(designs, key=problem.objective, default=None)
    bounds = [(math.inf if answer.bound is None else answer.bound, answer) for answer in (one, other)]
    bound, proof = min(bounds, key=lambda pair: pair[0])
    infeasible = best is None and (one.infeasible or other.infeasible)
    if best is not None:
        bound = max(bound, problem.objective(best))
    return Answer(best, bound if math.isfinite(bound) else None, infeasible, certificate=proof.certificate)
