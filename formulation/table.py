"""Separable quantities as arrays over a search space: what exact solvers search and vectorised evaluation adds up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from formulation.menu import Menu
from formulation.quantity import Combine, Composite, NotSeparable, Quantity, Separable
from formulation.space import SearchSpace
from formulation.values import Undefined, finite, value_of, values_of_formula

Evaluate = Callable[[np.ndarray], np.ndarray]
_CHUNK = 1 << 14
"""Designs evaluated at a time: small enough that their values stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Table:
    """Q separable quantities of one space, tabulated.

    Attributes:
        fixed: (Q,)  terms that every design has.
        blocks: per block (Q, items): its term; in the first and the last with the joint to the embedding or the head, and what the
            design has for entering or leaving with that width.
        joints: per pair of neighbours (Q, states of the left block, states of the right block), as in `SearchSpace.state_of`.
        is_max: (Q,) bool: terms are combined by maximum instead of sum.
    """

    space: SearchSpace
    fixed: np.ndarray
    blocks: tuple[np.ndarray, ...]
    joints: tuple[np.ndarray, ...]
    is_max: np.ndarray

    @cached_property
    def sizes(self) -> np.ndarray:
        """(Q,) the most that the magnitudes of a design's terms can add up to: what rounding and tolerances are relative to."""
        with np.errstate(over="ignore"):
            starts = np.cumsum([0, *(block.shape[1] for block in self.blocks[:-1])])
            total = np.abs(self.fixed) + np.maximum.reduceat(np.abs(np.concatenate(self.blocks, axis=1)), starts, axis=1).sum(
                axis=1
            )
            for joint, times in self._distinct_joints:
                total = total + times * np.where(np.isfinite(joint), np.abs(joint), 0.0).max(axis=(1, 2))
        return total

    @cached_property
    def _distinct_joints(self) -> tuple[tuple[np.ndarray, int], ...]:
        """The arrays of `joints`, each once and with how often it is there: pairs of neighbours that are alike share one."""
        times = Counter(map(id, self.joints))
        return tuple((joint, times[key]) for key, joint in {id(joint): joint for joint in self.joints}.items())

    @cached_property
    def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bool arrays (Q,): which rows have terms of both signs, which may cancel, and which always add up without rounding."""
        joints = (joint.reshape(len(joint), -1) for joint, _ in self._distinct_joints)
        terms = np.concatenate((self.fixed[:, None], *self.blocks, *joints), axis=1)
        terms = np.where(np.isfinite(terms), terms, 0.0)
        signed: np.ndarray = np.any(terms < 0, axis=1) & np.any(terms > 0, axis=1)
        whole = (terms == np.rint(terms)).all(axis=1)
        return signed, self.is_max | (whole & (self.sizes < 2**53))

    def rounding(self, rows: slice, totals: np.ndarray) -> np.ndarray:
        """The most by which two sums of one design's terms can differ for being added up in different orders, near some totals.

        Each sum of n terms is within (n − 1) · 2⁻⁵³ · Σ|term| of the true one (Higham 2002, eq. 4.4). Σ|term| is the total itself
        unless terms cancel; then it may be as much as `sizes`.

        Args:
            rows: the quantities in question.
            totals: (rows,) about what their sums are.

        Returns:
            (rows,), 0 for maxima and for whole numbers, which add up exactly.
        """
        signed, exact = (kind[rows] for kind in self._kinds)
        size = np.where(signed, self.sizes[rows], np.abs(totals))
        # Joints to embedding and head, and what stands before and behind, are in the terms of the first and the last block.
        return np.where(exact, 0.0, 2 * (2 * self.space.blocks + 4) * 2.0**-53 * size)

    @cached_property
    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (Q,) on what each quantity is in any design: every block and joint at its own least, and at its own greatest.

        Where all menus have blocks without layers, one block at least is among those that have some.
        """

        def combined(pick: Callable[..., np.ndarray]) -> np.ndarray:
            blocks = [pick(block, axis=1) for block in self.blocks]
            rest = [self.fixed, *(pick(joint, axis=(1, 2)) for joint in self.joints)]

            def total(own: list[np.ndarray]) -> np.ndarray:
                terms = np.stack([*own, *rest])
                return np.where(self.is_max, terms.max(axis=0), terms.sum(axis=0))

            if not self.space.may_be_empty:
                return total(blocks)
            layered = [
                pick(block[:, menu.layers > 0], axis=1) if menu.layers.any() else None
                for menu, block in zip(self.space.menus, self.blocks, strict=True)
            ]
            return pick([total([*blocks[:i], own, *blocks[i + 1 :]]) for i, own in enumerate(layered) if own is not None], axis=0)

        return combined(np.min), combined(np.max)

    @cached_property
    def without_joints(self) -> tuple[np.ndarray, ...]:
        """Per pair of neighbours a bool array (Q,): for which quantities no joint between them makes a difference."""
        neutral = np.where(self.is_max, -np.inf, 0.0)[:, None, None]
        known = {id(joint): (joint == neutral).all(axis=(1, 2)) for joint, _ in self._distinct_joints}
        return tuple(known[id(joint)] for joint in self.joints)

    @cached_property
    def _joint_terms(self) -> tuple[tuple[np.ndarray | None, ...], ...]:
        """Per quantity and pair of neighbours the joint terms flattened over (state, state), None if all are neutral."""
        return tuple(
            tuple(None if without[q] else joint[q].ravel() for joint, without in zip(self.joints, self.without_joints, strict=True))
            for q in range(len(self.fixed))
        )

    @cached_property
    def _joint_places(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Per pair of neighbours what an item of the left block and one of the right add to the place of their joint's terms."""
        return tuple(
            (left * joint.shape[2], right)
            for (left, right), joint in zip(itertools.pairwise(self.space.state_of), self.joints, strict=True)
        )

    def evaluate(self, choices: np.ndarray) -> np.ndarray:
        """Values of many designs: choices (n, N) of item numbers to an array (Q, n)."""
        choices = np.asarray(choices)
        values = np.empty((len(self.fixed), len(choices)))
        for start in range(0, len(choices), _CHUNK):
            items = choices[start : start + _CHUNK].T.astype(np.intp)
            chunk = values[:, start : start + _CHUNK]
            pairs: dict[int, np.ndarray] = {}
            for q, combine in enumerate(self.is_max):
                add = np.maximum if combine else np.add
                total = self.blocks[0][q].take(items[0])
                add(total, self.fixed[q], out=total)
                for block, item in zip(self.blocks[1:], items[1:], strict=True):
                    add(total, block[q].take(item), out=total)
                for i, joint in enumerate(self._joint_terms[q]):
                    if joint is not None:
                        if i not in pairs:
                            left, right = self._joint_places[i]
                            pairs[i] = left.take(items[i]) + right.take(items[i + 1])
                        add(total, joint.take(pairs[i]), out=total)
                chunk[q] = total
        return values

    @cached_property
    def _successors(self) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]:
        """Per pair of neighbours: the items allowed after each left state, one list after another, its starts and lengths."""
        lists = [
            [np.flatnonzero(row[states]) for row in step]
            for step, states in zip(self.space.steps, self.space.state_of[1:], strict=True)
        ]
        lengths = [np.array([len(items) for items in layer]) for layer in lists]
        return tuple(
            (np.concatenate(layer), np.cumsum(length) - length, length) for layer, length in zip(lists, lengths, strict=True)
        )

    def extend(self, block: int, state: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every allowed extension of n partial designs of blocks 0 … block − 1 by one item of `block`.

        Args:
            state: (n,) state of their last block.
            totals: (Q, n) their combined values.

        Returns, for the m extensions, the partial design extended (m,), the item (m,) and the new totals (Q, m).
        """
        flat, starts, lengths = self._successors[block - 1]
        counts = lengths[state]
        parents = np.repeat(np.arange(len(state)), counts)
        offsets = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
        items = flat[starts[state][parents] + offsets]
        joints = [own[block - 1] for own in self._joint_terms]
        if any(joint is not None for joint in joints):
            places = (state * self.joints[block - 1].shape[2])[parents] + self.space.state_of[block][items]
        extended = totals[:, parents]
        for q, combine in enumerate(self.is_max):
            add = np.maximum if combine else np.add
            add(extended[q], self.blocks[block][q].take(items), out=extended[q])
            if (joint := joints[q]) is not None:
                add(extended[q], joint.take(places), out=extended[q])
        return parents, items, extended

    def start(self) -> np.ndarray:
        """Totals (Q, items) of every item of the first block, with the fixed terms: what `extend` begins with."""
        combined = np.where(self.is_max[:, None], np.maximum(self.fixed[:, None], self.blocks[0]), 0)
        return np.where(self.is_max[:, None], combined, self.fixed[:, None] + self.blocks[0])


def tabulate(quantities: Sequence[Separable], space: SearchSpace, poll: Callable[[], object] = lambda: None) -> Table:
    """The table of some separable quantities over `space`, float64 and finite.

    Args:
        quantities: one per row of the table.
        space: whose blocks and joints they are asked about.
        poll: called before each of the quantities' terms, and may raise to end the work.

    Raises:
        NotSeparable: if a quantity is not separable.
        Undefined: naming the quantity and the block or joint whose term is not a finite number, or the quantity whose terms add up
            beyond what a float64 holds.
    """
    for quantity in quantities:
        if not isinstance(quantity, Separable):
            raise NotSeparable(f"{quantity.name} is not a sum or maximum over blocks, so it cannot be tabulated")
    is_max = np.array([quantity.combine is Combine.MAX for quantity in quantities], dtype=bool)
    neutral = np.where(is_max, -np.inf, 0.0)
    menus = space.menus

    known: dict[tuple[int, int], list[float]] = {}

    def between(left: int, right: int) -> list[float]:
        """The terms of the joint between two widths."""
        if (left, right) not in known:
            known[left, right] = []
            for quantity in quantities:
                poll()
                where = partial("the joint from width {} to {}".format, left, right)
                known[left, right].append(finite(quantity, where, partial(quantity.joint, left, right, space)))
        return known[left, right]

    def join(lefts: Sequence[int], rights: Sequence[int], step: np.ndarray | None = None) -> np.ndarray:
        joint = np.empty((len(quantities), len(lefts), len(rights)))
        joint[:] = neutral[:, None, None]
        for (i, left), (j, right) in itertools.product(enumerate(lefts), enumerate(rights)):
            if left != right and (step is None or step[i, j]):
                joint[:, i, j] = between(left, right)
        return joint

    given = [quantity.terms_of(space) for quantity in quantities]

    def row(q: int, position: int, menu: Menu) -> Sequence[float] | np.ndarray:
        quantity, own = quantities[q], given[q]
        if own is not None:
            return own[position]
        name = "block {1} at position {0}".format
        terms = []
        for item in space.blocks_of(menu):
            poll()
            terms.append(finite(quantity, partial(name, position + 1, item), partial(quantity.block_at, position, item, space)))
        return terms

    # Blocks with the same menu have the same terms, unless a quantity distinguishes positions.
    shared: dict[Menu, np.ndarray] = {}
    blocks = []
    positional = [own is not None or quantity.positional for own, quantity in zip(given, quantities, strict=True)]
    for position, menu in enumerate(menus):
        first = all(positional) or menu not in shared
        if first:
            block = np.array([row(q, position, menu) for q in range(len(quantities))]).reshape(len(quantities), len(menu))
            if not all(positional):
                shared[menu] = block
        else:
            block = shared[menu].copy()
            for q in np.flatnonzero(positional).tolist():
                block[q] = row(q, position, menu)
        blocks.append(block)
    widths = space.state_widths
    pairs: dict[tuple[tuple[int, ...], tuple[int, ...], bytes], np.ndarray] = {}
    joints = []
    for (left, right), step in zip(itertools.pairwise(widths), space.steps, strict=True):
        key = left, right, step.tobytes()
        if key not in pairs:
            pairs[key] = join(left, right, step)
        joints.append(pairs[key])
    fixed = np.array([finite(quantity, lambda: "its fixed term", partial(quantity.fixed, space)) for quantity in quantities])

    def ending(what: str, term: Callable[[Separable, int], float], own: Sequence[int]) -> np.ndarray:
        name = f"what stands {what} a block of width {{}}".format
        rows = (
            [finite(quantity, partial(name, width), partial(term, quantity, width)) for width in own] for quantity in quantities
        )
        return np.array(list(rows)).reshape(len(quantities), len(own))

    ends = (
        (0, join([space.embedding_width], widths[0])[:, 0, :]),
        (0, ending("before", lambda quantity, width: quantity.entry(width, space), widths[0])),
        (-1, join(widths[-1], [space.embedding_width])[:, :, 0]),
        (-1, ending("behind", lambda quantity, width: quantity.exit(width, space), widths[-1])),
    )
    for end, by_state in ends:
        terms = by_state[:, space.state_of[end]]
        blocks[end] = np.where(is_max[:, None], np.maximum(blocks[end], terms), blocks[end] + np.where(is_max[:, None], 0, terms))
    table = Table(space, fixed, tuple(blocks), tuple(joints), is_max)
    for quantity, size in zip(quantities, table.sizes, strict=True):
        if not np.isfinite(size):
            raise Undefined(f"{quantity.name} adds up beyond the largest float64, {np.finfo(float).max:.3g}; give it a larger unit")
    return table


def evaluator(quantity: Quantity, space: SearchSpace, poll: Callable[[], object] = lambda: None) -> Evaluate:
    """A function from choices (n, N) to the n values of `quantity`, float64 and finite; Undefined naming a design without one.

    Vectorised for separable and composite quantities (tabulated once, here); any other is called design by design. `poll` as in
    `tabulate`, and before each such call.
    """
    if isinstance(quantity, Separable):
        table = tabulate([quantity], space, poll)
        return lambda choices: table.evaluate(choices)[0]
    if isinstance(quantity, Composite):
        quantity.check(space)
        parts = tabulate(quantity.parts, space, poll)
        return lambda choices: values_of_formula(quantity, parts.evaluate(choices), lambda n: space.decode(choices[n]))

    def one_by_one(choices: np.ndarray) -> np.ndarray:
        values = np.empty(len(choices))
        for n, row in enumerate(choices):
            poll()
            values[n] = value_of(quantity, space.decode(row))
        return values

    return one_by_one


def value_range(quantity: Quantity, space: SearchSpace, poll: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """What a quantity is at least and at most in any design of `space`, from the extremes of single blocks and joints.

    Cheap and loose: infinite for a black box, and where a formula has no value at the corners of what its parts may be.
    """
    if isinstance(quantity, Separable):
        least, most = (float(extreme[0]) for extreme in tabulate([quantity], space, poll).extremes)
    elif isinstance(quantity, Composite):
        lower, upper = tabulate(quantity.parts, space, poll).extremes
        rises = np.array(quantity.signs) > 0
        corners = np.stack((np.where(rises, lower, upper), np.where(rises, upper, lower)), axis=1)
        with np.errstate(all="ignore"):
            least, most = (float(value) for value in np.asarray(quantity.formula(corners), dtype=float))
    else:
        return -np.inf, np.inf
    room = 1e-9 * max(abs(least), abs(most))  # sums of other orders may differ in their last digits
    return (least - room if np.isfinite(least) else -np.inf), (most + room if np.isfinite(most) else np.inf)
