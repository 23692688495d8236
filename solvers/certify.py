"""Proofs made again for the checker: `certify(problem, design, bound)` believes no solver and finds multipliers and boxes itself.

What it is told is the claim alone. Linear programs give the multipliers: their duals are what a step of a certificate is made of,
and any multipliers prove something, so that no engine is believed either. Each box is tried with the checker's own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation import Architecture, Combine, Composite, DesignProblem, NotSeparable, Quantity, Separable, SpaceUnion
from formulation.entropy import EffectiveEntropy, TransformerEntropy
from formulation.table import Table, tabulate
from solvers.base import EngineMissing, Limits, Run, Solution, Status, Stopped
from solvers.certificate import (
    Additive,
    Boxes,
    Certificate,
    Links,
    MadeAgain,
    OfParts,
    Stated,
    SummedPart,
    Uncheckable,
    above_rounding,
)
from solvers.programs.linear_form import affine_form

if TYPE_CHECKING:
    from solvers import check  # imported where it is used: `python -m solvers.check` is to find it not yet loaded

_LABELS, _WORK = 100_000, 2_000_000
"""Labels that a pass may hold, and may extend in all, before its box is divided."""
_BOXES = 4000
"""Boxes after which it is given up."""
_TANGENTS = 5
"""Tangents to L²/S in a linear program."""
_SHIFTS = (-3.0, -1.0, 1.0, 3.0)
"""By how many mean standard deviations of its costs the limit of a budget is shifted for a further set of multipliers."""


def certify(
    problem: DesignProblem, design: Architecture | None, bound: float | None, poll: Callable[[], object] = lambda: None
) -> Certificate:
    """A certificate that no design within the budgets has more than a bound, or that none is within them.

    Args:
        problem: maximizes, on a single space.
        design: a design that meets the budgets, None if none is to be given.
        bound: the claim; None for the one that no design meets the budgets.
        poll: called between linear programs and boxes, and may raise to end the work.

    Returns:
        `Additive`, `Boxes`, or `Uncheckable` saying which quantity has a structure that the checker does not know, or that the
        boxes became too many.
    """
    data = _read(problem, poll)
    if isinstance(data, str):
        return Uncheckable(data)
    choices = None if design is None else problem.space.encode(design)
    value = None if design is None else problem.objective(design)
    if bound is not None:
        bound = above_rounding(bound, [] if value is None else [value])
    if data.formula["formula"] == "sum" and not len(data.maxima):
        steps = _Programs(data).multipliers(data.everything, poll)
        return data.additive(steps, bound, choices, value)
    return _divide(problem, data, bound, choices, value, poll)


def certified(solution: Solution, seconds: float | None = None) -> Stated:
    """The certificate of a proof, or a proof made again where the solver left none that can be checked.

    Args:
        solution: proved optimal, or proved to be none.
        seconds: to make it again in; None for no limit.

    Raises:
        ValueError: where nothing is proved.
    """
    stated = solution.certificate
    if stated is None:
        raise ValueError("nothing is proved of the problem, so there is no certificate; search longer, or with an exact solver")
    if _is_checkable(stated.certificate):
        return stated
    problem = stated.problem.maximizing
    sign = -1.0 if stated.problem.least else 1.0
    bound = None if solution.status is Status.INFEASIBLE or solution.bound is None else sign * solution.bound
    run = Run(Limits(seconds=seconds))
    found: dict[str, Certificate] = {}
    labels = problem.space.labels if isinstance(problem.space, SpaceUnion) else ("",)
    for label, part in zip(labels, problem.parts, strict=True):
        design = solution.architecture if solution.architecture is not None and solution.architecture in part.space else None
        try:
            found[label] = certify(part, design, bound, run.poll)
        except Stopped:
            found[label] = Uncheckable(f"the proof was not made again within {seconds:g} s")
    return Stated(found[""] if len(problem.parts) == 1 else OfParts(found, bound), stated.problem)


def _is_checkable(certificate: Certificate) -> bool:
    """Whether a certificate is there, and nothing in it rests on what cannot be checked."""
    if isinstance(certificate, OfParts):
        return all(map(_is_checkable, certificate.certificates.values()))
    if isinstance(certificate, Boxes):
        return not any("engine" in node for node in certificate.nodes)
    return not isinstance(certificate, Uncheckable | MadeAgain)


@dataclass(frozen=True, eq=False)
class ProblemData:
    """A problem as the checker sees it.

    Attributes:
        table: of all parts.
        formula: of the objective, see `Boxes.objective`.
        weights: (K, P) of the parts in the budgets.
        limits: (K,) with room for rounding.
        allowed: bool, per position.
        names: of the parts.
    """

    table: Table
    formula: dict[str, Any]
    weights: np.ndarray
    limits: np.ndarray
    allowed: tuple[np.ndarray, ...]
    steps: tuple[np.ndarray, ...]
    names: tuple[str, ...]

    @cached_property
    def maxima(self) -> np.ndarray:
        """The parts that are maxima."""
        return np.flatnonzero(self.table.is_max)

    @cached_property
    def everything(self) -> Boxed:
        """No range at all."""
        return Boxed(np.full(len(self.names) + 2, -np.inf), np.full(len(self.names) + 2, np.inf))

    @cached_property
    def linked(self) -> bool:
        """Whether it matters which item stands beside which."""
        return not all(map(np.all, self.steps)) or self.joints is not None

    @cached_property
    def joints(self) -> list[np.ndarray] | None:
        """Per pair of neighbours (P, states, states), finite; None where none makes a difference."""
        if all(bool(without.all()) for without in self.table.without_joints):
            return None
        least = [min(float(block[p].min()) for block in self.table.blocks) for p in range(len(self.names))]
        return [
            np.stack([np.where(np.isfinite(own), own, low) for own, low in zip(joint, least, strict=True)])
            for joint in self.table.joints
        ]

    @cached_property
    def links(self) -> Links | None:
        return Links(self.table.space.state_of, self.steps) if self.linked else None

    def additive(
        self, steps: list[dict[str, Any]], bound: float | None, design: Sequence[int] | None, value: float | None
    ) -> Additive:
        """The certificate of a sum: weights of the parts put together."""
        rows = np.vstack((self.formula["weights"], self.weights)) if len(self.limits) else np.array([self.formula["weights"]])
        terms = [rows @ block for block in self.table.blocks]
        fixed = rows @ self.table.fixed
        multipliers = np.array([step["budgets"] for step in steps]).reshape(len(steps), len(self.limits))
        order = np.arange(len(terms))
        if not self.linked and len(multipliers):
            second = []
            for own, allowed in zip(terms, self.allowed, strict=True):
                reduced = np.where(allowed, own[0] - multipliers[0] @ own[1:], -np.inf)
                second.append(-np.diff(np.sort(reduced)[-2:])[0] if len(reduced) > 1 else -np.inf)
            order = np.argsort(second, kind="stable")
        joints = (
            None
            if self.joints is None
            else [[(rows @ own.reshape(len(own), -1))[r].reshape(own.shape[1:]) for own in self.joints] for r in range(len(rows))]
        )
        costs = [[own[1 + k] for own in terms] for k in range(len(self.limits))]
        limits = self.limits - fixed[1:]
        return Additive(
            [own[0] for own in terms],
            costs,
            limits,
            order,
            multipliers,
            bound,
            design,
            value,
            self.allowed,
            fixed[0],
            self.links,
            joints,
        )

    def boxes(
        self,
        nodes: Sequence[dict[str, Any]],
        bound: float | None,
        design: Sequence[int] | None,
        value: float | None,
        further: Sequence[SummedPart] = (),
    ) -> Boxes:
        """The certificate of a formula."""
        parts = [
            SummedPart(
                name,
                [block[p] for block in self.table.blocks],
                float(self.table.fixed[p]),
                None
                if self.joints is None or all(own[p] for own in self.table.without_joints)
                else [own[p] for own in self.joints],
                bool(self.table.is_max[p]),
            )
            for p, name in enumerate(self.names)
        ]
        weights = np.hstack((self.weights, np.zeros((len(self.limits), len(further)))))
        return Boxes([*parts, *further], self.formula, weights, self.limits, nodes, bound, design, value, self.links, self.allowed)


def _read(problem: DesignProblem, poll: Callable[[], object]) -> ProblemData | str:
    """The problem as parts, formula and budgets; what the checker does not know of it, in words."""
    goal = problem.goal
    parts: list[Separable] = []
    rows: list[tuple[int, np.ndarray]] = []
    limits: list[float | None] = []
    formula: dict[str, Any] = {}
    if isinstance(goal, TransformerEntropy) and goal.effectiveness and goal.beta:  # without a discount it is a sum
        parts += goal.parts
        kind = "effective entropy" if type(goal) is EffectiveEntropy else "blockwise entropy"
        alpha = goal.alpha if goal.weighting else (1.0, 1.0)
        formula = {"formula": kind, "alpha": list(alpha), "beta": goal.beta, "parts": [0, 1, 2, 3, 4]}
    asked: list[tuple[Quantity, float | None]] = [] if formula else [(goal, None)]
    asked += [(constraint.quantity, constraint.limit) for constraint in problem.constraints]
    maxima: list[tuple[Separable, float]] = []
    for quantity, limit in asked:
        if isinstance(quantity, Separable):
            if quantity.combine is Combine.MAX and limit is not None:
                maxima.append((quantity, limit))
                continue
            own: tuple[Separable, ...] = (quantity,)
            factors = np.ones(1)
        elif isinstance(quantity, Composite) and (found := affine_form(quantity)) is not None and not found[1]:
            own, factors = quantity.parts, np.array(found[0])
        else:
            return f"the formula of {quantity.name} is not one that the checker knows"
        if limit is not None and any(w < 0 and part.combine is Combine.MAX for w, part in zip(factors, own, strict=True)):
            return f"the budget for {quantity.name} is one on a maximum from below"
        rows.append((len(parts), factors))
        limits.append(limit)
        parts += own
    layers = problem.space.may_be_empty
    table = tabulate([*parts, *(quantity for quantity, _ in maxima)], problem.space, poll)
    count = len(parts) + layers
    weights = np.zeros((len(rows) + layers, count))
    for own_row, (first, some) in zip(weights, rows, strict=False):
        own_row[first : first + len(some)] = some
    allowed = [np.ones(block.shape[1], dtype=bool) for block in table.blocks]
    steps = list(table.space.steps)
    for m, (_, limit) in enumerate(maxima, start=len(parts)):
        within = bool(table.fixed[m] <= limit)
        allowed = [own & within & (block[m] <= limit) for own, block in zip(allowed, table.blocks, strict=True)]
        steps = [step & (joint[m] <= limit) for step, joint in zip(steps, table.joints, strict=True)]
    blocks, joints, fixed, is_max = (
        [b[: len(parts)] for b in table.blocks],
        [j[: len(parts)] for j in table.joints],
        table.fixed[: len(parts)],
        table.is_max[: len(parts)],
    )
    names = tuple(part.name for part in parts)
    if layers:  # at least one layer: a budget on their number from below
        blocks = [np.vstack((block, menu.layers[None])) for block, menu in zip(blocks, problem.space.menus, strict=True)]
        joints = [np.concatenate((joint, np.zeros((1, *joint.shape[1:])))) for joint in joints]
        fixed, is_max, names = np.append(fixed, 0.0), np.append(is_max, False), (*names, "layers")
        weights[-1, -1] = -1.0
        limits.append(-1.0)
    own_table = Table(problem.space, fixed, tuple(blocks), tuple(joints), is_max)
    if not formula:
        formula = {"formula": "sum", "weights": weights[0].tolist()}
        weights, limits = weights[1:], limits[1:]
    room = 2 * (2 * problem.space.blocks + 4) * 2.0**-53 * np.abs(weights) @ own_table.sizes
    exact = np.array([own_table.rounding(slice(None), own_table.sizes)[row != 0].sum() == 0 for row in weights], dtype=bool)
    return ProblemData(
        own_table, formula, weights, np.array(limits, dtype=float) + np.where(exact, 0.0, room), tuple(allowed), tuple(steps), names
    )


@dataclass(frozen=True, eq=False)
class Boxed:
    """Ranges of the parts and of m₁ and m₂, as a linear program takes them."""

    least: np.ndarray
    most: np.ndarray


class _Programs:
    """Linear programs over the choices of a problem: their duals are steps of a certificate."""

    def __init__(self, data: ProblemData) -> None:
        from scipy import sparse

        self.data = data
        table = data.table
        self.items = [np.flatnonzero(own) for own in data.allowed]
        sizes = np.array([len(own) for own in self.items])
        starts = np.concatenate(([0], np.cumsum(sizes)))
        self.count = int(starts[-1])
        self.terms = np.hstack([block[:, own] for block, own in zip(table.blocks, self.items, strict=True)])
        rows, columns, values, right = [], [], [], []
        flows = [np.zeros((len(self.terms), 0))]
        width, height = self.count, 0
        if not data.linked:
            rows, columns = np.repeat(np.arange(len(sizes)), sizes).tolist(), list(range(self.count))
            values, right = [1.0] * self.count, [1.0] * len(sizes)
            height = len(sizes)
        else:
            states = [own[items] for own, items in zip(table.space.state_of, self.items, strict=True)]
            first = int(sizes[0])
            rows, columns, values, right, height = [0] * first, list(range(first)), [1.0] * first, [1.0], 1
            for i, step in enumerate(data.steps):
                s, t = np.nonzero(step)
                flow = width + np.arange(len(s))
                for side, at, state in ((0, i, s), (1, i + 1, t)):
                    rows += [*(height + states[at]), *(height + state)]
                    columns += [*range(int(starts[at]), int(starts[at + 1])), *flow]
                    values += [1.0] * int(sizes[at]) + [-1.0] * len(s)
                    height += step.shape[side]
                    right += [0.0] * step.shape[side]
                width += len(s)
                flows.append(np.zeros((len(self.terms), len(s))) if data.joints is None else data.joints[i][:, s, t])
        self.terms = np.hstack((self.terms, *flows))
        self.paths = sparse.csr_matrix((values, (rows, columns)), shape=(height, width))
        self.right = np.array(right)
        self.width = width
        deviations = [block[:, own].std(axis=1) for block, own in zip(table.blocks, self.items, strict=True) if len(own)]
        self.spread = data.weights @ np.mean(deviations, axis=0) if len(deviations) else np.zeros(len(data.limits))

    def multipliers(self, box: Boxed, poll: Callable[[], object], bounded: bool = True) -> list[dict[str, Any]]:
        """Steps from the linear program and from those with shifted limits."""
        steps = []
        count = len(self.data.limits)
        shifts = [np.zeros(count)]
        shifts += [shift * np.eye(count)[k] for k in range(count) for shift in _SHIFTS] if count else []
        shifts += [np.full(count, shift) for shift in _SHIFTS] if count > 1 else []
        for shift in shifts:
            poll()
            found = self.solve(box, shift * np.abs(self.spread))
            if found is not None:
                steps.append(found[0])
        return steps

    def solve(self, box: Boxed, shift: np.ndarray) -> tuple[dict[str, Any], float, np.ndarray] | None:
        """The step of a box's linear program, its value, and the parts and m there; None where it has no solution."""
        from scipy import sparse
        from scipy.optimize import linprog

        data, table = self.data, self.data.table
        P, K = len(data.names), len(data.limits)  # noqa: N806
        sums = np.flatnonzero(~table.is_max)
        # Columns: items and steps, then parts, m1, m2, z1, z2; each part scaled to about 1.
        scale = np.maximum(table.sizes, 1e-300)
        n = self.width + P + 4
        part, m, z = self.width, self.width + P, self.width + P + 2
        own = sparse.csr_matrix(self.terms[sums] / scale[sums, None])
        ties = sparse.lil_matrix((len(sums), P + 4))
        ties[np.arange(len(sums)), sums] = -1.0
        a_eq = sparse.vstack(
            (sparse.hstack((self.paths, sparse.csr_matrix((self.paths.shape[0], P + 4)))), sparse.hstack((own, ties.tocsr())))
        )
        b_eq = np.concatenate((self.right, -table.fixed[sums] / scale[sums]))
        rows: list[dict[int, float]] = []
        right: list[float] = []
        for k in range(K):
            size = float(np.abs(data.weights[k]) @ scale) or 1.0
            rows.append({part + p: float(data.weights[k, p] * scale[p]) / size for p in np.flatnonzero(data.weights[k]).tolist()})
            right.append((data.limits[k] + shift[k]) / size)
        c = np.zeros(n)
        planes: list[tuple[int, int, int]] = []
        tangents: list[tuple[int, int, float]] = []
        kind = data.formula["formula"]
        unit = 1.0
        if kind == "sum":
            c[part : part + P] = -np.array(data.formula["weights"]) * scale
            unit = float(np.abs(c).max()) or 1.0
            c /= unit
        else:
            alpha, beta, numbers = data.formula["alpha"], data.formula["beta"], data.formula["parts"]
            entropies = numbers[3:] if kind == "effective entropy" else numbers[1:3]
            unit = float(max(a * scale[e] for a, e in zip(alpha, entropies, strict=True)))
            for q in (0, 1):
                c[z + q] = -alpha[q] * scale[entropies[q]] / unit
            depth = numbers[0]
            for q, e in enumerate(entropies):
                if kind == "effective entropy":
                    for corner, (a, end) in enumerate(((box.least[e], box.most[P + q]), (box.most[e], box.least[P + q]))):
                        planes.append((len(rows), q, corner))
                        rows.append({z + q: 1.0, part + e: -end, m + q: -a / scale[e]})
                        right.append(-a * end / scale[e])
                    s = numbers[1 + q]
                    low, high = box.least[depth] / box.most[s], box.most[depth] / box.least[s]
                    for rho in np.linspace(low, high, _TANGENTS):
                        tangents.append((len(rows), q, float(rho)))
                        rows.append(
                            {m + q: 1.0, part + depth: 2 * beta * rho * scale[depth], part + s: -beta * rho * rho * scale[s]}
                        )
                        right.append(1.0)
                else:
                    x = numbers[3 + q]
                    for corner, (l, y) in enumerate(((box.least[depth], box.least[x]), (box.most[depth], box.most[x]))):  # noqa: E741
                        planes.append((len(rows), q, corner))
                        rows.append(
                            {
                                z + q: 1.0,
                                part + e: -1.0,
                                part + x: beta * l * scale[x] / scale[e],
                                part + depth: beta * y * scale[depth] / scale[e],
                            }
                        )
                        right.append(beta * l * y / scale[e])
        entries = [(r, column, value) for r, row in enumerate(rows) for column, value in row.items()]
        a_ub = sparse.csr_matrix(
            ([e[2] for e in entries], ([e[0] for e in entries], [e[1] for e in entries])), shape=(len(rows), n)
        )
        lower, upper = np.zeros(n), np.full(n, np.inf)
        lower[part : part + P], upper[part : part + P] = box.least[:P] / scale, box.most[:P] / scale
        lower[m : m + 2], upper[m : m + 2] = box.least[P:], box.most[P:]
        lower[z:] = -np.inf
        result = linprog(
            c, a_ub if rows else None, right if rows else None, a_eq, b_eq, np.column_stack((lower, upper)), method="highs"
        )
        if result.status != 0:
            return None
        duals = -np.asarray(result.ineqlin.marginals) if rows else np.zeros(0)
        duals = np.maximum(duals, 0.0)
        sizes = np.array([float(np.abs(data.weights[k]) @ scale) or 1.0 for k in range(K)])
        step: dict[str, Any] = {"budgets": (duals[:K] * unit / sizes).tolist()}
        if kind != "sum":
            theta = [0.5, 0.5]
            for q in (0, 1):
                pair = [duals[r] for r, own_q, _ in planes if own_q == q]
                theta[q] = float(min(max(pair[0] / sum(pair), 0.0), 1.0)) if sum(pair) > 0 else 0.5
            step["theta"] = theta
            if tangents:
                step["tangents"] = [
                    [[float(duals[r]), rho] for r, own_q, rho in tangents if own_q == q and duals[r] > 0] for q in (0, 1)
                ]
        ranges: list[list[Any]] = []
        for side, marginals, sign in (("least", result.lower.marginals, 1.0), ("most", result.upper.marginals, -1.0)):
            for v in range(P + 2):
                if (multiplier := float(sign * marginals[part + v])) > 1e-15 and np.isfinite(
                    (lower, upper)[side == "most"][part + v]
                ):
                    name: Any = v if v < P else f"m{v - P + 1}"
                    ranges.append([name, side, multiplier * unit / (scale[v] if v < P else 1.0)])
        known = [entry for entry in ranges if isinstance(entry[0], str) or not table.is_max[entry[0]]]
        step["ranges"] = [entry for entry in known if kind == "effective entropy" or not isinstance(entry[0], str)]
        x = np.asarray(result.x)
        return step, -float(result.fun) * unit, np.concatenate((x[part : part + P] * scale, x[m : m + 2]))


