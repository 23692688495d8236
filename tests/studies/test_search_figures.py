"""Figures of the lessons on solvers and fronts: what is drawn is what was found."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, NotSeparable, SearchSpace
from hardware_models import Flops, Params
from solvers import (
    DynamicProgramming,
    EngineMissing,
    EvolutionaryAlgorithm,
    Exhaustive,
    Front,
    GeneticAlgorithm,
    Limits,
    RandomSearch,
    Solution,
    Solver,
    Status,
    exact_front,
    explain_infeasibility,
    hypervolume,
    nsga2_front,
    price_of_budgets,
    reference_costs,
    solve,
)
from studies.compare_solvers.figures import draw_anytime
from studies.design.figures import draw_conflict, draw_prices
from studies.lessons.branch_and_bound import Fate, LabelFate, Rule, branch_and_bound, label_setting, undiscounted
from studies.lessons.search_lesson import (
    design_text,
    draw_evolution,
    draw_knowledge,
    draw_labels,
    draw_lagrangian,
    draw_plane,
    draw_progress,
    draw_states,
    draw_tree,
    label_table,
    layers_text,
    mutations,
    neighbourhood_table,
    node_table,
    rows_of,
    seed_table,
    solve_each,
    solver_table,
    tree_places,
    visits,
    visits_text,
)
from studies.pareto.figures import draw_boxes, draw_front, draw_hypervolume, nsga2_rows

SPACE = SearchSpace.uniform(3, (512, 768), (1,), (1, 2))
PLAIN = undiscounted(EffectiveEntropy())
TOY = DesignProblem(SPACE, PLAIN, (Budget(Flops(), 45e9),))
LARGER = SearchSpace.uniform(3, (512, 768, 1024), (1, 2), (1, 2, 3))
PROBLEM = DesignProblem(LARGER, EffectiveEntropy(), (Budget(Flops(), 60e9),))
FRONT = DesignProblem(LARGER, EffectiveEntropy(), minimize=(Flops(),))


def texts(axis: Axes) -> list[str]:
    """The words written into a plot, without those of its axes and legend."""
    return [text.get_text() for text in axis.texts if text.get_text()]


def labels_of(figure: Figure) -> list[str]:
    """The entries of all legends."""
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    return [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]


def drawn(figure: Figure) -> Figure:
    """The figure after it was drawn, which fails for what cannot be."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def cells(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table without its header."""
    return [[cell.strip() for cell in row[2:-2].split(" | ")] for row in markdown.splitlines()[2:]]


def line(axis: Axes, label: str) -> np.ndarray:
    """The points (n, 2) of the line whose label begins so."""
    return next(np.column_stack(each.get_data()) for each in axis.get_lines() if str(each.get_label()).startswith(label))


def test_the_plane_holds_every_design() -> None:
    figure = drawn(draw_plane(TOY))
    axis = figure.axes[0]
    within, over = line(axis, "within it"), line(axis, "over it")
    assert len(within) == sum(TOY.evaluate(design).feasible for design in SPACE)
    assert len(within) + len(over) == SPACE.size
    assert within[:, 0].max() <= 45 < over[:, 0].min()
    best = solve(TOY, Exhaustive())
    assert line(axis, "the best") == pytest.approx(np.array([[Flops()(best.architecture) / 1e9, best.objective / 1e3]]))
    assert axis.get_xlabel() == "GFLOPs"
    with pytest.raises(ValueError, match="the problem has no budget"):
        draw_plane(DesignProblem(SPACE, PLAIN))


def test_nothing_is_best_where_nothing_fits() -> None:
    axis = drawn(draw_plane(DesignProblem(SPACE, PLAIN, (Budget(Params(), 1e6),)))).axes[0]
    assert axis.get_xlabel() == "params [M parameters]"
    with pytest.raises(StopIteration):
        line(axis, "the best")


