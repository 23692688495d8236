"""Proofs by counts made again as boxes that `solvers.check` closes with exact arithmetic, for composites of alike blocks.

The search is that of `solvers.exact.counts` with the bound that is claimed in place of an incumbent. What a linear program proves
is written as a step: its duals are multipliers of planes, ranges and budgets. The checker's longest path over positions replaces
the rows about counts and states, which it implies. The checker's own code says what each step comes to, so that a box here is the
box there, to the last bit: duals that are a little off make it a little larger, and it is cut further.

What is cut or fixed of the columns are parts of the certificate: a count of items, or of steps, has whole terms; that a state is
used has a term of 1 at each joint into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from formulation import Combine, DesignProblem, NotSeparable, Separable
from solvers import check
from solvers.base import Limits, Run
from solvers.certificate import SummedPart
from solvers.exact.count_cuts import Cut, cut_of_parts, cut_of_whole
from solvers.exact.counted_problem import CountedProblem
from solvers.exact.counts import ROUNDS, WORTHWHILE
from solvers.programs.highs_model import LinearBound

if TYPE_CHECKING:
    from solvers.certify import ProblemData

_NARROWER = 0.02
"""Share of a range by which a new end of it has to narrow it."""
_BOXES = 20_000
"""Nodes after which it is given up."""
_LABELS, _WORK = 20_000, 100_000
"""Labels that a pass over one box may hold, and may extend."""
_SMALL = 1e-13
"""Relative to the bound: what a multiplier that is left out may be worth."""
_LOOSE = 8.0
"""By how much the range of a product's column is wider than that of the product: planes are to bound it."""
_BITS = 34
"""Bits of a multiplier."""


class Unproved(Exception):
    """The message says why a proof was given up."""


