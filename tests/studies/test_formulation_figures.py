"""What the figures, tables and typeset programs of the formulation lesson say, against the problems and programs themselves."""

from __future__ import annotations

import re

import networkx
import numpy as np
import pytest

from formulation import Budget, Combine, DesignProblem, EffectiveEntropy, Menu, SearchSpace, tabulate
from hardware_models import Flops, Params
from solvers import DynamicProgramming, Exhaustive, Form, Limits, RandomSearch, solve
from studies.lessons import formulation_lesson as figures
from tests.toys import RandomCost

SPACE = SearchSpace((Menu((512, 640), (1, 2), (1,)), Menu((512, 640), (1,), (1, 2))))
PROBLEM = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 24e9), Budget(Params(), 46e6)))


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table without its header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()[2:]]


@pytest.mark.parametrize("quantity", [Flops(head=True), Params(), RandomCost(4)], ids=lambda quantity: quantity.name)
def test_the_terms_of_a_path_add_up(quantity: Flops | Params | RandomCost) -> None:
    assert quantity.combine is Combine.SUM
    graph = SPACE.graph()
    for design in SPACE:
        terms = figures.path_terms(quantity, design)
        assert sum(term.value for term in terms) == pytest.approx(quantity(design), rel=1e-12)
        for term in terms:
            if term.from_node is None:
                assert term.name == "fixed"
            elif term.from_node == term.to_node:
                assert term.from_node in graph
            else:
                assert graph.has_edge(term.from_node, term.to_node)


def test_the_graph_is_drawn_with_every_step_and_its_path() -> None:
    design = SPACE.decode([0, 3])
    axis = figures.draw_space(SPACE, design, Flops()).axes[0]
    arrows = [patch for patch in axis.patches if patch.get_linewidth() in (1.0, 3.0)]
    assert len(arrows) == networkx.number_of_edges(SPACE.graph())
    assert sum(patch.get_linewidth() == 3.0 for patch in arrows) == 3
    assert axis.get_title() == "0.805 + 5.369 + 0.671 + 15.435 + 1.007 = 23.287 G FLOPs"
    texts = [text.get_text() for text in axis.texts]
    assert texts.count("E 512, F 1024\nL 1") == 1
    assert {"embedding\nE 768", "output head\nE 768", "block 1", "block 2", "0.671"} <= set(texts)
    assert not figures.draw_space(SPACE).axes[0].get_title()


def test_look_ups_are_drawn_through_the_menu() -> None:
    menu = Menu((512, 640, 768), (1, 2), (1, 2))
    attention, ffn, log_width, flops = figures.draw_look_ups(menu, EffectiveEntropy(), Flops()).axes
    assert [len(axis.lines) for axis in (attention, ffn, log_width, flops)] == [1, 2, 1, 2]
    assert log_width.lines[0].get_ydata().tolist() == np.log2([512, 640, 768]).tolist()
    layer = 2 * 1024 * (4 * 640**2 + 2 * 640 * 1280) + 4 * 1024**2 * 640
    assert flops.lines[1].get_ydata()[1] == pytest.approx(layer / 1e9)


def test_the_coefficients_are_those_of_the_program() -> None:
    rows = rows_of(figures.choice_table((Flops(), Params()), SPACE))
    assert [row[0] for row in rows] == [f"$x_{{{i},{j}}}$" for i in range(2) for j in range(4)]
    table = tabulate((Flops(),), SPACE)
    values = [f"{value / 1e9:.3f} G" for block in table.blocks for value in block[0]]
    assert [row[2] for row in rows] == values
    assert rows[5][1].replace("\u00a0", " ") == "512/512 × 2"


def test_what_else_is_decided_of_a_block_stands_beside_its_shape() -> None:
    space = SearchSpace((Menu((512,), (1,), heads=(4, 8), kv_heads=(1, 4), gated=(False, True)),))
    texts = [row[1].replace("\u00a0", " ") for row in rows_of(figures.choice_table((Params(),), space))]
    assert len(texts) == len(set(texts)) == len(space.menus[0]) == 8
    assert {"512/512 × 1 heads 4 gated no", "512/512 × 1 kv 1 gated yes"} <= set(texts)
    assert any("heads 4 kv 1" in text.get_text() for text in figures.draw_space(space).axes[0].texts)


