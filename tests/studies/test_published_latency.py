"""The models of the published latencies of nine networks: what they predict, what bounds them, and their device files."""

from __future__ import annotations

import numpy as np
import pytest

from formulation import PUBLISHED
from formulation.published import PUBLISHED_M1_MS, PUBLISHED_MS, PUBLISHED_WITH_HEAD, published_designs
from hardware_models import Params
from hardware_models.device import Device, read_device
from hardware_models.latency import Latency
from studies.latency_data.published import alike_floor, m1_device, m1_fits, nano_device, nano_fit


def test_three_prices_fit_the_nine_figures() -> None:
    fit = nano_fit()
    assert fit.features == ("maps", "head", "layer")
    assert (fit.prices > 0).all()
    mape = {way: error["mape"] for way, error in fit.errors.items()}
    assert mape["fitted"] == pytest.approx(0.058, abs=5e-4)
    assert mape["leave_one_out"] == pytest.approx(0.083, abs=5e-4)
    assert mape["flops_leave_one_out"] == pytest.approx(0.204, abs=5e-4)
    assert mape["flops_with_head_leave_one_out"] == pytest.approx(0.091, abs=5e-4)


def test_the_head_is_work_where_it_was_timed() -> None:
    fit = nano_fit()
    head = dict(zip(fit.designs, fit.work[:, fit.features.index("head")], strict=True))
    for name, design in fit.designs.items():
        all_logits = 2 * 128 * design.embedding_width * design.vocabulary / 1e9
        assert head[name] == pytest.approx(all_logits if name in PUBLISHED_WITH_HEAD else 0)


def test_the_baselines_have_their_own_families_rules() -> None:
    counts = {name: Params()(design) for name, design in published_designs().items()}
    assert counts["Pythia-70M"] == 70_426_624
    assert counts["Pythia-162M"] == 162_322_944
    assert counts["Cerebras-111M"] == 111_050_496
    assert counts["GPT-2-124M"] == 124_439_808
    assert counts["OPT-125M"] == 125_239_296
    assert counts["OPT-350M"] == 331_196_416


def test_networks_with_the_same_work_bound_what_any_model_can_do() -> None:
    floor = alike_floor(PUBLISHED_MS)
    assert floor["networks"] == ["Pythia-162M", "GPT-2-124M"]
    assert floor["mape"] == pytest.approx(30 / 243 / 2)


def test_the_m1_has_a_table_for_each_length() -> None:
    fits = m1_fits()
    assert [fit.tokens for fit in fits] == [64, 128, 256, 512, 1024]
    assert sum(len(fit.ms) for fit in fits) == 45
    assert set(PUBLISHED_M1_MS) == set(PUBLISHED_MS)
    for fit in fits:
        mape = {way: error["mape"] for way, error in fit.errors.items()}
        assert mape["fitted"] < mape["leave_one_out"] < 0.17
        assert mape["leave_one_out"] < mape["flops_leave_one_out"]
    assert np.mean([fit.errors["leave_one_out"]["mape"] for fit in fits]) == pytest.approx(0.116, abs=2e-3)


@pytest.mark.parametrize("made", [nano_device(), m1_device()], ids=lambda device: device.name)
def test_the_shipped_devices_are_these_fits(made: Device) -> None:
    shipped = read_device(made.name)
    assert [table.name for table in shipped.tables] == [table.name for table in made.tables]
    for table, other in zip(shipped.tables, made.tables, strict=True):
        assert dict(table.prices) == pytest.approx(dict(other.prices), rel=1e-4)
        assert table.error is not None
        assert other.error is not None
        assert table.error.mape == pytest.approx(other.error.mape, rel=1e-3)
        assert table.validated == other.validated
        assert table.how == other.how


def test_designs_of_the_paper_take_what_it_prints() -> None:
    nano, m1 = read_device("jetson-nano"), read_device("apple-m1")
    assert "not identified" in nano.table().how["assumptions"][0]
    for name, design in PUBLISHED.items():
        assert Latency(nano.table())(design) == pytest.approx(PUBLISHED_MS[name], rel=0.1)
        assert Latency(m1.table("hidden-128"))(design) == pytest.approx(PUBLISHED_M1_MS[name][128], rel=0.1)
        assert Latency(m1.table("logits-128"))(design) > Latency(m1.table("hidden-128"))(design)
