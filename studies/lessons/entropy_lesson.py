"""Figures and tables of the entropy lesson, `notebooks/01_entropy.ipynb`: a random matrix, its entropy, and what is made of it.

Each figure has a function beside it that computes what is drawn. The mathematics is `formulation.spectral` and
`formulation.entropy`; how exact and how fast the closed form and the table are is measured by `studies.entropy_table`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.integrate import quad

from formulation import (
    Architecture,
    Block,
    DesignProblem,
    EffectiveEntropy,
    EntropyTable,
    Menu,
    closed_form_entropy,
    monte_carlo_entropy,
)
from formulation.command.words import markdown_table
from formulation.spectral import check_rho
from hardware_models import DecoderParams
from solvers import DynamicProgramming, Solution, solve
from studies.entropy_table.study import interpolation_row, table_grid
from studies.palette import COLOURS, STYLES

_BLUE, _ORANGE, _GREEN = COLOURS[:3]


class PublishedNetwork(NamedTuple):
    """A network of the paper's table 1: its shape, entropy, γ, and entropy with effectiveness [nat]."""

    depth: int
    width: int
    entropy: float
    gamma: float
    effective: float


PUBLISHED_WIDE_DEEP = {"wide": PublishedNetwork(1, 256, 2784, 0.008, 2243), "deep": PublishedNetwork(24, 64, 4680, 0.25, 2042)}
"""The paper's table 1. How its entropies were made is not stated."""


