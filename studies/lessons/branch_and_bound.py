"""Branch and bound and label setting, small enough to watch: exact on toy problems, and each step is kept as data.

They are written to be read, for the lesson `notebooks/03_solvers.ipynb`; `studies.lessons.search_lesson` draws what they return.
Problems of real size are for the engines of `solvers`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from formulation import (
    Architecture,
    Block,
    Combine,
    Composite,
    DesignProblem,
    EffectiveEntropy,
    Quantity,
    Separable,
    SumOverLayers,
    Table,
    tabulate,
)
from formulation.layer import Layer
from formulation.menu import Choices
from solvers.base import ROUNDING, broken_budgets
from solvers.evaluation import require_structure

_MOST = 20_000
"""Nodes or labels that are kept at most: more cannot be looked at."""
_ROOM = 1e-9
"""Relative excess over a budget that sums of another order may show; complete designs are re-evaluated without it."""


def undiscounted(objective: EffectiveEntropy) -> SumOverLayers:
    """The objective without its depth-to-width discount, as one sum over layers in nat:

        Σ_i L_i·[ α₁·4·H(E_i, E_i) + α₂·2·H(E_i, F_i) ]

    What `EffectiveEntropy` is with `effectiveness=False`, in the simplest form that a solver can be given.
    """
    attention, ffn = objective.parts[3:]
    assert isinstance(attention, SumOverLayers)
    assert isinstance(ffn, SumOverLayers)
    attention_of, ffn_of = attention.per_layer, ffn.per_layer
    alpha = objective.alpha if objective.weighting else (1.0, 1.0)

    def per_layer(layer: Layer) -> float:
        return alpha[0] * attention_of(layer) + alpha[1] * ffn_of(layer)

    return SumOverLayers("entropy", "nat", per_layer)


# What both searches end with, and what they know of a partial design


@dataclass(frozen=True)
class _Finished:
    """A search that proved its optimum.

    Attributes:
        choices: of the optimal design, None if no design meets the budgets.
    """

    problem: DesignProblem
    choices: Choices | None

    @property
    def architecture(self) -> Architecture | None:
        """The optimal design."""
        return None if self.choices is None else self.problem.space.decode(self.choices)

    @property
    def objective(self) -> float | None:
        """Its objective, re-evaluated."""
        return None if self.architecture is None else self.problem.objective(self.architecture)


@dataclass(frozen=True, eq=False)
class _Partial:
    """A design whose first blocks are chosen.

    Attributes:
        choices: menu items of these blocks.
        state: state of the last of them, 0 if there isn't one.
        totals: (Q,) the table's rows, added up so far.
    """

    choices: Choices
    state: int
    totals: np.ndarray


class _Tables:
    """The separable parts of a problem's objective and budgets as one table, and what the blocks to come can add to each part.

    Attributes:
        least: per number of blocks chosen an array (Q, states of the last block): the least and the most that the others add.
        most: per number of blocks chosen an array (Q, states of the last block): the least and the most that the others add.
    """

    def __init__(self, problem: DesignProblem, name: str) -> None:
        require_structure(problem, name)
        self.problem, self.space = problem, problem.space
        parts: list[Separable] = []
        self._readings: list[tuple[Quantity, slice]] = []
        for quantity in (problem.goal, *(constraint.quantity for constraint in problem.constraints)):
            own = _parts_of(quantity)
            self._readings.append((quantity, slice(len(parts), len(parts) + len(own))))
            parts += own
        self.table = tabulate(parts, self.space)
        self.least = _completions(self.table, np.min)
        self.most = _completions(self.table, np.max)

    def rows(self, number: int) -> slice:
        """Rows of the table that hold the objective's parts (0) or those of a budget (1, 2, …)."""
        return self._readings[number][1]

    @property
    def root(self) -> _Partial:
        """The design of which nothing is chosen yet."""
        return _Partial((), 0, self.table.fixed)

    def children(self, partial: _Partial) -> Iterator[_Partial]:
        """The partial design with one more block, for each menu item that a complete design can follow."""
        block = len(partial.choices)
        if not block:
            extensions = zip(range(len(self.space.menus[0])), self.table.start().T, strict=True)
        else:
            _, items, totals = self.table.extend(block, np.array([partial.state]), partial.totals[:, None])
            extensions = zip(items.tolist(), totals.T, strict=True)
        for item, values in extensions:
            state, choices = int(self.space.state_of[block][item]), (*partial.choices, item)
            if not np.isnan(self.least[block + 1][0, state]) and (
                len(choices) < self.space.blocks or self.space.has_layer(choices)
            ):
                yield _Partial(choices, state, values)

    def ends(self, partial: _Partial) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest value (Q,) of each part over all completions, each part by itself."""
        block, state = len(partial.choices), partial.state
        least, most = (_combined(self.table, partial.totals, values[block][:, state]) for values in (self.least, self.most))
        return least, most

    def most_objective(self, partial: _Partial) -> float:
        """No completion has a larger objective."""
        return self._end(0, *reversed(self.ends(partial)))

    def least_costs(self, partial: _Partial) -> tuple[float, ...]:
        """Per budget: no completion spends less."""
        ends = self.ends(partial)
        return tuple(self._end(number, *ends) for number in range(1, len(self._readings)))

    def _end(self, number: int, near: np.ndarray, far: np.ndarray) -> float:
        """A quantity with each of its parts at `near` where it rises with the part and at `far` where it falls."""
        quantity, rows = self._readings[number]
        if not isinstance(quantity, Composite):
            return float(near[rows][0])
        with np.errstate(all="ignore"):
            value = float(quantity.formula(np.where(np.array(quantity.signs) > 0, near[rows], far[rows])))
        # A formula may have no value while all blocks chosen are left out: that bounds nothing.
        return value if math.isfinite(value) else (-math.inf if number else math.inf)

    def fits(self, costs: Sequence[float]) -> bool:
        """Whether every budget can be kept where no completion spends less than `costs`."""
        return all(cost <= one.limit + _ROOM * abs(cost) for cost, one in zip(costs, self.problem.constraints, strict=True))

    def losses(self, partial: _Partial) -> np.ndarray:
        """The parts so far, each turned so that less is better: what dominance compares."""
        values = np.concatenate([partial.totals[rows] for _, rows in self._readings])
        turns = [
            -np.array(_signs(self.problem.goal)),
            *(np.array(_signs(constraint.quantity)) for constraint in self.problem.constraints),
        ]
        return values * np.concatenate(turns)


def _parts_of(quantity: Quantity) -> tuple[Separable, ...]:
    """The separable parts of a composite; of a separable quantity itself."""
    if isinstance(quantity, Composite):
        return quantity.parts
    assert isinstance(quantity, Separable)
    return (quantity,)


def _signs(quantity: Quantity) -> tuple[int, ...]:
    return quantity.signs if isinstance(quantity, Composite) else (1,)


def _combined(table: Table, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Arrays (Q, …) put together row by row, by sum or by maximum."""
    is_max = table.is_max.reshape(-1, *[1] * (left.ndim - 1))
    return np.where(is_max, np.maximum(left, right), left + right)


