"""One verb: `solve(problem, solver, limits) -> Solution`. Solvers claim, `solve` re-checks; only a valid bound proves.

Here are the words that all solvers share. How each searches is its own file.
"""

from __future__ import annotations

import math
import numbers
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from formulation import (
    Architecture,
    Budget,
    Combine,
    DesignProblem,
    NoIdentity,
    SearchSpace,
    Separable,
    SpaceUnion,
    Usage,
    fingerprint,
)
from formulation.records.provenance import version_of
from formulation.table import tabulate, value_range
from solvers.certificate import Certificate, OfParts, Stated, Uncheckable

_AGREEMENT = 1e-9
"""Relative amount by which a bound may lie below its own incumbent and still be put down to rounding."""
_OVERSTATED = 1e-6
"""Relative amount by which an engine's tolerances may raise an incumbent in the trace above the design's objective."""

ROUNDING = 1e-12
"""Relative difference of objectives that is put down to the order of floating-point sums: the smallest gap asked for."""


class EngineMissing(ImportError):
    """A solver's engine is not installed; the message says how to install it."""


class Stopped(Exception):
    """The clock, a lack of memory or Ctrl-C ended long work in its middle; who has something to answer with catches it.

    See `Run.poll` and `Run.within_memory`.
    """


class Status(Enum):
    """What is known at the end. Proved and found are different words: only a valid bound makes OPTIMAL or INFEASIBLE."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Limits:
    """When to stop, and where to start.

    Attributes:
        seconds: wall-clock time, None for no limit.
        evaluations: complete designs scored (heuristics and exhaustive search), None for no limit.
        gap: relative gap (bound − objective) / |objective| at which a design counts as proved; SCIP, HiGHS, CBC and CP-SAT add to
            their bounds what their tolerances can hide, which grows with the terms that are added up.
        seed: of every random choice.
        start: a design of the space that the solver may begin with.
        memory: bytes that an exact search may take for its tables and labels, beside what the process has without it; what does
            not fit is searched less finely or in parts, or the search ends early, with a valid bound.
    """

    seconds: float | None = None
    evaluations: int | None = None
    gap: float = 1e-6
    seed: int = 0
    start: Architecture | None = None
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds!r}; expected a positive number, or None for no limit")
        if self.evaluations is not None and self.evaluations < 1:
            raise ValueError(f"evaluations is {self.evaluations!r}; expected at least 1, or None for no limit")
        if not 0 <= self.gap < math.inf:
            raise ValueError(f"gap is {self.gap!r}; expected a number of at least 0, such as 1e-6")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; expected a whole number of at least 0")
        if not isinstance(self.memory, int) or self.memory < 1 << 20:
            raise ValueError(f"memory is {self.memory!r}; expected a whole number of bytes, at least {1 << 20:,}")


@dataclass(frozen=True, slots=True)
class TracePoint:
    """What was known when: seconds since the start, designs scored, best objective and proven bound (None: none yet)."""

    seconds: float
    evaluations: int
    incumbent: float | None
    bound: float | None


@dataclass
class Run:
    """One call of `solve` while it lasts: its clock, its stop signs and its trace. Solvers look at `stopped` and call `record`.

    Attributes:
        cutoff: an objective that is reached elsewhere, in another part of a union of spaces. A solver may pass over designs that do
            not exceed it, and its bound is then no less; that no design meets the budgets still means that none does.
            It may rise while a search lasts.
        halted: why something other than clock, evaluations and user ended the run, such as memory used up; empty if nothing has.
        on_interrupt: set by a solver whose engine does not come back to Python: asks the engine to stop.
        on_record: is told every new point of the trace.
    """

    limits: Limits
    started: float = field(default_factory=time.perf_counter)
    evaluations: int = 0
    interrupted: bool = False
    trace: list[TracePoint] = field(default_factory=list)
    on_interrupt: Callable[[], object] | None = None
    cutoff: float = -math.inf
    halted: str = ""
    on_record: Callable[[TracePoint], object] | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the time limit, at least a hundredth; None if there isn't one."""
        return None if self.limits.seconds is None else max(self.limits.seconds - self.seconds, 0.01)

    @property
    def out_of_time(self) -> bool:
        """Whether the time is used up, the user pressed Ctrl-C, or something else has halted the run."""
        return self.interrupted or bool(self.halted) or (self.limits.seconds is not None and self.seconds >= self.limits.seconds)

    @property
    def stopped(self) -> bool:
        """Whether time or evaluations are used up, the user pressed Ctrl-C, or something else has halted the run."""
        return self.out_of_time or (self.limits.evaluations is not None and self.evaluations >= self.limits.evaluations)

    def poll(self) -> None:
        """Raise Stopped once the run is `out_of_time`: for long work, at least every tenth of a second.

        Evaluations are the business of those who score designs: they look at `stopped`.
        """
        if self.out_of_time:
            raise Stopped

    @property
    def why_stopped(self) -> str:
        """The stop sign in words, empty if there isn't one."""
        if self.interrupted:
            return "interrupted by the user"
        if self.halted:
            return self.halted
        if not self.stopped:
            return ""
        return "time limit reached" if self.out_of_time else "evaluation limit reached"

    def record(self, incumbent: float | None, bound: float | None = None) -> None:
        """Add a trace point where it tells something new; a bound once proven stays."""
        last = self.trace[-1] if self.trace else None
        known = [value for value in (bound, last.bound if last else None) if value is not None and math.isfinite(value)]
        bound = min(known, default=None)
        if last is None or (last.incumbent, last.bound) != (incumbent, bound):
            self.trace.append(TracePoint(self.seconds, self.evaluations, incumbent, bound))
            if self.on_record is not None:
                self.on_record(self.trace[-1])

    @contextmanager
    def within_memory(self) -> Iterator[None]:
        """What does not fit the memory of the process within it ends the run as the clock does, by Stopped."""
        try:
            yield
        except MemoryError:
            self.halted = "memory used up"
            raise Stopped from None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """An engine is imported within it, which takes none of the run's time: only the first search of a process has to."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self.started += time.perf_counter() - since

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C asks the solver to stop with its incumbent; a second Ctrl-C raises KeyboardInterrupt at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_interrupt(number: int, frame: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            if self.on_interrupt is not None:
                self.on_interrupt()

        previous = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


@dataclass(frozen=True)
class Answer:
    """What a solver claims; `solve` shows users none of it unchecked.

    Attributes:
        architecture: the best design found, None if none was.
        bound: a proven upper bound on the objective of every feasible design, or None; solvers only ever maximize.
        infeasible: whether it was proved that no design meets the budgets.
        message: why the search ended, in the engine's own words.
        certificate: what a proof rests on, None if the solver keeps no record of it.
        solvers: those that it handed the problem on to, none if it searched by itself.
    """

    architecture: Architecture | None
    bound: float | None = None
    infeasible: bool = False
    message: str = ""
    certificate: Certificate | None = None
    solvers: tuple[Solver, ...] = ()


class Solver(Protocol):
    """A frozen record of options; all state of a search stays inside `search`."""

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def distributions(self) -> tuple[str, ...]:
        """PyPI names of the packages whose versions belong in the provenance."""

    def search(self, problem: DesignProblem, run: Run) -> Answer:
        """Search until proved, finished, or `run.stopped`."""


@dataclass(frozen=True)
class Provenance:
    """Where a solution comes from: seed, versions, and the problem's `fingerprint`, None if it has none.

    Attributes:
        solver: the solver with its options; where it handed the problem on, followed by the solvers that it chose.
    """

    solver: str
    seed: int
    versions: dict[str, str]
    problem_sha256: str | None


@dataclass(frozen=True)
class Part:
    """What a search of a union of spaces found out about one of them.

    Attributes:
        label: what tells it from the others, such as vocabulary 4096.
        space: the space.
        objective: of the best design found in it, None if none was: not the optimum of the part where `bound` says otherwise.
        bound: proven bound on the objective in it; where it was closed by a better design elsewhere, at most what that has.
        infeasible: whether it is proved that none of its designs meets the budgets.
        seconds: of its searches.
    """

    label: str
    space: SearchSpace
    objective: float | None
    bound: float | None
    infeasible: bool
    seconds: float


@dataclass(frozen=True)
class Solution:
    """The re-checked result of `solve`.

    Attributes:
        status: see `Status`.
        architecture: the design, None if none was found.
        objective: its objective, re-evaluated; None without a design.
        usage: its use of each budget.
        bound: proven bound on the optimum, from above where it is maximized and from below where it is minimized, or None.
        gap: |bound − objective| / |objective|, None if either is missing.
        seconds: wall-clock time of the search.
        evaluations: complete designs scored.
        trace: what was known when.
        message: why it stopped, in the solver's words.
        interrupted: whether Ctrl-C ended it.
        parts: what is known of each part of a union of spaces, in its order; empty for a single space.
        certificate: what the proof rests on, of the problem as solvers see it, for `python -m solvers.check`; None where nothing is
            proved.
        chosen: names of the solvers that the one asked handed the problem on to; empty where it searched by itself.
    """

    status: Status
    architecture: Architecture | None
    objective: float | None
    usage: tuple[Usage, ...]
    bound: float | None
    gap: float | None
    seconds: float
    evaluations: int
    trace: tuple[TracePoint, ...]
    message: str
    interrupted: bool
    provenance: Provenance
    parts: tuple[Part, ...] = ()
    certificate: Stated | None = None
    chosen: tuple[str, ...] = ()


def relative_gap(objective: float, bound: float) -> float:
    """(bound − objective) / |objective|, at least 0 and at most the largest float, which an objective of 0 below its bound has."""
    above = max(bound - objective, 0.0)
    return min(above / max(abs(objective), sys.float_info.min), sys.float_info.max) if above else 0.0


def _finite(bound: object) -> float | None:
    """A claimed bound as a float; None for anything but a finite real number."""
    if not isinstance(bound, numbers.Real) or isinstance(bound, bool):
        return None
    try:
        value = float(bound)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _checked(point: TracePoint, objective: float | None) -> TracePoint:
    """A point of the trace without what the final design refutes: larger incumbents, and bounds below it by more than rounding."""
    incumbent, bound = point.incumbent, point.bound
    if incumbent is not None and (objective is None or incumbent > objective):
        overstated = objective is not None and incumbent - objective <= _OVERSTATED * abs(objective)
        incumbent = objective if overstated else None
    if bound is not None and objective is not None and objective - bound > _AGREEMENT * abs(objective):
        bound = None
    return replace(point, incumbent=incumbent, bound=bound)


def broken_budgets(problem: DesignProblem, architecture: Architecture) -> tuple[Budget, ...]:
    """The budgets that a design does not meet."""
    usage = problem.evaluate(architecture).usage
    return tuple(budget for budget, used in zip(problem.subject_to, usage, strict=True) if not used.within)


def mirrored(solution: Solution) -> Solution:
    """A solution of the maximization that stands for a minimization, in the words of the latter: its values negated."""

    def negated(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    trace = (replace(point, incumbent=negated(point.incumbent), bound=negated(point.bound)) for point in solution.trace)
    parts = (replace(part, objective=negated(part.objective), bound=negated(part.bound)) for part in solution.parts)
    objective, bound = negated(solution.objective), negated(solution.bound)
    return replace(solution, objective=objective, bound=bound, trace=tuple(trace), parts=tuple(parts))


def check_kinds(problem: object, solver: object, limits: object) -> None:
    """ValueError that names the argument which is not a problem, a solver record or limits."""
    if not isinstance(problem, DesignProblem):
        raise ValueError(f"problem is {problem!r}; expected a DesignProblem")
    if not isinstance(limits, Limits):
        raise ValueError(f"limits is {limits!r}; expected Limits such as Limits(seconds=60)")
    if isinstance(solver, type) or not callable(getattr(solver, "search", None)):
        raise ValueError(f"solver is {solver!r}; expected a solver record such as DynamicProgramming()")


def solve(problem: DesignProblem, solver: Solver | None = None, limits: Limits | None = None) -> Solution:
    """Search `problem` with `solver` until it is proved or a limit is reached; without one, with the solver that suits it best.

    `Automatic()` chooses that one by structure and size; the message says which it is, and why.

    Solvers only ever maximize: where the problem minimizes, they are given the negated objective, and the solution is turned back.
    They only ever see one space: of a union each part is searched, what is best so far is the cut-off of the others, and the bound
    is the largest of all parts. That no design meets the budgets is proved where it is proved of each part.

    The design is re-evaluated: one that is not in the space or exceeds a budget is discarded and the message says so. The
    status follows from that check and the bound, never from the solver's word alone.

    Raises:
        ValueError: for arguments of the wrong kind or a start outside the space.
        NotSeparable: if an exact solver meets a black box.
        EngineMissing: if the solver's engine is not installed.
    """
    from solvers.automatic import Automatic  # it knows the other solvers, which know this file

    solver, limits = solver or Automatic(), limits or Limits()
    check_kinds(problem, solver, limits)
    if problem.minimize and not problem.least:
        names = ", ".join(quantity.name for quantity in problem.minimize)
        raise ValueError(f"the problem also minimizes {names}; use exact_front or nsga2_front, or turn it into a budget")
    asked, problem = problem, problem.maximizing
    notes = []
    start = limits.start
    if start is not None and (broken := broken_budgets(problem, start)):
        notes.append(f"the start does not meet {', '.join(map(str, broken))} and was left out")
        limits = replace(limits, start=None)
        start = None
    if start is not None:  # as the space says it: a block without layers may come with any FFN width
        holder = problem.space.part_of(start)
        limits = replace(limits, start=holder.decode(holder.encode(start)))
    run = Run(limits)
    parts: tuple[Part, ...] = ()
    with run.listening():
        if len(problem.parts) == 1:
            claim = _searched(problem, solver, run)
        else:
            claim, parts = _searched_union(problem, solver, run)
    seconds = run.seconds
    architecture, objective, bound = claim.architecture, claim.objective, claim.bound
    evaluation = None if architecture is None else problem.evaluate(architecture)
    if bound is not None and objective is not None and relative_gap(objective, bound) > max(limits.gap, ROUNDING):
        bound = max(objective, min(bound, _most(problem)))
    gap = None if bound is None or objective is None else relative_gap(objective, bound)
    if gap is not None and gap <= max(limits.gap, ROUNDING):
        status = Status.OPTIMAL
    elif architecture is not None:
        status = Status.FEASIBLE
    else:
        status = Status.INFEASIBLE if claim.infeasible else Status.UNKNOWN
    solution = Solution(
        status,
        architecture,
        objective,
        () if evaluation is None else evaluation.usage,
        bound,
        gap,
        seconds,
        run.evaluations,
        tuple(_checked(point, objective) for point in run.trace),
        "; ".join(note for note in (*notes, *claim.notes) if note),
        run.interrupted,
        _provenance(asked, solver, limits, claim.solvers),
        parts,
        Stated(claim.certificate, asked) if status in (Status.OPTIMAL, Status.INFEASIBLE) else None,
        tuple(chosen.name for chosen in claim.solvers),
    )
    return mirrored(solution) if asked.least else solution


def _most(problem: DesignProblem) -> float:
    """The most that the objective is where each block takes the best of its menu, ∞ unless it is a sum over blocks alone.

    Correctly rounded, so that an optimum of 0 is proved where it is the sum of zeros, such as the loss of what stays as it was: no
    tolerance of a solver is small next to 0.
    """
    goal, most = problem.goal, -math.inf
    if not isinstance(goal, Separable) or goal.combine is not Combine.SUM:
        return math.inf
    for part in problem.space.parts:
        table = tabulate([goal], part)
        if not all(without.all() for without in table.without_joints):
            return math.inf
        most = max(most, math.fsum([float(table.fixed[0]), *(float(block[0].max()) for block in table.blocks)]))
    return most


@dataclass(frozen=True)
class _Claim:
    """What is known after a search, everything that the solver claimed re-checked; see `Solution`.

    Attributes:
        notes: sentences on what was discarded, and why the search ended.
        certificate: what the bound, or that no design meets the budgets, rests on.
        solvers: those that the solver handed the problem on to.
    """

    architecture: Architecture | None
    objective: float | None
    bound: float | None
    infeasible: bool
    notes: tuple[str, ...]
    certificate: Certificate
    solvers: tuple[Solver, ...] = ()


def searched(problem: DesignProblem, solver: Solver, run: Run) -> Answer:
    """The answer of a solver; where the run ends it in the middle of long work, or memory is used up, what is known by then."""
    try:
        with run.within_memory():
            return solver.search(problem, run)
    except Stopped:
        when, bound = ("in the search", run.trace[-1].bound) if run.trace else ("before the search began", None)
        return Answer(None, bound, message=f"{run.why_stopped} {when}")


def _searched(problem: DesignProblem, solver: Solver, run: Run) -> _Claim:
    """Search a problem on a single space, and check what the solver claims."""
    start = run.limits.start
    answer = searched(problem, solver, run)
    if not isinstance(answer, Answer):
        raise ValueError(f"{solver.name} returned {answer!r}; expected an Answer(architecture, bound, infeasible, message)")
    notes = [answer.message]

    candidates = []
    for source, design in (("the solver", answer.architecture), ("the start", start)):
        if design is None:
            continue
        if design not in problem.space:
            notes.append(f"{source} returned a design outside the space, which was discarded")
        elif broken := broken_budgets(problem, design):
            notes.append(f"{source} returned a design that does not meet {', '.join(map(str, broken))}, which was discarded")
        else:
            candidates.append(design)
    architecture = max(candidates, key=problem.objective, default=None)
    objective = None if architecture is None else problem.objective(architecture)

    if answer.infeasible and architecture is not None:
        notes.append("a design meets the budgets, so its claim that none does was discarded")
    bound = _finite(answer.bound)
    if bound is not None and objective is not None and bound < objective:
        if objective - bound > _AGREEMENT * abs(objective):
            notes.append(f"the solver's bound {bound:.10g} lies below a design of {objective:.10g} and was discarded")
            bound = None
        else:
            bound = objective
    infeasible = answer.infeasible and answer.architecture is None and architecture is None
    certificate = recorded(answer, solver).certificate
    assert certificate is not None
    return _Claim(architecture, objective, bound, infeasible, tuple(notes), certificate, answer.solvers)


def recorded(answer: Answer, solver: Solver) -> Answer:
    """The answer of a solver with a certificate, if only one that names the solver as keeping none."""
    if answer.certificate is not None:
        return answer
    return replace(answer, certificate=Uncheckable(f"{solver.name} keeps no record of its search"))


def _searched_union(problem: DesignProblem, solver: Solver, run: Run) -> tuple[_Claim, tuple[Part, ...]]:
    """Search a problem on a union of spaces, part by part, the one with the largest cheap bound first.

    What is best so far is the cut-off of the parts that follow; one whose bound does not exceed it is closed without being
    searched. Each part gets an even share of what is left of the run, whatever the ones before needed; what then is left goes to
    those that their share did not suffice for, from the best designs on. The bound of the union is the largest of its parts.
    """
    space = problem.space
    assert isinstance(space, SpaceUnion)
    search = _Union(problem, run)
    search.bound_all()
    if run.limits.start is not None:
        search.take(space.parts.index(space.part_of(run.limits.start)), run.limits.start)
    again = True
    while again and not run.stopped:
        left = [part for part in search.by_bound if part.open]
        again = False
        for number, part in enumerate(left):
            if run.stopped:
                break
            if search.closed(part):
                part.open = False
                continue
            part.open = search.search(part, solver, len(left) - number)
            again |= part.open
    return search.claim, tuple(part.result for part in search.parts)


@dataclass(eq=False)
class _PartSearch:
    """One part of a union while it is searched.

    Attributes:
        open: whether to search it, again where a share of the limits did not suffice.
    """

    problem: DesignProblem
    label: str
    bound: float = math.inf
    best: Architecture | None = None
    infeasible: bool = False
    open: bool = True
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    solvers: tuple[Solver, ...] = ()
    certificate: Certificate | None = None

    @property
    def result(self) -> Part:
        objective = None if self.best is None else self.problem.objective(self.best)
        bound = self.bound if math.isfinite(self.bound) else None
        return Part(self.label, self.problem.space, objective, bound, self.infeasible, self.seconds)


class _Union:
    """The search of a union: its parts, the best design so far, and the run that they share."""

    def __init__(self, problem: DesignProblem, run: Run) -> None:
        self.problem, self.run = problem, run
        self.best: Architecture | None = None
        self.objective = -math.inf
        assert isinstance(problem.space, SpaceUnion)
        self.parts = [_PartSearch(part, label) for part, label in zip(problem.parts, problem.space.labels, strict=True)]

    def bound_all(self) -> None:
        """Bound every part by the extremes of its blocks, and close those where a budget alone leaves no design."""
        for part in self.parts:
            try:
                part.bound = value_range(part.problem.goal, part.problem.space, self.run.poll)[1]
                for constraint in part.problem.constraints:
                    if value_range(constraint.quantity, part.problem.space, self.run.poll)[0] > constraint.limit:
                        part.infeasible, part.bound, part.open = True, -math.inf, False
                        part.notes = (f"no design meets {constraint.quantity.name} ≤ {constraint.limit:.6g}",)
                        break
            except Stopped:
                return
        self.record()

    @property
    def by_bound(self) -> list[_PartSearch]:
        """The parts, the largest bound first."""
        return sorted(self.parts, key=lambda part: -part.bound)

    @property
    def bound(self) -> float:
        """The largest bound of the parts."""
        return max(part.bound for part in self.parts)

    def closed(self, part: _PartSearch) -> bool:
        """Whether no design of a part exceeds the best so far by more than the gap."""
        if self.best is None or not math.isfinite(part.bound):
            return part.infeasible
        return relative_gap(self.objective, part.bound) <= max(self.run.limits.gap, ROUNDING)

    def take(self, number: int, design: Architecture) -> None:
        """Note a design of a part."""
        self.parts[number].best = design
        if (value := self.problem.objective(design)) > self.objective:
            self.best, self.objective = design, value
            self.record()

    def record(self) -> None:
        """A trace point of what is known."""
        self.run.record(None if self.best is None else self.objective, self.bound)

    def search(self, part: _PartSearch, solver: Solver, shares: int) -> bool:
        """Search a part with 1/shares of what is left of the run; whether the share did not suffice."""
        own = Run(replace(share_of(self.run, shares), start=part.best), cutoff=self.objective)
        began = own.started
        with own.listening():
            claim = _searched(part.problem, solver, own)
        self.run.started += own.started - began  # an engine that was imported takes none of the run's time
        part.seconds += own.seconds
        others = max((other.bound for other in self.parts if other is not part), default=-math.inf)
        for point in own.trace:
            self._trace(point, own.started - self.run.started, part.bound, others)
        self.run.evaluations += own.evaluations
        self.run.interrupted |= own.interrupted
        part.notes, part.solvers = tuple(note for note in claim.notes if note), claim.solvers
        part.certificate = claim.certificate
        if claim.architecture is not None:
            self.take(self.parts.index(part), claim.architecture)
        part.infeasible |= claim.infeasible
        part.bound = -math.inf if claim.infeasible else min(part.bound, math.inf if claim.bound is None else claim.bound)
        self.record()
        return own.stopped and not claim.infeasible and not self.closed(part)

    def _trace(self, point: TracePoint, later: float, bound: float, others: float) -> None:
        """Add a point of a part's trace to that of the run, with what is known of the other parts."""
        incumbent = max(-math.inf if point.incumbent is None else point.incumbent, self.objective)
        largest = max(others, min(bound, math.inf if point.bound is None else point.bound))
        known = self.run.trace[-1].bound if self.run.trace else None
        finite = [value for value in (largest, known) if value is not None and math.isfinite(value)]
        self.run.trace.append(
            TracePoint(
                point.seconds + later,
                self.run.evaluations + point.evaluations,
                incumbent if math.isfinite(incumbent) else None,
                min(finite, default=None),
            )
        )

    def _unsearched(self, part: _PartSearch) -> str:
        return "closed by its bound" if self.closed(part) else "not searched"

    @property
    def claim(self) -> _Claim:
        """What is known of the union."""
        infeasible = all(part.infeasible for part in self.parts)
        bound = self.bound if math.isfinite(self.bound) else None
        if self.best is not None and bound is not None:
            bound = max(bound, self.objective)
        notes = [self.run.why_stopped, *(f"{part.label}: {', '.join(part.notes) or self._unsearched(part)}" for part in self.parts)]
        closed = Uncheckable("the extremes of its blocks close it, without a search")
        certificate = OfParts({part.label: part.certificate or closed for part in self.parts}, None if infeasible else bound)
        objective = None if self.best is None else self.objective
        solvers = tuple(dict.fromkeys(solver for part in self.parts for solver in part.solvers))
        return _Claim(self.best, objective, bound, infeasible, tuple(notes), certificate, solvers)


