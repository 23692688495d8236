"""The paper's space and designs with widths divided, so that a machine without a GPU can train them, and who stands beside them.

All designs of one comparison keep the FLOPs of a scaled published design.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from formulation import Architecture, Block, Budget, DesignProblem, EffectiveEntropy, SearchSpace, paper_space
from formulation.architecture import HEAD_SIZE
from formulation.published import FFN_RATIO
from hardware_models import Flops, Params

_GPT2_SHAPE = 768 / 12
"""Width by depth of GPT-2."""
_DEEPEST = 48
"""Layers of a scaled or uniform design at most: GPT-2's largest has as many."""


def scaled(architecture: Architecture, scale: int, vocabulary: int, positions: int) -> Architecture:
    """The design with its widths divided by `scale`, rounded to whole attention heads (up at the middle)."""
    blocks = tuple(
        Block(width := scaled_width(block.width, scale), round(width * block.ffn_ratio), block.depth)
        for block in architecture.blocks
    )
    outside = scaled_width(architecture.embedding_width, scale)
    return dataclasses.replace(architecture, blocks=blocks, embedding_width=outside, vocabulary=vocabulary, positions=positions)


def scaled_width(width: int, scale: int) -> int:
    """The width divided by `scale`, rounded to whole attention heads (up at the middle)."""
    return max(1, (2 * width + scale * HEAD_SIZE) // (2 * scale * HEAD_SIZE)) * HEAD_SIZE


def scaled_problem(published: Architecture, scale: int, vocabulary: int, seq_len: int) -> tuple[DesignProblem, Architecture]:
    """The scaled paper space under the FLOPs of the scaled published design at `seq_len` tokens; and that design."""
    small = scaled(published, scale, vocabulary, seq_len)
    menu = paper_space().menus[0]
    space = SearchSpace.uniform(
        len(published.blocks),
        sorted({scaled_width(width, scale) for width in menu.widths}),
        menu.ffn_ratios,
        menu.depths,
        embedding_width=small.embedding_width,
        vocabulary=vocabulary,
        positions=seq_len,
    )
    flops = Flops(seq_len)
    return DesignProblem(space, EffectiveEntropy(), (Budget(flops, flops(small)),), (flops, Params())), small


def uniform_design(problem: DesignProblem) -> Architecture:
    """GPT-2's shape with the FLOPs of the budget: equal layers that share nothing, F at least GPT-2's and less than twice that.

    Of the widths and depths that take at least 90 % of the budget, those whose quotient is nearest to GPT-2's (768/12); F then
    grows in steps of 64 as far as the budget allows. ValueError if there isn't one.
    """
    budget, space = problem.subject_to[0], problem.space
    widest = 2 * max(width for menu in space.menus for width in menu.widths)

    def design(width: int, ffn_width: int, depth: int) -> Architecture:
        block = Block(width, ffn_width, depth)
        return Architecture((block,), False, space.embedding_width, space.vocabulary, space.positions)

    shapes = [
        (width, depth)
        for width in range(HEAD_SIZE, widest + 1, HEAD_SIZE)
        for depth in range(1, _DEEPEST + 1)
        if 0.9 * budget.bound <= budget.quantity(design(width, FFN_RATIO * width, depth)) <= budget.bound
    ]
    if not shapes:
        raise ValueError(
            f"no uniform design comes within 10 % of {budget.bound:,.0f} FLOPs; choose another published design or scale"
        )
    width, depth = min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1] / _GPT2_SHAPE)))
    ffn_widths = range(FFN_RATIO * width, 2 * FFN_RATIO * width, HEAD_SIZE)
    fitting = [f for f in ffn_widths if budget.quantity(design(width, f, depth)) <= budget.bound]
    return design(width, fitting[-1], depth)


def depth_scaled(problem: DesignProblem) -> Architecture:
    """Naive scaling of depth: every block as narrow as its menu allows, r = 1, and as many layers as the budget allows.

    Layers are added to the blocks in turn, the first one first. ValueError if not even one layer a block fits.
    """
    width = max(menu.widths[0] for menu in problem.space.menus)
    return _largest(problem, (_blocks(problem, width, layers) for layers in range(problem.space.blocks, _DEEPEST + 1)))


def width_scaled(problem: DesignProblem) -> Architecture:
    """Naive scaling of width: one layer a block, all blocks as wide as the budget allows with r = 1, in steps of a head.

    F then grows alike in all blocks as far as the budget allows, in steps of 16: widths of whole heads are coarse. ValueError if
    not even the narrowest fits.
    """
    space = problem.space
    widest = 4 * max(width for menu in space.menus for width in menu.widths)
    widened = _largest(problem, (_blocks(problem, width, space.blocks) for width in range(HEAD_SIZE, widest + 1, HEAD_SIZE)))
    width = widened.widths[0]
    more = (
        dataclasses.replace(widened, blocks=(Block(width, ffn_width, 1),) * space.blocks)
        for ffn_width in range(width, 8 * width, 16)
    )
    return _largest(problem, more)


def _blocks(problem: DesignProblem, width: int, layers: int) -> Architecture:
    """Equal blocks of this width that have so many layers between them."""
    space = problem.space
    each, more = divmod(layers, space.blocks)
    blocks = tuple(Block(width, width, each + (number < more)) for number in range(space.blocks))
    return Architecture(blocks, space.shared, space.embedding_width, space.vocabulary, space.positions)


def _largest(problem: DesignProblem, designs: Iterable[Architecture]) -> Architecture:
    """The last of the growing designs that meets every budget."""
    fitting = [design for design in designs if all(one.allows(one.value(design)) for one in problem.subject_to)]
    if not fitting:
        raise ValueError("no scaled design meets the budget; choose a larger published design or a smaller --scale")
    return fitting[-1]
