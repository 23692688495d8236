"""Small language models that others published, as architectures by name, and search spaces around two of them.

The shapes are those of the models' config.json on the Hugging Face hub; by them transformers' classes have the parameters that the
authors print. The paper's own designs are `formulation.published`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from formulation.architecture import HEAD_SIZE, SETTING, Architecture, Block
from formulation.menu import Menu
from formulation.space import SearchSpace
from formulation.union import SpaceUnion


def uniform_model(
    family: str, layers: int, width: int, ffn_width: int, heads: int, kv_heads: int, head_size: int, **around: Any
) -> Architecture:
    """A model whose layers are all alike, each with weights of its own, as transformers' classes build them.

    Args:
        family: one of `formulation.family.FAMILIES`.
        layers: how many.
        width: E.
        ffn_width: F.
        heads: query heads, h.
        kv_heads: key/value heads, k.
        head_size: d.
        around: vocabulary, positions, tied, embedding_width, as in `Architecture`.

    Raises:
        ValueError: as `Block` and `Architecture` do.
    """
    block = Block(width, ffn_width, layers, heads=heads, kv_heads=kv_heads, head_size=head_size)
    return Architecture((block,), shared=False, family=family, **around)


PRESETS: dict[str, Architecture] = {
    "smollm2-135m": uniform_model("llama", 30, 576, 1536, 9, 3, 64, vocabulary=49_152, positions=8192, tied=True),
    "smollm2-360m": uniform_model("llama", 32, 960, 2560, 15, 5, 64, vocabulary=49_152, positions=8192, tied=True),
    "qwen3-0.6b": uniform_model("qwen3", 28, 1024, 3072, 16, 8, 128, vocabulary=151_936, positions=40_960, tied=True),
    "qwen2.5-0.5b": uniform_model("qwen2", 24, 896, 4864, 14, 2, 64, vocabulary=151_936, positions=32_768, tied=True),
    "tinyllama-1.1b": uniform_model("llama", 22, 2048, 5632, 32, 4, 64, vocabulary=32_000, positions=2048, tied=False),
    "llama-3.2-1b": uniform_model("llama", 16, 2048, 8192, 32, 8, 64, vocabulary=128_256, positions=131_072, tied=True),
    "gpt2": uniform_model("gpt2", 12, 768, 3072, 12, 12, 64, vocabulary=50_257, positions=1024),
    "opt-125m": uniform_model("opt", 12, 768, 3072, 12, 12, 64, vocabulary=50_272, positions=2048),
    "opt-350m": uniform_model("opt_post_norm", 24, 1024, 4096, 16, 16, 64, vocabulary=50_272, positions=2048, embedding_width=512),
    "pythia-70m": uniform_model("gpt_neox", 6, 512, 2048, 8, 8, 64, vocabulary=50_304, positions=2048),
}
"""Published models by name."""


def layers_space(preset: str, depths: tuple[int, ...] = (1,)) -> SearchSpace:
    """Every layer of a published model redesigned at its one width, with its vocabulary and family.

    With E and k of the model, each layer has query heads k, 2k, 3k or 4k of size 64, or twice as many of size 32; 1 or k key/value
    heads; and an FFN width from 2E/3 to 4E in steps of E/3. SmolLM2-135M: heads 3, 6, 9, 12; FFN widths 384, 576, … 2,304.
    SmolLM2-360M: heads 5, 10, 15, 20; FFN widths 640, 960, … 3,840. The published layer, with 3k heads of size 64, k of them for
    keys and values, and F = 8E/3, is one of the items.

    Args:
        preset: a name in `PRESETS`, of a model with such a layer.
        depths: (1,), or (0, 1) where a layer may be left out.

    Raises:
        ValueError: for a model whose layer is none of the items.
    """
    model = PRESETS[preset]
    (block,) = model.blocks
    third, kv_heads = block.width // 3, block.kv_heads

    def of_head_size(head_size: int, also: tuple[Menu, ...] = ()) -> Menu:
        return Menu(
            (block.width,),
            None,
            depths,
            ffn_widths=tuple(range(2 * third, 12 * third + 1, third)),
            heads=tuple(HEAD_SIZE // head_size * kv_heads * number for number in (1, 2, 3, 4)),
            kv_heads=(1, kv_heads),
            head_sizes=(head_size,),
            also=also,
        )

    menu = of_head_size(HEAD_SIZE, (of_head_size(HEAD_SIZE // 2),))
    if menu.find(Block(block.width, block.ffn_width, 1, block.heads, kv_heads, block.head_size)) is None:
        raise ValueError(
            f"the layer of {preset}, {block}, is not one of 3k heads of size {HEAD_SIZE} and F = 8E/3; choose another model"
        )
    return SearchSpace((menu,) * block.depth, **{name: getattr(model, name) for name in SETTING})


LAYER_SPACES: dict[str, Callable[[], SearchSpace]] = {
    f"{preset}-layers{suffix}": partial(layers_space, preset, depths)
    for preset in ("smollm2-135m", "smollm2-360m")
    for suffix, depths in (("", (1,)), ("-depth", (0, 1)))
}
"""Spaces around published models by name; in those called -depth a layer may be left out."""


def edge_space(gated: tuple[bool, ...] = (True,)) -> SpaceUnion:
    """Small decoders of Llama's layers, each with heads and an FFN width of its own: a space for each residual width.

    Up to 16 layers, 128 to 512 wide in steps of 64; 2, 4 or 8 query heads of size 64; 1, 2 or 4 key/value heads; FFN widths
    128 to 1,536; a vocabulary of 4,096, whose embedding is the output head too.

    Args:
        gated: (True,), or (False, True) where a layer may do without a gate.
    """
    menu = {
        "ffn_widths": (128, 256, 384, 512, 768, 1024, 1536),
        "heads": (2, 4, 8),
        "kv_heads": (1, 2, 4),
        "gated": None if gated == (True,) else gated,
    }
    around = {"shared": False, "vocabulary": 4096, "positions": 2048, "family": "llama", "tied": True}
    return SpaceUnion(tuple(SearchSpace.uniform(16, (width,), None, (0, 1), **menu, **around) for width in range(128, 513, 64)))
