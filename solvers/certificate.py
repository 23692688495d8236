"""What a proof rests on, as data that `python -m solvers.check` compares with exact arithmetic and without the solvers' code.

The format, and what each kind of certificate claims, is in the docstring of `solvers.check` and in docs/certificates.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from formulation import DesignProblem, NoIdentity, fingerprint
from formulation.problem import budget_text
from formulation.quantity import quantity_text
from formulation.records.files import replace_file

_FORMAT = "merino certificate 1"


class Certificate(Protocol):
    """What a solver leaves behind of its proof."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `python -m solvers.check` reads; numbers are the binary ones that were computed with."""


@dataclass(frozen=True)
class Uncheckable:
    """The certificate of a proof that nobody can check without redoing it.

    Attributes:
        why: what it rests on, such as a branch-and-bound tree of an engine.
    """

    why: str

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        return {"kind": "not checkable", "why": self.why}


@dataclass(frozen=True, eq=False)
class Links:
    """Which items may follow which: each has a state, and states of neighbours may follow one another or not.

    Attributes:
        states: per position the state of each item, int (J_i,).
        steps: per pair of neighbours, by their states, bool (S_i, S_i+1).
    """

    states: Sequence[np.ndarray]
    steps: Sequence[np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        """As in a certificate."""
        return {
            "states": [np.asarray(own).astype(int).tolist() for own in self.states],
            "steps": [np.asarray(own).astype(int).tolist() for own in self.steps],
        }


def above_rounding(value: float, terms: Iterable[float] = ()) -> float:
    """A bound that the exact sum of a design's terms does not exceed where `value` is what they add up to in floating point.

    Args:
        value: of the objective.
        terms: what was added up, if any of them cancel.
    """
    size = max(abs(value), math.fsum(map(abs, terms)))
    return math.nextafter(value + 1e-12 * size, math.inf)


@dataclass(frozen=True, eq=False)
class Additive:
    """No choice of one item a position within the limits is worth more than the bound: values and costs add up.

    The checker repeats one label pass: items fixed out by what every multiplier says, then all that is left, position by position.

    Attributes:
        values: per position of each item, (N, J) or one array a position.
        costs: per budget likewise, (K, N, J).
        limits: (K,) of what the costs of a design's items add up to, with room for rounding.
        order: the positions in the order of the pass; ascending where they are linked.
        multipliers: (M, K), at least 0: of the budgets, in each bound that a label is compared with.
        bound: None for the claim that no choice is within the limits; otherwise at least the exact worth of any that is, see
            `above_rounding`.
        design: an item a position, None if none is given.
        objective: its worth.
        allowed: bool, as `values`: the items that the problem has; all of them unless given.
        fixed: what every choice is worth beside its items.
        links: None where every item may follow every other.
        joints: where linked, (1 + K) rows of values and costs, each per pair of neighbours by states; None where none has a term.
    """

    values: Sequence[Any] | np.ndarray
    costs: Sequence[Any] | np.ndarray
    limits: Sequence[float] | np.ndarray
    order: Sequence[int] | np.ndarray
    multipliers: Sequence[Sequence[float]] | np.ndarray
    bound: float | None
    design: Sequence[int] | np.ndarray | None = None
    objective: float | None = None
    allowed: Sequence[Any] | np.ndarray | None = None
    fixed: float = 0.0
    links: Links | None = None
    joints: Sequence[Sequence[np.ndarray]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        links: dict[str, Any] | None = None
        if self.links is not None:
            links = self.links.to_dict()
            if self.joints is not None:
                rows = [[np.asarray(own, dtype=float).tolist() for own in row] for row in self.joints]
                links["joints"] = {"values": rows[0], "costs": rows[1:]}
        return {
            "format": _FORMAT,
            "kind": "additive",
            "values": _rows(self.values, self.allowed),
            "costs": [_rows(cost, self.allowed) for cost in self.costs],
            "limits": [float(limit) for limit in self.limits],
            "fixed": float(self.fixed),
            "design": None if self.design is None else [int(item) for item in self.design],
            "objective": None if self.objective is None else float(self.objective),
            "bound": None if self.bound is None else float(self.bound),
            "multipliers": [[float(x) for x in row] for row in self.multipliers],
            "order": [int(i) for i in self.order],
            "links": links,
        }


def _rows(terms: Sequence[Any] | np.ndarray, allowed: Sequence[Any] | np.ndarray | None) -> list[list[float | None]]:
    """Terms per position, None for items that the problem does not have."""
    return [_row(row, None if allowed is None else allowed[i]) for i, row in enumerate(terms)]


def _row(terms: Any, allowed: Any | None) -> list[float | None]:
    own: list[float | None] = np.asarray(terms, dtype=float).tolist()
    if allowed is None:
        return own
    return [term if is_there else None for term, is_there in zip(own, np.asarray(allowed, dtype=bool), strict=True)]


@dataclass(frozen=True, eq=False)
class SummedPart:
    """A number of a choice: a fixed one and the terms of its items, added up, or the greatest of them.

    Attributes:
        terms: per position of each item.
        joints: per pair of neighbours by states; None where none has a term.
        is_max: whether it is the greatest.
    """

    name: str
    terms: Sequence[np.ndarray]
    fixed: float = 0.0
    joints: Sequence[np.ndarray] | None = None
    is_max: bool = False

    def to_dict(self, allowed: Sequence[Any] | None = None) -> dict[str, Any]:
        """As in a certificate; rows of terms that many positions share stand there once."""
        rows = [_row(own, None if allowed is None else allowed[i]) for i, own in enumerate(self.terms)]
        numbers: dict[tuple[float | None, ...], int] = {}
        at = [numbers.setdefault(tuple(row), len(numbers)) for row in rows]
        return {
            "name": self.name,
            "combine": "max" if self.is_max else "sum",
            "fixed": float(self.fixed),
            "terms": {"rows": [list(row) for row in numbers], "at": at},
            "joints": None if self.joints is None else [np.asarray(own, dtype=float).tolist() for own in self.joints],
        }


@dataclass(frozen=True, eq=False)
class Boxes:
    """No choice within the limits is worth more than the bound: the worth is a formula of a few parts, whose ranges are divided.

    Attributes:
        parts: P of them.
        objective: such as {"formula": "effective entropy", "alpha": [0.6, 0.4], "beta": 0.0625, "parts": [0, 1, 2, 3, 4]}.
        weights: (K, P) of the parts in each budget.
        limits: (K,).
        nodes: of the tree, the root first, each as in a certificate.
        bound: as in `Additive`.
        design: as in `Additive`.
        value: its worth.
        links: as in `Additive`.
        allowed: per position, which items the problem has; all of them unless given.
    """

    parts: Sequence[SummedPart]
    objective: Mapping[str, Any]
    weights: Sequence[Sequence[float]] | np.ndarray
    limits: Sequence[float] | np.ndarray
    nodes: Sequence[Mapping[str, Any]]
    bound: float | None
    design: Sequence[int] | np.ndarray | None = None
    value: float | None = None
    links: Links | None = None
    allowed: Sequence[Any] | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        budgets = [
            {"weights": [float(x) for x in row], "limit": float(limit)}
            for row, limit in zip(self.weights, self.limits, strict=True)
        ]
        return {
            "format": _FORMAT,
            "kind": "boxes",
            "parts": [part.to_dict(self.allowed) for part in self.parts],
            "objective": dict(self.objective),
            "budgets": budgets,
            "design": None if self.design is None else [int(item) for item in self.design],
            "value": None if self.value is None else float(self.value),
            "bound": None if self.bound is None else float(self.bound),
            "links": None if self.links is None else self.links.to_dict(),
            "nodes": [dict(node) for node in self.nodes],
        }


@dataclass(frozen=True, eq=False)
class OfParts:
    """The certificate of a union of spaces: of each part, no choice in it is worth more than the bound.

    Attributes:
        certificates: of each part by its label.
        bound: of the union, raised to the largest of its parts' certificates, which have room for rounding; None for the claim that
            no part has a choice within the limits.
    """

    certificates: Mapping[str, Certificate]
    bound: float | None

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        parts: list[dict[str, Any]] = [{"label": label, "certificate": own.to_dict()} for label, own in self.certificates.items()]
        bounds = [own for part in parts if (own := part["certificate"].get("bound")) is not None]
        bound = None if self.bound is None else max([self.bound, *bounds])
        return {"format": _FORMAT, "kind": "union", "parts": parts, "bound": bound}


@dataclass(frozen=True, eq=False)
class MadeAgain:
    """A certificate that is made when it is asked for: the search kept no record of its steps, and its claim is proved again.

    Attributes:
        problem: maximizes, on a single space.
        design: a design that meets the budgets, None if none was found.
        bound: the claim, None for the one that no design meets the budgets.
    """

    problem: DesignProblem
    design: Any
    bound: float | None

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`; `solvers.certify.certify` does the work, for as long as it takes."""
        from solvers.certify import certify

        return certify(self.problem, self.design, self.bound).to_dict()


@dataclass(frozen=True, eq=False)
class Stated:
    """A certificate with the problem in words, for those who compare its table with their own.

    Attributes:
        certificate: of the maximization.
        problem: as it was asked.
    """

    certificate: Certificate
    problem: DesignProblem

    def to_dict(self) -> dict[str, Any]:
        """See `Certificate.to_dict`."""
        return {**self.certificate.to_dict(), "problem": words_of(self.problem)}

    def write(self, path: str | Path) -> None:
        """Write it to a file, atomically: a line for each of its keys."""
        lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in self.to_dict().items())
        with replace_file(Path(path)) as file:
            file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


def words_of(problem: DesignProblem) -> dict[str, Any]:
    """What a certificate says of its problem beside the numbers: nothing of it is part of the proof.

    Its fingerprint, None if it has none, the objective and the budgets in words, whether the values are those of the objective
    negated, and for each part of its space the positions with the names of their items.
    """
    try:
        digest = fingerprint(problem)
    except NoIdentity:
        digest = None
    spaces = []
    for space in problem.space.parts:
        names = {menu: list(map(str, space.blocks_of(menu))) for menu in dict.fromkeys(space.menus)}
        spaces.append(
            [
                {"position": getattr(menu, "position", str(number)), "items": names[menu]}
                for number, menu in enumerate(space.menus, start=1)
            ]
        )
    return {
        "fingerprint": digest,
        "objective": f"{'minimize' if problem.least else 'maximize'} {quantity_text(problem.goal)} [{problem.goal.unit}]",
        "budgets": list(map(budget_text, problem.subject_to)),
        "negated": problem.least,
        "spaces": spaces,
    }