def _divide(
    problem: DesignProblem,
    data: ProblemData,
    bound: float | None,
    design: Sequence[int] | None,
    value: float | None,
    poll: Callable[[], object],
) -> Certificate:
    """Boxes until each is closed by a step or by a pass."""
    from solvers import check
    from solvers.exact.count_proof import CountProof, Unproved

    def claimed(further: Sequence[SummedPart] = ()) -> check.Claim:
        return check.boxes_claim(data.boxes([], bound, design, value, further).to_dict())

    claim = claimed()
    root = check.root_box(claim)
    try:
        claim.check_design()
    except check.Refused as error:
        return Uncheckable(str(error))
    if data.formula["formula"] != "sum":
        try:
            by_counts = CountProof(problem, data, claimed, poll)
        except (NotSeparable, EngineMissing):
            by_counts = None  # boxes over positions, below
        if by_counts is not None:
            try:
                by_counts.run()
            except Unproved as error:
                return Uncheckable(str(error))
            return data.boxes(by_counts.nodes, bound, design, value, by_counts.parts)
    programs = _Programs(data)
    nodes: list[dict[str, Any]] = []
    waiting: list[tuple[int, check.Box, int]] = [(0, root, 0)]
    nodes.append({})
    order = list(range(len(data.allowed)))
    while waiting:
        poll()
        number, box, deep = waiting.pop()
        if len(nodes) > _BOXES:
            return Uncheckable(f"its boxes became more than {_BOXES:,}")
        box = claim.worth.derive(box)
        boxed = _floats(box, data)
        try:
            proof, near = _proof(data, programs, claim, box, boxed, order, poll)
        except _Refuted as error:
            return Uncheckable(f"the claim does not hold exactly: {error}")
        if proof is not None:
            nodes[number] = {"close": proof}
            continue
        split = _where(data, boxed, near)
        if split is None:
            return Uncheckable(f"box {number} is not closed by what the checker knows, and cannot be divided")
        variable, at = split
        below, above = check.cut(box, variable, Fraction(at))
        nodes[number] = {"split": [variable, at], "below": len(nodes), "above": len(nodes) + 1}
        waiting += [(len(nodes), below, deep + 1), (len(nodes) + 1, above, deep + 1)]
        nodes += [{}, {}]
    return data.boxes(nodes, bound, design, value)


