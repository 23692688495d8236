"""Products of bfloat16 matrices on a processor without instructions for them."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from formulation import Architecture, Block
from merino_net import MerinoConfig
from merino_net.corpus.data import Sequences
from merino_net.training import bf16_products
from merino_net.training.bf16_products import WidenedProducts, multiplies_bf16, widened_products
from merino_net.training.run import TrainingPlan, TrainingResult, check_processes, train

CPU = torch.device("cpu")
DESIGN = Architecture((Block(64, 96, 2), Block(128, 64, 1)), embedding_width=96, vocabulary=300, positions=32)


@pytest.fixture
def without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """This processor, taken for one that has no products of bfloat16 matrices."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


def matrices(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


def test_a_product_is_the_exact_one_rounded_once() -> None:
    left, right, bias = matrices((40, 200), (200, 30), (30,))
    exact = left.double() @ right.double()
    with WidenedProducts():
        product, shifted, batched = left @ right, torch.addmm(bias, left, right), torch.bmm(left[None], right[None])[0]
        scaled = torch.addmm(bias, left, right, beta=-2.0, alpha=0.5)
    for found, wanted in ((product, exact), (shifted, exact + bias), (batched, exact), (scaled, exact / 2 - 2 * bias.double())):
        assert found.dtype == torch.bfloat16
        assert (found.double() - wanted).abs().max() <= (wanted.abs() * 2**-8).max() * 1.01  # half a unit in the last place
        assert (found == wanted.bfloat16()).float().mean() > 0.99


def test_other_numbers_are_left_alone() -> None:
    left, right = (matrix.float() for matrix in matrices((8, 8), (8, 8)))
    with WidenedProducts():
        assert torch.equal(left @ right, torch.mm(left, right))
        assert (left @ right).dtype == torch.float32
        assert (left.double() @ right.double()).dtype == torch.float64
        assert torch.equal(left.bfloat16() + right.bfloat16(), torch.add(left.bfloat16(), right.bfloat16()))


def attention_gradients(dtype: torch.dtype, context: AbstractContextManager[object]) -> list[torch.Tensor]:
    states = [state.to(dtype).requires_grad_() for state in matrices(*[(2, 3, 16, 8)] * 3)]
    with context:
        mixed = scaled_dot_product_attention(*states, is_causal=True)
        mixed.square().sum().backward()
    assert mixed.dtype == dtype
    return [mixed.detach(), *(state.grad for state in states if state.grad is not None)]


def test_attention_and_its_gradients_are_those_of_exact_numbers() -> None:
    exact = attention_gradients(torch.float64, nullcontext())
    found = attention_gradients(torch.bfloat16, WidenedProducts())
    assert [part.dtype for part in found] == [torch.bfloat16] * 4
    for part, wanted in zip(found, exact, strict=True):
        assert (part.double() - wanted).norm() < 0.01 * wanted.norm()


LLAMA = Architecture(
    (Block(64, 96, 1, heads=4, kv_heads=2, head_size=16), Block(64, 128, 1, heads=2, kv_heads=1, head_size=16)),
    family="llama",
    vocabulary=300,
    positions=32,
)


def trained(folder: Path, plan: TrainingPlan, design: Architecture = DESIGN) -> TrainingResult:
    tokens = torch.randint(0, 300, (64, 16), generator=torch.Generator().manual_seed(0))
    tokens[:, 1::2] = tokens[:, ::2]  # every second token repeats the one before
    rows = Sequences(tokens.numpy())
    return train(MerinoConfig.from_architecture(design), rows, rows, plan, folder, peak_flops_per_s=1e12, progress=False)


@pytest.mark.parametrize(("design", "optimizer"), [(DESIGN, "adamw"), (DESIGN, "muon"), (LLAMA, "muon")])
@pytest.mark.usefixtures("without_instructions")
def test_a_run_is_nearly_that_in_float32(tmp_path: Path, design: Architecture, optimizer: str) -> None:
    assert isinstance(widened_products(CPU), WidenedProducts)
    plan = TrainingPlan(
        steps=10, batch=8, seq_len=16, learning_rate=4e-3, optimizer=optimizer, log_every=5, evaluate_every=10, save_every=10
    )
    widened = trained(tmp_path / "widened", plan, design)
    full = trained(tmp_path / "full", dataclasses.replace(plan, precision="float32"), design)
    assert widened.held_out_loss == pytest.approx(full.held_out_loss, rel=2e-3)
    assert widened.held_out_loss != full.held_out_loss
    assert widened.held_out_loss < 5.6  # and it has learned: guessing has 5.70


def test_what_stands_in_is_for_processors_without_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiplies_bf16(torch.device("cuda"))
    assert isinstance(widened_products(torch.device("cuda")), nullcontext)
    monkeypatch.setattr(bf16_products, "multiplies_bf16", lambda device: True)
    assert isinstance(widened_products(CPU), nullcontext)


@pytest.mark.usefixtures("without_instructions")
def test_what_stands_in_is_not_compiled() -> None:
    with pytest.raises(ValueError, match="leave --compile out"):
        check_processes(None, TrainingPlan(steps=1, compile=True))
    assert check_processes(None, TrainingPlan(steps=1, compile=True, precision="float32")).num_processes == 1