def _edges(rows: int, columns: int) -> tuple[float, float, float]:
    """(c, λ₋, λ₊): the ratio min/max of the dimensions and the edges (1 ∓ √c)² of the Marčenko–Pastur law."""
    if min(rows, columns) < 1:
        raise ValueError(f"the matrix has {rows} rows and {columns} columns; expected at least 1 of each")
    ratio = min(rows, columns) / max(rows, columns)
    return ratio, (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2


def marchenko_pastur(eigenvalues: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Density of the Marčenko–Pastur law at λ = s²/n, s a singular value of a matrix with N(0, 1) entries, n the larger dimension.

        f(λ) = √((λ₊ − λ)(λ − λ₋)) / (2π·c·λ) between λ± = (1 ± √c)², 0 elsewhere; c = min/max of the dimensions

    Marčenko & Pastur (1967). It integrates to 1 with mean 1. Returns an array of the shape of `eigenvalues`.
    """
    ratio, low, high = _edges(rows, columns)
    values = np.asarray(eigenvalues, dtype=float)
    inside = (values > max(low, 0)) & (values < high)
    within = values[inside]
    density = np.zeros(values.shape)
    density[inside] = np.sqrt((high - within) * (within - low)) / (2 * math.pi * ratio * within)
    return density


def limit_entropy(rows: int, columns: int, rho: float) -> float:
    """Entropy in nat as the Marčenko–Pastur law alone has it: K·∫ log(1 + ρ·n·λ) f(λ) dλ, K and n the smaller and larger dimension.

    By quadrature over θ with λ = 1 + c + 2√c·cos θ, where f(λ) dλ = 2 sin²θ / (π·λ) dθ. `closed_form_entropy` is this integral in
    closed form plus the mean of the fluctuations that a finite matrix has around the law.
    """
    ratio, _, _ = _edges(rows, columns)
    gain = check_rho(rho) * max(rows, columns)

    def integrand(angle: float) -> float:
        eigenvalue = 1 + ratio + 2 * math.sqrt(ratio) * math.cos(angle)
        return math.log1p(gain * eigenvalue) * 2 * math.sin(angle) ** 2 / (math.pi * eigenvalue)

    return min(rows, columns) * quad(integrand, 0, math.pi)[0]


def ways_table(singular: np.ndarray, rows: int, columns: int, rho: float, draws: int) -> str:
    """Four ways to the entropy of rows × columns matrices in nat, as Markdown, the mean over matrices with its 2 standard errors.

    Args:
        singular: singular values of one such matrix with N(0, 1) entries.
        draws: matrices in the mean.
    """
    sampled = monte_carlo_entropy(rows, columns, rho, draws)
    ways = (
        ("one matrix, SVD", "random", float(np.log1p(check_rho(rho) * singular**2).sum())),
        (f"mean over {draws:,} matrices, SVD", f"± {2 * sampled.standard_error:.2f}", sampled.value),
        ("Marčenko–Pastur law alone", "exact for infinite size", limit_entropy(rows, columns, rho)),
        ("closed form, with finite-size term", "used from here on", closed_form_entropy(rows, columns, rho)),
    )
    cells = [[way, remark, f"{value:.2f}"] for way, remark, value in ways]
    return markdown_table(["way", "remark", "entropy [nat]"], cells, left=2)


def draw_spectrum(singular: np.ndarray, rows: int, columns: int) -> Figure:
    """The singular values of one matrix with N(0, 1) entries, largest first; beside it the histogram of s²/n and its law."""
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(np.arange(1, len(singular) + 1), np.sort(singular)[::-1], color=_BLUE, lw=2)
    small, large = sorted((rows, columns))
    for edge, name in ((math.sqrt(large) + math.sqrt(small), "√n + √k"), (math.sqrt(large) - math.sqrt(small), "√n − √k")):
        left.axhline(edge, color="0.45", ls="--", lw=1)
        left.annotate(f"{name} = {edge:.1f}", (0.5, edge), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points")
    left.set(title="Its singular values", xlabel="number j of the singular value, largest first", ylabel="singular value $s_j$")
    left.set_ylim(0, 1.12 * (math.sqrt(large) + math.sqrt(small)))
    eigenvalues = singular**2 / large
    _, low, high = _edges(rows, columns)
    right.hist(eigenvalues, bins=30, density=True, color="0.8", edgecolor="white", label="this matrix")
    line = low + (high - low) * (1 - np.cos(np.linspace(0, math.pi, 401))) / 2  # denser at the edges, where the law is steep
    line = line[line > 1e-3 * high]
    right.plot(line, marchenko_pastur(line, rows, columns), color=_ORANGE, lw=2.2, label="Marčenko–Pastur law")
    right.set(title="Their squares, and the law", xlabel="λ = s²/n", ylabel="density")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure


def draw_terms(singular: np.ndarray, rhos: Sequence[float]) -> Figure:
    """What each singular value adds to the entropy, log(1 + ρ·s²), for some ρ; the area under a curve is the entropy."""
    figure = Figure(figsize=(7.2, 3.5), layout="constrained")
    axis = figure.subplots()
    ordered = np.sort(singular)[::-1]
    number = np.arange(1, len(ordered) + 1)
    for rho, (colour, line, _) in zip(rhos, STYLES, strict=False):
        terms = np.log1p(check_rho(rho) * ordered**2)
        axis.plot(number, terms, line, color=colour, lw=2, label=f"ρ = {rho:g}: {terms.sum():,.0f} nat")
        axis.fill_between(number, terms, color=colour, alpha=0.07)
    axis.set(xlabel="number j of the singular value, largest first", ylabel="log(1 + ρ·$s_j^2$)  [nat]", ylim=(0, None))
    axis.legend(frameon=False, title="entropy = area under the curve", loc="upper left", bbox_to_anchor=(1.01, 1))
    axis.grid(alpha=0.3)
    return figure


@dataclass(frozen=True)
class Comparison:
    """Two formulas against SVD at one square matrix; errors relative to SVD.

    Attributes:
        dimension: rows = columns.
        standard_error: of the SVD estimate, relative.
        limit: error of `limit_entropy`, the law alone.
        closed: error of `closed_form_entropy`, with the finite-size term.
    """

    dimension: int
    standard_error: float
    limit: float
    closed: float


def compare_with_svd(dimensions: Sequence[int], rho: float, entries: int, seed: int = 0) -> tuple[Comparison, ...]:
    """Both formulas against the mean over random square matrices, `entries` random numbers for each dimension (so equal errors)."""
    comparisons = []
    for size in dimensions:
        estimate = monte_carlo_entropy(size, size, rho, max(2, entries // size**2), seed)
        comparisons.append(
            Comparison(
                size,
                estimate.standard_error / estimate.value,
                limit_entropy(size, size, rho) / estimate.value - 1,
                closed_form_entropy(size, size, rho) / estimate.value - 1,
            )
        )
    return tuple(comparisons)


def draw_comparison(comparisons: Sequence[Comparison], rho: float) -> Figure:
    """Errors of the law alone and of the closed form against SVD, bars of two standard errors."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.axhline(0, color="black", lw=0.8)
    place = np.arange(len(comparisons))
    bars = [200 * one.standard_error for one in comparisons]
    for shift, name, errors, (colour, _, marker) in (
        (-0.1, "the law alone", [100 * one.limit for one in comparisons], STYLES[1]),
        (0.1, "closed form, with the finite-size term", [100 * one.closed for one in comparisons], STYLES[0]),
    ):
        axis.errorbar(place + shift, errors, yerr=bars, fmt=marker, color=colour, capsize=3, label=name)
    axis.set_xticks(place, [f"{one.dimension} × {one.dimension}" for one in comparisons])
    axis.set(xlabel="shape (bars: 2 standard errors of the SVD mean)", ylabel="error relative to SVD [%]", title=f"ρ = {rho:g}")
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    return figure


def interpolation_errors(table: EntropyTable) -> tuple[np.ndarray, np.ndarray]:
    """(midpoints of the grid, errors of the table at all pairs of them relative to the closed form)."""
    grid = np.array(table.grid)
    middle = (grid[1:] + grid[:-1]) // 2
    exact = closed_form_entropy(middle[:, None], middle[None, :], table.rho)
    return middle, table(middle[:, None], middle[None, :]) / exact - 1


def draw_table(table: EntropyTable) -> Figure:
    """Interpolation error of a look-up table against the closed form: along its diagonal, and at the midpoints of its cells."""
    figure = Figure(figsize=(9.8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = np.array(table.grid)
    fine = np.arange(grid[0], grid[-1] + 1)
    left.plot(fine, 100 * (table(fine, fine) / closed_form_entropy(fine, fine, table.rho) - 1), color=_BLUE, lw=2)
    left.plot(grid, np.zeros(len(grid)), "s", color=_ORANGE, ms=6, label="entries of the table")
    left.set(title="Square matrices", xlabel="rows = columns", ylabel="interpolation error [%]")
    left.legend(frameon=False)
    left.grid(alpha=0.3)
    middle, errors = interpolation_errors(table)
    sizes = 100 * np.abs(errors)
    ends = np.arange(len(grid))
    mesh = right.pcolormesh(ends, ends, sizes, cmap="cividis", vmin=0)
    figure.colorbar(mesh, ax=right, label="|interpolation error| [%]")
    if len(middle) <= 8:
        for row, column in np.ndindex(sizes.shape):
            colour = "white" if sizes[row, column] < 0.6 * sizes.max() else "black"
            text = f"{sizes[row, column]:.1f}"
            right.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=colour)
    right.set(title="In the middle of each cell", xlabel="columns", ylabel="rows", aspect="equal")
    right.set_xticks(ends, list(map(str, grid)), rotation=60)
    right.set_yticks(ends, list(map(str, grid)))
    return figure


def interpolation_table(rho: float, steps: Iterable[int]) -> str:
    """Errors of look-up tables of some steps (64 to 4096) against the closed form, amid their cells, as Markdown."""
    rows = []
    for step in steps:
        one = interpolation_row(step, EntropyTable.build(rho, table_grid(step)))
        errors = [f"{one.median_error:.3%}", f"{one.largest_error:.2%}", f"{one.largest_at}"]
        rows.append([f"{one.step}", f"{one.entries:,}", *errors])
    header = ["step, 64 to 4096", "entries", "median error", "largest error", "at (rows, columns)"]
    return markdown_table(header, rows)


def menu_error(table: EntropyTable, menu: Menu) -> float:
    """The largest relative error of a table against the closed form over the FFN matrices, E × F, of a menu's blocks."""
    widths, ffn_widths = np.array([(block.width, block.ffn_width) for block in menu.items]).T
    exact = closed_form_entropy(widths, ffn_widths, table.rho)
    return float(np.abs(table(widths, ffn_widths) / exact - 1).max())


def uniform(width: int, depth: int, ffn_ratio: float = 1.0) -> Architecture:
    """A network of `depth` layers of one width that share no weights."""
    return Architecture((Block(width, round(ffn_ratio * width), depth),), shared=False)


def without_effectiveness(objective: EffectiveEntropy) -> EffectiveEntropy:
    """The same objective with γ = 0: the weighted sum of entropies."""
    return dataclasses.replace(objective, effectiveness=False)


def gamma_table(designs: Iterable[Architecture], objective: EffectiveEntropy) -> str:
    """The depth-to-width ratios γ of some designs of equal blocks, as Markdown."""
    rows = []
    for design in designs:
        block = design.blocks[0]
        gammas = [f"{gamma:.3f}" for gamma in objective.effectiveness_of(design)]
        rows.append([f"{sum(design.depths)}", f"{block.width}/{block.ffn_width}", *gammas])
    return markdown_table(["layers", "width/FFN width", "γ of attention", "γ of FFN"], rows, left=0)


def published_gamma_table(objective: EffectiveEntropy) -> str:
    """γ of the paper's two networks of its table 1, r = 1, beside what is printed there, as Markdown."""
    rows = []
    for name, one in PUBLISHED_WIDE_DEEP.items():
        gamma, _ = objective.effectiveness_of(uniform(one.width, one.depth))
        rows.append([name, f"{one.depth}", f"{one.width}", f"{gamma:.4f}", f"{one.gamma}"])
    return markdown_table(["network", "layers", "width", "γ", "γ as printed"], rows)


@dataclass(frozen=True)
class DepthCurve:
    """Networks of one width, deeper and deeper.

    Attributes:
        width: E, with F = E.
        depths: L, as far as γ < 1.
        plain: their weighted sums of entropies in nat.
        effective: their effective entropies in nat.
    """

    width: int
    depths: tuple[int, ...]
    plain: tuple[float, ...]
    effective: tuple[float, ...]

    @property
    def best_depth(self) -> int:
        """The depth of the largest effective entropy."""
        return self.depths[int(np.argmax(self.effective))]


def depth_curve(width: int, deepest: int, objective: EffectiveEntropy) -> DepthCurve:
    """The networks of one width and 1 to `deepest` layers, those with γ ≥ 1 left out."""
    plain, kept = without_effectiveness(objective), []
    for depth in range(1, deepest + 1):
        if max(objective.effectiveness_of(uniform(width, depth))) < 1:
            kept.append(depth)
    designs = [uniform(width, depth) for depth in kept]
    return DepthCurve(width, tuple(kept), tuple(map(plain, designs)), tuple(map(objective, designs)))


def draw_depth(curves: Sequence[DepthCurve]) -> Figure:
    """Entropy against depth for some widths, each in multiples of its single layer: without the discount L, with it a parabola."""
    figure = Figure(figsize=(7.6, 4), layout="constrained")
    axis = figure.subplots()
    deepest = max(curve.depths[-1] for curve in curves)
    longest = max(curves, key=lambda curve: curve.depths[-1])
    axis.plot(
        longest.depths, np.array(longest.plain) / longest.plain[0], color="black", lw=1.5, label="sum of entropies, any width"
    )
    for curve, (colour, line, marker) in zip(curves, STYLES, strict=False):
        values = np.array(curve.effective) / curve.plain[0]
        axis.plot(curve.depths, values, line, color=colour, lw=2, label=f"effective, width {curve.width}")
        axis.plot([curve.best_depth], [values.max()], marker, color=colour, ms=8)
        text = f"{curve.best_depth} layers"
        axis.annotate(text, (curve.best_depth, values.max()), (0, -18), textcoords="offset points", ha="center", color=colour)
    axis.set(xlabel="depth L [layers]", ylabel="entropy, in multiples of one layer's sum", xlim=(0, deepest))
    axis.set_ylim(0, 1.5 * max(max(curve.effective) / curve.plain[0] for curve in curves))
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1))
    axis.grid(alpha=0.3)
    return figure


@dataclass(frozen=True)
class WideDeep:
    """The paper's two networks of its table 1 under an objective: 'wide' (1 layer, 256) and 'deep' (24 layers, 64).

    Attributes:
        plain: entropies in nat of (wide, deep), without and with effectiveness.
        effective: entropies in nat of (wide, deep), without and with effectiveness.
        gamma: their depth-to-width ratios.
        turning_beta: the β at which both have the same effective entropy; None if there isn't one with γ < 1.
        turning_gamma: γ of the deep network at that β.
    """

    plain: tuple[float, float]
    effective: tuple[float, float]
    gamma: tuple[float, float]
    turning_beta: float | None
    turning_gamma: float | None


def wide_and_deep(objective: EffectiveEntropy) -> WideDeep:
    """The two networks of the paper's table 1, r = 1, nothing shared."""
    designs = [uniform(one.width, one.depth) for one in PUBLISHED_WIDE_DEEP.values()]
    plain = tuple(map(without_effectiveness(objective), designs))
    effective = tuple(map(objective, designs))
    gamma = tuple(max(objective.effectiveness_of(design)) for design in designs)
    # Effective entropy is plain·(1 − β·ratio) where F = E: two straight lines in β.
    ratios = [max(dataclasses.replace(objective, beta=1.0).effectiveness_of(design)) for design in designs]
    slope = plain[1] * ratios[1] - plain[0] * ratios[0]
    turn = (plain[1] - plain[0]) / slope if slope else math.inf
    beta = turn if 0 <= turn < 1 / max(ratios) else None
    return WideDeep(plain, effective, gamma, beta, None if beta is None else beta * ratios[1])  # type: ignore[arg-type]


def wide_deep_table(own: WideDeep) -> str:
    """Deep over wide, ours and as the paper prints them, and where ours would turn, as Markdown."""
    wide, deep = PUBLISHED_WIDE_DEEP.values()
    rows = [
        ["entropy, deep / wide (ours: weighted sum)", f"{own.plain[1] / own.plain[0]:.2f}", f"{deep.entropy / wide.entropy:.2f}"],
        [
            "effective entropy, deep / wide",
            f"{own.effective[1] / own.effective[0]:.2f}",
            f"{deep.effective / wide.effective:.2f}",
        ],
        ["γ of the deep network", f"{own.gamma[1]:.2f}", f"{deep.gamma:.2f}"],
    ]
    if own.turning_beta is not None:
        rows.append(["β at which both have equal effective entropy", f"{own.turning_beta:.3f}", "-"])
        rows.append(["γ of the deep network at that β", f"{own.turning_gamma:.2f}", "-"])
    return markdown_table(["", "ours", "the paper"], rows)


def draw_wide_deep(objective: EffectiveEntropy) -> Figure:
    """Wide against deep: the published entropies, ours, and ours as a function of β."""
    own = wide_and_deep(objective)
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    published, ours, turning = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
    paper = list(PUBLISHED_WIDE_DEEP.values())
    for axis, title, plain, effective in (
        (published, "The paper's table 1", [one.entropy for one in paper], [one.effective for one in paper]),
        (ours, "This reconstruction", own.plain, own.effective),
    ):
        place = np.arange(2)
        sums = "entropy" if axis is published else "weighted sum of entropies"
        for shift, values, colour, hatch, name in (
            (-0.2, plain, "0.75", "", sums),
            (0.2, effective, _BLUE, "//", "effective entropy"),
        ):
            bars = axis.bar(place + shift, values, 0.38, color=colour, edgecolor="white", hatch=hatch, label=name)
            axis.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=9)
        axis.set_xticks(place, ["wide\n1 layer × 256", "deep\n24 layers × 64"])
        axis.set(title=title, ylabel="entropy [nat]")
        axis.margins(y=0.38)
        axis.legend(frameon=False, loc="upper left", fontsize=9)
    _draw_turning(turning, objective, own)
    return figure


