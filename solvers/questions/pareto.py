"""Fronts of several objectives: exact ones, at once or box by box, with their certificate; brute force; hypervolume.

A design is *dominated* where another is no worse in every objective and better in one; the *front* is the rest. Values that
differ by less than 1e-11, relative, count as equal, and so do the ends of a chain of such values; of designs equal in every
objective one is kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from formulation import Architecture, Budget, DesignProblem, evaluator
from formulation.problem import just_below
from formulation.values import value_of
from solvers.automatic import Automatic
from solvers.base import ROUNDING, Limits, Run, Solver, Status, solve, solve_within
from solvers.evaluation import Recalled, require_structure
from solvers.exact.exhaustive import scored_designs
from solvers.fronts import alike, enumeration, knapsack
from solvers.fronts.whole import WholeFront, WholeFrontMethod

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
        """The least limits for which the box speaks: the costs of its optimum, −∞ where it has none.

        A cost within a limit by rounding alone counts as that limit.
        """
        if self.point is None:
            return (-math.inf,) * len(self.limits)
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
        method: of an exact method, how it was found, in words.
    """

    problem: DesignProblem
    points: tuple[Point, ...]
    boxes: tuple[Box, ...]
    trace: tuple[Found, ...]
    seconds: float
    evaluations: int
    message: str
    interrupted: bool
    method: str = ""

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
    """A design with its values, all finite; Undefined if it lacks one."""
    costs = tuple(value_of(quantity, architecture) for quantity in problem.minimize)
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
    """The place of each value among the different ones, equal for values that differ by less than `_SAME`, or that such steps join.

    Single linkage: being equal has to be transitive for a front to be the same whatever the order of its designs.
    """
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
    """The whole front of `problem`, each of its parts proved.

    Without a solver a method that finds the front at once is chosen by the problem's structure and size: `solvers.fronts`. Where
    none suits, and with a solver, it is the ε-constraint method (Haimes et al. 1971): for some limits e,

        maximize objective(A) subject to cost_k(A) ≤ e_k and the budgets

    gives a design s of costs c. It is also the best for all limits between c and e; any other design of the front within e costs
    less than s somewhere, so it lies within e with one e_k lowered to just below c_k. The search goes through these until all are
    settled, the largest limits first, since those settle others. The boxes (c, e) and the limits that no design meets are the
    certificate; see `check_certificate`. The designs of a front that was found at once are put into the same boxes.

    Args:
        solver: proves each box; None for a front at once, or Automatic(processes=1) where that cannot be had. Its bounds must be
            tight up to rounding, as those of DynamicProgramming and Exhaustive are; SCIP, HiGHS and CBC prove 1e-7 and leave every
            box pending.
        limits: of the whole search, at whose end the front is what is known so far; the gap is 1e-12 whatever they say, since
            with 1e-6 the points that gain less would be lost.
        known: settled boxes of the same problem to go on from, as an earlier call gave them to `on_box`.
        on_box: is called with each box as it is settled, in an order that only the problem and the solver decide.

    Raises:
        ValueError: if nothing is minimized or a known box is of another problem.
        NotSeparable: if the solver cannot read a quantity.
    """
    limits = limits or Limits()
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
        named = solver is not None
        whole = None if named else _whole(problem, run)
        if not named and whole is None:
            require_structure(problem, "exact_front without a solver")
        solver = solver or Automatic(processes=1)
        late = _grace(run)
        over = (lambda: run.stopped) if whole is None else late if whole.open else _pressed_again(run)
        queue = _Queue([root, *(child for box in settled for child in _children(problem, box.limits, box))])
        while queue and not over():
            wanted = queue.pop()
            if (covering := cover.find(wanted)) is not None:
                # Not those of the covering box alone: of two of one objective each may cover what is below the other.
                queue.push(_children(problem, wanted, covering))
                continue
            box = _solved(problem, wanted, solver, run) if whole is None else whole.box(wanted)
            if not box.settled:
                if whole is None:
                    open_boxes.append(box)
                elif len(root) == 1 or not run.out_of_time:  # what is settled below it is known, and of one cost quickly told
                    queue.push(_children(problem, wanted, box))
                continue
            settled.append(box)
            cover.add(box)
            queue.push(_children(problem, wanted, box))
            if on_box is not None:
                on_box(box)
    if whole is not None:
        for box in whole.opened(root, {box.point for box in settled}, late):
            (settled if box.settled else open_boxes).append(box)
    left = [Box(e, Status.UNKNOWN) for e in queue.rest() if cover.find(e) is None]
    pending = [replace(box, bound=cover.least_bound(box)) for box in (*open_boxes, *left)]
    points = non_dominated(box.point for box in (*settled, *pending) if box.point is not None)
    how = (
        whole.message if whole is not None else f"{'' if named else 'no method finds it at once: '}one solve a box by {solver.name}"
    )
    message = f"{len(settled):,} {'box' if len(settled) == 1 else 'boxes'} settled"
    if pending:
        why = "" if run.why_stopped in how else run.why_stopped  # the method may have said it
        message = "; ".join(filter(None, (why, f"{message}, {len(pending):,} pending")))
    return Front(problem, points, (*settled, *pending), (), run.seconds, run.evaluations, f"{message}; {how}", run.interrupted, how)