def _completions(table: Table, pick: Callable[..., np.ndarray]) -> list[np.ndarray]:
    """Dynamic programming from the last block to the first: per number of blocks chosen (Q, states of the last of them).

    Args:
        pick: np.min or np.max: which completion is taken, for each row by itself.

    Not a number where no completion exists. The first entry has one column, since no block is chosen there.
    """
    space, worst = table.space, np.inf if pick is np.min else -np.inf
    nothing = np.where(table.is_max, -np.inf, 0.0)
    rest = np.tile(nothing[:, None], len(space.state_widths[-1]))
    possible: np.ndarray = np.ones(len(space.state_widths[-1]), dtype=bool)
    result = [rest]
    for block in reversed(range(space.blocks)):
        items = _combined(table, table.blocks[block], rest[:, space.state_of[block]])
        of_state = space.of_state[block]
        best = pick(np.where(of_state < 0, worst, items[:, of_state]), axis=2)
        step = np.ones((1, len(of_state)), dtype=bool) if block == 0 else space.steps[block - 1]
        joined = best[:, None, :] if block == 0 else _combined(table, table.joints[block - 1], best[:, None, :])
        allowed = step & possible
        rest = pick(np.where(allowed, joined, worst), axis=2)
        possible = allowed.any(axis=1)
        rest[:, ~possible] = np.nan
        result.append(rest)
    return result[::-1]


# Branch and bound


class Rule(Enum):
    """Which open node is looked at next."""

    BEST_FIRST = "largest bound first"
    DEPTH_FIRST = "deepest first"


class Fate(Enum):
    """What became of a node."""

    BRANCHED = "branched"
    INCUMBENT = "complete, best so far"
    NO_BETTER = "complete, no better"
    BOUND = "pruned by bound"
    BUDGET = "pruned by budget"