class _Refuted(Exception):
    """The claim is false: the message names what refutes it."""


def _floats(box: check.Box, data: ProblemData) -> Boxed:
    """A box in floating point."""
    ranges = [box.range(variable) for variable in (*range(len(data.names)), "m1", "m2")]
    return Boxed(
        np.array([-math.inf if low is None else float(low) for low, _ in ranges]),
        np.array([math.inf if high is None else float(high) for _, high in ranges]),
    )


def _proof(
    data: ProblemData,
    programs: _Programs,
    claim: check.Claim,
    box: check.Box,
    boxed: Boxed,
    order: list[int],
    poll: Callable[[], object],
) -> tuple[dict[str, Any] | None, np.ndarray | None]:
    """What closes a box, None if nothing did; and the parts where its linear program is largest."""
    from solvers import check

    def closes(proof: dict[str, Any]) -> bool:
        try:
            check.close(proof, claim, box, "a box", check.Count(most=_LABELS, work=_WORK))
        except check.Refused as error:
            if "labels" in proof and bool((boxed.least[data.maxima] == boxed.most[data.maxima]).all()):
                raise _Refuted(str(error)) from None  # each label that is left is a choice within the limits
            return False
        except check.NotCheckable:
            return False
        return True

    if box.is_empty:
        return {}, None
    defined = data.formula["formula"] != "effective entropy" or bool(np.isfinite(boxed.least[-2:]).all())
    found = programs.solve(boxed, np.zeros(len(data.limits))) if defined else None
    if found is None:
        proof: dict[str, Any] = {"labels": [], "order": order}
        return (proof if closes(proof) else None), None
    step, value, near = found
    if claim.bound is not None and value <= float(claim.bound) * (1 + 1e-9) and closes(step):
        return step, None
    single = boxed.least[0] == boxed.most[0]
    if single:
        proof = {"labels": [step, *programs.multipliers(boxed, poll)[1:]], "order": order}
        if closes(proof):
            return proof, None
    return None, near