def test_a_design_can_be_added_up_from_the_printed_coefficients() -> None:
    rows = rows_of(figures.choice_table((Flops(), *PROBLEM.maximize.parts), SPACE))
    first, second = rows[0], rows[7]
    total = sum(float(row[2].removesuffix(" G")) for row in (first, second))
    design = SPACE.decode([0, 3])
    assert round(total + 2 * 1024 * 512 * 640 / 1e9, 3) == round(Flops()(design) / 1e9, 3)
    p = [sum(float(row[3 + part].replace(",", "")) for row in (first, second)) for part in range(5)]
    gamma = [p[0] ** 2 / 16 / log_width for log_width in p[1:3]]
    by_hand = 0.6 * (1 - round(gamma[0], 5)) * p[3] + 0.4 * (1 - round(gamma[1], 5)) * p[4]
    assert by_hand == pytest.approx(PROBLEM.maximize(design), abs=0.1)


def test_the_table_of_designs_is_the_solution_by_hand() -> None:
    rows = rows_of(figures.design_table(PROBLEM))
    assert len(rows) == SPACE.size == 12
    best = solve(PROBLEM, Exhaustive())
    starred = [row for row in rows if "★" in row[0]]
    assert len(starred) == 1
    assert starred[0][1] == f"**{best.objective:,.1f}**"
    objectives = [float(re.sub(r"</?s>|[*,]", "", row[1])) for row in rows]
    assert objectives == sorted(objectives, reverse=True)
    for row, design in zip(rows, sorted(SPACE, key=PROBLEM.maximize, reverse=True), strict=True):
        evaluation = PROBLEM.evaluate(design)
        assert row[0].startswith("<s>") != evaluation.feasible
        assert ["✗" in cell for cell in row[2:]] == [not usage.within for usage in evaluation.usage]


def test_the_table_of_designs_has_no_star_where_nothing_is_feasible() -> None:
    table = figures.design_table(DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 1e9),)))
    assert "★" not in table
    assert table.count("✗") == 12


def test_the_table_of_solutions_tells_proved_from_found() -> None:
    nothing = DesignProblem(SPACE, EffectiveEntropy(), (Budget(Flops(), 1e9),))
    solutions = {
        "exact": solve(PROBLEM, DynamicProgramming()),
        "random": solve(PROBLEM, RandomSearch(), Limits(evaluations=200)),
        "none": solve(nothing, DynamicProgramming()),
    }
    rows = rows_of(figures.solution_table(solutions))
    assert [row[:2] for row in rows] == [["exact", "optimal"], ["random", "feasible"], ["none", "infeasible"]]
    assert rows[0][3] == rows[0][4] == "8,602.260"
    assert rows[0][5] == "0"
    assert rows[1][4:] == ["-", "-"]
    assert rows[2][2:] == ["-"] * 4


@pytest.mark.parametrize("form", Form)
def test_the_typeset_program_has_every_family(form: Form) -> None:
    latex = figures.program_latex(PROBLEM, form)
    assert latex.startswith("\\begin{align*}\n\\max")
    assert latex.endswith("\n\\end{align*}")
    assert latex.count("{") == latex.count("}")
    assert r"\label" not in latex
    named = re.findall(r"\\text\{\(([a-zA-Z0-9-]+)\)", latex)
    assert len(set(named)) == len(named) == len(latex.splitlines()) - 2
    assert {"objective", "is-L", "is-W", "is-V", "is-A", "is-B", "is-C", "leave", "enter", "domains"} <= set(named)
    assert sum(name.startswith("budget-") for name in named) == len(PROBLEM.subject_to)
    assert r"\leq 2.4\cdot 10^{10}" in latex
    assert not re.search(r"\d\.\d{6}", latex)


def test_sizes_of_programs() -> None:
    choice = figures.program_size(PROBLEM, Form.CHOICE)
    # 8 items, the depth as the only integer part, 3 allowed steps and 4 other parts; the rows: 2 + 2 + 2 + 5 + 2.
    assert choice == figures.ProgramSize(binary=8, integer=1, continuous=7, linear=13, nonlinear=0)
    look_up = figures.program_size(PROBLEM, Form.LOOKUP)
    assert look_up.nonlinear == 0
    rows = rows_of(figures.size_table({"small": PROBLEM}))
    assert rows == [["small", "lookup", "12", "7", "9", "19", "41", "0"], ["small", "choice", "12", "8", "1", "7", "13", "0"]]