@pytest.mark.parametrize("rule", Rule)
def test_the_tree_is_drawn_whole(rule: Rule) -> None:
    tree = branch_and_bound(TOY, rule)
    places = tree_places(tree)
    assert len(set(places.values())) == len(tree.nodes)
    for node in tree.nodes:
        own = sorted(places[child.number][0] for child in tree.nodes if child.parent == node.number)
        assert not own or places[node.number][0] == (own[0] + own[-1]) / 2
    figure = drawn(draw_tree(tree))
    words = texts(figure.axes[0])
    for node in tree.nodes:
        assert str(node.number) in words
    assert words.count("over") == tree.count(Fate.BUDGET)
    assert sum(word.startswith(("512×", "768×")) for word in words) == len(tree.nodes) - 1
    assert labels_of(figure) == [f"{fate.value}: {tree.count(fate)}" for fate in Fate]


def test_blocks_are_written_with_ffn_only_where_it_is_chosen() -> None:
    assert design_text(next(iter(SPACE)), SPACE) == "512×1, 512×1, 512×1"
    assert design_text(next(iter(LARGER)), LARGER) == "512/512×1, 512/512×1, 512/512×1"


def test_layers_of_one_shape_are_counted_together() -> None:
    for design in list(LARGER)[::101]:
        text = layers_text(design)
        shapes = {f"{block.width}/{block.ffn_width}" for block in design.blocks}
        counts = dict(reversed(part.split(" of ")) for part in text.split(", "))
        assert set(counts) == shapes
        assert sum(map(int, counts.values())) == sum(design.depths)
    assert layers_text(Architecture((Block(512, 768, 4), Block(512, 512, 1), Block(512, 768, 3)))) == "1 of 512/512, 7 of 512/768"
    grouped = Block(512, 768, 2, kv_heads=2)
    assert layers_text(Architecture((grouped, Block(512, 768, 1), grouped))) == "1 of 512/768, 4 of 512/768 kv 2"


def test_progress_ends_where_incumbent_and_bound_meet() -> None:
    trees = {rule.value: branch_and_bound(TOY, rule) for rule in Rule}
    figure = drawn(draw_progress(trees))
    for axis, tree in zip(figure.axes, trees.values(), strict=True):
        proved, found = line(axis, "proved"), line(axis, "found")
        assert proved[-1, 1] == pytest.approx(tree.objective / 1e3)
        assert found[-1, 1] == pytest.approx(tree.objective / 1e3)
        assert np.all(np.diff(proved[:, 1]) <= 1e-9)
        assert np.all(proved[:, 1] >= tree.objective / 1e3 * (1 - 1e-12))


def test_the_lagrangian_curve_lies_over_the_optimum() -> None:
    optimum = solve(TOY, Exhaustive()).objective
    assert optimum is not None
    axis = drawn(draw_lagrangian(TOY, np.linspace(0, 1e-6, 51), optimum)).axes[0]
    curve = line(axis, "bound")
    assert np.all(curve[:, 1] >= optimum / 1e3)
    assert any(text.startswith(f"best price {curve[curve[:, 1].argmin(), 0]:.4g}") for text in texts(axis))


def test_states_count_their_labels() -> None:
    labels = label_setting(DesignProblem(LARGER, PLAIN, PROBLEM.subject_to))
    words = texts(drawn(draw_states(labels)).axes[0])
    boxes = [word for word in words if word.startswith("E = ")]
    assert len(boxes) == 9
    made = [int(word.split("\n")[1].removesuffix(" made")) for word in boxes]
    kept = [int(word.split("\n")[2].removesuffix(" kept")) for word in boxes if word.count("\n") == 2]
    assert sum(made) == sum(map(len, labels.stages))
    assert sum(kept) == sum(labels.count(LabelFate.KEPT)[:-1])
    assert f"head\n{labels.count(LabelFate.KEPT)[-1]} kept" in words


