"""Tables of designs, alternatives and fronts, and the words beside a budget's line: they say what was found."""

from __future__ import annotations

import io

import numpy as np

from formulation import Budget, DesignProblem, EffectiveEntropy, SearchSpace, paper_space
from hardware_models import Flops, Params
from solvers import (
    DynamicProgramming,
    Limits,
    alternatives,
    exact_front,
    hypervolume,
    nsga2_front,
    price_of_budgets,
    reference_costs,
    solve,
)
from studies.design.figures import alternatives_table, designs_table, draw_prices
from studies.pareto.figures import hits, nsga2_table

SPACE = SearchSpace.uniform(3, (512, 768, 1024), (1, 2), (1, 2, 3))
PROBLEM = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 200e6)))
FRONT = DesignProblem(SPACE, EffectiveEntropy(), minimize=(Flops(),))


def cells(table: str) -> list[list[str]]:
    """The cells of a Markdown table, its header first, without the rule."""
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_designs_are_listed_with_their_quantities() -> None:
    design = next(iter(SPACE))
    header, row = cells(designs_table({"small": design}, [EffectiveEntropy(), Flops(128), Params()]))
    assert header[2:] == ["effective entropy [nat]", "flops (seq_len=128) [G FLOPs]", "params [M parameters]"]
    assert row[:2] == ["small", str(design)]
    wanted = (EffectiveEntropy()(design), Flops(128)(design) / 1e9, Params()(design) / 1e6)
    for text, value, digits in zip(row[2:], wanted, (1, 2, 2), strict=True):
        assert text == f"{value:,.{digits}f}"


def test_alternatives_are_listed_with_what_they_lose_and_spend() -> None:
    found = alternatives(PROBLEM, 3, differing=3)
    header, *rows = cells(alternatives_table(PROBLEM, found, {"size": Params()}))
    assert header == [
        "design",
        "effective entropy [nat]",
        "loss",
        "flops [G FLOPs]",
        "params [M parameters]",
        "size [M parameters]",
        "status",
    ]
    assert [row[0] for row in rows] == [str(one.architecture) for one in found]
    assert rows[0][2] == "0.00 %"
    assert rows[2][2] == f"{100 * (1 - found[2].objective / found[0].objective):.2f} %"
    assert [row[3] for row in rows] == [f"{Flops()(one.architecture) / 1e9:.2f}" for one in found]
    assert all(row[4] == row[5] for row in rows)
    assert {row[6] for row in rows} == {"optimal"}


def test_what_nsga2_finds_is_counted_against_the_front() -> None:
    front, reference = exact_front(FRONT), reference_costs(FRONT)
    header, *rows = cells(nsga2_table(FRONT, front, reference, (200, 400), range(2)))
    assert header == ["designs scored", "seed 0", "seed 1"]
    assert [row[0] for row in rows] == ["200", "400"]
    found = nsga2_front(FRONT, Limits(evaluations=400, seed=1))
    share = hypervolume(found.values, reference) / hypervolume(front.values, reference)
    known = {tuple(np.round(value, 3)) for value in front.values}
    same = sum(tuple(np.round(value, 3)) in known for value in found.values)
    assert 0 < same < len(found.points)
    assert rows[1][2] == f"{100 * share:.2f} %, {same} of {len(found.points)} hit"
    assert hits(front, front) == len(front.points)


def test_the_word_beside_a_budget_keeps_off_the_frame() -> None:
    # One budget binds, and its line has room on the right; of the other only steps below it are known, and it stands at the edge.
    problem = DesignProblem(paper_space(), EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 55e6)))
    best = solve(problem, DynamicProgramming())
    figure = draw_prices(problem, price_of_budgets(problem, steps=3, optimum=best))
    figure.savefig(io.BytesIO())
    for axis, side in zip(figure.axes, ("left", "right"), strict=True):
        word = next(text for text in axis.texts if text.get_text() == "budget")
        assert word.get_horizontalalignment() == side
        box, frame = word.get_window_extent(), axis.get_window_extent()
        assert frame.x0 < box.x0
        assert box.x1 < frame.x1 - 8  # pixels: else it reads as part of the frame
