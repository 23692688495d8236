"""What the figures and tables of the training lesson are made from, and that they show it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from formulation import Architecture, Block
from hardware_models import Params
from merino_net import MerinoConfig, MerinoForCausalLM
from merino_net.corpus.data import train_tokenizer
from merino_net.quantize import Plan
from studies.lessons import network_lesson as figures

TEXT = ["The mill stood by the river, and the wheel turned by day and by night. The river froze; the wheel stood still."]
VOCABULARY, POSITIONS = 300, 64
DESIGN = Architecture((Block(64, 96, 3), Block(128, 64, 1)), True, 64, VOCABULARY, POSITIONS)


def network(design: Architecture = DESIGN) -> Any:
    torch.manual_seed(0)
    return MerinoForCausalLM(MerinoConfig.from_architecture(design, initializer_range=0.1)).eval()


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (40, 16)).astype(np.uint16)


def test_a_pass_applies_a_shared_layer_as_often_as_the_block_is_deep() -> None:
    steps = figures.passage(network())
    assert [step.kind for step in steps] == ["embedding", "positions", *["layer"] * 3, "map", "layer", "norm", "map", "head"]
    first, second, third = (step for step in steps if step.module == "model.blocks.0.layers.0")
    assert first == second == third
    assert (first.inside, first.outside) == (64, 64)
    assert steps[-1].weights == steps[0].weights == "model.tokens"  # tied
    stored = {step.weights: step.parameters for step in steps}
    assert sum(stored.values()) == Params()(DESIGN)


def test_a_pass_of_unshared_layers_uses_each_once() -> None:
    design = Architecture(DESIGN.blocks, False, 64, VOCABULARY, POSITIONS)
    steps = figures.passage(network(design))
    layers = [step.module for step in steps if step.kind == "layer"]
    assert len(set(layers)) == len(layers) == 4
    assert sum({step.weights: step.parameters for step in steps}.values()) == Params()(design)


def test_watching_leaves_no_hooks_behind() -> None:
    model = network()
    figures.passage(model)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_picture_of_a_pass_says_what_is_stored_and_how_often_it_is_used() -> None:
    steps = figures.passage(network())
    axis = figures.draw_passage(steps).axes[0]
    texts = [text.get_text() for text in axis.texts]
    layer = next(step for step in steps if step.kind == "layer")
    assert f"{layer.parameters:,}\nused 3 times" in texts
    assert texts.count("layer\nwidth 64") == 3
    stored = len({step.weights for step in steps})
    assert len(axis.patches) == len(steps) + stored
    looks = {(patch.get_facecolor(), patch.get_hatch()) for patch in axis.patches if patch.get_hatch()}
    assert looks, "layers of different weights look different without colour too"


def test_held_out_loss_is_the_mean_surprise(rows: np.ndarray) -> None:
    model = network()
    each = np.array([figures.surprises(model, row.tolist()) for row in rows])
    assert each.shape == (40, 15)
    assert figures.held_out_loss(model, rows) == pytest.approx(float(each.mean()), rel=1e-5)  # 32 and 8 rows at a time
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(rows[:1].astype(np.int64))).logits[0]
    assert each[0, 3] == pytest.approx(-float(logits[3].log_softmax(-1)[rows[0, 4]]), rel=1e-5)


def test_surprise_is_grouped_by_what_came_before(rows: np.ndarray) -> None:
    model = network()
    groups = figures.surprise_by_context(model, rows[:4])
    assert [group[:2] for group in groups] == [(1, 1), (2, 3), (4, 7), (8, 15)]
    nats = np.array([figures.surprises(model, row.tolist()) for row in rows[:4]])
    assert groups[1][2:] == pytest.approx((nats[:, 1:3].mean(), nats[:, 1:3].std() / math.sqrt(8)))
    tokens = [last - first + 1 for first, last, *_ in groups]
    assert np.average([mean for *_, mean, _ in groups], weights=tokens) == pytest.approx(nats.mean())


def test_the_three_measures_say_the_same(rows: np.ndarray) -> None:
    table = figures.loss_table({"guessing": math.log(256)}, tokens=1000, text_bytes=1000)
    assert table.splitlines()[2] == "| guessing | 5.55 | 256 | 8.00 |"  # a byte a token: 8 bits


def test_bytes_are_those_of_the_tokens_that_are_predicted() -> None:
    tokenizer = train_tokenizer(TEXT * 3, VOCABULARY)
    tokens = tokenizer("The river, déjà vu")["input_ids"]
    first = len(tokenizer.decode(tokens[:1]).encode())
    assert figures.predicted_bytes(tokenizer, np.array([tokens])) == len("The river, déjà vu".encode()) - first
    end = tokenizer.eos_token_id
    assert figures.predicted_bytes(tokenizer, np.array([[end, *tokens, end]])) == len("The river, déjà vu".encode())


def test_learning_is_drawn_with_its_levels() -> None:
    log = [
        {"step": 10, "tokens": 1000, "loss": 6.5},
        {"step": 20, "tokens": 2000, "loss": 5.0},
        {"step": 20, "tokens": 2000, "held_out_loss": 5.2},
    ]
    left, right = figures.draw_learning(log, {"guessing": 6.93, "counting pairs": 4.0}).axes
    assert list(left.lines[0].get_ydata()) == [6.5, 5.0]
    assert list(left.lines[1].get_xdata()) == [2.0]
    labels = [line.get_label() for line in left.lines]
    assert labels[2:] == ["guessing: 6.93", "counting pairs: 4.00"]
    assert left.get_ylim() == right.get_ylim()
    for tick, label in zip(right.get_yticks(), right.get_yticklabels(), strict=True):
        assert math.exp(tick) == pytest.approx(float(label.get_text()))


def test_surprises_are_drawn_over_their_tokens() -> None:
    axis = figures.draw_surprises(["a", " b", "\n"], np.array([1.0, 3.0]), guessing=5.0).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [1.0, 3.0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "␣b", "↵"]
    assert {line.get_label() for line in axis.lines} == {"guessing: 5.00", "mean of these tokens: 2.00"}


def test_rounding_is_coarser_with_fewer_bits() -> None:
    weight = torch.randn(64, generator=torch.Generator().manual_seed(0))
    fine, coarse = figures.draw_rounding(weight, (8, 4), count=16).axes

    def errors(axis: Any) -> np.ndarray:
        own = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines}
        assert np.allclose(own["weight"], weight[:16].numpy())
        rounded = next(values for label, values in own.items() if str(label).startswith("rounded"))
        return np.abs(rounded - own["weight"])

    step = float(weight.abs().max()) / 7.5
    assert errors(coarse).max() <= 0.51 * step
    assert errors(fine).max() < errors(coarse).max() / 8


def test_variants_are_read_back_from_disk(tmp_path: Path, rows: np.ndarray) -> None:
    model, tokenizer = network(), train_tokenizer(TEXT * 3, VOCABULARY)
    plans = {"as it is": None, "8": Plan("rtn", 8, embedding_bits=8), "4": Plan("rtn", 4, 32, embedding_bits=4)}
    whole, eight, four = figures.variants(model, tokenizer, plans, rows, tmp_path)
    assert whole.weight_bits == pytest.approx(32)
    assert whole.loss == pytest.approx(figures.held_out_loss(model, rows), rel=1e-6)
    assert whole.file_bytes > eight.file_bytes > four.file_bytes
    assert 8 < eight.weight_bits < 9.5
    assert 4 < four.weight_bits < 6
    assert abs(eight.loss - whole.loss) < abs(four.loss - whole.loss)
    lines = figures.variant_table([whole, eight, four]).splitlines()
    assert lines[2].endswith("+0.0% |")
    assert f"{math.exp(four.loss):.1f}" in lines[4]
