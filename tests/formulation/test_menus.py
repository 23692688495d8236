"""Menus are named choices, blocks may be left out, and steps may follow a rule of the user's: against plain enumeration."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from formulation import (
    Agreement,
    Architecture,
    Block,
    BlockwiseEntropy,
    EffectiveEntropy,
    LayerSum,
    Menu,
    SearchSpace,
    fingerprint,
    paper_space,
)
from formulation.table import tabulate
from hardware_models import Flops, Params

MENU = Menu((512, 640), (1, 1.5, 2), (0, 1, 3))


def slowly(left: Block, right: Block) -> bool:
    return right.depth <= left.depth + 1


def wider_ffn(left: Block, right: Block) -> bool:
    return left.ffn_width <= right.ffn_width or right.depth == 2


def apart(left: Block, right: Block) -> bool:
    return left != right


def never(left: Block, right: Block) -> bool:
    return False


def enumerated(space: SearchSpace) -> list[tuple[int, ...]]:
    """The choices of every design, by what a design of the space is."""
    found = []
    for choices in itertools.product(*(range(len(menu)) for menu in space.menus)):
        blocks = [menu.items[item] for menu, item in zip(space.menus, choices, strict=True)]
        pairs = list(itertools.pairwise(blocks))
        if (
            any(block.depth for block in blocks)
            and not (space.non_decreasing and any(left.width > right.width for left, right in pairs))
            and (space.step is None or all(space.step(*pair) for pair in pairs))
        ):
            found.append(choices)
    return found


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """One to three blocks with their own menus, which may be left out, with and without a rule."""

    def some(pool: Sequence, most: int) -> tuple:
        return tuple(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=most, unique=True)))

    menus = tuple(Menu(some((64, 128, 192), 2), some((1, 2, 4), 2), some((0, 1, 2, 5), 3)) for _ in range(draw(st.integers(1, 3))))
    step = draw(st.sampled_from((None, slowly, wider_ffn, apart)))
    try:
        return SearchSpace(menus, draw(st.booleans()), step=step)
    except ValueError:
        reject()


def test_an_item_knows_its_choices_by_name() -> None:
    assert MENU.axes == {"width": (512, 640), "ffn_ratio": (1.0, 1.5, 2.0), "depth": (0, 1, 3)}
    assert len(MENU) == len(MENU.items) == 2 * (1 + 3 * 2)
    for block, choice, layers in zip(MENU.items, MENU.choice_of, MENU.layers, strict=True):
        assert (choice["width"], choice["depth"]) == (block.width, block.depth)
        assert choice.get("ffn_ratio") == (block.ffn_ratio if block.depth else None)
        assert layers == block.depth
    for name, places in MENU.places.items():
        for place, choice in zip(places.tolist(), MENU.choice_of, strict=True):
            assert (MENU.axes[name][place] == choice[name]) if name in choice else place == -1


def test_a_left_out_block_is_one_item_whatever_its_ffn() -> None:
    empty = [block for block in MENU.items if not block.depth]
    assert [block.width for block in empty] == [512, 640]
    for width in (512, 640):
        found = {MENU.find(Block(width, ffn_width, 0)) for ffn_width in (1, width, 3000)}
        assert len(found) == 1
        assert MENU.items[found.pop()] in empty  # type: ignore[call-overload]
        assert len({MENU.at({"width": MENU.widths.index(width), "ffn_ratio": r, "depth": 0}) for r in range(3)}) == 1
    assert MENU.find(Block(576, 576, 0)) is None
    assert MENU.find(Block(512, 513, 1)) is None


@pytest.mark.parametrize("menu", [MENU, Menu((64, 128), (1, 2), (1, 2, 4)), Menu((64,), (1,), (0, 2))])
def test_variants_differ_in_one_choice_alone(menu: Menu) -> None:
    for name, variants in menu.variants.items():
        for item, (own, found) in enumerate(zip(menu.choice_of, variants, strict=True)):
            expected = [
                other
                for other, theirs in enumerate(menu.choice_of)
                if name in own
                and name in theirs
                and own[name] != theirs[name]
                and all(own[axis] == theirs[axis] for axis in own.keys() & theirs.keys() - {name})
            ]
            assert list(found) == expected
            assert item not in found


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_a_space_holds_the_designs_that_its_rules_allow(space: SearchSpace) -> None:
    expected = enumerated(space)
    assert list(space.iterate_choices()) == expected
    assert space.size == len(expected)
    for choices in itertools.product(*(range(len(menu)) for menu in space.menus)):
        assert space.allows(choices) == (choices in expected)
    for choices in expected[:50]:
        assert space.encode(space.decode(choices)) == choices
    if len(expected) <= 300:
        paths = {tuple(path[1:-1]) for path in networkx.all_simple_paths(space.graph(), "source", "sink")}
        assert {tuple(node[1] for node in path) for path in paths} == {space.decode(choices).blocks for choices in expected}
        assert len(paths) == len(expected)
    drawn = space.sample(np.random.default_rng(0), 300)
    assert {tuple(choices) for choices in drawn.tolist()} <= set(expected)
    assert space.have_layers(drawn).all()


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_items_of_a_state_are_alike_to_their_neighbours(space: SearchSpace) -> None:
    for i, (menu, states) in enumerate(zip(space.menus, space.state_of, strict=True)):
        assert [space.state_widths[i][state] for state in states] == [block.width for block in menu.items]
        assert np.array_equal(np.sort(space.arranged[i][space.arranged[i] >= 0]), np.arange(len(menu)))
        for (state, _, depth), item in np.ndenumerate(space.arranged[i]):
            assert item < 0 or (states[item] == state and menu.depths[depth] == menu.items[item].depth)
    for i, (left, right) in enumerate(itertools.pairwise(space.menus)):
        for (a, one), (b, other) in itertools.product(enumerate(left.items), enumerate(right.items)):
            allowed = (not space.non_decreasing or one.width <= other.width) and (space.step is None or space.step(one, other))
            assert space.steps[i][space.state_of[i][a], space.state_of[i + 1][b]] == allowed


@settings(max_examples=40, deadline=None)
@given(spaces(), st.integers(0, 5))
def test_shortest_and_deepest_designs(space: SearchSpace, seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = [draw.random(len(menu)) for menu in space.menus]
    least, path = space.shortest(lengths)
    by_layers: dict[int, list[float]] = {}
    deepest = [dict.fromkeys(range(len(menu)), 0) for menu in space.menus]
    for choices in enumerated(space):
        layers = sum(space.decode(choices).depths)
        by_layers.setdefault(layers, []).append(sum(own[item] for own, item in zip(lengths, choices, strict=True)))
        for own, item in zip(deepest, choices, strict=True):
            own[item] = max(own[item], layers)
    assert set(np.flatnonzero(np.isfinite(least))) == set(by_layers)
    for layers, found in by_layers.items():
        assert least[layers] == pytest.approx(min(found), rel=1e-12)
        assert sum(space.decode(path(layers)).depths) == layers
        assert sum(own[item] for own, item in zip(lengths, path(layers), strict=True)) == pytest.approx(min(found), rel=1e-12)
    for own, most in zip(deepest, space.deepest_with, strict=True):
        assert all(most[item] == layers for item, layers in own.items() if layers)


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_a_table_holds_what_the_quantities_are(space: SearchSpace) -> None:
    quantities = [Params(), Flops(16), *EffectiveEntropy(beta=1e-3).parts, *BlockwiseEntropy(beta=1e-3).parts]
    choices = np.array(enumerated(space)[:40])
    table = tabulate(quantities, space)  # type: ignore[arg-type]
    values = table.evaluate(choices)
    lower, upper = table.extremes
    for n, design in enumerate(map(space.decode, choices)):
        for quantity, value, low, high in zip(quantities, values[:, n], lower, upper, strict=True):
            assert value == pytest.approx(quantity(design), rel=1e-12)
            assert low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high)


def test_left_out_blocks_bound_what_divides() -> None:
    space = SearchSpace.uniform(3, (64, 128), (1, 2), (0, 1, 2))
    lower, _ = tabulate(EffectiveEntropy().parts, space).extremes
    assert lower.tolist()[:3] == [1, 6, 6]  # one layer, log₂ 64


def test_designs_are_drawn_evenly() -> None:
    space = SearchSpace.uniform(2, (64, 128), (1, 2), (0, 1), step=slowly)
    drawn, counts = np.unique(space.sample(np.random.default_rng(1), 200 * space.size), axis=0, return_counts=True)
    assert len(drawn) == space.size
    # Each count is about 200 ± 14.
    assert counts.min() > 130
    assert counts.max() < 280


def test_without_a_rule_the_states_are_the_widths() -> None:
    space = paper_space()
    assert all(widths == space.menus[0].widths for widths in space.state_widths)
    assert all(np.array_equal(space.menus[0].items[item].width, 512) for item in space.arranged[0][0].ravel())
    by_width = SearchSpace(space.menus, step=lambda left, right: left.width == right.width)
    assert by_width.state_widths == space.state_widths
    assert by_width.size == 5 * 12**4


def test_decisions_are_named_choices() -> None:
    assert paper_space().decisions == 12
    design = Architecture((Block(512, 512, 2), Block(640, 640, 0)))
    agreement = Agreement(design)
    others = {
        Architecture((Block(512, 512, 2), Block(640, 960, 0))): 0,
        Architecture((Block(512, 512, 2), Block(640, 640, 1))): 2,
        Architecture((Block(512, 1024, 2), Block(512, 640, 0))): 2,
        Architecture((Block(640, 512, 3), Block(512, 640, 1))): 5,
    }
    assert agreement(design) == agreement.most == 6
    for other, differing in others.items():
        assert agreement.most - agreement(other) == differing
        assert Agreement(other).most - Agreement(other)(design) == differing


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Architecture((Block(64, 64, 0), Block(128, 128, 0))), "no layer.* all of its 2 blocks have depth 0"),
        (lambda: Block(64, 64, -1), "block depth is -1; expected a whole number of at least 0"),
        (lambda: Menu((64,), (1,), (-1, 1)), "an entry of depths is -1"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (0,)), "holds no design: .* has a layer"),
        (lambda: SearchSpace((Menu((64,), (1,), (0,)),)), "holds no design"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (1,), step=never), "holds no design: .* rule for steps"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (1,), step=3), "step is 3; expected a function of two blocks"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (1,), step=lambda a, b: "yes"), "returned 'yes' for 64/64x1 before 64/64x1"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (1,), step=lambda a, b: a.missing), "raised AttributeError"),
        (lambda: SearchSpace.uniform(2, (64,), (1,), (1,), step=slowly).to_dict(), "the rule .* for steps"),
    ],
)
def test_what_is_no_space_or_design_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("menu", "stated", "family", "other"),
    [
        (Menu((64,), (1, 2)), {"gated": (True,)}, "llama", "merino"),
        (Menu((64,), (1, 2)), {"gated": (False,)}, "merino", "llama"),
        (Menu((64,), (1, 2), (2,)), {"shared": (True,)}, "merino", None),
    ],
)
def test_two_items_that_are_one_block_are_refused(menu: Menu, stated: dict[str, Any], family: str, other: str | None) -> None:
    united = replace(menu, also=(replace(menu, **stated),))
    with pytest.raises(ValueError, match=f"two items of a menu are the block 64/64x.* of the family {family}"):
        SearchSpace((united,), family=family)
    others = SearchSpace((united,), family=other) if other else SearchSpace((united,), shared=False)
    assert others.size == len(set(others)) == 4


def test_a_step_that_the_rule_forbids_is_named() -> None:
    space = SearchSpace.uniform(2, (64,), (1,), (1, 2, 3), step=slowly)
    with pytest.raises(ValueError, match="block 2 is 64/64x3 after 64/64x1, a step that this space's rule does not allow"):
        space.encode(Architecture((Block(64, 64, 1), Block(64, 64, 3))))


def test_a_block_without_layers_adds_nothing_but_its_joints() -> None:
    inside = Architecture((Block(128, 128, 2), Block(192, 7, 0), Block(128, 256, 1)), embedding_width=128)
    without = Architecture((Block(128, 128, 2), Block(128, 256, 1)), embedding_width=128)
    for shared in (True, False):
        designs = [Architecture(each.blocks, shared, embedding_width=128) for each in (inside, without)]
        more = [Params()(design) for design in designs]
        assert more[0] - more[1] == 2 * 128 * 192
    for objective in (EffectiveEntropy(), BlockwiseEntropy()):
        assert objective(inside) == objective(without)
    assert LayerSum("sum", "1", lambda width, ffn_width: float("inf")).block(Block(64, 1, 0), inside) == 0


RULE = """
def rule(left, right):
    return right.depth <= left.depth + {most}
"""


def test_a_rule_is_known_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for most in (1, 2, 1):
        (tmp_path / "my_steps.py").write_text(RULE.format(most=most))
        sys.modules.pop("my_steps", None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        rule = importlib.import_module("my_steps").rule
        found.append(fingerprint(SearchSpace.uniform(2, (64,), (1,), (1, 2, 3), step=rule)))
    sys.modules.pop("my_steps")
    assert found[0] == found[2] != found[1]
    assert fingerprint(SearchSpace.uniform(2, (64,), (1,), (1, 2, 3))) not in found