@dataclass(frozen=True)
class Node:
    """A partial design: the first blocks are chosen, the others are open.

    Attributes:
        number: place in the order in which nodes were settled, 0 the root.
        parent: number of the node that it was branched from, None for the root.
        choices: menu items of the blocks chosen.
        bound: no completion has a larger objective; the objective itself where all blocks are chosen.
        costs: per budget: no completion spends less.
        fate: what became of it.
        incumbent: objective of the best design known once it was settled, None if none was.
        proved: by then it was proved that no design has a larger objective; −∞ where it was proved that there is none.
    """

    number: int
    parent: int | None
    choices: Choices
    bound: float
    costs: tuple[float, ...]
    fate: Fate
    incumbent: float | None
    proved: float


@dataclass(frozen=True)
class Tree(_Finished):
    """A finished branch and bound.

    Attributes:
        nodes: in the order in which they were settled.
    """

    nodes: tuple[Node, ...]

    def count(self, fate: Fate) -> int:
        """Nodes of that fate."""
        return sum(node.fate is fate for node in self.nodes)

    @property
    def complete(self) -> int:
        """Nodes that are complete designs within the budgets."""
        return self.count(Fate.INCUMBENT) + self.count(Fate.NO_BETTER)

    def block(self, node: Node) -> Block | None:
        """The block that a node adds to its parent's, None for the root."""
        place = len(node.choices) - 1
        return None if place < 0 else self.problem.space.menus[place].items[node.choices[place]]


def branch_and_bound(
    problem: DesignProblem,
    rule: Rule = Rule.BEST_FIRST,
    prices: Sequence[float] | None = None,
    start: Architecture | None = None,
) -> Tree:
    """The optimum of a toy problem and the tree that proves it (Land & Doig 1960), block by block.

    A node is pruned where its completions, at their cheapest, exceed a budget, and where its bound does not exceed the incumbent.
    The bound takes each separable part of the objective at its own best end over all completions, whatever the budgets; with
    `prices` it is that or `lagrangian_bound`, whichever is less.

    Args:
        rule: which open node is looked at next.
        prices: λ ≥ 0, one per budget, in units of the objective per unit of the budget.
        start: a design that meets the budgets, as a first incumbent.

    Raises:
        NotSeparable: for a black box; ValueError for prices that `lagrangian_bound` would refuse, a start that is not feasible and
            a tree of more than 20,000 nodes.
    """
    tables = _Tables(problem, "branch_and_bound")
    priced = None if prices is None else _Lagrangian(tables, prices)
    best: Choices | None = None
    incumbent: float | None = None
    if start is not None:
        best, incumbent = problem.space.encode(start), problem.objective(start)
        if broken := broken_budgets(problem, start):
            raise ValueError(f"the start does not meet {', '.join(map(str, broken))}; expected a design that meets every budget")
    nodes: list[Node] = []
    settled: list[Node] = []
    queue: list[tuple[tuple[float, ...], _Open]] = []
    opened = itertools.count()

    def look_at(node: _Open) -> None:
        """Put a node into the queue, or among those settled where it exceeds a budget."""
        if not node.within:
            settled.append(node.settled(Fate.BUDGET))
            return
        order = (-node.bound,) if rule is Rule.BEST_FIRST else (-len(node.partial.choices), -node.bound)
        heapq.heappush(queue, ((*order, next(opened)), node))

    look_at(_opened(tables, priced, tables.root, None, math.inf))
    while queue or settled:
        if queue:
            node = heapq.heappop(queue)[1]
            if incumbent is not None and node.bound <= incumbent + ROUNDING * abs(incumbent):
                settled.append(node.settled(Fate.NO_BETTER if node.complete else Fate.BOUND))
            elif node.complete:
                best, incumbent = node.partial.choices, node.bound
                settled.append(node.settled(Fate.INCUMBENT))
            else:
                settled.append(node.settled(Fate.BRANCHED))
                for child in tables.children(node.partial):
                    look_at(_opened(tables, priced, child, len(nodes), node.bound))
        proved = max([entry.bound for _, entry in queue] + ([] if incumbent is None else [incumbent]), default=-math.inf)
        for each in settled:
            nodes.append(replace(each, number=len(nodes), incumbent=incumbent, proved=proved))
        settled.clear()
        if len(nodes) > _MOST:
            raise ValueError(f"the tree has more than {_MOST:,} nodes; take a smaller space, or solve it with DynamicProgramming()")
    return Tree(problem, best, tuple(nodes))


