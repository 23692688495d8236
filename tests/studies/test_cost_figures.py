"""What the figures and tables of the hardware lesson are made from, and that they show it."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from formulation import PUBLISHED, Architecture, Block, Measured
from hardware_models import (
    ActivationMemory,
    CacheMemory,
    DecodeLatency,
    Flops,
    Latency,
    Memory,
    Params,
    PrefillLatency,
    WeightMemory,
    read_datasheet,
    read_device,
)
from studies.lessons import cost_lesson as figures

DESIGN = PUBLISHED["MeRino-61M"]
BOARD = read_datasheet("raspberry-pi-4")
SERVER = read_device("amd-epyc-2cpu").table("torch-float32-prefill")


def rows_of(table: str) -> list[list[str]]:
    """The cells of a Markdown table, without header and rule."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_cost_table_names_the_structure_that_a_solver_can_know() -> None:
    hidden = Measured("hidden", "bytes", Memory())
    costs = [Params(), Flops(128), ActivationMemory(), Memory(), hidden]
    rows = rows_of(figures.cost_table(costs, {"ours": DESIGN}))
    assert [row[1] for row in rows] == ["sum", "sum", "maximum", "formula of 2 parts", "black box"]
    assert rows[0] == ["params", "sum", "parameters", "61.01 M"]
    assert rows[1][0] == "flops (seq_len=128)"
    assert rows[3][3] == rows[4][3]


@pytest.mark.parametrize("quantity", [Params(), Flops(128), DecodeLatency(BOARD), Latency(SERVER)], ids=lambda one: one.name)
def test_shares_add_up_to_the_whole(quantity: Params) -> None:
    parts = figures.shares(quantity, DESIGN)
    assert list(parts) == ["fixed", "block 1", "block 2", "block 3", "block 4", "maps", "ends"]
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["fixed"] == pytest.approx(quantity.fixed(DESIGN) / quantity(DESIGN))
    ends = quantity.entry(DESIGN.widths[0], DESIGN) + quantity.exit(DESIGN.widths[-1], DESIGN)
    assert parts["ends"] == pytest.approx(ends / quantity(DESIGN))
    assert parts["block 2"] == pytest.approx(quantity.block(DESIGN.blocks[1], DESIGN) / quantity(DESIGN))


def test_a_maximum_has_no_shares() -> None:
    with pytest.raises(ValueError, match="activation memory is a maximum"):
        figures.shares(ActivationMemory(), DESIGN)


def test_memory_is_what_stays_and_the_largest_step() -> None:
    memory = Memory(seq_len=256, bits=8)
    steps = figures.memory_steps(memory, DESIGN)
    assert list(steps)[:4] == ["map 768 → 640", "positions", "block 1", "map 640 → 768"]
    assert list(steps)[-4:] == ["block 4", "norm", "map 1024 → 768", "head"]
    held = WeightMemory(8)(DESIGN) + CacheMemory(256)(DESIGN)
    assert held + max(steps.values()) == memory(DESIGN)
    axis = figures.draw_memory(memory, DESIGN).axes[0]
    assert f"memory = {memory(DESIGN) / 1e6:.1f} MB" in [text.get_text() for text in axis.texts]
    assert axis.get_ylabel() == "memory [MB]"


def test_more_tokens_do_more_with_each_byte_until_arithmetic_binds() -> None:
    block = Block(768, 1152, 1)
    one, many = (figures.map_intensity(block, tokens) for tokens in (1, 64))
    assert one == pytest.approx(0.5, rel=0.01)  # a weight of 4 bytes for a multiply-add
    weights, moved = 768 * 1152, 64 * (768 + 1152)
    assert many == pytest.approx(2 * 64 * weights / (4 * (weights + moved)))
    assert figures.map_intensity(block, 64, "int8") == pytest.approx(4 * many)
    sheets = [BOARD, read_datasheet("titan-xp")]
    axis = figures.draw_roofline(sheets, block, (1, 64)).axes[0]
    marks = [line for line in axis.lines if line.get_marker() in "os" and len(line.get_xdata()) == 2]
    for line, sheet in zip(marks, sheets, strict=True):
        assert line.get_xdata().tolist() == [one, many]
        peak = sheet.figure("peak_flops", "float32") / 1e9
        assert line.get_ydata().tolist() == pytest.approx([sheet.bandwidth.value / 1e9 * one, peak])
        # What the picture says is what the cost model charges for the product: the slower of arithmetic and transfers.
        flops = 2 * 64 * weights
        assert flops / (1e9 * line.get_ydata()[1]) == pytest.approx(max(flops / (1e9 * peak), flops / many / sheet.bandwidth.value))


def test_unseen_predictions_are_those_behind_the_error_of_the_file() -> None:
    alone, constant, table = figures.unseen_predictions(SERVER)
    assert SERVER.error is not None
    assert table.error.mape == pytest.approx(SERVER.error.mape, rel=1e-4)
    assert table.error.within_10 == SERVER.error.within_10
    assert alone.error.mape > 5 * constant.error.mape  # what the lesson says: a constant makes FLOPs a good guide here
    assert alone.measured.tolist() == table.measured.tolist()
    lines = rows_of(figures.prediction_table([alone, constant, table]))
    assert lines[2][1] == f"{table.error.mape:.1%}"

    left, right = figures.draw_flops_and_table(SERVER, [alone, constant, table]).axes
    assert right.lines[1].get_xdata().tolist() == table.predicted.tolist()
    assert left.lines[0].get_ydata().tolist() == [row.mean_ms for row in SERVER.rows]
    assert left.lines[1].get_ydata()[0] == 0

    margin = SERVER.margin(0.95)
    axis = figures.draw_margin(table, 0.95, margin).axes[0]
    ratios = table.measured / table.predicted
    assert (ratios <= margin * (1 + 1e-6)).mean() >= 0.95
    assert f"{margin:.3f} × the prediction" in axis.texts[0].get_text()


