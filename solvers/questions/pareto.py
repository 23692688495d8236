"""Fronts of several objectives: exact ones by the ε-constraint method with their certificate, brute force, hypervolume.

A design is *dominated* where another is no worse in every objective and better in one; the *front* is the rest. Values that
differ by less than 1e-11, relative, count as equal, and of designs equal in every objective one is kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from formulation import Architecture, Budget, DesignProblem, evaluator
from formulation.problem import just_below
from formulation.values import value_of
from solvers.base import ROUNDING, Limits, Run, Solution, Solver, Status, solve, solve_within
from solvers.exact.dynamic_programming import DynamicProgramming
from solvers.exact.exhaustive import scored_designs

Costs = tuple[float, ...]
"""One number per minimized quantity, in their order and units; as limits, math.inf stands for none."""

_SAME = 1e-11
"""Relative difference below which two values are the same: the step of `just_below`."""


@dataclass(frozen=True)
class Point:
    """A design with its objective (maximized) and its costs (minimized), in the units of their quantities."""

    architecture: Architecture
    objective: float
    costs: Costs


@dataclass(frozen=True)
class Box:
    """What is known of the designs that meet the problem's budgets with cost_k ≤ limits_k for every k.

    Attributes:
        limits: e, the ε of the method's name.
        status: OPTIMAL: `point` is proved the best of them; INFEASIBLE: it is proved that there is none; else not settled.
        point: the best design found, None if none was.
        bound: no such design has a larger objective, None if nothing is known.
        seconds: wall-clock time of the solve.
        evaluations: complete designs scored in it.
    """

    limits: Costs
    status: Status
    point: Point | None = None
    bound: float | None = None
    seconds: float = 0.0
    evaluations: int = 0

    @property
    def settled(self) -> bool:
        """Whether the best design is proved, or that there is none."""
        return self.status in (Status.OPTIMAL, Status.INFEASIBLE)

    @property
    def corner(self) -> Costs:
        """The least limits for which the box speaks: the costs of its optimum, 0 where it has none.

        A cost within a limit by rounding alone counts as that limit.
        """
        if self.point is None:
            return (0.0,) * len(self.limits)
        return tuple(map(min, self.point.costs, self.limits))


@dataclass(frozen=True)
class Found:
    """A point that no point before it dominated: when it was scored, and its values (objective, cost_1, …)."""

    seconds: float
    evaluations: int
    values: Costs


@dataclass(frozen=True)
class Front:
    """Non-dominated designs of a problem, and what is proved of them.

    Attributes:
        points: by increasing costs.
        boxes: the certificate of an exact method, the boxes that are not settled last; empty where nothing is proved.
        trace: of a heuristic: every point that entered its archive, in time.
        seconds: wall-clock time of the call; boxes that were known before keep their own.
        evaluations: complete designs scored in it.
        message: why it stopped.
        interrupted: whether Ctrl-C ended it.
    """

    problem: DesignProblem
    points: tuple[Point, ...]
    boxes: tuple[Box, ...]
    trace: tuple[Found, ...]
    seconds: float
    evaluations: int
    message: str
    interrupted: bool

    @property
    def pending(self) -> tuple[Box, ...]:
        """The boxes that are not settled: only designs within their limits, up to their bounds, may be missing."""
        return tuple(box for box in self.boxes if not box.settled)

    @property
    def complete(self) -> bool:
        """Whether every point of the true front is proved to be here."""
        return bool(self.boxes) and not self.pending

    def settles(self, costs: Costs) -> bool:
        """Whether the best design within these costs is proved to be among the points, or that there is none."""
        return self.complete or any(
            box.settled and _all_within(box.corner, costs) and _all_within(costs, box.limits) for box in self.boxes
        )

    @property
    def values(self) -> np.ndarray:
        """Array (points, 1 + K): objective, cost_1, …, cost_K."""
        return values_of(self.points).reshape(-1, 1 + len(self.problem.minimize))


def point_of(problem: DesignProblem, architecture: Architecture) -> Point:
    """A design with its values. ValueError if a cost is not a number of at least 0."""
    costs = tuple(value_of(quantity, architecture) for quantity in problem.minimize)
    for quantity, cost in zip(problem.minimize, costs, strict=True):
        if not 0 <= cost < math.inf:
            raise ValueError(
                f"{quantity.name} of {architecture} is {cost!r}; a minimized quantity must be a finite number of at least 0"
            )
    return Point(architecture, problem.objective(architecture), costs)


def values_of(points: Iterable[Point]) -> np.ndarray:
    """Array (points, 1 + K): objective, cost_1, …, cost_K; (0,) for no points."""
    return np.array([(point.objective, *point.costs) for point in points], dtype=float)


def non_dominated(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other dominates, by increasing costs; of equal ones the first."""
    listed = list(points)
    if not listed:
        return ()
    values = values_of(listed)
    ranks = np.column_stack([_ranks(column) for column in values.T])
    kept = _undominated(ranks)
    return tuple(sorted((listed[i] for i in np.flatnonzero(kept)), key=lambda point: (point.costs, point.objective)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value among the different ones, equal for values that differ by less than `_SAME`."""
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order]) > _SAME * np.abs(values[order[1:]])
    ranks = np.empty(len(values))
    ranks[order] = np.concatenate(([0], np.cumsum(steps)))
    return ranks


def _undominated(values: np.ndarray) -> np.ndarray:
    """Bool array: which rows (to maximize, to minimize, …) are not dominated; of equal rows the first."""
    import moocore

    maximise = [True] + [False] * (values.shape[1] - 1)
    return moocore.is_nondominated(np.asarray(values, dtype=float), maximise=maximise, keep_weakly=False)


def exact_front(
    problem: DesignProblem,
    solver: Solver | None = None,
    limits: Limits | None = None,
    known: Iterable[Box] = (),
    on_box: Callable[[Box], object] | None = None,
) -> Front:
    """The whole front of `problem`, each of its parts proved, by the ε-constraint method (Haimes et al. 1971).

    For some limits e,

        maximize objective(A) subject to cost_k(A) ≤ e_k and the budgets

    gives a design s of costs c. It is also the best for all limits between c and e; any other design of the front within e costs
    less than s somewhere, so it lies within e with one e_k lowered to just below c_k. The search goes through these until all are
    settled, the largest limits first, since those settle others. The boxes (c, e) and the limits that no design meets are the
    certificate; see `check_certificate`.

    Args:
        solver: proves each box, DynamicProgramming() where None. Its bounds must be tight up to rounding, as those of
            DynamicProgramming and Exhaustive are; SCIP, HiGHS and CBC prove 1e-7 and leave every box pending.
        limits: of all solves together, at whose end the front is what is known so far; the gap is 1e-12 whatever they say, since
            with 1e-6 the points that gain less would be lost.
        known: settled boxes of the same problem to go on from, as an earlier call gave them to `on_box`.
        on_box: is called with each box as it is settled, in an order that only the problem and the solver decide.

    Raises:
        ValueError: if nothing is minimized, a minimized quantity is negative or a known box is of another problem.
        NotSeparable: if the solver cannot read a quantity.
    """
    solver, limits = solver or DynamicProgramming(), limits or Limits()
    check_objectives(problem)
    root = _root(problem)
    settled = [box for box in known if box.settled]
    for box in settled:
        if len(box.limits) != len(root) or not _all_within(box.limits, root):
            raise ValueError(f"a known box has the limits {box.limits}, which this problem ({root}) does not ask for; drop it")
    cover = _Cover(settled, len(root))
    open_boxes: list[Box] = []
    run = Run(limits)
    with run.listening():
        queue = _Queue([root, *(child for box in settled for child in _children(box.limits, box))])
        while queue and not run.stopped:
            wanted = queue.pop()
            if cover.find(wanted) is not None:
                continue
            solution = solve_within(run, _within(problem, wanted), solver, gap=ROUNDING)
            box = Box(wanted, Status.UNKNOWN) if solution is None else _box(problem, wanted, solution)
            if not box.settled:
                open_boxes.append(box)
                continue
            settled.append(box)
            cover.add(box)
            queue.push(_children(wanted, box))
            if on_box is not None:
                on_box(box)
    left = [Box(e, Status.UNKNOWN) for e in queue.rest() if cover.find(e) is None]
    pending = [replace(box, bound=cover.least_bound(box)) for box in (*open_boxes, *left)]
    points = non_dominated(box.point for box in (*settled, *pending) if box.point is not None)
    message = f"{len(settled):,} {'box' if len(settled) == 1 else 'boxes'} settled"
    if pending:
        message = "; ".join(filter(None, (run.why_stopped, f"{message}, {len(pending):,} pending")))
    return Front(problem, points, (*settled, *pending), (), run.seconds, run.evaluations, message, run.interrupted)


class _Queue:
    """Limits to settle, each once, the lexicographically largest first: then any that cover others come before them."""

    def __init__(self, limits: Iterable[Costs]) -> None:
        self._heap: list[Costs] = []
        self._seen: set[Costs] = set()
        self.push(limits)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def push(self, limits: Iterable[Costs]) -> None:
        for e in limits:
            if e not in self._seen:
                self._seen.add(e)
                heapq.heappush(self._heap, tuple(-value for value in e))

    def pop(self) -> Costs:
        return tuple(-value for value in heapq.heappop(self._heap))

    def rest(self) -> Iterator[Costs]:
        while self:
            yield self.pop()


class _Cover:
    """Settled boxes, to be found by limits for which they speak."""

    def __init__(self, boxes: Iterable[Box], costs: int) -> None:
        self._boxes: list[Box] = []
        self._corners, self._tops, self._bounds = np.empty((0, costs)), np.empty((0, costs)), np.empty(0)
        for box in boxes:
            self.add(box)

    def add(self, box: Box) -> None:
        self._boxes.append(box)
        self._corners = np.vstack((self._corners, box.corner))
        self._tops = np.vstack((self._tops, box.limits))
        self._bounds = np.append(self._bounds, math.inf if box.bound is None else box.bound)

    def least_bound(self, box: Box) -> float | None:
        """The least proven bound on the designs of a box: its own, or that of a box here with limits no smaller."""
        wider = np.all(box.limits <= self._tops, axis=1)
        least = self._bounds[wider].min(initial=math.inf if box.bound is None else box.bound)
        return float(least) if least < math.inf else None

    def find(self, limits: Costs) -> Box | None:
        """A box whose optimum, or lack of one, is that of the designs within `limits` too: corner ≤ limits ≤ its own limits."""
        hits = np.flatnonzero(np.all((self._corners <= limits) & (limits <= self._tops), axis=1))
        return self._boxes[hits[0]] if len(hits) else None


def check_objectives(problem: DesignProblem) -> None:
    """ValueError if the problem minimizes nothing, or has one objective twice."""
    if not problem.minimize:
        raise ValueError("the problem minimizes nothing; a front needs a quantity in `minimize`, `solve` does without")
    if problem.maximize is None:
        raise ValueError(
            f"the problem minimizes {problem.goal.name} and maximizes nothing; a front needs a quantity in `maximize`, "
            "`solve` does without"
        )
    for one, other in combinations((problem.goal, *problem.minimize), 2):
        if one == other:
            raise ValueError(f"{one.name} is an objective twice; expected different quantities to maximize and to minimize")


def _root(problem: DesignProblem) -> Costs:
    """The limits that the problem itself sets on what it minimizes."""
    return tuple(
        min((one.upper for one in problem.subject_to if one.quantity == quantity and one.upper is not None), default=math.inf)
        for quantity in problem.minimize
    )


def _all_within(costs: Costs, limits: Costs) -> bool:
    return all(cost <= e for cost, e in zip(costs, limits, strict=True))


def _within(problem: DesignProblem, limits: Costs) -> DesignProblem:
    """The problem of one objective: the best design within `limits`, which replace the budgets on the same quantities."""
    others = tuple(budget for budget in problem.subject_to if budget.upper is None or budget.quantity not in problem.minimize)
    costs = tuple(Budget(quantity, e) for quantity, e in zip(problem.minimize, limits, strict=True) if e < math.inf)
    return replace(problem, subject_to=(*others, *costs), report=(), minimize=())


def _box(problem: DesignProblem, limits: Costs, solution: Solution) -> Box:
    point = None if solution.architecture is None else point_of(problem, solution.architecture)
    return Box(limits, solution.status, point, solution.bound, solution.seconds, solution.evaluations)


def _children(limits: Costs, box: Box) -> Iterator[Costs]:
    """Limits that together hold every design within `limits` that costs less somewhere than the optimum of a box covering them.

    No design costs less than 0.
    """
    if box.status is Status.INFEASIBLE:
        return
    for k, cost in enumerate(box.corner):
        if cost > 0:
            yield (*limits[:k], just_below(cost), *limits[k + 1 :])


def check_certificate(front: Front) -> tuple[str, ...]:
    """What is wrong with the boxes and points of an exact front, in sentences; nothing where they hold together.

    However the boxes were found: (1) their designs are in the space, meet the budgets and the limits, and have the values they
    are said to have, re-evaluated; (2) no bound of a box exceeds its optimum; (3) the boxes, settled and pending, account for
    all limits, by recursion from those of the problem; (4) the points are the non-dominated designs of the boxes. What it takes
    from the solver is the proof of each single box.
    """
    problem = front.problem
    faults = [fault for box in front.boxes for fault in _box_faults(problem, box)]
    settled = _Cover((box for box in front.boxes if box.settled), len(problem.minimize))
    pending = [box.limits for box in front.pending]
    queue = _Queue([_root(problem)])
    while queue:
        wanted = queue.pop()
        if any(_all_within(wanted, limits) for limits in pending):
            continue
        box = settled.find(wanted)
        if box is None:
            faults.append(f"no box accounts for the limits {wanted}")
        else:
            queue.push(_children(wanted, box))
    expected = non_dominated(box.point for box in front.boxes if box.point is not None)
    if not np.array_equal(values_of(front.points), values_of(expected)):
        faults.append(f"the front has {len(front.points)} points; the boxes give {len(expected)} or others")
    return tuple(faults)


def _box_faults(problem: DesignProblem, box: Box) -> Iterator[str]:
    if box.point is None:
        if box.status is Status.OPTIMAL:
            yield f"the box of limits {box.limits} is called optimal and has no design"
        return
    architecture = box.point.architecture
    if architecture not in problem.space:
        yield f"{architecture} is not in the space"
        return
    usage = _within(problem, box.limits).evaluate(architecture).usage
    broken = [str(used) for used in usage if not used.within]
    if broken:
        yield f"{architecture} does not meet {', '.join(broken)}"
    if point_of(problem, architecture) != box.point:
        yield f"{architecture} has other values than its box says"
    if box.status is Status.INFEASIBLE:
        yield f"the box of limits {box.limits} is called infeasible and has a design"
    if box.status is Status.OPTIMAL and (
        box.bound is None or box.bound - box.point.objective > ROUNDING * max(abs(box.point.objective), 1e-12)
    ):
        yield f"the box of limits {box.limits} has the bound {box.bound}, which does not prove {box.point.objective}"


def exhaustive_front(problem: DesignProblem) -> tuple[Point, ...]:
    """The front by scoring every design of the space: an independent witness for spaces of some ten million designs."""
    check_objectives(problem)
    if len(problem.parts) > 1:
        return non_dominated(point for part in problem.parts for point in exhaustive_front(part))
    space = problem.space
    costs = [evaluator(quantity, space) for quantity in problem.minimize]
    choices, values = np.empty((0, space.blocks), dtype=np.intp), np.empty((0, 1 + len(costs)))
    for chunk in scored_designs(problem, Run(Limits())):
        feasible = np.flatnonzero(chunk.values > -np.inf)
        if len(feasible):
            portion = chunk.choices(feasible)
            choices = np.concatenate((choices, portion))
            portion_values = np.column_stack((chunk.values[feasible], *(read(portion) for read in costs)))
            values = np.concatenate((values, portion_values))
            kept = _undominated(values)
            choices, values = choices[kept], values[kept]
    return non_dominated(point_of(problem, space.decode(row)) for row in choices.tolist())


def reference_costs(problem: DesignProblem, solver: Solver | None = None) -> Costs:
    """The reference point of the hypervolume, with objective 0: each cost's budget, or else its largest value on the space.

    Found and proved by `solver`, DynamicProgramming() where None. ValueError if a cost is 0 throughout or not proved.
    """
    references = []
    for quantity, upper in zip(problem.minimize, _root(problem), strict=True):
        if upper == math.inf:
            solution = solve(DesignProblem(problem.space, quantity), solver or DynamicProgramming())
            if solution.objective is None or solution.status is not Status.OPTIMAL:
                raise ValueError(f"the largest {quantity.name} of the space was not proved; add a budget on it")
            upper = solution.objective
        if upper <= 0:
            raise ValueError(f"{quantity.name} is 0 for every design; leave it out of the quantities to minimize")
        references.append(upper)
    return tuple(references)


def hypervolume(values: np.ndarray, reference: Costs) -> float:
    """The hypervolume of points above the reference point (objective 0, costs `reference`), in the unit of the objective.

    Costs are counted as shares of the reference, so that the hypervolume is the mean, over limits e uniform in 0 … reference, of
    the best objective within e (0 where no point is within). Points outside the reference add nothing. By moocore (Fonseca et al.
    2006).

    Args:
        values: objective and costs of the points, array (n, 1 + K).
        reference: the costs of the reference point.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return 0.0
    import moocore

    scaled = np.column_stack((-values[:, 0], values[:, 1:] / np.array(reference)))
    return float(moocore.hypervolume(scaled, ref=[0.0] + [1.0] * len(reference)))