@dataclass(frozen=True, eq=False)
class _Open:
    """A node before it is settled: see `Node`; `within` says whether a completion may meet the budgets."""

    partial: _Partial
    parent: int | None
    bound: float
    costs: tuple[float, ...]
    complete: bool
    within: bool

    def settled(self, fate: Fate) -> Node:
        """The node with its fate; its number and what is known by then are filled in by the search."""
        return Node(-1, self.parent, self.partial.choices, self.bound, self.costs, fate, None, math.inf)


def _opened(tables: _Tables, priced: _Lagrangian | None, partial: _Partial, parent: int | None, at_most: float) -> _Open:
    """A node with its bound, which is no larger than that of its parent, and the least that it costs."""
    costs, complete = tables.least_costs(partial), len(partial.choices) == tables.space.blocks
    if complete:
        design = tables.space.decode(partial.choices)
        return _Open(partial, parent, tables.problem.objective(design), costs, True, not broken_budgets(tables.problem, design))
    within = tables.fits(costs)
    bound = min(at_most, tables.most_objective(partial))
    if priced is not None and within:
        bound = min(bound, priced(partial))
    return _Open(partial, parent, bound, costs, False, within)


# A bound that knows the budgets


def lagrangian_bound(problem: DesignProblem, prices: Sequence[float]) -> float:
    """An upper bound on the optimum that lets budgets be broken, at a price (Geoffrion 1974):

        H(A) ≤ max over all designs B of [ g(B) + Σ_k λ_k·(limit_k − cost_k(B)) ]   for every A within the budgets and all λ ≥ 0

    since the sum is not negative there. g is the objective where that is a sum, else its affine overestimator, so that the bracket
    adds up over blocks and dynamic programming maximizes it. As a function of λ the bound is convex and piecewise linear.

    Args:
        prices: λ, one per budget, in units of the objective per unit of the budget.

    Raises:
        ValueError: for prices that are negative or too few, and for a price on a budget that is not a sum over blocks.
    """
    tables = _Tables(problem, "lagrangian_bound")
    return _Lagrangian(tables, prices)(tables.root)


def best_price(problem: DesignProblem, prices: Sequence[float]) -> float:
    """Of some prices of a problem's one budget that with the least `lagrangian_bound`, the first of equals.

    ValueError if the problem has another number of budgets, or a price that `lagrangian_bound` would refuse.
    """
    return min(prices, key=lambda price: lagrangian_bound(problem, (price,)))


class _Lagrangian:
    """`lagrangian_bound` of the completions of any partial design."""

    def __init__(self, tables: _Tables, prices: Sequence[float]) -> None:
        budgets = tables.problem.constraints
        if len(prices) != len(budgets) or not all(0 <= price < math.inf for price in prices):
            raise ValueError(f"prices is {tuple(prices)}; expected one number of at least 0 for each of the {len(budgets)} budgets")
        for budget, price in zip(budgets, prices, strict=True):
            if price and not (isinstance(budget.quantity, Separable) and budget.quantity.combine is Combine.SUM):
                raise ValueError(f"{budget.quantity.name} is not a sum over blocks, so it has no price here; give it the price 0")
        self._tables, self._prices = tables, tuple(prices)
        self._credit = sum(price * budget.limit for price, budget in zip(prices, budgets, strict=True))

    def __call__(self, partial: _Partial) -> float:
        tables, table = self._tables, self._tables.table
        with np.errstate(all="ignore"):
            weights, constant = self._weights(partial)
        if not np.isfinite(weights).all() or not math.isfinite(constant):
            return math.inf  # no overestimator where nothing is chosen of blocks that may all be left out
        # A maximum has the weight 0; its joints may be −∞.
        priced = Table(
            tables.space,
            np.array([weights @ table.fixed]),
            tuple(weights[None] @ block for block in table.blocks),
            tuple(np.tensordot(weights[None], np.where(np.isfinite(joint), joint, 0.0), axes=1) for joint in table.joints),
            np.array([False]),
        )
        rest = _completions(priced, np.max)[len(partial.choices)][0, partial.state]
        return float(constant + weights @ partial.totals + rest + self._credit)

    def _weights(self, partial: _Partial) -> tuple[np.ndarray, float]:
        """Per row of the table its weight in the bracket, and what does not depend on the design."""
        tables, objective = self._tables, self._tables.problem.goal
        least, most = tables.ends(partial)
        rows = tables.rows(0)
        if isinstance(objective, Composite):
            slopes, constant = objective.overestimator(least[rows], most[rows])
        else:
            slopes, constant = np.ones(1), np.zeros(())
        is_max = tables.table.is_max[rows]
        weights = np.zeros(len(tables.table.fixed))
        weights[rows] = np.where(is_max, 0.0, slopes)
        # A maximum does not add up over blocks: what it contributes is bounded once and for all.
        most_of_maxima = np.where(is_max, np.maximum(slopes * least[rows], slopes * most[rows]), 0.0).sum()
        for number, price in enumerate(self._prices, start=1):
            weights[tables.rows(number)] -= price
        return weights, float(constant + most_of_maxima)