def _draw_turning(axis: Axes, objective: EffectiveEntropy, own: WideDeep) -> None:
    """Effective entropy of both networks against β."""
    betas = np.linspace(0, 0.2, 41)
    for (name, one), (colour, line, _) in zip(PUBLISHED_WIDE_DEEP.items(), STYLES, strict=False):
        values = [dataclasses.replace(objective, beta=float(beta))(uniform(one.width, one.depth)) for beta in betas]
        axis.plot(betas, values, line, color=colour, lw=2, label=name)
    axis.axvline(objective.beta, color="0.45", ls=":", lw=1.5)
    axis.annotate(f"β = {objective.beta:g}", (objective.beta, 0.03), (4, 0), ("data", "axes fraction"), "offset points")
    if own.turning_beta is not None:
        axis.axvline(own.turning_beta, color="0.45", ls=":", lw=1.5)
        axis.annotate(f"{own.turning_beta:.3f}", (own.turning_beta, 0.03), (4, 0), ("data", "axes fraction"), "offset points")
    axis.set(title="Ours, for other β", xlabel="β, strength of the discount", ylabel="effective entropy [nat]", ylim=(0, None))
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)


@dataclass(frozen=True)
class EqualSize:
    """Networks of about one number of decoder parameters, from wide and shallow to narrow and deep.

    Attributes:
        widths: E = F, falling.
        depths: L, the most layers that the parameters allow.
        plain: weighted sums of entropies in nat.
        effective: effective entropies in nat; NaN where γ ≥ 1.
        gamma: depth-to-width ratios γ, rising.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    plain: tuple[float, ...]
    effective: tuple[float, ...]
    gamma: tuple[float, ...]

    @property
    def refused_from(self) -> float | None:
        """The depth at which γ reaches 1, by a power law between the networks on either side of it; None if there are none."""
        if not self.gamma[0] < 1 <= self.gamma[-1]:
            return None
        return float(np.exp(np.interp(0.0, np.log(self.gamma), np.log(self.depths))))


def equal_parameters(parameters: float, widths: Sequence[int], objective: EffectiveEntropy) -> EqualSize:
    """The deepest network of each width with at most `parameters` in its layers; widths too wide for one layer are left out."""
    plain = without_effectiveness(objective)
    kept, depths, sums, effective, gammas = [], [], [], [], []
    for width in sorted(widths, reverse=True):
        # The difference of two depths leaves out the maps to the embedding and the head.
        layer = DecoderParams()(uniform(width, 2)) - DecoderParams()(uniform(width, 1))
        if (depth := int(parameters // layer)) < 1:
            continue
        design = uniform(width, depth)
        kept.append(width)
        depths.append(depth)
        sums.append(plain(design))
        gammas.append(max(objective.effectiveness_of(design)))
        effective.append(objective(design) if gammas[-1] < 1 else math.nan)
    return EqualSize(tuple(kept), tuple(depths), tuple(sums), tuple(effective), tuple(gammas))


def draw_equal_parameters(sizes: EqualSize, parameters: float) -> Figure:
    """Entropy of networks of equal size against their depth, with and without effectiveness."""
    figure = Figure(figsize=(7.6, 4.1), layout="constrained")
    axis = figure.subplots()
    effective = np.array(sizes.effective)
    for name, values, (colour, line, marker) in (
        ("weighted sum of entropies", np.array(sizes.plain), STYLES[1]),
        ("effective entropy", effective, STYLES[0]),
    ):
        axis.plot(sizes.depths, values / 1e3, line, color=colour, marker=marker, lw=2, label=name)
    best = int(np.nanargmax(effective))
    for width, depth, value in zip(sizes.widths, sizes.depths, sizes.plain, strict=True):
        axis.annotate(f"{width}", (depth, value / 1e3), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    text = f"best: width {sizes.widths[best]}, {sizes.depths[best]} layers"
    axis.annotate(
        text,
        (sizes.depths[best], effective[best] / 1e3),
        (0, -40),
        textcoords="offset points",
        ha="right",
        color=_BLUE,
        arrowprops={"arrowstyle": "->", "color": _BLUE},
    )
    right = 1.6 * max(sizes.depths)
    if (refused := sizes.refused_from) is not None:
        axis.axvspan(refused, right, color="0.92", zorder=0)
        axis.text(1.05 * refused, 0.03 * max(sizes.plain) / 1e3, "γ ≥ 1:\nrefused", va="bottom")
    axis.set_xscale("log")
    axis.set_xticks(ticks := [2, 5, 10, 20, 50, 100, 200, 500, 1000], list(map(str, ticks)))
    axis.minorticks_off()
    axis.set_xlim(0.8 * min(sizes.depths), right)
    axis.set_ylim(0, 1.12 * max(sizes.plain) / 1e3)
    axis.set(xlabel="depth L [layers], logarithmic", ylabel="entropy [1,000 nat]")
    axis.set_title(f"{parameters / 1e6:g} million parameters in equal layers (numbers: their width)")
    axis.legend(frameon=False, loc="upper left")
    axis.grid(alpha=0.3)
    return figure


def optima_by_weight(problem: DesignProblem, attention_weights: Sequence[float]) -> dict[float, Solution]:
    """The proven optimum of `problem` for each α₁, with α₂ = 1 − α₁. ValueError if its objective is no `EffectiveEntropy`."""
    objective = problem.goal
    if not isinstance(objective, EffectiveEntropy):
        raise ValueError(f"the objective is {objective!r}; expected an EffectiveEntropy, whose weights can be changed")
    return {
        weight: solve(
            dataclasses.replace(problem, maximize=dataclasses.replace(objective, alpha=(weight, 1 - weight))), DynamicProgramming()
        )
        for weight in attention_weights
    }


def mean_ffn_ratio(design: Architecture) -> float:
    """Σ L_i F_i / Σ L_i E_i: how wide the feed-forward networks are, compared with the attention."""
    return sum(map(math.prod, zip(design.depths, design.ffn_widths, strict=True))) / sum(
        map(math.prod, zip(design.depths, design.widths, strict=True))
    )


def draw_weights(optima: Mapping[float, Solution], default: float) -> Figure:
    """How the optimum moves with α₁: its FFN width compared with its width, its layers, and its mean width."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    designs = {weight: solution.architecture for weight, solution in optima.items() if solution.architecture is not None}
    for axis, name, value, (colour, line, marker) in (
        (axes[0], "mean F / E", mean_ffn_ratio, STYLES[0]),
        (axes[1], "depth L [layers]", lambda design: sum(design.depths), STYLES[1]),
        (axes[2], "mean width E per layer", lambda design: np.average(design.widths, weights=design.depths), STYLES[2]),
    ):
        axis.plot(list(designs), [value(design) for design in designs.values()], line, color=colour, marker=marker, lw=2)
        axis.axvline(default, color="0.45", ls=":", lw=1.5)
        axis.set(xlabel="α₁, weight of attention (α₂ = 1 − α₁)", ylabel=name)
        axis.margins(y=0.2)
        axis.grid(alpha=0.3)
    axes[0].annotate("default", (default, 0.03), (4, 0), ("data", "axes fraction"), "offset points")
    axes[1].yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@dataclass(frozen=True)