def test_labels_are_drawn_by_fate() -> None:
    labels = label_setting(DesignProblem(LARGER, PLAIN, PROBLEM.subject_to))
    axis = drawn(draw_labels(labels, 2, 768)).axes[0]
    own = [label for label in labels.stages[1] if LARGER.menus[1].items[label.choices[-1]].width == 768]
    for fate in (LabelFate.KEPT, LabelFate.DOMINATED):
        assert len(line(axis, fate.value)) == sum(label.fate is fate for label in own)
    over = sum(label.fate is LabelFate.BUDGET for label in own)
    assert axis.get_title() == f"labels after block 2, width 768; {over} more are over budget"
    with pytest.raises(ValueError, match=r"block 2 .*640.*\(512, 768, 1024\)"):
        draw_labels(labels, 2, 640)
    with pytest.raises(ValueError, match="one sum each"):
        draw_labels(label_setting(PROBLEM), 2, 768)


@pytest.mark.parametrize(
    "solver",
    [EvolutionaryAlgorithm(iterations=700), RandomSearch(samples=5_000), GeneticAlgorithm(population=20, evaluations=200)],
    ids=lambda solver: solver.name,
)
def test_visits_are_those_of_the_search_itself(solver: Solver) -> None:
    limits = Limits(seed=5)
    solution = solve(PROBLEM, solver, limits)
    seen = visits(PROBLEM, solver, limits)
    assert all(PROBLEM.evaluate(design).feasible for design in seen)
    assert max(map(PROBLEM.maximize, seen)) == pytest.approx(solution.objective, rel=1e-12)
    if isinstance(solver, EvolutionaryAlgorithm):
        assert len(seen) == solution.evaluations


def test_the_table_of_nodes_holds_the_trees() -> None:
    rows = cells(node_table({"sum": (TOY, (None, 4e-7)), "full": (dataclasses.replace(TOY, maximize=EffectiveEntropy()), (None,))}))
    assert [row[:2] for row in rows] == [["sum", "plain"], ["sum", "price 400"], ["full", "plain"]]
    for row, prices in zip(rows[:2], (None, (4e-7,)), strict=True):
        tree = branch_and_bound(TOY, prices=prices)
        assert row[2:5] == [f"{len(tree.nodes)}", f"{tree.count(Fate.BUDGET)}", f"{tree.count(Fate.BOUND)}"]
    for row in rows:
        assert row[5] == row[6] != "none"
    impossible = DesignProblem(SPACE, PLAIN, (Budget(Flops(), 1e9),))
    assert cells(node_table({"none": (impossible, (None,))}))[0][5:] == ["none", "none"]
    assert "(price in nat per GFLOP)" in node_table({"sum": (TOY, ())})


def test_the_table_of_labels_counts_them() -> None:
    larger = DesignProblem(LARGER, PLAIN, PROBLEM.subject_to)
    rows = cells(label_table({"sum": larger, "toy": TOY}))
    assert [row[:2] for row in rows] == [["sum", "no"], ["sum", "yes"], ["toy", "no"], ["toy", "yes"]]
    for row, problem, dominance in zip(rows, (larger, larger, TOY, TOY), (False, True) * 2, strict=True):
        labels = label_setting(problem, dominance)
        assert row[2:5] == [f"{len(stage):,}" for stage in labels.stages]
        assert row[5:] == [f"{labels.count(LabelFate.KEPT)[-1]:,}", f"{labels.objective:,.1f}"]


def test_what_was_visited_in_words() -> None:
    seen = visits(TOY, RandomSearch(samples=20), Limits(seed=2))
    optimum = solve(TOY, Exhaustive())
    best = max(seen, key=TOY.maximize)
    text = visits_text(TOY, (*seen, *seen), optimum)
    assert text.startswith(f"{2 * len(seen)} designs scored, {len(set(seen))} of them different")
    assert f"the best after {1 + seen.index(best)}\n" in text
    assert f"{best}   {TOY.maximize(best):,.1f} nat" in text
    assert text.endswith(f"{abs(100 * (1 - TOY.maximize(best) / optimum.objective)):.2f} %")
    assert visits_text(TOY, [optimum.architecture], optimum).endswith(" 0.00 %")


def test_mutations_change_a_width_a_ratio_or_a_depth() -> None:
    first, wider, both = (
        Architecture((Block(512, 512, 1), second, Block(1024, 1024, 1)))
        for second in (Block(512, 512, 1), Block(768, 768, 1), Block(768, 1536, 3))
    )
    assert mutations(first, wider, LARGER) == 1  # the FFN width goes with the width
    assert mutations(first, both, LARGER) == 3
    assert mutations(both, wider, LARGER) == 2
    assert mutations(both, both, LARGER) == 0