def _pressed_again(run: Run) -> Callable[[], bool]:
    """Whether Ctrl-C is pressed after now."""
    before = run.interrupted
    return lambda: run.interrupted and not before


def _grace(run: Run) -> Callable[[], bool]:
    """Whether the run is over, and the time that it takes to tell what is known as well."""
    since = run.seconds
    return lambda: run.out_of_time and run.seconds - since >= max(_GRACE_S, _GRACE * (run.limits.seconds or 0.0))


_GRACE, _GRACE_S = 0.1, 0.5
"""Part of the time limit, and seconds at least, in which the boxes of a front that was cut short are told one by one."""
_STRETCHES = 32
"""Boxes that stand for all that are left after that."""
_SMALL = 1 << 52
"""Designs up to which enumeration in two halves is asked before labels: it then ends in a fraction of a second, or refuses."""


def _methods(problem: DesignProblem) -> tuple[WholeFrontMethod, ...]:
    """What finds fronts at once, in the order in which it is asked."""
    if problem.space.size <= _SMALL:
        return alike.alike_front, enumeration.enumerated_front, knapsack.knapsack_front
    return alike.alike_front, knapsack.knapsack_front, enumeration.enumerated_front


def _whole(problem: DesignProblem, run: Run) -> _AtOnce | None:
    """The front of a problem at once; None where no method suits one of its parts."""
    found = []
    for part in problem.parts:
        own = next((whole for method in _methods(part) if (whole := method(part, run)) is not None), None)
        if own is None:
            return None
        found.append((part, own))
    return _AtOnce(problem, found)