class EntropyStep:
    """One step on the way from 0 to a design's effective entropy: a name, a kind and what it adds in nat."""

    name: str
    kind: str
    value: float


ATTENTION_PART, FEED_FORWARD_PART, DISCOUNT = "attention", "feed-forward", "effectiveness"
"""The kinds of `EntropyStep`."""


def entropy_steps(design: Architecture, objective: EffectiveEntropy) -> tuple[EntropyStep, ...]:
    """Block by block what attention and FFN add, α·L·H each, then what γ takes from either sum; they add up to the objective."""
    weights = objective.alpha if objective.weighting else (1.0, 1.0)
    steps, sums = [], [0.0, 0.0]
    for number, block in enumerate(design.blocks, start=1):
        for place, (kind, part) in enumerate(zip((ATTENTION_PART, FEED_FORWARD_PART), objective.parts[3:], strict=True)):
            value = weights[place] * part.block(block, design)
            sums[place] += value
            steps.append(EntropyStep(f"block {number}", kind, value))
    for name, gamma, total in zip(("γ of attention", "γ of FFN"), objective.effectiveness_of(design), sums, strict=True):
        steps.append(EntropyStep(name, DISCOUNT, -gamma * total))
    return tuple(steps)


def draw_steps(design: Architecture, objective: EffectiveEntropy) -> Figure:
    """The effective entropy of one design as a waterfall: a pair of steps up for each block, two steps down for γ, the sum."""
    steps = entropy_steps(design, objective)
    looks = {ATTENTION_PART: (_BLUE, ""), FEED_FORWARD_PART: (_ORANGE, "//"), DISCOUNT: ("0.6", "xx")}
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    axis = figure.subplots()
    level, seen, place = 0.0, set(), 0.0
    centres: dict[str, list[float]] = {}
    for step in steps:
        colour, hatch = looks[step.kind]
        label = None if step.kind in seen else step.kind
        seen.add(step.kind)
        axis.bar(place, step.value, 0.8, level, color=colour, hatch=hatch, edgecolor="white", label=label)
        top = max(level, level + step.value)
        axis.annotate(
            f"{step.value:+,.0f}".replace("-", "−"), (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=9
        )
        axis.plot([place - 0.4, place + 1.4], [level + step.value] * 2, color="0.5", lw=0.8)
        centres.setdefault(step.name, []).append(place)
        level += step.value
        place += 1
    axis.bar(place, level, 0.8, color=_GREEN, label="effective entropy")
    axis.annotate(f"{level:,.0f}", (place, level), (0, 3), textcoords="offset points", ha="center", fontsize=9, fontweight="bold")
    ticks = [float(np.mean(places)) for places in centres.values()]
    names = [
        f"{name}\n{block.width}/{block.ffn_width} × {block.depth}" for name, block in zip(centres, design.blocks, strict=False)
    ]
    names += [name.replace(" of ", "\nof ") for name in list(centres)[len(design.blocks) :]]
    axis.set_xticks([*ticks, place], [*names, "sum"])
    axis.set(xlabel="block (width/FFN width × layers), then the discount", ylabel="entropy [nat]")
    axis.set_ylim(0, 1.1 * sum(step.value for step in steps if step.value > 0))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.legend(frameon=False, loc="upper left")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    return figure