def test_the_relaxation_is_exact_at_designs_and_linear_in_depth() -> None:
    relaxed = figures.UniformRelaxation(SPACE, EffectiveEntropy(), Flops(), range(256, 1025, 64))
    for width, depth in ((256, 1), (640, 7), (1024, 3)):
        design = SearchSpace.uniform(1, (width,), (1,), (depth,)).decode([0])
        assert relaxed.value(width, depth) == pytest.approx(EffectiveEntropy()(design))
        maps = 0 if width == 768 else 2 * 2 * 1024 * 768 * width
        assert relaxed.cost_of(width, depth) == pytest.approx(Flops()(design) - maps)
    assert relaxed.cost_of(700, relaxed.depth_at(700, 60e9)) == pytest.approx(60e9)
    assert relaxed.cost_of(672, 1) == pytest.approx((relaxed.cost_of(640, 1) + relaxed.cost_of(704, 1)) / 2)


def test_the_chords_show_that_neither_objective_nor_budget_is_convex() -> None:
    relaxed = figures.UniformRelaxation(SPACE, EffectiveEntropy(), Flops(), range(256, 1025, 64))
    narrow, wide = ((width, float(relaxed.depth_at(width, 60e9))) for width in (320.0, 960.0))
    small, large = (256.0, 4.0), (1024.0, 20.0)
    for start, end, sign in ((narrow, wide, 1), (small, large, -1)):
        steps, widths, depths = figures.along(start, end)
        assert (widths[0], depths[0]) == start
        assert (widths[-1], depths[-1]) == pytest.approx(end)
        values = relaxed.value(widths, depths)
        line = values[0] + steps * (values[-1] - values[0])
        assert (sign * (values - line)[1:-1] > 0).all()
    _, widths, depths = figures.along(narrow, wide)
    assert (relaxed.cost_of(widths, depths)[1:-1] > 60e9).all()
    figure = figures.draw_nonconvexity(relaxed, Budget(Flops(), 60e9), {"a": (narrow, wide), "b": (small, large)})
    plane, profile = figure.axes
    assert plane.get_xlabel() == "width E"
    assert [text.get_text() for text in profile.get_legend().get_texts()] == ["a", "b"]


def test_overestimators_lie_above_and_come_closer() -> None:
    estimates = figures.overestimates(PROBLEM)
    assert [one.value for one in estimates] == sorted(EffectiveEntropy()(design) for design in SPACE)
    for one in estimates:
        rounding = 1e-9 * one.value
        assert one.whole >= one.value - rounding
        assert one.depth >= one.value - rounding
        assert one.depth <= one.whole + rounding
    with pytest.raises(ValueError, match="expected a composite"):
        figures.overestimates(DesignProblem(SPACE, Flops()))
    axis = figures.draw_overestimates(estimates).axes[0]
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == pytest.approx([one.whole - one.value for one in estimates] + [one.depth - one.value for one in estimates])
    # Bars too low to be seen have a number too.
    assert [text.get_text() for text in axis.texts] == [f"{height:.1f}".replace("-0.0", "0.0") for height in heights]


def test_the_plane_of_budgets_parts_the_designs() -> None:
    best = solve(PROBLEM, Exhaustive()).architecture
    axis = figures.draw_budgets(PROBLEM, tuple(SPACE), best).axes[0]
    assert axis.get_title() == "8 of 12 designs meet both budgets"
    crosses, dots = axis.collections[:2]
    assert len(crosses.get_offsets()) == 4
    inside = np.array(dots.get_offsets())
    assert len(inside) == 8
    assert (inside <= [24, 46]).all()
    assert {text.get_text() for text in axis.texts} == {f"{PROBLEM.maximize(design):,.0f}" for design in SPACE}
    assert axis.get_xlabel() == "flops [10⁹ FLOPs]"
    with pytest.raises(ValueError, match="1 budgets; expected two"):
        figures.draw_budgets(DesignProblem(SPACE, EffectiveEntropy(), PROBLEM.subject_to[:1]), tuple(SPACE))