def share_of(run: Run, shares: int) -> Limits:
    """The limits of `run` with 1/shares of the time and evaluations that it has left."""
    evaluations, seconds = run.limits.evaluations, run.seconds_left
    return replace(
        run.limits,
        seconds=None if seconds is None else seconds / shares,
        evaluations=None if evaluations is None else max((evaluations - run.evaluations) // shares, 1),
    )


def solve_within(
    run: Run,
    problem: DesignProblem,
    solver: Solver,
    shares: int = 1,
    start: Architecture | None = None,
    gap: float | None = None,
) -> Solution | None:
    """Solve a problem in 1/shares of what is left of `run`; None once the run has been stopped.

    Args:
        gap: that of the run's limits unless given; at least 1e-12 is asked for.

    What the solve used is added to the run.
    """
    if run.stopped:
        return None
    gap = max(run.limits.gap if gap is None else gap, ROUNDING)
    solution = solve(problem, solver, replace(share_of(run, shares), gap=gap, start=start))
    run.evaluations += solution.evaluations
    run.interrupted |= solution.interrupted
    return solution


def _provenance(problem: DesignProblem, solver: Solver, limits: Limits, chosen: Sequence[Solver]) -> Provenance:
    own = dict.fromkeys(("merino", "numpy", *(name for one in (solver, *chosen) for name in one.distributions)))
    versions = {"python": platform.python_version(), **{name: version_of(name) or "not installed" for name in own}}
    try:
        digest = fingerprint(problem)
    except NoIdentity:
        digest = None
    record = repr(solver) + (f" → {', '.join(map(repr, chosen))}" if chosen else "")
    return Provenance(record, limits.seed, versions, digest)