class _AtOnce:
    """A front that was found at once, asked for the best design within some limits.

    Attributes:
        message: how it was found.
    """

    def __init__(self, problem: DesignProblem, found: Sequence[tuple[DesignProblem, WholeFront]]) -> None:
        points = (point for part, whole in found for point in _points_of(part, whole.choices))
        self._points = sorted(points, key=lambda point: (-point.objective, point.costs))
        self._values = values_of(self._points).reshape(-1, 1 + len(problem.minimize))
        by_costs = np.lexsort(self._values[:, :0:-1].T)
        self._place = np.argsort(by_costs)
        self._by_costs = by_costs
        self._reached = np.maximum.accumulate(self._values[by_costs, 0])
        self._cheapest = self._values[by_costs, 1]
        self._opened = [one for _, whole in found for one in whole.opened]
        self._upper = np.array([one.upper for one in self._opened]).reshape(-1, len(problem.minimize))
        self._floor = np.array([one.floor for one in self._opened])
        self._bound = np.array([one.bound for one in self._opened])
        self.message = "; ".join(dict.fromkeys(whole.message for _, whole in found))

    def box(self, limits: Costs) -> Box:
        """What is known of the designs within some limits."""
        e = np.array(limits)
        tops = e + ROUNDING * np.where(np.isfinite(e), np.abs(e), 0.0)
        point, bound = self._best_of_one(tops[0]) if len(tops) == 1 else self._best(tops)
        room = _SAME * abs(bound) if point is not None else 0.0
        missing = np.all(e <= self._upper, axis=1) & (self._floor <= bound + room) & (bound < self._bound)
        if missing.any():
            most = float(self._bound[missing].max())
            return Box(limits, Status.UNKNOWN, point, most if most < math.inf else None)
        return Box(limits, Status.INFEASIBLE) if point is None else Box(limits, Status.OPTIMAL, point, bound)

    def _best(self, tops: np.ndarray) -> tuple[Point | None, float]:
        """The best known design of costs up to `tops` with its objective; of designs as good up to rounding the cheapest."""
        within = np.all(self._values[:, 1:] <= tops, axis=1)
        if not within.any():
            return None, -math.inf
        bound = self._points[int(within.argmax())].objective
        equal = np.flatnonzero(within & (self._values[:, 0] >= bound - ROUNDING / 2 * abs(bound)))
        return self._points[equal[self._place[equal].argmin()]], bound

    def _best_of_one(self, top: float) -> tuple[Point | None, float]:
        """What `_best` says of a single cost: by bisection, as what the cheapest designs reach together only rises."""
        number = int(np.searchsorted(self._cheapest, top, side="right"))
        if not number:
            return None, -math.inf
        bound = float(self._reached[number - 1])
        first = int(np.searchsorted(self._reached, bound - ROUNDING / 2 * abs(bound)))
        return self._points[self._by_costs[first]], bound

    @property
    def open(self) -> bool:
        """Whether designs may be missing."""
        return bool(self._opened)

    def opened(self, root: Costs, shown: Set[Point | None], late: Callable[[], bool]) -> Iterator[Box]:
        """Boxes for where designs may be missing, and for the known designs that are in no settled box.

        Args:
            root: the largest limits.
            shown: the designs that are in settled boxes.
            late: whether to be quick: a few boxes then stand for all that are left, and a design's own box has a looser bound.
        """
        if not self._opened:
            return
        left, in_boxes = np.unique(np.minimum(self._upper, root), axis=0), set[Point | None]()
        while len(left):
            # Those of a stretch lie in the box of the largest limits of each cost in it.
            stretch = -(-len(left) // _STRETCHES) if late() else 1
            box = self.box(tuple(left[:stretch].max(axis=0).tolist()))
            left = left[stretch:]
            in_boxes.add(box.point)
            yield box
        most = float(self._bound.max())
        for point in non_dominated(self._points):
            if point in shown:
                continue
            limits = tuple(map(min, point.costs, root))
            if late():
                bound = max(most, point.objective + _SAME * abs(point.objective))
                own = Box(limits, Status.UNKNOWN, point, bound if bound < math.inf else None)
            else:
                own = self.box(limits)
            if own.settled or point not in in_boxes:
                yield own


def _points_of(problem: DesignProblem, designs: np.ndarray) -> Iterator[Point]:
    """Those of some designs, choices (n, N), that meet the budgets, as `point_of` gives them."""
    objective, *costs = (Recalled(quantity, problem.space) for quantity in (problem.goal, *problem.minimize))
    budgets = [(budget, Recalled(budget.quantity, problem.space)) for budget in problem.subject_to]
    for choices in designs.tolist():
        design = problem.space.decode(choices)
        if all(budget.allows(value(choices, design)) for budget, value in budgets):
            yield Point(design, objective(choices, design), tuple(cost(choices, design) for cost in costs))


def _solved(problem: DesignProblem, limits: Costs, solver: Solver, run: Run) -> Box:
    """What a solver finds out about the designs within some limits."""
    solution = solve_within(run, _within(problem, limits), solver, gap=ROUNDING)
    if solution is None:
        return Box(limits, Status.UNKNOWN)
    point = None if solution.architecture is None else point_of(problem, solution.architecture)
    return Box(limits, solution.status, point, solution.bound, solution.seconds, solution.evaluations)


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
    """Settled boxes, to be found by limits for which they speak.

    Each speaks for limits that differ from its own by rounding too: a proof has room for 1e-12, relative, in every budget. With
    more room, as much as `just_below` takes, two boxes of equal costs but for rounding could vouch for each other, and none for
    what is below both.
    """

    def __init__(self, boxes: Iterable[Box], costs: int) -> None:
        self._boxes: list[Box] = []
        self._rows = np.empty((2 * costs + 1, 16))
        for box in boxes:
            self.add(box)

    def add(self, box: Box) -> None:
        count = len(self._boxes)
        if count == self._rows.shape[1]:
            self._rows = np.concatenate((self._rows, np.empty_like(self._rows)), axis=1)
        corner = (c - ROUNDING / 2 * abs(c) for c in box.corner)
        tops = (e + ROUNDING / 2 * abs(e) for e in box.limits)
        self._rows[:, count] = (*corner, *tops, math.inf if box.bound is None else box.bound)
        self._boxes.append(box)

    def _known(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners and limits (costs, n) and bounds (n,) of the boxes."""
        rows, costs = self._rows[:, : len(self._boxes)], len(self._rows) // 2
        return rows[:costs], rows[costs:-1], rows[-1]

    def least_bound(self, box: Box) -> float | None:
        """The least proven bound on the designs of a box: its own, or that of a box here with limits no smaller."""
        _, tops, bounds = self._known()
        wider = np.all(np.array(box.limits)[:, None] <= tops, axis=0)
        least = bounds[wider].min(initial=math.inf if box.bound is None else box.bound)
        return float(least) if least < math.inf else None

    def find(self, limits: Costs) -> Box | None:
        """A box whose optimum, or lack of one, is that of the designs within `limits` too: corner ≤ limits ≤ its own limits."""
        corners, tops, _ = self._known()
        e = np.array(limits)[:, None]
        hits = np.flatnonzero(np.all((corners <= e) & (e <= tops), axis=0))
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
    """The problem of one objective: the best design within `limits`."""
    others, costs = _budgets_within(problem, limits)
    return replace(problem, subject_to=(*others, *costs), report=(), minimize=())


def _budgets_within(problem: DesignProblem, limits: Costs) -> tuple[tuple[Budget, ...], tuple[Budget, ...]]:
    """The budgets of a problem that are not on what it minimizes, and finite limits on this as budgets."""
    others = tuple(budget for budget in problem.subject_to if budget.upper is None or budget.quantity not in problem.minimize)
    return others, tuple(Budget(quantity, e) for quantity, e in zip(problem.minimize, limits, strict=True) if e < math.inf)


def _children(problem: DesignProblem, limits: Costs, box: Box) -> Iterator[Costs]:
    """Limits that together hold every design within `limits` that costs less somewhere than the optimum of a box covering them.

    No design costs less than a quantity declares to be its least.
    """
    if box.point is None:
        return
    for k, (quantity, cost) in enumerate(zip(problem.minimize, box.corner, strict=True)):
        if (lower := just_below(cost)) >= quantity.least:
            yield (*limits[:k], lower, *limits[k + 1 :])


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
            queue.push(_children(problem, wanted, box))
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
    point = point_of(problem, architecture)
    others, costs = _budgets_within(problem, box.limits)
    values = [budget.value(architecture) for budget in others]
    values += [cost for cost, e in zip(point.costs, box.limits, strict=True) if e < math.inf]
    broken = [str(budget) for budget, value in zip((*others, *costs), values, strict=True) if not budget.allows(value)]
    if broken:
        yield f"{architecture} does not meet {', '.join(broken)}"
    if point != box.point:
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

    Found and proved by `solver`, Automatic() where None. ValueError if no design has a cost above 0, or it is not proved.
    """
    references = []
    for quantity, upper in zip(problem.minimize, _root(problem), strict=True):
        if upper == math.inf:
            solution = solve(DesignProblem(problem.space, quantity), solver)
            if solution.objective is None or solution.status is not Status.OPTIMAL:
                raise ValueError(f"the largest {quantity.name} of the space was not proved; add a budget on it")
            upper = solution.objective
        if upper <= 0:
            raise ValueError(f"{quantity.name} is at most {upper:g} for every design; expected a cost above 0 to be a reference")
        references.append(upper)
    return tuple(references)


def hypervolume(values: np.ndarray, reference: Costs) -> float:
    """The hypervolume of points above the reference point (objective 0, costs `reference`), in the unit of the objective.

    Costs are counted as shares of the reference, so that the hypervolume is the mean, over limits e uniform in 0 … reference, of
    the best objective within e (0 where no point is within). Points outside the reference add nothing, and costs below 0 count as
    0. By moocore (Fonseca et al. 2006).

    Args:
        values: objective and costs of the points, array (n, 1 + K).
        reference: the costs of the reference point.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return 0.0
    import moocore

    scaled = np.column_stack((-values[:, 0], np.maximum(values[:, 1:], 0) / np.array(reference)))
    return float(moocore.hypervolume(scaled, ref=[0.0] + [1.0] * len(reference)))
