"""The depth-to-width ratio γ that a space admits, against every one of its designs by the formula of each objective."""

from __future__ import annotations

import math

import numpy as np
import pytest

from formulation import Architecture, Block, BlockwiseEntropy, EffectiveEntropy, Menu, SearchSpace
from formulation.entropy import TransformerEntropy


def slowly(left: Block, right: Block) -> bool:
    return right.depth <= left.depth + 4


def narrow_space(number: int) -> SearchSpace:
    """A random space whose blocks have FFN ratios far below 1, on both sides of 1 or above it, each its own.

    Where a narrow FFN stands beside a wide one, the deepest design is not the one of largest γ. From number 30 on blocks may be
    left out, and half of the spaces have a rule for steps.
    """
    depths = (1, 2, 5, 9) if number < 30 else (0, 2, 5, 9)
    step = slowly if number >= 30 and number % 2 else None
    draw = np.random.default_rng([31, number])
    ratios = ((1 / 32, 1 / 16), (1 / 32, 4), (0.25, 1, 4), (1, 2, 4))

    def some(pool: tuple, least: int = 1) -> tuple:
        return tuple(draw.choice(pool, size=draw.integers(least, len(pool) + 1), replace=False).tolist())

    while True:
        menus = tuple(
            Menu(some((64, 128, 512)), some(ratios[draw.integers(4)], 2), some(depths, 2)) for _ in range(draw.integers(1, 4))
        )
        try:
            return SearchSpace(menus, non_decreasing=bool(draw.random() < 0.7), step=step)
        except ValueError:
            continue


def effective(design: Architecture) -> float:
    """γ / β of the network's mean width: L² / Σ L_i log₂ of E_i or F_i, the larger one."""
    layers = sum(design.depths)
    widths, ffn_widths = (
        math.fsum(depth * math.log2(width) for width, depth in zip(of, design.depths, strict=True))
        for of in (design.widths, design.ffn_widths)
    )
    return layers**2 / min(widths, ffn_widths)


def blockwise(design: Architecture) -> float:
    """γ / β of the narrowest block: L / log₂ of its E_i or F_i."""
    layered = [block for block in design.blocks if block.depth]
    return sum(design.depths) / min(math.log2(size) for block in layered for size in (block.width, block.ffn_width))


@pytest.mark.parametrize("number", range(50))
@pytest.mark.parametrize(("family", "ratio"), [(EffectiveEntropy, effective), (BlockwiseEntropy, blockwise)], ids=["mean", "own"])
def test_a_space_is_refused_where_a_design_of_it_has_gamma_of_one(family: type[TransformerEntropy], ratio, number: int) -> None:
    space = narrow_space(number)
    designs = list(space)
    worst = max(map(ratio, designs))
    family(beta=0.9999 / worst).check(space)
    for beta in (1.0001 / worst, 3 / worst):
        with pytest.raises(ValueError, match="effective entropy needs γ < 1") as refusal:
            family(beta=beta).check(space)
        # The design that is shown is one of the space, and has the largest γ of all.
        assert f"γ = {beta * worst:.3f}" in str(refusal.value)
        assert any(str(design) in str(refusal.value) and math.isclose(ratio(design), worst) for design in designs)


@pytest.mark.parametrize("family", [EffectiveEntropy, BlockwiseEntropy])
def test_a_design_is_refused_from_gamma_of_one_on(family: type[TransformerEntropy]) -> None:
    for design in (Architecture((Block(64, 256, 3),)), Architecture((Block(128, 16, 3), Block(64, 64, 2)))):
        worst = {EffectiveEntropy: effective, BlockwiseEntropy: blockwise}[family](design)
        assert family(beta=0.999 / worst)(design) > 0
        with pytest.raises(ValueError, match=r"γ = 1\.001"):
            family(beta=1.001 / worst)(design)


@pytest.mark.parametrize("family", [EffectiveEntropy, BlockwiseEntropy])
def test_gamma_of_exactly_one_is_refused(family: type[TransformerEntropy]) -> None:
    with pytest.raises(ValueError, match=r"γ = 1\.000"):  # 6² / (6 · log₂ 64)
        family(beta=1.0)(Architecture((Block(64, 64, 6),)))


@pytest.mark.parametrize("family", [EffectiveEntropy, BlockwiseEntropy])
def test_an_ffn_one_wide_has_no_effective_entropy(family: type[TransformerEntropy]) -> None:
    space = SearchSpace.uniform(1, (64,), (1 / 64, 1), (1,))
    with pytest.raises(ValueError, match="γ = inf"):
        family(beta=1e-6).check(space)
    family(beta=0.0).check(space)
