"""The model of the paper's nine latencies: what it predicts, what bounds it, and the device file made of it."""

from __future__ import annotations

import pytest

from formulation import PUBLISHED
from formulation.published import PUBLISHED_MS
from hardware_models.device import read_device
from hardware_models.latency import Latency
from studies.latency_data.published import alike_floor, fit_published, published_device, published_record


def test_the_published_fit_is_better_than_flops_however_it_is_judged() -> None:
    fit = fit_published()
    assert 1 <= len(fit.features) <= 3
    assert (fit.prices > 0).all()
    errors = published_record(fit)["errors"]
    assert errors["fitted"]["mape"] < errors["leave_one_out"]["mape"] < errors["nested_leave_one_out"]["mape"]
    assert errors["nested_leave_one_out"]["mape"] < errors["flops_leave_one_out"]["mape"]
    assert errors["flops_leave_one_out"]["mape"] == pytest.approx(0.20, abs=0.01)
    assert [mape for _, mape in fit.best] == sorted(mape for _, mape in fit.best)


def test_networks_with_the_same_layers_bound_what_any_model_can_do() -> None:
    floor = alike_floor()
    assert floor["networks"] == ["Pythia-162M", "GPT-2-124M", "OPT-125M"]
    assert floor["mape"] == pytest.approx((30 / 243 + 0 + 31 / 182) / 3)


def test_the_shipped_jetson_nano_is_this_fit() -> None:
    shipped, made = read_device("jetson-nano"), published_device(fit_published())
    table, other = shipped.table(), made.table()
    assert dict(table.prices) == pytest.approx(dict(other.prices), rel=1e-4)
    assert table.error is not None
    assert other.error is not None
    assert table.error.mape == pytest.approx(other.error.mape, rel=1e-3)
    assert table.validated == other.validated
    assert "not identified" in table.how["assumptions"][0]
    for name, design in PUBLISHED.items():
        assert Latency(table)(design) == pytest.approx(PUBLISHED_MS[name], rel=0.1)