def _where(data: ProblemData, box: Boxed, near: np.ndarray | None) -> tuple[int, float] | None:
    """The variable that a box is divided in, and where."""
    count = len(data.names)
    low, high = box.least[:count], box.most[:count]
    for p in data.maxima:
        values = np.unique(np.concatenate([block[p][own] for block, own in zip(data.table.blocks, data.allowed, strict=True)]))
        inside = values[(values > low[p]) & (values <= high[p])]
        if len(inside):
            return int(p), math.nextafter(float(inside[len(inside) // 2]), -math.inf)
    numbers = data.formula.get("parts", list(range(count)))
    depth = numbers[0]
    if low[depth] <= 0 < high[depth]:
        return depth, 0.0
    if low[depth] < high[depth]:
        middle = (
            (low[depth] + high[depth]) / 2
            if near is None
            else float(
                np.clip(near[depth], low[depth] + 0.2 * (high[depth] - low[depth]), high[depth] - 0.2 * (high[depth] - low[depth]))
            )
        )
        return depth, float(math.floor(middle)) if math.floor(middle) < high[depth] else high[depth] - 1
    alpha, errors = data.formula["alpha"], []
    for k in (0, 1):  # of a product, in the relaxation: by the range of S or of X, and by that of A
        if data.formula["formula"] == "effective entropy":
            errors.append(alpha[k] * (box.most[count + k] - box.least[count + k]) * (high[numbers[3 + k]] - low[numbers[3 + k]]))
        else:
            errors.append(0.0)
    k = int(np.argmax(errors))
    widths = [(high[p] - low[p]) / max(abs(high[p]), abs(low[p]), 1e-300) for p in numbers]
    widest = 1 + k if max(errors) > 0 and widths[1 + k] > 1e-6 else int(np.argmax(widths))
    if widths[widest] < 1e-9:
        return None
    return numbers[widest], float((low[numbers[widest]] + high[numbers[widest]]) / 2)