def test_the_neighbourhood_holds_the_best_of_those_near() -> None:
    design = Architecture((Block(512, 512, 3), Block(512, 512, 3), Block(512, 512, 3)))
    assert PROBLEM.evaluate(design).feasible
    decisions = [lambda block: block.width, lambda block: block.ffn_width, lambda block: block.depth]
    for row, most in zip(cells(neighbourhood_table(PROBLEM, design, (1, 3, 9))), (1, 3, 9), strict=True):
        near = {
            each: changed
            for each in LARGER
            if PROBLEM.evaluate(each).feasible
            and 1
            <= (changed := sum(of(a) != of(b) for a, b in zip(each.blocks, design.blocks, strict=True) for of in decisions))
            <= most
        }
        best = max(near, key=PROBLEM.maximize)
        assert row[0] == f"{most} of 9"
        assert row[2] == f"{PROBLEM.maximize(best):,.1f}"
        found = next(each for each in near if str(each) == row[1])
        assert row[3:] == [f"{near[found]}", f"{mutations(design, found, LARGER)}"]
    lonely = DesignProblem(SearchSpace.uniform(1, (512,), (1,), (1,)), PLAIN)
    assert cells(neighbourhood_table(lonely, next(iter(lonely.space)), (3,))) == [["3 of 3", "none", "", "", ""]]


def test_each_seed_has_its_row() -> None:
    optimum = solve(PROBLEM, Exhaustive()).objective
    assert optimum is not None
    rows = cells(seed_table(PROBLEM, RandomSearch(samples=50), (0, 3), optimum))
    for row, seed in zip(rows, (0, 3), strict=True):
        run = solve(PROBLEM, RandomSearch(samples=50), Limits(seed=seed))
        loss = f"{100 * (1 - run.objective / optimum):.2f} %"
        assert row == [f"{seed}", f"{run.architecture}", f"{run.objective:,.1f}", loss, "feasible"]
    impossible = DesignProblem(SPACE, PLAIN, (Budget(Flops(), 1e9),))
    assert cells(seed_table(impossible, RandomSearch(samples=5), (0,), 1.0)) == [["0", "none", "none", "", "unknown"]]


class Absent:
    """A solver whose engine is not installed."""

    name = "absent"
    distributions = ()

    def search(self, problem: DesignProblem, run: object) -> None:
        raise EngineMissing("absent is not installed; install it with: pip install absent")


def test_a_missing_engine_is_told_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    impossible = DesignProblem(SPACE, PLAIN, (Budget(Flops(), 1e9),))
    solutions = solve_each(TOY, {"absent": Absent(), "exact": Exhaustive(), "random": RandomSearch(samples=100)})  # type: ignore[dict-item]
    assert list(solutions) == ["exact", "random"]
    assert capsys.readouterr().out == "absent is not installed; install it with: pip install absent\n"
    (solver, exact), (_, random) = solutions.values()
    assert solver == Exhaustive()
    assert exact.objective is not None
    assert random.objective is not None
    solutions |= {"nothing": solve_each(impossible, {"nothing": Exhaustive()})["nothing"]}
    rows = cells(solver_table(solutions, exact.objective))
    value, loss = f"{exact.objective:,.2f}", f"{100 * (1 - random.objective / exact.objective):.2f} %"
    assert rows[0] == ["exact", "optimal", value, value, "0.00 %", "all 32 designs seen"]
    assert rows[1] == ["random", "feasible", f"{random.objective:,.2f}", "none", loss, "100 samples drawn"]
    assert rows[2][:5] == ["nothing", "infeasible", "none", "none", ""]


def test_visits_need_a_heuristic() -> None:
    with pytest.raises(NotSeparable):
        visits(PROBLEM, DynamicProgramming())