# Dynamic programming by labels


class LabelFate(Enum):
    """What became of a label."""

    KEPT = "kept"
    DOMINATED = "dominated"
    BUDGET = "over budget"


@dataclass(frozen=True)
class Label:
    """A partial design on the layered graph, with what it has gathered on its way.

    Attributes:
        choices: menu items of the blocks so far.
        gathered: the parts of the objective so far, in their order and units.
        costs: the parts of the budgets so far, likewise.
        fate: KEPT; DOMINATED by the label of the choices `by`; or BUDGET where no completion meets the budgets.
    """

    choices: Choices
    gathered: tuple[float, ...]
    costs: tuple[float, ...]
    fate: LabelFate
    by: Choices | None = None


@dataclass(frozen=True)
class Labels(_Finished):
    """A finished label setting.

    Attributes:
        stages: per block all labels that were made, those of one node of the graph together.
    """

    stages: tuple[tuple[Label, ...], ...]

    def count(self, fate: LabelFate) -> tuple[int, ...]:
        """Labels of that fate, per block."""
        return tuple(sum(label.fate is fate for label in stage) for stage in self.stages)


def label_setting(problem: DesignProblem, dominance: bool = True) -> Labels:
    """The optimum of a toy problem by dynamic programming on the layered graph (Desrochers & Soumis 1988), block by block.

    All that the blocks to come can do depends on the state that a partial design ends with: its width, unless the space has a rule
    of its own for steps, and whether it has a layer, where all blocks may be left out. Of two labels of one state, one that is no
    worse in any part of the objective and of the budgets, each turned by its sign, *dominates*: whatever completes the other
    completes it to a design at least as good, so the other is dropped. After the last block all labels compete.

    Args:
        dominance: False keeps what is dominated.

    Raises:
        NotSeparable: for a black box, ValueError if a block has more than 20,000 labels.
    """
    tables = _Tables(problem, "label_setting")
    alive, stages = [tables.root], []
    for block in range(problem.space.blocks):
        last = block == problem.space.blocks - 1
        states: dict[tuple[int, bool], list[_Partial]] = {}
        for label in alive:
            for child in tables.children(label):
                state = (0, True) if last else (child.state, problem.space.has_layer(child.choices))
                states.setdefault(state, []).append(child)
        if (made := sum(map(len, states.values()))) > _MOST:
            raise ValueError(f"block {block + 1} has {made:,} labels; take a smaller space, or solve it with DynamicProgramming()")
        stage, alive = [], []
        for _, partials in sorted(states.items()):
            found = _undominated(tables, partials, dominance)
            stage += [label for _, label in found]
            alive += [partial for partial, label in found if label.fate is LabelFate.KEPT]
        stages.append(tuple(stage))
    designs = {label.choices: problem.space.decode(label.choices) for label in alive}
    kept = {choices: design for choices, design in designs.items() if not broken_budgets(problem, design)}
    return Labels(problem, max(kept, key=lambda choices: problem.objective(kept[choices]), default=None), tuple(stages))


def _undominated(tables: _Tables, partials: Sequence[_Partial], dominance: bool) -> list[tuple[_Partial, Label]]:
    """The partial designs of one node of the graph, each with its label; of equal ones the first is kept."""
    within = [tables.fits(tables.least_costs(partial)) for partial in partials]
    losses = np.array([tables.losses(partial) for partial in partials])
    result = []
    objective = tables.rows(0)
    for number, (partial, fits) in enumerate(zip(partials, within, strict=True)):
        gathered, costs = tuple(partial.totals[objective].tolist()), tuple(partial.totals[objective.stop :].tolist())
        label = Label(partial.choices, gathered, costs, LabelFate.KEPT if fits else LabelFate.BUDGET)
        if fits and dominance:
            no_worse = np.all(losses <= losses[number], axis=1) & within
            equal = np.all(losses == losses[number], axis=1)
            no_worse &= ~equal | (np.arange(len(partials)) < number)
            if no_worse.any():
                by = partials[int(np.flatnonzero(no_worse)[0])].choices
                label = replace(label, fate=LabelFate.DOMINATED, by=by)
        result.append((partial, label))
    return result