def test_tables_without_rows_or_of_decoding_are_refused() -> None:
    for table in (read_device("jetson-nano").table(), read_device("amd-epyc-2cpu").table("torch-float32-decode")):
        with pytest.raises(ValueError, match="keeps no measured networks of a prefill"):
            figures.unseen_predictions(table)


def test_prices_times_amounts_are_the_prediction() -> None:
    *parts, total = rows_of(figures.price_table(SERVER, DESIGN))
    assert [row[0] for row in parts] == [name for name, _ in SERVER.prices]
    assert sum(float(row[4]) for row in parts) == pytest.approx(SERVER.predict(DESIGN), abs=0.05)
    assert total[4] == f"{SERVER.predict(DESIGN):.2f}"


def test_prices_with_a_condition_are_part_of_the_sum() -> None:
    table = read_device("pixel-watch-5").table("token")
    at_cliff, beside = (
        Architecture((Block(576, ffn_width, 16, heads=12),), shared=False, family="llama") for ffn_width in (768, 800)
    )
    held = {}
    for design in (at_cliff, beside):
        *parts, _ = rows_of(figures.price_table(table, design))
        assert sum(float(row[4]) for row in parts) == pytest.approx(table.predict(design), abs=0.05)
        held[design] = [float(row[4]) for row in parts[len(table.prices) :]]
    head, maps, _ = (each.price for each in table.conditional)
    weights = 16 * (4 * 576 * 768 + 3 * 576 * 768)  # of 12 heads of 64, and of an FFN with a gate
    assert held[at_cliff] == pytest.approx([head * 2 * 576 * 50257 / 1e9, maps * 2 * weights / 1e9, 0], abs=0.01)
    assert held[beside] == [0, 0, 0]


def test_committed_results_are_read_and_a_missing_one_is_a_sentence() -> None:
    record = figures.committed("latency_data/results.json")
    assert [device["device"] for device in record["data"]["devices"]] == ["raspberry-pi-4", "xeon", "titan-xp"]
    rows = figures.committed("latency_check/torch/rows.jsonl")
    assert rows[0]["conditions"]["device"] == "amd-epyc-2cpu"
    with pytest.raises(ValueError, match=r"studies/results/nothing\.json is not there; run this in a clone"):
        figures.committed("nothing.json")


def test_what_is_drawn_of_the_committed_results_is_in_them() -> None:
    devices = figures.committed("latency_data/results.json")["data"]["devices"]
    axis = figures.draw_within_ten(devices).axes[0]
    additive = next(line for line in axis.lines if line.get_label() == "additive")
    wanted = [
        100 * row["within_10"]
        for device in devices
        for row in device["errors"]
        if (row["side"], row["rows"], row["model"]) == ("decoder", "all", "additive")
    ]
    assert list(additive.get_xdata()) == wanted
    budgets = figures.committed("latency_check/torch/summary.json")["budgets"]
    lines = rows_of(figures.kept_table(budgets))
    assert [line[0] for line in lines] == ["as predicted", "with confidence 0.95"] * 2
    assert [line[1] for line in lines] == ["at the pace of the device file"] * 2 + ["as first measured"] * 2
    for line, own in zip(lines, (budgets, budgets, budgets["as_it_came"], budgets["as_it_came"]), strict=True):
        kind = "confident" if "confidence" in line[0] else "as predicted"
        assert line[2] == f"{own[kind]['kept']} of {own[kind]['designs']}"


def test_an_installation_has_the_results_that_notebooks_show() -> None:
    root = Path(__file__).resolve().parents[2]
    cells = "".join(path.read_text() for path in sorted((root / "notebooks").glob("*.ipynb")))
    shown = set(re.findall(r'committed\(\\"([^"\\]+)', cells))
    packed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["studies"]
    assert shown
    assert {f"results/{name}" for name in shown} == {name for name in packed if name.startswith("results/")}


def test_layers_are_priced_one_by_one() -> None:
    costs = {"FLOPs": Flops(128), "server": Latency(SERVER)}
    flops, server = rows_of(figures.layer_table(costs, (512, 1024), DESIGN))
    assert flops[:2] == ["FLOPs", "FLOPs"]
    assert float(flops[3].removesuffix(" G")) == pytest.approx(Flops(128).block(Block(1024, 1024, 1), DESIGN) / 1e9, rel=1e-3)
    longer = Architecture((Block(512, 512, 1), *DESIGN.blocks)), Architecture((Block(512, 512, 2), *DESIGN.blocks))
    one, two = (SERVER.predict(replace(design, shared=False)) for design in longer)
    assert float(server[2]) == pytest.approx(two - one, rel=1e-3)


def test_designs_stand_side_by_side_on_one_scale() -> None:
    small = Architecture((Block(512, 512, 3), Block(512, 1024, 1)))
    figure = figures.draw_designs({"small": small, "published": DESIGN})
    assert [axis.get_title() for axis in figure.axes] == ["small\n4 layers", "published\n8 layers"]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [512, 512, 512, 1024]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_shares_are_drawn_for_every_quantity(tmp_path: Path) -> None:
    sums = [Params(), Flops(128), PrefillLatency(BOARD)]
    figure = figures.draw_shares(sums, DESIGN)
    axis = figure.axes[0]
    widths = np.array([bar.get_width() for bar in axis.patches]).reshape(7, 3)
    assert widths.sum(axis=0) == pytest.approx([100, 100, 100])
    assert math.isclose(widths[0, 0], 100 * figures.shares(Params(), DESIGN)["fixed"])
    figure.savefig(tmp_path / "shares.png")