def _short(number: float) -> float:
    """A double near a number, of few bits, so that sums of its products with terms have few."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(mantissa, _BITS)), exponent - _BITS)


class CountProof:
    """A tree of boxes that proves a claim. `nodes` and `parts`, those beside the problem's own, are what becomes of it.

    Args:
        problem: with a composite objective, alike blocks.
        data: of the same problem, as the checker sees it.
        claimed: the claim, given further parts.
        poll: called between programs, and may raise to end the work.

    Raises:
        NotSeparable: where blocks are not alike, or the objective or a budget has no such planes.
        EngineMissing: without highspy.
    """

    def __init__(
        self,
        problem: DesignProblem,
        data: ProblemData,
        claimed: Callable[[Sequence[SummedPart]], check.Claim],
        poll: Callable[[], object],
    ) -> None:
        self.data, self.poll = data, poll
        self.counted = CountedProblem(problem, Run(Limits()))
        self.model = self.counted.model(poll)
        self.parts: list[SummedPart] = []
        self.nodes: list[dict[str, Any]] = []
        self.states = problem.space.state_of
        self.variables = self._known(problem)
        self.numbers: dict[tuple[str, int], int] = {}
        program, blocks = self.counted.program, self.counted.blocks
        first = len(data.names)
        for kind, columns in (("first", program.first), ("last", program.last), ("used", program.used)):
            for state, column in enumerate(columns):  # these tell positions apart, so that they are there from the start
                self.variables[int(column)] = first + len(self.parts), 1.0
                self.numbers[kind, state] = first + len(self.parts)
                self.parts.append(self._counting(kind, state))
        self.claim = claimed(self.parts)
        self.bound = -math.inf if self.claim.bound is None else float(self.claim.bound)
        self.columns = {int(column): ("items", k) for k, column in enumerate(program.items)}
        self.columns |= {int(column): ("steps", int(k)) for k, column in zip(program.longer, program.steps, strict=True)}
        self.columns |= {int(column): ("state", s) for s, column in enumerate(program.totals)}
        self.trivial = np.array(program.upper)
        if program.layered >= 0:
            self.model.bound_row(program.layered, -math.inf, math.inf)
        assert blocks.count == len(self.states)

    def _known(self, problem: DesignProblem) -> dict[int, tuple[check.Variable, float]]:
        """By column the variable that it is a multiple of, and of how much."""
        formula, beta = self.counted.goal_formula, self.data.formula["beta"]
        if formula is None or len(self.counted.formulas) > 1 or any(term.summand is None for term in formula.terms):
            raise NotSeparable("counting blocks proves what is a sum of products with planes, and this objective is not one")
        found: dict[int, tuple[check.Variable, float]] = {
            int(column): (p, float(scale)) for p, (column, scale) in enumerate(zip(formula.columns, formula.scales, strict=True))
        }
        self.terms = {}
        effective = self.data.formula["formula"] == "effective entropy"
        for term in formula.terms:
            assert term.summand is not None
            q = term.summand.part - 3
            if q >= 0:
                self.terms[q] = term
                if term.factor >= 0:
                    found[term.factor] = (f"m{q + 1}", 1.0) if effective else (0, -beta)
        number = 5
        rows = self.counted.tabulated.rows[1:]
        for constraint, own in zip(problem.constraints, rows, strict=True):
            quantity = constraint.quantity
            if not (isinstance(quantity, Separable) and quantity.combine is Combine.MAX):
                for row in range(own.start, own.stop):
                    for column, (maximum, scale) in self.counted.maxima.items():
                        if maximum == row:
                            found[column] = number, scale
                    number += 1
        return found

    # Parts that are counts

    def _part(self, kind: str, number: int) -> int:
        """The number of a part that is a count, made where it is asked for the first time."""
        if (kind, number) not in self.numbers:
            part = self._counting(kind, number)
            data, chain = part.to_dict(self.data.allowed), self.claim.chain
            self.claim.parts.append(check.read_part(part.name, False, 0.0, data["terms"], data["joints"], chain))
            self.parts.append(part)
            self.numbers[kind, number] = len(self.claim.parts) - 1
        return self.numbers[kind, number]

    def _counting(self, kind: str, number: int) -> SummedPart:
        blocks, count = self.counted.blocks, len(self.states)
        items = len(self.states[0])
        row = np.zeros(items)
        joints = None
        if kind in ("items", "steps"):
            row[blocks.members[number]] = 1.0 if kind == "items" else np.arange(len(blocks.members[number]))
            rows = [row] * count
        else:
            state = int(self.states[0][blocks.members[int(np.flatnonzero(blocks.state == number)[0])][0]])
            row[self.states[0] == state] = 1.0
            at = {"state": range(count), "first": (0,), "used": (0,), "last": (count - 1,)}[kind]
            rows = [row if i in at else np.zeros(items) for i in range(count)]
            if kind == "used":
                into = np.zeros((blocks.states, blocks.states))
                into[:, state] = 1.0
                into[state, state] = 0.0
                joints = [into] * (count - 1)
        return SummedPart(f"{kind} {number}", rows, 0.0, joints)

    def _variable(self, column: int) -> tuple[check.Variable, float]:
        if column not in self.variables:
            self.variables[column] = self._part(*self.columns[column]), 1.0
        return self.variables[column]

    # Programs

    def _ranges(self, box: check.Box) -> tuple[np.ndarray, np.ndarray]:
        """The ranges of the columns in a box; writes into the model which steps are left of a kind."""
        program, blocks = self.counted.program, self.counted.blocks
        lower, upper = np.array(program.lower), np.array(program.upper)
        left = np.zeros(len(self.states[0]), dtype=bool)
        for items in {id(own): own for own in box.items}.values():
            left[items] = True
        longest = np.zeros(len(blocks.members), dtype=int)
        for kind, members in enumerate(blocks.members):
            own = np.flatnonzero(left[members])
            if len(own):
                longest[kind] = own[-1]
            else:
                upper[program.items[kind]] = 0.0
        for longer, row, steps in zip(program.longer, program.step_rows, program.steps, strict=True):
            upper[steps] = longest[longer] * upper[program.items[longer]]
            self.model.set_row(row, (int(program.items[longer]),), (-float(longest[longer]),))
        if len(program.totals):
            upper[program.totals] = np.minimum(upper[program.totals], program.sums(upper))
            upper[program.used] = np.minimum(upper[program.used], upper[program.totals])
        for column, (variable, scale) in self.variables.items():
            least, most = box.range(variable)
            ends = sorted(scale * float(end) for end in (least, most) if end is not None)
            if len(ends) == 2:
                lower[column], upper[column] = max(lower[column], ends[0]), min(upper[column], ends[1])
        upper = np.maximum(lower, upper)
        for term in self.counted.goal_formula.terms:  # type: ignore[union-attr]
            column = self.counted.goal_formula.columns[term.summand.part]  # type: ignore[union-attr]
            most = max(abs(lower[column]), abs(upper[column]))
            most *= max(1.0, abs(lower[term.factor]), abs(upper[term.factor])) if term.factor >= 0 else 1.0
            lower[term.column], upper[term.column] = -_LOOSE * most, _LOOSE * most
        return lower, upper

    def _bounded(self, lower: np.ndarray, upper: np.ndarray) -> LinearBound:
        """Bound a box, with planes at the points where the program ends."""
        self._write(lower, upper)
        return self.counted.bounded(self.model, lower, upper, self.bound)

    def _write(self, lower: np.ndarray, upper: np.ndarray) -> None:
        self.counted.write(self.model, lower, upper)
        program = self.counted.program
        for row, used in zip(program.links, program.used, strict=True):  # what the path implies, not what the box does
            self.model.set_row(row, (int(used),), (-float(self.counted.blocks.count),))

    def _step(self, end: LinearBound, weight: float) -> dict[str, Any]:
        """What a program's multipliers are as a step in which the worth counts once; not at all where its weight is 0."""
        y = end.multipliers
        counts = weight > 1e-9 * np.abs(y).max(initial=0.0) and self.claim.bound is not None
        unit = weight if counts else float(np.abs(y).max(initial=0.0)) or 1.0
        step: dict[str, Any] = {"objective": int(counts)}
        budgets = [max(float(y[row]), 0.0) * scale / unit for row, scale in self.counted.limited]
        step["budgets"] = [_short(x) for x in budgets] + [0.0] * (len(self.claim.budgets) - len(budgets))
        if counts:
            beta, theta = self.data.formula["beta"], [0.5, 0.5]
            tangents: list[list[list[float]]] = [[], []]
            for q, term in self.terms.items():
                first, second = (max(float(y[row]), 0.0) for row in term.corners)
                if first + second > 0:
                    theta[q] = _short(first / (first + second))
                formula = self.counted.goal_formula
                assert formula is not None
                most = float(y[term.planes].max())
                if self.data.formula["formula"] == "effective entropy":
                    tangents[q] = [
                        [
                            _short(float(y[row]) / most),
                            _short(self.model.matrix[row, formula.columns[0]] * formula.scales[0] / (2 * beta)),
                        ]
                        for row in term.planes
                        if y[row] > 1e-9 * most and most > 0
                    ]
            step |= {"theta": theta, "tangents": tangents}
        ranges: dict[tuple[check.Variable, str], float] = {}
        size = max(abs(self.bound) if math.isfinite(self.bound) else 0.0, 1.0) if counts else 1.0
        for column, (variable, scale) in self.variables.items():
            reduced = float(end.reduced[column]) / unit
            reach = max(abs(self.model.lower[column]), abs(self.model.upper[column]))
            if abs(reduced) * min(reach, 1e18) > _SMALL * size and not self._is_max(variable):
                side = "most" if (reduced > 0) == (scale > 0) else "least"
                ranges[variable, side] = ranges.get((variable, side), 0.0) + abs(reduced * scale)
        step["ranges"] = [[*key, _short(multiplier)] for key, multiplier in ranges.items()]
        return step

    def _is_max(self, variable: check.Variable) -> bool:
        return isinstance(variable, int) and self.claim.parts[variable].is_max

    # Boxes

    def run(self) -> None:
        """Divide until each box is closed; Unproved where that does not come to an end."""
        root = check.root_box(self.claim)
        stack: list[tuple[int, check.Box, bool, int]] = [(self._node(), root, True, 0)]
        if self.counted.program.layered >= 0:
            stack = [(*self._with_layers(root), True, 0)]
        while stack:
            self.poll()
            if len(self.nodes) > _BOXES:
                raise Unproved(f"its boxes became more than {_BOXES:,}")
            stack += self._explored(*stack.pop())

    def _node(self, value: dict[str, Any] | None = None) -> int:
        self.nodes.append(value or {})
        return len(self.nodes) - 1

    def _with_layers(self, root: check.Box) -> tuple[int, check.Box]:
        """The root without the design that has no layers, where there is a budget for that."""
        budgets = [0.0] * (len(self.claim.budgets) - 1) + [1.0]
        by = {"objective": 0, "budgets": budgets, "ranges": [[0, "most", 1.0]]}
        return self._tightened(0, root, 0, "least", 1.0, by)

    def _tightened(
        self, number: int, box: check.Box, variable: check.Variable, side: str, to: float, by: dict[str, Any]
    ) -> tuple[int, check.Box]:
        """The box that is left of one by a proof; `to` as in a certificate."""
        then = self._node()
        self.nodes[number] = {"tighten": [variable, side, to], "by": by, "then": then}
        limit = Fraction(to)
        if side == "least" and isinstance(variable, int) and self.claim.parts[variable].is_whole:
            limit -= 1
        below, above = check.cut(box, variable, limit)
        return then, self.claim.worth.derive(below if side == "most" else above)

    def _highest(self, step: dict[str, Any], box: check.Box, half: check.Box | None = None) -> Fraction | None:
        return check.highest(check.read_step(step, self.claim, "a step"), self.claim, box, "a step", half)

    def _closes(self, step: dict[str, Any], box: check.Box) -> bool:
        top = self._highest(step, box)
        if top is None:
            return True
        return top <= self.claim.bound if step["objective"] and self.claim.bound is not None else top < 0

    def _explored(self, number: int, box: check.Box, fresh: bool, cuts: int) -> list[tuple[int, check.Box, bool, int]]:
        """The boxes that remain to be explored in place of one."""
        counted, claim = self.counted, self.claim
        box = claim.worth.derive(box)
        nothing: dict[str, Any] = {"objective": 0}
        if box.is_empty or self._closes(nothing, box):
            self.nodes[number] = {"close": nothing}
            return []
        step, before = nothing, math.inf
        for turn in range(ROUNDS + 1 if fresh else 1):
            lower, upper = self._ranges(box)
            end = self._bounded(lower, upper)
            value = counted.value(end)
            step = self._step(end, counted.factor if end.point is not None else 0.0)
            if value <= self.bound * (1 + 1e-9) and self._closes(step, box):
                self.nodes[number] = {"close": step}
                return []
            if end.point is None:
                break
            if not before - value > WORTHWHILE * (before - self.bound) and turn:
                break
            before = value
            if claim.bound is not None:
                left = check.without_losers(check.read_step(step, claim, "a step"), claim, box, "a step")
                if left.items != box.items:
                    then = self._node()
                    self.nodes[number] = {"drop": step, "then": then}
                    number, box = then, claim.worth.derive(left)
                    lower, upper = self._ranges(box)
            if turn == ROUNDS or not fresh:
                break
            found = self._narrowed(number, box, lower, upper)
            if found is None:
                return []
            number, box = found
        if not all(len(own) for own in box.items) or box.is_empty:
            self.nodes[number] = {"close": nothing}
            return []
        return self._branches(number, box, end, value, cuts, step)

    def _narrowed(self, number: int, box: check.Box, lower: np.ndarray, upper: np.ndarray) -> tuple[int, check.Box] | None:
        """The box with narrower ranges of its parts; None where that closed it."""
        counted, model = self.counted, self.model
        self._write(lower, upper)
        if self.claim.bound is not None:
            model.bound_row(counted.objective_row, counted.scaled(self.bound), math.inf)
        high, low = np.full(len(lower), -math.inf), np.full(len(lower), math.inf)
        columns = [(column, sign) for column in counted.boxed for sign in (1, -1)]
        for column, sign in [*columns, *((column, 1) for column in counted.program.totals)]:
            width = upper[column] - lower[column]
            if width <= 0 or (
                high[column] >= upper[column] - _NARROWER * width if sign > 0 else low[column] <= lower[column] + _NARROWER * width
            ):
                continue
            cost = np.zeros(len(lower))
            cost[column] = sign
            end = model.maximize(cost, primal=True)
            weight = -float(end.multipliers[counted.objective_row]) * counted.factor
            if end.bound == -math.inf:
                step = self._step(end, max(weight, 0.0))
                if self._closes(step, box):
                    self.nodes[number] = {"close": step}
                    return None
                continue
            if end.point is None:
                continue
            np.maximum(high, end.point, out=high)
            np.minimum(low, end.point, out=low)
            reached = sign * end.bound
            if not (upper[column] - reached if sign > 0 else reached - lower[column]) > _NARROWER * width:
                continue
            number, box = self._moved(number, box, int(column), sign, end, max(weight, 0.0))
            if box.is_empty:
                self.nodes[number] = {"close": {"objective": 0}}
                return None
        return number, box

    def _moved(self, number: int, box: check.Box, column: int, sign: int, end: LinearBound, weight: float) -> tuple[int, check.Box]:
        """The box after a program that said how far a column goes."""
        variable, scale = self._variable(column)
        if scale < 0:
            return number, box
        step = self._step(end, weight)
        unit = weight if step["objective"] else float(np.abs(end.multipliers).max(initial=0.0)) or 1.0
        side, other = ("most", "least") if sign > 0 else ("least", "most")
        price = _short(scale / unit)
        step["ranges"] = [own for own in step["ranges"] if own[:2] != [variable, other]] + [[variable, other, price]]
        least, most = box.range(variable)
        top = self._highest(step, box)
        if least is None or most is None or top is None:
            return number, box
        # The half that is closed is the box with another end `other`, in which the step is affine: where is it closed?
        target = self.claim.bound if step["objective"] and self.claim.bound is not None else Fraction(-1, 1 << 40)
        assert target is not None
        move = (top - target) / Fraction(price)
        beyond = least + move if sign > 0 else most - move
        whole = isinstance(variable, int) and self.claim.parts[variable].is_whole
        if whole:
            to = float(math.ceil(beyond) - 1 if sign > 0 else math.floor(beyond) + 1)
            narrower = to < most if sign > 0 else to > least
        else:
            to = float(beyond)
            while (Fraction(to) < beyond) if sign > 0 else (Fraction(to) > beyond):
                to = math.nextafter(to, sign * math.inf)
            narrower = (most - Fraction(to) if sign > 0 else Fraction(to) - least) > (most - least) / 100
        if not narrower:
            return number, box
        return self._tightened(number, box, variable, side, to, step)

    def _branches(
        self, number: int, box: check.Box, end: LinearBound, value: float, cuts: int, step: dict[str, Any]
    ) -> list[tuple[int, check.Box, bool, int]]:
        """The parts that a box is cut into; none of one that a label pass closes."""
        counted, point = self.counted, end.point
        lower, upper = self._ranges(box)
        tried = [] if point is None else [(cut_of_parts(counted, lower, upper, point, value - self.bound, cuts), True)]
        tried += [(self._cut_of_maximum(box), True)]  # before items, as of a maximum a step knows the range alone
        tried += [] if point is None else [(cut_of_whole(counted, point), False)]
        for cut, fresh in tried:
            if cut is not None and (halves := self._halves(number, box, cut, fresh, cuts + (fresh and cut.at == cut.after))):
                return halves
        proof = {"labels": [step] if step["objective"] else [], "order": list(range(len(self.states)))}
        try:
            check.close(proof, self.claim, box, "a box", check.Count(most=_LABELS, work=_WORK))
            self.nodes[number] = {"close": proof}
            return []
        except (check.Refused, check.NotCheckable):
            pass
        whole = counted.whole
        free = np.setdiff1d(whole[upper[whole] > lower[whole]], counted.program.used)  # those follow
        if len(free) and point is None:
            column = int(free[(upper[free] - lower[free]).argmax()])
            at = math.floor((lower[column] + upper[column]) / 2)
        elif len(free):  # around a design
            assert point is not None
            column = int(free[point[free].argmax()])
            at = int(np.clip(np.rint(point[column]), lower[column], upper[column]))
            at -= at > lower[column]
        if not len(free) or not (halves := self._halves(number, box, Cut(column, at, at + 1), False, cuts)):
            raise Unproved(f"box {number} is not closed by what the checker knows, and cannot be divided")
        return halves

    def _cut_of_maximum(self, box: check.Box) -> Cut | None:
        """Between the values that a maximum may have: what the program knows of it beside its range is not in a step."""
        for column, (p, scale) in self.variables.items():
            if not self._is_max(p):
                continue
            part = self.claim.parts[p]  # type: ignore[index]
            least, most = box.range(p)
            assert least is not None
            assert most is not None
            terms = {part.exact(part.terms[i][j]) for i, items in enumerate(box.items) for j in items}
            inside = sorted(term for term in terms if least < term <= most)
            if inside:
                at = scale * math.nextafter(float(inside[len(inside) // 2]), -math.inf)
                return Cut(column, at, at)
        return None

    def _halves(self, number: int, box: check.Box, cut: Cut, fresh: bool, cuts: int) -> list[tuple[int, check.Box, bool, int]]:
        """The boxes that a cut leaves; none if it does not divide the box."""
        program = self.counted.program
        column, used = cut.column, np.flatnonzero(program.used == cut.column)
        if len(used):  # of what is used in no block, its items are out: so the number of blocks is what is cut
            column = int(program.totals[used[0]])
        variable, scale = self._variable(column)
        at = float(cut.at / scale)
        if isinstance(variable, int) and self.claim.parts[variable].is_whole:
            at = float(math.floor(at))
        least, most = box.range(variable)
        assert least is not None
        assert most is not None
        use: dict[str, Any] = {}
        if len(used):
            own = self.variables[cut.column][0]
            use = {"objective": 0, "ranges": [[own, "most", float(self.counted.blocks.count)], [variable, "least", 1.0]]}
            if least > 0 and box.range(own)[0] == 0:
                return [(*self._tightened(number, box, own, "least", 1.0, use), fresh, cuts)]
        if not least <= Fraction(at) < most:
            return []
        halves = check.cut(box, variable, Fraction(at))
        below, above = self._node(), self._node()
        self.nodes[number] = {"split": [variable, at], "below": below, "above": above}
        last, upper_half = above, halves[1]
        if use:
            last, upper_half = self._tightened(above, self.claim.worth.derive(upper_half), own, "least", 1.0, use)
        return [(below, halves[0], fresh, cuts), (last, upper_half, fresh, cuts)]
