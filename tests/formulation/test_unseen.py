"""What a quantity does not see of the decisions that a space leaves open: asked of its terms."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from formulation import Block, EffectiveEntropy, Measured, Quantity, SearchSpace, Separable, SpaceUnion, paper_space
from formulation.architecture import Setting
from formulation.union import decided
from formulation.unseen import unseen
from hardware_models import Flops, Params

OPEN = SearchSpace.uniform(
    2,
    (512, 576),
    ffn_widths=(512, 1024),
    depths=(1, 2),
    heads=(3, 6),
    kv_heads=(1, 3),
    head_sizes=(32, 64),
    gated=(True, False),
    shared=(True, False),
    bits=(4, 8),
)


@dataclass(frozen=True)
class Only(Separable):
    """Sees one choice of a block, or one fact around the blocks."""

    choice: str = ""
    fact: str = ""
    name = "only"
    unit = "1"

    def block(self, block: Block, setting: Setting) -> float:
        value = getattr(block, self.choice) if self.choice and block.depth else None
        return 0.0 if value is None else 1.0 + value

    def fixed(self, setting: Setting) -> float:
        return float(getattr(setting, self.fact) == 8192) if self.fact else 0.0


def test_entropy_sees_neither_bits_nor_sharing() -> None:
    assert unseen(EffectiveEntropy(), OPEN) == ("shared", "bits")
    assert unseen(Params(), OPEN) == ("bits",)
    assert unseen(EffectiveEntropy(), paper_space()) == ()
    assert unseen(Params(), paper_space()) == ("depth",)  # shared layers: as many are stored whatever the depth
    assert unseen(Flops(), paper_space()) == ()


@pytest.mark.parametrize("choice", ["width", "ffn_width", "depth", "heads", "kv_heads", "head_size", "gated", "shared", "bits"])
def test_what_it_sees_is_not_named(choice: str) -> None:
    names = {"width", "ffn_width", "depth", "heads", "kv_heads", "head_size", "gated", "shared", "bits"}
    seen = {choice, "depth"} if choice == "shared" else {choice}  # sharing begins with the second layer
    assert set(unseen(Only(choice), OPEN)) == names - seen


def test_a_block_that_may_be_left_out_is_seen_by_what_sees_its_layers() -> None:
    space = SearchSpace.uniform(2, (512,), (1,), (0, 1), bits=(4, 8))
    assert unseen(Only("bits"), space) == ()
    assert unseen(Flops(), space) == ("bits",)


def test_facts_around_the_blocks() -> None:
    space = SearchSpace.uniform(2, (512,), (1, 2), (1, 2))
    union = decided(space, vocabulary=(4096, 8192), family=("merino", "llama"), shared=(True, False))
    assert unseen(EffectiveEntropy(), union) == ("shared", "vocabulary")
    assert unseen(Params(), union) == ()
    assert unseen(Only(fact="vocabulary"), union) == ("depth", "shared", "ffn_ratio", "embedding_width", "family", "tied")
    two = SpaceUnion((space, SearchSpace.uniform(2, (512,), (1, 2), (1, 2), vocabulary=9)))
    assert unseen(EffectiveEntropy(), two) == ("vocabulary",)


@pytest.mark.parametrize("quantity", [Measured("measured", "s", lambda design: 1.0)])
def test_a_black_box_is_not_asked(quantity: Quantity) -> None:
    assert unseen(quantity, OPEN) == ()
