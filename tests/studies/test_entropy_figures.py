"""What the figures of the entropy lesson are drawn from, and that they show it."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from scipy.integrate import quad

from formulation import (
    PUBLISHED,
    Budget,
    DesignProblem,
    EffectiveEntropy,
    EntropyTable,
    Menu,
    SearchSpace,
    closed_form_entropy,
)
from hardware_models import DecoderParams, Flops
from solvers import Exhaustive, Status, solve
from studies.lessons import entropy_lesson as figures

OBJECTIVE = EffectiveEntropy()


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64), (300, 512)])
def test_the_law_is_a_density_with_mean_one(shape: tuple[int, int]) -> None:
    ratio = min(shape) / max(shape)
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def moment(power: int) -> float:
        def integrand(root: float) -> float:  # over s = √λ, which leaves no singularity at 0
            return float(figures.marchenko_pastur(np.array([root**2]), *shape)[0]) * root ** (2 * power) * 2 * root

        return quad(integrand, math.sqrt(low), math.sqrt(high), limit=200)[0]

    assert moment(0) == pytest.approx(1, rel=1e-6)
    assert moment(1) == pytest.approx(1, rel=1e-6)
    outside = np.array([-1.0, 0.0, low * 0.99, high * 1.01])
    assert figures.marchenko_pastur(outside, *shape).tolist() == [0, 0, 0, 0]


def test_the_law_follows_the_singular_values_of_one_matrix() -> None:
    singular = np.linalg.svd(np.random.default_rng(3).standard_normal((200, 400)), compute_uv=False)
    shares, edges = np.histogram(singular**2 / 400, bins=8)
    expected = [quad(lambda x: float(figures.marchenko_pastur(np.array([x]), 200, 400)[0]), a, b)[0] for a, b in pairwise(edges)]
    assert np.abs(shares / 200 - expected).max() < 0.02


@pytest.mark.parametrize("rho", [0.01, 1.0])
def test_the_integral_is_the_closed_form_without_its_finite_size_term(rho: float) -> None:
    rows, columns = 96, 160
    a = 1 + rho * (rows + columns)
    root = math.sqrt(a**2 - 4 * rho**2 * rows * columns)
    finite_size = 0.5 * math.log(root) - 0.5 * math.log((a + root) / 2)
    assert figures.limit_entropy(rows, columns, rho) == pytest.approx(
        closed_form_entropy(rows, columns, rho) - finite_size, rel=1e-9
    )
    assert figures.limit_entropy(rows, columns, rho) == pytest.approx(figures.limit_entropy(columns, rows, rho), rel=1e-12)


@pytest.mark.parametrize("call", [figures.marchenko_pastur, figures.limit_entropy], ids=lambda call: call.__name__)
def test_a_matrix_without_rows_is_refused(call: object) -> None:
    arguments = (np.ones(1), 0, 4) if call is figures.marchenko_pastur else (0, 4, 0.01)
    with pytest.raises(ValueError, match="0 rows and 4 columns; expected at least 1"):
        call(*arguments)  # type: ignore[operator]


def test_comparison_with_svd_shows_the_finite_size_term() -> None:
    small, large = figures.compare_with_svd((16, 64), 1.0, entries=600_000)
    assert small.limit > 3 * small.standard_error
    assert abs(small.closed) < small.limit / 3
    assert abs(large.closed) < 4 * large.standard_error
    assert figures.compare_with_svd((8,), 0.01, entries=10_000) == figures.compare_with_svd((8,), 0.01, entries=10_000)


def test_interpolation_is_too_low_between_the_entries() -> None:
    table = EntropyTable.build(0.01, (64, 128, 256, 512))
    middle, errors = figures.interpolation_errors(table)
    assert middle.tolist() == [96, 192, 384]
    assert errors.shape == (3, 3)
    assert errors[0, 1] == pytest.approx(table(96, 192) / closed_form_entropy(96, 192, 0.01) - 1)
    assert (errors < 0).all()


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table without its header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()[2:]]


def test_four_ways_lead_to_one_entropy() -> None:
    singular = np.linalg.svd(np.random.default_rng(1).standard_normal((32, 48)), compute_uv=False)
    one, mean, law, closed = rows_of(figures.ways_table(singular, 32, 48, 0.01, draws=4_000))
    assert one[2] == f"{sum(math.log(1 + 0.01 * value**2) for value in singular):.2f}"
    assert mean[0] == "mean over 4,000 matrices, SVD"
    assert closed[2] == f"{closed_form_entropy(32, 48, 0.01):.2f}"
    assert law[2] == f"{figures.limit_entropy(32, 48, 0.01):.2f}"
    two_errors = float(mean[1].removeprefix("± "))
    assert 0 < two_errors < 0.1
    assert float(mean[2]) == pytest.approx(float(closed[2]), abs=2 * two_errors + 0.01)


def test_finer_tables_are_better_and_exact_on_their_entries() -> None:
    rows = rows_of(figures.interpolation_table(0.01, (512, 256)))
    assert [row[:2] for row in rows] == [["512", "81"], ["256", "289"]]
    coarse, fine = (float(row[3].removesuffix("%")) for row in rows)
    assert coarse > fine > 0
    table = EntropyTable.build(0.01, (256, 512, 1024))
    assert figures.menu_error(table, Menu((256, 512), (1, 2), (1, 2))) == 0
    off = abs(table(512, 768) / closed_form_entropy(512, 768, 0.01) - 1)
    assert figures.menu_error(table, Menu((256, 512), (1, 1.5), (1,))) == pytest.approx(off)


def test_ratios_are_tabulated_for_attention_and_ffn() -> None:
    design = SearchSpace.uniform(2, (1024,), (2,), (2,)).decode([0, 0])
    assert rows_of(figures.gamma_table([design], OBJECTIVE)) == [["4", "1024/2048", f"{4 / 160:.3f}", f"{4 / 176:.3f}"]]
    rows = rows_of(figures.published_gamma_table(OBJECTIVE))
    assert rows == [["wide", "1", "256", "0.0078", "0.008"], ["deep", "24", "64", "0.2500", "0.25"]]


def test_deep_over_wide_beside_the_paper() -> None:
    own = figures.wide_and_deep(OBJECTIVE)
    rows = rows_of(figures.wide_deep_table(own))
    assert rows[0][1:] == [f"{own.plain[1] / own.plain[0]:.2f}", f"{4680 / 2784:.2f}"]
    assert rows[1][1:] == [f"{own.effective[1] / own.effective[0]:.2f}", f"{2042 / 2243:.2f}"]
    assert rows[2][1:] == ["0.25", "0.25"]
    assert [row[1] for row in rows[3:]] == [f"{own.turning_beta:.3f}", f"{own.turning_gamma:.2f}"]
    assert len(rows_of(figures.wide_deep_table(dataclasses.replace(own, turning_beta=None, turning_gamma=None)))) == 3


@pytest.mark.parametrize("width", [64, 512])
def test_effective_entropy_peaks_where_the_formula_says(width: int) -> None:
    curve = figures.depth_curve(width, 300, OBJECTIVE)
    assert curve.best_depth == pytest.approx(8 * math.log2(width), abs=0.5)
    assert curve.depths[-1] == math.ceil(16 * math.log2(width)) - 1  # the last with γ < 1
    assert np.allclose(curve.plain, curve.plain[0] * np.array(curve.depths))
    gamma = np.array(curve.depths) / (16 * math.log2(width))
    assert np.allclose(curve.effective, curve.plain * (1 - gamma))


def test_wide_and_deep_turn_at_the_beta_that_makes_them_equal() -> None:
    own = figures.wide_and_deep(OBJECTIVE)
    assert own.gamma == (1 / 128, 1 / 4)
    assert own.turning_beta is not None
    turned = figures.wide_and_deep(EffectiveEntropy(beta=own.turning_beta))
    assert own.turning_gamma == pytest.approx(turned.gamma[1], rel=1e-12)
    assert turned.effective[0] == pytest.approx(turned.effective[1], rel=1e-12)
    assert own.effective[1] > own.effective[0]  # what the lesson says: at the printed γ they have not turned


def layer_parameters(width: int) -> float:
    """Decoder parameters of one layer, F = E."""
    return DecoderParams()(figures.uniform(width, 2)) - DecoderParams()(figures.uniform(width, 1))


def test_networks_of_equal_size_are_as_deep_as_their_parameters_allow() -> None:
    parameters = 6e6
    sizes = figures.equal_parameters(parameters, (64, 256, 512, 2048), OBJECTIVE)
    assert sizes.widths == (512, 256, 64)  # one layer of 2048 is over the limit
    for width, depth, plain in zip(sizes.widths, sizes.depths, sizes.plain, strict=True):
        layers = [DecoderParams()(figures.uniform(width, depth + more)) - 2 * 768 * width for more in (0, 1)]
        assert layers[0] <= parameters < layers[1]
        assert plain == pytest.approx(figures.without_effectiveness(OBJECTIVE)(figures.uniform(width, depth)))
    assert math.isnan(sizes.effective[-1])
    assert sizes.gamma[1] < 1 < sizes.gamma[2]
    refused = sizes.refused_from
    assert refused is not None
    # γ = L / (16·log₂ E) is 1 where L layers of width E = 2^(L/16) have the parameters; a layer's are a quadratic in E.
    layer = np.polyfit((64, 128, 256), [layer_parameters(width) for width in (64, 128, 256)], 2)
    depths = np.linspace(80, 160, 8_001)
    truth = depths[np.argmin(np.abs(depths * np.polyval(layer, 2 ** (depths / 16)) - parameters))]
    assert refused == pytest.approx(truth, rel=0.03)
    assert figures.equal_parameters(parameters, (256, 512), OBJECTIVE).refused_from is None
    assert np.argmax(sizes.plain) == 2
    assert np.nanargmax(sizes.effective) == 1


def test_the_optimum_is_proved_for_each_weight() -> None:
    space = SearchSpace.uniform(2, widths=(256, 512), ffn_ratios=(1, 2), depths=(1, 2))
    problem = DesignProblem(space, OBJECTIVE, (Budget(Flops(), 15e9),))
    optima = figures.optima_by_weight(problem, (0.0, 0.6, 1.0))
    for weight, solution in optima.items():
        assert solution.status is Status.OPTIMAL
        truth = solve(DesignProblem(space, EffectiveEntropy(alpha=(weight, 1 - weight)), problem.subject_to), Exhaustive())
        assert solution.objective == pytest.approx(truth.objective)
    first, last = (optima[weight].architecture for weight in (0.0, 1.0))
    assert first is not None
    assert last is not None
    assert figures.mean_ffn_ratio(first) > figures.mean_ffn_ratio(last) == 1
    with pytest.raises(ValueError, match="expected an EffectiveEntropy"):
        figures.optima_by_weight(DesignProblem(space, Flops()), (0.5,))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("objective", [OBJECTIVE, EffectiveEntropy(weighting=False), EffectiveEntropy(effectiveness=False)])
def test_the_steps_add_up_to_the_objective(name: str, objective: EffectiveEntropy) -> None:
    steps = figures.entropy_steps(PUBLISHED[name], objective)
    assert sum(step.value for step in steps) == pytest.approx(objective(PUBLISHED[name]), rel=1e-12)
    assert [step.kind for step in steps] == [figures.ATTENTION_PART, figures.FEED_FORWARD_PART] * 4 + [figures.DISCOUNT] * 2
    assert all(step.value > 0 for step in steps[:8])
    assert all((step.value < 0) == objective.effectiveness for step in steps[8:])


def test_figures_show_what_was_computed() -> None:
    singular = np.linalg.svd(np.random.default_rng(0).standard_normal((40, 60)), compute_uv=False)
    spectrum = figures.draw_spectrum(singular, 40, 60)
    left, right = spectrum.axes
    assert left.lines[0].get_ydata().tolist() == singular.tolist()
    assert sum(bar.get_height() * bar.get_width() for bar in right.patches) == pytest.approx(1)
    assert np.allclose(right.lines[0].get_ydata(), figures.marchenko_pastur(np.array(right.lines[0].get_xdata()), 40, 60))

    terms = figures.draw_terms(singular, (0.01, 0.1)).axes[0]
    for line, rho in zip(terms.lines, (0.01, 0.1), strict=True):
        assert f"ρ = {rho:g}: {line.get_ydata().sum():,.0f} nat" == line.get_label()

    curves = [figures.depth_curve(width, 160, OBJECTIVE) for width in (64, 256)]
    depth = figures.draw_depth(curves).axes[0]
    assert [text.get_text() for text in depth.texts] == ["48 layers", "64 layers"]

    table = EntropyTable.build(0.01, (64, 128, 256))
    heat = figures.draw_table(table).axes[1]
    _, errors = figures.interpolation_errors(table)
    assert [text.get_text() for text in heat.texts] == [f"{abs(100 * error):.1f}" for error in errors.ravel()]

    steps = figures.draw_steps(PUBLISHED["MeRino-52M"], OBJECTIVE).axes[0]
    assert steps.patches[-1].get_height() == pytest.approx(OBJECTIVE(PUBLISHED["MeRino-52M"]))

    wide_deep = figures.draw_wide_deep(OBJECTIVE)
    own = figures.wide_and_deep(OBJECTIVE)
    assert [bar.get_height() for bar in wide_deep.axes[1].patches] == [*own.plain, *own.effective]
    assert [bar.get_height() for bar in wide_deep.axes[0].patches] == [2784, 4680, 2243, 2042]

    sizes = figures.equal_parameters(6e6, (64, 256, 512), OBJECTIVE)
    equal = figures.draw_equal_parameters(sizes, 6e6).axes[0]
    assert f"best: width 256, {sizes.depths[1]} layers" in [text.get_text() for text in equal.texts]
    band = next(patch for patch in equal.patches if patch.get_facecolor() == to_rgba("0.92"))
    assert band.get_x() == pytest.approx(sizes.refused_from)

    comparisons = figures.compare_with_svd((8, 16), 0.01, entries=10_000)
    drawn = figures.draw_comparison(comparisons, 0.01).axes[0]
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["8 × 8", "16 × 16"]

    for axis in (left, right, terms, depth, heat, steps, equal, drawn, *wide_deep.axes):
        assert axis.get_ylabel()