def test_evolution_shows_the_best_of_what_was_scored() -> None:
    seen = visits(PROBLEM, EvolutionaryAlgorithm(population=100, parents=10, iterations=2_000))
    optimum = solve(PROBLEM, DynamicProgramming()).architecture
    figure = drawn(draw_evolution(PROBLEM, seen, (100, 300, len(seen)), 100, 10, optimum))
    values = np.array([PROBLEM.maximize(design) for design in seen]) / 1e3
    for axis, moment in zip(figure.axes, (100, 300, len(seen)), strict=False):
        assert axis.get_title() == f"{moment:,} designs scored"
        best = np.sort(values[:moment])[::-1]
        assert line(axis, "population")[:, 1] == pytest.approx(best[:100])
        assert line(axis, "parents")[:, 1] == pytest.approx(best[:10])
        front = line(axis, "front")
        assert all(y <= front[front[:, 0] <= x * (1 + 1e-12), 1].max() * (1 + 1e-12) for x, y in line(axis, "scored"))
        (near,) = axis.child_axes
        assert line(near, "population") == pytest.approx(line(axis, "population"))
        assert near.get_xlim()[0] < line(near, "proven optimum")[0, 0] < near.get_xlim()[1]
        assert near.get_ylim()[0] < line(near, "proven optimum")[0, 1] < near.get_ylim()[1]
        (frame,) = axis.patches  # and no lines from its corners over the data
        assert frame.get_xy() == (near.get_xlim()[0], near.get_ylim()[0])
    assert not figure.axes[3].axison
    assert not draw_evolution(PROBLEM, seen, (100,), 100, 10).axes[0].child_axes


def knowledge() -> dict[str, tuple[Solver, Solution]]:
    solvers: dict[str, tuple[Solver, Limits]] = {
        "random": (RandomSearch(samples=100), Limits()),
        "cut short": (Exhaustive(), Limits(evaluations=1)),
        "open gap": (DynamicProgramming(), Limits(gap=0.2)),
        "proved": (DynamicProgramming(), Limits()),
    }
    return {name: (solver, solve(PROBLEM, solver, limits)) for name, (solver, limits) in solvers.items()}


def test_knowledge_says_what_each_solution_says() -> None:
    solutions = {name: solution for name, (_, solution) in knowledge().items()}
    axis = drawn(draw_knowledge(solutions)).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(solutions)
    for words, solution in zip([text for text in texts(axis) if "," in text], solutions.values(), strict=True):
        assert words.startswith(f"{solution.status.value}, ")
        assert words.endswith("no bound") is (solution.bound is None)


def test_rows_are_those_of_the_comparison() -> None:
    rows = rows_of(PROBLEM, "toy", knowledge())
    figure = drawn(draw_anytime(rows, ["toy"]))
    assert set(labels_of(figure)) == {"random", "cut short", "open gap", "proved"}
    bounds, exact, heuristic = ({str(each.get_label()): each for each in axis.get_lines()} for axis in figure.axes)
    assert set(bounds) == set(exact) == {"cut short", "open gap", "proved"}
    assert set(heuristic) == {"random"}
    curves = exact | heuristic
    for look in ("marker", "linewidth", "color"):  # distinguished by each alone
        assert len({getattr(curve, f"get_{look}")() for curve in curves.values()}) == len(curves)
    assert len({repr(curve._unscaled_dash_pattern) for curve in curves.values()}) == len(curves)
    assert curves["random"].get_markerfacecolor() == "white"
    assert curves["proved"].get_markerfacecolor() == curves["proved"].get_color()
    assert len(draw_anytime([row for row in rows if row["solver"] == "proved"], ["toy"]).axes) == 2


# Fronts, prices and conflicts


@pytest.fixture(scope="module")
def fronts() -> tuple[Front, Front]:
    """The exact front and one of NSGA-II."""
    return exact_front(FRONT), nsga2_front(FRONT, Limits(evaluations=300, seed=1), population=30)


def test_nsga2_rows_are_what_the_front_is_drawn_from(fronts: tuple[Front, Front]) -> None:
    exact, found = fronts
    figure = drawn(draw_front(exact, "toy", nsga2_rows([found]), [], reference_costs(FRONT)))
    assert line(figure.axes[0], "NSGA-II")[:, ::-1] == pytest.approx(found.values)


def test_boxes_tile_the_limits(fronts: tuple[Front, Front]) -> None:
    boxes = fronts[0].boxes[:5]
    axis = drawn(draw_boxes(FRONT, boxes)).axes[0]
    tops = [np.column_stack(each.get_data()) for each in axis.get_lines() if len(each.get_xdata()) == 2]
    assert len(tops) == 5
    for number, (top, box) in enumerate(zip(tops, boxes, strict=True)):
        assert box.point is not None
        assert top[:, 1] == pytest.approx([box.point.objective] * 2)
        assert top[0, 0] == box.point.costs[0]
        assert number == 0 or top[1, 0] == pytest.approx(tops[number - 1][0, 0], rel=1e-9)
    with pytest.raises(ValueError, match="one minimized quantity"):
        draw_boxes(dataclasses.replace(FRONT, minimize=(Flops(), Params())), boxes)
    with pytest.raises(ValueError, match="at least one box"):
        draw_boxes(FRONT, ())


def test_the_area_under_the_stairs_is_the_hypervolume(fronts: tuple[Front, Front]) -> None:
    reference = reference_costs(FRONT)
    sets = {"exact": fronts[0].values, "NSGA-II": fronts[1].values}
    axis = drawn(draw_hypervolume(FRONT, sets, reference)).axes[0]
    for name, values in sets.items():
        stairs = line(axis, name)
        area = float((np.diff(stairs[:, 0]) * stairs[:-1, 1]).sum()) / reference[0]
        assert area == pytest.approx(hypervolume(values, reference), rel=1e-9)
        assert f"{area:,.0f} nat" in next(label for label in axis.get_legend_handles_labels()[1] if label.startswith(name))
    with pytest.raises(ValueError, match="one or two sets"):
        draw_hypervolume(FRONT, {}, reference)


def test_prices_stand_side_by_side() -> None:
    problem = DesignProblem(LARGER, EffectiveEntropy(), (Budget(Flops(), 60e9), Budget(Params(), 200e6)))
    prices = price_of_budgets(problem, steps=2)
    figure = drawn(draw_prices(problem, prices))
    assert [axis.get_title() for axis in figure.axes] == [
        "flops ≤ 60 G FLOPs: binds",
        "params ≤ 200 M parameters: does not bind",
    ]
    for axis, price, scale in zip(figure.axes, prices, (1e9, 1e6), strict=True):
        steps = np.column_stack(axis.get_lines()[0].get_data())[:-1]
        assert steps == pytest.approx(np.array([(point.bound / scale, point.objective) for point in price.breakpoints]))


def test_a_conflict_leaves_its_corner_empty() -> None:
    entropy = EffectiveEntropy()
    budgets = (Budget(entropy, at_least=22_000), Budget(Flops(), 59e9), Budget(Params(), 46.5e6))
    problem = DesignProblem(LARGER, entropy, budgets)
    diagnosis = explain_infeasibility(problem, Exhaustive())
    assert diagnosis.status is Status.INFEASIBLE
    axis = drawn(draw_conflict(problem, diagnosis)).axes[0]
    points = line(axis, "designs of effective entropy ≥ 22,000 nat")
    kept = np.array([(Flops()(d) / 1e9, Params()(d) / 1e6) for d in LARGER if entropy(d) >= 22_000])
    assert all(any(np.all(point <= each * (1 + 1e-12)) for point in points) for each in kept)
    assert all(np.isclose(kept, point).all(axis=1).any() for point in points)
    assert not np.any((points[:, 0] <= 59) & (points[:, 1] <= 46.5))
    assert len(texts(axis)) == sum(need.bound is not None for need in diagnosis.needs[1:])
    with pytest.raises(ValueError, match="expected three"):
        draw_conflict(PROBLEM, diagnosis)
    hopeless = dataclasses.replace(problem, subject_to=(Budget(entropy, at_least=1e9), *budgets[1:]))
    with pytest.raises(ValueError, match="no design meets effective entropy ≥ 1e"):
        draw_conflict(hopeless, diagnosis)
